"""The least time by network shapes: known answers for single layers, and PyTorch's own counter on real steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from benchmarks import roofline, training_access
from config_physics import Config
from galaxies.networks import galaxy_frame, layers
from galaxies.recipes import RECIPES
from physics_model import build_predictor
from tests.conftest import MODERN

PEAK = roofline.Peak({"fp32": 1e9, "bf16": 4e9}, 1e8, "made up")


@pytest.fixture(scope="module")
def made():
    return training_access.made_data(16)


def recorded(layer, features):
    with roofline._Recorder() as recorder:
        layer(features)
    (product,) = recorder.products
    return product


# Single layers, by hand


@pytest.mark.parametrize(
    ("layer", "shape", "multiplications", "outputs"),
    [
        (nn.Conv2d(3, 8, 4, 2, 1), (1, 3, 16, 16), 8 * 8 * 8 * 3 * 4 * 4, 8 * 8 * 8),
        (nn.Conv2d(5, 7, 3, padding=1), (1, 5, 10, 10), 10 * 10 * 7 * 5 * 3 * 3, 7 * 10 * 10),
        (nn.ConvTranspose2d(6, 4, 4, 2, 1), (1, 6, 8, 8), 8 * 8 * 6 * 4 * 4 * 4, 4 * 16 * 16),
        (nn.Linear(12, 5), (1, 12), 12 * 5, 5),
    ],
)
def test_a_layer(layer, shape, multiplications, outputs):
    product = recorded(layer, torch.zeros(shape))
    assert product.multiplications == multiplications
    assert product.outputs == outputs
    assert product.inputs == torch.Size(shape).numel()
    assert product.weights == layer.weight.numel()


def test_passes_are_those_that_need_a_gradient():
    layer, features = nn.Linear(3, 2), torch.zeros(1, 3)
    assert recorded(layer, features).passes == 2  # forward, weight
    assert recorded(layer, features.clone().requires_grad_()).passes == 3
    layer.requires_grad_(False)
    assert recorded(layer, features).passes == 1


def test_work_by_hand():
    product = roofline.Product((5, 12), 60, 12, 5, 60, passes=3)
    work = roofline.Work((product,), batch=10, other_bytes=1000)
    assert work.flops == 3 * 2 * 60 * 10
    assert work.bytes == 1000 + 3 * 4 * (10 * (12 + 5) + 60)
    assert roofline.Work((product,), batch=10, bf16=True).bytes == 3 * 2 * (10 * (12 + 5) + 60)


def test_least_time_is_the_larger_of_both():
    product = roofline.Product((1,), multiplications=1000, inputs=10, outputs=10, weights=5, passes=1)
    busy = roofline.Work((product,), batch=1).least(PEAK)
    assert busy["limited_by"] == "arithmetic"
    assert busy["least_ms"] == pytest.approx(2000 / 1e9 * 1e3)
    waiting = roofline.Work((product,), batch=1, other_bytes=1e6).least(PEAK)
    assert waiting["limited_by"] == "memory"
    assert waiting["least_ms"] == pytest.approx(1000100 / 1e8 * 1e3)
    assert waiting["layerwise_ms"] == pytest.approx((1e6 / 1e8 + 2000 / 1e9) * 1e3)


def test_bf16_has_its_own_peak():
    product = roofline.Product((1,), multiplications=10**6, inputs=1, outputs=1, weights=1, passes=1)
    full, half = (roofline.Work((product,), batch=1, bf16=bf16).least(PEAK)["least_ms"] for bf16 in (False, True))
    assert full == pytest.approx(4 * half)


def test_work_done_several_times():
    work = roofline.Work((roofline.Product((1,), 7, 1, 2, 3, passes=2),), batch=2, other_bytes=50)
    assert work.times(5).flops == 5 * work.flops
    assert work.times(5).bytes == 5 * work.bytes


# Whole steps


class Counter(TorchDispatchMode):
    """PyTorch's formulas, without the bookkeeping by module, which cannot see gradients of gradients."""

    flops = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


def small(recipe="default", **settings):
    return Config(
        **{**RECIPES[recipe], "width": 4, "batch_size": 4, "device": "cpu", "precision": "fp32", "log_every": 1000}
        | settings
    )


@pytest.fixture
def without_padding(monkeypatch):
    """Leave out the channels of zeros that only a CPU adds, for its speed."""
    monkeypatch.setattr(layers.ThinConv2d, "forward", nn.Conv2d.forward)


@pytest.fixture
def without_sums_of_patterns(monkeypatch):
    """Leave out the sums over pixels in the gradient of the frame's patterns: products of matrices, but no layers."""
    backward = galaxy_frame._Patterns.backward

    def uncounted(*args):
        with _disable_current_modes():
            return backward(*args)

    monkeypatch.setattr(galaxy_frame._Patterns, "backward", staticmethod(uncounted))


def counted(config, made, folder, phase, steps, mode):
    trainer = training_access.make_trainer(config, made, folder)
    trainer.start_phase(phase)
    with mode:
        for _ in range(steps):
            trainer.take_step(training_access.TOTAL_STEPS)


