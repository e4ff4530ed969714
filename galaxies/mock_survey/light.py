"""The light of mock galaxies before the telescope sees it: spheroids, spiral, barred and edge-on discs, mergers.

A galaxy becomes a `Light`: planes sampled on a grid, where discs are smooth enough for that, and spheroids that are
kept as parameters, since their cusps are exact in Fourier space only (`sersic.py`). Everything is batched over
galaxies of one kind. Lengths are arcseconds; fluxes are in the unit and the B bands of the table, nanomaggies in g, r
and i for the display survey; x runs along rows and y down columns; angles count from +x towards +y.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from galaxies.mock_survey import encounter
from galaxies.mock_survey.galaxy_table import BandTable, LitTable, Palette, SpiralDisc, Structure, given

DRY_MERGER, WET_MERGER = "dry merger", "wet merger"
EXPONENTIAL_HALF_LIGHT = 1.678  # half-light radius of an exponential disc, scale lengths
NUM_PARTICLES = 1200  # a disc of a wet merger
# Of g, r and i in the display survey; see `Palette`.
_ARM_CONTRAST = (1.0, 0.85, 0.72)  # young stars are blue
_KNOT_COLOR = (1.6, 1.0, 0.65)
_DUST_OPACITY = (1.25, 1.0, 0.75)  # close to the Milky Way's curve, Cardelli et al. 1989
_OUTSKIRT_COLOR = (1.1, 1.0, 0.95)  # outskirts and tails are a little bluer
_R = 1  # the reference band of those three
_HOLE_RADIUS = 0.8  # of the faint middle of a disc, scale lengths
# The light of an exponential disc times exp(-(r / a)^2), in closed form.
_HOLE_LIGHT = _HOLE_RADIUS**2 / 2 - _HOLE_RADIUS**3 * math.sqrt(math.pi) / 4 * math.exp(
    _HOLE_RADIUS**2 / 4
) * math.erfc(_HOLE_RADIUS / 2)
_PARTICLE_SMOOTHING = 0.16  # standard deviation of a particle's light, scale lengths


@dataclass
class Spheroid:
    """Sersic spheroids, one a galaxy: flux (N, B); the rest (N,), with size the semi-major half-light radius."""

    flux: Tensor
    size: Tensor
    n: Tensor
    axis_ratio: Tensor
    position_angle: Tensor
    x: Tensor | float = 0.0
    y: Tensor | float = 0.0


@dataclass
class Light:
    """Light of N galaxies of one kind: `planes` (N, B, W, W) a pixel, spheroids, and particles still to be smoothed.

    `particles` (N, W, W) holds a unit of light, to be blurred by `particle_sigma` (N,) and given `particle_flux`
    (N, B). `disc_flux` (N, B) is what planes and particles hold together, or would on a grid without an end; without
    it, what they hold.
    """

    planes: Tensor | None
    spheroids: list[Spheroid]
    particles: Tensor | None = None
    particle_sigma: Tensor | None = None
    particle_flux: Tensor | None = None
    disc_flux: Tensor | None = None

    @property
    def flux(self) -> Tensor:
        """All of the light, (N, B)."""
        parts = [spheroid.flux for spheroid in self.spheroids]
        if self.disc_flux is not None:
            return sum(parts, self.disc_flux)
        if self.planes is not None:
            parts.append(self.planes.sum((-1, -2)))
        if self.particle_flux is not None:
            parts.append(self.particle_flux)
        return sum(parts[1:], parts[0])


class Grid:
    """A square pixel grid for each of N galaxies, centred on it.

    Parameters
    ----------
    side : int
        Pixels a side, W.
    pixel_scale : Tensor, (N,), float32
        Arcseconds a pixel.
    """

    def __init__(self, side: int, pixel_scale: Tensor) -> None:
        self.side = side
        self.pixel_scale = pixel_scale
        axis = torch.arange(side, device=pixel_scale.device, dtype=torch.float32) - (side - 1) / 2
        scale = pixel_scale[:, None, None]
        self.x = scale * axis[None, None, :]  # (N, 1, W)
        self.y = scale * axis[None, :, None]  # (N, W, 1)
        self.pixel_area = scale.square()

    def deposit(self, points: Tensor, light: Tensor) -> Tensor:
        """Spread points (N, P, 2) with their light (N, P) over the four nearest pixels each; drop those outside."""
        place = points / self.pixel_scale[:, None, None] + (self.side - 1) / 2
        corner = place.floor()
        part = place - corner
        planes = torch.zeros(len(points), self.side * self.side, device=points.device)
        for right in (0, 1):
            for down in (0, 1):
                column, row = corner[..., 0].long() + right, corner[..., 1].long() + down
                weight = (part[..., 0] if right else 1 - part[..., 0]) * (part[..., 1] if down else 1 - part[..., 1])
                inside = (column >= 0) & (column < self.side) & (row >= 0) & (row < self.side)
                index = (row * self.side + column).clamp(0, self.side * self.side - 1)
                planes.scatter_add_(1, index, torch.where(inside, weight * light, torch.zeros_like(light)))
        return planes.view(-1, self.side, self.side)

    def turned(self, angle: Tensor, x: Tensor | float = 0.0, y: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Return coordinates (N, W, W) along and across an axis at `angle` (N,) through (x, y)."""
        dx, dy = (self.x - _wide(x), self.y - _wide(y))
        cos, sin = _wide(angle.cos()), _wide(angle.sin())
        return cos * dx + sin * dy, cos * dy - sin * dx


