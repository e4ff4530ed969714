"""A folder of FITS files as galaxies: which files are one galaxy's, which band each shows, and which are its maps.

Bands and kinds of maps are words of a path, in folders (`f115w/ceers_12608.fits`) or in names (`12608_r.fits`,
`12608_r_ivar.fits`); what is left of the path names the galaxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from galaxies.common.errors import UserError, shown
from galaxies.images.fits_science import MAP_KINDS, band_key, kind_of_name

_ENDINGS = re.compile(r"(\.(fits?|fts))?\.fz|\.(fits?|fts)(\.(gz|bz2|xz))?", re.IGNORECASE)
_ENDING = re.compile(rf"({_ENDINGS.pattern})$", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9]+")
# Words that files of all galaxies of a folder have, and that tell none from another.
_SAID_BY_ALL = frozenset(("cutout", "cutouts", "image", "images", "img", "stamp", "stamps", "sci", "drz", "drc", "i2d"))
_KINDS_OF_WORDS = {"invvar", "ivar", "weight", "wht", "wgt", "mask", "msk", "bpm", "dq", "err", "error", "rms", "var"}
_KINDS_OF_WORDS |= {"variance", "psf", "copsf", "sigma", "flags", "segm", "model", "resid", "weights", "masks", "psfs"}
_KINDS_OF_WORDS |= {"noise", "unc", "exp", "bkg", "chi2", "objmask"}


class GalaxyFiles(NamedTuple):
    """The files of one galaxy.

    Attributes
    ----------
    name : str
        What is left of their paths without bands and kinds.
    sky : dict of str to Path
        By band; one file of all bands has the band "".
    maps : list of (str, str, Path)
        Kind, band ("" for all) and file of what belongs to it, also of point spread functions ("psf").
    """

    name: str
    sky: dict[str, Path]
    maps: list[tuple[str, str, Path]]


class Folder:
    """The galaxies of a folder, and how ids find them.

    Parameters
    ----------
    path : Path
        Folder, or one FITS file.
    bands : sequence of str
        Names of bands that are words of paths; none, if files hold all bands.
    maps : sequence of (str, Path)
        Further folders of maps, whose files are called as those of their galaxies, and their kinds.
    but : sequence of Path
        Files that are something else, such as the catalogue.

    Attributes
    ----------
    galaxies : list of GalaxyFiles
        In the order of their names.
    strays : list of Path
        Maps of no galaxy.

    Raises
    ------
    UserError
        If it does not exist or holds no FITS file, or a path names several bands.
    """

    def __init__(
        self, path: Path, bands: Sequence[str], maps: Sequence[tuple[str, Path]] = (), but: Sequence[Path] = ()
    ) -> None:
        self.path = path
        self._bands = bands
        apart = {file.resolve() for file in but}
        files = [file for file in science_files(path) if file.resolve() not in apart]
        parts = [self._parts(file, path) for file in files]
        of_sky = [band for _, band, kind in parts if not kind]
        if 2 * sum(map(bool, of_sky)) < len(of_sky):  # such as galaxies a to g, of which one seems to be a band
            self._bands = ()
            parts = [self._parts(file, path) for file in files]
        found: dict[str, GalaxyFiles] = {}
        others: list[tuple[str, str, str, Path]] = []
        for file, (name, band, kind) in zip(files, parts, strict=True):
            if kind in (*MAP_KINDS, "psf"):
                others.append((name, kind, band, file))
            if kind:
                continue
            galaxy = found.setdefault(name, GalaxyFiles(name, {}, []))
            if band in galaxy.sky:
                raise UserError(
                    f"{galaxy.sky[band]} and {file} are both of {'band ' + band if band else 'all bands'} of one "
                    "galaxy by their names: name the bands with --bands, or keep one of them"
                )
            galaxy.sky[band] = file
        if not found:
            raise UserError(f"{path} holds no FITS file of an image")
        for kind, folder in maps:
            for file in science_files(folder):
                name, band, said = self._parts(file, folder)
                others.append((name, said if said in MAP_KINDS else kind, band, file))
        self.galaxies = [found[name] for name in sorted(found)]
        self._of_word: dict[str, list[int]] = {}
        for place, galaxy in enumerate(self.galaxies):
            for word in set(_words(galaxy.name)):
                self._of_word.setdefault(word, []).append(place)
        self._by_name = {_folded(galaxy.name): place for place, galaxy in enumerate(self.galaxies)}
        self._by_file: dict[str, set[int]] = {}
        for place, galaxy in enumerate(self.galaxies):
            for file in galaxy.sky.values():
                relative = file.relative_to(path).as_posix() if file != path else file.name
                for key in {relative, file.name, without_ending(relative), without_ending(file.name)}:
                    self._by_file.setdefault(_folded(key), set()).add(place)
        self.strays: list[Path] = []
        for name, kind, band, file in others:
            if (owner := self.find(name)) is None:
                self.strays.append(file)
            else:
                self.galaxies[owner].maps.append((kind, band, file))

    def find(self, name: str) -> int | None:
        """Return the place of the galaxy whose name is this, or alone has its words in a row; None for none.

        Raises
        ------
        UserError
            If several have.
        """
        if (place := self._by_name.get(_folded(name))) is not None:
            return place
        words = _words(name)
        fewest = min((self._of_word.get(word, []) for word in words), key=len, default=[])
        return self._only({place for place in fewest if _in_a_row(words, _words(self.galaxies[place].name))}, name)

    def find_file(self, name: str) -> int | None:
        """Return the place of the galaxy of which a file has this name, with or without folders and ending."""
        text = name.strip().replace("\\", "/").removeprefix("./")
        for key in (text, text.rpartition("/")[2], without_ending(text), without_ending(text.rpartition("/")[2])):
            if fitting := self._by_file.get(_folded(key)):
                return self._only(fitting, name)
        return None

    def ids(self) -> list[str]:
        """Return ids of the galaxies where no table gives them: their names, without folders if they differ so."""
        names = [galaxy.name for galaxy in self.galaxies]
        short = [name.rpartition("/")[2] for name in names]
        chosen = short if len(set(short)) == len(short) else [name.replace("/", "_") for name in names]
        return [name or self.path.name for name in chosen]

    def _only(self, fitting: set[int], name: str) -> int | None:
        if len(fitting) > 1:
            some = ", ".join(shown(self.galaxies[place].name) for place in sorted(fitting)[:3])
            raise UserError(f"{shown(name)} may be {some}")
        return next(iter(fitting), None)

    def _parts(self, file: Path, below: Path) -> tuple[str, str, str]:
        """Return the galaxy, the band ("" for none) and the kind of a file by its path."""
        relative = file.relative_to(below) if file != below else Path(file.name)
        parts = [*relative.parts[:-1], without_ending(relative.name)]
        keys = {band_key(band): band for band in self._bands}
        folded: dict[str, list[str]] = {}
        for band in self._bands:
            folded.setdefault(band.lower(), []).append(band)
        kind = band = ""
        left = []
        for part in reversed(parts):  # the name says more than the folder
            words = list(_WORD.finditer(part))
            exact = [w for w in words if band_key(w[0]) in keys]
            named = exact or [w for w in words if len(folded.get(w[0].lower(), ())) == 1]
            if len({w[0].lower() for w in named}) > 1:
                raise UserError(f"{file} names several bands, {' and '.join(w[0] for w in named[:3])}: rename it")
            kinds = [w for w in words if w[0].lower() in _KINDS_OF_WORDS]
            if named and not band:
                band = keys.get(band_key(named[0][0])) or folded[named[0][0].lower()][0]
            if kinds and not kind:
                kind = kind_of_name(kinds[0][0]) or "other"
            left.append(_without(part, [*named[:1], *kinds]))
        return "/".join(part for part in reversed(left) if part), band, kind


def science_files(path: Path) -> list[Path]:
    """Return the FITS files of a folder and the folders in it, by name; hidden ones are passed over.

    A pipe or a device of such a name is among them, so that reading refuses it by name.

    Raises
    ------
    UserError
        If it does not exist.
    """
    if path.exists() and not path.is_dir():
        return [path]
    if not path.exists():
        raise UserError(f"{path} does not exist: name a folder of FITS files, or one file")
    files = (file for file in path.rglob("*") if _ENDING.search(file.name) and not file.is_dir())
    return sorted(f for f in files if not any(part.startswith(".") for part in f.relative_to(path).parts))


def without_ending(name: str) -> str:
    """Return a name without the ending of a FITS file."""
    return _ENDING.sub("", name)


def _without(part: str, words: Iterable[re.Match[str]]) -> str:
    """Cut words out of a part of a path, each with what joins it to its neighbour."""
    for start, end in sorted(((w.start(), w.end()) for w in words), reverse=True):
        before, after = part[:start], part[end:]
        joint = re.search(r"[^A-Za-z0-9]+$", before)
        part = before[: joint.start()] + after if joint else re.sub(r"^[^A-Za-z0-9]+", "", after)
    kept = [word for word in _WORD.findall(part) if word.lower() not in _SAID_BY_ALL]
    if not kept:
        return ""
    for word in _SAID_BY_ALL:
        part = re.sub(rf"(?i)(^|[^A-Za-z0-9]+){word}(?=$|[^A-Za-z0-9])", "", part)
    return part.lstrip("_. ")


def _folded(text: str) -> str:
    return text.strip().casefold()


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _WORD.findall(text))


def _in_a_row(words: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Tell whether words stand in a row among those of a name."""
    count = len(words)
    return any(name[first : first + count] == words for first in range(len(name) - count + 1))
