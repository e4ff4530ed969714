"""The plots of the validation report, drawn with matplotlib for a light and for a dark page."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.mergers import VISIBLE_NUCLEUS
from galaxies.validation.report.cells import ALL, LeftOut
from galaxies.validation.report.contents import Report
from galaxies.validation.viewing import statistics_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from galaxies.validation.evaluation import Pictures

THEMES = {
    "light": {"paper": "#ffffff", "ink": "#1d2129", "faint": "#c9ced8", "real": "#6b7280"},
    "dark": {"paper": "#14161d", "ink": "#e2e4ec", "faint": "#3a3f4d", "real": "#9aa2b1"},
}
# After Okabe & Ito 2008: told apart by people who confuse red and green, and readable on both papers.
COLORS = ("#3b8ed0", "#e69f00", "#cc79a7", "#009e73")
_MADE = "#d9622b"  # generated galaxies
# The statistics of morphology that are drawn: name, label, and from which value on it is visible.
_SEEN = (
    ("arm_strength", "strength of arms", VISIBLE_ARMS),
    ("second_nucleus", "second nucleus", VISIBLE_NUCLEUS),
    ("shape_asymmetry", "shape asymmetry", None),
)
_MOST_COLUMNS = 6
_POINTS = 600  # of a scatter plot; more hide each other

Plot = Callable[[Report, "Pictures", dict[str, str]], "Figure | None"]


def color_of(index: int) -> str:
    """Return the colour of a class, or of another thing that is told apart by its number; they come round again."""
    return COLORS[index % len(COLORS)]


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


def png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    # No date and no version in the file: the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def panels(count: int, columns: int, size: tuple[float, float], colors: dict[str, str]) -> tuple[Figure, list[Any]]:
    """Return a figure in the theme's colours and its axes, of which `count` are shown."""
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure((size[0] * columns, size[1] * rows), facecolor=colors["paper"], layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.set_visible(False)
    for axis in axes[:count]:
        axis.set_facecolor(colors["paper"])
        axis.tick_params(colors=colors["ink"], labelsize=8)
        for side, spine in axis.spines.items():
            spine.set_color(colors["faint"])
            spine.set_visible(side in ("left", "bottom"))
        axis.title.set_color(colors["ink"])
        for label in (axis.xaxis.label, axis.yaxis.label):
            label.set_color(colors["ink"])
            label.set_size(8.5)
        axis.title.set_size(10)
    return figure, axes[:count]


def legend(axis: Any, colors: dict[str, str], **options: Any) -> None:
    """Add a legend, if anything of the axis has a name."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, labelcolor=colors["ink"], fontsize=8, **options)


def _group_colors(together: str, classes: Sequence[str]) -> dict[str, str]:
    """Return the colour of all galaxies together and of each class."""
    return {ALL: together} | {name: color_of(index) for index, name in enumerate(classes)}


def plot_samples(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Show real and generated galaxies of each class, drawn at random."""
    real, made = pictures.galaxies.real, pictures.galaxies.test
    classes = report.data.morphologies()
    present = [i for i in range(len(classes)) if (real.classes == i).any() and (made.classes == i).any()]
    if not present:
        return None
    columns = 10
    figure, axes = panels(2 * len(present), 1, (11, 1.22), colors)
    for row, axis in enumerate(axes):
        index, galaxies = present[row // 2], made if row % 2 else real
        chosen = galaxies.images[np.flatnonzero(galaxies.classes == index)[:columns]]
        images = pictures.viewer.pictures(chosen).permute(0, 2, 3, 1).numpy()
        side = images.shape[1]
        strip = np.full((side, columns * (side + 2), 3), _rgb(colors["paper"]), dtype=np.uint8)
        for k, image in enumerate(images):
            strip[:, k * (side + 2) : k * (side + 2) + side] = image
        axis.imshow(strip, interpolation="lanczos")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
        word = f"{classes[index].label}\ngenerated" if row % 2 else f"{classes[index].label}\n{report.data.called}"
        axis.set_ylabel(word, rotation=0, ha="right", va="center", color=_MADE if row % 2 else colors["ink"])
    return figure


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))


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
    figure, axes = panels(len(shown), 3, (3.7, 3.4), colors)
    for axis, (column, attribute, instrument, measured) in zip(axes, shown, strict=True):
        requested = galaxies.values[:_POINTS, column]
        for index, name in enumerate(report.data.classes):
            rows = np.flatnonzero(galaxies.classes[:_POINTS] == index)
            axis.scatter(requested[rows], measured[rows], s=7, color=color_of(index), alpha=0.65, lw=0, label=name)
        low, high = np.nanmin(requested), np.nanmax(requested)
        axis.plot([low, high], [low, high], color=colors["ink"], lw=1)
        axis.set_title(f"{attribute.label}, by {instrument}")
        axis.set_xlabel(f"requested{f' [{attribute.unit}]' if attribute.unit else ''}")
        axis.set_ylabel("measured")
    legend(axes[0], colors, handletextpad=0.1, markerscale=2)
    return figure


