"""The two updates of a step of the GAN."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import MORPHOLOGIES, Config
from galaxies.common.errors import UserError
from galaxies.compute.engine import Engine
from galaxies.compute.ranks import Ranks
from galaxies.datasets.batches import Batch
from galaxies.datasets.conditions import with_scaled
from galaxies.generation.sampler import build_generator
from galaxies.networks.grain_measurement import measure_grain
from galaxies.networks.residual_gan import ResidualDiscriminator
from galaxies.networks.sky_grain import GrainyGenerator
from galaxies.training.discriminator_augmentation import NUM_DRAWS, DiscriminatorAugmentation
from galaxies.training.learner import PHOTOMETRY_EVERY, Learner, StepResult, Variant
from galaxies.training.perceptual import Vgg16, perceptual_loss
from gan_model import (
    Discriminator,
    ProjectionDiscriminator,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    relativistic_loss,
)
from physics_model import PhysicsPredictor, photometric_loss, physics_loss

PENALTY_EVERY = 4  # steps between gradient penalties, each weighing that much more (Karras et al. 2020, "lazy")


class GanLearner(Learner):
    """Generator and discriminator against each other, the generator held to its physics; see `Learner`."""

    def __init__(self, config: Config, engine: Engine, ranks: Ranks | None = None) -> None:
        networks = {"generator": build_generator(config), "discriminator": build_discriminator(config)}
        super().__init__(networks, config, engine, ranks or Ranks())
        self.discriminator = self.networks["discriminator"]
        self.terms = {"predictor": ("physics", "grad_norm"), "generator": _terms(config)}
        self._pairs = config.adversarial == "relativistic"
        self._reads = _reads(config)
        # Slider ranges in the units of the condition vector.
        ranges = [a.high - a.low if a.raw else 1.0 for a in self.attributes]
        self._jitter = config.label_jitter * torch.tensor(ranges, device=engine.device)
        self.augmentation = None
        if config.augment_discriminator != "none":
            self.augmentation = DiscriminatorAugmentation(config.augment_discriminator == "adaptive").to(engine.device)
        self.features = choose_features(config, self.predictor)
        if isinstance(self.features, Vgg16):
            engine.prepare(self.features)

    def learn_statistics(self, attribute_variance: Tensor, images: Tensor, conditions: Tensor) -> None:
        """Take over what a new run should know of its data; see `Learner.learn_statistics`."""
        super().learn_statistics(attribute_variance, images, conditions)
        if isinstance(self.generator, GrainyGenerator):
            grain = measure_grain(images, conditions)
            for network in (self.generator, *([self.average.module] if self.average else [])):
                network.grain.learn(grain)

    def errors(self, phase: str) -> tuple[str, ...]:
        """Return the names of the errors that a phase's steps return, with those of the discriminator's readings."""
        readings = self.config.attributes if self._reads and phase == "generator" else ()
        return super().errors(phase) + tuple(f"d_regression_{name}" for name in readings)

    def with_sums(self, means: dict[str, float]) -> dict[str, float]:
        """Return the means with L_D, without what is not adversarial, and L_G."""
        config = self.config
        g_loss = means["g_adversarial"] + self._physics_sum(means)
        for name in ("regression", "class"):
            g_loss += getattr(config, f"{name}_weight") * means.get(f"g_{name}", 0.0)
        g_loss += config.perceptual_weight * means.get("perceptual", 0.0)
        d_loss = means["d_loss"] if self._pairs else means["d_loss_real"] + means["d_loss_fake"]
        return means | {"d_loss": d_loss, "g_loss": g_loss}

    def variant(self, phase: str, step: int) -> Variant:
        """Return what the step with this number in its phase does."""
        penalised = max(self.config.r1_weight, self.config.r2_weight) > 0 and step % PENALTY_EVERY == 0
        return super().variant(phase, step)._replace(penalised=penalised and phase == "generator")

    def _generator_step(self, batch: Batch, variant: Variant) -> StepResult:
        """Update the discriminator, then the generator, on one batch."""
        statistics = self._statistics.clone()
        asked = self._asked(batch)
        with self.engine.autocast():
            fake = self.generator(self._draw(self.config.noise_dim), asked.condition)  # (N, 3, S, S)
        real, terms, d_errors = self._update_discriminator(batch, asked, fake.detach(), variant)
        # The discriminator's own gradients would be thrown away, so none are computed.
        self.discriminator.requires_grad_(False)
        g_total, g_terms, g_errors = self._generator_loss(asked, fake, real, variant)
        terms |= g_terms | {"g_grad_norm": self._update_generator(g_total, statistics)}
        squared_errors, counts = (torch.cat(parts) for parts in zip(g_errors, *d_errors, strict=True))
        return [terms[name] for name in self.terms["generator"]], squared_errors, counts

    def _update_discriminator(
        self, batch: Batch, asked: Batch, fake: Tensor, variant: Variant
    ) -> tuple[Tensor, dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
        """Update the discriminator; return the real images as it saw them, terms, and the errors of its readings."""
        config = self.config
        self.discriminator.requires_grad_(True)
        # Penalties are taken at the images that it sees: turning them changes no norm but by interpolation.
        real = self._shown(batch.images).requires_grad_(variant.penalised and config.r1_weight > 0)
        fake = self._shown(fake).requires_grad_(variant.penalised and config.r2_weight > 0)
        real_logits, real_read = self._assess(real, asked.condition)
        fake_logits, fake_read = self._assess(fake, asked.condition)
        if self._pairs:
            terms = {"d_loss": relativistic_loss(real_logits, fake_logits)}
            total = terms["d_loss"]
        else:
            on_real, on_fake = discriminator_loss(real_logits, fake_logits, config.real_label, config.fake_label)
            terms = {"d_loss_real": on_real, "d_loss_fake": on_fake}
            total = on_real + on_fake
        if variant.penalised:
            if config.r1_weight > 0:
                total = total + PENALTY_EVERY * config.r1_weight / 2 * gradient_penalty(real_logits, real)
            if config.r2_weight > 0:
                total = total + PENALTY_EVERY * config.r2_weight / 2 * gradient_penalty(fake_logits, fake)
        errors = []
        if self._reads:
            # On real images the truth, on generated ones what was asked for.
            loss_real, terms_real, errors_real = self._reading_loss(real_read, batch, "d", "_real")
            loss_fake, terms_fake, _ = self._reading_loss(fake_read, asked, "d", "_fake")
            total = total + loss_real + loss_fake
            terms |= terms_real | terms_fake
            errors.append(errors_real)
        terms |= self._confidence(real_logits.detach(), fake_logits.detach())
        terms["d_grad_norm"] = self._update("discriminator", total)
        return real.detach(), terms, errors

    def _generator_loss(
        self, asked: Batch, fake: Tensor, real: Tensor, variant: Variant
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor]]:
        """Return L_G, its terms, and squared errors and counts of the predictor's attributes."""
        config, share_count = self.config, self.ranks.mean
        judged, read = self._assess(self._shown(fake), asked.condition)
        if self._pairs:
            with torch.no_grad():  # anew, since the discriminator has moved
                opposite, _ = self._assess(real, asked.condition)
            adversarial = relativistic_loss(judged, opposite)
        else:
            adversarial = generator_loss(judged)
        with self.engine.autocast():
            predicted, log_variance = self.predictor.distribution(fake)
        reliability = self.predictor.reliability(log_variance)
        physics, *errors = physics_loss(predicted, asked.scaled, asked.known, reliability, share_count)
        total = adversarial + config.physics_weight * physics
        measured = torch.zeros_like(adversarial)
        if variant.photometric:
            measured = PHOTOMETRY_EVERY * photometric_loss(
                fake, asked.scaled, asked.known, self.attributes, share_count
            )
            total = total + config.photometry_weight * measured
        terms = {"g_adversarial": adversarial, "physics": physics, "photometry": measured}
        if self._reads:
            # What no picture tells is not asked for: the two would agree on a secret sign of it.
            loss, more, _ = self._reading_loss(read, asked, "g", "", reliability)
            total, terms = total + loss, terms | more
        if self.features is not None:
            terms["perceptual"] = self._perceptual(fake, asked.images)
            total = total + config.perceptual_weight * terms["perceptual"]
        return total, terms, tuple(errors)

    def _asked(self, batch: Batch) -> Batch:
        """Return the batch with what both networks are told: jittered attributes, if labels are jittered."""
        if not self.config.label_jitter:
            return batch
        scaled = batch.scaled + self._draw(len(self.attributes)) * self._jitter * batch.known
        return dataclasses.replace(batch, condition=with_scaled(batch.condition, scaled, self.config), scaled=scaled)

    def _shown(self, images: Tensor) -> Tensor:
        """Return images as the discriminator gets to see them."""
        if self.augmentation is None:
            return images
        return self.augmentation(images, self._draw(NUM_DRAWS, uniform=True))

    def _assess(self, images: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the discriminator's logits (N,), float32, and its readings."""
        with self.engine.autocast():
            logits, readings = self.discriminator.assess(images, condition)
        return logits.float(), readings

    def _reading_loss(
        self, readings: Tensor, wanted: Batch, who: str, of: str, reliability: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Tensor, Tensor]]:
        """Return the weighted loss of the discriminator's readings, its terms, squared errors and counts."""
        config, count = self.config, len(self.attributes)
        regression, *errors = physics_loss(
            readings[:, :count], wanted.scaled, wanted.known, reliability, self.ranks.mean
        )
        entropy = F.cross_entropy(readings[:, count:].float(), wanted.classes)
        total = config.regression_weight * regression + config.class_weight * entropy
        return total, {f"{who}_regression{of}": regression, f"{who}_class{of}": entropy}, tuple(errors)

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

    def _perceptual(self, fake: Tensor, real: Tensor) -> Tensor:
        """Compare features of generated and of real images, neither of them moved."""
        with torch.no_grad(), self.engine.autocast():
            expected = self.features.maps(real)
        with self.engine.autocast():
            found = self.features.maps(fake)
        size = self.ranks.size * len(fake)
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


