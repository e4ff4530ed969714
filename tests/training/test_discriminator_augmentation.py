"""What the discriminator sees: how often images are moved, how that adapts, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from galaxies.training.discriminator_augmentation import NUM_DRAWS, DiscriminatorAugmentation


def uniform(number, seed=0):
    return torch.rand(number, NUM_DRAWS, generator=torch.Generator().manual_seed(seed))


def galaxies(number):
    """Elongated, off-centre light on a sky of -1."""
    axis = (torch.arange(64) + 0.5) / 32 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    light = torch.exp(-((x - 0.1) ** 2 + 4 * y**2) / 0.05)
    return (2 * light - 1).expand(number, 3, 64, 64).clone()


def test_half_of_the_images_are_moved_and_the_others_stay_bit_for_bit():
    images = galaxies(400)
    shown = DiscriminatorAugmentation(adaptive=False)(images, uniform(400))
    kept = (shown == images).flatten(1).all(1)
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_without_probability_nothing_is_moved():
    images = galaxies(8)
    assert torch.equal(DiscriminatorAugmentation(adaptive=True)(images, uniform(8)), images)


def test_moving_keeps_light_and_shape_and_turns_to_all_sides():
    augmentation, images = DiscriminatorAugmentation(adaptive=False), galaxies(200)
    augmentation.probability.fill_(1.0)
    light = (augmentation(images, uniform(200)) + 1)[:, 0]
    torch.testing.assert_close(light.sum((1, 2)), ((images + 1)[:, 0]).sum((1, 2)), rtol=2e-3, atol=0)
    axis = (torch.arange(64) + 0.5) / 32 - 1
    weight = light / light.sum((1, 2), keepdim=True)
    x, y = (weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)
    distance = torch.hypot(x, y)
    assert (distance - 0.1).abs().max() < 0.5 * 2**0.5 * 2 / 64 + 0.003  # shifts of at most half a pixel an axis
    assert distance.std() > 0.003
    angles = torch.atan2(y, x)
    counts = torch.histc(angles, 4, -torch.pi, torch.pi)
    assert counts.min() > 25  # of 200 in four quadrants
    dx, dy = axis - x[:, None], axis - y[:, None]
    xx, yy = (weight.sum(1) * dx**2).sum(1), (weight.sum(2) * dy**2).sum(1)
    torch.testing.assert_close(xx + yy, (xx + yy).mean().expand(200), rtol=0.04, atol=0)


def test_gradients_pass():
    augmentation, images = DiscriminatorAugmentation(adaptive=False), galaxies(6).requires_grad_()
    augmentation.probability.fill_(1.0)
    augmentation(images, uniform(6)).square().sum().backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()


def test_probability_rises_while_the_discriminator_is_too_sure_and_falls_again():
    augmentation = DiscriminatorAugmentation(adaptive=True)
    place = augmentation.probability.data_ptr()
    for _ in range(300):
        augmentation.adapt(torch.tensor(0.9), 100)
    # The running mean needs 22 steps to pass 0.6; then a thousandth a step.
    assert augmentation.probability.item() == pytest.approx(0.278 - 0.001, abs=2e-3)
    for _ in range(3000):
        augmentation.adapt(torch.tensor(0.9), 100)
    assert augmentation.probability.item() == pytest.approx(0.8)  # never all
    for _ in range(5000):
        augmentation.adapt(torch.tensor(0.1), 100)
    assert augmentation.probability.item() == 0
    assert augmentation.probability.data_ptr() == place


def test_a_broken_step_changes_no_state_for_good():
    augmentation = DiscriminatorAugmentation(adaptive=True)
    augmentation.adapt(torch.tensor(float("nan")), 100)
    assert augmentation.mean_sign.item() == 0
    assert augmentation.probability.item() == 0


def test_fixed_never_adapts():
    augmentation = DiscriminatorAugmentation(adaptive=False)
    for _ in range(100):
        augmentation.adapt(torch.tensor(1.0), 1000)
    assert augmentation.probability.item() == 0.5
