"""Open a table in a FITS file."""

from __future__ import annotations

import io
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

_MAX_UNPACKED_BYTES = 500_000_000  # a packed FITS file is unpacked in memory


@contextmanager
def opened_fits(file: Path, wanted: Collection[str], most_rows: int = MAX_ROWS) -> Iterator[TypedTable]:
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
        with _opened(file, wanted, most_rows) as table:
            yield table
    except (UserError, UntrustedFileError, MemoryError):
        raise
    except Exception as error:  # astropy parses as it goes, and fails in many ways
        raise UntrustedFileError(f"its FITS is damaged: {shown(str(error), 200)}") from error


@contextmanager
def _opened(file: Path, wanted: Collection[str], most_rows: int) -> Iterator[TypedTable]:
    from astropy.io import fits

    with open_regular(file) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy mends headers and says so
        reader: Any = unpacked(stream)
        if reader is not stream:
            content = reader.read(_MAX_UNPACKED_BYTES + 1)
            if len(content) > _MAX_UNPACKED_BYTES:
                raise UntrustedFileError(f"it unpacks to more than {_MAX_UNPACKED_BYTES / 1e6:.0f} MB: unpack it first")
            reader = io.BytesIO(content)
        # A plain file is mapped into memory, of which a part is there at a time.
        with fits.open(reader, memmap=reader is stream) as units:
            tables = [unit for unit in units if isinstance(unit, (fits.BinTableHDU, fits.TableHDU))]
            if not tables:
                raise UntrustedFileError("it is FITS and holds no table")
            names = [{str(name).lower() for name in unit.columns.names} for unit in tables]
            table = max(zip(names, tables, strict=True), key=lambda pair: (len(pair[0] & set(wanted)), len(pair[0])))[1]
            count = int(table.header["NAXIS2"])
            if count > most_rows:
                raise UntrustedFileError(f"it has {count} rows")
            first = table.data[:1]
            places = [
                place
                for place in range(len(table.columns))
                if first.field(place).ndim == 1 and first.field(place).dtype.kind in "iufbSU"
            ]

            def blocks(numbers: Sequence[int], size: int) -> Iterator[list[list[str]]]:
                for start in range(0, count, size):
                    rows = table.data[start : start + size]
                    yield [_text_of(table.columns[places[k]], np.asarray(rows.field(places[k]))) for k in numbers]

            yield TypedTable([str(table.columns[place].name) for place in places], count, blocks)


def _text_of(column: Any, values: np.ndarray) -> list[str]:
    null = column.null if values.dtype.kind in "iu" else None
    return as_text(values, None if null in (None, "") else values == int(null) + int(column.bzero or 0))
