"""Training runs on a GPU: every network, recipe and option, as recorded steps that never wait; and whole runs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

from config_physics import Config
from diffusion_model import build_diffusion_generator
from galaxies.compute.cuda_graphs import RecordedStep
from galaxies.datasets.prepared import PreparedDataset
from galaxies.recipes import DIFFUSION_RECIPES, LIGHT_RECIPES, RECIPES
from galaxies.training.starting import Start
from galaxies.training.trainer import Trainer
from tests.conftest import MODERN, make_trainer, write_dataset, write_flux_dataset

TINY = {"width": 4, "batch_size": 4, "engine": "graph"}
_SMALL_UNET = {"diffusion": True, "width": 8, "unet_blocks": 1, "solver_steps": 2}
_PAPER = {name: value for name, value in RECIPES["paper"].items() if name != "attributes"}

# Every option once, of both families.
RUNS = {
    "default": {},
    "default in float32": {"precision": "fp32", "uncertainty": False, "condition_mask": False},
    "paper": _PAPER,
    "modern": MODERN,
    "frame without normalisation": {
        "batch_norm": False,
        "adversarial": "relativistic",
        "r2_weight": 0.1,
        "augment_discriminator": "fixed",
        "class_weight": 1.0,
        "label_jitter": 0.05,
        "perceptual_weight": 0.1,
        "balanced": True,
        "ema_decay": 0.0,
        "warmup": 3,
    },
    "dcgan": {"generator": "resize", "discriminator": "dcgan", "regression_weight": 0.0, "augment": False},
    "vgg16": {"perceptual_weight": 1.0, "perceptual": "vgg16", "discriminator": "residual"},
    "diffusion": _SMALL_UNET | DIFFUSION_RECIPES["default"],
    "diffusion in float32": _SMALL_UNET
    | {"precision": "fp32", "normalize": False, "stratified": False, "min_snr_gamma": 0.0, "unet_patch": 4},
    "diffusion of the paper": DIFFUSION_RECIPES["paper"] | _SMALL_UNET | {"solver_steps": 2, "precision": "bf16"},
}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A dataset of which a run takes eight batches of four an epoch."""
    return PreparedDataset.open(write_dataset(tmp_path_factory.mktemp("few") / "rendered", 48))


