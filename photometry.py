"""Measure galaxies on display images: size, surface brightness, ellipticity, concentration, colour.

Everything is batched and runs wherever the images are. The source mask is found first and held constant; the
measurements inside it are differentiable in the pixel values, so that a loss can be built on them. No weights are
learned here: what this file measures cannot be pleased, only met.

The pictures are asinh-stretched composites, so "light" below means display light (0 to 1), not physical flux.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from config_physics import PHOTOMETRIC_ATTRIBUTES

NO_SOURCE = 1  # nothing significant near the centre; the values mean nothing
TOUCHES_EDGE = 2  # the frame's outermost pixels hold a noticeable part of the light; the size is a lower limit
FLAG_BITS = {NO_SOURCE: "no source near the centre", TOUCHES_EDGE: "the source touches the edge of the frame"}

# Geometry in frame widths, so that 64, 128 and 256 px images of a galaxy give the same answers.
_CENTRE_RADIUS = 0.1  # the galaxy's peak is looked for within this distance of the centre
_NEIGHBOUR_RADIUS = 0.25  # a separate peak beyond this distance is a neighbour; nearer, a nucleus or a knot
_SMOOTHING = 1.0 / 64  # standard deviation of the detection kernel
_MASK_SMOOTHING = 2.0 / 64  # standard deviation of the kernel that rounds off the mask's ragged rim
_DETECTION_SIGMA = 3.0  # threshold of the source mask, in standard deviations of the smoothed sky
_SKY_SIGMA_FLOOR = 0.1 / 255  # below this the noise of a smoothed image is only the rounding to 8 bits
_BACKGROUND_SMOOTHING = 3.0 / 64  # standard deviation of the kernel whose image is taken off to see the noise alone
_HIGH_PASS_LOSS = 1.1  # the noise that this takes off with it, for noise that is white before smoothing
_DEFECT_LIGHT = 0.5  # a pixel that holds more than this part of the light is a defect and no galaxy
_EDGE_LIGHT = 0.0025  # part of the light in the outermost pixels from which on the galaxy is called cut off
_MIN_AREA = 9.0 / 64**2  # a smaller source is a defect, as a fraction of the frame's area


def measure(images: Tensor) -> dict[str, Tensor]:
    """Measure the central galaxy of each image.

    Parameters
    ----------
    images : Tensor, (N, 3, S, S), floating point in [0, 1]
        Display images, planes R, G, B.

    Returns
    -------
    dict of Tensor, (N,)
        ``size``: radius of the circle about the centroid that holds half the source's light, frame widths.
        ``brightness``: mean display surface brightness within it, above the sky, 0 to 1.
        ``ellipticity``: 1 - b/a from second moments.
        ``concentration``: 5 log10(r80 / r20) (Conselice 2003, eq. 5, here of display light).
        ``color``: -2.5 log10(blue light / red light), magnitudes.
        ``light``: total display light of the source, in pixels times display units.
        ``centroid_x``, ``centroid_y``: offset from the frame's centre, frame widths.
        ``position_angle``: of the major axis, degrees in [0, 180), counted from +x towards +y (down the rows).
        ``flag``: int64 sum of `FLAG_BITS`; 0 is a good measurement.
        Values are always finite, also for blank frames.

    Raises
    ------
    ValueError
        If the images do not have three square planes of floating-point values.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must have the shape (N, 3, S, S), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must hold floating-point values in [0, 1], not {images.dtype}")
    side = images.shape[-1]
    sky_level, sky_sigma, corners = _sky(images)
    planes = images - sky_level[:, :, None, None]  # (N, 3, S, S)
    light = planes.mean(1)  # (N, S, S)

    with torch.no_grad():
        mask, plateau, no_source = _source_mask(light, corners, sky_sigma)
    # A neighbour that stands on the galaxy's outskirts is cut down to the level at which they meet.
    is_neighbour = plateau < light
    planes = torch.where((is_neighbour & mask)[:, None], torch.minimum(planes, plateau[:, None]), planes)
    planes = planes * mask[:, None]
    light = planes.mean(1)  # negative noise stays: clipping it would add light where there is none

    x, y = _pixel_grid(side, images)
    total = light.sum((1, 2)).clamp_min(1e-6)
    # Light that nearly cancels has its centroid anywhere; one in the outer half of the frame is none of a galaxy.
    centroid_x, centroid_y = ((light * axis).sum((1, 2)) / total for axis in (x, y))
    no_source |= torch.maximum(centroid_x.abs(), centroid_y.abs()) > side / 4
    centroid_x, centroid_y = (c.clamp(-side / 4, side / 4) for c in (centroid_x, centroid_y))
    dx = x - centroid_x[:, None, None]
    dy = y - centroid_y[:, None, None]
    ellipticity, position_angle = _shape(light, dx, dy, total)

    r20, r50, r80 = _light_radii(light, dx, dy, total, (0.2, 0.5, 0.8))
    brightness = 0.5 * total / (math.pi * r50.square())
    border = torch.cat([light[:, 0], light[:, -1], light[:, 1:-1, 0], light[:, 1:-1, -1]], 1)
    no_source |= light.amax((1, 2)) > _DEFECT_LIGHT * total
    flag = no_source * NO_SOURCE + (border.sum(1) > _EDGE_LIGHT * total) * TOUCHES_EDGE
    red, blue = (planes[:, i].sum((1, 2)).clamp_min(1e-4) for i in (0, 2))
    return {
        "size": r50 / side,
        "brightness": brightness,
        "ellipticity": ellipticity,
        "concentration": 5 * torch.log10(r80 / r20),
        "color": -2.5 * torch.log10(blue / red),
        "light": total,
        "centroid_x": centroid_x / side,
        "centroid_y": centroid_y / side,
        "position_angle": position_angle,
        "flag": flag.long(),
    }


