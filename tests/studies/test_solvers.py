"""The comparison of solvers: the same galaxies from each, what is kept, the page, and bad input."""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np
import pytest
import torch

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.requests import requests_like_test
from galaxies.generation.sampler import GalaxySampler
from galaxies.validation.report.cells import LeftOut
from studies import solvers
from tests.conftest import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("solvers") / "rendered", 640, seed=3)


@pytest.fixture
def run(untrained, data, tmp_path, monkeypatch):
    """Run the script without a judge, which would have to be trained first."""
    monkeypatch.setattr(solvers, "load_judge", lambda *_: LeftOut("no judge"))

    def run(*options, checkpoint=untrained["diffusion"]):
        words = ["--checkpoint", checkpoint, "--data", data, "--out", tmp_path / "out", "--count", 40, *options]
        solvers.main([*map(str, words), "--device", "cpu"])
        return json.loads((tmp_path / "out/table.json").read_text())

    return run


def test_each_solver_draws_the_galaxies_that_are_asked_for(run, untrained, data, tmp_path, capsys):
    asked = {
        "sde:2": ("sde", 2),
        "dpm:2": ("dpm", 2),
        "ddim:1": ("ddim", 1),
        "ddim:3": ("ddim", 3),
        "ddpm:3": ("ddpm", 3),
    }
    found = run("--solvers", *asked)
    assert list(found) == ["2 steps of sde", "2 steps of dpm", "1 steps of ddim", "3 steps of ddim", "3 steps of ddpm"]
    assert all(column["seconds an image"] > 0 for column in found.values())
    assert "| Fréchet distance, statistics |" in capsys.readouterr().out
    # Drawn again as generate_from_checkpoint.py would, all at once and by a sampler that never knew another solver.
    like = requests_like_test(PreparedDataset.open(data), Config(diffusion=True).attributes, 40, 0)
    drawn = {}
    for name, steps in asked.values():
        blocks = [np.load(path)["images"] for path in sorted((tmp_path / f"out/{name}-{steps}").iterdir())]
        assert [len(block) for block in blocks] == [16, 16, 8]
        drawn[name, steps] = np.concatenate(blocks)
        sampler = GalaxySampler.from_checkpoint(untrained["diffusion"], "cpu", name=name, num_steps=steps)
        expected = sampler.generate(like.classes, like.values, like.seeds)
        assert np.array_equal(drawn[name, steps], expected.numpy())
    # No two of them are the same pictures: the name and the number of steps are both heeded.
    assert all(not np.array_equal(drawn[a], drawn[b]) for a, b in itertools.combinations(drawn, 2))


class Colours:
    """Stands for a judge: its features are the mean of each plane."""

    @staticmethod
    def features(images):
        return images.float().mean((2, 3))


@pytest.mark.parametrize("judge", [LeftOut("no judge"), Colours()])
def test_real_galaxies_are_as_far_from_real_ones_as_chance_puts_them_and_bright_ones_further(
    run, data, monkeypatch, judge
):
    prepared = PreparedDataset.open(data)
    real = torch.from_numpy(prepared.images[prepared.rows("train")[:40]])
    monkeypatch.setattr(solvers, "load_judge", lambda *_: judge)
    brighter = (2 * real.int()).clamp(max=255).to(torch.uint8)
    monkeypatch.setattr(solvers, "draw", lambda _, solver, *rest: (real if solver.name == "dpm" else brighter, 0.25))
    columns = run("--solvers", "dpm:1", "ddpm:1")
    good, bad = columns["1 steps of dpm"], columns["1 steps of ddpm"]
    distances = ["mean Wasserstein-1 of the statistics", "Fréchet distance, statistics"]
    seen = not isinstance(judge, LeftOut)
    distances += ["Fréchet distance, judge"] if seen else []
    assert ("Fréchet distance, judge" in good) == seen
    for name in distances:
        assert 0.5 < good[name] < 2, name  # 1 on average
        assert bad[name] > 1.5 * good[name], name
    assert good["seconds an image"] == 0.25


def test_blocks_that_are_there_are_kept(run, tmp_path):
    first = run("--solvers", "dpm:1")
    (tmp_path / "out/dpm-1/000016.npz").unlink()
    kept = (tmp_path / "out/dpm-1/000000.npz").stat().st_mtime_ns
    again = run("--solvers", "dpm:1")
    assert (tmp_path / "out/dpm-1/000000.npz").stat().st_mtime_ns == kept
    for column in (first, again):
        del column["1 steps of dpm"]["seconds an image"]
    assert again == first
    with pytest.raises(UserError, match="was begun with another count"):
        run("--count", 50)


def test_the_page_gets_the_table(run, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- solvers -->\nold\n<!-- end of solvers -->\nafter\n")
    run("--solvers", "dpm:1", "--page", page)
    table = (tmp_path / "out/table.md").read_text()
    assert page.read_text() == f"before\n<!-- solvers -->\n\n{table}\n<!-- end of solvers -->\nafter\n"


def test_bad_input(run, untrained, tmp_path):
    with pytest.raises(UserError, match="holds no diffusion model"):
        run(checkpoint=untrained["gan"])
    with pytest.raises(UserError, match="there is no page"):
        run("--page", tmp_path / "no.md")
    for text in ("euler:20", "dpm", "dpm:", "dpm:0", "dpm:-1", "dpm:2.5", "dpm:1000000"):
        with pytest.raises(argparse.ArgumentTypeError, match="such as sde:20"):
            solvers.solver_of(text)
