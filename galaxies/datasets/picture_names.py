"""Which picture a row of a table means: names in any form in which people write them, and the pictures that are there.

A name is cut into folders, file name and ending and compared with those of the pictures from its end. It is never
opened as a path.
"""

from __future__ import annotations

import bisect
import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from galaxies.common.untrusted_files import SUFFIXES

_JPEG = (".jpg", ".jpeg")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^/\\]*")
_DRIVE = re.compile(r"[A-Za-z]:")
_BLANKS = " \t\r\n\f\v\u00a0\ufeff\u200b\u2060"
# Hyphens and the minus sign: a declination that went through a word processor or a typesetter.
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63\uff0d"), "-") | {0xA0: " "}
_MANY = 16  # pictures of one file name from which on what was found is kept
_SHOWN = 3  # of those between which nothing decides
_LOOKED_AT = 200  # names on either side, by the alphabet, among which the nearest is sought
_ALIKE = 0.5  # difflib's ratio from which on a name is near


class Found(NamedTuple):
    """What a name means.

    Attributes
    ----------
    places : tuple of int
        Of the pictures that fit equally well: none, one, or several between which nothing decides.
    elsewhere : bool
        The name has folders in which the picture does not lie, as that of another machine has.
    """

    places: tuple[int, ...]
    elsewhere: bool = False


class PictureName(NamedTuple):
    """What a picture is called.

    Attributes
    ----------
    relative : str
        Its path below the folder that was named, or in the zip file, with '/'.
    short : str
        The same below the innermost folder that holds all pictures.
    preferred : bool
        It lies where pictures are expected, and comes before another of the same name that does not.
    """

    relative: str
    short: str
    preferred: bool = True


class PictureIndex:
    """The names of pictures, ready to be looked up: one pass over all of them, then a few look-ups a name.

    Parameters
    ----------
    names : sequence of PictureName
        A picture's place is its place in here.
    above : sequence of str
        The folders that lead to the folder that was named, outermost first.
    aliases : iterable of (str, int)
        Other relative paths by which pictures may be called, and their places.
    same : callable
        Tells of two places whether they hold the same picture, which then are not two.
    """

    def __init__(
        self,
        names: Sequence[PictureName],
        above: Sequence[str] = (),
        aliases: Iterable[tuple[str, int]] = (),
        same: Callable[[int, int], bool] = lambda one, other: False,
    ) -> None:
        self.names = names
        self._above = [_plain(part) for part in above]
        self._aliases = list(aliases)
        self._same = same
        self._exact: dict[str, int] = {}
        repeated = {
            name.relative for place, name in enumerate(names) if self._exact.setdefault(name.relative, place) != place
        }
        for name in repeated:  # in a zip file: they are told apart below, like all that fit equally well
            del self._exact[name]
        for place, each in enumerate(names):
            if each.short not in repeated:
                self._exact.setdefault(each.short, place)
        # By plain paths without their ending, built when first needed: places of pictures whose path this is, and of
        # those whose path ends so.
        self._whole: dict[str, list[int]] = {}
        self._ends: dict[str, list[int]] = {}
        self._folders: set[str] = set()
        self._deepest = 0
        self._many: dict[str, Found] = {}
        self._alphabet: tuple[list[str], list[str]] | None = None

    def find(self, name: str) -> Found:
        """Return which pictures a name fits best.

        In this order: the path as it is written; the longest end of the path that is a picture's whole path, or the
        whole path as the end of a picture's, whatever the case, accents and ending; and a file name that no other
        picture has, if its folders are none of those here: a folder that is here and does not hold the picture is no
        mistake for another.
        """
        if (place := self._exact.get(name)) is not None:
            return Found((place,))
        parts = parts_of(name)
        if (place := self._exact.get("/".join(parts))) is not None:
            return Found((place,))
        found = self._find_parts(parts)
        if not found.places and "%" in name:  # written for a browser
            return self._find_parts(parts_of(unquote(name)))
        return found

    def _find_parts(self, parts: list[str]) -> Found:
        self._build()
        if not parts:
            return Found(())
        folders = [_plain(part) for part in parts[:-1]]
        stem, ending = split_ending(_plain(parts[-1]))
        path = [*folders, stem]
        if fitting := self._ends.get("/".join(path)) if len(path) <= self._deepest else None:
            return Found(self._best(fitting, parts, ending))
        for length in range(min(len(path) - 1, self._deepest), 0, -1):
            if length == 1 and folders[-1] in self._folders:
                return Found(())
            if fitting := self._whole.get("/".join(path[-length:])):
                places = self._best(fitting, parts, ending)
                return Found(places, self._leads_elsewhere(folders, places[0]))
        fitting = self._ends.get(stem, [])
        if (
            0 < len(fitting) <= _MANY
            and len(set(fitting)) == 1
            and folders
            and self._folders.isdisjoint(folders)
            and self._kinship(fitting[0], ending)
        ):
            return Found((fitting[0],), True)
        return Found(())

    def _best(self, fitting: list[int], parts: list[str], ending: str) -> tuple[int, ...]:
        """Return the places that fit best: by ending, by whole path, by where they lie, by the letters as written."""
        key = "/".join(parts)
        if len(fitting) > _MANY and key in self._many:
            return self._many[key].places
        merits = []
        for place in fitting:
            name = self.names[place]
            own = name.relative.split("/")
            written = sum(a == b for a, b in zip(reversed(parts), reversed(own), strict=False))
            whole = (len(own) <= len(parts)) + (name.short.count("/") < len(parts))
            merits.append((self._kinship(place, ending), whole, name.preferred, written))
        best = max(merits)
        places: list[int] = []
        for place, merit in zip(fitting, merits, strict=True):
            if merit == best and not any(place == other or self._same(other, place) for other in places):
                places.append(place)
                if len(places) == _SHOWN:
                    break
        if len(fitting) > _MANY:
            self._many[key] = Found(tuple(places))
        return tuple(places)

    def _kinship(self, place: int, ending: str) -> int:
        """Return how alike a picture's ending is to the one asked for: 2 the same, 1 another word for it, 0 another."""
        own = split_ending(self.names[place].relative)[1]
        return 2 if own == ending or not ending else 1 if own in _JPEG and ending in _JPEG else 0

    def _leads_elsewhere(self, folders: list[str], place: int) -> bool:
        path = [*self._above, *map(_plain, self.names[place].relative.split("/")[:-1])]
        return any(a != b for a, b in zip(reversed(folders), reversed(path), strict=False))

    def nearest(self, name: str) -> int | None:
        """Return the place of the picture whose name is most like another, among those near it in the alphabet."""
        self._build()
        stem = split_ending(_plain((parts_of(name) or [""])[-1]))[0][:_LOOKED_AT]
        if self._alphabet is None:
            stems = [each for each in self._ends if "/" not in each]
            self._alphabet = sorted(stems), sorted(each[::-1] for each in stems)
        forwards, backwards = (
            each[max(0, (middle := bisect.bisect_left(each, text)) - _LOOKED_AT) : middle + _LOOKED_AT]
            for each, text in zip(self._alphabet, (stem, stem[::-1]), strict=True)
        )
        near = {*forwards, *(each[::-1] for each in backwards)}
        alike = difflib.get_close_matches(stem, sorted(near), 1, _ALIKE)
        return self._ends[alike[0]][0] if alike else None

    def _build(self) -> None:
        """Index the ends of all paths, at the first name that is not written exactly."""
        if self._ends or not self.names:
            return
        paths = [(name.relative, place) for place, name in enumerate(self.names)]
        plain_folders: dict[str, str] = {"": ""}
        for relative, place in [*paths, *self._aliases]:
            folder, _, file = relative.replace("\\", "/").rpartition("/")
            if folder not in plain_folders:
                parts = [_plain(part) for part in folder.split("/")]
                plain_folders[folder] = "/".join(parts) + "/"
                self._folders.update(parts)
            path = plain_folders[folder] + split_ending(_plain(file))[0]
            self._whole.setdefault(path, []).append(place)
            short = self.names[place].short.count("/")
            depth = path.count("/")
            self._deepest = max(self._deepest, depth + 1)
            while True:
                self._ends.setdefault(path, []).append(place)
                if not depth:
                    break
                path = path.partition("/")[2]
                depth -= 1
                if depth == short:
                    self._whole.setdefault(path, []).append(place)


