"""Names of pictures in every form in which people write them, and what is said where none or several fit."""

from __future__ import annotations

import itertools
import os
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest

from galaxies.common.errors import UserError
from galaxies.datasets.cutouts import CutoutSource, LeftOut, Rejection
from galaxies.datasets.matching import match_rows
from galaxies.datasets.picture_names import Found, PictureIndex, PictureName, name_without_folder, parts_of

EXACT = [
    ("a/g0.png", ["a", "g0.png"]),
    ("./a//g0.png", ["a", "g0.png"]),
    (".\\a\\.\\g0.png", ["a", "g0.png"]),
    ("a/b/../g0.png", ["a", "g0.png"]),
    ("../../a/g0.png", ["a", "g0.png"]),
    ("  'a/g0.png' ", ["a", "g0.png"]),
    ("C:\\data\\a/g0.png", ["data", "a", "g0.png"]),
    ("\\\\server\\share\\g0.png", ["server", "share", "g0.png"]),
    ("file:///home/x/my%20pictures/g0.png", ["home", "x", "my pictures", "g0.png"]),
    ("file:///C:/x/g0.png", ["x", "g0.png"]),
    ("file:/x/g0.png", ["x", "g0.png"]),
    ("https://sky.example.org/cutouts/g0.png?scale=0.4#top", ["cutouts", "g0.png"]),
    ("J1234.5+0012.3", ["J1234.5+0012.3"]),
    ("100%.png", ["100%.png"]),
    ("..", []),
    ("", []),
]


@pytest.mark.parametrize(("name", "parts"), EXACT)
def test_a_name_is_cut_into_its_parts(name, parts):
    assert parts_of(name) == parts


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("x/1237.JPG", "1237"),
        ("J1234.5+0012.3", "J1234.5+0012.3"),
        ("J1234.5+0012.3.jpeg", "J1234.5+0012.3"),
        ("C:\\x\\g0.png", "g0"),
        ("g0.tar.png", "g0.tar"),
        ("", ""),
    ],
)
def test_the_file_name_without_folder_and_ending_is_the_id(name, id_):
    assert name_without_folder(name) == id_


def index(*paths: str, above: tuple[str, ...] = ("data", "cutouts"), common: str = "") -> PictureIndex:
    return PictureIndex([PictureName(path, path.removeprefix(common)) for path in paths], above)


CAFE = "caf\u00e9+12.png"
PICTURES = (
    "a/g0.png",
    "a/G1.PNG",
    "b/J1234.5+0012.3.jpg",
    "b/g2.jpeg",
    "c/" + CAFE,
    "g3.png",
    "c/deep/g4.jpg",
    "c/J98-76.jpg",
)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a/g0.png", 0),
        ("g0.png", 0),
        ("g0", 0),
        ("A/G0.PNG", 0),
        ("cutouts/a/g0.png", 0),
        ("/data/cutouts/a/g0.png", 0),
        ("../cutouts/a/g0.jpg", 0),
        ("a/g1.png", 1),
        ("b/J1234.5+0012.3", 2),
        ("J1234.5+0012.3.png", 2),
        ("J1234.5\u22120012.3", None),  # a minus and no plus
        ("J1234.5+0012", None),
        ("b/g2.jpg", 3),
        ("c/" + unicodedata.normalize("NFD", CAFE), 4),
        (unicodedata.normalize("NFD", CAFE).upper(), 4),
        ("file:///c/caf%C3%A9+12.png", 4),
        ("c/caf%C3%A9+12.png", 4),
        ("g3.png", 5),
        ("deep/g4.jpg", 6),
        ("J98\u221276", 7),  # a minus sign for a hyphen
        ("c/J98\u201376.jpg", 7),
        ("c\\deep\\g4.jpg", 6),
        ("b/g0.png", None),  # that folder is here and does not hold it
        ("b/g3.png", None),
        ("deep/g3.png", None),
        ("c/g4.jpg", None),
        ("g0.tif", None),
        ("g9.png", None),
        ("a", None),
        ("../../etc/passwd", None),
    ],
)
def test_a_name_finds_its_picture_in_any_form(name, place):
    assert index(*PICTURES).find(name) == Found(() if place is None else (place,))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("/home/other/pictures/a/g0.png", 0),
        ("D:\\survey\\b\\g2.jpg", 3),
        ("/home/other/g3.png", 5),
        ("dr9/g2.jpg", 3),  # the only one of that name, in a folder that is not here
        ("dr9/g2.png", None),
        ("dr9/b/g0.png", None),
        ("b/dr9/g0.png", None),
    ],
)
def test_folders_of_another_machine_are_said(name, place):
    assert index(*PICTURES).find(name) == (Found(()) if place is None else Found((place,), True))


