"""Choose galaxies that are clear examples of their class, for people who learn to tell the classes apart.

A network draws galaxies as they are: many a spiral shows no arms on 64 pixels, in the surveys too. Of those that it
draws the ones are taken whose picture shows plainly what the class is known by, to instruments that are not told the
class.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from pydantic import Field

from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.mergers import VISIBLE_NUCLEUS
from galaxies.measure.statistics_table import ATTRIBUTE_STATISTICS, MORPHOLOGY_STATISTICS, Measured, measure_images
from galaxies.serving.answers import Answer, Tile
from galaxies.serving.cache import BoundedCache
from galaxies.serving.models import rounded
from galaxies.serving.queries import GalaxyQuery
from galaxies.serving.service import GalaxyService

Range = tuple[float, float]
SEEN_STATISTICS = ATTRIBUTE_STATISTICS + MORPHOLOGY_STATISTICS  # on the picture, whatever it is made of

_SEEDS = 1024  # that are looked through
_DRAWN = 192  # galaxies of those, at most
_TOGETHER = 16
_MOST_OFF = 0.12  # of a slider's range, between what is measured and what was requested
_MOST_BYTES, _SEARCH_BYTES = 32 * 2**20, 2**18  # of searches that are kept


@dataclass(frozen=True)
class ClearRule:
    """What makes a galaxy a clear example.

    Attributes
    ----------
    asked : mapping of str to (float, float)
        Range of attributes as requested, which spares drawing what will not do; models without one do without.
    seen : mapping of str to (float, float)
        Range of statistics of the picture, from the first to below the second.
    """

    asked: Mapping[str, Range]
    seen: Mapping[str, Range]

    def admits(self, values: Mapping[str, float]) -> bool:
        """Tell whether requested values, those that are known, lie in their ranges."""
        known = [
            (values[name], limits) for name, limits in self.asked.items() if math.isfinite(values.get(name, math.nan))
        ]
        return all(low <= value <= high for value, (low, high) in known)

    def holds(self, measured: Measured) -> np.ndarray:
        """Tell of which pictures of N it holds, (N,) bool; never of one that no sound measurement was made of."""
        found = measured.flags == 0
        for name, (low, high) in self.seen.items():
            column = measured.values[name]
            found &= (low <= column) & (column < high)
        return found


_ONE_NUCLEUS = {"second_nucleus": (0.0, VISIBLE_NUCLEUS / 2), "shape_asymmetry": (0.0, 0.35)}
CLEAR = {
    "spiral": ClearRule(
        {"size": (0.14, 0.25), "ellipticity": (0.0, 0.45), "brightness": (0.0, 0.33)},
        {
            "arm_strength": (1.5 * VISIBLE_ARMS, math.inf),
            "second_nucleus": (0.0, 1.5 * VISIBLE_NUCLEUS),
            "ellipticity": (0.0, 0.45),
            "size": (0.12, 1.0),
            "concentration": (0.0, 2.6),
            "shape_asymmetry": (0.0, 0.5),
        },
    ),
    "elliptical": ClearRule(
        {"size": (0.12, 0.25), "ellipticity": (0.0, 0.4)},
        {
            **_ONE_NUCLEUS,
            "arm_strength": (0.0, VISIBLE_ARMS / 2),
            "ellipticity": (0.0, 0.4),
            "concentration": (2.3, 9.0),
            "brightness": (0.25, 1.0),
        },
    ),
    "merger": ClearRule(
        {"size": (0.14, 0.25), "ellipticity": (0.0, 0.6)},
        {
            "second_nucleus": (2 * VISIBLE_NUCLEUS, math.inf),
            "arm_strength": (0.0, 2 * VISIBLE_ARMS),  # the two halves of a spiral without a bulge pass for nuclei
            "ellipticity": (0.0, 0.6),
            "size": (0.12, 1.0),
        },
    ),
    "edge-on": ClearRule(
        {"ellipticity": (0.6, 1.0)},
        {**_ONE_NUCLEUS, "arm_strength": (0.0, 1.5 * VISIBLE_ARMS), "ellipticity": (0.62, 1.0)},
    ),
}
_ANY_CLASS = ClearRule({}, _ONE_NUCLEUS)  # of classes that no rule is written for: one galaxy, well measured


class Example(Tile):
    """A galaxy that is a clear example of its class, drawn and measured."""

    signs: dict[str, float | None] = Field(
        description="What tells the class, measured on the picture: arm_strength, arm_count, second_nucleus and the "
        "others of docs/physics.md; null where it cannot be measured."
    )
    visible: list[str] = Field(description="Which of arms and second nucleus are plain to see.")


class Examples(Answer):
    """Clear examples of a class."""

    examples: list[Example] = Field(
        description="In the order of their seeds; fewer than asked for if the model draws few."
    )


@dataclass
class _Search:
    """How far a search has come: the candidates, how many of them were looked at, and what was found."""

    candidates: list[GalaxyQuery]
    looked_at: int = 0
    found: list[Example] = field(default_factory=list)


class ExampleFinder:
    """Find clear examples among the galaxies that a model draws; each found once, however many ask at the same time.

    Parameters
    ----------
    service : GalaxyService
    """

    def __init__(self, service: GalaxyService) -> None:
        self._service = service
        self._names = [attribute.name for attribute in service.attributes]
        self._kept: BoundedCache[_Search] = BoundedCache(_MOST_BYTES)
        self._alone = threading.Lock()

    def find(self, query: GalaxyQuery, count: int, is_wanted: Callable[[], bool] = lambda: True) -> list[Example]:
        """Return up to `count` clear examples among the galaxies of a query with this and the following seeds.

        They are a function of the model, the query and `count`; the first of many are those of few.

        Raises
        ------
        BusyError
            As `GalaxyService.galaxies` does; what was found until then is kept.
        """
        rule = CLEAR.get(self._service.served.classes[query.class_index], _ANY_CLASS)
        with self._alone:
            search = self._kept.get(query) or _Search(self._candidates(query, rule))
            self._kept.put(query, search, _SEARCH_BYTES)
            if len(search.found) < count:
                with self._service.queue.place():
                    self._search_on(search, rule, count, is_wanted)
            return search.found[:count]

    def _search_on(self, search: _Search, rule: ClearRule, count: int, is_wanted: Callable[[], bool]) -> None:
        """Look at more candidates until there are so many examples, or no more candidates."""
        while len(search.found) < count and search.looked_at < len(search.candidates):
            some = search.candidates[search.looked_at : search.looked_at + _TOGETHER]
            signs = self._signs(some, is_wanted)
            clear = [row for row, is_clear in enumerate(rule.holds(signs)) if is_clear]
            chosen = [some[row] for row in clear]
            galaxies = self._service.galaxies(chosen, True, is_wanted)
            for row, each, galaxy in zip(clear, chosen, galaxies, strict=True):
                tile = self._service.report(each, galaxy)
                if self._has_what_was_asked(tile):
                    search.found.append(_example(tile, signs.of(row)))
            search.looked_at += len(some)

    def _has_what_was_asked(self, tile: Tile) -> bool:
        """Tell whether photometry finds, of what it measures, about what was requested; noise seldom has that."""
        for attribute in self._service.attributes:
            reading = tile.attributes[attribute.name]
            if reading.requested is not None and reading.measured is not None:
                off = abs(attribute.place(reading.measured) - attribute.place(reading.requested))
                if off > _MOST_OFF:
                    return False
        return True

    def _candidates(self, query: GalaxyQuery, rule: ClearRule) -> list[GalaxyQuery]:
        """Return the first seeds that draw, by what is requested with them, what may be a clear example."""
        seeds = range(query.seed, query.seed + _SEEDS)
        classes, wanted = torch.full((_SEEDS,), query.class_index), torch.tensor([query.wanted] * _SEEDS)
        completed = self._service.sampler.complete_all(classes, wanted, seeds).tolist()
        free = [index for index, value in enumerate(query.values) if value is None]
        admitted = [
            replace(query, seed=seed)
            for seed, values in zip(seeds, completed, strict=True)
            if rule.admits({self._names[index]: values[index] for index in free})
        ]
        return admitted[:_DRAWN]

    def _signs(self, queries: Sequence[GalaxyQuery], is_wanted: Callable[[], bool]) -> Measured:
        """Measure what tells a class on the pictures of galaxies."""
        images = torch.stack([galaxy.image for galaxy in self._service.galaxies(queries, False, is_wanted)])
        return measure_images(self._service.sampler.pictures(images), statistics=SEEN_STATISTICS)


def _example(tile: Tile, signs: Measured) -> Example:
    values = {name: float(column[0]) for name, column in signs.values.items()}
    limits = {"arms": ("arm_strength", VISIBLE_ARMS), "second nucleus": ("second_nucleus", VISIBLE_NUCLEUS)}
    return Example(
        **tile.model_dump(exclude_unset=True),
        signs={name: rounded(value) if math.isfinite(value) else None for name, value in values.items()},
        visible=[what for what, (name, limit) in limits.items() if values[name] > limit],
    )
