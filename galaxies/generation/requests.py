"""Requests for galaxies: many alike, drawn together, or a row of a table each; no more in memory than there is need."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from config_physics import MORPHOLOGY_NAMES, Attribute
from galaxies.datasets.copula import JointDistribution
from galaxies.datasets.population import VERDICTS, Population
from galaxies.generation.request_values import (
    RequestError,
    angle_value,
    attribute_value,
    check_known,
    class_index,
    class_shares,
    count_value,
    seed_value,
)

if TYPE_CHECKING:
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.generation.sampler import GalaxySampler

_BLOCK = 65_536  # requests looked at together
_JOINT_METHOD = "Gaussian copula 1"  # another number once the same seed draws something else
_UNIFORM_SEEDS = 1_000_000  # from a seed to those of uniform requests, which share no noise with others


class RequestSequence(ABC):
    """Wanted images one after the other, a part of which is made or read when it is asked for."""

    @property
    @abstractmethod
    def turned(self) -> bool:
        """Whether a position angle is asked for."""

    @property
    def mixed(self) -> bool:
        """Whether shares of classes are asked for."""
        return False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def part(self, start: int, stop: int) -> Requests:
        """Return the requests from `start` to before `stop`."""

    def blocks(self, size: int) -> Iterator[Requests]:
        """Go through all requests, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.part(start, min(start + size, len(self)))

    def fingerprint(self) -> str:
        """Return a SHA-256 in hexadecimal that is another one for other requests."""
        digest = hashlib.sha256()
        for block in self.blocks(_BLOCK):
            digest.update(np.asarray(block.seeds, np.int64).tobytes())
            for part in (block.classes, block.values, block.position_angles, block.shares):
                if part is None:
                    continue
                digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def warnings(self, sampler: GalaxySampler, limit: int = 20) -> list[str]:
        """Collect, once each, what is asked that is unlike the real galaxies of its class, and how often.

        Parameters
        ----------
        sampler : GalaxySampler
            Knows the real galaxies.
        limit : int
            Most sentences about single requests.
        """
        seen: dict[str, None] = {}
        counts = torch.zeros(len(VERDICTS), dtype=torch.int64)
        for block in self.blocks(_BLOCK):
            verdicts = sampler.support(block.classes, block.values).verdicts
            counts += verdicts.bincount(minlength=len(VERDICTS))
            if len(seen) > limit or not (beyond := verdicts > 0).any():
                continue
            # Equal ones once; infinite is unset here, since no NaN is equal to another.
            values = block.values[beyond].nan_to_num(nan=torch.inf).double()
            for row in torch.cat([block.classes[beyond, None], values], 1).unique(dim=0):
                wanted = torch.where(row[1:].isinf(), math.nan, row[1:]).float()
                seen |= dict.fromkeys(sampler.unsupported(int(row[0]), wanted))
                if len(seen) > limit:
                    break
        sentences = list(seen)[:limit]
        if len(sentences) > 1:
            _, unusual, invented = counts.tolist()
            sentences.append(
                f"of {len(self):,} requests {unusual:,} are unusual among the galaxies of the training data and "
                f"{invented:,} are invented: the column support of the catalogue says which"
            )
        return sentences


@dataclass(frozen=True)
class Requests(RequestSequence):
    """Wanted images, all in memory.

    Attributes
    ----------
    classes : Tensor, (N,), int64
    values : Tensor, (N, A), float32
        Physical units, NaN for what is unset.
    seeds : sequence or array of int, N
    position_angles : Tensor, (N,), float32, optional
        Of the major axes, degrees from +x towards +y, NaN or left out where the seed decides.
    drawn : bool
        Whether the values were drawn together: then nobody set them, and what is NaN stays unknown.
    shares : Tensor, (N, K), float32, optional
        Of the classes, of sum 1, where mixtures are asked for; `classes` has that of the largest share.
    """

    classes: Tensor
    values: Tensor
    seeds: Sequence[int] | np.ndarray
    position_angles: Tensor | None = None
    drawn: bool = False
    shares: Tensor | None = None

    @classmethod
    def alike(
        cls,
        class_index: int,
        values: Sequence[float],
        seed: int,
        count: int,
        position_angle: float | None = None,
        shares: Sequence[float] | None = None,
    ) -> Requests:
        """Ask for `count` images of one class, or of shares (K), with the same values (A); takes no memory.

        Their seeds are consecutive.
        """
        one = torch.tensor(values, dtype=torch.float32)
        angles = None if position_angle is None else torch.tensor(position_angle).expand(count)
        mixed = None if shares is None else torch.tensor(shares, dtype=torch.float32).expand(count, -1)
        chosen = torch.tensor(class_index).expand(count)
        return cls(chosen, one.expand(count, -1), range(seed, seed + count), angles, shares=mixed)

    @property
    def turned(self) -> bool:
        """Whether a position angle is asked for."""
        return self.position_angles is not None

    @property
    def mixed(self) -> bool:
        """Whether shares of classes are asked for."""
        return self.shares is not None

    def __len__(self) -> int:
        return len(self.seeds)

    def part(self, start: int, stop: int) -> Requests:
        """Return the requests from `start` to before `stop`."""
        angles = None if self.position_angles is None else self.position_angles[start:stop]
        seeds = self.seeds[start:stop]
        shares = None if self.shares is None else self.shares[start:stop]
        return Requests(self.classes[start:stop], self.values[start:stop], seeds, angles, self.drawn, shares)


