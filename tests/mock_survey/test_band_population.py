"""The mock survey in any bands: what the telescope finds, and the colours of what it finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from config_physics import MORPHOLOGY_NAMES
from galaxies.mock_survey import band_population
from galaxies.mock_survey.band_population import Frame, check_frame, draw_blocks, mixture
from galaxies.mock_survey.galaxy_table import columns_of
from galaxies.spectra import templates as spectra
from galaxies.telescope.surveys import Survey, SurveyBand, find_survey

pytest.importorskip("surveycodex")
AT_REST = [
    SurveyBand(name, float(np.mean(edges)), edges, 0.8, 21.0, 28.0, 1000.0)
    for name, edges in (("g", spectra.REST_G), ("r", spectra.REST_R))
]


def frame_of(name: str = "LSST", bands: str = "griz", size: int = 64) -> Frame:
    survey = find_survey(name, list(bands))
    return Frame(survey, size, survey.pixel_scale)


def streams(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, block]) for block in range(count)]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


@pytest.fixture(scope="module")
def drawn():
    frame = frame_of()
    return {name: draw_blocks(name, [64] * 3, streams(3), frame) for name in MORPHOLOGY_NAMES}


@pytest.mark.parametrize("dust", [0.0, 0.3])
def test_a_mixture_has_the_colour_asked_for(dust):
    wanted = np.array([-0.1, 0.3, 0.55, 0.78, 1.0])  # from bluer than young stars to redder than old ones
    light, young = mixture(wanted, np.full(5, dust), AT_REST, np.zeros(5))
    np.testing.assert_allclose(-2.5 * np.log10(light[:, 0] / light[:, 1]), wanted, atol=1e-6)
    np.testing.assert_allclose(light[:, 1], 1, rtol=1e-6)  # a unit of light in r
    assert (np.diff(young[:, 1]) <= 0).all()
    assert young[0].tolist() == [1, 1]
    assert young[-1].max() == (0 if dust == 0 else pytest.approx(young[-1].max()))
    assert (young[:, 0] >= young[:, 1] - 1e-12).all()  # of g the young stars have the larger part


def test_smaller_galaxies_are_kept_where_they_are_wanted():
    frame = frame_of()
    r = frame.survey.bands[frame.reference]
    usual, small = (draw_blocks("elliptical", [64] * 3, streams(3), f) for f in (frame, frame._replace(smallest=0.4)))
    assert usual.petro_r50.min() >= r.psf_fwhm
    assert 0.4 * r.psf_fwhm <= small.petro_r50.min() < 0.5 * r.psf_fwhm
    assert (small.petro_r50 < r.psf_fwhm).mean() > 0.3
    assert small.petro_r50.max() <= 64 * 0.2 / 7.5


def test_dust_leaves_more_young_stars_for_a_colour():
    plain, dusty = (mixture(np.array([0.6]), np.array([e]), AT_REST, np.zeros(1)).young[0, 1] for e in (0.0, 0.2))
    assert dusty > plain + 0.1


def test_galaxies_are_resolved_fit_the_frame_and_stand_out(drawn):
    frame = frame_of()
    r = frame.survey.bands[1]
    assert frame.reference == 1
    for name, table in drawn.items():
        radius = table.petro_r50 / (0.65 if name == "merger" else 1)
        inside = (radius > 0.999 * 0.81) & (radius < 1.001 * 12.8 / 7.5)
        assert inside.mean() > 0.97, name
        flux = 10 ** (0.4 * (31.4 - table.magnitude)) / 2
        noise = np.sqrt(np.pi * (table.petro_r50 / 0.2) ** 2 * r.sky_noise(0.2) ** 2 + flux * r.photon_variance)
        assert (flux / noise > 0.95 * band_population.MIN_SIGNAL_TO_NOISE).mean() > 0.97, name
        np.testing.assert_allclose(flux * 2, (table.disc_flux + table.bulge_flux)[:, 1])
        low, high = np.percentile(table.redshift, [5, 95])
        assert low < 0.12, name
        assert high > 0.27, name


def test_a_larger_frame_holds_larger_galaxies(drawn):
    large = draw_blocks("spiral", [64], streams(1), frame_of(size=128))
    assert np.median(large.petro_r50) > 1.5 * np.median(drawn["spiral"].petro_r50)


def test_magnitudes_are_those_of_the_distance(drawn):
    from galaxies.common.cosmology import distance_modulus

    table = drawn["elliptical"]
    old = table.structure.old > 0
    k = -2.5 * np.log10(spectra.seen_light(spectra.OLD, frame_of().survey.bands, table.redshift))[:, 1]
    expected = table.absolute_magnitude + distance_modulus(table.redshift) + k
    off = np.abs(table.magnitude - expected)[old]
    assert off[table.redshift[old] < 0.15].max() < 0.1
    assert np.median(off) < 0.15  # far ones are bluer than the template, which is of today


def test_colours_tell_the_redshift(drawn):
    flux = np.concatenate([table.disc_flux + table.bulge_flux for table in drawn.values()])
    redshift = np.concatenate([table.redshift for table in drawn.values()])
    magnitudes = 31.4 - 2.5 * np.log10(flux)
    features = np.column_stack([-np.diff(magnitudes), magnitudes[:, 1] / 4])
    told = np.arange(len(features)) % 4 > 0  # the mean of the six nearest of these
    distance = np.linalg.norm(features[~told, None] - features[None, told], axis=2)
    guess = redshift[told][distance.argsort(1)[:, :6]].mean(1)
    assert spearman(guess, redshift[~told]) > 0.85


def test_arms_and_knots_are_young_and_lanes_dusty(drawn):
    spirals, lanes = drawn["spiral"].palette, drawn["edge-on"].palette
    assert (spirals.arm_contrast[:, 0] >= spirals.arm_contrast[:, 3]).all()
    assert (spirals.knot_color[:, 0] > spirals.knot_color[:, 3]).mean() > 0.95
    assert (np.diff(lanes.dust_opacity) < 0).all()
    assert (drawn["merger"].palette.outskirt_color[:, 0] >= 1).all()
    # Bars are of old stars: redder than the disc.
    disc = drawn["spiral"].disc_flux
    bar = spirals.old_light
    assert ((bar[:, 0] / bar[:, 3]) <= 1.02 * (disc[:, 0] / disc[:, 3])).mean() > 0.95
    bulge = drawn["spiral"].bulge_flux  # and so are bulges
    assert ((bulge[:, 0] / bulge[:, 3]) < 0.9 * (disc[:, 0] / disc[:, 3])).mean() > 0.5
    body, core = drawn["elliptical"].disc_flux, drawn["elliptical"].bulge_flux  # an elliptical has one colour
    np.testing.assert_allclose(core[:, 0] / core[:, 3], body[:, 0] / body[:, 3])
    np.testing.assert_allclose(
        spirals.old_light, drawn["spiral"].bulge_flux / drawn["spiral"].bulge_flux[:, 1:2] * spirals.old_light[:, 1:2]
    )


def test_a_block_holds_the_same_galaxies_as_alone():
    frame = frame_of(bands="gr")
    together = columns_of(draw_blocks("merger", [5, 4], streams(2), frame))
    alone = columns_of(draw_blocks("merger", [4], streams(2)[1:], frame))
    for name, column in alone.items():
        np.testing.assert_array_equal(column, together[name][5:], err_msg=name)


def test_seeing_and_sky_are_the_surveys():
    frame = frame_of()
    exposure = draw_blocks("spiral", [300], streams(1), frame).exposure
    bands = frame.survey.bands
    np.testing.assert_allclose(np.median(exposure.psf_fwhm, 0), [b.psf_fwhm for b in bands], rtol=0.02)
    np.testing.assert_allclose(np.median(exposure.sky_noise, 0), [b.sky_noise(0.2) for b in bands], rtol=0.02)
    assert np.abs(exposure.centre).max() <= 0.5
    assert 0.04 < np.log(exposure.psf_fwhm[:, 0]).std() < 0.09
    space = find_survey("Euclid_VIS")
    in_space = draw_blocks("spiral", [8], streams(1), Frame(space, 64, 0.1)).exposure
    assert (in_space.psf_fwhm == space.bands[0].psf_fwhm).all()


def test_what_no_survey_would_find_is_drawn_as_near_to_it_as_can_be():
    survey = find_survey("LSST", ["r"])
    blind = replace(survey.bands[0], exposure_s=1e-6)
    table = draw_blocks("elliptical", [8], streams(1), Frame(replace(survey, bands=(blind,)), 64, 0.2))
    assert np.isfinite(table.disc_flux).all()


def test_every_survey_has_galaxies_for_its_own_pixels():
    import surveycodex

    for name in surveycodex.available_surveys:
        survey = find_survey(name)
        for size in (64, 128, 256):
            check_frame(Frame(survey, size, survey.pixel_scale))


def test_a_class_that_is_none_is_refused():
    with pytest.raises(ValueError, match="cannot draw the class 'ring'"):
        draw_blocks("ring", [1], streams(1), Frame(Survey("x", 0.2, "airy", 0.0, tuple(AT_REST)), 64, 0.2))
