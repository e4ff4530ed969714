"""The sky by its routes: tiles that stay the same, the galaxies in them, and what is refused."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from galaxies.mock_field.making import reference_of
from galaxies.mock_field.tiles import LightTiles, Tile
from galaxies.mock_field.trained_light import GeneratorLight
from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel, load_models
from galaxies.serving.sky import _MOST_REQUESTS, ModelSky
from galaxies.telescope.surveys import find_survey
from tests.generation.painted import light_painting_sampler, painting_sampler
from tests.serving.test_app import ask, pixels_of


@pytest.fixture(scope="module")
def light():
    """Ask the server of a generator that paints light."""
    return create_app([ServedModel(light_painting_sampler(), "painted/latest.pt", 7)]).test_client()


@pytest.mark.parametrize("model", ["gan", "diffusion"])
def test_a_tile_is_the_same_whoever_asks_and_when(untrained, model):
    pictures = []
    for order in ((0, 1), (1, 0)):
        client = create_app(load_models([untrained[model]], "cpu")).test_client()
        found = {x: client.get(f"/api/sky.png?x={x}&sky=5") for x in order}
        pictures.append({x: found[x].data for x in order})
        assert pixels_of(found[0]).shape == (256, 256, 3)
    assert pictures[0] == pictures[1] and pictures[0][0] != pictures[0][1]
    again = client.get("/api/sky.png?sky=5&x=0", headers={"If-None-Match": found[0].headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    for other in ("sky=6", "sky=5&y=1"):
        assert client.get(f"/api/sky.png?{other}").data not in pictures[0].values()


def test_its_galaxies_are_those_that_the_page_can_open(client):
    facts = client.get("/api/model").json["sky"]
    assert facts == {"pixels": 256, "first": -1024, "last": 1023, "most": 2**31 - 1}
    tile = client.get("/api/sky.json?sky=2&x=3&y=-4").json
    assert tile["survey"] is None and tile["galaxies"]
    magnitudes = [galaxy["magnitude"] for galaxy in tile["galaxies"]]
    assert magnitudes == sorted(magnitudes)
    for galaxy in tile["galaxies"]:
        assert 0 <= galaxy["x"] <= 256 and 0 <= galaxy["y"] <= 256 and galaxy["radius"] > 0
        query = f"morphology={galaxy['morphology']}&seed={galaxy['seed']}"
        assert galaxy["values"] == {} and client.get(f"/api/image.png?{query}").status_code == 200


def test_light_is_seen_through_a_survey_as_the_field_generator_draws_it(light):
    found = pixels_of(light.get("/api/sky.png?sky=3&survey=Euclid_VIS"))
    survey = find_survey("Euclid_VIS")
    source = GeneratorLight(light_painting_sampler(), survey, reference_of(survey))
    expected = LightTiles(survey, 25.0, source).picture(3, Tile(0, 0))
    off = np.abs(found.astype(int) - expected)
    assert off.mean() < 0.01 and expected.std() > 5  # attributes are asked for in six digits
    usual = light.get("/api/sky.png?sky=3")
    assert (
        usual.data
        == light.get("/api/sky.png?sky=3&survey=LSST").data
        != light.get("/api/sky.png?sky=3&survey=SDSS").data
    )
    tile = light.get("/api/sky.json?sky=3&survey=Euclid_VIS").json
    assert (tile["survey"], tile["pixel_scale"]) == ("Euclid_VIS", 0.1)


def test_a_galaxy_of_light_is_opened_by_what_was_asked_of_the_model(light):
    galaxies = light.get("/api/sky.json?sky=3").json["galaxies"]
    assert len(galaxies) > 10
    for galaxy in galaxies[:3]:
        values = galaxy["values"]
        assert set(values) == {"magnitude_r", "size_arcsec", "redshift"}
        # The generator knows magnitudes of 18 to 22: a fainter galaxy is the nearest that it knows, dimmed.
        assert 18 <= values["magnitude_r"] <= 22 and 0.4 <= values["size_arcsec"] <= 2
        query = "&".join(f"{name}={value}" for name, value in values.items())
        reading = light.get(f"/api/measure?morphology={galaxy['morphology']}&seed={galaxy['seed']}&{query}").json
        assert {name: reading["attributes"][name]["requested"] for name in values} == values
        assert galaxy["radius"] * 0.2 == pytest.approx(values["size_arcsec"], rel=0.01) or galaxy["radius"] * 0.2 < 0.45


def test_pictures_of_flux_without_light_are_laid_on_a_sky_too():
    flux = create_app([ServedModel(painting_sampler(), "painted/latest.pt", 7)]).test_client()
    assert pixels_of(flux.get("/api/sky.png?sky=3")).std() > 3
    assert {g["morphology"] for g in flux.get("/api/sky.json?sky=3&x=1").json["galaxies"]} <= {"disc", "early-type"}


@pytest.mark.parametrize(
    "query, parameter, sentence",
    [
        ("x=1024", "x", "x is '1024': it takes a whole number from -1024 to 1023"),
        ("y=-1025", "y", "y is '-1025': it takes a whole number from -1024 to 1023"),
        ("x=0.5", "x", "x is '0.5': it takes a whole number from -1024 to 1023"),
        ("sky=-1", "sky", "sky is '-1': it takes a whole number from 0 to 2147483647"),
        ("sky=2147483648", "sky", "sky is '2147483648': it takes a whole number from 0 to 2147483647"),
        ("sky=", "sky", "sky has no value: give it one or leave it out"),
        ("x=1&x=1", "x", "x is there more than once: give it once"),
        ("morphology=spiral", "morphology", "there is no parameter 'morphology': choose from sky, x, y, survey, model"),
        ("survey=VLT", "survey", "survey is 'VLT': choose one of SDSS, LSST, Euclid_VIS, COSMOS"),
        ("survey=LSST", "survey", "this model draws pictures, and no light for a telescope to observe"),
        ("model=cat", "model", "model is 'cat': choose one of gan, diffusion"),
    ],
)
@pytest.mark.parametrize("route", ["sky.png", "sky.json"])
def test_what_is_no_tile_is_refused_in_a_sentence(client, route, query, parameter, sentence):
    answer = ask(client, f"/api/{route}?{query}")
    assert (answer.status_code, answer.json["parameter"], answer.json["error"]) == (400, parameter, sentence)


def test_a_survey_of_pixels_finer_than_the_light_sees_the_sky_in_binned_ones(light):
    tile = light.get("/api/sky.json?sky=3&survey=COSMOS").json
    assert (tile["survey"], tile["pixel_scale"]) == ("COSMOS", 0.12)
    assert pixels_of(light.get("/api/sky.png?sky=3&survey=COSMOS")).std() > 5


def test_few_tiles_are_drawn_at_a_time_and_more_are_put_off(untrained, monkeypatch):
    """And who asks for one galaxy meanwhile gets it."""
    go, began = threading.Event(), threading.Event()
    work = ModelSky._work

    def slow(self, items):
        began.set()
        assert go.wait(30)
        return work(self, items)

    monkeypatch.setattr(ModelSky, "_work", slow)
    app = create_app(load_models([untrained["gan"]], "cpu"))
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda x=x: found.append(app.test_client().get(f"/api/sky.png?x={x}").status_code))
        for x in range(_MOST_REQUESTS)
    ]
    for thread in threads:
        thread.start()
    assert began.wait(30)
    places = app.extensions["skies"]["gan"].queue._places
    while places._value:
        time.sleep(0.01)
    refused = app.test_client().get("/api/sky.png?x=100")
    assert refused.status_code == 503
    assert refused.json["error"] == "the server is busy" and int(refused.headers["Retry-After"]) >= 1
    assert app.test_client().get("/api/image.png?morphology=spiral").status_code == 200
    assert app.test_client().get("/api/sky.json?x=100").status_code == 200
    go.set()
    for thread in threads:
        thread.join()
    assert found == [200] * _MOST_REQUESTS


def test_what_fails_while_a_tile_is_drawn_is_said(untrained, monkeypatch, caplog):
    models = load_models([untrained["gan"]], "cpu")
    client = create_app(models).test_client()

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(models[0].sampler, "generate", fail)
    answer = client.get("/api/sky.png")
    assert answer.status_code == 503 and "memory" in answer.json["error"]
    monkeypatch.undo()
    with Image.open(io.BytesIO(client.get("/api/sky.png").data)) as picture:
        assert picture.size == (256, 256)
