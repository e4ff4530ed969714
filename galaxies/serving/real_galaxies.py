"""Real galaxies to show beside those that a network invents: the nearest ones of the same class in what was asked."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from galaxies.common.origin import Origin
from galaxies.images.composites import LuptonComposite
from galaxies.images.grids import to_picture
from galaxies.serving.answers import NeighbourFacts, RealFacts

_NUMBER = 4  # that are shown
_MAD = 1.4826  # standard deviations of a normal distribution in its median absolute deviation


class Neighbour(NamedTuple):
    """A galaxy by its row, and its distance in the class's spreads."""

    row: int
    distance: float


@dataclass(frozen=True)
class RealGalaxies:
    """A set of galaxies that were observed, or of mock galaxies in their place.

    Attributes
    ----------
    images : ndarray, (N, B, S, S), uint8 of a display, or float32 of flux, nJy a pixel
    bands : tuple of str, B
    noise : tuple of float, B, or None
        Usual standard deviation of a pixel of flux; None of a display.
    object_ids, morphologies : sequence of str, N
    values : mapping of str to ndarray, (N,)
        Attributes by name, NaN where unknown.
    credit : str
        Whom the pictures are owed to.
    origin : Origin
        What they are called.
    """

    images: np.ndarray
    bands: tuple[str, ...]
    noise: tuple[float, ...] | None
    object_ids: Sequence[str]
    morphologies: np.ndarray
    values: Mapping[str, np.ndarray]
    credit: str
    origin: Origin = "real"

    def nearest(self, morphology: str, wanted: Mapping[str, float]) -> list[Neighbour]:
        """Return the nearest galaxies of a class, nearest first; none where nothing that is known here is wanted.

        Distances are Euclidean in units of the class's spread, 1.4826 times the median absolute deviation, of each
        attribute. Galaxies of which an attribute is not known are left out.
        """
        rows = np.flatnonzero(self.morphologies == morphology)
        columns = {name: self.values[name][rows] for name in wanted if name in self.values}
        columns = {name: column for name, column in columns.items() if np.isfinite(column).any()}
        if not columns:
            return []
        parts = [(column - wanted[name]) / _spread(column) for name, column in columns.items()]
        distances = np.sqrt(np.sum(np.square(parts), axis=0))
        order = np.argsort(distances, kind="stable")[:_NUMBER]
        return [Neighbour(int(rows[k]), float(distances[k])) for k in order if np.isfinite(distances[k])]

    def picture(self, row: int) -> bytes:
        """Return a galaxy as a PNG file of its own pixels."""
        image = torch.from_numpy(np.array(self.images[row]))
        if self.noise is not None:
            image = LuptonComposite(self.bands, self.noise)(image[None]).flip(-2)[0]
        file = io.BytesIO()
        to_picture(image).save(file, "PNG")
        return file.getvalue()

    def facts(self, neighbour: Neighbour) -> NeighbourFacts:
        """Return what is answered of a neighbour."""
        row, distance = neighbour
        values = {name: float(column[row]) for name, column in self.values.items()}
        return NeighbourFacts(
            object_id=self.object_ids[row],
            distance=_rounded(distance),
            values={name: _rounded(value) if np.isfinite(value) else None for name, value in values.items()},
            picture="data:image/png;base64," + base64.b64encode(self.picture(row)).decode(),
        )

    def describe(self) -> RealFacts:
        """Return what `/api/model` says of the set."""
        return RealFacts(count=len(self.images), credit=self.credit, are_mock=self.origin != "real", origin=self.origin)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _spread(column: np.ndarray) -> float:
    """Return the spread of what is known of a column; its standard deviation where most values are the same, or 1."""
    known = column[np.isfinite(column)].astype(np.float64)
    return float(_MAD * np.median(np.abs(known - np.median(known))) or known.std() or 1.0)
