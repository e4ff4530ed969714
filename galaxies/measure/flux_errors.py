"""Standard deviations of sizes and shapes on flux, by the noise and by what is not known of a galaxy's profile.

A radius is where a sum over pixels reaches a goal, so its error is that of the sum over the slope of the curve there.
Each such sum is linear in the light: its error comes from the noise of the pixels that are believed, from the sky's
level under them, and, where the model stands for the light, from what profiles that agree with the pixels differ by.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from galaxies.measure.flux_model import Model, Refined, light_in_circles, radii_before
from galaxies.measure.frame import kept
from galaxies.measure.sersic_mixtures import Mixtures, sersic_mixtures
from galaxies.measure.structure import (
    APERTURE,
    FLUX_APERTURE,
    PETROSIAN_ETA,
    Rings,
    light_within,
)

_STEP = 1.15  # factor of a radius over which slopes are taken
_ANNULUS = 1.0  # pixels to either side of a radius in which its surface brightness is measured
PSF_ERROR = 0.04  # relative, of a PSF's width where nothing is known of its wings
KNOWN_PSF_ERROR = 0.019  # the same where its shape is known, and is drawn as two Gaussians
_LEFT = 0.75  # of what profiles differ by in concentration, once their light has followed the pixels
_INDEX_ERROR = 0.05  # of a concentration, that lies between two of the table's
_PSF_SHAPE_ERROR = 0.024  # the least of it for ellipticities, to which wings matter more
# Parts of variances by the galaxy's signal-to-noise ratio, measured on Sersic galaxies and discs with bulges. Below the
# second number of each: what centre and shape, which follow the same noise, add to radii as observed; what the few
# profiles with the brightest wings have in the variance of all light, beyond the two thirds that a standard deviation
# stands for. Above it: what Gaussians that are free of each other differ by, as those of galaxies are not.
_FOLLOWED, _FOLLOWED_SNR = 0.5, 50.0
_WINGS, _WINGS_SNR = 0.45, 15.0
_FREE, _FREE_SNR = 0.5, 750.0


class Fitted(NamedTuple):
    """What was fitted to N galaxies, for the errors of it.

    Attributes
    ----------
    model, refined : Model, Refined
    light : Tensor, (N, S, S)
        Detection image above the sky that was taken off, units of its noise.
    drawings : Tensor, (N, G, S * S)
        Of the table's Gaussians, blurred.
    level, zero : Tensor, (N, G), (N,)
        As in `flux_model.fit_profiles`.
    mixtures : Mixtures
    belief : Tensor, (N, S, S)
        How far each pixel is believed against the model.
    of_level : Tensor, (N,)
        Variance of the sky's level, in units of a pixel's.
    grain : Tensor, (N,)
        Noise of sums over pixels, in units of what white noise would give.
    psf_error : float
        Relative standard deviation of the PSF's width.
    significance : Tensor, (N,)
        Signal-to-noise ratio of the whole galaxy.
    """

    model: Model
    refined: Refined
    light: Tensor
    drawings: Tensor
    level: Tensor
    zero: Tensor
    mixtures: Mixtures
    belief: Tensor
    of_level: Tensor
    grain: Tensor
    psf_error: float
    significance: Tensor


def known_variances(significance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many times what profiles and noise make them variances (N,) are: of all light, its radius, and others.

    The others are radii as observed. Lights that agree with the pixels of a faint galaxy lean to the bright side, their
    radii half as much; radii as observed are those about a centre and along a shape that follow the noise. Of a bright
    galaxy less is free than is let free.
    """
    free = 1 - _FREE / (1 + (_FREE_SNR / significance.clamp_min(1e-6)).square())
    wings = _WINGS / (1 + (significance / _WINGS_SNR).square())
    followed = _FOLLOWED / (1 + (significance / _FOLLOWED_SNR).square())
    return free * (1 - wings), free * (1 - 0.5 * wings), free * (1 + followed)


