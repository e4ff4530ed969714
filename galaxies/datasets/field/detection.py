"""Find the sources of a field, section by section, on the mean of its bands weighted by their inverse variance.

Sections overlap, and a source belongs to the one in which its centre lies, so that neither seams nor the size of the
frame are seen. Detection and deblending are those of SExtractor, by `sep`.

References
----------
Bertin & Arnouts (1996), A&AS 117, 393: thresholding and multi-threshold deblending.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from galaxies.common.errors import UserError
from galaxies.datasets.field.frames import Area, Plane
from galaxies.datasets.field.sky import SkyMap

SECTION_PX = (1024, 1024)  # rows and columns of a section
OVERLAP_PX = 256  # beyond it on each side, for sources that lie across its edge
_THRESHOLD = 1.5  # standard deviations of a pixel, after smoothing
_LEAST_PX = 5  # pixels above it
_KERNEL_FWHM_PX = 3.0  # of the Gaussian that smooths before thresholding
_LEVELS = 32  # of deblending
_MOST_PARTS = 8192  # in which deblending may cut one source
_GROWN_PX = 3  # by which sources are widened before sky is measured around them
_MAD = 1.4826


class Sources(NamedTuple):
    """Sources of a field; arrays (N,), positions in pixels from 0 at the centre of the first one.

    Attributes
    ----------
    x, y : ndarray, float64
        Centre.
    a, b : ndarray, float32
        Standard deviations along the axes above the threshold, pixels.
    snr : ndarray, float32
        Signal over noise of the light above the threshold, with what pixels share of their noise.
    area : ndarray, int32
        Pixels above the threshold.
    blended : ndarray, bool
        Whether another source had to be taken apart from it.
    cut : ndarray, bool
        Whether it reaches the edge of the frame or of a section.
    """

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    snr: np.ndarray
    area: np.ndarray
    blended: np.ndarray
    cut: np.ndarray

    def chosen(self, which: np.ndarray) -> Sources:
        """Return some of them, by indices or bool."""
        return Sources(*(column[which] for column in self))

    @property
    def num_sources(self) -> int:
        """N."""
        return len(self.x)


class SourceMap:
    """Which pixels of a frame belong to sources, on disk: a byte a pixel.

    Parameters
    ----------
    file : Path
        To be written.
    shape : (int, int)
    """

    def __init__(self, file: Path, shape: tuple[int, int]) -> None:
        self._file, self.shape = file, shape
        np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)

    def write(self, area: Area, sources: np.ndarray) -> None:
        """Set an area."""
        stored = np.lib.format.open_memmap(self._file, mode="r+")
        stored[area.y0 : area.y1, area.x0 : area.x1] = sources

    def read(self, area: Area) -> np.ndarray:
        """Return an area, bool."""
        stored = np.load(self._file, mmap_mode="r")
        return np.array(stored[area.y0 : area.y1, area.x0 : area.x1], dtype=bool)


def sections(shape: tuple[int, int]) -> Iterator[Area]:
    """Cut a frame into sections, row by row."""
    for y in range(0, shape[0], SECTION_PX[0]):
        for x in range(0, shape[1], SECTION_PX[1]):
            yield Area(y, y + SECTION_PX[0], x, x + SECTION_PX[1]).within(shape)


def weighted_mean(planes: Sequence[Plane], skies: Sequence[SkyMap], area: Area) -> np.ndarray:
    """Return the detection image of an area: the weighted mean of its bands over its noise; NaN where all lack a value.

    The optimal sum for a source of equal flux in all bands, in units of its own standard deviation.
    """
    total, weights = np.zeros(area.shape, np.float32), np.zeros(area.shape, np.float32)
    for plane, sky in zip(planes, skies, strict=True):
        flux = plane.read(area) - sky.level(area)
        weight = sky.noise(area) ** -2
        good = np.isfinite(flux)
        total += np.where(good, flux * weight, 0)
        weights += np.where(good, weight, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weights > 0, total / np.sqrt(weights), np.nan).astype(np.float32)


def detect(planes: Sequence[Plane], skies: Sequence[SkyMap], contrast: float, where: SourceMap) -> Sources:
    """Find the sources of a field, and write where they are.

    Parameters
    ----------
    planes, skies : sequence of Plane and SkyMap
        The bands in which to look.
    contrast : float
        Part of a source's light that a peak must have to be one of its own.
    where : SourceMap
        To be filled.

    Raises
    ------
    UserError
        If there is none, or a section holds more than can be taken apart.
    """
    found: list[tuple[np.ndarray, ...]] = []
    sharing = []
    shape = planes[0].shape
    for section in sections(shape):
        area = section.grown(OVERLAP_PX).within(shape)
        image = weighted_mean(planes, skies, area)
        objects, labels = _extracted(image, contrast)
        near = _grown(labels > 0)
        inner = (
            slice(section.y0 - area.y0, section.y1 - area.y0),
            slice(section.x0 - area.x0, section.x1 - area.x0),
        )
        where.write(section, near[inner])
        sharing.append(_sharing_of(image, near))
        x, y = objects["x"] + area.x0, objects["y"] + area.y0
        mine = (np.rint(x) >= section.x0) & (np.rint(x) < section.x1)
        mine &= (np.rint(y) >= section.y0) & (np.rint(y) < section.y1)
        edge = (objects["xmin"] == 0) | (objects["ymin"] == 0)
        edge |= (objects["xmax"] == area.shape[1] - 1) | (objects["ymax"] == area.shape[0] - 1)
        noise = np.sqrt(objects["npix"].clip(1))
        columns = (x, y, objects["a"], objects["b"], objects["flux"] / noise, objects["npix"])
        found.append(tuple(column[mine] for column in (*columns, (objects["flag"] & 1) > 0, edge)))
    parts = [np.concatenate(column) for column in zip(*found, strict=True)]
    if not len(parts[0]):
        raise UserError(f"no source stands out in band {', '.join(plane.band for plane in planes)}: look at the frames")
    known = [value for value in sharing if np.isfinite(value)]
    x, y, a, b, snr, area_px, blended, cut = parts
    snr = snr / max(float(np.median(known)) if known else 1.0, 1.0)
    return Sources(
        x, y, a.astype("f4"), b.astype("f4"), snr.astype("f4"), area_px.astype("i4"), blended.astype(bool), cut
    )


def _extracted(image: np.ndarray, contrast: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the objects of a section, as `sep` has them, and the labels of its pixels."""
    import sep

    bad = ~np.isfinite(image)
    image[bad] = 0
    sep.set_sub_object_limit(_MOST_PARTS)
    axis = np.arange(-3, 4) / (_KERNEL_FWHM_PX / 2.3548)
    kernel = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2))
    # Room for pixels above the threshold takes memory; a field of sky needs little of it.
    for room in (image.size // 4, image.size):
        sep.set_extract_pixstack(max(room, 100_000))
        try:
            return sep.extract(
                image,
                _THRESHOLD,
                err=1.0,
                mask=bad,
                minarea=_LEAST_PX,
                filter_kernel=kernel,
                filter_type="conv",
                deblend_nthresh=_LEVELS,
                deblend_cont=contrast,
                clean=True,
                segmentation_map=True,
            )
        except Exception as error:  # sep raises plain exceptions when its buffers are full
            reason = error
    raise UserError(
        f"the sources of a section cannot be taken apart ({reason}): mask what is no sky with --mask, or raise "
        "--deblend"
    )


def _grown(sources: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(sources, iterations=_GROWN_PX))


def _sharing_of(image: np.ndarray, near: np.ndarray, side: int = 6) -> float:
    """Return by how much the noise of sums over blocks exceeds that of independent pixels of noise 1."""
    height, width = (length // side * side for length in image.shape)
    cut = (slice(0, height), slice(0, width))
    shape = (height // side, side, width // side, side)
    free = (~near[cut]).reshape(shape).all((1, 3))
    sums = image[cut].reshape(shape).sum((1, 3), dtype=np.float64)[free]
    sums = sums[sums != 0]  # of what has no value
    return float(_MAD * np.median(np.abs(sums - np.median(sums))) / side) if len(sums) >= 50 else np.nan
