"""The comparison of mock with real galaxies: identical, brightened and ill-matched samples."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from config_physics import MORPHOLOGY_NAMES, PHOTOMETRIC_ATTRIBUTES
from galaxies.common.errors import UserError
from galaxies.datasets.writing import DatasetWriter
from studies import realism
from tests.conftest import render_galaxies, run_script

GROUPS = {*MORPHOLOGY_NAMES, "all"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Images this small are slower to share among threads than to measure."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_images(path, images, names, prefix="5877300000000"):
    with DatasetWriter(path, images.shape[-1], 0.5, {"source": "rendered for a test"}) as writer:
        writer.append(images, [f"{prefix}{k:05d}" for k in range(len(images))], names, {})
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("realism") / "real", *render_galaxies(160))


@pytest.fixture(scope="module")
def brightened(tmp_path_factory):
    """The same kind of galaxies, 30 % brighter and without a galaxy in two frames, one of them with a bright edge."""
    images, names = render_galaxies(140, seed=1)
    images = (images * 1.3).clip(0, 255).astype(np.uint8)
    images[:2] = 5
    return write_images(tmp_path_factory.mktemp("realism") / "mock", images, names, "mock-")


def run(real, mock, out, *options):
    """Run the script in this process, which saves starting another; return its report and what it printed."""
    arguments = ["--mock", mock, "--real", real, "--out", out, "--device", "cpu", *options]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        realism.main([str(argument) for argument in arguments])
    return json.loads((out / "realism.json").read_text(encoding="utf-8")), printed.getvalue()


@pytest.fixture(scope="module")
def against_itself(real, tmp_path_factory):
    return run(real, real, tmp_path_factory.mktemp("itself") / "out", "--no-classifier")


@pytest.fixture(scope="module")
def against_brightened(real, brightened, tmp_path_factory):
    out = tmp_path_factory.mktemp("brightened") / "out"
    return *run(real, brightened, out, "--percentiles", "--steps", 1), out


def test_a_sample_has_no_distance_from_itself(against_itself):
    report, text = against_itself
    for name, row in report["statistics"].items():
        assert set(row) == GROUPS, name
        for group, cell in row.items():
            # "all" takes random galaxies of each class, here every one of them.
            assert cell["w1"] == pytest.approx(0, abs=1e-9), (name, group)
            assert 0 < cell["floor"] < 1, (name, group)
            assert cell["shift"] == 0
    assert "!" not in text
    assert "0 of 68 distances within a class are above 0.5" in text


def test_every_statistic_asked_for_is_there(against_itself):
    assert set(against_itself[0]["statistics"]) == {
        *PHOTOMETRIC_ATTRIBUTES,
        *(f"{what}_{color}" for what in ("sky", "noise") for color in ("red", "green", "blue")),
        *("noise_correlation", "noise_grayness"),
        *(f"power_{band}" for band in ("very_low", "low", "mid", "high")),
    }


def test_a_brightened_sample_is_marked(against_brightened):
    report, text, _ = against_brightened
    brightness = report["statistics"]["brightness"]["spiral"]
    assert brightness["w1"] > 0.5
    assert brightness["shift"] > 0.5
    assert brightness["mock"]["percentiles"][1] > 1.2 * brightness["real"]["percentiles"][1]
    line = next(line for line in text.splitlines() if line.startswith("brightness"))
    assert f"{brightness['w1']:.3f} ({brightness['floor']:.3f})!" in line
    # Colors are ratios of light, which a factor leaves alone.
    assert report["statistics"]["color"]["elliptical"]["w1"] < 0.5


def test_frames_without_a_galaxy_are_counted_and_left_out(against_brightened):
    report, text, _ = against_brightened
    size = report["statistics"]["size"]
    assert (size["spiral"]["mock"]["known"], size["elliptical"]["mock"]["known"]) == (34, 34)
    assert report["statistics"]["sky_red"]["spiral"]["mock"]["known"] == 35
    assert report["counts"]["spiral"] == {"mock": 35, "real": 40}
    assert report["flagged"]["spiral"]["mock"]["no source near the centre"] == pytest.approx(1 / 35)
    assert report["flagged"]["merger"]["real"]["no source near the centre"] == 0
    assert "2.9% / 0.0%" in text


def test_percentiles_are_printed_on_request(against_itself, against_brightened):
    assert "off by" in against_brightened[1]
    assert "off by" not in against_itself[1]


def test_classifiers_report_every_class_and_a_control(against_brightened):
    report, text, _ = against_brightened
    assert set(report["network"]) == set(report["regression"]) == GROUPS
    assert "all" in report["control"]  # half of a small sample leaves some classes too few pairs
    for part in ("network", "control", "regression"):
        for cell in report[part].values():
            assert 0 <= cell["accuracy"] <= 1
            assert 0 <= cell["auc"] <= 1
            expected = (cell["accuracy"] * (1 - cell["accuracy"]) / (2 * cell["pairs"])) ** 0.5
            assert cell["standard_error"] == pytest.approx(expected)
    assert report["regression"]["all"]["auc"] > 0.8
    losses = list(report["telling"]["all"].values())
    assert losses == sorted(losses, reverse=True)
    assert f"all         {next(iter(report['telling']['all']))} {losses[0]:.3f}" in text


def test_sheets_have_room_for_every_galaxy(against_brightened):
    *_, out = against_brightened
    # Tiles of 128 pixels and gaps of 2: eight columns twice, two rows for each of four classes.
    with Image.open(out / "mock_and_real.png") as sheet:
        assert sheet.size == (96 + 2 * (8 * 130 + 2) + 36 + 8, 34 + 4 * (2 * 130 + 2) + 8)
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels[34:, 96:].max() > 150
    for name in MORPHOLOGY_NAMES:
        with Image.open(out / f"{name}.png") as sheet:
            assert sheet.size == (8 + 2 * (6 * 194 + 2) + 36 + 8, 34 + 6 * 194 + 2 + 8)


def test_the_seed_decides_everything(real, brightened, against_brightened, tmp_path):
    expected, _, out = against_brightened
    again, _ = run(real, brightened, tmp_path / "out", "--steps", 1)
    assert again == expected
    for name in ("mock_and_real.png", "merger.png"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()


def test_the_script_runs_and_writes_below_samples(real, tmp_path):
    options = ["--mock", real, "--real", real, "--count", 12, "--no-classifier"]
    result = run_script("studies/realism.py", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[3].split() == ["galaxies", *["12", "/", "12"] * 4, "48", "/", "48"]
    names = {path.name for path in (tmp_path / "samples" / "realism").iterdir()}
    assert names == {"realism.json", "mock_and_real.png", *(f"{name}.png" for name in MORPHOLOGY_NAMES)}


def test_images_of_another_size_are_an_error(real, tmp_path):
    other = write_images(tmp_path / "other", *render_galaxies(8, side=128))
    with pytest.raises(UserError, match=r"other has images of 128 pixels and .*real of 64"):
        realism.main(["--mock", str(other), "--real", str(real), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "5"], "no class has 10 galaxies in both datasets"),
        (["--count", "0"], "argument --count: 0 is below 1"),
        (["--steps", "0"], "argument --steps: 0 is below 1"),
        (["--seed", "-1"], "argument --seed: -1 is below 0"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
    ],
)
def test_mistakes_are_user_errors(real, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        realism.main(["--mock", str(real), "--real", str(real), "--out", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()
