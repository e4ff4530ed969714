"""Time whole epochs of both phases as a run goes through them: steps, metrics, checkpoint and sample grid.

    python benchmarks/epoch.py
    python benchmarks/epoch.py --images 240000

Prints one JSON object. The generator's epochs end with a checkpoint and a sample grid, as every tenth of a run does;
the facts tell how long these take, and what whole epochs amount to for the recipe on 240,000 images. The ratio is to
the plain eager reference, of which a few steps are timed in the same process.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peaks, roofline, timing
from benchmarks.eager_reference import PlainTraining
from benchmarks.training_access import made_data, make_trainer
from benchmarks.training_step import CONFIG_OPTIONS, PHASES, SURVEY, describe_config, has_reference, memory_facts
from galaxies.command_line import Parser, add_config_options, config_from_options, run_script
from galaxies.common import hardware
from galaxies.training.trainer import Trainer


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    config = config_from_options(options)
    data = made_data(max(options.images, config.batch_size))
    # What a run says on standard output would stand in the way of the JSON object.
    with tempfile.TemporaryDirectory(prefix="galaxy-") as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = make_trainer(config, data, Path(folder))
        device, bf16 = trainer.engine.device, trainer.engine.bf16
        machine, peak = hardware.describe(device), peaks.peak_of(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        images = len(data.images) // config.batch_size * config.batch_size
        rows, loops = [], {}
        for phase in PHASES:
            trainer.start_phase(phase)
            # Not in turns with the reference: the run's own clock, which the facts are from, would go on meanwhile.
            works: dict[str, Callable[[], object]] = {"ours": lambda: trainer.run_phase(trainer.epoch + 1)}
            seconds = timing.in_turns(works, options.repeats, device)
            if has_reference(config, options):
                plain = PlainTraining(device, config.batch_size)
                works = {"plain": partial(plain.run, phase, options.reference_steps)}
                seconds |= timing.in_turns(works, options.repeats, device)
            work = (roofline.generator_step if phase == "generator" else roofline.predictor_step)(config, bf16)
            entry = timing.row(
                f"{phase} epoch, {describe_config(config, bf16)}",
                seconds["ours"],
                images,
                reference=seconds.get("plain"),
                reference_images=options.reference_steps * config.batch_size,
                limit=(work.times(images // config.batch_size), peak),
            )
            rows.append(entry)
            loops[phase] = loop_seconds(trainer, phase, options.repeats)
        facts = memory_facts(device)
        rest = rows[-1]["ms"] / 1e3 - loops["generator"]
        facts |= {f"{phase}_epoch_without_checkpoint_s": round(loops[phase], 3) for phase in PHASES}
        facts["checkpoint_and_grid_s"] = round(rest, 3)
        checkpoints = config.epochs // config.checkpoint_every
        epochs = config.pretrain_epochs * loops["predictor"] + config.epochs * loops["generator"]
        hours = (epochs * SURVEY / images + checkpoints * rest) / 3600
        facts |= {"recipe_images": SURVEY, "recipe_hours": float(f"{hours:.4g}")}
    sizes = {name: getattr(config, name) for name in CONFIG_OPTIONS}
    sizes |= {"images": images, "image_px": data.image_size, "bf16": bf16}
    timing.print_result("epoch", machine, sizes, rows, facts)


def _parser() -> Parser:
    parser = Parser(prog="epoch.py", description=__doc__)
    add_config_options(parser, CONFIG_OPTIONS)
    timing.add_timing_options(parser, repeats=3)
    parser.add_argument(
        "--images",
        type=timing.at_least(1),
        default=2048,
        metavar="N",
        help="images of an epoch, at least a batch (default: 2048)",
    )
    parser.add_argument(
        "--reference-steps",
        type=timing.at_least(1),
        default=8,
        metavar="N",
        help="steps of the plain reference that stand for its epoch (default: 8)",
    )
    return parser


def loop_seconds(trainer: Trainer, phase: str, epochs: int) -> float:
    """Return the median time of the steps of the last epochs, by the run's own metrics.

    Parameters
    ----------
    trainer : Trainer
    phase : {"predictor", "generator"}
    epochs : int
        How many of the last epochs to look at.

    Returns
    -------
    float
        Seconds an epoch, without what comes at its end.
    """
    records = [json.loads(line) for line in trainer.log.path.read_text(encoding="utf-8").splitlines()]
    spent: dict[int, float] = {}
    step = 0
    for record in records:
        if record["kind"] == "train" and record["phase"] == phase:
            images = (record["step"] - step) * trainer.config.batch_size
            step = record["step"]
            spent[record["epoch"]] = spent.get(record["epoch"], 0.0) + images / record["images_per_s"]
    return statistics.median(list(spent.values())[-epochs:])


if __name__ == "__main__":
    run_script(main)
