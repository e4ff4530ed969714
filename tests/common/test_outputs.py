"""The gate for outputs: what is refused, what is replaced, what stays, and the names of files."""

import errno
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from galaxies.common import outputs
from galaxies.common.durable_files import plain_errors, temporary_of, whole_file
from galaxies.common.errors import UserError
from galaxies.common.outputs import (
    DATASET,
    KINDS,
    PICTURES,
    REPORT,
    RUN,
    begins_with,
    check_file,
    check_folder,
    has_entries,
    output_file,
    output_folder,
    write_output,
)
from tests.conftest import tree_of, write_dataset

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no links without leave, and no pipes among files")


@pytest.fixture
def dataset(dataset_path, tmp_path) -> Path:
    return write_dataset(tmp_path / "d", 16)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "generated"
    (folder / "images").mkdir(parents=True)
    (folder / "catalogue.csv").write_text("file,seed,morphology\ngalaxy_00000,0,spiral\n")
    for name in ("grid.png", "images/galaxy_00000.png"):
        (folder / name).write_text("old")
    return folder


def refused(call, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Kinds


def test_each_kind_is_told_by_what_stands_in_it(dataset, pictures, trained, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/request.json").write_text('{"format_version": 1, "count": 2, "shard_size": 1, "requests": ""}')
    (tmp_path / "sky").mkdir()
    (tmp_path / "sky/field.json").write_text('{"survey": "", "reference_band": "r", "faintest_magnitude": 25}')
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.json").write_text('{"format_version": 2, "checkpoint": {}, "data": {}}')
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/sets.json").write_text('{"format_version": 1, "reference": {}, "sets": []}')
    (tmp_path / "field").mkdir()
    (tmp_path / "field/evaluation.json").write_text('{"format_version": 1, "survey": "LSST", "of_folder": {}}')
    (tmp_path / "survey").mkdir()
    (tmp_path / "survey/truth.csv").write_text("object_id,morphology,redshift\n")
    release = Path(__file__).parents[2] / "checkpoints/released/gan"
    folders = {
        DATASET: dataset,
        PICTURES: pictures,
        RUN: trained / "checkpoints/tiny",
        outputs.SAMPLE_GRIDS: trained / "samples/tiny",
        outputs.SHARDS: tmp_path / "shards",
        REPORT: tmp_path / "report",
        outputs.SETS: tmp_path / "sets",
        outputs.FIELD_EVALUATION: tmp_path / "field",
        outputs.GALAXY_ZOO: tmp_path / "survey",
        outputs.RELEASE: release,
        outputs.MOCK_FIELD: tmp_path / "sky",
    }
    assert set(folders) == set(KINDS)
    for folder in folders.values():
        assert [kind.what for kind in KINDS if kind.recognizes(folder)] == [
            kind.what for kind, its_own in folders.items() if its_own == folder
        ]
    assert not any(kind.recognizes(tmp_path) for kind in KINDS)


@pytest.mark.parametrize(
    "content",
    [
        '{"manifest_version": 3, "name": "an extension"}',  # of a browser
        '{"format_version": 2, "header": {}, "modules": []}',  # of a game
        '{"schemaVersion": 2, "layers": []}',  # of a container
        "[1, 2]",
        "{",
        "",
        '{"sha256": {"images.npy": "0"}}',
        '{"sha256": 7}',
        "[" * 100_000,
    ],
)
def test_a_manifest_of_another_program_is_none(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "keep.txt").write_text("years of work")
    assert not DATASET.recognizes(tmp_path)
    text = refused(check_folder, tmp_path, DATASET, overwrite=True)
    assert "is not a prepared dataset: it is not replaced" in text


def test_a_dataset_with_a_damaged_manifest_may_be_prepared_again(dataset):
    (dataset / "manifest.json").write_text('{"format')
    assert sorted(DATASET.owned(dataset)) == ["catalogue.csv", "images.npy", "manifest.json"]
    (dataset / "images.npy").write_bytes(b"no array")
    assert DATASET.owned(dataset) == []


def test_of_generated_galaxies_those_in_the_catalogue_are_owned(pictures):
    (pictures / "images/galaxy_00001.png").write_text("the user's")
    (pictures / "images/galaxy_00000_annotated.png").write_text("the user's")
    (pictures / "images/file.png").write_text("the user's")  # which is how the column is called
    assert sorted(PICTURES.owned(pictures)) == ["catalogue.csv", "grid.png", "images/galaxy_00000.png"]


@posix
def test_links_are_not_owned(dataset, pictures, tmp_path):
    (dataset / "images.npy").rename(tmp_path / "images.npy")
    (dataset / "images.npy").symlink_to(tmp_path / "images.npy")
    assert sorted(DATASET.owned(dataset)) == ["catalogue.csv", "manifest.json"]
    assert "images.npy is there and is no file" in refused(check_folder, dataset, DATASET, ["images.npy"])
    (pictures / "images").rename(tmp_path / "elsewhere")
    (pictures / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert sorted(PICTURES.owned(pictures)) == ["catalogue.csv", "grid.png"]
    names = ["images/galaxy_00007.png"]
    assert "images is there and is no file of this program" in refused(check_folder, pictures, PICTURES, names)


# Folders


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.what)
def test_a_folder_of_another_kind_is_refused(dataset, kind):
    if kind is DATASET:
        check_folder(dataset, kind, kind.files)
        return
    text = refused(check_folder, dataset, kind, kind.files, option="--there")
    assert text == f"{dataset} holds a prepared dataset: name another folder with --there"


def test_a_folder_that_is_one_of_the_inputs_is_refused(dataset, tmp_path):
    for inputs in ([dataset], [tmp_path / "x" / ".." / "d"], [dataset / "catalogue.csv"]):
        assert "is one of the inputs" in refused(check_folder, dataset, DATASET, DATASET.files, inputs, overwrite=True)
    check_folder(dataset, DATASET, DATASET.files, [tmp_path, dataset / "mine", tmp_path / "other"], overwrite=True)


def test_a_name_in_the_way_is_refused_in_upper_and_lower_case(tmp_path):
    check_folder(tmp_path, PICTURES, ["grid.png", "images/galaxy_00000.png"])
    (tmp_path / "images").mkdir()
    check_folder(tmp_path, PICTURES, ["grid.png", "images/galaxy_00000.png"])
    (tmp_path / "images/galaxy_00000.png").write_text("the user's")
    text = refused(check_folder, tmp_path, PICTURES, ["grid.png", "images/galaxy_00000.png"])
    assert text.startswith(f"{tmp_path / 'images/galaxy_00000.png'} is there and is no file of this program: move it")


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "is a file: name another folder" in refused(check_folder, tmp_path / "file", REPORT)
    assert "a part of the path is a file" in refused(output_folder(tmp_path / "file/x", REPORT).__enter__)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    out = tmp_path / "new" / "out"
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), output_folder(out, REPORT) as folder:
            (folder / "report.json").write_text("{}")
            raise error
        assert not out.exists() and list((tmp_path / "new").iterdir()) == []
    with output_folder(out, REPORT) as folder:
        (folder / "report.json").write_text("{}")
        assert not out.exists()
    assert tree_of(tmp_path) == {"new/out/report.json": b"{}"}


def test_what_appears_while_the_work_is_done_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    text = refused(_write_while_somebody_else_does, out)
    assert "report.json is there and is no file of this program" in text
    assert tree_of(tmp_path) == {"out/report.json": b"the user's"}


def _write_while_somebody_else_does(out: Path) -> None:
    with output_folder(out, REPORT) as folder:
        (folder / "report.json").write_text("{}")
        out.mkdir()
        (out / "report.json").write_text("the user's")


@posix
def test_a_link_to_a_folder_stands_for_it(dataset, tmp_path):
    (tmp_path / "link").symlink_to(dataset, target_is_directory=True)
    with output_folder(tmp_path / "link", DATASET, overwrite=True) as folder:
        (folder / "manifest.json").write_text("new")
    assert (tmp_path / "link").is_symlink() and tree_of(dataset) == {"manifest.json": b"new"}
    (tmp_path / "nowhere").symlink_to(tmp_path / "far/away", target_is_directory=True)
    with output_folder(tmp_path / "nowhere", DATASET) as folder:
        (folder / "manifest.json").write_text("new")
    assert (tmp_path / "nowhere").is_symlink() and (tmp_path / "far/away/manifest.json").is_file()


# Files

OURS = begins_with("file", "side_px", alone=True)


@pytest.mark.parametrize(
    "content",
    ["file,side_px\na.png,64\n", "file,side_px\r\n", 'file,"side_px"\n', ""],
    ids=["", "CR", "quoted", "empty"],
)
def test_a_file_of_ours_is_replaced(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode())
    write_output(path, b"new", OURS)
    assert tree_of(tmp_path) == {"t.csv": b"new"}


@pytest.mark.parametrize(
    "content",
    ["# Notes\n", "file,side_px,mine\n", "file\n", "\n", "\x00" * 100, "file;side_px\n", "\ufefffile,side_px\n"],
)
def test_a_file_of_the_users_is_not(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode())
    text = refused(write_output, path, b"new", OURS)
    assert text == f"{path} is there and is not what this program writes here: move it, or name another file with --out"
    assert tree_of(tmp_path) == {"t.csv": content.encode()}


def test_an_input_is_not_written_over(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("file,side_px\n")
    (tmp_path / "s").mkdir()
    for given in (path, tmp_path / "s/../a.csv"):
        assert "is one of the inputs and would be written over" in refused(check_file, path, OURS, [given])
    assert "is one of the inputs" in refused(check_file, tmp_path / "s/../a.csv", OURS, [path])


def test_a_file_of_a_folder_of_this_program_is_not_written_over(dataset):
    for name in ("catalogue.csv", "images.npy", "manifest.json", "judge-0123456789abcdef.pt"):
        text = refused(check_file, dataset / name, lambda path: True)
        assert "is the name of a file of a prepared dataset" in text
    check_file(dataset / "measured.csv", OURS)


@posix
def test_devices_pipes_folders_and_links(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert "is a pipe or a device" in refused(write_output, tmp_path / "pipe", b"", OURS)
    assert "is a pipe or a device" in refused(write_output, Path("/dev/null"), b"", OURS)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert "is a folder" in refused(write_output, tmp_path / "folder", b"", OURS)
    (tmp_path / "thesis.csv").write_text("years of work")
    (tmp_path / "t.csv").symlink_to(tmp_path / "thesis.csv")
    assert "thesis.csv is there and is not what" in refused(write_output, tmp_path / "t.csv", b"", OURS)
    (tmp_path / "thesis.csv").write_text("file,side_px\n")
    write_output(tmp_path / "t.csv", b"new", OURS)
    assert (tmp_path / "t.csv").is_symlink() and (tmp_path / "thesis.csv").read_bytes() == b"new"


def test_tables_and_json_are_told_by_their_content(tmp_path):
    path = tmp_path / "x"
    figures = begins_with("figure", then=["one", "two"])
    for content, ours in (
        ("figure,r\none,1\n", True),
        ("figure,r\nthree,1\n", False),
        ("figure,r\n", False),
        ("", False),
    ):
        path.write_text(content)
        assert figures(path) is ours
    checks = has_entries("a", "b")
    for value, ours in (({"a": 1, "b": 2, "c": 3}, True), ({"a": 1}, False), ([1], False)):
        path.write_text(json.dumps(value))
        assert checks(path) is ours


# Names


@pytest.mark.parametrize("name", ["n" * 255, "ö" * 127, "n" * 251 + ".csv", "n" * 230])
def test_the_longest_names_are_written(tmp_path, name):
    path = tmp_path / name
    write_output(path, b"old", OURS)
    with pytest.raises(ZeroDivisionError), output_file(path, lambda path: True) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == [name] and path.read_bytes() == b"old"
    assert temporary_of(path) != temporary_of(path.with_name("m" + name[1:]))


def test_longer_names_are_one_sentence(tmp_path):
    for call in (
        lambda p: write_output(p, b"", OURS),
        lambda p: check_folder(p, REPORT),
        lambda p: check_file(p, OURS),
    ):
        assert "name too long (choose a shorter name)" in refused(call, tmp_path / ("n" * 256))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("out/nul.csv", "nul.csv"),
        ("CON", "CON"),
        ("com1", "com1"),
        ("a/LPT9.txt/b", "LPT9.txt"),
        ("aux .png", "aux .png"),
        ("what?.csv", "what?.csv"),
        ("a*b", "a*b"),
        ("a ", "a "),
        ("a./b", "a."),
        ("tab\tx", "tab\tx"),
    ],
)
def test_names_that_windows_refuses(monkeypatch, path, part):
    assert outputs.name_windows_refuses(Path(path)) == part
    monkeypatch.setattr(outputs, "_ON_WINDOWS", False)
    outputs.check_name(Path(path), "--out")
    monkeypatch.setattr(outputs, "_ON_WINDOWS", True)
    assert f"--out {path}: Windows has no file" in refused(outputs.check_name, Path(path), "--out")


@pytest.mark.parametrize(
    "path", ["console.csv", "../a", "./a", "a.b c", "null", "com10", ".hidden", "größe.csv", "aux-1"]
)
def test_names_that_windows_takes(path):
    assert outputs.name_windows_refuses(Path(path)) is None


# Disks


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.ENOENT]
)
def test_every_refusal_of_the_disk_says_why_and_what_to_do(tmp_path, code):
    def fail() -> None:
        with plain_errors(tmp_path / "x"):
            raise OSError(code, os.strerror(code))

    text = refused(fail)
    assert text.startswith(f"{tmp_path / 'x'} could not be written: {os.strerror(code)} (")


def test_an_error_without_a_number_is_said_too(tmp_path):
    def fail() -> None:
        with plain_errors(tmp_path / "x"):
            raise OSError("disk full")

    assert refused(fail) == f"{tmp_path / 'x'} could not be written: disk full"


def test_two_processes_that_write_one_file_do_not_share_a_temporary(tmp_path, monkeypatch):
    path = tmp_path / "t"
    with whole_file(path) as one:
        one.write(b"one")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with whole_file(path) as two:
            two.write(b"two")
        assert path.read_bytes() == b"two"
    assert path.read_bytes() == b"one" and [p.name for p in tmp_path.iterdir()] == ["t"]


if sys.platform == "linux":

    def test_a_folder_that_cannot_be_written_beside_is_written_in(dataset, tmp_path, monkeypatch):
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
        (dataset / "mine").mkdir()
        with output_folder(dataset, DATASET, overwrite=True) as folder:
            assert folder.parent == dataset
            (folder / "manifest.json").write_text("new")
        assert tree_of(dataset) == {"manifest.json": b"new"} and (dataset / "mine").is_dir()
        assert sorted(p.name for p in dataset.iterdir()) == ["manifest.json", "mine"]
