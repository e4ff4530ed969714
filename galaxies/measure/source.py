"""Find the galaxy of each frame: the sky and its noise, the central source's pixels, and those of its neighbours.

Everything is batched over (N, S, S) planes and runs wherever they are. Masks are found, never learned: they carry no
gradient, and what is measured inside them holds them constant.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Geometry in frame widths, so that 64, 128 and 256 px images of a galaxy give the same answers.
_CENTRE_RADIUS = 0.1  # the galaxy's peak is looked for within this distance of the centre
_NEIGHBOUR_RADIUS = 0.25  # a separate peak beyond this distance is a neighbour; nearer, a nucleus or a knot
_SMOOTHING = 1.0 / 64  # standard deviation of the detection kernel
_MASK_SMOOTHING = 2.0 / 64  # standard deviation of the kernel that rounds off the mask's ragged rim
_DETECTION_SIGMA = 3.0  # threshold of the source mask, in standard deviations of the smoothed sky
_SKY_SIGMA_FLOOR = 0.1 / 255  # below this the noise of a smoothed image is only the rounding to 8 bits
_BACKGROUND_SMOOTHING = 3.0 / 64  # standard deviation of the kernel whose image is taken off to see the noise alone
_HIGH_PASS_LOSS = 1.1  # the noise that this takes off with it, for noise that is white before smoothing
_PIXEL_HIGH_PASS_LOSS = 1.013  # the same for noise that was not smoothed: (1 - 2 g(0) + sum g^2)^-1/2, g the kernel
_MIN_AREA = 9.0 / 64**2  # a smaller source is a defect, as a fraction of the frame's area

# Devices on which planes are dilated by pooling, in one kernel; on a CPU that is 20 times slower than comparisons.
_POOLING = frozenset({"cuda"})


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


class Source(NamedTuple):
    """The pixels of the central source of each frame.

    Attributes
    ----------
    mask : Tensor, (N, S, S), bool
        Where it is.
    plateau : Tensor, (N, S, S)
        The level to cut neighbours inside the mask down to; infinite elsewhere.
    neighbours : Tensor, (N, S, S), bool
        Significant light that is not its own, inside and outside the mask.
    missing : Tensor, (N,), bool
        Nothing was found near the centre.
    """

    mask: Tensor
    plateau: Tensor
    neighbours: Tensor
    missing: Tensor


def pixel_grid(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (1, S), along rows, and y (S, 1), down columns, of pixel centres, in pixels from the frame's centre."""
    axis = torch.arange(side, device=like.device, dtype=like.dtype) - (side - 1) / 2
    return axis[None, :], axis[:, None]


def estimate_sky(images: Tensor) -> Sky:
    """Estimate the sky of images (N, 3, S, S) from the frame's corners, where a centred galaxy is faintest.

    The level is the median of the values left after those above median + 3 sigma, the neighbours, are clipped; the
    standard deviations come from the values below the median, which neighbours do not touch. Only the level carries
    a gradient.
    """
    side = images.shape[-1]
    pixels = _corner_pixels(side, images.device)
    level, _ = _clipped_median(images.flatten(2)[..., pixels])  # (N, 3)
    with torch.no_grad():
        # The outskirts of a large galaxy slope across the corners; only what varies from pixel to pixel is noise.
        mean_plane = images.mean(1)
        background = smooth(mean_plane, _BACKGROUND_SMOOTHING)
        smoothed = (smooth(mean_plane) - background).flatten(1)[:, pixels]
        sharp = (mean_plane - background).flatten(1)[:, pixels]
        sigma = (_HIGH_PASS_LOSS * _clipped_median(smoothed)[1]).clamp_min(_SKY_SIGMA_FLOOR)
        noise = _PIXEL_HIGH_PASS_LOSS * _clipped_median(sharp)[1]
    return Sky(level, sigma, noise, _beyond_disc(side, images.device))


def _beyond_disc(side: int, device: torch.device) -> Tensor:
    """Return which pixels (S, S) lie outside the circle that the frame encloses."""
    x, y = pixel_grid(side, torch.empty(0, device=device))
    return x.square() + y.square() > (0.5 * side) ** 2


@functools.lru_cache(maxsize=16)
def _corner_pixels(side: int, device: torch.device) -> Tensor:
    """Return the row-major numbers of the pixels in the frame's corners.

    They are kept, because a list as long as the number of pixels found makes the host wait for a GPU.
    """
    with torch.inference_mode(False):  # a kept tensor may serve where gradients are computed
        return _beyond_disc(side, device).flatten().nonzero()[:, 0]


