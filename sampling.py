"""Turn a checkpoint into galaxies: conditions, support in the training data, and images by seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from checkpoint import RUN_STATE, load_checkpoint
from config_physics import MORPHOLOGIES, Attribute, Config, UserError, attribute_table
from dataset import condition_vector, to_uint8
from engine import Engine
from gan_model import FrameGenerator, Generator

# Networks round differently in batches of different sizes; in chunks of one fixed size an image is always the same.
_CHUNK = 16
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
        return self.values[self.classes == class_index]

    def supported_range(self, class_index: int, attribute: int) -> tuple[float, float] | None:
        """Return the range that holds the central 98 % of a class, or None where no value is known."""
        known = self.members(class_index)[:, attribute]
        known = known[torch.isfinite(known)]
        if len(known) == 0:
            return None
        low, high = torch.quantile(known.double(), torch.tensor([_SUPPORT_TAIL, 1 - _SUPPORT_TAIL]).double())
        return float(low), float(high)

    def draw(self, class_index: int, requested: Tensor, generator: torch.Generator) -> Tensor:
        """Fill the unset attributes of a request from a real galaxy that resembles it.

        Parameters
        ----------
        class_index : int
        requested : Tensor, (A,)
            Physical units, NaN for what is unset.
        generator : torch.Generator

        Returns
        -------
        Tensor, (A,)
            NaN only where the drawn galaxy's value is unknown too.
        """
        members = self.members(class_index)
        if len(members) == 0:
            return requested.clone()
        is_set = torch.isfinite(requested)
        candidates = members
        if is_set.any():
            spread = torch.nan_to_num(_nan_std(members)[is_set], nan=1.0).clamp_min(1e-6)
            offset = (members[:, is_set] - requested[is_set]) / spread
            # An unknown value counts as far away, so that galaxies with known values are preferred.
            distance = torch.nan_to_num(offset, nan=10.0).square().sum(1)
            nearest = max(8, len(members) // 50)
            candidates = members[distance.argsort(stable=True)[:nearest]]
        row = candidates[torch.randint(len(candidates), (), generator=generator)]
        return torch.where(is_set, requested, row)


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
        state = load_checkpoint(path, RUN_STATE)
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
        return self.population.draw(class_index, requested, torch.Generator().manual_seed(seed))

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

    @torch.no_grad()
    def generate(self, classes: Tensor, values: Tensor, seeds: list[int]) -> Tensor:
        """Generate one image for each request.

        Parameters
        ----------
        classes : Tensor, (N,), int64
        values : Tensor, (N, A), float32
            Physical units, NaN where unknown.
        seeds : list of int, N
            Image k depends on the network, on its condition and on seeds[k] alone.

        Returns
        -------
        Tensor, (N, 3, S, S), uint8, on the CPU
        """
        condition, _, _ = condition_vector(classes, values, self.config)
        z = torch.stack(
            [torch.randn(self.config.latent_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )
        was_training = self.network.training
        self.network.eval()
        images = []
        # The same kernels in every process: no trying out which is fastest today, no reduced precision.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            for start in range(0, len(seeds), _CHUNK):
                rows = slice(start, start + _CHUNK)
                filled = len(z[rows])
                order = torch.tensor([*range(filled), *[0] * (_CHUNK - filled)])
                batch = [part[rows][order].to(self.engine.device) for part in (z, condition)]
                images.append(to_uint8(self.network(*batch)[:filled]).cpu())
        self.network.train(was_training)
        return torch.cat(images)


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
