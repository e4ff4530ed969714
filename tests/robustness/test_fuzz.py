"""Whatever stands on a command line or in a table: exit status 0 or 2, one sentence, never a traceback."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import app
import evaluate
import galaxy
import generate_from_checkpoint
import observe
import prepare_data
import release_checkpoint
import resume_training
from config_physics import Config
from galaxies import command_line
from galaxies.common.errors import UserError
from galaxies.datasets.sources.labelled import read_labels
from galaxies.generation.request_tables import read_requests
from galaxies.training import runs
from tests.conftest import ROOT, flux_galaxies, render_galaxies
from tests.generation.painted import GRIZ, write_flux_checkpoint
from tests.test_prepare_data import make_gz2

pytestmark = pytest.mark.filterwarnings("default")  # as for users, to whom a warning is no error
slow = pytest.mark.slow
SCRIPTS = {
    "app.py": app.main,
    "galaxy.py": galaxy.main,
    "resume_training.py": resume_training.main,
    "generate_from_checkpoint.py": generate_from_checkpoint.main,
    "observe.py": observe.main,
    "prepare_data.py": prepare_data.main,
    "evaluate.py": evaluate.main,
    "release_checkpoint.py": release_checkpoint.main,
}


class _Captured(BaseException):
    """Carries a parser out of a script."""


def parsers() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    """Return the parser of each script, or of each of its commands."""
    found = {}
    for name, main in SCRIPTS.items():

        def capture(self, *_):
            raise _Captured(self)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(_Captured) as caught:
            patch.setattr(command_line.Parser, "parse_args", capture)
            main([])
        parser = caught.value.args[0]
        commands = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        children = commands[0].choices.items() if commands else [("", parser)]
        found |= {(name, command): child for command, child in children}
    return found


PARSERS = parsers()


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]


# Help


@pytest.mark.parametrize("which", PARSERS, ids=" ".join)
def test_help_names_every_option_with_its_default(which):
    parser = PARSERS[which]
    text = " ".join(parser.format_help().split())
    for action in options_of(parser):
        assert action.help and all(flag in text for flag in action.option_strings), action
        takes_value = action.option_strings and action.nargs != 0 and not isinstance(action.default, bool)
        if takes_value and action.default not in (None, argparse.SUPPRESS):
            assert "default" in action.help, action.option_strings
    if which[0] == "galaxy.py":
        for field in Config.__dataclass_fields__.values():
            if field.metadata.get("option") is not False and field.default not in ("", ()):
                assert field.metadata["help"] in text


@pytest.mark.parametrize("file", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")), *SCRIPTS])
def test_options_that_are_written_about_exist(file):
    known = {flag for parser in PARSERS.values() for action in parser._actions for flag in action.option_strings}
    text = (ROOT / file).read_text(encoding="utf-8")
    known |= {"--nproc_per_node", "--compile"}  # of torchrun; the one that the guide says does not exist
    known |= {"--halpha-ew", "--d4000"}  # of a checkpoint that knows such columns of a user's own
    for path in (*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "studies").glob("*.py")):
        known |= set(re.findall(r'"(--[a-z-]+)"', path.read_text(encoding="utf-8")))
    if file.endswith(".py"):
        text = text.split('"""')[1]  # the manual; code and messages have their own tests
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", text)) <= known


# Command lines


@pytest.fixture(scope="module")
def sandbox(trained, dataset_path, tmp_path_factory):
    """A folder with one thing of every kind, good and bad."""
    folder = tmp_path_factory.mktemp("fuzz") / "a" / "b"
    (folder / "data").mkdir(parents=True)
    shutil.copytree(trained / "checkpoints", folder / "checkpoints")
    shutil.copytree(dataset_path, folder / "data/only")
    shutil.copytree(dataset_path, folder / "damaged")
    os.truncate(folder / "damaged/images.npy", 1000)
    shutil.copy(trained / "checkpoints/tiny/latest.pt", folder / "good.pt")
    write_flux_checkpoint(folder / "flux.pt", **GRIZ)
    (folder / "bad.pt").write_bytes((folder / "good.pt").read_bytes()[:5000])
    (folder / "pictures").mkdir()
    images, names = render_galaxies(8, side=160)
    for k, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / "pictures" / f"{k}.png")
    rows = [f"{k}.png,{name}" for k, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["image,morphology", *rows]))
    (folder / "requests.csv").write_text("morphology,size\nspiral,0.12\nmerger,\n")
    (folder / "report.json").write_text("{}")
    (folder / "empty").mkdir()
    write_fits(folder)
    make_gz2(folder / "files")
    return folder