@pytest.mark.parametrize(
    ("paths", "name", "places"),
    [
        (("a/g0.png", "b/g0.png"), "g0.png", (0, 1)),
        (("a/g0.png", "b/g0.png"), "/x/g0.png", ()),
        (("a/g0.png", "b/g0.png"), "b/g0", (1,)),
        (("a/g0.png", "g0.png"), "g0.png", (1,)),
        (("a/g0.png", "g0.png"), "G0", (1,)),
        (("g0.png", "g0.jpg"), "g0", (0, 1)),
        (("g0.png", "g0.jpg"), "g0.jpg", (1,)),
        (("g0.png", "g0.jpg"), "g0.JPEG", (1,)),
        (("g0.png", "G0.png"), "x/G0.png", (1,)),
        (("g0.png", "G0.png"), "G0.PNG", (0, 1)),
        (("p/a/g0.png", "q/a/g0.png"), "/home/p/a/g0.png", (0,)),
        (("p/a/g0.png", "q/a/g0.png"), "a/g0.png", (0, 1)),
        (("x/1/i.png", "x/2/i.png", "x/3/i.png", "x/4/i.png"), "i.png", (0, 1, 2)),
    ],
)
def test_where_several_fit_the_nearer_path_decides_or_nothing(paths, name, places):
    found = index(*paths).find(name)
    assert found.places == places


def test_a_picture_below_a_common_folder_has_two_names():
    pictures = index("dr8/north/g0.png", "dr8/north/g1.png", common="dr8/north/")
    for name in ("g0.png", "north/g0.png", "dr8/north/g0.png", "cutouts/dr8/north/g0.png"):
        assert pictures.find(name) == Found((0,))
    assert pictures.find("/home/other/g0.png") == Found((0,), True)
    assert pictures.find("dr8/g0.png") == Found(())
    pictures = index("dr8/g0.png", "dr8/deep/g0.png", common="dr8/")
    assert pictures.find("/home/other/g0.png") == Found((0,), True)


def test_pictures_where_they_are_expected_come_first():
    paths = ("g0.png", "images/g0.png", "old/g1.png", "images/new/g1.png", "old/g2.png")
    names = [PictureName(path, path.removeprefix("images/"), path.startswith("images/")) for path in paths]
    pictures = PictureIndex(names)
    for name, place in (("g1.png", 3), ("OLD/g1.png", 2), ("images/G0.png", 1), ("g2.png", 4), ("new/g1", 3)):
        assert pictures.find(name).places == (place,), name
    for name in ("g0.png", "./G0.PNG"):  # as written, below the folder that was named
        assert pictures.find(name).places == (0,), name


def test_one_picture_under_two_names_is_one():
    names = [PictureName(path, path) for path in ("a/g0.png", "b/g0.png")]
    assert PictureIndex(names, same=lambda one, other: True).find("g0.png").places == (0,)


def test_the_nearest_name():
    pictures = index(*(f"galaxy_{k:05d}.png" for k in range(3000)), "ngc1300.png")
    for name, nearest in (("galaxy_00007b.png", 7), ("NGC 1300.jpg", 3000), ("gaalxy_02999", 2999)):
        assert pictures.nearest(name) == nearest
    assert pictures.nearest("???") is None and pictures.nearest("") is None
    assert pictures.nearest("x" * 100_000) is None


def test_many_names_alike_take_no_quadratic_time():
    # Each name alone passes over no list of pictures: a million steps would take more than a second.
    pictures = index(*(f"J{k}/image.png" for k in range(5000)))
    for k in range(5000):
        assert pictures.find(f"/home/other/J{k}/image.jpg").places == (k,)
        assert pictures.find(f"/home/other/K{k}/image.jpg").places == ()
    built = []
    pictures._best = lambda *arguments: built.append(1) or PictureIndex._best(pictures, *arguments)
    merits = pictures.find("image.png")
    assert len(merits.places) == 3 and pictures.find("image.png") == merits


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a/g0.png", "a/g1.png", "b/g0.png"):
        (tmp_path / "cutouts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cutouts" / name).write_bytes(name.encode())
    return tmp_path / "cutouts"


