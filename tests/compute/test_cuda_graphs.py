"""Steps that can be recorded as CUDA graphs: nothing waits for the device, and replaying equals running."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.kernels import as_on_cuda
from config_physics import Config
from galaxies.compute.cuda_graphs import RecordedStep
from galaxies.compute.device import Engine
from galaxies.datasets.batches import DeviceBatches
from galaxies.recipes import RECIPES
from galaxies.training.gan_learner import GanLearner
from galaxies.training.learner import Variant
from galaxies.training.steps import PhaseSteps
from tests.conftest import MODERN, make_trainer, needs_cuda

NETWORKS = {
    "default": {},
    "dcgan": {"generator": "transposed", "discriminator": "dcgan"},
    # Every option of the GAN, in two combinations.
    "modern": MODERN,
    "modern frame": MODERN
    | {"generator": "frame", "batch_norm": False, "discriminator": "projection", "adversarial": "bce"}
    | {"augment_discriminator": "fixed"},
}

# What makes the host wait for the device, or copies from the host's ordinary memory.
_WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique", "lift_fresh", "item")


class Watch(TorchDispatchMode):
    """Collect the operations that a CUDA graph cannot hold."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.split("::")[1]
        by_mask = name.startswith("index") and any(
            isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8)
            for arg in args
            if isinstance(arg, (list, tuple))
            for part in arg
        )
        if name in _WAITING or by_mask:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def as_if_recording():
    """Take the branches of a recording on CUDA where the code has some."""
    with as_on_cuda():
        yield


@pytest.mark.parametrize("networks", NETWORKS)
def test_no_step_waits_for_the_device(data, tmp_path, networks, as_if_recording):
    settings = NETWORKS[networks]
    trainer = make_trainer(data, tmp_path, precision="fp32", **settings)
    trainer.batches.start_epoch()
    variants = [Variant("predictor"), *(trainer.learner.variant("generator", step) for step in range(4))]
    assert len(set(variants)) == 4  # predictor, penalised, photometric, plain
    found = {}
    for variant in variants:
        trainer.start_phase(variant.phase)
        trainer.batches.start_epoch()
        for _ in range(2):  # the first fills what is kept from then on
            trainer.batches.stage()
            with Watch() as watch:
                trainer._steps._run(variant)
        found[variant] = watch.found
    assert all(names == [] for names in found.values()), found


def test_a_step_that_looks_at_the_device_would_be_noticed(data, tmp_path):
    # Outside of a recording, photometry's masks grow until nothing changes any more, and somebody has to look.
    trainer = make_trainer(data, tmp_path, precision="fp32")
    trainer.start_phase("generator")
    trainer.batches.start_epoch()
    trainer.batches.stage()
    with Watch() as watch:
        trainer._steps._run(trainer.learner.variant("generator", 2))  # one with photometry
    assert set(watch.found) == {"equal", "lift_fresh"}  # the second is how a CPU alone sorts, by numpy


def test_the_watch_sees_what_waits():
    with Watch() as watch:
        values = torch.arange(4.0)
        values[values > 1]
        float(values.sum())
        torch.tensor(3.0)
    assert {"index", "_local_scalar_dense", "lift_fresh"} <= set(watch.found)


@pytest.mark.parametrize("networks", ["default", "modern"])
def test_a_step_that_changes_place_would_be_noticed(data, tmp_path, networks):
    """What a recorded step reads and writes must stay where it is: every state keeps its address."""
    trainer = make_trainer(data, tmp_path, **NETWORKS[networks])

    def addresses():
        found = {}

        def visit(value, path):
            if isinstance(value, dict):
                for key, item in value.items():
                    visit(item, f"{path}.{key}")
            elif isinstance(value, torch.Tensor):
                found[path] = value.data_ptr()

        learner = trainer.learner
        for name, network in learner.networks.items():
            visit(network.state_dict(), name)
            visit(learner.optimizers[name].state_dict()["state"], f"{name} optimizer")
        visit(learner.average.module.state_dict(), "average")
        if learner.power_averages is not None:
            visit(dict(enumerate(learner.power_averages.by_name())), "averages of any length")
        if learner.augmentation is not None:
            visit(learner.augmentation.state_dict(), "augmentation")
        visit({k: v for k, v in vars(trainer.batches).items() if k.startswith("_device") or k == "_start"}, "batches")
        visit({"interval": trainer._steps.interval._sums, "epoch": trainer._steps.epoch_total._sums}, "meters")
        return found

    for phase in ("predictor", "generator"):
        trainer.start_phase(phase)
        trainer.take_step(100)
        before = addresses()
        for _ in range(2 * len(trainer.batches) + 1):  # into another epoch
            trainer.take_step(100)
        assert addresses() == before


