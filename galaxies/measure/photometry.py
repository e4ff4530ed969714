"""Measure galaxies on display images: size, surface brightness, ellipticity, concentration, colour.

Everything is batched and runs wherever the images are. The source mask is found first and held constant; the
measurements inside it are differentiable in the pixel values, so that a loss can be built on them. No weights are
learned here: what this file measures cannot be pleased, only met.

The pictures are asinh-stretched composites, so "light" below means display light (0 to 1), not physical flux.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from config_physics import PHOTOMETRIC_ATTRIBUTES
from galaxies.measure.arms import Arms, measure_arms
from galaxies.measure.frame import check_images, pixel_grid
from galaxies.measure.mergers import Mergers, measure_mergers
from galaxies.measure.sky import Sky, estimate_sky
from galaxies.measure.source import Source, find_source, half_turned
from galaxies.measure.structure import Structure, measure_structure, squared_radius

NO_SOURCE = 1  # nothing significant near the centre; the values mean nothing
TOUCHES_EDGE = 2  # the frame's outermost pixels hold a noticeable part of the light; the size is a lower limit
NEGATIVE_FLUX = 4  # the source, or its red, green or blue plane alone, holds no light above the sky; colors are limits
NOT_CONVERGED = 8  # of the structure: no Petrosian radius within the frame, or no centre of asymmetry near the centroid
MISSING_PIXELS = 16  # the galaxy has pixels without a value
CROSSED = 32  # streaks from beyond the frame's border reach the galaxy; its size may be too large
FLAG_BITS = {
    NO_SOURCE: "no source near the centre",
    TOUCHES_EDGE: "the source touches the edge of the frame",
    NEGATIVE_FLUX: "no light above the sky in a plane",
    NOT_CONVERGED: "no centre or radius of the structure",
}
# Those of light as it is measured on flux, and may have pixels without a value, as displays never do.
LIGHT_FLAG_BITS = {
    **FLAG_BITS,
    MISSING_PIXELS: "pixels of the galaxy without a value",
    CROSSED: "light from beyond the frame, as of a star's spike, crosses the galaxy",
}

_DEFECT_LIGHT = 0.5  # a pixel that holds more than this part of the light is a defect and no galaxy
_EDGE_LIGHT = 0.0025  # part of the light in the outermost pixels from which on the galaxy is called cut off
_LEAST_LIGHT = 1e-4  # of a plane, pixels times display units: keeps colors finite


class Photometry(NamedTuple):
    """Size, light, shape and color of N galaxies, and the sky that they stand on.

    All are tensors (N,) in the images' floating type, but for the flag, and finite, also for blank frames and broken
    pixels. Lengths are in frame widths.

    Attributes
    ----------
    size : Tensor
        Radius of the circle about the centroid that holds half the source's light.
    brightness : Tensor
        Mean display surface brightness within it, above the sky, 0 to 1.
    ellipticity : Tensor
        1 - b/a from second moments, 0 to 1.
    concentration : Tensor
        5 log10(r80 / r20) (Conselice 2003, eq. 5, here of display light).
    color : Tensor
        -2.5 log10(blue light / red light), magnitudes.
    color_green_red, color_blue_green : Tensor
        The same of neighbouring planes, magnitudes.
    light : Tensor
        Total display light of the source, pixels times display units.
    centroid_x, centroid_y : Tensor
        Offset from the frame's centre, -0.25 to 0.25.
    position_angle : Tensor
        Of the major axis, degrees in [0, 180), counted from +x towards +y (down the rows).
    moment_xx, moment_yy, moment_xy : Tensor
        Second moments of the source, blur included, squared frame widths.
    background, noise : Tensor
        Level of the sky, and its standard deviation from pixel to pixel, of the mean plane, display units.
    flag : Tensor, int64
        Sum of `FLAG_BITS`; 0 is a good measurement.
    """

    size: Tensor
    brightness: Tensor
    ellipticity: Tensor
    concentration: Tensor
    color: Tensor
    color_green_red: Tensor
    color_blue_green: Tensor
    light: Tensor
    centroid_x: Tensor
    centroid_y: Tensor
    position_angle: Tensor
    moment_xx: Tensor
    moment_yy: Tensor
    moment_xy: Tensor
    background: Tensor
    noise: Tensor
    flag: Tensor

    def attribute(self, name: str) -> Tensor:
        """Return the values of an attribute by its name in the table of attributes, one of `PHOTOMETRIC_ATTRIBUTES`.

        Raises
        ------
        KeyError
            If photometry does not measure an attribute of that name.
        """
        if name not in PHOTOMETRIC_ATTRIBUTES:
            raise KeyError(name)
        return getattr(self, name)


def measure(images: Tensor, psf_sigma: float | Tensor = 0.0, counts: bool = False) -> Photometry:
    """Measure the central galaxy of each image.

    Parameters
    ----------
    images : Tensor, (N, 3, S, S), floating point in [0, 1]
        Display images, planes R, G, B.
    psf_sigma : float or Tensor, (N,)
        Root mean square width of the point spread function along one axis, frame widths. Its second moments are taken
        off the galaxy's before the ellipticity, which blur makes too round; 0 where it is not known.
    counts : bool
        The images are counts as `level_counts` returns them, which have no bounds.

    Raises
    ------
    ValueError
        If the images do not have three square planes of floating-point values.
    """
    return _measure(images, psf_sigma, counts)[0]


def measure_with_structure(
    images: Tensor, psf_sigma: float | Tensor = 0.0, counts: bool = False
) -> tuple[Photometry, Structure]:
    """Measure the central galaxy of each image and its structure, which takes about four times as long as `measure`.

    Parameters and errors are those of `measure`; the flag may also say `NOT_CONVERGED`.
    """
    return _with_structure(*_measure(images, psf_sigma, counts))


def measure_with_morphology(
    images: Tensor, psf_sigma: float | Tensor = 0.0, counts: bool = False
) -> tuple[Photometry, Structure, Arms, Mergers]:
    """Measure the central galaxy of each image, its structure, its arms, and the marks of mergers.

    Parameters and errors are those of `measure`; the flag is that of `measure_with_structure`.
    """
    found, light, source, sky = _measure(images, psf_sigma, counts)
    found, structure = _with_structure(found, light, source, sky)
    centre = torch.stack([structure.asymmetry_x, structure.asymmetry_y], 1) * light.shape[-1]
    arms = measure_arms(light, source, sky, centre, found.position_angle, found.ellipticity)
    return found, structure, arms, measure_mergers(light, source, sky, centre, structure.gini, structure.m20)


def _with_structure(found: Photometry, light: Tensor, source: Source, sky: Sky) -> tuple[Photometry, Structure]:
    """Measure the structure, and raise the flag of `NOT_CONVERGED`."""
    centroid = torch.stack([found.centroid_x, found.centroid_y], 1) * light.shape[-1]
    structure, converged = measure_structure(
        light, source, sky.corners, centroid, found.position_angle, found.ellipticity
    )
    seen = found.flag & NO_SOURCE == 0
    return found._replace(flag=found.flag + (~converged & seen) * NOT_CONVERGED), structure


def _measure(images: Tensor, psf_sigma: float | Tensor, counts: bool) -> tuple[Photometry, Tensor, Source, Sky]:
    """Return the photometry, and the sky-subtracted mean planes (N, S, S), source and sky that it was measured with."""
    side = check_images(images).shape[-1]
    images = torch.nan_to_num(images, nan=0.0, posinf=1.0, neginf=0.0)  # a broken pixel breaks no other's measurement
    sky = estimate_sky(images, counts)
    whole_planes = images - sky.level[:, :, None, None]  # (N, 3, S, S)
    whole_light = whole_planes.mean(1)  # (N, S, S)

    with torch.no_grad():
        source = find_source(whole_light, sky)
    no_source = source.missing
    # A neighbour that stands on the galaxy's outskirts is cut down to the level at which they meet.
    cut = ((source.plateau < whole_light) & source.mask)[:, None]
    ceiling = source.plateau[:, None]
    if counts:
        # A star's wings reach far over its height there: the galaxy has there what it has on its other side.
        ceiling = torch.minimum(ceiling, half_turned(whole_planes, source.peak))
    planes = torch.where(cut, torch.minimum(whole_planes, ceiling), whole_planes)
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
    m_xx, m_yy, m_xy = ((light * product).sum((1, 2)) / total for product in (dx.square(), dy.square(), dx * dy))
    ellipticity, position_angle = _shape(m_xx, m_yy, m_xy, psf_sigma * psf_sigma * side**2)

    r20, r50, r80 = _light_radii(light, dx, dy, total, (0.2, 0.5, 0.8))
    brightness = 0.5 * total / (math.pi * r50.square())
    border = torch.cat([light[:, 0], light[:, -1], light[:, 1:-1, 0], light[:, 1:-1, -1]], 1)
    no_source = no_source | (light.amax((1, 2)) > _DEFECT_LIGHT * total)
    plane_light = planes.sum((2, 3))  # (N, 3)
    flag = no_source * NO_SOURCE + (border.sum(1) > _EDGE_LIGHT * total) * TOUCHES_EDGE
    flag = flag + (plane_light <= _LEAST_LIGHT).any(1) * NEGATIVE_FLUX
    red, green, blue = plane_light.clamp_min(_LEAST_LIGHT).unbind(1)
    found = Photometry(
        size=r50 / side,
        brightness=brightness,
        ellipticity=ellipticity,
        concentration=5 * torch.log10(r80 / r20),
        color=-2.5 * torch.log10(blue / red),
        color_green_red=-2.5 * torch.log10(green / red),
        color_blue_green=-2.5 * torch.log10(blue / green),
        light=total,
        centroid_x=centroid_x / side,
        centroid_y=centroid_y / side,
        position_angle=position_angle,
        moment_xx=m_xx / side**2,
        moment_yy=m_yy / side**2,
        moment_xy=m_xy / side**2,
        background=sky.level.mean(1),
        noise=sky.noise,
        flag=flag.long(),
    )
    return found, whole_light, source, sky


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

    goals = torch.stack([fraction * total for fraction in fractions], 1)  # (N, fractions)
    # Light is spread over its pixels: no circle is brighter than the brightest pixel, nor 0 for a blank frame.
    smallest = (goals / (math.pi * weights.amax(1).clamp_min(1e-6))[:, None]).clamp_min(1e-6)
    squared = torch.where(total[:, None] > 1e-6, squared_radius(growth, edges, goals), smallest)
    return torch.maximum(squared, smallest).sqrt().unbind(1)