# Draws the light of galaxies of one kind on a grid; an encounter is for pairs that `meet`, if they did already.
DrawLight = Callable[[LitTable[Tensor], Grid, "encounter.Encounter | None"], Light]


@overload
def _wide(values: Tensor) -> Tensor: ...
@overload
def _wide(values: Tensor | float) -> Tensor | float: ...
def _wide(values: Tensor | float) -> Tensor | float:
    """Give a column (N,) the two dimensions of a grid."""
    return values[:, None, None] if isinstance(values, Tensor) else values


def _palette(p: LitTable[Tensor]) -> Palette[Tensor]:
    """Return how the parts of galaxies differ in colour: as their own table says, or as in g, r and i of SDSS."""
    if isinstance(p, BandTable):
        return p.palette
    device = p.disc_flux.device
    arms, knots, dust, outskirts = (
        torch.tensor([each], device=device) for each in (_ARM_CONTRAST, _KNOT_COLOR, _DUST_OPACITY, _OUTSKIRT_COLOR)
    )
    return Palette(arms, knots, dust, outskirts, p.disc_flux[:, _R], p.bulge_flux / p.bulge_flux[:, _R, None])


def kind_of_merger(structure: Structure[np.ndarray]) -> np.ndarray:
    """Return the kind of each of N pairs, `DRY_MERGER` or `WET_MERGER`."""
    return np.where(given(structure.pair).dry > 0, DRY_MERGER, WET_MERGER)


def elliptical_light(p: LitTable[Tensor], _grid: Grid, _pair: encounter.Encounter | None = None) -> Light:
    """Draw a cusp in an exponential body."""
    body = Spheroid(p.disc_flux, p.size, torch.ones_like(p.size), p.structure.axis_ratio, p.structure.position_angle)
    core = _spheroid(
        p, p.bulge_flux, p.size / EXPONENTIAL_HALF_LIGHT * p.structure.bulge_size, p.structure.bulge_axis_ratio
    )
    return Light(None, [body, core])


def _spheroid(p: LitTable[Tensor], flux: Tensor, size: Tensor, axis_ratio: Tensor) -> Spheroid:
    return Spheroid(flux, size, p.structure.bulge_n, axis_ratio, p.structure.position_angle)


