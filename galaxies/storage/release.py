"""Released generators: what drawing and judging need of a run, as safetensors with a JSON file beside it."""

from __future__ import annotations

import hashlib
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from config_physics import RELEASED
from galaxies.common.durable_files import whole_file
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.reading import MissingError, UnreadableError, read_bytes, read_json
from galaxies.common.schema import anything, entries, mapping, text
from galaxies.storage.checkpoint import LATEST, DamagedError, checked, checkpoint_settings, load_checkpoint
from galaxies.storage.migrations import FORMAT_VERSION, check_version
from galaxies.storage.schema import RUN_STATE

WEIGHTS, SETTINGS = "generator.safetensors", "generator.json"
_FOLDERS = re.compile(r"(?<!\S)(?:[A-Za-z]:)?[\\/](?:[^\\/,\s]+[\\/])*")
# The largest difference that counts as rounding, for 99.9 % of the values: in grey levels of 255, of flux an eighth of
# the noise about the sky.
_SAME = 2
_OF_A_RUN = ("config", "attributes", "epoch", "step", "provenance")
_SETTINGS_FILE = entries({"sha256": text(), **dict.fromkeys(_OF_A_RUN, anything())})
_MOST_BYTES = 1 << 30  # of the weights; the largest that can be released have 30 MB
_AGAIN = "get it again"


def find_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a folder such as checkpoints/, the most wanted first.

    Those of the runs come first, the newest before older ones; then those that came with the program, the GAN before
    others: it draws faster and closer to what is asked for. What cannot be read, or is no file, is listed too: who
    reads it says so.

    Raises
    ------
    UserError
        If the folder itself cannot be listed.
    """
    runs = _by_time(path / LATEST for path in _folders_in(folder) if path.name != RELEASED)
    released = _by_time(path / WEIGHTS for path in _folders_in(folder / RELEASED))
    wanted = sorted(released, key=lambda path: (path.parent.name != "gan", path))
    return sorted(runs, key=lambda path: -runs[path]) + wanted


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror or error}") from None


def _by_time(paths: Iterable[Path]) -> dict[Path, float]:
    """Return when each of those that are there was last written; of what does not say, it may have been just now."""
    found = {}
    for path in paths:
        try:
            found[path] = path.lstat().st_mtime
            found[path] = path.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            pass  # not there, or a link to what is gone
        except OSError:
            found[path] = math.inf
    return found


def default_checkpoint(folder: Path) -> Path:
    """Return the first of `find_checkpoints` whose generator has been trained; another one costs a sentence.

    Raises
    ------
    UserError
        If there is none.
    """
    for path in find_checkpoints(folder):
        try:
            state = load_state(path)
        except UserError as error:
            print(f"{error}; trying the next one", file=sys.stderr)
            continue
        if state["phase"] == "generator" and state["step"] > 0:
            return path
        print(f"{path} has no trained generator yet; trying the next one", file=sys.stderr)
    raise UserError(f"there is no checkpoint in {folder}/: train one with galaxy.py, or name one with --checkpoint")


def load_state(path: Path) -> dict[str, Any]:
    """Read what a generator is drawn from: the checkpoint of a run, or a released ``.safetensors`` file.

    Returns
    -------
    dict
        As `checkpoint.load_checkpoint` returns it; of a release, what inference and evaluation take from it.

    Raises
    ------
    UserError
        As `load_checkpoint` does.
    """
    return read_release(path) if path.suffix == ".safetensors" else load_checkpoint(path, RUN_STATE)


def write_release(state: dict[str, Any], folder: Path, precision: torch.dtype, facts: dict[str, Any]) -> Path:
    """Write the two files of a release.

    Parameters
    ----------
    state : dict
        A run's checkpoint; the running average is released where there is one.
    folder : Path
    precision : torch.dtype
        Of the weights. Read again, they are float32.
    facts : dict
        Plain values that go into the JSON file as they are.

    Returns
    -------
    Path
        Of the weights.
    """
    from safetensors.torch import save

    average = state["ema"]
    generator = state["networks"]["generator"] if average is None else average
    networks = {"generator": generator, "predictor": state["networks"]["predictor"]}
    tensors = {
        f"{network}.{name}": _at_precision(value, precision)
        for network, values in networks.items()
        for name, value in values.items()
        if name != "num_averaged"
    }
    tensors |= {f"population.{name}": value.contiguous() for name, value in state["population"].items()}
    content = save(tensors)
    provenance = state["provenance"]
    settings = {
        "format_version": FORMAT_VERSION,
        **{name: state[name] for name in ("attributes", "epoch", "step")},
        "config": state["config"] | {"data": ""},
        "provenance": provenance | {"source": without_folders(provenance["source"] or "")},
        "facts": facts,
    }
    settings["sha256"] = _digest(content, settings)
    with whole_file(folder / WEIGHTS) as file:
        file.write(content)
    with whole_file(folder / SETTINGS) as file:
        file.write((json_text(settings, indent=1) + "\n").encode())
    return folder / WEIGHTS


def choose_precision(state: dict[str, Any], draw: Callable[[Path], Tensor]) -> tuple[str, dict[str, float], int]:
    """Draw the same images with weights of single and of half precision, and take half if it changes nothing.

    Parameters
    ----------
    state : dict
        A run's checkpoint.
    draw : callable
        Takes the path of a release's weights and returns images of them in grey levels of 255; of flux, stretched as
        networks have it, the sky at 0.

    Returns
    -------
    precision : {"float16", "float32"}
    difference : dict
        In grey levels of 255: mean, that which 99.9 % of the values stay below, and the largest.
    size : int
        Bytes of the weights.
    """
    drawn, sizes = [], {}
    for precision in (torch.float32, torch.float16):
        with tempfile.TemporaryDirectory() as folder:
            weights = write_release(state, Path(folder), precision, {})
            sizes[str(precision).removeprefix("torch.")] = weights.stat().st_size
            drawn.append(draw(weights).float())
    change = (drawn[0] - drawn[1]).abs().flatten()
    most = change.sort().values[math.ceil(0.999 * len(change)) - 1]
    difference = {"mean": float(change.mean()), "most": float(most), "largest": float(change.max())}
    chosen = "float16" if most <= _SAME else "float32"
    return chosen, difference, sizes[chosen]


def without_folders(text: str) -> str:
    """Take the folders off the paths in a text: they tell of the disk that a run was made on."""
    return _FOLDERS.sub("", text)


def _digest(weights: bytes, settings: dict[str, Any]) -> str:
    """Hash both files, the settings but for the hash itself and whatever their layout."""
    return hashlib.sha256(weights + json_text(settings, sort_keys=True).encode()).hexdigest()


def _at_precision(value: Tensor, precision: torch.dtype) -> Tensor:
    return (value.to(precision) if value.is_floating_point() else value).contiguous()


def peek_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a checkpoint or of a release without reading its tensors, unchecked.

    Raises
    ------
    UserError
        If there are none.
    """
    if path.suffix != ".safetensors":
        return checkpoint_settings(path)
    return read_json(path.with_name(SETTINGS), entries({"config": mapping(anything())}))["config"]


