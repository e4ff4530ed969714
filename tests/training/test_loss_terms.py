"""A term of a loss is one row of a table: it teaches, is logged, summed and shown, and older runs are still read."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from config_physics import Config
from galaxies.storage.metrics_log import read_metrics
from galaxies.training.display import bar_line, loss_curves
from galaxies.training.loss_terms import FURTHER, LossTerm, limits, sums, weighted_sum
from galaxies.training.steps import Meters
from galaxies.training.trainer import LEARNERS, Trainer
from tests.conftest import MODERN, make_trainer

FAMILIES = {"GAN": {}, "diffusion": {"diffusion": True, "unet_blocks": 1, "solver_steps": 2}}


def darkness(_, seen):
    return seen.images.mean() + 1  # 0 for black images


def add_term(monkeypatch, family, weight, **changes):
    learner = LEARNERS[family]
    monkeypatch.setattr(learner, "table", (*learner.table, LossTerm("darkness", weight, darkness, **changes)))


def weights(trainer, name):
    return torch.cat([p.detach().flatten().clone() for p in trainer.learner.networks[name].parameters()])


def after_a_step(data, tmp_path, **settings):
    trainer = make_trainer(data, tmp_path, precision="fp32", clip_norm=1e6, **settings)
    trainer.start_phase("generator")
    trainer.take_step(100)
    return trainer


# One row is enough


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_term_is_logged_summed_and_shown(data, tmp_path, monkeypatch, family):
    before = after_a_step(data, tmp_path, **FAMILIES[family])
    add_term(monkeypatch, family, 7.0)
    trainer = make_trainer(data, tmp_path, precision="fp32", **FAMILIES[family])
    trainer.train()
    record = [r for r in read_metrics(trainer.log.path) if r["kind"] == "train"][-1]
    assert set(record) >= {"darkness", "g_loss"}
    assert before.learner.terms["predictor"] == trainer.learner.terms["predictor"]

    without = before.learner.with_sums({name: record[name] for name in before.learner.terms["generator"]})
    assert record["g_loss"] == pytest.approx(without["g_loss"] + 7 * record["darkness"])
    assert f"darkness {record['darkness']:.3f}" in bar_line(record, trainer.learner.shown(), ())
    curves = loss_curves([record], trainer.learner.shown(), ())
    assert curves[FURTHER]["darkness"] == ([record["step"]], [record["darkness"]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_term_teaches_as_much_as_its_weight_says(data, tmp_path, monkeypatch, family):
    plain = after_a_step(data, tmp_path, **FAMILIES[family])
    norms = {}
    for weight in (0.0, 100.0, 200.0):
        with monkeypatch.context() as patch:
            add_term(patch, family, weight)
            trainer = after_a_step(data, tmp_path, **FAMILIES[family])
        name = "g_grad_norm" if family == "GAN" else "grad_norm"
        norms[weight] = trainer._steps.interval.read().means[name]
        same = torch.equal(weights(trainer, "generator"), weights(plain, "generator"))
        assert same == (weight == 0)
        assert torch.equal(weights(trainer, "predictor"), weights(plain, "predictor"))
    # Little else is left of the gradient.
    assert norms[200.0] / norms[100.0] == pytest.approx(2, rel=0.1)


def test_a_term_of_the_discriminator_teaches_it(data, tmp_path, monkeypatch):
    plain = after_a_step(data, tmp_path)

    def level(_, seen):
        return seen.real_logits.square().mean()

    term = LossTerm("level", 50.0, level, "discriminator", part_of="")
    monkeypatch.setattr(LEARNERS["GAN"], "table", (*LEARNERS["GAN"].table, term))
    trainer = after_a_step(data, tmp_path)
    assert not torch.equal(weights(trainer, "discriminator"), weights(plain, "discriminator"))
    means = trainer.learner.with_sums(trainer._steps.interval.read().means)
    assert means["level"] >= 0
    assert means["d_loss"] == pytest.approx(means["d_loss_real"] + means["d_loss_fake"])


def test_a_weight_may_be_a_setting(data, tmp_path, monkeypatch):
    add_term(monkeypatch, "GAN", "label_jitter")
    trainer = after_a_step(data, tmp_path, label_jitter=0.25)
    means = trainer._steps.interval.read().means
    without = sum(t.weight_in(trainer.config) * means[t.name] for t in trainer.learner.loss_terms[:-1] if in_g(t))
    assert trainer.learner.with_sums(means)["g_loss"] == pytest.approx(without + 0.25 * means["darkness"])


def in_g(term):
    return term.part_of == "g_loss"


def test_a_term_that_is_not_finite_is_named(data, tmp_path, monkeypatch):
    table = (*LEARNERS["GAN"].table, LossTerm("endless", 1.0, lambda _, seen: seen.images.sum() * torch.inf))
    monkeypatch.setattr(LEARNERS["GAN"], "table", table)
    trainer = after_a_step(data, tmp_path)
    assert "endless" in trainer._steps.interval.read().first_bad


# The sum


def learner_of(config=None):
    return SimpleNamespace(config=config or Config(), engine=SimpleNamespace(device=torch.device("cpu")))


def test_a_loss_is_the_weighted_sum_of_its_terms():
    x = torch.tensor(2.0, requires_grad=True)
    terms = (
        LossTerm("square", 3.0, lambda _, seen: seen**2),
        LossTerm("plain", 1.0, lambda _, seen: seen),
        LossTerm("physics", "physics_weight", lambda _, seen: 10 * seen),
        LossTerm("quiet", 0.5, lambda _, seen: seen**3, logged=False),
    )
    total, values = weighted_sum(terms, learner_of(Config(physics_weight=0.25)), x, ())
    assert total.item() == 3 * 4 + 2 + 0.25 * 20 + 0.5 * 8
    total.backward()
    assert x.grad.item() == 3 * 4 + 1 + 2.5 + 0.5 * 12
    assert {name: value.item() for name, value in values.items()} == {"square": 4, "plain": 2, "physics": 20}


def test_a_rare_term_counts_as_often_as_it_is_left_out():
    terms = (
        LossTerm("plain", 1.0, lambda _, seen: seen),
        LossTerm("rare", 2.0, lambda _, seen: seen, every=4, first=2),
    )
    due = [step for step in range(9) if terms[1].is_due(Config(), step)]
    assert due == [2, 6]
    totals = [weighted_sum(terms, learner_of(), torch.tensor(5.0), names)[0].item() for names in ((), ("rare",))]
    assert totals == [5, 5 + 2 * 4 * 5]
    assert weighted_sum(terms, learner_of(), torch.tensor(5.0), ())[1]["rare"].item() == 0
    free = LossTerm("free", 0.0, lambda _, seen: seen, every=4)
    assert not any(free.is_due(Config(), step) for step in range(9))


def test_a_term_of_no_weight_is_logged_and_costs_no_gradient():
    x, watched = torch.tensor(3.0, requires_grad=True), []
    idle = LossTerm("idle", 0.0, lambda _, x: watched.append(torch.is_grad_enabled()) or x.square())
    total, values = weighted_sum([LossTerm("used", 1.0, lambda _, x: 2 * x), idle], learner_of(), x, ())
    total.backward()
    assert watched == [False]
    assert (total.item(), values["idle"].item(), x.grad.item()) == (6, 9, 2)


def test_sums_lack_no_part():
    terms = (LossTerm("a", 2.0, darkness), LossTerm("b", 3.0, darkness), LossTerm("c", 1.0, darkness, part_of="d_loss"))
    assert sums(terms, Config(), {"a": 1.0, "b": 10.0, "c": 5.0}) == {"g_loss": 32.0, "d_loss": 5.0}
    assert sums(terms, Config(), {"a": 1.0, "c": 5.0}) == {"d_loss": 5.0}


def test_limits_add_up():
    with_limits = [LossTerm(n, 1.0, darkness, limits=lambda c: (c.fake_label, 1.0)) for n in "ab"]
    assert limits([*with_limits, LossTerm("c", 1.0, darkness)], Config(fake_label=0.25)) == (0.5, 2.0)
    assert limits([LossTerm("c", 1.0, darkness)], Config()) is None


# Older runs

# The terms of commit e82a0c7, whose checkpoints hold running means without names.
OF_BEFORE = {
    "GAN": "d_loss_real d_loss_fake g_adversarial physics photometry d_regression_real d_regression_fake g_regression "
    "d_class_real d_class_fake g_class d_real d_fake d_grad_norm g_grad_norm",
    "modern": "d_loss g_adversarial physics photometry d_regression_real d_regression_fake g_regression d_class_real "
    "d_class_fake g_class perceptual d_pairs augmented d_grad_norm g_grad_norm",
    "diffusion": "denoising physics photometry grad_norm",
}


@pytest.mark.parametrize("family", OF_BEFORE)
def test_running_means_without_names_are_those_of_the_same_terms(data, tmp_path, family):
    trainer = make_trainer(data, tmp_path, **{**FAMILIES, "modern": MODERN}[family])
    names = trainer.learner.terms["generator"]
    assert names == tuple(OF_BEFORE[family].split())
    meters = Meters(names, ("x",), torch.device("cpu"))
    sums = torch.arange(1.0, len(names) + 5)
    sums[-2:] = torch.tensor([4.0, 0.0])
    meters.load_state_dict({"sums": sums, "first_bad": torch.zeros(len(names)), "steps": 4})
    assert meters.read().means == {name: (k + 1) / 4 for k, name in enumerate(names)} | {
        "x": (len(names) + 1) / (len(names) + 2)
    }


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_run_that_lacked_a_term_or_had_one_more_goes_on(data, tmp_path, monkeypatch, more, named):
    def begun():
        trainer = make_trainer(data, tmp_path)
        trainer.start_phase("generator")
        for _ in range(3):
            trainer.take_step(100)
        return trainer

    with monkeypatch.context() as patch:
        if not more:
            add_term(patch, "GAN", 1.0)
        old = begun()
    state = copy.deepcopy(old.state_dict())  # Adam would go on with the very tensors
    if not named:
        for meters in state["meters"].values():
            del meters["names"], meters["errors"]
    if more:
        add_term(monkeypatch, "GAN", 1.0)
    trainer = Trainer(old.config, data, old.checkpoints, old.samples, state)
    trainer.take_step(100)
    means = trainer.learner.with_sums(trainer._steps.interval.read().means)
    assert trainer.step == 4
    if named:  # of four steps; what not all of them computed has no mean until the next line of the log
        old.take_step(100)
        whole = old.learner.with_sums(old._steps.interval.read().means)
        kept = [name for name in ("d_loss", "g_adversarial", "physics", "physics_size") if name in means]
        assert len(kept) == 4
        assert {name: means[name] for name in kept} == pytest.approx({name: whole[name] for name in kept}, rel=1e-5)
        assert trainer._steps.interval.steps == 4
    else:
        assert trainer._steps.interval.steps == 1
    assert ("darkness" in means) == (more and not named)
    assert ("g_loss" in means) == (not more or not named)
    trainer._steps.interval.clear()
    trainer.take_step(100)
    assert ("darkness" in trainer._steps.interval.read().means) == more
