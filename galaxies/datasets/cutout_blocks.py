"""Read many cutouts on all cores, in blocks: unpacked, decoded, cropped, and measured where the pixels are warm."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from galaxies.datasets.cutouts import Cutout, LeftOut, PictureStore, decode_found, found_in

# Pictures from which on, and workers with which, processes pay: they need two seconds to start, and then none waits for
# Python's lock, which a thread holds between the parts of its work.
WORTH_PROCESSES = (8192, 4)
_ROWS = 4096  # of pixels in a block: 64 pictures of 64 pixels, 16 of 256


class CutoutBlock(NamedTuple):
    """Pictures that were asked for one after the other: N of them, K of which can be used.

    Attributes
    ----------
    names : list of str, N
        As asked for.
    images : ndarray, (K, 3, S, S), uint8
    places : ndarray, (K,), int64
        Of the images among the names.
    crop_px : ndarray, (K,), int64
        As in `Cutout`.
    measured : dict of str to ndarray, (K,), float64
        What `measure_attributes` finds; empty if it was not asked for.
    rejected : dict of int to LeftOut
        Why the pictures in the other places have no image.
    notes : list of str
        What was done to the images to show them, for each one in turn.
    """

    names: list[str]
    images: np.ndarray
    places: np.ndarray
    crop_px: np.ndarray
    measured: dict[str, np.ndarray]
    rejected: dict[int, LeftOut]
    notes: list[str]


def read_blocks(
    source: PictureStore,
    names: Sequence[str],
    size: int,
    crop: float = 0.5,
    workers: int = 1,
    processes: bool | None = None,
) -> Generator[CutoutBlock, None, None]:
    """Read and measure pictures, and yield them in the order asked for.

    Memory stays bounded, since only a few blocks are read ahead of the one that is yielded. What a block holds depends
    neither on the number of workers nor on their kind.

    Parameters
    ----------
    source : PictureStore
        Where the pictures are.
    names : sequence of str
        Names in `source`.
    size, crop
        As in `decode_cutout`.
    workers : int
        How many work at the same time, at least 1.
    processes : bool, optional
        Whether they are processes, or threads; by default what is faster for so many pictures.

    Raises
    ------
    UserError
        If a process is ended by others.
    """
    if processes is None:
        processes = len(names) >= WORTH_PROCESSES[0] and workers >= WORTH_PROCESSES[1]
    decode = partial(_decode_block, size=size, measure=True, crop=crop)
    packed = _packed(source, names, max(1, _ROWS // size))
    if not processes:
        from galaxies.compute.cores import stream_on_cores  # here, since it imports torch

        yield from stream_on_cores(decode, packed, workers)
        return
    from galaxies.compute.worker_processes import MOST_PROCESSES, stream_on_processes

    yield from stream_on_processes(decode, packed, min(workers, MOST_PROCESSES), "read pictures (--workers)")


def read_cutouts(
    source: PictureStore, names: Iterable[str], size: int, crop: float = 0.5, workers: int = 1
) -> Iterator[Cutout]:
    """Read pictures with several threads, without measuring them; the parameters are those of `read_blocks`.

    Yields
    ------
    Cutout
        One for every name; one that cannot be used carries its `rejection`.
    """
    from galaxies.compute.cores import stream_on_cores

    decode = partial(_decode_block, size=size, measure=False, crop=crop)
    for block in stream_on_cores(decode, _packed(source, names, _ROWS // 2 // size), workers):
        used = iter(zip(block.images, block.crop_px.tolist(), strict=True))
        for place, name in enumerate(block.names):
            left_out = block.rejected.get(place)
            image, crop_px = next(used) if left_out is None else (None, 0)
            yield Cutout(name, image, crop_px, left_out.reason if left_out else None)


class _Packed(NamedTuple):
    """A picture before it is decoded: its bytes, or the file that holds them, or why there are none."""

    name: str
    content: bytes | Path | LeftOut


def _packed(source: PictureStore, names: Iterable[str], together: int) -> Iterator[list[_Packed]]:
    """Look pictures up, a block at a time. Those in a zip file are read here, since threads would take turns."""
    remaining = iter(names)
    while block := list(islice(remaining, together)):
        yield [_Packed(name, found_in(source, name)) for name in block]


def _decode_block(packed: list[_Packed], size: int, measure: bool, crop: float) -> CutoutBlock:
    images, places, crops, rejected = [], [], [], {}
    notes: list[str] = []
    for place, (_, content) in enumerate(packed):
        decoded = decode_found(content, size, crop)
        if isinstance(decoded, LeftOut):
            rejected[place] = decoded
            continue
        places.append(place)
        images.append(decoded.image)
        crops.append(decoded.crop_px)
        notes.extend(decoded.notes)
    pixels = np.stack(images) if images else np.empty((0, 3, size, size), np.uint8)
    measured = {}
    if measure:
        from galaxies.measure.statistics_table import measure_attributes  # here, since it imports torch

        measured = measure_attributes(pixels)
    where = np.array(places, np.int64)
    names = [each.name for each in packed]
    return CutoutBlock(names, pixels, where, np.array(crops, np.int64), measured, rejected, notes)
