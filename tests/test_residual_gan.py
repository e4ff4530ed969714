"""The residual networks: sizes, ranges, what noise and condition do, and that a batch is no company."""

from __future__ import annotations

import pytest
import torch

from gan_model import ResidualDiscriminator, ResidualGenerator, gradient_penalty, relativistic_loss


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def num_parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return ResidualGenerator(16, 8, width=8)


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return ResidualDiscriminator(8, width=8, num_readings=6)


CHANNELS = (256, 256, 128, 64, 32)  # at sides 4 to 64
CHANGES = 256 * 128 + 128 * 64 + 64 * 32  # 1 x 1 convolutions where the number of maps changes


def block(channels):
    """Two 3 x 3 convolutions with biases."""
    return 2 * (channels * channels * 9 + channels)


def test_generator_parameters():
    style = 108 * 256 + 256 + 256 * 128 + 128
    blocks = sum(block(c) + 129 * 2 * c for c in CHANNELS)  # scale and shift of a style of 128
    assert num_parameters(ResidualGenerator(100, 8)) == style + 109 * 4096 + blocks + CHANGES + 32 * 3 * 9 + 3


@pytest.mark.parametrize("readings", [0, 8])
def test_discriminator_parameters(readings):
    head = 4097 + 9 * 256 + readings * 4097
    expected = 3 * 32 * 9 + 32 + sum(map(block, CHANNELS)) + CHANGES + head
    assert num_parameters(ResidualDiscriminator(8, num_readings=readings)) == expected


@pytest.mark.parametrize("size", [64, 128, 256])
def test_shapes_and_ranges(size):
    torch.manual_seed(0)
    generator = ResidualGenerator(16, 8, width=4, image_size=size)
    images = generator(random(3, 16), random(3, 8))
    assert images.shape == (3, 3, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() < 1
    discriminator = ResidualDiscriminator(8, width=4, image_size=size, num_readings=5)
    logits, readings = discriminator.assess(images, random(3, 8))
    assert (logits.shape, readings.shape) == ((3,), (3, 5))
    assert torch.equal(discriminator(images, random(3, 8)), logits)
    assert torch.isfinite(logits).all()


@torch.no_grad()
def test_an_image_does_not_depend_on_its_company_in_training_either(generator, discriminator):
    z, condition = random(6, 16), random(6, 8)
    images = generator.train()(z, condition)
    torch.testing.assert_close(generator(z[2:3], condition[2:3]), images[2:3], rtol=1e-4, atol=1e-5)
    logits = discriminator.train()(images, condition)
    torch.testing.assert_close(discriminator(images[2:3], condition[2:3]), logits[2:3], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_noise_and_condition_change_the_image(generator):
    z, condition = random(1, 16), random(1, 8)
    image = generator(z, condition)
    for part, columns in ((z, 16), (condition, 8)):
        for column in range(columns):
            changed = part.clone()
            changed[0, column] += 1
            found = generator(changed, condition) if part is z else generator(z, changed)
            assert (found - image).abs().max() > 1e-5


@torch.no_grad()
def test_every_block_listens_to_the_style(generator):
    style = random(2, 16)
    for styled in generator.blocks:
        maps = random(1, styled.first.in_channels, 4, 4)
        first, second = (styled(maps, row[None]) for row in style)
        assert (first - second).abs().max() > 1e-5


@torch.no_grad()
def test_the_condition_moves_the_logit_and_not_the_readings(discriminator):
    images = random(3, 3, 64, 64)
    (first, read), (second, again) = (discriminator.assess(images, random(3, 8, seed=k)) for k in range(2))
    assert (first - second).abs().min() > 1e-6
    assert torch.equal(read, again)


def test_gradients_reach_every_weight(generator, discriminator):
    condition = random(4, 8)
    logits, readings = discriminator.assess(generator(random(4, 16), condition), condition)
    (relativistic_loss(logits, -logits) + readings.square().mean()).backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_maps_neither_die_nor_explode_with_depth():
    torch.manual_seed(0)
    generator = ResidualGenerator(100, 12, width=16, image_size=256)
    seen = []
    for styled in generator.blocks:
        styled.register_forward_hook(lambda _, __, maps: seen.append(maps.std().item()))
    generator(random(4, 100), random(4, 12))
    assert len(seen) == 7
    assert all(0.2 < deviation < 5 for deviation in seen), seen


@torch.no_grad()
def test_the_generator_leaves_no_checkerboard():
    # Constant maps, away from the border: a transposed convolution would give neighbouring pixels other kernel taps.
    torch.manual_seed(0)
    generator = ResidualGenerator(16, 8, width=8)
    doubled = torch.nn.functional.interpolate(torch.ones(1, 32, 16, 16), scale_factor=2, mode="bilinear")
    maps = generator.blocks[1](doubled, random(1, 16))[0, :, 8:-8, 8:-8]
    assert (maps[:, :, 1:] - maps[:, :, :-1]).abs().max() < 1e-5


def test_bfloat16_computes_nearly_the_same(generator, discriminator):
    z, condition = random(4, 16), random(4, 8)
    with torch.no_grad():
        images = generator(z, condition)
        logits = discriminator(images, condition)
        with torch.autocast("cpu", torch.bfloat16):
            found = generator(z, condition)
            assert (discriminator(images, condition) - logits).abs().max() < 0.05 * logits.abs().max() + 0.02
    assert (found.float() - images).abs().max() < 0.05


def test_gradient_penalty_is_a_mean_over_independent_images(discriminator):
    images, condition = random(4, 3, 64, 64).requires_grad_(), random(4, 8)
    together = gradient_penalty(discriminator(images, condition), images)
    alone = []
    for index in range(4):
        image = images[index : index + 1].detach().requires_grad_()
        alone.append(gradient_penalty(discriminator(image, condition[index : index + 1]), image))
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-3, atol=1e-6)


def test_the_penalty_has_a_gradient_in_the_weights(discriminator):
    images = random(2, 3, 64, 64).requires_grad_()
    gradient_penalty(discriminator(images, random(2, 8)), images).backward()
    # The biases move no gradient but by the rectifiers' signs; what is read is no part of the logit.
    for name, parameter in discriminator.named_parameters():
        if name.endswith("weight") and not name.startswith("read"):
            assert parameter.grad.abs().sum() > 0, name
    assert discriminator.read.weight.grad is None
