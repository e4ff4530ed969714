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
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from config_physics import AB_ZERO_POINT
from galaxies.measure.flux_errors import (
    PSF_ERROR,
    Fitted,
    Part,
    Radii,
    by_profile,
    intrinsic_concentration_error,
    known_variances,
    radius_errors,
    shape_errors,
)
from galaxies.measure.flux_model import (
    BELIEVED_SNR,
    CONCENTRATION_PARTS,
    Ellipse,
    Psf,
    believed,
    drawn,
    fit_profiles,
    fit_stretch,
    level_in,
    psf_of_width,
    radii_before,
    refine,
    trusted,
    zero_possible,
    zero_variance,
)
from galaxies.measure.flux_moments import adaptive_moments, stretch_of, weighted_moments
from galaxies.measure.flux_neighbours import close_neighbours, crossing_light
from galaxies.measure.flux_sky import (
    FluxSky,
    aperture_noise,
    clipped_median,
    darker_corners,
    estimate_flux_sky,
    level_beside,
    smoothed_noise,
    without_slope,
)
from galaxies.measure.frame import corner_mask, pixel_grid, rim_mask, ring_pixels
from galaxies.measure.inclination import inclination_of
from galaxies.measure.photometry import CROSSED, MISSING_PIXELS, NEGATIVE_FLUX, NO_SOURCE, NOT_CONVERGED, TOUCHES_EDGE
from galaxies.measure.sersic_mixtures import sersic_mixtures
from galaxies.measure.sky import Sky
from galaxies.measure.source import Source, find_source, half_turned
from galaxies.measure.structure import (
    APERTURE,
    FLUX_APERTURE,
    distance_from,
    light_within,
    measure_rings,
    petrosian_radius,
    radii_of,
)
from galaxies.measure.structure import measure_structure as structure_of

