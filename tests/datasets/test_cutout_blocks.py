"""Blocks of cutouts: the same from threads and from processes, measured, in order, rejected with a reason."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import prepare_data
from galaxies.datasets import cutout_blocks
from galaxies.datasets.cutout_blocks import read_blocks
from galaxies.datasets.cutouts import CutoutSource, Rejection, decode_cutout
from galaxies.measure.statistics_table import measure_attributes
from tests.datasets.test_cutouts import JPEG, encoded, galaxy


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cutouts")
    for k in range(6):
        (folder / f"{k}.jpg").write_bytes(encoded(galaxy(k, 200 + 56 * (k % 2))))
    (folder / "cut.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    (folder / "grey.jpg").write_bytes(encoded(galaxy().convert("L")))
    return folder


@pytest.fixture(scope="module")
def archive(folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "cutouts.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for file in sorted(folder.iterdir()):
            target.write(file, f"images/{file.name}")
    return path


NAMES = [f"{k % 6}.jpg" if k % 7 else ("cut.jpg", "grey.jpg", "none.jpg")[k // 7 % 3] for k in range(150)]


def same(blocks, others) -> None:
    assert len(blocks) == len(others)
    for one, other in zip(blocks, others, strict=True):
        assert (one.names, one.rejected) == (other.names, other.rejected)
        for part in ("images", "places", "crop_px"):
            assert np.array_equal(getattr(one, part), getattr(other, part)), part
        assert list(one.measured) == list(other.measured)
        for name, values in one.measured.items():
            assert np.array_equal(values, other.measured[name], equal_nan=True), name


def test_a_block_holds_what_each_picture_alone_gives(folder):
    with CutoutSource(folder) as source:
        blocks = list(read_blocks(source, NAMES, 64, workers=1))
    assert [len(block.names) for block in blocks] == [64, 64, 22]
    assert [name for block in blocks for name in block.names] == NAMES
    reasons = {"cut.jpg": Rejection.CORRUPT, "grey.jpg": Rejection.GREYSCALE, "none.jpg": Rejection.MISSING}
    for block in blocks:
        found = {k: left_out.reason for k, left_out in block.rejected.items()}
        assert found == {k: reasons[name] for k, name in enumerate(block.names) if name in reasons}
        assert sorted([*block.places.tolist(), *block.rejected]) == list(range(len(block.names)))
        for image, place, crop_px in zip(block.images, block.places, block.crop_px, strict=True):
            expected, expected_px, _ = decode_cutout((folder / block.names[place]).read_bytes(), 64)
            assert np.array_equal(image, expected) and crop_px == expected_px
        for name, values in measure_attributes(block.images).items():
            assert np.array_equal(block.measured[name], values, equal_nan=True), name


def test_neither_the_workers_nor_the_place_of_the_pictures_change_a_block(folder, archive):
    with CutoutSource(folder) as source:
        expected = list(read_blocks(source, NAMES, 64, workers=1))
        before = torch.get_num_threads()
        same(list(read_blocks(source, NAMES, 64, workers=3)), expected)
        assert torch.get_num_threads() == before
    with CutoutSource(archive) as source:
        same(list(read_blocks(source, NAMES, 64, workers=2)), expected)
        same(list(read_blocks(source, NAMES, 64, workers=2, processes=True)), expected)


def test_a_block_without_any_image(folder):
    with CutoutSource(folder) as source:
        (block,) = read_blocks(source, ["none.jpg", "cut.jpg"], 64)
    assert block.images.shape == (0, 3, 64, 64) and set(map(len, block.measured.values())) == {0}


@pytest.mark.parametrize("size, lengths", [(64, [64, 6]), (128, [32, 32, 6]), (256, [16, 16, 16, 16, 6])])
def test_blocks_of_larger_pictures_are_shorter(folder, size, lengths):
    with CutoutSource(folder) as source:
        assert [len(block.names) for block in read_blocks(source, ["none.jpg"] * 70, size)] == lengths


@pytest.mark.parametrize("count, workers, expected", [(30, 4, True), (29, 4, False), (30, 3, False)])
def test_processes_are_taken_for_much_work_on_several_cores(folder, monkeypatch, count, workers, expected):
    taken = []
    monkeypatch.setattr(cutout_blocks, "WORTH_PROCESSES", (30, 4))
    monkeypatch.setattr(
        "galaxies.compute.worker_processes.stream_on_processes",
        lambda function, items, processes, what: taken.append(processes) or map(function, items),
    )
    with CutoutSource(folder) as source:
        assert len(list(read_blocks(source, ["none.jpg"] * count, 64, workers=workers))) == 1
    assert taken == [workers] * expected


@pytest.mark.slow
def test_a_dataset_is_the_same_from_processes(folder, tmp_path, monkeypatch):
    classes = ("spiral", "elliptical", "merger", "edge-on")
    rows = ["image,morphology,pixel_scale", *(f"{k}.jpg,{classes[k % 4]},0.{k + 1}" for k in range(6))]
    rows += ["grey.jpg,spiral,0.1", "none.jpg,merger,0.2"]
    (labels := tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(cutout_blocks, "_ROWS", 128)  # two pictures a block
    for name, worth in (("threads", (9999, 1)), ("processes", (1, 1))):
        monkeypatch.setattr(cutout_blocks, "WORTH_PROCESSES", worth)
        out = ["--out", str(tmp_path / name), "--workers", "2"]
        prepare_data.main(["labelled", "--images", str(folder), "--labels", str(labels), *out])
    for name in ("images.npy", "catalogue.csv"):
        assert (tmp_path / "threads" / name).read_bytes() == (tmp_path / "processes" / name).read_bytes()
    images = np.load(tmp_path / "threads" / "images.npy")
    assert all(np.array_equal(images[k], decode_cutout((folder / f"{k}.jpg").read_bytes(), 64)[0]) for k in range(6))
    catalogue = pd.read_csv(tmp_path / "threads" / "catalogue.csv")
    assert catalogue["morphology"].tolist() == [classes[k % 4] for k in range(6)]
    crop_px = [100 + 28 * (k % 2) for k in range(6)]
    assert catalogue["pixel_scale"].tolist() == pytest.approx([(k + 1) / 10 * crop_px[k] / 64 for k in range(6)])
