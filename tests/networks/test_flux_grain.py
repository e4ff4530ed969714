"""Noise of flux: as strong, as smooth and as full of photons as that of the images that it was measured on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from galaxies.images.stretch import AsinhStretch
from galaxies.networks.flux_grain import FluxGrain, FluxNoise, NoisyGenerator, measure_flux_noise
from galaxies.networks.sky_grain import GRAIN_REACH

SOFTENING = (4.0, 20.0)  # nJy; twice the noise
STRENGTH = torch.tensor([2.0, 10.0])
STRETCH = AsinhStretch(torch.tensor(SOFTENING))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def galaxies(count, side=64, scale_px=4.0, peak=500.0):
    """Round exponential galaxies without noise, nJy."""
    radius = torch.from_numpy(np.hypot(*(np.indices((side, side)) - (side - 1) / 2))).float()
    return (peak * torch.exp(-radius / scale_px)).expand(count, 2, side, side)


def stretched(flux, photons=0.0, smooth=False, seed=0):
    """Stretched images with noise, in the second band alike between rows if asked for."""
    noise = random(*flux.shape, seed=seed)
    if smooth:
        noise = F.avg_pool2d(F.pad(noise, (1, 0, 0, 0), mode="circular"), (1, 2), 1) * math.sqrt(2)
    variance = STRENGTH[:, None, None].square() + photons * flux
    return STRETCH(flux + variance.sqrt() * noise)


def test_noise_is_measured_as_strong_as_it_is():
    noise = measure_flux_noise(stretched(galaxies(100)), SOFTENING)
    torch.testing.assert_close(noise.strength, STRENGTH, rtol=0.03, atol=0)
    assert noise.photons.abs().max() < 0.01
    # White, and of each band by itself.
    middle = noise.kernels[:, :, GRAIN_REACH, GRAIN_REACH]
    torch.testing.assert_close(middle, torch.eye(2), rtol=0, atol=0.03)
    assert noise.kernels.square().sum((1, 2, 3)).tolist() == pytest.approx([1, 1])


def test_a_galaxy_larger_than_its_frame_is_no_noise():
    flux = torch.cat([galaxies(60), galaxies(40, scale_px=30.0, peak=300.0)])
    noise = measure_flux_noise(stretched(flux), SOFTENING)
    torch.testing.assert_close(noise.strength, STRENGTH, rtol=0.03, atol=0)


def test_photons_are_told_from_structure():
    noise = measure_flux_noise(stretched(galaxies(150), photons=0.5), SOFTENING)
    # Where the galaxy is faint they are lost in the noise, and where it is steep they count as structure.
    assert 0.35 < noise.photons[0] < 0.55


def test_noise_that_neighbours_share_has_a_kernel_that_says_so():
    noise = measure_flux_noise(stretched(galaxies(100), smooth=True), SOFTENING)
    torch.testing.assert_close(noise.strength, STRENGTH, rtol=0.04, atol=0)
    # The mean of two neighbours has a correlation of 1/2 along rows, and none along columns.
    kernel = noise.kernels[0, 0]
    along, down = (float((kernel * kernel.roll(1, axis)).sum()) for axis in (1, 0))
    assert along == pytest.approx(0.5, abs=0.05) and down == pytest.approx(0, abs=0.05)


def test_noise_differs_between_images_as_much_as_it_does():
    flux = galaxies(150)
    own = torch.exp(0.4 * random(150, 1, 1, 1, seed=1))
    noise = measure_flux_noise(STRETCH(flux + own * STRENGTH[:, None, None] * random(*flux.shape)), SOFTENING)
    covariance = noise.scatter @ noise.scatter.T
    assert covariance.diagonal().sqrt().tolist() == pytest.approx([0.4, 0.4], rel=0.15)
    assert float(covariance[0, 1] / covariance[0, 0]) > 0.9  # one factor for both bands


def test_images_without_noise_get_next_to_none():
    noise = measure_flux_noise(STRETCH(torch.zeros(8, 2, 64, 64)), SOFTENING)
    assert all(part.isfinite().all() for part in noise)
    assert noise.strength.max() == 0


def grain_of(photons=0.0, scatter=0.0):
    grain = FluxGrain(SOFTENING)
    grain.learn(FluxNoise(grain.kernels.clone(), STRENGTH, torch.eye(2) * scatter, torch.full((2,), photons)))
    return grain


def white(count, seed=0):
    return random(count, 2, 64 + 2 * GRAIN_REACH, 64 + 2 * GRAIN_REACH, seed=seed)


@torch.no_grad()
@pytest.mark.parametrize("light", [0.0, 40.0, 4000.0])
def test_noise_is_added_in_flux(light):
    flux = torch.full((20, 2, 64, 64), light)
    made = STRETCH.flux(grain_of(photons=0.5)(STRETCH(flux), white(20), torch.zeros(20, 2)))
    expected = (STRENGTH.square() + 0.5 * light).sqrt()
    torch.testing.assert_close((made - flux).std((0, 2, 3)), expected, rtol=0.02, atol=0)
    assert ((made - flux).mean((0, 2, 3)).abs() < 0.02 * expected).all()


@torch.no_grad()
def test_an_image_s_own_noise_is_its_own():
    sky = STRETCH(torch.zeros(2, 2, 64, 64))
    made = STRETCH.flux(grain_of(scatter=0.5)(sky, white(1).expand(2, -1, -1, -1), torch.tensor([[0.0, 0], [2, 0]])))
    ratio = made[1].std((1, 2)) / made[0].std((1, 2))
    assert ratio.tolist() == pytest.approx([math.e, 1], rel=1e-3)


def test_the_gradient_is_that_of_light_added_to_noise():
    images = STRETCH(galaxies(1) + 5.0).clone().requires_grad_()
    grain_of()(images, white(1), torch.zeros(1, 2)).sum().backward()
    assert ((images.grad > 0.2) & (images.grad < 5)).all()  # cosh u / cosh u', u' being u with noise
    assert images.grad[..., 32, 32].tolist()[0] == pytest.approx([1, 1], abs=0.02)  # a bright core knows no noise


def test_what_early_training_draws_stays_finite():
    images = torch.tensor([-100.0, -3.0, -1.0, 3.0, 100.0])[:, None, None, None].repeat(1, 2, 64, 64).requires_grad_()
    made = grain_of(photons=0.5)(images, white(5), torch.zeros(5, 2))
    made.square().sum().backward()
    assert made.isfinite().all() and images.grad.isfinite().all()


def test_a_noisy_generator_passes_each_number_on_once():
    class Flat(torch.nn.Module):
        def forward(self, latent, condition):
            return latent[:, :1, None, None].expand(-1, 2, 64, 64)

    generator = NoisyGenerator(Flat(), 8, 64, SOFTENING)
    assert generator.noise_dim == 8 + 2 * 70 * 70 + 2
    z = torch.zeros(1, generator.noise_dim)
    z[0, 0] = -0.5
    assert generator(z, torch.zeros(1, 3)).unique().tolist() == pytest.approx([-0.5])  # no noise in numbers of zero
