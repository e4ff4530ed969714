"""A pipe, a device or a folder in place of any file that a script reads: refused at once, and never read for ever."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

from galaxies.storage.checkpoint import load_checkpoint
from tests.generation.painted import GRIZ, write_flux_checkpoint
from tests.robustness.test_fuzz import PARSERS, run, write_fits
from tests.test_prepare_data import make_gz2
from tests.validation.mock_fields import Source, light_of, write_field
from tests.validation.reports import old_plain

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(os.name != "posix", reason="Windows has no such files"),
]

_RELEASE = "release_checkpoint.py --checkpoint run/latest.pt --report report --data data --credit us --out new"
_GENERATE = "generate_from_checkpoint.py --checkpoint run/latest.pt --count 2 --out new"
_OBSERVE = "observe.py galaxies --survey LSST --bands r --checkpoint flux/latest.pt --out new"
_LABELLED = "prepare_data.py labelled --images pictures --labels labels.csv --workers 1 --out new --allow-empty-class"
_FITS = "prepare_data.py fits --images cutouts --catalogue objects.csv --out new"
_FIELD = "prepare_data.py field --frames frame.fits --bands r --min-snr 5 --out new"
_MEASURE = "evaluate.py measure cutouts/0.fits --out new/table.csv"
_VGG = "galaxy.py --data data --perceptual vgg16 --perceptual-weight 1 --vgg-weights vgg.pt --dry-run"
_DATASET = ("data/manifest.json", "data/images.npy", "data/catalogue.csv")

# (the option that names an input, a command line with it, the files that are read through it)
# fmt: off
INPUTS: list[tuple[str, str, tuple[str, ...]]] = [
    ("--checkpoint", "app.py --port 0 --checkpoint run/latest.pt", ("run/latest.pt",)),
    ("--checkpoint", "app.py --port 0 --checkpoint gan/generator.safetensors",
     ("gan/generator.json", "gan/generator.safetensors")),
    ("--real", "app.py --port 0 --checkpoint run/latest.pt --real data --real-credit me", _DATASET),
    ("--data", "galaxy.py --dry-run --data data", _DATASET),
    ("--vgg-weights", _VGG, ("vgg.pt",)),
    ("--start-from", "galaxy.py --dry-run --data data --start-from run/latest.pt", ("run/latest.pt",)),
    ("--checkpoint", "resume_training.py --checkpoint checkpoints/tiny/latest.pt --epochs 3",
     ("checkpoints/tiny/latest.pt", "checkpoints/tiny/metrics.jsonl")),
    ("--data", "resume_training.py --run tiny --epochs 3 --data data", _DATASET),
    ("--vgg-weights", "resume_training.py --run tiny --epochs 3 --vgg-weights vgg.pt", ()),  # its run has none
    ("--checkpoint", f"{_GENERATE} --morphology spiral", ("run/latest.pt",)),
    ("--requests", f"{_GENERATE.replace('--count 2 ', '')} --requests requests.csv", ("requests.csv",)),
    ("--requests", f"{_GENERATE.replace('--count 2 ', '')} --requests requests.parquet", ("requests.parquet",)),
    ("--requests", f"{_GENERATE.replace('--count 2 ', '')} --requests requests.fits", ("requests.fits",)),
    ("--path", "prepare_data.py gz2 --path files --out new --workers 1",
     ("files/gz2_hart16.csv.gz", "files/gz2_filename_mapping.csv", "files/images_gz2.zip")),
    ("--images", _LABELLED, ("pictures/0.png", "pictures")),
    ("--labels", _LABELLED, ("labels.csv",)),
    ("--labels", f"{_LABELLED} --attribute d4000", ("labels.csv",)),
    ("--catalogue", f"{_FITS} --attribute d4000", ("objects.csv",)),
    ("--classes", f"{_LABELLED} --classes classes.toml", ("classes.toml",)),
    ("--classes", "prepare_data.py gz2 --path files --classes classes.toml --out new", ("classes.toml",)),
    ("--classes", "prepare_data.py galaxy-zoo --table votes.csv --images pictures --classes classes.toml --out new",
     ("classes.toml",)),
    ("--classes", f"{_FITS} --classes classes.toml", ("classes.toml",)),
    ("--classes", f"{_FIELD} --catalogue objects.csv --classes classes.toml", ("classes.toml",)),
    ("--classes", "prepare_data.py simulated --count 4 --classes classes.toml --out new", ("classes.toml",)),
    ("--path", "prepare_data.py galaxy10 --path galaxy10.h5 --out new", ("galaxy10.h5",)),
    ("--classes", "prepare_data.py galaxy10 --path galaxy10.h5 --classes classes.toml --out new", ("classes.toml",)),
    ("--table", "prepare_data.py galaxy-zoo --table votes.csv --images pictures --out new", ("votes.csv",)),
    ("--images", "prepare_data.py galaxy-zoo --table votes.csv --images pictures --out new", ()),  # as of labelled
    ("--images", _FITS, ("cutouts/0.fits", "cutouts")),
    ("--catalogue", _FITS, ("objects.csv",)),
    ("--psf", f"{_FITS} --psf psf.fits", ("psf.fits",)),
    ("--masks", f"{_FITS} --masks masks", ("masks/0.fits",)),
    ("--weights", f"{_FITS} --weights masks", ("masks/0.fits",)),
    ("--frames", _FIELD, ("frame.fits",)),
    ("--mask", f"{_FIELD} --mask bad.fits", ("bad.fits",)),
    ("--weight", f"{_FIELD} --weight bad.fits", ("bad.fits",)),
    ("--catalogue", f"{_FIELD} --catalogue objects.csv", ("objects.csv",)),
    ("--mask", f"{_MEASURE} --mask masks/0.fits", ("masks/0.fits",)),
    ("--weight", f"{_MEASURE} --weight masks/0.fits", ("masks/0.fits",)),
    ("--psf", f"{_MEASURE} --psf psf.fits", ("psf.fits",)),
    ("--inputs", "prepare_data.py join --inputs data data2 --out new", _DATASET),
    ("--checkpoint", _RELEASE, ("run/latest.pt", "run/metrics.jsonl")),
    ("--report", _RELEASE, ("report/report.json",)),
    ("--data", _RELEASE, _DATASET),
    ("--checkpoint", "evaluate.py report --checkpoint run/latest.pt --data data --out new --count 20",
     ("run/latest.pt",)),
    ("--data", "evaluate.py report --checkpoint run/latest.pt --data data --out new --count 20", _DATASET),
    ("runs", "evaluate.py compare report report2/report.json", ("report2/report.json", "report/report.json")),
    ("images", "evaluate.py measure pictures/0.png --out new/table.csv", ("pictures/0.png",)),
    ("--reference", "evaluate.py sets --reference data --compare pictures --out new", _DATASET),
    ("--compare", "evaluate.py sets --reference data --compare pictures --out new", ("pictures",)),
    ("--psf", "evaluate.py sets --reference data --compare cutouts --psf psf.fits --out new", ()),  # as of `fits`
    ("--data", "evaluate.py validate --data data", _DATASET),
    (
        "--counts",
        "observe.py field --survey LSST --bands r --area 0.05 --counts counts.csv --counts-area 1 --out new",
        ("counts.csv",),
    ),
    ("--checkpoint", "observe.py field --survey LSST --bands r --area 0.05 --checkpoint flux/latest.pt --out new",
     ("flux/latest.pt",)),
    ("--checkpoint", f"{_OBSERVE} --morphology disc", ("flux/latest.pt",)),
    ("--requests", f"{_OBSERVE} --requests requests.csv", ("requests.csv",)),
    ("field", "evaluate.py field field --most 2", ("field/field.json", "field/r.fits", "field/truth.fits")),
    ("--checkpoint", "evaluate.py augmentation --checkpoint run/latest.pt --data data", ("run/latest.pt",)),
    ("--data", "evaluate.py augmentation --checkpoint run/latest.pt --data data", _DATASET),
    ("--checkpoint", "evaluate.py average --checkpoint run/latest.pt --data data", ("run/latest.pt",)),
    ("--data", "evaluate.py average --checkpoint run/latest.pt --data data", _DATASET),
]
# fmt: on
_OUTPUTS = {"--out", "--as-gz2"}
_REFUSALS = (
    "where a file is expected",
    "is missing",
    "there is no",
    "Not a directory",
    "cannot be read",
    "no complete zip",
    "not a complete zip",
    "holds neither",
    "no JPEG or PNG image",
    "holds no picture",
    "holds no FITS file",
    "holds no map",
)


def _cases():
    """Give each file with each kind of what can stand there; those beside the first of an option take their time."""
    for _, line, files in INPUTS:
        for place, file in enumerate(files):
            for kind in ("pipe", "device", "folder"):
                name = f"{line.split()[0]} {line.split()[1]} {file} {kind}"
                marks = () if place == 0 and kind == "pipe" else pytest.mark.slow
                yield pytest.param(line, file, kind, id=name, marks=marks)


@pytest.fixture(scope="module")
def whole(trained, dataset_path, tmp_path_factory):
    """A folder with one good input of every kind."""
    folder = tmp_path_factory.mktemp("inputs") / "whole"
    shutil.copytree(trained / "checkpoints", folder / "checkpoints")
    shutil.copytree(trained / "checkpoints/tiny", folder / "run")
    write_flux_checkpoint(folder / "flux/latest.pt", **GRIZ)
    for name in ("data", "data2"):
        shutil.copytree(dataset_path, folder / name)
    report, state = old_plain(), load_checkpoint(folder / "run/latest.pt")
    report["checkpoint"] |= {"run": "tiny", "step": state["step"]}
    for name in ("report", "report2"):
        (folder / name).mkdir()
        (folder / name / "report.json").write_text(json.dumps(report))
    shutil.copytree(Path(__file__).parents[2] / "checkpoints/released/gan", folder / "gan")
    (folder / "pictures").mkdir()
    Image.new("RGB", (96, 96), (9, 9, 9)).save(folder / "pictures/0.png")
    (folder / "labels.csv").write_text("image,morphology\n0.png,spiral\n")
    (folder / "classes.toml").write_text('[[class]]\nname = "a"\nwhere = "morphology == \\"spiral\\""\n')
    (folder / "counts.csv").write_text("magnitude,size\n20.5,0.7\n21.5,0.5\n")
    (folder / "requests.csv").write_text("morphology,size\nspiral,0.12\n")
    table = pd.DataFrame({"morphology": ["spiral"], "size": [0.12]})
    table.to_parquet(folder / "requests.parquet")
    columns = [fits.Column("morphology", "8A", array=["spiral"]), fits.Column("size", "E", array=[0.12])]
    fits.BinTableHDU.from_columns(columns).writeto(folder / "requests.fits")
    for name in ("vgg.pt", "galaxy10.h5", "votes.csv"):
        (folder / name).write_bytes(b"")
    make_gz2(folder / "files")
    write_fits(folder)
    sources = [Source(40, 40, 1000.0, 0.5)]
    write_field(folder / "field", sources, light_of(sources, 80, 80), 1.0)
    (folder / "masks").mkdir()
    psf = np.exp(-0.5 * (np.hypot(*(np.indices((15, 15)) - 7)) / 1.7) ** 2).astype(np.float32)
    for name, values in (
        ("masks/0.fits", np.ones((64, 64), np.int16)),
        ("bad.fits", np.ones((256, 256), np.int16)),
        ("psf.fits", np.stack([psf] * 3)),
    ):
        fits.PrimaryHDU(values).writeto(folder / name)
    return folder


class _TooLong(BaseException):
    """Two dozen seconds have passed."""


@contextlib.contextmanager
def within(seconds: int, pipe: Path):
    def stop(*_):
        with contextlib.suppress(OSError):  # whoever waits for the other end, in another thread, goes on
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _make(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


def test_every_option_that_names_an_input_is_tried():
    tried = set()
    for option, line, _ in INPUTS:
        script, command = line.split()[:2]
        commands = {command for name, command in PARSERS if name == script}
        tried.add((script, command if command in commands else "", option))
    for (script, command), parser in PARSERS.items():
        for action in parser._actions:
            is_path = getattr(action.type, "__name__", "") == "Path" or action.metavar in ("DIR", "FILE")
            name = action.option_strings[-1] if action.option_strings else action.dest
            assert not is_path or name in _OUTPUTS or (script, command, name) in tried, (script, command, name)


@pytest.mark.parametrize(("line", "file", "kind"), list(_cases()))
def test_what_is_no_file_is_refused_at_once(whole, tmp_path, monkeypatch, line, file, kind):
    folder = tmp_path / "w"
    folder.mkdir()
    for path in whole.iterdir():
        if path.name == file.split("/")[0]:
            (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
        else:
            (folder / path.name).symlink_to(path)
    given = folder / file
    if given.is_dir() and kind == "folder":
        pytest.skip("a folder is what is wanted")
    shutil.rmtree(given) if given.is_dir() else given.unlink()
    _make(kind, given)
    monkeypatch.chdir(folder)
    script, *argv = line.split()
    with within(24, given):
        status, errors = run(script, argv)
    assert status == 2, (status, errors)
    sentence = errors.strip().splitlines()[-1]
    assert sentence.startswith(f"{script}: error: ")
    assert any(words in sentence for words in _REFUSALS), sentence
