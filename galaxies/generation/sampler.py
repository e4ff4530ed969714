"""Turn a checkpoint into galaxies: conditions, support in the training data, and images by seed."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from config_physics import MORPHOLOGIES, Attribute, Config, attribute_table
from diffusion_model import ContextUnet, DiffusionGenerator, GaussianDiffusion
from galaxies.common.errors import UserError
from galaxies.compute.cores import map_on_cores
from galaxies.compute.engine import Engine
from galaxies.compute.seeded_noise import STEPS, coarse_normal, standard_normal
from galaxies.datasets.conditions import condition_vector
from galaxies.datasets.population import Population
from galaxies.datasets.prepared import to_uint8
from galaxies.generation.solvers import Solver, draw_images
from galaxies.networks.sky_grain import GrainyGenerator
from galaxies.storage.release import load_state
from gan_model import FrameGenerator, Generator, ResidualGenerator

_CHUNKS_AHEAD = 16  # chunks that an accelerator is given before anybody waits for the first


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
    solver : Solver, optional
        Of a diffusion model; by default that of its settings.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Config,
        population: Population,
        engine: Engine,
        solver: Solver | None = None,
    ) -> None:
        self.network = network
        self.solver = solver or Solver(config.solver, config.solver_steps, config.guidance)
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
        if solver and not config.diffusion:
            raise UserError(f"{path} holds no diffusion model: only those have a {', a '.join(solver)}")
        sampler.solver = replace(sampler.solver, **solver)
        if sampler.solver.guidance != 1 and config.diffusion and config.condition_dropout == 0:
            raise UserError(f"{path} was trained without condition dropout, which guidance needs: leave out --guidance")
        if sampler.solver.photometry and not any(a.source == "photometry" for a in sampler.attributes):
            raise UserError(f"{path} knows no attribute that photometry measures: leave out --photometric-guidance")
        return sampler

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
        wanted = condition_vector(classes, values, self.config)
        # The last chunk is filled up with copies: networks round differently in batches of different sizes.
        rows = torch.arange(-(-len(classes) // self._chunk) * self._chunk).clamp_max(len(classes) - 1)
        wanted, seeds = [part[rows] for part in wanted], np.asarray(seeds, np.int64)[rows.numpy()]
        with self._alone, _exact(self.network):
            run = self._on_cores if self.engine.device.type == "cpu" else self._on_accelerator
            return run(wanted, seeds)[: len(classes)]

    def describe(self) -> str:
        """Say what draws the images."""
        if not self.config.diffusion:
            return f"generator {self.config.generator}{' with pixel noise' if self.config.pixel_noise else ''}"
        solver = self.solver
        pushed = f", photometric guidance {solver.photometry:g}" if solver.photometry else ""
        return f"diffusion, {solver.name} with {solver.num_steps} steps, guidance {solver.guidance:g}{pushed}"

    def _noise(self, seeds: np.ndarray) -> Tensor:
        config = self.config
        if config.diffusion:
            return standard_normal(seeds, self.network.noise_dim)
        # A galaxy is the same one whether it gets grain or not.
        latent = standard_normal(seeds, config.latent_dim)
        return torch.cat([latent, coarse_normal(seeds, self.network.noise_dim - config.latent_dim)], 1)

    def _draw_chunk(self, z: Tensor, seeds: np.ndarray, condition: Tensor, scaled: Tensor, known: Tensor) -> Tensor:
        """Draw the images of noise (N, L), seeds (N,), and what `condition_vector` gives."""
        if not self.config.diffusion:
            with torch.inference_mode():
                return to_uint8(self.network(z, condition))
        shape = (len(z), *self.network.shape)

        def step_noise(step: int) -> Tensor:
            return standard_normal(seeds, z.shape[1], STEPS + step).view(shape).to(z.device)

        with torch.no_grad():
            return to_uint8(
                draw_images(
                    self.network, z.view(shape), condition, self.solver, step_noise, self.attributes, scaled, known
                )
            )

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


def chunk_size(config: Config, device: torch.device) -> int:
    """Return how many images go through a generator of these settings together, on every call.

    On a CPU a core works on a chunk alone, and one image costs a whole chunk: about 8 ms. An accelerator needs enough
    images to keep it busy between the commands that it is given. Memory for a chunk is the same at every image size.
    """
    area = (config.image_size // 64) ** 2
    if config.diffusion:
        return max(1, 4 // area) if device.type == "cpu" else max(4, 64 // area)
    if device.type == "cpu":
        return min(16, max(1, 128 // (config.width * area)))
    return max(8, 256 // area)


class _ExactKernels:
    """The same float32 kernels in every process, as long as anybody is inside: the flags are the whole process's.

    No trying out which kernel is fastest today, and no reduced precision.
    """

    _WANTED = (("benchmark", False), ("deterministic", True), ("allow_tf32", False))

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, ()

    def __enter__(self) -> None:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        with self._lock:
            if self._inside == 0:
                self._before = (*((name, getattr(cudnn, name)) for name, _ in self._WANTED), matmul.allow_tf32)
                for name, value in self._WANTED:
                    setattr(cudnn, name, value)
                matmul.allow_tf32 = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                *flags, torch.backends.cuda.matmul.allow_tf32 = self._before
                for name, value in flags:
                    setattr(torch.backends.cudnn, name, value)


_EXACT_KERNELS = _ExactKernels()


@contextmanager
def _exact(network: nn.Module) -> Iterator[None]:
    """Run a network in evaluation mode, with the same float32 kernels in every process."""
    was_training = network.training
    network.eval()
    try:
        with _EXACT_KERNELS:
            yield
    finally:
        network.train(was_training)


def config_of(state: dict[str, Any], path: Path) -> Config:
    """Return the settings of a checkpoint's content.

    Raises
    ------
    UserError
        If settings or attributes are not those of this release: the networks would be asked in other units.
    """
    try:
        config = Config.from_dict(state["config"])
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    for saved, current in zip(state["attributes"], attribute_table(config.attributes), strict=True):
        if any(saved[key] != getattr(current, key) for key in ("name", "unit", "low", "high", "raw")):
            raise UserError(f"{path} defines the attribute {current.name} differently from this release: train again")
    return config


def build_generator(config: Config) -> nn.Module:
    """Return a new generator of the settings' shape, on the CPU."""
    if config.diffusion:
        unet = ContextUnet(config.condition_dim, config.width, config.image_size, config.unet_blocks, config.unet_patch)
        process = GaussianDiffusion(
            config.noise_schedule, config.diffusion_steps, config.prediction, config.noise_shift
        )
        return DiffusionGenerator(unet, process, config.image_size)
    shape = config.latent_dim, config.condition_dim, config.width, config.image_size
    if config.generator == "frame":
        network = FrameGenerator(*shape, config.batch_norm)
    else:
        network = ResidualGenerator(*shape) if config.generator == "residual" else Generator(*shape, config.generator)
    if not config.pixel_noise:
        return network
    return GrainyGenerator(network, config.latent_dim, config.condition_dim, config.image_size)


def generator_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the generator's weights from a checkpoint: the running average where there is one."""
    if state["ema"] is None:
        return state["networks"]["generator"]
    return {name: value for name, value in state["ema"].items() if name != "num_averaged"}
