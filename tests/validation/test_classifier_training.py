"""The training loop of validation's classifiers: the steps it takes, when it stops and which weights it keeps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from galaxies.validation.classifier_training import HeldOut, linear_decay, one_cycle, train_classifier

RATE = 3e-3  # the highest step size of the classifiers whose numbers the docs quote


class Line(nn.Module):
    """A slope, which starts where the seed says, and a record of whether it was looked at in training."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.randn(1))
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        return self.slope * x


def batches(seed=0):
    random = torch.Generator().manual_seed(seed)

    def draw_loss(network):
        x = torch.randn(8, generator=random)
        return F.mse_loss(network(x), 2 * x)

    return draw_loss


def by_hand(steps, decay, rates, seed=5):
    """Take AdamW's steps with numbers, as in algorithm 2 of Loshchilov & Hutter 2019, and return the slope."""
    torch.manual_seed(seed)
    slope = float(torch.randn(1))
    random = torch.Generator().manual_seed(0)
    first = second = 0.0
    for step, rate in zip(range(1, steps + 1), rates, strict=True):
        x = torch.randn(8, generator=random).double()
        gradient = float((2 * (slope * x - 2 * x) * x).mean())
        slope *= 1 - rate * decay
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        slope -= rate * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return slope


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_its_steps_are_those_of_adamw_with_a_step_size_that_falls_to_nothing(decay):
    rates = [RATE * (1 - step / 40) for step in range(40)]
    found = train_classifier(Line, batches(), 40, 5, weight_decay=decay, schedule=linear_decay)
    assert found.network.slope.item() == pytest.approx(by_hand(40, decay, rates), abs=1e-5)
    assert found.best_look == 0
    assert found.network.modes == [True] * 40
    assert not found.network.training


def test_one_cycle_rises_to_the_highest_step_size_and_falls_to_nothing():
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], RATE)
    schedule = one_cycle(optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    # A cosine from 1/25 over three tenths of the steps, and another down to 1/250,000 of the highest.
    assert rates[0] == pytest.approx(RATE / 25)
    assert max(rates) == pytest.approx(rates[29], rel=1e-6) == pytest.approx(RATE)
    assert rates[-1] == pytest.approx(RATE / 250_000)
    middle = (RATE / 25 + RATE) / 2
    assert rates[14] < middle < rates[15]


def test_the_usual_recipe_is_one_cycle_with_little_weight_decay():
    expected = train_classifier(Line, batches(), 20, 5, weight_decay=0.01, schedule=one_cycle).network.slope
    assert torch.equal(train_classifier(Line, batches(), 20, 5).network.slope, expected)
    other = train_classifier(Line, batches(), 20, 5, schedule=linear_decay).network.slope
    assert not torch.equal(other, expected)


def test_the_seed_decides_the_first_weights_and_the_global_random_state_is_left():
    torch.manual_seed(5)
    expected = torch.randn(2)  # the first of them is a slope's start
    torch.manual_seed(1)
    undisturbed = torch.rand(3)
    torch.manual_seed(1)
    starts = []

    def build():
        network = Line()
        starts.append(network.slope.detach().clone())
        return network

    train_classifier(build, batches(), 1, 5)
    assert torch.equal(torch.rand(3), undisturbed)
    assert torch.equal(starts[0], expected[:1])


def train_until(losses, patience, every=3, steps=30):
    """Train with made-up losses of the galaxies held out; return what came of it and the slope at each look."""
    slopes = []

    def loss(network):
        assert not network.training
        slopes.append(network.slope.item())
        return losses[len(slopes) - 1]

    found = train_classifier(Line, batches(), steps, 5, held_out=HeldOut(loss, every, patience))
    return found, slopes


def test_the_weights_of_the_lowest_loss_are_kept_and_patience_ends():
    found, slopes = train_until([5.0, 3.0, 4.0, 3.0, 3.5, 0.0, 0.0, 0.0, 0.0, 0.0], patience=3)
    # Equal to the lowest is no new lowest; the third look after it is the last.
    assert len(slopes) == 5
    assert found.best_look == 2
    assert found.network.slope.item() == slopes[1] != slopes[4]
    assert len(found.network.modes) == 15
    assert not found.network.training


def test_a_new_lowest_loss_renews_the_patience():
    found, slopes = train_until([5.0, 6.0, 4.0, 6.0, 3.0, 6.0, 2.0, 6.0, 1.0, 6.0], patience=2)
    assert len(slopes) == 10
    assert found.best_look == 9
    assert found.network.slope.item() == slopes[8]


def test_losses_that_are_never_finite_keep_nothing():
    found, slopes = train_until([math.nan, math.inf, math.nan, 0.0], patience=3)
    assert len(slopes) == 3
    assert found.best_look == 0


def test_a_title_shows_progress(capsys):
    train_classifier(Line, batches(), 2, 5)
    assert capsys.readouterr().err == ""
    train_classifier(Line, batches(), 2, 5, title="learning")
    assert "learning" in capsys.readouterr().err
