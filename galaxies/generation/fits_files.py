"""Generated galaxies as FITS files, which say that they are none of the sky, what was asked, and what was measured.

A file of flux holds B planes of float32 in nanojansky a pixel, rows in the order of the array. Its world coordinates
are offsets from the frame's centre in arcseconds, in no direction of the sky: the galaxy has no place there.

References
----------
FITS standard 4.0 (Pence et al. 2010, A&A 524, A42, and its update of 2018): section 4.3 for units, 8.1 for linear axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from config_physics import AB_ZERO_POINT, BAND_NAMES, Attribute, Config, attribute_of
from galaxies.common.version import SOFTWARE, SYNTHETIC
from galaxies.generation.request_values import SHARE
from galaxies.images.fits_images import header_text
from galaxies.images.stretch import NOISE_SOFTENING

if TYPE_CHECKING:
    from astropy.io import fits

_ORIGIN_CARDS = {"model": "MODEL", "run": "RUN", "step": "STEP", "source": "TRAINED", "credit": "CREDIT"}


@dataclass(frozen=True)
class ImageFacts:
    """What is alike in all images of a generator.

    Attributes
    ----------
    kind : {"display", "flux"}
    bands : tuple of str
        Of the planes.
    pixel_scale : float
        Of flux, arcsec a pixel.
    noise : tuple of float
        Of flux: the usual standard deviation of a pixel of the training data in each band, nJy; of what a survey
        observed, that of the sky.
    psf_fwhm : tuple of float
        Of flux: their usual full width at half maximum of the PSF, arcsec, 0 where unknown; or the survey's.
    psfs : Tensor, (B, P, P), float32, or None
        A usual PSF of theirs in each band, or the survey's.
    origin : mapping
        As `GalaxySampler.origin`, and the family as ``model``.
    observation : mapping
        What a survey observed with, as JSON has it; empty of pictures as the training data are. ``survey``,
        ``with_noise``, and ``bands``, in their order, of which each says its ``exposure_s`` and ``photons``; of binned
        pixels ``binning`` and ``binned``, a sentence.
    """

    kind: str = "display"
    bands: tuple[str, ...] = BAND_NAMES
    pixel_scale: float = 0.0
    noise: tuple[float, ...] = ()
    psf_fwhm: tuple[float, ...] = ()
    psfs: Tensor | None = None
    origin: Mapping[str, str] = field(default_factory=dict)
    observation: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_run(cls, config: Config, origin: Mapping[str, str], psfs: Tensor | None) -> ImageFacts:
        """Return what the settings of a run say."""
        noise = tuple(softening / NOISE_SOFTENING for softening in config.softening)
        origin = {"model": config.family, **origin}
        return cls(config.kind, config.bands, config.pixel_scale, noise, config.psf_fwhm, psfs, origin)

    @property
    def is_flux(self) -> bool:
        """Whether pixels are nanojansky."""
        return self.kind == "flux"


def write_fits(
    file: IO[bytes],
    image: Tensor,
    row: pd.Series,
    attributes: Sequence[Attribute],
    facts: ImageFacts | None = None,
    date: str = "",
) -> None:
    """Write one image as a FITS cube, a plane a band, with its condition and what was measured in the header.

    Parameters
    ----------
    file : binary file
    image : Tensor, (B, S, S)
        uint8 of a display (R, G, B), or of flux float32, nJy a pixel.
    row : Series
        Of the catalogue.
    attributes : sequence of Attribute
        Of the run.
    facts : ImageFacts, optional
        Without them, those of a display.
    date : str
        Of the file, as FITS writes dates; without it the same galaxy has the same bytes at any time.
    """
    from astropy.io import fits

    facts = facts or ImageFacts()
    header = fits.Header()
    if facts.is_flux:
        _describe_flux(header, facts, image.shape[-1])
    else:
        header["OBJECT"] = ("synthetic galaxy", "nothing on the sky")
        header["BUNIT"] = ("display", "asinh-stretched display value, 0 to 255")
        header["PLANES"] = ("R,G,B", "display colors, no bands of a telescope")
    describe_galaxy(header, row, attributes, facts, date)
    if not facts.is_flux:
        # FITS counts rows from the bottom.
        write_units(file, fits.HDUList([fits.PrimaryHDU(image.numpy()[:, ::-1], header)]))
        return
    units = fits.HDUList([fits.PrimaryHDU(image.numpy().astype(np.float32, copy=False), header)])
    if facts.psfs is not None:
        units.append(psf_extension(facts, facts.psfs))
    write_units(file, units)


def describe_galaxy(
    header: fits.Header, row: pd.Series, attributes: Sequence[Attribute], facts: ImageFacts, date: str = ""
) -> None:
    """Say in a header that a galaxy is synthetic, what was asked for, and what was measured on its image."""
    header["SYNTHETI"] = (True, "drawn by a neural network, not observed")
    header["CREATOR"] = (SOFTWARE, "program that wrote this file")
    if date:
        header["DATE"] = (date, "when it was written (UTC)")
    header["MORPHOL"] = (header_text(row["morphology"]), "requested morphology")
    of_classes = [str(column) for column in row.index if str(column).startswith(SHARE)]
    for number, column in enumerate(of_classes, 1):
        about = header_text(f"requested of {column.removeprefix(SHARE)}")
        header[f"SHARE{number}"] = (float(f"{row[column]:.7g}"), about)
    header["SEED"] = (str(row["seed"]), "seed of this image")
    for number, attribute in enumerate((*attributes, *_measured_besides(row, attributes)), 1):
        header[f"ATTR{number}"] = (attribute.name, header_text(attribute.unit) or "dimensionless")
        for key, prefix in (("REQ", "requested"), ("MEAS", "measured")):
            value = row.get(f"{prefix}_{attribute.name}", math.nan)
            if math.isfinite(value):
                # What single precision knows of it.
                header[f"{key}{number}"] = (
                    float(f"{value:.7g}"),
                    prefix if facts.is_flux else f"{prefix} {attribute.name}",
                )
    if math.isfinite(angle := row.get("requested_position_angle", math.nan)):
        header["POSANG"] = (float(f"{angle:.7g}"), "requested of the major axis, deg from +x to +y")
    header["FLAG"] = (int(row["flag"]), f"0: sound measurement; see {'flux' if facts.is_flux else 'photometry'}.py")
    header["SUPPORT"] = (bool(row["supported"]), "request like training galaxies of its class")
    header["VERDICT"] = (row["support"], "like training galaxies, unusual, or invented")
    if math.isfinite(row["nearest_real"]):
        header["NEAREST"] = (float(f"{row['nearest_real']:.7g}"), "spreads from the request to training galaxy")
    describe_origin(header, facts)
    header["COMMENT"] = SYNTHETIC


def write_units(file: IO[bytes], units: fits.HDUList) -> None:
    """Write a file with checksums, in whose comments no time stands: the same galaxy has the same bytes."""
    units.update_extend()
    for unit in units:
        unit.add_checksum(when="of what is here")
    units.writeto(file)


def describe_origin(header: fits.Header, facts: ImageFacts) -> None:
    """Say in a header which generator drew, and whom its training data are owed to."""
    for name, card in _ORIGIN_CARDS.items():
        if name in facts.origin:
            header[card] = header_text(facts.origin[name])


def _describe_flux(header: fits.Header, facts: ImageFacts, side: int) -> None:
    """Say what the pixels are: unit, bands, scale, noise and blur."""
    header["OBJECT"] = ("synthetic galaxy", "nothing on the sky")
    header["BUNIT"] = ("nJy", "flux density in a pixel, the sky at 0")
    describe_bands(header, facts)
    header["WCSAXES"] = 3  # before all else of the world coordinates
    _add_offsets(header, facts.pixel_scale, side)
    for card, value in (("CTYPE3", "BANDNUM"), ("CRPIX3", 1.0), ("CRVAL3", 1.0), ("CDELT3", 1.0)):
        header[card] = value


def describe_bands(header: fits.Header, facts: ImageFacts) -> None:
    """Say in a header of flux what its bands, their zero point, scale, noise and blur are."""
    header["MAGZERO"] = (AB_ZERO_POINT, "AB magnitude of 1 nJy")
    header["MAGSYS"] = ("AB", "")
    header["BANDS"] = ",".join(facts.bands)
    for number, band in enumerate(facts.bands, 1):
        header[f"BAND{number}"] = (band, f"band of plane {number}")
    whose = ("usual noise of a pixel in training", "usual FWHM of its PSF")
    if facts.observation:
        whose = ("noise of the sky, a pixel", "FWHM of its PSF before the pixels")
        header["SURVEY"] = header_text(facts.observation["survey"])
        if "binning" in facts.observation:
            describe_binning(header, facts.observation["binning"], facts.observation["binned"])
        header["CONTENT"] = "as observed" if facts.observation["with_noise"] else "without noise"
        for number, band in enumerate(facts.observation["bands"], 1):
            header[f"EXPTIM{number}"] = (band["exposure_s"], "exposure, s")
            header[f"PHOTV{number}"] = (float(f"{band['photons']:.7g}"), "variance that 1 nJy of light adds, nJy")
    for number, noise in enumerate(facts.noise, 1):
        header[f"NOISE{number}"] = (float(f"{noise:.4g}"), f"{whose[0]}, nJy")
    for number, width in enumerate(facts.psf_fwhm, 1):
        if width > 0:
            header[f"FWHM{number}"] = (width, f"{whose[1]}, arcsec")
    header["PIXSCALE"] = (facts.pixel_scale, "arcsec a pixel")


def describe_binning(header: fits.Header, binning: int, sentence: str) -> None:
    """Say in a header how many of a survey's pixels a side are one of the file's."""
    for axis in (1, 2):
        header[f"BINAXIS{axis}"] = (binning, "pixels of the survey in one, along the axis")
    header["COMMENT"] = header_text(sentence)


def _add_offsets(header: fits.Header, pixel_scale: float, side: int) -> None:
    """Add linear axes: arcsec from the frame's centre, without a place or a direction on the sky."""
    header["WCSNAME"] = ("OFFSETS", "arcsec from the centre, no place on the sky")
    for axis, name in ((1, "XOFFSET"), (2, "YOFFSET")):
        header[f"CTYPE{axis}"] = (name, "linear")
        header[f"CUNIT{axis}"] = "arcsec"
        header[f"CRPIX{axis}"] = (side + 1) / 2
        header[f"CRVAL{axis}"] = 0.0
        header[f"CDELT{axis}"] = pixel_scale


def psf_extension(facts: ImageFacts, psfs: Tensor) -> fits.ImageHDU:
    """Return the extension PSF of point spread functions (B, P, P)."""
    from astropy.io import fits

    header = fits.Header()
    header["BANDS"] = ",".join(facts.bands)
    header["PIXSCALE"] = (facts.pixel_scale, "arcsec a pixel")
    whose = "The point spread function" if facts.observation else "A usual point spread function of the training data"
    header["COMMENT"] = f"{whose}, each plane of sum 1."
    return fits.ImageHDU(psfs.numpy().astype(np.float32, copy=False), header, name="PSF")


def _measured_besides(row: pd.Series, attributes: Sequence[Attribute]) -> list[Attribute]:
    """Return what was measured and is no attribute of the run."""
    own = {attribute.name for attribute in attributes}
    names = [str(column).removeprefix("measured_") for column in row.index if str(column).startswith("measured_")]
    return [found for name in names if name not in own and (found := attribute_of(name)) is not None]
