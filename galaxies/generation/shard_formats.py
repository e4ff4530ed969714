"""What a shard of a mock catalogue is on the disk: arrays, a FITS table, or a tar for WebDataset; and its catalogue.

Galaxies are appended a block at a time, and what is written is a function of them alone: no time, no user, no machine.
"""

from __future__ import annotations

import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from config_physics import Attribute, attribute_of
from galaxies.common.json_writing import json_text
from galaxies.common.version import SYNTHETIC
from galaxies.images.grids import to_picture

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_BYTES = 300  # of a catalogue, at most about
_DIGITS = 9  # of a galaxy's number, by which tars call it: as many as there may be
_BLOCK = 1 << 20


class ShardFile(ABC):
    """A shard that is being written."""

    @abstractmethod
    def append(self, images: Tensor, table: pd.DataFrame) -> None:
        """Write galaxies, images (K, B, S, S) and their rows of the catalogue."""

    @abstractmethod
    def finish(self) -> None:
        """Write what stands at the end; the file stays open."""


class ShardFormat(ABC):
    """A format of shards.

    Parameters
    ----------
    shape : tuple of int
        Bands, rows and columns of an image.
    dtype : data type
        Of its pixels: uint8, or of flux float32.

    Attributes
    ----------
    name, stem, ending : str
        As the option calls it; of the files, without and behind their numbers.
    """

    name: ClassVar[str]
    stem: ClassVar[str] = "galaxies"
    ending: ClassVar[str]

    def __init__(self, shape: tuple[int, int, int], dtype: str = "|u1") -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)

    def file_name(self, number: int) -> str:
        """Return the name of a shard's file."""
        return f"{self.stem}_{number:05d}.{self.ending}"

    @property
    def image_bytes(self) -> int:
        """Bytes of the pixels of an image."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @abstractmethod
    def bytes_of(self, count: int) -> int:
        """Return how many bytes so many galaxies need, at most about."""

    @abstractmethod
    def is_complete(self, path: Path, count: int) -> bool:
        """Tell whether a file that is there holds a shard of so many galaxies, whole."""

    @abstractmethod
    def begin(self, file: IO[bytes], rows: range) -> ShardFile:
        """Begin a shard of the galaxies of these numbers."""


class NpyFormat(ShardFormat):
    """An array (N, B, S, S), which any program can map into memory: ``numpy.load(path, mmap_mode="r")``."""

    name, stem, ending = "npy", "images", "npy"

    def _header(self, count: int) -> bytes:
        stream = io.BytesIO()
        said = {"descr": self.dtype.str, "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(stream, said)
        return stream.getvalue()

    def bytes_of(self, count: int) -> int:
        """Return how many bytes so many galaxies need."""
        return self.image_bytes * count

    def is_complete(self, path: Path, count: int) -> bool:
        """Tell by the size of a file whether it is whole."""
        return path.stat().st_size == len(self._header(count)) + self.image_bytes * count

    def begin(self, file: IO[bytes], rows: range) -> ShardFile:
        """Write the header."""
        file.write(self._header(len(rows)))
        return _NpyFile(file)


class _NpyFile(ShardFile):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def append(self, images: Tensor, table: pd.DataFrame) -> None:
        self._file.write(images.numpy().data)

    def finish(self) -> None:
        pass


class WebDatasetFormat(ShardFormat):
    """A plain tar as the package webdataset reads it: of each galaxy KEY.json and behind it KEY.png, of flux KEY.npy.

    The key is the galaxy's number in nine digits. In the JSON stand its number (``id``) and its row of the catalogue.
    """

    name, ending = "webdataset", "tar"

    @property
    def _image_ending(self) -> str:
        return "png" if self.dtype == np.uint8 else "npy"

    def bytes_of(self, count: int) -> int:
        """Return how many bytes so many galaxies need, if no picture can be packed."""
        return (self.image_bytes + 2 * tarfile.BLOCKSIZE + 4 * tarfile.BLOCKSIZE) * count

    def is_complete(self, path: Path, count: int) -> bool:
        """Tell by all headers of a tar and its end whether it is whole."""
        with suppress(tarfile.TarError, OSError), tarfile.open(path, "r:") as archive:
            names = archive.getnames()
            blocks = -(-(archive.offset + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE)
            return len(names) == 2 * count and path.stat().st_size == blocks * tarfile.RECORDSIZE
        return False

    def begin(self, file: IO[bytes], rows: range) -> ShardFile:
        """Begin an archive."""
        return _TarFile(file, rows.start, self._image_ending)


class _TarFile(ShardFile):
    def __init__(self, file: IO[bytes], first: int, ending: str) -> None:
        self._archive = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 (see finish)
        self._next, self._ending = first, ending

    def append(self, images: Tensor, table: pd.DataFrame) -> None:
        for image, row in zip(images, plain_rows(table), strict=True):
            key = f"{self._next:0{_DIGITS}d}"
            said = {"id": self._next, **row, "about": SYNTHETIC}
            self._add(f"{key}.json", json_text(said).encode())
            content = io.BytesIO()
            if self._ending == "png":
                to_picture(image).save(content, format="PNG")
            else:
                np.save(content, image.numpy(), allow_pickle=False)
            self._add(f"{key}.{self._ending}", content.getvalue())
            self._next += 1
        self._archive.getmembers().clear()  # which it keeps, though nobody asks for them

    def _add(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)  # of no time and of nobody
        entry.size = len(content)
        self._archive.addfile(entry, io.BytesIO(content))

    def finish(self) -> None:
        self._archive.close()  # which writes its end, and leaves the file open


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a catalogue as JSON has them: None for what is unknown, single precision in few digits."""
    columns = {}
    for name, column in table.items():
        values = column.to_numpy()
        if values.dtype.kind == "f":
            columns[str(name)] = [float(str(value)) if np.isfinite(value) else None for value in values]
        else:
            columns[str(name)] = values.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class CatalogueFormat(ABC):
    """A format of the catalogue of a shard.

    Parameters
    ----------
    described : mapping of str to Attribute
        The attributes that it tells of, by their names.
    """

    name: ClassVar[str]

    def __init__(self, described: Mapping[str, Attribute] | None = None) -> None:
        self.described = described or {}

    def file_name(self, number: int) -> str:
        """Return the name of the file of a shard's catalogue."""
        return f"catalogue_{number:05d}.{self.name}"

    def bytes_of(self, count: int) -> int:
        """Return how many bytes so many rows need, at most about."""
        return _ROW_BYTES * count

    @abstractmethod
    def is_complete(self, path: Path, count: int) -> bool:
        """Tell whether a file that is there holds a catalogue of so many rows, whole."""

    @abstractmethod
    def write(self, file: IO[bytes], table: pd.DataFrame) -> None:
        """Write the catalogue of a shard; the file stays open."""


