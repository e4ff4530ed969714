"""The training loops: phase 1, the physics predictor on real images; phase 2, the GAN with the predictor frozen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from checkpoint import LATEST, publish_latest, save_checkpoint
from command_line import StopSignals
from config_physics import MORPHOLOGIES, Config, UserError, attribute_table
from dataset import Batch, DeviceBatches, PreparedDataset
from engine import Engine
from gan_model import Discriminator, Generator, discriminator_loss, generator_loss
from meters import Meters
from monitoring import (
    MetricsLog,
    bar_line,
    check_samples,
    collapse_warnings,
    curves_picture,
    health_warnings,
    phase_order,
    sample_grid,
    test_predictor,
)
from physics_model import PhysicsPredictor, physics_loss
from pictures import save_picture
from sampling import GalaxySampler, Population

_SAVE_SECONDS = 60  # `latest.pt` is renewed at the end of an epoch when it is older than this
_POPULATION_LIMIT = 50_000  # real galaxies whose class and attributes travel in a checkpoint
_METRICS = {
    "predictor": ("physics", "grad_norm"),
    "generator": (
        "d_loss_real",
        "d_loss_fake",
        "g_adversarial",
        "physics",
        "d_real",
        "d_fake",
        "d_grad_norm",
        "g_grad_norm",
    ),
}


class Trainer:
    """One run of two phases, from any state to its end.

    Parameters
    ----------
    config : Config
    data : PreparedDataset
    checkpoints, samples : Path
        The run's own two folders.
    state : dict, optional
        A checkpoint's content to go on from.
    """

    def __init__(
        self,
        config: Config,
        data: PreparedDataset,
        checkpoints: Path,
        samples: Path,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.config, self.data, self.checkpoints, self.samples = config, data, checkpoints, samples
        self.engine = Engine.choose(config.device, config.precision)
        device = self.engine.device
        torch.manual_seed(config.seed)
        self.batches = DeviceBatches(data, "train", config, device)
        self.population = _population(self.batches, config.seed)

        network = (config.latent_dim, config.condition_dim, config.width, config.image_size)
        betas = (config.beta1, config.beta2)
        self.generator = self.engine.prepare(Generator(*network))
        self.discriminator = self.engine.prepare(Discriminator(*network[1:]))
        self.predictor = self.engine.prepare(PhysicsPredictor(len(config.attributes), config.width, config.dropout))
        self.networks: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "predictor": self.predictor,
        }
        self.optimizers = {
            name: self.engine.adam(module, config.learning_rate, betas) for name, module in self.networks.items()
        }
        # Batch-norm statistics are averaged like the weights: they belong to them.
        self.ema = (
            AveragedModel(self.generator, avg_fn=_warmed_up_average(config.ema_decay), use_buffers=True)
            if config.ema_decay
            else None
        )
        self.noise = torch.Generator(device).manual_seed(config.seed)

        self.phase = "predictor"
        self.epoch = 0  # epochs of the phase that are done
        self.step = 0  # steps of the phase that are done
        self._active_warnings: set[str] = set()
        self._new_meters()
        if state is not None:
            self._load(state)
        self.log = MetricsLog(checkpoints / "metrics.jsonl", (phase_order(self.phase), self.step))
        self.stop_requested = False
        self._last_save = time.monotonic()
        variance = self.batches.scaled.cpu().masked_fill(self.batches.known.cpu() == 0, math.nan)
        spread = (variance - variance.nanmean(0)).square().nanmean(0)
        self._attribute_variance = dict(zip(config.attributes, spread.tolist(), strict=True))

    # ------------------------------------------------------------------------------------------ one step

    def predictor_step(self, batch: Batch) -> None:
        """Update the predictor on real images."""
        self.predictor.train()
        with self.engine.autocast():
            predicted = self.predictor(batch.images)
        loss, squared_errors, counts = physics_loss(predicted, batch.scaled, batch.known)
        grad_norm = self._update("predictor", loss)
        self._measure([loss, grad_norm], squared_errors, counts)

    def generator_step(self, batch: Batch) -> None:
        """Update the discriminator, then the generator, on one batch of conditions."""
        config = self.config
        size, device = config.batch_size, self.engine.device
        self.predictor.eval().requires_grad_(False)
        z = torch.randn(size, config.latent_dim, generator=self.noise, device=device)
        with self.engine.autocast():
            fake = self.generator(z, batch.condition)  # (N, 3, S, S)

        # Discriminator.
        self.discriminator.requires_grad_(True)
        with self.engine.autocast():
            real_logits = self.discriminator(batch.images, batch.condition).float()
            fake_logits = self.discriminator(fake.detach(), batch.condition).float()
        d_real_loss, d_fake_loss = discriminator_loss(real_logits, fake_logits, config.real_label, config.fake_label)
        d_norm = self._update("discriminator", d_real_loss + d_fake_loss)

        # Generator; the discriminator's own gradients would be thrown away, so none are computed.
        self.discriminator.requires_grad_(False)
        with self.engine.autocast():
            judged = self.discriminator(fake, batch.condition).float()
            predicted = self.predictor(fake)
        adversarial = generator_loss(judged)
        physics, squared_errors, counts = physics_loss(predicted, batch.scaled, batch.known)
        g_norm = self._update("generator", adversarial + config.physics_weight * physics)

        if self.ema is not None:
            self.ema.update_parameters(self.generator)
        d_real, d_fake = real_logits.detach().sigmoid().mean(), fake_logits.detach().sigmoid().mean()
        self._measure(
            [d_real_loss, d_fake_loss, adversarial, physics, d_real, d_fake, d_norm, g_norm], squared_errors, counts
        )

    def _update(self, name: str, loss: Tensor) -> Tensor:
        """Take one clipped optimiser step and return the gradient's norm before clipping."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.networks[name].parameters(), self.config.clip_norm)
        optimizer.step()
        return norm

    # ---------------------------------------------------------------------------------------- the phases

    def train(self) -> None:
        """Run what is left of both phases.

        Raises
        ------
        UserError
            If a loss stops being finite, naming the last good checkpoint.
        """
        with StopSignals(self._request_stop):
            if self.phase == "predictor":
                self._run_phase(self.config.pretrain_epochs, self.predictor_step)
                if self.stop_requested:
                    return
                self._finish_predictor()
            self._run_phase(self.config.epochs, self.generator_step)
        if not self.stop_requested:
            self.save_curves()

    def try_steps(self) -> None:
        """Take one step of each phase without writing anything, to show that a run can start."""
        self.batches.start_epoch()
        self.predictor_step(self.batches.next_batch())
        self.phase = "generator"
        self._new_meters()
        self.batches.start_epoch()
        self.generator_step(self.batches.next_batch())
        for name, value in self._means(self._interval).items():
            if not math.isfinite(value):
                raise UserError(f"{name} is not finite in the first step")

    def _request_stop(self) -> None:
        if self.stop_requested:  # asked twice: do not wait for the step
            raise KeyboardInterrupt
        self.stop_requested = True

    def _run_phase(self, num_epochs: int, take_step: Callable[[Batch], None]) -> None:
        per_epoch, size = len(self.batches), self.config.batch_size
        number = phase_order(self.phase) + 1
        with tqdm(
            total=num_epochs * per_epoch * size,
            initial=self.step * size,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5,
            desc=f"phase {number} ({self.phase})",
        ) as bar:
            while self.epoch < num_epochs:
                if self.batches.position == 0:
                    self.batches.start_epoch()
                while self.batches.position < per_epoch:
                    take_step(self.batches.next_batch())
                    self.step += 1
                    bar.update(size)
                    if self.step % self.config.log_every == 0 or self.batches.position == per_epoch:
                        record = self._log_interval()
                        bar.set_postfix_str(
                            f"epoch {self.epoch + 1}/{num_epochs} " + bar_line(record, self.config.attributes)
                        )
                    if self.stop_requested:
                        self._save_latest()
                        return
                self._end_epoch(num_epochs)

    def _end_epoch(self, num_epochs: int) -> None:
        self.epoch += 1
        self.batches.end_epoch()
        means = self._means(self._epoch_total)
        self._epoch_total.clear()
        if self.phase == "generator":
            self._warn(health_warnings(means, self.config, self._attribute_variance), ("discriminator", "no_control"))
            if self.epoch % self.config.checkpoint_every == 0 or self.epoch == num_epochs:
                self._checkpoint_epoch()
                return
        if time.monotonic() - self._last_save > _SAVE_SECONDS:
            self._save_latest()

    def _checkpoint_epoch(self) -> None:
        """Draw the sample grid, check the samples with instruments, and write the numbered checkpoint.

        The checkpoint comes last: a run killed in between repeats the epoch, and nothing is missing.
        """
        sampler = self.sampler()
        title = f"{self.checkpoints.name}, epoch {self.epoch}"
        save_picture(sample_grid(sampler, title), self.samples / f"epoch_{self.epoch:04d}.png")
        report = check_samples(sampler, self._real_examples())
        self._record("check", report)
        self._warn(collapse_warnings(report), ("collapse",))
        path = self.checkpoints / f"epoch_{self.epoch:04d}.pt"
        save_checkpoint(path, self.state_dict())
        publish_latest(path)
        self._last_save = time.monotonic()

    def _finish_predictor(self) -> None:
        """Test the predictor on galaxies that it has not seen, then hand over to phase 2."""
        report = test_predictor(self.predictor, self.data, self.config.attributes, self.engine.device)
        self._record("test", report)
        for attribute in attribute_table(self.config.attributes):
            if f"mae_{attribute.name}" in report:
                unit = f" {attribute.unit}" if attribute.unit else ""
                tqdm.write(
                    f"predictor on test galaxies: {attribute.name} mean absolute error "
                    f"{report[f'mae_{attribute.name}']:.4g}{unit}, R2 {report[f'r2_{attribute.name}']:.2f}"
                )
        self.phase, self.epoch, self.step = "generator", 0, 0
        self._new_meters()
        self._save_latest()

    # --------------------------------------------------------------------------------- meters and records

    def _new_meters(self) -> None:
        """Make the meters of the phase: one for the interval between log lines, one for the epoch."""
        names = _METRICS[self.phase]
        self._interval, self._epoch_total = (
            Meters(names, self.config.attributes, self.engine.device) for _ in range(2)
        )

    def _measure(self, terms: list[Tensor], squared_errors: Tensor, counts: Tensor) -> None:
        for meters in (self._interval, self._epoch_total):
            meters.add(terms, squared_errors, counts)

    def _means(self, meters: Meters) -> dict[str, float]:
        """Return the means with the sums of L_D and L_G."""
        means = meters.means()
        if self.phase == "generator":
            means["d_loss"] = means["d_loss_real"] + means["d_loss_fake"]
            means["g_loss"] = means["g_adversarial"] + self.config.physics_weight * means["physics"]
        return means

    def _log_interval(self) -> dict[str, float]:
        means = self._means(self._interval)
        for name, value in means.items():
            if not math.isfinite(value):
                raise UserError(self._non_finite_message(name))
        images = self._interval.steps * self.config.batch_size
        means["images_per_s"] = images / max(1e-9, time.monotonic() - self._interval.start_time)
        self._record("train", means)
        self._interval.clear()
        return means

    def _non_finite_message(self, term: str) -> str:
        latest = self.checkpoints / LATEST
        good = f"the last good checkpoint is {latest}" if latest.exists() else "no checkpoint was saved yet"
        return (
            f"{term} is no longer finite near step {self.step} of phase {phase_order(self.phase) + 1}: {good}; "
            "try a lower --learning-rate or --precision fp32"
        )

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        # The epoch is the one in progress while training, and the one just finished in a check.
        epoch = self.epoch + 1 if kind == "train" else self.epoch
        self.log.write({"kind": kind, "phase": self.phase, "epoch": epoch, "step": self.step, **values})

    def _warn(self, warnings: dict[str, str], kinds: tuple[str, ...]) -> None:
        """Print each warning when it appears, and again only after it had gone."""
        for name, sentence in warnings.items():
            if name not in self._active_warnings:
                tqdm.write(f"warning, epoch {self.epoch}: {sentence}")
                self._record("warning", {"name": name, "message": sentence})
        self._active_warnings = {w for w in self._active_warnings if not w.startswith(kinds)} | set(warnings)

    # ------------------------------------------------------------------------------------ state and files

    def sampler(self) -> GalaxySampler:
        """Return a sampler of the averaged generator (or of the generator itself), sharing its weights."""
        network = self.generator if self.ema is None else self.ema.module
        return GalaxySampler(network, self.config, self.population, Engine(self.engine.device, bf16=False))

    def save_curves(self) -> None:
        """Draw the loss curves into the run's sample folder."""
        picture = curves_picture(self.log.path, self.config.attributes, f"{self.checkpoints.name}: training")
        save_picture(picture, self.samples / "curves.png")

    def _real_examples(self, per_class: int = 32) -> dict[int, Tensor]:
        """Return up to `per_class` real training images of each class."""
        examples = {}
        for index in range(len(MORPHOLOGIES)):
            rows = torch.nonzero(self.batches.classes == index)[:per_class, 0]
            if len(rows) > 1:
                examples[index] = self.batches.images[rows].cpu()
        return examples

    def _save_latest(self) -> None:
        save_checkpoint(self.checkpoints / LATEST, self.state_dict())
        self._last_save = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, and what generation needs."""
        return {
            "config": self.config.to_dict(),
            "phase": self.phase,
            "epoch": self.epoch,
            "step": self.step,
            "networks": {name: module.state_dict() for name, module in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "random": {**self.engine.random_states(), "noise": self.noise.get_state()},
            "batches": self.batches.state_dict(),
            "warnings": sorted(self._active_warnings),
            "meters": {"interval": self._interval.state_dict(), "epoch": self._epoch_total.state_dict()},
            "attributes": [vars(a) for a in attribute_table(self.config.attributes)],
            "population": {"classes": self.population.classes, "values": self.population.values},
            "provenance": {
                "source": self.data.manifest.get("source"),
                "count": len(self.data.images),
                "sha256": self.data.manifest["sha256"],
            },
        }

    def _load(self, state: dict[str, Any]) -> None:
        if state["provenance"]["sha256"] != self.data.manifest["sha256"]:
            raise UserError(
                f"{self.data.path} is not the dataset that this run was trained on: its files have other checksums"
            )
        self.phase, self.epoch, self.step = state["phase"], state["epoch"], state["step"]
        for name, module in self.networks.items():
            module.load_state_dict(state["networks"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.batches.load_state_dict(state["batches"])
        self._new_meters()
        self._interval.load_state_dict(state["meters"]["interval"])
        self._epoch_total.load_state_dict(state["meters"]["epoch"])
        self._active_warnings = set(state["warnings"])
        self.noise.set_state(state["random"]["noise"])
        self.engine.restore_random_states(state["random"])


def _population(batches: DeviceBatches, seed: int) -> Population:
    """Take the training galaxies' classes and attributes, at most `_POPULATION_LIMIT` of them."""
    chosen = torch.randperm(len(batches.classes_cpu), generator=torch.Generator().manual_seed(seed))
    chosen = chosen[:_POPULATION_LIMIT].sort().values
    return Population(batches.classes_cpu[chosen], batches.values[chosen])


def _warmed_up_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the update of the running average; early on it forgets faster, so that it leaves the start behind."""

    def average(old: Tensor, new: Tensor, num_averaged: Tensor) -> Tensor:
        if not old.is_floating_point():
            return new
        current = min(decay, (1 + int(num_averaged)) / (10 + int(num_averaged)))
        return torch.lerp(old, new, 1 - current)

    return average
