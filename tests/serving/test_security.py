"""What every answer of the server has, which hosts it answers to, and that no request reaches a file or an address."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlencode

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from galaxies.serving import application
from galaxies.serving.application import create_app
from galaxies.serving.security import HEADERS, INLINE_SCRIPT
from tests.serving.test_app import GALAXY, ask
from tests.serving.test_openapi import DOCUMENT

# What every answer has


@pytest.mark.parametrize(
    "path",
    [*DOCUMENT["paths"], "/", "/nothing", f"/api/image.png?{GALAXY}", f"/api/fits?{GALAXY}", "/api/image.png?size=x"],
)
def test_headers(client, path):
    headers = dict(client.get(path).headers)
    assert HEADERS.items() <= headers.items()
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert not [name for name in headers if name.lower().startswith("access-control") or name == "Server"]
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == policy["style-src"] == "'self'"
    assert policy["script-src"] == f"'self' '{INLINE_SCRIPT}'"
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_the_one_script_within_the_page_is_allowed_by_its_hash(client):
    (script,) = re.findall("<script>(.*?)</script>", client.get("/").text)
    assert "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == INLINE_SCRIPT


def test_a_proxy_may_pass_its_own_name_on():
    client = create_app(proxy_hosts=["Hub.example.org"]).test_client()
    for host, status in (
        ("hub.example.org", 200),
        ("HUB.example.org:8443", 200),
        ("localhost", 200),
        ("example.org", 421),
    ):
        assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_no_origin_is_let_in(client):
    answer = client.get("/api/model", headers={"Origin": "https://evil.example"})
    assert not [name for name in dict(answer.headers) if name.lower().startswith("access-control")]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    ("host", "bound", "status"),
    [
        ("localhost", "127.0.0.1", 200),
        ("LOCALHOST:5000", "127.0.0.1", 200),
        ("127.0.0.1:80", "127.0.0.1", 200),
        ("[::1]:5000", "127.0.0.1", 200),
        ("evil.example", "127.0.0.1", 421),
        ("evil.example:5000", "127.0.0.1", 421),
        ("localhost.evil.example", "127.0.0.1", 421),
        ("127.0.0.1.evil.example", "127.0.0.1", 421),
        ("evil.example#localhost", "127.0.0.1", 421),
        ("localhost@evil.example", "127.0.0.1", 421),
        ("localhost, evil.example", "127.0.0.1", 421),
        ("localhost:5000:5000", "127.0.0.1", 421),
        ("localhost:x", "127.0.0.1", 421),
        ("localhost.", "127.0.0.1", 421),
        ("[::1", "127.0.0.1", 421),
        ("[::2]:5000", "127.0.0.1", 421),
        ("192.168.1.5", "127.0.0.1", 421),
        ("", "127.0.0.1", 421),
        ("192.168.1.5:5000", "0.0.0.0", 200),
        ("[FE80::1]:5000", "::", 200),
        ("[fe80::1]", "::", 200),
        ("evil.example", "0.0.0.0", 421),
        ("192.168.1.5", "192.168.1.5", 200),
        ("192.168.1.6", "192.168.1.5", 421),
        ("galaxies.lan", "galaxies.lan", 200),
    ],
)
def test_host(host, bound, status):
    environ = {**create_environ("/healthz"), "HTTP_HOST": host}  # an older werkzeug's client fails at wrong ones itself
    _, line, headers = run_wsgi_app(create_app(host=bound), environ)
    assert int(line.split()[0]) == status
    assert HEADERS.items() <= dict(headers).items()


def test_the_page_is_served_file_by_file(tmp_path, monkeypatch):
    for name in ("index.html", "script.js", "style.css", "notes.txt", ".env", "key.pem"):
        (tmp_path / name).write_text(f"this is {name}")
    (tmp_path / "deeper.js").mkdir()
    monkeypatch.setattr(application, "_FRONTEND", tmp_path)
    client = create_app().test_client()
    answer = client.get("/")
    assert (answer.text, answer.mimetype) == ("this is index.html", "text/html")
    assert client.get("/script.js").mimetype == "text/javascript"
    assert (
        client.get("/style.css", headers={"If-None-Match": client.get("/style.css").headers["ETag"]}).status_code == 304
    )
    (tmp_path / "style.css").write_text("changed")
    assert client.get("/style.css").text == "changed"
    (tmp_path / "later.js").write_text("came later")
    for path in (
        "/index.html",
        "/notes.txt",
        "/.env",
        "/key.pem",
        "/deeper.js",
        "/later.js",
        "/script.js/",
        "/SCRIPT.JS",
    ):
        assert client.get(path).status_code == 404, path


# Published exploits of a well-known demo server (Gradio), replayed: reading files by path traversal, by absolute and
# Windows paths and through an upload's name; fetching addresses of the exploiter's choice through /proxy and ?url=.

SECRETS = ("root:", "[fonts]", "import", "BEGIN", "torch", "password")
TRAVERSALS = [
    "/../../../../etc/passwd",
    "/..%2f..%2f..%2fetc%2fpasswd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/%2e%2e%2f%2e%2e%2fapp.py",
    "/..%252f..%252fapp.py",
    "/..%5c..%5capp.py",
    "/..\\..\\app.py",
    "/....//....//etc/passwd",
    "/..;/app.py",
    "/%c0%ae%c0%ae/app.py",
    "/..%c0%af..%c0%afapp.py",
    "/..%00/app.py",
    "/style.css/../../app.py",
    "/style.css%00.html",
    "/static/../app.py",
    "/static//etc/passwd",
    "/static/%2e%2e/app.py",
    "/assets/../../app.py",
    "/app.py",
    "/checkpoints/gan/latest.pt",
    "/file=/etc/passwd",
    "/file=../../app.py",
    "/file=C:\\Windows\\win.ini",
    "/file/C:/Windows/win.ini",
    "/file=\\\\evil.example\\share\\x",
    "/C:/Windows/win.ini",
    "/C:\\Windows\\win.ini",
    "//evil.example/share",
    "/\\\\evil.example\\share",
    "/proxy=http://169.254.169.254/latest/meta-data/",
    "/proxy=https://evil.hf.space.example/",
    "/component_server",
    "/queue/join?__theme=dark",
    "/upload?upload_id=../../x",
    "/custom_component/x/y/../../../../etc/passwd",
    "/stream/x/y/z/../../etc/passwd",
    "/gradio_api/file=/etc/passwd",
    "/login?next=//evil.example",
    "/monitoring/x",
    "/api/model/../../app.py",
    "http://evil.example/",
]
PATHS = ["../../etc/passwd", "/etc/passwd", "C:\\Windows\\win.ini", "\\\\evil.example\\x", "file:///etc/passwd"]
PATHS += [
    "http://169.254.169.254/",
    "//evil.example",
    "spiral/../../app.py",
    "spiral\r\nX-Evil: 1",
    "<script>1</script>",
]


@pytest.mark.parametrize("target", TRAVERSALS)
@pytest.mark.parametrize("decoded", [False, True])
def test_no_path_leads_to_a_file(client, target, decoded):
    if decoded:  # as a server hands it on
        target = unquote_to_bytes(target).decode("latin-1")
    answer = ask(client, target)
    assert answer.status_code == 404
    assert not any(secret in answer.text for secret in SECRETS)
    assert "Location" not in answer.headers


@pytest.mark.parametrize("value", PATHS)
@pytest.mark.parametrize(
    "name", ["morphology", "model", "seed", "size", "pixels", "sweep", "url", "file", "path", "next"]
)
def test_no_value_becomes_a_path_an_address_or_a_header(client, monkeypatch, name, value):
    def never(*_, **__):
        raise AssertionError("a file or an address was opened")

    monkeypatch.setattr(socket, "socket", never)
    monkeypatch.setattr(Path, "open", never)
    monkeypatch.setattr(Path, "read_bytes", never)
    for route in ("image.png", "measure", "sheet.png", "sheet.json", "fits", "catalogue.csv"):
        answer = ask(client, f"/api/{route}?{urlencode({'morphology': 'spiral', name: value})}")
        assert answer.status_code == 400
        assert answer.mimetype == "application/json"
        assert not any("evil" in text.lower() or "\n" in text for text in answer.headers.values())


def test_headers_of_a_proxy_mean_nothing(client):
    sent = {"X-Forwarded-Host": "evil.example", "X-Original-URL": "/app.py", "X-Rewrite-URL": "/app.py"}
    sent |= {"X-Forwarded-For": "evil.example", "X-Forwarded-Proto": "file", "Referer": "http://evil.example/"}
    plain, other = client.get("/api/model"), client.get("/api/model", headers=sent)
    assert other.data == plain.data
    assert "evil" not in str(other.headers)
