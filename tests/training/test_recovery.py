"""Halving a step size after updates that were left out, on the device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from galaxies.compute.cuda_graphs import RecordedStep
from galaxies.compute.device import Engine
from galaxies.training.recovery import Recovery, halvings
from tests.conftest import needs_cuda

CPU = torch.device("cpu")


def count(recovery: Recovery, *left_out: float) -> list[float]:
    parts = []
    for one in left_out:
        recovery.count(torch.tensor(one))
        parts.append(float(recovery.part))
    return parts


def test_every_third_in_a_row_halves():
    assert count(Recovery(CPU, True), 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1) == [1] * 5 + [0.5] * 3 + [0.25] * 5


def test_one_that_does_not_halve_keeps_the_whole_step():
    assert count(Recovery(CPU, False), *[1] * 7) == [1] * 7


def test_count_and_part_stay_where_they_are():
    recovery = Recovery(CPU, True)
    places = [value.data_ptr() for value in (recovery.part, recovery._in_a_row)]
    count(recovery, 1, 1, 1, 0)
    recovery.load_state_dict(recovery.state_dict())
    assert [value.data_ptr() for value in (recovery.part, recovery._in_a_row)] == places


def test_a_saved_state_goes_on_amid_a_row_and_is_a_copy():
    recovery, other = Recovery(CPU, True), Recovery(CPU, True)
    count(recovery, 1, 1, 1, 1, 1)
    state = recovery.state_dict()
    count(recovery, 1)
    other.load_state_dict(state)
    assert float(other.part) == 0.5
    assert count(other, 1) == [0.25]


@pytest.mark.parametrize("times", [0, 1, 10])
def test_halvings_of_a_part(times):
    assert halvings(0.5**times) == times


@needs_cuda
def test_a_recorded_step_halves_on_cuda():
    engine = Engine.choose("cuda", "fp32", "graph")
    layer = nn.Linear(1, 1, bias=False, device=engine.device)
    optimizer = engine.adam(layer, 0.01, (0.0, 0.0))  # each step is the step size
    recovery = Recovery(engine.device, True)
    slope = torch.ones((), device=engine.device)

    def step(_):
        optimizer.zero_grad(set_to_none=True)
        layer.weight.grad = slope.view(1, 1).clone()
        recovery.count(engine.step_if_finite(optimizer, slope, recovery.part))

    recorded = RecordedStep(step, engine)
    for number in range(12):  # 5 to 7 and 8 to 10 are left out; the graph is recorded at the third
        before = float(layer.weight)
        slope.fill_(torch.inf if 5 <= number <= 10 else 1.0)
        recorded(None)
        expected = 0.0 if 5 <= number <= 10 else -0.01 if number < 5 else -0.0025
        assert float(layer.weight) - before == pytest.approx(expected, abs=1e-6)
    assert recorded.num_graphs == 1
