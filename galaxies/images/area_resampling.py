"""Planes of flux on pixels of another size: each new pixel gets the flux that falls on its area.

A pixel is taken to be lit evenly, so that what a new pixel gets of it is the part of its area that both share (the
"drizzling" of Fruchter & Hook 2002, PASP 114, 144, with drops as large as pixels). Flux is conserved exactly. Noise
that was each pixel's own is shared by neighbours afterwards, unless pixels are put together in whole numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_LEAST_COVERED = 0.5  # part of a new pixel's area on which values are needed


class Resampled(NamedTuple):
    """A plane on other pixels.

    Attributes
    ----------
    values : ndarray, (S, S), float64
        Flux a pixel, NaN where less than half of a pixel's area has values.
    error : ndarray or None, (S, S), float64
        Standard deviation, if each of the old pixels had noise of its own; NaN as above.
    """

    values: np.ndarray
    error: np.ndarray | None


def shares(length: int, size: int, step: float, centre: float | None = None) -> np.ndarray:
    """Return which part of each old pixel falls on each new one, along one axis.

    Parameters
    ----------
    length, size : int
        Old and new pixels.
    step : float
        Side of a new pixel in old ones.
    centre : float, optional
        Place in the old pixels, whose centres are at whole numbers, of the middle of the new ones; by default theirs.

    Returns
    -------
    ndarray, (size, length), float64
        Each column adds to 1 where the pixel lies within the new frame.
    """
    middle = (length - 1) / 2 if centre is None else centre
    ends = middle + (np.arange(size + 1) - size / 2) * step  # of new pixels, in old ones
    old = np.arange(length)
    low = np.maximum(ends[:-1, None], old - 0.5)
    high = np.minimum(ends[1:, None], old + 0.5)
    return np.maximum(high - low, 0)


def resample(
    values: np.ndarray,
    size: int,
    step: float,
    error: np.ndarray | None = None,
    centre: tuple[float, float] | None = None,
) -> Resampled:
    """Bring a plane of flux on a frame of other pixels about its middle, and conserve the flux.

    Where a part of a new pixel's area has no value, the flux of the rest stands for it.

    Parameters
    ----------
    values : ndarray, (H, W)
        Flux a pixel, NaN where there is no value.
    size : int
        New pixels a side, S; what lies beyond the old frame has no value.
    step : float
        Side of a new pixel in old ones: 2 puts four together.
    error : ndarray, (H, W), optional
        Standard deviation of the noise of each pixel.
    centre : (float, float), optional
        Row and column that come into the middle.
    """
    row, column = centre or (None, None)
    rows = shares(values.shape[0], size, step, row)
    columns = shares(values.shape[1], size, step, column)
    good = np.isfinite(values)
    if error is not None:
        good = good & np.isfinite(error)
    area = rows @ good @ columns.T / step**2
    enough = area >= _LEAST_COVERED - 1e-9
    scaled = np.where(enough, area, np.nan)
    whole = rows @ np.where(good, values, 0) @ columns.T / scaled
    if error is None:
        return Resampled(whole, None)
    variance = rows**2 @ np.where(good, error, 0) ** 2 @ (columns**2).T
    return Resampled(whole, np.sqrt(variance) / scaled)


def framed(values: np.ndarray, size: int) -> np.ndarray:
    """Cut the central square of `size` pixels from a plane (H, W), or put it amid pixels without a value (NaN).

    No pixel changes; where the sides differ by an odd number, the middle moves by half a pixel.
    """
    out = np.full((size, size), np.nan)
    where = []
    for length in values.shape:
        first = (length - size) // 2
        where.append((slice(max(first, 0), max(first, 0) + min(size, length)), max(-first, 0)))
    (rows, top), (columns, left) = where
    part = values[rows, columns]
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out
