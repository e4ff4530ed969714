"""Measure what people see in flux: arms, second nuclei and outlines, which need a light but no unit and no colour."""

from __future__ import annotations

import torch
from torch import Tensor

from galaxies.measure.flux_sky import estimate_flux_sky, without_slope
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, measure_columns

_NOISE = 0.01  # of the levels that photometry of pictures is made for
_BRIGHTEST = 1e6  # levels; a cosmic ray beyond has no more to say


def measure_flux_morphology(images: Tensor) -> Tensor:
    """Return photometry's flag and below it `MORPHOLOGY_STATISTICS`, (7, N), float32, where the images are.

    Parameters
    ----------
    images : Tensor, (N, B, S, S), float32
        Linear, in any unit; what is not finite counts as sky.
    """
    return measure_columns(levels_of_flux(images), MORPHOLOGY_STATISTICS, counts=True)


def levels_of_flux(images: Tensor) -> Tensor:
    """Return the mean of the bands (N, 3, S, S), three times the same, as pictures with a sky of 0 and noise of 0.01.

    The bands are weighted by their inverse variance, and a sky that was left in is taken off with its slope.
    """
    good = images.isfinite().all(1)
    images = torch.where(good[:, None], images, 0.0)
    images = without_slope(images, good)
    sky = estimate_flux_sky(images, good)
    planes = (images - sky.level[..., None, None]).where(good[:, None], 0)
    inverse = 1 / sky.noise
    mean = (planes * inverse.square()[..., None, None]).sum(1) / inverse.square().sum(1).sqrt()[:, None, None]
    return (_NOISE * mean).clamp(-_BRIGHTEST, _BRIGHTEST)[:, None].expand(-1, 3, -1, -1)
