"""Generated against real galaxies as sets: statistics, spectra, features, a classifier, copies and variety."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from config_physics import MORPHOLOGY_NAMES
from galaxies.compute.device import Engine
from galaxies.measure.power_spectrum import NUM_POWER_BINS, power_spectrum
from galaxies.measure.statistics_table import STATISTICS, Measured, diversity
from galaxies.validation.distances import (
    against_floor,
    bootstrap_interval,
    compare_values,
    frechet_distance,
    kernel_distance,
    roc_auc,
    too_few,
)
from galaxies.validation.feature_spaces import FeatureSpace
from galaxies.validation.neighbours import NEIGHBOURS, nearest_training, neighbourhoods
from galaxies.validation.real_or_generated import Pairs, tell_apart

_FEATURE_SPLITS = 20
_MIN_TEST_PAIRS = 20
_QUERIES, _POOL = 500, 50_000  # images whose copies are looked for, and training images among which
_COPY_SHARE = 0.01


def groups_of(generated: np.ndarray, real: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the generated and the real rows of all galaxies and of each class."""
    groups = {"all": (np.arange(len(generated)), np.arange(len(real)))}
    for index, name in enumerate(MORPHOLOGY_NAMES):
        groups[name] = (np.flatnonzero(generated == index), np.flatnonzero(real == index))
    return groups


def compare_statistics(
    generated: Measured, real: Measured, groups: dict[str, tuple[np.ndarray, np.ndarray]], seed: int
) -> dict[str, Any]:
    """Compare the distribution of every statistic in every group; see `distances.compare_values`.

    Returns
    -------
    dict
        ``table``, {statistic: {group: cell}}, and ``mean``, {group: mean w1, of halves and whole, its floor and
        the number of statistics}.
    """
    table: dict[str, dict[str, Any]] = {}
    for statistic in tqdm(STATISTICS, "comparing statistics", unit=" statistics", leave=False):
        one, other = generated.values[statistic.name], real.values[statistic.name]
        table[statistic.name] = {
            group: compare_values(one[rows[0]], other[rows[1]], seed) for group, rows in groups.items()
        }
    means = {}
    for group in groups:
        cells = [row[group]["w1"] for row in table.values() if "w1" in row[group]]
        if cells:
            means[group] = {key: float(np.mean([cell[key] for cell in cells])) for key in ("value", "floor", "whole")}
            means[group] |= {"multiple": means[group]["value"] / means[group]["floor"], "statistics": len(cells)}
        else:
            means[group] = {"left_out": "no statistic has enough values"}
    return {"table": table, "mean": means}


def power_ratio(
    generated: Tensor, real: Tensor, groups: dict[str, tuple[np.ndarray, np.ndarray]], seed: int, least: int = 10
) -> dict[str, Any]:
    """Compare radially averaged power spectra (`power_spectrum`).

    Returns
    -------
    dict
        ``cycles``, the geometric middle of each bin in cycles a frame; for each group ``ratio``, generated over real
        geometric mean power in each bin, its bootstrap ``interval``, and ``floor``, the 95 % range of the ratio
        between random halves of the real galaxies; or ``left_out``.
    """
    spectra = [
        torch.cat([power_spectrum(block.float() / 255) for block in part.split(256)]).double().numpy()
        for part in (generated, real)
    ]
    report: dict[str, Any] = {"cycles": [2 ** (k / 2 + 0.25) for k in range(NUM_POWER_BINS)]}
    for group, rows in groups.items():
        one, other = (spectrum[r] for spectrum, r in zip(spectra, rows, strict=True))
        if len(one) < least or len(other) < 2 * least:
            report[group] = {"left_out": too_few(2 * least, len(other), least, len(one))}
            continue
        own = np.array(bootstrap_interval(lambda r, s=one: s[r].mean(1), len(one), seed, 200))
        rng = np.random.default_rng(seed)
        floors = []
        for _ in range(200):
            order = rng.permutation(len(other))
            half = len(order) // 2
            floors.append(other[order[:half]].mean(0) - other[order[half:]].mean(0))
        floor = np.percentile(floors, (2.5, 97.5), axis=0)
        report[group] = {
            "ratio": (10 ** (one.mean(0) - other.mean(0))).tolist(),
            "interval": (10 ** (own - other.mean(0))).tolist(),
            "floor": (10**floor).tolist(),
        }
    return report