@dataclass(frozen=True)
class JointRequests(RequestSequence):
    """Images of galaxies whose classes and attributes are drawn together, as the training data have them.

    Attributes
    ----------
    joint : JointDistribution
    seed, count : int
        Galaxy k, its attributes and its picture, follows from the seed `seed` + k.
    position_angle : float, optional
        Of the major axes, degrees; left out, each seed decides.
    """

    joint: JointDistribution
    seed: int
    count: int
    position_angle: float | None = None

    @property
    def turned(self) -> bool:
        """Whether a position angle is asked for."""
        return self.position_angle is not None

    def __len__(self) -> int:
        return self.count

    def part(self, start: int, stop: int) -> Requests:
        """Draw the requests from `start` to before `stop`."""
        seeds = range(self.seed + start, self.seed + stop)
        classes, values = self.joint.draw(seeds)
        angles = None if self.position_angle is None else torch.tensor(self.position_angle).expand(len(seeds))
        return Requests(classes, values, seeds, angles, drawn=True)

    def fingerprint(self) -> str:
        """Return what is another one for other draws from the same checkpoint, without drawing."""
        said = f"{_JOINT_METHOD}|{self.seed}|{self.count}|{self.joint.only}|{self.position_angle}"
        return hashlib.sha256(said.encode()).hexdigest()

    def warnings(self, sampler: GalaxySampler, limit: int = 20) -> list[str]:
        """Return nothing: what is drawn is like real galaxies."""
        return []


def requests_alike(
    morphology: str | None,
    given: Mapping[str, Any],
    attributes: Sequence[str | Attribute],
    seed: int,
    count: int,
    classes: Sequence[str] = MORPHOLOGY_NAMES,
    position_angle: float | None = None,
) -> Requests:
    """Ask for images that differ by their seeds alone.

    Parameters
    ----------
    morphology : str or None
        Name of a class, or shares of several (see `request_values.class_shares`); None where there is one class only.
    given : mapping of str to float
        Attributes that are set, in physical units; the others are drawn.
    attributes : sequence of str or Attribute
        Those that the checkpoint knows, in its order.
    seed, count : int
        Seed of the first image, and how many there are.
    classes : sequence of str
        Of the checkpoint.
    position_angle : float, optional
        Of the major axes, degrees; left out, each seed decides.

    Raises
    ------
    UserError
        If the checkpoint does not know an attribute, the class is none, or a value, the seed or the count is none.
    """
    names = names_of(attributes)
    check_known(list(given), names)
    pairs = zip(names, attributes, strict=True)
    values = [attribute_value(row, given[name]) if name in given else math.nan for name, row in pairs]
    chosen, shares = (_only_class(classes), None) if morphology is None else class_shares(morphology, classes)
    angle = None if position_angle is None else angle_value(position_angle)
    return Requests.alike(chosen, values, seed_value(seed), count_value(count), angle, shares)


def requests_together(
    morphology: str | None,
    population: Population,
    seed: int,
    count: int,
    classes: Sequence[str] = MORPHOLOGY_NAMES,
    position_angle: float | None = None,
) -> JointRequests:
    """Ask for galaxies whose attributes, and without a class also classes, are drawn together.

    The parameters are those of `requests_alike`, and the real galaxies behind the checkpoint.

    Raises
    ------
    UserError
        If the class is none, or none of the galaxies is of it, or the seed or the count is none.
    """
    only = None if morphology is None else class_index(morphology, classes)
    angle = None if position_angle is None else angle_value(position_angle)
    joint = JointDistribution(population, tuple(classes), only)
    return JointRequests(joint, seed_value(seed), count_value(count), angle)


def _only_class(classes: Sequence[str]) -> int:
    if len(classes) > 1:
        raise RequestError(f"say which galaxies: --morphology {'|'.join(classes)}", "morphology", ", ".join(classes))
    return 0


def names_of(attributes: Sequence[str | Attribute]) -> list[str]:
    """Return the names of attributes, some of which may be told by their names alone."""
    return [one if isinstance(one, str) else one.name for one in attributes]


def requests_like_test(
    data: PreparedDataset,
    attributes: tuple[str, ...],
    count: int,
    seed: int,
    split: str = "test",
    mixed: bool = False,
) -> Requests:
    """Ask for the classes and attributes of a split's galaxies, each about equally often; unknown stays unknown.

    They are `mixed` if each is asked for with its shares of the classes, as generators are told that learn from such.

    Raises
    ------
    UserError
        If shares are wanted of a dataset that has none.
    """
    rows = data.rows(split)
    rng = np.random.default_rng([seed, 1])
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    chosen = np.concatenate(rounds)[:count]
    values = torch.from_numpy(data.attributes(attributes, chosen)).float()
    shares = torch.from_numpy(data.class_shares(chosen)) if mixed else None
    return Requests(torch.from_numpy(data.classes(chosen)), values, range(seed, seed + count), shares=shares)


def uniform_requests(sampler: GalaxySampler, count: int, seed: int) -> Requests:
    """Ask for each class equally often, and for attributes uniform and independent within what the class supports.

    They are uniform on the scale of each attribute.
    """
    present = [i for i in range(len(sampler.config.classes)) if len(sampler.population.members(i))]
    classes = np.array([present[k % len(present)] for k in range(count)])
    position = np.random.default_rng([seed, 2]).uniform(size=(count, len(sampler.attributes)))
    unknown = (np.nan, np.nan)
    limits = np.array([[unknown if s is None else s for s in row] for row in sampler.supported])[classes]  # (N, A, 2)
    values = np.empty_like(position)
    for place, attribute in enumerate(sampler.attributes):
        low, high = attribute.steps_of(limits[:, place, 0]), attribute.steps_of(limits[:, place, 1])
        values[:, place] = attribute.value_of(low + position[:, place] * (high - low))
    first = seed + _UNIFORM_SEEDS
    return Requests(torch.from_numpy(classes), torch.from_numpy(values).float(), range(first, first + count))
