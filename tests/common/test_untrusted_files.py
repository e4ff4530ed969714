"""Zip files that were made to do harm, or damaged on the way."""

import copy
import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from galaxies.common import untrusted_files
from galaxies.common.errors import UserError
from galaxies.common.untrusted_files import (
    UntrustedFileError,
    check_archive,
    picture_entries,
    read_entry,
)
from galaxies.datasets.cutout_blocks import read_cutouts
from galaxies.datasets.cutouts import CutoutSource, Rejection

PICTURE = b"\xff\xd8\xff" + os.urandom(3000)


def entry(name: str, mode: int = 0o100644, packing: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = packing
    return info


def pack(archive: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("images/1.jpg", PICTURE)
        for info, data in entries:
            target.writestr(info, data)
    return archive


def patched(archive: Path, old: bytes, new: bytes, count: int) -> Path:
    data = archive.read_bytes()
    assert data.count(old) == count
    assert len(old) == len(new)
    archive.write_bytes(data.replace(old, new))
    return archive


@pytest.mark.parametrize(
    "name",
    [
        "../2.jpg",
        "images/../../2.jpg",
        "images/..",
        "..\\2.jpg",
        "images\\..\\..\\2.jpg",
        "/etc/2.jpg",
        "\\\\server\\share\\2.jpg",
        "C:\\2.jpg",
        "c:2.jpg",
        "../__MACOSX/._2.jpg",
        "../notes.txt",
    ],
)
def test_names_that_lead_out(tmp_path, name):
    archive = pack(tmp_path / "a.zip", (entry(name), PICTURE))
    with pytest.raises(UserError, match=r"a.zip is not used, since the name of its entry .* leads out of the archive"):
        CutoutSource(archive)


@pytest.mark.parametrize("name", ["images/2..jpg", "..images/2.jpg", "images/a..b/2.jpg", "spiral:2.jpg"])
def test_names_that_only_look_so(tmp_path, name):
    with CutoutSource(pack(tmp_path / "a.zip", (entry(name), PICTURE))) as source:
        assert any(found.endswith("1.jpg") for found in source.names)


def test_a_name_with_a_nul(tmp_path):
    archive = pack(tmp_path / "a.zip", (entry("images/2.jpg?/../3.txt"), PICTURE))
    patched(archive, b"2.jpg?/../3.txt", b"2.jpg\0/xx/3.txt", 2)
    with pytest.raises(UserError, match=r"the name of its entry 'images/2.jpg\\x00/xx/3.txt' leads out"):
        CutoutSource(archive)


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010644])
def test_links_and_devices(tmp_path, mode):
    archive = pack(tmp_path / "a.zip", (entry("images/2.jpg", mode), b"/etc/passwd"))
    with pytest.raises(UserError, match=r"its entry 'images/2.jpg' is a link or a device"):
        CutoutSource(archive)


def test_folders_and_files_of_any_system(tmp_path):
    entries = [(entry("images/", 0o040755), b""), (entry("images/2.jpg", 0), PICTURE)]
    with CutoutSource(pack(tmp_path / "a.zip", *entries)) as source:
        assert source.names == ("1.jpg", "2.jpg")


def test_bombs(tmp_path, monkeypatch):
    bomb = entry("images/2.jpg", packing=zipfile.ZIP_DEFLATED)
    archive = pack(tmp_path / "a.zip", (bomb, bytes(2 << 20)))
    with pytest.raises(UserError, match=r"its entry 'images/2.jpg' unpacks from 20\d\d to 2097152 bytes"):
        CutoutSource(archive)
    archive = pack(tmp_path / "b.zip", (entry("images/2.jpg"), os.urandom(2 << 20)))
    CutoutSource(archive).close()
    monkeypatch.setattr(untrusted_files, "MAX_PICTURE_BYTES", 1 << 20)
    with pytest.raises(UserError, match=r"its entry 'images/2.jpg' unpacks from 2097152 to 2097152 bytes"):
        CutoutSource(archive)
    monkeypatch.setattr(untrusted_files, "MAX_ENTRIES", 1)
    with pytest.raises(UserError, match="it has 2 entries, more than any archive of galaxies"):
        CutoutSource(archive)


def test_what_is_not_read_may_be_large(tmp_path):
    notes = entry("images/notes.txt", packing=zipfile.ZIP_DEFLATED)
    CutoutSource(pack(tmp_path / "a.zip", (notes, bytes(2 << 20)))).close()


