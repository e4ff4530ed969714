"""Open a table in a FITS file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from galaxies.common.errors import UserError, shown
from galaxies.common.reading import open_regular
from galaxies.common.untrusted_files import UntrustedFileError
from galaxies.tables.opening import MAX_ROWS, unpacked
from galaxies.tables.typed_columns import TypedTable, as_text

_MAX_UNPACKED_BYTES = 500_000_000  # a packed FITS file is unpacked in memory


@contextmanager
def opened_fits(file: Path, wanted: Collection[str]) -> Iterator[TypedTable]:
    """Open the table of a FITS file, plain or packed, that has most of the wanted columns.

    Yields
    ------
    TypedTable
        Of columns with one value a row; vectors and arrays are none.

    Raises
    ------
    UntrustedFileError
        If it holds no table, one of absurd size, or is damaged.
    """
    try:
        with _opened(file, wanted) as table:
            yield table
    except (UserError, UntrustedFileError, MemoryError):
        raise
    except Exception as error:  # astropy parses as it goes, and fails in many ways
        raise UntrustedFileError(f"its FITS is damaged: {shown(str(error), 200)}") from error


@contextmanager
def _opened(file: Path, wanted: Collection[str]) -> Iterator[TypedTable]:
    from astropy.io import fits

    with open_regular(file) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy mends headers and says so
        reader: Any = unpacked(stream)
        if reader is not stream:
            content = reader.read(_MAX_UNPACKED_BYTES + 1)
            if len(content) > _MAX_UNPACKED_BYTES:
                raise UntrustedFileError(f"it unpacks to more than {_MAX_UNPACKED_BYTES / 1e6:.0f} MB: unpack it first")
            reader = io.BytesIO(content)
        with fits.open(reader, memmap=False) as units:
            tables = [unit for unit in units if isinstance(unit, (fits.BinTableHDU, fits.TableHDU))]
            if not tables:
                raise UntrustedFileError("it is FITS and holds no table")
            names = [{str(name).lower() for name in unit.columns.names} for unit in tables]
            table = max(zip(names, tables, strict=True), key=lambda pair: (len(pair[0] & set(wanted)), len(pair[0])))[1]
            count = int(table.header["NAXIS2"])
            if count > MAX_ROWS:
                raise UntrustedFileError(f"it has {count} rows")
            places = [
                place
                for place, column in enumerate(table.columns)
                if table.data.field(place).ndim == 1 and table.data.field(place).dtype.kind in "iufbSU"
            ]

            def text(number: int) -> list[str]:
                column = table.columns[places[number]]
                values = np.asarray(table.data.field(places[number]))
                null = column.null if values.dtype.kind in "iu" else None
                return as_text(values, None if null in (None, "") else values == int(null) + int(column.bzero or 0))

            yield TypedTable([str(table.columns[place].name) for place in places], count, text)