def compare_features(
    spaces: tuple[FeatureSpace, ...], generated: Tensor, real: Tensor, seed: int
) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Compare generated with real galaxies (N, 3, S, S) uint8 in every feature space.

    Returns
    -------
    report : dict
        {space: ``frechet`` and ``kid`` as in `distances.against_floor`, ``neighbourhoods``: {precision, ...: the
        same}}; a distance of fewer images than features is left out.
    features : dict of (generated, real)
    """
    report, features = {}, {}
    for space in tqdm(spaces, "comparing features", unit=" spaces", leave=False):
        one, other = features[space.name] = space.embed(generated), space.embed(real)
        width = one.shape[1]
        # With fewer images than features a covariance has no full rank.
        report[space.name] = {
            "features": width,
            "frechet": against_floor(frechet_distance, one, other, seed, _FEATURE_SPLITS, least=width + 1),
            "kid": against_floor(kernel_distance, one, other, seed, _FEATURE_SPLITS, centred=True, least=20),
            "neighbourhoods": _neighbourhoods(one, other, seed),
        }
    return report, features


def _neighbourhoods(generated: np.ndarray, real: np.ndarray, seed: int) -> dict[str, Any]:
    """Return precision, recall, density and coverage, averaged over random halves, and real against real."""
    half = min(len(real) // 2, len(generated))
    if half < 4 * NEIGHBOURS:
        return {"left_out": too_few(8 * NEIGHBOURS, len(real), 4 * NEIGHBOURS, len(generated))}
    rng = np.random.default_rng(seed)
    own, floor = [], []
    for _ in range(_FEATURE_SPLITS):
        order = rng.permutation(len(real))
        first, second = real[order[:half]], real[order[half : 2 * half]]
        own.append(neighbourhoods(first, generated[rng.permutation(len(generated))[:half]]))
        floor.append(neighbourhoods(first, second))
    report: dict[str, Any] = {"images": half, "k": NEIGHBOURS}
    for name in own[0]:
        values, floors = ([entry[name] for entry in side] for side in (own, floor))
        report[name] = {
            "value": float(np.mean(values)),
            "interval": np.percentile(values, (2.5, 97.5)).tolist(),
            "floor": float(np.mean(floors)),
        }
    return report


def real_or_fake(
    generated: np.ndarray,
    generated_classes: np.ndarray,
    learned: tuple[np.ndarray, np.ndarray],
    tested: tuple[np.ndarray, np.ndarray],
    steps: int,
    seed: int,
    engine: Engine,
) -> dict[str, Any]:
    """Train a fresh network to tell generated from real galaxies, and test it on others.

    Parameters
    ----------
    generated, generated_classes : ndarray, (N, 3, S, S) uint8 and (N,)
        The first half is learned from, the second half tested on.
    learned, tested : (images, classes)
        Real galaxies, of the judge split and of the test split: the generator saw none of them.
    steps : int
        Batches of 64.

    Returns
    -------
    dict
        {group: pairs, accuracy (0.5: cannot be told apart), standard_error, auc}, and ``learned``, the number of real
        galaxies that it learned from; or ``left_out``.
    """
    rng = np.random.default_rng(seed)
    middle = len(generated) // 2
    real = np.concatenate([learned[0], tested[0]])
    sides = []
    for first, end, offset, classes in (
        (0, middle, 0, learned[1]),
        (middle, len(generated), len(learned[0]), tested[1]),
    ):
        pairs = []
        for index in range(len(MORPHOLOGY_NAMES)):
            fake_rows = first + rng.permutation(np.flatnonzero(generated_classes[first:end] == index))
            real_rows = offset + rng.permutation(np.flatnonzero(classes == index))
            count = min(len(fake_rows), len(real_rows))
            pairs.append((fake_rows[:count], real_rows[:count]))
        sides.append(pairs)
    counts = [sum(len(pair[0]) for pair in side) for side in sides]
    # A class that is learned nowhere is not asked for, and the other way round.
    shared = [min(len(sides[0][k][0]), len(sides[1][k][0])) > 0 for k in range(len(MORPHOLOGY_NAMES))]
    none = np.empty(0, dtype=np.int64)
    sides = [[pair if ok else (none, none) for pair, ok in zip(side, shared, strict=True)] for side in sides]
    if min(counts) < _MIN_TEST_PAIRS or not any(shared):
        return {"left_out": f"needs {_MIN_TEST_PAIRS} pairs to learn from and to test on, has {counts[0]}, {counts[1]}"}
    rates = tell_apart(generated, real, Pairs(*sides), steps, seed, engine, "real or generated")
    return {"learned": counts[0], **rates} if rates else {"left_out": "no class has 5 pairs to test on"}


def look_for_copies(
    generated: Tensor, held_out: Tensor, training: np.ndarray, training_rows: np.ndarray, seed: int, engine: Engine
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare how near generated and held-out real galaxies are to their nearest training galaxy.

    A generator that draws new galaxies is as far from the training set as held-out galaxies are; one that copies is
    nearer. Blurred pictures are nearer too, so the nearest pairs are to be looked at.

    Parameters
    ----------
    generated, held_out : Tensor, (N, 3, S, S) and (M, 3, S, S), uint8
    training : ndarray, (K, 3, S, S), uint8
        All images of the dataset, of which `training_rows` are the training split.

    Returns
    -------
    report : dict
        Medians; ``nearer_than_held_out``, the probability that a generated galaxy is nearer than a held-out one (0.5
        for new galaxies); ``copies``, the share nearer than all but 1 % of the held-out ones (0.01 for new galaxies);
        or ``left_out``.
    pictures : dict
        ``generated`` and ``held_out`` distances, and the nearest ``pairs``.
    """
    if min(len(generated), len(held_out)) < 20 or len(training_rows) == 0:
        counts = f"{len(generated)}, {len(held_out)} and {len(training_rows)}"
        return {"left_out": f"needs 20 generated and 20 held-out galaxies and training galaxies, has {counts}"}, {}
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(training_rows)[:_POOL])
    pool = torch.from_numpy(training[rows])
    queries = [part[torch.from_numpy(rng.permutation(len(part))[:_QUERIES])] for part in (generated, held_out)]
    found = [nearest_training(part, pool, engine.device) for part in queries]
    own, reference = (distance.double().numpy() for distance, _ in found)
    limit = float(np.quantile(reference, _COPY_SHARE))
    copies = own < limit
    interval = bootstrap_interval(lambda r: copies[r].mean(1), len(copies), seed)
    report = {
        "generated": len(own),
        "held_out": len(reference),
        "training": len(rows),
        "median": float(np.median(own)),
        "held_out_median": float(np.median(reference)),
        "nearer_than_held_out": roc_auc(reference, own),
        "copies": {"value": float(copies.mean()), "interval": interval, "expected": _COPY_SHARE},
    }
    nearest = torch.from_numpy(np.argsort(own, kind="stable")[:8].copy())
    pairs = (queries[0][nearest], pool[found[0][1][nearest]], own[nearest.numpy()])
    return report, {"generated": own, "held_out": reference, "pairs": pairs}


def compare_variety(
    generated: Tensor,
    real: Tensor,
    features: tuple[np.ndarray, np.ndarray] | None,
    groups: dict[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Compare the mean distance between two galaxies of a class, generated over real.

    Returns
    -------
    dict
        For each group ``pixels``, of pictures pooled to 16 x 16, and ``judge``, of the judge's features: 1 for the
        variety of real galaxies, 0 for one image over and over; or ``left_out``.
    """
    report: dict[str, Any] = {}
    for group, (one, other) in groups.items():
        count = min(len(one), len(other), 1000)
        if count < 10:
            report[group] = {"left_out": too_few(10, len(other), 10, len(one))}
            continue
        report[group] = {"images": count, "pixels": diversity(generated[one[:count]]) / diversity(real[other[:count]])}
        if features is not None:
            spread = [
                float(torch.pdist(torch.from_numpy(side[rows[:count]])).mean())
                for side, rows in zip(features, (one, other), strict=True)
            ]
            report[group]["judge"] = spread[0] / spread[1]
    return report
