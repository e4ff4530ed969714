"""The pairs of mock and real galaxies that classifiers learn from, and the regression on their statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from config_physics import MORPHOLOGY_NAMES
from studies.mock_or_real import halves, pair_up, tell_apart_by_statistics


def test_pairs_are_balanced_and_split_by_object():
    rng = np.random.default_rng(0)
    mock_ids, real_ids = [f"m{k}" for k in range(300)], [f"r{k // 2}" for k in range(200)]
    mock_classes, real_classes = rng.integers(0, 4, 300), rng.integers(0, 4, 200)
    pairs = pair_up(mock_ids, mock_classes, real_ids, real_classes, 0)
    sides = []
    for side in (pairs.train, pairs.test):
        for index, (mock, real) in enumerate(side):
            assert len(mock) == len(real) > 0
            assert set(mock_classes[mock]) == set(real_classes[real]) == {index}
        rows = np.concatenate([real for _, real in side])
        assert len(set(rows)) == len(rows)
        sides.append({real_ids[row] for row in rows})
    assert not sides[0] & sides[1]
    assert 0.2 < len(sides[1]) / (len(sides[0]) + len(sides[1])) < 0.45


def test_halves_of_a_sample_share_no_galaxy():
    classes = np.random.default_rng(0).integers(0, 4, 200)
    pairs = halves([str(k) for k in range(200)], classes, 0)
    rows = np.concatenate([rows for side in (pairs.train, pairs.test) for pair in side for rows in pair])
    assert len(set(rows)) == len(rows)
    assert all(set(classes[mock]) == set(classes[real]) for side in (pairs.train, pairs.test) for mock, real in side)


@pytest.mark.parametrize("change", ["shift", "spread"])
def test_the_regression_names_the_statistic_that_differs(change):
    rng = np.random.default_rng(0)
    classes, ids = np.arange(800) % 4, [str(k) for k in range(800)]
    mock, real = ({name: rng.normal(0, 1, 800) for name in ("one", "two", "three")} for _ in range(2))
    mock["two"] = mock["two"] + 1.5 if change == "shift" else mock["two"] * 0.3
    mock["three"][::7] = np.nan
    pairs = pair_up([f"m{k}" for k in ids], classes, ids, classes, 0)
    rates, telling = tell_apart_by_statistics(mock, real, classes, pairs, 0)
    assert set(rates) == set(telling) == {*MORPHOLOGY_NAMES, "all"}
    assert rates["all"]["auc"] > 0.75
    assert next(iter(telling["all"])) == "two"
    assert telling["all"]["two"] > 0.2
    assert abs(telling["all"]["one"]) < 0.05


@pytest.mark.parametrize("distance", [0.0, 0.5, 1.5])
def test_two_normal_distributions_are_told_apart_as_well_as_they_can_be(distance):
    rng = np.random.default_rng(0)
    classes, ids = np.arange(8000) % 4, [str(k) for k in range(8000)]
    mock, real = ({name: rng.normal(0, 1, 8000) for name in ("one", "two")} for _ in range(2))
    mock["one"], mock["two"] = mock["one"] + 0.6 * distance, mock["two"] - 0.8 * distance
    pairs = pair_up([f"m{k}" for k in ids], classes, ids, classes, 0)
    rates, _ = tell_apart_by_statistics(mock, real, classes, pairs, 0)
    # Means that are d standard deviations apart: no score does better than Phi(d / sqrt(2)), which is 0.5 for d = 0.
    best = 0.5 * (1 + math.erf(distance / 2))
    assert rates["all"]["auc"] == pytest.approx(best, abs=0.015)  # about 2,700 pairs: a standard error of 0.007
    assert rates["all"]["accuracy"] == pytest.approx(0.5 * (1 + math.erf(distance / 8**0.5)), abs=0.03)
