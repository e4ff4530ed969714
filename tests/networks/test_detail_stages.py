"""Images above 64 pixels: the networks of 64, and thin layers that add detail at every doubling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from config_physics import Config
from galaxies.compute.device import Engine
from galaxies.compute.ranks import Ranks
from galaxies.networks.frame_generator import FrameGenerator
from galaxies.networks.galaxy_frame import GalaxyFrame, Pose
from galaxies.networks.layers import doublings
from galaxies.storage.migrations import MIGRATIONS
from galaxies.training.starting import Start, take_over
from galaxies.training.trainer import build_learner
from gan_model import ProjectionDiscriminator, build_discriminator, build_gan_generator, generator_loss
from physics_model import build_predictor

WHOLE = {"detail_stages": True}
CPU = Engine.choose("cpu", "fp32")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def num_parameters(network):
    return sum(p.numel() for p in network.parameters())


def generators(size, width=8, **settings):
    """Return a generator of 64 pixels, and one of more pixels with the same weights."""
    torch.manual_seed(0)
    small = FrameGenerator(16, 8, width=width, **settings).eval()
    large = FrameGenerator(16, 8, width=width, image_size=size, **settings, **WHOLE).eval()
    missing = large.load_state_dict(small.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("stages.") for name in missing)
    return small, large


def test_sides():
    assert doublings(64, 256) == [128, 256]
    assert doublings(64, 64) == doublings(128, 64) == []


def test_number_of_parameters():
    # At the default width, to 128 pixels: joining 32 + 23 maps to 32, refining, each with 2 numbers a map of style 128;
    # 32 maps to four pixels of 3 bands; 23 patterns of 3 bands.
    stage = 55 * 32 + 129 * 64 + 32 * 32 * 9 + 129 * 64 + (32 * 9 + 1) * 12 + 129 * 69
    assert num_parameters(FrameGenerator(100, 8, image_size=128, **WHOLE)) == 1_021_517 + stage
    # To 256: 32 maps to 16, and the same with 16 maps.
    second = 39 * 16 + 129 * 32 + 16 * 16 * 9 + 129 * 32 + (16 * 9 + 1) * 12 + 129 * 69
    between = 32 * 16 * 9 + 16
    assert num_parameters(FrameGenerator(100, 8, image_size=256, **WHOLE)) == 1_021_517 + stage + between + second
    # 3 planes and 8 conditions to 32 maps of 64 x 64, to 64 of 32 x 32, by 4 x 4 pixels.
    fine = 11 * 32 * 16 + 32 + 32 * 64 * 16 + 64
    assert num_parameters(ProjectionDiscriminator(8, image_size=128, **WHOLE)) == 1_722_305 + fine


def test_at_64_pixels_there_is_no_difference():
    for build in (build_gan_generator, build_discriminator, build_predictor):
        plain, staged = (build(Config(width=8, detail_stages=choice)).state_dict() for choice in (False, True))
        assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in staged.items()}


@torch.no_grad()
@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("bounded", [True, False])
def test_a_generator_begins_with_the_doubled_image_of_64_pixels(size, bounded):
    small, large = generators(size, bounded=bounded)
    z, condition = random(5, 16), random(5, 8)
    expected = small(z, condition)
    expected = expected.atanh() if bounded else expected
    for _ in range(size // 128):
        expected = F.interpolate(expected, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(large(z, condition), expected.tanh() if bounded else expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("size", [128, 256])
def test_a_discriminator_begins_by_looking_at_means_of_pixels(size):
    torch.manual_seed(0)
    small = ProjectionDiscriminator(8, width=8, num_readings=3)
    large = ProjectionDiscriminator(8, width=8, image_size=size, num_readings=3, **WHOLE)
    large.load_state_dict(small.state_dict(), strict=False)
    images, condition = random(3, 3, size, size), random(3, 8)
    step = size // 64
    means = images.unflatten(3, (64, step)).unflatten(2, (64, step)).mean((3, 5))
    for found, expected in zip(large.assess(images, condition), small.assess(means, condition), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.nn.init.normal_(large.fine[-1].weight, 0, 0.1)
    checkers = images + 0.5 * (-1) ** (torch.arange(size)[:, None] + torch.arange(size))  # of no mean
    assert (large(images, condition) - large(checkers, condition)).abs().min() > 1e-4


@torch.no_grad()
def test_a_predictor_looks_at_64_pixels():
    torch.manual_seed(0)
    settings = {"width": 8, "attributes": ("size", "ellipticity")}
    small, large = (build_predictor(Config(**settings, image_size=size)).eval() for size in (64, 128))
    large.load_state_dict(small.state_dict())
    images = random(3, 3, 128, 128)
    means = images.unflatten(3, (64, 2)).unflatten(2, (64, 2)).mean((3, 5))
    torch.testing.assert_close(large(images), small(means), rtol=1e-4, atol=1e-6)
    for found, expected in zip(large.distribution(images), small.distribution(means), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    for found, expected in zip(large.maps(images), small.maps(means), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    whole = build_predictor(Config(**settings, image_size=128, detail_stages=False))
    assert whole.maps(images)[0].shape[-1] == 64 and large.maps(images)[0].shape[-1] == 32


@torch.no_grad()
@pytest.mark.parametrize("size", [128, 256])
def test_arms_are_as_narrow_as_the_pixels_of_the_image(size):
    """Two arms, weighed alone, are the logarithmic spiral of the image's own pixels."""
    _, generator = generators(size, bounded=False)
    for layer in (generator.frame.place, generator.paint):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(generator.paint.bias)
    plane = 5 + 2  # after the profiles and one arm: the cosine of two
    generator.stages[-1].weigh.bias[plane] = 3.0  # of the first band
    image = generator(torch.tensor([[1.0, 0.0, 1.0, *[0.5] * 13]]), random(1, 8))[0]  # lying along x
    place = (np.arange(size) + 0.5) / size * 2 - 1
    ratio = 1 / (1 + np.exp(-0.5))
    u, v = place / 0.25, place[:, None] / (0.25 * ratio)
    squared, softening = u**2 + v**2, (2 / size / 0.25) ** 2
    radius = np.sqrt(squared + 0.1 * softening)
    window = 3 * squared / (squared + 0.3 + softening) * np.exp(-radius) * squared / radius**2
    right = 3 * window * np.cos(2 * (np.arctan2(v, u) - 2 * np.log(radius)))
    np.testing.assert_allclose(image[0].numpy(), right, rtol=1e-3, atol=1e-5)
    assert image[1:].abs().max() == 0


