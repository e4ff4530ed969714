"""Time benchmarks on this folder and on an earlier commit in turns, and print how many times as fast each piece became.

    python benchmarks/against.py --commit HEAD~20 --runs "training_step.py --width 32" "generation.py --images 128"

The commit is checked out beside this folder, into a place of its own that goes when the script ends. Each script runs
there and here by turns, in a process of its own with the same options, so that a machine that others use slows both
alike. Prints one JSON object: a row for each piece of work that both know, with the medians over the turns and their
ratio, above 1 where it became faster. It fails where a run fails, or where the two have no piece of work in common.
"""

from __future__ import annotations

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common import hardware
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine

# What a processor does most: the figures that no change for a GPU may cost.
_USUAL = (
    "training_step.py --recipe paper --images 128 --periods 1 --warm-up 2 --repeats 3",
    "training_step.py --width 32 --batch-size 32 --images 128 --periods 2 --warm-up 4 --repeats 5",
    "generation.py --images 128 --repeats 5",
    "measuring.py --images 256 --repeats 5 --statmorph 0",
    "rendering.py --count 256",
    "preparation.py --repeats 3",
)

Times = dict[str, list[float]]  # of each piece of work, its median in each turn, ms
Run = Callable[[Path, str], dict[str, float]]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="against.py", description=__doc__)
    add_device_option(parser)
    parser.add_argument("--commit", default="HEAD", metavar="HASH", help="to compare with (default: HEAD)")
    parser.add_argument(
        "--runs", nargs="+", default=_USUAL, metavar="COMMAND", help="benchmarks with their options (default: six)"
    )
    parser.add_argument(
        "--turns", type=timing.at_least(1), default=3, metavar="N", help="runs of each on either side (default: 3)"
    )
    options = parser.parse_args(argv)
    device = Engine.choose(options.device, "fp32").device
    rows, faults = [], []
    with checked_out(options.commit) as earlier:
        for command in options.runs:
            try:
                rows += compared(*in_turns(earlier, hardware.ROOT, command, options.turns, run_benchmark), command)
            except UserError as error:  # costs the others nothing
                faults.append(str(error))
    if rows:
        sizes = {"commit": options.commit, "turns": options.turns}
        timing.print_result("against", hardware.describe(device), sizes, rows)
    if faults:
        raise UserError("; ".join(faults))


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check a commit out into a folder that is removed in the end.

    Raises
    ------
    UserError
        If git has no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="galaxy-") as folder:
        place = Path(folder, "earlier")
        add = ["git", "worktree", "add", "--quiet", "--detach", str(place), commit]
        try:
            done = subprocess.run(add, cwd=hardware.ROOT, capture_output=True, text=True)
        except OSError as error:
            raise UserError(f"{commit} cannot be checked out: git does not start ({error})") from None
        if done.returncode != 0:
            raise UserError(f"{commit} cannot be checked out: {done.stderr.strip()}")
        try:
            yield place
        finally:
            remove = ["git", "worktree", "remove", "--force", str(place)]
            subprocess.run(remove, cwd=hardware.ROOT, capture_output=True, check=False)


def in_turns(earlier: Path, now: Path, command: str, turns: int, run: Run) -> tuple[Times, Times]:
    """Run a benchmark `turns` times in both folders by turns; who begins changes each time."""
    times: dict[Path, Times] = {earlier: {}, now: {}}
    for turn in range(turns):
        for folder in (earlier, now) if turn % 2 == 0 else (now, earlier):
            for what, ms in run(folder, command).items():
                times[folder].setdefault(what, []).append(ms)
    return times[earlier], times[now]


def run_benchmark(folder: Path, command: str) -> dict[str, float]:
    """Run one of a folder's benchmarks and return the milliseconds of each piece of work.

    Raises
    ------
    UserError
        If it fails, or its last line is no result.
    """
    script, *options = shlex.split(command)
    print(f"{folder.name}: {command}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, str(folder / "benchmarks" / script), *options],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        rows = json.loads(done.stdout.splitlines()[-1])["rows"] if done.returncode == 0 else []
    except (IndexError, KeyError, ValueError):
        rows = []
    if not rows:
        last = "\n".join(done.stderr.splitlines()[-5:])
        raise UserError(f"{command} in {folder} gave no figure (exit status {done.returncode}): {last}")
    return {row["what"]: row["ms"] for row in rows}


def compared(earlier: Times, now: Times, command: str) -> list[dict[str, Any]]:
    """Return a row for each piece of work that both folders timed.

    Raises
    ------
    UserError
        If there is none.
    """
    both = [what for what in now if what in earlier]
    if not both:
        raise UserError(f"{command} times nothing that it timed before: {', '.join(earlier)}; now {', '.join(now)}")
    rows = []
    for what in both:
        before, after = statistics.median(earlier[what]), statistics.median(now[what])
        rows.append(
            {
                "what": what,
                "before_ms": before,
                "ms": after,
                "ratio": round(before / after, 3),
                "before_range_ms": [min(earlier[what]), max(earlier[what])],
                "range_ms": [min(now[what]), max(now[what])],
            }
        )
    return rows


if __name__ == "__main__":
    run_script(main)
