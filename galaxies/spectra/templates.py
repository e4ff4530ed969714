"""Spectra of old and young stars and the dust before them, and what bands of any survey see of them at a redshift.

The spectra are those of ellipticals and of irregulars by Coleman, Wu & Weedman (1980, ApJS 43, 393), continued below
140 nm and beyond 1 micrometre by Bolzonella, Miralles & Pello (2000, A&A 363, 476) with models of Bruzual & Charlot
(1993), as GalSim hands them on (CWW_E_ext and CWW_Im_ext); here smoothed to a resolution of about 100 and thinned
to lines between some fifty points, which they keep to within 3 %. Mixed, the two reach from the red to the blue end of
the colours of galaxies.

A band sees the mean of the flux density over the logarithm of wavelength within its edges, as a detector that counts
photons does through an open filter (Hogg et al. 2002, eqs. 5 and 8). Dust dims by the law of Calzetti et al. (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from galaxies.telescope.surveys import SurveyBand

OLD, YOUNG = "old", "young"
REST_R = (552.0, 691.0)  # nanometres: the band in which spectra have unit flux at rest
REST_G = (400.0, 552.0)
_RESOLUTION = 4000  # points of the integrals, equally spaced in the logarithm of wavelength
RANGE = (120.0, 3500.0)  # nanometres at rest that the templates cover
RESOLVING_POWER = 100  # wavelength over the width of the finest feature
# Wavelength in nanometres, flux density a unit of frequency over that at 620 nm.
# fmt: off
_SPECTRA: dict[str, tuple[tuple[float, float], ...]] = {
    "old": (
        (120, 0.00121), (121.3, 0.00117), (123.8, 0.00155), (127.8, 0.00166), (129.9, 0.00156), (131.8, 0.00166),
        (135.3, 0.00167), (137.9, 0.00156), (140.2, 0.00135), (143.7, 0.00157), (150.8, 0.00157), (180, 0.00212),
        (189.8, 0.0025), (208.8, 0.00377), (219, 0.00437), (239.6, 0.00403), (248.7, 0.00452), (259.1, 0.00626),
        (269.3, 0.0113), (288, 0.0238), (298.5, 0.0334), (308.7, 0.039), (319.5, 0.0617), (349.5, 0.0839),
        (357.2, 0.0856), (369, 0.115), (373.7, 0.113), (381.8, 0.0978), (385.1, 0.0986), (391.5, 0.12),
        (400.2, 0.201), (404.7, 0.236), (416, 0.245), (426.4, 0.276), (450, 0.426), (478.6, 0.559), (516.5, 0.579),
        (533.3, 0.716), (587.4, 0.854), (608.3, 0.995), (633.3, 0.996), (658, 1.13), (700.2, 1.24), (719.5, 1.21),
        (749.4, 1.44), (794, 1.4), (827.4, 1.61), (851.8, 1.59), (875.7, 1.79), (911.3, 1.95), (941.9, 1.92),
        (997.4, 2.24), (1031, 2.33), (1377, 2.62), (1406, 2.53), (1475, 2.68), (1535, 2.99), (1700, 3.27),
        (1981, 2.63), (2205, 2.5),
    ),
    "young": (
        (120, 0.13), (120.9, 0.118), (121.3, 0.117), (121.9, 0.127), (123.1, 0.176), (123.8, 0.196), (124.6, 0.204),
        (126.3, 0.201), (128, 0.217), (129.9, 0.199), (131.8, 0.217), (135.2, 0.219), (138, 0.204), (140.1, 0.177),
        (144.2, 0.208), (147.6, 0.199), (182.1, 0.259), (289.7, 0.322), (317.3, 0.352), (349.3, 0.414),
        (360.2, 0.412), (365.1, 0.447), (370.8, 0.676), (373.2, 0.74), (375, 0.715), (378.8, 0.574), (380.7, 0.557),
        (386.2, 0.614), (395, 0.62), (404.3, 0.694), (429.1, 0.709), (451.1, 0.789), (477.2, 0.821), (485.4, 0.956),
        (491.6, 0.963), (498.1, 1.26), (500.5, 1.32), (502.9, 1.25), (508.8, 0.898), (515.8, 0.838), (724, 1.17),
        (995.4, 1.71), (1285, 1.64), (1538, 1.81), (1585, 1.75), (1634, 1.79), (1788, 1.69), (2205, 1.33),
    ),
}
# fmt: on


def seen_light(population: str, bands: Sequence[SurveyBand], redshift: np.ndarray) -> np.ndarray:
    """Return what bands see of stars over what r would see of them at rest and the same distance, without dust.

    -2.5 log10 of it is the K-correction from r to the band (Hogg et al. 2002, eq. 2).

    Parameters
    ----------
    population : str
        `OLD` or `YOUNG`.
    bands : sequence of SurveyBand, (B,)
    redshift : ndarray, (N,), 0 to 2

    Returns
    -------
    ndarray, (N, B), float64
        Ratios of flux densities a unit of frequency.
    """
    stretch = 1 + np.asarray(redshift, dtype=np.float64)[:, None]
    low, high = (np.array([band.edges_nm[end] for band in bands]) for end in (0, 1))
    return stretch * _mean(population, low / stretch, high / stretch)


def rest_ratio(population: str) -> float:
    """Return the flux density in g over that in r of stars at rest."""
    return float(_mean(population, *(np.array(edge) for edge in REST_G)))


def dust_curve(wavelength_nm: np.ndarray) -> np.ndarray:
    """Return the extinction k in magnitudes for E(B - V) = 1 (Calzetti et al. 2000, eq. 4).

    Parameters
    ----------
    wavelength_nm : ndarray, any shape, 120 to 3500 nanometres
    """
    micron = np.asarray(wavelength_nm, dtype=np.float64) / 1000
    blue = 2.659 * (-2.156 + 1.509 / micron - 0.198 / micron**2 + 0.011 / micron**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 / micron) + 4.05
    return np.where(micron < 0.63, blue, red).clip(0)


def dust_in_bands(bands: Sequence[SurveyBand], redshift: np.ndarray) -> np.ndarray:
    """Return the extinction in bands of dust at a redshift (N,), over that in r at rest: (N, B)."""
    wavelength = np.array([band.wavelength_nm for band in bands])
    return dust_curve(wavelength / (1 + np.asarray(redshift)[:, None])) / dust_curve(np.array(np.mean(REST_R)))


def _mean(population: str, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return means over the logarithm of wavelength between edges in nanometres, over that of r at rest."""
    place, total = _integral(population)
    edges = [np.interp(np.log(edge), place, total) for edge in (low, high, *map(np.array, REST_R))]
    width = np.log(high / low), np.log(REST_R[1] / REST_R[0])
    return (edges[1] - edges[0]) / width[0] / ((edges[3] - edges[2]) / width[1])


