"""The shape of the code base: imports point down, and nothing slow or foreign is imported where it is not needed."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

SCIENCE = ("astropy", "matplotlib", "photutils", "scipy", "sklearn", "statmorph", "torchvision")


def test_training_never_sees_the_judge():
    # Not by any chain of imports either: a judge that a generator was trained to please is none.
    code = "import sys, galaxy, galaxies.training.trainer, resume_training; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "galaxies.training.trainer" in loaded.stdout.split()
    assert "galaxies.validation.judge" not in loaded.stdout.split()


def test_importing_a_script_does_nothing():
    for script in ("app", "galaxy", "resume_training", "generate_from_checkpoint", "prepare_data", "evaluate"):
        result = subprocess.run([sys.executable, "-c", f"import {script}"], cwd=ROOT, capture_output=True, timeout=60)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_training_and_generation_need_no_science_libraries():
    code = "import sys, galaxies.training.trainer, generate_from_checkpoint; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr
    assert not {*SCIENCE, "flask", "waitress"} & set(loaded.stdout.split())


def test_the_server_loads_what_it_needs():
    code = (
        "import sys, app; print(*sys.modules); from galaxies.serving.server import bind; app.create_app()\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr
    imported, served = map(str.split, loaded.stdout.splitlines())
    assert not {"torch", "numpy", "flask", "waitress"} & set(imported)
    assert {"torch", "flask", "waitress"} <= set(served)
    assert not {*SCIENCE, "galaxies.training.trainer", "galaxies.validation.judge"} & set(served)
