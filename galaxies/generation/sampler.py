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

from config_physics import Attribute, Config
from galaxies.common.errors import UserError
from galaxies.compute.cores import map_on_cores
from galaxies.compute.device import Engine
from galaxies.compute.recorded_functions import Recorder, finished, to_device, to_host
from galaxies.datasets.conditions import condition_vector
from galaxies.datasets.population import VERDICTS, Population, Support
from galaxies.datasets.prepared import to_uint8
from galaxies.generation.attribute_measuring import AttributeMeasurer
from galaxies.generation.build import (
    FAMILIES,
    Asked,
    build_generator,
    chunk_size,
    config_of,
    fill_up,
    generator_weights,
)
from galaxies.generation.exact_kernels import exactly
from galaxies.generation.fits_files import ImageFacts
from galaxies.generation.flux_measuring import FluxMeasurer
from galaxies.generation.request_values import (
    POSITION_ANGLE,
    RequestError,
    attribute_value,
    class_index,
    mixture_refused,
    seed_value,
)
from galaxies.generation.solvers import Solver
from galaxies.images.composites import pictures_of_run
from galaxies.networks.layers import ImageGenerator
from galaxies.networks.turning import at_position_angle
from galaxies.storage.release import load_state
from physics_model import FluxScale, is_measured

