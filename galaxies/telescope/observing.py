"""Observe light: blur it, let the pixels gather it, and add the noise of sky and photons.

    seen = observe(intrinsic, Psf(fwhm, kolmogorov), pixel_scale, oversampling=2, noise=Noise(sky, photons))
    there = resampled(intrinsic, 0.1, 0.2, 96, Psf(fwhm, kolmogorov))  # any pixels, as many as wanted

Batched, on any device, and differentiable in the light, the widths of the point-spread functions and the noise's
sizes, so that a telescope can stand between what a generator paints and what a discriminator sees (AmbientGAN: Bora,
Price & Dimakis 2018). Nothing waits for the device: it can be recorded in a CUDA graph.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.common.errors import UserError
from galaxies.telescope.waves import Parts, from_waves, to_waves

# How much wider than what is seen the period is after which pictures come again: light beyond comes back at the other
# side, of a point's in the middle what lies farther than this less half a frame.
_MARGIN = 1.25


class Blur(Protocol):
    """What blurs: a `Psf` or `PsfImages`."""

    def applied(self, parts: Parts, frequencies: Tensor, light_scale: Tensor, ratio: Tensor | float) -> Parts:
        """Return blurred waves; see `Psf.applied`."""
        ...

    def highest(self, ratio: float) -> float:
        """Return the frequency, cycles a pixel of the light, from which nothing passes."""
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
    intrinsic : Tensor, (N, B, k S, k S), float32 or float64
        Nanojansky a pixel, k by k pixels for one of the telescope's. Beyond the frame there is no light.
    psf : Psf or PsfImages
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
    Tensor, (N, B, S, S)
        Nanojansky a pixel, sky subtracted; of the type of `intrinsic`.
    """
    side = intrinsic.shape[-1] // oversampling
    scale = _column(pixel_scale, intrinsic) / oversampling
    seen = _seen(intrinsic, scale, float(oversampling), float(oversampling), side, psf)
    return seen if noise is None else noisy(seen, noise, normal)


def resampled(
    light: Tensor,
    light_scale: Tensor | float,
    pixel_scale: Tensor | float,
    side: int,
    psf: Blur,
    *,
    coarsest: float | None = None,
    noise: Noise | None = None,
    normal: Tensor | None = None,
) -> Tensor:
    """Return what a telescope of any pixels sees of light.

    Parameters
    ----------
    light : Tensor, (N, B, L, L), float32 or float64
        Nanojansky a pixel. Beyond the frame there is no light.
    light_scale : Tensor, (N,) or (1,), or float
        Arcseconds a pixel of the light.
    psf : Psf or PsfImages
    pixel_scale : Tensor, (N,) or (1,), or float
        Arcseconds a pixel of the telescope, none below that of the light; where they are equal and nothing blurs, the
        light comes out as it is.
    side : int
        S: pixels of the telescope. The middle of what it sees is the middle of the light.
    coarsest : float, optional
        At least the largest ratio of the scales. Without it they are read, for which a GPU is waited for.
    noise, normal
        As of `observe`.

    Returns
    -------
    Tensor, (N, B, S, S)
        Nanojansky a pixel; of the type of `light`.

    Raises
    ------
    UserError
        If a pixel scale is finer than the light's, which is not looked at with `coarsest`.
    """
    ratio: Tensor | float
    if isinstance(light_scale, Tensor) or isinstance(pixel_scale, Tensor):
        ratio = _column(pixel_scale, light) / _column(light_scale, light)
        finest, coarsest = (1.0, coarsest) if coarsest is not None else (float(ratio.min()), float(ratio.max()))
    else:
        ratio = pixel_scale / light_scale
        finest = coarsest = ratio
    if not finest > 1 - 1e-5:  # NaN is none either
        raise UserError(
            f"pixels {finest:.3g} times as large as those of the light, which holds nothing finer: choose a pixel "
            f"scale of at least the light's{'' if isinstance(light_scale, Tensor) else f', {light_scale:g} arcseconds'}"
        )
    seen = _seen(light, _column(light_scale, light), ratio, coarsest, side, psf)
    return seen if noise is None else noisy(seen, noise, normal)


def _seen(light: Tensor, scale: Tensor, ratio: Tensor | float, coarsest: float, side: int, psf: Blur) -> Tensor:
    """Return the light that pixels gather, `ratio` times as large as its own, which have `scale` (N,) or (1,)."""
    whole = 8 * math.ceil(_MARGIN * max(light.shape[-1], side * coarsest) / 16)  # which matrices are multiplied fast in
    period = 2 * whole - 1  # odd, so that no wave has half a cycle a pixel
    count = math.ceil(period * psf.highest(1.0 if isinstance(ratio, Tensor) else ratio))
    frequencies = torch.arange(count, device=light.device, dtype=light.dtype) / period
    parts = psf.applied(to_waves(light, frequencies), frequencies, scale, ratio)
    return from_waves(parts, frequencies, period, side, ratio)


def _column(scale: Tensor | float, like: Tensor) -> Tensor:
    """Return scales as (N,) or (1,), without a copy from the host that a recorded graph could not repeat."""
    if isinstance(scale, Tensor):
        return scale.detach().to(like.device, like.dtype).reshape(-1)
    return torch.full((1,), scale, device=like.device, dtype=like.dtype)


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
