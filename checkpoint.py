"""Checkpoints: one file of tensors and plain values, written whole or not at all, read without running code."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config_physics import UserError
from durable_files import replace_file, sync_folder

FORMAT_VERSION = 1
LATEST = "latest.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that `path` names the old file or the whole new one, whatever happens meanwhile.

    Parameters
    ----------
    path : Path
    state : dict
        Tensors, numbers, text, None, and lists or dicts of these. The format version and a checksum are added.

    Raises
    ------
    UserError
        If the file cannot be written (disk full, no permission); the old file is untouched.
    """
    state = {**state, "format_version": FORMAT_VERSION}
    state["sha256"] = _digest(state)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        replace_file(temporary, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} could not be written: {error}") from None


def publish_latest(path: Path) -> None:
    """Make `latest.pt` beside a complete checkpoint the same file (a hard link), or a copy where links fail."""
    temporary = path.with_name(f".{LATEST}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        replace_file(temporary, path.with_name(LATEST))
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path.with_name(LATEST)} could not be written: {error}") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file is executed.

    Raises
    ------
    UserError
        If the file is missing, is no checkpoint, is damaged, or has another format version.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: train one with galaxy.py")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch remarks on strange files, the sentences below say
            state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception:  # a damaged file fails anywhere in the reader, with any error
        raise UserError(f"{path} is damaged or is not a checkpoint of this program: use another one") from None
    if not isinstance(state, dict) or "format_version" not in state:
        raise UserError(f"{path} is not a checkpoint of this program: use another one")
    if state["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {state['format_version']} and this program reads {FORMAT_VERSION}: "
            "use the release that wrote it, or train again"
        )
    if state.pop("sha256", None) != _digest(state):
        raise UserError(f"{path} is damaged (its checksum is wrong): use another one")
    return state


def _digest(value: Any) -> str:
    """Hash nested tensors and plain values, each with its type and shape."""
    digest = hashlib.sha256()

    def feed(item: Any) -> None:
        if isinstance(item, Tensor):
            item = item.detach().cpu().contiguous()
            digest.update(f"tensor {item.dtype} {tuple(item.shape)};".encode())
            digest.update(item.reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(item, dict):
            digest.update(f"dict {len(item)};".encode())
            for key in sorted(item, key=repr):
                digest.update(f"{key!r}:".encode())
                feed(item[key])
        elif isinstance(item, (list, tuple)):
            digest.update(f"list {len(item)};".encode())
            for member in item:
                feed(member)
        else:
            digest.update(f"{item!r};".encode())

    feed(value)
    return digest.hexdigest()
