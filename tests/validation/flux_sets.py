"""Sets of flux for tests: round discs through a Gaussian PSF, with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.datasets.writing import DatasetWriter

SCALE = 0.2  # arcsec a pixel


def light(count: int, seed: int, sizes=(2.0, 4.0), fwhm: float = 3.0) -> np.ndarray:
    """Return round exponential discs (count, 2, 64, 64) in nJy without noise, through a Gaussian of a width in px."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(*(np.indices((64, 64)) - 31.5))
    scale, flux, color = rng.uniform(*sizes, count), 10 ** rng.uniform(4, 4.8, count), rng.uniform(0.4, 1, count)
    discs = np.exp(-radius / scale[:, None, None])
    discs *= (flux / discs.sum((1, 2)))[:, None, None]
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    transfer = np.exp(-2 * (np.pi * fwhm / 2.3548 * frequency) ** 2)
    seen = np.fft.irfft2(np.fft.rfft2(discs) * transfer, s=(64, 64))
    return np.stack([seen * color[:, None, None], seen], 1)


def flux_set(path: Path, count: int, seed: int, noise: float = 20.0, fwhm: float = 3.0, told=True, **kwargs) -> Path:
    """Write discs of `light` with noise as a prepared dataset in the bands g and r."""
    images = light(count, seed, fwhm=fwhm, **kwargs)
    images = images + noise * np.random.default_rng([seed, 1]).standard_normal(images.shape)
    values = {"pixel_scale": np.full(count, SCALE)}
    for band in "gr":
        values |= {f"noise_{band}": np.full(count, noise)}
        values |= {f"psf_fwhm_{band}": np.full(count, SCALE * fwhm)} if told else {}
    layout = DataLayout("flux", (FluxBand.named("g"), FluxBand.named("r")), ("galaxy",))
    with DatasetWriter(path, 64, 1.0, {"source": "test"}, layout=layout) as writer:
        writer.append(images.astype(np.float32), [f"{seed}-{k}" for k in range(count)], ["galaxy"] * count, values)
    return path
