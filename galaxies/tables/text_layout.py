"""How a table of text is laid out: what separates its cells, and where its header is."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}
_SNIFFED_LINES = 20


class Form(NamedTuple):
    """How a text is laid out: lines before its header, what separates cells, and its column names (None: in the text).

    `names` are as they are written, without blanks around them.
    """

    skipped: int
    separator: str
    names: tuple[str, ...] | None


def form_of(text: str, wanted: Collection[str], needed: Collection[str], comments: bool) -> Form:
    """Find out how a text is laid out by its first lines; see `Form`."""
    lines = io.StringIO(text, newline="").readlines()[: 1000 + _SNIFFED_LINES]
    skipped = 0
    separators: tuple[str, ...] = tuple(SEPARATORS)
    said = lines[0].strip().lower() if lines else ""
    if said.startswith("sep=") and len(said) <= 5:  # a spreadsheet's own hint
        skipped = 1
        separators = (lines[0].strip()[4:] or "\t",) if said[4:] in (*SEPARATORS, "") else separators
    remark = ""
    while skipped < len(lines) and (not lines[skipped].strip() or (comments and lines[skipped].startswith("#"))):
        remark = lines[skipped] if lines[skipped].strip() else remark
        skipped += 1
    lines, remark = lines[skipped : skipped + _SNIFFED_LINES], remark.lstrip("# \t")
    separator, names = _separator(lines, separators, wanted)
    if remark and not set(needed or wanted) <= set(map(str.lower, names)):
        # numpy.savetxt and TOPCAT write the header as a comment.
        other, heads = _separator([remark, *lines], separators, wanted)
        if set(needed or wanted) <= set(map(str.lower, heads)):
            return Form(skipped, other, tuple(heads))
    return Form(skipped, separator, None)


def _separator(lines: Sequence[str], separators: Sequence[str], wanted: Collection[str]) -> tuple[str, list[str]]:
    """Choose what separates the cells of lines, of which the first is the header; return it and the header's names.

    What finds the most of the columns that are wanted; then what gives the most rows as many cells as the header.
    """
    best: tuple[tuple[int, int, int], str, list[str]] = ((-1, 0, 0), ",", [])
    for separator in separators:
        try:
            records = list(reader_of(iter(lines), separator, strict=False))
        except csv.Error:
            continue
        names = names_in(records[0]) if records else []
        even = sum(len(record) == len(names) for record in records[1:]) if len(names) > 1 else 0
        found = len(set(wanted) & set(map(str.lower, names)))
        # Spaces stand within names, and so are no more than a last resort.
        score = (found, even, len(names)) if separator != " " else (found, -1, 0)
        if score > best[0]:
            best = (score, separator, names)
    return best[1], best[2]


def reader_of(lines: Iterator[str], separator: str, strict: bool = True) -> Any:
    """Return a reader of the `csv` module for lines of cells with this separator; `strict` of quotes."""
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=strict)


def names_in(record: Sequence[str]) -> list[str]:
    """Return the names in a header's cells, without the blanks and quotes around them."""
    return [name.strip().strip("\"'").strip() for name in record]
