"""Spectra of generated galaxies as FITS tables: templates that have a galaxy's magnitudes, and no observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import IO, NamedTuple

import numpy as np
import pandas as pd

from config_physics import Attribute, Config
from galaxies.common.errors import UserError
from galaxies.generation.fits_files import ImageFacts, describe_galaxy, write_units
from galaxies.spectra.fitting import CLOSE, FAR_CORRECTED, FEWEST_BANDS, FittedSpectrum, fit_spectrum, reached
from galaxies.spectra.templates import RESOLVING_POWER
from galaxies.telescope.surveys import edges_between

TEMPLATE = "template, no observation"
_LIGHT_NM = 2.99792458e17  # speed of light, nm / s


class SpectrumOf(NamedTuple):
    """The spectrum of one galaxy, and the magnitudes that it was made for.

    Attributes
    ----------
    magnitudes : ndarray, (B,)
        AB, NaN where unknown.
    origins : list of {"measured", "requested", ""}, B
        Where each comes from.
    fitted : FittedSpectrum or None
    reason : str
        Why there is none.
    """

    magnitudes: np.ndarray
    origins: list[str]
    fitted: FittedSpectrum | None
    reason: str = ""


def check_spectra(config: Config) -> list[tuple[float, float]]:
    """Return the edges in nanometres of the bands of a run whose galaxies can have spectra.

    Raises
    ------
    UserError
        If the run is of display pictures, does not know where its bands lie, or has no redshift.
    """
    what = "--spectrum is for runs of flux that know the wavelengths of their bands and the redshift"
    if config.kind != "flux":
        raise UserError(f"{what}, and {config.run} draws pictures, whose colors are no fluxes")
    if len(config.wavelengths) != len(config.bands) or not all(each > 0 for each in config.wavelengths):
        raise UserError(f"{what}, and {config.run} does not know where {', '.join(config.bands)} lie")
    if len(set(config.wavelengths)) < len(config.wavelengths) or len(config.bands) < FEWEST_BANDS:
        raise UserError(
            f"{what}, in {FEWEST_BANDS} different bands or more; {config.run} has {', '.join(config.bands)}"
        )
    if "redshift" not in config.attributes:
        raise UserError(f"{what}, and {config.run} was trained with {', '.join(config.attributes)}")
    return edges_between(config.wavelengths)


def spectrum_of(row: pd.Series, bands: Sequence[str], edges: Sequence[tuple[float, float]]) -> SpectrumOf:
    """Find the spectrum of a galaxy by its row of the catalogue.

    A band's magnitude is the measured one; where photometry knows none, since the light is fainter than twice its
    noise, the requested one, or what requested colors make of another.
    """
    magnitudes = np.array([row.get(f"measured_magnitude_{band}", math.nan) for band in bands], dtype=np.float64)
    requested = np.array([row.get(f"requested_magnitude_{band}", math.nan) for band in bands], dtype=np.float64)
    origins = ["measured" if math.isfinite(value) else "" for value in magnitudes]
    _fill(magnitudes, origins, requested)
    for _ in bands:  # a color may lead on to the next
        _fill(magnitudes, origins, _by_colors(row, bands, magnitudes))
    redshift = float(row.get("requested_redshift", math.nan))
    if not redshift >= 0:
        return SpectrumOf(magnitudes, origins, None, "its redshift is not known")
    if (np.isfinite(magnitudes) & reached(edges, redshift)).sum() < FEWEST_BANDS:
        return SpectrumOf(magnitudes, origins, None, f"fewer than {FEWEST_BANDS} of its magnitudes are known")
    return SpectrumOf(magnitudes, origins, fit_spectrum(magnitudes, edges, redshift))


def _fill(magnitudes: np.ndarray, origins: list[str], others: np.ndarray) -> None:
    for place in np.flatnonzero(np.isnan(magnitudes) & np.isfinite(others)).tolist():
        magnitudes[place], origins[place] = others[place], "requested"


def _by_colors(row: pd.Series, bands: Sequence[str], magnitudes: np.ndarray) -> np.ndarray:
    """Return what requested colors make of the known magnitudes (B,), NaN where nothing."""
    found = np.full(len(bands), np.nan)
    for one, first in enumerate(bands):
        for other, second in enumerate(bands):
            color = row.get(f"requested_color_{first}_{second}", math.nan)
            if not math.isfinite(color):
                continue
            if math.isfinite(magnitudes[other]):
                found[one] = magnitudes[other] + color
            if math.isfinite(magnitudes[one]):
                found[other] = magnitudes[one] - color
    return found


def write_spectrum(
    file: IO[bytes],
    found: SpectrumOf,
    row: pd.Series,
    attributes: Sequence[Attribute],
    facts: ImageFacts,
    edges: Sequence[tuple[float, float]],
) -> None:
    """Write a spectrum as a FITS table: wavelength (nm), flux (nJy) and flux_lambda (erg / s / cm2 / Angstrom).

    The header says that it is a template, of what resolution, and by how much it misses which magnitude.
    """
    from astropy.io import fits

    fitted = found.fitted
    assert fitted is not None
    wavelength, flux = fitted.wavelength_nm, fitted.flux_njy
    # 1 nJy is 1e-32 erg / s / cm2 / Hz; over the wavelength in nm it is a tenth an Angstrom.
    per_angstrom = flux * 1e-32 * _LIGHT_NM / wavelength**2 / 10
    columns = [
        fits.Column("wavelength", "D", unit="nm", array=wavelength),
        fits.Column("flux", "D", unit="nJy", array=flux),
        fits.Column("flux_lambda", "D", unit="erg s-1 cm-2 Angstrom-1", array=per_angstrom),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="SPECTRUM")
    header = table.header
    header["OBJECT"] = ("synthetic galaxy", "nothing on the sky")
    header["CONTENT"] = (TEMPLATE, "stars (CWW 1980) and dust (Calzetti)")
    header["RESOLVE"] = (RESOLVING_POWER, "wavelength over resolution, of the templates")
    header["SPECSYS"] = ("OBSERVED", "wavelengths in vacuum as they arrive here")
    header["REDSHIFT"] = (float(f"{fitted.redshift:.7g}"), "requested")
    header["YOUNG"] = (float(f"{fitted.young:.5g}"), "part of young stars in r at rest, before dust")
    header["EBV"] = (float(f"{fitted.reddening:.4g}"), "mag, dust by the law of Calzetti et al. (2000)")
    header["CORRECT"] = (
        float(f"{fitted.correction:.4g}"),
        f"mag, largest change of the templates ({FAR_CORRECTED:g}: far)",
    )
    header["WORST"] = (float(f"{fitted.worst:.4g}"), "mag, largest of the residuals")
    bands = zip(facts.bands, edges, found.magnitudes, found.origins, fitted.residuals, strict=True)
    for number, (band, (low, high), magnitude, origin, residual) in enumerate(bands, 1):
        header[f"BAND{number}"] = (band, "open between its edges")
        header[f"BLOW{number}"] = (float(f"{low:.6g}"), "nm, lower edge")
        header[f"BHIGH{number}"] = (float(f"{high:.6g}"), "nm, upper edge")
        if math.isfinite(magnitude):
            doubt = ": light below twice its noise" if origin == "requested" else ""
            header[f"MAG{number}"] = (float(f"{magnitude:.6g}"), f"AB, {origin}{doubt}")
        else:
            header["COMMENT"] = f"{band}: left out, since its light is below twice its noise and nothing was requested."
        if math.isfinite(residual):
            header[f"RESID{number}"] = (float(f"{residual:.4g}"), "mag, of the spectrum less this")
    describe_galaxy(header, row, attributes, facts)
    header["COMMENT"] = "A template that has the galaxy's magnitudes, no observation and no stellar population model."
    write_units(file, fits.HDUList([fits.PrimaryHDU(), table]))


def warnings_about(spectra: Sequence[SpectrumOf]) -> list[str]:
    """Say which galaxies have no spectrum, and how many miss a magnitude, are far from stars, or in noise."""
    said = []
    without = [found.reason for found in spectra if found.fitted is None]
    if without:
        reason = max(set(without), key=without.count)
        said.append(f"{len(without)} of {len(spectra)} galaxies have no spectrum: {reason}, most of the time")
    worst = [found.fitted.worst for found in spectra if found.fitted is not None]
    far = [value for value in worst if value > CLOSE]
    if far:
        said.append(
            f"{len(far)} of {len(worst)} spectra miss a magnitude of their galaxy by more than {CLOSE:g}, at most by "
            f"{max(far):.2f} (RESID in their headers)"
        )
    changes = [found.fitted.correction for found in spectra if found.fitted is not None]
    large = [value for value in changes if value > FAR_CORRECTED]
    if large:
        said.append(
            f"{len(large)} of {len(changes)} spectra are changed by more than {FAR_CORRECTED:g} magnitudes, at most by "
            f"{max(large):.2f}, to have their galaxy's: no stars behind dust have these colors at their redshift "
            "(CORRECT in their headers)"
        )
    faint = sum(any(origin != "measured" for origin in found.origins) for found in spectra if found.fitted is not None)
    if faint:
        said.append(
            f"of {faint} of {len(changes)} galaxies a band's light is below twice its noise: the requested magnitude "
            "stands for the measured one, or none (MAG in their headers)"
        )
    return said
