"""What a value of a science image is in nanojansky, and how its pixels lie on the sky.

Headers say so in many words, or do not. What they leave open is asked for in a sentence that names the option;
nothing is guessed.

References
----------
Oke & Gunn 1983 for AB magnitudes: m = -2.5 log10(f_nu / (erg/s/cm^2/Hz)) - 48.60, so that a source of 1 nJy has 31.4.
"""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from config_physics import AB_ZERO_POINT
from galaxies.common.errors import UserError, shown

_SPEED_OF_LIGHT = 2.99792458e18  # angstrom/s
_ARCSEC_PER_RADIAN = 180 * 3600 / math.pi

# AB magnitude of a value of 1, in the header of an image; FLUXMAG0 is the value of a source of magnitude 0.
_ZERO_POINT_CARDS = (
    *("MAGZERO", "MAGZPT", "MAGZP", "MAG_ZP", "PHOTZP", "PHOT_ZP", "ABMAGZP", "MAGZP_AB", "ZPAB", "ZP_AB"),
    *("ZP", "ZPT", "ZEROPT", "ZEROPNT", "ZEROPOIN", "ZERO_PT"),
)
_VEGA_SURVEYS = re.compile(r"2MASS|\bWISE\b|UKIRT|WFCAM|VISTA|VIRCAM|UKIDSS", re.IGNORECASE)
_SYSTEM_CARDS = ("MAGSYS", "PHOTSYS", "MAGTYPE", "ZPSYS", "PHOT_SYS")
_EXPOSURE_CARDS = ("EXPTIME", "EXPOSURE", "XPOSURE", "TEXPTIME")
_NANOMAGGIES = re.compile(r"(nano[\s-]?magg(y|ies)|nmgys?|nmaggy|nanomgy)s?", re.IGNORECASE)
_MAGGIES = re.compile(r"(magg(y|ies)|mgys?)", re.IGNORECASE)
_COUNT = r"(adus?|dn|data ?numbers?|du|cts?|counts?|e-?|elec|electrons?|photo-?electrons?|photons?|ph)"
_PER_SECOND = re.compile(rf"{_COUNT}\s*(/|per\s|\s)\s*(s|sec|seconds?)(\^?-1|\*\*-1)?|cps", re.IGNORECASE)
_COUNTS = re.compile(rf"{_COUNT}(\s*/\s*pix(el)?)?", re.IGNORECASE)
_MAGNITUDES = re.compile(r"(ab|vega|st)?\s*mag\b.*", re.IGNORECASE)
_JANSKY = {"": 1e9, "n": 1.0, "u": 1e3, "µ": 1e3, "μ": 1e3, "micro": 1e3, "m": 1e6, "nano": 1.0, "milli": 1e6}
_PLAIN_JANSKY = re.compile(r"(nano|micro|milli|[nuµμm])?[\s-]?(Jy|jy|jansky|Jansky|janskys|JY)")
_CAPITALS = {"JY": 1e9, "NJY": 1.0, "UJY": 1e3}  # not MJY, which may be milli or mega


class Calibration(NamedTuple):
    """What makes nanojansky of the values of an image.

    Attributes
    ----------
    factor : float
        Nanojansky a pixel of a value of 1.
    how : str
        By what it is known, in words.
    """

    factor: float
    how: str


def factor_of_zero_point(zero_point: float) -> float:
    """Return the flux in nJy of a source with a value of 1 where that has this AB magnitude."""
    return 10 ** (0.4 * (AB_ZERO_POINT - zero_point))


