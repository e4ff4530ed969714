"""The plots of the validation report, drawn with matplotlib for a light and for a dark page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.mergers import VISIBLE_NUCLEUS
from galaxies.validation.report.cells import ALL, LeftOut
from galaxies.validation.report.contents import Report
from galaxies.validation.report.drawing import (
    THEMES,
    Dots,
    Line,
    Values,
    color_of,
    colors_of,
    density,
    draw_distributions,
    draw_multiples,
    draw_power,
    draw_strips,
    legend,
    panels,
    png_of,
)
from galaxies.validation.viewing import statistics_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from galaxies.validation.evaluation import Pictures

_MADE = "#d9622b"  # generated galaxies
# The statistics of morphology that are drawn: name, label, and from which value on it is visible.
_SEEN = (
    ("arm_strength", "strength of arms", VISIBLE_ARMS),
    ("second_nucleus", "second nucleus", VISIBLE_NUCLEUS),
    ("shape_asymmetry", "shape asymmetry", None),
)
_MOST_COLUMNS = 6
_MOST_NAMED = 10  # classes whose names a plot has room for
_FEW = 5  # classes whose shares are read at a glance
_POINTS = 600  # of a scatter plot; more hide each other

Plot = Callable[[Report, "Pictures", dict[str, str]], "Figure | None"]


def draw_all(report: Report, pictures: Pictures) -> dict[str, dict[str, bytes]]:
    """Draw every plot that the report has the numbers for.

    Returns
    -------
    dict
        {plot: {theme: PNG}}.
    """
    drawn: dict[str, dict[str, bytes]] = {}
    for name, plot in PLOTS.items():
        for theme, colors in THEMES.items():
            figure = plot(report, pictures, colors)
            if figure is not None:
                drawn.setdefault(name, {})[theme] = png_of(figure)
    return drawn


def _group_colors(together: str, classes: Sequence[str]) -> dict[str, str]:
    """Return the colour of all galaxies together and of each class."""
    return {ALL: together} | dict(zip(classes, colors_of(len(classes)), strict=True))


def plot_samples(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Show real and generated galaxies of each class, drawn at random."""
    real, made = pictures.galaxies.real, pictures.galaxies.test
    classes = report.data.morphologies()
    present = [i for i in range(len(classes)) if (real.classes == i).any() and (made.classes == i).any()]
    if not present:
        return None
    columns = 10
    strips = []
    for row in range(2 * len(present)):
        index, galaxies = present[row // 2], made if row % 2 else real
        chosen = galaxies.images[np.flatnonzero(galaxies.classes == index)[:columns]]
        word = f"{classes[index].label}\n{'generated' if row % 2 else report.data.called}"
        images = pictures.viewer.pictures(chosen).permute(0, 2, 3, 1).numpy()
        strips.append((word, _MADE if row % 2 else colors["ink"], images))
    return draw_strips(strips, columns, colors)


def plot_control(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw requested against measured values of the uniform requests, one panel an attribute and instrument."""
    galaxies = pictures.galaxies.uniform
    shown = [
        (column, attribute, instrument, readings[attribute.name])
        for column, attribute in enumerate(pictures.attributes)
        for instrument, readings in sorted(galaxies.readings().items())  # the judge first, as in the tables
        if attribute.name in readings and np.isfinite(galaxies.values[:, column]).any()
    ]
    if not shown:
        return None
    names = report.data.classes
    figure, axes = panels(len(shown), 3, (3.7, 3.4), colors)
    for axis, (column, attribute, instrument, measured) in zip(axes, shown, strict=True):
        requested = galaxies.values[:_POINTS, column]
        for index, (name, color) in enumerate(zip(names, colors_of(len(names)), strict=True)):
            rows = np.flatnonzero(galaxies.classes[:_POINTS] == index)
            axis.scatter(requested[rows], measured[rows], s=7, color=color, alpha=0.65, lw=0, label=name)
        low, high = np.nanmin(requested), np.nanmax(requested)
        axis.plot([low, high], [low, high], color=colors["ink"], lw=1)
        if attribute.scale != "linear":
            ends = attribute.softening or 1.0
            for set_scale in (axis.set_xscale, axis.set_yscale):
                set_scale("log") if attribute.scale == "log" else set_scale("asinh", linear_width=ends)
        axis.set_title(f"{attribute.label}, by {instrument}")
        axis.set_xlabel(f"requested{f' [{attribute.unit}]' if attribute.unit else ''}")
        axis.set_ylabel("measured")
    if len(names) <= _MOST_NAMED:
        legend(axes[0], colors, handletextpad=0.1, markerscale=2)
    else:  # beside the points, which it would hide
        said = {"frameon": False, "labelcolor": colors["ink"], "fontsize": 8, "markerscale": 2}
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, **said)
    return figure


def plot_confusion(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw which class the judge sees, in real, generated and uniformly requested galaxies."""
    shown = {name: cell for name, cell in report.control.classes.items() if not isinstance(cell, LeftOut)}
    if not shown:
        return None
    names = report.data.classes
    side = max(1.0, len(names) / _MOST_NAMED)  # of many classes each has as much room
    figure, axes = panels(len(shown), 3 if side == 1 else 1, (3.7 * side, 3.4 * side), colors)
    titles = {
        "real": f"{report.data.called} test galaxies",
        "test": "generated, as the test split",
        "uniform": "generated, uniform",
    }
    for axis, (name, entry) in zip(axes, shown.items(), strict=True):
        shares = np.array(entry.confusion)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            ink = "white" if share > 0.5 else "#1d2129"
            if share >= 0.005 or len(names) <= _FEW:
                size = 9 if len(names) <= _FEW else 7
                axis.text(column, row, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=size)
        axis.set_xticks(range(len(shares)), names, rotation=20 if len(names) <= _FEW else 90)
        axis.set_yticks(range(len(shares)), names)
        axis.set_xlabel("judged")
        axis.set_ylabel("true" if name == "real" else "requested")
        axis.set_title(titles[name])
    return figure


def plot_distributions(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw the distribution of every statistic of real and generated galaxies."""
    real, made = pictures.galaxies.real.measured.values, pictures.galaxies.test.measured.values
    statistics = statistics_of(report.data.kind, report.data.bands)
    of_real = Values(report.data.called, colors["real"], real)
    return draw_distributions(statistics, of_real, [Values("generated", _MADE, made)], colors)


def plot_morphology(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw the distributions of what people see: a row for each statistic, a column for each class."""
    if isinstance(report.realism.morphology, LeftOut):
        return None
    sets = pictures.galaxies.real, pictures.galaxies.test
    names = report.data.classes[:_MOST_COLUMNS]
    figure, axes = panels(len(_SEEN) * len(names), len(names), (2.5, 1.9), colors)
    places = ((statistic, k) for statistic in _SEEN for k in range(len(names)))
    for axis, ((name, label, limit), k) in zip(axes, places, strict=True):
        both = [galaxies.measured.values[name][galaxies.classes == k] for galaxies in sets]
        both = [values[np.isfinite(values)] for values in both]
        together = np.concatenate([*both, [0.0]])
        edges = np.linspace(min(0.0, together.min()), max(np.percentile(together, 99.5), 1e-6), 26)
        density(axis, both[0], edges, color=colors["real"], alpha=0.45, label=report.data.called)
        density(axis, both[1], edges, histtype="step", color=_MADE, lw=1.5, label="generated")
        if limit is not None:
            axis.axvline(limit, color=colors["ink"], lw=0.8, ls=":")
        axis.set_title(names[k], fontsize=9)
        axis.set_yticks([])
        axis.set_xlabel(label)
    legend(axes[0], colors)
    return figure


def plot_multiples(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw how many times further than real from real galaxies each statistic of each class is."""
    table = report.realism.statistics.table
    statistics = statistics_of(report.data.kind, report.data.bands)
    rows = []
    for group, color in _group_colors(colors["ink"], report.data.classes).items():
        size, marker = (38, "D") if group == ALL else (24, "o")
        rows.append(Dots(group, color, size, marker, {name: cells[group] for name, cells in table.items()}))
    return draw_multiples(statistics, rows, report.data.called, "generated", colors)


def plot_power(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw the ratio of the power spectra, with the range that chance gives."""
    power = report.realism.power
    shown = {group: cell for group, cell in power.groups.items() if not isinstance(cell, LeftOut)}
    if not shown:
        return None
    palette = _group_colors(_MADE, report.data.classes)
    lines = [
        Line(group, palette[group], *((2.4, cell.ratio, cell.interval) if group == ALL else (1.2, cell.ratio, None)))
        for group, cell in shown.items()
    ]
    floor = shown[ALL].floor if ALL in shown else None
    return draw_power(power, floor, lines, report.data.called, "generated", colors)


def plot_validation(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw how the Fréchet distance grows with each damage in each space."""
    checks = report.validation
    if isinstance(checks, LeftOut):
        return None
    figure, axes = panels(len(checks.damages), 4, (2.9, 2.7), colors)
    for axis, (damage, entry) in zip(axes, checks.damages.items(), strict=True):
        for index, (space, cells) in enumerate(checks.spaces.items()):
            values = np.array(cells[damage]["frechet"].values)
            axis.plot(entry.levels, values / values[0], "o-", color=color_of(index), ms=4, lw=1.4, label=space)
        axis.set_yscale("log")
        axis.set_title({"single": "one image", "class": "a class missing"}.get(damage, damage))
        axis.set_xlabel(entry.label)
    axes[0].set_ylabel("Fréchet distance / undamaged")
    legend(axes[0], colors)
    return figure


def plot_copies(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw distances to the nearest training galaxy, and the nearest pairs."""
    found = pictures.nearest
    if found is None:
        return None
    figure, axes = panels(2, 2, (5.4, 2.6), colors)
    edges = np.linspace(0, np.percentile(np.concatenate([found.generated, found.held_out]), 99.5), 41)
    density(axes[0], found.held_out, edges, color=colors["real"], alpha=0.45, label=f"held-out {report.data.called}")
    density(axes[0], found.generated, edges, histtype="step", color=_MADE, lw=1.5, label="generated")
    axes[0].set_yticks([])
    axes[0].set_xlabel("distance to the nearest training galaxy [grey levels of 255]")
    legend(axes[0], colors)
    made, nearest = map(pictures.viewer.pictures, found.pairs)
    rows = [np.concatenate(list(part.permute(0, 2, 3, 1).numpy()), 1) for part in (made, nearest)]
    axes[1].imshow(np.concatenate(rows, 0), interpolation="lanczos")
    axes[1].set_xticks([])
    side = made.shape[-1]
    axes[1].set_yticks([side / 2, 1.5 * side], ["generated", "training"])
    axes[1].set_title("the nearest pairs")
    return figure


# {name in `page.html`: how it is drawn}
PLOTS: dict[str, Plot] = {
    "samples": plot_samples,
    "control": plot_control,
    "classes": plot_confusion,
    "statistics": plot_multiples,
    "distributions": plot_distributions,
    "morphology": plot_morphology,
    "power": plot_power,
    "copies": plot_copies,
    "validation": plot_validation,
}
