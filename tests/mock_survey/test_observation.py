"""The mock survey: its light against GalSim, its truth against fine renders, and its pictures against its truth."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from config_physics import MORPHOLOGY_NAMES
from galaxies.common.cosmology import arcsec_per_kpc
from galaxies.measure import photometry
from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, measure_images
from galaxies.mock_survey import encounter
from galaxies.mock_survey import observation as simulation
from galaxies.mock_survey.classes import draw_light
from galaxies.mock_survey.galaxy_table import (
    EdgeOnDisc,
    Exposure,
    GalaxyTable,
    Neighbours,
    Pair,
    SpiralDisc,
    Structure,
    changed,
)
from galaxies.mock_survey.light import Grid
from galaxies.mock_survey.observation import BLOCK, SDSS_PIXEL_ARCSEC, MockSurvey
from galaxies.mock_survey.structure import NUM_KNOTS, NUM_WAVES
from galaxies.telescope.fourier import FourierGrid
from tests.conftest import noting_threads

R_BAND = 1
CROP_PX = 212  # of a 424-pixel frame, what a picture shows
OF_DISCS = ("arm_count", "bar", "bulge")  # truth that means nothing of other galaxies
FWHM = (1.3, 1.2, 1.1)  # arcseconds in g, r, i


# Light of single galaxies, without noise


def galaxy(**changes) -> GalaxyTable[torch.Tensor]:
    """Return the parameters of one smooth galaxy; a changed number goes to where it belongs."""
    numbers = {
        "disc_flux": (60.0, 100.0, 140.0),
        "bulge_flux": (1e-9, 1e-9, 1e-9),
        "size": 4.0,
        "axis_ratio": 0.6,
        "position_angle": 0.5,
        "bulge_n": 4.0,
        "bulge_size": 0.3,
        "bulge_axis_ratio": 0.8,
        # Spirals: arms, waves, bar and knots of no strength.
        "num_arms": 2.0,
        "pitch": 0.3,
        "winding": 1.0,
        "arm_strength": 0.0,
        "arm_sharpness": 2.0,
        "arm_phase": 1.0,
        "arm_start": 0.5,
        "arm_asymmetry": 0.0,
        "hole": 0.0,
        "waves": np.ones((NUM_WAVES, 4)),
        "wave_strength": 0.0,
        "bar_fraction": 0.0,
        "bar_size": 0.7,
        "bar_axis_ratio": 0.3,
        "bar_angle": 0.4,
        "knot_radius": np.linspace(0.5, 3, NUM_KNOTS),
        "knot_angle": np.zeros(NUM_KNOTS),
        "knot_arm": np.zeros(NUM_KNOTS),
        "knot_light": np.ones(NUM_KNOTS),
        "knot_fraction": 0.0,
        # Edge-on discs: no dust.
        "thickness": 0.2,
        "inclined": 0.0,
        "dust_depth": 0.0,
        "dust_offset": 0.0,
        "lopsidedness": 0.0,
        # Pairs.
        "light_ratio": 0.5,
        "separation": 1.2,
        "direction": 0.8,
        "spheroid_axis_ratio": (0.6, 0.9),
        "spheroid_angle": (0.3, 2.0),
        # The frame and the telescope.
        "centre": (0.0, 0.0),
        "frame_scale": 0.2,
        "psf_fwhm": FWHM,
        "sky_noise": (0.0, 0.0, 0.0),
        "sky_error": (0.0, 0.0, 0.0),
        "misregistration": np.zeros((3, 2)),
    } | changes
    parts = {"spiral": SpiralDisc, "edge_on": EdgeOnDisc, "pair": Pair, "structure": Structure, "exposure": Exposure}
    none = {name: np.zeros((1, 3) if name == "flux" else 1) for name in ("flux", "size", "axis_ratio", "angle")}
    around = Neighbours(**none, place=np.zeros((1, 2)))

    def table(kind):
        values = {f.name: table(parts[f.name]) if f.name in parts else numbers.get(f.name, 0.0) for f in fields(kind)}
        return kind(**values | ({"neighbours": around} if kind is GalaxyTable else {}))

    return changed(lambda value: torch.from_numpy(np.asarray(value, np.float32))[None], table(GalaxyTable))


def planes_of(kind: str, p: GalaxyTable[torch.Tensor], side: int = 256, scale: float = 0.3) -> np.ndarray:
    """Return the sampled light (3, side, side) of a galaxy before the telescope, without its spheroids."""
    return draw_light(kind, p, Grid(side, torch.tensor([scale]))).planes[0].double().numpy()


def observe(kind: str, p: GalaxyTable[torch.Tensor], side: int = 256, scale: float = 0.3) -> np.ndarray:
    """Return what the telescope sees of a galaxy, (3, side, side), nanomaggies a pixel of the grid."""
    grid = Grid(side, torch.tensor([scale]))
    field = FourierGrid(grid.side, grid.pixel_scale)
    source = MockSurvey(0)._transformed(draw_light(kind, p, grid), field, p)
    nothing = torch.zeros(1, 3, side, side)
    seen = simulation._expose(source, nothing, field, nothing, p)[0]
    return seen.double().numpy() * (scale / SDSS_PIXEL_ARCSEC) ** 2


def by_galsim(profile, band: int = R_BAND, side: int = 256, scale: float = 0.3) -> np.ndarray:
    """Return the same of a GalSim profile: its light through a point-spread function of two Gaussians."""
    import galsim

    core = FWHM[band] / 2.355
    psf = galsim.Gaussian(flux=0.93, sigma=core) + galsim.Gaussian(flux=0.07, sigma=2.5 * core)
    seen = galsim.Convolve(profile, psf)
    return seen.drawImage(nx=side, ny=side, scale=scale, method="no_pixel", dtype=float).array


def sersic(n: float, size: float, axis_ratio: float, angle: float, flux: float):
    """Return GalSim's elliptical profile of a given semi-major half-light radius."""
    import galsim

    radius = size * math.sqrt(axis_ratio)
    profile = galsim.Sersic(n, half_light_radius=radius, trunc=8 * radius, flux=flux)
    return profile.shear(q=axis_ratio, beta=angle * galsim.radians)


