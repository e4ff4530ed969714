"""The Fourier transform of a mock galaxy's light, in which cusps are exact and blurring is a multiplication."""

from __future__ import annotations

import torch
from torch import Tensor

from galaxies.mock_survey.galaxy_table import given
from galaxies.mock_survey.light import Grid, Light, Spheroid
from galaxies.mock_survey.sersic import SersicTransform
from galaxies.telescope.fourier import FourierGrid


def transformed(light: Light, field: FourierGrid, sersic: SersicTransform) -> Tensor:
    """Return the transform of light in B bands, (N, B, W, W/2 + 1), complex."""
    parts = [_spheroid(spheroid, field, sersic) for spheroid in light.spheroids]
    if light.planes is not None:
        parts.append(torch.fft.rfft2(light.planes))
    if light.particles is not None:
        blurred = torch.fft.rfft2(light.particles) * field.gaussian(given(light.particle_sigma))
        parts.append(blurred[:, None] * given(light.particle_flux)[..., None, None])
    return torch.as_tensor(sum(parts))


def _spheroid(s: Spheroid, field: FourierGrid, sersic: SersicTransform) -> Tensor:
    along, across = field.turned(s.position_angle)
    frequency = s.size[:, None, None] * (along.square() + (s.axis_ratio[:, None, None] * across).square()).sqrt()
    plane = sersic(frequency, s.n) * field.origin
    if isinstance(s.x, Tensor) and isinstance(s.y, Tensor):
        plane = plane * field.shift(s.x, s.y)
    return plane[:, None] * s.flux[..., None, None]


def half_light_radius(light: Tensor, field: FourierGrid, grid: Grid) -> Tensor:
    """Return the radius (n,) in arcseconds of the circle about the centroid with half of light, by its transform.

    Light is (n, W, W/2 + 1), of one band.

    It is this survey's own and not photometry's: the two share no code, so that each can check the other. What is
    measured here is noiseless light in arcseconds before seeing; photometry finds a source in a noisy picture.
    """
    image = field.image(light * field.gaussian(0.6 * grid.pixel_scale))  # a little blur tames the cusps
    total = image.sum((1, 2))
    x0, y0 = ((image * axis).sum((1, 2)) / total for axis in (grid.x, grid.y))
    distance = ((grid.x - x0[:, None, None]).square() + (grid.y - y0[:, None, None]).square()).sqrt()
    scale = grid.pixel_scale
    low, high = torch.zeros_like(total), scale * grid.side / 2
    for _ in range(18):
        middle = (low + high) / 2
        # A pixel on the rim counts by how far the circle reaches into it.
        inside = ((middle[:, None, None] - distance) / scale[:, None, None] + 0.5).clamp(0, 1)
        more = (image * inside).sum((1, 2)) < total / 2
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return (low + high) / 2
