"""JPEG and PNG files by their first bytes, and pictures that are too large to be one galaxy's."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from galaxies.common.errors import UserError
from galaxies.datasets.cutouts import Rejection, decode_cutout
from galaxies.images.opening import open_picture
from galaxies.images.reading import read_picture


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int = 8, kind: int = 2) -> bytes:
    """Return a PNG that says it has so many pixels, and holds none of them."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_two_formats_are_opened(kind):
    stream = io.BytesIO()
    Image.fromarray(np.full((70, 80, 3), 90, np.uint8)).save(stream, kind)
    assert open_picture(stream.getvalue()).size == (80, 70)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_not(kind):
    stream = io.BytesIO()
    Image.fromarray(np.full((70, 80, 3), 90, np.uint8)).save(stream, kind)
    assert open_picture(stream.getvalue()) is None
    assert open_picture(b"") is None


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (png(16_385, 100), "has 16385 x 100 pixels, more than 16384"),
        (png(16_000, 12_000), "has 16000 x 12000 pixels, more than 178956970 in all"),
        (png(100, 100, 16, 0), "has 16 bits a pixel"),
        (png(100, 100), "is no PNG, JPEG or FITS file, or is damaged"),
    ],
)
def test_pictures_that_are_not_read(tmp_path, picture, message):
    (tmp_path / "a.png").write_bytes(picture)
    with pytest.raises(UserError, match=message):
        read_picture(tmp_path / "a.png")


def test_cutouts_may_be_less_large_than_pictures():
    assert decode_cutout(png(4097, 4097), 64).reason is Rejection.TOO_LARGE
    assert decode_cutout(png(4096, 4096), 64).reason is Rejection.CORRUPT
