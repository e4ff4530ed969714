r"""Draw the same galaxies from one diffusion model with several solvers, and say how far each is from real ones.

    python studies/solvers.py --checkpoint checkpoints/released/diffusion/generator.safetensors --data data/gz2 \
        --out reports/solvers --solvers sde:20 ddpm:1000 --page docs/diffusion.md

Requests and seeds are those of the report's first half: classes and attributes like the test galaxies. Blocks of images
that are drawn already are kept, so that the same command goes on where it was stopped. Writes table.md and table.json;
with --page the table is also put between its two marks of a Markdown file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import SOLVERS
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common.durable_files import plain_errors, whole_file, write_whole
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import check_folder
from galaxies.common.parsing import whole_number
from galaxies.compute.device import Engine
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.requests import Requests, requests_like_test
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.solvers import Solver
from galaxies.measure.statistics_table import measure_images
from galaxies.storage.release import load_state
from galaxies.validation.comparison import compare_features, compare_statistics
from galaxies.validation.report.cells import LeftOut
from galaxies.validation.report.realism import Distance, StatisticsMean
from galaxies.validation.subject import choose_spaces, load_judge, match, real_sample
from studies import families
from studies import runs as script_runs

_BLOCK = 16  # images that are kept together
_SEED = 0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    if options.page and not options.page.is_file():
        raise UserError(f"there is no page {options.page}")
    text = options.page.read_text(encoding="utf-8") if options.page else ""
    state = load_state(options.checkpoint)
    sampler = GalaxySampler.from_state(state, options.checkpoint, options.device)
    if not sampler.config.diffusion:
        raise UserError(f"{options.checkpoint} holds no diffusion model: others have no solver")
    data = PreparedDataset.open(options.data)
    match(sampler, data, options.checkpoint)
    made_of = {"run": state["config"]["run"], "step": state["step"], "data_sha256": data.manifest["sha256"]}
    check_folder(options.out, script_runs.STUDY, ("settings.json", "table.md", "table.json"), (options.data,))
    script_runs.hold_to(options.out / "settings.json", made_of | {"count": options.count})
    asked = requests_like_test(data, sampler.config.attributes, options.count, _SEED)
    real = torch.from_numpy(data.images[real_sample(data, "test", 2 * options.count, _SEED)])
    engine = Engine.choose(options.device, "fp32")
    with engine.kernels():
        spaces = choose_spaces(load_judge(data, options.device), real, engine)
    measured = measure_images(real, title="measuring, real")
    groups = {"all": (np.arange(options.count), np.arange(len(real)))}
    columns: dict[str, dict[str, float | None]] = {}
    for solver in options.solvers:
        images, seconds = draw(sampler, solver, asked, options.out / f"{solver.name}-{solver.num_steps}")
        with engine.kernels():
            features, _ = compare_features(spaces, images, real, _SEED)
        statistics = compare_statistics(measure_images(images, title="measuring"), measured, groups, _SEED)
        cells: dict[str, StatisticsMean | Distance | LeftOut] = {
            "mean Wasserstein-1 of the statistics": statistics.mean["all"]
        }
        cells |= {f"Fréchet distance, {name}": space.frechet for name, space in features.items()}
        rows = {name: None if isinstance(cell, LeftOut) else cell.multiple for name, cell in cells.items()}
        columns[f"{solver.num_steps} steps of {solver.name}"] = rows | {"seconds an image": seconds}
    table = families.table_of(columns)
    write_whole(options.out / "table.md", table.encode())
    write_whole(options.out / "table.json", (json_text(columns, indent=1) + "\n").encode())
    if options.page:
        write_whole(options.page, families.with_table(text, table, options.page, "solvers").encode())
    print(table)


def _parser() -> Parser:
    parser = Parser(prog="solvers.py", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="diffusion model")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset to compare with")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the images and the table")
    parser.add_argument(
        "--solvers",
        nargs="+",
        type=solver_of,
        default=[Solver("sde", 20), Solver("ddpm", 1000)],
        metavar="NAME:STEPS",
        help="sde, dpm, ddim or ddpm, and the number of steps (default: sde:20 ddpm:1000)",
    )
    parser.add_argument(
        "--count",
        type=whole_number(20, 100_000),
        default=500,
        metavar="N",
        help="images of each solver; a space of more features than that is left out (default: 500)",
    )
    parser.add_argument("--page", type=Path, metavar="MD", help="Markdown file that gets the table")
    add_device_option(parser)
    return parser


def solver_of(text: str) -> Solver:
    """Read a solver and its number of steps, as in sde:20."""
    name, _, steps = text.partition(":")
    if name not in SOLVERS or not steps.isdecimal() or not 1 <= int(steps) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text} is not sde, dpm, ddim or ddpm with 1 to 100000 steps, such as sde:20")
    return Solver(name, int(steps))


def draw(sampler: GalaxySampler, solver: Solver, asked: Requests, folder: Path) -> tuple[torch.Tensor, float]:
    """Return images (N, 3, S, S) uint8 by one solver, and the median of the seconds that one took."""
    from tqdm import tqdm

    sampler.solver = replace(sampler.solver, name=solver.name, num_steps=solver.num_steps)
    parts, seconds = [], []
    for start in tqdm(range(0, len(asked), _BLOCK), f"drawing, {solver.name}", unit=" blocks", leave=False):
        path, block = folder / f"{start:06}.npz", asked.part(start, start + _BLOCK)
        if not path.exists():
            begun = time.perf_counter()
            images = sampler.generate(block.classes, block.values, block.seeds)
            spent = (time.perf_counter() - begun) / len(images)
            with plain_errors(path), whole_file(path) as file:
                np.savez(file, images=images.numpy(), seconds=spent)
        with np.load(path) as kept:
            parts.append(torch.from_numpy(kept["images"]))
            seconds.append(float(kept["seconds"]))
    return torch.cat(parts), float(np.median(seconds))


if __name__ == "__main__":
    run_script(main)
