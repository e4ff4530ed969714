"""Run the project's scripts one after the other in a folder, each from where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galaxies.common.durable_files import write_output
from galaxies.common.errors import UserError
from galaxies.common.hardware import ROOT
from galaxies.storage.checkpoint import LATEST, load_checkpoint


def epochs_of(steps: int, num_train: int, batch_size: int) -> int:
    """Return the epochs that `steps` take, rounded up, as a run counts them."""
    return -(-steps // max(1, num_train // batch_size))


def hold_to(path: Path, settings: dict[str, Any]) -> None:
    """Keep settings in a file of a folder of runs, or refuse others than those that it was begun with.

    Raises
    ------
    UserError
        Naming the settings that differ.
    """
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): choose another --out") from None
        if different := [name for name, value in settings.items() if before.get(name) != value]:
            raise UserError(f"{path.parent} was begun with another {' and '.join(different)}: choose another --out")
        return
    write_output(path, (json.dumps(settings, indent=1) + "\n").encode())


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


def call(folder: Path, run: str, script: str, options: Sequence[object]) -> None:
    """Run a script with `folder` as working directory, its output appended to logs/<run>.log there.

    Raises
    ------
    UserError
        If it fails, with its last word.
    """
    print(f"{run}: {script}", flush=True)
    log = folder / "logs" / f"{run}.log"
    command = [sys.executable, str(ROOT / script), *map(str, options)]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{log} could not be written: {error.strerror or error}") from None
    with file:
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8:replace"}
        done = subprocess.run(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise UserError(f"{script} failed on {run} (all of it is in {log}): {lines[-1] if lines else 'no word'}")
