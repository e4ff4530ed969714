"""Packed datasets: the same bytes again, and what stands in the way in one sentence."""

from __future__ import annotations

import filecmp

import numpy as np
import pytest
from PIL import Image, features

from config_physics import MORPHOLOGY_NAMES
from galaxies.common.durable_files import sha256_of
from galaxies.common.errors import UserError
from galaxies.datasets import packing
from galaxies.datasets.packing import pack, unpack
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from tests.conftest import write_dataset

FILES = ["catalogue.csv", "images.npy", "manifest.json"]

pytestmark = pytest.mark.skipif(not features.check("webp"), reason="Pillow has no WebP here")


def test_a_dataset_comes_back_to_the_byte(data, tmp_path):
    files = pack(data, tmp_path / "packed")
    assert {path.parent for path in files.values()} == {tmp_path / "packed"}
    unpack(tmp_path / "packed", tmp_path / "back")
    assert filecmp.cmpfiles(data.path, tmp_path / "back", FILES, shallow=False) == (FILES, [], [])
    again = PreparedDataset.open(tmp_path / "back")
    assert again.manifest["sha256"]["images.npy"] == sha256_of(data.path / "images.npy")


@pytest.mark.parametrize("side", [64, 128])
def test_noise_on_several_sheets_comes_back(tmp_path, monkeypatch, side):
    monkeypatch.setattr(packing, "_LONGEST_PX", 3 * side)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (11, 3, side, side), dtype=np.uint8)
    noise[3], noise[4] = 0, 255
    with DatasetWriter(tmp_path / "noise", side, 1.0, {}) as writer:
        writer.append(noise, [f"o{k}" for k in range(11)], [MORPHOLOGY_NAMES[k % 4] for k in range(11)], {})
    files = pack(PreparedDataset.open(tmp_path / "noise"), tmp_path / "packed")
    assert sum(name.endswith(".webp") for name in files) == 4
    unpack(tmp_path / "packed", tmp_path / "back")
    assert filecmp.cmpfiles(tmp_path / "noise", tmp_path / "back", FILES, shallow=False)[0] == FILES


def test_galaxies_become_smaller(data, tmp_path):
    files = pack(data, tmp_path)
    assert sum(path.stat().st_size for path in files.values()) < 0.7 * (data.path / "images.npy").stat().st_size


def test_a_sheet_is_as_long_as_webp_allows(tmp_path):
    longest = np.zeros((packing._LONGEST_PX + 1, 1, 3), np.uint8)
    Image.fromarray(longest[:-1]).save(tmp_path / "longest.webp", lossless=True)
    with pytest.raises(ValueError, match="ncoding"):
        Image.fromarray(longest).save(tmp_path / "too_long.webp", lossless=True)


def test_what_is_changed_is_refused_and_nothing_is_left(data, tmp_path):
    packed = tmp_path / "packed"
    pack(data, packed)
    sheet = np.asarray(Image.open(packed / "sheet_00000.webp").convert("RGB")).copy()
    sheet[7, 7, 0] ^= 1
    Image.fromarray(sheet).save(packed / "sheet_00000.webp", lossless=True)
    with pytest.raises(UserError, match="has other checksums than its manifest: pack it again"):
        unpack(packed, tmp_path / "back")
    (packed / "sheet_00000.webp").write_bytes(b"no picture")
    with pytest.raises(UserError, match="is no picture in WebP"):
        unpack(packed, tmp_path / "back")
    (packed / "images.header").unlink()
    with pytest.raises(UserError, match="holds no packed dataset"):
        unpack(packed, tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_what_was_there_is_replaced(data, tmp_path):
    write_dataset(tmp_path / "back", count=16, seed=3)
    pack(data, tmp_path / "packed")
    unpack(tmp_path / "packed", tmp_path / "back")
    assert len(PreparedDataset.open(tmp_path / "back").images) == len(data.images)


def test_a_pillow_without_webp_is_one_sentence(data, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: name != "webp")
    for work in (lambda: pack(data, tmp_path / "packed"), lambda: unpack(tmp_path, tmp_path / "back")):
        with pytest.raises(UserError, match="Pillow was built without WebP here"):
            work()
    assert list(tmp_path.iterdir()) == []
