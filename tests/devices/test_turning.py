"""Light is turned onto the sky on a GPU as on a CPU, the same each time."""

from __future__ import annotations

import torch

from galaxies.networks.galaxy_frame import Pose
from galaxies.networks.turning import at_position_angle, turned_light, upright


def turned_on(device: str) -> list[torch.Tensor]:
    """Return turned light and its slope, and the noise of what was asked for, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    light = torch.rand(3, 2, 24, 24, generator=generator).to(device).requires_grad_()
    noise = torch.randn(3, 5, generator=generator).to(device)
    asked = at_position_angle(noise, torch.tensor([torch.nan, 120.0, 90.0]).to(device))
    turned = turned_light(light, Pose.from_noise(asked))
    assert turned.device.type == device
    (slope,) = torch.autograd.grad(turned.square().sum(), light)
    return [result.detach().cpu() for result in (turned, slope, asked, upright(asked))]


def test_turning_on_a_gpu(gpu):
    for found, again, right in zip(turned_on("cuda"), turned_on("cuda"), turned_on("cpu"), strict=True):
        assert torch.equal(found, again)
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def test_turning_on_mps(pretended_mps):
    for found, right in zip(turned_on("mps"), turned_on("cpu"), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
