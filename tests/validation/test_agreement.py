"""Requested against measured: known agreements, requests, the shuffled control and the gaming gap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from config_physics import Config
from galaxies.compute.device import Engine
from galaxies.datasets.population import Population
from galaxies.generation.requests import requests_like_test, uniform_requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.validation.agreement import (
    agreement,
    agreement_by_class,
    agreement_terms,
    class_accuracy,
    gaming_gap,
    shuffled_control,
    unsupported_share,
)
from galaxies.validation.report.cells import LeftOut


@pytest.fixture
def sampler(data):
    config = Config(attributes=("size", "redshift"))
    rows = data.rows("train")
    classes = torch.from_numpy(data.classes(rows))
    population = Population(classes, torch.from_numpy(data.attributes(config.attributes, rows)))
    return GalaxySampler(torch.nn.Identity(), config, population, Engine(torch.device("cpu"), False))


def test_agreement_of_known_pairs():
    requested = np.linspace(0, 1, 101)
    mae, bias, r2, spearman = agreement_terms(requested, requested + 0.1)
    assert (mae, bias, spearman) == pytest.approx((0.1, 0.1, 1.0))
    assert r2 == pytest.approx(1 - 0.01 / requested.var())
    assert agreement_terms(requested, requested**3)[3] == pytest.approx(1)
    assert agreement_terms(requested, -requested)[3] == pytest.approx(-1)
    constant = agreement_terms(requested, np.full(101, requested.mean()))
    assert constant[2] == pytest.approx(0) and np.isnan(constant[3])


def test_spearman_with_ties_is_that_of_scipy():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, 60).astype(float), rng.integers(0, 7, 60).astype(float)
    assert agreement_terms(one, other)[3] == pytest.approx(spearmanr(one, other).statistic)


def test_agreement_leaves_unknown_pairs_out_and_has_intervals():
    rng = np.random.default_rng(0)
    requested = rng.uniform(size=200)
    measured = requested + rng.normal(0, 0.1, 200)
    requested[:50], measured[50:60] = np.nan, np.nan
    cell = agreement(requested, measured, 0)
    assert cell.pairs == 140
    for term in ("mae", "bias", "r2", "spearman"):
        low, high = getattr(cell, term).interval
        assert low < getattr(cell, term).value < high
    assert agreement(requested[:60], measured[:60], 0) == LeftOut("needs 20 pairs of values, has 0")
    groups = agreement_by_class(requested, measured, np.arange(200) % 2, 0)
    assert groups["spiral"].pairs + groups["elliptical"].pairs == 140
    assert isinstance(groups["merger"], LeftOut)


def test_shuffled_requests_show_no_skill_however_well_the_true_ones_are_met():
    requested = np.random.default_rng(0).uniform(size=300)
    cell = shuffled_control(requested, requested, 0)
    assert cell.observed == pytest.approx(1)
    assert abs(cell.spearman) < 0.02 and cell.r2 < -0.5
    assert cell.no_skill is True
    low, high = cell.spearman_range
    assert -0.2 < low < 0 < high < 0.2
    assert "all equal" in shuffled_control(requested, np.ones(300), 0).reason
    assert "has 3" in shuffled_control(requested[:3], requested[:3], 0).reason


def test_class_accuracy_and_confusion():
    classes = np.array([0] * 60 + [1] * 20)
    judged = np.array([0] * 45 + [2] * 15 + [1] * 20)
    report = class_accuracy(torch.eye(4)[judged], classes, 0)
    assert report.groups["all"].value == pytest.approx(65 / 80)
    assert report.groups["spiral"].value == 0.75 and report.groups["elliptical"].value == 1
    assert report.balanced.value == pytest.approx(0.875)
    assert report.groups["merger"] == LeftOut("no image")
    assert report.confusion[0] == [0.75, 0, 0.25, 0] and report.confusion[3] == [0, 0, 0, 0]


def test_gaming_gap():
    requested = np.linspace(0, 1, 50)
    real = {"truth": requested, "judged": requested + 0.2, "predicted": requested - 0.1}
    gap = gaming_gap(requested, requested + 0.3, requested + 0.05, real)
    assert gap.ratio == pytest.approx(6) and gap.real_ratio == pytest.approx(2)
    assert gap.judge_mae == pytest.approx(0.3)
    unknown = {**real, "truth": np.full(50, np.nan)}
    assert gaming_gap(requested, requested, requested + 1, unknown).real_ratio is None
    assert "has 0" in gaming_gap(np.full(50, np.nan), requested, requested, real).reason


def test_requests_like_the_test_split_hold_each_galaxy_as_often(data):
    rows = data.rows("test")
    requests = requests_like_test(data, ("size", "redshift"), 3 * len(rows), 5)
    counts = np.bincount(requests.classes, minlength=4)
    assert counts.tolist() == (3 * np.bincount(data.classes(rows), minlength=4)).tolist()
    sizes, times = np.unique(requests.values[:, 0].numpy(), return_counts=True)
    assert len(sizes) == len(rows) and set(times) == {3}
    known = np.isfinite(data.attributes(("redshift",), rows))
    assert requests.values[:, 1].isfinite().sum() == 3 * known.sum()
    assert len(set(requests.seeds)) == len(requests)


def test_uniform_requests_are_supported_balanced_and_uncorrelated(sampler):
    requests = uniform_requests(sampler, 800, 5)
    assert np.bincount(requests.classes).tolist() == [200] * 4
    assert unsupported_share(sampler, requests) == 0
    for index in range(4):
        values = requests.values[requests.classes == index]
        low, high = sampler.supported[index][0]
        assert values[:, 0].min() - low < 0.05 * (high - low) and high - values[:, 0].max() < 0.05 * (high - low)
        assert abs(np.corrcoef(values.numpy().T)[0, 1]) < 0.25
    again = uniform_requests(sampler, 800, 5)
    assert torch.equal(requests.values, again.values) and requests.seeds == again.seeds
    beyond = type(requests)(requests.classes, requests.values + 10, requests.seeds)
    assert unsupported_share(sampler, beyond) == 1


def test_uniform_requests_are_uniform_on_the_scale_of_each_attribute(sampler):
    lit = dataclasses.replace(sampler.attributes[0], scale="log", low=1e-3, high=1e3)

    class Lit:
        config, population = sampler.config, sampler.population
        attributes = (lit,)
        supported = tuple((((1e-2, 1e2),)) for _ in sampler.supported)

    values = uniform_requests(Lit, 800, 5).values[:, 0].numpy()
    # A quarter in each decade from 1e-2 to 1e2; uniform in value, 99 of 100 were above 1.
    assert np.histogram(np.log10(values), [-2, -1, 0, 1, 2])[0] / 800 == pytest.approx([0.25] * 4, abs=0.06)


def test_r2_on_a_scale_is_that_of_what_is_on_it():
    requested = np.array([0.01, 0.1, 1.0, 10.0, 100.0])
    measured = requested * np.array([10, 1, 1, 1, 0.1])  # of the logarithms -2 to 2 the ends are off by 1
    mae, bias, r2, spearman = agreement_terms(requested, measured, np.log10)
    assert r2 == pytest.approx(1 - (2 / 5) / 2)
    plain = agreement_terms(requested, measured)
    assert (mae, bias, spearman) == (plain[0], plain[1], plain[3]) and plain[2] < 0.1
    found = agreement(np.tile(requested, 8), np.tile(measured, 8), 0, np.log10)
    assert found.r2.value == pytest.approx(r2) and found.mean_squared_error == pytest.approx(2 / 5)