def _terms(config: Config) -> tuple[str, ...]:
    """Return the names of the terms of the generator's phase."""
    pairs = config.adversarial == "relativistic"
    names = ["d_loss"] if pairs else ["d_loss_real", "d_loss_fake"]
    names += ["g_adversarial", "physics", "photometry"]
    if _reads(config):
        names += ["d_regression_real", "d_regression_fake", "g_regression", "d_class_real", "d_class_fake", "g_class"]
    names += ["perceptual"] * (config.perceptual_weight > 0)
    names += ["d_pairs"] if pairs else ["d_real", "d_fake"]
    names += ["augmented"] * (config.augment_discriminator != "none")
    return (*names, "d_grad_norm", "g_grad_norm")


def _reads(config: Config) -> bool:
    """Tell whether the discriminator reads attributes and class off images."""
    return config.discriminator != "dcgan" and (config.regression_weight > 0 or config.class_weight > 0)


def build_discriminator(config: Config) -> nn.Module:
    """Return a new discriminator of the settings' shape, on the CPU."""
    shape = config.condition_dim, config.width, config.image_size
    if config.discriminator == "dcgan":
        return Discriminator(*shape)
    kind = ProjectionDiscriminator if config.discriminator == "projection" else ResidualDiscriminator
    return kind(*shape, num_readings=len(config.attributes) + len(MORPHOLOGIES) if _reads(config) else 0)


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
