"""The training loops: phase 1, the physics predictor on real images; phase 2, the GAN with the predictor frozen."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from checkpoint import LATEST
from command_line import StopSignals
from config_physics import MORPHOLOGIES, Config, UserError, attribute_table
from dataset import DeviceBatches, PreparedDataset
from engine import Engine
from learner import TERMS, Learner
from meters import Meters
from monitoring import (
    MetricsLog,
    bar_line,
    check_samples,
    collapse_warnings,
    curves_picture,
    evaluate_predictor,
    health_warnings,
    phase_order,
    sample_grid,
)
from pictures import save_picture
from run_folder import clean_up, save_epoch, save_latest
from sampling import GalaxySampler, Population

_SAVE_SECONDS = 60  # `latest.pt` is renewed at the end of an epoch when it is older than this
_POPULATION_LIMIT = 50_000  # real galaxies whose class and attributes travel in a checkpoint


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

        self.learner = Learner(config, self.engine)
        self.phase = "predictor"
        self.epoch = 0  # epochs of the phase that are done
        self.step = 0  # steps of the phase that are done
        self._active_warnings: set[str] = set()
        self.history: list[dict[str, Any]] = []  # every test and check so far, and each epoch's means
        self._new_meters()
        if state is not None:
            self._load(state)
        self.log = MetricsLog(checkpoints / "metrics.jsonl")
        self.stop_requested = False
        self._last_save = time.monotonic()
        variance = self.batches.scaled.cpu().masked_fill(self.batches.known.cpu() == 0, math.nan)
        spread = (variance - variance.nanmean(0)).square().nanmean(0)
        self._attribute_variance = dict(zip(config.attributes, spread.tolist(), strict=True))
        if state is None:
            self.learner.predictor.prior_variance.copy_(torch.nan_to_num(spread, nan=1.0))

    def train(self) -> None:
        """Run what is left of both phases.

        Raises
        ------
        UserError
            If a loss stops being finite, naming the last good checkpoint.
        """
        self.log.drop_after(self.phase, self.step)
        clean_up(self.checkpoints, self.samples)
        with StopSignals(self._request_stop):
            if self.phase == "predictor":
                self.run_phase(self.config.pretrain_epochs)
                if self.stop_requested:
                    self._save_latest()
                    return
                self._finish_predictor()
            self.run_phase(self.config.epochs)
            if self.epoch < self.config.epochs:
                self._save_latest()
                return
        self.stop_requested = False  # a request during the last epoch's end has nothing left to stop
        self.save_curves()

    def try_steps(self) -> None:
        """Take one step of each phase without writing anything, to show that a run can start."""
        for phase in TERMS:
            self.phase = phase
            self._new_meters()
            self.batches.start_epoch()
            self._take_step(total_steps=1)
            self._check_finite(self._means(self._interval))

    def _request_stop(self) -> None:
        if self.stop_requested:  # asked twice: do not wait for the step
            raise KeyboardInterrupt
        self.stop_requested = True

    def run_phase(self, num_epochs: int) -> None:
        """Train the phase that the run is in until it has had `num_epochs` or a stop is requested."""
        per_epoch, size = len(self.batches), self.config.batch_size
        number = phase_order(self.phase) + 1
        # A terminal has a second line for the losses, which are too long for the bar's; a log file has one line.
        is_terminal = sys.stderr.isatty()
        with (
            tqdm(
                total=num_epochs * per_epoch * size,
                initial=self.step * size,
                unit="img",
                unit_scale=True,
                dynamic_ncols=True,
                mininterval=0.5 if is_terminal else 30,
                desc=f"phase {number} ({self.phase})",
            ) as bar,
            tqdm(bar_format="{desc}", position=1, dynamic_ncols=True, leave=False, disable=not is_terminal) as losses,
        ):
            while self.epoch < num_epochs:
                if self.batches.position == 0:
                    self.batches.start_epoch()
                while self.batches.position < per_epoch:
                    self._take_step(num_epochs * per_epoch)
                    bar.update(size)
                    if self.step % self.config.log_every == 0 or self.batches.position == per_epoch:
                        record = self._log_interval()
                        epoch, line = f"epoch {self.epoch + 1}/{num_epochs}", bar_line(record, self.config.attributes)
                        bar.set_postfix_str(epoch if is_terminal else f"{epoch} {line}", refresh=False)
                        losses.set_description_str(line)
                    if self.stop_requested:
                        self._check_finite(self._means(self._interval))
                        return
                self._end_epoch(num_epochs)

    def _take_step(self, total_steps: int) -> None:
        batch = self.batches.next_batch()
        if self.phase == "predictor":
            result = self.learner.predictor_step(batch, self.step / total_steps)
        else:
            result = self.learner.generator_step(batch, self.step)
        for meters in (self._interval, self._epoch_total):
            meters.add(*result)
        self.step += 1

    def _end_epoch(self, num_epochs: int) -> None:
        self.epoch += 1
        self.batches.end_epoch()
        means = self._means(self._epoch_total)
        self._epoch_total.clear()
        self.history.append({"kind": "epoch", "phase": self.phase, "epoch": self.epoch, **means})
        if self.phase == "generator":
            self._warn(health_warnings(means, self.config, self._attribute_variance), ("discriminator", "no_control"))
            if self.epoch % self.config.checkpoint_every == 0 or self.epoch == num_epochs:
                self._checkpoint_epoch()
                self._interval.restart_clock()
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
        self.history.append(self._record("check", report))
        self._warn(collapse_warnings(report), ("collapse",))
        save_epoch(self.checkpoints, self.epoch, self.state_dict())
        self._last_save = time.monotonic()

    def _finish_predictor(self) -> None:
        """Test the predictor on galaxies that it has not seen, then hand over to phase 2."""
        try:
            report = evaluate_predictor(self.learner.predictor, self.data, self.config.attributes, self.engine.device)
        except UserError:  # its files have changed; when they are back, the run goes on from here
            self._save_latest()
            raise
        self.history.append(self._record("test", report))
        for attribute in attribute_table(self.config.attributes):
            if f"mae_{attribute.name}" in report:
                unit = f" {attribute.unit}" if attribute.unit else ""
                tqdm.write(
                    f"predictor on test galaxies: {attribute.name} mean absolute error "
                    f"{report[f'mae_{attribute.name}']:.4g}{unit}, R2 {report[f'r2_{attribute.name}']:.2f}"
                )
        self.phase, self.epoch, self.step = "generator", 0, 0
        self.batches.end_epoch()
        self._new_meters()
        self._save_latest()

    def _new_meters(self) -> None:
        """Make the meters of the phase: one for the interval between log lines, one for the epoch."""
        names = TERMS[self.phase]
        self._interval, self._epoch_total = (
            Meters(names, self.config.attributes, self.engine.device) for _ in range(2)
        )

    def _means(self, meters: Meters) -> dict[str, float]:
        """Return the means with the sums of L_D and L_G."""
        means = meters.means()
        if self.phase == "generator":
            means["d_loss"] = means["d_loss_real"] + means["d_loss_fake"]
            means["g_loss"] = (
                means["g_adversarial"]
                + self.config.physics_weight * means["physics"]
                + self.config.photometry_weight * means["photometry"]
            )
        return means

    def _log_interval(self) -> dict[str, float]:
        means = self._means(self._interval)
        self._check_finite(means)
        means["images_per_s"] = self._interval.steps_per_second() * self.config.batch_size
        self._record("train", means)
        self._interval.clear()
        return means

    def _check_finite(self, means: dict[str, float]) -> None:
        for name, value in means.items():
            if not math.isfinite(value):
                latest = self.checkpoints / LATEST
                good = f"the last good checkpoint is {latest}" if latest.exists() else "no checkpoint was saved yet"
                raise UserError(
                    f"{name} is no longer finite near step {self.step} of phase {phase_order(self.phase) + 1}: {good}; "
                    "start a new run with a lower --learning-rate or with --precision fp32"
                )

    def _record(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """Write a record of where the run stands to the metrics file, and return it."""
        # The epoch is the one in progress while training, and the one just finished in a check.
        epoch = self.epoch + 1 if kind == "train" else self.epoch
        record = {"kind": kind, "phase": self.phase, "epoch": epoch, "step": self.step, **values}
        self.log.write(record)
        return record

    def _warn(self, warnings: dict[str, str], kinds: tuple[str, ...]) -> None:
        """Print each warning when it appears, and again only after it had gone."""
        for name, sentence in warnings.items():
            if name not in self._active_warnings:
                tqdm.write(f"warning, epoch {self.epoch}: {sentence}")
                self._record("warning", {"name": name, "message": sentence})
        self._active_warnings = {w for w in self._active_warnings if not w.startswith(kinds)} | set(warnings)

    def sampler(self) -> GalaxySampler:
        """Return a sampler of the averaged generator (or of the generator itself), sharing its weights."""
        learner = self.learner
        network = learner.generator if learner.ema is None else learner.ema.module
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
        save_latest(self.checkpoints, self.state_dict())
        self._last_save = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, and what generation needs."""
        return {
            "config": self.config.to_dict(),
            "phase": self.phase,
            "epoch": self.epoch,
            "step": self.step,
            **self.learner.state_dict(),
            "batches": self.batches.state_dict(),
            "metrics": self.history,
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
        self.batches.load_state_dict(state["batches"])
        self._new_meters()
        self._interval.load_state_dict(state["meters"]["interval"])
        self._epoch_total.load_state_dict(state["meters"]["epoch"])
        self.history = state["metrics"]
        self._active_warnings = set(state["warnings"])
        self.learner.load_state_dict(state)  # last, since it restores the random generators


def _population(batches: DeviceBatches, seed: int) -> Population:
    """Take the training galaxies' classes and attributes, at most `_POPULATION_LIMIT` of them."""
    chosen = torch.randperm(len(batches.classes_cpu), generator=torch.Generator().manual_seed(seed))
    chosen = chosen[:_POPULATION_LIMIT].sort().values
    return Population(batches.classes_cpu[chosen], batches.values[chosen])
