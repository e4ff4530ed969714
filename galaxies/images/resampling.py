"""Images and feature maps at other places and other sizes: turned, mirrored, shifted, halved without aliasing."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def turned(images: Tensor, angle: Tensor, mirror: Tensor, shift: Tensor, mode: str = "bilinear") -> Tensor:
    """Turn, mirror and shift images; what turns into the frame is the reflection at its border.

    Parameters
    ----------
    images : Tensor, (N, C, S, S), floating point
    angle : Tensor, (N,)
        Radians.
    mirror : Tensor, (N,)
        -1 for the mirror image, else 1.
    shift : Tensor, (N, 2)
        Half frame widths.
    mode : {"bilinear", "bicubic"}
        How to interpolate; bicubic keeps more of the pixels' noise.
    """
    rows = [mirror * angle.cos(), mirror * -angle.sin(), shift[:, 0], angle.sin(), angle.cos(), shift[:, 1]]
    matrix = torch.stack(rows, 1).view(len(images), 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    if images.device.type == "mps":  # torch 2.11 cannot differentiate grid_sample there; all images alike, then
        return look_up(images, *(fold(position, images.shape[-1]) for position in grid.unbind(-1)))
    return F.grid_sample(images, grid, mode, padding_mode="reflection", align_corners=False)


def look_up(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Interpolate maps (N, C, H, H) bilinearly at pixel positions x and y (N, S, S) between 0 and H - 1.

    Made of table look-ups, which every device can differentiate.
    """
    number, channels, side, _ = maps.shape
    left, top = x.floor().clamp_max(side - 2), y.floor().clamp_max(side - 2)
    right_part, lower_part = x - left, y - top
    first = torch.arange(number, device=maps.device)[:, None, None] * side**2
    corner = first + (top * side + left).long()
    table = maps.permute(0, 2, 3, 1).reshape(number * side**2, channels)
    corners = torch.stack([corner, corner + 1, corner + side, corner + side + 1])
    upper = [(1 - right_part) * (1 - lower_part), right_part * (1 - lower_part)]
    parts = torch.stack([*upper, (1 - right_part) * lower_part, right_part * lower_part])
    found = (F.embedding(corners, table) * parts[..., None].to(table.dtype)).sum(0)  # (N, S, S, C)
    return found.permute(0, 3, 1, 2)


def fold(position: Tensor, side: int) -> Tensor:
    """Turn positions in (-3, 3), reflected at -1 and 1, into pixels of the maps between the outermost centres."""
    folded = 2 * position.clamp(-1, 1) - position
    return ((folded + 1) * (side / 2) - 0.5).clamp(0, side - 1)


# Devices on which maps are doubled and halved by products with a matrix for each axis. CUDA's interpolation has two
# drawbacks: automatic precision runs it in float32, between two casts, and its gradient adds with atomics, in an order
# that is another one each time.
_BY_PRODUCTS = frozenset({"cuda"})


def doubled(maps: Tensor) -> Tensor:
    """Double the side of feature maps (N, C, H, H) by bilinear interpolation: (N, C, 2 H, 2 H), of the same dtype."""
    if maps.device.type not in _BY_PRODUCTS:
        return F.interpolate(maps, scale_factor=2, mode="bilinear")
    with torch.autocast(maps.device.type, enabled=False):
        return _along_both_axes(maps, _doubling_matrix(maps.shape[-1], maps.device, maps.dtype))


class Double(nn.Module):
    """`doubled` as a layer."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, 2 H, 2 H) of maps (N, C, H, H)."""
        return doubled(maps)


@functools.lru_cache(maxsize=64)
def _doubling_matrix(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the matrix (2 S, S) that doubles a row of S pixels; its numbers have no rounding in any dtype.

    It is kept, so that a recorded step need not compute it.
    """
    pixels = (torch.arange(2 * side, device=device) + 0.5) / 2 - 0.5
    nearness = 1 - (pixels.clamp(0, side - 1)[:, None] - torch.arange(side, device=device)).abs()
    with torch.inference_mode(False):  # a kept tensor may serve where gradients are computed
        return nearness.clamp_min(0).to(dtype)


def _along_both_axes(maps: Tensor, matrix: Tensor) -> Tensor:
    """Multiply rows and columns of maps (N, C, H, H) by a matrix (K, H): (N, C, K, K), channels last in memory."""
    number, channels, side, _ = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(number, side, side * channels)
    down = matrix.expand(number, -1, -1) @ rows  # (N, K, H * C)
    across = matrix.expand(number * len(matrix), -1, -1) @ down.view(-1, side, channels)  # (N * K, K, C)
    return across.unflatten(0, (number, -1)).permute(0, 3, 1, 2)


class Halve(nn.Module):
    """Halve the side of feature maps after a blur that leaves nothing to alias: weights 1, 3, 3, 1 along each axis.

    It is the transpose of doubling by bilinear interpolation; outside the maps their outermost pixels go on.

    References
    ----------
    Zhang 2019, arXiv:1904.11486.
    """

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(weights, weights), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, H / 2, W / 2) of maps (N, C, H, W)."""
        with torch.autocast(maps.device.type, enabled=False):
            if maps.device.type in _BY_PRODUCTS:
                return _along_both_axes(maps, _doubling_matrix(maps.shape[-1] // 2, maps.device, maps.dtype).T / 2)
            return _Halving.apply(maps, self.kernel.to(maps.dtype))


class _Halving(torch.autograd.Function):
    """Halve maps; the gradient is doubling.

    Left to PyTorch, the gradient's gradient would also compute that of the fixed kernel, map by map, and the gradient
    of such a convolution takes processors fifty times longer than the convolution in bfloat16.
    """

    @staticmethod
    def forward(maps: Tensor, kernel: Tensor) -> Tensor:
        channels = maps.shape[1]
        padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, kernel.expand(channels, 1, 4, 4), stride=2, groups=channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Doubling.apply(gradient, *ctx.saved_tensors), None


class _Doubling(torch.autograd.Function):
    """The gradient of `_Halving`, whose own gradient is halving again."""

    @staticmethod
    def forward(maps: Tensor, kernel: Tensor) -> Tensor:
        return F.interpolate(maps, scale_factor=2, mode="bilinear") / 4

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Halving.apply(gradient, *ctx.saved_tensors), None


def dihedral(images: Tensor, turns: Tensor) -> Tensor:
    """Apply one of the eight flips and quarter turns to each image.

    Parameters
    ----------
    images : Tensor, (N, C, S, S)
    turns : Tensor, (N,), integers 0..7
        Bit 0 flips x, bit 1 flips y, bit 2 swaps the axes. No pixel value changes.
    """
    places = _turned_places(images.shape[-1], images.device)[turns.long()]  # (N, S * S)
    return images.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1)).view(images.shape)


@functools.lru_cache(maxsize=16)
def _turned_places(side: int, device: torch.device) -> Tensor:
    """Return for each of the eight turns where every pixel comes from: row-major numbers (8, S * S), int64.

    They are kept, so that a batch is turned by one look-up.
    """
    with torch.inference_mode(False):  # a kept tensor may serve where gradients are computed
        as_it_is = torch.arange(side**2, device=device).view(side, side)
        flipped = [as_it_is, as_it_is.flip(1), as_it_is.flip(0), as_it_is.flip(0, 1)]
        return torch.stack([*flipped, *(places.T for places in flipped)]).flatten(1)
