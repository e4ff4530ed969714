"""What a report says at a glance: the figures at the top of its page, on one scale, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from config_physics import attribute_of, attribute_table
from galaxies.validation.report.cells import ALL, Instrument, LeftOut
from galaxies.validation.report.contents import Copies, DistanceChecks, Report
from galaxies.validation.report.control import Agreement, ClassAccuracy
from galaxies.validation.report.realism import ARMS, RealOrFake, Seen, StatisticsMean

Level = Literal["good", "fair", "poor"]
LEVELS: dict[Level, str] = {"good": "can be trusted", "fair": "with care", "poor": "not to be trusted"}
# Multiples of a floor, the distance of real from real: from here on fair, and from here on poor.
FAIR_MULTIPLE, POOR_MULTIPLE = 1.2, 3.0


class Card(NamedTuple):
    """A figure of a report's top.

    Attributes
    ----------
    value, text : str
        The figure, and what it is.
    level : {"good", "fair", "poor"}
    subject : str
        What it tells of, for a sentence.
    """

    value: str
    text: str
    level: Level
    subject: str


def headline(report: Report) -> list[Card]:
    """Return the figures of a report's top; those that were left out are not among them."""
    return [card for cards in HEADLINE for card in cards(report)]


def verdict(report: Report) -> dict[Level, list[str]]:
    """Return what can be trusted, what with care, and what not: the subjects of `headline`, each once, at its worst."""
    worst: dict[str, Level] = {}
    order = list(LEVELS)
    for card in headline(report):
        worst[card.subject] = max(worst.get(card.subject, "good"), card.level, key=order.index)
    return {level: [subject for subject, found in worst.items() if found == level] for level in order}


def level_of_multiple(multiple: float | None) -> Level | None:
    """Return the level of a distance by its multiple of the floor; None where it has none."""
    return None if multiple is None else _level(-multiple, -FAIR_MULTIPLE, -POOR_MULTIPLE)


def _level(value: float, good: float, fair: float) -> Level:
    """Return the level of a value of which more is better."""
    return "good" if value >= good else "fair" if value >= fair else "poor"


def _correlations(report: Report) -> Iterator[Card]:
    """Give each attribute's rank correlation by the most independent instrument: the judge, else photometry.

    Of flux it is that of requests like real galaxies: colors, magnitude and redshift that are drawn each by itself
    contradict each other, and no galaxy could have them all. An instrument that reads real galaxies no better cannot
    tell more: 0.95 is good, or what it reaches on real ones but for 0.02. What the generator was trained to please is
    no proof, and fair at best.
    """
    like_real = report.data.is_flux
    asked = report.control.attributes.test if like_real else report.control.attributes.uniform
    own = [row for row in report.checkpoint.rows() if attribute_of(row.name) is None]
    labels = {row.name: row.label for row in attribute_table(tuple(asked), own)}
    for attribute, readings in asked.items():
        instruments: tuple[Instrument, ...] = ("judge", "photometry")
        for instrument in instruments:
            cell = readings[instrument][ALL] if instrument in readings else None
            if isinstance(cell, Agreement):
                if (found := cell.spearman.value) is not None:
                    label = in_words(labels[attribute])
                    words = f", requests like {report.data.called} galaxies" if like_real else ""
                    trained_on = instrument == "photometry" and report.photometry_was_trained_on
                    witness = f"{instrument}, which it was trained on" if trained_on else instrument
                    text = f"rank correlation of requested and measured {label}, {witness}{words}"
                    reached = min(_reached(report, attribute, instrument), 0.97)
                    level = _level(found, reached - 0.02, reached - 0.17)
                    level = "fair" if trained_on and level == "good" else level
                    yield Card(f"{found:.2f}", text, level, label)
                break


def _reached(report: Report, attribute: str, instrument: Instrument) -> float:
    """Return the rank correlation of an instrument's readings of real galaxies with their true values, 1 if unknown."""
    readings = report.control.instruments.get(attribute, {})
    cell = readings[instrument][ALL] if instrument in readings else None
    known = cell.spearman.value if isinstance(cell, Agreement) else None
    return 1.0 if known is None else known


def in_words(label: str) -> str:
    """Return a label within a sentence; the name of a band keeps its capitals."""
    # H-alpha and M20 begin with a symbol, which no sentence changes.
    return label[0].lower() + label[1:] if label[1:2].islower() else label


def _classes(report: Report) -> Iterator[Card]:
    drawn, real = report.control.classes.test, report.control.classes.real
    if len(report.data.classes) == 1:  # which everything is of
        return
    if isinstance(drawn, ClassAccuracy) and isinstance(real, ClassAccuracy):
        found, known = drawn.balanced.value, real.balanced.value
        on_true = f"{known:.0%} on {report.data.called} ones"
        text = f"of the galaxies have the class that was asked for, by the judge ({on_true})"
        yield Card(f"{found:.0%}", text, _level(found, known - 0.02, known - 0.1), "class")


def _statistics(report: Report) -> Iterator[Card]:
    mean = report.realism.statistics.mean[ALL]
    if isinstance(mean, StatisticsMean) and mean.multiple is not None:
        true = report.data.called
        text = f"distance of measured statistics, over that of {true} from {true}"
        level = level_of_multiple(mean.multiple) or "poor"
        yield Card(f"× {mean.multiple:.2g}", text, level, "measured statistics")


def _arms(report: Report) -> Iterator[Card]:
    if isinstance(report.realism.morphology, LeftOut):
        return
    cell = report.realism.morphology.seen.get(ARMS, {}).get("spiral")
    if isinstance(cell, Seen):
        made, true = cell.generated.value, cell.real.value
        text = f"of the spirals show arms ({true:.0%} of {report.data.called} ones)"
        yield Card(f"{made:.0%}", text, _level(-abs(made - true), -0.05, -0.15), "spiral arms")


def _fresh_network(report: Report) -> Iterator[Card]:
    fresh = report.realism.real_or_fake
    if isinstance(fresh, RealOrFake):
        found, area = fresh.groups[ALL].accuracy, fresh.groups[ALL].auc
        text = f"accuracy of a fresh network that tells generated from {report.data.called} ones; 50 % is guessing"
        # A network may rank well and put its limit in the wrong place: then it tells them apart all the same.
        levels = _level(-found, -0.6, -0.75), _level(-area, -0.64, -0.83)  # of two normal distributions as far apart
        yield Card(f"{found:.0%}", text, max(levels, key=list(LEVELS).index), "looks")


def _copies(report: Report) -> Iterator[Card]:
    copies = report.honesty.copies
    if isinstance(copies, Copies) and report.data.trained_on:  # elsewhere there is nothing that it could have copied
        share = copies.copies
        level = "good" if share.interval[0] <= share.expected else _level(-share.value, -0.01, -0.03)
        text = "suspected copies of training galaxies; 1 % is expected"
        yield Card(f"{share.value:.1%}", text, level, "no copies")


def _checks(report: Report) -> Iterator[Card]:
    checks = report.validation
    if isinstance(checks, DistanceChecks):
        grows = [growth.monotone for growth in checks.growths()]
        part = sum(grows) / len(grows)
        text = "checks of the distances passed"
        yield Card(f"{sum(grows)} of {len(grows)}", text, _level(part, 1.0, 0.8), "the distances themselves")


# What stands at the top, in this order; a new figure is a function that gives it, and a line here.
HEADLINE: tuple[Callable[[Report], Iterator[Card]], ...] = (
    _correlations,
    _classes,
    _statistics,
    _arms,
    _fresh_network,
    _copies,
    _checks,
)
