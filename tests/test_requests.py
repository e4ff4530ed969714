"""What may be asked: each value through every door (command line, CSV, HTTP, Python), with one verdict and sentence."""

from __future__ import annotations

import math
from urllib.parse import urlencode

import numpy as np
import pytest
import torch

import generate_from_checkpoint
from config_physics import ATTRIBUTES
from galaxies.common.errors import UserError
from galaxies.datasets.population import Population
from galaxies.generation.request_tables import read_requests
from galaxies.generation.request_values import attribute_value, whole_value
from galaxies.generation.requests import requests_alike
from galaxies.generation.sampler import GalaxySampler

NAMES = ("size", "brightness", "ellipticity", "redshift")  # of the checkpoints
SIZE = "it takes a number from 0.001 to 0.5 frame widths"
ELLIPTICITY = "it takes a number from 0 to 0.99"
SEED = f"it takes a whole number from 0 to {2**63 - 1 - 10**8}"


class DrawnError(Exception):
    """A request came as far as the drawing."""


@pytest.fixture
def doors(client, untrained, tmp_path, monkeypatch):
    """What each door says to a request of (name, text) pairs: None where it is drawn, else the sentence."""
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")

    def stop(*_, **__):
        raise DrawnError

    monkeypatch.setattr(GalaxySampler, "from_checkpoint", lambda *_, **__: sampler)
    monkeypatch.setattr("galaxies.generation.answering.generate_pictures", stop)

    def by_command_line(pairs):
        options = [word for name, text in pairs for word in (f"--{name.replace('_', '-')}", text)]
        options += ["--checkpoint", str(untrained["gan"]), "--count", "1"]
        generate_from_checkpoint.main(options)

    def by_table(pairs):
        file = tmp_path / "wanted.csv"
        file.write_text("\n".join(",".join(f'"{pair[k]}"' for pair in pairs) for k in (0, 1)) + "\n", encoding="utf-8")
        try:
            read_requests(file, NAMES, 0)
        except UserError as error:
            raise UserError(str(error).removeprefix(f"{file}, row 2: ").removeprefix(f"{file}, row 1: ")) from None

    def by_http(pairs):
        answer = client.get("/api/measure?" + urlencode(pairs))
        if answer.status_code == 400:
            raise UserError(answer.json["error"])
        assert answer.status_code == 200

    def by_python(pairs):
        given = dict(pairs)
        requests_alike(given.pop("morphology"), given, NAMES, given.pop("seed", 0), 1)

    def ask(**parameters):
        pairs = list({"morphology": "spiral", **parameters}.items())
        said = {}
        for door in (by_command_line, by_table, by_http, by_python):
            try:
                door(pairs)
                said[door.__name__] = None
            except DrawnError:
                said[door.__name__] = None
            except UserError as error:
                said[door.__name__] = str(error)
        return said

    return ask


