"""Measuring files: sizes and formats mixed, any order, any number of cores, the first unreadable one named."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest
from PIL import Image

import evaluate
from galaxies.common.errors import UserError
from galaxies.images.reading import read_picture
from galaxies.measure import picture_files
from galaxies.measure.picture_files import measure_files
from galaxies.measure.statistics_table import measure_images
from tests.conftest import render_galaxies


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


def test_files_are_measured_as_one_at_a_time_in_any_order(files, threads):
    order = np.random.default_rng(1).permutation(len(files))
    for chosen in (files, [files[k] for k in order]):
        found = list(measure_files(chosen))
        assert [each.path for each in found] == chosen
        for each in found:
            picture = read_picture(each.path)
            alone = measure_images(picture.image[None])
            assert (each.side_px, each.display, each.note) == (picture.side_px, picture.display, picture.note)
            assert each.measured.flags.tolist() == alone.flags.tolist()
            # Nine digits are more than the table is written with.
            np.testing.assert_allclose(
                each.measured.table(), alone.table(), rtol=1e-6, atol=1e-9, err_msg=each.path.name
            )


def test_pictures_of_one_size_are_measured_together(files, monkeypatch):
    shapes, whole = [], picture_files.measure_images
    monkeypatch.setattr(
        picture_files, "measure_images", lambda images: shapes.append((len(images), images.shape[-1])) or whole(images)
    )
    only_pictures = [path for path in files if path.suffix != ".fits"]
    assert len(list(measure_files(only_pictures[:16]))) == 16
    assert sorted(shapes) == [(3, 100), (3, 256), (10, 64)]


def test_the_first_unreadable_file_in_their_order_is_named(files, tmp_path, threads):
    late, early = tmp_path / "late.png", tmp_path / "early.png"
    for path in (late, early):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    chosen = [*files[:20], early, *files[20:35], late, *files[35:]]
    done = []
    with pytest.raises(UserError, match=r"early\.png is no PNG, JPEG or FITS file"):
        done.extend(each.path for each in measure_files(chosen))
    assert done == chosen[: len(done)] and early not in done


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
    with pytest.raises(UserError, match=r"bad\.png is no PNG"):
        evaluate.main(["measure", *map(str, files), str(bad), "--out", str(out)])
    assert out.read_bytes() == before and [path.name for path in out.parent.iterdir()] == ["table.csv"]
