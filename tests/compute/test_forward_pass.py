"""A network run forward in training: autocast's numbers, its weights rounded once for each state they are in."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from galaxies.compute.device import Engine
from galaxies.compute.forward_pass import ForwardPass
from tests.conftest import MODERN, make_trainer

BF16 = Engine.choose("cpu", "bf16")


class Network(nn.Module):
    """A convolution, batch normalisation, a linear layer, and a part that computes in float32."""

    class Exact(nn.Module):
        keeps_float32 = True

        def __init__(self):
            super().__init__()
            self.place = nn.Linear(5, 2)

        def forward(self, x):
            with torch.autocast("cpu", enabled=False):
                return self.place(x.float())

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 5)
        self.exact = self.Exact()

    def forward(self, images):
        return self.exact(self.linear(torch.relu(self.norm(self.conv(images))).mean((2, 3))))

    def doubled(self, images):
        return 2 * self(images)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().to(memory_format=torch.channels_last)


@pytest.fixture
def images():
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def gradients(network):
    found = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad(set_to_none=True)
    return found


class Roundings(TorchDispatchMode):
    """Collect what is rounded to bfloat16, tensors one by one and lists of them, and lists that come back from it."""

    def __init__(self):
        super().__init__()
        self.single, self.lists, self.back = [], [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.split("::")[1]
        result = function(*args, **(kwargs or {}))
        if name == "_to_copy" and result.dtype == torch.bfloat16:
            self.single.append(args[0])
        if name == "_foreach_copy_":
            (self.lists if args[0][0].dtype == torch.bfloat16 else self.back).append(args[1])
        return result


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("method", ["forward", "doubled"])
def test_numbers_and_gradients_are_autocasts(network, images, precision, method):
    engine = Engine.choose("cpu", precision)
    with engine.autocast():
        expected = getattr(network, method)(images)
    expected.square().sum().backward()
    expected_gradients = gradients(network)
    found = ForwardPass(network, engine, method)(images)
    found.square().sum().backward()
    assert torch.equal(found, expected)
    for name, gradient in gradients(network).items():
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, expected_gradients[name]), name


def test_weights_are_rounded_by_one_operation_and_come_back_by_one(network, images):
    forward = ForwardPass(network, BF16)
    with Roundings() as rounded:
        result = forward(images)
    (weights,) = rounded.lists
    assert {w.data_ptr() for w in weights} == {
        p.data_ptr() for layer in (network.conv, network.linear) for p in layer.parameters()
    }
    assert [tuple(x.shape) for x in rounded.single] == [(6, 3, 8, 8)]  # the images

    with Roundings() as widened:
        result.sum().backward()
    assert widened.lists == [] and len(widened.back) == 1
    assert len(widened.back[0]) == 4


def test_gradients_of_two_calls_are_summed(network, images):
    forward = ForwardPass(network, BF16)
    for part in (images[:3], images[3:]):
        forward(part).square().sum().backward()
    expected = gradients(network)
    with Roundings() as rounded:
        first, second = forward.weights(2)
    assert len(rounded.lists) == 1
    (forward(images[:3], weights=first).square().sum() + forward(images[3:], weights=second).square().sum()).backward()
    for name, gradient in gradients(network).items():
        assert torch.equal(gradient, expected[name]), name


def test_of_two_calls_one_may_need_no_gradient(network, images):
    forward = ForwardPass(network, BF16)
    forward(images).sum().backward()
    expected = gradients(network)
    for used in range(2):
        forward(images, weights=forward.weights(2)[used]).sum().backward()
        assert all(torch.equal(g, expected[name]) for name, g in gradients(network).items())


def test_no_weight_is_older_than_the_network(network, images):
    forward = ForwardPass(network, BF16)
    before = forward(images)
    with torch.no_grad():
        network.conv.weight.mul_(2)
    with BF16.autocast():
        expected = network(images)
    assert torch.equal(forward(images), expected)
    assert not torch.equal(before, expected)


def test_a_frozen_network_lets_gradients_through_and_gets_none(network, images):
    network.requires_grad_(False)
    images.requires_grad_()
    ForwardPass(network, BF16)(images).sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.parameters())


def test_a_gradient_has_a_gradient(network, images):
    # As the discriminator's penalty takes it, bit for bit as through autocast.
    found = {}
    for name, call in (("ours", ForwardPass(network, BF16)), ("autocast", network)):
        inputs = images.clone().requires_grad_()
        with BF16.autocast():
            result = call(inputs)
        (gradient,) = torch.autograd.grad(result.sum(), inputs, create_graph=True)
        gradient.float().square().sum().backward()
        found[name] = gradients(network)
    for name, gradient in found["ours"].items():
        expected = found["autocast"][name]
        assert gradient is expected is None or torch.equal(gradient, expected), name


def test_the_network_keeps_its_own_weights(network, images):
    names, weight = list(network.state_dict()), network.conv.weight
    ForwardPass(network, BF16)(images)
    assert list(network.state_dict()) == names
    assert network.conv.weight is weight and weight.dtype == torch.float32


SETTINGS = {
    "default": {},
    "paper": {"generator": "transposed", "discriminator": "dcgan", "pixel_noise": False},
    "modern": MODERN,
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_step_rounds_each_weight_once_for_each_state_of_it(data, tmp_path, settings):
    trainer = make_trainer(data, tmp_path, precision="bf16", **{"learning_rate": 1e-2, **settings})
    learner = trainer.learner
    trainer.start_phase("generator")
    for number in range(3):
        with Roundings() as rounded:
            trainer.take_step(100)
        weights = {p.data_ptr(): name for name, network in learner.networks.items() for p in network.parameters()}
        lists = [{weights[w.data_ptr()] for w in tensors} for tensors in rounded.lists]
        # The discriminator's in its own update, and anew in the generator's; the predictor's maps are one more use.
        expected = [{"generator"}, {"discriminator"}, {"discriminator"}, {"predictor"}]
        maps = [{"predictor"}] * (learner.config.perceptual_weight > 0)
        assert sorted(map(sorted, lists)) == sorted(map(sorted, expected + maps)), number
        assert not any(x.data_ptr() in weights for x in rounded.single)


def test_the_generator_is_judged_by_the_discriminator_of_its_own_step(data, tmp_path, monkeypatch):
    trainer = make_trainer(data, tmp_path, precision="bf16", learning_rate=1e-2)
    trainer.start_phase("generator")
    discriminator, used, held = trainer.learner.discriminator, [], []
    parameter, assess = discriminator.classify.weight, discriminator.assess

    def watched(images, condition):
        used.append(discriminator.classify.weight.detach().clone())
        held.append(parameter.detach().bfloat16())
        return assess(images, condition)

    monkeypatch.setattr(discriminator, "assess", watched)
    trainer.take_step(100)
    trainer.take_step(100)
    assert all(torch.equal(one, other) for one, other in zip(used, held, strict=True))
    assert not torch.equal(used[-2], used[-1])
