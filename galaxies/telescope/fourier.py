"""Frequencies of pixel grids, on which a blur is a multiplication and a cusp is exact (GalSim; Rowe et al. 2015, s. 6).

Lengths are arcseconds; x runs along rows and y down columns; angles count from +x towards +y.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class FourierGrid:
    """Frequencies of a grid's real Fourier transform: `x` (N, 1, K) and `y` (N, W, 1), cycles an arcsecond.

    Parameters
    ----------
    side : int
        Pixels a side, W, an even number; K is W / 2 + 1.
    pixel_scale : Tensor, (N,), float32
        Arcseconds a pixel; one number does for many images that share it.
    """

    def __init__(self, side: int, pixel_scale: Tensor) -> None:
        device = pixel_scale.device
        scale = pixel_scale[:, None, None]
        self.side = side
        self.pixel_scale = pixel_scale
        self.x = torch.fft.rfftfreq(side, device=device)[None, None, :] / scale
        self.y = torch.fft.fftfreq(side, device=device)[None, :, None] / scale
        self.radius_squared = self.x.square() + self.y.square()
        # What lies at the grid's centre lies half a grid from where the transform has its origin.
        centre = (side - 1) / 2 * pixel_scale
        self.origin = self.shift(centre, centre)

    def shift(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the phases that move an image by (x, y) arcseconds, (N,) each."""
        angle = -2 * math.pi * (self.x * x[:, None, None] + self.y * y[:, None, None])
        return torch.polar(torch.ones_like(angle), angle)

    def turned(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Return frequencies along and across an axis at `angle` (N,)."""
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        return cos * self.x + sin * self.y, cos * self.y - sin * self.x

    def gaussian(self, sigma: Tensor) -> Tensor:
        """Return the transform of a Gaussian of unit light and standard deviation `sigma` (N,), arcseconds."""
        return torch.exp(-2 * math.pi**2 * sigma.square()[:, None, None] * self.radius_squared)

    def square(self) -> Tensor:
        """Return the transform of a pixel of unit light, (N, W, K): what integrating over pixels multiplies by."""
        scale = self.pixel_scale[:, None, None]
        return torch.sinc(self.x * scale) * torch.sinc(self.y * scale)

    def image(self, transform: Tensor) -> Tensor:
        """Transform back to pixels."""
        return torch.fft.irfft2(transform, s=(self.side, self.side))


def fft_size(pixels: int) -> int:
    """Return an even size, at least a fifth larger than a frame, that the fast Fourier transform likes."""
    size = math.ceil(1.2 * pixels / 2) * 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2
