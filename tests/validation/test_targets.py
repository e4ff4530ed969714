"""The project's targets: each value by hand, both sides of each limit, and what a report has left out."""

from __future__ import annotations

import copy

import pytest

from config_physics import ATTRIBUTES
from galaxies.validation.targets import table, verdicts
from tests.validation.reports import report_of


def agreement(mae, spearman, mean, squared):
    return {
        "all": {"mae": {"value": mae}, "spearman": {"value": spearman}}
        | {"mean_requested": mean, "mean_squared_error": squared}
    }


SIZE_RANGE = ATTRIBUTES["size"].high - ATTRIBUTES["size"].low
REPORT = {
    "control": {
        "attributes": {
            "test": {
                "size": {
                    "photometry": agreement(0.01, 0.9, 0.125, 0),
                    "judge": agreement(0.02, 0.9, 0.125, 0.004 * SIZE_RANGE**2),
                },
                "brightness": {"photometry": agreement(0.02, 0.96, 0.3, 0), "judge": agreement(0.1, 0.1, 0.3, 9.0)},
                "ellipticity": {"photometry": agreement(0.06, 0.9, 0.4, 0)},
                "redshift": {},
            }
        },
        "instruments": {
            "size": {"judge": {"all": {"r2": {"value": 0.8}}}},
            "brightness": {
                "judge": {"all": {"r2": {"value": 0.1}}}
            },  # a picture does not tell it, so it does not count
            "ellipticity": {},
            "redshift": {},
        },
        "classes": {
            "test": {"all": {"value": 0.75}, "balanced": {"value": 0.69}},
            "real": {"all": {"value": 0.72}, "balanced": {"value": 0.70}},
        },
        "gaming": {
            "test": {
                "size": {"ratio": 2.2, "real_ratio": 2.0},
                "brightness": {"ratio": 2.4, "real_ratio": 2.0},
                "redshift": {"left_out": "x"},
            }
        },
    },
    "realism": {
        "statistics": {"mean": {"all": {"value": 0.05, "whole": 0.2}}},
        "features": {"judge": {"frechet": {"multiple": 1.5}}, "random": {"frechet": {"multiple": 3.0}}},
    },
    "honesty": {"copies": {"copies": {"value": 0.014, "interval": [0.007, 0.02]}}},
}


ACCURACY = "class accuracy by the judge"


def found(report=REPORT):
    return {verdict.name: verdict for verdict in verdicts(report_of(report))}


@pytest.mark.parametrize(
    "name, value, met",
    [
        ("ellipticity, photometry: MAE", 0.06, False),
        ("half-light radius, photometry: MAE over the mean", 0.08, True),
        ("brightness, photometry: Spearman", 0.96, True),
        (f"{ACCURACY}, of all galaxies: below that on real galaxies by", 0.0, True),
        (f"{ACCURACY}, mean of the classes: below that on real galaxies by", 0.01, True),
        ("size: gaming gap over that on real galaxies", 1.1, True),
        ("brightness: gaming gap over that on real galaxies", 1.2, False),
        ("mean squared error of the judge, of what a picture tells (slider ranges)", 0.004, True),
        ("mean Wasserstein-1 of the statistics, all images", 0.2, False),
        ("Fréchet distance over that of real from real, judge", 1.5, True),
        ("Fréchet distance over that of real from real, random", 3.0, False),
        ("suspected copies of training galaxies", 0.014, True),
    ],
)
def test_each_target(name, value, met):
    assert found()[name].found == pytest.approx(value)
    assert found()[name].met is met


def test_there_are_no_others():
    assert len(found()) == len(verdicts(report_of(REPORT))) == 14


def test_certain_copies_miss_the_target():
    report = copy.deepcopy(REPORT)
    report["honesty"]["copies"]["copies"]["interval"][0] = 0.011
    assert found(report)["suspected copies of training galaxies"].met is False


@pytest.mark.parametrize(("accuracy", "below", "met"), [(0.95, 0.0, True), (0.68, 0.02, True), (0.67, 0.03, False)])
def test_a_class_accuracy_may_lie_above_that_on_real_galaxies(accuracy, below, met):
    report = copy.deepcopy(REPORT)
    report["control"]["classes"]["test"]["balanced"]["value"] = accuracy
    verdict = found(report)[f"{ACCURACY}, mean of the classes: below that on real galaxies by"]
    assert verdict.found == pytest.approx(below) and verdict.met is met


def test_what_a_report_leaves_out_is_neither_met_nor_missed():
    report = copy.deepcopy(REPORT)
    report["control"]["attributes"]["test"]["size"] = {}
    report["control"]["classes"]["test"] = {"left_out": "no judge"}
    report["realism"]["statistics"]["mean"]["all"] = {"left_out": "too few"}
    report["honesty"]["copies"] = {"left_out": "too few"}
    left_out = [name for name, verdict in found(report).items() if verdict.met is None]
    assert len(left_out) == 8  # the judge's error too: size is all that it tells; and nobody looked for arms
    assert table(verdicts(report_of(report))).count("| – | left out |") == 8


def test_a_value_that_is_not_finite_is_none_and_met_by_nobody():
    report = copy.deepcopy(REPORT)
    report["control"]["attributes"]["test"]["brightness"]["photometry"]["all"]["spearman"]["value"] = None
    report["control"]["gaming"]["test"]["size"]["ratio"] = None
    report["realism"]["features"]["judge"]["frechet"]["multiple"] = None
    assert [verdict.met for verdict in verdicts(report_of(report))].count(None) == 5


def test_table():
    text = table(verdicts(report_of(REPORT)))
    assert "| ellipticity, photometry: MAE | ≤ 0.05 | 0.06 | **missed** |" in text
    assert "| brightness, photometry: Spearman | ≥ 0.95 | 0.96 | met |" in text