def assert_same_picture(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert np.abs(ours - theirs).max() < 2e-3 * theirs.max()
    assert ours.sum() == pytest.approx(theirs.sum(), rel=2e-3)
    assert half_light_radius(ours) == pytest.approx(half_light_radius(theirs), rel=2e-3)


def half_light_radius(image: np.ndarray, scale: float = 1.0) -> float:
    """Return the radius of the circle about the centroid with half of the light, from sorted pixels."""
    axis = (np.arange(image.shape[-1]) - (image.shape[-1] - 1) / 2) * scale
    x, y = (image.sum(k) @ axis / image.sum() for k in (0, 1))
    radius = np.hypot(axis - x, (axis - y)[:, None]).ravel()
    order = radius.argsort()
    light = image.ravel()[order].cumsum()
    return float(np.interp(light[-1] / 2, light, radius[order]))


def test_a_spheroid_agrees_with_galsim():
    pytest.importorskip("galsim")
    p = galaxy(disc_flux=(0, 0, 0), bulge_flux=(60, 100, 140), bulge_size=1.0)
    image = observe("elliptical", p)
    for band, flux in enumerate((60, 100, 140)):
        assert_same_picture(image[band], by_galsim(sersic(4, 4 / 1.678, 0.8, 0.5, flux), band))


def test_an_elliptical_agrees_with_galsim():
    pytest.importorskip("galsim")
    p = galaxy(bulge_flux=(30, 50, 70), bulge_n=2.6, bulge_size=0.5, position_angle=2.2)
    expected = sersic(1, 4, 0.6, 2.2, 100) + sersic(2.6, 4 / 1.678 * 0.5, 0.8, 2.2, 50)
    assert_same_picture(observe("elliptical", p)[R_BAND], by_galsim(expected))


def test_a_smooth_disc_agrees_with_galsim():
    galsim = pytest.importorskip("galsim")
    scale_length = 4 / 1.678
    disc = galsim.Exponential(scale_radius=scale_length * math.sqrt(0.6), flux=100)
    expected = disc.shear(q=0.6, beta=0.5 * galsim.radians) + sersic(4, scale_length * 0.3, 0.8, 0.5, 20)
    for kind, more in (("spiral", {}), ("edge-on", {"inclined": 1.0})):
        image = observe(kind, galaxy(bulge_flux=(10, 20, 30), **more))
        assert_same_picture(image[R_BAND], by_galsim(expected))


@pytest.mark.parametrize("thickness", [0.15, 0.5])
def test_a_disc_from_the_side_agrees_with_galsim(thickness):
    galsim = pytest.importorskip("galsim")
    h = 4 / 1.678
    disc = galsim.InclinedExponential(90 * galsim.degrees, scale_radius=h, scale_height=h * thickness, flux=100)
    expected = disc.rotate(0.5 * galsim.radians)
    assert_same_picture(observe("edge-on", galaxy(thickness=thickness))[R_BAND], by_galsim(expected))


def test_a_disc_from_the_side_is_the_integral_through_it():
    special = pytest.importorskip("scipy.special")
    h, z0, scale = 4 / 1.678, 4 / 1.678 * 0.4, 0.1
    light = planes_of("edge-on", galaxy(thickness=0.4, position_angle=0.0), 400, scale)[R_BAND] / scale**2
    axis = (np.arange(400) - 199.5) * scale
    u, z = np.abs(axis[None]), axis[:, None]
    # van der Kruit & Searle (1981), eq. 5, whose integral is 2 pi h z0.
    expected = 100 / (2 * math.pi * h * z0) * (u / h) * special.k1(u / h) / np.cosh(z / z0) ** 2
    np.testing.assert_allclose(light, expected, atol=2e-3 * expected.max())


def test_two_spheroids_in_an_envelope_agree_with_galsim():
    pytest.importorskip("galsim")
    x, y = 1.2 * 4 * math.cos(0.8), 1.2 * 4 * math.sin(0.8)
    expected = sersic(1.5, 3.2, 0.6, 0.3, 80 / 1.5) + sersic(2, 3.2 * 0.5**0.6, 0.9, 2.0, 40 / 1.5).shift(x, y)
    expected += sersic(1, 7.2, 0.8, 0.8, 20).shift(x / 2, y / 2)
    image = observe("dry merger", galaxy(bulge_n=(1.5, 2.0)))
    assert_same_picture(image[R_BAND], by_galsim(expected))


def test_an_undisturbed_pair_is_two_discs():
    h = 8 / 1.678
    draws = torch.rand(1, 2, 3000, 3, generator=torch.Generator().manual_seed(0))
    mass = {"mass_ratio": 1.0, "pericentre": 25.0, "speed": 1.0, "time_after": 0.0, "light_ratio": 1.0}
    tilt = {"disc_tilt": (0.0, 0.0), "disc_node": (0.0, 0.0), "view": np.eye(3), "clumpiness": 1e-6}
    p = galaxy(size=8.0, bulge_n=(1.0, 1.0), particle_draws=draws[0], **mass, **tilt)
    image = observe("wet merger", p, 512, 0.8)[R_BAND]
    axis = (np.arange(512) - 255.5) * 0.8
    for x in (0.0, 25 * h):
        radius = np.hypot(axis - x, axis[:, None])
        inside = [image[radius < k * h].sum() for k in (1.678, 3.0, 12.0)]
        assert inside == pytest.approx([25, 40, 50], rel=0.03)  # 50, 80 and 100 % of an exponential disc


def test_an_unknown_kind_of_galaxy_is_refused_by_name():
    with pytest.raises(ValueError, match="cannot draw the light of a 'ring': it draws spiral, elliptical"):
        planes_of("ring", galaxy())


# Structure


def wound(**changes) -> GalaxyTable[torch.Tensor]:
    waves = np.tile([3.0, 5.0, 0.3, 1.0], (NUM_WAVES, 1)) + np.arange(NUM_WAVES)[:, None] * [1, 0.5, 1, 0]
    strong = {"arm_strength": 0.6, "arm_sharpness": 2.0, "arm_asymmetry": 0.3, "waves": waves, "wave_strength": 0.02}
    return galaxy(**{"axis_ratio": 1.0, "position_angle": 0.0, "size": 20 * 1.678} | strong | changes)


def rings(image: np.ndarray, radii: np.ndarray, num_angles: int = 720) -> np.ndarray:
    """Return an image on circles about its centre, (radii, angles), radii in pixels."""
    angle = (np.arange(num_angles) + 0.5) * 2 * math.pi / num_angles
    middle = (image.shape[-1] - 1) / 2
    x, y = middle + radii[:, None] * np.cos(angle), middle + radii[:, None] * np.sin(angle)
    left, top = x.astype(int), y.astype(int)
    a, b = x - left, y - top
    above = image[top, left] * (1 - a) + image[top, left + 1] * a
    below = image[top + 1, left] * (1 - a) + image[top + 1, left + 1] * a
    return above * (1 - b) + below * b


@pytest.mark.parametrize("hole", [0.0, 0.9])
@pytest.mark.parametrize("arms", [1.0, 2.0, 4.0])
def test_arms_take_no_light_from_any_radius(arms, hole):
    light = planes_of("spiral", wound(num_arms=arms, hole=hole), 384, 1.0)
    radii = np.arange(0.3, 5.5, 0.2)
    # Half of the hole's light: the integral of r exp(-r) exp(-(r / 0.8)^2).
    r = np.linspace(0, 40, 400_001)
    profile = lambda r: np.exp(-r) * (1 - hole * np.exp(-((r / 0.8) ** 2)))  # noqa: E731
    norm = 2 * math.pi * (r * profile(r)).sum() * 1e-4
    for band, flux in enumerate((60, 100, 140)):
        mean = rings(light[band], radii * 20).mean(1)
        np.testing.assert_allclose(mean, flux * profile(radii) / norm / 400, rtol=0.02)


def test_arms_are_logarithmic_spirals():
    for arms, pitch, winding in ((2.0, 0.25, 1.0), (3.0, 0.4, -1.0)):
        shape = {"num_arms": arms, "pitch": pitch, "winding": winding, "wave_strength": 0.0, "arm_asymmetry": 0.0}
        light = planes_of("spiral", wound(**shape), 384, 1.0)[R_BAND]
        radii = np.linspace(1.5, 4, 30)
        circles = rings(light, radii * 20)
        waves = np.fft.rfft(circles / circles.mean(1, keepdims=True), axis=1)
        assert (np.abs(waves[:, 1:12]).argmax(1) + 1 == arms).all()
        turn = -np.unwrap(np.angle(waves[:, int(arms)])) / arms  # azimuth of a ridge
        slope = np.polyfit(np.log(radii), turn, 1)[0]
        assert slope == pytest.approx(winding / math.tan(pitch), rel=0.02)


def test_nothing_in_a_disc_changes_its_flux():
    busy = {"bar_fraction": 0.2, "knot_fraction": 0.06, "hole": 0.7, "knot_angle": np.linspace(-1, 1, NUM_KNOTS)}
    light = planes_of("spiral", wound(**busy, size=10 * 1.678, axis_ratio=0.5), 384, 1.0)
    assert light[R_BAND].sum() == pytest.approx(100, rel=0.01)
    assert light[R_BAND].min() >= 0


def test_young_stars_are_blue():
    plain, armed = (planes_of("spiral", wound(arm_strength=s), 384, 1.0) for s in (0.0, 0.6))
    contrast = [(a[100:300, 100:300] / b[100:300, 100:300]).std() for a, b in zip(armed, plain, strict=True)]
    assert contrast[0] > contrast[1] > contrast[2]


def test_dust_moves_light_and_keeps_the_flux():
    p = galaxy(dust_depth=2.0, position_angle=0.0, lopsidedness=0.1)
    light, clear = planes_of("edge-on", p, scale=0.1), planes_of("edge-on", galaxy(position_angle=0.0), scale=0.1)
    assert light[R_BAND].sum() == pytest.approx(100, rel=1e-5)
    assert light[0].sum() < 60  # dust takes more of g and less of i
    assert light[2].sum() > 140
    middle = light[:, 127:129, 128].sum(1) / clear[:, 127:129, 128].sum(1)
    assert (middle < 0.8).all()
    assert middle[0] < middle[1] < middle[2]
    assert light[R_BAND, :, 128:].sum() > 52  # lopsided towards +x


def test_a_galaxy_is_moved_to_its_place_in_the_frame():
    axis = (np.arange(256) - 127.5) * 0.3
    offsets = np.array([[0.1, -0.2], [0, 0], [-0.3, 0.4]])
    p = galaxy(centre=(0.02, -0.03), misregistration=offsets, axis_ratio=0.9, size=2.0)
    for band, image in enumerate(observe("elliptical", p)):
        x, y = (image.sum(k) @ axis / image.sum() for k in (0, 1))
        expected = np.array([0.02, -0.03]) * CROP_PX * 0.2 + offsets[band]
        assert (x, y) == pytest.approx(tuple(expected), abs=0.02)


def test_points_keep_their_light_and_centroid():
    grid = Grid(64, torch.tensor([0.5]))
    points = torch.tensor([[[3.13, -4.31], [-2.0, 7.77], [100.0, 0.0]]])
    image = grid.deposit(points, torch.tensor([[2.0, 1.0, 5.0]]))[0]
    assert float(image.sum()) == pytest.approx(3)  # the third lies outside
    axis = (torch.arange(64) - 31.5) * 0.5
    assert float(image.sum(0) @ axis / 3) == pytest.approx((2 * 3.13 - 2.0) / 3, abs=1e-4)
    assert float(image.sum(1) @ axis / 3) == pytest.approx((-2 * 4.31 + 7.77) / 3, abs=1e-4)


# Noise


def noisy(flux_a_survey_pixel: float, count: int = 8, side: int = 256, scale: float = 0.3) -> torch.Tensor:
    """Return exposures (count, 3, side, side) of light that is the same everywhere."""
    one = galaxy(sky_noise=(0.02, 0.03, 0.05))
    p = changed(lambda value: value.expand(count, *value.shape[1:]), one)
    grid = Grid(side, torch.full((count,), scale))
    level = flux_a_survey_pixel * (scale / SDSS_PIXEL_ARCSEC) ** 2
    source = torch.fft.rfft2(torch.full((count, 3, side, side), level))
    noise = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    return simulation._expose(source, torch.zeros(count, 3, side, side), FourierGrid(side, grid.pixel_scale), noise, p)


def test_galaxies_are_drawn_on_one_thread_each(monkeypatch):
    # So that they are the same for any number of threads; of 128 pixels and three threads a grey level was not.
    threads = []
    for module, name in ((simulation.population, "draw_blocks"), (simulation, "draw_light")):
        monkeypatch.setattr(module, name, noting_threads(getattr(module, name), threads))
    monkeypatch.setattr(simulation, "BLOCK", 4)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        next(MockSurvey(3).batches(4))
    finally:
        torch.set_num_threads(before)
    assert len(threads) >= 8 and set(threads) == {1}


def test_the_skys_noise_is_that_of_the_surveys_pixels():
    seen = noisy(0.0)
    pixels = (32 * 0.3 / SDSS_PIXEL_ARCSEC) ** 2  # of the survey, in a block
    deviation = torch.nn.functional.avg_pool2d(seen, 32).std((0, 2, 3)) * math.sqrt(pixels)
    assert deviation.tolist() == pytest.approx([0.02, 0.03, 0.05], rel=0.12)
    assert seen.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=0.001)
    # In a pixel of the frame there is less: it is made from several of the survey.
    assert (seen.std((0, 2, 3)) < torch.tensor([0.03, 0.04, 0.06])).all()


