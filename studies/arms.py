"""Tell whether people agree with the measured arms and second nuclei: by classes, by votes, and in pictures.

    python studies/arms.py --real data/real --votes data/galaxy_zoo_2/gz2_hart16.csv
    python studies/arms.py --real data/real --mock data/simulated

The first table holds, for each statistic of morphology, its 95th percentile on ellipticals, from which on arms or a
second nucleus count as visible (`VISIBLE_ARMS`, `VISIBLE_NUCLEUS`), the share of each class above it, and how well it
ranks one class above another: the probability that a random galaxy of the one has more than a random one of the other.

With votes of Galaxy Zoo 2 the second table says how the measured arms go with what people saw, which the weighted votes
tell and the debiased ones do not (those say what would be seen from nearby): the strength with the part of all people
who saw a spiral in a disc that is not edge-on, the number of arms with the most votes, the pitch with votes for loosely
wound arms less those for tight ones. With a mock survey the third says how often the measured number of arms is
the drawn one. The pictures show the strongest and the weakest of a class.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import MORPHOLOGY_NAMES
from galaxies.command_line import Parser, run_script
from galaxies.common.durable_files import write_whole
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import check_folder
from galaxies.datasets.prepared import PreparedDataset
from galaxies.images.grids import labelled_grid, save_picture
from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.mergers import VISIBLE_NUCLEUS
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, measure_images
from galaxies.tables.reading import read_table
from galaxies.validation.distances import roc_auc
from studies.instruments import rank_correlation
from studies.runs import STUDY

SHOWN = 24  # galaxies of the strongest and of the weakest
FILES = ("arms.json", "arms.png", "nuclei.png")
STRENGTHS = ("arm_strength", "second_nucleus", "shape_asymmetry", "gini_m20_merger")
PAIRS = (("spiral", "elliptical"), ("spiral", "edge-on"), ("merger", "elliptical"), ("merger", "spiral"))

_FEATURES = "t01_smooth_or_features_a02_features_or_disk_weighted_fraction"
_FACE_ON = "t02_edgeon_a05_no_weighted_fraction"
_SPIRAL = "t04_spiral_a08_spiral_weighted_fraction"
_WINDING = ("t10_arms_winding_a28_tight_weighted_fraction", "t10_arms_winding_a30_loose_weighted_fraction")
_NUMBERS = tuple(f"t11_arms_number_a{30 + k}_{k}_weighted_fraction" for k in (1, 2, 3, 4))
_FACE_ON_RATIO = 0.7  # b/a, from which on a mock disc shows its face
_SEEN, _UNSEEN = 0.5, 0.1  # part of the people who saw arms


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    check_folder(options.out, STUDY, FILES, (options.real,))
    torch.set_num_threads(1)
    data = PreparedDataset.open(options.real)
    if data.layout.is_flux or data.layout.classes != MORPHOLOGY_NAMES:
        raise UserError(f"{options.real} does not hold colour pictures of the classes {', '.join(MORPHOLOGY_NAMES)}")
    every_class = data.classes(np.arange(len(data.images)))
    rng = np.random.default_rng(options.seed)
    parts = [rng.permutation(np.flatnonzero(every_class == k))[: options.count] for k in range(len(MORPHOLOGY_NAMES))]
    rows = np.sort(np.concatenate(parts))
    images, classes = torch.from_numpy(data.images[rows]), every_class[rows]
    measured = measure_images(images, "cpu", "measuring", MORPHOLOGY_STATISTICS)
    report: dict[str, Any] = {
        "real": str(options.real),
        "image_size": data.image_size,
        "classes": by_class(measured.values, classes),
    }
    print_classes(report["classes"])
    if options.votes is not None:
        ids = data.catalogue["object_id"].iloc[rows].astype(str).to_numpy()
        report["votes"] = by_votes(measured.values, read_votes(options.votes, ids))
        print_votes(report["votes"])
    if options.mock is not None:
        report["mock"] = by_truth(PreparedDataset.open(options.mock), options.count, options.seed)
        print_truth(report["mock"])
    for name, statistic, groups in (
        ("arms.png", "arm_strength", ("spiral", "elliptical")),
        ("nuclei.png", "second_nucleus", ("merger", "elliptical")),
    ):
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_picture(sheet(images, measured.values[statistic], classes, groups), path)
        print(f"wrote {path}")
    write_whole(options.out / FILES[0], (json_text(report, indent=1) + "\n").encode())
    print(f"wrote {options.out / FILES[0]}")


def _parser() -> Parser:
    parser = Parser(prog="arms.py", description=__doc__)
    parser.add_argument("--real", type=Path, required=True, metavar="DIR", help="prepared dataset of real galaxies")
    parser.add_argument("--votes", type=Path, metavar="FILE", help="gz2_hart16.csv, for galaxies that it has")
    parser.add_argument("--mock", type=Path, metavar="DIR", help="mock survey of pictures, which knows the arms")
    parser.add_argument(
        "--out", type=Path, default=Path("samples/arms"), metavar="DIR", help="folder to write (default: samples/arms)"
    )
    parser.add_argument(
        "--count", type=int, default=5000, metavar="N", help="most galaxies of a class, at random (default: 5000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random draw (default: 0)")
    return parser


def by_class(values: dict[str, np.ndarray], classes: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return what the classes have of each strength: percentiles, shares above ellipticals' 95th, and rankings."""
    of_class = {
        name: {
            morphology: (column := values[name][classes == k])[np.isfinite(column)]
            for k, morphology in enumerate(MORPHOLOGY_NAMES)
        }
        for name in STRENGTHS
    }
    limits = {"arm_strength": VISIBLE_ARMS, "second_nucleus": VISIBLE_NUCLEUS}
    table: dict[str, dict[str, Any]] = {}
    for name, groups in of_class.items():
        least = min(map(len, groups.values()))
        if least < 2:
            raise UserError("fewer than two galaxies of a class were measured: there is nothing to compare")
        reached = float(np.quantile(groups["elliptical"], 0.95))
        table[name] = {
            "reached_by_ellipticals": reached,
            "visible": limits.get(name),
            "above": {group: float((v > limits.get(name, reached)).mean()) for group, v in groups.items()},
            "percentiles": {group: np.quantile(v, (0.16, 0.5, 0.84)).tolist() for group, v in groups.items()},
            "ranked": {f"{one} over {other}": float(roc_auc(groups[one], groups[other])) for one, other in PAIRS},
        }
    return table


