"""The images in a FITS file: which of them is the galaxy, and which planes are its red, green and blue.

Files hold much besides: masks, weights, variances, point spread functions, other bands, models. What an image is,
observatories say by its name (EXTNAME), its unit (BUNIT) or a kind (IMAGETYP, HDUCLAS2), each in its own words; where
none is said, the values have to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from galaxies.common.errors import UserError, shown
from galaxies.images.bands import Band, Composite, band_in, bands_of_planes, composite
from galaxies.images.opening import SMALLEST_PX

MOST_PLANES = 12  # more are a spectrum in each pixel
_SAMPLE_PX = 512  # a side, by which a question about all pixels is answered
_FEW_LEVELS = 64  # of whole numbers, mostly 0: a mask, flags or labels
_SOME = 0.05  # part of the pixels of a sky without its level that lie below 0, at least

# By these an image is something else than the sky: a name that holds one of the first, or has one of the others as a
# word of it (VAR_POISSON, SCI_ERR).
_ELSEWHERE = re.compile(
    "WEIGHT|MASK|SEGM|INVVAR|IVAR|VARIANCE|ERROR|UNCERT|SIGMA|PSF|FLAG|QUALITY|NOISE|EXPOSURE|COVERAGE|BACKGR|RESIDUAL|"
    "CHISQ|MODEL|(WHT|ERR|EXP|RMS|VAR|STD)MAP"
)
_OTHERS = frozenset(
    (
        *("WHT", "WGT", "WT", "ERR", "VAR", "RMS", "STD", "STDDEV", "STDEV", "UNC", "SIG"),  # weights and errors
        *("DQ", "MSK", "BPM", "SEG", "LABEL", "LABELS"),
        *("CTX", "CON", "EXP", "NEXP", "NPIX", "NIMG", "COV", "TIME", "AREA", "SAMP"),
        *("BKG", "BG", "SKY", "RES", "CHI", "KERNEL", "WAVELENGTH", "WCSCORR"),
    )
)
SCIENCE = frozenset(["SCI", "SCIENCE", "IMAGE", "FLUX", "DATA", "SIGNAL", "COADD", "INTENSITY", "COUNTS"])
_KINDS = ("IMAGETYP", "IMTYPE", "EXTTYPE", "HDUCLAS2", "HDUCLAS3", "DATATYPE")
UNNAMED = frozenset(("", "PRIMARY", "COMPRESSED_IMAGE"))
# The unit of a variance or a weight: all of it squared, or one over it; not "erg/s/cm^2".
SQUARED = re.compile(r"1\s*/\s*.+|(\(.*\)|[A-Za-z]+)\s*(\^|\*\*)\s*\(?-?2(\.0*)?\)?")
BAND_CARDS = ("FILTER", "BAND", "FILTNAM", "FILTER1", "FILTER2", "INSFLNAM", "HIERARCH ESO INS FILT1 NAME")


class Image(NamedTuple):
    """An image of a file: astropy's unit, its number, its name in capitals, and what its header says."""

    unit: Any
    number: int
    name: str
    header: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array: the last axis is FITS' first."""
        return tuple(self.unit.shape)

    @property
    def label(self) -> str:
        """What to call it."""
        return f"HDU {self.number}" + ("" if self.name in UNNAMED else f" ({shown(self.name)})")

    def _axes(self) -> list[int]:
        """Return the axes with more than one pixel, but for that of Stokes parameters, the first of which is taken."""
        last = len(self.shape)
        kinds = [str(self.header.get(f"CTYPE{last - k}", "")).upper() for k in range(last)]
        long = [k for k, length in enumerate(self.shape) if length > 1 and not kinds[k].startswith("STOKES")]
        return long if len(long) > 1 else list(range(last))[-2:]

    def planes_axis(self) -> int | None:
        """Return the axis along which planes are piled up: the first as a rule, the last in pictures for screens."""
        axes = self._axes()
        if len(axes) != 3:
            return None
        return axes[2] if self.shape[axes[2]] < self.shape[axes[0]] else axes[0]

    def size(self) -> tuple[int, int]:
        """Return height and width; 0 and 0 for what is neither a plane nor a pile of planes."""
        axes = self._axes()
        if not 2 <= len(axes) <= 3:
            return 0, 0
        along = self.planes_axis()
        height, width = (self.shape[k] for k in axes if k != along)
        return height, width

    def num_planes(self) -> int:
        """Return the number of planes."""
        along = self.planes_axis()
        return 1 if along is None else self.shape[along]

    def values(self, plane: int, rows: slice, columns: slice) -> np.ndarray:
        """Read a part of a plane, as the header scales it, in the precision of the file."""
        axes, along, parts = self._axes(), self.planes_axis(), iter((rows, columns))
        where = (plane if k == along else next(parts) if k in axes else 0 for k in range(len(self.shape)))
        return np.asarray(self.unit.section[tuple(where)])

    def sample(self) -> np.ndarray:
        """Return every so manieth pixel of its first plane, two-dimensional."""
        step = max(1, max(self.size()) // _SAMPLE_PX)
        return self.values(0, slice(None), slice(None))[::step, ::step]


class Planes(NamedTuple):
    """What to measure of a file.

    Attributes
    ----------
    sources : list of (Image, int)
        Images, and which plane of each; all of one size.
    parts : three of tuple of int
        For red, green and blue, the mean of which of these.
    notes : list of str
        What was chosen, in words.
    ordered : bool
        Which of them is redder is known.
    """

    sources: list[tuple[Image, int]]
    parts: tuple[tuple[int, ...], ...]
    notes: list[str]
    ordered: bool = True


def images_of(units: Iterable[Any]) -> list[Image]:
    """Return the images among the units of a file, without reading their pixels."""
    found = []
    for number, unit in enumerate(units):
        if unit.is_image and unit.header.get("NAXIS", 0) > 0 and unit.shape:
            name = " ".join(str(unit.header.get("EXTNAME", "")).upper().split())
            found.append(Image(unit, number, name, unit.header))
    return found


def choose_planes(path: Path, images: Sequence[Image], primary: Mapping[str, Any]) -> Planes:
    """Choose what of a file's images is the galaxy.

    Parameters
    ----------
    path : Path
        For messages.
    images : sequence of Image
    primary : mapping
        Header of the file's first unit, which may speak for all.

    Raises
    ------
    UserError
        If none is a picture of the sky, or one has more planes than can be told apart.
    """
    if not images:
        raise UserError(f"{path} holds no image")
    sky = [image for image in images if not says_otherwise(image)]
    if not sky:
        raise UserError(f"{path} holds no picture of the sky, only {', '.join(_reason(image) for image in images[:4])}")
    # Thumbnails and dummies of one pixel are passed over, if there is something larger.
    large = [image for image in sky if min(image.size()) >= SMALLEST_PX] or sky
    named = [image for image in large if words_of(image.name) & SCIENCE or kind_words(image) & SCIENCE] or large
    first = named[0]
    if min(first.size()) == 0 or (count := first.num_planes()) > MOST_PLANES:
        raise UserError(
            f"{path} has the shape {first.shape}: one plane, three (R, G, B) or up to {MOST_PLANES} named bands are "
            "needed; of a spectral cube, add up the planes of a band first"
        )
    if count == 1 and (found := _in_extensions([i for i in named if i.shape == first.shape])):
        return found
    if count == 1:
        first = _first_by_values(path, named, alone=len(images) == 1)
    notes = [f"{first.label} of {len(images)} images"] if len(images) > 1 else []
    if count == 1:
        return Planes([(first, 0)], ((0,),) * 3, [*notes, "grey"])
    axis = len(first.shape) - first.planes_axis()  # type: ignore[operator]
    bands = bands_of_planes(first.header, count, axis) or bands_of_planes(primary, count, axis)
    sources = [(first, plane) for plane in range(count)]
    if bands:
        return _composed(sources, bands, notes)
    if count != 3:
        raise UserError(
            f"{path} has {count} planes and does not say of which bands: name them in its header, such as "
            f"BANDS = '{'grizyjhkuvb'[:count]}'"
        )
    if str(first.header.get("BUNIT", "")).strip().lower() == "display":  # as pictures are written: red, green, blue
        return Planes(sources, ((0,), (1,), (2,)), notes)
    note = "no bands are named, so which plane is redder is not known and color left empty"
    return Planes(sources, ((0,), (1,), (2,)), [*notes, note], ordered=False)


def _composed(sources: list[tuple[Image, int]], bands: Sequence[Band], notes: list[str]) -> Planes:
    """Return a composite, without the sources that it has no use for."""
    chosen: Composite = composite(bands)
    used = sorted({k for part in chosen.planes for k in part})
    parts = tuple(tuple(used.index(k) for k in part) for part in chosen.planes)
    return Planes([sources[k] for k in used], parts, [*notes, chosen.note])


def _in_extensions(images: Sequence[Image]) -> Planes | None:
    """Return the composite of images that are each of another band; None where they do not say so."""
    bands: dict[float, tuple[Band, Image]] = {}
    for image in images:
        said = [str(image.header[card]) for card in BAND_CARDS if card in image.header]
        if band := band_in(" ".join([*said, "" if image.name in UNNAMED else image.name])):
            bands.setdefault(band.wavelength, (band, image))
    if len(bands) < 2:
        return None
    numbers = ", ".join(str(image.number) for _, image in bands.values())
    return _composed(
        [(image, 0) for _, image in bands.values()], [band for band, _ in bands.values()], [f"HDUs {numbers}"]
    )


def words_of(text: str) -> frozenset[str]:
    """Return the words of letters in a name, in capitals."""
    return frozenset(re.split(r"[^A-Z]+", text.upper()))


def kind_words(image: Image) -> frozenset[str]:
    """Return the words by which the cards for it say what an image is."""
    return frozenset().union(*(words_of(str(image.header.get(card, ""))) for card in _KINDS))


def says_otherwise(image: Image) -> bool:
    """Say whether its name, kind or unit says that it is no picture of the sky."""
    words = words_of(image.name)
    unit = str(image.header.get("BUNIT", "")).strip()
    kinds = " ".join(str(image.header.get(card, "")).upper() for card in _KINDS)
    return bool(_ELSEWHERE.search(image.name) or words & _OTHERS or _ELSEWHERE.search(kinds) or SQUARED.fullmatch(unit))


def _reason(image: Image) -> str:
    unit = str(image.header.get("BUNIT", "")).strip()
    return image.label + (f" in {shown(unit)}" if SQUARED.fullmatch(unit) else "")


def _first_by_values(path: Path, images: Sequence[Image], alone: bool) -> Image:
    """Return the first of images of one plane each whose values look most like a galaxy's.

    A galaxy is brighter than what is around it, where a weight is lower; and around it some values lie below 0, if the
    level of the sky was taken off, where those of weights and errors do not.
    """
    candidates = [image for image in images if image.num_planes() == 1][:MOST_PLANES]
    if len(candidates) == 1 and not alone:
        return candidates[0]
    looks: list[tuple[bool, bool, Image]] = []
    for image in candidates:
        values = image.sample()
        finite = values[np.isfinite(values)]
        if not is_mask(finite, beside_others=len(candidates) > 1):
            looks.append((_bright_in_the_middle(values), bool((finite < 0).mean() >= _SOME), image))
    if not looks:
        raise UserError(f"{path} holds no picture of the sky, only a mask: values of 0 and 1, or flags")
    return max(looks, key=lambda look: look[:2])[2]  # of equals the first


def _bright_in_the_middle(values: np.ndarray) -> bool:
    height, width = values.shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    values = values.astype(np.float64)
    low, median = np.nanpercentile(values, (16, 50))
    return bool(np.nanpercentile(values[x**2 + y**2 < 0.04], 90) > median + 3 * (median - low))


def is_mask(values: np.ndarray, beside_others: bool) -> bool:
    """Say whether values are those of a mask; beside other images flags and labels count as one, too."""
    levels = np.unique(values)
    if levels.tolist() == [0, 1]:
        return True
    if not beside_others:
        return False
    whole = bool((levels == np.round(levels)).all())
    return len(levels) <= 1 or (whole and len(levels) <= _FEW_LEVELS and levels[0] == 0)


def header_text(value: object) -> str:
    """Return a text as a FITS header may hold it: printable ASCII."""
    return re.sub(r"[^ -~]", "?", str(value))
