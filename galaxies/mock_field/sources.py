"""What draws the light of a field's galaxies: the mock survey's own renderer, or whatever has the same methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from config_physics import AB_ZERO_POINT
from galaxies.mock_survey.band_population import Frame, draw_at
from galaxies.mock_survey.classes import draw_light, mock_class
from galaxies.mock_survey.galaxy_table import changed, given, joined
from galaxies.mock_survey.light import WET_MERGER, Grid, draw_particles, meet
from galaxies.mock_survey.light_transforms import transformed
from galaxies.mock_survey.sersic import SersicTransform
from galaxies.telescope.fourier import FourierGrid, fft_size
from galaxies.telescope.surveys import Survey

RADII = 12.0  # half-light radii that the frame of a galaxy is wide
_MOST_REDSHIFT = 2.0  # to which the mock survey's spectra tell of the bands
MOCK_PARTS = {"spiral": 0.6, "elliptical": 0.2, "edge-on": 0.15, "merger": 0.05}  # round numbers
_SIDES = (64, 128, 256, 512, 1024, 2048)  # pixels of light


@dataclass(frozen=True)
class Requests:
    """N galaxies that are wanted: AB magnitude in the reference band, half-light radius (arcseconds), redshift, class
    and seed, (N,) each.
    """

    magnitude: np.ndarray
    radius: np.ndarray
    redshift: np.ndarray
    morphology: np.ndarray
    seed: np.ndarray

    def of(self, rows: np.ndarray) -> Requests:
        """Return some of them."""
        return Requests(*(getattr(self, one.name)[rows] for one in fields(self)))


@dataclass(frozen=True)
class GroupOfLight:
    """Light of some of the wanted galaxies.

    rows, (n,), of which; images, (n, B, L, L), float32, nanojansky a pixel, never negative; pixel_scale, (n,),
    arcseconds; redshift, (n,), at which they are drawn, NaN where that is not known.
    """

    rows: np.ndarray
    images: Tensor
    pixel_scale: Tensor
    redshift: np.ndarray


class LightSource(Protocol):
    """What draws light in the bands of a survey."""

    @property
    def parts(self) -> Mapping[str, float]:
        """Classes that it draws, of at most 16 characters of ASCII, and how often they are among galaxies."""
        ...

    def describe(self) -> str:
        """Say what draws the galaxies."""
        ...

    def settings(self) -> dict[str, str]:
        """Return what decides the light, by the names of options: two sources of the same settings draw the same."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Say in sentences what holds for all of its galaxies."""
        ...

    def replaced(self, wanted: Requests) -> dict[str, int]:
        """Count galaxies that are drawn otherwise than asked for, by what is said of them: 'of redshift 2 ...'."""
        ...

    def frames(self, wanted: Requests) -> np.ndarray:
        """Return how wide the light of each galaxy is at most, (N,), arcseconds, without drawing it."""
        ...

    def draw(self, wanted: Requests) -> Iterable[GroupOfLight]:
        """Draw galaxies: the same for the same requests, whatever else is drawn before."""
        ...


class MockLight:
    """The galaxies of the mock survey before any telescope, in the bands of a survey.

    Parameters
    ----------
    survey : Survey
        Its pixels decide how fine the light is: at least as fine as they are.
    reference : int
        The place of the band of the magnitudes.
    """

    parts = MOCK_PARTS

    def __init__(self, survey: Survey, reference: int) -> None:
        self._reference = reference
        self._frame = Frame(survey, 64, survey.pixel_scale)
        self._sersic = SersicTransform(torch.device("cpu"))

    def describe(self) -> str:
        """Say what draws the galaxies."""
        return "the mock survey's own galaxies, without a trained generator"

    def settings(self) -> dict[str, str]:
        """Return what decides the light; see `LightSource`."""
        return {"checkpoint": "none"}

    def notes(self) -> tuple[str, ...]:
        """Say nothing more; see `LightSource`."""
        return ()

    def replaced(self, wanted: Requests) -> dict[str, int]:
        """Count galaxies of which the mock survey's spectra do not tell; see `LightSource`."""
        sentence = (
            f"of redshift above {_MOST_REDSHIFT:g}, of which nothing is known to draw them by: they are drawn at it"
        )
        return {sentence: int((wanted.redshift >= _MOST_REDSHIFT).sum())}

    def frames(self, wanted: Requests) -> np.ndarray:
        """Return how wide their light is; see `LightSource`."""
        return RADII * wanted.radius

    def draw(self, wanted: Requests) -> list[GroupOfLight]:
        """Draw galaxies; see `LightSource`."""
        wanted = replace(wanted, redshift=wanted.redshift.clip(max=_MOST_REDSHIFT))
        tables: dict[tuple[str, int], list[tuple[int, Any]]] = {}
        for row in range(len(wanted.seed)):
            name = str(wanted.morphology[row])
            rng = np.random.default_rng(int(wanted.seed[row]))
            radius = float(wanted.radius[row])
            table = draw_at(name, float(wanted.redshift[row]), float(wanted.magnitude[row]), radius, rng, self._frame)
            kind = str(mock_class(name).kinds(table.structure)[0])
            fine = RADII * radius / self._frame.pixel_scale
            side = next((side for side in _SIDES if side >= fine), _SIDES[-1])
            tables.setdefault((kind, side), []).append((row, table))
        groups = sorted(tables.items(), key=lambda entry: entry[0])
        return [self._group(kind, side, some, wanted) for (kind, side), some in groups]

    def _group(self, kind: str, side: int, some: list[tuple[int, Any]], wanted: Requests) -> GroupOfLight:
        rows = np.array([row for row, _ in some])
        p = changed(lambda v: torch.from_numpy(np.ascontiguousarray(v)).float(), joined([table for _, table in some]))
        scale = torch.from_numpy(RADII * wanted.radius[rows] / side).float()
        pair = None
        if kind == WET_MERGER:
            given(p.structure.pair).particle_draws = draw_particles([int(seed) for seed in wanted.seed[rows]])
            pair = meet(p)
        grid = Grid(fft_size(side), scale)
        field = FourierGrid(grid.side, scale)
        source = transformed(draw_light(kind, p, grid, pair), field, self._sersic)
        # Gathered by the pixels, and once more against ringing about cusps, as the mock survey keeps its truth.
        square = field.square()[:, None]
        margin = (grid.side - side) // 2
        planes = field.image(source * square * square)[..., margin : margin + side, margin : margin + side].clamp_min(0)
        reference = planes[:, self._reference].sum((-1, -2))
        flux = torch.from_numpy(10 ** (0.4 * (AB_ZERO_POINT - wanted.magnitude[rows]))).float()
        planes = planes * (flux / reference)[:, None, None, None]
        return GroupOfLight(rows, planes, scale, wanted.redshift[rows])


def draw_classes(parts: Mapping[str, float], count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw classes of galaxies by their parts in a field."""
    names, odds = np.array(list(parts), "U16"), np.array(list(parts.values()), np.float64)
    return names[rng.choice(len(names), count, p=odds / odds.sum())]
