"""What a run shows of itself: sample grids, curves of its losses, and the progress bar."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from galaxies.generation.sampler import GalaxySampler
from galaxies.images.composites import pictures_of_run
from galaxies.images.grids import labelled_grid
from galaxies.training.loss_terms import (
    ADVERSARIAL,
    CHARTS,
    DENOISING,
    FURTHER,
    PHYSICS,
    PREDICTOR,
    PROBABILITY,
    Shown,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID_COLUMNS = 8

# How the charts of the curves are drawn: label of the y axis, and whether it is logarithmic, as errors fall by powers.
_AXES = {
    PREDICTOR: ("squared error (scaled)", True),
    ADVERSARIAL: ("loss", False),
    PROBABILITY: ("probability", False),
    DENOISING: ("loss", True),
    PHYSICS: ("squared error (scaled)", True),
    FURTHER: ("loss", False),
}
_INK, _FAINT, _GRID, _PAPER = "#e2e4ec", "#9a9fb0", "#262834", "#0d0e14"  # as sample grids
_COLORS = ("#66c2ff", "#ffaa5a", "#8cdc82", "#f07896", "#c8a0ff", "#f0dc6e", "#5fd6c4", "#d9a68c")
_SMOOTHED_OVER = 40  # a bold line is the mean over this part of a curve, once the curve has as many points

Curves = dict[str, tuple[list[float], list[float]]]  # {label: (steps, values)}


def sample_grid(sampler: GalaxySampler, title: str) -> Image.Image:
    """Draw a grid from fixed noise: a row for each class, then a row sweeping each attribute.

    Class rows show requests taken from real galaxies. A sweep changes one attribute of one spiral (or of the
    first class there is) over its supported range, with the noise and everything else held. Flux is shown as pictures
    of three of its bands.
    """
    population, morphologies = sampler.population, sampler.config.morphologies
    picture = pictures_of_run(sampler.config)
    present = [i for i in range(len(morphologies)) if len(population.members(i))]
    seeds = list(range(_GRID_COLUMNS))
    unset = torch.full((len(sampler.attributes),), math.nan)
    rows: list[Tensor] = []
    labels: list[str] = []
    captions: list[Sequence[str]] = []
    for index in present:
        values = torch.stack([sampler.complete(index, unset, seed) for seed in seeds])
        rows.append(picture(sampler.generate(torch.full((len(seeds),), index), values, seeds)))
        labels.append(morphologies[index].label)
        captions.append(())
    swept_class = present[0]
    typical = population.members(swept_class).nanmedian(0).values
    for column, attribute in enumerate(sampler.attributes):
        limits = sampler.supported[swept_class][column]
        if limits is None:
            continue
        values = typical.repeat(len(seeds), 1)
        low, high = (float(attribute.steps_of(limit)) for limit in limits)
        values[:, column] = attribute.value_of(torch.linspace(low, high, len(seeds)))
        rows.append(picture(sampler.generate(torch.full((len(seeds),), swept_class), values, [0] * len(seeds))))
        labels.append(f"{attribute.label}\n{attribute.unit or morphologies[swept_class].name}")
        captions.append([f"{value:.3g}" for value in values[:, column].tolist()])
    return labelled_grid(rows, labels, captions, title)


def loss_curves(
    records: Sequence[dict[str, Any]], shown: Iterable[Shown], attributes: Iterable[str]
) -> dict[str, Curves]:
    """Sort the numbers of a metrics file into charts.

    Parameters
    ----------
    records : sequence of dict
        As `metrics_log.read_metrics` returns them.
    shown : iterable of Shown
        Of the generator's phase.
    attributes : iterable of str
        Those whose squared errors are drawn beside their mean.

    Returns
    -------
    dict of {chart: {label: (steps, values)}}
        In the order of `CHARTS`; only finite values, on logarithmic axes only positive ones, and no empty charts.
    """
    each = [(f"physics_{name}", name) for name in attributes]
    # Attributes come first, so that each has the same colour in both phases.
    wanted = [("predictor", PREDICTOR, key, label) for key, label in [*each, ("physics", "mean")]]
    wanted += [("generator", PHYSICS, key, label) for key, label in each]
    wanted += [("generator", s.chart, s.key, s.label) for s in shown if s.chart]
    charts: dict[str, Curves] = {chart: {} for chart in CHARTS}
    for phase, chart, key, label in wanted:
        least = 0.0 if _AXES[chart][1] else -math.inf
        points = [
            (record["step"], float(record[key]))
            for record in records
            if record["kind"] == "train" and record["phase"] == phase and record.get(key) is not None
        ]
        points = [(step, value) for step, value in points if least < value < math.inf]
        if points:
            steps, values = zip(*points, strict=True)
            charts[chart][label] = (list(steps), list(values))
    return {chart: curves for chart, curves in charts.items() if curves}


def curves_picture(charts: dict[str, Curves], title: str) -> Image.Image | None:
    """Draw charts of `loss_curves` below each other; without matplotlib say how to get it, and return None."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure  # not pyplot, which keeps figures and picks a window system
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        tqdm.write("the curves are not drawn without matplotlib: python -m pip install matplotlib installs it")
        return None
    figure = Figure(
        (9.6, 0.6 + 2.5 * len(charts)),
        dpi=150,
        facecolor=_PAPER,
        layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12),
    )
    figure.suptitle(title, x=0.015, ha="left", color=_INK, fontsize=12)
    for index, (chart, curves) in enumerate(charts.items()):
        axes = figure.add_subplot(len(charts), 1, index + 1, facecolor=_PAPER)
        _draw_chart(axes, chart, curves)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _draw_chart(axes: Axes, chart: str, curves: Curves) -> None:
    """Draw the lines of one chart, with their names at the right."""
    label, logarithmic = _AXES[chart]
    for index, (name, (steps, values)) in enumerate(curves.items()):
        style: dict[str, Any] = {
            "color": _COLORS[index % len(_COLORS)],
            "linestyle": "-" if index < len(_COLORS) else "--",
        }
        width = len(values) // _SMOOTHED_OVER
        if width > 1:  # every value faintly, and their running mean
            axes.plot(steps, values, **style, linewidth=0.7, alpha=0.35)
            steps, values = (_running_mean(part, width) for part in (steps, values))
        axes.plot(steps, values, **style, linewidth=1.6, label=name, marker="o" if len(values) == 1 else None)
    everything = np.concatenate([values for _, values in curves.values()])
    if logarithmic:
        axes.set_yscale("log")
    elif chart == PROBABILITY:
        axes.set_ylim(0, 1)
    else:  # a few wild first steps must not flatten the rest: the top 1 % may leave the chart
        low, high = min(0.0, everything.min()), np.quantile(everything, 0.99)
        axes.set_ylim(low, low + 1.08 * (high - low) if high > low else low + 1)
    axes.set_title(chart, loc="left", color=_INK, fontsize=10)
    axes.set_xlabel("step", color=_FAINT, fontsize=8)
    axes.set_ylabel(label, color=_FAINT, fontsize=8)
    axes.margins(x=0)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=_FAINT, labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.005, 1.03),
        frameon=False,
        labelcolor="linecolor",
        fontsize=8,
        handlelength=1.2,
    )


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """Return the means of each `width` successive values."""
    return np.convolve(values, np.full(width, 1 / width), "valid").tolist()