def read_release(path: Path) -> dict[str, Any]:
    """Read a release, bring it to the format of today and check it; see `load_state`, `migrations` and `schema`."""
    from safetensors.torch import load

    beside = path.with_name(SETTINGS)
    try:
        settings = read_json(beside, _SETTINGS_FILE, cure=_AGAIN)
        content = read_bytes(path, _MOST_BYTES, _AGAIN)
    except MissingError:
        missing = path if beside.exists() else beside
        raise UserError(f"there is no file {missing}: a release is {WEIGHTS} with {SETTINGS} beside it") from None
    except UnreadableError as error:
        raise DamagedError(str(error)) from None
    version, sha256 = settings.get("format_version", 1), settings.pop("sha256")
    if not check_version(version, beside) or _digest(content, settings) != sha256:
        raise DamagedError(f"{path} or {SETTINGS} beside it is damaged (the checksum is wrong): {_AGAIN}")
    try:
        tensors = load(content)
    except Exception:  # a header that is none fails anywhere in the reader, with any error
        raise DamagedError(f"{path} is no safetensors file: {_AGAIN}") from None
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        part, _, key = name.partition(".")
        parts.setdefault(part, {})[key] = value.float() if value.dtype == torch.float16 else value
    population = parts.pop("population", None)
    state = {
        **{name: settings[name] for name in _OF_A_RUN},
        "provenance": _with_credit(settings["provenance"], settings.get("facts")),
        "phase": "generator",
        "networks": parts,
        "ema": None,
        "population": population,
    }
    return checked(state, version, path, _AGAIN)


def _with_credit(provenance: Any, facts: Any) -> Any:
    """Return where a release comes from, with whom its facts say that the data are owed to."""
    credit = facts.get("credit") if isinstance(facts, dict) else None
    return provenance | {"credit": credit} if isinstance(provenance, dict) and isinstance(credit, str) else provenance
