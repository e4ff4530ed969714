"""What a spectrum would tell of the mock survey's galaxies: star formation, the 4000 Angstrom break, and H-alpha.

Each follows from what is seen, with scatter, so that it is known how much of it a picture can tell. The chain is

1. specific star formation from the colour at rest: galaxies are in the blue cloud or in the red sequence, with little
   between (Schawinski et al. 2014, sections 3 and 4), more active where arms are strong and in encounters of discs;
2. the break from it: from 1.25 of galaxies that form stars to 1.85 of those that do not (Kauffmann et al. 2003, figs. 2
   and 3; Brinchmann et al. 2004, section 4.2, for the run with specific star formation);
3. the equivalent width from it too: star formation makes H-alpha light in proportion (Kennicutt 1998, eq. 2), over the
   continuum of the galaxy's mass and luminosity.

The forms between those ends and all scatters are choices of ours, made to look like the figures named: a logistic step
in colour and in specific star formation, 0.2 dex (the main sequence has 0.2 to 0.3: Noeske et al. 2007), 0.05 of the
break, 0.15 dex and 0.5 Angstrom of the width.
"""

from __future__ import annotations

import numpy as np

from galaxies.common.attributes import Attribute, attribute_defined
from galaxies.mock_survey.galaxy_table import LitTable

_STREAM = 4000  # of random numbers, beside those of the classes
LUCK = 4  # random numbers of a galaxy, standard normal

SPECTRAL_ATTRIBUTES: tuple[Attribute, ...] = tuple(
    attribute_defined(line)
    for line in (
        'log_ssfr:label="Specific star formation",unit="log10 1/yr",scale=linear,low=-13.0,high=-9.0',
        'd4000:label="4000 Angstrom break Dn",unit="",scale=linear,low=1.0,high=2.1',
        'halpha_ew:label="H-alpha equivalent width",unit="Angstrom",scale=asinh,softening=3.0,low=-3.0,high=200.0',
    )
)

_SUN_R = 4.64  # absolute AB magnitude of the Sun in r (Willmer 2018)
# Of the blue cloud and the red sequence, log10 of star formation over mass, 1/yr; where one passes into the other, mag
# of g-r at rest, and how steeply.
_ACTIVE, _PASSIVE = -9.7, -12.0
_GREEN, _STEEPNESS = 0.66, 0.04
_OF_ARMS, _USUAL_ARMS = 0.5, 0.4  # dex for each unit of the arms' strength above the usual one
_OF_ENCOUNTERS = 0.3  # dex; pairs have up to twice the usual (Patton et al. 2013)
_YOUNG_BREAK, _OLD_BREAK = 1.25, 1.85
_BREAK_AT, _BREAK_WIDTH = -10.8, 0.35  # log10 of 1/yr
# Solar masses a year for each erg/s of H-alpha: 7.9e-42 for Salpeter's stars, over 1.5 for those of Kroupa.
_MASS_OF_LIGHT = 7.9e-42 / 1.5
# Continuum of the Sun at 6565 Angstrom, erg/s/Angstrom, of its AB magnitude at 10 parsecs: 3631 Jy are 3.631e-20.
_PARSEC, _SPEED, _HALPHA = 3.0857e18, 2.9979e18, 6564.6  # cm; Angstrom/s; Angstrom in vacuum
_SUN_CONTINUUM = 4 * np.pi * (10 * _PARSEC) ** 2 * 3.631e-20 * 10 ** (-0.4 * _SUN_R) * _SPEED / _HALPHA**2
# Magnitudes by which the line is dimmed more than the stars around it, which are reddened less (Calzetti et al. 2000).
_DUST = 1.0
_ABSORPTION = 1.0  # Angstrom that the atmospheres of old stars take off
# Scatters: dex of star formation, of the break, dex of the line, and Angstrom of the width.
_OF_FORMATION, _OF_BREAK, _OF_LINE, _OF_WIDTH = 0.2, 0.05, 0.15, 0.5


def luck_of_spectra(seed: int, blocks: range, size: int) -> np.ndarray:
    """Return the random numbers (N, `LUCK`) of the galaxies in blocks of a survey, each block by its own number."""
    streams = (np.random.default_rng([seed, block, _STREAM, 0, 0]) for block in blocks)
    return np.concatenate([stream.standard_normal((size, LUCK)) for stream in streams])


def spectral_columns(galaxies: LitTable[np.ndarray], luck: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a spectrum would tell of galaxies of one class, (N,) float64 each, by the names of the attributes.

    Parameters
    ----------
    galaxies : LitTable, N rows
    luck : ndarray, (N, LUCK), float64
        Standard normal numbers.

    Returns
    -------
    dict
        log_ssfr, log10 of the star formation over the stellar mass, 1/yr; d4000, the narrow index (Balogh et al. 1999);
        halpha_ew, Angstrom at rest, positive in emission.
    """
    luminosity = -0.4 * (galaxies.absolute_magnitude - _SUN_R)  # log10 of the Sun's
    log_ssfr = _log_ssfr(galaxies, color_at_rest(galaxies)) + _OF_FORMATION * luck[:, 0]
    old = _step((_BREAK_AT - log_ssfr) / _BREAK_WIDTH)
    d4000 = _YOUNG_BREAK + (_OLD_BREAK - _YOUNG_BREAK) * old + _OF_BREAK * luck[:, 1]
    light = log_ssfr + galaxies.stellar_mass - np.log10(_MASS_OF_LIGHT) - 0.4 * _DUST  # log10 of erg/s
    width = 10 ** (light - luminosity - np.log10(_SUN_CONTINUUM) + _OF_LINE * luck[:, 2])
    return {"log_ssfr": log_ssfr, "d4000": d4000, "halpha_ew": width - _ABSORPTION * old + _OF_WIDTH * luck[:, 3]}


def color_at_rest(galaxies: LitTable[np.ndarray]) -> np.ndarray:
    """Return g-r at rest (N,): that which the stellar mass was made of, see `population.mass_of_light`."""
    per_light = galaxies.stellar_mass + 0.4 * (galaxies.absolute_magnitude - _SUN_R)
    return (per_light + 0.306 + 0.15) / 1.097


def _log_ssfr(galaxies: LitTable[np.ndarray], color: np.ndarray) -> np.ndarray:
    """Return log10 of the specific star formation without scatter."""
    found = _ACTIVE + (_PASSIVE - _ACTIVE) * _step((color - _GREEN) / _STEEPNESS)
    if galaxies.structure.spiral is not None:
        found = found + _OF_ARMS * (galaxies.structure.spiral.arm_strength - _USUAL_ARMS)
    if galaxies.structure.pair is not None:
        found = found + _OF_ENCOUNTERS * (galaxies.structure.pair.dry == 0)
    return found


def _step(place: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-place))