@pytest.fixture(scope="module")
def vgg_weights(tmp_path_factory):
    """A file like torchvision's, of a much thinner network."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    weights, place, c_in = {}, 0, 3
    for group in ((4, 4), (4, 4), (4, 4, 4), (4, 4, 4)):
        for c_out in group:
            weights[f"features.{place}.weight"] = 0.2 * torch.randn(c_out, c_in, 3, 3)
            weights[f"features.{place}.bias"] = torch.zeros(c_out)
            place, c_in = place + 2, c_out
        place += 1
    torch.save(weights, path)
    return path


@pytest.fixture
def thin_vgg(monkeypatch):
    monkeypatch.setattr("galaxies.training.perceptual._VGG_GROUPS", ((4, 4), (4, 4), (4, 4, 4), (4, 4, 4)))


def warm_up(gpu, monkeypatch):
    """Return how often a step is taken until it was recorded: a pretended device has no libraries that set up."""
    if gpu is None:
        return RecordedStep._WARM_UP_STEPS + 1
    monkeypatch.setattr(RecordedStep, "_WARM_UP_STEPS", 1)
    return 2


def take_every_variant(trainer, gpu, times):
    """Take each step that the run knows so many times; return the means of each phase."""
    # A step that is not recorded may look whether photometry's masks still grow.
    quiet = gpu.without_waiting if gpu is not None and trainer.engine.graphs else contextlib.nullcontext
    means, recorded = {}, {}
    for phase in ("predictor", "generator"):
        trainer.start_phase(phase)
        learner, steps = trainer.learner, trainer._steps
        variants = dict.fromkeys(learner.variant(phase, step) for step in range(16))
        for variant, time in itertools.product(variants, range(times)):
            if trainer.batches.is_over:  # an epoch's order goes to the device
                trainer.batches.start_epoch()
            learner.variant = lambda *_, _variant=variant: _variant
            # At first libraries set themselves up, and what is kept from then on is found.
            with quiet() if time == times - 1 else contextlib.nullcontext():
                trainer.take_step(100)
        del learner.variant
        means[phase] = steps.interval.read().means
        recorded[phase] = (steps._recorded.num_graphs, len(variants))
    return means, recorded


@pytest.mark.parametrize("run", RUNS)
def test_every_step_is_recorded(few, tmp_path, gpu, monkeypatch, vgg_weights, thin_vgg, run):
    times = warm_up(gpu, monkeypatch)
    settings = TINY | RUNS[run] | ({"vgg_weights": str(vgg_weights)} if run == "vgg16" else {})
    trainer = make_trainer(few, tmp_path, device="cuda", **settings)
    means, recorded = take_every_variant(trainer, gpu, times)
    assert all(graphs == variants for graphs, variants in recorded.values())
    assert means["predictor"]
    assert means["generator"]  # no step of them that was not finite


@pytest.mark.parametrize("settings", [{}, {"regression_weight": 0.0}], ids=["reading", "shown the condition"])
def test_every_step_at_128_pixels_is_recorded(tmp_path, gpu, monkeypatch, settings):
    times = warm_up(gpu, monkeypatch)
    data = PreparedDataset.open(write_dataset(tmp_path / "rendered", 24, side=128))
    trainer = make_trainer(data, tmp_path, device="cuda", image_size=128, **TINY, **settings)
    assert len(trainer.learner.discriminator.fine) == 2
    means, recorded = take_every_variant(trainer, gpu, times)
    assert all(graphs == variants for graphs, variants in recorded.values())
    assert means["predictor"] and means["generator"]


@pytest.fixture(scope="module")
def few_of_flux(tmp_path_factory):
    """The same in two bands."""
    path = write_flux_dataset(tmp_path_factory.mktemp("flux") / "survey", 48, ("g", "r"))
    return PreparedDataset.open(path)


@pytest.mark.parametrize("run", ["default", "diffusion"])
def test_every_step_on_flux_is_recorded(few_of_flux, tmp_path, gpu, monkeypatch, run):
    attributes = ("magnitude_r", "color_g_r", "size_arcsec", "ellipticity")
    light = LIGHT_RECIPES["diffusion" if run == "diffusion" else "frame"]
    settings = TINY | RUNS[run] | light | few_of_flux.settings(attributes) | {"attributes": attributes}
    times = warm_up(gpu, monkeypatch)
    trainer = make_trainer(few_of_flux, tmp_path, device="cuda", **settings)
    means, recorded = take_every_variant(trainer, gpu, times)
    assert all(graphs == variants for graphs, variants in recorded.values())
    assert means["predictor"] and means["generator"]


@pytest.mark.parametrize("run", ["default", pytest.param("modern", marks=pytest.mark.slow), "diffusion"])
def test_replaying_equals_running(few, tmp_path, gpu, monkeypatch, run):
    times = warm_up(gpu, monkeypatch) + 1
    found = {}
    for engine in ("graph", "eager"):
        settings = TINY | RUNS[run] | {"engine": engine, "precision": "fp32"}
        trainer = make_trainer(few, tmp_path / engine, device="cuda", **settings)
        found[engine], _ = take_every_variant(trainer, gpu, times)
    for phase, expected in found["eager"].items():
        # A true device adds up in any order.
        tolerance = {"rel": 1e-4, "abs": 1e-6} if gpu is not None else {"rel": 2e-2, "abs": 1e-3}
        assert found["graph"][phase] == pytest.approx(expected, **tolerance), phase


@pytest.mark.parametrize("run", ["default", "modern", "diffusion"])
def test_steps_on_mps(few, tmp_path, pretended_mps, run):
    """No number of eight bytes, no operation that MPS lacks; the same numbers as on the CPU."""
    found = {}
    for device in ("mps", "cpu"):
        trainer = make_trainer(few, tmp_path / device, device=device, **TINY | RUNS[run] | {"precision": "fp32"})
        found[device], _ = take_every_variant(trainer, None, 1)
    for phase, expected in found["cpu"].items():
        assert found["mps"][phase] == pytest.approx(expected, rel=1e-3, abs=1e-5), phase


@pytest.mark.parametrize("family", [{}, _SMALL_UNET], ids=["gan", "diffusion"])
def test_a_run_begins_with_the_weights_of_another(few, tmp_path, gpu, family):
    settings = TINY | family | {"engine": "eager"}
    first = make_trainer(few, tmp_path / "first", device="cuda", **settings)
    state = {"networks": first.learner.state_dict()["networks"], "ema": None, "provenance": {"sha256": {}}}
    start = Start(tmp_path / "first.pt", state, first.config, "0" * 64)
    config = dataclasses.replace(first.config, attributes=("ellipticity", "size", "color"), seed=1)
    second = Trainer(config, few, tmp_path / "c", tmp_path / "s", None, start)
    assert second.started_from["taken_over"].endswith("; new: optimisers and averages")
    name = "unet.embed_condition.0.weight" if family else "network.project.weight"
    new, old = (trainer.learner.generator.state_dict()[name].cpu() for trainer in (second, first))
    before = 0 if family else config.latent_dim  # then four classes, the attributes, and what is known of them
    assert torch.equal(new[:, before + 4], old[:, before + 4 + 2]) and torch.equal(new[:, :before], old[:, :before])
    second.start_phase("generator")
    second.batches.start_epoch()
    second.take_step(10)
    assert second._steps.interval.read().num_bad == 0


def test_the_u_net_doubles_its_maps_without_a_detour_by_float32(pretended, monkeypatch):
    interpolate, kinds = F.interpolate, []

    @functools.wraps(interpolate)
    def watched(maps, **how):
        result = interpolate(maps, **how)
        kinds.append((maps.dtype, result.dtype))
        return result

    monkeypatch.setattr(F, "interpolate", watched)
    unet = build_diffusion_generator(Config(diffusion=True, width=8, unet_blocks=1)).unet.to("cuda")
    condition = torch.randn(2, unet.embed_condition[0].in_features, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        unet(torch.randn(2, 3, 64, 64, device="cuda"), torch.rand(2, device="cuda"), condition)
    assert set(kinds) == {(torch.bfloat16, torch.bfloat16)}
