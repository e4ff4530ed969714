"""Sersic profiles: half the light within radius 1, and Fourier transforms against closed forms and GalSim."""

import math

import numpy as np
import pytest
import torch

from galaxies.mock_survey.sersic import TRUNCATION, SersicTransform, enclosed_light, sersic_b

INDICES = torch.tensor([0.5, 0.8, 1.0, 1.5, 2.5, 4.0, 5.0], dtype=torch.float64)
FREQUENCIES = np.array([0, 1e-4, 0.001, 0.01, 0.0437, 0.1, 0.2, 0.311, 0.5, 1.0, 1.7, 3.0, 4.0, 8.0, 11.9])


@pytest.fixture(scope="module")
def transform():
    return SersicTransform()


def light_of(radius: float, indices: torch.Tensor = INDICES) -> torch.Tensor:
    return enclosed_light(torch.full_like(indices, radius), indices)


def look_up(transform, n: float, frequency=FREQUENCIES) -> np.ndarray:
    return transform(torch.tensor(frequency, dtype=torch.float32)[None], torch.tensor([n]))[0].double().numpy()


# Half-light radii


def test_radius_one_holds_half_of_the_light():
    torch.testing.assert_close(light_of(1.0), torch.full_like(INDICES, 0.5), atol=1e-5, rtol=0)


def test_all_light_lies_within_the_truncation():
    torch.testing.assert_close(light_of(TRUNCATION), torch.ones_like(INDICES), atol=1e-12, rtol=0)
    assert torch.equal(light_of(100.0), light_of(TRUNCATION))
    assert torch.equal(light_of(0.0), torch.zeros_like(INDICES))


def test_enclosed_light_grows_with_radius():
    radius = torch.linspace(0, TRUNCATION, 400, dtype=torch.float64)[:, None]
    light = enclosed_light(radius, INDICES)
    assert light.shape == (400, len(INDICES))
    assert (light.diff(dim=0) >= 0).all()
    assert (light[:, 3:].diff(dim=0) > 0).all()


def test_light_is_the_integral_of_the_profile():
    n, b = INDICES, sersic_b(INDICES)
    radius = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000 * TRUNCATION
    light = radius * torch.exp(-b[:, None] * radius ** (1 / n[:, None]))
    for part in (0.3, 2.0, 5.0):
        expected = (light * (radius < part)).sum(1) / light.sum(1)
        torch.testing.assert_close(light_of(part), expected, atol=2e-5, rtol=0)


def test_b_of_the_gaussian_and_the_exponential():
    b = sersic_b(torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert float(b[0]) == pytest.approx(math.log(2), abs=1e-9)  # where the cut takes nothing
    assert float(b[1]) == pytest.approx(1.67835, abs=3e-4)  # (1 + b) exp(-b) = 1/2, and 2e-5 of the light is cut


def test_b_grows_with_the_index():
    b = sersic_b(torch.linspace(0.5, 5, 91, dtype=torch.float64))
    assert (b.diff() > 0).all()
    # A cut profile has less light outside, so that its b is below 2n - 1/3 (Ciotti & Bertin 1999).
    n = torch.tensor([4.0, 5.0], dtype=torch.float64)
    assert (sersic_b(n) < 2 * n - 1 / 3).all()


def test_scalars_and_grids_of_indices():
    assert sersic_b(torch.tensor(2.0, dtype=torch.float64)).shape == ()
    assert torch.equal(sersic_b(INDICES.view(7, 1)), sersic_b(INDICES).view(7, 1))


# Transforms


@pytest.mark.parametrize("n", [1.0, 1.5, 2.0, 2.6, 4.0])
def test_transform_agrees_with_galsim(transform, n):
    galsim = pytest.importorskip("galsim")
    profile = galsim.Sersic(n, half_light_radius=1, trunc=TRUNCATION)
    expected = [profile.kValue(2 * math.pi * k, 0).real for k in FREQUENCIES]
    np.testing.assert_allclose(look_up(transform, n), expected, atol=5e-4)


@pytest.mark.parametrize("n", [0.5, 0.625, 0.8, 1.1, 1.625, 2.6, 3.3, 4.9, 5.0])
def test_between_its_entries_the_table_errs_by_less_than_a_thousandth(transform, n):
    special = pytest.importorskip("scipy.special")
    b = float(sersic_b(torch.tensor(n, dtype=torch.float64)))
    s = (np.arange(100_000) + 0.5) / 100_000
    radius = TRUNCATION * s**3
    light = np.exp(-b * radius ** (1 / n)) * radius * s**2
    expected = [(light * special.j0(2 * np.pi * k * radius)).sum() / light.sum() for k in FREQUENCIES]
    np.testing.assert_allclose(look_up(transform, n), expected, atol=1e-3)


def test_the_gaussian(transform):
    k = np.array([0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(look_up(transform, 0.5, k), np.exp(-((np.pi * k) ** 2) / math.log(2)), atol=2e-4)


def test_the_exponential(transform):
    k = np.geomspace(0.01, 5, 30)
    expected = (1 + (2 * np.pi * k / 1.67835) ** 2) ** -1.5
    np.testing.assert_allclose(look_up(transform, 1.0, k), expected, atol=3e-4)


def test_transform_is_one_at_zero_and_nothing_beyond_the_table(transform):
    n = torch.linspace(0.5, 5, 19)
    torch.testing.assert_close(transform(torch.zeros(19, 1), n), torch.ones(19, 1), atol=1e-4, rtol=0)
    assert torch.equal(transform(torch.full((19, 1), 12.01), n), torch.zeros(19, 1))
    assert torch.equal(transform(torch.full((19, 1), 1e30), n), torch.zeros(19, 1))


def test_no_frequency_holds_more_than_all_light(transform):
    n = torch.linspace(0.5, 5, 37)
    values = transform(torch.linspace(0, 13, 500).expand(37, -1), n)
    assert values.isfinite().all()
    assert values.abs().max() <= 1


def test_every_profile_has_its_own_index_and_the_shape_is_kept(transform):
    frequency = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)) * 2
    n = torch.tensor([1.0, 2.2, 4.0])
    together = transform(frequency, n)
    assert together.shape == frequency.shape
    assert together.dtype == torch.float32
    for row in range(3):
        assert torch.equal(together[row], transform(frequency[row : row + 1], n[row : row + 1])[0])


def test_cuspier_profiles_have_more_light_at_high_frequencies(transform):
    values = transform(torch.full((5, 1), 2.0), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))[:, 0]
    assert (values.diff() > 0).all()