# fmt: off
REFUSED = [
    *(("size", text, SIZE) for text in (
        "-0.1", "0", "-0", "0.0009999", "0.50001", "2", "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e400",
        "-1e400", "1e-320", "5e-324", "0x1p3", "0x1", "٠.١", "０.１", "1_000", "0.1_5", "5px", "0.1 px", "10%",
        "True", "false", "None", "null", "big", "0.1.2", "1e", ".", "-", "e-1", "1/8", "0.1;0.2", "½", "−0.1",
        "0.1\u200b",
    )),
    ("size", "0,3", SIZE + ", with a decimal point"),
    ("size", "-,3", SIZE + ", with a decimal point"),
    ("ellipticity", "1.5", ELLIPTICITY), ("ellipticity", "-0.3", ELLIPTICITY), ("ellipticity", "1", ELLIPTICITY),
    ("ellipticity", "-1e-320", ELLIPTICITY), ("ellipticity", "-.5e0", ELLIPTICITY),
    ("redshift", "-0.01", "it takes a number from 0 to 10"), ("redshift", "1e30", "it takes a number from 0 to 10"),
    ("brightness", "1.01", "it takes a number from 0.001 to 1 display units"),
    *(("seed", text, SEED) for text in (
        "-1", str(2**63 - 10**8), str(2**63), str(2**64 + 7), "9" * 400, "1.0", "1e3", "+7", "0x7", "٧", "1_0", "nan",
        "True", "seven", "- 1",
    )),
    ("morphology", "ring", "choose one of spiral, elliptical, merger, edge-on"),
    ("morphology", "0", "choose one of"), ("morphology", "spirall", "choose one of"),
    ("morphology", "edgeon", "choose one of"), ("morphology", "\u1e9epiral", "choose one of"),
]
TAKEN = [
    ("size", "0.001"), ("size", "0.5"), ("size", "0.4"), ("size", "1e-1"), ("size", "1E-1"), ("size", "+.1"),
    ("size", "00.10"), ("ellipticity", "0"), ("ellipticity", "-0"), ("ellipticity", "-0.0"), ("ellipticity", "1e-320"),
    ("ellipticity", "1e-400"), ("ellipticity", "0.99"), ("redshift", "10"), ("redshift", "10."),
    ("seed", "0"), ("seed", "007"), ("seed", "-0"), ("seed", str(2**53 + 1)), ("seed", str(2**63 - 1 - 10**8)),
    ("morphology", "Edge_On"), ("morphology", "MERGER"), ("morphology", " spirals "),
]
# fmt: on


def test_what_is_impossible_is_refused_by_every_door_with_one_sentence(doors):
    for name, text, words in REFUSED:
        said = doors(**{name: text})
        assert len(said) == 4 and len(set(said.values())) == 1, (name, text, said)
        (sentence,) = set(said.values())
        start = "unknown morphology " if name == "morphology" else f"{name} is "
        assert sentence is not None and sentence.startswith(start + repr(text)[:50]), (text, sentence)
        assert words in sentence and sentence.endswith(words) == (name != "morphology" or words.endswith("on"))


def test_what_is_possible_is_taken_by_every_door(doors):
    for name, text in TAKEN:
        assert set(doors(**{name: text}).values()) == {None}, (name, text)


def test_an_attribute_that_the_checkpoint_does_not_know(doors):
    said = doors(color="0.5")
    assert set(said.values()) == {"color is unknown to this checkpoint: it knows " + ", ".join(NAMES)}


def test_numbers_of_python():
    def requests(value, **more):
        return requests_alike("spiral", {"size": value}, NAMES, **{"seed": 0, "count": 1, **more})

    for value in (0.3, np.float32(0.3), np.float64(0.3)):
        assert requests(value).values[0, 0] == np.float32(0.3)
    assert requests(np.float32(0.001)).values[0, 0] == np.float32(0.001)  # a little below 0.001 in double precision
    for value in (True, np.True_, math.nan, math.inf, -0.1, 10**400, 0.3j, [0.3], b"0.3", None, "", np.float32("nan")):
        with pytest.raises(UserError, match=r"size (is|has no value)"):
            requests(value)
    for name, value in (("seed", -1), ("seed", 2**63), ("seed", 7.0), ("seed", True), ("count", -5), ("count", 0)):
        with pytest.raises(UserError, match=f"{name} is '{value}': it takes a whole number from"):
            requests(0.3, **{name: value})
    assert requests(0.3, seed=np.int64(7), count=np.int32(2)).seeds == range(7, 9)


