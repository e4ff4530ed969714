"""Photometry against rendered galaxies of known shape: answers, invariances, neighbours, edges, gradients.

Truth comes from the noiseless profile on a five times finer grid, cut at the frame as the picture is, so that it knows
nothing of how `measure` works. No frame shows all of a galaxy: light under the noise or beyond the border is lost, so
sizes come out small, by how much depends on the wings. The tolerances say so case by case.
"""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from config_physics import PHOTOMETRIC_ATTRIBUTES
from galaxies.measure.photometry import (
    FLAG_BITS,
    NEGATIVE_FLUX,
    NO_SOURCE,
    NOT_CONVERGED,
    TOUCHES_EDGE,
    measure,
    measure_with_structure,
)
from tests.conftest import render_galaxies

OVERSAMPLING = 5
SKY = (0.05, 0.04, 0.03)
PLANES = (0.9, 0.75, 0.6)  # peak of the galaxy in R, G, B
COLOR = -2.5 * np.log10(PLANES[2] / PLANES[0])
NOISE = 0.015  # of display units a pixel, as in the survey's cutouts
REAL = os.environ.get("GALAXY_REAL_DATA")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Images this small are slower to share among threads than to measure."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fine_grid(side, x0=0.0, y0=0.0):
    """Return x (columns) and y (rows) in frame widths from (x0, y0), on the fine grid."""
    centres = (np.arange(side * OVERSAMPLING) + 0.5) / (side * OVERSAMPLING) - 0.5
    return np.meshgrid(centres - x0, centres - y0)


def profile(kind="exponential", radius=0.1, ellipticity=0.0, angle=0.0, x0=0.0, y0=0.0, side=64):
    """Return a galaxy on the fine grid; the ellipse of half-light has the area of a circle of this radius."""
    x, y = fine_grid(side, x0, y0)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    along, across = x * cos + y * sin, y * cos - x * sin
    axis_ratio = 1 - ellipticity
    r = np.sqrt(along**2 * axis_ratio + across**2 / axis_ratio) / radius
    if kind == "gaussian":
        return np.exp2(-(r**2))
    # Sérsic's b_n makes the radius hold half the light: Ciotti & Bertin (1999).
    n, b_n = {"exponential": (1, 1.67835), "de_vaucouleurs": (4, 7.66925)}[kind]
    return np.exp(-b_n * r ** (1 / n))


def stretched(light):
    """Compress light as survey pictures do (Lupton et al. 2004), the brightest pixel still at 1."""
    light = binned(light).repeat(OVERSAMPLING, 0).repeat(OVERSAMPLING, 1)
    return np.arcsinh(30 * light / light.max()) / np.arcsinh(30)


def binned(light):
    """Integrate the fine grid over pixels."""
    side = light.shape[0] // OVERSAMPLING
    return light.reshape(side, OVERSAMPLING, side, OVERSAMPLING).mean((1, 3))


def picture(light, scale=1.0, noise=NOISE, sky=SKY, seed=0):
    """Make a display image (3, S, S), float32, of light on the fine grid."""
    planes = np.array(PLANES)[:, None, None] * scale * binned(light) / binned(light).max()
    planes = planes + np.array(sky)[:, None, None]
    planes = planes + noise * np.random.default_rng(seed).standard_normal(planes.shape)
    return torch.from_numpy(planes.clip(0, 1)).float()


