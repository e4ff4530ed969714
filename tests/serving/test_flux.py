"""The server of a run of flux: its own attributes, classes and bands, composites, nanojansky, physical units."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.io import fits
from PIL import Image

from benchmarks.serving import write_untrained
from config_physics import Config
from galaxies.images.composites import pictures_of_run
from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel, load_models
from tests.generation.painted import ATTRIBUTES, BANDS, FLUX, light_painting_sampler, painting_sampler
from tests.serving.test_app import ask

GALAXY = "morphology=early-type&magnitude_r=19.5&color_g_r=0.7&size_arcsec=1.1&redshift=0.4&seed=7"


@pytest.fixture(scope="module")
def sampler():
    return painting_sampler()


@pytest.fixture(scope="module")
def client(sampler):
    """Ask the server of a generator that paints what it is told."""
    return create_app([ServedModel(sampler, "painted/latest.pt", 7)]).test_client()


def test_the_model_says_what_it_draws(client):
    facts = client.get("/api/model").json
    assert [m["name"] for m in facts["morphologies"]] == ["disc", "early-type"]
    assert facts["morphologies"][1]["label"] == "Early type"
    (model,) = facts["models"]
    assert (model["kind"], model["bands"], model["classes"]) == ("flux", list(BANDS), ["disc", "early-type"])
    assert model["pixel_scale"] == 0.2
    rows = {a["name"]: a for a in model["attributes"]}
    assert list(rows) == list(ATTRIBUTES)
    assert (rows["magnitude_r"]["low"], rows["magnitude_r"]["high"], rows["magnitude_r"]["unit"]) == (18, 22, "mag")
    assert [row["measured"] for row in rows.values()] == [True, True, True, False]
    assert set(rows["size_arcsec"]["supported"]) == set(rows["size_arcsec"]["typical"]) == {"disc", "early-type"}


def test_measured_values_are_in_physical_units(client):
    answer = client.get(f"/api/measure?{GALAXY}").json
    measured = {name: reading["measured"] for name, reading in answer["attributes"].items()}
    assert answer["morphology"] == "early-type" and answer["flag"] == 0
    assert measured["magnitude_r"] == pytest.approx(19.5, abs=0.05)
    assert measured["color_g_r"] == pytest.approx(0.7, abs=0.05)
    assert measured["size_arcsec"] == pytest.approx(1.1, rel=0.08)
    assert measured["redshift"] is None
    assert answer["besides"]["magnitude_i"] == pytest.approx(18.8, abs=0.05)  # redder by g - r with each band
    assert set(answer["besides"]) == {"magnitude_g", "magnitude_i", "magnitude_Ks", "ellipticity"}
    sheet = client.get("/api/sheet.json?morphology=disc&sweep=magnitude_r&steps=3&seed=1").json["tiles"]
    asked = [tile["attributes"]["magnitude_r"]["requested"] for tile in sheet]
    assert asked == [18, 20, 22]


@pytest.mark.parametrize(
    ("flag", "meaning"),
    [
        (16, "pixels of the galaxy without a value"),
        (18, "the source touches the edge of the frame; pixels of the galaxy without a value"),
    ],
)
def test_a_flag_of_flux_is_said_in_words(sampler, monkeypatch, flag, meaning):
    """Among them the one that displays never have: pixels without a value."""
    measure = sampler.measure

    def flagged(images):
        found = measure(images)
        return replace(found, flags=found.flags | flag)

    monkeypatch.setattr(sampler, "measure", flagged)
    answer = create_app([ServedModel(sampler, "painted/latest.pt", 7)]).test_client().get(f"/api/measure?{GALAXY}").json
    assert (answer["flag"], answer["flag_meaning"]) == (flag, meaning)
    assert answer["attributes"]["magnitude_r"]["measured"] == pytest.approx(19.5, abs=0.05)


def test_pictures_are_composites_and_files_are_nanojansky(client, sampler):
    drawn = sampler.generate(torch.tensor([1]), torch.tensor([[19.5, 0.7, 1.1, 0.4]]), [7])
    shown = np.asarray(Image.open(io.BytesIO(client.get(f"/api/image.png?{GALAXY}&pixels=64").data)))
    assert np.array_equal(shown, pictures_of_run(sampler.config)(drawn)[0].permute(1, 2, 0).numpy())
    assert shown.std() > 5
    response = client.get(f"/api/fits?{GALAXY}")
    with fits.open(io.BytesIO(response.data)) as units:
        units.verify("exception")
        header, pixels = units[0].header, units[0].data
        assert header["BUNIT"] == "nJy" and header["BANDS"] == ",".join(BANDS)
        np.testing.assert_allclose(pixels, drawn[0].numpy(), rtol=1e-6)
    assert 31.4 - 2.5 * np.log10(pixels[1].sum()) == pytest.approx(19.5, abs=0.2)
    with Image.open(io.BytesIO(client.get(f"/api/file.png?{GALAXY}").data)) as kept:
        assert kept.text["Planes"] == f"composite of {', '.join(BANDS)}" and kept.size == (64, 64)
        assert kept.text["requested magnitude_r"] == "19.5 mag" and "measured magnitude_Ks" in kept.text
    row = client.get(f"/api/catalogue.csv?{GALAXY}").data.decode().splitlines()[0]
    assert "measured_size_arcsec" in row and "measured_magnitude_Ks" in row


@pytest.mark.parametrize(
    "query, sentence",
    [
        ("morphology=spiral", "unknown morphology 'spiral': choose one of disc, early-type"),
        ("seed=1", "morphology is missing: choose one of disc, early-type"),
        ("morphology=", "morphology has no value: give it one or leave it out"),
        (
            "morphology=disc&brightness=0.3",
            "brightness is unknown to this checkpoint: it knows magnitude_r, color_g_r, ",
        ),
        ("morphology=disc&magnitude_u=20", "there is no parameter 'magnitude_u': choose from morphology, "),
        ("morphology=disc&magnitude_r=bright", "magnitude_r is 'bright': it takes a number from -5 to 45 mag"),
        ("morphology=disc&magnitude_r=60", "magnitude_r is '60': it takes a number from -5 to 45 mag"),
    ],
)
def test_what_the_run_does_not_know_is_refused_in_a_sentence(client, query, sentence):
    answer = ask(client, f"/api/measure?{query}")
    assert answer.status_code == 400 and answer.json["error"].startswith(sentence)


def test_a_sweep_of_another_attribute_is_refused(client):
    answer = ask(client, "/api/sheet.png?morphology=disc&sweep=size")
    assert answer.status_code == 400
    assert answer.json["error"] == f"sweep is 'size': choose one of {', '.join(ATTRIBUTES)}"


def test_the_description_follows_the_run(client):
    document = json.loads(client.get("/api/openapi.json").data)
    parameters = document["components"]["parameters"]
    assert parameters["morphology"]["schema"]["enum"] == ["disc", "early-type"]
    assert parameters["morphology"]["required"]
    magnitude = parameters["magnitude_r"]
    assert (magnitude["schema"]["minimum"], magnitude["schema"]["maximum"]) == (-5, 45)
    assert "AB magnitude" in magnitude["description"]
    assert set(ATTRIBUTES) <= set(parameters["sweep"]["schema"]["enum"])
    examples = {p["name"]: p["example"] for p in parameters.values() if p["name"] in ("morphology", *ATTRIBUTES)}
    query = "&".join(f"{name}={value}" for name, value in examples.items())
    assert client.get(f"/api/measure?{query}").status_code == 200
    assert "besides" in document["components"]["schemas"]["Measurement"]["properties"]


def test_one_band_and_one_class_beside_a_display_model(untrained, tmp_path):
    told = {"bands": ("F814W",), "classes": ("galaxy",), "softening": (20.0,), "psf_fwhm": (0.1,)}
    told |= {"attributes": ("magnitude_F814W",), "attribute_ranges": (18.0, 24.0)}
    path = tmp_path / "hst/latest.pt"
    write_untrained(path, Config(**FLUX | told))
    client = create_app(load_models([path, untrained["diffusion"]], "cpu")).test_client()
    facts = client.get("/api/model").json
    assert [m["name"] for m in facts["morphologies"]] == ["galaxy", "spiral", "elliptical", "merger", "edge-on"]
    assert client.get("/api/image.png?morphology=galaxy&magnitude_F814W=20").status_code == 200
    assert client.get("/api/image.png?morphology=spiral&model=diffusion&size=0.1").status_code == 200
    refused = client.get("/api/image.png?morphology=galaxy&model=diffusion").json["error"]
    assert refused.startswith("unknown morphology 'galaxy': choose one of spiral, elliptical")


def test_a_telescope_sees_the_light():
    """In its own pixels, of the frame of 12.8 arcseconds; with the noise of a longer exposure, less of it."""
    light = create_app([ServedModel(light_painting_sampler(), "painted/latest.pt", 7)]).test_client()
    surveys = {one["name"]: one for one in light.get("/api/model").json["models"][0]["telescopes"]}
    assert [one["pixel_scale"] for one in surveys.values()] == [0.396, 0.2, 0.1, 0.12]
    assert [one["binning"] for one in surveys.values()] == [1, 1, 1, 4]  # HST's 0.03 arcseconds, up to the light's 0.1
    assert light.get("/api/model").json["models"][0]["light_pixel_scale"] == 0.1
    assert [band["name"] for band in surveys["LSST"]["bands"]] == ["g", "r", "i", "z"]  # u and y lie beyond the light

    def seen(survey, more=""):
        answer = light.get(f"/api/telescope.png?{GALAXY}&survey={survey}{more}")
        return np.asarray(Image.open(io.BytesIO(answer.data))).astype(float)

    sides = {"SDSS": 33, "LSST": 64, "Euclid_VIS": 128, "COSMOS": 107}
    assert {name: seen(name).shape for name in sides} == {name: (side, side, 3) for name, side in sides.items()}
    # Contrast goes by the noise: what is ten times as bright in units of it is brighter on the picture.
    middle = [seen("LSST", f"&exposure={seconds}")[30:34, 30:34].mean() for seconds in (10, 1000, 100_000)]
    assert middle == sorted(middle) and middle[0] + 20 < middle[2]
    assert (seen("LSST") != seen("LSST", "&exposure=5520")).any()  # g and z have another of their own
    for more in ("&survey=LSST&exposure=0", "&survey=LSST&exposure=1e3", "&survey=VLT", "&survey=LSST&survey=LSST", ""):
        assert light.get(f"/api/telescope.png?{GALAXY}{more}").status_code == 400
    assert light.get(f"/api/image.png?{GALAXY}&survey=LSST").status_code == 400


def test_a_survey_without_a_filter_that_the_light_tells_of_is_refused():
    red = light_painting_sampler()
    red.config = replace(red.config, wavelengths=(1500.0, 1700.0, 2000.0, 2200.0))
    light = create_app([ServedModel(red, "painted/latest.pt", 7)]).test_client()
    refused = light.get(f"/api/telescope.png?{GALAXY}&survey=COSMOS")
    assert (refused.status_code, refused.json["parameter"]) == (400, "survey")
    assert refused.json["allowed"] == "none" and "filter f814w sees" in refused.json["error"]
    facts = light.get("/api/model").json["models"][0]["telescopes"][-1]
    assert (facts["pixel_scale"], facts["binning"], facts["bands"]) == (None, 1, [])


def test_a_model_of_pictures_has_no_telescopes(untrained):
    client = create_app(load_models([untrained["gan"]], "cpu")).test_client()
    assert client.get("/api/model").json["models"][0]["telescopes"] == []
    refused = client.get("/api/telescope.png?morphology=spiral&survey=LSST")
    assert refused.status_code == 400 and "no light" in refused.json["error"]
