"""Grain of the sky: that it is noise alone, of the strength, the fineness and the colours that were measured."""

from __future__ import annotations

import pytest
import torch

from config_physics import Config
from galaxies.generation.build import build_generator
from galaxies.networks.sky_grain import GRAIN_REACH, GrainyGenerator, SkyGrain

SKY = torch.full((8, 3, 64, 64), -0.5)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def grain():
    return SkyGrain(4)


def white(images, seed=0):
    return random(len(images), 3, *(side + 2 * GRAIN_REACH for side in images.shape[2:]), seed=seed)


def on_sky(grain, own=None, condition=None, images=SKY, seed=0):
    own = torch.zeros(len(images), 3) if own is None else own
    condition = torch.zeros(len(images), 4) if condition is None else condition
    return grain(images, white(images, seed), own, condition) - images


def test_without_any_grain_in_the_images_none_is_added(grain):
    grain.learn(None)
    assert on_sky(grain).abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("skewness", [0.0, 0.4])
def test_grain_has_no_mean_and_no_place(grain, skewness):
    grain.skewness.fill_(skewness)
    noise = torch.cat([on_sky(grain, seed=seed) for seed in range(40)])  # (320, 3, 64, 64)
    deviation = noise.std()
    assert 0.02 < deviation < 0.035
    assert noise.mean().abs() < 0.02 * deviation
    by_pixel = noise.std(0)
    # Of 320 draws a standard deviation is known to 4 %; the border is like the middle.
    assert by_pixel[:, [0, -1]].mean().item() == pytest.approx(by_pixel.mean().item(), rel=0.03)
    assert by_pixel[:, :, [0, -1]].mean().item() == pytest.approx(by_pixel.mean().item(), rel=0.03)
    # A lognormal distribution of width s has the skewness (e^(s^2) + 2) sqrt(e^(s^2) - 1).
    growth = torch.tensor(skewness).square().exp()
    skewness = ((noise / deviation) ** 3).mean().item()
    assert skewness == pytest.approx(((growth + 2) * (growth - 1).sqrt()).item(), abs=0.06)


@torch.no_grad()
def test_strength_follows_brightness_and_traits(grain):
    usual = on_sky(grain).std().item()
    grain.strength.copy_(usual * torch.linspace(1, 2, 9))
    assert on_sky(grain, images=torch.full((8, 3, 64, 64), -0.99)).std() < 1.2 * usual
    # Three quarters of the way in the root of the brightness.
    level = 2 * 0.75**2 - 1
    assert on_sky(grain, images=SKY * 0 + level).std().item() == pytest.approx(1.75 * usual, rel=0.05)
    grain.strength.fill_(usual)
    grain.grain_parameters[:, 0] = 0.2 * torch.arange(-4.0, 5)  # twice its score of a step of one half
    for score in (-1.0, 0.0, 1.5):
        found = on_sky(grain, own=torch.tensor([score, 0, 0]).expand(8, 3)).std().item()
        assert found == pytest.approx(usual * torch.tensor(0.4 * score).exp().item(), rel=0.05)


@torch.no_grad()
def test_scores_are_what_the_condition_tells_and_a_scatter(grain):
    grain.grain_parameters[:, 0] = torch.linspace(-0.5, 0.5, 9)
    grain.trend[1, 0] = 2.0
    grain.trend[-1, 0] = -1.0
    grain.scatter.copy_(torch.tensor([[0.5, 0, 0], [0.1, 1, 0], [0, 0, 1]]))
    usual = on_sky(grain).std().item()
    told = on_sky(grain, condition=torch.tensor([0, 1.0, 0, 0]).expand(8, 4)).std().item()
    assert told / usual == pytest.approx(torch.tensor(0.5).exp().item(), rel=0.01)
    own = on_sky(grain, own=torch.tensor([1.0, 0, 0]).expand(8, 3)).std().item()
    assert own / usual == pytest.approx(torch.tensor(0.125).exp().item(), rel=0.01)


@torch.no_grad()
def test_the_sky_tells_of_the_grain_too(grain):
    grain.grain_parameters[:, 0] = torch.linspace(-0.5, 0.5, 9)
    usual = on_sky(grain).std().item()
    grain.trend[-2, 0] = 0.5  # a knot
    grain.trend[-1, 0] = -2.0  # at -0.5 the sky is half way in the root of the brightness: 4 knots
    assert on_sky(grain).std().item() == pytest.approx(usual, rel=0.01)
    # Of half the frame that is brighter, and of a galaxy, the sky knows nothing.
    crowded = SKY.clone()
    crowded[..., 32:] = crowded[:, :, 20:40, 20:40] = 0.5
    assert on_sky(grain, images=crowded)[..., :16].std().item() == pytest.approx(usual, rel=0.02)
    brighter = on_sky(grain, images=SKY * 0 + 2 * 0.75**2 - 1).std().item()  # by 2 knots
    assert brighter / usual == pytest.approx(torch.tensor(0.25).exp().item(), rel=0.02)


def test_a_toe_is_a_soft_end_at_black(grain):
    grain.strength.zero_()
    light = torch.tensor([-0.5, -0.1, 0.0, 0.1, 0.5, 1.9])
    images = (light - 1).view(1, 1, 1, 6).expand(1, 3, 8, 6).clone().requires_grad_()
    for soft_black in (0.0, 0.2):
        grain.soft_black.fill_(soft_black)
        found = grain(images, white(images), torch.zeros(1, 3), torch.zeros(1, 4))
        expected = (light + torch.hypot(light, torch.tensor(soft_black))) / 2 - 1
        torch.testing.assert_close(found[0, 0, 0], expected, atol=1e-6, rtol=0)
        (slope,) = torch.autograd.grad(found.sum(), images)
        expected = (
            torch.tensor([0, 0, 0.5, 1, 1, 1])
            if soft_black == 0
            else (1 + light / torch.hypot(light, light * 0 + soft_black)) / 2
        )
        torch.testing.assert_close(slope[0, 0, 0], expected, atol=1e-3, rtol=0)