def calibration(
    header: Mapping[str, Any],
    where: str,
    *,
    pixel_scale: float | None = None,
    zero_point: float | None = None,
    unit: str | None = None,
) -> Calibration:
    """Find what makes nanojansky of the values of an image.

    Parameters
    ----------
    header : mapping
        Of the image, or what stands for it.
    where : str
        What to call it in messages, such as its file.
    pixel_scale : float, optional
        Arcseconds a pixel; needed for a unit of surface brightness.
    zero_point : float, optional
        AB magnitude of a value of 1, by option `--zero-point`: it decides, whatever the header says.
    unit : str, optional
        Unit by option `--unit`, instead of BUNIT.

    Raises
    ------
    UserError
        If neither says it, or what they say is no linear flux; it names the option.
    """
    if zero_point is not None:
        return Calibration(factor_of_zero_point(zero_point), f"--zero-point {zero_point:g}")
    if "BSOFTEN" in header:
        raise UserError(f"{where} holds values compressed by asinh (BSOFTEN): make them linear first")
    given = str(header.get("BUNIT") or "").strip() if unit is None else unit.strip()
    how = f"BUNIT {shown(given)}" if unit is None else f"--unit {given}"
    if _MAGNITUDES.fullmatch(given):
        raise UserError(f"{where} holds magnitudes ({how}), which do not add up: give fluxes or counts")
    if given.lower() == "display":
        raise UserError(f"{where} is stretched for a display ({how}) and holds no flux: give the linear image")
    rate = _PER_SECOND.fullmatch(given) is not None
    if given and not rate and not _COUNTS.fullmatch(given):
        return Calibration(_factor_of_unit(header, where, given, how, pixel_scale), how)
    return _of_counts(header, where, given, rate, how)


def _factor_of_unit(header: Mapping[str, Any], where: str, unit: str, how: str, pixel_scale: float | None) -> float:
    """Return nJy a pixel of a unit of flux density or of surface brightness."""
    if _NANOMAGGIES.fullmatch(unit):
        return factor_of_zero_point(22.5)
    if _MAGGIES.fullmatch(unit):
        return factor_of_zero_point(0.0)
    if plain := _PLAIN_JANSKY.fullmatch(unit):
        return _JANSKY[plain[1] or ""]
    if unit in _CAPITALS:
        return _CAPITALS[unit]
    question = f"{where} is in {shown(unit)}, of which no flux can be made: say the unit with --unit nJy, MJy/sr, "
    question += "nanomaggy or another of flux, or the AB magnitude of a value of 1 with --zero-point"
    if "beam" in unit.lower() or unit == "MJY":
        raise UserError(question)
    from astropy import units

    text = re.sub(r"\bMJY\b(.*)\bSR\b", r"MJy\1sr", unit)
    text = re.sub(r"(?i)\bsq\.?\s*arcsec\b", "arcsec2", text)
    text = re.sub(r"(?i)\bang(stroms?)?\b|\bA\b", "Angstrom", text)
    text = re.sub(r"(?i)/\s*pix(el)?s?\b|pix(el)?\s*(\^|\*\*)?-1", "", text)
    per_angstrom = units.erg / units.s / units.cm**2 / units.AA
    with warnings.catch_warnings(), contextlib.suppress(ValueError, TypeError):
        warnings.simplefilter("ignore")  # of units that are written in ways that are deprecated
        parsed = units.Unit(text)
        if parsed.is_equivalent(units.nJy):
            return float(parsed.to(units.nJy))
        if (parsed * units.sr).is_equivalent(units.nJy):
            if pixel_scale is None:
                raise UserError(f"{where} is in {shown(unit)}, which needs the size of its pixels: give --pixel-scale")
            return float((parsed * units.sr).to(units.nJy)) * (pixel_scale / _ARCSEC_PER_RADIAN) ** 2
        if parsed.is_equivalent(per_angstrom) and (pivot := _number(header, "PHOTPLAM")):
            return float(parsed.to(per_angstrom)) * pivot**2 / _SPEED_OF_LIGHT * 1e32
    raise UserError(question)


