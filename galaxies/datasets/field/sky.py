"""The level of the sky and the noise of its pixels over a frame, as maps.

Level and noise are taken in boxes by SExtractor's estimator (`sep.Background`: a mode of the pixels that are left after
clipping), smoothed by a median over three by three boxes and interpolated by a spline. Sources that were found
meanwhile are left out the second time.

References
----------
Bertin & Arnouts (1996), A&AS 117, 393, section 3; Barbary (2016), JOSS 1, 58: `sep`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from galaxies.common.errors import UserError
from galaxies.datasets.field.frames import Area, Plane

MaskReader = Callable[[Area], np.ndarray]
_LEAST_PART = 0.3  # of a box's pixels that must have a value, and no source on them
_BLOCK_PX = 6  # side of the blocks of pixels by whose sums it is told how far noise is shared
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


class SkyMap(NamedTuple):
    """Level and noise of a band's sky.

    Attributes
    ----------
    level, noise : callable
        Of an `Area`: (height, width) float32, nJy a pixel; noise is the standard deviation of a pixel.
    noise_mesh : ndarray, (rows, columns)
        Noise a box.
    sharing : float
        Noise of the sum over a block of pixels, over what it would be if pixels did not share theirs: 1 for a camera's
        own pixels, more after resampling.
    """

    level: Callable[[Area], np.ndarray]
    noise: Callable[[Area], np.ndarray]
    noise_mesh: np.ndarray
    sharing: float

    def noise_at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the noise at positions (N,) in pixels."""
        return np.array([self.noise(Area(r, r + 1, c, c + 1))[0, 0] for r, c in zip(_int(y), _int(x), strict=True)])


def _int(values: np.ndarray) -> list[int]:
    return np.rint(values).astype(int).tolist()


def map_sky(plane: Plane, box_px: int, sources: MaskReader | None = None) -> SkyMap:
    """Measure the sky of a band, box by box; of memory, a row of boxes.

    Parameters
    ----------
    plane : Plane
    box_px : int
        Side of a box, about.
    sources : callable, optional
        Where sources are, of an area: bool.

    Raises
    ------
    UserError
        If no box has enough pixels with a value, or there is no noise.
    """
    import sep

    height, width = plane.shape
    rows, columns = _edges(height, box_px), _edges(width, box_px)
    level = np.full((len(rows) - 1, len(columns) - 1), np.nan)
    noise, sharing = level.copy(), level.copy()
    constant = 0
    for i in range(level.shape[0]):
        strip_area = Area(rows[i], rows[i + 1], 0, width)
        strip = plane.read(strip_area)
        usable = np.isfinite(strip)
        if sources is not None:
            usable &= ~sources(strip_area)
        strip[~usable] = 0
        for j in range(level.shape[1]):
            part = slice(columns[j], columns[j + 1])
            good = usable[:, part]
            if good.mean() < _LEAST_PART:
                continue
            box = np.ascontiguousarray(strip[:, part])
            if not np.ptp(box[good]) > 0:  # not observed, and filled with a value
                constant += 1
                continue
            found = sep.Background(box, mask=~good, bw=box.shape[1], bh=box.shape[0], fw=1, fh=1)
            level[i, j], noise[i, j] = found.globalback, found.globalrms
            sharing[i, j] = _sharing(box - found.globalback, good, found.globalrms)
    if not np.isfinite(noise).any() and constant:
        raise UserError(f"band {plane.band} has a sky without noise: a model or an empty frame, and no observation")
    if not np.isfinite(noise).any():
        raise UserError(
            f"band {plane.band} has no area of {box_px} pixels a side with enough values: all is masked, empty or full "
            "of sources"
        )
    shared = sharing[np.isfinite(sharing)]
    return SkyMap(
        _surface(_smoothed(level), rows, columns, sloping=True),
        _surface(_smoothed(noise), rows, columns),
        _smoothed(noise),
        float(max(np.median(shared), 1.0)) if len(shared) else 1.0,
    )


