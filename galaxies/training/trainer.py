"""The training loops: phase 1, the physics predictor on real images; phase 2, the GAN with the predictor frozen."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.common.hardware import describe
from galaxies.common.signals import StopSignals
from galaxies.compute.compilation import pays
from galaxies.compute.device import Engine
from galaxies.compute.ranks import LostRankError, Ranks, is_lost_connection
from galaxies.datasets.attribute_support import value_limits
from galaxies.datasets.batches import DeviceBatches
from galaxies.datasets.population import Population
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.grids import save_picture
from galaxies.networks.light_telescope import NUM_EXPOSURES
from galaxies.storage.checkpoint import LATEST
from galaxies.storage.metrics_log import MetricsLog, phase_order, read_metrics
from galaxies.storage.power_averages import drop_snapshots_after, snapshot_steps, write_snapshot
from galaxies.storage.run_folder import clean_up, save_epoch, save_latest
from galaxies.training.diffusion_learner import DiffusionLearner
from galaxies.training.display import TrainingBar, bar_line, curves_picture, loss_curves, sample_grid
from galaxies.training.gan_learner import GanLearner
from galaxies.training.health import (
    check_samples,
    collapse_warnings,
    evaluate_predictor,
    health_warnings,
    norm_warnings,
    predictor_lines,
    what_is_known,
    without_claim,
)
from galaxies.training.learner import Learner
from galaxies.training.recovery import IN_A_ROW, MOST_HALVINGS, halvings
from galaxies.training.starting import Start, take_over
from galaxies.training.steps import Meters, PhaseSteps, Reading

_SAVE_SECONDS = 60  # `latest.pt` is renewed when it is older than this, with a line of the log
_TOO_MANY_SKIPPED = 100  # steps in a row with something that is not finite


# What the generator of each family learns by.
LEARNERS: dict[str, type[GanLearner | DiffusionLearner]] = {"GAN": GanLearner, "diffusion": DiffusionLearner}


def build_learner(config: Config, engine: Engine, ranks: Ranks) -> Learner:
    """Return the learner of the settings' family, with networks that have learned nothing."""
    return LEARNERS[config.family](config, engine, ranks)


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
    start : Start, optional
        Weights that a new run begins with.
    """

    def __init__(
        self,
        config: Config,
        data: PreparedDataset,
        checkpoints: Path,
        samples: Path,
        state: dict[str, Any] | None = None,
        start: Start | None = None,
    ) -> None:
        self.config, self.data, self.checkpoints, self.samples = config, data, checkpoints, samples
        # A run of before believed every value, and goes on to.
        recorded = {} if state is None else state["provenance"]
        self._limits = value_limits(data, config.attributes) if state is None else recorded.get("value_limits", {})
        self.started_from: dict[str, str] | None = recorded.get("started_from")  # see `Start.provenance`
        self._build()
        if state is not None:
            self._restore(state)
        if not self.ranks.is_first:  # dropout is drawn from the global generator
            torch.manual_seed(config.seed + self.ranks.rank * 2**32 + self.step)
        variance, shares = _attribute_variance(self.batches), self.batches.known.cpu().mean(0)
        self._known_shares = dict(zip(config.attributes, shares.tolist(), strict=True))
        self._attribute_variance = dict(zip(config.attributes, variance.tolist(), strict=True))
        if state is None:
            exposures = self.batches.some_exposures(NUM_EXPOSURES)
            self.learner.learn_statistics(torch.nan_to_num(variance, nan=1.0), *self.batches.some_images(), exposures)
        if state is None and start is not None:
            same_data = start.state["provenance"]["sha256"] == data.manifest["sha256"]
            self.started_from = start.provenance(take_over(self.learner, start, same_data))

    def _build(self) -> None:
        """Make device, batches and networks of a run that has not begun."""
        config = self.config
        self.ranks = Ranks.from_environment()
        self.engine = Engine.choose(self.ranks.own_device(config.device), config.precision, config.engine)
        self.ranks.connect(self.engine.device)
        torch.manual_seed(config.seed)
        self.batches = DeviceBatches(self.data, "train", config, self.engine.device, self.ranks, self._limits)
        self.population = Population.sample(
            self.batches.classes_cpu, self.batches.values, config.seed, config.attribute_rows
        )
        psfs = self.data.usual_psfs("train")
        self._psfs = None if psfs is None else torch.from_numpy(psfs)
        num_steps = (config.pretrain_epochs + config.epochs) * len(self.batches)
        compiled = config.compile == "on" or (config.compile == "auto" and pays(self.engine.device, num_steps))
        self.engine = dataclasses.replace(self.engine, compiled=compiled)
        self.learner = build_learner(config, self.engine, self.ranks)
        if isinstance(self.learner, GanLearner):
            self.learner.learn_requests(self.batches.classes, self.batches.scaled, self.batches.known)
        self.start_phase("predictor")  # which sets epoch and step, those of the phase that are done
        self.log = MetricsLog(self.checkpoints / "metrics.jsonl")
        self.history: list[dict[str, Any]] = []  # every test and check so far, and each epoch's means
        self.num_skipped = 0  # steps left out because something was not finite
        self.stop_requested = False
        self.stop_at = math.inf  # by `time.monotonic`
        self.time_is_up = False
        self._active_warnings: set[str] = set()
        self._bad_in_a_row = 0  # those since the last interval that had another step
        self._parts = dict.fromkeys(self.learner.networks, 1.0)  # of each step size, when the log was read last
        self._last_save = time.monotonic()

    def train(self) -> None:
        """Run what is left of both phases.

        Raises
        ------
        UserError
            If something stops being finite, memory runs out or another rank is lost, naming the last good checkpoint.
        """
        if self.ranks.is_first:
            self.log.drop_after(self.phase, self.step)
            clean_up(self.checkpoints, self.samples)
            drop_snapshots_after(self.checkpoints, self.step if self.phase == "generator" else 0)
        sizes = self.learner.step_sizes()
        self._record("start", {"machine": describe(self.engine.device), "ranks": self.ranks.size, "step_sizes": sizes})
        try:
            with StopSignals(self._request_stop):
                self._train()
        except UserError as error:
            if isinstance(error.__cause__, OSError):  # the disk took no more
                raise UserError(f"{error}; {self._last_good_checkpoint()}") from None
            raise
        except torch.OutOfMemoryError:
            smaller = self.config.batch_size // 2
            raise UserError(
                f"{self.engine.device} has not enough memory: start again with --batch-size {smaller}; "
                + self._last_good_checkpoint()
            ) from None
        except RuntimeError as error:
            if self.ranks.size == 1 or not is_lost_connection(error):
                raise
            raise LostRankError(
                f"rank {self.ranks.rank} has lost another rank of this run; {self._last_good_checkpoint()}"
            ) from None

    def _train(self) -> None:
        if self.phase == "predictor":
            self.run_phase(self.config.pretrain_epochs)
            if self.stop_requested or self.time_is_up:
                self._save_latest()
                return
            self._finish_predictor()
        self.run_phase(self.config.epochs)
        if self.epoch < self.config.epochs:
            self._save_latest()
            return
        # What happened during the last epoch's end has nothing left to stop.
        self.stop_requested = self.time_is_up = False
        self.save_curves()

    def try_steps(self) -> None:
        """Take one step of each phase without writing anything, to show that a run can start."""
        for phase in self.learner.terms:
            self.start_phase(phase)
            self.take_step(total_steps=1)
            reading = self._steps.interval.read()
            if reading.num_bad:
                raise self._not_finite(reading, self._steps.interval)

    def _request_stop(self) -> None:
        if self.stop_requested:  # asked twice: do not wait for the step
            raise KeyboardInterrupt
        self.stop_requested = True

    def run_phase(self, num_epochs: int) -> None:
        """Train the phase that the run is in until it has had `num_epochs`, a stop is requested or the time is up."""
        per_epoch, size = len(self.batches), self.config.batch_size * self.ranks.size
        label = f"phase {phase_order(self.phase) + 1} ({self.phase})"
        total = num_epochs * per_epoch
        snapshots = snapshot_steps(self.config.average_snapshots, total) if self.phase == "generator" else set()
        with TrainingBar(label, self.step * size, total * size, quiet=not self.ranks.is_first) as bar:
            while self.epoch < num_epochs:
                if self.batches.position == 0:
                    self.batches.start_epoch()
                while not self.batches.is_over:
                    self.take_step(total)
                    bar.advance(size)
                    if self.step in snapshots and self.ranks.is_first and self.learner.power_averages is not None:
                        write_snapshot(self.checkpoints, self.step, self.learner.power_averages.by_name())
                    log_now = self.step % self.config.log_every == 0 or self.batches.is_over
                    if log_now:
                        record = self._log_interval()
                        bar.say(
                            f"epoch {self.epoch + 1}/{num_epochs}",
                            bar_line(record, self.learner.shown(), self.config.attributes),
                        )
                        if not self.batches.is_over:  # else the epoch's end sees to it
                            self._save_if_due()
                    if self._agree_to_stop(log_now):
                        self._check_finite(self._steps.interval.read(self.ranks))
                        return
                self._end_epoch(num_epochs)

    def _agree_to_stop(self, may_wait: bool) -> bool:
        """Tell whether to stop here; several ranks ask each other only where they wait anyway."""
        late = time.monotonic() >= self.stop_at
        if self.ranks.size > 1:
            if not may_wait:
                return False
            self.stop_requested = self.ranks.any(self.stop_requested, self.engine.device)
            late = self.ranks.any(late, self.engine.device)
        self.time_is_up = late
        return self.stop_requested or self.time_is_up

    def start_phase(self, phase: str) -> None:
        """Begin a phase at its first step."""
        self.phase, self.epoch, self.step = phase, 0, 0
        self._norm_levels: dict[str, list[float]] = {}  # see `norm_warnings`
        self.batches.end_epoch()
        self._steps = PhaseSteps(phase, self.learner, self.batches)

    def take_step(self, total_steps: int) -> None:
        """Take the next step of the phase, out of `total_steps`; the host waits for nothing."""
        self._steps.take(self.step, total_steps)
        self.step += 1

    def _end_epoch(self, num_epochs: int) -> None:
        self.epoch += 1
        self.batches.end_epoch()
        reading = self._steps.epoch_total.read(self.ranks)
        if self.epoch == num_epochs and not reading.means:
            raise self._not_finite(reading, self._steps.epoch_total, "no step of the last epoch was finite")
        means = self._means(reading)
        self._steps.epoch_total.clear()
        self.history.append({"kind": "epoch", "phase": self.phase, "epoch": self.epoch, **means})
        if self.phase == "generator" and means:
            self._warn(self._health_warnings(means), ("discriminator",))
        if self.phase == "generator" and (self.epoch % self.config.checkpoint_every == 0 or self.epoch == num_epochs):
            if self.ranks.is_first:
                self._checkpoint_epoch()
            self._steps.interval.restart_clock()
            return
        self._save_if_due()

    def _save_if_due(self) -> None:
        if time.monotonic() - self._last_save > _SAVE_SECONDS:
            self._save_latest()

    def _checkpoint_epoch(self) -> None:
        """Draw the sample grid, check the samples with instruments, and write the numbered checkpoint.

        The checkpoint comes last: a run killed in between repeats the epoch, and nothing is missing.
        """
        sampler = self.sampler()
        title = f"{self.checkpoints.name}, epoch {self.epoch}"
        save_picture(sample_grid(sampler, title), self.samples / f"epoch_{self.epoch:04d}.png")
        report = check_samples(sampler, self.batches.examples())
        self.history.append(self._record("check", report))
        self._warn(collapse_warnings(report), ("collapse",))
        save_epoch(self.checkpoints, self.epoch, self.state_dict())
        self._last_save = time.monotonic()

    def _finish_predictor(self) -> None:
        """Test the predictor on galaxies that it has not seen, and hand over to phase 2 what it can read."""
        reasons: dict[str, str] = {}
        if self.ranks.is_first:
            try:
                report = evaluate_predictor(
                    self.learner.predictor, self.data, self.config, self.engine.device, self._limits
                )
            except UserError:  # its files have changed; when they are back, the run goes on from here
                self._save_latest()
                raise
            self.history.append(self._record("test", report))
            for line in predictor_lines(report, self.config.attribute_rows):
                tqdm.write(line)
            if self.config.readable_only:
                reasons = without_claim(self._known_shares, report)
        if self.config.readable_only:
            self.learner.give_claims([name not in reasons for name in self.config.attributes])
        if reasons:
            each = ", ".join(f"{name} ({reason})" for name, reason in reasons.items())
            self._tell("no_claim", f"no claim on the generator's loss: {each}")
        self.start_phase("generator")
        self._save_latest()

    def _tested(self) -> dict[str, Any]:
        """Return what the predictor's test found, nothing before it."""
        return next((record for record in reversed(self.history) if record["kind"] == "test"), {})

    def _told(self, name: str) -> dict[str, float]:
        """Return how much a picture tells of an attribute, for a checkpoint: the predictor's R2, where it is known."""
        r2 = self._tested().get(f"r2_{name}")
        return {} if r2 is None or not math.isfinite(r2) else {"r2": r2}

    def _health_warnings(self, means: dict[str, float]) -> dict[str, str]:
        """Judge an epoch's means; an attribute without a claim was named before the first."""
        tested = self._tested()
        claims = dict(zip(self.config.attributes, self.learner.claims.tolist(), strict=True))
        variance = {name: value for name, value in self._attribute_variance.items() if claims[name]}
        reasons = {n: what_is_known(share, tested.get(f"r2_{n}")) for n, share in self._known_shares.items()}
        return health_warnings(means, self.learner.limits, variance, reasons)

    def _means(self, reading: Reading) -> dict[str, float]:
        if self.phase == "generator" and reading.means:
            return self.learner.with_sums(reading.means)
        return reading.means

    def _log_interval(self) -> dict[str, float]:
        reading = self._steps.interval.read(self.ranks)
        self._check_finite(reading)
        self._say_what_was_left_out(reading)
        self._bad_in_a_row = self._bad_in_a_row + reading.num_bad if not reading.means else 0
        means = self._means(reading)
        means["images_per_s"] = self._steps.interval.steps_per_second() * self.config.batch_size * self.ranks.size
        if self.config.on_nan != "stop":
            self.num_skipped += reading.num_bad
            means["skipped"] = self.num_skipped
        self._record("train", means)
        self._warn(norm_warnings(means, self._norm_levels, self.phase), ())
        self._steps.interval.clear()
        return means

    def _check_finite(self, reading: Reading) -> None:
        """Stop if a term of the interval was not finite; unless `on_nan` says stop, only if that does not end.

        It does not when a network's step size was halved `MOST_HALVINGS` times, or after `_TOO_MANY_SKIPPED` steps of
        which not one was good.
        """
        if not reading.num_bad:
            return
        given_up = [
            f"the step size of the {name} was halved {MOST_HALVINGS} times and it did not recover"
            for name, part in self._parts_now().items()
            if halvings(part) >= MOST_HALVINGS
        ]
        if self.config.on_nan == "stop" or given_up or self._bad_in_a_row + reading.num_bad >= _TOO_MANY_SKIPPED:
            raise self._not_finite(reading, self._steps.interval, *given_up)

    def _not_finite(self, reading: Reading, meters: Meters, *reasons: str) -> UserError:
        """Return the error that ends a run, of what was read from the meters."""
        advice = "start a new run with a lower --learning-rate or with --precision fp32"
        return UserError(
            "; ".join(
                [self._what_was_not_finite(reading, meters), *reasons, f"{self._last_good_checkpoint()}, or {advice}"]
            )
        )

    def _what_was_not_finite(self, reading: Reading, meters: Meters) -> str:
        """Name the first of the steps that were read from the meters with something not finite, and what that was."""
        first = min(reading.first_bad.values(), default=meters.steps)
        names = [name for name, step in reading.first_bad.items() if step == first]
        step = self.step - meters.steps + first
        return f"not finite at step {step} of phase {phase_order(self.phase) + 1}: {', '.join(names) or 'a term'}"

    def _say_what_was_left_out(self, reading: Reading) -> None:
        """Print and record which steps of the interval were left out, and whose step size was halved for it."""
        if reading.num_bad:
            what = "this update is" if reading.num_bad == 1 else f"{reading.num_bad} updates from this one on are"
            self._tell("not_finite", f"{self._what_was_not_finite(reading, self._steps.interval)}; {what} left out")
        for name, part in self._parts_now().items():
            if part < self._parts[name]:
                self._tell(
                    f"halved_{name}",
                    f"{IN_A_ROW} updates of the {name} in a row were not finite: its step size is halved, to {part:g} "
                    "of what it would be; a lower --learning-rate or --precision fp32 may help",
                    part=part,
                )
            self._parts[name] = part

    def _parts_now(self) -> dict[str, float]:
        """Return what part of its step size each network takes; waits for the device."""
        parts = torch.stack([recovery.part for recovery in self.learner.recoveries.values()])
        return dict(zip(self.learner.recoveries, parts.tolist(), strict=True))

    def _last_good_checkpoint(self) -> str:
        latest = self.checkpoints / LATEST
        if not latest.exists():
            return "no checkpoint was saved yet"
        return f"resume_training.py --run {self.checkpoints.name} goes on from {latest}, the last good checkpoint"

    def _record(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """Write a record of where the run stands to the metrics file, and return it."""
        # The epoch is the one in progress while training, and the one just finished in a check.
        epoch = self.epoch + 1 if kind == "train" else self.epoch
        record = {"kind": kind, "phase": self.phase, "epoch": epoch, "step": self.step, **values}
        if self.ranks.is_first:
            self.log.write(record)
        return record

    def _warn(self, warnings: dict[str, str], kinds: tuple[str, ...]) -> None:
        """Print each warning when it appears, and again only after it had gone.

        Those in `kinds` can go, and have if they are not among the `warnings`; others are given once a run.
        """
        for name, sentence in warnings.items():
            if name not in self._active_warnings:
                self._tell(name, sentence)
        self._active_warnings = {w for w in self._active_warnings if not w.startswith(kinds)} | set(warnings)

    def _tell(self, name: str, sentence: str, **values: float) -> None:
        """Print a warning and write it to the metrics file."""
        if self.ranks.is_first:
            tqdm.write(f"warning, epoch {self.epoch}: {sentence}")
            self._record("warning", {"name": name, "message": sentence, **values})

    def sampler(self) -> GalaxySampler:
        """Return a sampler of the averaged generator (or of the generator itself), sharing its weights."""
        learner = self.learner
        network = learner.generator if learner.average is None else learner.average.module
        return GalaxySampler(network, self.config, self.population, Engine(self.engine.device, bf16=False))

    def save_curves(self) -> None:
        """Draw the loss curves into the run's sample folder."""
        if not self.ranks.is_first:
            return
        charts = loss_curves(read_metrics(self.log.path), self.learner.shown(), self.config.attributes)
        picture = curves_picture(charts, f"{self.checkpoints.name}: training")
        if picture is not None:
            save_picture(picture, self.samples / "curves.png")

    def _save_latest(self) -> None:
        if self.ranks.is_first:
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
            "skipped": self.num_skipped,
            "health": {
                "bad_in_a_row": self._bad_in_a_row,
                "parts": dict(self._parts),
                "norm_levels": {name: list(level) for name, level in self._norm_levels.items()},
            },
            "meters": self._steps.state_dict(),
            "attributes": [vars(a) | self._told(a.name) for a in self.config.attribute_rows],
            "population": {
                "classes": self.population.classes,
                "values": self.population.values,
                **({} if self._psfs is None else {"psfs": self._psfs}),
            },
            "provenance": {
                "source": self.data.manifest.get("source"),
                "count": len(self.data.images),
                "sha256": self.data.manifest["sha256"],
                "value_limits": {name: list(pair) for name, pair in self._limits.items()},
                **({"started_from": self.started_from} if self.started_from else {}),
            },
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises
        ------
        UserError
            If the dataset is another one, or the networks are.
        """
        if state["provenance"]["sha256"] != self.data.manifest["sha256"]:
            raise UserError(
                f"{self.data.path} is not the dataset that this run was trained on: its files have other checksums"
            )
        self.phase, self.epoch, self.step = state["phase"], state["epoch"], state["step"]
        self.batches.load_state_dict(state["batches"])
        self._steps = PhaseSteps(self.phase, self.learner, self.batches)
        self._steps.load_state_dict(state["meters"])
        self.history = state["metrics"]
        self._active_warnings = set(state["warnings"])
        self.num_skipped = state["skipped"]
        self._bad_in_a_row, self._parts = state["health"]["bad_in_a_row"], dict(state["health"]["parts"])
        self._norm_levels = {name: list(level) for name, level in state["health"]["norm_levels"].items()}
        self.learner.load_state_dict(state)  # last, since it restores the random generators


def _attribute_variance(batches: DeviceBatches) -> Tensor:
    """Return the variance (A,) of each scaled attribute over the galaxies that know it; NaN where none does."""
    scaled, known = batches.scaled.cpu(), batches.known.cpu()
    values = scaled.masked_fill(known == 0, math.nan)
    return (values - values.nanmean(0)).square().nanmean(0)
