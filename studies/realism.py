"""Tell how far mock galaxies are from real ones: statistics, classifiers, and pictures side by side.

    python studies/realism.py --mock data/mock --real data/real
    python studies/realism.py --mock data/mock --real data/real --percentiles --no-classifier

Both prepared datasets are measured alike. The first table holds, for each class, the normalised Wasserstein-1 distance
of every statistic: 0.5 means that mock values are off by half the standard deviation of the real ones, on average. Such
cells are marked with !. In brackets is the distance between two random halves of the real galaxies: what chance alone
gives at half their number. The column "all" takes the same number of each class.

Then two classifiers try to tell mock from real, on galaxies that they have not seen: a small convolutional network on
the pixels, and a logistic regression on the statistics, which also says which of them give the mock away. A control
tells the same network real galaxies from real ones: it can only guess.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import MORPHOLOGY_NAMES
from galaxies.command_line import Parser, add_device_option, need_packages, run_script
from galaxies.common.durable_files import write_whole
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import check_folder
from galaxies.compute.device import Engine
from galaxies.datasets.prepared import PreparedDataset
from galaxies.measure import photometry
from galaxies.measure.statistics_table import STATISTICS, measure_images
from galaxies.validation.distances import wasserstein
from galaxies.validation.real_or_generated import tell_apart
from studies.mock_or_real import halves, pair_up, tell_apart_by_statistics
from studies.runs import STUDY
from studies.sheets import draw_sheets

LIMIT = 0.5  # a normalised distance above this is marked
GROUPS = (*MORPHOLOGY_NAMES, "all")

_SPLITS = 20  # random halves of the real sample, over which the floor is averaged
_MIN_SAMPLE = 10  # fewer known values have no distribution worth comparing
_WHICH = ("mock", "real")
_PERCENTILES = (16, 50, 84)
_NAMED = 3  # statistics named as the most telling


@dataclass(frozen=True)
class Sample:
    """Galaxies drawn from a prepared dataset, and what was measured on them.

    Attributes
    ----------
    images : ndarray, (N, 3, S, S), uint8
    classes : ndarray, (N,), int64
    object_ids : list of str
    values : dict of str to ndarray, (N,), float64
        Photometry, NaN where no galaxy was found, and the statistics of `image_statistics`.
    flags : ndarray, (N,), int64
        See `photometry.FLAG_BITS`.
    """

    images: np.ndarray
    classes: np.ndarray
    object_ids: list[str]
    values: dict[str, np.ndarray]
    flags: np.ndarray

    def rows(self, morphology: str) -> np.ndarray:
        """Return the row numbers of a class."""
        return np.flatnonzero(self.classes == MORPHOLOGY_NAMES.index(morphology))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    need_packages("scipy", *(("sklearn",) if options.classifier else ()))
    files = ("realism.json", *(f"{name}.png" for name in ("mock_and_real", *MORPHOLOGY_NAMES)))
    check_folder(options.out, STUDY, files, (options.mock, options.real))
    engine = Engine.choose(options.device)
    datasets = [PreparedDataset.open(path) for path in (options.mock, options.real)]
    sizes = [data.image_size for data in datasets]
    if sizes[0] != sizes[1]:
        raise UserError(f"{options.mock} has images of {sizes[0]} pixels and {options.real} of {sizes[1]}")
    mock, real = (draw_sample(data, options.count, options.seed, engine.device) for data in datasets)
    groups = choose_groups(mock, real, options.seed)
    report = {
        "mock": str(options.mock),
        "real": str(options.real),
        "images_sha256": {which: d.manifest["sha256"]["images.npy"] for which, d in zip(_WHICH, datasets, strict=True)},
        "image_size": sizes[0],
        "seed": options.seed,
        "steps": options.steps,
        "limit": LIMIT,
        "counts": {g: dict(zip(_WHICH, map(len, rows), strict=True)) for g, rows in groups.items()},
        "flagged": {g: {"mock": flagged(mock, rows[0]), "real": flagged(real, rows[1])} for g, rows in groups.items()},
        "statistics": compare(mock, real, groups, options.seed),
    }
    print_distances(report)
    if options.percentiles:
        print_percentiles(report)
    print_flagged(report)
    if options.classifier:
        report |= classify(mock, real, options.steps, options.seed, engine)
        print_classifiers(report)
    for path in draw_sheets((mock.images, real.images), (mock.classes, real.classes), options.out, options.seed):
        print(f"wrote {path}")
    path = options.out / "realism.json"
    write_whole(path, (json_text(report, indent=1) + "\n").encode())
    print(f"wrote {path}")


def _parser() -> Parser:
    parser = Parser(prog="realism.py", description=__doc__)
    parser.add_argument("--mock", type=Path, required=True, metavar="DIR", help="prepared dataset to judge")
    parser.add_argument("--real", type=Path, required=True, metavar="DIR", help="prepared dataset of real galaxies")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("samples/realism"),
        metavar="DIR",
        help="folder of realism.json and the pictures; files of that name are replaced (default: samples/realism)",
    )
    parser.add_argument(
        "--count",
        type=_at_least(1),
        default=2000,
        metavar="N",
        help="most galaxies of a class to take from either dataset, at random (default: 2000)",
    )
    parser.add_argument(
        "--seed", type=_at_least(0), default=0, metavar="N", help="seed of every random draw (default: 0)"
    )
    parser.add_argument(
        "--percentiles", action="store_true", help="also print the 16th, 50th and 84th percentiles of both samples"
    )
    parser.add_argument(
        "--no-classifier", dest="classifier", action="store_false", help="leave out the classifiers, most of the time"
    )
    parser.add_argument(
        "--steps",
        type=_at_least(1),
        default=600,
        metavar="N",
        help="batches of 64 that a network learns from (default: 600)",
    )
    add_device_option(parser)
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return int(text)

    return whole_number


def draw_sample(data: PreparedDataset, count: int, seed: int, device: torch.device) -> Sample:
    """Draw at most `count` galaxies of each class from a dataset and measure them."""
    rng = np.random.default_rng(seed)
    every_class = data.classes(np.arange(len(data.images)))
    parts = [rng.permutation(np.flatnonzero(every_class == k))[:count] for k in range(len(MORPHOLOGY_NAMES))]
    rows = np.sort(np.concatenate(parts))
    images = data.images[rows]
    without_structure = [statistic for statistic in STATISTICS if statistic.source != "structure"]
    measured = measure_images(torch.from_numpy(images), device, f"measuring {data.path}", without_structure)
    return Sample(
        images, every_class[rows], data.catalogue["object_id"].iloc[rows].tolist(), measured.values, measured.flags
    )


def choose_groups(mock: Sample, real: Sample, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the mock and the real rows to compare, for each class that both have and for all of these together.

    As the two datasets hold the classes in other proportions, "all" takes the same number of each, at random.
    """
    groups = {name: (mock.rows(name), real.rows(name)) for name in MORPHOLOGY_NAMES}
    groups = {name: rows for name, rows in groups.items() if min(map(len, rows)) >= _MIN_SAMPLE}
    if not groups:
        raise UserError(f"no class has {_MIN_SAMPLE} galaxies in both datasets")
    rng = np.random.default_rng(seed)
    count = min(len(rows) for pair in groups.values() for rows in pair)
    drawn = [[np.sort(rng.permutation(rows)[:count]) for rows in pair] for pair in groups.values()]
    of_mock, of_real = (np.concatenate(rows) for rows in zip(*drawn, strict=True))
    return groups | {"all": (of_mock, of_real)}


