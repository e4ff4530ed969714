"""FITS files as science has them: which of their images are the sky in which band, and what maps belong to them.

A galaxy may be a cube of bands, an extension a band, one file a band, or one extension of a file of many galaxies.
Beside it lie weights, inverse variances, errors, masks, point spread functions and whatever else was made with it.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from galaxies.common.errors import UserError
from galaxies.common.reading import open_regular
from galaxies.images.bands import band_in, bands_of_planes
from galaxies.images.fits_images import (
    BAND_CARDS,
    MOST_PLANES,
    SCIENCE,
    SQUARED,
    UNNAMED,
    Image,
    images_of,
    is_mask,
    kind_words,
    says_otherwise,
    words_of,
)
from galaxies.images.fits_reading import hits_of, unpacked, without_value
from galaxies.images.opening import MAX_CUTOUT_SIDE_PX, kind_of

_MOST_BYTES = 2**30  # that are unpacked in memory
_PLAIN = b"SIMPLE  ="

# What a map says of the pixels, by a word or a part of a word in a name (extension, kind, file), in this order.
_KINDS = (
    ("other", re.compile(r"SEGM|OBJMASK|OBJECTS?_?MASK|POISSON|RNOISE|RESID|MODEL|CHI")),
    ("psf", re.compile(r"PSF")),
    ("ivar", re.compile(r"INVVAR|IVAR|INV(ERSE)?[\s_-]*VAR|\bIVM\b")),
    ("variance", re.compile(r"VARIANCE|\bVAR\b|VARMAP")),
    ("error", re.compile(r"\bERR(OR)?S?\b|\bRMS\b|RMSMAP|ERRMAP|SIGMA|\bSIG\b|\bSTD(DEV)?\b|UNCERT|\bUNC\b|\bNOISE\b")),
    ("mask", re.compile(r"MASK|\bMSK\b|\bBPM\b|\bDQ\b|FLAG|QUALITY|BADPIX")),
    ("weight", re.compile(r"WEIGHT|\bWHT\b|\bWGT\b|\bWT\b|WHTMAP|COVERAGE|EXPMAP|\bEXPOSURE\b")),
)
MAP_KINDS = ("ivar", "variance", "error", "mask", "weight")


class UnusableImageError(UserError):
    """A galaxy that cannot be used, while others can.

    Attributes
    ----------
    reason : str
        Why, in words by which such galaxies are counted.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Sky(NamedTuple):
    """One band of one galaxy, as its file has it.

    Attributes
    ----------
    values : ndarray, (H, W), float64
        As the header scales them, NaN where there is no value or a map says that it is none.
    error : ndarray or None, (H, W), float64
        Standard deviation of the noise of each pixel, in the unit of the values, if a map says it.
    header : mapping
        Of the image; what is not there, of the file's first unit.
    band : str
        As the file says, "" where it does not.
    hits : int
        Pixels that stand out as those of cosmic rays do.
    """

    values: np.ndarray
    error: np.ndarray | None
    header: Mapping[str, Any]
    band: str
    hits: int


class Maps(NamedTuple):
    """How maps are to be understood.

    Attributes
    ----------
    bits : int
        Bits of a mask that stand for bad pixels; -1 for all.
    good : bool
        A mask marks good pixels instead.
    """

    bits: int = -1
    good: bool = False


def kind_of_name(name: str) -> str:
    """Return what a name says that an image is: one of `MAP_KINDS`, "psf" or "other"; "" for an image of the sky."""
    spaced = re.sub(r"[^A-Z]+", " ", name.upper())
    return next((kind for kind, pattern in _KINDS if pattern.search(spaced)), "")


class Cards(dict[str, Any]):
    """The cards of a header that can be read, by their names; those of long names also with HIERARCH before them.

    astropy reads a card when it is asked for, and fails then where it is damaged.

    Attributes
    ----------
    comments : dict of str to str
    """

    def __init__(self, header: Any) -> None:
        super().__init__()
        self.comments: dict[str, str] = {}
        for card in header.cards:
            try:
                name, value, comment = str(card.keyword), card.value, str(card.comment)
            except Exception:  # of several kinds
                continue
            names = [name, f"HIERARCH {name}"] if len(name) > 8 or " " in name else [name]
            for each in names:
                self.setdefault(each, value)
                self.comments.setdefault(each, comment)


