"""What turns settings, or the content of a checkpoint, into a generator that draws: the table of model families."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from config_physics import Attribute, Config
from diffusion_model import DiffusionGenerator, ObservedDenoiser, build_diffusion_generator
from galaxies.common.errors import UserError
from galaxies.compute.recorded_functions import Run, plainly
from galaxies.compute.seeded_noise import STEPS, coarse_normal, standard_normal
from galaxies.generation.solvers import Solver, draw_images
from galaxies.networks.layers import ImageGenerator
from galaxies.networks.observed_generator import ObservedGenerator
from gan_model import build_gan_generator
from physics_model import FluxScale

Network = TypeVar("Network", bound=ImageGenerator)


class Asked(NamedTuple):
    """What the images of a chunk are asked to be.

    Attributes
    ----------
    seeds : ndarray or Tensor, (N,), int64
        A tensor on the network's device where the noise is made there. An array may be shorter: what is missing are
        copies of the last image.
    condition, scaled, known : Tensor, (N, C), (N, A) and (N, A), on the network's device
        As `conditions.condition_vector` makes them.
    attributes : tuple of Attribute, A of them
    scale : FluxScale or None
        Of flux.
    """

    seeds: np.ndarray | Tensor
    condition: Tensor
    scaled: Tensor
    known: Tensor
    attributes: tuple[Attribute, ...]
    scale: FluxScale | None = None


@dataclass(frozen=True)
class Family(Generic[Network]):
    """What generation has to know of one kind of model, whose generators are of the class `Network`.

    Attributes
    ----------
    build : callable
        Returns a new generator of the settings' shape, on the CPU.
    noise : callable
        Returns the noise (N, noise_dim) of settings, network and seeds (N,), each row by its seed alone: on the CPU of
        an array, and of a tensor on its device.
    draw : callable
        Returns images (N, B, S, S), as networks have them, of a network, noise (N, noise_dim) on its device, what is
        asked, the solver, and what runs functions of tensors.
    chunk : callable
        Returns how many images go through the network together, of settings and whether the device is a CPU.
    describe : callable
        Says what draws, of settings and solver.
    light : callable, optional
        Returns light (N, B, k S, k S) of networks that paint it, nJy a fine pixel, of what `draw` takes.
    has_solver : bool
        Whether the solver makes a difference.
    """

    build: Callable[[Config], Network]
    noise: Callable[[Config, Network, np.ndarray | Tensor], Tensor]
    draw: Callable[[Network, Tensor, Asked, Solver, Run], Tensor]
    chunk: Callable[[Config, bool], int]
    describe: Callable[[Config, Solver], str]
    light: Callable[[Network, Tensor, Asked, Solver, Run], Tensor] | None = None
    has_solver: bool = False


def fill_up(rows: Tensor, size: int) -> Tensor:
    """Return rows (N, ...) with copies of the last one behind them, `size` in all."""
    return rows if len(rows) == size else rows[torch.arange(size, device=rows.device).clamp_max(len(rows) - 1)]


def _gan_noise(config: Config, network: ImageGenerator, seeds: np.ndarray | Tensor) -> Tensor:
    # A galaxy is the same one whether it gets grain or not.
    latent = standard_normal(seeds, config.latent_dim)
    return torch.cat([latent, coarse_normal(seeds, network.noise_dim - config.latent_dim)], 1)


def _gan_draw(network: ImageGenerator, noise: Tensor, asked: Asked, solver: Solver, run: Run = plainly) -> Tensor:
    with torch.inference_mode():
        return run("images", network, noise, asked.condition)


def _gan_light(network: ObservedGenerator, noise: Tensor, asked: Asked, solver: Solver, run: Run = plainly) -> Tensor:
    with torch.inference_mode():
        return run("light", network.light, noise[:, : network.latent_dim], asked.condition)


def _gan_chunk(config: Config, on_cpu: bool) -> int:
    area = _area(config)
    return min(16, max(1, 128 // (config.width * area))) if on_cpu else max(8, 64 // area)


def _gan_words(config: Config, solver: Solver) -> str:
    more = " behind a telescope" if config.observes else " with pixel noise" if config.pixel_noise else ""
    return f"generator {config.generator}{more}"


def _diffusion_noise(config: Config, network: DiffusionGenerator, seeds: np.ndarray | Tensor) -> Tensor:
    diffused = math.prod(network.shape)
    noise = standard_normal(seeds, diffused)
    if network.noise_dim == diffused:
        return noise
    return torch.cat([noise, coarse_normal(seeds, network.noise_dim - diffused)], 1)


def _diffusion_draw(
    network: DiffusionGenerator, noise: Tensor, asked: Asked, solver: Solver, run: Run = plainly
) -> Tensor:
    if not isinstance(network, ObservedDenoiser):
        return _solved(network, noise, asked, solver, run)
    light = _diffusion_light(network, noise, asked, solver, run)
    with torch.no_grad():
        return run("observed", network.observed, light, noise[:, math.prod(network.shape) :])


def _diffusion_light(
    network: DiffusionGenerator, noise: Tensor, asked: Asked, solver: Solver, run: Run = plainly
) -> Tensor:
    return _solved(network, noise[:, : math.prod(network.shape)], asked, solver, run, light=True)


def _solved(
    network: DiffusionGenerator, noise: Tensor, asked: Asked, solver: Solver, run: Run, **wanted: bool
) -> Tensor:
    """Return what `draw_images` makes of the noise (N, B S S) that is diffused."""
    (number, length), shape = noise.shape, (len(noise), *network.shape)

    def normal(seeds: Tensor, stream: Tensor) -> Tensor:
        return standard_normal(seeds, length, stream)

    def step_noise(step: int) -> Tensor:
        if isinstance(asked.seeds, Tensor):
            stream = torch.full((), STEPS + step, device=noise.device)
            return run("noise of a step", normal, asked.seeds, stream).view(shape)
        return fill_up(standard_normal(asked.seeds, length, STEPS + step).to(noise.device), number).view(shape)

    with torch.no_grad():
        return draw_images(
            network,
            noise.reshape(shape),
            asked.condition,
            solver,
            step_noise,
            asked.attributes,
            asked.scaled,
            asked.known,
            run,
            asked.scale,
            **wanted,
        )


def _diffusion_chunk(config: Config, on_cpu: bool) -> int:
    area = _area(config)
    return max(1, 4 // area) if on_cpu else max(4, 64 // area)


def _diffusion_words(config: Config, solver: Solver) -> str:
    pushed = f", photometric guidance {solver.photometry:g}" if solver.photometry else ""
    seen = " of light behind a telescope" if config.observes else ""
    return f"diffusion{seen}, {solver.name} with {solver.num_steps} steps, guidance {solver.guidance:g}{pushed}"


def _area(config: Config) -> int:
    """Return how many times as many pixels an image has as one of 64 a side."""
    return (config.image_size // 64) ** 2


# By `Config.family`. A further family is a line here and one in `training.trainer.LEARNERS`.
FAMILIES: dict[str, Family[Any]] = {
    "GAN": Family[Any](build_gan_generator, _gan_noise, _gan_draw, _gan_chunk, _gan_words, _gan_light),
    "diffusion": Family[DiffusionGenerator](
        build_diffusion_generator,
        _diffusion_noise,
        _diffusion_draw,
        _diffusion_chunk,
        _diffusion_words,
        _diffusion_light,
        has_solver=True,
    ),
}


def build_generator(config: Config) -> ImageGenerator:
    """Return a new generator of the settings' shape, on the CPU."""
    return FAMILIES[config.family].build(config)


def chunk_size(config: Config, device: torch.device) -> int:
    """Return how many images go through a generator of these settings together, on every call.

    One image costs a whole chunk, since networks round differently in batches of different sizes: libraries choose
    other kernels, with other sums. So there is one size, and none for few images beside one for many. On a CPU a core
    works on a chunk alone, in about 8 ms. On a GPU most of a chunk's time goes into beginning hundreds of operations;
    with 64 images they have enough to do to be worth it, and one image is there in a few milliseconds. Memory for a
    chunk is the same at every image size.
    """
    return FAMILIES[config.family].chunk(config, device.type == "cpu")


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
    for saved, current in zip(state["attributes"], config.attribute_rows, strict=True):
        if any(saved[key] != getattr(current, key) for key in ("name", "unit", "low", "high", "raw")):
            raise UserError(f"{path} defines the attribute {current.name} differently from this release: train again")
    return config


def generator_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the generator's weights from a checkpoint: the running average where there is one."""
    if state["ema"] is None:
        return state["networks"]["generator"]
    return {name: value for name, value in state["ema"].items() if name != "num_averaged"}
