"""What a number in a table is: a value, or one of the many ways in which catalogues write that there is none.

Units are never guessed: a number is taken as it stands, and one that no galaxy can have is not made to fit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np
import pandas as pd

from config_physics import attribute_table
from galaxies.common.errors import UserError, shown
from galaxies.tables.reading import Table

# Words for "unknown" in tables that pandas, astropy, TOPCAT, SQL and spreadsheets write, in lower case.
# fmt: off
_UNKNOWN_WORDS = frozenset((
    "nan", "+nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "(null)", "none", "nil", "nat", "masked", "undefined",
    "unknown", "missing", "nodata", "...", "…", "-", "--", "---", "–", "—", "?", "*", ".", "\\n", "#value!", "#div/0!",
    "#num!", "#ref!", "#name?", "#null!",
))
# fmt: on
_NINES = re.compile(r"[+-]?9+(?:\.9*0*)?")  # -9, -99.0, 99.99, 9999
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+,\d*|,\d+)(?:[eE][+-]?\d+)?")
_FORTRAN = re.compile(r"([+-]?[\d.]+)[dD]([+-]?\d+)")
# From here on a number stands for none in any unit: 1e20 and 1e30 as such, 9.97e36 of netCDF, 3.4e38 and 1.8e308.
_ABSURD = 1e20
_LOWEST_PLAUSIBLE_SENTINEL = 99.0  # 99.99 can be a radius, -9.9 may be a dwarf's magnitude


class Quantity(NamedTuple):
    """What numbers a column can hold.

    Attributes
    ----------
    plausible : tuple of float
        What a galaxy can have at all; the low end is excluded.
    usual : tuple of float
        What most have: 99.99 and the like stand for an unknown value outside of it, and for themselves inside.
    """

    plausible: tuple[float, float]
    usual: tuple[float, float]

    @classmethod
    def of(cls, attribute: str) -> Quantity:
        """Return what an attribute of `config_physics` can be."""
        (known,) = attribute_table((attribute,))
        low, high = known.plausible
        if known.source == "structure" and known.low == low:  # as of a disc without a bar, where 0 stands for itself
            low -= 1e-9
        return cls((low, high), (known.low, known.high))


PIXEL_SCALE = Quantity((0.0, 1000.0), (0.0, 60.0))  # arcseconds a pixel


class NumberReader:
    """Reads the number columns of a table, and counts what it takes for unknown.

    Parameters
    ----------
    table : Table
    published : bool
        Whether the table is one that somebody else published, so that the user can mend nothing in it: an impossible
        value is then unknown. In a table of the user's own it is a mistake, such as a mass that is no logarithm, and
        is refused.
    """

    def __init__(self, table: Table, published: bool = False) -> None:
        self._table = table
        self._published = published
        self._unknown: dict[str, Counter[str]] = {}
        self._impossible: dict[str, Counter[str]] = {}

    def read(self, column: str, quantity: Quantity) -> np.ndarray:
        """Read a column of the table.

        Returns
        -------
        ndarray, (N,), float64
            NaN where unknown: empty, a word for it, infinite, a sentinel such as -9999, or absurdly large.

        Raises
        ------
        UserError
            At a cell that is no number; and in a table of the user's own at a number that no galaxy has. It names
            file, column and row.
        """
        texts = self._table.cells[column]
        values = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64, copy=True)
        words = np.flatnonzero(np.isnan(values) & (texts != "").to_numpy())
        self._read_words(column, words, values)
        numbers = values.copy()
        low, high = quantity.plausible
        with np.errstate(invalid="ignore"):
            usual = (values >= quantity.usual[0]) & (values <= quantity.usual[1])
            fine = (values > low) & (values <= high) & (usual | (np.abs(values) < _LOWEST_PLAUSIBLE_SENTINEL))
        odd = np.flatnonzero(~fine & ~np.isnan(values))
        impossible = []
        for value, count in zip(*np.unique(values[odd], return_counts=True), strict=True):
            possible = low < value <= high
            if self._is_sentinel(float(value), possible):
                self._unknown.setdefault(column, Counter())[f"{value:g}"] += int(count)
            elif possible:
                continue
            else:
                impossible.append(value)
                self._impossible.setdefault(column, Counter())[f"{value:g}"] += int(count)
            values[values == value] = np.nan
        if impossible and not self._published:
            place = next(place for place in odd if numbers[place] in impossible)
            _refuse(self._table, column, int(place), f"it takes numbers above {low:g} and up to {high:g}")
        return values

    def say(self) -> None:
        """Print in one line what was taken for unknown, by column; nothing if there was nothing."""
        for what, found in (("taken as unknown", self._unknown), ("impossible and left as unknown", self._impossible)):
            if found:
                columns = [f"{column} {counts.total()} ({_most(counts)})" for column, counts in found.items()]
                print(f"{what} in {self._table.file}: {', '.join(columns)}")

    def _read_words(self, column: str, places: np.ndarray, values: np.ndarray) -> None:
        """Fill in the values of cells that pandas takes for no numbers."""
        known: dict[str, float] = {}
        commas = []
        for place in places.tolist():
            text = self._table.cells[column].iloc[place]
            if text not in known:
                word = _word(text)
                if not word or word.lower() in _UNKNOWN_WORDS:
                    known[text] = np.nan
                elif _has_decimal_comma(self._table, word):
                    known[text] = float(word.replace(",", "."))
                    commas.append(place)
                else:
                    known[text] = self._number(column, place, word)
            values[place] = known[text]
            if np.isnan(values[place]) and _word(text):
                self._unknown.setdefault(column, Counter())[shown(text.strip(), 12)] += 1
        _refuse_mixed(self._table, column, commas)

    def _number(self, column: str, place: int, word: str) -> float:
        try:
            if "_" in word:  # which Python takes for a separator of thousands
                raise ValueError
            return float(_FORTRAN.sub(r"\1e\2", word))
        except ValueError:
            _refuse(self._table, column, place, "it is no number")

    def _is_sentinel(self, value: float, possible: bool) -> bool:
        if abs(value) >= _ABSURD or np.isinf(value):
            return True
        nines = _NINES.fullmatch(f"{value:.6g}") is not None and (value < 0 or value > 9.9)
        if possible:
            return nines and abs(value) >= _LOWEST_PLAUSIBLE_SENTINEL
        return nines or value in (-1.0, -9.99e8, -999999488.0)  # the last as single precision keeps -999999500


def number_texts(table: Table, column: str) -> list[str]:
    """Return a column's cells without blanks around them and with decimal points, for readers with rules of their own.

    Raises
    ------
    UserError
        If decimal points and decimal commas are mixed.
    """
    texts = [text.strip() for text in table.cells[column]]
    commas = [place for place, text in enumerate(texts) if _has_decimal_comma(table, text)]
    _refuse_mixed(table, column, commas)
    for place in commas:
        texts[place] = texts[place].replace(",", ".")
    return texts


def _has_decimal_comma(table: Table, word: str) -> bool:
    return table.decimal_comma and _DECIMAL_COMMA.fullmatch(word) is not None


def _refuse_mixed(table: Table, column: str, commas: Sequence[int]) -> None:
    """Refuse a column where a comma is decimal in some cells, at these places, and a point in others."""
    if not commas:
        return
    points = table.cells[column].str.contains(r"\d\.|\.\d").to_numpy(bool)
    if points.any():
        point = shown(table.cells[column].iloc[int(np.argmax(points))])
        why = f"another cell of the column holds {point}, so that one of both marks groups digits"
        _refuse(table, column, commas[0], why)


def _refuse(table: Table, column: str, place: int, why: str) -> NoReturn:
    text = shown(str(table.cells[column].iloc[place]))
    raise UserError(f"{table.place(column, place)} holds {text}: {why}, and an unknown value is an empty cell")


def _word(text: str) -> str:
    """Return what a cell holds without blanks and quotes, and with a plain minus."""
    return text.strip().strip("\"'").strip().replace("\N{MINUS SIGN}", "-")


def _most(counts: Counter[str]) -> str:
    common = counts.most_common(3)
    listed = ", ".join(f"{count} of {text}" if count > 1 else text for text, count in common)
    return listed + (" and others" if len(counts) > len(common) else "")
