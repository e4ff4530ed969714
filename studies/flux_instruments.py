"""How well photometry of flux measures: Sersic galaxies that GalSim renders with PSF and noise, against their truth.

    python studies/flux_instruments.py --count 200

prints bias (median error), scatter (1.48 times the median deviation from it) and the mean absolute error of magnitude,
half-light radius and ellipticity by signal-to-noise ratio, and the spread of the flux's error over its estimate, for
PSFs that are a Gaussian and a Moffat profile. A minute of one core.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.command_line import Parser, run_script
from galaxies.measure.flux import FluxPhotometry, measure_flux
from galaxies.measure.flux_model import psf_width
from galaxies.measure.photometry import NO_SOURCE

SIDE = 64
FLUX = 1e4  # nJy


class Truth(NamedTuple):
    """What was drawn: images without noise (N, S, S); Sersic index, pixels, axis ratio, degrees, pixels (N,)."""

    images: np.ndarray
    sersic_index: np.ndarray
    half_light: np.ndarray
    axis_ratio: np.ndarray
    angle: np.ndarray
    fwhm: np.ndarray


class Errors(NamedTuple):
    """Measured less true (N,): magnitudes; relative; 1 - b/a; flux over its estimated error. And who was found."""

    magnitude: np.ndarray
    radius: np.ndarray
    ellipticity: np.ndarray
    pull: np.ndarray
    found: np.ndarray


def circle_with_half(index: float, axis_ratio: float) -> float:
    """Return the radius of the circle with half the light of an inclined Sersic galaxy whose ellipse sqrt(ab) is 1."""
    from scipy.optimize import brentq
    from scipy.special import gammainc, gammaincinv

    angle = (np.arange(256) + 0.5) / 256 * 2 * np.pi
    stretch = np.sqrt(np.cos(angle) ** 2 * axis_ratio + np.sin(angle) ** 2 / axis_ratio)
    b = gammaincinv(2 * index, 0.5)
    light = lambda radius: float((gammainc(2 * index, b * (radius * stretch) ** (1 / index)) / stretch**2).mean())  # noqa: E731
    return float(brentq(lambda radius: light(radius) - 0.5, 0.2, 5))


def draw(count: int, seed: int, moffat: bool = False) -> Truth:
    """Draw galaxies of Sersic index 0.5 to 4, half-light radius 1.5 to 8 px, PSF 2.5 to 4 px wide at half its peak."""
    import galsim

    random = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    fine = galsim.GSParams(maximum_fft_size=20_000)
    for _ in range(count):
        index, radius, ratio = random.uniform(0.5, 4), random.uniform(1.5, 8), random.uniform(0.25, 1)
        angle, fwhm, offset = random.uniform(0, 180), random.uniform(2.5, 4), random.uniform(-0.5, 0.5, 2)
        galaxy = galsim.Sersic(n=index, half_light_radius=radius, flux=FLUX)
        galaxy = galaxy.shear(q=ratio, beta=angle * galsim.degrees).shift(*offset)
        psf = galsim.Moffat(beta=3.5, fwhm=fwhm) if moffat else galsim.Gaussian(fwhm=fwhm)
        image = galsim.Convolve(galaxy, psf, gsparams=fine).drawImage(nx=SIDE, ny=SIDE, scale=1).array
        width = fwhm
        if moffat:  # as of an image of a star
            star = torch.from_numpy(psf.drawImage(nx=41, ny=41, scale=1).array)
            width = float(psf_width(star[None, None]))
        rows.append((image.copy(), index, radius * circle_with_half(index, ratio), ratio, angle, width))
    return Truth(*(np.array(column) for column in zip(*rows, strict=True)))


def observe(truth: Truth, significance: float, seed: int = 0, bands: int = 1) -> tuple[FluxPhotometry, Errors]:
    """Add white noise for a signal-to-noise ratio of all bands together, sqrt(sum of I²) / sigma, and measure."""
    random = np.random.default_rng(seed)
    sigma = np.sqrt((truth.images**2).sum((1, 2)) * bands) / significance
    noise = random.normal(size=(len(sigma), bands, SIDE, SIDE)) * sigma[:, None, None, None]
    images = torch.from_numpy((truth.images[:, None] + noise).astype(np.float32))
    widths = torch.from_numpy(truth.fwhm)[:, None].expand(-1, bands).float()
    found = measure_flux(images, 1.0, psf_fwhm=widths)
    errors = Errors(
        found.magnitude[:, 0].numpy() - (31.4 - 2.5 * np.log10(FLUX)),
        found.size_arcsec.numpy() / truth.half_light - 1,
        found.ellipticity.numpy() - (1 - truth.axis_ratio),
        (found.flux[:, 0] - FLUX).numpy() / found.flux_error[:, 0].numpy(),
        (found.flag.numpy() & NO_SOURCE) == 0,
    )
    return found, errors


def bias_and_scatter(errors: np.ndarray) -> tuple[float, float]:
    """Return the median, and 1.4826 times the median deviation from it, which is a normal distribution's deviation."""
    middle = float(np.median(errors))
    return middle, 1.4826 * float(np.median(np.abs(errors - middle)))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = Parser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, metavar="N", help="galaxies (default: 200)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the galaxies (default: 1)")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    for moffat in (False, True):
        truth = draw(options.count, options.seed, moffat)
        print(
            f"{options.count} galaxies through a {'Moffat' if moffat else 'Gaussian'} PSF: bias, scatter (mean |error|)"
        )
        print("  S/N  found   magnitude               radius                  ellipticity             flux pull")
        for significance in (10, 20, 50, 100, 300, 1000):
            _, errors = observe(truth, significance)
            cells = [f"{significance:5d}", f"{errors.found.mean():5.2f}"]
            for values in errors[:3]:
                middle, scatter = bias_and_scatter(values[errors.found])
                cells.append(f"{middle:+7.3f} {scatter:6.3f} ({np.abs(values[errors.found]).mean():.3f})")
            middle, scatter = bias_and_scatter(errors.pull[errors.found])
            print("  ".join([*cells, f"{middle:+6.2f} {scatter:5.2f}"]))


if __name__ == "__main__":
    run_script(main)