def print_classes(table: dict[str, dict[str, Any]]) -> None:
    """Print the table of classes."""
    head = "".join(f"{name:>12}" for name in MORPHOLOGY_NAMES)
    print(f"{'part above':<18}{'95 % of ell.':>13}{'visible':>9}{head}")
    for name, row in table.items():
        visible = "-" if row["visible"] is None else f"{row['visible']:.3f}"
        above = "".join(f"{share:>12.1%}" for share in row["above"].values())
        print(f"{name:<18}{row['reached_by_ellipticals']:>13.3f}{visible:>9}{above}")
    print(f"\n{'ranked':<18}" + "".join(f"{f'{one} > {other}':>22}" for one, other in PAIRS))
    for name, row in table.items():
        print(f"{name:<18}" + "".join(f"{value:>22.3f}" for value in row["ranked"].values()))


def read_votes(file: Path, ids: np.ndarray) -> pd.DataFrame:
    """Return the votes on galaxies by their ids, NaN where the table has none."""
    wanted = (_FEATURES, _FACE_ON, _SPIRAL, *_WINDING, *_NUMBERS)
    table = read_table(file, ("dr7objid", *wanted), ("dr7objid", *wanted)).cells
    votes = table.set_index("dr7objid")[list(wanted)].apply(pd.to_numeric, errors="coerce")
    return votes[~votes.index.duplicated()].reindex(ids).reset_index(drop=True)


def by_votes(values: dict[str, np.ndarray], votes: pd.DataFrame) -> dict[str, float]:
    """Return how measured arms go with what people saw."""
    saw = (votes[_FEATURES] * votes[_FACE_ON] * votes[_SPIRAL]).to_numpy()
    strength = values["arm_strength"]
    known = np.isfinite(saw) & np.isfinite(strength)
    faces = known & (votes[_FEATURES] * votes[_FACE_ON] > _SEEN).to_numpy()
    seen, unseen = known & (saw > _SEEN), known & (saw < _UNSEEN)
    if min(seen.sum(), unseen.sum(), faces.sum()) < 2:
        raise UserError("the table of votes has fewer than two of these galaxies with arms, or without")
    found = seen & (strength > VISIBLE_ARMS)
    numbers = votes[list(_NUMBERS)].to_numpy()
    told = found & (np.nan_to_num(numbers).max(1) > _SEEN)
    winding = (votes[_WINDING[1]] - votes[_WINDING[0]]).to_numpy()
    wound = found & np.isfinite(winding)
    return {
        "galaxies": int(known.sum()),
        "strength_and_votes": rank_correlation(strength[known], saw[known]),
        "strength_and_votes_of_faces": rank_correlation(strength[faces], votes[_SPIRAL].to_numpy()[faces]),
        "faces": int(faces.sum()),
        "seen_over_unseen": float(roc_auc(strength[seen], strength[unseen])),
        "visible_of_seen": float((strength[seen] > VISIBLE_ARMS).mean()),
        "visible_of_unseen": float((strength[unseen] > VISIBLE_ARMS).mean()),
        "seen": int(seen.sum()),
        "unseen": int(unseen.sum()),
        "same_number": float((values["arm_count"][told] == np.nanargmax(numbers[told], 1) + 1).mean())
        if told.any()
        else float("nan"),
        "numbers_told": int(told.sum()),
        "pitch_and_loose_votes": rank_correlation(np.abs(values["pitch"][wound]), winding[wound])
        if wound.sum() > 2
        else float("nan"),
        "wound": int(wound.sum()),
    }