def true_size(light, x0=0.0, y0=0.0):
    """Return the radius about (x0, y0) that holds half the light in the frame, frame widths."""
    r = np.hypot(*fine_grid(light.shape[0] // OVERSAMPLING, x0, y0)).ravel()
    order = r.argsort()
    growth = light.ravel()[order].cumsum()
    return r[order][np.searchsorted(growth, growth[-1] / 2)]


def true_brightness(light):
    """Return the mean surface brightness of R, G and B within the true half-light radius."""
    inside = np.hypot(*fine_grid(light.shape[0] // OVERSAMPLING)) <= true_size(light)
    return np.mean(PLANES) * light[inside].mean() / binned(light).max()


def star(x0, y0, sigma_px=0.9, side=64):
    """Return a star of height 1 as it lands on pixels (side, side)."""
    x, y = fine_grid(side, x0, y0)
    return torch.from_numpy(binned(np.exp(-(x**2 + y**2) / 2 * (side / sigma_px) ** 2))).float()


def measured(*images):
    """Measure images and return arrays, one value an image."""
    return {name: values.numpy() for name, values in measure(torch.stack(images))._asdict().items()}


def one(image):
    return {name: values.item() for name, values in measure(image[None])._asdict().items()}


def assert_finite(values):
    for name, column in values.items():
        assert np.isfinite(np.asarray(column)).all(), name


# Known answers


def test_what_is_returned():
    images = torch.stack([picture(profile()), picture(profile(radius=0.15))])
    before = images.clone()
    values = measure(images)
    for name in PHOTOMETRIC_ATTRIBUTES:
        assert values.attribute(name) is getattr(values, name)
    with pytest.raises(KeyError, match="light"):  # measured, but no attribute
        values.attribute("light")
    assert all(column.shape == (2,) for column in values)
    assert values.flag.dtype == torch.int64
    assert all(column.dtype == torch.float32 for name, column in values._asdict().items() if name != "flag")
    assert torch.equal(images, before)
    # One bit each, so that a sum tells them apart.
    assert list(FLAG_BITS) == [NO_SOURCE, TOUCHES_EDGE, NEGATIVE_FLUX, NOT_CONVERGED] == [1, 2, 4, 8]


# A Gaussian has no wings: 3 % is a third of a pixel at the smallest radius. An exponential loses its wings to the
# noise (5 % at a tenth of the frame) and, from radius 0.2 on, to the sky, whose level cannot be told from the disc's
# own light at the border (3 % of the peak there).
@pytest.mark.parametrize(
    ("kind", "radius", "shortfall"),
    [
        ("gaussian", 0.05, 0.03),
        ("gaussian", 0.1, 0.03),
        ("gaussian", 0.15, 0.03),
        ("gaussian", 0.2, 0.04),
        ("exponential", 0.05, 0.04),
        ("exponential", 0.1, 0.06),
        ("exponential", 0.15, 0.09),
        ("exponential", 0.2, 0.13),
        ("exponential", 0.25, 0.18),
    ],
)
@pytest.mark.parametrize("ellipticity", [0.0, 0.3, 0.6])
def test_size_and_shape(kind, radius, shortfall, ellipticity):
    light = profile(kind, radius, ellipticity, angle=30)
    values = measured(*(picture(light, seed=seed) for seed in range(4)))
    size = values["size"] / true_size(light)
    assert (size > 1 - shortfall).all(), size
    assert (size < 1.03).all(), size
    # Noise makes round sources look elongated: by 0.03 where 13 pixels lie within the half-light radius.
    np.testing.assert_allclose(values["ellipticity"], ellipticity, atol=0.05)
    # Fewer wings, smaller circle, higher mean; a small source's mean varies with where the circle cuts its pixels.
    np.testing.assert_allclose(values["brightness"] / true_brightness(light), 1, atol=0.04 + shortfall)
    # A quarter of a pixel, four standard deviations of what noise does to a disc of radius 0.1.
    np.testing.assert_allclose(values["centroid_x"], 0, atol=0.004)
    np.testing.assert_allclose(values["centroid_y"], 0, atol=0.004)
    assert not (values["flag"] & NO_SOURCE).any()
    if radius <= 0.1:
        assert not values["flag"].any()
    if ellipticity:
        np.testing.assert_allclose(values["position_angle"], 30, atol=3)


# A de Vaucouleurs profile has half its light in wings so faint that no display picture holds them. What matters is
# that the loss is stable: a third, at every size and shape, so that sizes still order galaxies.
@pytest.mark.parametrize("ellipticity", [0.0, 0.3, 0.6])
def test_de_vaucouleurs_profiles_lose_their_wings(ellipticity):
    radii = (0.05, 0.1, 0.15, 0.2)
    lights = [profile("de_vaucouleurs", radius, ellipticity, angle=30) for radius in radii]
    values = [measured(*(picture(light, seed=seed) for seed in range(4))) for light in lights]
    sizes = np.array([v["size"].mean() for v in values])
    assert (np.diff(sizes) > 0.005).all(), sizes
    ratios = sizes / [true_size(light) for light in lights]
    np.testing.assert_allclose(ratios, 0.65, atol=0.06)
    np.testing.assert_allclose([v["ellipticity"].mean() for v in values], ellipticity, atol=0.1)
    np.testing.assert_allclose([v["color"].mean() for v in values], COLOR, atol=0.05)
    assert not any(v["flag"].any() for v in values)


# What an elliptical looks like in a survey's picture: the stretch lifts the wings, so little of them is lost.
@pytest.mark.parametrize(("radius", "shortfall"), [(0.05, 0.2), (0.1, 0.2), (0.15, 0.25)])
def test_stretched_de_vaucouleurs(radius, shortfall):
    light = stretched(profile("de_vaucouleurs", radius))
    values = measured(*(picture(light, seed=seed) for seed in range(4)))
    size = values["size"] / true_size(light)
    assert (size > 1 - shortfall).all(), size
    assert (size < 1.03).all(), size


def test_concentration_tells_profiles_apart():
    # 5 log10(r80 / r20): 2.16 for a Gaussian (sqrt(ln 5 / ln 1.25)), 2.79 for an exponential (2.994 / 0.824); wings
    # lost lower the second. De Vaucouleurs' 5.2 shrinks with its wings but must stay well above.
    gaussian, exponential, peaked = (
        measured(*(picture(profile(kind, 0.1), seed=seed) for seed in range(4)))["concentration"].mean()
        for kind in ("gaussian", "exponential", "de_vaucouleurs")
    )
    assert gaussian == pytest.approx(2.146, abs=0.06)
    assert exponential == pytest.approx(2.80, abs=0.2)
    assert peaked > exponential + 0.7


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize("blue_to_red", [0.25, 0.4, 1.0, 2.5, 4.0])
def test_color(blue_to_red, noise):
    light = binned(profile(radius=0.1, ellipticity=0.3))
    planes = np.array([1, (1 + blue_to_red) / 2, blue_to_red]) / max(1, blue_to_red)
    clean = 0.8 * planes[:, None, None] * light / light.max() + np.array([0.1, 0.12, 0.08])[:, None, None]
    images = (
        torch.from_numpy(clean + noise * np.random.default_rng(seed).standard_normal(clean.shape)).float()
        for seed in range(16 if noise else 1)
    )
    # Noise scatters the color of one image by 0.03, so that of 16 by 0.008; it must not shift it.
    color = measured(*images)["color"].mean()
    assert color == pytest.approx(-2.5 * np.log10(blue_to_red), abs=0.03)


def test_light_without_noise():
    # 5 % of an exponential disc lies outside 2.8 of its half-light radii.
    light = profile("gaussian", 0.1, 0.4, 70)
    values = one(picture(light, noise=0))
    total = np.mean(PLANES) * binned(light).sum() / binned(light).max()
    # Either the mean plane or the sum of the planes would be "total display light"; the mean is what size uses.
    assert values["light"] == pytest.approx(total, rel=0.05) or values["light"] == pytest.approx(3 * total, rel=0.05)


@pytest.mark.parametrize("angle", [0, 20, 45, 90, 135, 170])
def test_position_angle(angle):
    values = one(picture(profile(radius=0.1, ellipticity=0.4, angle=angle)))
    difference = (values["position_angle"] - angle + 90) % 180 - 90
    assert abs(difference) < 2
    assert 0 <= values["position_angle"] < 180


@pytest.mark.parametrize(("x0", "y0"), [(0.03, 0.0), (-0.05, 0.11), (0.1, 0.1)])
def test_centroid(x0, y0):
    values = one(picture(profile("gaussian", 0.08, 0.3, x0=x0, y0=y0)))
    # A twentieth of a pixel.
    assert values["centroid_x"] == pytest.approx(x0, abs=0.001)
    assert values["centroid_y"] == pytest.approx(y0, abs=0.001)
    assert values["flag"] == 0


# Invariances


@pytest.fixture(scope="module")
def tilted():
    """An inclined galaxy with noise, neither centred nor aligned with the pixels."""
    return picture(profile(radius=0.09, ellipticity=0.4, angle=25, x0=0.01, y0=-0.02))


SAME = ("size", "brightness", "ellipticity", "concentration", "color", "light")


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_turns_and_flips(tilted, quarter_turns, flip):
    before, turned = one(tilted), tilted.rot90(quarter_turns, (1, 2))
    after = one(turned.flip(2) if flip else turned)
    for name in SAME:
        assert after[name] == pytest.approx(before[name], rel=1e-4, abs=1e-4), name
    assert after["flag"] == before["flag"]
    # A quarter turn by rot90 takes +x to -y, a flip of the columns +x to -x.
    x, y, angle = before["centroid_x"], before["centroid_y"], before["position_angle"]
    for _ in range(quarter_turns):
        x, y, angle = y, -x, angle - 90
    if flip:
        x, angle = -x, -angle
    assert (after["centroid_x"], after["centroid_y"]) == pytest.approx((x, y), abs=1e-5)
    assert abs((after["position_angle"] - angle + 90) % 180 - 90) < 0.01


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-2, 5), (6, -6)])
def test_translation_by_whole_pixels(tilted, dx, dy):
    before, after = one(tilted), one(tilted.roll((dy, dx), (1, 2)))
    for name in SAME:
        # A window on the sky or on the border moves over other noise: a hundredth.
        assert after[name] == pytest.approx(before[name], rel=0.01, abs=0.01), name
    assert after["centroid_x"] == pytest.approx(before["centroid_x"] + dx / 64, abs=0.002)
    assert after["centroid_y"] == pytest.approx(before["centroid_y"] + dy / 64, abs=0.002)


@pytest.mark.parametrize("sky", [(0.05, 0.05, 0.05), (0.0, 0.02, 0.05)])
def test_adding_sky_changes_nothing(sky):
    # Faint enough that nothing is clipped.
    image = picture(profile(radius=0.09, ellipticity=0.4, angle=25), scale=0.8, sky=(0.08, 0.08, 0.08))
    before, after = one(image), one(image + torch.tensor(sky)[:, None, None])
    for name in SAME:
        assert after[name] == pytest.approx(before[name], rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize("scale", [0.8, 0.5, 0.3])
def test_brightness_scaling(scale):
    light = profile(radius=0.1, ellipticity=0.4, angle=25)
    before, after = (
        {name: values.mean() for name, values in measured(*(picture(light, k, seed=s) for s in range(6))).items()}
        for k in (1, scale)
    )
    # Against unchanged noise a fainter galaxy loses more of its wings: three standard deviations of the smoothed sky
    # (0.0072) cut this disc at 4.9 scale lengths, and at 3.7 once it is 0.3 as bright. Discs cut there have half-light
    # radii of 1.61 and 1.50 scale lengths, 7 % apart, to which noise adds its own few per cent.
    assert after["size"] == pytest.approx(before["size"], rel=0.12)
    assert after["ellipticity"] == pytest.approx(before["ellipticity"], abs=0.03)
    assert after["color"] == pytest.approx(before["color"], abs=0.05)
    # The mean within a radius that is 5 % smaller is some 10 % higher.
    assert after["brightness"] == pytest.approx(scale * before["brightness"], rel=0.12)


@pytest.mark.parametrize("scale", [0.7, 0.4])
def test_scaling_the_whole_picture(tilted, scale):
    before, after = one(tilted), one(tilted * scale)
    # Galaxy, noise and sky scale alike, so that nothing but the scale may tell the two apart.
    assert after["size"] == pytest.approx(before["size"], rel=0.03)
    assert after["ellipticity"] == pytest.approx(before["ellipticity"], abs=0.02)
    assert after["concentration"] == pytest.approx(before["concentration"], abs=0.1)
    assert after["color"] == pytest.approx(before["color"], abs=0.01)
    assert after["brightness"] == pytest.approx(scale * before["brightness"], rel=0.03)


@pytest.mark.parametrize("kind", ["gaussian", "exponential"])
@pytest.mark.parametrize("side", [128, 256])
def test_image_size(kind, side):
    # Equally deep: the noise of a frame's area is the same, so smaller pixels have more of it. The light is low and the
    # sky high enough that noise is not clipped at black or white.
    small, large = (
        measured(
            *(
                picture(profile(kind, 0.1, 0.4, 25, 0.02, side=n), 0.4, NOISE / 2 * n / 64, [0.2] * 3, k)
                for k in range(4)
            )
        )
        for n in (64, side)
    )
    assert (large["flag"] == 0).all() and (small["flag"] == 0).all()
    small, large = ({name: values.mean() for name, values in both.items()} for both in (small, large))
    assert large["size"] == pytest.approx(small["size"], rel=0.04)
    assert large["ellipticity"] == pytest.approx(small["ellipticity"], abs=0.03)
    assert large["color"] == pytest.approx(small["color"], abs=0.03)
    assert large["concentration"] == pytest.approx(small["concentration"], abs=0.15)
    assert large["centroid_x"] == pytest.approx(0.02, abs=0.002)
    # The sharper picture's peak is higher relative to its mean, by the pixel's smoothing of the cusp.
    assert large["brightness"] == pytest.approx(small["brightness"], rel=0.12)


def test_each_image_is_measured_alone(tilted):
    images = torch.stack(
        [
            tilted,
            torch.zeros(3, 64, 64),
            picture(profile("gaussian", 0.2)),
            torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)),
            picture(profile("de_vaucouleurs", 0.1), seed=3),
            picture(profile(radius=0.1, x0=0.4)),
        ]
    )
    together = measure(images)
    for i, image in enumerate(images):
        for name, value in measure(image[None])._asdict().items():
            # An angle may wrap at 180; here none of the sources with a shape is near.
            torch.testing.assert_close(
                value[0], getattr(together, name)[i], rtol=1e-6, atol=1e-6, msg=f"{name} of image {i}"
            )


