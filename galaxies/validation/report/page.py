"""The validation report as one HTML file that needs nothing else: plots inside, light and dark, tables of numbers."""

from __future__ import annotations

import base64
import re
from collections import Counter

from galaxies.common.attributes import LEAST_R2
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS
from galaxies.validation.report.cells import ALL
from galaxies.validation.report.contents import Report
from galaxies.validation.report.figures import LEVELS, headline, in_words, level_of_multiple, verdict
from galaxies.validation.report.templates import FOLDER, render
from galaxies.validation.viewing import statistics_of

# What differs from place to place in the same reason: how many galaxies there were.
_HAS = re.compile(r",? has \d[\d,]*( real)?( and \d[\d,]*)?( generated)?$")


def build_page(report: Report, plots: dict[str, dict[str, bytes]]) -> str:
    """Return the report as one HTML page.

    Parameters
    ----------
    report : Report
    plots : dict
        {plot: {theme: PNG}}, embedded.
    """
    from markupsafe import Markup  # comes with Jinja2

    cards, rows = headline(report), report.checkpoint.rows()
    return render(
        "page.html",
        report=report,
        headline=cards,
        levels=LEVELS,
        level_of_multiple=level_of_multiple,
        notes=Notes(),
        untold=[label for row in rows if (label := in_words(row.label)) not in {card.subject for card in cards}],
        verdict=verdict(report),
        plots={name: {k: base64.b64encode(png).decode() for k, png in plot.items()} for name, plot in plots.items()},
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        classes=report.data.morphologies(),
        groups=[ALL, *report.data.classes],
        attributes=rows,
        least_told=LEAST_R2,
        morphology=MORPHOLOGY_STATISTICS,
        statistics=statistics_of(report.data.kind, report.data.bands),
    )


class Notes:
    """Reasons in the order in which they come up, each once; numbers of galaxies that were there count as the same."""

    def __init__(self) -> None:
        self._places: Counter[str] = Counter()
        self._whole: dict[str, str] = {}

    def mark(self, reason: str) -> int:
        """Return the number, from 1, of the note that says this reason."""
        rule = _HAS.sub("", reason)
        self._places[rule] += 1
        self._whole.setdefault(rule, reason)
        return list(self._places).index(rule) + 1

    def texts(self) -> list[str]:
        """Return the notes: the whole reason where it stands once, else what is alike, and in how many places."""
        return [self._whole[rule] if count == 1 else f"{rule} ({count} places)" for rule, count in self._places.items()]
