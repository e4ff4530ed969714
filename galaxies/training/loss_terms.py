"""The terms of the losses: one row of a table each, from which loss, log, sums, progress bar, curves and limits follow.

To add one: write its function in the model's file, its weight among the settings of `config_physics`, and its row in
`gan_learner.GAN_TERMS`, `diffusion_learner.DENOISER_TERMS`, or, for both, `learner.PHYSICS_TERMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from config_physics import Config

# Charts of the curves, in the order in which they are drawn; "" is none.
PREDICTOR = "Phase 1: the predictor on real galaxies"
ADVERSARIAL = "Phase 2: adversarial losses"
PROBABILITY = "Phase 2: discriminator's mean probability of real"
DENOISING = "Phase 2: denoising"
PHYSICS = "Phase 2: physics of generated galaxies"
FURTHER = "Phase 2: further terms of the loss"
CHARTS = (PREDICTOR, ADVERSARIAL, PROBABILITY, DENOISING, PHYSICS, FURTHER)


class Shown(NamedTuple):
    """How a number of the log is shown.

    Attributes
    ----------
    key, label : str
        Its names in `metrics.jsonl` and for people.
    chart : str
        The one of `CHARTS` that it is drawn in; "" for none.
    on_bar : bool
        Beside the progress bar.
    """

    key: str
    label: str
    chart: str = FURTHER
    on_bar: bool = True


@dataclass(frozen=True)
class LossTerm:
    """One term of a network's loss.

    Attributes
    ----------
    name : str
        In the log.
    weight : str or float
        In the network's loss; a text is the name of the setting that says it.
    compute : callable
        From the learner and what its step has seen (for the GAN `Discriminated` or `Generated`) to a scalar. It must
        not make the host wait for the device.
    network : {"predictor", "discriminator", "generator"}
        Whose loss it belongs to.
    part_of : str
        The sum in the log that it counts in, with its weight; "" for none.
    wanted : callable
        Whether a run of these settings has the term at all.
    every, first : int
        It is computed at steps `first`, `first` + `every`, ..., each time counting `every` times as much, and not at
        all while its weight is 0; on the other steps it is 0.
    logged : bool
    takes_gradient : bool
        It is computed from a gradient, whose own gradient cannot be compiled.
    limits : callable, optional
        From the settings to the least that the term can be and what guessing costs; health warnings follow.
    label, chart, on_bar
        See `Shown`; without a label it is shown under its name.
    """

    name: str
    weight: str | float
    compute: Callable[[Any, Any], Tensor]
    network: str = "generator"
    part_of: str = "g_loss"
    wanted: Callable[[Config], bool] = lambda _: True
    every: int = 1
    first: int = 0
    logged: bool = True
    takes_gradient: bool = False
    limits: Callable[[Config], tuple[float, float]] | None = None
    label: str = ""
    chart: str = FURTHER
    on_bar: bool = True

    def weight_in(self, config: Config) -> float:
        """Return the weight in a run of these settings."""
        return getattr(config, self.weight) if isinstance(self.weight, str) else self.weight

    def is_due(self, config: Config, step: int) -> bool:
        """Tell whether the step with this number computes the term."""
        return self.every == 1 or (self.weight_in(config) > 0 and step % self.every == self.first)

    @property
    def shown(self) -> Shown:
        """How it is shown."""
        return Shown(self.name, self.label or self.name, self.chart, self.on_bar)


def chosen(table: Iterable[LossTerm], config: Config) -> tuple[LossTerm, ...]:
    """Return the terms that a run of these settings has."""
    return tuple(term for term in table if term.wanted(config))


def weighted_sum(
    terms: Iterable[LossTerm], learner: Any, seen: Any, due: Iterable[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute a loss.

    Parameters
    ----------
    terms : iterable of LossTerm
        Those of one network.
    learner, seen
        What the terms are computed from.
    due : iterable of str
        Names of the terms with `every` above 1 that this step computes.

    Returns
    -------
    total : Tensor, ()
    values : dict of str to Tensor, ()
        Without their weights, of the terms that are logged.
    """
    total, values = None, {}
    for term in terms:
        if term.every > 1 and term.name not in due:
            value = torch.zeros((), device=learner.engine.device)
        elif (weight := term.weight_in(learner.config)) == 0:
            with torch.no_grad():  # for the log alone
                value = term.compute(learner, seen)
        else:
            value = term.compute(learner, seen)
            if term.every > 1:
                value = term.every * value
            part = value if weight == 1 else weight * value
            total = part if total is None else total + part
        if term.logged:
            values[term.name] = value
    if total is None:
        raise ValueError("a loss needs a term that every step computes")
    return total, values


def sums(terms: Iterable[LossTerm], config: Config, means: dict[str, float]) -> dict[str, float]:
    """Return the sums in which terms count, of their means; those that lack a mean are left out."""
    parts: dict[str, list[tuple[str, float]]] = {}
    for term in terms:
        if term.part_of:
            parts.setdefault(term.part_of, []).append((term.name, term.weight_in(config)))
    return {
        name: sum(weight * means[term] for term, weight in weighted)
        for name, weighted in parts.items()
        if all(term in means for term, _ in weighted)
    }


def limits(terms: Iterable[LossTerm], config: Config) -> tuple[float, float] | None:
    """Return the least sum of the terms that know their limits, and what guessing costs; None where none does."""
    known = [term.limits(config) for term in terms if term.limits is not None]
    return (sum(low for low, _ in known), sum(high for _, high in known)) if known else None