def test_memory_layout_and_precision(tilted):
    images = torch.stack([tilted, tilted.flip(1)])
    expected = measure(images)
    for name, values in measure(images.contiguous(memory_format=torch.channels_last))._asdict().items():
        torch.testing.assert_close(values, getattr(expected, name), rtol=1e-5, atol=1e-5)
    for name, values in measure(images.double())._asdict().items():
        torch.testing.assert_close(values.float(), getattr(expected, name).float(), rtol=1e-4, atol=1e-4)


# Neighbours


@pytest.mark.parametrize("angle", [0, 50, 110, 200, 300])
@pytest.mark.parametrize(
    ("distance", "tolerance"),
    [
        (0.42, 0.03),  # detached: none of its light is the galaxy's
        (0.3, 0.08),  # on the outskirts, where a tenth of the disc lies beyond; some of that goes with the star
    ],
)
def test_a_star_beside_the_galaxy(distance, tolerance, angle):
    light = profile(radius=0.09, ellipticity=0.3, angle=20)
    image = picture(light)
    x0, y0 = distance * np.cos(np.deg2rad(angle)), distance * np.sin(np.deg2rad(angle))
    alone, beside = one(image), one((image + 0.8 * star(x0, y0)).clamp(max=1))
    assert beside["size"] == pytest.approx(alone["size"], rel=tolerance)
    assert beside["ellipticity"] == pytest.approx(alone["ellipticity"], abs=tolerance)
    assert beside["brightness"] == pytest.approx(alone["brightness"], rel=2 * tolerance)
    assert beside["centroid_x"] == pytest.approx(alone["centroid_x"], abs=0.005)
    assert beside["flag"] == 0


