"""Sky and noise against known answers: shifts, white and colored noise, and the two estimates of the sky beside each
other."""

import math

import numpy as np
import pytest
import torch

from galaxies.measure.frame import corner_mask, corner_patches, corner_pixels, gaussian_matrix, pixel_grid, smooth
from galaxies.measure.power_spectrum import power_spectrum
from galaxies.measure.sky import estimate_sky, measure_noise, rising, sky_level

SKY = (0.06, 0.05, 0.04)
NOISE = 0.012  # of display units a pixel, as in the survey's cutouts


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Images this small are slower to share among threads than to measure."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rng(seed=0):
    return np.random.default_rng(seed)


def white(count=32, side=64, seed=0):
    return torch.from_numpy(rng(seed).standard_normal((count, 3, side, side))).float()


def blob(side=64, x0=0.0, y0=0.0, width=0.08, ellipticity=0.0):
    """Return a Gaussian galaxy (side, side) with peak 1, integrated over pixels on a four times finer grid."""
    centres = (np.arange(4 * side) + 0.5) / (4 * side) - 0.5
    x, y = np.meshgrid(centres - x0, centres - y0)
    fine = np.exp(-0.5 * ((x / width) ** 2 + (y / width / (1 - ellipticity)) ** 2))
    return torch.from_numpy(fine.reshape(side, 4, side, 4).mean((1, 3))).float()


def frames(noise, *galaxies):
    """Put galaxies and noise (N, 3, S, S) on the sky."""
    return torch.tensor(SKY)[:, None, None] + 0.5 * sum(galaxies, torch.zeros(())) + noise


# Sky and noise


