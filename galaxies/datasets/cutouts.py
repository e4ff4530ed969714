"""Find and read galaxy cutouts: JPEG or PNG pictures in a folder, or in a zip file that stays packed."""

from __future__ import annotations

import os
import posixpath
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageFile

from galaxies.common.errors import UserError, shown
from galaxies.common.reading import (
    MissingError,
    NotAFileError,
    NotAllowedError,
    TooLongError,
    UnreadableError,
    open_regular,
    read_bytes,
)
from galaxies.common.untrusted_files import (
    MAX_PICTURE_BYTES,
    READ_ERRORS,
    SUFFIXES,
    UntrustedFileError,
    is_picture,
    picture_entries,
    read_entry,
)
from galaxies.datasets.picture_names import Found, PictureIndex, PictureName
from galaxies.images.as_displayed import DeepPictureError, as_displayed, has_no_color
from galaxies.images.opening import MAX_CUTOUT_SIDE_PX, kind_of, open_picture

# Endings of what is no JPEG or PNG, most of the time, and may be asked for by its name: the reason is then said.
_OTHER_SUFFIXES: tuple[str, ...] = (
    ".jfif",
    ".jpe",
    ".tif",
    ".tiff",
    ".gif",
    ".webp",
    ".bmp",
    ".heic",
    ".heif",
    ".avif",
)
_OTHER_SUFFIXES += (".jp2", ".jxl", ".svg", ".pdf", ".fits", ".fit", ".fts", ".fz", ".gz", ".npy")
_START = 1024  # bytes of a file by which its kind is told
_MOST_VISITS = 8  # of one folder by several links


Store = TypeVar("Store", bound="PictureStore")


class Rejection(str, Enum):
    """Why a picture cannot be used."""

    MISSING = "missing"
    AMBIGUOUS = "ambiguous name"
    REPEATED = "picture of another row"
    NOT_A_FILE = "not a file"
    NOT_ALLOWED = "not allowed to read"
    UNREADABLE = "not readable"
    CORRUPT = "corrupt or truncated"
    NOT_AN_IMAGE = "not a JPEG or PNG image"
    TOO_LARGE = "too large"
    GREYSCALE = "greyscale"
    WRONG_SHAPE = "wrong shape"
    TOO_SMALL = "too small for the crop"
    BLANK = "blank"


class LeftOut(NamedTuple):
    """Why a picture cannot be used, and what was found, in words, where the reason does not say it all."""

    reason: Rejection
    detail: str = ""


class Decoded(NamedTuple):
    """A picture that can be used.

    Attributes
    ----------
    image : ndarray, (3, S, S), uint8
        The crop, in RGB.
    crop_px : int
        Side of the crop in pixels of the original picture; `crop_px / S` is the factor by which a pixel grew.
    notes : tuple of str
        What `as_displayed` did to it.
    """

    image: np.ndarray
    crop_px: int
    notes: tuple[str, ...]


class Cutout(NamedTuple):
    """One picture that was asked for.

    Attributes
    ----------
    name : str
        Name as asked for.
    image : ndarray or None, (3, S, S), uint8
        The crop, or None if it was rejected.
    crop_px : int
        As in `Decoded`; 0 if rejected.
    rejection : Rejection or None
        Why there is no image.
    """

    name: str
    image: np.ndarray | None
    crop_px: int
    rejection: Rejection | None


