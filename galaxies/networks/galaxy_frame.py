"""The galaxy's own frame: its pose on the sky, and the smooth patterns that galaxies are made of, laid out in it.

A galaxy has no up and no preferred hand, and a disc is nearly the same after half a turn. A generator that draws in
the galaxy's frame and is then turned onto the sky need not learn every orientation anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galaxies.images.resampling import fold, look_up

# exp(-k (r / h)^p), as (k, p): exponential discs, a Gaussian core, and a cusp with n = 2 (Sersic 1963).
_PROFILES = ((0.5, 1.0), (1.0, 1.0), (2.0, 1.0), (0.5, 2.0), (3.67, 0.5))
_COMPANION_PROFILES = ((1.0, 1.0), (2.0, 1.0), (0.5, 2.0), (0.5, 1.0))
_WOUND_ARMS = (1, 2, 3, 4)  # numbers of logarithmic spiral arms
_STRAIGHT_ARMS = (1, 2, 4)  # azimuthal orders without winding: lopsidedness, bars, boxes
_GAIN = 5.0  # the frame's parameters move this much faster than other weights (Karras et al. 2018, section 4.1)


@dataclass(frozen=True)
class Pose:
    """How galaxies lie on the sky.

    Attributes
    ----------
    cosine, sine : Tensor, (N,)
        Of the position angle of the major axis, from +x (right) towards +y (down).
    hand : Tensor, (N,)
        1 or -1: -1 is the mirror image.
    """

    cosine: Tensor
    sine: Tensor
    hand: Tensor

    @classmethod
    def from_noise(cls, z: Tensor) -> Pose:
        """Take the pose from the first three entries of the noise (N, >= 3): every angle is equally likely."""
        direction = F.normalize(z[:, :2].float(), dim=1, eps=1e-12)
        return cls(direction[:, 0], direction[:, 1], torch.where(z[:, 2] < 0, -1.0, 1.0))

    def to_frame(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Turn positions on the sky, relative to the galaxy, into its frame: along and across the major axis.

        Parameters
        ----------
        x, y : Tensor, broadcastable to (N, H, W)

        Returns
        -------
        tuple of Tensor, (N, H, W)
        """
        cosine, sine, hand = (_per_image(t) for t in (self.cosine, self.sine, self.hand))
        return hand * (cosine * x + sine * y), cosine * y - sine * x


def _per_image(values: Tensor) -> Tensor:
    """Shape (N,) to (N, 1, 1)."""
    return values[:, None, None]


def frame_axes(size: int, device: torch.device | None = None) -> Tensor:
    """Return the x and y (2, S, S) of pixel centres on a frame that spans -1 to 1."""
    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"))


