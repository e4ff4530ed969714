"""Running means of a training loop, summed on the device so that no step waits for them."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor


class Meters:
    """Means of named loss terms and of each attribute's squared error.

    Parameters
    ----------
    names : tuple of str
        The terms, in the order in which `add` gets them.
    attributes : tuple of str
    device : torch.device
    """

    def __init__(self, names: tuple[str, ...], attributes: tuple[str, ...], device: torch.device) -> None:
        self.names, self.attributes = names, attributes
        self._sums = torch.zeros(len(names), device=device)
        self._squared_errors = torch.zeros(len(attributes), device=device)
        self._counts = torch.zeros(len(attributes), device=device)
        self.steps = 0
        self.restart_clock()

    @torch.no_grad()
    def add(self, terms: list[Tensor], squared_errors: Tensor, counts: Tensor) -> None:
        """Add one step: scalar terms, and the two vectors (A,) that `physics_model.physics_loss` returns."""
        self._sums += torch.stack([term.detach() for term in terms])
        self._squared_errors += squared_errors
        self._counts += counts
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Return the means since the last `clear`, ``physics_<attribute>`` only where a value was known."""
        means = dict(zip(self.names, (self._sums / max(1, self.steps)).tolist(), strict=True))
        totals = zip(self.attributes, self._squared_errors.tolist(), self._counts.tolist(), strict=True)
        return means | {f"physics_{name}": error / count for name, error, count in totals if count}

    def clear(self) -> None:
        """Start counting anew."""
        for total in (self._sums, self._squared_errors, self._counts):
            total.zero_()
        self.steps = 0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure the speed from now on."""
        self._start_time, self._start_steps = time.monotonic(), self.steps

    def steps_per_second(self) -> float:
        """Return the speed since the clock was started."""
        return (self.steps - self._start_steps) / max(1e-9, time.monotonic() - self._start_time)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, so that a resumed run logs the same means."""
        return {
            "sums": self._sums.clone(),
            "squared_errors": self._squared_errors.clone(),
            "counts": self._counts.clone(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the sums of `state_dict`."""
        self._sums.copy_(state["sums"])
        self._squared_errors.copy_(state["squared_errors"])
        self._counts.copy_(state["counts"])
        self.steps = state["steps"]
        self.restart_clock()
