"""A smooth model of a galaxy on flux, for what noise, the PSF, a neighbour or the frame's border hide of it.

The model is an elliptical Sersic profile, or a disc with a bulge, blurred by the PSF and held against the pixels for
all profiles and radii of a table at once; the mean over them, each by its likelihood, stands for the galaxy where it is
fainter than the noise, after its light was let follow the rings of pixels where they tell more. Where it is brighter
the pixels themselves are measured, so that arms, bars and companions count as what they are.

Nothing here is searched for in steps whose number depends on the images, and all of it is a few products of matrices:
profiles are sums of the same Gaussians (see `sersic_mixtures`). The ellipse is held constant in derivatives, since the
light of a fit does not change, to first order, with centre and axis ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.measure.frame import pixel_grid
from galaxies.measure.sersic_mixtures import Mixtures
from galaxies.measure.structure import APERTURE, PETROSIAN_ETA, squared_radius

_CORE, _WINGS, _WING_WIDTH = 0.984, 0.13, 2.2  # of a PSF of known width: its narrower Gaussian, and the wider one
_PARTS = ((1 - _WINGS, 1.0), (_WINGS, _WING_WIDTH**2))
_SHARPNESS = sum(one * other / (v + w) for one, v in _PARTS for other, w in _PARTS)  # 2 pi times that of variance 1
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, standard deviations
_PIXEL = 1 / 12  # variance of a pixel's area along one axis, pixels²
_TYPICAL_INDEX = 1.4
_INDEX_SPREAD = 0.7  # of its natural logarithm
_WITH_BULGE = -1.5  # logarithm of how likely each disc with a bulge is, relative to the typical index
_ZERO_ERROR = 0.03  # standard deviation of the sky about the zero of a file without sky, units of a pixel's noise
_ZERO_BELIEVED = 1.5  # logarithm of how much likelier a file is without sky than with any other level near it
_ZERO_DOUBTED = 2.5  # standard deviations of the sky in the corners from the zero of the file, from which on it is none
_FLATTEST = 2.5  # the wings in the corners over what a ring inside is brighter than they, where they fall as r^-1.5
_NEVER = -1e4  # logarithm of a likelihood
_FREEDOM = 1.0  # of a Gaussian's light about that of the Sersic profile, times itself with its neighbours
_FLOOR = 0.01  # part of all light by which that of any Gaussian is free
_PROFILE_ERROR = 0.07  # part of its surface brightness by which a ring may differ from any profile of the table
_RING_ERROR = 0.03  # part of its surface brightness by which a ring may differ from the sum of Gaussians
_MODEL_ERROR = 0.1  # part of the model's surface brightness by which a galaxy may differ from it
_ANNULUS = 1 / 3  # width of the ring over a radius, over which the pixels are averaged before they are believed
BELIEVED_SNR = 30.0  # of the whole galaxy, from which its detected pixels are believed whatever the model says
_LEAST_STRETCH, _MOST_STRETCH = 0.02, 2.6  # of ellipses that are tried: axis ratios of 0.98 and 0.07
_NODES, _NODES_TO = 48, 5.0  # of the integral over true stretches, and standard deviations that it goes to
_ANY_ANGLE = math.pi / math.sqrt(12)  # radians: standard deviation of a position angle of which nothing is known
_ROUNDS = 10  # of fitting the stretch
_DAMPING = 0.9
_DIRECTIONS, _RADII = 12, 64  # of the light in circles
CONCENTRATION_PARTS = (0.2, 0.8)  # of the light, whose radii make the concentration


class Ellipse(NamedTuple):
    """Centre (N, 2), x and y in pixels from the frame's, and stretch (N, 2) of concentric ellipses.

    The stretch is ln(a/b) times cosine and sine of twice the position angle.
    """

    centre: Tensor
    stretch: Tensor


class Psf(NamedTuple):
    """Point spread functions as sums of K round Gaussians: their parts (N, K), and variances (N, K), pixels²."""

    parts: Tensor
    variances: Tensor


def psf_of_width(blur: Tensor) -> Psf:
    """Return PSFs whose full width at half maximum is that of Gaussians of the standard deviation `blur` (N,), pixels.

    The width alone says nothing of the wings. A Gaussian has none, the atmosphere's hold a fifth of the light, in a
    second Gaussian twice as wide (Kolmogorov's turbulence); what is taken lies between.
    """
    core = (_CORE * blur).square()
    parts = torch.stack([torch.full_like(blur, 1 - _WINGS), torch.full_like(blur, _WINGS)], 1)
    return Psf(parts, torch.stack([core, _WING_WIDTH**2 * core], 1))


def psf_width(images: Tensor) -> Tensor:
    """Return the full width at half maximum (N, B), pixels, of the PSF as `psf_of_width` draws it nearest to images.

    It is the one of the same sharpness, sum of p² over (sum of p)², to which the wings of a PSF count as they do for
    galaxies: that of a star's peak alone would be too small.

    Parameters
    ----------
    images : Tensor, (N, B, P, P), floating point
        As stars look, with the blur by the pixels in them, on no sky.
    """
    sharpness = images.square().sum((2, 3)) / images.sum((2, 3)).square().clamp_min(1e-30)
    core = _SHARPNESS / (2 * math.pi * sharpness.clamp_min(1e-12)) - _PIXEL
    return _FWHM / _CORE * core.clamp_min(0.01).sqrt()


def width_by_wings(profile: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Return the full width of `psf_width`, over the one at half maximum, of PSFs of a shape that is known.

    1.083 of the atmosphere's long exposures and 0.930 of a Gaussian: `psf_of_width` has wings that lie between.

    Parameters
    ----------
    profile : callable
        Transfer function, 1 at frequency 0, by squared frequencies and full widths at half maximum, in any one unit of
        length: a `galaxies.telescope.profiles.Profile`.
    """
    # The integral of p² over the plane is that of the squared transfer (Parseval).
    frequency = (torch.arange(8_000, dtype=torch.float64) + 0.5) * 1e-3
    transfer = profile(frequency.square(), torch.ones((), dtype=torch.float64))
    sharpness = float((2 * math.pi * frequency * transfer.square()).sum() * 1e-3)
    return _FWHM / _CORE * math.sqrt(_SHARPNESS / (2 * math.pi * sharpness))


class Model(NamedTuple):
    """Models of N galaxies.

    Attributes
    ----------
    light : Tensor, (N, G)
        Light of each Gaussian, before the PSF.
    beliefs, amplitudes : Tensor, (N, 2 T)
        How likely each profile of the table is, sums are 1, and the light that it would have: with the sky that was
        taken off, then with the zero of the file.
    significance : Tensor, (N,)
        Signal-to-noise ratio of the best fit.
    of_zero : Tensor, (N,)
        How far the file's zero is believed to be the sky, 0 to 1.
    """

    light: Tensor
    beliefs: Tensor
    amplitudes: Tensor
    significance: Tensor
    of_zero: Tensor


class Refined(NamedTuple):
    """Models that followed the pixels.

    Attributes
    ----------
    model : Model
    covariance : Tensor, (N, G, G)
        Of the light of the Gaussians, by the noise of the pixels that it followed.
    left : Tensor, (N, G, G)
        What is left of an error that the light had before: 1 where no pixel tells it, 0 where they tell all.
    inverse, weighed : Tensor, (N, G, G), (N, G, S * S)
        Their product is by how much the light follows that of each pixel.
    """

    model: Model
    covariance: Tensor
    left: Tensor
    inverse: Tensor
    weighed: Tensor


def stretched(variances: Tensor, stretch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the covariances (N, G): xx, yy and xy of Gaussians (G,) that are stretched (N, 2) at constant area."""
    length = (stretch.square().sum(1) + 1e-8).sqrt()
    cosh, slope = length.cosh(), length.sinh() / length
    across, diagonal = slope * stretch[:, 0], slope * stretch[:, 1]
    return tuple(part[:, None] * variances for part in (cosh + across, cosh - across, diagonal))  # type: ignore[return-value]


def drawn(variances: Tensor, ellipse: Ellipse, psf: Psf, side: int) -> Tensor:
    """Draw Gaussians (N, K, G, S * S), blurred by each of the PSF's and by the pixel; for each K have the light 1."""
    x, y = pixel_grid(side, variances)
    dx, dy = (each - ellipse.centre[:, k, None, None] for k, each in enumerate((x, y)))
    along, across, both = dx.square().expand(-1, side, -1), dy.square().expand(-1, -1, side), dx * dy
    terms = torch.stack([along, across, both, torch.ones_like(both)], 1).flatten(2)  # (N, 4, S * S)
    xx, yy, xy = (part[:, None] for part in stretched(variances, ellipse.stretch))  # (N, 1, G)
    added = psf.variances[..., None] + _PIXEL
    xx, yy = xx + added, yy + added  # (N, K, G)
    determinant = xx * yy - xy.square()
    height = (psf.parts[..., None] / (2 * math.pi * determinant.sqrt())).clamp_min(1e-30).log()
    factors = torch.stack([-0.5 * yy / determinant, -0.5 * xx / determinant, xy / determinant, height], -1)
    return torch.bmm(factors.flatten(1, 2), terms).exp_().unflatten(1, determinant.shape[1:])


def level_in(pixels: Tensor, drawings: Tensor) -> Tensor:
    """Return the mean (N, G) of drawings (N, G, S * S) over the pixels of the sky (N, S, S), bool.

    The sky's level, which was taken off the images, held as much of the galaxy's own wings.
    """
    weights = pixels.flatten(1).to(drawings.dtype)
    return torch.bmm(drawings, weights[..., None])[..., 0] / weights.sum(1, keepdim=True).clamp_min(1)


def fit_profiles(
    light: Tensor,
    weights: Tensor,
    drawings: Tensor,
    level: Tensor,
    zero: Tensor,
    possible: Tensor,
    mixtures: Mixtures,
    grain: Tensor,
    of_level: Tensor,
) -> Model:
    """Fit all profiles of a table to the pixels of galaxies, and take the mean over them.

    Each is tried with two skies: with that which was taken off, in which the galaxy's own wings were, and with the
    zero of the file, give or take `_ZERO_ERROR`. A frame that its galaxy fills cannot tell wings from sky, and there
    the file's word counts; where a sky was left in, no galaxy explains it.

    Parameters
    ----------
    light : Tensor, (N, S, S)
        Above the sky, in units of the noise.
    weights : Tensor, (N, S, S)
        How much each pixel counts: 0 where it is not usable, 1 or, where the galaxy is bright, less, see `trusted`.
    drawings : Tensor, (N, G, S * S)
        Of the table's Gaussians, blurred.
    level : Tensor, (N, G)
        That was taken off them with the sky.
    zero : Tensor, (N,)
        Sky that was taken off the light.
    possible : Tensor, (N,), bool
        Whether the zero of the file may be the sky, see `zero_possible`.
    mixtures : Mixtures
    grain : Tensor, (N,)
        By how much the noise of smoothed images is larger than that of white noise: 1, more for drizzled images.
    of_level : Tensor, (N,)
        Variance of the sky that was taken off, in units of a pixel's: over it is integrated.
    """
    weights = weights.flatten(1).to(light.dtype)
    shown = drawings * weights[:, None]
    sums, count = shown.sum(2), weights.sum(1)[:, None]
    raw = torch.bmm(shown, drawings.mT)  # (N, G, G)
    seen = light.flatten(1)
    whole = (weights * seen).sum(1, keepdim=True)
    matches = torch.bmm(shown, seen[..., None])[..., 0]
    cross = sums[:, :, None] * level[:, None]
    products = raw - cross - cross.mT + count[..., None] * level[:, :, None] * level[:, None]
    found = matches - level * whole
    # That level has an error.
    loose = _variance_left(count, of_level[:, None])
    above = sums - level * count
    products = products - loose[..., None] * above[:, :, None] * above[:, None]
    found = found - loose * whole * above
    # With the file's zero, and a small level beside it, over which is integrated.
    freed = zero_variance(count)
    zero = zero[:, None]
    products_0 = raw - freed[..., None] * sums[:, :, None] * sums[:, None]
    all_0 = whole + zero * count
    found_0 = matches + zero * sums - freed * all_0 * sums
    lost = 2 * zero * whole + zero.square() * count - freed * all_0.square() + loose * whole.square()

    parts = mixtures.parts
    tries = []
    for product, match in ((products, found), (products_0, found_0)):
        power = ((product @ parts.T) * parts.T).sum(1).clamp_min(1e-20)  # (N, T)
        matched = match @ parts.T
        tries.append((matched / power, matched.clamp_min(0).square() / power))
    amplitude = torch.cat([each[0] for each in tries], 1)
    gain = torch.cat([tries[0][1], tries[1][1] - lost], 1) / grain.square()[:, None]
    gain = torch.cat([gain[:, : len(parts)], gain[:, len(parts) :].where(possible[:, None], 0)], 1)
    best = gain.detach().amax(1, keepdim=True).clamp_min(0)
    of_index = -0.5 * ((mixtures.indices.clamp_min(0.1) / _TYPICAL_INDEX).log() / _INDEX_SPREAD).square()
    # All radii are as likely, in their logarithm.
    prior = of_index.where(mixtures.indices > 0, _WITH_BULGE)
    with_zero = torch.where(possible, _ZERO_BELIEVED, _NEVER)[:, None]
    belief = torch.softmax(
        0.5 * gain + torch.cat([prior.expand_as(amplitude[:, : len(prior)]), prior + with_zero], 1), 1
    )
    by_profile = (belief * amplitude).unflatten(1, (2, -1)).sum(1)
    of_zero = belief.unflatten(1, (2, -1))[:, 1].sum(1)
    return Model(by_profile @ parts, belief.detach(), amplitude.detach(), best[:, 0].sqrt(), of_zero)


def trusted(model: Model, usable: Tensor, drawings: Tensor, ellipse: Ellipse, grain: Tensor) -> Tensor:
    """Return how much pixels (N, S, S) shall count for a galaxy's profile, whose light is about that of the `model`.

    Where it is bright, galaxies differ from any profile by more than the noise. What is faint keeps its say: it tells
    wings from the sky.
    """
    smooth = torch.bmm(model.light.clamp_min(0)[:, None], drawings).view(usable.shape)
    signal = _ring(ellipse, smooth) * (_PROFILE_ERROR * smooth / grain[:, None, None]).square()
    return usable / (1 + signal)


def zero_possible(zero: Tensor, darker: Tensor, brighter: Tensor, error: Tensor) -> Tensor:
    """Return where (N,), bool, the zero of a file can be its sky.

    The sky in the corners is above it then by the wings of the galaxy alone, even in the darker two. These hardly
    fall slower than the radius to the power of -1.5, by which they are 2.5 times what a ring just inside is brighter.

    Parameters
    ----------
    zero, darker : Tensor, (N,)
        Sky of all corners, and of the second lowest of the four, above the file's zero in units of a pixel's noise.
    brighter : Tensor, (N,)
        Of the ring, above all corners.
    error : Tensor, (N,)
        Standard deviation of the ring less the corners.
    """
    error = _ZERO_DOUBTED * (error.square() + _ZERO_ERROR**2).sqrt()
    return (zero > -error) & (darker < _FLATTEST * brighter.clamp_min(0) + error)


def zero_variance(count: Tensor) -> Tensor:
    """Return the variance of the sky about a file's zero, when `count` pixels without a galaxy show it."""
    return _variance_left(count, _ZERO_ERROR**2)


def _variance_left(count: Tensor, before: Tensor | float) -> Tensor:
    """Return the variance of a level of the variance `before`, when `count` pixels without a galaxy show it as well."""
    return 1 / (count + 1 / before)


def refine(
    model: Model,
    light: Tensor,
    usable: Tensor,
    drawings: Tensor,
    level: Tensor,
    ellipse: Ellipse,
    grain: Tensor,
    of_level: Tensor,
) -> Refined:
    """Let the light of each Gaussian follow the pixels, as far as they tell it: few galaxies are Sersic profiles.

    The light far out, which a bulge's steep profile promises and a disc's does not have, is that of the outermost
    rings then. Linear least squares, with the model as what is known before and all priors normal; a ring of pixels
    counts for no more than galaxies are like any smooth model. The derivative is that of the pixels and of the model,
    with the weights as they are.

    Parameters
    ----------
    model : Model
    light, usable, drawings, level, ellipse, grain, of_level
        As in `fit_profiles`; light and level are those above the sky that is believed.
    """
    with torch.no_grad():
        known = model.light.clamp_min(0)
        shown = drawings - level[..., None]
        smooth = torch.bmm(known[:, None], drawings).view_as(light)
        signal = _ring(ellipse, light) * (_RING_ERROR * smooth / grain[:, None, None]).square()
        weights = (usable / (1 + signal) / grain.square()[:, None, None]).flatten(1)
        beside = F.pad(known, (1, 1), mode="replicate")
        free = _FREEDOM * (0.25 * (beside[:, :-2] + beside[:, 2:]) + 0.5 * known + _FLOOR * known.sum(1, keepdim=True))
        weighed = shown * weights[:, None]
        products = torch.bmm(weighed, shown.mT)
        # A small level of sky, over which is integrated.
        sums, count = weighed.sum(2), weights.sum(1)[:, None]
        freed = model.of_zero[:, None] * zero_variance(count)
        freed = freed + (1 - model.of_zero[:, None]) * _variance_left(count, (grain.square() * of_level)[:, None])
        products = products - freed[..., None] * sums[:, :, None] * sums[:, None]
        one = torch.eye(free.shape[1], dtype=free.dtype, device=free.device)
        both = free[:, :, None] * free[:, None]
        inverse = both * _inverse(one + both * products)
        followed = inverse @ products
    residual = light.flatten(1) - torch.bmm(model.light[:, None], shown)[:, 0]
    pull = torch.bmm(weighed, residual[..., None])[..., 0] - freed * (weights * residual).sum(1, keepdim=True) * sums
    light = model.light + torch.bmm(inverse, pull[..., None])[..., 0]
    return Refined(model._replace(light=light), followed @ inverse, one - followed, inverse, weighed)


def _inverse(matrices: Tensor) -> Tensor:
    """Return the inverse of symmetric matrices (N, K, K), eigenvalues from 1 on, by Gauss and Jordan's elimination.

    PyTorch's looks at its own success, for which a GPU has to be waited for.
    """
    size = matrices.shape[-1]
    both = matrices.clone()
    for k in range(size):
        pivot = both[:, k, k, None].clone()
        row, column = both[:, k] / pivot, both[:, :, k].clone()
        row[:, k : k + 1] = 1 / pivot
        column[:, k] = -1
        both[:, k], both[:, :, k] = 0, 0
        both -= column[:, :, None] * row[:, None]
    return both


def believed(model: Tensor, ellipse: Ellipse, mask: Tensor, significance: Tensor, grain: Tensor) -> Tensor:
    """Return how far each pixel is believed, 0 to 1 (N, S, S), against the model (N, S, S) in units of the noise.

    It is the variance by which galaxies differ from the model over itself and that of the mean of a ring through the
    pixel. All of what was detected, `mask` (N, S, S), is believed in bright galaxies.
    """
    signal = _ring(ellipse, model) * (_MODEL_ERROR * model / grain[:, None, None]).square()
    ratio = (significance / BELIEVED_SNR).square()
    return torch.maximum(signal / (signal + 1), mask * (ratio / (1 + ratio))[:, None, None])


def _ring(ellipse: Ellipse, like: Tensor) -> Tensor:
    """Return the number of pixels in the ring through each pixel (N, S, S)."""
    x, y = pixel_grid(like.shape[-1], like)
    dx, dy = x - ellipse.centre[:, 0, None, None], y - ellipse.centre[:, 1, None, None]
    xx, yy, xy = (part[..., None] for part in stretched(like.new_ones(1), ellipse.stretch))
    squared_radius = yy * dx.square() + xx * dy.square() - 2 * xy * dx * dy
    return (2 * math.pi * _ANNULUS * squared_radius).clamp_min(2)


def radii_before(light: Tensor, variances: Tensor, stretch: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the radii r50, r20 and r80 (N,), pixels, of circles about the light (N, G) of Gaussians before the PSF.

    The first holds half of all light, the others 20 and 80 % of what lies within 1.5 of the Petrosian radius that the
    galaxy has there.
    """
    # The light (N, R) within circles of radii (R,), pixels.
    steps = torch.arange(_RADII, device=light.device, dtype=light.dtype) / (_RADII - 1)
    edges = 0.1 * (10.0 * side) ** steps
    within = light_in_circles(variances, stretch, edges[None])
    growth = torch.bmm(within, light[..., None])[..., 0].cummax(1).values
    half = 0.5 * light.sum(1, keepdim=True)
    area = edges.square()
    local = (growth[:, 2:] - growth[:, :-2]) / (area[2:] - area[:-2])  # surface brightness over pi, as the next
    mean = growth[:, 1:-1] / area[1:-1]
    # Where the ratio first falls below Petrosian's, and between it and the edge before on a line; within half of the
    # light it does so between two nuclei, where that light is a ring.
    excess = (local / mean.clamp_min(1e-12) - PETROSIAN_ETA).detach()
    outside = growth[:, 1:-1] > half
    place = ((excess < 0) & outside).to(torch.int8).argmax(1, keepdim=True).clamp_min(1)
    outer, inner = excess.gather(1, place), excess.gather(1, place - 1)
    part = (inner / (inner - outer).clamp_min(1e-6)).clamp(0, 1)
    logs = edges[1:-1].log()
    petrosian = torch.lerp(logs[place - 1], logs[place], part)
    # Light within the aperture: of the edges beside it, on a line.
    where = (petrosian + math.log(APERTURE) - edges[0].log()) / (edges[1] / edges[0]).log()
    where = where.clamp(0, len(edges) - 1.001)
    below = where.floor().long()
    aperture = torch.lerp(growth.gather(1, below), growth.gather(1, below + 1), where - below)
    goals = (half, *(share * aperture for share in CONCENTRATION_PARTS))
    r50, r20, r80 = (squared_radius(growth, edges, goal)[:, 0].clamp_min(1e-4).sqrt() for goal in goals)
    return r50, r20, r80


def light_in_circles(variances: Tensor, stretch: Tensor, radii: Tensor) -> Tensor:
    """Return the part (N, R, G) of the light of stretched Gaussians (G,) within circles (N, R) or (1, R), pixels.

    In coordinates that make a Gaussian round, the circle is an ellipse; the light within it is a mean over directions.
    """
    length = (stretch.square().sum(1) + 1e-12).sqrt()[:, None]
    turn = (torch.arange(_DIRECTIONS, device=radii.device, dtype=radii.dtype) + 0.5) * (math.pi / 2 / _DIRECTIONS)
    squares = length.exp() * turn.cos().square() + (-length).exp() * turn.sin().square()  # (N, D)
    area = radii.square()[:, :, None, None] / squares[:, None, None]  # (N, R, 1, D)
    return 1 - torch.exp(-0.5 * area / variances[:, None]).mean(3)


def fit_stretch(
    weighted: Tensor, weight: Tensor, start: Tensor, light: Tensor, variances: Tensor, psf: Psf, error: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the stretch (N, 2) of the galaxy before the PSF that shows the moments which were measured.

    Returned as well are the standard deviations (N, 2) of its length, ln(a/b), and of the position angle in radians.

    Noise alone makes round galaxies long. The length is that of the mean ellipticity among all that noise could have
    made what was measured of (see `_expected`).

    Parameters
    ----------
    weighted : Tensor, (N, 3)
        Second moments xx, yy, xy of the observed light under a Gaussian weight, pixels²; they carry the gradient.
    weight : Tensor, (N, 3)
        Those of the weight.
    start : Tensor, (N, 2)
    light, variances : Tensor, (N, G), (G,)
        Of the model's Gaussians.
    psf : Psf
    error : Tensor, (N, 2)
        Standard deviations of the observed distortion, along itself and across.
    """
    observed = _distortion(weighted)
    with torch.no_grad():
        stretch = start
        for _ in range(_ROUNDS):
            stretch = _with_length(stretch, _length(stretch).clamp(_LEAST_STRETCH, _MOST_STRETCH))
            shown = _shown_distortion(stretch, weight, light, variances, psf)
            response = _length(shown).clamp_min(1e-4) / _length(stretch)
            stretch = stretch + _DAMPING * (observed - shown) / response[:, None]
        stretch = _with_length(stretch, _length(stretch).clamp(_LEAST_STRETCH, _MOST_STRETCH))
        shown = _length(_shown_distortion(stretch, weight, light, variances, psf))
        longer = _with_length(stretch, _length(stretch) + 0.1)
        steeper = _length(_shown_distortion(longer, weight, light, variances, psf))
        direction = stretch / _length(stretch)[:, None]
        # The weight stays as it is where the galaxy turns beneath it.
        beside = torch.stack([-direction[:, 1], direction[:, 0]], 1)
        turned = _shown_distortion(stretch + 0.05 * beside, weight, light, variances, psf) - _shown_distortion(
            stretch - 0.05 * beside, weight, light, variances, psf
        )
        along = ((steeper - shown) / 0.1).clamp_min(1e-2)
        across = ((turned * beside).sum(1) / 0.1).clamp_min(1e-2)
        errors = error / torch.stack([along, across], 1)
    # The derivative of the solution, with the weight as it is.
    change = observed - observed.detach()
    radial = (change * direction).sum(1, keepdim=True) * direction
    solved = stretch + radial / along[:, None] + (change - radial) / across[:, None]
    length, deviations = _expected(_length(solved), errors)
    return _with_length(solved, length), deviations


def _expected(length: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the length (N,) of the mean ellipticity, and standard deviations (N, 2) of length and angle in radians.

    All axis ratios are as likely, as those of thin discs are that are seen from anywhere. Normal noise in both numbers
    of a stretch makes of the length L one of the density of Rice (1945) in l, proportional to
    exp(-(l - L)² / 2s²) I0(lL/s²) exp(-lL/s²); angles are spread about the one found as von Mises' distribution of
    concentration lL/s² has them.

    Parameters
    ----------
    length : Tensor, (N,)
        As found; carries the gradient.
    errors : Tensor, (N, 2)
        Standard deviations of the stretch by the noise, along itself and across.
    """
    along, across = errors.clamp_min(1e-3).unbind(1)
    with torch.no_grad():
        low = (length - _NODES_TO * along).clamp(0, 0.9 * _MOST_STRETCH)
        high = (length + _NODES_TO * along).clamp_max(_MOST_STRETCH)
        steps = (torch.arange(_NODES, dtype=length.dtype, device=length.device) + 0.5) / _NODES
        true = low[:, None] + (high - low)[:, None] * steps
    found, variance = length[:, None], along.square()[:, None]
    agrees = -0.5 * (found - true).square() / variance
    belief = torch.exp(agrees - agrees.detach().amax(1, keepdim=True) - true) * scaled_bessel(found * true / variance)
    belief = belief / belief.sum(1, keepdim=True)
    ellipticities = 1 - (-true).exp()
    mean = (belief * ellipticities).sum(1)
    with torch.no_grad():
        ratio = 1 - mean
        deviation = (belief * (ellipticities - mean[:, None]).square()).sum(1).sqrt() / ratio
        concentration = found * true / across.square()[:, None]
        # Of twice the angle 1 / (3/pi² + k²/(k + 1.6)), to 6 % of the deviation for any concentration k.
        inverse = 4 * concentration.square() / (concentration + 1.6) + _ANY_ANGLE**-2
        angle = (belief / inverse).sum(1).sqrt()
    return -torch.log1p(-mean), torch.stack([deviation, angle], 1)


def scaled_bessel(values: Tensor) -> Tensor:
    """Return I0(x) exp(-x) of values x of 0 or more, to 0.6 % (Olivares et al. 2018, J. Phys. Conf. Ser. 1043, 012003).

    PyTorch's own is not to be had on every device.
    """
    squared = values.square()
    rational = (1 + 0.24273 * squared) / (1 + 0.43023 * squared)
    return 0.5 * (1 + torch.exp(-2 * values)) * rational / (1 + 0.25 * squared) ** 0.25


def _length(stretch: Tensor) -> Tensor:
    return (stretch.square().sum(1) + 1e-12).sqrt()


def _with_length(stretch: Tensor, length: Tensor) -> Tensor:
    return stretch * (length / _length(stretch))[:, None]


def _distortion(moments: Tensor) -> Tensor:
    """Return (xx - yy, 2 xy) / (xx + yy), (N, 2), of moments (N, 3)."""
    xx, yy, xy = moments.unbind(1)
    return torch.stack([xx - yy, 2 * xy], 1) / (xx + yy).clamp_min(1e-6)[:, None]


def _shown_distortion(stretch: Tensor, weight: Tensor, light: Tensor, variances: Tensor, psf: Psf) -> Tensor:
    """Return the distortion (N, 2) that blurred Gaussians show together under a Gaussian weight of the same centre."""
    xx, yy, xy = (part[:, None] for part in stretched(variances, stretch))  # (N, 1, G)
    added = psf.variances[..., None] + _PIXEL
    xx, yy = xx + added, yy + added  # (N, K, G)
    w_xx, w_yy, w_xy = (part[:, None, None] for part in weight.unbind(1))
    s_xx, s_yy, s_xy = xx + w_xx, yy + w_yy, xy + w_xy
    determinant = s_xx * s_yy - s_xy.square()
    own = xx * yy - xy.square()
    # Under the weight a Gaussian of covariance C is one of (C^-1 + W^-1)^-1 = (|C| W + |W| C) / |C + W|.
    of_weight = w_xx * w_yy - w_xy.square()
    seen = psf.parts[..., None] * light[:, None] / determinant.sqrt()
    sums = [
        (seen * (own * w + of_weight * c) / determinant).sum((1, 2)) for w, c in ((w_xx, xx), (w_yy, yy), (w_xy, xy))
    ]
    return _distortion(torch.stack(sums, 1) / seen.sum((1, 2)).clamp_min(1e-12)[:, None])
