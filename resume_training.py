"""Go on with an interrupted or finished training run, exactly where it was saved.

    python resume_training.py --run first
    python resume_training.py --checkpoint checkpoints/first/epoch_0040.pt --epochs 200

Settings come from the checkpoint; only the length of the run and what it writes may change. If latest.pt is damaged,
--run goes on from the last good checkpoint before it, and says so.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galaxies.command_line import Parser, add_config_options, add_time_option, given_settings, run_script
from galaxies.common.errors import UserError

_CHANGEABLE = (
    "data",
    "epochs",
    "pretrain_epochs",
    "device",
    "engine",
    "compile",
    "on_nan",
    "vgg_weights",  # the same file at another place
    "checkpoint_every",
    "log_every",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", metavar="NAME", help="name of the run, a folder in checkpoints/")
    source.add_argument("--checkpoint", type=Path, metavar="FILE", help="one checkpoint of the run")
    add_config_options(parser, _CHANGEABLE)
    add_time_option(parser)
    options = parser.parse_args(argv)

    from galaxies.storage.checkpoint import LATEST, load_checkpoint
    from galaxies.storage.run_folder import hold_run, load_run
    from galaxies.storage.schema import RUN_STATE, TRAINING_STATE
    from galaxies.training.runs import CHECKPOINTS

    path = options.checkpoint or CHECKPOINTS / options.run / LATEST
    if not path.parent.is_dir():
        raise UserError(f"there is no checkpoint {path}: train one with galaxy.py")
    with hold_run(path.parent):  # before anything is read, so that nobody writes a newer one meanwhile
        if options.checkpoint:
            _go_on(options, path, load_checkpoint(path, RUN_STATE + TRAINING_STATE))
        else:
            _go_on(options, *load_run(path.parent))


def _go_on(options: argparse.Namespace, path: Path, state: dict[str, Any]) -> None:
    """Train on from the checkpoint at `path`, whose content is `state`."""
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.generation.build import config_of
    from galaxies.training.runs import CHECKPOINTS, print_settings, train

    changes = {name: value for name, value in given_settings(options).items() if name in _CHANGEABLE}
    config = dataclasses.replace(config_of(state, path), **changes)
    if (CHECKPOINTS / config.run).resolve() != path.resolve().parent:
        raise UserError(f"{path} belongs to run {config.run}: start this script where {CHECKPOINTS / config.run} is")
    done = state["epoch"] if state["phase"] == "generator" else 0
    if state["phase"] == "generator" and "pretrain_epochs" in changes:
        raise UserError("--pretrain-epochs cannot change any more: the run is in phase 2")
    if state["phase"] == "predictor" and state["epoch"] > config.pretrain_epochs:
        raise UserError(f"--pretrain-epochs is below the {state['epoch']} epochs that are done")
    if done >= config.epochs:
        raise UserError(f"run {config.run} has done all its {config.epochs} epochs: give a larger --epochs to go on")
    data = PreparedDataset.open(config.data)
    print_settings(config, data)
    phase = 2 if state["phase"] == "generator" else 1
    print(f"going on from {path}: phase {phase}, {state['epoch']} epochs and {state['step']} steps done")
    train(config, data, state=state, stop_at=options.stop_at)


if __name__ == "__main__":
    run_script(main)
