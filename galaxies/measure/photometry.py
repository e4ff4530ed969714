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
from torch import Tensor

from config_physics import PHOTOMETRIC_ATTRIBUTES
from galaxies.measure import structure as statistics
from galaxies.measure.source import Sky, Source, estimate_sky, find_source, pixel_grid

NO_SOURCE = 1  # nothing significant near the centre; the values mean nothing
TOUCHES_EDGE = 2  # the frame's outermost pixels hold a noticeable part of the light; the size is a lower limit
NEGATIVE_FLUX = 4  # the source, or its red, green or blue plane alone, holds no light above the sky; colors are limits
NOT_CONVERGED = 8  # of the structure: no Petrosian radius within the frame, or no centre of asymmetry near the centroid
FLAG_BITS = {
    NO_SOURCE: "no source near the centre",
    TOUCHES_EDGE: "the source touches the edge of the frame",
    NEGATIVE_FLUX: "no light above the sky in a plane",
    NOT_CONVERGED: "no centre or radius of the structure",
}

_DEFECT_LIGHT = 0.5  # a pixel that holds more than this part of the light is a defect and no galaxy
_EDGE_LIGHT = 0.0025  # part of the light in the outermost pixels from which on the galaxy is called cut off
_LEAST_LIGHT = 1e-4  # of a plane, pixels times display units: keeps colors finite


