"""What a report holds, typed: every number of `evaluate.py report`, and what was left out and why.

A statistic has a dataclass here, a field in the part that it belongs to, and its line in that part's `figures` if runs
are to be compared by it; `comparison.COMPARISONS` says how it is computed, and `page.html` how it is shown. The names
in report.json are the same; `report_file` writes and reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter

from config_physics import Attribute, Morphology, attribute_of, attribute_table, morphologies_of

FORMAT_VERSION = 3
ALL = "all"  # the group of all galaxies, beside one for each class
Instrument = Literal["photometry", "judge"]
Interval = tuple[float, float]  # 95 %
Figures = Iterator[tuple[str, "float | None"]]  # name and value; None where it was left out
T = TypeVar("T")


def _check_name(name: str) -> str:
    if len(name) > 100 or not name.isprintable():
        raise ValueError("this is no name of a group, a statistic or a space")
    return name


def _check_attribute(name: str) -> str:
    if attribute_of(name) is None:
        raise ValueError("this is no attribute")
    return name


def _check_all(groups: dict[str, T]) -> dict[str, T]:
    if ALL not in groups:
        raise ValueError(f"the group '{ALL}' is missing")
    return groups


def _check_generation(seconds: dict[str, float]) -> dict[str, float]:
    if "generation" not in seconds:
        raise ValueError("the seconds of the generation are missing")
    return seconds


Name = Annotated[str, AfterValidator(_check_name)]
AttributeName = Annotated[str, AfterValidator(_check_attribute)]
ByGroup = Annotated[dict[Name, T], AfterValidator(_check_all)]  # `ALL` is always there, and each class as far as known


class _Part:
    """What all parts share: a key of report.json that they do not know makes it no report."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True)
class LeftOut(_Part):
    """Stands where a number would, with the reason why there is none: a sentence. ``left_out`` in report.json."""

    reason: Annotated[str, Field(alias="left_out")]


@dataclass(frozen=True)
class Drawn(_Part, Generic[T]):
    """One thing of the galaxies with requests like the test split, and of those with uniform requests."""

    test: T
    uniform: T

    def items(self) -> Iterator[tuple[str, T]]:
        """Go through the sets by name."""
        yield "test", self.test
        yield "uniform", self.uniform


@dataclass(frozen=True)
class Sets(_Part, Generic[T]):
    """One thing of the real test galaxies and of both sets of generated ones."""

    real: T
    test: T
    uniform: T

    def items(self) -> Iterator[tuple[str, T]]:
        """Go through the sets by name."""
        yield "real", self.real
        yield "test", self.test
        yield "uniform", self.uniform


@dataclass(frozen=True)
class Estimate(_Part):
    """A number with its 95 % interval; the value is None where it is not finite."""

    value: float | None
    interval: Interval


@dataclass(frozen=True)
class Share(_Part):
    """A share of images, 0 to 1, with its 95 % bootstrap interval."""

    value: float
    interval: Interval
    images: int


# Control: do the galaxies have what was asked for?


@dataclass(frozen=True)
class Agreement(_Part):
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
class Balanced(_Part):
    """The mean of the classes' accuracies."""

    value: float
    images: int


@dataclass(frozen=True)
class ClassAccuracy(_Part):
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
class GamingGap(_Part):
    """The judge's error over that of the predictor of the training; ``real_``: on real galaxies, None if unknown."""

    judge_mae: float
    predictor_mae: float
    ratio: float | None
    real_judge_mae: float | None = None
    real_predictor_mae: float | None = None
    real_ratio: float | None = None


@dataclass(frozen=True)
class Shuffled(_Part):
    """What is left of control when the requests are dealt out anew; see `agreement.shuffled_control`."""

    spearman: float
    spearman_range: Interval
    r2: float
    observed: float
    no_skill: bool


@dataclass(frozen=True)
class Statmorph(_Part):
    """What statmorph measures on a subset: images, the share that it flags, and {attribute: groups}."""

    images: int
    flagged: float
    attributes: dict[AttributeName, Groups]


@dataclass(frozen=True)
class StatmorphSets(_Part):
    """Statmorph's readings of generated galaxies, and of real ones against their true values."""

    test: Statmorph
    real: Statmorph

    def items(self) -> Iterator[tuple[str, Statmorph]]:
        """Go through the sets by name."""
        yield "test", self.test
        yield "real", self.real


