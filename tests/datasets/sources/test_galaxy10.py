"""Galaxy10 as it is published: small files of the same layout, made with h5py."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

import prepare_data
from galaxies.common.errors import UserError
from galaxies.datasets.sources.galaxy10 import Galaxy10Pictures, read_galaxy10
from tests.conftest import render_galaxies

h5py = pytest.importorskip("h5py")


def write_galaxy10(path, side, answers, images=None, **columns):
    """Write a file as astroNN distributes it: compressed in chunks that hold parts of many images."""
    if images is None:
        images = np.random.default_rng(1).integers(0, 255, (len(answers), side, side, 3), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, compression="gzip", chunks=(min(3, len(images)), 8, 16, 1))
        file["ans"] = np.array(answers, np.uint8)
        for name, values in columns.items():
            file[name] = values
    return path


def test_classes_redshift_and_scale_of_decals(tmp_path, capsys):
    path = write_galaxy10(
        tmp_path / "Galaxy10_DECals.h5",
        256,
        range(10),
        redshift=np.array([0.1, np.nan, 0.03, -9999, 0.2, 1e30, 0.04, 0.05, 0.06, 0.07]),
        pxscale=np.full(10, 0.262),
        ra=np.zeros(10),
    )
    pictures = read_galaxy10(path)
    pictures.folder.close()
    galaxies = pictures.galaxies
    # https://astronn.readthedocs.io/en/latest/galaxy10.html; class 0 is "Disturbed".
    assert galaxies["morphology"].tolist() == [
        *["merger", "elliptical", "elliptical", "elliptical", "spiral", "spiral", "spiral", "edge-on", "edge-on"]
    ]
    assert galaxies["object_id"].tolist() == [f"galaxy10-decals-{k:05d}" for k in range(1, 10)]
    assert pictures.unused == 1
    np.testing.assert_array_equal(galaxies["redshift"], [np.nan, 0.03, np.nan, 0.2, np.nan, 0.04, 0.05, 0.06, 0.07])
    assert set(galaxies["frame_scale"]) == {0.262}
    assert "redshift 2 (-9999, 1e+30)" in capsys.readouterr().out


def test_classes_of_sdss(tmp_path):
    pictures = read_galaxy10(write_galaxy10(tmp_path / "Galaxy10.h5", 69, range(10)))
    pictures.folder.close()
    # .../galaxy10sdss.html; class 0 is "Disk, Face-on, No Spiral".
    assert pictures.galaxies["morphology"].tolist() == ["elliptical"] * 3 + ["edge-on"] * 3 + ["spiral"] * 3
    assert "redshift" not in pictures.galaxies
    assert pictures.crop == 1.0


# https://astronn.readthedocs.io/en/latest/galaxy10.html, in the order of the numbers.
DECALS = [
    "Disturbed",
    "Merging",
    "Round Smooth",
    "In-between Round Smooth",
    "Cigar Shaped Smooth",
    "Barred Spiral",
    "Unbarred Tight Spiral",
    "Unbarred Loose Spiral",
    "Edge-on without Bulge",
    "Edge-on with Bulge",
]


def test_its_own_classes_by_name(tmp_path):
    answers = [9, 0, 5, 5, 3]
    path = write_galaxy10(tmp_path / "g.h5", 256, answers)
    pictures = read_galaxy10(path, "labels")
    pictures.folder.close()
    assert pictures.galaxies["morphology"].tolist() == [DECALS[k] for k in answers]
    # In the file's order, those that are there.
    assert [row.name for row in pictures.classes] == [DECALS[k] for k in (0, 3, 5, 9)]
    assert pictures.unused == 0 and pictures.provenance["rule"] == "labels"
    sdss = read_galaxy10(write_galaxy10(tmp_path / "s.h5", 69, [1, 4]), "labels")
    sdss.folder.close()
    assert [row.name for row in sdss.classes] == ["Smooth, Completely round", "Disk, Edge-on, Rounded Bulge"]


RULES = """
[[class]]
name = "barred"
where = "answer == 'Barred Spiral'"
[[class]]
name = "near disc"
where = "ans >= 5 and redshift < 0.05"
"""


def test_rules_look_at_the_columns_of_the_file(tmp_path):
    redshift = np.array([0.01, 0.01, -9999.0, 0.2, 0.02, 0.01])
    path = write_galaxy10(tmp_path / "g.h5", 256, [5, 6, 7, 8, 9, 1], redshift=redshift)
    (tmp_path / "c.toml").write_text(RULES)
    pictures = read_galaxy10(path, str(tmp_path / "c.toml"))
    pictures.folder.close()
    # One of unknown redshift is not near.
    assert pictures.galaxies["morphology"].tolist() == ["barred", "near disc", "near disc"]
    assert pictures.unused == 3 and [row.name for row in pictures.classes] == ["barred", "near disc"]
    for change, message in (
        (("answer == 'Barred Spiral'", "answer > 5"), "answer of .* holds names, such as Barred Spiral"),
        (("redshift <", "size <"), "line 7.*: there is no column 'size' in .*g.h5; it has ans, redshift, answer"),
        (("ans >= 5", "ans > 9"), "class near disc .* takes none of the 6 galaxies"),
    ):
        (tmp_path / "c.toml").write_text(RULES.replace(*change))
        with pytest.raises(UserError, match=message):
            read_galaxy10(path, str(tmp_path / "c.toml"))


def test_pictures_are_read_to_the_bit_in_any_order(tmp_path, monkeypatch):
    import io

    from PIL import Image

    from galaxies.datasets.sources import galaxy10

    monkeypatch.setattr(galaxy10, "_FEWEST_TOGETHER", 2)
    images = np.random.default_rng(2).integers(0, 255, (8, 69, 69, 3), dtype=np.uint8)
    path = write_galaxy10(tmp_path / "g.h5", 69, [1] * 8, images)
    with Galaxy10Pictures(path) as pictures:
        for number in (0, 7, 3, 4, 2):
            found = np.asarray(Image.open(io.BytesIO(pictures.find(str(number)))))
            np.testing.assert_array_equal(found, images[number])


def test_a_dataset_is_prepared(tmp_path, capsys):
    galaxies, names = render_galaxies(8, side=69)
    of_name = {"elliptical": 1, "edge-on": 4, "spiral": 7, "merger": 0}
    path = write_galaxy10(
        tmp_path / "Galaxy10.h5", 69, [of_name[name] for name in names], galaxies.transpose(0, 2, 3, 1)
    )
    out = tmp_path / "out"
    prepare_data.main(["galaxy10", "--path", str(path), "--out", str(out), "--allow-empty-class"])
    catalogue = pd.read_csv(out / "catalogue.csv")
    assert catalogue["morphology"].tolist() == [name for name in names if name != "merger"]
    kept = np.load(out / "images.npy")
    whole = galaxies[[name != "merger" for name in names]].astype(float)
    # The whole picture, from 69 to 64 pixels: the mean level stays.
    np.testing.assert_allclose(kept.mean((1, 2, 3)), whole.mean((1, 2, 3)), atol=0.5)
    assert np.isfinite(catalogue["size"]).all()


def broken(kind, path):
    """Write a file that is wrong in one way; return what the sentence says."""
    if kind == "text":
        path.write_text("no HDF5")
        return "no HDF5 file"
    if kind == "truncated":
        content = write_galaxy10(path, 69, range(10)).read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return "damaged|no HDF5"
    with h5py.File(path, "w") as file:
        if kind == "other file":
            file["data"] = np.zeros(3)
            return "holds no images"
        shape = (10, 100, 100, 3) if kind == "another side" else (10, 69, 69, 3)
        values = np.zeros(shape, np.float32 if kind == "floats" else np.uint8)
        if kind == "link":
            file["images"] = h5py.ExternalLink("other.h5", "images")
            return "holds no images"
        file["images"] = values
        if kind == "no classes":
            return "holds no ans"
        file["ans"] = {
            "eleventh class": np.arange(1, 11),
            "other length": np.arange(9),
            "words": np.array([b"spiral"] * 10),
        }.get(kind, np.arange(10))
    return {
        "floats": "float32",
        "another side": "100 pixels a side",
        "eleventh class": "ans of .* is 10 for image 9",
        "other length": "not one number for each of 10",
        "words": "not one number",
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["text", "truncated", "other file", "floats", "another side", "link", "no classes", "eleventh class",
     "other length", "words"],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, kind):
    path = tmp_path / "g.h5"
    with pytest.raises(UserError, match=broken(kind, path)):
        read_galaxy10(path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = write_galaxy10(tmp_path / "g.h5", 69, range(10))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="python -m pip install h5py"):
        read_galaxy10(path)