def flagged(sample: Sample, rows: np.ndarray) -> dict[str, float]:
    """Return the fraction of galaxies that carries each flag of photometry."""
    return {text: float((sample.flags[rows] & bit > 0).mean()) for bit, text in photometry.FLAG_BITS.items()}


def compare(
    mock: Sample, real: Sample, groups: dict[str, tuple[np.ndarray, np.ndarray]], seed: int
) -> dict[str, dict[str, dict]]:
    """Compare the distribution of every statistic in every group.

    Returns
    -------
    dict of str (statistic) to dict of str (group) to dict
        ``w1``: normalised Wasserstein-1 of the mock from the real values; ``floor``: of one random half of the real
        values from the other, in the same unit, averaged over splits; ``shift``: difference of the medians, in the
        same unit; ``mock`` and ``real``: number of known values and their percentiles. A group that has too few
        known values, or real ones that are all equal, is left out.
    """
    rng = np.random.default_rng(seed)
    results: dict[str, dict[str, dict]] = {}
    for name in real.values:
        results[name] = {}
        for group, rows in groups.items():
            values = [sample.values[name][r] for sample, r in zip((mock, real), rows, strict=True)]
            known = [v[np.isfinite(v)] for v in values]
            if min(map(len, known)) < _MIN_SAMPLE or np.ptp(known[1]) == 0:
                continue
            scale = float(known[1].std())
            floors = []
            for _ in range(_SPLITS):
                shuffled = rng.permutation(known[1])
                floors.append(wasserstein(shuffled[::2], shuffled[1::2]) / scale)
            results[name][group] = {
                "w1": wasserstein(*known) / scale,
                "floor": float(np.mean(floors)),
                "shift": float(np.median(known[0]) - np.median(known[1])) / scale,
            }
            for which, v in zip(_WHICH, known, strict=True):
                results[name][group][which] = {"known": len(v), "percentiles": np.percentile(v, _PERCENTILES).tolist()}
    if not any(results.values()):
        raise UserError("no statistic of the real galaxies has a distribution to compare with")
    return results


