"""The trial of generated galaxies for a rare class: its arms, its statistics, and bad input."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.validation import rare_class as augmentation
from galaxies.validation.rare_class import ARMS, summarize, try_augmentation, turned_copies, verdict
from tests.conftest import fork_script, write_dataset

MERGER = 2


@pytest.fixture(scope="module")
def sampler(trained):
    return GalaxySampler.from_checkpoint(trained / "checkpoints/tiny/latest.pt", "cpu")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return PreparedDataset.open(write_dataset(tmp_path_factory.mktemp("rare") / "rendered", 640, seed=4))


def test_turned_copies_keep_the_light_and_come_from_the_originals():
    axis = (torch.arange(64) - 31.5) / 8
    disc = (200 * torch.exp(-(axis[None] ** 2 + (2 * axis[:, None]) ** 2) / 2)).to(torch.uint8)
    images = torch.stack([disc.expand(3, -1, -1), torch.zeros(3, 64, 64, dtype=torch.uint8)])
    copies = turned_copies(images, 40, np.random.default_rng(0))
    assert copies.shape == (40, 3, 64, 64)
    assert copies.dtype == torch.uint8
    light = copies.float().sum((1, 2, 3))
    blank = light == 0
    assert 8 < blank.sum() < 32
    torch.testing.assert_close(
        light[~blank] / images[0].float().sum(), torch.ones(int((~blank).sum())), rtol=0, atol=0.02
    )
    # Turned, and not all by the same angle.
    spread = copies[~blank][:, 0].float()
    wide = (spread.sum(1) * axis.square()).sum(1) / spread.sum((1, 2))
    assert wide.min() < 0.4
    assert wide.max() > 0.8


def test_statistics_of_known_answers():
    is_rare = np.array([True] * 20 + [False] * 80)
    correct = np.zeros((3, 2, 100), dtype=bool)
    correct[0, :, :5] = True  # a quarter of the rare, none of the others
    correct[1, :, 20:] = True  # the others only
    correct[2] = True
    found = summarize(correct, is_rare, seed=0)
    assert tuple(found)[:3] == ARMS
    assert found["real alone"]["recall"]["value"] == 0.25
    assert found["real alone"]["balanced_accuracy"]["value"] == 0.125
    assert found["with turned copies"]["balanced_accuracy"] == {"value": 0.5, "interval": [0.5, 0.5]}
    assert found["with generated"]["recall"] == {"value": 1.0, "interval": [1.0, 1.0]}
    assert found["generated over turned copies"]["balanced_accuracy"]["value"] == 0.5
    low, high = found["real alone"]["recall"]["interval"]
    # Binomial with 20 draws: 0.25 +- 1.96 x 0.097.
    assert 0.0 <= low < 0.25 < high < 0.55
    assert verdict(found["generated over turned copies"]["balanced_accuracy"]) == "a gain"


def test_no_difference_is_said_to_be_none():
    rng = np.random.default_rng(1)
    correct = rng.random((3, 5, 200)) < 0.7
    found = summarize(correct, np.arange(200) < 40, seed=0)
    difference = found["generated over turned copies"]["balanced_accuracy"]
    assert difference["interval"][0] < 0 < difference["interval"][1]
    assert verdict(difference) == "no difference that could be told"
    assert verdict({"interval": [-0.2, -0.1]}) == "a loss"


def test_a_trial(sampler, real):
    report = try_augmentation(sampler, real, MERGER, (10, 10_000), num_seeds=1, steps=40, seed=0)
    assert report["left_out"] == [10_000]
    assert list(report["counts"]) == ["10"]
    assert report["tested_rare"] == (real.classes(real.rows("test")) == MERGER).sum()
    for arm in ARMS:
        assert 0 <= report["counts"]["10"][arm]["recall"]["value"] <= 1
    # Two bodies are easily told from one: ten real ones and their copies must do better than guessing.
    assert report["counts"]["10"]["with turned copies"]["balanced_accuracy"]["value"] > 0.6
    one, other = (try_augmentation(sampler, real, MERGER, (10,), num_seeds=2, steps=1, seed=0) for _ in range(2))
    assert one == other


def test_only_the_training_split_is_learned_from(sampler, real, monkeypatch):
    seen = []
    monkeypatch.setattr(augmentation, "_train", lambda rare, others, *rest: seen.append((rare, others)))
    monkeypatch.setattr(augmentation, "_score", lambda network, images, *rest: np.zeros(len(images)))
    try_augmentation(sampler, real, MERGER, (10,), num_seeds=1, steps=1, seed=0)
    train = real.rows("train")
    merging = {real.images[row].tobytes() for row in train[real.classes(train) == MERGER]}
    single = {real.images[row].tobytes() for row in train[real.classes(train) != MERGER]}
    assert [len(rare) for rare, _ in seen] == [10, 310, 310]
    for rare, others in seen:
        assert {image.numpy().tobytes() for image in rare[:10]} <= merging
        assert {image.numpy().tobytes() for image in others} <= single


def test_data_that_cannot_be_tried_are_refused(sampler, real):
    with pytest.raises(UserError, match="fewer than 5000"):
        try_augmentation(sampler, real, MERGER, (5000,), 1, 1, 0)
    names = real.catalogue["morphology"].where(real.catalogue["split"] != "test", "spiral")
    without = dataclasses.replace(real, catalogue=real.catalogue.assign(morphology=names))
    with pytest.raises(UserError, match="has 0 test galaxies of the class merger"):
        try_augmentation(sampler, without, MERGER, (10,), 1, 1, 0)


def test_the_command(trained, real, tmp_path):
    out = tmp_path / "rare.json"
    options = ["--checkpoint", trained / "checkpoints/tiny/latest.pt", "--data", real.path, "--counts", "5,10"]
    result = fork_script(
        "evaluate.py", "augmentation", *options, "--repetitions", 1, "--steps", 3, "--out", out, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "with turned copies" in result.stdout
    report = json.loads(out.read_text())
    assert list(report["counts"]) == ["5", "10"]
    bad = fork_script("evaluate.py", "augmentation", *options[:-1], "0,x", cwd=tmp_path)
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
