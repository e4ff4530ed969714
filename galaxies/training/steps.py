"""The steps of one training phase: a batch, the update, the running means, as one recorded unit."""

from __future__ import annotations

from typing import Any

from galaxies.compute.engine import RecordedStep
from galaxies.datasets.batches import DeviceBatches
from galaxies.training.learner import Learner, Variant
from galaxies.training.meters import Meters, step_row


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
        self.learner.schedule(self.phase, step / total_steps)
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
