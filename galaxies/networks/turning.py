"""Turn light onto the sky, as the last step before the telescope: what was painted lying along x gets its direction.

A generator that paints every galaxy in the galaxy's frame, and is turned by what else it knows nothing of, draws the
same galaxy at any position angle. Turning must then neither make nor lose light, nor ring, nor go below none. So it is
done by three shears (Paeth 1986; Unser, Thevenaz & Yaroslavsky 1995) and exact quarter turns. Each shear moves every
row as a whole by a part of a pixel: the weights of linear interpolation are never negative, and each pixel gives all
of its light to the two that it comes to lie on. What turns out of the frame is lost, and what turns into it is a guess.

The price is blur: a shift by a part f of a pixel adds f (1 - f) square pixels to the variance along it. Averaged over
angles and places that is a third of a square pixel along x and a sixth along y, of the fine pixels of intrinsic light.

References
----------
Paeth 1986, Graphics Interface 86, 77, "A fast algorithm for general raster rotation"; Unser, Thevenaz & Yaroslavsky
1995, IEEE Trans. Image Processing 4, 1371.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.networks.galaxy_frame import Pose

POSE_NOISE = 3  # entries of the noise that are the pose's
_QUARTER = math.pi / 2
_ROUND = 0.05  # (a^2 - b^2) / (a^2 + b^2) of the squared light, at which its axis counts half
_FALL = 0.1  # of a frame, in which light beyond it falls by a factor e
# Of a frame, beyond its border: from there its corners come, (sqrt 2 - 1) / 2, and as far the first shear moves what
# ends within it, tan(pi / 8) / 2, which is the same.
_CORNER = 0.208


def upright(latent: Tensor) -> Tensor:
    """Return noise (N, >= 3) of the same galaxies, lying along x and not mirrored: what a network gets that paints."""
    one, zero = torch.ones_like(latent[:, :1]), torch.zeros_like(latent[:, :1])
    return torch.cat([one, zero, one, latent[:, POSE_NOISE:]], 1)


def at_position_angle(latent: Tensor, degrees: Tensor) -> Tensor:
    """Return noise (N, >= 3) of the same galaxies with their major axes at angles (N,), as they were where it is NaN.

    Angles are in degrees from +x (along rows) towards +y (down columns). Multiples of 90 degrees are exact.
    """
    quarters = (degrees / 90).round()
    rest = torch.deg2rad(degrees - 90 * quarters)
    cosine, sine = rest.cos(), rest.sin()
    odd, behind = quarters.remainder(2) == 1, quarters.remainder(4) >= 2
    cosine, sine = torch.where(odd, -sine, cosine), torch.where(odd, cosine, sine)
    direction = torch.stack([cosine, sine], 1) * torch.where(behind, -1.0, 1.0)[:, None]
    kept = degrees.isnan()[:, None]
    return torch.cat([torch.where(kept, latent[:, :2], direction.to(latent.dtype)), latent[:, 2:]], 1)


def beyond_frame(light: Tensor, margin: int) -> Tensor:
    """Return light (N, B, H, H) with what may lie beyond its frame, (N, B, H + 2 margin, H + 2 margin).

    Nothing is known there. What lies at the border is taken to fall off outwards, by a factor e in a tenth of the
    frame, about the scale length of the largest galaxies. Of galaxies that end within the frame that is no light.
    """
    distance = torch.arange(light.shape[-1] + 2 * margin, device=light.device, dtype=light.dtype) - margin
    distance = (-distance).clamp_min(0) + (distance - (light.shape[-1] - 1)).clamp_min(0)
    fall = torch.exp(distance / (-_FALL * light.shape[-1]))
    return bordered(light, margin) * fall * fall[:, None]


def bordered(planes: Tensor, margin: int) -> Tensor:
    """Return planes (N, B, H, W) with their outermost pixels repeated `margin` times on every side.

    As padding by replication, whose gradient CUDA sums up in any order.
    """
    for dim in (2, 3):
        first, last = planes.narrow(dim, 0, 1), planes.narrow(dim, planes.shape[dim] - 1, 1)
        shape = [margin if place == dim else -1 for place in range(4)]
        planes = torch.cat([first.expand(shape), planes, last.expand(shape)], dim)
    return planes


@torch.no_grad()
def along_major_axis(light: Tensor, pose: Pose) -> Pose:
    """Return poses that bring the light's own major axis to where the given ones would bring the x axis.

    A network that paints galaxies lying along x does so within some degrees: arms and companions lie as they like. The
    axis is that of the second moments of the squared light, which is close to what photometry calls the major axis; it
    counts the less, the rounder the light is, for a round galaxy has none.

    Parameters
    ----------
    light : Tensor, (N, B, H, H), float32 or float64, never negative
        In the galaxies' frames.
    pose : Pose
        Of N galaxies.
    """
    total = light.sum(1)
    squared = (total / total.amax((1, 2), keepdim=True).clamp_min(1e-30)).square()
    place = torch.arange(light.shape[-1], device=light.device, dtype=light.dtype) - (light.shape[-1] - 1) / 2
    along_x, along_y = squared.sum(1), squared.sum(2)
    weight = along_x.sum(1).clamp_min(1e-30)
    x = place - ((along_x * place).sum(1) / weight)[:, None]
    y = place - ((along_y * place).sum(1) / weight)[:, None]
    xx, yy = ((along * each.square()).sum(1) / weight for along, each in ((along_x, x), (along_y, y)))
    xy = torch.einsum("nyx,nx,ny->n", squared, x, y) / weight
    stretch, lean = xx - yy, 2 * xy
    size = (xx + yy).square().clamp_min(1e-30)
    flattening = (stretch.square() + lean.square()) / size
    angle = 0.5 * torch.atan2(lean, stretch) * flattening / (flattening + _ROUND**2)
    cosine, sine = angle.cos(), angle.sin() * pose.hand.to(light.dtype)
    c, s = pose.cosine.to(light.dtype), pose.sine.to(light.dtype)
    # The differences are the same numbers for a pose a quarter turn further, which stays exact so.
    return Pose(c * cosine + s * sine, s * cosine - c * sine, pose.hand)


def turned_light(light: Tensor, pose: Pose) -> Tensor:
    """Turn and mirror light from galaxies' frames onto the sky.

    Parameters
    ----------
    light : Tensor, (N, B, H, H), float32 or float64, never negative
        The major axis along x.
    pose : Pose
        Of N galaxies. There is no gradient in it.

    Returns
    -------
    Tensor, (N, B, H, H)
        Never negative. A pose a quarter turn further gives the same values, turned. The corners of the frame are
        filled from beyond it, see `beyond_frame`.
    """
    cosine, sine, hand = (values.detach().to(light.dtype) for values in (pose.cosine, pose.sine, pose.hand))
    light = torch.where(_wide(hand < 0), light.flip(3), light)
    # Shears by at most an eighth of a turn, which are the same in every quarter; then quarter turns, which are exact.
    sideways = sine.abs() > cosine.abs()
    backwards = torch.where(sideways, sine, cosine) < 0
    along, across = torch.where(sideways, sine, cosine), torch.where(sideways, -cosine, sine)
    sign = torch.where(backwards, -1.0, 1.0).to(light.dtype)
    along, across = sign * along, sign * across  # cosine and sine of the rest
    corner = math.ceil(_CORNER * light.shape[-1]) + 1
    light = beyond_frame(light, corner)
    middle = torch.arange(light.shape[-1], device=light.device, dtype=light.dtype) - (light.shape[-1] - 1) / 2
    lean = -across / (1 + along)  # - tan of half the angle
    # What a shear moves out of this wider frame comes to lie beyond the light's own in the end.
    light = _moved(light, lean[:, None] * middle, 3)
    light = _moved(light, across[:, None] * middle, 2)
    light = _moved(light, lean[:, None] * middle, 3)[..., corner:-corner, corner:-corner]
    light = torch.where(_wide(sideways), light.rot90(-1, (2, 3)), light)
    return torch.where(_wide(backwards), light.flip(2, 3), light)


def _wide(values: Tensor) -> Tensor:
    """Shape (N,) to (N, 1, 1, 1)."""
    return values[:, None, None, None]


def _moved(planes: Tensor, by: Tensor, dim: int) -> Tensor:
    """Move lines of planes (N, B, H, W) along a dimension, 2 or 3, each as a whole.

    `by`, (N, W) or (N, H), are pixels towards larger indices. What enters is dark.
    """
    return cast(Tensor, _Shift.apply(planes, by, dim))


class _Shift(torch.autograd.Function):
    """Move lines by linear interpolation. Its adjoint is the same the other way, and needs no sums in any order."""

    @staticmethod
    def forward(planes: Tensor, by: Tensor, dim: int) -> Tensor:
        length = planes.shape[dim]
        whole = by.floor()
        part = (by - whole)[:, None].unsqueeze(dim)
        # Of the pixels and one before them, with a dark one at either end.
        place = torch.arange(length + 1, device=planes.device).view((-1, 1) if dim == 2 else (1, -1))
        place = (place - whole.long().unsqueeze(dim - 1)).clamp_(0, length + 1)
        padded = F.pad(planes, (1, 1) if dim == 3 else (0, 0, 1, 1))
        taken = padded.gather(dim, place[:, None].expand(-1, planes.shape[1], -1, -1))
        return torch.lerp(taken.narrow(dim, 1, length), taken.narrow(dim, 0, length), part)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        _, by, ctx.dim = inputs
        ctx.save_for_backward(by)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (by,) = ctx.saved_tensors
        return cast(Tensor, _Shift.apply(gradient, -by, ctx.dim)), None, None
