"""Averages of any length out of two that forget by a power of time, against sums over the whole course of weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from galaxies.common.errors import UserError
from galaxies.storage.power_averages import (
    KEPT_LENGTHS,
    averaged_parts,
    averaged_weights,
    drop_snapshots_after,
    exponent_of,
    find_snapshots,
    overlap,
    shares_of,
    snapshot_steps,
    write_snapshot,
)
from galaxies.training.weight_average import PowerAverages

STEPS = 400


class Course(nn.Module):
    """Weights that drift and swing; also a buffer that is averaged, and a counter, which is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def go(self, step: int) -> None:
        self.weight.copy_(torch.tensor([step / STEPS, math.sin(step / 20), math.exp(-step / 50)]))
        self.mean.fill_(2.0)
        self.count.fill_(step)


def course(folder, count: int = 16) -> Course:
    """Train for some steps, keeping snapshots."""
    network = Course()
    network.go(1)
    averages, kept = PowerAverages(network), snapshot_steps(count, STEPS)
    for step in range(1, STEPS + 1):
        network.go(step)
        averages.update(network)
        if step in kept:
            write_snapshot(folder, step, averages.by_name())
    return network


def summed(length: float, last: int = STEPS) -> torch.Tensor:
    """Return the average over the course, weighed by the power of the step, straight from its definition."""
    steps = np.arange(1, last + 1, dtype=float)
    g = exponent_of(length)
    # An update at step s has the weight s^g in the continuous profile; exactly, (s^(g+1) - (s-1)^(g+1)) / t^(g+1).
    share = (steps ** (g + 1) - (steps - 1) ** (g + 1)) / last ** (g + 1)
    values = np.stack([steps / STEPS, np.sin(steps / 20), np.exp(-steps / 50)], 1)
    return torch.tensor(share @ values, dtype=torch.float32)


def test_exponents_are_those_of_the_paper():
    """Karras et al. 2024, section 3.1: lengths of 0.05 and 0.10 are exponents of 16.97 and 6.94."""
    assert [exponent_of(length) for length in KEPT_LENGTHS] == pytest.approx([16.97, 6.94], abs=0.005)


@pytest.mark.parametrize("length", [0.01, 0.05, 0.13, 0.25])
def test_a_length_is_the_standard_deviation_of_its_profile(length):
    g = exponent_of(length)
    s = (np.arange(200_000) + 0.5) / 200_000
    p = (g + 1) * s**g / len(s)
    mean = (p * s).sum()
    assert math.sqrt((p * (s - mean) ** 2).sum()) == pytest.approx(length, rel=1e-3)


@pytest.mark.parametrize(
    ("one", "other"), [((10.0, 7.0), (10.0, 7.0)), ((4.0, 17.0), (9.0, 7.0)), ((9.0, 2.0), (3.0, 5.0))]
)
def test_the_overlap_of_profiles_is_their_integral(one, other):
    s = (np.arange(400_000) + 0.5) / 400_000 * 10
    profiles = [np.where(s <= t, (g + 1) * s**g / t ** (g + 1), 0.0) for t, g in (one, other)]
    integral = (profiles[0] * profiles[1]).sum() * 10 / len(s)
    assert overlap(one, other) == pytest.approx(integral, rel=1e-3)
    assert overlap(one, other) == overlap(other, one)


def test_the_running_averages_weigh_updates_by_a_power_of_their_number():
    network = Course()
    averages = PowerAverages(network)
    for step in range(1, 51):
        network.go(step)
        averages.update(network)
        if step == 1:
            assert torch.equal(averages.by_name()[0]["weight"], network.weight)
    for average, length in zip(averages.by_name(), KEPT_LENGTHS, strict=True):
        torch.testing.assert_close(average["weight"], summed(length, 50), rtol=1e-4, atol=1e-5)
        assert set(average) == {"weight", "mean"}


@pytest.mark.parametrize("length", [0.03, 0.05, 0.08, 0.1, 0.15, 0.2])
def test_an_average_of_any_length_is_found_again(tmp_path, length):
    network = course(tmp_path)
    found = averaged_weights(find_snapshots(tmp_path), [length], network)[length]
    assert (found["weight"] - summed(length)).abs().max() < 0.01
    # Lengths differ by more than that, or the comparison would say nothing.
    assert (summed(length) - summed(1.5 * length)).abs().max() > 0.02
    assert found["mean"] == pytest.approx(2, abs=1e-3)  # what does not change stays
    assert found["count"] == STEPS and found["count"].dtype == torch.int64


def test_a_kept_length_is_what_was_kept_and_shares_add_to_one(tmp_path):
    network = course(tmp_path, 8)
    steps = [s.step for s in find_snapshots(tmp_path)]
    assert steps == [50, 100, 150, 200, 250, 300, 350, 400]
    for place, length in enumerate(KEPT_LENGTHS):
        shares = shares_of(steps, length)
        wanted = np.zeros((8, 2))
        wanted[-1, place] = 1
        assert shares == pytest.approx(wanted, abs=1e-3)
    assert shares_of(steps, 0.17).sum() == pytest.approx(1, abs=1e-9)
    assert (averaged_weights(find_snapshots(tmp_path), [0.1], network)[0.1]["weight"] - summed(0.1)).abs().max() < 1e-3


def test_snapshots_are_even_end_with_the_training_and_are_no_more_than_steps():
    assert sorted(snapshot_steps(4, 1000)) == [250, 500, 750, 1000]
    assert sorted(snapshot_steps(8, 3)) == [1, 2, 3]
    assert snapshot_steps(0, 1000) == set()


def test_a_run_that_goes_back_drops_what_came_after(tmp_path):
    course(tmp_path, 4)
    (tmp_path / "average_of_marks.safetensors").write_bytes(b"mine")
    drop_snapshots_after(tmp_path, 200)
    assert [s.step for s in find_snapshots(tmp_path)] == [100, 200]
    assert (tmp_path / "average_of_marks.safetensors").exists()


def test_the_averages_go_on_where_they_were(tmp_path):
    network, averages = Course(), PowerAverages(Course())
    for step in range(1, 21):
        network.go(step)
        averages.update(network)
    other = PowerAverages(Course())
    other.load_state_dict({name: value.clone() for name, value in averages.state_dict().items()})
    for each in (averages, other):
        network.go(21)
        each.update(network)
    for one, same in zip(averages.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, same)


def test_what_cannot_be_averaged_costs_a_sentence(tmp_path):
    network = Course()
    with pytest.raises(UserError, match=r"no snapshots of averages.*--average-snapshots"):
        averaged_weights([], [0.1], network)
    course(tmp_path, 4)
    found = find_snapshots(tmp_path)
    with pytest.raises(UserError, match="one snapshot"):
        averaged_weights(found[:1], [0.1], network)
    with pytest.raises(UserError, match=r"000000100\.safetensors holds averages of another network"):
        averaged_weights(found, [0.1], nn.Linear(2, 2))
    bad = [{name: value * math.nan for name, value in averaged_parts(network).items()}] * 2
    write_snapshot(tmp_path, 200, bad)
    with pytest.raises(UserError, match=r"000000200\.safetensors holds numbers that are not finite"):
        averaged_weights(found, [0.1], network)
    for content in (b"", b"\x00" * 7, found[0].path.read_bytes()[:-20]):
        found[1].path.write_bytes(content)
        with pytest.raises(UserError, match=r"000000200\.safetensors is damaged"):
            averaged_weights(found, [0.1], network)
