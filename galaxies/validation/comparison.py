"""Generated against real galaxies as sets: statistics, spectra, features, a classifier, copies and variety."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from config_physics import MORPHOLOGY_NAMES
from galaxies.compute.device import Engine
from galaxies.generation.requests import Requests
from galaxies.measure.photometry import FLAG_BITS
from galaxies.measure.power_spectrum import NUM_POWER_BINS, power_spectrum
from galaxies.measure.statistics_table import STATISTICS, Measured, Statistic, diversity
from galaxies.validation.agreement import unsupported_share
from galaxies.validation.distances import (
    accuracy_interval,
    against_floor,
    bootstrap_interval,
    compare_values,
    frechet_distance,
    kernel_distance,
    roc_auc,
    too_few,
)
from galaxies.validation.feature_spaces import FeatureSpace
from galaxies.validation.judge import Judge
from galaxies.validation.morphology import compare_morphology
from galaxies.validation.neighbours import NEIGHBOURS, nearest_training, neighbourhoods
from galaxies.validation.real_or_generated import Pairs, tell_apart
from galaxies.validation.report.cells import ALL, Drawn, LeftOut, Sets, Share, cell_of, read
from galaxies.validation.report.contents import Copies, Honesty, SuspectedCopies, Variety
from galaxies.validation.report.realism import (
    Distance,
    Neighbourhood,
    Neighbourhoods,
    Power,
    PowerRatio,
    Rates,
    Realism,
    RealOrFake,
    SpaceCompared,
    Statistics,
    StatisticsMean,
    ValuesCompared,
)
from galaxies.validation.subject import Galaxies, Subject
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer

_FEATURE_SPLITS = 20
_MIN_TEST_PAIRS = 20
_QUERIES, _POOL = 500, 50_000  # images whose copies are looked for, and training images among which
_COPY_SHARE = 0.01


def groups_of(
    generated: np.ndarray, real: np.ndarray, names: Sequence[str] = MORPHOLOGY_NAMES
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the generated and the real rows of all galaxies and of each class."""
    groups = {"all": (np.arange(len(generated)), np.arange(len(real)))}
    for index, name in enumerate(names):
        groups[name] = (np.flatnonzero(generated == index), np.flatnonzero(real == index))
    return groups


def compare_statistics(
    generated: Measured,
    real: Measured,
    groups: dict[str, tuple[np.ndarray, np.ndarray]],
    seed: int,
    statistics: Sequence[Statistic] = STATISTICS,
) -> Statistics:
    """Compare the distribution of every statistic in every group; see `distances.compare_values`."""
    table: dict[str, dict[str, ValuesCompared | LeftOut]] = {}
    for statistic in tqdm(statistics, "comparing statistics", unit=" statistics", leave=False):
        one, other = generated.values[statistic.name], real.values[statistic.name]
        table[statistic.name] = {
            group: cell_of(ValuesCompared, compare_values(one[rows[0]], other[rows[1]], seed))
            for group, rows in groups.items()
        }
    return Statistics(table, {group: _mean([row[group] for row in table.values()]) for group in groups})


def _mean(cells: list[ValuesCompared | LeftOut]) -> StatisticsMean | LeftOut:
    """Return the mean over the statistics that have one."""
    known = [cell.w1 for cell in cells if not isinstance(cell, LeftOut)]
    if not known:
        return LeftOut("no statistic has enough values")
    value, floor, whole = (float(np.mean(v)) for v in zip(*((c.value, c.floor, c.whole) for c in known), strict=True))
    return StatisticsMean(value, floor, whole, value / floor, len(known))