@pytest.mark.parametrize(
    "settings",
    [
        {"recipe": "paper"},
        {"recipe": "paper", "r1_weight": 0.2},
        {"photometry_weight": 0.0},
        {"photometry_weight": 0.0, "generator": "resize", "uncertainty": False, "condition_mask": False},
        {"photometry_weight": 0.0, "r1_weight": 0.0},
        {"photometry_weight": 0.0, "generator": "residual", "discriminator": "residual"},
        {
            "photometry_weight": 0.0,
            "batch_norm": False,
            "r2_weight": 0.2,
            "regression_weight": 1.0,
            "pixel_noise": True,
        },
        {"photometry_weight": 0.0, **MODERN},
    ],
    ids=["paper", "paper with penalty", "default", "resize", "no penalty", "residual", "frame with options", "modern"],
)
def test_a_generator_step_has_the_operations_that_pytorch_counts(
    settings, made, tmp_path, without_padding, without_sums_of_patterns
):
    config, period = small(**settings), roofline.PENALTY_EVERY
    counted(config, made, tmp_path, "generator", period, counter := Counter())
    assert period * roofline.generator_step(config, bf16=False).flops == counter.flops


def test_photometry_adds_hardly_any_multiplication(made, tmp_path, without_padding):
    # Its filters are small next to networks of the full width, of which these are a sixteenth in either direction.
    config = small(width=16)
    counted(config, made, tmp_path, "generator", roofline.PHOTOMETRY_EVERY, counter := Counter())
    estimate = roofline.PHOTOMETRY_EVERY * roofline.generator_step(config, bf16=False).flops
    assert estimate < counter.flops < 1.02 * estimate


@pytest.mark.parametrize("recipe", ["paper", "default"])
def test_a_predictor_step_has_the_operations_that_pytorch_counts(recipe, made, tmp_path):
    config = small(recipe)
    counted(config, made, tmp_path, "predictor", 1, counter := Counter())
    assert roofline.predictor_step(config, bf16=False).flops == counter.flops


def test_the_counter_of_pytorch_agrees_with_its_formulas(made, tmp_path, without_padding):
    config = small("paper")
    counted(config, made, tmp_path, "generator", 1, counter := FlopCounterMode(display=False))
    assert roofline.generator_step(config, bf16=False).flops == counter.get_total_flops()


@pytest.mark.parametrize("recipe", ["paper", "default"])
def test_generation_has_the_operations_that_pytorch_counts(recipe):
    config = small(recipe)
    network = roofline.build_generator(config).eval()
    with Counter() as counter, torch.no_grad():
        network(torch.zeros(3, network.noise_dim), torch.zeros(3, config.condition_dim))
    assert roofline.generation(config, 3).flops == counter.flops


@pytest.mark.parametrize(("guidance", "evaluations"), [(1.0, 7), (2.0, 14)])
def test_a_diffusion_model_is_evaluated_at_every_step(guidance, evaluations):
    config = Config(diffusion=True, width=4, unet_blocks=1, solver_steps=7, guidance=guidance)
    network = roofline.build_generator(config).eval()
    with Counter() as counter, torch.no_grad():
        network.output(torch.zeros(3, 3, 64, 64), torch.ones(3).long(), torch.zeros(3, config.condition_dim))
    assert roofline.generation(config, 3).flops == evaluations * counter.flops


def test_the_document_s_step_of_64_images():
    # Multiplications of an image by hand: generator, discriminator, predictor.
    g = [108 * 4096, 16 * 256 * 256 * 16, 64 * 256 * 128 * 16, 256 * 128 * 64 * 16, 1024 * 64 * 3 * 16]
    first = 1024 * 64 * 11 * 16  # of the discriminator, on image and condition; only G's update wants its gradient
    d = [256 * 128 * 64 * 16, 64 * 256 * 128 * 16, 16 * 256 * 256 * 16, 4096]
    p = [1024 * 64 * 3 * 9, 256 * 128 * 64 * 9, 64 * 256 * 128 * 9, 256 * 256, 256 * 4]
    passes = 2 * g[0] + 3 * sum(g[1:]) + 6 * first + 8 * sum(d) + 2 * sum(p)
    flops = roofline.generator_step(Config(**RECIPES["paper"]), bf16=False).flops
    assert flops == 2 * 64 * passes
    assert flops == pytest.approx(138.4e9, rel=1e-3)


def test_the_optimiser_moves_eight_values_a_weight():
    config = small()
    work = roofline.predictor_step(config, bf16=True)
    weights = sum(p.numel() for p in build_predictor(config).parameters())
    assert work.other_bytes == 4 * 8 * weights


def test_more_images_need_more():
    few, many = (roofline.generator_step(small(batch_size=size), bf16=False) for size in (4, 8))
    assert many.flops == 2 * few.flops
    assert few.bytes < many.bytes < 2 * few.bytes


def test_counting_changes_no_random_number():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    roofline.generator_step(small(), bf16=False)
    assert torch.equal(torch.rand(3), expected)


def test_reading_images():
    assert roofline.reading(10, 64).bytes == 10 * 3 * 64 * 64 * 4
    assert roofline.reading(10, 64).least(PEAK)["limited_by"] == "memory"
