"""The description of the server's requests, held against the routes, their parameters and what they answer."""

from __future__ import annotations

import json
import re
from urllib.parse import urljoin

import pytest

from config_physics import ATTRIBUTES, MORPHOLOGY_NAMES
from galaxies.serving import examples
from galaxies.serving.application import create_app
from galaxies.serving.openapi import describe
from galaxies.serving.queries import MAX_SEED
from galaxies.serving.routes import ROUTES as TABLE
from tests.conftest import ROOT
from tests.serving.test_app import ask

DOCUMENT = json.loads(json.dumps(describe(TABLE)))


@pytest.fixture(autouse=True)
def short_searches(monkeypatch):
    """Look through few galaxies for clear examples, of which noise has none; `test_learn.py` tries the search."""
    monkeypatch.setattr(examples, "_DRAWN", 4)
    monkeypatch.setattr(examples, "_SEEDS", 64)


def parameters_of(path: str) -> list[dict]:
    references = DOCUMENT["paths"][path]["get"].get("parameters", [])
    return [DOCUMENT["components"]["parameters"][r["$ref"].rsplit("/", 1)[1]] for r in references]


def test_every_route_is_described_and_every_description_is_a_route():
    files = {"/", "/learn", "/learn/"} | {f"/{path.name}" for path in (ROOT / "frontend").glob("*")}
    files |= {f"/languages/{path.name}" for path in (ROOT / "frontend" / "languages").glob("*")}
    routes = {str(rule) for rule in create_app().url_map.iter_rules()} - files
    assert routes == set(DOCUMENT["paths"])
    assert all(set(operations) == {"get"} for operations in DOCUMENT["paths"].values())


def test_described_attributes_are_those_of_the_table():
    described = {p["name"]: p for p in DOCUMENT["components"]["parameters"].values() if p["schema"]["type"] == "number"}
    assert list(described) == list(ATTRIBUTES)
    for name, attribute in ATTRIBUTES.items():
        low, high = attribute.plausible
        assert described[name]["schema"] == {"type": "number", "minimum": low, "maximum": high}
        assert attribute.label in described[name]["description"] and attribute.unit in described[name]["description"]


# What requests may say: (lowest, highest, default), or (choices, default).
NUMBERS = {
    "solver_steps": (1, 16, None),
    "seed": (0, 2**63 - 1 - 10**8, 0),
    "seeds": (2, 64, None),
    "steps": (3, 33, 9),
    "columns": (1, 64, None),
}
CHOICES = {
    "image.png": ([64, 128, 256, 512], 256),
    "sheet.png": ([64, 128, 256], 64),
    "sheet.json": ([64, 128, 256], 64),
}


@pytest.mark.parametrize("route", ["image.png", "measure", "fits", "catalogue.csv", "sheet.png", "sheet.json"])
def test_ranges_and_choices_stay(route):
    described = {p["name"]: p for p in parameters_of(f"/api/{route}")}
    sheet = {"seeds", "sweep", "steps", "columns"} if route.startswith("sheet") else set()
    pixels = {"pixels"} if route in CHOICES else set()
    preview = {"solver_steps"} if route == "image.png" else set()
    assert set(described) == {"morphology", "seed", "model", *ATTRIBUTES, *sheet, *pixels, *preview}
    assert [name for name, p in described.items() if p["required"]] == ["morphology"]
    for name, (low, high, default) in NUMBERS.items():
        if name in described:
            schema = {"type": "integer", "minimum": low, "maximum": high}
            assert described[name]["schema"] == schema | ({} if default is None else {"default": default})
    if pixels:
        choices, default = CHOICES[route]
        assert described["pixels"]["schema"] == {"type": "integer", "enum": choices, "default": default}
    assert described["morphology"]["schema"] == {"type": "string", "enum": list(MORPHOLOGY_NAMES)}
    assert described["model"]["schema"] == {"type": "string", "enum": ["gan", "diffusion"]}
    if sheet:
        assert described["sweep"]["schema"] == {"type": "string", "enum": list(ATTRIBUTES)}


