"""Which planes of an image are red, green and blue: what headers call bands, and where these lie in wavelength."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Effective wavelengths, nm, as rough as ordering needs. Capital and small letters are close enough to be one.
_WAVELENGTHS = {
    "fuv": 153, "nuv": 230, "u": 360, "b": 440, "g": 480, "v": 550, "r": 625, "vis": 710, "i": 765, "z": 900, "y": 1020,
    "j": 1250, "h": 1650, "k": 2200, "ks": 2150, "w1": 3400, "w2": 4600, "w3": 12_000, "w4": 22_000,
    "red": 650, "green": 530, "blue": 450,
}  # fmt: skip
# The numbers of space telescopes' filters are nm for HST in the optical, else hundredths of a micrometre: those below
# 200 and these of JWST.
_JWST = frozenset(
    (200, 210, 212, 250, 277, 300, 322, 323, 335, 356, 360, 405, 410, 430, 444, 460, 466, 470, 480, 560, 770)
)
_SPEED_OF_LIGHT = 2.99792458e17  # nm/s
_SPECTRAL = ("WAVE", "AWAV", "FREQ", "LAMBDA", "WAVELENG")
_METRES = {"": 1e9, "m": 1e9, "um": 1e3, "micron": 1e3, "nm": 1.0, "angstrom": 0.1, "a": 0.1, "mm": 1e6, "cm": 1e7}
_HERTZ = {"": 1.0, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}
_CARDS = ("BANDS", "FILTERS", "BAND", "FILTER", "FILTNAM", "FILTNAME", "FILT")
_COMPOSITES = (("i", "r", "g"), ("z", "r", "g"))  # of Galaxy Zoo's pictures, and of the Legacy Surveys'


class Band(NamedTuple):
    """A band: its short name, and its wavelength in nm."""

    name: str
    wavelength: float


class Composite(NamedTuple):
    """How a colour image is made of the planes of several bands.

    Attributes
    ----------
    planes : three of tuple of int
        For red, green and blue, which planes to take the mean of.
    note : str
        The same in words.
    """

    planes: tuple[tuple[int, ...], ...]
    note: str


def band_in(text: str) -> Band | None:
    """Find a band in what a header says of a filter, such as 'r', 'SDSS_g', 'HSC-I2', 'F814W', 'r DECam c0002'."""
    for word in re.split(r"[^A-Za-z0-9]+", text.strip()):
        low = word.lower()
        if low in _WAVELENGTHS:
            return Band(low if len(low) > 1 else word, _WAVELENGTHS[low])
        if number := re.fullmatch(r"f(\d{3,4})(w|m|n|lp|x|w2)", low):
            value = int(number[1])
            return Band(word, value * (10 if value < 200 or value >= 1000 or value in _JWST else 1))
        if re.fullmatch(r"[a-z]2", low) and low[0] in "ri":  # HSC's second r and i
            return Band(word, _WAVELENGTHS[low[0]])
    return None


def bands_of_planes(header: Mapping[str, Any], count: int, axis: int) -> list[Band] | None:
    """Return the bands of the planes of a cube, in their order, if its header names them all.

    Read are lists (BANDS = 'grz', FILTER = 'g, r, z'), a card for each plane (BAND0 to BAND2, FILTER1 to FILTER3), and
    the world coordinate of the planes' axis, a wavelength or frequency.

    Parameters
    ----------
    header : mapping
    count : int
        Planes.
    axis : int
        Of them, numbered as FITS does, from 1.
    """
    for card in _CARDS:
        words = [word for word in re.split(r"[^A-Za-z0-9_.\-]+", str(header.get(card, "")).strip()) if word]
        if len(words) == 1 and len(words[0]) == count:
            words = list(words[0])
        for named in (words, *([str(header.get(f"{card}{k + first}", "")) for k in range(count)] for first in (0, 1))):
            bands = [band_in(word) for word in named]
            if len(bands) == count and (known := _distinct(bands)):
                return known
    return _distinct(_along_axis(header, count, axis))


def _distinct(bands: Sequence[Band | None]) -> list[Band] | None:
    known = [band for band in bands if band is not None]
    return known if known and len({band.wavelength for band in known}) == len(bands) else None


def _along_axis(header: Mapping[str, Any], count: int, axis: int) -> list[Band | None]:
    """Return the wavelengths of planes by the world coordinate system; empty where it says none."""
    kind = str(header.get(f"CTYPE{axis}", "")).strip().upper()
    unit = str(header.get(f"CUNIT{axis}", "")).strip().lower()
    step = header.get(f"CDELT{axis}", header.get(f"CD{axis}_{axis}"))
    start, reference = header.get(f"CRVAL{axis}"), header.get(f"CRPIX{axis}", 1)
    numbers = (step, start, reference)
    units = _HERTZ if kind.startswith("FREQ") else _METRES
    if not kind.startswith(_SPECTRAL) or unit not in units or not all(isinstance(n, int | float) for n in numbers):
        return []
    values = [(start + (k + 1 - reference) * step) * units[unit] for k in range(count)]
    if not all(math.isfinite(value) and value > 0 for value in values):
        return []
    lengths = [_SPEED_OF_LIGHT / value if kind.startswith("FREQ") else value for value in values]
    return [Band(f"{length:.4g} nm", length) for length in lengths]


def composite(bands: Sequence[Band]) -> Composite:
    """Choose what is red, green and blue of the images of two or more bands.

    Three are ordered by wavelength. Of more i, r, g are taken, as in Galaxy Zoo's pictures, else z, r, g, else the
    longest, the middle and the shortest. The green of two is their mean.
    """
    order = sorted(range(len(bands)), key=lambda k: -bands[k].wavelength)
    names = [bands[k].name for k in order]
    if len(order) == 2:
        return Composite(((order[0],), tuple(order), (order[1],)), f"bands {names[0]} and {names[1]} as red and blue")
    chosen = [order[0], order[len(order) // 2], order[-1]]
    if len(order) > 3:
        small = [name.lower() for name in names]
        for wanted in _COMPOSITES:
            if all(name in small for name in wanted):
                chosen = [order[small.index(name)] for name in wanted]
                break
    note = f"bands {', '.join(bands[k].name for k in chosen)} as red, green, blue"
    left = [bands[k].name for k in range(len(bands)) if k not in chosen]
    return Composite(tuple((k,) for k in chosen), note + (f", without {', '.join(left)}" if left else ""))
