"""The folder of a run: which checkpoints stay, which one a run goes on from, and who may write."""

from __future__ import annotations

import dataclasses
import shutil
from collections import namedtuple

import pytest

import galaxy
import resume_training
from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.storage.checkpoint import link_checkpoint, load_checkpoint, save_checkpoint
from galaxies.storage.run_folder import check_space, clean_up, hold_run, kept_epochs, load_run, save_epoch, save_latest
from galaxies.storage.schema import RUN_STATE
from tests.conftest import TINY


@pytest.fixture(scope="module")
def content(trained):
    """Make the content of a checkpoint of a certain epoch."""
    state = load_checkpoint(trained / "checkpoints/tiny/latest.pt")
    config = state["config"] | {"epochs": 1000}
    return lambda number: {**state, "config": config, "epoch": number, "step": 8 * number}


def names(folder) -> set[str]:
    return {p.name for p in folder.iterdir()}


# What stays


def test_every_tenth_epoch_and_the_last_three_stay():
    assert kept_epochs(range(1, 38)) == {10, 20, 30, 35, 36, 37}
    assert kept_epochs(range(10, 160, 10)) == set(range(10, 160, 10))
    assert kept_epochs([1, 2]) == {1, 2}


def test_saving_epochs_removes_those_that_need_not_stay(tmp_path, content):
    for epoch in range(1, 13):
        save_epoch(tmp_path, epoch, content(epoch))
        assert load_checkpoint(tmp_path / "latest.pt")["epoch"] == epoch
    kept = {"epoch_0010.pt", "epoch_0011.pt", "epoch_0012.pt", "latest.pt", "previous.pt"}
    assert names(tmp_path) == kept
    assert load_checkpoint(tmp_path / "previous.pt")["epoch"] == 11


def test_copies_under_other_names_stay(tmp_path, content):
    copies = (
        "epoch_0001_best.pt",
        "epoch_1.pt",
        "epoch_0002 (copy).pt",
        "epoch_0001.pt.bak",
        "epoch_٠٠٠١.pt",
        "best.pt",
    )
    for name in copies:
        (tmp_path / name).write_text("years of work")
    for epoch in range(1, 6):
        save_epoch(tmp_path, epoch, content(epoch))
    assert {name: (tmp_path / name).read_text() for name in copies} == dict.fromkeys(copies, "years of work")
    assert names(tmp_path) == {*copies, "latest.pt", "previous.pt", *(f"epoch_000{k}.pt" for k in (3, 4, 5))}


def test_epochs_of_an_abandoned_future_are_left_alone(tmp_path, content):
    for epoch in (5, 6, 7):
        save_epoch(tmp_path, epoch, content(epoch))
    for epoch in range(1, 5):  # gone back to an early checkpoint
        save_epoch(tmp_path, epoch, content(epoch))
    assert {f"epoch_000{epoch}.pt" for epoch in (2, 3, 4, 5, 6, 7)} <= names(tmp_path)


def test_latest_goes_on_to_be_the_previous_one(tmp_path, content):
    for number in (1, 2, 3):
        save_latest(tmp_path, content(number))
    assert [load_checkpoint(tmp_path / f"{name}.pt")["epoch"] for name in ("latest", "previous")] == [3, 2]
    assert names(tmp_path) == {"latest.pt", "previous.pt"}


def test_a_second_name_for_the_same_checkpoint_leaves_no_third(tmp_path, content):
    save_checkpoint(tmp_path / "a.pt", content(1))
    for _ in range(2):
        link_checkpoint(tmp_path / "a.pt", "b.pt")
    assert names(tmp_path) == {"a.pt", "b.pt"}


def test_temporary_files_are_removed_and_others_not(tmp_path):
    for name in (".latest.pt.1.tmp", ".metrics.jsonl.tmp", "notes.tmp", "latest.pt"):
        (tmp_path / name).write_text("")
    clean_up(tmp_path, tmp_path / "not there")
    assert names(tmp_path) == {"notes.tmp", "latest.pt"}


# The one to go on from


def damage(path) -> None:
    # In a new file, since a hard link would be damaged with it.
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


@pytest.fixture
def saved(tmp_path, content):
    save_epoch(tmp_path, 1, content(1))
    save_epoch(tmp_path, 2, content(2))
    save_latest(tmp_path, content(3))
    save_latest(tmp_path, content(4))
    return tmp_path


def test_the_newest_good_checkpoint_is_taken_in_silence(saved, capsys):
    path, state = load_run(saved)
    assert (path.name, state["epoch"]) == ("latest.pt", 4)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "bad, taken, epoch",
    [
        (["latest.pt"], "previous.pt", 3),
        (["latest.pt", "previous.pt"], "epoch_0002.pt", 2),
        (["latest.pt", "previous.pt", "epoch_0002.pt"], "epoch_0001.pt", 1),
    ],
)
def test_damaged_checkpoints_are_passed_over(saved, capsys, bad, taken, epoch):
    for name in bad:
        damage(saved / name)
    damaged = (saved / "latest.pt").read_bytes()
    path, state = load_run(saved)
    assert (path.name, state["epoch"]) == (taken, epoch)
    said = capsys.readouterr().out
    assert all(str(saved / name) in said for name in bad) and f"going back to {saved / taken}" in said
    assert len(said.splitlines()) == 1
    # What is saved next must not push the last good one out.
    assert load_checkpoint(saved / "latest.pt")["epoch"] == epoch
    assert (saved / "damaged.pt").read_bytes() == damaged