def measure_attributes(images: np.ndarray, device: torch.device | str = "cpu") -> dict[str, np.ndarray]:
    """Measure the attributes of photometry on pictures, as a catalogue holds them.

    Parameters
    ----------
    images : ndarray, (N, 3, S, S), uint8
    device : torch.device
        Where to compute.

    Returns
    -------
    dict of str to ndarray, (N,), float64
        One entry for each of `PHOTOMETRIC_ATTRIBUTES`; NaN where no galaxy was found.
    """
    with torch.inference_mode():
        measured = measure(torch.from_numpy(images).to(device).float() / 255)
    found = (measured["flag"].cpu().numpy() & NO_SOURCE) == 0
    return {name: np.where(found, measured[name].cpu().double().numpy(), np.nan) for name in PHOTOMETRIC_ATTRIBUTES}


def _pixel_grid(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (along rows) and y (down columns) of the pixel centres, in pixels from the frame's centre."""
    axis = torch.arange(side, device=like.device, dtype=like.dtype) - (side - 1) / 2
    return axis[None, :], axis[:, None]


def _sky(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate the sky of each plane from the frame's corners, where a centred galaxy is faintest.

    Returns the level (N, 3), the standard deviation of the smoothed mean plane (N,), and the corners' pixel mask
    (S, S). The level is the median of the values left after those above median + 3 sigma, the neighbours, are
    clipped; sigma comes from the values below the median, which neighbours do not touch.
    """
    x, y = _pixel_grid(images.shape[-1], images)
    corners = x.square() + y.square() > (0.5 * images.shape[-1]) ** 2
    level, _ = _clipped_median(images[:, :, corners])  # (N, 3)
    with torch.no_grad():
        # The outskirts of a large galaxy slope across the corners; only what varies from pixel to pixel is noise.
        mean_plane = images.mean(1)
        noise = _smooth(mean_plane) - _smooth(mean_plane, _BACKGROUND_SMOOTHING)
        sigma = (_HIGH_PASS_LOSS * _clipped_median(noise[:, corners])[1]).clamp_min(_SKY_SIGMA_FLOOR)
    return level, sigma, corners


def _clipped_median(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and standard deviation of the last axis after clipping its bright tail."""
    ordered = values.sort(-1).values
    count = ordered.shape[-1]
    median = ordered[..., count // 2]
    # The 15.87th percentile lies one standard deviation below the median of a normal distribution.
    sigma = (median - ordered[..., int(0.1587 * count)]).clamp_min(_SKY_SIGMA_FLOOR)
    kept = (ordered <= (median + 3 * sigma)[..., None]).sum(-1)
    return ordered.gather(-1, (kept // 2)[..., None])[..., 0], sigma


def _smooth(planes: Tensor, width: float = _SMOOTHING) -> Tensor:
    """Convolve (N, S, S) planes with a Gaussian of `width` frame widths, repeating the border."""
    sigma = width * planes.shape[-1]
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=planes.device, dtype=planes.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]  # (1, 1, 1, K)
    padded = F.pad(planes[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))[:, 0]


def _source_mask(light: Tensor, corners: Tensor, sky_sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the pixels of the central source.

    The smoothed image is rebuilt from its central peak downwards (morphological reconstruction by dilation,
    Vincent 1993): each pixel gets the highest level at which it is connected with the peak. Where that level is
    above the threshold, the pixel belongs to the source; where the image stands well above that level, another
    peak begins.

    Returns
    -------
    mask : Tensor, (N, S, S), bool
    plateau : Tensor, (N, S, S)
        The level to cut neighbours down to; infinite elsewhere.
    no_source : Tensor, (N,), bool
    """
    side = light.shape[-1]
    x, y = _pixel_grid(side, light)
    distance = (x.square() + y.square()).sqrt()
    smoothed = _smooth(light)
    threshold = _DETECTION_SIGMA * sky_sigma[:, None, None]

    central = smoothed.masked_fill(distance > _CENTRE_RADIUS * side, -torch.inf).flatten(1)
    peak, where = central.max(1)
    marker = torch.full_like(smoothed, -torch.inf).flatten(1)
    marker = marker.scatter(1, where[:, None], peak[:, None]).view_as(smoothed)
    # Below the threshold nothing needs rebuilding, which also ends the iteration sooner.
    connected = _reconstruct(marker, torch.where(smoothed > threshold, smoothed, -torch.inf))

    mask = connected > threshold
    mask &= _smooth(mask.to(light.dtype), _MASK_SMOOTHING) > 0.5  # drops tendrils of noise
    separate = smoothed - connected > torch.maximum(3 * sky_sigma[:, None, None], 0.1 * smoothed)
    separate &= (distance > _NEIGHBOUR_RADIUS * side) & mask
    plateau = torch.where(separate, connected, torch.inf)

    area = mask.sum((1, 2))
    no_source = (peak <= threshold[:, 0, 0]) | (area < _MIN_AREA * side**2)
    return mask, plateau, no_source


def _reconstruct(marker: Tensor, ceiling: Tensor) -> Tensor:
    """Dilate `marker` under `ceiling` until nothing changes: each pixel's best path to the marker."""
    rebuilt = marker
    for step in range(1, 4 * marker.shape[-1]):
        grown = torch.minimum(_dilate(rebuilt), ceiling)
        # Comparing waits for a GPU, so it is done now and then only.
        if step % 8 == 0 and torch.equal(grown, rebuilt):
            break
        rebuilt = grown
    return rebuilt


def _dilate(planes: Tensor) -> Tensor:
    """Return each pixel's largest value among itself and its eight neighbours; 20 times faster than pooling."""
    wide = planes.clone()
    torch.maximum(wide[:, :, 1:], planes[:, :, :-1], out=wide[:, :, 1:])
    torch.maximum(wide[:, :, :-1], planes[:, :, 1:], out=wide[:, :, :-1])
    grown = wide.clone()
    torch.maximum(grown[:, 1:], wide[:, :-1], out=grown[:, 1:])
    torch.maximum(grown[:, :-1], wide[:, 1:], out=grown[:, :-1])
    return grown


def _shape(light: Tensor, dx: Tensor, dy: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Return ellipticity 1 - b/a and position angle (degrees) from the second moments about the centroid."""
    m_xx = (light * dx.square()).sum((1, 2)) / total
    m_yy = (light * dy.square()).sum((1, 2)) / total
    m_xy = (light * dx * dy).sum((1, 2)) / total
    # Eigenvalues are trace/2 ± split/2; the small term keeps the gradient finite for round sources.
    trace = (m_xx + m_yy).clamp_min(1e-6)
    split = ((m_xx - m_yy).square() + 4 * m_xy.square() + 1e-10 * trace.square()).sqrt()
    axis_ratio = ((trace - split).clamp_min(1e-6 * trace) / (trace + split)).sqrt()
    angle = 0.5 * torch.atan2(2 * m_xy, m_xx - m_yy)
    return 1 - axis_ratio, torch.rad2deg(angle) % 180.0


def _light_radii(
    light: Tensor, dx: Tensor, dy: Tensor, total: Tensor, fractions: tuple[float, ...]
) -> tuple[Tensor, ...]:
    """Return the radii in pixels of the circles about the centroid that hold these fractions of the light.

    The curve of growth is sampled every half pixel. Each pixel enters it along a ramp as wide as the spacing,
    centred on the pixel's radius; between samples the light grows with the area (constant surface brightness).
    """
    spacing = 0.5
    num_rings = math.ceil(light.shape[-1] * math.sqrt(2) / spacing) + 2
    radius = (dx.square() + dy.square() + 1e-6).sqrt().flatten(1) / spacing
    ring = radius.detach().long()  # floor
    share = radius - ring  # the part that enters the curve one sample later
    weights = light.flatten(1)
    rings = torch.zeros(len(light), num_rings, dtype=light.dtype, device=light.device)
    rings = rings.scatter_add(1, ring, weights * (1 - share)).scatter_add(1, ring + 1, weights * share)
    growth = rings.cumsum(1).cummax(1).values  # noise can make the outermost curve fall
    edges = (torch.arange(num_rings, dtype=light.dtype, device=light.device) + 0.5) * spacing

    peak = weights.amax(1).clamp_min(1e-6)
    radii = []
    for fraction in fractions:
        goal = fraction * total[:, None]
        upper = torch.searchsorted(growth.detach(), goal.detach()).clamp(1, num_rings - 1)
        below, above = growth.gather(1, upper - 1), growth.gather(1, upper)
        inner, outer = edges[upper - 1].square(), edges[upper].square()
        # Light within the first sample: shrink a disc instead of reaching below radius 0.
        part = ((goal - below) / (above - below).clamp_min(1e-12)).clamp(0, 1)
        between = inner + part * (outer - inner)
        within_first = inner * (goal / below.clamp_min(1e-12)).clamp(max=1)
        squared = torch.where(goal < below, within_first, between)
        # Light is spread over its pixels: no circle is brighter than the brightest pixel, nor 0 for a blank frame.
        smallest = (fraction * total / (math.pi * peak)).clamp_min(1e-6)
        squared = torch.where(total > 1e-6, squared[:, 0], smallest)
        radii.append(torch.maximum(squared, smallest).sqrt())
    return tuple(radii)
