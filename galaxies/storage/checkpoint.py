"""Checkpoints: one file of tensors and plain values, written whole or not at all, read without running code."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from galaxies.common.durable_files import (
    plain_errors,
    remove_dead_temporaries,
    replace_file,
    sync_folder,
    temporary_of,
)
from galaxies.common.errors import UserError
from galaxies.common.reading import MissingError, open_regular
from galaxies.common.schema import SchemaError
from galaxies.storage.migrations import FORMAT_VERSION, check_version, migrate
from galaxies.storage.schema import RUN_STATE, check_run
from galaxies.storage.tensor_files import NotAnArchiveError, read_tensor_file

LATEST = "latest.pt"
_OTHER = "use another one"


class DamagedError(UserError):
    """A file that is no complete checkpoint."""


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
    with plain_errors(path), _new_file(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_dead_temporaries(path)
        with temporary.open("wb") as file:
            _save(state, file)
            file.flush()
            os.fsync(file.fileno())
        replace_file(temporary, path)
        sync_folder(path.parent)


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Give the name of a temporary file beside `path`, and remove it if something fails."""
    temporary = temporary_of(path)
    try:
        yield temporary
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _save(state: dict[str, Any], file: IO[bytes]) -> None:
    """Write a state; raise the error of the disk where torch.save has another one instead."""
    stream = _Stream(file)
    try:
        torch.save(state, cast(IO[bytes], stream))
    except Exception:
        if stream.error is not None:
            raise stream.error from None
        raise


class _Stream:
    """What torch.save writes to, which keeps the first error of the disk: torch turns it into "unexpected pos"."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is not None:
            return len(data)  # what torch still writes on its way out
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        if self.error is None:
            self._file.flush()


def link_checkpoint(path: Path, name: str) -> None:
    """Give a complete checkpoint a further name in its folder: a hard link, or a copy where links fail.

    Raises
    ------
    UserError
        If that fails; what had the name before is untouched.
    """
    target = path.with_name(name)
    with plain_errors(target), _new_file(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            _copy(path, temporary)
        replace_file(temporary, target)
        # Renaming one name of a file to another of the same file does nothing, and leaves both.
        temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        shutil.copyfileobj(old, new)
        new.flush()
        os.fsync(new.fileno())


def load_checkpoint(path: Path, holds: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file is executed.

    The content of a run is brought to the format of today, see `migrations`, and held against `schema`.

    Parameters
    ----------
    path : Path
    holds : tuple of str
        What the content must have an entry of, once it is of today's format: `RUN_STATE`, or with `TRAINING_STATE`.

    Raises
    ------
    DamagedError
        If the file is no checkpoint, is damaged, or holds what no training can have left.
    UserError
        If it is missing, cannot be opened, is of a newer program, or holds something else.
    """
    state = _content(path)
    version = state.get("format_version", 1)
    if not check_version(version, path) or state.pop("sha256") != _digest(state):
        raise DamagedError(f"{path} is damaged (its checksum is wrong): {_OTHER}")
    is_run = state.keys() >= set(RUN_STATE)
    if not is_run and set(holds) & set(RUN_STATE):
        raise UserError(f"{path} is no checkpoint of a training run: {_OTHER}")
    if is_run:
        state = checked(state, version, path, _OTHER)
    if missing := sorted(set(holds) - state.keys()):
        raise UserError(f"{path} cannot be gone on from, since it has no {', '.join(missing)}: {_OTHER}")
    return state


def checked(state: dict[str, Any], version: int, path: Path, cure: str) -> dict[str, Any]:
    """Bring the content of a run or a release, which came from `path`, to today's format, and check it.

    Raises
    ------
    DamagedError
        If it holds what no training can have left; `cure` says what to do.
    UserError
        If it is of another program.
    """
    try:
        state = migrate(state, version)
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DamagedError(f"{path} does not hold what format version {version} does: {cure}") from None
    try:
        check_run(state)
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    except SchemaError as error:
        raise DamagedError(f"{path} cannot be used, since {error}: {cure}") from None
    return state


def checkpoint_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a checkpoint without reading its tensors, unchecked.

    Raises
    ------
    UserError
        If there are none.
    """
    settings = _content(path, values=False).get("config")
    if not isinstance(settings, dict):
        raise DamagedError(f"{path} is no checkpoint of a training run: {_OTHER}")
    return settings


def _content(path: Path, values: bool = True) -> dict[str, Any]:
    """Read what there is, with its checksum, which is not compared yet."""
    try:
        with open_regular(path) as file:
            state = read_tensor_file(file, values)
    except MissingError:
        raise UserError(f"there is no checkpoint {path}: train one with galaxy.py") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except SchemaError as error:
        raise DamagedError(f"{path} cannot be used, since {error}: {_OTHER}") from None
    except NotAnArchiveError:
        raise DamagedError(f"{path} is damaged or is not a checkpoint of this program: {_OTHER}") from None
    if not isinstance(state, dict) or "sha256" not in state:
        raise DamagedError(f"{path} is not a checkpoint of this program: {_OTHER}")
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
