"""Prepared datasets that were changed by hand: refused in one sentence, or read rightly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from config_physics import ATTRIBUTES, PHOTOMETRIC_ATTRIBUTES
from galaxies.common.errors import UserError
from galaxies.datasets.layout import _MEASURED, DISPLAY
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from tests.conftest import write_dataset
from tests.datasets.hand_changes import READ, REFUSED, Changed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("whole") / "d", 24)


@pytest.mark.parametrize("with_sums", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", REFUSED)
def test_a_dataset_that_was_changed_is_refused(whole, tmp_path, name, with_sums):
    change, words = REFUSED[name]
    data = Changed(whole, tmp_path / "d")
    change(data)
    path = data.finish(with_sums)
    with pytest.raises(UserError, match=words if with_sums else ".") as caught:
        PreparedDataset.open(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert sentence.endswith(("prepare the data again", "--overwrite", "prepare_data.py labelled"))
    assert len(sentence) - len(str(path)) < 400
    assert sentence.isprintable()


@pytest.mark.parametrize("name", READ)
def test_a_dataset_that_was_changed_is_read(whole, tmp_path, name):
    data = Changed(whole, tmp_path / "d")
    READ[name](data)
    path = data.finish(True)
    if "bom" in data.leave:
        (path / "manifest.json").write_bytes(b"\xef\xbb\xbf" + (path / "manifest.json").read_bytes())
    opened = PreparedDataset.open(path)
    assert np.array_equal(opened.images, data.images)
    assert isinstance(opened.images, np.memmap)
    place, sizes = data.column("object_id"), data.column("size")
    assert opened.catalogue["object_id"].tolist() == [row[place] for row in data.rows]
    expected = [float(row[sizes] or "nan") for row in data.rows]
    np.testing.assert_array_equal(opened.catalogue["size"], expected)
    classes = [row[data.column("morphology")].lower().replace("_", "-") for row in data.rows]
    assert opened.catalogue["morphology"].tolist() == classes
    assert opened.manifest["count"] == len(data.rows)


def test_a_number_that_no_galaxy_has_is_not_written(tmp_path):
    images, names = np.zeros((4, 3, 64, 64), np.uint8), ["spiral", "elliptical", "merger", "edge-on"]
    with (
        pytest.raises(UserError, match=r"redshift of 'b' is 1e\+30, and no galaxy has any but above 0 and up to 10"),
        DatasetWriter(tmp_path / "d", 64, 0.5, {}) as writer,
    ):
        writer.append(images, ["a", "b", "c", "d"], names, {"redshift": np.array([0.1, 1e30, np.nan, 0.2])})
    assert not (tmp_path / "d").exists()


def test_what_is_written_can_be_read_to_the_limits(tmp_path):
    assert {*PHOTOMETRIC_ATTRIBUTES, "pixel_scale"} == set(_MEASURED)
    images, names = np.zeros((4, 3, 64, 64), np.uint8), ["spiral", "elliptical", "merger", "edge-on"]
    values = {}
    for name in (*ATTRIBUTES, "pixel_scale"):
        low, high = DISPLAY.limits_of(name)
        values[name] = np.array([low + 1e-6 * (high - low), high, np.inf, np.nan])
    with DatasetWriter(tmp_path / "d", 64, 0.5, {}) as writer:
        writer.append(images, ["a", "b", "c", "d"], names, values)
    read = PreparedDataset.open(tmp_path / "d").catalogue
    for name, column in values.items():
        np.testing.assert_allclose(read[name], [*column[:2], np.nan, np.nan], rtol=1e-6)


def test_the_manifest_may_be_long(whole, tmp_path):
    data = Changed(whole, tmp_path / "d")
    data.manifest["rejected_files"] = [{"name": f"{k}.jpg", "reason": "missing"} for k in range(5000)]
    assert len(PreparedDataset.open(data.finish(True)).images) == 24
    assert json.loads((tmp_path / "d/manifest.json").read_text())["rejected_files"][-1]["name"] == "4999.jpg"
