"""A training in pieces: each call begins with the few small files of the last one, ends in time, and leaves the next's.

A call works in a folder of its own that goes when it ends. What the next call needs lies in the folder `out` as parts
(`galaxies.storage.parts`): the data, which are written once, and the state, which each call replaces.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from galaxies.common.durable_files import only_process, plain_errors, write_whole
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import RELEASE, REPORT, output_folder
from galaxies.common.reading import read_json
from galaxies.common.schema import entries, items
from galaxies.datasets.packing import pack, unpack
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.build import generator_weights
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.storage.metrics_log import read_metrics
from galaxies.storage.parts import has_parts, read_note, read_parts, write_parts
from studies.runs import Allowance, call, latest_checkpoint, log_of

DATA, STATE = "data", "state"  # names of what lies in parts
_GRIDS = 2  # sample grids of a run that are kept, the latest
_LOG_BYTES = 100_000  # of a run's log that are kept, the last
_REMEMBERED = 30  # times of earlier calls
# What a carrier of small files takes, for a remark.
_CARRIED_BYTES = 64 << 20


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keep other calls on this machine away from a folder of parts.

    Raises
    ------
    UserError
        If there is one.
    """
    # Not in the folder, whose files are carried.
    lock = Path(tempfile.gettempdir()) / f"galaxy-release-{hashlib.sha256(str(out).encode()).hexdigest()[:16]}.lock"
    try:
        with only_process(lock):
            yield
    except BlockingIOError:
        raise UserError(f"{out} is in use by another call: wait, or choose another --out") from None


class Pieces:
    """What is carried from call to call, and the folder that a call works in.

    Parameters
    ----------
    out : Path
        Folder of the parts.
    work : Path
        Empty folder.
    limit : int
        Bytes of a file in `out`, at most.
    """

    def __init__(self, out: Path, work: Path, limit: int) -> None:
        self.out, self.work, self.limit = out, work, limit
        self.calls: list[dict[str, float]] = []  # times that earlier calls took for something
        self.restoring_s = 0.0
        self.num_begun = 0  # scripts that this call has begun
        self.data = Path()

    def restore(self) -> None:
        """Put the state that the last call left into the working folder.

        Raises
        ------
        UserError
            If a part is missing or damaged.
        """
        started = time.monotonic()
        if has_parts(self.out, STATE):
            read_parts(self.out, STATE, self.work)
            self.calls = read_json(self.work / "calls.json", items(entries({})))
        self.restoring_s = time.monotonic() - started

    def find_data(self, given: Path | None, cache: Path, keep: bool = True) -> PreparedDataset:
        """Open the dataset: as it lies on the disk, or unpacked into the cache, unless it is there.

        Parameters
        ----------
        given : Path, optional
            A prepared dataset or a folder of packed data. By default the packed data in `out`.
        cache : Path
            Folder of unpacked datasets.
        keep : bool
            Pack a prepared dataset into `out`, for the next call.

        Raises
        ------
        UserError
            If there are no data, or they are damaged.
        """
        if given is not None and not has_parts(given, DATA):
            prepared = PreparedDataset.open(given)
            if keep and not (has_parts(self.out, DATA) and read_note(self.out, DATA) == _note(prepared)):
                pack_data(prepared, self.out, self.limit)
        else:
            source = given or self.out
            if not has_parts(source, DATA):
                raise UserError(f"{source} holds no packed data: name a dataset with --data")
            prepared = _unpacked(source, cache)
        self.data = prepared.path.resolve()
        for judge in (self.work / "judge").glob("judge-*.pt"):
            if not (self.data / judge.name).exists():
                shutil.copyfile(judge, self.data / judge.name)
        return prepared

    def save(self, families: Sequence[str]) -> list[Path]:
        """Leave what the next call needs, and return the files."""
        started = time.monotonic()
        files = {name: self.work / name for name in ("calls.json", "settings.json")}
        for family in families:
            files |= self._of_family(family)
        for judge in self.data.glob("judge-*.pt"):
            files[f"judge/{judge.name}"] = judge
        self.calls.append({"saving_s": round(time.monotonic() - started, 2)})
        write_whole(files["calls.json"], (json_text(self.calls[-_REMEMBERED:], indent=1) + "\n").encode())
        return write_parts(self.out, STATE, files, self.limit)

    def _of_family(self, family: str) -> dict[str, Path]:
        """Return what is kept of a run: while it is trained all of it, then what drawing needs, then the release."""
        kept: list[Path] = [*self._folder("reports", family), *self._folder("released", family)]
        latest = latest_checkpoint(self.work, family)
        if not self.is_released(family) and latest.exists():
            kept.append(latest)
            state = load_checkpoint(latest)
            if is_trained(state) and "optimizers" in state:
                save_checkpoint(latest, _without_training(state))
        kept += [path for path in (latest.with_name("metrics.jsonl"),) if path.exists()]
        kept += (grids := sorted((self.work / "samples" / family).glob("epoch_*.png"))[-_GRIDS:])
        if grids and grids[-1].stat().st_size <= self.limit:  # to be looked at
            write_whole(self.out / f"{family}.png", grids[-1].read_bytes())
        if (log := log_of(self.work, family)).exists():
            write_whole(log, log.read_bytes()[-_LOG_BYTES:])
            kept.append(log)
        return {path.relative_to(self.work).as_posix(): path for path in kept}

    def _folder(self, *names: str) -> list[Path]:
        return sorted(path for path in self.work.joinpath(*names).rglob("*") if path.is_file())

    def is_released(self, family: str) -> bool:
        """Tell whether the last step of a family is done."""
        return (self.work / "released" / family / "card.md").exists()

    def longest(self, time_of: str) -> float | None:
        """Return the longest of the times of a kind that calls have taken, None if there is none."""
        return max((call[time_of] for call in self.calls if time_of in call), default=None)


