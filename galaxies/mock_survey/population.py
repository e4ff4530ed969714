"""The galaxies of the mock survey: what they are, how far away, how large, how bright and of which colours.

Luminosities and redshifts are those of a flux-limited survey between Galaxy Zoo 2 (r < 17, Petrosian R90 above 3
arcseconds; Willett et al. 2013) and the SDSS main galaxy sample (r < 17.77; Strauss et al. 2002). Masses follow from
colours (Bell et al. 2003), sizes from masses (Shen et al. 2003), angles and magnitudes from the standard cosmology.
What is left free was chosen to match real galaxies class by class (`studies/realism.py`). Everything is numpy in
float64, the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from config_physics import MORPHOLOGY_NAMES
from galaxies.common.cosmology import arcsec_per_kpc, distance_modulus, redshift_at
from galaxies.mock_survey import sersic
from galaxies.mock_survey.classes import Family, mock_class
from galaxies.mock_survey.conditions import draw_neighbours, draw_observation
from galaxies.mock_survey.galaxy_table import GalaxyTable, Luminosity, Structure, joined
from galaxies.mock_survey.structure import normal_within

MAGNITUDE_LIMIT = 17.5
REDSHIFT_RANGE = (0.01, 0.25)
_SUN_R = 4.64  # absolute AB magnitude of the Sun in r (Willmer 2018)
_RED_GR, _RED_RI = 0.76, 0.39  # colours of old stars at redshift 0


def draw_galaxies(morphology: str, count: int, rng: np.random.Generator) -> GalaxyTable[np.ndarray]:
    """Draw galaxies of one class with everything that a picture of them needs.

    Raises
    ------
    ValueError
        If the mock survey does not know the class.
    """
    return draw_blocks(morphology, [count], [rng])


def draw_blocks(
    morphology: str, counts: Sequence[int], streams: Sequence[np.random.Generator]
) -> GalaxyTable[np.ndarray]:
    """Draw blocks of galaxies of one class, one after the other in the table, each from its own stream.

    A block holds the same galaxies as alone; what follows from the random numbers is computed for all of them at once.

    Raises
    ------
    ValueError
        If the mock survey does not know the class.
    """
    structure = joined([draw_structure(morphology, *block) for block in zip(counts, streams, strict=True)])
    family = mock_class(morphology).family
    ends = np.cumsum(counts)
    rows = [np.arange(end - count, end) for count, end in zip(counts, ends, strict=True)]
    luminosity = _luminosity_and_distance(family, structure, rows, streams)
    exposures, neighbours = [], []
    for block, rng in zip(rows, streams, strict=True):
        exposures.append(draw_observation(luminosity.petro_r90[block], family.r90_error, rng))
        neighbours.append(draw_neighbours(exposures[-1].frame_scale, rng))
    return GalaxyTable(
        **vars(luminosity), structure=structure, exposure=joined(exposures), neighbours=joined(neighbours)
    )


def draw_structure(morphology: str, count: int, rng: np.random.Generator) -> Structure[np.ndarray]:
    """Draw shapes that do not depend on distance; lengths in half-light radii or scale lengths.

    Raises
    ------
    ValueError
        If the mock survey does not know the class.
    """
    entry = mock_class(morphology)
    position_angle = rng.uniform(0, math.pi, count)
    shape = entry.draw_shape(count, rng)
    # Bulge size over the disc's scale length; bigger bulges are larger (Gadotti 2009).
    bulge_size = np.exp(rng.normal(math.log(0.2), 0.25, count)) * (1 + 2 * shape.bulge_fraction) * shape.bulge_growth
    flattening = rng.uniform(0.0, 0.5, count)
    return Structure(
        position_angle=position_angle,
        axis_ratio=shape.axis_ratio,
        old=np.zeros(count) if shape.old is None else shape.old,
        bulge_n=shape.bulge_n,
        bulge_fraction=shape.bulge_fraction,
        bulge_size=bulge_size,
        bulge_axis_ratio=np.sqrt(flattening * shape.axis_ratio**2 + 1 - flattening),
        spiral=shape.spiral,
        edge_on=shape.edge_on,
        pair=shape.pair,
        other=shape.other,
        inclination=shape.inclination,
    )


def _luminosity_and_distance(
    family: Family, s: Structure[np.ndarray], blocks: Sequence[np.ndarray], streams: Sequence[np.random.Generator]
) -> Luminosity[np.ndarray]:
    """Draw absolute magnitudes, distances within the survey's limits, colours, masses and angular sizes.

    `blocks` are the rows of the galaxies that share each of the streams. A block is drawn again until the survey would
    have picked each of its galaxies at least once.
    """
    radii = petrosian_radii(s, blocks)
    todo = np.ones(len(s.axis_ratio), dtype=bool)
    drawn: Luminosity[np.ndarray] | None = None
    waiting = list(zip(blocks, streams, strict=True))
    for _ in range(60):
        rows = np.concatenate([block for block, _ in waiting])
        luck = joined([_draw_luck(family, len(block), rng) for block, rng in waiting])
        trial = _trial(family, s.axis_ratio[rows], s.old[rows], s.bulge_fraction[rows], radii[:, rows], luck)
        if drawn is None:
            drawn = trial
        else:
            wanted = todo[rows]
            for name, column in vars(drawn).items():
                column[rows[wanted]] = getattr(trial, name)[wanted]
        todo[rows] &= ~((trial.petro_r90 > family.min_r90) & (trial.redshift > REDSHIFT_RANGE[0]))
        waiting = [(block, rng) for block, rng in waiting if todo[block].any()]
        if not waiting:
            break
    assert drawn is not None
    drawn.petro_r90 = drawn.petro_r90.clip(family.min_r90)
    return drawn


@dataclass
class _Luck:
    """Random numbers of N galaxies, (N,) each: absolute magnitude; part of the volume; scatter of colours and size."""

    magnitude: np.ndarray
    volume: np.ndarray
    red: np.ndarray
    blue: np.ndarray
    ri: np.ndarray
    size: np.ndarray


def _draw_luck(family: Family, count: int, rng: np.random.Generator) -> _Luck:
    mean, sigma = family.magnitude, family.magnitude_spread
    return _Luck(
        magnitude=normal_within(rng, mean, sigma, mean - 2 * sigma, mean + 2.5 * sigma, count),
        volume=rng.random(count),
        red=rng.normal(0, 0.035, count),
        blue=rng.normal(0, 0.14, count),
        ri=rng.normal(0, 0.025, count),
        size=rng.normal(0, 0.28, count),
    )


def _trial(
    family: Family,
    axis_ratio: np.ndarray,
    old: np.ndarray,
    bulge_fraction: np.ndarray,
    petrosian_radii: np.ndarray,
    luck: _Luck,
) -> Luminosity[np.ndarray]:
    """Compute what depends on luminosity and distance, whether or not the survey would have picked it."""
    magnitude_r = luck.magnitude
    # A flux-limited volume: uniform in the cube of the distance up to where the galaxy is too faint.
    farthest = MAGNITUDE_LIMIT - magnitude_r
    modulus = farthest + 5 * np.log10(luck.volume) / 3
    redshift = redshift_at(modulus).clip(REDSHIFT_RANGE[0], REDSHIFT_RANGE[1])

    red_gr, disc_gr = colors_at_rest(family, axis_ratio, old, magnitude_r, luck.red, luck.blue)
    disc_ri = 0.04 + 0.46 * disc_gr + luck.ri
    # The spectrum moves through the bands: linear K-corrections, steeper for old stars (sizes as Chilingarian et
    # al. 2010 give them for g-r and r-i below redshift 0.25).
    redness = ((disc_gr - 0.3) / 0.45).clip(0, 1)
    disc_gr_seen = disc_gr + redshift * (0.7 + 1.3 * redness)
    disc_ri_seen = disc_ri + redshift * (0.2 + 0.4 * redness)
    bulge_gr_seen = red_gr + 2.0 * redshift
    bulge_ri_seen = _RED_RI + 0.6 * redshift + 0.46 * (red_gr - _RED_GR)

    magnitude = magnitude_r + distance_modulus(redshift) + redshift * (0.6 + 0.4 * redness)
    fraction = bulge_fraction
    total = 10 ** (0.4 * (22.5 - magnitude))  # nanomaggies in r
    disc_flux = (total * (1 - fraction))[:, None] * _band_ratios(disc_gr_seen, disc_ri_seen)
    if not family.red_bulge:
        bulge_gr_seen, bulge_ri_seen = disc_gr_seen, disc_ri_seen
    bulge_flux = (total * fraction)[:, None] * _band_ratios(bulge_gr_seen, bulge_ri_seen)

    mean_gr = disc_gr * (1 - fraction) + red_gr * fraction
    mass = mass_of_light(magnitude_r, mean_gr)
    size_kpc = size_of_mass(mass, old) * np.exp(luck.size) * family.size_factor
    size = size_kpc * arcsec_per_kpc(redshift)
    petro_r50, petro_r90 = (size * radius for radius in petrosian_radii)
    return Luminosity(
        redshift=redshift,
        absolute_magnitude=magnitude_r,
        magnitude=magnitude,
        stellar_mass=mass,
        disc_flux=disc_flux,
        bulge_flux=bulge_flux,
        size=size,
        petro_r50=petro_r50,
        petro_r90=petro_r90,
        petro_r50_kpc=petro_r50 / arcsec_per_kpc(redshift),
    )


def colors_at_rest(
    family: Family,
    axis_ratio: np.ndarray,
    old: np.ndarray,
    magnitude_r: np.ndarray,
    red_luck: np.ndarray,
    blue_luck: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return g-r of a galaxy's old stars and of its disc or body; the shapes broadcast, `luck` is scatter in mag.

    The red sequence is tight; blue galaxies are redder when luminous or inclined.
    """
    tilt = -0.02 * (magnitude_r + 21)
    red_gr = _RED_GR + tilt + red_luck
    blue_gr = 0.42 + family.reddening - 0.055 * (magnitude_r + 21) + 0.12 * (1 - axis_ratio)
    blue_gr = np.minimum(blue_gr + blue_luck, red_gr)
    return red_gr, np.where(old > 0, red_gr, blue_gr)


