"""Measuring files: sizes and formats mixed, any order, any number of cores; one that is bad costs its own row alone."""

from __future__ import annotations

import csv
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from galaxies.common.errors import UserError
from galaxies.images.reading import read_picture
from galaxies.measure import picture_files
from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.picture_files import (
    FILE_STATISTICS,
    UnmeasuredPicture,
    find_pictures,
    measurable,
    measure_files,
)
from galaxies.measure.statistics_table import STATISTICS, measure_images
from tests.conftest import render_galaxies
from tests.measure.spirals import spiral
from tests.measure.test_mergers import pair


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Forty pictures of three sizes in PNG and JPEG, and FITS where astropy is, as they come."""
    folder = tmp_path_factory.mktemp("files")
    paths = []
    sides = (64, 64, 100, 64, 300)
    for k in range(40):
        side = sides[k % 5]
        pixels = render_galaxies(1, seed=k, side=side)[0][0].transpose(1, 2, 0)
        paths.append(folder / (f"{k}.jpg" if k % 3 else f"{k}.png"))
        Image.fromarray(pixels).save(paths[-1])
    try:
        from astropy.io import fits
    except ImportError:
        return paths
    for k in (7, 23):
        paths.insert(k, folder / f"{k}.fits")
        fits.PrimaryHDU(3.5 * render_galaxies(1, seed=k)[0][0].astype(float)).writeto(paths[k])
    return paths


@pytest.fixture(scope="module")
def alone(files):
    """What is read and measured of each file alone."""
    found = {}
    for path in files:
        picture = read_picture(path)
        measured = measure_images(measurable(picture)[None], statistics=FILE_STATISTICS, counts=not picture.display)
        if picture.colorless:
            measured.values["color"][:] = np.nan
        if not measured.values["arm_strength"] > VISIBLE_ARMS:
            measured.values.update({name: np.full(1, np.nan) for name in ("arm_count", "pitch")})
        found[path] = (picture.side_px, picture.display, picture.note), measured
    return found


def test_files_are_measured_as_one_at_a_time_in_any_order(files, alone, threads):
    order = np.random.default_rng(1).permutation(len(files))
    for chosen in (files, [files[k] for k in order]):
        found = list(measure_files(chosen))
        assert [each.path for each in found] == chosen
        for each in found:
            read, expected = alone[each.path]
            assert (each.side_px, each.display, each.note) == read
            assert each.measured.flags.tolist() == expected.flags.tolist()
            # Nine digits are more than the table is written with.
            np.testing.assert_allclose(
                each.measured.table(), expected.table(), rtol=1e-6, atol=1e-9, err_msg=each.path.name
            )


def test_arms_and_second_nuclei_of_a_folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    drawn = {"a": spiral(3, 24), "b": spiral(0), "c": pair(0.6), "d": spiral(2, -24)}  # the last winds the other way
    for name, image in drawn.items():
        pixels = (255 * image).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"{name}.png")
    out = tmp_path / "table.csv"
    old = ["file", "side_px", *(statistic.name for statistic in STATISTICS), "flag", "remark"]
    out.write_text(",".join(old) + "\n", encoding="utf-8")  # of before arms were measured: it may be replaced
    evaluate.main(["measure", str(folder), "--out", str(out)])
    with out.open(newline="") as stream:
        rows = {Path(row["file"]).stem: row for row in csv.DictReader(stream)}
    assert list(rows) == list(drawn)
    three, smooth, two_nuclei, two = rows.values()
    assert float(three["arm_strength"]) > VISIBLE_ARMS and float(three["arm_count"]) == 3
    assert float(three["pitch"]) == pytest.approx(24, abs=4)
    assert float(two["arm_count"]) == 2 and float(two["pitch"]) == pytest.approx(-24, abs=4)
    assert float(smooth["arm_strength"]) < VISIBLE_ARMS and smooth["arm_count"] == smooth["pitch"] == ""
    assert float(two_nuclei["second_nucleus"]) == pytest.approx(0.6, rel=0.15)
    assert float(smooth["second_nucleus"]) < 0.1 and smooth["shape_asymmetry"] and smooth["gini_m20_merger"]
    out.write_text("file,something else\n", encoding="utf-8")
    with pytest.raises(UserError):
        evaluate.main(["measure", str(folder), "--out", str(out)])


def test_pictures_of_one_size_are_measured_together(files, monkeypatch):
    shapes, whole = [], picture_files.measure_images
    monkeypatch.setattr(
        picture_files,
        "measure_images",
        lambda images, **how: shapes.append((len(images), images.shape[-1])) or whole(images, **how),
    )
    only_pictures = [path for path in files if path.suffix != ".fits"]
    assert len(list(measure_files(only_pictures[:16]))) == 16
    assert sorted(shapes) == [(3, 100), (3, 256), (10, 64)]


def test_what_is_no_picture_is_named_in_its_place(files, tmp_path, threads):
    late, early = tmp_path / "late.png", tmp_path / "early.png"
    for path in (late, early):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    chosen = [*files[:20], early, *files[20:35], late, *files[35:]]
    found = list(measure_files(chosen))
    assert [each.path for each in found] == chosen
    bad = [each for each in found if isinstance(each, UnmeasuredPicture)]
    assert [each.path for each in bad] == [early, late]
    assert all(f"{each.path} is no PNG, JPEG or FITS file" in each.reason for each in bad)


def test_many_files_are_read_a_few_ahead_of_what_is_taken(files, threads, monkeypatch):
    read, whole = [], picture_files.read_picture
    monkeypatch.setattr(picture_files, "read_picture", lambda path: read.append(path) or whole(path))
    measured = measure_files(files[:1] * 2000)
    assert len(list(itertools.islice(measured, 3))) == 3
    measured.close()
    assert 16 <= len(read) <= 16 * 4 * threads


def test_a_table_appears_whole_or_not_at_all(files, tmp_path):
    out = tmp_path / "new/table.csv"
    evaluate.main(["measure", *map(str, files), "--out", str(out)])
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == list(map(str, files))
    assert {row["side_px"] for row in rows} == {"64", "100", "300"}
    before = out.read_bytes()
    (bad := tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^none of 2 can be measured, and the first says why: .*bad\.png is no PNG"):
        evaluate.main(["measure", str(bad), str(tmp_path / "none.png"), "--out", str(out)])
    assert out.read_bytes() == before and [path.name for path in out.parent.iterdir()] == ["table.csv"]


def measured(tmp_path, *names):
    """Measure names by the command; return its exit status and the rows of the table."""
    status = 0
    try:
        evaluate.main(["measure", *map(str, names), "--out", str(tmp_path / "m.csv")])
    except SystemExit as end:
        status = end.code
    with (tmp_path / "m.csv").open(newline="") as stream:
        return status, list(csv.DictReader(stream))


def test_a_bad_file_costs_its_own_row_alone(files, tmp_path, capsys):
    (bad := tmp_path / "bad.png").write_bytes(files[0].read_bytes()[:500])
    status, rows = measured(tmp_path, files[0], bad, files[3], tmp_path / "none.png")
    assert status == 1 and [row["file"] for row in rows] == [
        *map(str, (files[0], bad, files[3], tmp_path / "none.png"))
    ]
    assert all(rows[k]["size"] and rows[k]["flag"] for k in (0, 2))
    for k, reason in ((1, "is damaged"), (3, "there is no file")):
        assert reason in rows[k]["remark"]
        assert not any(value for name, value in rows[k].items() if name not in ("file", "remark"))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("measured 2 of 4 pictures into") and "bad.png is no PNG" in last and "1 more" in last
    assert measured(tmp_path, files[0], files[3])[0] == 0


def test_folders_and_patterns_stand_for_the_pictures_in_them(files, tmp_path, capsys):
    inner = tmp_path / "all/b.png"
    inner.mkdir(parents=True)
    for name in ("2.PNG", "1.jpeg", ".hidden.png", "._junk.png", "notes.txt", "m.csv"):
        (tmp_path / "all" / name).write_bytes(files[0].read_bytes())
    (inner / "3.fits.fz").write_bytes(files[0].read_bytes())
    (empty := tmp_path / "empty").mkdir()
    names = [tmp_path / "all", empty, tmp_path / "all/2.PNG", tmp_path / "all/[12].*", tmp_path / "*.gif"]
    found = find_pictures(names)
    assert [str(path.relative_to(tmp_path / "all")) for path in found.paths] == [
        "1.jpeg",
        "2.PNG",
        str(inner.relative_to(tmp_path / "all") / "3.fits.fz"),
    ]
    assert found.repeated == 3 and [each.path for each in found.without] == [empty, tmp_path / "*.gif"]
    assert "holds no picture" in found.without[0].reason and "no file fits" in found.without[1].reason
    status, rows = measured(tmp_path, *names)
    assert status == 1 and len(rows) == 5 and sum(bool(row["size"]) for row in rows) == 3
    assert "left out 3 names of files that had been named before" in capsys.readouterr().out
    with pytest.raises(UserError, match="empty holds no picture"):
        evaluate.main(["measure", str(empty), "--out", str(tmp_path / "m.csv")])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_must_not_be_read_is_said_to_be(files, tmp_path):
    (closed := tmp_path / "closed.png").write_bytes(files[0].read_bytes())
    closed.chmod(0)
    status, rows = measured(tmp_path, closed, files[0])
    assert status == 1 and "not allowed" in rows[0]["remark"] and rows[1]["size"]


def test_a_grey_picture_has_no_color_rather_than_none_at_all(tmp_path):
    pixels = render_galaxies(1, seed=3)[0][0].transpose(1, 2, 0)
    grey = Image.fromarray(pixels).convert("L")
    for name, picture in (("color.png", Image.fromarray(pixels)), ("grey.png", grey), ("rgb.png", grey.convert("RGB"))):
        picture.save(tmp_path / name)
    color, *greys = measure_files([tmp_path / name for name in ("color.png", "grey.png", "rgb.png")])
    assert np.isfinite(color.measured.values["color"]).all() and color.note == ""
    for each in greys:
        assert np.isnan(each.measured.values["color"]).all() and each.note == "grey"
        assert np.isfinite(each.measured.values["size"]).all()
