"""The running average of a generator's weights, which generates better than the weights of any one step."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network_co = TypeVar("Network_co", bound=nn.Module, covariant=True)


class WeightAverage(Generic[Network_co]):
    """An exponential moving average of a network's weights and buffers, updated without waiting for the device.

    After k updates the decay is the smaller of `decay` and k / (9 + k): the first update copies the network, and early
    on the average forgets faster, so that it leaves the start behind. Batch-norm statistics are averaged like the
    weights: they belong to them.

    Parameters
    ----------
    network : nn.Module
        Whose copy holds the average, as `module`.
    decay : float
        0 to 1.
    """

    def __init__(self, network: Network_co, decay: float) -> None:
        self.module: Network_co = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        device = next(network.parameters()).device
        self._count = torch.zeros((), device=device)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        decay = (self._count / (9 + self._count)).clamp_max(self._decay)
        averaged, current = _floating(self.module), _floating(network)
        steps = torch._foreach_sub(current, averaged)
        torch._foreach_mul_(steps, 1 - decay)
        torch._foreach_add_(averaged, steps)
        self._count += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average by the names of the network's own state, and the number of updates."""
        return {**self.module.state_dict(), "num_averaged": self._count.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        self.module.load_state_dict({name: value for name, value in state.items() if name != "num_averaged"})
        self._count.copy_(state["num_averaged"])


def _floating(network: nn.Module) -> list[Tensor]:
    """Return weights and buffers but counters, which no average is taken of."""
    return [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]