def spiral_light(p: LitTable[Tensor], grid: Grid, _pair: encounter.Encounter | None = None) -> Light:
    """Draw an inclined thin disc with logarithmic arms, fine structure, a bar and star-forming knots."""
    arms = given(p.structure.spiral)
    scale_length = p.size / EXPONENTIAL_HALF_LIGHT
    u, v = grid.turned(p.structure.position_angle)
    v = v / _wide(p.structure.axis_ratio)
    radius = (u.square() + v.square()).sqrt() / _wide(scale_length)
    azimuth = torch.atan2(v, u) * _wide(arms.winding)
    # Many discs are fainter in the middle than an exponential (type II of Freeman 1970).
    disc = torch.exp(-radius) * (1 - _wide(arms.hole) * torch.exp(-(radius / _HOLE_RADIUS).square()))
    disc = disc / _wide(2 * math.pi * scale_length.square() * p.structure.axis_ratio * (1 - _HOLE_LIGHT * arms.hole))
    disc = disc * grid.pixel_area
    log_radius = radius.clamp_min(0.05).log()

    # Arms r = exp(tan(pitch) angle): a von Mises profile about each ridge, whose mean over the angle is 1, so that
    # the disc keeps its light at every radius.
    sharpness = arms.arm_sharpness
    phase = _wide(arms.num_arms) * (azimuth - log_radius / _wide(arms.pitch.tan())) + _wide(arms.arm_phase)
    ridges = torch.exp(_wide(sharpness) * (phase.cos() - 1)) / _wide(torch.special.i0e(sharpness)) - 1
    lopsided = _wide(arms.arm_asymmetry * (arms.num_arms > 1))
    begin = torch.sigmoid((radius - _wide(arms.arm_start)) / 0.12)
    texture = _wide(arms.arm_strength) * ridges * (1 + lopsided * azimuth.cos()) * begin
    for wave in range(arms.waves.shape[1]):
        number, frequency, offset, size = (_wide(arms.waves[:, wave, k]) for k in range(4))
        ripple = torch.cos(number * azimuth - frequency * log_radius + offset)
        texture = texture + _wide(arms.wave_strength) * size * ripple * begin
    texture = texture.clamp_min(-0.95)

    bar_u = radius * torch.cos(azimuth - _wide(arms.bar_angle)) / _wide(arms.bar_size)
    bar_v = radius * torch.sin(azimuth - _wide(arms.bar_angle)) / _wide(arms.bar_size * arms.bar_axis_ratio)
    boxy = (bar_u.abs() ** 3 + bar_v.abs() ** 3) ** (2 / 3)  # squared radius of a box with round corners
    bar = torch.exp(-math.log(2) * boxy)
    bar = bar / bar.sum((1, 2), keepdim=True)
    knots = grid.deposit(_knot_places(p, arms, scale_length), _normalised(arms.knot_light))

    palette = _palette(p)
    bar_flux = (arms.bar_fraction * palette.reference_disc)[:, None] * palette.old_light
    planes, totals = [], []
    for band in range(p.disc_flux.shape[1]):
        flux = p.disc_flux[:, band]
        knot_fraction = arms.knot_fraction * palette.knot_color[:, band]
        smooth = disc * (1 + _wide(palette.arm_contrast[:, band]) * texture)
        planes.append(
            _wide(flux * (1 - arms.bar_fraction) * (1 - knot_fraction)) * smooth
            + _wide(bar_flux[:, band]) * bar
            + _wide(flux * (1 - arms.bar_fraction) * knot_fraction) * knots
        )
        # Where arms are as dark as they may be, the disc has a little more light than without them.
        added = (smooth.sum((1, 2)) / disc.sum((1, 2)) - 1) * (1 - knot_fraction)
        totals.append(flux * (1 - arms.bar_fraction) * (1 + added) + bar_flux[:, band])
    bulge = _spheroid(p, p.bulge_flux, scale_length * p.structure.bulge_size, p.structure.bulge_axis_ratio)
    return Light(torch.stack(planes, 1), [bulge], disc_flux=torch.stack(totals, 1))