def power_ratio(
    generated: Tensor,
    real: Tensor,
    groups: dict[str, tuple[np.ndarray, np.ndarray]],
    seed: int,
    least: int = 10,
    viewer: Viewer = DISPLAY_VIEWER,
) -> Power:
    """Compare radially averaged power spectra (`power_spectrum`), of flux with each band in units of its noise.

    Returns
    -------
    Power
        `cycles`, the geometric middle of each bin in cycles a frame; for each group `ratio`, generated over real
        geometric mean power in each bin, its bootstrap `interval`, and `floor`, the 95 % range of the ratio between
        random halves of the real galaxies.
    """
    spectra = [
        torch.cat([power_spectrum(viewer.linear(block)) for block in part.split(256)]).double().numpy()
        for part in (generated, real)
    ]
    cells: dict[str, PowerRatio | LeftOut] = {}
    for group, rows in groups.items():
        one, other = (spectrum[r] for spectrum, r in zip(spectra, rows, strict=True))
        if len(one) < least or len(other) < 2 * least:
            cells[group] = LeftOut(too_few(2 * least, len(other), least, len(one)))
            continue
        own = np.array(bootstrap_interval(partial(_means, one), len(one), seed, 200))
        rng = np.random.default_rng(seed)
        floors = []
        for _ in range(200):
            order = rng.permutation(len(other))
            half = len(order) // 2
            floors.append(other[order[:half]].mean(0) - other[order[half:]].mean(0))
        interval = 10 ** (own - other.mean(0))
        floor = 10 ** np.percentile(floors, (2.5, 97.5), axis=0)
        cells[group] = PowerRatio(
            (10 ** (one.mean(0) - other.mean(0))).tolist(),
            (interval[0].tolist(), interval[1].tolist()),
            (floor[0].tolist(), floor[1].tolist()),
        )
    return Power([2 ** (k / 2 + 0.25) for k in range(NUM_POWER_BINS)], cells)


