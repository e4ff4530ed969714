"""Read a table from elsewhere as text: packed, encoded and separated as it comes, or refused in one sentence.

The one door for every table that a user brings. What a cell means is decided afterwards, for ids by `identifiers`, for
numbers by `numbers`, for classes by `classes`; so that the same cell means the same in every table.
"""

from __future__ import annotations

import codecs
import csv
import importlib
import io
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from galaxies.common.errors import UserError, shown
from galaxies.common.parsing import MAX_IMAGES
from galaxies.common.reading import MissingError, open_regular
from galaxies.common.untrusted_files import UntrustedFileError
from galaxies.tables.opening import BLOCK, UNPACK_ERRORS, TableStream, unpacked
from galaxies.tables.text_layout import SEPARATORS, Form, form_of, names_in, reader_of
from galaxies.tables.typed_columns import TypedTable
from galaxies.tables.votable_tables import is_votable

CURE = "save the table as CSV in UTF-8"
_MOST_STREAMED_BYTES, _MOST_STREAMED_ROWS = 10**11, MAX_IMAGES  # of a table that is never in memory as a whole
# First bytes of files whose columns have types, and what opens them: a function of the file and of the wanted columns,
# loaded when there is one.
_TYPED = (
    (b"SIMPLE  =", "fits_tables.opened_fits"),
    (b"PAR1", "parquet_tables.opened_parquet"),
)
# First bytes of what is no text, and of text that is no table of rows and columns; after blanks and a UTF-8 mark.
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"<", "a web page or XML and no table of rows and columns"),
    (b"[{", "JSON and no table of rows and columns"),
    (b"{", "JSON and no table of rows and columns"),
    (b"\xd0\xcf\x11\xe0", "a file of a spreadsheet program"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"SQLite format", "a database"),
)


@dataclass(frozen=True)
class Table:
    """Columns of a table from elsewhere, as text.

    Attributes
    ----------
    file : Path
    cells : DataFrame, N rows
        The columns that were asked for and are there, or all of them, by their names in lower case; "" where a cell is
        empty.
    rows : sequence of int, N
        Where each row stands in the file, counted as a spreadsheet does: the header is row 1 of a text.
    others : tuple of str
        Names of the columns that nobody asked for, as far as they have one.
    decimal_comma : bool
        Whether a number may be written with a decimal comma, since commas do not separate the cells.
    """

    file: Path
    cells: pd.DataFrame
    rows: Sequence[int]
    others: tuple[str, ...] = ()
    decimal_comma: bool = False

    def __len__(self) -> int:
        return len(self.cells)

    def place(self, column: str, row: int) -> str:
        """Say where the cell of a column is that stands in row `row` (from 0) of `cells`."""
        return f"column {column} of {self.file}, row {self.rows[row]}"


class _NotPlainError(Exception):
    """The fast reader met what only the exact one reads rightly."""


def read_table(
    file: Path,
    wanted: Collection[str],
    needed: Collection[str] = (),
    *,
    cure: str = CURE,
    even: bool = False,
    comments: bool = True,
    rest: bool = False,
) -> Table:
    """Read columns of a table by their names, in any order and case; what was assumed is said in one line.

    Parameters
    ----------
    file : Path
        Text in UTF-8, UTF-16 (with its mark) or, if it is neither, Windows-1252, the Latin-1 of spreadsheets; cells
        separated by commas, semicolons, tabs, vertical bars or spaces, with or without quotes, and lines ended by LF,
        CRLF or CR. Or a FITS table or a VOTable. Each may be packed; see `opening`. Or a Parquet file.
    wanted : collection of str
        Names of columns in lower case; those that are not there are left out.
    needed : collection of str
        Names among them without which it is not the table that is asked for.
    cure : str
        What to do if it cannot be read, which ends the sentence.
    even : bool
        Refuse a row with fewer cells than the header, as in tables that a program wrote; otherwise the cells that are
        not there are empty, as spreadsheets leave them out.
    comments : bool
        Pass over lines that begin with # and are no row: those before the header, and those that have not as many
        cells as it has.
    rest : bool
        Keep all other columns that have a name as well; of two of one name, either.

    Returns
    -------
    Table
        With one row or more.

    Raises
    ------
    MissingError
        If there is no such file.
    UserError
        If it cannot be read, has no row, lacks a column, has a column twice, or a row has more cells than the header.
    """
    with _sentences(file, cure):
        first = _first_bytes(file)
        if opened := _typed(file, first, cure):
            with opened(file, wanted) as typed:
                (table,) = _typed_blocks(file, typed, wanted, needed, cure, max(1, typed.num_rows), rest)
                return table
        start = _first_block(file, cure)
        try:
            return _read_text(file, "utf-8-sig", start, wanted, needed, cure, even, comments, rest)
        except UnicodeDecodeError:
            return _read_text(file, "cp1252", start, wanted, needed, cure, even, comments, rest)


