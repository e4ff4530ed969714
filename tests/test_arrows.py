"""The shape of the code base: which folder may import which, and what is loaded only where it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache

from tests.conftest import ROOT

# What a folder of `galaxies/` may import besides itself, `common` and `config_physics`; DESIGN says it in a table, and
# CONTRIBUTING.md explains it. "models" are gan_model, diffusion_model and physics_model. A new file needs no entry.
_BELOW_MODELS = ("images", "measure", "telescope", "networks")
_BELOW_GENERATION = (*_BELOW_MODELS, "compute", "tables", "storage", "datasets", "spectra", "models")
MAY_IMPORT = {
    "common": (),
    "config_physics": (),
    "recipes": (),
    "command_line": ("recipes",),
    "compute": (),
    "images": (),
    "measure": ("compute", "images"),
    "tables": (),
    "storage": ("compute", "models"),
    "telescope": ("compute", "images"),
    "spectra": ("telescope",),
    "datasets": ("compute", "tables", "images", "measure", "telescope"),
    "mock_survey": ("compute", "tables", "measure", "telescope", "spectra", "datasets"),
    "networks": ("images", "measure", "telescope"),
    "models": _BELOW_MODELS,
    "generation": _BELOW_GENERATION,
    "training": (*_BELOW_GENERATION, "generation"),  # never validation: it would be trained to please its judge
    "mock_field": ("compute", "images", "measure", "telescope", "tables", "mock_survey", "generation"),
    "validation": (*_BELOW_GENERATION, "generation", "mock_field"),  # never training
    "serving": ("images", "measure", "telescope", "storage", "generation", "mock_field"),
}
MODELS = ("gan_model", "diffusion_model", "physics_model")
FREE = ("scripts", "studies", "benchmarks", "tests")  # may import anything, and nothing imports them
SCIENCE = ("astropy", "h5py", "matplotlib", "photutils", "scipy", "sklearn", "statmorph", "surveycodex", "torchvision")


def room(module: str) -> str:
    """Return the name under which the table knows a module."""
    first, *rest = module.split(".")
    if first == "galaxies":
        return rest[0] if rest else "galaxies"
    if first in MODELS:
        return "models"
    return first if first in (*MAY_IMPORT, *FREE) else "scripts"


def modules() -> dict[str, str]:
    """Return the text of every module of ours that is held to the table, by its dotted name."""
    files = [*ROOT.glob("*.py"), *(ROOT / "galaxies").rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts): f.read_text(encoding="utf-8") for f in files}


def imported(text: str, ours: set[str]) -> set[str]:
    """Return the modules of ours that a file imports, anywhere in it."""
    return {n for n in names_in(text) if n in ours or n.split(".")[0] in FREE}


@cache
def names_in(text: str) -> set[str]:
    """Return all that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written from the top"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def against(texts: dict[str, str]) -> list[str]:
    """Return the imports that the table does not allow."""
    found = []
    for name, text in sorted(texts.items()):
        here = room(name)
        if here in FREE:
            continue
        allowed = {here, "common", "config_physics", *MAY_IMPORT.get(here, ())}
        if here in ("common", "config_physics"):
            allowed = {here, "common"}
        found += [
            f"{name} imports {other}" for other in sorted(imported(text, set(texts))) if room(other) not in allowed
        ]
    return found


def test_folders_import_only_what_the_table_allows():
    assert against(modules()) == []


def test_the_table_knows_every_folder():
    rooms = {room(name) for name in modules() if name != "galaxies.__init__"}
    assert rooms <= {*MAY_IMPORT, "models", "scripts"}


def test_the_check_sees_what_is_against_the_table():
    texts = modules()
    for name, line in (
        ("galaxies.training.trainer", "from galaxies.validation.judge import Judge"),
        ("galaxies.training.trainer", "from galaxies.validation import judge"),
        ("galaxies.measure.photometry", "def late():\n    import galaxies.mock_survey.sersic"),
        ("galaxies.serving.service", "import galaxies.datasets.sources.galaxy_zoo"),
        ("config_physics", "from gan_model import Generator"),
        ("galaxies.images.grids", "from studies import runs"),
    ):
        assert against({**texts, name: f"{texts[name]}\n{line}\n"}), line


def test_at_most_sixteen_entries_of_python_at_the_top():
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    entries = {line.split("/")[0] for line in tracked.stdout.split()} or {p.name for p in ROOT.glob("*.py")}
    assert len(entries) <= 16, sorted(entries)


def test_training_never_sees_the_judge_and_needs_no_science_libraries():
    # Not by any chain of imports either: a judge that a generator was trained to please is none.
    scripts = "galaxy, resume_training, generate_from_checkpoint"
    code = f"import sys, galaxies.training.trainer, {scripts}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr
    assert "galaxies.training.trainer" in loaded.stdout.split()
    assert not {*SCIENCE, "flask", "waitress", "galaxies.validation.judge"} & set(loaded.stdout.split())


def test_importing_a_script_does_nothing():
    scripts = "app, galaxy, resume_training, generate_from_checkpoint, prepare_data, evaluate, observe"
    result = subprocess.run([sys.executable, "-c", f"import {scripts}"], cwd=ROOT, capture_output=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_measuring_and_drawing_do_not_load_the_compiler():
    # It takes a second, which only training with --compile has a use for.
    code = (
        "import sys, galaxies.measure.picture_files, galaxies.generation.catalogue\n"
        "from galaxies.storage.schema import Config, networks_of\n"
        "networks_of(Config()), networks_of(Config(diffusion=True)); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr
    assert "torch" in loaded.stdout.split()
    assert "torch._dynamo" not in loaded.stdout.split()


def test_the_server_loads_what_it_needs():
    code = (
        "import sys, app; print(*sys.modules); from galaxies.serving import application, server\n"
        "application.create_app(); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert loaded.returncode == 0, loaded.stderr
    imported, served = map(str.split, loaded.stdout.splitlines())
    assert not {"torch", "numpy", "flask", "pydantic", "waitress"} & set(imported)
    assert {"torch", "flask", "pydantic", "waitress"} <= set(served)
    assert not {*SCIENCE, "galaxies.training.trainer", "galaxies.validation.judge"} & set(served)