_STRUCTURE = ("asymmetry", "gini", "m20")
_SHAPES = ("size_arcsec", "petrosian_radius_arcsec", "ellipticity", "concentration", "intrinsic_concentration")
_PER_BAND = ("magnitude", "surface_brightness")
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, standard deviations
_LIGHT_BEYOND = 0.1  # part of the light beyond the frame from which on the galaxy is called cut off
_TAIL_LIGHT, _TAIL_SIGNIFICANT = 0.03, 3.0  # the same beyond what the profile has at the rim; standard deviations
_CROSSING_LIGHT = 0.05  # part of the galaxy's that streaks across the frame may have
_DEFECT_LIGHT = 0.5  # a pixel that holds more than this part of the light is a defect and no galaxy
_FAINTEST = 0.1  # flux errors; a fainter flux, or a negative one, has the magnitude of this
_LEAST_ERROR = 1e-18  # nJy, so that a frame without light has a magnitude
_SIGNIFICANT = 5.0  # signal-to-noise ratio of the fitted profile, from which on there is a galaxy
_CENTRE = 0.1  # frame widths, where a band has to have values
_WIDER = 3.0  # of the weight for moments of bright galaxies, in variance
_LEAST_SIZE = 0.3  # of the model's half-light radius
_RING_BRIGHTER = 3.0  # standard deviations by which the ring inside the corners is brighter, from which on it is no sky
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
    petrosian_half_light_arcsec : Tensor, (N,)
        Radius of the circle that holds half of the light within two of these, as observed: what SDSS calls petroR50,
        and statmorph rhalf_circ.
    ellipticity, position_angle : Tensor, (N,)
        1 - b/a, the PSF's moments taken off where its width is given; degrees in [0, 180) from +x (along rows)
        towards +y (down columns in the order of the array).
    concentration : Tensor, (N,)
        5 log10(r80 / r20) within 1.5 Petrosian radii, as observed (Conselice 2003, eq. 5).
    intrinsic_concentration : Tensor, (N,)
        The same of the galaxy before the PSF blurred it, where the PSF's width is given; its aperture is that of its
        Petrosian radius before the PSF.
    size_error, petrosian_radius_error, petrosian_half_light_error : Tensor, (N,)
        Standard deviations of these radii, arcsec, by the noise of the pixels and of the sky's level, by what is not
        known of the galaxy's profile, and of the size by the PSF's width.
    ellipticity_error, position_angle_error, concentration_error, intrinsic_concentration_error : Tensor, (N,)
        The same of these; degrees, 52 where any angle is as likely.
    centroid_x, centroid_y : Tensor, (N,)
        Offset from the frame's centre, pixels.
    asymmetry, gini, m20 : Tensor, (N,)
        See `galaxies.measure.structure`; NaN unless asked for.
    noise : Tensor, (N, B)
        Standard deviation from pixel to pixel, nJy: as given, else as measured.
    flag : Tensor, (N,), int64
        Sum of `LIGHT_FLAG_BITS`; 0 is a good measurement.
    """

    flux: Tensor
    flux_error: Tensor
    magnitude: Tensor
    magnitude_error: Tensor
    surface_brightness: Tensor
    size_arcsec: Tensor
    petrosian_radius_arcsec: Tensor
    petrosian_half_light_arcsec: Tensor
    ellipticity: Tensor
    position_angle: Tensor
    concentration: Tensor
    intrinsic_concentration: Tensor
    size_error: Tensor
    petrosian_radius_error: Tensor
    petrosian_half_light_error: Tensor
    ellipticity_error: Tensor
    position_angle_error: Tensor
    concentration_error: Tensor
    intrinsic_concentration_error: Tensor
    centroid_x: Tensor
    centroid_y: Tensor
    asymmetry: Tensor
    gini: Tensor
    m20: Tensor
    noise: Tensor
    flag: Tensor

    def attribute(self, name: str, bands: Sequence[str]) -> Tensor:
        """Return the values (N,) of an attribute by its name.

        One of `flux_attributes(bands)`, a color turned round, or `inclination`, which means something of discs alone.

        Raises
        ------
        KeyError
            If photometry does not measure an attribute of that name in these bands.
        """
        if name == "inclination":
            return inclination_of(1 - self.ellipticity)
        if name in (*_SHAPES, *_STRUCTURE):
            return getattr(self, name)
        quantity, places = _parts(name, bands)
        if quantity == "color":
            return self.magnitude[:, places[0]] - self.magnitude[:, places[1]]
        return getattr(self, quantity)[:, places[0]]

    def known(self, name: str, bands: Sequence[str], significance: float = 2.0) -> Tensor:
        """Return for which galaxies (N,), bool, an attribute's value means something.

        There has to be a galaxy and, for what needs the flux of a band, that flux has to be `significance` times its
        error; a fainter one is a limit. What was not asked for is unknown.
        """
        seen = (self.flag & NO_SOURCE == 0) & self.attribute(name, bands).isfinite()
        if name in (*_SHAPES, *_STRUCTURE, "inclination"):
            return seen
        places = _parts(name, bands)[1]
        for place in places:
            seen = seen & (self.flux[:, place] > significance * self.flux_error[:, place])
        return seen


def flux_attributes(bands: Sequence[str]) -> tuple[str, ...]:
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


def _parts(name: str, bands: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """Return the quantity that an attribute's name begins with, and the places of the bands that it ends with."""
    quantity, *named = name.rsplit("_", 2 if name.startswith("color_") else 1)
    count = {"color": 2, **dict.fromkeys(_PER_BAND, 1)}.get(quantity)
    if len(named) != count or not set(named) <= set(bands):
        raise KeyError(name)
    return quantity, tuple(list(bands).index(band) for band in named)


