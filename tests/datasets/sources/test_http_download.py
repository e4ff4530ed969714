"""Downloads from a server that cuts, stalls, ignores, redirects, refuses and answers with pages."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.datasets.sources import http_download
from galaxies.datasets.sources.galaxy_zoo_files import fetch_release
from tests.file_server import ETAG, IMAGES, MAPPING, QUICK, VOTES, fetch, one, partial, ranges, sentence

PAGE = b"<!DOCTYPE html><html><body>We will be back soon</body></html>"


def test_a_connection_that_is_cut_often(tmp_path, server):
    server.script = [{"cut": 50_000}, {"cut": 1}, {"cut": 0}, {"cut": 90_000}, {"cut": 0}, {"cut": 100_000}]
    fetch(tmp_path, one(server))
    size = len(server.contents[IMAGES])
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]
    offsets = [0, 50_000, 50_001, 50_001, 140_001, 140_001, 240_001]
    assert ranges(server) == [f"bytes={offset}-" if offset else None for offset in offsets]
    assert [request.headers.get("If-Range") for request in server.requests[1:]] == [ETAG] * 6
    assert server.sent == size  # no byte twice


def test_a_connection_that_never_lasts_long_enough(tmp_path, server):
    server.always = {"cut": 0}
    server.script = [{"cut": 50_000}]
    text = sentence(tmp_path, one(server))
    assert "cut the connection, 3 times in a row" in text
    assert "run the same command again, which goes on where it stopped" in text
    assert len(server.requests) == 4
    server.always = {}
    fetch(tmp_path, one(server))  # the same command again
    assert ranges(server)[-1] == "bytes=50000-"


def test_a_weak_etag_is_not_sent_and_the_date_is(tmp_path, server):
    server.etag = 'W/"one"'
    server.script = [{"cut": 50_000}, {"blind": True}]
    fetch(tmp_path, one(server))
    assert server.requests[1].headers["If-Range"] == "Mon, 02 Dec 2019 10:00:00 GMT"
    assert server.sent == len(server.contents[IMAGES])


def test_ranges_that_are_ignored(tmp_path, server):
    server.script = [{"cut": 50_000}, *[{"ignore range": True}] * 2]
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]
    assert [request.headers.get("If-Range") for request in server.requests] == [None, ETAG, None]


def test_a_server_that_cuts_but_cannot_compare(tmp_path, server):
    # All of an unchanged file in answer to If-Range: without the condition, the rest alone comes.
    server.always = {"cannot compare": True}
    server.script = [{"cut": 50_000}]
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]
    assert ranges(server) == [None, "bytes=50000-", "bytes=50000-"]
    assert server.requests[2].headers.get("If-Range") is None


@pytest.mark.parametrize("fault", [{"shift": 1}, {"shift": -5000}, {"headers": {"Content-Range": "bytes all"}}])
def test_a_wrong_range_is_not_used(tmp_path, server, fault):
    server.script = [{"cut": 50_000}, fault]
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]
    assert ranges(server) == [None, "bytes=50000-", None]


@pytest.mark.parametrize("fault", [{}, {"blind": True}, {"blind": True, "etag": None, "longer": 7}])
def test_a_file_that_changed_is_taken_from_its_start(tmp_path, server, fault):
    old = server.contents[IMAGES]
    server.script = [{"cut": 50_000}, {"cut": 0}, {"cut": 0}, {"cut": 0}]
    sentence(tmp_path, one(server))
    assert partial(tmp_path).read_bytes() == old[:50_000]
    server.contents[IMAGES] = contents_of_another_archive()
    server.etag = '"two"'
    server.script = [fault]
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES] != old


def contents_of_another_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for i in range(15):
            target.writestr(f"images/{i}.jpg", np.random.default_rng(9).bytes(30_000))
    return stream.getvalue()


def test_copies_of_a_file_may_differ_in_date(tmp_path, server):
    server.script = [{"cut": 50_000}, {"headers": {"Last-Modified": "Tue, 03 Dec 2019 10:00:00 GMT"}}]
    fetch(tmp_path, one(server))
    assert ranges(server) == [None, "bytes=50000-"]
    assert server.sent == len(server.contents[IMAGES])


def test_a_partial_file_of_another_address_is_not_continued(tmp_path, server):
    server.script = [{"cut": 50_000}, *[{"cut": 0}] * 3]
    sentence(tmp_path, one(server))
    fetch(tmp_path, one(server, url=f"{server.url}/mirror/{IMAGES}"))
    assert ranges(server)[-1] is None


@pytest.mark.parametrize("notes", [None, "", "[1]", '{"url": 3}'])
def test_a_partial_file_of_unknown_origin_is_not_continued(tmp_path, server, notes):
    partial(tmp_path).parent.mkdir()
    partial(tmp_path).write_bytes(server.contents[IMAGES][:50_000])
    if notes is not None:
        partial(tmp_path).with_name(f"{IMAGES}.partial.json").write_text(notes)
    fetch(tmp_path, one(server))
    assert ranges(server) == [None]


@pytest.mark.parametrize(("extra", "total", "expected"), [(b"", True, 0), (b"", False, 1), (b"more", False, 2)])
def test_a_partial_file_that_is_complete_or_too_long(tmp_path, server, extra, total, expected):
    data = server.contents[IMAGES]
    partial(tmp_path).parent.mkdir()
    partial(tmp_path).write_bytes(data + extra)
    notes = {"url": f"{server.url}/{IMAGES}", "etag": ETAG, "date": None, "total": len(data) if total else None}
    partial(tmp_path).with_name(f"{IMAGES}.partial.json").write_text(json.dumps(notes))
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == data
    assert len(server.requests) == expected  # 416 answers to those that begin at the end or beyond


PAGES = {
    "web page": {"body": PAGE, "headers": {"Content-Type": "text/html; charset=utf-8"}},
    "JSON": {"body": b'{"error": 1}', "headers": {"Content-Type": "application/json"}},
    "long web page without a type": {"body": PAGE * 1000},
    "long JSON without a type": {"body": b'\n {"error": "' + b"x" * 20_000 + b'"}'},
}


@pytest.mark.parametrize("name", [MAPPING, VOTES, IMAGES])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_instead_of_the_file(tmp_path, server, name, page):
    server.always = PAGES[page]
    text = sentence(tmp_path, one(server, name))
    assert "answered with a web page" in text
    assert f"download it by hand from {server.url}/{name} into {tmp_path}" in text
    assert not (tmp_path / name).exists()


def test_a_page_in_between_costs_nothing(tmp_path, server):
    server.script = [{"cut": 50_000}, {"status": 200, **PAGES["web page"], "ignore range": True}]
    sentence(tmp_path, one(server))
    fetch(tmp_path, one(server))
    assert ranges(server)[-1] == "bytes=50000-"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal(tmp_path, server, status):
    server.always = {"status": status, **PAGES["web page"]}
    text = sentence(tmp_path, one(server))
    assert f"answered {status}" in text
    assert "download it by hand" in text
    assert len(server.requests) == 1


def test_a_server_that_is_busy_for_a_while(tmp_path, server):
    page = PAGES["web page"]["body"]
    server.script = [
        {"status": 503, "body": page, "headers": {"Retry-After": "0"}},
        {"status": 429, "body": page, "headers": {"Retry-After": "Mon, 02 Dec 2019 10:00:00 GMT"}},
        {"cut": 30_000},
        {"status": 503, "body": page},
        {"status": 500, "body": page},
    ]
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]
    assert ranges(server)[-1] == "bytes=30000-"


def test_retry_after(tmp_path, server):
    server.script = [{"status": 429, "headers": {"Retry-After": "600"}}]
    assert "asks to wait 10 minutes (429 " in sentence(tmp_path, one(server))
    slow = QUICK._replace(longest_pause_s=1.5)
    server.script = [{"status": 503, "headers": {"Retry-After": "1"}}]
    began = time.monotonic()
    fetch_release(tmp_path, files=one(server), patience=slow)
    assert 1 < time.monotonic() - began < 3


@pytest.mark.parametrize(
    "value", ["soon", "²", "9" * 5000, "Mon, 99 Dec 2019 10:00:00 GMT", "Mon, 02 Dec 2019 10:00:00"]
)
def test_a_retry_after_without_sense(tmp_path, server, value):
    server.script = [{"status": 503, "headers": {"Retry-After": value, "Content-Length": "0"}}]
    fetch(tmp_path, one(server))


def test_a_length_without_sense(tmp_path, server):
    server.always = {"length": "9" * 5000}
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]


def test_a_server_that_stays_busy_is_given_up(tmp_path, server):
    server.always = {"status": 503}
    assert "answered 503 Service Unavailable, 3 times in a row" in sentence(tmp_path, one(server))


def test_a_stalling_server(tmp_path, server):
    server.script = [{"cut": 100_000, "stall": 10}]
    began = time.monotonic()
    fetch(tmp_path, one(server))
    assert time.monotonic() - began < 3
    assert ranges(server) == [None, f"bytes={1 << 16}-"]  # whole blocks are kept
    server.script, server.always = [], {"cut": 0, "stall": 10}
    assert "sent nothing for 0.4 s, 3 times in a row" in sentence(tmp_path / "other", one(server))
    server.release.set()
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]


def test_nobody_answers(tmp_path, server):
    gone = one(server, url="http://127.0.0.1:9/images_gz2.zip")
    assert "127.0.0.1:9 cannot be reached, 3 times in a row" in sentence(tmp_path, gone)
    assert "cannot be asked for" in sentence(tmp_path, one(server, url="http://[broken"))


def test_redirections(tmp_path, server):
    server.script = [{"status": 302, "headers": {"Location": f"{server.url}/elsewhere/{IMAGES}"}}]
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]
    server.always = {"status": 302, "headers": {"Location": "/round"}}
    assert "Exceeded 30 redirects" in sentence(tmp_path / "other", one(server))


def test_a_redirection_to_an_address_without_encryption(tmp_path):
    remote = http_download.RemoteFile("x.zip", b"PK", 1, 10, "download it by hand")
    downloader = http_download.ResumingDownloader(remote, tmp_path / "x", lambda path: None)
    answer = SimpleNamespace(url="http://a/x", history=[SimpleNamespace(url="https://a/x")], close=lambda: None)
    session = SimpleNamespace(get=lambda *_, **__: answer)
    with pytest.raises(UserError, match="leads to one without encryption"):
        downloader._get(session, "https://a/x", {})


def test_chunks_without_a_length(tmp_path, server):
    server.script = [{"chunked": True, "cut": 40_000}, {"chunked": True}]
    fetch(tmp_path, one(server))
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]


def test_a_file_that_is_stored_compressed_stays_so(tmp_path, server):
    server.always = {"headers": {"Content-Encoding": "gzip"}}
    server.script = [{**server.always, "cut": 30_000}]
    fetch(tmp_path, one(server, VOTES))
    assert (tmp_path / VOTES).read_bytes() == server.contents[VOTES]
    assert server.sent == len(server.contents[VOTES])


def test_an_endless_file_is_stopped(tmp_path, server):
    server.always = {"chunked": True, "body": server.contents[IMAGES] * 20}
    assert "does not end after" in sentence(tmp_path, one(server))
    assert server.sent < 7_000_000
    server.always = {}
    fetch(tmp_path, one(server))  # what arrived of it is in nobody's way


@pytest.mark.skipif(os.name == "nt", reason="limits the size of files as POSIX does")
def test_a_disk_that_takes_no_more(tmp_path, server):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        text = sentence(tmp_path, one(server))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"cannot write {partial(tmp_path)}: File too large: make room for it, then run the same command" in text
    fetch(tmp_path, one(server))
    assert ranges(server) == [None, "bytes=100000-"]
    assert (tmp_path / IMAGES).read_bytes() == server.contents[IMAGES]