def pack_data(data: PreparedDataset, out: Path, limit: int) -> None:
    """Pack a dataset into parts."""
    with tempfile.TemporaryDirectory(prefix="galaxy-packing-") as folder:
        written = write_parts(out, DATA, pack(data, Path(folder)), limit, _note(data))
    size = sum(path.stat().st_size for path in written)
    print(f"packed {len(data.images)} galaxies into {len(written)} files in {out}, {size / 1e6:.1f} MB", flush=True)


def _note(data: PreparedDataset) -> dict[str, Any]:
    return {"sha256": data.manifest["sha256"]}


def _unpacked(source: Path, cache: Path) -> PreparedDataset:
    """Unpack data, unless that was done before."""
    sums = read_note(source, DATA)["sha256"]
    path = cache / hashlib.sha256(json_text(sums, sort_keys=True).encode()).hexdigest()[:16]
    with suppress(UserError):
        data = PreparedDataset.open(path)
        if data.manifest["sha256"] == sums:
            return data
    with tempfile.TemporaryDirectory(prefix="galaxy-unpacking-") as folder:
        read_parts(source, DATA, Path(folder))
        unpack(Path(folder), path)
    return PreparedDataset.open(path, verify=False)


def is_trained(state: dict[str, Any]) -> bool:
    """Tell whether a run's state is that of its end."""
    return state["phase"] == "generator" and state["epoch"] >= state["config"]["epochs"]


