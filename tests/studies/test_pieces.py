"""A training in pieces: any number of calls, each from the files of the last one alone, come to the same weights."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

import galaxy
import resume_training
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.parts import read_parts
from galaxies.training import trainer as trainer_module
from galaxies.training.trainer import Trainer
from studies import pieces, runs, train_release
from studies.train_release import Recipe
from tests.conftest import ROOT, differences, records_of, write_dataset
from tests.validation.reports import whole
from tests.validation.test_targets import REPORT

# Of the fixture's training galaxies an epoch has 8 batches: 8 steps of the predictor, 24 of the generator.
TINY = {"gan": {"cpu": Recipe(8, 24, 16, "--width 4 --latent-dim 8 --log-every 2 --seed 3")}}
LIMIT = 50_000


class Scripts:
    """The project's scripts in this process, of which the training stops after so many steps, and two are imitated."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, list[str]]] = []
        self.steps = math.inf  # that a call takes, as if the time were up then
        self.during = None  # is called in the middle of a training
        self.unfinished: set[str] = set()  # scripts whose time is up before they end
        self.minutes: list[float] = []

    def call(self, folder, run, script, options, allowance, reserve_s):
        words = [str(word) for word in options]
        self.begun.append((script, words))
        if script in self.unfinished:
            return False
        if script == "evaluate.py":
            self._write(words, {"report.json": json.dumps(whole(REPORT)), "report.html": "<html>"})
        elif script == "release_checkpoint.py":
            self._write(words, {"card.md": "# A card", "generator.json": "{}"})
        else:
            place = words.index("--minutes")
            self.minutes.append(float(words[place + 1]))
            main = galaxy.main if script == "galaxy.py" else resume_training.main
            with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else _at(folder):
                main(words[:place])
        return True

    def _write(self, words, texts):
        folder = Path(words[words.index("--out") + 1])
        folder.mkdir(parents=True)
        for name, text in texts.items():
            (folder / name).write_text(text)


@contextlib.contextmanager
def _at(folder):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def scripts(monkeypatch):
    found = Scripts()
    agree, taken = Trainer._agree_to_stop, [0]

    def count_steps(trainer, may_wait):
        agree(trainer, may_wait)
        taken[0] += 1
        if found.during and taken[0] == 2:
            found.during()
        trainer.time_is_up = trainer.time_is_up or taken[0] >= found.steps
        return trainer.time_is_up

    def call(*arguments):
        taken[0] = 0
        return found.call(*arguments)

    # An epoch's end takes seconds, and none of the tests is about what is drawn or found then.
    monkeypatch.setattr(trainer_module, "sample_grid", lambda *_: Image.new("RGB", (8, 8)))
    monkeypatch.setattr(trainer_module, "check_samples", lambda *_: {})
    monkeypatch.setattr(trainer_module, "collapse_warnings", lambda *_: {})
    monkeypatch.setattr(Trainer, "_agree_to_stop", count_steps)
    monkeypatch.setattr(pieces, "call", call)
    monkeypatch.setattr(train_release, "FAMILIES", TINY)
    return found


@pytest.fixture
def bare(tmp_path):
    """Make a machine that has nothing but copies of some files, and return its folder of parts and its options."""
    count = [0]

    def make(files=()):
        count[0] += 1
        folder = tmp_path / f"machine-{count[0]}"
        (folder / "out").mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder / "out")
        where = ["--out", folder / "out", "--cache", folder / "cache", "--released", folder / "released"]
        return folder / "out", where

    return make


def run(where, *options, minutes=600.0):
    words = [*where, "--families", "gan", "--credit", "me", "--device", "cpu", "--file-mb", LIMIT / 1e6, *options]
    train_release.main([str(word) for word in words] + (["--minutes", str(minutes)] if minutes else []))


def state_of(out, folder):
    read_parts(out, "state", folder)
    path = folder / "checkpoints/gan/latest.pt"
    return load_checkpoint(path) if path.exists() else None


def alone(dataset_path, folder):
    """Train without interruption, and return the last checkpoint and the records."""
    words = train_release._training("gan", {"preset": "cpu", "scale": 1.0}, len_train(dataset_path))
    folder.mkdir()
    with _at(folder):
        galaxy.main([str(w) for w in ["--run", "gan", "--data", dataset_path, "--device", "cpu", *words]])
    return load_checkpoint(folder / "checkpoints/gan/latest.pt"), records_of(folder / "checkpoints/gan")


def len_train(path):
    return len(PreparedDataset.open(path).rows("train"))


