"""Checkpoints: complete or absent, verified, and never code."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
import torch

from galaxies.common.errors import UserError
from galaxies.storage import checkpoint
from galaxies.storage.checkpoint import DamagedError, link_checkpoint, load_checkpoint, save_checkpoint
from tests.conftest import ROOT


def example(value: float = 1.0) -> dict:
    return {
        "weights": {"w": torch.full((64, 64), value), "steps": torch.tensor(3)},
        "name": "run",
        "nothing": None,
        "list": [1, 2.5, True],
        "half": torch.ones(3, dtype=torch.bfloat16),
    }


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "a.pt", example())
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.pop("format_version") == checkpoint.FORMAT_VERSION
    assert torch.equal(loaded["weights"]["w"], example()["weights"]["w"])
    assert (loaded["name"], loaded["nothing"], loaded["list"]) == ("run", None, [1, 2.5, True])


def test_no_temporary_file_is_left(tmp_path):
    save_checkpoint(tmp_path / "run" / "a.pt", example())
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["a.pt"]


def test_latest_is_the_same_checkpoint_and_stays_when_replaced(tmp_path):
    save_checkpoint(tmp_path / "epoch_0001.pt", example(1))
    link_checkpoint(tmp_path / "epoch_0001.pt", "latest.pt")
    save_checkpoint(tmp_path / "latest.pt", example(2))
    assert load_checkpoint(tmp_path / "epoch_0001.pt")["weights"]["w"][0, 0] == 1
    assert load_checkpoint(tmp_path / "latest.pt")["weights"]["w"][0, 0] == 2


def test_latest_is_copied_where_links_are_not_to_be_had(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    save_checkpoint(tmp_path / "epoch_0001.pt", example())
    link_checkpoint(tmp_path / "epoch_0001.pt", "latest.pt")
    assert load_checkpoint(tmp_path / "latest.pt")["name"] == "run"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file-size limit to fill a disk with")
def test_full_disk_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"old": 1})
    # In a process of its own, whose files cannot grow beyond 8 kB.
    code = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from galaxies.storage.checkpoint import save_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "save_checkpoint(Path(sys.argv[1]), {'w': torch.ones(64, 64)})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode != 0
    assert "could not be written" in result.stderr
    assert load_checkpoint(path)["old"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_missing_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"there is no checkpoint .*a\.pt"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip", pickle.dumps({"format_version": 1})])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match="damaged or is not a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_plain_weights_are_no_checkpoint(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="is not a checkpoint of this program"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_checkpoint_of_a_newer_program_is_refused_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    save_checkpoint(tmp_path / "a.pt", example())
    monkeypatch.undo()
    with pytest.raises(UserError, match="format version 99 and this program reads 11 and older: it is newer than this"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("version", [0, -1, "2", None, 1.5])
def test_a_version_that_no_program_had_is_damage(tmp_path, monkeypatch, version):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", version)
    save_checkpoint(tmp_path / "a.pt", example())
    monkeypatch.undo()
    with pytest.raises(DamagedError, match="is damaged"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("cut", [1, 1000, 8000, 16000])
def test_truncated_file(tmp_path, cut):
    save_checkpoint(tmp_path / "a.pt", example())
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[:-cut])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path / "a.pt")


def test_every_flipped_tensor_bit_is_noticed(tmp_path):
    save_checkpoint(tmp_path / "a.pt", example())
    content = (tmp_path / "a.pt").read_bytes()
    start = content.index(torch.full((64, 64), 1.0).numpy().tobytes())
    for offset in range(0, 64 * 64 * 4, 997):
        damaged = bytearray(content)
        damaged[start + offset] ^= 1 << (offset % 8)
        (tmp_path / "a.pt").write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(tmp_path / "a.pt")


def test_a_bit_flipped_anywhere_is_noticed_or_harmless(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"w": torch.ones(3), "name": "run", "n": 5})
    content = (tmp_path / "a.pt").read_bytes()
    good = load_checkpoint(tmp_path / "a.pt")
    noticed = 0
    for offset in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[offset] ^= 1 << (offset % 8)
        (tmp_path / "a.pt").write_bytes(damaged)
        try:
            loaded = load_checkpoint(tmp_path / "a.pt")
        except UserError:
            noticed += 1
        else:  # the flip hit padding or a name that nobody reads
            assert torch.equal(loaded["w"], good["w"]) and (loaded["name"], loaded["n"]) == ("run", 5)
    assert noticed > 100


class _Malicious:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_file_is_not_run(tmp_path, plain):
    canary = tmp_path / "canary"
    content = {"format_version": 1, "config": _Malicious(canary)}
    if plain:
        (tmp_path / "a.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="damaged or is not a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")
    assert not canary.exists()


@pytest.mark.skipif(os.name == "nt", reason="there, an open file and not a number tells a living process")
def test_saving_removes_what_a_killed_process_left_of_an_earlier_save(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / f".latest.pt.{process.pid}.tmp").write_bytes(b"half of a checkpoint")
    save_checkpoint(tmp_path / "latest.pt", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["latest.pt"]
