r"""Train the generators that come with the program: both families, with their reports, cards and sample sheets.

    python prepare_data.py gz2 --path GZ2 --out data/gz2
    python prepare_data.py labelled --images CUTOUTS --labels labels.csv --out data/labelled
    python prepare_data.py join --inputs data/gz2 data/labelled --out data/real
    python studies/train_release.py --data data/real \
        --credit "Sloan Digital Sky Survey; Galaxy Zoo 2 (Willett et al. 2013)"

The settings are made for a CPU: an hour and a half of one core for the GAN, an hour for the diffusion model, or both at
once where two commands, each with one of the --families, share two cores (OMP_NUM_THREADS=1). With a GPU, --scale 20
trains twenty times as long. What is finished is kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import RELEASED
from galaxies.command_line import Parser, add_device_option, need_packages, run_script
from galaxies.common.errors import UserError
from galaxies.common.hardware import ROOT
from galaxies.common.parsing import finite_number, whole_number

# Steps of the predictor and of the generator, images a step, and further options of galaxy.py.
FAMILIES: dict[str, tuple[int, int, int, str]] = {
    "gan": (1_440, 20_000, 32, "--width 32 --balanced"),
    "diffusion": (2_584, 9_044, 16, "--diffusion --width 16 --unet-blocks 1 --balanced"),
}
_CHECKPOINTS = 15  # over the whole of a training


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset to train on")
    parser.add_argument("--credit", required=True, metavar="TEXT", help="whom the data are owed to")
    parser.add_argument(
        "--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="what to train (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("release"), metavar="DIR", help="folder of runs and reports (default: release)"
    )
    parser.add_argument(
        "--released",
        type=Path,
        default=ROOT / "checkpoints" / RELEASED,
        metavar="DIR",
        help="folder of the releases, one a family (default: checkpoints/released)",
    )
    parser.add_argument(
        "--scale", type=finite_number, default=1.0, metavar="X", help="times the usual number of steps (default: 1)"
    )
    parser.add_argument(
        "--count",
        type=whole_number(20, 100_000),
        default=1000,
        metavar="N",
        help="images that each report is made of (default: 1000)",
    )
    add_device_option(parser)
    options = parser.parse_args(argv)
    if not 1e-3 <= options.scale <= 1e3:
        raise UserError(f"--scale is {options.scale:g}: it must lie between 0.001 and 1000")
    need_packages("scipy", "sklearn", "matplotlib", "jinja2")

    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.validation.report.report_file import read_report
    from galaxies.validation.targets import table, verdicts
    from studies.runs import call, epochs_of, hold_to, latest_checkpoint, report, train

    prepared = PreparedDataset.open(options.data)
    num_train = len(prepared.rows("train"))
    data, out = options.data.resolve(), options.out.resolve()
    settings = {"scale": options.scale, "count": options.count, "data_sha256": prepared.manifest["sha256"]}
    hold_to(out / "settings.json", settings)
    for family in options.families:
        pretrain, steps, batch_size, more = FAMILIES[family]
        epochs = epochs_of(round(options.scale * steps), num_train, batch_size)
        words = ["--data", data, "--device", options.device, "--batch-size", batch_size, *shlex.split(more)]
        words += ["--pretrain-epochs", epochs_of(pretrain, num_train, batch_size), "--epochs", epochs]
        train(out, family, [*words, "--checkpoint-every", -(-epochs // _CHECKPOINTS)])
        words = ["--data", data, "--count", options.count, "--device", options.device]
        folder = report(out, family, words)
        words = ["--checkpoint", latest_checkpoint(out, family), "--report", folder, "--data", data]
        released = options.released.resolve() / family
        call(out, family, "release_checkpoint.py", [*words, "--credit", options.credit, "--out", released])
        print(f"\n{family}: released in {released}\n\n{table(verdicts(read_report(folder)))}\n")


if __name__ == "__main__":
    run_script(main)
