"""Galaxies whose classes and attributes are drawn together, by the script: their catalogue, their seeds, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import generate_from_checkpoint
from galaxies.common.errors import UserError
from galaxies.datasets.copula import JointDistribution
from galaxies.generation.requests import requests_together
from galaxies.generation.sampler import GalaxySampler
from tests.conftest import ROOT, tree_of

CLASSES = ("spiral", "elliptical", "merger", "edge-on")


@pytest.fixture(scope="module")
def generate(trained):
    def call(out: Path, *options: object) -> Path:
        checkpoint = trained / "checkpoints/tiny/latest.pt"
        words = ["--checkpoint", checkpoint, "--device", "cpu", "--out", out, *options]
        generate_from_checkpoint.main([str(word) for word in words])
        return out

    return call


@pytest.fixture(scope="module")
def sampler(trained):
    return GalaxySampler.from_checkpoint(trained / "checkpoints/tiny/latest.pt", "cpu")


@pytest.fixture(scope="module")
def drawn(generate, tmp_path_factory):
    """Fifty galaxies drawn together, from seed 5 on, in shards of 16."""
    out = tmp_path_factory.mktemp("joint") / "mock"
    return generate(out, "--draw", "copula", "--count", 50, "--seed", 5, "--shard-size", 16)


def catalogue_of(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_csv(path) for path in sorted(folder.glob("catalogue_*.csv"))], ignore_index=True)


def test_catalogue_says_what_was_drawn_and_that_nobody_set_it(drawn, sampler):
    classes, values = JointDistribution(sampler.population, CLASSES).draw(range(5, 55))
    table = catalogue_of(drawn)
    assert table["seed"].tolist() == list(range(5, 55))
    assert table["morphology"].tolist() == [CLASSES[index] for index in classes]
    for name, column in zip(("size", "brightness", "ellipticity", "redshift"), values.T, strict=True):
        assert table[f"requested_{name}"].to_numpy() == pytest.approx(column.numpy(), rel=1e-6, nan_ok=True)
    assert table["set_by_user"].isna().all()
    assert table["requested_redshift"].isna().any() and table["requested_redshift"].notna().any()
    assert table["supported"].all() and set(table["support"]) == {"like"}
    assert (table["nearest_real"] > 0).all()


def test_pictures_are_those_of_the_drawn_attributes(drawn, sampler):
    classes, values = JointDistribution(sampler.population, CLASSES).draw(range(5, 55))
    images = np.concatenate([np.load(path) for path in sorted(drawn.glob("images_*.npy"))])
    assert np.array_equal(images, sampler.generate(classes, values, range(5, 55)).numpy())


def test_other_parts_and_processes_draw_the_same(generate, drawn, tmp_path, monkeypatch):
    for size in (1, 2, 3):
        monkeypatch.setenv("WORLD_SIZE", str(size))
        for rank in range(size):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            generate(tmp_path / str(size), "--draw", "copula", "--count", 50, "--seed", 5, "--shard-size", 16)
        assert tree_of(tmp_path / str(size)) == tree_of(drawn)
    monkeypatch.undo()
    other = generate(tmp_path / "other", "--draw", "copula", "--count", 20, "--seed", 25, "--shard-size", 7)
    both = [catalogue_of(folder).drop(columns=["file", "row"]) for folder in (drawn, other)]
    pd.testing.assert_frame_equal(both[0][20:40].reset_index(drop=True), both[1])


def test_one_class_may_be_named_and_few_galaxies_are_pictures(generate, tmp_path):
    out = generate(tmp_path / "out", "--draw", "copula", "--morphology", "edge-on", "--count", 3, "--names", "requests")
    table = pd.read_csv(out / "catalogue.csv")
    assert set(table["morphology"]) == {"edge-on"}
    assert [path.name for path in sorted((out / "images").iterdir())] == [f"edge-on_seed-{k}_gan.png" for k in range(3)]


@pytest.mark.parametrize(
    "options",
    [
        ["--count", 50, "--seed", 6],
        ["--count", 49, "--seed", 5],
        ["--count", 50, "--seed", 5, "--morphology", "spiral"],
        ["--count", 50, "--seed", 5, "--draw", "real", "--morphology", "spiral"],
    ],
)
def test_a_folder_of_other_draws_is_refused(generate, drawn, options):
    draw = [] if "--draw" in options else ["--draw", "copula"]
    with pytest.raises(UserError, match=r"holds the galaxies of another request \(another .*requests"):
        generate(drawn, *draw, *options, "--shard-size", 16)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", 0.1, "--set", "redshift=0.1"], "leave it out, or the values of size, redshift"),
        (["--requests", "some.csv"], "--draw is for galaxies that are not listed"),
        (["--count", 0], "count is '0': it takes a whole number from 1 to"),
        (["--count", 3, "--shard-size", 0], "argument --shard-size: 0 must lie between 1 and"),
        (["--morphology", "ring"], "choose one of spiral, elliptical, merger, edge-on"),
        (["--count", 3, "--position-angle", 10], "position_angle is no request of this checkpoint"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(generate, tmp_path, options, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        generate(tmp_path / "out", "--draw", "copula", *options)
    with pytest.raises(UserError, match="argument --draw: invalid choice: 'flow'"):
        generate(tmp_path / "out", "--draw", "flow")


@pytest.mark.parametrize("family", ["gan", "diffusion"])
def test_releases_of_the_first_version_draw_together(family):
    sampler = GalaxySampler.from_checkpoint(ROOT / "tests/storage/e82a0c7" / family / "generator.safetensors", "cpu")
    requests = requests_together(None, sampler.population, 0, 2000, sampler.config.classes)
    part = requests.part(0, 2000)
    shares = torch.bincount(sampler.population.classes, minlength=4) / len(sampler.population.classes)
    assert (torch.bincount(part.classes, minlength=4) / 2000).tolist() == pytest.approx(shares.tolist(), abs=0.04)
    assert (sampler.support(part.classes, part.values).verdicts == 0).all()
