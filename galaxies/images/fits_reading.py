"""FITS files as pictures to measure."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import numpy as np

from galaxies.common.errors import UserError
from galaxies.images.opening import MAX_PICTURE_SIDE_PX, ONE_AT_A_TIME


def read_fits(path: Path, content: bytes) -> tuple[np.ndarray, bool, list[str]]:
    """Return planes (3, H, W) of the first image of a FITS file, rows from the top."""
    try:
        from astropy.io import fits
    except ImportError:
        raise UserError(f"{path} is a FITS file, which needs astropy: python -m pip install astropy") from None
    try:
        with ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(content), memmap=False) as units:
                unit = next(u for u in units if u.is_image and u.header.get("NAXIS", 0) > 0)
                shape = unit.shape
                small = math.prod(shape) <= 3 * MAX_PICTURE_SIDE_PX**2
                values = np.asarray(unit.data, dtype=np.float64) if small else None
                display = str(unit.header.get("BUNIT", "")).strip().lower() == "display"
    except Exception:  # astropy raises many kinds of errors on damaged files
        raise UserError(f"{path} holds no image that can be read, or is damaged") from None
    if values is None or not (values.ndim == 2 or (values.ndim == 3 and len(values) in (1, 3))):
        raise UserError(f"{path} has the shape {tuple(shape)}: one plane or three (R, G, B) are needed")
    notes = []
    planes = values[None] if values.ndim == 2 else values
    if len(planes) == 1:
        planes = np.repeat(planes, 3, 0)
        notes.append("grey")
    if not np.isfinite(planes).all():
        notes.append(f"{int((~np.isfinite(planes)).any(0).sum())} pixels without a value, taken as sky")
        planes = np.where(np.isfinite(planes), planes, np.nanmedian(np.where(np.isfinite(planes), planes, np.nan)))
    if display:
        planes = planes / 255
    else:
        if not planes.max() > 0 or not np.isfinite(planes).all():
            raise UserError(f"{path} has no value above 0")
        planes = planes / planes.max()
        notes.append("counts, scaled to the brightest")
    return planes[:, ::-1], display, notes
