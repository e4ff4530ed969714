"""Names of classes as people write them."""

from pathlib import Path

import pandas as pd
import pytest

from galaxies.common.errors import UserError
from galaxies.tables.classes import read_classes
from galaxies.tables.reading import Table


def classes_of(*texts: str) -> list[int]:
    cells = pd.DataFrame({"morphology": list(texts)}, dtype=object)
    return read_classes(Table(Path("t.csv"), cells, range(2, len(texts) + 2))).tolist()


def test_names_in_other_forms():
    assert classes_of("spiral", "Spiral", " SPIRAL ", "spirals", '"spiral"', "'Spirals'", "spiral\t") == [0] * 7
    assert classes_of("edge-on", "edge_on", "Edge On", "EDGE  ON", "edge-ons", "Edge_on ") == [3] * 6
    assert classes_of("elliptical", "Ellipticals", "mergers") == [1, 1, 2]


@pytest.mark.parametrize("text", ["ring", "spiralss", "edgeon", "S", "0", "\x1b[2J", "spiral; merger", "-"])
def test_what_is_no_class_is_named_with_its_row_and_the_choices(text):
    with pytest.raises(UserError, match=r"column morphology of t\.csv, row 3: unknown morphology") as caught:
        classes_of("spiral", text, "merger")
    sentence = str(caught.value)
    assert repr(text) in sentence and sentence.endswith("choose one of spiral, elliptical, merger, edge-on")


@pytest.mark.parametrize("text", ["", "  "])
def test_a_galaxy_without_a_class(text):
    with pytest.raises(UserError, match=r"column morphology of t\.csv, row 2 is empty: give every galaxy a class"):
        classes_of(text, "spiral")
