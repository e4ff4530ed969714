"""Columns of files that have types, such as FITS: each value as the text from which it can be read back exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np


class TypedTable(NamedTuple):
    """A table of typed columns that is open.

    Attributes
    ----------
    names : list of str
        Of the columns that have one value a row.
    num_rows : int
    blocks : callable
        Takes places of columns in `names` and a number of rows, and yields so many at a time: of each column its values
        as text, "" where there is none.
    """

    names: list[str]
    num_rows: int
    blocks: Callable[[Sequence[int], int], Iterator[list[list[str]]]]


def as_text(values: np.ndarray, missing: np.ndarray | None = None) -> list[str]:
    """Write values (N) as text that gives them back: whole numbers in full, others with as few digits as they need.

    Parameters
    ----------
    values : ndarray, (N,)
        Numbers, truth values, or text as bytes or str.
    missing : ndarray of bool, (N,), optional
        Which are no values; NaN never is one.
    """
    if values.dtype.kind == "f":
        # numpy's own text: of single precision, fewer digits than Python would write.
        texts = [str(value) for value in values.astype(values.dtype.newbyteorder("="))]
        gone = np.isnan(values)
    else:
        texts = [
            value.decode("utf-8", "replace").rstrip("\0 ") if isinstance(value, bytes) else str(value)
            for value in values.tolist()
        ]
        gone = np.zeros(len(values), bool)
    if missing is not None:
        gone = gone | missing
    for place in np.flatnonzero(gone):
        texts[place] = ""
    return texts