class GalaxyFrame(nn.Module):
    """Place a galaxy and return patterns of its frame as planes.

    A style decides scale, axis ratio, centre and winding of the main body, and place, scale, axis ratio and angle
    of a companion. The planes are radial profiles in the elliptical radius, cosines and sines of the azimuth (bars
    and lopsidedness) and of logarithmic spirals with one to four arms, and the companion's profiles.

    Parameters
    ----------
    style_dim : int
    size : int
        Pixels a side of the planes.

    References
    ----------
    Logarithmic spirals as a basis for galaxy images: Considere & Athanassoula 1988, A&AS 76, 365.
    """

    axes: Tensor  # (2, S, S)
    orders: Tensor  # (orders, 1, 1), as the next
    wound_orders: Tensor
    slopes: Tensor  # (profiles, 1, 1), as the next
    companion_slopes: Tensor
    keeps_float32 = True  # see `compute.forward_pass`
    num_planes = len(_PROFILES) + 2 * len(_WOUND_ARMS) + 2 * len(_STRAIGHT_ARMS) + len(_COMPANION_PROFILES)

    def __init__(self, style_dim: int, size: int) -> None:
        super().__init__()
        self.place = nn.Linear(style_dim, 10)
        nn.init.normal_(self.place.weight, 0.0, 0.05 / _GAIN)
        nn.init.zeros_(self.place.bias)
        self.register_buffer("axes", frame_axes(size), persistent=False)
        orders = torch.tensor([*_WOUND_ARMS, *_STRAIGHT_ARMS], dtype=torch.float32)
        wound = torch.tensor([1.0] * len(_WOUND_ARMS) + [0.0] * len(_STRAIGHT_ARMS))
        self.register_buffer("orders", orders[:, None, None], persistent=False)
        self.register_buffer("wound_orders", (orders * wound)[:, None, None], persistent=False)
        for name, shapes in (("slopes", _PROFILES), ("companion_slopes", _COMPANION_PROFILES)):
            slopes = torch.tensor([slope for slope, _ in shapes])[:, None, None]
            self.register_buffer(name, slopes, persistent=False)

    def forward(self, style: Tensor, pose: Pose) -> Tensor:
        """Return the planes (N, num_planes, S, S), float32, of styles (N, style_dim)."""
        with torch.autocast(style.device.type, enabled=False):
            given = _GAIN * self.place(style.float())
            log_scale, axis_ratio, x, y, winding, *companion = given.unbind(1)
            offset_x, offset_y = self.axes[0] - _per_image(0.05 * x), self.axes[1] - _per_image(0.05 * y)
            along, across = pose.to_frame(offset_x, offset_y)
            main = self._main_body(along, across, log_scale, axis_ratio, winding)
            return torch.cat([*main, self._companion(along, across, companion)], 1)

    def _main_body(
        self, along: Tensor, across: Tensor, log_scale: Tensor, axis_ratio: Tensor, winding: Tensor
    ) -> tuple[Tensor, Tensor]:
        scale = 0.25 * log_scale.clamp(-3, 3).exp()
        ratio = torch.sigmoid(axis_ratio + 0.5).clamp_min(0.05)
        u, v = along / _per_image(scale), across / _per_image(scale * ratio)
        softening = (2 / self.axes.shape[-1] / _per_image(scale)).square()  # a pixel, in scale lengths
        squared = u * u + v * v
        radius = (squared + 0.1 * softening).sqrt()
        # Arms fade at the centre, where they would wind up within a pixel, and outside.
        window = 3 * squared / (squared + 0.3 + softening) * torch.exp(-radius)
        # m arms follow m (azimuth - ln r cot p), with p the pitch angle; cot p = 2 at the start is 27 degrees.
        cotangent = 2 * winding.clamp(-2, 1.2).exp()
        log_radius = radius.log()
        turns = _per_image(cotangent) * log_radius
        phase = self.orders * torch.atan2(v, u)[:, None] - self.wound_orders * turns[:, None]  # (N, orders, S, S)
        # Within the softening a pattern of order m fades as r^m, as smooth functions do.
        fading = 0.5 * squared.clamp_min(1e-12).log() - log_radius
        amplitude = window[:, None] * torch.exp(self.orders * fading[:, None])
        waves = amplitude[:, :, None] * torch.stack([phase.cos(), phase.sin()], 2)
        return _profiles(radius, _PROFILES, self.slopes), waves.flatten(1, 2)

    def _companion(self, along: Tensor, across: Tensor, given: list[Tensor]) -> Tensor:
        log_scale, axis_ratio, x, y, angle = given
        scale = 0.15 * log_scale.clamp(-3, 3).exp()
        ratio = torch.sigmoid(axis_ratio + 1).clamp_min(0.05)
        turned = Pose((3 * angle).cos(), (3 * angle).sin(), torch.ones_like(angle))
        u, v = turned.to_frame(along - _per_image(0.3 + 0.5 * x), across - _per_image(0.5 * y))
        u, v = u / _per_image(scale), v / _per_image(scale * ratio)
        return _profiles((u * u + v * v + 0.01).sqrt(), _COMPANION_PROFILES, self.companion_slopes)


