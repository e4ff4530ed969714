"""Geometry of a frame: where its pixels lie, its corners, where the sky is, and a Gaussian to smooth it with."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from config_physics import BANDS

Function = TypeVar("Function", bound=Callable[..., Any])


def check_images(images: Tensor) -> Tensor:
    """Return images if they are display images of floating point, (N, 3, S, S).

    Raises
    ------
    ValueError
        If they are not.
    """
    if images.ndim != 4 or images.shape[1] != len(BANDS) or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must have the shape (N, {len(BANDS)}, S, S), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must hold floating-point values in [0, 1], not {images.dtype}")
    return images


def kept(make: Function) -> Function:
    """Keep what a function of sizes, dtypes and devices returns, which serves where gradients are computed as well.

    `torch.compile` takes it for a constant, as by `torch.compiler.assume_constant_result`, which needs a second to load
    the compiler.
    """

    @functools.lru_cache(maxsize=64)
    def made(*arguments: Any) -> Any:
        with torch.inference_mode(False):
            return make(*arguments)

    @functools.wraps(make)
    def remembering(*arguments: Any) -> Any:
        return made(*arguments)

    remembering._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return cast(Function, remembering)


def pixel_grid(side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (1, S), along rows, and y (S, 1), down columns, of pixel centres, in pixels from the frame's centre."""
    axis = _axis(side, like.dtype, like.device)
    return axis[None, :], axis[:, None]


@kept
def _axis(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(side, device=device, dtype=dtype) - (side - 1) / 2


def corner_mask(side: int, device: torch.device) -> Tensor:
    """Return which pixels (S, S), bool, lie outside the circle that the frame encloses, where a galaxy is faintest."""
    x, y = pixel_grid(side, torch.empty(0, device=device))
    return x.square() + y.square() > (0.5 * side) ** 2


@kept
def corner_pixels(side: int, device: torch.device) -> Tensor:
    """Return the row-major numbers, int64, of the pixels of `corner_mask`.

    They are kept, because a list as long as the number of pixels found makes the host wait for a GPU.
    """
    return corner_mask(side, device).flatten().nonzero()[:, 0]


def ring_mask(side: int, device: torch.device) -> Tensor:
    """Return which pixels (S, S), bool, lie in a ring just inside the corners, 0.4 to 0.5 frame widths."""
    x, y = pixel_grid(side, torch.empty(0, device=device))
    radius = (x.square() + y.square()).sqrt()
    return (radius > 0.4 * side) & (radius <= 0.5 * side)


@kept
def ring_pixels(side: int, device: torch.device) -> Tensor:
    """Return the row-major numbers, int64, of the pixels of `ring_mask`."""
    return ring_mask(side, device).flatten().nonzero()[:, 0]


def rim_mask(side: int, device: torch.device) -> Tensor:
    """Return the frame's outermost pixels (S, S), bool, over a 32nd of its width; two at least."""
    x, y = pixel_grid(side, torch.empty(0, device=device))
    return torch.maximum(x.abs(), y.abs()) > side / 2 - rim_width(side)


def rim_width(side: int) -> int:
    """Return how many pixels wide `rim_mask` is."""
    return max(2, round(side / 32))


@kept
def rim_pixels(side: int, device: torch.device) -> Tensor:
    """Return the row-major numbers, int64, of the pixels of `rim_mask`."""
    return rim_mask(side, device).flatten().nonzero()[:, 0]


@kept
def outer_pixels(side: int, device: torch.device) -> Tensor:
    """Return the row-major numbers, int64, of the pixels of corners and ring."""
    return (corner_mask(side, device) | ring_mask(side, device)).flatten().nonzero()[:, 0]


def corner_patches(images: Tensor, side: int) -> Tensor:
    """Return the four square corners (4, N, 3, side, side) of images (N, 3, S, S).

    They reach further in than `corner_mask`, which has no rectangle that a spectrum could be taken of.
    """
    ends = slice(side), slice(-side, None)
    return torch.stack([images[:, :, rows, columns] for rows in ends for columns in ends])


def gaussian_matrix(side: int, width: float, like: Tensor, repeat_border: bool) -> Tensor:
    """Return the matrix (S, S) whose product with a column of pixels smooths it by a Gaussian.

    Two products with it, K @ planes @ K.T, smooth planes on a CPU five times faster than convolutions.

    Parameters
    ----------
    side : int
        Pixels.
    width : float
        Standard deviation, frame widths.
    like : Tensor
        Gives device and floating type.
    repeat_border : bool
        Whether what lies beyond the border counts as the pixel on it; then each row sums to 1, and the kernel ends at
        3 standard deviations. Otherwise nothing lies there, the kernel is 1 at its peak, and who smooths with it
        divides by the weights of the pixels that he wants to count.
    """
    sigma = width * side
    target = torch.arange(side, device=like.device)[:, None]
    if not repeat_border:
        offsets = target.to(like.dtype) - torch.arange(side, device=like.device)
        return torch.exp(-0.5 * (offsets / sigma) ** 2)
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=like.device)
    kernel = torch.exp(-0.5 * (offsets.to(like.dtype) / sigma) ** 2)
    columns = (target + offsets).clamp(0, side - 1)
    return like.new_zeros(side, side).scatter_add_(1, columns, (kernel / kernel.sum()).expand(side, -1))


def smooth(planes: Tensor, width: float) -> Tensor:
    """Convolve planes (N, S, S) with a Gaussian of standard deviation `width`, frame widths, repeating the border."""
    matrix = _gaussian(planes.shape[-1], width, planes.dtype, planes.device)
    return matrix @ planes @ matrix.T


@kept
def _gaussian(side: int, width: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a matrix as `gaussian_matrix` makes it, kept: making it takes ten times as many operations as using it."""
    return gaussian_matrix(side, width, torch.empty(0, dtype=dtype, device=device), repeat_border=True)
