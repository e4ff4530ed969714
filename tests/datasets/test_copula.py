"""Classes and attributes drawn together, held against distributions whose correlations are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from galaxies.common.errors import UserError
from galaxies.datasets.copula import GaussianCopula, JointDistribution, Marginal, correlation_of
from galaxies.datasets.population import Population

CLASSES = ("spiral", "elliptical", "merger", "edge-on")
R = np.array([[1.0, 0.7, -0.4], [0.7, 1.0, 0.1], [-0.4, 0.1, 1.0]])


def normal(count: int, matrix: np.ndarray = R, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal(np.zeros(len(matrix)), matrix, count)


def skewed(numbers: np.ndarray) -> np.ndarray:
    """Give three columns three shapes, none of them normal, which keeps the ranks."""
    return np.stack([np.exp(numbers[:, 0]), numbers[:, 1] ** 3, stats.norm.cdf(numbers[:, 2])], 1)


def joint(classes, values, only=None) -> JointDistribution:
    return JointDistribution(Population(torch.tensor(classes), torch.tensor(values).float()), CLASSES, only)


def drawn(copula: GaussianCopula, count: int, seed: int = 1) -> np.ndarray:
    return copula.draw(np.random.default_rng(seed).standard_normal((count, len(copula.marginals))))


# The fit


def test_known_correlations_are_found_whatever_the_shapes():
    found = GaussianCopula.fit(skewed(normal(20_000))).correlation
    assert np.abs(found - R).max() < 0.02  # a standard error is at most (1 - r^2) / 141 = 0.007
    assert np.array_equal(np.diag(found).round(12), np.ones(3))


def test_what_is_drawn_has_the_ranks_and_the_shapes_that_theory_says():
    values = skewed(normal(20_000))
    sample = drawn(GaussianCopula.fit(values), 20_000)
    ranks = stats.spearmanr(sample).statistic
    assert np.abs(ranks - 6 / np.pi * np.arcsin(R / 2)).max() < 0.03  # Pearson 1907
    for mine, theirs in zip(sample.T, values.T, strict=True):
        assert stats.ks_2samp(mine, theirs).statistic < 0.02  # 1.95 sqrt(2 / 20,000) = 0.0195 at 0.1 %
        assert theirs.min() <= mine.min() and mine.max() <= theirs.max()


def test_values_that_are_unknown_at_random_cost_nothing_but_precision():
    values = skewed(normal(20_000))
    values[np.random.default_rng(2).random(values.shape) < 0.5] = math.nan
    assert np.abs(GaussianCopula.fit(values).correlation - R).max() < 0.04


def test_values_that_are_unknown_by_another_one_do_not_mislead():
    numbers = normal(40_000)
    numbers[np.abs(numbers[:, 0]) < 0.8, 1] = math.nan  # pairs that are left would tell 0.8 in place of 0.7
    left = numbers[np.isfinite(numbers[:, 1])]
    assert np.corrcoef(left[:, 0], left[:, 1])[0, 1] > 0.77
    assert np.abs(correlation_of(numbers) - R).max() < 0.02


def test_attributes_that_are_never_known_together():
    numbers = normal(40_000)
    numbers[:20_000, 1] = math.nan
    numbers[20_000:, 2] = math.nan  # 1 and 2 are never known together
    found = correlation_of(numbers)
    assert np.linalg.eigvalsh(found).min() > 0  # whatever they have in common
    assert found[0, 1] == pytest.approx(0.7, abs=0.02) and found[0, 2] == pytest.approx(-0.4, abs=0.02)


def test_steps_have_the_correlation_of_the_data_and_no_values_between():
    numbers = normal(40_000, np.array([[1.0, 0.5, 0.3], [0.5, 1.0, 0.6], [0.3, 0.6, 1.0]]))
    bar, arms = (numbers[:, 1] > 0).astype(float), np.digitize(numbers[:, 2], [-1, 0.5, 1.5]).astype(float)
    values = np.stack([numbers[:, 0], bar, arms], 1)
    copula = GaussianCopula.fit(values)
    # Of a normal number and a truth value of even odds: r phi(0) / sqrt(1 / 4).
    assert np.corrcoef(values, rowvar=False)[0, 1] == pytest.approx(0.5 * 2 * stats.norm.pdf(0), abs=0.01)
    assert copula.correlation[0, 1] == pytest.approx(0.5, abs=0.02)
    assert copula.correlation[1, 2] == pytest.approx(0.6, abs=0.03)
    sample = drawn(copula, 40_000)
    assert np.abs(np.corrcoef(sample, rowvar=False) - np.corrcoef(values, rowvar=False)).max() < 0.025
    assert set(sample[:, 1]) == {0.0, 1.0} and set(sample[:, 2]) == {0.0, 1.0, 2.0, 3.0}
    assert sample[:, 1].mean() == pytest.approx(0.5, abs=0.01)
    assert np.bincount(sample[:, 2].astype(int)) / 40_000 == pytest.approx(
        np.bincount(arms.astype(int)) / 40_000, abs=0.01
    )


def test_quantiles_are_those_of_the_data():
    marginal = Marginal.of(np.array([3.0, 1.0, 2.0, 10.0]))
    assert marginal.values_at(stats.norm.ppf([0.125, 0.375, 0.625, 0.875])) == pytest.approx([1, 2, 3, 10])
    assert marginal.values_at(np.array([-9.0, 9.0])).tolist() == [1, 10]
    assert 3 < marginal.values_at(stats.norm.ppf([0.75]))[0] < 10
    steps = Marginal.of(np.array([0.0] * 3 + [2.0] * 5 + [7.0] * 2))
    parts = np.array([0.001, 0.299, 0.301, 0.799, 0.801, 0.999])
    assert steps.values_at(stats.norm.ppf(parts)).tolist() == [0, 0, 2, 2, 7, 7]


@pytest.mark.parametrize(
    "values",
    [
        [[0.1, 2.0]],
        [[0.1, 2.0], [0.2, 3.0]],
        [[0.1, 2.0], [0.1, 2.0], [0.1, 2.0]],
        [[0.1, math.nan], [0.2, math.nan], [0.3, math.nan]],
        [[0.1, math.nan], [math.nan, 2.0]],
        [[math.nan, math.nan]] * 3,
        [[k / 10, k / 5] for k in range(40)],  # one is twice the other
    ],
)
def test_classes_that_tell_little(values):
    values = np.array(values)
    copula = GaussianCopula.fit(values)
    assert np.linalg.eigvalsh(copula.correlation).min() > 0
    sample = drawn(copula, 50)
    for mine, theirs in zip(sample.T, values.T, strict=True):
        known = theirs[np.isfinite(theirs)]
        assert np.isnan(mine).all() if len(known) == 0 else known.min() <= mine.min() <= mine.max() <= known.max()


def test_what_is_a_multiple_of_another_attribute_stays_one():
    sample = drawn(GaussianCopula.fit(np.array([[k / 10, k / 5] for k in range(400)])), 500)
    assert np.abs(sample[:, 1] - 2 * sample[:, 0]).max() < 0.5  # of 80


def test_of_equal_values_each_has_the_mean_of_their_numbers():
    """Ten different values of twelve are no steps."""
    known = np.concatenate([np.arange(10.0), [4.0, 4.0]])  # 12 values, 10 different ones
    marginal = Marginal.of(known)
    assert marginal.bounds is None
    quantiles = stats.norm.ppf((np.arange(12) + 0.5) / 12)
    found = marginal.scores_of(np.array([4.0, 0.0, math.nan, 9.0]))
    assert found[[0, 1, 3]] == pytest.approx([quantiles[4:7].mean(), quantiles[0], quantiles[11]], abs=1e-12)
    assert math.isnan(found[2])


def test_a_step_stands_at_the_middle_of_its_rank():
    steps = Marginal.of(np.array([0.0] * 3 + [2.0] * 5 + [7.0] * 2))
    assert steps.scores == pytest.approx(stats.norm.ppf([0.15, 0.55, 0.9]), abs=1e-12)
    assert steps.bounds == pytest.approx(stats.norm.ppf([0.3, 0.8]), abs=1e-12)
    assert steps.scores_of(np.array([7.0, 0.0])) == pytest.approx(stats.norm.ppf([0.9, 0.15]), abs=1e-12)


def test_what_the_galaxy_of_the_lot_does_not_know_stays_unknown_in_a_fit_of_the_whole_class():
    """Few know the third attribute, so that all are fitted together, and that fit can draw all three."""
    numbers = normal(150)
    numbers[:60, 2] = math.nan  # neither kind has the hundred of a fit of its own
    numbers[60:120, 1] = math.nan
    some = joint(np.zeros(150, int), numbers)
    _, sample = some.draw(range(2000))
    unknown = sample.isnan().numpy()
    assert not unknown[:, 0].any() and not (unknown[:, 1] & unknown[:, 2]).any()
    assert unknown[:, 2].mean() == pytest.approx(0.4, abs=0.04) and unknown[:, 1].mean() == pytest.approx(0.4, abs=0.04)


# The draw


def population_of(count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Two thirds of one class and a third of another, correlated the other way; few know the third attribute."""
    numbers = normal(count)
    classes = (np.arange(count) % 3 == 0).astype(int)
    numbers[classes == 1, 1] *= -1
    numbers[classes == 1] += 5
    numbers[np.arange(count) % 7 > 0, 2] = math.nan
    return classes, numbers


