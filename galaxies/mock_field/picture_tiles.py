"""Tiles of a sky for generators of pictures, which paint no light: their galaxies laid on one sky, under one noise.

Numbers and radii are those of the default counts; how bright a galaxy looks is left to the generator, since a grey
level is no flux. Of each picture its own sky is taken off, and what is left fades towards a round rim, so that no
frame is to be seen. The sky that they are laid on, and its grain, are those of the pictures' corners: their usual
level, how their planes vary together, and how pixels beside each other do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.mock_field.counts import DeepCounts
from galaxies.mock_field.field_folder import FieldBand, FieldFacts
from galaxies.mock_field.tiles import TILE_PX, Tile, places_in, sources_near, touching, whole_sky

_PIXEL_SCALE = 0.1  # arcseconds: bright galaxies are then about as large as they are drawn
_WHOLE = 0.6  # of half a picture, within which a galaxy is laid down as it is; beyond it fades to the rim
_SIZES = (0.06, 0.35)  # half-light radii, in widths of the picture, that are believed; others are taken for the nearest
_USUAL_SIZE = 0.15  # where there is none
_SIDES = (6, 128)  # pixels of what is laid down
_LAG = 4  # pixels to which grain is taken to hang together
_CLIP = 3.0  # deviations beyond which a corner holds something else than sky
_NOISE_STREAM = 1_618_033  # apart from what else is drawn by tiles


@dataclass(frozen=True)
class Backdrop:
    """The sky of pictures.

    level, (3,): red, green and blue; covariance, (3, 3), of a pixel's planes; together, (2 L + 1, 2 L + 1): how pixels
    so far from each other go together, 1 in the middle.
    """

    level: np.ndarray
    covariance: np.ndarray
    together: np.ndarray

    @classmethod
    def of(cls, pictures: Tensor) -> Backdrop:
        """Measure it in the corners of pictures (N, 3, S, S), N > 0, outside of the circle in them."""
        images = pictures.double().numpy()
        corners = window(images.shape[-1]).numpy() == 0
        level = np.median(images[..., corners], -1)  # (N, 3)
        rest = images - level[..., None, None]
        spread = 1.4826 * np.median(np.abs(rest[..., corners]), -1)  # a neighbour in a corner is no noise
        known = corners & (np.abs(rest) <= _CLIP * np.maximum(spread, 0.5)[..., None, None]).all(1)  # (N, S, S)
        rest = rest * known[:, None]
        covariance = np.einsum("nchw,ndhw->cd", rest, rest) / max(1, known.sum())
        lags = range(-_LAG, _LAG + 1)
        variance = max(float(np.trace(covariance)), 1e-12)
        together = np.array([[_product(rest, known, down, along) / variance for along in lags] for down in lags])
        return cls(np.median(level, 0), covariance, together)

    def grain(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """Draw its noise, (3, side, side)."""
        white = np.fft.rfft2(rng.standard_normal((3, side, side)))
        lags = np.arange(-_LAG, _LAG + 1)
        # Far lags fade, for the spectrum to be one.
        beyond = (np.hypot(lags, lags[:, None]) - _LAG / 2) / (_LAG / 2 + 1)
        fading = 0.5 + 0.5 * np.cos(np.pi * beyond.clip(0, 1))
        kernel = np.zeros((side, side))
        kernel[np.ix_(lags % side, lags % side)] = self.together * fading
        power = np.fft.rfft2(kernel).real.clip(0)
        # Of unit variance, whatever was cut off of the spectrum.
        power /= np.fft.irfft2(power, (side, side))[0, 0]
        grain = np.fft.irfft2(white * np.sqrt(power), (side, side))
        values, vectors = np.linalg.eigh(self.covariance)
        return np.einsum("cd,dhw->chw", vectors * np.sqrt(values.clip(0)), grain)


def _product(rest: np.ndarray, known: np.ndarray, down: int, along: int) -> float:
    """Return the mean product of pixels (N, 3, S, S) that lie so far from each other, summed over the planes."""
    other, seen = (np.roll(part, (-down, -along), (-2, -1)) for part in (rest, known))
    both = known & seen
    return float((rest * other * both[:, None]).sum() / max(1, both.sum()))


def window(side: int) -> Tensor:
    """Return what of a galaxy is laid down, (side, side): 1 about the middle, and a cosine to 0 at the circle's rim."""
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1
    radius = torch.hypot(axis, axis[:, None])
    return 0.5 + 0.5 * torch.cos(np.pi * ((radius - _WHOLE) / (1 - _WHOLE)).clamp(0, 1))


