"""The validation report as one HTML file that needs nothing else: plots inside, light and dark, tables of numbers."""

from __future__ import annotations

import base64

from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS
from galaxies.validation.report.cells import ALL
from galaxies.validation.report.contents import Report
from galaxies.validation.report.figures import LEVELS, headline, in_words, level_of_multiple, verdict
from galaxies.validation.report.notes import Notes
from galaxies.validation.report.templates import FOLDER, render
from galaxies.validation.viewing import statistics_of


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
        morphology=MORPHOLOGY_STATISTICS,
        statistics=statistics_of(report.data.kind, report.data.bands),
    )
