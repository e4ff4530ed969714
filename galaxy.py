"""Train a galaxy generator: first the physics predictor on real images, then the GAN that it constrains.

    python galaxy.py
    python galaxy.py --data data/gz2 --run first --attributes size,brightness,ellipticity --epochs 100

Without options it trains on the only dataset under data/; if there is none, it first renders a mock survey there. On
a GPU that is the full recipe; on a CPU it is a quick setting of narrower networks and few epochs, printed before it
starts. Ctrl-C saves; resume_training.py goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from config_physics import Config
from galaxies.command_line import Parser, add_config_options, config_from_options, given_settings, run_script
from galaxies.common.errors import UserError

CHECKPOINTS, SAMPLES, DATA = Path("checkpoints"), Path("samples"), Path("data")
_SIMULATED = {"cpu": 4096, "cuda": 16384}  # galaxies of the mock survey, where there are no data
_SIMULATED_FOR_A_TRIAL = 512

# Under ten minutes on two CPU cores, whatever the number of images: steps of each phase with bf16 and without.
_QUICK = {"width": 32, "batch_size": 32}
_QUICK_STEPS = {True: {"pretrain_epochs": 1500, "epochs": 3000}, False: {"pretrain_epochs": 1500, "epochs": 2200}}
# Under half an hour for a diffusion model.
_QUICK_DIFFUSION = {"width": 16, "batch_size": 16, "unet_blocks": 1}
_QUICK_DIFFUSION_STEPS = {
    True: {"pretrain_epochs": 2500, "epochs": 6000},
    False: {"pretrain_epochs": 2500, "epochs": 4500},
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    add_config_options(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check the data, build the networks, take one step of each phase, stop"
    )
    options = parser.parse_args(argv)
    if os.environ.get("RANK", "0") != "0":  # the other processes of torchrun would say the same once more
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the process ends
    from galaxies.compute.engine import Engine
    from galaxies.datasets.prepared import find_dataset  # torch loads only after the options are known to be right

    found = find_dataset(DATA, getattr(options, "data", ""))
    if found is None:
        if "RANK" in os.environ:
            raise UserError(f"no prepared dataset under {DATA}/: run prepare_data.py before torchrun")
        # Mistakes come to light before a minute is spent on galaxies.
        config = config_from_options(options)
        Engine.choose(config.device, config.precision)
        _refuse_existing(config.run or free_run_name("simulated"), options.dry_run)
    if found is not None:
        run(options, found)
    elif options.dry_run:
        with tempfile.TemporaryDirectory(prefix="galaxy-") as folder:
            run(options, simulate(Path(folder) / "simulated", _SIMULATED_FOR_A_TRIAL))
    else:
        run(options, simulate(DATA / "simulated"))


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


def run(options: argparse.Namespace, path: Path) -> None:
    """Train on the dataset at `path`."""
    from galaxies.datasets.prepared import PreparedDataset

    data = PreparedDataset.open(path)
    config = resolve_config(options, data.path, data.image_size, len(data.rows("train")))
    print_settings(config, data.manifest)
    if config.recipe == "paper" and (data.manifest.get("rule"), data.image_size) != ("paper", 64):
        print("note: the original recipe has 64-pixel images of prepare_data.py gz2 --rule paper; these are others")
    train(config, data, options.dry_run)


def resolve_config(options: argparse.Namespace, data: Path, image_size: int, num_train: int) -> Config:
    """Complete the user's options: the dataset's size, a free run name, and on a CPU the quick setting."""
    from galaxies.compute.engine import Engine

    config = config_from_options(options, image_size=image_size)
    engine = Engine.choose(config.device, config.precision)
    if engine.device.type == "cpu" and config.recipe == "default":
        given = given_settings(options)
        settings, steps_by_arithmetic = (
            (_QUICK_DIFFUSION, _QUICK_DIFFUSION_STEPS) if config.diffusion else (_QUICK, _QUICK_STEPS)
        )
        quick = {name: value for name, value in settings.items() if name not in given}
        per_epoch = max(1, num_train // (quick | given)["batch_size"])
        for name, steps in steps_by_arithmetic[engine.bf16].items():
            epochs = max(1, round(steps / per_epoch * (64 / image_size) ** 2))
            if name not in given:
                quick[name] = min(epochs, getattr(Config, name))
        config = config_from_options(options, image_size=image_size, **quick)
        if quick:
            print(f"no GPU: quick setting {_as_options(quick)}")
            print(f"the full recipe is: python galaxy.py {_as_options({n: getattr(Config, n) for n in quick} | given)}")
    run = config.run or free_run_name(data.resolve().name)
    return dataclasses.replace(config, run=run, data=data.as_posix())


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


def free_run_name(base: str) -> str:
    """Return the first of base-1, base-2, ... that no run has; characters that a run's name cannot have become '_'."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "_", base).lstrip(".-") or "run"
    number = 1
    while (CHECKPOINTS / f"{base}-{number}").exists():
        number += 1
    return f"{base}-{number}"


def print_settings(config: Config, manifest: dict) -> None:
    """Print the resolved settings and what is in the dataset."""
    settings = config.to_dict() | {"attributes": ",".join(config.attributes)}
    print("settings: " + " ".join(f"{name}={value}" for name, value in settings.items()))
    print(f"data: {manifest.get('count')} galaxies, {json.dumps(manifest.get('counts'))}")


def _refuse_existing(run: str, dry_run: bool) -> None:
    if not dry_run and any((CHECKPOINTS / run).glob("*.pt")):
        raise UserError(f"run {run} exists: go on with resume_training.py --run {run}, or choose another --run")


def train(config: Config, data: object, dry_run: bool = False, state: dict | None = None) -> None:
    """Train a run from its start, or on from a checkpoint's `state`.

    Raises
    ------
    UserError
        If a new run would overwrite an old one, another process trains it, it does not fit on the disk, or training
        fails.
    """
    from galaxies.storage.run_folder import check_space, hold_run
    from galaxies.training.trainer import Trainer

    folder = CHECKPOINTS / config.run
    if state is None:
        _refuse_existing(config.run, dry_run)
    trainer = Trainer(config, data, folder, SAMPLES / config.run, state)
    engine = trainer.engine
    sizes = ", ".join(f"{n} {sum(p.numel() for p in m.parameters()):,}" for n, m in trainer.learner.networks.items())
    print(f"parameters: {sizes}; {engine.describe()}", flush=True)
    check_space(config, trainer.state_dict(), folder, trainer.samples)
    if dry_run:
        trainer.try_steps()
        print("dry run: data, networks and one step of each phase are in order; nothing was written")
        return
    try:
        with hold_run(folder) if state is None else nullcontext():  # who goes on with a run holds it already
            if state is None and trainer.ranks.is_first:
                _refuse_existing(config.run, dry_run)  # once more: another process may have trained it meanwhile
            trainer.train()
    finally:
        trainer.ranks.disconnect()
    if trainer.stop_requested:
        print(f"stopped and saved: python resume_training.py --run {config.run}", file=sys.stderr)
        sys.exit(130)
    print(f"done: {folder / 'latest.pt'} and {SAMPLES / config.run}")
    print(f"next: python generate_from_checkpoint.py --checkpoint {folder / 'latest.pt'} --morphology spiral")


if __name__ == "__main__":
    run_script(main)
