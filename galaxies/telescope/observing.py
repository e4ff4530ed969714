"""Observe light: blur it, let the pixels gather it, and add the noise of sky and photons.

    seen = observe(intrinsic, Psf(fwhm, kolmogorov), pixel_scale, noise=Noise(sky, photons))

Batched, on any device, and differentiable in the light, the widths of the point-spread functions and the noise's
sizes, so that a telescope can stand between what a generator paints and what a discriminator sees (AmbientGAN: Bora,
Price & Dimakis 2018).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.telescope.fourier import FourierGrid, fft_size


class Blur(Protocol):
    """What blurs: a `Psf` or `PsfImages`."""

    def transfer(self, field: FourierGrid) -> Tensor:
        """Return transfer functions (N or 1, B, W, K)."""
        ...


class Noise(NamedTuple):
    """Sizes of the noise of an exposure, (N, B), (1, B) or (B,) each.

    sky: standard deviation, nanojansky a pixel, where there is no source. photons: the variance that a source adds,
    nanojansky squared a nanojansky, which is one over the electrons of a nanojansky; 0 leaves it out.
    """

    sky: Tensor
    photons: Tensor


def observe(
    intrinsic: Tensor,
    psf: Blur,
    pixel_scale: Tensor | float,
    *,
    oversampling: int = 1,
    noise: Noise | None = None,
    normal: Tensor | None = None,
) -> Tensor:
    """Return what a telescope sees of light.

    Parameters
    ----------
    intrinsic : Tensor, (N, B, k S, k S), float32
        Nanojansky a pixel, k by k pixels for one of the telescope's. Beyond the frame there is no light.
    psf : Psf or PsfImages
        `PsfImages` are on the pixels of `intrinsic`.
    pixel_scale : Tensor, (N,) or (1,), or float
        Arcseconds a pixel of the telescope.
    oversampling : int
        k, at least 1.
    noise : Noise, optional
        Without it, the picture has none.
    normal : Tensor, (N, B, S, S), optional
        Standard normal numbers that the noise is made of; by default fresh ones.

    Returns
    -------
    Tensor, (N, B, S, S), float32
        Nanojansky a pixel, sky subtracted.
    """
    side = intrinsic.shape[-1]
    scale = torch.as_tensor(pixel_scale, dtype=torch.float32, device=intrinsic.device).reshape(-1) / oversampling
    field = FourierGrid(fft_size(side), scale)
    spectrum = torch.fft.rfft2(intrinsic, s=(field.side, field.side))  # with an empty margin, for it is periodic
    blurred = field.image(spectrum * psf.transfer(field))[..., :side, :side]
    seen = gathered(blurred, oversampling)
    return seen if noise is None else noisy(seen, noise, normal)


def gathered(images: Tensor, oversampling: int) -> Tensor:
    """Return the light (N, B, S, S) that a telescope's pixels gather of images (N, B, k S, k S)."""
    return F.avg_pool2d(images, oversampling) * oversampling**2 if oversampling > 1 else images


def noisy(images: Tensor, noise: Noise, normal: Tensor | None = None) -> Tensor:
    """Add the noise of sky and photons to images (N, B, S, S), nanojansky a pixel.

    A normal distribution has the place of Poisson's, which it is close to where a pixel has tens of electrons, as the
    sky alone gives in every survey here, and which has no gradient.
    """
    normal = torch.randn_like(images) if normal is None else normal
    variance = noise.sky[..., None, None].square() + noise.photons[..., None, None] * images.clamp_min(0)
    return images + normal * variance.sqrt()
