"""Ask for spirals with one, two, three and four arms, and say how many they have.

    python prepare_data.py simulated --count 8192 --seed 0 --out data/simulated
    python prepare_data.py simulated --count 8192 --seed 1 --out data/more
    python galaxy.py --data data/simulated --attributes size,brightness,ellipticity,arm_count --run arms
    python studies/arm_requests.py --checkpoint checkpoints/arms/latest.pt --data data/simulated --judge-data data/more

Every request has what a spiral of the test split has that is seen nearly face-on, but for its number of arms. Two
instruments count: a judge, a network that learned the numbers on spirals of the survey --judge-data, which neither the
generator nor its predictor saw, and `galaxies/measure/arms.py`. Printed is for each how often a number that was asked
for is read, in parts of 1, and the same of the test split's own spirals, seen nearly face-on, with their true numbers:
no generator can be seen to do better. The picture shows the first requests of each number, a number a row.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common.durable_files import write_whole
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import check_folder
from galaxies.common.parsing import whole_number
from galaxies.datasets.layout import DISPLAY, DataLayout
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.grids import labelled_grid, save_picture
from galaxies.images.resampling import dihedral
from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, measure_images
from galaxies.validation.classifier_training import train_classifier
from galaxies.validation.judge import JudgeNetwork, move_at_random
from galaxies.validation.viewing import DISPLAY_VIEWER
from studies.runs import STUDY

NUMBERS = (1, 2, 3, 4)  # of arms, as the mock survey draws them
READ = ("1", "2", "3", "4", "more", "none")  # what `arms.py` can say
FILES = ("arm_requests.json", "arm_requests.png")
FACE_ON_RATIO = 0.7  # b/a, from which on a disc shows its face
_SHOWN = 8
_BATCH, _WIDTH = 32, 16  # of the judge


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    check_folder(options.out, STUDY, FILES, (options.checkpoint, options.data, options.judge_data))
    torch.set_num_threads(1)
    sampler = GalaxySampler.from_checkpoint(options.checkpoint, options.device)
    if "arm_count" not in sampler.config.attributes:
        raise UserError(f"{options.checkpoint} knows no number of arms: train with --attributes arm_count and others")
    data, others = PreparedDataset.open(options.data), PreparedDataset.open(options.judge_data)
    if data.manifest["sha256"] == others.manifest["sha256"]:
        raise UserError(f"the judge would learn from {options.data} itself: simulate another one with another --seed")
    if sampler.config.image_size != data.image_size or data.image_size != others.image_size:
        raise UserError(f"{options.checkpoint}, {options.data} and {options.judge_data} differ in their pixels a side")
    rows, numbers = face_on_spirals(data, "test")
    judge = train_arm_judge(*spirals_of(others), options.steps, options.seed)
    report: dict[str, Any] = {"checkpoint": str(options.checkpoint), "data": str(options.data)}
    report["real"] = confusions(torch.from_numpy(data.images[rows]), numbers, judge)
    requests, asked = requests_for(sampler, data, rows, options.count, options.seed)
    images = sampler.generate(requests.classes, requests.values, requests.seeds)
    report["generated"] = confusions(images, asked, judge)
    for name, words in (("real", "test galaxies, true number"), ("generated", "generated, number asked for")):
        print_confusions(words, report[name])
    first = [images[torch.from_numpy(np.flatnonzero(asked == k)[:_SHOWN])] for k in NUMBERS]
    options.out.mkdir(parents=True, exist_ok=True)
    save_picture(labelled_grid(first, [f"{k}" for k in NUMBERS]), options.out / FILES[1])
    write_whole(options.out / FILES[0], (json_text(report, indent=1) + "\n").encode())
    print(f"wrote {options.out / FILES[0]} and {FILES[1]}")


def _parser() -> Parser:
    parser = Parser(prog="arm_requests.py", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="checkpoint of a training run")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="mock survey that it was trained on")
    parser.add_argument(
        "--judge-data", type=Path, required=True, metavar="DIR", help="mock survey of another seed, for the judge"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("samples/arm_requests"), metavar="DIR", help="default: samples/arm_requests"
    )
    parser.add_argument(
        "--count", type=whole_number(10, 10_000), default=100, metavar="N", help="requests a number (default: 100)"
    )
    parser.add_argument(
        "--steps", type=whole_number(1, 100_000), default=2000, metavar="N", help="batches of 32 the judge learns from"
    )
    parser.add_argument("--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="N", help="of all random draws")
    add_device_option(parser)
    return parser


def face_on_spirals(data: PreparedDataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (N,) of a split's spirals that are seen nearly face-on, and how many arms they have.

    Raises
    ------
    UserError
        If the dataset is no mock survey of pictures that tells its arms, or has no such spiral.
    """
    needed = ("arm_count", "true_axis_ratio")
    if data.layout.is_flux:
        raise UserError(f"{data.path} holds flux: this study looks at pictures")
    if missing := [name for name in needed if name not in data.catalogue]:
        raise UserError(f"{data.path} has no column {missing[0]}: simulate it again with prepare_data.py simulated")
    rows = data.rows(split)
    number, ratio = (data.catalogue[name].to_numpy(np.float64)[rows] for name in needed)
    chosen = np.isin(number, NUMBERS) & (ratio > FACE_ON_RATIO)
    if not chosen.any():
        raise UserError(f"{data.path} has no spiral that is seen nearly face-on in its {split} split")
    return rows[chosen], number[chosen].astype(np.int64)