def test_a_step_runs_with_the_kernels_of_its_engine(data, tmp_path, monkeypatch):
    trainer, order = make_trainer(data, tmp_path, precision="fp32"), []

    @contextmanager
    def kernels(engine):
        order.append("in")
        yield
        order.append("out")

    monkeypatch.setattr(Engine, "kernels", kernels)
    run = trainer._steps._run
    trainer._steps._recorded._step = lambda variant: (run(variant), order.append("step"))
    trainer.take_step(10)
    assert order == ["in", "step", "out"]


def test_without_graphs_a_recorded_step_is_the_step():
    seen = []
    recorded = RecordedStep(seen.append, Engine.choose("cpu", mode="graph"))
    for variant in ("a", "b", "a"):
        recorded(variant)
    assert seen == ["a", "b", "a"]
    assert recorded.num_graphs == 0


def test_the_engine_says_why_it_records_nothing():
    assert "no CUDA graphs on cpu" in Engine.choose("cpu", mode="graph").describe()


# On a GPU, and the comparison itself on any device


def phase_steps(data, mode: str, device: str, phase: str, **settings) -> PhaseSteps:
    config = Config(width=8, latent_dim=8, batch_size=16, device=device, engine=mode, precision="fp32", **settings)
    engine = Engine.choose(device, "fp32", mode)
    torch.manual_seed(0)
    return PhaseSteps(phase, GanLearner(config, engine), DeviceBatches(data, "train", config, engine.device))


def run(data, mode: str, device: str, phase: str, steps: int, **settings):
    phases = phase_steps(data, mode, device, phase, **settings)
    for step in range(steps):
        phases.take(step, steps)
    return phases, phases.learner


def copied(state):
    """Copy a nested state: tensors too, which the next step would change in place."""
    if isinstance(state, dict):
        return {name: copied(value) for name, value in state.items()}
    return state.clone() if isinstance(state, torch.Tensor) else state


def weights(learner: GanLearner) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([p.detach().flatten() for p in network.parameters()])
        for name, network in {**learner.networks, "average": learner.average.module}.items()
    }


def complaints(recorded: PhaseSteps, plain: PhaseSteps, steps: int) -> list[str]:
    """Take steps with both, from the same state each time, and say where they do what rounding does not explain.

    Sums by atomic additions and cuDNN's choice of kernels differ from run to run, and Adam's first steps turn the sign
    of a gradient that is nearly zero into a whole step. So runs drift apart, and single weights differ at once. From
    the same state, though, the losses of a step agree but for rounding, and so do the length and the direction of the
    update of a whole network, of which such weights are a small part.
    """
    found = []
    for step in range(steps):
        state = copied({**recorded.learner.state_dict(), "step": step})
        plain.learner.load_state_dict(state)
        plain.batches.load_state_dict(copied(recorded.batches.state_dict()))
        means, moves = [], []
        for phases in (recorded, plain):
            phases.learner.engine.restore_random_states(state["random"])
            before = weights(phases.learner)
            phases.interval.clear()
            phases.take(step, steps)
            means.append(phases.interval.read().means)
            after = weights(phases.learner)
            moves.append({name: (after[name] - before[name]).double() for name in after})
        for name, value in means[1].items():
            if means[0].get(name) != pytest.approx(value, rel=1e-2, abs=1e-3):
                found.append(f"step {step}: {name} is {means[0].get(name)}, not {value}")
        for name, move in moves[1].items():
            length, expected = float(moves[0][name].norm()), float(move.norm())
            if length != pytest.approx(expected, rel=2e-2):
                found.append(f"step {step}: {name} moves by {length}, not {expected}")
            elif expected and float(moves[0][name] @ move) < 0.98 * length * expected:
                found.append(f"step {step}: {name} moves into another direction")
    return found


def keep_the_noise(phases: PhaseSteps) -> None:
    """Draw the same noise in every step, as a graph that knows nothing of the generator."""
    state, take = phases.learner.noise.get_state(), phases.take

    def with_old_noise(step, steps):
        phases.learner.noise.set_state(state)
        take(step, steps)

    phases.take = with_old_noise


def keep_the_step_size(phases: PhaseSteps) -> None:
    """Take steps of the size of the third, as a graph that holds a number."""
    schedule = phases.learner.schedule
    phases.learner.schedule = lambda phase, step, steps: schedule(phase, min(step, 2), steps)


def forget_the_batch(phases: PhaseSteps) -> None:
    """Draw the batch that the third step saw, as a graph that reads a place which is no longer written to."""
    stage, count = phases.batches.stage, []

    def staged():
        count.append(1)
        if len(count) <= 3:
            stage()

    phases.batches.stage = staged


