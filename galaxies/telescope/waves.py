"""Pictures as cosines and sines about their centre, and back on pixels of any size.

    parts = to_waves(light, frequencies)
    picture = from_waves([part * transfer for part in parts], frequencies, period, side, spacing)

A transform of few pixels on one axis is a product with a small matrix, which takes any spacing of the pixels, keeps
every image's own, and is faster here than a fast Fourier transform, for round blurs need only a quarter of the plane:
they treat cosine and sine alike. All numbers are real, so that every device can do it. Turning a picture by quarter
turns exchanges and mirrors these waves and does nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Parts = Sequence[Tensor]  # four, as `to_waves` returns them


def to_waves(images: Tensor, frequencies: Tensor, spacing: Tensor | float = 1.0) -> Parts:
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
    four of Tensor, (N, B, K, K)
        Sums of the pixels times the waves down the columns and along the rows: cosine and cosine, cosine and sine,
        sine and cosine, sine and sine.
    """
    parts: Parts = _apply(_ToWaves, images, *_waves(images.shape[-1], frequencies, spacing))
    return parts


def from_waves(parts: Parts, frequencies: Tensor, period: int, side: int, spacing: Tensor | float) -> Tensor:
    """Return the sum of waves at the centres of pixels.

    Parameters
    ----------
    parts : four of Tensor, (N, B, K, K)
        As `to_waves` returns them.
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
    image: Tensor = _apply(_FromWaves, cos, sin, side, *parts)
    return image


def moved(parts: Parts, frequencies: Tensor, by: Tensor) -> Parts:
    """Return the waves of pictures that are moved by (N, 2), x and y in the unit of `spacing`: by any part of a pixel.

    Moving turns cosines and sines into each other, so that places are exact.
    """
    cc, cs, sc, ss = parts
    along, down = (2 * math.pi * frequencies * by[:, [axis]] for axis in (0, 1))  # (N, K) each
    cos, sin = along.cos()[:, None, None, :], along.sin()[:, None, None, :]
    cc, cs, sc, ss = cc * cos - cs * sin, cc * sin + cs * cos, sc * cos - ss * sin, sc * sin + ss * cos
    cos, sin = down.cos()[:, None, :, None], down.sin()[:, None, :, None]
    return [cc * cos - sc * sin, cs * cos - ss * sin, cc * sin + sc * cos, cs * sin + ss * cos]


def _apply(operation: Any, *arguments: Any) -> Any:
    """Return what a function of torch's makes of its arguments; torch tells no types of it."""
    return operation.apply(*arguments)


class _ToWaves(torch.autograd.Function):
    """Pictures (N, B, P, P), and waves (half, K) or (N, 1, half, K), to the four parts.

    It and `_FromWaves` are each other's adjoint, which spares autograd's sums. Both are done in whole single precision,
    backward too, whatever networks around them may multiply in: light is to be kept to a thousandth. Waves have no
    gradient.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        ctx.side = images.shape[-1]
        with _whole_precision(images.device):
            waves = cos, sin
            rows = [_folded(half @ wave, -2) for half, wave in zip(_folded(images, -1), waves, strict=True)]
            return tuple(waves[down].mT @ rows[along][down] for down in range(2) for along in range(2))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        return _apply(_FromWaves, *ctx.saved_tensors, ctx.side, *slopes), None, None


class _FromWaves(torch.autograd.Function):
    """Waves of the first half of S pixels, and the four parts, to pictures (N, B, S, S)."""

    @staticmethod
    def forward(ctx: Any, cos: Tensor, sin: Tensor, side: int, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        with _whole_precision(cos.device):
            even, odd = (_unfolded(cos @ parts[along], sin @ parts[2 + along], side, -2) for along in range(2))
            return _unfolded(even @ cos.mT, odd @ sin.mT, side, -1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *_apply(_ToWaves, slope, *ctx.saved_tensors)


@contextmanager
def _whole_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 as float32: no bfloat16 of autocast, and none of the shorter numbers of tensor cores."""
    matmul = torch.backends.cuda.matmul
    short = device.type == "cuda" and matmul.allow_tf32
    with torch.autocast(device.type, enabled=False):
        if short:
            matmul.allow_tf32 = False
        try:
            yield
        finally:
            if short:
                matmul.allow_tf32 = True


def _waves(side: int, frequencies: Tensor, spacing: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines at the pixels of the first half, (half, K) or (N, 1, half, K)."""
    options: dict[str, Any] = {"device": frequencies.device, "dtype": frequencies.dtype}
    places = (torch.arange((side + 1) // 2, **options) - (side - 1) / 2)[:, None]
    places = places * (spacing[:, None, None, None] if isinstance(spacing, Tensor) else spacing)
    angle = 2 * math.pi * places * frequencies
    return angle.cos(), angle.sin()


def _folded(images: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the sum and the difference of the first half and the mirrored second one; a middle pixel is in the sum."""
    side = images.shape[axis]
    half = (side + 1) // 2
    first, second = images.narrow(axis, 0, half), images.narrow(axis, side - half, half).flip(axis)
    odd = first - second
    even = second.add_(first)
    if side % 2:  # which lies in both halves
        even.narrow(axis, half - 1, 1).mul_(0.5)
    return even, odd


def _unfolded(even: Tensor, odd: Tensor, side: int, axis: int) -> Tensor:
    """Return the whole of which the first half is the sum, and the mirrored second one the difference."""
    half = even.shape[axis]
    shape = list(even.shape)
    shape[axis] = side
    whole = even.new_empty(shape)
    torch.add(even, odd, out=whole.narrow(axis, 0, half))
    mirrored = even.sub_(odd).narrow(axis, 0, side - half).flip(axis)
    whole.narrow(axis, half, side - half).copy_(mirrored)
    return whole