def test_an_entry_that_lies_about_its_size(tmp_path):
    liar = entry("images/2.jpg", packing=zipfile.ZIP_DEFLATED)
    archive = pack(tmp_path / "a.zip", (liar, bytes(50_000_000)))
    patched(archive, (50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"), 2)
    with zipfile.ZipFile(archive) as opened:
        lying = next(info for info in picture_entries(opened) if info.filename.endswith("2.jpg"))
        tracemalloc.start()
        try:
            with pytest.raises(zipfile.BadZipFile):
                read_entry(opened, lying)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_entries_that_share_their_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("1.jpg", PICTURE)
        twin = copy.copy(target.filelist[0])
        twin.filename = "2.jpg"
        target.filelist.append(twin)
    with pytest.raises(UserError, match="overlaps the one before"):
        CutoutSource(tmp_path / "a.zip")


def test_encrypted_and_oddly_packed_entries(tmp_path):
    archive = pack(tmp_path / "a.zip")
    data = bytearray(archive.read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"its entry 'images/1.jpg' is encrypted: download it again, or name"):
        CutoutSource(archive)
    archive = pack(tmp_path / "b.zip", (entry("images/2.jpg", packing=zipfile.ZIP_LZMA), PICTURE))
    with pytest.raises(UserError, match=r"its entry 'images/2.jpg' is neither stored nor deflated"):
        CutoutSource(archive)


def test_apple_double_entries_are_passed_over(tmp_path):
    entries = [("__MACOSX/images/._1.jpg", b"junk"), ("images/._1.jpg", b"junk"), ("__MACOSX/2.jpg", b"junk")]
    with CutoutSource(pack(tmp_path / "a.zip", *entries)) as source:
        assert source.names == ("1.jpg",)
        assert source.read("1.jpg") == PICTURE
    check_archive(tmp_path / "a.zip", 1, True, lambda size: None)
    with pytest.raises(UntrustedFileError, match="it holds 1 pictures instead of 2"):
        check_archive(tmp_path / "a.zip", 2, True, lambda size: None)


def test_a_damaged_entry_is_one_rejection(tmp_path):
    # Damage within a deflated stream raises other errors than a checksum that does not fit.
    text = os.urandom(40_000).hex().encode()
    archive = pack(tmp_path / "a.zip", (entry("images/2.jpg", packing=zipfile.ZIP_DEFLATED), text))
    data = bytearray(archive.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = b"\xff" * 200
    archive.write_bytes(data)
    with CutoutSource(archive) as source:
        assert [cutout.rejection for cutout in read_cutouts(source, ["2.jpg"], 64)] == [Rejection.CORRUPT]
    with pytest.raises(UntrustedFileError, match="it is no complete zip file"):
        check_archive(archive, 1, True, lambda size: None)
    check_archive(archive, 1, False, lambda size: None)


def test_no_zip_file_at_all_ends_in_a_sentence(tmp_path):
    whole = pack(tmp_path / "a.zip").read_bytes()
    directory = whole.find(b"PK\x01\x02")
    for at in range(directory, len(whole)):  # every byte of the directory, in turn
        (tmp_path / "a.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            with CutoutSource(tmp_path / "a.zip") as source:
                list(read_cutouts(source, source.names, 64))
        except UserError as error:
            assert "a.zip" in str(error)


def test_names_asked_for_are_never_paths(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(PICTURE)
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "1.jpg").write_bytes(PICTURE)
    pack(tmp_path / "data" / "a.zip")
    names = ["../secret.jpg", "../../secret.jpg", str(tmp_path / "secret.jpg"), "images/../../secret.jpg", "..", ""]
    for place in (tmp_path / "data", tmp_path / "data" / "a.zip"):
        with CutoutSource(place) as source:
            assert [source.read(name) for name in names] == [None] * len(names)
            assert source.read("1.jpg") == PICTURE


def test_a_file_that_is_far_too_large_is_one_rejection(tmp_path, monkeypatch):
    monkeypatch.setattr("galaxies.datasets.cutouts.MAX_PICTURE_BYTES", 1000)
    (tmp_path / "1.jpg").write_bytes(PICTURE)
    with CutoutSource(tmp_path) as source:
        with pytest.raises(UserError, match=r"1\.jpg has more than 0\.001 MB"):
            source.read("1.jpg")
        assert [cutout.rejection for cutout in read_cutouts(source, ["1.jpg"], 64)] == [Rejection.TOO_LARGE]
