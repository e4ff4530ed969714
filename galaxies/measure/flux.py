"""Measure galaxies on flux: magnitudes, sizes and shapes in physical units, from linear images in any bands.

Everything is batched and runs wherever the images are, in single precision. Which pixels are the galaxy's is found and
held constant; what is measured on them is differentiable in the pixels, so that a loss can be built on it. No levels
are known here but multiples of the noise: the unit of the counts, a sky that was left in and a star elsewhere in the
frame change nothing.

All bands are measured with the same centre, aperture and shape, found on the detection image, the mean of the bands
weighted by their inverse variance; colors compare the same part of the galaxy so.

References
----------
Petrosian (1976), ApJ 209, L1; Blanton et al. (2001), AJ 121, 2358: the Petrosian radius and its aperture.
Graham et al. (2005), AJ 130, 1535: the light beyond it.
Bernstein & Jarvis (2002), AJ 123, 583: moments under a Gaussian that fits the galaxy.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from galaxies.measure.flux_sky import FluxSky, estimate_flux_sky, smoothed_noise
from galaxies.measure.frame import corner_mask, pixel_grid
from galaxies.measure.photometry import FLAG_BITS as PHOTOMETRY_FLAG_BITS
from galaxies.measure.photometry import NEGATIVE_FLUX, NO_SOURCE, NOT_CONVERGED, TOUCHES_EDGE
from galaxies.measure.sky import Sky
from galaxies.measure.source import Source, find_source, half_turned
from galaxies.measure.structure import (
    FLUX_APERTURE,
    distance_from,
    light_within,
    measure_rings,
    petrosian_radius,
    radii_of,
)
from galaxies.measure.structure import measure_structure as structure_of

MISSING_PIXELS = 16  # the galaxy has pixels without a value, which were filled from its other side
FLAG_BITS = {**PHOTOMETRY_FLAG_BITS, MISSING_PIXELS: "pixels of the galaxy without a value"}
ZERO_POINT = 31.4  # AB magnitude of 1 nJy: 8.9 + 22.5

_STRUCTURE = ("asymmetry", "gini", "m20")
_SHAPES = ("size_arcsec", "petrosian_radius_arcsec", "ellipticity", "concentration")
_PER_BAND = ("magnitude", "surface_brightness")
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, standard deviations
_EDGE_LIGHT = 0.0025  # part of the light in the outermost pixels from which on the galaxy is called cut off
_DEFECT_LIGHT = 0.5  # a pixel that holds more than this part of the light is a defect and no galaxy
_FAINTEST = 0.1  # flux errors; a fainter flux, or a negative one, has the magnitude of this
_ROUNDS = 8  # of fitting the Gaussian that weighs the moments
_MEDIAN_LOSS = math.pi / 2  # variance of a median over that of a mean


class FluxPhotometry(NamedTuple):
    """What N galaxies in B bands have; tensors in the images' floating type, but for the flag, and always finite.

    Attributes
    ----------
    flux : Tensor, (N, B)
        Total, nJy: within two Petrosian radii, with what lies beyond by the galaxy's concentration.
    flux_error : Tensor, (N, B)
        Its standard deviation by the noise of the pixels and of the sky's level.
    magnitude, magnitude_error : Tensor, (N, B)
        AB; a flux below a tenth of its error, or below 0, has the magnitude of that.
    surface_brightness : Tensor, (N, B)
        Mean within the half-light radius, AB magnitudes an arcsec²: magnitude + 2.5 log10(2 pi size_arcsec²).
    size_arcsec : Tensor, (N,)
        Radius of the circle that holds half of the light; that of the galaxy before the PSF blurred it, where the
        PSF's width is given, else as observed.
    petrosian_radius_arcsec : Tensor, (N,)
        Where the surface brightness, as observed, is 0.2 of the mean within.
    ellipticity, position_angle : Tensor, (N,)
        1 - b/a, the PSF's moments taken off where its width is given; degrees in [0, 180) from +x (along rows)
        towards +y (down columns in the order of the array).
    concentration : Tensor, (N,)
        5 log10(r80 / r20) within 1.5 Petrosian radii, as observed (Conselice 2003, eq. 5).
    centroid_x, centroid_y : Tensor, (N,)
        Offset from the frame's centre, pixels.
    asymmetry, gini, m20 : Tensor, (N,)
        See `galaxies.measure.structure`; NaN unless asked for.
    noise : Tensor, (N, B)
        Standard deviation from pixel to pixel, nJy: as given, else as measured.
    flag : Tensor, (N,), int64
        Sum of `FLAG_BITS`; 0 is a good measurement.
    """

    flux: Tensor
    flux_error: Tensor
    magnitude: Tensor
    magnitude_error: Tensor
    surface_brightness: Tensor
    size_arcsec: Tensor
    petrosian_radius_arcsec: Tensor
    ellipticity: Tensor
    position_angle: Tensor
    concentration: Tensor
    centroid_x: Tensor
    centroid_y: Tensor
    asymmetry: Tensor
    gini: Tensor
    m20: Tensor
    noise: Tensor
    flag: Tensor

    def attribute(self, name: str, bands: tuple[str, ...]) -> Tensor:
        """Return the values (N,) of an attribute by its name, one of `flux_attributes(bands)` or a color turned round.

        Raises
        ------
        KeyError
            If photometry does not measure an attribute of that name in these bands.
        """
        if name in (*_SHAPES, *_STRUCTURE):
            return getattr(self, name)
        quantity, places = _parts(name, bands)
        if quantity == "color":
            return self.magnitude[:, places[0]] - self.magnitude[:, places[1]]
        return getattr(self, quantity)[:, places[0]]

    def known(self, name: str, bands: tuple[str, ...], significance: float = 2.0) -> Tensor:
        """Return for which galaxies (N,), bool, an attribute's value means something.

        There has to be a galaxy and, for what needs the flux of a band, that flux has to be `significance` times its
        error; a fainter one is a limit. What was not asked for is unknown.
        """
        seen = (self.flag & NO_SOURCE == 0) & self.attribute(name, bands).isfinite()
        if name in (*_SHAPES, *_STRUCTURE):
            return seen
        places = _parts(name, bands)[1]
        for place in places:
            seen = seen & (self.flux[:, place] > significance * self.flux_error[:, place])
        return seen


def flux_attributes(bands: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the attributes that `measure_flux` measures in these bands.

    Magnitudes and surface brightnesses of each, the colors of each two in the order given, and sizes and shapes;
    `asymmetry`, `gini` and `m20`, the last three, only with `structure`.
    """
    colors = (f"color_{one}_{other}" for one, other in combinations(bands, 2))
    return (
        *(f"magnitude_{band}" for band in bands),
        *colors,
        *(f"surface_brightness_{band}" for band in bands),
        *_SHAPES,
        *_STRUCTURE,
    )


