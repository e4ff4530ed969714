"""Run the tests that need a CUDA device, and print how they went as one JSON object.

    python benchmarks/cuda_tests.py

These are the tests whose name has "cuda" in it. Test files that cannot be loaded, since a package is missing, are
named.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common import hardware
from galaxies.common.errors import UserError
from galaxies.compute.engine import Engine


class Outcomes:
    """A pytest plugin that counts outcomes and keeps the names of what failed."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []
        self.not_loaded: list[str] = []

    def pytest_runtest_logreport(self, report) -> None:
        """Count a test when it ran, and a failing setup or teardown as well."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.failed:
                self.failed.append(report.nodeid)

    def pytest_collectreport(self, report) -> None:
        """Keep the name of a file that cannot be loaded."""
        if report.failed:
            self.not_loaded.append(report.nodeid)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="cuda_tests.py", description=__doc__)
    add_device_option(parser)
    parser.add_argument("--select", default="cuda", metavar="WORD", help="what a test's name contains (default: cuda)")
    options = parser.parse_args(argv)
    try:
        import pytest
    except ImportError:
        raise UserError("pytest is not installed: pip install -r requirements-dev.txt") from None
    outcomes = Outcomes()
    arguments = ["-k", options.select, "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    with contextlib.redirect_stdout(sys.stderr):
        pytest.main([*arguments, str(hardware.ROOT / "tests")], plugins=[outcomes])
    facts = {name: outcomes.counts[name] for name in ("passed", "failed", "skipped")}
    facts |= {"failures": outcomes.failed, "not_loaded": outcomes.not_loaded}
    device = Engine.choose(options.device, "fp32").device
    timing.print_result("cuda_tests", hardware.describe(device), {"select": options.select}, [], facts)


if __name__ == "__main__":
    run_script(main)