def measure_flux(
    images: Tensor,
    pixel_scale: float | Tensor,
    *,
    noise: Tensor | None = None,
    psf_fwhm: Tensor | None = None,
    psf_error: float = PSF_ERROR,
    mask: Tensor | None = None,
    structure: bool = False,
) -> FluxPhotometry:
    """Measure the central galaxy of each image.

    Parameters
    ----------
    images : Tensor, (N, B, S, S), floating point
        Linear images, nJy a pixel; a sky that was left in is taken off. What is not finite counts as bad, in all bands;
        a band that has no values where the galaxy is leaves the others as they are and has no light.
    pixel_scale : float or Tensor, (N,)
        Arcsec a pixel.
    noise : Tensor, (N, B), optional
        Standard deviation of a pixel, nJy; measured in the corners where it is NaN or not given.
    psf_fwhm : Tensor, (N, B), optional
        Full width at half maximum of the point spread function, arcsec; NaN where unknown, which corrects nothing.
    psf_error : float
        Relative standard deviation of that width; `KNOWN_PSF_ERROR` where `psf_width` has it from the PSF's image.
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
    finite = images.detach().isfinite()
    lost = _lost(finite)
    good = (finite | lost[..., None, None]).all(1)
    if mask is not None:
        good = good & ~mask
    images = torch.where(good[:, None] & finite, images, 0.0)
    images = without_slope(images, good)
    sky = _with_given(estimate_flux_sky(images, good), noise)
    planes = (images - sky.level[..., None, None]).where(good[:, None], 0)  # (N, B, S, S), nJy
    weighing = sky.noise.masked_fill(lost, torch.inf)  # what a band without pixels has no part in
    detection, weights = _detection(planes, weighing)
    zero = (sky.level * weights).sum(1)
    with torch.no_grad():
        source, usable, grain, streaks = _find(detection, good)
        brighter, ring_error = _border(detection, usable, grain)
        corner_error = grain * (_MEDIAN_LOSS / sky.used.clamp_min(1)).sqrt()
        darker = zero + darker_corners(detection, usable)
        possible = zero_possible(zero, darker, brighter, torch.hypot(ring_error, corner_error))
    # Sources are known now, whose light in the corners is no sky.
    level, blank = level_beside(images, good, source.mask | ~usable, brighter < _RING_BRIGHTER * ring_error)
    planes = (images - level[..., None, None]).where(good[:, None], 0)
    sky = sky._replace(level=level, used=blank.sum((1, 2)))
    detection, weights = _detection(planes, weighing)
    zero = (sky.level * weights).sum(1)
    of_level = _MEDIAN_LOSS / sky.used.clamp_min(1)
    # What neighbours and bad pixels hide is as on the galaxy's other side.
    other_side = half_turned(torch.cat([planes, usable.to(planes.dtype)[:, None]], 1), source.peak)
    clean = torch.where(usable[:, None], planes, other_side[:, :-1] * other_side[:, -1:])

    scale = torch.as_tensor(pixel_scale, dtype=images.dtype, device=images.device).expand(len(images))
    blurs = _blurs(psf_fwhm, sky.noise, scale)  # (N, B), pixels
    blur = _mean_blur(blurs, weighing)
    blurs = torch.where(blurs > 0, blurs, blur[:, None])  # a band of unknown width is as sharp as the others
    psf = psf_of_width(blur)
    mixtures = sersic_mixtures(side, images.dtype, images.device)
    light = (clean * weights[..., None, None]).sum(1)
    seen = adaptive_moments(light, source, grain)
    with torch.no_grad():
        grain = aperture_noise(detection, good, seen.moments)
        ellipse = Ellipse(seen.centre.detach(), stretch_of(seen.moments, psf.variances[:, 0]))
        core = Psf(torch.ones_like(psf.parts[:, :1]), psf.variances[:, :1])  # will do for a first look
        drawings = drawn(mixtures.variances, ellipse, core, side)[:, 0]
        level = level_in(blank, drawings)
        model = fit_profiles(detection, usable, drawings, level, zero, possible, mixtures, grain, of_level)
        # The brighter the galaxy, the more of its disc shall speak for its shape, and not the bulge or bar alone.
        ratio = (model.significance / BELIEVED_SNR).square()
        weight = seen.moments * (1 + _WIDER * ratio / (1 + ratio))[:, None]
    seen = weighted_moments(light, seen.centre.detach(), weight, grain)
    stretch, stretch_error = fit_stretch(
        seen.weighted, seen.weight, ellipse.stretch, model.light.clamp_min(0), mixtures.variances, psf, seen.error
    )
    with torch.no_grad():
        ellipse = ellipse._replace(stretch=stretch.detach())
        drawings = drawn(mixtures.variances, ellipse, psf, side).sum(1)
        level = level_in(blank, drawings)
        part = ((brighter.clamp_min(0) + 2 * ring_error) / (model.light * level).sum(1).clamp_min(1e-6)).clamp_max(1)
        level = level * part[:, None]
        weights_of_pixels = trusted(model, usable, drawings, ellipse, grain)
    significance = model.significance
    model = fit_profiles(detection, weights_of_pixels, drawings, level, zero, possible, mixtures, grain, of_level)
    # What part of the level in the corners is the sky's: all of it, or none where the file's zero is.
    taken = 1 - model.of_zero.detach()
    of_profiles, level = level, level * taken[:, None]
    above_level, detection = detection, detection + ((1 - taken) * zero)[:, None, None]
    planes = planes + (1 - taken)[:, None, None, None] * sky.level[..., None, None]
    refined = refine(model, detection, usable, drawings, level, ellipse, grain, of_level)
    model = refined.model
    smooth_light = torch.bmm(model.light[:, None], drawings).view_as(detection)
    smooth_shown = smooth_light - (model.light * level).sum(1)[:, None, None]
    distance = distance_from(detection, seen.centre)
    everywhere = torch.ones_like(usable)
    with torch.no_grad():
        belief = believed(smooth_light, ellipse, source.mask, significance, grain) * usable
        # Beyond two Petrosian radii there is little of the galaxy, and much of others.
        observed = smooth_light + belief * (detection - smooth_shown)
        reach = FLUX_APERTURE * petrosian_radius(measure_rings(observed, everywhere, distance))[0]
        belief = belief * (reach[:, None, None] - distance + 0.5).clamp(0, 1)
        # The level of the sky is a median outside the middle, or the zero of the file.
        of_level = taken.square() * of_level
        of_level = of_level + model.of_zero.square() * zero_variance(usable.sum((1, 2)))
        fitted = Fitted(
            model,
            refined,
            above_level,
            drawings,
            of_profiles,
            zero,
            mixtures,
            belief,
            of_level,
            grain,
            psf_error,
            significance,
        )
        pixels = belief.flatten(1)[:, None]
        total, spread, _ = by_profile(fitted, pixels, 1 - torch.bmm(pixels, drawings.mT))
        spread = spread * known_variances(significance)[0][:, None]
        spread = (spread.sqrt() / total.abs().clamp_min(1e-6))[:, 0]

    profile = model.light / model.light.sum(1, keepdim=True).clamp_min(1e-6)
    if psf_fwhm is None:
        each_shown = torch.bmm(profile[:, None], drawings).view_as(detection)[:, None].expand_as(planes)
    else:
        each_shown = _through_bands(profile, mixtures.variances, ellipse, blurs, side)
    each_level = level_in(blank, each_shown.flatten(2)) * (part * taken)[:, None]
    each_shown = (each_shown - each_level[..., None, None]) * usable[:, None]
    flux, variance = _light_in(planes, each_shown, belief, of_level)  # (N, B)
    by_noise, by_model = (grain[:, None] * sky.noise).square() * variance, (spread[:, None] * flux).square()
    flux_error = (by_noise + by_model).detach().sqrt().clamp_min(_LEAST_ERROR)
    magnitude = AB_ZERO_POINT - 2.5 * torch.log10(flux.maximum(_FAINTEST * flux_error))
    magnitude_error = 2.5 / math.log(10) * flux_error / flux.detach().maximum(_FAINTEST * flux_error)

    # The galaxy as observed, with the model where noise, neighbours and the border hide it.
    residual = belief * (detection - smooth_shown)
    light = smooth_light + residual
    whole = model.light.sum(1) + residual.sum((1, 2))
    rings, smooth_rings = (measure_rings(each, everywhere, distance) for each in (light, smooth_light))
    petrosian, found = petrosian_radius(rings)
    rings, smooth_rings = (each._replace(growth=each.growth.cummax(1).values) for each in (rings, smooth_rings))
    aperture = APERTURE * petrosian
    r20, r80 = radii_of(rings, light_within(rings, aperture), CONCENTRATION_PARTS)
    smooth_r20, smooth_r80 = radii_of(smooth_rings, light_within(smooth_rings, aperture), CONCENTRATION_PARTS)
    (petrosian_r50,) = radii_of(rings, light_within(rings, FLUX_APERTURE * petrosian), (0.5,))
    (r50,), (smooth_r50,) = radii_of(rings, whole, (0.5,)), radii_of(smooth_rings, model.light.sum(1), (0.5,))
    before, before_r20, before_r80 = radii_before(model.light, mixtures.variances, ellipse.stretch, side)
    size = _before_psf(r50, smooth_r50, before)
    inner = Part(smooth_r20, before_r20, _before_psf(r20, smooth_r20, before_r20))
    outer = Part(smooth_r80, before_r80, _before_psf(r80, smooth_r80, before_r80))
    with torch.no_grad():
        radii = Radii(r50, smooth_r50, before, size, petrosian, petrosian_r50, r20, r80, rings, smooth_rings, distance)
        errors = radius_errors(fitted, radii, ellipse.stretch)
        intrinsic_error = intrinsic_concentration_error(fitted, inner, outer)
        ellipticity_error, angle_error = shape_errors(fitted, stretch, stretch_error, radii)
    surface = magnitude + (2.5 * torch.log10(2 * math.pi * (size * scale).square()))[:, None]

    missing = (significance < _SIGNIFICANT) | (seen.centre.abs().amax(1) > side / 4)
    missing = missing | (light.amax((1, 2)) > _DEFECT_LIGHT * whole)
    # What a profile says of the light beyond knows nothing of tails and arms that the border cuts.
    tail = source.mask & usable & rim_mask(side, images.device)
    more, noise_of = crossing_light(detection - smooth_shown, tail), grain * crossing_light(tail.to(light), tail)
    noise_of = noise_of / tail.sum((1, 2)).clamp_min(1).sqrt()
    cut_off = (more > _TAIL_LIGHT * whole) & (more > _TAIL_SIGNIFICANT * noise_of)
    within = distance <= FLUX_APERTURE * petrosian[:, None, None]
    flag = (
        missing * NO_SOURCE
        + ((whole - light.sum((1, 2)) > _LIGHT_BEYOND * whole) | cut_off) * TOUCHES_EDGE
        + (flux <= 0).any(1) * NEGATIVE_FLUX
        + (~found & ~missing) * NOT_CONVERGED
        + (within & ~good).any(2).any(1) * MISSING_PIXELS
        + (crossing_light(detection, streaks) > _CROSSING_LIGHT * whole) * CROSSED
    )
    length = (stretch.square().sum(1) + 1e-8).sqrt()
    ellipticity, position_angle = 1 - (-length).exp(), torch.rad2deg(0.5 * torch.atan2(stretch[:, 1], stretch[:, 0]))
    details = (torch.full_like(petrosian, torch.nan),) * 3
    if structure:
        corners = corner_mask(side, images.device)
        shape, _ = structure_of(detection, source, corners, seen.centre, position_angle, ellipticity.detach())
        details = (shape.asymmetry_corrected, shape.gini, shape.m20)
    return FluxPhotometry(
        flux,
        flux_error,
        magnitude,
        magnitude_error,
        surface,
        size * scale,
        petrosian * scale,
        petrosian_r50 * scale,
        ellipticity,
        position_angle % 180,
        5 * torch.log10(r80 / r20),
        5 * torch.log10((outer.intrinsic / inner.intrinsic).clamp_min(1)),
        errors.size * scale,
        errors.petrosian * scale,
        errors.petrosian_half * scale,
        ellipticity_error,
        angle_error,
        errors.concentration,
        intrinsic_error,
        seen.centre[:, 0],
        seen.centre[:, 1],
        *details,
        sky.noise,
        flag.long(),
    )


def _before_psf(seen: Tensor, smooth: Tensor, before: Tensor) -> Tensor:
    """Return radii (N,) before the PSF of galaxies that are `seen` so, and whose models are `smooth` and were `before`.

    Squared radii add under convolution, nearly: the model's part in them is what the PSF adds.
    """
    return (seen.square() - smooth.square() + before.square()).maximum((_LEAST_SIZE * before).square()).sqrt()


def _border(detection: Tensor, usable: Tensor, grain: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much brighter (N,) a ring just inside the corners is than they, and its standard deviation."""
    pixels = ring_pixels(detection.shape[-1], detection.device)
    values, valid = detection.flatten(1)[:, pixels], usable.flatten(1)[:, pixels]
    median, _, count = clipped_median(values, valid)
    # A median does not see a galaxy on edge, and a mean that stars do not move no bright one.
    mean = values.clamp(-3, 3).where(valid, 0).sum(1) / valid.sum(1).clamp_min(1)
    return torch.maximum(median, mean), grain * (_MEDIAN_LOSS / count.clamp_min(1)).sqrt()


