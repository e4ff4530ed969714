"""Small fields of the sky of known truth: Gaussian stars and galaxies, whose light and sizes have closed forms.

A Gaussian galaxy of standard deviation s, seen through a Gaussian PSF of p, is a Gaussian of sqrt(s² + p²); half of its
light lies within 1.1774 of its standard deviation.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

HALF_LIGHT = math.sqrt(2 * math.log(2))  # of a circular Gaussian, standard deviations
FWHM = 2 * HALF_LIGHT


class MadeField(NamedTuple):
    """Sources of a field: positions from 0, standard deviations of galaxies (0: a star) in pixels, and flux (N, B)."""

    shape: tuple[int, int]
    x: np.ndarray
    y: np.ndarray
    sigma: np.ndarray
    flux: np.ndarray

    @property
    def is_star(self) -> np.ndarray:
        return self.sigma == 0


def make_field(
    side: int = 360, bands: int = 2, seed: int = 0, num_stars: int = 30, num_galaxies: int = 24
) -> MadeField:
    """Place stars and galaxies on a jittered lattice, so that none hides another."""
    rng = np.random.default_rng(seed)
    count = num_stars + num_galaxies
    across = math.ceil(math.sqrt(count))
    places = rng.permutation(across**2)[:count]
    step = side / across
    x, y = ((part + 0.5) * step + rng.uniform(-3, 3, count) for part in (places % across, places // across))
    sigma = np.where(np.arange(count) < num_stars, 0, rng.uniform(2.0, 3.5, count))
    flux = 10 ** rng.uniform(4.2, 5.0, (count, 1)) * 10 ** rng.uniform(0, 0.4, (count, bands))
    return MadeField((side, side), x, y, sigma, flux)


def picture(
    field: MadeField, band: int, psf: float = 1.4, noise: float = 10.0, seed: int = 1, stretch=None
) -> np.ndarray:
    """Return a band of a field: (height, width) float64, in the unit of its flux.

    `stretch` maps positions and sizes to another grid: (x, y) -> (x, y), and pixels of it a pixel of the field.
    """
    height, width = field.shape
    x, y, size = field.x, field.y, 1.0
    if stretch is not None:
        (x, y), size = stretch[0](field.x, field.y), stretch[1]
        height, width = stretch[2]
    image = np.random.default_rng(seed).normal(0, noise, (height, width)) if noise else np.zeros((height, width))
    for k in range(len(x)):
        spread = math.sqrt(field.sigma[k] ** 2 + psf**2) * size
        reach = math.ceil(6 * spread)
        low_y, low_x = max(round(y[k]) - reach, 0), max(round(x[k]) - reach, 0)
        rows, columns = (
            np.arange(low_y, min(round(y[k]) + reach, height)),
            np.arange(low_x, min(round(x[k]) + reach, width)),
        )
        if len(rows) and len(columns):
            down = np.exp(-0.5 * ((rows - y[k]) / spread) ** 2)
            along = np.exp(-0.5 * ((columns - x[k]) / spread) ** 2)
            image[low_y : low_y + len(rows), low_x : low_x + len(columns)] += (
                field.flux[k, band] * down[:, None] * along / (2 * math.pi * spread**2)
            )
    return image


def write_frame(path: Path, image: np.ndarray, header: dict | None = None) -> Path:
    """Write an image as single precision to a FITS file."""
    from astropy.io import fits

    unit = fits.PrimaryHDU(image if image.dtype.kind in "iu" else image.astype(np.float32))
    unit.header.update(header or {})
    unit.writeto(path)
    return path


def sky_header(
    side: tuple[int, int], scale: float = 0.3, angle: float = 0.0, ra: float = 150.0, dec: float = 2.0
) -> dict:
    """Return world coordinates (TAN) of an image whose centre lies at a position in degrees."""
    turn, step = math.radians(angle), scale / 3600
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": (side[1] + 1) / 2,
        "CRPIX2": (side[0] + 1) / 2,
        "CD1_1": -step * math.cos(turn),
        "CD1_2": step * math.sin(turn),
        "CD2_1": step * math.sin(turn),
        "CD2_2": step * math.cos(turn),
    }