def read_blocks(
    file: Path,
    wanted: Collection[str],
    needed: Collection[str] = (),
    *,
    size: int = 65_536,
    cure: str = CURE,
) -> Iterator[Table]:
    """Do as `read_table` with a table of any length, of which a block of rows at a time is in memory.

    What is wrong is found when its block is read: a row with too many cells, or that there is none, perhaps at the end.

    Yields
    ------
    Table
        Of up to `size` rows.

    Raises
    ------
    UserError
        As `read_table` does.
    """
    with _sentences(file, cure):
        first = _first_bytes(file)
        if opened := _typed(file, first, cure):
            with opened(file, wanted, _MOST_STREAMED_ROWS) as typed:
                yield from _typed_blocks(file, typed, wanted, needed, cure, size)
            return
        start = _first_block(file, cure)
        encoding = "utf-8-sig" if _is_utf8(file) else "cp1252"
        form = form_of(start.decode(encoding, "ignore"), wanted, needed, comments=True)
        count, rows = 0, None
        for rows in _blocks_exactly(
            _streamed(file), encoding, form, wanted, file, even=False, comments=True, size=size
        ):
            if count == 0:
                _check(file, rows.names, len(rows.numbers), wanted, needed, cure)
            count += len(rows.numbers)
            if len(rows.numbers):
                yield _table_of(file, form, rows, wanted)
        assert rows is not None, "there is a last block"
        _say_assumed(file, encoding, form, rows)


def _streamed(file: Path) -> TableStream:
    return TableStream(file, _MOST_STREAMED_BYTES, _MOST_STREAMED_ROWS)


def _is_utf8(file: Path) -> bool:
    """Tell whether a text is in UTF-8, which may show at its very end."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with _streamed(file) as stream:
        try:
            while block := stream.read(BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


@contextmanager
def _sentences(file: Path, cure: str) -> Iterator[None]:
    """Turn what can be wrong with a table's file into a sentence."""
    try:
        yield
    except MissingError:
        raise UserError(f"{file} does not exist: name another table") from None
    except UserError:
        raise
    except UnicodeDecodeError as error:
        found = f"its text is neither in UTF-8 nor in Windows-1252, byte {error.start}"
        raise UserError(f"{file} cannot be read ({found}): {cure}") from None
    except UNPACK_ERRORS as error:
        raise UserError(f"{file} cannot be read ({error}): {cure}") from error


def _typed(file: Path, first: bytes, cure: str) -> Any:
    """Return what opens a file whose columns have types, by its first bytes; None of a text.

    Raises
    ------
    UserError
        If it is something else.
    """
    if where := next((where for mark, where in _TYPED if first.startswith(mark)), None):
        return _opened(where)
    if is_votable(first):
        return _opened("votable_tables.opened_votable")
    if stranger := next((kind for mark, kind in _STRANGERS if first.startswith(mark)), None):
        raise UserError(f"{file} is {stranger}: {cure}")
    return None


def _first_bytes(file: Path) -> bytes:
    """Return the bytes with which a table begins, unpacked, after a mark of UTF-8 and blanks."""
    with open_regular(file) as stream:
        return unpacked(stream).read(BLOCK).lstrip(codecs.BOM_UTF8 + b" \t\r\n")


def _first_block(file: Path, cure: str) -> bytes:
    """Return the first block of a text, which is not blank; a stream gives less at a time."""
    with TableStream(file) as stream:
        parts, size = [], 0
        while size < BLOCK and (part := stream.read(BLOCK - size)):
            parts.append(part)
            size += len(part)
        start = b"".join(parts)
    if not start.lstrip(codecs.BOM_UTF8 + b" \t\r\n"):
        raise UserError(f"{file} is empty: {cure}")
    return start


def _read_text(
    file: Path,
    encoding: str,
    start: bytes,
    wanted: Collection[str],
    needed: Collection[str],
    cure: str,
    even: bool,
    comments: bool,
    rest: bool,
) -> Table:
    taken = _Everything(wanted) if rest else wanted
    form = form_of(start.decode(encoding, "ignore"), wanted, needed, comments)
    rows: _Rows | None = None
    # Galaxy Zoo's tables have hundreds of MB, of which a few columns are wanted.
    if encoding == "utf-8-sig" and len(start) >= BLOCK and not form.skipped and form.names is None:
        rows = _read_plain(file, form.separator, taken)
    if rows is None:
        (rows,) = _blocks_exactly(TableStream(file), encoding, form, taken, file, even, comments)
    _check(file, rows.names, len(rows.numbers), wanted, needed, cure)
    _say_assumed(file, encoding, form, rows)
    return _table_of(file, form, rows, wanted)