def test_links_are_followed_and_do_not_lead_round(folder, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (store / "g7.png").write_bytes(b"7")
    try:
        (folder / "survey").symlink_to(store, target_is_directory=True)
        (folder / "again").symlink_to(store, target_is_directory=True)
        (folder / "a" / "round").symlink_to(folder, target_is_directory=True)
        (folder / "g8.png").symlink_to(store / "g7.png")
        (folder / "lost.png").symlink_to(store / "none.png")
    except OSError:
        pytest.skip("links may not be made here")
    with CutoutSource(folder) as source:
        assert len(source.names) == 3 + 2 + 2 and not any("round" in name for name in source.names)
        for name in ("survey/g7.png", "again/g7.png", "g7.png", "/x/survey/g7.png"):
            assert source.read(name) == b"7"
        matched = match_rows(source, ["survey/g7.png", "a/g0.png", "again/g7.png", "g8.png", "lost.png"])
    assert matched.rows == [0, 1, 4]
    assert matched.left_out == {row: LeftOut(Rejection.REPEATED, "that of 'survey/g7.png'") for row in (2, 3)}


def test_folders_that_link_to_each_other_are_searched_a_few_times(tmp_path):
    folders = [tmp_path / f"f{k}" for k in range(12)]
    for folder in folders:
        folder.mkdir()
        (folder / "g.png").write_bytes(b"")
    try:
        for one, other in itertools.pairwise(folders):
            for name in "xyz":
                (one / name).symlink_to(other, target_is_directory=True)
    except OSError:
        pytest.skip("links may not be made here")
    with CutoutSource(tmp_path) as source:  # 3 ** 11 paths lead to the last folder
        assert 12 <= len(source.names) <= 12 * 8


def test_rows_and_what_is_said_of_them(folder):
    asked = ["a/g0.png", "g0", "A/G0.PNG", "dr7/g1.png", "b/g1.png", "a/g2.png", "/o/b/g0.png", "\x1b[2J.png"]
    with CutoutSource(folder) as source:
        matched = match_rows(source, asked)
    assert (matched.rows, matched.names) == ([0, 3, 6], ["a/g0.png", "a/g1.png", "b/g0.png"])
    assert {row: out.reason for row, out in matched.left_out.items()} == {
        1: Rejection.AMBIGUOUS,
        2: Rejection.REPEATED,
        4: Rejection.MISSING,
        5: Rejection.MISSING,
        7: Rejection.MISSING,
    }
    elsewhere, missing, several, again = matched.remarks
    assert (
        elsewhere.startswith("2 of 8 rows name other folders") and "'dr7/g1.png' is taken to be 'a/g1.png'" in elsewhere
    )
    assert "3 of 8 rows find no picture in" in missing and "'a/g2.png' (the nearest name is 'a/g" in missing
    assert "\x1b" not in missing
    assert several.startswith("1 of 8 rows fit several pictures") and "'g0' may be 'a/g0.png' or 'b/g0.png'" in several
    assert (
        again.startswith("1 of 8 rows name the picture of another row") and "'A/G0.PNG' is that of 'a/g0.png'" in again
    )


def test_a_row_with_the_right_folder_keeps_its_picture(folder):
    (folder / "b/g0.png").unlink()
    (folder / "b").rmdir()
    with CutoutSource(folder) as source:
        matched = match_rows(source, ["spiral/g0.png", "a/g0.png"])
    assert matched.rows == [1]
    assert matched.left_out == {0: LeftOut(Rejection.MISSING, "its file name is that of 'a/g0.png'")}


def test_no_row_with_a_picture_ends_in_a_sentence(folder):
    with (
        CutoutSource(folder) as source,
        pytest.raises(UserError, match=r"no row has a picture: 2 of 2 rows find no .*'x'"),
    ):
        match_rows(source, ["x", "y"])


def test_the_same_bytes_in_two_folders_are_one_picture(folder):
    (folder / "b/g0.png").write_bytes((folder / "a/g0.png").read_bytes())
    with CutoutSource(folder) as source:
        assert source.find("g0.png") == folder / "a/g0.png" or source.find("g0.png") == folder / "b/g0.png"


def test_what_is_there_and_no_picture_is_said(folder, tmp_path):
    (folder / "g5.png").mkdir()
    (folder / "g6.tif").write_bytes(b"II*\0")
    with CutoutSource(folder) as source:
        assert source.find("g5") == folder / "g5.png" and source.find("x/g6.tif") == LeftOut(Rejection.MISSING)
        assert source.find("G6.TIF") == folder / "g6.tif" and source.find("g6.png") == LeftOut(Rejection.MISSING)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a/g0.png", b"0")
        archive.writestr("a/g6.tif", b"II*\0")
    with CutoutSource(tmp_path / "z.zip") as source:
        assert source.find("a/g6.tif").reason is Rejection.NOT_AN_IMAGE
        assert source.find("/home/z/a/g0.png") == b"0"


def test_names_in_zip_files_are_read_in_their_encoding(tmp_path):
    archive = tmp_path / "z.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("p/caf\u00e9.png", b"1")
        target.writestr("p\\plain.png", b"2")
        target.writestr("p/Andr\u00e9.png", b"3")
    raw = archive.read_bytes()
    # As programs write that set no flag: UTF-8 bytes, and code page 437.
    raw = raw.replace("p/Andr\u00e9.png".encode(), b"p/Andr\x82x.png")
    data = bytearray(raw)
    for start in (b"PK\x01\x02", b"PK\x03\x04"):
        at, offset = 0, 8 if start[2] == 1 else 6
        while (at := data.find(start, at)) >= 0:
            data[at + offset + 1] &= 0xF7
            at += 4
    archive.write_bytes(data)
    with CutoutSource(archive) as source:
        for name, content in (
            ("caf\u00e9.png", b"1"),
            ("p/cafe\u0301.png", b"1"),
            ("plain.png", b"2"),
            ("Andr\u00e9x", b"3"),
        ):
            assert source.find(name) == content, name


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_file_names_that_are_no_text_are_found(folder):
    with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123 - bytes are no Path
        file.write(b"9")
    with CutoutSource(folder) as source:
        assert source.read("caf\u00e9.png") == b"9"