def parts_of(name: str) -> list[str]:
    """Return the folders and the file name of a path or URL as people write them, without what says nothing.

    '.', doubled and mixed separators, drives, blanks around and quotes go; '..' takes the folder before it along.
    """
    text = name.strip(_BLANKS)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"`":
        text = text[1:-1].strip(_BLANKS)
    if _URL.match(text) and not _DRIVE.match(text[:2]):
        text = _AUTHORITY.sub("", text, count=1) if "://" in text else text.partition(":")[2]
        text = unquote(re.split(r"[?#]", text, maxsplit=1)[0])
    parts: list[str] = []
    for part in re.split(r"[/\\]+", text):
        part = part.strip(_BLANKS)
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if len(parts) > 1 and _DRIVE.fullmatch(parts[0]):
        del parts[0]
    return parts


def name_without_folder(name: str) -> str:
    """Return the file name of a path without folders and ending, which may serve as the id of a galaxy."""
    parts = parts_of(name)
    return split_ending(parts[-1])[0] if parts else name


def split_ending(name: str) -> tuple[str, str]:
    """Cut the ending of a picture off a file name; any other dot belongs to the name, as in J1234.5+0012.3."""
    lower = name.lower()
    for suffix in SUFFIXES:
        if lower.endswith(suffix):
            return name[: -len(suffix)].rstrip(), lower[-len(suffix) :]
    return name, ""


def _plain(part: str) -> str:
    """Return a name without what systems and people change: case, composed accents, kinds of dash, blanks around."""
    if part.isascii():
        return part.strip(_BLANKS).lower()
    folded = unicodedata.normalize("NFD", part.translate(_DASHES).strip(_BLANKS)).casefold()
    return unicodedata.normalize("NFC", folded)