def test_classes_come_in_their_shares_and_each_as_it_is():
    classes, values = population_of()
    index, sample = joint(classes, values).draw(range(20_000))
    assert index.bincount().tolist() == pytest.approx([2 / 3 * 20_000, 20_000 / 3], abs=250)  # 3.7 standard errors
    for number, wanted in ((0, 0.7), (1, -0.7)):
        mine = sample[index == number].numpy()
        assert np.corrcoef(mine[:, 0], mine[:, 1])[0, 1] == pytest.approx(wanted, abs=0.05)
        assert np.isfinite(mine[:, 2]).mean() == pytest.approx(1 / 7, abs=0.02)
        assert np.isfinite(mine[:, :2]).all()
    assert (sample[index == 1, 0] > 1).float().mean() > 0.99 > (sample[index == 0, 0] > 1).float().mean()


def test_only_one_class_is_drawn_when_it_is_named():
    classes, values = population_of()
    index, sample = joint(classes, values, only=1).draw(range(500))
    assert set(index.tolist()) == {1} and sample[:, 0].mean() > 4


def test_a_galaxy_is_a_function_of_its_seed():
    both = joint(*population_of())
    index, sample = both.draw(range(1000))
    again = joint(*population_of())
    for rows in (range(1000), range(999, -1, -1), range(500, 501), range(3, 1000, 7)):
        some, values = again.draw(list(rows))
        assert torch.equal(some, index[list(rows)])
        assert values.numpy().tobytes() == sample[list(rows)].numpy().tobytes()
    assert not torch.equal(both.draw(range(1000, 2000))[1][:, 0], sample[:, 0])


