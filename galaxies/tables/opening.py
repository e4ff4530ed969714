"""Open a table from elsewhere as plain text: unpacked, decoded if need be, and watched while it is read.

Nothing is unpacked to the disk, and never is more than a block in memory, so that neither a damaged file nor one made
to do harm costs more than a sentence.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import importlib
import io
import lzma
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from galaxies.common.errors import UserError, shown
from galaxies.common.reading import open_regular
from galaxies.common.untrusted_files import READ_ERRORS, UntrustedFileError

# The tables of Galaxy Zoo have up to 360 MB, 356,000 rows and 8 kB a line.
MAX_TABLE_BYTES = 2_000_000_000
MAX_ROWS = 2_000_000
MAX_LINE_BYTES = 1 << 18
UNPACK_ERRORS = (*READ_ERRORS, lzma.LZMAError)
BLOCK = 1 << 16
_DICTIONARY_BYTES = 256 << 20  # of xz and Zstandard: what a file may ask to have in memory while it is unpacked
_TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".tab", ".fits", ".fit")
# UTF-32 first: in the order of Intel its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, ""),
    (codecs.BOM_UTF32_BE, ""),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class _Unpacked(io.RawIOBase):
    """What a packed stream holds, by a decompressor of the standard library; of several packed parts, all."""

    def __init__(self, stream: IO[bytes], new: Callable[[], Any], error: type[Exception] = OSError) -> None:
        super().__init__()
        self._stream, self._new, self._decompressor, self._error = stream, new, new(), error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            packed = b""
            if self._decompressor.eof:
                packed = self._decompressor.unused_data or self._stream.read(BLOCK)
                if not packed.strip(b"\0"):  # nothing more, or padding
                    return 0
                self._decompressor = self._new()
            elif self._decompressor.needs_input and not (packed := self._stream.read(BLOCK)):
                raise EOFError("it ends in the middle")
            try:
                data = self._decompressor.decompress(packed, len(buffer))
            except self._error as error:
                raise UntrustedFileError(f"what packs it is damaged: {error}") from error
            if data:
                buffer[: len(data)] = data
                return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _zstandard(stream: IO[bytes]) -> Any:
    """Unpack Zstandard: Python can from 3.14 on, and before that by a package of the same code."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            zstd: Any = importlib.import_module(name)
            largest = {zstd.DecompressionParameter.window_log_max: _DICTIONARY_BYTES.bit_length() - 1}
            new = partial(zstd.ZstdDecompressor, options=largest)
            return _Unpacked(stream, new, zstd.ZstdError)
    raise UntrustedFileError(
        "it is packed by Zstandard, which needs the package backports.zstd before Python 3.14: python -m pip install "
        "backports.zstd, or unpack it"
    )


def _zip(stream: IO[bytes]) -> Any:
    """Unpack the one table of a zip file."""
    archive = zipfile.ZipFile(stream)
    names = [PurePosixPath(info.filename) for info in archive.infolist() if not info.is_dir()]
    if any(name.parts[:1] == ("xl",) for name in names) or any(name.name == "content.xml" for name in names):
        raise UntrustedFileError("it is a file of a spreadsheet program: save its table as CSV, with the ids as text")
    if names and all(name.suffix == ".npy" for name in names):
        raise UntrustedFileError("it holds arrays of NumPy and no table")
    tables = [
        info
        for info in archive.infolist()
        if PurePosixPath(info.filename).suffix.lower() in _TEXT_ENDINGS
        and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(info.filename).parts)
    ]
    if len(tables) != 1:
        found = f"{len(tables)} tables, such as {shown(tables[0].filename)}" if tables else "no table"
        raise UntrustedFileError(f"it is a zip file with {found}: unpack the one that is meant")
    if tables[0].flag_bits & 1:
        raise UntrustedFileError(f"its entry {shown(tables[0].filename)} is encrypted: unpack it first")
    return archive.open(tables[0])


_PACKINGS: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
    (b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
    (b"BZh", lambda stream: _Unpacked(stream, bz2.BZ2Decompressor)),
    (b"\xfd7zXZ\0", lambda stream: _Unpacked(stream, lambda: lzma.LZMADecompressor(memlimit=_DICTIONARY_BYTES))),
    (b"\x28\xb5\x2f\xfd", _zstandard),
    (b"PK\x03\x04", _zip),
)


def unpacked(stream: IO[bytes]) -> Any:
    """Return a reader of what a file holds that is plain, or packed by gzip, bzip2, xz, Zstandard or zip.

    How it is packed is seen by its first bytes, since browsers unpack files and keep their names. A zip file has to
    hold one table. Closing the reader need not close the file.

    Raises
    ------
    UntrustedFileError
        If it cannot be unpacked; here and while reading, also others of `UNPACK_ERRORS`.
    """
    start = stream.read(8)
    stream.seek(0)
    return next((unpack(stream) for mark, unpack in _PACKINGS if start.startswith(mark)), stream)