def test_tensors_of_python(untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")

    def both(values, classes=(0,), seeds=(0,)):
        values = torch.tensor([values])
        sentences = set()
        for work in (sampler.generate, sampler.complete_all):
            with pytest.raises(UserError) as caught:
                work(torch.tensor(classes), values, seeds)
            sentences.add(str(caught.value))
        assert len(sentences) == 1
        return sentences.pop()

    right = [0.1, 0.3, 0.4, math.nan]
    assert both([0.1, 0.3, 1.5, 0.1]) == f"ellipticity is '1.5': {ELLIPTICITY}"
    assert both([-0.1, 0.3, 0.4, 0.1]) == f"size is '-0.1': {SIZE}"
    assert both([0.1, math.inf, 0.4, 0.1]).startswith("brightness is 'inf': it takes")
    assert both(right, seeds=[-3]) == f"seed is '-3': {SEED}"
    assert both(right, seeds=[2**64]) == f"seed is '{2**64}': {SEED}"
    assert both(right, seeds=np.array([0.5])) == f"seed is '0.5': {SEED}"
    assert "unknown morphology '4': choose one of" in both(right, classes=[4])
    assert "unknown morphology '-1': choose one of" in both(right, classes=[-1])
    assert "they must be (N,), (N, 4) and (N,)" in both(right[:3])
    assert "they must be (N,), (N, 4) and (N,)" in both(right, seeds=[1, 2])
    ends = torch.tensor([[0.001, 1.0, 0.99, 10.0]])  # rounded to single precision, 0.99 is above itself
    assert len(sampler.generate(torch.tensor([0]), ends, [2**63 - 1])) == 1
    assert len(sampler.generate(torch.tensor([], dtype=torch.int64), torch.empty(0, 4), [])) == 0


def test_what_was_measured_on_a_real_galaxy_can_be_drawn(untrained):
    sampler = GalaxySampler.from_checkpoint(untrained["gan"], "cpu")
    values = sampler.population.values.clone()
    values[:, 1] = -0.002  # the brightness of a galaxy that is lost in its sky
    faint = GalaxySampler(
        sampler.network, sampler.config, Population(sampler.population.classes, values), sampler.engine
    )
    drawn = faint.complete(0, torch.full((4,), math.nan), 3)
    assert drawn[1] == np.float32(-0.002)
    assert len(faint.generate(torch.tensor([0]), drawn[None], [3])) == 1
    with pytest.raises(UserError, match=r"brightness is '-0\.002': it takes a number"):
        sampler.generate(torch.tensor([0]), drawn[None], [3])


def test_a_request_that_is_given_twice(doors, client):
    for options in (["--size", "0.1", "--size", "0.1"], ["--size=0.1", "--size", "0.2"], ["--size", "0.1", "0.2"]):
        with pytest.raises(UserError, match=r"size is there more than once: give it once|unrecognized arguments: 0\.2"):
            generate_from_checkpoint.main(["--morphology", "spiral", *options])
    for name in ("morphology", "seed", "count"):
        with pytest.raises(UserError, match=f"{name} is there more than once: give it once"):
            generate_from_checkpoint.main(["--morphology", "spiral", "--seed", "1", "--count", "1", f"--{name}", "1"])
    answer = client.get("/api/measure?morphology=spiral&size=0.1&size=0.1")
    assert answer.json["error"] == "size is there more than once: give it once"


def test_an_option_without_its_value_takes_no_other_option_for_it():
    for options in (["--size", "--seed", "3"], ["--seed", "--size", "0.1"], ["--size"]):
        with pytest.raises(UserError, match=f"argument {options[0]}: expected one argument"):
            generate_from_checkpoint.main(["--morphology", "spiral", *options])


def test_a_sheet_of_the_last_seed(client):
    last = 2**63 - 1 - 10**8
    tiles = client.get(f"/api/sheet.json?morphology=spiral&size=0.1&seeds=3&seed={last}").json["tiles"]
    assert [tile["seed"] for tile in tiles] == [last, last + 1, last + 2]


def test_sliders_and_real_galaxies_lie_within_what_is_possible():
    for attribute in ATTRIBUTES.values():
        low, high = attribute.plausible
        assert low <= attribute.low < attribute.high <= high
        for value in (low, high, attribute.low, attribute.high):
            assert attribute_value(attribute.name, value) == attribute_value(attribute.name, repr(value)) == value
            assert low <= attribute_value(attribute.name, np.float32(value)) <= high


def test_whole_numbers_have_both_ends():
    assert [whole_value("count", text, -2, 3) for text in ("-2", "3", 3)] == [-2, 3, 3]
    for text in ("-3", "4", "3.0", " 3", "3\n", "9" * 5000):  # Python reads 4300 digits at most
        with pytest.raises(UserError, match="it takes a whole number from -2 to 3"):
            whole_value("count", text, -2, 3)