def test_brighter_light_has_more_photon_noise():
    dark, dim, bright = (noisy(flux, 2) for flux in (0.0, 1.0, 10.0))
    for band, sky in enumerate((0.02, 0.03, 0.05)):
        for flux, image in ((1.0, dim), (10.0, bright)):
            assert image[:, band].mean() == pytest.approx(flux, rel=1e-3)
            expected = math.sqrt(1 + flux * simulation._PHOTON_VARIANCE[band] / sky**2)
            assert image[:, band].std() / dark[:, band].std() == pytest.approx(expected, rel=0.01)


def test_stretching_keeps_colours_and_order():
    levels = torch.logspace(-3, 3, 60)
    light = levels[:, None] * torch.tensor([0.5, 1.0, 1.7])
    shown = simulation._compose(light.T[None, :, :, None])[0, :, :, 0]  # red, green, blue
    ratios = shown / shown[1:2]
    torch.testing.assert_close(ratios, ratios[:, :1].expand_as(ratios), atol=0.02, rtol=0.02)
    assert (shown.diff(dim=1) >= -1e-6).all()
    assert shown.max() == pytest.approx(1, abs=0.02)
    assert simulation._compose(torch.full((1, 3, 1, 1), -0.05)).max() < 0.02


# The survey: truth against fine renders