def hold_the_same(*files: Path) -> bool:
    """Tell whether several files hold the same once they are unpacked.

    Raises
    ------
    UserError
        If one cannot be read.
    """
    try:
        with ExitStack() as stack:
            readers = [io.BufferedReader(unpacked(stack.enter_context(open_regular(file))), BLOCK) for file in files]
            while True:
                blocks = [reader.read(BLOCK) for reader in readers]
                if any(block != blocks[0] for block in blocks):
                    return False
                if not blocks[0]:
                    return True
    except UNPACK_ERRORS as error:
        raise UserError(f"{' or '.join(map(str, files))} cannot be read ({error}): remove the damaged one") from error


class TableStream(io.RawIOBase):
    """The bytes of a table as text, unpacked and from UTF-16 to UTF-8 if need be, and watched while they are read.

    Parameters
    ----------
    file : Path
        Table, plain or packed; see `unpacked`.
    most_bytes, most_rows : int
        From which on it is refused, as one that was made to fill the memory; by default what fits in there.

    Attributes
    ----------
    size, lines : int
        Bytes and line ends so far.

    Raises
    ------
    UserError
        If there is no such file.
    UntrustedFileError
        Also while reading: at a NUL byte, a line without end, or too much of anything (a bomb).
    """

    def __init__(self, file: Path, most_bytes: int | None = None, most_rows: int | None = None) -> None:
        super().__init__()
        self._most_bytes, self._most_rows = most_bytes or MAX_TABLE_BYTES, most_rows or MAX_ROWS
        self.size = self.lines = self._line = 0
        self._recoded = b""
        self._file = self._stream = open_regular(file)
        try:
            self._stream = unpacked(self._file)
            self._start = self._stream.read(4)
            encoding = next((name for mark, name in _MARKS if self._start.startswith(mark)), None)
            if encoding == "":
                raise UntrustedFileError("it is text in UTF-32: save it in UTF-8")
            self._decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        except BaseException:
            self.close()
            raise

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to a buffer's length of bytes; see `io.RawIOBase`."""
        most = min(len(buffer), BLOCK)
        data = self._next_recoded(most) if self._decoder else self._next(most)
        self.size += len(data)
        self.lines += data.count(b"\n") or data.count(b"\r")
        last = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self._line = self._line + len(data) if last < 0 else len(data) - last - 1
        if self.size > self._most_bytes or self.lines > self._most_rows:
            raise UntrustedFileError(f"it goes on after {self.size / 1e6:.0f} MB and {self.lines} lines")
        if self._line > MAX_LINE_BYTES:
            raise UntrustedFileError(f"line {self.lines + 1} has more than {MAX_LINE_BYTES} bytes")
        if b"\0" in data:
            raise UntrustedFileError("it holds NUL bytes, which no text has")
        buffer[: len(data)] = data
        return len(data)

    def _next(self, most: int) -> bytes:
        start, self._start = self._start, b""
        return start + self._stream.read(most - len(start))

    def _next_recoded(self, most: int) -> bytes:
        """Return up to `most` bytes in UTF-8 of a file in UTF-16."""
        assert self._decoder is not None
        while not self._recoded:
            read = self._next(BLOCK)
            self._recoded = self._decoder.decode(read, final=not read).encode()
            if not read:
                break
        data, self._recoded = self._recoded[:most], self._recoded[most:]
        return data

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._file.close()
        super().close()


class TableSurvey(NamedTuple):
    """What a table is: its column names in lower case, its rows, and the SHA-256 of its unpacked bytes."""

    columns: tuple[str, ...]
    rows: int
    sha256: str


def survey_table(file: Path) -> TableSurvey:
    """Read a CSV file, plain or packed, from its header to its end.

    Raises
    ------
    UserError
        If there is no such file.
    UntrustedFileError
        If it is damaged, cut short within what packs it, or refused by `TableStream`.
    """
    digest = hashlib.sha256()
    try:
        with io.BufferedReader(TableStream(file), BLOCK) as stream:
            header = stream.readline()
            digest.update(header)
            ended = True
            while block := stream.read(BLOCK):
                digest.update(block)
                ended = block.endswith(b"\n")
            rows = stream.raw.lines - 1 + (not ended)
    except UntrustedFileError:
        raise
    except UNPACK_ERRORS as error:
        raise UntrustedFileError(f"it cannot be unpacked: {error}") from error
    names = header.decode("utf-8-sig", "replace").split(",")
    return TableSurvey(tuple(name.strip().strip('"').lower() for name in names), max(rows, 0), digest.hexdigest())