def _through_bands(profile: Tensor, variances: Tensor, ellipse: Ellipse, blurs: Tensor, side: int) -> Tensor:
    """Draw galaxies of the light 1 as each band shows them (N, B, S, S), by the widths `blurs` (N, B) of their PSFs.

    They are drawn once, as sharp as the sharpest, and blurred by what the others have more.
    """
    sharpest = blurs.amin(1)
    with torch.no_grad():
        drawings = drawn(variances, ellipse, psf_of_width(sharpest), side)  # (N, K, G, S * S)
    images = (profile[:, None, None] @ drawings).view(*drawings.shape[:2], side, side)
    more = psf_of_width(blurs.flatten()).variances.unflatten(0, blurs.shape) - psf_of_width(sharpest).variances[:, None]
    rows = torch.fft.fftfreq(side, device=blurs.device, dtype=blurs.dtype)
    columns = torch.fft.rfftfreq(side, device=blurs.device, dtype=blurs.dtype)
    squared = (2 * math.pi) ** 2 * (rows[:, None].square() + columns.square())
    transfer = torch.exp(-0.5 * more.clamp_min(0)[..., None, None] * squared)  # (N, B, K, S, S/2)
    return torch.fft.irfft2((torch.fft.rfft2(images)[:, None] * transfer).sum(2), s=(side, side))


