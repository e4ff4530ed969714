"""Tiles of a sky that can be moved about: each drawn by its place alone, without the rest of the sky.

A sky is a field as `painting` cuts it into cells, of so many pixels that nobody comes to its edge; its tiles lie about
its middle, seen as pictures are, the first row at the top. A galaxy that reaches over the rim of a tile is drawn in
each tile that it touches, so that tiles meet without a seam. What lies in a tile depends on the number of the sky, on
the tile's place and on what draws the galaxies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from config_physics import AB_ZERO_POINT
from galaxies.images.composites import LuptonComposite
from galaxies.mock_field.counts import DeepCounts
from galaxies.mock_field.field_folder import FieldFacts
from galaxies.mock_field.making import facts_of, limit_of, reference_of
from galaxies.mock_field.painting import CELL_ARCSEC, Sky, reach, sources_in, stamps_of, wanted_of
from galaxies.mock_field.sources import LightSource, Requests
from galaxies.telescope.surveys import Survey

TILE_PX = 256
MIDDLE_ARCSEC = 106_496.0  # of a sky, from its edges, whatever sees it: in pixels of 0.4 arcseconds, 1,040 tiles
FIRST, LAST = -1024, 1023  # columns and rows of tiles
MOST_SKY = 2**31 - 1  # number of a sky
_SEEDS = 2**31  # of galaxies: programs that read numbers as doubles keep them
_NOISE_STREAM = 1_618_034  # apart from what else is drawn by tiles
_REDDER = 10.0  # times the reference band's flux that another band may have, for how far the PSF's wings are seen
_WIDEST_ARCSEC = 60.0  # from the middle of a galaxy, to which it is painted: six of the largest radii, and wings
_BELOW = 0.5  # magnitudes below a survey's limit, to which galaxies are drawn: what is fainter is not to be seen


@dataclass(frozen=True)
class Tile:
    """Which tile: column and row, 0 right and below of the sky's middle, `FIRST` to `LAST`."""

    column: int
    row: int

    def corner(self, facts: FieldFacts) -> tuple[int, int]:
        """Return row and column of a field's pixel that is lowest and leftmost in it."""
        return facts.height_px // 2 - (self.row + 1) * TILE_PX, facts.width_px // 2 + self.column * TILE_PX

    def rng(self, sky: int, stream: int) -> np.random.Generator:
        """Return random numbers of the tile."""
        return np.random.default_rng([sky, stream, self.row - FIRST, self.column - FIRST])


def whole_sky(facts: FieldFacts, sky: int) -> FieldFacts:
    """Return what a field is with all of a sky in it."""
    side = 2 * round(MIDDLE_ARCSEC / facts.pixel_scale)
    area = (side * facts.pixel_scale / 60) ** 2
    return replace(facts, width_px=side, height_px=side, area_arcmin2=area, seed=sky)


def sources_near(
    tile: Tile, facts: FieldFacts, counts: DeepCounts, parts: Mapping[str, float], margin_px: float
) -> np.ndarray:
    """Return the sources, no more than `margin_px` outside of a tile, as rows of `painting.catalogue_of`."""
    low = np.array(tile.corner(facts)) - margin_px
    high = low + TILE_PX + 2 * margin_px
    first, last = (np.floor(end * facts.pixel_scale / CELL_ARCSEC).astype(int) for end in (low, high))
    cells = product(range(first[0], last[0] + 1), range(first[1], last[1] + 1))
    rows = np.concatenate([sources_in(cell, facts, counts, parts) for cell in cells])
    rows["seed"] %= _SEEDS
    place = np.stack([rows["y"], rows["x"]], 1) + 0.5
    return rows[((low <= place) & (place < high)).all(1)]


def touching(tile: Tile, facts: FieldFacts, rows: np.ndarray, half_px: np.ndarray) -> np.ndarray:
    """Return which of some sources, each in a square of so many pixels to either side of it, touch a tile (N,)."""
    low = np.array(tile.corner(facts))
    high = low + TILE_PX
    place = np.stack([rows["y"], rows["x"]], 1) + 0.5
    return ((place + half_px[:, None] > low) & (place - half_px[:, None] < high)).all(1)


def places_in(tile: Tile, facts: FieldFacts, rows: np.ndarray) -> np.ndarray:
    """Return where sources lie on the picture of a tile, (N, 2): x and y, pixels from its upper left corner."""
    row, column = tile.corner(facts)
    return np.stack([rows["x"] + 0.5 - column, TILE_PX - (rows["y"] + 0.5 - row)], 1)


