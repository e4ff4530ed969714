"""Which requests are like real galaxies: known densities, few galaxies, values that are unknown or rounded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.stats import median_abs_deviation

from config_physics import attribute_table
from galaxies.common.attributes import attribute_defined
from galaxies.datasets import population as module
from galaxies.datasets.population import VERDICTS, Population
from galaxies.storage.release import load_state
from tests.conftest import ROOT

UNSET = math.nan


def of_one_class(values) -> Population:
    values = torch.as_tensor(np.asarray(values), dtype=torch.float32)
    return Population(torch.zeros(len(values), dtype=torch.int64), values)


def verdicts(population: Population, *wanted, index: int = 0) -> list[str]:
    values = torch.tensor(np.array(wanted), dtype=torch.float32)
    found = population.support(torch.full((len(values),), index), values)
    return [VERDICTS[number] for number in found.verdicts]


def shares(population: Population, values) -> list[float]:
    values = torch.as_tensor(values, dtype=torch.float32)
    found = population.support(torch.zeros(len(values), dtype=torch.int64), values).verdicts
    return (found.bincount(minlength=3) / len(values)).tolist()


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [300, 3000])
def test_of_new_galaxies_98_percent_are_like_real_ones(dimensions, count):
    rng = np.random.default_rng([dimensions, count])
    mixing = rng.normal(size=(dimensions, dimensions)) + 2 * np.eye(dimensions)
    like, unusual, invented = shares(
        of_one_class(rng.normal(size=(count, dimensions)) @ mixing), rng.normal(size=(4000, dimensions)) @ mixing
    )
    assert like == pytest.approx(0.98, abs=0.02 if count == 300 else 0.012)
    assert unusual > 0 and invented < (0.02 if count == 300 else 0.008)


def test_a_gaussian_is_like_real_galaxies_up_to_its_contour():
    """In two dimensions a part 1 - exp(-r^2 / 2) lies within r standard deviations: 98 % within 2.797."""
    population = of_one_class(np.random.default_rng(0).normal(size=(4000, 2)) * [1, 30] + [5, -2])
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], 1)
    part = {r: shares(population, r * circle * [1, 30] + [5, -2]) for r in (1.5, 2.3, 3.6, 6.0)}
    assert part[1.5] == [1, 0, 0] and part[2.3][0] > 0.95
    assert part[3.6][0] < 0.1 and part[6.0] == [0, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_one_attribute_alone_agrees_with_its_supported_range(seed):
    """For a density with one peak that is the same on both sides both are the central 98 %."""
    population = of_one_class(0.3 + 0.1 * np.random.default_rng(seed).normal(size=(3000, 1)))
    low, high = population.supported_range(0, 0)
    inside = np.linspace(low + 0.045, high - 0.045, 200)
    assert set(verdicts(population, *inside[:, None])) == {"like"}
    beyond = np.concatenate([np.linspace(low - 0.3, low - 0.1, 20), np.linspace(high + 0.1, high + 0.3, 20)])
    assert "like" not in verdicts(population, *beyond[:, None])
    assert verdicts(population, [low - 0.3], [high + 0.3]) == ["invented"] * 2


def ring(count: int, far: int = 0) -> Population:
    rng = np.random.default_rng(4)
    radius, turn = 1 + 0.08 * rng.normal(size=count), rng.uniform(0, 2 * np.pi, count)
    values = np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)
    values[:far] *= 1e3  # a slip in a catalogue
    return of_one_class(values)


@pytest.mark.parametrize("count, far", [(3000, 0), (400, 0), (400, 4)])
def test_the_middle_of_a_ring_is_invented_though_each_attribute_alone_is_supported(count, far):
    population = ring(count, far)
    if not far:
        assert all(low < 0 < high for low, high in (population.supported_range(0, k) for k in (0, 1)))
    assert verdicts(population, [0, 0], [0, UNSET], [UNSET, 0]) == ["invented", "like", "like"]
    assert verdicts(population, [1, 0], [-0.7, 0.7], [0, -1]) == ["like"] * 3
    assert "like" not in verdicts(population, [0.5, 0], [1.5, 0], [1, 1])


def test_distances_are_those_of_other_programs():
    rng = np.random.default_rng(5)
    values = (rng.gamma(2, size=(500, 3)) * [0.1, 5, 1e-3]).astype(np.float32)
    population = of_one_class(values)
    wanted = (rng.gamma(2, size=(300, 3)) * [0.1, 5, 1e-3]).astype(np.float32)
    found = population.support(torch.zeros(300, dtype=torch.int64), torch.from_numpy(wanted))
    spread = median_abs_deviation(values.astype(np.float64), scale="normal")
    tree = cKDTree(values / spread)
    among = tree.query(values / spread, 6)[0]
    nearest = tree.query(wanted / spread, 5)[0]
    usual = np.quantile(among[:, 1], 0.98)
    np.testing.assert_allclose(found.nearest, nearest[:, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.usual, usual, rtol=1e-4)
    is_like = nearest[:, 4] <= np.quantile(among[:, 5], 0.98)
    is_invented = nearest[:, 0] > max(np.quantile(among[:, 1], 0.99), 0.25 * (1 + 30 / 500) * 3**0.5)
    expected = np.where(is_like, 0, np.where(is_invented, 2, 1))
    assert (found.verdicts.numpy() == expected).all() and set(expected) == {0, 1, 2}


def test_no_real_galaxy_is_invented():
    rng = np.random.default_rng(6)
    values = rng.standard_t(1.5, size=(1000, 3))  # with far outliers
    like, _, invented = shares(of_one_class(values), values)
    assert like >= 0.98 and invented == 0


def test_the_request_that_each_attribute_alone_supports_but_no_spiral_has():
    """Size 0.25, brightness 0.47 and ellipticity 0.66: 1.8 standard deviations from the nearest spiral."""
    state = load_state(ROOT / "checkpoints/released/gan/generator.safetensors")
    population = Population(state["population"]["classes"], state["population"]["values"])
    spirals = torch.tensor([0, 0])
    found = population.support(spirals, torch.tensor([[0.25, 0.47, 0.66, UNSET], [0.14, 0.3, 0.3, UNSET]]))
    assert [VERDICTS[number] for number in found.verdicts] == ["invented", "like"]
    assert found.nearest[0] == pytest.approx(1.75, abs=0.01) and found.usual[0] == pytest.approx(0.62, abs=0.01)
    assert found.nearest[1] < found.usual[1]
    set_alone = torch.where(torch.tensor([True, True, True, False]), population.values, UNSET)
    part = population.support(population.classes, set_alone).verdicts.bincount(minlength=3) / len(set_alone)
    assert part[0] > 0.97 and part[2] == 0


def test_few_galaxies():
    wanted = ([0.3, 5.0], [0.301, 5.0], [3.0, 50.0], [UNSET, UNSET])
    none = Population(torch.ones(3, dtype=torch.int64), torch.rand(3, 2))
    assert verdicts(none, *wanted) == ["invented"] * 4
    assert none.support(torch.zeros(1, dtype=torch.int64), torch.rand(1, 2)).nearest.isinf().all()
    one = Population(torch.tensor([0, 1, 1, 1]), torch.tensor([[0.3, 5.0], [0.2, 1.0], [0.5, 9.0], [0.4, 4.0]]))
    assert verdicts(one, *wanted) == ["like", "unusual", "invented", "like"]
    for count in (2, 3, 8, 25):
        some = of_one_class(np.random.default_rng(count).normal(size=(count, 2)) * [0.1, 1] + [0.3, 5])
        assert verdicts(some, *some.values.tolist()) == ["like"] * count
        assert verdicts(some, [3.0, 50.0], [UNSET, UNSET]) == ["invented", "like"]


def test_few_galaxies_say_less_of_what_is_far():
    beyond = 1 + 0.5 * 1.4826 * 0.25  # half a spread beyond the last one
    assert verdicts(of_one_class(np.linspace(0, 1, 10)[:, None]), [beyond]) == ["unusual"]
    assert verdicts(of_one_class(np.linspace(0, 1, 300)[:, None]), [beyond]) == ["invented"]


def test_what_is_far_is_counted_in_each_attribute():
    side = np.linspace(0, 1, 30)
    population = of_one_class(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2))
    beyond = 1 + 0.23 * 1.4826 * 0.25  # in either attribute less than a quarter of the spread, together more
    assert verdicts(population, [beyond, beyond], [1 + 0.2, 1 + 0.2]) == ["unusual", "invented"]


def test_galaxies_with_unknown_values_count_where_what_is_set_is_known():
    rng = np.random.default_rng(7)
    values = rng.normal(size=(600, 3))
    values[:, 2] += 10
    values[40:, 2] = UNSET  # known for few
    population = of_one_class(values)
    known = of_one_class(values[:40])
    wanted = torch.from_numpy(rng.normal(size=(50, 3))).float() + torch.tensor([0, 0, 10.0])
    both = [p.support(torch.zeros(50, dtype=torch.int64), wanted).nearest for p in (population, known)]
    assert ((both[0] / both[1] - 1).abs() < 0.5).all()  # of the same galaxies, in the spread of all or of those few
    assert verdicts(population, [0, 0, UNSET], [9, 0, UNSET], [0, 0, 10], [0, 0, 30]) == [
        "like", "invented", "like", "invented",
    ]  # fmt: skip


def test_attributes_that_are_never_known_together_or_at_all():
    rng = np.random.default_rng(8)
    values = rng.normal(size=(300, 3))
    values[:250, 1] = UNSET
    values[250:, 0] = UNSET
    values[:, 2] = UNSET
    population = of_one_class(values)
    # The one that more galaxies know decides.
    assert verdicts(population, [0, 0, UNSET], [0, 99, UNSET], [99, 0, UNSET]) == ["like", "like", "invented"]
    assert verdicts(population, [0, UNSET, 0], [UNSET, UNSET, 0]) == ["invented"] * 2


def test_rounded_and_equal_values():
    rounded = of_one_class(np.random.default_rng(9).normal(size=(3000, 1)).round(1) / 10)
    assert verdicts(rounded, [0.0], [0.002], [0.005], [0.104], [0.3], [0.9]) == ["like"] * 4 + ["unusual", "invented"]
    equal = of_one_class(np.full((200, 2), [0.3, 7]))
    assert verdicts(equal, [0.3, 7], [0.3, UNSET], [0.31, 7], [0.3, 5000]) == ["like", "like", "unusual", "invented"]


def test_many_requests_are_judged_as_each_alone():
    rng = np.random.default_rng(10)
    population = Population(
        torch.from_numpy(rng.integers(0, 3, 900)), torch.from_numpy(rng.normal(size=(900, 3))).float()
    )
    values = torch.from_numpy(rng.normal(size=(200, 3)) * 2).float()
    values[torch.from_numpy(rng.random((200, 3)) < 0.4)] = UNSET
    values[50:60] = values[:10]
    classes = torch.from_numpy(rng.integers(0, 4, 200))
    classes[50:60] = classes[:10]
    together = population.support(classes, values)
    fresh = Population(population.classes, population.values)
    for k in range(200):
        alone = fresh.support(classes[k : k + 1], values[k : k + 1])
        assert alone.verdicts[0] == together.verdicts[k] and alone.usual[0] == together.usual[k]
        assert alone.nearest[0] == pytest.approx(float(together.nearest[k]), rel=1e-6)
    assert population.support(classes[:0], values[:0]).verdicts.shape == (0,)


def test_a_large_population_costs_no_more_than_a_part_of_it(monkeypatch):
    population = of_one_class(np.random.default_rng(11).normal(size=(20_000, 2)))
    assert shares(population, np.random.default_rng(12).normal(size=(2000, 2)))[0] == pytest.approx(0.98, abs=0.012)
    ((_, kept),) = population._kept.items()
    assert kept.points.shape == (2, module._MOST_NEIGHBOURS)
    monkeypatch.setattr(module, "_MOST_SUBSETS", 4)
    verdicts(population, [0, UNSET], [UNSET, 0])
    assert [columns for _, columns in population._kept] == [(0, 1), (1,), (0,)]
    monkeypatch.setattr(module, "_MOST_SUBSETS", 2)
    verdicts(population, [0, UNSET], [UNSET, 0], [UNSET, UNSET], [0, 0])
    assert len(population._kept) == 2


def test_the_verdicts_are_those_that_are_described():
    from galaxies.serving import answers

    assert answers.VERDICTS == VERDICTS


# What requests are filled from


def test_what_resembles_a_request_is_told_on_the_scale_of_the_attribute():
    """By values, all below 10 would be as near to 0.01, and the size alone would decide."""
    table = attribute_table(["sfr", "size", "redshift"], [attribute_defined("sfr:scale=log,low=1e-4,high=1e4")])
    rng = np.random.default_rng(2)
    decades, sizes = rng.uniform(-4, 4, 2000), rng.uniform(0, 1, 2000)
    values = torch.from_numpy(np.stack([10**decades, sizes, np.arange(2000)], 1)).float()
    some = Population(torch.zeros(2000, dtype=torch.int64), values, table)
    asked = torch.tensor([[0.01, 0.5, UNSET]]).repeat(400, 1)
    drawn = some.draw(torch.zeros(400, dtype=torch.int64), asked, range(400))
    chosen = np.unique(drawn[:, 2].long().numpy())
    # The nearest 40 of 2000: a fiftieth of an even field of 8 decades and 1, whose spreads are a root of 12 smaller.
    away = np.hypot((decades - np.log10(0.01)) / decades.std(), (sizes - 0.5) / sizes.std())
    assert len(chosen) == 40 and set(chosen) == set(np.argsort(away)[:40])
    assert torch.equal(drawn[:, :2], asked[:, :2])
