"""Measure pictures in files of any origin, on all cores, in as much memory for many as for few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from galaxies.compute.cores import stream_on_cores
from galaxies.images.reading import read_picture
from galaxies.measure.statistics_table import Measured, measure_images

_TOGETHER = 16  # files that a core reads and measures at a time


class MeasuredPicture(NamedTuple):
    """One measured file.

    Attributes
    ----------
    path : Path
    side_px : int
        Side of the central square in the file's own pixels.
    display : bool
        The levels are those of a display; False for scaled counts, whose levels mean nothing.
    note : str
        What was done to the picture before it was measured, in words; empty for nothing.
    measured : Measured
        Of one image.
    """

    path: Path
    side_px: int
    display: bool
    note: str
    measured: Measured


def measure_files(paths: Sequence[Path]) -> Iterator[MeasuredPicture]:
    """Read and measure pictures; those of one size, among a few that follow each other, are measured together.

    A picture's values depend on neither those beside it nor the number of cores.

    Yields
    ------
    MeasuredPicture
        In the order of the paths.

    Raises
    ------
    UserError
        On the first of them that is no picture of a galaxy; see `read_picture`.
    """
    parts = (paths[start : start + _TOGETHER] for start in range(0, len(paths), _TOGETHER))
    for part in stream_on_cores(_measure_together, parts):
        yield from part


def _measure_together(paths: Sequence[Path]) -> list[MeasuredPicture]:
    pictures = [read_picture(path) for path in paths]
    of_side: dict[int, list[int]] = {}
    for place, picture in enumerate(pictures):
        of_side.setdefault(picture.image.shape[-1], []).append(place)
    found: dict[int, Measured] = {}
    for places in of_side.values():
        measured = measure_images(torch.stack([pictures[place].image for place in places]))
        found |= {place: measured.of(row) for row, place in enumerate(places)}
    return [
        MeasuredPicture(path, picture.side_px, picture.display, picture.note, found[place])
        for place, (path, picture) in enumerate(zip(paths, pictures, strict=True))
    ]
