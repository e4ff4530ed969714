"""Mixtures of classes by HTTP: what a request may say, what is drawn, what the files say, and who refuses."""

from __future__ import annotations

import io
from urllib.parse import quote

import pytest
import torch
from astropy.io import fits
from PIL import Image

from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel
from galaxies.serving.queries import GalaxyQuery
from tests.generation.painted import painting_sampler

REST = "magnitude_r=19.5&color_g_r=0.7&size_arcsec=1.1&redshift=0.4&seed=7"
MIXTURE = f"morphology={quote('disc:0.25,Early type:0.75')}&{REST}"


@pytest.fixture(scope="module")
def sampler():
    return painting_sampler(soft_classes=True)


@pytest.fixture(scope="module")
def client(sampler):
    return create_app([ServedModel(sampler, "soft/latest.pt", 7)]).test_client()


@pytest.fixture(scope="module")
def hard_client():
    return create_app([ServedModel(painting_sampler(), "hard/latest.pt", 7)]).test_client()


def test_the_network_is_told_the_shares_of_each_request(sampler, client, monkeypatch):
    seen = []
    inner = sampler.network.forward
    monkeypatch.setattr(sampler.network, "forward", lambda z, c, *more, **k: seen.append(c) or inner(z, c, *more, **k))
    assert client.get(f"/api/image.png?{MIXTURE}").status_code == 200
    torch.testing.assert_close(seen[-1][0, :2], torch.tensor([0.25, 0.75]))
    assert client.get(f"/api/image.png?morphology=disc&{REST}").status_code == 200
    assert seen[-1][0, :2].tolist() == [1, 0]
    sheet = client.get(f"/api/sheet.json?{MIXTURE}&seeds=3").json
    assert [tile["seed"] for tile in sheet["tiles"]] == [7, 8, 9]
    torch.testing.assert_close(seen[-1][:2, :2], torch.tensor([[0.25, 0.75]] * 2))


def test_mixed_and_whole_requests_are_drawn_in_one_batch(sampler, client, monkeypatch):
    service = client.application.extensions["galaxies"].by_id["gan"]
    asked = [GalaxyQuery("gan", 0, (None,) * 4, 900, shares=shares) for shares in ((0.5, 0.5), None, (0.75, 0.25))]
    seen = []
    inner = sampler.network.forward
    monkeypatch.setattr(sampler.network, "forward", lambda z, c, *more, **k: seen.append(c) or inner(z, c, *more, **k))
    together = service._drawn([(query, False) for query in asked])
    assert seen[0][:3, :2].tolist() == [[0.5, 0.5], [1, 0], [0.75, 0.25]]
    values = together[1].values
    for galaxy, shares in zip(together, ((0.5, 0.5), (1.0, 0.0), (0.75, 0.25)), strict=True):
        assert torch.equal(galaxy.values, values)  # of the class of the largest share, whatever the others
        alone = sampler.generate(torch.tensor([0]), values[None], [900], shares=torch.tensor([shares]))
        assert torch.equal(galaxy.image, alone[0])


def test_another_share_is_another_picture_and_the_same_share_the_same(client):
    def answer(text):
        return client.get(f"/api/image.png?morphology={quote(text)}&{REST}")

    one, same, other = (
        answer("disc:0.25,early-type:0.75"),
        answer(" Early type : 0.75, disc:.25"),
        answer("disc:0.3,early-type:0.7"),
    )
    assert one.headers["ETag"] == same.headers["ETag"] != other.headers["ETag"] and one.data == same.data


def test_answers_and_files_say_what_was_mixed(client):
    measured = client.get(f"/api/measure?{MIXTURE}").json
    assert measured["morphology"] == "early-type" and measured["shares"] == {"disc": 0.25, "early-type": 0.75}
    file = client.get(f"/api/file.png?{MIXTURE}")
    assert 'filename="early-type-0.75-disc-0.25_magnitude-r-19.5_' in file.headers["Content-Disposition"]
    texts = Image.open(io.BytesIO(file.data)).text
    assert texts["Class"] == "early-type" and texts["Shares of classes"] == "early-type:0.75,disc:0.25"
    header = fits.getheader(io.BytesIO(client.get(f"/api/fits?{MIXTURE}").data))
    assert (header["SHARE1"], header["SHARE2"]) == (0.25, 0.75)
    assert header.comments["SHARE2"] == "requested of early-type"
    head, row = client.get(f"/api/catalogue.csv?{MIXTURE}").text.splitlines()
    found = dict(zip(head.split(","), row.split(","), strict=True))
    assert (found["requested_share_disc"], found["requested_share_early-type"]) == ("0.25", "0.75")
    plain = fits.getheader(io.BytesIO(client.get(f"/api/fits?morphology=disc&{REST}").data))
    assert "SHARE1" not in plain


def test_of_equal_shares_the_class_that_is_named_first_counts(client):
    for text, name in (("disc:0.5,early-type:0.5", "disc"), ("early-type:0.5,disc:0.5", "early-type")):
        assert client.get(f"/api/measure?morphology={quote(text)}&seed=1").json["morphology"] == name


def test_the_description_says_who_takes_mixtures(client, hard_client):
    def morphology(one):
        parameters = one.get("/api/openapi.json").json["components"]["parameters"].values()
        return [p for p in parameters if p["name"] == "morphology"]

    assert client.get("/api/model").json["models"][0]["mixes"] is True
    assert hard_client.get("/api/model").json["models"][0]["mixes"] is False
    for parameter in morphology(client):
        names, mixtures = parameter["schema"]["oneOf"]
        assert names == {"enum": ["disc", "early-type"]} and list(mixtures) == ["pattern"]
        assert "such as disc:0.7,early-type:0.3, of sum 1" in parameter["description"]
    for parameter in morphology(hard_client):
        assert parameter["schema"] == {"type": "string", "enum": ["disc", "early-type"]}
        assert "mixture" not in parameter["description"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("disc:0.7,early-type:0.7", "its shares add up to 1.4 and not to 1"),
        ("disc:0.5,disc:0.5", "names disc twice"),
        ("disc:0.5,ring:0.5", "unknown morphology 'ring': choose one of disc, early-type"),
        ("", "morphology has no value"),
    ],
)
def test_what_is_no_mixture_is_refused(client, text, sentence):
    answer = client.get(f"/api/image.png?morphology={quote(text)}&{REST}")
    assert (answer.status_code, answer.json["parameter"]) == (400, "morphology")
    assert sentence in answer.json["error"]
    missing = client.get(f"/api/image.png?{REST}")
    assert missing.status_code == 400 and "choose one of disc, early-type" in missing.json["error"]


def test_a_model_of_one_class_a_galaxy_says_so(hard_client):
    for path in ("image.png", "measure", "fits", "file.png", "catalogue.csv", "nearest", "sheet.png"):
        more = "&seeds=2" if path == "sheet.png" else ""
        answer = hard_client.get(f"/api/{path}?{MIXTURE}{more}")
        assert (answer.status_code, answer.json["parameter"], answer.json["allowed"]) == (
            400,
            "morphology",
            "disc, early-type",
        )
        assert answer.json["error"].startswith(
            "morphology is a mixture of classes, and this checkpoint was trained on one"
        )