class PictureStore(ABC):
    """What holds pictures: `CutoutSource`, or one file of all of them; a context manager.

    Attributes
    ----------
    path : Path
        Where they are.
    """

    path: Path

    @abstractmethod
    def find(self, name: str) -> bytes | Path | LeftOut:
        """Return the bytes of a picture, or its file, or why there is none; see `CutoutSource.find` for the errors."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open."""

    def __enter__(self: Store) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CutoutSource(PictureStore):
    """The pictures below a folder or in a zip file; a context manager.

    Of a folder everything below it is searched, linked folders too. A picture in `images/` or `images_gz2/` comes
    before one of the same name elsewhere. A zip file is opened if it is named, if it is `images_gz2.zip` and there is
    neither of these folders, or if it is the only one and there is no picture. AppleDouble files (`._*`, `__MACOSX/`)
    and other hidden files are passed over.

    Parameters
    ----------
    path : Path or str
        Folder or zip file.

    Attributes
    ----------
    names : tuple of str
        The pictures, by their paths below the innermost folder that holds all of them, or all where they are expected.
    unlisted : list of str
        Folders that may not be searched, and why, in words.

    Raises
    ------
    UserError
        If there is no such path, a zip file is damaged, or no picture is found.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.unlisted: list[str] = []
        self._zip: zipfile.ZipFile | None = None
        self._others: dict[str, Path | None] = {}
        if not self.path.exists():
            raise UserError(f"{self.path} does not exist: name the folder or zip file of the images")
        self._entries: list[str | zipfile.ZipInfo] = []
        self._aliases: list[tuple[str, int]] = []
        self._linked = False
        root = self.path
        names = self._search(self.path) if self.path.is_dir() else self._open_zip(self.path)
        if self._zip is not None:
            root = self.path.with_suffix("")
        if not names:
            self.close()
            raise UserError(self._without_pictures())
        self._above = Path(os.path.abspath(root)).parts  # noqa: PTH100 - a link's own name is what people write
        self._index = PictureIndex(names, self._above, self._aliases, self._same)
        self._other_index: PictureIndex | None = None
        self._places = {name.relative: place for place, name in enumerate(names)}
        self.names = tuple(sorted(name.short for name in names if name.preferred))

    def _without_pictures(self) -> str:
        text = f"no JPEG or PNG image in {self.path}, its images/ folder or a zip file in it"
        if self._others:
            text += f" ({len(self._others)} other files, such as {shown(next(iter(self._others)))}: save them as PNG)"
        return text + (f"; {self.unlisted[0]}" if self.unlisted else "")

    def _search(self, folder: Path) -> list[PictureName]:
        found = sorted(self._pictures_below(folder))
        expected = next((p for p in ("images/", "images_gz2/") if any(name.startswith(p) for name, _ in found)), "")
        archives = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".zip" and p.name[0] != ".")
        release = [p for p in archives if p.name == "images_gz2.zip"]
        if release and not expected:
            return self._open_zip(release[0])
        if not found and len(archives) > 1:
            raise UserError(f"{folder} holds {len(archives)} zip files: name the one with the images")
        if not found:
            return self._open_zip(archives[0]) if archives else []
        self._entries = [path for _, path in found]
        for place, (name, _) in enumerate(found):
            if not name.isascii() and any("\udc80" <= letter <= "\udcff" for letter in name):  # no UTF-8
                self._aliases.append((os.fsencode(name).decode("cp1252", "replace"), place))
        if expected:
            self.path = folder / expected
        return _named([name for name, _ in found], expected)

    def _pictures_below(self, folder: Path) -> Iterator[tuple[str, str]]:
        """Yield the relative path, with '/', and the path of each picture in a folder and below, through links too."""
        top = folder.stat()
        chains = {str(folder): ((top.st_dev, top.st_ino),)}
        visits: dict[tuple[int, int], int] = {}
        prefix = len(str(folder)) + (not str(folder).endswith(os.sep))

        def cannot(error: OSError) -> None:
            self.unlisted.append(f"{error.filename} cannot be searched: {error.strerror or error}")

        for where, folders, files in os.walk(folder, onerror=cannot, followlinks=True):
            relative = "/".join((*Path(where[prefix:]).parts, ""))
            chain = chains.pop(where, ())
            kept = []
            for name in sorted(folders):
                if not is_picture((name, "1.png")):  # hidden
                    continue
                path = os.path.join(where, name)  # noqa: PTH118 - as many as pictures
                try:
                    status = os.stat(path)  # noqa: PTH116
                except OSError as error:
                    cannot(error)
                    continue
                key = (status.st_dev, status.st_ino)
                visits[key] = visits.get(key, 0) + 1
                self._linked |= visits[key] > 1
                # A link to a folder that it lies in would lead round for ever.
                if status.st_ino and (key in chain or visits[key] > _MOST_VISITS):
                    continue
                chains[path] = (*chain, key)
                kept.append(name)
                if name.lower().endswith(SUFFIXES):
                    self._others[relative + name] = Path(path)
            folders[:] = kept
            for file in files:
                path = os.path.join(where, file)  # noqa: PTH118
                if is_picture((file,)):
                    yield relative + file, path
                elif file.lower().endswith(_OTHER_SUFFIXES) and not file.startswith("."):
                    self._others[relative + file] = Path(path)

    def _open_zip(self, archive: Path) -> list[PictureName]:
        """Open an archive and list its pictures."""
        with open_regular(archive, "name the folder or zip file of the images") as file:
            start = file.read(_START)
        if not start.startswith(b"PK") and (kind := kind_of(start)):
            raise UserError(f"{archive} is no zip file but {kind}: name the folder or zip file of the images")
        try:
            self._zip = zipfile.ZipFile(archive)
            entries = picture_entries(self._zip)
        except UntrustedFileError as error:
            self.close()
            raise UserError(
                f"{archive} is not used, since {error}: download it again, or name the folder of images"
            ) from error
        except READ_ERRORS as error:
            self.close()
            raise UserError(
                f"{archive} is not a complete zip file ({error}): download it again, or name the folder of images"
            ) from error
        self.path = archive
        self._entries = list(entries)
        pictures = {entry.filename for entry in entries}
        for entry in self._zip.infolist():
            if entry.filename not in pictures and entry.filename.lower().endswith(_OTHER_SUFFIXES):
                self._others[entry.filename] = None
        self._aliases = [(alias, k) for k, entry in enumerate(entries) for alias in _aliases(entry)]
        return _named([entry.filename for entry in entries], "")

    def _same(self, one: int, other: int) -> bool:
        """Tell whether two places hold the same picture: one file under two names, or the same bytes."""
        first, second = self._entries[one], self._entries[other]
        if isinstance(first, zipfile.ZipInfo) and isinstance(second, zipfile.ZipInfo):
            return (first.CRC, first.file_size) == (second.CRC, second.file_size)
        try:
            paths = Path(str(first)), Path(str(second))
            if paths[0].samefile(paths[1]):
                return True
            return paths[0].stat().st_size == paths[1].stat().st_size and read_file(paths[0]) == read_file(paths[1])
        except (OSError, UnreadableError):
            return False

    def look_up(self, name: str) -> Found:
        """Return what a name means among the pictures; see `PictureIndex.find`."""
        return self._index.find(name)

    def path_of(self, place: int) -> str:
        """Return the path of a picture below the folder or in the zip file, by which `find` surely finds it."""
        return self._index.names[place].relative

    def nearest(self, name: str) -> str:
        """Return the path of the picture whose name is most like another; empty if none is."""
        place = self._index.nearest(name)
        return "" if place is None else self.path_of(place)

    def same_as(self, place: int) -> object:
        """Return what two places have in common if they are one picture under several names."""
        entry = self._entries[place]
        if isinstance(entry, zipfile.ZipInfo):
            return entry.header_offset
        return os.path.realpath(entry) if self._linked else entry

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a picture, or None if not exactly one has that name; safe in several threads.

        Names and errors are those of `find`, and of `read_file`.
        """
        found = self.find(name)
        return read_file(found) if isinstance(found, Path) else None if isinstance(found, LeftOut) else found

    def find(self, name: str) -> bytes | Path | LeftOut:
        """Return the file of a picture, or its bytes if it is in a zip file, or why there is none.

        A name is looked up among the pictures that were found, and never opened as a path.

        Raises
        ------
        OSError, zipfile.BadZipFile
            If the picture is in a zip file and cannot be read.
        """
        place = self._places.get(name)
        if place is None:
            found = self.look_up(name)
            if len(found.places) > 1:
                return LeftOut(Rejection.AMBIGUOUS, " or ".join(shown(self.path_of(k)) for k in found.places))
            if not found.places:
                return self._other(name)
            place = found.places[0]
        entry = self._entries[place]
        if isinstance(entry, zipfile.ZipInfo):
            assert self._zip is not None
            return read_entry(self._zip, entry)
        return Path(entry)

    def _other(self, name: str) -> Path | LeftOut:
        """Return what is there under a name that no picture has: a folder, or a file of another kind."""
        if self._other_index is None:
            self._other_index = PictureIndex([PictureName(each, each) for each in self._others], self._above)
        found = self._other_index.find(name)
        if len(found.places) != 1 or found.elsewhere:
            return LeftOut(Rejection.MISSING)
        path = self._others[self._other_index.names[found.places[0]].relative]
        return LeftOut(Rejection.NOT_AN_IMAGE, "another ending") if path is None else path

    def close(self) -> None:
        """Close the zip file, if it is one."""
        if self._zip is not None:
            self._zip.close()


