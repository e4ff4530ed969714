"""A mock field on disk: the light with and without noise of each band, who is where, and what is true of each source.

A folder holds, all images (H, W) with the rows in the order of FITS, the first the lowest:

- ``field.json``: what was observed with what, see `FieldFacts`;
- ``<band>.fits``: nanojansky a pixel, sky subtracted, float32, with the extensions ``NOISE`` (standard deviation of the
  pixel, of sky and photons), ``WEIGHT`` (1 / NOISE^2) and ``PSF`` (P, P), of sum 1 on the field's pixels;
- ``noiseless_<band>.fits``: the same light without noise, float32;
- ``segmentation.fits``: int32, the id of the source that gives most of a pixel's light in the reference band where that
  source alone has more than half of the sky's noise, else 0;
- ``truth.fits``: a table with a row a source, see `truth_dtype`;
- ``preview.png``: a picture for people.

Places are 0-based pixel centres, x along rows and y up the columns of FITS (down those of the array); angles are
degrees from +x towards +y.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from config_physics import AB_ZERO_POINT, BAND_NAME
from galaxies.common.errors import UserError, shown
from galaxies.common.json_writing import json_text
from galaxies.common.reading import MissingError, open_regular, read_json
from galaxies.common.schema import entries, exactly, items, number, text, whole

if TYPE_CHECKING:
    from astropy.io import fits

FORMAT_VERSION = 1
MANIFEST, TRUTH, SEGMENTATION, PREVIEW = "field.json", "truth.fits", "segmentation.fits", "preview.png"
GALAXY, STAR = "galaxy", "star"
MOST_PX = 2_000_000  # along an axis; a hundred degrees at 0.2 arcseconds
_CURE = "make the field again with observe.py field"


@dataclass(frozen=True)
class FieldBand:
    """What a band of a field was observed with.

    Attributes
    ----------
    name : str
    wavelength_nm : float
    psf_fwhm : float
        Arcseconds, before the pixels.
    exposure_s : float
        Seconds.
    sky_noise : float
        Standard deviation where there is no source, nanojansky a pixel.
    photons : float
        Variance that a nanojansky of light adds, nanojansky: NOISE^2 is sky_noise^2 + photons * light.
    zero_point : float
        AB magnitude of 1 in the images, 31.4: they are in nanojansky.
    """

    name: str
    wavelength_nm: float
    psf_fwhm: float
    exposure_s: float
    sky_noise: float
    photons: float
    zero_point: float = AB_ZERO_POINT


@dataclass(frozen=True)
class FieldFacts:
    """What ``field.json`` says.

    Attributes
    ----------
    survey : str
    pixel_scale : float
        Arcseconds a pixel.
    width_px, height_px : int
    area_arcmin2 : float
        Of the pixels.
    seed : int
    bands : tuple of FieldBand
    source : str
        What drew the galaxies.
    counts : str
        What the number counts are.
    faintest_magnitude : float
        Of a galaxy, in the reference band.
    reference_band : str
    command_line, credit : str
    remarks : tuple of str
        What was replaced or assumed, in sentences.
    binning : int
        Of the survey's own pixels, so many a side are one of the field's.
    binned : str
        That in a sentence, and why; "" where they are not binned.
    """

    survey: str
    pixel_scale: float
    width_px: int
    height_px: int
    area_arcmin2: float
    seed: int
    bands: tuple[FieldBand, ...]
    source: str
    counts: str
    faintest_magnitude: float
    reference_band: str
    command_line: str = ""
    credit: str = ""
    remarks: tuple[str, ...] = ()
    binning: int = 1
    binned: str = ""

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in their order."""
        return tuple(band.name for band in self.bands)

    @property
    def shape(self) -> tuple[int, int]:
        """Of an image: rows, columns."""
        return self.height_px, self.width_px

    def band(self, name: str) -> FieldBand:
        """Return a band by its name.

        Raises
        ------
        UserError
            If there is none of that name.
        """
        for band in self.bands:
            if band.name == name:
                return band
        raise UserError(f"the field has no band {shown(name)}: choose from {', '.join(self.band_names)}")

    def as_json(self) -> str:
        """Return the content of ``field.json``."""
        return json_text({"format_version": FORMAT_VERSION, **asdict(self)}, indent=1) + "\n"


