"""Write a mock catalogue of any length in shards: resumable, shared by several processes, with flat memory.

A folder of shards holds, for number 00000, 00001, ...:

- ``images_00000.npy``: uint8 (n, 3, S, S), of flux float32 (n, B, S, S), nJy a pixel; not compressed, so that it is
  written as fast as it is generated; or, if asked for, a FITS table ``galaxies_00000.fits``, or ``galaxies_00000.tar``
  for WebDataset, see `shard_formats`;
- ``catalogue_00000.csv``, or a Parquet file: one row an image in the same order; ``file`` and ``row`` say where it is;

and ``request.json``, which says what the galaxies are, the units of their attributes, of flux also the bands and
arcseconds a pixel. A shard is complete when it is whole and has a whole catalogue: that gets its name last. What is in
a shard depends on the request alone, and not on the process that writes it or on the others.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from config_physics import Attribute
from galaxies.common.durable_files import (
    free_space,
    plain_errors,
    remove_dead_temporaries,
    replace_file,
    sha256_of,
    sync_folder,
    temporary_of,
    write_whole,
)
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import SHARDS, check_folder
from galaxies.common.reading import UnreadableError, read_json
from galaxies.compute.ranks import Ranks
from galaxies.generation.catalogue import GRID_LIMIT, generate_blocks
from galaxies.generation.fits_tables import FitsTableFormat
from galaxies.generation.requests import RequestSequence
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.shard_formats import (
    CatalogueFormat,
    CsvCatalogue,
    NpyFormat,
    ParquetCatalogue,
    ShardFile,
    ShardFormat,
    WebDatasetFormat,
    attributes_described,
)
from galaxies.images.grids import plain_grid, save_picture

REQUEST_FILE = "request.json"
_FORMAT_VERSION = 2  # 2: the catalogue has the columns support and nearest_real
# What a folder is whose request does not say it, of earlier versions.
_WITHOUT_A_WORD = {"format": "npy", "catalogue_format": "csv", "measured": True}
_MOST_WAITING = 2  # blocks of galaxies, or other things, that the thread which writes has before it


class ShardFolder:
    """The shards of one request.

    Parameters
    ----------
    path : Path
        Made when the first shard is written.
    requests : RequestSequence
    shard_size : int
        Images a shard; the last one may have fewer.
    format : ShardFormat
    origin : dict
        What else decides the images, such as the checksum of the checkpoint (JSON values).
    inputs : sequence of Path
        Files that the galaxies are made from, which are not written over.
    catalogue : CatalogueFormat, optional
        By default CSV.
    measure : bool
        Whether the catalogue has what photometry measures.

    Raises
    ------
    UserError
        If the folder holds other galaxies than these, or something else that is no shard.
    """

    def __init__(
        self,
        path: Path,
        requests: RequestSequence,
        shard_size: int,
        format: ShardFormat,
        origin: dict[str, Any],
        inputs: Sequence[Path] = (),
        catalogue: CatalogueFormat | None = None,
        measure: bool = True,
    ) -> None:
        self.path, self.requests, self.shard_size, self.format = path, requests, shard_size, format
        self.catalogue, self.measure = catalogue or CsvCatalogue(), measure
        self.identity = {
            "format_version": _FORMAT_VERSION,
            "count": len(requests),
            "shard_size": shard_size,
            "image_size": format.shape[-1],
            "requests": requests.fingerprint(),
            **origin,
            "format": format.name,
            "catalogue_format": self.catalogue.name,
            "measured": measure,
        }
        self._check_identity()
        files = (file.name for number in range(len(self)) for file in self._files(number))
        check_folder(path, SHARDS, (REQUEST_FILE, "grid.png", *files), inputs)

    def __len__(self) -> int:
        return -(-len(self.requests) // self.shard_size)

    def _check_identity(self) -> None:
        file = self.path / REQUEST_FILE
        if not file.exists():
            return
        try:
            found = _WITHOUT_A_WORD | read_json(file)
        except UnreadableError:
            raise UserError(f"{file} is damaged: name another folder with --out") from None
        other = [name for name, value in self.identity.items() if found.get(name) != value]
        if other:
            raise UserError(
                f"{self.path} holds the galaxies of another request (another {', '.join(other)}): "
                "name another folder with --out"
            )

    def rows(self, number: int) -> range:
        """Return which of the requests a shard holds."""
        return range(number * self.shard_size, min((number + 1) * self.shard_size, len(self.requests)))

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not complete."""
        return [number for number in range(len(self)) if not self._is_complete(number)]

    def _is_complete(self, number: int) -> bool:
        (shard, catalogue), count = self._files(number), len(self.rows(number))
        if not (shard.exists() and catalogue.exists()):
            return False
        return self.format.is_complete(shard, count) and self.catalogue.is_complete(catalogue, count)

    def _files(self, number: int) -> tuple[Path, Path]:
        return self.path / self.format.file_name(number), self.path / self.catalogue.file_name(number)

    def check_space(self, numbers: Sequence[int]) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises
        ------
        UserError
            With what the shards need and what there is.
        """
        count = sum(len(self.rows(number)) for number in numbers)
        needed = self.format.bytes_of(count) + self.catalogue.bytes_of(count)
        if needed > (free := free_space(self.path)[1]):
            raise UserError(
                f"{len(numbers)} shards in {self.path} need {needed / 1e9:.3g} GB and the disk has {free / 1e9:.3g} GB "
                "free: make room, or ask for fewer with --count"
            )

    def claim(self) -> None:
        """Make the folder and write down what its galaxies are."""
        if not (self.path / REQUEST_FILE).exists():
            # Several processes may do so at once, each with the same words.
            said = self.identity | {"attributes": self._described()}
            write_whole(self.path / REQUEST_FILE, (json_text(said, indent=1) + "\n").encode())
        self._check_identity()

    def _described(self) -> dict[str, dict[str, str]]:
        return {
            attribute.name: {"unit": attribute.unit, "description": attribute.description}
            for attribute in self.catalogue.described.values()
        }

    def write(self, number: int, sampler: GalaxySampler, bar: tqdm, disk: Disk) -> None:
        """Generate one shard, and give it to the thread that writes, a block at a time.

        Raises
        ------
        OSError
            If the disk is full or fails, also while it writes an earlier shard. What was written of a shard is removed.
        """
        rows = self.rows(number)
        shard = _Shard(self._files(number), self.format, self.catalogue)
        wants_grid = number == 0
        try:
            disk.do(shard.begin, rows)
            for images, table in generate_blocks(sampler, self.requests.part(rows.start, rows.stop), self.measure):
                if wants_grid:
                    pictures = sampler.pictures(images[:GRID_LIMIT])
                    disk.do(save_picture, plain_grid(pictures), self.path / "grid.png")
                    wants_grid = False
                disk.do(shard.append, images, table)
                bar.update(len(images))
            disk.do(shard.finish)
        except BaseException:
            disk.wait()
            shard.remove()
            raise


class Disk:
    """A thread that writes, in order, while the next galaxies are drawn; two things wait for it at most.

    After something has failed it does nothing more, and the error is raised by a later call, at the latest at the end
    of the `with`.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writes shards")
        self._waiting: deque[Future[None]] = deque()
        self._error: BaseException | None = None

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None and self._error is not None:
            raise self._error

    def do(self, function: Callable[..., None], *arguments: object) -> None:
        """Have a function called when all that was asked for before is done."""
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._call, function, arguments))

    def wait(self) -> None:
        """Wait until all is done, or something has failed."""
        wait(self._waiting)

    def _call(self, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if self._error is None:
            try:
                function(*arguments)
            except BaseException as error:
                self._error = error
        if self._error is not None:
            raise self._error


class _Shard:
    """The files of a shard while they are written, under other names until they are whole; of one thread at a time."""

    def __init__(self, files: tuple[Path, Path], format: ShardFormat, catalogue: CatalogueFormat) -> None:
        self._files, self._format, self._catalogue = files, format, catalogue
        self._temporary = [temporary_of(file) for file in self._files]
        self._tables: list[pd.DataFrame] = []
        self._binary: IO[bytes] | None = None
        self._shard: ShardFile | None = None

    def begin(self, rows: range) -> None:
        with self._removed_on_failure():
            for file in self._files:
                remove_dead_temporaries(file)
            self._binary = self._temporary[0].open("wb")
            self._shard = self._format.begin(self._binary, rows)

    def append(self, images: Tensor, table: pd.DataFrame) -> None:
        assert self._shard is not None, "it was begun"
        with self._removed_on_failure():
            self._shard.append(images, table)
            self._tables.append(table)

    def finish(self) -> None:
        assert self._binary is not None and self._shard is not None, "it was begun"
        with self._removed_on_failure():
            with self._binary as binary:
                self._shard.finish()
                binary.flush()
                os.fsync(binary.fileno())
            shard_file, _ = self._files
            catalogue = pd.concat(self._tables, ignore_index=True)
            catalogue.insert(0, "file", shard_file.name)
            catalogue.insert(1, "row", np.arange(len(catalogue)))
            with self._temporary[1].open("wb") as binary:
                self._catalogue.write(binary, catalogue)
                binary.flush()
                os.fsync(binary.fileno())
            for temporary, file in zip(self._temporary, self._files, strict=True):
                replace_file(temporary, file)
            sync_folder(shard_file.parent)

    @contextmanager
    def _removed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        if self._binary is not None:
            with suppress(OSError):  # on a full disk, closing tries to write once more
                self._binary.close()
        for path in self._temporary:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def write_shards(folder: ShardFolder, sampler: GalaxySampler, rank: Ranks) -> int:
    """Write this process's part of the shards that are missing; shard k is that of rank k modulo their number.

    Returns
    -------
    int
        Shards that were complete already, those of other processes included.

    Raises
    ------
    UserError
        If the disk has too little room for all that is missing, or fails.
    """
    missing = folder.missing()
    folder.check_space(missing)
    folder.claim()
    own = range(rank.rank, len(folder), rank.size)
    left = [number for number in missing if number in own]
    total = sum(len(folder.rows(number)) for number in own)
    done = total - sum(len(folder.rows(number)) for number in left)
    bar = tqdm(total=total, initial=done, unit=" galaxies", desc="generating", disable=not rank.is_first)
    with plain_errors(folder.path), bar, Disk() as disk:
        for number in left:
            folder.write(number, sampler, bar, disk)
    return len(folder) - len(missing)


def generate_shards(
    sampler: GalaxySampler,
    requests: RequestSequence,
    out: Path,
    shard_size: int,
    checkpoint: Path,
    rank: Ranks,
    inputs: Sequence[Path] = (),
    format: str = "npy",
    catalogue: str = "csv",
    measure: bool = True,
) -> str:
    """Generate this process's part of the missing shards, and say in sentences what there is.

    Parameters
    ----------
    sampler : GalaxySampler
        Of `checkpoint`, whose checksum is part of what the galaxies are.
    requests : RequestSequence
    out : Path
    shard_size : int
    checkpoint : Path
    rank : Ranks
    inputs : sequence of Path
        As for `ShardFolder`.
    format : {"npy", "fits-table", "webdataset"}
    catalogue : {"csv", "parquet"}
    measure : bool
        As for `ShardFolder`.

    Raises
    ------
    UserError
        If the folder holds other galaxies, or the disk has too little room.
    """
    # Networks round differently on different kinds of device.
    origin: dict[str, Any] = {
        "checkpoint": sha256_of(checkpoint),
        "device": sampler.kind_of_device,
        "sampler": sampler.describe(),
    }
    facts = sampler.facts
    if facts.is_flux:
        origin |= {"unit": "nJy", "bands": list(facts.bands), "pixel_scale": facts.pixel_scale}
    if facts.observation:
        origin |= {"observation": dict(facts.observation)}
    described = attributes_described(sampler.attributes, getattr(sampler.measure, "names", ()))
    catalogue_format = {kind.name: kind for kind in (CsvCatalogue, ParquetCatalogue)}[catalogue](described)
    shard_format = format_of(format, sampler, described)
    folder = ShardFolder(out, requests, shard_size, shard_format, origin, inputs, catalogue_format, measure)
    there = write_shards(folder, sampler, rank)
    lines = [f"{len(requests):,} galaxies in {len(folder)} shards in {out}"]
    if there:
        lines.append(f"{there} shards were there before")
    if rank.size > 1:
        lines.append(f"this is rank 0 of {rank.size}: the shards are complete when every process has ended")
    return "\n".join(lines)


def format_of(name: str, sampler: GalaxySampler, described: Mapping[str, Attribute]) -> ShardFormat:
    """Return a format by its name, for a sampler's images and the attributes that a catalogue tells of."""
    dtype = "<f4" if sampler.facts.is_flux else "|u1"
    if name == FitsTableFormat.name:
        return FitsTableFormat(sampler.image_shape, dtype, sampler.facts, sampler.config.classes, described)
    return {kind.name: kind for kind in (NpyFormat, WebDatasetFormat)}[name](sampler.image_shape, dtype)
