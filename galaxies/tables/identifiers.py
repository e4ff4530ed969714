"""What an object's id may be: text that names one galaxy, unharmed by a spreadsheet, and the same wherever it is read.

Ids of surveys are whole numbers of 18 digits or more. A spreadsheet keeps 15 of them and a floating-point column 16;
what is left then names no galaxy, or another one, and nothing tells which.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from galaxies.common.errors import UserError, shown
from galaxies.tables.reading import Table

MAX_LENGTH = 255  # characters; of a file's name, from which an id may be taken
_DIGITS = re.compile(r"[0-9]{1,20}")
_EXPONENT = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+[eE][+-]?|[eE]\+)[0-9]{1,3}")  # 1.23E+17, 5e+17; 12E4 is a name
_SPREADSHEET_ERROR = re.compile(r"#{3,}|#(?:N/A|REF!|NAME\?|VALUE!|DIV/0!|NUM!|NULL!|SPILL!|CALC!)")
_WHOLE_FLOAT = re.compile(r"(0|[1-9][0-9]*)[.]0*")
_EXACT_DIGITS = 15  # of a whole number, in a spreadsheet or a floating-point column
_LONGEST_STEP = 1 << 30  # no survey has ids that are multiples of more; single precision leaves such
_SAMPLE = 2000  # ids that are looked at, evenly spread, to tell whether a column was rounded
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"), ("`", "`"))
_EDGES = "\ufeff\u200b\u200e\u200f\u2060"  # invisible, and left behind by copying
_JOINERS = "\u200c\u200d"  # invisible too, and part of words in some scripts
CURE = "make the table again with its ids as text, which neither a spreadsheet nor a floating-point column keeps"


def read_ids(
    table: Table, column: str, *, whole: bool = False, may_be_empty: bool = False, cure: str = CURE
) -> pd.Series:
    """Read a column of ids; what was mended is said in one line.

    Surrounding blanks, quotes and marks without width are taken off, and so is the ".0" of a floating-point column
    where it is exact. Letters with accents are composed (Unicode NFC), since one system writes them so and another
    not. Leading zeros stay, and so does what only looks like a missing value: an object may be called NA.

    Parameters
    ----------
    table : Table
    column : str
    whole : bool
        Whether ids are whole numbers, of 20 digits at most.
    may_be_empty : bool
        Whether there may be no id; it is "" then.
    cure : str
        What to do about ids that were rounded.

    Returns
    -------
    Series of str, N rows

    Raises
    ------
    UserError
        Naming file, column and row, if an id is missing, was rounded, is no whole number, or has characters that
        no name has; see `fault_of`.
    """
    texts = table.cells[column]
    if not texts.str.fullmatch(_DIGITS.pattern).all():
        texts = _mended(table, column, whole, may_be_empty, cure)
    _refuse_rounded(table, column, texts, cure)
    return texts


def fault_of(text: str) -> str:
    """Say what is wrong with an id, as a clause, or return "" if it can be written to a table and read again."""
    if not text:
        return "it is empty"
    if len(text) > MAX_LENGTH:
        return f"it has {len(text)} characters, and {MAX_LENGTH} are the most"
    if text.isascii() and text.isprintable():
        return "it has blanks around it" if text != text.strip() else ""
    if text != stripped(text):
        return "it has blanks or marks without width around it"
    for character in text:
        kind = unicodedata.category(character)
        if character in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029":
            return "it has a line break"
        if kind == "Cc":
            return "it has a control character"
        if kind == "Cs":
            return "it has half a character, which no encoding of text can hold"
        if kind == "Cf" and character not in _JOINERS:
            return "it has an invisible character, which can turn the direction of reading"
    return ""


def check_ids(ids: Iterable[str], where: object) -> None:
    """Refuse ids that could not be read again from a table, before they are written.

    Raises
    ------
    UserError
    """
    for text in ids:
        if fault := fault_of(text):
            raise UserError(f"object id {shown(text)} cannot be written to {where}: {fault}")


def refuse_repeated(table: Table, ids: pd.Series, cure: str) -> None:
    """Refuse ids that name two rows, by `cure`, which says what to do.

    Raises
    ------
    UserError
        Naming the id, and two of its rows.
    """
    again = ids.duplicated().to_numpy()
    if again.any():
        place = int(np.argmax(again))
        text = ids.iloc[place]
        first = table.rows[int(np.argmax((ids == text).to_numpy()))]
        more = f" ({int(again.sum())} such rows)" if again.sum() > 1 else ""
        raise UserError(
            f"object id {shown(text)} in row {table.rows[place]} of {table.file} occurs before, in row {first}{more}: "
            f"{cure}"
        )


def _mended(table: Table, column: str, whole: bool, may_be_empty: bool, cure: str) -> pd.Series:
    texts = table.cells[column]
    plain = [stripped(text) for text in texts]
    ids = [unicodedata.normalize("NFC", text) for text in plain]
    notes = []
    if num := sum(a != b for a, b in zip(texts.str.strip(" \t"), plain, strict=True)):
        notes.append(f"{num} without the quotes or marks around them")
    if num := sum(a != b for a, b in zip(plain, ids, strict=True)):
        notes.append(f"{num} with their accents composed")
    # All of a column went through floating-point numbers, or none: 12.0 beside 12.5 is a name.
    numbers = [text for text in ids if re.fullmatch(r"[0-9]+[.][0-9]*", text)]
    floats = bool(numbers) and all(_WHOLE_FLOAT.fullmatch(text) for text in numbers)
    num = 0
    for place, text in enumerate(ids):
        if not text and may_be_empty:
            continue
        if not text:
            _refuse(table, column, place, "an empty cell and no id: give every galaxy one")
        if _SPREADSHEET_ERROR.fullmatch(text):
            _refuse(table, column, place, f"{shown(text)}, an error of a spreadsheet and no id: {cure}")
        long = _WHOLE_FLOAT.fullmatch(text) and text.index(".") > _EXACT_DIGITS
        if _EXPONENT.fullmatch(text) or (floats and long):
            _refuse(table, column, place, f"{shown(text)}, an id that was rounded and names no galaxy: {cure}")
        if floats and _WHOLE_FLOAT.fullmatch(text):
            ids[place] = text = text[: text.index(".")]
            num += 1
        if whole and not _DIGITS.fullmatch(text):
            _refuse(table, column, place, f"{shown(text)} and not a whole number: {cure}")
        if fault := fault_of(text):
            _refuse(table, column, place, f"{shown(text)}, which is no id: {fault}")
    if num:
        notes.append(f"{num} without the .0 of a floating-point column")
    if notes:
        print(f"ids of column {column} of {table.file} are read {', '.join(notes)}")
    return pd.Series(ids, texts.index, dtype=object)


def _refuse(table: Table, column: str, place: int, what: str) -> None:
    raise UserError(f"{table.place(column, place)} holds {what}")


def id_of_name(name: str) -> str:
    """Return the id that a picture's name without folder and ending stands for, its accents composed."""
    return unicodedata.normalize("NFC", name.strip())


