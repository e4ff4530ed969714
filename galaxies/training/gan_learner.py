"""The two updates of a step of the GAN."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.compute.forward_pass import ForwardPass, Weights
from galaxies.compute.ranks import Ranks
from galaxies.datasets.batches import Batch
from galaxies.datasets.conditions import take_apart, with_scaled
from galaxies.generation.build import build_generator
from galaxies.networks.flux_grain import NoisyGenerator, measure_flux_noise
from galaxies.networks.grain_measurement import measure_grain
from galaxies.networks.observed_generator import ObservedGenerator
from galaxies.networks.sky_grain import GrainyGenerator
from galaxies.telescope.exposure import Exposure
from galaxies.training.discriminator_augmentation import NUM_DRAWS, DiscriminatorAugmentation
from galaxies.training.free_requests import FreeRequests
from galaxies.training.learner import PHYSICS_TERMS, Drawn, Learner, StepResult, Variant
from galaxies.training.loss_terms import ADVERSARIAL, PHYSICS, PROBABILITY, LossTerm, Shown
from galaxies.training.perceptual import Vgg16, perceptual_loss
from gan_model import (
    ImageDiscriminator,
    build_discriminator,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    reads_images,
    relativistic_loss,
)
from physics_model import PhysicsPredictor, physics_loss

PENALTY_EVERY = 4  # steps between gradient penalties, each weighing that much more (Karras et al. 2020, "lazy")


@dataclass
class Discriminated:
    """What the discriminator's losses are computed from: a batch, generated images, and what it says of both."""

    batch: Batch
    asked: Batch  # with the values that the generator is told
    real: Tensor  # (N, B, S, S), as it saw them
    fake: Tensor
    real_logits: Tensor  # (N,)
    fake_logits: Tensor
    adversarial: tuple[Tensor, ...]  # on pairs, or on real and on generated images
    real_readings: Tensor | None  # (N, A + classes)
    fake_readings: Tensor | None
    real_regression: tuple[Tensor, Tensor, Tensor] | None  # of the readings, as `physics_loss` returns them


@dataclass
class Generated(Drawn):
    """What the generator's losses are computed from."""

    adversarial: Tensor  # ()
    readings: Tensor | None  # (N, A + classes), of the discriminator
    maps: tuple[list[Tensor], list[Tensor]] | None  # of generated and of real images, whose features are compared


def label_entropy(label: float) -> float:
    """Return the floor of the binary cross-entropy against a smoothed label: 0.325 for 0.9 or 0.1."""
    return -sum(p * math.log(p) for p in (label, 1 - label) if p > 0)


def _pairs(config: Config) -> bool:
    """Tell whether the discriminator compares real with generated images, instead of judging each by itself."""
    return config.adversarial == "relativistic"


def _judges(config: Config) -> bool:
    return not _pairs(config)


# Every term of the two losses. The limits are those of an unbeatable discriminator, which reaches D(x) = 0.9 and
# D(G(z)) = 0.1 where these are its labels, and of one that cannot tell. Running means that were saved before terms
# were saved by name have this order.
# fmt: off
GAN_TERMS = (
    LossTerm("d_loss", 1.0, lambda _, seen: seen.adversarial[0], "discriminator", part_of="d_loss", wanted=_pairs,
             limits=lambda _: (0.0, math.log(2)), chart="", on_bar=False),
    LossTerm("d_loss_real", 1.0, lambda _, seen: seen.adversarial[0], "discriminator", part_of="d_loss",
             wanted=_judges, limits=lambda c: (label_entropy(c.real_label), math.log(2)), chart="", on_bar=False),
    LossTerm("d_loss_fake", 1.0, lambda _, seen: seen.adversarial[1], "discriminator", part_of="d_loss",
             wanted=_judges, limits=lambda c: (label_entropy(c.fake_label), math.log(2)), chart="", on_bar=False),
    # Half a gamma each (Mescheder et al. 2018, eqs. 9 and 10).
    LossTerm("r1", "r1_weight", lambda _, seen: gradient_penalty(seen.real_logits, seen.real) / 2, "discriminator",
             part_of="", wanted=lambda c: c.r1_weight > 0, every=PENALTY_EVERY, logged=False,
             takes_gradient=True),
    LossTerm("r2", "r2_weight", lambda _, seen: gradient_penalty(seen.fake_logits, seen.fake) / 2, "discriminator",
             part_of="", wanted=lambda c: c.r2_weight > 0, every=PENALTY_EVERY, logged=False,
             takes_gradient=True),
    LossTerm("g_adversarial", 1.0, lambda _, seen: seen.adversarial, label="G", chart=ADVERSARIAL, on_bar=False),
    *PHYSICS_TERMS,
    # Read off real images should be the truth, and off generated ones what was asked for.
    LossTerm("d_regression_real", "regression_weight", lambda _, seen: seen.real_regression[0], "discriminator",
             part_of="", wanted=reads_images, chart="", on_bar=False),
    LossTerm("d_regression_fake", "regression_weight",
             lambda learner, seen: learner.regression(seen.fake_readings, seen.asked)[0], "discriminator",
             part_of="", wanted=reads_images, chart="", on_bar=False),
    # What no picture tells the generator is not asked for: the two would agree on a secret sign of it.
    LossTerm("g_regression", "regression_weight",
             lambda learner, seen: learner.regression(seen.readings, seen.asked, seen.reliability)[0],
             wanted=reads_images, label="read by D", chart=PHYSICS),
    LossTerm("d_class_real", "class_weight", lambda learner, seen: learner.entropy(seen.real_readings, seen.batch),
             "discriminator", part_of="", wanted=reads_images, chart="", on_bar=False),
    LossTerm("d_class_fake", "class_weight", lambda learner, seen: learner.entropy(seen.fake_readings, seen.asked),
             "discriminator", part_of="", wanted=reads_images, chart="", on_bar=False),
    LossTerm("g_class", "class_weight", lambda learner, seen: learner.entropy(seen.readings, seen.asked),
             wanted=reads_images, chart="", on_bar=False),
    LossTerm("perceptual", "perceptual_weight",
             lambda learner, seen: learner.perceptual(*seen.maps),
             wanted=lambda c: c.perceptual_weight > 0, on_bar=False),
)
# fmt: on