@dataclass(frozen=True)
class Guided(_Part, Generic[T]):
    """One thing of the same galaxies, drawn without photometric guidance and with it."""

    plain: T
    guided: T


@dataclass(frozen=True)
class Guidance(_Part):
    """What photometric guidance does and costs; see `guidance_effect.guidance_effect`."""

    images: int
    strength: float
    seconds_per_image: Guided[float]
    attributes: dict[AttributeName, dict[Instrument, Guided[Agreement | LeftOut]]]


@dataclass(frozen=True)
class Control(_Part):
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
    """

    attributes: Drawn[dict[AttributeName, Readings]]
    classes: Sets[ClassAccuracy | LeftOut]
    gaming: Drawn[dict[AttributeName, GamingGap | LeftOut]]
    shuffled: Drawn[dict[AttributeName, Shuffled | LeftOut]]
    instruments: dict[AttributeName, Readings]
    statmorph: StatmorphSets | None = None
    guidance: Guidance | None = None

    def attribute_figures(self) -> Figures:
        """Give what runs are compared by: uniform requests, since those are the same for every run."""
        for attribute, readings in self.attributes.uniform.items():
            (row,) = attribute_table((attribute,))
            unit = f" [{row.unit}]" if row.unit else ""
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


# Realism: do they look like real galaxies?


@dataclass(frozen=True)
class Distance(_Part):
    """A distance of generated from real galaxies, and its floor, that of real from real; `distances.against_floor`.

    `multiple` is None for a floor of 0; `images` are those of a half.
    """

    value: float
    interval: Interval
    floor: float
    floor_interval: Interval
    multiple: float | None
    images: int


@dataclass(frozen=True)
class Wasserstein(Distance):
    """A Wasserstein-1 distance in real standard deviations; `whole` is that of all images, which has no floor."""

    whole: float


@dataclass(frozen=True)
class ValuesCompared(_Part):
    """The distributions of one statistic; see `distances.compare_values`."""

    w1: Wasserstein
    ks: Distance
    shift: float


@dataclass(frozen=True)
class StatisticsMean(_Part):
    """Wasserstein-1 of the statistics, mean over them."""

    value: float
    floor: float
    whole: float
    multiple: float | None
    statistics: int


@dataclass(frozen=True)
class Statistics(_Part):
    """{statistic: {group: cell}} and {group: mean}."""

    table: dict[Name, dict[Name, ValuesCompared | LeftOut]]
    mean: ByGroup[StatisticsMean | LeftOut]


@dataclass(frozen=True)
class PowerRatio(_Part):
    """Generated over real power in each bin; interval and floor are rows of low and of high values."""

    ratio: list[float]
    interval: tuple[list[float], list[float]]
    floor: tuple[list[float], list[float]]


@dataclass(frozen=True)
class Power(_Part):
    """Power spectra, at the middles of their bins in cycles a frame."""

    cycles: list[float]
    groups: dict[Name, PowerRatio | LeftOut]


@dataclass(frozen=True)
class Neighbourhood(_Part):
    """One of precision, recall, density and coverage; the floor is real against real."""

    value: float
    interval: Interval
    floor: float


@dataclass(frozen=True)
class Neighbourhoods(_Part):
    """Precision, recall, density and coverage of `images` each by the `k` nearest; `neighbours.neighbourhoods`."""

    images: int
    k: int
    precision: Neighbourhood
    recall: Neighbourhood
    density: Neighbourhood
    coverage: Neighbourhood


@dataclass(frozen=True)
class SpaceCompared(_Part):
    """Distances in one feature space, of so many features."""

    features: int
    frechet: Distance | LeftOut
    kid: Distance | LeftOut
    neighbourhoods: Neighbourhoods | LeftOut


@dataclass(frozen=True)
class Rates(_Part):
    """How well a network tells pairs apart; an accuracy of 0.5 is guessing."""

    pairs: int
    accuracy: float
    standard_error: float
    auc: float


@dataclass(frozen=True)
class RealOrFake(_Part):
    """What a fresh network tells, that learned from so many real galaxies; groups as far as there are pairs to test."""

    learned: int
    groups: ByGroup[Rates]


@dataclass(frozen=True)
class Realism(_Part):
    """Generated against real galaxies as sets."""

    statistics: Statistics
    power: Power
    features: dict[Name, SpaceCompared | LeftOut]
    real_or_fake: RealOrFake | LeftOut

    def figures(self) -> Figures:
        """Give what runs are compared by."""
        for group, mean in self.statistics.mean.items():
            known = None if isinstance(mean, LeftOut) else mean
            yield f"statistics, {group}: W1 / floor", known.multiple if known else None
            yield f"statistics, {group}: W1 of all images", known.whole if known else None
        for name, space in self.features.items():
            near = space if isinstance(space, LeftOut) else space.neighbourhoods
            for word in ("frechet", "kid"):
                distance = space if isinstance(space, LeftOut) else getattr(space, word)
                yield f"{name}: {word} / floor", None if isinstance(distance, LeftOut) else distance.multiple
            for word in ("precision", "recall", "density", "coverage"):
                yield f"{name}: {word}", None if isinstance(near, LeftOut) else getattr(near, word).value
        fresh = self.real_or_fake
        yield "real or fake: accuracy", None if isinstance(fresh, LeftOut) else fresh.groups[ALL].accuracy


# Honesty: are they new, various, and measured without doubt?


@dataclass(frozen=True)
class SuspectedCopies(_Part):
    """The share of galaxies nearer to the training set than `expected` of the held-out ones are."""

    value: float
    interval: Interval
    expected: float


@dataclass(frozen=True)
class Copies(_Part):
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
class Variety(_Part):
    """Mean difference of two galaxies, generated over real, in pixels and in the judge's features if there is one."""

    images: int
    pixels: float
    judge: float | None = None


