"""Tell whether people agree with the rules for clear examples: of which class real galaxies are that a rule holds for.

    python studies/clear_examples.py --real data/gz2

The class mode takes, of the galaxies that are drawn of a class, those that the class's rule holds for (`CLEAR`). Here
the rules choose among real galaxies of all classes together, which is harder: nobody asked for a class.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import MORPHOLOGY_NAMES
from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.measure.statistics_table import measure_images
from galaxies.serving.examples import CLEAR, SEEN_STATISTICS


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    data = PreparedDataset.open(options.real)
    if data.layout.is_flux or data.layout.classes != MORPHOLOGY_NAMES:
        raise UserError(f"{options.real} does not hold colour pictures of the classes {', '.join(MORPHOLOGY_NAMES)}")
    classes = data.classes(np.arange(len(data.images)))
    for line in table(torch.from_numpy(np.array(data.images)), classes):
        print(line)


def _parser() -> Parser:
    parser = Parser(prog="clear_examples.py", description=__doc__)
    parser.add_argument("--real", type=Path, required=True, metavar="DIR", help="prepared dataset of real galaxies")
    return parser


def table(images: torch.Tensor, classes: np.ndarray) -> list[str]:
    """Return lines of a table: for each rule how many galaxies (N, 3, S, S) uint8 of each class it holds for."""
    measured = measure_images(images, "cpu", "measuring", SEEN_STATISTICS)
    lines = [f"{'rule':<12}" + "".join(f"{name:>12}" for name in MORPHOLOGY_NAMES) + f"{'of the class':>14}"]
    for name, rule in CLEAR.items():
        held = np.bincount(classes[rule.holds(measured)], minlength=len(MORPHOLOGY_NAMES))
        share = held[MORPHOLOGY_NAMES.index(name)] / held.sum() if held.sum() else float("nan")
        lines.append(f"{name:<12}" + "".join(f"{count:>12}" for count in held) + f"{share:>14.1%}")
    whole = np.bincount(classes, minlength=len(MORPHOLOGY_NAMES))
    return [*lines, f"{'all':<12}" + "".join(f"{count:>12}" for count in whole)]


if __name__ == "__main__":
    run_script(main)
