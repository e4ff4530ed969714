"""What one training step does: the networks, their optimisers, and the two updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from config_physics import Config, attribute_table
from dataset import Batch
from engine import Engine
from gan_model import Discriminator, ProjectionDiscriminator, discriminator_loss, generator_loss, gradient_penalty
from physics_model import PhysicsPredictor, photometric_loss, physics_loss, variance_loss
from ranks import Ranks
from sampling import build_generator
from weight_average import WeightAverage

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


class Variant(NamedTuple):
    """What a step does besides the usual.

    Attributes
    ----------
    phase : {"predictor", "generator"}
    penalised : bool
        The discriminator's loss has its gradient penalty.
    photometric : bool
        The generator's loss has its photometric part.
    """

    phase: str
    penalised: bool = False
    photometric: bool = False


class Learner:
    """The networks of a run and their updates.

    A step never makes the host wait for the device, and all that it changes are tensors that stay in place, so that
    `engine.RecordedStep` can record it. An update whose gradient is not finite is left out; the returned terms tell.

    Parameters
    ----------
    config : Config
    engine : Engine
    ranks : Ranks, optional
        This process alone if left out.
    """

    def __init__(self, config: Config, engine: Engine, ranks: Ranks | None = None) -> None:
        self.config, self.engine, self.ranks = config, engine, ranks or Ranks()
        judge = ProjectionDiscriminator if config.discriminator == "projection" else Discriminator
        self.generator = self._place(build_generator(config))
        self.discriminator = self._place(judge(config.condition_dim, config.width, config.image_size))
        self.predictor = self._place(build_predictor(config))
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
        self._statistics = engine.join_statistics(self.generator)
        self.average = WeightAverage(self.generator, config.ema_decay) if config.ema_decay else None
        self.noise = torch.Generator(engine.device).manual_seed(config.seed)

    def _place(self, network: nn.Module) -> nn.Module:
        network = self.engine.prepare(self.ranks.couple_batch_norm(network))
        self.ranks.share(network)
        return network

    def variant(self, phase: str, step: int) -> Variant:
        """Return what the step with this number in its phase does."""
        if phase == "predictor":
            return Variant(phase)
        config = self.config
        return Variant(
            phase,
            penalised=config.r1_weight > 0 and step % _PENALTY_EVERY == 0,
            photometric=config.photometry_weight > 0 and step % _PHOTOMETRY_EVERY == _PHOTOMETRY_EVERY // 2,
        )

    def schedule(self, phase: str, progress: float) -> None:
        """Set the step size for the part of the phase, 0 to 1, that is done; to be called between steps."""
        if phase == "predictor" and self.config.pretrain_decay:
            rate = self.config.pretrain_learning_rate * (1 - progress)
            self.engine.set_learning_rate(self.optimizers["predictor"], rate)

    def step(self, batch: Batch, variant: Variant) -> StepResult:
        """Take the step that the variant describes."""
        return self._predictor_step(batch) if variant.phase == "predictor" else self._generator_step(batch, variant)

    def _predictor_step(self, batch: Batch) -> StepResult:
        """Update the predictor on real images."""
        self.predictor.train()
        known, share_count = batch.known, self.ranks.mean
        with self.engine.autocast():
            predicted, log_variance = self.predictor.distribution(batch.images)
        loss, squared_errors, counts = physics_loss(predicted, batch.scaled, known, share_count=share_count)
        total = loss
        if log_variance is not None:
            doubt = variance_loss(predicted, log_variance, batch.scaled, known, share_count)
            total = loss + _VARIANCE_WEIGHT * doubt
        return [loss.detach(), self._update("predictor", total)], squared_errors, counts

    def _generator_step(self, batch: Batch, variant: Variant) -> StepResult:
        """Update the discriminator, then the generator, on one batch; the predictor is frozen."""
        config, share_count = self.config, self.ranks.mean
        self.predictor.eval().requires_grad_(False)
        statistics = self._statistics.clone()
        with self.engine.autocast():
            fake = self.generator(self._draw_noise(), batch.condition)  # (N, 3, S, S)

        # Discriminator, now and then with its gradient penalty.
        self.discriminator.requires_grad_(True)
        real = batch.images.requires_grad_(variant.penalised)
        with self.engine.autocast():
            real_logits = self.discriminator(real, batch.condition).float()
            fake_logits = self.discriminator(fake.detach(), batch.condition).float()
        d_real_loss, d_fake_loss = discriminator_loss(real_logits, fake_logits, config.real_label, config.fake_label)
        d_total = d_real_loss + d_fake_loss
        if variant.penalised:
            d_total = d_total + _PENALTY_EVERY * config.r1_weight / 2 * gradient_penalty(real_logits, real)
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
            measured = _PHOTOMETRY_EVERY * photometric_loss(
                fake, batch.scaled, batch.known, self.attributes, share_count
            )
            g_total = g_total + config.photometry_weight * measured
        g_norm = self._update("generator", g_total)

        # A forward pass that overflowed has left its traces in the running statistics.
        self._statistics.copy_(torch.where(torch.isfinite(g_norm), self._statistics, statistics))
        if self.average is not None:
            self.average.update(self.generator)
        d_real, d_fake = real_logits.detach().sigmoid().mean(), fake_logits.detach().sigmoid().mean()
        terms = [d_real_loss, d_fake_loss, adversarial, physics, measured, d_real, d_fake, d_norm, g_norm]
        return terms, squared_errors, counts

    def _draw_noise(self) -> Tensor:
        """Draw the noise of the whole batch of all ranks, the same on each, and return this rank's part."""
        size, ranks = self.config.batch_size, self.ranks
        z = torch.randn(ranks.size * size, self.config.latent_dim, generator=self.noise, device=self.engine.device)
        return z[ranks.rows(size)]

    def _update(self, name: str, loss: Tensor) -> Tensor:
        """Take one clipped optimiser step unless the gradient is not finite; return its norm before clipping."""
        optimizer, parameters = self.optimizers[name], list(self.networks[name].parameters())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        self.engine.step_if_finite(optimizer, norm)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, the average, and the states of all random generators."""
        return {
            "networks": {name: module.state_dict() for name, module in self.networks.items()},
            # Their settings follow from the run's settings and the device.
            "optimizers": {name: optimizer.state_dict()["state"] for name, optimizer in self.optimizers.items()},
            "ema": self.average.state_dict() if self.average is not None else None,
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
            optimizer = self.optimizers[name]
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state["optimizers"][name], "param_groups": groups})
        if self.average is not None:
            self.average.load_state_dict(state["ema"])
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
