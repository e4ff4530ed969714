"""A run that is cut at any step and goes on in a fresh process equals the uninterrupted one, bit for bit."""

from __future__ import annotations

import copy
import os
import shutil

import pytest

from config_physics import Config
from galaxies.datasets.prepared import PreparedDataset
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.training import trainer as trainer_module
from galaxies.training.health import check_samples
from galaxies.training.trainer import Trainer
from tests import kill_jobs
from tests.conftest import MODERN, differences, records_of, write_dataset

needs_fork = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork server for quick fresh processes")
# What a run has from its settings and its data, and not from its past.
_FIXED = {"config", "attributes", "population", "provenance", "format_version", "random.noise_device"}


def log_of(folder) -> list[dict]:
    return records_of(folder / "checkpoints/r")


def make_trainer(data, config, folder, state=None) -> Trainer:
    return Trainer(config, data, folder / "checkpoints/r", folder / "samples/r", state)


def advance(trainer: Trainer) -> None:
    """Take one step of the run, and save as after Ctrl-C; between the phases, hand over first."""
    before = trainer.phase, trainer.epoch, trainer.step
    trainer.stop_requested = True
    trainer.train()
    if (trainer.phase, trainer.epoch, trainer.step) != before:
        return
    # Phase 1 had no step left. Let it go over to phase 2, and stop there.
    write = trainer.log.write

    def stop_at_the_test(record):
        write(record)
        trainer.stop_requested = trainer.stop_requested or record["kind"] == "test"

    trainer.log.write, trainer.stop_requested = stop_at_the_test, False
    trainer.train()
    trainer.log.write = write


_SLOW = pytest.mark.slow
# Every option of the GAN, as on a command line.
MODERN_OPTIONS = [word for name, value in MODERN.items() for word in (f"--{name.replace('_', '-')}", value)]
MODERN_OPTIONS.remove(True)  # pixel noise is a flag


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((16, []), id="few", marks=_SLOW),
        pytest.param((16, MODERN_OPTIONS), id="modern"),
        pytest.param((8, []), id="all", marks=_SLOW),
        pytest.param((8, ["--diffusion", "--unet-blocks", 1, "--solver-steps", 1]), id="diffusion", marks=_SLOW),
    ],
)
def cuts(request, tmp_path_factory):
    """An uninterrupted run, and one that was stopped at every step: a folder for each state in which it was saved."""
    batch_size, more = request.param
    folder = tmp_path_factory.mktemp("cuts")
    data = PreparedDataset.open(write_dataset(folder / "data", 64))
    options = [] if "--diffusion" in more else ["--latent-dim", 8]
    options += ["--width", 4, "--pretrain-epochs", 2, "--epochs", 2, "--log-every", 2]
    options += ["--checkpoint-every", 2, "--seed", 3, "--device", "cpu", "--batch-size", batch_size, *more]
    whole = folder / "whole"
    whole.mkdir()
    arguments = ["--data", data.path, "--run", "r", *options]
    if os.name != "nt":
        assert kill_jobs.run_to_end(kill_jobs.script, "galaxy.py", arguments, whole, whole / "log") == 0
    config = Config.from_dict(load_checkpoint(whole / "checkpoints/r/latest.pt")["config"])
    trainer = make_trainer(data, config, folder / "stopped")
    saved = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "check_samples", check_samples)  # of as many galaxies as the whole run's
        while not (trainer.phase == "generator" and trainer.epoch == config.epochs):
            advance(trainer)
            saved.append(folder / f"cut{len(saved):02d}")
            shutil.copytree(folder / "stopped", saved[-1])
    return data, config, whole, saved, batch_size == 8


@needs_fork
def test_every_cut_resumes_to_the_same_bits(cuts, count):
    _, _, whole, saved, is_full = cuts
    final = load_checkpoint(whole / "checkpoints/r/latest.pt")
    wrong = []
    # The last one is the end of the run; there is nothing left to do.
    chosen = saved[:-1] if is_full else [saved[k] for k in (4, 8)]
    for cut in chosen:
        state = load_checkpoint(cut / "checkpoints/r/latest.pt")
        folder = shutil.copytree(cut, cut.with_name(f"{cut.name}-resumed"))
        status = kill_jobs.run_to_end(kill_jobs.script, "resume_training.py", ["--run", "r"], folder, folder / "log")
        found = differences(load_checkpoint(folder / "checkpoints/r/latest.pt"), final)
        good = status == 0 and not found and log_of(folder) == log_of(whole)
        if not good:
            wrong.append((state["phase"], state["step"], status, found[:3]))
        count("runs cut at a step, resumed in a fresh process to the same bits", good)
    assert wrong == []


def go_on(data, config, folder, state) -> tuple[dict, list[dict]]:
    """Finish the phase from `state` in a copy of `folder`; return the final state and the log."""
    target = folder.with_name("again")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    try:
        trainer = make_trainer(data, config, target, state)
        trainer.log.drop_after(trainer.phase, trainer.step)
        trainer.run_phase(config.pretrain_epochs if trainer.phase == "predictor" else config.epochs)
        return copy.deepcopy(trainer.state_dict()), log_of(target)
    except Exception as error:  # a state that does not fit together is noticed, too
        return {"error": str(error)}, []


def paths_of(state) -> list[tuple[str, ...]]:
    """Name every part of a checkpoint that the run has from its past."""
    paths = []
    for key, part in state.items():
        if key not in _FIXED:
            children = sorted(part) if isinstance(part, dict) and key != "ema" else []
            paths += [(key, child) for child in children if f"{key}.{child}" not in _FIXED] or [(key,)]
    return paths


def replaced(state: dict, path: tuple[str, ...], other: dict) -> dict:
    """Return a copy of `state` with one part of `other`."""
    state = copy.deepcopy(state)
    inner, source = state, other
    for key in path[:-1]:
        inner, source = inner[key], source[key]
    inner[path[-1]] = copy.deepcopy(source[path[-1]])
    return state


@pytest.mark.slow
def test_a_run_without_any_one_part_of_its_state_goes_another_way(cuts, count):
    data, config, _, saved, _ = cuts
    per_epoch = load_checkpoint(saved[-1] / "checkpoints/r/latest.pt")["step"] // config.epochs
    middle = {}  # of the second epoch of each phase, and of an interval between two lines of the log
    for folder in saved:
        state = load_checkpoint(folder / "checkpoints/r/latest.pt")
        if per_epoch < state["step"] < 2 * per_epoch and state["step"] % config.log_every == 1:
            middle.setdefault(state["phase"], (folder, state))
    fresh = make_trainer(data, config, saved[0].with_name("fresh")).state_dict()
    assert set(middle) == {"predictor", "generator"}
    right = {}
    for phase, (folder, state) in middle.items():
        right[phase] = go_on(data, config, folder, copy.deepcopy(state))
        again = go_on(data, config, folder, copy.deepcopy(state))
        assert differences(again[0], right[phase][0]) == [] and again[1] == right[phase][1]
    ignored = []
    for path in paths_of(middle["generator"][1]):
        tried = diverged = False
        for phase, (folder, state) in middle.items():  # some parts matter in one phase alone, such as the noise
            without = replaced(state, path, fresh)
            if diverged or not differences(without, state):
                continue  # nothing has happened to this part yet, so that leaving it out changes nothing
            tried = True
            ended = go_on(data, config, folder, without)
            diverged = ended[1] != right[phase][1] or bool(differences(ended[0], right[phase][0]))
        if tried:
            count("parts of the state left out, and the run diverged", diverged)
            if not diverged:
                ignored.append(".".join(path))
    assert ignored == []
