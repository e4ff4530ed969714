"""The steps of one training phase: a batch, the update, the running means, as one recorded unit.

Means are summed on the device, so that no step waits for them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from galaxies.compute.cuda_graphs import RecordedStep
from galaxies.compute.ranks import Ranks
from galaxies.datasets.batches import DeviceBatches
from galaxies.training.learner import Learner, Variant


class PhaseSteps:
    """The steps of a phase.

    Parameters
    ----------
    phase : {"predictor", "generator"}
    learner : Learner
    batches : DeviceBatches

    Attributes
    ----------
    interval, epoch_total : Meters
        Since the last line of the log, and since the epoch began.
    """

    def __init__(self, phase: str, learner: Learner, batches: DeviceBatches) -> None:
        self.phase, self.learner, self.batches = phase, learner, batches
        names = learner.terms[phase], learner.errors(phase)
        self.interval, self.epoch_total = (Meters(*names, learner.engine.device) for _ in range(2))
        self._recorded = RecordedStep(self._run, learner.engine, (learner.noise,))

    def take(self, step: int, total_steps: int) -> None:
        """Take the step with this number out of `total_steps`; the host waits for nothing."""
        if self.batches.is_over:
            self.batches.end_epoch()
            self.batches.start_epoch()
        self.batches.stage()
        self.learner.schedule(self.phase, step, total_steps)
        with self.learner.engine.kernels():
            self._recorded(self.learner.variant(self.phase, step))
        self.batches.advance()
        self.interval.tick()
        self.epoch_total.tick()

    def _run(self, variant: Variant) -> None:
        """Do the device's part of a step."""
        row = step_row(*self.learner.step(self.batches.draw(), variant))
        self.interval.add(*row)
        self.epoch_total.add(*row)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of both meters."""
        return {"interval": self.interval.state_dict(), "epoch": self.epoch_total.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the sums of `state_dict`."""
        self.interval.load_state_dict(state["interval"])
        self.epoch_total.load_state_dict(state["epoch"])


class Reading(NamedTuple):
    """What meters show.

    Attributes
    ----------
    means : dict of str to float
        Of each term, and of each squared error of which a value was known; empty where no step was finite.
    num_bad : int
        Steps with a term that was not finite.
    first_bad : dict of str to int
        For each such term the number of its first step, counted from 1 at the last `Meters.clear`.
    """

    means: dict[str, float]
    num_bad: int
    first_bad: dict[str, int]


class Meters:
    """Means of named loss terms and of squared errors, the latter over known values, in steps with all terms finite.

    Parameters
    ----------
    names : tuple of str
        The terms, in the order in which `step_row` gets them.
    errors : tuple of str
        The squared errors, in the same way.
    device : torch.device
    """

    def __init__(self, names: tuple[str, ...], errors: tuple[str, ...], device: torch.device) -> None:
        self.names, self.errors = names, errors
        num_terms = len(names)
        # Sums of the terms, of squared errors, and of numbers of known values; then the number of steps added, and
        # of those among them with a term that is not finite.
        self._sums = torch.zeros(num_terms + 2 * len(errors) + 2, device=device)
        # For each term, which step since `clear` was the first in which it was not finite, from 1; 0: none.
        self._first_bad = torch.zeros(num_terms, device=device)
        self.steps = 0
        self.restart_clock()

    @torch.no_grad()
    def add(self, row: Tensor, bad_terms: Tensor) -> None:
        """Add one step, as `step_row` returns it.

        This is the device's part, which can be recorded in a CUDA graph; `tick` is the host's.
        """
        self._sums += row
        first = bad_terms & (self._first_bad == 0)
        torch.where(first, self._sums[-2], self._first_bad, out=self._first_bad)

    def tick(self) -> None:
        """Count a step that was added."""
        self.steps += 1

    def read(self, ranks: Ranks | None = None) -> Reading:
        """Return the means since the last `clear`, over all ranks; waits for the device."""
        sums = (self._sums if ranks is None else ranks.mean(self._sums)).cpu()
        num_terms, num_errors = len(self.names), len(self.errors)
        totals, errors, counts, (steps, num_bad) = sums.split([num_terms, num_errors, num_errors, 2])
        means = {}
        if steps == 0 or steps > num_bad:
            found = zip(self.names, (totals / (steps - num_bad).clamp_min(1)).tolist(), strict=True)
            means = {name: mean for name, mean in found if not math.isnan(mean)}  # see `load_state_dict`
        rows = zip(self.errors, errors.tolist(), counts.tolist(), strict=True)
        means |= {name: error / count for name, error, count in rows if count}
        first = {name: int(step) for name, step in zip(self.names, self._first_bad.tolist(), strict=True) if step}
        return Reading(means, math.ceil(float(num_bad)), first)

    def clear(self) -> None:
        """Start counting anew."""
        self._sums.zero_()
        self._first_bad.zero_()
        self.steps = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure the speed from now on."""
        self._start_time, self._start_steps = time.monotonic(), self.steps

    def steps_per_second(self) -> float:
        """Return the speed since the clock was started."""
        return (self.steps - self._start_steps) / max(1e-9, time.monotonic() - self._start_time)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, so that a resumed run logs the same means, and what each is of."""
        return {
            "names": list(self.names),
            "errors": list(self.errors),
            "sums": self._sums.clone(),
            "first_bad": self._first_bad.clone(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the sums of `state_dict`, whatever terms there were.

        A term that the state lacks has no mean until the next `clear`. States of before terms were saved by name are
        of the same terms, or else these means begin anew.
        """
        self.clear()
        if "names" not in state:
            if state["sums"].shape != self._sums.shape:
                return
            state = {"names": self.names, "errors": self.errors, **state}
        sums = dict(zip(_places(state["names"], state["errors"]), state["sums"].tolist(), strict=True))
        first_bad = dict(zip(state["names"], state["first_bad"].tolist(), strict=True))
        unknown = dict.fromkeys(_places(self.names, ()), math.nan) if state["steps"] else {}
        row = [{**unknown, **sums}.get(place, 0.0) for place in _places(self.names, self.errors)]
        self._sums.copy_(torch.tensor(row))
        self._first_bad.copy_(torch.tensor([first_bad.get(name, 0.0) for name in self.names]))
        self.steps = state["steps"]


def _places(names: Sequence[str], errors: Sequence[str]) -> list[tuple[str, str]]:
    """Say what the numbers of a row are, as `step_row` returns them."""
    kinds = (("term", names), ("error", errors), ("known", errors), ("all", ("steps", "bad")))
    return [(kind, name) for kind, of in kinds for name in of]


@torch.no_grad()
def step_row(terms: list[Tensor], squared_errors: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Put a step's results into one row of numbers, zeros if a term is not finite, which several meters can add.

    Parameters
    ----------
    terms : list of Tensor, ()
    squared_errors, counts : Tensor, (E,)
        As `physics_model.physics_loss` returns them.

    Returns
    -------
    row : Tensor, (T + 2 E + 2,)
        Ends with 1, for the step, and whether it was bad.
    bad_terms : Tensor, (T,), bool
    """
    values = torch.stack([term.detach() for term in terms])
    bad_terms = ~torch.isfinite(values)
    bad = bad_terms.any()
    row = torch.cat([values, squared_errors, counts]).masked_fill(bad, 0)
    return torch.cat([row, torch.ones_like(values[:1]), bad[None]]), bad_terms