def _normalised(light: Tensor) -> Tensor:
    return light / light.sum(1, keepdim=True)


def _knot_places(p: LitTable[Tensor], arms: SpiralDisc[Tensor], scale_length: Tensor) -> Tensor:
    """Return where knots lie (N, K, 2): near the ridges of the arms."""
    radius = arms.knot_radius.clamp_min(0.2)
    turns = 2 * math.pi * arms.knot_arm + arms.knot_angle - arms.arm_phase[:, None]
    azimuth = radius.log() / arms.pitch.tan()[:, None] + turns / arms.num_arms[:, None]
    azimuth = azimuth * arms.winding[:, None]
    u = radius * scale_length[:, None] * azimuth.cos()
    v = radius * (scale_length * p.structure.axis_ratio)[:, None] * azimuth.sin()
    cos, sin = p.structure.position_angle.cos()[:, None], p.structure.position_angle.sin()[:, None]
    return torch.stack([cos * u - sin * v, sin * u + cos * v], -1)


def edge_on_light(p: LitTable[Tensor], grid: Grid, _pair: encounter.Encounter | None = None) -> Light:
    """Draw a self-gravitating exponential disc from the side (van der Kruit & Searle 1981, eq. 1) with a dust lane."""
    side = given(p.structure.edge_on)
    scale_length = p.size / EXPONENTIAL_HALF_LIGHT
    height = scale_length * side.thickness  # z0 of sech^2(z / z0)
    u, z = grid.turned(p.structure.position_angle)
    along = (u / _wide(scale_length)).abs().clamp_min(1e-4)
    disc = along * torch.special.modified_bessel_k1(along) / torch.cosh((z / _wide(height)).clamp(-40, 40)).square()
    disc = disc * grid.pixel_area / _wide(2 * math.pi * scale_length * height)
    # Less than edge-on, it is the ellipse that any inclined disc is.
    axis_ratio = _wide(p.structure.axis_ratio)
    radius = (along.square() + (z / _wide(scale_length) / axis_ratio).square()).sqrt()
    ellipse = torch.exp(-radius) * grid.pixel_area / (2 * math.pi * _wide(scale_length).square() * axis_ratio)
    disc = torch.where(_wide(side.inclined) > 0, ellipse, disc)
    disc = disc * (1 + _wide(side.lopsidedness) * torch.tanh(u / _wide(scale_length)))
    # Half of the light lies behind the lane.
    lane = (z / _wide(height) - _wide(side.dust_offset)) / 0.35
    depth = _wide(side.dust_depth) * torch.exp(-along / 1.3 - 0.5 * lane.square())
    # The fluxes are what is seen: dust changes where the light and its colour are, not how much there is in the
    # reference band.
    seen = (disc * (0.5 + 0.5 * torch.exp(-depth))).sum((1, 2), keepdim=True)
    opacity = _palette(p).dust_opacity
    planes = []
    for band in range(p.disc_flux.shape[1]):
        plane = disc * (0.5 + 0.5 * torch.exp(-_wide(opacity[:, band]) * depth))
        planes.append(_wide(p.disc_flux[:, band]) * plane / seen)
    bulge = _spheroid(p, p.bulge_flux, scale_length * p.structure.bulge_size, p.structure.bulge_axis_ratio)
    return Light(torch.stack(planes, 1), [bulge])


