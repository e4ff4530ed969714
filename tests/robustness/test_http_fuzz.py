"""Whatever a request says: what is right is answered, what is wrong is refused by name, and the server never fails."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config_physics import ATTRIBUTES, MORPHOLOGY_NAMES
from galaxies.mock_field.tiles import FIRST, LAST, MOST_SKY
from galaxies.serving.queries import MAX_SEED, PIXELS, SEEDS, STEPS, TILE_PIXELS
from galaxies.serving.security import HEADERS
from tests.serving.test_app import ask
from tests.serving.test_openapi import DOCUMENT, ROUTES, parameters_of

KNOWN = ("size", "brightness", "ellipticity", "redshift")
CHECKS = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
CASES = [100, pytest.param(5000, marks=pytest.mark.slow)]


def one_of(values) -> st.SearchStrategy[str]:
    return st.sampled_from([str(value) for value in values])


def number_between(low: float, high: float) -> st.SearchStrategy[str]:
    numbers = st.floats(low, high)
    return st.one_of(numbers.map(repr), numbers.map("{:.3e}".format).filter(lambda t: low <= float(t) <= high))


RIGHT = {
    "morphology": one_of(MORPHOLOGY_NAMES),
    "seed": st.one_of(one_of([0, 1, 7, MAX_SEED - 63]), st.integers(0, MAX_SEED - 63).map(str)),
    "model": one_of(["gan", "diffusion"]),
    "seeds": one_of([SEEDS[0], 3, 5]),
    "steps": one_of([STEPS[0], 4, 5]),
    "columns": one_of([1, 2, 3, 64]),
    "sweep": one_of(KNOWN),
    "sky": one_of([0, 1, MOST_SKY]),
    "x": one_of([FIRST, -1, 0, LAST]),
    "y": one_of([FIRST, 0, 7, LAST]),
    **{name: number_between(ATTRIBUTES[name].low, ATTRIBUTES[name].high) for name in KNOWN},
}
WRONG = st.one_of(
    one_of(["", "nan", "-inf", "1e400", "-1", "1_0", "٣", "0x10", " 1", "1 ", "1\0", "1\n2", "9" * 30, "true", "é"]),
    one_of(["../x", "C:\\x", "http://evil.example/", "\\\\evil\\x", "'; --", "<script>", "%s%n", "${7*7}", "\u202e"]),
    st.text(max_size=20),
    st.floats().map(repr),
    st.integers().map(str),
)  # fmt: skip
NAMES = st.one_of(
    one_of([*(p["name"] for p in DOCUMENT["components"]["parameters"].values()), "", "x", "__proto__", "size[]"]),
    st.text(max_size=8),
)


@st.composite
def right_requests(draw) -> tuple[str, list[tuple[str, str]]]:
    """Draw a route with parameters that it accepts."""
    path = draw(st.sampled_from(ROUTES))
    is_sheet = "sheet" in path
    pixels = PIXELS if path.endswith("image.png") else TILE_PIXELS
    values = {**RIGHT, "pixels": one_of(pixels)}
    names = [p["name"] for p in parameters_of(path) if p["name"] in values]
    if is_sheet:
        unwanted = draw(st.sampled_from([("seeds",), ("sweep", "steps")]))
        names = [name for name in names if name not in unwanted]
    needed = {"morphology", "seeds", "sweep"}
    chosen = [name for name in names if name in needed or draw(st.booleans())]
    return path, [(name, draw(values[name])) for name in draw(st.permutations(chosen))]


def written(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, errors='replace')}={quote(value, errors='replace')}" for name, value in pairs)


def check(answer) -> int:
    """Check what holds for every answer; return its status."""
    assert answer.status_code in (200, 304, 400, 404, 405, 421), (answer.status_code, answer.data[:200])
    assert HEADERS.items() <= dict(answer.headers).items()
    assert "Location" not in answer.headers and "Set-Cookie" not in answer.headers
    if answer.status_code >= 400:
        said = json.loads(answer.data)
        assert said["error"] and len(answer.data) < 2000
        assert "Traceback" not in said["error"] and "\n" not in said["error"]
        assert (answer.status_code != 400) or {"parameter", "allowed"} <= set(said)
    return answer.status_code


@pytest.mark.parametrize("cases", CASES)
def test_requests_that_are_right_or_wrong_in_one_place(client, cases, count):
    @settings(max_examples=cases // 2, **CHECKS)
    @given(right_requests(), st.none() | st.tuples(NAMES, WRONG, st.booleans()))
    def try_one(request, spoilt):
        path, pairs = request
        if spoilt is None:
            assert check(ask(client, f"{path}?{written(pairs)}")) == 200, pairs
            count("requests to the page's server, right ones")
            return
        name, value, twice = spoilt
        pairs = [pair for pair in pairs if pair[0] != name or twice]
        status = check(answer := ask(client, f"{path}?{written([*pairs, (name, value)])}"))
        count("requests to the page's server, wrong ones", status == 400)
        known = {p["name"] for p in parameters_of(path)}
        if name not in known or len([pair for pair in pairs if pair[0] == name]) > 0:
            assert status == 400 and answer.json["parameter"] == name[:60]
        elif status == 400 and not {name} & {"sweep", "seeds", "steps"}:
            assert answer.json["parameter"] == name

    try_one()


PATHS = st.one_of(
    st.sampled_from([*DOCUMENT["paths"], "/", "/script.js", "/api", "/../app.py", "/file=/etc/passwd"]),
    st.text(max_size=20).map(lambda text: "/" + text),
)
QUERIES = st.one_of(
    st.lists(st.tuples(NAMES, WRONG), max_size=6).map(written),
    st.binary(max_size=60).map(quote_from_bytes),
    st.binary(max_size=60).map(lambda content: content.decode("latin-1")),
    st.text("%&=+;01aZ\x00\xff", max_size=40),
    st.integers(0, 4000).map(lambda length: "seed=" + "1" * length),
)
HEADER_VALUES = st.one_of(
    one_of(["*", '"x"', 'W/"', "bytes=0-1", "localhost", "evil.example", "text/html", "1e400", "\xff\xfe", "a" * 900]),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30),
)
HEADER_NAMES = ("IF_NONE_MATCH", "IF_MODIFIED_SINCE", "RANGE", "HOST", "ACCEPT", "ORIGIN", "COOKIE", "X_FORWARDED_HOST")
HEADERS_SENT = st.dictionaries(st.sampled_from(HEADER_NAMES), HEADER_VALUES, max_size=2)
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "TRACE", "BREW", "get", "")


@pytest.mark.parametrize("cases", CASES)
def test_requests_of_any_kind(client, cases, count):
    @settings(max_examples=cases // 2, **CHECKS)
    @given(st.sampled_from(METHODS), PATHS, QUERIES, HEADERS_SENT)
    def try_one(method, path, query, headers):
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.encode("utf-8", "replace").decode("latin-1"),
            "QUERY_STRING": query,
            **{f"HTTP_{name}": value for name, value in headers.items()},
        }
        check_any(client.open("/", environ_overrides=environ))
        count("requests to the page's server, of any kind")

    def check_any(answer):
        if answer.request.method == "HEAD" and answer.status_code >= 400:
            assert answer.status_code < 500 and answer.data == b""
        else:
            check(answer)

    try_one()