def test_a_brighter_neighbour_is_not_measured_instead():
    image = picture(profile(radius=0.06), scale=0.5)
    alone, beside = one(image), one((image + star(0.38, -0.2, sigma_px=2.0)).clamp(max=1))
    assert beside["size"] == pytest.approx(alone["size"], rel=0.05)
    assert abs(beside["centroid_x"]) < 0.01


@pytest.mark.parametrize("places", [((-0.08, 0.0), (0.08, 0.0)), ((0.0, 0.0), (0.12, 0.12))])
def test_two_nuclei_are_one_source(places):
    light = sum(profile("gaussian", 0.05, x0=x0, y0=y0) for x0, y0 in places)
    values = one(picture(light))
    x0, y0 = np.mean(places, axis=0)
    assert values["centroid_x"] == pytest.approx(x0, abs=0.005)
    assert values["centroid_y"] == pytest.approx(y0, abs=0.005)
    assert values["size"] == pytest.approx(true_size(light, x0, y0), rel=0.05)
    # Moments add: along the pair sigma^2 + (separation / 2)^2, across it sigma^2 = radius^2 / (2 ln 2).
    variance = 0.05**2 / (2 * np.log(2))
    half = np.hypot(*np.subtract(*places)) / 2
    assert values["ellipticity"] == pytest.approx(1 - np.sqrt(variance / (variance + half**2)), abs=0.03)
    assert values["flag"] == 0