def spirals_of(data: PreparedDataset) -> tuple[Tensor, Tensor]:
    """Return all spirals of a mock survey: images (N, 3, S, S) uint8, and places in `NUMBERS` (N,)."""
    if "arm_count" not in data.catalogue:
        raise UserError(f"{data.path} has no column arm_count: simulate it again with prepare_data.py simulated")
    number = data.catalogue["arm_count"].to_numpy(np.float64)
    rows = np.flatnonzero(np.isin(number, NUMBERS))
    if len(np.unique(number[rows])) < len(NUMBERS):
        raise UserError(f"{data.path} has not spirals of every number of arms: simulate more galaxies")
    return torch.from_numpy(data.images[rows]), torch.from_numpy(number[rows].astype(np.int64) - NUMBERS[0])


def train_arm_judge(images: Tensor, places: Tensor, steps: int, seed: int) -> JudgeNetwork:
    """Train a judge of the number of arms, all numbers equally often, turned and mirrored at random."""
    random = torch.Generator().manual_seed(seed)
    weights = 1.0 / torch.bincount(places, minlength=len(NUMBERS))[places]
    layout = DataLayout(DISPLAY.kind, DISPLAY.bands, tuple(f"{k} arms" for k in NUMBERS))

    def draw_loss(network: JudgeNetwork) -> Tensor:
        chosen = torch.multinomial(weights, _BATCH, True, generator=random)
        batch = move_at_random(DISPLAY_VIEWER.linear(images[chosen]), random)
        return F.cross_entropy(network(batch)[0], places[chosen])

    return train_classifier(lambda: JudgeNetwork(1, _WIDTH, layout), draw_loss, steps, seed, title="judge").network


@torch.inference_mode()
def read_numbers(judge: JudgeNetwork, images: Tensor) -> np.ndarray:
    """Return the number of arms (N,) that the judge sees in images (N, 3, S, S) uint8, over flips and quarter turns."""
    found = []
    for part in images.split(128):
        light = DISPLAY_VIEWER.linear(part)
        turns = (torch.full((len(part),), turn) for turn in range(8))
        found.append(sum(judge(dihedral(light, turn))[0].softmax(1) for turn in turns).argmax(1))
    return torch.cat(found).numpy() + NUMBERS[0]


def requests_for(
    sampler: GalaxySampler, data: PreparedDataset, rows: np.ndarray, count: int, seed: int
) -> tuple[Requests, np.ndarray]:
    """Ask `count` times for each number of arms, else for what spirals of these rows have; return the numbers, too.

    For every number the galaxies, and the seeds, are the same.
    """
    names = sampler.config.attributes
    taken = np.resize(np.random.default_rng(seed).permutation(rows), count)
    values = torch.from_numpy(data.attributes(names, taken)).float().repeat(len(NUMBERS), 1)
    asked = np.repeat(NUMBERS, count)
    values[:, names.index("arm_count")] = torch.from_numpy(asked).float()
    classes = torch.full((len(asked),), sampler.config.classes.index("spiral"))
    return Requests(classes, values, np.tile(np.arange(seed, seed + count), len(NUMBERS))), asked


def confusions(images: Tensor, numbers: np.ndarray, judge: JudgeNetwork) -> dict[str, Any]:
    """Return what both instruments read off images (N, 3, S, S) of galaxies with these numbers (N,)."""
    measured = measure_images(images, "cpu", "measuring", MORPHOLOGY_STATISTICS).values
    count = np.nan_to_num(measured["arm_count"], nan=0).astype(np.int64)
    seen = np.nan_to_num(measured["arm_strength"], nan=0) > VISIBLE_ARMS
    by_arms = np.where(seen, np.minimum(count, len(NUMBERS) + 1), len(NUMBERS) + 2)
    return {
        "judge": confusion(numbers, read_numbers(judge, images), READ[: len(NUMBERS)]),
        "arms.py": confusion(numbers, by_arms, READ),
        "visible": float(seen.mean()),
    }


def confusion(numbers: np.ndarray, read: np.ndarray, words: Sequence[str]) -> dict[str, Any]:
    """Return how often numbers (N,) are read as each of `words`, read (N,) counting them from 1, and how often rightly.

    ``balanced`` is the mean over the numbers, ``right_of_told`` over the galaxies of which a number is read at all.
    """
    rows = {}
    for number in NUMBERS:
        of = read[numbers == number]
        rows[str(number)] = [float((of == k).mean()) if len(of) else None for k in range(1, len(words) + 1)]
    parts = [rows[str(number)][number - 1] for number in NUMBERS]
    told = read <= len(NUMBERS) + 1
    return {
        "columns": list(words),
        "rows": rows,
        "galaxies": {str(number): int((numbers == number).sum()) for number in NUMBERS},
        "right": float((read == numbers).mean()),
        "balanced": float(np.mean([part for part in parts if part is not None])),
        "right_of_told": float((read == numbers)[told].mean()) if told.any() else None,
    }


def print_confusions(words: str, found: dict[str, Any]) -> None:
    """Print the tables of both instruments."""
    for instrument in ("judge", "arms.py"):
        table = found[instrument]
        print(f"\n{words}, read by {instrument}: {table['balanced']:.1%} right on average over the numbers")
        print(f"{'':>8}{'galaxies':>10}" + "".join(f"{column:>8}" for column in table["columns"]))
        for number, row in table["rows"].items():
            cells = "".join(f"{'-' if part is None else f'{part:.2f}':>8}" for part in row)
            print(f"{number:>8}{table['galaxies'][number]:>10}{cells}")
        if instrument == "arms.py" and table["right_of_told"] is not None:
            print(f"{found['visible']:.0%} show arms; of these {table['right_of_told']:.1%} have the number")


if __name__ == "__main__":
    run_script(main)
