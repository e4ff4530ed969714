"""Run the project's scripts one after the other in a folder, each from where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config_physics import MORPHOLOGY_NAMES
from galaxies.common.durable_files import reason, write_whole
from galaxies.common.errors import UserError
from galaxies.common.hardware import ROOT
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import Kind, has_entries
from galaxies.common.reading import MissingError, read_json
from galaxies.storage.checkpoint import LATEST, load_checkpoint

# What a study leaves in its folder beside the runs, the reports and the logs.
STUDY = Kind(
    "a study",
    (
        *("settings.json", "table.md", "table.json", "ablation.json", "ablation.png", "realism.json"),
        *("arms.json", "arms.png", "nuclei.png", "arm_requests.json", "arm_requests.png"),
        *(f"{name}.png" for name in ("mock_and_real", *MORPHOLOGY_NAMES)),
    ),
    lambda folder: any(
        has_entries(*entries)(folder / name)
        for name, entries in (
            ("settings.json", ("data_sha256",)),
            ("table.json", ("GAN", "diffusion")),
            ("realism.json", ("seed", "statistics", "flagged")),
            ("arms.json", ("real", "image_size", "classes")),
            ("arm_requests.json", ("checkpoint", "real", "generated")),
        )
    ),
)


def epochs_of(steps: int, num_train: int, batch_size: int) -> int:
    """Return the epochs that `steps` take, rounded up, as a run counts them."""
    return -(-steps // max(1, num_train // batch_size))


# Those that settings.json did not name at first: what was done then.
_BEFORE = {"preset": "cpu"}


def begun_with(path: Path) -> dict[str, Any]:
    """Return the settings that `hold_to` keeps in a file; none if it is not there.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        return {**_BEFORE, **read_json(path, cure="choose another --out")}
    except MissingError:
        return {}


def hold_to(path: Path, settings: dict[str, Any], of: Path | None = None) -> None:
    """Keep settings in a file of a folder of runs, or refuse others than those that it was begun with.

    The sentence is about the folder `of`, by default the file's own.

    Raises
    ------
    UserError
        Naming the settings that differ.
    """
    if before := begun_with(path):
        if different := [name for name, value in settings.items() if before.get(name) != value]:
            raise UserError(
                f"{of or path.parent} was begun with another {' and '.join(different)}: choose another --out"
            )
        return
    write_whole(path, (json_text(settings, indent=1) + "\n").encode())


def train(folder: Path, run: str, options: Sequence[object]) -> None:
    """Train a run to its end with options of galaxy.py, from where it stopped.

    Raises
    ------
    UserError
        If it fails, with its last word.
    """
    latest = latest_checkpoint(folder, run)
    if not latest.exists():
        call(folder, run, "galaxy.py", ["--run", run, *options])
        return
    state = load_checkpoint(latest)
    if state["phase"] != "generator" or state["epoch"] < state["config"]["epochs"]:
        call(folder, run, "resume_training.py", ["--run", run])


def report(folder: Path, run: str, options: Sequence[object]) -> Path:
    """Make the report of a trained run with options of evaluate.py, unless it is there, and return its folder.

    Raises
    ------
    UserError
        If it fails, with its last word.
    """
    path = folder / "reports" / run
    if (path / "report.json").exists():
        print(f"{run}: kept")
    else:
        words = ["report", "--checkpoint", latest_checkpoint(folder, run), "--out", path, *options]
        call(folder, run, "evaluate.py", words)
    return path


def latest_checkpoint(folder: Path, run: str) -> Path:
    """Return the path of a run's latest checkpoint."""
    return folder / "checkpoints" / run / LATEST


class Allowance:
    """The time that a call of a script may take, and whether it was asked to stop.

    A script that is run within it gets a session of its own on POSIX, so that Ctrl-C in a terminal reaches it once: by
    `request_stop`, as SIGTERM does. On Windows the console tells all processes, and nothing needs to be passed on.

    Parameters
    ----------
    minutes : float
        Of the whole call; may be infinite.
    started : float
        When it began, by `time.monotonic`.
    """

    def __init__(self, minutes: float, started: float) -> None:
        self.minutes = minutes
        self.end = started + 60 * minutes
        self.stop_requested = False
        self._process: subprocess.Popen[str] | None = None

    @property
    def left_s(self) -> float:
        """Seconds until its end."""
        return self.end - time.monotonic()

    def request_stop(self) -> None:
        """Ask the script that runs to stop, and let none begin after it."""
        self.stop_requested = True
        if self._process is not None and os.name == "posix":
            self._process.send_signal(signal.SIGTERM)

    def run(self, command: Sequence[str], reserve_s: float, **options: Any) -> int | None:
        """Run a command and return its exit status; None if it was asked to stop.

        It is killed `reserve_s` before the end; that makes None too.
        """
        if self.stop_requested:
            return None
        process = subprocess.Popen(command, start_new_session=True, **options)
        self._process = process
        try:
            if self.stop_requested:  # just now
                self.request_stop()
            while (status := process.poll()) is None:
                if self.left_s < reserve_s:
                    return None
                time.sleep(0.02)
            return None if self.stop_requested and status != 0 else status
        finally:
            self._process = None
            if process.poll() is None:
                process.kill()
                process.wait()


def call(
    folder: Path,
    run: str,
    script: str,
    options: Sequence[object],
    allowance: Allowance | None = None,
    reserve_s: float = 0.0,
) -> bool:
    """Run a script with `folder` as working directory, its output appended to logs/<run>.log there.

    Returns
    -------
    bool
        Whether it came to its end; it does, unless there is an `allowance` (see `Allowance.run`).

    Raises
    ------
    UserError
        If it fails, with its last word.
    """
    print(f"{run}: {script}", flush=True)
    log = log_of(folder, run)
    command = [sys.executable, str(ROOT / script), *map(str, options)]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{log} could not be written: {reason(error)}") from None
    with file:
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8:replace"}
        how: dict[str, Any] = {"cwd": folder, "env": environment, "stdout": file, "stderr": subprocess.STDOUT}
        if allowance is None:
            status: int | None = subprocess.run(command, **how).returncode
        else:
            status = allowance.run(command, reserve_s, **how)
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise UserError(f"{script} failed on {run} (all of it is in {log}): {lines[-1] if lines else 'no word'}")
    return status == 0


def log_of(folder: Path, run: str) -> Path:
    """Return the path of what the scripts print about a run."""
    return folder / "logs" / f"{run}.log"
