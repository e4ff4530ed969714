"""Which checkpoints the page takes, and what it does about those that cannot be used."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from galaxies.common.errors import UserError
from galaxies.serving.application import create_app
from galaxies.serving.models import ServedModel, load_found
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.storage.release import WEIGHTS, find_checkpoints, write_release


@pytest.fixture
def folder(tmp_path, untrained):
    """Return a function that puts a checkpoint at a place, one minute newer than the one before."""
    minutes = iter(range(1, 100))

    def put(place: str, kind: str) -> None:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(untrained[kind], path)
        time = 1_700_000_000 + 60 * next(minutes)
        os.utime(path, (time, time))

    put.path = tmp_path
    return put


def names(models) -> list[str]:
    return [model.checkpoint for model in models]


def put_release(folder, name: str, checkpoint) -> None:
    write_release(load_checkpoint(checkpoint), folder.path / "released" / name, torch.float16, {})


def test_the_newest_run_comes_first_and_what_is_released_last(folder, untrained):
    put_release(folder, "gan", untrained["gan"])
    put_release(folder, "diffusion", untrained["diffusion"])
    for place in ("old/latest.pt", "new/latest.pt", "released/latest.pt", "new/epoch_0001.pt", "latest.pt"):
        folder(place, "gan")
    (folder.path / "empty").mkdir()
    (folder.path / "strange" / "latest.pt").mkdir(parents=True)
    found = [path.relative_to(folder.path).as_posix() for path in find_checkpoints(folder.path)]
    released = [f"released/{name}/{WEIGHTS}" for name in ("gan", "diffusion")]
    # The folder is listed, so that whoever reads it says what it is.
    assert found == ["strange/latest.pt", "new/latest.pt", "old/latest.pt", *released]


def test_nothing_to_find(tmp_path):
    assert find_checkpoints(tmp_path / "nowhere") == []
    assert load_found([]) == []


def test_the_newest_of_each_family_is_served(folder):
    for place, kind in (("a", "gan"), ("b", "diffusion"), ("c", "diffusion"), ("d", "gan"), ("e", "gan")):
        folder(f"{place}/latest.pt", kind)
    assert names(load_found(find_checkpoints(folder.path), "cpu")) == ["e/latest.pt", "c/latest.pt"]


def test_a_release_stands_in_for_a_missing_run(folder, untrained):
    put_release(folder, "gan", untrained["gan"])
    put_release(folder, "diffusion", untrained["diffusion"])
    found = find_checkpoints(folder.path)
    assert names(load_found(found, "cpu")) == [f"gan/{WEIGHTS}", f"diffusion/{WEIGHTS}"]
    folder("own/latest.pt", "gan")
    found = find_checkpoints(folder.path)
    assert names(load_found(found, "cpu")) == ["own/latest.pt", f"diffusion/{WEIGHTS}"]


@pytest.mark.parametrize("fault", ["cut", "empty", "other", "early"])
def test_one_that_cannot_be_used_costs_a_sentence(folder, capsys, fault):
    folder("good/latest.pt", "gan")
    folder("bad/latest.pt", "gan")
    bad = folder.path / "bad/latest.pt"
    if fault == "cut":
        os.truncate(bad, bad.stat().st_size // 2)
    elif fault == "empty":
        bad.write_bytes(b"")
    elif fault == "other":
        save_checkpoint(bad, {"what": "something else"})
    else:
        save_checkpoint(bad, {**load_checkpoint(bad), "phase": "predictor"})
    os.utime(bad)  # it is the newest all the same
    assert names(load_found(find_checkpoints(folder.path), "cpu")) == ["good/latest.pt"]
    (line,) = capsys.readouterr().err.splitlines()
    assert str(bad) in line and line.endswith("trying the next one")


def test_damaged_ones_of_the_other_family_are_left_alone(folder, capsys):
    folder("bad/latest.pt", "diffusion")
    os.truncate(folder.path / "bad/latest.pt", 1000)
    os.utime(folder.path / "bad/latest.pt", (1, 1))  # older than the good one
    folder("good/latest.pt", "gan")
    assert names(load_found(find_checkpoints(folder.path), "cpu")) == ["good/latest.pt"]
    assert capsys.readouterr().err == ""


def test_a_solver_is_for_the_diffusion_model_alone(folder):
    folder("a/latest.pt", "gan")
    folder("b/latest.pt", "diffusion")
    gan, diffusion = load_found(find_checkpoints(folder.path), "cpu", num_steps=3)
    assert diffusion.sampler.solver.num_steps == 3
    assert gan.sampler.describe() == "generator frame with pixel noise"


def test_what_decides_a_picture_is_in_the_fingerprint(untrained):
    model = ServedModel.load(untrained["diffusion"], "cpu")
    prints = {model.fingerprint(), ServedModel.load(untrained["diffusion"], "cpu").fingerprint()}
    assert len(prints) == 1
    prints.add(ServedModel.load(untrained["diffusion"], "cpu", num_steps=3).fingerprint())
    prints.add(ServedModel.load(untrained["diffusion"], "cpu", guidance=2.0).fingerprint())
    prints.add(ServedModel.load(untrained["gan"], "cpu").fingerprint())
    model.sampler.population.values[0, 0] += 1e-3
    prints.add(model.fingerprint())
    assert len(prints) == 5


def test_a_missing_checkpoint_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        ServedModel.load(tmp_path / "latest.pt", "cpu")


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("joined: /home/me/data/gz2, /home/me/mine", "joined: gz2, mine"),
        ("Galaxy Zoo 2 in C:\\data\\gz2", "Galaxy Zoo 2 in gz2"),
        ("/a/images with /a/labels.csv", "images with labels.csv"),
        ("Galaxy Zoo 2 in data/gz2", "Galaxy Zoo 2 in data/gz2"),
        ("mock survey of seed 1", "mock survey of seed 1"),
        ("simulation: TNG50", "simulation: TNG50"),
        (None, None),
    ],
)
def test_folders_of_the_disk_are_not_shown(untrained, tmp_path, source, shown):
    state = load_checkpoint(untrained["gan"])
    save_checkpoint(tmp_path / "latest.pt", {**state, "provenance": {"source": source, "count": 5, "sha256": {}}})
    facts = ServedModel.load(tmp_path / "latest.pt", "cpu").facts()
    assert (facts.training_data.source, facts.training_data.count) == (shown, 5)
    assert facts.training_data.trained_on == len(state["population"]["classes"])
    origins = {"mock survey of seed 1": "mock", "simulation: TNG50": "simulated"}
    assert facts.training_data.origin == origins.get(source, "real")
    assert facts.training_data.are_mock == (source in origins)


def test_the_card_beside_a_release_is_there_to_read(untrained, tmp_path):
    state = load_checkpoint(untrained["gan"])
    state["provenance"] |= {"credit": "Survey of the Sky (Doe et al. 2001)"}
    save_checkpoint(tmp_path / "latest.pt", state)
    (tmp_path / "card.md").write_text("# gan: ein Modell für Galaxien\n", encoding="utf-8")
    model = ServedModel.load(tmp_path / "latest.pt", "cpu")
    assert model.facts().training_data.credit == "Survey of the Sky (Doe et al. 2001)"
    client = create_app([model]).test_client()
    answer = client.get(f"/{client.get('/api/model').json['models'][0]['card']}")
    assert (answer.text, answer.content_type) == ("# gan: ein Modell für Galaxien\n", "text/plain; charset=utf-8")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for unreadable in (b"\xff\xfe", b"#" * (2**20 + 1)):
        (tmp_path / "card.md").write_bytes(unreadable)
        assert ServedModel.load(tmp_path / "latest.pt", "cpu").facts().card is None
