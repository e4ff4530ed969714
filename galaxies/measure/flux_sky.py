"""The sky beneath flux: its level and its noise in each band, learned from the frame's corners, whatever the unit.

Bad pixels and stars of any height have no say. There are no floors but multiples of the noise and of the galaxy's own
light, so that images in any unit give the same answers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from galaxies.measure.frame import corner_pixels, pixel_grid, smooth
from galaxies.measure.sky import DETECTION_SMOOTHING, rising

_BACKGROUND_SMOOTHING = 3.0 / 64  # frame widths; what is smoother than this is background and no noise
_HIGH_PASS_LOSS = 1.1  # the noise that goes with the background, where it was smoothed before
_PIXEL_HIGH_PASS_LOSS = 1.013  # the same for white noise that was not
_CLIP_SIGMA = 3.0
_CENTRE_RADIUS = 0.1  # frame widths in which the galaxy's own light is looked at
_NOISE_OF_LIGHT = 1e-4  # least noise of a band, as a part of the galaxy's brightest: images without noise have none
_LEAST = 1e-18  # nJy a pixel; a frame without light still gets finite ratios


class FluxSky(NamedTuple):
    """Level and noise of the sky in N frames of B bands, nJy a pixel.

    Attributes
    ----------
    level : Tensor, (N, B)
        Clipped median; carries a gradient.
    noise : Tensor, (N, B)
        Standard deviation from pixel to pixel.
    used : Tensor, (N,)
        Pixels that the level was learned from.
    """

    level: Tensor
    noise: Tensor
    used: Tensor


def estimate_flux_sky(images: Tensor, good: Tensor) -> FluxSky:
    """Estimate the sky of images (N, B, S, S), finite, from the `good` pixels (N, S, S), bool, of the corners.

    The level is the median of what is left after neighbours, above median + 3 sigma, are clipped; the noise comes from
    the values below the median, after what is smooth over 3/64 of the frame was taken off. A corner without a good
    pixel says nothing; a frame without any has the level 0.
    """
    side = images.shape[-1]
    pixels = corner_pixels(side, images.device)
    valid = good.flatten(1)[:, pixels][:, None].expand(-1, images.shape[1], -1)
    level, deviation, count = clipped_median(images.flatten(2)[..., pixels], valid)
    with torch.no_grad():
        top = (level + _CLIP_SIGMA * deviation)[..., None, None]
        # A star ends three standard deviations above the sky; else it would spoil the noise of a whole corner.
        flat = torch.where(good[:, None], images.detach(), level.detach()[..., None, None]).minimum(top)
        background = smooth(flat.flatten(0, 1), _BACKGROUND_SMOOTHING).view_as(flat)
        noise = _PIXEL_HIGH_PASS_LOSS * clipped_median((flat - background).flatten(2)[..., pixels], valid)[1]
        brightest = _brightest(images - level[..., None, None])
        noise = noise.maximum(_NOISE_OF_LIGHT * brightest).clamp_min(_LEAST)
    return FluxSky(level, noise, count[:, 0])


def _brightest(images: Tensor) -> Tensor:
    """Return the brightest pixel (N, B) near the centre, 0 where none is above 0."""
    side = images.shape[-1]
    x, y = pixel_grid(side, images)
    central = x.square() + y.square() <= (_CENTRE_RADIUS * side) ** 2
    return images.where(central, 0).amax((2, 3))


def smoothed_noise(light: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
    """Return the standard deviation (N,) of the sky of planes (N, S, S) after smoothing with the detection kernel.

    The planes are in units of their noise. White noise has a known answer, below which none is taken; that of
    drizzled or resampled images is correlated and larger. Returned as well is by which factor (N,), 1 or more.
    """
    side = light.shape[-1]
    pixels = corner_pixels(side, light.device)
    light = light.where(good, 0).clamp_max(_CLIP_SIGMA)
    fine = smooth(light, DETECTION_SMOOTHING) - smooth(light, _BACKGROUND_SMOOTHING)
    found = _HIGH_PASS_LOSS * clipped_median(fine.flatten(1)[:, pixels], good.flatten(1)[:, pixels])[1]
    # A Gaussian of more than a pixel leaves 1 / (2 sqrt(pi) sigma) of white noise; a narrow one hardly smooths.
    white = (1 + 4 * math.pi * (DETECTION_SMOOTHING * side) ** 2) ** -0.5
    sigma = found.clamp_min(white)
    return sigma, sigma / white


def clipped_median(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return median, standard deviation and count of the `valid` values of the last axis, its bright tail clipped.

    Only the median carries a gradient. Where nothing is valid all are 0.
    """
    ordered = rising(values.masked_fill(~valid, torch.inf))
    count = valid.sum(-1, keepdim=True)
    last = (count - 1).clamp_min(0)

    def at(part: Tensor) -> Tensor:
        return ordered.gather(-1, part.clamp(max=last)).nan_to_num(0.0, 0.0, 0.0)

    median = at(count // 2)
    # The 15.87th percentile lies one standard deviation below the median of a normal distribution.
    deviation = median - at((0.1587 * count).long())
    kept = (ordered <= median + _CLIP_SIGMA * deviation).sum(-1, keepdim=True)
    clipped = at(kept // 2)
    if values.requires_grad and torch.is_grad_enabled():
        # The same number, from one of the pixels that have it, so that this pixel gets the gradient.
        same = (values == clipped) & valid
        clipped = torch.where(count > 0, values.gather(-1, same.to(torch.uint8).argmax(-1, keepdim=True)), 0)
    return clipped[..., 0], deviation[..., 0], kept[..., 0]