def _parts(name: str, bands: tuple[str, ...]) -> tuple[str, tuple[int, ...]]:
    """Return the quantity that an attribute's name begins with, and the places of the bands that it ends with."""
    quantity, *named = name.rsplit("_", 2 if name.startswith("color_") else 1)
    count = {"color": 2, **dict.fromkeys(_PER_BAND, 1)}.get(quantity)
    if len(named) != count or not set(named) <= set(bands):
        raise KeyError(name)
    return quantity, tuple(bands.index(band) for band in named)


def measure_flux(
    images: Tensor,
    pixel_scale: float | Tensor,
    *,
    noise: Tensor | None = None,
    psf_fwhm: Tensor | None = None,
    mask: Tensor | None = None,
    structure: bool = False,
) -> FluxPhotometry:
    """Measure the central galaxy of each image.

    Parameters
    ----------
    images : Tensor, (N, B, S, S), floating point
        Linear images, nJy a pixel; a sky that was left in is taken off. What is not finite counts as bad.
    pixel_scale : float or Tensor, (N,)
        Arcsec a pixel.
    noise : Tensor, (N, B), optional
        Standard deviation of a pixel, nJy; measured in the corners where it is NaN or not given.
    psf_fwhm : Tensor, (N, B), optional
        Full width at half maximum of the point spread function, arcsec; NaN where unknown, which corrects nothing.
    mask : Tensor, (N, S, S), bool, optional
        True where pixels are bad.
    structure : bool
        Measure asymmetry, Gini and M20 as well, which takes about four times as long.

    Raises
    ------
    ValueError
        If the images are not square planes of floating-point values.
    """
    if images.ndim != 4 or images.shape[2] != images.shape[3] or not images.is_floating_point():
        raise ValueError(f"images must have the shape (N, B, S, S) and floating point, not {tuple(images.shape)}")
    side = images.shape[-1]
    good = images.detach().isfinite().all(1)
    if mask is not None:
        good = good & ~mask
    images = torch.where(good[:, None], images, 0.0)
    sky = _with_given(estimate_flux_sky(images, good), noise)
    planes = (images - sky.level[..., None, None]).where(good[:, None], 0)  # (N, B, S, S), nJy
    detection, weights = _detection(planes, sky.noise)
    with torch.no_grad():
        source, usable = _find(detection, good)
    # What neighbours and bad pixels hide is as on the galaxy's other side.
    other_side = half_turned(torch.cat([planes, usable.to(planes.dtype)[:, None]], 1), source.peak)
    clean = torch.where(usable[:, None], planes, other_side[:, :-1] * other_side[:, -1:])
    light = (clean * weights[..., None, None]).sum(1)

    centroid, moments = _moments(light, source)
    distance = distance_from(light, centroid)
    rings = measure_rings(light, torch.ones_like(usable), distance)
    petrosian, found = petrosian_radius(rings)
    rings = rings._replace(growth=rings.growth.cummax(1).values)
    r20, r80 = radii_of(rings, light_within(rings, 1.5 * petrosian), (0.2, 0.8))
    aperture = FLUX_APERTURE * petrosian
    r50, r90 = radii_of(rings, light_within(rings, aperture), (0.5, 0.9))
    beyond = (8e-6 * (r90 / r50).clamp(1, 4) ** 8.47).clamp(max=0.5)
    half_light = r50 / (1 - beyond)
    total = 10 ** (0.4 * 5.1e-4 * (r90 / r50).clamp(1, 4).pow(1.451).exp())  # Graham et al. 2005, eq. 5

    inside = (aperture[:, None, None] - distance + 0.5).clamp(0, 1)  # soft by a pixel, so that it has a slope
    area = inside.sum((1, 2))
    flux = (clean * inside[:, None]).sum((2, 3)) * total[:, None]
    variance = area + area.square() * _MEDIAN_LOSS / sky.used.clamp_min(1)
    flux_error = sky.noise * (variance.sqrt() * total).detach()[:, None]
    magnitude = ZERO_POINT - 2.5 * torch.log10(flux.maximum(_FAINTEST * flux_error))
    magnitude_error = 2.5 / math.log(10) * flux_error / flux.detach().maximum(_FAINTEST * flux_error)

    scale = torch.as_tensor(pixel_scale, dtype=images.dtype, device=images.device).expand(len(images))
    blur = _blur(psf_fwhm, sky.noise, scale)  # pixels
    ellipticity, position_angle = _shape(moments, blur)
    size = _deblurred(half_light, blur * math.sqrt(2 * math.log(2)))
    surface = magnitude + (2.5 * torch.log10(2 * math.pi * (size * scale).square()))[:, None]

    missing = source.missing | (centroid.abs().amax(1) > side / 4)
    missing = missing | (light.amax((1, 2)) > _DEFECT_LIGHT * (light * inside).sum((1, 2)))
    border = torch.cat([light[:, 0], light[:, -1], light[:, 1:-1, 0], light[:, 1:-1, -1]], 1)
    reach = distance <= aperture[:, None, None]
    edge = (border * 1.0).where(border > 0, 0).sum(1) > _EDGE_LIGHT * (light * inside).sum((1, 2))
    edge = edge & (aperture + centroid.abs().amax(1) > side / 2)
    flag = (
        missing * NO_SOURCE
        + edge * TOUCHES_EDGE
        + (flux <= 0).any(1) * NEGATIVE_FLUX
        + (~found & ~missing) * NOT_CONVERGED
        + (reach & ~good).any(2).any(1) * MISSING_PIXELS
    )
    unknown = torch.full_like(petrosian, torch.nan)
    details = (unknown, unknown, unknown)
    if structure:
        corners = corner_mask(side, images.device)
        shape, _ = structure_of(detection, source, corners, centroid, position_angle, ellipticity.detach())
        details = (shape.asymmetry_corrected, shape.gini, shape.m20)
    return FluxPhotometry(
        flux,
        flux_error,
        magnitude,
        magnitude_error,
        surface,
        size * scale,
        petrosian * scale,
        ellipticity,
        position_angle,
        5 * torch.log10(r80 / r20),
        centroid[:, 0],
        centroid[:, 1],
        *details,
        sky.noise,
        flag.long(),
    )


