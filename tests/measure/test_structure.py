"""Structure without a model: known answers, invariances, edges, gradients, GalSim's truth, statmorph's opinion."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import brentq

from galaxies.common.errors import UserError
from galaxies.measure import structure as statistics
from galaxies.measure.photometry import (
    NEGATIVE_FLUX,
    NO_SOURCE,
    NOT_CONVERGED,
    TOUCHES_EDGE,
    measure,
    measure_with_structure,
)
from galaxies.measure.sky import estimate_sky
from galaxies.measure.source import find_source
from studies import instruments
from studies.instruments import errors, measure_all, measure_with_statmorph, rank_correlation, render_galaxies
from tests.measure.test_photometry import NOISE, assert_finite, binned, picture, profile, star

REAL = os.environ.get("GALAXY_REAL_DATA")
STRUCTURE = (
    *("petrosian_radius", "petrosian_light", "half_light_radius", "r20", "r50", "r80", "petrosian_concentration"),
    *("asymmetry", "asymmetry_corrected", "smoothness", "gini", "m20"),
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Images this small are slower to share among threads than to measure."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def everything(images):
    """Return all that is measured on images, by name."""
    galaxy, structure = measure_with_structure(images)
    return galaxy._asdict() | structure._asdict()


def structure(*images):
    """Measure images and return arrays, one value an image."""
    return {name: values.numpy() for name, values in everything(torch.stack(images)).items()}


def one(image):
    return {name: values.item() for name, values in everything(image[None]).items()}


# Known answers


def test_structure_is_added_to_the_rest():
    image = picture(profile(ellipticity=0.4))
    plain, (full, added) = measure(image[None]), measure_with_structure(image[None])
    assert set(added._fields) == {*STRUCTURE, "asymmetry_x", "asymmetry_y"}
    assert not set(added._fields) & set(full._fields)  # so that one table can hold both
    for name, values in plain._asdict().items():
        assert torch.equal(values, getattr(full, name)), name
    assert all(values.shape == (1,) and values.dtype == torch.float32 for values in (*full[:-1], *added))


# Where eta = I(r) / <I>(r) falls to 0.2, in closed form: with x = r / h for a disc exp(-x), and u = r^2 / 2 sigma^2.
ETA_RADIUS = {
    "exponential": brentq(lambda x: x**2 * np.exp(-x) / (2 * (1 - (1 + x) * np.exp(-x))) - 0.2, 1, 9) / 1.67835,
    "gaussian": np.sqrt(brentq(lambda u: u / np.expm1(u) - 0.2, 0.5, 9) / np.log(2)),
}


# Radii that hold a fifth and four fifths of all light, over the half-light radius, likewise.
PARTS = {
    "exponential": [
        brentq(lambda x, part: (1 + x) * np.exp(-x) - 1 + part, 0.1, 9, part) / 1.67835 for part in (0.2, 0.8)
    ],
    "gaussian": [np.sqrt(-np.log2(1 - part)) for part in (0.2, 0.8)],
}


@pytest.mark.parametrize("kind", ["gaussian", "exponential"])
@pytest.mark.parametrize("radius", [0.06, 0.09, 0.12])
@pytest.mark.parametrize("noise", [0.0, NOISE])
def test_petrosian_radius(kind, radius, noise):
    values = structure(*(picture(profile(kind, radius), noise=noise, seed=k) for k in range(4)))
    np.testing.assert_allclose(values["petrosian_radius"].mean() / radius, ETA_RADIUS[kind], rtol=0.04)
    # 1.5 Petrosian radii hold 98 % of either, so half of that lies within slightly less than the half-light radius.
    np.testing.assert_allclose(values["r50"].mean() / radius, 1, atol=0.05)
    for name, right in zip(("r20", "r80"), PARTS[kind], strict=True):
        np.testing.assert_allclose(values[name].mean() / radius, right, rtol=0.08, err_msg=name)
    # The outskirts of a large disc are taken for the wings of a peaked galaxy.
    np.testing.assert_allclose(values["half_light_radius"].mean() / radius, 1.02, atol=0.05)
    assert not values["flag"].any()


def test_concentration():
    # 5 log10(r80 / r20): sqrt(ln 5 / ln 1.25) for a Gaussian, 2.994 / 0.824 for an exponential, less what lies beyond
    # 1.5 Petrosian radii; both lose a little to pixels.
    gaussian, exponential, peaked = (
        structure(picture(profile(kind, 0.1), noise=0))["petrosian_concentration"][0]
        for kind in ("gaussian", "exponential", "de_vaucouleurs")
    )
    assert gaussian == pytest.approx(2.15, abs=0.05)
    assert exponential == pytest.approx(2.75, abs=0.1)
    assert peaked > exponential + 0.5


def test_light_that_no_aperture_reaches_is_made_up_for():
    # Without noise and with the sky known, a de Vaucouleurs profile of 6 pixels in a frame of 256: Graham et al. (2005)
    # promise a few per cent; r50 alone falls short by a quarter.
    light = torch.from_numpy(profile("de_vaucouleurs", 6 / 256, side=256)).float()
    light = torch.nn.functional.avg_pool2d(light[None], 5)
    rings = statistics.measure_rings(
        light, torch.ones_like(light, dtype=torch.bool), statistics.distance_from(light, torch.zeros(1, 2))
    )
    petrosian, found = statistics.petrosian_radius(rings)
    assert found.all()
    assert statistics.half_light_radius(rings, petrosian).item() == pytest.approx(6, rel=0.06)
    total = statistics.light_within(rings, 1.5 * petrosian)
    assert statistics.squared_radius(rings.growth, rings.edges, 0.5 * total[:, None]).sqrt().item() < 0.8 * 6


def test_rings_look_past_the_border_and_neighbours():
    flat = torch.ones(1, 64, 64)
    usable = torch.ones(1, 64, 64, dtype=torch.bool)
    usable[:, 10:20, 40:50] = False
    rings = statistics.measure_rings(flat * usable, usable, statistics.distance_from(flat, torch.tensor([[9.3, -4.7]])))
    # A uniform sheet has pi r^2 within every radius, as long as a part of the ring is seen.
    seen = rings.covered[0] & (rings.edges > 1)
    assert seen.sum() > 80
    np.testing.assert_allclose(rings.growth[0, seen], np.pi * rings.edges[seen].square(), rtol=1e-3)
    np.testing.assert_allclose(rings.ratio[0, seen], 1, rtol=1e-3)
    assert not statistics.petrosian_radius(rings)[1].any()


def test_gini_of_known_distributions():
    def gini(values):
        light = torch.zeros(1, 64, 64)
        light[0].view(-1)[: len(values)] = torch.tensor(values, dtype=torch.float32)
        pixels = torch.zeros(1, 64, 64, dtype=torch.bool)
        pixels[0].view(-1)[: len(values)] = True
        return statistics.gini_m20(light, pixels)[0].item()

    assert gini([0.3] * 500) == pytest.approx(0, abs=1e-5)
    assert gini([1.0] + [0.0] * 500) == pytest.approx(1, abs=1e-5)
    # The sum of (2i - n - 1) i is n (n^2 - 1) / 6, over the mean (n + 1) / 2 and n (n - 1): a third, whatever n is.
    assert gini([k / 7 for k in range(1, 301)]) == pytest.approx(1 / 3, abs=1e-5)
    assert gini([-k / 7 for k in range(1, 301)]) == pytest.approx(1 / 3, abs=1e-5)  # of absolute values


def test_m20_of_points():
    # Four bright pixels at distance 2 hold a fifth of the light, sixteen of equal light at distance 10 the rest.
    light = torch.zeros(1, 65, 65)
    for dx, dy in ((2, 0), (-2, 0), (0, 2), (0, -2)):
        light[0, 32 + dy, 32 + dx] = 5.0
    for dx, dy in ((10, 0), (6, 8), (8, 6), (0, 10)):
        for sx, sy in ((1, 1), (-1, -1), (-1, 1), (1, -1)):
            light[0, 32 + sy * dy, 32 + sx * dx] += 5.0 - 1e-3 if dx * dy else (5.0 - 1e-3) / 2
    pixels = light > 0
    # The twenty pixels hold 99.988; the few thousandths that complete the fifth lie at distance 10 and add as much.
    total = light.sum().item()
    bright = 20.0 if total >= 100 else 0.2 * total
    expected = np.log10(bright * 4 / (20 * 4 + (total - 20) * 100))
    assert statistics.gini_m20(light, pixels)[1].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("part", [0.05, 0.2, 0.4])
def test_asymmetry_of_a_blob_on_one_side(part):
    # |I - I180| sums to twice the blob's light, once where it is and once across.
    galaxy, blob = profile("gaussian", 0.07), profile("gaussian", 0.02, x0=0.14, y0=0.05)
    blob = blob * part * galaxy.sum() / blob.sum()
    values = one(picture(galaxy + blob, noise=0))
    assert values["asymmetry"] == pytest.approx(2 * part / (1 + part), rel=0.06)
    assert values["asymmetry_corrected"] == pytest.approx(2 * part / (1 + part), rel=0.06)
    assert np.hypot(values["asymmetry_x"], values["asymmetry_y"]) < 0.25 / 64


def test_noise_adds_little_asymmetry():
    values = structure(*(picture(profile(radius=0.1, ellipticity=0.4, angle=20), seed=k) for k in range(8)))
    assert abs(values["asymmetry_corrected"].mean()) < 0.03
    assert abs(values["asymmetry"].mean()) < 0.08
    smooth = one(picture(profile(radius=0.1, ellipticity=0.4, angle=20), noise=0))
    assert smooth["asymmetry"] == pytest.approx(0, abs=0.01)
    assert smooth["asymmetry_corrected"] == pytest.approx(0, abs=0.01)
    assert smooth["smoothness"] == pytest.approx(0, abs=0.02)


def test_knots_are_clumpy():
    light = profile(radius=0.1)
    angles = np.deg2rad(np.arange(0, 360, 45))
    knots = sum(profile("gaussian", 0.012, x0=0.12 * np.cos(a), y0=0.12 * np.sin(a)) for a in angles)
    plain, knotty = (
        structure(*(picture(image, noise=0.005, seed=k) for k in range(4)))["smoothness"]
        for image in (light, light + 0.25 * knots)
    )
    assert knotty.min() > plain.max() + 0.01


def test_background_and_noise():
    light = profile("gaussian", 0.08)
    values = structure(*(picture(light, sky=[0.2] * 3, noise=0.02, seed=k) for k in range(8)))
    np.testing.assert_allclose(values["background"], 0.2, atol=0.002)
    # The mean of three independent planes; 880 pixels tell a standard deviation to some 4 %.
    np.testing.assert_allclose(values["noise"], 0.02 / np.sqrt(3), rtol=0.15)
    np.testing.assert_allclose(values["noise"].mean(), 0.02 / np.sqrt(3), rtol=0.05)


def test_moments_and_colors():
    values = one(picture(profile("gaussian", 0.08, 0.5, 90), noise=0))
    # The radius is sqrt(2 ln 2) sigma of the circle of the same area; sigma^2 is divided by b/a along the major axis.
    variance = 0.08**2 / (2 * np.log(2))
    assert values["moment_yy"] == pytest.approx(variance / 0.5, rel=0.02)
    assert values["moment_xx"] == pytest.approx(variance * 0.5, rel=0.02)
    assert values["moment_xy"] == pytest.approx(0, abs=1e-6)
    # The planes are 0.9, 0.75 and 0.6 high.
    assert values["color_green_red"] == pytest.approx(-2.5 * np.log10(0.75 / 0.9), abs=0.01)
    assert values["color_blue_green"] == pytest.approx(-2.5 * np.log10(0.6 / 0.75), abs=0.01)
    assert values["color_green_red"] + values["color_blue_green"] == pytest.approx(values["color"], abs=1e-5)


@pytest.mark.parametrize("sigma_px", [1.0, 2.0])
def test_blur_is_taken_off_the_ellipticity(sigma_px):
    # Gaussians stay Gaussians under blur: variances add.
    b, a = 2.5**2 + sigma_px**2, 5.0**2 + sigma_px**2
    blurred = profile("gaussian", (a * b) ** 0.25 * np.sqrt(2 * np.log(2)) / 64, 1 - np.sqrt(b / a), 30)
    image = picture(blurred, noise=0.003)[None]
    assert measure(image).ellipticity.item() == pytest.approx(1 - np.sqrt(b / a), abs=0.02)
    assert measure(image, psf_sigma=sigma_px / 64).ellipticity.item() == pytest.approx(0.5, abs=0.02)
    many = measure(image.expand(2, -1, -1, -1), psf_sigma=torch.tensor([0.0, sigma_px / 64])).ellipticity
    assert many[1] > many[0]


def test_a_star_stays_round_when_its_blur_is_taken_off():
    image = picture(profile("gaussian", 0.04), noise=0.003)
    values = measure(image[None], psf_sigma=0.04)
    assert 0 <= values.ellipticity.item() < 0.6


# Invariances


@pytest.fixture(scope="module")
def lopsided():
    """An inclined galaxy with a knot and noise, neither centred nor aligned with the pixels."""
    light = profile(radius=0.08, ellipticity=0.4, angle=25, x0=0.01, y0=-0.02)
    return picture(light + 0.3 * profile("gaussian", 0.02, x0=0.1, y0=0.05))


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_turns_and_flips(lopsided, quarter_turns, flip):
    turned = lopsided.rot90(quarter_turns, (1, 2))
    before, after = one(lopsided), one(turned.flip(2) if flip else turned)
    for name in ("petrosian_radius", "petrosian_light", "half_light_radius", "r20", "r50", "r80", "gini", "m20"):
        assert after[name] == pytest.approx(before[name], rel=0.01), name
    # The search tries directions in a fixed order, and may end a step away.
    assert after["asymmetry"] == pytest.approx(before["asymmetry"], abs=0.02)
    assert after["smoothness"] == pytest.approx(before["smoothness"], abs=0.01)
    assert after["flag"] == before["flag"] == 0


@pytest.mark.parametrize("scale", [0.7, 0.4])
def test_scaling_the_whole_picture(lopsided, scale):
    before, after = one(lopsided), one(lopsided * scale)
    for name in {*STRUCTURE} - {"petrosian_light"}:
        assert after[name] == pytest.approx(before[name], rel=0.01, abs=0.005), name
    for name in ("petrosian_light", "background", "noise"):
        assert after[name] == pytest.approx(scale * before[name], rel=0.01), name


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-2, 5)])
def test_translation_by_whole_pixels(lopsided, dx, dy):
    before, after = one(lopsided), one(lopsided.roll((dy, dx), (1, 2)))
    for name in STRUCTURE:
        # The sky's level comes from other pixels: a hundredth or two.
        assert after[name] == pytest.approx(before[name], rel=0.02, abs=0.02), name
    assert after["asymmetry_x"] == pytest.approx(before["asymmetry_x"] + dx / 64, abs=0.25 / 64)
    assert after["asymmetry_y"] == pytest.approx(before["asymmetry_y"] + dy / 64, abs=0.25 / 64)


def test_image_size():
    # Equally deep: the noise of a frame's area is the same, so smaller pixels have more of it.
    small, large = (
        one(picture(profile(radius=0.1, ellipticity=0.3, side=n), 0.4, 0.002 * n / 64, [0.2] * 3)) for n in (64, 128)
    )
    for name in ("petrosian_radius", "r50", "r80", "half_light_radius", "m20", "petrosian_concentration"):
        assert large[name] == pytest.approx(small[name], rel=0.05), name
    assert large["gini"] == pytest.approx(small["gini"], abs=0.03)


def test_each_image_is_measured_alone(lopsided):
    images = torch.stack([lopsided, torch.zeros(3, 64, 64), picture(profile("gaussian", 0.2)), lopsided.flip(1)])
    together = everything(images)
    for k, image in enumerate(images):
        for name, value in everything(image[None]).items():
            torch.testing.assert_close(value[0], together[name][k], rtol=1e-4, atol=1e-4, msg=f"{name} of image {k}")


# Edges


def test_neighbours_do_not_count():
    image = picture(profile(radius=0.08, ellipticity=0.3, angle=20))
    alone, beside = one(image), one((image + 0.8 * star(-0.3, 0.25, 1.5)).clamp(max=1))
    for name in ("petrosian_radius", "petrosian_light", "r50", "r80", "half_light_radius"):
        assert beside[name] == pytest.approx(alone[name], rel=0.03), name
    for name in ("asymmetry", "smoothness", "gini", "m20"):
        assert beside[name] == pytest.approx(alone[name], abs=0.03), name
    assert beside["flag"] == 0
    sky = estimate_sky((image + 0.8 * star(-0.3, 0.25, 1.5))[None])
    source = find_source((image + 0.8 * star(-0.3, 0.25, 1.5))[None].mean(1) - sky.level.mean(1)[:, None, None], sky)
    assert source.neighbours[0, 48, 12] and not source.mask[0, 48, 12]
    assert source.mask[0, 32, 32] and not source.neighbours[0, 32, 32]


def test_odd_frames_are_finite_and_flagged():
    hot, saturated, blue_less = torch.full((3, 64, 64), 0.1), picture(profile("gaussian", 0.1), 2.0), None
    hot[:, 32, 32] = 1.0
    blue_less = picture(profile("gaussian", 0.1), noise=0)
    blue_less[2] = 0.03
    frames = {
        "blank": (torch.full((3, 64, 64), 0.3), NO_SOURCE),
        "black": (torch.zeros(3, 64, 64), NO_SOURCE),
        "hot pixel": (hot, NO_SOURCE),
        "saturated core": (saturated, 0),
        "cut by the edge": (picture(profile("gaussian", 0.15, x0=0.22)), TOUCHES_EDGE),
        "two nuclei": (picture(profile("gaussian", 0.05, x0=-0.06) + profile("gaussian", 0.05, x0=0.06)), 0),
        "bright neighbour": ((picture(profile(radius=0.06), 0.5) + star(0.38, -0.2, 2.0)).clamp(max=1), 0),
        "no blue light": (blue_less, NEGATIVE_FLUX),
        "inverted": (1 - picture(profile("gaussian", 0.1)), NO_SOURCE),
    }
    values = structure(*(image for image, _ in frames.values()))
    assert_finite(values)
    for k, (name, (_, flag)) in enumerate(frames.items()):
        if flag:
            assert values["flag"][k] & flag, name
        else:
            assert values["flag"][k] == 0, name


def test_no_centre_of_asymmetry_near_the_centroid():
    # A half turn about the brighter of two bodies changes least; the other, with a fifth of the light, draws the
    # centroid away by most of the Petrosian radius, which the brighter body alone decides.
    light = profile("gaussian", 0.05, x0=0.2) + 0.25 * profile("gaussian", 0.05, x0=-0.09)
    values = one(picture(light, noise=0.003))
    assert values["asymmetry_x"] - values["centroid_x"] > 0.25 * values["petrosian_radius"]
    assert_finite(values)
    assert values["flag"] == NOT_CONVERGED


def test_noise_and_blobs_stay_finite():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(48, 3, 5, 5, generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear").sigmoid()
    values = structure(*blobs, *torch.rand(16, 3, 64, 64, generator=generator))
    assert_finite(values)
    assert (values["petrosian_radius"] > 0).all() and (values["r50"] > 0).all()
    assert ((values["gini"] >= 0) & (values["gini"] <= 1)).all()


def test_no_images():
    values = everything(torch.zeros(0, 3, 64, 64))
    assert all(column.shape == (0,) for column in values.values())


# Gradients


@pytest.mark.parametrize("name", [*STRUCTURE, "moment_xx", "color_green_red", "background"])
def test_gradients_equal_finite_differences(name):
    light = profile("exponential", 0.09, 0.35, 25, x0=0.013, y0=-0.021)
    image = picture(light + 0.2 * profile("gaussian", 0.02, x0=0.09, y0=0.05)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(everything(image[None])[name].sum(), image)
    # Masks, apertures and the centre are held constant, so steps too small to change any of them.
    step, differences, derivatives = 1e-7, [], []
    for plane, row, column in [(0, 31, 33), (1, 30, 31), (2, 33, 36), (0, 28, 30), (2, 35, 38), (1, 40, 22)]:
        images = image.detach().repeat(2, 1, 1, 1)
        images[0, plane, row, column] += step
        images[1, plane, row, column] -= step
        high, low = everything(images)[name]
        differences.append((high - low).item() / (2 * step))
        derivatives.append(gradient[plane, row, column].item())
    # Central differences of values of order 1 to 100 in float64 are exact to about 1e-7.
    np.testing.assert_allclose(derivatives, differences, rtol=1e-3, atol=1e-6 + 1e-3 * np.abs(differences).max())
    if name != "background":  # these pixels lie far from the corners
        assert np.abs(differences).max() > 1e-6


def test_gradients_are_finite_everywhere():
    hot = torch.zeros(3, 64, 64)
    hot[:, 32, 32] = 1
    images = [picture(profile("gaussian", 0.1), noise=0), torch.zeros(3, 64, 64), torch.full((3, 64, 64), 0.5), hot]
    images = torch.stack(images).requires_grad_()
    values = everything(images)
    sum(values[name].sum() for name in STRUCTURE).backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad[0].abs().max() > 0


# Other instruments


@pytest.mark.parametrize("side", [64, 128])
def test_accuracy_on_galaxies_by_galsim(side):
    pytest.importorskip("galsim")
    images, truth = render_galaxies(80 if side == 64 else 30, seed=5, side=side)
    values = measure_all(images, truth["psf_sigma"])
    good = values["flag"] == 0
    assert good.mean() > 0.9
    wrong = {name: e[good] for name, e in errors(values, truth).items()}
    assert np.abs(wrong["ellipticity"]).mean() <= 0.05
    assert abs(wrong["ellipticity"].mean()) <= 0.02
    assert np.abs(wrong["half_light_radius"]).mean() <= 0.10
    assert wrong["centroid"].mean() <= 0.3
    # The isophote of `size` loses twice as much of the wings.
    assert np.abs(wrong["size"]).mean() > 1.5 * np.abs(wrong["half_light_radius"]).mean()


def real_cutouts(count):
    """Return real galaxies as the prepared dataset shows them: the central half at 64 px."""
    folder = Path(REAL, "labelled")
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = []
    for row in rows[:: len(rows) // count][:count]:
        cutout = Image.open(folder / "images" / row["image"]).convert("RGB")
        width = cutout.size[0]
        box = (width / 4, width / 4, width * 3 / 4, width * 3 / 4)
        pixels = np.asarray(cutout.resize((64, 64), Image.Resampling.LANCZOS, box=box))
        images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255)
    return torch.stack(images)


def mixed_galaxies(count):
    """Return discs with knots on one side and noise: every statistic that is compared varies."""
    rng = np.random.default_rng(3)
    images = []
    for k in range(count):
        light = profile(
            ("gaussian", "exponential", "de_vaucouleurs")[k % 3],
            rng.uniform(0.07, 0.14),
            rng.uniform(0, 0.7),
            rng.uniform(0, 180),
        )
        for angle in rng.uniform(0, 2 * np.pi, 2):
            reach = rng.uniform(0.08, 0.16)
            knot = profile("gaussian", 0.03, x0=reach * np.cos(angle), y0=reach * np.sin(angle))
            light = light + rng.uniform(0, 0.4) * binned(light).max() * knot
        images.append(picture(light, noise=0.01, sky=[0.1] * 3, seed=k))
    return torch.stack(images)


@pytest.mark.parametrize(
    "kind", ["drawn", pytest.param("real", marks=pytest.mark.skipif(not REAL, reason="no folder"))]
)
def test_agreement_with_statmorph(kind):
    pytest.importorskip("statmorph")
    images = mixed_galaxies(24) if kind == "drawn" else real_cutouts(100)
    ours = measure_all(images)
    # The Sersic fit takes most of its time and is not compared.
    theirs = measure_with_statmorph(images, sersic_maxiter=1)
    good = (ours["flag"] == 0) & (theirs["flag"] == 0)
    assert good.mean() > 0.6
    for name, other, least in (
        ("r50", "r50", 0.95),
        ("ellipticity", "ellipticity_asymmetry", 0.95),
        ("petrosian_concentration", "concentration", 0.95),
        ("gini", "gini", 0.95),
        ("m20", "m20", 0.85),
        # 0.87 on 685 real galaxies, with a standard error of 0.03 on some 75: statmorph takes the noise from a box of
        # sky that is a few pixels wide where a galaxy fills the frame.
        ("asymmetry", "asymmetry", 0.85 if kind == "drawn" else 0.8),
    ):
        assert rank_correlation(ours[name][good], theirs[other][good]) >= least, name


def test_the_benchmark_runs(tmp_path, capsys):
    pytest.importorskip("galsim")
    instruments.main(["--count", "8"])
    table = capsys.readouterr().out
    assert "8 galaxies by GalSim" in table and "centroid within 0.3 px" in table
    with pytest.raises(UserError, match="at least two"):
        instruments.main(["--count", "1"])
