"""Metrics file, health warnings, diversity."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from config_physics import Config
from conftest import render_galaxies
from monitoring import (
    MetricsLog,
    bar_line,
    collapse_warnings,
    curves_picture,
    diversity,
    health_warnings,
    label_entropy,
    read_metrics,
)

CONFIG = Config()


def healthy(**changes: float) -> dict[str, float]:
    return {"d_loss": 0.9, "physics_size": 0.01, **changes}


def test_label_entropy_by_hand():
    assert label_entropy(0.9) == pytest.approx(0.3250829)
    assert label_entropy(1.0) == 0


def test_healthy_epoch_has_no_warning():
    assert health_warnings(healthy(), CONFIG, {"size": 0.03}) == {}


@pytest.mark.parametrize(
    "change, kind",
    [
        ({"d_loss": 0.651}, "discriminator_wins"),
        ({"d_loss": 1.40}, "discriminator_loses"),
        ({"physics_size": 0.05}, "no_control_size"),
    ],
)
def test_each_warning_fires_alone(change, kind):
    assert list(health_warnings(healthy(**change), CONFIG, {"size": 0.03})) == [kind]


def test_limits_follow_the_labels():
    hard = Config(real_label=1.0, fake_label=0.0)
    assert health_warnings(healthy(d_loss=0.6), hard, {}) == {}
    assert "discriminator_wins" in health_warnings(healthy(d_loss=0.01), hard, {})


def test_attribute_without_variance_or_value_is_not_judged():
    assert health_warnings(healthy(), CONFIG, {"size": 0.0, "redshift": 0.1}) == {}


def test_diversity_of_copies_is_zero_and_of_galaxies_is_not():
    images = torch.from_numpy(render_galaxies(8)[0])
    assert diversity(images[:1].repeat(8, 1, 1, 1)) < 1e-6
    assert diversity(images) > 0.1
    assert math.isnan(diversity(images[:1]))


def test_collapse_warning_names_the_class():
    warnings = collapse_warnings({"diversity_merger": 0.2, "diversity_spiral": 0.9, "unmeasurable": 0.0})
    assert list(warnings) == ["collapse_merger"]
    assert "merger galaxies vary 0.20 times" in warnings["collapse_merger"]


def test_log_appends_and_reads_back(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    for step in (2, 4):
        log.write({"kind": "train", "phase": "predictor", "step": step})
    assert [r["step"] for r in read_metrics(log.path)] == [2, 4]


def test_log_drops_what_will_be_repeated(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [("predictor", 9), ("generator", 2), ("generator", 4)]
    path.write_text("".join(json.dumps({"phase": p, "step": s}) + "\n" for p, s in lines) + '{"phase": "gen')
    MetricsLog(path).drop_after("generator", 2)
    assert [(r["phase"], r["step"]) for r in read_metrics(path)] == lines[:2]


def test_bar_line_shows_each_attribute():
    line = bar_line({"d_loss": 0.7, "physics": 0.01, "physics_size": 0.0123}, ("size", "redshift"))
    assert line == "D 0.700 physics 0.010 size 0.0123"


def test_curves_are_drawn_from_the_file(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 20):
        log.write({"kind": "train", "phase": "predictor", "step": step, "physics": 1 / step, "physics_size": 1 / step})
        log.write(
            {"kind": "train", "phase": "generator", "step": step, "d_loss": 1.0, "g_adversarial": 2.0, "physics": 0.1}
            | {"d_real": 0.8, "d_fake": 0.2}
        )
    picture = np.asarray(curves_picture(log.path, ("size",), "test"))
    background = picture[-1, -1]
    assert (picture != background).any(2).mean() > 0.005
