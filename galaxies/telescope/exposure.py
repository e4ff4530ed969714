"""How galaxies were observed: the scale, blur and noise of each one's exposure, and batches and libraries of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Exposure(NamedTuple):
    """What the telescope did to N galaxies in B bands; every value is known and finite.

    Attributes
    ----------
    pixel_scale : Tensor, (N,), float32
        Arcseconds a pixel.
    psf_fwhm : Tensor, (N, B), float32
        Full width at half maximum of the point-spread function, arcseconds; 0 where nothing blurs.
    noise : Tensor, (N, B), float32
        Standard deviation of the sky, nJy a pixel.
    psfs : Tensor, (N, B, P, P), float32, or None
        The point-spread functions as images on the telescope's pixels, whose response is in them, where they are known
        so; they go before the widths.
    """

    pixel_scale: Tensor
    psf_fwhm: Tensor
    noise: Tensor
    psfs: Tensor | None = None

    def of(self, rows: Tensor) -> Exposure:
        """Return the exposures of some galaxies."""
        psfs = None if self.psfs is None else self.psfs[rows]
        return Exposure(self.pixel_scale[rows], self.psf_fwhm[rows], self.noise[rows], psfs)

    def to(self, device: torch.device) -> Exposure:
        """Return the exposures on a device."""
        return Exposure(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]
