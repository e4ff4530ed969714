"""Measure size and structure of galaxies of a field on cutouts, at one depth and at a hundred times the exposure.

A galaxy's morphology counts as measured if the galaxy is detected and its half-light radius is within 20 % of the true
one, its concentration within 0.3 and its asymmetry within 0.1 of what the same instrument measures at a hundred times
the exposure: errors of a tenth, of what Lotz, Primack & Madau (2004, AJ 128, 163, section 3) ask for. Beside it stands
the part with a mean signal-to-noise ratio a pixel of at least 2.5 within the Petrosian radius, which is what Lotz et
al. (2006, ApJ 636, 592) cut their samples at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from galaxies.measure.flux import FluxPhotometry, measure_flux
from galaxies.measure.flux_model import psf_width
from galaxies.measure.photometry import NO_SOURCE
from galaxies.validation.field_detection import Detections
from galaxies.validation.field_observed import ObservedField

SIZE_WITHIN, CONCENTRATION_WITHIN, ASYMMETRY_WITHIN = 0.2, 0.3, 0.1
SNR_PER_PIXEL = 2.5
_SIDES = (32, 48, 64, 96, 128, 192)  # of cutouts, pixels
_RADII = 12.0  # half-light radii, as observed, across a cutout
_AT_ONCE = 64
_REACH = 3.0  # standard deviations of its light that a neighbour is taken to reach


class Structures(NamedTuple):
    """What the cutouts of N galaxies show, (N,) each, float64; NaN where no galaxy was measured.

    size_arcsec: half-light radius before the telescope. e1, e2: components of the ellipticity (a - b) / (a + b),
    before the telescope, about +x. snr_per_pixel: mean within the Petrosian radius.
    """

    size_arcsec: np.ndarray
    concentration: np.ndarray
    asymmetry: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    snr_per_pixel: np.ndarray


def components(ellipticity: np.ndarray, angle_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (a - b) / (a + b) cos 2 angle and sin 2 angle of ellipticities 1 - b/a (Bartelmann & Schneider 2001)."""
    size, angle = ellipticity / (2 - ellipticity), 2 * np.deg2rad(angle_deg)
    return size * np.cos(angle), size * np.sin(angle)


def measure_structures(
    field: ObservedField,
    x: np.ndarray,
    y: np.ndarray,
    size_arcsec: np.ndarray,
    found: Detections,
    own: np.ndarray,
    deep: bool = False,
) -> Structures:
    """Measure galaxies in the reference band, with the pixels of other detections left out.

    Parameters
    ----------
    field : ObservedField
    x, y : ndarray, (N,)
        Their true centres, pixels.
    size_arcsec : ndarray, (N,)
        True half-light radii, which say how large a cutout is.
    found : Detections
        All of the field.
    own : ndarray, (N,), int
        Which of them the galaxies are.
    deep : bool
        At a hundred times the folder's exposure.
    """
    facts = field.field.facts
    seen = torch.from_numpy(field.field.psf(facts.band_names[field.reference]))[None, None]
    # Of what photometry takes for the PSF: the wings count, which the width at half maximum says nothing of.
    fwhm = float(psf_width(seen.float())) * facts.pixel_scale
    across = _RADII * np.hypot(size_arcsec, fwhm / 2) / facts.pixel_scale
    step = np.searchsorted(_SIDES, across).clip(max=len(_SIDES) - 1)
    others = _Others(found)
    measured = np.full((len(Structures._fields), len(x)), np.nan)
    for number, side in enumerate(_SIDES):
        rows = np.flatnonzero(step == number)
        for first in range(0, len(rows), _AT_ONCE):
            chosen = rows[first : first + _AT_ONCE]
            cutouts = [_cutout(field, x[k], y[k], side, deep) for k in chosen]
            images, noise = (np.stack(parts) for parts in zip(*cutouts, strict=True))
            masks = [others.mask(own[k], *_corner(x[k], y[k], side), side) for k in chosen]
            measured[:, chosen] = _measure(images, noise, np.stack(masks), facts.pixel_scale, fwhm)
    return Structures(*measured)


def _corner(x: float, y: float, side: int) -> tuple[int, int]:
    """Return the first column and row of a cutout."""
    return round(x) - side // 2, round(y) - side // 2