def _light_in(planes: Tensor, shown: Tensor, belief: Tensor, of_level: Tensor) -> tuple[Tensor, Tensor]:
    """Return the light (N, B) of planes, and its variance in units of a pixel's.

    The model's amplitude is fitted by least squares, and what pixels that are believed hold beside it is added.

    Parameters
    ----------
    planes : Tensor, (N, B, S, S)
    shown : Tensor, (N, B, S, S)
        The model of the light 1, above the sky, 0 in pixels that are not usable.
    belief : Tensor, (N, S, S)
    of_level : Tensor, (N,)
        Variance of the sky's level, in units of a pixel's.
    """
    belief = belief[:, None]
    power = shown.square().sum((2, 3)).clamp_min(1e-20)
    unseen = 1 - (belief * shown).sum((2, 3))
    weight = belief + (unseen / power)[..., None, None] * shown
    flux = (weight * planes).sum((2, 3))
    weight = weight.detach()
    return flux, weight.square().sum((2, 3)) + of_level[:, None] * weight.sum((2, 3)).square()


def _lost(finite: Tensor) -> Tensor:
    """Return which bands (N, B), bool, have no values where the galaxy is, of images in which another band has."""
    x, y = pixel_grid(finite.shape[-1], torch.empty(0, device=finite.device))
    central = x.square() + y.square() <= (_CENTRE * finite.shape[-1]) ** 2
    lost = 2 * (finite & central).sum((2, 3)) < central.sum()
    return lost & ~lost.all(1, keepdim=True)


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