def _of_counts(header: Mapping[str, Any], where: str, unit: str, rate: bool, how: str) -> Calibration:
    """Return the calibration of counts, of counts a second, or of what has no unit."""
    if vega := _vega(header):
        raise UserError(f"{where} has magnitudes of Vega ({vega}): give the AB zero point with --zero-point")
    found = {
        card: value for card in _ZERO_POINT_CARDS if (value := _number(header, card)) is not None and -50 < value < 60
    }
    if (bright := _number(header, "FLUXMAG0")) and bright > 0:
        found["FLUXMAG0"] = 2.5 * math.log10(bright)
    if found:
        card, value = next(iter(found.items()))
        if other := next((c for c in found if abs(found[c] - value) > 0.01), None):
            raise UserError(
                f"{where} has two zero points, {card} {value:g} and {other} {found[other]:g}: say which is meant "
                "with --zero-point"
            )
        return Calibration(factor_of_zero_point(value), f"{card} {value:g}")
    per_electron, card = _of_photometry_cards(header)
    if per_electron is None:
        said = f"is in {shown(unit)}" if unit else "has no unit (BUNIT)"
        raise UserError(
            f"{where} {said} and no zero point: give the AB magnitude of a value of 1 with --zero-point, or the unit "
            "with --unit"
        )
    if rate:
        return Calibration(per_electron, card)
    if not unit:
        raise UserError(
            f"{where} has {card} and no unit (BUNIT): say with --unit whether it holds 'electron/s' or 'electron'"
        )
    exposure = next((t for c in _EXPOSURE_CARDS if (t := _number(header, c)) and t > 0), None)
    if exposure is None:
        raise UserError(f"{where} is in {shown(unit)} and has {card}, but no EXPTIME: give --zero-point")
    return Calibration(per_electron / exposure, f"{card} and EXPTIME {exposure:g}")


