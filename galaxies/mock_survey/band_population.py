"""The galaxies of the mock survey in any bands: what a telescope finds, and how bright each part is in each band.

Shapes, luminosities, colours at rest, masses and sizes are those of the display survey (`population.py`). Here the
colours come from spectra (`galaxies/spectra/templates.py`): each part of a galaxy is a mixture of old and young stars
behind dust that has the part's colour at rest, so that colours tell the redshift, arms and star-forming knots are blue
and dust lanes red by as much as the band and the redshift make of it.

Kept are galaxies that the survey resolves, that fit the frame, and that stand out of the noise. Redshifts are drawn
evenly as far as there are such galaxies, and not by volume: networks learn most from data that cover a range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from config_physics import AB_ZERO_POINT
from galaxies.common.cosmology import arcsec_per_kpc, distance_modulus
from galaxies.common.errors import UserError
from galaxies.mock_survey import population
from galaxies.mock_survey.classes import Family, mock_class
from galaxies.mock_survey.galaxy_table import BandExposure, BandTable, Palette, Structure, joined
from galaxies.mock_survey.structure import normal_within
from galaxies.spectra import templates as spectra
from galaxies.telescope.profiles import AIRY
from galaxies.telescope.surveys import Survey

REDSHIFT_RANGE = (0.03, 0.8)
MIN_SIGNAL_TO_NOISE = 40.0  # of the light within the half-light radius, in the reference band
_REFERENCE_NM = 625.0  # the reference band is the one nearest to this
_RADIUS_RANGE = (1 / 18, 1 / 7.5)  # of half of the light, frame widths; see `Frame.smallest`
_COARSEST = 4.0  # pixels, over the survey's own
_PAIR_RADIUS = 0.65  # of a pair's primary over that of a galaxy alone
_LUMINOSITIES = (-24.0, -14.0)  # absolute magnitudes in r for which there are colours
_TRIALS = (
    64  # of a galaxy, from its redshift down to the lowest, of which the first that the survey would keep is taken
)
# Galaxies of the past: brighter and bluer (magnitudes a unit of redshift), and smaller (power of 1 + z; van der Wel et
# al. 2014 for late types; for early ones less than theirs, for those were selected by their colour).
_BRIGHTENING, _BLUING_OLD, _BLUING_YOUNG = 1.0, 0.1, 0.15
_SHRINKING_LATE, _SHRINKING_EARLY = 0.75, 1.0
_SEEING_SPREAD, _SEEING_SPREAD_OF_BAND = 0.06, 0.02  # natural logarithm; on the ground
_SKY_SPREAD = 0.05
_ARM_CONTRAST = (0.45, 0.8)  # of the light of old stars alone, and what young ones add to it
_MOST_CONTRAST = 1.05  # beyond which there would be less than no light between the arms
_MORE_YOUNG_OUTSIDE = 0.12  # in what an encounter pulls out: part of the light in r


class Frame(NamedTuple):
    """What is observed with: a survey, in how many pixels a side, of how many arcseconds; and what is kept.

    Kept are galaxies whose half-light radii are at least `smallest` times what is usual: the width of the PSF, or the
    18th part of the frame where that is larger. Below 1 there are galaxies whose sizes the blur hides.
    """

    survey: Survey
    image_size: int
    pixel_scale: float
    smallest: float = 1.0

    @property
    def reference(self) -> int:
        """The place of the band nearest to r among the survey's."""
        return int(np.argmin([abs(band.wavelength_nm - _REFERENCE_NM) for band in self.survey.bands]))


def check_frame(frame: Frame) -> None:
    """Refuse pixels on which there are no galaxies to draw.

    Raises
    ------
    UserError
        If no galaxy that the survey resolves fits the frame, or pixels are too large to show one.
    """
    survey, size = frame.survey, frame.image_size
    least = survey.bands[frame.reference].psf_fwhm / (_RADIUS_RANGE[1] * size)
    most = _COARSEST * survey.pixel_scale
    if not least <= frame.pixel_scale <= most:
        raise UserError(
            f"{survey.name} has no galaxies for {size} pixels of {frame.pixel_scale:g} arcseconds: choose "
            f"--pixel-scale from {math.ceil(1000 * least) / 1000:g} to {most:g}"
        )