def dry_merger_light(p: LitTable[Tensor], _grid: Grid, _pair: encounter.Encounter | None = None) -> Light:
    """Draw two spheroids and the faint envelope that their stars already share."""
    pair = given(p.structure.pair)
    flux = p.bulge_flux + p.disc_flux
    ratio = pair.light_ratio
    envelope = 0.2 * flux
    first = (flux - envelope) / (1 + ratio)[:, None]
    x, y = (pair.separation * p.size * part for part in (pair.direction.cos(), pair.direction.sin()))
    one, two = pair.spheroid_axis_ratio.unbind(1)
    angle_one, angle_two = pair.spheroid_angle.unbind(1)
    n_one, n_two = p.structure.bulge_n.unbind(1)
    small = p.size * ratio**0.6
    return Light(
        None,
        [
            Spheroid(first, p.size * 0.8, n_one, one, angle_one),
            Spheroid(first * ratio[:, None], small * 0.8, n_two, two, angle_two, x, y),
            Spheroid(envelope, 1.8 * p.size, torch.ones_like(ratio), 0.5 + 0.5 * one, pair.direction, x / 2, y / 2),
        ],
    )


def draw_particles(seeds: Sequence[int]) -> Tensor:
    """Return `particle_draws` of pairs, (N, 2, P, 3), on the CPU: they belong to the truth, the same on any device."""
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.rand(2, NUM_PARTICLES, 3, generator=stream) for stream in streams])


def meet(galaxies: LitTable[Tensor]) -> encounter.Encounter:
    """Follow the encounters of wet mergers, whose `particle_draws` must have been drawn."""
    pair = given(galaxies.structure.pair)
    return encounter.simulate(
        pair.mass_ratio,
        pair.pericentre,
        pair.speed,
        pair.time_after,
        pair.disc_tilt,
        pair.disc_node,
        pair.view,
        given(pair.particle_draws)[..., :2],
    )


def wet_merger_light(p: LitTable[Tensor], grid: Grid, pair: encounter.Encounter | None = None) -> Light:
    """Draw two discs after an encounter: their inner parts smooth, their outskirts as particles, and two bulges."""
    pair = pair or meet(p)
    two = given(p.structure.pair)
    device = grid.pixel_scale.device
    unit = p.size / EXPONENTIAL_HALF_LIGHT  # arcseconds of the encounter's unit of length
    part = torch.stack([torch.ones_like(two.light_ratio), two.light_ratio], 1)
    part = part / part.sum(1, keepdim=True)  # (N, 2)
    carried = encounter.particle_light()[2]

    # Some particles shine more than others: the clumps in which an encounter makes stars.
    luck = given(two.particle_draws)[..., 2]
    weight = part[..., None] * (0.3 - luck.clamp_min(1e-6).log() * two.clumpiness[:, None, None])
    points = (pair.particles * unit[:, None, None, None]).flatten(1, 2)
    particles = grid.deposit(points, _normalised(weight.flatten(1)))

    planes = torch.zeros((), device=device)
    spheroids = []
    for galaxy in (0, 1):
        x, y = (galaxy * pair.companion[:, axis] * unit for axis in (0, 1))
        scale_length = pair.scale_length[:, galaxy] * unit
        axis_ratio, angle = pair.axis_ratio[:, galaxy], pair.position_angle[:, galaxy]
        u, v = grid.turned(angle, x, y)
        radius = (u.square() + (v / _wide(axis_ratio)).square()).sqrt() / _wide(scale_length)
        disc = torch.exp(-radius) * encounter.inner_share(radius) * grid.pixel_area
        disc = disc / _wide(2 * math.pi * scale_length.square() * axis_ratio)  # holds 1 - carried of the light
        planes = planes + (p.disc_flux * part[:, galaxy, None])[..., None, None] * disc[:, None]
        bulge_ratio = (0.5 * axis_ratio.square() + 0.5).sqrt()
        size = scale_length * p.structure.bulge_size
        flux = p.bulge_flux * part[:, galaxy, None]
        spheroids.append(Spheroid(flux, size, p.structure.bulge_n[:, galaxy], bulge_ratio, angle, x, y))
    pulled_out = p.disc_flux * carried * _palette(p).outskirt_color
    together = p.disc_flux * (1 - carried) + pulled_out
    return Light(planes, spheroids, particles, _PARTICLE_SMOOTHING * unit, pulled_out, together)
