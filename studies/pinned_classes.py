"""Turn galaxies into another class with all else held, and say what stays and what goes.

    python studies/pinned_classes.py --checkpoint checkpoints/released/gan/generator.safetensors

Spirals are drawn as the page draws them, with the attributes of real ones; then with the same seed and the same values
as ellipticals. Photometry and `galaxies/measure/arms.py` look at both pictures. Printed is how far the centroid moved,
what became of size, ellipticity and position angle, how many show arms, and beside it the same of two spirals of the
same values that differ by their seed alone: what would be if nothing but the values held. A galaxy counts where both of
its measurements are sound.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError
from galaxies.common.parsing import whole_number
from galaxies.generation.request_values import class_index
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.statistics_table import (
    ATTRIBUTE_STATISTICS,
    MORPHOLOGY_STATISTICS,
    PLACE_STATISTICS,
    Measured,
    measure_images,
)

_OTHER_SEEDS = 1_000_000  # added to a galaxy's, for one that shares its values alone
_LONG = 0.2  # ellipticity, from which on a position angle says something


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    torch.set_num_threads(1)
    sampler = GalaxySampler.from_checkpoint(options.checkpoint, "cpu")
    if sampler.config.kind == "flux":
        raise UserError("arms are measured on display pictures: name a checkpoint of such")
    before, after = (class_index(name, sampler.config.classes) for name in (options.before, options.after))
    if before == after:
        raise UserError(f"--before and --after are both {options.before}: name two classes")
    seeds = np.arange(options.seed, options.seed + options.count)
    classes = torch.full((options.count,), before)
    values = sampler.complete_all(classes, torch.full((options.count, len(sampler.attributes)), torch.nan), seeds)
    first = _measured(sampler, before, values, seeds)
    print(f"{options.before} to {options.after}, {options.count} seeds; beside it {options.before} of another seed")
    print(f"{'':<52}{'turned':>26}{'other seed':>26}")
    others = _measured(sampler, after, values, seeds), _measured(sampler, before, values, seeds + _OTHER_SEEDS)
    for name, turned, control in zip(NAMES, *(compared(first, other) for other in others), strict=True):
        print(f"{name:<52}{turned:>26}{control:>26}")


def _parser() -> Parser:
    parser = Parser(prog="pinned_classes.py", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="checkpoint of display pictures")
    parser.add_argument(
        "--before", default="spiral", metavar="CLASS", help="class that is drawn first (default: spiral)"
    )
    parser.add_argument(
        "--after", default="elliptical", metavar="CLASS", help="class that it is turned into (default: elliptical)"
    )
    parser.add_argument(
        "--count", type=whole_number(10, 100_000), default=400, metavar="N", help="galaxies (default: 400)"
    )
    parser.add_argument(
        "--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="N", help="of the first galaxy (default: 0)"
    )
    return parser


def _measured(sampler: GalaxySampler, class_: int, values: torch.Tensor, seeds: np.ndarray) -> Measured:
    images = sampler.generate(torch.full((len(seeds),), class_), values, seeds)
    return measure_images(images, statistics=ATTRIBUTE_STATISTICS + PLACE_STATISTICS + MORPHOLOGY_STATISTICS)


NAMES = (
    "soundly measured, both",
    "centroid moved, half-light radii: 50, 90 %",
    "centroid moved, widths of the frame: 50, 90 %",
    "size after / before: 16, 50, 84 %",
    "ellipticity after - before: 16, 50, 84 %",
    f"position angle turned, deg (of e > {_LONG}): 50 %",
    "arms seen before, after",
    "of those with arms: arms gone",
    "of those with arms: strength after / before, 50 %",
)


def compared(before: Measured, after: Measured) -> list[str]:
    """Return what `NAMES` says of the same galaxies before and after, N each."""
    sound = (before.flags == 0) & (after.flags == 0)
    one, two = ({name: column[sound] for name, column in m.values.items()} for m in (before, after))
    moved = np.hypot(*(two[name] - one[name] for name in ("centroid_x", "centroid_y")))
    long = (one["ellipticity"] > _LONG) & (two["ellipticity"] > _LONG)
    turned = np.abs((two["position_angle"] - one["position_angle"] + 90) % 180 - 90)[long]
    strength = [np.nan_to_num(m["arm_strength"], nan=0.0) for m in (one, two)]
    seen = [part > VISIBLE_ARMS for part in strength]
    gone = ~seen[1][seen[0]]
    left = strength[1][seen[0]] / strength[0][seen[0]]
    return [
        f"{sound.sum()} of {len(sound)}",
        _percentiles(moved / one["size"], (50, 90)),
        _percentiles(moved, (50, 90)),
        _percentiles(two["size"] / one["size"], (16, 50, 84)),
        _percentiles(two["ellipticity"] - one["ellipticity"], (16, 50, 84)),
        _percentiles(turned, (50,)),
        f"{100 * seen[0].mean():.0f} %, {100 * seen[1].mean():.0f} %" if len(moved) else "-",
        f"{100 * gone.mean():.0f} % of {len(gone)}" if len(gone) else "-",
        _percentiles(left, (50,)),
    ]


def _percentiles(values: np.ndarray, which: Sequence[int]) -> str:
    return ", ".join(f"{value:.3g}" for value in np.percentile(values, which)) if len(values) else "-"


if __name__ == "__main__":
    run_script(main)
