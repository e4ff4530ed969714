"""The training loops: what a step does, exact resuming, and stopping on broken numbers."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import os
import shutil
import signal
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.generation.sampler import GalaxySampler
from galaxies.recipes import DIFFUSION_RECIPES, RECIPES
from galaxies.storage import run_folder
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.metrics_log import read_metrics
from galaxies.storage.power_averages import find_snapshots, snapshot_steps, write_snapshot
from galaxies.training.runs import train
from galaxies.training.trainer import Trainer
from tests import kill_jobs
from tests.conftest import MODERN, SETTINGS, TINY, differences, fork_script, make_trainer, records_of


def weights(trainer: Trainer) -> dict[str, list[torch.Tensor]]:
    return {
        name: [p.detach().clone() for p in module.parameters()] for name, module in trainer.learner.networks.items()
    }


def changed(trainer: Trainer, before: dict[str, list[torch.Tensor]]) -> set[str]:
    after = weights(trainer)
    return {
        name for name in before if any(not torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True))
    }


def generator_step(trainer: Trainer, step: int) -> None:
    trainer.learner.step(trainer.batches.next_batch(), trainer.learner.variant("generator", step))


def assert_same(first, second):
    """Compare nested states bit for bit."""
    assert differences(first, second) == []


def test_each_step_updates_only_its_networks(data, tmp_path):
    trainer = make_trainer(data, tmp_path)
    trainer.batches.start_epoch()
    before = weights(trainer)
    trainer.learner.step(trainer.batches.next_batch(), trainer.learner.variant("predictor", 0))
    assert changed(trainer, before) == {"predictor"}
    before = weights(trainer)
    statistics = [b.clone() for b in trainer.learner.predictor.buffers()]
    generator_step(trainer, 0)
    assert changed(trainer, before) == {"generator", "discriminator"}
    assert all(torch.equal(a, b) for a, b in zip(statistics, trainer.learner.predictor.buffers(), strict=True))


def test_physics_weight_reaches_the_generator_and_not_the_discriminator(data, tmp_path):
    results = {}
    for weight in (0.0, 30.0):
        trainer = make_trainer(data, tmp_path, physics_weight=weight, precision="fp32")
        trainer.batches.start_epoch()
        generator_step(trainer, 0)
        results[weight] = weights(trainer)
    same = {
        n: all(torch.equal(a, b) for a, b in zip(results[0.0][n], results[30.0][n], strict=True)) for n in results[0.0]
    }
    assert same == {"generator": False, "discriminator": True, "predictor": True}


def test_penalty_is_taken_on_every_fourth_step(data, tmp_path):
    def discriminator_after(step: int, weight: float) -> list[torch.Tensor]:
        trainer = make_trainer(data, tmp_path, r1_weight=weight, precision="fp32")
        trainer.batches.start_epoch()
        generator_step(trainer, step)
        return weights(trainer)["discriminator"]

    def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    assert equal(discriminator_after(1, 100.0), discriminator_after(1, 0.0))
    assert not equal(discriminator_after(4, 100.0), discriminator_after(4, 0.0))


def test_predictor_learns_to_read_the_images(data, tmp_path):
    trainer = make_trainer(
        data, tmp_path, pretrain_epochs=12, pretrain_decay=False, attributes=("size", "ellipticity"), width=8
    )
    trainer.run_phase(12)
    losses = [r["physics"] for r in read_metrics(trainer.log.path)]
    assert losses[-1] < 0.3 * losses[0]


def test_predictor_rate_falls_to_zero_or_stays(data, tmp_path):
    rates = {}
    for decay in (True, False):
        trainer = make_trainer(
            data, tmp_path / str(decay), pretrain_epochs=2, pretrain_learning_rate=0.01, pretrain_decay=decay
        )
        trainer.run_phase(2)
        rates[decay] = trainer.learner.optimizers["predictor"].param_groups[0]["lr"]
    # The last of the steps is taken with one step's share of the rate left.
    steps = 2 * len(trainer.batches)
    assert rates == {True: pytest.approx(0.01 / steps), False: 0.01}


@pytest.mark.parametrize(("decay", "middle", "last"), [(0.0, 1.0, 1.0), (0.5, 1.0, 0.2), (1.0, 0.5, 0.1)])
def test_the_generators_rate_falls_over_the_last_part(data, tmp_path, decay, middle, last):
    learner = make_trainer(data, tmp_path, decay=decay, learning_rate=0.01).learner
    for step, part in ((0, 1.0), (50, middle), (90, last)):
        learner.schedule("generator", step, 100)
        for name in ("generator", "discriminator"):
            assert float(learner.optimizers[name].param_groups[0]["rate"]) == pytest.approx(0.01 * part)
    assert learner.optimizers["predictor"].param_groups[0]["rate"] == learner.config.pretrain_learning_rate


def test_the_generators_rate_rises_first(data, tmp_path):
    learner = make_trainer(data, tmp_path, decay=1.0, warmup=10, learning_rate=0.01).learner
    for step, part in ((0, 0.1), (4, 0.5 * 0.96), (9, 0.91), (50, 0.5)):
        learner.schedule("generator", step, 100)
        assert learner.step_sizes() == {
            "generator": [pytest.approx(0.01 * part)],
            "discriminator": [pytest.approx(0.01 * part)],
            "predictor": [Config.pretrain_learning_rate],
        }


@pytest.mark.parametrize(("base", "share"), [(0, None), (8, None), (16, None), (4, 0.5), (2, 0.25)])
def test_a_wide_unet_has_smaller_steps_for_hidden_weights(data, tmp_path, base, share):
    settings = {**DIFFUSION, "width": 8, "learning_rate_width": base, "learning_rate": 0.01, "decay": 0.5}
    learner = make_trainer(data, tmp_path, **settings).learner
    learner.schedule("generator", 75, 100)
    groups = learner.optimizers["generator"].param_groups
    assert learner.step_sizes()["generator"] == pytest.approx([0.005] if share is None else [0.005, 0.005 * share])
    assert len(learner.optimizers["predictor"].param_groups) == 1
    if share is not None:
        slowed = {id(p) for p in groups[1]["params"]}
        assert slowed == {id(p) for p in learner.generator.unet.hidden_weights()}


def test_a_checkpoint_knows_adam_by_parameter_whatever_the_groups(data, tmp_path):
    first, second = (
        make_trainer(data, tmp_path / str(base), **DIFFUSION, width=8, learning_rate_width=base) for base in (4, 0)
    )
    first.start_phase("generator")
    first.take_step(10)
    state = copy.deepcopy(first.state_dict())
    second.learner.load_state_dict(state)
    for name, parameter in first.learner.generator.named_parameters():
        moments = first.learner.optimizers["generator"].state[parameter]
        other = second.learner.generator.get_parameter(name)
        assert_same(dict(second.learner.optimizers["generator"].state[other]), dict(moments))
    assert list(state["optimizers"]["generator"]) == sorted(state["optimizers"]["generator"])
    assert_same(second.learner.state_dict()["optimizers"], state["optimizers"])


def test_a_growing_norm_is_said_once_a_run(data, tmp_path, capsys):
    trainer = make_trainer(data, tmp_path, epochs=2, log_every=1)
    trainer.start_phase("generator")
    for level in (1.0,) * 6 + (30.0, 1.0, 1000.0):
        trainer.take_step(100)
        means = {"g_grad_norm": level}
        trainer._means = lambda reading, means=means: dict(means)
        trainer._log_interval()
    assert capsys.readouterr().out.count("the gradient's norm g_grad_norm is 30, 30 times what it was") == 1
    resumed = Trainer(trainer.config, data, tmp_path / "c", tmp_path / "s", trainer.state_dict())
    resumed._means = lambda reading: {"g_grad_norm": 1e6}
    resumed.take_step(100)
    resumed._log_interval()
    assert "norm" not in capsys.readouterr().out


# Claims on the generator's loss


def test_an_attribute_that_cannot_be_read_has_no_claim_and_is_named_once(data, tmp_path, monkeypatch, capsys):
    report = {"r2_size": 0.9, "r2_brightness": 0.02, "r2_ellipticity": 0.5, "r2_redshift": 0.5}
    monkeypatch.setattr("galaxies.training.trainer.evaluate_predictor", lambda *_: report)
    trainer = make_trainer(data, tmp_path, epochs=3)
    # As if the generator ignored them all: the requests vary less than it errs.
    trainer._attribute_variance = dict.fromkeys(trainer.config.attributes, 1e-9)
    trainer.train()
    assert trainer.learner.claims.tolist() == [1, 0, 1, 1]
    said = capsys.readouterr().out
    named = "no claim on the generator's loss: brightness (the predictor cannot read it off pictures, R2 0.02)"
    assert [line.endswith(named) for line in said.splitlines() if "no claim" in line] == [True]
    assert "ignores brightness" not in said
    assert said.count("the generator ignores redshift") == 1
    known = 100 * data.catalogue["redshift"].iloc[data.rows("train")].notna().mean()
    assert f"(it is known for {known:.0f} % of the training galaxies, and the predictor reads it with an R2 of" in said
    names = [r["name"] for r in read_metrics(trainer.log.path) if r["kind"] == "warning"]
    assert names.count("no_claim") == names.count("no_control_size") == 1

    state = load_checkpoint(trainer.checkpoints / "latest.pt")
    resumed = Trainer(dataclasses.replace(trainer.config, epochs=5), data, trainer.checkpoints, trainer.samples, state)
    resumed._attribute_variance = trainer._attribute_variance
    resumed.train()
    assert resumed.learner.claims.tolist() == [1, 0, 1, 1]
    said = capsys.readouterr().out
    assert "ignores" not in said and "no claim" not in said


def test_a_rare_attribute_has_no_claim(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("galaxies.training.trainer.evaluate_predictor", lambda *_: {"r2_size": 0.9, "r2_redshift": 0.9})
    trainer = make_trainer(data, tmp_path, attributes=("size", "redshift"))
    trainer._known_shares["redshift"] = 0.06
    trainer.train()
    assert trainer.learner.claims.tolist() == [1, 0]
    assert "redshift (known for 6 % of the training galaxies)" in capsys.readouterr().out


def test_all_have_a_claim_where_it_is_not_asked_for(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("galaxies.training.trainer.evaluate_predictor", lambda *_: {"r2_size": -1.0})
    trainer = make_trainer(data, tmp_path, readable_only=False)
    trainer.train()
    assert trainer.learner.claims.tolist() == [1, 1, 1, 1]
    assert "no claim" not in capsys.readouterr().out


@pytest.mark.parametrize("uncertainty", [True, False])
@pytest.mark.parametrize("family", [{}, {"diffusion": True, "unet_blocks": 1}], ids=["gan", "diffusion"])
def test_what_has_no_claim_is_not_asked_for(data, tmp_path, family, uncertainty):
    weights_after = []
    for claim, asked in ((False, 0.0), (False, 5.0), (True, 5.0)):
        trainer = make_trainer(data, tmp_path, **family, precision="fp32", uncertainty=uncertainty)
        learner = trainer.learner
        if uncertainty:  # else nothing is reliable before the predictor has learned
            torch.nn.init.constant_(learner.predictor.doubt[-1].bias, -12.0)
        learner.give_claims([True, claim, True, True])
        trainer.start_phase("generator")
        trainer.batches.start_epoch()
        batch = trainer.batches.next_batch()
        scaled = batch.scaled.clone()
        scaled[:, 1] += asked  # of brightness; the condition stays
        learner.step(dataclasses.replace(batch, scaled=scaled), learner.variant("generator", 1))
        weights_after.append(torch.cat([p.detach().flatten() for p in learner.generator.parameters()]))
    unasked, ignored, followed = weights_after
    if family:  # the discriminator, which teaches a GAN's generator, learns of the values that are given here
        assert torch.equal(unasked, ignored)
    assert not torch.equal(ignored, followed)


def test_averaged_generator_follows_the_generator(data, tmp_path):
    trainer = make_trainer(data, tmp_path)
    trainer.batches.start_epoch()
    generator_step(trainer, 0)
    first = [p.clone() for p in trainer.learner.average.module.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(first, trainer.learner.generator.parameters(), strict=True))
    generator_step(trainer, 0)
    for old, average, new in zip(
        first, trainer.learner.average.module.parameters(), trainer.learner.generator.parameters(), strict=True
    ):
        # The second average forgets at the warm-up rate 1/10.
        torch.testing.assert_close(average, torch.lerp(old, new, 1 - 1 / 10))


def test_paper_recipe_runs_without_averaging_and_flags(tmp_path, data):
    data.catalogue["vote_count"] = 0.5
    try:
        recipe = {**RECIPES["paper"], **SETTINGS, "attributes": ("vote_count",)}
        trainer = make_trainer(data, tmp_path, recipe="paper", **recipe)
        trainer.try_steps()
    finally:
        del data.catalogue["vote_count"]
    assert trainer.learner.average is None
    assert trainer.learner.generator.project.in_features == 8 + 4 + 1


def test_trying_steps_writes_nothing(data, tmp_path):
    make_trainer(data, tmp_path).try_steps()
    assert list(tmp_path.iterdir()) == []


def test_going_on_from_another_device_is_said(data, tmp_path, capsys):
    state = make_trainer(data, tmp_path).state_dict()
    state["random"]["noise_device"], state["random"]["noise"] = "cuda", torch.zeros(16, dtype=torch.uint8)
    config = Config(**{**SETTINGS, "run": "r", "device": "cpu"})
    Trainer(config, data, tmp_path / "c", tmp_path / "s", state).try_steps()
    assert "saved on cuda, going on on cpu" in capsys.readouterr().out


def test_networks_of_another_release_do_not_go_on(data, tmp_path):
    state = make_trainer(data, tmp_path).state_dict()
    weights = state["networks"]["generator"]
    del weights[next(name for name in weights if "weight" in name)]
    config = Config(**{**SETTINGS, "run": "r", "device": "cpu"})
    with pytest.raises(UserError, match="holds networks of another release: train again"):
        Trainer(config, data, tmp_path / "c", tmp_path / "s", state)


def test_stop_at_the_end_of_phase_1_is_saved(data, tmp_path, monkeypatch):
    trainer = make_trainer(data, tmp_path)
    end_epoch = trainer._end_epoch

    def stop_after(num_epochs):
        end_epoch(num_epochs)
        trainer.stop_requested = True

    monkeypatch.setattr(trainer, "_end_epoch", stop_after)
    trainer.train()
    state = load_checkpoint(trainer.checkpoints / "latest.pt")
    assert (state["phase"], state["epoch"]) == ("predictor", 1)


def test_loss_that_is_not_finite_names_term_and_checkpoint(data, tmp_path):
    trainer = make_trainer(data, tmp_path, learning_rate=1.0, epochs=3, on_nan="stop")
    with torch.no_grad():
        next(trainer.learner.predictor.parameters()).fill_(torch.nan)
    with pytest.raises(
        UserError, match=r"not finite at step 1 of phase 1: physics, grad_norm; no checkpoint was saved yet"
    ):
        trainer.train()


def break_noise(trainer, monkeypatch, *steps):
    """Make the noise of these steps of phase 2 (from 1) infinite."""
    draw, drawn = trainer.learner._draw, []

    def noise(*shape, uniform=False):
        if uniform:
            return draw(*shape, uniform=True)
        drawn.append(None)
        return draw(*shape) * (torch.inf if len(drawn) in steps else 1)

    monkeypatch.setattr(trainer.learner, "_draw", noise)


def test_a_step_that_is_not_finite_stops_the_run_and_is_named(data, tmp_path, monkeypatch):
    trainer = make_trainer(data, tmp_path, epochs=3, log_every=4, on_nan="stop")
    break_noise(trainer, monkeypatch, 3, 4)
    with pytest.raises(
        UserError, match=r"not finite at step 3 of phase 2: .*g_adversarial.*resume_training.py --run r"
    ):
        trainer.train()
    state = load_checkpoint(trainer.checkpoints / "latest.pt")
    assert (state["phase"], state["step"]) == ("generator", 0)


@pytest.mark.parametrize("on_nan", ["recover", "skip"])
def test_bad_steps_are_left_out_counted_and_said(data, tmp_path, monkeypatch, capsys, on_nan):
    trainer = make_trainer(data, tmp_path, epochs=2, on_nan=on_nan)
    break_noise(trainer, monkeypatch, 2, 5, 6)
    trainer.train()
    records = [r for r in read_metrics(trainer.log.path) if r["kind"] == "train" and r["phase"] == "generator"]
    assert [r["skipped"] for r in records][-1] == 3
    assert all(torch.isfinite(t).all() for n in trainer.learner.networks.values() for t in n.state_dict().values())
    assert all(torch.isfinite(t).all() for t in trainer.learner.average.module.state_dict().values())
    state = load_checkpoint(trainer.checkpoints / "latest.pt")
    assert state["skipped"] == 3
    assert state["health"]["parts"] == dict.fromkeys(trainer.learner.networks, 1.0)
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(said) == 2  # an interval is two steps: 2, and 5 with 6
    assert "not finite at step 2 of phase 2" in said[0] and said[0].endswith("this update is left out")
    assert "not finite at step 5 of phase 2" in said[1] and said[1].endswith("2 updates from this one on are left out")


def step_sizes(trainer: Trainer) -> dict[str, float]:
    """Return the step sizes that the networks took last."""
    return {name: float(one.param_groups[0]["lr"]) for name, one in trainer.learner.optimizers.items()}


def test_three_bad_steps_in_a_row_halve_the_step_size(data, tmp_path, monkeypatch, capsys):
    trainer = make_trainer(data, tmp_path, epochs=2, decay=0.0, learning_rate=0.004, log_every=5)
    break_noise(trainer, monkeypatch, 3, 4, 5, 9, 10)
    trainer.train()
    # Both networks saw the images that were not finite.
    taken = step_sizes(trainer)
    assert (taken["generator"], taken["discriminator"]) == (0.002, 0.002)
    state = load_checkpoint(trainer.checkpoints / "latest.pt")
    assert state["health"]["parts"] == {"generator": 0.5, "discriminator": 0.5, "predictor": 1.0}
    warnings = {r["name"]: r for r in read_metrics(trainer.log.path) if r["kind"] == "warning"}
    assert warnings["halved_generator"]["part"] == warnings["halved_discriminator"]["part"] == 0.5
    assert warnings["halved_generator"]["step"] == 5
    said = capsys.readouterr().out
    assert said.count("3 updates of the generator in a row were not finite: its step size is halved, to 0.5 of") == 1

    # A resumed run keeps the smaller step and does not say so again.
    config = dataclasses.replace(trainer.config, epochs=3)
    resumed = Trainer(config, data, trainer.checkpoints, trainer.samples, state)
    resumed.train()
    assert {**step_sizes(resumed), "predictor": 0} == {**taken, "predictor": 0}
    assert "halved" not in capsys.readouterr().out


def test_skipping_never_halves(data, tmp_path, monkeypatch):
    trainer = make_trainer(data, tmp_path, epochs=2, decay=0.0, on_nan="skip")
    break_noise(trainer, monkeypatch, 2, 3, 4, 5, 6, 7)
    trainer.train()
    assert step_sizes(trainer)["generator"] == trainer.config.learning_rate


def test_stopping_amid_bad_steps_resumes_to_the_same_bits(data, tmp_path, monkeypatch):
    whole = make_trainer(data, tmp_path / "whole")
    whole.start_phase("generator")
    break_noise(whole, monkeypatch, 2, 3, 4)
    for _ in range(3):
        whole.take_step(100)
    state = copy.deepcopy(whole.state_dict())
    resumed = Trainer(whole.config, data, tmp_path / "c", tmp_path / "s", state)
    break_noise(resumed, monkeypatch, 1)
    for trainer in (whole, resumed):
        for _ in range(3):
            trainer.take_step(100)
        trainer._log_interval()
    assert_same(resumed.state_dict(), whole.state_dict())
    assert whole._parts["generator"] == 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"generator": "transposed", "discriminator": "dcgan", "regression_weight": 0.0},
        MODERN | {"augment_discriminator": "adaptive"},
        {"diffusion": True, "unet_blocks": 1},
    ],
    ids=["default", "dcgan", "modern", "diffusion"],
)
@pytest.mark.parametrize("phase", ["predictor", "generator"])
def test_a_step_that_is_left_out_changes_nothing_that_is_trained(data, tmp_path, monkeypatch, settings, phase):
    trainer = make_trainer(data, tmp_path, **settings)
    trainer.start_phase(phase)
    trainer.take_step(100)
    if phase == "predictor":
        draw = trainer.batches.draw
        monkeypatch.setattr(trainer.batches, "draw", lambda: broken(draw()))
    else:
        break_noise(trainer, monkeypatch, *range(1, 5))

    def broken(batch):
        return dataclasses.replace(batch, images=batch.images * torch.inf)

    def learned():
        state = trainer.learner.state_dict()
        networks = {name: dict(module) for name, module in state["networks"].items()}
        for module in networks.values():
            for name in [n for n in module if n.endswith("num_batches_tracked")]:
                del module[name]  # it counts the pass
        return copy.deepcopy((networks, state["optimizers"]))

    before = learned()
    trainer.take_step(100)
    assert trainer._steps.interval.read().num_bad == 1
    assert_same(learned(), before)
    average = trainer.learner.average.module.state_dict().values()
    assert all(torch.isfinite(t).all() for t in average)


def test_parameters_after_bad_steps_are_those_of_adam_by_hand(data, tmp_path):
    settings = {"clip_norm": 1e6, "pretrain_learning_rate": 0.01, "pretrain_decay": False, "beta1": 0.9}
    learner = make_trainer(data, tmp_path, **settings).learner
    weight = next(learner.predictor.parameters())
    start = weight.detach().double().clone()
    slope = torch.linspace(-2, 2, weight.numel(), dtype=torch.float64).view_as(weight)
    # Kingma & Ba (2015), algorithm 1; one that is left out is no step, and after three of them steps are half as long.
    moved, first, second, taken = start, torch.zeros_like(start), torch.zeros_like(start), 0
    for factor, size in [
        (1.0, 0.01),
        (math.inf, None),
        (2.0, 0.01),
        (math.nan, None),
        (-math.inf, None),
        (math.nan, None),
        (-0.5, 0.005),
        *[(math.nan, None)] * 6,
        (3.0, 0.00125),
    ]:
        learner._update("predictor", (weight * slope.float()).sum() * factor)
        if size is None:
            continue
        taken += 1
        first = 0.9 * first + 0.1 * factor * slope
        second = 0.999 * second + 0.001 * (factor * slope) ** 2
        unbiased = (second / (1 - 0.999**taken)).sqrt() + 1e-8
        moved = moved - size * first / (1 - 0.9**taken) / unbiased
        torch.testing.assert_close(weight.detach().double(), moved, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_leaves_out_an_update_whose_gradient_is(data, tmp_path):
    learner = make_trainer(data, tmp_path).learner
    weight = next(learner.predictor.parameters())
    before = weight.detach().clone()
    norm = learner._update("predictor", weight.sum() + torch.inf)
    assert torch.isfinite(norm)
    assert torch.equal(weight, before)


def test_a_network_that_does_not_recover_ends_the_run(data, tmp_path, monkeypatch):
    trainer = make_trainer(data, tmp_path, epochs=100)
    break_noise(trainer, monkeypatch, *range(3, 1000))
    with pytest.raises(
        UserError,
        match=r"not finite at step \d+ of phase 2: .*the generator was halved 10 times and it did not recover",
    ):
        trainer.train()
    # Steps from 3 on are bad, ten times three of them are needed, and the log is read every other step.
    assert trainer.step == 32


def test_a_phase_without_any_good_step_ends_the_run(data, tmp_path):
    trainer = make_trainer(data, tmp_path)
    with torch.no_grad():
        next(trainer.learner.predictor.parameters()).fill_(torch.nan)
    with pytest.raises(
        UserError, match="not finite at step 1 of phase 1: physics, grad_norm; no step of the last epoch"
    ):
        trainer.train()


def test_skipping_ends_when_nothing_is_finite_any_more(data, tmp_path, monkeypatch):
    monkeypatch.setattr("galaxies.training.trainer._TOO_MANY_SKIPPED", 20)
    trainer = make_trainer(data, tmp_path, epochs=100, on_nan="skip")
    break_noise(trainer, monkeypatch, *range(3, 1000))
    with pytest.raises(UserError, match="not finite"):
        trainer.train()
    assert 20 <= trainer.step < 28


def test_trying_steps_fails_where_one_is_not_finite(data, tmp_path, monkeypatch):
    trainer = make_trainer(data, tmp_path)
    break_noise(trainer, monkeypatch, 1)
    with pytest.raises(UserError, match="not finite at step 1 of phase 2"):
        trainer.try_steps()


def test_finished_run_has_its_files(trained):
    run, samples = trained / "checkpoints/tiny", trained / "samples/tiny"
    expected = {"epoch_0001.pt", "epoch_0002.pt", "latest.pt", "previous.pt", "metrics.jsonl"}
    assert {p.name for p in run.iterdir()} == expected
    assert {p.name for p in samples.iterdir()} == {"epoch_0001.png", "epoch_0002.png", "curves.png"}


def test_metrics_report_every_term_and_attribute(trained):
    records = read_metrics(trained / "checkpoints/tiny/metrics.jsonl")
    last = [r for r in records if r["kind"] == "train"][-1]
    expected = {"d_loss", "d_loss_real", "d_loss_fake", "g_loss", "g_adversarial", "physics", "photometry", "d_real"}
    assert expected | {"physics_size", "physics_redshift", "images_per_s"} <= last.keys()
    assert last["d_loss"] == pytest.approx(last["d_loss_real"] + last["d_loss_fake"])
    physics = Config.physics_weight * last["physics"] + Config.photometry_weight * last["photometry"]
    read = Config.regression_weight * last["g_regression"]
    assert last["g_loss"] == pytest.approx(last["g_adversarial"] + physics + read)
    check = [r for r in records if r["kind"] == "check"][-1]
    assert {"diversity_spiral", "diversity_merger", "unmeasurable"} <= check.keys()


def test_checkpoint_holds_attributes_population_and_provenance(trained, data):
    state = load_checkpoint(trained / "checkpoints/tiny/latest.pt")
    assert [a["name"] for a in state["attributes"]] == ["size", "brightness", "ellipticity", "redshift"]
    assert len(state["population"]["classes"]) == len(data.rows("train"))
    assert state["provenance"]["sha256"] == data.manifest["sha256"]


# Resuming


def losses(folder) -> list[dict]:
    return records_of(folder / "checkpoints/tiny")


def interrupt_tiny(folder, dataset_path, wanted, number) -> tuple[int, str]:
    """Run what the fixture `trained` ran, and send a signal once a record of the metrics file fulfils `wanted`.

    Returns the exit status and what was said. On a busy machine the run may end before the signal comes; then it is
    tried again.
    """
    options = ["--data", dataset_path, "--run", "tiny", "--pretrain-epochs", 2, "--epochs", 2, "--checkpoint-every", 1]
    path = folder / "checkpoints/tiny/metrics.jsonl"
    for _ in range(3):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        process = kill_jobs.start(kill_jobs.script, "galaxy.py", [*options, *TINY], folder, folder / "log")
        while process.is_alive() and not (path.exists() and any(wanted(r) for r in read_metrics(path))):
            time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        process.join(120)
        if process.exitcode != 0:
            return process.exitcode, (folder / "log").read_text(encoding="utf-8")
    raise AssertionError("the run ended three times before the signal came")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("epoch, step", [(2, 8), pytest.param(1, 4, marks=pytest.mark.slow)])
def test_killed_run_resumes_to_the_same_bits(trained, dataset_path, tmp_path, epoch, step):
    def reached(record):
        return (record["phase"], record["kind"], record["epoch"]) == ("generator", "train", epoch) and record[
            "step"
        ] >= step

    assert interrupt_tiny(tmp_path, dataset_path, reached, signal.SIGKILL)[0] == -signal.SIGKILL
    result = fork_script("resume_training.py", "--run", "tiny", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    names = ["latest.pt", "epoch_0001.pt", "epoch_0002.pt"]
    for name in names:
        assert_same(
            load_checkpoint(tmp_path / "checkpoints/tiny" / name), load_checkpoint(trained / "checkpoints/tiny" / name)
        )
    assert losses(tmp_path) == losses(trained)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_saves_in_the_middle_of_an_epoch_and_resumes_to_the_same_bits(trained, dataset_path, tmp_path):
    status, said = interrupt_tiny(
        tmp_path, dataset_path, lambda r: r["phase"] == "generator" and r["step"] >= 2, signal.SIGINT
    )
    assert status == 130, said
    assert "Traceback" not in said and "resume_training.py --run tiny" in said
    position = load_checkpoint(tmp_path / "checkpoints/tiny/latest.pt")["batches"]["drawn"]
    assert position > 0, "the stop came between two epochs: nothing was shown"
    result = fork_script("resume_training.py", "--run", "tiny", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert_same(
        load_checkpoint(tmp_path / "checkpoints/tiny/latest.pt"),
        load_checkpoint(trained / "checkpoints/tiny/latest.pt"),
    )
    # The stop cut one log interval in two nowhere: the lines are those of the uninterrupted run.
    assert losses(tmp_path) == losses(trained)


def test_a_run_whose_time_is_up_is_saved_and_resumes_to_the_same_bits(trained, dataset_path, tmp_path):
    options = ["--data", dataset_path, "--run", "tiny", "--pretrain-epochs", 2, "--epochs", 2, "--checkpoint-every", 1]
    done = fork_script("galaxy.py", *options, *TINY, "--minutes", 1e-6, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert "the time is up, and the run saved: python resume_training.py --run tiny goes on" in done.stdout
    state = load_checkpoint(tmp_path / "checkpoints/tiny/latest.pt")
    assert (state["phase"], state["epoch"], state["step"]) == ("predictor", 0, 1)  # at once, in the middle of an epoch
    for more in (["--minutes", 1e-6], ["--minutes", 600]):
        done = fork_script("resume_training.py", "--run", "tiny", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "the time is up" not in done.stdout
    latest = "checkpoints/tiny/latest.pt"
    assert_same(load_checkpoint(tmp_path / latest), load_checkpoint(trained / latest))
    assert losses(tmp_path) == losses(trained)


def test_time_that_is_up_does_not_turn_a_signal_into_one_that_came_twice(data, tmp_path):
    trainer = make_trainer(data, tmp_path)
    trainer.stop_at = 0.0
    trainer.train()
    assert trainer.time_is_up and not trainer.stop_requested
    trainer._request_stop()  # as during the saving: it would raise KeyboardInterrupt there


# Diffusion

DIFFUSION = {"diffusion": True, "unet_blocks": 1, "solver_steps": 2}


def test_a_diffusion_run_from_start_to_end(data, tmp_path):
    trainer = make_trainer(data, tmp_path, **DIFFUSION, epochs=2)
    trainer.train()
    state = load_checkpoint(trainer.checkpoints / "latest.pt")
    assert set(state["networks"]) == {"generator", "predictor"}
    assert (state["phase"], state["epoch"]) == ("generator", 2)
    last = [r for r in read_metrics(trainer.log.path) if r["kind"] == "train"][-1]
    assert {"denoising", "physics", "photometry", "g_loss", "grad_norm", "physics_size"} <= last.keys()
    sampler = GalaxySampler.from_checkpoint(trainer.checkpoints / "latest.pt", "cpu", num_steps=3)
    assert sampler.describe() == "diffusion, sde with 3 steps, guidance 1"
    network = trainer.learner.generator
    images, _ = trainer.batches.some_images()
    assert network.normalise(images).mean().abs() < 0.01
    assert network.normalise(images).square().mean().sqrt() == pytest.approx(1, abs=0.01)


def test_a_diffusion_run_goes_on_to_the_same_bits(data, tmp_path):
    whole = make_trainer(data, tmp_path / "whole", **DIFFUSION)
    whole.start_phase("generator")
    for _ in range(2):
        whole.take_step(100)
    state = copy.deepcopy(whole.state_dict())
    resumed = Trainer(whole.config, data, tmp_path / "c", tmp_path / "s", state)
    for trainer in (whole, resumed):
        for _ in range(3):
            trainer.take_step(100)
    assert_same(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("settings", [{}, DIFFUSION], ids=["gan", "diffusion"])
def test_averages_are_kept_evenly_and_a_run_that_goes_on_keeps_the_same(data, tmp_path, settings):
    given = {**settings, "average_snapshots": 3, "epochs": 2, "batch_size": 32}
    whole = make_trainer(data, tmp_path / "whole", **given)
    whole.train()
    total = 2 * len(whole.batches)
    found = find_snapshots(whole.checkpoints)
    assert [s.step for s in found] == sorted(snapshot_steps(3, total)) and found[-1].step == total
    kept = load_file(found[-1].path)
    averages = whole.learner.power_averages.by_name()
    assert {f"{k}.{name}" for k in range(2) for name in averages[k]} == kept.keys()
    for name, value in averages[1].items():
        assert torch.equal(kept[f"1.{name}"], value.half())
    weights_now = dict(whole.learner.generator.named_parameters())
    assert any(not torch.equal(value, weights_now[name]) for name, value in averages[0].items() if name in weights_now)

    # A run that was stopped in its first epoch, after which somebody left snapshots of what it has yet to take.
    begun = make_trainer(data, tmp_path / "begun", **given)
    begun.run_phase(1)
    begun._finish_predictor()
    for _ in range(2):
        begun.take_step(total)
    state = copy.deepcopy(begun.state_dict())
    assert {"power_averages"} <= state.keys()
    write_snapshot(begun.checkpoints, total + 5, averages)
    Trainer(begun.config, data, begun.checkpoints, tmp_path / "s", state).train()
    again = find_snapshots(begun.checkpoints)
    assert [s.step for s in again] == [s.step for s in found]
    assert [load_file(s.path).keys() for s in again] == [kept.keys()] * 3
    for one, other in zip(found, again, strict=True):
        assert_same(load_file(one.path), load_file(other.path))


def test_no_averages_are_kept_that_nobody_asked_for(data, tmp_path):
    trainer = make_trainer(data, tmp_path)
    trainer.train()
    assert trainer.learner.power_averages is None and find_snapshots(trainer.checkpoints) == []


@pytest.mark.parametrize("weight", ["physics_weight", "photometry_weight"])
def test_each_part_of_the_physics_reaches_the_denoiser(data, tmp_path, weight):
    results = []
    for value in (0.0, 100.0):
        settings = {"physics_weight": 0.0, "photometry_weight": 0.0, weight: value}
        trainer = make_trainer(data, tmp_path, **DIFFUSION, **settings, precision="fp32")
        trainer.batches.start_epoch()
        for step in range(4):
            generator_step(trainer, step)
        results.append(torch.cat([p.detach().flatten() for p in trainer.learner.generator.parameters()]))
    assert not torch.equal(*results)


def test_the_document_s_diffusion_runs(data, tmp_path):
    chosen = {k: v for k, v in (RECIPES["paper"] | DIFFUSION_RECIPES["paper"]).items() if k != "attributes"}
    trainer = make_trainer(data, tmp_path, **{**chosen, **SETTINGS, **DIFFUSION, "latent_dim": Config.latent_dim})
    trainer.try_steps()
    assert trainer.learner.average is None
    assert trainer.learner.generator.process.alphas_cumprod[-1].item() == pytest.approx(0.364, abs=5e-4)
    assert float(trainer.learner.generator.deviation) == 1


def test_a_run_that_would_not_fit_on_the_disk_is_not_begun(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder, "free_space", lambda folder: (tmp_path, 1000))
    config = Config(**SETTINGS, run="r", device="cpu", data=str(data.path))
    with pytest.raises(UserError, match=r"run r writes up to .* has 1e-06 GB free: make room"):
        train(config, data)
    assert not (tmp_path / "checkpoints").exists()


def test_the_predictor_learns_how_sure_it_is(data, tmp_path):
    trainer = make_trainer(data, tmp_path, uncertainty=True)
    predictor = trainer.learner.predictor
    before = {name: value.clone() for name, value in predictor.named_parameters() if name.startswith("doubt")}
    trainer.try_steps()
    assert before and all(
        not torch.equal(value, before[name]) for name, value in predictor.named_parameters() if name in before
    )
