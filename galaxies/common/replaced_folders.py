"""Folders whose files are replaced together: all of them or none, and nothing else in the folder is touched.

New files are written in a hidden folder, `.<name>.partial-<process>`, and stand in the folder `<name>` at the end.

- Where there is no such folder, the hidden one gets its name.
- Where it holds old files of the same kind alone, it is out of place for one rename (`.<name>.replaced-<process>`).
- Where it is empty, holds anything else, is where the user stands, or may not be renamed, it stays as it is, and the
  files change places one by one: the old ones leave (`.<name>.leaving-<process>`), and when all have left, which a
  rename marks (`.<name>.exchanged-<process>`), the new ones enter.

A process that is killed meanwhile leaves hidden folders, from which the next call for the same folder goes back to the
old files, or on to the new ones (`mend`). What is to outlive a process, since it took long, stands in
`.<name>.unfinished` until there is the folder.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from galaxies.common.durable_files import hidden_beside, hidden_stem, is_in_use, sync_folder
from galaxies.common.errors import UserError

_MAY_NOT_BE_RENAMED = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV)
_LEAVING, _EXCHANGED, _REPLACED, _PARTIAL = "leaving", "exchanged", "replaced", "partial"
_UNFINISHED = "unfinished"

Owned = Callable[[Path], list[str]]  # the relative names, with '/', of a folder's files that may be replaced


def partial_folder(out: Path) -> Path:
    """Return where this process writes what will stand in `out`: beside it, or in it where only that can be written."""
    return _home(out) / hidden_beside(out, _PARTIAL).name


def unfinished_folder(out: Path) -> Path:
    """Return where parts are kept of what will stand in `out`, for any process that goes on with it."""
    return _home(out) / f"{hidden_stem(out)}.{_UNFINISHED}"


def is_hidden_part(name: str, out: Path) -> bool:
    """Tell whether a name is one of those under which something is made for the folder `out`."""
    return name.startswith(tuple(f"{hidden_stem(out)}.{kind}" for kind in (f"{_PARTIAL}-", _UNFINISHED)))


def _home(out: Path) -> Path:
    """Return the folder of the hidden ones: that of `out`, or `out` where only that can be written."""
    home = out.parent
    if not out.is_dir():
        return home
    inside = os.path.ismount(out) or out.stat().st_dev != home.stat().st_dev or not os.access(home, os.W_OK)
    return out if inside else home


def put_in_place(partial: Path, out: Path, owned: Owned) -> None:
    """Let complete new files take the place of the old ones in `out`.

    Parameters
    ----------
    partial : Path
        Folder of the new files, as `partial_folder` names it; it is used up.
    out : Path
        Is made if it is not there.
    owned : callable
        Names the files of a folder that may be replaced; the others stay where they are.

    Raises
    ------
    FileExistsError
        If a new file would take the place of one that may not be replaced.
    OSError
        If that fails; what `out` was is still there.
    """
    sync_folder(partial)
    if not out.exists():
        partial.rename(out)
        sync_folder(out.parent)
        return
    old = owned(out)
    new = _files_of(partial)
    for name in new:  # before anything is moved
        if os.path.lexists(out / name) and name not in old:
            raise FileExistsError(errno.EEXIST, f"{name} is there and is no file of this program", str(out / name))
    if partial.parent == out.parent and old and not _holds_more(out, old) and not _is_stood_in(out):
        try:
            _swap(partial, out, owned)
        except OSError as error:
            if error.errno not in _MAY_NOT_BE_RENAMED or not (out.exists() and partial.exists()):
                raise
        else:
            return
    _exchange(partial, out, old, new)


def _swap(partial: Path, out: Path, owned: Owned) -> None:
    """Give `out` a name of its own and the new folder its name, or leave both as they were."""
    replaced = hidden_beside(out, _REPLACED)
    out.rename(replaced)
    try:
        partial.rename(out)
    except BaseException:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        raise
    sync_folder(out.parent)
    _remove(replaced, owned(replaced), out)


def _exchange(partial: Path, out: Path, old: Iterable[str], new: Iterable[str]) -> None:
    """Let the old files leave a folder and the new ones enter, one by one; undo it if something fails."""
    leaving, exchanged = partial.with_name(_named(partial, _LEAVING)), partial.with_name(_named(partial, _EXCHANGED))
    done: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        _move(source, target)
        done.append((source, target))

    try:
        leaving.mkdir()
        for name in sorted(old, reverse=True):  # a manifest first, and last of the new ones
            move(out / name, leaving / name)
        move(leaving, exchanged)
        for name in new:
            move(partial / name, out / name)
    except BaseException:
        for source, target in reversed(done):
            with suppress(OSError):
                target.rename(source)
        _remove_empty(leaving)
        _remove_empty_folders(out, new)
        if left := next((place for place in (exchanged, leaving) if place.exists()), None):
            raise UserError(f"the old files of {out} are in {left}: the next call puts them back") from None
        raise
    sync_folder(out)
    shutil.rmtree(exchanged, ignore_errors=True)  # which holds nothing but the old files
    shutil.rmtree(partial, ignore_errors=True)  # after it: without it, the other would be put back
    _remove_empty_folders(out, old)


def mend(out: Path, owned: Owned) -> None:
    """Finish or undo what processes that were killed had begun with `out`, and remove what they left."""
    for home in (out.parent, out):
        if home.is_dir():
            for kind in (_LEAVING, _EXCHANGED, _REPLACED, _PARTIAL):
                for stale in _left_by_the_dead(home, out, kind):
                    _mend(stale, kind, out, owned)


def _mend(stale: Path, kind: str, out: Path, owned: Owned) -> None:
    partial = stale.with_name(_named(stale, _PARTIAL))
    if kind == _PARTIAL:
        shutil.rmtree(stale, ignore_errors=True)
    elif kind == _REPLACED and not out.exists():
        stale.rename(out)
    elif kind == _REPLACED:
        _remove(stale, owned(stale), out)
    elif kind == _EXCHANGED and partial.is_dir():
        for name in _files_of(partial):
            _move(partial / name, out / name)
        shutil.rmtree(stale, ignore_errors=True)
    else:
        for name in _files_of(stale):
            _move(stale / name, out / name)
        _remove_empty(stale)


def _move(source: Path, target: Path) -> None:
    """Give a file another name that nothing has; POSIX would let it take the place of something else."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, f"{target.name} is there and is no file of this program", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _left_by_the_dead(home: Path, out: Path, kind: str) -> list[Path]:
    prefix = hidden_beside(out, kind).name.removesuffix(str(os.getpid()))
    found = []
    for path in sorted(p for p in home.iterdir() if p.name.startswith(prefix)):
        owner = path.name.removeprefix(prefix)
        if owner.isdecimal() and (int(owner) == os.getpid() or not is_in_use(path, int(owner))):
            found.append(path)
    return found


