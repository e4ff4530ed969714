"""The server by its routes: what each answers, what it refuses, and what every answer has."""

from __future__ import annotations

import csv
import gzip
import io
import math
from datetime import date
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from astropy.io import fits
from PIL import Image

from config_physics import ATTRIBUTES, MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.common.version import SOFTWARE, VERSION
from galaxies.datasets.population import VERDICTS, Population
from galaxies.generation.sampler import GalaxySampler
from galaxies.serving import service as galaxy_service
from galaxies.serving.application import create_app
from galaxies.serving.batching import BusyError
from galaxies.serving.models import ServedModel, load_models
from galaxies.serving.queries import FAMILIES, LONGEST_QUERY, MAX_SEED, PIXELS
from galaxies.serving.security import HEADERS
from tests.conftest import ROOT

SET = "size=0.12&brightness=0.3&ellipticity=0.4&redshift=0.05"
GALAXY = f"morphology=spiral&{SET}&seed=7"


def ask(client, target: str, **kwargs):
    """Send a target as it is, without the repairs of a client."""
    path, _, query = target.partition("?")
    environ = {"PATH_INFO": path, "QUERY_STRING": query, **kwargs.pop("environ", {})}
    return client.get("/", environ_overrides=environ, **kwargs)


def pixels_of(response) -> np.ndarray:
    assert (response.status_code, response.mimetype) == (200, "image/png")
    return np.asarray(Image.open(io.BytesIO(response.data)).convert("RGB"))


# What is answered


def test_models(client):
    facts = client.get("/api/model").json
    assert facts["default"] == "gan"
    assert [m["name"] for m in facts["morphologies"]] == list(MORPHOLOGY_NAMES)
    assert [m["id"] for m in facts["models"]] == ["gan", "diffusion"]
    assert facts["pixels"] == list(PIXELS) and facts["max_seed"] == MAX_SEED
    gan = facts["models"][0]
    assert gan["checkpoint"] == "gan/latest.pt"
    assert (gan["step"], gan["card"]) == (1, None)
    data = gan["training_data"]
    assert (data["source"], data["count"], data["credit"]) == ("random numbers", 400, None)
    assert data["trained_on"] == 400
    assert facts["models"][1]["description"].startswith("diffusion, sde with 2 steps")
    for given in gan["attributes"]:
        attribute = ATTRIBUTES[given["name"]]
        assert (given["low"], given["high"], given["unit"]) == (attribute.low, attribute.high, attribute.unit)
        assert 50 <= (given["high"] - given["low"]) / given["step"] <= 1000
        assert given["measured"] == (given["name"] != "redshift")
        for morphology in MORPHOLOGY_NAMES:
            low, high = given["supported"][morphology]
            assert given["low"] < low < given["typical"][morphology] < high < given["high"]


