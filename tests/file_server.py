"""A web server on this machine that does all that servers do wrong, and a small release for it to serve."""

from __future__ import annotations

import gzip
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.datasets.sources.galaxy_zoo_files import ReleaseFile, fetch_release
from galaxies.datasets.sources.http_download import Patience

QUICK = Patience(timeout_s=0.4, attempts=3, pause_s=0.01, longest_pause_s=0.3)
MAPPING, VOTES, IMAGES = "gz2_filename_mapping.csv", "gz2_hart16.csv.gz", "images_gz2.zip"
ETAG = '"one"'


class Handler(BaseHTTPRequestHandler):
    """Serve `server.contents`; for each request, the next entry of `server.script` says what goes wrong."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        name = unquote(self.path.rsplit("/", 1)[-1])
        fault = server.script.pop(0) if server.script else server.always
        server.requests.append(SimpleNamespace(name=name, headers=self.headers, fault=fault))
        body = fault.get("body", server.contents.get(name, b""))
        etag = fault.get("etag", server.etag)
        status, start = fault.get("status", 200), 0
        headers = {"Content-Type": "application/octet-stream", "Last-Modified": "Mon, 02 Dec 2019 10:00:00 GMT"}
        if etag:
            headers["ETag"] = etag
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        honoured = condition is None or condition == etag or fault.get("blind")
        if condition is not None and fault.get("cannot compare"):
            honoured = False
        if wanted and status == 200 and honoured and not fault.get("ignore range"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                status, headers["Content-Range"], body = 416, f"bytes */{len(body)}", b""
            else:
                status = 206
                first = start + fault.get("shift", 0)
                headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body) + fault.get('longer', 0)}"
        payload = body[start:]
        headers["Content-Length"] = str(fault.get("length", len(payload)))
        headers |= fault.get("headers", {})
        chunked = fault.get("chunked", False)
        if chunked:
            del headers["Content-Length"]
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        with suppress(OSError):  # the client may go at any time
            self.send(payload[: fault.get("cut")], fault, chunked)
        if "cut" in fault or "length" in fault or "stall" in fault:
            self.close_connection = True

    def send(self, payload: bytes, fault: dict, chunked: bool) -> None:
        for at in range(0, len(payload), 1 << 14):
            block = payload[at : at + (1 << 14)]
            self.server.sent += len(block)  # before: who has read it may look at once
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            time.sleep(fault.get("slow", 0))
        if chunked and "cut" not in fault:
            self.wfile.write(b"0\r\n\r\n")
        if "stall" in fault:
            self.server.release.wait(fault["stall"])

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Let clients go without a word."""


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server whose faults a test can choose."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.contents = contents()
        server.script, server.always, server.requests, server.sent = [], {}, [], 0
        server.etag, server.release = ETAG, threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()


def contents() -> dict[str, bytes]:
    rng = np.random.default_rng(5)
    rows = "".join(f"5877{i:014d},original,{i}\n" for i in range(4000))
    votes = "".join(f"5877{i:014d},{x:.9f},40\n" for i, x in enumerate(rng.random(4000)))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        for i in range(12):
            target.writestr(f"images/{i}.jpg", b"\xff\xd8\xff" + rng.bytes(30_000))
            target.writestr(f"__MACOSX/images/._{i}.jpg", b"\x00\x05\x16\x07")
    return {
        MAPPING: ("objid,sample,asset_id\n" + rows).encode(),
        VOTES: gzip.compress(("dr7objid,t01,total_votes\n" + votes).encode()),
        IMAGES: archive.getvalue(),
    }


def release(server) -> tuple[ReleaseFile, ...]:
    facts = {
        MAPPING: {"least": 4000, "columns": ("objid", "asset_id")},
        VOTES: {"least": 4000, "columns": ("dr7objid", "total_votes")},
        IMAGES: {"least": 12},
    }
    sizes = {"size": 200_000, "smallest": 10_000, "largest": 2_000_000}
    return tuple(ReleaseFile(name, f"{server.url}/{name}", **sizes, **known) for name, known in facts.items())


def one(server, name: str = IMAGES, **changes) -> tuple[ReleaseFile, ...]:
    return tuple(replace(file, **changes) for file in release(server) if file.name == name)


def fetch(folder: Path, files) -> list[Path]:
    return fetch_release(folder, files=files, patience=QUICK)


def sentence(folder: Path, files) -> str:
    with pytest.raises(UserError) as caught:
        fetch(folder, files)
    text = str(caught.value)
    assert "\n" not in text
    assert ". " not in text
    return text


def ranges(server) -> list[str | None]:
    return [request.headers.get("Range") for request in server.requests]


def partial(folder: Path, name: str = IMAGES) -> Path:
    return folder / ".download" / f"{name}.partial"