class _Others:
    """Detections as ellipses that reach three standard deviations of their light (SExtractor's manual, 10.1.6)."""

    def __init__(self, found: Detections) -> None:
        from scipy.spatial import cKDTree

        self.found = found
        self.tree = cKDTree(np.stack([found.x, found.y], 1)) if len(found.x) else None

    def mask(self, own: int, left: int, top: int, side: int) -> np.ndarray:
        """Return the pixels (side, side) within another source, and by their ellipses nearer to it than to `own`."""
        mask = np.zeros((side, side), bool)
        middle = left + (side - 1) / 2, top + (side - 1) / 2
        near = [] if self.tree is None else self.tree.query_ball_point(middle, side)
        mine = self._distance(own, left, top, side)
        for other in near:
            if other != own:
                distance = self._distance(other, left, top, side)
                mask |= (distance < _REACH) & (distance < mine)
        return mask

    def _distance(self, source: int, left: int, top: int, side: int) -> np.ndarray:
        """Return how many standard deviations of its light pixels (side, side) are from a source."""
        found = self.found
        dx = np.arange(left, left + side) - found.x[source]
        dy = np.arange(top, top + side)[:, None] - found.y[source]
        cos, sin = np.cos(found.theta[source]), np.sin(found.theta[source])
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        return np.hypot(along / max(found.a[source], 0.5), across / max(found.b[source], 0.5))


def _cutout(field: ObservedField, x: float, y: float, side: int, deep: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a galaxy's image and noise (side, side), NaN beyond the field."""
    height, width = field.shape
    left, top = _corner(x, y, side)
    rows, columns = slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side))
    image, noise = np.full((2, side, side), np.nan, np.float32)
    part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    image[part], noise[part] = (field.deep if deep else field.read)(field.reference, rows, columns)
    return image, noise


def _measure(images: np.ndarray, noise: np.ndarray, mask: np.ndarray, pixel_scale: float, fwhm: float) -> np.ndarray:
    """Return the fields of `Structures` (6, n) of cutouts (n, S, S)."""
    sky = np.nanmin(noise, (1, 2))  # where there is no light
    with torch.no_grad():
        seen = measure_flux(
            torch.from_numpy(images[:, None]),
            pixel_scale,
            noise=torch.from_numpy(sky[:, None]),
            psf_fwhm=torch.full((len(images), 1), fwhm),
            mask=torch.from_numpy(mask),
            structure=True,
        )
    e1, e2 = components(seen.ellipticity.double().numpy(), seen.position_angle.double().numpy())
    columns = np.stack(
        [
            *(part.double().numpy() for part in (seen.size_arcsec, seen.concentration, seen.asymmetry)),
            e1,
            e2,
            _snr_per_pixel(np.where(mask, np.nan, images), noise, seen, pixel_scale),
        ]
    )
    columns[:, (seen.flag.numpy() & NO_SOURCE) != 0] = np.nan
    return columns


def _snr_per_pixel(images: np.ndarray, noise: np.ndarray, seen: FluxPhotometry, pixel_scale: float) -> np.ndarray:
    """Return the mean of signal over noise of the pixels within the Petrosian ellipse (Lotz et al. 2004, eq. 5)."""
    side = images.shape[-1]
    place = np.arange(side) - (side - 1) / 2
    angle = np.deg2rad(seen.position_angle.double().numpy())[:, None, None]
    dx = place - seen.centroid_x.double().numpy()[:, None, None]
    dy = place[:, None] - seen.centroid_y.double().numpy()[:, None, None]
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    ratio = (1 - seen.ellipticity.double().numpy()).clip(0.1)[:, None, None]
    radius = (seen.petrosian_radius_arcsec.double().numpy() / pixel_scale)[:, None, None]
    inside = (np.square(along) + np.square(across / ratio) <= np.square(radius)) & np.isfinite(images)
    total = np.where(inside, np.nan_to_num(images) / np.where(np.isfinite(noise), noise, 1), 0).sum((1, 2))
    return total / inside.sum((1, 2)).clip(1)


def well_measured(seen: Structures, deep: Structures, true_size: np.ndarray) -> dict[str, np.ndarray]:
    """Return for which galaxies (N,), bool, each part of a morphology is measured, be they detected or not."""
    size = np.abs(seen.size_arcsec / true_size - 1) <= SIZE_WITHIN
    concentration = np.abs(seen.concentration - deep.concentration) <= CONCENTRATION_WITHIN
    asymmetry = np.abs(seen.asymmetry - deep.asymmetry) <= ASYMMETRY_WITHIN
    return {
        "size": size,
        "concentration": concentration,
        "asymmetry": asymmetry,
        "morphology": size & concentration & asymmetry,
        "snr_per_pixel": seen.snr_per_pixel >= SNR_PER_PIXEL,
    }
