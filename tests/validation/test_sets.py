"""Sets against a reference: known answers, telescope or galaxies, the page and the numbers."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import evaluate
from galaxies.common.errors import UserError
from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.generation.catalogue import write_pictures
from galaxies.validation import set_comparison, subject
from galaxies.validation.evaluation import evaluate as evaluate_checkpoint
from galaxies.validation.report import sets_plots
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.report.drawing import THEMES
from galaxies.validation.report.sets_contents import Telescope
from galaxies.validation.report.sets_page import build_sets_page
from galaxies.validation.report.sets_plots import PLOTS
from galaxies.validation.set_comparison import compare_sets
from tests.conftest import render_galaxies, run_script
from tests.validation.flux_sets import SCALE, flux_set, light


@pytest.fixture(autouse=True)
def _without_judge(monkeypatch):
    """None of these asks what a judge sees, and to train one takes minutes."""
    monkeypatch.setattr(set_comparison, "load_judge", lambda data, device: LeftOut("there is none in tests"))


@pytest.fixture(scope="module")
def real(wide_path):
    return wide_path


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return flux_set(tmp_path_factory.mktemp("reference") / "flux", 440, seed=1)


def compared(reference: Path, *paths: Path, count: int = 44, **options):
    """Return the compared sets, by as few steps of a fresh network as there may be."""
    return compare_sets(reference, paths, count, 0, "cpu", steps=1, **options).report.sets


# Known answers


def test_a_set_against_itself_is_as_far_as_real_from_real(real):
    (found,) = compared(real, real, count=100)
    assert found.shared == len(PreparedDataset.open(real).rows("test")) + len(PreparedDataset.open(real).rows("judge"))
    assert 0.7 < found.multiples()["W1 of the statistics, mean"] < 1.4
    assert isinstance(found.telescope, Telescope)


def test_the_report_of_a_checkpoint_has_the_figures_of_its_galaxies_as_a_set(real, trained, tmp_path, monkeypatch):
    """Two ways to one number: generated and compared at once, and written to a folder that is read as any set."""
    monkeypatch.setattr(subject, "load_judge", lambda data, device: LeftOut("there is none in tests"))
    made = evaluate_checkpoint(trained / "checkpoints/tiny/latest.pt", real, 80, 0, "cpu", steps=1)
    galaxies = made.pictures.galaxies.test
    names = np.array(PreparedDataset.open(real).layout.classes)[galaxies.classes]
    write_pictures(
        tmp_path / "made", {"npz"}, galaxies.images, pd.DataFrame({"seed": range(40), "morphology": names}), ()
    )
    (found,) = compared(real, tmp_path / "made", count=80)
    assert found.galaxies == len(galaxies.classes) == 40
    assert repr(found.realism) == repr(made.report.realism)  # every figure, and NaN where it is none
    assert found.multiples()["W1 of the statistics, mean"] > 0


def test_a_set_that_is_shifted_in_one_statistic_is_told_by_it(real, tmp_path):
    data = PreparedDataset.open(real)
    images = data.images[data.rows("train")].astype(np.int16)
    images[:, 2] = images[:, 2] + 9  # blue sky is lighter
    folder = tmp_path / "shifted"
    folder.mkdir()
    for k, image in enumerate(images.clip(0, 255).astype(np.uint8)):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{k:04d}.png")
    (found,) = compared(real, folder, count=60)  # of which a tenth are six
    assert found.differing[0].statistic == "sky_blue"
    assert found.differing[0].shift > 1
    assert found.differing[0].percentiles[1] - found.differing[0].reference_percentiles[1] == pytest.approx(
        9 / 255, rel=0.1
    )
    ends = found.differing[0].ends
    assert max(each.value for each in ends.low) <= min(each.value for each in ends.high)
    assert len({each.name for each in (*ends.low, *ends.high)}) == 12


def test_galaxies_of_the_reference_are_left_out_under_any_name(real, tmp_path):
    data = PreparedDataset.open(real)
    (tmp_path / "pictures").mkdir()
    rows = np.r_[data.rows("test")[:30], data.rows("train")[:50]]
    for k, row in enumerate(rows):
        Image.fromarray(data.images[row].transpose(1, 2, 0)).save(tmp_path / "pictures" / f"{k}.png")
    (found,) = compared(real, tmp_path / "pictures", count=80)
    assert (found.galaxies, found.shared) == (50, 30)


def test_one_band_in_common_is_enough_and_the_judge_says_why_it_is_left_out(flux, tmp_path):
    layout = DataLayout("flux", (FluxBand("z"), FluxBand("r", 900.0)), ("galaxy",))
    images = light(40, 2).astype(np.float32) + 20 * np.random.default_rng(1).standard_normal((40, 2, 64, 64)).astype(
        "f4"
    )
    with DatasetWriter(tmp_path / "other", 64, 1.0, {}, layout=layout) as writer:
        writer.append(images, [f"o{k}" for k in range(40)], ["galaxy"] * 40, {"pixel_scale": np.full(40, SCALE)})
    (found,) = compared(flux, tmp_path / "other", count=60)
    assert found.realism.features["judge"].reason == "the judge sees g, r, and the sets share r alone"
    assert set(found.realism.statistics.table) >= {"magnitude_r", "noise_r"}
    assert "magnitude_g" not in found.realism.statistics.table
    assert any("its band r lies at 900 nm" in remark for remark in found.remarks)


# Telescope or galaxies


def test_a_broader_telescope_is_told(flux, tmp_path):
    (found,) = compared(flux, flux_set(tmp_path / "blurred", 40, seed=2, fwhm=6.0, noise=30.0))
    assert min(found.multiples().values()) > 2
    assert found.telescope.verdict == "telescope"
    assert not found.telescope.unknown
    assert all(measure.after < 0.5 * measure.before for measure in found.telescope.measures)


def test_other_sizes_are_galaxies(flux, tmp_path):
    (found,) = compared(flux, flux_set(tmp_path / "larger", 40, seed=2, sizes=(4.0, 7.0)))
    assert min(found.multiples().values()) > 2
    assert found.telescope.verdict == "galaxies"
    assert {"size_arcsec"} & {each.statistic for each in found.differing}


def test_a_width_that_nobody_told_is_not_matched_and_that_is_said(flux, tmp_path):
    (found,) = compared(flux, flux_set(tmp_path / "untold", 40, seed=2, fwhm=6.0, told=False))
    assert "not known of both sets" in found.telescope.unknown
    assert found.telescope.verdict == "galaxies"


def test_a_picture_that_was_smoothed_is_the_telescope(real, tmp_path):
    rng = np.random.default_rng(3)
    images, _ = render_galaxies(40, seed=5)
    frequency = np.fft.fftfreq(64)[:, None] ** 2 + np.fft.rfftfreq(64) ** 2
    blurred = np.fft.irfft2(np.fft.rfft2(images) * np.exp(-2 * (np.pi * 1.2) ** 2 * frequency), s=(64, 64))
    (tmp_path / "smooth").mkdir()
    for k, image in enumerate((blurred + rng.uniform(-0.5, 0.5, blurred.shape)).round().clip(0, 255).astype(np.uint8)):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "smooth" / f"{k}.png")
    (found,) = compared(real, tmp_path / "smooth")
    assert "do not say what blurred them" in found.telescope.unknown
    assert found.telescope.verdict == "telescope"


@pytest.mark.parametrize(
    ("after", "verdict"), [((1.0, 1.1), "telescope"), ((2.9, 4.8), "galaxies"), ((2.0, 3.0), "both")]
)
def test_the_verdict_follows_what_went_away(after, verdict):
    before = {"a": 3.0, "b": 5.0}
    found = Telescope.of([], "", before, dict(zip(before, after, strict=True)), [])
    assert found.verdict == verdict
    assert [measure.part for measure in found.measures] == pytest.approx(
        [1 - (value - 1) / (first - 1) for value, first in zip(after, before.values(), strict=True)]
    )
    assert Telescope.of([], "", {"a": 1.1}, {"a": 1.0}, []).verdict == "alike"


# The command


@pytest.fixture(scope="module")
def command(real, tmp_path_factory):
    """What was asked of the command for pictures and for the reference itself, and what was compared by it."""
    folder = tmp_path_factory.mktemp("command")
    for k, image in enumerate(render_galaxies(40, seed=9)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{k}.png")
    argv = ["sets", "--reference", real, "--compare", folder, real, "--out", folder / "out", "--count", 40]
    argv = [*map(str, argv), "--steps", "1", "--device", "cpu"]
    found = []

    def kept(*arguments):
        found.append(compare_sets(*arguments))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(set_comparison, "load_judge", lambda data, device: LeftOut("there is none in tests"))
        patch.setattr(set_comparison, "compare_sets", kept)
        evaluate.main(argv)
    return argv, folder, found[0]


def test_the_command_writes_a_page_that_needs_nothing_else(command, monkeypatch, capsys):
    argv, folder, found = command
    out = folder / "out"
    plain = json.loads((out / "sets.json").read_text(encoding="utf-8"))
    assert plain["format_version"] == 1
    assert [each["galaxies"] for each in plain["sets"]] == [40, 40]
    page = (out / "sets.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert {f"{name}.png" for name in ("samples", "distances", "statistics", "power")} <= {
        f.name for f in out.iterdir()
    }
    # Once more, of the first set alone, as which it was compared already.
    pictures = replace(found.pictures, **{n: getattr(found.pictures, n)[:1] for n in ("sets", "names", "matched")})
    first = replace(found, report=replace(found.report, sets=found.report.sets[:1]), pictures=pictures)
    monkeypatch.setattr(set_comparison, "compare_sets", lambda reference, paths, *_: first if len(paths) == 1 else None)
    monkeypatch.setattr(sets_plots, "PLOTS", {"samples": PLOTS["samples"]})
    alone = [*argv, "--compare", str(folder)]
    evaluate.main(alone)  # which replaces its own
    assert "wrote" in capsys.readouterr().out
    assert len(json.loads((out / "sets.json").read_text(encoding="utf-8"))["sets"]) == 1
    (out / "sets.json").write_text("{}", encoding="utf-8")
    shutil.copy(out / "samples.png", out / "mine.txt")
    with pytest.raises(UserError):
        evaluate.main(alone)


@pytest.mark.parametrize(
    ("source", "called", "what"),
    [
        ("mock survey of seed 3", "mock", "The reference is a mock survey"),
        ("simulation: TNG50 with labels.csv", "simulated", "The reference is a simulation"),
    ],
)
def test_a_reference_that_nobody_observed_is_never_called_real(real, command, source, called, what):
    pytest.importorskip("matplotlib")
    found = command[2]
    report = replace(
        found.report, sets=[replace(each, name=f"set {k}", path="") for k, each in enumerate(found.report.sets)]
    )
    reference = replace(report.reference, source=source, path=str(real.with_name("held")))
    told = replace(report, reference=reference)
    words = re.sub("<style>.*?</style>|<[^>]+>", " ", build_sets_page(told, found.pictures, {}), flags=re.S)
    assert what in words and f"{called} test galaxies" in words and f"is as good as {called}" in words
    assert re.findall(r"\breal\b", words) == ["real"]  # being like it says nothing of being so
    label = PLOTS["telescope"](told, found.pictures, THEMES["light"]).axes[0].get_xlabel()
    assert f"over that of {called} from {called};" in label


def test_a_mistake_ends_with_status_2(tmp_path, real):
    result = run_script("evaluate.py", "sets", "--reference", real, "--compare", "nothing", "--out", "o", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.strip().startswith("evaluate.py: error: nothing does not exist")
    assert not (tmp_path / "o").exists()
