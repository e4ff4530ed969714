r"""Make a release of a trained generator: small weights, a sample sheet, and a model card out of the run's own records.

    python release_checkpoint.py --checkpoint checkpoints/first/latest.pt --report reports/first \
        --data data/gz2 --credit "Sloan Digital Sky Survey; Galaxy Zoo 2 (Willett et al. 2013)" \
        --out checkpoints/released/gan

The folder gets generator.safetensors with generator.json beside it, samples.png and card.md. Weights are stored in
half precision if the images stay the same but for rounding, and else in single precision; they may take 12 MB for a
GAN and 30 MB for a diffusion model. Every number of the card comes from the checkpoint, from the metrics beside it and
from the report; nothing is typed in but the credit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from galaxies.command_line import Parser, run_script
from galaxies.common.durable_files import plain_errors
from galaxies.common.errors import UserError
from galaxies.common.outputs import RELEASE, check_folder, output_folder

if TYPE_CHECKING:
    from torch import Tensor

# Of the weights of each family, by `Config.family`: what a clone of the repository can bear.
LARGEST_BYTES = {"GAN": 12_000_000, "diffusion": 30_000_000}
_COMPARED = 32  # images that must stay the same in half precision


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="checkpoint of the run")
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="its report by evaluate.py report")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="dataset that it was trained on")
    parser.add_argument("--credit", required=True, metavar="TEXT", help="whom the data are owed to")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the release")
    options = parser.parse_args(argv)

    inputs = (options.checkpoint, options.report, options.data)
    check_folder(options.out, RELEASE, RELEASE.files, inputs)

    import torch

    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.generation.build import config_of
    from galaxies.generation.sampler import GalaxySampler
    from galaxies.images.grids import save_picture
    from galaxies.storage.checkpoint import load_checkpoint
    from galaxies.storage.release import choose_precision, write_release
    from galaxies.storage.schema import RUN_STATE
    from galaxies.training.display import sample_grid
    from galaxies.validation.report.model_card import report_about, training_facts, write_card

    state = load_checkpoint(options.checkpoint, RUN_STATE)
    report = report_about(options.report, state)
    manifest = PreparedDataset.open(options.data).manifest
    if manifest["sha256"] != state["provenance"]["sha256"]:
        raise UserError(f"{options.data} is not the dataset that {options.checkpoint} was trained on")
    facts = training_facts(options.checkpoint, state)
    precision, difference, size = choose_precision(state, _draw)
    family = config_of(state, options.checkpoint).family
    if size > LARGEST_BYTES[family]:
        limit = f"the {LARGEST_BYTES[family] / 1e6:g} that a release of family {family} may"
        raise UserError(f"the weights take {size / 1e6:.1f} MB, more than {limit}: train a narrower network")
    facts |= {"precision": precision, "half_precision_difference": difference, "credit": options.credit}
    with output_folder(options.out, RELEASE, RELEASE.files, inputs) as folder, plain_errors(options.out):
        weights = write_release(state, folder, getattr(torch, precision), facts)
        sampler = GalaxySampler.from_checkpoint(weights, "cpu")
        save_picture(sample_grid(sampler, f"{state['config']['run']}: {sampler.describe()}"), folder / "samples.png")
        write_card(folder / "card.md", state, sampler.describe(), facts, manifest, report, size)
    print(f"released {options.out}: {size / 1e6:.2f} MB, {precision}")


def _draw(weights: Path) -> Tensor:
    """Draw what is compared: galaxies of all classes of the training data in turn, from a release's weights.

    In grey levels; those of flux are of the stretched image, since a picture for people would hide its faint light.
    """
    import torch

    from galaxies.generation.sampler import GalaxySampler
    from galaxies.images.stretch import AsinhStretch

    sampler = GalaxySampler.from_checkpoint(weights, "cpu")
    present = [i for i in range(len(sampler.config.classes)) if len(sampler.population.members(i))]
    classes = torch.tensor([present[k % len(present)] for k in range(_COMPARED)])
    unset = torch.full((_COMPARED, len(sampler.attributes)), math.nan)
    seeds = list(range(_COMPARED))
    images = sampler.generate(classes, sampler.complete_all(classes, unset, seeds), seeds)
    if sampler.config.kind == "display":
        return images
    return (AsinhStretch(torch.tensor(sampler.config.softening))(images) + 1) * 127.5


if __name__ == "__main__":
    run_script(main)
