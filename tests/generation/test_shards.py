"""Mock catalogues in shards: what is in them, resuming, refusing, sharing between processes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch

import generate_from_checkpoint
from galaxies.common.errors import UserError
from galaxies.compute.ranks import Ranks
from galaxies.generation import shards as catalogue_shards
from galaxies.generation.sampler import GalaxySampler
from tests.conftest import ROOT

COUNT, SIZE = 50, 16
KINDS = (("images", "npy"), ("catalogue", "csv"))
REQUEST = ["--morphology", "spiral", "--ellipticity", "0.3", "--count", str(COUNT), "--shard-size", str(SIZE)]


@pytest.fixture(scope="module")
def checkpoint(trained):
    return trained / "checkpoints/tiny/latest.pt"


@pytest.fixture
def generate(checkpoint):
    """Call the script in this process."""

    def call(out, *options):
        common = ["--checkpoint", str(checkpoint), "--device", "cpu", "--out", str(out)]
        generate_from_checkpoint.main([*common, *map(str, options or REQUEST)])

    return call


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory):
    """The shards that one process writes."""
    out = tmp_path_factory.mktemp("whole") / "mock"
    generate_from_checkpoint.main(["--checkpoint", str(checkpoint), "--device", "cpu", "--out", str(out), *REQUEST])
    return out


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows_of(folder) -> list[dict[str, str]]:
    rows = []
    for path in sorted(folder.glob("catalogue_*.csv")):
        with path.open(newline="") as file:
            rows += csv.DictReader(file)
    return rows


def test_folder_holds_shards_their_catalogues_and_nothing_else(whole):
    shards = {f"{kind}_0000{k}.{end}" for kind, end in KINDS for k in range(4)}
    assert set(content(whole)) == shards | {"request.json", "grid.png"}


def test_shards_hold_what_the_sampler_draws(whole, checkpoint):
    images = np.concatenate([np.load(path, mmap_mode="r") for path in sorted(whole.glob("images_*.npy"))])
    rows = rows_of(whole)
    assert images.dtype == np.uint8 and images.shape == (COUNT, 3, 64, 64) and len(rows) == COUNT
    assert [int(row["seed"]) for row in rows] == list(range(COUNT))
    places = [(f"images_{k // SIZE:05d}.npy", k % SIZE) for k in range(COUNT)]
    assert [(row["file"], int(row["row"])) for row in rows] == places
    sampler = GalaxySampler.from_checkpoint(checkpoint, "cpu")
    wanted = torch.full((COUNT, 4), torch.nan)
    wanted[:, 2] = 0.3
    classes = torch.zeros(COUNT, dtype=torch.int64)
    values = sampler.complete_all(classes, wanted, range(COUNT))
    assert np.array_equal(images, sampler.generate(classes, values, range(COUNT)).numpy())
    assert [float(row["requested_size"]) for row in rows] == pytest.approx(values[:, 0].tolist(), rel=1e-6)
    assert {(row["set_by_user"], row["supported"]) for row in rows} == {("ellipticity", "True")}


def test_shards_say_the_same_as_single_images(generate, whole, tmp_path):
    generate(tmp_path / "single", *REQUEST[:-2], "--format", "npz")
    with np.load(tmp_path / "single/images.npz") as archive:
        shards = [np.load(path) for path in sorted(whole.glob("images_*.npy"))]
        assert np.array_equal(archive["images"], np.concatenate(shards))
    with (tmp_path / "single/catalogue.csv").open(newline="") as file:
        single = [{k: v for k, v in row.items() if k != "file"} for row in csv.DictReader(file)]
    assert single == [{k: v for k, v in row.items() if k not in ("file", "row")} for row in rows_of(whole)]


# Resuming


@pytest.mark.parametrize("lost", [["catalogue_00001.csv"], ["images_00000.npy", "images_00003.npy"], ["request.json"]])
def test_what_is_missing_is_written_again(generate, whole, tmp_path, lost):
    out = tmp_path / "mock"
    shutil.copytree(whole, out)
    if lost == ["request.json"]:  # interrupted before anything else was there
        shutil.rmtree(out)
        out.mkdir()
    else:
        for name in lost:
            (out / name).unlink()
    generate(out)
    assert content(out) == content(whole)


def test_complete_shards_are_not_touched(generate, whole, tmp_path, capsys, monkeypatch):
    out = tmp_path / "mock"
    shutil.copytree(whole, out)
    (out / "catalogue_00002.csv").unlink()
    numbers = []
    write = catalogue_shards.ShardFolder.write
    monkeypatch.setattr(
        catalogue_shards.ShardFolder,
        "write",
        lambda self, number, *rest: (numbers.append(number), write(self, number, *rest)),
    )
    generate(out)
    assert numbers == [2]
    assert "50 galaxies in 4 shards" in (printed := capsys.readouterr().out)
    assert "3 shards were there before" in printed


def test_a_shard_that_is_too_short_is_written_again(generate, whole, tmp_path):
    out = tmp_path / "mock"
    shutil.copytree(whole, out)
    (out / "images_00001.npy").write_bytes((out / "images_00001.npy").read_bytes()[:-1])
    generate(out)
    assert content(out) == content(whole)


def test_a_failing_disk_leaves_complete_shards_alone(generate, whole, tmp_path, monkeypatch):
    out, calls = tmp_path / "mock", []
    blocks = catalogue_shards.generate_blocks

    def fail_in_the_second(*asked):
        calls.append(1)
        yield from blocks(*asked)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(catalogue_shards, "generate_blocks", fail_in_the_second)
    with pytest.raises(
        UserError, match=r"mock could not be written: No space left on device \(make room on its disk\)"
    ):
        generate(out)
    assert set(content(out)) == {"images_00000.npy", "catalogue_00000.csv", "request.json", "grid.png"}
    monkeypatch.undo()
    generate(out)
    assert content(out) == content(whole)


@pytest.mark.parametrize("shard", [0, 3])
@pytest.mark.parametrize("what", ["append", "finish"])
def test_a_disk_that_fails_while_the_next_galaxies_are_drawn(generate, whole, tmp_path, monkeypatch, shard, what):
    out, begun = tmp_path / "mock", []
    begin, work = (getattr(catalogue_shards._Shard, name) for name in ("begin", what))

    def fail(self, *arguments):
        work(self, *arguments)
        if len(begun) > shard:
            with self._removed_on_failure():
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(catalogue_shards._Shard, "begin", lambda self, rows: (begun.append(1), begin(self, rows)))
    monkeypatch.setattr(catalogue_shards._Shard, what, fail)
    with pytest.raises(
        UserError, match=r"mock could not be written: No space left on device \(make room on its disk\)"
    ):
        generate(out)
    complete = shard + (what == "finish")  # it fails when the files have their names
    there = {f"{kind}_0000{k}.{end}" for kind, end in KINDS for k in range(complete)}
    assert set(content(out)) == there | {"request.json", "grid.png"}
    monkeypatch.undo()
    generate(out)
    assert content(out) == content(whole)


def test_what_the_disk_is_given_after_a_failure_is_not_done():
    done = []

    def fail():
        raise OSError("full")

    with pytest.raises(OSError, match="full"), catalogue_shards.Disk() as disk:
        disk.do(done.append, 1)
        disk.do(fail)
        for number in range(2, 9):
            disk.do(done.append, number)
    assert done == [1]


# Refusing


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("--count", "51", "count"),
        ("--shard-size", "10", "shard_size"),
        ("--ellipticity", "0.4", "requests"),
        ("--morphology", "merger", "requests"),
        ("--seed", "1", "requests"),
    ],
)
def test_another_request_is_refused(generate, whole, tmp_path, option, value, what):
    out = tmp_path / "mock"
    shutil.copytree(whole, out)
    options = [*REQUEST, "--seed", "0"]
    options[options.index(option) + 1] = value
    with pytest.raises(UserError, match=rf"another request \(another .*{what}.*name another folder"):
        generate(out, *options)
    assert content(out) == content(whole)


def test_another_checkpoint_is_refused(whole, trained, tmp_path):
    out = tmp_path / "mock"
    shutil.copytree(whole, out)
    other = str(trained / "checkpoints/tiny/epoch_0001.pt")
    with pytest.raises(UserError, match=r"another request \(another checkpoint\)"):
        generate_from_checkpoint.main(["--checkpoint", other, "--device", "cpu", "--out", str(out), *REQUEST])


def test_a_damaged_request_file_is_refused(generate, tmp_path):
    for text in ("", "[]", "{"):
        (tmp_path / "request.json").write_text(text)
        with pytest.raises(UserError, match="is damaged"):
            generate(tmp_path)


def test_shards_and_single_images_do_not_share_a_folder(generate, whole, tmp_path):
    generate(tmp_path / "single", "--morphology", "spiral", "--count", 2)
    with pytest.raises(UserError, match="holds generated galaxies: name another folder"):
        generate(tmp_path / "single")
    before = content(whole)
    with pytest.raises(UserError, match="holds shards of generated galaxies: name another folder"):
        generate(whole, "--morphology", "spiral", "--count", 2)
    assert content(whole) == before


def test_too_little_disk_is_said_before_anything_is_written(generate, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, 500_000))
    with pytest.raises(UserError, match=r"4 shards in .* need 0\.000629 GB and the disk has 0\.0005 GB free"):
        generate(tmp_path / "a/mock")
    assert list(tmp_path.iterdir()) == []


def test_disk_is_asked_for_missing_shards_only(generate, whole, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 0))
    generate(whole)


@pytest.mark.parametrize(
    "options",
    [[*REQUEST, "--format", "png"], ["--morphology", "spiral", "--count", "10001", "--format", "npz"]],
)
def test_formats_are_for_few_images(generate, tmp_path, options):
    with pytest.raises(UserError, match=r"--format (png|npz) is for up to 10,000 images"):
        generate(tmp_path / "mock", *options)
    assert list(tmp_path.iterdir()) == []


# Several processes


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_take_all_shards_and_each_once(generate, whole, tmp_path, monkeypatch, world_size, capsys):
    out, written = tmp_path / "mock", []
    write = catalogue_shards.ShardFolder.write
    monkeypatch.setattr(
        catalogue_shards.ShardFolder,
        "write",
        lambda self, number, *rest: (written.append(number), write(self, number, *rest)),
    )
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    for rank in reversed(range(world_size)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        generate(out)
        printed = capsys.readouterr()
        assert (printed.out == "") == (rank > 0)
        assert rank == 0 or "generating" not in printed.err
    assert sorted(written) == [0, 1, 2, 3]
    assert content(out) == content(whole)


def test_two_processes_at_once_write_what_one_writes(whole, checkpoint, tmp_path):
    command = [sys.executable, str(ROOT / "generate_from_checkpoint.py"), "--checkpoint", str(checkpoint)]
    common = {**os.environ, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [*command, "--device", "cpu", "--out", "mock", *REQUEST],
            cwd=tmp_path,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    assert content(tmp_path / "mock") == content(whole)


@pytest.mark.parametrize(
    "said", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "one"}, {"WORLD_SIZE": "0"}, {"LOCAL_RANK": "-1"}]
)
def test_wrong_ranks_are_one_sentence(monkeypatch, said):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="start several processes with torchrun"):
        Ranks.from_environment()


def test_a_process_without_ranks_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.from_environment() == Ranks(0, 1, 0)


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [Ranks(5, 8, 1).own_device(name) for name in ("auto", "cuda", "cpu", "cuda:0")] == [
        "cuda:1",
        "cuda:1",
        "cpu",
        "cuda:0",
    ]
    assert Ranks().own_device("auto") == "auto"


def test_the_request_file_names_what_decides_the_images(whole):
    found = json.loads((whole / "request.json").read_text())
    assert {"count", "shard_size", "image_size", "requests", "checkpoint", "device"} < set(found)
    assert found["device"] == "cpu"  # as in folders of earlier versions, which are gone on with