def _without_training(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a state what only more training would need: it has the form of a release that was read."""
    left_out = ("optimizers", "random", "batches", "meters", "sha256")
    networks = {"generator": generator_weights(state), "predictor": state["networks"]["predictor"]}
    return {name: value for name, value in state.items() if name not in left_out} | {"networks": networks, "ema": None}


class Steps:
    """The steps of a family within an allowance: train, report, release. Each is begun where enough time is left.

    Parameters
    ----------
    pieces : Pieces
    allowance : Allowance
    family : str
    """

    def __init__(self, pieces: Pieces, allowance: Allowance, family: str) -> None:
        self.pieces, self.allowance, self.family = pieces, allowance, family
        self.total_s = 60 * allowance.minutes
        # For what comes after the scripts. To write the parts takes about as long as to read them took.
        self.reserve_s = min(8.0, 0.08 * self.total_s) + 2 * pieces.restoring_s + (pieces.longest("saving_s") or 0.0)

    def train(self, first: Sequence[object], further: Sequence[object]) -> bool:
        """Train on, with options of galaxy.py or of resume_training.py, and tell whether the training has ended.

        It begins with a call of its own: one that ends within it never needs its whole state to be carried.

        Raises
        ------
        UserError
            If it fails, or no step was taken in the time of a whole call.
        """
        family, before = self.family, self._state()
        if before is not None and is_trained(before):
            return True
        # The script stops its training so much earlier: it finishes a step or a sample grid, saves, and ends.
        ending_s = 1.5 * (self.pieces.longest("ending_s") or min(15.0, 0.1 * self.total_s))
        given_s = self.allowance.left_s - self.reserve_s - ending_s
        late = before is None and self.pieces.num_begun > 0 and given_s < 0.7 * self.total_s
        if self.allowance.stop_requested or late or given_s < 0.15 * self.total_s:
            return False
        limit = ["--minutes", f"{given_s / 60:.6f}"]
        started = time.monotonic()
        if before is None:
            self._call("galaxy.py", ["--run", family, *first, *limit])
        else:
            self._call("resume_training.py", ["--run", family, *further, *limit])
        spent = time.monotonic() - started
        after = self._state()
        times = {"training_s": spent}
        if spent > given_s:
            times["ending_s"] = spent - given_s
        self._remember(times)
        if after is None or (before is not None and _place(before) == _place(after)):
            if not self.allowance.stop_requested and given_s > 0.4 * self.total_s:
                raise UserError(
                    f"not one step of {family} was saved in {given_s / 60:.3g} minutes of training: give more --minutes"
                )
            return False
        return is_trained(after)

    def report(self, options: Sequence[object]) -> bool:
        """Make the report, with options of evaluate.py, unless it is there; tell whether it is."""
        folder = self.pieces.work / "reports" / self.family
        where = ["report", "--checkpoint", latest_checkpoint(self.pieces.work, self.family), "--out", folder]
        return self._whole("report", "evaluate.py", folder, folder / "report.html", [*where, *options], 100.0)

    def release(self, options: Sequence[object]) -> bool:
        """Make the release, with options of release_checkpoint.py, unless it is there; tell whether it is."""
        folder = self.pieces.work / "released" / self.family
        where = ["--checkpoint", latest_checkpoint(self.pieces.work, self.family), "--out", folder]
        where += ["--report", self.pieces.work / "reports" / self.family]
        return self._whole("release", "release_checkpoint.py", folder, folder / "card.md", [*where, *options], 40.0)

    def _whole(
        self, step: str, script: str, folder: Path, made: Path, options: Sequence[object], usual_s: float
    ) -> bool:
        """Take a step that is done in one go or not at all.

        Raises
        ------
        UserError
            If it fails, or a whole call is too short for it.
        """
        if made.exists():
            return True
        key = f"{self.family} {step}_s"
        too_short = self.pieces.longest(key) or 0.0  # it did not end in these seconds
        left = self.allowance.left_s - self.reserve_s
        fresh = left > 0.7 * self.total_s
        needed = max(1.3 * too_short, min(usual_s, 0.3 * self.total_s))
        if self.allowance.stop_requested or (left < needed and not fresh):
            return False
        shutil.rmtree(folder, ignore_errors=True)  # what one that did not end has left
        if self._call(script, options):
            return True
        shutil.rmtree(folder, ignore_errors=True)
        if not self.allowance.stop_requested:
            self._remember({key: left})
            if fresh and too_short > 0.7 * self.total_s:
                raise UserError(
                    f"the {step} of {self.family} took more than a call of {self.allowance.minutes:g} minutes twice: "
                    "give more --minutes, or end it with --finish where there is time"
                )
        return False

    @property
    def is_trained(self) -> bool:
        """Whether the training is at its end."""
        state = self._state()
        return state is not None and is_trained(state)

    def _state(self) -> dict[str, Any] | None:
        latest = latest_checkpoint(self.pieces.work, self.family)
        return load_checkpoint(latest) if latest.exists() else None

    def _call(self, script: str, options: Sequence[object]) -> bool:
        """Run a script until it ends or the time does; if it fails, its log stays in `out`."""
        self.pieces.num_begun += 1
        (self.pieces.out / f"{self.family}.log").unlink(missing_ok=True)
        try:
            return call(self.pieces.work, self.family, script, options, self.allowance, self.reserve_s)
        except UserError as error:
            log, kept = log_of(self.pieces.work, self.family), self.pieces.out / f"{self.family}.log"
            if log.exists():
                write_whole(kept, log.read_bytes()[-min(_LOG_BYTES, self.pieces.limit) :])
            raise UserError(str(error).replace(str(log), str(kept))) from None

    def _remember(self, times: dict[str, float]) -> None:
        self.pieces.calls.append({name: round(value, 2) for name, value in times.items()})

    def progress(self, num_train: int) -> str:
        """Say how far the family is, and how many calls more it takes at the speed that its metrics tell."""
        if self.pieces.is_released(self.family):
            return f"{self.family}: released"
        state = self._state()
        if state is None:
            return f"{self.family}: not begun"
        config, place = state["config"], {"predictor": 0, "generator": 0}
        per_epoch = max(1, num_train // config["batch_size"])
        place[state["phase"]] = state["step"]
        steps = {"predictor": config["pretrain_epochs"] * per_epoch, "generator": config["epochs"] * per_epoch}
        if state["phase"] == "generator":
            place["predictor"] = steps["predictor"]
        if is_trained(state):
            made = (self.pieces.work / "reports" / self.family / "report.html").exists()
            return f"{self.family}: trained, {'the release' if made else 'report and release'} to come"
        speeds = _speeds(latest_checkpoint(self.pieces.work, self.family).with_name("metrics.jsonl"))
        part = f"step {state['step']} of {steps[state['phase']]} of phase {1 + (state['phase'] == 'generator')}"
        left = [(steps[phase] - place[phase], speeds.get(phase)) for phase in steps]
        if any(count and not speed for count, speed in left):
            return f"{self.family}: {part}; how much longer, its next call will tell"
        seconds = sum(count * config["batch_size"] / speed for count, speed in left if speed)
        more = math.ceil(seconds / (self.pieces.longest("training_s") or self.total_s))
        return (
            f"{self.family}: {part}, {seconds / 60:.1f} minutes of training left: at this speed about {more} more "
            f"call{'s' if more > 1 else ''} of {self.allowance.minutes:g} minutes, and the report"
        )


def _place(state: dict[str, Any]) -> tuple[Any, ...]:
    return state["phase"], state["epoch"], state["step"]


def _speeds(metrics: Path) -> dict[str, float]:
    """Return images a second of each phase that has begun: the median of its last lines."""
    speeds: dict[str, list[float]] = {}
    if metrics.exists():
        for record in read_metrics(metrics):
            if record["kind"] == "train":
                speeds.setdefault(record["phase"], []).append(record["images_per_s"])
    return {phase: statistics.median(values[-20:]) for phase, values in speeds.items()}


def say_what_to_carry(out: Path) -> None:
    """Say which files the next call needs, and if they are more than is usually carried."""
    files = [path for path in out.iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{len(files)} files in {out} go to the next call, {size / 1e6:.1f} MB together")
    if size > _CARRIED_BYTES:
        print(
            "that is more than 64 MiB, which is all that some machines are given: keep the packed data in a folder of "
            "their own (--pack), or train this family within one call"
        )


def install(pieces: Pieces, families: Sequence[str], released: Path) -> None:
    """Put reports and releases where they stay: reports/<family> in `out`, and <family> in the folder of releases."""
    for family in families:
        for source, target, kind in (("reports", pieces.out / "reports", REPORT), ("released", released, RELEASE)):
            with output_folder(target / family, kind) as folder, plain_errors(target / family):
                shutil.copytree(pieces.work / source / family, folder, dirs_exist_ok=True)
