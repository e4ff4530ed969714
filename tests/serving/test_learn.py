"""The class mode's side of the server: clear examples, the page's files, and its languages."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from galaxies.measure.statistics_table import measure_images
from galaxies.serving.application import create_app
from galaxies.serving.batching import BusyError
from galaxies.serving.examples import CLEAR, SEEN_STATISTICS, ExampleFinder
from galaxies.serving.models import load_models
from galaxies.serving.queries import GalaxyQuery
from tests.conftest import ROOT

FRONTEND = ROOT / "frontend"
PARTS = sorted((FRONTEND / "languages").glob("*.json"))
SCRIPTS = sorted(FRONTEND.glob("learn*.js"))
NAMES = ("spiral", "elliptical", "merger", "edge-on")


@pytest.fixture(scope="module")
def models():
    """The GAN that comes with the program: an untrained one draws nothing that is clear."""
    return load_models([ROOT / "checkpoints" / "released" / "gan" / "generator.safetensors"], "cpu")


@pytest.fixture(scope="module")
def released(models):
    return create_app(models).test_client()


def finder_of(models) -> ExampleFinder:
    return ExampleFinder(create_app(models).extensions["galaxies"].by_id["gan"])


def query(class_index=1, seed=70_000, size=None) -> GalaxyQuery:
    return GalaxyQuery("gan", class_index, (size, None, None, None), seed)


def examples(client, **asked) -> list[dict]:
    answer = client.get("/api/examples", query_string=asked)
    assert answer.status_code == 200, answer.json
    return answer.json["examples"]


# The rules, on pictures whose class is known by how they are painted


def paint(name: str, turned: float = 0.6, side: int = 64) -> np.ndarray:
    """Paint a galaxy of a class (3, S, S) uint8, with a little noise: a formula each."""
    rng = np.random.default_rng(5)
    axis = (np.arange(side) - (side - 1) / 2) / side
    x, y = np.meshgrid(axis, axis)
    along, across = x * np.cos(turned) + y * np.sin(turned), y * np.cos(turned) - x * np.sin(turned)
    radius, azimuth = np.hypot(x, y), np.arctan2(y, x)
    if name == "spiral":
        arms = 1 + 0.6 * np.cos(2 * (azimuth - np.log(radius) / np.tan(np.radians(22))))
        light = 0.35 * np.exp(-((radius / 0.2) ** 2)) * arms + 0.4 * np.exp(-((radius / 0.05) ** 2))
    elif name == "elliptical":
        light = 0.95 * np.exp(-((np.hypot(along, across / 0.8) / 0.095) ** 0.9))
    elif name == "merger":
        light = sum(0.6 * np.exp(-((np.hypot(along - shift, across) / 0.09) ** 1.5)) for shift in (-0.12, 0.12))
    else:
        light = 0.8 * np.exp(-np.hypot(along, across / 0.2) / 0.1)
    picture = 0.02 + light + rng.normal(0, 0.004, (3, side, side))
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_a_painted_galaxy_is_a_clear_example_of_its_own_class_alone(name):
    pictures = torch.from_numpy(np.stack([paint(name, turned) for turned in (0.3, 1.4)]))
    measured = measure_images(pictures, statistics=SEEN_STATISTICS)
    assert [one for one, rule in CLEAR.items() if rule.holds(measured).all()] == [name]
    assert not any(rule.holds(measured).any() for one, rule in CLEAR.items() if one != name)


def test_a_spiral_without_a_bulge_is_no_clear_merger():
    # Each of its two arms is a brightest region of its own: as good as two nuclei.
    radius = np.hypot(*np.meshgrid(*2 * [(np.arange(64) - 31.5) / 64]))
    bulge = 102 * np.exp(-((radius / 0.05) ** 2))
    spiral = (paint("spiral") - bulge).clip(0, 255).round().astype(np.uint8)
    measured = measure_images(torch.from_numpy(spiral)[None], statistics=SEEN_STATISTICS)
    assert measured.values["second_nucleus"] > 0.4
    assert not CLEAR["merger"].holds(measured).any()


def test_nothing_is_a_clear_example_where_nothing_is():
    blank = torch.full((2, 3, 64, 64), 5, dtype=torch.uint8)
    measured = measure_images(blank, statistics=SEEN_STATISTICS)
    assert not any(rule.holds(measured).any() for rule in CLEAR.values())


def test_a_galaxy_that_the_frame_cuts_off_is_no_clear_example():
    shifted = np.roll(paint("edge-on"), 28, axis=2)
    shifted[:, :, :28] = 5
    measured = measure_images(torch.from_numpy(shifted)[None], statistics=SEEN_STATISTICS)
    assert not CLEAR["edge-on"].holds(measured).any()


# What is answered


@pytest.mark.parametrize("name", NAMES)
def test_examples_show_what_their_class_is_known_by(released, name):
    found = examples(released, morphology=name, seed=40_000, count=3)
    assert len(found) == 3
    pictures = []
    for one in found:
        asked = {"morphology": name, "seed": one["seed"], "model": "gan", "pixels": 64}
        file = released.get("/api/image.png", query_string=asked).data
        pictures.append(np.asarray(Image.open(BytesIO(file))).transpose(2, 0, 1))
    measured = measure_images(torch.from_numpy(np.stack(pictures)), statistics=SEEN_STATISTICS)
    arms, nuclei, ellipticity = (measured.values[k] for k in ("arm_strength", "second_nucleus", "ellipticity"))
    for statistic in ("arm_strength", "second_nucleus", "ellipticity", "size"):
        assert [one["signs"][statistic] for one in found] == pytest.approx(measured.values[statistic], rel=1e-4)
    if name == "spiral":
        assert (arms > 0.13).all() and all("arms" in one["visible"] for one in found)
    else:
        assert (arms < 0.093).all() or name in ("merger", "edge-on")
    assert (nuclei > 0.4).all() if name == "merger" else (nuclei < 0.31).all()
    assert all(("second nucleus" in one["visible"]) == (one["signs"]["second_nucleus"] > 0.2) for one in found)
    assert (ellipticity > 0.6).all() if name == "edge-on" else (ellipticity < 0.61).all()
    assert all(one["ellipse"] and one["flag"] == 0 for one in found)
    # The radius of the circle that holds half of the light, of which the page makes its circles.
    radii = [(one["ellipse"]["semi_major"] + one["ellipse"]["semi_minor"]) / 2 for one in found]
    assert radii == pytest.approx([one["attributes"]["size"]["measured"] for one in found], rel=1e-4)


def test_the_same_request_has_the_same_examples_and_the_first_of_many_are_those_of_few(models):
    few_first, many_first = finder_of(models), finder_of(models)
    few = few_first.find(query(), 2)
    many = few_first.find(query(), 5)
    assert many_first.find(query(), 5) == many and many_first.find(query(), 2) == few == many[:2]
    assert len({one.seed for one in many}) == 5
    assert [one.seed for one in many] == sorted(one.seed for one in many)
    assert min(one.seed for one in many) >= 70_000
    assert finder_of(models).find(query(seed=80_000), 2) != few


def test_what_is_asked_for_is_kept_to(released):
    found = examples(released, morphology="elliptical", size=0.15, seed=3, count=2)
    assert [one["attributes"]["size"]["set"] for one in found] == [True, True]
    assert [one["attributes"]["size"]["requested"] for one in found] == [0.15, 0.15]
    assert all(0.1 < one["attributes"]["size"]["measured"] < 0.2 for one in found)


def test_a_network_that_draws_nothing_clear_has_no_examples(client):
    assert examples(client, morphology="merger", seed=1, count=2, model="gan") == []


def test_a_class_that_asks_at_once_is_answered_once(models, monkeypatch):
    finder = finder_of(models)
    drawn = []
    galaxies = finder._service.galaxies
    monkeypatch.setattr(
        finder._service, "galaxies", lambda queries, *more: drawn.extend(queries) or galaxies(queries, *more)
    )
    found: list = []
    pupils = [threading.Thread(target=lambda: found.append(finder.find(query(seed=9), 2))) for _ in range(8)]
    for pupil in pupils:
        pupil.start()
    for pupil in pupils:
        pupil.join(60)
    assert len(found) == 8 and all(one == found[0] for one in found)
    assert max(Counter(drawn).values()) <= 2  # to look for signs, and those that are clear once more for the report


def test_a_search_that_is_cut_off_goes_on_where_it_was(models, monkeypatch):
    finder = finder_of(models)
    signs, calls = finder._signs, []

    def fail_later(queries, is_wanted):
        calls.append(len(queries))
        if len(calls) == 2:
            raise BusyError(1)
        return signs(queries, is_wanted)

    monkeypatch.setattr(finder, "_signs", fail_later)
    with pytest.raises(BusyError):
        finder.find(query(0, seed=20_000), 6)
    assert finder.find(query(0, seed=20_000), 6) == finder_of(models).find(query(0, seed=20_000), 6)


# The page's files


def test_the_page_is_served_and_every_address_on_it_is_relative(released):
    page = released.get("/learn")
    assert page.status_code == 200 and page.mimetype == "text/html"
    text = page.get_data(as_text=True)
    targets = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert targets and not [one for one in targets if re.match(r"/|[a-z]+://", one)]
    for target in targets:
        if not target.startswith(("#", "data:")):
            assert released.get(f"/{target.removeprefix('.')}").status_code == 200, target
    for script in SCRIPTS:
        code = script.read_text(encoding="utf-8")
        assert len(code.encode()) < 60_000
        assert not re.findall(r"""["'`](?:https?:)?//(?!www\.w3\.org/2000/svg)|["'`]/(?:api|learn|languages)""", code)
        assert released.get(f"/{script.name}").status_code == 200


@pytest.mark.parametrize(
    ("query", "kept"),
    [("", ""), ("?lesson=1.type.2.size.en.simple.5.gan", "?lesson=1.type.2.size.en.simple.5.gan"), ("?a=<b>", "")],
)
def test_a_slash_at_the_end_leads_to_the_page_below_any_path(query, kept):
    answer = create_app([]).test_client().get(f"/learn/{query}")
    assert answer.status_code == 308
    assert answer.headers["Location"] == "../learn" + kept  # relative: a proxy may have a path of its own


def test_the_page_may_be_asked_for_without_a_model():
    assert create_app().test_client().get("/learn").status_code == 200
    assert create_app().test_client().get("/api/examples?morphology=spiral").status_code == 503


# Its languages


def placeholders(text: str) -> list[str]:
    return sorted(re.findall(r"\{\w+\}", text))


def test_all_languages_say_the_same_things_with_the_same_placeholders():
    languages = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in PARTS}
    assert set(languages) == {"en", "de", "es"}
    english = languages["en"]
    for name, texts in languages.items():
        assert list(texts) == list(english), name
        assert {k: placeholders(t) for k, t in texts.items()} == {k: placeholders(t) for k, t in english.items()}, name
        assert all(text.strip() == text and text for text in texts.values()), name
        # A sentence that was left in English would be the same.
        alike = {key for key in texts if texts[key] == english[key] and len(texts[key].split()) > 2}
        assert name == "en" or alike == set()


def test_every_text_that_the_page_asks_for_is_there_and_every_text_is_used(released):
    english = json.loads((FRONTEND / "languages" / "en.json").read_text(encoding="utf-8"))
    sources = "".join(path.read_text(encoding="utf-8") for path in [*SCRIPTS, FRONTEND / "learn.html"])
    assert set(re.findall(r'data-text="(\w+)"', sources)) <= set(english)
    assert set(re.findall(r'\btext\("(\w+)"', sources)) <= set(english)
    beginnings = set(re.findall(r"`(\w+_)\$\{", sources))  # of those that are made of parts
    beginnings |= {f"{part}_" for part in ("low", "high", "make_below", "make_above") if f'"{part}"' in sources}
    plain = set(re.findall(r"[\"'](\w+)[\"']", sources)) | set(re.findall(r'data-text="(\w+)"', sources))
    used = [
        key
        for key in english
        if key in plain
        or any(key.startswith(start) for start in beginnings)
        or re.sub("_(one|other|expert|named)$", "", key) in plain
    ]
    assert sorted(set(english) - set(used)) == []
