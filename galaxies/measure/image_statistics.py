"""Statistics of an image beyond its photometry.

Everything is batched, runs wherever the images are, and draws no random numbers. The statistics describe what
photometry leaves out: the sky around the galaxy, its noise, and how much structure there is on which scale.

The pictures are asinh-stretched composites, so levels and noise are in display units (0 to 1), not in counts.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_POWER_BINS = 10  # half octaves of spatial frequency, from 1 to 32 cycles a frame
POWER_BANDS = {
    "very_low": (0, 3),
    "low": (3, 6),
    "mid": (6, 8),
    "high": (8, 10),
}  # first bin, and the bin after the last

_BACKGROUND_SMOOTHING = 3.0 / 64  # standard deviation of the kernel that tells background from noise, frame widths
_SOURCE_SIGMA = 4.0  # pixels of the corners that stand out by more are no sky
_CLIP_SIGMA = 3.0
_ROUNDING = 0.5 / 255  # display units; noise cannot be told from the rounding to 8 bits below this
_SIGMA_FLOOR = 0.01 / 255  # a frame without noise still gets finite ratios
_POWER_FLOOR = 1e-12  # far below the rounding to 8 bits, which spreads 1.3e-6 over all frequencies


def image_statistics(images: Tensor) -> dict[str, Tensor]:
    """Return the scalar statistics of each image, by name.

    Parameters
    ----------
    images : Tensor, (N, 3, S, S), floating point in [0, 1]

    Returns
    -------
    dict of Tensor, (N,)
        ``sky_red``, ``sky_green``, ``sky_blue``: see `sky_level`.
        ``noise_red``, ``noise_green``, ``noise_blue``, ``noise_correlation``, ``noise_grayness``: see `Noise`.
        ``power_very_low``, ``power_low``, ``power_mid``, ``power_high``: see `band_power`.
        Always finite, also for blank frames.
    """
    statistics = {}
    noise = measure_noise(images)
    for name, planes in (("sky", sky_level(images)), ("noise", noise.level)):
        statistics |= {f"{name}_{color}": planes[:, i] for i, color in enumerate(("red", "green", "blue"))}
    statistics |= {"noise_correlation": noise.correlation, "noise_grayness": noise.grayness}
    bands = band_power(power_spectrum(images))
    return statistics | {f"power_{name}": bands[:, i] for i, name in enumerate(POWER_BANDS)}


def sky_level(images: Tensor) -> Tensor:
    """Return the level of the sky in each plane, (N, 3), in display units.

    It is the mean of the middle half of the values in the frame's corners (beyond half a frame width from the
    centre), so that neighbours do not count and the rounding to 8 bits averages out. The outskirts of a galaxy that
    fills the frame do count.
    """
    values = _check(images)[:, :, _corners(images)].sort(-1).values
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
    corners = _corners(images)
    pairs = [across[:, corners[:, 1:] & corners[:, :-1]], down[:, corners[1:] & corners[:-1]]]
    correlation = 1 - 0.5 * (_clipped_std(torch.cat(pairs, 1)) / deviations[:, 3]).square()
    red, green, blue, mean = deviations.unbind(1)
    # The variance of a mean of three is a ninth of all variances and covariances.
    covariances = (9 * mean.square() - red.square() - green.square() - blue.square()) / 2
    return Noise(deviations[:, :3], correlation, covariances / (red * green + green * blue + blue * red))


def power_spectrum(images: Tensor) -> Tensor:
    """Return the decimal logarithm of the radially averaged power spectrum, (N, `NUM_POWER_BINS`).

    The mean of the planes, less its mean, is multiplied by a Hann window; its power is scaled so that the sum over
    all frequencies is the variance under the window, and averaged over rings of spatial frequency. Bin i covers
    2^(i/2) to 2^((i+1)/2) cycles a frame, whatever the number of pixels, so the same galaxy gives the same spectrum
    at 64, 128 and 256 pixels. Brightness counts: light scaled by 10 adds 2.
    """
    side = _check(images).shape[-1]
    if side < 64:
        raise ValueError(f"images must have at least 64 pixels a side to hold 32 cycles, not {side}")
    window = torch.hann_window(side + 1, periodic=False, dtype=torch.float64)
    window = ((window[1:] + window[:-1]) / 2).to(images)  # at the pixels' centres, so that turned images stay equal
    window = window[:, None] * window
    light = images.mean(1)
    light = light - (light * window).sum((1, 2), keepdim=True) / window.sum()
    spectrum = torch.fft.fft2(light * window).abs().square() / (side**2 * window.square().sum())

    cycles = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    radius = torch.hypot(cycles[:, None], cycles)
    # A hair wider below, so that 1, 2, 4, ... cycles never fall out of their bin by rounding.
    ring = torch.floor(2 * torch.log2(radius.clamp_min(0.1)) + 1e-9).long()
    inside = (ring >= 0) & (ring < NUM_POWER_BINS)
    ring = ring[inside].to(images.device)
    power = spectrum[:, inside.to(images.device)]
    sums = power.new_zeros(len(images), NUM_POWER_BINS).index_add_(1, ring, power)
    return torch.log10(sums / torch.bincount(ring, minlength=NUM_POWER_BINS) + _POWER_FLOOR)


def band_power(spectrum: Tensor) -> Tensor:
    """Reduce `power_spectrum` (N, `NUM_POWER_BINS`) to the mean logarithm in each of `POWER_BANDS`, (N, 4).

    Very low: 1 to 2.8 cycles a frame, the galaxy as a whole; low: to 8, its body; mid: to 16, arms, nuclei and
    neighbours; high: to 32, the finest detail of 64 pixels and the noise.
    """
    return torch.stack([spectrum[:, first:end].mean(1) for first, end in POWER_BANDS.values()], 1)


def _check(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must have the shape (N, 3, S, S), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must hold floating-point values in [0, 1], not {images.dtype}")
    return images


def _corners(images: Tensor) -> Tensor:
    """Return the mask (S, S) of the pixels outside the circle that touches the frame's edges."""
    side = images.shape[-1]
    axis = torch.arange(side, device=images.device) - (side - 1) / 2
    return axis.square()[:, None] + axis.square() > (0.5 * side) ** 2


