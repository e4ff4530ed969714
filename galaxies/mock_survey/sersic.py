"""Sersic profiles, cut off at eight half-light radii, with their exact Fourier transforms.

The surface brightness is I(r) ~ exp(-b r^(1/n)) for r up to `TRUNCATION`, with r in half-light radii and unit flux
(Sersic 1963; Graham & Driver 2005, eq. 1). SDSS cuts its de Vaucouleurs profiles off at the same radius. b is chosen
so that radius 1 holds half the light of the profile as it is cut.

A cusp cannot be sampled on pixels without error; its transform can. A profile is therefore put into an image in
Fourier space, where the point-spread function is a multiplication, as GalSim does (Rowe et al. 2015, section 6).

Ours, since GalSim draws one galaxy at a time on a CPU and has no Windows wheel, while these are drawn in batches on any
device; tests hold the profiles and the pictures made of them against GalSim's.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

TRUNCATION = 8.0
INDEX_RANGE = (0.5, 5.0)
_NUM_INDICES = 24  # of the table, equally spaced in log n
_B_STEP = 0.005
_NUM_NODES = 5000  # quadrature points in radius: ten a wave at the largest frequency
_FREQUENCIES = (1e-3, 12.0, 240)  # of the table: lowest, highest (cycles a half-light radius), number


def sersic_b(n: Tensor) -> Tensor:
    """Return b of the truncated profile, to 1e-6.

    Parameters
    ----------
    n : Tensor, any shape, float64
        Sersic index, 0.5 to 5.
    """
    table = _b_table()
    place = ((n - INDEX_RANGE[0]) / _B_STEP).clamp(0, len(table) - 1.001)
    lower = place.long()
    return torch.lerp(table[lower], table[lower + 1], place - lower)


@cache
def _b_table() -> Tensor:
    """Solve for b by bisection, for indices `_B_STEP` apart."""
    n = torch.arange(INDEX_RANGE[0], INDEX_RANGE[1] + _B_STEP / 2, _B_STEP, dtype=torch.float64)
    low, high = torch.full_like(n, 0.01), 3 * n
    for _ in range(60):
        b = (low + high) / 2
        inside = torch.special.gammainc(2 * n, b) / torch.special.gammainc(2 * n, b * TRUNCATION ** (1 / n))
        low, high = torch.where(inside < 0.5, b, low), torch.where(inside < 0.5, high, b)
    return (low + high) / 2


def enclosed_light(radius: Tensor, n: Tensor, constants: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return the part of a profile's light within a radius (in half-light radii), float64, broadcast.

    `constants` are those of n, by `profile_constants`, if they are known already.
    """
    b, whole = constants or profile_constants(n)
    return torch.special.gammainc(2 * n, b * radius.clamp(0, TRUNCATION) ** (1 / n)) / whole


def profile_constants(n: Tensor) -> tuple[Tensor, Tensor]:
    """Return b, and the light within the truncation over that of the endless profile, each of n's shape."""
    b = sersic_b(n)
    return b, torch.special.gammainc(2 * n, b * TRUNCATION ** (1 / n))


class SersicTransform:
    """Fourier transforms of circular profiles of unit flux and half-light radius, looked up in a table.

    Elsewhere: the transform of an ellipse is that of the circle at a stretched frequency, and a shift of the centre
    is a phase. The table is linear in log frequency and in log n; between its entries it errs by less than 0.1 %.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._table = _transform_table().to(device, torch.float32)  # (indices, frequencies)

    def __call__(self, frequency: Tensor, n: Tensor) -> Tensor:
        """Look up transforms.

        Parameters
        ----------
        frequency : Tensor, (N, ...), float32
            Cycles a half-light radius, at least 0.
        n : Tensor, (N,), float32
            Sersic index, one a profile.

        Returns
        -------
        Tensor, (N, ...), float32
            1 at frequency 0; 0 beyond the table's end, which a point-spread function has blurred away.
        """
        low, high, num = _FREQUENCIES
        step = math.log(INDEX_RANGE[1] / INDEX_RANGE[0]) / (_NUM_INDICES - 1)
        place = ((n / INDEX_RANGE[0]).log() / step).clamp(0, _NUM_INDICES - 1 - 1e-4)
        lower = place.long()
        part = (place - lower)[:, None]
        rows = self._table[lower] * (1 - part) + self._table[lower + 1] * part  # (N, frequencies)
        step = math.log(high / low) / (num - 1)
        column = ((frequency.flatten(1).clamp_min(low) / low).log() / step).clamp_max(num - 1 - 1e-3)
        left = column.long()
        part = column - left
        values = rows.gather(1, left) * (1 - part) + rows.gather(1, left + 1) * part
        values = torch.where(frequency.flatten(1) < high, values, torch.zeros_like(values))
        return values.view_as(frequency)


@cache
def _transform_table() -> Tensor:
    """Integrate I(r) J0(2 pi k r) over the disc for every index and frequency of the table, in float64.

    With b r^(1/n) = u^2 the light is distributed as u^(4n - 1) exp(-u^2), which is smooth at the centre for any n.
    """
    low, high, num = _FREQUENCIES
    frequency = torch.logspace(math.log10(low), math.log10(high), num, dtype=torch.float64)
    rows = []
    least, most = (math.log10(n) for n in INDEX_RANGE)
    for n in torch.logspace(least, most, _NUM_INDICES, dtype=torch.float64):
        b = sersic_b(n)
        end = (b * TRUNCATION ** (1 / n)).sqrt()
        u = (torch.arange(_NUM_NODES, dtype=torch.float64) + 0.5) / _NUM_NODES * end
        light = u ** (4 * n - 1) * torch.exp(-u.square())
        radius = (u.square() / b) ** n
        waves = torch.special.bessel_j0(2 * math.pi * frequency[:, None] * radius)
        rows.append(waves @ (light / light.sum()))
    return torch.stack(rows)