class Recorded:
    """What a survey drew beside its pictures."""

    def __init__(self, count: int) -> None:
        self.parts: list[tuple[str, GalaxyTable[torch.Tensor]]] = []
        self.encounters: list[encounter.Encounter] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(simulation, "draw_light", self._draw)
            patch.setattr(encounter, "simulate", self._meet(encounter.simulate))
            batches = list(MockSurvey(0, 64).batches(count))
        self.images = np.concatenate([b.images for b in batches])
        self.object_ids = [i for b in batches for i in b.object_ids]
        self.morphologies = np.array([m for b in batches for m in b.morphologies])
        self.truth = {name: np.concatenate([b.truth[name] for b in batches]) for name in batches[0].truth}
        self.votes = {name: np.concatenate([b.votes[name] for b in batches]) for name in batches[0].votes}

    def _draw(self, kind, p, *others):
        if not any(p is known for _, known in self.parts):
            self.parts.append((kind, p))
        return draw_light(kind, p, *others)

    def _meet(self, simulate):
        def recorded(*arguments):
            self.encounters.append(simulate(*arguments))
            return self.encounters[-1]

        return recorded

    def of_kind(self, kind: str) -> tuple[GalaxyTable[torch.Tensor], np.ndarray]:
        """Return the parameters of galaxies of a kind and their rows in the survey."""
        parts = [p for name, p in self.parts if name == kind]
        joined = changed(lambda *columns: torch.cat(columns), *parts)
        scales = self.truth["frame_scale"].astype(np.float32)
        return joined, np.array([np.flatnonzero(scales == s).item() for s in joined.exposure.frame_scale.numpy()])