class PictureTiles:
    """A sky of galaxies of pictures.

    Parameters
    ----------
    parts : mapping of str to float
        Classes, and how often each is met.
    faintest : float
        AB magnitude to which galaxies are counted.
    draw : callable
        From classes and seeds of N galaxies to pictures (N, 3, S, S) uint8 and half-light radii (N,) in widths of the
        picture, NaN where unknown.
    backdrop : callable
        Returns the sky of such pictures.

    Attributes
    ----------
    facts : FieldFacts
        What the sky is as a field, whatever its number.
    """

    def __init__(
        self,
        parts: Mapping[str, float],
        faintest: float,
        draw: Callable[[Sequence[str], Sequence[int]], tuple[Tensor, np.ndarray]],
        backdrop: Callable[[], Backdrop],
    ) -> None:
        self._parts, self._counts, self._draw, self._backdrop = parts, DeepCounts(faintest), draw, backdrop
        band = FieldBand("i", 754.0, 0.0, 0.0, 1.0, 0.0)
        self.facts = whole_sky(FieldFacts("", _PIXEL_SCALE, 1, 1, 1.0, 0, (band,), "", "", faintest, band.name), 0)

    def sources(self, sky: int, tile: Tile) -> np.ndarray:
        """Return the galaxies whose middle lies in a tile, as rows of `painting.catalogue_of`, the brightest first."""
        rows = self._near(sky, tile, 0.0)
        return rows[np.argsort(rows["magnitude_i"], kind="stable")]

    def magnitudes(self, rows: np.ndarray) -> np.ndarray:
        """Return AB magnitudes of some of them, (N,): by these they are counted, and as large as such ones are."""
        return rows["magnitude_i"]

    def picture(self, sky: int, tile: Tile) -> np.ndarray:
        """Return a tile, (`TILE_PX`, `TILE_PX`, 3) uint8, the first row at the top."""
        near = self._near(sky, tile, _SIDES[1] / 2)
        radius = near["size_arcsec"] / _PIXEL_SCALE
        near, radius = (part[touching(tile, self.facts, near, _half(radius, _SIZES[0]))] for part in (near, radius))
        backdrop = self._backdrop()
        light, brought = np.zeros((3, TILE_PX, TILE_PX)), np.zeros((TILE_PX, TILE_PX))
        if len(near):
            names = [name.decode() for name in near["morphology"].tolist()]
            pictures, sizes = self._draw(names, near["seed"].tolist())
            half = _half(radius, np.nan_to_num(sizes, nan=_USUAL_SIZE).clip(*_SIZES))
            for picture, (x, y), reach in zip(pictures, places_in(tile, self.facts, near), half, strict=True):
                _lay(picture, (x, y), round(2 * reach), backdrop, light, brought)
        # A galaxy brings its own noise; under it the sky's is made weaker, for the variance to be the same everywhere.
        rest = np.sqrt((1 - brought).clip(0))
        seen = backdrop.level[:, None, None] + light + rest * backdrop.grain(tile.rng(sky, _NOISE_STREAM), TILE_PX)
        return np.ascontiguousarray(seen.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0))

    def _near(self, sky: int, tile: Tile, margin_px: float) -> np.ndarray:
        return sources_near(tile, whole_sky(self.facts, sky), self._counts, self._parts, margin_px)


def _half(radius_px: np.ndarray, size: np.ndarray | float) -> np.ndarray:
    """Return half the side of a picture, pixels, whose galaxy has a half-light radius of so many widths."""
    return (radius_px / size).clip(*_SIDES) / 2


def _lay(
    picture: Tensor,
    place: tuple[float, float],
    side: int,
    backdrop: Backdrop,
    light: np.ndarray,
    brought: np.ndarray,
) -> None:
    """Add a picture (3, S, S) to the light of a tile, (3, T, T), and the variance of its noise, over the sky's."""
    own = F.interpolate(picture[None].double(), (side, side), mode="bicubic", antialias=True, align_corners=False)[0]
    fading = window(side)
    corners = own[:, fading == 0]
    level = corners.median(1).values
    noise = 1.4826 * (corners - level[:, None]).abs().median(1).values
    stamp = ((own - level[:, None, None]) * fading).numpy()
    share = float(noise.square().sum()) / max(float(np.trace(backdrop.covariance)), 1e-12)
    left, top = (round(middle - side / 2) for middle in place)
    rows, columns = (slice(max(0, first), min(TILE_PX, first + side)) for first in (top, left))
    if rows.start < rows.stop and columns.start < columns.stop:
        inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        light[:, rows, columns] += stamp[:, inner[0], inner[1]]
        brought[rows, columns] += share * fading.numpy()[inner] ** 2
