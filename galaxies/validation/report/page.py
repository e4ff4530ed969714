"""The validation report as one HTML file that needs nothing else: plots inside, light and dark, tables of numbers."""

from __future__ import annotations

import base64

from config_physics import MORPHOLOGIES, MORPHOLOGY_NAMES, attribute_table
from galaxies.measure.statistics_table import STATISTICS
from galaxies.validation.report.contents import ALL, Report
from galaxies.validation.report.figures import headline
from galaxies.validation.report.templates import FOLDER, render


def build_page(report: Report, plots: dict[str, dict[str, bytes]]) -> str:
    """Return the report as one HTML page.

    Parameters
    ----------
    report : Report
    plots : dict
        {plot: {theme: PNG}}, embedded.
    """
    from markupsafe import Markup  # comes with Jinja2

    return render(
        "page.html",
        report=report,
        headline=headline(report),
        plots={name: {k: base64.b64encode(png).decode() for k, png in plot.items()} for name, plot in plots.items()},
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        classes=MORPHOLOGIES,
        groups=[ALL, *MORPHOLOGY_NAMES],
        attributes=attribute_table(tuple(report.checkpoint.attributes)),
        statistics=STATISTICS,
    )
