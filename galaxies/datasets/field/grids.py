"""All bands of a field on one grid of pixels: as they are, moved by whole pixels, or resampled.

Resampling is done once, by sections, into a file beside. It conserves flux: the light of a source is the same number of
nanojansky before and after. Neighbouring pixels share their noise afterwards, and a pixel has less of it; both are
measured on the resampled frame, as on any other.

References
----------
DeForest (2004), Solar Physics 219, 3: adaptive resampling with antialiasing, `reproject.reproject_adaptive`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from galaxies.common.errors import UserError
from galaxies.datasets.field.frames import Area, Frame, Plane

_SAME_PX = 0.05  # pixels by which positions may differ on grids that are called the same
_SECTION_PX = 1024  # side of the sections that are resampled at a time
_MARGIN_PX = 8  # pixels of the source beyond a section, which the kernel reaches


def on_one_grid(frames: Sequence[Frame], grid: Frame, folder: Path) -> tuple[list[Plane], list[str]]:
    """Return the planes of frames on the grid of one of them.

    Parameters
    ----------
    frames : sequence of Frame
        One a band, calibrated.
    grid : Frame
        One of them.
    folder : Path
        For resampled frames: 4 bytes a pixel and band.

    Returns
    -------
    planes : list of Plane
        In the order of the frames.
    notes : list of str
        What was done to which band, in words.

    Raises
    ------
    UserError
        If frames of different sizes do not say where in the sky they lie, or do not overlap.
    """
    planes, notes = [], []
    without = [frame for frame in frames if frame.wcs is None]
    for frame in frames:
        if frame is grid:
            planes.append(Plane(frame.band, frame.shape, frame.read))
            continue
        if frame.wcs is None or grid.wcs is None:
            if frame.shape != grid.shape:
                raise UserError(
                    f"{frame.path} has {_size(frame)} pixels, {grid.path} has {_size(grid)}, and "
                    f"{without[0].path} has no world coordinates by which to bring them on one grid: cut them alike"
                )
            planes.append(Plane(frame.band, frame.shape, frame.read))
            continue
        here, there = _edges(grid), _edges(frame)
        x, y = _mapped(grid.wcs, frame.wcs, *here)
        dx, dy = x - here[0], y - here[1]
        shift_x, shift_y = round(float(np.median(dx))), round(float(np.median(dy)))
        apart = max(float(np.abs(dx - shift_x).max()), float(np.abs(dy - shift_y).max()))
        if not np.isfinite(apart) or not _overlap(frame, grid, there):
            raise UserError(f"{frame.path} and {grid.path} show different parts of the sky: give frames that overlap")
        if apart > _SAME_PX:
            planes.append(_resampled(frame, grid, folder))
            notes.append(f"band {frame.band} resampled to the pixels of band {grid.band}")
        elif shift_x or shift_y or frame.shape != grid.shape:
            planes.append(_moved(frame, grid, shift_y, shift_x))
            notes.append(f"band {frame.band} moved by {shift_x}, {shift_y} whole pixels")
        else:
            planes.append(Plane(frame.band, frame.shape, frame.read))
    if without and len(without) < len(frames):
        bands = ", ".join(frame.band for frame in without)
        notes.append(f"bands without world coordinates, taken as on the same grid: {bands}")
    return planes, notes


def _size(frame: Frame) -> str:
    return f"{frame.shape[1]} x {frame.shape[0]}"


def _edges(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of points on a frame, corners among them."""
    height, width = frame.shape
    y, x = np.meshgrid(np.linspace(0, height - 1, 5), np.linspace(0, width - 1, 5), indexing="ij")
    return x.ravel(), y.ravel()


def _mapped(source: Any, target: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where positions of one frame lie in another; NaN where they are not on its sky."""
    from astropy.wcs.utils import pixel_to_pixel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            there = pixel_to_pixel(source, target, x, y)
    except Exception:  # wcslib raises several kinds of errors beyond the projection's edge
        return np.full_like(x, np.nan), np.full_like(y, np.nan)
    return np.asarray(there[0], float), np.asarray(there[1], float)


def _overlap(frame: Frame, grid: Frame, points: tuple[np.ndarray, np.ndarray]) -> bool:
    """Say whether the rectangle around one frame meets the other."""
    x, y = _mapped(frame.wcs, grid.wcs, *points)
    height, width = grid.shape
    if not np.isfinite(x).any():
        return False
    return bool(np.nanmin(x) < width and np.nanmax(x) > 0 and np.nanmin(y) < height and np.nanmax(y) > 0)


def _moved(frame: Frame, grid: Frame, dy: int, dx: int) -> Plane:
    """Return a frame seen from another grid that differs by whole pixels."""
    there = Plane(frame.band, frame.shape, frame.read)

    def read(area: Area) -> np.ndarray:
        return there.read_beyond(Area(area.y0 + dy, area.y1 + dy, area.x0 + dx, area.x1 + dx))

    return Plane(frame.band, grid.shape, read)


def _resampled(frame: Frame, grid: Frame, folder: Path) -> Plane:
    """Write a frame on another grid to a file; return what reads it."""
    from reproject import reproject_adaptive

    file = folder / f"resampled_{frame.band}.npy"
    stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=grid.shape)
    del stored  # its size on the disk is set; sections are written by maps of their own, which leave memory again
    source = Plane(frame.band, frame.shape, frame.read)
    for y in range(0, grid.shape[0], _SECTION_PX):
        for x in range(0, grid.shape[1], _SECTION_PX):
            area = Area(y, y + _SECTION_PX, x, x + _SECTION_PX).within(grid.shape)
            part = _part_of(frame, grid, area)
            values = np.full(area.shape, np.nan, np.float32)
            if part is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    resampled, footprint = reproject_adaptive(
                        (source.read(part), frame.wcs[part.y0 : part.y1, part.x0 : part.x1]),
                        grid.wcs[area.y0 : area.y1, area.x0 : area.x1],
                        shape_out=area.shape,
                        conserve_flux=True,
                        kernel="gaussian",
                        boundary_mode="strict",
                        bad_value_mode="strict",
                    )
                values[:] = np.where(footprint > 0, resampled, np.nan)
            rows = np.lib.format.open_memmap(file, mode="r+")
            rows[area.y0 : area.y1, area.x0 : area.x1] = values
            del rows

    def read(area: Area) -> np.ndarray:
        return np.array(np.load(file, mmap_mode="r")[area.y0 : area.y1, area.x0 : area.x1])

    return Plane(frame.band, grid.shape, read)


def _part_of(frame: Frame, grid: Frame, area: Area) -> Area | None:
    """Return the part of a frame that an area of the grid shows, with a margin; None for nothing."""
    height, width = area.shape
    y, x = np.meshgrid(np.linspace(-1, height, 9), np.linspace(-1, width, 9), indexing="ij")
    sx, sy = _mapped(grid.wcs, frame.wcs, x.ravel() + area.x0, y.ravel() + area.y0)
    if not np.isfinite(sx).any():
        return None
    least_y, least_x = int(np.floor(np.nanmin(sy))), int(np.floor(np.nanmin(sx)))
    most_y, most_x = int(np.ceil(np.nanmax(sy))), int(np.ceil(np.nanmax(sx)))
    part = Area(least_y, most_y + 1, least_x, most_x + 1).grown(_MARGIN_PX).within(frame.shape)
    return part if min(part.shape) > 0 else None
