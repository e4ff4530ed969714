"""Pictures of flux for people: three bands as red, green and blue, whose colours do not depend on brightness.

Lupton et al. (2004), PASP 116, 133: not each band but their sum is stretched, by an inverse hyperbolic sine, and the
bands keep their ratios; where a band would be brighter than white, all three are dimmed alike. A picture is for eyes:
nothing is measured on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from config_physics import Config
from galaxies.common.errors import UserError, shown
from galaxies.images.bands import Band, band_in, composite
from galaxies.images.stretch import NOISE_SOFTENING

_Q = 8.0  # how much the bright parts are pressed together; astropy's default
_SLOPE_AT = 0.1  # of the stretch; there the curve meets the linear one that reaches white at the stretch (Lupton's own)
_STRETCH = 16.0  # standard deviations of the noise
_SKY = 1.0  # how far black lies below the sky, the same, so that the noise about it is not cut off
# Galaxies have more nJy the redder the light is. These weights make a usual one white; they are about those of the
# pictures of the Legacy Surveys, where g has 6, r 3.4 and z 2.2.
_REFERENCE_NM, _POWER = 650.0, -1.5


class LuptonComposite:
    """Make pictures of images in B bands; see the module's docstring.

    Parameters
    ----------
    bands : sequence of str, B
        Names of the planes.
    noise : sequence of float, B
        Typical standard deviation of a pixel, nJy; brightness and contrast go by it.
    chosen : sequence of str, optional
        Three bands as red, green and blue, or one for a grey picture. By default i, r, g where there are these, else z,
        r, g, else the longest wavelength, a middle one and the shortest; one band is grey. Bands of unknown wavelength
        are taken to be listed from the shortest to the longest.
    stretch : float, optional
        Flux of the weighted mean of the bands that a linear stretch would make white, nJy a pixel.
    q : float
        How much the bright parts are pressed together.

    Attributes
    ----------
    planes : three of tuple of int
        Of which bands red, green and blue are the mean.
    weights : tuple of float, B
        What the bands are multiplied by: 1 at 650 nm, less at longer wavelengths.
    minimum : float
        What is black, nJy a pixel after weighing.
    stretch : float

    Raises
    ------
    UserError
        If a chosen band is not there, or neither one nor three are chosen.
    """

    def __init__(
        self,
        bands: Sequence[str],
        noise: Sequence[float],
        chosen: Sequence[str] = (),
        stretch: float | None = None,
        q: float = _Q,
    ) -> None:
        self.planes = _planes(tuple(bands), tuple(chosen))
        self.weights = _weights(bands)
        used = [[noise[k] * self.weights[k] for k in planes] for planes in self.planes]
        typical = max(sum(sum(some) / len(some) for some in used) / 3, 1e-12)
        self.minimum = -_SKY * typical
        self.stretch = _STRETCH * typical if stretch is None else stretch
        self._soften = q / self.stretch
        self._slope = _SLOPE_AT * 255 / math.asinh(_SLOPE_AT * q)

    def __call__(self, images: Tensor) -> Tensor:
        """Return pictures (N, 3, S, S) uint8 of images (N, B, S, S), nJy a pixel, floating point.

        A pixel without a finite value is black.
        """
        weights = images.new_tensor(self.weights)
        weighed = images * weights[:, None, None]
        channels = torch.stack([weighed[:, list(planes)].mean(1) for planes in self.planes], 1) - self.minimum
        intensity = channels.mean(1, keepdim=True)
        factor = torch.asinh(intensity * self._soften) * self._slope / intensity
        color = (channels * factor.where(intensity > 0, 0)).clamp_min(0)
        brightest = color.amax(1, keepdim=True)
        color = color * (255 / brightest).where(brightest > 255, 1)
        return color.nan_to_num(0, 0, 0).round().clamp(0, 255).to(torch.uint8)


def pictures_of_run(config: Config, chosen: Sequence[str] = ()) -> Callable[[Tensor], Tensor]:
    """Return what makes pictures (N, 3, S, S) uint8 of the images (N, B, S, S) of a run, as its datasets have them.

    Those of a display are pictures already. The rows of flux are in the order of FITS files: the first is the lowest,
    also in the pictures.

    Raises
    ------
    UserError
        As `LuptonComposite` does; also if bands are chosen of a display.
    """
    if config.kind == "flux":
        lupton = LuptonComposite(config.bands, [s / NOISE_SOFTENING for s in config.softening], chosen)
        return lambda images: lupton(images).flip(-2)
    if chosen:
        raise UserError("the run draws pictures with their own red, green and blue: leave out --rgb")
    return lambda images: images


def _planes(bands: tuple[str, ...], chosen: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    if strange := [name for name in chosen if name not in bands]:
        raise UserError(f"there is no band {shown(strange[0])}: choose from {', '.join(bands)}")
    if len(chosen) not in (0, 1, 3):
        raise UserError(f"a picture takes three bands, as red, green and blue, or one, not {', '.join(chosen)}")
    if chosen or len(bands) == 1:
        order = [bands.index(name) for name in chosen or bands]
        return tuple((k,) for k in (order * 3 if len(order) == 1 else order))
    return composite([found or Band(name, float(k)) for k, (name, found) in enumerate(_known(bands))]).planes


def _known(bands: Sequence[str]) -> list[tuple[str, Band | None]]:
    """Return bands by name, all with their wavelength or none: some would not tell the order of the others."""
    found = [band_in(name) for name in bands]
    known = None not in found and len({band.wavelength for band in found if band}) == len(found)
    return [(name, band if known else None) for name, band in zip(bands, found, strict=True)]


def _weights(bands: Sequence[str]) -> tuple[float, ...]:
    return tuple(1.0 if band is None else (band.wavelength / _REFERENCE_NM) ** _POWER for _, band in _known(bands))
