"""Read files that were not written a moment ago by this very process: regular ones, up to a size, and JSON in them.

A path that a user gives, or that stands in a file, may lead to a pipe that nobody writes to, to a device without end,
to a folder, or to JSON that another program wrote. Each costs one sentence here, so that no reader needs rules of its
own.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

from galaxies.common.errors import UserError, shown
from galaxies.common.schema import Check, SchemaError

JSON_BYTES = 64 << 20  # of a JSON file, where its reader sets no limit of its own
MAX_DEPTH = 64  # of lists and objects within each other; a report has 9
MAX_DIGITS = 40  # of a whole number; a seed has 19
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnreadableError(UserError):
    """A file that cannot be read, or whose content is not what it has to be."""


class MissingError(UnreadableError):
    """A file that is not there."""


class NotAFileError(UnreadableError):
    """A folder, a pipe, a socket or a device."""


class NotAllowedError(UnreadableError):
    """A file that this user must not read."""


class TooLongError(UnreadableError):
    """A file of more bytes than any of its kind has."""


class JsonError(ValueError):
    """What is wrong with a text as JSON, as a clause: "it is no JSON (…)"."""


def open_regular(path: Path, cure: str = "") -> IO[bytes]:
    """Open a regular file for reading, and nothing else: a pipe or a device could keep the reader for ever.

    Parameters
    ----------
    path : Path
    cure : str
        What to do if it cannot be read, which ends the sentence.

    Returns
    -------
    binary file, buffered

    Raises
    ------
    MissingError
        If there is no such file.
    UnreadableError
        If it is a folder, a pipe, a socket or a device (`NotAFileError`), or must not (`NotAllowedError`) or cannot be
        opened.
    """
    try:
        # Before it is opened too: to open a pipe is to wait for its other end.
        _refuse_all_but_files(path, path.stat().st_mode, cure)
        file = path.open("rb")
        try:
            _refuse_all_but_files(path, os.fstat(file.fileno()).st_mode, cure)
        except BaseException:
            file.close()
            raise
        return file
    except (OSError, ValueError) as error:  # a ValueError: a name with a NUL, or one that no encoding has
        _refuse(path, error, cure)


def check_regular(path: Path, cure: str = "") -> None:
    """Refuse what `open_regular` would, for readers that want a name: numpy's memory maps and archives, for two."""
    open_regular(path, cure).close()


def read_bytes(path: Path, limit: int, cure: str = "") -> bytes:
    """Read a regular file of at most `limit` bytes, whatever size it says that it has.

    Raises
    ------
    UnreadableError
        As `open_regular` does, and if there is more (`TooLongError`).
    """
    with open_regular(path, cure) as file:
        try:
            # A file may be longer than it says; memory for the limit is asked for in that case only.
            said = min(os.fstat(file.fileno()).st_size, limit) + 1
            content = file.read(said)
            if len(content) == said:
                content += file.read(limit + 1 - said)
        except OSError as error:
            _refuse(path, error, cure)
    if len(content) > limit:
        raise TooLongError(_sentence(f"{path} has more than {limit / 1e6:.3g} MB, which none of its kind has", cure))
    return content


def read_text(path: Path, limit: int = JSON_BYTES, cure: str = "") -> str:
    """Read a regular file of text in UTF-8, with or without a byte order mark; see `read_bytes` for the errors."""
    try:
        return read_bytes(path, limit, cure).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(_sentence(f"{path} is no text in UTF-8 (byte {error.start})", cure)) from None


def read_json(
    path: Path, expected: Check | None = None, limit: int = JSON_BYTES, cure: str = "", constants: bool = False
) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : Path
    expected : Check, optional
        What the content has to be, by the checks of `schema`; by default an object.
    limit : int
        Bytes, at most.
    cure : str
        What to do if it cannot be read, which ends the sentence.
    constants : bool
        Accept NaN and the infinities, which standard JSON has not.

    Raises
    ------
    MissingError
        If there is no such file.
    UnreadableError
        If it cannot be read, is no JSON, or is not what is expected.
    """
    try:
        value = parse_json(read_bytes(path, limit, cure), constants)
        if expected is not None:
            expected(value)
        elif not isinstance(value, dict):
            raise JsonError("it holds no JSON object")
    except (JsonError, SchemaError) as error:
        raise UnreadableError(_sentence(f"{path} cannot be used, since {error}", cure)) from None
    return value


def parse_json(content: bytes, constants: bool = False) -> Any:
    """Return the value that JSON in UTF-8 stands for, with or without a byte order mark.

    Raises
    ------
    JsonError
        If it is none: also if a name stands twice in an object, a number is NaN or infinite (unless `constants`) or
        has absurdly many digits, or lists and objects stand within each other more than `MAX_DEPTH` deep.
    """
    try:
        text = content.decode("utf-8-sig")
        floats = float if constants else _finite
        value = json.loads(text, object_pairs_hook=_object, parse_int=_whole, parse_float=floats, parse_constant=floats)
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError(f"it is no text in UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise JsonError(f"its lists and objects are more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise JsonError(f"it is no JSON ({error})") from None
    _check_depth(value)
    return value


def _refuse_all_but_files(path: Path, mode: int, cure: str) -> None:
    if stat.S_ISDIR(mode):
        raise NotAFileError(_sentence(f"{path} is a folder where a file is expected", cure))
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise NotAFileError(_sentence(f"{path} is {kind} where a file is expected", cure))


def _refuse(path: Path, error: Exception, cure: str) -> NoReturn:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise MissingError(_sentence(f"there is no file {path}", cure)) from None
    if isinstance(error, PermissionError):
        raise NotAllowedError(_sentence(f"{path} cannot be read: you are not allowed to", cure)) from None
    if isinstance(error, ValueError):
        raise MissingError(_sentence(f"{shown(str(path))} is no name of a file", cure)) from None
    reason = getattr(error, "strerror", None) or error
    raise UnreadableError(_sentence(f"{path} cannot be read: {reason}", cure)) from None


def _sentence(text: str, cure: str) -> str:
    if not cure:
        return text
    return f"{text}; {cure}" if ": " in text else f"{text}: {cure}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonError(f"the name {shown(twice)} stands twice in an object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise JsonError(f"it has a number of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):  # 1e999 is infinite too
        raise JsonError(f"it has the number {shown(text)}, which is not finite")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise JsonError(f"its lists and objects are more than {MAX_DEPTH} deep")
