"""Full disks, read-only folders, failing disks, damaged and malicious files: one sentence, and nothing good is lost."""

from __future__ import annotations

import codecs
import io
import multiprocessing
import os
import pickle
import random
import shutil
import stat
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import galaxy
import generate_from_checkpoint
import prepare_data
import resume_training
from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.storage.run_folder import load_run
from galaxies.storage.schema import RUN_STATE
from galaxies.training import runs
from galaxies.training.trainer import Trainer
from tests import kill_jobs
from tests.conftest import TINY, differences, records_of, tree_of, write_dataset

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no file-size limit and no fork server")
slow = pytest.mark.slow
SHORT = [*TINY, "--pretrain-epochs", "1", "--epochs", "1"]


def one_sentence(call, *arguments: object) -> str:
    """Expect the error that scripts print as one sentence and end with status 2 for; return the sentence."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and len(text) < 600
    return text


# Full disks


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of pictures with their labels."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = ["image,morphology"]
    random_numbers = np.random.default_rng(0)
    for k, name in enumerate(("spiral", "elliptical", "merger", "edge-on") * 2):
        pixels = random_numbers.integers(0, 255, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
        rows.append(f"{k}.png,{name}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def assert_whole(folder: Path) -> None:
    """Check that every file under a final name can be read."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".pt":
            load_checkpoint(path)
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.name == "manifest.json":
            PreparedDataset.open(path.parent)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert [arrays[name].shape for name in arrays]


ALL_SIZES = [0, 300, 5000, 20_000, 40_000, 200_000, 350_000]


@posix
@pytest.mark.parametrize(
    "work, sizes",
    [
        ("train", [200_000]),
        ("prepare", [20_000]),
        ("measure", [300]),
        *(pytest.param(work, ALL_SIZES, marks=slow) for work in ("train", "resume", "prepare", "generate", "measure")),
    ],
)
def test_full_disk(trained, dataset_path, pictures, tmp_path, work, sizes, count):
    jobs = {
        "train": ("galaxy.py", ["--data", dataset_path, "--run", "full", *SHORT]),
        "resume": ("resume_training.py", ["--run", "tiny", "--epochs", 3]),
        "prepare": ("prepare_data.py", ["labelled", "--images", pictures, "--labels", pictures / "labels.csv"]),
        "generate": ("generate_from_checkpoint.py", ["--checkpoint", "checkpoints/tiny/latest.pt"]),
        "measure": ("evaluate.py", ["measure", *sorted(pictures.glob("*.png")), "--out", "out/measured.csv"]),
    }
    script, argv = jobs[work]
    if work == "prepare":
        argv = [*argv, "--out", "out/data", "--workers", 1]
    elif work == "generate":
        argv = [*argv, "--morphology", "spiral", "--count", 4, "--format", "png,npz", "--out", "out"]
    for size in sizes:
        folder = tmp_path / f"{work}{size}"
        folder.mkdir()
        if work in ("resume", "generate"):
            shutil.copytree(trained / "checkpoints", folder / "checkpoints")
        before = tree_of(folder)
        # Into a pipe, which is never full, unlike a log on the same disk.
        ours, theirs = multiprocessing.Pipe(duplex=False)
        status = kill_jobs.run_to_end(kill_jobs.script, script, argv, folder, theirs, size)
        theirs.close()
        with open(ours.fileno(), "rb", closefd=False) as stream:
            said = stream.read().decode(errors="replace").replace("\r", "\n").splitlines()
        ours.close()
        good = status == 0 or (status == 2 and said[-1].startswith(f"{script}: error: ") and len(said[-1]) < 600)
        good = good and not any("Traceback" in line for line in said)
        if status == 2:
            after = tree_of(folder)
            changed = [name for name in before if after.get(name) != before[name] and not name.endswith(".jsonl")]
            good = good and not changed and not [name for name in after if Path(name).name.startswith(".")]
        assert_whole(folder)
        count("full disks", good)
        assert good, (size, status, said[-3:])