def _of_photometry_cards(header: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return nJy of one electron a second by the cards of the Hubble Space Telescope, and which these are."""
    per_second = _number(header, "PHOTFNU")  # Jy s / electron
    if per_second and per_second > 0:
        return per_second * 1e9, "PHOTFNU"
    density, pivot = _number(header, "PHOTFLAM"), _number(header, "PHOTPLAM")
    if density and pivot and density > 0 and pivot > 0:
        # f_nu = f_lambda lambda^2 / c, of erg/s/cm^2/angstrom and angstrom; 1 nJy = 1e-32 erg/s/cm^2/Hz.
        return density * pivot**2 / _SPEED_OF_LIGHT * 1e32, "PHOTFLAM and PHOTPLAM"
    return None, ""


def _vega(header: Mapping[str, Any]) -> str:
    """Return what says that zero points are those of Vega; empty for nothing."""
    for card in _SYSTEM_CARDS:
        if "VEGA" in str(header.get(card, "")).upper():
            return f"{card} {shown(str(header[card]))}"
    for card in ("TELESCOP", "SURVEY", "ORIGIN", "INSTRUME"):
        if _VEGA_SURVEYS.search(str(header.get(card, ""))):
            return f"{card} {shown(str(header[card]))}"
    return ""


def _number(header: Mapping[str, Any], card: str) -> float | None:
    """Return a finite number of a header; None where there is none."""
    value = header.get(card)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


# Pixels

_SCALE_CARDS = ("PIXSCALE", "PIXELSCL", "PIXSCAL", "PIXSCAL1", "PIXSCALX", "SECPIX", "SECPIX1", "D001SCAL", "PIXSIZE")
_DEGREES = {"": 1.0, "deg": 1.0, "degree": 1.0, "degrees": 1.0, "arcsec": 1 / 3600, "arcmin": 1 / 60}
_DEGREES["rad"] = math.degrees(1)
_SKY_AXIS = re.compile(r"(RA|DEC|[GEHS]L(ON|AT)|[A-Z]{1,2}(LN|LT))-.*|[GEHS]?L(ON|AT)|RA|DEC")
_TURNED = 0.02  # of the sine of an angle
_MOST_ARCSEC = 1000.0  # a pixel; more is no image of a galaxy but a default


class SkyFrame(NamedTuple):
    """How the pixels of an image lie on the sky, as its world coordinates say.

    Attributes
    ----------
    matrix : four float
        Arcseconds along longitude and latitude of a step in x, and of one in y: xx, xy, yx, yy, as CD1_1, CD1_2 ...
    pixel : two float
        Place in pixels, from 1, of the point of reference.
    position : two float
        Its longitude and latitude, degrees.
    """

    matrix: tuple[float, float, float, float]
    pixel: tuple[float, float]
    position: tuple[float, float]

    @property
    def scale(self) -> float:
        """Side in arcseconds of a square pixel of the same area."""
        xx, xy, yx, yy = self.matrix
        return math.sqrt(abs(xx * yy - xy * yx))

    def is_turned(self, other: SkyFrame) -> bool:
        """Tell whether another image is turned or mirrored against this one, by more than a degree or so."""
        pairs = zip(self.matrix, other.matrix, strict=True)
        return any(abs(one / self.scale - two / other.scale) > _TURNED for one, two in pairs)

    def distance(self, x: float, y: float, other: SkyFrame, other_x: float, other_y: float) -> float:
        """Return how far in arcseconds a place in this image is from one in another; nearby, not across the sky."""
        (east, north), (other_east, other_north) = self._offset(x, y), other._offset(other_x, other_y)
        turn = (other.position[0] - self.position[0] + 180) % 360 - 180
        east -= other_east + turn * 3600 * math.cos(math.radians(self.position[1]))
        north -= other_north + (other.position[1] - self.position[1]) * 3600
        return math.hypot(east, north)

    def _offset(self, x: float, y: float) -> tuple[float, float]:
        xx, xy, yx, yy = self.matrix
        x, y = x - self.pixel[0], y - self.pixel[1]
        return xx * x + xy * y, yx * x + yy * y


def sky_frame_of(header: Mapping[str, Any]) -> SkyFrame | None:
    """Return how an image lies on the sky by its CD matrix, its PC matrix and CDELT, or CDELT; None if it is not said.

    Its first two axes have to be on the sky, and its pixels smaller than a thousand arcseconds.
    """
    axes = [str(header.get(f"CTYPE{k}", "")).strip().upper() for k in (1, 2)]
    units = [str(header.get(f"CUNIT{k}", "")).strip().lower() for k in (1, 2)]
    if not all(_SKY_AXIS.fullmatch(axis) for axis in axes) or not all(unit in _DEGREES for unit in units):
        return None
    has_cd = any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2))
    matrix = []
    for i in (1, 2):
        step = 1.0 if has_cd else _number(header, f"CDELT{i}")
        if step is None:
            return None
        for j in (1, 2):
            value = _number(header, f"{'CD' if has_cd else 'PC'}{i}_{j}")
            value = (0.0 if has_cd or i != j else 1.0) if value is None else value
            matrix.append(value * step * _DEGREES[units[i - 1]] * 3600)
    places = [_number(header, f"CRPIX{k}") or 0.0 for k in (1, 2)]
    position = [(_number(header, f"CRVAL{k}") or 0.0) * _DEGREES[units[k - 1]] for k in (1, 2)]
    frame = SkyFrame((matrix[0], matrix[1], matrix[2], matrix[3]), (places[0], places[1]), (position[0], position[1]))
    return frame if 0 < frame.scale < _MOST_ARCSEC else None


def pixel_scale_of(header: Mapping[str, Any]) -> float | None:
    """Return the side in arcseconds of a square pixel of the area that the header's says; None where it says nothing.

    Read are the world coordinates, see `sky_frame_of`, else a card such as PIXSCALE.
    """
    if frame := sky_frame_of(header):
        return frame.scale
    for card in _SCALE_CARDS:
        value = _number(header, card)
        if value and 0 < value < _MOST_ARCSEC:
            return value
    return None
