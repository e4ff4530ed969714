"""Open a table in a VOTable, the XML in which archives of the Virtual Observatory answer."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from galaxies.common.errors import UserError, shown
from galaxies.common.reading import open_regular
from galaxies.common.untrusted_files import UntrustedFileError
from galaxies.tables.opening import MAX_ROWS, unpacked
from galaxies.tables.typed_columns import TypedTable, as_text

_MOST_BYTES = 500_000_000  # it is parsed in memory
_ELEMENT = re.compile(rb"<([A-Za-z0-9_]+:)?VOTABLE[\s>]")
# What would lead out of the file: entities, which XML may also unfold without end, and data at an address.
_OUTSIDE = re.compile(rb"<!(DOCTYPE|ENTITY)|<([A-Za-z0-9_]+:)?STREAM\s[^>]*href", re.IGNORECASE)


def is_votable(start: bytes) -> bool:
    """Tell by the first bytes of a file whether it is a VOTable."""
    return _ELEMENT.search(start) is not None


@contextmanager
def opened_votable(file: Path, wanted: Collection[str], most_rows: int = MAX_ROWS) -> Iterator[TypedTable]:
    """Open the table of a VOTable, plain or packed, that has most of the wanted columns.

    Yields
    ------
    TypedTable
        Of columns with one value a row; arrays are none.

    Raises
    ------
    UserError
        If astropy is not installed.
    UntrustedFileError
        If it holds no table, one of absurd size, refers to data elsewhere, or is damaged.
    """
    try:
        from astropy.io import votable
    except ImportError:
        raise UserError(f"{file} is a VOTable, which needs astropy: python -m pip install astropy") from None
    with open_regular(file) as stream:
        content = unpacked(stream).read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise UntrustedFileError(f"it has more than {_MOST_BYTES / 1e6:.0f} MB: save it as FITS or Parquet")
    if _OUTSIDE.search(content):
        raise UntrustedFileError("it is a VOTable whose data lie elsewhere, or that defines entities: save it as FITS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy mends what archives write and says so
            parsed = votable.parse(io.BytesIO(content), verify="ignore")
            tables = [table for table in parsed.iter_tables() if len(table.fields) and len(table.array)]
            if not tables:
                raise UntrustedFileError("it is a VOTable without a row")
            names = [{str(field.name).lower() for field in table.fields} for table in tables]
            best = max(range(len(tables)), key=lambda k: (len(names[k] & set(wanted)), len(names[k])))
            table = tables[best]
            array: Any = table.array
            if len(array) > most_rows:
                raise UntrustedFileError(f"it has {len(array)} rows")
            columns = [(field.name or field.ID, array[field.ID]) for field in table.fields]
    except (UserError, UntrustedFileError, MemoryError):
        raise
    except Exception as error:  # astropy's parser fails in many ways
        raise UntrustedFileError(f"its VOTable is damaged: {shown(str(error), 200)}") from error
    single = [(name, values) for name, values in columns if values.ndim == 1 and values.dtype.kind in "iufbSUO"]

    def text(values: Any) -> list[str]:
        missing = np.ma.getmaskarray(values)
        plain = np.ma.getdata(values)
        if plain.dtype.kind == "O":
            return ["" if gone else str(value) for value, gone in zip(plain.tolist(), missing, strict=True)]
        return as_text(plain, missing)

    def blocks(places: Sequence[int], size: int) -> Iterator[list[list[str]]]:
        for start in range(0, len(array), size):
            yield [text(single[place][1][start : start + size]) for place in places]

    yield TypedTable([str(name) for name, _ in single], len(array), blocks)
