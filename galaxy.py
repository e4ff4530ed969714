"""Train a galaxy generator: first the physics predictor on real images, then the GAN that it constrains.

    python galaxy.py
    python galaxy.py --data data/gz2 --run first --attributes size,brightness,ellipticity --epochs 100

Without options it trains on the only dataset under data/. On a GPU that is the full recipe; on a CPU it is a quick
setting of narrower networks and few epochs, printed before it starts. Ctrl-C saves; resume_training.py goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from command_line import Parser, add_config_options, config_from_options, given_settings, run_script
from config_physics import Config, UserError

CHECKPOINTS, SAMPLES, DATA = Path("checkpoints"), Path("samples"), Path("data")

# About eight minutes on two CPU cores, whatever the size of the dataset.
_QUICK_WIDTH = 32
_QUICK_STEPS = {"pretrain_epochs": 500, "epochs": 2200}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    add_config_options(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check the data, build the networks, take one step of each phase, stop"
    )
    options = parser.parse_args(argv)
    if getattr(options, "diffusion", False):
        raise UserError("--diffusion is not part of this release: train the GAN, without that option")
    from dataset import PreparedDataset, find_dataset  # torch loads only after the options are known to be right

    data = PreparedDataset.open(find_dataset(DATA, getattr(options, "data", "")))
    config = resolve_config(options, data.path, data.image_size, len(data.rows("train")))
    print_settings(config, data.manifest)
    train(config, data, options.dry_run)


def resolve_config(options: argparse.Namespace, data: Path, image_size: int, num_train: int) -> Config:
    """Complete the user's options: the dataset's size, a free run name, and on a CPU the quick setting."""
    from engine import Engine

    fallbacks = {"image_size": image_size}
    config = config_from_options(options, **fallbacks)
    engine = Engine.choose(config.device, config.precision)
    given = given_settings(options)
    if engine.device.type == "cpu" and config.recipe == "default":
        per_epoch = max(1, num_train // config.batch_size)
        quick = {name: max(1, round(steps / per_epoch)) for name, steps in _QUICK_STEPS.items()}
        quick = {name: min(value, getattr(config, name)) for name, value in quick.items()}
        quick["width"] = _QUICK_WIDTH
        changed = {name: value for name, value in quick.items() if name not in given}
        config = config_from_options(options, **fallbacks, **changed)
        if changed:
            print("no GPU: quick setting " + " ".join(f"--{n.replace('_', '-')} {v}" for n, v in changed.items()))
            full = " ".join(f"--{n.replace('_', '-')} {getattr(Config, n)}" for n in changed)
            print(f"the full recipe is: python galaxy.py {full}")
    run = config.run or free_run_name(data.name)
    return dataclasses.replace(config, run=run, data=data.as_posix())


def free_run_name(base: str) -> str:
    """Return the first of base-1, base-2, ... that no run has."""
    number = 1
    while (CHECKPOINTS / f"{base}-{number}").exists():
        number += 1
    return f"{base}-{number}"


def print_settings(config: Config, manifest: dict) -> None:
    """Print the resolved settings and what is in the dataset."""
    settings = config.to_dict() | {"attributes": ",".join(config.attributes)}
    print("settings: " + " ".join(f"{name}={value}" for name, value in settings.items()))
    print(f"data: {manifest['count']} galaxies, {json.dumps(manifest['counts'])}")


def train(config: Config, data: object, dry_run: bool = False, state: dict | None = None) -> None:
    """Train a run from its start, or on from a checkpoint's `state`.

    Raises
    ------
    UserError
        If a new run would overwrite an old one, or training fails.
    """
    from training import Trainer

    folder = CHECKPOINTS / config.run
    if state is None and not dry_run and (folder / "latest.pt").exists():
        raise UserError(
            f"run {config.run} exists: go on with resume_training.py --run {config.run}, or choose another --run"
        )
    trainer = Trainer(config, data, folder, SAMPLES / config.run, state)
    engine = trainer.engine
    sizes = ", ".join(f"{n} {sum(p.numel() for p in m.parameters()):,}" for n, m in trainer.networks.items())
    print(f"parameters: {sizes}; {engine.device}, {'bf16' if engine.bf16 else 'fp32'}", flush=True)
    if dry_run:
        trainer.try_steps()
        print("dry run: data, networks and one step of each phase are in order; nothing was written")
        return
    trainer.train()
    if trainer.stop_requested:
        print(f"stopped and saved: python resume_training.py --run {config.run}", file=sys.stderr)
        sys.exit(130)
    print(f"done: {folder / 'latest.pt'} and {SAMPLES / config.run}")
    print(f"next: python generate_from_checkpoint.py --checkpoint {folder / 'latest.pt'} --morphology spiral")


if __name__ == "__main__":
    run_script(main)
