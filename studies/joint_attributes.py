"""Hold attributes that are drawn together against those of real galaxies: shares of classes, correlations, support.

    python prepare_data.py labelled --images FOLDER --labels labels.csv --out data/real
    python studies/joint_attributes.py --data data/real --attributes size,brightness,ellipticity,redshift

Galaxies are drawn as `generate_from_checkpoint.py --draw copula` draws them, from the training split; no network is
needed. Printed is one JSON object: for each class how many galaxies know what, the largest and the mean absolute
difference of rank correlations (Spearman), drawn from real, of pairs that at least 100 galaxies know, and the same of
real galaxies from real ones that are drawn anew with replacement, which is what chance alone does.
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

from galaxies.command_line import Parser, run_script
from galaxies.common.json_writing import json_text
from galaxies.common.parsing import whole_number
from galaxies.datasets.copula import JointDistribution
from galaxies.datasets.population import Population
from galaxies.datasets.prepared import PreparedDataset

_LEAST_PAIRS = 100  # galaxies that know both attributes of a pair


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="joint_attributes.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset")
    parser.add_argument(
        "--attributes",
        default="size,brightness,ellipticity,redshift",
        metavar="LIST",
        help="attributes, separated by commas (default: size,brightness,ellipticity,redshift)",
    )
    parser.add_argument(
        "--count", type=whole_number(1000, 10**7), default=20_000, metavar="N", help="galaxies (default: 20000)"
    )
    options = parser.parse_args(argv)
    data = PreparedDataset.open(options.data)
    names = tuple(options.attributes.split(","))
    rows = data.rows("train")
    values = torch.from_numpy(data.attributes(names, rows)).float()
    real = Population.sample(torch.from_numpy(data.classes(rows)), values, 0)
    joint = JointDistribution(real, data.layout.classes)
    classes, drawn = joint.draw(range(options.count))
    report: dict[str, Any] = {
        "attributes": names,
        "drawn": len(classes),
        "like_real": float((real.support(classes, drawn).verdicts == 0).double().mean()),
    }
    for index in classes.unique().tolist():
        mine, theirs = drawn[classes == index].numpy(), real.members(index).numpy()
        report[data.layout.classes[index]] = {
            "real": len(theirs),
            "share_real": len(theirs) / len(real.classes),
            "share_drawn": len(mine) / len(classes),
            **_differences(mine, theirs, names),
        }
    print(json_text(report, indent=1))


def _differences(mine: np.ndarray, theirs: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Compare the rank correlations of drawn (N, A) and real (K, A) galaxies of a class."""
    known = np.isfinite(theirs).astype(int)
    pairs = np.triu((known.T @ known) >= _LEAST_PAIRS, 1)
    wanted = _ranks(theirs)
    again = theirs[np.random.default_rng(0).integers(0, len(theirs), len(theirs))]
    off, chance = (np.abs(_ranks(values) - wanted)[pairs] for values in (mine, again))
    if not pairs.any():
        return {"pairs": 0}
    worst = [(names[a], names[b]) for a, b in np.argwhere(pairs)][int(off.argmax())]
    return {
        "pairs": int(pairs.sum()),
        "largest_difference": float(off.max()),
        "of": worst,
        "mean_difference": float(off.mean()),
        "largest_by_chance": float(chance.max()),
        "mean_by_chance": float(chance.mean()),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    return pd.DataFrame(values).corr("spearman").to_numpy()


if __name__ == "__main__":
    run_script(main)
