"""The real galaxies behind a checkpoint: which attributes go together, and what requests they support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config_physics import MORPHOLOGIES
from galaxies.compute.seeded_noise import random_index

_LIMIT = 50_000  # real galaxies whose class and attributes a checkpoint keeps
_TABLE_SIZE = 2**18  # requests times real galaxies that are compared at a time
# A request is supported if it lies within the central 98 % of the real galaxies of its class.
_SUPPORT_TAIL = 0.01


@dataclass(frozen=True)
class Population:
    """The joint distribution of class and attributes over real galaxies.

    Attributes
    ----------
    classes : Tensor, (M,), int64
    values : Tensor, (M, A), float32
        Physical units, NaN where unknown.
    """

    classes: Tensor
    values: Tensor

    @classmethod
    def sample(cls, classes: Tensor, values: Tensor, seed: int) -> Population:
        """Take at most `_LIMIT` galaxies, which is what travels in a checkpoint."""
        chosen = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))[:_LIMIT].sort().values
        return cls(classes[chosen], values[chosen])

    def members(self, class_index: int) -> Tensor:
        """Return the attribute values (K, A) of one class."""
        # Indexing with a mask would wait for every core, also for one that another program keeps busy.
        return self.values.index_select(0, torch.nonzero(self.classes == class_index)[:, 0])

    def supported_range(self, class_index: int, attribute: int) -> tuple[float, float] | None:
        """Return the range that holds the central 98 % of a class, or None where no value is known."""
        known = self.members(class_index)[:, attribute]
        known = known[torch.isfinite(known)]
        if len(known) == 0:
            return None
        low, high = torch.quantile(known.double(), torch.tensor([_SUPPORT_TAIL, 1 - _SUPPORT_TAIL]).double())
        return float(low), float(high)

    def draw(self, classes: Tensor, requested: Tensor, seeds: Sequence[int] | np.ndarray) -> Tensor:
        """Fill the unset attributes of requests, each from a real galaxy that resembles the request.

        Parameters
        ----------
        classes : Tensor, (N,), int64
        requested : Tensor, (N, A), float32
            Physical units, NaN for what is unset.
        seeds : sequence or array of int, N
            Which galaxy it is depends on the request and on its seed alone.

        Returns
        -------
        Tensor, (N, A), float32
            NaN only where the drawn galaxy's value is unknown too, or the class has no galaxy.
        """
        filled, numbers = requested.clone(), np.asarray(seeds, np.int64)
        unfilled = requested.isnan().any(1)
        for index in range(len(MORPHOLOGIES)):
            rows = torch.nonzero(unfilled & (classes == index))[:, 0]
            if len(rows) > 0 and len(members := self.members(index)) > 0:
                filled[rows] = _fill(members, requested[rows], numbers[rows.numpy()])
        return filled


def _fill(members: Tensor, requested: Tensor, seeds: np.ndarray) -> Tensor:
    """Fill the unset attributes of requests (N, A) for one class from its galaxies (K, A)."""
    some_set = requested.isfinite().any(1)
    sizes = torch.where(some_set, _num_nearest(len(members)), len(members))
    row = torch.from_numpy(random_index(seeds, sizes.numpy()))
    if some_set.any():
        row[some_set] = _by_resemblance(members, requested[some_set], row[some_set])
    return torch.where(requested.isfinite(), requested, members[row])


def _num_nearest(size: int) -> int:
    """Return how many of a class's galaxies resemble a request: a fiftieth, but at least eight."""
    return min(size, max(8, size // 50))


def _by_resemblance(members: Tensor, requested: Tensor, rank: Tensor) -> Tensor:
    """Return the row (N,) of the galaxy (K, A) that comes at a rank (N,) by resemblance to each request (N, A)."""
    spread = _nan_std(members).nan_to_num(nan=1.0).clamp_min(1e-6)
    # A catalogue asks for the same again and again. Unset is infinite here, since no NaN is equal to another.
    wanted, kind = requested.nan_to_num(nan=torch.inf).unique(dim=0, return_inverse=True)
    found = torch.empty_like(rank)
    step = max(1, _TABLE_SIZE // len(members))
    for start in range(0, len(wanted), step):
        distance = torch.zeros(())
        for values, asked, scale in zip(members.T, wanted[start : start + step].T, spread, strict=True):
            # An unknown value counts as far away, so that galaxies with known values are preferred.
            offset = ((values - asked[:, None]) / scale).nan_to_num(nan=10.0)  # (step, K)
            distance = distance + torch.where(asked.isfinite()[:, None], offset, 0.0).square()
        nearest = distance.topk(_num_nearest(len(members)), largest=False).indices
        here = (kind >= start) & (kind < start + step)
        found[here] = nearest[kind[here] - start, rank[here]]
    return found


def _nan_std(values: Tensor) -> Tensor:
    """Return the standard deviation of each column over its known values."""
    mean = values.nanmean(0)
    return (values - mean).square().nanmean(0).sqrt()
