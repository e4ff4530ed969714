"""The one loop by which validation trains its classifiers: the judge, real or generated, and a rare class.

A classifier hands in its network, how it draws a batch and what the loss of it is; the loop takes the steps. With
galaxies held out, their loss says when to stop and which weights are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from tqdm import tqdm

LEARNING_RATE = 3e-3  # at its highest

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class HeldOut(Generic[Network]):
    """Galaxies that are not learned from, by which training is stopped.

    Attributes
    ----------
    loss : callable
        Takes the network, in evaluation mode, and returns its loss on them. Losses that are not finite count as worst.
    every : int
        Steps from one look at that loss to the next.
    patience : int
        Looks without a new lowest loss after which training stops.
    """

    loss: Callable[[Network], float]
    every: int
    patience: int


@dataclass(frozen=True)
class Trained(Generic[Network]):
    """A trained network in evaluation mode.

    Attributes
    ----------
    network : nn.Module
        With galaxies held out, it has the weights whose loss on them was lowest.
    best_look : int
        The look, counted from 1, that found these; 0 without galaxies held out, or if their loss was never finite.
    """

    network: Network
    best_look: int


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Raise the step size to its highest and take it down again, as in Smith & Topin 2018 (arXiv:1708.07120)."""
    return OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)


def linear_decay(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Take the step size from its highest to 0 in a straight line."""
    return LambdaLR(optimizer, lambda step: 1 - step / steps)


def train_classifier(
    build: Callable[[], Network],
    draw_loss: Callable[[Network], Tensor],
    steps: int,
    seed: int,
    *,
    weight_decay: float = 0.01,
    schedule: Callable[[Optimizer, int], LRScheduler] = one_cycle,
    held_out: HeldOut[Network] | None = None,
    title: str | None = None,
) -> Trained[Network]:
    """Train a network with AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Parameters
    ----------
    build : callable
        Returns the network on its device.
    draw_loss : callable
        Takes the network, in training mode, and returns its loss on a batch that it draws.
    steps : int
        Batches; with `held_out` a multiple of its `every`.
    seed : int
        Of the initial weights and of dropout; the global random state of the CPU is left as it was.
    weight_decay : float
    schedule : callable
        Takes the optimiser and the number of steps.
    held_out : HeldOut, optional
    title : str, optional
        Beside a progress bar; without it there is none.
    """
    every = held_out.every if held_out else 1
    best: dict[str, Tensor] | None = None
    best_loss, best_look = math.inf, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=weight_decay)
        rate = schedule(optimizer, steps)
        looks = range(1, steps // every + 1)
        for look in tqdm(looks, title, unit="epoch" if held_out else " steps", leave=False, disable=title is None):
            network.train()
            for _ in range(every):
                loss = draw_loss(network)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                rate.step()
            if held_out is None:
                continue
            network.eval()
            held_loss = held_out.loss(network)
            if held_loss < best_loss:
                best_loss, best_look = held_loss, look
                best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
            elif look - best_look >= held_out.patience:
                break
    if best is not None:
        network.load_state_dict(best)
    return Trained(network.eval(), best_look)
