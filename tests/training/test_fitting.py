"""Runs on datasets that cannot give all that the defaults ask for: they train on what there is, and all else works."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image

import galaxy
import generate_from_checkpoint
import resume_training
from config_physics import PHOTOMETRIC_ATTRIBUTES, Config
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter, split_of
from galaxies.measure import photometry
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.training.fitting import fit_to_data
from galaxies.training.health import check_samples, evaluate_predictor, predictor_lines, without_claim
from physics_model import build_predictor
from tests.conftest import make_trainer, render_galaxies

SMALL = ["--width", "4", "--epochs", "1", "--pretrain-epochs", "1", "--device", "cpu", "--run", "r", "--log-every", "1"]


def ids_of(splits: list[str]) -> list[str]:
    """Return object ids of which the first falls into the first split, and so on."""
    names = iter(f"5877300{number:06d}" for number in range(10**6))
    return [next(name for name in names if split_of(name) == split) for split in splits]


def write(path, splits, names=None, **columns) -> PreparedDataset:
    """Write rendered galaxies in the given splits, with other classes or columns; a redshift is known of each."""
    images, drawn = render_galaxies(len(splits))
    measured = photometry.measure(torch.from_numpy(images).float() / 255)
    values = {name: measured.attribute(name).numpy() for name in PHOTOMETRIC_ATTRIBUTES}
    values["redshift"] = np.linspace(0.01, 0.2, len(splits))
    with DatasetWriter(path, 64, 0.5, {"source": "for a test"}, allow_empty_class=True) as writer:
        writer.append(images, ids_of(splits), names or drawn, values | columns)
    return PreparedDataset.open(path)


def few_drawn(monkeypatch) -> None:
    """Draw no sample grids and curves, and two galaxies a class to check: their drawing has tests of its own."""
    blank = Image.new("RGB", (8, 8))
    monkeypatch.setattr("galaxies.training.trainer.sample_grid", lambda *_: blank)
    monkeypatch.setattr("galaxies.training.trainer.curves_picture", lambda *_: None)
    monkeypatch.setattr("galaxies.training.trainer.check_samples", functools.partial(check_samples, per_class=2))


FEW = ["train"] * 20 + ["judge"] * 2 + ["test"] * 4


@pytest.mark.parametrize(
    "family", [["--latent-dim", "8"], ["--diffusion", "--unet-blocks", "1", "--solver-steps", "2"]]
)
def test_a_run_on_one_class_and_a_constant_goes_on_and_draws(tmp_path, monkeypatch, capsys, family):
    few_drawn(monkeypatch)
    write(tmp_path / "d", FEW, ["elliptical"] * len(FEW), redshift=np.full(len(FEW), 0.05))
    monkeypatch.chdir(tmp_path)
    options = [*SMALL, *family]
    options[1] = "8" if "--diffusion" in family else "4"
    galaxy.main(["--data", "d", *options])
    said = capsys.readouterr().out.splitlines()
    assert "left out: redshift (0.05 for every training galaxy that knows it) (d)" in said
    sizes = [line for line in said if line.startswith("batch size ")]
    assert sizes == ([] if "--diffusion" in family else ["batch size 20 instead of 32: 20 training galaxies"])
    resume_training.main(["--run", "r", "--epochs", "2"])
    for line in (tmp_path / "checkpoints/r/metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    state = load_checkpoint(tmp_path / "checkpoints/r/latest.pt")
    assert state["config"]["attributes"] == ["size", "brightness", "ellipticity"] and state["epoch"] == 2
    ask = ["--checkpoint", "checkpoints/r/latest.pt", "--morphology", "elliptical", "--out", "g", "--count", "1"]
    generate_from_checkpoint.main(ask)
    assert (tmp_path / "g/images/galaxy_00000.png").is_file()
    with pytest.raises(UserError, match="redshift"):
        generate_from_checkpoint.main([*ask, "--redshift", "0.05"])


def test_named_attributes_and_sizes_are_not_changed(tmp_path, monkeypatch):
    data = write(tmp_path / "d", FEW, redshift=np.full(len(FEW), np.nan))
    config, lines = fit_to_data(Config(), data, ())
    assert config.attributes == ("size", "brightness", "ellipticity") and config.batch_size == 20
    assert lines == [
        f"left out: redshift (known for no galaxy) ({data.path})",
        "batch size 20 instead of 64: 20 training galaxies",
    ]
    with pytest.raises(UserError, match="has no values of 'redshift'"):
        fit_to_data(Config(), data, {"attributes"})
    assert fit_to_data(Config(batch_size=60), data, {"batch_size"})[0].batch_size == 60
    assert fit_to_data(Config(batch_size=10), data, ())[0].batch_size == 10
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    assert fit_to_data(Config(), data, ())[0].batch_size == 6


def test_terms_without_anything_to_compare_are_named(tmp_path):
    data = write(tmp_path / "d", FEW, ["merger"] * len(FEW))
    _, lines = fit_to_data(Config(class_weight=0.5, attributes=("redshift",), batch_size=4), data, ())
    assert lines == [
        "note: the class loss teaches nothing, since every training galaxy is merger",
        "note: photometry takes no part in the loss, since it measures none of the attributes",
    ]
    assert fit_to_data(Config(batch_size=4), data, ())[1] == []


def test_too_few_training_galaxies_are_refused(tmp_path):
    data = write(tmp_path / "d", ["train", "test", "test"])
    with pytest.raises(UserError, match="has 1 for training, and two a process are the least: prepare more galaxies"):
        fit_to_data(Config(), data, ())


def test_a_run_without_test_and_judge_galaxies_or_a_pair_of_a_class(tmp_path, capsys):
    data = write(tmp_path / "d", ["train"] * 3)
    trainer = make_trainer(data, tmp_path, batch_size=3)
    trainer._finish_predictor()
    assert "known for too few test galaxies" in capsys.readouterr().out
    assert trainer.learner.claims.tolist() == [0, 0, 0, 0]
    assert check_samples(trainer.sampler(), {}) == {}


def test_test_galaxies_that_are_all_the_same_give_no_r2(tmp_path):
    data = write(tmp_path / "d", FEW, redshift=np.r_[np.linspace(0.01, 0.2, 20), np.full(6, 0.1)])
    config = Config(width=4)
    report = evaluate_predictor(build_predictor(config), data, config, torch.device("cpu"))
    assert "mae_redshift" in report and "r2_redshift" not in report and "r2_size" in report
    assert predictor_lines(report, config.attribute_rows)[-1].endswith("R2 not available, since they are all the same")
    assert without_claim(dict.fromkeys(config.attributes, 1.0), report)["redshift"] == (
        "the same for all test galaxies, which cannot test the predictor"
    )


def test_what_is_not_believed_is_unknown_in_training_tests_and_on_resuming(tmp_path):
    size = np.random.default_rng(0).uniform(0.1, 0.2, len(FEW))
    size[3], size[-1] = 1.4, 1.45  # as large as can be at all
    data = write(tmp_path / "d", FEW, size=size)
    trainer = make_trainer(data, tmp_path, batch_size=4)
    assert trainer.batches.known[:, 0].sum() == 19 and trainer.population.values[:, 0].nanmean() < 0.2
    limits = trainer.state_dict()["provenance"]["value_limits"]
    report = evaluate_predictor(trainer.learner.predictor, data, trainer.config, torch.device("cpu"), limits)
    assert report["mae_size"] < 0.25  # 0.4 with 1.45 among the four
    state = trainer.state_dict()
    again = type(trainer)(trainer.config, data, tmp_path / "c", tmp_path / "s", state)
    assert torch.equal(again.batches.known, trainer.batches.known)
    # A run of before believed it, and its losses go on as they were.
    del state["provenance"]["value_limits"]
    before = type(trainer)(trainer.config, data, tmp_path / "c", tmp_path / "s", state)
    assert before.batches.known[:, 0].sum() == 20
