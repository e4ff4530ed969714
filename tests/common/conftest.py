"""What the tests of this folder share."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait(timeout=60)
    return process.pid
