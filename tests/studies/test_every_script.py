"""Every script of studies/ and benchmarks/: it runs from another folder, and the READMEs name what exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FOLDERS = ("studies", "benchmarks")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py")
SCRIPTS = [path for path in MODULES if "run_script(main)" in path.read_text(encoding="utf-8")]


# Runs each script as Python would, but in one process, which loads torch only once: before each of them it forgets
# where the project lies and what was imported from there, but for what is within `galaxies`, which has to be found.
RUN_EACH = """
import contextlib, io, json, pathlib, runpy, sys, torch
root, *scripts = sys.argv[1:]
outside, said = [p for p in sys.path if p and pathlib.Path(p).resolve() != pathlib.Path(root)], {}
for script in scripts:
    for name, module in list(sys.modules.items()):
        if name != "__main__" and str(getattr(module, "__file__", None) or "").startswith((root + "/", root + chr(92))):
            if "site-packages" not in module.__file__ and not name.startswith("galaxies."):
                del sys.modules[name]
    path = pathlib.Path(root, script)
    sys.path[:], sys.argv[:] = [str(path.parent), *outside], [str(path), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = runpy.run_path(str(path), run_name="__main__") and "did not exit"
        except SystemExit as end:
            status = end.code
        except BaseException as error:
            status = repr(error)
    said[script] = [status, out.getvalue(), err.getvalue()]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each script answers to --help from an empty folder, which stays empty: (exit status, output, errors)."""
    folder = tmp_path_factory.mktemp("elsewhere")
    names = [f"{path.parent.name}/{path.name}" for path in SCRIPTS]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", RUN_EACH, str(ROOT), *names]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", [f"{path.parent.name}/{path.name}" for path in SCRIPTS])
def test_help_from_another_folder(said, script):
    status, output, errors = said[script]
    assert (status, errors) == (0, "")
    assert f"usage: {script.split('/')[1]}" in output
    assert f"python {script}" in output


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_names_every_file_and_no_other(folder):
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in MODULES if path.parent.name == folder}
    elsewhere = {path.name for path in ROOT.glob("*.py")}
    named = set(re.findall(r"`(?:python )?(?:[a-z]+/)?([a-z_]+\.py)", text))
    assert there <= named
    assert named <= there | elsewhere


def test_the_guides_quote_the_studies_that_the_readme_says():
    lines = (ROOT / "studies/README.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == sum(path.parent.name == "studies" for path in SCRIPTS)
    for row in rows:
        script = re.search(r"`([a-z_]+\.py)`", row)[1]
        guides = re.findall(r"\(\.\./(docs/[a-z]+\.md)\)", row)
        assert guides, script
        assert any(f"studies/{script}" in (ROOT / guide).read_text(encoding="utf-8") for guide in guides), script
