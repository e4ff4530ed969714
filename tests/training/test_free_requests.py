"""Requests that no real galaxy of the batch stands beside."""

from __future__ import annotations

import pytest
import torch

from config_physics import Config
from galaxies.datasets.batches import Batch
from galaxies.datasets.conditions import condition_vector, take_apart
from galaxies.training.free_requests import FreeRequests
from tests.training.test_gan_learner import trainer_of, watch

CONFIG = Config(attributes=("size", "redshift"), free_requests=0.25)
COUNT = 4000


@pytest.fixture(scope="module")
def galaxies():
    """Ellipticals of small sizes, spirals of large ones; redshifts of a fifth of the spirals alone."""
    random = torch.Generator().manual_seed(1)
    classes = torch.arange(COUNT) % 2
    size = 0.05 + 0.23 * (0.1 + 0.3 * torch.rand(COUNT, generator=random) + 0.5 * (classes == 0))
    redshift = 0.25 * torch.rand(COUNT, generator=random) ** 2
    redshift[(classes == 1) | (torch.rand(COUNT, generator=random) < 0.8)] = torch.nan
    return Batch(torch.zeros(COUNT, 1), classes, *condition_vector(classes, torch.stack([size, redshift], 1), CONFIG))


def asked_of(galaxies, **settings):
    config = Config(**{"attributes": CONFIG.attributes, "free_requests": 0.25, **settings})
    requests = FreeRequests.of(galaxies.classes, galaxies.scaled, galaxies.known, config)
    draws = torch.rand(COUNT, requests.num_draws, generator=torch.Generator().manual_seed(2))
    return *requests.ask(galaxies, draws), draws[:, 0] < config.free_requests


def test_as_many_are_free_as_were_asked_for_and_the_others_stay_as_they_are(galaxies):
    asked, told, free = asked_of(galaxies)
    assert free.float().mean() == pytest.approx(0.25, abs=0.03)
    for before, after in ((galaxies.condition, asked.condition), (galaxies.condition, told)):
        assert torch.equal(before[~free], after[~free])
    assert asked.images is galaxies.images and torch.equal(asked.classes, galaxies.classes)
    # Two attributes: of one that every galaxy of the class knows, half of the free requests have another value.
    changed = asked.scaled[:, 0] != galaxies.scaled[:, 0]
    assert changed[free].float().mean() == pytest.approx(0.5, abs=0.05)
    for share in (0.0, 0.9):
        assert asked_of(galaxies, free_requests=share)[2].float().mean() == pytest.approx(share, abs=0.03)


def test_the_discriminator_is_told_the_class_of_a_free_request_alone(galaxies):
    asked, told, free = asked_of(galaxies)
    parts = take_apart(told[free], CONFIG)
    assert (parts.scaled == 0).all() and (parts.flags == 0).all()
    assert torch.equal(parts.one_hot, take_apart(galaxies.condition[free], CONFIG).one_hot)
    parts = take_apart(asked.condition, CONFIG)
    assert torch.equal(parts.scaled, asked.scaled) and torch.equal(parts.flags, asked.known)


def test_values_are_those_of_the_class(galaxies):
    asked, _, free = asked_of(galaxies)
    for index in (0, 1):
        own = galaxies.scaled[galaxies.classes == index, 0]
        made = asked.scaled[free & (galaxies.classes == index), 0]
        low, high = torch.quantile(own, torch.tensor([0.01, 0.99]))
        kept = torch.isin(made, own)
        assert (made[~kept] >= low - 1e-6).all() and (made[~kept] <= high + 1e-6).all()
        # Both ends are reached.
        assert made[~kept].min() < torch.quantile(own, 0.05) and made[~kept].max() > torch.quantile(own, 0.95)
    # No elliptical knows a redshift, so that none is asked for one.
    assert (asked.known[galaxies.classes == 1, 1] == 0).all() and (asked.scaled[galaxies.classes == 1, 1] == 0).all()
    spirals = free & (galaxies.classes == 0)
    # A fifth knew it; of the rest half are given one.
    assert asked.known[spirals, 1].mean() == pytest.approx(0.2 + 0.8 / 2, abs=0.06)


def test_half_are_as_galaxies_have_them_and_half_even(galaxies):
    """Redshifts are the squares of even numbers: half of those are below a quarter of the range, of even ones 1/4."""
    asked, _, free = asked_of(galaxies, free_requests=0.9)
    given = free & (asked.known[:, 1] > 0) & (galaxies.known[:, 1] == 0)
    assert (asked.scaled[given, 1] < 0.25).float().mean() == pytest.approx((0.5 + 0.25) / 2, abs=0.05)


def test_attributes_are_drawn_by_themselves(galaxies):
    asked, _, free = asked_of(galaxies, free_requests=0.9)
    both = free & (asked.known[:, 1] > 0) & (asked.scaled != galaxies.scaled).all(1)
    assert both.sum() > 200
    assert torch.corrcoef(asked.scaled[both].T)[0, 1].abs() < 0.15


def test_both_networks_learn_from_them(data, tmp_path, monkeypatch):
    trainer = trainer_of(data, tmp_path, free_requests=0.5, learning_rate=0.0)
    learner, drawn = trainer.learner, []
    draw = learner.generator.forward
    monkeypatch.setattr(learner.generator, "forward", lambda z, c: (drawn.append(c.clone()), draw(z, c))[1])
    seen = watch(monkeypatch, learner)
    batch = trainer.batches.next_batch()
    learner.step(batch, learner.variant("generator", 1))
    (asked,) = drawn
    flags = take_apart(asked, trainer.config).flags
    for _, told in seen:
        free = take_apart(told, trainer.config).flags.sum(1) == 0
        assert 0 < free.sum() < len(told)
        assert torch.equal(told[~free], asked[~free])
        assert (flags[free].sum(1) > 0).all()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_run_goes_on_with_the_same_requests(data, tmp_path, share):
    one, other = (trainer_of(data, tmp_path / name, free_requests=share) for name in ("one", "other"))
    other.learner.load_state_dict({**one.learner.state_dict(), "step": 0})
    batch = one.batches.next_batch()
    found = [learner._asked(batch) for learner in (one.learner, other.learner)]
    assert torch.equal(found[0][0].condition, found[1][0].condition) and torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][0].condition, batch.condition) == (share == 0)
