"""Grain of the sky: its strength and statistics, what it depends on, and that it is noise and nothing else."""

from __future__ import annotations

import pytest
import torch

from config_physics import Config
from philox import standard_normal
from sampling import build_generator
from sky_grain import GrainyGenerator, SkyGrain


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def grain():
    torch.manual_seed(0)
    return SkyGrain(6)


SKY = torch.full((8, 3, 64, 64), -0.5)


def on_sky(grain, style=None, images=SKY, seed=0):
    white = random(len(images), 3, images.shape[-1] + 4, images.shape[-1] + 4, seed=seed)
    style = torch.zeros(len(images), 6) if style is None else style
    return grain(images, white, style) - images


@torch.no_grad()
def test_grain_begins_at_a_few_grey_levels(grain):
    noise = on_sky(grain)
    deviation = noise.std((0, 2, 3))
    assert (deviation > 0.02).all()
    assert (deviation < 0.045).all()
    # Grey and smooth, as the sky of survey pictures is.
    assert (noise[:, 0] * noise[:, 1]).mean() > 0.6 * deviation[0] * deviation[1]
    assert (noise[..., 1:] * noise[..., :-1]).mean() > 0.4 * noise.square().mean()


@torch.no_grad()
def test_grain_has_no_mean_and_no_place(grain):
    noise = torch.cat([on_sky(grain, seed=seed) for seed in range(40)])  # (320, 3, 64, 64)
    deviation = noise.std()
    assert noise.mean().abs() < 0.02 * deviation
    by_pixel = noise.std(0)
    # Of 320 draws a standard deviation is known to 4 %; the border is like the middle.
    assert by_pixel[:, [0, -1]].mean().item() == pytest.approx(by_pixel.mean().item(), rel=0.03)
    assert by_pixel[:, :, [0, -1]].mean().item() == pytest.approx(by_pixel.mean().item(), rel=0.03)


@torch.no_grad()
def test_grain_can_be_correlated_between_neighbours(grain):
    grain.spread.weight.zero_()
    for pattern in range(12):
        grain.spread.weight[pattern, pattern // 4, 2, 1:4] = 1.0
    noise = on_sky(grain)[:, 0]
    along, across = (((noise * noise.roll(1, d))[:, 4:-4, 4:-4].mean() / noise.square().mean()).item() for d in (2, 1))
    assert along == pytest.approx(2 / 3, abs=0.03)  # two of three taps are shared
    assert across == pytest.approx(0.0, abs=0.03)


@torch.no_grad()
def test_strength_follows_brightness_and_style(grain):
    grain.amplitude.weight.mul_(50)
    faint, bright = (on_sky(grain, images=torch.full((8, 3, 64, 64), level)).std() for level in (-0.9, 0.3))
    assert abs(bright / faint - 1) > 0.02
    styles = torch.zeros(8, 6)
    styles[4:] = 5.0
    noise = on_sky(grain, styles)
    assert abs(noise[:4].std() / noise[4:].std() - 1) > 0.02


@torch.no_grad()
def test_without_noise_nothing_is_added(grain):
    images = torch.rand(2, 3, 16, 16) - 0.5
    white, style = torch.zeros(2, 3, 20, 20), random(2, 6)
    assert torch.equal(grain(images, white, style), images)
    torch.testing.assert_close(
        grain(images, random(2, 3, 20, 20), style) - images,
        -(grain(images, -random(2, 3, 20, 20), style) - images),
        rtol=1e-3,
        atol=1e-6,
    )


@torch.no_grad()
def test_images_stay_in_range_and_float32(grain):
    for dtype in (torch.float32, torch.bfloat16):
        images = torch.where(random(4, 3, 32, 32) > 0, 0.999, -0.999).to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = grain(images, random(4, 3, 36, 36), random(4, 6))
        assert found.dtype == torch.float32
        assert found.abs().max() <= 1
        assert (found != images).float().mean() > 0.4


@pytest.mark.parametrize("kind", ["frame", "residual", "resize", "transposed"])
@pytest.mark.parametrize("size", [64, 128])
def test_every_generator_can_have_grain(kind, size):
    config = Config(generator=kind, pixel_noise=True, width=4, latent_dim=8, image_size=size)
    generator = build_generator(config).eval()
    assert isinstance(generator, GrainyGenerator)
    assert config.noise_dim == 8 + 3 * (size + 4) ** 2
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
