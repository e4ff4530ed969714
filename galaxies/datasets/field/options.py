"""The options of `prepare_data.py field`, and how their values are read."""

from __future__ import annotations

import argparse
from pathlib import Path

from galaxies.common.origin import add_simulation_option
from galaxies.common.parsing import finite_number, positive_number
from galaxies.datasets.band_lists import band_names
from galaxies.datasets.class_options import add_classes_option
from galaxies.datasets.science_catalogue import column_names

_LEAST_BOX_PX = 16


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the frames, of the catalogue and of the search to a parser."""
    add = parser.add_argument
    add("--frames", type=Path, nargs="+", required=True, metavar="FITS", help="linear images of the sky, one a band")
    about = "bands of the frames, in their order, such as u,g,r (default: FILTER of their headers)"
    add("--bands", type=band_names, metavar="NAMES", help=about)
    about = "AB magnitude of a value of 1: one, or one a frame, such as 0,0,30 (default: by the headers)"
    add("--zero-point", type=_magnitudes, metavar="MAG", help=about)
    add("--unit", metavar="UNIT", help="unit of the values, such as nJy, MJy/sr, nanomaggy (default: BUNIT)")
    about = "side of a pixel (default: by the header)"
    add("--pixel-scale", type=positive_number, metavar="ARCSEC", help=about)
    add("--ext", type=_words, metavar="HDU", help="number or name of the image's extension: one, or one a frame")
    about = "band to whose pixels the others are brought where they differ (default: the first)"
    add("--grid", type=_one_word, metavar="BAND", help=about)
    about = "maps that are not 0 where pixels are bad: one, or one a frame"
    add("--mask", type=Path, nargs="+", metavar="FITS", help=about)
    about = "weight maps, 0 where there is no value: one, or one a frame"
    add("--weight", type=Path, nargs="+", metavar="FITS", help=about)
    about = (
        "galaxies to take (default: those that are detected): columns ra and dec in degrees, or x and y in pixels, and "
        "object_id, morphology, star, redshift and so on where known; or a FITS file of object maps"
    )
    add("--catalogue", type=Path, metavar="FILE", help=about)
    about = (
        "names of the catalogue's columns, such as ra=ALPHA_J2000,dec=DELTA_J2000,redshift=z_spec; other names make "
        "further columns of numbers (default: columns are called by these names)"
    )
    add("--columns", type=column_names, default={}, metavar="NAME=COLUMN", help=about)
    add_simulation_option(parser)
    add_classes_option(parser, "the catalogue's columns", "the names in its column morphology, or one class without it")
    about = "x and y of the first pixel's centre in the catalogue: 1 as in FITS and SExtractor, or 0 (default: 1)"
    add("--first-pixel", type=int, choices=(0, 1), default=1, help=about)
    about = "keep what a catalogue lists even if it is as small as a star"
    add("--keep-stars", action="store_true", help=about)
    about = "bands in which to look for sources (default: all, weighted by their noise)"
    add("--detect", type=_words, metavar="BANDS", help=about)
    about = "least signal over noise, of all bands together, of a galaxy that is detected (default: 30)"
    add("--min-snr", type=positive_number, default=30.0, metavar="X", help=about)
    about = "part of a source's light that a peak needs to be a source of its own (default: 0.005)"
    add("--deblend", type=positive_number, default=0.005, metavar="X", help=about)
    about = (
        "side of the areas in which the sky is measured, several times that of the largest galaxies (default: 128 "
        "pixels)"
    )
    add("--sky-box", type=_box, default=128, metavar="PX", help=about)


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(f"'{text}' has an empty place between commas")
    return words


def _one_word(text: str) -> list[str]:
    words = _words(text)
    if len(words) > 1:
        raise argparse.ArgumentTypeError(f"'{text}' names {len(words)}, where one is meant")
    return words


def _magnitudes(text: str) -> list[float]:
    values = [finite_number(word) for word in _words(text)]
    if wrong := [value for value in values if abs(value) > 100]:
        raise argparse.ArgumentTypeError(f"{wrong[0]:g} is no magnitude")
    return values


def _box(text: str) -> int:
    if not text.isdecimal() or not _LEAST_BOX_PX <= int(text) <= 8192:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {_LEAST_BOX_PX} to 8192")
    return int(text)
