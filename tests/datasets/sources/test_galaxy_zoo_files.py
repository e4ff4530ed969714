"""The files of Galaxy Zoo 2: fetched, checked, refused if damaged, and fetched by one process at a time."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import prepare_data
from galaxies.common.errors import UserError
from galaxies.datasets.sources import galaxy_zoo_files as download
from galaxies.datasets.sources.galaxy_zoo_files import fetch_release
from tests.conftest import ROOT
from tests.file_server import IMAGES, MAPPING, QUICK, VOTES, contents, fetch, one, partial, ranges, release, sentence
from tests.test_prepare_data import make_gz2


def test_all_files_arrive_once(tmp_path, server, capsys):
    folder = tmp_path / "new" / "gz2"
    paths = fetch(folder, release(server))
    assert {path.name: path.read_bytes() for path in paths} == server.contents
    assert [request.name for request in server.requests] == [MAPPING, VOTES, IMAGES]
    assert sorted(path.name for path in folder.iterdir()) == [".download", MAPPING, VOTES, IMAGES]
    assert sorted(path.name for path in (folder / ".download").iterdir()) == ["checked.json"]
    for request in server.requests:
        assert request.headers["User-Agent"].startswith("galaxy-physics/")
        assert request.headers["Accept-Encoding"] == "identity"
    assert fetch(folder, release(server)) == paths
    assert len(server.requests) == 3
    assert capsys.readouterr().out.count("is there and whole") == 6


def test_only_the_tables(tmp_path, server):
    paths = fetch_release(tmp_path, True, release(server), QUICK)
    assert [path.name for path in paths] == [MAPPING, VOTES]
    assert not (tmp_path / IMAGES).exists()


def damaged_zip() -> bytes:
    data = bytearray(contents()[IMAGES])
    data[100_000] ^= 0xFF  # within a picture; the directory of the archive is intact
    return bytes(data)


DAMAGE = {
    "0 bytes": (IMAGES, lambda data: b"", "has 0 bytes and should have 10000 to 2000000"),
    "short": (IMAGES, lambda data: data[:9_000], "has 9000 bytes and should have 10000"),
    "too long": (IMAGES, lambda data: data * 9, "bytes and should have 10000 to 2000000"),
    "half a zip": (IMAGES, lambda data: data[: len(data) // 2], "it is no complete zip file: File is not a zip file"),
    "damaged zip": (IMAGES, lambda data: damaged_zip(), "it is no complete zip file: Bad CRC-32"),
    "few pictures": (IMAGES, lambda data: small_zip(), "it holds 1 pictures instead of 12"),
    "no zip": (IMAGES, lambda data: b"x" * 20_000, "does not begin like a .zip file"),
    "no gzip": (VOTES, lambda data: gzip.decompress(data), "does not begin like a .gz file"),
    "half a gzip": (VOTES, lambda data: data[: len(data) // 2], "it cannot be unpacked: Compressed file ended before"),
    "damaged gzip": (VOTES, lambda data: data[:30_000] + b"??" + data[30_002:], "it cannot be unpacked: "),
    "half a table": (MAPPING, lambda data: data[: len(data) // 2], "rows and should have 4000 or more"),
    "another table": (MAPPING, lambda data: data.replace(b"asset_id", b"name"), "it has no column asset_id"),
    "binary table": (MAPPING, lambda data: data + b"\0", "it holds NUL bytes"),
}


def small_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        target.writestr("1.jpg", os.urandom(20_000))
    return stream.getvalue()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_and_fetched_anew(tmp_path, server, damage):
    name, change, reason = DAMAGE[damage]
    good = server.contents[name]
    server.contents[name] = change(good)
    text = sentence(tmp_path, one(server, name))
    assert reason in text
    assert f"download it by hand from {server.url}/{name}" in text
    assert not (tmp_path / name).exists()
    assert not partial(tmp_path, name).exists()
    server.contents[name] = good
    fetch(tmp_path, one(server, name))
    assert (tmp_path / name).read_bytes() == good


def test_checksums(tmp_path, server, capsys):
    digest = hashlib.md5(server.contents[IMAGES]).hexdigest()
    fetch(tmp_path, one(server, md5=digest))
    server.contents[IMAGES] = damaged_zip()
    assert f"and not {digest}" in sentence(tmp_path / "other", one(server, md5=digest))
    unpacked = hashlib.sha256(gzip.decompress(server.contents[VOTES])).hexdigest()
    capsys.readouterr()
    fetch(tmp_path, one(server, VOTES, contents_sha256=unpacked))
    assert "differ" not in capsys.readouterr().out
    fetch(tmp_path / "other", one(server, VOTES, contents_sha256="0" * 64))
    assert "its contents differ from the one copy whose checksum is known" in capsys.readouterr().out


def test_files_that_are_there_already(tmp_path, server):
    for name, data in server.contents.items():
        (tmp_path / name).write_bytes(data)
    fetch(tmp_path, release(server))
    assert server.requests == []
    damaged = damaged_zip()  # it has the time in it
    (tmp_path / IMAGES).write_bytes(damaged)
    text = sentence(tmp_path, release(server))
    assert "is there and damaged (it is no complete zip file: Bad CRC-32" in text
    assert "remove it, then run the same command again" in text
    assert (tmp_path / IMAGES).read_bytes() == damaged  # what the program did not write stays
    (tmp_path / IMAGES).write_bytes(b"")
    assert "is there and damaged (it has 0 bytes and should have 10000" in sentence(tmp_path, release(server))
    (tmp_path / IMAGES).unlink()
    (tmp_path / ".download" / "checked.json").write_text("{")
    fetch(tmp_path, release(server))
    assert [request.name for request in server.requests] == [IMAGES]


def test_a_file_that_was_checked_and_not_yet_moved(tmp_path, server):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / IMAGES).write_bytes(server.contents[IMAGES])
    fetch(tmp_path, one(server))
    assert server.requests == []
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]


def test_a_file_is_checked_once(tmp_path, server, monkeypatch):
    checked = []
    check = download._check
    monkeypatch.setattr(download, "_check", lambda file, path: checked.append(path.name) or check(file, path))
    fetch(tmp_path, one(server))
    fetch(tmp_path, one(server))
    assert checked == [f"{IMAGES}.partial"]
    os.utime(tmp_path / IMAGES, (1, 1))
    for _ in range(2):
        fetch(tmp_path, one(server))
        assert checked == [f"{IMAGES}.partial", IMAGES]


def test_a_disk_without_room(tmp_path, server, monkeypatch):
    free = SimpleNamespace(free=200_100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    text = sentence(tmp_path, release(server))
    assert f"the files need 0.2 GB in {tmp_path} and 0.2 GB are free: make room" in text
    assert server.requests == []
    fetch_one = one(server)
    partial(tmp_path).write_bytes(server.contents[IMAGES][:150_000])  # what is there needs no room
    fetch(tmp_path, fetch_one)


def test_a_folder_that_cannot_be_written(tmp_path, server, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    assert f"{tmp_path / 'file'} is a file: name another folder with --path" in sentence(tmp_path / "file", one(server))

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    text = sentence(tmp_path / "new", one(server))
    assert "Permission denied: choose another folder with --path" in text


def test_two_at_once(tmp_path, server):
    server.script = [{"cut": 100_000, "length": 400_000, "stall": 10}]
    patient = QUICK._replace(timeout_s=20)
    first = threading.Thread(target=fetch_release, args=(tmp_path, False, one(server), patient))
    first.start()
    while not partial(tmp_path).exists():
        time.sleep(0.01)
    assert f"another process is downloading into {tmp_path}: wait" in sentence(tmp_path, one(server))
    server.release.set()
    first.join()
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_killed_download_goes_on_where_it_stopped(tmp_path, server):
    for file in make_gz2(tmp_path / "source", 40).iterdir():
        server.contents[file.name] = file.read_bytes()
    rows = "".join(f"1237{i:014d},extra,{i}\n" for i in range(50_000))
    server.contents[MAPPING] += rows.encode()
    files = (*one(server, MAPPING, least=1), *one(server, VOTES, least=1, smallest=1))
    code = (
        "import prepare_data\nfrom galaxies.datasets.sources import galaxy_zoo_files as download\n"
        "from galaxies.datasets.sources.galaxy_zoo_files import ReleaseFile\n"
        f"download.RELEASE = {files!r}\n"
        f"prepare_data.main(['gz2', '--download', '--only-catalogue', '--path', {str(tmp_path / 'gz2')!r}])"
    )
    command = [sys.executable, "-c", code]
    server.script = [{"slow": 0.02}]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    there = partial(tmp_path / "gz2", MAPPING)
    while not (there.exists() and there.stat().st_size > 300_000):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=20)
    arrived = there.stat().st_size
    (tmp_path / "gz2" / ".download" / "tmp0a1b2c").touch()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert ranges(server) == [None, f"bytes={arrived}-", None]
    assert (tmp_path / "gz2" / MAPPING).read_bytes() == server.contents[MAPPING]
    size = len(server.contents[MAPPING])
    assert 300_000 < arrived < size
    assert server.sent < size + 1_000_000 < 2 * size
    assert "no dataset is written; classes: 10 spiral, 10 elliptical, 10 merger, 10 edge-on" in again.stdout
    assert sorted(path.name for path in (tmp_path / "gz2" / ".download").iterdir()) == ["checked.json"]


def test_the_command_from_a_mirror_to_a_dataset(tmp_path, server, monkeypatch, capsys):
    for file in make_gz2(tmp_path / "source").iterdir():
        server.contents[file.name] = file.read_bytes()
    changes = {"smallest": 1, "least": 1, "url": "http://127.0.0.1:9/x"}
    monkeypatch.setattr(download, "RELEASE", tuple(replace(file, **changes) for file in release(server)))
    monkeypatch.setenv(download.MIRROR, f"{server.url}/institute/")
    monkeypatch.chdir(tmp_path)
    prepare_data.main(["gz2", "--download", "--out", "data/gz2"])
    manifest = json.loads(Path("data/gz2/manifest.json").read_text(encoding="utf-8"))
    assert manifest["count"] == 16
    assert manifest["source"] == f"Galaxy Zoo 2 in {Path('data', 'galaxy_zoo_2')}"
    assert "images_gz2.zip is there and whole" in capsys.readouterr().out


def test_mistakes_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["--path", "x"], "gz2 needs --out"),
        (["--out", "x"], "gz2 needs --path, .* or --download"),
        (["--only-catalogue", "--path", "x"], "or --download with or without --only-catalogue"),
    ):
        with pytest.raises(UserError, match=message):
            prepare_data.main(["gz2", *arguments])
    monkeypatch.setenv(download.MIRROR, "/home/me/files")
    with pytest.raises(UserError, match=r"GALAXY_ZOO_MIRROR is '/home/me/files': it takes the address"):
        prepare_data.main(["gz2", "--download", "--only-catalogue"])
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_web_is_imported_without_a_download():
    code = (
        "import sys, prepare_data\n"
        "unwanted = {'galaxies.datasets.sources.galaxy_zoo_files', 'pooch', 'requests', 'urllib3'}\n"
        "assert not unwanted & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_the_release():
    assert [file.name for file in download.RELEASE if file.columns] == [MAPPING, VOTES, "gz2sample.csv.gz"]
    for file in download.RELEASE:
        assert file.url.startswith("https://")
        assert file.name in file.url
        assert file.smallest < file.size < file.largest