def test_planes_that_are_drawn_a_few_galaxies_at_a_time_are_those_of_all():
    torch.manual_seed(0)
    frame, axes = GalaxyFrame(8, 32), GalaxyFrame(8, 128).axes
    torch.nn.init.normal_(frame.place.weight, 0, 0.02)
    # More than are drawn together, and no multiple of them.
    z, style, weights = random(13, 5), random(13, 8).requires_grad_(), random(13, 46, seed=1).requires_grad_()
    pose, shape = Pose.from_noise(z), frame.shape(style)
    expected = torch.einsum("nbk,nkyx->nbyx", weights.unflatten(1, (2, 23)), frame(shape, pose, axes))
    found = frame.weighed(frame.shape(style), pose, axes, weights)
    assert found.shape == (13, 2, 128, 128)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    direction = random(13, 2, 128, 128, seed=2)
    for one, other in zip(
        torch.autograd.grad((found * direction).sum(), (style, weights)),
        torch.autograd.grad((expected * direction).sum(), (style, weights)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [128, 256])
def test_gradients_reach_every_weight_once_the_first_step_is_made(size):
    torch.manual_seed(0)
    generator = FrameGenerator(16, 8, width=8, image_size=size, **WHOLE)
    discriminator, condition = ProjectionDiscriminator(8, width=8, image_size=size, **WHOLE), random(4, 8)
    for network in (generator, discriminator):
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, 0, 0.02)
    generator_loss(discriminator(generator(random(4, 16), condition), condition)).backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_an_image_does_not_depend_on_its_company_and_turns_with_its_pose():
    _, generator = generators(128)
    for parameter in generator.stages.parameters():
        torch.nn.init.normal_(parameter, 0, 0.05)
    z, condition = random(6, 16), random(6, 8)
    images = generator(z, condition)
    torch.testing.assert_close(generator(z[2:3], condition[2:3]), images[2:3], rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert (generator(z, condition).float() - images).abs().max() < 0.1


def test_light_keeps_maps_of_its_own_side():
    flux = {"kind": "flux", "bands": ("g", "r"), "softening": (1.0, 1.0), "pixel_scale": 0.2, "psf_fwhm": (0.8, 0.8)}
    painted = build_gan_generator(Config(**flux, width=8, profiles="fine")).network
    seen = build_gan_generator(Config(**flux, width=8, telescope="off", image_size=128)).network
    assert not painted.stages and painted.map_size == 64
    assert len(seen.stages) == 1 and seen.map_size == 32


def test_a_run_of_more_pixels_begins_with_all_of_one_of_64():
    settings = {"width": 8, "attributes": ("size", "ellipticity")}
    small, large = (build_learner(Config(**settings, image_size=size), CPU, Ranks()) for size in (64, 128))
    networks = {name: network.state_dict() for name, network in small.networks.items()}
    said = take_over(large, Start(Path("s"), {"networks": networks, "ema": None}, small.config, ""), same_data=False)
    for name, network in large.networks.items():
        for key, value in network.state_dict().items():
            if not any(part in key for part in ("stages.", "fine.", "grain.", "prior_variance")):
                assert torch.equal(value, networks[name][key]), (name, key)
    assert "tensors of the generator, 4 tensors of the discriminator, optimisers" in said


def test_a_start_of_more_pixels_keeps_its_way_and_one_of_64_takes_the_default():
    def taken(size, given=()):
        config = Config(image_size=size, detail_stages=False)
        return Start(Path("s"), {}, config, "").settings(dict(given)).get("detail_stages")

    assert taken(128) is False
    assert taken(64) is None
    assert taken(128, {"detail_stages": True}) is None


def test_runs_of_version_9_have_no_stages():
    assert MIGRATIONS[9]({"config": {"image_size": 128}})["config"]["detail_stages"] is False
