"""The plots of a comparison of sets, all sets in each, for a light and for a dark page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS
from galaxies.validation.report.cells import ALL, LeftOut
from galaxies.validation.report.drawing import (
    THEMES,
    Dots,
    Line,
    Values,
    color_of,
    draw_distributions,
    draw_multiples,
    draw_power,
    draw_strips,
    legend,
    of_multiples,
    panels,
    png_of,
)
from galaxies.validation.report.sets_contents import SetsReport
from galaxies.validation.viewing import statistics_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from galaxies.validation.set_comparison import SetsPictures
    from galaxies.validation.viewing import Viewer

_COLUMNS, _ROWS = 10, 2  # of pictures of each set
_LONGEST = 18  # letters of a name in a plot

Plot = Callable[[SetsReport, "SetsPictures", dict[str, str]], "Figure | None"]


def draw_sets(report: SetsReport, pictures: SetsPictures) -> dict[str, dict[str, bytes]]:
    """Draw every plot that there are numbers for: {plot: {theme: PNG}}."""
    drawn: dict[str, dict[str, bytes]] = {}
    for name, plot in PLOTS.items():
        for theme, colors in THEMES.items():
            figure = plot(report, pictures, colors)
            if figure is not None:
                drawn.setdefault(name, {})[theme] = png_of(figure)
    return drawn


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def _strips(viewer: Viewer, label: str, color: str, images: Tensor) -> list[tuple[str, str, np.ndarray]]:
    shown = viewer.pictures(images[: _ROWS * _COLUMNS]).permute(0, 2, 3, 1)
    return [(label if k == 0 else "", color, part.numpy()) for k, part in enumerate(shown.split(_COLUMNS))]


def plot_samples(report: SetsReport, pictures: SetsPictures, colors: dict[str, str]) -> Figure | None:
    """Show galaxies of the reference and of each set, drawn at random."""
    strips = _strips(pictures.viewer, f"reference\n({report.reference.called})", colors["ink"], pictures.real.images)
    for index, (found, galaxies) in enumerate(zip(report.sets, pictures.sets, strict=True)):
        order = torch.randperm(len(galaxies.images), generator=torch.Generator().manual_seed(report.seed))
        some = galaxies.images[order[: _ROWS * _COLUMNS]]  # the set itself is in the order of its names
        strips += _strips(pictures.viewer, _short(found.name), color_of(index), some)
    return draw_strips(strips, _COLUMNS, colors)


def plot_distances(report: SetsReport, pictures: SetsPictures, colors: dict[str, str]) -> Figure | None:
    """Draw how many times further than real from real each set is, by each distance that sums it up."""
    labels = report.measures()
    if not labels:
        return None
    figure, (axis,) = panels(1, 1, (8.4, 0.4 * len(labels) + 1.3), colors)
    for index, found in enumerate(report.sets):
        multiples = found.multiples()
        rows = [k for k, label in enumerate(labels) if label in multiples]
        values = [multiples[labels[k]] for k in rows]
        axis.scatter(values, rows, s=46, color=color_of(index), alpha=0.9, lw=0, label=_short(found.name))
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(-0.6, len(labels) - 0.4)
    of_multiples(axis, f"distance from the {report.reference.called} galaxies over theirs from each other", colors)
    legend(axis, colors, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4)
    return figure


def plot_statistics(report: SetsReport, pictures: SetsPictures, colors: dict[str, str]) -> Figure | None:
    """Draw how many times further than real from real each statistic of each set is."""
    statistics = statistics_of(report.reference.kind, report.reference.bands)
    rows = []
    morphology = all(not isinstance(found.realism.morphology, LeftOut) for found in report.sets)
    for index, found in enumerate(report.sets):
        table = dict(found.realism.statistics.table)
        if not isinstance(found.realism.morphology, LeftOut):
            table |= found.realism.morphology.table
        cells = {name: groups[ALL] for name, groups in table.items()}
        rows.append(Dots(_short(found.name), color_of(index), 30, "o", cells))
    shown = (*statistics, *(MORPHOLOGY_STATISTICS if morphology else ()))
    return draw_multiples(shown, rows, report.reference.called, "the set", colors)


def plot_distributions(report: SetsReport, pictures: SetsPictures, colors: dict[str, str]) -> Figure | None:
    """Draw the distribution of every statistic of the reference and of each set."""
    statistics = statistics_of(report.reference.kind, report.reference.bands)
    real = Values("reference", colors["real"], pictures.real.measured.values)
    others = [
        Values(_short(found.name), color_of(index), galaxies.measured.values)
        for index, (found, galaxies) in enumerate(zip(report.sets, pictures.sets, strict=True))
    ]
    return draw_distributions(statistics, real, others, colors)


def plot_power(report: SetsReport, pictures: SetsPictures, colors: dict[str, str]) -> Figure | None:
    """Draw the ratio of the power spectra of each set, with the range that chance gives."""
    lines, floor = [], None
    for index, found in enumerate(report.sets):
        cell = found.realism.power.groups[ALL]
        if not isinstance(cell, LeftOut):
            lines.append(Line(_short(found.name), color_of(index), 2.0, cell.ratio, cell.interval))
            floor = cell.floor
    if not lines:
        return None
    return draw_power(report.sets[0].realism.power, floor, lines, report.reference.called, "set", colors)


def plot_telescope(report: SetsReport, pictures: SetsPictures, colors: dict[str, str]) -> Figure | None:
    """Draw each distance before (filled) and after (open) both sets were brought to one telescope."""
    rows = [
        (index, found.name, measure)
        for index, found in enumerate(report.sets)
        if not isinstance(found.telescope, LeftOut)
        for measure in found.telescope.measures
    ]
    if not rows:
        return None
    figure, (axis,) = panels(1, 1, (8.4, 0.3 * len(rows) + 1.2), colors)
    for place, (index, _, measure) in enumerate(rows):
        color = color_of(index)
        axis.annotate(
            "",
            (max(measure.after, 0.5), place),
            (measure.before, place),
            arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.4, "shrinkA": 3, "shrinkB": 3},
        )
        axis.scatter(measure.before, place, s=38, color=color, lw=0)
        axis.scatter(max(measure.after, 0.5), place, s=34, facecolor=colors["paper"], edgecolor=color, lw=1.4, zorder=3)
    axis.set_yticks(range(len(rows)), [f"{_short(name)}: {measure.label}" for _, name, measure in rows])
    floor = f"{report.reference.called} from {report.reference.called}"
    of_multiples(axis, f"distance over that of {floor}; filled: as they are, open: as one telescope sees both", colors)
    return figure


def plot_matched(report: SetsReport, pictures: SetsPictures, colors: dict[str, str]) -> Figure | None:
    """Show galaxies of each set and of the reference as one telescope would have seen them."""
    strips: list[tuple[str, str, np.ndarray]] = []
    for index, (found, matched) in enumerate(zip(report.sets, pictures.matched, strict=True)):
        if matched is not None:
            strips += _strips(pictures.viewer, f"{_short(found.name)}\nmatched", color_of(index), matched[0])[:1]
            strips += _strips(pictures.viewer, "reference\nmatched to it", colors["ink"], matched[1])[:1]
    return draw_strips(strips, _COLUMNS, colors) if strips else None


# {name in `sets.html`: how it is drawn}
PLOTS: dict[str, Plot] = {
    "samples": plot_samples,
    "distances": plot_distances,
    "statistics": plot_statistics,
    "distributions": plot_distributions,
    "power": plot_power,
    "telescope": plot_telescope,
    "matched": plot_matched,
}
