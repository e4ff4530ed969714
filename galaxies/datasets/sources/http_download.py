"""Download a file over HTTP so that neither a cut connection nor a killed process loses what had arrived."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from tqdm import tqdm

from galaxies.common.durable_files import replace_file
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.reading import UnreadableError, read_json
from galaxies.common.schema import either, entries, exactly, text, whole

_BLOCK = 1 << 16
_HEADERS = {
    # Zenodo answers 403 to the names of common libraries, python-requests among them.
    "User-Agent": "galaxy-physics/1 (resuming download of Galaxy Zoo 2)",
    # Compressed on the way, offsets and lengths would not be those of the file.
    "Accept-Encoding": "identity",
}
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_PAGES = ("text/html", "application/xhtml+xml", "application/json", "application/xml", "text/xml")
_WORDS = either(exactly(None), text())
_NOTES = entries({"url": text(), "etag": _WORDS, "date": _WORDS, "total": either(exactly(None), whole(0))})
_AGAIN = "run the same command again, which goes on where it stopped"


class Patience(NamedTuple):
    """How long to try: seconds without a byte, attempts in a row that bring nothing, and the pauses between them.

    The pause doubles from `pause_s` to `longest_pause_s`; a server that asks for a longer one ends the download.
    """

    timeout_s: float = 60.0
    attempts: int = 6
    pause_s: float = 1.0
    longest_pause_s: float = 120.0


PATIENCE = Patience()


class RemoteFile(NamedTuple):
    """What is known of a file before it is there.

    Attributes
    ----------
    name : str
        For messages.
    begins : bytes
        Its first bytes; empty for text, which is only told from a web page.
    smallest, largest : int
        Sizes that are plausible.
    by_hand : str
        How to do without this program, for the end of a sentence.
    """

    name: str
    begins: bytes
    smallest: int
    largest: int
    by_hand: str


class _CutError(Exception):
    """An attempt ended early, in a way that another may not; `wait_s` is the least pause before it."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class ResumingDownloader:
    """Download one file; a `downloader` for pooch.

    pooch hands over the random name of an empty file, which is lost when the process dies. So the bytes are collected
    in `partial`, whose name is always the same, and a finished and checked file takes the name that pooch gave. Beside
    `partial`, a .json file keeps the ETag and the date of what is being downloaded, so that the rest of another file
    is never put behind it.

    Parameters
    ----------
    remote : RemoteFile
    partial : Path
        Where bytes are collected.
    check : callable
        Called with `partial` once it is complete; raises `UserError` if the file is not what it should be.
    patience : Patience

    Raises
    ------
    UserError
        When called, if the server refuses, sends something else, or is not reached; or the disk does not take it.
    """

    def __init__(
        self, remote: RemoteFile, partial: Path, check: Callable[[Path], None], patience: Patience = PATIENCE
    ) -> None:
        self.remote = remote
        self.partial = partial
        self.check = check
        self.patience = patience
        self._notes_file = partial.with_name(partial.name + ".json")
        self._ranges = self._conditions = True  # until the server shows that it does not understand them

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url`, check it and give it the name `output_file`."""
        self._fetch(url)
        try:
            self.check(self.partial)
        except UserError:
            self.partial.unlink(missing_ok=True)  # complete and wrong: nothing to go on from
            raise
        replace_file(self.partial, Path(output_file))
        self._notes_file.unlink(missing_ok=True)

    def _fetch(self, url: str) -> None:
        """Try until the partial file is complete; only attempts without anything new are counted."""
        failures, furthest = 0, self._size()
        with requests.Session() as session, tqdm(desc=self.remote.name, unit="B", unit_scale=True, leave=False) as bar:
            session.headers.update(_HEADERS)
            complete = False
            while not complete:
                try:
                    complete = self._attempt(session, url, bar)
                except _CutError as error:
                    failures = 0 if self._size() > furthest else failures + 1
                    furthest = max(furthest, self._size())
                    if failures >= self.patience.attempts:
                        raise UserError(
                            f"{self.remote.name} is not complete ({self._size() / 1e6:.1f} MB have arrived), since "
                            f"{urlsplit(url).netloc} {error}, {failures} times in a row: {_AGAIN}, or "
                            f"{self.remote.by_hand}"
                        ) from error
                    bar.set_postfix_str(f"{error}; trying again")
                    pause = self.patience.pause_s * 2 ** max(failures - 1, 0)
                    time.sleep(max(min(pause, self.patience.longest_pause_s), error.wait_s))

    def _attempt(self, session: requests.Session, url: str, bar: Any) -> bool:
        """Ask for what is missing and store what comes; return whether the file is complete."""
        notes = self._notes(url)
        offset = self._size() if notes and self._ranges else 0
        if offset and offset == notes["total"]:
            return True
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        strong = None if str(notes.get("etag")).startswith("W/") else notes.get("etag")
        if offset and self._conditions and (validator := strong or notes.get("date")):
            headers["If-Range"] = validator
        with self._get(session, url, headers) as response:
            new = _notes_of(url, response)
            if response.status_code == 206 and offset:
                found = re.fullmatch(
                    r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip()
                )
                if found is None or int(found[1]) != offset:
                    self._ranges = False
                    return False
                new["total"] = None if found[2] == "*" else int(found[2])
                if not _same(notes, new):
                    self._write([], "wb")
                    return False
            elif response.status_code == 200:
                if "If-Range" in headers and _same(notes, new) and (new["etag"] or new["date"]):
                    # The file is the same, and yet all of it is sent: the server cannot compare, only cut.
                    self._conditions = False
                    return False
                offset = 0
            elif response.status_code == 416 and offset:
                if response.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
                    return True
                self._write([], "wb")
                return False
            else:
                self._refuse(response, urlsplit(url).netloc)
            kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
            if kind in _PAGES or kind.endswith("+json"):
                raise self._page(url)
            return self._store(response, new, offset, url, bar)

    def _get(self, session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
        try:
            response = session.get(url, headers=headers, stream=True, timeout=self.patience.timeout_s)
        except requests.exceptions.Timeout as error:
            raise _CutError(self._silence()) from error
        except requests.exceptions.ConnectionError as error:
            if isinstance(error, requests.exceptions.SSLError):
                raise UserError(
                    f"{self.remote.name}: the certificate of {urlsplit(url).netloc} is not accepted: set this "
                    f"computer's date and update the package certifi, or {self.remote.by_hand}"
                ) from error
            raise _CutError("cannot be reached") from error
        except requests.exceptions.RequestException as error:
            reason = str(error).rstrip(".")
            raise UserError(f"{self.remote.name} cannot be asked for ({reason}): {self.remote.by_hand}") from error
        steps = [*response.history, response]
        if url.startswith("https:") and not all(step.url.startswith("https:") for step in steps):
            response.close()
            raise UserError(f"{self.remote.name}: the address leads to one without encryption: {self.remote.by_hand}")
        return response

    def _store(self, response: requests.Response, new: dict[str, Any], offset: int, url: str, bar: Any) -> bool:
        """Append the body of an answer, or begin anew with it if `offset` is 0."""
        total = new["total"]
        blocks = self._blocks(response)
        if offset == 0:
            if total is not None and not self.remote.smallest <= total <= self.remote.largest:
                raise UserError(
                    f"{self.remote.name} at {urlsplit(url).netloc} has {total} bytes and should have "
                    f"{self.remote.smallest} to {self.remote.largest}: try again later, or {self.remote.by_hand}"
                )
            first = b""
            while len(first) < 16 and (block := next(blocks, b"")):
                first += block
            self._refuse_beginnings(first, url)
            # Emptied before the notes change: bytes of one file never stand beside notes of another.
            self._write([], "wb")
            self._notes_file.write_text(json_text(new), encoding="utf-8")
            self._write([first], "ab")
            offset = len(first)
        bar.reset(total)
        bar.initial = bar.n = offset
        bar.set_postfix_str("")
        self._write(_counted(blocks, bar), "ab")
        if total is not None and self._size() < total:
            raise _CutError("cut the connection")
        return True

    def _blocks(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the body as it was sent; a file that is stored compressed is not unpacked on the way."""
        try:
            yield from response.raw.stream(_BLOCK, decode_content=False)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise _CutError(self._silence()) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _CutError("cut the connection") from error

    def _write(self, blocks: Iterator[bytes] | list[bytes], mode: str) -> None:
        try:
            with self.partial.open(mode) as stream:
                for block in blocks:
                    stream.write(block)
                    if stream.tell() > self.remote.largest:
                        raise UserError(
                            f"{self.remote.name} does not end after {stream.tell()} bytes, more than it can have: "
                            f"{self.remote.by_hand}"
                        )
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.partial}: {error.strerror or error}: make room for it, then {_AGAIN}"
            ) from error

    def _refuse(self, response: requests.Response, host: str) -> None:
        """Raise what an answer without a file calls for."""
        status = response.status_code
        if status in _TRY_AGAIN:
            wait = _retry_after(response.headers.get("Retry-After", ""))
            if wait > self.patience.longest_pause_s:
                raise UserError(
                    f"{self.remote.name}: {host} asks to wait {wait / 60:.0f} minutes ({status} {response.reason}): "
                    f"after that, {_AGAIN}"
                )
            raise _CutError(f"answered {status} {response.reason}", wait)
        raise UserError(
            f"{self.remote.name}: {host} answered {status} {response.reason}: try again later, or {self.remote.by_hand}"
        )

    def _page(self, url: str) -> UserError:
        return UserError(
            f"{self.remote.name}: {urlsplit(url).netloc} answered with a web page instead of the file: try again "
            f"later, or {self.remote.by_hand}"
        )

    def _refuse_beginnings(self, first: bytes, url: str) -> None:
        start = first.lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start:
            raise UserError(f"{self.remote.name} is empty at its source: try again later, or {self.remote.by_hand}")
        if start.startswith((b"<", b"{")):
            raise self._page(url)
        if not first.startswith(self.remote.begins):
            raise UserError(
                f"{self.remote.name} at {urlsplit(url).netloc} does not begin like a {Path(self.remote.name).suffix} "
                f"file: try again later, or {self.remote.by_hand}"
            )

    def _silence(self) -> str:
        return f"sent nothing for {self.patience.timeout_s:g} s"

    def _size(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _notes(self, url: str) -> dict[str, Any]:
        """Read what the partial file is the beginning of; nothing if that is not known or another URL."""
        try:
            notes: dict[str, Any] = read_json(self._notes_file, _NOTES)
        except UnreadableError:  # then it is fetched from its beginning
            return {}
        return notes if notes["url"] == url else {}


def _notes_of(url: str, response: requests.Response) -> dict[str, Any]:
    length = response.headers.get("Content-Length", "")
    return {
        "url": url,
        "etag": response.headers.get("ETag"),
        "date": response.headers.get("Last-Modified"),
        "total": int(length) if re.fullmatch("[0-9]{1,18}", length) else None,
    }


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Tell whether two answers are of one file, by what both of them say; copies with one ETag may differ in date."""
    keys = ("etag", "total") if old["etag"] and new["etag"] else ("date", "total")
    return all(None in (old[key], new[key]) or old[key] == new[key] for key in keys)


def _counted(blocks: Iterator[bytes], bar: Any) -> Iterator[bytes]:
    for block in blocks:
        yield block
        bar.update(len(block))


def _retry_after(value: str) -> float:
    """Read a Retry-After header, seconds or a date, as seconds from now."""
    if re.fullmatch("[0-9]{1,9}", value.strip()):
        return float(value)
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    return 0.0
