"""Time a step of the diffusion model's training at several widths.

    python benchmarks/diffusion_step.py
    python benchmarks/diffusion_step.py --widths 16 32 64

Prints one JSON object: a row a width. Settings are those of `galaxy.py --diffusion`; how fast such a model draws,
generation.py --diffusion tells.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import roofline, timing
from benchmarks.training_access import TOTAL_STEPS, made_data, make_trainer
from benchmarks.training_step import describe_config, memory_facts
from config_physics import Config
from galaxies.command_line import Parser, add_config_options, config_from_options, run_script
from galaxies.common import hardware
from galaxies.compute.device import Engine
from galaxies.datasets.prepared import PreparedDataset

_OPTIONS = ("batch_size", "unet_blocks", "precision", "device", "engine")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    options.diffusion = True
    usual = config_from_options(options)
    device = Engine.choose(usual.device, usual.precision).device
    data = made_data(max(1024, usual.batch_size))
    rows = []
    for width in options.widths:
        config = dataclasses.replace(usual, width=width)
        rows.append(time_steps(config, data, roofline.PENALTY_EVERY * options.periods, options.repeats))
    sizes = {name: getattr(usual, name) for name in _OPTIONS} | {"widths": options.widths}
    timing.print_result("diffusion_step", hardware.describe(device), sizes, rows, memory_facts(device))


def _parser() -> Parser:
    parser = Parser(prog="diffusion_step.py", description=__doc__)
    add_config_options(parser, _OPTIONS)
    timing.add_timing_options(parser, repeats=3, reference=False)
    parser.add_argument(
        "--widths", nargs="+", type=timing.at_least(8), default=[16], metavar="N", help="of the U-Net (default: 16)"
    )
    parser.add_argument(
        "--periods",
        type=timing.at_least(1),
        default=4,
        metavar="N",
        help=f"timed steps a repeat, in periods of {roofline.PENALTY_EVERY}, as of photometry (default: 4)",
    )
    return parser


def time_steps(config: Config, data: PreparedDataset, count: int, repeats: int) -> dict[str, object]:
    """Return the row of `count` steps of the generator's phase, after as many that set things up."""
    with tempfile.TemporaryDirectory(prefix="galaxy-") as folder:
        trainer = make_trainer(config, data, Path(folder))
        trainer.start_phase("generator")

        def steps() -> None:
            for _ in range(count):
                trainer.take_step(TOTAL_STEPS)

        seconds = timing.in_turns({"steps": steps}, repeats, trainer.engine.device)["steps"]
        what = f"diffusion step, {_described(config, trainer.engine.bf16)}"
    return timing.row(what, seconds, config.batch_size, count)


def _described(config: Config, bf16: bool) -> str:
    words = describe_config(config, bf16)
    return words if "width" in words else f"{words}, width {config.width}"


if __name__ == "__main__":
    run_script(main)