class GanLearner(Learner):
    """Generator and discriminator against each other, the generator held to its physics; see `Learner`."""

    table: ClassVar[tuple[LossTerm, ...]] = GAN_TERMS

    def __init__(self, config: Config, engine: Engine, ranks: Ranks | None = None) -> None:
        self._pairs, self._reads = _pairs(config), reads_images(config)
        networks: dict[str, nn.Module] = {
            "generator": build_generator(config),
            "discriminator": build_discriminator(config),
        }
        super().__init__(networks, config, engine, ranks or Ranks())
        self.discriminator = cast(ImageDiscriminator, self.networks["discriminator"])
        method = "light" if config.observes else "forward"
        self._generate = ForwardPass(self.generator, engine, method, self.compiler)
        self._judge = ForwardPass(self.discriminator, engine, "assess", self.compiler)
        # Slider ranges in the units of the condition vector.
        ranges = [a.high - a.low if a.raw else 1.0 for a in self.attributes]
        self._jitter = config.label_jitter * torch.tensor(ranges, device=engine.device)
        self._requests: FreeRequests | None = None
        self.augmentation = None
        if config.augment_discriminator != "none":
            self.augmentation = DiscriminatorAugmentation(config.augment_discriminator == "adaptive").to(engine.device)
        self.features: Any = choose_features(config, self.predictor)
        if isinstance(self.features, Vgg16):
            engine.prepare(self.features)
        self._maps = ForwardPass(self.features, engine, "maps", self.compiler) if self.features is not None else None

    def learn_statistics(
        self, attribute_variance: Tensor, images: Tensor, conditions: Tensor, exposures: Exposure | None = None
    ) -> None:
        """Take over what a new run should know of its data; see `Learner.learn_statistics`."""
        super().learn_statistics(attribute_variance, images, conditions, exposures)
        networks = (self.generator, *([self.average.module] if self.average else []))
        if grainy := [network for network in networks if isinstance(network, GrainyGenerator)]:
            grain = measure_grain(images, conditions)
            for one in grainy:
                one.grain.learn(grain)
        if noisy := [network for network in networks if isinstance(network, NoisyGenerator)]:
            noise = measure_flux_noise(images, self.config.softening)
            for other in noisy:
                other.grain.learn(noise)

    def learn_requests(self, classes: Tensor, scaled: Tensor, known: Tensor) -> None:
        """Take over what galaxies have, which free requests are made of.

        Parameters
        ----------
        classes : Tensor, (M,)
            Of all training galaxies.
        scaled, known : Tensor, (M, A)
            Their attributes in the units of the condition vector, and 1 where known.
        """
        if self.config.free_requests:
            self._requests = FreeRequests.of(classes, scaled, known, self.config)

    def errors(self, phase: str) -> tuple[str, ...]:
        """Return the names of the errors that a phase's steps return, with those of the discriminator's readings."""
        readings = self.config.attributes if self._reads and phase == "generator" else ()
        return super().errors(phase) + tuple(f"d_regression_{name}" for name in readings)

    def gauges(self, phase: str) -> tuple[str, ...]:
        """Return the names of what a phase's steps return after the terms of the losses, in order."""
        if phase == "predictor":
            return super().gauges(phase)
        names = ["d_pairs"] if self._pairs else ["d_real", "d_fake"]
        names += ["augmented"] * (self.config.augment_discriminator != "none")
        return (*names, "d_grad_norm", "g_grad_norm")

    def shown(self) -> tuple[Shown, ...]:
        """Return how the numbers of the generator's phase are shown, in order."""
        if self._pairs:
            says = [Shown("d_pairs", "D(x | G(z))", PROBABILITY)]
        else:
            says = [Shown("d_real", "D(x)", PROBABILITY), Shown("d_fake", "D(G(z))", PROBABILITY)]
        first, *terms = super().shown()
        return (Shown("d_loss", "D", ADVERSARIAL), first, *says, *terms)

    def _generator_step(self, batch: Batch, variant: Variant) -> StepResult:
        """Update the discriminator, then the generator, on one batch."""
        asked, told = self._asked(batch)
        fake = self._drawn(asked)  # (N, B, S, S)
        real, terms, d_errors = self._update_discriminator(batch, asked, told, fake.detach(), variant)
        # The discriminator's own gradients would be thrown away, so none are computed.
        self.discriminator.requires_grad_(False)
        seen = self._see_generated(asked, told, fake, real)
        total, g_terms = self._loss("generator", seen, variant)
        terms |= g_terms | {"g_grad_norm": self._update("generator", total)}
        squared_errors, counts = (torch.cat(parts) for parts in zip(seen.physics[1:], *d_errors, strict=True))
        return [terms[name] for name in self.terms["generator"]], squared_errors, counts

    def _drawn(self, asked: Batch) -> Tensor:
        """Return generated images (N, B, S, S); of light as the telescopes of the real ones beside them see it."""
        generator = self.generator
        if not isinstance(generator, ObservedGenerator):
            return self._generate(self._draw(generator.noise_dim), asked.condition)
        if asked.exposure is None:
            raise ValueError("light is observed as the images of its batch were, of which nothing is said")
        light = self._generate(self._draw(generator.latent_dim), asked.condition)
        return generator.stretched(light, asked.exposure, self._draw(*generator.white))

    def _update_discriminator(
        self, batch: Batch, asked: Batch, told: Tensor, fake: Tensor, variant: Variant
    ) -> tuple[Tensor, dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
        """Update the discriminator; return the real images as it saw them, terms, and the errors of its readings."""
        config = self.config
        self.discriminator.requires_grad_(True)
        # Penalties are taken at the images that it sees: turning them changes no norm but by interpolation.
        real = self._shown(batch.images).requires_grad_("r1" in variant.due)
        fake = self._shown(fake).requires_grad_("r2" in variant.due)
        (real_logits, real_readings), (fake_logits, fake_readings) = self._assess_both(real, fake, told)
        if self._pairs:
            adversarial: tuple[Tensor, ...] = (relativistic_loss(real_logits, fake_logits),)
        else:
            adversarial = discriminator_loss(real_logits, fake_logits, config.real_label, config.fake_label)
        regression = None
        if real_readings is not None:
            read = real_readings[:, : len(self.attributes)]
            regression = self._compare(read, batch.scaled, batch.known, share_count=self.ranks.mean)
        seen = Discriminated(
            batch,
            asked,
            real,
            fake,
            real_logits,
            fake_logits,
            adversarial,
            real_readings,
            fake_readings,
            regression,
        )
        total, terms = self._loss("discriminator", seen, variant)
        terms |= self._confidence(real_logits.detach(), fake_logits.detach())
        terms["d_grad_norm"] = self._update("discriminator", total)
        return real.detach(), terms, [regression[1:]] if regression else []

    def _see_generated(self, asked: Batch, told: Tensor, fake: Tensor, real: Tensor) -> Generated:
        """Let discriminator and predictor look at generated images."""
        (weights,) = self._judge.weights()
        logits, readings = self._assess(self._shown(fake), told, weights)
        if self._pairs:
            # Anew, since the discriminator has moved; by itself, since it takes no gradient.
            with torch.no_grad():
                opposite, _ = self._assess(real, told, weights)
            adversarial = relativistic_loss(logits, opposite)
        else:
            adversarial = generator_loss(logits)
        reliability, physics = self._physics_of(fake, asked, asked.known)
        maps = None if self._maps is None else self._maps_of(fake, asked.images)
        return Generated(fake, asked, asked.known, reliability, physics, adversarial, readings, maps)

    def _asked(self, batch: Batch) -> tuple[Batch, Tensor]:
        """Return the batch with what is asked of the generator, and the conditions (N, C) that the other is told.

        They differ in free requests, where the discriminator is told the class alone. Both may be jittered.
        """
        if self.config.label_jitter:
            scaled = batch.scaled + self._draw(len(self.attributes)) * self._jitter * batch.known
            batch = dataclasses.replace(
                batch, condition=with_scaled(batch.condition, scaled, self.config), scaled=scaled
            )
        if self._requests is None:
            return batch, batch.condition
        return self._requests.ask(batch, self._draw(self._requests.num_draws, uniform=True))

    def _shown(self, images: Tensor) -> Tensor:
        """Return images as the discriminator gets to see them."""
        if self.augmentation is None:
            return images
        return self.augmentation(images, self._draw(NUM_DRAWS, uniform=True))

    def _assess(
        self, images: Tensor, condition: Tensor, weights: Weights | None = None, plain: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the discriminator's logits (N,), float32, and its readings."""
        logits, readings = self._judge(images, condition, weights=weights, plain=plain)
        return logits.float(), readings

    def _assess_both(
        self, real: Tensor, fake: Tensor, condition: Tensor
    ) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
        """Return what `_assess` does, of real images and of generated ones under the same conditions.

        Both are one batch where that changes nothing: no image has a say in what is said of another, and no gradient
        is wanted at the images, which would be computed at all of them for a penalty on half of them.
        """
        penalised = real.requires_grad or fake.requires_grad
        if self.discriminator.couples_images or penalised:
            pairs = zip((real, fake), self._judge.weights(2), strict=True)
            real_part, fake_part = (self._assess(images, condition, w, plain=penalised) for images, w in pairs)
            return real_part, fake_part
        logits, readings = self._assess(torch.cat([real, fake]), condition.repeat(2, 1))
        halves = [None, None] if readings is None else readings.unflatten(0, (2, -1)).unbind()
        real_part, fake_part = zip(logits.unflatten(0, (2, -1)).unbind(), halves, strict=True)
        return real_part, fake_part

    def regression(
        self, readings: Tensor, wanted: Batch, reliability: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the attributes that the discriminator reads with those that are wanted; see `physics_loss`."""
        read = readings[:, : len(self.attributes)]
        return physics_loss(read, wanted.scaled, wanted.known, reliability, self.ranks.mean)

    def entropy(self, readings: Tensor, wanted: Batch) -> Tensor:
        """Return the cross-entropy of the class that the discriminator reads, or of the shares of the classes."""
        shares = take_apart(wanted.condition, self.config).one_hot if self.config.soft_classes else wanted.classes
        return F.cross_entropy(readings[:, len(self.attributes) :].float(), shares)

    def _confidence(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """Say how sure the discriminator is, and let the augmentation follow."""
        if self._pairs:
            margin = real_logits - fake_logits
            terms = {"d_pairs": margin.sigmoid().mean()}
        else:
            margin = real_logits
            terms = {"d_real": real_logits.sigmoid().mean(), "d_fake": fake_logits.sigmoid().mean()}
        if self.augmentation is not None:
            sign = self.ranks.mean(margin.sign().mean())
            self.augmentation.adapt(sign, self.ranks.size * len(margin))
            terms["augmented"] = self.augmentation.probability.clone()
        return terms

    def _maps_of(self, fake: Tensor, real: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return features of generated images, and of real ones without a gradient; neither are moved."""
        assert self._maps is not None  # who compares no features has no need of them
        (weights,) = self._maps.weights()
        with torch.no_grad():
            expected = self._maps(real, weights=weights)
        return self._maps(fake, weights=weights), expected

    def perceptual(self, found: list[Tensor], expected: list[Tensor]) -> Tensor:
        """Compare features of generated and of real images."""
        size = self.ranks.size * len(found[0])
        return perceptual_loss(found, expected, self.ranks.mean_with_gradient, size)

    def state_dict(self) -> dict[str, Any]:
        """Return what `Learner.state_dict` does, the augmentation, and which weights the features are from."""
        state = super().state_dict()
        if self.augmentation is not None:
            state["augmentation"] = self.augmentation.state_dict()
        if isinstance(self.features, Vgg16):
            state["vgg_sha256"] = self.features.fingerprint()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises
        ------
        UserError
            If the file of VGG-16's weights is another one than before.
        """
        if isinstance(self.features, Vgg16) and state["vgg_sha256"] != self.features.fingerprint():
            raise UserError(f"{self.config.vgg_weights} holds other weights than those that this run began with")
        if self.augmentation is not None:
            self.augmentation.load_state_dict(state["augmentation"])
        super().load_state_dict(state)


def choose_features(config: Config, predictor: PhysicsPredictor) -> PhysicsPredictor | Vgg16 | None:
    """Return the network whose maps the perceptual loss compares, on the CPU unless it is the predictor; None if none.

    Raises
    ------
    UserError
        If the file of VGG-16's weights is missing or is another file.
    """
    if not config.perceptual_weight:
        return None
    return Vgg16.from_file(Path(config.vgg_weights)) if config.perceptual == "vgg16" else predictor