def mass_of_light(magnitude_r: np.ndarray, gr: np.ndarray) -> np.ndarray:
    """Return log10 of the stellar mass in solar masses (Bell et al. 2003, Table 7, less 0.15 for Kroupa's stars)."""
    return -0.306 + 1.097 * gr - 0.15 - 0.4 * (magnitude_r - _SUN_R)


def _band_ratios(gr: np.ndarray, ri: np.ndarray) -> np.ndarray:
    """Return fluxes in g, r and i over that in r, (N, 3)."""
    return np.stack([10 ** (-0.4 * gr), np.ones_like(gr), 10 ** (0.4 * ri)], 1)


def size_of_mass(mass: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Return the median half-light radius in kpc at a mass (Shen et al. 2003, eqs. 17 and 18, Table 1)."""
    m = 10**mass
    early = 2.88e-6 * m**0.56
    late = 0.1 * m**0.14 * (1 + m / 3.98e10) ** (0.39 - 0.14)
    return np.where(old > 0, early, late)


def petrosian_radii(s: Structure[np.ndarray], blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Return Petrosian R50 and R90, (2, N), in units of the main component's half-light radius, before seeing.

    Circular apertures, Petrosian ratio 0.2, flux within two Petrosian radii (Blanton et al. 2001).
    """
    whole = np.zeros(len(s.bulge_fraction), dtype=bool) if s.pair is None else s.pair.dry > 0  # no disc at all
    fraction = np.where(whole, 1.0, s.bulge_fraction)
    n = s.bulge_n if s.bulge_n.ndim == 1 else s.bulge_n[:, 0]
    radius = np.geomspace(0.05, 8.0, 56)
    disc = _aperture_light(radius, np.ones_like(n), s.axis_ratio, blocks)
    scale = np.where(whole, 1.0, s.bulge_size / 1.678)
    bulge_ratio = np.where(whole, s.axis_ratio, s.bulge_axis_ratio)
    bulge = _aperture_light(radius / scale[:, None], n, bulge_ratio, blocks)
    growth = fraction[:, None] * bulge + (1 - fraction)[:, None] * disc  # (N, radii)
    ring = _between(1.25 * radius[None], radius, growth) - _between(0.8 * radius[None], radius, growth)
    ratio = ring / (1.25**2 - 0.8**2) / growth
    petrosian = radius[np.argmax(ratio < 0.2, 1)]
    flux = _between(2 * petrosian[:, None], radius, growth)
    wanted = np.array([0.5, 0.9]) * flux
    return np.array([np.interp(*each, radius) for each in zip(wanted, growth, strict=True)]).reshape(-1, 2).T


def _between(at: np.ndarray, radius: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Interpolate curves (N, K), known at rising radii (K,), at (N or 1, Q) others, as `np.interp` does one curve."""
    lower = (np.searchsorted(radius, at, "right") - 1).clip(0, len(radius) - 2)
    where = np.broadcast_to(lower, (len(curves), at.shape[1]))
    below, above = (np.take_along_axis(curves, where + step, 1) for step in (0, 1))
    slope = (above - below) / (radius[lower + 1] - radius[lower])
    inside = np.where(at == radius[lower], below, slope * (at - radius[lower]) + below)
    return np.where(at < radius[0], curves[:, :1], np.where(at >= radius[-1], curves[:, -1:], inside))


def _aperture_light(
    radius: np.ndarray, n: np.ndarray, axis_ratio: np.ndarray, blocks: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the part of elliptical Sersic profiles' light in circles of given radii (over the semi-major axis)."""
    index = torch.from_numpy(n)[:, None, None]
    # One block at a time: PyTorch's vectors of numbers end elsewhere in longer tensors, and with them the last bit.
    each = [sersic.profile_constants(index[torch.from_numpy(block)]) for block in blocks]
    b, whole = (torch.cat(parts) for parts in zip(*each, strict=True))
    angle = (np.arange(16) + 0.5) * math.pi / 32
    stretch = np.sqrt(np.cos(angle) ** 2 + (np.sin(angle) / axis_ratio[:, None]) ** 2)  # (N, angles)
    radii = torch.from_numpy(np.broadcast_to(radius, (len(n), radius.shape[-1]))[:, :, None] * stretch[:, None])
    light = sersic.enclosed_light(radii, index, (b, whole)).numpy()
    return (light / stretch[:, None] ** 2).mean(-1) / axis_ratio[:, None]


def class_of(index: np.ndarray) -> np.ndarray:
    """Return the class names of the survey's galaxies by number: the classes in turn."""
    return np.array(MORPHOLOGY_NAMES)[index % len(MORPHOLOGY_NAMES)]