def write_fits(folder: Path) -> None:
    """Write a cutout of three bands, its table, and a frame of one band, of which headers tell all."""
    from astropy.io import fits

    images, values = flux_galaxies(1, ("g", "r", "z"))
    cards = {"BUNIT": "nJy", "BANDS": "grz", "PIXSCALE": values["pixel_scale"][0]}
    (folder / "cutouts").mkdir()
    fits.PrimaryHDU(images[0], fits.Header(cards)).writeto(folder / "cutouts/0.fits")
    (folder / "objects.csv").write_text("object_id,redshift\n0,0.1\n")
    fits.PrimaryHDU(np.tile(images[0, 1], (4, 4)), fits.Header(cards | {"BANDS": "r"})).writeto(folder / "frame.fits")


@pytest.fixture
def light_work(sandbox, monkeypatch):
    """Let nothing run that takes long: what is tested is what comes before."""
    import flask

    from galaxies.datasets.sources import galaxy_zoo_files as download
    from galaxies.datasets.writing import DatasetWriter
    from galaxies.mock_survey import writing as mock_survey
    from galaxies.serving import server as http_server
    from galaxies.validation import evaluation, feature_spaces, subject
    from galaxies.validation import rare_class as augmentation
    from tests import kill_jobs

    def stop(*_, **__):
        raise UserError("here the work would begin")

    def write_mock(out, count, seed, image_size, device, command, overwrite=False, *_):
        with DatasetWriter(out, 64, 0.5, {"command_line": command}, overwrite) as writer:
            kill_jobs.append_grey_images(writer, 7)
        return writer

    bind = http_server.bind
    monkeypatch.setattr(http_server, "bind", lambda *_: bind("127.0.0.1", 0))  # asks no name server
    monkeypatch.setattr(http_server, "build_server", stop)
    monkeypatch.setattr(flask.Flask, "run", stop)
    monkeypatch.setattr(runs, "train", _train_light(runs.train))
    monkeypatch.setattr(download, "fetch_release", stop)
    monkeypatch.setattr(mock_survey, "write_dataset", write_mock)
    monkeypatch.setattr(mock_survey, "write_release", stop)
    monkeypatch.setattr(evaluation, "evaluate", stop)
    monkeypatch.setattr(subject, "load_judge", stop)
    monkeypatch.setattr(feature_spaces, "validate", stop)
    monkeypatch.setattr(augmentation, "try_augmentation", stop)
    monkeypatch.chdir(sandbox)
    return sandbox


def _train_light(train):
    """Train for one step of each phase at most, and write nothing."""

    def light(config, data, dry_run=False, **given):
        train(config, data, dry_run=True, **given)

    return light


# fmt: off
NUMBERS = st.sampled_from((
    "0", "1", "2", "3", "4", "5", "8", "16", "0.5", "0.01", "-1", "-0.1", "1e9", "1e-400", "nan", "inf", "-inf", "5.0",
    "1_0", "٣", "²", "0x10", "99999999999999999999999", "--", "-", "x", "", " 4 ", "4 4", "true",
))
PATHS = st.sampled_from((
    "data/only", "damaged", "empty", "pictures", "labels.csv", "requests.csv", "report.json", "good.pt", "bad.pt",
    "flux.pt", "~", "-x", "nowhere", "nowhere/deeper", ".", "..", "checkpoints/tiny", "checkpoints/tiny/latest.pt",
    "pictures/1.png", "pictures/*", "/dev/null", "new", "new/deeper", "", " ", "é", "x" * 300, "a\nb", "\udcff",
))
HEADS = st.sampled_from((
    "image", "morphology", "object_id", "pixel_scale", "redshift", "size", "seed", "stellar_mass", "mass", "",
    "\ufeffimage",
))
STRANGE = ("\udcff", "é\udcc3", "a\nb", "spiral", "--help", "-h", "size,color", "size,size", ",", "%s", "{}")
# fmt: on
WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12), st.sampled_from(STRANGE)
)


