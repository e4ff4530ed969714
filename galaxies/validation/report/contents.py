"""What a report holds, typed: every number of `evaluate.py report`, and what was left out and why.

A statistic has a dataclass here, in `control` or in `realism`, a field in the part that it belongs to, and its line in
that part's `figures` if runs are to be compared by it; `comparison.COMPARISONS` says how it is computed, and
`page.html` how it is shown. The names in report.json are the same; `report_file` writes and reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from config_physics import MOST_CLASS_TEXT, Attribute, Morphology, attribute_table, morphologies_of
from galaxies.common.attributes import attribute_defined
from galaxies.common.origin import Origin, origin_of
from galaxies.validation.report.cells import (
    AttributeName,
    Definition,
    Drawn,
    Figures,
    Interval,
    LeftOut,
    Name,
    Part,
    Sets,
    Share,
)
from galaxies.validation.report.control import Control
from galaxies.validation.report.realism import Realism

FORMAT_VERSION = 8


def _check_generation(seconds: dict[str, float]) -> dict[str, float]:
    if "generation" not in seconds:
        raise ValueError("the seconds of the generation are missing")
    return seconds


# Honesty: are they new, various, and measured without doubt?


@dataclass(frozen=True)
class SuspectedCopies(Part):
    """The share of galaxies nearer to the training set than `expected` of the held-out ones are."""

    value: float
    interval: Interval
    expected: float


@dataclass(frozen=True)
class Copies(Part):
    """How near galaxies are to their nearest training galaxy; see `comparison.look_for_copies`.

    Numbers of images; medians in grey levels of 255; the probability that a generated galaxy is nearer than a held-out
    one.
    """

    generated: int
    held_out: int
    training: int
    median: float
    held_out_median: float
    nearer_than_held_out: float
    copies: SuspectedCopies


@dataclass(frozen=True)
class Variety(Part):
    """Mean difference of two galaxies, generated over real, in pixels and in the judge's features if there is one."""

    images: int
    pixels: float
    judge: float | None = None


@dataclass(frozen=True)
class Honesty(Part):
    """Copies, variety {group: cell}, the share of requests outside the support, and photometry's {flag: share}."""

    copies: Copies | LeftOut
    variety: dict[Name, Variety | LeftOut]
    unsupported: Drawn[float]
    flags: Sets[dict[Name, Share | LeftOut]]

    def figures(self) -> Figures:
        """Give what runs are compared by."""
        yield "suspected copies", None if isinstance(self.copies, LeftOut) else self.copies.copies.value
        for group, cell in self.variety.items():
            yield f"variety, {group}", None if isinstance(cell, LeftOut) else cell.pixels


# Are the distances worth reporting?


@dataclass(frozen=True)
class Damage(Part):
    """A way to damage real galaxies, and how much at each level."""

    label: str
    levels: list[float]


@dataclass(frozen=True)
class Growth(Part):
    """A distance at each level of a damage, and whether it grows at every step."""

    values: list[float]
    monotone: bool


@dataclass(frozen=True)
class DistanceChecks(Part):
    """Real galaxies, damaged more and more; `spaces` is {space: {damage: {distance: growth}}}."""

    images: int
    damages: dict[str, Damage]
    spaces: dict[str, dict[str, dict[str, Growth]]]
    passed: bool

    def growths(self) -> Iterator[Growth]:
        """Go through all checks."""
        for damages in self.spaces.values():
            for distances in damages.values():
                yield from distances.values()


@dataclass(frozen=True)
class Checkpoint(Part):
    """The checkpoint that a report is about, and what drew its images; its attributes, and their sliders' ends.

    `source` is that of the data it was trained on, None where it is not known; `attribute_definitions` tell those of
    the attributes that are columns of a user's own.
    """

    path: str
    run: str
    epoch: int
    step: int
    sampler: str
    attributes: list[AttributeName]
    attribute_ranges: list[Interval]
    source: str | None = None
    attribute_definitions: list[Definition] = field(default_factory=list)

    def rows(self) -> tuple[Attribute, ...]:
        """Return the attributes with the ranges that they have in this run."""
        own = [attribute_defined(line) for line in self.attribute_definitions]
        table = attribute_table(tuple(self.attributes), own)
        ends = zip(table, self.attribute_ranges, strict=True)
        return tuple(dataclasses.replace(row, low=low, high=high) for row, (low, high) in ends)


@dataclass(frozen=True)
class Data(Part):
    """A prepared dataset that something is held against, and what its images are."""

    path: str
    source: str | None
    sha256: dict[str, str]
    kind: Literal["display", "flux"]
    bands: list[Name]
    classes: list[Name]
    class_labels: list[Annotated[str, Field(max_length=MOST_CLASS_TEXT)]]  # none where nothing is told

    @property
    def is_flux(self) -> bool:
        """Whether pixels are nanojansky."""
        return self.kind == "flux"

    @property
    def called(self) -> Origin:
        """What its galaxies are in a sentence, to tell them from generated ones: real, mock or simulated."""
        return origin_of(self.source)

    def morphologies(self) -> tuple[Morphology, ...]:
        """Return the classes."""
        return morphologies_of(self.classes, self.class_labels)


@dataclass(frozen=True)
class Dataset(Data):
    """The dataset that a checkpoint was compared with, and whether it was trained on it."""

    trained_on: bool


@dataclass(frozen=True)
class Report(Part):
    """A finished report.

    Attributes
    ----------
    format_version : int
    checkpoint, data : Checkpoint, Dataset
    seed : int
        Of every random draw.
    counts : Sets
        Numbers of galaxies.
    judge : dict or LeftOut
        The judge's card.
    photometry_was_trained_on : bool
        Photometry was part of the generator's loss, so it is no independent witness.
    control, realism, honesty, validation
        The four parts of the page.
    seconds : dict
        Of each part of the work.
    """

    format_version: int
    checkpoint: Checkpoint
    data: Dataset
    seed: int
    counts: Sets[Annotated[int, Field(ge=1)]]
    judge: Annotated[LeftOut | dict[str, Any], Field(union_mode="left_to_right")]
    photometry_was_trained_on: bool
    control: Control
    realism: Realism
    honesty: Honesty
    validation: DistanceChecks | LeftOut
    seconds: Annotated[dict[Name, float], AfterValidator(_check_generation)]

    def milliseconds_per_image(self) -> float:
        """Return how long the generator took to draw one of its galaxies."""
        return 1000 * self.seconds["generation"] / (self.counts.test + self.counts.uniform)

    def figures(self) -> dict[str, float | None]:
        """Return the figures that runs are compared by, {name: value}; None where one was left out."""
        return {
            **dict(self.control.attribute_figures(self.checkpoint.rows())),
            "generation [ms an image]": self.milliseconds_per_image(),
            **dict(self.control.class_figures()),
            **dict(self.realism.figures()),
            **dict(self.honesty.figures()),
        }
