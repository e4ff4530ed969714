"""Grain of the sky: that what is measured is what was put in, what it depends on, and that it is noise alone."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from config_physics import Config
from engine import Engine
from gan_learner import GanLearner
from philox import standard_normal
from sampling import build_generator
from sky_grain import GRAIN_REACH, GrainyGenerator, SkyGrain, measure_grain


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def grain():
    torch.manual_seed(0)
    return SkyGrain(6, 2)


SKY = torch.full((8, 3, 64, 64), -0.5)


def white(images, seed=0):
    return random(len(images), 3, *(side + 2 * GRAIN_REACH for side in images.shape[2:]), seed=seed)


def on_sky(grain, style=None, images=SKY, seed=0):
    style = torch.zeros(len(images), 6) if style is None else style
    return grain(images, white(images, seed), style) - images


def synthetic(strength, count=200, level=-0.5, seed=1, deviation=0.0):
    """Return images of sky whose grain is known: grey, smoothed by 1, 2, 1."""
    smooth = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])) / 6
    noise = F.conv2d(random(count, 1, 66, 66, seed=seed), smooth[None, None])
    between = torch.exp(deviation * random(count, 1, 1, 1, seed=seed + 1))
    return level + (strength * between * noise).expand(-1, 3, -1, -1)


def test_measures_the_grain_that_is_there():
    measured = measure_grain(synthetic(0.03))
    assert measured.strength == pytest.approx([0.03] * 9, rel=0.08)
    assert measured.deviation < 0.1
    noise = F.conv2d(random(100, 3, 70, 70), measured.spread[:3])
    assert noise.var((0, 2, 3)).mean().item() == pytest.approx(1, rel=0.03)
    colours = torch.corrcoef(noise.transpose(0, 1).flatten(1))
    assert colours.min() > 0.99  # grey
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert neighbours.item() == pytest.approx(4 / 6, abs=0.06)  # (1, 2, 1) against itself, one pixel on: 4 of 6
    torch.testing.assert_close(measured.spread, measured.spread.flip(2, 3))
    # All images are alike, so none is much finer.
    assert measured.spread[3:].square().sum() < 0.01 * measured.spread[:3].square().sum()


def test_measures_how_much_finer_some_images_are():
    white = 0.02 * random(200, 1, 64, 64, seed=5).expand(-1, 3, -1, -1)
    measured = measure_grain(torch.cat([synthetic(0.03), white - 0.5]))

    def neighbours(finer):
        filters = measured.spread[:3] + finer * measured.spread[3:]
        noise = F.conv2d(random(50, 3, 70, 70), filters)
        return ((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()).item()

    # Each half is as far from the mean as the half of a normal distribution.
    assert neighbours(-0.8) == pytest.approx(0.6, abs=0.1)
    assert neighbours(0.8) == pytest.approx(0.0, abs=0.1)


def test_measures_independent_colours():
    images = -0.5 + torch.tensor([0.01, 0.02, 0.03])[:, None, None] * random(200, 3, 64, 64)
    spread, strength, _ = measure_grain(images)
    noise = F.conv2d(random(100, 3, 70, 70), spread[:3]) * strength[4]
    assert noise.std((0, 2, 3)) == pytest.approx([0.01, 0.02, 0.03], rel=0.08)
    assert (torch.corrcoef(noise.transpose(0, 1).flatten(1)) - torch.eye(3)).abs().max() < 0.1


def test_measures_strength_by_brightness_and_between_images():
    faint, bright = synthetic(0.01, level=-0.95), synthetic(0.04, level=-0.7, seed=3)
    _, strength, _ = measure_grain(torch.cat([faint, bright]))
    assert strength[1].item() == pytest.approx(0.01, rel=0.08)
    assert strength[3].item() == pytest.approx(0.04, rel=0.08)
    _, _, deviation = measure_grain(synthetic(0.02, deviation=0.4, count=400))
    assert deviation == pytest.approx(0.4, abs=0.06)


def test_galaxies_and_gradients_are_no_grain():
    axis = torch.linspace(-1, 1, 64)
    galaxy = 1.2 * torch.exp(-4 * torch.hypot(axis, axis[:, None]))
    plain = measure_grain(synthetic(0.02, level=-0.9))
    crowded = measure_grain(synthetic(0.02, level=-0.9) + galaxy + 0.02 * axis)
    noise, expected = (F.conv2d(random(50, 3, 70, 70), found.spread[:3]) for found in (crowded, plain))
    assert (noise - expected).std() < 0.15
    assert crowded.strength[1].item() == pytest.approx(0.02, rel=0.08)


def test_images_without_grain_get_none(grain):
    for images in (SKY, SKY[:, :, :6, :6], -torch.ones(2, 3, 64, 64)):
        assert measure_grain(images) is None
    grain.learn(None)
    assert on_sky(grain).abs().max() == 0


def test_brightness_that_explains_the_strength_does_not_count_twice():
    _, _, deviation = measure_grain(torch.cat([synthetic(0.01, level=-0.95), synthetic(0.04, level=-0.7, seed=3)]))
    assert deviation < 0.2  # 0.7 if it did


def test_cores_and_black_borders_are_no_grain():
    axis = torch.linspace(-1, 1, 64)
    core = 1.8 * torch.exp(-80 * (axis.square() + axis.square()[:, None]))
    strength = measure_grain(synthetic(0.02, level=-0.9) + core).strength
    assert strength[-1] < 0.035  # a core's curvature would make it 0.1
    framed = F.pad(synthetic(0.03)[:, :, 8:-8, 8:-8], (8, 8, 8, 8), value=-1.0)
    corners = torch.cat([framed, synthetic(0.03, seed=9)])
    assert measure_grain(corners).strength[4].item() == pytest.approx(0.03, rel=0.1)


@torch.no_grad()
def test_learned_grain_is_that_of_the_images(grain):
    grain.learn(measure_grain(synthetic(0.03, deviation=0.4, count=400)))
    noise = torch.cat([on_sky(grain, random(8, 6, seed=seed), seed=seed) for seed in range(50)])
    by_image = noise.std((1, 2, 3))
    assert by_image.log().std().item() == pytest.approx(0.4, abs=0.06)
    assert by_image.median().item() == pytest.approx(0.03, rel=0.08)


@torch.no_grad()
def test_grain_has_no_mean_and_no_place(grain):
    noise = torch.cat([on_sky(grain, seed=seed) for seed in range(40)])  # (320, 3, 64, 64)
    deviation = noise.std()
    assert 0.02 < deviation < 0.035
    assert noise.mean().abs() < 0.02 * deviation
    by_pixel = noise.std(0)
    # Of 320 draws a standard deviation is known to 4 %; the border is like the middle.
    assert by_pixel[:, [0, -1]].mean().item() == pytest.approx(by_pixel.mean().item(), rel=0.03)
    assert by_pixel[:, :, [0, -1]].mean().item() == pytest.approx(by_pixel.mean().item(), rel=0.03)


@torch.no_grad()
def test_strength_follows_brightness_and_style_within_limits(grain):
    usual = on_sky(grain).std().item()
    grain.strength.copy_(usual * torch.linspace(1, 2, 9))
    assert on_sky(grain, images=torch.full((8, 3, 64, 64), -0.99)).std() < 1.2 * usual
    # Three quarters of the way in the root of the brightness.
    level = 2 * 0.75**2 - 1
    assert on_sky(grain, images=SKY * 0 + level).std().item() == pytest.approx(1.75 * usual, rel=0.05)
    grain.strength.fill_(usual)
    grain.change.bias.fill_(100.0)  # trained to be as strong as it can
    assert on_sky(grain).std().item() == pytest.approx(math.exp(0.3) * usual, rel=0.05)


def test_no_gradient_reaches_the_image_through_the_strength(grain):
    grain.learn(measure_grain(torch.cat([synthetic(0.01, level=-0.95), synthetic(0.04, level=0.0)])))
    images = SKY.clone().requires_grad_()
    found = grain(images, white(images), torch.zeros(8, 6))
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert torch.equal(gradient, torch.ones_like(images))


@torch.no_grad()
def test_without_noise_nothing_is_added(grain):
    images = torch.rand(2, 3, 16, 16) - 0.5
    noise, style = white(images), random(2, 6)
    assert torch.equal(grain(images, torch.zeros_like(noise), style), images)
    up, down = grain(images, noise, style) - images, grain(images, -noise, style) - images
    torch.testing.assert_close(up, -down, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_images_stay_in_range_and_float32(grain):
    for dtype in (torch.float32, torch.bfloat16):
        images = torch.where(random(4, 3, 32, 32) > 0, 0.999, -0.999).to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = grain(images, white(images), random(4, 6))
        assert found.dtype == torch.float32
        assert found.abs().max() <= 1
        assert (found != images).float().mean() > 0.4


def test_a_new_run_learns_the_grain_of_its_data():
    config = Config(pixel_noise=True, width=4, latent_dim=8, batch_size=2)
    learner = GanLearner(config, Engine.choose("cpu"))
    images = synthetic(0.05)
    learner.learn_statistics(torch.ones(4), images)
    expected = measure_grain(images)
    for network in (learner.generator, learner.average.module):
        for name, value in expected._asdict().items():
            torch.testing.assert_close(getattr(network.grain, name), value)


@pytest.mark.parametrize("kind", ["frame", "residual", "resize", "transposed"])
@pytest.mark.parametrize("size", [64, 128])
def test_every_generator_can_have_grain(kind, size):
    config = Config(generator=kind, pixel_noise=True, width=4, latent_dim=8, image_size=size)
    generator = build_generator(config).eval()
    assert isinstance(generator, GrainyGenerator)
    assert config.noise_dim == 8 + 3 * (size + 6) ** 2
    z, condition = random(3, config.noise_dim), random(3, config.condition_dim)
    with torch.no_grad():
        images = generator(z, condition)
        assert images.shape == (3, 3, size, size)
        smooth = generator.network(z[:, :8], condition)
        other = generator(torch.cat([z[:, :8], random(3, config.noise_dim - 8, seed=1)], 1), condition)
    # Another grain on the same galaxy.
    assert 0.005 < (images - other).std() < 0.1
    assert (images - smooth).mean().abs() < 0.003


def test_gradients_reach_every_weight():
    config = Config(pixel_noise=True, width=4, latent_dim=8)
    generator = build_generator(config)
    images = generator(random(4, config.noise_dim), random(4, config.condition_dim))
    (images.square() * random(*images.shape)).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_galaxy_has_the_same_noise_with_and_without_grain():
    # The numbers of a seed's stream come in the same order: grain changes no galaxy's place in it.
    seeds, config = [3, 2**40], Config(pixel_noise=True, latent_dim=8)
    assert torch.equal(standard_normal(seeds, config.noise_dim)[:, :8], standard_normal(seeds, 8))


@torch.no_grad()
def test_what_is_not_a_number_stays_so_and_reads_nothing_else(grain):
    images = SKY.clone()
    images[0, 0, 3, 3] = torch.nan
    found = grain(images, white(images), torch.zeros(8, 6))
    assert found[0].isnan().any()
    assert found[1:].isfinite().all()