def measure(images: Tensor, structure: bool = False, psf_sigma: float | Tensor = 0.0) -> dict[str, Tensor]:
    """Measure the central galaxy of each image.

    Parameters
    ----------
    images : Tensor, (N, 3, S, S), floating point in [0, 1]
        Display images, planes R, G, B.
    structure : bool
        Whether to measure the structure as well, which takes about three times as long as the rest.
    psf_sigma : float or Tensor, (N,)
        Root mean square width of the point spread function along one axis, frame widths. Its second moments are taken
        off the galaxy's before the ellipticity, which blur makes too round; 0 where it is not known.

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
        With `structure` also, lengths in frame widths and circles about the centre of asymmetry:
        ``background``, ``noise``: level of the sky, and its standard deviation from pixel to pixel, of the mean plane.
        ``color_green_red``, ``color_blue_green``: as ``color``, of neighbouring planes.
        ``moment_xx``, ``moment_yy``, ``moment_xy``: second moments of the source, blur included.
        ``petrosian_radius``: where the surface brightness is 0.2 of the mean within.
        ``petrosian_light``: light within two Petrosian radii, pixels times display units.
        ``half_light_radius``: of half of all light, that beyond any aperture included (Graham et al. 2005, eq. 6), and
        that of faint wings taken for sky.
        ``r20``, ``r50``, ``r80``: of parts of the light within 1.5 Petrosian radii; ``petrosian_concentration``:
        5 log10(r80 / r20) of these (Conselice 2003, eq. 5).
        ``asymmetry``, ``smoothness``: within 1.5 Petrosian radii (Conselice 2003, eqs. 2 and 3; without his factor of
        10 in the latter); ``asymmetry_corrected``: unbiased by noise, see `morphology_statistics.asymmetry`.
        ``asymmetry_x``, ``asymmetry_y``: the centre of asymmetry, offset from the frame's.
        ``gini``, ``m20``: Lotz et al. (2004), eqs. 6 and 8.
        Values are always finite, also for blank frames and broken pixels.

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
    images = torch.nan_to_num(images, nan=0.0, posinf=1.0, neginf=0.0)  # a broken pixel breaks no other's measurement
    sky = estimate_sky(images)
    whole_planes = images - sky.level[:, :, None, None]  # (N, 3, S, S)
    whole_light = whole_planes.mean(1)  # (N, S, S)

    with torch.no_grad():
        source = find_source(whole_light, sky)
    no_source = source.missing
    # A neighbour that stands on the galaxy's outskirts is cut down to the level at which they meet.
    cut = ((source.plateau < whole_light) & source.mask)[:, None]
    planes = torch.where(cut, torch.minimum(whole_planes, source.plateau[:, None]), whole_planes)
    planes = planes * source.mask[:, None]
    light = planes.mean(1)  # negative noise stays: clipping it would add light where there is none

    x, y = pixel_grid(side, images)
    total = light.sum((1, 2)).clamp_min(1e-6)
    # Light that nearly cancels has its centroid anywhere; one in the outer half of the frame is none of a galaxy.
    centroid_x, centroid_y = ((light * axis).sum((1, 2)) / total for axis in (x, y))
    no_source = no_source | (torch.maximum(centroid_x.abs(), centroid_y.abs()) > side / 4)
    centroid_x, centroid_y = (c.clamp(-side / 4, side / 4) for c in (centroid_x, centroid_y))
    dx = x - centroid_x[:, None, None]
    dy = y - centroid_y[:, None, None]
    moments = [(light * product).sum((1, 2)) / total for product in (dx.square(), dy.square(), dx * dy)]
    ellipticity, position_angle = _shape(*moments, psf_sigma * psf_sigma * side**2)

    r20, r50, r80 = _light_radii(light, dx, dy, total, (0.2, 0.5, 0.8))
    brightness = 0.5 * total / (math.pi * r50.square())
    border = torch.cat([light[:, 0], light[:, -1], light[:, 1:-1, 0], light[:, 1:-1, -1]], 1)
    no_source = no_source | (light.amax((1, 2)) > _DEFECT_LIGHT * total)
    plane_light = planes.sum((2, 3))  # (N, 3)
    flag = no_source * NO_SOURCE + (border.sum(1) > _EDGE_LIGHT * total) * TOUCHES_EDGE
    flag = flag + (plane_light <= _LEAST_LIGHT).any(1) * NEGATIVE_FLUX
    red, green, blue = plane_light.clamp_min(_LEAST_LIGHT).unbind(1)
    values = {
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
    if not structure:
        return values
    values["color_green_red"] = -2.5 * torch.log10(green / red)
    values["color_blue_green"] = -2.5 * torch.log10(blue / green)
    values |= {name: m / side**2 for name, m in zip(("moment_xx", "moment_yy", "moment_xy"), moments, strict=True)}
    values |= {"background": sky.level.mean(1), "noise": sky.noise}
    found, converged = _structure(whole_light, source, sky, values)
    values["flag"] = values["flag"] + (~converged & ~no_source) * NOT_CONVERGED
    return values | found


def _structure(light: Tensor, source: Source, sky: Sky, values: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Measure the structure of the galaxies on whole sky-subtracted mean planes (N, S, S), neighbours left out.

    Returns
    -------
    statistics : dict of Tensor, (N,)
        See `measure`.
    converged : Tensor, (N,), bool
        Whether a Petrosian radius was found in the frame and the centre of asymmetry near the centroid.
    """
    side = light.shape[-1]
    usable = ~source.neighbours
    light = light * usable
    with torch.no_grad():
        centroid = torch.stack([values["centroid_x"], values["centroid_y"]], 1) * side
        about_centroid = statistics.distance_from(light, centroid)
        first, _ = statistics.petrosian_radius(statistics.measure_rings(light, usable, about_centroid))
        centre = statistics.asymmetry_centre(light, usable, centroid, statistics.APERTURE * first)
        drift = (centre - centroid).norm(dim=1)
        converged = drift <= (statistics.MAX_DRIFT * first).clamp_min(1)
        distance = statistics.distance_from(light, centre)

    rings = statistics.measure_rings(light, usable, distance)
    petrosian, found = statistics.petrosian_radius(rings)
    rings = rings._replace(growth=rings.growth.cummax(1).values)  # noise can make the outermost curve fall
    total = statistics.light_within(rings, statistics.APERTURE * petrosian)
    r20, r50, r80 = (
        statistics.squared_radius(rings.growth, rings.edges, part * total).clamp_min(1e-4).sqrt()
        for part in (0.2, 0.5, 0.8)
    )
    wings = statistics.wings_in_sky(light, usable, sky.corners, distance, petrosian)
    whole = statistics.measure_rings(light + wings[:, None, None], usable, distance)
    whole = whole._replace(growth=whole.growth.cummax(1).values)
    half_light = statistics.half_light_radius(whole, statistics.petrosian_radius(whole)[0])
    with torch.no_grad():
        aperture = distance <= statistics.APERTURE * petrosian[:, None, None]
        blank = sky.corners & usable & ~source.mask
        semimajor, axis_ratio = _elliptical_radius(about_centroid, centroid, values, light)
        ellipses = statistics.measure_rings(light, usable, semimajor, axis_ratio)
        pixels = statistics.gini_map(light, usable, source.mask, semimajor, statistics.petrosian_radius(ellipses)[0])
    asymmetry, corrected = statistics.asymmetry(light, usable, blank, centre, aperture)
    gini, m20 = statistics.gini_m20(light, pixels)
    return {
        "petrosian_radius": petrosian / side,
        "petrosian_light": statistics.light_within(rings, statistics.FLUX_APERTURE * petrosian),
        "half_light_radius": half_light / side,
        "r20": r20 / side,
        "r50": r50 / side,
        "r80": r80 / side,
        "petrosian_concentration": 5 * torch.log10(r80 / r20),
        "asymmetry": asymmetry,
        "asymmetry_corrected": corrected,
        "asymmetry_x": centre[:, 0] / side,
        "asymmetry_y": centre[:, 1] / side,
        "smoothness": statistics.smoothness(light, usable, blank, distance, petrosian, aperture),
        "gini": gini,
        "m20": m20,
    }, found & converged