@pytest.fixture(scope="module")
def survey():
    return Recorded(2 * BLOCK)


KINDS = ("spiral", "elliptical", "edge-on", "dry merger", "wet merger")


@pytest.fixture(scope="module")
def fine(survey):
    """Render some galaxies of every kind in r, without noise, on a grid of 320 pixels that is three times as wide."""
    rendered = {}
    for kind in KINDS:
        p, rows = survey.of_kind(kind)
        chosen = torch.arange(len(rows))[-9 if kind == "wet merger" else -4 :]
        p, rows = changed(lambda values: values[chosen], p), rows[chosen]  # noqa: B023 - called here
        scale = 3 * CROP_PX * p.exposure.frame_scale / 320
        grid = Grid(320, scale)
        field = FourierGrid(grid.side, grid.pixel_scale)
        source = MockSurvey(0)._transformed(draw_light(kind, p, grid), field, p)
        image = field.image(source[:, R_BAND] * field.gaussian(0.5 * scale)).double().numpy()
        rendered[kind] = [(int(row), float(s), light) for row, s, light in zip(rows, scale, image, strict=True)]
    return rendered


def part_in_frame(image: np.ndarray) -> float:
    """Return the part of a fine render's light that is in the picture or just outside it."""
    middle, half = image.shape[-1] // 2, round(1.15 * image.shape[-1] / 3 / 2)
    inner = slice(middle - half, middle + half)
    return image[inner, inner].sum() / image.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_true_flux_and_radius_within_two_percent(survey, fine, kind):
    measured = 0
    for row, scale, image in fine[kind]:
        if part_in_frame(image) > 0.985:
            assert image.sum() == pytest.approx(survey.truth["true_flux"][row], rel=0.02)
            radius = half_light_radius(image, scale)
            assert survey.truth["true_half_light_radius"][row] == pytest.approx(radius, rel=0.02)
            measured += 1
    assert measured >= 1


def test_true_radii_of_mergers_that_outgrow_the_picture(survey, fine):
    for row, scale, image in fine["dry merger"] + fine["wet merger"]:
        radius = half_light_radius(image, scale)
        assert survey.truth["true_half_light_radius"][row] == pytest.approx(radius, rel=0.02), survey.object_ids[row]