def _table_of(file: Path, form: Form, rows: _Rows, wanted: Collection[str]) -> Table:
    return Table(file, rows.cells, rows.numbers, _others(rows.names, wanted), decimal_comma=form.separator != ",")


def _say_assumed(file: Path, encoding: str, form: Form, rows: _Rows) -> None:
    notes = []
    if encoding != "utf-8-sig":
        notes.append("its text is not UTF-8 and was read as Windows-1252 (Latin-1)")
    if form.separator not in ",\t":
        notes.append(f"its cells are taken as separated by {SEPARATORS[form.separator]}")
    if rows.short:
        notes.append(f"rows with fewer cells than the header, which have no value in the others: {rows.short}")
    if rows.comments:
        notes.append(f"lines passed over since they begin with #: {rows.comments}")
    if rows.empty:
        notes.append(f"rows passed over since all their cells are empty: {rows.empty}")
    if notes:
        print(f"{file}: {'; '.join(notes)}")


class _Everything(Collection[str]):
    """Names of columns that are wanted, to which every other name belongs as well."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = wanted

    def __contains__(self, name: object) -> bool:
        return bool(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._wanted)

    def __len__(self) -> int:
        return len(self._wanted)


def _opened(where: str) -> Any:
    module, name = where.split(".")
    return getattr(importlib.import_module(f"galaxies.tables.{module}"), name)


def _typed_blocks(
    file: Path,
    typed: TypedTable,
    wanted: Collection[str],
    needed: Collection[str],
    cure: str,
    size: int,
    rest: bool = False,
) -> Iterator[Table]:
    names = [name.strip().lower() for name in typed.names]
    _check(file, names, typed.num_rows, wanted, needed, cure)
    taken = _Everything(wanted) if rest else wanted
    places = {name: place for place, name in enumerate(names) if name in taken}
    others = _others(names, wanted)
    blocks = typed.blocks(list(places.values()), size) if places else itertools.repeat([])
    for start, columns in zip(range(0, typed.num_rows, size), blocks, strict=False):
        stop = min(start + size, typed.num_rows)
        cells = pd.DataFrame(dict(zip(places, columns, strict=True)), dtype=object, index=range(stop - start))
        yield Table(file, cells, range(start + 1, stop + 1), others)


def _check(
    file: Path, names: list[str], count: int, wanted: Collection[str], needed: Collection[str], cure: str
) -> None:
    """Refuse a table without the columns that it must have, with one twice, or without a row."""
    for name in wanted:
        if names.count(name) > 1:
            raise UserError(f"{file} has two columns {name}: remove one")
    for name in needed:
        if name not in names:
            raise UserError(f"{file} has no column {name}: it has {listed([name for name in names if name])}")
    if not count:
        raise UserError(f"{file} has a header and no row: {cure}")


def _others(names: list[str], wanted: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name and name not in wanted)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Write names from a file in a sentence, not too many of them."""
    plain = [name if name.isprintable() and len(name) <= 60 else shown(name) for name in names[:most]]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(plain) + more if names else "none"


# The rows


class _Rows(NamedTuple):
    """What was read of a text.

    Attributes
    ----------
    names : list of str
        Of all columns, in lower case.
    cells : DataFrame
        Those that are wanted.
    numbers : sequence of int
        Where each row stands.
    short, comments, empty : int
        Rows with fewer cells than the header; lines and rows that are none.
    """

    names: list[str]
    cells: pd.DataFrame
    numbers: Sequence[int]
    short: int = 0
    comments: int = 0
    empty: int = 0


