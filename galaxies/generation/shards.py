"""Write a mock catalogue of any length in shards: resumable, shared by several processes, with flat memory.

A folder of shards holds, for number 00000, 00001, ...:

- ``images_00000.npy``: uint8 (n, 3, S, S), of flux float32 (n, B, S, S), nJy a pixel; not compressed, so that it is
  written as fast as it is generated and any program can map it into memory: ``numpy.load(path, mmap_mode="r")``;
- ``catalogue_00000.csv``: one row an image in the same order; ``file`` and ``row`` say where the image is;

and ``request.json``, which says what the galaxies are, of flux also the bands and arcseconds a pixel. A shard is
complete when it has a catalogue: that gets its name last. What is in a shard depends on the request alone, and not on
the process that writes it or on the others.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from config_physics import BAND_NAMES
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
from galaxies.generation.requests import RequestSequence
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.grids import plain_grid, save_picture

REQUEST_FILE = "request.json"
_FORMAT_VERSION = 2  # 2: the catalogue has the columns support and nearest_real
_ROW_BYTES = 300  # of a catalogue, at most about
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
    image_size : int
        Pixels a side.
    origin : dict
        What else decides the images, such as the checksum of the checkpoint (JSON values).
    inputs : sequence of Path
        Files that the galaxies are made from, which are not written over.
    num_bands : int
        Planes of an image.
    dtype : data type
        Of its pixels.

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
        image_size: int,
        origin: dict[str, Any],
        inputs: Sequence[Path] = (),
        num_bands: int = len(BAND_NAMES),
        dtype: str = "|u1",
    ) -> None:
        self._num_bands, self._dtype = num_bands, np.dtype(dtype)
        self.path, self.requests, self.shard_size, self.image_size = path, requests, shard_size, image_size
        self.identity = {
            "format_version": _FORMAT_VERSION,
            "count": len(requests),
            "shard_size": shard_size,
            "image_size": image_size,
            "requests": requests.fingerprint(),
            **origin,
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
            found = read_json(file)
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
        images, catalogue = self._files(number)
        size = len(self._header(number)) + self._image_bytes(number)
        return catalogue.exists() and images.exists() and images.stat().st_size == size

    def _files(self, number: int) -> tuple[Path, Path]:
        return self.path / f"images_{number:05d}.npy", self.path / f"catalogue_{number:05d}.csv"

    def _image_bytes(self, number: int) -> int:
        return len(self.rows(number)) * self._num_bands * self.image_size**2 * self._dtype.itemsize

    def _header(self, number: int) -> bytes:
        shape = (len(self.rows(number)), self._num_bands, self.image_size, self.image_size)
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": self._dtype.str, "fortran_order": False, "shape": shape})
        return stream.getvalue()

    def check_space(self, numbers: Sequence[int]) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises
        ------
        UserError
            With what the shards need and what there is.
        """
        needed = sum(self._image_bytes(number) + _ROW_BYTES * len(self.rows(number)) for number in numbers)
        if needed > (free := free_space(self.path)[1]):
            raise UserError(
                f"{len(numbers)} shards in {self.path} need {needed / 1e9:.3g} GB and the disk has {free / 1e9:.3g} GB "
                "free: make room, or ask for fewer with --count"
            )

    def claim(self) -> None:
        """Make the folder and write down what its galaxies are."""
        if not (self.path / REQUEST_FILE).exists():
            # Several processes may do so at once, each with the same words.
            write_whole(self.path / REQUEST_FILE, (json_text(self.identity, indent=1) + "\n").encode())
        self._check_identity()

    def write(self, number: int, sampler: GalaxySampler, bar: tqdm, disk: Disk) -> None:
        """Generate one shard, and give it to the thread that writes, a block at a time.

        Raises
        ------
        OSError
            If the disk is full or fails, also while it writes an earlier shard. What was written of a shard is removed.
        """
        rows = self.rows(number)
        shard = _Shard(*self._files(number))
        wants_grid = number == 0
        try:
            disk.do(shard.begin, self._header(number))
            for images, table in generate_blocks(sampler, self.requests.part(rows.start, rows.stop)):
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

    def __init__(self, images_file: Path, catalogue_file: Path) -> None:
        self._files = images_file, catalogue_file
        self._temporary = [temporary_of(file) for file in self._files]
        self._tables: list[pd.DataFrame] = []
        self._binary: IO[bytes] | None = None

    def begin(self, header: bytes) -> None:
        with self._removed_on_failure():
            for file in self._files:
                remove_dead_temporaries(file)
            self._binary = self._temporary[0].open("wb")
            self._binary.write(header)

    def append(self, images: Tensor, table: pd.DataFrame) -> None:
        assert self._binary is not None, "it was begun"
        with self._removed_on_failure():
            self._binary.write(images.numpy().data)
            self._tables.append(table)

    def finish(self) -> None:
        assert self._binary is not None, "it was begun"
        with self._removed_on_failure():
            with self._binary as binary:
                binary.flush()
                os.fsync(binary.fileno())
            images_file, _ = self._files
            catalogue = pd.concat(self._tables, ignore_index=True)
            catalogue.insert(0, "file", images_file.name)
            catalogue.insert(1, "row", np.arange(len(catalogue)))
            with self._temporary[1].open("w", encoding="utf-8", newline="") as text:
                catalogue.to_csv(text, index=False)
                text.flush()
                os.fsync(text.fileno())
            for temporary, file in zip(self._temporary, self._files, strict=True):
                replace_file(temporary, file)
            sync_folder(images_file.parent)

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
    facts, (num_bands, side, _) = sampler.facts, sampler.image_shape
    dtype = "|u1"
    if facts.is_flux:
        dtype = "<f4"
        origin |= {"unit": "nJy", "bands": list(facts.bands), "pixel_scale": facts.pixel_scale}
    if facts.observation:
        origin |= {"observation": dict(facts.observation)}
    folder = ShardFolder(out, requests, shard_size, side, origin, inputs, num_bands, dtype)
    there = write_shards(folder, sampler, rank)
    lines = [f"{len(requests):,} galaxies in {len(folder)} shards in {out}"]
    if there:
        lines.append(f"{there} shards were there before")
    if rank.size > 1:
        lines.append(f"this is rank 0 of {rank.size}: the shards are complete when every process has ended")
    return "\n".join(lines)
