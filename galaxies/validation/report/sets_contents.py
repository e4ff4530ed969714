"""What a comparison of sets holds, typed: every number of `evaluate.py sets`, under the same names in sets.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from pydantic import TypeAdapter

from galaxies.validation.report.cells import ALL, LeftOut, Name, Part
from galaxies.validation.report.contents import Data, Variety
from galaxies.validation.report.figures import FAIR_MULTIPLE
from galaxies.validation.report.realism import Distance, Realism, StatisticsMean

FORMAT_VERSION = 1
SPACES = {"judge": "Judge", "statistics": "Statistics", "random": "Random network"}

Verdict = Literal["alike", "telescope", "both", "galaxies"]
# Parts of a difference that went away with matching: up to here it is the galaxies, and from here on the telescope.
MOSTLY_GALAXIES, MOSTLY_TELESCOPE = 1 / 3, 2 / 3
VERDICTS: dict[Verdict, str] = {
    "alike": "alike",
    "telescope": "the telescope, mostly",
    "both": "both, telescope and galaxies",
    "galaxies": "the galaxies, mostly",
}


@dataclass(frozen=True)
class Unreadable(Part):
    """Files that could not be used: how many, and the first few with the reason."""

    count: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class Example(Part):
    """A galaxy near one end of a statistic."""

    name: str
    value: float


@dataclass(frozen=True)
class Ends(Part):
    """Galaxies from the lowest and from the highest tenth of a set."""

    low: list[Example]
    high: list[Example]


@dataclass(frozen=True)
class Differing(Part):
    """A statistic in which a set differs: W1 in standard deviations of the reference, and over its floor.

    `shift` is that of the medians in standard deviations; percentiles are the 16th, 50th and 84th.
    """

    statistic: Name
    label: str
    unit: str
    multiple: float
    w1: float
    shift: float
    percentiles: tuple[float, float, float]
    reference_percentiles: tuple[float, float, float]
    ends: Ends
    reference_ends: Ends


@dataclass(frozen=True)
class Measure(Part):
    """A distance over its floor before and after both sets were brought to one telescope.

    `part` of what it exceeds the floor by went away; None where it did not exceed it by a fifth.
    """

    label: str
    before: float
    after: float
    part: float | None


@dataclass(frozen=True)
class Telescope(Part):
    """Whether a difference is the telescope's or the galaxies': what was matched, what could not be, what went away.

    `part` is the mean over the measures, each between 0 and 1, None for sets that are alike; `remaining` names the
    statistics that differ most after it, with their multiples.
    """

    done: list[str]
    unknown: str
    measures: list[Measure]
    part: float | None
    verdict: Verdict
    remaining: list[tuple[str, float]]

    @property
    def said(self) -> str:
        """What the difference is, in words: of what could not be matched nobody can tell."""
        doubt = self.unknown and self.verdict in ("both", "galaxies")
        return VERDICTS[self.verdict] + (", or a blur that cannot be told from them" if doubt else "")

    @classmethod
    def of(
        cls,
        done: list[str],
        unknown: str,
        before: dict[str, float],
        after: dict[str, float],
        remaining: list[tuple[str, float]],
    ) -> Telescope:
        """Judge by multiples {measure: value} before and after."""
        measures = []
        for label, first in before.items():
            differs = first >= FAIR_MULTIPLE
            part = 1 - (after[label] - 1) / (first - 1) if differs else None
            measures.append(Measure(label, first, after[label], part))
        parts = [min(max(each.part, 0.0), 1.0) for each in measures if each.part is not None]
        mean = sum(parts) / len(parts) if parts else None
        verdict: Verdict = "both"
        if mean is None:
            verdict = "alike"
        elif mean >= MOSTLY_TELESCOPE:
            verdict = "telescope"
        elif mean <= MOSTLY_GALAXIES:
            verdict = "galaxies"
        return cls(done, unknown, measures, mean, verdict, remaining)


@dataclass(frozen=True)
class SetCompared(Part):
    """One set against the reference.

    `classes` counts galaxies by class; `shared` counts those left out because the reference has them too.
    """

    name: str
    path: str
    origin: str
    galaxies: int
    classes: dict[Name, int]
    unreadable: Unreadable
    shared: int
    remarks: list[str]
    realism: Realism
    variety: dict[Name, Variety | LeftOut]
    differing: list[Differing]
    telescope: Telescope | LeftOut

    def multiples(self) -> dict[str, float]:
        """Return the distances that sum up a comparison, over their floors, as far as they are known."""
        return multiples_of(self.realism.statistics.mean[ALL], self.realism.features)


def multiples_of(mean: StatisticsMean | LeftOut, features: Any) -> dict[str, float]:
    """Return {what: multiple of the floor} of the statistics' mean and of the Fréchet distance in each space."""
    found: dict[str, float] = {}
    if isinstance(mean, StatisticsMean) and mean.multiple is not None:
        found["W1 of the statistics, mean"] = mean.multiple
    for name, space in features.items():
        if not isinstance(space, LeftOut) and isinstance(space.frechet, Distance) and space.frechet.multiple:
            found[f"Fréchet, {SPACES[name].lower()}"] = space.frechet.multiple
    return found


@dataclass(frozen=True)
class Reference(Data):
    """The prepared dataset that sets are held against, and how many of its test galaxies."""

    galaxies: int
    image_size: int
    pixel_scale: float | None


@dataclass(frozen=True)
class SetsReport(Part):
    """A finished comparison of sets."""

    format_version: int
    reference: Reference
    judge: LeftOut | dict[str, Any]
    count: int
    steps: int
    seed: int
    sets: list[SetCompared]
    seconds: dict[Name, float]

    @property
    def called(self) -> str:
        """The reference's folder, for a title."""
        return PurePath(self.reference.path).name or self.reference.path

    def measures(self) -> list[str]:
        """Return the names of the distances that sum the sets up, as far as any set has them."""
        return list(dict.fromkeys(label for found in self.sets for label in found.multiples()))

    def sentences(self) -> list[tuple[str, str]]:
        """Return for each set its name and what comes of the comparison, in a sentence."""
        return [(each.name, sentence_of(each, self.reference.called)) for each in self.sets]


def sentence_of(found: SetCompared, known: str) -> str:
    """Say how far a set is from the reference, in what most, and why."""
    multiples = list(found.multiples().values())
    if not multiples:
        return f"has too few galaxies for any distance ({found.galaxies})"
    low, high = min(multiples), max(multiples)
    far = f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
    text = f"is {far} times as far from the {known} galaxies as these are from each other"
    if high < FAIR_MULTIPLE:
        return f"{text}: as good as {known}"
    names = ", ".join(each.label for each in found.differing[:3])
    text += f"; it differs most in {names}" if names else ""
    if isinstance(found.telescope, LeftOut):
        return f"{text}; whether that is the telescope cannot be told: {found.telescope.reason}"
    if found.telescope.part is None:
        return text
    away = f"{found.telescope.part:.0%} of the difference goes away with one telescope for both"
    return f"{text}; {away}: {found.telescope.said}"


_REPORT = TypeAdapter(SetsReport)


def to_plain(report: SetsReport) -> dict[str, Any]:
    """Return what sets.json holds.

    Raises
    ------
    ValueError
        If a value is none that the types allow.
    """
    plain = _REPORT.dump_python(report, by_alias=True)
    _REPORT.validate_python(plain)
    return plain
