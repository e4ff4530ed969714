"""Pictures of any origin (PNG, JPEG, FITS) as images to measure."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.common.errors import UserError
from galaxies.images.fits_reading import read_fits
from galaxies.images.opening import (
    DEEP_MODES,
    GREY_MODES,
    MAX_PICTURE_PX,
    MAX_PICTURE_SIDE_PX,
    ONE_AT_A_TIME,
    open_picture,
)

SMALLEST_PX, LARGEST_PX = 64, 256
_MOST_BYTES = 512 * 2**20
# Threads that read at the same time take turns with pictures of more pixels than this, whose memory would add up.
_LARGE_PX = 2048**2


@dataclass(frozen=True)
class Picture:
    """One picture, ready to be measured.

    Attributes
    ----------
    image : Tensor, (3, S, S), float32 in [0, 1]
        S is 64 to 256 pixels.
    side_px : int
        Side of the central square in the file's own pixels.
    display : bool
        The levels are those of a display; False for scaled counts, whose levels mean nothing.
    note : str
        What was done to it, in words; empty for nothing.
    """

    image: Tensor
    side_px: int
    display: bool
    note: str


def read_picture(path: Path) -> Picture:
    """Read the central square of a picture; safe in several threads.

    A picture of more than 256 pixels a side is reduced to 256. A grey one gets three equal planes. A FITS file holds
    one plane, or three in the order R, G, B; unless its header says BUNIT = 'display' (0 to 255, as
    `generate_from_checkpoint.py` writes it), its values are counts: they are scaled by one factor so that the brightest
    is 1, which leaves sizes, shapes and colours as they are.

    Raises
    ------
    UserError
        If there is no such file, if it is none of the three kinds, is damaged, or is smaller than 64 pixels.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise UserError(f"{path} has {size} bytes: a picture of one galaxy has less than {_MOST_BYTES}")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    fits = content.startswith(b"SIMPLE  =")
    planes, display, notes = read_fits(path, content) if fits else _read_raster(path, content)
    height, width = planes.shape[1:]
    side = min(height, width)
    if side < SMALLEST_PX:
        raise UserError(f"{path} has {width} x {height} pixels: at least {SMALLEST_PX} a side are needed")
    if height != width:
        notes.append(f"central square of {width} x {height}")
        top, left = (height - side) // 2, (width - side) // 2
        planes = planes[:, top : top + side, left : left + side]
    image = torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))
    if side > LARGEST_PX:
        notes.append(f"reduced from {side} to {LARGEST_PX} pixels")
        image = F.interpolate(image[None], LARGEST_PX, mode="area")[0]
    return Picture(image, side, display, "; ".join(notes))


def _read_raster(path: Path, content: bytes) -> tuple[np.ndarray, bool, list[str]]:
    """Return planes (3, H, W) in [0, 1] of a PNG or JPEG."""
    try:
        picture = open_picture(content)
        if picture is None:
            raise ValueError("neither JPEG nor PNG")
        width, height = picture.size
        if max(width, height) > MAX_PICTURE_SIDE_PX:
            raise UserError(f"{path} has {width} x {height} pixels, more than {MAX_PICTURE_SIDE_PX}")
        if width * height > MAX_PICTURE_PX:
            raise UserError(f"{path} has {width} x {height} pixels, more than {MAX_PICTURE_PX} in all")
        if picture.mode in DEEP_MODES:
            raise UserError(f"{path} has 16 bits a pixel, whose levels are not known: save it with 8, or as FITS")
        grey = picture.mode in GREY_MODES
        picture.info.pop("transparency", None)  # changes no colour, but Pillow warns of it in palettes
        with ONE_AT_A_TIME if width * height > _LARGE_PX else nullcontext():
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    except UserError:
        raise
    except Exception:  # on damaged data Pillow raises OSError, SyntaxError, ValueError, struct.error and more
        raise UserError(f"{path} is no PNG, JPEG or FITS file, or is damaged") from None
    return pixels.transpose(2, 0, 1), True, ["grey"] if grey else []
