"""Read shards of generated galaxies in any of their formats: some of the galaxies, with their classes."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from galaxies.common.errors import UserError
from galaxies.common.reading import read_json, read_text
from galaxies.generation.fits_tables import FitsTableFormat
from galaxies.generation.shard_formats import NpyFormat, ParquetCatalogue, WebDatasetFormat

_CATALOGUE_BYTES = 1 << 30


class Shards:
    """The galaxies of a folder of shards, as far as it is complete.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    told : dict
        What ``request.json`` says.
    names : list of str, N
        The number of each galaxy in nine digits, the same in every format.
    classes : list of str, N

    Raises
    ------
    UserError
        If there is no complete shard, or a file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.told: dict[str, Any] = read_json(path / "request.json")
        kind = _KINDS.get(str(self.told.get("format", NpyFormat.name)))
        if kind is None:
            raise UserError(f"{path} holds shards of the format {self.told['format']!r}, which is none of this program")
        self.names: list[str] = []
        self.classes: list[str] = []
        self._shards = [kind(file, self.told) for file in sorted(path.glob(kind.pattern))]
        self._starts = []
        for shard in self._shards:
            with _whole(shard.file):
                classes = shard.classes()
                first = int(shard.file.stem.rpartition("_")[2]) * int(self.told["shard_size"])
            self._starts.append(len(self.names))
            self.names += [f"{first + row:09d}" for row in range(len(classes))]
            self.classes += classes
        if not self.names:
            raise UserError(f"{path} holds no complete shard: let generate_from_checkpoint.py go on")

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Return the images (K, B, S, S) of galaxies by their places in `names`: uint8, or of flux float32."""
        found: dict[int, np.ndarray] = {}
        shard_of = np.searchsorted(self._starts, rows, "right") - 1
        for number in np.unique(shard_of).tolist():
            mine = rows[shard_of == number]
            shard = self._shards[number]
            with _whole(shard.file):
                found |= zip(mine.tolist(), shard.images(mine - self._starts[number]), strict=True)
        return np.stack([found[row] for row in rows.tolist()])


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, tarfile.TarError, Warning) as error:
        said = str(error).split("\n")[0]
        raise UserError(f"{file} is damaged or none of this program ({said}): generate the galaxies again") from None


class _Shard(ABC):
    """One file of shards; `pattern` finds them."""

    pattern: str

    def __init__(self, file: Path, told: dict[str, Any]) -> None:
        self.file, self.told = file, told

    @abstractmethod
    def classes(self) -> list[str]:
        """Return the class of each galaxy."""

    @abstractmethod
    def images(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        """Return images (B, S, S) by their places in the file, in that order."""


class _Arrays(_Shard):
    pattern = f"{NpyFormat.stem}_[0-9]*.{NpyFormat.ending}"

    def classes(self) -> list[str]:
        number = self.file.stem.rpartition("_")[2]
        ending = str(self.told.get("catalogue_format", "csv"))
        table = self.file.with_name(f"catalogue_{number}.{ending}")
        if ending == ParquetCatalogue.name:
            import pyarrow.parquet

            found = [
                str(name)
                for name in pyarrow.parquet.read_table(table, columns=["morphology"])["morphology"].to_pylist()
            ]
        else:
            reader = csv.DictReader(io.StringIO(read_text(table, _CATALOGUE_BYTES), newline=""))
            found = [row["morphology"] for row in reader]
        if len(found) != len(self._map()):
            raise ValueError(f"it holds {len(self._map())} images and its catalogue {len(found)} rows")
        return found

    def images(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        images = self._map()
        return [np.array(images[row]) for row in rows.tolist()]

    def _map(self) -> np.ndarray:
        array: np.ndarray = np.load(self.file, mmap_mode="r")
        return array


class _FitsTables(_Shard):
    pattern = f"{FitsTableFormat.stem}_[0-9]*.{FitsTableFormat.ending}"

    def classes(self) -> list[str]:
        with self._rows() as rows:
            return [str(name).strip() for name in rows["morphology"]]

    def images(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        with self._rows() as table:
            column = table["image"]
            return [np.array(column[row], column.dtype.newbyteorder("=")) for row in rows.tolist()]

    @contextmanager
    def _rows(self) -> Iterator[Any]:
        from astropy.io import fits

        with self.file.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("error")  # astropy warns of files that were cut
            with fits.open(stream, memmap=True) as units:
                yield units["GALAXIES"].data


class _Tars(_Shard):
    pattern = f"{WebDatasetFormat.stem}_[0-9]*.{WebDatasetFormat.ending}"

    def classes(self) -> list[str]:
        found = []
        with tarfile.open(self.file, "r:") as archive:
            for member in archive:
                if member.name.endswith(".json"):
                    found.append(str(json.loads(_content(archive, member))["morphology"]))
        return found

    def images(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        found: dict[int, np.ndarray] = {}
        wanted, place = set(rows.tolist()), -1
        with tarfile.open(self.file, "r:") as archive:
            for member in archive:
                if member.name.endswith(".json"):
                    continue
                place += 1
                if place in wanted:
                    content = io.BytesIO(_content(archive, member))
                    if member.name.endswith(".npy"):
                        found[place] = np.load(content, allow_pickle=False)
                    else:
                        found[place] = np.asarray(Image.open(content)).transpose(2, 0, 1)
        return [found[row] for row in rows.tolist()]


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{member.name} is no file")
    return file.read()


_KINDS: dict[str, type[_Shard]] = {
    NpyFormat.name: _Arrays,
    FitsTableFormat.name: _FitsTables,
    WebDatasetFormat.name: _Tars,
}
