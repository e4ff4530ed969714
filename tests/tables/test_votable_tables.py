"""VOTables as archives answer, by astropy's writer, and what could lead out of one."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.tables.reading import read_table

table = pytest.importorskip("astropy.table")
votable = pytest.importorskip("astropy.io.votable")
ROWS = [["587722981741363294", "0.1", "spiral"], ["2", "", "elliptical"], ["3", "0.30000000000000004", "merger"]]


def written(path, form="tabledata"):
    redshift = table.MaskedColumn([0.1, 0.2, 0.1 + 0.2], mask=[False, True, False])
    ids = np.array([int(row[0]) for row in ROWS])
    made = table.Table({"ID": ids, "z": redshift, "Class": [row[2] for row in ROWS], "xy": np.ones((3, 2))})
    votable.writeto(votable.from_table(made), str(path), tabledata_format=form)
    return path


@pytest.mark.parametrize("form", ["tabledata", "binary", "binary2"])
def test_a_votable(tmp_path, form):
    read = read_table(written(tmp_path / "a.vot", form), ["id", "z", "class"])
    assert read.cells[["id", "z", "class"]].to_numpy().tolist() == ROWS
    assert len(read) == 3 and read.others == ()  # an array is no column of values


def test_a_packed_votable(tmp_path):
    file = written(tmp_path / "a.vot")
    file.write_bytes(gzip.compress(file.read_bytes()))
    assert read_table(file, ["id"]).cells["id"].tolist() == [row[0] for row in ROWS]


def test_the_table_that_has_the_columns(tmp_path):
    one = votable.from_table(table.Table({"a": [1], "b": [2], "c": [3]}))
    other = votable.from_table(table.Table({"ID": [7], "z": [0.5]}))
    one.resources.append(other.resources[0])
    votable.writeto(one, str(tmp_path / "a.xml"))
    assert read_table(tmp_path / "a.xml", ["id", "z"]).cells.to_numpy().tolist() == [["7", "0.5"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("<VOTABLE", '<!DOCTYPE a [<!ENTITY b "c">]><VOTABLE'), "defines entities"),
        (lambda text: text.replace("<TABLEDATA", '<STREAM href="http://127.0.0.1/a"/><TABLEDATA'), "lie elsewhere"),
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text[: text.index("<TR")] + text[text.rindex("</TR>") + 5 :], "without a row"),
        (lambda text: text.replace("<FIELD", "<NONE"), "a.vot"),
    ],
)
def test_what_is_refused(tmp_path, change, said):
    file = written(tmp_path / "a.vot")
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_table(file, ["id"], ["id"])
