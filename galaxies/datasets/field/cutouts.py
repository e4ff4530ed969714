"""Cut galaxies out of all bands of a field, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from galaxies.datasets.field.detection import sections
from galaxies.datasets.field.frames import Area, Plane
from galaxies.datasets.field.sky import SkyMap

_BLOCK = 64  # galaxies that are cut at a time


def section_order(x: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> list[np.ndarray]:
    """Return the indices of positions by section of the frame, at most 64 together."""
    column, row = np.rint(x), np.rint(y)
    groups = []
    for area in sections(shape):
        inside = (column >= area.x0) & (column < area.x1) & (row >= area.y0) & (row < area.y1)
        rows = np.flatnonzero(inside)
        groups += [rows[k : k + _BLOCK] for k in range(0, len(rows), _BLOCK)]
    return groups


def centred_area(x: float, y: float, size: int) -> Area:
    """Return the square of pixels whose centre is nearest to a position: no further than half a pixel along each axis.

    The centre of a square of even side lies between pixels.
    """
    x0, y0 = (round(place - (size - 1) / 2) for place in (x, y))
    return Area(y0, y0 + size, x0, x0 + size)


def cut(
    planes: Sequence[Plane], skies: Sequence[SkyMap], x: np.ndarray, y: np.ndarray, size: int
) -> Iterator[np.ndarray]:
    """Yield for each band the squares around positions (n, size, size), float32: nJy without sky, NaN for no value."""
    areas = [centred_area(float(a), float(b), size) for a, b in zip(x, y, strict=True)]
    around = Area(
        min(a.y0 for a in areas), max(a.y1 for a in areas), min(a.x0 for a in areas), max(a.x1 for a in areas)
    )
    for plane, sky in zip(planes, skies, strict=True):
        image = plane.read_beyond(around) - sky.level(around)
        yield np.stack([image[a.y0 - around.y0 :, a.x0 - around.x0 :][:size, :size] for a in areas])
