"""Shards as FITS tables, tars for WebDataset and Parquet catalogues: what other programs read in them, and resuming."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import tarfile
import time
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image

import generate_from_checkpoint
from galaxies.common.errors import UserError
from galaxies.generation import shards
from galaxies.validation.shard_reading import Shards
from tests import kill_jobs
from tests.conftest import tree_of
from tests.generation.painted import ATTRIBUTES, GRIZ, write_flux_checkpoint

COUNT, SIZE = 22, 8
REQUEST = ("--draw", "copula", "--count", COUNT, "--shard-size", SIZE, "--seed", 3)
FORMATS = ("npy", "fits-table", "webdataset")
PARQUET = ("--catalogue-format", "parquet")
ENDINGS = {"npy": "images_0000{}.npy", "fits-table": "galaxies_0000{}.fits", "webdataset": "galaxies_0000{}.tar"}


@pytest.fixture(scope="module")
def checkpoint(trained):
    return trained / "checkpoints/tiny/latest.pt"


@pytest.fixture(scope="module")
def generate(checkpoint):
    def call(out: Path, *options: object, checkpoint: Path = checkpoint) -> Path:
        words = ["--checkpoint", checkpoint, "--device", "cpu", "--out", out, *options]
        generate_from_checkpoint.main([str(word) for word in words])
        return out

    return call


@pytest.fixture(scope="module")
def written(generate, tmp_path_factory):
    """The same galaxies in each format, with Parquet beside those that are no arrays."""
    folder = tmp_path_factory.mktemp("formats")
    for name in FORMATS:
        generate(folder / name, *REQUEST, "--format", name, *(PARQUET if name != "npy" else ()))
    return folder


@pytest.fixture(scope="module")
def flux(generate, tmp_path_factory):
    """Galaxies of flux with a usual PSF, as arrays and as the other formats."""
    import torch

    folder = tmp_path_factory.mktemp("flux")
    psfs = torch.rand(4, 15, 15)
    checkpoint = write_flux_checkpoint(folder / "run/latest.pt", psfs / psfs.sum((1, 2), keepdim=True), **GRIZ)
    for name in FORMATS:
        generate(folder / name, *REQUEST, "--format", name, checkpoint=checkpoint)
    return folder


def images_of(folder: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in sorted(folder.glob("images_*.npy"))])


def catalogue_of(folder: Path) -> pd.DataFrame:
    tables = [pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in sorted(folder.glob("*.csv"))]
    return pd.concat(tables, ignore_index=True)


def same_values(mine, theirs) -> bool:
    mine, theirs = np.asarray(mine), np.asarray(theirs)
    if theirs.dtype.kind in "iufb" and mine.dtype.kind not in "OUS":
        return np.allclose(mine.astype(float), theirs.astype(float), rtol=1e-6, equal_nan=True)
    return [str(text).strip() for text in mine] == ["" if text != text else str(text) for text in theirs.tolist()]


# FITS


@pytest.mark.parametrize("kind", ["written", "flux"])
def test_fits_tables_hold_the_galaxies_and_pass_the_standard(request, kind):
    folder = request.getfixturevalue(kind)
    images, catalogue = images_of(folder / "npy"), catalogue_of(folder / "npy")
    start = 0
    for number in range(3):
        path = folder / "fits-table" / f"galaxies_0000{number}.fits"
        with fits.open(path) as units, warnings.catch_warnings():
            warnings.simplefilter("error")
            units.verify("exception")
            table = units["GALAXIES"]
            rows = slice(start, start + len(table.data))
            assert np.array_equal(table.data["image"], images[rows])
            assert table.data["image"].dtype.newbyteorder("=") == images.dtype
            assert table.data["id"].tolist() == list(range(rows.start, rows.stop))
            for name in set(catalogue.columns) - {"file", "row"}:
                assert same_values(table.data[name], catalogue[name][rows]), name
            assert table.header["SYNTHETI"] is True and "not observed" in units[0].header.comments["SYNTHETI"]
            assert len(units) == 2 + (kind == "flux")
        start = rows.stop
    assert start == COUNT


@pytest.mark.parametrize("kind", ["written", "flux"])
def test_fits_tables_have_the_sums_that_astropy_finds(request, tmp_path, kind):
    path = request.getfixturevalue(kind) / "fits-table" / "galaxies_00002.fits"  # of a part of a shard
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fits.open(path, checksum=True) as units:
            assert all({"CHECKSUM", "DATASUM"} <= set(unit.header) for unit in units)
            assert all(unit.verify_checksum() == 1 == unit.verify_datasum() for unit in units)
            place = units["GALAXIES"].fileinfo()["datLoc"] + 5
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    (tmp_path / "bad.fits").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which it says of the sums
        with fits.open(tmp_path / "bad.fits", checksum=True) as units:
            assert units["GALAXIES"].verify_datasum() == 0 == units["GALAXIES"].verify_checksum()


def test_fits_tables_say_units_and_what_columns_are(flux):
    table = Table.read(flux / "fits-table/galaxies_00000.fits", hdu="GALAXIES")
    assert str(table["requested_magnitude_r"].unit) == "mag" and str(table["image"].unit) == "nJy"
    assert str(table["measured_size_arcsec"].unit) == "arcsec" and table["requested_redshift"].unit is None
    header = fits.getheader(flux / "fits-table/galaxies_00000.fits", "GALAXIES")
    said = {header[f"TTYPE{k}"]: header[f"TCOMM{k}"] for k in range(1, header["TFIELDS"] + 1)}
    assert said["requested_magnitude_r"].startswith("requested: AB magnitude") and said["seed"] == "seed of the image"
    assert (header["BANDS"], header["MAGZERO"], header["PIXSCALE"], header["RUN"]) == ("g,r,i,z", 31.4, 0.2, "flux")
    psf = fits.getdata(flux / "fits-table/galaxies_00000.fits", "PSF")
    assert psf.shape == (4, 15, 15) and psf.sum((1, 2)) == pytest.approx(np.ones(4), abs=1e-5)


def test_units_that_fits_does_not_know_stand_in_the_comments(written):
    header = fits.getheader(written / "fits-table/galaxies_00000.fits", "GALAXIES")
    place = next(k for k in range(1, 99) if header[f"TTYPE{k}"] == "requested_size")
    assert f"TUNIT{place}" not in header and header[f"TCOMM{place}"].endswith("[frame widths]")


# WebDataset


def samples_of(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Group the members of a tar as the package webdataset does: what stands before the first dot is the key."""
    found: list[tuple[str, dict[str, bytes]]] = []
    with tarfile.open(path) as archive:
        for member in archive:
            assert member.isreg() and (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            key, _, ending = member.name.partition(".")
            if not found or found[-1][0] != key:
                found.append((key, {}))
            assert ending not in found[-1][1]
            found[-1][1][ending] = archive.extractfile(member).read()
    return found


def test_tars_hold_a_picture_and_a_row_a_galaxy(written):
    images, catalogue = images_of(written / "npy"), catalogue_of(written / "npy")
    samples = [s for path in sorted((written / "webdataset").glob("*.tar")) for s in samples_of(path)]
    assert [key for key, _ in samples] == [f"{k:09d}" for k in range(COUNT)]
    for k, (_, sample) in enumerate(samples):
        assert list(sample) == ["json", "png"]
        picture = np.asarray(Image.open(io.BytesIO(sample["png"])))
        assert np.array_equal(picture.transpose(2, 0, 1), images[k])
        said = json.loads(sample["json"])
        assert said["id"] == k and said["seed"] == 3 + k and "neural network" in said["about"]
        assert said["requested_size"] == pytest.approx(catalogue["requested_size"][k], rel=1e-7)
        assert (said["requested_redshift"] is None) == np.isnan(catalogue["requested_redshift"][k])
        assert isinstance(said["supported"], bool)


def test_tars_of_flux_hold_arrays(flux):
    images = images_of(flux / "npy")
    samples = [s for path in sorted((flux / "webdataset").glob("*.tar")) for s in samples_of(path)]
    for k, (_, sample) in enumerate(samples):
        assert list(sample) == ["json", "npy"]
        array = np.load(io.BytesIO(sample["npy"]))
        assert array.dtype == np.float32 and np.array_equal(array, images[k])


# Parquet, and the catalogue


def test_parquet_catalogues_have_types_units_and_nulls(written):
    plain, catalogue = catalogue_of(written / "npy"), pd.DataFrame()
    for name in ("fits-table", "webdataset"):
        paths = sorted((written / name).glob("catalogue_*.parquet"))
        tables = [pyarrow.parquet.read_table(path) for path in paths]
        catalogue = pd.concat([table.to_pandas() for table in tables], ignore_index=True)
        assert list(catalogue.columns) == list(plain.columns)
        for column in set(plain.columns) - {"file", "set_by_user"}:
            assert same_values(catalogue[column].to_numpy(), plain[column].to_numpy()), column
        assert catalogue["file"].tolist() == [ENDINGS[name].format(k // SIZE) for k in range(COUNT)]
        field = tables[0].schema.field("requested_size")
        assert str(field.type) == "float" and field.metadata[b"unit"] == b"frame widths"
        assert (
            sum(table["requested_redshift"].null_count for table in tables) == plain["requested_redshift"].isna().sum()
        )
    assert catalogue["seed"].dtype == np.int64 and catalogue["supported"].dtype == bool


def test_request_file_says_units(written, flux):
    said = json.loads((written / "npy/request.json").read_text())["attributes"]
    assert said["size"]["unit"] == "frame widths" and "half" in said["size"]["description"]
    said = json.loads((flux / "npy/request.json").read_text())["attributes"]
    assert said["magnitude_z"]["unit"] == "mag" and set(ATTRIBUTES) < set(said)


def test_measurements_can_be_left_out(generate, written, tmp_path):
    out = generate(tmp_path / "mock", *REQUEST, "--measure", "off")
    with_them, without = catalogue_of(written / "npy"), catalogue_of(out)
    left = [name for name in with_them if not name.startswith("measured_") and name != "flag"]
    assert list(without) == left and len(left) < len(list(with_them))
    pd.testing.assert_frame_equal(without, with_them[left])
    assert np.array_equal(images_of(out), images_of(written / "npy"))
    generate(tmp_path / "fits", *REQUEST, "--measure", "off", "--format", "fits-table")
    with fits.open(tmp_path / "fits/galaxies_00002.fits") as units:
        assert set(units[1].columns.names) == {*left, "id", "image"} - {"file", "row"}


# The same bytes, resuming


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_any_number_of_processes_writes_the_same_bytes(generate, written, tmp_path, monkeypatch, name, world_size):
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    for rank in range(world_size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        generate(tmp_path / "mock", *REQUEST, "--format", name, *(PARQUET if name != "npy" else ()))
    assert tree_of(tmp_path / "mock") == tree_of(written / name)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_not_whole_is_written_again_and_nothing_else(generate, written, tmp_path, monkeypatch, name):
    out, write, numbers = tmp_path / "mock", shards.ShardFolder.write, []
    shutil.copytree(written / name, out)
    monkeypatch.setattr(
        shards.ShardFolder, "write", lambda self, number, *rest: (numbers.append(number), write(self, number, *rest))
    )
    catalogue = "catalogue_0000{}." + ("csv" if name == "npy" else "parquet")
    options = (*REQUEST, "--format", name, *(PARQUET if name != "npy" else ()))
    shard = (out / ENDINGS[name].format(1)).read_bytes()
    for cut in (1, 2880, len(shard) // 2, len(shard)):
        (out / ENDINGS[name].format(1)).write_bytes(shard[:-cut])
        generate(out, *options)
    assert numbers == [1, 1, 1, 1]
    text = (out / catalogue.format(2)).read_bytes()
    for content in (text[:-5], b"", None):
        (out / catalogue.format(2)).unlink()
        if content is not None:
            (out / catalogue.format(2)).write_bytes(content)
        generate(out, *options)
    generate(out, *options)
    assert numbers == [1, 1, 1, 1, 2, 2, 2]
    assert tree_of(out) == tree_of(written / name)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signal")
@pytest.mark.parametrize("name", ["fits-table", "webdataset"])
def test_a_killed_command_goes_on(checkpoint, generate, written, tmp_path, name):
    out, options = tmp_path / "mock", (*REQUEST, "--format", name, *PARQUET)
    words = ["--checkpoint", checkpoint, "--device", "cpu", "--out", out, *options]
    process = kill_jobs.start(kill_jobs.script, "generate_from_checkpoint.py", words, tmp_path, tmp_path / "log")
    deadline = time.monotonic() + 60
    while process.is_alive() and not (out / ENDINGS[name].format(0)).exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    generate(out, *options)
    assert tree_of(out) == tree_of(written / name)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--format", "fits-table"), "format"),
        (("--format", "webdataset"), "format"),
        (PARQUET, "catalogue_format"),
        (("--measure", "off"), "measured"),
    ],
)
def test_another_format_is_refused_in_either_order(generate, written, tmp_path, options, what):
    with pytest.raises(UserError, match=rf"another request \(another {what}\): name another folder"):
        generate(written / "npy", *REQUEST, *options)
    other = generate(tmp_path / "other", *REQUEST, *options)
    with pytest.raises(UserError, match=rf"another request \(another {what}\): name another folder"):
        generate(other, *REQUEST)


def test_folders_whose_request_says_no_format_are_arrays(generate, written, tmp_path):
    out = tmp_path / "mock"
    shutil.copytree(written / "npy", out)
    said = json.loads((out / "request.json").read_text())
    for name in ("format", "catalogue_format", "measured", "attributes"):
        del said[name]
    (out / "request.json").write_text(json.dumps(said))
    (out / "catalogue_00001.csv").unlink()
    generate(out, *REQUEST)
    left = {name: content for name, content in tree_of(written / "npy").items() if name != "request.json"}
    assert {name: content for name, content in tree_of(out).items() if name != "request.json"} == left
    with pytest.raises(UserError, match=r"another format\)"):
        generate(out, *REQUEST, "--format", "webdataset")


# What is needed, and refused


@pytest.mark.parametrize("name", FORMATS)
def test_disk_that_is_asked_for_is_enough(written, name):
    for kind in (shards.NpyFormat, shards.WebDatasetFormat, shards.FitsTableFormat):
        if kind.name == name:
            extra = (written_facts(), ("spiral", "elliptical", "merger", "edge-on"), described())
            format = kind((3, 64, 64), "|u1", *(extra if name == "fits-table" else ()))
    used = sum(path.stat().st_size for path in (written / name).glob(f"{format.stem}_*"))
    room = format.bytes_of(COUNT)
    assert used - 3 * 20_480 <= room <= 2 * used  # the headers and ends of three files besides


def written_facts():
    from galaxies.generation.fits_files import ImageFacts

    return ImageFacts()


def described():
    from config_physics import ATTRIBUTES

    return {name: ATTRIBUTES[name] for name in ("size", "brightness", "ellipticity", "redshift")}


@pytest.mark.parametrize("name", ["fits-table", "webdataset"])
def test_a_full_disk_is_said_before(generate, tmp_path, monkeypatch, name):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, 100_000))
    with pytest.raises(
        UserError, match=r"3 shards in .* need 0\.000\d+ GB and the disk has 0\.0001 GB free: make room"
    ):
        generate(tmp_path / "mock", *REQUEST, "--format", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--format", "fits-table,npy"), "fits-table is a format of shards, which have one format: name it alone"),
        (("--format", "png,webdataset"), "webdataset is a format of shards, which have one format: name it alone"),
        (("--format", "hdf5"), "choose from png, npz, fits, separated by commas, or for shards one of npy, fits-table"),
        (("--format", "npy", "--names", "numbers"), "--names is for images of which each has a file of its own"),
        (("--catalogue-format", "parquet"), "--catalogue-format is for shards: ask for them with --shard-size"),
        (("--measure", "off"), "--measure is for shards: ask for them with --shard-size"),
        (("--format", "npy", "--catalogue-format", "xlsx"), "argument --catalogue-format: invalid choice: 'xlsx'"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(generate, tmp_path, options, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        generate(tmp_path / "mock", "--draw", "copula", "--count", 3, *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "options"), [("pyarrow", ("--format", "npy", *PARQUET)), ("astropy", ("--format", "fits-table"))]
)
def test_a_package_that_is_not_there_is_named(generate, tmp_path, monkeypatch, package, options):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(UserError, match=f"needs the package {package}: python -m pip install {package}"):
        generate(tmp_path / "mock", "--draw", "copula", "--count", 3, *options)


# Read as sets that are compared


@pytest.mark.parametrize("kind", ["written", "flux"])
@pytest.mark.parametrize("name", FORMATS)
def test_shards_of_any_format_hold_the_same_galaxies_to_the_bit(request, kind, name):
    folder = request.getfixturevalue(kind)
    shards = Shards(folder / name)
    assert shards.names == [f"{number:09d}" for number in range(COUNT)]
    assert shards.classes == catalogue_of(folder / "npy")["morphology"].tolist()
    rows = np.array([21, 0, 8, 7, 3, 16])  # of all three files, in no order
    found, wanted = shards.images(rows), images_of(folder / "npy")[rows]
    assert found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes()


def test_shards_with_a_catalogue_in_parquet_are_read(generate, tmp_path, written):
    out = generate(tmp_path / "out", *REQUEST, "--format", "npy", *PARQUET)
    assert Shards(out).classes == Shards(written / "npy").classes


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_shard_is_one_sentence_and_an_incomplete_folder_is_read_as_far_as_it_goes(written, tmp_path, name):
    out = tmp_path / name
    shutil.copytree(written / name, out)
    (out / ENDINGS[name].format(2)).unlink()
    assert len(Shards(out).names) == 2 * SIZE
    path = out / ENDINGS[name].format(1)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=f"{re.escape(str(path))} is damaged or none of this program"):
        Shards(out).images(np.arange(2 * SIZE))
    for number in range(2):
        (out / ENDINGS[name].format(number)).unlink()
    with pytest.raises(UserError, match="holds no complete shard"):
        Shards(out)
