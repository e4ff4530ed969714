"""Sersic profiles as sums of Gaussians, which blur, turn and stretch by adding variances.

A Sersic profile of index 0.5 or more is a mixture of Gaussians of the same centre (its logarithm falls ever slower in
the squared radius, Bernstein's theorem); a few widths in steps of half an octave draw it to a per cent where its light
is (Hogg & Lang 2013, PASP 125, 719). Convolution with a Gaussian PSF adds its variance to each, and an inclined
galaxy is stretched ones: no profile needs to be computed on pixels.

A disc with a bulge shows a steep centre, as a Sersic profile of a high index does, and has none of its wings. Where
noise or the frame hide the wings, both have to be thought of.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from galaxies.measure.frame import kept

INDICES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)
BULGES = (0.2, 0.4, 0.6)  # parts of the light, in discs with a bulge
_BULGE_INDEX, _BULGE_RADIUS = 4.0, 0.25  # radius over that of the disc
NUM_WIDTHS = 14
_NARROWEST = 0.4  # pixels
_WIDEST = 1.0  # frame widths
_PHASES = 4  # radii between one width and the next
_LEAST_RADIUS = 0.5  # pixels, of a profile
_MOST_RADIUS = 0.6  # frame widths
_REACH = (0.01, 40.0)  # of the widths a profile is made of, half-light radii
_ROUNDS = 2000


class Mixtures(NamedTuple):
    """T profiles, by kinds and by half-light radii, each a mixture of G Gaussians.

    Attributes
    ----------
    variances : Tensor, (G,)
        Of the Gaussians along one axis, pixels².
    parts : Tensor, (T, G)
        Part of a profile's light that each has; rows sum to 1.
    indices, radii : Tensor, (T,)
        Sersic index, 0 of a disc with a bulge; half-light radius in pixels, of the disc alone where there is a bulge.
    """

    variances: Tensor
    parts: Tensor
    indices: Tensor
    radii: Tensor


@kept
def sersic_mixtures(side: int, dtype: torch.dtype, device: torch.device) -> Mixtures:
    """Return the profiles for frames of `side` pixels, radii from half a pixel to 0.6 of the frame."""
    step = (_WIDEST * side / _NARROWEST) ** (1 / (NUM_WIDTHS - 1))
    widths = _NARROWEST * step ** np.arange(NUM_WIDTHS)
    first = math.floor(math.log(_REACH[0]) / math.log(step))
    taps = np.arange(first, math.ceil(math.log(_REACH[1]) / math.log(step)) + 1)
    kinds = (*INDICES, *(0.0 for _ in BULGES))
    rows, indices, radii = [], [], []
    for phase in range(_PHASES):
        within = step ** (taps - phase / _PHASES)  # widths over a radius that lies between two of them
        for index, weights in zip(kinds, _weights(within), strict=True):
            for place in range(NUM_WIDTHS):
                radius = widths[place] * step ** (phase / _PHASES)
                if _LEAST_RADIUS <= radius <= _MOST_RADIUS * side:
                    row = np.zeros(NUM_WIDTHS)
                    np.add.at(row, (place + taps).clip(0, NUM_WIDTHS - 1), weights)
                    rows.append(row)
                    indices.append(index)
                    radii.append(radius)
    tables = (widths**2, np.stack(rows), np.array(indices), np.array(radii))
    return Mixtures(*(torch.from_numpy(table).to(dtype).to(device) for table in tables))


def _weights(widths: np.ndarray) -> np.ndarray:
    """Return the part of the light (kinds, G) of each of the Gaussians in profiles of half-light radius 1.

    They are fitted to the light in rings of equal logarithmic width by expectation maximisation, which keeps them
    positive and their sum 1.
    """
    radius = np.geomspace(0.005, 60, 240)[:, None]
    bulge, disc = _light_in_rings(radius, _BULGE_INDEX, _BULGE_RADIUS), _light_in_rings(radius, 1.0)
    kinds = [_light_in_rings(radius, index) for index in INDICES]
    kinds += [part * bulge + (1 - part) * disc for part in BULGES]
    light = np.concatenate(kinds, 1)  # (R, kinds)
    gaussians = (radius / widths) ** 2 * np.exp(-0.5 * (radius / widths) ** 2)  # (R, G)
    gaussians /= gaussians.sum(0)
    weights = np.full((len(kinds), len(widths)), 1 / len(widths))
    for _ in range(_ROUNDS):
        drawn = gaussians @ weights.T
        weights *= (light / np.maximum(drawn, 1e-300)).T @ gaussians
    return weights / weights.sum(1, keepdims=True)


def _light_in_rings(radius: np.ndarray, index: float, half_light: float = 1.0) -> np.ndarray:
    """Return the light (R, 1) of a Sersic profile in rings of equal logarithmic width; the sum is 1."""
    light = np.exp(-_sersic_b(index) * ((radius / half_light) ** (1 / index) - 1)) * radius**2
    return light / light.sum(0)


def _sersic_b(index: float) -> float:
    """Return b of I = exp(-b (r/R)^(1/n)), by which R holds half of the light (Ciotti & Bertin 1999, eq. 18)."""
    return 2 * index - 1 / 3 + 4 / (405 * index) + 46 / (25515 * index**2) + 131 / (1148175 * index**3)
