"""Folders whose files are replaced together: what faults and kills in the middle leave, and what they never touch."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from galaxies.common.durable_files import hidden_beside
from galaxies.common.errors import UserError
from galaxies.common.replaced_folders import mend, partial_folder, put_in_place
from tests.conftest import tree_of

NAMES = ["a", "b", "sub/c"]
posix = pytest.mark.skipif(os.name == "nt", reason="there, an open file and not a number tells a living process")


def owned(folder: Path) -> list[str]:
    return [name for name in [*NAMES, "old"] if (folder / name).is_file()]


def make(folder: Path, content: str, *more: str) -> Path:
    for name in (*NAMES, *more):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if name in NAMES or name == "old" else "the user's")
    return folder


MINE = {"mine/thesis.txt": b"the user's", "notes": b"the user's"}
OLD = {"a": b"old", "b": b"old", "sub/c": b"old", "old": b"old"}
NEW = {"a": b"new", "b": b"new", "sub/c": b"new"}


def test_a_new_folder_gets_its_name(tmp_path):
    out = tmp_path / "out"
    put_in_place(make(partial_folder(out), "new"), out, owned)
    assert tree_of(tmp_path) == {f"out/{name}": content for name, content in NEW.items()}


def test_a_folder_of_old_files_alone_changes_its_place(tmp_path):
    out = make(tmp_path / "out", "old", "old")
    before = out.stat().st_ino
    put_in_place(make(partial_folder(out), "new"), out, owned)
    assert tree_of(tmp_path) == {f"out/{name}": content for name, content in NEW.items()}
    assert os.name == "nt" or out.stat().st_ino != before  # one rename, so that no reader sees a mixture


def test_what_else_is_in_a_folder_stays(tmp_path):
    out = make(tmp_path / "out", "old", "old", "mine/thesis.txt", "notes")
    (out / "empty").mkdir()
    inode = (out / "notes").stat().st_ino, (out / "mine").stat().st_ino
    put_in_place(make(partial_folder(out), "new"), out, owned)
    assert tree_of(out) == {**NEW, **MINE}
    assert ((out / "notes").stat().st_ino, (out / "mine").stat().st_ino) == inode
    assert (out / "empty").is_dir() and [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("below", [".", "sub"])
@pytest.mark.parametrize("level", ["old", "nothing"])
def test_the_folder_that_a_shell_stands_in_stays_the_same(tmp_path, monkeypatch, below, level):
    out = make(tmp_path / "out", "old") if level == "old" else tmp_path / "out"
    (out / "sub").mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(out / below)
    put_in_place(make(partial_folder(out), "new"), out, owned)
    assert Path("a" if below == "." else "c").read_text() == "new"
    assert tree_of(tmp_path) == {f"out/{name}": content for name, content in NEW.items()}


def test_an_empty_folder_keeps_what_it_allows(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o711)
    inode = out.stat().st_ino
    put_in_place(make(partial_folder(out), "new"), out, owned)
    assert tree_of(tmp_path) == {f"out/{name}": content for name, content in NEW.items()}
    assert (out.stat().st_ino, out.stat().st_mode & 0o777) == (inode, 0o711) or os.name == "nt"


@posix
def test_links_are_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    make(elsewhere, "elsewhere")
    out = make(tmp_path / "out", "old", "old")
    (out / "link").symlink_to(elsewhere, target_is_directory=True)
    put_in_place(make(partial_folder(out), "new"), out, owned)
    assert (out / "link").is_symlink() and (out / "link/a").read_text() == "elsewhere"
    assert {name: (out / name).read_text() for name in NAMES} == dict.fromkeys(NAMES, "new")


def test_a_file_that_may_not_be_replaced_is_not(tmp_path):
    out = make(tmp_path / "out", "old")
    partial = make(partial_folder(out), "new")
    (partial / "notes").write_text("new")
    (out / "notes").write_text("the user's")
    with pytest.raises(FileExistsError, match="notes is there and is no file of this program"):
        put_in_place(partial, out, owned)
    assert tree_of(out) == {"a": b"old", "b": b"old", "sub/c": b"old", "notes": b"the user's"}


@posix
@pytest.mark.parametrize("code", [errno.EACCES, errno.EBUSY])
def test_a_folder_that_may_not_be_renamed_keeps_its_place(tmp_path, monkeypatch, code):
    """A mount point, or one whose parent belongs to somebody else."""
    out = make(tmp_path / "out", "old", "old")
    rename, inode = Path.rename, out.stat().st_ino

    def refuse(self, target):
        if self == out:
            raise OSError(code, os.strerror(code))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    put_in_place(make(partial_folder(out), "new"), out, owned)
    assert tree_of(tmp_path) == {f"out/{name}": content for name, content in NEW.items()}
    assert out.stat().st_ino == inode


@posix
def test_a_mount_point_is_written_in(tmp_path, monkeypatch):
    out = make(tmp_path / "out", "old")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)
    partial = partial_folder(out)
    assert partial.parent == out
    put_in_place(make(partial, "new"), out, owned)
    shutil.rmtree(partial, ignore_errors=True)
    assert tree_of(out) == NEW


class Failing:
    """Fail, or die like a killed process, before a rename of a number."""

    def __init__(self, monkeypatch, at: int, error: BaseException, for_good: bool = False) -> None:
        self.left, self.error, self.for_good = at, error, for_good
        rename = Path.rename

        def rename_or_fail(path, target):
            self.left -= 1
            if self.left == -1 or (self.for_good and self.left < 0):
                raise self.error
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_or_fail)


@pytest.mark.parametrize("with_others", [False, True])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_fault_at_any_rename_changes_nothing(tmp_path, monkeypatch, with_others, error):
    mine = ("mine/thesis.txt", "notes") if with_others else ()
    expected = {**OLD, **(MINE if with_others else {})}
    for at in range(20):
        out = make(tmp_path / f"at{at}" / "out", "old", "old", *mine)
        partial = make(partial_folder(out), "new")
        with monkeypatch.context() as patch:
            failing = Failing(patch, at, error)
            try:
                put_in_place(partial, out, owned)
            except BaseException as caught:
                assert caught is error
            done = failing.left >= 0
        shutil.rmtree(partial, ignore_errors=True)
        assert tree_of(out) == ({**NEW, **(MINE if with_others else {})} if done else expected), at
        assert [p.name for p in out.parent.iterdir()] == ["out"]
        if done:
            break
    assert at == (8 if with_others else 2)  # renames in all: 4 old ones, the mark between, and 3 new ones


class Killed(BaseException):
    """Stands for SIGKILL: nothing is done after it."""


@posix
@pytest.mark.parametrize("with_others", [False, True])
def test_a_kill_at_any_rename_is_mended(tmp_path, monkeypatch, dead, with_others):
    mine = ("mine/thesis.txt", "notes") if with_others else ()
    kept = MINE if with_others else {}
    states = []
    for at in range(20):
        out = make(tmp_path / f"at{at}" / "out", "old", "old", *mine)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: dead)
            partial = make(partial_folder(out), "new")
            failing = Failing(patch, at, Killed(), for_good=True)  # so that nothing is undone either
            with suppress(Killed, UserError):
                put_in_place(partial, out, owned)
            done = failing.left >= 0
        assert all((out / name).is_file() for name in mine)  # never out of their place, not even for a moment
        mend(out, owned)
        (state,) = (name for name, files in (("old", OLD), ("new", NEW)) if tree_of(out) == {**files, **kept})
        states.append(state)
        assert [p.name for p in out.parent.iterdir()] == ["out"]
        if done:
            break
    assert states[0] == "old" and states[-1] == "new"
    assert states == sorted(states, reverse=True)  # the old ones up to a moment, and then the new ones


@posix
def test_what_cannot_be_undone_is_said_and_mended(tmp_path, monkeypatch):
    out = make(tmp_path / "out", "old", "old", "notes")
    partial = make(partial_folder(out), "new")
    with monkeypatch.context() as patch:
        Failing(patch, 6, OSError(5, "Input/output error"), for_good=True)
        with pytest.raises(UserError, match=r"old files of .*out are in .*: the next call puts them back"):
            put_in_place(partial, out, owned)
    shutil.rmtree(partial)  # as whoever called does
    for name in ("a", "b"):  # which had entered, and cannot leave
        (out / name).unlink(missing_ok=True)
    mend(out, owned)
    assert tree_of(out) == {**OLD, "notes": b"the user's"}


@posix
def test_only_folders_of_dead_processes_are_removed(tmp_path, dead):
    names = [f".out.partial-{dead}", f".out.partial-{os.getppid()}", ".out.partial-mine", f".other.partial-{dead}"]
    for name in names:
        (tmp_path / name).mkdir()
    mend(tmp_path / "out", owned)
    assert {p.name for p in tmp_path.iterdir()} == set(names[1:])


def test_what_a_dead_process_had_replaced_is_put_back(tmp_path, dead):
    make(tmp_path / f".out.replaced-{dead}", "old")
    make(tmp_path / f".out.partial-{dead}", "new")
    mend(tmp_path / "out", owned)
    assert tree_of(tmp_path) == {f"out/{name}": b"old" for name in NAMES}


def test_what_came_in_at_the_last_moment_is_not_removed(tmp_path, monkeypatch):
    out = make(tmp_path / "out", "old", "old")
    partial = make(partial_folder(out), "new")
    rename = Path.rename

    def rename_late(self, target):
        if self == out:
            (out / "just.now").write_text("the user's")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    put_in_place(partial, out, owned)
    assert tree_of(out) == {**NEW, "just.now": b"the user's"}
    assert hidden_beside(out, "replaced").exists() is False