class LightTiles:
    """A sky of galaxies of light as a survey sees it, with its PSF, pixels and noise.

    Parameters
    ----------
    survey : Survey
    faintest : float
        AB magnitude of the faintest galaxies, in the survey's band that is nearest to i. Surveys that are told the same
        see the same galaxies, one of little depth not the faint ones.
    source : LightSource
        What draws them, in the bands of the survey.

    Attributes
    ----------
    facts : FieldFacts
        What the sky is as a field, whatever its number.
    source : LightSource
    """

    def __init__(self, survey: Survey, faintest: float, source: LightSource) -> None:
        self._counts, self.source = DeepCounts(faintest), source
        facts = facts_of(survey, 1.0, 0, faintest, self._counts.describe(), "", "")
        self.facts = whole_sky(facts, 0)
        self._survey = survey
        reference = facts.bands[reference_of(survey)]
        self._reference, self._limit = f"magnitude_{reference.name}", limit_of(facts, reference) + _BELOW
        self._picture = LuptonComposite(facts.band_names, [band.sky_noise for band in facts.bands])

    def sources(self, sky: int, tile: Tile) -> np.ndarray:
        """Return the galaxies whose middle lies in a tile, as rows of `painting.catalogue_of`, the brightest first."""
        rows = self._near(whole_sky(self.facts, sky), tile, 0.0)
        return rows[np.argsort(rows[self._reference], kind="stable")]

    def _near(self, facts: FieldFacts, tile: Tile, margin_arcsec: float) -> np.ndarray:
        margin = margin_arcsec / facts.pixel_scale
        rows = sources_near(tile, facts, self._counts, self.source.parts, margin)
        return rows[rows[self._reference] < self._limit]

    def wanted(self, rows: np.ndarray) -> Requests:
        """Return what some of them ask of the source."""
        return wanted_of(self._sky(0), rows)

    def _sky(self, number: int) -> Sky:
        facts, survey = whole_sky(self.facts, number), self._survey
        return Sky(facts, survey.profile, survey.obscuration, self.source, self._counts, 0.0)

    def magnitudes(self, rows: np.ndarray) -> np.ndarray:
        """Return AB magnitudes of some of them, (N,)."""
        return rows[self._reference]

    def light(self, sky: int, tile: Tile) -> np.ndarray:
        """Return the light of a tile without noise, (B, `TILE_PX`, `TILE_PX`), nanojansky, the lowest row first."""
        painted = self._sky(sky)
        near = self._near(painted.facts, tile, _WIDEST_ARCSEC)
        flux = _REDDER * 10 ** (0.4 * (AB_ZERO_POINT - near[self._reference]))
        wings = reach(painted, torch.from_numpy(flux)[:, None].expand(-1, len(painted.facts.bands)))
        half = (self.source.frames(wanted_of(painted, near)) / 2 + wings) / painted.facts.pixel_scale + 2
        seen = near[touching(tile, painted.facts, near, half)]
        light = np.zeros((len(painted.facts.bands), TILE_PX, TILE_PX), np.float32)
        low = tile.corner(painted.facts)
        for _, row, column, stamp in stamps_of(painted, seen):
            side = stamp.shape[-1]
            rows, columns = (
                slice(max(first, start), min(first + side, start + TILE_PX))
                for first, start in zip((row, column), low, strict=True)
            )
            if rows.start < rows.stop and columns.start < columns.stop:
                part = stamp[:, rows.start - row : rows.stop - row, columns.start - column : columns.stop - column]
                light[:, rows.start - low[0] : rows.stop - low[0], columns.start - low[1] : columns.stop - low[1]] += (
                    part
                )
        return light

    def picture(self, sky: int, tile: Tile) -> np.ndarray:
        """Return a tile as observed, (`TILE_PX`, `TILE_PX`, 3) uint8, the first row at the top."""
        light = self.light(sky, tile)
        noise = np.array([band.sky_noise for band in self.facts.bands])[:, None, None]
        photons = np.array([band.photons for band in self.facts.bands])[:, None, None]
        deviation = np.sqrt(noise**2 + photons * light.clip(0))
        observed = light + deviation * tile.rng(sky, _NOISE_STREAM).standard_normal(light.shape)
        seen = self._picture(torch.from_numpy(observed.astype(np.float32))[None])[0].flip(-2)
        return seen.permute(1, 2, 0).contiguous().numpy()
