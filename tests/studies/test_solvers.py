"""The comparison of solvers: the same galaxies from each, what is kept, the page, and bad input."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from galaxies.common.errors import UserError
from galaxies.validation.evaluation import load_judge
from studies import solvers
from tests.conftest import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("solvers") / "rendered", 640, seed=3)


@pytest.fixture
def run(untrained, data, tmp_path, monkeypatch):
    """Run the script without a judge, which would have to be trained first."""
    monkeypatch.setattr(solvers, "load_judge", lambda *_: (None, "no judge"))
    assert load_judge is not solvers.load_judge

    def run(*options, checkpoint=untrained["diffusion"]):
        words = ["--checkpoint", checkpoint, "--data", data, "--out", tmp_path / "out", "--count", 40, *options]
        solvers.main([*map(str, words), "--device", "cpu"])
        return json.loads((tmp_path / "out/table.json").read_text())

    return run


def test_the_same_galaxies_by_each_solver(run, tmp_path, capsys):
    found = run("--solvers", "sde:2", "ddim:1", "ddpm:3")
    assert list(found) == ["2 steps of sde", "1 steps of ddim", "3 steps of ddpm"]
    one = found["2 steps of sde"]
    assert one["Fréchet distance, statistics"] > 1 and one["seconds an image"] > 0
    assert "Fréchet distance, judge" not in one
    assert found["3 steps of ddpm"] != one
    assert "| Fréchet distance, statistics |" in capsys.readouterr().out
    blocks = [np.load(path)["images"] for path in sorted((tmp_path / "out/sde-2").iterdir())]
    assert [len(block) for block in blocks] == [16, 16, 8]


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
