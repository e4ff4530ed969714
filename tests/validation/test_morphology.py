"""Arms and nuclei in the report: shares and distances of made-up galaxies, its page, its targets, and older reports."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config_physics import MORPHOLOGY_NAMES
from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.flux_morphology import levels_of_flux, measure_flux_morphology
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, STATISTIC_NAMES
from galaxies.validation.comparison import groups_of
from galaxies.validation.morphology import compare_morphology, of_visible
from galaxies.validation.report import plots
from galaxies.validation.report.cells import LeftOut, Share
from galaxies.validation.report.page import build_page
from galaxies.validation.report.realism import ARMS, NUCLEUS, Morphology, Seen, ValuesCompared
from galaxies.validation.report.report_file import from_plain, to_plain
from galaxies.validation.targets import verdicts
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer
from tests.measure.spirals import spiral
from tests.validation.report.test_page import Tables
from tests.validation.reports import old_plain


def galaxies(visible, count=80, nuclei=0.0, seed=0):
    """Return values of galaxies, of which a part has arms and a part of the mergers a second nucleus; and classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % 4
    values = {s.name: rng.normal(0.02, 0.005, count) for s in MORPHOLOGY_STATISTICS}
    spirals = np.flatnonzero(classes == 0)
    values["arm_strength"][spirals[: round(visible * len(spirals))]] += 0.2
    values["second_nucleus"][np.flatnonzero(classes == 2)[: round(nuclei * count / 4)]] += 0.5
    values["arm_count"] = rng.integers(1, 4, count).astype(float)
    values["pitch"] = rng.uniform(12, 55, count) * rng.choice([-1, 1], count)
    return values, classes


@pytest.fixture(scope="module")
def compared():
    (made, made_classes), (real, real_classes) = galaxies(0.25), galaxies(0.75, count=160, nuclei=0.5, seed=1)
    real["arm_strength"][0] = np.nan  # a spiral with arms in which no galaxy was found
    return compare_morphology(made, real, groups_of(made_classes, real_classes), 0)


def test_shares_of_visible_arms_and_nuclei(compared):
    arms = compared.seen[ARMS]["spiral"]
    assert (arms.generated.value, arms.generated.images) == (0.25, 20)
    assert (arms.real.value, arms.real.images) == (pytest.approx(29 / 39), 39)
    assert arms.difference == pytest.approx(0.25 - 29 / 39)
    # The difference of two binomial shares.
    error = np.sqrt(0.25 * 0.75 / 20 + (29 / 39) * (10 / 39) / 39)
    np.testing.assert_allclose(arms.interval, arms.difference + 1.96 * error * np.array([-1, 1]))
    assert arms.real.interval[0] < arms.real.value < arms.real.interval[1]
    assert compared.seen[NUCLEUS]["merger"].difference == pytest.approx(-0.5)
    assert compared.seen[NUCLEUS]["spiral"].difference == 0
    assert compared.seen[ARMS]["all"].generated.value == pytest.approx(5 / 80)
    assert set(compared.seen[ARMS]) == {"all", *MORPHOLOGY_NAMES}
    assert compared.difference(ARMS, "spiral") == arms.difference and compared.difference(ARMS, "disc") is None


def test_distributions_stand_against_their_floor(compared):
    assert list(compared.table) == [s.name for s in MORPHOLOGY_STATISTICS]
    cell = compared.table["arm_strength"]["spiral"]
    assert isinstance(cell, ValuesCompared) and cell.w1.multiple > 2
    assert compared.multiple("arm_strength", "spiral") == cell.w1.multiple
    assert compared.multiple("arm_strength", "elliptical") < 2
    # Of ellipticals none has arms, whose number and pitch could be compared.
    assert isinstance(compared.table["arm_count"]["elliptical"], LeftOut)
    assert compared.multiple("arm_count", "elliptical") is None


def test_number_and_pitch_are_those_of_visible_arms_whichever_way_they_wind():
    values = {s.name: np.array([1.0, -2.0, np.nan]) for s in MORPHOLOGY_STATISTICS}
    values |= {"arm_strength": np.array([VISIBLE_ARMS / 2, 2 * VISIBLE_ARMS, np.nan])}
    seen = of_visible(values)
    np.testing.assert_array_equal(seen["pitch"], [np.nan, 2, np.nan])
    np.testing.assert_array_equal(seen["second_nucleus"], [1, -2, np.nan])


def test_too_few_galaxies_have_no_share():
    values, classes = galaxies(0.5, count=36)
    seen = compare_morphology(values, values, groups_of(classes, classes), 0).seen[ARMS]
    assert isinstance(seen["spiral"], LeftOut) and "needs 10 galaxies" in seen["spiral"].reason
    assert seen["all"].difference == 0
    values, classes = galaxies(0.5, count=40)  # ten of each are enough
    seen = compare_morphology(values, values, groups_of(classes, classes), 0).seen[ARMS]
    assert seen["spiral"].generated.value == 0.5


def test_what_just_reaches_the_threshold_is_not_seen():
    values, classes = galaxies(0.0, count=40)
    values["arm_strength"][classes == 0] = VISIBLE_ARMS
    assert compare_morphology(values, values, groups_of(classes, classes), 0).seen[ARMS]["spiral"].real.value == 0


# The report


@pytest.fixture
def report(compared):
    report = from_plain(old_plain())
    return dataclasses.replace(report, realism=dataclasses.replace(report.realism, morphology=compared))


