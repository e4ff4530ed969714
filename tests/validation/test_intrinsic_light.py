"""Measurements of light without noise, held against formulas, and what a known damage does to a comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from galaxies.telescope.profiles import kolmogorov
from galaxies.telescope.psf import Psf
from galaxies.validation.intrinsic_light import (
    compare_light,
    compare_small,
    compare_spectra,
    measure_light,
    power_of,
    power_ratio,
    ring_edges,
    unseen_power,
)

SIDE, SCALE = 96, 0.1
PSF = Psf(torch.tensor([[0.9, 0.8]]), kolmogorov)


def gaussian(sigma: float, axis_ratio: float = 1.0, angle: float = 0.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Return a Gaussian of unit light (SIDE, SIDE); `sigma` is that of the longer axis, pixels."""
    place = np.arange(SIDE) - (SIDE - 1) / 2
    dx, dy = place - x, place[:, None] - y
    along, across = math.cos(angle) * dx + math.sin(angle) * dy, math.cos(angle) * dy - math.sin(angle) * dx
    plane = np.exp(-0.5 * ((along / sigma) ** 2 + (across / (sigma * axis_ratio)) ** 2))
    return plane / plane.sum()


def galaxies(count: int, seed: int) -> np.ndarray:
    """Return exponential discs (count, 2, SIDE, SIDE) of random sizes, shapes, magnitudes and colors."""
    rng = np.random.default_rng(seed)
    place = np.arange(SIDE) - (SIDE - 1) / 2
    light = []
    for _ in range(count):
        ratio, angle, length = rng.uniform(0.3, 1), rng.uniform(0, np.pi), rng.uniform(2.5, 6)
        along = math.cos(angle) * place + math.sin(angle) * place[:, None]
        across = (math.cos(angle) * place[:, None] - math.sin(angle) * place) / ratio
        plane = np.exp(-np.hypot(along, across) / length)
        flux = 10 ** rng.uniform(3, 4)
        light.append(plane / plane.sum() * np.array([flux * rng.uniform(0.3, 0.8), flux])[:, None, None])
    return np.array(light, np.float32)


def filtered(light: np.ndarray, transfer) -> np.ndarray:
    """Multiply the transform of light by a function of the frequency, cycles an arcsecond."""
    each = np.fft.fftfreq(SIDE, SCALE)
    return np.fft.ifft2(np.fft.fft2(light) * transfer(np.hypot(each, each[:, None]))).real.astype(np.float32)


@pytest.fixture(scope="module")
def truth():
    return galaxies(60, 0)


@pytest.fixture(scope="module")
def measured(truth):
    return measure_light(truth, SCALE, ("g", "r"), 1)


def test_a_round_gaussian_has_the_radii_and_colors_of_the_formula():
    plane = gaussian(7.0, x=3.3, y=-5.6)
    values = measure_light(np.stack([200 * plane, 500 * plane])[None], SCALE, ("g", "r"), 1).values
    assert values["magnitude"] == pytest.approx(31.4 - 2.5 * math.log10(500), abs=1e-6)
    assert values["half_light_radius"] == pytest.approx(0.7 * math.sqrt(2 * math.log(2)), rel=2e-3)
    of_gaussian = 5 * math.log10(math.sqrt(math.log(5) / math.log(1.25)))  # r80 / r20
    assert values["concentration"] == pytest.approx(of_gaussian, abs=0.01)
    assert values["ellipticity"] == pytest.approx(0, abs=0.03)  # of some 200 whole pixels
    assert values["color_g_r"] == pytest.approx(-2.5 * math.log10(0.4), abs=1e-6)


def test_colors_are_those_within_twice_the_half_light_radius():
    planes = np.stack([gaussian(10.0), gaussian(5.0)])  # blue outskirts
    values = measure_light(planes[None], SCALE, ("g", "r"), 1).values
    radius = 2 * 5 * math.sqrt(2 * math.log(2))
    within = [1 - math.exp(-0.5 * (radius / sigma) ** 2) for sigma in (10, 5)]
    assert values["color_g_r"] == pytest.approx(-2.5 * math.log10(within[0] / within[1]), abs=0.02)


@pytest.mark.parametrize("angle", [0.0, 0.5, 2.0])
def test_ellipticity_is_that_of_the_isophotes_wherever_they_lie(angle):
    plane = gaussian(10.0, 0.4, angle, 2.2, -4.4)
    values = measure_light(plane[None, None], SCALE, ("r",), 0).values
    assert values["ellipticity"] == pytest.approx(0.6, abs=0.02)


def test_a_frame_without_light_is_unknown(truth):
    values = measure_light(np.zeros((1, 2, SIDE, SIDE), np.float32), SCALE, ("g", "r"), 1).values
    assert all(np.isnan(column).all() for column in values.values())
    dark = truth[:1] * np.array([0, 1], np.float32)[:, None, None]
    values = measure_light(dark, SCALE, ("g", "r"), 1).values
    assert np.isnan(values["color_g_r"]).all() and np.isfinite(values["half_light_radius"]).all()


