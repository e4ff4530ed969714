"""The prepare_data command: Galaxy Zoo 2, labelled pictures and joins, from files to a prepared dataset."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import prepare_data
from config_physics import ATTRIBUTES, PHOTOMETRIC_ATTRIBUTES
from galaxies.common.durable_files import sha256_of
from galaxies.common.errors import UserError
from galaxies.datasets.cutouts import decode_cutout
from galaxies.datasets.joining import merge_duplicates
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.preparing import Pictures, Source
from galaxies.datasets.sources import SOURCES
from galaxies.datasets.sources import galaxy_zoo as gz
from galaxies.datasets.writing import split_of

CLASSES = ("spiral", "elliptical", "merger", "edge-on")
ROOT = Path(prepare_data.__file__).parent


def jpeg(seed: int, side: int = 256) -> bytes:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    blob = np.exp(-((x / 0.06) ** 2 + (y / 0.04) ** 2) / 2)[..., None] * rng.uniform(120, 220, 3)
    stream = io.BytesIO()
    pixels = (blob + rng.normal(10, 2, (side, side, 3))).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def make_gz2(folder: Path, count: int = 16) -> Path:
    """Write the four files of Galaxy Zoo 2 with galaxies of each class in turn, one of no class at the end."""
    folder.mkdir()
    fractions = {"spiral": (0.2, 0.8, 0, 0, 0), "elliptical": (0.9, 0.1, 0, 0, 0)}
    fractions |= {"merger": (0.5, 0.5, 0, 0.9, 0.8), "edge-on": (0.2, 0.8, 0.9, 0, 0)}
    rows = []
    for i in range(count + 1):
        values = (0.5, 0.5, 0, 0, 0) if i == count else fractions[CLASSES[i % 4]]
        names = (gz.SMOOTH, gz.FEATURES, gz.EDGE_ON, gz.ODD, gz.MERGER, gz.ROUND, gz.IN_BETWEEN, gz.CIGAR)
        row = {"dr7objid": f"5877{i:014d}", "total_votes": 20 + i}
        rows.append(row | {n + "_debiased": v for n, v in zip(names, (*values, 0.2, 0.3, 0.5), strict=True)})
    ids = [row["dr7objid"] for row in rows]
    pd.DataFrame(rows).to_csv(folder / "gz2_hart16.csv.gz", index=False)
    pd.DataFrame({"objid": ids, "sample": "original", "asset_id": range(100, 101 + count)}).to_csv(
        folder / "gz2_filename_mapping.csv", index=False
    )
    sample = {"OBJID": ids, "REDSHIFT": [0.01 * (i + 1) for i in range(count + 1)], "PETROR90_R": 10.0}
    pd.DataFrame(sample).to_csv(folder / "gz2sample.csv.gz", index=False)
    with zipfile.ZipFile(folder / "images_gz2.zip", "w") as archive:
        for i in range(count):
            archive.writestr(f"images/{100 + i}.jpg", jpeg(i))
            archive.writestr(f"__MACOSX/images/._{100 + i}.jpg", b"\x00\x05\x16\x07")
    return folder


def make_labelled(folder: Path, seeds=range(100, 108), **columns) -> Path:
    """Write pictures, whose names are their seeds, and labels.csv."""
    folder.mkdir()
    for seed in seeds:
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    table = {"image": [f"{seed}.jpg" for seed in seeds]}
    table["morphology"] = [("spiral", "Elliptical", "merger", "edge_on")[i % 4] for i in range(len(seeds))]
    pd.DataFrame(table | columns).to_csv(folder / "labels.csv", index=False)
    return folder


def run_labelled(folder: Path, out: Path, *more: str) -> None:
    labels = str(folder / "labels.csv")
    prepare_data.main(["labelled", "--images", str(folder), "--labels", labels, "--out", str(out), *more])


def opened(out: Path) -> tuple[np.ndarray, pd.DataFrame, dict]:
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return np.load(out / "images.npy"), pd.read_csv(out / "catalogue.csv", dtype={"object_id": str}), manifest


def test_gz2(tmp_path, capsys):
    path, out = make_gz2(tmp_path / "gz2"), tmp_path / "data" / "gz2"
    prepare_data.main(["gz2", "--path", str(path), "--out", str(out), "--workers", "2"])
    images, catalogue, manifest = opened(out)
    assert catalogue["object_id"].tolist() == [f"5877{i:014d}" for i in range(16)]
    assert catalogue["morphology"].tolist() == [CLASSES[i % 4] for i in range(16)]
    assert catalogue["split"].tolist() == [split_of(i) for i in catalogue["object_id"]]
    np.testing.assert_array_equal(images, [decode_cutout(jpeg(i), 64)[0] for i in range(16)])
    np.testing.assert_allclose(catalogue["redshift"], 0.01 * np.arange(1, 17))
    np.testing.assert_allclose(catalogue["pixel_scale"], 0.02 * 10 * 128 / 64)
    np.testing.assert_allclose(catalogue["vote_count"], 0.3 + 0.7 * np.arange(16) / 15, rtol=1e-6)
    np.testing.assert_allclose(catalogue["vote_elongation"], 0.3 * 0.45 + 0.5 * 0.9)
    for name in PHOTOMETRIC_ATTRIBUTES:
        low, high = ATTRIBUTES[name].low, ATTRIBUTES[name].high
        assert catalogue[name].notna().all()
        assert catalogue[name].between(low - 1, high + 1).all()
    # The blob's axes are 0.06 and 0.04 of the picture.
    assert catalogue["ellipticity"].between(0.23, 0.43).all()
    assert manifest["rule"] == "gated"
    assert manifest["fractions"] == "debiased"
    assert manifest["unused"] == 1
    assert manifest["rejected"] == {}
    assert manifest["command_line"].startswith("prepare_data.py gz2 --path")
    printed = capsys.readouterr().out
    assert "1 fit no class" in printed
    assert re.search(r"^merger +\d+ +\d+ +\d+ +4$", printed, re.MULTILINE)


def test_paper_rule_and_limit(tmp_path):
    path = make_gz2(tmp_path / "gz2")
    arguments = ["gz2", "--path", str(path), "--rule", "paper", "--limit", "4", "--out", str(tmp_path / "a")]
    prepare_data.main(arguments)
    _, catalogue, manifest = opened(tmp_path / "a")
    assert len(catalogue) == 4
    assert manifest["rule"] == "paper"
    np.testing.assert_allclose(catalogue["vote_count"].iloc[[0, -1]], [0.3, 1.0])


def test_other_size_and_crop(tmp_path):
    run_labelled(make_labelled(tmp_path / "a"), tmp_path / "out", "--size", "128", "--crop", "0.75")
    images, _, manifest = opened(tmp_path / "out")
    assert images.shape == (8, 3, 128, 128)
    assert (manifest["image_size"], manifest["crop"]) == (128, 0.75)
    np.testing.assert_array_equal(images[0], decode_cutout(jpeg(100), 128, 0.75)[0])


def test_labelled(tmp_path, capsys):
    columns = {
        "redshift": ["0.05", "", "0.3", *[""] * 5],
        "pixel_scale": ["0.4", *[""] * 7],
        "size": ["9"] * 8,
        "telescope": ["T"] * 8,
        "object_id": ["007", *[""] * 7],
    }
    run_labelled(make_labelled(tmp_path / "a", **columns), tmp_path / "out")
    _, catalogue, manifest = opened(tmp_path / "out")
    assert catalogue["object_id"].tolist() == ["007", *map(str, range(101, 108))]
    assert catalogue["morphology"].tolist() == list(CLASSES) * 2
    np.testing.assert_allclose(catalogue["redshift"], [0.05, np.nan, 0.3, *[np.nan] * 5])
    np.testing.assert_allclose(catalogue["pixel_scale"], [0.8, *[np.nan] * 7])
    assert (catalogue["size"] < 1).all()
    assert "petro_r50_kpc" not in catalogue
    assert manifest["rule"] == "labels"
    printed = capsys.readouterr().out
    assert "ignored: size of" in printed
    assert "ignored: telescope of" in printed


def test_bad_pictures_are_left_out_and_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("galaxies.datasets.cutout_blocks._ROWS", 3 * 64)  # of a picture after the first block too
    folder = make_labelled(tmp_path / "a", range(100, 116), redshift=[f"{k / 1000}" for k in range(100, 116)])
    (folder / "101.jpg").unlink()
    (folder / "102.jpg").write_bytes(jpeg(102)[:2000])
    (folder / "103.jpg").write_bytes(b"<html>")
    Image.new("L", (256, 256), 7).save(folder / "104.jpg")
    Image.new("RGB", (256, 200)).save(folder / "105.jpg")
    run_labelled(folder, tmp_path / "out")
    _, catalogue, manifest = opened(tmp_path / "out")
    assert catalogue["object_id"].tolist() == ["100", *map(str, range(106, 116))]
    np.testing.assert_allclose(catalogue["redshift"], [0.1, *(k / 1000 for k in range(106, 116))])
    assert catalogue["morphology"].tolist() == [CLASSES[(int(name) - 100) % 4] for name in catalogue["object_id"]]
    assert {entry["name"]: entry["reason"] for entry in manifest["rejected_files"]} == {
        "101.jpg": "missing",
        "102.jpg": "corrupt or truncated",
        "103.jpg": "not a JPEG or PNG image",
        "104.jpg": "greyscale",
        "105.jpg": "wrong shape",
    }
    assert "1 missing, 1 corrupt or truncated" in capsys.readouterr().out


def test_what_is_left_out_is_said_with_what_to_do(tmp_path, capsys):
    folder = make_labelled(tmp_path / "a", range(100, 112))
    (folder / "108.jpg").write_bytes(jpeg(108, 100))
    (folder / "109.jpg").unlink()
    Image.open(folder / "110.jpg").rotate(90).save(
        folder / "110.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    )
    with (folder / "labels.csv").open("a") as table:
        table.write("./108.JPG,spiral,again\n")
    text = (folder / "labels.csv").read_text().replace("morphology\n", "morphology,object_id\n")
    (folder / "labels.csv").write_text(text)
    run_labelled(folder, tmp_path / "out")
    _, catalogue, manifest = opened(tmp_path / "out")
    assert catalogue["object_id"].tolist() == [str(k) for k in range(100, 112) if k not in (108, 109)]
    assert manifest["rejected"] == {"missing": 1, "picture of another row": 1, "too small for the crop": 1}
    details = {entry["name"]: entry.get("detail") for entry in manifest["rejected_files"]}
    assert details["109.jpg"] is None and details["./108.JPG"] == "that of '108.jpg'"
    assert details["108.jpg"].endswith("--crop 1.0 takes the whole 100 pixels")
    printed = capsys.readouterr().out
    assert "1 of 13 rows find no picture in" in printed and "'109.jpg' (the nearest name is '1" in printed
    assert "as a viewer shows them: 1 turned as its EXIF says" in printed
    assert "--crop 0.5, as for Galaxy Zoo's frames of 424 pixels, kept the central 128 of 256 pixels" in printed
    run_labelled(folder, tmp_path / "whole", "--crop", "1.0")
    assert "Galaxy Zoo" not in capsys.readouterr().out and len(opened(tmp_path / "whole")[1]) == 11


def test_no_picture_left_ends_with_what_to_do(tmp_path):
    folder = make_labelled(tmp_path / "a")
    for file in folder.glob("*.jpg"):
        file.write_bytes(jpeg(1, 69))
    message = (
        r"no image is left to write \(8 too small for the crop\); '100.jpg': 69 pixels a side, of which --crop 0.5"
    )
    with pytest.raises(UserError, match=message + r" leaves 34.*: --crop 1.0 takes the whole 69 pixels$"):
        run_labelled(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_without_a_galaxy_has_no_measurements(tmp_path, capsys):
    folder = make_labelled(tmp_path / "a")
    noise = np.random.default_rng(0).normal(20, 2, (256, 256, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "102.jpg", quality=95)
    run_labelled(folder, tmp_path / "out")
    _, catalogue, manifest = opened(tmp_path / "out")
    assert catalogue[list(PHOTOMETRIC_ATTRIBUTES)].isna().all(axis=1).tolist() == [i == 2 for i in range(8)]
    assert manifest["attributes"]["size"] == 7
    assert "1 images show no galaxy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("morphology", 3, "spirla", "column morphology of .*labels.csv, row 5: unknown morphology 'spirla'"),
        ("morphology", 2, "", "column morphology of .*labels.csv, row 4 is empty"),
        ("image", 0, "", "column image of .*labels.csv, row 2 is empty"),
        ("image", 3, "100.jpg", "object id '100' in row 5 of .*labels.csv occurs before, in row 2"),
        ("redshift", 1, "high", "column redshift of .*labels.csv, row 3 holds 'high': it is no number"),
        ("redshift", 4, "-5", "column redshift of .*labels.csv, row 6 holds '-5'"),
        ("stellar_mass", 4, "3e10", "column stellar_mass of .*labels.csv, row 6 holds '3e10'"),
        ("pixel_scale", 0, "0", "column pixel_scale of .*labels.csv, row 2 holds '0'"),
    ],
)
def test_wrong_labels(tmp_path, column, row, value, message):
    folder = make_labelled(tmp_path / "a", redshift="", stellar_mass="", pixel_scale="")
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    table.loc[row, column] = value
    table.to_csv(folder / "labels.csv", index=False)
    with pytest.raises(UserError, match=message):
        run_labelled(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("image,class\n1.jpg,spiral\n", "has no column morphology: it has image, class"),
        ("image,morphology\n", "has a header and no row"),
    ],
)
def test_not_a_table_of_labels(tmp_path, content, message):
    (make_labelled(tmp_path / "a") / "labels.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        run_labelled(tmp_path / "a", tmp_path / "out")


def test_join_keeps_a_galaxy_once(tmp_path, capsys):
    # 100-107 in the first; 104-111 in the second, where 106 and 107 have other ids.
    ids = ["104", "105", "x106", "x107", "108", "109", "110", "111"]
    run_labelled(make_labelled(tmp_path / "a", redshift=["0.1"] * 4 + [""] * 4), tmp_path / "one")
    second = make_labelled(tmp_path / "b", range(104, 112), object_id=ids, redshift=["0.2"] * 8)
    (second / "105.jpg").write_bytes(jpeg(999))  # the same id with another picture
    run_labelled(second, tmp_path / "two")
    capsys.readouterr()
    inputs = [str(tmp_path / "one"), str(tmp_path / "two")]
    prepare_data.main(["join", "--inputs", *inputs, "--out", str(tmp_path / "all")])
    images, catalogue, manifest = opened(tmp_path / "all")
    assert catalogue["object_id"].tolist() == [str(i) for i in range(100, 112)]
    np.testing.assert_array_equal(images, [decode_cutout(jpeg(i), 64)[0] for i in range(100, 112)])
    np.testing.assert_allclose(catalogue["redshift"], [0.1] * 4 + [0.2] * 8)
    assert catalogue["split"].tolist() == [split_of(i) for i in catalogue["object_id"]]
    assert manifest["rejected"] == {"duplicate, same object id": 2, "duplicate, same pixels": 2}
    assert manifest["filled"] == {"redshift": 4}
    assert manifest["class_conflicts"] == 0
    assert [(part["count"], part["kept"]) for part in manifest["inputs"]] == [(8, 8), (8, 4)]
    assert manifest["rule"] == "labels"
    assert "filled in from duplicates: 4 redshift" in capsys.readouterr().out


def test_join_refuses_what_does_not_fit(tmp_path):
    run_labelled(make_labelled(tmp_path / "a"), tmp_path / "one")
    run_labelled(tmp_path / "a", tmp_path / "two", "--size", "128")
    run_labelled(tmp_path / "a", tmp_path / "three", "--crop", "0.6")
    for other, message in (("two", "image_size 64 .* has 128"), ("three", "crop 0.5 .* has 0.6")):
        inputs = [str(tmp_path / "one"), str(tmp_path / other)]
        with pytest.raises(UserError, match=message):
            prepare_data.main(["join", "--inputs", *inputs, "--out", str(tmp_path / "all")])
    with pytest.raises(UserError, match="at least two"):
        prepare_data.main(["join", "--inputs", str(tmp_path / "one"), "--out", str(tmp_path / "all")])


def catalogue_of(ids, classes=None, **columns) -> pd.DataFrame:
    return pd.DataFrame({"object_id": ids, "morphology": classes or ["spiral"] * len(ids), **columns})


def test_rows_linked_by_a_third_are_one_galaxy():
    # "b" has the id of the second row and the pixels of the first.
    merged = merge_duplicates(
        [catalogue_of(["a", "b", "c"]), catalogue_of(["b"], ["merger"])], [[b"1", b"2", b"3"], [b"1"]]
    )
    assert merged.rows["object_id"].tolist() == ["a", "c"]
    assert merged.dropped["reason"].tolist() == ["same pixels", "same object id"]
    assert merged.class_conflicts == 1


def test_what_duplicates_fill_in():
    first = catalogue_of(["a", "b"], redshift=[np.nan, 0.2], size=[np.nan, 0.1], pixel_scale=[np.nan, np.nan])
    second = catalogue_of(["a", "x"], redshift=[0.5, 0.6], size=[0.3, 0.3], pixel_scale=[0.7, 0.8])
    merged = merge_duplicates([first, second], [[b"1", b"2"], [b"other", b"2"]])
    np.testing.assert_array_equal(merged.rows["redshift"], [0.5, 0.2])  # known values stay
    np.testing.assert_array_equal(merged.rows["size"], [np.nan, 0.1])  # measured on another image
    np.testing.assert_array_equal(merged.rows["pixel_scale"], [np.nan, 0.8])  # of another image, of the same
    assert merged.filled == {"redshift": 1, "pixel_scale": 1}
    assert first["redshift"].isna().tolist() == [True, False]


def test_shares_of_the_classes_are_filled_in_from_the_same_class_alone():
    shares = {"class_share_spiral": [np.nan, np.nan, 0.6]}
    first = catalogue_of(["a", "b", "c"], ["spiral", "merger", "spiral"], **shares)
    second = catalogue_of(["a", "b", "c"], ["spiral"] * 3, class_share_spiral=[0.9, 0.8, 0.7])
    merged = merge_duplicates([first, second], [[b"1", b"2", b"3"], [b"4", b"5", b"6"]])
    np.testing.assert_array_equal(merged.rows["class_share_spiral"], [0.9, np.nan, 0.6])
    assert merged.filled == {"class_share_spiral": 1} and merged.class_conflicts == 1


def test_join_keeps_own_attributes_and_shares_and_says_what_it_leaves_out(tmp_path, capsys):
    rules = "".join(
        f'[[class]]\nname = "{name}"\nshare = "{column}"\n' for name, column in (("disc", "f"), ("smooth", "s"))
    )
    (tmp_path / "c.toml").write_text(rules)
    for name, seeds in (("one", range(100, 108)), ("two", range(104, 112))):
        share = [0.25 if k % 2 else 0.75 for k in range(8)]
        folder = make_labelled(tmp_path / f"{name} files", seeds, f=share, s=[1 - x for x in share], ew=np.arange(8.0))
        run_labelled(folder, tmp_path / name, "--classes", str(tmp_path / "c.toml"), "--attribute", "ew:low=0,high=9")
    table = pd.read_csv(tmp_path / "two" / "catalogue.csv").assign(comment="fine")
    table.drop(columns=[c for c in table if c.startswith("class_share")]).to_csv(
        tmp_path / "two" / "catalogue.csv", index=False
    )
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text(encoding="utf-8"))
    manifest["sha256"]["catalogue.csv"] = sha256_of(tmp_path / "two" / "catalogue.csv")
    (tmp_path / "two" / "manifest.json").write_text(json.dumps(manifest))
    capsys.readouterr()
    inputs = [str(tmp_path / "one"), str(tmp_path / "two")]
    prepare_data.main(["join", "--inputs", *inputs, "--out", str(tmp_path / "all")])
    said = capsys.readouterr().out
    assert "left out, since a joined dataset has no such columns: comment" in said
    assert f"{tmp_path / 'two'} tells no shares of the classes" in said
    data = PreparedDataset.open(tmp_path / "all")
    np.testing.assert_array_equal(data.catalogue["ew"], [*range(8), *range(4, 8)])
    assert data.catalogue["class_share_disc"].tolist()[:8] == [0.75, 0.25] * 4
    assert data.catalogue["class_share_disc"].isna().tolist() == [False] * 8 + [True] * 4
    np.testing.assert_array_equal(data.class_shares(np.array([0, 1, 8])), [[0.75, 0.25], [0.25, 0.75], [1, 0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required"),
        (["gz2", "--path", "nowhere", "--out", "out"], "gz2_hart16.csv.* is missing"),
        (["gz2", "--path", "x", "--out", "out", "--size", "65"], "argument --size: invalid choice: '?65"),
        (["gz2", "--path", "x", "--out", "out", "--crop", "1.5"], "argument --crop: 1.5 is not above 0"),
        (["gz2", "--path", "x", "--out", "out", "--crop", "nan"], "argument --crop: nan is not above 0"),
        (["gz2", "--path", "x", "--out", "out", "--workers", "0"], "argument --workers: .0. is no whole number from 1"),
        (["labelled", "--images", "x", "--labels", "x.csv", "--out", "out"], r"x\.csv does not exist"),
        (["join", "--inputs", "x", "y", "--out", "out"], "x holds no prepared dataset"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare_data.main(arguments)
    assert list(tmp_path.iterdir()) == []


def script(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "prepare_data.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_script_reports_a_mistake_in_one_sentence(tmp_path):
    result = script("gz2", "--path", str(tmp_path), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(r"prepare_data.py: error: .*gz2_hart16.csv.*\n", result.stderr)
    assert script("--help").returncode == 0


def test_help_does_not_import_torch():
    commands = [[], *([name] for name in (*SOURCES, "simulated", "join"))]
    code = (
        "import sys, prepare_data\n"
        f"for command in {commands}:\n"
        "    try:\n        prepare_data.main([*command, '--help'])\n"
        "    except SystemExit as end:\n        assert not end.code, command\n"
        "    assert 'torch' not in sys.modules, command"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for command in commands:
        assert f"usage: prepare_data.py {' '.join(command)}".rstrip() in result.stdout


def test_a_source_of_the_table_is_a_subcommand(tmp_path, monkeypatch, capsys):
    folder = make_labelled(tmp_path / "a")

    def add_options(parser):
        parser.add_argument("--seeds", type=int, nargs="+")

    def read(options):
        names = [f"{seed}.jpg" for seed in options.seeds]
        galaxies = pd.DataFrame({"object_id": names, "image": names, "morphology": CLASSES})
        return Pictures(folder, galaxies, {"source": "a list", "rule": "in turn"}, unused=3)

    monkeypatch.setitem(SOURCES, "list", Source("read a list", add_options, read))
    prepare_data.main(["list", "--seeds", "103", "100", "101", "107", "--size", "64", "--out", str(tmp_path / "out")])
    images, catalogue, manifest = opened(tmp_path / "out")
    np.testing.assert_array_equal(images, [decode_cutout(jpeg(seed), 64)[0] for seed in (103, 100, 101, 107)])
    assert catalogue["morphology"].tolist() == list(CLASSES)
    assert (manifest["source"], manifest["rule"], manifest["unused"]) == ("a list", "in turn", 3)
    with pytest.raises(SystemExit):
        prepare_data.main(["--help"])
    assert "read a list" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_killed_run_leaves_only_what_the_next_one_removes(tmp_path):
    folder = make_labelled(tmp_path / "a")
    code = (
        "import sys, time, prepare_data as p; from galaxies.measure import statistics_table\n"
        "def measure(images):\n    print('measuring', flush=True); time.sleep(60)\n"
        "statistics_table.measure_attributes = measure\n"
        f"p.main(['labelled', '--images', {str(folder)!r}, '--labels', {str(folder / 'labels.csv')!r}, "
        f"'--out', {str(tmp_path / 'out')!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "measuring\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".out.partial-{process.pid}", "a"]
    run_labelled(folder, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "out"]


REAL = os.environ.get("GALAXY_REAL_DATA")


@pytest.mark.skipif(not REAL, reason="GALAXY_REAL_DATA names no folder of real galaxies")
def test_real_galaxies(tmp_path):
    prepare_data.main(["gz2", "--path", str(Path(REAL, "gz2")), "--out", str(tmp_path / "out")])
    images, catalogue, manifest = opened(tmp_path / "out")
    assert [manifest["counts"][name] for name in CLASSES] == [148, 161, 82, 154]
    assert manifest["unused"] == 45
    assert manifest["rejected"] == {}
    assert images.shape == (545, 3, 64, 64)
    # Known of the survey's central halves: mean and scatter of R, G and B.
    np.testing.assert_allclose(images.mean((0, 2, 3)) / 255, (0.102, 0.088, 0.067), atol=0.04)
    assert catalogue[list(PHOTOMETRIC_ATTRIBUTES)].notna().mean().min() > 0.98


@pytest.mark.parametrize(
    ("bands", "said"),
    [
        ("g,,r", "argument --bands: '' is no band: letters and digits are, such as g, Ks, F814W"),
        ("g,r i", "argument --bands: 'r i' is no band"),
        ("g, r,g", "argument --bands: 'g' stands twice in 'g, r,g'"),
        (",".join(f"f{k}" for k in range(100, 113)), "argument --bands: it takes up to 12 different bands"),
    ],
)
@pytest.mark.parametrize(
    "command", ["fits --images x", "field --frames x", "simulated --kind flux --count 4"], ids=lambda c: c.split()[0]
)
def test_lists_of_bands_are_read_alike(tmp_path, command, bands, said):
    with pytest.raises(UserError) as refused:
        prepare_data.main([*command.split(), "--bands", bands, "--out", str(tmp_path / "out")])
    assert said in str(refused.value)
