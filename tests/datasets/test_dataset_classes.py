"""Classes of a dataset's own: in its manifest, in the settings of a run, and what none may be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from config_physics import MORPHOLOGIES, MORPHOLOGY_NAMES, Config, Morphology
from galaxies.common.errors import UserError
from galaxies.datasets.layout import DISPLAY, DataLayout
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from tests.conftest import write_dataset

NINE = tuple(Morphology(name, "", "") for name in ("SAb", "Sab", "S0", "E0", "E6", "ring", "merger", "edge-on", "Irr"))
IDS = [f"g{k}" for k in range(36)]


def write(out: Path, classes=NINE) -> PreparedDataset:
    names = [c.name for c in classes]
    images = np.zeros((len(IDS), 3, 64, 64), np.uint8)
    with DatasetWriter(out, 64, 0.5, {}, layout=DISPLAY.with_classes(classes)) as writer:
        writer.append(images, IDS, [names[k % len(names)] for k in range(len(IDS))], {"size": np.full(len(IDS), 0.1)})
    return PreparedDataset.open(out)


def change_manifest(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8")) | changes
    manifest = {name: value for name, value in manifest.items() if value is not None}
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_a_display_dataset_has_the_classes_that_it_was_written_with(tmp_path):
    data = write(tmp_path / "d")
    assert data.layout.classes == tuple(c.name for c in NINE)
    assert data.classes(np.arange(11)).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1]
    assert data.manifest["counts"]["SAb"] == data.manifest["counts"]["Sab"] == 4
    settings = data.settings(("size",))
    config = Config(attributes=("size",), **settings)
    assert config.classes == data.layout.classes and config.condition_parts[0] == 9
    assert [m.label for m in config.morphologies][:3] == ["SAb", "Sab", "S0"]
    assert config.morphologies[6] == MORPHOLOGIES[2]  # merger, as the program knows it


def test_labels_and_descriptions_go_with_the_classes(tmp_path):
    told = (Morphology("S0", "Lenticular", "disc without arms"), Morphology("E", "", ""))
    data = write(tmp_path / "d", told)
    assert data.manifest["class_labels"] == {"S0": "Lenticular"}
    assert data.layout.morphologies == (told[0], Morphology("E", "E", ""))
    config = Config(attributes=("size",), **data.settings(("size",)))
    assert config.morphologies == data.layout.morphologies
    assert data.layout == DISPLAY.with_classes([Morphology("S0", "", ""), Morphology("E", "other", "")])


def test_a_manifest_of_before_has_the_classes_of_the_program(tmp_path):
    path = write_dataset(tmp_path / "d", 24)
    assert json.loads((path / "manifest.json").read_text())["classes"] == list(MORPHOLOGY_NAMES)
    change_manifest(path, classes=None)
    assert PreparedDataset.open(path).layout == DISPLAY
    assert DISPLAY.classes == MORPHOLOGY_NAMES and DISPLAY.morphologies == MORPHOLOGIES


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"classes": ["SAb", "Sab"]}, "column morphology of catalogue.csv, row 4 holds 'S0', not one of SAb, Sab"),
        ({"classes": []}, "classes is a list of 0, not a list of 1 to 1000 values"),
        ({"classes": "spiral"}, "classes is 'spiral', not a list"),
        ({"classes": ["a", "a"]}, "no class, or one twice"),
        ({"classes": [1]}, r"classes\[0\] is 1, not text"),
        ({"class_labels": {"x": "y"}}, "class_labels has 'x', which is no class"),
        ({"class_labels": ["x"]}, "class_labels is a list of 1, not a mapping"),
        ({"class_labels": {"S0": "a\nb"}}, "not text of at most 100 characters that can be printed"),
        ({"class_descriptions": {"S0": "a" * 101}}, "not text of at most 100 characters that can be printed"),
    ],
)
def test_a_manifest_with_other_classes_is_refused(tmp_path, changes, wrong):
    write(tmp_path / "d")
    change_manifest(tmp_path / "d", **changes)
    with pytest.raises(UserError, match=wrong):
        PreparedDataset.open(tmp_path / "d")


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        ([f"c{k}" for k in range(65)], "d cannot be made, since there are 65 classes"),
        (["a\n"], "is no name of a class"),
        ([], "there is no class"),
    ],
)
def test_a_dataset_of_what_is_no_class_is_not_begun(tmp_path, names, wrong):
    layout = DataLayout("flux", DISPLAY.bands, ("a",))
    object.__setattr__(layout, "classes", tuple(names))
    with pytest.raises(UserError, match=wrong):
        DatasetWriter(tmp_path / "d", 64, 0.5, {}, layout=layout)
    assert not (tmp_path / "d").exists()


def test_sixty_four_classes_are_possible(tmp_path):
    names = [f"c{k}" for k in range(64)]
    data = write_many(tmp_path / "d", names)
    assert data.layout.classes == tuple(names)
    assert Config(attributes=("size",), **data.settings(("size",))).condition_parts[0] == 64


def write_many(out: Path, names: list[str]) -> PreparedDataset:
    images = np.zeros((len(names), 3, 64, 64), np.uint8)
    layout = DISPLAY.with_classes([Morphology(name, "", "") for name in names])
    with DatasetWriter(out, 64, 0.5, {}, layout=layout) as writer:
        writer.append(images, names, names, {"size": np.full(len(names), 0.1)})
    return PreparedDataset.open(out)


# Shares


def write_shares(out: Path, shares: dict[str, list[float]], names: list[str]) -> PreparedDataset:
    classes = [Morphology("S0", "", ""), Morphology("E, round", "", "")]
    images = np.zeros((len(names), 3, 64, 64), np.uint8)
    columns = [f"class_share_{name}" for name in shares]
    with DatasetWriter(out, 64, 0.5, {}, extra_columns=columns, layout=DISPLAY.with_classes(classes)) as writer:
        values = {f"class_share_{name}": np.array(column) for name, column in shares.items()}
        writer.append(images, [f"g{k}" for k in range(len(names))], names, values)
    return PreparedDataset.open(out)


def test_shares_add_up_to_one_and_an_unknown_galaxy_is_its_class(tmp_path):
    shares = {"S0": [0.75, 0.2, np.nan, 0, np.nan], "E, round": [0.25, 0.2, np.nan, 0, 0.5]}
    data = write_shares(tmp_path / "d", shares, ["S0", "S0", "E, round", "S0", "S0"])
    found = data.class_shares(np.arange(5))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.75, 0.25], [0.5, 0.5], [0, 1], [1, 0], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(data.class_shares(np.array([3, 0])), found[[3, 0]])


def test_shares_that_are_not_there(tmp_path):
    data = write_shares(tmp_path / "d", {"S0": [0.5, 0.5]}, ["S0", "E, round"])
    with pytest.raises(UserError, match=r"d has no column class_share_E, round, the share of a class, which --soft-cl"):
        data.class_shares(np.arange(2))


def test_a_share_beyond_one_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"class_share_S0 of 'g1' is 1\.5, and no galaxy has any"):
        write_shares(tmp_path / "d", {"S0": [0.5, 1.5]}, ["S0", "E, round"])
