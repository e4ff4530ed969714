"""Work of before: the releases and runs of commit e82a0c7, and how a step of the table of migrations is written.

What e82a0c7/ holds was made by that commit on an AMD EPYC, x86_64: the two releases that came with it, the galaxies
that it drew from them as wanted.csv asks, and in runs.zip two runs of width 4 that were stopped within an epoch, the
dataset that they were trained on, and what that commit made of them when it went on.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import generate_from_checkpoint
import resume_training
from config_physics import Config, morphologies_of
from galaxies.common.errors import UserError
from galaxies.storage import migrations
from galaxies.storage.checkpoint import _digest, load_checkpoint, save_checkpoint
from galaxies.storage.migrations import (
    FORMAT_VERSION,
    MIGRATIONS,
    add_setting,
    drop_setting,
    migrate,
    rename_tensors,
)
from galaxies.storage.release import load_state, write_release
from galaxies.storage.schema import RUN_STATE
from galaxies.training import trainer as trainer_module
from galaxies.training.health import check_samples

OLD = Path(__file__).parent / "e82a0c7"
FAMILIES = ("gan", "diffusion")


def test_a_run_of_before_averages_were_kept_keeps_none():
    assert MIGRATIONS[10]({"config": {"width": 4}})["config"] == {"width": 4, "average_snapshots": 0}


def draw(checkpoint: Path, out: Path) -> np.ndarray:
    """Return the images that generate_from_checkpoint.py draws of the galaxies of wanted.csv."""
    wanted = ["--requests", str(OLD / "wanted.csv"), "--format", "npz", "--out", str(out)]
    generate_from_checkpoint.main(["--checkpoint", str(checkpoint), "--device", "cpu", *wanted])
    with np.load(out / "images.npz") as file:
        return file["images"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Releases


@pytest.mark.parametrize("name", FAMILIES)
def test_a_release_of_before_draws_the_same_pictures(name, tmp_path):
    images = draw(OLD / name / "generator.safetensors", tmp_path)
    with np.load(OLD / name / "images.npz") as file:
        drawn_then = file["images"]
    # The same bytes on a machine like the one of then. Another processor's kernels sum in another order, which now and
    # then takes a value to the next grey level.
    change = np.abs(images.astype(int) - drawn_then)
    assert change.max() <= 1 and (change > 0).mean() < 0.01
    asked = ("seed", "morphology", "requested_size", "requested_brightness", "requested_ellipticity", "set_by_user")
    for now, then in zip(rows(tmp_path / "catalogue.csv"), rows(OLD / name / "catalogue.csv"), strict=True):
        assert [now[column] for column in asked] == [then[column] for column in asked]
        for column in ("measured_size", "measured_brightness", "measured_ellipticity"):
            assert float(now[column]) == pytest.approx(float(then[column]), abs=2e-3)


def test_a_release_has_the_settings_of_today_with_the_values_of_then():
    state = load_state(OLD / "gan/generator.safetensors")
    assert state["format_version"] == FORMAT_VERSION
    assert state["config"].keys() == {field.name for field in dataclasses.fields(Config)}
    config = Config.from_dict(state["config"])
    assert (config.warmup, config.learning_rate_width) == (
        0,
        Config.learning_rate_width,
    )  # the latter of diffusion only
    assert not config.readable_only
    diffusion = Config.from_dict(load_state(OLD / "diffusion/generator.safetensors")["config"])
    assert (diffusion.warmup, diffusion.learning_rate_width) == (0, 0)
    assert (config.width, config.epochs, config.checkpoint_every, config.physics_weight) == (32, 125, 9, 3.0)


# Runs


@pytest.fixture
def old_runs(tmp_path, monkeypatch):
    with zipfile.ZipFile(OLD / "runs.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "diffusion" else n for n in FAMILIES])
def test_a_run_of_before_goes_on_to_where_it_would_have_come_then(name, old_runs, monkeypatch):
    monkeypatch.setattr(trainer_module, "check_samples", check_samples)  # of as many galaxies as then
    resume_training.main(["--run", name, "--data", "data", "--device", "cpu"])
    run = old_runs / "checkpoints" / name
    assert load_checkpoint(run / "latest.pt")["format_version"] == FORMAT_VERSION
    now, then = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for folder in (old_runs / "checkpoints", old_runs / "afterwards")
    )
    # The first log line after the stop joins steps from before it and after it.
    now, then = ([r for r in records if r["kind"] in ("train", "check")] for records in (now, then))
    assert [(r["kind"], r["step"]) for r in now] == [(r["kind"], r["step"]) for r in then]
    for new, old in zip(now, then, strict=True):
        assert new.keys() == old.keys()
        for term in old.keys() - {"kind", "phase", "images_per_s"}:
            assert new[term] == pytest.approx(old[term], rel=0.02, abs=2e-3), (term, old["step"])
    # Four steps of Adam at 1e-3, of which rounding may turn some round.
    images = draw(run / "latest.pt", old_runs / "drawn")
    with np.load(old_runs / "afterwards" / name / "images.npz") as file:
        change = np.abs(images[: len(file["images"])].astype(int) - file["images"])
    assert change.mean() < 1


def test_content_without_a_version_is_of_the_first_one(old_runs):
    path = old_runs / "checkpoints/gan/latest.pt"
    state = torch.load(path, weights_only=True)
    assert state.pop("format_version") == 1
    assert migrate(state, 1)["format_version"] == FORMAT_VERSION
    bare = old_runs / "bare.pt"
    save_without_version(bare, state)
    assert load_checkpoint(bare, RUN_STATE)["step"] == 5


def save_without_version(path: Path, state: dict) -> None:
    plain = {name: value for name, value in state.items() if name != "sha256"}
    torch.save({**plain, "sha256": _digest(plain)}, path)


# How a step is written


def content() -> dict:
    weights = {"grain.a": torch.ones(2), "first.0.weight": torch.zeros(1), "kept": torch.zeros(3)}
    return {
        **dict.fromkeys(RUN_STATE, 1),
        "config": {"width": 4, "gone": 0.0},
        "networks": {"generator": dict(weights), "predictor": {"grain.a": torch.ones(1)}},
        "ema": {**weights, "num_averaged": torch.tensor(3.0)},
    }


def test_steps_are_taken_in_order_from_the_version_on(monkeypatch):
    taken = []

    def step(number):
        return lambda content: taken.append(number) or add_setting(content, f"since_{number + 1}", number)

    monkeypatch.setattr(migrations, "FORMAT_VERSION", 5)
    monkeypatch.setattr(migrations, "MIGRATIONS", {number: step(number) for number in (1, 2, 3, 4)})
    old = content()
    new = migrate(old, 2)
    assert taken == [2, 3, 4] and new["format_version"] == 5
    assert new["config"] == {"width": 4, "gone": 0.0, "since_3": 2, "since_4": 3, "since_5": 4}
    assert old["config"] == content()["config"]  # is left as it was
    assert migrate(new, 5)["config"] == new["config"]


def test_every_version_of_before_has_a_step():
    assert sorted(MIGRATIONS) == list(range(1, FORMAT_VERSION))


def test_a_setting_that_did_nothing_goes_and_one_that_did_is_said():
    assert drop_setting(content(), "gone", False, 0.0)["config"] == {"width": 4}
    with pytest.raises(UserError, match=r"made with gone 0\.0, which this program no longer has"):
        drop_setting(content(), "gone", 1.0)


def test_tensors_are_renamed_in_the_network_and_in_its_average():
    renamed = {"generator": {r"grain\.a": "grain.b", r"first\.(\d+)\.(\w+)": r"layers.\1.\2", "kep": "x"}}
    new = rename_tensors(content(), renamed)
    assert list(new["networks"]["generator"]) == ["grain.b", "layers.0.weight", "kept"]
    assert list(new["ema"]) == ["grain.b", "layers.0.weight", "kept", "num_averaged"]
    assert list(new["networks"]["predictor"]) == ["grain.a"]
    assert torch.equal(new["ema"]["grain.b"], content()["ema"]["grain.a"])
    assert rename_tensors({**content(), "ema": None}, renamed)["ema"] is None


def test_what_no_step_can_mend_names_the_file(tmp_path, monkeypatch, old_runs):
    monkeypatch.setitem(MIGRATIONS, 1, lambda content: drop_setting(content, "width"))
    for path in (old_runs / "checkpoints/gan/latest.pt", OLD / "gan/generator.safetensors"):
        with pytest.raises(UserError, match=rf"{path.name} cannot be used: it was made with width \d+, which this"):
            load_state(path)


def test_other_checkpoints_are_left_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("galaxies.storage.checkpoint.FORMAT_VERSION", 1)
    save_checkpoint(tmp_path / "judge.pt", {"judge": [1, "x"], "network": {"grain.lean": torch.ones(1)}})
    monkeypatch.undo()
    loaded = load_checkpoint(tmp_path / "judge.pt")
    assert list(loaded["network"]) == ["grain.lean"] and loaded["format_version"] == 1


def test_a_run_of_before_can_be_released_today(old_runs):
    state = load_checkpoint(old_runs / "checkpoints/gan/latest.pt", RUN_STATE)
    path = write_release(state, old_runs / "released", torch.float32, {})
    assert json.loads(path.with_name("generator.json").read_text())["format_version"] == FORMAT_VERSION
    assert np.array_equal(draw(path, old_runs / "a"), draw(old_runs / "checkpoints/gan/latest.pt", old_runs / "b"))


@pytest.mark.parametrize("diffusion", [False, True])
def test_generators_of_flux_of_version_4_paint_what_a_telescope_shows(diffusion):
    old = {"config": {"kind": "flux", "diffusion": diffusion}}
    found = MIGRATIONS[5](MIGRATIONS[4](old))["config"]
    assert found["telescope"] == "off"
    assert (found["photons"], found["psf_profile"], found["psf_pixels"]) == ([], "kolmogorov", 0)


@pytest.mark.parametrize(
    ("kind", "diffusion", "telescope"),
    [("flux", True, "off"), ("flux", False, "on"), ("display", True, "on"), ("display", False, "on")],
)
def test_diffusion_models_of_version_5_paint_what_a_telescope_shows_whatever_they_say(kind, diffusion, telescope):
    old = {"config": {"kind": kind, "diffusion": diffusion, "telescope": "on", "oversampling": 4}}
    found = MIGRATIONS[5](old)["config"]
    assert found["telescope"] == telescope
    assert found["oversampling"] == (2 if telescope == "off" else 4)  # which needs a telescope
    assert old["config"]["telescope"] == "on"


def test_classes_of_version_7_are_called_by_their_names():
    old = {"config": {"classes": ["spiral", "SAb"]}}
    found = MIGRATIONS[7](old)["config"]
    assert (found["class_labels"], found["class_descriptions"]) == ([], [])
    assert [m.label for m in morphologies_of(found["classes"])] == ["Spiral", "SAb"]


def test_runs_of_version_8_are_told_one_class_a_galaxy():
    assert MIGRATIONS[8]({"config": {"classes": ["a", "b"]}})["config"]["soft_classes"] is False


def test_generators_of_version_6_draw_profiles_at_half_the_side():
    old = {"config": {"kind": "flux", "diffusion": False, "telescope": "on", "generator": "frame"}}
    assert MIGRATIONS[6](old)["config"]["profiles"] == "coarse"
