"""Image statistics against known answers: shifts, white and colored noise, waves, turned frames."""

import math

import numpy as np
import pytest
import torch

from galaxies.measure.image_statistics import (
    NUM_POWER_BINS,
    POWER_BANDS,
    band_power,
    diversity,
    image_statistics,
    measure_noise,
    power_spectrum,
    sky_level,
)
from tests.conftest import render_galaxies

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


def test_a_galaxy_in_the_centre_changes_neither_sky_nor_noise():
    noise = NOISE * white()
    empty, full = image_statistics(frames(noise)), image_statistics(frames(noise, blob(ellipticity=0.3)))
    for name in empty:
        if not name.startswith("power"):
            assert torch.allclose(empty[name], full[name], rtol=0.01, atol=1e-3), name


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


# Power spectrum


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("cycles", [1, 2, 3, 6, 11, 20, 30])
def test_a_wave_peaks_in_its_bin(cycles, side):
    phase = 2 * math.pi * cycles * torch.arange(side) / side
    wave = (0.5 + 0.1 * torch.cos(phase + 0.4)).expand(1, 3, side, side)
    spectrum = power_spectrum(wave)[0]
    assert spectrum.shape == (NUM_POWER_BINS,)
    # The window spreads a wave over one cycle to either side, which matters where the bins are that narrow.
    assert abs(spectrum.argmax().item() - int(2 * math.log2(cycles) + 1e-9)) <= (1 if cycles < 3 else 0)


def test_white_noise_is_flat_and_its_power_is_its_variance():
    spectrum = power_spectrum(frames(NOISE * white(64))).mean(0)
    level = math.log10(NOISE**2 / 3 / 64**2)  # a third: the mean of three planes
    assert torch.allclose(spectrum[4:], torch.full((NUM_POWER_BINS - 4,), level), atol=0.03)


def test_brightness_adds_to_the_logarithm_and_the_sky_does_not_matter():
    images = frames(NOISE * white(4), blob())
    expected = power_spectrum(images) + 2 * math.log10(0.3)
    assert torch.allclose(power_spectrum(0.3 * images + 0.2), expected, atol=1e-3)


def test_bands_are_means_of_bins():
    spectrum = torch.arange(NUM_POWER_BINS).float().expand(2, -1)
    assert band_power(spectrum).tolist() == [[1.0, 4.0, 6.5, 8.5]] * 2
    ends = [end for _, end in POWER_BANDS.values()]
    assert [first for first, _ in POWER_BANDS.values()] == [0, *ends[:-1]]
    assert ends[-1] == NUM_POWER_BINS


# Invariances


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


def test_flips_and_quarter_turns_change_nothing():
    images = frames(NOISE * white(4), blob(x0=0.1, ellipticity=0.5), blob(x0=-0.3, y0=0.4, width=0.03))
    expected = image_statistics(images)
    for turned in (images.flip(3), images.rot90(1, (2, 3)), images.rot90(2, (2, 3)), images.transpose(2, 3)):
        for name, values in image_statistics(turned).items():
            assert torch.allclose(values, expected[name], rtol=1e-3, atol=1e-4), name


def test_an_image_is_measured_by_itself():
    images = frames(NOISE * white(5), blob())
    together = image_statistics(images)
    for name, value in image_statistics(images[3:4]).items():
        assert value.item() == pytest.approx(together[name][3].item(), rel=1e-4, abs=1e-6), name


# Edges


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_blank_frames_give_finite_statistics(level):
    statistics = image_statistics(torch.full((2, 3, 64, 64), level))
    for name, values in statistics.items():
        assert values.shape == (2,), name
        assert torch.isfinite(values).all(), name
    assert statistics["sky_red"].tolist() == pytest.approx([level] * 2, abs=1e-6)
    assert statistics["noise_red"].max() < 0.1 / 255


@pytest.mark.parametrize("function", [sky_level, measure_noise, power_spectrum])
def test_images_of_another_kind_are_errors(function):
    with pytest.raises(ValueError, match="shape"):
        function(torch.rand(3, 64, 64))
    with pytest.raises(ValueError, match="floating-point"):
        function(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_small_frames_have_no_spectrum():
    with pytest.raises(ValueError, match="at least 64 pixels"):
        power_spectrum(torch.rand(1, 3, 32, 32))


def test_diversity_of_copies_is_zero_and_of_galaxies_is_not():
    images = torch.from_numpy(render_galaxies(8)[0])
    assert diversity(images[:1].repeat(8, 1, 1, 1)) < 1e-6
    assert diversity(images) > 0.1
    assert math.isnan(diversity(images[:1]))
