"""Files that survive: replaced whole, held by one process at a time, and cleaned up after processes that died.

Whole folders: `replaced_folders`. What a user names as an output passes `outputs` first.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from galaxies.common.errors import UserError

_PATIENCE_S = 2.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_LONGEST_NAME = 255  # bytes of a file's name; all common file systems take as many
_OTHER_FOLDER = "choose a folder that you may write in"
# What to do when the operating system refuses to write.
_ADVICE = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "make room, or lift the limit on the size of a file",
    errno.EACCES: _OTHER_FOLDER,
    errno.EPERM: _OTHER_FOLDER,
    errno.EROFS: _OTHER_FOLDER,
    errno.EIO: "its disk fails; choose another one",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "its folder has gone",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ESTALE: "its network disk has gone",
}


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's contents in hexadecimal, reading a megabyte at a time."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def reason(error: OSError) -> str:
    """Say why the operating system refused to write, and what to do: "No space left on device (make room ...)"."""
    said = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0)
    return f"{said} ({advice})" if advice else said


@contextmanager
def plain_errors(out: Path) -> Iterator[None]:
    """Turn a full disk, a read-only folder and their like into one sentence about what is written, a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{out} could not be written: {reason(error)}") from error


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; Windows opens no folders and does so by itself.

    Raises
    ------
    OSError
        If the folder cannot be opened or the disk fails.
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_space(folder: Path) -> tuple[Path, int]:
    """Return the nearest folder above (or the folder itself) that exists, and the free bytes of its disk."""
    folder = folder.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return existing, shutil.disk_usage(existing).free


def replace_file(source: Path, target: Path) -> None:
    """Give a complete file its final name, in place of the old one.

    Windows refuses while another program, such as a picture viewer or a virus scanner, has the old file open; that
    usually passes within seconds.

    Raises
    ------
    OSError
        If the file cannot be replaced; the old one is still there.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def hidden_beside(path: Path, kind: str) -> Path:
    """Return the hidden name, beside `path`, under which this process keeps something of its own for a while."""
    return path.with_name(f"{hidden_stem(path)}.{kind}-{os.getpid()}")


def temporary_of(path: Path) -> Path:
    """Return the hidden name, beside `path`, of a file of this process that gets the name `path` when it is whole."""
    return path.with_name(f"{hidden_stem(path)}.{os.getpid()}.tmp")


def hidden_stem(path: Path) -> str:
    """Return what hidden names of a path begin with; a long name is told by its checksum, for want of room."""
    if len(os.fsencode(path.name)) > _LONGEST_NAME - 40:
        return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}"
    return f".{path.name}"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that gets its name at the end of the block, whole; its folder is made.

    After an error in the block `path` is what it was before.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    temporary = temporary_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            yield file
        replace_file(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, in a folder that this program holds; raise `UserError` if that fails."""
    with plain_errors(path):
        remove_dead_temporaries(path)
        with whole_file(path) as file:
            file.write(content)


@contextmanager
def only_process(lock: Path) -> Iterator[None]:
    """Keep other processes out while the block runs.

    The operating system itself lets go of the lock of a process that dies. The file is removed at the end.

    Raises
    ------
    BlockingIOError
        If another process is in its block.
    OSError
        If the file cannot be made.
    """
    from filelock import FileLock, Timeout

    # The wait is for a process that is just removing the file, not for its work. Files that stand for a lock where a
    # disk has none would outlive a process that is killed.
    held = FileLock(lock, timeout=0.1, poll_interval=0.01, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, "held by another process") from None
    except (OSError, NotImplementedError) as error:
        # Some network file systems have no locks. That is no reason to refuse the only process.
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        if os.name == "posix":
            # While it is locked, so that nobody else's is removed: who has opened it meanwhile finds it gone.
            # On Windows, which removes no open file, filelock does so.
            lock.unlink(missing_ok=True)
        held.release()


def is_in_use(path: Path, pid: int) -> bool:
    """Tell whether the process that writes a hidden file or folder still runs."""
    if os.name == "nt":
        # Asking for a process there would end it. But what is open, or has an open file in it, cannot be renamed.
        try:
            path.rename(probe := path.with_name(path.name + "-probe"))
            probe.rename(path)
        except OSError:
            return True
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs under another user
        pass
    return True


def remove_dead_temporaries(path: Path) -> None:
    """Remove the temporary files `.<name>.<process>.tmp` of processes that were killed while they wrote `path`."""
    prefix = f"{hidden_stem(path)}."
    for stale in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
        owner = stale.name.removeprefix(prefix).removesuffix(".tmp")
        if owner.isdecimal() and int(owner) != os.getpid() and not is_in_use(stale, int(owner)):
            with suppress(OSError):
                stale.unlink()
