"""A generator of light behind a telescope: what it paints, how it is turned, and what is seen of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from galaxies.images.stretch import AsinhStretch
from galaxies.networks.light_telescope import NUM_EXPOSURES
from galaxies.networks.observed_generator import ObservedGenerator
from galaxies.networks.turning import at_position_angle
from galaxies.telescope.exposure import Exposure
from galaxies.telescope.observing import observe
from galaxies.telescope.profiles import profile_of
from galaxies.telescope.psf import Psf

SIDE, FINE, SOFTENING = 32, 2, (2.0, 8.0)


class Painter(nn.Module):
    """Paint a lopsided ellipse along x, twice as bright in the second band; tell the noise that it got."""

    lies_along_x = True

    def forward(self, latent, condition):
        self.seen = latent
        axis = torch.arange(SIDE * FINE) - (SIDE * FINE - 1) / 2
        radius = ((axis / 8) ** 2 + (axis[:, None] / 4) ** 2).sqrt() - 0.2 * (axis > 3)
        planes = torch.stack([1.5 - radius, 1.7 - radius])
        return planes.expand(len(latent), -1, -1, -1) + 0.01 * condition[:, :1, None, None]


@pytest.fixture
def generator():
    made = ObservedGenerator(Painter(), 8, SIDE, FINE, SOFTENING, "kolmogorov")
    made.learn(exposures(5), torch.tensor([0.3, 0.1]))
    return made


def exposures(count, psfs=None):
    step = torch.arange(count)[:, None]
    return Exposure(torch.full((count,), 0.2), 0.6 + 0.1 * step.expand(-1, 2), 1.0 + step.expand(-1, 2), psfs)


def noise(count, length=8):
    return torch.randn(count, length, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_light_is_never_negative_and_dark_where_the_sky_is_painted(generator):
    light = generator.light(noise(4), torch.zeros(4, 3))
    assert light.shape == (4, 2, SIDE * FINE, SIDE * FINE)
    assert light.min() >= 0 and light.max() > 10
    generator.network.forward = lambda latent, condition: torch.full((1, 2, 64, 64), -1.0)
    dark = generator.light(noise(1), torch.zeros(1, 3))[0, :, 30:34, 30:34] * FINE**2
    # The sky, -1 to networks, gives sinh(ln(1 + e^-4)) softenings a pixel of the telescope.
    expected = math.sinh(math.log1p(math.exp(-4))) * torch.tensor(SOFTENING)[:, None, None].expand(-1, 4, 4)
    torch.testing.assert_close(dark, expected, rtol=1e-4, atol=0)


@torch.no_grad()
def test_light_that_fills_the_frame_shows_no_corners_of_it_when_it_is_turned(generator):
    radius = torch.hypot(torch.arange(64) - 31.5, (torch.arange(64) - 31.5)[:, None])
    disc = 1000 * torch.exp(-radius / 6.4)  # a scale length of a tenth of the frame
    generator.light_of = lambda painted: disc.expand(len(painted), 2, -1, -1)
    angles = at_position_angle(noise(3), torch.tensor([0.0, 45.0, 20.0]))
    straight, *turned = generator.light(angles, torch.zeros(3, 3))
    for other in turned:
        within = radius < 30
        torch.testing.assert_close(other[:, within], straight[:, within], rtol=0.08, atol=0)
        ratio = other[:, ~within] / straight[:, ~within]
        assert ratio.min() > 0.4 and ratio.max() < 2.5  # of corners that are dark it would be 0


@torch.no_grad()
def test_a_disc_that_reaches_beyond_the_frame_is_seen_with_the_light_from_beyond(generator):
    axis = torch.arange(192) - 95.5
    wide = torch.exp(-torch.hypot(axis, axis[:, None]) / 6.4).mul(1000).expand(1, 2, -1, -1)
    exposure = exposures(1)
    whole = observe(wide, Psf(exposure.psf_fwhm, profile_of("kolmogorov")), exposure.pixel_scale, oversampling=FINE)
    side = 64 // FINE
    middle = slice(whole.shape[-1] // 2 - side // 2, whole.shape[-1] // 2 + side // 2)
    seen = generator.observed(wide[..., 64:128, 64:128], exposure, None)
    torch.testing.assert_close(seen, whole[..., middle, middle], rtol=0.1, atol=0)


@torch.no_grad()
def test_what_is_painted_on_the_rim_is_no_light(generator):
    inner = torch.rand(1, 2, SIDE * FINE, SIDE * FINE, generator=torch.Generator().manual_seed(3))
    padded = torch.full_like(inner, 5.0)
    padded[..., 5:-5, 5:-5] = inner[..., 5:-5, 5:-5]
    torch.testing.assert_close(generator.light_of(padded), generator.light_of(inner), rtol=0, atol=0)
    assert generator.light_of(padded).max() < 0.1 * generator.light_of(torch.full_like(inner, 5.0)).max()


@torch.no_grad()
def test_half_of_the_pattern_of_the_fine_pixels_passes(generator):
    # Light of 3 and 1 by turns along x keeps its mean, and half of the difference, by 3/4 - 2/8.
    stripes = torch.where(torch.arange(64) % 2 == 0, 3.0, 1.0).expand(1, 2, 64, 64)
    light = generator.light_of(generator.painting_of(stripes))[..., 20:44, 20:44]
    torch.testing.assert_close(light * FINE**2, 1 + stripes[..., 20:44, 20:44] / 2, rtol=1e-4, atol=0)


@torch.no_grad()
def test_the_painter_knows_nothing_of_the_pose(generator):
    generator.light(noise(3), torch.zeros(3, 3))
    assert torch.equal(generator.network.seen[:, :3], torch.tensor([[1.0, 0.0, 1.0]] * 3))
    assert torch.equal(generator.network.seen[:, 3:], noise(3)[:, 3:])


@torch.no_grad()
def test_another_position_angle_is_the_same_galaxy_turned_and_so_is_what_is_seen(generator):
    first, quarter = (at_position_angle(noise(1), torch.tensor([angle])) for angle in (25.0, 115.0))
    light, turned = (generator.light(z, torch.zeros(1, 3)) for z in (first, quarter))
    torch.testing.assert_close(turned, light.rot90(-1, (2, 3)), rtol=1e-4, atol=1e-4)
    exposure = exposures(1)
    seen, seen_turned = (generator.observed(each, exposure, None) for each in (light, turned))
    torch.testing.assert_close(seen_turned, seen.rot90(-1, (2, 3)), rtol=1e-3, atol=1e-3)
    assert (seen_turned - seen).abs().max() > 1


@torch.no_grad()
def test_the_telescope_keeps_the_light_and_adds_the_noise_of_sky_and_photons(generator):
    light = generator.light(noise(1), torch.zeros(1, 3)).expand(300, -1, -1, -1)
    exposure = exposures(1).of(torch.zeros(300, dtype=torch.int64))
    clean = generator.observed(light[:1], exposures(1), None)
    torch.testing.assert_close(clean.sum((2, 3)), light[:1].sum((2, 3)), rtol=0.01, atol=0)
    white = torch.randn(300, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    variance = (generator.observed(light, exposure, white) - clean).var(0)
    expected = 1.0 + torch.tensor([0.3, 0.1])[:, None, None] * clean[0]
    torch.testing.assert_close((variance / expected).mean((1, 2)), torch.ones(2), rtol=0.01, atol=0)
    bright = clean[0] > 10
    assert (variance / expected)[bright].mean().item() == pytest.approx(1, abs=0.03)


@torch.no_grad()
def test_images_are_those_of_a_kept_exposure_which_are_all_equally_likely(generator):
    z = noise(3, generator.noise_dim)
    latent, white, chosen = z[:, :8], z[:, 8:-1].view(3, 2, SIDE, SIDE), z[:, -1]
    exposure = generator.kept_exposure(chosen)
    light = generator.light(latent, torch.zeros(3, 3))
    expected = AsinhStretch(torch.tensor(SOFTENING))(generator.observed(light, exposure, white))
    torch.testing.assert_close(generator(z, torch.zeros(3, 3)), expected)
    kept = generator.kept_exposure(noise(20_000, 1)[:, 0]).noise[:, 0]
    shares = torch.stack([(kept == 1.0 + k).float().mean() for k in range(5)])
    repeats = torch.tensor([13, 13, 13, 13, 12]) / NUM_EXPOSURES
    torch.testing.assert_close(shares, repeats, rtol=0, atol=0.01)
    ends = generator.kept_exposure(torch.tensor([-50.0, 50.0]))
    assert ends.noise[:, 0].tolist() == [generator.noise[0, 0], generator.noise[-1, 0]]


@torch.no_grad()
def test_point_spread_functions_as_images_go_before_widths():
    images = torch.zeros(2, 2, 5, 5)
    images[0, :, 2, 2] = 1
    images[1, :, 2, 4] = 1  # moves everything two pixels to the right
    made = ObservedGenerator(Painter(), 8, SIDE, FINE, SOFTENING, "kolmogorov", psf_pixels=5)
    made.learn(exposures(2, images), torch.zeros(2))
    assert torch.equal(made.psfs[:2], images) and made.psfs.shape == (NUM_EXPOSURES, 2, 5, 5)
    light = made.light(noise(1), torch.zeros(1, 3)).expand(2, -1, -1, -1)
    still, moved = made.observed(light, exposures(2, images), None)
    torch.testing.assert_close(moved[..., 6:-4], still[..., 4:-6], rtol=0.02, atol=0.05)
    assert (moved - still).abs().max() > 1


def test_light_has_a_gradient_through_the_telescope(generator):
    condition = torch.zeros(2, 3, requires_grad=True)
    light = generator.light(noise(2), condition)
    generator.stretched(light, exposures(2), torch.zeros(2, 2, SIDE, SIDE)).sum().backward()
    assert (condition.grad[:, 0] > 0).all() and (condition.grad[:, 1:] == 0).all()
