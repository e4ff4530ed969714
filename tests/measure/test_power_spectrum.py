"""Power spectra against known answers: waves, white noise, brightness."""

import math

import pytest
import torch

from galaxies.measure.power_spectrum import NUM_POWER_BINS, POWER_BANDS, band_power, power_spectrum
from tests.measure.test_sky import NOISE, blob, frames, white


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


def test_small_frames_have_no_spectrum():
    with pytest.raises(ValueError, match="at least 64 pixels"):
        power_spectrum(torch.rand(1, 3, 32, 32))
