"""What the plots draw: the report's numbers, each set of galaxies as it is named, at its place."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config_physics import ATTRIBUTES, MORPHOLOGY_NAMES
from galaxies.measure.statistics_table import STATISTICS
from galaxies.validation.report import plots
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.report.drawing import COLORS, THEMES, colors_of
from galaxies.validation.report.report_file import from_plain
from galaxies.validation.viewing import DISPLAY_VIEWER
from tests.validation.reports import old_plain

pytest.importorskip("matplotlib")
LIGHT = THEMES["light"]


@pytest.fixture(scope="module")
def report():
    return from_plain(old_plain())


@pytest.fixture(scope="module")
def pictures():
    """Galaxies of each set: planes of one grey level each, spirals and mergers, with readings."""
    rng = np.random.default_rng(0)

    def galaxies(level):
        classes = np.tile([0, 2], 8)
        values = rng.uniform(0.1, 0.2, (16, 2))
        images = torch.full((16, 3, 8, 8), level, dtype=torch.uint8) + torch.arange(16, dtype=torch.uint8).view(
            -1, 1, 1, 1
        )
        measured = {s.name: rng.normal(level, 1, 16) for s in STATISTICS}
        readings = {"photometry": {"size": values[:, 0] + 0.01}, "judge": {"size": values[:, 0] + 0.02}}
        return SimpleNamespace(
            images=images,
            classes=classes,
            values=values,
            measured=SimpleNamespace(values=measured),
            readings=lambda: readings,
        )

    sets = SimpleNamespace(real=galaxies(50), test=galaxies(100), uniform=galaxies(150))
    pairs = (torch.full((3, 3, 8, 8), 10, dtype=torch.uint8), torch.full((3, 3, 8, 8), 20, dtype=torch.uint8))
    nearest = SimpleNamespace(generated=rng.uniform(1, 2, 40), held_out=rng.uniform(3, 4, 30), pairs=pairs)
    return SimpleNamespace(
        galaxies=sets,
        nearest=nearest,
        attributes=(ATTRIBUTES["size"], ATTRIBUTES["redshift"]),
        viewer=DISPLAY_VIEWER,
    )


def words(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_samples_are_rows_of_real_and_generated_galaxies_of_each_class(report, pictures):
    axes = plots.plot_samples(report, pictures, LIGHT).axes
    assert [axis.get_ylabel() for axis in axes] == [
        f"{name}\n{kind}" for name in ("Spiral", "Merger") for kind in ("real", "generated")
    ]
    for number, axis in enumerate(axes):
        strip = axis.images[0].get_array()
        first = (100 if number % 2 else 50) + number // 2  # mergers come second
        assert strip.shape == (8, 100, 3) and list(axis.get_xticks()) == list(axis.get_yticks()) == []
        assert [strip[3, 10 * k + 4].tolist() for k in range(8)] == [[first + 2 * k] * 3 for k in range(8)]
        assert (strip[:, 8:10] == 255).all() and (strip[:, 80:] == 255).all()  # paper between them and where none is


def test_control_is_requested_against_measured(report, pictures):
    uniform = pictures.galaxies.uniform
    figure = plots.plot_control(report, pictures, LIGHT)
    assert [axis.get_title() for axis in figure.axes] == [
        f"{ATTRIBUTES['size'].label}, by judge",
        f"{ATTRIBUTES['size'].label}, by photometry",
    ]
    for axis, more in zip(figure.axes, (0.02, 0.01), strict=True):
        for index, points in enumerate(axis.collections):
            wanted = uniform.values[uniform.classes == index, 0]
            np.testing.assert_allclose(points.get_offsets(), np.stack([wanted, wanted + more], 1).reshape(-1, 2))
        ends = [uniform.values[:, 0].min(), uniform.values[:, 0].max()]
        assert np.array_equal(axis.lines[0].get_xydata(), [[end, end] for end in ends])
    unknown = SimpleNamespace(**vars(uniform) | {"values": np.full((16, 2), np.nan)})
    sets = SimpleNamespace(uniform=unknown)
    assert plots.plot_control(report, SimpleNamespace(**vars(pictures) | {"galaxies": sets}), LIGHT) is None


def test_confusion_stands_row_by_row(report, pictures):
    classes = dataclasses.replace(report.control.classes, test=LeftOut("no judge"))
    control = dataclasses.replace(report.control, classes=classes)
    figure = plots.plot_confusion(dataclasses.replace(report, control=control), pictures, LIGHT)
    assert [axis.get_title() for axis in figure.axes] == ["real test galaxies", "generated, uniform"]
    for axis, cell, asked in zip(figure.axes, (classes.real, classes.uniform), ("true", "requested"), strict=True):
        assert np.array_equal(axis.images[0].get_array(), cell.confusion)
        assert words(axis) == [f"{share:.0%}" for row in cell.confusion for share in row]
        places = [(column, row) for row in range(4) for column in range(4)]
        assert [text.get_position() for text in axis.texts] == places
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("judged", asked)
        for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
            assert [text.get_text() for text in ticks] == list(MORPHOLOGY_NAMES)


def test_multiples_stand_beside_their_statistics(report, pictures):
    (axis,) = plots.plot_multiples(report, pictures, LIGHT).axes
    assert [text.get_text() for text in axis.get_yticklabels()] == [s.label for s in STATISTICS]
    low, high = axis.get_ylim()
    assert low > high  # the first one on top
    together, edge_on = axis.collections
    table = report.realism.statistics.table
    for points, group in ((together, "all"), (edge_on, "edge-on")):
        expected = [[table[s.name][group].w1.multiple, k] for k, s in enumerate(STATISTICS)]
        np.testing.assert_allclose(points.get_offsets(), [e for e in expected if e[0]])
        assert points.get_label() == group


def test_distributions_are_those_of_the_statistic(report, pictures, monkeypatch):
    monkeypatch.setattr(plots, "statistics_of", lambda kind, bands: STATISTICS[:3])
    real, made = pictures.galaxies.real.measured.values, pictures.galaxies.test.measured.values
    constant = {STATISTICS[1].name: np.full(16, 0.5)}
    sets = (SimpleNamespace(measured=SimpleNamespace(values=values | constant)) for values in (real, made))
    galaxies = SimpleNamespace(**dict(zip(("real", "test"), sets, strict=True)))
    figure = plots.plot_distributions(report, SimpleNamespace(galaxies=galaxies), LIGHT)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == [STATISTICS[0].label, STATISTICS[2].label]
    for axis, statistic in zip(shown, (STATISTICS[0], STATISTICS[2]), strict=True):
        bars, outline = axis.patches[:30], axis.patches[30].get_xy()
        assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)  # densities
        # Real ones lie about 50, generated ones about 100.
        assert {bar.get_height() > 0 for bar in bars if bar.get_x() > 60} == {False}
        assert outline[outline[:, 1] > 0, 0].min() > 90 and axis.get_xlabel() == statistic.unit
    assert [text.get_text() for text in shown[0].get_legend().get_texts()] == ["real", "generated"]


def test_power_is_the_ratio_of_each_group_within_what_chance_gives(report, pictures):
    (axis,) = plots.plot_power(report, pictures, LIGHT).axes
    power = report.realism.power
    lines = {line.get_label(): line for line in axis.lines}
    for group in ("all", "edge-on"):
        assert np.array_equal(lines[group].get_xydata(), np.stack([power.cycles, power.groups[group].ratio], 1))
    assert not {"spiral", "elliptical", "merger"} & set(lines)
    for band, (low, high) in zip(
        axis.collections, (power.groups["all"].floor, power.groups["all"].interval), strict=True
    ):
        outline = band.get_paths()[0].vertices[:, 1]
        assert (outline.min(), outline.max()) == (min(low), max(high))


def test_damage_is_drawn_as_a_multiple_of_the_undamaged(report, pictures):
    figure = plots.plot_validation(report, pictures, LIGHT)
    checks = report.validation
    assert [axis.get_title() for axis in figure.axes] == ["blur", "noise", "one image", "a class missing"]
    for axis, (damage, entry) in zip(figure.axes, checks.damages.items(), strict=True):
        assert axis.get_xlabel() == entry.label
        for line, space, color in zip(axis.lines, checks.spaces, COLORS[:3], strict=True):
            values = np.array(checks.spaces[space][damage]["frechet"].values)
            np.testing.assert_allclose(line.get_xydata(), np.stack([entry.levels, values / values[0]], 1))
            assert (line.get_label(), line.get_color()) == (space, color)
    left_out = dataclasses.replace(report, validation=LeftOut("not asked for"))
    assert plots.plot_validation(left_out, pictures, LIGHT) is None


def test_copies_are_distances_and_the_nearest_pairs(report, pictures):
    distances, pairs = plots.plot_copies(report, pictures, LIGHT).axes
    assert [text.get_text() for text in distances.get_legend().get_texts()] == ["held-out real", "generated"]
    assert distances.patches[-1].get_xy()[:, 1][:-1].max() > 0 and list(distances.get_yticks()) == []
    shown = pairs.images[0].get_array()
    assert shown.shape == (16, 24, 3) and (shown[:8] == 10).all() and (shown[8:] == 20).all()
    assert [text.get_text() for text in pairs.get_yticklabels()] == ["generated", "training"]
    assert list(pairs.get_yticks()) == [4, 12]
    assert plots.plot_copies(report, SimpleNamespace(nearest=None), LIGHT) is None


@pytest.mark.parametrize("count", [1, 4, 5, 64])
def test_every_class_has_a_colour_of_its_own(count):
    colors = colors_of(count)
    assert len(set(colors)) == len(colors) == count
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in colors)
    assert count > 4 or colors == list(COLORS[:count])
