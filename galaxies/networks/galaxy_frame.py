"""The galaxy's own frame: its pose on the sky, and the smooth patterns that galaxies are made of, laid out in it.

A galaxy has no up and no preferred hand, and a disc is nearly the same after half a turn. A generator that draws in
the galaxy's frame and is then turned onto the sky need not learn every orientation anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galaxies.images.resampling import fold, look_up
from galaxies.measure.inclination import axis_ratio_of

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


class DiscInclination(NamedTuple):
    """What a condition vector says of how discs are inclined.

    Attributes
    ----------
    value, flag : int
        Where in the vector the scaled inclination is, and whether it is known.
    low, high : float
        Degrees of the scaled values 0 and 1.
    """

    value: int
    flag: int
    low: float
    high: float

    def axis_ratio(self, condition: Tensor) -> Tensor:
        """Return the axis ratios (N,) of discs by conditions (N, C), NaN where no inclination is known."""
        degrees = self.low + condition[:, self.value].float() * (self.high - self.low)
        ratio = axis_ratio_of(degrees.clamp(0, 90))
        return torch.where(condition[:, self.flag] > 0, ratio, torch.nan)

    def left_out(self, condition: Tensor) -> Tensor:
        """Return the conditions (N, C) without it, as if it were unknown."""
        places = torch.arange(condition.shape[1], device=condition.device)
        return torch.where((places == self.value) | (places == self.flag), 0.0, condition)


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
    slopes: Tensor  # (profiles, 1, 1), see `_Constants`, as the next
    companion_slopes: Tensor
    scales: Tensor  # (2,), of the main body and the companion before any style
    keeps_float32 = True  # see `compute.forward_pass`
    num_profiles = len(_PROFILES) + len(_COMPANION_PROFILES)
    num_planes = num_profiles + 2 * len(_WOUND_ARMS) + 2 * len(_STRAIGHT_ARMS)

    def __init__(self, style_dim: int, size: int) -> None:
        super().__init__()
        self.place = nn.Linear(style_dim, 10)
        nn.init.normal_(self.place.weight, 0.0, 0.05 / _GAIN)
        nn.init.zeros_(self.place.bias)
        constants = {
            "axes": frame_axes(size),
            "scales": torch.tensor([0.25, 0.15]),
            "roundness": torch.tensor([0.5, 1]),
        }
        for name, value in (constants | _Constants.make()._asdict()).items():
            self.register_buffer(name, value, persistent=False)

    def shape(self, style: Tensor, axis_ratio: Tensor | None = None) -> Tensor:
        """Return what galaxies of styles (N, style_dim) look like, (N, 10), float32.

        The main body has the `axis_ratio` (N,) where that is given and not NaN, whatever its style.
        """
        with torch.autocast(style.device.type, enabled=False):
            given = _GAIN * self.place(style.float())
            # Of the main body and of the companion, (N, 2) each; the last is winding, and an angle.
            log_scale, flatness, x, y, last = given.unflatten(1, (2, 5)).unbind(2)
            (x, companion_x), (y, companion_y), (winding, angle) = (t.unbind(1) for t in (x, y, last))
            major = self.scales * log_scale.clamp(-3, 3).exp()
            # By columns: a processor's sigmoid of many values at a time differs in the last bit, and releases do not.
            rounded = zip(flatness.unbind(1), (0.5, 1.0), strict=True)
            own, companion = (torch.sigmoid(t + least).clamp_min(0.05) for t, least in rounded)
            if axis_ratio is not None:
                own = torch.where(axis_ratio.isnan(), own, axis_ratio)
            minor = major * torch.stack([own, companion], 1)
            # m arms follow m (azimuth - ln r cot p), with p the pitch angle; cot p = 2 at the start is 27 degrees.
            cotangent = 2 * winding.clamp(-2, 1.2).exp()
            (major, companion_major), (minor, companion_minor) = major.unbind(1), minor.unbind(1)
            shape = _Shape(
                x=0.05 * x,
                y=0.05 * y,
                companion_x=0.3 + 0.5 * companion_x,
                companion_y=0.5 * companion_y,
                major=major,
                companion_major=companion_major,
                minor=minor,
                companion_minor=companion_minor,
                cotangent=cotangent,
                angle=3 * angle,
            )
            return torch.stack(shape, 1)

    def forward(self, shape: Tensor, pose: Pose, axes: Tensor | None = None) -> Tensor:
        """Return the planes (N, num_planes, H, H), float32, of what galaxies look like (N, 10), see `shape`.

        They are drawn at pixels `axes` (2, H, H), and at the frame's own where there are none.
        """
        constants = _Constants(*(getattr(self, name) for name in _Constants._fields))
        axes = self.axes if axes is None else axes
        with torch.autocast(shape.device.type, enabled=False):
            return cast(Tensor, _Patterns.apply(shape, pose.cosine, pose.sine, pose.hand, axes, *constants))

    def weighed(self, shape: Tensor, pose: Pose, axes: Tensor, weights: Tensor) -> Tensor:
        """Return the sums (N, B, H, H), float32, of the planes at pixels `axes` that weights (N, B num_planes) make.

        A processor draws a few galaxies at a time, so that their planes stay in its cache.
        """
        values = self.num_planes * axes[0].numel()
        count = max(1, _CACHED_VALUES // values) if shape.device.type == "cpu" else len(shape)
        parts = zip(*(part.split(count) for part in (shape, weights, pose.cosine, pose.sine, pose.hand)), strict=True)
        sums = [weighed_sum(self(given, Pose(*lying), axes), weight) for given, weight, *lying in parts]
        return sums[0] if len(sums) == 1 else torch.cat(sums)

    def profiles(self, shape: Tensor, pose: Pose, axes: Tensor) -> Tensor:
        """Return the planes of radial profiles alone (N, num_profiles, H, H), float32, at pixels `axes` (2, H, H)."""
        with torch.autocast(shape.device.type, enabled=False):
            at = _Coordinates.make(_Shape(*(_per_image(column) for column in shape.unbind(1))), pose, axes)
            return at.profiles(self.slopes, self.companion_slopes)


_CACHED_VALUES = 2**21  # of planes that are drawn together on a processor


def weighed_sum(planes: Tensor, weights: Tensor) -> Tensor:
    """Return the sums (N, B, H, H), float32, of planes (N, K, H, H) that weights (N, B K) make."""
    by_band = weights.float().unflatten(1, (-1, planes.shape[1]))
    return (by_band @ planes.flatten(2)).unflatten(2, planes.shape[2:])


class _Shape(NamedTuple):
    """What the planes of a galaxy look like, (N,) each; lengths in half frame widths."""

    x: Tensor  # centre of the main body, on the sky
    y: Tensor
    companion_x: Tensor  # centre of the companion, in the galaxy's frame
    companion_y: Tensor
    major: Tensor  # scale lengths
    companion_major: Tensor
    minor: Tensor
    companion_minor: Tensor
    cotangent: Tensor  # of the pitch angle
    angle: Tensor  # of the companion's major axis, in the galaxy's frame


class _Coordinates(NamedTuple):
    """Where pixels lie in a galaxy and its companion, (N, S, S); `softening` (N, 1, 1)."""

    u: Tensor  # scale lengths along and across the main body
    v: Tensor
    softening: Tensor  # square of a pixel, in scale lengths
    radius: Tensor
    companion_u: Tensor
    companion_v: Tensor
    companion_radius: Tensor

    @classmethod
    def make(cls, of: _Shape, pose: Pose, axes: Tensor) -> _Coordinates:
        """Return those of a shape whose entries are (N, 1, 1) at the pixels of `axes` (2, S, S)."""
        along, across = pose.to_frame(axes[0] - of.x, axes[1] - of.y)
        u, v = along / of.major, across / of.minor
        softening = (2 / axes.shape[-1] / of.major).square()
        radius = (u * u + v * v + 0.1 * softening).sqrt()
        angle = of.angle[:, 0, 0]
        turned = Pose(angle.cos(), angle.sin(), torch.ones_like(pose.hand))
        companion_u, companion_v = turned.to_frame(along - of.companion_x, across - of.companion_y)
        companion_u, companion_v = companion_u / of.companion_major, companion_v / of.companion_minor
        companion_radius = (companion_u * companion_u + companion_v * companion_v + 0.01).sqrt()
        return cls(u, v, softening, radius, companion_u, companion_v, companion_radius)

    def profiles(self, slopes: Tensor, companion_slopes: Tensor) -> Tensor:
        """Return the profiles (N, num_profiles, S, S) of the main body and the companion."""
        main = _profiles(self.radius, _PROFILES, slopes)
        return torch.cat([main, _profiles(self.companion_radius, _COMPANION_PROFILES, companion_slopes)], 1)


class _Constants(NamedTuple):
    """Numbers of the patterns, kept on the device."""

    orders: Tensor  # (orders, 1, 1), as the next
    wound_orders: Tensor
    slopes: Tensor  # (profiles, 1, 1), as the next
    companion_slopes: Tensor
    radial: Tensor  # (7, num_planes), see `_Patterns.backward`
    crossed: Tensor  # (2, 2 orders)

    @classmethod
    def make(cls) -> _Constants:
        orders = torch.tensor([*_WOUND_ARMS, *_STRAIGHT_ARMS], dtype=torch.float32)
        wound = orders * torch.tensor([1.0] * len(_WOUND_ARMS) + [0.0] * len(_STRAIGHT_ARMS))
        slopes, companion_slopes = (
            torch.tensor([k for k, _ in shapes])[:, None, None] for shapes in (_PROFILES, _COMPANION_PROFILES)
        )
        radial = torch.zeros(7, GalaxyFrame.num_planes)
        for plane, (slope, power) in enumerate(_PROFILES):
            radial[_POWERS.index(power), plane] = -slope * power
        waves = slice(len(_PROFILES), len(_PROFILES) + 2 * len(orders))
        radial[3, waves], radial[4, waves] = 1.0, orders.repeat_interleave(2)
        for plane, (slope, power) in enumerate(_COMPANION_PROFILES, waves.stop):
            radial[5 + _POWERS.index(power), plane] = -slope * power
        crossed = torch.stack([-orders, orders, wound, -wound], 1).view(-1, 2, 2).transpose(0, 1).flatten(1)
        return cls(orders[:, None, None], wound[:, None, None], slopes, companion_slopes, radial, crossed)


_POWERS = (1.0, 2.0, 0.5)  # of the radius in the profiles; the companion's are the first two


class _Patterns(torch.autograd.Function):
    """Draw the planes (N, num_planes, S, S) of shapes (N, 10), a `_Shape` in columns.

    The gradient is written out. Automatic differentiation takes twice as many operations, all of them small: every
    pattern is an exponential, so that the gradient of its logarithm is what comes in times the pattern, and all
    patterns are functions of four coordinates, so that the shape's gradient is made of a few sums over pixels.
    """

    @staticmethod
    def forward(
        ctx: Any, shape: Tensor, cosine: Tensor, sine: Tensor, hand: Tensor, axes: Tensor, *constants: Tensor
    ) -> Tensor:
        of = _Shape(*(_per_image(column) for column in shape.unbind(1)))
        numbers = _Constants(*constants)
        at = _Coordinates.make(of, Pose(cosine, sine, hand), axes)
        u, v, softening, radius = at.u, at.v, at.softening, at.radius
        squared = u * u + v * v
        # Arms fade at the centre, where they would wind up within a pixel, and outside.
        window = 3 * squared / (squared + 0.3 + softening) * torch.exp(-radius)
        log_radius = radius.log()
        turns = of.cotangent * log_radius
        phase = numbers.orders * torch.atan2(v, u)[:, None] - numbers.wound_orders * turns[:, None]
        # Within the softening a pattern of order m fades as r^m, as smooth functions do.
        fading = 0.5 * squared.clamp_min(_TINY).log() - log_radius
        amplitude = window[:, None] * torch.exp(numbers.orders * fading[:, None])  # (N, orders, S, S)
        waves = amplitude[:, :, None] * torch.stack([phase.cos(), phase.sin()], 2)

        main, companion = at.profiles(numbers.slopes, numbers.companion_slopes).split(
            [len(_PROFILES), len(_COMPANION_PROFILES)], 1
        )
        planes = torch.cat([main, waves.flatten(1, 2), companion], 1)
        coordinates = (u, v, at.companion_u, at.companion_v)
        radii = (radius, at.companion_radius, softening)
        ctx.save_for_backward(shape, cosine, sine, hand, *coordinates, *radii, planes, *constants[-2:])
        return planes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shape, cosine, sine, hand, u, v, companion_u, companion_v, *others = ctx.saved_tensors
        radius, companion_radius, softening, planes, radial, crossed = others
        # Of the logarithms of all planes. Of powers of the radius, of the window and the fading; for the companion too.
        linear, gaussian, cusp, window, fading, companion_linear, companion_gaussian = _mixed(radial, gradient * planes)
        waves = slice(len(_PROFILES), len(_PROFILES) + crossed.shape[1])
        other = planes[:, waves].unflatten(1, (-1, 2)).flip(2).flatten(1, 2)  # sines for cosines
        azimuth, turns = _mixed(crossed, gradient[:, waves] * other)

        squared = u * u + v * v
        of_log = turns * _per_image(shape[:, _Shape._fields.index("cotangent")]) - fading
        of_radius = linear + gaussian * radius + cusp * radius.rsqrt() - window + of_log / radius
        half = 0.5 * of_radius / radius
        reach = window / (squared + (0.3 + softening))
        near = squared.clamp_min(_TINY)
        of_squared = 2 * (half + (0.5 * fading + window) / near - reach)
        spin = azimuth / near
        of_companion = (companion_linear + companion_gaussian * companion_radius) / companion_radius
        maps = [
            u * of_squared - v * spin,
            v * of_squared + u * spin,
            companion_u * of_companion,
            companion_v * of_companion,
            0.1 * half - reach,
            turns * radius.log(),
        ]
        weights = torch.stack([torch.ones_like(u), u, v, companion_u, companion_v], 1)
        sums = torch.stack(maps, 1).flatten(2) @ weights.flatten(2).transpose(1, 2)  # (N, maps, weights)
        return _of_shape(shape, cosine, sine, hand, softening, sums), *[None] * 10


_TINY = 1e-12  # least square of a radius whose logarithm is taken


def _mixed(matrix: Tensor, maps: Tensor) -> tuple[Tensor, ...]:
    """Return the sums (N, S, S) of maps (N, C, S, S) that the rows of a matrix (K, C) weigh."""
    return (matrix.expand(len(maps), -1, -1) @ maps.flatten(2)).unflatten(2, maps.shape[2:]).unbind(1)


def _of_shape(shape: Tensor, cosine: Tensor, sine: Tensor, hand: Tensor, softening: Tensor, sums: Tensor) -> Tensor:
    """Return the gradient (N, 10) in a `_Shape` from sums over pixels, as `_Patterns.backward` makes them.

    Their rows are the gradients in the coordinates u and v along and across the main body, those of the companion, and
    those in softening and cotangent; the columns are weights: 1, and the four coordinates.
    """
    of = _Shape(*shape.unbind(1))
    lengths = torch.stack([of.major, of.minor, of.companion_major, of.companion_minor], 1)
    # A coordinate is a position over a length.
    of_position = sums[:, :4, 0] / lengths
    of_length = -sums[:, :4, 1:].diagonal(dim1=1, dim2=2) / lengths
    of_major = of_length[:, 0] - 2 * softening[:, 0, 0] * sums[:, 4, 0] / of.major
    along, across, companion_along, companion_across = of_position.unbind(1)
    turn, other = of.angle.cos(), of.angle.sin()
    companion_x = turn * companion_along - other * companion_across
    companion_y = other * companion_along + turn * companion_across
    along, across = hand * (along + companion_x), across + companion_y
    stretch = of.companion_minor / of.companion_major
    found = _Shape(
        x=sine * across - cosine * along,
        y=-(sine * along + cosine * across),
        companion_x=-companion_x,
        companion_y=-companion_y,
        major=of_major,
        companion_major=of_length[:, 2],
        minor=of_length[:, 1],
        companion_minor=of_length[:, 3],
        cotangent=sums[:, 5, 0],
        angle=sums[:, 2, 4] * stretch - sums[:, 3, 3] / stretch,
    )
    return torch.stack(found, 1)


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
