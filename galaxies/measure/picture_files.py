"""Measure pictures in files of any origin, on all cores, in as much memory for many as for few."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from galaxies.common.errors import UserError, shown
from galaxies.compute.cores import stream_on_cores
from galaxies.images.reading import Picture, read_picture
from galaxies.measure.counts import level_counts
from galaxies.measure.photometry import MISSING_PIXELS
from galaxies.measure.statistics_table import (
    MORPHOLOGY_STATISTICS,
    STATISTICS,
    Measured,
    Statistic,
    measure_images,
    of_visible_arms,
)

FILE_STATISTICS = (*STATISTICS, *MORPHOLOGY_STATISTICS)
_CENTRE = tuple(Statistic(name, name, "frame widths", "photometry") for name in ("centroid_x", "centroid_y"))
_REACH = 3.0  # half-light radii within which a pixel is the galaxy's: 97 % of the light of a disc
_NOWHERE = 0.1  # frame widths that stand for the radius of a galaxy that is not seen
_TOGETHER = 16  # files that a core reads and measures at a time
_KINDS = (".png", ".jpg", ".jpeg", ".fits", ".fit", ".fts")  # what is looked for in folders, by the ends of names
_PACKED = (".gz", ".bz2", ".fz")  # further ends that FITS files come with


class MeasuredPicture(NamedTuple):
    """One measured file.

    Attributes
    ----------
    path : Path
    side_px : int
        Side of the central square in the file's own pixels.
    display : bool
        The levels are those of a display; False for counts, whose levels mean nothing.
    note : str
        What was done to the picture before it was measured, in words; empty for nothing.
    measured : Measured
        `FILE_STATISTICS` of one image; the flag is a sum of `LIGHT_FLAG_BITS`. NaN are a color that the file cannot
        tell, and number and pitch of arms that are not visible.
    """

    path: Path
    side_px: int
    display: bool
    note: str
    measured: Measured


class UnmeasuredPicture(NamedTuple):
    """What a user named and cannot be measured.

    Attributes
    ----------
    path : Path
    reason : str
        A sentence.
    """

    path: Path
    reason: str


class NamedPictures(NamedTuple):
    """What the names that a user gave lead to.

    Attributes
    ----------
    paths : list of Path
        Of files, in the order of the names; those of a folder in the order of the alphabet.
    without : list of UnmeasuredPicture
        Folders without a picture, and patterns that fit no file.
    repeated : int
        Names left out, because they lead to a file that was named before.
    """

    paths: list[Path]
    without: list[UnmeasuredPicture]
    repeated: int


def find_pictures(names: Sequence[Path]) -> NamedPictures:
    """Find the pictures that a user names: files, folders with what lies in and below them, and patterns such as *.png.

    Shells fill in patterns themselves, but for that of Windows. Whether a file is a picture shows when it is read.
    """
    paths: dict[str, Path] = {}
    without, repeated = [], 0
    for name in names:
        found, reason = _named(name)
        without += [UnmeasuredPicture(name, reason)] if reason else []
        for path in found:
            key = os.path.normcase(path.absolute())
            repeated += key in paths
            paths.setdefault(key, path)
    return NamedPictures(list(paths.values()), without, repeated)


def _named(name: Path) -> tuple[list[Path], str]:
    """Return the files that one name leads to, and why there are none."""
    if name.is_dir():
        errors: list[OSError] = []
        found = [Path(folder) / file for folder, _, files in os.walk(name, onerror=errors.append) for file in files]
        found = sorted(path for path in found if _may_be_picture(path.name))
        if errors:
            return found, f"{errors[0].filename} cannot be read: {errors[0].strerror}"
        return found, "" if found else f"{name} holds no picture: no file whose name ends like {', '.join(_KINDS)}"
    if set("*?[") & set(str(name)) and not name.exists():
        found = sorted(Path(name.anchor).glob(str(name.relative_to(name.anchor))))
        return found, "" if found else f"no file fits {shown(str(name))}"
    return [name], ""


def _may_be_picture(name: str) -> bool:
    name = name.lower()
    for packing in _PACKED:
        name = name.removesuffix(packing)
    return name.endswith(_KINDS) and not name.startswith(".")


def measure_files(paths: Sequence[Path]) -> Iterator[MeasuredPicture | UnmeasuredPicture]:
    """Read and measure pictures; those of one size, among a few that follow each other, are measured together.

    A picture's values depend on neither those beside it nor the number of cores.

    Yields
    ------
    MeasuredPicture, or UnmeasuredPicture for what is no picture of a galaxy; see `read_picture`
        In the order of the paths.
    """
    parts = (paths[start : start + _TOGETHER] for start in range(0, len(paths), _TOGETHER))
    for part in stream_on_cores(_measure_together, parts):
        yield from part


def measurable(picture: Picture) -> Tensor:
    """Return the image (3, S, S) of a picture as it is measured, float32."""
    return picture.image if picture.display else level_counts(picture.image.numpy())


def _measure_together(paths: Sequence[Path]) -> list[MeasuredPicture | UnmeasuredPicture]:
    results: dict[int, MeasuredPicture | UnmeasuredPicture] = {}
    alike: dict[tuple[int, bool], list[tuple[int, Picture]]] = {}
    for place, path in enumerate(paths):
        try:
            picture = read_picture(path)
        except UserError as error:
            results[place] = UnmeasuredPicture(path, str(error))
        else:
            alike.setdefault((picture.image.shape[-1], picture.display), []).append((place, picture))
    for (_, display), pictures in alike.items():
        images = torch.stack([measurable(picture) for _, picture in pictures])
        measured = measure_images(images, statistics=(*FILE_STATISTICS, *_CENTRE), counts=not display)
        for row, (place, picture) in enumerate(pictures):
            found = _described(picture, measured.of(row))
            results[place] = MeasuredPicture(paths[place], picture.side_px, display, picture.note, found)
    return [results[place] for place in range(len(paths))]


def _described(picture: Picture, measured: Measured) -> Measured:
    """Return the measurements of one picture without what it cannot tell, and flagged for what it lacks."""
    values = of_visible_arms({statistic.name: measured.values[statistic.name] for statistic in FILE_STATISTICS})
    if picture.colorless:  # of equal planes it would be 0, as for a galaxy as bright in red as in blue
        values["color"] = np.full(1, np.nan)
    flags = measured.flags
    if picture.missing is not None:
        x, y, size = (float(measured.values[name][0]) for name in ("centroid_x", "centroid_y", "size"))
        if math.isnan(size):
            x, y, size = 0.0, 0.0, _NOWHERE
        side = picture.missing.shape[-1]
        rows, columns = (picture.missing.nonzero().double() - (side - 1) / 2).unbind(1)
        if torch.hypot(columns - x * side, rows - y * side).amin() <= _REACH * size * side:
            flags = flags + MISSING_PIXELS
    return Measured(values, flags)
