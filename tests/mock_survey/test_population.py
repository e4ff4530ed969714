"""What the mock survey draws: physical ranges, laws that must hold exactly, and trends with distance."""

import math

import numpy as np
import pytest

from config_physics import MORPHOLOGY_NAMES
from galaxies.common import cosmology
from galaxies.datasets.sources.galaxy_zoo import FRAME_PX, FRAME_SCALE_R90
from galaxies.mock_survey import population
from galaxies.mock_survey.classes import CLASSES
from galaxies.mock_survey.conditions import MAX_NEIGHBOURS, draw_neighbours, draw_observation
from galaxies.mock_survey.galaxy_table import changed, columns_of, given
from galaxies.mock_survey.population import (
    MAGNITUDE_LIMIT,
    REDSHIFT_RANGE,
    class_of,
    draw_blocks,
    draw_galaxies,
    draw_structure,
)
from galaxies.mock_survey.structure import normal_within

COUNT = 200
MIN_R90 = 3.0  # arcseconds, of Galaxy Zoo 2 (Willett et al. 2013)


@pytest.fixture(scope="module")
def drawn():
    return {name: draw_galaxies(name, COUNT, np.random.default_rng(k)) for k, name in enumerate(MORPHOLOGY_NAMES)}


@pytest.fixture(params=MORPHOLOGY_NAMES)
def galaxies(request, drawn):
    return drawn[request.param]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


# Laws


def test_every_number_is_finite_and_every_column_has_all_galaxies(galaxies):
    for name, values in columns_of(galaxies).items():
        assert values.dtype == np.float64, name
        assert len(values) == COUNT, name
        assert np.isfinite(values).all(), name


def test_flux_and_magnitude_agree(galaxies):
    flux = galaxies.disc_flux + galaxies.bulge_flux
    np.testing.assert_allclose(flux[:, 1], 10 ** (0.4 * (22.5 - galaxies.magnitude)), rtol=1e-12)
    share = galaxies.bulge_flux[:, 1] / flux[:, 1]
    np.testing.assert_allclose(share, galaxies.structure.bulge_fraction, rtol=1e-12)


def test_distance_dims_and_the_moving_spectrum_dims_further(galaxies):
    dimming = galaxies.magnitude - galaxies.absolute_magnitude
    k_correction = dimming - cosmology.distance_modulus(galaxies.redshift)
    assert (k_correction > 0).all()
    assert (k_correction <= 1.001 * galaxies.redshift).all()  # a magnitude a redshift, for the reddest
    assert galaxies.magnitude.max() < MAGNITUDE_LIMIT + REDSHIFT_RANGE[1]


def test_angles_are_lengths_at_a_distance(galaxies):
    scale = cosmology.arcsec_per_kpc(galaxies.redshift)
    np.testing.assert_allclose(galaxies.petro_r50, galaxies.petro_r50_kpc * scale, rtol=1e-12)


def test_galaxies_are_in_the_survey_and_plausible(galaxies):
    assert galaxies.petro_r90.min() >= MIN_R90
    assert REDSHIFT_RANGE[0] <= galaxies.redshift.min()
    assert galaxies.redshift.max() <= REDSHIFT_RANGE[1]
    assert np.mean(galaxies.redshift == REDSHIFT_RANGE[1]) < 0.05
    assert galaxies.absolute_magnitude.min() > -24
    assert galaxies.absolute_magnitude.max() < -17
    assert galaxies.stellar_mass.min() > 8
    assert galaxies.stellar_mass.max() < 12.5
    assert galaxies.petro_r50_kpc.min() > 0.3
    assert galaxies.petro_r50_kpc.max() < 40
    # Uniform light has 1.34, an exponential disc 2.3, and a de Vaucouleurs profile 3.3 (Blanton et al. 2001).
    ratio = galaxies.petro_r90 / galaxies.petro_r50
    assert ratio.min() > 2.0
    assert ratio.max() < 5
    assert galaxies.structure.axis_ratio.min() > 0
    assert galaxies.structure.axis_ratio.max() <= 1


# Trends


