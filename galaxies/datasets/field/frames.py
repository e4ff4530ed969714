"""Frames of the sky in FITS files, read by sections, so that a frame of any size needs little memory.

A frame is one image of one band. What it says of itself is asked once, when it is opened: its unit, its world
coordinates, and by a sample of its values which of them mean that nothing was seen there.
"""

from __future__ import annotations

import io
import shutil
import warnings
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from galaxies.common.errors import UserError, shown
from galaxies.common.reading import MissingError, open_regular
from galaxies.images.fits_images import Image, images_of, says_otherwise
from galaxies.images.flux_units import Calibration, calibration, pixel_scale_of
from galaxies.tables.opening import UNPACK_ERRORS, unpacked

SMALLEST_PX = 32  # a side; a smaller image is no frame to find galaxies in
_SCIENCE = frozenset(("SCI", "SCIENCE", "IMAGE"))
_FITS = b"SIMPLE  ="
_ABSURD = 1e30  # IRAF writes 1.6e38 where there is no value
_SAMPLES = 12  # stripes of rows that tell how a frame's values lie
_SAMPLE_ROWS = 16
_FEW = 0.002  # part of the pixels from which on equal values are no chance
_SOME = 0.05  # part of the pixels of a sky without its level that lie below 0, at least
_FAR_BELOW = 30.0  # standard deviations of a sky pixel, below it: no sky is so dark