def _plain(value: Any) -> bool:
    return isinstance(value, str) and BAND_NAME.fullmatch(value) is not None


_POSITIVE = number(1e-12, 1e12)
_BAND = entries(
    {
        "name": text(most=16),
        "wavelength_nm": number(1, 1e6),
        "zero_point": number(AB_ZERO_POINT, AB_ZERO_POINT),
        "psf_fwhm": _POSITIVE,
        "exposure_s": _POSITIVE,
        "sky_noise": _POSITIVE,
        "photons": number(0, 1e12),
    }
)
_MANIFEST = entries(
    {
        "format_version": exactly(FORMAT_VERSION),
        "survey": text(),
        "pixel_scale": _POSITIVE,
        "width_px": whole(1, MOST_PX),
        "height_px": whole(1, MOST_PX),
        "area_arcmin2": _POSITIVE,
        "seed": whole(0),
        "bands": items(_BAND, 1),
        "source": text(),
        "counts": text(),
        "faintest_magnitude": number(-50, 100),
        "reference_band": text(),
        "command_line": text(),
        "credit": text(),
    },
    {"remarks": items(text()), "binning": whole(1), "binned": text()},
)


class MockField:
    """A mock field that is read: facts at once, images as they are asked for, mapped into memory.

    Parameters
    ----------
    path : Path
        The folder.

    Attributes
    ----------
    path : Path
    facts : FieldFacts

    Raises
    ------
    UserError
        If there is no field, or its manifest is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            said = read_json(path / MANIFEST, _MANIFEST, cure=_CURE)
        except MissingError:
            raise UserError(f"{path} holds no mock field, for it has no {MANIFEST}: {_CURE}") from None
        bands = tuple(
            FieldBand(**{name: band[name] for name in FieldBand.__dataclass_fields__}) for band in said["bands"]
        )
        known = {name: said[name] for name in FieldFacts.__dataclass_fields__ if name in said}
        self.facts = FieldFacts(**{**known, "bands": bands, "remarks": tuple(said.get("remarks", ()))})
        names = self.facts.band_names
        if wrong := [name for name in names if not _plain(name) or names.count(name) > 1]:
            raise UserError(
                f"{path / MANIFEST} names a band {shown(wrong[0])}, which is none or is there twice: {_CURE}"
            )
        if self.facts.reference_band not in names:
            raise UserError(
                f"{path / MANIFEST} names the reference band {shown(self.facts.reference_band)}, which the field has "
                f"not: {_CURE}"
            )

    def image(self, band: str) -> np.ndarray:
        """Return a band as observed, (H, W) float32 (big-endian), nJy a pixel; read only, as the other images are.

        Raises
        ------
        UserError
            If the field has no such band, or its file is damaged. The other images raise the same.
        """
        return self._plane(band_file(self.facts.band(band).name), 0, ">f4")

    def noise(self, band: str) -> np.ndarray:
        """Return the standard deviation of the noise, (H, W) float32, nJy a pixel."""
        return self._plane(band_file(self.facts.band(band).name), "NOISE", ">f4")

    def weight(self, band: str) -> np.ndarray:
        """Return 1 over the variance of the noise, (H, W) float32, nJy^-2."""
        return self._plane(band_file(self.facts.band(band).name), "WEIGHT", ">f4")

    def noiseless(self, band: str) -> np.ndarray:
        """Return the light before the noise, (H, W) float32, nJy a pixel."""
        return self._plane(noiseless_file(self.facts.band(band).name), 0, ">f4")

    def segmentation(self) -> np.ndarray:
        """Return the id of the source that a pixel belongs to, (H, W) int32, 0 for none."""
        return self._plane(SEGMENTATION, 0, ">i4")

    def psf(self, band: str) -> np.ndarray:
        """Return the point-spread function, (P, P) float32 of sum 1, P odd, with the pixels' response."""
        return np.array(self._plane(band_file(self.facts.band(band).name), "PSF", ">f4", whole_field=False), np.float32)

    def truth(self) -> np.ndarray:
        """Return the table of all sources, a structured array in the byte order of the machine; see `truth_dtype`.

        Raises
        ------
        UserError
            If the table is missing or damaged, or lacks a column.
        """
        wanted = truth_dtype(self.facts.band_names)
        with _opened(self.path / TRUTH) as units:
            found = units[1].data
            rows = np.empty(len(found), wanted)
            for name in wanted.names or ():
                rows[name] = found[name]
        return rows

    def _plane(self, name: str, extension: int | str, dtype: str, whole_field: bool = True) -> np.ndarray:
        path = self.path / name
        with _opened(path) as units:
            unit = units[extension]
            place, shape, bits = unit.fileinfo()["datLoc"], unit.shape, unit.header["BITPIX"]
        wanted = self.facts.shape if whole_field else shape
        if shape != wanted or len(shape) != 2 or bits != {">f4": -32, ">i4": 32}[dtype]:
            raise UserError(f"{path} has an image of {shape}, where {wanted} numbers of {dtype} are expected: {_CURE}")
        if path.stat().st_size < place + shape[0] * shape[1] * 4:
            raise UserError(f"{path} ends before its image does: {_CURE}")
        return np.memmap(path, dtype, "r", place, shape)