@torch.no_grad()
def test_kernels_lie_between_those_that_were_measured(grain):
    kernels = torch.zeros(7, 3, 3, 7, 7)
    kernels[:, :, 0, 3, 3] = 1  # white
    kernels[0, :, 0, 3, 2:5] = 3**-0.5  # across three pixels
    grain.kernels.copy_(kernels.flatten(0, 1))

    def neighbours(place):
        grain.grain_parameters[:, 1] = place
        noise = on_sky(grain)
        return ((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()).item()

    assert neighbours(0.0) == pytest.approx(2 / 3, abs=0.02)
    assert neighbours(6.0) == pytest.approx(0, abs=0.02)
    assert 0.3 < neighbours(0.5) < 0.6
    assert neighbours(-9.0) == neighbours(0.0)


@torch.no_grad()
def test_colour_changes_what_is_not_grey_and_not_the_strength(grain):
    kernels = torch.zeros(7, 3, 3, 7, 7)
    for colour in range(3):
        kernels[:, colour, colour, 3, 3] = 1
    grain.kernels.copy_(kernels.flatten(0, 1))
    found = {}
    for ratio in (0.25, 1.0, 4.0):
        grain.grain_parameters[:, 2] = torch.tensor(ratio).log()
        noise = on_sky(grain)
        grey = noise.mean(1, keepdim=True)
        assert ((noise - grey).square().mean() / grey.square().mean()).sqrt().item() == pytest.approx(ratio, rel=0.03)
        found[ratio] = noise.std().item()
    assert found[0.25] == pytest.approx(found[1.0], rel=0.03)
    assert found[4.0] == pytest.approx(found[1.0], rel=0.03)


def test_no_gradient_reaches_the_image_through_the_strength(grain):
    grain.strength.copy_(torch.linspace(0.01, 0.04, 9))
    images = SKY.clone().requires_grad_()
    found = grain(images, white(images), random(8, 3), random(8, 4))
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert torch.equal(gradient, torch.ones_like(images))


@torch.no_grad()
def test_without_noise_nothing_is_added(grain):
    images = torch.rand(2, 3, 16, 16) - 0.5
    noise, own, condition = white(images), random(2, 3), random(2, 4)
    plain = grain(images, torch.zeros_like(noise), own, condition)
    torch.testing.assert_close(plain, images, rtol=0, atol=1e-4)
    up, down = (grain(images, sign * noise, own, condition) - plain for sign in (1, -1))
    torch.testing.assert_close(up, -down, rtol=1e-2, atol=2e-4)


@torch.no_grad()
def test_images_stay_in_range_and_float32(grain):
    for dtype in (torch.float32, torch.bfloat16):
        images = torch.where(random(4, 3, 32, 32) > 0, 0.999, -0.999).to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = grain(images, white(images), random(4, 3), random(4, 4))
        assert found.dtype == torch.float32
        assert found.abs().max() <= 1
        assert (found != images).float().mean() > 0.4


@torch.no_grad()
def test_an_images_grain_is_its_own(grain):
    own, condition = random(8, 3), random(8, 4)
    together = on_sky(grain, own, condition)
    alone = grain(SKY[3:4], white(SKY)[3:4], own[3:4], condition[3:4]) - SKY[3:4]
    torch.testing.assert_close(together[3:4], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["frame", "residual", "resize", "transposed"])
@pytest.mark.parametrize("size", [64, 128])
def test_every_generator_can_have_grain(kind, size):
    config = Config(generator=kind, pixel_noise=True, width=4, latent_dim=8, image_size=size)
    generator = build_generator(config).eval()
    assert isinstance(generator, GrainyGenerator)
    assert generator.noise_dim == 8 + 3 * (size + 6) ** 2
    z, condition = random(3, generator.noise_dim), random(3, config.condition_dim)
    with torch.no_grad():
        images = generator(z, condition)
        assert images.shape == (3, 3, size, size)
        smooth = generator.network(z[:, :8], condition)
        other = generator(torch.cat([z[:, :8], random(3, generator.noise_dim - 8, seed=1)], 1), condition)
    # Another grain on the same galaxy.
    assert 0.005 < (images - other).std() < 0.1
    assert (images - smooth).mean().abs() < 0.003


def test_gradients_reach_every_weight():
    config = Config(pixel_noise=True, width=4, latent_dim=8)
    generator = build_generator(config)
    images = generator(random(4, generator.noise_dim), random(4, config.condition_dim))
    (images.square() * random(*images.shape)).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_what_is_not_a_number_stays_so_and_reads_nothing_else(grain):
    images = SKY.clone()
    images[0, 0, 3, 3] = torch.nan
    found = grain(images, white(images), torch.zeros(8, 3), torch.zeros(8, 4))
    assert found[0].isnan().any()
    assert found[1:].isfinite().all()
    found = grain(SKY, white(SKY), torch.zeros(8, 3), torch.full((8, 4), torch.nan).where(torch.eye(8, 4) > 0, 0.0))
    assert found[4:].isfinite().all()
