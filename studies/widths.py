r"""Train the diffusion model at several widths for a few hundred steps each, with its defaults: does every width learn?

    python studies/widths.py --data data/gz2 --out widths.json
    python studies/widths.py --data data/gz2 --out widths.json --widths 64 --before

Each width gets the same images in the same order, with the same noise, as a run of so many steps would; the predictor
that judges its images has had 60 steps. `--before` trains by the recipe of before: one step size of 2e-3 for all
weights of all widths, from the first step on. The file keeps the denoising loss and the gradient's norm of every step;
widths that it holds already are not trained again. Ends with a table, and with status 1 if the loss of a width did not
fall, a gradient was not finite, or a wider one lost more than width 16.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import Config
from galaxies.command_line import Parser, run_script
from galaxies.common.durable_files import write_whole
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import check_file, has_bytes
from galaxies.common.reading import read_json
from galaxies.common.schema import anything, items
from galaxies.datasets.prepared import PreparedDataset
from galaxies.recipes import DIFFUSION_RECIPES
from galaxies.training.trainer import Trainer

_PREDICTOR_STEPS = 60
_BEFORE = {"warmup": 0, "learning_rate_width": 0}
_TOLERANCE = 0.01  # of the loss: two widths that differ by less are as good as each other


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="widths.py", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the prepared dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="where the results go, and stay")
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32, 64], metavar="N")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="of each width (default: 300)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="images a step (default: 16)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the CPU (default: 1)")
    parser.add_argument("--device", default="cpu", metavar="D")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--before", action="store_true", help="train by the recipe of before")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    data = PreparedDataset.open(options.data)
    check_file(options.out, has_bytes(b'[{"width": '))
    results = read_json(options.out, items(anything())) if options.out.exists() else []
    for width in options.widths:
        config = Config(
            diffusion=True,
            width=width,
            image_size=data.image_size,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            **DIFFUSION_RECIPES["default"] | (_BEFORE if options.before else {}),
        )
        asked = {
            "width": width,
            "recipe": "before" if options.before else "default",
            "steps": options.steps,
            "batch_size": options.batch_size,
            "unet_blocks": config.unet_blocks,
            "precision": options.precision,
            "device": options.device,
            "threads": options.threads,
        }
        if not any(asked.items() <= result.items() for result in results):
            results.append(asked | train(config, data, options.steps))
            write_whole(options.out, (json_text(results) + "\n").encode())
    print(table(results))
    if faults := [fault for result in results if result["recipe"] == "default" for fault in judge(result, results)]:
        print("\n".join(faults))
        sys.exit(1)


def train(config: Config, data: PreparedDataset, steps: int) -> dict[str, Any]:
    """Train a width, and return the loss and the norm of each step, None where one was not finite."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, data, Path(folder), Path(folder))
    for _ in range(_PREDICTOR_STEPS):
        trainer.take_step(_PREDICTOR_STEPS)
    trainer.start_phase("generator")
    losses, norms, start = [], [], time.monotonic()
    for _ in tqdm(range(steps), desc=f"width {config.width}"):
        trainer.take_step(steps)
        means = trainer._steps.interval.read().means
        trainer._steps.interval.clear()
        losses.append(means.get("denoising"))
        norms.append(means.get("grad_norm"))
    seconds = (time.monotonic() - start) / steps
    return {"losses": losses, "norms": norms, "seconds_a_step": round(seconds, 3)}


def mean_loss(result: dict[str, Any], part: slice) -> float:
    """Return the mean of the finite losses of some steps; NaN where there is none."""
    found = [loss for loss in result["losses"][part] if loss is not None]
    return statistics.fmean(found) if found else math.nan


def last_loss(result: dict[str, Any]) -> float:
    """Return the mean loss of the last third of the steps."""
    return mean_loss(result, slice(-(result["steps"] // 3), None))


def judge(result: dict[str, Any], results: Sequence[dict[str, Any]]) -> list[str]:
    """Say in sentences what is wrong with one width's training, beside those of the other widths."""
    name, faults = f"width {result['width']}", []
    if not last_loss(result) < 0.9 * mean_loss(result, slice(0, max(1, result["steps"] // 30))):
        faults.append(f"{name}: the loss did not fall")
    if bad := sum(norm is None for norm in result["norms"]):
        faults.append(f"{name}: {bad} steps were not finite")
    alike = [r for r in results if all(r[k] == result[k] for k in ("recipe", "steps", "batch_size", "precision"))]
    for other in alike:
        if other["width"] == 16 < result["width"] and last_loss(result) > last_loss(other) + _TOLERANCE:
            faults.append(f"{name}: the loss is {last_loss(result):.4f}, and {last_loss(other):.4f} at width 16")
    return faults


def table(results: Sequence[dict[str, Any]]) -> str:
    """Lay the results side by side, in Markdown."""
    rows = [
        "| width | recipe | batch | first tenth | last third | not finite | largest norm | s a step |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in sorted(results, key=lambda r: (r["recipe"], r["width"])):
        finite = [norm for norm in r["norms"] if norm is not None]
        first = mean_loss(r, slice(0, max(1, r["steps"] // 10)))
        rows.append(
            f"| {r['width']} | {r['recipe']} | {r['batch_size']} | {first:.3f} | {last_loss(r):.4f} "
            f"| {len(r['norms']) - len(finite)} | {max(finite, default=math.nan):.2f} | {r['seconds_a_step']:.2f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    run_script(main)
