"""A field of LSST's in r that GalSim draws, with none of our own code for light: `evaluate.py field` reads it.

    python -m tests.validation.galsim_field fields/galsim --area 25

Number counts are those of the LSST Science Book (2009, eq. 3.7), 46 x 10^(0.31 (i - 25)) galaxies an arcmin² brighter
than i, with r - i = 0.4; half-light radii have a median of 0.45 arcsec at r = 24, smaller by 22 % a magnitude, and a
scatter of 0.4 in the natural logarithm; four of five are exponential discs, the others de Vaucouleurs spheroids, with
axis ratios even from 0.25 to 1. Places are drawn evenly, without clusters.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from astropy.io import fits

from galaxies.telescope.surveys import find_survey
from tests.validation.mock_fields import SCALE, Source, write_field

_HALF = 48  # of a galaxy's stamp, pixels
_DRAWN = 20_000  # points of a profile, of which the half-light radius about its centre is the median distance


def circle_radius(axis_ratio: float, bulge: bool) -> float:
    """Return the radius of the circle that holds half of the light, over that of the ellipse's sqrt(a b)."""
    stream = np.random.default_rng(0)
    radius = (stream.gamma(8, size=_DRAWN) / 7.6692) ** 4 if bulge else stream.gamma(2, size=_DRAWN) / 1.6783
    angle = stream.uniform(0, 2 * np.pi, _DRAWN)
    root = math.sqrt(axis_ratio)
    return float(np.median(np.hypot(radius * np.cos(angle) / root, radius * np.sin(angle) * root)))


def draw_field(folder: Path, area: float, seed: int = 11, faintest: float = 27.0) -> None:
    """Write a field of `area` square arcminutes with galaxies to the magnitude `faintest`."""
    import galsim

    band = find_survey("LSST", ["r"]).bands[0]
    sky, photons = band.sky_noise(SCALE), band.photon_variance
    side = round(math.sqrt(area) * 60 / SCALE)
    stream = np.random.default_rng(seed)
    count = stream.poisson(46 * 10 ** (0.31 * (faintest - 25.4)) * area)
    magnitude = np.clip(faintest + np.log10(stream.uniform(size=count)) / 0.31, 18.5, None)
    size = np.exp(math.log(0.45) - 0.25 * (magnitude - 24) + stream.normal(0, 0.4, count)).clip(0.06, 2)
    ratio, angle = stream.uniform(0.25, 1, count), stream.uniform(0, 180, count)
    bulges = stream.uniform(size=count) < 0.2
    psf = galsim.Kolmogorov(fwhm=band.psf_fwhm)
    light = np.zeros((side + 2 * _HALF, side + 2 * _HALF))
    sources, snr = [], []
    for k, (x, y) in enumerate(stream.uniform(0, side - 1, (count, 2)).tolist()):
        left, top = round(x) - _HALF, round(y) - _HALF
        profile = galsim.DeVaucouleurs if bulges[k] else galsim.Exponential
        galaxy = profile(half_light_radius=size[k], flux=10 ** (0.4 * (31.4 - magnitude[k])))
        galaxy = galaxy.shear(q=ratio[k], beta=angle[k] * galsim.degrees)
        image = galsim.Image(2 * _HALF, 2 * _HALF, scale=SCALE)
        offset = x - left - _HALF + 0.5, y - top - _HALF + 0.5
        large = galsim.GSParams(maximum_fft_size=16384)
        seen = galsim.Convolve(galaxy, psf, gsparams=large).drawImage(image, offset=offset).array
        light[top + _HALF : top + 3 * _HALF, left + _HALF : left + 3 * _HALF] += seen
        snr.append(math.sqrt((seen.clip(0) ** 2 / (sky**2 + photons * seen.clip(0))).sum()))
        radius = size[k] * circle_radius(ratio[k], bulges[k])
        sources.append(Source(x, y, galaxy.flux, radius, "galaxy", 1 - ratio[k], angle[k]))
    blur = psf.drawImage(galsim.Image(33, 33, scale=SCALE)).array
    inner = light[_HALF:-_HALF, _HALF:-_HALF]
    write_field(folder, sources, inner, sky, photons, psf=blur / blur.sum(), fwhm=band.psf_fwhm, seed=1)
    with fits.open(folder / "truth.fits", mode="update") as units:
        units[1].data["snr_r"] = snr
    facts = json.loads((folder / "field.json").read_text())
    facts |= {"survey": "LSST", "source": "GalSim", "counts": "LSST Science Book", "faintest_magnitude": faintest}
    facts["bands"][0]["exposure_s"] = band.exposure_s
    (folder / "field.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--area", type=float, default=25.0, metavar="ARCMIN2")
    parser.add_argument("--seed", type=int, default=11, metavar="N")
    options = parser.parse_args()
    draw_field(options.out, options.area, options.seed)
