"""Write a mock catalogue of any length in shards: resumable, shared by several processes, with flat memory.

A folder of shards holds, for number 00000, 00001, ...:

- ``images_00000.npy``: uint8 (n, 3, S, S), not compressed, so that it is written as fast as it is generated and any
  program can map it into memory: ``numpy.load(path, mmap_mode="r")``;
- ``catalogue_00000.csv``: one row an image in the same order; ``file`` and ``row`` say where the image is;

and ``request.json``, which says what the galaxies are. A shard is complete when it has a catalogue: that gets its
name last. What is in a shard depends on the request alone, and not on the process that writes it or on the others.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from config_physics import BANDS
from galaxies.common.durable_files import free_space, replace_file, sha256_of, sync_folder
from galaxies.common.errors import UserError
from galaxies.compute.ranks import Ranks
from galaxies.generation.catalogue import GRID_LIMIT, REQUEST_FILE, generate_blocks
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.grids import plain_grid, save_picture

_FORMAT_VERSION = 1
_ROW_BYTES = 300  # of a catalogue, at most about


class ShardFolder:
    """The shards of one request.

    Parameters
    ----------
    path : Path
        Made when the first shard is written.
    requests : Requests
    shard_size : int
        Images a shard; the last one may have fewer.
    image_size : int
        Pixels a side.
    origin : dict
        What else decides the images, such as the checksum of the checkpoint (JSON values).

    Raises
    ------
    UserError
        If the folder holds other galaxies than these.
    """

    def __init__(
        self, path: Path, requests: Requests, shard_size: int, image_size: int, origin: dict[str, Any]
    ) -> None:
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

    def __len__(self) -> int:
        return -(-len(self.requests) // self.shard_size)

    def _check_identity(self) -> None:
        file = self.path / REQUEST_FILE
        if not file.exists():
            if any((self.path / name).exists() for name in ("catalogue.csv", "images", "images_00000.npy")):
                raise UserError(f"{self.path} holds other galaxies: name another folder with --out")
            return
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            other = [name for name, value in self.identity.items() if found.get(name) != value]
        except (ValueError, AttributeError):
            raise UserError(f"{file} is damaged: name another folder with --out") from None
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
        return len(self.rows(number)) * len(BANDS) * self.image_size**2

    def _header(self, number: int) -> bytes:
        shape = (len(self.rows(number)), len(BANDS), self.image_size, self.image_size)
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
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
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / REQUEST_FILE).exists():
            # Several processes may do so at once, each with the same words.
            temporary = self.path / f".{REQUEST_FILE}.{os.getpid()}.tmp"
            temporary.write_text(json.dumps(self.identity, indent=1) + "\n", encoding="utf-8")
            replace_file(temporary, self.path / REQUEST_FILE)
        self._check_identity()

    def write(self, number: int, sampler: GalaxySampler, bar: tqdm) -> None:
        """Generate one shard and write it, a block at a time; the files get their names when they are whole.

        Raises
        ------
        OSError
            If the disk is full or fails; what was written of the shard is removed.
        """
        images_file, catalogue_file = self._files(number)
        temporary = [file.with_name(f".{file.name}.tmp") for file in (images_file, catalogue_file)]
        rows = self.rows(number)
        tables: list[pd.DataFrame] = []
        try:
            with temporary[0].open("wb") as binary:
                binary.write(self._header(number))
                for images, table in generate_blocks(sampler, self.requests.part(rows.start, rows.stop)):
                    binary.write(images.numpy().data)
                    if number == 0 and not tables:
                        save_picture(plain_grid(images[:GRID_LIMIT]), self.path / "grid.png")
                    tables.append(table)
                    bar.update(len(images))
                binary.flush()
                os.fsync(binary.fileno())
            catalogue = pd.concat(tables, ignore_index=True)
            catalogue.insert(0, "file", images_file.name)
            catalogue.insert(1, "row", np.arange(len(catalogue)))
            with temporary[1].open("w", encoding="utf-8", newline="") as text:
                catalogue.to_csv(text, index=False)
                text.flush()
                os.fsync(text.fileno())
            replace_file(temporary[0], images_file)
            replace_file(temporary[1], catalogue_file)
            sync_folder(self.path)
        finally:
            for path in temporary:
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
        If the disk has too little room for all that is missing.
    """
    missing = folder.missing()
    folder.check_space(missing)
    folder.claim()
    own = range(rank.rank, len(folder), rank.size)
    left = [number for number in missing if number in own]
    total = sum(len(folder.rows(number)) for number in own)
    done = total - sum(len(folder.rows(number)) for number in left)
    with tqdm(total=total, initial=done, unit=" images", desc="generating", disable=not rank.is_first) as bar:
        for number in left:
            folder.write(number, sampler, bar)
    return len(folder) - len(missing)


def generate_shards(
    sampler: GalaxySampler, requests: Requests, out: Path, shard_size: int, checkpoint: Path, rank: Ranks
) -> str:
    """Generate this process's part of the missing shards, and say in sentences what there is.

    Parameters
    ----------
    sampler : GalaxySampler
        Of `checkpoint`, whose checksum is part of what the galaxies are.
    requests : Requests
    out : Path
    shard_size : int
    checkpoint : Path
    rank : Ranks

    Raises
    ------
    UserError
        If the folder holds other galaxies, or the disk has too little room.
    """
    # Networks round differently on different kinds of device.
    origin = {"checkpoint": sha256_of(checkpoint), "device": sampler.engine.device.type, "sampler": sampler.describe()}
    folder = ShardFolder(out, requests, shard_size, sampler.config.image_size, origin)
    there = write_shards(folder, sampler, rank)
    lines = [f"{len(requests):,} galaxies in {len(folder)} shards in {out}"]
    if there:
        lines.append(f"{there} shards were there before")
    if rank.size > 1:
        lines.append(f"this is rank 0 of {rank.size}: the shards are complete when every process has ended")
    return "\n".join(lines)