def test_a_missing_latest_is_no_end(saved, capsys):
    (saved / "latest.pt").unlink()
    assert load_run(saved)[1]["epoch"] == 3
    assert "latest.pt is missing: going back to" in capsys.readouterr().out


def test_no_good_checkpoint_is_one_sentence(saved):
    for path in saved.glob("*.pt"):
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"has no good checkpoint left: .*latest\.pt is damaged"):
        load_run(saved)
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_run(saved / "elsewhere")


def test_a_newer_release_is_no_damage(saved, content, monkeypatch):
    monkeypatch.setattr("galaxies.storage.checkpoint.FORMAT_VERSION", 99)
    save_latest(saved, content(5))
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format version 99 and this program reads 11 and older"):
        load_run(saved)


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    save_checkpoint(tmp_path / "judge.pt", {"judge": [1, "x"], "network": {}})
    with pytest.raises(UserError, match=r"judge\.pt is no checkpoint of a training run"):
        load_checkpoint(tmp_path / "judge.pt", RUN_STATE)


# Who may write


def test_a_run_is_held_by_one_process(tmp_path):
    run = tmp_path / "checkpoints" / "first"
    with hold_run(run), pytest.raises(UserError, match="run first is in use by another process"), hold_run(run):
        pass
    assert not run.exists()  # nothing was written into it
    with hold_run(run):
        (run / "latest.pt").write_text("")
    assert names(run) == {"latest.pt"}


def test_only_the_first_of_several_ranks_holds_a_run(tmp_path, monkeypatch):
    with hold_run(tmp_path / "r"):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with hold_run(tmp_path / "r"):
            pass
        assert (tmp_path / "r").exists()


def test_a_run_that_is_being_trained_is_left_alone(trained, dataset_path, monkeypatch):
    monkeypatch.chdir(trained)
    before = {p.name: p.read_bytes() for p in (trained / "checkpoints/tiny").iterdir()}
    with hold_run(trained / "checkpoints/tiny"), pytest.raises(UserError, match="run tiny is in use"):
        resume_training.main(["--run", "tiny", "--epochs", "3"])
    with hold_run(trained / "checkpoints/new"), pytest.raises(UserError, match="run new is in use"):
        galaxy.main(["--data", str(dataset_path), "--run", "new", *TINY, "--pretrain-epochs", "1", "--epochs", "1"])
    assert {p.name: p.read_bytes() for p in (trained / "checkpoints/tiny").iterdir()} == before
    assert names(trained / "checkpoints") == {"tiny"}


def test_a_run_without_its_latest_checkpoint_is_not_begun_again(trained, dataset_path, tmp_path, monkeypatch):
    run = tmp_path / "checkpoints/tiny"
    shutil.copytree(trained / "checkpoints/tiny", run)
    (run / "latest.pt").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run tiny exists: go on with"):
        galaxy.main(["--data", str(dataset_path), "--run", "tiny", *TINY])


# Room on the disk


@pytest.fixture
def tiny_state(trained):
    return load_checkpoint(trained / "checkpoints/tiny/latest.pt")


def set_free(monkeypatch, num_bytes: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, num_bytes))


def needed(config, state, tmp_path, monkeypatch) -> int:
    """Return the free bytes that `check_space` asks for, by halving."""
    low, high = 0, 10**12
    while high - low > 1000:
        middle = (low + high) // 2
        set_free(monkeypatch, middle)
        try:
            check_space(config, state, tmp_path / "c" / "r", tmp_path / "s" / "r")
            high = middle
        except UserError:
            low = middle
    return high


def test_a_run_that_does_not_fit_is_refused(tiny_state, tmp_path, monkeypatch):
    config = dataclasses.replace(Config.from_dict(tiny_state["config"]), epochs=1000)
    set_free(monkeypatch, 20_000_000)
    with pytest.raises(UserError, match=r"run tiny writes up to .* GB \(\d+ checkpoints, 998 sample grids\)"):
        check_space(config, {**tiny_state, "epoch": 2}, tmp_path / "c", tmp_path / "s")
    set_free(monkeypatch, 10**11)
    check_space(config, tiny_state, tmp_path / "c", tmp_path / "s")


def test_the_estimate_holds_what_a_run_writes(trained, tiny_state, tmp_path, monkeypatch):
    config = Config.from_dict(tiny_state["config"])
    # As before the first step: the optimisers know nothing of the weights yet.
    start = {**tiny_state, "phase": "predictor", "epoch": 0, "optimizers": {}, "metrics": []}
    asked = needed(config, start, tmp_path, monkeypatch)
    files = [p for folder in ("checkpoints", "samples") for p in (trained / folder / "tiny").iterdir()]
    written = sum(p.stat().st_size for p in files)
    assert written < asked < 20 * written + 20_000_000
    assert needed(config, tiny_state, tmp_path, monkeypatch) < asked  # less is left to be done


def test_it_is_refused_before_anything_is_written(dataset_path, tmp_path, monkeypatch):
    set_free(monkeypatch, 1000)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="make room"):
        galaxy.main(["--data", str(dataset_path), "--run", "big", *TINY])
    assert list(tmp_path.iterdir()) == []
