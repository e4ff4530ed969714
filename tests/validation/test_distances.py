"""Distances between sets: closed forms, floors, bootstrap intervals, and sets that are too small."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from galaxies.validation.distances import (
    accuracy_interval,
    against_floor,
    bootstrap_interval,
    compare_values,
    frechet_distance,
    kernel_distance,
    kolmogorov_smirnov,
)


def normal_sample(mean, covariance, count, seed):
    """Return a sample whose mean and unbiased covariance are exactly those given."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    return mean + rows @ np.linalg.cholesky(covariance).T


def test_frechet_distance_of_two_normal_distributions_is_the_closed_form():
    means = [np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])]
    covariances = [np.diag([1.0, 2.0, 3.0]), np.array([[2.0, 0.5, 0], [0.5, 1.0, 0.2], [0, 0.2, 4.0]])]
    one, other = (normal_sample(m, c, 50, k) for k, (m, c) in enumerate(zip(means, covariances, strict=True)))
    cross = sqrtm(covariances[0] @ covariances[1]).real
    expected = 5.0 + np.trace(covariances[0] + covariances[1] - 2 * cross)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    assert frechet_distance(one @ turn + 7, other @ turn + 7) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_fewer_images_than_features_is_still_real():
    one, other = np.random.default_rng(0).normal(size=(2, 5, 30))
    assert 0 < frechet_distance(one, other) < 1000


def test_kernel_distance_of_one_distribution_is_zero_on_average_and_positive_for_another():
    rng = np.random.default_rng(0)
    same = [kernel_distance(rng.normal(size=(40, 4)), rng.normal(size=(25, 4))) for _ in range(400)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 20
    assert min(same) < 0
    shifted = [kernel_distance(rng.normal(size=(40, 4)) + 1, rng.normal(size=(25, 4))) for _ in range(20)]
    assert min(shifted) > max(0, np.mean(same))


def test_kernel_distance_is_the_textbook_double_sum():
    one, other = np.random.default_rng(1).normal(size=(2, 6, 3))
    kernel = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    within = [sum(kernel(s[i], s[j]) for i in range(6) for j in range(6) if i != j) / 30 for s in (one, other)]
    across = sum(kernel(x, y) for x in one for y in other) / 36
    assert kernel_distance(one, other) == pytest.approx(sum(within) - 2 * across)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(
    "one, text",
    [
        (np.zeros((5, 2)), r"not \(5, 2\) and \(5, 3\)"),
        (np.zeros((1, 3)), "at least two rows"),
        (np.full((5, 3), np.nan), "must be finite"),
    ],
)
def test_features_that_cannot_be_compared(distance, one, text):
    with pytest.raises(ValueError, match=text):
        distance(one, np.zeros((5, 3)))


def test_kolmogorov_smirnov_of_disjoint_and_equal_samples():
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0) + 20) == 1
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0)) == 0
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0) + 5) == pytest.approx(0.5)


def test_a_perfect_generator_comes_out_at_the_floor_and_a_worse_one_above():
    rng = np.random.default_rng(0)
    real, perfect, worse = rng.normal(size=400), rng.normal(size=900), rng.normal(0.5, 1, 900)
    cell = compare_values(perfect, real, 0)
    assert 0.7 < cell["w1"]["multiple"] < 1.5
    assert cell["w1"]["images"] == 200
    assert abs(cell["shift"]) < 0.2
    low, high = cell["w1"]["interval"]
    assert low <= cell["w1"]["value"] <= high
    # Of 400 from 900 values, chance makes less than of 200 from 200: by (1/400 + 1/900) / (2/200) of the variance.
    assert cell["w1"]["whole"] < cell["w1"]["floor"]
    shifted = compare_values(real + 0.25, real, 0)
    assert shifted["w1"]["whole"] == pytest.approx(0.25 / real.std(), rel=1e-6)
    cell = compare_values(worse, real, 0)
    assert cell["w1"]["value"] == pytest.approx(0.5, abs=0.1)
    assert cell["w1"]["multiple"] > 3 and cell["ks"]["multiple"] > 2
    assert cell == compare_values(worse, real, 0)


def test_centred_floor_is_a_scatter():
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    cell = against_floor(kernel_distance, made, real, 0, 30, centred=True)
    assert cell["floor"] > 0
    assert abs(cell["multiple"]) < 4


def test_too_few_values_are_left_out_with_the_reason():
    assert compare_values(np.arange(9.0), np.arange(50.0), 0) == {
        "left_out": "needs 20 real and 10 generated values, has 50 and 9"
    }
    few = np.where(np.arange(50) < 15, np.arange(50.0), np.nan)
    assert "has 15 and 50" in compare_values(np.arange(50.0), few, 0)["left_out"]
    assert "all equal" in compare_values(np.arange(50.0), np.ones(50), 0)["left_out"]
    assert "left_out" in against_floor(frechet_distance, np.zeros((30, 2)), np.zeros((30, 2)), 0, least=16)


def test_bootstrap_interval_covers_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        values = np.random.default_rng(seed).exponential(size=80)
        low, high = bootstrap_interval(lambda rows, v=values: v[rows].mean(1), 80, seed)
        covered += low <= 1 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_accuracy_interval():
    cell = accuracy_interval(np.arange(200) < 150, 0)
    assert cell["value"] == 0.75 and cell["images"] == 200
    assert cell["interval"] == pytest.approx([0.69, 0.81], abs=0.02)
    assert accuracy_interval(np.array([]), 0) == {"left_out": "no image"}