def _blocks_exactly(
    stream: TableStream,
    encoding: str,
    form: Form,
    wanted: Collection[str],
    file: Path,
    even: bool,
    comments: bool,
    size: int | None = None,
) -> Iterator[_Rows]:
    """Read any text row by row, `size` rows at a time or all; the last block, perhaps empty, counts the oddities."""
    with io.TextIOWrapper(io.BufferedReader(stream, BLOCK), encoding=encoding, newline="") as text:
        for _ in range(form.skipped):
            next(text)
        reader = reader_of(iter(text), form.separator)
        number = form.skipped
        try:
            if form.names is None:
                number += 1
            names = [name.lower() for name in form.names or names_in(next(reader, []))]
            width = len(names)
            places = [place for place, name in enumerate(names) if name in wanted]
            taken: list[list[str]] = [[] for _ in places]
            append: list[tuple[int, Callable[[str], None]]] = [
                (place, column.append) for place, column in zip(places, taken, strict=True)
            ]
            numbers: list[int] = []
            count = short = remarks = empty = num_wide = 0
            first_wide = (0, 0)  # a row with more cells than the header, and how many
            apart: tuple[int, int] | None = None
            for record in reader:
                number += 1
                if len(record) != width:
                    if not record:  # an empty line
                        continue
                    if comments and record[0].startswith("#"):
                        remarks += 1
                        continue
                if not any(record) or not any(map(str.strip, record)):
                    empty += 1
                    continue
                if len(record) > width:
                    first_wide = first_wide if num_wide else (number, len(record))
                    num_wide += 1
                    if any(map(str.strip, record[width:])):
                        apart = number, len(record)
                        break
                elif len(record) < width:
                    if even:
                        raise UserError(
                            f"row {number} of {file} has {len(record)} cells and its header {width}: the file was cut "
                            "short or damaged, so download it again"
                        )
                    short += 1
                    record += [""] * (width - len(record))
                if len(numbers) == size:
                    yield _Rows(names, _cells(names, places, taken), numbers)
                    numbers = []
                    for column in taken:
                        column.clear()
                for place, add in append:
                    add(record[place])
                numbers.append(number)
                count += 1
        except csv.Error as error:
            what = "a quote that begins a cell is not closed" if "unexpected end" in str(error) else str(error)
            raise UntrustedFileError(f"row {number + 1} is no row of a table: {what}") from None
    # A comma at the end of every row is a habit of some programs; of some rows, a cell that came apart.
    if apart is not None or num_wide not in (0, count):
        row, cells = apart or first_wide
        hint = ", and text that holds a comma needs quotes" if form.separator == "," else ""
        raise UserError(f"row {row} of {file} has {cells} cells and its header {width}: every row has as many{hint}")
    yield _Rows(names, _cells(names, places, taken), numbers, short, remarks, empty)


def _cells(names: Sequence[str], places: Sequence[int], taken: Sequence[Sequence[str]]) -> pd.DataFrame:
    chosen = {names[place]: list(column) for place, column in zip(places, taken, strict=True)}
    return pd.DataFrame(chosen, dtype=object)


class _PlainStream(TableStream):
    """A table in which every line is a row of as many cells, without quotes; or else `_NotPlainError` is raised."""

    def __init__(self, file: Path, separator: str) -> None:
        super().__init__(file)
        self._separator = separator.encode()
        self._width = -1
        self._rest = b""

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        data = self._rest + bytes(buffer[:size])
        end = data.rfind(b"\n") + 1 if size else len(data)
        lines, self._rest = data[:end], data[end:]
        if not lines:
            return size
        if self._width < 0:
            self._width = lines[: lines.find(b"\n")].count(self._separator)
        rows = lines.count(b"\n") or 1
        cells = np.count_nonzero(np.frombuffer(lines, np.uint8) == self._separator[0])
        bare = b"\r" in lines and lines.count(b"\r") != lines.count(b"\r\n")
        # That no row has more cells than the first is pandas' part.
        if cells != rows * self._width or bare or b'"' in lines:
            raise _NotPlainError
        return size


def _read_plain(file: Path, separator: str, wanted: Collection[str]) -> _Rows | None:
    """Read a large text without oddities, five times as fast as `_blocks_exactly`; None if there are some."""
    try:
        with io.BufferedReader(_PlainStream(file, separator), BLOCK) as stream:
            names = [name.lower() for name in names_in(stream.readline().decode("utf-8-sig").split(separator))]
            places = [place for place, name in enumerate(names) if name in wanted]
            cells = pd.read_csv(
                stream,
                sep=separator,
                header=None,
                names=list(range(len(names))),
                usecols=places,
                dtype=str,  # ids of 18 digits do not survive as floating-point numbers
                na_filter=False,
                quoting=csv.QUOTE_NONE,
                skip_blank_lines=False,
                index_col=False,
                compression=None,
                encoding="utf-8",
                encoding_errors="strict",
                on_bad_lines="error",
            )
    except (
        _NotPlainError,
        UnicodeDecodeError,
        pd.errors.ParserError,
        pd.errors.ParserWarning,
        pd.errors.EmptyDataError,
    ):
        return None
    cells.columns = pd.Index([names[place] for place in places])
    if not places or (cells[cells.columns[0]].str.strip() == "").any():  # perhaps a row of empty cells
        return None
    return _Rows(names, cells, range(2, len(cells) + 2))