class ScienceFile:
    """An open FITS file of science.

    Attributes
    ----------
    path : Path
    primary : mapping
        Header of its first unit.
    """

    def __init__(self, path: Path, units: Any) -> None:
        self.path = path
        self._units = units
        self.primary = Cards(units[0].header)
        self._images: list[Image] | None = None

    def images(self, number: int | None = None) -> list[Image]:
        """Return all images, or that of one unit by its number from 0.

        Raises
        ------
        UserError
            If there is no such unit, or it is no image.
        """
        if number is None:
            if self._images is None:
                with _damage(self.path):
                    self._images = [i._replace(header=Cards(i.unit.header)) for i in images_of(self._units)]
            return self._images
        with _damage(self.path):
            try:
                unit = self._units[number]
            except IndexError:
                raise UnusableImageError(f"{self.path} has no HDU {number}", "no such HDU") from None
            found = images_of([unit])
        if not found:
            raise UnusableImageError(f"HDU {number} of {self.path} is no image", "no such HDU")
        return [found[0]._replace(number=number, header=Cards(unit.header))]

    def named(self, name: str) -> list[Image]:
        """Return the images whose extension has this name, whatever the case."""
        wanted = name.strip().upper()
        return [image for image in self.images() if image.name == wanted]

    def header_of(self, image: Image) -> Mapping[str, Any]:
        """Return the header of an image, with what the file's first unit says of all."""
        if image.number == 0:
            return image.header
        assert isinstance(image.header, Cards)
        return ChainMap(image.header, self.primary)


