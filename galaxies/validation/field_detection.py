"""Detect galaxies on a field as a survey's pipeline does, section by section, so that memory does not grow with it.

What is compared with the threshold is the signal-to-noise ratio of a point source at each pixel: the image filtered
with the point-spread function and weighted by the noise (Bosch et al. 2018, PASJ 70, S5, section 4.7; Irwin 1985).
sep (Barbary 2016; Bertin & Arnouts 1996) finds the isophotes on that map and takes blends apart, and measures Kron's
apertures (Kron 1980, ApJS 43, 305) on the image itself.

    for section in sections_of(field.width, field.height):
        found = detect(planes_of(section), ...)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from galaxies.common.errors import UserError

THRESHOLD = 5.0  # of the peak of a source, as LSST's and HSC's pipelines have it
SECTION_PX = 1536  # side of what is looked at at once, without the margin
MARGIN_PX = 160  # of the overlap; a source is seen whole if it reaches no further from its section
_ISOPHOTE = 3.0  # where a source ends; some half of the sky noise a pixel in the seeing of the ground
_LEAST_PIXELS = 5  # within the isophote
_CONTRAST, _LEVELS = (
    0.001,
    32,
)  # of sources that are taken apart, as the Dark Energy Survey has them (Morganson et al. 2018)
_KRON, _KRON_LEAST, _KRON_REACH = 2.5, 3.5, 6.0  # SExtractor's FLUX_AUTO: factor, least radius, where it is measured
_KRON_MOST = 6.0  # of a and b; a disc has 3, and what is larger is its neighbours' light
_PIXEL_STACK = 300_000  # sep's: pixels above the isophote at once, at least
_SUB_OBJECTS = 4096


class Section(NamedTuple):
    """A part of a field: rows and columns that are its own, and with the margin about them what is read for it."""

    own_rows: slice
    own_columns: slice
    rows: slice
    columns: slice


class Detections(NamedTuple):
    """What N sources have; arrays (N,), float64, unless otherwise said.

    Attributes
    ----------
    x, y : ndarray
        Pixels of the field, from the centre of its first one.
    snr : ndarray
        Signal-to-noise ratio of a point source at the source's peak.
    flux, flux_error : ndarray, (N, B)
        Within Kron's aperture, which the detection band gives, nJy.
    half_light_radius : ndarray
        Of the circle that holds half of that flux in the detection band, pixels, as observed.
    a, b, theta : ndarray
        Standard deviations of the light within the isophote along the ellipse's axes, pixels, and its angle from +x
        towards +y, radians.
    parent : ndarray, int64
        Number of the connected isophote that the source lies in; one for all sources that were blended.
    """

    x: np.ndarray
    y: np.ndarray
    snr: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    half_light_radius: np.ndarray
    a: np.ndarray
    b: np.ndarray
    theta: np.ndarray
    parent: np.ndarray

    def chosen(self, rows: np.ndarray) -> Detections:
        """Return some of them, by numbers or by yes and no."""
        return Detections(*(column[rows] for column in self))


class SectionDetections(NamedTuple):
    """The sources of a section: in pixels of what was read for it, their segments, and the connected isophotes.

    Attributes
    ----------
    detections : Detections
        Without those whose peaks are another section's.
    labels : ndarray, (N,), int32
        Their numbers in `segments`.
    segments, parents : ndarray, (H, W), int32
        0 where there is no source. Parents are isophotes before sources are taken apart.
    """

    detections: Detections
    labels: np.ndarray
    segments: np.ndarray
    parents: np.ndarray


def sections_of(width: int, height: int, side: int = SECTION_PX, margin: int = MARGIN_PX) -> Iterator[Section]:
    """Yield the sections of a field of `width` x `height` pixels, row by row; each pixel is one section's own."""

    def parts(length: int) -> Iterator[tuple[slice, slice]]:
        for first in range(0, length, side):
            end = min(first + side, length)
            yield slice(first, end), slice(max(0, first - margin), min(length, end + margin))

    for own_rows, rows in parts(height):
        for own_columns, columns in parts(width):
            yield Section(own_rows, own_columns, rows, columns)