# Failing disks


@pytest.mark.parametrize("trials", [4, pytest.param(200, marks=slow)])
@pytest.mark.parametrize("kind", ["latest", "epoch"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_of_the_disk_at_every_operation_of_a_save(tmp_path, kind, trials, count):
    source = tmp_path / "source"
    for number in (28, 29):
        kill_jobs.save_once("epoch", source, number)
    refused = 0
    for operation in kill_jobs.moments_of_a_save(kind, shutil.copytree(source, tmp_path / "counted"), trials):
        run = shutil.copytree(source, tmp_path / f"run{operation}")
        left = [operation]

        def fail(name, left=left):
            left[0] -= 1
            if left[0] == -1:
                raise OSError(5, "Input/output error")

        sentence = ""
        with kill_jobs.before_each_operation(fail):
            try:
                kill_jobs.save_once(kind, run, 30)
            except UserError as error:
                sentence = str(error)
        refused += bool(sentence)
        latest = load_run(run)[1]["epoch"]
        good = latest in (29, 30) and (bool(sentence) or latest == 30)
        good = good and (not sentence or ("could not be written" in sentence and "\n" not in sentence))
        for path in run.glob("*.pt"):
            load_checkpoint(path)
        count("I/O errors at each operation of a save", good)
        assert good, (operation, latest, sentence)
        shutil.rmtree(run)
    assert left[0] >= 0 and refused >= 2  # the last one came to its end


# Read-only folders


@pytest.fixture
def read_only():
    """A folder that this process may read and not write."""
    if os.name == "nt":
        pytest.skip("Windows has no read-only folders")
    folder = Path(tempfile.mkdtemp(prefix="galaxy-test-"))
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


class _Locked:
    """While entered, nothing in a folder can be written: the superuser becomes nobody for so long."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        # What would be loaded later, from folders that only the superuser may read.
        import_module("torch._dynamo")
        codecs.lookup("utf-8-sig")
        for path in (self.folder, *self.folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        self.was_root = os.geteuid() == 0
        if self.was_root:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if self.was_root:
            os.seteuid(0)


@pytest.mark.parametrize(
    "main, argv",
    [
        (galaxy.main, ["--data", "rendered", "--run", "new", *SHORT]),
        (resume_training.main, ["--run", "tiny", "--epochs", "3"]),
        (prepare_data.main, ["labelled", "--images", "p", "--labels", "p/labels.csv", "--out", "made"]),
        (prepare_data.main, ["join", "--inputs", "rendered", "rendered", "--out", "other", "--overwrite"]),
        (
            generate_from_checkpoint.main,
            ["--checkpoint", "checkpoints/tiny/latest.pt", "--morphology", "merger", "--count", "1"],
        ),
        (evaluate.main, ["measure", "p/0.png", "--out", "measured.csv"]),
    ],
)
def test_read_only_folder(trained, dataset_path, pictures, read_only, monkeypatch, main, argv, count):
    shutil.copytree(trained / "checkpoints", read_only / "checkpoints")
    for name in ("rendered", "other"):
        shutil.copytree(dataset_path, read_only / name)
    shutil.copytree(pictures, read_only / "p")
    monkeypatch.chdir(read_only)
    before = tree_of(read_only)
    with _Locked(read_only):
        text = one_sentence(main, argv)
    assert "ermission denied" in text
    assert tree_of(read_only) == before
    count("read-only folders")


# Damaged files


def damage(content: bytes, random_numbers: random.Random) -> bytes:
    """Cut a file short, flip a bit of it, blank a part of it, or add something at its end."""
    kind, place = (
        random_numbers.choice(["cut", "flip", "flip", "blank", "grow"]),
        random_numbers.randrange(len(content)),
    )
    if kind == "cut":
        return content[:place]
    if kind == "grow":
        return content + bytes(random_numbers.randrange(1, 2000))
    damaged = bytearray(content)
    if kind == "flip":
        damaged[place] ^= 1 << random_numbers.randrange(8)
    else:
        damaged[place : place + 512] = bytes(len(damaged[place : place + 512]))
    return bytes(damaged)


@pytest.mark.parametrize("trials", [30, pytest.param(250, marks=slow)])
def test_damaged_checkpoints(trained, tmp_path, trials, count):
    path = tmp_path / "a.pt"
    whole = (trained / "checkpoints/tiny/epoch_0001.pt").read_bytes()
    path.write_bytes(whole)
    right = load_checkpoint(path)
    noticed, random_numbers = 0, random.Random(3)
    for _ in range(trials):
        path.write_bytes(damage(whole, random_numbers))
        try:
            state = load_checkpoint(path, RUN_STATE)
        except UserError as error:
            good = len(str(error).splitlines()) == 1
            noticed += 1
        else:  # nothing that anybody reads was hit
            good = differences(state, right) == []
        count("damaged checkpoints", good)
        assert good
    assert noticed > trials / 2


@pytest.mark.parametrize("trials", [30, pytest.param(250, marks=slow)])
def test_damaged_datasets(tmp_path, trials, count):
    folder = write_dataset(tmp_path / "d", 16)
    right = PreparedDataset.open(folder)
    pixels, wholes = np.array(right.images), {p.name: p.read_bytes() for p in folder.iterdir()}
    noticed, random_numbers = 0, random.Random(4)
    for trial in range(trials):
        name = sorted(wholes)[trial % len(wholes)]
        (folder / name).write_bytes(damage(wholes[name], random_numbers))
        try:
            data = PreparedDataset.open(folder)
            runs.print_settings(Config(), data)
        except UserError as error:
            good = len(str(error).splitlines()) == 1
            noticed += 1
        else:  # a word in the manifest
            good = name == "manifest.json" and np.array_equal(data.images, pixels)
            good = good and data.catalogue.equals(right.catalogue)
        count("damaged datasets", good)
        assert good, name
        (folder / name).write_bytes(wholes[name])
    assert noticed > trials / 2


# Files that change under a run

CHANGES = {
    "cut short": lambda d: os.truncate(d / "images.npy", 200_000),
    "one bit": lambda d: flip(d / "images.npy"),
    "catalogue": lambda d: flip(d / "catalogue.csv"),
    "removed": shutil.rmtree,
    "manifest": lambda d: (d / "manifest.json").write_text("{}"),
}


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-5, 2)
        byte = file.read(1)[0]
        file.seek(-5, 2)
        file.write(bytes([byte ^ 1]))


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody change a file that is mapped")
@pytest.mark.parametrize("change", ["cut short", *(pytest.param(name, marks=slow) for name in list(CHANGES)[1:])])
def test_dataset_that_changes_under_a_run(tmp_path, change, count):
    write_dataset(tmp_path / "whole", 64)
    states = {}
    for name in ("undisturbed", "changed"):
        data = PreparedDataset.open(shutil.copytree(tmp_path / "whole", tmp_path / name / "d"))
        settings = {"width": 4, "latent_dim": 8, "batch_size": 16, "log_every": 1, "pretrain_epochs": 1, "epochs": 1}
        config = Config(**settings, run="r", device="cpu", data="d")
        folders = tmp_path / name / "c" / "r", tmp_path / name / "s" / "r"
        trainer = Trainer(config, data, *folders)
        if name == "changed":
            write = trainer.log.write

            def change_it(record, write=write, folder=data.path):
                write(record)
                if (record["phase"], record["step"]) == ("predictor", 2):
                    CHANGES[change](folder)

            trainer.log.write = change_it
            assert str(data.path) in one_sentence(trainer.train)
            shutil.rmtree(data.path, ignore_errors=True)
            data = PreparedDataset.open(shutil.copytree(tmp_path / "whole", data.path))
            _, state = load_run(folders[0])
            assert (state["phase"], state["epoch"]) == ("predictor", 1)
            trainer = Trainer(config, data, *folders, state)
        trainer.train()
        states[name] = (
            load_checkpoint(folders[0] / "latest.pt"),
            records_of(folders[0]),
        )
    good = states["changed"][1] == states["undisturbed"][1]
    good = good and not differences(states["changed"][0], states["undisturbed"][0])
    count("datasets that changed under a run, which went on after they were put back", good)
    assert good


# Malicious files


class _Call:
    """Something that calls a function when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class _Built:
    """Something whose `__setstate__` is called with what a file says."""

    def __reduce__(self):
        return _Built, (), {"canary": "x"}


class _Scripted(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def malicious_files(canary: Path) -> dict[str, bytes]:
    """Return files that touch `canary` if they are unpickled without care."""
    touch = f"open({str(canary)!r}, 'w').close()"
    objects = {
        "open": _Call(open, str(canary), "w"),
        "system": _Call(os.system, f'{sys.executable} -c "{touch.replace(chr(34), chr(39))}"'),
        "exec": _Call(exec, touch),
        "eval": _Call(eval, touch),
        "getattr": _Call(getattr, _Call(__import__, "os"), "getcwd"),
        "mkdir": _Call(os.mkdir, str(canary)),
        "rebuild": _Call(torch._utils._rebuild_tensor_v2, _Call(open, str(canary), "w"), 0, (1,), (1,), False, {}),
        "state": _Built(),
    }
    files = {}
    for name, bad in objects.items():
        stream = io.BytesIO()
        torch.save({**dict.fromkeys(RUN_STATE, 1), "format_version": 1, "sha256": bad}, stream)
        files[name] = stream.getvalue()
    files["plain pickle"] = pickle.dumps({"format_version": 1, "config": objects["open"]})
    stream = io.BytesIO()
    torch.save({"format_version": objects["open"]}, stream, _use_new_zipfile_serialization=False)
    files["old format"] = stream.getvalue()
    stream = io.BytesIO()
    torch.save(torch.nn.Linear(2, 2), stream)
    files["whole module"] = stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    files["opcodes"] = stream.getvalue()
    return files


def test_malicious_checkpoints_and_datasets(dataset_path, tmp_path, monkeypatch, count):
    canary = tmp_path / "canary"
    run = tmp_path / "checkpoints/bad"
    run.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name, content in malicious_files(canary).items():
        (run / "latest.pt").write_bytes(content)
        generate = ["--checkpoint", str(run / "latest.pt"), "--morphology", "spiral"]
        for call in (
            (generate_from_checkpoint.main, generate),
            (resume_training.main, ["--run", "bad"]),
            (resume_training.main, ["--checkpoint", str(run / "latest.pt")]),
        ):
            text = one_sentence(*call)
            good = not canary.exists() and ("damaged" in text or "is not a checkpoint" in text)
            count("malicious pickles, read by each script", good)
            assert good, (name, text)
    folder = shutil.copytree(dataset_path, tmp_path / "d")
    np.save(folder / "images.npy", np.array([_Call(open, str(canary), "w")]), allow_pickle=True)
    manifest = (folder / "manifest.json").read_text()
    old = PreparedDataset.open(dataset_path).manifest["sha256"]["images.npy"]
    from galaxies.common.durable_files import sha256_of

    (folder / "manifest.json").write_text(manifest.replace(old, sha256_of(folder / "images.npy")))
    assert "images.npy holds 'object', not uint8" in one_sentence(galaxy.main, ["--data", "d", *SHORT])
    assert not canary.exists()
    count("malicious pickles in a dataset")


def test_a_link_or_a_folder_in_place_of_a_checkpoint(tmp_path):
    (tmp_path / "a.pt").mkdir()
    assert "is a folder where a file is expected" in one_sentence(load_checkpoint, tmp_path / "a.pt")
    assert "could not be written" in one_sentence(save_checkpoint, tmp_path / "a.pt", {"a": 1})
    assert stat.S_ISDIR((tmp_path / "a.pt").stat().st_mode)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