def test_rings_are_half_octaves_up_to_the_finest_and_hold_the_power_of_a_gaussian():
    edges = ring_edges(128, SCALE)
    assert len(edges) == 13
    assert edges[[0, -1]] == pytest.approx([1 / 12.8, 5.0])
    assert edges[1:] / edges[:-1] == pytest.approx(math.sqrt(2))
    # The window over a Gaussian that is narrow against it leaves the Gaussian's transform.
    power = power_of(gaussian(1.5)[None])[0, 0]
    frequency = np.fft.fftfreq(SIDE, SCALE)
    near = np.abs(frequency) < 1.5
    assert power[near] == pytest.approx(np.exp(-((2 * np.pi * 0.15 * frequency[near]) ** 2)), rel=0.02)


def test_truth_against_itself_is_no_distance(measured):
    cells = compare_light(measured, measured, 0)
    assert [cell["w1"] for cell in cells.values()] == [0] * 5
    assert all(cell["floor"] > 0.05 for cell in cells.values())
    spectra = compare_spectra(measured, measured, 1.4, 0)
    assert (spectra["w1"], spectra["worst"]) == (0, 0)
    assert [ring["seen"] for ring in spectra["rings"]] == [ring["to"] <= 1.4 for ring in spectra["rings"]]


def test_a_blur_shows_in_sizes_and_spectra_and_not_in_magnitudes(truth, measured):
    sigma = 0.3
    blurred = filtered(truth, lambda f: np.exp(-2 * (np.pi * sigma * f) ** 2)).clip(0)
    found = measure_light(blurred, SCALE, ("g", "r"), 1)
    cells = compare_light(found, measured, 0)
    assert cells["half_light_radius"]["w1"] > 0.15 and cells["half_light_radius"]["shift"] > 0
    assert cells["concentration"]["w1"] > 0.15 and cells["concentration"]["shift"] < 0
    low, high = cells["half_light_radius"]["interval"]
    assert low <= high and high > 0.15
    assert cells["magnitude"]["w1"] < 0.01 and cells["color_g_r"]["w1"] < 0.01
    spectra = compare_spectra(found, measured, 1.4, 0)
    assert spectra["w1"] > 0.5
    # The logarithm falls by that of the Gaussian, where the window does not mix frequencies any more.
    for place, ring in enumerate(spectra["rings"]):
        if not 0.4 < ring["from"] < 0.8:
            continue
        fall = np.median(measured.spectrum[:, place] - found.spectrum[:, place])
        ends = (4 * np.pi**2 * sigma**2 * math.log10(math.e) * ring[end] ** 2 for end in ("from", "to"))
        assert 0.95 * next(ends) <= fall <= 1.05 * next(ends)
    ratio = power_ratio(unseen_power(blurred, SCALE, PSF)[:, 1], unseen_power(truth, SCALE, PSF)[:, 1], 0)
    assert ratio["interval"][1] < ratio["floor"][0]


def rung(light: np.ndarray, frequency: float) -> np.ndarray:
    """Return light with nine times the power about a frequency, cycles an arcsecond."""
    return filtered(light, lambda f: 1 + 2 * np.exp(-0.5 * ((f - frequency) / 0.2) ** 2))


def test_rings_beyond_the_band_limit_show_there_alone(truth, measured):
    # The limit of this PSF lies at 1.5 cycles an arcsecond.
    found = measure_light(rung(truth, 3.0), SCALE, ("g", "r"), 1)
    assert compare_light(found, measured, 0)["half_light_radius"]["w1"] < 0.15
    spectra = compare_spectra(found, measured, 1.4, 0)
    assert spectra["w1"] < 0.01
    worst = max(spectra["rings"], key=lambda ring: ring["w1"])
    assert worst["from"] < 3 < worst["to"] and worst["shift"] > 0.15 and not worst["seen"]


def test_power_beyond_the_band_limit_is_counted_most_where_there_is_most(truth):
    unseen = unseen_power(truth, SCALE, PSF)[:, 1]
    same = power_ratio(unseen, unseen, 0)
    assert same["ratio"] == pytest.approx(1)
    assert same["floor"][0] < 1 < same["floor"][1]
    near = power_ratio(unseen_power(rung(truth, 2.0), SCALE, PSF)[:, 1], unseen, 0)
    far = power_ratio(unseen_power(rung(truth, 3.0), SCALE, PSF)[:, 1], unseen, 0)
    assert near["ratio"] > 2 > far["ratio"] > 1.1
    assert near["interval"][0] > 1.5


def test_a_telescope_that_sees_all_that_pixels_hold_has_nothing_unseen(truth):
    sharp = Psf(torch.tensor([[0.01, 0.01]]), kolmogorov)
    with pytest.raises(ValueError, match="beyond the band limit"):
        unseen_power(truth[:1], SCALE, sharp)


def test_small_galaxies_are_compared_with_those_that_were_made_for_them():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.4, 1.6, 400)
    same = compare_small(truth[:, None] + rng.normal(0, 0.01, (400, 3)), truth, 0.8, 0)
    assert same["truth"] == (truth < 0.8).sum() and same["generated"] == 3 * same["truth"]
    assert same["radii"]["w1"] < 0.15 and same["p"] > 0.05
    assert same["interval"][0] <= same["generated_share"] <= same["interval"][1]
    larger = compare_small(np.maximum(truth, 0.8)[:, None], truth, 0.8, 0)
    assert larger["radii"]["w1"] > 0.5 and larger["p"] < 1e-6 and larger["generated_share"] == 0
    assert "left_out" in compare_small(truth[:, None], truth, 0.41, 0)