def test_far_galaxies_are_redder_fainter_and_smaller(drawn):
    galaxies = drawn["elliptical"]
    z, flux, old = galaxies.redshift, galaxies.disc_flux, galaxies.structure.old > 0
    assert spearman(z[old], np.log(flux[old, 1] / flux[old, 0])) > 0.8
    at_fixed_luminosity = galaxies.magnitude - galaxies.absolute_magnitude
    assert spearman(z, at_fixed_luminosity) > 0.99
    assert spearman(z, galaxies.petro_r50 / galaxies.petro_r50_kpc) < -0.99


def test_luminous_galaxies_are_seen_farther_and_are_larger_and_heavier(galaxies):
    luminosity = -galaxies.absolute_magnitude
    assert spearman(luminosity, galaxies.redshift) > 0.5
    assert spearman(luminosity, galaxies.petro_r50_kpc) > 0.25
    assert spearman(luminosity, galaxies.stellar_mass) > 0.8


def test_ellipticals_are_redder_and_brighter_than_spirals(drawn):
    color = {name: np.median(-2.5 * np.log10(g.disc_flux[:, 0] / g.disc_flux[:, 1])) for name, g in drawn.items()}
    assert color["elliptical"] > color["spiral"] + 0.15
    brightness = {name: np.median(g.absolute_magnitude) for name, g in drawn.items()}
    assert brightness["elliptical"] < brightness["spiral"] < brightness["edge-on"]


# Radii


def aperture_light(radius: np.ndarray, n: float, size: float, axis_ratio: float) -> np.ndarray:
    """Return the part of an elliptical Sersic profile's light, cut at eight half-light radii, in circles."""
    special = pytest.importorskip("scipy.special")
    optimize = pytest.importorskip("scipy.optimize")
    inside = lambda r, b: special.gammainc(2 * n, b * np.minimum(r, 8) ** (1 / n))  # noqa: E731
    b = optimize.brentq(lambda b: inside(1, b) / inside(8, b) - 0.5, 0.01, 3 * n)
    angle = (np.arange(200) + 0.5) * math.pi / 400
    stretch = np.cos(angle) ** 2 + (np.sin(angle) / axis_ratio) ** 2  # squared, of elliptical over circular radius
    light = inside(radius[:, None] / size * np.sqrt(stretch), b) / inside(8, b)
    return (light / stretch).mean(1) / axis_ratio


def test_petrosian_radii_of_ellipticals(drawn):
    galaxies = drawn["elliptical"]
    for k in range(12):
        g = changed(lambda values: values[k], galaxies)  # noqa: B023 - called here
        r = np.geomspace(0.02, 10, 1500) * g.size
        core = aperture_light(
            r, g.structure.bulge_n, g.size * g.structure.bulge_size / 1.678, g.structure.bulge_axis_ratio
        )
        body = aperture_light(r, 1.0, g.size, g.structure.axis_ratio)
        light = g.structure.bulge_fraction * core + (1 - g.structure.bulge_fraction) * body
        ring = np.interp(1.25 * r, r, light) - np.interp(0.8 * r, r, light)
        r_p = r[np.argmax(ring / (1.25**2 - 0.8**2) < 0.2 * light)]
        flux = np.interp(2 * r_p, r, light)
        r50, r90 = np.interp([0.5 * flux, 0.9 * flux], light, r)
        assert g.petro_r50 == pytest.approx(r50, rel=0.03)
        assert g.petro_r90 == pytest.approx(r90, rel=0.05)


# Structure, observation, neighbours


def test_normal_within_stays_within():
    values = normal_within(np.random.default_rng(0), 0.5, 0.3, 0.2, 1.0, 20_000)
    assert values.min() >= 0.2
    assert values.max() <= 1.0
    narrow = normal_within(np.random.default_rng(0), 0.5, 0.01, 0.0, 1.0, (2000, 2))
    assert narrow.shape == (2000, 2)
    assert narrow.mean() == pytest.approx(0.5, abs=0.001)
    assert narrow.std() == pytest.approx(0.01, rel=0.05)