def read_file(path: Path) -> bytes:
    """Return the bytes of a picture; raise `UnreadableError` if it cannot be read or is far too large for one."""
    return read_bytes(path, MAX_PICTURE_BYTES)


def _named(names: list[str], expected: str) -> list[PictureName]:
    """Return relative paths with what lies below the innermost folder that holds all of them, or all in `expected`."""
    folders = {place: {posixpath.dirname(n) for n in names if n.startswith(place)} for place in (expected, "")}
    common = {place: posixpath.commonpath(inside) if inside else "" for place, inside in folders.items()}
    named = []
    for name in names:
        preferred = name.startswith(expected)
        named.append(PictureName(name, name.removeprefix(common[expected if preferred else ""]).lstrip("/"), preferred))
    return named


def _aliases(entry: zipfile.ZipInfo) -> list[str]:
    """Return other readings of the name of a zip entry, which need not say how it is encoded.

    Without a flag a name is read as code page 437; many programs write UTF-8 or their system's code page all the same.
    """
    name = entry.filename
    if name.isascii() or entry.flag_bits & 0x800:
        return []
    readings = []
    raw = name.encode("cp437", "replace")
    for encoding in ("utf-8", "cp850", "cp1252"):
        try:
            readings.append(raw.decode(encoding))
        except UnicodeDecodeError:
            continue
    return readings


