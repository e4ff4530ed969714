"""Shapes of point-spread functions by name, each as its transfer function: `profile_of("moffat:3.5")`.

A profile gives the transfer at frequencies in cycles an arcsecond, squared, of PSFs of given full widths at half
maximum in arcseconds; the shapes broadcast. It is 1 at frequency 0, for light is spread and never lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from galaxies.common.errors import UserError, shown
from galaxies.common.parsing import NUMBER_FORM

KOLMOGOROV, AIRY, GAUSSIAN, MOFFAT, DOUBLE_GAUSSIAN = "kolmogorov", "airy", "gaussian", "moffat", "double_gaussian"
_FRIED = 3.44195  # of the structure function of the air's phase: 6.8839 / 2 (Fried 1966)
_SEEING = 0.97586  # full width at half maximum of the seeing disc over wavelength / r0
_RIM = 1e-6  # keeps the slopes of arc cosines and roots finite
_FWHM_OF_SIGMA = 2 * math.sqrt(2 * math.log(2))
# What the numbers behind a name are, with the least and the most of each. A Moffat profile of 1 holds no finite light.
_PARAMETERS: dict[str, tuple[tuple[str, float, float], ...]] = {
    KOLMOGOROV: (),
    GAUSSIAN: (),
    AIRY: (("obscuration", 0.0, 0.9),),
    MOFFAT: (("beta", 1.5, 50.0),),
    DOUBLE_GAUSSIAN: (("fraction", 0.0, 0.9), ("ratio", 1.0, 20.0)),
}
PROFILES = ("kolmogorov", "gaussian", "moffat:BETA", "double_gaussian:FRACTION,RATIO", "airy:OBSCURATION")
_TABLE_STEPS = 640


@dataclass(frozen=True)
class Profile:
    """A shape of point-spread functions.

    Attributes
    ----------
    transfer : callable
        From squared frequencies and full widths, which broadcast, to the transfer.
    cusp, power : float
        At low frequencies the transfer is 1 - cusp (f fwhm)^power. A power below 2 is that of wings, which fall as
        r^-(2 + power) and hold light far from the centre; without such wings the cusp counts as 0.
    """

    transfer: Callable[[Tensor, Tensor], Tensor]
    cusp: float = 0.0
    power: float = 2.0

    def __call__(self, frequency_squared: Tensor, fwhm: Tensor) -> Tensor:
        """Return the transfer at squared frequencies, cycles an arcsecond, of widths in arcseconds."""
        return self.transfer(frequency_squared, fwhm)

    def come_round(self, periods: Tensor) -> Tensor:
        """Return the part of a point's light that far wings bring back, where pictures come again after a period.

        Periods are in full widths. Spread evenly over a period, it is what the wings of all other copies give at the
        place of the point.
        """
        return self.cusp * _copies(self.power) * periods ** (-self.power) if self.cusp else torch.zeros_like(periods)

    def reach(self, brightness: Tensor) -> Tensor:
        """Return how far from unit light its far wings are as bright as this: full widths, 0 where there are no wings.

        Brightness is light a square full width, above 0.
        """
        if not self.cusp:
            return torch.zeros_like(brightness)
        return (self.cusp * _wing(self.power) / brightness) ** (1 / (2 + self.power))


def _wing(power: float) -> float:
    """Return r^(2 + power) h(r) of far wings h for a cusp of 1."""
    return -(math.pi ** (-1 - power)) * math.gamma(1 + power / 2) / math.gamma(-power / 2)


@cache
def _copies(power: float) -> float:
    """Return the sum of wings, r^(2 + power) h(r) for a cusp of 1, over a lattice of periods but its origin."""
    wing, reach = _wing(power), 60
    disc = range(-reach, reach + 1)
    near = sum((x * x + y * y) ** (-1 - power / 2) for x in disc for y in disc if 0 < x * x + y * y <= reach**2)
    return wing * (near + 2 * math.pi * reach**-power / power)


def _kolmogorov(frequency_squared: Tensor, fwhm: Tensor) -> Tensor:
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

    return Profile(transfer, 4 / (math.pi * (1 - obscuration) * _airy_width(obscuration)), 1.0)


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


def _gaussian(frequency_squared: Tensor, fwhm: Tensor) -> Tensor:
    """Return the transfer function of a Gaussian, exp(-2 (pi sigma f)^2)."""
    return torch.exp(-2 * (math.pi / _FWHM_OF_SIGMA) ** 2 * fwhm.square() * frequency_squared)


def double_gaussian(fraction: float, ratio: float) -> Profile:
    """Return the profile of a core and a halo, both Gaussian, as SDSS describes its PSFs.

    Parameters
    ----------
    fraction : float
        Of the light that is in the halo, 0 to 0.9.
    ratio : float
        The halo's width over the core's, 1 to 20. The full width at half maximum is that of the sum.
    """
    core = 1 / _double_width(fraction, ratio)  # the core's sigma over the whole's full width

    def transfer(frequency_squared: Tensor, fwhm: Tensor) -> Tensor:
        exponent = -2 * (math.pi * core) ** 2 * fwhm.square() * frequency_squared
        return (1 - fraction) * torch.exp(exponent) + fraction * torch.exp(ratio**2 * exponent)

    return Profile(transfer)


def moffat(beta: float) -> Profile:
    """Return the profile (1 + (r / r_d)^2)^-beta (Moffat 1969), whose wings are those of the air for beta 2.5 to 5.

    It is a mixture of Gaussians whose inverse variances have a gamma distribution, and so its transfer function an
    integral over exp(-(pi r_d f)^2 / t), t of gamma(beta - 1): it is 2 y^nu K_nu(2 y) / Gamma(nu) with y = pi r_d f
    and nu = beta - 1 (Trujillo et al. 2001, eq. 6). The integral is taken once over a table, of which cubic curves give
    what lies in between.

    Parameters
    ----------
    beta : float
        1.5 to 50; the larger, the more it is a Gaussian.
    """
    half = math.sqrt(2 ** (1 / beta) - 1)  # half width at half maximum over r_d

    def transfer(frequency_squared: Tensor, fwhm: Tensor) -> Tensor:
        y = frequency_squared.clamp_min(1e-20).sqrt() * (math.pi / (2 * half)) * fwhm
        step = (9 + 5 * math.sqrt(beta - 1)) / _TABLE_STEPS  # beyond the last nothing passes, or 1e-6
        values, slopes = _moffat_table(beta, step, y)
        place = (y / step).clamp_max(_TABLE_STEPS - 1e-3)
        index = place.detach().floor().long()
        t = place - index
        left, right = values[index], values[index + 1]
        bend = t * (1 - t)
        hermite = bend * (slopes[index] * step * (1 - t) - slopes[index + 1] * step * t)
        return left + (right - left) * (t * t * (3 - 2 * t)) + hermite

    return Profile(transfer)


def _moffat_table(beta: float, step: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return a Moffat profile's transfer and its slope at equally spaced y, on the device of a tensor."""
    nu, gap = beta - 1, 0.3  # the trapezoidal rule over ln t, whose error falls as exp(-pi^2 / gap)
    low, high = max(-16 / nu, -34.0), math.log(nu + 9 * math.sqrt(nu) + 20)
    u = low + gap * torch.arange(math.ceil((high - low) / gap) + 1, device=like.device, dtype=like.dtype)
    weights = torch.softmax(nu * u - u.exp(), 0)
    y = step * torch.arange(_TABLE_STEPS + 2, device=like.device, dtype=like.dtype)[:, None]
    parts = weights * torch.exp(-y.square() * torch.exp(-u))
    return parts.sum(1), (-2 * y * torch.exp(-u) * parts).sum(1)


