"""Choosing how long weights are averaged: among averages whose best one is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import evaluate
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.power_averages import averaged_weights, find_snapshots
from galaxies.validation import average_length, subject
from galaxies.validation.average_length import Tried, choose_length
from galaxies.validation.report.cells import LeftOut
from tests.conftest import make_trainer, write_dataset

pytest.importorskip("scipy")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A dataset with some 24 galaxies of the judge's split."""
    return write_dataset(tmp_path_factory.mktemp("many") / "d", 240)


@pytest.fixture(scope="module")
def run(many, tmp_path_factory):
    """The folder of a small run with four snapshots."""
    trainer = make_trainer(PreparedDataset.open(many), tmp_path_factory.mktemp("averages"), average_snapshots=4)
    trainer.train()
    return trainer.checkpoints


@pytest.fixture(autouse=True)
def small_things(monkeypatch):
    """Let few galaxies do, and no judge, whose training takes its time."""
    monkeypatch.setattr(average_length, "_LEAST_REAL", 20)
    monkeypatch.setattr(subject, "load_judge", lambda *_: LeftOut("no judge was trained"))


def test_the_command_writes_a_checkpoint_that_draws_with_the_best_average(run, many, tmp_path, capsys):
    out = tmp_path / "averaged.pt"
    line = ["average", "--checkpoint", run / "latest.pt", "--data", many, "--lengths", "0.05,0.2"]
    line = [str(word) for word in [*line, "--count", 24, "--device", "cpu", "--out", out]]
    evaluate.main(line)
    said = capsys.readouterr().out
    rows = [row.split() for row in said.splitlines()]
    assert [row[0] for row in rows[1:4]] == ["as", "0.05", "0.2"]
    scores = {" ".join(row[:-3]) if row[0] == "as" else row[0]: float(row[-1]) for row in rows[1:4]}
    state = load_checkpoint(out)
    best = min(scores.values())
    length = state["provenance"]["average_length"]
    assert (next(iter(scores.values())) if length == 0 else scores[f"{length:g}"]) == best
    assert "optimizers" not in state and state["step"] == load_checkpoint(run / "latest.pt")["step"]
    if length:
        sampler = GalaxySampler.from_checkpoint(run / "latest.pt", "cpu")
        wanted = averaged_weights(find_snapshots(run), [length], sampler.network)[length]
        assert all(torch.equal(state["ema"][name], value) for name, value in wanted.items())
    images = GalaxySampler.from_checkpoint(out, "cpu").generate(torch.tensor([0]), torch.full((1, 4), torch.nan), [1])
    assert images.shape == (1, 3, 64, 64)
    evaluate.main(line)  # what it wrote may be written again


def test_the_average_that_is_nearest_to_real_galaxies_is_chosen(run, many, monkeypatch):
    """Draw real galaxies for one of the lengths, and what the network draws for the others."""
    data = PreparedDataset.open(many)
    real = torch.from_numpy(data.images[data.rows("judge")])
    drawn = average_length.generate_all
    calls = []

    def generate(sampler, asked, title):
        calls.append({name: value.clone() for name, value in sampler.network.state_dict().items()})
        return real if len(calls) == 3 else drawn(sampler, asked, title)

    monkeypatch.setattr(average_length, "generate_all", generate)
    tried, state = choose_length(run / "latest.pt", many, (0.05, 0.1, 0.2), len(real), 0, "cpu")
    assert [one.length for one in tried] == [None, 0.05, 0.1, 0.2]
    assert min(tried, key=lambda one: one.score).length == state["provenance"]["average_length"] == 0.1
    # Each was drawn with the weights of its length.
    snapshots, network = find_snapshots(run), GalaxySampler.from_checkpoint(run / "latest.pt", "cpu").network
    for length, used in zip((0.05, 0.1, 0.2), calls[1:], strict=True):
        assert all(torch.equal(used[n], v) for n, v in averaged_weights(snapshots, [length], network)[length].items())
    assert all(torch.equal(calls[0][n], v) for n, v in network.state_dict().items())


def test_the_score_is_the_geometric_mean():
    assert Tried(0.1, {"a": 2.0, "b": 8.0}).score == pytest.approx(4)


def test_what_is_missing_costs_a_sentence(run, many, dataset_path, tmp_path):
    with pytest.raises(UserError, match=r"no snapshots of averages.*--average-snapshots"):
        choose_length(Path(shutil.copy(run / "latest.pt", tmp_path)), many, (0.1,), 24, 0, "cpu")
    with pytest.raises(UserError, match=r"has \d+ galaxies of the judge's split, where 20"):
        choose_length(run / "latest.pt", dataset_path, (0.1,), 24, 0, "cpu")
    for words in ("0.3", "0.1,x", "", "0.001"):
        with pytest.raises(UserError, match="--lengths"):
            evaluate.main(["average", "--checkpoint", "c", "--data", "d", "--lengths", words])


def test_snapshots_of_steps_that_a_checkpoint_has_not_taken_are_left_out(run, many, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(run, folder)
    last = find_snapshots(folder)[-1]
    later = folder / f"average_{last.step + 7:09}.safetensors"
    save_file({name: value * 100 for name, value in load_file(last.path).items()}, later)
    one, _ = choose_length(run / "latest.pt", many, (0.1,), 24, 0, "cpu")
    other, _ = choose_length(folder / "latest.pt", many, (0.1,), 24, 0, "cpu")
    assert one == other