def test_calls_from_bare_folders_come_to_the_weights_of_one_run(dataset_path, tmp_path, scripts, bare, capsys):
    whole_run, records = alone(dataset_path, tmp_path / "alone")
    scripts.steps, scripts.unfinished = 13, {"evaluate.py"}
    out, where = bare()
    run(where, "--data", dataset_path)
    places = []
    for k in range(3):
        if k > 0:
            out, where = bare(left)  # noqa: F821 - of the round before
            run(where)  # the data are among the files
        left = sorted(out.iterdir())
        assert all(path.is_file() and path.stat().st_size <= LIMIT for path in left)
        assert not any(path.name.startswith(".") for path in left)
        state = state_of(out, tmp_path / f"state-{k}")
        places.append((state["phase"], state["step"]))
        said = capsys.readouterr().out
        assert f"{len(left)} files in" in said
        assert ("gan: trained, report and release to come" if k == 2 else "more call") in said
    assert places == [("generator", 5), ("generator", 18), ("generator", 24)]
    assert [script for script, _ in scripts.begun] == ["galaxy.py", *["resume_training.py"] * 2, "evaluate.py"]
    assert state["networks"].keys() == {"generator", "predictor"} and "optimizers" not in state
    wanted = pieces._without_training(whole_run)
    same = ("networks", "ema", "phase", "epoch", "step", "metrics", "population", "attributes", "warnings", "skipped")
    assert differences({n: wanted[n] for n in same}, {n: state[n] for n in same}) == []
    assert records_of(tmp_path / "state-2/checkpoints/gan") == records

    # The report is begun once more, and the release follows; all of it is carried, and put in place at the end.
    scripts.begun.clear()
    scripts.unfinished = {"release_checkpoint.py"}
    out, where = bare(left)
    run(where)
    scripts.unfinished = set()
    out, where = bare(out.iterdir())
    run(where)
    assert "gan: released\nall is done" in capsys.readouterr().out
    assert state_of(out, tmp_path / "state-4") is None
    out, where = bare(out.iterdir())
    run(where, "--finish", minutes=None)
    assert [name for name, _ in scripts.begun] == ["evaluate.py", "release_checkpoint.py", "release_checkpoint.py"]
    for folder, name in ((out.parent / "released/gan", "card.md"), (out / "reports/gan", "report.html")):
        assert (folder / name).exists()
    assert "| ellipticity, photometry: MAE | ≤ 0.05 |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_files_do_not_grow_with_the_calls(dataset_path, tmp_path, scripts, bare, monkeypatch):
    recipe = TINY["gan"]["cpu"]
    monkeypatch.setattr(train_release, "FAMILIES", {"gan": {"cpu": dataclasses.replace(recipe, steps=64)}})
    scripts.steps = 15
    out, where = bare()
    run(where, "--data", dataset_path)
    sizes, grids = [], []
    for k in range(4):
        files = list(out.iterdir())
        sizes.append(sum(path.stat().st_size for path in files))
        state_of(out, tmp_path / f"state-{k}")
        grids.append(sorted(path.name for path in (tmp_path / f"state-{k}/samples/gan").glob("*")))
        assert len(list((tmp_path / f"state-{k}/checkpoints/gan").iterdir())) == 2  # latest.pt and metrics.jsonl
        out, where = bare(files)
        run(where)
    # Of an epoch each; the last call but one has come to the sixth.
    assert grids == [[], [f"epoch_{n:04d}.png" for n in (1, 2)], ["epoch_0003.png", "epoch_0004.png"], grids[3]]
    assert grids[3] == ["epoch_0005.png", "epoch_0006.png"]
    assert sizes[3] < 1.2 * sizes[2]


def test_a_call_that_is_killed_loses_what_it_did_and_no_more(dataset_path, tmp_path, scripts, bare):
    scripts.steps = 6
    out, where = bare()
    run(where, "--data", dataset_path)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    copied = tmp_path / "as it was"
    scripts.during = lambda: shutil.copytree(out, copied)
    run(where)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    assert {path.name for path in out.iterdir()} != before.keys()
    scripts.during = None
    ends = []
    for files in (copied, out):
        other, where = bare(files.iterdir())
        scripts.steps = 12 if files == copied else 6
        run(where)
        ends.append(state_of(other, tmp_path / f"state-{len(ends)}"))
    same = ("networks", "optimizers", "ema", "random", "batches", "meters", "step")
    assert differences(*({name: state[name] for name in same} for state in ends)) == []


