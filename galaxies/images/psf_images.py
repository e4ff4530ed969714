"""Point spread functions that come as images: centred, of unit flux, on pixels of any size, and how wide they are."""

from __future__ import annotations

import math

import numpy as np

from galaxies.common.errors import UserError
from galaxies.images.area_resampling import resample

_NEAR_PX = 10  # of the peak, within which the middle is found
_FINER = 8  # times finer than the pixels is where the half of the peak is found


def prepared_psf(image: np.ndarray, size: int, step: float, where: str) -> np.ndarray:
    """Return a point spread function (P, P) on other pixels, its middle in the middle, its sum 1.

    Parameters
    ----------
    image : ndarray, (H, W)
    size : int
        New pixels a side, P, odd.
    step : float
        Side of a new pixel in old ones.
    where : str
        What to call it in messages.

    Raises
    ------
    UserError
        If it has no flux.
    """
    image = _checked(image, where)
    psf = resample(image, size, step, centre=middle_of(image)).values
    psf = np.nan_to_num(psf)
    return psf / psf.sum()


def fwhm_px(image: np.ndarray, where: str) -> float:
    """Return the full width at half maximum in pixels: the diameter of the circle as large as what is above half.

    The image is interpolated by cubic splines eight times finer, since few pixels lie there.

    Raises
    ------
    UserError
        If it has no flux.
    """
    from scipy.ndimage import map_coordinates

    image = _checked(image, where)
    row, column = middle_of(image)
    reach = min(image.shape) // 2
    axis = np.arange(-reach, reach, 1 / _FINER)
    fine = map_coordinates(image, np.meshgrid(row + axis, column + axis, indexing="ij"), order=3, mode="constant")
    return 2 * math.sqrt((fine > fine.max() / 2).sum() / math.pi) / _FINER


def middle_of(image: np.ndarray) -> tuple[float, float]:
    """Return row and column of the middle of an image (H, W): the centre of what is above a quarter of its peak."""
    row, column = (int(place) for place in np.unravel_index(int(np.nanargmax(image)), image.shape))
    top, left = max(row - _NEAR_PX, 0), max(column - _NEAR_PX, 0)
    near = np.asarray(image[top : row + _NEAR_PX + 1, left : column + _NEAR_PX + 1], np.float64)
    near = np.maximum(near - near.max() / 4, 0)
    rows, columns = (near.sum(1) @ np.arange(len(near)), near.sum(0) @ np.arange(near.shape[1]))
    return float(top + rows / near.sum()), float(left + columns / near.sum())


def _checked(image: np.ndarray, where: str) -> np.ndarray:
    image = np.nan_to_num(np.asarray(image, np.float64))
    if image.ndim != 2 or min(image.shape) < 3 or not image.sum() > 0 or not image.max() > 0:
        raise UserError(f"{where} is no point spread function: a plane with light in it is needed")
    return image