def _means(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the mean of each resample's rows."""
    return values[rows].mean(1)


def compare_features(
    spaces: tuple[FeatureSpace, ...], generated: Tensor, real: Tensor, seed: int
) -> tuple[dict[str, SpaceCompared], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Compare generated with real galaxies (N, B, S, S), as stored, in every feature space.

    Returns
    -------
    report : dict
        {space: distances}; a distance of fewer images than features is left out.
    features : dict of (generated, real)
    """
    report: dict[str, SpaceCompared] = {}
    features: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for space in tqdm(spaces, "comparing features", unit=" spaces", leave=False):
        one, other = space.embed(generated), space.embed(real)
        features[space.name] = one, other
        width = one.shape[1]
        # With fewer images than features a covariance has no full rank.
        frechet = against_floor(frechet_distance, one, other, seed, _FEATURE_SPLITS, least=width + 1)
        kid = against_floor(kernel_distance, one, other, seed, _FEATURE_SPLITS, centred=True, least=20)
        report[space.name] = SpaceCompared(
            width, cell_of(Distance, frechet), cell_of(Distance, kid), _neighbourhoods(one, other, seed)
        )
    return report, features


def _neighbourhoods(generated: np.ndarray, real: np.ndarray, seed: int) -> Neighbourhoods | LeftOut:
    """Return precision, recall, density and coverage, averaged over random halves, and real against real."""
    half = min(len(real) // 2, len(generated))
    if half < 4 * NEIGHBOURS:
        return LeftOut(too_few(8 * NEIGHBOURS, len(real), 4 * NEIGHBOURS, len(generated)))
    rng = np.random.default_rng(seed)
    own, floor = [], []
    for _ in range(_FEATURE_SPLITS):
        order = rng.permutation(len(real))
        first, second = real[order[:half]], real[order[half : 2 * half]]
        own.append(neighbourhoods(first, generated[rng.permutation(len(generated))[:half]]))
        floor.append(neighbourhoods(first, second))
    means = {}
    for name in own[0]:
        values, floors = ([entry[name] for entry in side] for side in (own, floor))
        low, high = np.percentile(values, (2.5, 97.5)).tolist()
        means[name] = Neighbourhood(float(np.mean(values)), (low, high), float(np.mean(floors)))
    return Neighbourhoods(half, NEIGHBOURS, **means)


def real_or_fake(
    generated: np.ndarray,
    generated_classes: np.ndarray,
    learned: tuple[np.ndarray, np.ndarray],
    tested: tuple[np.ndarray, np.ndarray],
    steps: int,
    seed: int,
    engine: Engine,
    viewer: Viewer = DISPLAY_VIEWER,
) -> RealOrFake | LeftOut:
    """Train a fresh network to tell generated from real galaxies, and test it on others.

    Parameters
    ----------
    generated, generated_classes : ndarray, (N, B, S, S) as stored and (N,)
        The first half is learned from, the second half tested on.
    learned, tested : (images, classes)
        Real galaxies, of the judge split and of the test split: the generator saw none of them.
    steps : int
        Batches of 64.
    viewer : Viewer
        Looks at the images.
    """
    num_classes = len(viewer.layout.classes)
    rng = np.random.default_rng(seed)
    middle = len(generated) // 2
    real = np.concatenate([learned[0], tested[0]])
    sides = []
    for first, end, offset, classes in (
        (0, middle, 0, learned[1]),
        (middle, len(generated), len(learned[0]), tested[1]),
    ):
        pairs = []
        for index in range(num_classes):
            fake_rows = first + rng.permutation(np.flatnonzero(generated_classes[first:end] == index))
            real_rows = offset + rng.permutation(np.flatnonzero(classes == index))
            count = min(len(fake_rows), len(real_rows))
            pairs.append((fake_rows[:count], real_rows[:count]))
        sides.append(pairs)
    counts = [sum(len(pair[0]) for pair in side) for side in sides]
    # A class that is learned nowhere is not asked for, and the other way round.
    shared = [min(len(sides[0][k][0]), len(sides[1][k][0])) > 0 for k in range(num_classes)]
    none = np.empty(0, dtype=np.int64)
    sides = [[pair if ok else (none, none) for pair, ok in zip(side, shared, strict=True)] for side in sides]
    if min(counts) < _MIN_TEST_PAIRS or not any(shared):
        return LeftOut(f"needs {_MIN_TEST_PAIRS} pairs to learn from and to test on, has {counts[0]}, {counts[1]}")
    rates = tell_apart(generated, real, Pairs(*sides), steps, seed, engine, "real or generated", viewer)
    if not rates:
        return LeftOut("no class has 5 pairs to test on")
    return RealOrFake(counts[0], {group: read(Rates, rate) for group, rate in rates.items()})


@dataclass(frozen=True)
class Nearest:
    """How near galaxies are to their nearest training galaxy.

    Attributes
    ----------
    generated, held_out : ndarray, (N,) and (M,), float64
        Distances in grey levels of 255.
    pairs : (Tensor, Tensor), (K, B, S, S) each
        As stored: the generated galaxies that are nearest, and the training galaxies that they are near.
    """

    generated: np.ndarray
    held_out: np.ndarray
    pairs: tuple[Tensor, Tensor]


class _Rows:
    """Some images of a file, read a block at a time: all together may not fit into memory."""

    def __init__(self, images: np.ndarray, rows: np.ndarray) -> None:
        self._images, self._rows = images, rows

    def split(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self._rows), size):
            yield torch.from_numpy(self._images[self._rows[start : start + size]])


def look_for_copies(
    generated: Tensor,
    held_out: Tensor,
    training: np.ndarray,
    training_rows: np.ndarray,
    seed: int,
    engine: Engine,
    viewer: Viewer = DISPLAY_VIEWER,
) -> tuple[Copies | LeftOut, Nearest | None]:
    """Compare how near generated and held-out real galaxies are to their nearest training galaxy.

    A generator that draws new galaxies is as far from the training set as held-out galaxies are; one that copies is
    nearer. Blurred pictures are nearer too, so the nearest pairs are to be looked at.

    Parameters
    ----------
    generated, held_out : Tensor, (N, B, S, S) and (M, B, S, S)
        As stored.
    training : ndarray, (K, B, S, S)
        All images of the dataset, of which `training_rows` are the training split.

    Returns
    -------
    report : Copies or LeftOut
        Of new galaxies, `nearer_than_held_out` is 0.5 and `copies`, the share nearer than all but 1 % of the held-out
        ones, 0.01.
    pictures : Nearest, if there is a report
    """
    if min(len(generated), len(held_out)) < 20 or len(training_rows) == 0:
        counts = f"{len(generated)}, {len(held_out)} and {len(training_rows)}"
        return LeftOut(f"needs 20 generated and 20 held-out galaxies and training galaxies, has {counts}"), None
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(training_rows)[:_POOL])
    pool = _Rows(training, rows)
    queries = [part[torch.from_numpy(rng.permutation(len(part))[:_QUERIES])] for part in (generated, held_out)]
    found = [nearest_training(part, pool, engine.device, viewer) for part in queries]
    own, reference = (distance.double().numpy() for distance, _ in found)
    limit = float(np.quantile(reference, _COPY_SHARE))
    copies = own < limit
    low, high = bootstrap_interval(lambda r: copies[r].mean(1), len(copies), seed)
    report = Copies(
        generated=len(own),
        held_out=len(reference),
        training=len(rows),
        median=float(np.median(own)),
        held_out_median=float(np.median(reference)),
        nearer_than_held_out=roc_auc(reference, own),
        copies=SuspectedCopies(float(copies.mean()), (low, high), _COPY_SHARE),
    )
    nearest = torch.from_numpy(np.argsort(own, kind="stable")[:8].copy())
    originals = torch.from_numpy(training[rows[found[0][1][nearest].numpy()]])
    return report, Nearest(own, reference, (queries[0][nearest], originals))


def compare_variety(
    generated: Tensor,
    real: Tensor,
    features: tuple[np.ndarray, np.ndarray] | None,
    groups: dict[str, tuple[np.ndarray, np.ndarray]],
    viewer: Viewer = DISPLAY_VIEWER,
) -> dict[str, Variety | LeftOut]:
    """Compare the mean distance between two galaxies of a class, generated over real.

    Returns
    -------
    dict
        For each group `pixels`, of pictures pooled to 16 x 16, and `judge`, of the judge's features, if there are any:
        1 for the variety of real galaxies, 0 for one image over and over.
    """
    report: dict[str, Variety | LeftOut] = {}
    for group, (one, other) in groups.items():
        count = min(len(one), len(other), 1000)
        if count < 10:
            report[group] = LeftOut(too_few(10, len(other), 10, len(one)))
            continue
        judge = None
        if features is not None:
            spread = [
                float(torch.pdist(torch.from_numpy(side[rows[:count]])).mean())
                for side, rows in zip(features, (one, other), strict=True)
            ]
            judge = spread[0] / spread[1] if spread[1] > 0 else None
        if (of_real := diversity(viewer.levels(real[other[:count]]))) == 0:
            report[group] = LeftOut(
                "the galaxies of the reference are all the same picture, which has no variety to compare with"
            )
            continue
        report[group] = Variety(count, diversity(viewer.levels(generated[one[:count]])) / of_real, judge)
    return report


def flag_shares(flags: np.ndarray, seed: int, bits: Mapping[int, str] = FLAG_BITS) -> dict[str, Share | LeftOut]:
    """Return the share of measurements (N,) that carry each of photometry's flags."""
    return {text: cell_of(Share, accuracy_interval(flags & bit > 0, seed)) for bit, text in bits.items()}


@dataclass(frozen=True)
class SetPair:
    """Two sets of galaxies, and by what they are compared.

    Attributes
    ----------
    generated : Galaxies
        Of any origin: those of a generator, or of another survey. A class of -1 is not known.
    real : Galaxies
        The test galaxies that they are held against.
    learned : (images, classes), (N, B, S, S) as stored and (N,)
        Real galaxies that a fresh network may learn from.
    judge : Judge or LeftOut
        Or why there is none among the spaces.
    viewer : Viewer
        Looks at the images.
    spaces : tuple of FeatureSpace
    steps, seed : int
        Batches of a fresh network; seed of every random draw.
    device : str
        As in `Engine.choose`.
    """

    generated: Galaxies
    real: Galaxies
    learned: tuple[np.ndarray, np.ndarray]
    judge: Judge | LeftOut
    viewer: Viewer
    spaces: tuple[FeatureSpace, ...]
    steps: int
    seed: int
    device: str

    @cached_property
    def groups(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The generated and the real rows of each group."""
        return groups_of(self.generated.classes, self.real.classes, self.viewer.layout.classes)

    @cached_property
    def features(self) -> tuple[dict[str, SpaceCompared], dict[str, tuple[np.ndarray, np.ndarray]]]:
        """What `compare_features` finds."""
        return compare_features(self.spaces, self.generated.images, self.real.images, self.seed)


@dataclass(frozen=True)
class Compared(SetPair):
    """All that the comparison of a checkpoint may look at.

    Attributes
    ----------
    subject : Subject
    requests : Drawn
        What was asked for.
    galaxies : Sets
        Real test galaxies, and those that were drawn for the requests; of these, sets are compared by `test`.
    """

    subject: Subject
    requests: Drawn[Requests]
    galaxies: Sets[Galaxies]

    @cached_property
    def copies(self) -> tuple[Copies | LeftOut, Nearest | None]:
        """What `look_for_copies` finds."""
        data = self.subject.data
        return look_for_copies(
            self.generated.images,
            self.real.images,
            data.images,
            data.rows("train"),
            self.seed,
            self.subject.sampler.engine,
            self.viewer,
        )


def _features(pair: SetPair) -> dict[str, SpaceCompared | LeftOut]:
    return {**pair.features[0], **({"judge": pair.judge} if isinstance(pair.judge, LeftOut) else {})}


def _real_or_fake(pair: SetPair) -> RealOrFake | LeftOut:
    generated, real = pair.generated, pair.real
    classes, learned, tested = generated.classes, pair.learned[1], real.classes
    unknown = bool((classes < 0).all())
    if unknown:  # pairs are of any two galaxies
        classes, learned, tested = (np.zeros_like(part) for part in (classes, learned, tested))
    found = real_or_fake(
        generated.images.numpy(),
        classes,
        (pair.learned[0], learned),
        (real.images.numpy(), tested),
        pair.steps,
        pair.seed,
        Engine.choose(pair.device),  # a fresh network may compute in bfloat16, where that is faster
        pair.viewer,
    )
    if unknown and isinstance(found, RealOrFake):
        return RealOrFake(found.learned, {ALL: found.groups[ALL]})
    return found


def compare_as_sets(pair: SetPair, lap: Callable[[str], None] = lambda name: None) -> Realism:
    """Find every comparison of two sets; `lap` is called with the name of each when it is done."""
    return Realism(**_found(COMPARISONS["realism"], pair, lap))


def compare_all(compared: Compared, lap: Callable[[str], None] = lambda name: None) -> tuple[Realism, Honesty]:
    """Find every comparison of the table for a checkpoint; see `compare_as_sets`."""
    return compare_as_sets(compared, lap), Honesty(**_found(COMPARISONS["honesty"], compared, lap))


def _found(comparisons: Mapping[str, Callable[[Any], Any]], of: SetPair, lap: Callable[[str], None]) -> dict[str, Any]:
    found = {}
    for field, find in comparisons.items():
        found[field] = find(of)
        lap(field.replace("_", " "))
    return found


# Every comparison of sets, in the order of the report: {part: {its field in `report.contents`: how it is found}}. A new
# one is a line here, its type and its field there, and a section of `report/page.html` that shows it. Those of realism
# are of any `SetPair`, and the command `sets` makes them too; those of honesty are of a checkpoint, `Compared`.
COMPARISONS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "realism": {
        "statistics": lambda c: compare_statistics(
            c.generated.measured, c.real.measured, c.groups, c.seed, c.viewer.statistics
        ),
        "morphology": lambda c: compare_morphology(
            c.generated.measured.values, c.real.measured.values, c.groups, c.seed
        ),
        "power": lambda c: power_ratio(c.generated.images, c.real.images, c.groups, c.seed, viewer=c.viewer),
        "features": _features,
        "real_or_fake": _real_or_fake,
    },
    "honesty": {
        "copies": lambda c: c.copies[0],
        "variety": lambda c: compare_variety(
            c.generated.images, c.real.images, c.features[1].get("judge"), c.groups, c.viewer
        ),
        "unsupported": lambda c: Drawn(
            **{name: unsupported_share(c.subject.sampler, requests) for name, requests in c.requests.items()}
        ),
        "flags": lambda c: Sets(
            **{
                name: flag_shares(galaxies.measured.flags, c.seed, c.viewer.flag_bits)
                for name, galaxies in c.galaxies.items()
            }
        ),
    },
}