class TrainingBar(contextlib.AbstractContextManager["TrainingBar"]):
    """A bar that counts images, with the losses beside it.

    A terminal has a second line for the losses, which are too long for the bar's; a log file has one line.

    Parameters
    ----------
    label : str
    done, total : int
        Images so far and in all.
    quiet : bool
        Show nothing.
    """

    def __init__(self, label: str, done: int, total: int, quiet: bool) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5 if self._is_terminal else 30,
            desc=label,
            disable=quiet,
        )
        self._losses = tqdm(
            bar_format="{desc}", position=1, dynamic_ncols=True, leave=False, disable=quiet or not self._is_terminal
        )

    def advance(self, count: int) -> None:
        """Count images."""
        self._bar.update(count)

    def say(self, epoch: str, losses: str) -> None:
        """Show the epoch and the losses."""
        self._bar.set_postfix_str(epoch if self._is_terminal else f"{epoch} {losses}", refresh=False)
        self._losses.set_description_str(losses)

    def __exit__(self, *_: object) -> None:
        self._losses.close()
        self._bar.close()


def bar_line(record: dict[str, Any], shown: Iterable[Shown], attributes: Iterable[str]) -> str:
    """Say the newest metrics in one line for the progress bar."""
    parts = [f"{s.label} {record[s.key]:.3f}" for s in shown if s.on_bar and record.get(s.key)]
    known = [(name, record.get(f"physics_{name}")) for name in attributes]
    parts += [f"{name} {error:.4f}" for name, error in known if error is not None]
    return " ".join(parts)
