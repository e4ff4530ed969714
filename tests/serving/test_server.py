"""The server over a real socket: raw bytes, limits, overload, a client that goes away, and the script itself."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from waitress import wasyncore

import app
from galaxies.common.errors import UserError
from galaxies.generation.sampler import GalaxySampler
from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel, load_models
from galaxies.serving.security import HEADERS, OneLineFormatter
from galaxies.serving.server import MOST_BODY, address_of, bind, build_server
from tests.conftest import ROOT, run_script

GALAXY = "morphology=spiral&size=0.12&brightness=0.3&ellipticity=0.4&redshift=0.05"


@contextmanager
def serving(application, threads: int = 8):
    """Serve in a thread of this process; yield the port."""
    with bind("127.0.0.1", 0) as listener:
        server = build_server(application, listener, threads)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server.effective_port
        finally:
            server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
            thread.join(20)
            server.task_dispatcher.shutdown()


def send(port: int, content: bytes, timeout: float = 20) -> bytes:
    """Send bytes and read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(content)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def head_of(answer: bytes) -> tuple[int, dict[str, str]]:
    lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:])


def get(port: int, target: str) -> tuple[int, dict[str, str], bytes]:
    answer = send(port, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1"))
    return *head_of(answer), answer.partition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def port(untrained):
    with serving(create_app(load_models(list(untrained.values()), "cpu"))) as port:
        yield port


def test_a_picture_over_the_network(port, client):
    status, headers, content = get(port, f"/api/image.png?{GALAXY}")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert content == client.get(f"/api/image.png?{GALAXY}").data
    assert HEADERS.items() <= headers.items()
    assert "Server" not in headers and "Via" not in headers


@pytest.mark.parametrize(
    ("target", "parameter"),
    [
        ("/api/image.png?morphology=spiral&size=NaN", "size"),
        ("/api/image.png?morphology=spiral&size=1e400", "size"),
        ("/api/image.png?morphology=spiral&size=0.1\x00", "size"),
        ("/api/image.png?morphology=spiral&size=0.1&size=0.2", "size"),
        ("/api/image.png?morphology=spiral&" + "x" * 10_000, "query"),
        ("/api/image.png?morphology=spiral?size=1", "morphology"),
        ("/api/image.png?morphology=%s%n%p", "morphology"),
        ("http://evil.example/api/image.png?morphology=x", "morphology"),
    ],
)
def test_raw_targets(port, target, parameter):
    status, headers, content = get(port, target)
    assert status == 400
    assert json.loads(content)["parameter"] == parameter
    assert HEADERS.items() <= headers.items()


LAST = b"Connection: close\r\n"
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("content", "statuses"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n", (400,)),
        (b"GARBAGE\r\n\r\n", (400,)),
        (b"GET\r\n\r\n", (400,)),
        (b"GET /healthz HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n", (200, 400, 505)),
        (b"get /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", (200, 400)),
        (b"GET /api/image.png?morphology=\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", (400,)),
        (b"GET /healthz\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 404)),
        (b"GET /healthz HTTP/1.1\r\n\r\n", (421,)),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", (421,)),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", (421,)),
        (b"GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", (421,)),
        (REQUEST + b"Bad Header\r\n\r\n", (400,)),
        (REQUEST + b"X: a\nb\r\n\r\n", (400,)),
        (REQUEST + b"Content-Length: -1\r\n\r\n", (400,)),
        (REQUEST + b"Content-Length: 1e400\r\n\r\n", (400,)),
        (REQUEST + b"Content-Length: %d\r\n\r\n" % (MOST_BODY + 1), (413,)),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\n5000\r\n" + b"z" * 0x5000 + b"\r\n0\r\n\r\n", (413,)),
        (REQUEST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", (400,)),
        (REQUEST + b"Transfer-Encoding: gzip\r\n\r\n", (501,)),
        (REQUEST + b"X: " + b"y" * 20_000 + b"\r\n\r\n", (431,)),
        (b"POST /api/model HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", (405,)),
        (REQUEST + b"If-None-Match: \"\x00\xff\r\n\r\n", (200, 400)),
        (REQUEST + b"Range: bytes=0-1e400,x\r\n\r\n", (200,)),
    ],
)  # fmt: skip
def test_raw_requests(port, content, statuses):
    first, _, rest = content.partition(b"\r\n")
    answer = send(port, first + b"\r\n" + LAST + rest)
    status, headers = head_of(answer)
    assert status in statuses
    if headers["Content-Type"].startswith("text/plain"):  # it never reached the application
        assert status >= 400 and len(answer) < 1000
    else:
        assert HEADERS.items() <= headers.items()
    assert "Server" not in headers
    assert b"Traceback" not in answer and b"waitress" not in answer
    assert get(port, "/healthz")[0] == 200


def test_half_a_request_is_no_request(port):
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(b"GET /api/image.png?morphology=spi")
        assert get(port, "/healthz")[0] == 200  # nobody else waits for it


def test_a_pipeline_of_requests(port):
    answer = send(port, (REQUEST + b"\r\n") * 4 + REQUEST + LAST + b"\r\n")
    assert answer.count(b'{"status": "ok"}') == 5


# More than can be served


class Gate:
    """A sampler's `generate` that waits until it may go on."""

    def __init__(self, sampler: GalaxySampler) -> None:
        self.generate, self.go, self.begun = sampler.generate, threading.Event(), threading.Semaphore(0)
        self.seeds: list[int] = []
        sampler.generate = self

    def __call__(self, classes, values, seeds):
        self.seeds += list(seeds)
        self.begun.release()
        assert self.go.wait(60)
        return self.generate(classes, values, seeds)


def ask_all(port: int, targets: list[str]) -> tuple[list[threading.Thread], list[tuple[int, dict[str, str], float]]]:
    """Ask for many at once, in threads that add status, headers and seconds to the list that is returned."""
    answers: list[tuple[int, dict[str, str], float]] = []

    def ask(target: str) -> None:
        started = time.monotonic()
        status, headers, _ = get(port, target)
        answers.append((status, headers, time.monotonic() - started))

    threads = [threading.Thread(target=ask, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    return threads, answers


def wait_until(condition) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_too_many_at_once_are_refused_while_the_server_stays_alive(untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    gate = Gate(sampler)
    with serving(create_app([ServedModel(sampler)], most_requests=3), threads=3 + 4) as port:
        threads, answers = ask_all(port, [f"/api/image.png?{GALAXY}&seed={seed}" for seed in range(200)])
        wait_until(lambda: len(answers) == 197)
        assert get(port, "/healthz")[0] == 200
        assert get(port, "/api/model")[0] == 200
        assert {status for status, *_ in answers} == {503}
        assert all(1 <= int(headers["Retry-After"]) <= 60 for _, headers, _ in answers)
        assert max(seconds for *_, seconds in answers) < 10  # on a machine that does much else; the benchmark times it
        gate.go.set()
        for thread in threads:
            thread.join(60)
        assert sorted(status for status, *_ in answers) == [200] * 3 + [503] * 197
        assert len(gate.seeds) == 3


def test_a_slow_model_does_not_keep_the_other_one(untrained):
    slow = GalaxySampler.from_checkpoint(untrained["diffusion"], "cpu")
    gate = Gate(slow)
    quick = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    with serving(create_app([ServedModel(quick), ServedModel(slow)], most_requests=2)) as port:
        threads, answers = ask_all(port, [f"/api/image.png?{GALAXY}&model=diffusion&seed={seed}" for seed in (1, 2, 3)])
        wait_until(lambda: len(answers) == 1)
        assert get(port, f"/api/image.png?{GALAXY}&model=gan")[0] == 200
        gate.go.set()
        for thread in threads:
            thread.join(60)
        assert sorted(status for status, *_ in answers) == [200, 200, 503]


def test_nothing_is_drawn_for_a_client_that_has_gone(untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    gate = Gate(sampler)
    with serving(create_app([ServedModel(sampler)])) as port:
        threads, answers = ask_all(port, [f"/api/image.png?{GALAXY}&seed=1"])
        assert gate.begun.acquire(timeout=20)
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            target = f"/api/image.png?{GALAXY}&seed=2"
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            time.sleep(0.3)  # it is in the queue
        time.sleep(0.3)  # the server has seen that the client has gone
        gate.go.set()
        threads[0].join(20)
        assert get(port, f"/api/image.png?{GALAXY}&seed=3")[0] == 200
    assert answers[0][0] == 200
    assert gate.seeds == [1, 3]


# The log


def test_a_request_cannot_write_lines_of_the_log(untrained, monkeypatch):
    record = logging.LogRecord(
        "app", logging.ERROR, "", 0, "%s failed", ("/a\nERROR all is lost\x1b[2J\r\u2028",), None
    )
    formatter = OneLineFormatter("%(levelname)s %(message)s")
    assert formatter.format(record) == "ERROR /a\\x0aERROR all is lost\\x1b[2J\\x0d\\x2028 failed"
    try:
        raise ValueError("x\nERROR all is lost\x1b[2J")
    except ValueError:
        record.exc_info = sys.exc_info()
    _, *lines = formatter.format(record).splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("    ") and "\x1b" not in line for line in lines)


# Addresses


def test_a_port_in_use_is_a_user_error(port):
    with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be had .*--port"):
        bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "a..b", "x" * 300, "\udcff"])
def test_an_address_that_is_not_ours_is_a_user_error(host):
    with pytest.raises(UserError, match="cannot be had"):
        bind(host, 0)


def test_addresses_as_people_type_them():
    with bind("127.0.0.1", 0) as listener:
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with bind("0.0.0.0", 0) as listener:
        assert address_of(listener).startswith("http://127.0.0.1:")


# The script


@contextmanager
def script(*options, cwd):
    """Run app.py as a user would; yield the process, the address that it prints, and the lines before."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0", "--device", "cpu", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"http://\S+", line):
                yield process, found[0], lines
                break
        else:
            raise AssertionError(process.stderr.read())
    finally:
        process.kill()
        process.communicate()


def test_the_script_takes_the_newest_usable_checkpoint(tmp_path, untrained):
    for name in ("good", "damaged"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        shutil.copy(untrained["gan"], tmp_path / "checkpoints" / name / "latest.pt")
    os.truncate(tmp_path / "checkpoints/damaged/latest.pt", 3000)
    with script(cwd=tmp_path) as (process, address, lines):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        assert lines[0] == "good/latest.pt: generator frame with pixel noise\n"
        with urllib.request.urlopen(f"{address}api/image.png?{GALAXY}", timeout=20) as answer:
            assert answer.read().startswith(b"\x89PNG")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{address}api/image.png?morphology=x", timeout=20)
        result = run_script("app.py", "--port", address.rsplit(":", 1)[1].strip("/"), cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr.startswith("app.py: error: port ") and len(result.stderr.splitlines()) == 1
        process.terminate()
        assert process.wait(20) == 0 or sys.platform == "win32"
        errors = process.stderr.read()
    assert "damaged" in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--checkpoint", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["--solver", "ddim"], "no diffusion model is served"),
        (["--port", "65536"], "between 0 and 65535"),
        (["--threads", "0"], "between 1 and 100"),
        (["--debug", "--host", "0.0.0.0"], "leave out --host"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        app.main(["--port", "0", *options])


def test_the_script_without_a_checkpoint(tmp_path, monkeypatch, capsys):
    served = []

    class Server:
        def run(self) -> None:
            assert "the page is at http://" in capsys.readouterr().out

    def build(application, listener, threads):
        served.append((application.test_client().get("/api/model").status_code, threads))
        return Server()

    monkeypatch.setattr("galaxies.serving.server.build_server", build)
    monkeypatch.chdir(tmp_path)
    app.main(["--port", "0"])
    assert served == [(503, 40)]


def test_the_debugger_is_for_those_who_ask(tmp_path, monkeypatch):
    from flask import Flask

    runs = []
    monkeypatch.setattr(Flask, "run", lambda self, host, port, **options: runs.append((host, options)))
    monkeypatch.chdir(tmp_path)
    app.main(["--port", "0", "--debug"])
    assert runs == [("127.0.0.1", {"debug": True, "use_reloader": False})]
