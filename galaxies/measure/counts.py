"""Bring counts, in any unit and with their sky, to the levels that photometry knows from displays.

Photometry is made for display images: a sky near 0 with noise of about a hundredth, and floors below which noise is
taken for rounding to 8 bits. Counts come with any level of the sky, sloping by moonlight or scattered light, in any
unit, and with stars and cosmic rays of any height. Here they get a flat sky of 0 and, by one factor for all planes,
such a noise; nothing is cut off above, and nothing depends on the brightest pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from galaxies.measure.frame import corner_mask

_NOISE = 0.01  # of the levelled sky, as in displays of surveys
_MOST_LIGHT = 100.0  # of the galaxy's middle, where the sky is all but free of noise
_MIDDLE = 0.1  # frame widths from the centre
_CLIP_SIGMA = 3.0
_ROUNDS = 20  # of fitting and clipping, which a dozen end as a rule
_ENOUGH = 0.25  # part of the corners that must have values, else the outermost pixels that have are the sky
_BOUND = 1e6  # levels; a cosmic ray beyond it has no more to say


def level_counts(counts: np.ndarray) -> Tensor:
    """Return counts as an image to be measured with `counts=True`.

    Parameters
    ----------
    counts : ndarray, (3, S, S), float64
        Planes in one unit, NaN where there is no value; three times the same for one band.

    Returns
    -------
    Tensor, (3, S, S), float32
        The sky is 0 with its slope taken off, and its noise in the mean of the planes 0.01; less where the galaxy's
        middle would be above 100 then, as in simulations without noise, which keep their precision so. What has
        no value is sky, with the noise of it.
    """
    side = counts.shape[-1]
    corners = corner_mask(side, torch.device("cpu")).numpy()
    axis = (np.arange(side) - (side - 1) / 2) / side
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    levelled = np.stack([_without_sky(plane, x, y, radius, corners) for plane in counts])
    mean = levelled.mean(0)
    deviation = _deviation(mean[_sky_pixels(np.isfinite(mean), radius, corners)])
    middle = mean[(radius <= _MIDDLE) & np.isfinite(mean)]
    light = float(np.percentile(middle, 95)) if len(middle) else 0.0
    factors = [_NOISE / deviation] if deviation > 0 else []
    factors += [_MOST_LIGHT / light] if light > 0 else []
    levelled *= min(factors, default=1.0)
    noise = np.random.default_rng(0).standard_normal((side, side))  # the same whatever is measured beside it
    for plane in levelled:
        lacking = ~np.isfinite(plane)
        if lacking.any():
            plane[lacking] = noise[lacking] * _deviation(plane[_sky_pixels(~lacking, radius, corners)])
    return torch.from_numpy(levelled.clip(-_BOUND, _BOUND).astype(np.float32))


def _sky_pixels(known: np.ndarray, radius: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the pixels (S, S), bool, that tell the sky: the corners', or where they are blank the outermost known."""
    inside = known & corners
    if inside.sum() >= _ENOUGH * corners.sum():
        return inside
    return known & (radius >= np.quantile(radius[known], 0.8)) if known.any() else known


def _without_sky(
    plane: np.ndarray, x: np.ndarray, y: np.ndarray, radius: np.ndarray, corners: np.ndarray
) -> np.ndarray:
    """Take a level with a slope off, fitted to what remains of the sky without neighbours."""
    where = _sky_pixels(np.isfinite(plane), radius, corners)
    values, terms = plane[where], np.stack([np.ones(where.sum()), x[where], y[where]], 1)
    if not len(values):
        return plane
    start = float(np.median(values))
    residual, kept, fit = values - start, None, np.zeros(3)
    for _ in range(_ROUNDS):
        near = np.abs(residual - np.median(residual)) <= _CLIP_SIGMA * _deviation(residual)
        if near.sum() < 10 or (kept is not None and (near == kept).all()):
            break
        kept = near
        fit = np.linalg.lstsq(terms[kept], values[kept] - start, rcond=None)[0]
        residual = values - start - terms @ fit
    return plane - start - (fit[0] + fit[1] * x + fit[2] * y)


def _deviation(values: np.ndarray) -> float:
    """Return the standard deviation of the sky's noise, from the values below the median, where no neighbours are."""
    if not len(values):
        return 0.0
    low, median = np.percentile(values, (15.87, 50))
    return float(median - low)
