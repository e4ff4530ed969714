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
from galaxies.common.reading import read_bytes
from galaxies.images.as_displayed import DeepPictureError, as_displayed, has_no_color
from galaxies.images.fits_reading import read_fits, unpacked
from galaxies.images.opening import (
    LARGEST_PX,
    MAX_PICTURE_PX,
    MAX_PICTURE_SIDE_PX,
    ONE_AT_A_TIME,
    central_square,
    kind_of,
    open_picture,
)

_MOST_BYTES = 512 * 2**20
# Threads that read at the same time take turns with pictures of more pixels than this, whose memory would add up.
_LARGE_PX = 2048**2


@dataclass(frozen=True)
class Picture:
    """One picture to be measured.

    Attributes
    ----------
    image : Tensor, (3, S, S)
        S is 64 to 256 pixels. Display levels, float32 in [0, 1]; or counts, float64, in the unit and with the sky of
        the file, and NaN where there is no value.
    side_px : int
        Side of the central square in the file's own pixels.
    display : bool
        The levels are those of a display; False for counts, whose levels mean nothing.
    note : str
        What was done to it, in words; empty for nothing.
    colorless : bool
        There is one plane, here three times, or there are three that are the same, or the file does not say which of
        them is redder: no color can be measured.
    missing : Tensor, (S, S), bool, optional
        Where pixels of the file have no value; None for nowhere.
    """

    image: Tensor
    side_px: int
    display: bool
    note: str
    colorless: bool = False
    missing: Tensor | None = None


def read_picture(path: Path) -> Picture:
    """Read the central square of a picture; safe in several threads.

    A picture of more than 256 pixels a side is reduced to 256. A grey one gets three equal planes. A PNG or JPEG is
    taken as a viewer shows it, see `as_displayed`. What a FITS file holds are counts, unless its header says
    BUNIT = 'display' (0 to 255, as `generate_from_checkpoint.py` writes it); which planes are read, see `read_fits`.

    Raises
    ------
    UserError
        If there is no such file, if it is none of the three kinds, is damaged, or is smaller than 64 pixels.
    """
    content = read_bytes(path, _MOST_BYTES)
    if (fits := unpacked(path, content, _MOST_BYTES)) is not None:
        return _of_fits(path, fits)
    planes, grey, notes = _read_raster(path, content)
    rows, columns, framing = central_square(path, *planes.shape[1:])
    image = torch.from_numpy(np.ascontiguousarray(planes[:, rows, columns], dtype=np.float32))
    grey = grey or has_no_color(image.numpy())
    side = image.shape[-1]
    if side > LARGEST_PX:
        image = F.interpolate(image[None], LARGEST_PX, mode="area")[0]
    return Picture(image, side, True, "; ".join([*(["grey"] if grey else []), *notes, *framing]), grey)


def _of_fits(path: Path, content: bytes) -> Picture:
    planes, missing, side, display, colorless, notes = read_fits(path, content)
    if display:
        levels = [np.where(np.isnan(plane), np.nanmedian(plane), plane) for plane in planes]
        planes = (np.stack(levels) / 255).astype(np.float32)
    else:
        notes = [*notes, "counts, sky taken off"]
    lacking = torch.from_numpy(np.ascontiguousarray(missing)) if missing.any() else None
    return Picture(torch.from_numpy(np.ascontiguousarray(planes)), side, display, "; ".join(notes), colorless, lacking)


def _read_raster(path: Path, content: bytes) -> tuple[np.ndarray, bool, list[str]]:
    """Return planes (3, H, W) in [0, 1] of a PNG or JPEG as a viewer shows it, and whether its file has no colors."""
    try:
        picture = open_picture(content)
        if picture is None:
            kind = kind_of(content)
            raise UserError(f"{path} is no PNG, JPEG or FITS file{f': it is {kind}' if kind else ', or is damaged'}")
        width, height = picture.size
        if max(width, height) > MAX_PICTURE_SIDE_PX:
            raise UserError(f"{path} has {width} x {height} pixels, more than {MAX_PICTURE_SIDE_PX}")
        if width * height > MAX_PICTURE_PX:
            raise UserError(f"{path} has {width} x {height} pixels, more than {MAX_PICTURE_PX} in all")
        with ONE_AT_A_TIME if width * height > _LARGE_PX else nullcontext():
            displayed = as_displayed(picture)
            planes = np.asarray(displayed.image, dtype=np.float32).transpose(2, 0, 1) / 255
    except UserError:
        raise
    except DeepPictureError:
        raise UserError(f"{path} has 16 bits a pixel, whose levels are not known: save it with 8, or as FITS") from None
    except Exception:  # on damaged data Pillow raises OSError, SyntaxError, ValueError, struct.error and more
        raise UserError(f"{path} is no PNG, JPEG or FITS file, or is damaged") from None
    return planes, displayed.grey, list(displayed.notes)
