"""Releases: the same galaxies from half the bytes, damage noticed, and a card in the run's own numbers."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch

import release_checkpoint
from config_physics import RELEASED, Config
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure import photometry
from galaxies.storage import release
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.storage.release import (
    SETTINGS,
    WEIGHTS,
    choose_precision,
    default_checkpoint,
    load_state,
    without_folders,
    write_release,
)
from galaxies.validation.report import model_card
from galaxies.validation.report.model_card import training_facts
from release_checkpoint import LARGEST_BYTES
from tests.conftest import ROOT, fork_script
from tests.generation.painted import write_flux_checkpoint
from tests.validation.reports import whole


@pytest.fixture(scope="module")
def checkpoint(trained):
    return trained / "checkpoints/tiny/latest.pt"


@pytest.fixture
def released(checkpoint, tmp_path):
    return write_release(load_checkpoint(checkpoint), tmp_path / "released", torch.float16, {"credit": "nobody"})


def draw(path):
    sampler = GalaxySampler.from_checkpoint(path, "cpu")
    values = torch.stack([sampler.complete(index, torch.full((4,), torch.nan), index) for index in range(4)])
    return sampler.generate(torch.arange(4), values, [0, 1, 2, 3]).float()


def test_a_release_draws_the_same_galaxies(checkpoint, released):
    assert (draw(released) - draw(checkpoint)).abs().max() <= 2


def test_single_precision_changes_nothing(checkpoint, tmp_path):
    path = write_release(load_checkpoint(checkpoint), tmp_path, torch.float32, {})
    assert torch.equal(draw(path), draw(checkpoint))


def test_a_release_holds_no_more_than_drawing_needs(checkpoint, released):
    assert released.stat().st_size < 0.3 * checkpoint.stat().st_size
    state = load_state(released)
    assert set(state["networks"]) == {"generator", "predictor"}
    # No path of the disk that it was made on.
    assert state["config"] == load_checkpoint(checkpoint)["config"] | {"data": ""}
    assert "/" not in state["provenance"]["source"]


def test_settings_of_the_other_family_may_have_had_other_defaults(checkpoint, tmp_path):
    state = load_checkpoint(checkpoint)
    state["config"] = state["config"] | {"noise_shift": 3.0}
    path = write_release(state, tmp_path, torch.float32, {})
    assert torch.equal(draw(path), draw(checkpoint))


@pytest.mark.parametrize("name", [WEIGHTS, SETTINGS])
def test_damage_is_noticed(released, name):
    path = released.with_name(name)
    content = bytearray(path.read_bytes())
    place = content.index(b'"epoch": ') + 9 if name == SETTINGS else len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        load_state(released)


def test_networks_of_another_release_are_refused_in_one_sentence(checkpoint, tmp_path):
    state = load_checkpoint(checkpoint)
    state["ema"] = {name: value for name, value in state["ema"].items() if "grain" not in name}
    path = write_release(state, tmp_path, torch.float32, {})
    with pytest.raises(
        UserError, match=r"cannot be used, since networks\.generator\.grain\.kernels is missing: get it again"
    ):
        GalaxySampler.from_checkpoint(path, "cpu")


@pytest.mark.parametrize("name", [WEIGHTS, SETTINGS])
def test_half_a_release_is_none(released, name):
    released.with_name(name).unlink()
    with pytest.raises(UserError, match=r"there is no .*a release is generator.safetensors with generator.json"):
        load_state(released)


def test_a_release_of_a_newer_program_is_refused_and_says_so(released):
    path = released.with_name(SETTINGS)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(UserError, match="format version 99 and this program reads 11 and older: it is newer than this"):
        load_state(released)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 99, "sha256": ""}', '{"format_version": 1}'])
def test_strange_settings_are_refused(released, text):
    released.with_name(SETTINGS).write_text(text)
    with pytest.raises(UserError, match=r"generator\.json"):
        load_state(released)


def test_the_script_writes_card_and_sheet(trained, checkpoint, dataset_path, tmp_path):
    report = tmp_path / "report"
    (report).mkdir()
    state = load_checkpoint(checkpoint)
    content = {
        "checkpoint": {"run": "tiny", "step": state["step"], "attributes": ["size"]},
        "control": {
            "attributes": {"uniform": {"size": {"judge": {"all": {"mae": {"value": 0.0123}}}}}, "test": {"size": {}}},
            "gaming": {"test": {}},
            "classes": {"test": {}, "real": {}},
        },
        "realism": {"statistics": {"mean": {}}, "features": {}, "real_or_fake": {}},
        "honesty": {"copies": {}, "variety": {}},
        "counts": {"test": 10, "uniform": 10, "real": 5},
        "seconds": {"generation": 1.0},
        "photometry_was_trained_on": True,
    }
    (report / "report.json").write_text(json.dumps(whole(content)))
    out = tmp_path / "released"
    options = ["--checkpoint", checkpoint, "--report", report, "--data", dataset_path, "--credit", "the makers"]
    done = fork_script("release_checkpoint.py", *options, "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {WEIGHTS, SETTINGS, "samples.png", "card.md"}
    card = (out / "card.md").read_text(encoding="utf-8")
    assert "Credit: the makers" in card and "| size, judge: mae [frame widths] | 0.0123 |" in card
    assert "| half-light radius, photometry: MAE over the mean | ≤ 0.1 | – | left out |" in card
    # Settings that are tuples come back from a checkpoint as lists, and are no change.
    changed = re.findall(r"`(\w+)`", card.partition("other than the default settings:")[2].partition(". Epoch")[0])
    given = {"seed", "width", "latent_dim", "pretrain_epochs", "epochs", "batch_size", "checkpoint_every", "log_every"}
    assert set(changed) == given
    assert "`width` 4" in card and "/ floor" in card and "of 255 grey levels" in card
    assert "SDSS composites are asinh-stretched" in card.partition("## Limits")[2] and "nJy" not in card
    assert re.search(r"Machine: .+, \d+ cores, torch \d", card)
    facts = json.loads((out / SETTINGS).read_text())["facts"]
    assert facts["precision"] == "float16" and facts["half_precision_difference"]["most"] <= 2

    (report / "report.json").write_text(json.dumps(whole(content | {"checkpoint": {"run": "other", "step": 1}})))
    done = fork_script("release_checkpoint.py", *options, "--out", out, cwd=tmp_path)
    assert done.returncode == 2 and "is about step 1 of run other" in done.stderr


class Written(Exception):  # noqa: N818 - not an error
    pass


@pytest.mark.parametrize(
    ("family", "size", "said"),
    [
        ("GAN", 12_000_000, None),
        (
            "GAN",
            13_300_000,
            "take 13.3 MB, more than the 12 that a release of family GAN may: train a narrower network",
        ),
        ("diffusion", 13_300_000, None),  # width 32
        ("diffusion", 30_000_001, "take 30.0 MB, more than the 30 that a release of family diffusion may"),
    ],
)
def test_weights_have_a_limit_by_family(untrained, dataset_path, tmp_path, monkeypatch, family, size, said):
    checkpoint = untrained[family.lower()]
    state = load_checkpoint(checkpoint)
    state["provenance"]["sha256"] = PreparedDataset.open(dataset_path).manifest["sha256"]
    save_checkpoint(tmp_path / "latest.pt", state)

    def write(*_):
        raise Written

    monkeypatch.setattr(model_card, "report_about", lambda *_: None)
    monkeypatch.setattr(model_card, "training_facts", lambda *_: {})
    monkeypatch.setattr(release, "choose_precision", lambda *_: ("float16", {}, size))
    monkeypatch.setattr(release, "write_release", write)
    options = ["--checkpoint", tmp_path / "latest.pt", "--report", tmp_path, "--data", dataset_path, "--credit", "me"]
    with pytest.raises(UserError if said else Written, match=said):
        release_checkpoint.main([*map(str, options), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("many_differ_by", "few_differ_by", "chosen"), [(0, 200, "float16"), (2, 2, "float16"), (3, 3, "float32")]
)
def test_half_precision_is_taken_if_almost_no_value_changes(checkpoint, many_differ_by, few_differ_by, chosen):
    drawn = []

    def draw(weights):
        assert load_state(weights)["phase"] == "generator"
        drawn.append(weights.stat().st_size)
        images = torch.zeros(10_000, dtype=torch.uint8)
        if len(drawn) == 2:
            images[:], images[:9] = many_differ_by, few_differ_by  # 9 are less than a thousandth
        return images

    precision, difference, size = choose_precision(load_checkpoint(checkpoint), draw)
    assert (precision, difference["most"], difference["largest"]) == (chosen, many_differ_by, few_differ_by)
    assert drawn[1] < 0.7 * drawn[0] and size == drawn[chosen == "float16"]


def test_facts_tell_both_phases_and_the_machine(checkpoint):
    facts = training_facts(checkpoint, load_checkpoint(checkpoint))
    assert facts["steps"] == load_checkpoint(checkpoint)["step"]
    assert facts["minutes"].keys() == {"predictor", "generator"}
    assert facts["machine"]["cores"] >= 1 and facts["machine"]["torch"] == torch.__version__


def test_a_newest_run_without_a_trained_generator_is_passed_over(checkpoint, tmp_path, capsys):
    state = load_checkpoint(checkpoint)
    for name in ("another", "gan"):
        write_release(state, tmp_path / "released" / name, torch.float16, {})
    save_checkpoint(tmp_path / "early/latest.pt", state | {"phase": "predictor"})
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/latest.pt").write_bytes(b"not a checkpoint")
    assert default_checkpoint(tmp_path) == tmp_path / "released/gan" / WEIGHTS
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.endswith("trying the next one") for line in lines)
    with pytest.raises(UserError, match="there is no checkpoint in"):
        default_checkpoint(tmp_path / "damaged")


def test_several_ranks_count_in_the_facts(checkpoint, tmp_path):
    state = load_checkpoint(checkpoint) | {"step": 60}
    lines = [
        {"kind": "start", "phase": "predictor", "step": 0, "machine": {"cores": 8}, "ranks": 4},
        {"kind": "train", "phase": "predictor", "step": 30, "images_per_s": 64.0},
        {"kind": "train", "phase": "generator", "step": 60, "images_per_s": 64.0},
    ]
    save_checkpoint(tmp_path / "latest.pt", state)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = training_facts(tmp_path / "latest.pt", state)
    # 30 and 60 steps of 4 x 16 images at 64 images/s
    assert (facts["images_per_step"], facts["minutes"]) == (64, {"predictor": 0.5, "generator": 1.0})


@pytest.mark.parametrize("name", ["gan", "diffusion"])
def test_what_comes_with_the_program_draws_galaxies(name):
    folder = ROOT / "checkpoints" / RELEASED / name
    assert (folder / WEIGHTS).stat().st_size < LARGEST_BYTES["GAN" if name == "gan" else name]
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "Sloan Digital Sky Survey" in card and "| judge: frechet / floor |" in card
    sampler = GalaxySampler.from_checkpoint(folder / WEIGHTS, "cpu")
    classes, seeds = torch.arange(4).repeat(2), list(range(8))
    values = sampler.complete_all(classes, torch.full((8, len(sampler.attributes)), torch.nan), seeds)
    measured = photometry.measure(sampler.generate(classes, values, seeds).float() / 255)
    assert (measured.flag & photometry.NO_SOURCE == 0).all()
    size = [a.name for a in sampler.attributes].index("size")
    assert (measured.size - values[:, size]).abs().median() < 0.03


@pytest.mark.parametrize(
    "text, left",
    [
        ("Galaxy Zoo 2 in /home/ann/gz2", "Galaxy Zoo 2 in gz2"),
        (r"joined: C:\Users\ann\gz2, D:\labelled", "joined: gz2, labelled"),
        ("spirals and/or discs, 3/4 of them", "spirals and/or discs, 3/4 of them"),
    ],
)
def test_folders_of_the_disk_stay_at_home(text, left):
    assert without_folders(text) == left


def test_a_release_of_flux_is_compared_by_its_stretched_images(tmp_path):
    checkpoint = write_flux_checkpoint(tmp_path / "flux/latest.pt", torch.full((4, 5, 5), 0.04), run="flux")
    state = load_checkpoint(checkpoint)
    path = write_release(state, tmp_path / "released", torch.float32, {"credit": "the survey"})
    levels = release_checkpoint._draw(path)
    sampler = GalaxySampler.from_checkpoint(path, "cpu")
    assert levels.dtype == torch.float32 and levels.shape == (32, 4, 64, 64)
    classes = torch.tensor([0, 1] * 16)  # those of the run
    values = sampler.complete_all(classes, torch.full((32, 4), torch.nan), list(range(32)))
    flux = sampler.generate(classes, values, list(range(32)))
    softening = torch.tensor(state["config"]["softening"]).double()[:, None, None]
    torch.testing.assert_close(
        levels.double(), torch.asinh(flux.double() / softening) / math.asinh(1000) * 255, rtol=1e-4, atol=1e-2
    )
    # What drawing needs of flux travels with it.
    assert sampler.config.softening == Config.from_dict(state["config"]).softening
    assert torch.equal(sampler.psfs, state["population"]["psfs"])
    assert sampler.origin == {"run": "flux", "step": "7", "source": "mock survey", "credit": "the survey"}
    assert torch.equal(flux, GalaxySampler.from_checkpoint(checkpoint, "cpu").generate(classes, values, range(32)))
    precision, difference, _ = choose_precision(state, release_checkpoint._draw)
    assert precision == "float16" and 0 < difference["most"] <= 2
