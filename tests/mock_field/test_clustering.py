"""Clusters of galaxies: their number, their two-point function, and that cells know nothing of who asks for them."""

import math
from itertools import pairwise

import numpy as np
import pytest

import observe
from galaxies.common.errors import UserError
from galaxies.mock_field import clustering
from galaxies.mock_field.clustering import SLOPE, Clusters, usual_amplitude
from galaxies.mock_field.field_folder import MockField

WORDS = "field --survey LSST --bands i --area 0.3 --faintest 22.5 --seed 2"
SIDE = 240.0  # arcseconds of a cell


def sky(clusters, seed, cells, side=SIDE):
    return np.concatenate(
        [
            clusters.places(seed, (row, column), side, np.random.default_rng([seed, row, column]))
            for row in range(cells)
            for column in range(cells)
        ]
    )


def test_the_sum_of_gaussians_is_the_power_law_that_is_asked_for():
    angle = np.array([2.0, 5.0, 10.0, 30.0, 60.0])
    wanted = 0.3 * (angle / 60) ** -SLOPE
    assert Clusters(0.3, 100.0).two_point(angle) == pytest.approx(wanted, rel=0.1)
    assert Clusters(0.3, 100.0).two_point(np.array([120.0])) == pytest.approx(0.3 * 2**-SLOPE, rel=0.15)
    # The example of the reference: galaxies of 21.5 have w = 1 at one arcsecond.
    assert usual_amplitude(21.5) == pytest.approx(60**-0.7)
    assert usual_amplitude(24.0) / usual_amplitude(21.5) == pytest.approx(10 ** (-0.7))


def test_galaxies_have_the_two_point_function_and_the_number_that_are_asked_for():
    from scipy.spatial import cKDTree

    clusters, cells, seeds = Clusters(0.2, 25.0), 3, range(10)
    edges = np.array([1.5, 4.0, 10.0, 25.0, 60.0, 150.0])
    width = cells * SIDE
    # Of two places at random in a square of side 1, the distance r < 1 has the density 2 r (pi - 4 r + r^2).
    r = edges / width
    by_chance = np.diff(math.pi * r**2 - 8 / 3 * r**3 + r**4 / 2)
    pairs, numbers = [], []
    for seed in seeds:
        places = sky(clusters, seed, cells)
        assert places.min() >= 0 and places.max() < width
        pairs.append(np.diff(cKDTree(places).count_neighbors(cKDTree(places), edges)) / 2)
        numbers.append(len(places))
    pairs, numbers = np.array(pairs), np.array(numbers)
    found = pairs.sum(0) / (numbers * (numbers - 1) / 2).sum() / by_chance
    left_out = [np.delete(np.arange(len(seeds)), k) for k in seeds]
    some = [pairs[k].sum(0) / (numbers[k] * (numbers[k] - 1) / 2).sum() / by_chance for k in left_out]
    error = np.sqrt((len(seeds) - 1) * np.var(some, 0))  # jackknife
    # A square has more galaxies than are expected where there are more pairs: the integral constraint.
    ends = np.random.default_rng(0).random((2, 100_000, 2)) * width
    constraint = clusters.two_point(np.hypot(*(ends[0] - ends[1]).T)).mean()
    rings = [np.linspace(low, high, 400) for low, high in pairwise(edges)]
    wanted = np.array([np.average(clusters.two_point(ring), weights=ring) for ring in rings])
    wanted = (1 + wanted) / (1 + constraint)
    assert (np.abs(found - wanted) < 3.5 * error + 0.01).all(), (found, wanted, error)
    assert (error < 0.25 * (wanted - 1))[:3].all()  # else this says nothing
    expected = clusters.per_arcmin2 * (width / 60) ** 2
    spread = np.std(numbers, ddof=1)
    assert abs(np.mean(numbers) - expected) < 3.5 * spread / math.sqrt(len(seeds))
    assert spread > 3 * math.sqrt(expected)  # more than of galaxies at random


def test_clusters_go_on_beyond_a_cell_s_edge_and_do_not_depend_on_who_asks():
    clusters, near = Clusters(1.0, 40.0), 8.0
    across = by_chance = 0.0
    for seed in range(12):
        left, right = (clusters.places(seed, (0, k), SIDE, np.random.default_rng([seed, k])) for k in (0, 1))
        left, right = left[left[:, 0] > SIDE - near], right[right[:, 0] < SIDE + near]
        apart = np.abs(left[:, None, 1] - right[None, :, 1])
        across += (apart < near).sum()
        by_chance += apart.size * 2 * near / SIDE
    assert across > 1.5 * by_chance > 100
    first = clusters.places(1, (2, 3), SIDE, np.random.default_rng(7))
    clusters.places(5, (0, 0), SIDE, np.random.default_rng(0))
    assert np.array_equal(first, clusters.places(1, (2, 3), SIDE, np.random.default_rng(7)))
    wide = clustering._centres(1, 9, 1e-4, 256.0, np.array([100.0, 100.0]), np.array([300.0, 300.0]))
    narrow = clustering._centres(1, 9, 1e-4, 256.0, np.array([200.0, 200.0]), np.array([210.0, 210.0]))
    there = {tuple(p) for p in narrow.tolist()}
    assert there <= {tuple(p) for p in wide.tolist()}
    # A cluster five standard deviations away has a galaxy in a million here.
    near = wide[(np.abs(wide - 205) < 4.9 * 256).all(1)]
    assert len(near) > 100 and {tuple(p) for p in near.tolist()} <= there


def test_a_field_has_them_and_says_so(tmp_path):
    words = f"{WORDS} --clustering simple --clustering-amplitude 5 --out {tmp_path / 'one'}"
    observe.main(words.split())
    field = MockField(tmp_path / "one")
    assert any("w = 5 (angle / 1 arcminute)^-0.7" in remark for remark in field.facts.remarks)
    truth = field.truth()
    assert ((truth["x"] > -0.5) & (truth["x"] < field.facts.width_px)).all()
    with pytest.raises(UserError, match="--clustering-amplitude is of --clustering simple"):
        observe.main(f"{WORDS} --clustering-amplitude 5 --out {tmp_path / 'two'}".split())
