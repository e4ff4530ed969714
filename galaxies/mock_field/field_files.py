"""Write the files of a mock field in pieces, in any order and from several processes: none is ever whole in memory.

All files are laid out first, with their headers and with zeros where numbers will be, so that a full disk is met before
the work and not in its middle. Pieces are read and written with plain calls and not through a memory map: on a full or
failing disk those end in an error that can be said, and a map in a signal that ends the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from config_physics import AB_ZERO_POINT
from galaxies.images.fits_images import header_text
from galaxies.mock_field.field_folder import (
    MANIFEST,
    SEGMENTATION,
    TRUTH,
    FieldBand,
    FieldFacts,
    band_file,
    noiseless_file,
    truth_dtype,
    world_coordinates,
)

if TYPE_CHECKING:
    from astropy.io import fits

BLOCK_BYTES = 2880  # of FITS: headers and data are filled up to whole ones
CENTRE_DEG = (180.0, 0.0)  # right ascension and declination of a field's middle
_ZEROS = 1 << 22  # bytes written at a time


@dataclass(frozen=True)
class Plane:
    """An image (H, W) in a file, which is read and written in rectangles.

    Attributes
    ----------
    path : Path
    offset : int
        Of its first byte.
    shape : (int, int)
    dtype : str
        As numpy writes it, big-endian in FITS.
    """

    path: Path
    offset: int
    shape: tuple[int, int]
    dtype: str = ">f4"

    def read(self, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """Return a rectangle, in the byte order of the machine."""
        rows, columns = self._within(rows, columns)
        found = np.empty((rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        with self.path.open("rb") as file:
            for row, values in zip(range(rows.start, rows.stop), found, strict=True):
                file.seek(self._place(row, columns.start))
                if file.readinto(memoryview(values).cast("B")) != values.nbytes:
                    raise OSError(f"{self.path} is shorter than it was written")
        return found.astype(found.dtype.newbyteorder("="))

    def write(self, values: np.ndarray, row: int, column: int = 0) -> None:
        """Put a rectangle (h, w) where its first pixel is (row, column)."""
        height, width = values.shape
        rows, columns = self._within(slice(row, row + height), slice(column, column + width))
        stored = np.ascontiguousarray(values, self.dtype)
        with self.path.open("r+b") as file:
            if width == self.shape[1]:
                file.seek(self._place(rows.start, 0))
                file.write(stored.data)
                return
            for place, line in zip(range(rows.start, rows.stop), stored, strict=True):
                file.seek(self._place(place, columns.start))
                file.write(line.data)

    def _within(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        found = []
        for part, size in zip((rows, columns), self.shape, strict=True):
            start, stop = part.start or 0, size if part.stop is None else part.stop
            if not 0 <= start <= stop <= size:
                raise ValueError(f"{start}:{stop} of {size} pixels of {self.path.name}")
            found.append(slice(start, stop))
        return found[0], found[1]

    def _place(self, row: int, column: int) -> int:
        return self.offset + (row * self.shape[1] + column) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Records:
    """The rows of a table in a file."""

    path: Path
    offset: int
    dtype: np.dtype[Any]

    def write(self, rows: np.ndarray, first: int) -> None:
        """Put structured rows where their first is row `first`, from 0."""
        with self.path.open("r+b") as file:
            file.seek(self.offset + first * self.dtype.itemsize)
            file.write(rows.astype(self.dtype).tobytes())


class _Unit(NamedTuple):
    """A header, filled up to whole blocks, and the bytes of the data behind it."""

    header: bytes
    size: int

    @property
    def total(self) -> int:
        return len(self.header) + -(-self.size // BLOCK_BYTES) * BLOCK_BYTES


@dataclass
class FieldFiles:
    """The files of one field, laid out; other processes may be handed it.

    Attributes
    ----------
    folder : Path
    facts : FieldFacts
    truth : Records
    segmentation : Plane
    image, noise, weight, noiseless : dict of str to Plane
        By band.
    """

    folder: Path
    facts: FieldFacts
    truth: Records
    segmentation: Plane
    image: dict[str, Plane] = field(default_factory=dict)
    noise: dict[str, Plane] = field(default_factory=dict)
    weight: dict[str, Plane] = field(default_factory=dict)
    noiseless: dict[str, Plane] = field(default_factory=dict)

    @classmethod
    def lay_out(cls, folder: Path, facts: FieldFacts, psfs: Sequence[np.ndarray], num_sources: int) -> FieldFiles:
        """Make all files but the manifest, full of zeros.

        Parameters
        ----------
        folder : Path
            Exists.
        facts : FieldFacts
        psfs : sequence of ndarray, (P, P), B
            Of sum 1, P odd.
        num_sources : int
            Rows of the table.

        Raises
        ------
        OSError
            If the disk is full or fails.
        """
        dtype = truth_dtype(facts.band_names).newbyteorder(">")
        path = folder / TRUTH
        truth = Records(path, _lay_out(path, _table(dtype, num_sources))[1], dtype)
        path = folder / SEGMENTATION
        cards = {"BAND": facts.reference_band, "SYNTHET": True, "CONTENT": "id of the brightest source"}
        segmentation = Plane(path, _lay_out(path, [_image(facts.shape, 32, cards, facts)])[0], facts.shape, ">i4")
        files = cls(folder, facts, truth, segmentation)
        for band, psf in zip(facts.bands, psfs, strict=True):
            path, cards = folder / band_file(band.name), _cards(facts, band)
            units = [
                _image(facts.shape, -32, {**cards, "CONTENT": "as observed"}, facts),
                _image(facts.shape, -32, {"BUNIT": "nJy", "CONTENT": "standard deviation"}, facts, "NOISE"),
                _image(facts.shape, -32, {"BUNIT": "nJy-2", "CONTENT": "1 / NOISE^2"}, facts, "WEIGHT"),
                _image(
                    psf.shape, -32, {"PIXSCALE": facts.pixel_scale, "CONTENT": "point-spread function"}, None, "PSF"
                ),
            ]
            places = _lay_out(path, units)
            for planes, place in zip((files.image, files.noise, files.weight), places[:3], strict=True):
                planes[band.name] = Plane(path, place, facts.shape)
            Plane(path, places[3], (len(psf), len(psf))).write(psf, 0)
            path = folder / noiseless_file(band.name)
            units = [_image(facts.shape, -32, {**cards, "CONTENT": "without noise"}, facts)]
            files.noiseless[band.name] = Plane(path, _lay_out(path, units)[0], facts.shape)
        return files

    def finish(self) -> None:
        """Write the manifest, which says that there is a field."""
        (self.folder / MANIFEST).write_text(self.facts.as_json(), encoding="utf-8")


def bytes_of_field(facts: FieldFacts, num_sources: int) -> int:
    """Return how many bytes the files of a field have, about: four numbers a pixel and band, and one more."""
    pixels = facts.width_px * facts.height_px
    row = truth_dtype(facts.band_names).itemsize
    headers = 12 * BLOCK_BYTES * (len(facts.bands) + 1)
    return 4 * pixels * (4 * len(facts.bands) + 1) + num_sources * row + headers


def _cards(facts: FieldFacts, band: FieldBand) -> dict[str, Any]:
    binned: dict[str, Any] = {}
    if facts.binning > 1:
        said = "pixels of the survey in one, along the axis"
        binned = {"BINAXIS1": (facts.binning, said), "BINAXIS2": (facts.binning, said)}
        binned["COMMENT"] = header_text(facts.binned)
    return {
        "OBJECT": ("mock field", "nothing on the sky"),
        "SYNTHET": (True, "made by a program, not observed"),
        "BUNIT": ("nJy", "flux density in a pixel, the sky at 0"),
        "MAGZERO": (AB_ZERO_POINT, "AB magnitude of 1 nJy"),
        "MAGSYS": "AB",
        "SURVEY": header_text(facts.survey),
        "BAND": band.name,
        "WAVELEN": (band.wavelength_nm, "nm"),
        "EXPTIME": (band.exposure_s, "s"),
        "PIXSCALE": (facts.pixel_scale, "arcsec a pixel"),
        **binned,
        "FWHM": (band.psf_fwhm, "of the PSF before the pixels, arcsec"),
        "SKYNOISE": (float(f"{band.sky_noise:.7g}"), "standard deviation of the sky, nJy a pixel"),
        "PHOTVAR": (float(f"{band.photons:.7g}"), "variance that 1 nJy of light adds, nJy"),
    }


def _image(
    shape: tuple[int, ...], bits: int, cards: dict[str, Any], facts: FieldFacts | None, extension: str = ""
) -> _Unit:
    """Return an image unit: of the field's pixels, with its world coordinates, if `facts` are given."""
    from astropy.io import fits

    blank = np.zeros((1, 1), ">f4" if bits < 0 else ">i4")
    header = (fits.ImageHDU(blank, name=extension) if extension else fits.PrimaryHDU(blank)).header
    header["NAXIS1"], header["NAXIS2"] = shape[1], shape[0]
    for name, value in cards.items():
        header[name] = value
    if facts is not None:
        header.update(world_coordinates(facts, *CENTRE_DEG))
    if not extension:
        header["EXTEND"] = True
    return _Unit(_bytes(header), 4 * shape[0] * shape[1])


def _table(dtype: np.dtype[Any], rows: int) -> list[_Unit]:
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    primary.header["SYNTHET"] = (True, "made by a program, not observed")
    header = fits.BinTableHDU(np.zeros(1, dtype), name="TRUTH").header
    header["NAXIS2"] = rows
    return [_Unit(_bytes(primary.header), 0), _Unit(_bytes(header), rows * dtype.itemsize)]


def _bytes(header: fits.Header) -> bytes:
    return header.tostring(sep="", endcard=True, padding=True).encode("ascii")


def _lay_out(path: Path, units: Sequence[_Unit]) -> list[int]:
    """Write units whose data are zeros, and return where the data begin."""
    places = []
    with path.open("wb") as file:
        for unit in units:
            file.write(unit.header)
            places.append(file.tell())
            left = unit.total - len(unit.header)
            while left > 0:
                left -= file.write(bytes(min(left, _ZEROS)))
    return places
