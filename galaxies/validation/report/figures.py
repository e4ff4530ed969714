"""What a report says at a glance: the figures at the top of its page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from config_physics import attribute_table
from galaxies.validation.report.cells import ALL
from galaxies.validation.report.contents import Copies, DistanceChecks, Report
from galaxies.validation.report.control import Agreement, ClassAccuracy
from galaxies.validation.report.realism import RealOrFake, StatisticsMean

Card = tuple[str, str]  # value and what it is


def headline(report: Report) -> list[Card]:
    """Return the figures of a report's top: (value, what it is); those that were left out are not among them."""
    return [card for cards in HEADLINE for card in cards(report)]


def _correlations(report: Report) -> Iterator[Card]:
    """Give each attribute's rank correlation by the most independent instrument: the judge, else photometry.

    Of flux it is that of requests like real galaxies: colors, magnitude and redshift that are drawn each by itself
    contradict each other, and no galaxy could have them all.
    """
    like_real = report.data.is_flux
    asked = report.control.attributes.test if like_real else report.control.attributes.uniform
    for attribute, readings in asked.items():
        for instrument in ("judge", "photometry"):
            cell = readings[instrument][ALL] if instrument in readings else None
            if isinstance(cell, Agreement):
                if cell.spearman.value is not None:
                    label = _in_words(attribute_table((attribute,))[0].label)
                    words = ", requests like real galaxies" if like_real else ""
                    text = f"rank correlation of requested and measured {label}, {instrument}{words}"
                    yield f"{cell.spearman.value:.2f}", text
                break


def _in_words(label: str) -> str:
    """Return a label within a sentence; the name of a band keeps its capitals."""
    return label[0].lower() + label[1:]


def _classes(report: Report) -> Iterator[Card]:
    drawn, real = report.control.classes.test, report.control.classes.real
    if len(report.data.classes) == 1:  # which everything is of
        return
    if isinstance(drawn, ClassAccuracy) and isinstance(real, ClassAccuracy):
        text = (
            f"of the galaxies have the class that was asked for, by the judge ({real.balanced.value:.0%} on real ones)"
        )
        yield f"{drawn.balanced.value:.0%}", text


def _statistics(report: Report) -> Iterator[Card]:
    mean = report.realism.statistics.mean[ALL]
    if isinstance(mean, StatisticsMean):
        yield f"× {mean.multiple:.2g}", "distance of measured statistics, over that of real from real"


def _fresh_network(report: Report) -> Iterator[Card]:
    fresh = report.realism.real_or_fake
    if isinstance(fresh, RealOrFake):
        yield f"{fresh.groups[ALL].accuracy:.0%}", "accuracy of a fresh real-or-fake network; 50 % is guessing"


def _copies(report: Report) -> Iterator[Card]:
    copies = report.honesty.copies
    if isinstance(copies, Copies):
        yield f"{copies.copies.value:.1%}", "suspected copies of training galaxies; 1 % is expected"


def _checks(report: Report) -> Iterator[Card]:
    checks = report.validation
    if isinstance(checks, DistanceChecks):
        grows = [growth.monotone for growth in checks.growths()]
        yield f"{sum(grows)} of {len(grows)}", "checks of the distances passed"


# What stands at the top, in this order; a new figure is a function that gives it, and a line here.
HEADLINE: tuple[Callable[[Report], Iterator[Card]], ...] = (
    _correlations,
    _classes,
    _statistics,
    _fresh_network,
    _copies,
    _checks,
)