def _elliptical_radius(
    distance: Tensor, centroid: Tensor, values: dict[str, Tensor], light: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the semi-major axis (N, S, S), pixels, of the galaxy's ellipse through each pixel, and b/a (N,)."""
    x, y = pixel_grid(light.shape[-1], light)
    angle = torch.deg2rad(values["position_angle"])[:, None, None]
    across = (y - centroid[:, 1, None, None]) * angle.cos() - (x - centroid[:, 0, None, None]) * angle.sin()
    axis_ratio = (1 - values["ellipticity"]).clamp_min(0.1)
    stretch = axis_ratio[:, None, None] ** -2 - 1
    return (distance.square() + stretch * across.square()).sqrt(), axis_ratio


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


def _shape(m_xx: Tensor, m_yy: Tensor, m_xy: Tensor, blur: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return ellipticity 1 - b/a and position angle (degrees) from second moments, less the PSF's."""
    # Eigenvalues are trace/2 ± split/2; the small term keeps the gradient finite for round sources.
    trace = (m_xx + m_yy).clamp_min(1e-6)
    split = ((m_xx - m_yy).square() + 4 * m_xy.square() + 1e-10 * trace.square()).sqrt()
    # Moments add under convolution; what is hardly larger than the PSF keeps a tenth of its minor axis' moment.
    trace = trace - (0.9 * (trace - split).clamp_min(0)).clamp_max(2 * blur)
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
    ring = radius.detach().long().clamp(0, num_rings - 2)  # floor; of broken pixels anything, but within the table
    share = radius - ring  # the part that enters the curve one sample later
    weights = light.flatten(1)
    rings = torch.zeros(len(light), num_rings, dtype=light.dtype, device=light.device)
    rings = rings.scatter_add(1, ring, weights * (1 - share)).scatter_add(1, ring + 1, weights * share)
    growth = rings.cumsum(1).cummax(1).values  # noise can make the outermost curve fall
    edges = (torch.arange(num_rings, dtype=light.dtype, device=light.device) + 0.5) * spacing

    peak = weights.amax(1).clamp_min(1e-6)
    radii = []
    for fraction in fractions:
        squared = statistics.squared_radius(growth, edges, fraction * total)
        # Light is spread over its pixels: no circle is brighter than the brightest pixel, nor 0 for a blank frame.
        smallest = (fraction * total / (math.pi * peak)).clamp_min(1e-6)
        squared = torch.where(total > 1e-6, squared, smallest)
        radii.append(torch.maximum(squared, smallest).sqrt())
    return tuple(radii)
