"""What becomes of a network's step size when its gradient or its loss is not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

IN_A_ROW = 3  # updates left out, one after another, before the step size is halved
MOST_HALVINGS = 10  # a network whose step size was halved so often has not recovered


class Recovery:
    """The part of its step size that a network takes: all of it, until updates in a row had to be left out.

    After three that were not finite it is halved for the rest of the run, and counting begins anew, as it does after a
    good one. Count and part lie on the device, so that no step makes the host wait, and stay in place, so that steps
    can be recorded.

    Parameters
    ----------
    device : torch.device
    halves : bool
        False: count nothing, and always take the whole step.

    Attributes
    ----------
    part : Tensor, ()
        1, 1/2, 1/4, ...
    """

    def __init__(self, device: torch.device, halves: bool) -> None:
        self.part = torch.ones((), device=device)
        self._in_a_row = torch.zeros((), device=device)
        self._halves = halves

    @torch.no_grad()
    def count(self, left_out: Tensor) -> None:
        """Count an update; `left_out`, (), is 1 if it was and 0 if it was taken."""
        if not self._halves:
            return
        self._in_a_row.add_(1).mul_(left_out)
        enough = self._in_a_row.eq(IN_A_ROW)
        self.part.mul_(1 - 0.5 * enough)
        self._in_a_row.masked_fill_(enough, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return count and part."""
        return {"part": self.part.clone(), "in_a_row": self._in_a_row.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        self.part.copy_(state["part"])
        self._in_a_row.copy_(state["in_a_row"])


def halvings(part: float) -> int:
    """Return how often a step size was halved of which this part is left."""
    return round(-math.log2(part))