def test_older_reports_are_read_and_say_that_nobody_looked(report):
    plain = to_plain(report) | {"format_version": 3}
    plain["realism"] = {name: part for name, part in plain["realism"].items() if name != "morphology"}
    old = from_plain(plain)
    assert isinstance(old.realism.morphology, LeftOut) and old.realism.statistics == report.realism.statistics
    assert old.figures()["visible arms, spiral: generated less real"] is None
    assert set(old.figures()) == set(report.figures())
    assert "before arms and second nuclei were measured" in build_page(old, {})
    assert plots.plot_morphology(old, SimpleNamespace(), plots.THEMES["light"]) is None


def test_a_report_with_arms_is_written_and_read(report, compared):
    assert from_plain(json.loads(json.dumps(to_plain(report), allow_nan=False))) == report
    figures = report.figures()
    assert figures["visible arms, spiral: generated less real"] == compared.seen[ARMS]["spiral"].difference
    assert figures["second nucleus, merger: generated less real"] == pytest.approx(-0.5)
    assert figures["arm_strength, spiral: W1 / floor"] == compared.multiple("arm_strength", "spiral")


def test_targets_of_arms(report):
    def found(difference):
        share = Share(0.5, (0.4, 0.6), 90)
        seen = {ARMS: {"spiral": Seen(share, share, difference, (-0.1, 0.1))}}
        morphology = Morphology(report.realism.morphology.table, seen)
        changed = dataclasses.replace(report.realism, morphology=morphology)
        return {v.name: v for v in verdicts(dataclasses.replace(report, realism=changed))}

    name = "spirals with visible arms: distance from the share of real ones"
    assert [found(d)[name].met for d in (-0.06, -0.04, 0.04, 0.06)] == [False, True, True, False]
    assert found(-0.06)[name].found == 0.06
    distance = found(0)["strength of spirals' arms: W1 over that of real from real"]
    assert distance.met is False and distance.found == report.realism.morphology.multiple("arm_strength", "spiral")
    discs = dataclasses.replace(report, data=dataclasses.replace(report.data, classes=["disc", "early-type"]))
    assert not [v for v in verdicts(discs) if "arms" in v.name]


def test_the_page_shows_shares_and_distances(report):
    cells = Tables(build_page(report, {})).cells
    head = "share that shows"
    assert cells[head, "visible arms, generated"]["spiral"].startswith("25%")
    assert cells[head, "visible arms, real"]["spiral"].startswith("74%")
    assert cells[head, "second nucleus, real"]["merger"].startswith("50%")
    assert cells[head, "second nucleus, points more"]["merger"].startswith("-50.0")
    row = cells["× floor, W1", "Strength of arms"]
    assert row["spiral"].startswith(f"× {report.realism.morphology.multiple('arm_strength', 'spiral'):.3g}")


def test_distributions_are_drawn_by_class(report):
    pytest.importorskip("matplotlib")
    sets = {}
    for name, seen in (("real", 0.75), ("test", 0.25)):
        values, classes = galaxies(seen)
        sets[name] = SimpleNamespace(measured=SimpleNamespace(values=values), classes=classes)
    figure = plots.plot_morphology(report, SimpleNamespace(galaxies=SimpleNamespace(**sets)), plots.THEMES["light"])
    assert [axis.get_title() for axis in figure.axes] == 3 * list(MORPHOLOGY_NAMES)
    assert figure.axes[0].lines[0].get_xdata()[0] == VISIBLE_ARMS
    strongest = {name: sets[name].measured.values["arm_strength"][sets[name].classes == 0].max() for name in sets}
    outline = figure.axes[0].patches[-1].get_xy()
    assert outline[outline[:, 1] > 0, 0].max() == pytest.approx(strongest["test"], abs=0.02)


# What is measured for it


def test_pictures_are_measured_once_for_statistics_and_morphology():
    image = (255 * spiral(2)).round().clamp(0, 255).to(torch.uint8)[None]
    measured = DISPLAY_VIEWER.measure(image, morphology=True)
    assert list(measured.values) == [*STATISTIC_NAMES, *(s.name for s in MORPHOLOGY_STATISTICS)]
    assert DISPLAY_VIEWER.table(measured).shape == (1, len(STATISTIC_NAMES))
    assert measured.values["arm_strength"][0] > VISIBLE_ARMS and measured.values["arm_count"][0] == 2


def test_arms_are_read_in_flux_of_any_unit_and_band():
    layout = DataLayout("flux", (FluxBand("g"), FluxBand("r")), ("disc",))
    viewer = Viewer(layout, (0.1, 0.1), 0.2, (0.0, 0.0))
    picture = spiral(3, 24, inclination=30) - 0.05
    flux = 7 * torch.stack([picture[0], 3 * picture[1] + 0.2])[None]  # a sky was left in
    measured = viewer.measure(flux, morphology=True)
    assert measured.values["arm_count"][0] == 3 and measured.values["arm_strength"][0] > VISIBLE_ARMS
    assert measured.values["pitch"][0] == pytest.approx(24, abs=4)
    assert "arm_strength" not in viewer.measure(flux).values
    other = viewer.measure(1e-4 * flux, morphology=True)
    for statistic in MORPHOLOGY_STATISTICS:
        assert other.values[statistic.name][0] == pytest.approx(measured.values[statistic.name][0], rel=1e-3, abs=1e-4)
    levels = levels_of_flux(flux)
    assert levels.shape == (1, 3, 64, 64)
    corners = torch.stack([levels[0, 0, y : y + 12, x : x + 12] for y in (0, 52) for x in (0, 52)])
    assert corners.std() == pytest.approx(0.01, rel=0.15)  # of 576 pixels, whose deviation is known to 3 %
    flux[0, 0, 5:9, 5:9] = torch.nan
    assert torch.isfinite(measure_flux_morphology(flux)).all()