# Edges


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_blank(level):
    values = one(torch.full((3, 64, 64), level))
    assert_finite(values)
    assert values["flag"] & NO_SOURCE
    assert values["light"] == pytest.approx(0, abs=1e-4)


def test_pure_noise():
    rng = np.random.default_rng(0)
    noises = [torch.from_numpy(0.1 + s * rng.standard_normal((3, 64, 64))).float() for s in (0.005, 0.02, 0.03) * 8]
    values = measured(*noises)
    assert_finite(values)
    # One false alarm in 24 is allowed.
    assert ((values["flag"] & NO_SOURCE) > 0).mean() > 0.95


@pytest.mark.parametrize("noise", [0.0, NOISE])
@pytest.mark.parametrize(("row", "column"), [(32, 32), (31, 40), (0, 0)])
def test_hot_pixel(noise, row, column):
    rng = np.random.default_rng(1)
    image = torch.from_numpy(0.1 + noise * rng.standard_normal((3, 64, 64))).float().clamp(0, 1)
    image[:, row, column] = 1.0
    values = one(image)
    assert_finite(values)
    # A galaxy never fits in one pixel.
    assert values["flag"] & NO_SOURCE


@pytest.mark.parametrize("sigma_px", [0.2, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("shift_px", [0.0, 0.5])
def test_brightness_never_exceeds_the_brightest_pixel(sigma_px, shift_px):
    shift = shift_px / 64
    clean = 0.1 + 0.8 * star(shift, shift, sigma_px).clamp(max=1).expand(3, 64, 64)
    noisy = clean + NOISE * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    values = measured(clean, noisy)
    assert_finite(values)
    # The mean within a circle cannot be above the maximum; 0.05 for pixels of which the circle holds a part.
    peaks = np.array([(image.amax() - 0.1).item() for image in (clean, noisy)])
    sound = values["flag"] == 0
    assert (values["brightness"] <= peaks + 0.05)[sound].all(), values["brightness"]
    assert (values["brightness"] <= 1).all(), values["brightness"]


def test_hot_pixel_beside_a_galaxy(tilted):
    hot = tilted.clone()
    hot[:, 5, 50] = 1.0
    before, after = one(tilted), one(hot)
    for name in SAME:
        assert after[name] == pytest.approx(before[name], rel=0.01, abs=0.01), name


def test_saturated_core():
    light = np.minimum(profile("gaussian", 0.12, 0.3, 20), 0.6)
    values = one(picture(light, scale=1.05))
    assert_finite(values)
    assert values["size"] == pytest.approx(true_size(light), rel=0.03)
    assert values["ellipticity"] == pytest.approx(0.3, abs=0.03)
    assert values["flag"] == 0


@pytest.mark.parametrize(
    ("x0", "y0"), [(0.2, 0.0), (-0.2, 0.0), (0.0, 0.2), (0.0, -0.2)], ids=["right", "left", "bottom", "top"]
)
def test_cut_by_the_edge(x0, y0):
    values = one(picture(profile("gaussian", 0.2, x0=x0, y0=y0)))
    assert_finite(values)
    assert values["flag"] == TOUCHES_EDGE


def test_far_off_centre():
    values = measured(*(picture(profile("gaussian", 0.03, x0=x0, y0=y0)) for x0, y0 in [(0.4, 0.4), (-0.42, 0.0)]))
    assert_finite(values)
    assert ((values["flag"] & NO_SOURCE) > 0).all()


@pytest.mark.parametrize("kind", ["gaussian", "exponential"])
@pytest.mark.parametrize("radius", [0.3, 0.4, 0.6, 1.0])
def test_larger_than_the_frame(kind, radius):
    # Its light at the middle of each side stands far above that in the corners, where the sky is sought: by 0.03 or
    # more, twice the noise of one pixel of one plane, along the whole side.
    light = profile(kind, radius)
    edge = binned(light)[32, 0] / binned(light).max() * 0.75 - binned(light)[0, 0] / binned(light).max() * 0.75
    assert edge > 0.03
    values = measured(picture(light), picture(light, noise=0.003))
    assert_finite(values)
    assert ((values["flag"] & TOUCHES_EDGE) > 0).all(), values["size"] / true_size(light)


def test_patterns_stay_finite():
    values = measured(
        torch.linspace(0, 1, 64).expand(3, 64, 64),
        (torch.arange(64) % 2).float().expand(3, 64, 64),
        torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)),
        1 - picture(profile("gaussian", 0.1)),
    )
    assert_finite(values)
    assert ((values["ellipticity"] >= 0) & (values["ellipticity"] <= 1)).all()


