"""Averages of a generator's weights over a training, of any length, made of snapshots when the training is over.

An average that forgets exponentially has a length that must be chosen before the training, and which one is best is
known only after it. Two averages that forget by a power of time, kept at some steps, hold enough of the course of
the weights that an average of any length in between, and up to about twice as long, is nearly a sum of them (Karras et
al. 2024, arXiv:2312.02696, section 3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from galaxies.common.durable_files import write_whole
from galaxies.common.errors import UserError
from galaxies.common.reading import UnreadableError, read_bytes

KEPT_LENGTHS = (0.05, 0.10)  # of the averages that are kept (Karras et al. 2024, section 3.2)
SNAPSHOT_FILES = "average_[0-9]*.safetensors"
_NAME = re.compile(r"average_([0-9]{6,12})\.safetensors")
_MOST_BYTES = 1 << 32
_LEAST_SNAPSHOTS = 2


class Snapshot(NamedTuple):
    """What the averages were at a step.

    Attributes
    ----------
    step : int
        Of the generator's phase.
    path : Path
    """

    step: int
    path: Path


def exponent_of(length: float) -> float:
    """Return the exponent of the power with which weights of before count, of an average's relative length.

    At step t the weights of step s count as s^g, s <= t. Relative to t, the standard deviation of that profile is
    sqrt((g + 1) / ((g + 2)^2 (g + 3))), which is inverted here (Karras et al. 2024, eq. 127 and algorithm 2).

    Parameters
    ----------
    length : float
        Above 0 and below 0.28; a profile of a power cannot be wider than one that is even, 0.289.
    """
    # (g + 2)^2 (g + 3) l^2 = g + 1, in powers of g.
    roots = np.roots([1.0, 7.0, 16.0 - length**-2, 12.0 - length**-2])
    return float(roots.real.max())


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the integral over s of two profiles (g + 1) s^g / t^(g + 1), 0 <= s <= t, given as (t, g) each."""
    (t, g), (u, h) = one, other
    ends = (g + h + 1) * np.log(min(t, u)) - (g + 1) * np.log(t) - (h + 1) * np.log(u)
    return float((g + 1) * (h + 1) / (g + h + 1) * np.exp(ends))


def shares_of(steps: Sequence[int], length: float) -> np.ndarray:
    """Return by what each kept average is multiplied so that their sum is the average of a length at the last step.

    The squared difference of the profiles is made as small as it can be (Karras et al. 2024, algorithm 3), among sums
    whose shares add to 1: whatever does not change in the training comes out as it is.

    Parameters
    ----------
    steps : sequence of int, (K,)
        Of the snapshots, rising.
    length : float

    Returns
    -------
    ndarray, (K, 2), float64
        By snapshot and by `KEPT_LENGTHS`.
    """
    kept = [(float(step), exponent_of(each)) for step in steps for each in KEPT_LENGTHS]
    wanted = float(steps[-1]), exponent_of(length)
    number = len(kept)
    system = np.zeros((number + 1, number + 1))
    system[:number, :number] = [[overlap(one, other) for other in kept] for one in kept]
    # Profiles that lie side by side are nearly the same: a trace on the diagonal keeps their shares small.
    system[np.arange(number), np.arange(number)] *= 1 + 1e-9
    system[number, :number] = system[:number, number] = 1
    right = np.array([*(overlap(each, wanted) for each in kept), 1.0])
    return np.linalg.solve(system, right)[:number].reshape(-1, len(KEPT_LENGTHS))


def snapshot_steps(count: int, total_steps: int) -> set[int]:
    """Return the steps out of `total_steps` after which a snapshot is kept: evenly spaced, the last being the end."""
    return {max(1, round(total_steps * (k + 1) / count)) for k in range(count)}


def write_snapshot(folder: Path, step: int, averages: Sequence[Mapping[str, Tensor]]) -> None:
    """Keep the averages (one of each of `KEPT_LENGTHS`) of a step in a run's folder, as float16.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {
        f"{number}.{name}": value.detach().to("cpu", torch.float16).contiguous()
        for number, average in enumerate(averages)
        for name, value in average.items()
    }
    write_whole(folder / f"average_{step:09}.safetensors", save(tensors))


def find_snapshots(folder: Path) -> list[Snapshot]:
    """List the snapshots in a run's folder, by step."""
    found = [(name, path) for path in folder.glob(SNAPSHOT_FILES) if (name := _NAME.fullmatch(path.name))]
    return sorted(Snapshot(int(name[1]), path) for name, path in found)


def drop_snapshots_after(folder: Path, step: int) -> None:
    """Remove the snapshots of steps that a run which goes on from `step` has yet to take."""
    for snapshot in find_snapshots(folder):
        if snapshot.step > step:
            snapshot.path.unlink(missing_ok=True)


def averaged_weights(
    snapshots: Sequence[Snapshot], lengths: Sequence[float], network: nn.Module
) -> dict[float, dict[str, Tensor]]:
    """Return the weights of a network as averages of relative lengths have them at the last snapshot, by length.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        As `find_snapshots` lists them.
    lengths : sequence of float
        Standard deviations of the averages' profiles over the whole training, about 0.01 to 0.25.
    network : nn.Module
        Of the kind that was trained, for shapes and for what is not averaged: counters.

    Raises
    ------
    UserError
        If there are too few, or one is damaged or of another network.
    """
    if len(snapshots) < _LEAST_SNAPSHOTS:
        raise UserError(
            f"there {'is one snapshot' if snapshots else 'are no snapshots'} of averages beside the checkpoint, where "
            f"{_LEAST_SNAPSHOTS} or more are needed: train with --average-snapshots 8"
        )
    parts = averaged_parts(network)
    shapes = {name: tuple(value.shape) for name, value in parts.items()}
    # On the CPU, where the files are read to, and float64 is everywhere.
    sums = {
        length: {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()} for length in lengths
    }
    shares = {length: shares_of([snapshot.step for snapshot in snapshots], length) for length in lengths}
    for place, snapshot in enumerate(snapshots):
        kept = _read(snapshot, shapes)
        for length, found in sums.items():
            for number, share in enumerate(shares[length][place]):
                for name, value in found.items():
                    value += float(share) * kept[f"{number}.{name}"].double()
    rest = {name: value.clone() for name, value in network.state_dict().items() if name not in parts}
    return {
        length: {**rest, **{name: value.to(parts[name].dtype).to(parts[name].device) for name, value in found.items()}}
        for length, found in sums.items()
    }


def averaged_parts(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network that an average is taken of, by name: weights and buffers but counters."""
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}


def _read(snapshot: Snapshot, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the tensors of a snapshot, which has each shape once for each of `KEPT_LENGTHS`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(read_bytes(snapshot.path, _MOST_BYTES))
    except (SafetensorError, UnreadableError, ValueError, KeyError) as error:
        raise UserError(f"{snapshot.path} is damaged ({error}): remove it, the others will do") from None
    wanted = {f"{number}.{name}": shape for number in range(len(KEPT_LENGTHS)) for name, shape in shapes.items()}
    if {name: tuple(value.shape) for name, value in tensors.items()} != wanted:
        raise UserError(f"{snapshot.path} holds averages of another network than the checkpoint: remove it")
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise UserError(f"{snapshot.path} holds numbers that are not finite: remove it, the others will do")
    return tensors
