"""Files as parts of at most a given size, with a checksum each and a list: for ways that carry nothing larger.

The files stand one after another, and are cut wherever a part is full. `<name>.json` lists the parts and the files. The
parts of each writing have a number of their own, so that those of two writings cannot be taken for each other, and the
old ones are removed once the new ones and their list are whole: a process that is killed leaves one or the other.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from galaxies.common.durable_files import plain_errors, remove_dead_temporaries, sync_folder, whole_file
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.reading import MissingError, UnreadableError, read_bytes, read_json
from galaxies.common.schema import anything, entries, items, text, whole

PART_BYTES = 15_900_000  # below both 16 MB and 16 MiB
_FORMAT_VERSION = 1
_MOST_BYTES = 1 << 34  # of a part, whatever its list says
_LIST = entries(
    {
        "format_version": whole(1, _FORMAT_VERSION),
        "parts": items(entries({"name": text(), "bytes": whole(0, _MOST_BYTES), "sha256": text()})),
        "files": items(entries({"name": text(most=200), "bytes": whole(0)})),
        "note": anything(),
        "sha256": text(),
    }
)


def write_parts(
    folder: Path, name: str, files: Mapping[str, Path], limit: int = PART_BYTES, note: Any = None
) -> list[Path]:
    """Write files as parts into a folder, in place of what was written there under the same name.

    Parameters
    ----------
    folder : Path
        Is made if it is not there.
    name : str
        Of letters, digits and '-': the parts are ``<name>_<writing>_<number>.part``, the list is ``<name>.json``.
    files : mapping of str to Path
        By the relative names, with '/', that they get when they are taken apart.
    limit : int
        Bytes of a part, at most.
    note
        A JSON value that goes into the list; `read_note` returns it.

    Returns
    -------
    list of Path
        All that was written.

    Raises
    ------
    UserError
        If something cannot be read or written; what was there before stays.
    """
    catalogue = folder / f"{name}.json"
    with plain_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((_writing_of(path.name, name) for path in folder.iterdir()), default=0)
        parts: list[dict[str, Any]] = []
        sizes = {key: path.stat().st_size for key, path in files.items()}
        try:
            for content in _cut(files.values(), limit):
                part = f"{name}_{number}_{len(parts) + 1}.part"
                with whole_file(folder / part) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                parts.append({"name": part, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
            if sum(part["bytes"] for part in parts) != sum(sizes.values()):
                raise UserError(f"files of {folder} changed while they were written: try again")
            entries = [{"name": key, "bytes": size} for key, size in sizes.items()]
            listed = {"format_version": _FORMAT_VERSION, "parts": parts, "files": entries, "note": note}
            remove_dead_temporaries(catalogue)
            with whole_file(catalogue) as file:
                file.write((json_text({**listed, "sha256": _digest(listed)}, indent=1) + "\n").encode())
        except BaseException:
            for written in parts:  # which no list names
                with suppress(OSError):
                    (folder / written["name"]).unlink()
            raise
        sync_folder(folder)
        kept = {part["name"] for part in parts}
        for path in list(folder.iterdir()):
            if _writing_of(path.name, name) and path.name not in kept:
                path.unlink(missing_ok=True)
    return [catalogue, *(folder / part["name"] for part in parts)]


def has_parts(folder: Path, name: str) -> bool:
    """Tell whether something was written in parts under a name, whole or not."""
    return (folder / f"{name}.json").is_file()


def read_note(folder: Path, name: str) -> Any:
    """Return the note in the list of parts.

    Raises
    ------
    UserError
        If the list is missing or damaged.
    """
    return _read_list(folder / f"{name}.json")["note"]


def read_parts(folder: Path, name: str, out: Path) -> list[str]:
    """Put the files together again, in the folder `out`, and return their names.

    Raises
    ------
    UserError
        If a part is missing or damaged, or something cannot be written.
    """
    listed = _read_list(folder / f"{name}.json")
    stream = _Stream(_contents(folder, listed["parts"]))
    with plain_errors(out):
        for entry in listed["files"]:
            with whole_file(out / entry["name"]) as file:
                left = entry["bytes"]
                while left > 0:
                    left -= file.write(stream.read(left))
    return [entry["name"] for entry in listed["files"]]


class _Stream:
    """The bytes of parts, one part in memory at a time."""

    def __init__(self, contents: Iterator[bytes]) -> None:
        self._contents = contents
        self._left = memoryview(b"")

    def read(self, most: int) -> memoryview:
        """Return the next bytes, at least one and at most `most`."""
        if not self._left:
            self._left = memoryview(next(self._contents))
        taken, self._left = self._left[:most], self._left[most:]
        return taken


def _cut(paths: Iterable[Path], limit: int) -> Iterator[bytes]:
    """Yield the contents of files one after another, `limit` bytes at a time."""
    full = bytearray()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(limit - len(full)):
                full += block
                if len(full) == limit:
                    yield bytes(full)
                    full.clear()
    if full:
        yield bytes(full)


def _contents(folder: Path, parts: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield what is in the parts, each checked before anything of it is used."""
    for part in parts:
        path = folder / part["name"]
        try:
            content = read_bytes(path, _MOST_BYTES, "copy it again")
        except MissingError:
            raise UserError(f"{path} is missing: copy all files that the last call left there") from None
        if len(content) != part["bytes"] or hashlib.sha256(content).hexdigest() != part["sha256"]:
            raise UserError(f"{path} is damaged (its checksum is wrong): copy it again")
        yield content


def _read_list(path: Path) -> dict[str, Any]:
    try:
        listed: dict[str, Any] = read_json(path, _LIST)
        complete = listed.pop("sha256") == _digest(listed)
        total = sum(part["bytes"] for part in listed["parts"])
        complete = complete and total == sum(entry["bytes"] for entry in listed["files"])
        # No name leads out of the folder.
        names = [PurePosixPath(entry["name"]) for entry in listed["files"]]
        complete = complete and not any(
            p.is_absolute() or {"..", ""} & {*p.parts} or re.search(r"[\\:]", str(p)) for p in names
        )
        complete = complete and not any(re.search(r"[\\/:]", part["name"]) for part in listed["parts"])
    except MissingError:
        raise UserError(f"{path} is missing: copy all files that the last call left there") from None
    except UnreadableError:
        complete = False
    if not complete:
        raise UserError(f"{path} is damaged or of a newer program: copy it again, or use a newer program")
    return listed


def _writing_of(file: str, name: str) -> int:
    """Return the number of the writing that a part belongs to, from 1 on; 0 if it is no part of that name."""
    found = re.fullmatch(rf"\.?{re.escape(name)}_(\d+)_\d+\.part((\.\d+)?\.tmp)?", file)
    return int(found[1]) if found else 0


def _digest(listed: dict[str, Any]) -> str:
    return hashlib.sha256(json_text(listed, sort_keys=True).encode()).hexdigest()
