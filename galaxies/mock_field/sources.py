"""What draws the light of a field's galaxies: the mock survey's own renderer, or whatever has the same methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from config_physics import AB_ZERO_POINT
from galaxies.mock_survey.band_population import Frame, draw_at
from galaxies.mock_survey.classes import CLASSES, draw_light, mock_class
from galaxies.mock_survey.galaxy_table import changed, given, joined
from galaxies.mock_survey.light import WET_MERGER, Grid, draw_particles, meet
from galaxies.mock_survey.light_transforms import transformed
from galaxies.mock_survey.sersic import SersicTransform
from galaxies.telescope.fourier import FourierGrid, fft_size
from galaxies.telescope.surveys import Survey

_RADII = 12.0  # half-light radii that the frame of a galaxy is wide
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


@dataclass(frozen=True)
class GroupOfLight:
    """Light of some of the wanted galaxies.

    rows, (n,), of which; images, (n, B, L, L), float32, nanojansky a pixel, never negative; pixel_scale, (n,),
    arcseconds.
    """

    rows: np.ndarray
    images: Tensor
    pixel_scale: Tensor


class LightSource(Protocol):
    """What draws light in the bands of a survey, of galaxies up to `most_redshift`."""

    most_redshift: float

    def describe(self) -> str:
        """Say what draws the galaxies."""
        ...

    def draw(self, wanted: Requests) -> list[GroupOfLight]:
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

    most_redshift = 2.0  # to which its spectra tell of the bands

    def __init__(self, survey: Survey, reference: int) -> None:
        self._reference = reference
        self._frame = Frame(survey, 64, survey.pixel_scale)
        self._sersic = SersicTransform(torch.device("cpu"))

    def describe(self) -> str:
        """Say what draws the galaxies."""
        return "the mock survey's own galaxies, without a trained generator"

    def draw(self, wanted: Requests) -> list[GroupOfLight]:
        """Draw galaxies; see `LightSource`."""
        tables: dict[tuple[str, int], list[tuple[int, Any]]] = {}
        for row in range(len(wanted.seed)):
            name = str(wanted.morphology[row])
            rng = np.random.default_rng(int(wanted.seed[row]))
            radius = float(wanted.radius[row])
            table = draw_at(name, float(wanted.redshift[row]), float(wanted.magnitude[row]), radius, rng, self._frame)
            kind = str(mock_class(name).kinds(table.structure)[0])
            fine = _RADII * radius / self._frame.pixel_scale
            side = next((side for side in _SIDES if side >= fine), _SIDES[-1])
            tables.setdefault((kind, side), []).append((row, table))
        groups = sorted(tables.items(), key=lambda entry: entry[0])
        return [self._group(kind, side, some, wanted) for (kind, side), some in groups]

    def _group(self, kind: str, side: int, some: list[tuple[int, Any]], wanted: Requests) -> GroupOfLight:
        rows = np.array([row for row, _ in some])
        p = changed(lambda v: torch.from_numpy(np.ascontiguousarray(v)).float(), joined([table for _, table in some]))
        scale = torch.from_numpy(_RADII * wanted.radius[rows] / side).float()
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
        return GroupOfLight(rows, planes * (flux / reference)[:, None, None, None], scale)


def draw_classes(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw classes of galaxies by their parts in a field, which are round numbers."""
    names = [name for name in _PARTS if name in CLASSES]
    parts = np.array([_PARTS[name] for name in names])
    return np.array(names)[rng.choice(len(names), count, p=parts / parts.sum())] if count else np.array([], "U16")


_PARTS = {"spiral": 0.6, "elliptical": 0.2, "edge-on": 0.15, "merger": 0.05}