def test_negative_pixels_stay_finite():
    image = picture(profile("gaussian", 0.1)) - 0.3
    image[:, 30:34, 30:34] = -1.0
    assert_finite(one(image))


def test_black_planes_stay_finite():
    for plane in range(3):
        image = torch.zeros(3, 64, 64)
        image[plane] = picture(profile("gaussian", 0.1), sky=(0, 0, 0))[plane]
        assert_finite(one(image))


# Gradients


@pytest.mark.parametrize("name", ["size", "brightness", "ellipticity", "concentration", "color", "light"])
def test_gradients_equal_finite_differences(name):
    image = picture(profile("exponential", 0.1, 0.35, 25, x0=0.013, y0=-0.021)).double()
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(getattr(measure(image[None]), name).sum(), image)
    # The mask is held constant, so only pixels well inside it, and steps too small to move its border.
    step, differences, derivatives = 1e-6, [], []
    for plane, row, column in [(0, 31, 33), (1, 30, 31), (2, 33, 36), (0, 28, 30), (2, 27, 34), (1, 34, 38)]:
        images = image.detach().repeat(2, 1, 1, 1)
        images[0, plane, row, column] += step
        images[1, plane, row, column] -= step
        high, low = getattr(measure(images), name)
        differences.append((high - low).item() / (2 * step))
        derivatives.append(gradient[plane, row, column].item())
    assert np.abs(differences).max() > 1e-6
    # Central differences of values near 0.1 to 100 in float64 are exact to about 1e-8 of the largest.
    np.testing.assert_allclose(derivatives, differences, rtol=1e-3, atol=1e-4 * np.abs(differences).max())


