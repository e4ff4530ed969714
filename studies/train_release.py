r"""Train the generators that come with the program: both families, with their reports, cards and sample sheets.

    python prepare_data.py gz2 --path GZ2 --out data/gz2
    python prepare_data.py labelled --images CUTOUTS --labels labels.csv --out data/labelled
    python prepare_data.py join --inputs data/gz2 data/labelled --out data/real
    python studies/train_release.py --data data/real \
        --credit "Sloan Digital Sky Survey; Galaxy Zoo 2 (Willett et al. 2013)"

On a CPU that takes an hour and a half of one core for the GAN, an hour for the diffusion model, or both at once where
two commands, each with one of the --families, share two cores (OMP_NUM_THREADS=1). With --device cuda the networks are
wider and trained for longer (--preset): five minutes each on an H200. What is finished is kept: the same command goes
on where it was stopped.

On a machine that is lent for minutes and comes back bare, each call goes on from the files that the last one left in
--out, which are all below 16 MB, and ends in time; the first line packs the data, the last is for the machine at home:

    python studies/train_release.py --pack --data data/real --out pieces
    python studies/train_release.py --device cuda --minutes 9 --out pieces --credit "..."
    python studies/train_release.py --finish --out pieces --credit "..."
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import RELEASED
from galaxies.command_line import Parser, add_device_option, need_packages, run_script
from galaxies.common.errors import UserError
from galaxies.common.outputs import check_folder
from galaxies.common.parsing import finite_number, whole_number

if TYPE_CHECKING:
    from galaxies.datasets.prepared import PreparedDataset
    from studies.pieces import Pieces, Steps
    from studies.runs import Allowance

_STARTED = time.monotonic()  # nothing that takes long has been loaded yet


@dataclass(frozen=True)
class Recipe:
    """How a family is trained.

    Attributes
    ----------
    pretrain_steps, steps : int
        Of the predictor and of the generator.
    batch_size : int
        Images a step.
    options : str
        Further ones of galaxy.py.
    """

    pretrain_steps: int
    steps: int
    batch_size: int
    options: str


PRESETS = ("cpu", "gpu")
# By family and preset. All that a CPU's quick setting would choose is given, so that a preset means one thing anywhere.
FAMILIES: dict[str, dict[str, Recipe]] = {
    "gan": {
        "cpu": Recipe(1_440, 20_000, 32, "--width 32 --balanced"),
        "gpu": Recipe(2_400, 36_000, 64, "--width 64 --balanced"),
    },
    "diffusion": {
        "cpu": Recipe(2_584, 9_044, 16, "--diffusion --width 16 --unet-blocks 1 --balanced"),
        "gpu": Recipe(2_400, 13_600, 64, "--diffusion --width 32 --unet-blocks 2 --balanced"),
    },
}
_CHECKPOINTS = 15  # over the whole of a training


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    started = _STARTED if argv is None else time.monotonic()
    options = _parser().parse_args(argv)
    if not 1e-3 <= options.scale <= 1e3:
        raise UserError(f"--scale is {options.scale:g}: it must lie between 0.001 and 1000")
    in_pieces = options.pack or options.finish or options.minutes is not None
    if options.data is None and (options.pack or not in_pieces):
        raise UserError("--data is missing: name a prepared dataset")
    from studies.runs import STUDY  # here, since it imports torch

    check_folder(options.out, STUDY)
    if options.pack:
        from galaxies.datasets.prepared import PreparedDataset
        from studies.pieces import pack_data

        pack_data(PreparedDataset.open(options.data), options.out, _limit(options))
        return
    if options.credit is None:
        raise UserError("--credit is missing: say whom the data are owed to")
    need_packages("scipy", "sklearn", "matplotlib", "jinja2")
    if in_pieces:
        train_in_pieces(options, started)
    else:
        train_here(options)


def _parser() -> Parser:
    parser = Parser(prog="train_release.py", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="prepared dataset to train on, or one that is packed")
    parser.add_argument("--credit", metavar="TEXT", help="whom the data are owed to")
    parser.add_argument(
        "--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="what to train (default: all)"
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="size of the networks and length of the training (default: gpu on CUDA, else cpu; --out keeps to one)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("release"), metavar="DIR", help="folder of runs and reports (default: release)"
    )
    parser.add_argument(
        "--released",
        type=Path,
        default=Path(__file__).resolve().parent.parent / "checkpoints" / RELEASED,
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
    group = parser.add_argument_group("in pieces", "For a machine that is lent for minutes and carries small files.")
    group.add_argument("--pack", action="store_true", help="only pack the data into --out")
    group.add_argument(
        "--minutes",
        type=_positive,
        metavar="X",
        help="end after so many minutes from the start of this command, and leave in --out what the next one needs",
    )
    group.add_argument(
        "--finish",
        action="store_true",
        help="after the training: make what is missing of report and release, and put them into --out and --released",
    )
    group.add_argument(
        "--file-mb", type=_positive, default=15.9, metavar="X", help="size of a file in --out, at most (default: 15.9)"
    )
    group.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "galaxy-data",
        metavar="DIR",
        help="folder of unpacked data (default: galaxy-data in the folder of temporary files)",
    )
    return parser


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) <= 1e6:
        raise ArgumentTypeError(f"{text} must be above 0, and at most 1000000")
    return value


def _limit(options: Namespace) -> int:
    return max(1, int(1e6 * options.file_mb))


def train_here(options: Namespace) -> None:
    """Train, report and release each family in the folder --out, from where the last call stopped."""
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.validation.report.report_file import read_report
    from galaxies.validation.targets import table, verdicts
    from studies.runs import call, hold_to, latest_checkpoint, report, train

    prepared = PreparedDataset.open(options.data)
    data, out = options.data.resolve(), options.out.resolve()
    settings = _settings(options, out, prepared)
    hold_to(out / "settings.json", settings)
    for family in options.families:
        words = _training(family, settings, len(prepared.rows("train")))
        train(out, family, ["--data", data, "--device", options.device, *words])
        words = ["--data", data, "--count", options.count, "--device", options.device]
        folder = report(out, family, words)
        words = ["--checkpoint", latest_checkpoint(out, family), "--report", folder, "--data", data]
        released = options.released.resolve() / family
        call(out, family, "release_checkpoint.py", [*words, "--credit", options.credit, "--out", released])
        print(f"\n{family}: released in {released}\n\n{table(verdicts(read_report(folder)))}\n")


def _settings(options: Namespace, folder: Path, data: PreparedDataset) -> dict[str, Any]:
    """Return what a folder of runs keeps to; the preset is that which it was begun with, or suits the device."""
    from galaxies.compute.device import Engine
    from studies.runs import begun_with

    on_cuda = Engine.choose(options.device, "fp32").device.type == "cuda"
    preset = options.preset or begun_with(folder / "settings.json").get("preset") or ("gpu" if on_cuda else "cpu")
    sums = data.manifest["sha256"]
    return {"preset": preset, "scale": options.scale, "count": options.count, "data_sha256": sums}


def _training(family: str, settings: dict[str, Any], num_train: int) -> list[object]:
    """Return the options of galaxy.py that a family is trained with."""
    from studies.runs import epochs_of

    recipe = FAMILIES[family][settings["preset"]]
    epochs = epochs_of(round(settings["scale"] * recipe.steps), num_train, recipe.batch_size)
    words = ["--batch-size", recipe.batch_size, *shlex.split(recipe.options)]
    words += ["--pretrain-epochs", epochs_of(recipe.pretrain_steps, num_train, recipe.batch_size), "--epochs", epochs]
    return [*words, "--checkpoint-every", -(-epochs // _CHECKPOINTS)]


def train_in_pieces(options: Namespace, started: float) -> None:
    """Go on from the parts in --out until the time is up, and leave the next ones there; see `studies.pieces`."""
    from galaxies.common.signals import StopSignals
    from studies.pieces import Pieces, held, install, say_what_to_carry
    from studies.runs import Allowance

    out = options.out.resolve()
    allowance = Allowance(float("inf") if options.minutes is None else options.minutes, started)
    with (
        tempfile.TemporaryDirectory(prefix="galaxy-release-") as folder,
        StopSignals(allowance.request_stop),
        held(out),
    ):
        pieces = Pieces(out, Path(folder).resolve(), _limit(options))
        pieces.restore()
        complete = _go_on(options, pieces, allowance)
        if options.finish and complete:
            install(pieces, options.families, options.released.resolve())
            _print_targets(options, out)
        say_what_to_carry(out)
    if allowance.stop_requested:
        print("stopped and saved: the same command goes on", file=sys.stderr)
        sys.exit(130)


def _go_on(options: Namespace, pieces: Pieces, allowance: Allowance) -> bool:
    """Take the next steps of each family in turn, save, and tell whether all are done."""
    from studies.pieces import Steps
    from studies.runs import hold_to

    data = pieces.find_data(options.data, options.cache.resolve(), keep=not options.finish)
    settings = _settings(options, pieces.work, data)
    hold_to(pieces.work / "settings.json", settings, of=pieces.out)
    num_train = len(data.rows("train"))
    every = {family: Steps(pieces, allowance, family) for family in options.families}
    complete = False
    try:
        complete = all(_family(options, every[family], settings, num_train) for family in options.families)
    finally:  # a family that fails has got somewhere, and another may have before it
        pieces.save(list(FAMILIES))
    for steps in every.values():
        print(steps.progress(num_train))
    if not (complete or pieces.num_begun or allowance.stop_requested):
        raise UserError(f"{options.minutes:g} minutes are too few to begin anything: give more --minutes")
    if complete and not options.finish:
        print("all is done: the same command with --finish in place of --minutes puts reports and releases in place")
    return complete


def _family(options: Namespace, steps: Steps, settings: dict[str, Any], num_train: int) -> bool:
    """Take the next steps of a family, and tell whether it is released."""
    where: list[object] = ["--data", steps.pieces.data, "--device", options.device]
    if steps.pieces.is_released(steps.family):
        return True
    if options.finish and not steps.is_trained:
        raise UserError(f"{steps.progress(num_train)}; it is not trained to its end: go on with --minutes")
    if not steps.train([*where, *_training(steps.family, settings, num_train)], where):
        return False
    if not steps.report([*where, "--count", options.count]):
        return False
    return steps.release(["--data", steps.pieces.data, "--credit", options.credit])


def _print_targets(options: Namespace, out: Path) -> None:
    from galaxies.validation.report.report_file import read_report
    from galaxies.validation.targets import table, verdicts

    for family in options.families:
        report = out / "reports" / family
        print(f"\n{family}: released in {options.released / family}, its report in {report}\n")
        print(f"{table(verdicts(read_report(report)))}\n")


if __name__ == "__main__":
    run_script(main)