# Command lines that are right: what is strange comes on top of them, so that most get beyond their first mistake.
RIGHT = {
    ("app.py", ""): "--checkpoint good.pt",
    ("galaxy.py", ""): "--data data/only --width 4 --latent-dim 8 --batch-size 16",
    ("resume_training.py", ""): "--run tiny --epochs 3",
    ("generate_from_checkpoint.py", ""): "--checkpoint good.pt --morphology spiral --count 2 --out new",
    ("observe.py", "galaxies"): "--checkpoint flux.pt --survey LSST --bands r --morphology disc --count 2 --out new",
    ("observe.py", "field"): "--survey LSST --bands r --area 0.05 --faintest 22 --out new",
    ("prepare_data.py", "gz2"): "--path files --out new",
    ("prepare_data.py", "galaxy-zoo"): "--table labels.csv --images pictures --out new",
    ("prepare_data.py", "galaxy10"): "--path files --out new",
    ("prepare_data.py", "labelled"): "--images pictures --labels labels.csv --out new --workers 1",
    ("prepare_data.py", "fits"): "--images cutouts --catalogue objects.csv --out new",
    ("prepare_data.py", "field"): "--frames frame.fits --bands r --min-snr 5 --out new",
    ("prepare_data.py", "simulated"): "--count 8 --out new",
    ("prepare_data.py", "join"): "--inputs data/only data/only --out new",
    ("release_checkpoint.py", ""): "--checkpoint good.pt --report reports --data data/only --credit us --out new",
    ("evaluate.py", "report"): "--checkpoint good.pt --data data/only --out new",
    ("evaluate.py", "compare"): "report.json",
    ("evaluate.py", "measure"): "pictures/1.png --out new/table.csv",
    ("evaluate.py", "validate"): "--data data/only",
    ("evaluate.py", "augmentation"): "--checkpoint good.pt --data data/only",
    ("evaluate.py", "average"): "--checkpoint good.pt --data data/only",
    ("evaluate.py", "field"): "files --out new",
    ("evaluate.py", "sets"): "--reference data/only --compare data/only --out new",
}


def values_of(action: argparse.Action):
    if action.choices:
        return st.one_of(st.sampled_from([str(choice) for choice in action.choices]), WORDS)
    likely = {"run": st.sampled_from(["tiny", "new", "../tiny", "..", "/", ""])}.get(action.dest, NUMBERS)
    is_path = getattr(action.type, "__name__", "") == "Path" or action.dest == "data"
    return st.one_of(PATHS, PATHS, PATHS, WORDS) if is_path else st.one_of(likely, likely, WORDS)


@st.composite
def command_lines(draw, which):
    """Draw a command line: options that exist, with values of all kinds; now and then what does not exist."""
    script, command = which
    rarely = st.sampled_from([False] * 9 + [True])
    argv = ([command] if command else []) + ([] if draw(rarely) else RIGHT[which].split())
    for action in options_of(PARSERS[which]):
        if not draw(rarely):
            continue
        several = draw(st.integers(1, 3)) if action.nargs == "+" else 1
        words = [] if action.nargs == 0 else [draw(values_of(action)) for _ in range(several)]
        argv += [*([draw(st.sampled_from(action.option_strings))] if action.option_strings else []), *words]
    if draw(rarely):
        argv.insert(draw(st.integers(0, len(argv))), draw(WORDS))
    if script == "galaxy.py":
        argv.append("--dry-run")
    return argv


