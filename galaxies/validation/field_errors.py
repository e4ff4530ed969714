"""Parts and medians with their errors: what the evaluation of a field is made of."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

_RESAMPLED = 200
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_FEWEST = 5  # galaxies of which a median and a scatter say something


def part(yes: np.ndarray | int, total: int | None = None) -> dict[str, Any]:
    """Return a part of a number and the 68 % interval of Wilson (1927) for it; the part of none is None.

    Parameters
    ----------
    yes : ndarray of bool, or int with `total`
    """
    count = len(yes) if total is None else total  # type: ignore[arg-type]
    hits = int(np.sum(yes))
    if not count:
        return {"count": 0, "value": None, "interval": None}
    rate = hits / count
    middle, half = (rate + 0.5 / count) / (1 + 1 / count), math.sqrt(rate * (1 - rate) / count + 0.25 / count**2)
    half /= 1 + 1 / count
    return {"count": count, "value": rate, "interval": [max(0.0, middle - half), min(1.0, middle + half)]}


def spread(values: np.ndarray) -> float:
    """Return the standard deviation by the median absolute deviation, which outliers do not move."""
    return float(_MAD * np.median(np.abs(values - np.median(values))))


def rms(values: np.ndarray) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def resampled(values: np.ndarray, statistic: Any, seed: int = 0) -> dict[str, Any]:
    """Return a statistic of values (N, ...) and its 68 % interval by bootstrap; of fewer than five it is None."""
    if len(values) < _FEWEST:
        return {"count": len(values), "value": None, "interval": None}
    stream = np.random.default_rng([seed, len(values)])
    drawn = [statistic(values[stream.integers(0, len(values), len(values))]) for _ in range(_RESAMPLED)]
    return {
        "count": len(values),
        "value": statistic(values),
        "interval": [float(edge) for edge in np.percentile(drawn, (16, 84))],
    }


def median(values: np.ndarray) -> float:
    """Return the median."""
    return float(np.median(values))


def falls_below(centres: list[float], values: list[float | None], level: float) -> float | None:
    """Return where a curve last falls below a level, between two of its points; None if it does not, or never was.

    The last time, since among few bright sources chance or a blend may make an early dip.
    """
    known = [(c, v) for c, v in zip(centres, values, strict=True) if v is not None]
    for (left, above), (right, below) in reversed(list(pairwise(known))):
        if above >= level > below:
            return left + (right - left) * (above - level) / (above - below)
    return None


def rises_above(places: list[float], values: list[float | None], level: float) -> float | None:
    """Return where a curve over places above 0 first reaches a level, between two points by their logarithms."""
    known = [(p, v) for p, v in zip(places, values, strict=True) if v is not None]
    if known and known[0][1] >= level:
        return known[0][0]
    for (left, below), (right, above) in pairwise(known):
        if below < level <= above:
            share = (level - below) / (above - below)
            return math.exp(math.log(left) + share * math.log(right / left))
    return None
