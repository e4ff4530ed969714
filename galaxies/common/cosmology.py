"""Distances in the standard cosmology: how large and how bright a galaxy at a redshift looks from here.

Flat universe of matter and a cosmological constant, H0 = 70 km/s/Mpc and Omega_m = 0.3, radiation neglected
(Hogg 1999, "Distance measures in cosmology", eqs. 14-15, 18, 20 and 25).

Ours, since astropy's `FlatLambdaCDM(70, 0.3)` is the same to 1e-8 but integrates with scipy, which training would
then load, since it may render a mock survey first; a test holds these distances against astropy's.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

HUBBLE_CONSTANT = 70.0  # km/s/Mpc
OMEGA_MATTER = 0.3
_HUBBLE_DISTANCE_MPC = 299_792.458 / HUBBLE_CONSTANT
# The integrand is smooth: 24 nodes are exact to 1e-9 up to redshift 10.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def comoving_distance(redshift: np.ndarray) -> np.ndarray:
    """Return the line-of-sight comoving distance in Mpc for redshifts of any shape, 0 to 10."""
    redshift = np.asarray(redshift, dtype=np.float64)
    z = redshift[..., None] * (_NODES + 1) / 2
    inverse_e = 1 / np.sqrt(OMEGA_MATTER * (1 + z) ** 3 + 1 - OMEGA_MATTER)
    return _HUBBLE_DISTANCE_MPC * redshift / 2 * (inverse_e * _WEIGHTS).sum(-1)


def distance_modulus(redshift: np.ndarray) -> np.ndarray:
    """Return m - M in magnitudes, from the luminosity distance (1 + z) times the comoving one; redshift > 0."""
    redshift = np.asarray(redshift, dtype=np.float64)
    return 5 * np.log10((1 + redshift) * comoving_distance(redshift)) + 25


def arcsec_per_kpc(redshift: np.ndarray) -> np.ndarray:
    """Return the angle in arcseconds of a proper kiloparsec across the line of sight; redshift > 0."""
    redshift = np.asarray(redshift, dtype=np.float64)
    angular_distance_kpc = 1000 * comoving_distance(redshift) / (1 + redshift)
    return math.degrees(1) * 3600 / angular_distance_kpc


def redshift_at(modulus: np.ndarray) -> np.ndarray:
    """Invert `distance_modulus` for redshifts from 0.0001 to 1 by interpolation, to 1e-6 in redshift."""
    return np.interp(modulus, *_modulus_table())


@cache
def _modulus_table() -> tuple[np.ndarray, np.ndarray]:
    grid = np.geomspace(1e-4, 1.0, 4000)
    return distance_modulus(grid), grid