@contextmanager
def science_file(path: Path) -> Iterator[ScienceFile]:
    """Open a FITS file, plain or packed by gzip, bzip2 or xz.

    Raises
    ------
    UserError
        If it cannot be opened, is no FITS file, or is damaged; also for what goes wrong while it is read.
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise UserError(f"{path} is a FITS file, which needs astropy: python -m pip install astropy") from None
    with open_regular(path) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy mends headers and says so
        start = stream.read(len(_PLAIN))
        stream.seek(0)
        source: Any = stream
        if start != _PLAIN:
            try:
                content = unpacked(path, stream.read(_MOST_BYTES + 1), _MOST_BYTES)
            except UserError as error:
                raise UnusableImageError(str(error), "corrupt or truncated") from None
            if content is None:
                kind = kind_of(start)
                raise UnusableImageError(f"{path} is no FITS file{f': it is {kind}' if kind else ''}", "no FITS file")
            source = io.BytesIO(content)
        with _damage(path):
            units = fits.open(source, memmap=False, lazy_load_hdus=True, output_verify="ignore")
            opened = ScienceFile(path, units)
        with units:
            yield opened


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn the many kinds of errors that astropy raises on damaged files into one."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UnusableImageError(f"{path} is damaged or cut short", "corrupt or truncated") from error


def images_by_kind(file: ScienceFile, images: Sequence[Image]) -> tuple[list[Image], list[tuple[str, Image]]]:
    """Sort the images of a file into those of the sky and maps with their kinds.

    Raises
    ------
    UserError
        If none is of the sky.
    """
    sky: list[Image] = []
    maps: list[tuple[str, Image]] = []
    for image in images:
        kind = kind_of_image(image)
        if kind in (*MAP_KINDS, "psf"):
            maps.append((kind, image))
        elif kind != "other" and min(image.size()) > 1:
            sky.append(image)
    if len(sky) > 1:
        sky = [image for image in sky if words_of(image.name) & SCIENCE or kind_words(image) & SCIENCE] or sky
    if len(sky) > 1:  # what has no name and holds a few whole numbers beside others is a mask
        with _damage(file.path):
            masks = [i for i in sky if i.num_planes() == 1 and _has_no_name(i) and is_mask(_finite(i.sample()), True)]
        if 0 < len(masks) < len(sky):
            maps += [("mask", image) for image in masks]
            sky = [image for image in sky if image not in masks]
    if not sky:
        raise UnusableImageError(f"{file.path} holds no image of the sky", "no image of the sky")
    return sky, maps


def kind_of_image(image: Image) -> str:
    """Return the kind of an image by its name, its kind cards and its unit; "" for one of the sky."""
    cards = " ".join(sorted(kind_words(image)))
    name = "" if image.name in UNNAMED else image.name
    if kind := kind_of_name(name) or kind_of_name(cards):
        return kind
    unit = str(image.header.get("BUNIT", "")).strip()
    if SQUARED.fullmatch(unit):
        return "ivar" if re.match(r"1\s*/", unit) or "-2" in unit else "variance"
    return "other" if says_otherwise(image) else ""


def planes_of_bands(
    file: ScienceFile, sky: Sequence[Image], bands: Sequence[str], by_order: bool
) -> tuple[list[tuple[Image, int]], bool]:
    """Find the plane of each band among images of the sky.

    What the file calls its planes decides; where it calls none of them as asked for, their order does, if there are as
    many.

    Parameters
    ----------
    file : ScienceFile
    sky : sequence of Image
    bands : sequence of str
        Names, as the user or the first file has them.
    by_order : bool
        Whether the order may decide, since the user named the bands.

    Returns
    -------
    list of (Image, int), bool
        Image and plane of each band; whether the order decided against the names in the file.

    Raises
    ------
    UserError
        If a band is not there.
    """
    named = named_planes(file, sky)
    keys = [band_key(name) for name, _, _ in named]
    places = [keys.index(band_key(band)) if band_key(band) in keys else -1 for band in bands]
    if all(place >= 0 for place in places):
        return [named[place][1:] for place in places], False
    if by_order and len(named) == len(bands) and all(place < 0 for place in places):
        return [each[1:] for each in named], any(name for name, _, _ in named)
    said = ", ".join(name for name, _, _ in named if name) or "no band"
    missing = [band for band, place in zip(bands, places, strict=True) if place < 0]
    raise UnusableImageError(
        f"{file.path} has {len(named)} planes and names {said}, where --bands has {', '.join(bands)}: "
        f"{', '.join(missing)} cannot be told",
        "bands missing",
    )


def named_planes(file: ScienceFile, sky: Sequence[Image]) -> list[tuple[str, Image, int]]:
    """Return the name of the band ("" where it is not said), image and number of each plane of images of the sky.

    Raises
    ------
    UserError
        If an image has more planes than bands can be.
    """
    planes: list[tuple[str, Image, int]] = []
    for image in sky:
        count = image.num_planes()
        if min(image.size()) == 0 or count > MOST_PLANES:
            raise UnusableImageError(
                f"{file.path} has the shape {image.shape}, and no more than {MOST_PLANES} bands are taken",
                "wrong shape",
            )
        axis = image.planes_axis()
        if axis is None:
            planes.append((band_said(image, file.primary), image, 0))
            continue
        number = len(image.shape) - axis
        found = bands_of_planes(image.header, count, number) or bands_of_planes(file.primary, count, number)
        names = [plain_band(band.name) for band in found] if found else [""] * count
        planes += [(name, image, k) for k, name in enumerate(names)]
    return planes


def band_said(image: Image, primary: Mapping[str, Any] = {}) -> str:
    """Return the band of an image of one plane as its header or name says it; "" where it does not."""
    for header in (image.header, primary):
        for card in BAND_CARDS:
            text = str(header.get(card) or "").strip()
            if text and not text.upper().startswith(("CLEAR", "NONE", "N/A", "OPEN")):
                return plain_band(text)
    return ""


def plain_band(text: str) -> str:
    """Return a band's name as names of columns can hold it: letters and digits of its first word that names one.

    'DECam r' is r, 'HSC-I2' is I2, 'f115w' stays f115w; 'r DECam SDSS c0002 6415.0 1480.0' is r.
    """
    words = [word for word in re.split(r"[^A-Za-z0-9]+", text) if word]
    return next((word for word in words if band_in(word)), words[-1] if words else "")


def band_key(name: str) -> str:
    """Return what two names of one band share: longer ones in any case (Ks is ks), letters as they are (I is not i)."""
    return name.upper() if len(name) > 1 else name


def read_sky(
    file: ScienceFile,
    image: Image,
    plane: int,
    maps: Iterable[tuple[str, ScienceFile, Image]],
    understood: Maps = Maps(),  # noqa: B008
) -> Sky:
    """Read one band of a galaxy and apply the maps that belong to it.

    Raises
    ------
    UserError
        If it is too large for a cutout, damaged, or a map has another size.
    """
    height, width = image.size()
    if max(height, width) > MAX_CUTOUT_SIDE_PX:
        raise UnusableImageError(
            f"{file.path} has {width} x {height} pixels: cut galaxies out of a frame with prepare_data.py field",
            "too large",
        )
    whole = slice(None)
    with _damage(file.path):
        read = image.values(plane, whole, whole)
    bad = without_value(read)
    hit = hits_of(read, bad)
    bad |= hit
    if not bad.all() and read.min() == read.max():
        raise UnusableImageError(f"{file.path} has the same value in all pixels of a band", "blank")
    error = None
    for kind, owner, other in sorted(maps, key=lambda entry: MAP_KINDS.index(entry[0])):
        if other.size() != image.size():
            raise UnusableImageError(
                f"{owner.path} has a map of {other.size()[1]} x {other.size()[0]} pixels, and its image has "
                f"{width} x {height}",
                "map of another size",
            )
        of_plane = plane if other.num_planes() == image.num_planes() else 0
        with _damage(owner.path):
            of_map = other.values(of_plane, whole, whole)
        bits = _bits_said(owner.header_of(other)) if understood.bits == -1 else -1
        unusable, found = _understood(kind, of_map, understood if bits == -1 else understood._replace(bits=bits))
        bad |= unusable
        error = found if error is None else error
    values = np.where(bad, np.nan, read.astype(np.float64))
    return Sky(values, error, file.header_of(image), band_said(image, file.primary), int(hit.sum()))


def _understood(kind: str, values: np.ndarray, how: Maps) -> tuple[np.ndarray, np.ndarray | None]:
    """Return where a map says that pixels are bad, and the error of each pixel where it says that."""
    if kind == "mask":
        if values.dtype.kind == "f":
            values = np.nan_to_num(values, nan=1.0)
        marked = (values.astype(np.int64) & how.bits) != 0
        return (~marked if how.good else marked), None
    with np.errstate(invalid="ignore", divide="ignore"):
        number = values.astype(np.float64)
        bad = ~((number > 0) & np.isfinite(number))
        number = np.where(bad, np.nan, number)
        if kind == "weight":
            return bad, None
        return bad, 1 / np.sqrt(number) if kind == "ivar" else np.sqrt(number) if kind == "variance" else number


# Planes of a mask of the LSST's software that are no reason to distrust a pixel's value.
_HARMLESS = (
    "DETECTED",
    "NOT_DEBLENDED",
    "BRIGHT_OBJECT",
    "STREAK",
    "INEXACT_PSF",
    "SENSOR_EDGE",
    "REJECTED",
    "CLIPPED",
)


def _bits_said(header: Mapping[str, Any]) -> int:
    """Return the bits of bad pixels where a header names the planes of a mask (MP_BAD = 0 ...); -1 where it does not.

    Detected sources are such a plane, too.
    """
    named = {str(card)[3:].upper(): header[card] for card in header if str(card).upper().startswith("MP_")}
    places = [place for name, place in named.items() if not name.startswith(_HARMLESS)]
    return sum(1 << place for place in places if isinstance(place, int) and 0 <= place < 62) if named else -1


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _has_no_name(image: Image) -> bool:
    return image.name in UNNAMED and not any(kind_words(image))


# The width of the point spread function, where a header says it

_WIDTH_CARDS = ("PSF_FWHM", "PSFFWHM", "FWHM", "SEEING", "MEANFWHM", "AVG_FWHM")


def psf_fwhm_said(header: Mapping[str, Any], pixel_scale: float, plane: int = 0) -> float | None:
    """Return the full width at half maximum in arcseconds if a card says it and its comment says the unit.

    A card of the plane, FWHM1 for the first, goes before one of the whole image; it is only read where the image itself
    has it, since a primary header could number anything else.
    """
    of_cards = header.maps if isinstance(header, ChainMap) else [header]
    of_plane = f"FWHM{plane + 1}"
    for card in (of_plane, *_WIDTH_CARDS):
        owner: Any = next((each for each in of_cards[: 1 if card == of_plane else None] if card in each), None)
        if owner is None:
            continue
        try:
            value, comment = float(owner[card]), str(owner.comments[card]).lower()
        except (TypeError, ValueError):
            continue
        if not 0 < value < 1000:
            continue
        if "arcsec" in comment:
            return value
        if "pix" in comment:
            return value * pixel_scale
    return None
