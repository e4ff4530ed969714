"""A painted cell against GalSim: sources by its own profiles, at the truth's places, through its own telescope."""

import math

import numpy as np
import pytest
import torch

from galaxies.mock_field import painting
from galaxies.mock_field.counts import DeepCounts
from galaxies.mock_field.field_folder import GALAXY, STAR, truth_dtype
from galaxies.mock_field.making import facts_of
from galaxies.mock_field.painting import Sky, paint
from galaxies.mock_field.sources import GroupOfLight
from galaxies.telescope.surveys import find_survey

galsim = pytest.importorskip("galsim")
EXACT = galsim.GSParams(folding_threshold=3e-4, maxk_threshold=1e-3, maximum_fft_size=16384)
SIDE, RATIO, ANGLE = 192, 0.6, 35.0  # of light; axis ratio; degrees


class Discs:
    """Light of inclined exponential discs, drawn by GalSim on fine pixels."""

    def replaced(self, wanted):
        return {}

    def draw(self, wanted):
        scale = 10.0 * wanted.radius / SIDE
        light = [
            disc(flux, radius).drawImage(nx=SIDE, ny=SIDE, scale=fine, dtype=float).array
            for flux, radius, fine in zip(10 ** (0.4 * (31.4 - wanted.magnitude)), wanted.radius, scale, strict=True)
        ]
        images = torch.from_numpy(np.stack(light)[:, None]).float()
        return [GroupOfLight(np.arange(len(scale)), images, torch.from_numpy(scale).float(), wanted.redshift)]


def disc(flux, radius):
    shear = galsim.Shear(q=RATIO, beta=ANGLE * galsim.degrees)
    return galsim.Exponential(half_light_radius=float(radius), flux=float(flux), gsparams=EXACT).shear(shear)


def psf_of(survey):
    band = survey.bands[0]
    if survey.profile == "kolmogorov":
        return galsim.Kolmogorov(fwhm=band.psf_fwhm, gsparams=EXACT)
    # An obscured mirror's full width over lambda / D, by its intensity (Born & Wolf, section 8.5.2).
    from scipy.optimize import brentq
    from scipy.special import j1

    e = survey.obscuration

    def above_half(x):
        amplitude = j1(math.pi * x) - e * j1(math.pi * e * x)
        return (2 * amplitude / (math.pi * x) / (1 - e**2)) ** 2 - 0.5

    return galsim.Airy(lam_over_diam=band.psf_fwhm / (2 * brentq(above_half, 0.2, 0.9)), obscuration=e, gsparams=EXACT)


@pytest.mark.parametrize(("name", "band"), [("LSST", "i"), pytest.param("Euclid_VIS", "IE", marks=pytest.mark.slow)])
def test_light_of_a_cell_is_what_galsim_draws(name, band, monkeypatch):
    survey = find_survey(name, [band])
    scale = survey.pixel_scale
    sources = [(GALAXY, 11.3, 14.8, 20.0, 0.7), (GALAXY, 24.9, 9.1, 22.0, 0.3), (STAR, 16.2, 27.7, 19.0, 0.0)]

    def rows(sky, cell):
        truth = np.zeros(len(sources), truth_dtype([band]))
        for row, (kind, x, y, magnitude, radius) in zip(truth, sources, strict=True):
            row["kind"], row["x"], row["y"] = kind, x / scale, y / scale
            row[f"magnitude_{band}"], row["size_arcsec"] = magnitude, radius
        truth["id"] = 1 + np.arange(len(sources))
        return truth

    monkeypatch.setattr(painting, "catalogue_of", rows)
    facts = facts_of(survey, 0.45, 1, 25.0, "", "", "")
    picture = paint(Sky(facts, survey.profile, survey.obscuration, Discs(), DeepCounts(25.0), 0.0), (0, 0))
    seen = np.zeros(facts.shape)
    height, width = picture.brightest.shape
    seen[picture.row : picture.row + height, picture.column : picture.column + width] = picture.light[0]
    psf, noise = psf_of(survey), facts.bands[0].sky_noise
    wanted = np.zeros(facts.shape)
    for kind, x, y, magnitude, radius in sources:
        flux = 10 ** (0.4 * (31.4 - magnitude))
        profile = psf * flux if kind == STAR else galsim.Convolve(disc(flux, radius), psf, gsparams=EXACT)
        image = galsim.Image(*facts.shape[::-1], scale=scale, dtype=float)
        offset = galsim.PositionD(x / scale - (facts.width_px - 1) / 2, y / scale - (facts.height_px - 1) / 2)
        wanted += profile.drawImage(image, offset=offset).array
    light = wanted > 0.2 * noise
    assert seen[light].sum() == pytest.approx(wanted[light].sum(), rel=1e-3)
    assert np.abs(seen - wanted)[light].max() < 2e-4 * wanted.max()
    assert np.abs(seen - wanted)[~light].max() < 0.2 * noise  # where wings end
    sizes = picture.truth["size_arcsec"]
    assert sizes[:2] == pytest.approx([radius_of(0.7), radius_of(0.3)], rel=0.01)
    assert picture.truth["ellipticity"][:2] == pytest.approx([1 - RATIO] * 2, abs=0.01)
    assert picture.truth["position_angle"][:2] == pytest.approx([ANGLE] * 2, abs=0.5)


def radius_of(radius):
    return disc(1.0, radius).calculateHLR()
