"""Point-spread functions: how a telescope, and the air above it, spread the light of a point.

They are given by their transfer function, the Fourier transform of unit light about the centre, in closed form of the
frequency times the full width at half maximum. They hold optics and air; the detector's pixels integrate after them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.telescope.fourier import FourierGrid

# Transfer at a frequency in cycles an arcsecond, squared, of PSFs of given full widths at half maximum in arcseconds.
Profile = Callable[[Tensor, Tensor], Tensor]
KOLMOGOROV, AIRY = "kolmogorov", "airy"
_FRIED = 3.44195  # of the structure function of the air's phase: 6.8839 / 2 (Fried 1966)
_SEEING = 0.97586  # full width at half maximum of the seeing disc over wavelength / r0
_RIM = 1e-6  # keeps the slopes of arc cosines and roots finite


@dataclass(frozen=True)
class Psf:
    """Round point-spread functions, one an image and band.

    Attributes
    ----------
    fwhm : Tensor, (N, B) or (1, B), float32
        Full width at half maximum, arcseconds, above 0.
    profile : callable
        `kolmogorov`, or what `airy` returns.
    """

    fwhm: Tensor
    profile: Profile

    def transfer(self, field: FourierGrid) -> Tensor:
        """Return the transfer functions on a grid, (N, B, W, K), float32."""
        return self.profile(field.radius_squared[:, None], self.fwhm[..., None, None])

    def image(self, side: int, pixel_scale: float) -> Tensor:
        """Return pictures of unit light, (N, B, side, side), on pixels of `pixel_scale` arcseconds that integrate.

        The centre is that of the middle pixel, or of the middle four if `side` is even. Light outside the picture is
        left out, and the rest is scaled to 1.
        """
        field = FourierGrid(4 * side, torch.tensor([pixel_scale], device=self.fwhm.device))  # for the wings come round
        first = 3 * side // 2
        centre = (first + (side - 1) / 2) * field.pixel_scale
        picture = field.image(self.transfer(field) * (field.square() * field.shift(centre, centre))[:, None])
        picture = picture[..., first : first + side, first : first + side]
        return picture / picture.sum((-1, -2), keepdim=True)


@dataclass(frozen=True)
class PsfImages:
    """Point-spread functions as pictures, such as surveys measure them: the pixels' response is in them already.

    Attributes
    ----------
    images : Tensor, (N, B, P, P) or (1, B, P, P), float32
        On the pixels of what they blur; each sums to 1. The centre is that of the picture.
    """

    images: Tensor

    def transfer(self, field: FourierGrid) -> Tensor:
        """Return the transfer functions on a grid, (N, B, W, K), complex64.

        Raises
        ------
        ValueError
            If a picture is larger than the grid.
        """
        size = self.images.shape[-1]
        if size > field.side:
            raise ValueError(f"a point-spread function of {size} pixels does not fit a grid of {field.side}")
        spectrum = torch.fft.rfft2(F.pad(self.images, (0, field.side - size, 0, field.side - size)))
        back = -(size - 1) / 2 * field.pixel_scale
        return spectrum * field.shift(back, back)[:, None]


def kolmogorov(frequency_squared: Tensor, fwhm: Tensor) -> Tensor:
    """Return the transfer function of air in turbulence, long exposures: exp(-3.44 (f lambda / r0)^(5/3)) (Fried 1966).

    Parameters
    ----------
    frequency_squared : Tensor
        Cycles an arcsecond, squared.
    fwhm : Tensor
        Arcseconds; the shapes broadcast.
    """
    # Raised one by one, since a grid shared by many images is small.
    return torch.exp(-_FRIED / _SEEING ** (5 / 3) * fwhm ** (5 / 3) * frequency_squared ** (5 / 6))


def airy(obscuration: float) -> Profile:
    """Return the diffraction profile of a round mirror with a round hole, scaled to any width.

    Its transfer function is the overlap of the pupil with itself, moved (O'Neill 1956). Scaled, since real PSFs in
    space are wider than diffraction alone would have them.

    Parameters
    ----------
    obscuration : float
        Diameter of the hole over the mirror's, 0 to 0.9.
    """

    def transfer(frequency_squared: Tensor, fwhm: Tensor) -> Tensor:
        distance = 2 * frequency_squared.sqrt() * fwhm / _airy_width(obscuration)  # radii of the mirror
        whole = _overlap(distance, 1.0, 1.0)
        if obscuration > 0:
            hole = _overlap(distance, obscuration, obscuration) - 2 * _overlap(distance, 1.0, obscuration)
            whole = whole + hole
        return whole / (math.pi * (1 - obscuration**2))

    return transfer


def _overlap(distance: Tensor, large: float, small: float) -> Tensor:
    """Return the area that two discs of given radii share when their centres lie apart."""
    d = distance.clamp(large - small + _RIM, large + small - _RIM)
    one = ((d.square() + small**2 - large**2) / (2 * d * small)).clamp(-1 + _RIM, 1 - _RIM).acos()
    two = ((d.square() + large**2 - small**2) / (2 * d * large)).clamp(-1 + _RIM, 1 - _RIM).acos()
    kite = (small + large - d) * (d + small - large) * (d - small + large) * (d + small + large)
    area = small**2 * one + large**2 * two - kite.clamp_min(_RIM**2).sqrt() / 2
    area = torch.where(distance <= large - small, math.pi * small**2, area)
    return torch.where(distance >= large + small, torch.zeros_like(area), area)


@cache
def _airy_width(obscuration: float) -> float:
    """Return the full width at half maximum of the diffraction profile in units of wavelength over diameter."""

    def brightness(radius: float) -> float:
        x = math.pi * torch.tensor([radius, radius * obscuration], dtype=torch.float64).clamp_min(1e-9)
        disc, hole = (2 * torch.special.bessel_j1(x) / x).tolist()
        return ((disc - obscuration**2 * hole) / (1 - obscuration**2)) ** 2

    low, high = 0.1, 0.6
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if brightness(middle) > 0.5 else (low, middle)
    return low + high


def profile_of(name: str, obscuration: float = 0.0) -> Profile:
    """Return a profile by its name, `kolmogorov` or `airy`.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in (KOLMOGOROV, AIRY):
        raise ValueError(f"no point-spread function is called '{name}': there are {KOLMOGOROV} and {AIRY}")
    return kolmogorov if name == KOLMOGOROV else airy(obscuration)
