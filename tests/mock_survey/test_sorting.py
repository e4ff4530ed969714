"""Classes of a mock survey's dataset by rules of its truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import prepare_data
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.mock_survey import band_observation, observation
from galaxies.mock_survey.sorting import MockClasses
from galaxies.tables.class_rules import read_class_rules

COUNT = 24
RULES = """
[[class]]
name = "open"
label = "Open arms"
where = "class == \\"spiral\\" and bulge < 0.15"
[[class]]
name = "flat"
where = "morphology != \\"spiral\\" and true_axis_ratio < 0.5"
"""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(observation, "BLOCK", 4)
    monkeypatch.setattr(band_observation, "BLOCK", 4)


def simulate(out: Path, *options: str) -> PreparedDataset:
    fixed = ("--count", str(COUNT), "--seed", "4", "--device", "cpu", "--out", str(out))
    prepare_data.main(["simulated", *fixed, *options])
    return PreparedDataset.open(out)


@pytest.mark.parametrize("kind", [(), ("--kind", "flux", "--bands", "g,z")], ids=["display", "flux"])
def test_galaxies_are_those_of_the_survey_under_other_names(tmp_path, kind, capsys):
    (tmp_path / "c.toml").write_text(RULES)
    plain = simulate(tmp_path / "plain", *kind)
    capsys.readouterr()
    data = simulate(tmp_path / "own", *kind, "--classes", str(tmp_path / "c.toml"))
    truth = plain.catalogue
    spiral = truth["morphology"] == "spiral"
    names = np.where(spiral & (truth["bulge"] < 0.15), "open", "")
    names = np.where(~spiral & (truth["true_axis_ratio"] < 0.5), "flat", names)
    rows = np.flatnonzero(names != "")
    assert 4 < len(rows) < COUNT and len(set(names[rows])) == 2
    assert data.catalogue["object_id"].tolist() == truth["object_id"].iloc[rows].tolist()
    assert data.catalogue["morphology"].tolist() == names[rows].tolist()
    np.testing.assert_array_equal(data.images, plain.images[rows])
    np.testing.assert_allclose(data.catalogue["stellar_mass"], truth["stellar_mass"].iloc[rows])
    assert data.layout.classes == ("open", "flat") and data.manifest["unused"] == COUNT - len(rows)
    assert data.manifest["class_labels"] == {"open": "Open arms"} and data.manifest["rule"].endswith("c.toml")
    assert f"left out: {COUNT - len(rows)} of no class" in capsys.readouterr().out
    if kind:  # the light before the telescope, of the test galaxies in the order of the dataset
        light = np.load(tmp_path / "own/intrinsic.npy")
        whole = np.load(tmp_path / "plain/intrinsic.npy")
        assert len(light) == len(data.rows("test"))
        np.testing.assert_array_equal(light, whole[np.isin(plain.rows("test"), rows)])


def test_nine_classes_come_with_the_program(tmp_path):
    data = simulate(tmp_path / "d", "--classes", "mock-nine", "--allow-empty-class")
    assert len(data.layout.classes) == 9 and data.manifest["unused"] == 0
    drawn = {"barred": "spiral", "round": "elliptical", "merger": "merger", "edge-on-flat": "edge-on"}
    of_plain = simulate(tmp_path / "plain").catalogue["morphology"]
    for own, plain in drawn.items():
        assert set(of_plain[data.catalogue["morphology"] == own]) <= {plain}
    assert json.loads((tmp_path / "d/manifest.json").read_text())["class_labels"]["round"] == "Round elliptical"


def test_votes_can_be_sorted_by_too(tmp_path):
    data = simulate(tmp_path / "d", "--classes", "gated", "--allow-empty-class")
    by_votes = data.catalogue["t01_smooth_or_features_a02_features_or_disk_debiased"]
    assert (by_votes[data.catalogue["morphology"] == "spiral"] > 0.5).all()


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ("class > 3", "column class of the mock survey holds text: compare it with a text in quotes"),
        ("bar == 'x'", "column bar of the mock survey holds numbers: compare it with a number"),
        ("barr > 3", "c.toml, line 3, column 10: there is no column 'barr' in the mock survey; near it are bar"),
        ("bar > 0.9", r"class a \(.*c.toml, line 3, column 9\) takes none of the 24 galaxies of the mock survey"),
    ],
)
def test_rules_that_do_not_fit_the_truth(tmp_path, rules, sentence):
    (tmp_path / "c.toml").write_text(f'[[class]]\nname = "a"\nwhere = "{rules}"\n')
    with pytest.raises(UserError, match=sentence):
        simulate(tmp_path / "d", "--classes", str(tmp_path / "c.toml"))
    assert not (tmp_path / "d").exists()


def test_fewer_galaxies_than_classes_need_not_be_of_every_class():
    nine = read_class_rules("mock-nine")
    assert MockClasses(nine, 8).may_be_empty and not MockClasses(nine, 9).may_be_empty
    assert MockClasses(nine, 9, allow_empty_class=True).may_be_empty
    assert MockClasses(None, 3).may_be_empty and not MockClasses(None, 4).may_be_empty