@pytest.mark.parametrize("side", [64, 128, 256])
def test_white_noise_and_sky_are_recovered(side):
    images = frames(NOISE * torch.tensor([1.0, 0.8, 1.5])[:, None, None] * white(32 * 64 // side, side))
    assert torch.allclose(sky_level(images).mean(0), torch.tensor(SKY), atol=2e-4)
    assert torch.allclose(measure_noise(images).level.mean(0), NOISE * torch.tensor([1.0, 0.8, 1.5]), rtol=0.02)
    assert measure_noise(images).correlation.mean().item() == pytest.approx(0, abs=0.01)
    assert measure_noise(images).grayness.mean().item() == pytest.approx(0, abs=0.02)


def test_a_neighbour_in_the_corner_is_clipped():
    noise = NOISE * white()
    images = frames(noise, blob(), blob(x0=0.4, y0=-0.4, width=0.02))
    assert torch.allclose(sky_level(images), sky_level(frames(noise)), atol=0.3 * NOISE)
    assert measure_noise(images).level.mean().item() == pytest.approx(NOISE, rel=0.08)
    assert measure_noise(images).correlation.mean().item() == pytest.approx(0, abs=0.1)


def test_noise_outlives_the_rounding_to_8_bits():
    sigma = 1.3 / 255
    images = (frames(sigma * white()) * 255).round() / 255
    assert measure_noise(images).level.mean().item() == pytest.approx(math.sqrt(1.3**2 + 1 / 12) / 255, rel=0.03)
    assert measure_noise(images).correlation.mean().item() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("taps", [(0.25, 0.5, 0.25), (0.15, 0.7, 0.15), (-0.15, 1.3, -0.15)])
def test_the_correlation_of_filtered_noise(taps):
    noise = white(16, 128)
    for axis in (2, 3):
        noise = sum(weight * noise.roll(shift, axis) for weight, shift in zip(taps, (-1, 0, 1), strict=True))
    kernel = np.array(taps)
    expected = 2 * kernel[0] * kernel[1] / (kernel**2).sum()
    # A little of smooth noise counts as background.
    assert measure_noise(frames(NOISE * noise)).correlation.mean().item() == pytest.approx(expected, abs=0.03)


def test_the_grayness_of_mixed_noise():
    own, common = white(seed=1), white(seed=2)[:, :1]
    for share in (0.0, 0.5, 0.9, 1.0):
        images = frames(NOISE * (math.sqrt(1 - share) * own + math.sqrt(share) * common))
        assert measure_noise(images).grayness.mean().item() == pytest.approx(share, abs=0.03)


def test_both_estimates_of_the_sky_agree_where_both_are_right():
    images = frames(NOISE * white(), blob())
    sky = estimate_sky(images)
    assert torch.allclose(sky.level.mean(0), torch.tensor(SKY), atol=2e-4)
    assert torch.allclose(sky.level, sky_level(images), atol=0.3 * NOISE)
    # The mean of three independent planes.
    assert sky.noise.mean().item() == pytest.approx(NOISE / math.sqrt(3), rel=0.03)


def test_the_two_estimates_are_needed():
    # A neighbour in a corner leaves the one where it was, and a shift below a grey level shows in the other.
    noise, star = NOISE * white(), blob(x0=0.4, y0=-0.4, width=0.05)
    moved = [(estimate(frames(noise, star)) - estimate(frames(noise))).mean() for estimate in (level, sky_level)]
    assert 0 < moved[0] < 0.7 * moved[1]
    steps = [((frames(noise) + k / 5 / 255) * 255).round() / 255 for k in range(6)]
    levels = torch.stack([level(step)[:, 0] for step in steps]) * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert all(0.1 < step < 0.3 for step in (torch.stack([sky_level(s)[:, 0].mean() for s in steps]) * 255).diff())


def level(images):
    return estimate_sky(images).level


def test_corners_are_what_a_circle_leaves():
    mask = corner_mask(64, torch.device("cpu"))
    # A square less the circle in it.
    assert mask.float().mean().item() == pytest.approx(1 - math.pi / 4, abs=0.003)
    assert mask[0, 0] and not mask[32, 0] and torch.equal(mask, mask.rot90())
    assert torch.equal(mask.flatten().nonzero()[:, 0], corner_pixels(64, torch.device("cpu")))
    patches = corner_patches(torch.arange(16.0).view(1, 1, 4, 4), 1)
    assert patches.flatten().tolist() == [0, 3, 12, 15]


# Invariances and edges


def test_the_number_of_pixels_does_not_matter():
    fine = frames(0, blob(256, x0=0.03, width=0.05, ellipticity=0.5).expand(1, 3, -1, -1))
    # Noise of the sky that both frames hold, of 32 cells a frame, drawn smooth.
    cells = NOISE * white(1, 32, 3)
    fine = fine + torch.nn.functional.interpolate(cells, size=256, mode="bicubic", align_corners=False)
    by_side = {side: torch.nn.functional.avg_pool2d(fine, 256 // side) for side in (64, 128, 256)}
    for side in (128, 256):
        spectra = power_spectrum(by_side[64])[0], power_spectrum(by_side[side])[0]
        assert torch.allclose(spectra[0][:8], spectra[1][:8], atol=0.06)
        assert torch.allclose(sky_level(by_side[64]), sky_level(by_side[side]), atol=5e-4)


@pytest.mark.parametrize("function", [sky_level, measure_noise, power_spectrum])
def test_images_of_another_kind_are_errors(function):
    with pytest.raises(ValueError, match="shape"):
        function(torch.rand(3, 64, 64))
    with pytest.raises(ValueError, match="floating-point"):
        function(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_rise(dtype):
    values = white(2, 16).to(dtype)[..., ::2]  # in no one piece
    assert torch.equal(rising(values), values.sort(-1).values)


def test_the_level_has_the_gradient_of_the_pixel_that_it_is():
    images = (0.05 + NOISE * white(4)).requires_grad_()  # no two pixels alike
    level = estimate_sky(images).level
    (gradient,) = torch.autograd.grad((level * torch.arange(1.0, 13).view(4, 3)).sum(), images)
    chosen = gradient.flatten(2) != 0
    assert (chosen.sum(2) == 1).all()
    assert torch.equal(images.flatten(2)[chosen].view(4, 3), level)
    assert torch.equal(gradient.flatten(2).sum(2), torch.arange(1.0, 13).view(4, 3))


def test_nothing_that_is_kept_was_made_for_another_dtype_or_width():
    for dtype in (torch.float32, torch.float64):
        planes = white(1, 32).mean(1).to(dtype)
        for width in (1 / 32, 2 / 32):
            matrix = gaussian_matrix(32, width, planes, repeat_border=True)
            assert torch.equal(smooth(planes, width), matrix @ planes @ matrix.T)
            assert smooth(planes, width).dtype == pixel_grid(32, planes)[0].dtype == dtype


def test_what_is_kept_serves_inference_and_training_alike():
    with torch.inference_mode():
        first = estimate_sky(white(1, 24)).level
    images = white(1, 24).requires_grad_()
    level = estimate_sky(images).level
    assert torch.equal(level, first)
    level.sum().backward()
    assert images.grad.sum().item() == 3
