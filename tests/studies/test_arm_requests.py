"""The study of requests for arms: confusion tables by hand, a judge that learns, and a generator that obeys."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from studies import arm_requests
from tests.conftest import render_galaxies
from tests.measure.spirals import spiral


def test_confusions_by_hand():
    numbers = np.array([1, 1, 2, 2, 2, 2, 4, 4])
    read = np.array([1, 2, 2, 2, 2, 6, 5, 4])  # 5 is more than four, 6 none
    table = arm_requests.confusion(numbers, read, arm_requests.READ)
    assert table["rows"]["1"] == [0.5, 0.5, 0, 0, 0, 0] and table["rows"]["2"] == [0, 0.75, 0, 0, 0, 0.25]
    assert table["rows"]["4"] == [0, 0, 0, 0.5, 0.5, 0] and table["rows"]["3"] == [None] * 6
    assert table["right"] == pytest.approx(5 / 8) and table["right_of_told"] == pytest.approx(5 / 7)
    assert table["balanced"] == pytest.approx((0.5 + 0.75 + 0.5) / 3)


def pictures(arms, count, seed):
    """Return pictures of discs with so many arms, at any angle and phase."""
    rng = np.random.default_rng(seed)
    drawn = [
        spiral(arms, rng.uniform(15, 25), 0.7, angle=rng.uniform(0, 360), phase=rng.uniform(0, 6), seed=seed + k)
        for k in range(count)
    ]
    return (255 * torch.stack(drawn)).round().clamp(0, 255).byte()


def survey(folder, seed):
    """Write a survey of discs by formula with one to four arms, seen face-on, among other galaxies."""
    images, names, arms, ids = [], [], [], []
    for number in arm_requests.NUMBERS:
        images.append(pictures(number, 30, 100 * seed + number).numpy())
        names += ["spiral"] * 30
        arms += [float(number)] * 30
    others, other_names = render_galaxies(12, seed=seed)
    images.append(others)
    names, arms = [*names, *other_names], [*arms, *[np.nan] * 12]
    ids = [f"{seed}-{k}" for k in range(len(names))]
    with DatasetWriter(folder, 64, 0.5, {"source": "drawn"}, extra_columns=("true_axis_ratio",)) as writer:
        values = {"arm_count": np.array(arms), "true_axis_ratio": np.full(len(arms), 0.9)}
        writer.append(np.concatenate(images), ids, names, values)
    return folder


@pytest.fixture(scope="module")
def surveys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surveys")
    return survey(folder / "one", 1), survey(folder / "two", 2)


def test_all_spirals_of_a_survey(surveys):
    images, places = arm_requests.spirals_of(PreparedDataset.open(surveys[1]))
    assert len(images) == 120 and places.bincount().tolist() == [30] * 4


def test_a_judge_learns_what_the_numbers_look_like():
    """Whose galaxies are the brighter the more arms they have, and rare for three arms."""
    places = torch.tensor([0] * 30 + [1] * 30 + [2] * 3 + [3] * 30)
    levels = (40 + 50 * places).view(-1, 1, 1, 1)

    def noisy(seed):
        noise = torch.randint(0, 20, (len(places), 3, 64, 64), generator=torch.Generator().manual_seed(seed))
        return (levels + noise).to(torch.uint8)

    judge = arm_requests.train_arm_judge(noisy(0), places, 80, 0)
    read = arm_requests.read_numbers(judge, noisy(1))
    right = read == places.numpy() + 1
    assert min(right[places.numpy() == k].mean() for k in range(4)) > 0.8


def test_face_on_spirals_of_a_split(surveys):
    data = PreparedDataset.open(surveys[0])
    rows, numbers = arm_requests.face_on_spirals(data, "test")
    assert set(rows) <= set(data.rows("test")) and len(rows) > 3
    np.testing.assert_array_equal(data.catalogue["arm_count"].to_numpy()[rows], numbers)
    data.catalogue["true_axis_ratio"] = 0.5
    with pytest.raises(UserError, match="no spiral that is seen nearly face-on"):
        arm_requests.face_on_spirals(data, "test")
    del data.catalogue["true_axis_ratio"]
    with pytest.raises(UserError, match="has no column true_axis_ratio: simulate it again"):
        arm_requests.face_on_spirals(data, "test")


class _Sampler:
    """Draws what is asked for: spirals by formula."""

    def __init__(self):
        self.config = type("Config", (), {"attributes": ("arm_count",), "classes": ("spiral",), "image_size": 64})

    @classmethod
    def from_checkpoint(cls, path, device):
        return cls()

    def generate(self, classes, values, seeds, shares=None):
        assert set(classes.tolist()) == {0}
        return torch.cat([pictures(int(v), 1, int(s)) for v, s in zip(values[:, 0], seeds, strict=True)])


def test_a_generator_that_obeys_is_read_so(surveys, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(arm_requests, "GalaxySampler", _Sampler)
    one, two = map(str, surveys)
    arguments = ["--checkpoint", "c.pt", "--data", one, "--out", str(tmp_path / "out"), "--count", "10", "--steps", "2"]
    arm_requests.main([*arguments, "--judge-data", two])
    report = json.loads((tmp_path / "out" / "arm_requests.json").read_text(encoding="utf-8"))
    table = report["generated"]["arms.py"]
    assert table["galaxies"] == dict.fromkeys("1234", 10) and table["columns"] == list(arm_requests.READ)
    # A pattern of one arm does not count as visible by itself; of two to four the measure is right.
    assert min(table["rows"][k][int(k) - 1] for k in "234") >= 0.8
    with Image.open(tmp_path / "out" / "arm_requests.png") as picture:
        assert picture.height > 4 * 64
    said = capsys.readouterr().out
    assert "generated, number asked for, read by judge" in said and "show arms; of these" in said
    with pytest.raises(UserError, match="the judge would learn from"):
        arm_requests.main([*arguments, "--judge-data", one])


def test_a_checkpoint_without_arms_is_refused(surveys, tmp_path, monkeypatch):
    sampler = _Sampler()
    sampler.config.attributes = ("size",)
    monkeypatch.setattr(arm_requests.GalaxySampler, "from_checkpoint", lambda *_: sampler)
    with pytest.raises(UserError, match="knows no number of arms"):
        arm_requests.main(
            ["--checkpoint", "c.pt", "--data", str(surveys[0]), "--judge-data", str(surveys[1]), "--out", str(tmp_path)]
        )