def test_what_is_drawn_is_like_real_galaxies():
    rng = np.random.default_rng(4)
    angle = rng.uniform(0, 2 * np.pi, 4000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.normal(1, 0.05, (4000, 1))  # which no copula knows
    some = joint(np.zeros(4000, int), ring)
    index, sample = some.draw(range(3000))
    assert (some.population.support(index, sample).verdicts == 0).all()
    assert np.hypot(*sample.numpy().T).min() > 0.6
    plain = GaussianCopula.fit(ring).draw(np.random.default_rng(0).standard_normal((3000, 2)))
    assert np.hypot(*plain.T).min() < 0.2


def test_where_no_draw_is_like_real_galaxies_the_real_one_stands_in(monkeypatch):
    classes, values = population_of(300)
    some = joint(classes, values)
    monkeypatch.setattr("galaxies.datasets.copula._MOST_DRAWS", 0)
    index, sample = some.draw(range(200))
    real = {
        (c, *row)
        for c, row in zip(classes.tolist(), np.nan_to_num(values).astype(np.float32).tolist(), strict=True)
        for row in [tuple(row)]
    }
    assert {(c, *row) for c, row in zip(index.tolist(), sample.nan_to_num().tolist(), strict=True)} <= real


def test_galaxies_that_know_the_same_are_fitted_by_themselves_where_there_are_enough():
    numbers = normal(4000, np.eye(3))
    far = np.arange(4000) % 4 == 0
    numbers[far, 0] += 20  # those of known redshift are large
    numbers[~far, 2] = math.nan
    _, sample = joint(np.zeros(4000, int), numbers).draw(range(4000))
    has_redshift = sample[:, 2].isfinite()
    assert (sample[has_redshift, 0] > 10).all() and (sample[~has_redshift, 0] < 10).all()


@pytest.mark.parametrize("only", [None, 2])
def test_nothing_to_draw_from_is_said(only):
    classes, values = population_of(30) if only == 2 else (np.zeros(0, int), np.zeros((0, 3)))
    with pytest.raises(UserError, match="knows no real " + ("merger galaxy" if only else "galaxy") + ", by which"):
        joint(classes, values, only)
