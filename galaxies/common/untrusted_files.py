"""Read zip files of pictures that came from elsewhere, and may be damaged or made to do harm.

Nothing is unpacked to the disk and no name in a file is ever opened as a path. Dangerous names are refused all the
same: an archive that holds one is not what it says it is. Sizes are checked before memory is spent on them.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from galaxies.common.errors import shown

SUFFIXES = (".jpg", ".jpeg", ".png")
# The release has 490,000 entries of some 15 kB.
MAX_PICTURE_BYTES = 64 << 20
MAX_ENTRIES = 2_000_000
_MAX_RATIO = 200  # deflate reaches 1000 on zeros; pictures, compressed already, stay below 2
# What zipfile, zlib and gzip raise on damaged data.
READ_ERRORS = (OSError, EOFError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error)


class UntrustedFileError(ValueError):
    """What is wrong with a file, as a clause: "its entry 'x' is encrypted"."""


def is_picture(parts: tuple[str, ...]) -> bool:
    """Tell whether the parts of a path name a JPEG or PNG file that is not hidden or AppleDouble."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and bool(parts) and parts[-1].lower().endswith(SUFFIXES)


def picture_entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """List the pictures of a zip file in the order in which they are stored.

    Raises
    ------
    UntrustedFileError
        If any entry's name leads out of the archive, any entry is a link or shares its bytes with another, there
        are far too many, or a picture is encrypted, oddly packed or absurdly large.
    """
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise UntrustedFileError(f"it has {len(entries)} entries, more than any archive of galaxies")
    pictures = []
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name = entry.orig_filename  # zipfile itself cuts `filename` at a NUL and turns separators
        kind = stat.S_IFMT(entry.external_attr >> 16)
        leaves = ".." in name and ".." in name.replace("\\", "/").split("/")
        if leaves or name[:1] in ("", "/", "\\") or name[1:2] == ":" or "\0" in name:
            raise UntrustedFileError(f"the name of its entry {shown(name)} leads out of the archive")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UntrustedFileError(f"its entry {shown(name)} is a link or a device")
        if entry.header_offset < end:
            raise UntrustedFileError(f"its entry {shown(name)} overlaps the one before")
        end = entry.header_offset + 30 + entry.compress_size  # a header has at least 30 bytes
        if entry.is_dir() or not is_picture(PurePosixPath(entry.filename).parts):
            continue
        if entry.flag_bits & 1:
            raise UntrustedFileError(f"its entry {shown(name)} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UntrustedFileError(f"its entry {shown(name)} is neither stored nor deflated")
        small = entry.file_size <= 1 << 20 or entry.file_size <= _MAX_RATIO * entry.compress_size
        if entry.file_size > MAX_PICTURE_BYTES or not small:
            raise UntrustedFileError(
                f"its entry {shown(name)} unpacks from {entry.compress_size} to {entry.file_size} bytes"
            )
        pictures.append(entry)
    return pictures


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read one of `picture_entries`, and its checksum with it.

    Raises
    ------
    OSError, zipfile.BadZipFile
        If it cannot be read whole.
    """
    try:
        with archive.open(entry) as stream:
            # With a limit, since read() without one unpacks everything before it looks at the size that was announced.
            return stream.read(entry.file_size + 1)
    except (OSError, zipfile.BadZipFile):
        raise
    except READ_ERRORS as error:
        raise zipfile.BadZipFile(f"entry {shown(entry.filename)} cannot be read: {error}") from error


def check_archive(file: Path, least: int, thorough: bool, progress: Callable[[int], object]) -> None:
    """Check that a zip file is complete and holds pictures.

    Parameters
    ----------
    file : Path
    least : int
        Pictures that it has at least.
    thorough : bool
        Read every picture and compare its checksum.
    progress : callable
        Called with the number of bytes read since the last call.

    Raises
    ------
    UntrustedFileError
        If it is damaged or `picture_entries` refuses it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            pictures = picture_entries(archive)
            if len(pictures) < least:
                raise UntrustedFileError(f"it holds {len(pictures)} pictures instead of {least} or more")
            for entry in pictures if thorough else ():
                read_entry(archive, entry)
                progress(entry.compress_size)
    except UntrustedFileError:
        raise
    except READ_ERRORS as error:
        raise UntrustedFileError(f"it is no complete zip file: {error}") from error