def by_profile(fitted: Fitted, pixels: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance (N, Q) of sums over a galaxy's light by what is not known of its profile.

    A sum over believed pixels is the same with each profile; what a profile promises beside it is not. That differs
    among the profiles of the table, as far as `refine` left them to differ, and by the noise that it followed.
    Returned as well is the covariance of what a profile promises with the noise in the sum over believed pixels, which
    it was chosen by: the derivative of a mean over profiles is their covariance with the pixel.

    Parameters
    ----------
    fitted : Fitted
    pixels : Tensor, (N, Q, S * S)
        Weights of the pixels.
    unseen : Tensor, (N, Q, G)
        Weights of the light of each Gaussian beside that which the pixels show of it.
    """
    model, refined, parts = fitted.model, fitted.refined, fitted.mixtures.parts
    count, seen = pixels.sum(2), torch.bmm(pixels, fitted.light.flatten(1)[..., None])[..., 0]  # (N, Q)
    amplitudes, beliefs = (each.unflatten(1, (2, -1)) for each in (model.amplitudes, model.beliefs))  # (N, 2, T)
    lights = torch.stack(
        [
            seen[..., None] + amplitudes[:, :1] * ((unseen + fitted.level[:, None] * count[..., None]) @ parts.T),
            (seen + fitted.zero[:, None] * count)[..., None] + amplitudes[:, 1:] * (unseen @ parts.T),
        ],
        2,
    )  # (N, Q, 2, T)
    # By what a profile differs from the mean of all with the same sky, the pixels took back.
    told = amplitudes[:, None] * ((unseen - torch.bmm(unseen, refined.left)) @ parts.T)[:, :, None]
    beliefs = beliefs[:, None]
    usual = (beliefs * told).sum(3, keepdim=True) / beliefs.sum(3, keepdim=True).clamp_min(1e-6)
    lights = lights - told + usual
    mean = (beliefs * lights).sum((2, 3))
    variance = (beliefs * (lights - mean[..., None, None]).square()).sum((2, 3))
    followed = (unseen * torch.bmm(unseen, refined.covariance)).sum(2).clamp_min(0)
    promised = amplitudes[:, None] * (torch.bmm(pixels, fitted.drawings.mT) @ parts.T)[:, :, None]
    shared = (beliefs * (lights - mean[..., None, None]) * promised).sum((2, 3))
    # The light follows the pixels besides.
    gain = torch.bmm(torch.bmm(unseen, refined.inverse), refined.weighed)
    shared = shared + fitted.grain.square()[:, None] * (pixels * gain).sum(2)
    return mean, variance + followed, shared


class Radii(NamedTuple):
    """Radii of N galaxies, (N,), pixels, with the curves that they were read off.

    Attributes
    ----------
    half, smooth_half, half_before, size : Tensor
        Of half of the light: as observed, of the model blurred and not blurred, and what these give.
    petrosian, petrosian_half, r20, r80 : Tensor
    rings, smooth_rings : Rings
        Of the light as observed, and of the model.
    distance : Tensor, (N, S, S)
        From the centre, pixels.
    """

    half: Tensor
    smooth_half: Tensor
    half_before: Tensor
    size: Tensor
    petrosian: Tensor
    petrosian_half: Tensor
    r20: Tensor
    r80: Tensor
    rings: Rings
    smooth_rings: Rings
    distance: Tensor


class Part(NamedTuple):
    """Radii of N galaxies, (N,), pixels, that hold a part of the light.

    Attributes
    ----------
    smooth, before : Tensor
        Of the model blurred and not blurred.
    intrinsic : Tensor
        Of the galaxy before the PSF.
    """

    smooth: Tensor
    before: Tensor
    intrinsic: Tensor


class RadiusErrors(NamedTuple):
    """Standard deviations (N,): of radii in pixels, and of the concentration."""

    size: Tensor
    petrosian: Tensor
    petrosian_half: Tensor
    concentration: Tensor


def radius_errors(fitted: Fitted, radii: Radii, stretch: Tensor) -> RadiusErrors:
    """Return the errors of radii and concentration; `stretch` (N, 2) is that of the model's ellipses."""
    distance = radii.distance.flatten(1)

    def within(radius: Tensor) -> Tensor:
        return (radius[:, None] - distance + 0.5).clamp(0, 1)

    def slope(rings: Rings, radius: Tensor) -> Tensor:
        wide, narrow = _STEP * radius, radius / _STEP
        rise = light_within(rings, wide) - light_within(rings, narrow)
        return (rise / (wide - narrow)).clamp_min(1e-9)

    # What the light would have to move a radius by one pixel, as weights of pixels; the light beyond the frame apart.
    everything = torch.ones_like(distance)
    of_half = -(within(radii.half) - 0.5 * everything) / slope(radii.rings, radii.half)[:, None]
    ring = (within(radii.petrosian + _ANNULUS) - within((radii.petrosian - _ANNULUS).clamp_min(0))).clamp_min(0)
    disc = within(radii.petrosian)
    ring, area = ring / ring.sum(1, keepdim=True).clamp_min(1), math.pi * radii.petrosian.square()
    brightness = (light_within(radii.rings, radii.petrosian) / area).clamp_min(1e-9)
    falling = _ratio_at(radii.rings, radii.petrosian / _STEP) - _ratio_at(radii.rings, radii.petrosian * _STEP)
    falling = falling.clamp_min(0.02) / (radii.petrosian * (_STEP - 1 / _STEP))
    of_petrosian = (ring - PETROSIAN_ETA * disc / area[:, None]) / (brightness * falling)[:, None]

    def of_part(part: float, radius: Tensor, aperture: float) -> Tensor:
        """Of the radius that holds a part of the light within an aperture, in Petrosian radii."""
        edge = aperture * radii.petrosian
        more = aperture * slope(radii.rings, edge)[:, None] * of_petrosian
        return (part * (within(edge) + more) - within(radius)) / slope(radii.rings, radius)[:, None]

    of_petrosian_half = of_part(0.5, radii.petrosian_half, FLUX_APERTURE)
    of_r20, of_r80 = of_part(0.2, radii.r20, APERTURE), of_part(0.8, radii.r80, APERTURE)
    of_concentration = 5 / math.log(10) * (of_r80 / radii.r80[:, None] - of_r20 / radii.r20[:, None])
    of_size = (radii.half / radii.size)[:, None] * of_half

    belief = fitted.belief.flatten(1)
    weights = torch.stack([of_size, of_petrosian, of_petrosian_half, of_concentration], 1)  # (N, Q, P)
    pixels = weights * belief[:, None]
    unseen = torch.bmm(weights - pixels, fitted.drawings.mT)  # (N, Q, G)
    # The size besides has what the model says of the light beyond the frame, and of the PSF.
    beyond = 1 - fitted.drawings.sum(2)
    outside = 0.5 * beyond
    model_light = fitted.model.light
    smooth_slope = slope(radii.smooth_rings, radii.smooth_half)[:, None]
    shown = torch.bmm(fitted.drawings, within(radii.smooth_half)[..., None])[..., 0]
    of_smooth = -(shown - 0.5) / smooth_slope
    wide, narrow = _STEP * radii.half_before, radii.half_before / _STEP
    circles = torch.stack([narrow, radii.half_before, wide], 1)
    inside = light_in_circles(fitted.mixtures.variances, stretch, circles)  # (N, 3, G)
    rise = ((inside[:, 2] - inside[:, 0]) * model_light).sum(1) / (wide - narrow)
    of_before = -(inside[:, 1] - 0.5) / rise.clamp_min(1e-9)[:, None]
    of_model = (
        (radii.half / radii.size / slope(radii.rings, radii.half))[:, None] * outside
        - (radii.smooth_half / radii.size)[:, None] * of_smooth
        + (radii.half_before / radii.size)[:, None] * of_before
    )
    unseen[:, 0] += of_model
    _, variance, shared = by_profile(fitted, pixels, unseen)
    noise = pixels.square().sum(2) + fitted.of_level[:, None] * pixels.sum(2).square()
    noise = fitted.grain.square()[:, None] * noise
    # A covariance is at most the product of the deviations.
    variance = variance + noise + 2 * shared.minimum((variance * noise).sqrt()).maximum(-(variance * noise).sqrt())
    _, of_size, of_radii = known_variances(fitted.significance)
    variance = variance * torch.stack([of_size, of_radii, of_radii, of_radii], 1)
    by_psf = fitted.psf_error * (radii.smooth_half.square() - radii.half_before.square()).clamp_min(0) / radii.size
    variance[:, 0] += by_psf.square()
    return RadiusErrors(*variance.sqrt().unbind(1))


def intrinsic_concentration_error(fitted: Fitted, r20: Part, r80: Part) -> Tensor:
    """Return the standard deviation (N,) of the concentration before the PSF.

    How light was concentrated that the PSF has spread is said by the profiles that agree with the pixels: it is what
    their concentrations differ by, with what the PSF's width leaves open of both radii.
    """
    of_profile = _concentrations(fitted.light.shape[-1], fitted.light.dtype, fitted.light.device)
    beliefs = fitted.model.beliefs.unflatten(1, (2, -1)).sum(1)
    mean = beliefs @ of_profile
    variance = (beliefs * (of_profile - mean[:, None]).square()).sum(1)
    shares = [
        (each.smooth.square() - each.before.square()).clamp_min(0) / each.intrinsic.square() for each in (r20, r80)
    ]
    by_psf = 5 / math.log(10) * fitted.psf_error * (shares[0] - shares[1])
    return (_LEFT**2 * variance + _INDEX_ERROR**2 + by_psf.square()).sqrt()


@kept
def _concentrations(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the concentrations (T,) of round galaxies of the table's profiles, without a PSF."""
    mixtures = sersic_mixtures(side, dtype, device)
    round_ones = mixtures.parts.new_zeros(len(mixtures.parts), 2)
    _, r20, r80 = radii_before(mixtures.parts, mixtures.variances, round_ones, side)
    return 5 * torch.log10(r80 / r20)


def _ratio_at(rings: Rings, radius: Tensor) -> Tensor:
    """Return Petrosian's ratio at radii (N,), pixels."""
    edges = rings.edges
    upper = torch.searchsorted(edges, radius).clamp(1, len(edges) - 1)[:, None]
    inner, outer = edges[upper - 1], edges[upper]
    part = ((radius[:, None] - inner) / (outer - inner)).clamp(0, 1)
    below, above = rings.ratio.gather(1, upper - 1), rings.ratio.gather(1, upper)
    return (below + part * (above - below))[:, 0]


def shape_errors(fitted: Fitted, stretch: Tensor, error: Tensor, radii: Radii) -> tuple[Tensor, Tensor]:
    """Return the standard deviations (N,) of ellipticity and of position angle, degrees.

    Parameters
    ----------
    fitted : Fitted
    stretch : Tensor, (N, 2)
    error : Tensor, (N, 2)
        Standard deviations of the stretch's length, and of the position angle in radians, by the noise.
    radii : Radii
    """
    length = (stretch.square().sum(1) + 1e-8).sqrt()
    # The PSF's square p² is taken off those of both axes, whose product is s⁴ and whose ratio gives the stretch L:
    # dL = p² (1/b² - 1/a²) dp/p = 2 sinh(L) p²/s² dp/p.
    of_psf = (radii.smooth_half.square() - radii.half_before.square()).clamp_min(0) / radii.half_before.square()
    psf_error = max(fitted.psf_error, _PSF_SHAPE_ERROR) if fitted.psf_error else 0.0
    by_psf = 2 * psf_error * of_psf * length.sinh()
    return (-length).exp() * torch.hypot(error[:, 0], by_psf), torch.rad2deg(error[:, 1])
