"""Discs with logarithmic spirals by formula, as a telescope would show them."""

from __future__ import annotations

import numpy as np
import torch

_FINE = 192  # pixels a side of the grid that light is drawn on, or twice a frame's


def spiral(
    arms: int = 0,
    pitch: float = 20.0,
    amplitude: float = 0.35,
    *,
    side: int = 64,
    inclination: float = 0.0,
    angle: float = 0.0,
    phase: float = 0.0,
    scale_length: float = 0.1,
    bulge: float = 0.1,
    x0: float = 0.0,
    psf: float = 0.8 / 64,
    noise: float = 0.01,
    seed: int = 0,
) -> torch.Tensor:
    """Return a picture (3, S, S) of an exponential disc with a bulge.

    The disc is multiplied by 1 + amplitude cos(arms (azimuth - ln r / tan pitch) - phase). Lengths are in frame
    widths, angles in degrees, from +x along rows towards +y down columns, but for the phase.
    """
    n = max(_FINE, 2 * side)
    axis = (np.arange(n) - (n - 1) / 2) / n
    x, y = np.meshgrid(axis - x0, axis)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    u, v = cos * x + sin * y, (cos * y - sin * x) / np.cos(np.radians(inclination))
    radius, azimuth = np.hypot(u, v), np.arctan2(v, u)
    wave = np.cos(arms * (azimuth - np.log(radius + 1e-4) / np.tan(np.radians(pitch))) - phase)
    light = np.exp(-radius / scale_length) * (1 + (amplitude * wave if arms else 0))
    light += 5 * bulge * np.exp(-5 * np.hypot(x, y) / scale_length)
    light = binned(blurred(light, psf * n), side)
    rng = np.random.default_rng(seed)
    image = 0.05 + 0.6 * light / light.max() + rng.normal(0, noise * np.sqrt(3), (3, side, side))
    return torch.from_numpy(image.astype(np.float32))


def blurred(light: np.ndarray, sigma: float) -> np.ndarray:
    """Return light blurred by a Gaussian of sigma pixels."""
    frequency = np.fft.fftfreq(len(light))
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    return np.fft.ifft2(np.fft.fft2(light) * transfer).real


def binned(light: np.ndarray, side: int) -> np.ndarray:
    """Return light on a frame of pixels, each the mean of some of the fine ones."""
    return light.reshape(side, len(light) // side, side, -1).mean((1, 3))
