"""Repeated timings, and the one JSON object that each benchmark prints."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.roofline import Peak, Work
from galaxies.command_line import Parser
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of a command-line option that takes whole numbers from `least` on."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return int(text)

    return whole_number


def add_timing_options(parser: Parser, repeats: int = 7, reference: bool = True) -> None:
    """Add the options that benchmarks share: `--repeats` and, if there is a `reference`, `--no-reference`."""
    parser.add_argument(
        "--repeats",
        type=at_least(1),
        default=repeats,
        metavar="N",
        help=f"timed repeats, of which the median counts (default: {repeats})",
    )
    if reference:
        parser.add_argument("--no-reference", action="store_true", help="leave out the plain reference")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def in_turns(works: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Time pieces of work in turns, so that a machine that grows slower or faster does so for all of them.

    Each is run once before, untimed. The clock is the wall's: it starts when the device is idle and stops when it is
    idle again, so that the host's part counts as well.

    Parameters
    ----------
    works : mapping of str to callable
    repeats : int
    device : torch.device

    Returns
    -------
    dict of str to list of float
        Seconds of each repeat.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            synchronize(device)
            started = time.perf_counter()
            work()
            synchronize(device)
            if turn > 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def row(
    what: str,
    seconds: Sequence[float],
    images: int,
    times: int = 1,
    reference: Sequence[float] | None = None,
    reference_images: int | None = None,
    limit: tuple[Work, Peak] | None = None,
) -> dict[str, Any]:
    """Sum up one timed piece of work as a row of the results.

    Parameters
    ----------
    what : str
        What was timed.
    seconds : sequence of float
        Of each repeat.
    images : int
        Images that one piece of work handles.
    times : int
        Pieces of work in one repeat, such as steps.
    reference : sequence of float, optional
        Seconds of the reference's repeats, of as many pieces as `times`.
    reference_images : int, optional
        Images in one piece of the reference's work, if other than `images`; its time is scaled.
    limit : (Work, Peak), optional
        What one piece of work needs, and what the device can do.

    Returns
    -------
    dict
        ``what``, ``images``, ``repeats``, ``ms`` (median of one piece), ``quartiles_ms``, ``images_per_s``; with a
        reference ``reference_ms`` (median, for as many images) and ``ratio`` (how many times faster than it); with a
        limit ``least_ms`` and the rest of `Work.least`, ``part_of_limit`` (least over measured time) and
        ``peak_source``.
    """
    low, median, high = (float(v) / times * 1e3 for v in np.percentile(seconds, (25, 50, 75)))
    result: dict[str, Any] = {
        "what": what,
        "images": images,
        "repeats": len(seconds),
        "ms": _rounded(median),
        "quartiles_ms": [_rounded(low), _rounded(high)],
        "images_per_s": _rounded(_quotient(images * 1e3, median)),
    }
    if reference is not None:
        theirs = float(np.median(reference)) / times * 1e3 * images / (reference_images or images)
        result |= {"reference_ms": _rounded(theirs), "ratio": _rounded(_quotient(theirs, median))}
    if limit is not None:
        least = limit[0].least(limit[1])
        result |= {name: _rounded(value) if isinstance(value, float) else value for name, value in least.items()}
        result |= {"part_of_limit": _rounded(_quotient(least["least_ms"], median)), "peak_source": limit[1].source}
    return result


def _quotient(above: float, below: float) -> float:
    """Divide; by a time of 0, which no work takes, to 0, so that `fault_of` finds it."""
    return above / below if below else 0.0


def _rounded(value: float) -> float:
    """Keep four digits: more is noise."""
    return float(f"{value:.4g}")


def print_result(
    benchmark: str,
    machine: dict[str, Any],
    sizes: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    facts: dict[str, Any] | None = None,
    facts_only: bool = False,
) -> None:
    """Print the result of a benchmark as one JSON object on one line, without what is no figure.

    Parameters
    ----------
    benchmark : str
    machine : dict
        From `hardware.describe`.
    sizes : dict
        What was asked for.
    rows : sequence of dict
        From `row`.
    facts : dict, optional
        Other values worth keeping, names ending in their unit.
    facts_only : bool
        The benchmark has no rows.

    Raises
    ------
    UserError
        If something was not measured; see `fault_of`.
    """
    result = {"benchmark": benchmark, "machine": machine, "sizes": sizes, "rows": list(rows), "facts": facts or {}}
    fault = fault_of(result, facts_only)
    print(json_text(only_figures(result)), flush=True)
    if fault:
        raise UserError(f"{benchmark} measured nothing that counts: {fault}")


# What stands in a row of times; the first must.
_FIGURES = ("ms", "quartiles_ms", "images_per_s", "reference_ms", "ratio", "least_ms", "part_of_limit")


def fault_of(result: Mapping[str, Any], facts_only: bool = False) -> str | None:
    """Say what of a result was not measured; None if all was.

    A result has rows, unless it is one of facts only; each row has a time; no time, rate or number among the facts is
    missing, not finite or, in a row, zero.

    Parameters
    ----------
    result : mapping
        With ``rows`` and ``facts``, as `print_result` prints them.
    facts_only : bool
        Whether it has no rows.
    """
    rows, facts = result["rows"], result["facts"]
    if facts_only and not any(value is not None for value in facts.values()):
        return "there is no fact"
    if not facts_only and not rows:
        return "there is no row of times"
    for row in rows:
        for name in _FIGURES:
            if name == "ms" or name in row:
                values = row.get(name)
                for value in values if isinstance(values, list) else [values]:
                    if not (_is_number(value) and value > 0):
                        return f"{row.get('what', 'a row')} has {value} as its {name}"
    for name, value in facts.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"the fact {name} is {value}"
    return None


def only_figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result without the rows and facts in which `fault_of` finds a fault."""
    rows = [row for row in result["rows"] if fault_of({"rows": [row], "facts": {}}) is None]
    facts = {name: v for name, v in result["facts"].items() if not (isinstance(v, float) and not math.isfinite(v))}
    return {**result, "rows": rows, "facts": facts}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