def test_true_radii_of_ellipticals_against_their_growth_curves(survey):
    special = pytest.importorskip("scipy.special")
    optimize = pytest.importorskip("scipy.optimize")
    angle = (np.arange(200) + 0.5) * math.pi / 400

    def within(radius: float, n: float, size: float, axis_ratio: float) -> float:
        inside = lambda r, b: special.gammainc(2 * n, b * np.minimum(r, 8) ** (1 / n))  # noqa: E731
        b = optimize.brentq(lambda b: inside(1, b) / inside(8, b) - 0.5, 0.01, 3 * n)
        stretch = np.cos(angle) ** 2 + (np.sin(angle) / axis_ratio) ** 2
        return (inside(radius / size * np.sqrt(stretch), b) / inside(8, b) / stretch).mean() / axis_ratio

    columns, rows = survey.of_kind("elliptical")
    for k, row in enumerate(rows):
        p = changed(lambda values: values[k].double().numpy(), columns)  # noqa: B023 - called here
        core = (p.structure.bulge_n, p.size / 1.678 * p.structure.bulge_size, p.structure.bulge_axis_ratio)
        body = (1.0, p.size, p.structure.axis_ratio)
        share = p.bulge_flux[R_BAND] / (p.bulge_flux + p.disc_flux)[R_BAND]
        radius = optimize.brentq(
            lambda r: share * within(r, *core) + (1 - share) * within(r, *body) - 0.5,  # noqa: B023 - called here
            0.05 * p.size,
            3 * p.size,
            rtol=1e-4,
        )
        assert survey.truth["true_half_light_radius"][row] == pytest.approx(radius, rel=0.02)


def test_true_axis_ratio_of_what_was_drawn(survey):
    for kind in ("spiral", "elliptical", "edge-on"):
        p, rows = survey.of_kind(kind)
        np.testing.assert_allclose(survey.truth["true_axis_ratio"][rows], p.structure.axis_ratio, rtol=1e-6)
    p, rows = survey.of_kind("dry merger")
    np.testing.assert_allclose(
        survey.truth["true_axis_ratio"][rows], p.structure.pair.spheroid_axis_ratio[:, 0], rtol=1e-6
    )


def test_true_axis_ratio_of_encounters_is_that_of_the_disc_in_the_picture(survey):
    _, rows = survey.of_kind("wet merger")
    drawn = torch.cat([e.axis_ratio[:, 0] for e in survey.encounters])
    np.testing.assert_allclose(survey.truth["true_axis_ratio"][rows], drawn, rtol=1e-5)


# The survey: its truth in itself


def test_arms_bars_and_bulges_are_those_of_the_light(survey):
    spirals, rows = survey.of_kind("spiral")
    arms = spirals.structure.spiral
    drawn = {"arm_count": arms.num_arms, "bar": arms.bar_fraction, "bulge": spirals.structure.bulge_fraction}
    for name, values in drawn.items():
        np.testing.assert_allclose(survey.truth[name][rows], values, rtol=1e-6, err_msg=name)
        told = np.isin(survey.morphologies, ("spiral", "edge-on") if name == "bulge" else ("spiral",))
        np.testing.assert_array_equal(np.isfinite(survey.truth[name]), told, err_msg=name)
    assert len(set(survey.truth["arm_count"][rows])) >= 3 and 0 < (survey.truth["bar"][rows] > 0).mean() < 1
    edge_on, rows = survey.of_kind("edge-on")
    np.testing.assert_allclose(survey.truth["bulge"][rows], edge_on.structure.bulge_fraction, rtol=1e-6)


def test_measured_arms_are_as_many_as_were_drawn(survey):
    spirals = survey.morphologies == "spiral"
    found = measure_images(torch.from_numpy(survey.images[spirals]), statistics=MORPHOLOGY_STATISTICS).values
    visible = found["arm_strength"] > VISIBLE_ARMS
    assert visible.sum() >= 10
    # 96 % of 267 (studies/arms.py --mock), here of a handful.
    assert (found["arm_count"] == survey.truth["arm_count"][spirals])[visible].mean() >= 0.8


def test_shapes_types_and_order(survey):
    assert survey.images.shape == (2 * BLOCK, 3, 64, 64)
    assert survey.images.dtype == np.uint8
    assert survey.morphologies.tolist() == list(MORPHOLOGY_NAMES) * (BLOCK // 2)
    assert len(set(survey.object_ids)) == 2 * BLOCK
    assert all(i.isdigit() and len(i) == 19 and int(i) < 2**63 for i in survey.object_ids)
    for name, values in survey.truth.items():
        assert values.dtype == np.float64, name
        assert values.shape == (2 * BLOCK,), name
        assert name in OF_DISCS or np.isfinite(values).all(), name
    for name, values in survey.votes.items():
        assert values.dtype == np.int64, name
        assert values.shape == (2 * BLOCK,), name


def test_truth_is_plausible_and_consistent(survey):
    t = survey.truth
    np.testing.assert_allclose(t["true_flux"], 10 ** (0.4 * (22.5 - t["magnitude"])), rtol=1e-9)
    np.testing.assert_allclose(t["petro_r50"], t["petro_r50_kpc"] * arcsec_per_kpc(t["redshift"]), rtol=1e-9)
    np.testing.assert_allclose(t["pixel_scale"], t["frame_scale"] * CROP_PX / 64, rtol=1e-12)
    assert t["redshift"].min() >= 0.01 and t["redshift"].max() <= 0.25
    assert t["magnitude"].min() > 12 and t["magnitude"].max() < 17.8
    assert t["absolute_magnitude"].min() > -24 and t["absolute_magnitude"].max() < -17
    assert t["stellar_mass"].min() > 8 and t["stellar_mass"].max() < 12.5
    assert t["petro_r90"].min() >= 3
    assert t["true_axis_ratio"].min() > 0.02 and t["true_axis_ratio"].max() <= 1
    ratio = (t["true_half_light_radius"] / t["petro_r50"])[survey.morphologies != "merger"]
    assert ratio.min() > 0.75 and ratio.max() < 1.4
    # The frame is 8.48 R90 wide, by the survey's own measurement of it.
    assert np.median(t["frame_scale"] / t["petro_r90"]) == pytest.approx(0.02, rel=0.2)


# The survey: determinism


@pytest.fixture
def small_blocks(monkeypatch):
    """Let 16 galaxies share their streams instead of 64, which is quicker."""
    monkeypatch.setattr(simulation, "BLOCK", 16)


def render(count: int, seed: int = 0, blocks_at_once: int = 1, **options) -> dict[str, np.ndarray]:
    """Return everything that a survey says of its galaxies."""
    batches = list(MockSurvey(seed, **options).batches(count, blocks_at_once))
    result = {"images": np.concatenate([b.images for b in batches])}
    result["object_ids"] = np.array([i for b in batches for i in b.object_ids])
    result["morphologies"] = np.array([m for b in batches for m in b.morphologies])
    for name in batches[0].truth:
        result[name] = np.concatenate([b.truth[name] for b in batches])
    return result | {name: np.concatenate([b.votes[name] for b in batches]) for name in batches[0].votes}


def assert_equal(one: dict[str, np.ndarray], two: dict[str, np.ndarray], count: int) -> None:
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name][:count], two[name][:count], err_msg=name)


