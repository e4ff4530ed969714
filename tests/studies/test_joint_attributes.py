"""What is said of galaxies that are drawn together."""

from __future__ import annotations

import json

from studies import joint_attributes


def test_drawn_galaxies_are_held_against_the_real_ones(data, capsys):
    options = ["--data", str(data.path), "--attributes", "size,ellipticity,redshift", "--count", "1000"]
    joint_attributes.main(options)
    said = json.loads(capsys.readouterr().out)
    assert said["drawn"] == 1000 and said["like_real"] > 0.95
    assert sum(said[name]["share_drawn"] for name in data.layout.classes) == 1
    assert all(abs(said[name]["share_drawn"] - said[name]["share_real"]) < 0.05 for name in data.layout.classes)
    assert said["spiral"] == {"pairs": 0} | {k: said["spiral"][k] for k in ("real", "share_real", "share_drawn")}


def test_differences_are_those_of_the_ranks():
    import numpy as np

    theirs = np.random.default_rng(0).normal(size=(500, 2))
    opposite = np.stack([theirs[:, 0], -theirs[:, 0]], 1)
    alike = np.stack([theirs[:, 0], theirs[:, 0] ** 3], 1)
    found = joint_attributes._differences(opposite, alike, ("a", "b"))
    assert found["largest_difference"] == 2 and found["of"] == ("a", "b") and found["largest_by_chance"] < 1e-9