class Part(NamedTuple):
    """What bands see of a part of N galaxies over what r would see of it at rest, and the young stars' part in that.

    light, young, (N, B).
    """

    light: np.ndarray
    young: np.ndarray


class _Trials(NamedTuple):
    """Galaxies that a survey might find, T for each of N: (N, T) of each."""

    redshift: np.ndarray
    magnitude_r: np.ndarray
    old_gr: np.ndarray
    disc_gr: np.ndarray
    stellar_mass: np.ndarray
    size: np.ndarray


def draw_blocks(
    morphology: str,
    counts: Sequence[int],
    streams: Sequence[np.random.Generator],
    frame: Frame,
    chosen_by: Frame | None = None,
) -> BandTable[np.ndarray]:
    """Draw blocks of galaxies of one class, one after the other in the table, each from its own stream.

    A block holds the same galaxies as alone. They are those that `chosen_by` would find, by default what they are
    observed with.

    Raises
    ------
    ValueError
        If the mock survey does not know the class.
    """
    family = mock_class(morphology).family
    chosen_by = frame if chosen_by is None else chosen_by
    blocks = zip(counts, streams, strict=True)
    return joined([_draw_block(morphology, family, *block, frame, chosen_by) for block in blocks])


def _draw_block(
    morphology: str, family: Family, count: int, rng: np.random.Generator, frame: Frame, chosen_by: Frame
) -> BandTable[np.ndarray]:
    shapes = population.draw_structure(morphology, count, rng)
    petro_r50, petro_r90 = population.petrosian_radii(shapes, [np.arange(count)])
    trials = _draw_trials(family, shapes, rng)
    dust = np.where(shapes.old > 0, 0.0, 0.06 + 0.2 * (1 - shapes.axis_ratio) + rng.uniform(0, 0.1, count))
    taken = _found(family, shapes, trials, petro_r50, dust, chosen_by)
    one = _Trials(*(column[np.arange(count), taken] for column in trials))
    return _table(family, shapes, one, dust, (petro_r50, petro_r90), rng, frame)


def draw_at(
    morphology: str, redshift: float, magnitude: float, radius: float, rng: np.random.Generator, frame: Frame
) -> BandTable[np.ndarray]:
    """Draw one galaxy of a class where and as bright and large as is wanted, whatever a survey would keep.

    Parameters
    ----------
    morphology : str
    redshift : float
        Above 0 and at most 2, as far as there are spectra.
    magnitude : float
        AB, in the frame's reference band, of all of its light.
    radius : float
        Petrosian half-light radius, arcseconds.
    rng : numpy.random.Generator
    frame : Frame
        Of which only the survey's bands matter here.

    Raises
    ------
    ValueError
        If the mock survey does not know the class.
    """
    family = mock_class(morphology).family
    shapes = population.draw_structure(morphology, 1, rng)
    radii = population.petrosian_radii(shapes, [np.arange(1)])
    dust = np.where(shapes.old > 0, 0.0, 0.06 + 0.2 * (1 - shapes.axis_ratio) + rng.uniform(0, 0.1, 1))
    z = np.array([redshift])
    # As if r were seen at rest, which is near enough for a colour; the light is scaled to the magnitude below.
    absolute = np.clip(magnitude - distance_modulus(z) + _BRIGHTENING * z, *_LUMINOSITIES)
    old_gr, disc_gr = population.colors_at_rest(
        family, shapes.axis_ratio, shapes.old, absolute, rng.normal(0, 0.035, 1), rng.normal(0, 0.1, 1)
    )
    fraction = shapes.bulge_fraction
    mass = population.mass_of_light(absolute, disc_gr * (1 - fraction) + old_gr * fraction)
    one = _Trials(z, absolute, old_gr, disc_gr, mass, radius / radii[0])
    bulge, disc = _parts(family, one, dust, frame)
    place = frame.reference
    seen = _light_at_rest(absolute, z) * (fraction * bulge.light[:, place] + (1 - fraction) * disc.light[:, place])
    one = one._replace(magnitude_r=absolute + magnitude - (AB_ZERO_POINT - 2.5 * np.log10(seen)))
    return _table(family, shapes, one, dust, (radii[0], radii[1]), rng, frame)