def print_votes(found: dict[str, float]) -> None:
    """Print how measured arms go with votes."""
    print(f"\n{found['galaxies']} galaxies with votes")
    for text, name in (
        ("rank correlation of strength with the part of people who saw arms", "strength_and_votes"),
        (f"  of {found['faces']} discs that are not edge-on, with the votes for arms", "strength_and_votes_of_faces"),
        (f"{found['seen']} seen by most ranked over {found['unseen']} seen by hardly anybody", "seen_over_unseen"),
        ("  visible arms by the threshold, of the former", "visible_of_seen"),
        ("  and of the latter", "visible_of_unseen"),
        (f"same number of arms, of {found['numbers_told']} with a majority for one", "same_number"),
        (f"rank correlation of pitch with votes for loose arms, of {found['wound']}", "pitch_and_loose_votes"),
    ):
        print(f"{text:<78}{found[name]:>8.3f}")


def by_truth(data: PreparedDataset, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Return how often the number of arms of mock spirals is read, {which: {part, galaxies, and of each number}}."""
    needed = ("arm_count", "true_axis_ratio")
    if missing := [name for name in needed if name not in data.catalogue]:
        raise UserError(f"{data.path} has no column {missing[0]}: simulate it again with prepare_data.py simulated")
    truth = data.catalogue["arm_count"].to_numpy(np.float64)
    rows = np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(np.isfinite(truth)))[:count])
    if not len(rows):
        raise UserError(f"{data.path} has no spirals")
    images = torch.from_numpy(data.images[rows])
    measured = measure_images(images, "cpu", "measuring the mock survey", MORPHOLOGY_STATISTICS).values
    number, right = truth[rows], measured["arm_count"] == truth[rows]
    face_on = data.catalogue["true_axis_ratio"].to_numpy(np.float64)[rows] > _FACE_ON_RATIO
    visible = measured["arm_strength"] > VISIBLE_ARMS
    groups = {
        "spirals": np.ones(len(rows), bool),
        "face-on": face_on,
        "visible": visible,
        "face-on and visible": face_on & visible,
    }
    return {
        name: {"galaxies": int(chosen.sum()), "right": float(right[chosen].mean())}
        | {f"of {k:.0f}": float(right[chosen & (number == k)].mean()) for k in np.unique(number[chosen])}
        for name, chosen in groups.items()
        if chosen.any()
    }


def print_truth(found: dict[str, dict[str, float]]) -> None:
    """Print how often the number of mock arms is read."""
    print("\nnumber of mock arms read right")
    for name, row in found.items():
        each = ", ".join(f"{value:.2f} {text}" for text, value in row.items() if text.startswith("of "))
        print(f"{name:<22}{row['right']:>7.1%} of {row['galaxies']}: {each}")


def sheet(images: torch.Tensor, values: np.ndarray, classes: np.ndarray, groups: tuple[str, str]):
    """Draw the strongest and the weakest of the first class and the strongest of the second, with their values."""
    rows, labels, captions = [], [], []
    for group, word in ((groups[0], "strongest"), (groups[0], "weakest"), (groups[1], "strongest")):
        chosen = np.flatnonzero((classes == MORPHOLOGY_NAMES.index(group)) & np.isfinite(values))
        chosen = chosen[np.argsort(values[chosen], kind="stable")]
        chosen = chosen[:SHOWN] if word == "weakest" else chosen[::-1][:SHOWN]
        for first in range(0, len(chosen), 8):
            part = chosen[first : first + 8]
            rows.append(images[torch.from_numpy(part.copy())])
            labels.append(f"{group}\n{word}" if first == 0 else "")
            captions.append([f"{values[k]:.2f}" for k in part])
    return labelled_grid(rows, labels, captions)


if __name__ == "__main__":
    run_script(main)
