"""Requests for mixtures of classes: by text, by table, and what a generator is told of them."""

from __future__ import annotations

import pytest
import torch

from galaxies.common.errors import UserError
from galaxies.generation.catalogue import generate_blocks
from galaxies.generation.request_tables import read_requests
from galaxies.generation.request_values import RequestError, class_shares
from galaxies.generation.requests import requests_alike
from tests.generation.painted import ATTRIBUTES, FLUX, painting_sampler

CLASSES = ("S0", "Sa: barred", "E, round", "edge-on")


@pytest.mark.parametrize(
    ("text", "index", "shares"),
    [
        ("S0", 0, None),
        ("Sa: barred", 1, None),  # a name with a colon in it
        ("E, round", 2, None),
        ("S0:0.7,edge_on:0.3", 0, [0.7, 0, 0, 0.3]),
        (" edge-ons : .75 , s0 : .25 ", 3, [0.25, 0, 0, 0.75]),
        ("Sa: barred:0.5,E, round:0.5", 1, [0, 0.5, 0.5, 0]),
        ("S0:1", 0, [1, 0, 0, 0]),
        ("S0:0.333,Sa: barred:0.333,edge-on:0.333", 0, [1 / 3, 1 / 3, 0, 1 / 3]),
        ("S0:0,edge-on:1", 3, [0, 0, 0, 1]),
    ],
)
def test_a_class_or_shares_of_some(text, index, shares):
    found = class_shares(text, CLASSES)
    assert found[0] == index
    assert found[1] is None if shares is None else found[1] == pytest.approx(shares)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("S0:0.7,edge-on:0.2", "its shares add up to 0.9 and not to 1"),
        ("S0:0.7,edge-on:0.7", "its shares add up to 1.4 and not to 1"),
        ("S0:0.5,s0:0.5", "names S0 twice"),
        ("S0:0.5,ring:0.5", "unknown morphology 'ring': choose one of S0, Sa: barred"),
        ("S0:-0.5,edge-on:1.5", "unknown morphology 'S0:-0.5,edge-on'"),
        ("S0:0.5,edge-on", "it is no list such as spiral:0.7,elliptical:0.3"),
        ("S0:x,edge-on:y", "unknown morphology"),
        ("", "morphology has no value"),
    ],
)
def test_what_is_no_mixture(text, sentence):
    with pytest.raises(RequestError) as caught:
        class_shares(text, CLASSES)
    assert sentence in str(caught.value) and caught.value.parameter == "morphology"


def test_requests_hold_the_shares_and_the_largest_class():
    requests = requests_alike("disc:0.25,early-type:0.75", {}, ATTRIBUTES, 3, 4, FLUX["classes"])
    assert requests.mixed and requests.classes.tolist() == [1] * 4
    assert requests.shares.tolist() == [[0.25, 0.75]] * 4
    part = requests.part(1, 3)
    assert part.shares.tolist() == [[0.25, 0.75]] * 2 and part.seeds == range(4, 6)
    other = requests_alike("disc:0.2,early-type:0.8", {}, ATTRIBUTES, 3, 4, FLUX["classes"])
    plain = requests_alike("early-type", {}, ATTRIBUTES, 3, 4, FLUX["classes"])
    assert not plain.mixed and len({r.fingerprint() for r in (requests, other, plain)}) == 3


def test_a_table_may_ask_for_both(tmp_path):
    (tmp_path / "r.csv").write_text('morphology,seed\ndisc,1\n"disc:0.4,early-type:0.6",2\nEarly type,3\n')
    requests = read_requests(tmp_path / "r.csv", ATTRIBUTES, 0, FLUX["classes"])
    assert requests.classes.tolist() == [0, 1, 1]
    torch.testing.assert_close(requests.shares, torch.tensor([[1.0, 0], [0.4, 0.6], [0, 1.0]]))
    (tmp_path / "r.csv").write_text("morphology\ndisc\nearly-type\n")
    assert read_requests(tmp_path / "r.csv", ATTRIBUTES, 0, FLUX["classes"]).shares is None
    (tmp_path / "r.csv").write_text('morphology\n"disc:0.4,early-type:0.5"\n')
    with pytest.raises(UserError, match=r"r\.csv, row 2: morphology .* its shares add up to 0\.9"):
        read_requests(tmp_path / "r.csv", ATTRIBUTES, 0, FLUX["classes"])


def test_a_generator_is_told_the_shares(monkeypatch):
    sampler = painting_sampler(soft_classes=True)
    seen = []
    inner = sampler.network.forward
    monkeypatch.setattr(sampler.network, "forward", lambda z, c, *more, **k: seen.append(c) or inner(z, c, *more, **k))
    requests = requests_alike("disc:0.25,early-type:0.75", {}, ATTRIBUTES, 3, 2, FLUX["classes"])
    ((images, catalogue),) = list(generate_blocks(sampler, requests, measure=False))
    assert len(images) == 2 and seen[0][0, :2].tolist() == [0.25, 0.75]
    assert catalogue["morphology"].tolist() == ["early-type"] * 2
    assert catalogue["requested_share_disc"].tolist() == [0.25] * 2
    plain = requests_alike("early-type", {}, ATTRIBUTES, 3, 2, FLUX["classes"])
    ((_, catalogue),) = list(generate_blocks(sampler, plain, measure=False))
    assert seen[-1][0, :2].tolist() == [0, 1] and "requested_share_disc" not in catalogue


def test_a_generator_of_one_class_a_galaxy_is_asked_for_one():
    sampler = painting_sampler()
    requests = requests_alike("disc:0.25,early-type:0.75", {}, ATTRIBUTES, 3, 2, FLUX["classes"])
    with pytest.raises(RequestError, match="morphology is a mixture of classes, and this checkpoint was trained on"):
        list(generate_blocks(sampler, requests, measure=False))
