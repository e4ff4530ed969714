"""Spectra of old and young stars, K-corrections and dust, against GalSim and published numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from galaxies.spectra import templates as spectra
from galaxies.spectra.templates import OLD, YOUNG, dust_curve, dust_in_bands, rest_ratio, seen_light
from galaxies.telescope.surveys import SurveyBand

FILES = {OLD: "CWW_E_ext.sed", YOUNG: "CWW_Im_ext.sed"}


def band(low: float, high: float) -> SurveyBand:
    return SurveyBand("x", (low + high) / 2, (low, high), 0.8, 21.0, 28.0, 1000.0)


BANDS = [band(*edges) for edges in ((330, 400), spectra.REST_G, spectra.REST_R, (691, 818), (1500, 1780))]


@pytest.mark.parametrize("population", [OLD, YOUNG])
@pytest.mark.parametrize("redshift", [0.0, 0.25, 0.8])
def test_k_corrections_agree_with_galsim(population, redshift):
    galsim = pytest.importorskip("galsim")
    spectrum = galsim.SED(FILES[population], "Angstrom", "flambda")

    def magnitude(edges: tuple[float, float], z: float) -> float:
        flat = galsim.Bandpass(galsim.LookupTable(edges, [1, 1], interpolant="linear"), "nm").withZeropoint("AB")
        return spectrum.atRedshift(z).calculateMagnitude(flat)

    seen = seen_light(population, BANDS, np.array([redshift]))[0]
    at_rest = magnitude(spectra.REST_R, 0.0)
    expected = [magnitude(b.edges_nm, redshift) - at_rest for b in BANDS]
    np.testing.assert_allclose(-2.5 * np.log10(seen), expected, atol=0.035)  # of 3 %, and smoothing


def test_the_light_of_a_flat_spectrum_is_dimmed_by_nothing_but_the_stretch(monkeypatch):
    monkeypatch.setitem(spectra._SPECTRA, "flat", ((120.0, 1.0), (3500.0, 1.0)))
    seen = seen_light("flat", BANDS[1:3], np.array([0.0, 0.5]))
    np.testing.assert_allclose(seen, [[1, 1], [1.5, 1.5]], rtol=1e-3)  # Hogg et al. (2002), eq. 8


def test_a_power_law_has_its_closed_form(monkeypatch):
    monkeypatch.setitem(spectra._SPECTRA, "slope", ((120.0, 1.2), (3500.0, 35.0)))  # f_nu ~ wavelength
    seen = seen_light("slope", BANDS[1:2], np.array([0.5]))[0, 0]
    means = [(high - low) / np.log(high / low) for low, high in (spectra.REST_G, spectra.REST_R)]
    assert seen == pytest.approx(1.5 * means[0] / 1.5 / means[1], rel=1e-3)


@pytest.mark.parametrize("population", [OLD, YOUNG])
def test_flux_densities_are_counted_in_that_of_r(population):
    wavelength = np.geomspace(*spectra.REST_R, 4001)
    steps = (wavelength[1:] * wavelength[:-1]) ** 0.5  # equal in the logarithm
    assert spectra.flux_density(population, steps).mean() == pytest.approx(1, abs=2e-3)


def test_colors_of_nearby_galaxies():
    # Fukugita, Shimasaku & Ichikawa (1995), Table 3: g'-r' and r'-i' of ellipticals; irregulars are bluest.
    sdss = [band(*edges) for edges in ((400, 552), (552, 691), (691, 818))]
    old = -2.5 * np.log10(seen_light(OLD, sdss, np.array([0.0]))[0])
    assert -np.diff(old) == pytest.approx([0.77, 0.39], abs=0.07)
    assert -2.5 * np.log10(rest_ratio(OLD)) == pytest.approx(old[0] - old[1])
    assert 0.1 < -2.5 * np.log10(rest_ratio(YOUNG)) < 0.3


def test_redshift_moves_the_break_through_the_bands():
    griz = [band(*edges) for edges in ((400, 552), (552, 691), (691, 818), (818, 922))]
    light = -2.5 * np.log10(seen_light(OLD, griz, np.array([0.05, 0.3, 0.6, 0.95])))
    colors = light[:, :-1] - light[:, 1:]
    steepest = np.diff(colors, axis=0).argmax(1)
    assert steepest[0] == 0  # the break at 400 nm leaves g, then r, then i
    assert steepest[1] == 1
    assert steepest[2] == 2


def test_dust_is_that_of_calzetti():
    assert float(dust_curve(np.array(550.0))) == pytest.approx(4.05, abs=0.02)  # R_V
    blue, visual = dust_curve(np.array([440.0, 550.0]))
    assert blue - visual == pytest.approx(1, abs=0.03)  # E(B - V) = 1
    assert (np.diff(dust_curve(np.linspace(120, 2200, 200))) < 0).all()
    assert float(dust_curve(np.array(3400.0))) == 0


def test_dust_far_away_dims_what_its_own_frame_has():
    r = replace(band(*spectra.REST_R), wavelength_nm=float(np.mean(spectra.REST_R)))
    near, far = dust_in_bands([r], np.array([0.0, 1.0]))[:, 0]
    assert near == pytest.approx(1)
    assert far == pytest.approx(float(dust_curve(np.mean(spectra.REST_R) / 2) / dust_curve(np.mean(spectra.REST_R))))