def _named(path: Path, kind: str) -> str:
    """Return the name of another hidden folder of the same process for the same folder."""
    stem, _, owner = path.name.rpartition("-")
    return f"{stem.rpartition('.')[0]}.{kind}-{owner}"


def _files_of(folder: Path) -> list[str]:
    """Return the relative names of all that is no folder, links to folders included."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        found += [Path(place, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(found)


def _is_stood_in(folder: Path) -> bool:
    """Tell whether the working folder lies in it: a shell there would find itself in one that is gone."""
    try:
        place = Path.cwd()
    except OSError:  # it is gone already
        return False
    return folder in (place, *place.parents)


def _holds_more(folder: Path, names: Iterable[str]) -> bool:
    """Tell whether there is anything but the named files and the folders that they are in."""
    known = {Path(name) for name in names}
    known |= {parent for name in known for parent in name.parents}
    for place, folders, files in os.walk(folder):
        if any(Path(place, name).relative_to(folder) not in known for name in (*folders, *files)):
            return True
    return False


def _remove(replaced: Path, names: Iterable[str], out: Path) -> None:
    """Remove the named files and the folders that are empty then; what came in at the last moment goes to `out`."""
    for name in names:
        with suppress(OSError):
            (replaced / name).unlink()
    _remove_empty(replaced)
    for left in list(replaced.iterdir()) if replaced.exists() else []:
        if not os.path.lexists(out / left.name):
            with suppress(OSError):
                left.rename(out / left.name)
    _remove_empty(replaced)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those in it that are empty."""
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(place).rmdir()


def _remove_empty_folders(out: Path, names: Iterable[str]) -> None:
    """Remove the folders below `out` that the named files were in, where they are empty."""
    for folder in {parent for name in names for parent in Path(name).parents if parent != Path()}:
        with suppress(OSError):
            (out / folder).rmdir()