def _edges(length: int, box_px: int) -> list[int]:
    return np.linspace(0, length, max(1, round(length / box_px)) + 1).round().astype(int).tolist()


def _sharing(values: np.ndarray, good: np.ndarray, noise: float) -> float:
    """Return by how much the noise of sums over blocks exceeds that of independent pixels; see `SkyMap`."""
    side = _BLOCK_PX
    height, width = (length // side * side for length in values.shape)
    if not min(height, width) or not noise > 0:
        return np.nan
    blocks = values[:height, :width].reshape(height // side, side, width // side, side).sum((1, 3), dtype=np.float64)
    whole = np.asarray(good[:height, :width].reshape(height // side, side, width // side, side).all((1, 3)))
    # Differences of blocks side by side, so that a slope of the sky is no noise.
    both = whole[:, 1:] & whole[:, :-1]
    apart = (blocks[:, 1:] - blocks[:, :-1])[both]
    if len(apart) < 20:
        return np.nan
    return float(_MAD * np.median(np.abs(apart - np.median(apart))) / (math.sqrt(2) * side * noise))


def _smoothed(mesh: np.ndarray) -> np.ndarray:
    """Fill boxes without a value from those around, and take medians of three by three."""
    filled = mesh.copy()
    while np.isnan(filled).any():
        around = _neighbours(filled)
        with np.errstate(all="ignore"):
            known = np.isfinite(around)
            mean = np.where(known, around, 0).sum(0) / np.maximum(known.sum(0), 1)
        fill = np.isnan(filled) & known.any(0)
        filled[fill] = mean[fill]
    # A slope goes on beyond the edge, so that the median of it is its value there, too.
    framed = _continued(filled)
    return np.asarray(np.median(_neighbours(framed)[:, 1:-1, 1:-1], axis=0))


def _continued(mesh: np.ndarray) -> np.ndarray:
    """Return a mesh with one more row and column on each side, by its own slope there."""
    for axis in (0, 1):
        width = [(1, 1) if k == axis else (0, 0) for k in (0, 1)]
        if mesh.shape[axis] > 1:
            mesh = np.pad(mesh, width, mode="reflect", reflect_type="odd")
        else:
            mesh = np.pad(mesh, width, mode="edge")
    return mesh


def _neighbours(mesh: np.ndarray) -> np.ndarray:
    """Return each box with the eight around it, (9, rows, columns); NaN beyond the edge."""
    framed = np.pad(mesh, 1, constant_values=np.nan)
    height, width = mesh.shape
    return np.stack([framed[i : i + height, j : j + width] for i in range(3) for j in range(3)])


def _surface(
    mesh: np.ndarray, rows: list[int], columns: list[int], sloping: bool = False
) -> Callable[[Area], np.ndarray]:
    """Return a function that interpolates a mesh; beyond the outermost centres it goes on by its slope, or level."""
    from scipy.interpolate import RectBivariateSpline

    low, high = float(mesh.min()), float(mesh.max())
    framed = _continued(mesh) if sloping else np.pad(mesh, 1, mode="edge")
    if sloping:
        low, high = float(framed.min()), float(framed.max())
    y, x = (_centres(edges) for edges in (rows, columns))
    spline: Any = RectBivariateSpline(y, x, framed, kx=min(3, len(y) - 1), ky=min(3, len(x) - 1))

    def at(area: Area) -> np.ndarray:
        values = spline(np.arange(area.y0, area.y1), np.arange(area.x0, area.x1))
        return np.clip(values, low, high).astype(np.float32)

    return at


def _centres(edges: list[int]) -> np.ndarray:
    """Return the centres of boxes, and of one more on each side."""
    middle = (np.array(edges[:-1]) + edges[1:]) / 2 - 0.5
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    return np.concatenate([[middle[0] - first], middle, [middle[-1] + last]])
