"""Work for processes that tests kill: started from a server that has loaded torch already, so each takes no time."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

PRELOAD = ["tests.kill_jobs", "galaxies.training.trainer", "galaxy", "resume_training", "prepare_data"]
PRELOAD += ["galaxies.mock_survey.writing", "galaxies.storage.run_folder", "generate_from_checkpoint"]
PRELOAD += ["galaxies.generation.shards", "galaxies.generation.catalogue", "observe", "galaxies.mock_field.making"]
PRELOAD += ["matplotlib.figure", "matplotlib.backends.backend_agg"]  # of the curves at the end of a training


def start(job, *arguments: object) -> multiprocessing.Process:
    """Start a job in a process of its own: forked from a server, without anything that the tests have done so far."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=job, args=arguments)
    process.start()
    return process


def run_to_end(job, *arguments: object, timeout: float = 240) -> int:
    """Run a job and return its exit status."""
    process = start(job, *arguments)
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("the job did not end")
    return process.exitcode


def script(
    name: str,
    argv: Sequence[object],
    folder: Path,
    log: Path | Connection,
    largest_file: int | None = None,
    errors: Path | None = None,
) -> None:
    """Run a script of the project in `folder`; what it prints goes into `log`, a file or a pipe.

    With `largest_file` the disk is full for it: no file may grow beyond that many bytes. With `errors` standard error
    has a file of its own.
    """
    output = _opened(log)
    for stream, descriptor in ((1, output), (2, output if errors is None else _opened(errors))):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (io.open(s, "w", encoding="utf-8", closefd=False) for s in (1, 2))  # noqa: UP020, SIM115
    os.chdir(folder)
    import torch

    torch.set_num_threads(1)
    main = import_module(name.removesuffix(".py")).main
    from galaxies.command_line import run_script

    if largest_file is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = [name]
    run_script(lambda _: main([str(word) for word in argv]))


def rank(number: int, of: int, port: int, *arguments: object) -> None:
    """Do as `script`, as one of the processes that torchrun starts."""
    _become_rank(number, of, port)
    script(*arguments)


def function_of_rank(number: int, of: int, port: int, function: Callable[[], None], log: Path) -> None:
    """Call a function as one of the processes that torchrun starts; what it prints goes into `log`."""
    _become_rank(number, of, port)
    for stream in (1, 2):
        os.dup2(_opened(log), stream)
    sys.stdout, sys.stderr = (io.open(s, "w", encoding="utf-8", closefd=False) for s in (1, 2))  # noqa: UP020, SIM115
    function()