def test_a_galaxy_depends_on_its_seed_and_number_alone(small_blocks):
    first = render(40)
    assert [len(values) for values in first.values()] == [40] * len(first)
    torch.manual_seed(77)
    np.random.seed(77)
    assert_equal(first, render(40, blocks_at_once=3), 40)
    assert_equal(first, render(21), 21)
    other = render(16, seed=1)
    assert (first["images"][:16] != other["images"]).any((1, 2, 3)).all()
    assert (first["redshift"][:16] != other["redshift"]).all()
    assert not set(first["object_ids"]) & set(other["object_ids"])


def test_real_blocks_side_by_side(survey):
    together = render(BLOCK + 1, blocks_at_once=2)
    np.testing.assert_array_equal(together["images"], survey.images[: BLOCK + 1])
    np.testing.assert_array_equal(together["true_half_light_radius"], survey.truth["true_half_light_radius"][:65])
    np.testing.assert_array_equal(together["total_classifications"], survey.votes["total_classifications"][:65])


def test_galaxies_and_their_noise_differ(survey):
    assert len(np.unique(survey.images.reshape(len(survey.images), -1), axis=0)) == len(survey.images)
    corners = survey.images[:, 1, :6, :6].reshape(len(survey.images), -1).astype(float)
    likeness = np.corrcoef(corners[corners.std(1) > 0])
    assert np.abs(likeness[np.triu_indices(len(likeness), 1)]).mean() < 0.25  # 36 pixels, and noise has a grain


def test_global_random_streams_are_left_alone(small_blocks):
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    render(16)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_batches_come_one_after_the_other(small_blocks):
    endless = MockSurvey(0).batches(10**9)
    assert [len(next(endless).images) for _ in range(2)] == [16, 16]
    assert list(MockSurvey(0).batches(0)) == []


# The survey: sizes and frames


def shrink(images: np.ndarray, side: int = 64) -> np.ndarray:
    factor = images.shape[-1] // side
    return images.reshape(len(images), 3, side, factor, side, factor).mean((3, 5))


@pytest.mark.parametrize(("size", "tolerance"), [(128, 1.0), (256, 7.0)])
def test_every_size_shows_the_same_galaxy(small_blocks, size, tolerance):
    small, large = render(16), render(16, image_size=size)
    assert large["images"].shape == (16, 3, size, size)
    np.testing.assert_allclose(large.pop("pixel_scale"), small.pop("pixel_scale") * 64 / size, rtol=1e-12)
    radii = large.pop("true_half_light_radius")
    np.testing.assert_allclose(radii, small.pop("true_half_light_radius"), rtol=0.02)
    one, two = small.pop("images").astype(float), shrink(large.pop("images"))
    assert_equal(small, large, 16)
    assert np.abs(one - two).mean() < tolerance  # of 255; at 256 pixels the noise is another one
    assert np.abs(one.mean((1, 2, 3)) - two.mean((1, 2, 3))).max() < 2
    likeness = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, two, strict=True)]
    assert min(likeness) > 0.85


def test_the_middle_of_the_whole_frame_is_the_picture(small_blocks):
    picture, frame = render(16), render(16, image_size=128, whole_frame=True)
    np.testing.assert_array_equal(picture["pixel_scale"], frame["pixel_scale"])
    middle = frame["images"][:, :, 32:96, 32:96].astype(float)
    likeness = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(picture["images"], middle, strict=True)]
    assert min(likeness) > 0.8
    assert np.median(likeness) > 0.93
    for name in picture.keys() - {"images", "true_half_light_radius"}:
        np.testing.assert_array_equal(picture[name], frame[name], err_msg=name)
    alone = picture["morphologies"] != "merger"
    radii = picture["true_half_light_radius"][alone], frame["true_half_light_radius"][alone]
    np.testing.assert_allclose(*radii, rtol=0.03)  # coarser pixels


