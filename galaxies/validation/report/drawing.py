"""What the plots of reports are drawn with: themes, panels, and the drawings that compare sets of galaxies."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from galaxies.measure.statistics_table import Statistic
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.report.realism import Power, ValuesCompared

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THEMES = {
    "light": {"paper": "#ffffff", "ink": "#1d2129", "faint": "#c9ced8", "real": "#6b7280"},
    "dark": {"paper": "#14161d", "ink": "#e2e4ec", "faint": "#3a3f4d", "real": "#9aa2b1"},
}
# After Okabe & Ito 2008: told apart by people who confuse red and green, and readable on both papers.
COLORS = ("#3b8ed0", "#e69f00", "#cc79a7", "#009e73")


def color_of(index: int) -> str:
    """Return the colour of a class, or of another thing that is told apart by its number; they come round again."""
    return COLORS[index % len(COLORS)]


def colors_of(count: int) -> list[str]:
    """Return a colour for each of so many classes: those of `COLORS`, or where there are more, hues all around."""
    if count <= len(COLORS):
        return list(COLORS[:count])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["turbo"](place)) for place in np.linspace(0.05, 0.95, count)]


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


def rgb(color: str) -> tuple[int, ...]:
    """Return the levels, 0 to 255, of a colour such as #3b8ed0."""
    return tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))


def density(axis: Axes, values: np.ndarray, edges: np.ndarray, **look: Any) -> None:
    """Draw the density of values (N,), if any of them lie between the edges: of a handful none may."""
    if ((edges[0] <= values) & (values <= edges[-1])).any():
        axis.hist(values, edges.tolist(), density=True, **look)


class Values(NamedTuple):
    """What was measured on a set, its name and its colour."""

    label: str
    color: str
    values: Mapping[str, np.ndarray]


def draw_strips(strips: Sequence[tuple[str, str, np.ndarray]], columns: int, colors: dict[str, str]) -> Figure:
    """Draw rows of pictures: label, its colour, and at most `columns` pictures (n, S, S, 3), uint8, of each."""
    figure, axes = panels(len(strips), 1, (11, 1.22), colors)
    for axis, (label, color, images) in zip(axes, strips, strict=True):
        side = images.shape[1]
        strip = np.full((side, columns * (side + 2), 3), rgb(colors["paper"]), dtype=np.uint8)
        for k, image in enumerate(images):
            strip[:, k * (side + 2) : k * (side + 2) + side] = image
        axis.imshow(strip, interpolation="lanczos")
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", color=color)
    return figure


def draw_distributions(
    statistics: Sequence[Statistic], real: Values, others: Sequence[Values], colors: dict[str, str]
) -> Figure:
    """Draw the distribution of every statistic of real galaxies, filled, and of other sets, as lines."""
    figure, axes = panels(len(statistics), 5, (2.5, 1.9), colors)
    for axis, statistic in zip(axes, statistics, strict=True):
        known = [each.values[statistic.name] for each in (real, *others)]
        known = [values[np.isfinite(values)] for values in known]
        together = np.concatenate(known)
        if min(map(len, known)) == 0 or np.ptp(together) == 0:
            axis.set_visible(False)
            continue
        edges = np.linspace(np.percentile(together, 0.5), np.percentile(together, 99.5), 31)
        if edges[0] < edges[-1]:
            density(axis, known[0], edges, color=real.color, alpha=0.45, label=real.label)
            for each, values in zip(others, known[1:], strict=True):
                density(axis, values, edges, histtype="step", color=each.color, lw=1.5, label=each.label)
        axis.set_title(statistic.label, fontsize=9)
        axis.set_yticks([])
        axis.set_xlabel(statistic.unit)
    legend(axes[0], colors)
    return figure


class Dots(NamedTuple):
    """A row of cells to draw as dots: their name, colour, size and marker, and the cells by statistic."""

    label: str
    color: str
    size: float
    marker: str
    cells: Mapping[str, ValuesCompared | LeftOut]


def draw_multiples(
    statistics: Sequence[Statistic], rows: Sequence[Dots], known: str, made: str, colors: dict[str, str]
) -> Figure:
    """Draw how many times further than real from real galaxies each statistic is, a colour a row."""
    figure, (axis,) = panels(1, 1, (8.4, 0.29 * len(statistics) + 1.2), colors)
    for row in rows:
        cells = [(k, row.cells[statistic.name]) for k, statistic in enumerate(statistics)]
        points = [(c.w1.multiple, k) for k, c in cells if not isinstance(c, LeftOut) and c.w1.multiple]
        if points:
            x, y = zip(*points, strict=True)
            axis.scatter(x, y, s=row.size, marker=row.marker, color=row.color, alpha=0.85, lw=0, label=row.label)
    axis.set_yticks(range(len(statistics)), [statistic.label for statistic in statistics])
    over = f"over that of {known} from {known} (1: as good as {known})"
    of_multiples(axis, f"Wasserstein-1 distance of {made} from {known}, {over}", colors)
    legend(axis, colors, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5)
    return figure


def of_multiples(axis: Any, label: str, colors: dict[str, str]) -> None:
    """Make an axis of rows, the first on top, with multiples of a floor along it."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.axvline(1, color=colors["ink"], lw=1)
    axis.set_xscale("log")
    axis.grid(axis="y", color=colors["faint"], lw=0.5)
    axis.set_axisbelow(True)
    axis.invert_yaxis()
    axis.set_xlabel(label)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())


class Line(NamedTuple):
    """A line of a plot of power: a ratio with its interval, and what it is called and looks like."""

    label: str
    color: str
    width: float
    ratio: Sequence[float]
    interval: tuple[Sequence[float], Sequence[float]] | None


def draw_power(
    power: Power,
    floor: tuple[Sequence[float], Sequence[float]] | None,
    lines: Sequence[Line],
    known: str,
    made: str,
    colors: dict[str, str],
) -> Figure:
    """Draw ratios of power spectra, with the range that chance gives."""
    figure, (axis,) = panels(1, 1, (8.4, 3.6), colors)
    if floor is not None:
        axis.fill_between(power.cycles, *floor, color=colors["real"], alpha=0.3, lw=0)
    for line in lines:
        if line.interval is not None:
            axis.fill_between(power.cycles, *line.interval, color=line.color, alpha=0.3, lw=0)
        axis.plot(power.cycles, line.ratio, color=line.color, lw=line.width, label=line.label)
    axis.axhline(1, color=colors["ink"], lw=0.8)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks = [1, 2, 4, 8, 16, 32]
    axis.set_xticks(ticks, ticks)
    axis.set_xlabel(f"spatial frequency [cycles a frame]; grey: two halves of the {known} galaxies")
    axis.set_ylabel(f"power, {made} / {known}")
    legend(axis, colors)
    return figure
