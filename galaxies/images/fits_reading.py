"""FITS files as pictures to measure: unpacked, reduced to a size that can be measured, and what has no value marked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from galaxies.common.errors import UserError, shown
from galaxies.images.fits_images import choose_planes, images_of
from galaxies.images.opening import LARGEST_PX, MAX_PICTURE_PX, MAX_PICTURE_SIDE_PX, ONE_AT_A_TIME, central_square

_FITS = b"SIMPLE  ="
_PACKINGS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))
_INDEFINITE = 1e36  # IRAF writes 1.6e38 where there is no value
_FEW = 0.002  # part of the pixels from which on equal values are no chance
_SOME = 0.05  # part of the pixels of a sky without its level that lie below 0, at least
_SAMPLE = 2**20  # pixels that a question about all is answered by
_FAR_BELOW = 10  # standard deviations, as of the bulk of the pixels, below them: no sky is so dark
_HIT_SIGMA = 50.0  # standard deviations above the pixels around, from which on one may be a cosmic ray's
_HIT_RATIO = 15.0  # its height over theirs; the peak of a star two pixels wide has 3, of one as narrow as a pixel 12
_MAGNITUDES = re.compile(r"mag\b.*", re.IGNORECASE)


class FitsPicture(NamedTuple):
    """The central square of the galaxy in a FITS file.

    Attributes
    ----------
    planes : ndarray, (3, S, S), float64
        Red, green and blue, rows from the top, S at most `LARGEST_PX`; values as the header scales them, 0 to 255 for a
        display. NaN where there is none.
    missing : ndarray, (S, S), bool
        Where the file has pixels without a value, be they a part of one of these.
    side_px : int
        Side of the square in the file's own pixels.
    display : bool
        BUNIT says so.
    colorless : bool
        There is one plane in the file, and three times here; or it does not say which of its planes is redder.
    notes : list of str
        What was chosen and done, in words.
    """

    planes: np.ndarray
    missing: np.ndarray
    side_px: int
    display: bool
    colorless: bool
    notes: list[str]


def unpacked(path: Path, content: bytes, limit: int) -> bytes | None:
    """Return the content of a FITS file, also of one packed by gzip, bzip2 or xz; None for what is none.

    Raises
    ------
    UserError
        If more than `limit` bytes are packed in it, or it is damaged.
    """
    if content.startswith(_FITS):
        return content
    for start, opened in _PACKINGS:
        if not content.startswith(start):
            continue
        try:
            with opened(io.BytesIO(content)) as file:
                inside = file.read(len(_FITS))
                if inside != _FITS:
                    return None
                inside += file.read(limit)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
            raise UserError(f"{path} is packed and damaged, or cut short") from None
        if len(inside) > limit:
            raise UserError(f"{path} has more than {limit} bytes packed in it")
        return inside
    return None


def read_fits(path: Path, content: bytes) -> FitsPicture:
    """Read the picture of a galaxy in a FITS file, which may hold masks, weights and other bands besides.

    Of several images the first is taken that is named as science, or whose name, unit and values do not say that it is
    something else. Planes with the names of bands, in a cube or in extensions of one size, are red, green and blue by
    wavelength; three without names are taken in their order, and have no color but in a display.

    Raises
    ------
    UserError
        If there is no such image, if it has more planes than can be told apart, or holds magnitudes.
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise UserError(f"{path} is a FITS file, which needs astropy: python -m pip install astropy") from None
    try:
        with ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(content), memmap=False) as units:
                return _read(path, units)
    except UserError:
        raise
    except Exception:  # astropy raises many kinds of errors on damaged files
        raise UserError(f"{path} holds no image that can be read, or is damaged or cut short") from None


