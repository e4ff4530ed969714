"""The classes of the mock survey: the one table that says how galaxies of a class look and what people see in them.

A class new to the survey is an entry here, with functions of its own beside it where those of `structure.py` and
`light.py` do not do, and a name in `MORPHOLOGIES`. Columns that no table of `galaxy_table.py` has go to
`Shape.other`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from galaxies.mock_survey import light, structure
from galaxies.mock_survey.encounter import Encounter
from galaxies.mock_survey.galaxy_table import LitTable, Structure


class Family(NamedTuple):
    """What the galaxies of a class have in common; `population.py` draws luminosities, sizes and colours from it."""

    magnitude: float  # absolute, in r: mean and standard deviation
    magnitude_spread: float
    size_factor: float  # over the size-mass relation
    reddening: float  # of those with young stars, magnitudes of g-r
    min_r90: float  # arcseconds; the survey's limit is 3, and in smaller ones people see no arms, tails or edges
    r90_error: float  # by which the survey overestimates R90 of such galaxies, natural logarithm
    red_bulge: bool = True  # the bulge has old stars even if the rest has not


class Impression(NamedTuple):
    """What people see in galaxies of a class: probabilities of answers, before those that the structure decides."""

    features: float  # or a disc
    features_of_arms: float = 0.0  # more of them, times the arms' strength
    arms: float = 0.0  # 1 for a class that has any
    edge_on: float = 0.0
    flat: float = 0.0  # seen edge-on too, if very inclined
    merging: float = 0.0  # 1 for two galaxies


@dataclass(frozen=True)
class MockClass:
    """One class of the mock survey.

    Attributes
    ----------
    draw_shape : callable
        From a number of galaxies and a random stream to their `structure.Shape`.
    family : Family
    impression : Impression
    light : dict of str to callable
        How the light is drawn, by the kind of galaxy (see `draw_light`): one of the class's name, or several. No
        two classes share the name of a kind.
    kind_of : callable, optional
        From a `Structure` of N galaxies to their kinds, (N,) of str; of classes that have several.
    """

    draw_shape: Callable[[int, np.random.Generator], structure.Shape]
    family: Family
    impression: Impression
    light: dict[str, light.DrawLight]
    kind_of: Callable[[Structure[np.ndarray]], np.ndarray] | None = None

    def kinds(self, drawn: Structure[np.ndarray]) -> np.ndarray:
        """Return the kinds of galaxies of this class, (N,) of str."""
        if self.kind_of is not None:
            return self.kind_of(drawn)
        (only,) = self.light
        return np.full(len(drawn.axis_ratio), only)


# By the name of the class in `MORPHOLOGIES`.
CLASSES: dict[str, MockClass] = {
    "spiral": MockClass(
        structure.spiral_shape,
        Family(-20.9, 0.9, 1.33, 0.0, 4.7, -0.12),
        Impression(features=0.72, features_of_arms=0.2, arms=1.0, flat=0.3),
        {"spiral": light.spiral_light},
    ),
    "elliptical": MockClass(
        structure.elliptical_shape,
        Family(-21.5, 0.9, 1.4, -0.04, 3.0, 0.0, red_bulge=False),
        Impression(features=0.1),
        {"elliptical": light.elliptical_light},
    ),
    "merger": MockClass(
        structure.merger_shape,
        Family(-21.2, 0.9, 1.06, 0.0, 4.0, -0.13),
        Impression(features=0.5, edge_on=0.1, merging=1.0),
        {light.DRY_MERGER: light.dry_merger_light, light.WET_MERGER: light.wet_merger_light},
        light.kind_of_merger,
    ),
    "edge-on": MockClass(
        structure.edge_on_shape,
        Family(-20.2, 0.9, 1.45, 0.15, 3.8, -0.01),
        Impression(features=0.85, edge_on=0.9),
        {"edge-on": light.edge_on_light},
    ),
}


def mock_class(morphology: str) -> MockClass:
    """Return the entry of a class.

    Raises
    ------
    ValueError
        If nothing here says what galaxies of that class look like.
    """
    if morphology not in CLASSES:
        raise ValueError(f"the mock survey cannot draw the class '{morphology}': it draws {', '.join(CLASSES)}")
    return CLASSES[morphology]


def draw_light(kind: str, galaxies: LitTable[Tensor], grid: light.Grid, pair: Encounter | None = None) -> light.Light:
    """Draw the light of galaxies of one kind; `galaxies` is described in `galaxy_table.py`.

    `pair` is what `meet` returned for wet mergers, if it was called already.

    Raises
    ------
    ValueError
        If no class has that kind of galaxy.
    """
    drawers = {name: draw for entry in CLASSES.values() for name, draw in entry.light.items()}
    if kind not in drawers:
        raise ValueError(f"the mock survey cannot draw the light of a '{kind}': it draws {', '.join(drawers)}")
    return drawers[kind](galaxies, grid, pair)
