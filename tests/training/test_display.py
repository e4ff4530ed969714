"""Progress bar, sample grids, curves."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from galaxies.training.display import bar_line, curves_picture, loss_curves, sample_grid
from galaxies.training.loss_terms import ADVERSARIAL, CHARTS, FURTHER, PHYSICS, PREDICTOR, Shown
from tests.training.copying_sampler import CopyingSampler

SHOWN = (
    Shown("d_loss", "D", ADVERSARIAL),
    Shown("physics", "physics", PHYSICS),
    Shown("hidden", "hidden", FURTHER, on_bar=False),
)


def records(phase, step, **values):
    return {"kind": "train", "phase": phase, "epoch": 1, "step": step, **values}


# The progress bar


def test_bar_line_shows_each_attribute():
    line = bar_line(
        {"d_loss": 0.7, "physics": 0.01, "physics_size": 0.0123, "hidden": 1.0}, SHOWN, ("size", "redshift")
    )
    assert line == "D 0.700 physics 0.010 size 0.0123"


# Which numbers are drawn where


def test_curves_of_both_phases_lie_in_their_charts():
    log = [
        records("predictor", 2, physics=0.5, physics_size=0.25),
        {**records("predictor", 4, physics=9.0), "kind": "test"},
        records("generator", 2, d_loss=1.5, physics=0.125, physics_size=0.0625, hidden=-3.0),
        records("generator", 4, d_loss=1.25, physics=0.1),
    ]
    charts = loss_curves(log, SHOWN, ("size", "redshift"))
    assert charts == {
        PREDICTOR: {"mean": ([2], [0.5]), "size": ([2], [0.25])},
        ADVERSARIAL: {"D": ([2, 4], [1.5, 1.25])},
        PHYSICS: {"physics": ([2, 4], [0.125, 0.1]), "size": ([2], [0.0625])},
        FURTHER: {"hidden": ([2], [-3.0])},
    }
    assert list(charts) == [chart for chart in CHARTS if chart in charts]


def test_what_an_axis_cannot_show_is_left_out():
    values = [math.nan, math.inf, -math.inf, 0.0, -1.0, None, 2.0]
    log = [records("generator", step, d_loss=value, physics=value) for step, value in enumerate(values)]
    charts = loss_curves(log, SHOWN, ())
    assert charts[ADVERSARIAL] == {"D": ([3, 4, 6], [0.0, -1.0, 2.0])}
    assert charts[PHYSICS] == {"physics": ([6], [2.0])}  # a logarithmic axis
    assert loss_curves(log[:3], SHOWN, ()) == {}


# The picture


def drawn(charts, title="run: training"):
    pytest.importorskip("matplotlib")
    picture = curves_picture(charts, title)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def colored(picture):
    return picture.max(2).astype(int) - picture.min(2) > 60


LINE = ([0, 1, 2], [0.5, 0.7, 0.6])


def test_more_charts_make_a_taller_picture():
    one, two = drawn({ADVERSARIAL: {"D": LINE}}), drawn({ADVERSARIAL: {"D": LINE}, PHYSICS: {"size": LINE}})
    assert two.shape[0] > 1.5 * one.shape[0]
    assert two.shape[1] == one.shape[1]


def test_curves_follow_their_values():
    rising, falling = (drawn({ADVERSARIAL: {"D": ([0, 1], values)}}) for values in ([0.0, 1.0], [1.0, 0.0]))
    rows, columns = np.nonzero(colored(rising)[:, : int(0.8 * rising.shape[1])])  # without the legend
    left = columns < np.median(columns)
    assert rows[left].mean() > rows[~left].mean() + 50  # rows are counted from the top
    rows, columns = np.nonzero(colored(falling)[:, : int(0.8 * rising.shape[1])])
    left = columns < np.median(columns)
    assert rows[left].mean() < rows[~left].mean() - 50


def test_every_curve_has_a_color_of_its_own_and_a_name():
    names = [f"curve {k}" for k in range(6)]
    curves = {name: (LINE[0], [k + 1.0] * 3) for k, name in enumerate(names)}
    picture = drawn({ADVERSARIAL: curves})
    left, right = np.split(picture, [int(0.85 * picture.shape[1])], axis=1)

    def hues(part):
        found, counts = np.unique(part[colored(part)], axis=0, return_counts=True)
        return {tuple(color) for color, count in zip(found.tolist(), counts, strict=True) if count > 20}

    assert len(hues(left)) == 6
    assert hues(left) == hues(right)


@pytest.mark.parametrize("chart", [ADVERSARIAL, PHYSICS])
@pytest.mark.parametrize("value", [0.3, 1e-12, 1e12])
def test_constant_curves(chart, value):
    picture = drawn({chart: {"D": ([0, 1, 2], [value] * 3)}})
    # A level line that crosses most of the chart.
    assert colored(picture).sum(1).max() > picture.shape[1] / 3


def test_a_single_point_is_seen():
    picture = drawn({PHYSICS: {"size": ([3], [0.5])}})
    assert colored(picture)[:, : int(0.8 * picture.shape[1])].any()


def test_long_curves_are_smoothed():
    steps = list(range(4000))
    noisy = drawn({ADVERSARIAL: {"D": (steps, [1.0 + 0.5 * (-1) ** step for step in steps])}})
    level = drawn({ADVERSARIAL: {"D": (steps, [1.0] * len(steps))}})
    # The bold line of what alternates lies still: one row is as full as that of a level curve.
    assert colored(noisy).sum(1).max() == pytest.approx(colored(level).sum(1).max(), rel=0.05)


def test_a_few_wild_steps_do_not_flatten_the_rest():
    values = [1e6] + [0.5 + 0.4 * (step % 2) for step in range(999)]
    picture = drawn({ADVERSARIAL: {"D": (list(range(1000)), values)}})
    rows = np.nonzero(colored(picture)[:, : int(0.8 * picture.shape[1])].any(1))[0]
    assert np.ptp(rows) > picture.shape[0] / 4


def test_huge_and_tiny_values_together():
    assert colored(drawn({ADVERSARIAL: {"D": ([0, 1, 2], [1e-30, 1e30, -1e30])}})).any()
    assert colored(drawn({PHYSICS: {"size": ([0, 1, 2], [1e-30, 1e30, 1.0])}})).any()


def test_the_title_is_drawn():
    charts = {ADVERSARIAL: {"D": LINE}}
    assert (drawn(charts, "one") != drawn(charts, "two")).any()


def test_no_curves_at_all():
    assert drawn({}).size > 0


def test_drawing_leaves_the_process_as_it_was():
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    drawn({ADVERSARIAL: {"D": LINE}})
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_it_says_which_command_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert curves_picture({ADVERSARIAL: {"D": LINE}}, "run") is None
    assert capsys.readouterr().out.count("python -m pip install matplotlib") == 1


# Sample grids


def test_grid_has_a_row_for_each_class_and_each_known_attribute(data):
    full, unknown = (CopyingSampler(data, ("size", "ellipticity")) for _ in range(2))
    unknown.supported = [[limits[0], None] for limits in unknown.supported]
    heights = [sample_grid(sampler, "test").height for sampler in (full, unknown)]
    row = 128 + 4 + 18
    assert heights[0] - heights[1] == row
    assert heights[0] == 34 + 4 * (128 + 4) + 2 * row + 4