# Images of 64 pixels a side that are worked on together. An accelerator keeps them until all are drawn; while they are
# copied to the host, it is at work on the next block.
_BLOCK, _ACCELERATOR_BLOCK = 1024, 4096


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
        Where it records CUDA graphs, so does the sampler. For a handful of pictures, that is not worth it.
    solver : Solver, optional
        Of a diffusion model; by default that of its settings.

    Attributes
    ----------
    measure : AttributeMeasurer or FluxMeasurer
        Measures images on the engine's device.
    pictures : callable
        Makes pictures (N, 3, S, S) uint8 for people of images (N, B, S, S) as `generate` returns them.
    origin : dict of str to str
        Where the generator comes from, as files of its galaxies say it: ``run``, ``step``, ``source`` of the training
        data, ``credit``; those that are known.
    psfs : Tensor, (B, P, P), float32, or None
        The usual PSF of the training data, of sum 1, where it has any as images.
    block : int
        Images that are best asked for together.
    blocks_ahead : int
        Blocks that are best begun before the result of one is waited for.
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
        self.attributes: tuple[Attribute, ...] = config.attribute_rows
        self._chunk = chunk_size(config, engine.device)
        on_cpu = engine.device.type == "cpu"
        self.block = _BLOCK if on_cpu else max(self._chunk, _ACCELERATOR_BLOCK * 64**2 // config.image_size**2)
        self.blocks_ahead = 0 if on_cpu else 1
        self._noise_on_device = engine.device.type == "cuda"  # MPS has no float64
        self._run = Recorder(engine)
        self.measure: AttributeMeasurer | FluxMeasurer = AttributeMeasurer(engine)
        self._scale = FluxScale.of(config, engine.device)
        if self._scale is not None:
            self.measure = FluxMeasurer(engine, config)
        self.pictures = pictures_of_run(config)
        self.origin: dict[str, str] = {}
        self.psfs: Tensor | None = None
        self._alone = threading.Lock()
        # [class][attribute] -> (low, high), or None where nothing is known
        self.supported = [
            [population.supported_range(index, column) for column in range(len(self.attributes))]
            for index in range(len(config.classes))
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
        engine = Engine.choose(device, "fp32", "auto")
        network = build_generator(config)
        network.load_state_dict(generator_weights(state))
        population = Population(state["population"]["classes"], state["population"]["values"], config.attribute_rows)
        sampler = cls(engine.prepare(network), config, population, engine)
        sampler.origin, sampler.psfs = _origin(state), state["population"].get("psfs")
        if sampler.psfs is not None and isinstance(sampler.measure, FluxMeasurer):
            sampler.measure.take_psfs(sampler.psfs)
        if solver and not sampler.family.has_solver:
            raise UserError(f"{path} holds no diffusion model: only those have a {', a '.join(solver)}")
        sampler.solver = replace(sampler.solver, **solver)
        if sampler.solver.guidance != 1 and config.condition_dropout == 0:
            raise UserError(f"{path} was trained without condition dropout, which guidance needs: leave out --guidance")
        if sampler.solver.photometry and not any(map(is_measured, sampler.attributes)):
            raise UserError(f"{path} knows no attribute that photometry measures: leave out --photometric-guidance")
        return sampler

    @property
    def facts(self) -> ImageFacts:
        """What files of the galaxies say of all of them."""
        return ImageFacts.of_run(self.config, self.origin, self.psfs)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of an image."""
        return self.config.num_bands, self.config.image_size, self.config.image_size

    def choose_bands(self, names: Sequence[str]) -> None:
        """Choose the bands that `pictures` shows as red, green and blue, or the one that it shows as grey.

        Raises
        ------
        UserError
            As `pictures_of_run` does.
        """
        self.pictures = pictures_of_run(self.config, names)

    def complete(self, class_index: int, requested: Tensor, seed: int) -> Tensor:
        """Draw the unset (NaN) attributes of one request (A,); the same seed draws the same galaxy.

        Raises
        ------
        UserError
            As `complete_all` does.
        """
        return self.complete_all(torch.tensor([class_index]), requested[None], [seed])[0]

    def complete_all(self, classes: Tensor, requested: Tensor, seeds: Sequence[int] | np.ndarray) -> Tensor:
        """Draw the unset (NaN) attributes of requests (N, A), each by its seed: as `complete` does one by one.

        Raises
        ------
        UserError
            If a class, a value or a seed is none, as the command line would say it.
        """
        self._check(classes, requested, seeds)
        return self.population.draw(classes, requested, seeds)

    def _check(self, classes: Tensor, values: Tensor, seeds: Sequence[int] | np.ndarray) -> None:
        """Refuse requests that no command line would take; a value may be NaN, which is unset or unknown."""
        shapes = [tuple(classes.shape), tuple(values.shape), (len(seeds),)]
        count = len(classes)
        if shapes != [(count,), (count, len(self.attributes)), (count,)]:
            raise UserError(
                f"classes, values and seeds have the shapes {', '.join(map(str, shapes))}: "
                f"they must be (N,), (N, {len(self.attributes)}) and (N,)"
            )
        if count == 0:
            return
        names = self.config.classes
        if wrong := [index for index in (int(classes.min()), int(classes.max())) if not 0 <= index < len(names)]:
            class_index(wrong[0], names)
        for column, attribute in zip(values.T, self.attributes, strict=True):
            low, high = torch.tensor(attribute.plausible, dtype=values.dtype)
            beyond = column[(column < low) | (column > high)].unique()
            # Drawn values come here too: what was measured on a real galaxy is no mistake of the caller's.
            for value in beyond[~torch.isin(beyond, self.population.values.to(values.dtype))].tolist():
                attribute_value(attribute, value)
        numbers = np.asarray(seeds)
        if numbers.dtype.kind != "i":
            for seed in seeds:
                seed_value(seed)
        elif numbers.min() < 0:
            seed_value(numbers.min())

    def unsupported(self, class_index: int, values: Tensor) -> list[str]:
        """Say in sentences how a request (A,), NaN where unset, is unlike real galaxies of its class, or nothing.

        For each attribute that by itself is outside the class's range, what the range is; then what they are together.
        """
        label = self.config.classes[class_index]
        if len(self.population.members(class_index)) == 0:
            return [f"there is no {label} galaxy in the training data"]
        support = self.support(torch.tensor([class_index]), values[None])
        if support.verdicts[0] == 0:
            return []
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
        names = [
            f"{a.name} {value:g}" for a, value in zip(self.attributes, values.tolist(), strict=True) if value == value
        ]
        if len(names) > 1 or not sentences:
            sentences.append(_unlike(names, label, support))
        return sentences

    def support(self, classes: Tensor, values: Tensor) -> Support:
        """Tell how near requests, classes (N,) and values (N, A), are to real galaxies; see `Population.support`."""
        return self.population.support(classes, values)

    def supports(self, classes: Tensor, values: Tensor) -> Tensor:
        """Tell for each request, classes (N,) and values (N, A), whether it is like real galaxies: (N,) bool."""
        return self.support(classes, values).verdicts == 0

    def is_within_ranges(self, classes: Tensor, values: Tensor) -> Tensor:
        """Tell of requests, classes (N,) and values (N, A), whether each value by itself is supported: (N,) bool."""
        nothing = (math.inf, -math.inf)
        limits = torch.tensor([[pair or nothing for pair in row] for row in self.supported]).double()[classes]
        inside = (limits[..., 0] <= values) & (values <= limits[..., 1])
        known_class = torch.bincount(self.population.classes, minlength=len(self.config.classes)) > 0
        return (inside | values.isnan()).all(1) & known_class[classes]

    def check_turns(self) -> None:
        """Refuse position angles where the generator turns nothing.

        Raises
        ------
        UserError
            If it does not turn galaxies as its last step, see `ImageGenerator.turns`.
        """
        if not self.network.turns:
            raise RequestError(
                "position_angle is no request of this checkpoint, whose generator does not turn galaxies onto the sky "
                "as its last step: leave it out",
                POSITION_ANGLE,
                "left out",
            )

    def check_mixes(self) -> None:
        """Refuse shares of classes where the generator was told one class a galaxy.

        Raises
        ------
        UserError
            If it was trained without `Config.soft_classes`.
        """
        if not self.config.soft_classes:
            raise mixture_refused(self.config.classes)

    def generate(
        self,
        classes: Tensor,
        values: Tensor,
        seeds: Sequence[int] | np.ndarray,
        position_angles: Tensor | None = None,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Generate one image for each request.

        Parameters
        ----------
        classes : Tensor, (N,), int64
        values : Tensor, (N, A), float32
            Physical units, NaN where unknown.
        seeds : sequence or array of int, N
            Image k depends on the network, on its condition and on seeds[k] alone.
        position_angles : Tensor, (N,), float32, optional
            Of the major axes, degrees from +x towards +y, NaN where the seed decides. The galaxies are the same ones at
            any angle.
        shares : Tensor, (N, K), float32, optional
            Of the classes, of sum 1, which then count instead of `classes`; see `check_mixes`.

        Returns
        -------
        Tensor, (N, B, S, S), on the CPU
            uint8 of a display, or float32, nJy a pixel, of flux.

        Raises
        ------
        UserError
            If a class, a value or a seed is none, as the command line would say it.
        """
        return self._in_blocks(classes, values, seeds, position_angles, shares, light=False)

    def light(
        self,
        classes: Tensor,
        values: Tensor,
        seeds: Sequence[int] | np.ndarray,
        position_angles: Tensor | None = None,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Return the light of the galaxies that `generate` shows, as it is before a telescope.

        Parameters as for `generate`.

        Returns
        -------
        Tensor, (N, B, k S, k S), float32, on the CPU
            nJy a pixel of `light_pixel_scale`, never below 0.

        Raises
        ------
        UserError
            As `generate` does, and if the generator paints what a telescope shows, and no light.
        """
        self.check_light()
        return self._in_blocks(classes, values, seeds, position_angles, shares, light=True)

    def _in_blocks(
        self,
        classes: Tensor,
        values: Tensor,
        seeds: Sequence[int] | np.ndarray,
        position_angles: Tensor | None,
        shares: Tensor | None,
        light: bool,
    ) -> Tensor:
        """Do as `generate` or `light`: an accelerator keeps no more than a block or two at a time."""
        self._check(classes, values, seeds)
        count = len(classes)
        if count <= self.block or self.blocks_ahead == 0:
            return self.draw(classes, values, seeds, position_angles, light, shares).cpu()
        blocks = [slice(start, start + self.block) for start in range(0, count, self.block)]
        angles = [None if position_angles is None else position_angles[rows] for rows in blocks]
        mixed = [None if shares is None else shares[rows] for rows in blocks]
        begun = (
            to_host(self.draw(classes[rows], values[rows], seeds[rows], some, light, mixture))
            for rows, some, mixture in zip(blocks, angles, mixed, strict=True)
        )
        images = self._empty(count, torch.device("cpu"), light)
        for rows, (part,) in zip(blocks, finished(begun, self.blocks_ahead), strict=True):
            images[rows] = part
        return images

    def check_light(self) -> None:
        """Refuse a generator that paints no light.

        Raises
        ------
        UserError
        """
        if not self.config.observes:
            raise UserError(
                f"{self.config.run} paints galaxies as its training images show them and not their light: it takes one "
                "that was trained on flux with --telescope on"
            )

    @property
    def light_pixel_scale(self) -> float:
        """Arcseconds a pixel of what `light` returns."""
        return self.config.pixel_scale / self.config.oversampling

    def draw(
        self,
        classes: Tensor,
        values: Tensor,
        seeds: Sequence[int] | np.ndarray,
        position_angles: Tensor | None = None,
        light: bool = False,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Do as `generate`, or as `light`, but check no request, and leave the images on the device.

        CUDA may be at work on them. With shares (N, K) of the classes, of sum 1, these count instead of `classes`.
        """
        if position_angles is not None:
            self.check_turns()
        if shares is not None:
            self.check_mixes()
        told = condition_vector(classes if shares is None else shares, values, self.config)
        numbers = np.asarray(seeds, np.int64)
        with self._alone, exactly(self.network):
            run = self._on_cores if self.engine.device.type == "cpu" else self._on_accelerator
            return run(numbers, told, position_angles, light)

    @property
    def kind_of_device(self) -> str:
        """What decides how a network rounds: the kind of device, and off the CPU how many images it draws together."""
        kind = self.engine.device.type
        return kind if kind == "cpu" else f"{kind}, {self._chunk} at a time"

    def describe(self) -> str:
        """Say what draws the images."""
        return self.family.describe(self.config, self.solver)

    def _empty(self, count: int, device: torch.device, light: bool = False) -> Tensor:
        side = self.config.image_size * self.config.oversampling
        shape = (self.config.num_bands, side, side) if light else self.image_shape
        dtype = torch.uint8 if self._scale is None else torch.float32
        return torch.empty((count, *shape), dtype=dtype, device=device)

    def _noise(self, seeds: np.ndarray | Tensor) -> Tensor:
        return self.family.noise(self.config, self.network, seeds)

    def _draw_chunk(
        self, noise: Tensor, seeds: np.ndarray | Tensor, told: Sequence[Tensor], light: bool = False
    ) -> Tensor:
        """Draw images (K, B, S, S), as networks have them, or their light.

        Of noise (K, L), seeds (K,), and what `condition_vector` gives; K is at most a chunk.
        """
        # Copies fill the chunk up: networks round differently in batches of different sizes.
        condition, scaled, known = (fill_up(part, self._chunk) for part in told)
        if isinstance(seeds, Tensor):
            seeds = fill_up(seeds, self._chunk)
        asked = Asked(seeds, condition, scaled, known, self.attributes, self._scale)
        draw = self.family.light if light else self.family.draw
        assert draw is not None, "checked before"
        drawn = draw(self.network, fill_up(noise, self._chunk), asked, self.solver, self._run)
        return drawn[: len(noise)]

    def _pixels(self, drawn: Tensor) -> Tensor:
        """Return images (K, B, S, S) of networks as datasets have them: uint8, or float32, nJy a pixel."""
        return to_uint8(drawn) if self._scale is None else self._scale.stretch.flux(drawn.float())

    def _on_cores(
        self, seeds: np.ndarray, told: Sequence[Tensor], angles: Tensor | None = None, light: bool = False
    ) -> Tensor:
        images = self._empty(len(seeds), self.engine.device, light)

        def work(rows: slice) -> None:
            noise = self._noise(seeds[rows])
            if angles is not None:
                noise = at_position_angle(noise, angles[rows])
            drawn = self._draw_chunk(noise, seeds[rows], [part[rows] for part in told], light)
            pixels = drawn if light else self._pixels(drawn)
            if not (drawn.isfinite() & pixels.isfinite()).all():  # on an accelerator that would have to be waited for
                raise UserError(
                    "what the generator draws is not finite: its training failed, so use another checkpoint"
                )
            images[rows] = pixels

        map_on_cores(work, self._chunks(len(seeds)))
        return images

    def _chunks(self, count: int) -> list[slice]:
        return [slice(start, min(start + self._chunk, count)) for start in range(0, count, self._chunk)]

    def _on_accelerator(
        self, seeds: np.ndarray, told: Sequence[Tensor], angles: Tensor | None = None, light: bool = False
    ) -> Tensor:
        """Generate without waiting for the device."""
        device = self.engine.device
        images, there = self._empty(len(seeds), device, light), [to_device(part, device) for part in told]
        numbers = to_device(torch.from_numpy(seeds), device) if self._noise_on_device else None
        turned = None if angles is None else to_device(angles, device)
        for rows in self._chunks(len(seeds)):
            chosen: np.ndarray | Tensor
            if numbers is None:
                chosen = seeds[rows]
                noise = self._noise(chosen).to(device)  # made while the device draws the chunk before
            else:
                chosen = fill_up(numbers[rows], self._chunk)
                noise = self._run("noise", self._noise, chosen)[: rows.stop - rows.start]
            if turned is not None:
                noise = at_position_angle(noise, turned[rows])
            drawn = self._draw_chunk(noise, chosen, [part[rows] for part in there], light)
            images[rows] = drawn if light else self._pixels(drawn)
        return images


def _origin(state: dict[str, Any]) -> dict[str, str]:
    """Return what files of generated galaxies say of the generator, see `GalaxySampler`."""
    provenance = state["provenance"]
    said = {"run": state["config"]["run"], "step": str(state["step"])}
    said |= {name: provenance.get(name) or "" for name in ("source", "credit")}
    return {name: text for name, text in said.items() if text}


def _unlike(names: Sequence[str], label: str, support: Support) -> str:
    """Say that a request, with what is set of it in words, is not like the real galaxies of a class."""
    *most, last = names
    asked = f"{', '.join(most)} and {last} together" if most else last
    nearest = float(support.nearest[0])
    if math.isinf(nearest):
        return f"no {label} galaxy in the training data tells whether there is {asked}"
    if VERDICTS[support.verdicts[0]] == "unusual":
        return f"few {label} galaxies in the training data are like {asked}: the nearest is {nearest:.2g} spreads away"
    return (
        f"no {label} galaxy in the training data is like {asked}: the nearest is {nearest:.2g} spreads away, "
        f"and 98 % of them have another within {float(support.usual[0]):.2g}"
    )
