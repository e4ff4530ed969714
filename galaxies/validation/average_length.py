"""Which average of a generator's weights draws best: every length is tried, when the training is over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from galaxies.common.errors import UserError
from galaxies.generation.requests import requests_like_test
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.power_averages import averaged_weights, find_snapshots
from galaxies.storage.schema import RUN_STATE
from galaxies.validation.agreement import generate_all
from galaxies.validation.comparison import compare_features, compare_statistics
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.report.realism import Distance, StatisticsMean
from galaxies.validation.subject import Subject, choose_spaces, real_sample

_SPLIT = "judge"  # galaxies that neither the generator nor its report has seen
_LEAST_REAL = 40
_KEPT = (*RUN_STATE, "metrics")  # of a run's checkpoint, for drawing and for a release


@dataclass(frozen=True)
class Tried:
    """What came of one average.

    Attributes
    ----------
    length : float or None
        Relative, see `power_averages`; None is the weights that the checkpoint itself draws with.
    multiples : dict of str to float
        Distances over those of real galaxies from each other.
    """

    length: float | None
    multiples: dict[str, float]

    @property
    def score(self) -> float:
        """Geometric mean of the multiples; smaller is better."""
        return math.exp(float(np.mean([math.log(value) for value in self.multiples.values()])))


def choose_length(
    checkpoint: Path,
    data_path: Path,
    lengths: Sequence[float],
    count: int,
    seed: int,
    device: str,
    solver: dict[str, Any] | None = None,
) -> tuple[list[Tried], dict[str, Any]]:
    """Draw the same galaxies with averages of several lengths, and compare them with real ones.

    These are of the judge's split, so that the test galaxies of a report stay unseen. All averages get the same
    requests and the same seeds, so that differences between them are far less uncertain than each value.

    Parameters
    ----------
    checkpoint, data_path : Path
        Of a run with snapshots beside it, and a dataset as in `Subject.open`.
    lengths : sequence of float
    count : int
        Galaxies to draw with each.
    seed, device, solver
        As of `evaluation.evaluate`.

    Returns
    -------
    tried : list of Tried
        The checkpoint's own weights first, then the lengths as given.
    state : dict
        The checkpoint's content with the weights that scored best as its average, and without what training takes.

    Raises
    ------
    UserError
        If the checkpoint, its snapshots or the dataset cannot be used.
    """
    subject = Subject.open(checkpoint, data_path, device, **(solver or {}))
    state, sampler, viewer = subject.state, subject.sampler, subject.viewer
    snapshots = [s for s in find_snapshots(checkpoint.parent) if s.step <= state["step"]]
    network = sampler.network
    weights = averaged_weights(snapshots, lengths, network)
    rows = real_sample(subject.data, _SPLIT, 2 * count, seed)
    if len(rows) < _LEAST_REAL:
        raise UserError(f"{data_path} has {len(rows)} galaxies of the judge's split, where {_LEAST_REAL} are needed")
    real = torch.from_numpy(subject.data.images[rows])
    asked = requests_like_test(subject.data, sampler.config.attributes, count, seed, _SPLIT, subject.mixes)
    engine = sampler.engine
    groups = {"all": (np.arange(count), np.arange(len(real)))}
    with engine.kernels():
        measured = viewer.measure(real, engine.device, "measuring, real")
        spaces = choose_spaces(subject.judge, real, engine, viewer)
    tried = []
    own = {name: value.clone() for name, value in network.state_dict().items()}
    for length in tqdm((None, *lengths), "averages", unit=" averages", leave=False):
        network.load_state_dict(own if length is None else weights[length])
        images = generate_all(sampler, asked, "drawing")
        with engine.kernels():
            drawn = viewer.measure(images, engine.device, "measuring")
            features, _ = compare_features(spaces, images, real, seed)
        statistics = compare_statistics(drawn, measured, groups, seed, viewer.statistics)
        cells: dict[str, StatisticsMean | Distance | LeftOut] = {"statistics, W1": statistics.mean["all"]}
        cells |= {f"{name}, Frechet": space.frechet for name, space in features.items()}
        multiples = {
            name: cell.multiple for name, cell in cells.items() if not isinstance(cell, LeftOut) and cell.multiple
        }
        if not multiples:
            raise UserError(f"{count} galaxies are too few to compare: give a larger --count")
        tried.append(Tried(length, multiples))
    network.load_state_dict(own)
    best = min(tried, key=lambda one: one.score)
    kept = {name: state[name] for name in _KEPT if name in state}
    kept["provenance"] = state["provenance"] | {"average_length": best.length or 0.0}
    if best.length is not None:
        chosen = {name: value.cpu() for name, value in weights[best.length].items()}
        kept["ema"] = chosen | {"num_averaged": torch.tensor(float(state["step"]))}
    return tried, kept


def is_averaged(path: Path) -> bool:
    """Tell whether a file is a checkpoint that came of `choose_length`."""
    try:
        return "average_length" in load_checkpoint(path, RUN_STATE)["provenance"]
    except UserError:
        return False
