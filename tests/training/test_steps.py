"""Running means of a training loop: weights, unknown attributes, starting anew and resuming."""

import json
import math

import pytest
import torch

from galaxies.training.steps import Meters, step_row
from physics_model import physics_loss

CPU = torch.device("cpu")
NAMES, ERRORS = ("d_loss", "g_loss"), ("physics_size", "physics_color")


def vector(*values):
    return torch.tensor(values, dtype=torch.float32)


def terms(*values):
    return [torch.tensor(value) for value in values]


@pytest.fixture
def meters():
    return Meters(NAMES, ERRORS, CPU)


def test_means_of_terms(meters):
    for d_loss, g_loss in [(1.0, 0.5), (2.0, 1.0), (6.0, 0.0)]:
        meters.add(*step_row(terms(d_loss, g_loss), vector(0, 0), vector(1, 1)))
        meters.tick()
    means = meters.read().means
    assert means["d_loss"] == pytest.approx(3.0)
    assert means["g_loss"] == pytest.approx(0.5)
    assert set(means) == {"d_loss", "g_loss", "physics_size", "physics_color"}
    assert all(type(value) is float for value in means.values())


def test_attributes_are_weighted_by_their_known_values(meters):
    meters.add(*step_row(terms(0.0, 0.0), vector(6.0, 1.0), vector(3, 1)))
    meters.tick()
    meters.add(*step_row(terms(0.0, 0.0), vector(0.0, 8.0), vector(1, 2)))
    meters.tick()
    means = meters.read().means
    # Not the mean of 2 and 0, nor of 1 and 4.
    assert means["physics_size"] == pytest.approx(6 / 4)
    assert means["physics_color"] == pytest.approx(9 / 3)


def test_an_unknown_attribute_has_no_mean(meters):
    meters.add(*step_row(terms(1.0, 1.0), vector(0.5, 0.0), vector(2, 0)))
    meters.tick()
    assert set(meters.read().means) == {"d_loss", "g_loss", "physics_size"}
    meters.add(*step_row(terms(1.0, 1.0), vector(0.5, 0.3), vector(2, 1)))
    meters.tick()
    assert meters.read().means["physics_color"] == pytest.approx(0.3)


def test_takes_what_physics_loss_returns(meters):
    predicted = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    known = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss, squared_errors, counts = physics_loss(predicted, torch.zeros(2, 2), known)
    meters.add(*step_row([loss, 2 * loss], squared_errors, counts))
    meters.tick()
    means = meters.read().means
    assert means["physics_size"] == pytest.approx(5.0)
    assert means["d_loss"] == pytest.approx(5.0)
    assert "physics_color" not in means


def test_no_graph_is_kept():
    meters = Meters(("loss",), (), CPU)
    weight = torch.ones(3, requires_grad=True)
    meters.add(*step_row([(weight**2).sum()], torch.zeros(0), torch.zeros(0)))
    meters.tick()
    tensors = [value for value in meters.state_dict().values() if isinstance(value, torch.Tensor)]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert meters.read().means == {"loss": pytest.approx(3.0)}


def test_adding_leaves_its_arguments_alone(meters):
    values, squared_errors, counts = terms(1.0, 2.0), vector(3.0, 4.0), vector(1, 2)
    meters.add(*step_row(values, squared_errors, counts))
    meters.tick()
    meters.add(*step_row(values, squared_errors, counts))
    meters.tick()
    assert [value.item() for value in values] == [1.0, 2.0]
    assert squared_errors.tolist() == [3.0, 4.0]
    assert counts.tolist() == [1.0, 2.0]


def test_means_do_not_clear(meters):
    meters.add(*step_row(terms(1.0, 2.0), vector(3.0, 4.0), vector(1, 2)))
    meters.tick()
    assert meters.read().means == meters.read().means


