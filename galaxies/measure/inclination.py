"""How a disc is inclined, by its axis ratio: the relation of Hubble (1926) for discs with a thickness.

A disc that has the axis ratio q0 from the side has, inclined by i,

    q^2 = cos^2 i + q0^2 sin^2 i,    so that    cos^2 i = (q^2 - q0^2) / (1 - q0^2).

It is exact of an oblate spheroid, and close for the outskirts of discs. A bulge or a bar makes a galaxy rounder or
longer than its disc, so that an inclination that is read off a galaxy's shape is one of the whole galaxy as if it were
a disc, and of ellipticals or mergers it means nothing.

References
----------
Hubble 1926, ApJ 64, 321; a q0 between 0.1 and 0.2 is usual (Holmberg 1958; Unterborn & Ryden 2008, ApJ 687, 976).
"""

from __future__ import annotations

import torch
from torch import Tensor

DISC_THICKNESS = 0.15  # q0


def inclination_of(axis_ratio: Tensor) -> Tensor:
    """Return the inclination in degrees, 0 face-on and 90 edge-on, of discs by their axis ratio b/a, of any shape.

    A disc that is flatter than `DISC_THICKNESS` is edge-on.
    """
    squared = (axis_ratio.square() - DISC_THICKNESS**2) / (1 - DISC_THICKNESS**2)
    return torch.rad2deg(torch.arccos(squared.clamp(0, 1).sqrt()))


def axis_ratio_of(inclination: Tensor) -> Tensor:
    """Return the axis ratio b/a of discs by their inclination in degrees; undone by `inclination_of`."""
    cosine = torch.cos(torch.deg2rad(inclination))
    return (cosine.square() * (1 - DISC_THICKNESS**2) + DISC_THICKNESS**2).sqrt()