def _with_given(sky: FluxSky, noise: Tensor | None) -> FluxSky:
    if noise is None:
        return sky
    noise = noise.to(sky.noise)
    return sky._replace(noise=torch.where(noise.isfinite() & (noise > 0), noise, sky.noise))


def _detection(planes: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the detection image (N, S, S) in units of its noise, and the weights (N, B) of the planes in it."""
    least = noise.amin(1, keepdim=True)
    parts = (least / noise).square()
    weights = parts / (least * parts.sum(1, keepdim=True).sqrt())
    return (planes * weights[..., None, None]).sum(1), weights


def _find(detection: Tensor, good: Tensor) -> tuple[Source, Tensor]:
    """Find the galaxy, and the pixels (N, S, S) that are neither bad nor a neighbour's."""
    side = detection.shape[-1]
    sigma = smoothed_noise(detection, good)
    corners = corner_mask(side, detection.device)
    source = find_source(detection, Sky(torch.zeros_like(sigma)[:, None], sigma, torch.ones_like(sigma), corners))
    return source, good & ~source.neighbours


def _moments(light: Tensor, source: Source) -> tuple[Tensor, Tensor]:
    """Return the centroid (N, 2), pixels, and second moments (N, 3), xx, yy, xy, pixels², of a Gaussian galaxy.

    They are taken under a Gaussian weight that is fitted to the galaxy, which leaves noise and neighbours far out
    without a say, and its own part in them is taken off: 1/moment = 1/weighted - 1/weight, in matrices.
    """
    side = light.shape[-1]
    x, y = pixel_grid(side, light)
    with torch.no_grad():
        own = light * source.mask
        total = own.sum((1, 2)).clamp_min(1e-6)
        cx, cy = ((own * axis).sum((1, 2)) / total for axis in (x, y))
        limit = side / 4
        cx, cy = cx.clamp(-limit, limit), cy.clamp(-limit, limit)
        spread = source.mask.sum((1, 2)).clamp_min(9).to(light.dtype) / (4 * math.pi)
        weight = torch.stack([spread, spread, torch.zeros_like(spread)], 1)
        for _ in range(_ROUNDS):
            (cx, cy), weight = _weighted(light, x, y, cx, cy, weight)
    (cx, cy), moments = _weighted(light, x, y, cx, cy, weight)
    return torch.stack([cx, cy], 1), moments


def _weighted(
    light: Tensor, x: Tensor, y: Tensor, cx: Tensor, cy: Tensor, weight: Tensor
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return centroid and moments under the Gaussian of this centre and of moments `weight` (N, 3)."""
    side = light.shape[-1]
    w_xx, w_yy, w_xy = _inverse(weight).unbind(1)
    dx, dy = x - cx[:, None, None], y - cy[:, None, None]
    exponent = w_xx[:, None, None] * dx.square() + w_yy[:, None, None] * dy.square() + 2 * w_xy[:, None, None] * dx * dy
    weighed = light * torch.exp(-0.5 * exponent)
    total = weighed.sum((1, 2)).clamp_min(1e-3)
    mx, my = ((weighed * d).sum((1, 2)) / total for d in (dx, dy))
    xx = (weighed * dx.square()).sum((1, 2)) / total - mx.square()
    yy = (weighed * dy.square()).sum((1, 2)) / total - my.square()
    xy = (weighed * dx * dy).sum((1, 2)) / total - mx * my
    # Half the weight is what a Gaussian galaxy shows under one of its own width; noise may say anything.
    raw = _bounded(torch.stack([xx, yy, xy], 1), 0.1, 0.9, weight)
    inverse = _inverse(raw) - torch.stack([w_xx, w_yy, w_xy], 1)
    found = _bounded(_inverse(inverse), 0.25, 4.0, weight)
    limit = side / 4
    # The centroid under a weight lies half way from the weight's centre to the galaxy's.
    return ((cx + 2 * mx).clamp(-limit, limit), (cy + 2 * my).clamp(-limit, limit)), found


def _inverse(moments: Tensor) -> Tensor:
    xx, yy, xy = moments.unbind(1)
    determinant = (xx * yy - xy.square()).clamp_min(1e-12)
    return torch.stack([yy, xx, -xy], 1) / determinant[:, None]


def _bounded(moments: Tensor, low: float, high: float, weight: Tensor) -> Tensor:
    """Keep the eigenvalues of moments within multiples of the weight's mean moment, and above that of a pixel."""
    xx, yy, xy = moments.unbind(1)
    half_trace, half_difference = (xx + yy) / 2, (xx - yy) / 2
    split = (half_difference.square() + xy.square() + 1e-12).sqrt()
    mean = weight[:, :2].mean(1)
    major, minor = half_trace + split, half_trace - split
    # Relative to the mean weight an axis may be four times longer and 1/50 shorter at once.
    major = major.minimum(high * 4 * mean).maximum(low * mean).clamp_min(0.05)
    minor = minor.minimum(major).maximum(0.02 * major)
    centre, arm = (major + minor) / 2, (major - minor) / 2
    return torch.stack(
        [centre + arm * half_difference / split, centre - arm * half_difference / split, arm * xy / split], 1
    )


def _blur(psf_fwhm: Tensor | None, noise: Tensor, scale: Tensor) -> Tensor:
    """Return the standard deviation (N,), pixels, of the PSF of the detection image; 0 where unknown."""
    if psf_fwhm is None:
        return torch.zeros_like(scale)
    width = psf_fwhm.to(noise) / scale[:, None] / _FWHM
    parts = (noise.amin(1, keepdim=True) / noise).square() * width.isfinite()
    width = width.nan_to_num(0.0, 0.0, 0.0)
    return ((parts * width.square()).sum(1) / parts.sum(1).clamp_min(1e-12)).sqrt()


def _shape(moments: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
    """Return ellipticity 1 - b/a and position angle (degrees) from second moments, less the PSF's."""
    xx, yy, xy = moments.unbind(1)
    trace = (xx + yy).clamp_min(1e-6)
    # Eigenvalues are trace/2 ± split/2; the small term keeps the gradient finite for round sources.
    split = ((xx - yy).square() + 4 * xy.square() + 1e-10 * trace.square()).sqrt()
    # Moments add under convolution; what is hardly larger than the PSF keeps a tenth of its minor axis' moment.
    trace = trace - (0.9 * (trace - split).clamp_min(0)).minimum(2 * blur.square())
    axis_ratio = ((trace - split).clamp_min(1e-6 * trace) / (trace + split)).sqrt()
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    return 1 - axis_ratio, torch.rad2deg(angle) % 180.0


def _deblurred(half_light: Tensor, blur: Tensor) -> Tensor:
    """Return the half-light radius less the PSF's, in quadrature; a quarter of it where the PSF is as large."""
    return (half_light.square() - blur.square()).maximum((half_light / 4).square()).sqrt()
