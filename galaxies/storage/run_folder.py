"""The folder of a run: one process at a time, what stays of its checkpoints, and the one to go on from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from config_physics import Config
from galaxies.common.durable_files import free_space, only_process, plain_errors, reason, replace_file, sync_folder
from galaxies.common.errors import UserError
from galaxies.compute.ranks import Ranks
from galaxies.storage.checkpoint import (
    LATEST,
    DamagedError,
    link_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from galaxies.storage.schema import RUN_STATE, TRAINING_STATE

PREVIOUS, DAMAGED = "previous.pt", "damaged.pt"
_EPOCHS = "epoch_[0-9]*.pt"
# Of a file of a run while it is written; earlier commits left the number of the process out.
_TEMPORARY = re.compile(
    r"\.((latest|previous|damaged|epoch_[0-9]+)\.pt|average_[0-9]+\.safetensors|metrics\.jsonl|(epoch_[0-9]+|curves)\.png)(\.[0-9]+)?\.tmp"
)
_KEEP_EVERY, _KEEP_LAST = 10, 3  # epochs whose checkpoints stay, and how many of the last ones do
_LOG_LINE = 2000  # bytes of an epoch's record in a checkpoint, at most


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Keep other processes from training the run in `folder`; nothing is left behind by a process that dies.

    A folder that is made here and stays empty is removed again. Of the processes of torchrun only the first one, which
    writes, holds the run.

    Raises
    ------
    UserError
        If another process trains this run, or the folder cannot be written.
    """
    if not Ranks.from_environment().is_first:
        yield
        return
    is_new = not folder.exists()
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if is_new:
                stack.callback(_remove_if_empty, folder)
            stack.enter_context(only_process(folder / ".lock"))
        except BlockingIOError:
            raise UserError(f"run {folder.name} is in use by another process: wait, or choose another run") from None
        except OSError as error:
            raise UserError(f"{folder} could not be written: {reason(error)}") from None
        yield


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def clean_up(*folders: Path) -> None:
    """Remove the temporary files of killed processes, and nothing else, from folders that are held."""
    for folder in folders:
        for stale in folder.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(stale.name):
                with suppress(OSError):
                    stale.unlink()


def save_latest(folder: Path, state: dict[str, Any]) -> None:
    """Renew `latest.pt`; the one before becomes `previous.pt`. At every moment `latest.pt` is complete.

    Raises
    ------
    UserError
        If it cannot be written; the old ones are untouched.
    """
    latest = folder / LATEST
    if latest.is_file():
        link_checkpoint(latest, PREVIOUS)
    save_checkpoint(latest, state)


def save_epoch(folder: Path, epoch: int, state: dict[str, Any]) -> None:
    """Write an epoch's own checkpoint, which becomes `latest.pt` too, and remove older ones that need not stay.

    Every tenth epoch stays, and the last three that were written.

    Raises
    ------
    UserError
        If it cannot be written; the old ones are untouched.
    """
    path = folder / f"epoch_{epoch:04d}.pt"
    save_checkpoint(path, state)
    if (folder / LATEST).is_file():
        link_checkpoint(folder / LATEST, PREVIOUS)
    link_checkpoint(path, LATEST)
    written = {number: file for file in folder.glob(_EPOCHS) if 0 <= (number := _epoch_of(file)) <= epoch}
    for number in written.keys() - kept_epochs(written):
        with suppress(OSError):  # one that cannot be removed does no harm
            written[number].unlink()


def _epoch_of(file: Path) -> int:
    """Return the epoch of a numbered checkpoint; -1 for a copy that somebody gave another name."""
    found = re.fullmatch(r"epoch_([0-9]{4,9})\.pt", file.name)
    return int(found[1]) if found else -1


def kept_epochs(written: Iterable[int]) -> set[int]:
    """Return the epochs whose checkpoints stay, of those that were written."""
    ordered = sorted(written)
    return {epoch for epoch in ordered if epoch % _KEEP_EVERY == 0} | set(ordered[-_KEEP_LAST:])


def load_run(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Read the newest good checkpoint of a run that is held.

    Usually that is `latest.pt`. If it is damaged or missing, the next older good one is taken, this is said, and
    `latest.pt` is made the same; the damaged file stays as `damaged.pt`.

    Returns
    -------
    path : Path
    state : dict

    Raises
    ------
    UserError
        If there is no good checkpoint, or the newest one is of another release.
    """
    latest = folder / LATEST
    epochs = sorted(folder.glob(_EPOCHS), key=_epoch_of, reverse=True)
    older = [path for path in (folder / PREVIOUS, *epochs) if path.is_file()]
    if not latest.is_file() and not older:
        raise UserError(f"there is no checkpoint {latest}: train one with galaxy.py")
    faults = []
    for path in (latest, *older):
        if not path.is_file():
            faults.append(f"{path} is missing")
            continue
        try:
            state = load_checkpoint(path, RUN_STATE + TRAINING_STATE)
        except DamagedError as error:
            faults.append(str(error).removesuffix(": use another one"))
            continue
        if faults:
            print(f"{'; '.join(faults)}: going back to {path}")
            if Ranks.from_environment().is_first:
                _make_latest(path, latest)
        return path, state
    raise UserError(f"run {folder.name} has no good checkpoint left: {'; '.join(faults)}")


def _make_latest(path: Path, latest: Path) -> None:
    with plain_errors(latest):
        if latest.is_file():
            replace_file(latest, latest.with_name(DAMAGED))
            sync_folder(latest.parent)
    link_checkpoint(path, LATEST)


def check_space(config: Config, state: dict[str, Any], checkpoints: Path, samples: Path) -> None:
    """Refuse a run whose checkpoints, sample grids and log would not fit on the disk.

    Parameters
    ----------
    config : Config
    state : dict
        Content of a checkpoint of this run, as it is now.
    checkpoints, samples : Path
        The run's own two folders, which need not exist.

    Raises
    ------
    UserError
    """
    done = state["epoch"] if state["phase"] == "generator" else 0
    epochs = range(done + 1, config.epochs + 1)
    written = [e for e in epochs if e % config.checkpoint_every == 0 or e == config.epochs]
    # Beside those that stay: latest.pt, previous.pt and the one that is being written.
    copies = len(kept_epochs(written)) + 3
    weights = sum(tensor.nbytes for network in state["networks"].values() for tensor in network.values())
    # The weights, Adam's two numbers for each and the averages; what there is of a galaxy, and of an epoch.
    kept = config.average_snapshots * weights  # two averages each, in half precision
    checkpoint = (6 if kept else 4) * weights + 50 * state["provenance"]["count"] + _LOG_LINE * config.epochs + 300_000
    # Eight pictures of three bytes a pixel for each class and each attribute, before compression.
    grid = 3 * 8 * (len(config.classes) + len(config.attributes)) * (max(128, config.image_size) + 30) ** 2
    needed: dict[int, tuple[Path, int]] = {}  # by disk
    for folder, size in ((checkpoints, copies * checkpoint + kept), (samples, len(written) * grid)):
        existing, _ = free_space(folder.resolve())
        disk = existing.stat().st_dev
        needed[disk] = existing, size + needed.get(disk, (existing, 0))[1]
    for existing, size in needed.values():
        _, free = free_space(existing)
        if size > free:
            raise UserError(
                f"run {config.run} writes up to {size / 1e9:.3g} GB ({copies} checkpoints, {len(written)} sample grids)"
                f" and the disk of {existing} has {free / 1e9:.3g} GB free: make room, or give a larger "
                "--checkpoint-every"
            )