def forget_an_update(network: str):
    def sabotage(phases: PhaseSteps) -> None:
        """Leave a network where it is after the second step, as if its weights had gone to another place."""
        take = phases.take

        def taken(step, steps):
            kept = copied(phases.learner.networks[network].state_dict())
            take(step, steps)
            if step > 2:
                phases.learner.networks[network].load_state_dict(kept)

        phases.take = taken

    return sabotage


def forget_the_average(phases: PhaseSteps) -> None:
    update, count = phases.learner.average.update, []
    phases.learner.average.update = lambda network: update(network) if count.append(1) or len(count) < 4 else None


SABOTAGES = {
    "noise": ("generator", keep_the_noise),
    "step size": ("predictor", keep_the_step_size),
    "batch": ("generator", forget_the_batch),
    "generator": ("generator", forget_an_update("generator")),
    "discriminator": ("generator", forget_an_update("discriminator")),
    "predictor": ("predictor", forget_an_update("predictor")),
    "average": ("generator", forget_the_average),
}


@pytest.mark.parametrize("phase", ["predictor", "generator"])
def test_the_comparison_finds_nothing_where_nothing_is(data, phase):
    assert complaints(*(phase_steps(data, "eager", "cpu", phase) for _ in range(2)), 6) == []


_ALIKE = ("generator", "discriminator")  # as "predictor"


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in _ALIKE else n for n in SABOTAGES])
def test_the_comparison_finds_what_a_recording_can_do_wrong(data, name):
    phase, sabotage = SABOTAGES[name]
    recorded, plain = (phase_steps(data, "eager", "cpu", phase) for _ in range(2))
    assert complaints(recorded, plain, 2) == []
    sabotage(recorded)
    assert complaints(recorded, plain, 8) != []


def test_the_comparison_forgives_rounding(data):
    """A gradient that is off by rounding turns the first steps of weights whose gradient is nearly zero."""
    recorded, plain = (phase_steps(data, "eager", "cpu", "predictor") for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    for parameter in recorded.learner.predictor.parameters():
        parameter.register_hook(lambda g: g + 1e-6 * g.abs().max() * torch.randn(g.shape, generator=generator))
    assert complaints(recorded, plain, 6) == []


@needs_cuda
@pytest.mark.parametrize("networks", NETWORKS)
@pytest.mark.parametrize("phase", ["predictor", "generator"])
def test_replaying_equals_running(data, phase, networks):
    recorded, plain = (phase_steps(data, mode, "cuda", phase, **NETWORKS[networks]) for mode in ("graph", "eager"))
    assert complaints(recorded, plain, 24) == []
    assert recorded._recorded.num_graphs == (1 if phase == "predictor" else 3)


@needs_cuda
def test_the_step_size_of_a_recorded_step_falls(data):
    _, learner = run(data, "graph", "cuda", "predictor", 20)
    rate = learner.optimizers["predictor"].param_groups[0]["lr"]
    assert float(rate) == pytest.approx(Config.pretrain_learning_rate / 20)


@needs_cuda
def test_every_replay_draws_new_noise(data):
    torch.manual_seed(0)
    engine = Engine.choose("cuda", "fp32", "graph")
    generator = torch.Generator("cuda").manual_seed(1)
    drawn = torch.zeros(4, device="cuda")
    recorded = RecordedStep(
        lambda _: drawn.copy_(torch.randn(4, device="cuda", generator=generator)), engine, (generator,)
    )
    seen = []
    for _ in range(6):
        recorded(None)
        seen.append(tuple(drawn.tolist()))
    assert recorded.num_graphs == 1
    assert len(set(seen)) == 6
    expected = torch.Generator("cuda").manual_seed(1)
    for values in seen:
        assert values == tuple(torch.randn(4, device="cuda", generator=expected).tolist())


@needs_cuda
def test_a_step_that_cannot_be_recorded_goes_on_as_it_is(capsys):
    engine = Engine.choose("cuda", "fp32", "graph")
    total = torch.zeros((), device="cuda")

    def waits(_):
        total.add_(1)
        float(total)

    recorded = RecordedStep(waits, engine)
    for _ in range(5):
        recorded(None)
    assert float(total) == 5
    assert "cannot be recorded" in capsys.readouterr().out


@needs_cuda
def test_the_paper_recipe_is_recorded_too(data):
    settings = {k: RECIPES["paper"][k] for k in ("generator", "discriminator", "r1_weight", "photometry_weight")}
    recorded, _ = run(data, "graph", "cuda", "generator", 8, **settings)
    assert recorded._recorded.num_graphs == 1