@dataclass(frozen=True)
class Honesty(_Part):
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
class Damage(_Part):
    """A way to damage real galaxies, and how much at each level."""

    label: str
    levels: list[float]


@dataclass(frozen=True)
class Growth(_Part):
    """A distance at each level of a damage, and whether it grows at every step."""

    values: list[float]
    monotone: bool


@dataclass(frozen=True)
class DistanceChecks(_Part):
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
class Checkpoint(_Part):
    """The checkpoint that a report is about, and what drew its images; its attributes, and their sliders' ends."""

    path: str
    run: str
    epoch: int
    step: int
    sampler: str
    attributes: list[AttributeName]
    attribute_ranges: list[Interval]

    def rows(self) -> tuple[Attribute, ...]:
        """Return the attributes with the ranges that they have in this run."""
        table = attribute_table(tuple(self.attributes))
        ends = zip(table, self.attribute_ranges, strict=True)
        return tuple(dataclasses.replace(row, low=low, high=high) for row, (low, high) in ends)


@dataclass(frozen=True)
class Dataset(_Part):
    """The dataset that a checkpoint was compared with, whether it was trained on it, and what its images are."""

    path: str
    source: str | None
    sha256: dict[str, str]
    trained_on: bool
    kind: Literal["display", "flux"]
    bands: list[Name]
    classes: list[Name]

    @property
    def is_flux(self) -> bool:
        """Whether pixels are nanojansky."""
        return self.kind == "flux"

    def morphologies(self) -> tuple[Morphology, ...]:
        """Return the classes."""
        return morphologies_of(self.classes)


@dataclass(frozen=True)
class Report(_Part):
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
            **dict(self.control.attribute_figures()),
            "generation [ms an image]": self.milliseconds_per_image(),
            **dict(self.control.class_figures()),
            **dict(self.realism.figures()),
            **dict(self.honesty.figures()),
        }


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
Cell = TypeVar("Cell")


def cell_of(kind: type[Cell], plain: dict[str, Any]) -> Cell | LeftOut:
    """Return plain values as a cell of a report, or why they were left out.

    Raises
    ------
    ValueError
        If a field is missing, has another name or another type.
    """
    return (_adapter(LeftOut) if "left_out" in plain else _adapter(kind)).validate_python(plain)


def read(kind: type[Cell], plain: dict[str, Any]) -> Cell:
    """Return plain values as a cell that is never left out; errors are those of `cell_of`."""
    return _adapter(kind).validate_python(plain)


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what reads a type; to build it takes longer than to use it."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def agreement_of(attributes: dict[str, Readings], attribute: str, instrument: Instrument) -> Agreement | LeftOut:
    """Return how an instrument's readings of an attribute agree with the requests, of all galaxies."""
    if attribute not in attributes:
        return LeftOut(f"{attribute} is no attribute of this run")
    if instrument not in attributes[attribute]:
        return LeftOut(f"{instrument} does not read {attribute} here")
    return attributes[attribute][instrument][ALL]
