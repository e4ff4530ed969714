"""Moments of galaxies on flux, under a Gaussian weight that is fitted to each: where it is, and how it is stretched.

References
----------
Bernstein & Jarvis (2002), AJ 123, 583.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from galaxies.measure.frame import pixel_grid
from galaxies.measure.source import Source

_LEAST_MOMENT = 0.1  # pixels²
_ROUNDS = 10  # of fitting the Gaussian that weighs the moments


class Moments(NamedTuple):
    """Moments of N galaxies under Gaussian weights that are fitted to them.

    Attributes
    ----------
    centre : Tensor, (N, 2)
        x and y, pixels from the frame's centre.
    moments : Tensor, (N, 3)
        Second moments xx, yy, xy, pixels², that a Gaussian galaxy would have without the weight.
    weighted, weight : Tensor, (N, 3)
        What was measured, and the weight's own; the latter without a gradient.
    error : Tensor, (N, 2)
        Standard deviations of the distortion (xx - yy, 2 xy) / (xx + yy) of the measured ones, along its own direction
        and across, by the noise.
    """

    centre: Tensor
    moments: Tensor
    weighted: Tensor
    weight: Tensor
    error: Tensor


def adaptive_moments(light: Tensor, source: Source, grain: Tensor) -> Moments:
    """Measure moments under a weight that leaves noise and neighbours far out without a say (Bernstein & Jarvis 2002).

    The weight's own part in them is taken off, 1/moment = 1/weighted - 1/weight in matrices, and gives the next weight.
    """
    side = light.shape[-1]
    with torch.no_grad():
        peak = torch.stack([source.peak % side, source.peak // side], 1).to(light.dtype) - (side - 1) / 2
        spread = source.mask.sum((1, 2)).clamp_min(9).to(light.dtype) / (4 * math.pi)
        seen = weighted_moments(light, peak, torch.stack([spread, spread, torch.zeros_like(spread)], 1), grain)
        for _ in range(_ROUNDS):
            seen = weighted_moments(light, seen.centre, seen.moments, grain)
    return weighted_moments(light, seen.centre, seen.moments, grain)


def weighted_moments(light: Tensor, centre: Tensor, weight: Tensor, grain: Tensor) -> Moments:
    """Measure under the Gaussian of this centre (N, 2) and of moments `weight` (N, 3)."""
    side = light.shape[-1]
    x, y = pixel_grid(side, light)
    dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    inverse = _inverse(weight)
    w_xx, w_yy, w_xy = (part[:, None, None] for part in inverse.unbind(1))
    window = torch.exp(-0.5 * (w_xx * dx.square() + w_yy * dy.square() + 2 * w_xy * dx * dy))
    weighed = light * window
    total = weighed.sum((1, 2)).clamp_min(1e-3)
    mx, my = ((weighed * d).sum((1, 2)) / total for d in (dx, dy))
    products = ((dx.square(), mx.square()), (dy.square(), my.square()), (dx * dy, mx * my))
    raw = torch.stack([(weighed * product).sum((1, 2)) / total - mean for product, mean in products], 1)
    raw = _bounded(raw, weight, 0.1, 0.95)
    moments = _bounded(_inverse(_inverse(raw) - inverse), weight, 0.25, 4.0)
    # The centroid under a weight lies half way from the weight's centre to the galaxy's.
    centre = (centre + 2 * torch.stack([mx, my], 1)).clamp(-side / 4, side / 4)
    with torch.no_grad():
        sums = raw[:, 0] + raw[:, 1]
        turned = torch.stack([raw[:, 0] - raw[:, 1], 2 * raw[:, 2]], 1) / sums[:, None]
        length = (turned.square().sum(1) + 1e-12).sqrt()
        cosine, sine = (each[:, None, None] for each in (turned / length[:, None]).unbind(1))
        across, diagonal, squared = dx.square() - dy.square(), 2 * dx * dy, dx.square() + dy.square()
        # What a pixel's light does to the distortion's length, and to what is across.
        effects = (
            across * cosine + diagonal * sine - length[:, None, None] * squared,
            diagonal * cosine - across * sine,
        )
        error = torch.stack([(window * effect).square().sum((1, 2)).sqrt() for effect in effects], 1)
        error = error * (grain / (total * sums))[:, None]
    return Moments(centre, moments, raw, weight, error)


def _inverse(moments: Tensor) -> Tensor:
    xx, yy, xy = moments.unbind(1)
    determinant = (xx * yy - xy.square()).clamp_min(1e-12)
    return torch.stack([yy, xx, -xy], 1) / determinant[:, None]


def _bounded(moments: Tensor, weight: Tensor, low: float, high: float) -> Tensor:
    """Keep moments (N, 3) between multiples of the weight's, as noise alone would not, in the weight's own axes."""
    xx, yy, xy = moments.unbind(1)
    centre, arm = (xx + yy) / 2, (((xx - yy) / 2).square() + xy.square() + 1e-12).sqrt()
    mean = weight[:, :2].mean(1)
    major = (centre + arm).minimum(2 * high * mean).maximum(low * mean).clamp_min(_LEAST_MOMENT)
    minor = (centre - arm).minimum(major).maximum(0.01 * major)
    shrink = (major - minor) / (2 * arm)
    middle, cross = (major + minor) / 2, (xx - yy) / 2 * shrink
    return torch.stack([middle + cross, middle - cross, xy * shrink], 1)


def stretch_of(moments: Tensor, blur: Tensor) -> Tensor:
    """Return the stretch (N, 2) of a Gaussian galaxy of these moments, less the PSF's variance `blur` (N,), pixels²."""
    xx, yy, xy = moments.unbind(1)
    arm = (((xx - yy) / 2).square() + xy.square() + 1e-12).sqrt()
    centre = (xx + yy) / 2
    minor = (centre - arm - blur).maximum(0.1 * (centre - arm))
    major = (centre + arm - blur).maximum(minor)
    return torch.stack([(xx - yy) / 2, xy], 1) * ((major / minor).log() / 2 / arm)[:, None]
