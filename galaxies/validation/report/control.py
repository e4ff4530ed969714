"""The part of a report on control, typed: do the galaxies have what was asked for?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic

from config_physics import Attribute
from galaxies.validation.report.cells import (
    ALL,
    AttributeName,
    ByGroup,
    Drawn,
    Estimate,
    Figures,
    Instrument,
    Interval,
    LeftOut,
    Name,
    Part,
    Sets,
    Share,
    T,
)


@dataclass(frozen=True)
class Agreement(Part):
    """Requested against measured values of one attribute, in its units; see `agreement.agreement`."""

    pairs: int
    mean_requested: float
    mean_squared_error: float
    mae: Estimate
    bias: Estimate
    r2: Estimate
    spearman: Estimate


Groups = ByGroup[Agreement | LeftOut]  # `ALL` and each class
Readings = dict[Instrument, Groups]  # of the instruments that read an attribute


@dataclass(frozen=True)
class Balanced(Part):
    """The mean of the classes' accuracies."""

    value: float
    images: int


@dataclass(frozen=True)
class ClassAccuracy(Part):
    """The judge's class against the true or requested one.

    Attributes
    ----------
    groups : dict
        Accuracy of `ALL` and of each class.
    confusion : list of rows
        Rows of the true class, columns of the judged one, as shares of the row.
    """

    balanced: Balanced
    groups: ByGroup[Share | LeftOut]
    confusion: list[list[float]]


@dataclass(frozen=True)
class GamingGap(Part):
    """The judge's error over that of the predictor of the training; ``real_``: on real galaxies, None if unknown."""

    judge_mae: float
    predictor_mae: float
    ratio: float | None
    real_judge_mae: float | None = None
    real_predictor_mae: float | None = None
    real_ratio: float | None = None


@dataclass(frozen=True)
class Shuffled(Part):
    """What is left of control when the requests are dealt out anew; see `agreement.shuffled_control`."""

    spearman: float
    spearman_range: Interval
    r2: float
    observed: float
    no_skill: bool


@dataclass(frozen=True)
class Statmorph(Part):
    """What statmorph measures on a subset: images, the share that it flags, and {attribute: groups}."""

    images: int
    flagged: float
    attributes: dict[AttributeName, Groups]


@dataclass(frozen=True)
class StatmorphSets(Part):
    """Statmorph's readings of generated galaxies, and of real ones against their true values."""

    test: Statmorph
    real: Statmorph

    def items(self) -> Iterator[tuple[str, Statmorph]]:
        """Go through the sets by name."""
        yield "test", self.test
        yield "real", self.real


@dataclass(frozen=True)
class Guided(Part, Generic[T]):
    """One thing of the same galaxies, drawn without photometric guidance and with it."""

    plain: T
    guided: T


@dataclass(frozen=True)
class Guidance(Part):
    """What photometric guidance does and costs; see `guidance_effect.guidance_effect`."""

    images: int
    strength: float
    seconds_per_image: Guided[float]
    attributes: dict[AttributeName, dict[Instrument, Guided[Agreement | LeftOut]]]


@dataclass(frozen=True)
class Mixtures(Part):
    """The judge's shares of each class, of galaxies drawn for the mixtures of test galaxies, and of these themselves.

    Attributes
    ----------
    test : dict
        {class: requested against judged} of generated galaxies.
    real : dict
        The same of the test galaxies: shares of the dataset, such as people's votes, against the judge's. It is the
        best that a generator could be seen to do.
    """

    test: dict[Name, Agreement | LeftOut]
    real: dict[Name, Agreement | LeftOut]

    def items(self) -> Iterator[tuple[str, dict[Name, Agreement | LeftOut]]]:
        """Go through the sets by name."""
        yield "test", self.test
        yield "real", self.real

    @staticmethod
    def mean_error(cells: dict[Name, Agreement | LeftOut]) -> float | None:
        """Return the mean of the classes' mean absolute differences, None where one is left out."""
        errors = [None if isinstance(cell, LeftOut) else cell.mae.value for cell in cells.values()]
        known = [error for error in errors if error is not None]
        return sum(known) / len(known) if known and len(known) == len(errors) else None


@dataclass(frozen=True)
class Control(Part):
    """Requested against measured.

    Attributes
    ----------
    attributes : Drawn
        {attribute: readings} of each set.
    classes : Sets
        Accuracy of the judge.
    gaming, shuffled : Drawn
        {attribute: cell}, of the attributes that were read.
    instruments : dict
        {attribute: readings} of real galaxies against their true values: the best that a generator could be seen to do.
    mixtures : Mixtures or LeftOut, or None
        Of a run that was trained on shares of the classes; None of one that was told one class a galaxy.
    """

    attributes: Drawn[dict[AttributeName, Readings]]
    classes: Sets[ClassAccuracy | LeftOut]
    gaming: Drawn[dict[AttributeName, GamingGap | LeftOut]]
    shuffled: Drawn[dict[AttributeName, Shuffled | LeftOut]]
    instruments: dict[AttributeName, Readings]
    statmorph: StatmorphSets | None = None
    guidance: Guidance | None = None
    mixtures: Mixtures | LeftOut | None = None

    def attribute_figures(self, rows: Sequence[Attribute]) -> Figures:
        """Give what runs are compared by: uniform requests, since those are the same for every run."""
        units = {row.name: row.unit for row in rows}
        for attribute, readings in self.attributes.uniform.items():
            unit = f" [{told}]" if (told := units.get(attribute)) else ""
            for instrument, groups in readings.items():
                cell = groups[ALL]
                read = None if isinstance(cell, LeftOut) else cell
                yield f"{attribute}, {instrument}: mae{unit}", read.mae.value if read else None
                yield f"{attribute}, {instrument}: spearman", read.spearman.value if read else None
            gap = self.gaming.test.get(attribute)
            yield f"{attribute}: gaming gap", gap.ratio if isinstance(gap, GamingGap) else None

    def class_figures(self) -> Figures:
        """Give what runs are compared by, of the classes."""
        for words, cell in (("generated", self.classes.test), ("real", self.classes.real)):
            yield f"class accuracy, {words}", None if isinstance(cell, LeftOut) else cell.balanced.value
        if self.mixtures is None:
            return
        for name, words in (("test", "generated"), ("real", "real")):
            cells = {} if isinstance(self.mixtures, LeftOut) else dict(self.mixtures.items())[name]
            yield f"shares of the classes, {words}: mean absolute difference", Mixtures.mean_error(cells)


def agreement_of(attributes: dict[str, Readings], attribute: str, instrument: Instrument) -> Agreement | LeftOut:
    """Return how an instrument's readings of an attribute agree with the requests, of all galaxies."""
    if attribute not in attributes:
        return LeftOut(f"{attribute} is no attribute of this run")
    if instrument not in attributes[attribute]:
        return LeftOut(f"{instrument} does not read {attribute} here")
    return attributes[attribute][instrument][ALL]
