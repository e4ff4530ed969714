"""Encounters of two disc galaxies: stars as test particles that the two galaxies' gravity pulls into tails and bridges.

The restricted three-body method of Toomre & Toomre (1972, ApJ 178, 623): two rigid mass distributions pass each
other, and discs of massless particles on circular orbits show what the tide does. The masses have the Hernquist
(1990) profile M(<r) = M r^2 / (r + a)^2 instead of points, so that the particles' rotation curves are nearly flat.

Units: the primary's mass, its disc's scale length and G are 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

HALO_RADIUS = 3.0  # a of both mass profiles, scale lengths of the primary's disc
TIME_BEFORE = 30.0  # from the start to the closest approach
NUM_STEPS = 120
MAX_RADIUS = 8.0  # of the particles' first orbits, scale lengths of their own disc
SMOOTH_RADIUS = 1.3  # inside this, the light stays with the undisturbed inner disc, see `inner_share`
_COMPANION_ORBIT = 0.7  # a companion's mass to this power is its disc's scale length


class Encounter(NamedTuple):
    """Two galaxies after their encounter, seen along z.

    Attributes
    ----------
    particles : Tensor, (N, 2, P, 2)
        Positions of the particles of the primary's and of the companion's disc relative to the primary's centre.
    companion : Tensor, (N, 2)
        Position of the companion's centre.
    axis_ratio, position_angle : Tensor, (N, 2)
        Projected minor over major axis of the two inner discs, and the major axes' angles from +x towards +y, radians.
    scale_length : Tensor, (N, 2)
        Of the two discs.
    """

    particles: Tensor
    companion: Tensor
    axis_ratio: Tensor
    position_angle: Tensor
    scale_length: Tensor


def inner_share(radius: Tensor) -> Tensor:
    """Return the part of an exponential disc's light at a radius (scale lengths) that no particle carries."""
    return 1 / (1 + (radius / SMOOTH_RADIUS) ** 4)


def particle_light() -> tuple[Tensor, Tensor, float]:
    """Return radii, the cumulative distribution of the particles over them, and the part of the light they carry.

    The little light beyond `MAX_RADIUS` is carried too, by particles that start within it.
    """
    radius = torch.linspace(0, 40, 8001, dtype=torch.float64)
    disc = radius * torch.exp(-radius)
    carried = 1 - float((disc * inner_share(radius)).sum() / disc.sum())
    within = radius <= MAX_RADIUS
    outer = (disc * (1 - inner_share(radius)))[within]
    return radius[within], outer.cumsum(0) / outer.sum(), carried


