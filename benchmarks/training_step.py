"""Time a training step of each phase against the plain eager recipe, and against what the device can do at most.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --recipe paper --precision bf16 --images 240000
    python benchmarks/training_step.py --recipe cpu --image-px 128

Prints one JSON object. A row is a phase: the median time of a step (ms), images/s, how many times faster it is than a
step of the plain eager reference of the same batch in the same process (at the default width, which is its own), and
the least time by the shapes of the networks. The facts hold the peak memory of a GPU and what the measured steps amount
to for the whole recipe on 240,000 images. Options that are not listed are those of the recipe.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peaks, roofline, timing
from benchmarks.eager_reference import PlainTraining
from benchmarks.training_access import TOTAL_STEPS, made_data, make_trainer
from config_physics import IMAGE_SIZES, Config
from galaxies.command_line import Parser, add_config_options, config_from_options, run_script
from galaxies.common import hardware
from galaxies.common.errors import UserError

SURVEY = 240_000  # images that the whole recipe is counted for
PHASES = ("predictor", "generator")
CONFIG_OPTIONS = (
    "recipe",
    "width",
    "batch_size",
    "precision",
    "device",
    "generator",
    "batch_norm",
    "pixel_noise",
    "detail_stages",
    "discriminator",
    "adversarial",
    "r2_weight",
    "regression_weight",
    "augment_discriminator",
    "engine",
    "compile",
)

_PERIOD = roofline.PENALTY_EVERY  # steps after which the gradient penalty comes again


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    config = dataclasses.replace(config_from_options(options), image_size=options.image_px)
    data = made_data(max(options.images, config.batch_size), options.image_px)
    num_steps = _PERIOD * options.periods
    with tempfile.TemporaryDirectory(prefix="galaxy-") as folder:
        trainer = make_trainer(config, data, Path(folder))
        device, bf16 = trainer.engine.device, trainer.engine.bf16
        machine, peak = hardware.describe(device), peaks.peak_of(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        plain = PlainTraining(device, config.batch_size) if has_reference(config, options) else None
        rows = []
        for phase in options.phases:
            trainer.start_phase(phase)
            _repeat(lambda: trainer.take_step(TOTAL_STEPS), options.warm_up)
            works: dict[str, Callable[[], object]] = {
                "ours": lambda: _repeat(lambda: trainer.take_step(TOTAL_STEPS), num_steps)
            }
            if plain is not None:
                works["plain"] = partial(plain.run, phase, num_steps)
            seconds = timing.in_turns(works, options.repeats, device)
            count = roofline.generator_step if phase == "generator" else roofline.predictor_step
            what = f"{phase} step, {describe_config(config, bf16)}"
            limit = count(config, bf16), peak
            rows.append(
                timing.row(what, seconds["ours"], config.batch_size, num_steps, seconds.get("plain"), limit=limit)
            )
        facts = {**memory_facts(device), **_recipe_facts(config, rows, options.phases)}
    sizes = {name: getattr(config, name) for name in CONFIG_OPTIONS}
    sizes |= {"images": len(data.images), "image_px": data.image_size, "steps": num_steps, "bf16": bf16}
    timing.print_result("training_step", machine, sizes, rows, facts)
    if config.compile == "on" and not trainer.learner.compiler.active:
        raise UserError("the steps could not be compiled, and ran as they are")


def _parser() -> Parser:
    parser = Parser(prog="training_step.py", description=__doc__)
    add_config_options(parser, CONFIG_OPTIONS)
    timing.add_timing_options(parser)
    parser.add_argument(
        "--phases", nargs="+", choices=PHASES, default=PHASES, help="phases to time (default: both, in their order)"
    )
    parser.add_argument(
        "--images",
        type=timing.at_least(1),
        default=2048,
        metavar="N",
        help="images of the dataset, at least a batch (default: 2048)",
    )
    parser.add_argument(
        "--image-px",
        type=int,
        choices=IMAGE_SIZES,
        default=64,
        help="pixels a side of the images (default: 64, that of the plain reference)",
    )
    parser.add_argument(
        "--periods",
        type=timing.at_least(1),
        default=12,
        metavar="N",
        help=f"timed steps a repeat, in periods of {_PERIOD}, after which the gradient penalty recurs (default: 12)",
    )
    parser.add_argument(
        "--warm-up",
        type=timing.at_least(0),
        default=16,
        metavar="N",
        help="steps before the first timed ones (default: 16)",
    )
    return parser


def _repeat(step: Callable[[], None], count: int) -> None:
    for _ in range(count):
        step()


def has_reference(config: Config, options: argparse.Namespace) -> bool:
    """Tell whether to time the plain reference: it is wanted, and its networks are about as large as ours."""
    same = config.width == Config.width and config.image_size == Config.image_size
    return not options.no_reference and same


def describe_config(config: Config, bf16: bool) -> str:
    """Say in a few words what is trained, as the rows of a table are named."""
    words = [f"{config.recipe} recipe", "bf16" if bf16 else "fp32", f"batch {config.batch_size}"]
    if config.width != Config.width:
        words.append(f"width {config.width}")
    if config.image_size != Config.image_size:
        words.append(f"{config.image_size} px")
    if config.engine != "auto":
        words.append(config.engine)
    if config.compile == "on":
        words.append("compiled")
    return ", ".join(words)


def memory_facts(device: torch.device) -> dict[str, Any]:
    """Return a GPU's peak memory, units of 1e9 bytes: of tensors, and of torch; and all that is in use on it now."""
    if device.type != "cuda":
        return {}
    free, whole = torch.cuda.mem_get_info(device)
    return {
        "peak_tensors_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 3),
        "peak_torch_gb": round(torch.cuda.max_memory_reserved(device) / 1e9, 3),
        "device_used_gb": round((whole - free) / 1e9, 3),
    }


def _recipe_facts(config: Config, rows: list[dict[str, Any]], phases: Sequence[str]) -> dict[str, Any]:
    """Return how long all steps of both phases take on the whole survey, by the measured times."""
    measured = {phase: entry["ms"] for phase, entry in zip(phases, rows, strict=True)}
    if set(measured) != set(PHASES):
        return {}
    steps = {"predictor": config.pretrain_epochs, "generator": config.epochs}
    steps = {phase: epochs * (SURVEY // config.batch_size) for phase, epochs in steps.items()}
    hours = sum(steps[phase] * measured[phase] for phase in PHASES) / 3.6e6
    return {"recipe_images": SURVEY, "recipe_steps": steps, "recipe_hours": float(f"{hours:.4g}")}


if __name__ == "__main__":
    run_script(main)
