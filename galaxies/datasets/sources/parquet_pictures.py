"""Pictures that lie in the rows of Parquet files, as sets of images are published for machine learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from galaxies.common.reading import open_regular
from galaxies.common.untrusted_files import MAX_PICTURE_BYTES, UntrustedFileError
from galaxies.datasets.cutouts import PictureStore
from galaxies.tables.parquet_tables import parquet_errors, parquet_file

_MARK = b"PAR1"
_TOGETHER = 64  # rows that are unpacked at a time
# What such a column is called: by Hugging Face's `datasets` a structure of bytes and path.
_NAMES = ("image", "rgb_image", "png", "jpg")


def picture_column(file: Path) -> str | None:
    """Return the column of a table that holds the bytes of pictures, or None if there is none.

    Raises
    ------
    UserError
        If it cannot be opened, or is Parquet and pyarrow is not installed.
    UntrustedFileError
        If it is damaged.
    """
    with open_regular(file) as stream:
        if stream.read(len(_MARK)) != _MARK:
            return None
        with parquet_errors():
            schema = parquet_file(file, stream).schema_arrow
            return next((name for name in _NAMES if name in schema.names and _holds_bytes(schema.field(name))), None)


def _holds_bytes(field: Any) -> bool:
    import pyarrow as pa

    kind = field.type
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


class ParquetPictures(PictureStore):
    """The pictures in the rows of Parquet files; a context manager.

    They are read from the first to the last; to go back is to read a file from its beginning again.

    Parameters
    ----------
    files : sequence of Path
        Each with a `picture_column`.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.path = files[0]
        self._open = ExitStack()
        self._files: list[tuple[Any, str]] = []
        try:
            for file in files:
                column = picture_column(file)
                if column is None:
                    raise UntrustedFileError(f"{file} holds no pictures")
                stream = self._open.enter_context(open_regular(file))
                with parquet_errors():
                    self._files.append((parquet_file(file, stream), column))
        except BaseException:
            self.close()
            raise
        self._at = (-1, 0)  # file, and the row that the next block begins with
        self._block: list[bytes | None] = []
        self._blocks: Iterator[Any] = iter(())

    @staticmethod
    def name(file: int, row: int) -> str:
        """Return the name of the picture in a row of a file, both counted from 0."""
        return f"{file}:{row}"

    def find(self, name: str) -> bytes:
        """Return the bytes of a picture.

        Raises
        ------
        OSError
            If the row holds none, or the file is damaged there.
        """
        file, row = map(int, name.split(":"))
        try:
            with parquet_errors():
                if self._at[0] != file or row < self._at[1] - len(self._block):
                    reader, column = self._files[file]
                    self._blocks = reader.iter_batches(batch_size=_TOGETHER, columns=[column])
                    self._at, self._block = (file, 0), []
                while row >= self._at[1]:
                    self._block = _bytes_of(next(self._blocks).column(0))
                    self._at = (file, self._at[1] + len(self._block))
        except (UntrustedFileError, StopIteration) as error:
            raise OSError(str(error)) from error
        content = self._block[row - self._at[1] + len(self._block)]
        if content is None:
            raise OSError("the row has no picture")
        if len(content) > MAX_PICTURE_BYTES:
            raise OSError(f"it has more than {MAX_PICTURE_BYTES} bytes")
        return content

    def close(self) -> None:
        """Close the files."""
        self._open.close()


def _bytes_of(column: Any) -> list[bytes | None]:
    values = column.to_pylist()
    return [value.get("bytes") if isinstance(value, dict) else value for value in values]
