"""Counts: sizes and shapes depend on neither sky, unit, noise nor stars and cosmic rays; known profiles are recovered.

The truth is a profile whose half-light radius is known by formula, or by adding up its pixels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.measure.counts import level_counts
from galaxies.measure.photometry import measure
from galaxies.measure.statistics_table import measure_images

SIDE = 96
AXIS = np.arange(SIDE) - (SIDE - 1) / 2
X, Y = np.meshgrid(AXIS, AXIS)
NOISE = 1.4
NAMES = ("size", "ellipticity", "concentration", "petrosian_radius", "gini", "m20")


def galaxy(radius=7.0, axis_ratio=0.7, peak=400.0, angle=0.6):
    """Return an exponential disc, 1.678 scale lengths of which hold half of its light (Ciotti & Bertin 1999)."""
    u, v = X * np.cos(angle) + Y * np.sin(angle), Y * np.cos(angle) - X * np.sin(angle)
    r = np.sqrt(u**2 * axis_ratio + v**2 / axis_ratio)
    return peak * np.exp(-1.67835 * r / radius)


def half_light(light):
    """Return the radius of the circle that holds half of the light, by adding up pixels; frame widths."""
    r, light = np.hypot(X, Y).ravel(), light.ravel()
    order = r.argsort()
    growth = light[order].cumsum()
    return np.interp(growth[-1] / 2, growth, r[order]) / SIDE


def noisy(light, noise=NOISE, seed=1):
    return light + np.random.default_rng(seed).normal(0, noise, light.shape)


def star(x, y, peak, width=1.5):
    """Return a star with wings (Moffat 1969, beta = 3)."""
    return peak * (1 + ((X - x) ** 2 + (Y - y) ** 2) / (2 * width) ** 2) ** -3.0


def measured(*planes):
    """Measure an image of one or three planes and return its statistics and its flag."""
    image = level_counts(np.stack(planes * 3 if len(planes) == 1 else planes))
    found = measure_images(image[None], counts=True)
    return {name: float(values[0]) for name, values in found.values.items()}, int(found.flags[0])


@pytest.fixture(scope="module")
def plain():
    """What is measured on the galaxy as it is."""
    return measured(noisy(galaxy()))[0]


def assert_alike(counts, plain, size, others=0.03):
    found, flag = measured(counts)
    assert flag == 0
    assert found["size"] == pytest.approx(plain["size"], rel=size)
    for name in NAMES[1:]:
        assert found[name] == pytest.approx(plain[name], rel=others, abs=others / 2), name


@pytest.mark.parametrize("unit", [1e-20, 3e-11, 1e12])
@pytest.mark.parametrize("sky", [0.0, 5e3, -300.0])
def test_neither_unit_nor_sky_matter(plain, unit, sky):
    assert_alike((noisy(galaxy()) + sky) * unit, plain, size=1e-3, others=1e-3)


@pytest.mark.parametrize("slope", [(0.3, 0.1), (-2.0, 1.0), (0.0, 20.0)])
def test_a_slope_of_the_sky_does_not_matter(plain, slope):
    assert_alike(noisy(galaxy()) + 1000 + slope[0] * X + slope[1] * Y, plain, size=2e-3, others=3e-3)


def test_the_slope_is_taken_off_beside_a_bright_star():
    image = level_counts(np.stack([noisy(galaxy()) + 1000 + 2 * X + star(-38, -38, 1e5)] * 3))[0].numpy()
    # In units of the noise, which is a hundredth there, the other corners are at 0.
    corners = [image[-9:, -9:], image[-9:, :9], image[:9, -9:]]
    assert all(abs(np.median(corner)) < 0.006 for corner in corners)


@pytest.mark.parametrize("place", [(-38, -38), (0, -40), (36, 6)])
@pytest.mark.parametrize("peak", [4e3, 4e4])
def test_a_star_does_not_matter(plain, place, peak):
    found, flag = measured(noisy(galaxy()) + star(*place, peak))
    assert flag & ~2 == 0 and found["size"] == pytest.approx(plain["size"], rel=0.05)
    assert found["petrosian_radius"] == pytest.approx(plain["petrosian_radius"], rel=0.05)


@pytest.mark.parametrize("row, column", [(9, 12), (2, 48), (0, 0)])
@pytest.mark.parametrize("height", [1e4, 1e8, 1e30])
def test_a_pixel_of_any_height_does_not_matter(plain, row, column, height):
    counts = noisy(galaxy())
    counts[row, column] = height
    assert_alike(counts, plain, size=5e-3)


def test_noise_changes_sizes_as_it_hides_wings_and_no_more():
    truth = half_light(galaxy())
    found = [measured(noisy(galaxy(), noise))[0]["size"] for noise in (0.0, 0.02, 1.4, 6.0)]
    assert found[0] == pytest.approx(truth, rel=0.01) and found[1] == pytest.approx(truth, rel=0.01)
    assert found[2] == pytest.approx(truth, rel=0.03) and found[3] == pytest.approx(truth, rel=0.08)


@pytest.mark.parametrize("radius, axis_ratio", [(4.0, 1.0), (7.0, 0.5), (10.0, 0.8)])
def test_an_exponential_disc_is_recovered(radius, axis_ratio):
    found, flag = measured(noisy(galaxy(radius, axis_ratio)))
    assert flag == 0 and found["size"] == pytest.approx(half_light(galaxy(radius, axis_ratio)), rel=0.05)
    assert found["ellipticity"] == pytest.approx(1 - axis_ratio, abs=0.03)


def test_colours_are_ratios_of_the_light_in_the_planes(plain):
    light = galaxy()
    planes = [noisy(light * factor, seed=k) + 100 * k for k, factor in enumerate((1.0, 0.6, 0.25))]
    found, flag = measured(*planes)
    assert flag == 0 and found["color"] == pytest.approx(-2.5 * np.log10(0.25), abs=0.02)
    turned, _ = measured(*planes[::-1])
    assert turned["color"] == pytest.approx(-found["color"], abs=1e-3)
    assert turned["size"] == pytest.approx(found["size"], rel=1e-3)


@pytest.mark.parametrize(
    "missing",
    [
        Y < -30,
        np.abs(X) > 35,
        np.hypot(X, Y) > 46,  # no corner is left to tell the sky
        (X - 30) ** 2 + (Y + 30) ** 2 < 100,
    ],
    ids=["strip", "sides", "corners", "hole"],
)
def test_what_has_no_value_far_out_does_not_matter(plain, missing):
    counts = noisy(galaxy()) + 1000
    counts[missing] = np.nan
    assert_alike(counts, plain, size=0.01)


def test_what_has_no_value_is_sky_with_its_noise():
    counts = noisy(galaxy()) + 1000
    counts[:, :24] = np.nan
    image = level_counts(np.stack([counts] * 3))[0]
    assert image.isfinite().all()
    assert float(image[:, :24].std()) == pytest.approx(float(image[-10:, -10:].std()), rel=0.15)
    assert abs(float(image[:, :24].mean())) < 0.001
    assert torch.equal(image, level_counts(np.stack([counts] * 3))[0])


@pytest.mark.parametrize(
    "counts", [np.zeros((SIDE, SIDE)), -galaxy(), np.full((SIDE, SIDE), -7e5), noisy(np.zeros((SIDE, SIDE)))]
)
def test_nothing_is_seen_where_nothing_is(counts):
    _, flag = measured(counts)
    assert flag & 1


def test_levels_are_those_that_photometry_knows():
    image = level_counts(np.stack([7e-19 * (noisy(galaxy()) + 50)] * 3))
    assert image.shape == (3, SIDE, SIDE) and image.dtype == torch.float32
    sky = measure(image[None], counts=True)
    assert float(sky.noise) == pytest.approx(0.01, rel=0.1) and abs(float(sky.background)) < 0.003
    hit = noisy(galaxy())
    hit[SIDE // 2 + 4, SIDE // 2] = 1e9
    assert float(measure(level_counts(np.stack([hit] * 3))[None], counts=True).noise) == pytest.approx(0.01, rel=0.1)
    # Nothing cuts it off.
    assert float(image.max()) == pytest.approx(0.01 * galaxy().max() / NOISE, rel=0.1)


def test_counts_are_measured_as_displays_are_where_both_have_the_same_levels():
    image = 0.3 + torch.from_numpy(np.stack([noisy(galaxy(peak=40), 1.0)] * 3)).float() * 0.012
    assert float(image.max()) < 1 and float(image.min()) > 0.2
    display, counts = measure(image[None]), measure(level_counts(image.double().numpy())[None], counts=True)
    for name in ("size", "ellipticity", "concentration"):
        assert float(getattr(counts, name)) == pytest.approx(float(getattr(display, name)), rel=0.01), name
