"""Convolutions with channels of zeros: the same values and gradients, and eights wherever CUDA convolves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from config_physics import Config
from diffusion_model import build_diffusion_generator
from galaxies.networks import layers
from galaxies.networks.layers import PaddedConv2d, PaddedConvTranspose2d, ThinConv2d
from gan_model import DISCRIMINATORS, GENERATORS, build_discriminator, gradient_penalty
from physics_model import build_predictor


@pytest.fixture
def _eights(monkeypatch):
    """Take the way that CUDA takes."""
    monkeypatch.setattr(layers, "_CHANNEL_STEP", {"cpu": 8})


def plain(layer, features):
    """Convolve without any channels of zeros."""
    convolve = F.conv_transpose2d if isinstance(layer, nn.ConvTranspose2d) else F.conv2d
    return convolve(features, layer.weight, layer.bias, layer.stride, layer.padding)


def looked_at(work, layer, features):
    """Return the result of work, its gradients in features and weights, and those of the gradient's square."""
    result = work(features)
    (first,) = torch.autograd.grad(result.square().sum(), features, create_graph=True)
    inputs = [features, *layer.parameters()]
    return result, first, torch.autograd.grad(result.sum() + first.square().sum(), inputs)


@pytest.mark.usefixtures("_eights")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda bias: PaddedConv2d(3, 16, 4, stride=2, padding=1, bias=bias),
        lambda bias: PaddedConv2d(11, 5, 1, bias=bias),
        lambda bias: PaddedConv2d(8, 3, 3, padding=1, bias=bias),
        lambda bias: ThinConv2d(6, 3, 3, padding=1, bias=bias),
        lambda bias: PaddedConvTranspose2d(6, 3, 4, stride=2, padding=1, bias=bias),
    ],
)
def test_channels_of_zeros_change_nothing(make, bias):
    layer = make(bias).double()
    features = torch.randn(2, layer.in_channels, 8, 8, dtype=torch.float64, requires_grad=True)
    found, expected = (looked_at(work, layer, features) for work in (layer, lambda given: plain(layer, given)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Convolutions(TorchDispatchMode):
    """Remembers by how many channels of how many every convolution goes."""

    def __init__(self):
        super().__init__()
        self.channels = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name == "aten::convolution":
            self.channels.append(tuple(args[1].shape[:2]))
        elif name == "aten::convolution_backward":
            self.channels.append(tuple(args[2].shape[:2]))
        return func(*args, **kwargs or {})


def channels_in_training(config):
    """Return the channels that each convolution of a step goes by, penalties included."""
    generator = GENERATORS[config.generator](config)
    discriminator, predictor = build_discriminator(config), build_predictor(config)
    z, condition = torch.randn(8, generator.noise_dim), torch.randn(8, config.condition_dim)
    with Convolutions() as seen:
        with torch.autocast("cpu", torch.bfloat16):
            images = generator(z, condition)
            logits, _ = discriminator.assess(images, condition)
            loss = gradient_penalty(logits, images) + predictor(images).float().sum()
        loss.backward()
    return seen.channels


@pytest.mark.usefixtures("_eights")
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_every_convolution_of_a_step_goes_by_eights(generator, discriminator, monkeypatch):
    monkeypatch.setattr("galaxies.images.resampling._BY_PRODUCTS", frozenset({"cpu"}))
    config = Config(generator=generator, discriminator=discriminator, width=16)
    channels = channels_in_training(config)
    assert len(channels) > 20
    assert [pair for pair in channels if pair[0] % 8 or pair[1] % 8] == []


@pytest.mark.usefixtures("_eights")
def test_every_convolution_of_the_u_net_goes_by_eights():
    unet = build_diffusion_generator(Config(diffusion=True, width=16, unet_blocks=1)).unet
    with Convolutions() as seen:
        unet(
            torch.randn(2, 3, 64, 64), torch.rand(2), torch.randn(2, unet.embed_condition[0].in_features)
        ).sum().backward()
    assert len(seen.channels) > 40
    assert [pair for pair in seen.channels if pair[0] % 8 or pair[1] % 8] == []


def test_elsewhere_first_convolutions_are_plain():
    config = Config(width=16)
    assert (16, 3) in channels_in_training(config)


def test_maps_are_rounded_before_channels_are_added(_eights):
    layer, images = PaddedConv2d(3, 8, 4, stride=2, padding=1), torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        padded = layers._with_zeros(images, 5)
        assert padded.dtype == layer(images).dtype == torch.bfloat16
    assert padded.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(padded[:, :3], images.bfloat16())
    assert not padded[:, 3:].any()
