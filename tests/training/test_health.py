"""Health warnings, the predictor on galaxies it has not seen, samples measured."""

from __future__ import annotations

import math

import pytest
import torch

from config_physics import Config
from galaxies.training.gan_learner import GAN_TERMS, label_entropy
from galaxies.training.health import (
    check_samples,
    collapse_warnings,
    evaluate_predictor,
    health_warnings,
    norm_warnings,
    what_is_known,
    without_claim,
)
from galaxies.training.loss_terms import chosen, limits
from gan_model import discriminator_loss, relativistic_loss
from tests.training.copying_sampler import CopyingSampler


def discriminator_limits(config: Config) -> tuple[float, float]:
    return limits(chosen(GAN_TERMS, config), config)


LIMITS = discriminator_limits(Config())
REASONS = {"size": "it is small"}


def healthy(**changes: float) -> dict[str, float]:
    return {"d_loss": 0.9, "physics_size": 0.01, **changes}


def test_label_entropy_by_hand():
    assert label_entropy(0.9) == pytest.approx(0.3250829)
    assert label_entropy(1.0) == 0


def test_healthy_epoch_has_no_warning():
    assert health_warnings(healthy(), LIMITS, {"size": 0.03}, REASONS) == {}


@pytest.mark.parametrize(
    "change, kind",
    [
        ({"d_loss": 0.651}, "discriminator_wins"),
        ({"d_loss": 1.40}, "discriminator_loses"),
        ({"physics_size": 0.05}, "no_control_size"),
    ],
)
def test_each_warning_fires_alone(change, kind):
    assert list(health_warnings(healthy(**change), LIMITS, {"size": 0.03}, REASONS)) == [kind]


def test_limits_follow_the_labels():
    hard = discriminator_limits(Config(real_label=1.0, fake_label=0.0))
    assert health_warnings(healthy(d_loss=0.6), hard, {}, REASONS) == {}
    assert "discriminator_wins" in health_warnings(healthy(d_loss=0.01), hard, {}, REASONS)


def test_limits_of_pairs():
    pairs = discriminator_limits(Config(adversarial="relativistic"))
    # One that finds no difference pays ln 2, whatever the labels; sure ones may come close to nothing.
    assert health_warnings(healthy(d_loss=math.log(2) - 1e-3), pairs, {}, REASONS) == {}
    assert health_warnings(healthy(d_loss=0.1), pairs, {}, REASONS) == {}
    assert list(health_warnings(healthy(d_loss=0.01), pairs, {}, REASONS)) == ["discriminator_wins"]
    assert list(health_warnings(healthy(d_loss=0.70), pairs, {}, REASONS)) == ["discriminator_loses"]


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
    assert health_warnings(healthy(), LIMITS, {"size": 0.0, "redshift": 0.1}, REASONS) == {}


def test_a_warning_says_why_control_may_be_hard():
    metrics, variance = {"physics_redshift": 0.2}, {"redshift": 0.1, "size": 0.1}
    reasons = {"redshift": what_is_known(0.063, 0.034), "size": what_is_known(1.0, None)}
    (sentence,) = health_warnings(metrics, None, variance, reasons).values()
    assert (
        "above the variance 0.1000 of the requests (it is known for 6 % of the training galaxies, and the predictor "
        "reads it with an R2 of 0.03); a larger --physics-weight" in sentence
    )
    assert reasons["size"] == "it is known for 100 % of the training galaxies"


def test_what_few_galaxies_know_or_the_predictor_cannot_read_has_no_claim():
    shares = {"size": 1.0, "redshift": 0.06, "color": 0.5, "brightness": 0.1, "stellar_mass": 0.4, "ellipticity": 0.9}
    report = {"r2_size": 0.9, "r2_redshift": 0.8, "r2_color": 0.03, "r2_brightness": 0.1, "r2_ellipticity": math.nan}
    assert without_claim(shares, report) == {
        "redshift": "known for 6 % of the training galaxies",
        "color": "the predictor cannot read it off pictures, R2 0.03",
        "stellar_mass": "known for too few test galaxies to test the predictor",
        "ellipticity": "the predictor cannot read it off pictures, R2 nan",
    }


def test_a_norm_of_ten_times_its_level_is_reported():
    levels: dict[str, list[float]] = {}
    for norm in (1.0, 4.0, 2.0, 2.0, 1.0):  # geometric mean: the fifth root of 16
        assert norm_warnings({"g_grad_norm": norm, "d_loss": 50.0 * norm}, levels, "generator") == {}
    usual = 16 ** (1 / 5)
    kept = {name: list(level) for name, level in levels.items()}
    assert norm_warnings({"g_grad_norm": 9.9 * usual}, levels, "generator") == {}
    warnings = norm_warnings({"g_grad_norm": 10.1 * usual}, kept, "generator")
    assert list(warnings) == ["high_generator_g_grad_norm"]
    assert "10 times what it was" in warnings["high_generator_g_grad_norm"]
    # The newest interval counts a sixth here and a tenth in the end: the level follows.
    assert kept["g_grad_norm"] == [pytest.approx(math.log(usual) + math.log(10.1) / 6), 6]
    for _ in range(60):
        norm_warnings({"g_grad_norm": 100.0}, kept, "generator")
    assert norm_warnings({"g_grad_norm": 900.0}, kept, "generator") == {}


def test_a_new_run_has_no_level_and_a_norm_of_zero_none():
    levels: dict[str, list[float]] = {}
    for norm in (1e-3, 1.0, 1e3, 0.0, 1e6):
        assert norm_warnings({"grad_norm": norm}, levels, "predictor") == {}


def test_collapse_warning_names_the_class():
    warnings = collapse_warnings({"diversity_merger": 0.2, "diversity_spiral": 0.9, "unmeasurable": 0.0})
    assert list(warnings) == ["collapse_merger"]
    assert "merger galaxies vary 0.20 times" in warnings["collapse_merger"]


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


def test_predictor_that_knows_the_answer_scores_perfectly(data):
    rows = data.rows("test")
    scaled = (torch.from_numpy(data.attributes(("size",), rows)) - 0.05) / 0.23

    class Oracle(torch.nn.Module):
        def forward(self, images):
            return scaled

    config = Config(attributes=("size",))
    report = evaluate_predictor(Oracle(), data, config, torch.device("cpu"))
    assert report["mae_size"] == pytest.approx(0, abs=1e-6)
    assert report["r2_size"] == pytest.approx(1, abs=1e-6)
    scaled = scaled.mean().expand(len(rows), 1)
    assert evaluate_predictor(Oracle(), data, config, torch.device("cpu"))["r2_size"] == pytest.approx(0, abs=1e-4)
