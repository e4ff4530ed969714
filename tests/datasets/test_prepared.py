"""Opening a prepared dataset, condition vectors, and batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset, find_dataset, to_float, to_uint8
from galaxies.datasets.writing import DatasetWriter
from tests.conftest import render_galaxies, write_dataset

# Pixel conversions


def test_pixel_conversion_round_trip_is_exact_for_all_values():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(values)), values)


def test_pixel_range():
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_values_outside_the_range_are_clipped():
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


# On disk


def test_opened_dataset_has_its_rows_in_order(data):
    assert data.images.shape == (160, 3, 64, 64)
    assert data.catalogue["object_id"].iloc[3] == "58773000000000000003"
    assert data.classes(np.arange(5)).tolist() == [0, 1, 2, 3, 0]


def test_splits_are_complete_and_disjoint(data):
    rows = np.concatenate([data.rows(split) for split in ("train", "judge", "test")])
    assert sorted(rows) == list(range(160))


def test_an_object_may_be_called_na(tmp_path):
    images, names = render_galaxies(8)
    with DatasetWriter(tmp_path / "d", 64, 0.5, {}) as writer:
        writer.append(images, ["NA", "null", "nan", "None", "1", "2", "3", "4"], names, {})
    opened = PreparedDataset.open(tmp_path / "d")
    assert opened.catalogue["object_id"].tolist()[:4] == ["NA", "null", "nan", "None"]


def test_missing_attribute_value_is_nan(data):
    values = data.attributes(("size", "redshift"), np.arange(4))
    assert np.isnan(values[:, 1]).tolist() == [True, False, False, True]
    assert np.isfinite(values[:, 0]).all()


def test_attribute_without_values_names_those_that_have(data):
    with pytest.raises(UserError, match=r"no values of 'stellar_mass'.*size, brightness"):
        data.attributes(("stellar_mass",), np.arange(4))


@pytest.mark.parametrize("name", ["images.npy", "catalogue.csv"])
def test_changed_file_is_noticed(dataset_path, tmp_path, name):
    copy = shutil.copytree(dataset_path, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[-5] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} has changed since it was prepared"):
        PreparedDataset.open(copy)


@pytest.mark.parametrize("name", ["images.npy", "catalogue.csv", "manifest.json"])
def test_missing_file_is_one_sentence(dataset_path, tmp_path, name):
    copy = shutil.copytree(dataset_path, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(UserError, match="prepare"):
        PreparedDataset.open(copy)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "<html>", '{"format_version": 1, "sha256": 3}'])
def test_damaged_manifest_is_one_sentence(dataset_path, tmp_path, text):
    copy = shutil.copytree(dataset_path, tmp_path / "copy")
    (copy / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="prepare the data again"):
        PreparedDataset.open(copy)


def test_other_format_version_is_refused(dataset_path, tmp_path):
    copy = shutil.copytree(dataset_path, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    with pytest.raises(UserError, match="format version 99, this program reads 1"):
        PreparedDataset.open(copy)


def test_no_dataset_is_found_where_there_is_none(tmp_path):
    assert find_dataset(tmp_path / "missing") is None
    for name in ("notes", ".simulated.partial-17"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes/manifest.txt").write_text("{}")
    (tmp_path / ".simulated.partial-17/manifest.json").write_text("{}")  # of a process that was killed
    (tmp_path / "manifest.json").write_text("{}")
    assert find_dataset(tmp_path) is None


def test_a_chosen_dataset_is_taken_as_it_is(tmp_path):
    assert find_dataset(tmp_path, "elsewhere/mine") == Path("elsewhere/mine")
    write_dataset(tmp_path / "a", 8)
    assert find_dataset(tmp_path, "elsewhere/mine") == Path("elsewhere/mine")


def test_only_dataset_is_found_and_two_are_a_question(tmp_path):
    write_dataset(tmp_path / "a", 80)
    assert find_dataset(tmp_path) == tmp_path / "a"
    write_dataset(tmp_path / "b", 80)
    with pytest.raises(UserError, match=r"choose one: --data .*a, --data .*b"):
        find_dataset(tmp_path)
