"""The sky beneath flux: planes, levels and noise that are known, with what is no sky beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from galaxies.measure.flux_sky import (
    aperture_grain,
    aperture_noise,
    clipped_median,
    darker_corners,
    estimate_flux_sky,
    level_beside,
    smoothed_noise,
    without_slope,
)
from galaxies.measure.frame import corner_mask

SIDE = 64
AXIS = (torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2) / (SIDE / 2)
GOOD = torch.ones(1, SIDE, SIDE, dtype=torch.bool)


def noise(sigma, seed=0, count=1, smooth=0.0):
    """Images (count, 1, S, S) of normal noise, of neighbours that share it where it is smoothed."""
    grain = torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if smooth:
        frequency = torch.fft.fftfreq(SIDE, dtype=torch.float64)
        squared = frequency.square() + frequency.square()[:, None]
        grain = torch.fft.ifft2(torch.fft.fft2(grain) * torch.exp(-2 * (math.pi * smooth) ** 2 * squared)).real
        grain = grain / grain.std()
    return sigma * grain


def slope_left(image, plane, good=GOOD):
    """How much of a plane is left of it, by least squares over the frame."""
    left = (without_slope(image + plane, good) - image)[0, 0]
    return float((left * plane).sum() / plane.square().sum())


@pytest.mark.parametrize("across, down", [(3.0, 0.0), (0.0, -3.0), (2.0, 4.0)])
@pytest.mark.parametrize("unit", [1.0, 1e-9])
def test_a_plane_is_taken_off_whichever_way_it_slopes(across, down, unit):
    plane = across * AXIS + down * AXIS[:, None]
    assert abs(slope_left(unit * noise(1.0), unit * plane)) < 0.06
    assert abs(slope_left(unit * noise(1.0, seed=5), unit * plane)) < 0.06


def test_each_band_has_its_own_slope():
    images = torch.cat([noise(1.0), noise(1.0, seed=1)], 1)
    images[:, 1] += 4 * AXIS
    found = without_slope(images, GOOD)
    assert torch.equal(found[:, 0], images[:, 0])
    assert abs(float((found[:, 1, :, -8:] - found[:, 1, :, :8]).mean())) < 0.4


@pytest.mark.parametrize("smooth", [0.0, 1.0, 2.0])
def test_noise_alone_shows_no_slope(smooth):
    """Nor where neighbours share it, by which corners differ the more."""
    images = noise(1.0, seed=2, count=60, smooth=smooth)
    changed = (without_slope(images, GOOD.expand(60, -1, -1)) != images).flatten(1).any(1)
    assert changed.double().mean() <= 0.05


def test_a_slope_of_a_noise_over_half_a_frame_is_seen():
    images = noise(1.0, seed=3, count=20) + AXIS
    changed = (without_slope(images, GOOD.expand(20, -1, -1)) != images).flatten(1).any(1)
    assert changed.double().mean() >= 0.9


def test_one_bright_corner_and_two_across_are_no_plane():
    corners = {(a, b): ((a * AXIS > 0.5) & (b * AXIS[:, None] > 0.5)) for a in (-1, 1) for b in (-1, 1)}
    for bright in (((1, 1),), ((1, 1), (-1, -1))):
        image = noise(1.0, seed=4) + 3 * sum(corners[place] for place in bright)
        assert torch.equal(without_slope(image, GOOD), image)
    # Steep and a little bent is a plane all the same.
    steep = noise(1.0, seed=4) + 200 * AXIS + 20 * AXIS * AXIS[:, None]
    assert (without_slope(steep, GOOD) - noise(1.0, seed=4)).abs().mean() < 10


def test_an_image_without_noise_keeps_its_galaxys_wings():
    radius = torch.hypot(AXIS - 0.02, AXIS[:, None]) * SIDE / 2
    image = (1e4 * torch.exp(-radius / 3))[None, None] + 0.1 * AXIS
    assert torch.equal(without_slope(image, GOOD), image)  # what is 1e-5 of the galaxy's peak is none of the sky's


def test_bad_pixels_keep_their_value_and_hide_slopes():
    image = noise(1.0) + 4 * AXIS
    good = GOOD.clone()
    good[:, 20:30, 20:30] = False
    found = without_slope(image.where(good[:, None], 0), good)
    assert (found[:, :, 20:30, 20:30] == 0).all() and abs(float(found[..., -8:].mean())) < 0.5
    good[:, :16, :16] = False  # a whole corner
    assert torch.equal(without_slope(image, good), image)
    # A third of the lines is bad, and holds 0 far below the sky: neither slope nor noise is learned from it.
    striped = GOOD.clone()
    striped[:, ::3] = False
    kept = (
        without_slope((image + 50).where(striped[:, None], 0), striped)[0, 0][striped[0]] - noise(1.0)[0, 0][striped[0]]
    )
    assert abs(float(kept.mean()) - 50) < 0.2 and float(kept.std()) < 0.4


@pytest.mark.parametrize("sigma", [1e-9, 2.0])
@pytest.mark.parametrize("smooth", [0.0, 0.7, 1.0, 1.5])
def test_level_and_noise_are_those_that_were_drawn(sigma, smooth):
    images = 50 * sigma + noise(sigma, seed=6, count=8, smooth=smooth)
    found = estimate_flux_sky(images, GOOD.expand(8, -1, -1))
    assert found.level.mean().item() == pytest.approx(50 * sigma, abs=0.05 * sigma * (1 + smooth))
    assert found.noise.mean().item() == pytest.approx(sigma, rel=0.05 if smooth <= 1 else 0.12)
    # Noise that a Gaussian of s pixels smoothed correlates as exp(-d²/(4 s²)) over the distance d.
    assert found.shared.mean().item() == pytest.approx(math.exp(-0.25 / smooth**2) if smooth else 0, abs=0.03)
    assert (found.used > 0.95 * corner_mask(SIDE, images.device).sum()).all()


def test_a_star_in_a_corner_is_no_sky_and_no_noise():
    image = noise(1.0, seed=7)
    star = 1e5 * torch.exp(-0.5 * ((AXIS - 0.85).square() + (AXIS[:, None] - 0.85).square()) / 0.05**2)
    plain, beside = (estimate_flux_sky(each, GOOD) for each in (image, image + star))
    assert beside.level.item() == pytest.approx(plain.level.item(), abs=0.1)
    assert beside.noise.item() == pytest.approx(plain.noise.item(), rel=0.1)
    assert beside.used < plain.used
    # What is smooth is bright beside a star, and taken off it all is too dark: 1.1 times the noise, if it counted.
    shared = noise(1.0, seed=7, count=8, smooth=1.0)[:, 0]
    shown, starry = (smoothed_noise(each, GOOD.expand(8, -1, -1))[0] for each in (shared, shared + star))
    assert (starry / shown).mean().item() == pytest.approx(1, abs=0.05)


def test_an_image_without_noise_has_a_ten_thousandth_of_its_light_for_noise():
    image = 300 * torch.exp(-0.5 * (AXIS.square() + AXIS[:, None].square()) / 0.1**2)[None, None]
    found = estimate_flux_sky(image, GOOD)
    assert found.noise.item() == pytest.approx(300e-4, rel=0.03)


def test_the_level_beside_light_that_is_known_is_that_of_the_sky():
    """Faint light in three corners, and none in the ring inside them: the median of all corners is above the sky."""
    corners = corner_mask(SIDE, torch.device("cpu"))
    light = corners & ~((AXIS < 0) & (AXIS[:, None] < 0))
    ring = (torch.hypot(AXIS, AXIS[:, None]) > 0.8) & ~corners
    image = 7 + torch.cat([noise(1.0, seed=12), noise(3.0, seed=13)], 1) + 2 * light
    no, yes = torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    assert (estimate_flux_sky(image, GOOD).level > 8).all()
    level, blank = level_beside(image, GOOD, light[None], no)
    assert torch.equal(blank[0], corners & ~light)
    torch.testing.assert_close(level, torch.full_like(level, 7), rtol=0, atol=0.35)
    level, blank = level_beside(image, GOOD, light[None], yes)
    assert torch.equal(blank[0], (corners & ~light) | ring)
    torch.testing.assert_close(level, torch.full_like(level, 7), rtol=0, atol=0.2)
    # Of bad pixels nothing is learned, and where light hides all, the corners have to do.
    half = GOOD.clone()
    half[:, :, :32] = False
    assert torch.equal(level_beside(image, half, light[None], yes)[1][0], ((corners & ~light) | ring) & half[0])
    level, blank = level_beside(image, half, GOOD, yes)
    assert torch.equal(blank[0], corners & half[0]) and (level > 8.5).all()


def test_frames_without_a_good_pixel_have_the_level_0():
    found = estimate_flux_sky(noise(1.0) + 9, ~GOOD)
    assert (found.level.item(), found.used.item()) == (0, 0) and found.noise.isfinite().all()


def test_noise_after_smoothing_is_that_of_the_kernel_and_of_the_grain():
    """White noise keeps what the squares of the kernel sum to; noise that neighbours share keeps more."""
    from scipy.ndimage import gaussian_filter

    from galaxies.measure.sky import DETECTION_SMOOTHING

    sigma, grain = smoothed_noise(noise(1.0, seed=8, count=6)[:, 0], GOOD.expand(6, -1, -1))
    impulse = np.zeros((SIDE, SIDE))
    impulse[32, 32] = 1
    kept = math.sqrt((gaussian_filter(impulse, DETECTION_SMOOTHING * SIDE) ** 2).sum())
    assert sigma.mean().item() == pytest.approx(kept, rel=0.12)
    assert grain.mean().item() == pytest.approx(1, abs=0.12) and (grain >= 1).all()
    shared = noise(1.0, seed=8, count=6, smooth=1.0)[:, 0]
    truth = gaussian_filter(shared.numpy(), (0, *[DETECTION_SMOOTHING * SIDE] * 2)).std()
    # The background takes a quarter of it.
    assert 0.7 * truth < smoothed_noise(shared, GOOD.expand(6, -1, -1))[0].mean().item() < truth


def test_a_clipped_median_is_that_of_what_is_left():
    values = torch.tensor([*range(100), 300, 400, 500], dtype=torch.float64)
    valid = torch.ones(103, dtype=torch.bool)
    median, deviation, count = clipped_median(values[torch.randperm(103)], valid)
    below = values.sort().values
    assert deviation.item() == below[51] - below[int(0.1587 * 103)]  # by the 15.87th percentile
    assert (median.item(), count.item()) == (50, 100)
    valid[90:] = False
    assert clipped_median(values, valid)[0].item() == 45


def test_the_darker_corners_are_those_without_a_galaxy_on_edge():
    image = noise(1.0, seed=9)[:, 0]
    along, across = (AXIS + AXIS[:, None]) / math.sqrt(2), (AXIS - AXIS[:, None]) / math.sqrt(2)
    edge = 20 * torch.exp(-0.5 * (along.square() + (across / 0.2).square()))
    assert darker_corners(image + 3, GOOD).item() == pytest.approx(3, abs=0.2)
    assert (
        darker_corners(image + edge, GOOD).item() < 0.4 < estimate_flux_sky((image + edge)[:, None], GOOD).level.item()
    )
    masked = GOOD.clone()
    masked[:, :, :40] = False  # two corners, and what is left of no other
    assert darker_corners(image + 3 + 5 * (AXIS > 0) * (AXIS[:, None] > 0), masked).item() == pytest.approx(8, abs=0.5)
    assert darker_corners(image + 3, ~GOOD).item() == 0


def test_the_zero_of_a_file_is_the_sky_where_wings_can_explain_what_is_above_it():
    from galaxies.measure.flux_model import zero_possible

    error = torch.full((7,), 0.04, dtype=torch.float64)  # 2.5 times it with 0.03 is 0.125
    zero = torch.tensor([0.0, 0.1, 0.5, 30.0, 0.5, -0.5, 0.5], dtype=torch.float64)
    darker = torch.tensor([0.0, 0.1, 0.5, 30.0, 0.5, -0.5, 0.0], dtype=torch.float64)
    brighter = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.3, 0.3, 0.0], dtype=torch.float64)
    found = zero_possible(zero, darker, brighter, error)
    assert found.tolist() == [True, True, False, False, True, False, True]


@pytest.mark.parametrize("smooth", [0.7, 1.0])
def test_light_under_a_gaussian_scatters_by_the_noise_that_pixels_share(smooth):
    """By brute force: the noise of a weighted sum over that of white noise."""
    images = noise(1.0, seed=10, count=400, smooth=smooth)[:, 0]
    weight = torch.exp(-0.5 * (AXIS.square() + AXIS[:, None].square()) * (SIDE / 2) ** 2 / 9)
    scatter = (images * weight).sum((1, 2)).std() / weight.square().sum().sqrt()
    shared = torch.tensor([math.exp(-0.25 / smooth**2)], dtype=torch.float64)
    assert aperture_grain(shared, torch.tensor([9.0])).item() == pytest.approx(scatter.item(), rel=0.1)
    moments = torch.tensor([[9.0, 9.0, 0.0]], dtype=torch.float64).expand(40, -1)
    found = aperture_noise(images[:40], GOOD.expand(40, -1, -1), moments)
    assert found.mean().item() == pytest.approx(scatter.item(), rel=0.1)
    white = aperture_noise(noise(1.0, seed=11, count=40)[:, 0], GOOD.expand(40, -1, -1), moments)
    assert white.median().item() == 1


def test_the_noise_of_a_pixel_is_right_in_the_mean_over_many_skies():
    """To its own error: of 400 skies it differs by 3 % from one to the next."""
    found = estimate_flux_sky(noise(3.0, seed=1, count=400), GOOD.expand(400, -1, -1)).noise
    assert found.mean().item() == pytest.approx(3.0, rel=0.01)
