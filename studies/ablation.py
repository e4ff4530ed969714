"""Train the same GAN with one thing changed at a time, on equally many images, and say what each thing buys.

    python studies/ablation.py --data data/gz2 --steps 20000
    python studies/ablation.py --data data/real --steps 3000 --seeds 1 --arms both regression --also "--width 32"

Every arm is a run of galaxy.py and a report of evaluate.py, for each seed. All lie in the folder --out, with the log of
each; what is finished there is kept, so that the same command goes on where it was stopped. At the end evaluate.py
compare lays the reports side by side, and from its figures are made table.md and ablation.json, the mean over the seeds
with their standard deviation, and ablation.png, a point a seed. --arms can be given anew with more arms.
"""

from __future__ import annotations

import csv
import math
import re
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import Config
from galaxies.command_line import Parser, add_device_option, need_packages, run_script
from galaxies.common.durable_files import plain_errors, whole_file, write_whole
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import check_folder
from galaxies.common.parsing import whole_number
from galaxies.datasets.prepared import PreparedDataset
from studies import runs as script_runs

# What each arm changes from the defaults, in options of galaxy.py: first the parts of the physics, alone and together,
# then the training, the networks and the losses, all with the whole of the physics.
_NO_LOSS = "--physics-weight 0 --photometry-weight 0"
_NO_READING = "--regression-weight 0"
_ADAPTIVE = "--augment-discriminator adaptive"
_PAIRS = "--adversarial relativistic --r2-weight 0.2"
ARMS = {
    "none": f"{_NO_LOSS} {_NO_READING}",
    # The original document's physics loss.
    "predictor": f"--physics-weight 3 --no-uncertainty --photometry-weight 0 {_NO_READING}",
    "photometry": f"--physics-weight 0 {_NO_READING}",
    "both": _NO_READING,
    "regression": _NO_LOSS,
    "all": "",
    "steady": "--decay 0",
    "smooth": "--no-pixel-noise",
    "dcgan": "--generator transposed --discriminator dcgan --r1-weight 0 --no-pixel-noise",
    "relativistic": _PAIRS,
    "adaptive": _ADAPTIVE,
    "residual": f"--generator residual --discriminator residual {_PAIRS} {_ADAPTIVE}",
}
# The figures of evaluate.py compare that stand in the table and the picture.
_SHOWN = (
    r".*, photometry: (mae|spearman).*",
    r".*, judge: spearman",
    r".*: gaming gap",
    r"class accuracy, generated",
    r"statistics, all: .*",
    r"(judge|statistics|random): frechet.*",
    r"real or fake: accuracy",
    r"suspected copies",
    r"variety, all",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    need_packages("scipy", "sklearn", "matplotlib", "jinja2")
    data, out = PreparedDataset.open(options.data), options.out.resolve()
    settings = {
        "data_sha256": data.manifest["sha256"],
        "steps": options.steps,
        "pretrain_steps": options.pretrain_steps,
        "batch_size": options.batch_size,
        "count": options.count,
        "also": options.also,
    }
    check_folder(out, script_runs.STUDY, ("settings.json", "ablation.json", "table.md", "ablation.png"))
    script_runs.hold_to(out / "settings.json", settings)
    length = _length(options, len(data.rows("train")))
    runs = {f"{arm}-{seed}": (arm, seed) for seed in options.seeds for arm in options.arms}
    for run, (arm, seed) in runs.items():
        words = [*length, "--seed", str(seed), *shlex.split(options.also), *shlex.split(ARMS[arm])]
        where = ["--data", options.data.resolve(), "--device", options.device]
        script_runs.train(out, run, [*words, *where])
        script_runs.report(out, run, [*where, "--count", options.count])
    figures = compare(out, list(runs))
    result = summarise(figures, runs)
    text = json_text({"settings": settings, "arms": result}, indent=1) + "\n"
    write_whole(out / "ablation.json", text.encode())
    table = markdown(result)
    write_whole(out / "table.md", table.encode())
    draw(result, out / "ablation.png")
    print(table, end="")
    print(f"wrote {out / 'table.md'}, {out / 'ablation.json'} and {out / 'ablation.png'}")


def _parser() -> Parser:
    parser = Parser(prog="ablation.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset")
    parser.add_argument(
        "--out", type=Path, default=Path("ablation"), metavar="DIR", help="folder of everything (default: ablation)"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="arms to run (default: all)")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=whole_number(0, 2**31 - 1),
        default=[1, 2, 3],
        metavar="N",
        help="seeds of each arm (default: 1 2 3)",
    )
    parser.add_argument(
        "--steps",
        type=whole_number(1, 10**9),
        default=10_000,
        metavar="N",
        help="steps of the GAN, in whole epochs, of every arm alike (default: 10000)",
    )
    parser.add_argument(
        "--pretrain-steps",
        type=whole_number(1, 10**9),
        default=2_000,
        metavar="N",
        help="steps of the predictor, in whole epochs (default: 2000)",
    )
    parser.add_argument(
        "--batch-size",
        type=whole_number(2, 65_536),
        default=Config.batch_size,
        metavar="N",
        help=f"images a step (default: {Config.batch_size})",
    )
    parser.add_argument(
        "--count",
        type=whole_number(20, 100_000),
        default=2000,
        metavar="N",
        help="images that each report is made of (default: 2000)",
    )
    parser.add_argument(
        "--also", default="", metavar="TEXT", help="options of galaxy.py that every arm gets, such as '--width 32'"
    )
    add_device_option(parser)
    return parser


