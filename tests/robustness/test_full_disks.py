"""A disk that takes no more after any byte, for every writer: one sentence, nothing good lost, nothing left behind.

The limit on the size of a file stands for the full disk: the system takes what fits of a write, and refuses the rest.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from galaxies.common.durable_files import plain_errors
from galaxies.common.errors import UserError
from galaxies.common.outputs import write_output
from galaxies.datasets.packing import pack, unpack
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation import shards
from galaxies.generation.catalogue import write_pictures
from galaxies.generation.shard_formats import CsvCatalogue, NpyFormat
from galaxies.images.grids import save_picture, to_picture
from galaxies.mock_survey import writing
from galaxies.storage import parts
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.metrics_log import MetricsLog, read_metrics
from galaxies.storage.parts import read_parts, write_parts
from galaxies.storage.run_folder import load_run, save_epoch, save_latest
from galaxies.validation import commands, evaluation
from galaxies.validation.report import page, plots, report_file
from tests import kill_jobs
from tests.conftest import make_trainer, tree_of, write_dataset

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of a file")
ROWS = 6
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (ROWS, 3, 64, 64), dtype=np.uint8))
CATALOGUE = pd.DataFrame(
    {
        "seed": range(ROWS),
        "morphology": "spiral",
        "requested_size": 0.1,
        "flag": 0,
        "supported": True,
        "support": "like real galaxies",
        "nearest_real": 0.25,
    }
)


@contextmanager
def no_file_beyond(size: int, monkeypatch) -> Iterator[None]:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What is printed goes to a file of pytest, which may be longer.
    with monkeypatch.context() as patch:
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, io.StringIO())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_shard(folder: Path, level: int) -> None:
    """Write a shard as `ShardFolder.write` does, on the thread of its own."""
    files = folder / "images_00000.npy", folder / "catalogue_00000.csv"
    with shards.plain_errors(folder), shards.Disk() as disk:
        shard = shards._Shard(files, NpyFormat(tuple(IMAGES.shape[1:])), CsvCatalogue())
        disk.do(shard.begin, range(len(IMAGES)))
        disk.do(shard.append, IMAGES + level, CATALOGUE)
        disk.do(shard.finish)


def write_report(folder: Path, level: int) -> None:
    commands.report(folder / "c", folder / "d", folder / "r", 20, level, "cpu", 0, 1, {})


def write_single(folder: Path, level: int, format: str) -> None:
    write_pictures(folder / "out", {format}, IMAGES + level, CATALOGUE, ())


def write_mock_release(folder: Path, level: int) -> None:
    writing.write_release(folder / "out", 2 + level, 0, "cpu", overwrite=True)


def write_packed(folder: Path, level: int) -> None:
    (folder / "packed").mkdir(exist_ok=True)
    unpack(PACKED[level], folder / "out")


PACKED: dict[int, Path] = {}


def write_in_parts(folder: Path, level: int) -> None:
    write_parts(folder, "state", {"images.npy": PACKED[level] / "catalogue.csv"}, limit=600)


# Each writes something, and the same with other content in its place: what it is called in the sentence follows.
WRITERS: dict[str, tuple[Callable[[Path, int], None], str]] = {
    "latest": (lambda folder, level: save_latest(folder, content(level)), r"latest\.pt"),
    "epoch": (lambda folder, level: save_epoch(folder, 1 + level, content(level)), r"epoch_0002\.pt"),
    "dataset": (lambda folder, level: kill_jobs.write_dataset(folder / "out", level), "out"),
    "unpacked dataset": (write_packed, "out"),
    "parts": (write_in_parts, ""),
    "mock release": (write_mock_release, "out"),
    "png": (lambda folder, level: write_single(folder, level, "png"), "out|grid.png|galaxy"),
    "npz": (lambda folder, level: write_single(folder, level, "npz"), "out|grid.png"),
    "fits": (lambda folder, level: write_single(folder, level, "fits"), "out|grid.png"),
    "shard": (write_shard, ""),
    "report": (write_report, "r"),
    "grid": (
        lambda folder, level: save_picture(to_picture(IMAGES[level]), folder / "grid.png"),
        r"grid\.png",
    ),
    "table": (lambda folder, level: write_output(folder / "t.csv", b"%d" % level * 900, lambda _: True), r"t\.csv"),
}


def content(level: int) -> dict:
    return {"weights": torch.full((64, 64), float(level)), "metrics": [{"kind": "epoch"}] * 40, "level": level}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("packed")
    for level in (0, 1):
        data = write_dataset(folder / f"d{level}", 16, seed=level)
        pack(PreparedDataset.open(data), folder / f"p{level}")
        PACKED[level] = folder / f"p{level}"


@pytest.fixture
def short(monkeypatch) -> None:
    """Replace what takes time: the evaluation of the report, and the rendering of the mock survey."""
    found = SimpleNamespace(report=None, pictures=None)
    monkeypatch.setattr(evaluation, "evaluate", lambda *arguments: found)
    monkeypatch.setattr(plots, "draw_all", lambda *_: {"samples": {"light": b"PNG" * 500}})
    monkeypatch.setattr(page, "build_page", lambda *_: "<html>" * 300)
    numbers = iter(range(1000))  # so that no two reports are alike
    monkeypatch.setattr(
        report_file,
        "to_plain",
        lambda _: {"format_version": 2, "checkpoint": {"path": "c" * 700}, "data": {"number": next(numbers)}},
    )
    monkeypatch.setattr("galaxies.validation.report.figures.headline", lambda _: [])
    galaxies = SimpleNamespace(
        images=np.zeros((2, 3, 64, 64), np.uint8),
        truth={
            name: np.array([0.5, 0.25])
            for name in (
                "redshift",
                "petro_r50",
                "frame_scale",
                "magnitude",
                "absolute_magnitude",
                "petro_r50_kpc",
                "stellar_mass",
            )
        },
        object_ids=["a", "b"],
        morphologies=["spiral", "merger"],
    )
    monkeypatch.setattr(writing, "MockSurvey", lambda *_, **__: None)
    monkeypatch.setattr(writing, "_with_progress", lambda survey, count: [galaxies] * count)
    monkeypatch.setattr(writing, "_vote_row", lambda batch, row: {"dr7objid": batch.object_ids[row]})


@pytest.mark.parametrize("number", [9, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WRITERS)
def test_no_writer_loses_anything_at_any_byte(tmp_path, monkeypatch, packed, short, name, number, count):
    write, called = WRITERS[name]
    folder = tmp_path / "work"
    folder.mkdir()
    write(folder, 0)
    (folder / "mine.txt").write_text("the user's")
    before = tree_of(folder)
    write(shutil.copytree(folder, tmp_path / "whole"), 1)
    after = tree_of(tmp_path / "whole")
    largest = max(len(text) for file, text in after.items() if before.get(file) != text)
    places = {0, 1, largest // 2, largest - 1, *np.geomspace(1, largest - 1, number).astype(int).tolist()}
    for place in sorted(places):
        with no_file_beyond(place, monkeypatch), pytest.raises(UserError) as caught:
            write(folder, 1)
        text = str(caught.value)
        assert "could not be written: File too large (make room, or lift the limit" in text, place
        assert text.count("\n") == 0 and pd.Series([text]).str.contains(called).all()
        found = tree_of(folder)
        kept = {file: found.get(file) for file in before if not file.endswith("previous.pt")}
        good = kept == {file: content for file, content in before.items() if not file.endswith("previous.pt")}
        good = good and not list(folder.rglob(".*"))
        good = good and not {file for file in found.keys() - before.keys() if not file.endswith("previous.pt")}
        count("full disks at any byte", good)
        assert good, (place, found.keys() ^ before.keys())
    with no_file_beyond(largest + 4096, monkeypatch):
        write(folder, 1)
    assert tree_of(folder).keys() >= after.keys()


def test_a_line_of_the_log_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    record = {"kind": "train", "phase": "predictor", "step": 1, "physics": 0.25}
    log.write(record)
    before = log.path.read_bytes()
    for place in range(len(before), 2 * len(before)):
        with no_file_beyond(place, monkeypatch), pytest.raises(UserError, match=r"metrics\.jsonl could not be written"):
            log.write({**record, "step": 2})
        assert log.path.read_bytes() == before
    log.write({**record, "step": 3})
    assert [r["step"] for r in read_metrics(log.path)] == [1, 3]


def test_a_log_that_is_shortened_is_what_it_was_on_a_full_disk(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(5):
        log.write({"kind": "train", "phase": "predictor", "step": step, "physics": 0.25})
    before = log.path.read_bytes()
    for place in (0, 10, len(before) // 2):
        with no_file_beyond(place, monkeypatch), pytest.raises(UserError, match="File too large"):
            log.drop_after("predictor", 4)
        assert tree_of(tmp_path) == {"metrics.jsonl": before}


def test_parts_of_a_writing_that_failed_do_not_stay(tmp_path, monkeypatch, packed):
    write_in_parts(tmp_path, 0)
    before = tree_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "json_text", lambda *_, **__: "x" * 900)
        with no_file_beyond(650, monkeypatch), pytest.raises(UserError, match="File too large"):
            write_in_parts(tmp_path, 1)  # the parts have room, and their list has none
    assert tree_of(tmp_path) == before
    read_parts(tmp_path, "state", tmp_path / "out")
    assert tree_of(tmp_path / "out")["images.npy"] == (PACKED[0] / "catalogue.csv").read_bytes()


def test_a_checkpoint_says_what_the_disk_said(tmp_path, monkeypatch):
    """And not what torch makes of it: "unexpected pos 42496 vs 42448"."""
    save_latest(tmp_path, content(0))
    with no_file_beyond(3000, monkeypatch), pytest.raises(UserError) as caught:
        save_latest(tmp_path, content(1))
    assert str(caught.value).startswith(f"{tmp_path / 'latest.pt'} could not be written: File too large (make room")
    assert load_checkpoint(tmp_path / "latest.pt")["level"] == 0


def test_a_disk_that_fills_up_in_a_training_leaves_what_to_go_on_from(data, tmp_path):
    trainer = make_trainer(data, tmp_path)
    write = trainer.log.write

    def write_or_fail(record):
        if (record["kind"], record["phase"]) == ("train", "generator"):
            with plain_errors(trainer.log.path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(record)

    trainer.log.write = write_or_fail
    said = r"metrics\.jsonl could not be written: No space left on device \(make room on its disk\); "
    with pytest.raises(
        UserError, match=said + r"resume_training\.py --run r goes on from .*latest\.pt, the last good checkpoint"
    ):
        trainer.train()
    path, state = load_run(tmp_path / "checkpoints/r")
    assert path.name == "latest.pt" and state["phase"] == "generator"
