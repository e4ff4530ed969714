"""One blur and one noise for two sets: what is matched, what is conserved, and what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from galaxies.measure.sky import measure_noise, plane_correlations
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


def with_grain(seed: int, covariance: np.ndarray) -> torch.Tensor:
    """Galaxies whose grain has a covariance of the planes (3, 3), grey levels squared."""
    rng = np.random.default_rng(seed)
    noise = np.einsum("ij,njkl->nikl", np.linalg.cholesky(covariance), rng.normal(size=(80, 3, 64, 64)))
    pictures = render_galaxies(80, seed=seed)[0] + 40 + noise
    return torch.from_numpy(pictures.round().clip(0, 255).astype(np.uint8))


def covariance_of(shared: tuple[float, float, float], *levels: float) -> np.ndarray:
    correlation = np.eye(3)
    correlation[[0, 1, 2], [1, 2, 0]] = correlation[[1, 2, 0], [0, 1, 2]] = shared
    return correlation * np.outer(levels, levels)


def test_noise_that_planes_share_is_measured():
    rng = np.random.default_rng(3)
    mixing = np.linalg.cholesky(covariance_of((0.7, 0.2, -0.3), 4, 5, 6))
    noise = np.einsum("ij,njkl->nikl", mixing, rng.normal(size=(40, 3, 64, 64)))
    found = plane_correlations(torch.from_numpy(40 + noise).round().float() / 255)
    assert found.mean(0).tolist() == pytest.approx([0.7, 0.2, -0.3], abs=0.02)  # R and G, G and B, B and R


def test_grain_of_as_strong_planes_that_share_it_otherwise_is_matched():
    one, other = covariance_of((0.8, 0.8, 0.8), 5, 5, 5), covariance_of((0.1, 0.4, 0.0), 5, 5, 5)
    sets = with_grain(1, one), with_grain(2, other)
    matched = match_pictures(*sets, seed=0).images
    sizes, axes = np.linalg.eigh(other - one)
    wanted = one + (axes * sizes.clip(0)) @ axes.T  # the same as other with what one has more of
    for part in matched:
        shades = part.float() / 255
        level = 255 * measure_noise(shades).level.median(0).values.double().numpy()
        assert level == pytest.approx(np.sqrt(np.diag(wanted)), rel=0.06)
        shared = plane_correlations(shades).median(0).values.tolist()
        scale = np.sqrt(np.diag(wanted))
        of_wanted = (wanted / np.outer(scale, scale))[[0, 1, 2], [1, 2, 0]]
        assert shared == pytest.approx(of_wanted.tolist(), abs=0.06)


def test_grain_of_one_kind_gets_next_to_none():
    sets = [with_grain(seed, covariance_of((0.5, 0.3, 0.2), 4, 5, 6)) for seed in (1, 2)]
    for before, after in zip(sets, match_pictures(*sets, seed=0).images, strict=True):
        levels = [measure_noise(part.float() / 255).level.median(0).values for part in (before, after)]
        assert (levels[1] / levels[0]).tolist() == pytest.approx([1.0] * 3, abs=0.04)
