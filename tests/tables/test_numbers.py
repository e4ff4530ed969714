"""Numbers: the many ways to write that a value is unknown, values that no galaxy has, and decimal commas."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config_physics import CATALOGUE_ATTRIBUTES
from galaxies.common.errors import UserError
from galaxies.tables.numbers import PIXEL_SCALE, NumberReader, Quantity, number_texts
from galaxies.tables.reading import Table

NAN = np.nan


def table_of(column: str, texts, decimal_comma=False) -> Table:
    cells = pd.DataFrame({column: list(texts)}, dtype=object)
    return Table(Path("t.csv"), cells, range(2, len(texts) + 2), (), decimal_comma)


def numbers_of(column: str, *texts: str, published=False, decimal_comma=False) -> list[float]:
    reader = NumberReader(table_of(column, texts, decimal_comma), published)
    values = reader.read(column, PIXEL_SCALE if column == "pixel_scale" else Quantity.of(column))
    reader.say()
    assert values.dtype == np.float64
    return values.tolist()


SENTINELS = {
    "redshift": "-9999 -9999.0 -999 -99 -99.0 -9 -9.0 -1 99 99.99 99.9 999 9999 -999.99 -9.99e8 -9.99e+08 1e20 -1e20 "
    "1e30 9.96921e36 -1.6e30 3.4028235e38 1e400 inf -inf +Infinity",
    "petro_r50_kpc": "-9999 -99.99 -1 999 99.99 99 1e20",
    "absolute_magnitude": "-9999 -999 -99.99 -99 99.99 99 -99.9999 9999",
    "stellar_mass": "-9999 -99 -1 99.99 999",
    "pixel_scale": "-9999 -1 99.99 999",
}
# fmt: off
WORDS = ["nan", "NaN", "-nan", "NA", "n/a", "#N/A", "<NA>", "null", "NULL", "None", "masked", "--", "---", "-", "?",
         "...", "Unknown", "#VALUE!", "#DIV/0!", "nil"]
IMPOSSIBLE = [("redshift", "-5"), ("redshift", "1e5"), ("redshift", "10.5"), ("stellar_mass", "3e10"),
              ("stellar_mass", "0"), ("absolute_magnitude", "21.5"), ("petro_r50_kpc", "-4"), ("pixel_scale", "0")]
# fmt: on


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("column", SENTINELS)
def test_sentinels_are_unknown_and_counted(capsys, column, published):
    texts = SENTINELS[column].split()
    fine = {"redshift": "0.05", "absolute_magnitude": "-21.5", "stellar_mass": "10.5"}.get(column, "4.5")
    values = numbers_of(column, fine, *texts, published=published)
    np.testing.assert_array_equal(values, [float(fine)] + [NAN] * len(texts))
    printed = capsys.readouterr().out
    assert printed.startswith(f"taken as unknown in t.csv: {column} {len(texts)} (")
    assert printed.count("\n") == 1


def test_words_for_unknown_are_counted_and_empty_cells_are_not(capsys):
    values = numbers_of("redshift", "0.1", "", " ", '""', *WORDS, "'nan'", "-9999", "-9999.0")
    np.testing.assert_array_equal(values, [0.1] + [NAN] * (len(WORDS) + 6))
    assert f"redshift {len(WORDS) + 3} (2 of -9999" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("redshift", "0.25", 0.25),
        ("redshift", "9.9", 9.9),
        ("redshift", " 1e-3 ", 0.001),
        ("redshift", "1.5D-02", 0.015),
        ("redshift", "'0.5'", 0.5),
        ("absolute_magnitude", "-9.9", -9.9),  # a dwarf
        ("absolute_magnitude", "\N{MINUS SIGN}21", -21.0),
        ("petro_r50_kpc", "98", 98.0),
        ("petro_r50_kpc", "100", 100.0),
        ("stellar_mass", "9.99", 9.99),
        ("pixel_scale", "0.396", 0.396),
        ("pixel_scale", "9.9", 9.9),
    ],
)
def test_numbers_that_galaxies_have_stay(capsys, column, text, value):
    assert numbers_of(column, text, published=True) == [value]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("column", "text"), IMPOSSIBLE)
def test_impossible_values_are_refused_in_tables_of_the_users_own(column, text):
    with pytest.raises(UserError, match=f"column {column} of t.csv, row 4 holds '{text}': it takes numbers above "):
        numbers_of(column, "-9999", "", text, "-7777")


@pytest.mark.parametrize(("column", "text"), IMPOSSIBLE)
def test_impossible_values_of_published_tables_are_unknown_and_counted(capsys, column, text):
    np.testing.assert_array_equal(numbers_of(column, text, "", text, published=True), [NAN] * 3)
    shown = f"{float(text):g}".replace("+", r"+")
    assert capsys.readouterr().out == f"impossible and left as unknown in t.csv: {column} 2 (2 of {shown})\n"


@pytest.mark.parametrize("text", ["many", "0.1 mag", "0.05+-0.01", "1_000", "0x10", "True", "1,5", "10%", "1 000", "½"])
@pytest.mark.parametrize("published", [False, True])
def test_text_is_no_number(text, published):
    with pytest.raises(UserError, match=r"column redshift of t.csv, row 3 holds .*: it is no number"):
        numbers_of("redshift", "0.1", text, published=published)


def test_decimal_commas_where_commas_do_not_separate(capsys):
    assert numbers_of("redshift", "0,05", "1", ",5", "1,2e-1", decimal_comma=True) == [0.05, 1.0, 0.5, 0.12]
    assert number_texts(table_of("redshift", ["0,05", " x ", ""], True), "redshift") == ["0.05", "x", ""]
    assert number_texts(table_of("redshift", ["0,05"]), "redshift") == ["0,05"]
    for read in (numbers_of, lambda column, *t, **how: number_texts(table_of(column, t, True), column)):
        with pytest.raises(UserError, match=r"row 2 holds '1,234': another cell of the column holds '0\.05'"):
            read("redshift", "1,234", "0.05", decimal_comma=True)
    with pytest.raises(UserError, match=r"holds '1\.234,5': it is no number"):
        numbers_of("petro_r50_kpc", "1.234,5", decimal_comma=True)


def test_no_sentinel_lies_where_galaxies_usually_are():
    for name in CATALOGUE_ATTRIBUTES:
        low, high = Quantity.of(name).usual
        values = np.linspace(low, high, 1001)[1:]
        # Older releases of pandas read some numbers a last bit off.
        found = numbers_of(name, *map(repr, values.tolist()), published=True)
        assert found == pytest.approx(values.tolist(), rel=1e-15)


def test_votes_may_be_99():
    reader = NumberReader(table_of("total_votes", ["99", "999", "-1", "1e20"]), published=True)
    votes = reader.read("total_votes", Quantity((-1.0, 1e5), (0.0, 1e5)))
    np.testing.assert_array_equal(votes, [99, 999, NAN, NAN])
