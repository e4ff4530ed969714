"""One blur and one noise for two sets: what is matched, what is conserved, and what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.measure.sky import measure_noise
from galaxies.validation.telescope_matching import Observed, at_least, match_flux, match_pictures
from tests.conftest import render_galaxies
from tests.validation.flux_sets import SCALE, light


def test_matched_distributions_are_the_larger_of_the_two_at_each_rank():
    assert at_least(np.array([3.0, 1.0]), np.array([2.0, 2.0, 2.0])).tolist() == [3.0, 2.0]
    assert at_least(np.array([np.nan, 1.0]), np.array([np.nan, 4.0])).tolist()[1] == 4.0
    assert at_least(np.array([1.0]), np.array([np.nan])).tolist() == [1.0]


def test_flux_is_conserved_and_noise_is_white_and_as_wanted():
    galaxies = torch.from_numpy(light(4, 1)).float()
    noise = 5.0 * torch.randn((4, 2, 64, 64), generator=torch.Generator().manual_seed(1))
    one = Observed(galaxies + noise, np.full((4, 2), 5.0), np.full((4, 2), 0.6))
    other = Observed(torch.from_numpy(light(4, 1, fwhm=6.0)).float(), np.full((4, 2), 8.0), np.full((4, 2), 1.2))
    made, same = match_flux(one, other, SCALE, seed=0).images
    assert torch.equal(same, other.images)
    left = made - other.images
    assert abs(float(left.sum((2, 3)).mean())) < 3 * 8 * 64 / 8**0.5  # of as many pixels' noise
    assert float(left.std()) == pytest.approx(8.0, rel=0.03)
    steps = float(left.diff(dim=3).square().mean()) / 2  # the variance, of noise whose neighbours share nothing
    assert steps == pytest.approx(64.0, rel=0.05)


def test_what_is_alike_stays_bit_for_bit():
    images = torch.from_numpy(light(3, 1)).float()
    one = Observed(images, np.full((3, 2), 5.0), np.full((3, 2), 0.6), "kolmogorov")
    made = match_flux(one, one, SCALE, seed=0)
    assert all(torch.equal(part, images) for part in made.images)
    assert "kolmogorov" in made.done[0]


def test_pictures_get_one_grain():
    rng = np.random.default_rng(0)
    pictures = [render_galaxies(60, seed=k)[0] + 30 + rng.normal(0, 4, (60, 3, 64, 64)) for k in (1, 2)]
    sharp, soft = (torch.from_numpy(part.round().clip(0, 255).astype(np.uint8)) for part in pictures)
    frequency = torch.fft.fftfreq(64)[:, None] ** 2 + torch.fft.rfftfreq(64) ** 2
    waves = torch.fft.rfft2(soft.float()) * torch.exp(-2 * (np.pi * 0.9) ** 2 * frequency)
    soft = torch.fft.irfft2(waves, s=(64, 64)).round().clamp(0, 255).to(torch.uint8)
    matched = match_pictures(sharp, soft, seed=0)
    assert matched.done[0].startswith("the compared set smoothed by a Gaussian of ")
    assert match_pictures(soft, sharp, seed=0).done[0].startswith("the reference smoothed by a Gaussian of ")
    before, after = ([measure_noise(part.float() / 255) for part in pair] for pair in ((sharp, soft), matched.images))
    gaps = [abs(float(a.correlation.median() - b.correlation.median())) for a, b in (before, after)]
    assert gaps[1] < 0.2 * gaps[0]
    levels = [float(part.level.median()) for part in after]
    assert levels[0] == pytest.approx(levels[1], rel=0.1)
