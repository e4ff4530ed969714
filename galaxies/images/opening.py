"""Open JPEG and PNG files of any origin: the two formats, how large they may be, and which of their modes are grey.

It imports no torch, so that threads and command lines that only read pictures start at once.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path

from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

from galaxies.common.errors import UserError

# A survey cutout has a few hundred pixels a side; anything beyond this is a mistake or a decompression bomb.
MAX_CUTOUT_SIDE_PX = 4096
# A picture that a user names may be a mosaic's; what is left of it is reduced to 256 pixels.
MAX_PICTURE_SIDE_PX = 16_384
MAX_PICTURE_PX = 178_956_970  # in all: what `Image.open` calls a decompression bomb has more
SMALLEST_PX, LARGEST_PX = 64, 256  # sides of a picture to measure, as read and as measured
GREY_MODES = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16B", "I;16L")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L")  # more than 8 bits a pixel
# Threads that read at the same time take turns with large pictures, whose memory would add up, and with FITS files:
# astropy's warnings are told to be silent for all threads.
ONE_AT_A_TIME = threading.Lock()
_KINDS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\xff\xd8", "a damaged JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\x89PNG", "a damaged PNG"),  # by a transfer as text, which the eight bytes are there to show
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"SIMPLE  =", "FITS"),
    (b"\x89HDF", "HDF5"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "a zip file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
)
_KINDS_OF_BOXES = {b"avif": "AVIF", **dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1"), "HEIC")}


def open_picture(data: bytes) -> ImageFile.ImageFile | None:
    """Read the header of a JPEG or PNG; None for anything else. Pixels are read on first use.

    The plugins are called directly: `Image.open` would warn about large pictures through the warning filters, which
    threads share, and would try every format that Pillow knows. The caller checks the size.

    Raises
    ------
    Exception
        Of many kinds (OSError, SyntaxError, ValueError, struct.error), if the header is damaged.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile(io.BytesIO(data))
    return None


def central_square(path: Path, height: int, width: int) -> tuple[slice, slice, list[str]]:
    """Return rows and columns of the central square of a picture to measure, and what there is to say about it.

    Raises
    ------
    UserError
        If it has less than `SMALLEST_PX` a side.
    """
    side = min(height, width)
    if side < SMALLEST_PX:
        raise UserError(f"{path} has {width} x {height} pixels: at least {SMALLEST_PX} a side are needed")
    notes = [f"central square of {width} x {height}"] if height != width else []
    if side > LARGEST_PX:
        notes.append(f"reduced from {side} to {LARGEST_PX} pixels")
    top, left = (height - side) // 2, (width - side) // 2
    return slice(top, top + side), slice(left, left + side), notes


def kind_of(data: bytes) -> str:
    """Say by its first bytes what a file is; empty for what nobody knows."""
    if not data:
        return "an empty file"
    for start, kind in _KINDS:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return _KINDS_OF_BOXES.get(data[8:12], "a film or a HEIF picture")
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page"
    if text.startswith((b"<svg", b"<?xml")):
        return "SVG or other XML"
    return "nothing but zeros" if not data.strip(b"\0") else ""
