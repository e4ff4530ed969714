"""Spectra with a galaxy's magnitudes: synthetic photometry by other means, features, flux, and what cannot be had."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from galaxies.spectra.fitting import CLOSE, FAR_CORRECTED, fit_spectrum, reached
from galaxies.spectra.templates import OLD, YOUNG, dust_curve, flux_density

EDGES = [(400.0, 552.0), (552.0, 691.0), (691.0, 818.0), (818.0, 922.0)]


def photometry(wavelength, flux, edges) -> np.ndarray:
    """Return AB magnitudes of a spectrum in nJy, by its photons: f_nu / lambda in each of many fine steps."""
    found = []
    for low, high in edges:
        grid = np.linspace(low, high, 20_001)
        grid = (grid[1:] + grid[:-1]) / 2
        photons = np.interp(grid, wavelength, flux) / grid
        found.append(31.4 - 2.5 * np.log10(photons.sum() / (1 / grid).sum()))
    return np.array(found)


def made(young: float, reddening: float, redshift: float, light: float = 3e4):
    """Return a spectrum of known parts."""
    rest = np.geomspace(120, 3500, 8000)
    stars = (1 - young) * flux_density(OLD, rest) + young * flux_density(YOUNG, rest)
    return rest * (1 + redshift), light * stars * 10 ** (-0.4 * reddening * dust_curve(rest))


@pytest.mark.parametrize("redshift", [0.0, 0.1, 0.45, 0.8])
@pytest.mark.parametrize(("young", "reddening"), [(0.0, 0.0), (0.3, 0.15), (1.0, 0.3)])
def test_what_templates_made_is_found_again(young, reddening, redshift):
    wavelength, flux = made(young, reddening, redshift)
    magnitudes = photometry(wavelength, flux, EDGES)
    found = fit_spectrum(magnitudes, EDGES, redshift)
    assert found.correction == 0
    assert photometry(found.wavelength_nm, found.flux_njy, EDGES) == pytest.approx(magnitudes, abs=0.01)
    seen = (wavelength > 420) & (wavelength < 900)
    again = np.interp(wavelength[seen], found.wavelength_nm, found.flux_njy)
    assert again == pytest.approx(flux[seen], rel=0.06)
    if redshift == 0:
        assert found.young == pytest.approx(young, abs=0.1)
        assert found.reddening == pytest.approx(reddening, abs=0.04)


def test_colors_that_no_stars_have_are_reached_by_a_smooth_change():
    wavelength, flux = made(0.3, 0.1, 0.3)
    magnitudes = photometry(wavelength, flux, EDGES) + np.array([0.15, -0.15, 0.12, -0.1])
    found = fit_spectrum(magnitudes, EDGES, 0.3)
    assert 0.05 < found.correction < FAR_CORRECTED
    assert photometry(found.wavelength_nm, found.flux_njy, EDGES) == pytest.approx(magnitudes, abs=CLOSE)
    assert found.worst <= CLOSE
    steps = np.abs(np.diff(np.log(found.flux_njy / np.interp(found.wavelength_nm, *made(0.3, 0.1, 0.3)))))
    assert steps.max() < 0.02  # no edge was put into it


def test_the_order_of_the_bands_changes_nothing():
    magnitudes = photometry(*made(0.3, 0.1, 0.3), EDGES) + np.array([0.15, -0.15, 0.12, -0.1])
    order = [2, 0, 3, 1]
    found = fit_spectrum(magnitudes[order], [EDGES[k] for k in order], 0.3)
    np.testing.assert_allclose(found.flux_njy, fit_spectrum(magnitudes, EDGES, 0.3).flux_njy, rtol=1e-9)
    np.testing.assert_allclose(found.residuals, fit_spectrum(magnitudes, EDGES, 0.3).residuals[order], atol=1e-9)


@pytest.mark.parametrize("off", [(0.0, 3.0, 0.0, 0.0), (0.0, -2.0, 1.0, 0.0), (1.5, -1.5, 1.5, -1.5)])
def test_magnitudes_far_from_any_stars_are_reached_and_the_change_is_told(off):
    wavelength, flux = made(0.3, 0.1, 0.3)
    magnitudes = photometry(wavelength, flux, EDGES) + np.array(off)
    found = fit_spectrum(magnitudes, EDGES, 0.3)
    assert photometry(found.wavelength_nm, found.flux_njy, EDGES) == pytest.approx(magnitudes, abs=CLOSE)
    assert found.worst <= CLOSE
    assert found.correction > FAR_CORRECTED
    assert np.isfinite(found.flux_njy).all() and (found.flux_njy >= 0).all()


def test_the_change_has_no_kink_and_ends_with_the_bands():
    magnitudes = photometry(*made(0.3, 0.1, 0.3), EDGES) + np.array([0.6, -0.6, 0.5, -0.4])
    found = fit_spectrum(magnitudes, EDGES, 0.3)
    rest = found.wavelength_nm / 1.3
    stars = (1 - found.young) * flux_density(OLD, rest) + found.young * flux_density(YOUNG, rest)
    change = -2.5 * np.log10(found.flux_njy / (stars * 10 ** (-0.4 * found.reddening * dust_curve(rest))))
    middles = [(low + high) / 2 for low, high in EDGES]
    assert np.ptp(change[found.wavelength_nm < middles[0]]) == pytest.approx(0, abs=1e-3)
    assert np.ptp(change[found.wavelength_nm > middles[-1]]) == pytest.approx(0, abs=1e-3)
    slope = np.diff(change) / np.diff(np.log(found.wavelength_nm))
    # Straight lines from band to band would have kinks as high as their slopes, some 10 magnitudes a unit.
    assert np.abs(slope).max() > 5
    assert np.abs(np.diff(slope)).max() < 0.3
    at = [int(np.searchsorted(found.wavelength_nm, middle)) for middle in middles]
    for low, high in pairwise(at):  # rises or falls from band to band, and nothing else
        part = np.diff(change[low + 1 : high])
        assert (part >= -1e-6).all() or (part <= 1e-6).all()


@pytest.mark.parametrize("redshift", [0.0, 0.3, 0.8])
def test_the_break_is_at_400_nm_times_one_plus_redshift(redshift):
    found = fit_spectrum(photometry(*made(0.0, 0.0, redshift), EDGES), EDGES, redshift)
    near = (found.wavelength_nm > 300 * (1 + redshift)) & (found.wavelength_nm < 600 * (1 + redshift))
    place, flux = found.wavelength_nm[near], found.flux_njy[near]
    # Where the logarithm rises most over 3 % of a wavelength.
    rise = np.interp(place * 1.015, place, np.log(flux)) - np.interp(place / 1.015, place, np.log(flux))
    assert place[rise.argmax()] / (1 + redshift) == pytest.approx(396, abs=8)


def test_light_of_twice_the_flux_has_twice_the_spectrum():
    magnitudes = photometry(*made(0.4, 0.1, 0.2), EDGES)
    one, two = (fit_spectrum(magnitudes - shift, EDGES, 0.2) for shift in (0.0, 2.5 * np.log10(2)))
    assert two.flux_njy == pytest.approx(2 * one.flux_njy, rel=1e-6)
    # What all bands together see is conserved.
    whole = [(400.0, 922.0)]
    assert photometry(one.wavelength_nm, one.flux_njy, whole) == pytest.approx(
        photometry(*made(0.4, 0.1, 0.2), whole), abs=0.01
    )


def test_unknown_magnitudes_and_bands_out_of_reach_are_left_out():
    magnitudes = photometry(*made(0.4, 0.1, 0.2), EDGES)
    magnitudes[2] = np.nan
    found = fit_spectrum(magnitudes, EDGES, 0.2)
    assert np.isnan(found.residuals).tolist() == [False, False, True, False]
    assert found.worst < CLOSE
    assert reached([(330.0, 400.0), (400.0, 552.0)], 2.0).tolist() == [False, True]
    assert reached([(3000.0, 3600.0), (3000.0, 3400.0)], 0.0).tolist() == [False, True]
    with pytest.raises(ValueError, match="1 magnitudes, where 2 are needed"):
        fit_spectrum(np.array([20.0, np.nan, np.nan, np.nan]), EDGES, 0.2)
    with pytest.raises(ValueError, match="a redshift of nan"):
        fit_spectrum(magnitudes, EDGES, np.nan)