def point_source_snr(image: np.ndarray, noise: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Return the signal-to-noise ratio (H, W), float32, of a point source at each pixel.

    (I/σ² ⋆ P) / sqrt(1/σ² ⋆ P²), with ⋆ the correlation: the best linear filter in noise of known variance.

    Parameters
    ----------
    image, noise : ndarray, (H, W)
        nJy; where the noise is not above 0 and finite, a pixel says nothing.
    psf : ndarray, (P, P), P odd
        Of unit light, about the middle pixel.
    """
    from scipy.signal import oaconvolve

    good = np.isfinite(image) & np.isfinite(noise) & (noise > 0)
    weight = np.where(good, 1 / np.square(np.where(good, noise, 1)), 0).astype(np.float32)
    mirrored = psf[::-1, ::-1].astype(np.float32)
    signal = oaconvolve(np.where(good, image, 0) * weight, mirrored, mode="same")
    variance = oaconvolve(weight, mirrored**2, mode="same")
    least = 1e-3 * float(variance.max(initial=0))  # beyond what has weight there is rounding alone
    return np.where(variance > least, signal / np.sqrt(np.maximum(variance, max(least, 1e-30))), 0).astype(np.float32)


def effective_pixels(psf: np.ndarray) -> float:
    """Return the number of pixels, 1 / sum P², whose noise a point source's best flux has."""
    return float(1 / np.square(psf.astype(np.float64)).sum())


def detect(
    images: np.ndarray,
    noise: np.ndarray,
    psf: np.ndarray,
    reference: int,
    section: Section,
    threshold: float = THRESHOLD,
) -> SectionDetections:
    """Detect the sources of a section.

    Parameters
    ----------
    images, noise : ndarray, (B, H, W), float32
        Of all that the section reads, sky subtracted; nJy.
    psf : ndarray, (P, P)
        Of the detection band.
    reference : int
        Place of the detection band.
    section : Section
    threshold : float
        Least signal-to-noise ratio of a source's peak on the map of `point_source_snr`.

    Raises
    ------
    UserError
        If sep has not enough memory for what lies above the isophote.
    """
    import sep
    from scipy.ndimage import label, maximum

    images, noise = np.ascontiguousarray(images, np.float32), np.ascontiguousarray(noise, np.float32)
    good = np.isfinite(images[reference]) & np.isfinite(noise[reference]) & (noise[reference] > 0)
    snr = point_source_snr(images[reference], noise[reference], psf)
    level = min(_ISOPHOTE, threshold)
    above = snr > level
    sep.set_extract_pixstack(max(_PIXEL_STACK, int(above.sum()) + 1))
    sep.set_sub_object_limit(_SUB_OBJECTS)
    try:
        sources, segments = sep.extract(
            snr,
            level,
            minarea=_LEAST_PIXELS,
            filter_kernel=None,
            deblend_nthresh=_LEVELS,
            deblend_cont=_CONTRAST,
            segmentation_map=True,
        )
    except Exception as reason:  # sep has one kind of error for all
        raise UserError(f"sep cannot take the sources of this field apart ({reason}): is its noise right?") from None
    parents, _ = label(above, np.ones((3, 3), bool))
    peaks = np.asarray(maximum(snr, segments, np.arange(1, len(sources) + 1)), np.float64)
    # Whose section a source is says its peak, which a margin's edge does not move.
    y, x = (
        sources[name].astype(int) + slice_.start
        for name, slice_ in (("ypeak", section.rows), ("xpeak", section.columns))
    )
    own = (y >= section.own_rows.start) & (y < section.own_rows.stop)
    own &= (x >= section.own_columns.start) & (x < section.own_columns.stop)
    kept = np.flatnonzero(own & (peaks >= threshold))
    sources, labels = sources[kept], (kept + 1).astype(np.int32)
    places = _peaks(snr, sources["xpeak"].astype(int), sources["ypeak"].astype(int))
    apertures = _kron(np.where(good, images[reference], 0), sources, places, labels, segments, ~good)
    flux, error = _fluxes(images, noise, apertures, labels, segments)
    radius = _half_light(np.where(good, images[reference], 0), apertures, flux[:, reference], ~good)
    detections = Detections(
        apertures.x + section.columns.start,
        apertures.y + section.rows.start,
        peaks[kept],
        flux,
        error,
        radius,
        sources["a"].astype(np.float64),
        sources["b"].astype(np.float64),
        sources["theta"].astype(np.float64),
        parents[sources["ypeak"], sources["xpeak"]].astype(np.int64),
    )
    return SectionDetections(detections, labels, segments, parents)


class _Apertures(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    theta: np.ndarray
    radius: np.ndarray  # in units of a and b


def _peaks(snr: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places (N,) of peaks between pixels, by parabolas through the pixels beside them.

    In deep images isophotes reach far, and their barycentre lies between a source and what it is blended with.
    """
    padded = np.pad(snr, 1, mode="edge").astype(np.float64)

    def offset(before: np.ndarray, at: np.ndarray, after: np.ndarray) -> np.ndarray:
        bend = 2 * at - before - after
        return np.where(bend > 0, 0.5 * (after - before) / np.where(bend > 0, bend, 1), 0).clip(-0.5, 0.5)

    at = padded[y + 1, x + 1]
    return (
        x + offset(padded[y + 1, x], at, padded[y + 1, x + 2]),
        y + offset(padded[y, x + 1], at, padded[y + 2, x + 1]),
    )


def _kron(
    image: np.ndarray,
    sources: np.ndarray,
    places: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
    segments: np.ndarray,
    bad: np.ndarray,
) -> _Apertures:
    """Return Kron's apertures about peaks, by which SExtractor's FLUX_AUTO is measured."""
    import sep

    x, y = places
    a, b = np.maximum(sources["a"], 0.5).astype(np.float64), np.maximum(sources["b"], 0.5).astype(np.float64)
    theta = np.clip(sources["theta"], -math.pi / 2, math.pi / 2).astype(np.float64)
    if not len(sources):
        return _Apertures(x, y, a, b, theta, x.copy())
    kron, _ = sep.kron_radius(image, x, y, a, b, theta, _KRON_REACH, mask=bad, seg_id=labels, segmap=segments)
    radius = np.clip(np.nan_to_num(_KRON * kron), _KRON_LEAST, _KRON_MOST)
    return _Apertures(x, y, a, b, theta, radius)


def _fluxes(
    images: np.ndarray, noise: np.ndarray, apertures: _Apertures, labels: np.ndarray, segments: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the light (N, B) in apertures, without what other sources' pixels hold, and its error."""
    import sep

    flux, error = np.zeros((2, len(labels), len(images)))
    if not len(labels):
        return flux, error
    x, y, a, b, theta, radius = apertures
    for band, (image, sigma) in enumerate(zip(images, noise, strict=True)):
        bad = ~(np.isfinite(image) & np.isfinite(sigma) & (sigma > 0))
        flux[:, band], error[:, band], _ = sep.sum_ellipse(
            np.where(bad, 0, image),
            x,
            y,
            a,
            b,
            theta,
            radius,
            err=np.where(bad, 1, sigma),
            mask=bad,
            seg_id=labels,
            segmap=segments,
            subpix=5,
        )
    return flux, error


def _half_light(image: np.ndarray, apertures: _Apertures, flux: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return the radii (N,), pixels, of circles that hold half of the light."""
    import sep

    if not len(flux):
        return np.zeros(0)
    reach = apertures.radius * apertures.a
    radius, _ = sep.flux_radius(image, apertures.x, apertures.y, reach, 0.5, normflux=flux, mask=bad)
    return np.where(np.isfinite(radius) & (flux > 0), radius, np.sqrt(apertures.a * apertures.b))
