"""Surveys by name: the numbers of surveycodex, and the noise that follows from them."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.telescope.surveys import Survey, SurveyBand, find_survey

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


def test_another_exposure_changes_the_noise_as_electrons_do():
    lsst = find_survey("LSST", "gr")
    longer = lsst.with_exposure({"R": 4 * 5520})
    assert [band.exposure_s for band in longer.bands] == [2400, 4 * 5520]
    assert longer.bands[0] == lsst.bands[0]
    assert longer.bands[1].photon_variance == pytest.approx(lsst.bands[1].photon_variance / 4)
    assert longer.bands[1].sky_noise(0.2) == pytest.approx(lsst.bands[1].sky_noise(0.2) / 2)
    assert {band.exposure_s for band in lsst.with_exposure(30).bands} == {30.0}
    # Ten years of LSST are two magnitudes deeper than a visit of 30 s in r: 1.25 log10 of the ratio of exposures.
    visit = lsst.with_exposure(30).bands[1].sky_noise(0.2) / lsst.bands[1].sky_noise(0.2)
    assert 2.5 * math.log10(visit) == pytest.approx(1.25 * math.log10(5520 / 30))


@pytest.mark.parametrize(
    ("survey", "light", "pixels", "scale"),
    [
        ("COSMOS", 0.1, 4, 0.12),
        ("COSMOS", 0.09, 3, 0.09),
        ("COSMOS", 0.0, 1, 0.03),
        ("Euclid_VIS", 0.1, 1, 0.1),
        ("LSST", 0.1, 1, 0.2),
        ("LSST", 0.2000001, 1, 0.2),
        ("LSST", 0.201, 2, 0.4),
        ("HSC", 0.4, 3, 0.504),
    ],
)
def test_the_fewest_pixels_are_binned_that_are_no_finer_than_the_light(survey, light, pixels, scale):
    found = find_survey(survey)
    assert found.binning_for(light) == pixels
    binned = found.binned(pixels)
    assert (binned.pixel_scale, binned.binning, binned.own_pixel_scale) == (scale, pixels, found.pixel_scale)


def test_binning_adds_what_each_pixel_has_gathered_and_was_read_with():
    """Against electrons that are counted and read pixel by pixel, and then added up."""
    band = SurveyBand("r", 620, (550, 690), 0.1, 22.0, 26.0, 600.0, read_noise=5.0, visit_s=200.0)
    own = Survey("Own", 0.05, "airy", 0.3, (band,))
    binned = own.binned(4)
    random = np.random.default_rng(2)
    per_njy = 600 * 10 ** (0.4 * (26.0 - 31.4))  # electrons
    sky = 600 * 10 ** (0.4 * (26.0 - 22.0)) * 0.05**2  # electrons a pixel
    for light in (0.0, 40.0):  # nanojansky a pixel of the survey's own
        electrons = random.poisson(sky + light * per_njy, (400, 4, 400, 4)) - sky
        pixels = electrons + random.normal(0, 5.0, (3, *electrons.shape)).sum(0)  # read every 200 s
        sums = pixels.sum((1, 3)) / per_njy
        expected = binned.bands[0].sky_noise(0.2) ** 2 + binned.bands[0].photon_variance * 16 * light
        assert sums.mean() == pytest.approx(16 * light, abs=4 * math.sqrt(expected) / 400)
        assert sums.var() == pytest.approx(expected, rel=0.015)
    # Twice two is four; the PSF, the zero point and the exposure are what they were.
    assert own.binned(2).binned(2) == binned == replace(own, pixel_scale=0.2, binning=4, bands=binned.bands)
    assert binned.bands == (replace(band, read_noise=20.0),) and own.binned(1) == own
    assert own.said_of_binning(0.2) == ""
    assert binned.said_of_binning(0.05) == "Own pixels of 0.05 arcsec binned 4 x 4 to 0.2 arcsec"
    assert binned.said_of_binning(0.15).endswith("to 0.2 arcsec: the galaxies' light has 0.15 arcsec pixels")


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, 1e9, {"r": 0.0}])
def test_no_exposure_and_one_without_end_are_refused(seconds):
    with pytest.raises(UserError, match=r"seconds in band . of LSST: choose more than 0 and at most 1e\+08 seconds"):
        find_survey("LSST", "gr").with_exposure(seconds)


def test_an_exposure_of_an_unknown_band_is_refused():
    with pytest.raises(UserError, match="LSST has no band 'z': choose from g, r"):
        find_survey("LSST", "gr").with_exposure({"z": 30})
