"""The least time that a device needs for a piece of work: its arithmetic and its memory traffic, from network shapes.

    work = generator_step(config, bf16=True)
    work.flops, work.bytes, work.least(peak)

Counted is what cannot be left out. Arithmetic: the convolutions, transposed convolutions and linear layers, forward and
in those backward passes that are needed, two operations a multiplication. Traffic: each of these passes reads its two
operands and writes its result once, and the optimiser reads and writes its state. All that is done to each value by
itself - normalisation, rectifiers, losses, clipping - is taken as done in passing, and so is photometry but for the
images themselves. A cache that holds a layer's maps until the next layer reads them can save traffic. So the arithmetic
is a floor, and the traffic is one for maps that no cache holds.

Layers are recorded while the networks draw one image on the CPU, so they are those that exist, whatever the settings.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from config_physics import Config
from diffusion_model import DiffusionGenerator
from galaxies.generation.build import build_generator
from galaxies.networks.layers import ImageGenerator
from galaxies.training.gan_learner import PENALTY_EVERY, choose_features
from galaxies.training.learner import PHOTOMETRY_EVERY
from gan_model import ImageDiscriminator, build_discriminator
from physics_model import PhysicsPredictor, build_predictor

_OPTIMIZER_VALUES = 7  # Adam reads weight, gradient and two moments, and writes all but the gradient
_CLIPPING_VALUES = 1  # the gradient's norm has to be known before the first weight moves
_AVERAGE_VALUES = 2  # the running average, read and written while the weight is at hand


@dataclass(frozen=True)
class Peak:
    """What a device can do at most.

    Attributes
    ----------
    flops_per_s : dict of str to float
        Additions and multiplications a second in ``fp32`` and ``bf16``.
    bytes_per_s : float
        Read and written together.
    source : str
        Where the numbers are from.
    """

    flops_per_s: dict[str, float]
    bytes_per_s: float
    source: str


@dataclass(frozen=True)
class Product:
    """One convolution or linear layer in one piece of work.

    Attributes
    ----------
    shape : tuple of int
        Of the weight.
    multiplications, inputs, outputs : int
        For one image: multiplications, values read, values written.
    weights : int
    passes : float
        How often it is done: forward, and towards its input and its weight where these are wanted. All of these
        multiply the same numbers of values and touch the same three tensors.
    """

    shape: tuple[int, ...]
    multiplications: int
    inputs: int
    outputs: int
    weights: int
    passes: float

    def times(self, factor: float) -> Product:
        """Return the same layer, done `factor` times as often."""
        return dataclasses.replace(self, passes=self.passes * factor)


@dataclass(frozen=True)
class Work:
    """A piece of work: its layers, its batch, and the bytes that are moved beside them.

    Attributes
    ----------
    products : tuple of Product
    batch : int
    bf16 : bool
        Whether operands are bfloat16 instead of float32.
    other_bytes : float
        Of the optimiser's state and the photometry, float32.
    """

    products: tuple[Product, ...]
    batch: int
    bf16: bool = False
    other_bytes: float = 0.0

    def times(self, count: int) -> Work:
        """Return the same work, done `count` times."""
        products = tuple(product.times(count) for product in self.products)
        return dataclasses.replace(self, products=products, other_bytes=self.other_bytes * count)

    @property
    def flops(self) -> float:
        """Additions and multiplications."""
        return sum(2.0 * p.passes * p.multiplications * self.batch for p in self.products)

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return self.other_bytes + sum(p.passes * self._bytes_of(p) for p in self.products)

    def _bytes_of(self, product: Product) -> float:
        return (2 if self.bf16 else 4) * (self.batch * (product.inputs + product.outputs) + product.weights)

    def least(self, peak: Peak) -> dict[str, Any]:
        """Return the least time.

        Returns
        -------
        dict
            ``gflop`` and ``mbyte`` (1e9 operations, 1e6 bytes), ``least_ms``: the larger of what the arithmetic and the
            traffic need, if they overlap perfectly; ``limited_by``: which of them it is; ``layerwise_ms``: the same
            layer by layer, if only the arithmetic and the traffic of one layer overlap.
        """
        rate = peak.flops_per_s["bf16" if self.bf16 else "fp32"]
        arithmetic, traffic = self.flops / rate, self.bytes / peak.bytes_per_s
        layers = [
            p.passes * max(2 * p.multiplications * self.batch / rate, self._bytes_of(p) / peak.bytes_per_s)
            for p in self.products
        ]
        return {
            "gflop": self.flops / 1e9,
            "mbyte": self.bytes / 1e6,
            "least_ms": max(arithmetic, traffic) * 1e3,
            "limited_by": "arithmetic" if arithmetic >= traffic else "memory",
            "layerwise_ms": (sum(layers) + self.other_bytes / peak.bytes_per_s) * 1e3,
        }


class _Recorder(TorchFunctionMode):
    """Record the layers that are computed while it is entered, with the passes that their gradients will need."""

    _KINDS = ("conv2d", "conv_transpose2d", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []
        self.reach_image: list[bool] = []  # whether a gradient goes through the product's input

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        kind = getattr(function, "__name__", "")
        if kind in self._KINDS:
            features, weight = args[:2]
            # A linear layer's positions are its rows; a transposed convolution multiplies at those of its input.
            if kind == "linear":
                positions = math.prod(features.shape[1:-1])
            else:
                positions = math.prod((features if kind == "conv_transpose2d" else result).shape[2:])
            passes = 1 + features.requires_grad + weight.requires_grad
            self.products.append(
                Product(
                    tuple(weight.shape),
                    positions * weight.numel(),
                    features[0].numel(),
                    result[0].numel(),
                    weight.numel(),
                    passes,
                )
            )
            self.reach_image.append(features.requires_grad)
        return result


@dataclass(frozen=True)
class _Networks:
    """The networks of some settings, to be recorded, with noise and a condition for one image."""

    generator: ImageGenerator
    discriminator: ImageDiscriminator
    predictor: PhysicsPredictor
    z: Tensor
    condition: Tensor
    images: Tensor

    @classmethod
    def build(cls, config: Config) -> _Networks:
        with torch.random.fork_rng(devices=[]):
            generator: Any = build_generator(config)
            predictor = build_predictor(config)
            discriminator = build_discriminator(config)
        for network in (generator, discriminator, predictor):
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    module.__class__ = nn.Conv2d  # without the channels of zeros that only a CPU adds, for its speed
        z, condition = torch.ones(1, generator.noise_dim), torch.zeros(1, config.condition_dim)
        images = torch.zeros(1, config.num_bands, config.image_size, config.image_size)
        return cls(generator, discriminator, predictor, z, condition, images)


def generator_step(config: Config, bf16: bool) -> Work:
    """Count a step of phase 2: discriminator and generator, with penalty and photometry by their share of the steps.

    Parameters
    ----------
    config : Config
    bf16 : bool
        Whether the networks compute in bfloat16.
    """
    networks = _Networks.build(config)
    networks.predictor.eval().requires_grad_(False)
    features = choose_features(config, networks.predictor)
    with _Recorder() as recorder:
        fake = networks.generator(networks.z, networks.condition)
    products = recorder.products
    for weight in (config.r1_weight, config.r2_weight):  # on real and on generated images
        products += _discriminated(networks, PENALTY_EVERY if weight > 0 else 0)
    networks.discriminator.requires_grad_(False)
    with _Recorder() as recorder:
        networks.discriminator.assess(fake, networks.condition)
        networks.predictor.distribution(fake)
        if config.adversarial == "relativistic":  # the real image of each pair once more
            networks.discriminator.assess(networks.images, networks.condition)
        if features is not None:
            features.maps(fake)
            features.maps(networks.images)
    products += recorder.products
    values: float = (_OPTIMIZER_VALUES + _CLIPPING_VALUES) * (_size(networks.generator) + _size(networks.discriminator))
    if config.ema_decay:
        values += _AVERAGE_VALUES * _size(networks.generator)
    if config.photometry_weight > 0:
        # Photometry has no layers: the least is to read the images and to write their gradient.
        values += 2 * config.batch_size * networks.images.numel() / PHOTOMETRY_EVERY
    return Work(tuple(products), config.batch_size, bf16, 4.0 * values)


def _discriminated(networks: _Networks, penalty_every: int) -> list[Product]:
    """Count the discriminator's update on one batch of images, each `penalty_every`-th of them penalised (0: none).

    The penalty needs the gradient of the logits in the images, and then the gradient of that gradient: twice the work
    of a forward pass, once towards the weight and once towards the gradient that came from the layer above.
    """
    with _Recorder() as plain:
        networks.discriminator.assess(networks.images, networks.condition)
    if not penalty_every:
        return plain.products
    with _Recorder() as recorder:
        networks.discriminator.assess(networks.images.clone().requires_grad_(), networks.condition)
    reader = getattr(networks.discriminator, "read", None)
    apart = None if reader is None else tuple(reader.weight.shape)  # the logits do not depend on what is read
    penalised = []
    for product, reached in zip(recorder.products, recorder.reach_image, strict=True):
        if product.passes == 1:  # a fixed filter, whose gradient is no product
            extra = 1
        else:  # nothing comes from above the layer that gives the logit
            extra = 0 if not reached or product.shape == apart else 2 if product.shape[0] == 1 else 3
        penalised.append(dataclasses.replace(product, passes=product.passes + extra))
    share = 1 / penalty_every
    return [p.times(1 - share) for p in plain.products] + [p.times(share) for p in penalised]


def predictor_step(config: Config, bf16: bool) -> Work:
    """Count a step of phase 1; parameters as for `generator_step`."""
    networks = _Networks.build(config)
    with _Recorder() as recorder:
        networks.predictor.distribution(networks.images)
    other_bytes = 4.0 * (_OPTIMIZER_VALUES + _CLIPPING_VALUES) * _size(networks.predictor)
    return Work(tuple(recorder.products), config.batch_size, bf16, other_bytes)


def generation(config: Config, batch: int) -> Work:
    """Count the drawing of `batch` images in float32."""
    networks = _Networks.build(config)
    generator = networks.generator.eval().requires_grad_(False)
    evaluations = 1
    with _Recorder() as recorder:
        if isinstance(generator, DiffusionGenerator):
            generator.output(networks.images, torch.ones(1, dtype=torch.int64), networks.condition)
            evaluations = config.solver_steps * (1 if config.guidance == 1 else 2)
        else:
            generator(networks.z, networks.condition)
    return Work(tuple(product.times(evaluations) for product in recorder.products), batch)


def reading(batch: int, image_px: int) -> Work:
    """Count work without layers on float32 images of three planes: they are read once."""
    return Work((), batch, other_bytes=4.0 * batch * 3 * image_px**2)


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