def test_the_description_is_served(client):
    answer = client.get("/api/openapi.json")
    assert answer.json == DOCUMENT
    again = client.get("/api/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_server_is_found_below_a_path_too():
    (server,) = DOCUMENT["servers"]
    for base in ("http://localhost:5000", "https://hub.example.org/user/me/proxy/5000"):
        assert urljoin(f"{base}/api/openapi.json", server["url"]).rstrip("/") == base


def test_every_reference_leads_somewhere():
    text = json.dumps(DOCUMENT)
    found = re.findall(r'"\$ref": "#/components/(\w+)/([^"]+)"', text)
    assert len(found) == text.count('"$ref"') > 100
    assert all(name in DOCUMENT["components"][kind] for kind, name in found)
    assert {name for kind, name in found if kind == "parameters"} == set(DOCUMENT["components"]["parameters"])


OF_LIGHT = "/api/telescope.png"  # which models of pictures refuse; test_flux.py asks it
SURVEY = "survey"  # the same of a parameter; test_sky.py asks for it
PATHS = [path for path in DOCUMENT["paths"] if path != OF_LIGHT]
ROUTES = [path for path in PATHS if parameters_of(path)]


def example_of(path: str, known: list[str]) -> dict[str, object]:
    """Return a request with every described parameter, but what excludes another."""
    given = {p["name"]: p["example"] for p in parameters_of(path) if p["name"] not in ATTRIBUTES or p["name"] in known}
    given.pop("seeds", None)
    given.pop(SURVEY, None)
    return given


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_described_is_what_is_accepted(client, path):
    known = ["size", "brightness", "ellipticity", "redshift"]
    example = example_of(path, known)
    assert client.get(path, query_string=example).status_code == 200
    refused = client.get(path, query_string={"nothing": 1}).json
    assert set(refused["allowed"].split(", ")) == {p["name"] for p in parameters_of(path)}
    for parameter in parameters_of(path):
        name, schema = parameter["name"], parameter["schema"]
        if (name in ATTRIBUTES and name not in known) or name == SURVEY:
            continue
        base = {k: v for k, v in example.items() if not (name == "seeds" and k in ("sweep", "steps"))}
        without = client.get(path, query_string={k: v for k, v in base.items() if k not in (name, "steps")})
        is_needed = parameter["required"] or (name == "sweep")
        assert without.status_code == (400 if is_needed else 200 if name != "seeds" else 400)
        if "enum" in schema:
            right, wrong = schema["enum"], ["nothing"]
            right = known if name == "sweep" else right
        else:
            right, wrong = [schema["minimum"], schema["maximum"]], [schema["minimum"] - 1, schema["maximum"] + 1]
        if name == "seed":
            right = [0, MAX_SEED - 64]
        for value in right:
            assert client.get(path, query_string={**base, name: value}).status_code == 200, (name, value)
        for value in (*wrong, [right[0], right[0]]):  # once wrong, and twice the right one
            answer = client.get(path, query_string={**base, name: value})
            assert (answer.status_code, answer.json["parameter"]) == (400, name)


def test_what_is_left_out_has_the_described_default(client):
    base = {"morphology": "spiral", "size": 0.12}
    for path, others in (("/api/image.png", {}), ("/api/sheet.png", {"sweep": "size"})):
        defaults = {p["name"]: p["schema"]["default"] for p in parameters_of(path) if "default" in p["schema"]}
        answers = [client.get(path, query_string={**base, **others, **more}) for more in ({}, defaults)]
        assert answers[0].data == answers[1].data
        assert answers[0].headers["ETag"] == answers[1].headers["ETag"]


@pytest.mark.parametrize("file", ["docs/start.md", "docs/generation.md"])
def test_requests_that_are_written_about_work(client, file):
    found = re.findall(r'curl [^"]*"http://127\.0\.0\.1:5000(/[^"]*)"', (ROOT / file).read_text(encoding="utf-8"))
    assert found
    for target in found:
        assert ask(client, target).status_code == 200, target


def check_schema(value, schema, place="answer") -> None:
    """Check a JSON value against the few words of JSON Schema that the description uses."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:  # of a value and null alone
        (schema,) = [each for each in schema["anyOf"] if (each == {"type": "null"}) == (value is None)]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}
    types["number"] = (int, float)
    assert not kinds or any(
        isinstance(value, types[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds
    ), place
    if "const" in schema:
        assert value == schema["const"], place
    if "enum" in schema:
        assert value in schema["enum"], place
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), place
        more = schema.get("additionalProperties", True)
        for name, entry in value.items():
            inner = schema.get("properties", {}).get(name, more)
            assert inner is not False, f"{place}.{name} is not described"
            if isinstance(inner, dict):
                check_schema(entry, inner, f"{place}.{name}")
    if isinstance(value, list):
        for k, entry in enumerate(value):
            check_schema(entry, schema.get("items", {}), f"{place}[{k}]")


@pytest.mark.parametrize("path", PATHS)
def test_answers_are_as_described(client, path):
    query = example_of(path, ["size", "brightness"])
    answer = client.get(path, query_string=query)
    assert answer.status_code == 200
    described = DOCUMENT["paths"][path]["get"]["responses"]
    assert answer.mimetype in described["200"]["content"]
    if answer.mimetype == "application/json":
        check_schema(answer.json, described["200"]["content"]["application/json"]["schema"])
    for name in described["200"].get("headers", {}):
        assert name in answer.headers
    if parameters_of(path):
        check_schema(client.get(path, query_string={"nothing": 1}).json, {"$ref": "#/components/schemas/Error"})
        assert {"400", "503"} <= set(described)
    assert ("304" in described) == ("ETag" in described["200"].get("headers", {}))
