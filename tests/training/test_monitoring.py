"""Metrics file, health warnings, diversity."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from config_physics import Config, attribute_table
from galaxies.datasets.population import Population
from galaxies.measure.image_statistics import diversity
from galaxies.storage.metrics_log import MetricsLog, read_metrics
from galaxies.training.monitoring import (
    bar_line,
    check_samples,
    collapse_warnings,
    curves_picture,
    discriminator_limits,
    evaluate_predictor,
    health_warnings,
    label_entropy,
    sample_grid,
)
from gan_model import discriminator_loss, relativistic_loss
from tests.conftest import render_galaxies

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


def test_limits_of_pairs():
    pairs = Config(adversarial="relativistic")
    # One that finds no difference pays ln 2, whatever the labels; sure ones may come close to nothing.
    assert health_warnings(healthy(d_loss=math.log(2) - 1e-3), pairs, {}) == {}
    assert health_warnings(healthy(d_loss=0.1), pairs, {}) == {}
    assert list(health_warnings(healthy(d_loss=0.01), pairs, {})) == ["discriminator_wins"]
    assert list(health_warnings(healthy(d_loss=0.70), pairs, {})) == ["discriminator_loses"]


def test_limits_are_what_the_losses_give():
    sure, guess = torch.full((4,), 40.0), torch.zeros(4)
    for adversarial in ("bce", "relativistic"):
        floor, guessing = discriminator_limits(Config(adversarial=adversarial))
        if adversarial == "bce":
            label = torch.full((4,), math.log(9.0))
            found = [sum(discriminator_loss(x, -x, 0.9, 0.1)).item() for x in (label, guess)]
        else:
            found = [relativistic_loss(x, -x).item() for x in (sure, guess)]
        assert found == pytest.approx([floor, guessing], abs=1e-5)


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


class CopyingSampler:
    """A sampler whose images are the real galaxies that the requests were taken from."""

    def __init__(self, data, attributes):
        rows = np.arange(len(data.images))
        self.attributes = attribute_table(attributes)
        self.images = torch.from_numpy(data.images[rows])
        self.population = Population(
            torch.from_numpy(data.classes(rows)), torch.from_numpy(data.attributes(attributes, rows))
        )
        self.supported = [[self.population.supported_range(c, a) for a in range(len(attributes))] for c in range(4)]

    def complete(self, class_index, requested, seed):
        return self.population.draw(torch.tensor([class_index]), requested[None], [seed])[0]

    def generate(self, classes, values, seeds):
        table = self.population.values.nan_to_num(nan=-1)
        nearest = [int((table - v.nan_to_num(nan=-1)).abs().sum(1).argmin()) for v in values]
        return self.images[nearest]


def test_check_of_perfect_galaxies_finds_no_error(data):
    sampler = CopyingSampler(data, ("size", "ellipticity", "redshift"))
    real = {c: sampler.images[sampler.population.classes == c] for c in range(4)}
    report = check_samples(sampler, real)
    # The catalogue holds seven digits.
    assert report["measured_mae_size"] < 1e-5 and report["measured_mae_ellipticity"] < 1e-5
    assert report["unmeasurable"] == 0
    assert all(0.6 < report[f"diversity_{name}"] < 1.5 for name in ("spiral", "elliptical", "merger", "edge-on"))
    assert "measured_mae_redshift" not in report


def test_check_leaves_out_requests_that_are_unknown(data):
    sampler = CopyingSampler(data, ("size", "redshift"))
    real = {c: sampler.images[sampler.population.classes == c] for c in range(4)}
    half = torch.arange(len(sampler.population.values)) % 8 < 4
    sampler.population.values[half, 0] = torch.nan
    assert math.isfinite(check_samples(sampler, real)["measured_mae_size"])
    sampler.population.values[:, 0] = torch.nan
    assert "measured_mae_size" not in check_samples(sampler, real)


def test_grid_has_a_row_for_each_class_and_each_known_attribute(data):
    full, unknown = (CopyingSampler(data, ("size", "ellipticity")) for _ in range(2))
    unknown.supported = [[limits[0], None] for limits in unknown.supported]
    heights = [sample_grid(sampler, "test").height for sampler in (full, unknown)]
    row = 128 + 4 + 18
    assert heights[0] - heights[1] == row
    assert heights[0] == 34 + 4 * (128 + 4) + 2 * row + 4


def test_predictor_that_knows_the_answer_scores_perfectly(data):
    rows = data.rows("test")
    scaled = (torch.from_numpy(data.attributes(("size",), rows)) - 0.05) / 0.23

    class Oracle(torch.nn.Module):
        def forward(self, images):
            return scaled

    report = evaluate_predictor(Oracle(), data, ("size",), torch.device("cpu"))
    assert report["mae_size"] == pytest.approx(0, abs=1e-6)
    assert report["r2_size"] == pytest.approx(1, abs=1e-6)
    scaled = scaled.mean().expand(len(rows), 1)
    assert evaluate_predictor(Oracle(), data, ("size",), torch.device("cpu"))["r2_size"] == pytest.approx(0, abs=1e-4)