def _noise(images: Tensor) -> tuple[Tensor, Tensor]:
    """Take the local background off the sky in the corners, and make up for the noise that goes with it.

    Returns the noise in R, G, B and their mean, (N, 4, P), infinite where a source is, and the mask of what is sky,
    (N, S, S).
    """
    planes = torch.cat([_check(images), images.mean(1, keepdim=True)], 1)  # (N, 4, S, S)
    corners = _corners(images)
    ordered = planes[:, 3, corners].sort(-1).values
    count = ordered.shape[-1]
    median = ordered[:, count // 2]
    # The 15.87th percentile lies one standard deviation below the median of a normal distribution; sources do not
    # reach down there.
    sigma = (median - ordered[:, int(0.1587 * count)]).clamp_min(_ROUNDING)
    sky = planes[:, 3] < (median + _SOURCE_SIGMA * sigma)[:, None, None]

    side = images.shape[-1]
    axis = torch.arange(side, device=images.device, dtype=images.dtype)
    # A Gaussian kernel, cut off at the frame's edges, as a matrix: two products smooth a plane.
    kernel = torch.exp(-0.5 * ((axis[:, None] - axis) / (_BACKGROUND_SMOOTHING * side)) ** 2)
    weight = (kernel @ sky.to(planes) @ kernel).clamp_min(1e-6)  # what is left of the kernel where sources are cut out
    background = (kernel @ (planes * sky[:, None]) @ kernel) / weight[:, None]
    # White noise less its local mean keeps 1 - 2 g(0) + sum g^2 of its variance, g the kernel scaled to the sum 1.
    squares = kernel.square() @ sky.to(planes) @ kernel.square()
    kept = (1 - 2 / weight + squares / weight.square()).clamp_min(0.1)
    noise = ((planes - background) / kept.sqrt()[:, None]).masked_fill(~sky[:, None], torch.inf)
    return noise[:, :, corners], sky


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


def diversity(images: Tensor) -> float:
    """Return the mean distance between pairs of images (N, 3, S, S) uint8, after pooling them to 16 x 16."""
    small = F.adaptive_avg_pool2d(images.float() / 255, 16).flatten(1)
    return float(torch.pdist(small).mean()) if len(images) > 1 else math.nan