def test_data_may_come_packed_from_a_folder_of_their_own_and_are_unpacked_once(dataset_path, tmp_path, scripts, bare):
    packed = tmp_path / "packed"
    train_release.main(["--pack", "--data", str(dataset_path), "--out", str(packed), "--file-mb", "0.1"])
    assert all(path.stat().st_size <= 100_000 for path in packed.iterdir())
    out, where = bare()
    scripts.steps = 2
    for _ in range(2):
        run(where, "--data", packed)
        (unpacked,) = (out.parent / "cache").iterdir()
        made = (unpacked / "images.npy").stat().st_mtime_ns
    assert (unpacked / "images.npy").stat().st_mtime_ns == made
    assert not any(path.name.startswith("data") for path in out.iterdir())
    # One that has been changed is not used.
    (unpacked / "catalogue.csv").write_text("changed")
    run(where, "--data", packed)
    PreparedDataset.open(unpacked)


def test_the_judge_is_carried(dataset_path, scripts, bare):
    out, where = bare()
    scripts.steps = 2
    run(where, "--data", dataset_path)
    out, where = bare(out.iterdir())
    scripts.during = lambda: next((out.parent / "cache").iterdir()).joinpath("judge-1.pt").write_bytes(b"taught")
    run(where)
    scripts.during = None
    out, where = bare(out.iterdir())
    run(where)
    assert next((out.parent / "cache").iterdir()).joinpath("judge-1.pt").read_bytes() == b"taught"


@pytest.mark.parametrize("damage", ["state", "data"])
def test_a_missing_or_damaged_part_is_one_sentence(dataset_path, scripts, bare, damage):
    out, where = bare()
    scripts.steps = 2
    run(where, "--data", dataset_path)
    part = sorted(out.glob(f"{damage}_*.part"))[1]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{part.name} is damaged"):
        run(where)
    part.unlink()
    with pytest.raises(UserError, match=rf"{part.name} is missing: copy all files"):
        run(where)


def test_what_was_begun_otherwise_is_refused(dataset_path, tmp_path, scripts, bare):
    out, where = bare()
    scripts.steps = 2
    run(where, "--data", dataset_path)
    before = sorted(out.iterdir())
    for change, name in ((("--scale", 2), "scale"), (("--preset", "gpu"), "preset"), (("--count", 50), "count")):
        with pytest.raises(UserError, match=f"{out} was begun with another {name}: choose another --out"):
            run(where, *change)
    with pytest.raises(UserError, match="was begun with another data_sha256"):
        run(where, "--data", write_dataset(tmp_path / "other", count=40, seed=5))
    assert [path for path in sorted(out.iterdir()) if path.name.startswith("state")] == [
        path for path in before if path.name.startswith("state")
    ]


def test_what_cannot_be_finished_or_begun_is_one_sentence(dataset_path, scripts, bare):
    _, where = bare()
    with pytest.raises(UserError, match=r"out holds no packed data: name a dataset with --data"):
        run(where)
    scripts.steps = 2
    run(where, "--data", dataset_path)
    with pytest.raises(UserError, match=r"gan: step 2 of 8 of phase 1.*not trained to its end: go on with --minutes"):
        run(where, "--finish", minutes=None)
    with pytest.raises(UserError, match="minutes are too few to begin anything: give more --minutes"):
        run(where, minutes=1e-5)
    scripts.unfinished = {"resume_training.py"}
    with pytest.raises(UserError, match=r"not one step of gan was saved in .* minutes of training: give more"):
        run(where)


def test_a_report_that_does_not_fit_twice_is_one_sentence(dataset_path, scripts, bare):
    scripts.unfinished = {"evaluate.py"}
    out, where = bare()
    run(where, "--data", dataset_path)  # the training, which left nearly all of the time for the report
    with pytest.raises(UserError, match="the report of gan took more than a call of 600 minutes twice"):
        run(where)
    scripts.unfinished = set()
    run(where, "--finish", minutes=None)
    assert (out.parent / "released/gan/card.md").exists()


def test_a_script_that_fails_leaves_its_log(dataset_path, bare, monkeypatch):
    recipe = {"gan": {"cpu": Recipe(8, 24, 16, "--width 4 --no-such-option")}}
    monkeypatch.setattr(train_release, "FAMILIES", recipe)
    out, where = bare()
    with pytest.raises(UserError, match=r"galaxy.py failed on gan .*galaxy.py: error: unrecognized") as raised:
        run(where, "--data", dataset_path)
    assert f"(all of it is in {out / 'gan.log'})" in str(raised.value)
    assert "unrecognized arguments: --no-such-option" in (out / "gan.log").read_text()