def plot_confusion(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw which class the judge sees, in real, generated and uniformly requested galaxies."""
    shown = {name: cell for name, cell in report.control.classes.items() if not isinstance(cell, LeftOut)}
    if not shown:
        return None
    figure, axes = panels(len(shown), 3, (3.7, 3.4), colors)
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
            axis.text(column, row, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=9)
        axis.set_xticks(range(len(shares)), report.data.classes, rotation=20)
        axis.set_yticks(range(len(shares)), report.data.classes)
        axis.set_xlabel("judged")
        axis.set_ylabel("true" if name == "real" else "requested")
        axis.set_title(titles[name])
    return figure


def plot_distributions(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw the distribution of every statistic of real and generated galaxies."""
    real, made = pictures.galaxies.real.measured.values, pictures.galaxies.test.measured.values
    statistics = statistics_of(report.data.kind, report.data.bands)
    figure, axes = panels(len(statistics), 5, (2.5, 1.9), colors)
    for axis, statistic in zip(axes, statistics, strict=True):
        both = [values[statistic.name][np.isfinite(values[statistic.name])] for values in (real, made)]
        together = np.concatenate(both)
        if min(map(len, both)) == 0 or np.ptp(together) == 0:
            axis.set_visible(False)
            continue
        edges = np.linspace(np.percentile(together, 0.5), np.percentile(together, 99.5), 31)
        if edges[0] < edges[-1]:
            _density(axis, both[0], edges, color=colors["real"], alpha=0.45, label=report.data.called)
            _density(axis, both[1], edges, histtype="step", color=_MADE, lw=1.5, label="generated")
        axis.set_title(statistic.label, fontsize=9)
        axis.set_yticks([])
        axis.set_xlabel(statistic.unit)
    legend(axes[0], colors)
    return figure


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
        _density(axis, both[0], edges, color=colors["real"], alpha=0.45, label=report.data.called)
        _density(axis, both[1], edges, histtype="step", color=_MADE, lw=1.5, label="generated")
        if limit is not None:
            axis.axvline(limit, color=colors["ink"], lw=0.8, ls=":")
        axis.set_title(names[k], fontsize=9)
        axis.set_yticks([])
        axis.set_xlabel(label)
    legend(axes[0], colors)
    return figure


def plot_multiples(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw how many times further than real from real galaxies each statistic of each class is."""
    from matplotlib.ticker import LogLocator, NullLocator

    table = report.realism.statistics.table
    statistics = statistics_of(report.data.kind, report.data.bands)
    figure, (axis,) = panels(1, 1, (8.4, 0.29 * len(table) + 1.2), colors)
    for group, color in _group_colors(colors["ink"], report.data.classes).items():
        cells = [(k, table[s.name][group]) for k, s in enumerate(statistics)]
        points = [(c.w1.multiple, k) for k, c in cells if not isinstance(c, LeftOut) and c.w1.multiple]
        if points:
            x, y = zip(*points, strict=True)
            size, marker = (38, "D") if group == ALL else (24, "o")
            axis.scatter(x, y, s=size, marker=marker, color=color, alpha=0.85, lw=0, label=group)
    axis.axvline(1, color=colors["ink"], lw=1)
    axis.set_xscale("log")
    axis.set_yticks(range(len(statistics)), [s.label for s in statistics])
    axis.grid(axis="y", color=colors["faint"], lw=0.5)
    axis.set_axisbelow(True)
    axis.invert_yaxis()
    known = report.data.called
    over = f"over that of {known} from {known} (1: as good as {known})"
    axis.set_xlabel(f"Wasserstein-1 distance of generated from {known}, {over}")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    legend(axis, colors, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5)
    return figure


def plot_power(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw the ratio of the power spectra, with the range that chance gives."""
    power = report.realism.power
    shown = {group: cell for group, cell in power.groups.items() if not isinstance(cell, LeftOut)}
    if not shown:
        return None
    figure, (axis,) = panels(1, 1, (8.4, 3.6), colors)
    if ALL in shown:
        axis.fill_between(power.cycles, *shown[ALL].floor, color=colors["real"], alpha=0.3, lw=0)
        axis.fill_between(power.cycles, *shown[ALL].interval, color=_MADE, alpha=0.3, lw=0)
    palette = _group_colors(_MADE, report.data.classes)
    for group, cell in shown.items():
        axis.plot(power.cycles, cell.ratio, color=palette[group], lw=2.4 if group == ALL else 1.2, label=group)
    axis.axhline(1, color=colors["ink"], lw=0.8)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks = [1, 2, 4, 8, 16, 32]
    axis.set_xticks(ticks, ticks)
    axis.set_xlabel(f"spatial frequency [cycles a frame]; grey: two halves of the {report.data.called} galaxies")
    axis.set_ylabel(f"power, generated / {report.data.called}")
    legend(axis, colors)
    return figure


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


def _density(axis: Axes, values: np.ndarray, edges: np.ndarray, **look: Any) -> None:
    """Draw the density of values (N,), if any of them lie between the edges: of a handful none may."""
    if ((edges[0] <= values) & (values <= edges[-1])).any():
        axis.hist(values, edges.tolist(), density=True, **look)


def plot_copies(report: Report, pictures: Pictures, colors: dict[str, str]) -> Figure | None:
    """Draw distances to the nearest training galaxy, and the nearest pairs."""
    found = pictures.nearest
    if found is None:
        return None
    figure, axes = panels(2, 2, (5.4, 2.6), colors)
    edges = np.linspace(0, np.percentile(np.concatenate([found.generated, found.held_out]), 99.5), 41)
    _density(axes[0], found.held_out, edges, color=colors["real"], alpha=0.45, label=f"held-out {report.data.called}")
    _density(axes[0], found.generated, edges, histtype="step", color=_MADE, lw=1.5, label="generated")
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
