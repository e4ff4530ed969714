"""The sky of a frame: its level and its noise, learned from the corners, where a centred galaxy is faintest.

There are two estimates, because they are asked different things. Photometry subtracts `estimate_sky` from each galaxy:
its level is a clipped median, which a neighbour in a corner does not move, its noise is the threshold of the source's
mask, and both are found in the millisecond that a step of training has for them. The report and the grain compare the
skies of two sets of images by `sky_level` and `measure_noise`: a median of 8-bit values comes in whole grey levels, and
sets differ by less than one; there the rounding has to average out, for each plane alone, and time does not count.

Two places estimate the sky on their own. `with_statmorph` shall share nothing with what it checks, and
`networks.sky_grain.sky_place` is part of released networks, whose pictures would change with it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from galaxies.measure.frame import check_images, corner_mask, corner_pixels, gaussian_matrix, smooth

# Geometry in frame widths, so that 64, 128 and 256 px images of a galaxy give the same answers.
DETECTION_SMOOTHING = 1.0 / 64  # standard deviation of the kernel that sources are detected after
_BACKGROUND_SMOOTHING = 3.0 / 64  # standard deviation of the kernel whose image is taken off to see the noise alone
_SKY_SIGMA_FLOOR = 0.1 / 255  # below this the noise of a smoothed image is only the rounding to 8 bits
_HIGH_PASS_LOSS = 1.1  # the noise that this takes off with it, for noise that is white before smoothing
_PIXEL_HIGH_PASS_LOSS = 1.013  # the same for noise that was not smoothed: (1 - 2 g(0) + sum g^2)^-1/2, g the kernel

_SOURCE_SIGMA = 4.0  # pixels of the corners that stand out by more are no sky
_CLIP_SIGMA = 3.0
_ROUNDING = 0.5 / 255  # display units; noise cannot be told from the rounding to 8 bits below this
_SIGMA_FLOOR = 0.01 / 255  # a frame without noise still gets finite ratios


class Sky(NamedTuple):
    """What the corners of a frame say about its sky; display units.

    Attributes
    ----------
    level : Tensor, (N, 3)
        Of each plane.
    sigma : Tensor, (N,)
        Standard deviation of the mean plane after smoothing with the detection kernel.
    noise : Tensor, (N,)
        Standard deviation of the mean plane from pixel to pixel.
    corners : Tensor, (S, S), bool
        The pixels that it was learned from.
    """

    level: Tensor
    sigma: Tensor
    noise: Tensor
    corners: Tensor


def estimate_sky(images: Tensor, counts: bool = False) -> Sky:
    """Estimate the sky of images (N, 3, S, S), floating point in [0, 1], that photometry stands on.

    With `counts` they are those of `level_counts`. A star can be a million times brighter than their noise, where in a
    display it is a hundred times at most; so that it does not spoil the noise of a whole corner, the noise is learned
    from an image that ends three standard deviations above its sky.

    The level is the median of the values left after those above median + 3 sigma, the neighbours, are clipped; the
    standard deviations come from the values below the median, which neighbours do not touch. Only the level carries
    a gradient.
    """
    side = images.shape[-1]
    pixels = corner_pixels(side, images.device)
    level, _ = _clipped_median(images.flatten(2)[..., pixels])  # (N, 3)
    with torch.no_grad():
        # The outskirts of a large galaxy slope across the corners; only what varies from pixel to pixel is noise.
        mean_plane = images.mean(1)
        if counts:
            median, deviation = _clipped_median(mean_plane.flatten(1)[:, pixels])
            mean_plane = mean_plane.minimum((median + _CLIP_SIGMA * deviation)[:, None, None])
        background = smooth(mean_plane, _BACKGROUND_SMOOTHING)
        smoothed = (smooth(mean_plane, DETECTION_SMOOTHING) - background).flatten(1)[:, pixels]
        sharp = (mean_plane - background).flatten(1)[:, pixels]
        sigma = (_HIGH_PASS_LOSS * _clipped_median(smoothed)[1]).clamp_min(_SKY_SIGMA_FLOOR)
        noise = _PIXEL_HIGH_PASS_LOSS * _clipped_median(sharp)[1]
    return Sky(level, sigma, noise, corner_mask(side, images.device))


def _clipped_median(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and standard deviation of the last axis after clipping its bright tail."""
    ordered = rising(values)
    count = ordered.shape[-1]
    median = ordered[..., count // 2]
    # The 15.87th percentile lies one standard deviation below the median of a normal distribution.
    sigma = (median - ordered[..., int(0.1587 * count)]).clamp_min(_SKY_SIGMA_FLOOR)
    kept = (ordered <= (median + 3 * sigma)[..., None]).sum(-1)
    clipped = ordered.gather(-1, (kept // 2)[..., None])  # (..., 1)
    if values.requires_grad and torch.is_grad_enabled():
        # The same number, from one of the pixels that have it, so that this pixel gets the gradient.
        clipped = values.gather(-1, (values == clipped).to(torch.uint8).argmax(-1, keepdim=True))
    return clipped[..., 0], sigma


def rising(values: Tensor) -> Tensor:
    """Return values sorted along the last axis, without a gradient."""
    values = values.detach()
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        # Sixty times faster than PyTorch's, which also sorts the positions.
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(-1).values


def sky_level(images: Tensor) -> Tensor:
    """Return the level of the sky in each plane, (N, 3), in the units of the images.

    It is the mean of the middle half of the values in the frame's corners (beyond half a frame width from the
    centre), so that neighbours do not count and the rounding to 8 bits averages out. The outskirts of a galaxy that
    fills the frame do count.
    """
    pixels = corner_pixels(check_images(images).shape[-1], images.device)
    values = images.flatten(2)[..., pixels].sort(-1).values
    count = values.shape[-1]
    return values[..., count // 4 : count - count // 4].mean(-1)


class Noise(NamedTuple):
    """Noise of the sky in N images.

    Attributes
    ----------
    level : Tensor, (N, 3)
        Standard deviation from pixel to pixel in each plane, display units. What varies over more than about 3/64 of
        the frame is background and taken off; neighbours are left out. White noise is recovered without bias, noise
        that is correlated over several pixels comes out too low.
    correlation : Tensor, (N,)
        Between adjacent pixels, in the mean of the planes: 1 - D / (2 sigma^2), with D the mean square difference of
        pixels that share an edge and sigma the standard deviation as above. 0 for white noise, towards 1 for noise that
        was smoothed or drawn smooth, below 0 for noise that was sharpened. As lag and pixel are one, it depends on the
        number of pixels a frame has.
    grayness : Tensor, (N,)
        Mean correlation between the planes: 0 for independent ones, as three separate exposures have; 1 where the noise
        is gray. JPEG files keep color on a coarser grid than brightness, which makes fine noise grayer.
    """

    level: Tensor
    correlation: Tensor
    grayness: Tensor


def measure_noise(images: Tensor) -> Noise:
    """Measure the noise of the sky in images (N, 3, S, S), floating point in [0, 1]."""
    noise, sky = _noise(images)
    deviations = _clipped_std(noise)
    gray = images.mean(1)
    across = gray.diff(dim=2).masked_fill(~(sky[:, :, 1:] & sky[:, :, :-1]), torch.inf)
    down = gray.diff(dim=1).masked_fill(~(sky[:, 1:] & sky[:, :-1]), torch.inf)
    corners = corner_mask(images.shape[-1], images.device)
    pairs = [across[:, corners[:, 1:] & corners[:, :-1]], down[:, corners[1:] & corners[:-1]]]
    correlation = 1 - 0.5 * (_clipped_std(torch.cat(pairs, 1)) / deviations[:, 3]).square()
    red, green, blue, mean = deviations.unbind(1)
    # The variance of a mean of three is a ninth of all variances and covariances.
    covariances = (9 * mean.square() - red.square() - green.square() - blue.square()) / 2
    return Noise(deviations[:, :3], correlation, covariances / (red * green + green * blue + blue * red))


def plane_correlations(images: Tensor) -> Tensor:
    """Measure how far two planes share their noise in images (N, 3, S, S), floating point in [0, 1].

    Returns
    -------
    Tensor, (N, 3)
        Correlation of the noise in R and G, G and B, B and R, by that of their sums; -1 to 1.
    """
    planes = _noise(images)[0][:, :3]
    others = planes.roll(-1, 1)
    deviations = _clipped_std(planes)
    products = deviations * deviations.roll(-1, 1)
    sums = _clipped_std(planes + others).square() - deviations.square() - deviations.roll(-1, 1).square()
    return (sums / (2 * products)).clamp(-1, 1)


def _noise(images: Tensor) -> tuple[Tensor, Tensor]:
    """Take the local background off the sky in the corners, and make up for the noise that goes with it.

    Returns the noise in R, G, B and their mean, (N, 4, P), infinite where a source is, and the mask of what is sky,
    (N, S, S).
    """
    planes = torch.cat([check_images(images), images.mean(1, keepdim=True)], 1)  # (N, 4, S, S)
    side = images.shape[-1]
    pixels = corner_pixels(side, images.device)
    ordered = rising(planes[:, 3].flatten(1)[:, pixels])
    count = ordered.shape[-1]
    median = ordered[:, count // 2]
    # The 15.87th percentile lies one standard deviation below the median of a normal distribution; sources do not
    # reach down there.
    sigma = (median - ordered[:, int(0.1587 * count)]).clamp_min(_ROUNDING)
    sky = planes[:, 3] < (median + _SOURCE_SIGMA * sigma)[:, None, None]

    kernel = gaussian_matrix(side, _BACKGROUND_SMOOTHING, images, repeat_border=False)
    weight = (kernel @ sky.to(planes) @ kernel).clamp_min(1e-6)  # what is left of the kernel where sources are cut out
    background = (kernel @ (planes * sky[:, None]) @ kernel) / weight[:, None]
    # White noise less its local mean keeps 1 - 2 g(0) + sum g^2 of its variance, g the kernel scaled to the sum 1.
    squares = kernel.square() @ sky.to(planes) @ kernel.square()
    kept = (1 - 2 / weight + squares / weight.square()).clamp_min(0.1)
    noise = ((planes - background) / kept.sqrt()[:, None]).masked_fill(~sky[:, None], torch.inf)
    return noise.flatten(2)[..., pixels], sky


def _clipped_std(values: Tensor) -> Tensor:
    """Return the standard deviation about 0 of the last axis, of what lies within 3 sigma.

    The clipping starts from a median, which moves in steps where values are 8-bit; rounds of means smooth it out.
    """
    offsets = values.abs()
    sigma = (1.4826 * offsets.median(-1, keepdim=True).values).clamp(_ROUNDING, 1)
    # The part of a normal distribution's variance that lies within the clipping limit.
    within = math.erf(_CLIP_SIGMA / math.sqrt(2))
    kept_variance = 1 - 2 * _CLIP_SIGMA * math.exp(-0.5 * _CLIP_SIGMA**2) / math.sqrt(2 * math.pi) / within
    for _ in range(4):
        kept = offsets <= _CLIP_SIGMA * sigma
        squares = offsets.square().where(kept, 0).sum(-1, keepdim=True)
        sigma = (squares / kept.sum(-1, keepdim=True).clamp_min(1) / kept_variance).sqrt().clamp_min(_SIGMA_FLOOR)
    return sigma[..., 0]