def simulate(
    mass_ratio: Tensor,
    pericentre: Tensor,
    speed: Tensor,
    time_after: Tensor,
    disc_tilt: Tensor,
    disc_node: Tensor,
    view: Tensor,
    uniform: Tensor,
) -> Encounter:
    """Follow encounters from before the closest approach to a time after it.

    Parameters
    ----------
    mass_ratio : Tensor, (N,)
        The companion's mass, 0 to 1.
    pericentre : Tensor, (N,)
        Distance of closest approach.
    speed : Tensor, (N,)
        Speed there as a part of the parabolic orbit's; below 1 the galaxies come back, as friction would have it.
    time_after : Tensor, (N,)
        Time since the closest approach.
    disc_tilt, disc_node : Tensor, (N, 2), radians
        Inclination of each disc to the orbit's plane (0: prograde, the strongest tails) and the angle of its node.
    view : Tensor, (N, 3, 3)
        Rotation from the orbit's plane to the sky.
    uniform : Tensor, (N, 2, P, 2), in [0, 1)
        Random numbers that place the particles: radius and azimuth.

    Returns
    -------
    Encounter
    """
    scale_length = torch.stack([torch.ones_like(mass_ratio), mass_ratio**_COMPANION_ORBIT], 1)  # (N, 2)
    masses = torch.stack([torch.ones_like(mass_ratio), mass_ratio], 1)
    start, velocity = _relative_start(mass_ratio, pericentre, speed)
    total = masses.sum(1, keepdim=True)
    share = torch.stack([-masses[:, 1], masses[:, 0]], 1) / total  # of the separation, from the centre of mass
    basis = _disc_basis(disc_tilt, disc_node)  # (N, 2, 3, 3): rows e1, e2, normal

    radii, cumulative, _ = particle_light()
    place = torch.searchsorted(cumulative.to(uniform), uniform[..., 0].contiguous()).clamp_max(len(radii) - 1)
    radius = radii.to(uniform)[place] * scale_length[..., None]  # (N, 2, P)
    azimuth = 2 * math.pi * uniform[..., 1]
    own_speed = torch.sqrt(masses[..., None] * radius) / (radius + HALO_RADIUS)
    along, across = basis[:, :, None, 0], basis[:, :, None, 1]  # (N, 2, 1, 3)
    cos, sin = azimuth.cos()[..., None], azimuth.sin()[..., None]
    x = radius[..., None] * (cos * along + sin * across) + (share[..., None] * start[:, None])[:, :, None]
    v = own_speed[..., None] * (cos * across - sin * along) + (share[..., None] * velocity[:, None])[:, :, None]

    # Leapfrog (kick, drift, kick); every pair has its own step, so that all end together.
    step = (TIME_BEFORE + time_after)[:, None] / NUM_STEPS  # (N, 1)
    separation, rate = start, velocity
    acceleration = _pull_of_both(x, separation, share, masses)
    for _ in range(NUM_STEPS):
        v = v + 0.5 * step[..., None, None] * acceleration
        x = x + step[..., None, None] * v
        rate = rate + 0.5 * step * _pull(separation, total)
        separation = separation + step * rate
        rate = rate + 0.5 * step * _pull(separation, total)
        acceleration = _pull_of_both(x, separation, share, masses)
        v = v + 0.5 * step[..., None, None] * acceleration

    primary = share[:, :1] * separation  # (N, 3)
    seen = torch.einsum("nij,ngpj->ngpi", view, x - primary[:, None, None])[..., :2]
    normal = torch.einsum("nij,ngj->ngi", view, basis[:, :, 2])  # (N, 2, 3)
    return Encounter(
        particles=seen,
        companion=torch.einsum("nij,nj->ni", view, separation)[:, :2],
        axis_ratio=normal[..., 2].abs().clamp_min(0.15),
        position_angle=torch.atan2(normal[..., 0], -normal[..., 1]),
        scale_length=scale_length,
    )


def _pull(offset: Tensor, mass: Tensor) -> Tensor:
    """Return the acceleration (..., 3) at an offset from a Hernquist mass (..., 1)."""
    distance = offset.square().sum(-1, keepdim=True).add(1e-6).sqrt()
    return -mass / (distance + HALO_RADIUS).square() / distance * offset


def _pull_of_both(x: Tensor, separation: Tensor, share: Tensor, masses: Tensor) -> Tensor:
    """Return the acceleration of particles (N, 2, P, 3) by both galaxies."""
    acceleration = torch.zeros_like(x)
    for galaxy in (0, 1):
        centre = (share[:, galaxy, None] * separation)[:, None, None]
        acceleration = acceleration + _pull(x - centre, masses[:, galaxy, None, None, None])
    return acceleration


def _relative_start(mass_ratio: Tensor, pericentre: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
    """Return separation and its rate, (N, 3), at the start: the orbit after the closest approach, run backwards."""
    total = (1 + mass_ratio)[:, None]
    zero = torch.zeros_like(pericentre)
    separation = torch.stack([pericentre, zero, zero], 1)
    fast = speed * torch.sqrt(2 * total[:, 0] / (pericentre + HALO_RADIUS))
    rate = torch.stack([zero, fast, zero], 1)
    step = TIME_BEFORE / NUM_STEPS
    for _ in range(NUM_STEPS):
        rate = rate + 0.5 * step * _pull(separation, total)
        separation = separation + step * rate
        rate = rate + 0.5 * step * _pull(separation, total)
    mirror = torch.tensor([1.0, -1.0, 1.0], dtype=separation.dtype, device=separation.device)
    return separation * mirror, -rate * mirror


def _disc_basis(tilt: Tensor, node: Tensor) -> Tensor:
    """Return two axes in each disc's plane and its spin axis, (N, 2, 3, 3); tilt 0 spins with the orbit."""
    zero = torch.zeros_like(tilt)
    along = torch.stack([node.cos(), node.sin(), zero], -1)
    across = torch.stack([-node.sin() * tilt.cos(), node.cos() * tilt.cos(), tilt.sin()], -1)
    return torch.stack([along, across, torch.linalg.cross(along, across)], -2)