def test_a_class_without_galaxies(untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    few = sampler.population.classes != 2
    population = Population(sampler.population.classes[few], sampler.population.values[few])
    population.values[:, 3] = math.nan
    sampler = GalaxySampler(sampler.network, sampler.config, population, sampler.engine)
    client = create_app([ServedModel(sampler)]).test_client()
    size, *_, redshift = client.get("/api/model").json["models"][0]["attributes"]
    assert size["supported"]["merger"] is None and size["typical"]["merger"] is None
    assert redshift["supported"]["spiral"] is None
    answer = client.get("/api/measure?morphology=merger&size=0.12").json
    assert answer["notes"] == ["there is no merger galaxy in the training data"]
    assert answer["attributes"]["brightness"] | {"measured": None} == {
        "requested": None,
        "measured": None,
        "set": False,
        "supported": False,
    }
    assert client.get("/api/image.png?morphology=merger").status_code == 200
    assert (
        "redshift is known for no spiral" in client.get("/api/measure?morphology=spiral&redshift=0.1").json["notes"][0]
    )


def test_a_picture_is_that_of_the_sampler(client, untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    image = sampler.generate(torch.tensor([0]), torch.tensor([[0.12, 0.3, 0.4, 0.05]]), [7])[0]
    shown = pixels_of(client.get(f"/api/image.png?{GALAXY}&pixels=64"))
    assert np.array_equal(shown, image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("pixels", PIXELS)
def test_a_picture_is_enlarged_by_lanczos(client, pixels):
    small = Image.fromarray(pixels_of(client.get(f"/api/image.png?{GALAXY}&pixels=64")))
    shown = pixels_of(client.get(f"/api/image.png?{GALAXY}&pixels={pixels}"))
    assert np.array_equal(shown, np.asarray(small.resize((pixels, pixels), Image.Resampling.LANCZOS)))


def test_what_changes_a_picture(client):
    pictures = {
        client.get(f"/api/image.png?{query}").data
        for query in (
            GALAXY,
            GALAXY.replace("spiral", "merger"),
            GALAXY.replace("seed=7", "seed=8"),
            GALAXY.replace("0.12", "0.13"),
            f"{GALAXY}&pixels=128",
            f"{GALAXY}&model=diffusion",
        )
    }
    assert len(pictures) == 6


@pytest.mark.parametrize(
    "other",
    [
        f"{GALAXY}&pixels=256",
        f"{GALAXY}&model=gan",
        GALAXY.replace("0.12", "1.2e-1"),
        GALAXY.replace("0.12", "%30.12"),
        GALAXY.replace("seed=7", "seed=0007"),
        "&".join(reversed(GALAXY.split("&"))),
    ],
)
def test_the_same_request_in_other_words_has_the_same_bytes_and_tag(client, untrained, other):
    answers = [ask(client, f"/api/image.png?{query}") for query in (GALAXY, other)]
    answers.append(ask(create_app(load_models([untrained["gan"]], "cpu")).test_client(), f"/api/image.png?{other}"))
    assert len({answer.data for answer in answers}) == 1
    assert len({answer.headers["ETag"] for answer in answers}) == 1


def test_a_picture_that_the_client_has(client):
    first = client.get(f"/api/image.png?{GALAXY}")
    assert first.headers["Cache-Control"].startswith("public, max-age=")
    for tags in (first.headers["ETag"], f'"x", {first.headers["ETag"]}', f"W/{first.headers['ETag']}"):
        again = client.get(f"/api/image.png?{GALAXY}", headers={"If-None-Match": tags})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
    for other, status in ((f"{GALAXY}&pixels=64", 200), (f"{GALAXY}&model=diffusion", 200), (f"{GALAXY}&x=1", 400)):
        answer = client.get(f"/api/image.png?{other}", headers={"If-None-Match": first.headers["ETag"]})
        assert answer.status_code == status


def test_another_checkpoint_has_another_tag(client, untrained, tmp_path):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    with torch.no_grad():
        next(sampler.network.parameters()).view(-1)[0] += 1e-6
    other = create_app([ServedModel(sampler)]).test_client()
    tags = {asked.get(f"/api/image.png?{GALAXY}").headers["ETag"] for asked in (client, other)}
    assert len(tags) == 2


def test_an_answer_is_kept(untrained, monkeypatch):
    client = create_app(load_models([untrained["gan"]], "cpu")).test_client()
    first = client.get(f"/api/image.png?{GALAXY}").data
    monkeypatch.setattr(galaxy_service, "to_picture", None)  # nothing more can be drawn
    assert client.get(f"/api/image.png?{GALAXY}").data == first


def test_measurement(client):
    answer = client.get(f"/api/measure?{GALAXY}").json
    assert answer["morphology"] == "spiral" and answer["seed"] == 7 and answer["model"] == "gan"
    asked = {name: each["requested"] for name, each in answer["attributes"].items()}
    assert asked == {"size": 0.12, "brightness": 0.3, "ellipticity": 0.4, "redshift": 0.05}
    assert all(each["set"] and each["supported"] for each in answer["attributes"].values())
    assert answer["attributes"]["redshift"]["measured"] is None
    assert answer["supported"] and answer["support"] == "like" and answer["notes"] == []
    assert 0 < answer["nearest"] < 1
    assert answer["milliseconds"] >= 0
    assert (answer["flag"] == 0) == (answer["flag_meaning"] == "sound measurement")


def test_a_value_is_repeated_with_all_its_digits(client):
    answer = client.get("/api/measure?morphology=spiral&size=0.1234567&ellipticity=-0").json["attributes"]
    assert answer["size"]["requested"] == 0.1234567
    assert str(answer["ellipticity"]["requested"]) == "0.0"  # not -0.0, which would be another galaxy to a cache


def test_attributes_that_are_not_set_are_drawn(client, untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    drawn = sampler.complete(3, torch.tensor([math.nan, 0.3, math.nan, math.nan]), 5)
    answer = client.get("/api/measure?morphology=edge-on&brightness=0.3&seed=5").json["attributes"]
    assert [each["set"] for each in answer.values()] == [False, True, False, False]
    assert [each["requested"] for each in answer.values()] == pytest.approx(drawn.tolist(), rel=1e-5)


def test_beyond_the_training_data_there_is_a_note(client):
    answer = client.get("/api/measure?morphology=spiral&size=0.28").json
    assert not answer["supported"] and not answer["attributes"]["size"]["supported"]
    assert answer["attributes"]["brightness"]["supported"]
    (note,) = answer["notes"]
    assert note.startswith("size 0.28 is outside the range") and "spiral" in note
    assert answer["support"] == "unusual" and answer["nearest"] < 0.25


def test_every_answer_says_whether_the_galaxy_is_like_real_ones(client, untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    seen = set()
    for asked in ({}, {"size": 0.12}, {"size": 0.12, "ellipticity": 0.4}, {"size": 0.5}, {"size": 0.2, "redshift": 9}):
        query = urlencode({"morphology": "spiral", **asked})
        values = torch.tensor([[asked.get(a.name, math.nan) for a in sampler.attributes]])
        found = sampler.support(torch.tensor([0]), values)
        verdict = VERDICTS[found.verdicts[0]]
        nearest = float(f"{float(found.nearest[0]):.6g}") if asked else None
        numbers = client.get(f"/api/measure?{query}").json
        assert (numbers["support"], numbers["nearest"]) == (verdict, nearest)
        assert numbers["supported"] == (verdict == "like") == (numbers["notes"] == [])
        (row,) = csv.DictReader(io.StringIO(client.get(f"/api/catalogue.csv?{query}").text))
        assert (row["support"], row["supported"]) == (verdict, str(verdict == "like"))
        assert (
            row["nearest_real"] == ""
            if nearest is None
            else float(row["nearest_real"]) == pytest.approx(nearest, rel=1e-5)
        )
        picture, file = client.get(f"/api/image.png?{query}"), client.get(f"/api/fits?{query}")
        again = client.get(f"/api/image.png?{query}", headers={"If-None-Match": picture.headers["ETag"]})
        assert again.status_code == 304
        for answer in (picture, again, file):
            assert answer.headers["Galaxy-Support"] == verdict
            assert answer.headers.get("Galaxy-Nearest") == (None if nearest is None else f"{nearest:g}")
        with fits.open(io.BytesIO(file.data)) as units:
            assert (units[0].header["VERDICT"], units[0].header["SUPPORT"]) == (verdict, verdict == "like")
            assert units[0].header.get("NEAREST") == (None if nearest is None else pytest.approx(nearest, rel=1e-5))
        seen.add(verdict)
    assert seen >= {"like", "invented"}


def test_the_tiles_of_a_sweep_are_judged_with_what_is_held(client, untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    tiles = client.get("/api/sheet.json?morphology=spiral&sweep=size&steps=9&seed=3").json["tiles"]
    values = torch.tensor([[each["requested"] for each in tile["attributes"].values()] for tile in tiles])
    found = sampler.support(torch.zeros(9, dtype=torch.int64), values)
    assert [tile["support"] for tile in tiles] == [VERDICTS[number] for number in found.verdicts]
    assert [tile["nearest"] for tile in tiles] == pytest.approx(found.nearest.tolist(), rel=1e-4)
    assert [tile["notes"] for tile in tiles] == [sampler.unsupported(0, row) for row in values.double()]


def test_an_empty_sky_has_no_measurements(untrained, monkeypatch):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    monkeypatch.setattr(
        sampler, "generate", lambda classes, *_: torch.zeros(len(classes), 3, 64, 64, dtype=torch.uint8)
    )
    answer = create_app([ServedModel(sampler)]).test_client().get(f"/api/measure?{GALAXY}").json
    assert answer["flag"] & 1 and "no source" in answer["flag_meaning"]
    assert all(each["measured"] is None for each in answer["attributes"].values())


def test_a_sheet_of_seeds(client):
    base = f"morphology=spiral&{SET}"
    shown = pixels_of(client.get(f"/api/sheet.png?{base}&seed=5&seeds=3&columns=2"))
    assert shown.shape == (128, 128, 3)
    tiles = [shown[:64, :64], shown[:64, 64:], shown[64:, :64]]
    for k, tile in enumerate(tiles):
        alone = pixels_of(client.get(f"/api/image.png?{base}&seed={5 + k}&pixels=64"))
        assert np.array_equal(tile, alone)
    assert not shown[64:, 64:].any()
    assert pixels_of(client.get(f"/api/sheet.png?{base}&seeds=3&columns=64")).shape == (64, 192, 3)
    numbers = client.get(f"/api/sheet.json?{base}&seed=5&seeds=3&columns=2").json["tiles"]
    assert [tile["seed"] for tile in numbers] == [5, 6, 7]
    alone = client.get(f"/api/measure?{base}&seed=6").json
    del alone["milliseconds"]
    assert numbers[1] == alone


@pytest.mark.parametrize("rest", [SET, "brightness=0.3", ""])
def test_a_sweep(client, rest):
    query = f"morphology=merger&{rest}&seed=3&sweep=ellipticity&steps=4".replace("&&", "&")
    shown = pixels_of(client.get(f"/api/sheet.png?{query}&pixels=128"))
    assert shown.shape == (128, 512, 3)
    tiles = client.get(f"/api/sheet.json?{query}").json["tiles"]
    assert [tile["attributes"]["ellipticity"]["requested"] for tile in tiles] == pytest.approx([0, 0.3, 0.6, 0.9])
    assert all(tile["attributes"]["ellipticity"]["set"] for tile in tiles)
    assert all(tile["attributes"]["size"]["set"] == ("size" in rest) for tile in tiles)
    rests = [{n: a["requested"] for n, a in tile["attributes"].items() if n != "ellipticity"} for tile in tiles]
    assert rests == rests[:1] * 4  # all else is the same
    for k, tile in enumerate(tiles):
        values = {name: each["requested"] for name, each in tile["attributes"].items()}
        alone = client.get("/api/image.png?" + urlencode({"morphology": "merger", "seed": 3, "pixels": 128, **values}))
        if rest == SET:  # otherwise the drawn values have more digits than are shown
            assert np.array_equal(shown[:, 128 * k : 128 * (k + 1)], pixels_of(alone))


def test_what_a_sweep_does_not_know_stays_unknown(untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    sampler.population.values[::8, 3] = math.nan  # the redshift of half of the spirals
    client = create_app([ServedModel(sampler)]).test_client()
    redshifts = []
    for seed in range(8):
        tiles = client.get(f"/api/sheet.json?morphology=spiral&sweep=size&steps=5&seed={seed}").json["tiles"]
        redshifts.append({tile["attributes"]["redshift"]["requested"] for tile in tiles})
    assert all(len(each) == 1 for each in redshifts)
    assert {None} in redshifts and len({*map(frozenset, redshifts)}) > 2


def test_fits(client):
    answer = client.get(f"/api/fits?{GALAXY}")
    assert answer.mimetype == "application/fits"
    assert (
        answer.headers["Content-Disposition"]
        == 'attachment; filename="spiral_size-0.12_brightness-0.3_ellipticity-0.4_redshift-0.05_seed-7_gan.fits"'
    )
    with fits.open(io.BytesIO(answer.data)) as units:
        shown = pixels_of(client.get(f"/api/image.png?{GALAXY}&pixels=64"))
        assert np.array_equal(units[0].data[:, ::-1], shown.transpose(2, 0, 1))
        assert units[0].header["MORPHOL"] == "spiral" and units[0].header["SEED"] == "7"
        assert units[0].header["REQ1"] == pytest.approx(0.12)
        assert units[0].verify_checksum() == 1
        header = units[0].header
        assert (header["CREATOR"], header["MODEL"], header["PLANES"]) == (SOFTWARE, "GAN", "R,G,B")
        assert header["SYNTHETI"] is True and "SYNTHETIC" in str(header["COMMENT"])
        date.fromisoformat(header["DATE"])
        assert header["REQ2"] == 0.3  # and not 0.30000001192092896


@pytest.mark.parametrize("model", ["gan", "diffusion"])
def test_a_picture_to_keep_says_what_it_is(client, model):
    answer = client.get(f"/api/file.png?morphology=spiral&size=0.12&seed=7&model={model}")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="spiral_size-0.12_seed-7_{model}.png"'
    with Image.open(io.BytesIO(answer.data)) as picture:
        texts = picture.text
        shown = client.get(f"/api/image.png?morphology=spiral&size=0.12&seed=7&model={model}&pixels=64")
        assert np.array_equal(np.asarray(picture), pixels_of(shown))  # as many pixels as the model draws
    date.fromisoformat(texts["Creation Time"])
    assert texts["Description"].startswith("SYNTHETIC") and texts["Software"] == SOFTWARE
    assert texts["Model"] == f"{FAMILIES[model]}, step 1" and texts["Trained on"] == "random numbers"
    assert (texts["Class"], texts["Seed"], texts["Set by user"]) == ("spiral", "7", "size")
    assert texts["requested size"] == "0.12 frame widths" and "R, G, B" in texts["Planes"]
    numbers = client.get(f"/api/measure?morphology=spiral&size=0.12&seed=7&model={model}").json
    for name, each in numbers["attributes"].items():
        for kind in ("requested", "measured"):
            if each[kind] is None:
                assert f"{kind} {name}" not in texts
            else:
                assert float(texts[f"{kind} {name}"].split()[0]) == pytest.approx(each[kind], rel=1e-5)
    large = client.get(f"/api/file.png?morphology=spiral&size=0.12&seed=7&model={model}&pixels=512")
    assert Image.open(io.BytesIO(large.data)).size == (512, 512)


def test_a_preview_is_drawn_by_ddim_in_few_steps(client, untrained):
    from dataclasses import replace

    query = "/api/image.png?morphology=spiral&size=0.12&brightness=0.3&ellipticity=0.4&redshift=0.05&seed=7&pixels=64"
    sampler = GalaxySampler.from_checkpoint(untrained["diffusion"], "cpu")
    values = torch.tensor([[0.12, 0.3, 0.4, 0.05]])
    for steps in (1, 4):
        sampler.solver = replace(sampler.solver, name="ddim", num_steps=steps)
        image = sampler.generate(torch.tensor([0]), values, [7])[0].permute(1, 2, 0).numpy()
        shown = client.get(f"{query}&model=diffusion&solver_steps={steps}")
        assert np.array_equal(pixels_of(shown), image)
        assert shown.headers["ETag"] != client.get(f"{query}&model=diffusion").headers["ETag"]
    assert client.get(f"{query}&solver_steps=4").data == client.get(query).data  # a GAN has no steps
    assert "1 to 16" in client.get(f"{query}&solver_steps=0").json["error"]
    assert [model["preview_steps"] for model in client.get("/api/model").json["models"]] == [None, None]


def test_the_version_is_that_of_the_package():
    assert f'\nversion = "{VERSION}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_catalogue_row(client):
    answer = client.get("/api/catalogue.csv?morphology=spiral&size=0.12&seed=7")
    assert answer.mimetype == "text/csv"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    numbers = client.get("/api/measure?morphology=spiral&size=0.12&seed=7").json
    assert (row["morphology"], row["seed"], row["set_by_user"]) == ("spiral", "7", "size")
    assert row["supported"] == str(numbers["supported"])
    for name, each in numbers["attributes"].items():
        assert float(row[f"requested_{name}"]) == pytest.approx(each["requested"], rel=1e-5)
        if each["measured"] is not None:
            assert float(row[f"measured_{name}"]) == pytest.approx(each["measured"], rel=1e-5)


def test_head(client):
    answer = client.head(f"/api/image.png?{GALAXY}")
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["ETag"] == client.get(f"/api/image.png?{GALAXY}").headers["ETag"]


# What is refused

# fmt: off
BAD_NUMBERS = [
    "nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e400", "1e999999", "1e-400", "1e30", "0.0009", "0.5001",
    "-0.12", "abc", "0.1.2", "1_0", "0x1", "0,12", "0.12f", "0.12;drop", "--", "-", ".", "e5", "1e", "1e+", "true",
    "null", "[]", "{}", "٠.١", "０.１", "½", "١", "0.12%00", "0.12%0a", "0.12%20", "%200.12",
]
BAD_WHOLE = [
    "-1", "1.0", "1e3", "0x7", "abc", "nan", "inf", "1e400", str(MAX_SEED + 1), "9" * 400, "٧", "1_0", "7%00", "%207",
    "+7", "%2b7",
]
# fmt: on


@pytest.mark.parametrize("value", BAD_NUMBERS)
def test_bad_numbers(client, value):
    answer = ask(client, f"/api/image.png?morphology=spiral&size={value}".encode().decode("latin-1"))
    assert answer.status_code == 400
    assert (answer.json["parameter"], answer.json["allowed"]) == ("size", "0.001 to 0.5")
    assert "0.001 to 0.5 frame widths" in answer.json["error"]


@pytest.mark.parametrize("value", BAD_WHOLE)
def test_bad_whole_numbers(client, value):
    answer = ask(client, f"/api/measure?morphology=spiral&seed={value}".encode().decode("latin-1"))
    assert answer.status_code == 400
    assert (answer.json["parameter"], answer.json["allowed"]) == ("seed", f"0 to {MAX_SEED}")


@pytest.mark.parametrize(
    ("target", "parameter", "words"),
    [
        ("image.png", "morphology", "morphology is missing: choose one of spiral, elliptical, merger, edge-on"),
        ("image.png?morphology=", "morphology", "has no value"),
        ("image.png?morphology=irregular", "morphology", "choose one of spiral"),
        ("image.png?morphology=Spirall", "morphology", "choose one of spiral"),
        ("image.png?morphology=spiral%00", "morphology", "choose one of spiral"),
        ("image.png?morphology", "morphology", "has no value"),
        ("image.png?morphology=spiral&morphology=spiral", "morphology", "more than once"),
        ("image.png?morphology=spiral&m%6frphology=merger", "morphology", "more than once"),
        ("image.png?morphology=spiral&size=0.1&size=0.1", "size", "more than once"),
        ("image.png?morphology=spiral&size=", "size", "has no value"),
        ("image.png?morphology=spiral&size[]=0.1", "size[]", "there is no parameter"),
        ("image.png?morphology=spiral&Size=0.1", "Size", "there is no parameter"),
        ("image.png?morphology=spiral&color=0.1", "color", "unknown to this checkpoint"),
        ("image.png?morphology=spiral&color=x", "color", "unknown to this checkpoint"),
        ("image.png?color=0.1", "color", "unknown to this checkpoint"),
        ("image.png?color=0.1&x=1", "x", "there is no parameter"),
        ("image.png?morphology=spiral&model=gan&model=gan", "model", "more than once"),
        ("image.png?morphology=spiral&model=", "model", "has no value"),
        ("image.png?morphology=spiral&pixels=064", "pixels", "choose one of 64, 128, 256, 512"),
        ("image.png?morphology=spiral&pixels=65", "pixels", "choose one of 64, 128, 256, 512"),
        ("image.png?morphology=spiral&pixels=1024", "pixels", "choose one of"),
        ("image.png?morphology=spiral&model=vae", "model", "choose one of gan, diffusion"),
        ("image.png?morphology=spiral&model=../gan", "model", "choose one of gan, diffusion"),
        ("image.png?morphology=spiral&seeds=3", "seeds", "there is no parameter"),
        ("image.png?morphology=spiral&", "", "there is no parameter"),
        ("image.png?&&&", "", "there is no parameter"),
        ("image.png?=", "", "there is no parameter"),
        ("image.png?morphology=%ff", "morphology", "UTF-8"),
        ("image.png?morphology=%c0%af", "morphology", "UTF-8"),
        ("image.png?morphology=%ed%a0%80", "morphology", "UTF-8"),
        ("image.png?morphology=%", "morphology", "percent escapes"),
        ("image.png?morphology=%zz", "morphology", "percent escapes"),
        ("image.png?%ff=1", "query", "UTF-8"),
        ("image.png?morphology=spiral&x=" + "1" * LONGEST_QUERY, "query", "at most"),
        ("measure?morphology=spiral&pixels=64", "pixels", "there is no parameter"),
        ("fits?morphology=spiral&name=x", "name", "there is no parameter"),
        ("sheet.png?morphology=spiral", "seeds", "seeds is missing"),
        ("sheet.png?morphology=spiral&seeds=1", "seeds", "2 to 64"),
        ("sheet.png?morphology=spiral&seeds=65", "seeds", "2 to 64"),
        ("sheet.png?morphology=spiral&sweep=mass", "sweep", "choose one of size"),
        ("sheet.png?morphology=spiral&sweep=color", "sweep", "choose one of size"),
        ("sheet.png?morphology=spiral&sweep=size&seeds=3", "seeds", "cannot be combined"),
        ("sheet.png?morphology=spiral&sweep=size&steps=2", "steps", "3 to 33"),
        ("sheet.png?morphology=spiral&sweep=size&steps=34", "steps", "3 to 33"),
        ("sheet.png?morphology=spiral&seeds=3&steps=3", "steps", "needs sweep"),
        ("sheet.png?morphology=spiral&seeds=3&columns=0", "columns", "1 to 64"),
        ("sheet.png?morphology=spiral&seeds=3&pixels=512", "pixels", "choose one of 64, 128, 256"),
        ("sheet.json?morphology=spiral&seeds=3&pixels=7", "pixels", "choose one of 64, 128, 256"),
    ],
)  # fmt: skip
def test_bad_queries(client, target, parameter, words):
    answer = ask(client, f"/api/{target}")
    assert answer.status_code == 400
    assert words in answer.json["error"]
    assert answer.json["parameter"] == parameter
    assert answer.json["allowed"]
    assert len(answer.data) < 1000


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/model/", "/api//model", "/x.js"])
def test_what_is_not_there(client, path):
    answer = ask(client, path)
    assert (answer.status_code, answer.json) == (404, {"error": "Not Found"})
    assert "Location" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/api/image.png", "/healthz", "/api/model"])
def test_other_methods(client, method, path):
    answer = client.open(path, method=method, data=b"{}" if method == "POST" else None)
    assert (answer.status_code, answer.json) == (405, {"error": "Method Not Allowed"})
    assert answer.headers["Allow"] == "GET, HEAD"


def test_without_a_checkpoint():
    client = create_app().test_client()
    for path in ("/api/model", "/api/image.png?morphology=spiral", "/api/measure"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.json["hint"] == "python galaxy.py"
    assert client.get("/healthz").status_code == 200
    assert client.get("/api/openapi.json").json["openapi"] == "3.1.0"


def test_two_models_of_one_family(untrained):
    models = load_models([untrained["gan"], untrained["gan"]], "cpu")
    with pytest.raises(UserError, match="same family"):
        create_app(models)


def test_a_fault_of_ours_shows_nothing(untrained, monkeypatch, caplog):
    client = create_app(load_models([untrained["gan"]], "cpu")).test_client()
    monkeypatch.setattr(galaxy_service.GalaxyService, "report", lambda *_: 1 // 0)
    answer = client.get("/api/measure?morphology=spiral")
    assert (answer.status_code, answer.json) == (500, {"error": "the server failed; its log says how"})
    assert "ZeroDivisionError" in caplog.text
    assert HEADERS.items() <= dict(answer.headers).items()


def test_a_fault_in_the_worker_comes_out(untrained, monkeypatch):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    monkeypatch.setattr(sampler, "generate", lambda *_: 1 // 0)
    client = create_app([ServedModel(sampler)]).test_client()
    assert [client.get(f"/api/image.png?{GALAXY}").status_code for _ in range(2)] == [500, 500]
    monkeypatch.undo()
    assert client.get(f"/api/image.png?{GALAXY}").status_code == 200


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "the GPU has not enough memory",
        ),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "the GPU failed (CUDA error: unspecif"),
    ],
)
@pytest.mark.parametrize("what", ["network", "photometry"])
def test_a_device_that_fails_is_said_and_the_server_goes_on(untrained, monkeypatch, caplog, error, sentence, what):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    client = create_app([ServedModel(sampler)]).test_client()

    def fail(*_, **__):
        raise error

    if what == "network":
        monkeypatch.setattr(sampler.network, "forward", fail)
    else:
        monkeypatch.setattr("galaxies.measure.statistics_table.measure", fail)
    for _ in range(2):
        answer = client.get(f"/api/measure?{GALAXY}")
        assert answer.status_code == 503 and answer.json["error"].startswith(sentence)
    assert sentence in caplog.text
    monkeypatch.undo()
    assert client.get(f"/api/measure?{GALAXY}").status_code == 200


def test_a_busy_server_says_when_to_come_back(untrained, monkeypatch):
    client = create_app(load_models([untrained["gan"]], "cpu")).test_client()

    def refuse(*_):
        raise BusyError(7.2)

    monkeypatch.setattr(galaxy_service.GalaxyService, "galaxies", refuse)
    answer = client.get("/api/image.png?morphology=spiral")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "8")
    assert answer.json == {"error": "the server is busy"}


@pytest.mark.parametrize("place", ["/", "/style.css", "/script.js"])
def test_the_page_s_texts_travel_packed_to_those_who_can_unpack(client, place):
    plain = client.get(place)
    packed = client.get(place, headers={"Accept-Encoding": "gzip, br"})
    assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data and len(packed.data) < 0.5 * len(plain.data)
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert packed.headers["ETag"] != plain.headers["ETag"]
    refused = client.get(place, headers={"Accept-Encoding": "gzip;q=0"})
    assert refused.data == plain.data
    again = {"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]}
    assert client.get(place, headers=again).status_code == 304