def stripped(text: str) -> str:
    """Take off what stands around a name: blanks, marks without width, quotes, and a spreadsheet's mark of text."""
    text = text.strip().strip(_EDGES).strip()
    if text.startswith('="') and text.endswith('"') and len(text) > 3:  # ="0012", so that it stays text
        text = text[1:]
    for opening, closing in _QUOTES:
        if len(text) >= 2 and text.startswith(opening) and text.endswith(closing):
            return text[1:-1].strip().strip(_EDGES).strip()
    return text[1:] if text.startswith("'") and text[1:].isdigit() else text


# Rounded ids


def _refuse_rounded(table: Table, column: str, ids: pd.Series, cure: str) -> None:
    places = np.flatnonzero(ids.str.len() > _EXACT_DIGITS)
    if len(places) > _SAMPLE:
        places = places[np.linspace(0, len(places) - 1, _SAMPLE).astype(int)]
    whole = [place for place in places.tolist() if _DIGITS.fullmatch(ids.iloc[place])]
    if _are_rounded(sorted({int(ids.iloc[place]) for place in whole})):
        place = whole[0]
        raise UserError(
            f"column {column} of {table.file} holds rounded ids, such as {ids.iloc[place]} in row {table.rows[place]}, "
            f"which no longer name a galaxy: {cure}; if they are whole, write a letter before each"
        )


def _are_rounded(values: Sequence[int]) -> bool:
    """Tell whether whole numbers of more than 15 digits, each once, went through a spreadsheet or a column of floats.

    Nearly all are then multiples of what lies between two numbers that it can hold: of 10, 100 and so on where 15
    digits are kept, of 2, 4 and so on above 2**53 (double precision) or 2**24 (single). Some surveys make ids that are
    multiples of more than that, such as specObjID of the SDSS, of 1024: those are whole, which is told by numbers that
    are all multiples of twice the step, where only half of rounded ones are.
    """
    digits = np.array([len(str(value)) for value in values])
    bits = np.array([value.bit_length() for value in values])
    numbers = np.array(values, dtype=object)
    for base, exponents in ((10, digits - _EXACT_DIGITS), (2, bits - 53), (2, bits - 24)):
        steps = np.array([base ** max(int(exponent), 0) for exponent in exponents], dtype=object)
        able = steps > 1
        on = able & (numbers % steps == 0)
        count, of = int(on.sum()), int(able.sum())
        if of < 2 or count < of * 0.8:
            continue
        # By chance: each with a probability of one over its step.
        chance = -sum(np.log(steps[on].astype(float))) + (of * np.log(2) if count < of else 0)
        multiples = numbers[on] // steps[on]
        even = bool((multiples % base == 0).all()) and int(steps[on].min()) < _LONGEST_STEP
        odd = base == 2 and count > 6 and bool((multiples % 2 == 1).all())
        if chance < np.log(1e-4) and not even and not odd:
            return True
    return False
