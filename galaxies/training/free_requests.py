"""Requests that no real galaxy of the batch stands beside: a generator learns to keep its galaxies real under them.

Trained on the attributes of real galaxies alone, a generator is told nothing of what lies between and beside them, nor
of attributes that few galaxies know: asked for several at their ends, or for a redshift, it paints skies that no
telescope shows. A free request takes each attribute by itself from what galaxies of the class have. No real galaxy
shows how such a one looks; so the discriminator, which knows galaxies with unknown attributes, is told the class alone,
and what was asked for is held by photometry, the predictor, and what the discriminator reads.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from config_physics import Config
from galaxies.datasets.batches import Batch
from galaxies.datasets.conditions import ConditionParts, take_apart

_STEPS = 128  # between the quantiles that are kept
_TAIL = 0.01  # of a class's galaxies at either end that free requests do not reach


@dataclass(frozen=True)
class FreeRequests:
    """What galaxies of each class have, and requests made of it.

    Attributes
    ----------
    quantiles : Tensor, (K, A, Q)
        Of each class and scaled attribute, evenly spaced from 1 % to 99 %; 0 where none is known.
    is_known : Tensor, (K, A)
        1 where any galaxy of the class knows the attribute.
    config : Config
    """

    quantiles: Tensor
    is_known: Tensor
    config: Config

    @classmethod
    def of(cls, classes: Tensor, scaled: Tensor, known: Tensor, config: Config) -> FreeRequests:
        """Return those of galaxies: classes (N,), scaled attributes and flags of what is known (N, A)."""
        count = len(config.classes), len(config.attributes)
        levels = torch.linspace(_TAIL, 1 - _TAIL, _STEPS + 1, dtype=torch.float64)
        quantiles, is_known = torch.zeros(*count, len(levels)), torch.zeros(count)
        device = scaled.device
        classes, scaled, known = (part.cpu() for part in (classes, scaled, known))
        for index in range(count[0]):
            for column in range(count[1]):
                values = scaled[(classes == index) & (known[:, column] > 0), column]
                if len(values):
                    quantiles[index, column] = torch.quantile(values.double(), levels).float()
                    is_known[index, column] = 1.0
        return cls(quantiles.to(device), is_known.to(device), config)

    @property
    def num_draws(self) -> int:
        """Uniform random numbers that a galaxy takes."""
        return 1 + 2 * len(self.config.attributes)

    def ask(self, batch: Batch, draws: Tensor) -> tuple[Batch, Tensor]:
        """Make free requests of part of a batch.

        Of its attributes half stay as they are, known or not; a quarter are drawn as galaxies of the class have them,
        and a quarter evenly between the ends of what they have.

        Parameters
        ----------
        batch : Batch
        draws : Tensor, (N, num_draws)
            Uniform in [0, 1).

        Returns
        -------
        Batch
            What the generator is asked for.
        Tensor, (N, config.condition_dim)
            What the discriminator is told.
        """
        free, way, place = draws.split([1, *[len(self.config.attributes)] * 2], 1)
        is_free = free < self.config.free_requests  # (N, 1)
        rows = self.quantiles[batch.classes]  # (N, A, Q)
        drawn = rows.gather(2, (place[..., None] * rows.shape[2]).long().clamp_max(rows.shape[2] - 1))[..., 0]
        even = torch.lerp(rows[..., 0], rows[..., -1], place)
        changed = is_free & (way < 0.5) & (self.is_known[batch.classes] > 0)
        scaled = torch.where(changed, torch.where(way < 0.25, even, drawn), batch.scaled)
        known = torch.where(changed, 1.0, batch.known)
        parts = take_apart(batch.condition, self.config)
        asked = torch.cat(parts._replace(scaled=scaled, flags=known), 1)
        alone = ConditionParts(parts.one_hot, torch.zeros_like(scaled), torch.zeros_like(known))
        told = torch.where(is_free, torch.cat(alone, 1), asked)
        return dataclasses.replace(batch, condition=asked, scaled=scaled, known=known), told
