"""Files of any kind and content in place of those that are expected."""

from __future__ import annotations

import json
import math
import os
import socket
import threading

import pytest

from galaxies.common.reading import (
    MAX_DEPTH,
    MissingError,
    UnreadableError,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_text,
)
from galaxies.common.schema import entries, text, whole

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(UnreadableError, match=r"a has more than 4e-06 MB"):
        read_bytes(tmp_path / "a", 4)


@posix
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "is a pipe where a file is expected"),
        ("linked pipe", "is a pipe where a file is expected"),
        ("socket", "is a socket where"),
        ("/dev/zero", "is a device where"),
        ("linked /dev/zero", "is a device where"),
        ("folder", "is a folder where"),
        ("missing", "there is no file"),
        ("below a file", "there is no file"),
        ("dangling link", "there is no file"),
        ("link to itself", "cannot be read"),
        ("no name", "is no name of a file"),
        ("long name", "cannot be read"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, kind, words):
    path = tmp_path / "given"
    with socket.socket(socket.AF_UNIX) as one:
        if "pipe" in kind:
            os.mkfifo(tmp_path / "pipe")
            path = tmp_path / "pipe"
        elif kind == "socket":
            one.bind(os.path.relpath(path))  # a socket's path has at most 108 characters
        elif "/dev/zero" in kind:
            path = tmp_path / "/dev/zero"
        elif kind == "folder":
            path.mkdir()
        elif kind == "below a file":
            path.write_text("x")
            path = path / "below"
        elif kind == "dangling link":
            path.symlink_to("nowhere")
        elif kind == "link to itself":
            path.symlink_to("given")
        elif kind == "no name":
            path = tmp_path / "a\0b"
        elif kind == "long name":
            path = tmp_path / ("x" * 3000)
        if "linked" in kind:
            (tmp_path / "link").symlink_to(path)
            path = tmp_path / "link"
        found = []

        def read():
            try:
                read_bytes(path, 100, "get it again")
            except UnreadableError as error:
                found.append(str(error))

        thread = threading.Thread(target=read, daemon=True)  # so that one that waits for ever does not hold the suite
        thread.start()
        thread.join(5)
    assert len(found) == 1
    assert words in found[0]
    assert found[0].endswith("get it again")


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_must_not_be_read_says_so(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "a").chmod(0)
    with pytest.raises(UnreadableError, match="you are not allowed to"):
        read_bytes(tmp_path / "a", 5)


def test_an_error_of_the_system_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1")
    for error, words in (
        (PermissionError(13, "x"), "you are not allowed to"),
        (OSError(5, "Input/output error"), "Input"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.open", lambda *_, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(UnreadableError, match=words):
                open_regular(tmp_path / "a")


def test_text_is_utf8_with_or_without_a_byte_order_mark(tmp_path):
    (tmp_path / "a").write_bytes("é".encode("utf-8-sig"))
    assert read_text(tmp_path / "a") == "é"
    (tmp_path / "a").write_bytes("xé".encode("latin-1"))
    with pytest.raises(UnreadableError, match=r"a is no text in UTF-8 \(byte 1\): make it again"):
        read_text(tmp_path / "a", cure="make it again")


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, "é"]}, {"n": 2**63 - 1, "x": -1e300}])
def test_json_is_read_as_python_wrote_it(tmp_path, value):
    (tmp_path / "a").write_text(json.dumps(value))
    assert read_json(tmp_path / "a") == value
    (tmp_path / "a").write_bytes(json.dumps(value, ensure_ascii=False).encode("utf-8-sig"))
    assert read_json(tmp_path / "a") == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is no JSON"),
        (b'{"a": 1', "it is no JSON"),
        (b'{"a": 1} {"a": 2}', "it is no JSON"),
        (b"<html>", "it is no JSON"),
        (b"[1]", "it holds no JSON object"),
        (b"null", "it holds no JSON object"),
        (b'{"a": "\xff"}', "no text in UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "no text in UTF-8"),
        (b"\0" * 20, "it is no JSON"),
        (b'{"a": NaN}', "the number 'NaN', which is not finite"),
        (b'{"a": -Infinity}', "'-Infinity'"),
        (b'{"a": 1e999}', "'1e999'"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' stands twice"),
        (b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}", "more than 64 deep"),
        (b'{"a":' * 100_000, "more than 64 deep"),
        (b"[" * 1_000_000, "more than 64 deep"),
    ],
)
def test_other_json_is_refused_in_one_sentence(tmp_path, content, words):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnreadableError, match=words) as caught:
        read_json(tmp_path / "a", cure="make it again")
    assert str(caught.value).startswith(str(tmp_path / "a"))
    assert str(caught.value).endswith("make it again")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_json_as_deep_as_allowed_is_read():
    depth = MAX_DEPTH
    assert parse_json(b"[" * depth + b"]" * depth) is not None
    with pytest.raises(ValueError, match="64 deep"):
        parse_json(b"[" * (depth + 1) + b"]" * (depth + 1))


def test_numbers_that_are_none_are_read_on_demand():
    assert math.isnan(parse_json(b"[NaN]", constants=True)[0])
    assert parse_json(b"[1e999, -Infinity]", constants=True) == [math.inf, -math.inf]


def test_what_is_expected_is_checked(tmp_path):
    (tmp_path / "a").write_text('{"count": "three"}')
    expected = entries({"count": whole(1)}, {"source": text()})
    with pytest.raises(
        UnreadableError, match=r"since count is 'three', not a whole number of 1 or more: make it again"
    ):
        read_json(tmp_path / "a", expected, cure="make it again")


def test_a_missing_file_can_be_told_from_others(tmp_path):
    with pytest.raises(MissingError, match=r"^there is no file .*a: make one$"):
        read_json(tmp_path / "a", cure="make one")
