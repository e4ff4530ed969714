"""How much structure images have on which scale: radially averaged power spectra."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_POWER_BINS = 10  # half octaves of spatial frequency, from 1 to 32 cycles a frame
POWER_BANDS = {
    "very_low": (0, 3),
    "low": (3, 6),
    "mid": (6, 8),
    "high": (8, 10),
}  # first bin, and the bin after the last
_POWER_FLOOR = 1e-12  # far below the rounding to 8 bits, which spreads 1.3e-6 over all frequencies


def power_spectrum(images: Tensor) -> Tensor:
    """Return the decimal logarithm of the radially averaged power spectrum, (N, `NUM_POWER_BINS`).

    The mean of the planes of images (N, B, S, S), less its mean, is multiplied by a Hann window; its power is scaled so
    that the sum over all frequencies is the variance under the window, and averaged over rings of spatial frequency.
    Bin i covers 2^(i/2) to 2^((i+1)/2) cycles a frame, whatever the number of pixels, so the same galaxy gives the same
    spectrum at 64, 128 and 256 pixels. Brightness counts: light scaled by 10 adds 2.
    """
    side = images.shape[-1]
    if images.ndim != 4 or images.shape[2] != side or not images.is_floating_point():
        raise ValueError(
            f"images must be of shape (N, B, S, S) and floating-point, not {tuple(images.shape)} {images.dtype}"
        )
    if side < 64:
        raise ValueError(f"images must have at least 64 pixels a side to hold 32 cycles, not {side}")
    window = torch.hann_window(side + 1, periodic=False, dtype=torch.float64)
    window = ((window[1:] + window[:-1]) / 2).to(images)  # at the pixels' centres, so that turned images stay equal
    window = window[:, None] * window
    light = images.mean(1)
    light = light - (light * window).sum((1, 2), keepdim=True) / window.sum()
    spectrum = torch.fft.fft2(light * window).abs().square() / (side**2 * window.square().sum())

    cycles = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    radius = torch.hypot(cycles[:, None], cycles)
    # A hair wider below, so that 1, 2, 4, ... cycles never fall out of their bin by rounding.
    ring = torch.floor(2 * torch.log2(radius.clamp_min(0.1)) + 1e-9).long()
    inside = (ring >= 0) & (ring < NUM_POWER_BINS)
    ring = ring[inside].to(images.device)
    power = spectrum[:, inside.to(images.device)]
    sums = power.new_zeros(len(images), NUM_POWER_BINS).index_add_(1, ring, power)
    return torch.log10(sums / torch.bincount(ring, minlength=NUM_POWER_BINS) + _POWER_FLOOR)


def band_power(spectrum: Tensor) -> Tensor:
    """Reduce `power_spectrum` (N, `NUM_POWER_BINS`) to the mean logarithm in each of `POWER_BANDS`, (N, 4).

    Very low: 1 to 2.8 cycles a frame, the galaxy as a whole; low: to 8, its body; mid: to 16, arms, nuclei and
    neighbours; high: to 32, the finest detail of 64 pixels and the noise.
    """
    return torch.stack([spectrum[:, first:end].mean(1) for first, end in POWER_BANDS.values()], 1)
