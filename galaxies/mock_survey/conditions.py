"""What the telescope adds to a mock galaxy: seeing, noise, the frame, and the stars and galaxies beside it."""

from __future__ import annotations

import math

import numpy as np

from galaxies.datasets.sources.galaxy_zoo import FRAME_PX, FRAME_SCALE_R90
from galaxies.mock_survey.galaxy_table import Exposure, Neighbours

MAX_NEIGHBOURS = 10  # K of a `Neighbours` table


def draw_observation(petro_r90: np.ndarray, r90_error: float, rng: np.random.Generator) -> Exposure[np.ndarray]:
    """Draw seeing, noise, and the frame that the survey's own, slightly wrong, R90 gives.

    Parameters
    ----------
    petro_r90 : ndarray, (N,), float64
        Petrosian R90 before seeing, arcseconds.
    r90_error : float
        Mean error of the natural logarithm of the survey's R90.
    rng : numpy.random.Generator

    Returns
    -------
    Exposure of ndarray, float64
    """
    count = len(petro_r90)
    fwhm = np.exp(rng.normal(0, 0.1, count))
    seen_r90 = np.hypot(petro_r90, 0.8 * fwhm) * np.exp(rng.normal(r90_error, 0.17, count))
    return Exposure(
        psf_fwhm=fwhm[:, None] * np.array([1.07, 1.0, 0.96]),
        sky_noise=np.array([0.0162, 0.0352, 0.047]) * np.exp(rng.normal(0, 0.15, (count, 1))),
        sky_error=rng.normal(-0.13, 0.1, (count, 1)) + rng.normal(0, 0.04, (count, 3)),
        misregistration=rng.normal(0, 0.05, (count, 3, 2)),
        centre=rng.normal(0, 0.011, (count, 2)),
        frame_scale=FRAME_SCALE_R90 * seen_r90,
    )


def draw_neighbours(frame_scale: np.ndarray, rng: np.random.Generator) -> Neighbours[np.ndarray]:
    """Draw the stars and small galaxies that a frame happens to hold.

    Parameters
    ----------
    frame_scale : ndarray, (N,), float64
        Arcseconds a pixel of the 424-pixel frame.
    rng : numpy.random.Generator

    Returns
    -------
    Neighbours of ndarray, float64
        Of `MAX_NEIGHBOURS` objects, of which many are none.
    """
    width = FRAME_PX * frame_scale
    area = (width / 3600) ** 2  # square degrees
    shape = (len(frame_scale), MAX_NEIGHBOURS)
    # Counts at high Galactic latitude to r = 22.5: about 20,000 galaxies and 6,000 stars a square degree; galaxies
    # have company.
    number = rng.poisson(40_000 * area).clip(max=MAX_NEIGHBOURS)
    present = np.arange(MAX_NEIGHBOURS) < number[:, None]
    star = rng.random(shape) < 0.25
    # Counts grow as 10^(0.4 m) for galaxies and 10^(0.2 m) for stars.
    slope = np.where(star, 0.2, 0.4)
    magnitude = 22.5 + np.log10(rng.random(shape)) / slope
    magnitude = magnitude.clip(np.where(star, 14.0, 16.5))
    red_star = rng.random(shape) < 0.4
    star_gr = np.where(red_star, rng.normal(1.4, 0.08, shape), rng.normal(0.55, 0.15, shape))
    star_ri = np.where(red_star, rng.normal(0.7, 0.3, shape), 0.36 * star_gr)
    galaxy_gr = rng.normal(0.85, 0.35, shape)
    gr = np.where(star, star_gr, galaxy_gr)
    ri = np.where(star, star_ri, 0.05 + 0.4 * galaxy_gr)
    flux = np.where(present, 10 ** (0.4 * (22.5 - magnitude)), 0.0)[..., None]
    size = np.exp(rng.normal(math.log(0.7), 0.35, shape)) * 10 ** (0.1 * (21 - magnitude))
    return Neighbours(
        flux=flux * np.stack([10 ** (-0.4 * gr), np.ones(shape), 10 ** (0.4 * ri)], -1),
        size=np.where(star, 0.0, size.clip(max=1.2)),
        axis_ratio=rng.uniform(0.35, 1.0, shape),
        angle=rng.uniform(0, math.pi, shape),
        place=rng.uniform(-0.5, 0.5, (*shape, 2)) * width[:, None, None],  # arcseconds
    )
