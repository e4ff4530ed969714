"""Run every benchmark that suits the device, each in a process of its own, and write their results into one file.

    python benchmarks/suite.py
    python benchmarks/suite.py --device cuda --commit HASH
    python benchmarks/suite.py --quick

A part that fails, has no figure or takes too long costs the others nothing, and the file is written again after each
part; if not all parts went well, the exit status is 1, and the last lines say which did not and why. The file is
benchmarks/results/<device>.json, or in the folder that the environment variable OUT names; the table in
benchmarks/README.md is then brought up to date. --quick tries everything out with sizes that mean nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import table, timing
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common import hardware
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import has_entries, write_output
from galaxies.compute.device import Engine

_TINY_STEPS = "--batch-size 4 --images 64 --periods 1 --warm-up 1 --repeats 1 --width 8"
_PATIENCE_S = 400  # for a part on a processor, which others may be using
_SECONDS = {"cuda": 510, "mps": 1800, "cpu": 1800}  # for all parts together
_LEAST_S = 5  # a part is not begun with less time than this


@dataclass(frozen=True)
class Part:
    """One benchmark of the suite.

    Attributes
    ----------
    name : str
        Its key in the results.
    limit_s : float
        Seconds after which it is ended.
    command : str
        Script and options, separated by spaces.
    has_device : bool
        Whether the script takes a device.
    facts_only : bool
        Whether it has no rows of times.
    """

    name: str
    limit_s: float
    command: str
    has_device: bool = True
    facts_only: bool = False

    def arguments(self, device: str) -> list[str]:
        """Return the command as a list, with the device if it takes one."""
        return [*self.command.split(), *(("--device", device) if self.has_device else ())]


PARTS = {
    # On a GPU the most wanted comes first, in case that the time runs out: the parts down to "rendering" fit into it
    # even if each takes as long as it may. By the times of an H200 all of them take about seven minutes.
    "cuda": [
        Part("peaks", 15, "peaks.py", facts_only=True),
        Part("tests", 110, "cuda_tests.py", facts_only=True),
        Part("paper bf16", 40, "training_step.py --recipe paper --precision bf16"),
        Part("default", 55, "training_step.py --images 240000 --compile off"),
        Part("launches, paper bf16", 30, "launches.py --recipe paper --precision bf16", facts_only=True),
        Part("launches, default", 35, "launches.py", facts_only=True),
        Part("generation, default", 60, "generation.py --images 4096 --few 1 4 16 64 256 --shards 50000"),
        Part("diffusion step", 40, "diffusion_step.py --widths 16 32 64"),
        Part("generation, diffusion", 35, "generation.py --diffusion --width 32 --images 512 --repeats 3"),
        Part("measuring", 45, "measuring.py --images 8192 --batch-size 1024 --statmorph 0"),
        Part("rendering", 45, "rendering.py --count 4096"),
        Part("default, compiled", 100, "training_step.py --images 240000 --compile on --phases generator"),
        Part("preparation", 40, "preparation.py --images 24576 --repeats 1", has_device=False),
        # So many that they are read in processes, not threads.
        Part("preparation, many", 45, "preparation.py --images 8192 --no-reference --repeats 1", has_device=False),
        Part("default, batch 256", 45, "training_step.py --batch-size 256"),
        Part("epoch, default", 60, "epoch.py --images 64000 --repeats 1 --compile off"),
        Part("128 pixels", 45, "training_step.py --image-px 128 --images 1024 --compile off --phases generator"),
        Part("generation, paper", 30, "generation.py --recipe paper --images 4096"),
        Part("paper fp32", 40, "training_step.py --recipe paper"),
        Part("paper bf16, eager", 40, "training_step.py --recipe paper --precision bf16 --engine eager --periods 6"),
    ],
    "cpu": [
        Part("peaks", _PATIENCE_S, "peaks.py", facts_only=True),
        Part(
            "paper fp32",
            _PATIENCE_S,
            "training_step.py --recipe paper --images 128 --periods 1 --warm-up 2 --repeats 3",
        ),
        Part(
            "paper bf16",
            _PATIENCE_S,
            "training_step.py --recipe paper --precision bf16 --images 128 --periods 1 --warm-up 2 --repeats 3",
        ),
        Part("default", _PATIENCE_S, "training_step.py --images 128 --periods 1 --warm-up 2 --repeats 3"),
        Part(
            "default, as on a CPU",
            _PATIENCE_S,
            "training_step.py --width 32 --batch-size 32 --images 128 --periods 2 --warm-up 4 --repeats 5",
        ),
        Part(
            "128 pixels, as on a CPU",
            _PATIENCE_S,
            "training_step.py --width 32 --batch-size 32 --image-px 128 --images 64 --periods 2 --warm-up 4",
        ),
        Part(
            "epoch, default, as on a CPU", _PATIENCE_S, "epoch.py --width 32 --batch-size 32 --images 640 --repeats 1"
        ),
        Part("generation, default", _PATIENCE_S, "generation.py --images 128 --repeats 5 --shards 256"),
        Part("generation, paper", _PATIENCE_S, "generation.py --recipe paper --images 128 --repeats 5"),
        Part("diffusion step", _PATIENCE_S, "diffusion_step.py --batch-size 16 --unet-blocks 1 --periods 1"),
        Part("measuring", _PATIENCE_S, "measuring.py --images 256 --repeats 5"),
        Part("rendering", _PATIENCE_S, "rendering.py --count 256"),
        Part("preparation", _PATIENCE_S, "preparation.py --repeats 3", has_device=False),
        Part("serving", _PATIENCE_S, "serving.py --seconds 60"),
    ],
}
PARTS["mps"] = PARTS["cpu"]
QUICK = [
    Part("peaks", 60, "peaks.py --side 64 --copied 65536", facts_only=True),
    Part("tests", 120, "cuda_tests.py --select test_cuda_number_that_is_not_there", facts_only=True),
    Part("default", 60, f"training_step.py {_TINY_STEPS}"),
    Part("paper", 60, f"training_step.py --recipe paper {_TINY_STEPS}"),
    Part("launches", 60, "launches.py --periods 1 --batch-size 4 --width 8", facts_only=True),
    Part("epoch", 60, "epoch.py --width 8 --batch-size 16 --images 64 --repeats 1"),
    Part("generation", 60, "generation.py --images 4 --repeats 1"),
    Part("diffusion step", 60, "diffusion_step.py --widths 8 --batch-size 4 --periods 1 --repeats 1"),
    Part("measuring", 60, "measuring.py --images 4 --pictures 4 --repeats 1 --statmorph 0"),
    Part("rendering", 60, "rendering.py --count 4 --repeats 1"),
    Part("preparation", 60, "preparation.py --images 4 --repeats 1", has_device=False),
    Part("serving", 90, "serving.py --width 4 --seconds 1 --clients 20"),
]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    device = Engine.choose(options.device, "fp32").device
    machine = hardware.describe(device, options.commit)
    out = options.out or Path(os.environ.get("OUT") or (tempfile.mkdtemp() if options.quick else table.RESULTS))
    path = out / f"{hardware.file_stem(machine['device'])}.json"
    results = {"machine": machine, "quick": options.quick, "parts": {}}
    parts = [part for part in (QUICK if options.quick else PARTS[device.type]) if options.only in part.name]
    if device.type != "cuda":
        parts = [part for part in parts if not part.command.startswith("launches.py")]
    if not parts:
        raise UserError(f"no part that a {device.type} device has is called {options.only}: nothing would be measured")
    finished = run_parts(
        parts, str(device), options.seconds or _SECONDS[device.type], results, lambda: _write(path, results)
    )
    print(f"wrote {path}")
    print(table.of_device(results), end="")
    if path.parent.resolve() == table.RESULTS:
        table.update_readme()
    if not finished:
        print("\n".join(complaints(results)), file=sys.stderr)
        sys.exit(1)


def _parser() -> Parser:
    parser = Parser(prog="suite.py", description=__doc__)
    add_device_option(parser)
    parser.add_argument(
        "--quick", action="store_true", help="try everything out with tiny sizes; the times mean nothing"
    )
    parser.add_argument("--only", default="", metavar="WORD", help="run only the parts whose name contains this")
    parser.add_argument(
        "--seconds",
        type=timing.at_least(1),
        metavar="N",
        help="time for all parts together, seconds (default: 510 on a GPU, else 1800)",
    )
    parser.add_argument(
        "--commit", metavar="HASH", help="what is measured, where the folder is no git clone (default: git's answer)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the results (default: $OUT, or benchmarks/results)"
    )
    return parser


def run_parts(
    parts: Sequence[Part], device: str, seconds: float, results: dict[str, Any], save: Callable[[], None]
) -> bool:
    """Run parts one after another until the time is spent, and put what they say into `results["parts"]`.

    Parameters
    ----------
    parts : sequence of Part
    device : str
    seconds : float
        For all of them.
    results : dict
        Gets an entry a part: ``status`` (ok, failed, out of time, left out), ``seconds``, ``command``, and ``rows``,
        ``facts`` and ``sizes``, or the ``error``'s last lines and what was found all the same.
    save : callable
        Called after each part.

    Returns
    -------
    bool
        Whether all parts went well.
    """
    end = time.monotonic() + seconds
    for part in parts:
        left = end - time.monotonic()
        started = time.monotonic()
        if left < _LEAST_S:
            entry: dict[str, Any] = {"status": "left out", "error": "the time for all parts was spent"}
        else:
            entry = run_part(part.arguments(device), min(part.limit_s, left), part.facts_only)
        entry |= {"command": part.command, "seconds": round(time.monotonic() - started, 1)}
        results["parts"][part.name] = entry
        save()
        print(f"{part.name}: {entry['status']}, {entry['seconds']} s", file=sys.stderr, flush=True)
    return all(entry["status"] == "ok" for entry in results["parts"].values())


def complaints(results: dict[str, Any]) -> list[str]:
    """Return a sentence for each part that did not go well."""
    return [
        f"{name}: {entry['status']}: {table.reason_of(entry)}"
        for name, entry in results["parts"].items()
        if entry["status"] != "ok"
    ]


def run_part(arguments: Sequence[str], limit_s: float, facts_only: bool = False) -> dict[str, Any]:
    """Run a script of this folder for at most `limit_s` seconds and return what it found; see `run_parts`."""
    script, *options = arguments
    command = [sys.executable, str(Path(__file__).resolve().parent / script), *options]
    try:
        done = subprocess.run(
            command,
            cwd=hardware.ROOT,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else error.stderr
        return {
            "status": "out of time",
            "error": f"{_last_lines(said or '')}\nit did not end within {limit_s:.3g} s".strip(),
        }
    result = _result(done.stdout)
    fault = timing.fault_of(result, facts_only) if result is not None else None
    if result is not None:
        result = timing.only_figures(result)
    if done.returncode != 0:  # what it found all the same is kept, such as the tests that passed
        return {"status": "failed", "error": _last_lines(done.stderr), **(result or {})}
    if result is None:
        return {"status": "failed", "error": f"its last line is no result: {_last_lines(done.stdout)}"}
    if fault is not None:
        return {"status": "failed", "error": fault, **result}
    return {"status": "ok", **result}


def _result(printed: str) -> dict[str, Any] | None:
    """Return the result in the last line of what a script printed, if there is one."""
    try:
        result = json.loads(printed.splitlines()[-1])
        found = {name: result[name] for name in ("sizes", "rows", "facts")}
        found["facts"].items()
        return found if all(isinstance(row, dict) for row in found["rows"]) else None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-15:])


def _write(path: Path, results: dict[str, Any]) -> None:
    write_output(path, (json_text(results, indent=1) + "\n").encode(), has_entries("machine", "quick", "parts"))


if __name__ == "__main__":
    run_script(main)