@pytest.mark.parametrize("name", ["size", "brightness", "ellipticity", "concentration", "color", "light"])
def test_gradients_are_finite_everywhere(name):
    hot = torch.zeros(3, 64, 64)
    hot[:, 32, 32] = 1
    images = torch.stack(
        [
            picture(profile("gaussian", 0.1), noise=0),  # exactly round
            picture(profile("gaussian", 0.1)),
            torch.zeros(3, 64, 64),
            torch.ones(3, 64, 64),
            torch.full((3, 64, 64), 0.5),
            hot,
            picture(profile("gaussian", 0.2, x0=0.2)),
        ]
    ).requires_grad_()
    getattr(measure(images), name).sum().backward()
    assert torch.isfinite(images.grad).all()
    # Something to learn from on a real source.
    assert images.grad[1].abs().max() > 0


def test_gradient_step_makes_a_galaxy_larger():
    image = picture(profile("exponential", 0.08)).requires_grad_()
    before = measure(image[None]).size
    (gradient,) = torch.autograd.grad(before.sum(), image)
    image = image.detach() + 0.01 * gradient / gradient.abs().max()
    assert measure(image[None]).size > before


# Bad input


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 1, 64, 64), (2, 4, 64, 64), (2, 3, 64, 32), (64, 64)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"(?i)shape|planes|square"):
        measure(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_bad_types(dtype):
    with pytest.raises(ValueError, match=r"(?i)float"):
        measure(torch.zeros((2, 3, 64, 64), dtype=dtype))


def test_no_images():
    values = measure(torch.zeros(0, 3, 64, 64))
    assert all(column.shape == (0,) for column in values)
    assert values.flag.dtype == torch.int64


# Real galaxies


@pytest.mark.skipif(not REAL, reason="GALAXY_REAL_DATA names no folder of real galaxies")
def test_real_galaxies():
    folder = Path(REAL, "labelled")
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images, classes = [], []
    for morphology in ("edge_on", "elliptical", "spiral"):
        for row in [row for row in rows if row["morphology"] == morphology][:35]:
            cutout = Image.open(folder / "images" / row["image"]).convert("RGB")
            width = cutout.size[0]
            box = (width / 4, width / 4, width * 3 / 4, width * 3 / 4)
            pixels = np.asarray(cutout.resize((64, 64), Image.Resampling.LANCZOS, box=box))
            images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255)
            classes.append(morphology)
    values, classes = measured(*images), np.array(classes)
    assert_finite(values)
    assert ((values["flag"] & NO_SOURCE) == 0).mean() >= 0.9
    edge_on, elliptical = (np.median(values["ellipticity"][classes == name]) for name in ("edge_on", "elliptical"))
    assert edge_on > elliptical + 0.2


@pytest.mark.parametrize("cells", [2, 3, 4, 9])
def test_smooth_blobs_anywhere_stay_finite_and_in_the_frame(cells):
    # What an untrained generator makes: light that may cancel, or lie at the border.
    generator = torch.Generator().manual_seed(cells)
    coarse = torch.randn(128, 3, cells, cells, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear").sigmoid()
    values = measured(*images)
    assert_finite(values)
    assert (np.abs(values["centroid_x"]) <= 0.25).all() and (np.abs(values["centroid_y"]) <= 0.25).all()


def test_broken_pixels_break_nothing_else():
    images = torch.from_numpy(render_galaxies(3)[0]).float() / 255
    whole, whole_structure = measure_with_structure(images)
    images[0, 1, 2, 3], images[1] = torch.inf, torch.nan
    found, structure = measure_with_structure(images)
    assert all(torch.isfinite(value.double()).all() for value in (*found, *structure))
    assert found.flag[1] & NO_SOURCE
    for value, expected in zip((*found, *structure), (*whole, *whole_structure), strict=True):
        torch.testing.assert_close(value[2], expected[2])
    assert found.size[0] == pytest.approx(whole.size[0].item(), rel=0.02)
