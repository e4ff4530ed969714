"""Ids: what a spreadsheet did to them is refused or mended, and what is written is read again."""

import csv
import io
import random
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galaxies.common.errors import UserError
from galaxies.tables.identifiers import MAX_LENGTH, check_ids, fault_of, read_ids, refuse_repeated
from galaxies.tables.reading import Table, read_table

SDSS = [587722981741363101 + 65573 * k for k in range(8)]  # objID of the SDSS, DR7


def table_of(*texts: str) -> Table:
    cells = pd.DataFrame({"object_id": list(texts)}, dtype=object)
    return Table(Path("t.csv"), cells, range(2, len(texts) + 2))


def ids_of(*texts: str, **how) -> list[str]:
    return read_ids(table_of(*texts), "object_id", **how).tolist()


@pytest.mark.parametrize(
    "texts",
    [
        ("007", "08", "0"),
        ("nan", "NA", "None", "null", "N/A", "-9999"),
        ("12E4", "1e5", "3D7", "0x1f"),
        ("12.0", "12.5"),  # a name has a point; no column of floating-point numbers of whole ids
        ("SDSS J001212.37+005126.1", "NGC 4038, NGC 4039", 'the "Antennae"', "M31/M32", "CON", "a:b", "#7", "=1+1"),
        ("é", "galaxie-Ω", "銀河", "ن"),
        tuple(map(str, SDSS)),
        ("1", str(SDSS[0]), "99999999999999999999"),
    ],
)
def test_what_an_id_is_stays(capsys, texts):
    assert ids_of(*texts) == list(texts)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("texts", "ids", "said"),
    [
        ((" a", "b\t", "c"), ["a", "b", "c"], ""),
        (('"a"', "'b'", "“c”", "d"), ["a", "b", "c", "d"], "3 without the quotes or marks around them"),
        (('="0012"', "'587722981741363101"), ["0012", "587722981741363101"], "2 without the quotes"),
        (("\ufeffa", "b\u200b"), ["a", "b"], "2 without"),
        (("12.0", "7.0", "123456789012345.0"), ["12", "7", "123456789012345"], "3 without the .0"),
        (("12.", "7.00", "x"), ["12", "7", "x"], "2 without the .0"),
        (("e\u0301", "a"), ["\u00e9", "a"], "1 with their accents composed"),
    ],
)
def test_what_is_mended_is_said(capsys, texts, ids, said):
    assert ids_of(*texts) == ids
    printed = capsys.readouterr().out
    assert said in printed and printed.count("\n") == bool(said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.23E+17", "an id that was rounded"),
        ("5.877229817413633e+17", "an id that was rounded"),
        ("5,87723E+17", "an id that was rounded"),
        ("5e+17", "an id that was rounded"),
        ("587722981741363101.0", "an id that was rounded"),
        ("1234567890123456.0", "an id that was rounded"),
        ("########", "an error of a spreadsheet"),
        ("#REF!", "an error of a spreadsheet"),
        ("", "an empty cell and no id"),
        ("  ", "an empty cell and no id"),
        ("''", "an empty cell and no id"),
        ("a\nb", "a line break"),
        ("a\rb", "a line break"),
        ("a\u2028b", "a line break"),
        ("a\x85b", "a line break"),
        ("\x1b[2Ja", "a control character"),
        ("a\0b", "a control character"),
        ("a\x9fb", "a control character"),
        ("spiral\u202egpj.1", "an invisible character"),
        ("a\u2066b", "an invisible character"),
        ("a\u200bb", "an invisible character"),
        ("a\ud800", "half a character"),
        ("x" * 10_000, f"it has 10000 characters, and {MAX_LENGTH} are the most"),
    ],
)
def test_what_is_no_id(text, message):
    with pytest.raises(UserError, match=r"column object_id of t\.csv, row 3 holds") as caught:
        ids_of("a", text, "b")
    assert message in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_whole_numbers_are_asked_for():
    assert ids_of("12", "007", whole=True) == ["12", "007"]
    for text in ("a1", "-1", "1.5", "9" * 21, "٣"):
        with pytest.raises(UserError, match=r"row 3 holds .* and not a whole number"):
            ids_of("12", text, whole=True)


