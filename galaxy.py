"""Train a galaxy generator: first the physics predictor on real images, then the GAN that it constrains.

    python galaxy.py
    python galaxy.py --data data/gz2 --run first --attributes size,brightness,ellipticity --epochs 100
    python galaxy.py --data data/mine --start-from checkpoints/released/gan

Without options it trains on the only dataset under data/; if there is none, it first renders a mock survey there. On
the machine at hand it chooses a recipe, whose settings, time and results are printed before it starts (--recipe chooses
another). Ctrl-C saves; resume_training.py goes on. With --start-from the networks begin with trained weights, and only
what these lack begins anew. Bands and classes are those of the dataset. On flux, attributes are such as magnitude_r,
color_g_r, surface_brightness_r, size_arcsec, ellipticity and redshift; which are taken if none are named is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config_physics import Config
from galaxies.command_line import (
    Parser,
    add_config_options,
    add_time_option,
    config_from_options,
    given_settings,
    run_script,
)
from galaxies.common.errors import UserError
from galaxies.recipes import MACHINES, machine_recipe, machine_settings

if TYPE_CHECKING:
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.training.starting import Start

DATA = Path("data")
_SIMULATED = {"cpu": 4096, "cuda": 16384}  # galaxies of the mock survey, where there are no data
_SIMULATED_FOR_A_TRIAL = 512


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    add_config_options(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check the data, build the networks, take one step of each phase, stop"
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="FILE",
        help="begin with the weights of a release (.safetensors) or of a run's checkpoint (.pt), or of the folder of "
        "one: what fits data and attributes is taken over, with the settings of the networks (default: begin anew)",
    )
    add_time_option(parser)
    options = parser.parse_args(argv)
    if os.environ.get("RANK", "0") != "0":  # the other processes of torchrun would say the same once more
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the process ends
    from galaxies.compute.device import Engine
    from galaxies.datasets.prepared import find_dataset  # torch loads only after the options are known to be right
    from galaxies.training.runs import free_run_name, refuse_existing
    from galaxies.training.starting import Start

    found = find_dataset(DATA, getattr(options, "data", ""))
    start = Start.read(options.start_from) if options.start_from else None
    if found is None:
        if "RANK" in os.environ:
            raise UserError(f"no prepared dataset under {DATA}/: run prepare_data.py before torchrun")
        # Mistakes come to light before a minute is spent on galaxies.
        config = config_from_options(options, start.settings(given_settings(options)) if start else None)
        Engine.choose(config.device, config.precision)
        refuse_existing(config.run or free_run_name("simulated"), options.dry_run)
    if found is not None:
        run(options, found, start)
    elif options.dry_run:
        with tempfile.TemporaryDirectory(prefix="galaxy-") as folder:
            run(options, simulate(Path(folder) / "simulated", _SIMULATED_FOR_A_TRIAL), start)
    else:
        run(options, simulate(DATA / "simulated"), start)


def simulate(out: Path, count: int | None = None) -> Path:
    """Render a mock survey to train on, and say so; by default as many galaxies as suit the machine."""
    from galaxies.datasets.preparing import print_summary
    from galaxies.mock_survey.writing import rendering_device, write_dataset

    device = rendering_device()
    count = count or _SIMULATED[device]
    print(f"no prepared dataset under {DATA}/: rendering {count} simulated galaxies (README.md: how to get real ones)")
    command_line = f"prepare_data.py simulated --count {count} --seed 0 --out {out.as_posix()}"
    print_summary(write_dataset(out, count, seed=0, image_size=64, device=device, command_line=command_line))
    return out


def run(options: argparse.Namespace, path: Path, start: Start | None = None) -> None:
    """Train on the dataset at `path`, from trained weights if there are any to start from."""
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.training.runs import print_settings, train

    data = PreparedDataset.open(path)
    config = resolve_config(options, data, start)
    print_settings(config, data)
    if config.recipe == "paper" and (data.manifest.get("rule"), data.image_size) != ("paper", 64):
        print("note: the original recipe has 64-pixel images of prepare_data.py gz2 --rule paper; these are others")
    train(config, data, options.dry_run, stop_at=options.stop_at, start=start)


def resolve_config(options: argparse.Namespace, data: PreparedDataset, start: Start | None = None) -> Config:
    """Complete the user's options: what the dataset is and can give, a free name, and what suits the machine."""
    from galaxies.common import hardware
    from galaxies.compute.device import Engine
    from galaxies.training.fitting import default_attributes, fit_to_data
    from galaxies.training.runs import free_run_name

    given, image_size, num_train = given_settings(options), data.image_size, len(data.rows("train"))
    if start:
        start.check_kind(data)
    taken = start.settings(given, data) if start else {}
    of_data = data.settings(())
    if start:
        of_data["attribute_definitions"] = start.definitions(data)
        if lost := [] if "attributes" in given else sorted({*start.config.attributes} - {*taken.get("attributes", ())}):
            print(f"left out: {', '.join(lost)} (there is no such column in {data.path})")
    if data.layout.is_flux:
        if given.get("recipe", Config.recipe) == "paper":
            raise UserError(f"the original recipe has colour pictures, and {data.path} holds flux: leave out --recipe")
        if "attributes" not in taken | given:
            of_data["attributes"] = default_attributes(data)
    config = config_from_options(options, taken, **of_data)
    engine = Engine.choose(config.device, config.precision)
    memory_gb = hardware.memory_gb(engine.device)
    if name := machine_recipe(config.recipe, engine.device.type, memory_gb):
        chosen = taken | given
        suited = machine_settings(name, config.family, engine.bf16, num_train, image_size, chosen)
        config = config_from_options(options, taken, **of_data, **suited)
        recipe = MACHINES[name]
        words = f"recipe {name}, for {recipe.machine} and {recipe.duration[config.family]}"
        print(f"{words}: {_as_options(suited)}" if suited else words)
        if not chosen.keys() & (recipe.settings[config.family].keys() | {"pretrain_epochs", "epochs"}):
            print(f"what came of it where it was measured: {recipe.expected[config.family]}")
        print(f"others: --recipe {', '.join(one for one in (*MACHINES, 'full') if one != name)}")
    config, lines = fit_to_data(config, data, given, start.ranges() if start else {})
    if "attributes" in of_data:
        print(f"conditioned on {', '.join(config.attributes)}: --attributes chooses others")
    print(*lines, sep="\n", end="\n" if lines else "")
    run = config.run or free_run_name(data.path.resolve().name)
    return dataclasses.replace(config, run=run, data=data.path.as_posix())


def _as_options(settings: dict[str, Any]) -> str:
    """Write settings as they would be given on a command line."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words.append(f"--{flag} {shlex.quote(','.join(value) if isinstance(value, tuple) else str(value))}")
    return " ".join(words)


if __name__ == "__main__":
    run_script(main)
