"""Tables of Galaxy Zoo DECaLS and Evo with their published column names, made with pyarrow."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import prepare_data
from galaxies.common.attributes import read_attribute_option
from galaxies.common.errors import UserError
from galaxies.datasets.sources.galaxy_zoo_votes import read_votes
from galaxies.datasets.sources.parquet_pictures import ParquetPictures, picture_column
from galaxies.tables.reading import read_table
from tests.conftest import render_galaxies

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Q = "smooth-or-featured"


def decals(**changes):
    """Five galaxies as gz_decals_volunteers_5.parquet has them: a merger, edge-on, elliptical, spiral, and neither."""
    table = {
        "iauname": [f"J00000{k}.80+004200.0" for k in range(5)],
        "png_loc": [f"J000/J00000{k}.80+004200.0.png" for k in range(5)],
        "redshift": [0.1, None, 0.03, -9999.0, 0.05],
        f"{Q}_total": [40, 35, 38, 41, 39],
        f"{Q}_smooth_fraction": [0.5, 0.2, 0.7, 0.3, 0.55],
        f"{Q}_featured-or-disk_fraction": [0.45, 0.75, 0.2, 0.6, 0.4],
        f"{Q}_artifact_fraction": [0.05, 0.05, 0.1, 0.1, 0.05],
        f"{Q}_smooth_debiased": [0.5, 0.2, 0.7, 0.3, 0.55],
        f"{Q}_featured-or-disk_debiased": [0.45, 0.75, 0.2, 0.6, 0.4],
        "disk-edge-on_yes_fraction": [0.1, 0.9, None, 0.1, 0.2],
        "how-rounded_round_fraction": [0.2, 0.1, 0.8, 0.3, 0.5],
        "how-rounded_in-between_fraction": [0.8, 0.1, 0.2, 0.3, 0.5],
        "how-rounded_cigar-shaped_fraction": [0.0, 0.8, 0.0, 0.4, 0.0],
        "merging_none_fraction": [0.1, 0.9, 0.9, 0.8, 0.9],
        "merging_minor-disturbance_fraction": [0.1, 0.1, 0.1, 0.1, 0.1],
        "merging_major-disturbance_fraction": [0.1, 0.0, 0.0, 0.0, 0.0],
        "merging_merger_fraction": [0.7, 0.0, 0.0, 0.1, 0.0],
    }
    return pa.table(table | changes)


def evo(images=None, **changes):
    """Rows of several campaigns as in Evo: counts of votes, 0 where a campaign did not look, and pictures as bytes."""
    table = {
        "id_str": ["587722984435351614", "J1", "J2", "nobody"],
        "dataset_name": ["gz2", "gz_decals_5", "gz_decals_12", "gz2"],
        f"{Q}-gz2_smooth": [36, 0, 0, 0],
        f"{Q}-gz2_featured-or-disk": [4, 0, 0, 0],
        f"{Q}-gz2_artifact": [0, 0, 0, 0],
        "disk-edge-on-gz2_yes": [1, 0, 0, 0],
        "disk-edge-on-gz2_no": [3, 0, 0, 0],
        "something-odd-gz2_yes": [2, 0, 0, 0],
        "something-odd-gz2_no": [38, 0, 0, 0],
        f"{Q}-dr5_smooth": [0, 2, 0, 0],
        f"{Q}-dr5_featured-or-disk": [0, 30, 0, 0],
        f"{Q}-dr5_artifact": [0, 0, 0, 0],
        "merging-dr5_none": [0, 4, 0, 0],
        "merging-dr5_minor-disturbance": [0, 2, 0, 0],
        "merging-dr5_major-disturbance": [0, 6, 0, 0],
        "merging-dr5_merger": [0, 12, 0, 0],
        f"{Q}-dr12_smooth": [0, 0, 10, 0],
        f"{Q}-dr12_featured-or-disk": [0, 0, 10, 0],
        "merging-dr12_neither": [0, 0, 5, 0],
        "merging-dr12_tidal-debris": [0, 0, 5, 0],
        "merging-dr12_both": [0, 0, 4, 0],
        "merging-dr12_merger": [0, 0, 6, 0],
    }
    if images is not None:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table["image"] = pa.array([{"bytes": each, "path": "/etc/passwd"} for each in images], kind)
    return pa.table(table | changes)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()


def written(table, path, **options):
    pq.write_table(table, path, **options)
    return path


def test_decals_by_hand(tmp_path):
    found = read_votes(written(decals(), tmp_path / "v.parquet"))
    galaxies = found.galaxies
    assert galaxies["morphology"].tolist() == ["merger", "edge-on", "elliptical", "spiral", None]
    assert galaxies["object_id"].tolist()[1] == "J000001.80+004200.0"
    assert galaxies["image"].tolist()[1] == "J000/J000001.80+004200.0.png"
    np.testing.assert_array_equal(galaxies["redshift"], [0.1, np.nan, 0.03, np.nan, 0.05])
    # As for Galaxy Zoo 2, over the four that are used: 35 votes are the fewest, 41 the most.
    np.testing.assert_allclose(galaxies["vote_count"][:4], np.array([5, 0, 3, 6]) / 6 * 0.7 + 0.3)
    np.testing.assert_allclose(galaxies["vote_elongation"][:2], [0.36, (0.045 + 0.72) / 1.0])
    assert found.campaigns == {"": 5}


def test_the_kind_of_fraction_that_is_asked_for_decides(tmp_path):
    table = decals(**{f"{Q}_smooth_debiased": [0.9] * 5, f"{Q}_featured-or-disk_debiased": [0.1] * 5})
    path = written(table, tmp_path / "v.parquet")
    debiased, raw = (read_votes(path, "gated", kind).galaxies["morphology"] for kind in ("debiased", "fraction"))
    assert debiased.tolist() == ["merger", *["elliptical"] * 4]  # no gate into edge-on is passed any more
    assert raw.tolist() == ["merger", "edge-on", "elliptical", "spiral", None]


def test_the_gate_before_edge_on(tmp_path):
    table = decals(**{f"{Q}_featured-or-disk_debiased": [0.45, 0.43, 0.2, 0.6, 0.4]})
    path = written(table, tmp_path / "v.parquet")
    assert read_votes(path, "gated").galaxies["morphology"][1] is None
    assert read_votes(path, "paper").galaxies["morphology"][1] == "edge-on"


def test_each_galaxy_of_evo_has_the_votes_of_its_campaign(tmp_path):
    found = read_votes(written(evo(), tmp_path / "evo.parquet"))
    # 36 of 40 smooth; 12 of 24 merger; 4 + 6 of 20 merger, with tidal debris or without; nobody voted.
    assert found.galaxies["morphology"].tolist() == ["elliptical", "merger", "merger", None]
    assert found.galaxies["object_id"][0] == "587722984435351614"
    assert found.campaigns == {"gz2": 1, "dr5": 1, "dr12": 1}


def test_what_is_unknown_in_a_column_is_counted_once(tmp_path, capsys):
    read_votes(written(evo(**{f"{Q}-gz2_smooth": [36, -99, 0, 0]}), tmp_path / "evo.parquet"))
    assert f"{Q}-gz2_smooth 1 (-99)" in capsys.readouterr().out


def test_arms_bars_and_bulges_of_decals_and_of_evo(tmp_path):
    details = {
        "disk-edge-on_no_fraction": [0.9, 0.1, None, 0.9, 0.8],
        "has-spiral-arms_yes_fraction": [0.1, 0.1, None, 0.9, 0.9],
        "bar_strong_fraction": [0.0, 0.0, None, 0.2, 0.0],
        "bar_weak_fraction": [0.0, 0.0, None, 0.3, 0.0],
        "bar_no_fraction": [1.0, 1.0, None, 0.5, 1.0],
        **{f"bulge-size_{name}_fraction": [0.2] * 5 for name in ("none", "dominant", "large", "moderate", "small")},
        **{f"spiral-arm-count_{name}_fraction": [0.0] * 5 for name in ("1", "2", "4", "cant-tell")},
        "spiral-arm-count_3_fraction": [0.0, 0.0, None, 0.6, 0.0],
        "spiral-arm-count_more-than-4_fraction": [0.0, 0.0, None, 0.2, 0.0],
        "spiral-arm-count_more-than-4_debiased": [0.9] * 5,  # what would be seen from nearby
    }
    galaxies = read_votes(written(decals(**details), tmp_path / "v.parquet")).galaxies
    np.testing.assert_allclose(galaxies["arm_count"], [np.nan] * 3 + [3.5, np.nan])
    np.testing.assert_allclose(galaxies["bar"], [np.nan] * 3 + [0.14 * 0.5, np.nan])
    tau = 5 + 4.63 + 0.2 * 4.17 - (0.2 + 0.1) * 2.27 - 0.2 * 8.38  # large ones are obvious, and half the moderate ones
    expected = 10 ** (-0.4 * (0.324 * tau - 0.054 * tau**2 + 0.0047 * tau**3))
    np.testing.assert_allclose(galaxies["bulge"], [np.nan] * 3 + [expected, np.nan])
    assert galaxies[["odd", "ring"]].isna().all(axis=None)  # nobody was asked, though mergers passed that gate
    counts = {
        f"{Q}-gz2_smooth": [4, 0, 0, 0],
        f"{Q}-gz2_featured-or-disk": [36, 0, 0, 0],
        "has-spiral-arms-gz2_yes": [26, 0, 0, 0],
        "has-spiral-arms-gz2_no": [1, 0, 0, 0],
        "spiral-arm-count-gz2_1": [6, 0, 0, 0],
        "spiral-arm-count-gz2_2": [18, 0, 0, 0],
        "spiral-arm-count-gz2_cant-tell": [2, 0, 0, 0],
    }
    changed = counts | {"disk-edge-on-gz2_no": [27, 0, 0, 0]}
    first = read_votes(written(evo(**changed), tmp_path / "evo.parquet")).galaxies.iloc[0]
    assert first["morphology"] == "spiral" and first["arm_count"] == pytest.approx(1.75)
    assert first["odd"] == pytest.approx(2 / 40)


def test_a_text_of_the_same_columns_means_the_same(tmp_path):
    table = decals()
    parquet = read_votes(written(table, tmp_path / "v.parquet")).galaxies
    table.to_pandas().to_csv(tmp_path / "v.csv", index=False)
    pd.testing.assert_frame_equal(read_votes(tmp_path / "v.csv").galaxies, parquet)


def test_a_dataset_of_evo_with_its_pictures(tmp_path, capsys):
    images, _ = render_galaxies(8, side=128)
    files = []
    for part in range(2):
        ids = [f"{part}{k}" for k in range(4)]
        table = evo([png(image) for image in images[4 * part : 4 * part + 4]], id_str=ids)
        files.append(written(table, tmp_path / f"train-{part}.parquet", row_group_size=3))
    out = tmp_path / "out"
    arguments = ["galaxy-zoo", "--table", *map(str, files), "--out", str(out), "--allow-empty-class"]
    prepare_data.main(arguments)
    catalogue = pd.read_csv(out / "catalogue.csv", dtype={"object_id": str})
    assert catalogue["object_id"].tolist() == ["00", "01", "02", "10", "11", "12"]
    kept = np.load(out / "images.npy")
    np.testing.assert_array_equal(kept, images[[0, 1, 2, 4, 5, 6], :, 32:96, 32:96])  # the central half, unscaled
    assert "2 of gz2, 2 of dr5, 2 of dr12), none for 2" in capsys.readouterr().out


def test_a_dataset_of_decals_with_named_pictures(tmp_path):
    images, _ = render_galaxies(5, side=128)
    with zipfile.ZipFile(tmp_path / "gz_decals_dr5_png_part1.zip", "w") as archive:
        for k, image in enumerate(images):
            archive.writestr(f"J000/J00000{k}.80+004200.0.png", png(image))
    table = written(decals(), tmp_path / "v.parquet")
    out = tmp_path / "out"
    where = str(tmp_path / "gz_decals_dr5_png_part1.zip")
    prepare_data.main(["galaxy-zoo", "--table", str(table), "--images", where, "--out", str(out)])
    catalogue = pd.read_csv(out / "catalogue.csv")
    assert catalogue["morphology"].tolist() == ["merger", "edge-on", "elliptical", "spiral"]
    np.testing.assert_array_equal(np.load(out / "images.npy"), images[:4, :, 32:96, 32:96])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"iauname": ["J1"] * 5}, "J1"),
        ({"iauname": [1.0, 2.0, 3.0, 4.0, 587722984435351614.0]}, "rounded|digits"),
        ({f"{Q}_smooth_debiased": ["many"] * 5}, "many"),
    ],
)
def test_wrong_cells_are_named(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_votes(written(decals(**change), tmp_path / "v.parquet"))


def test_other_tables_are_refused(tmp_path):
    path = written(pa.table({"iauname": ["a"], "ra": [1.0]}), tmp_path / "v.parquet")
    with pytest.raises(UserError, match="no column smooth-or-featured_smooth or the like"):
        read_votes(path)
    path = written(decals().drop_columns(["iauname"]), tmp_path / "v.parquet")
    with pytest.raises(UserError, match="none of the columns iauname"):
        read_votes(path)
    out = ["--out", str(tmp_path / "out")]
    path = written(decals(), tmp_path / "v.parquet")
    with pytest.raises(UserError, match="holds no pictures: name their folder or zip file with --images"):
        prepare_data.main(["galaxy-zoo", "--table", str(path), *out])
    (tmp_path / "i").mkdir()
    with pytest.raises(UserError, match="is in several of the tables"):
        prepare_data.main(["galaxy-zoo", "--table", str(path), str(path), "--images", str(tmp_path / "i"), *out])


def test_whole_numbers_keep_all_their_digits(tmp_path):
    ids = pa.array([587722984435351614, None, 1], pa.int64())
    table = pa.table({"objid": ids, "x": pa.array(["a", None, "c"]).dictionary_encode(), "l": [[1], [2], [3]]})
    found = read_table(written(table, tmp_path / "t.parquet"), ["objid", "x"])
    assert found.cells["objid"].tolist() == ["587722984435351614", "", "1"]
    assert found.cells["x"].tolist() == ["a", "", "c"]
    assert found.others == ()  # a list is no value


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_damaged_file_is_one_sentence(tmp_path, part):
    content = written(evo([b""] * 4), tmp_path / "v.parquet").read_bytes()
    (tmp_path / "v.parquet").write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match="damaged Parquet"):
        read_votes(tmp_path / "v.parquet")


def test_pictures_are_found_in_any_order(tmp_path):
    contents = [bytes([k]) * (k + 1) for k in range(200)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    image = pa.array([{"bytes": each, "path": None} for each in contents[:199]] + [None], kind)
    paths = [written(pa.table({"image": image}), tmp_path / f"{k}.parquet", row_group_size=70) for k in (0, 1)]
    assert picture_column(paths[0]) == "image"
    with ParquetPictures(paths) as pictures:
        for file, row in ((0, 0), (0, 150), (1, 3), (1, 2), (0, 198), (0, 64), (1, 128)):
            assert pictures.find(pictures.name(file, row)) == contents[row]
        with pytest.raises(OSError, match="no picture"):
            pictures.find(pictures.name(0, 199))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = written(decals(), tmp_path / "v.parquet")
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="python -m pip install pyarrow"):
        read_votes(path)


def test_named_columns_are_attributes_of_all_tables_together(tmp_path):
    images, _ = render_galaxies(5, side=128)
    (tmp_path / "i").mkdir()
    parts = []
    for part, name in enumerate("ab"):
        values = pa.array([1.0 + 10 * part, 2.0, None, 4.0, 900.0])  # the last galaxy has no class
        names = [f"{name}{k}" for k in range(5)]
        table = decals(iauname=names, png_loc=[f"{name}.png" for name in names]).append_column("sersic_N", values)
        parts.append(str(written(table, tmp_path / f"{name}.parquet")))
        for name, image in zip(names, images, strict=True):
            (tmp_path / "i" / f"{name}.png").write_bytes(png(image))
    out = ["--out", str(tmp_path / "out"), "--images", str(tmp_path / "i")]
    prepare_data.main(["galaxy-zoo", "--table", *parts, *out, "--attribute", "sersic:column=sersic_n,label=Index"])
    catalogue = pd.read_csv(tmp_path / "out" / "catalogue.csv")
    np.testing.assert_array_equal(catalogue["sersic"], [1, 2, np.nan, 4, 11, 2, np.nan, 4])
    row = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["own_attributes"][0]
    assert row["label"] == "Index" and 10 < row["high"] < 20
    with pytest.raises(UserError, match=r"a.parquet has no column width, which --attribute width names"):
        read_votes(Path(parts[0]), own=[read_attribute_option("width")])