def test_spirals_are_seen_at_random_inclinations():
    axis_ratio = draw_structure("spiral", 4000, np.random.default_rng(0)).axis_ratio
    cos_i = np.sqrt((axis_ratio**2 - 0.15**2) / (1 - 0.15**2))  # Hubble (1926)
    low, *middle, high = np.quantile(cos_i, [0, 0.25, 0.5, 0.75, 1])
    assert high == pytest.approx(1, abs=0.01)
    assert middle == pytest.approx([low + part * (high - low) for part in (0.25, 0.5, 0.75)], abs=0.02)


def test_edge_on_discs_are_as_thick_as_their_second_moments():
    s = draw_structure("edge-on", 500, np.random.default_rng(0))
    whole = s.edge_on.inclined == 0
    # Moments of u K1(u) and of sech^2(z): 3 h^2 and pi^2 / 12 z0^2.
    expected = np.sqrt(math.pi**2 / 12 * s.edge_on.thickness**2 / 3)
    np.testing.assert_allclose(s.axis_ratio[whole], expected[whole])
    assert whole.any()


def test_merger_views_are_rotations():
    view = draw_structure("merger", 500, np.random.default_rng(0)).pair.view
    identity = np.broadcast_to(np.eye(3), view.shape)
    np.testing.assert_allclose(view @ view.transpose(0, 2, 1), identity, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(view), 1)
    assert np.abs(view.mean(0)).max() < 0.1  # every direction is as likely


def test_frames_follow_the_surveys_radius():
    r90 = np.full(4000, 12.0)
    seen = draw_observation(r90, 0.0, np.random.default_rng(0))
    assert seen.frame_scale.shape == (4000,)
    assert np.median(seen.frame_scale) == pytest.approx(FRAME_SCALE_R90 * 12, rel=0.02)  # 0.02 R90 a pixel
    over = draw_observation(r90, 0.2, np.random.default_rng(0))
    np.testing.assert_allclose(over.frame_scale, seen.frame_scale * math.exp(0.2))
    assert seen.psf_fwhm.shape == (4000, 3)
    assert seen.psf_fwhm.min() > 0.5 and seen.psf_fwhm.max() < 2
    assert (np.diff(seen.psf_fwhm, axis=1) < 0).all()  # seeing is better at longer wavelengths
    assert (seen.sky_noise > 0).all()
    assert np.abs(seen.centre).max() < 0.06


def test_neighbours_are_in_the_frame_and_grow_in_number_with_its_area():
    near, far = (draw_neighbours(np.full(4000, scale), np.random.default_rng(0)) for scale in (0.06, 0.03))
    assert near.flux.shape == (4000, MAX_NEIGHBOURS, 3)
    for around, scale in ((near, 0.06), (far, 0.03)):
        assert np.abs(around.place).max() <= FRAME_PX * scale / 2
        assert ((around.flux[..., 1] > 0) == (around.flux > 0).any(-1)).all()
    number = [(around.flux[..., 1] > 0).sum(1).mean() for around in (near, far)]
    assert number[0] / number[1] == pytest.approx(4, rel=0.1)
    flux = near.flux[..., 1]
    assert flux[flux > 0].min() >= 1  # r = 22.5
    assert flux.max() <= 10 ** (0.4 * 8.5)  # r = 14
    star = near.size == 0
    assert 0.05 < star.mean() < 0.6
    assert flux[star].max() > flux[~star].max()


def test_crowded_frames_hold_what_there_is_room_for():
    around = draw_neighbours(np.full(50, 5.0), np.random.default_rng(0))
    assert (around.flux[..., 1] > 0).all()


# Classes


def test_every_class_of_the_table_is_drawn_and_no_other():
    assert set(CLASSES) == set(MORPHOLOGY_NAMES)


@pytest.mark.parametrize("draw", [draw_structure, draw_galaxies])
def test_an_unknown_class_is_refused_by_name(draw):
    with pytest.raises(ValueError, match="cannot draw the class 'ring': it draws spiral, elliptical, merger, edge-on"):
        draw("ring", 4, np.random.default_rng(0))


