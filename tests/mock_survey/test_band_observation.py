"""The mock survey in any bands: its images against GalSim, its truth against its light, its noise against its sky."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from galaxies.mock_survey import band_observation
from galaxies.mock_survey.band_observation import BandSurvey
from galaxies.mock_survey.band_population import Frame, draw_blocks
from galaxies.telescope.observing import observe
from galaxies.telescope.profiles import profile_of
from galaxies.telescope.psf import Psf
from galaxies.telescope.surveys import Survey, find_survey

pytest.importorskip("surveycodex")
CLASSES = ("spiral", "elliptical", "merger", "edge-on")


def noiseless(survey: Survey) -> Survey:
    """Return a survey that exposes for ever."""
    return replace(survey, bands=tuple(replace(band, exposure_s=1e15) for band in survey.bands))


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Let 16 galaxies share their random streams instead of 64, of which all are drawn for one."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(band_observation, "BLOCK", 16)
        yield


@pytest.fixture(scope="module")
def lsst() -> Survey:
    return find_survey("LSST", ["g", "r", "z"])


@pytest.fixture(scope="module")
def batch(lsst):
    (batch,) = BandSurvey(1, Frame(lsst, 64, 0.2), with_intrinsic=lambda object_id: True).batches(16)
    return batch


@pytest.mark.parametrize(("name", "scale", "oversampled"), [("LSST", 0.2, 2), ("Euclid_VIS", 0.1, 2)])
def test_ellipticals_agree_with_galsim(name, scale, oversampled):
    galsim = pytest.importorskip("galsim")
    survey = noiseless(find_survey(name, ["g", "z"] if name == "LSST" else None))
    frame = Frame(survey, 64, scale)
    mock = BandSurvey(0, frame)
    assert mock.oversampling == oversampled
    table = draw_blocks("elliptical", [2], [np.random.default_rng(5)], frame)
    images, _, _ = mock._render("elliptical", table, np.arange(2), np.arange(2), np.zeros(2, bool))
    # Light of diffraction far out would come round GalSim's grid, too.
    fine = galsim.GSParams(maximum_fft_size=16384, folding_threshold=5e-3 if name == "LSST" else 1e-3)
    for row in range(2):
        shapes = table.structure
        angle = float(shapes.position_angle[row]) * galsim.radians

        def part(n, size, q, flux, angle=angle):
            radius = size * q**0.5
            return galsim.Sersic(n, half_light_radius=radius, trunc=8 * radius, flux=flux).shear(q=q, beta=angle)

        for band, one in enumerate(survey.bands):
            core = table.size[row] / 1.678 * shapes.bulge_size[row]
            light = part(1.0, table.size[row], shapes.axis_ratio[row], table.disc_flux[row, band]) + part(
                shapes.bulge_n[row], core, shapes.bulge_axis_ratio[row], table.bulge_flux[row, band]
            )
            light = light.shift(*(scale * table.exposure.centre[row]))
            width = float(table.exposure.psf_fwhm[row, band])
            psf = galsim.Kolmogorov(fwhm=width)
            if name != "LSST":
                unit = galsim.Airy(lam_over_diam=1.0, obscuration=survey.obscuration)
                radius = np.linspace(0.3, 0.6, 3001)
                half = np.interp(-0.5, [-unit.xValue(r, 0) / unit.xValue(0, 0) for r in radius], radius)
                psf = galsim.Airy(lam_over_diam=width / (2 * half), obscuration=survey.obscuration)
            expected = galsim.Convolve(light, psf, gsparams=fine)
            expected = expected.drawImage(nx=64, ny=64, scale=scale, dtype=float).array
            seen = images[row, band].double().numpy()
            assert seen.sum() == pytest.approx(expected.sum(), rel=0.005), one.name
            assert np.abs(seen - expected).max() < 0.01 * expected.max(), one.name


def test_noise_is_that_of_sky_and_source(lsst, batch):
    # The same galaxies, exposed for ever, are what the noise is about.
    survey = BandSurvey(1, Frame(lsst, 64, 0.2))
    survey._photons = 0 * survey._photons
    normal = survey._normal
    survey._normal = lambda numbers, shape: 0 * normal(numbers, shape)
    (still,) = survey.batches(16)
    noise = batch.images.astype(np.float64) - still.images
    photons = np.array([1 / band.electrons_per_njy for band in lsst.bands])
    variance = batch.noise[..., None, None] ** 2 + photons[:, None, None] * still.images.clip(0)
    scaled = noise / np.sqrt(variance)
    assert scaled.std() == pytest.approx(1, abs=0.01)
    bright = still.images > 30 * batch.noise[..., None, None] ** 2 / photons[:, None, None] / 30
    assert bright.sum() > 1000
    assert scaled[bright].std() == pytest.approx(1, abs=0.02)
    assert abs(scaled.mean()) < 0.005
    np.testing.assert_allclose(np.median(batch.noise, 0), [band.sky_noise(0.2) for band in lsst.bands], rtol=0.08)


def test_the_telescope_makes_the_image_of_the_light_before_it(lsst, batch):
    assert batch.intrinsic.shape == (16, 3, 128, 128)
    assert batch.intrinsic_rows.tolist() == list(range(16))
    assert batch.intrinsic.min() >= 0
    psf = Psf(torch.from_numpy(batch.psf_fwhm).float(), profile_of("kolmogorov"))
    seen = observe(torch.from_numpy(batch.intrinsic), psf, 0.2, oversampling=2).numpy()
    left = (batch.images - seen)[..., 8:-8, 8:-8]
    variance = batch.noise[..., None, None] ** 2 + 0.02 * seen[..., 8:-8, 8:-8]
    allowed = 0.02 * seen.max((2, 3), keepdims=True) + 5 * np.sqrt(variance)
    assert (np.abs(left) < allowed).mean() > 0.9999
    assert np.abs(left.sum((2, 3)) / seen.sum((2, 3))).max() < 0.02


def test_light_before_the_telescope_does_not_ring_about_cusps(batch):
    place = np.arange(128) - 63.5
    far = np.hypot(place, place[:, None])[:, 1:-1] > 20
    for row in np.flatnonzero(np.array(batch.morphologies) == "elliptical"):
        for plane in batch.intrinsic[row].astype(np.float64):
            for light in (plane, plane.T):  # along rows and along columns
                bend = np.abs(light[:, 2:] - 2 * light[:, 1:-1] + light[:, :-2])
                # Dotted lines through the cusp, of light and none by turns, have a hundredth of the brightest pixel.
                assert bend[far].max() < 1e-3 * light.max()


def test_true_magnitudes_are_those_of_all_the_light(batch):
    for place, name in enumerate("grz"):
        flux = 10 ** (0.4 * (31.4 - batch.truth[f"true_magnitude_{name}"]))
        ratio = batch.intrinsic[:, place].sum((1, 2)) / flux
        alone = np.array(batch.morphologies) != "merger"  # whose tails may leave the frame
        assert (ratio < 1.003).all()
        assert np.median(ratio[alone]) > 0.995
        assert ratio[alone].min() > 0.97
        assert ratio.min() > 0.85


def test_true_radii_hold_half_of_the_light(batch):
    axis = (np.arange(128) - 63.5) * 0.1
    alone = np.flatnonzero(np.array(batch.morphologies) != "merger")
    for row in alone[:12]:
        light = batch.intrinsic[row, 1].astype(np.float64)
        x, y = (light.sum(k) @ axis / light.sum() for k in (0, 1))
        radius = np.hypot(axis - x, axis[:, None] - y).ravel()
        order = radius.argsort()
        part = light.ravel()[order].cumsum()
        half = np.interp(part[-1] / 2, part, radius[order])
        assert batch.truth["true_half_light_radius"][row] == pytest.approx(half, rel=0.04)


def test_a_galaxy_depends_on_its_seed_and_number_alone(lsst, batch):
    frame = Frame(lsst, 64, 0.2)
    small = next(BandSurvey(1, frame, with_intrinsic=lambda name: name.endswith("3")).batches(5))
    assert small.object_ids == batch.object_ids[:5]
    np.testing.assert_array_equal(small.images, batch.images[:5])
    np.testing.assert_array_equal(small.intrinsic, batch.intrinsic[3:4])
    assert small.intrinsic_rows.tolist() == [3]
    assert len(small.truth["redshift"]) == 5
    other = next(BandSurvey(2, frame).batches(4))
    assert other.object_ids[0] != batch.object_ids[0]
    assert not np.array_equal(other.images, batch.images[:4])
    assert other.intrinsic.shape == (0, 3, 128, 128)


def test_classes_take_turns_and_all_columns_are_known(batch):
    assert batch.morphologies == list(CLASSES) * 4
    assert set(batch.truth) == {
        *("redshift", "absolute_magnitude", "stellar_mass", "petro_r50_kpc", "pixel_scale", "true_axis_ratio"),
        *("true_half_light_radius", "true_magnitude_g", "true_magnitude_r", "true_magnitude_z"),
        *("true_inclination", "true_position_angle", "arm_count", "bar", "bulge", "log_ssfr", "d4000", "halpha_ew"),
    }
    of_discs = ("true_inclination", "arm_count", "bar", "bulge")
    assert all(np.isfinite(values).all() for name, values in batch.truth.items() if name not in of_discs)
    spirals = np.array(batch.morphologies) == "spiral"
    assert np.isin(batch.truth["arm_count"][spirals], (1, 2, 3, 4)).all() and (batch.truth["bulge"][spirals] > 0).all()
    assert (np.isfinite(batch.truth["bar"]) == spirals).all()


def test_discs_alone_are_inclined_and_as_flat_as_that_makes_them(batch):
    inclination, q = (batch.truth[name] for name in ("true_inclination", "true_axis_ratio"))
    kind = np.array(batch.morphologies)
    assert np.isfinite(inclination).tolist() == np.isin(kind, ("spiral", "edge-on")).tolist()
    spirals, edge_on = kind == "spiral", kind == "edge-on"
    cosine, sine = np.cos(np.radians(inclination[spirals])), np.sin(np.radians(inclination[spirals]))
    np.testing.assert_allclose(q[spirals], np.sqrt(cosine**2 + (0.15 * sine) ** 2), rtol=1e-6)  # Hubble 1926
    assert (inclination[spirals] > 0).all()
    assert (inclination[spirals] < 68).all()
    assert (inclination[edge_on] > 52).all()
    assert (inclination[edge_on] == 90).any()
    shows_a_face = inclination[edge_on & (inclination < 90)]
    np.testing.assert_allclose(
        q[edge_on & (inclination < 90)] ** 2,
        np.cos(np.radians(shows_a_face)) ** 2 * (1 - 0.15**2) + 0.15**2,
        rtol=1e-6,
    )


def test_position_angles_are_those_of_the_light(batch):
    y, x = np.mgrid[:128, :128] - 63.5
    flat = np.flatnonzero((batch.truth["true_axis_ratio"] < 0.6) & (np.array(batch.morphologies) != "merger"))
    assert len(flat) >= 4
    for row in flat:
        light = batch.intrinsic[row, 1].astype(np.float64)
        dx, dy = (t - (light * t).sum() / light.sum() for t in (x, y))
        xx, yy, xy = ((light * t).sum() for t in (dx * dx, dy * dy, dx * dy))
        found = np.degrees(np.arctan2(2 * xy, xx - yy) / 2)
        expected = batch.truth["true_position_angle"][row]
        assert 0 <= expected < 180
        assert abs((found - expected + 90) % 180 - 90) < 8


def test_a_large_frame_needs_no_finer_pixels_unless_the_psf_does(lsst):
    assert BandSurvey(0, Frame(lsst, 128, 0.2)).oversampling == 1
    assert BandSurvey(0, Frame(find_survey("Euclid_VIS"), 128, 0.1)).oversampling == 2


def test_the_same_galaxies_are_seen_by_another_survey(lsst, batch):
    frame = Frame(find_survey("HSC", ["g", "r", "z"]), 76, 0.168)
    (seen,) = BandSurvey(1, frame, chosen_by=Frame(lsst, 64, 0.2)).batches(16)
    for name in ("redshift", "stellar_mass", "petro_r50_kpc", "true_axis_ratio"):
        np.testing.assert_array_equal(seen.truth[name], batch.truth[name])
    np.testing.assert_allclose(seen.truth["true_magnitude_r"], batch.truth["true_magnitude_r"], atol=0.15)  # filters
    assert (seen.psf_fwhm[:, 1] / batch.psf_fwhm[:, 1]).std() < 1e-6  # the same air on another width
    (others,) = BandSurvey(1, frame).batches(16)
    assert not np.array_equal(others.truth["redshift"], batch.truth["redshift"])
    with pytest.raises(ValueError, match="as many bands"):
        BandSurvey(1, frame, chosen_by=Frame(find_survey("LSST", ["r"]), 64, 0.2))