def test_empty_ids_where_they_may_be():
    assert ids_of("a", "", "  ", may_be_empty=True) == ["a", "", ""]
    assert ids_of("1.0", "", "2.0", may_be_empty=True) == ["1", "", "2"]  # as pandas writes ids beside a missing one


def rounded_to_15_digits(value: int) -> int:
    return int(float(f"{value:.14e}"))  # through text, as a spreadsheet does


@pytest.mark.parametrize("count", [3, 8, 3000])
@pytest.mark.parametrize(
    "damage",
    [
        lambda i: int(np.float64(i)),
        lambda i: int(np.float32(i)),
        lambda i: int(f"{i:.14e}".replace(".", "").split("e")[0]) * 10 ** (len(str(i)) - 15),
    ],
    ids=["double", "single", "spreadsheet"],
)
def test_rounded_ids_are_refused(damage, count):
    drawn = random.Random(count)
    for start in (587722981741363101, 1237648702966988820, 299567992803518464 + 7):
        ids = [start + drawn.randrange(10**14) for _ in range(count)]
        assert ids_of(*map(str, ids)) == [str(i) for i in ids]
        with pytest.raises(UserError, match=r"column object_id of t.csv holds rounded ids, such as .* in row 2"):
            ids_of(*(str(damage(i)) for i in ids))


def test_ids_that_are_multiples_by_design_are_no_rounded_ones():
    # specObjID of the SDSS: plate, fibre, MJD - 50000 and run in its bits, the lowest ten of which are zero.
    drawn = random.Random(0)
    for count in (1, 2, 5, 40):
        plates = [drawn.randrange(266, 1024) for _ in range(count)]
        spectra = [p << 50 | drawn.randrange(1, 641) << 38 | drawn.randrange(9000) << 24 | 26 << 10 for p in plates]
        assert ids_of(*map(str, spectra)) == [str(i) for i in spectra]
    assert ids_of("299489677444933632")  # plate 266, fibre 1 as the SDSS writes it


def test_even_ids_of_16_digits_are_no_rounded_ones():
    ids = [str(5_000_000_000_000_002 + 2 * k * k) for k in range(40)]  # below 2**53
    assert ids_of(*ids) == ids


def test_one_round_id_among_others_is_one_by_chance():
    ids = [str(i) for i in SDSS]
    ids[3] = "587722981741559000"
    assert ids_of(*ids) == ids
    assert ids_of("587722981741363000") == ["587722981741363000"]


def test_repeated_ids_are_named_with_both_rows():
    with pytest.raises(UserError, match=r"object id 'b' in row 4 of t\.csv occurs before, in row 3: remove one"):
        table = table_of("a", "b", "b", "c")
        refuse_repeated(table, read_ids(table, "object_id"), "remove one")
    with pytest.raises(UserError, match=r"in row 3 .* in row 2 \(2 such rows\)"):
        table = table_of("e\u0301", "\u00e9", '"\u00e9"')
        refuse_repeated(table, read_ids(table, "object_id"), "remove one")


# What is written is read again

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(lambda t: unicodedata.normalize("NFC", t))
LIKELY = st.text(st.sampled_from("\"',;|\t #=-+.0123456789eEnaNA _\\/é"), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.lists(st.one_of(TEXTS, LIKELY), min_size=1, max_size=6, unique=True))
def test_whatever_may_be_written_is_read_again(tmp_path_factory, ids):
    ids = [text for text in ids if not fault_of(text)]
    if not ids:
        return
    check_ids(ids, "a table")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["object_id", "size"], *([i, "0.5"] for i in ids)])
    file = tmp_path_factory.getbasetemp() / "ids.csv"
    file.write_bytes(text.getvalue().encode())
    assert read_table(file, ["object_id"], comments=False).cells["object_id"].tolist() == ids


def test_ids_that_cannot_be_read_again_are_not_written():
    for text in ("", " a", "a\n", "a\nb", "a\x00", "x" * 256, "\u202ea", "\ud800"):
        with pytest.raises(UserError, match=r"object id '.*' cannot be written to d: it (is|has) "):
            check_ids(["fine", text], "d")