@contextmanager
def _opened(path: Path) -> Iterator[fits.HDUList]:
    from astropy.io import fits

    try:
        with open_regular(path, _CURE) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is damaged, which raises as well where it matters
            with fits.open(file, memmap=False) as units:
                yield units
    except (OSError, KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({shown(str(error), 100)}): {_CURE}") from None


def band_file(band: str) -> str:
    """Return the name of the file of a band as observed."""
    return f"{band}.fits"


def noiseless_file(band: str) -> str:
    """Return the name of the file of a band without noise."""
    return f"noiseless_{band}.fits"


def truth_dtype(bands: Sequence[str]) -> np.dtype[Any]:
    """Return the columns of ``truth.fits``.

    id, from 1 without a gap; x, y, pixels; ra, dec, degrees; kind, galaxy or star; morphology, "" of a star;
    redshift, NaN of a star; magnitude_<band>, AB, of all of the source's light; size_arcsec, the half-light radius of
    the circle about its light in the reference band before the telescope, 0 of a star; ellipticity (1 - b/a of that
    light's second moments) and position_angle, degrees in [0, 180), NaN of a star; snr_<band>, the signal-to-noise
    ratio of a matched filter over the noise of sky and photons of the source alone; seed, of its light.
    """
    columns: list[tuple[str, str]] = [("id", "i4"), ("x", "f8"), ("y", "f8"), ("ra", "f8"), ("dec", "f8")]
    columns += [("kind", "S8"), ("morphology", "S16"), ("redshift", "f8")]
    columns += [(f"magnitude_{band}", "f8") for band in bands]
    columns += [("size_arcsec", "f8"), ("ellipticity", "f8"), ("position_angle", "f8")]
    columns += [(f"snr_{band}", "f8") for band in bands]
    return np.dtype([*columns, ("seed", "i8")])


def world_coordinates(facts: FieldFacts, ra: float, dec: float) -> fits.Header:
    """Return the cards that lay a field on the sky: a tangent plane (TAN), north up and east to the left.

    `ra`, `dec` are those of its middle, degrees.
    """
    from astropy.io import fits

    header = fits.Header()
    header["WCSAXES"] = 2
    for axis, (kind, size, value, step) in enumerate(
        (("RA---TAN", facts.width_px, ra, -1), ("DEC--TAN", facts.height_px, dec, 1)), 1
    ):
        header[f"CTYPE{axis}"] = kind
        header[f"CUNIT{axis}"] = "deg"
        header[f"CRPIX{axis}"] = (size + 1) / 2
        header[f"CRVAL{axis}"] = value
        header[f"CDELT{axis}"] = step * facts.pixel_scale / 3600
    header["RADESYS"] = "ICRS"
    return header