@dataclass(frozen=True)
class Area:
    """A rectangle of pixels: rows y0 to y1 and columns x0 to x1, the ends not included; it may reach beyond a frame."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0

    def grown(self, margin: int) -> Area:
        """Return it with a margin on each side."""
        return Area(self.y0 - margin, self.y1 + margin, self.x0 - margin, self.x1 + margin)

    def within(self, shape: tuple[int, int]) -> Area:
        """Return the part of it that lies in a frame of this shape; of height or width 0 if none does."""
        y0, x0 = min(max(self.y0, 0), shape[0]), min(max(self.x0, 0), shape[1])
        return Area(y0, max(min(self.y1, shape[0]), y0), x0, max(min(self.x1, shape[1]), x0))


@dataclass(frozen=True)
class Plane:
    """Pixels of a band on the grid that all bands share, in nanojansky.

    Attributes
    ----------
    band : str
    shape : (int, int)
        Height and width.
    read : callable
        Reads an `Area` within the shape: float32, NaN where there is no value.
    """

    band: str
    shape: tuple[int, int]
    read: Callable[[Area], np.ndarray]

    def read_beyond(self, area: Area) -> np.ndarray:
        """Read an area that may reach beyond the frame; NaN there."""
        inside = area.within(self.shape)
        values = np.full(area.shape, np.nan, np.float32)
        if min(inside.shape) > 0:
            place = values[inside.y0 - area.y0 :, inside.x0 - area.x0 :][: inside.shape[0], : inside.shape[1]]
            place[:] = self.read(inside)
        return values


class Frame:
    """An image of one band in a FITS file.

    Attributes
    ----------
    path : Path
    band : str
    shape : (int, int)
        Height and width.
    header : mapping
        Of the image; what is not there, of the file's first unit.
    wcs : astropy.wcs.WCS or None
        World coordinates of the two axes, if the header has them.
    calibration : Calibration
        Nanojansky of a value of 1, set by `calibrate`; until then none.
    empty_zeros : bool
        Whether a value of exactly 0 means that nothing was seen there.
    """

    def __init__(self, path: Path, band: str, image: Image, primary: Any) -> None:
        self.path, self.band, self._image = path, band, image
        self.shape = image.size()
        own: Any = image.header  # astropy's headers are no MutableMapping by name
        self.header: Mapping[str, Any] = ChainMap(own, primary)
        self.wcs = _wcs_of(image.header)
        self.calibration: Calibration | None = None
        self._bad_of: Callable[[Area], np.ndarray] | None = None
        self._least, self.empty_zeros = self._habits()

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return f"{self.path} (band {self.band})" if self.band else str(self.path)

    def calibrate(self, zero_point: float | None, unit: str | None, pixel_scale: float | None) -> None:
        """Find what makes nanojansky of its values; see `calibration`."""
        self.calibration = calibration(
            self.header, str(self.path), pixel_scale=pixel_scale, zero_point=zero_point, unit=unit
        )

    @property
    def pixel_scale(self) -> float | None:
        """Arcseconds a pixel by the header; None if it says nothing."""
        return pixel_scale_of(self.header)

    def mask_with(self, bad_of: Callable[[Area], np.ndarray]) -> None:
        """Take for bad, besides, what a function says of an area: a bool array."""
        before = self._bad_of
        self._bad_of = bad_of if before is None else lambda area: before(area) | bad_of(area)

    def values(self, area: Area) -> np.ndarray:
        """Read values as the header scales them, in the type of the file."""
        with damage(self.path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = self._image.values(0, slice(area.y0, area.y1), slice(area.x0, area.x1))
        if values.shape != area.shape:
            raise UserError(f"{self.path} is damaged or cut short: its pixels cannot be read")
        return values

    def read(self, area: Area) -> np.ndarray:
        """Read an area within the frame: float32 nanojansky a pixel, NaN where there is no value."""
        values = self.values(area)
        bad = np.zeros(area.shape, bool)
        if values.dtype.kind == "f":
            bad = ~(np.abs(values) < _ABSURD)
        bad |= values < self._least
        if self.empty_zeros:
            bad |= values == 0
        if self._bad_of is not None:
            bad |= self._bad_of(area)
        factor = 1.0 if self.calibration is None else self.calibration.factor
        flux = values.astype(np.float32) * np.float32(factor)
        flux[bad] = np.nan
        return flux

    def _habits(self) -> tuple[float, bool]:
        """Tell by a sample below which value there is none, and whether 0 is none; see `Frame`.

        Surveys write NaN, -9999, -32768 or 0 where they have seen nothing. Among counts without sky 0 is one of them;
        areas of it in noise about 0, or far below a sky, are none.
        """
        height, width = self.shape
        rows = np.unique(np.linspace(0, max(height - _SAMPLE_ROWS, 0), _SAMPLES).astype(int)).tolist()
        stripes = [self.values(Area(y, min(y + _SAMPLE_ROWS, height), 0, width)) for y in rows]
        values = np.concatenate([stripe.ravel() for stripe in stripes]).astype(np.float64)
        values = values[np.abs(values) < _ABSURD]
        bulk = values[values > values.min()] if len(values) else values
        if not len(bulk):
            return -np.inf, False
        counts = bool((bulk == np.round(bulk)).all())
        low, first, median = np.percentile(bulk, (5, 16, 50))
        width_of_sky = max(median - first, 1.0 if counts else 0.0)
        least = low - _FAR_BELOW * width_of_sky if width_of_sky > 0 else -np.inf
        zeros = [stripe == 0 for stripe in stripes]
        count, beside = sum(z.sum() for z in zeros), sum((z[:, 1:] & z[:, :-1]).sum() for z in zeros)
        about_zero = not counts and _SOME <= (bulk < 0).mean() <= 1 - _SOME
        far_below = width_of_sky > 0 and first - 5 * width_of_sky > 0  # of a sky that was left in
        empty = count >= _FEW * len(values) and beside >= 0.5 * count and (about_zero or far_below)
        return float(least), bool(empty)


def open_frame(
    path: Path, band: str, extension: str | None, folder: Path, stack: ExitStack, is_map: bool = False
) -> Frame:
    """Open the image of a band in a file.

    Parameters
    ----------
    path : Path
        FITS file, tile-compressed or packed by gzip, bzip2, xz or Zstandard as may be.
    band : str
        Its name, for messages; "" for what is no band.
    extension : str, optional
        Number or name of the unit (HDU) that holds the image.
    folder : Path
        Where a packed file may be unpacked to.
    stack : ExitStack
        Closes the file.
    is_map : bool
        Whether a mask or a weight map is meant, and no image of the sky.

    Raises
    ------
    UserError
        If there is no such file, it is cut short, or it is not clear which image is meant.
    """
    try:
        from astropy.io import fits
    except ImportError:
        raise UserError(f"{path} is a FITS file, which needs astropy: python -m pip install astropy") from None
    file = _plain_file(path, folder)
    with damage(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        units = stack.enter_context(fits.open(file, memmap=False))
        images = images_of(units)
    image = _chosen(path, images, extension, is_map)
    _refuse_cut(path, file, image)
    frame = Frame(path, band, image, units[0].header)
    if min(frame.shape) < SMALLEST_PX:
        raise UserError(
            f"{path} has {frame.shape[1]} x {frame.shape[0]} pixels, and a frame has at least {SMALLEST_PX} a side"
        )
    return frame


def _plain_file(path: Path, folder: Path) -> Path:
    """Return a file that can be read in any order: the file itself, or what is packed in it."""
    try:
        with open_regular(path) as stream:
            start = stream.read(len(_FITS))
            if start == _FITS:
                return path
            stream.seek(0)
            inside = io.BufferedReader(unpacked(stream))
            start = inside.read(len(_FITS))
            if start != _FITS:
                raise UserError(f"{path} is no FITS file: name one")
            target = folder / f"unpacked_{len(list(folder.iterdir()))}.fits"
            with target.open("wb") as out:
                out.write(start)
                shutil.copyfileobj(inside, out, 1 << 20)
            return target
    except MissingError:
        raise UserError(f"{path} does not exist: name another frame") from None
    except UNPACK_ERRORS as error:
        raise UserError(f"{path} cannot be unpacked: {error}") from None


def _chosen(path: Path, images: Sequence[Image], extension: str | None, is_map: bool) -> Image:
    """Return the image that is meant."""
    if extension is not None:
        for image in images:
            if extension.strip().upper() in (str(image.number), image.name):
                if image.num_planes() != 1 or min(image.size()) == 0:
                    break
                return image
        found = ", ".join(image.label for image in images if image.num_planes() == 1) or "none"
        raise UserError(f"{path} has no image of one plane by --ext {shown(extension)}: it has {found}")
    if not images:
        raise UserError(f"{path} holds no image: name a frame of pixels")
    sky = [image for image in images if is_map or not says_otherwise(image)]
    flat = [image for image in sky if min(image.size()) > 1 and image.num_planes() == 1]
    if not flat:
        piled = next((image for image in sky if min(image.size()) > 1), None)
        if piled is not None:
            raise UserError(
                f"{path} has {piled.num_planes()} planes in {piled.label}: give one file a band, each of one plane"
            )
        raise UserError(f"{path} holds no image of the sky, only {', '.join(image.label for image in images[:4])}")
    named = [image for image in flat if image.name in _SCIENCE] or flat
    if len(named) > 1:
        raise UserError(
            f"{path} has {len(named)} images, {', '.join(i.label for i in named[:6])}: say which with --ext"
        )
    return named[0]


def _refuse_cut(path: Path, file: Path, image: Image) -> None:
    """Refuse a file that ends before the pixels of its image do."""
    place = image.unit.fileinfo() or {}
    start, span = place.get("datLoc"), place.get("datSpan")
    size = file.stat().st_size
    # The last block may lack its padding, up to 2879 bytes, without loss.
    if start is not None and span and size < start + span - 2879:
        raise UserError(
            f"{path} is cut short: it has {size} bytes, and its image needs {start + span}: copy or download it again"
        )


def _wcs_of(header: Any) -> Any:
    """Return the world coordinates of a header's image; None where it has none on the sky."""
    from astropy.wcs import WCS

    if not str(header.get("CTYPE1", "")).strip() or "CRVAL1" not in header:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(header, naxis=2)
            return wcs if wcs.has_celestial and wcs.pixel_scale_matrix.any() else None
    except Exception:  # astropy and wcslib raise many kinds of errors on headers that contradict themselves
        return None


class damage:  # noqa: N801 - reads as a word of a with statement
    """Turn whatever astropy raises on a damaged file into one sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError | MemoryError):
            raise UserError(f"{self._path} is damaged or cut short: its pixels cannot be read") from None