def _become_rank(number: int, of: int, port: int) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update({"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(of), **where})


def _opened(log: Path | Connection) -> int:
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if isinstance(log, Path) else log.fileno()


def checkpoint_content(number: int) -> dict:
    """Return the state of an untrained run whose epoch, step and every value of a galaxy tell which one it is."""
    import torch

    state = _untrained()
    values = torch.full_like(state["population"]["values"], number)
    return {**state, "epoch": number, "step": number, "population": {**state["population"], "values": values}}


@cache
def _untrained() -> dict:
    """Return the state of a run of the smallest networks before its first step."""
    import numpy as np
    import pandas as pd

    from config_physics import MORPHOLOGY_NAMES, Config
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.training.trainer import Trainer

    images = np.arange(16, dtype=np.uint8).repeat(3 * 64 * 64).reshape(16, 3, 64, 64)
    attributes = {name: np.linspace(0.1, 0.9, 16) for name in Config.attributes}
    rows = {"object_id": list(map(str, range(16))), "morphology": MORPHOLOGY_NAMES * 4, "split": "train", **attributes}
    manifest = {"source": "grey", "count": 16, "counts": {}, "sha256": {}}
    data = PreparedDataset(Path("grey"), images, pd.DataFrame(rows), manifest)
    config = Config(width=4, latent_dim=3, batch_size=4, pretrain_epochs=100_000, run="r", device="cpu", data="grey")
    with tempfile.TemporaryDirectory() as folder:
        return Trainer(config, data, Path(folder, "c"), Path(folder, "s")).state_dict()


def save_for_ever(folder: Path, number: int, connection: Connection) -> None:
    """Save checkpoint after checkpoint of a run, and report each that is done."""
    from galaxies.storage.run_folder import clean_up, save_epoch, save_latest

    clean_up(folder)
    while True:
        number += 1
        state = checkpoint_content(number)
        connection.send(-number)
        if number % 3 == 0:
            save_epoch(folder, number, state)
        else:
            save_latest(folder, state)
        connection.send(number)


_OPERATIONS = ((os, "fsync"), (os, "link"), (Path, "open"), (Path, "replace"), (Path, "rename"), (Path, "unlink"))


@contextmanager
def before_each_operation(act: Callable[[str], None]) -> Iterator[None]:
    """Call `act` before each operation on the disk, and after each half of what is written into a binary file."""
    real = {(owner, name): getattr(owner, name) for owner, name in _OPERATIONS}

    def watched(name, function):
        def call(*arguments, **options):
            act(name)
            result = function(*arguments, **options)
            mode = next((a for a in arguments if isinstance(a, str)), "r") if name == "open" else "r"
            return _HalfWriter(result, act) if mode == "wb" else result

        return call

    for (owner, name), function in real.items():
        setattr(owner, name, watched(name, function))
    try:
        yield
    finally:
        for (owner, name), function in real.items():
            setattr(owner, name, function)


class _HalfWriter:
    """A file that writes everything in two halves."""

    def __init__(self, file, act: Callable[[str], None]) -> None:
        self._file, self._act = file, act

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, data) -> int:
        data = bytes(data)
        half = len(data) // 2
        self._file.write(data[:half])
        self._file.flush()
        self._act("write")
        return half + self._file.write(data[half:])

    def __getattr__(self, name):
        return getattr(self._file, name)


def die_at(operation: int, job: Callable[..., None], *arguments: object) -> None:
    """Do a job, but die by SIGKILL before its operation of that number."""
    left = [operation]

    def act(name: str) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1

    with before_each_operation(act):
        job(*arguments)


def moments_of_a_save(kind: str, run: Path, trials: int) -> list[int]:
    """Return numbers of operations of a save: some of all of them, every third of the last ones, and one too many."""
    done: list[str] = []
    with before_each_operation(done.append):
        save_once(kind, run, 30)
    spread = [len(done) * trial // trials for trial in range(trials)]
    return sorted({*spread, *range(len(done) - 1, max(0, len(done) - 16), -3), len(done)})


def save_once(kind: str, folder: Path, number: int) -> None:
    """Save one checkpoint of a run."""
    from galaxies.storage.run_folder import save_epoch, save_latest

    if kind == "epoch":
        save_epoch(folder, number, checkpoint_content(number))
    else:
        save_latest(folder, checkpoint_content(number))


def write_dataset(out: Path, level: int) -> None:
    """Write a small dataset of grey images over whatever is there."""
    from galaxies.datasets.writing import DatasetWriter

    with DatasetWriter(out, 64, 0.5, {}, overwrite=True) as writer:
        append_grey_images(writer, level)


def append_grey_images(writer, level: int) -> None:
    """Add four images of each class, all of one level."""
    import numpy as np

    from config_physics import MORPHOLOGY_NAMES

    for name in MORPHOLOGY_NAMES:
        writer.append(np.full((4, 3, 64, 64), level, np.uint8), [f"{name}{k}" for k in range(4)], [name] * 4, {})


def train_long(data: Path, folder: Path, epochs: int, report: Path) -> None:
    """Train a tiny run, and write down after each epoch how much memory and how many open files the process has."""
    import json

    import torch

    from config_physics import Config
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.training.trainer import Trainer

    torch.set_num_threads(1)
    settings = {"width": 4, "latent_dim": 8, "batch_size": 5, "log_every": 5, "checkpoint_every": 10}
    config = Config(**settings, run="long", device="cpu", pretrain_epochs=epochs, epochs=epochs)
    trainer = Trainer(config, PreparedDataset.open(data), folder / "c" / "long", folder / "s" / "long")
    write, seen = trainer.log.write, []

    def measure(record):
        write(record)
        if record["kind"] == "train" and record["step"] % len(trainer.batches) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            mebibytes = pages * os.sysconf("SC_PAGESIZE") / 2**20
            seen.append((record["phase"], record["step"], mebibytes, len(os.listdir("/proc/self/fd"))))  # noqa: PTH208

    trainer.log.write = measure
    trainer.train()
    report.write_text(json.dumps(seen))