def _table(
    family: Family,
    shapes: Structure[np.ndarray],
    one: _Trials,
    dust: np.ndarray,
    petrosian: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    frame: Frame,
) -> BandTable[np.ndarray]:
    """Return what follows from galaxies' shapes, luminosities, distances and colours."""
    petro_r50, petro_r90 = petrosian
    bulge, disc = _parts(family, one, dust, frame)
    at_rest = _light_at_rest(one.magnitude_r, one.redshift)
    fraction = shapes.bulge_fraction
    disc_flux = (at_rest * (1 - fraction))[:, None] * disc.light
    bulge_flux = (at_rest * fraction)[:, None] * bulge.light
    total = (disc_flux + bulge_flux)[:, frame.reference]
    scale = arcsec_per_kpc(one.redshift)
    return BandTable(
        redshift=one.redshift,
        absolute_magnitude=one.magnitude_r - _BRIGHTENING * one.redshift,
        magnitude=AB_ZERO_POINT - 2.5 * np.log10(total),
        stellar_mass=one.stellar_mass,
        disc_flux=disc_flux,
        bulge_flux=bulge_flux,
        size=one.size,
        petro_r50=petro_r50 * one.size,
        petro_r90=petro_r90 * one.size,
        petro_r50_kpc=petro_r50 * one.size / scale,
        structure=shapes,
        palette=_palette(one, bulge, disc, dust, at_rest * (1 - fraction), frame),
        exposure=_draw_exposure(len(dust), rng, frame),
    )


def _draw_trials(family: Family, s: Structure[np.ndarray], rng: np.random.Generator) -> _Trials:
    shape = (len(s.axis_ratio), _TRIALS)
    low, high = REDSHIFT_RANGE
    nearer = np.linspace(1, 0, _TRIALS)
    redshift = low + (high - low) * rng.random((shape[0], 1)) * nearer
    mean, sigma = family.magnitude, family.magnitude_spread
    magnitude_r = normal_within(rng, mean, sigma, mean - 2 * sigma, mean + 2.5 * sigma, shape)
    old = s.old[:, None]
    old_gr, disc_gr = population.colors_at_rest(
        family, s.axis_ratio[:, None], old, magnitude_r, rng.normal(0, 0.035, shape), rng.normal(0, 0.1, shape)
    )
    fraction = s.bulge_fraction[:, None]
    mass = population.mass_of_light(magnitude_r, disc_gr * (1 - fraction) + old_gr * fraction)
    size = population.size_of_mass(mass, old) * family.size_factor * np.exp(rng.normal(0, 0.28, shape))
    size = size * (1 + redshift) ** -np.where(old > 0, _SHRINKING_EARLY, _SHRINKING_LATE)
    return _Trials(redshift, magnitude_r, old_gr, disc_gr, mass, size * arcsec_per_kpc(redshift))


def _found(
    family: Family, s: Structure[np.ndarray], trials: _Trials, petro_r50: np.ndarray, dust: np.ndarray, frame: Frame
) -> np.ndarray:
    """Return which trial of each galaxy is taken, (N,): the first that the survey keeps, or else the nearest to it."""
    band = frame.survey.bands[frame.reference]
    width = frame.image_size * frame.pixel_scale
    low, high = frame.smallest * max(_RADIUS_RANGE[0] * width, band.psf_fwhm), _RADIUS_RANGE[1] * width
    radius = petro_r50[:, None] * trials.size
    if s.pair is not None:
        low, high = _PAIR_RADIUS * low, _PAIR_RADIUS * high
    only = frame._replace(survey=_with_bands(frame.survey, frame.reference))
    flat = _Trials(*(column.ravel() for column in trials))
    bulge, disc = _parts(family, flat, np.repeat(dust, _TRIALS), only)
    fraction = s.bulge_fraction[:, None]
    light = [part.light[:, 0].reshape(radius.shape) for part in (bulge, disc)]
    flux = _light_at_rest(trials.magnitude_r, trials.redshift) * (fraction * light[0] + (1 - fraction) * light[1])
    pixels = np.pi * (radius / frame.pixel_scale) ** 2
    noise = np.sqrt(pixels * band.sky_noise(frame.pixel_scale) ** 2 + band.photon_variance * flux / 2)
    lacking = np.log(low / radius).clip(0) + np.log(radius / high).clip(0)
    lacking += np.log(MIN_SIGNAL_TO_NOISE * noise / (flux / 2)).clip(0)
    return lacking.argmin(1)  # the first of equals