def _read(path: Path, units: Any) -> FitsPicture:
    chosen = choose_planes(path, images_of(units), units[0].header)
    image = chosen.sources[0][0]
    height, width = image.size()
    if max(height, width) > MAX_PICTURE_SIDE_PX or height * width > MAX_PICTURE_PX:
        raise UserError(f"{path} has {width} x {height} pixels, more than can be read")
    unit = str(image.header.get("BUNIT", "")).strip()
    if _MAGNITUDES.fullmatch(unit):
        raise UserError(f"{path} holds magnitudes (BUNIT {shown(unit)}), which do not add up: give fluxes or counts")
    rows, columns, framing = central_square(path, height, width)
    side = rows.stop - rows.start
    size = min(side, LARGEST_PX)
    planes, missing, lacking = [], np.zeros((size, size), bool), np.zeros((side, side), bool)
    hits = np.zeros_like(lacking)
    for source, plane in chosen.sources:
        values = source.values(plane, rows, columns)
        if display := unit.lower() == "display":
            without, hit = ~np.isfinite(values), np.zeros_like(lacking)
        else:
            without = without_value(values)
            hit = hits_of(values, without)
        lacking |= without
        hits |= hit
        without = without | hit
        reduced, touched = _reduced(values, without, size)
        planes.append(reduced)
        missing |= touched
    if any(np.isnan(plane).all() for plane in planes):
        raise UserError(f"{path} has a plane without any value")
    notes = [*chosen.notes, *framing]
    if count := int(lacking.sum()):
        notes.append(f"{count} pixels without a value, taken as sky")
    if count := int(hits.sum()):
        notes.append(f"{count} pixels hit by cosmic rays, taken as sky")
    whole = np.stack([np.mean([planes[k] for k in part], 0) for part in chosen.parts])
    colorless = len(chosen.sources) == 1 or not chosen.ordered
    return FitsPicture(whole[:, ::-1], missing[::-1], side, display, colorless, notes)


def without_value(values: np.ndarray) -> np.ndarray:
    """Return where values (S, S) are none: not finite, far below the sky, or 0 in areas that were not observed.

    Surveys write NaN, -9999, -32768 or 0 where they have seen nothing. 0 is a value of its own in whole numbers, and in
    models without noise; in noise about 0 it is not, where it fills areas.
    """
    whole = values.dtype.kind in "iub"
    bad = np.zeros(values.shape, bool) if whole else ~(np.abs(values) < _INDEFINITE)
    good = values[~bad][:: max(1, values.size // _SAMPLE)].astype(np.float64)
    if not len(good):
        return bad
    rest = good[good > good.min()]
    if len(rest):
        low, first, high = np.percentile(rest, (1, 16, 84))
        bad |= values < low - _FAR_BELOW * max(high - first, 1.0 if whole else 0.0)
    zero = (values == 0) & ~bad
    if not whole and zero.mean() >= _FEW and (zero[:, 1:] & zero[:, :-1]).sum() >= 0.5 * zero.sum():
        below = (rest < 0).mean() if len(rest) else 0
        if _SOME <= below <= 1 - _SOME:
            bad |= zero
    return bad


def hits_of(values: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return where single pixels or pairs of values (S, S) stand out as no telescope's image of anything does."""
    hit = np.zeros(values.shape, bool)
    good = values[~without][:: max(1, values.size // _SAMPLE)].astype(np.float64)
    if not len(good):
        return hit
    low, median = np.percentile(good, (16, 50))
    if not median > low:  # models without noise, and single photons, stand out without being wrong
        return hit
    least = _HIT_SIGMA * (median - low)
    rows, columns = np.nonzero((values > median + least) & ~without)
    if not len(rows):
        return hit
    near = np.full((8, len(rows)), median)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    for k, (dy, dx) in enumerate(steps):
        y, x = rows + dy, columns + dx
        inside = (y >= 0) & (y < len(values)) & (x >= 0) & (x < len(values))
        inside[inside] = ~without[y[inside], x[inside]]
        near[k, inside] = values[y[inside], x[inside]]
    level = np.median(near, 0)
    height = values[rows, columns] - level
    hit[rows, columns] = (height > least) & (height > _HIT_RATIO * np.abs(level - median))
    return hit


def _reduced(values: np.ndarray, without: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return means over areas (size, size), NaN where there is no value, and where any of them lacks one."""
    side = len(values)
    if side == size:
        return np.where(without, np.nan, values.astype(np.float64)), without
    # As torch's adaptive pooling has them: areas overlap by a pixel where the sizes do not divide.
    ends = [(k * side // size, -(-(k + 1) * side // size)) for k in range(size)]

    def added(array: np.ndarray) -> np.ndarray:
        rows = np.stack([array[low:high].sum(0, dtype=np.float64) for low, high in ends])
        return np.stack([rows[:, low:high].sum(1) for low, high in ends], 1)

    lengths = np.array([high - low for low, high in ends], np.float64)
    area = lengths[:, None] * lengths
    if not without.any():
        return added(values) / area, np.zeros((size, size), bool)
    present = added(~without)
    total = added(np.where(without, 0, values))
    with np.errstate(invalid="ignore"):
        return np.where(present > 0, total / present, np.nan), present < area