def run(script: str, argv: list[str]) -> tuple[int, str]:
    """Run a script as a shell would, but in this process; return its status and what it wrote to standard error."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", [script])
        command_line.run_script(lambda _: SCRIPTS[script](argv))
    streams[1].flush()
    return ended.value.code or 0, streams[1].buffer.getvalue().decode()


def check(script: str, argv: list[str]) -> int:
    """Run a script and expect status 0, or 2 and one sentence; return the status."""
    status, errors = run(script, argv)
    assert status in (0, 2), (status, errors)
    lines = [line for line in errors.replace("\r", "\n").splitlines() if line.startswith(f"{script}: error: ")]
    assert len(lines) == (status == 2), errors
    if status == 2:
        assert errors.rstrip().endswith(lines[0].rstrip()) and len(lines[0]) < 2000, errors
    return status


@pytest.mark.parametrize("cases", [3, pytest.param(90, marks=slow)])
@pytest.mark.parametrize("which", PARSERS, ids=" ".join)
def test_command_lines(light_work, which, cases, count):
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(command_lines(which))
    def try_one(argv):
        tidy(light_work)
        count("command lines")
        if check(which[0], argv) == 0:
            count("command lines, those that were accepted")

    try_one()
    tidy(light_work)


KEPT = {
    "data",
    "files",
    "damaged",
    "empty",
    "pictures",
    "cutouts",
    "objects.csv",
    "frame.fits",
    "labels.csv",
    "requests.csv",
    "report.json",
    "good.pt",
    "bad.pt",
}


def tidy(folder) -> None:
    """Remove what the last command line has made."""
    for path in [p for p in folder.iterdir() if p.name not in KEPT | {"checkpoints"}]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (folder / "empty").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


# Files that users write

CELLS = st.one_of(
    st.sampled_from(["spiral", "edge_on", "0.1", "nan", "inf", "1e400", "", '"', "0.png", "../0.png", "-1", "é", "\0"]),
    st.text(max_size=6),
)
TABLES = st.lists(st.lists(CELLS, max_size=5), max_size=5).flatmap(
    lambda rows: st.lists(HEADS, max_size=5).map(lambda head: "\n".join(",".join(row) for row in [head, *rows]))
)


@pytest.mark.parametrize("cases", [25, pytest.param(500, marks=slow)])
def test_tables(tmp_path, cases, count):
    path = tmp_path / "table.csv"

    @settings(max_examples=cases, deadline=None, database=None, derandomize=True)
    @given(st.one_of(TABLES.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=200)))
    def try_one(content):
        path.write_bytes(content)
        for read in (lambda p: read_labels(p).galaxies, lambda p: read_requests(p, ["size"], 0)):
            try:
                read(path)
            except UserError as error:
                assert len(str(error)) < 2000
            count("tables")

    try_one()


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@pytest.mark.parametrize("cases", [60, pytest.param(1000, marks=slow)])
def test_settings_of_a_checkpoint(cases, count):
    fields = sorted(Config().to_dict())

    @settings(max_examples=cases, deadline=None, database=None, derandomize=True)
    @given(st.dictionaries(st.sampled_from(fields), PLAIN, min_size=1, max_size=2), st.booleans())
    def try_one(changes, whole):
        try:
            Config.from_dict({**(Config().to_dict() if whole else {}), **changes})
        except UserError as error:
            assert "\n" not in " ".join(str(error).split())
        count("settings")

    try_one()


@pytest.mark.parametrize("cases", [25, pytest.param(500, marks=slow)])
def test_manifests_and_reports(sandbox, tmp_path, cases, count):
    folder = shutil.copytree(sandbox / "data/only", tmp_path / "d")
    whole = json.loads((folder / "manifest.json").read_text())

    @settings(max_examples=cases, deadline=None, database=None, derandomize=True)
    @given(st.one_of(PLAIN, st.dictionaries(st.sampled_from(sorted(whole)), PLAIN, max_size=2)), st.booleans())
    def try_one(content, merge):
        content = {**whole, **content} if merge and isinstance(content, dict) else content
        (folder / "manifest.json").write_text(json.dumps(content))
        (tmp_path / "report.json").write_text(json.dumps(content))
        check("evaluate.py", ["compare", str(tmp_path / "report.json")])
        check("prepare_data.py", ["join", "--inputs", str(folder), str(folder), "--out", str(tmp_path / "out")])
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        count("manifests and reports")

    try_one()