class CsvCatalogue(CatalogueFormat):
    """Text in UTF-8, cells separated by commas; a CSV says no units, ``request.json`` does."""

    name = "csv"

    def is_complete(self, path: Path, count: int) -> bool:
        """Tell by the number of lines whether it is whole."""
        lines, last = 0, b""
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                lines, last = lines + block.count(b"\n"), block[-1:]
        return lines == count + 1 and last == b"\n"

    def write(self, file: IO[bytes], table: pd.DataFrame) -> None:
        """Write the catalogue of a shard."""
        file.write(table.to_csv(index=False, lineterminator="\n").encode())


class ParquetCatalogue(CatalogueFormat):
    """Columns with types, null where a value is unknown, each with its unit and description as metadata."""

    name = "parquet"

    def is_complete(self, path: Path, count: int) -> bool:
        """Tell by the end of the file, which counts the rows, whether it is whole."""
        import pyarrow.parquet

        with suppress(OSError, ValueError):  # of which pyarrow's own errors are kinds
            return pyarrow.parquet.read_metadata(path).num_rows == count
        return False

    def write(self, file: IO[bytes], table: pd.DataFrame) -> None:
        """Write the catalogue of a shard."""
        import pyarrow as pa
        import pyarrow.parquet

        arrays, fields = [], []
        for name, column in table.items():
            array: pa.Array = pa.array(column.to_numpy(), from_pandas=True)
            unit, about = column_facts(str(name), self.described)
            arrays.append(array)
            fields.append(pa.field(str(name), array.type, metadata={"unit": unit, "description": about}))
        pyarrow.parquet.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), file)


_COLUMNS = {
    "file": "file of the shard that holds the image",
    "row": "place of the image in it, from 0",
    "id": "number of the galaxy, from 0",
    "seed": "seed of the image",
    "morphology": "requested class",
    "requested_position_angle": "requested of the major axis, from +x towards +y",
    "set_by_user": "attributes that were set; the others were drawn",
    "flag": "of photometry, 0 for a sound measurement",
    "supported": "whether the request is like galaxies of its class in the training data",
    "support": "like galaxies of the training data, unusual, or invented",
    "nearest_real": "distance to the nearest galaxy of the class in the training data, in its spreads",
    "image": "pixels",
}


def column_facts(name: str, described: Mapping[str, Attribute]) -> tuple[str, str]:
    """Return the unit of a catalogue's column, "" for a pure number, and what it is."""
    kind, _, of = name.partition("_")
    if kind in ("requested", "measured") and (attribute := described.get(of) or attribute_of(of)) is not None:
        return attribute.unit, f"{kind}: {attribute.description}"
    return "deg" if name == "requested_position_angle" else "", _COLUMNS.get(name, name)


def attributes_described(attributes: Sequence[Attribute], measured: Sequence[str] = ()) -> dict[str, Attribute]:
    """Return the attributes of a run, and those that are measured besides, by their names."""
    found = {attribute.name: attribute for attribute in attributes}
    others = {name: attribute for name in measured if (attribute := attribute_of(name)) is not None}
    return {**others, **found}