def _clipped_median(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and standard deviation of the last axis after clipping its bright tail."""
    ordered = values.sort(-1).values
    count = ordered.shape[-1]
    median = ordered[..., count // 2]
    # The 15.87th percentile lies one standard deviation below the median of a normal distribution.
    sigma = (median - ordered[..., int(0.1587 * count)]).clamp_min(_SKY_SIGMA_FLOOR)
    kept = (ordered <= (median + 3 * sigma)[..., None]).sum(-1)
    return ordered.gather(-1, (kept // 2)[..., None])[..., 0], sigma


def smooth(planes: Tensor, width: float = _SMOOTHING) -> Tensor:
    """Convolve (N, S, S) planes with a Gaussian of `width` frame widths, repeating the border.

    Two products with an S x S matrix do this on a CPU five times faster than convolutions.
    """
    side = planes.shape[-1]
    sigma = width * side
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=planes.device)
    kernel = torch.exp(-0.5 * (offsets.to(planes.dtype) / sigma) ** 2)
    target = torch.arange(side, device=planes.device)[:, None]
    columns = (target + offsets).clamp(0, side - 1)  # what lies beyond the border counts as the pixel on it
    matrix = planes.new_zeros(side, side).scatter_add_(1, columns, (kernel / kernel.sum()).expand(side, -1))
    return matrix @ planes @ matrix.T


def find_source(light: Tensor, sky: Sky) -> Source:
    """Find the pixels of the central source in the sky-subtracted mean planes (N, S, S).

    The smoothed image is rebuilt from its central peak downwards (morphological reconstruction by dilation,
    Vincent 1993): each pixel gets the highest level at which it is connected with the peak. Where that level is
    above the threshold, the pixel belongs to the source; where the image stands well above that level, another
    peak begins.
    """
    side = light.shape[-1]
    x, y = pixel_grid(side, light)
    distance = (x.square() + y.square()).sqrt()
    smoothed = smooth(light)
    noise = sky.sigma[:, None, None]
    threshold = _DETECTION_SIGMA * noise

    central = smoothed.masked_fill(distance > _CENTRE_RADIUS * side, -torch.inf).flatten(1)
    peak, where = central.max(1)
    marker = torch.full_like(smoothed, -torch.inf).flatten(1)
    marker = marker.scatter(1, where[:, None], peak[:, None]).view_as(smoothed)
    # Below the threshold nothing needs rebuilding, which also ends the iteration sooner.
    connected = reconstruct(marker, torch.where(smoothed > threshold, smoothed, -torch.inf))

    reached = connected > threshold
    mask = reached & (smooth(reached.to(light.dtype), _MASK_SMOOTHING) > 0.5)  # drops tendrils of noise
    separate = smoothed - connected > torch.maximum(3 * noise, 0.1 * smoothed)
    separate &= (distance > _NEIGHBOUR_RADIUS * side) & mask
    plateau = torch.where(separate, connected, torch.inf)

    area = mask.sum((1, 2))
    missing = (peak <= threshold[:, 0, 0]) | (area < _MIN_AREA * side**2)
    return Source(mask, plateau, separate | ((smoothed > threshold) & ~reached), missing)


def reconstruct(marker: Tensor, ceiling: Tensor) -> Tensor:
    """Dilate `marker` under `ceiling` until nothing changes: each pixel's best path to the marker.

    Parameters
    ----------
    marker, ceiling : Tensor, (N, S, S), of one dtype
        Floating point, or uint8 masks of 0 and 1.

    Returns
    -------
    Tensor, (N, S, S), of the same dtype
    """
    pooled = marker.device.type in _POOLING
    dtype = marker.dtype
    if pooled and not dtype.is_floating_point:
        # CUDA pools no integers. Halves hold those of a byte exactly.
        marker, ceiling = marker.half(), ceiling.half()
    # A CUDA graph has no loop that ends on its own. Paths that turn back so often that they are longer than two
    # sides are rare, and what lies at their ends is faint.
    recording = _is_recorded(marker)
    rebuilt = marker
    for step in range(1, (2 if recording else 4) * marker.shape[-1]):
        grown = torch.minimum(dilate(rebuilt), ceiling)
        # Comparing waits for a GPU, so it is done now and then only.
        if not recording and step % 8 == 0 and torch.equal(grown, rebuilt):
            break
        rebuilt = grown
    return rebuilt.to(dtype)


def _is_recorded(planes: Tensor) -> bool:
    """Tell whether what is done with the planes goes into a CUDA graph."""
    return planes.is_cuda and torch.cuda.is_current_stream_capturing()


def dilate(planes: Tensor) -> Tensor:
    """Return the largest value among each pixel of planes (N, S, S) and its eight neighbours.

    The planes are of any real dtype on a CPU, and of floating point on a GPU.
    """
    if planes.device.type in _POOLING:
        return F.max_pool2d(planes[:, None], 3, stride=1, padding=1)[:, 0]
    wide = planes.clone()
    torch.maximum(wide[:, :, 1:], planes[:, :, :-1], out=wide[:, :, 1:])
    torch.maximum(wide[:, :, :-1], planes[:, :, 1:], out=wide[:, :, :-1])
    grown = wide.clone()
    torch.maximum(grown[:, 1:], wide[:, :-1], out=grown[:, 1:])
    torch.maximum(grown[:, :-1], wide[:, 1:], out=grown[:, :-1])
    return grown
