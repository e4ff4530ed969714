"""Run the tests that need a CUDA device, and print how they went as one JSON object.

    python benchmarks/cuda_tests.py

These are the tests that are marked with `needs_cuda`, or have "cuda" in their name. Test files that cannot be loaded,
since a package is missing, are named. It fails where a test fails, and where none has run: if there is no such test, if
all were skipped, or if pytest did not come to its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common import hardware
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine

# pytest's exit statuses after which its count of tests is worth reading: all passed, some failed.
_CAME_TO_ITS_END = (0, 1)
_WHY = {2: "was interrupted", 3: "met an internal error", 4: "was called wrongly", 5: "found no test of that name"}


@dataclass(frozen=True)
class Outcomes:
    """How tests went.

    Attributes
    ----------
    passed, failed, skipped : int
        A test whose set-up or tear-down fails counts as failed.
    failures : list of str
        Names of the failed ones, as file and test.
    not_loaded : list of str
        Test files that could not be loaded.
    reasons : list of str
        Why tests were skipped, each reason once.
    """

    passed: int
    failed: int
    skipped: int
    failures: list[str]
    not_loaded: list[str]
    reasons: list[str]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="cuda_tests.py", description=__doc__)
    add_device_option(parser)
    parser.add_argument("--select", default="cuda", metavar="WORD", help="in a test's name or marks (default: cuda)")
    options = parser.parse_args(argv)
    if find_spec("pytest") is None:
        raise UserError("pytest is not installed: pip install -r requirements-dev.txt")
    device = Engine.choose(options.device, "fp32").device
    outcomes = run_tests(options.select, hardware.ROOT / "tests")
    facts = {name: getattr(outcomes, name) for name in ("passed", "failed", "skipped", "failures", "not_loaded")}
    sizes = {"select": options.select}
    timing.print_result("cuda_tests", hardware.describe(device), sizes, [], facts, facts_only=True)
    if outcomes.failed:
        raise UserError(f"{outcomes.failed} tests failed: {', '.join(outcomes.failures)}")


def run_tests(select: str, tests: Path) -> Outcomes:
    """Run the tests of a folder that have a word in their name or marks, in a process of their own.

    Neither plugins that happen to be installed nor the options of pyproject.toml, which are for a suite on many cores,
    have a say: pytest-benchmark, for one, warns beside pytest-xdist, and a warning is an error here.

    Raises
    ------
    UserError
        If no test ran to its end, with pytest's last lines.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONIOENCODING": "utf-8:replace"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "--strict-markers", "-m", "not slow"]
        command += ["-k", select, "--continue-on-collection-errors", "-p", "no:cacheprovider"]
        command += [f"--junitxml={report}", "-o", "junit_family=xunit1", str(tests)]
        done = subprocess.run(
            command,
            cwd=tests.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        print(done.stdout, end="", file=sys.stderr)
        last = "\n".join(done.stdout.strip().splitlines()[-10:])
        if done.returncode not in _CAME_TO_ITS_END or not report.exists():
            why = _WHY.get(done.returncode, f"did not come to its end: exit status {done.returncode}")
            raise UserError(f"pytest -k {select} {why}; its last lines:\n{last}")
        outcomes = read_report(report)
    if outcomes.passed + outcomes.failed == 0:
        if outcomes.skipped:
            raise UserError(f"all {outcomes.skipped} tests were skipped: {'; '.join(outcomes.reasons)}")
        raise UserError(f"pytest -k {select} ran no test; its last lines:\n{last}")
    return outcomes


def read_report(path: Path) -> Outcomes:
    """Count the outcomes in a report that pytest wrote with --junitxml."""
    passed, skipped = 0, 0
    failures: list[str] = []
    not_loaded: list[str] = []
    reasons: dict[str, None] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        outcome = {child.tag: child for child in case if child.tag in ("failure", "error", "skipped")}
        if "error" in outcome and outcome["error"].get("message", "").startswith("collection failure"):
            not_loaded.append(case.get("file", case.get("name", "")))
        elif "failure" in outcome or "error" in outcome:
            failures.append(f"{case.get('file', case.get('classname', ''))}::{case.get('name', '')}")
        elif "skipped" in outcome:
            skipped += 1
            reasons[outcome["skipped"].get("message", "")] = None
        else:
            passed += 1
    failures = list(dict.fromkeys(failures))  # one whose tear-down fails after its own failure stands there twice
    return Outcomes(passed, len(failures), skipped, failures, not_loaded, list(reasons))


if __name__ == "__main__":
    run_script(main)