def decode_cutout(data: bytes, size: int, crop: float = 0.5) -> Decoded | LeftOut:
    """Decode a picture as a viewer shows it, take its central square and scale it to `size` pixels a side.

    Parameters
    ----------
    data : bytes
        Contents of a JPEG or PNG file.
    size : int
        Side S of the result, pixels.
    crop : float
        Side of the central square as a fraction of the picture's, (0, 1].

    Notes
    -----
    A JPEG is decoded at 1/2, 1/4 or 1/8 scale, where libjpeg drops the high frequencies of every block before
    it computes any pixel, as long as the crop keeps at least `size` pixels. That is twice as fast as the full
    decode, from which it differs by 0.3 grey levels on average for SDSS cutouts of 424 pixels.
    """
    try:
        image = open_picture(data)
        if image is None:
            return LeftOut(Rejection.NOT_AN_IMAGE, kind_of(data))
        width, height = image.size
        if max(width, height) > MAX_CUTOUT_SIDE_PX:
            return LeftOut(Rejection.TOO_LARGE, f"{width} x {height} pixels, of at most {MAX_CUTOUT_SIDE_PX} a side")
        crop_px = round(width * crop)
        square = width == height and crop_px >= size
        scale = _draft(image, crop_px, size) if square else 1
        try:
            # Also of what is not used the rest is read, so that a damaged file is not mistaken for a grey or small one.
            displayed = as_displayed(image)
        except DeepPictureError:
            image.load()
            return LeftOut(Rejection.GREYSCALE, "16 bits a pixel")
        if displayed.grey:
            return LeftOut(Rejection.GREYSCALE)
        if width != height:
            return LeftOut(Rejection.WRONG_SHAPE, f"{width} x {height} pixels, and not square")
        if crop_px < size:
            return LeftOut(Rejection.TOO_SMALL, _too_small(width, crop, size))
        low, high = (width - crop_px) / 2 / scale, (width + crop_px) / 2 / scale
        scaled = displayed.image.resize((size, size), Image.Resampling.LANCZOS, box=(low, low, high, high))
    except Exception:  # on damaged data Pillow raises OSError, SyntaxError, ValueError, struct.error and more
        return LeftOut(Rejection.CORRUPT)
    pixels = np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))  # (3, S, S)
    if pixels.min() == pixels.max() or (pixels == pixels[:, :1, :1]).all():
        return LeftOut(Rejection.BLANK)
    if has_no_color(pixels):
        return LeftOut(Rejection.GREYSCALE)
    return Decoded(pixels, crop_px, displayed.notes)


def _too_small(width: int, crop: float, size: int) -> str:
    found = (
        f"{width} pixels a side, of which --crop {crop:g} leaves {round(width * crop)} and --size {size} needs {size}"
    )
    return f"{found}: --crop 1.0 takes the whole {width} pixels" if crop < 1 and width >= size else found


def _draft(image: ImageFile.ImageFile, crop_px: int, size: int) -> int:
    """Ask for the smallest decode whose crop still has `size` pixels; return the reduction that is used."""
    for scale in (8, 4, 2):
        if crop_px >= size * scale:
            side = image.size[0] // scale
            return scale if image.draft("RGB", (side, side)) is not None else 1
    return 1


def decode_found(found: bytes | Path | LeftOut, size: int, crop: float) -> Decoded | LeftOut:
    """Read what `CutoutSource.find` returned, if it is a file, and decode it; see `decode_cutout`."""
    if isinstance(found, LeftOut):
        return found
    if isinstance(found, bytes):
        return decode_cutout(found, size, crop)
    try:
        return decode_cutout(read_file(found), size, crop)
    except UnreadableError as error:
        reason = next((r for kind, r in _REASONS.items() if isinstance(error, kind)), Rejection.UNREADABLE)
        return LeftOut(reason, str(error).removeprefix(f"{found} "))


_REASONS = {
    MissingError: Rejection.MISSING,
    NotAFileError: Rejection.NOT_A_FILE,
    NotAllowedError: Rejection.NOT_ALLOWED,
    TooLongError: Rejection.TOO_LARGE,
}


def found_in(source: PictureStore, name: str) -> bytes | Path | LeftOut:
    """Return `source.find(name)`, a damaged entry of a zip file as a reason too."""
    try:
        return source.find(name)
    except zipfile.BadZipFile as error:
        return LeftOut(Rejection.CORRUPT, str(error))
    except OSError as error:
        return LeftOut(Rejection.UNREADABLE, error.strerror or str(error))
