"""Compiled steps: the numbers of those that are not, a checkpoint's names, and what cannot be compiled left plain."""

from __future__ import annotations

import sys

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

from galaxies.compute import compilation
from galaxies.compute.compilation import Compiler, pays
from galaxies.training import learner as learner_module
from tests.conftest import MODERN, differences, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's own, about itself
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _afresh():
    """Forget what other tests compiled, of which PyTorch keeps a number that is limited."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Backend:
    """Run what is compiled as it was written, and count how often that is."""

    def __init__(self):
        self.compiled, self.runs = 0, 0

    def __call__(self, module, inputs):
        self.compiled += 1

        def run(*arguments):
            self.runs += 1
            return module(*arguments)

        return run


def trainer_of(data, tmp_path, monkeypatch, backend, **settings):
    monkeypatch.setattr(learner_module, "Compiler", lambda active: Compiler(active, backend))
    # Photometry has loops of its own on a CPU, whose compiling takes a while and shows nothing here.
    usual = {"precision": "fp32", "photometry_weight": 0.0, "compile": "on"}
    return make_trainer(data, tmp_path, **{**usual, **settings})


def states_after(trainer, steps=4):
    """Return the state and the means of each phase after some steps of both."""
    means = []
    for phase in ("predictor", "generator"):
        trainer.start_phase(phase)
        for _ in range(steps):
            trainer.take_step(100)
        means.append(trainer._steps.interval.read().means)
    return trainer.learner.state_dict(), means


RUNS = {
    "default": ({}, "eager"),
    "bf16": ({"precision": "bf16"}, "eager"),
    "dcgan": ({"generator": "transposed", "discriminator": "dcgan", "pixel_noise": False}, "aot_eager"),
    "modern": (MODERN, "eager"),
    "diffusion": ({"diffusion": True, "width": 4}, "eager"),
}


_LONG = ("bf16", "dcgan", "modern")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in _LONG else n for n in RUNS])
def test_a_compiled_run_is_the_run(data, tmp_path, monkeypatch, name):
    settings, backend = RUNS[name]
    expected, expected_means = states_after(trainer_of(data, tmp_path, monkeypatch, backend, **settings, compile="off"))
    trainer = trainer_of(data, tmp_path, monkeypatch, backend, **settings)
    assert trainer.engine.compiled and "compiled" in trainer.engine.describe()
    state, means = states_after(trainer)
    assert trainer.learner.compiler.active  # nothing failed
    assert not differences(state["random"], expected["random"])
    for one, other in zip(means, expected_means, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    assert state["networks"].keys() == expected["networks"].keys()
    for network, tensors in state["networks"].items():
        assert list(tensors) == list(expected["networks"][network])  # a checkpoint's names
        for key, value in tensors.items():
            torch.testing.assert_close(value, expected["networks"][network][key], rtol=1e-3, atol=1e-5)


def test_penalised_steps_leave_the_discriminator_plain(data, tmp_path, monkeypatch):
    backend = Backend()
    trainer = trainer_of(data, tmp_path, monkeypatch, backend, r1_weight=0.2)
    trainer.start_phase("generator")
    assess, plainly = trainer.learner.discriminator.assess, []
    monkeypatch.setattr(
        trainer.learner.discriminator, "assess", lambda *a: (plainly.append(torch.is_grad_enabled()), assess(*a))[1]
    )
    runs = []
    for _ in range(8):
        before = backend.runs, len(plainly)
        trainer.take_step(100)
        runs.append((backend.runs - before[0], len(plainly) - before[1]))
    penalised, others = {runs[0], runs[4]}, {*runs[1:4], *runs[5:]}
    assert {plain for _, plain in penalised} == {2} and {plain for _, plain in others} == {0}
    assert max(compiled for compiled, _ in penalised) < min(compiled for compiled, _ in others)
    assert trainer._steps.interval.read().num_bad == 0


def test_nothing_is_compiled_again_and_again(data, tmp_path, monkeypatch):
    backend = Backend()
    trainer = trainer_of(data, tmp_path, monkeypatch, backend)
    trainer.start_phase("generator")
    for _ in range(4):
        trainer.take_step(100)
    compiled = backend.compiled
    for _ in range(4):
        trainer.take_step(100)
    assert backend.compiled == compiled > 0


def forward_fails(module, inputs):
    raise RuntimeError("no compiler here\nand more lines")


def backward_fails(module, inputs):
    return aot_autograd(fw_compiler=lambda graph, _: graph, bw_compiler=forward_fails)(module, inputs)


@pytest.mark.parametrize("backend", [forward_fails, backward_fails])
def test_where_compiling_fails_the_run_goes_on_as_it_is(data, tmp_path, monkeypatch, capsys, backend):
    expected, _ = states_after(trainer_of(data, tmp_path, monkeypatch, backend, compile="off"))
    capsys.readouterr()
    trainer = trainer_of(data, tmp_path, monkeypatch, backend)
    state, _ = states_after(trainer)
    assert not differences(state, expected)
    assert not trainer.learner.compiler.active
    said = capsys.readouterr().out
    assert said.count("steps cannot be compiled here") == 1 and "no compiler here" in said
    assert "--compile off" in said and "more lines" not in said


def test_a_failure_of_the_function_itself_is_its_own():
    def function(x):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        Compiler(True, "eager")(function)(torch.ones(2))


def test_without_memory_nothing_else_is_tried():
    def backend(module, inputs):
        def run(*arguments):
            raise torch.OutOfMemoryError("full")

        return run

    compiler = Compiler(True, backend)
    with pytest.raises(torch.OutOfMemoryError):
        compiler(lambda x: x + 1)(torch.ones(2))
    assert compiler.active


def test_who_compiles_nothing_gets_the_function_itself():
    assert Compiler(False)(len) is len


@pytest.mark.parametrize(
    ("lacks", "device", "steps", "expected"),
    [
        ("", "cuda", 50_000, True),
        ("", "cuda", 30_000, False),
        ("", "cpu", 50_000, False),
        ("", "mps", 50_000, False),
        ("triton", "cuda", 50_000, False),
        ("compiler", "cuda", 50_000, False),
        ("linux", "cuda", 50_000, False),
    ],
)
def test_auto_compiles_where_it_can_and_pays(monkeypatch, lacks, device, steps, expected):
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: None if lacks == "triton" else object())
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None if lacks == "compiler" else name)
    monkeypatch.setattr(sys, "platform", "win32" if lacks == "linux" else "linux")
    monkeypatch.delenv("CC", raising=False)
    assert pays(torch.device(device), steps) is expected


@pytest.mark.parametrize(("setting", "compiled"), [("auto", False), ("off", False), ("on", True)])
def test_the_setting_decides_on_a_cpu(data, tmp_path, setting, compiled):
    trainer = make_trainer(data, tmp_path, compile=setting)
    assert trainer.engine.compiled is trainer.learner.engine.compiled is compiled
