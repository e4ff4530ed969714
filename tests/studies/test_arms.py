"""The study of arms: shares, rankings and votes of made-up values, and a run on a few galaxies."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from config_physics import MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.datasets.writing import DatasetWriter
from studies import arms
from tests.conftest import render_galaxies


def test_classes_are_ranked_and_counted():
    classes = np.repeat(range(4), 20)
    values = {name: np.linspace(0, 1, 80) for name in arms.STRENGTHS}
    spirals, ellipticals = (classes == MORPHOLOGY_NAMES.index(name) for name in ("spiral", "elliptical"))
    strength = np.zeros(80)
    strength[spirals] = np.r_[np.full(15, 0.5), np.nan, np.zeros(4)]
    strength[ellipticals] = np.r_[np.full(2, 0.05), 0.2, np.zeros(17)]
    row = arms.by_class(values | {"arm_strength": strength}, classes)["arm_strength"]
    assert row["above"]["spiral"] == pytest.approx(15 / 19) and row["above"]["elliptical"] == pytest.approx(1 / 20)
    # Of 19 x 20 pairs, those of the 15 strong ones are right, and of the 4 without arms 17 are ties.
    assert row["ranked"]["spiral over elliptical"] == pytest.approx((15 * 20 + 4 * 17 / 2) / (19 * 20))
    assert row["reached_by_ellipticals"] == pytest.approx(np.quantile(strength[ellipticals], 0.95))


def test_votes_are_what_people_saw(tmp_path):
    count = 12
    saw = np.linspace(0, 1, count)
    table = {name: np.zeros(count) for name in (*arms._WINDING, *arms._NUMBERS)}
    table |= {"dr7objid": [str(5870000000000000 + k) for k in range(count)]}
    table |= {arms._FEATURES: saw, arms._FACE_ON: np.ones(count), arms._SPIRAL: np.ones(count)}
    table[arms._NUMBERS[1]] = np.full(count, 0.9)
    table[arms._WINDING[1]] = saw
    pd.DataFrame(table).to_csv(tmp_path / "votes.csv", index=False)
    ids = np.array([*table["dr7objid"][::-1], "1"])  # in another order, and one that nobody voted on
    votes = arms.read_votes(tmp_path / "votes.csv", ids)
    strength = np.r_[0.3 * saw[::-1], 0.5]
    values = {"arm_strength": strength, "arm_count": np.full(count + 1, 2.0), "pitch": -np.r_[saw[::-1], 0.0]}
    found = arms.by_votes(values, votes)
    assert found["galaxies"] == count and found["seen"] == 6 and found["unseen"] == 2
    for name in ("strength_and_votes", "seen_over_unseen", "visible_of_seen", "same_number", "pitch_and_loose_votes"):
        assert found[name] == pytest.approx(1), name
    assert found["visible_of_unseen"] == 0
    values["arm_count"] = np.r_[np.full(3, 3.0), np.full(count - 2, 2.0)]
    assert arms.by_votes(values, votes)["same_number"] == pytest.approx(0.5)
    with pytest.raises(UserError, match="fewer than two of these galaxies"):
        arms.by_votes({name: v[-1:] for name, v in values.items()}, votes.iloc[-1:])


def test_numbers_of_mock_arms_are_held_against_the_truth(monkeypatch):
    truth = {"arm_count": [2, 2, 3, np.nan, 2], "true_axis_ratio": [0.9, 0.3, 0.8, 0.5, 0.95]}
    data = SimpleNamespace(catalogue=pd.DataFrame(truth), images=np.zeros((5, 3, 64, 64), np.uint8), path="mock")
    measured = {"arm_count": np.array([2.0, 3, 3, 1]), "arm_strength": np.array([0.2, 0.2, 0.01, 0.2])}
    monkeypatch.setattr(arms, "measure_images", lambda *_: SimpleNamespace(values=measured))
    found = arms.by_truth(data, 10, 0)
    assert found["spirals"] == {"galaxies": 4, "right": 0.5, "of 2": pytest.approx(1 / 3), "of 3": 1.0}
    assert found["face-on"] == {"galaxies": 3, "right": pytest.approx(2 / 3), "of 2": 0.5, "of 3": 1.0}
    assert found["visible"]["right"] == pytest.approx(1 / 3)
    assert found["face-on and visible"] == {"galaxies": 2, "right": 0.5, "of 2": 0.5}
    del data.catalogue["arm_count"]
    with pytest.raises(UserError, match="mock has no column arm_count: simulate it again"):
        arms.by_truth(data, 10, 0)


def test_a_run_writes_figures_and_sheets(tmp_path, capsys):
    images, names = render_galaxies(16)
    with DatasetWriter(tmp_path / "real", images.shape[-1], 0.5, {"source": "rendered for a test"}) as writer:
        writer.append(images, [f"58773{k:05d}" for k in range(len(images))], names, {})
    arms.main(["--real", str(tmp_path / "real"), "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "arms.json").read_text(encoding="utf-8"))
    assert set(report["classes"]) == set(arms.STRENGTHS) and "votes" not in report
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(arms.FILES)
    for name in ("arms.png", "nuclei.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) > 100
    assert "arm_strength" in capsys.readouterr().out
