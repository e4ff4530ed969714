"""The suite runs the same whatever plugins of pytest a machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, pytest_addoption

# A plugin as there are several: it warns beside pytest-xdist, and chooses among the tests.
FOREIGN = """
import warnings
import pytest

def pytest_configure(config):
    if getattr(config.option, "numprocesses", None) is not None or hasattr(config, "workerinput"):
        warnings.warn("this plugin does nothing beside pytest-xdist", pytest.PytestWarning)

def pytest_collection_modifyitems(items):
    items.clear()
"""


def install(folder: Path) -> None:
    (folder / "foreign_plugin.py").write_text(FOREIGN, encoding="utf-8")
    installed = folder / "foreign_plugin-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-plugin\nVersion: 1.0\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text("[pytest11]\nforeign = foreign_plugin\n", encoding="utf-8")


def test_of_installed_plugins_only_those_with_a_say_are_left(tmp_path, monkeypatch):
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = pytest.PytestPluginManager()
    plugins.load_setuptools_entrypoints("pytest11")
    loaded = {package.metadata["name"] for _, package in plugins.list_plugin_distinfo()}
    assert {"foreign-plugin", "pytest-xdist"} <= loaded
    pytest_addoption(plugins)
    assert not plugins.has_plugin("foreign")
    assert plugins.has_plugin("xdist")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 1])
def test_a_plugin_that_happens_to_be_installed_has_no_say(tmp_path, processes):
    install(tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/common/test_signals.py",
        "-n",
        str(processes),
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "this plugin does nothing" not in done.stdout + done.stderr
