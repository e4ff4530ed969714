"""The part of a report on realism, typed: do they look like real galaxies?"""

from __future__ import annotations

from dataclasses import dataclass

from galaxies.validation.report.cells import ALL, ByGroup, Figures, Interval, LeftOut, Name, Part, Share

ARMS, NUCLEUS = "visible arms", "second nucleus"


@dataclass(frozen=True)
class Distance(Part):
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
class ValuesCompared(Part):
    """The distributions of one statistic; see `distances.compare_values`."""

    w1: Wasserstein
    ks: Distance
    shift: float


@dataclass(frozen=True)
class StatisticsMean(Part):
    """Wasserstein-1 of the statistics, mean over them."""

    value: float
    floor: float
    whole: float
    multiple: float | None
    statistics: int


@dataclass(frozen=True)
class Statistics(Part):
    """{statistic: {group: cell}} and {group: mean}."""

    table: dict[Name, dict[Name, ValuesCompared | LeftOut]]
    mean: ByGroup[StatisticsMean | LeftOut]


@dataclass(frozen=True)
class Seen(Part):
    """The shares of galaxies that show something, and the generated one less the real one."""

    generated: Share
    real: Share
    difference: float
    interval: Interval


@dataclass(frozen=True)
class Morphology(Part):
    """What people see: {statistic: {group: cell}}, and {feature: {group: shares}}."""

    table: dict[Name, dict[Name, ValuesCompared | LeftOut]]
    seen: dict[Name, dict[Name, Seen | LeftOut]]

    def multiple(self, statistic: str, group: str) -> float | None:
        """Return the distance of a statistic in a group over that of real from real, None where it was left out."""
        cell = self.table.get(statistic, {}).get(group)
        return cell.w1.multiple if isinstance(cell, ValuesCompared) else None

    def difference(self, feature: str, group: str) -> float | None:
        """Return by how much more generated galaxies show something, None where it was left out."""
        cell = self.seen.get(feature, {}).get(group)
        return cell.difference if isinstance(cell, Seen) else None


@dataclass(frozen=True)
class PowerRatio(Part):
    """Generated over real power in each bin; interval and floor are rows of low and of high values."""

    ratio: list[float]
    interval: tuple[list[float], list[float]]
    floor: tuple[list[float], list[float]]


@dataclass(frozen=True)
class Power(Part):
    """Power spectra, at the middles of their bins in cycles a frame."""

    cycles: list[float]
    groups: dict[Name, PowerRatio | LeftOut]


@dataclass(frozen=True)
class Neighbourhood(Part):
    """One of precision, recall, density and coverage; the floor is real against real."""

    value: float
    interval: Interval
    floor: float


@dataclass(frozen=True)
class Neighbourhoods(Part):
    """Precision, recall, density and coverage of `images` each by the `k` nearest; `neighbours.neighbourhoods`."""

    images: int
    k: int
    precision: Neighbourhood
    recall: Neighbourhood
    density: Neighbourhood
    coverage: Neighbourhood


@dataclass(frozen=True)
class SpaceCompared(Part):
    """Distances in one feature space, of so many features."""

    features: int
    frechet: Distance | LeftOut
    kid: Distance | LeftOut
    neighbourhoods: Neighbourhoods | LeftOut


@dataclass(frozen=True)
class Rates(Part):
    """How well a network tells pairs apart; an accuracy of 0.5 is guessing."""

    pairs: int
    accuracy: float
    standard_error: float
    auc: float


@dataclass(frozen=True)
class RealOrFake(Part):
    """What a fresh network tells, that learned from so many real galaxies; groups as far as there are pairs to test."""

    learned: int
    groups: ByGroup[Rates]


@dataclass(frozen=True)
class Realism(Part):
    """Generated against real galaxies as sets."""

    statistics: Statistics
    morphology: Morphology | LeftOut
    power: Power
    features: dict[Name, SpaceCompared | LeftOut]
    real_or_fake: RealOrFake | LeftOut

    def figures(self) -> Figures:
        """Give what runs are compared by."""
        for group, mean in self.statistics.mean.items():
            known = None if isinstance(mean, LeftOut) else mean
            yield f"statistics, {group}: W1 / floor", known.multiple if known else None
            yield f"statistics, {group}: W1 of all images", known.whole if known else None
        morphology = None if isinstance(self.morphology, LeftOut) else self.morphology
        for feature, statistic, group in ((ARMS, "arm_strength", "spiral"), (NUCLEUS, "second_nucleus", "merger")):
            found = morphology.difference(feature, group) if morphology else None
            yield f"{feature}, {group}: generated less real", found
            yield f"{statistic}, {group}: W1 / floor", morphology.multiple(statistic, group) if morphology else None
        for name, space in self.features.items():
            near = space if isinstance(space, LeftOut) else space.neighbourhoods
            for word in ("frechet", "kid"):
                distance = space if isinstance(space, LeftOut) else getattr(space, word)
                yield f"{name}: {word} / floor", None if isinstance(distance, LeftOut) else distance.multiple
            for word in ("precision", "recall", "density", "coverage"):
                yield f"{name}: {word}", None if isinstance(near, LeftOut) else getattr(near, word).value
        fresh = self.real_or_fake
        yield "real or fake: accuracy", None if isinstance(fresh, LeftOut) else fresh.groups[ALL].accuracy
