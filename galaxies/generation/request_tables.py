"""Requests as a table lists them, a row a galaxy: of any length, of which a part is in memory at a time."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch

from config_physics import MORPHOLOGY_NAMES, Attribute, attribute_table
from galaxies.common.durable_files import plain_errors
from galaxies.common.errors import UserError
from galaxies.common.parsing import NUMBER_FORM
from galaxies.generation.request_values import (
    POSITION_ANGLE,
    RequestError,
    angle_value,
    attribute_value,
    check_known,
    class_shares,
    seed_value,
)
from galaxies.generation.requests import Requests, RequestSequence, names_of
from galaxies.tables.numbers import number_texts
from galaxies.tables.reading import Table, read_blocks

_ROWS = 16_384  # of a table that are read together
_IN_MEMORY = 8 << 20  # bytes of requests; more of them lie in a temporary file, which has no name


class StoredRequests(RequestSequence):
    """Requests that were read of a table, and lie on the disk if there are many.

    Parameters
    ----------
    file : binary file
        Records of `layout`.
    layout : data type
        ``class``, ``shares``, ``seed``, ``angle`` and ``values``.
    count : int
    turned, mixed : bool
        Whether the table has position angles, and shares of classes.
    """

    def __init__(self, file: IO[bytes], layout: np.dtype[np.void], count: int, turned: bool, mixed: bool) -> None:
        self._file, self._layout, self._count, self._turned, self._mixed = file, layout, count, turned, mixed
        weakref.finalize(self, file.close)

    @property
    def turned(self) -> bool:
        """Whether a position angle is asked for."""
        return self._turned

    @property
    def mixed(self) -> bool:
        """Whether shares of classes are asked for."""
        return self._mixed

    def __len__(self) -> int:
        return self._count

    def part(self, start: int, stop: int) -> Requests:
        """Read the requests from `start` to before `stop`."""
        size = self._layout.itemsize
        self._file.seek(start * size)
        rows = np.frombuffer(self._file.read(max(0, stop - start) * size), self._layout)
        angles = torch.from_numpy(rows["angle"].copy()) if self._turned else None
        classes, values, shares = (torch.from_numpy(rows[name].copy()) for name in ("class", "values", "shares"))
        return Requests(classes, values, rows["seed"].copy(), angles, shares=shares if self._mixed else None)


def stored_requests(
    path: Path, attributes: Sequence[str | Attribute], seed: int, classes_known: Sequence[str] = MORPHOLOGY_NAMES
) -> StoredRequests:
    """Read a table of requests, all of which is right before the first is drawn.

    Parameters
    ----------
    path : Path
        Columns ``morphology`` (may be left out where there is one class only), any of `names` (physical units, empty:
        unset), and optionally ``seed`` and ``position_angle`` (degrees). Text, FITS, VOTable or Parquet, see
        `tables.reading.read_table`.
    attributes : sequence of str or Attribute
        Of the checkpoint.
    seed : int
        Row k gets seed + k where the file gives none.
    classes_known : sequence of str
        Of the checkpoint.

    Raises
    ------
    UserError
        Naming the file, and where it applies the column and the row.
    """
    names = names_of(attributes)
    columns = {name: name.lower() for name in names}  # as tables are read
    needed = ("morphology",) if len(classes_known) > 1 else ()
    wanted = ("morphology", "seed", POSITION_ANGLE, *columns.values())
    layout = np.dtype(
        [
            *(("class", "<i8"), ("seed", "<i8"), ("angle", "<f4")),
            *(("values", "<f4", (len(names),)), ("shares", "<f4", (len(classes_known),))),
        ]
    )
    readers = [(columns[name], _value_reader(one)) for name, one in zip(names, attributes, strict=True)]
    count, turned, mixed, marks = 0, False, False, dict[str, bool]()
    file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (as long as the requests)
    try:
        for table in read_blocks(path, wanted, needed, size=_ROWS):
            if count == 0:
                _check_columns(table, names, columns)
                turned = POSITION_ANGLE in table.cells
            _check_marks(table, marks)
            rows, has_shares = _read_rows(table, layout, readers, seed + count, classes_known)
            mixed |= has_shares
            with plain_errors(Path(tempfile.gettempdir())):
                file.write(rows.tobytes())
            count += len(rows)
    except BaseException:
        file.close()
        raise
    return StoredRequests(file, layout, count, turned, mixed)


def read_requests(
    path: Path, attributes: Sequence[str | Attribute], seed: int, classes_known: Sequence[str] = MORPHOLOGY_NAMES
) -> Requests:
    """Read a table of requests into memory; see `stored_requests`."""
    stored = stored_requests(path, attributes, seed, classes_known)
    requests = stored.part(0, len(stored))
    return replace(requests, seeds=np.asarray(requests.seeds).tolist())


def _check_columns(table: Table, names: Sequence[str], columns: dict[str, str]) -> None:
    try:
        check_known(table.others, names)
    except RequestError as error:
        raise UserError(f"{table.file}, row 1: {error}") from None
    lowered = list(columns.values())
    if repeated := [name for name, column in columns.items() if column in table.cells and lowered.count(column) > 1]:
        raise UserError(f"{table.file}: a column may be {' or '.join(repeated)}, which differ by capital letters alone")


def _check_marks(table: Table, marks: dict[str, bool]) -> None:
    """Refuse decimal points in one block of a column and decimal commas in another; `number_texts` does so in one."""
    if not table.decimal_comma:
        return
    for name in set(map(str, table.cells)) - {"morphology", "seed"}:
        commas = table.cells[name].str.contains(",").to_numpy(bool)
        marked = commas | table.cells[name].str.contains(r"\d\.|\.\d").to_numpy(bool)
        if marked.any():
            place = int(np.argmax(marked))
            if marks.setdefault(name, bool(commas[place])) != commas[place]:
                found = "commas" if commas[place] else "points"
                raise UserError(
                    f"{table.place(name, place)} has decimal {found}, and rows above it have the other mark"
                )


def _read_rows(
    table: Table,
    layout: np.dtype[np.void],
    readers: Sequence[tuple[str, Callable[[str], float]]],
    seed: int,
    classes_known: Sequence[str],
) -> tuple[np.ndarray, bool]:
    """Return the records of a block of a table, whose first row gets a seed by default, and whether one has shares.

    Raises
    ------
    UserError
        At the first cell, row by row, that holds what cannot be asked for.
    """
    rows = np.empty(len(table), layout)
    rows["seed"] = np.arange(seed, seed + len(table))
    rows["class"], rows["angle"], rows["values"] = 0, math.nan, math.nan
    one = np.eye(len(classes_known), dtype=np.float32)
    rows["shares"] = one[0]
    wrong: list[tuple[int, UserError]] = []
    found = _Classes(classes_known)

    def fill(target: np.ndarray, texts: Sequence[str], read: Callable[[str], float], may_lack: bool = True) -> None:
        for row, text in enumerate(texts):
            if text or not may_lack:
                try:
                    target[row] = read(text)
                except UserError as error:
                    wrong.append((row, error))
                    return

    if "morphology" in table.cells:
        labels = [text.strip() for text in table.cells["morphology"]]
        fill(rows["class"], labels, lambda text: found[text][0], may_lack=False)
        if not wrong:
            rows["shares"] = one[rows["class"]]
            for row, label in enumerate(labels):
                if (shares := found[label][1]) is not None:
                    rows["shares"][row] = shares
    for place, (column, read) in enumerate(readers):
        if column in table.cells:
            fill(rows["values"][:, place], number_texts(table, column), read)
    if POSITION_ANGLE in table.cells:
        fill(rows["angle"], number_texts(table, POSITION_ANGLE), angle_value)
    if "seed" in table.cells:
        fill(rows["seed"], [text.strip() for text in table.cells["seed"]], seed_value)
    if wrong:
        row, error = min(wrong, key=lambda pair: pair[0])
        raise UserError(f"{table.file}, row {table.rows[row]}: {error}") from None
    return rows, any(shares is not None for _, shares in found.values())


class _Classes(dict[str, tuple[int, list[float] | None]]):
    """What `class_shares` says of texts, each once."""

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__()
        self._known = known

    def __missing__(self, text: str) -> tuple[int, list[float] | None]:
        self[text] = class_shares(text, self._known)
        return self[text]


def _value_reader(attribute: str | Attribute) -> Callable[[str], float]:
    """Return what does as `attribute_value` with text, sooner if there is nothing to say."""
    if isinstance(attribute, str):
        (attribute,) = attribute_table((attribute,))
    low, high = attribute.plausible

    def read(text: str) -> float:
        if NUMBER_FORM.fullmatch(text) and low <= (value := float(text)) <= high:
            return value + 0.0  # no negative zero
        return attribute_value(attribute, text)

    return read
