"""Names of classes as people write them."""

from pathlib import Path

import pandas as pd
import pytest

from config_physics import MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.tables.classes import read_classes
from galaxies.tables.reading import Table


def read(*texts: str, classes: str | None = None) -> tuple[list[int], tuple[str, ...]]:
    cells = pd.DataFrame({"morphology": list(texts)}, dtype=object)
    indices, names = read_classes(Table(Path("t.csv"), cells, range(2, len(texts) + 2)), classes)
    return indices.tolist(), names


def classes_of(*texts: str) -> list[int]:
    indices, names = read(*texts)
    assert names == MORPHOLOGY_NAMES
    return indices


def test_names_in_other_forms():
    assert classes_of("spiral", "Spiral", " SPIRAL ", "spirals", '"spiral"', "'Spirals'", "spiral\t") == [0] * 7
    assert classes_of("edge-on", "edge_on", "Edge On", "EDGE  ON", "edge-ons", "Edge_on ") == [3] * 6
    assert classes_of("elliptical", "Ellipticals", "mergers") == [1, 1, 2]


@pytest.mark.parametrize("text", ["ring", "spiralss", "edgeon", "S", "0", "\x1b[2J", "spiral; merger", "-"])
def test_what_is_no_class_is_named_with_its_row_and_the_choices(text):
    with pytest.raises(UserError, match=r"column morphology of t\.csv, row 3: unknown morphology") as caught:
        classes_of("spiral", text, "merger")
    sentence = str(caught.value)
    assert repr(text) in sentence and "choose one of spiral, elliptical, merger, edge-on; " in sentence
    assert sentence.endswith("--classes labels makes every name in the column a class")


@pytest.mark.parametrize("text", ["", "  "])
def test_a_galaxy_without_a_class(text):
    with pytest.raises(UserError, match=r"column morphology of t\.csv, row 2 is empty: give every galaxy a class"):
        classes_of(text, "spiral")


def test_names_of_the_labels_become_the_classes():
    found = read("Sb", "S0", "E", "SAb", "Sab", '"E"', " S0 ", classes="labels")
    assert found == ([4, 1, 0, 2, 3, 0, 1], ("E", "S0", "SAb", "Sab", "Sb"))
    # All of them known: the program's names, in its order, as without the option.
    assert read("Mergers", "spiral", "edge_on", classes="labels") == ([1, 0, 2], ("spiral", "merger", "edge-on"))
    assert read("spiral", "ring", classes="labels") == ([1, 0], ("ring", "spiral"))


def test_names_of_an_option_are_the_classes_in_its_order():
    assert read("E", "sa", "S0s", classes="S0,Sa,E,Irr") == ([2, 1, 0], ("S0", "Sa", "E", "Irr"))
    assert read("ring", classes="ring,") == ([0], ("ring",))
    with pytest.raises(UserError, match=r"t\.csv, row 3: unknown morphology 'Sc': choose one of E, Sa$"):
        read("E", "Sc", classes="E,Sa")
    for classes, wrong in (
        ("E,E", "'E' is the name of two classes"),
        (",", "there is no class"),
        ("E,;", "is no name"),
    ):
        with pytest.raises(UserError, match=f"--classes {classes}: .*{wrong}"):
            read("E", classes=classes)


def test_labels_that_are_no_names_of_classes():
    with pytest.raises(
        UserError, match=r"column morphology of t\.csv names the classes, and 'a;b' is no name of a class"
    ):
        read("E", "a;b", classes="labels")
    with pytest.raises(UserError, match=r"names the classes, and there are 65 classes"):
        read(*(f"c{k}" for k in range(65)), classes="labels")
    with pytest.raises(UserError, match=r"row 3 is empty: give every galaxy a class"):
        read("E", " ", classes="labels")