def flux_density(population: str, wavelength_nm: np.ndarray) -> np.ndarray:
    """Return the flux density a unit of frequency of stars at rest over what r sees of them, without dust.

    Parameters
    ----------
    population : str
        `OLD` or `YOUNG`.
    wavelength_nm : ndarray, any shape, 120 to 3500 nanometres
    """
    place, total = _integral(population)
    edges = np.log(REST_R)
    in_r = np.diff(np.interp(edges, place, total))[0] / (edges[1] - edges[0])
    return _density(population, np.log(np.asarray(wavelength_nm, dtype=np.float64))) / in_r


def _density(population: str, place: np.ndarray) -> np.ndarray:
    """Return the flux density of the table at logarithms of wavelength."""
    wavelength, flux = np.array(_SPECTRA[population]).T
    # Beyond the last point, the tail of a hot body (Rayleigh & Jeans).
    wavelength, flux = np.append(wavelength, RANGE[1]), np.append(flux, flux[-1] * (wavelength[-1] / RANGE[1]) ** 2)
    return np.exp(np.interp(place, np.log(wavelength), np.log(flux)))


@cache
def _integral(population: str) -> tuple[np.ndarray, np.ndarray]:
    """Return logarithms of wavelength, and the integral of the flux density over them from the first on."""
    place = np.log(np.geomspace(RANGE[0], RANGE[1], _RESOLUTION))
    density = _density(population, place)
    steps = np.diff(place) * (density[1:] + density[:-1]) / 2
    return place, np.append(0.0, steps.cumsum())
