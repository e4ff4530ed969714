"""Surveys by name: the numbers of surveycodex, and the noise that follows from them."""

from __future__ import annotations

import math
import sys

import pytest

from galaxies.common.errors import UserError
from galaxies.telescope.surveys import find_survey

pytest.importorskip("surveycodex")


def test_a_survey_in_the_bands_asked_for():
    lsst = find_survey("lsst", ("z", "R"))
    assert (lsst.name, lsst.pixel_scale, lsst.profile) == ("LSST", 0.2, "kolmogorov")
    assert [band.name for band in lsst.bands] == ["z", "r"]
    r = lsst.bands[1]
    assert (r.psf_fwhm, r.sky_brightness, r.zero_point, r.exposure_s) == (0.81, 21.2, 28.13, 5520)
    assert r.wavelength_nm == pytest.approx(625, abs=1)
    # A source of the zero point's magnitude gives an electron a second.
    assert r.electrons_per_njy * 10 ** (0.4 * (31.4 - 28.13)) == pytest.approx(5520)
    assert r.photon_variance * r.electrons_per_njy == 1


def test_the_sky_is_that_of_surveycodex():
    import surveycodex.utilities

    for name in ("LSST", "SDSS", "COSMOS"):
        survey = find_survey(name)
        for band in survey.bands:
            level = surveycodex.utilities.mean_sky_level(name, band.name).value  # electrons a pixel
            noise = band.sky_noise(survey.pixel_scale) * band.electrons_per_njy
            assert noise**2 == pytest.approx(level, rel=0.005)  # it rounds to whole electrons a square arcsecond
            assert band.sky_noise(2 * survey.pixel_scale) == pytest.approx(2 * band.sky_noise(survey.pixel_scale))


def test_all_surveys_and_filters_can_be_had():
    import surveycodex

    for name in surveycodex.available_surveys:
        survey = find_survey(name)
        assert 0 <= survey.obscuration < 0.8
        assert (survey.profile == "airy") == (survey.bands[0].psf_fwhm < 0.5)  # in space
        for band in survey.bands:
            low, high = band.edges_nm
            assert 300 < low < band.wavelength_nm < high < 2350
            assert (low + high) / 2 == pytest.approx(band.wavelength_nm, rel=0.08)
            assert 0.05 < (high - low) / band.wavelength_nm < 0.75


def test_filters_reach_half_way_to_their_neighbours():
    r = find_survey("LSST", ["r"]).bands[0]
    assert r.edges_nm == pytest.approx((552, 691), abs=8)  # half-power points of the true filter


def test_the_obscuration_is_a_diameter():
    import surveycodex

    assert find_survey("LSST").obscuration == pytest.approx(math.sqrt(surveycodex.get_survey("LSST").obscuration.value))


def test_what_is_unknown_is_said_in_a_sentence():
    with pytest.raises(UserError, match="no survey is called 'GALEX': choose from CFHTLS, COSMOS"):
        find_survey("GALEX")
    with pytest.raises(UserError, match="LSST has no band 'K': choose from u, g, r, i, z, y"):
        find_survey("LSST", ["g", "K"])
    with pytest.raises(UserError, match="band g of LSST is named twice"):
        find_survey("LSST", ["g", "r", "G"])


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "surveycodex", None)
    with pytest.raises(UserError, match="pip install surveycodex"):
        find_survey("LSST")
