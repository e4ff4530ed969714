"""The two updates of a step of the GAN."""

from __future__ import annotations

from typing import ClassVar

import torch

from config_physics import Config
from dataset import Batch
from engine import Engine
from gan_model import Discriminator, ProjectionDiscriminator, discriminator_loss, generator_loss, gradient_penalty
from learner import PHOTOMETRY_EVERY, Learner, StepResult, Variant
from physics_model import photometric_loss, physics_loss
from ranks import Ranks
from sampling import build_generator

PENALTY_EVERY = 4  # steps between gradient penalties, each weighing that much more (Karras et al. 2020, "lazy")


class GanLearner(Learner):
    """Generator and discriminator against each other, the generator held to its physics; see `Learner`."""

    terms: ClassVar[dict[str, tuple[str, ...]]] = {
        "predictor": ("physics", "grad_norm"),
        "generator": (
            "d_loss_real",
            "d_loss_fake",
            "g_adversarial",
            "physics",
            "photometry",
            "d_real",
            "d_fake",
            "d_grad_norm",
            "g_grad_norm",
        ),
    }

    def __init__(self, config: Config, engine: Engine, ranks: Ranks | None = None) -> None:
        judge = ProjectionDiscriminator if config.discriminator == "projection" else Discriminator
        networks = {
            "generator": build_generator(config),
            "discriminator": judge(config.condition_dim, config.width, config.image_size),
        }
        super().__init__(networks, config, engine, ranks or Ranks())
        self.discriminator = self.networks["discriminator"]

    def with_sums(self, means: dict[str, float]) -> dict[str, float]:
        """Return the means with L_D and L_G."""
        d_loss = means["d_loss_real"] + means["d_loss_fake"]
        return means | {"d_loss": d_loss, "g_loss": means["g_adversarial"] + self._physics_sum(means)}

    def variant(self, phase: str, step: int) -> Variant:
        """Return what the step with this number in its phase does."""
        penalised = self.config.r1_weight > 0 and step % PENALTY_EVERY == 0
        return super().variant(phase, step)._replace(penalised=penalised and phase == "generator")

    def _generator_step(self, batch: Batch, variant: Variant) -> StepResult:
        """Update the discriminator, then the generator, on one batch."""
        config, share_count = self.config, self.ranks.mean
        statistics = self._statistics.clone()
        with self.engine.autocast():
            fake = self.generator(self._draw(config.latent_dim), batch.condition)  # (N, 3, S, S)

        # Discriminator, now and then with its gradient penalty.
        self.discriminator.requires_grad_(True)
        real = batch.images.requires_grad_(variant.penalised)
        with self.engine.autocast():
            real_logits = self.discriminator(real, batch.condition).float()
            fake_logits = self.discriminator(fake.detach(), batch.condition).float()
        d_real_loss, d_fake_loss = discriminator_loss(real_logits, fake_logits, config.real_label, config.fake_label)
        d_total = d_real_loss + d_fake_loss
        if variant.penalised:
            d_total = d_total + PENALTY_EVERY * config.r1_weight / 2 * gradient_penalty(real_logits, real)
        d_norm = self._update("discriminator", d_total)

        # Generator; the discriminator's own gradients would be thrown away, so none are computed.
        self.discriminator.requires_grad_(False)
        with self.engine.autocast():
            judged = self.discriminator(fake, batch.condition).float()
            predicted, log_variance = self.predictor.distribution(fake)
        adversarial = generator_loss(judged)
        reliability = self.predictor.reliability(log_variance)
        physics, squared_errors, counts = physics_loss(predicted, batch.scaled, batch.known, reliability, share_count)
        g_total = adversarial + config.physics_weight * physics
        measured = torch.zeros_like(adversarial)
        if variant.photometric:
            measured = PHOTOMETRY_EVERY * photometric_loss(
                fake, batch.scaled, batch.known, self.attributes, share_count
            )
            g_total = g_total + config.photometry_weight * measured
        g_norm = self._update_generator(g_total, statistics)

        d_real, d_fake = real_logits.detach().sigmoid().mean(), fake_logits.detach().sigmoid().mean()
        terms = [d_real_loss, d_fake_loss, adversarial, physics, measured, d_real, d_fake, d_norm, g_norm]
        return terms, squared_errors, counts
