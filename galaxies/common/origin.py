"""Whose galaxies a dataset holds: observed ones, those of the mock survey, or those of a simulation.

It is told by how the dataset's source begins, which checkpoints, releases and reports carry along.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal

MOCK_SOURCE = "mock survey"  # how a source begins of galaxies that the program drew
SIMULATION_SOURCE = "simulation"  # and of those of a simulation, as `--simulation` says

Origin = Literal["real", "mock", "simulated"]


def origin_of(source: str | None) -> Origin:
    """Return what the galaxies of a dataset are called, by its source; real where nobody says anything else."""
    told = source or ""
    if told.startswith(MOCK_SOURCE):
        return "mock"
    return "simulated" if told.startswith(SIMULATION_SOURCE) else "real"


def add_simulation_option(parser: argparse.ArgumentParser) -> None:
    """Add the option by which a user says that galaxies are no observed ones."""
    parser.add_argument(
        "--simulation",
        action="store_true",
        help="the galaxies are those of a simulation, and none of the sky: reports, comparisons and the page then call "
        "them simulated (default: they are called real)",
    )


def source_told(source: str, options: argparse.Namespace) -> str:
    """Return the source of a dataset with what the option says."""
    return f"{SIMULATION_SOURCE}: {source}" if options.simulation else source


def joined_source(paths: Sequence[str], sources: Sequence[str | None]) -> str:
    """Return the source of a dataset that is joined of others, which is mock or simulated if they all are."""
    joined = "joined: " + ", ".join(paths)
    begins = {"mock": f"{MOCK_SOURCE}, ", "simulated": f"{SIMULATION_SOURCE}, ", "real": ""}
    origins = {origin_of(source) for source in sources}
    return begins[origins.pop() if len(origins) == 1 else "real"] + joined
