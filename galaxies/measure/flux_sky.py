"""The sky beneath flux: its slope, level and noise in each band, learned from the frame's corners, whatever the unit.

Bad pixels and stars of any height have no say. There are no floors but multiples of the noise and of the galaxy's own
light, so that images in any unit give the same answers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from galaxies.measure.frame import corner_mask, corner_pixels, kept, outer_pixels, pixel_grid, ring_mask, smooth
from galaxies.measure.sky import DETECTION_SMOOTHING, rising

_BACKGROUND_SMOOTHING = 3.0 / 64  # frame widths; what is smoother than this is background and no noise
_OF_A_SOURCE = 0.3  # part of bright pixels about one, from which on it is a source's: noise is bright here and there
_LEAST_SKY = 0.05  # part of pixels about one that have to show sky
_HIGH_PASS_LOSS = 1.1  # the noise that goes with the background, where it was smoothed before
_FAR = 3  # pixels between those that are compared for the noise, where neighbours share it
_TAIL = 0.973  # of the variance of a normal distribution, within 3 standard deviations
_SHARED_SIGNIFICANT = 4.5  # standard deviations of the correlation of neighbours, from which on noise is not white
_MOST_SHARED = 0.94  # correlation of neighbours: noise that a Gaussian of 2 pixels smoothed
_CLIP_SIGMA = 3.0
_CENTRE_RADIUS = 0.1  # frame widths in which the galaxy's own light is looked at
_NOISE_OF_LIGHT = 1e-4  # least noise of a band, as a part of the galaxy's brightest: images without noise have none
_MEDIAN_ERROR = math.sqrt(math.pi / 2)  # of a median over that of a mean
_SLOPE_SIGNIFICANT = 5.0  # standard deviations of the corners' differences, from which on a sky slopes
_TWIST_SIGNIFICANT = 3.0  # of the difference of the diagonals, from which on it is no plane that the corners show
_TWIST = 0.1  # of the slope's differences; a steep plane need not be an exact one
_LEAST_BLANK = 0.15  # part of corners and ring that the sky is learned from
_LEAST = 1e-18  # nJy a pixel; a frame without light still gets finite ratios


@kept
def _four_corners(side: int, device: torch.device) -> Tensor:
    """Return the row-major numbers (4, P), int64, of the pixels of each corner: top left and right, then bottom."""
    pixels = corner_pixels(side, device)
    below, right = pixels // side >= side / 2, pixels % side >= side / 2
    return torch.stack([pixels[(below == b) & (right == r)] for b in (False, True) for r in (False, True)])


def without_slope(images: Tensor, good: Tensor) -> Tensor:
    """Return images (N, B, S, S) less the plane through the middle of the frame along which their sky slopes.

    The plane is that of the medians of the four corners, each without its bright tail. It is taken off where the
    corners differ by more than the noise lets them, and the two diagonals do not: a galaxy's wings or a star's halo in
    one corner are no plane, and the sky of most frames is flat. Where less than half of a corner is `good` (N, S, S),
    nothing is known of a slope. The plane carries no gradient.
    """
    side = images.shape[-1]
    pixels = _four_corners(side, images.device)
    with torch.no_grad():
        values = images.detach().flatten(2)[..., pixels]  # (N, B, 4, P)
        valid = good.flatten(1)[:, pixels][:, None].expand_as(values)
        level, deviation, count = clipped_median(values, valid)  # (N, B, 4)
        deviation = deviation.mean(2)
        noise = deviation.maximum(_NOISE_OF_LIGHT * _brightest(images.detach() - level.mean(2)[..., None, None]))
        # Noise that neighbouring pixels share is the larger in the mean; white noise has no correlation.
        both = valid[..., 1:] & valid[..., :-1]
        step = values.diff(dim=3).square().clamp_max((2 * _CLIP_SIGMA * deviation.square())[..., None, None])
        steps = step.where(both, 0).sum((2, 3)) / both.sum((2, 3)).clamp_min(1)
        shared = (1 - 0.5 * steps / deviation.square().clamp_min(_LEAST**2)).clamp(0.01, 0.95)
        grain = (math.pi / -shared.log()).clamp_min(1)  # of variance, where correlation falls as a Gaussian
        error = _MEDIAN_ERROR * (grain / count.amin(2).clamp_min(1)).sqrt() * noise.clamp_min(_LEAST)
        top_left, top_right, low_left, low_right = level.unbind(2)
        # (N, B) each, of the standard deviation `error`.
        across = (top_right + low_right - top_left - low_left) / 2
        down = (low_left + low_right - top_left - top_right) / 2
        twist = (top_left + low_right - top_right - low_left) / 2
        squared = across.square() + down.square()
        sloping = squared > (_SLOPE_SIGNIFICANT * error).square()
        sloping &= twist.square() < (_TWIST_SIGNIFICANT * error).square() + _TWIST**2 * squared
        sloping &= 2 * valid.sum(3).amin(2) >= pixels.shape[1]
        x, y = pixel_grid(side, images)
        reach = 2 * x.expand(side, -1).flatten()[pixels[1]].mean()  # between the middles of two corners, pixels
        across, down = ((part / reach).where(sloping, 0)[..., None, None] for part in (across, down))
        plane = across * x + down * y
    return images - plane.where(good[:, None], 0)


def darker_corners(light: Tensor, good: Tensor) -> Tensor:
    """Return the second lowest (N,) of the medians of the four corners of planes (N, S, S), without bright tails.

    A galaxy on edge reaches two corners that lie across from each other. A corner that is mostly not `good` (N, S, S)
    says nothing; where less than two do it is 0.
    """
    pixels = _four_corners(light.shape[-1], light.device)
    level, _, count = clipped_median(light.flatten(1)[:, pixels], good.flatten(1)[:, pixels])
    second = rising(level.masked_fill(2 * count < pixels.shape[1], torch.inf))[:, 1]
    return second.masked_fill(second.isinf(), 0)


class FluxSky(NamedTuple):
    """Level and noise of the sky in N frames of B bands, nJy a pixel.

    Attributes
    ----------
    level : Tensor, (N, B)
        Clipped median; carries a gradient.
    noise : Tensor, (N, B)
        Standard deviation of a pixel.
    shared : Tensor, (N, B)
        Correlation of neighbouring pixels' noise, 0 for white noise.
    used : Tensor, (N,)
        Pixels that the level was learned from.
    """

    level: Tensor
    noise: Tensor
    shared: Tensor
    used: Tensor


def estimate_flux_sky(images: Tensor, good: Tensor) -> FluxSky:
    """Estimate the sky of images (N, B, S, S), finite, from the `good` pixels (N, S, S), bool, of the corners.

    The level is the median of what is left after neighbours, above median + 3 sigma, are clipped; the noise comes from
    `shared_noise`. A corner without a good pixel says nothing; a frame without any has the level 0.
    """
    side = images.shape[-1]
    pixels = corner_pixels(side, images.device)
    valid = good.flatten(1)[:, pixels][:, None].expand(-1, images.shape[1], -1)
    level, deviation, count = clipped_median(images.flatten(2)[..., pixels], valid)
    with torch.no_grad():
        noise, shared = shared_noise(images.detach(), good, level.detach(), deviation)
        brightest = _brightest(images - level[..., None, None])
        noise = noise.maximum(_NOISE_OF_LIGHT * brightest).clamp_min(_LEAST)
    return FluxSky(level, noise, shared, count[:, 0])


def level_beside(images: Tensor, good: Tensor, light: Tensor, ring: Tensor) -> tuple[Tensor, Tensor]:
    """Return the level (N, B) of the sky beside sources that are known, and the pixels (N, S, S), bool, that show it.

    It is the clipped median of corners without the light that was detected in them, which is no sky. Where that leaves
    little, all of the corners count.

    Parameters
    ----------
    images : Tensor, (N, B, S, S)
        Finite.
    good, light : Tensor, (N, S, S), bool
        Pixels that have values, and those in which light was detected.
    ring : Tensor, (N,), bool
        Whether there is nothing but sky in the ring just inside the corners as well, which then tells the level too.
    """
    side, device = images.shape[-1], images.device
    corners = corner_mask(side, device)
    outer = corners | (ring_mask(side, device) & ring[:, None, None])
    blank = good & outer & ~light
    few = blank.sum((1, 2)) < _LEAST_BLANK * outer.sum((1, 2))
    blank = torch.where(few[:, None, None], good & corners, blank)
    pixels = outer_pixels(side, device)
    valid = blank.flatten(1)[:, pixels][:, None].expand(-1, images.shape[1], -1)
    return clipped_median(images.flatten(2)[..., pixels], valid)[0], blank


def shared_noise(images: Tensor, good: Tensor, level: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Return the standard deviation (N, B) of a pixel's noise in the corners, and the correlation of neighbours.

    From pixels less the mean of those a step to either side, in which neither slopes nor faint wings are, for steps of
    one pixel and of three: white noise has the same variance in both. Correlation q is taken to fall as a Gaussian,
    q^(d²) over the distance d, as it does in images that were smoothed, drizzled or resampled; with it the variance is
    6 - 8 q + 2 q⁴ that of a pixel for steps of one.

    Parameters
    ----------
    images : Tensor, (N, B, S, S)
    good : Tensor, (N, S, S), bool
    level, deviation : Tensor, (N, B)
        Of the corners' values; what is farther from the level than 3 deviations is no sky.
    """
    above = images - level[..., None, None]
    inside = (good & corner_mask(images.shape[-1], images.device))[:, None]
    inside = inside & (above.abs() <= (_CLIP_SIGMA * deviation)[..., None, None])
    far, _ = _bends(above, inside, _FAR)
    near, count = _bends(above, inside, 1)
    correlation = torch.linspace(0, _MOST_SHARED, 95, dtype=images.dtype, device=images.device)
    expected = _bend_variance(correlation, 1) / _bend_variance(correlation, _FAR)
    ratio = near / far.clamp_min(_LEAST**2)
    # The first entry, from no correlation on, whose ratio is smaller.
    upper = (ratio[..., None] < expected).sum(-1).clamp(1, len(correlation) - 1)
    high, low = expected[upper - 1], expected[upper]
    part = ((high - ratio) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    shared = correlation[upper - 1] + part * (correlation[upper] - correlation[upper - 1])
    shared = shared.where(shared > _SHARED_SIGNIFICANT / count.clamp_min(1).sqrt(), 0)
    variance = torch.where(shared > 0, far / _bend_variance(shared, _FAR), (near + far) / 12) / _TAIL
    return variance.clamp_min(0).sqrt(), shared


def _bends(images: Tensor, inside: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Return the mean square (N, B) of pixels twice less those a step to either side, and the number of them."""
    squares, count = torch.zeros_like(images[..., 0, 0]), torch.zeros_like(images[..., 0, 0])
    for planes, seen in ((images, inside), (images.mT, inside.mT)):
        bend = 2 * planes[..., step:-step] - planes[..., : -2 * step] - planes[..., 2 * step :]
        whole = seen[..., step:-step] & seen[..., : -2 * step] & seen[..., 2 * step :]
        squares = squares + bend.square().where(whole, 0).sum((2, 3))
        count = count + whole.sum((2, 3))
    return squares / count.clamp_min(1), count


def _bend_variance(shared: Tensor, step: int) -> Tensor:
    """Return the variance of these of noise of variance 1, whose neighbours have the correlation `shared`."""
    return 6 - 8 * shared ** (step**2) + 2 * shared ** (4 * step**2)


def aperture_noise(light: Tensor, good: Tensor, moments: Tensor) -> Tensor:
    """Return the noise (N,), 1 or more, of the light of galaxies of planes (N, S, S), over that of white noise of 1.

    Their size is that of a Gaussian of `moments` (N, 3), xx, yy and xy in pixels².
    """
    pixels = corner_pixels(light.shape[-1], light.device)
    level, deviation, _ = clipped_median(light.flatten(1)[:, pixels], good.flatten(1)[:, pixels])
    noise, shared = shared_noise(light[:, None], good, level[:, None], deviation[:, None])
    area = (moments[:, 0] * moments[:, 1] - moments[:, 2].square()).clamp_min(1e-6).sqrt()
    return (noise[:, 0] * aperture_grain(shared[:, 0], area)).where(shared[:, 0] > 0, 1).clamp_min(1)


def aperture_grain(shared: Tensor, variance: Tensor) -> Tensor:
    """Return by how much the noise (N,) of light under a Gaussian weight is larger than that of white noise.

    Parameters
    ----------
    shared : Tensor, (N,)
        Correlation of neighbouring pixels' noise.
    variance : Tensor, (N,)
        Of the weight along one axis, pixels².
    """
    line = 1 + 2 * torch.stack([shared ** (k**2) for k in range(1, 8)]).sum(0)
    # The correlation q^(d²) is a Gaussian of variance 2 s², s² = -1 / (4 ln q).
    smoothing = -0.25 / shared.clamp(1e-6, 0.999).log()
    return (line.square() * variance / (variance + smoothing)).clamp_min(1).sqrt()


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
    # Stars have no part in it: what is smooth would else be too bright beside them, and the rest too dark.
    bright = (light > _CLIP_SIGMA).to(light.dtype)
    dark = good & (smooth(bright, DETECTION_SMOOTHING) < _OF_A_SOURCE)
    light, weight = light.where(dark, 0).clamp_max(_CLIP_SIGMA), dark.to(light.dtype)
    fine, coarse = (
        smooth(light, width) / smooth(weight, width).clamp_min(_LEAST_SKY)
        for width in (DETECTION_SMOOTHING, _BACKGROUND_SMOOTHING)
    )
    found = _HIGH_PASS_LOSS * clipped_median((fine - coarse).flatten(1)[:, pixels], dark.flatten(1)[:, pixels])[1]
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
