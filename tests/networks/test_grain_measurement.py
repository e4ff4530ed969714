"""Measuring the grain of survey images: that what is found is what was put in, and that galaxies do not count."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from config_physics import Config
from galaxies.compute.device import Engine
from galaxies.measure.sky import measure_noise
from galaxies.networks.grain_measurement import _smoothed, measure_grain
from galaxies.networks.sky_grain import GRAIN_REACH, SkyGrain, between
from galaxies.training.gan_learner import GanLearner

MIDDLE, FINEST = 3, 6  # kernels
SMOOTH = torch.outer(torch.tensor([1.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])) / 6


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def synthetic(strength, count=150, level=-0.5, seed=1, scatter=0.0):
    """Return images of sky whose grain is known: grey, smoothed by 1, 2, 1."""
    noise = F.conv2d(random(count, 1, 66, 66, seed=seed), SMOOTH[None, None])
    between_images = torch.exp(scatter * random(count, 1, 1, 1, seed=seed + 1))
    return level + (strength * between_images * noise).expand(-1, 3, -1, -1)


def measured(images, conditions=None):
    return measure_grain(images, torch.zeros(len(images), 2) if conditions is None else conditions)


def noise_of(kernel, seed=0):
    return F.conv2d(random(100, 3, 70, 70, seed=seed), kernel)


def neighbours(noise):
    return ((noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()).item()


def put_on(grain, images, conditions, seed=5):
    layer = SkyGrain(conditions.shape[1])
    layer.learn(grain)
    side = images.shape[-1] + 2 * GRAIN_REACH
    with torch.no_grad():
        return layer(images, random(len(images), 3, side, side, seed=seed), random(len(images), 3, seed=6), conditions)


def test_finds_the_grain_that_is_there():
    grain = measured(synthetic(0.03))
    assert grain.strength == pytest.approx([0.03] * 9, rel=0.08)
    assert grain.skewness.abs().max() == 0
    noise = noise_of(grain.kernels[MIDDLE])
    assert noise.var((0, 2, 3)).mean().item() == pytest.approx(1, rel=0.03)
    assert torch.corrcoef(noise.transpose(0, 1).flatten(1)).min() > 0.99  # grey
    assert neighbours(noise) == pytest.approx(4 / 6, abs=0.06)  # (1, 2, 1) against itself, one pixel on: 4 of 6
    torch.testing.assert_close(grain.kernels, grain.kernels.flip(3, 4))  # grain has no direction that it comes from


def test_images_of_one_kind_give_kernels_of_one_kind():
    kernels = measured(synthetic(0.03)).kernels
    assert (kernels - kernels[MIDDLE]).square().sum((1, 2, 3, 4)).max() < 0.02 * kernels[MIDDLE].square().sum()


def test_smooth_and_fine_images_have_kernels_of_their_own():
    fine = 0.02 * random(95, 1, 64, 64, seed=5).expand(-1, 3, -1, -1)
    kernels = measured(torch.cat([synthetic(0.03, count=95), fine - 0.5])).kernels
    assert neighbours(noise_of(kernels[0])) == pytest.approx(4 / 6, abs=0.06)
    assert neighbours(noise_of(kernels[FINEST])) == pytest.approx(0, abs=0.06)


def test_colours_that_have_nothing_in_common():
    grain = measured(-0.5 + torch.tensor([0.01, 0.02, 0.03])[:, None, None] * random(150, 3, 64, 64))
    noise = noise_of(grain.kernels[MIDDLE]) * grain.strength[4]
    assert noise.std((0, 2, 3)) == pytest.approx([0.01, 0.02, 0.03], rel=0.08)
    assert (torch.corrcoef(noise.transpose(0, 1).flatten(1)) - torch.eye(3)).abs().max() < 0.1
    # Noise of one variance, of which grey is a third: as much in each colour differs from it as twice the grey.
    even = measured(-0.5 + 0.02 * random(150, 3, 64, 64))
    assert even.grain_parameters[4, 2].exp().item() == pytest.approx(2**0.5, rel=0.08)


def test_strength_by_brightness_and_between_images():
    images = torch.cat([synthetic(0.01, level=-0.95, count=90), synthetic(0.04, level=-0.7, seed=3, count=90)])
    grain = measured(images)
    assert grain.strength[1].item() == pytest.approx(0.01, rel=0.08)
    assert grain.strength[3].item() == pytest.approx(0.04, rel=0.08)
    assert (
        grain.grain_parameters[6, 0] - grain.grain_parameters[2, 0] < 0.4
    )  # what brightness explains does not count twice: else 1.4
    grain = measured(synthetic(0.02, scatter=0.4, count=190))
    assert (grain.grain_parameters[6, 0] - grain.grain_parameters[2, 0]).item() / 2 == pytest.approx(0.4, abs=0.06)


def test_what_the_condition_tells_and_what_it_does_not():
    conditions = random(180, 2, seed=8)
    strength = 0.02 * torch.exp(0.5 * conditions[:, 0])[:, None, None, None]
    grain = measured(-0.5 + strength * (synthetic(1.0, count=180) + 0.5), conditions)
    assert grain.trend[0, 0].item() == pytest.approx(1, abs=0.12)
    assert abs(grain.trend[1, 0]) < 0.12
    assert grain.trend[:2, 1:].abs().max() < 0.25
    assert grain.scatter[0, 0] < 0.35
    assert grain.scatter[1].norm().item() == pytest.approx(1, abs=0.1)


def test_what_the_sky_tells():
    knots = 2 + 2 * torch.rand(180, generator=torch.Generator().manual_seed(9))[:, None, None, None]
    sky = 2 * (knots / 8).square() - 1
    own = torch.exp(0.1 * random(180, 1, 1, 1, seed=10))
    grain = measured(sky + 0.01 * own * (knots - 1.5) * (synthetic(1.0, count=180) + 0.5))
    assert grain.trend.shape == (4, 3)
    # The strength at the knots tells the most, and what it tells wrong of one image or the other, the trend corrects.
    expected = grain.trend[-2, 0] * knots.flatten() + grain.trend[-1, 0]
    strength = between(grain.strength, knots.flatten()).log() + between(grain.grain_parameters[:, 0], 2 * expected + 4)
    wanted = (0.01 * (knots.flatten() - 1.5)).log()
    assert (strength - wanted).std() < 0.12
    assert (strength - wanted).mean().abs() < 0.12  # smooth noise is measured too low


def test_a_soft_end_at_black_is_found():
    fine = F.conv2d(random(260, 1, 262, 262, seed=11), SMOOTH[None, None])[..., :256, :256]
    light = 0.02 * (1.2 * fine + 1)
    found = []
    for images in (F.avg_pool2d(light.clamp_min(0), 4), F.avg_pool2d(light, 4).clamp_min(0)):
        grey = (images * 127.5).round() / 127.5 - 1
        found.append(measured(grey.expand(-1, 3, -1, -1)).soft_black.item())
    assert found[0] > 0.004 > found[1]


def test_galaxies_and_gradients_are_no_grain():
    axis = torch.linspace(-1, 1, 64)
    galaxy = 1.2 * torch.exp(-4 * torch.hypot(axis, axis[:, None]))
    plain = measured(synthetic(0.02, level=-0.9))
    crowded = measured(synthetic(0.02, level=-0.9) + galaxy + 0.02 * axis)
    assert (noise_of(crowded.kernels[MIDDLE]) - noise_of(plain.kernels[MIDDLE])).std() < 0.15
    assert crowded.strength[1].item() == pytest.approx(0.02, rel=0.08)


def test_cores_and_black_borders_are_no_grain():
    axis = torch.linspace(-1, 1, 64)
    core = 1.8 * torch.exp(-80 * (axis.square() + axis.square()[:, None]))
    assert measured(synthetic(0.02, level=-0.9) + core).strength[-1] < 0.035  # a core's curvature would make it 0.1
    framed = F.pad(synthetic(0.03, count=90)[:, :, 8:-8, 8:-8], (8, 8, 8, 8), value=-1.0)
    images = torch.cat([framed, synthetic(0.03, seed=9, count=90)])
    assert measured(images).strength[4].item() == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_are_enough_to_begin_with(count):
    grain = measured(synthetic(0.03, count=count))
    assert all(value.isfinite().all() for value in grain)
    assert grain.strength == pytest.approx([0.03] * 9, rel=0.25)


def test_a_sky_that_is_black_but_for_its_noise():
    images = (-1 + 0.02 * random(200, 3, 64, 64)).clamp(-1, 1)
    grain = measured(images)
    assert all(value.isfinite().all() for value in grain)
    made = put_on(grain, -torch.ones_like(images), torch.zeros(200, 2))
    assert measure_noise((made + 1) / 2).level.mean() < 2 * measure_noise((images + 1) / 2).level.mean()


def test_images_without_grain_get_none():
    sky = torch.full((8, 3, 64, 64), -0.5)
    for images in (sky, sky[:, :, :6, :6], -torch.ones(2, 3, 64, 64)):
        assert measured(images) is None


def survey(count, seed):
    """Return dark skies and images of them: clipped at black, of 8 bits; skewed noise that knows a condition."""
    conditions = random(count, 2, seed=seed)
    common, own = (F.conv2d(random(count * n, 1, 66, 66, seed=seed + n), SMOOTH[None, None]) for n in (1, 3))
    fine = 0.7 * random(count, 1, 64, 64, seed=seed + 4) * (conditions[:, 0] > 0)[:, None, None, None]
    noise = common + fine + 0.5 * own.view(count, 3, 64, 64)
    skewed = torch.expm1(0.3 * noise - 0.045 * noise.var()) / 0.3
    strength = 0.02 * torch.exp(0.3 * random(count, 1, 1, 1, seed=seed + 5))
    sky = torch.full((count, 3, 64, 64), -0.97)
    return sky, ((sky + strength * skewed).clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1, conditions


@pytest.fixture(scope="module")
def corrected():
    _, images, conditions = survey(260, seed=20)
    return measure_grain(images, conditions)


def test_corrected_grain_is_measured_to_be_that_of_the_images(corrected):
    _, images, conditions = survey(260, seed=40)
    plain = smooth = _smoothed(images, 5)
    for _ in range(3):  # what clipping at black lifts, a galaxy's image must be darker by
        plain = (smooth - _smoothed(put_on(corrected, plain, conditions) - plain, 9)).clamp(-1, 1)
    made = (put_on(corrected, plain, conditions) * 127.5 + 127.5).round() / 127.5 - 1
    found, wanted = measure_noise((made + 1) / 2), measure_noise((images + 1) / 2)
    for name in ("level", "correlation", "grayness"):
        one, other = getattr(found, name), getattr(wanted, name)
        for part in (0.25, 0.75):  # of the two kinds of images
            limit = 0.4 * other.std().item()  # of which chance is a tenth
            assert one.quantile(part).item() == pytest.approx(other.quantile(part).item(), abs=limit), (name, part)
    assert corrected.skewness[:2].tolist() == pytest.approx([0.3, 0.3], abs=0.13)  # here also where it is lighter
    assert (corrected.skewness.diff() <= 0).all() and corrected.skewness[-1] < 0.02


def test_corrected_grain_follows_the_condition(corrected):
    sky, _, conditions = survey(260, seed=60)
    found = measure_noise((put_on(corrected, sky, conditions) + 1) / 2).correlation
    fine = conditions[:, 0] > 0
    assert found[~fine].median() - found[fine].median() > 0.05


def test_grain_is_measured_the_same_way_twice():
    _, images, conditions = survey(60, seed=20)
    for one, other in zip(measure_grain(images, conditions), measure_grain(images, conditions), strict=True):
        assert torch.equal(one, other)


def test_a_new_run_learns_the_grain_of_its_data():
    config = Config(pixel_noise=True, width=4, latent_dim=8, batch_size=2)
    learner = GanLearner(config, Engine.choose("cpu"))
    images, conditions = synthetic(0.05, count=40), random(40, config.condition_dim)
    learner.learn_statistics(torch.ones(4), images, conditions)
    expected = measure_grain(images, conditions)
    for network in (learner.generator, learner.average.module):
        for name, value in expected._asdict().items():
            torch.testing.assert_close(getattr(network.grain, name), value.reshape(getattr(network.grain, name).shape))


def test_interpolation_between_rows():
    values = torch.tensor([[0.0, 1.0], [2.0, 3.0], [6.0, 5.0]])
    assert between(values, torch.tensor([0.0, 0.5, 1.75, 2.0, 9.0, -3.0])).tolist() == [
        [0, 1], [1, 2], [5, 4.5], [6, 5], [6, 5], [0, 1],
    ]  # fmt: skip