def test_a_log_goes_once_all_is_well(dataset_path, scripts, bare):
    out, where = bare()
    (out / "gan.log").write_text("what failed the last time")
    scripts.steps = 2
    run(where, "--data", dataset_path)
    assert not (out / "gan.log").exists()


def test_a_family_begins_with_a_call_of_its_own(dataset_path, scripts, bare, monkeypatch):
    monkeypatch.setattr(train_release, "FAMILIES", dict.fromkeys(("gan", "second"), TINY["gan"]))
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    _, where = bare()
    real = scripts.call

    def call(folder, name, script, options, allowance, reserve_s):
        done = real(folder, name, script, options, allowance, reserve_s)
        now[0] += 120 if script == "evaluate.py" else 60
        return done

    monkeypatch.setattr(scripts, "call", call)
    both = [str(word) for word in [*where, "--credit", "me", "--device", "cpu", "--minutes", "9"]]
    train_release.main([*both, "--data", str(dataset_path)])
    assert [script for script, _ in scripts.begun] == ["galaxy.py", "evaluate.py", "release_checkpoint.py"]
    scripts.begun.clear()
    train_release.main(both)
    assert [script for script, _ in scripts.begun] == ["galaxy.py", "evaluate.py", "release_checkpoint.py"]
    assert "second" in scripts.begun[0][1]


# The time


def test_the_time_of_saving_is_kept_back(dataset_path, scripts, bare):
    _, where = bare()
    scripts.steps = 2
    run(where, "--data", dataset_path, minutes=9.0)
    assert 7.5 < scripts.minutes[0] < 9 - (8 + 15) / 60  # eight seconds for the parts, fifteen for a script's end


@pytest.mark.parametrize(("seconds", "reserve", "wanted"), [(30, 0, 0), (0.5, 0, None), (10, 9.5, None)])
def test_a_script_is_ended_before_the_time_is_up(seconds, reserve, wanted):
    started = time.monotonic()
    allowance = runs.Allowance(seconds / 60, started)
    sleep = 60 if wanted is None else 0
    assert allowance.run([sys.executable, "-c", f"import time; time.sleep({sleep})"], reserve) == wanted
    assert time.monotonic() - started < (30 if wanted == 0 else seconds - reserve + 5)


@pytest.mark.skipif(os.name == "nt", reason="Windows tells the script itself")
@pytest.mark.parametrize("saves", [True, False])
def test_a_signal_is_passed_on_once(tmp_path, saves):
    code = "import pathlib, signal, sys, time; heard = []; signal.signal(signal.SIGTERM, lambda *_: heard.append(1))\n"
    code += "pathlib.Path('ready').touch()\nwhile not heard: time.sleep(0.01)\n"
    code += f"pathlib.Path('heard').write_text(str(len(heard)))\nsys.exit({0 if saves else 130})"
    allowance = runs.Allowance(1, time.monotonic())
    after = threading.Thread(target=lambda: wait_for(tmp_path / "ready") and allowance.request_stop())
    after.start()
    assert allowance.run([sys.executable, "-c", code], 0, cwd=tmp_path) == (0 if saves else None)
    after.join()
    assert (tmp_path / "heard").read_text() == "1"
    assert allowance.run([sys.executable, "-c", ""], 0) is None  # and none begins after it


def wait_for(path, seconds=60):
    until = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    return path.exists()


STARTED_BY_HAND = """
import sys
from galaxies.command_line import run_script
from studies import train_release
long = train_release.Recipe(8, 100_000, 16, "--width 4 --latent-dim 8 --log-every 2")
train_release.FAMILIES["gan"]["cpu"] = long
run_script(train_release.main)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signal to one process")
def test_the_script_stops_cleanly_at_a_signal_and_goes_on(dataset_path, tmp_path):
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    words = ["--families", "gan", "--credit", "me", "--device", "cpu", "--minutes", "5", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)}

    def begin(*more):
        command = [sys.executable, "-c", STARTED_BY_HAND, *words, *more]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    process = begin("--data", str(dataset_path))
    until = time.monotonic() + 120
    while not any(scratch.glob("galaxy-release-*/checkpoints/gan/latest.pt")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "stopped and saved: the same command goes on"
    state = state_of(out, tmp_path / "state")
    assert state["phase"] == "generator" and state["step"] > 0
    assert {path.name for path in scratch.iterdir()} <= {"galaxy-data"}
