"""SIGKILL at any moment: a final name is always that of the old or of the new state, and work goes on from it."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest

from galaxies.common.durable_files import sha256_of
from galaxies.datasets.prepared import PreparedDataset
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.run_folder import clean_up, load_run
from tests import kill_jobs
from tests.conftest import TINY, differences, records_of, write_dataset

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has neither SIGKILL nor a fork server")
slow = pytest.mark.slow
FIXED = ("latest.pt", "previous.pt")


def number_of(path) -> int:
    """Return which state a checkpoint holds, after a look at all of it."""
    state = load_checkpoint(path)
    values = state["population"]["values"]
    (number,) = {state["epoch"], state["step"], int(values.min()), int(values.max())}
    return number


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=slow)])
def test_kills_at_random_moments_of_saving(tmp_path, kills, count):
    delays = random.Random(5)
    reached, while_saving = 0, 0
    for _ in range(kills):
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = kill_jobs.start(kill_jobs.save_for_ever, tmp_path, reached, theirs)
        theirs.close()
        assert ours.poll(60)
        time.sleep(delays.uniform(0, 0.12))
        process.kill()
        process.join()
        reports = []
        while True:
            try:
                reports.append(ours.recv())
            except EOFError:
                break
        ours.close()
        begun, done = -min(reports), max([reached, *(r for r in reports if r > 0)])
        numbers = {path.name: number_of(path) for path in tmp_path.glob("[!.]*.pt")}
        good = not numbers or numbers["latest.pt"] in (done, begun)
        good = good and all(n <= begun and name in (f"epoch_{n:04d}.pt", *FIXED) for name, n in numbers.items())
        count("SIGKILLs while checkpoints were overwritten", good)
        if begun > done:
            while_saving += 1
            count("SIGKILLs while checkpoints were overwritten, those in the middle of a save", good)
        assert good, (numbers, done, begun)
        reached = numbers.get("latest.pt", 0)
    assert while_saving > kills / 4
    clean_up(tmp_path)
    assert [p.name for p in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("trials", [4, pytest.param(200, marks=slow)])
@pytest.mark.parametrize("kind", ["latest", "epoch"])
def test_a_kill_before_every_operation_of_a_save(tmp_path, kind, trials, count):
    source = tmp_path / "source"
    for number in (27, 28, 29):
        kill_jobs.save_once("epoch", source, number)
    for operation in kill_jobs.moments_of_a_save(kind, shutil.copytree(source, tmp_path / "counted"), trials):
        run = shutil.copytree(source, tmp_path / f"run{operation}")
        status = kill_jobs.run_to_end(kill_jobs.die_at, operation, kill_jobs.save_once, kind, run, 30)
        latest = number_of(run / "latest.pt")
        good = latest in (29, 30) and all(number_of(path) > 26 for path in run.glob("*.pt"))
        good = good and load_run(run)[1]["epoch"] == latest
        count("SIGKILLs before each operation of a save", good)
        assert good, (operation, latest)
    assert status == 0 and operation >= 14 and latest == 30  # the last one came to its end


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=slow)])
def test_a_kill_before_every_operation_of_preparing_data(tmp_path, stride, count):
    source = tmp_path / "source"
    kill_jobs.write_dataset(source, 1)
    levels = []
    for operation in range(0, 200, stride):
        out = shutil.copytree(source, tmp_path / f"o{operation}" / "out")
        status = kill_jobs.run_to_end(kill_jobs.die_at, operation, kill_jobs.write_dataset, out, 2)
        # Between two renames there is no dataset; the same command finds the old one and puts it back.
        levels.append(int(PreparedDataset.open(out).images.max()) if out.exists() else None)
        if not out.exists():
            assert [p.name[:14] for p in out.parent.glob(".out.replaced*")] == [".out.replaced-"]
        kill_jobs.write_dataset(out, 3)
        good = [p.name for p in out.parent.iterdir()] == ["out"] and PreparedDataset.open(out).images.max() == 3
        count("SIGKILLs before each operation of preparing data, and prepared again", good)
        assert good and levels[-1] in (1, 2, None)
        if status == 0:
            break
    assert levels[0] == 1 and levels[-1] == 2 and levels.count(None) <= 1


def wait_for(condition, process) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert process.is_alive() and time.monotonic() < until
        time.sleep(0.005)


def test_two_runs_of_one_name_and_a_kill_and_a_stop(dataset_path, tmp_path):
    long = ["--data", dataset_path, "--run", "k", *TINY, "--pretrain-epochs", 200, "--epochs", 1]
    log, second_log = tmp_path / "log", tmp_path / "second.log"
    metrics = tmp_path / "checkpoints/k/metrics.jsonl"

    def trains() -> bool:
        return metrics.exists() and '"train"' in metrics.read_text()

    first = kill_jobs.start(kill_jobs.script, "galaxy.py", long, tmp_path, log)
    wait_for(trains, first)
    os.kill(first.pid, signal.SIGSTOP)  # it holds the run, and takes no time from the second one
    assert kill_jobs.run_to_end(kill_jobs.script, "galaxy.py", long, tmp_path, second_log) == 2
    said = second_log.read_text().splitlines()
    assert said[-1] == "galaxy.py: error: run k is in use by another process: wait, or choose another run"
    first.kill()
    first.join()
    assert (tmp_path / "checkpoints/k/.lock").exists()  # left behind, and it holds nobody up
    metrics.unlink()
    again = kill_jobs.start(kill_jobs.script, "galaxy.py", long, tmp_path, log)
    wait_for(trains, again)
    again.terminate()  # SIGTERM, after which it saves
    again.join()
    assert again.exitcode == 130, log.read_text()
    state = load_checkpoint(tmp_path / "checkpoints/k/latest.pt")
    assert state["phase"] == "predictor" and state["step"] >= 2
    assert {p.name for p in (tmp_path / "checkpoints/k").iterdir()} == {"latest.pt", "metrics.jsonl"}


def records(folder) -> list[dict]:
    return records_of(folder / "checkpoints/k")


@slow
def test_kills_at_random_moments_of_a_run(tmp_path, count):
    data = write_dataset(tmp_path / "data", 64)
    options = ["--data", data, "--run", "k", *TINY, "--pretrain-epochs", 2, "--epochs", 4, "--checkpoint-every", 1]

    def train(folder, script="galaxy.py", argv=options):
        return kill_jobs.start(kill_jobs.script, script, argv, folder, folder / "log")

    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    process = train(whole)
    process.join()
    duration = time.monotonic() - began
    assert process.exitcode == 0
    moments = random.Random(7)
    for trial in range(20):
        folder = tmp_path / f"run{trial}"
        folder.mkdir()
        process = train(folder)
        time.sleep(moments.uniform(0.1, 0.95) * duration)
        process.kill()
        process.join()
        run = folder / "checkpoints/k"
        for path in run.glob("[!.]*.pt"):
            load_checkpoint(path)
        again = ("resume_training.py", ["--run", "k"]) if any(run.glob("*.pt")) else ("galaxy.py", options)
        if process.exitcode != 0:
            process = train(folder, *again)
            process.join()
        found = differences(load_checkpoint(run / "latest.pt"), load_checkpoint(whole / "checkpoints/k/latest.pt"))
        left = [p for part in ("checkpoints/k", "samples/k") for p in (folder / part).glob(".*")]
        good = process.exitcode == 0 and not found and records(folder) == records(whole) and not left
        count("SIGKILLs of a run at random moments, resumed to the same bits", good)
        assert good, (trial, process.exitcode, found[:3], left, (folder / "log").read_text()[-500:])


@slow
@pytest.mark.parametrize("kind", ["dataset", "release"])
def test_kills_at_random_moments_of_preparing_data(tmp_path, kind, count):
    def prepare(seed):
        argv = ["simulated", "--count", 16 if kind == "dataset" else 4, "--seed", seed, "--out", "out", "--overwrite"]
        argv += ["--as-gz2", "files"] if kind == "release" else []
        return kill_jobs.start(kill_jobs.script, "prepare_data.py", argv, tmp_path, tmp_path / "log")

    began = time.monotonic()
    process = prepare(0)
    process.join()
    duration = time.monotonic() - began
    assert process.exitcode == 0, (tmp_path / "log").read_text()
    names = {"out", "log", *(["files"] if kind == "release" else [])}
    moments = random.Random(11)
    old = sha256_of(tmp_path / "out/images.npy")
    for trial in range(20 if kind == "dataset" else 10):
        process = prepare(trial + 1)
        time.sleep(moments.uniform(0.05, 1.0) * duration)
        process.kill()
        process.join()
        PreparedDataset.open(tmp_path / "out")  # the old or the new one, whole
        new = sha256_of(tmp_path / "out/images.npy")
        process = prepare(trial + 1)
        process.join()
        PreparedDataset.open(tmp_path / "out")
        final = sha256_of(tmp_path / "out/images.npy")
        good = process.exitcode == 0 and new in (old, final) and {p.name for p in tmp_path.iterdir()} == names
        count(f"SIGKILLs while a {kind} was prepared, and prepared again", good)
        assert good, (trial, [p.name for p in tmp_path.iterdir()], (tmp_path / "log").read_text()[-500:])
        old = final
