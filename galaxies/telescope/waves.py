"""Pictures as cosines and sines about their centre, and back on pixels of any size.

    parts = to_waves(light, frequencies)
    picture = from_waves(parts * transfer, frequencies, period, side, spacing)

A transform of few pixels on one axis is a product with a small matrix, which takes any spacing of the pixels, keeps
every image's own, and is faster here than a fast Fourier transform, for round blurs need only a quarter of the plane:
they treat cosine and sine alike. All numbers are real, so that every device can do it. Turning a picture by quarter
turns exchanges and mirrors these waves and does nothing else.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def to_waves(images: Tensor, frequencies: Tensor, spacing: Tensor | float = 1.0) -> Tensor:
    """Return how much of each wave a picture holds.

    Parameters
    ----------
    images : Tensor, (N, B, P, P)
    frequencies : Tensor, (K,)
        Cycles in the unit of `spacing`.
    spacing : Tensor, (N,) or (1,), or float
        From pixel to pixel.

    Returns
    -------
    Tensor, (2, 2, N, B, K, K)
        Sums of the pixels times the waves down the columns and along the rows, in this order: cosine, then sine.
    """
    cos, sin = _waves(images.shape[-1], frequencies, spacing)
    if images.shape[-1] % 2:  # the middle pixel lies in both halves
        middle = torch.ones_like(cos)
        middle[..., -1, :] = 0.5
        cos = cos * middle
    rows = torch.stack([exact(half, wave) for half, wave in zip(_folded(images, -1), (cos, sin), strict=True)])
    columns = zip(_folded(rows, -2), (cos, sin), strict=True)
    return torch.stack([exact(wave.mT, half) for half, wave in columns])


def from_waves(parts: Tensor, frequencies: Tensor, period: int, side: int, spacing: Tensor | float) -> Tensor:
    """Return the sum of waves at the centres of pixels.

    Parameters
    ----------
    parts : Tensor, (2, 2, N, B, K, K)
        As `to_waves` returns it.
    frequencies : Tensor, (K,)
        0 and multiples of 1 / `period`, in order.
    period : int
        After which the pictures come again, an odd number of the unit's.
    side : int
        S.
    spacing : Tensor, (N,) or (1,), or float
        From pixel to pixel. Each takes up its whole place: what the pixels of spacing 1 gathered is spread over
        pixels of this spacing instead.

    Returns
    -------
    Tensor, (N, B, S, S)
    """
    cos, sin = _waves(side, frequencies, spacing)
    # Twice, but for the constant: for the waves of negative frequency. Per new pixel, of which each has spacing^2 old.
    each = torch.full_like(frequencies, 2 / period)
    each[:1] = 1 / period
    size = spacing[:, None, None, None] if isinstance(spacing, Tensor) else spacing
    each = each * size * torch.sinc(frequencies * size) / torch.sinc(frequencies)
    cos, sin = cos * each, sin * each
    columns = _unfolded(exact(cos, parts[0]), exact(sin, parts[1]), side, -2)  # (2, N, B, S, K)
    return _unfolded(exact(columns[0], cos.mT), exact(columns[1], sin.mT), side, -1)


def exact(a: Tensor, b: Tensor) -> Tensor:
    """Return a matrix product."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def _waves(side: int, frequencies: Tensor, spacing: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines at the pixels of the first half, (half, K) or (N, 1, half, K)."""
    options: dict[str, Any] = {"device": frequencies.device, "dtype": frequencies.dtype}
    places = (torch.arange((side + 1) // 2, **options) - (side - 1) / 2)[:, None]
    places = places * (spacing[:, None, None, None] if isinstance(spacing, Tensor) else spacing)
    angle = 2 * math.pi * places * frequencies
    return angle.cos(), angle.sin()


def _folded(images: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the sum and the difference of the first half and the mirrored second one."""
    side = images.shape[axis]
    half = (side + 1) // 2
    first, second = images.narrow(axis, 0, half), images.narrow(axis, side - half, half).flip(axis)
    return first + second, first - second


def _unfolded(even: Tensor, odd: Tensor, side: int, axis: int) -> Tensor:
    """Return the whole of which the first half is the sum, and the mirrored second one the difference."""
    first, second = even + odd, even - odd
    return torch.cat([first, second.narrow(axis, 0, side // 2).flip(axis)], axis)