# The survey: pictures against the truth


@pytest.fixture(scope="module")
def measured(survey):
    values = photometry.measure(torch.from_numpy(survey.images).float() / 255)
    return {name: column.double().numpy() for name, column in values._asdict().items()}


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def test_every_galaxy_is_found_at_the_centre(survey, measured):
    assert (measured["flag"].astype(int) & photometry.NO_SOURCE == 0).all()
    offset = np.hypot(measured["centroid_x"], measured["centroid_y"])[survey.morphologies != "merger"]
    assert np.median(offset) < 0.025
    assert np.quantile(offset, 0.9) < 0.05


def test_measured_sizes_follow_the_truth(survey, measured):
    size = measured["size"] * 64 * survey.truth["pixel_scale"]
    alone = survey.morphologies != "merger"
    assert spearman(size[alone], survey.truth["true_half_light_radius"][alone]) > 0.8
    ratio = size[alone] / survey.truth["true_half_light_radius"][alone]
    assert 0.7 < np.median(ratio) < 2  # of display light, which favours the outskirts


def test_measured_shapes_follow_the_truth(survey, measured):
    flat = 1 - survey.truth["true_axis_ratio"]
    smooth = np.isin(survey.morphologies, ("spiral", "elliptical"))
    assert spearman(measured["ellipticity"][smooth], flat[smooth]) > 0.8
    side = survey.morphologies == "edge-on"
    assert spearman(measured["ellipticity"][side], flat[side]) > 0.8
    assert np.median(measured["ellipticity"][side]) > np.median(measured["ellipticity"][smooth]) + 0.2


def test_bright_galaxies_look_bright(survey, measured):
    light = measured["light"] * survey.truth["pixel_scale"] ** 2
    assert spearman(light, survey.truth["true_flux"]) > 0.8


def test_classes_look_different(survey, measured):
    median = {
        name: {key: np.median(values[survey.morphologies == name]) for key, values in measured.items()}
        for name in MORPHOLOGY_NAMES
    }
    assert median["elliptical"]["color"] > median["spiral"]["color"]
    assert median["elliptical"]["concentration"] > median["spiral"]["concentration"]
    assert median["edge-on"]["ellipticity"] > median["spiral"]["ellipticity"]


# Batches on a device


class Elsewhere(MockSurvey):
    """A survey that makes its noise as on a GPU, in tensors that lie on the CPU."""

    def _noise(self, numbers: np.ndarray, side: int) -> torch.Tensor:
        self.device = torch.device("cuda")
        try:
            with _CpuInstead():
                return super()._noise(numbers, side)
        finally:
            self.device = torch.device("cpu")


class _CpuInstead(torch.overrides.TorchFunctionMode):
    """Keep on the CPU what is sent to CUDA."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.to:
            return args[0]
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("together", [1, 3 * 154**2 * 2, 2**24])
def test_noise_made_on_a_device_depends_on_the_seed_and_the_galaxy_alone(monkeypatch, together):
    side = Elsewhere(0, 64).image_size
    reference = Elsewhere(2, 64)._noise(np.arange(5), side)
    monkeypatch.setattr(simulation, "_NOISE_TOGETHER", together)
    assert torch.equal(Elsewhere(2, 64)._noise(np.arange(3, 5), side), reference[3:])
    assert not torch.equal(Elsewhere(3, 64)._noise(np.arange(5), side), reference)
    assert reference.shape == (5, 3, side, side)
    flat = reference.flatten(1)
    assert flat.mean(1).abs().max() < 4 / flat.shape[1] ** 0.5
    assert (flat.std(1) - 1).abs().max() < 4 / (2 * flat.shape[1]) ** 0.5
    assert (torch.corrcoef(flat) - torch.eye(5)).abs().max() < 5 / flat.shape[1] ** 0.5


def test_only_the_noise_differs_on_a_device():
    (here,), (there,) = MockSurvey(1, 64).batches(8), Elsewhere(1, 64).batches(8)
    for name, values in here.truth.items():
        assert np.array_equal(values, there.truth[name], equal_nan=True), name
    assert here.votes.keys() == there.votes.keys()
    difference = here.images.astype(int) - there.images
    assert 0.2 < np.abs(difference).mean() < 10 and np.abs(difference.mean()) < 1


def test_the_next_batch_is_drawn_while_one_is_rendered(monkeypatch):
    monkeypatch.setattr(simulation, "BLOCK", 4)
    order = []
    for name in ("_draw", "_begin", "_finish"):
        whole = getattr(MockSurvey, name)
        monkeypatch.setattr(
            MockSurvey, name, lambda survey, *args, w=whole, n=name: order.append(n) or w(survey, *args)
        )
    for _ in MockSurvey(0, 64).batches(10):
        order.append("yielded")
    batch = ["_draw", "_finish", "yielded", "_begin"]
    assert order == ["_draw", "_begin", *batch, *batch, "_finish", "yielded"]
    assert list(MockSurvey(0, 64).batches(0)) == []