def test_clear_starts_anew(meters):
    meters.add(*step_row(terms(100.0, 100.0), vector(100.0, 100.0), vector(1, 1)))
    meters.tick()
    meters.clear()
    meters.add(*step_row(terms(1.0, 2.0), vector(3.0, 0.0), vector(1, 0)))
    meters.tick()
    assert meters.read().means == pytest.approx({"d_loss": 1.0, "g_loss": 2.0, "physics_size": 3.0})


def test_nothing_added(meters):
    # A run that is interrupted between two log lines has nothing to report, and says nothing false.
    for value in meters.read().means.values():
        assert value == 0 or math.isnan(value)


def test_steps_that_are_not_finite_are_counted_and_left_out(meters):
    for d_loss, g_loss in [(1.0, 2.0), (7.0, math.nan), (math.inf, math.nan), (3.0, 4.0)]:
        meters.add(*step_row(terms(d_loss, g_loss), vector(1.0, 0), vector(1, 1)))
        meters.tick()
    means, num_bad, first_bad = meters.read()
    assert means == pytest.approx({"d_loss": 2.0, "g_loss": 3.0, "physics_size": 1.0, "physics_color": 0.0})
    assert num_bad == 2
    assert first_bad == {"d_loss": 3, "g_loss": 2}
    meters.clear()
    meters.add(*step_row(terms(1.0, 2.0), vector(0, 0), vector(1, 1)))
    assert meters.read()[1:] == (0, {})


def test_without_a_finite_step_there_are_no_means(meters):
    meters.add(*step_row(terms(1.0, -math.inf), vector(1.0, 0), vector(1, 1)))
    assert meters.read() == ({}, 1, {"g_loss": 1})


def test_many_steps_lose_no_precision(meters):
    # 20,000 terms: float32 sums would be off by up to 1e-4, sums of ones would still be exact.
    for _ in range(20_000):
        meters.add(*step_row(terms(0.1, 1.0), vector(0.0, 0.0), vector(1, 1)))
        meters.tick()
    means = meters.read().means
    assert means["d_loss"] == pytest.approx(0.1, rel=1e-3)
    assert means["g_loss"] == pytest.approx(1.0, rel=1e-6)


def test_resuming_gives_the_same_means(meters, tmp_path):
    for step in range(3):
        meters.add(*step_row(terms(step / 3, 0.7), vector(0.1 * step, 0.2), vector(step, 1)))
        meters.tick()
    torch.save(meters.state_dict(), tmp_path / "meters.pt")
    resumed = Meters(NAMES, ERRORS, CPU)
    resumed.add(*step_row(terms(9.0, 9.0), vector(9.0, 9.0), vector(9, 9)))  # replaced by what is loaded
    resumed.load_state_dict(torch.load(tmp_path / "meters.pt", weights_only=True))
    assert resumed.read().means == meters.read().means
    for each in (meters, resumed):
        each.add(*step_row(terms(0.3, 0.4), vector(0.5, 0.6), vector(2, 2)))
        each.tick()
    assert resumed.read().means == meters.read().means


def test_a_saved_state_is_a_copy(meters):
    meters.add(*step_row(terms(1.0, 2.0), vector(3.0, 4.0), vector(1, 1)))
    meters.tick()
    state = meters.state_dict()
    meters.add(*step_row(terms(5.0, 5.0), vector(5.0, 5.0), vector(1, 1)))
    meters.tick()
    resumed = Meters(NAMES, ERRORS, CPU)
    resumed.load_state_dict(state)
    assert resumed.read().means == pytest.approx(
        {"d_loss": 1.0, "g_loss": 2.0, "physics_size": 3.0, "physics_color": 4.0}
    )
    resumed.add(*step_row(terms(7.0, 7.0), vector(7.0, 7.0), vector(1, 1)))
    resumed.tick()
    other = Meters(NAMES, ERRORS, CPU)
    other.load_state_dict(state)
    assert other.read().means["d_loss"] == pytest.approx(1.0)


def test_means_can_be_written_as_json(meters):
    meters.add(*step_row(terms(1.0, 2.0), vector(3.0, 4.0), vector(1, 1)))
    meters.tick()
    assert json.loads(json.dumps(meters.read().means)) == meters.read().means
