"""Turn a checkpoint into galaxies: conditions, support in the training data, and images by seed."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from checkpoint import load_checkpoint
from config_physics import MORPHOLOGIES, Attribute, Config, UserError, attribute_table
from cores import map_on_cores
from dataset import condition_vector, to_uint8
from engine import Engine
from gan_model import FrameGenerator, Generator
from philox import random_index, standard_normal

_TABLE_SIZE = 2**18  # requests times real galaxies that are compared at a time
_CHUNKS_AHEAD = 16  # chunks that an accelerator is given before anybody waits for the first
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

    def draw(self, classes: Tensor, requested: Tensor, seeds: Sequence[int]) -> Tensor:
        """Fill the unset attributes of requests, each from a real galaxy that resembles the request.

        Parameters
        ----------
        classes : Tensor, (N,), int64
        requested : Tensor, (N, A), float32
            Physical units, NaN for what is unset.
        seeds : sequence of int, N
            Which galaxy it is depends on the request and on its seed alone.

        Returns
        -------
        Tensor, (N, A), float32
            NaN only where the drawn galaxy's value is unknown too, or the class has no galaxy.
        """
        filled, seeds = requested.clone(), np.asarray(seeds, np.int64)
        unfilled = requested.isnan().any(1)
        for index in range(len(MORPHOLOGIES)):
            rows = torch.nonzero(unfilled & (classes == index))[:, 0]
            if len(rows) > 0 and len(members := self.members(index)) > 0:
                filled[rows] = _fill(members, requested[rows], seeds[rows.numpy()])
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


class GalaxySampler:
    """A trained generator with what it needs to answer requests.

    Parameters
    ----------
    network : nn.Module
        Generator on the engine's device; it runs in evaluation mode and keeps the mode that it had.
    config : Config
    population : Population
        Of the training split.
    engine : Engine
    """

    def __init__(self, network: nn.Module, config: Config, population: Population, engine: Engine) -> None:
        self.network = network
        self.config = config
        self.population = population
        self.engine = engine
        self.attributes: tuple[Attribute, ...] = attribute_table(config.attributes)
        self._chunk = chunk_size(config, engine.device)
        self._alone = threading.Lock()
        # [class][attribute] -> (low, high), or None where nothing is known
        self.supported = [
            [population.supported_range(index, column) for column in range(len(self.attributes))]
            for index in range(len(MORPHOLOGIES))
        ]

    @classmethod
    def from_checkpoint(cls, path: Path, device: str = "auto") -> GalaxySampler:
        """Load the (averaged, if the run averages) generator of a checkpoint.

        Raises
        ------
        UserError
            If the checkpoint cannot be used, or was saved before the generator's training began.
        """
        state = load_checkpoint(path)
        if state["phase"] != "generator" or state["step"] == 0:
            raise UserError(f"{path} was saved before the generator's training: resume_training.py goes on from there")
        config = config_of(state, path)
        # Generation runs in float32: it is fast enough, and the images do not depend on the processor's bf16 units.
        engine = Engine.choose(device, "fp32")
        network = build_generator(config)
        network.load_state_dict(generator_weights(state))
        population = Population(state["population"]["classes"], state["population"]["values"])
        return cls(engine.prepare(network), config, population, engine)

    def complete(self, class_index: int, requested: Tensor, seed: int) -> Tensor:
        """Draw the unset (NaN) attributes of one request (A,); the same seed draws the same galaxy."""
        return self.complete_all(torch.tensor([class_index]), requested[None], [seed])[0]

    def complete_all(self, classes: Tensor, requested: Tensor, seeds: Sequence[int]) -> Tensor:
        """Draw the unset (NaN) attributes of requests (N, A), each by its seed: as `complete` does one by one."""
        return self.population.draw(classes, requested, seeds)

    def unsupported(self, class_index: int, values: Tensor) -> list[str]:
        """Say in a sentence for each set attribute (A,) outside the class's range what the range is."""
        label = MORPHOLOGIES[class_index].name
        if len(self.population.members(class_index)) == 0:
            return [f"there is no {label} galaxy in the training data"]
        sentences = []
        for index, attribute in enumerate(self.attributes):
            value = float(values[index])
            if value != value:
                continue
            limits = self.supported[class_index][index]
            if limits is None:
                sentences.append(f"{attribute.name} is known for no {label} galaxy in the training data")
            elif not limits[0] <= value <= limits[1]:
                unit = f" {attribute.unit}" if attribute.unit else ""
                sentences.append(
                    f"{attribute.name} {value:g} is outside the range {limits[0]:.4g} to {limits[1]:.4g}{unit} "
                    f"that {label} galaxies in the training data support"
                )
        return sentences

    def supports(self, classes: Tensor, values: Tensor) -> Tensor:
        """Tell for each request, classes (N,) and values (N, A), whether it is within the training data: (N,) bool."""
        nothing = (math.inf, -math.inf)
        limits = torch.tensor([[pair or nothing for pair in row] for row in self.supported]).double()[classes]
        inside = (limits[..., 0] <= values) & (values <= limits[..., 1])
        known_class = torch.bincount(self.population.classes, minlength=len(MORPHOLOGIES)) > 0
        return (inside | values.isnan()).all(1) & known_class[classes]

    def generate(self, classes: Tensor, values: Tensor, seeds: Sequence[int]) -> Tensor:
        """Generate one image for each request.

        Parameters
        ----------
        classes : Tensor, (N,), int64
        values : Tensor, (N, A), float32
            Physical units, NaN where unknown.
        seeds : sequence of int, N
            Image k depends on the network, on its condition and on seeds[k] alone.

        Returns
        -------
        Tensor, (N, 3, S, S), uint8, on the CPU
        """
        condition, _, _ = condition_vector(classes, values, self.config)
        # The last chunk is filled up with copies: networks round differently in batches of different sizes.
        rows = torch.arange(-(-len(condition) // self._chunk) * self._chunk).clamp_max(len(condition) - 1)
        condition, seeds = condition[rows], np.asarray(seeds, np.int64)[rows.numpy()]
        with self._alone, _exact(self.network):
            run = self._on_cores if self.engine.device.type == "cpu" else self._on_accelerator
            return run(condition, seeds)[: len(classes)]

    def _draw_chunk(self, inputs: Sequence[Tensor]) -> Tensor:
        with torch.inference_mode():
            return to_uint8(self.network(*inputs))

    def _on_cores(self, condition: Tensor, seeds: np.ndarray) -> Tensor:
        z, images = standard_normal(seeds, self.config.latent_dim), self._empty(len(seeds))

        def work(parts: tuple[Tensor, ...]) -> None:
            place, *inputs = parts
            place.copy_(self._draw_chunk(inputs))

        map_on_cores(work, list(zip(*(part.split(self._chunk) for part in (images, z, condition)), strict=True)))
        return images

    def _empty(self, count: int) -> Tensor:
        return torch.empty(count, 3, self.config.image_size, self.config.image_size, dtype=torch.uint8)

    def _on_accelerator(self, condition: Tensor, seeds: np.ndarray) -> Tensor:
        """Generate without waiting for the device between chunks, and make the next noise while it works."""
        images, blocks = self._empty(len(seeds)), torch.arange(len(seeds)).split(_CHUNKS_AHEAD * self._chunk)

        def inputs(block: Tensor) -> tuple[Tensor, Tensor]:
            z = standard_normal(seeds[block.numpy()], self.config.latent_dim)
            return z.to(self.engine.device), condition[block].to(self.engine.device)

        upcoming = inputs(blocks[0])
        for block, following in zip(blocks, (*blocks[1:], None), strict=True):
            z, c = upcoming
            drawn = [self._draw_chunk(chunk) for chunk in zip(z.split(self._chunk), c.split(self._chunk), strict=True)]
            if following is not None:
                upcoming = inputs(following)
            images[block[0] : block[-1] + 1] = torch.cat(drawn).contiguous()  # to the CPU, in planes
        return images


def chunk_size(config: Config, device: torch.device) -> int:
    """Return how many images go through a generator of these settings together, on every call.

    On a CPU a core works on a chunk alone, and one image costs a whole chunk: about 8 ms. An accelerator needs enough
    images to keep it busy between the commands that it is given. Memory for a chunk is the same at every image size.
    """
    area = (config.image_size // 64) ** 2
    if device.type == "cpu":
        return min(16, max(1, 128 // (config.width * area)))
    return max(8, 256 // area)


@contextmanager
def _exact(network: nn.Module) -> Iterator[None]:
    """Run a network in evaluation mode, with the same float32 kernels in every process."""
    was_training, matmul = network.training, torch.backends.cuda.matmul
    reduced = matmul.allow_tf32
    network.eval()
    matmul.allow_tf32 = False
    try:
        # No trying out which kernel is fastest today, and no reduced precision.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = reduced
        network.train(was_training)


def config_of(state: dict[str, Any], path: Path) -> Config:
    """Return the settings of a checkpoint's content.

    Raises
    ------
    UserError
        If settings or attributes are not those of this release: the networks would be asked in other units.
    """
    config = Config.from_dict(state["config"])
    for saved, current in zip(state["attributes"], attribute_table(config.attributes), strict=True):
        if any(saved[key] != getattr(current, key) for key in ("name", "unit", "low", "high", "raw")):
            raise UserError(f"{path} defines the attribute {current.name} differently from this release: train again")
    return config


def build_generator(config: Config) -> FrameGenerator | Generator:
    """Return a new generator of the settings' shape, on the CPU."""
    shape = config.latent_dim, config.condition_dim, config.width, config.image_size
    return FrameGenerator(*shape) if config.generator == "frame" else Generator(*shape, config.generator)


def generator_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the generator's weights from a checkpoint: the running average where there is one."""
    if state["ema"] is None:
        return state["networks"]["generator"]
    prefix = "module."
    return {name[len(prefix) :]: value for name, value in state["ema"].items() if name.startswith(prefix)}
