"""Files that survive: the lock, folders put in place, and what killed processes leave behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from galaxies.common.durable_files import (
    only_process,
    remove_dead_temporaries,
    whole_file,
    write_whole,
)
from galaxies.common.errors import UserError
from tests.conftest import ROOT

HOLD = "import sys; from pathlib import Path; from galaxies.common.durable_files import only_process\n" + (
    "with only_process(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)

posix = pytest.mark.skipif(os.name == "nt", reason="there, an open file and not a number tells a living process")


def test_lock_keeps_other_processes_out_and_dies_with_its_own(tmp_path):
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), only_process(lock):
            pass
        holder.kill()
    assert lock.exists() or os.name == "nt"  # it left the file behind, and with it no lock
    with only_process(lock):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_is_let_go_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), only_process(tmp_path / "lock"):
        raise KeyboardInterrupt
    with only_process(tmp_path / "lock"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_lock_on_a_file_that_was_just_removed_is_none(tmp_path, monkeypatch):
    # The process before removes the file after this one has opened it and before it has locked it.
    import fcntl

    lock, tried = tmp_path / "lock", []
    real = fcntl.flock

    def lock_late(*request):
        if not tried:
            lock.unlink()
        tried.append(1)
        real(*request)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with only_process(lock):
        assert lock.exists() and len(tried) == 2
        with pytest.raises(BlockingIOError), only_process(lock):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows locks every disk")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_that_has_no_locks_is_no_reason_to_refuse(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "no lock")

    monkeypatch.setattr("fcntl.flock", refuse)
    with only_process(tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_made_is_no_other_process(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((NotADirectoryError, FileExistsError)), only_process(tmp_path / "file" / "lock"):
        pass


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a"
    with whole_file(path) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"second")
        raise ZeroDivisionError
    assert path.read_bytes() == b"first"
    assert [p.name for p in path.parent.iterdir()] == ["a"]


def test_a_file_is_written_or_it_is_said(tmp_path):
    write_whole(tmp_path / "new" / "a", b"content")
    assert (tmp_path / "new" / "a").read_bytes() == b"content"
    with pytest.raises(UserError, match="b could not be written: "):
        write_whole(tmp_path / "new" / "a" / "b", b"content")


@posix
def test_only_temporary_files_of_dead_processes_are_removed(tmp_path, dead):
    names = [f".[a].pt.{dead}.tmp", f".[a].pt.{os.getppid()}.tmp", f".a.pt.{dead}.tmp", "[a].pt", ".[a].pt.x.tmp"]
    for name in names:
        (tmp_path / name).write_text("")
    remove_dead_temporaries(tmp_path / "[a].pt")
    assert {p.name for p in tmp_path.iterdir()} == set(names[1:])
