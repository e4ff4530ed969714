"""Turn a checkpoint into galaxies: conditions, support in the training data, and images by seed."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from config_physics import MORPHOLOGIES, Attribute, Config, attribute_table
from galaxies.common.errors import UserError
from galaxies.compute.cores import map_on_cores
from galaxies.compute.device import Engine
from galaxies.datasets.conditions import condition_vector
from galaxies.datasets.population import Population
from galaxies.datasets.prepared import to_uint8
from galaxies.generation.build import FAMILIES, Asked, build_generator, chunk_size, config_of, generator_weights
from galaxies.generation.exact_kernels import exactly
from galaxies.generation.solvers import Solver
from galaxies.networks.layers import ImageGenerator
from galaxies.storage.release import load_state

_CHUNKS_AHEAD = 16  # chunks that an accelerator is given before anybody waits for the first


class GalaxySampler:
    """A trained generator with what it needs to answer requests.

    Parameters
    ----------
    network : ImageGenerator
        On the engine's device; it runs in evaluation mode and keeps the mode that it had.
    config : Config
    population : Population
        Of the training split.
    engine : Engine
    solver : Solver, optional
        Of a diffusion model; by default that of its settings.
    """

    def __init__(
        self,
        network: ImageGenerator,
        config: Config,
        population: Population,
        engine: Engine,
        solver: Solver | None = None,
    ) -> None:
        self.network = network
        self.solver = solver or Solver(config.solver, config.solver_steps, config.guidance)
        self.config, self.family = config, FAMILIES[config.family]
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
    def from_checkpoint(cls, path: Path, device: str = "auto", **solver: Any) -> GalaxySampler:
        """Load the generator of a release or of a run's checkpoint, averaged if it averages.

        `solver` changes fields of its solver.

        Raises
        ------
        UserError
            If the checkpoint cannot be used, or was saved before the generator's training began.
        """
        return cls.from_state(load_state(path), path, device, **solver)

    @classmethod
    def from_state(cls, state: dict[str, Any], path: Path, device: str = "auto", **solver: Any) -> GalaxySampler:
        """Do as `from_checkpoint` with the content of the checkpoint at `path`, already read.

        Raises
        ------
        UserError
            As `from_checkpoint` does.
        """
        if state["phase"] != "generator" or state["step"] == 0:
            raise UserError(f"{path} was saved before the generator's training: resume_training.py goes on from there")
        config = config_of(state, path)
        # Generation runs in float32: it is fast enough, and the images do not depend on the processor's bf16 units.
        engine = Engine.choose(device, "fp32")
        network = build_generator(config)
        try:
            network.load_state_dict(generator_weights(state))
        except RuntimeError:
            raise UserError(f"{path} holds a network of another release: train again") from None
        population = Population(state["population"]["classes"], state["population"]["values"])
        sampler = cls(engine.prepare(network), config, population, engine)
        if solver and not sampler.family.has_solver:
            raise UserError(f"{path} holds no diffusion model: only those have a {', a '.join(solver)}")
        sampler.solver = replace(sampler.solver, **solver)
        if sampler.solver.guidance != 1 and config.condition_dropout == 0:
            raise UserError(f"{path} was trained without condition dropout, which guidance needs: leave out --guidance")
        if sampler.solver.photometry and not any(a.source == "photometry" for a in sampler.attributes):
            raise UserError(f"{path} knows no attribute that photometry measures: leave out --photometric-guidance")
        return sampler

    def complete(self, class_index: int, requested: Tensor, seed: int) -> Tensor:
        """Draw the unset (NaN) attributes of one request (A,); the same seed draws the same galaxy."""
        return self.complete_all(torch.tensor([class_index]), requested[None], [seed])[0]

    def complete_all(self, classes: Tensor, requested: Tensor, seeds: Sequence[int] | np.ndarray) -> Tensor:
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

    def generate(self, classes: Tensor, values: Tensor, seeds: Sequence[int] | np.ndarray) -> Tensor:
        """Generate one image for each request.

        Parameters
        ----------
        classes : Tensor, (N,), int64
        values : Tensor, (N, A), float32
            Physical units, NaN where unknown.
        seeds : sequence or array of int, N
            Image k depends on the network, on its condition and on seeds[k] alone.

        Returns
        -------
        Tensor, (N, 3, S, S), uint8, on the CPU
        """
        told = condition_vector(classes, values, self.config)
        # The last chunk is filled up with copies: networks round differently in batches of different sizes.
        rows = torch.arange(-(-len(classes) // self._chunk) * self._chunk).clamp_max(len(classes) - 1)
        wanted, chosen = [part[rows] for part in told], np.asarray(seeds, np.int64)[rows.numpy()]
        with self._alone, exactly(self.network):
            run = self._on_cores if self.engine.device.type == "cpu" else self._on_accelerator
            return run(wanted, chosen)[: len(classes)]

    def describe(self) -> str:
        """Say what draws the images."""
        return self.family.describe(self.config, self.solver)

    def _noise(self, seeds: np.ndarray) -> Tensor:
        return self.family.noise(self.config, self.network, seeds)

    def _draw_chunk(self, z: Tensor, seeds: np.ndarray, condition: Tensor, scaled: Tensor, known: Tensor) -> Tensor:
        """Draw the images of noise (N, L), seeds (N,), and what `condition_vector` gives."""
        asked = Asked(seeds, condition, scaled, known, self.attributes)
        return to_uint8(self.family.draw(self.network, z, asked, self.solver))

    def _on_cores(self, wanted: list[Tensor], seeds: np.ndarray) -> Tensor:
        images = self._empty(len(seeds))

        def work(rows: Tensor) -> None:
            chosen = seeds[rows.numpy()]
            images[rows] = self._draw_chunk(self._noise(chosen), chosen, *(part[rows] for part in wanted))

        map_on_cores(work, torch.arange(len(seeds)).split(self._chunk))
        return images

    def _empty(self, count: int) -> Tensor:
        return torch.empty(
            count, self.config.num_bands, self.config.image_size, self.config.image_size, dtype=torch.uint8
        )

    def _on_accelerator(self, wanted: list[Tensor], seeds: np.ndarray) -> Tensor:
        """Generate without waiting for the device between chunks, and make the next noise while it works."""
        images, blocks = self._empty(len(seeds)), torch.arange(len(seeds)).split(_CHUNKS_AHEAD * self._chunk)
        device = self.engine.device

        def inputs(block: Tensor) -> list[Tensor]:
            chosen = seeds[block.numpy()]
            parts = [self._noise(chosen), *(part[block] for part in wanted)]
            z, *told = (whole.to(device).split(self._chunk) for whole in parts)
            return list(zip(z, np.split(chosen, len(z)), *told, strict=True))

        upcoming = inputs(blocks[0])
        for block, following in zip(blocks, (*blocks[1:], None), strict=True):
            drawn = [self._draw_chunk(*chunk) for chunk in upcoming]
            if following is not None:
                upcoming = inputs(following)
            images[block[0] : block[-1] + 1] = torch.cat(drawn).contiguous()  # to the CPU, in planes
        return images
