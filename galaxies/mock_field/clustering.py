"""Galaxies in clusters of all sizes: a simple field whose two-point function is a power law.

Clusters lie at random, k a unit of area, each has a Poisson number of galaxies, and these lie normally distributed
about its centre, of standard deviation sigma: then the angular two-point function is w(t) = exp(-t^2 / (4 sigma^2)) /
(4 pi sigma^2 k) (Thomas 1949; Neyman & Scott 1952). Several such fields over each other, of sigma twice as large from
one to the next and each with an equal part of the galaxies, have the sum of theirs, weighed by the square of that part;
with the right numbers of clusters the sum is a power law between the smallest and the largest sigma.

What lies in a cell of the sky depends on the seed and on the clusters about it, which are drawn by cells as well. So
fields of any size are made cell by cell, and what lies beyond a field's edge is as good as there.

References
----------
Morganson & Blandford 2009, MNRAS 398, 769: w(t) = (t / t0)^-0.7, t0 = 10^(-0.4 (r - 21.5)) arcseconds, of the
clustering of galaxies by gravity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

SLOPE = 0.7
_SIGMAS = 0.5 * 2.0 ** np.arange(12)  # arcseconds, to 17 arcminutes
# Of sigma^-SLOPE exp(-t^2 / (4 sigma^2)), summed over sigmas that are each twice the last, over t^-SLOPE: the integral
# over their logarithm.
_SUM = 2 ** (SLOPE - 1) * math.gamma(SLOPE / 2) / math.log(2)
_REACH = 5.0  # sigmas beyond which a cluster has no galaxies
_STREAM = 2_718_281  # apart from what else is drawn by cells
_ORIGIN = 1 << 31  # added to cells' numbers, since those of a seed are not negative


@dataclass(frozen=True)
class Clusters:
    """Clusters of galaxies.

    Attributes
    ----------
    amplitude : float
        w at an arcminute, above 0. The smaller it is, the more clusters there are, of fewer galaxies each.
    per_arcmin2 : float
        Galaxies a square arcminute, in the mean.
    """

    amplitude: float
    per_arcmin2: float

    def describe(self) -> str:
        """Say how galaxies lie."""
        return (
            f"galaxies lie in clusters of all sizes, whatever their magnitudes and redshifts are, of the two-point "
            f"function w = {self.amplitude:.3g} (angle / 1 arcminute)^-{SLOPE:g} from 1 arcsecond to 2 arcminutes"
        )

    def two_point(self, angle: np.ndarray) -> np.ndarray:
        """Return w at angles, arcseconds: the sum that stands for the power law, which is less at large angles."""
        return (self._shares * np.exp(-((np.asarray(angle)[..., None] / (2 * _SIGMAS)) ** 2))).sum(-1)

    @property
    def _shares(self) -> np.ndarray:
        """What each field adds to w at 0."""
        return self.amplitude * 60**SLOPE * _SIGMAS**-SLOPE / _SUM

    def places(self, seed: int, cell: tuple[int, int], side: float, rng: np.random.Generator) -> np.ndarray:
        """Return where galaxies of a cell lie.

        Parameters
        ----------
        seed : int
            Of the field.
        cell : (int, int)
            Its row and column.
        side : float
            Of a cell, arcseconds.
        rng : Generator
            Of the cell.

        Returns
        -------
        ndarray, (N, 2)
            x and y, arcseconds from the corner of cell (0, 0).
        """
        low = np.array([cell[1], cell[0]]) * side
        part = 1 / len(_SIGMAS)  # of the galaxies, in a field of one sigma
        found = []
        for number, (sigma, share) in enumerate(zip(_SIGMAS, self._shares, strict=True)):
            density = part**2 / (4 * math.pi * sigma**2 * share)  # clusters a square arcsecond
            galaxies = part * self.per_arcmin2 / 3600 / density  # of a cluster
            centres = _centres(seed, number, density, sigma, low, low + side)
            # Of a normal distribution along each axis: what lies before the cell, and what in it.
            before, after = _normal_cdf((low - centres) / sigma), _normal_cdf((low + side - centres) / sigma)
            expected = galaxies * (after - before).prod(1)
            owner = np.repeat(np.arange(len(centres)), rng.poisson(expected))
            within = before[owner] + rng.random((len(owner), 2)) * (after - before)[owner]
            place = centres[owner] + sigma * _normal_quantile(within)
            found.append(place.clip(low, np.nextafter(low + side, low)))
        return np.concatenate(found)


def usual_amplitude(magnitude: float) -> float:
    """Return w at an arcminute of galaxies of a magnitude, in r or near it; see the module's reference."""
    return (60 / 10 ** (-0.4 * (magnitude - 21.5))) ** -SLOPE


def _centres(seed: int, number: int, density: float, sigma: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the clusters (M, 2) of one field within reach of a rectangle, and some more, in a fixed order."""
    side = max(60.0, _REACH * sigma)
    first, last = (np.floor(end / side).astype(int) for end in (low - _REACH * sigma, high + _REACH * sigma))
    found = [np.empty((0, 2))]
    for column, row in product(range(first[0], last[0] + 1), range(first[1], last[1] + 1)):
        rng = np.random.default_rng([seed, _STREAM, number, row + _ORIGIN, column + _ORIGIN])
        found.append((rng.random((rng.poisson(density * side**2), 2)) + np.array([column, row])) * side)
    return np.concatenate(found)


def _normal_cdf(values: np.ndarray) -> np.ndarray:
    return torch.special.ndtr(torch.from_numpy(values)).numpy()


def _normal_quantile(parts: np.ndarray) -> np.ndarray:
    return torch.special.ndtri(torch.from_numpy(parts)).numpy()