def _with_bands(survey: Survey, *places: int) -> Survey:
    return Survey(
        survey.name,
        survey.pixel_scale,
        survey.profile,
        survey.obscuration,
        tuple(survey.bands[place] for place in places),
    )


def _light_at_rest(magnitude_r: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Return the flux in nanojansky that r would see at rest; `magnitude_r` is absolute, as of today."""
    seen = magnitude_r - _BRIGHTENING * redshift + distance_modulus(redshift)
    return 10 ** (0.4 * (AB_ZERO_POINT - seen))


def _parts(family: Family, one: _Trials, dust: np.ndarray, frame: Frame) -> tuple[Part, Part]:
    """Return bulge, or other old stars, and disc or body of galaxies."""
    bands = frame.survey.bands
    disc = mixture(one.disc_gr - _BLUING_YOUNG * one.redshift, dust, bands, one.redshift)
    if not family.red_bulge:
        return disc, disc
    return mixture(one.old_gr - _BLUING_OLD * one.redshift, np.zeros_like(dust), bands, one.redshift), disc


def mixture(gr: np.ndarray, dust: np.ndarray, bands: Sequence[spectra.SurveyBand], redshift: np.ndarray) -> Part:
    """Mix old and young stars to a colour at rest.

    Parameters
    ----------
    gr : ndarray, (N,)
        g-r at rest, magnitudes, with the dust.
    dust : ndarray, (N,)
        E(B - V), magnitudes. Where even old stars behind it are too blue for the colour, or young ones too red, it is
        changed until they fit.
    bands : sequence of SurveyBand, (B,)
    redshift : ndarray, (N,)

    Returns
    -------
    Part
    """
    g, r = spectra.dust_curve(np.array([np.mean(spectra.REST_G), np.mean(spectra.REST_R)]))
    wanted = 10 ** (-0.4 * (gr - dust * (g - r)))  # light in g over that in r
    old, young = spectra.rest_ratio(spectra.OLD), spectra.rest_ratio(spectra.YOUNG)
    share = ((wanted - old) / (young - old)).clip(0, 1)
    mixed = old + share * (young - old)
    reddening = dust - 2.5 * np.log10(wanted / mixed) / (g - r)
    young_light = share[:, None] * spectra.seen_light(spectra.YOUNG, bands, redshift)
    light = young_light + (1 - share)[:, None] * spectra.seen_light(spectra.OLD, bands, redshift)
    dimmed = 10 ** (-0.4 * reddening[:, None] * r * (spectra.dust_in_bands(bands, redshift) - 1))
    return Part(light * dimmed, young_light / light)


def _palette(
    one: _Trials, bulge: Part, disc: Part, dust: np.ndarray, disc_at_rest: np.ndarray, frame: Frame
) -> Palette[np.ndarray]:
    bands = frame.survey.bands
    young = spectra.seen_light(spectra.YOUNG, bands, one.redshift)
    # In the outskirts some of the old stars' light is the young ones'.
    more = _MORE_YOUNG_OUTSIDE * (young - spectra.seen_light(spectra.OLD, bands, one.redshift)) / disc.light
    return Palette(
        arm_contrast=np.minimum(_ARM_CONTRAST[0] + _ARM_CONTRAST[1] * disc.young, _MOST_CONTRAST),
        knot_color=young / disc.light,
        dust_opacity=spectra.dust_in_bands(bands, one.redshift),
        outskirt_color=(1 + more).clip(0.5, 2.0),
        reference_disc=disc_at_rest,
        old_light=bulge.light,
    )


def _draw_exposure(count: int, rng: np.random.Generator, frame: Frame) -> BandExposure[np.ndarray]:
    bands = frame.survey.bands
    spread = rng.normal(0, _SEEING_SPREAD, (count, 1)) + rng.normal(0, _SEEING_SPREAD_OF_BAND, (count, len(bands)))
    if frame.survey.profile == AIRY:  # no air
        spread = np.zeros_like(spread)
    sky = np.array([band.sky_noise(frame.pixel_scale) for band in bands])
    return BandExposure(
        psf_fwhm=np.array([band.psf_fwhm for band in bands]) * np.exp(spread),
        sky_noise=sky * np.exp(rng.normal(0, _SKY_SPREAD, (count, 1)) + rng.normal(0, 0.02, (count, len(bands)))),
        centre=rng.uniform(-0.5, 0.5, (count, 2)),
    )
