"""Flux as networks like it: an asinh stretch of each band, exactly invertible, with nothing clipped.

Galaxies span factors of thousands in surface brightness. The inverse hyperbolic sine is linear about zero, where noise
rules, and logarithmic above, where light does (Lupton, Gunn & Szalay 1999, AJ 118, 1406).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FULL = 1000.0  # softenings that are stretched to +1; a pixel may well be brighter
_TOP = math.asinh(FULL)
# Stretched values that no image reaches: 22 softenings below the sky, and two million above. What a network draws may.
LIMITS = (-2.0, 3.0)
NOISE_SOFTENING = 2.0  # a band's softening, standard deviations of its typical noise


class AsinhStretch:
    """Stretch flux for networks, and undo it.

    The sky, 0, becomes -1, and `FULL` softenings become +1. Noise about the sky lies on both sides of -1.

    Parameters
    ----------
    softening : Tensor, (B,)
        Flux at which the stretch turns from linear to logarithmic, nJy a pixel; on the device of the images.
    """

    def __init__(self, softening: Tensor) -> None:
        self.softening = softening[:, None, None]

    def __call__(self, flux: Tensor) -> Tensor:
        """Stretch flux (..., B, S, S), nJy a pixel."""
        return stretched(torch.asinh(flux / self.softening))

    def flux(self, images: Tensor) -> Tensor:
        """Return the flux of stretched images (..., B, S, S), nJy a pixel."""
        return torch.sinh(inverse_sine(images)) * self.softening


def stretched(inverse_sine: Tensor) -> Tensor:
    """Return the stretched value of what the inverse hyperbolic sine of flux over softening is."""
    return inverse_sine * (2 / _TOP) - 1


def inverse_sine(images: Tensor) -> Tensor:
    """Return the inverse hyperbolic sine of flux over softening of stretched images."""
    return (images + 1) * (_TOP / 2)