def _find(detection: Tensor, good: Tensor) -> tuple[Source, Tensor, Tensor, Tensor]:
    """Find the galaxy, the pixels (N, S, S) that are neither bad nor a neighbour's, and the grain of the noise (N,).

    And where (N, S, S) streaks come in across the frame's border.
    """
    sigma, grain = smoothed_noise(detection, good)
    corners = corner_mask(detection.shape[-1], detection.device)
    source = find_source(detection, Sky(torch.zeros_like(sigma)[:, None], sigma, torch.ones_like(sigma), corners))
    close, streaks = close_neighbours(detection, source, sigma)
    neighbours = source.neighbours | close
    source = source._replace(mask=source.mask & ~neighbours, neighbours=neighbours)
    return source, good & ~neighbours, grain, streaks


def _blurs(psf_fwhm: Tensor | None, noise: Tensor, scale: Tensor) -> Tensor:
    """Return the standard deviation (N, B), pixels, of the PSFs; 0 where unknown."""
    if psf_fwhm is None:
        return torch.zeros_like(noise)
    return (psf_fwhm.to(noise) / (_FWHM * scale[:, None])).nan_to_num(0.0, 0.0, 0.0)


def _mean_blur(blurs: Tensor, noise: Tensor) -> Tensor:
    """Return the standard deviation (N,), pixels, of the detection image's PSF, without bands where it is unknown."""
    parts = (noise.amin(1, keepdim=True) / noise).square() * (blurs > 0)
    return ((parts * blurs.square()).sum(1) / parts.sum(1).clamp_min(1e-12)).sqrt()
