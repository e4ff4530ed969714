"""Running averages of a generator's weights, which generate better than the weights of any one step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from galaxies.storage.power_averages import KEPT_LENGTHS, averaged_parts, exponent_of

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
        averaged, current = (list(averaged_parts(each).values()) for each in (self.module, network))
        _move(averaged, current, 1 - decay)
        self._count += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average by the names of the network's own state, and the number of updates."""
        return {**self.module.state_dict(), "num_averaged": self._count.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        self.module.load_state_dict({name: value for name, value in state.items() if name != "num_averaged"})
        self._count.copy_(state["num_averaged"])


class PowerAverages:
    """Two averages of a network's weights that forget by a power of time: what `storage.power_averages` keeps.

    After k updates the weights of update s count as s^g, so that an average of relative length l remembers the last
    part l of the training, however long that has become (Karras et al. 2024, arXiv:2312.02696, eq. 3). The update is
    average <- average + (1 - (1 - 1/k)^(g + 1)) (weights - average), which makes the first one a copy.

    Parameters
    ----------
    network : nn.Module
    """

    def __init__(self, network: nn.Module) -> None:
        self._names = list(averaged_parts(network))
        current = averaged_parts(network).values()
        self._averages = [[value.detach().clone() for value in current] for _ in KEPT_LENGTHS]
        self._exponents = [exponent_of(length) for length in KEPT_LENGTHS]
        self._count = torch.zeros((), device=next(network.parameters()).device)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the averages towards the network's present weights."""
        self._count += 1
        current = list(averaged_parts(network).values())
        for average, exponent in zip(self._averages, self._exponents, strict=True):
            # 1 - (1 - 1/k)^(g + 1), without losing what is small beside 1 after many updates.
            _move(average, current, -torch.expm1((exponent + 1) * torch.log1p(-1 / self._count)))

    def by_name(self) -> list[dict[str, Tensor]]:
        """Return the averages, one of each of `KEPT_LENGTHS`, by the names of the network's state."""
        return [dict(zip(self._names, average, strict=True)) for average in self._averages]

    def state_dict(self) -> dict[str, Tensor]:
        """Return both averages, names beginning with their place among `KEPT_LENGTHS`, and the number of updates."""
        named = {f"{k}.{name}": value for k, average in enumerate(self.by_name()) for name, value in average.items()}
        return {**named, "num_averaged": self._count.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        for k, average in enumerate(self._averages):
            for name, value in zip(self._names, average, strict=True):
                value.copy_(state[f"{k}.{name}"])
        self._count.copy_(state["num_averaged"])


def _move(averaged: list[Tensor], current: list[Tensor], part: Tensor) -> None:
    """Move tensors a part of the way towards others."""
    steps = torch._foreach_sub(current, averaged)
    torch._foreach_mul_(steps, part)
    torch._foreach_add_(averaged, steps)
