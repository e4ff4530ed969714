"""What the galaxies of a dataset are called, by its source, and how a user says that they are no observed ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import prepare_data
from galaxies.common.origin import joined_source, origin_of


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        ("mock survey of seed 3", "mock"),
        ("mock survey, joined: a, b", "mock"),
        ("simulation: pictures with labels.csv", "simulated"),
        ("simulation, joined: a, b", "simulated"),
        ("joined: mock survey, simulation", "real"),
        ("Galaxy Zoo 2 in data/gz2", "real"),
        ("", "real"),
        (None, "real"),
    ],
)
def test_a_source_says_what_galaxies_are(source, origin):
    assert origin_of(source) == origin


def test_what_is_joined_is_mock_or_simulated_only_if_all_of_it_is():
    mock, simulated = "mock survey of seed 1", "simulation: a"
    assert joined_source(["a", "b"], [mock, mock]) == "mock survey, joined: a, b"
    assert joined_source(["a", "b"], [simulated, simulated]) == "simulation, joined: a, b"
    for others in ([mock, simulated], [mock, "SDSS"], ["SDSS", None], [simulated, None]):
        assert joined_source(["a", "b"], others) == "joined: a, b"


def test_a_user_says_that_pictures_are_those_of_a_simulation(tmp_path):
    rng = np.random.default_rng(1)
    names = []
    for k in range(4):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / f"{k}.png")
        names.append(f"{k}.png,{('spiral', 'elliptical', 'merger', 'edge-on')[k]}")
    (tmp_path / "labels.csv").write_text("image,morphology\n" + "\n".join(names))
    for out, more in (("plain", []), ("told", ["--simulation"])):
        options = [
            "labelled",
            "--images",
            tmp_path,
            "--labels",
            tmp_path / "labels.csv",
            "--out",
            tmp_path / out,
            "--crop",
            "1.0",
            *more,
        ]
        prepare_data.main(list(map(str, options)))
        source = json.loads((tmp_path / out / "manifest.json").read_text(encoding="utf-8"))["source"]
        assert origin_of(source) == ("simulated" if more else "real")
        assert source.endswith(f"{tmp_path} with {tmp_path / 'labels.csv'}")
