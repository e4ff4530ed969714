"""What one training step does: the networks, their optimisers, and the two updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from config_physics import Config, attribute_table
from dataset import Batch
from engine import Engine
from gan_model import Discriminator, ProjectionDiscriminator, discriminator_loss, generator_loss, gradient_penalty
from physics_model import PhysicsPredictor, photometric_loss, physics_loss, variance_loss
from sampling import build_generator

# The scalar terms that each step returns, in order.
TERMS = {
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
_PENALTY_EVERY = 4  # steps between gradient penalties, each weighing that much more (Karras et al. 2020, "lazy")

_PHOTOMETRY_EVERY = 4  # likewise for photometry, which costs as much as a small network

_VARIANCE_WEIGHT = 0.01  # the variance's layers share the predictor's clipped gradient norm, and must not fill it

# Terms of one step, then the sum of squared errors (A,) and the number of known values (A,) of each attribute.
StepResult = tuple[list[Tensor], Tensor, Tensor]


class Learner:
    """The networks of a run and their updates.

    Parameters
    ----------
    config : Config
    engine : Engine
    """

    def __init__(self, config: Config, engine: Engine) -> None:
        self.config, self.engine = config, engine
        self.generator = engine.prepare(build_generator(config))
        judge = ProjectionDiscriminator if config.discriminator == "projection" else Discriminator
        self.discriminator = engine.prepare(judge(config.condition_dim, config.width, config.image_size))
        self.predictor = engine.prepare(build_predictor(config))
        self.attributes = attribute_table(config.attributes)
        self.networks: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "predictor": self.predictor,
        }
        rates = dict.fromkeys(self.networks, config.learning_rate) | {"predictor": config.pretrain_learning_rate}
        self.optimizers = {
            name: engine.adam(module, rates[name], (config.beta1, config.beta2))
            for name, module in self.networks.items()
        }
        # Batch-norm statistics are averaged like the weights: they belong to them.
        self.ema = (
            AveragedModel(self.generator, multi_avg_fn=_average(config.ema_decay), use_buffers=True)
            if config.ema_decay
            else None
        )
        self.noise = torch.Generator(engine.device).manual_seed(config.seed)

    def predictor_step(self, batch: Batch, progress: float) -> StepResult:
        """Update the predictor on real images.

        `progress` is the part of the phase that is done, 0 to 1; with `pretrain_decay` the step size falls with it.
        """
        self.predictor.train()
        if self.config.pretrain_decay:
            for group in self.optimizers["predictor"].param_groups:
                group["lr"] = self.config.pretrain_learning_rate * (1 - progress)
        with self.engine.autocast():
            predicted, log_variance = self.predictor.distribution(batch.images)
        loss, squared_errors, counts = physics_loss(predicted, batch.scaled, batch.known)
        total = loss
        if log_variance is not None:
            total = loss + _VARIANCE_WEIGHT * variance_loss(predicted, log_variance, batch.scaled, batch.known)
        return [loss.detach(), self._update("predictor", total)], squared_errors, counts

    def generator_step(self, batch: Batch, step: int) -> StepResult:
        """Update the discriminator, then the generator, on one batch; the predictor is frozen.

        `step` counts the steps of the phase; it decides when the gradient penalty is due.
        """
        config = self.config
        size, device = config.batch_size, self.engine.device
        self.predictor.eval().requires_grad_(False)
        z = torch.randn(size, config.latent_dim, generator=self.noise, device=device)
        with self.engine.autocast():
            fake = self.generator(z, batch.condition)  # (N, 3, S, S)

        # Discriminator, now and then with its gradient penalty.
        self.discriminator.requires_grad_(True)
        penalised = config.r1_weight > 0 and step % _PENALTY_EVERY == 0
        real = batch.images.requires_grad_(penalised)
        with self.engine.autocast():
            real_logits = self.discriminator(real, batch.condition).float()
            fake_logits = self.discriminator(fake.detach(), batch.condition).float()
        d_real_loss, d_fake_loss = discriminator_loss(real_logits, fake_logits, config.real_label, config.fake_label)
        d_total = d_real_loss + d_fake_loss
        if penalised:
            d_total = d_total + _PENALTY_EVERY * config.r1_weight / 2 * gradient_penalty(real_logits, real)
        d_norm = self._update("discriminator", d_total)

        # Generator; the discriminator's own gradients would be thrown away, so none are computed.
        self.discriminator.requires_grad_(False)
        with self.engine.autocast():
            judged = self.discriminator(fake, batch.condition).float()
            predicted, log_variance = self.predictor.distribution(fake)
        adversarial = generator_loss(judged)
        reliability = self.predictor.reliability(log_variance)
        physics, squared_errors, counts = physics_loss(predicted, batch.scaled, batch.known, reliability)
        g_total = adversarial + config.physics_weight * physics
        measured = torch.zeros_like(adversarial)
        if config.photometry_weight > 0 and step % _PHOTOMETRY_EVERY == _PHOTOMETRY_EVERY // 2:
            measured = _PHOTOMETRY_EVERY * photometric_loss(fake, batch.scaled, batch.known, self.attributes)
            g_total = g_total + config.photometry_weight * measured
        g_norm = self._update("generator", g_total)

        if self.ema is not None:
            self.ema.update_parameters(self.generator)
        d_real, d_fake = real_logits.detach().sigmoid().mean(), fake_logits.detach().sigmoid().mean()
        terms = [d_real_loss, d_fake_loss, adversarial, physics, measured, d_real, d_fake, d_norm, g_norm]
        return terms, squared_errors, counts

    def _update(self, name: str, loss: Tensor) -> Tensor:
        """Take one clipped optimiser step and return the gradient's norm before clipping."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.networks[name].parameters(), self.config.clip_norm)
        optimizer.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, the average, and the states of all random generators."""
        return {
            "networks": {name: module.state_dict() for name, module in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "random": {
                **self.engine.random_states(),
                "noise": self.noise.get_state(),
                "noise_device": self.engine.device.type,
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        for name, module in self.networks.items():
            module.load_state_dict(state["networks"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        saved_on, device = state["random"]["noise_device"], self.engine.device.type
        if saved_on == device:
            self.noise.set_state(state["random"]["noise"])
        else:
            # Generators of different devices share no state: go on with noise of the run's own that was not used yet.
            self.noise.manual_seed(self.config.seed + 1 + state["step"])
            print(f"saved on {saved_on}, going on on {device}: the run continues, but not to the same bits")
        self.engine.restore_random_states(state["random"])


def build_predictor(config: Config) -> PhysicsPredictor:
    """Return a new predictor of the settings' shape, on the CPU."""
    return PhysicsPredictor(len(config.attributes), config.width, config.dropout, config.uncertainty)


def _average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """Return the update of the running average; early on it forgets faster, so that it leaves the start behind.

    `num_averaged` stays on the CPU, so that reading it waits for no device.
    """

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], num_averaged: Tensor) -> None:
        count = int(num_averaged)
        weight = 1 - min(decay, (1 + count) / (10 + count))
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new.to(old.dtype), weight)
            else:
                old.copy_(new)

    return update
