"""The generator that draws in the galaxy's frame, and the discriminator with a projected condition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from config_physics import Config
from galaxies.datasets.conditions import condition_vector
from galaxies.measure.inclination import axis_ratio_of
from galaxies.networks.galaxy_frame import DiscInclination
from gan_model import FrameGenerator, ProjectionDiscriminator, build_gan_generator, generator_loss, gradient_penalty

FLUX = {
    "kind": "flux",
    "telescope": "off",
    "bands": ("g", "r"),
    "softening": (1.0, 1.0),
    "pixel_scale": 0.2,
    "psf_fwhm": (0.8, 0.8),
}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def num_parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return FrameGenerator(16, 8, width=8).eval()


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return ProjectionDiscriminator(8, width=8)


def test_generator_parameters():
    # Style 108 -> 256 -> 128                      108 x 256 + 256 + 256 x 128 + 128 =    60,800
    # Linear 108 -> 256 x 4 x 4                    108 x 4096 + 4096                  =   446,464
    # 3 x 3 convolutions 256 -> 128 -> 64, with 2 numbers a map of style 128
    #     256 x 128 x 9 + 129 x 256 + 128 x 64 x 9 + 129 x 128                        =   418,176
    # Frame 128 -> 10                              129 x 10                           =     1,290
    # Joining 64 + 23 -> 64                        87 x 64 + 129 x 128                =    22,080
    # Refining 64 -> 64                            64 x 64 x 9 + 129 x 128            =    53,376
    # 64 -> 32 -> 3                                64 x 32 x 9 + 32 + 32 x 3 x 9 + 3  =    19,331
    assert num_parameters(FrameGenerator(100, 8)) == 1_021_517


def test_fine_profiles_are_weighed_by_the_style():
    # 9 profiles of 3 bands with weights of style 128: 129 x 27.
    assert num_parameters(FrameGenerator(100, 8, fine_profiles=True)) == 1_021_517 + 129 * 27


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 128])
def test_fine_profiles_are_as_sharp_as_the_pixels(size):
    generator = FrameGenerator(16, 8, width=8, image_size=size, bounded=False, fine_profiles=True).eval()
    for layer in (generator.frame.place, generator.paint, generator.weigh):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(generator.paint.bias)
    weights = torch.zeros(3, 9)
    weights[0, 2], weights[1, 4], weights[2, 3] = 2.0, 3.0, -1.0  # exp(-2 r), exp(-3.67 sqrt r), exp(-r^2 / 2)
    generator.weigh.bias.copy_(weights.flatten())
    image = generator(torch.tensor([[0.0, 1.0, 1.0, *[0.5] * 13]]), random(1, 8))[0]  # lying along y
    # The scale length is a quarter of half a frame, the axis ratio that of a sigmoid of 1/2, the softening a tenth of
    # a pixel's square: within a pixel of the centre, where half as many pixels would be flat, it still rises.
    place = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = place, place[:, None]
    squared = (y / 0.25) ** 2 + (x / 0.25 * (1 + np.exp(-0.5))) ** 2
    radius = np.sqrt(squared + 0.1 * (2 / size / 0.25) ** 2)
    right = [2 * np.exp(-2 * radius), 3 * np.exp(-3.67 * np.sqrt(radius)), -np.exp(-(radius**2) / 2)]
    np.testing.assert_allclose(image.numpy(), np.stack(right), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("bounded", [True, False])
def test_fine_profiles_learn_where_the_galaxy_lies_and_how_bright_it_is(bounded):
    torch.manual_seed(0)
    generator = FrameGenerator(16, 8, width=8, bounded=bounded, fine_profiles=True)
    torch.nn.init.zeros_(generator.paint.weight)  # nothing but the profiles
    target = torch.full((4, 3, 64, 64), -0.9)
    target[:, :, 30:34, 30:34] = 0.5
    generator(random(4, 16), random(4, 8)).sub(target).square().mean().backward()
    for layer in (generator.weigh, generator.frame.place, generator.style[0]):
        assert layer.weight.grad.abs().max() > 0
    if bounded:
        assert generator(random(4, 16), random(4, 8)).abs().max() < 1


def test_discriminator_parameters():
    # The DCGAN's 11,328 + 131,072 + 524,288 + 1,048,576 + 4,097, biases 128 + 256 + 256, projection 8 -> 256: 9 x 256.
    assert num_parameters(ProjectionDiscriminator(8)) == 1_719_361 + 640 + 2304


def test_reading_discriminator_is_shown_no_condition():
    # Planes of 8 conditions less, 12 values of 4096 features more.
    assert num_parameters(ProjectionDiscriminator(8, num_readings=12)) == 1_722_305 - 8 * 64 * 16 + 12 * 4097
    torch.manual_seed(0)
    discriminator, images = ProjectionDiscriminator(8, width=8, num_readings=6), random(3, 3, 64, 64)
    with torch.no_grad():
        (first, read), (second, again) = (discriminator.assess(images, random(3, 8, seed=k)) for k in range(2))
    assert read.shape == (3, 6)
    assert torch.equal(read, again)
    assert (first - second).abs().min() > 1e-6


@torch.no_grad()
def test_without_batch_normalisation_an_image_has_no_company_in_training():
    torch.manual_seed(0)
    generator = FrameGenerator(16, 8, width=8, batch_norm=False).train()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in generator.modules())
    z, condition = random(6, 16), random(6, 8)
    images = generator(z, condition)
    torch.testing.assert_close(generator(z[2:3], condition[2:3]), images[2:3], rtol=1e-4, atol=1e-5)
    seen = []
    for block in (*generator.coarse, generator.join, generator.refine):
        block.register_forward_hook(lambda _, __, maps: seen.append(maps.std().item()))
    generator(z, condition)
    assert all(0.2 < deviation < 5 for deviation in seen), seen


@pytest.mark.parametrize("size", [64, 128, 256])
def test_shapes_and_ranges(size):
    torch.manual_seed(0)
    generator = FrameGenerator(16, 8, width=4, image_size=size)
    images = generator(random(3, 16), random(3, 8))
    assert images.shape == (3, 3, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() < 1
    logits = ProjectionDiscriminator(8, width=4, image_size=size)(images, random(3, 8))
    assert logits.shape == (3,)
    assert torch.isfinite(logits).all()


@torch.no_grad()
def test_an_image_does_not_depend_on_its_company(generator, discriminator):
    z, condition = random(6, 16), random(6, 8)
    images = generator(z, condition)
    torch.testing.assert_close(generator(z[2:3], condition[2:3]), images[2:3], rtol=1e-4, atol=1e-5)
    # Without batch normalisation not even in training.
    logits = discriminator.train()(images, condition)
    torch.testing.assert_close(discriminator(images[2:3], condition[2:3]), logits[2:3], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_pose_turns_the_galaxy(generator):
    # Everything but the pose and the convolutions on the sky is the same: with those made symmetric, images turn.
    for conv in (generator.refine.conv, generator.thin, generator.paint):
        weight = conv.weight
        weight.copy_(sum(torch.rot90(w, k, (2, 3)) for w in (weight, weight.flip(3)) for k in range(4)) / 8)
        conv.weight.mul_(20)  # so that there is something to see
    generator.frame.place.weight.zero_()

    def draw(x, y, hand):
        z = random(1, 16)
        z[0, :3] = torch.tensor([x, y, hand])
        generator.style[0].weight[:, :3] = 0
        generator.project.weight[:, :3] = 0
        return generator(z, random(1, 8))

    upright = draw(1.0, 0.0, 1.0)
    torch.testing.assert_close(draw(0.0, 1.0, 1.0), upright.rot90(-1, (2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(draw(1.0, 0.0, -1.0), upright.flip(3), rtol=1e-3, atol=1e-4)
    assert (upright - upright.rot90(1, (2, 3))).abs().max() > 1e-3


@torch.no_grad()
def test_noise_and_condition_change_the_image(generator):
    z, condition = random(1, 16), random(1, 8)
    image = generator(z, condition)
    for column in range(16):
        changed = z.clone()
        changed[0, column] = -z[0, column] + 1
        assert (generator(changed, condition) - image).abs().max() > 1e-5
    for column in range(8):
        changed = condition.clone()
        changed[0, column] += 1
        assert (generator(z, changed) - image).abs().max() > 1e-5


def test_generator_is_the_same_function_with_and_without_gradients(generator):
    z, condition = random(4, 16), random(4, 8)
    with torch.no_grad():
        plain = generator(z, condition)
    torch.testing.assert_close(generator(z, condition), plain, rtol=1e-5, atol=1e-6)


def test_gradients_reach_every_weight(discriminator):
    torch.manual_seed(0)
    generator, condition = FrameGenerator(16, 8, width=8), random(4, 8)
    generator_loss(discriminator(generator(random(4, 16), condition), condition)).backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_bfloat16_draws_nearly_the_same(generator):
    z, condition = random(4, 16), random(4, 8)
    with torch.no_grad():
        expected = generator(z, condition)
        with torch.autocast("cpu", torch.bfloat16):
            found = generator(z, condition)
    assert (found.float() - expected).abs().max() < 0.05


@torch.no_grad()
def test_logit_is_a_linear_layer_plus_the_projected_condition(discriminator):
    images, condition = random(3, 3, 64, 64), random(3, 8)
    first, *others = discriminator.downsample
    planes = condition[:, :, None, None].expand(-1, -1, 64, 64)
    features = first(torch.cat([images, planes], 1))
    for conv in others:
        features = conv(torch.nn.functional.leaky_relu(features, 0.2))
    features = torch.nn.functional.leaky_relu(features, 0.2)
    embedding = condition @ discriminator.project.weight.T + discriminator.project.bias
    expected = discriminator.classify(features.flatten(1))[:, 0] + torch.einsum(
        "nc,nchw->n", embedding, features / features[0, 0].numel()
    )
    torch.testing.assert_close(discriminator(images, condition), expected, rtol=1e-4, atol=1e-5)


def test_gradient_penalty_is_a_mean_over_independent_images(discriminator):
    images, condition = random(4, 3, 64, 64).requires_grad_(), random(4, 8)
    together = gradient_penalty(discriminator(images, condition), images)
    alone = []
    for index in range(4):
        image = images[index : index + 1].detach().requires_grad_()
        alone.append(gradient_penalty(discriminator(image, condition[index : index + 1]), image))
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_what_a_disc_is_does_not_depend_on_the_side_from_which_it_is_seen():
    torch.manual_seed(0)
    config = Config(attributes=("size_arcsec", "inclination"), width=8, latent_dim=16, pixel_noise=False, **FLUX)
    generator = build_gan_generator(config).eval()
    torch.nn.init.normal_(generator.frame.place.weight, 0, 0.02)
    drawn = []
    generator.frame.register_forward_hook(lambda frame, given, planes: drawn.append(planes))
    noise = random(3, 16)
    noise[:, :3] = torch.tensor([1.0, 0.0, 1.0])  # lying along x
    values = torch.tensor([[1.0, degrees] for degrees in (20.0, 75.0, float("nan"))])
    conditions = condition_vector(torch.zeros(3, dtype=torch.int64), values, config)[0]
    images = [generator(noise, one.expand(3, -1)) for one in conditions]
    face_on, inclined, unknown = drawn
    # Along the major axis through the centre nothing changes, across it the disc is flatter.
    ratio = axis_ratio_of(torch.tensor([20.0, 75.0]))
    for galaxy in range(3):
        thick, thin = (one[galaxy, 3].sum(0) for one in (face_on, inclined))  # of a Gaussian
        torch.testing.assert_close(thin / thick, (ratio[1] / ratio[0]).expand(32), rtol=0.015, atol=0)
    assert (unknown - face_on).abs().max() > 0.05
    assert (images[0] - images[1]).abs().max() > 1e-4


@torch.no_grad()
def test_fine_profiles_are_those_of_the_disc_as_it_is_inclined():
    torch.manual_seed(0)
    settings = FLUX | {"attributes": ("size_arcsec", "inclination"), "width": 8, "latent_dim": 16, "profiles": "fine"}
    config = Config(pixel_noise=False, **settings)
    generator = build_gan_generator(config).eval()
    for layer in (generator.paint, generator.weigh, generator.style[-2]):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(generator.paint.bias)
    generator.weigh.bias.copy_(torch.eye(9)[3].repeat(2))  # a Gaussian in each band
    noise = random(1, 16)
    noise[:, :3] = torch.tensor([1.0, 0.0, 1.0])  # lying along x
    values = torch.tensor([[1.0, degrees] for degrees in (20.0, 75.0)])
    found = []
    for condition in condition_vector(torch.zeros(2, dtype=torch.int64), values, config)[0]:
        image = generator(noise, condition.expand(1, -1))[0, 0].double()
        place = torch.arange(64) - 31.5
        xx, yy = ((image.sum(axis) * place**2).sum() / image.sum() for axis in (0, 1))
        found.append((yy / xx).sqrt())
    torch.testing.assert_close(torch.stack(found).float(), axis_ratio_of(torch.tensor([20.0, 75.0])), rtol=0.02, atol=0)


def test_only_runs_that_are_told_of_unknown_values_know_when_a_disc_is_inclined():
    told = Config(attributes=("redshift", "inclination"), attribute_ranges=(0.0, 1.0, 5.0, 90.0), **FLUX)
    assert build_gan_generator(told).network.inclination == DiscInclination(5, 7, 5.0, 90.0)
    for settings in ({"attributes": ("redshift",)}, {"attributes": ("inclination",), "condition_mask": False}):
        assert build_gan_generator(Config(**settings, **FLUX)).network.inclination is None