def test_each_class_has_its_own_structure_and_no_other(drawn):
    own = ("spiral", "edge_on", "pair")
    parts = {name: [part for part in own if getattr(g.structure, part)] for name, g in drawn.items()}
    assert parts == {"spiral": ["spiral"], "elliptical": [], "merger": ["pair"], "edge-on": ["edge_on"]}
    with pytest.raises(ValueError, match="of a class without the structure"):
        given(drawn["elliptical"].structure.spiral)


def test_tables_change_with_all_their_parts(drawn):
    table = drawn["merger"]
    joined = changed(lambda *columns: np.concatenate(columns), table, table)
    assert joined.structure.pair.particle_draws is None
    columns, twice = columns_of(table), columns_of(joined)
    assert list(columns) == list(twice)
    assert {"redshift", "structure.bulge_n", "structure.pair.view", "exposure.centre", "neighbours.flux"} <= set(
        columns
    )
    for name, values in columns.items():
        np.testing.assert_array_equal(twice[name], np.concatenate([values, values]), err_msg=name)


# Streams


def test_draws_depend_on_the_stream_alone(galaxies, request):
    morphology = request.node.callspec.params["galaxies"]
    np.random.seed(5)
    again = draw_galaxies(morphology, COUNT, np.random.default_rng(MORPHOLOGY_NAMES.index(morphology)))
    for name, values in columns_of(galaxies).items():
        np.testing.assert_array_equal(values, columns_of(again)[name], err_msg=name)


def test_classes_take_turns():
    assert class_of(np.arange(6)).tolist() == ["spiral", "elliptical", "merger", "edge-on", "spiral", "elliptical"]
    assert class_of(np.array([], dtype=int)).tolist() == []


@pytest.mark.parametrize("counts", [(16, 16, 16), (13, 12, 13, 5, 1)])
@pytest.mark.parametrize("morphology", MORPHOLOGY_NAMES)
def test_blocks_hold_the_same_galaxies_as_alone(morphology, counts):
    def streams() -> list[np.random.Generator]:
        return [np.random.default_rng([k, 5]) for k in range(len(counts))]

    together = columns_of(draw_blocks(morphology, counts, streams()))
    alone = [columns_of(draw_galaxies(morphology, *block)) for block in zip(counts, streams(), strict=True)]
    for name, values in together.items():
        assert np.array_equal(np.concatenate([block[name] for block in alone]), values), name


def test_curves_are_interpolated_as_by_numpy():
    rng = np.random.default_rng(0)
    radius = np.geomspace(0.05, 8.0, 56)
    curves = rng.random((40, 56)).cumsum(1)
    at = np.concatenate([rng.uniform(0.01, 10, (40, 20)), np.tile(radius[[0, 7, 55]], (40, 1))], 1)
    expected = [
        np.interp(*each, curve) for each, curve in zip(zip(at, [radius] * 40, strict=True), curves, strict=True)
    ]
    np.testing.assert_allclose(population._between(at, radius, curves), expected, rtol=1e-14)
    same = [np.interp(at[0], radius, curve) for curve in curves]
    np.testing.assert_allclose(population._between(at[:1], radius, curves), same, rtol=1e-14)


# Sums over the first block of seed 0, of commit 3965f6c: redshift, Petrosian R90, and the last that is drawn.
FIRST_BLOCK = {
    "spiral": (1.083954, 134.136916, 103.128462),
    "elliptical": (1.615812, 80.418627, 108.517582),
    "merger": (1.308044, 88.450081, 107.107678),
    "edge-on": (0.815359, 114.111015, 105.040292),
}


@pytest.mark.parametrize("place, morphology", list(enumerate(FIRST_BLOCK)))
def test_the_galaxies_of_a_seed_stay_the_same(place, morphology):
    galaxies = draw_galaxies(morphology, 16, np.random.default_rng([0, 0, place]))
    sums = galaxies.redshift.sum(), galaxies.petro_r90.sum(), galaxies.neighbours.axis_ratio.sum()
    assert sums == pytest.approx(FIRST_BLOCK[morphology], abs=1e-5)