def _profiles(radius: Tensor, shapes: tuple[tuple[float, float], ...], slopes: Tensor) -> Tensor:
    """Return profiles (N, K, S, S) of radii (N, S, S); `slopes` (K, 1, 1) repeats the shapes' on the device."""
    return torch.exp(-slopes * torch.stack([radius if power == 1 else radius**power for _, power in shapes], 1))


# Devices on which the gradient of turning is a product with a matrix. Their kernel for it adds up with atomics, in an
# order that is another one each time, and takes as long as twenty layers.
_ADJOINT_BY_PRODUCT = frozenset({"cuda"})
_ADJOINT_VALUES = 2**26  # of the matrices at a time: 256 MB
_LARGEST_ADJOINT = 2**22  # values of one matrix, 32 pixels onto 64; beyond, atomics cost less


def turn_onto_sky(maps: Tensor, pose: Pose, axes: Tensor) -> Tensor:
    """Resample maps from galaxies' frames onto the sky, turned and mirrored as their poses say.

    What lies outside the maps is their reflection at the border, so that the sky has no corners.

    Parameters
    ----------
    maps : Tensor, (N, C, H, H)
    pose : Pose
    axes : Tensor, (2, S, S)
        Where the pixels of the result lie; see `frame_axes`.

    Returns
    -------
    Tensor, (N, C, S, S)
    """
    side = maps.shape[-1]
    position = fold(torch.stack(pose.to_frame(*axes), -1), side)  # (N, S, S, 2), in pixels of the maps
    if maps.device.type == "mps":  # torch 2.11 cannot differentiate grid_sample there
        return look_up(maps, *position.unbind(-1))
    position = position.to(maps.dtype)
    if maps.device.type in _ADJOINT_BY_PRODUCT and axes[0].numel() * side**2 <= _LARGEST_ADJOINT:
        return cast(Tensor, _Resampling.apply(maps, position))
    return _resampled(maps, position)


def _resampled(maps: Tensor, position: Tensor) -> Tensor:
    """Return maps (N, C, H, H) at positions (N, S, S, 2), in pixels: (N, C, S, S)."""
    return F.grid_sample(maps, (position + 0.5) * (2 / maps.shape[-1]) - 1, align_corners=False)


class _Resampling(torch.autograd.Function):
    """Resample maps; the gradient, which is linear in that of the result, is a product of matrices."""

    @staticmethod
    def forward(maps: Tensor, position: Tensor) -> Tensor:
        return _resampled(maps, position)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.side = inputs[0].shape[-1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (position,) = ctx.saved_tensors
        step = max(1, _ADJOINT_VALUES // (gradient[0, 0].numel() * ctx.side**2))
        parts = zip(gradient.split(step), position.split(step), strict=True)
        found = [_adjoint(*part, ctx.side) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found), None


def _adjoint(gradient: Tensor, position: Tensor, side: int) -> Tensor:
    """Return the gradient (N, C, H, H) in maps of side H from that (N, C, S, S) in what they were resampled to."""
    pixels = torch.arange(side, device=position.device, dtype=position.dtype)
    parts = (1 - (position.flatten(1, 2)[..., None] - pixels).abs()).clamp_min(0)  # (N, S * S, 2, H), bilinear
    across, down = parts.unbind(2)
    weights = (down[..., None] * across[:, :, None]).flatten(2)  # (N, S * S, H * H): of each pixel of the maps
    # Channels last, as the layers before have them.
    found = weights.transpose(1, 2) @ gradient.flatten(2).transpose(1, 2)
    return found.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def symmetrize(maps: Tensor, part: float) -> Tensor:
    """Make the first `part` of the channels of maps (N, C, H, H) equal to themselves after half a turn."""
    count = int(maps.shape[1] * part)
    symmetric, free = maps[:, :count], maps[:, count:]
    return torch.cat([(symmetric + symmetric.flip(2, 3)) / 2, free], 1)