def _length(options: Any, num_train: int) -> list[str]:
    """Return the options that give every arm the same number of images."""
    epochs, pretrain_epochs = (
        script_runs.epochs_of(steps, num_train, options.batch_size) for steps in (options.steps, options.pretrain_steps)
    )
    words = ["--batch-size", options.batch_size, "--epochs", epochs, "--pretrain-epochs", pretrain_epochs]
    return list(map(str, [*words, "--checkpoint-every", epochs]))


def compare(out: Path, runs: list[str]) -> dict[str, dict[str, float | None]]:
    """Return the figures of each run, {run: {figure: value}}, as `evaluate.py compare` gives them."""
    path = out / "figures.csv"
    folders = [str(Path("reports") / run) for run in runs]
    script_runs.call(out, "compare", "evaluate.py", ["compare", *folders, "--out", path])
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    columns = {run: head.index(folder) for run, folder in zip(runs, folders, strict=True)}
    return {run: {row[0]: float(row[k]) if row[k] else None for row in rows} for run, k in columns.items()}


def summarise(
    figures: dict[str, dict[str, float | None]], runs: dict[str, tuple[str, int]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {arm: {figure: values by seed, their mean, and their standard deviation or None}}."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for run, (arm, seed) in runs.items():
        for name, value in figures[run].items():
            if value is not None and math.isfinite(value):
                result.setdefault(arm, {}).setdefault(name, {"seeds": {}})["seeds"][str(seed)] = value
    for cells in result.values():
        for cell in cells.values():
            values = list(cell["seeds"].values())
            cell["mean"] = statistics.fmean(values)
            cell["deviation"] = statistics.stdev(values) if len(values) > 1 else None
    return result


def _shown(result: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the figures that the table shows, in the order of `_SHOWN`."""
    names = list(dict.fromkeys(name for cells in result.values() for name in cells))
    chosen = [name for pattern in _SHOWN for name in names if re.fullmatch(pattern, name)]
    return list(dict.fromkeys(chosen))


def markdown(result: dict[str, dict[str, Any]]) -> str:
    """Return the table: a row for each figure, a column for each arm."""
    lines = ["| | " + " | ".join(result) + " |", "|---|" + "---:|" * len(result)]
    for name in _shown(result):
        cells = []
        for arm in result.values():
            cell = arm.get(name)
            text = "–" if cell is None else f"{cell['mean']:.3g}"
            cells.append(text + (f" ± {cell['deviation']:.2g}" if cell and cell["deviation"] is not None else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(result: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw a panel for each figure: a point a seed, and a line at the mean."""
    from matplotlib.figure import Figure

    names = _shown(result)
    if not names:
        raise UserError("no report has a figure that could be drawn: give a larger --count")
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure((4 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, names, strict=False):
        for place, arm in enumerate(result.values()):
            if cell := arm.get(name):
                values = list(cell["seeds"].values())
                axis.plot([place] * len(values), values, "o", color="#3b8ed0", markersize=5, alpha=0.8)
                axis.plot([place - 0.3, place + 0.3], [cell["mean"]] * 2, color="#d9622b", linewidth=2)
        axis.set_title(name, fontsize=9)
        axis.set_xticks(range(len(result)), list(result), rotation=45, ha="right", fontsize=8)
        axis.tick_params(axis="y", labelsize=8)
        axis.grid(axis="y", alpha=0.3)
    with plain_errors(path), whole_file(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    run_script(main)