@cache
def _double_width(fraction: float, ratio: float) -> float:
    """Return the full width at half maximum of two Gaussians in units of the core's sigma."""
    halo = fraction / ratio**2  # surface brightness at the centre, but for what both share
    middle = (1 - fraction) + halo

    def above_half(radius: float) -> bool:
        core = (1 - fraction) * math.exp(-(radius**2) / 2)
        return core + halo * math.exp(-((radius / ratio) ** 2) / 2) > middle / 2

    low, high = 0.0, _FWHM_OF_SIGMA * ratio
    for _ in range(60):
        centre = (low + high) / 2
        low, high = (centre, high) if above_half(centre) else (low, centre)
    return low + high


def profile_of(text: str, obscuration: float = 0.0) -> Profile:
    """Return a profile by its name and, behind a colon, its numbers, such as `moffat:3.5`.

    Parameters
    ----------
    text : str
        One of `PROFILES`.
    obscuration : float
        Of `airy` without a number of its own.

    Raises
    ------
    UserError
        If there is none of that name, or a number is missing or out of its range.
    """
    name, _, rest = text.strip().partition(":")
    words = [word.strip() for word in rest.split(",")] if rest else []
    if name not in _PARAMETERS:
        raise UserError(f"no point-spread function is called {shown(text)}: choose from {', '.join(PROFILES)}")
    if name == AIRY and not words:
        words = [repr(float(obscuration))]
    wanted = _PARAMETERS[name]
    values = [float(word) if NUMBER_FORM.fullmatch(word) else math.nan for word in words]
    if len(values) != len(wanted) or any(
        not low <= value <= high for value, (_, low, high) in zip(values, wanted, strict=True)
    ):
        limits = " and ".join(f"{what} from {low:g} to {high:g}" for what, low, high in wanted) or "no number"
        raise UserError(f"point-spread function {shown(text)}: {name} takes {limits}")
    return _PROFILES[name](*values)


kolmogorov = Profile(_kolmogorov, _FRIED / _SEEING ** (5 / 3), 5 / 3)
gaussian = Profile(_gaussian)
_PROFILES: dict[str, Callable[..., Profile]] = {
    KOLMOGOROV: lambda: kolmogorov,
    GAUSSIAN: lambda: gaussian,
    AIRY: airy,
    MOFFAT: moffat,
    DOUBLE_GAUSSIAN: double_gaussian,
}
