"""Training on several ranks: two gloo processes on the CPU against one process with the doubled batch."""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.compute.ranks import Ranks
from galaxies.datasets.batches import DeviceBatches
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.metrics_log import read_metrics
from tests import kill_jobs
from tests.conftest import MODERN, fork_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo needs a resolvable host name there")

CPU = torch.device("cpu")
OPTIONS = ["--width", 4, "--latent-dim", 8, "--log-every", 2, "--seed", 3, "--dropout", 0, "--precision", "fp32"]
OPTIONS += ["--device", "cpu", "--pretrain-epochs", 1, "--epochs", 1, "--checkpoint-every", 1]


@dataclass
class StartedRanks:
    """Processes of one run, and the files that each of them speaks into."""

    processes: list[multiprocessing.Process]
    logs: list[Path]

    @classmethod
    def of(cls, number: int, logs: Path, job, *arguments: object) -> StartedRanks:
        """Start a job of `kill_jobs` on each of several ranks."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        files = [logs / f"rank{rank}.log" for rank in range(number)]
        started = [kill_jobs.start(job, rank, number, port, *arguments, files[rank]) for rank in range(number)]
        return cls(started, files)

    def said(self, rank: int) -> str:
        """Wait until a rank has ended; return what it said."""
        self.processes[rank].join(180)
        return self.logs[rank].read_text(encoding="utf-8")

    def finish(self) -> list[str]:
        """Wait until all have ended well; return what they said."""
        outputs = [self.said(rank) for rank in range(len(self.processes))]
        assert [process.exitcode for process in self.processes] == [0] * len(outputs), "\n".join(outputs)
        return outputs


def start_ranks(logs: Path, *options: object, cwd: Path) -> StartedRanks:
    return StartedRanks.of(2, logs, kill_jobs.rank, "galaxy.py", options, cwd)


def losses(folder) -> list[dict[str, float]]:
    records = read_metrics(folder / "checkpoints/r/metrics.jsonl")
    leave_out = ("images_per_s",)
    return [{k: v for k, v in r.items() if k not in leave_out} for r in records if r["kind"] == "train"]


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory, dataset_path):
    """The same run by one process with batches of 32, and by two with 16 each."""
    return train_twice(tmp_path_factory, dataset_path)


def train_twice(tmp_path_factory, dataset_path, *more):
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    options = ["--data", dataset_path, "--run", "r", *OPTIONS, *more]
    started = start_ranks(tmp_path_factory.mktemp("said"), *options, "--batch-size", 16, cwd=two)
    result = fork_script("galaxy.py", *options, "--batch-size", 32, cwd=one)
    assert result.returncode == 0, result.stderr
    return one, two, started.finish()


def test_two_ranks_do_what_one_does_with_the_doubled_batch(one_and_two):
    compare(*one_and_two)


@pytest.mark.slow
def test_two_ranks_do_what_one_does_with_every_option_of_the_gan(tmp_path_factory, dataset_path):
    options = [word for name, value in MODERN.items() for word in (f"--{name.replace('_', '-')}", value)]
    options.remove(True)  # pixel noise is a flag
    # Features of a predictor that rounding has moved, and grain on the edge of photometry's mask, make it grow quickly.
    options += ["--pretrain-learning-rate", 0, "--learning-rate", 1e-5]
    compare(*train_twice(tmp_path_factory, dataset_path, *options))


def compare(one, two, _):
    expected, found = losses(one), losses(two)
    assert len(expected) == len(found) > 3
    for number, (a, b) in enumerate(zip(expected, found, strict=True)):
        assert a.keys() == b.keys()
        # Sums in another order differ by rounding, which every step of Adam then multiplies.
        limit = {"rel": 1e-3, "abs": 1e-4} if number == 0 else {"rel": 3e-2, "abs": 2e-3}
        for key, value in a.items():
            assert b[key] == (pytest.approx(value, **limit) if isinstance(value, float) else value), key
    states = [load_checkpoint(folder / "checkpoints/r/latest.pt") for folder in (one, two)]
    for module in ("predictor", "generator"):
        for key, value in states[0]["networks"][module].items():
            torch.testing.assert_close(states[1]["networks"][module][key], value, rtol=5e-2, atol=1e-2)


def compare_norms() -> None:
    """Print whether batch normalisation that is coupled over the ranks is that of the whole batch."""
    ranks = Ranks.from_environment()
    ranks.connect(CPU)
    torch.manual_seed(0)
    images = 3 + 2 * torch.randn(8, 4, 5, 5, dtype=torch.float64)
    weights = torch.randn(8, 4, 5, 5, dtype=torch.float64)

    def results(norm, images, weights, mean):
        images = images.clone().requires_grad_()
        out = norm(images.float())
        (first,) = torch.autograd.grad((out.tanh() * weights).sum(), images, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), (images, norm.weight, norm.bias))
        return out, first, second[0], *(mean(g) * 2 for g in second[1:]), norm.running_mean, norm.running_var

    plain = torch.nn.BatchNorm2d(4)
    with torch.no_grad():
        plain.weight.copy_(torch.rand(4) + 0.5)
    coupled = ranks.couple_batch_norm(torch.nn.Sequential(plain))[0]
    assert type(coupled) is not type(plain)
    part = ranks.rows(4)
    found = results(coupled, images[part], weights[part], ranks.mean)
    expected = results(plain, images, weights, lambda g: g / 2)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b if a.shape == b.shape else b[part], rtol=1e-3, atol=1e-3, check_dtype=False)
    print("as one")


def test_coupled_batch_norm_is_that_of_the_whole_batch_to_the_second_derivative(tmp_path):
    started = StartedRanks.of(2, tmp_path, kill_jobs.function_of_rank, compare_norms)
    assert [said.strip() for said in started.finish()] == ["as one"] * 2


def test_only_rank_0_speaks_and_writes(one_and_two):
    one, two, (first, second) = one_and_two
    assert "settings:" in first
    assert second.strip() == ""
    names = [sorted(p.name for p in folder.rglob("*") if p.is_file()) for folder in (one, two)]
    assert names[0] == names[1]


def test_a_run_goes_on_with_another_number_of_ranks(one_and_two):
    _, two, _ = one_and_two
    result = fork_script("resume_training.py", "--run", "r", "--epochs", 2, cwd=two)
    assert result.returncode == 0, result.stderr
    assert load_checkpoint(two / "checkpoints/r/latest.pt")["epoch"] == 2


def test_a_lost_rank_ends_the_run_in_one_sentence(dataset_path, tmp_path):
    options = ["--data", dataset_path, "--run", "r", *OPTIONS, "--batch-size", 16]
    options[options.index("--epochs") + 1] = 500
    started = start_ranks(tmp_path, *options, cwd=tmp_path)
    first, second = started.processes
    latest = tmp_path / "checkpoints/r/epoch_0001.pt"
    end = time.monotonic() + 120
    while not latest.exists() and time.monotonic() < end and first.is_alive():
        time.sleep(0.05)
    assert latest.exists()
    second.kill()
    output = started.said(0)
    assert first.exitcode == 2, output
    assert "Traceback" not in output
    assert "lost another rank" in output and "resume_training.py --run r" in output
    load_checkpoint(tmp_path / "checkpoints/r/latest.pt")


def test_alone_everything_stays_as_it_is(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.from_environment()
    assert ranks == Ranks() and ranks.is_first
    values = torch.arange(3.0)
    assert ranks.mean(values) is values
    assert ranks.any(True, torch.device("cpu")) is True
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    assert type(ranks.couple_batch_norm(norm)[0]) is torch.nn.BatchNorm2d
    assert ranks.rows(4) == slice(0, 4)


@pytest.mark.parametrize(("rank", "size"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", "0")])
def test_bad_environment(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="torchrun"):
        Ranks.from_environment()


def test_ranks_share_every_batch(data):
    config = Config(batch_size=8)
    whole = DeviceBatches(data, "train", replace(config, batch_size=16), CPU)
    parts = [DeviceBatches(data, "train", config, CPU, Ranks(rank, 2)) for rank in range(2)]
    for batches in (whole, *parts):
        batches.start_epoch()
    assert len(whole) == len(parts[0])
    while not whole.is_over:
        first, second = (part.next_batch() for part in parts)
        assert torch.equal(torch.cat([first.images, second.images]), whole.next_batch().images)
    assert all(part.is_over for part in parts)


def test_an_epoch_goes_on_with_another_number_of_ranks(data):
    before = DeviceBatches(data, "train", Config(batch_size=8), CPU, Ranks(0, 2))
    before.start_epoch()
    before.next_batch()
    state = before.state_dict()
    alone = DeviceBatches(data, "train", Config(batch_size=8), CPU)
    alone.load_state_dict(state)
    assert alone.position == 2
    assert torch.equal(alone.next_batch().images, before.next_batch().images)
    three = DeviceBatches(data, "train", Config(batch_size=8), CPU, Ranks(2, 3))
    three.load_state_dict(state)
    seen = 0
    while not three.is_over:
        assert len(three.next_batch().images) == 8
        seen += 1
    assert seen == (len(data.rows("train")) - 16) // 24


def test_too_few_images_for_all_ranks(data):
    with pytest.raises(UserError, match="on each of 2 ranks"):
        DeviceBatches(data, "train", Config(batch_size=120), CPU, Ranks(0, 2))
