"""Distances between sets: closed forms, floors, bootstrap intervals, and sets that are too small."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ks_2samp

from galaxies.validation.distances import (
    accuracy_interval,
    against_floor,
    bootstrap_interval,
    compare_values,
    frechet_distance,
    kernel_distance,
    kolmogorov_smirnov,
    roc_auc,
    wasserstein,
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


@pytest.mark.parametrize("shift", [-3.0, -0.2, 0.0, 0.5, 10.0])
def test_a_shift_is_a_wasserstein_distance_and_counted_in_standard_deviations_of_the_real_values(shift):
    real = np.random.default_rng(0).normal(5, 2, 400)
    assert wasserstein(real + shift, real) == pytest.approx(abs(shift), abs=1e-9)
    cell = compare_values(real + shift, real, 0)
    assert cell["w1"]["whole"] == pytest.approx(abs(shift) / real.std(), abs=1e-9)
    assert cell["shift"] == pytest.approx(shift / real.std(), abs=1e-9)


def test_units_do_not_matter_and_the_plain_distance_is_symmetric():
    one, two = np.random.default_rng(0).normal(0, 1, 90), np.random.default_rng(1).gamma(2, 1, 130)
    w1, other = (compare_values(k * one - 7, k * two - 7, 0)["w1"] for k in (1, 3e5))
    for name in ("whole", "value", "floor"):
        assert other[name] == pytest.approx(w1[name], rel=1e-6)
    assert wasserstein(one, two) == pytest.approx(wasserstein(two, one), rel=1e-12)


def test_the_size_of_a_sample_does_not_matter():
    values, other = np.random.default_rng(0).normal(0, 1, 50), np.random.default_rng(1).normal(1, 3, 50)
    assert wasserstein(np.repeat(values, 7), values) == pytest.approx(0, abs=1e-12)
    # Equal sizes: the smallest goes with the smallest, and so on.
    assert wasserstein(values, other) == pytest.approx(np.abs(np.sort(values) - np.sort(other)).mean(), rel=1e-12)


def test_spreads_that_differ_have_a_distance_although_means_agree():
    real = np.random.default_rng(0).normal(0, 1, 20_000)
    # Of two centred normal distributions it is the difference of the sigmas times sqrt(2 / pi).
    assert wasserstein(0.5 * real, real) == pytest.approx(0.5 * math.sqrt(2 / math.pi), rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_wasserstein_is_the_area_between_the_cumulative_distributions(seed):
    random = np.random.default_rng(seed)
    one, two = random.normal(0, 1, random.integers(2, 60)), random.normal(0.3, 2, random.integers(2, 60)).round(1)
    edges = np.unique(np.concatenate([one, two]))
    gaps = [abs((one <= edge).mean() - (two <= edge).mean()) for edge in edges[:-1]]
    assert wasserstein(one, two) == pytest.approx(gaps @ np.diff(edges), rel=1e-10)


def test_roc_auc_counts_pairs_and_halves_ties():
    positive, negative = np.random.default_rng(0).integers(0, 6, 40), np.random.default_rng(1).integers(0, 5, 30)
    pairs = positive[:, None] - negative
    assert roc_auc(positive, negative) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean(), rel=1e-12)
    assert roc_auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert roc_auc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 0
    assert roc_auc(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.5


@pytest.mark.parametrize(
    ("positive", "message"), [([], "0 positive and 2 negative scores"), ([1.0, np.nan], "NaN"), ([np.inf], "infinity")]
)
def test_scores_without_an_area_are_errors(positive, message):
    with pytest.raises(ValueError, match=message):
        roc_auc(np.array(positive), np.array([1.0, 2.0]))


def test_kolmogorov_smirnov_of_disjoint_and_equal_samples():
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0) + 20) == 1
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0)) == 0
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0) + 5) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    for k in range(60):  # of different sizes, with and without ties, against another program
        one, other = (rng.standard_normal(rng.integers(1, 60)).round(k % 3) for _ in range(2))
        assert kolmogorov_smirnov(one, other) == ks_2samp(one, other, method="asymp").statistic


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
        "left_out": "needs 20 values of the reference and 10 of the other set, has 50 and 9"
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