def classify(mock: Sample, real: Sample, steps: int, seed: int, engine: Engine) -> dict[str, dict]:
    """Run both classifiers and the control."""
    pairs = pair_up(mock.object_ids, mock.classes, real.object_ids, real.classes, seed)
    same = halves(real.object_ids, real.classes, seed)
    rates, telling = tell_apart_by_statistics(mock.values, real.values, real.classes, pairs, seed)
    return {
        "network": tell_apart(mock.images, real.images, pairs, steps, seed, engine, "mock against real"),
        "control": tell_apart(real.images, real.images, same, steps, seed, engine, "real against real"),
        "regression": rates,
        "telling": telling,
    }


def print_distances(report: dict) -> None:
    """Print the table of distances, each with its floor, and count those above the limit."""
    print("normalised Wasserstein-1 of mock from real galaxies (in brackets: two halves of the real ones)\n")
    print(" " * 18 + "".join(f"{group:>18}" for group in GROUPS))
    counts = [" / ".join(str(n) for n in report["counts"].get(group, {}).values()) or "-" for group in GROUPS]
    print(f"{'galaxies':<18}" + "".join(f"{text:>17} " for text in counts))
    cells = [(name, group, cell) for name, row in report["statistics"].items() for group, cell in row.items()]
    for name, row in report["statistics"].items():
        texts = [
            f"{row[g]['w1']:.3f} ({row[g]['floor']:.3f}){'!' if row[g]['w1'] > LIMIT else ' '}" if g in row else "- "
            for g in GROUPS
        ]
        print(f"{name:<18}" + "".join(f"{text:>18}" for text in texts))
    means = [[cell["w1"] for _, g, cell in cells if g == group] for group in GROUPS]
    print(f"{'mean':<18}" + "".join(f"{f'{np.mean(m):.3f}' if m else '-':>9}{' ' * 9}" for m in means))
    above = sum(cell["w1"] > LIMIT for _, group, cell in cells if group != "all")
    worst = max(cells, key=lambda item: item[2]["w1"])
    print(f"\n{above} of {sum(g != 'all' for _, g, _ in cells)} distances within a class are above {LIMIT}; ", end="")
    print(f"the largest is {worst[2]['w1']:.3f}, {worst[0]} of {worst[1]}")


def print_percentiles(report: dict) -> None:
    """Print percentiles of both samples, and by how many real standard deviations the median is off."""
    heads = [f"{p}th" for p in _PERCENTILES]
    for group in GROUPS:
        rows = {name: row[group] for name, row in report["statistics"].items() if group in row}
        if not rows:
            continue
        print(f"\n{group:<18}" + f"{'mock':>9}" + " " * 18 + f"{'real':>9}" + " " * 18 + "   median")
        print(" " * 18 + "".join(f"{head:>9}" for head in heads * 2) + "   off by")
        for name, cell in rows.items():
            numbers = [*cell["mock"]["percentiles"], *cell["real"]["percentiles"]]
            print(f"{name:<18}" + "".join(f"{number:9.4f}" for number in numbers) + f"{cell['shift']:+9.2f}")


def print_flagged(report: dict) -> None:
    """Print the fractions of flagged measurements."""
    print("\nflagged measurements, mock / real\n\n" + " " * 42 + "".join(f"{group:>15}" for group in GROUPS))
    for text in photometry.FLAG_BITS.values():
        cells = [report["flagged"].get(group) for group in GROUPS]
        shares = [" / ".join(f"{cell[which][text]:.1%}" for which in _WHICH) if cell else "-" for cell in cells]
        print(f"{text:<42}" + "".join(f"{share:>15}" for share in shares))


def print_classifiers(report: dict) -> None:
    """Print accuracies and areas under the curve, and the statistics that give the mock away."""
    print("\naccuracy on galaxies not seen in training (0.5: guessing), and area under the curve\n")
    print(" " * 22 + "".join(f"{group:>22}" for group in GROUPS))
    for key, title in (("network", "network"), ("control", "network, real / real"), ("regression", "regression")):
        cells = [report[key].get(group) for group in GROUPS]
        texts = [f"{c['accuracy']:.3f} ± {c['standard_error']:.3f}, {c['auc']:.3f}" if c else "-" for c in cells]
        print(f"{title:<22}" + "".join(f"{text:>22}" for text in texts))
    pairs = [str(report["network"][group]["pairs"]) if group in report["network"] else "-" for group in GROUPS]
    print(f"{'pairs in the test':<22}" + "".join(f"{text:>22}" for text in pairs))
    print("\nstatistics that give the mock away most (AUC of the regression that is lost without each)")
    for group, losses in report["telling"].items():
        print(f"{group:<12}" + ", ".join(f"{name} {loss:.3f}" for name, loss in list(losses.items())[:_NAMED]))


if __name__ == "__main__":
    run_script(main)
