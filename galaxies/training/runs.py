"""Begin a run or go on with one, in the folders where the scripts put it, and say what it does."""

from __future__ import annotations

import math
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import RUN, SAMPLE_GRIDS, check_folder
from galaxies.datasets.prepared import PreparedDataset
from galaxies.storage.run_folder import check_space, hold_run
from galaxies.training.starting import Start
from galaxies.training.trainer import Trainer

CHECKPOINTS, SAMPLES = Path("checkpoints"), Path("samples")


def free_run_name(base: str) -> str:
    """Return the first of base-1, base-2, ... that no run has; characters that a run's name cannot have become '_'."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "_", base).lstrip(".-") or "run"
    number = 1
    while any((folder / f"{base}-{number}").exists() for folder in (CHECKPOINTS, SAMPLES)):
        number += 1
    return f"{base}-{number}"


def print_settings(config: Config, data: PreparedDataset) -> None:
    """Print the resolved settings, what is in the dataset, and what is to be known of it."""
    manifest = data.manifest
    settings = config.to_dict() | {"attributes": ",".join(config.attributes)}
    print("settings: " + " ".join(f"{name}={value}" for name, value in settings.items()))
    print(f"data: {manifest.get('count')} galaxies, {json_text(manifest.get('counts'))}")
    if remark := data.remark():
        print(f"note: {remark}")


def refuse_existing(run: str, dry_run: bool) -> None:
    """Refuse to begin a run where one or anything else is that it would write over, unless nothing is written.

    The log of a run that had no checkpoint yet is begun anew.

    Raises
    ------
    UserError
        Saying how to go on with it.
    """
    if dry_run:
        return
    if any((CHECKPOINTS / run).glob("*.pt")):
        raise UserError(f"run {run} exists: go on with resume_training.py --run {run}, or choose another --run")
    check_folder(CHECKPOINTS / run, RUN, RUN.files, option="--run")
    check_folder(SAMPLES / run, SAMPLE_GRIDS, option="--run")
    if there := sorted(path for name in SAMPLE_GRIDS.files for path in (SAMPLES / run).glob(name)):
        raise UserError(f"{there[0]} is there, of another run: choose another --run, or move it")


def train(
    config: Config,
    data: PreparedDataset,
    dry_run: bool = False,
    state: dict[str, Any] | None = None,
    stop_at: float = math.inf,
    start: Start | None = None,
) -> None:
    """Train a run from its start, or on from a checkpoint's `state`, until `time.monotonic` says `stop_at`.

    A new run begins with the weights of `start`, if there is one.

    A run whose time is up is saved, and the process goes on to its end; one that a signal stopped leaves with exit
    status 130.

    Raises
    ------
    UserError
        If a new run would overwrite an old one, another process trains it, it does not fit on the disk, or training
        fails.
    """
    folder = CHECKPOINTS / config.run
    if state is None:
        refuse_existing(config.run, dry_run)
    trainer = Trainer(config, data, folder, SAMPLES / config.run, state, start)
    trainer.stop_at = stop_at
    engine = trainer.engine
    sizes = ", ".join(f"{n} {sum(p.numel() for p in m.parameters()):,}" for n, m in trainer.learner.networks.items())
    print(f"parameters: {sizes}; {engine.describe()}", flush=True)
    if trainer.started_from:
        print(f"started from {trainer.started_from['run']}: {trainer.started_from['taken_over']}")
    for name, rates in trainer.learner.step_sizes().items():
        if len(rates) > 1:
            print(f"step size of the {name}: {rates[0]:g}, and {rates[1]:g} for weights between its channels")
    check_space(config, trainer.state_dict(), folder, trainer.samples)
    if dry_run:
        trainer.try_steps()
        print("dry run: data, networks and one step of each phase are in order; nothing was written")
        return
    try:
        with hold_run(folder) if state is None else nullcontext():  # who goes on with a run holds it already
            if state is None and trainer.ranks.is_first:
                refuse_existing(config.run, dry_run)  # once more: another process may have trained it meanwhile
            trainer.train()
    finally:
        trainer.ranks.disconnect()
    if trainer.stop_requested:
        print(f"stopped and saved: python resume_training.py --run {config.run}", file=sys.stderr)
        sys.exit(130)
    if trainer.time_is_up:
        print(f"the time is up, and the run saved: python resume_training.py --run {config.run} goes on")
        return
    print(f"done: {folder / 'latest.pt'} and {SAMPLES / config.run}")
    print(f"next: python generate_from_checkpoint.py --checkpoint {folder / 'latest.pt'} --morphology spiral")
