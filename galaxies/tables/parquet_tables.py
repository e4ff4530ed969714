"""Open a table in a Parquet file, as Galaxy Zoo publishes its newer campaigns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from galaxies.common.errors import UserError
from galaxies.common.reading import open_regular
from galaxies.common.untrusted_files import UntrustedFileError
from galaxies.tables.opening import MAX_ROWS
from galaxies.tables.typed_columns import TypedTable, as_text


@contextmanager
def opened_parquet(file: Path, wanted: Collection[str], most_rows: int = MAX_ROWS) -> Iterator[TypedTable]:
    """Open the table of a Parquet file.

    Yields
    ------
    TypedTable
        Of columns with one value a row; lists, structures and bytes, such as pictures, are none.

    Raises
    ------
    UserError
        If pyarrow is not installed.
    UntrustedFileError
        If it is damaged or of absurd size.
    """
    with open_regular(file) as stream:
        with parquet_errors():
            table = parquet_file(file, stream)
            names = [field.name for field in table.schema_arrow if _is_value(field.type)]
        if table.metadata.num_rows > most_rows:
            raise UntrustedFileError(f"it has {table.metadata.num_rows} rows")

        def blocks(places: Sequence[int], size: int) -> Iterator[list[list[str]]]:
            chosen = [names[place] for place in places]
            batches = table.iter_batches(batch_size=size, columns=chosen, use_threads=False)
            while True:
                with parquet_errors():
                    if (batch := next(batches, None)) is None:
                        return
                    columns = [_text_of(batch.column(batch.schema.names.index(name))) for name in chosen]
                yield columns

        yield TypedTable(names, table.metadata.num_rows, blocks)


def _text_of(column: Any) -> list[str]:
    """Write a column as `as_text` does."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        # With gaps in it a column of numbers would come out as floats, which hold no id of 18 digits.
        return as_text(column.fill_null(0).to_numpy(zero_copy_only=False), np.asarray(column.is_null()))
    if pa.types.is_floating(column.type):
        return as_text(column.to_numpy(zero_copy_only=False))
    return ["" if value is None else value for value in column.cast(pa.string()).to_pylist()]


def parquet_file(file: Path, stream: Any) -> Any:
    """Return pyarrow's reader of an open Parquet file; `file` is what it is called in errors.

    Raises
    ------
    UserError
        If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{file} is a Parquet file, which needs pyarrow: python -m pip install pyarrow") from None
    return pyarrow.parquet.ParquetFile(stream)


@contextmanager
def parquet_errors() -> Iterator[None]:
    """Turn the many errors of a damaged Parquet file into `UntrustedFileError`."""
    try:
        yield
    except (UserError, UntrustedFileError):
        raise
    except Exception as error:  # pyarrow has its own kinds, of OSError, ValueError, MemoryError and others
        first = (str(error).splitlines() or [""])[0]
        raise UntrustedFileError(f"it is a damaged Parquet file: {first[:200]}") from error


def _is_value(kind: Any) -> bool:
    """Tell whether a column of this Arrow type has one number, truth value or text a row."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_decimal)
    return any(test(kind) for test in (*tests, pa.types.is_large_string))
