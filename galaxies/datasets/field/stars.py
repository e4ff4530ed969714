"""Tell stars from galaxies by their size, and measure the point spread function of each band on the stars.

In each band stars of any brightness have one half-light radius, and lie on a line of it; galaxies lie above. How far a
source lies above the line is averaged over the bands, weighted by how well each one tells. A star that is brighter
than what the camera could hold looks wider than the line; it is known by its peak.

References
----------
Kaiser, Squires & Broadhurst (1995), ApJ 449, 460, section 5: stars by magnitude and half-light radius.
Leauthaud et al. (2007), ApJS 172, 219, section 3.4: stars by their peaks.
Moffat (1969), A&A 3, 455: the profile of a star.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from galaxies.datasets.field.detection import Sources, sections
from galaxies.datasets.field.frames import Area, Plane
from galaxies.datasets.field.sky import SkyMap

STAR, GALAXY, UNCLEAR, DEFECT = 0, 1, 2, 3
LEAST_EXCESS = 0.10  # part by which a galaxy's half-light radius exceeds a star's
_LEAST_CORE_EXCESS = 0.05  # the same of their cores, whose radii differ less
_SIGMAS = 3.0  # standard deviations of that excess
_LOCUS_SNR = (100.0, 50.0, 30.0, 20.0)  # of the sources among which the line is looked for, the first that has enough
_ENOUGH = 40  # sources
_LEAST_STARS = 5
_WINDOW = 0.06  # of log radius: width of the line, at most
_OF_HIGHEST = 0.3  # of the sources in the densest range, at least, in another one
_MOST_BELOW = 0.5  # sources smaller than the line, over those on it
_LEAST_RADIUS = 0.6  # pixels; hot pixels and cosmic rays have less
_RADIUS_NOISE = 1.0  # relative error of a half-light radius times its signal over noise
_LEAST_SCATTER = 0.01  # of the line
_SATURATED = 0.7  # of the peak of the brightest star on the line, or of the header's limit
_SATURATED_WIDTH = 4.0  # half-light radii of a star up to which a source with such a peak is one
_APERTURE_FWHM = 1.5  # radius of the aperture within which all light is counted, widths
_CORE_FWHM = 0.75  # of one that a neighbour hardly reaches
_ELSEWHERE = 0.1  # part of a source's light in one band that each other band shows at least, if any is real
_HALO_SNR = 300.0  # of a star whose halo is detected as sources of its own
_HALO_RADII = 1.2  # radii of its detected image over which they lie
_HALO_PART = 0.3  # of its signal over noise, at most
_MOST_STARS = 150  # that make a PSF
_LEAST_PSF_SNR = 50.0
_STAMP_FWHM = 3.0  # half side of the PSF's image, widths


class Shapes(NamedTuple):
    """What is measured of N sources in B bands, within one aperture; arrays (N, B), float32.

    Attributes
    ----------
    flux, error : ndarray
        nJy.
    radius : ndarray
        Half-light radius, pixels; NaN where it cannot be measured.
    peak : ndarray
        Brightest pixel near the centre, nJy.
    """

    flux: np.ndarray
    error: np.ndarray
    radius: np.ndarray
    peak: np.ndarray


class Locus(NamedTuple):
    """The line of the stars in a band: their half-light radius and its scatter (relative), pixels, how many, and the
    peak above which sources are saturated, nJy."""

    radius: float
    scatter: float
    num_stars: int
    saturated: float


class BandPsf(NamedTuple):
    """Point spread function of a band: full width at half maximum in pixels (NaN unknown), image (P, P), stars used."""

    fwhm: float
    image: np.ndarray
    num_stars: int


def rough_width(sources: Sources) -> float:
    """Return about the full width at half maximum of the stars in pixels, for the size of apertures."""
    bright = sources.snr > min(50.0, float(np.percentile(sources.snr, 50)))
    # Of a Gaussian above a low threshold the standard deviations are nearly the true ones.
    widths = np.sqrt(sources.a * sources.b)[bright & ~sources.cut]
    width = float(np.percentile(widths, 15)) if len(widths) else 1.5
    return float(np.clip(2.3548 * width, 1.5, 12.0))


def measure_shapes(planes: Sequence[Plane], skies: Sequence[SkyMap], sources: Sources, reach: float) -> Shapes:
    """Measure sources in all bands within an aperture of a radius in pixels; see `Shapes`."""
    import sep

    columns = [np.full((sources.num_sources, len(planes)), np.nan, np.float32) for _ in range(4)]
    flux, error, radius, peak = columns
    for section in sections(planes[0].shape):
        rows = _in_section(sources, section)
        if not len(rows):
            continue
        area = section.grown(math.ceil(reach) + 2).within(planes[0].shape)
        x, y = sources.x[rows] - area.x0, sources.y[rows] - area.y0
        for k, (plane, sky) in enumerate(zip(planes, skies, strict=True)):
            image = plane.read(area) - sky.level(area)
            bad = ~np.isfinite(image)
            image[bad] = 0
            total, deviation, flags = sep.sum_circle(image, x, y, reach, err=sky.noise(area), mask=bad, subpix=5)
            half, _ = sep.flux_radius(image, x, y, np.full(len(x), reach), 0.5, normflux=total, mask=bad, subpix=5)
            lost = _near(bad, x, y, 1) | (flags & sep.APER_TRUNC > 0) | ~(total > 0)
            half[lost | ~(half > 0)] = np.nan
            flux[rows, k], error[rows, k], radius[rows, k] = total, deviation * sky.sharing, half
            peak[rows, k] = _highest(image, x, y, 2)
    return Shapes(*columns)


def _in_section(sources: Sources, section: Area) -> np.ndarray:
    """Return the indices of the sources whose centre lies in a section."""
    x, y = np.rint(sources.x), np.rint(sources.y)
    return np.flatnonzero((x >= section.x0) & (x < section.x1) & (y >= section.y0) & (y < section.y1))


def _windows(image: np.ndarray, x: np.ndarray, y: np.ndarray, reach: int) -> np.ndarray:
    """Return the pixels around positions (N, (2 reach + 1)²); those beyond the edge are the edge's."""
    steps = np.arange(-reach, reach + 1)
    rows = np.clip(np.rint(y).astype(int)[:, None, None] + steps[:, None], 0, image.shape[0] - 1)
    columns = np.clip(np.rint(x).astype(int)[:, None, None] + steps, 0, image.shape[1] - 1)
    return image[rows, columns].reshape(len(x), -1)


def _highest(image: np.ndarray, x: np.ndarray, y: np.ndarray, reach: int) -> np.ndarray:
    return _windows(image, x, y, reach).max(1)


def _near(bad: np.ndarray, x: np.ndarray, y: np.ndarray, reach: int) -> np.ndarray:
    return np.asarray(_windows(bad, x, y, reach).any(1))


# The line of the stars


def find_locus(radius: np.ndarray, snr: np.ndarray, peak: np.ndarray, limit: float | None = None) -> Locus | None:
    """Find the line of the stars in a band: the densest range of half-light radii among bright sources.

    It has to hold more sources than chance puts there, see `_counts_in_windows`; of several such ranges the smallest
    radius is taken.

    Parameters
    ----------
    radius, snr, peak : ndarray, (N,)
        Half-light radii, signal over noise, and peaks of sources.
    limit : float, optional
        Peak at which the camera saturates, by the header.

    Returns
    -------
    Locus or None
        None where no line stands out.
    """
    known = np.isfinite(radius) & (radius > _LEAST_RADIUS)
    if limit is not None:
        known &= peak < _SATURATED * limit
    for least in _LOCUS_SNR:
        bright = known & (snr > least)
        if bright.sum() >= _ENOUGH:
            break
    logs = np.sort(np.log(radius[bright]))
    if len(logs) < _LEAST_STARS:
        return None
    inside, chance = _counts_in_windows(logs)
    dense = inside >= np.maximum(_LEAST_STARS, chance + 4 * np.sqrt(chance + 1))
    # Little is smaller than a star.
    dense &= np.searchsorted(logs, logs - _WINDOW) <= _MOST_BELOW * inside
    if not dense.any():
        return None
    # The top of the first peak: windows that begin within one width of the first one that is dense.
    dense &= inside >= _OF_HIGHEST * inside[dense].max()
    first = int(np.argmax(dense))
    near = dense & (logs <= logs[first] + 2 * _WINDOW)
    start = int(np.argmax(np.where(near, inside, 0)))
    centre = float(np.median(logs[start : start + inside[start]]))
    scatter = _WINDOW / 2
    for _ in range(5):
        members = logs[np.abs(logs - centre) <= 3 * scatter]
        centre = float(np.median(members))
        scatter = max(1.4826 * float(np.median(np.abs(members - centre))), _LEAST_SCATTER)
        scatter = min(scatter, _WINDOW / 2)
    on_line = bright & (np.abs(np.log(np.where(known, radius, 1)) - centre) <= 3 * scatter)
    count = int(on_line.sum())
    highest = float(peak[on_line].max()) if count >= 2 * _LEAST_STARS else math.inf
    return Locus(math.exp(centre), scatter, count, _SATURATED * (highest if limit is None else limit))


def tell_apart(
    planes: Sequence[Plane], skies: Sequence[SkyMap], sources: Sources, limits: Sequence[float | None]
) -> tuple[Shapes, list[Locus | None], np.ndarray, np.ndarray]:
    """Tell the stars of a field from its galaxies.

    Two stars side by side are as wide as a galaxy. Where another source lies near, it is therefore also asked whether
    the core of a source, which the other one hardly reaches, is that of a star.

    Parameters
    ----------
    planes, skies, sources
        Of the field.
    limits : sequence of float or None, (B,)
        Peak at which the camera saturates, where the header says it, nJy.

    Returns
    -------
    shapes : Shapes
    loci : list of Locus or None, (B,)
        Line of the stars in each band.
    kinds, excess : ndarray, (N,)
        See `classify`; `DEFECT` is what only one band shows.
    """
    width = rough_width(sources)
    told = []
    for part, least in ((_APERTURE_FWHM, LEAST_EXCESS), (_CORE_FWHM, _LEAST_CORE_EXCESS)):
        shapes = measure_shapes(planes, skies, sources, part * width)
        loci = [
            find_locus(radius, flux / error, peak, limit)
            for radius, flux, error, peak, limit in zip(
                shapes.radius.T, shapes.flux.T, shapes.error.T, shapes.peak.T, limits, strict=True
            )
        ]
        told.append((shapes, loci, *classify(shapes, loci, least)))
    (shapes, loci, kinds, excess), (_, _, core_kinds, core_excess) = told
    crowded = sources.blended | (_nearest(sources) < 2 * _APERTURE_FWHM * width)
    kinds[crowded & (core_kinds == STAR)] = STAR
    kinds[crowded & np.isnan(core_excess)] = UNCLEAR  # without a core: a defect
    kinds[_beside_star(sources, kinds)] = UNCLEAR
    kinds[_in_one_band(told[0][0])] = DEFECT
    return shapes, loci, kinds, excess


def _in_one_band(shapes: Shapes) -> np.ndarray:
    """Return which sources only one of three or more bands shows, 2.5 magnitudes brighter than any other: cosmic rays.

    No galaxy is so in bands that follow each other, for one of the two beside it is less than 2.5 magnitudes away.
    """
    known = np.isfinite(shapes.flux) & np.isfinite(shapes.error)
    most = np.where(known, shapes.flux / shapes.error, -np.inf).argmax(1)[:, None]
    here = np.take_along_axis(shapes.flux, most, 1)
    faint = shapes.flux + 3 * shapes.error < _ELSEWHERE * here
    others = known & (np.arange(shapes.flux.shape[1]) != most)
    return np.asarray((others.sum(1) >= 2) & (faint | ~others).all(1))


def _beside_star(sources: Sources, kinds: np.ndarray) -> np.ndarray:
    """Return which sources lie on the image of a much brighter star: pieces of its halo and spikes as a rule."""
    from scipy.spatial import cKDTree

    beside = np.zeros(sources.num_sources, bool)
    stars = np.flatnonzero((kinds == STAR) & (sources.snr > _HALO_SNR))
    if not len(stars):
        return beside
    tree = cKDTree(np.stack([sources.x, sources.y], 1))
    for star in stars.tolist():
        reach = _HALO_RADII * math.sqrt(sources.area[star] / math.pi)
        near = tree.query_ball_point((sources.x[star], sources.y[star]), reach)
        beside[[k for k in near if sources.snr[k] < _HALO_PART * sources.snr[star]]] = True
    return beside & (kinds != STAR)


def _nearest(sources: Sources) -> np.ndarray:
    """Return the distance of each source's nearest neighbour, pixels."""
    from scipy.spatial import cKDTree

    places = np.stack([sources.x, sources.y], 1)
    distance, _ = cKDTree(places).query(places, k=2)
    return np.asarray(distance)[:, 1]


def _counts_in_windows(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many sources lie in the window of log radius that begins at each, and how many chance puts there.

    Of `logs`, sorted (N,). Chance is what the fuller one of the two windows beside has, or the mean over three on
    each side beyond these: the edge of the galaxies' sizes is no line, and neither is where there are most of them.
    """

    def between(low: float, high: float) -> np.ndarray:
        # A little more than the window, for the bounds themselves are sources.
        ends = np.searchsorted(logs, logs + high * _WINDOW + 1e-9, side="right")
        return ends - np.searchsorted(
            logs, logs + low * _WINDOW + 1e-9 * np.sign(low), side="right" if low > 0 else "left"
        )

    inside, below, above = between(0, 1), between(-1, 0) - 1, between(1, 2)
    wide = (between(-4, 5) - between(-1, 2)) / 6
    return inside, np.maximum(np.maximum(below, above), wide)


def classify(
    shapes: Shapes, loci: Sequence[Locus | None], least: float = LEAST_EXCESS
) -> tuple[np.ndarray, np.ndarray]:
    """Tell stars from galaxies.

    Parameters
    ----------
    shapes : Shapes
        Of N sources in B bands.
    loci : sequence of Locus or None, (B,)
        Line of the stars in each band; None where there is none.
    least : float
        Part by which a galaxy's radius exceeds a star's.

    Returns
    -------
    kinds : ndarray, (N,), int
        `STAR`, `GALAXY`, or `UNCLEAR` where noise does not let it be told.
    excess : ndarray, (N,)
        Half-light radius over that of a star, less 1, averaged over the bands; NaN where unknown.
    """
    count, bands = shapes.flux.shape
    total, weights = np.zeros(count), np.zeros(count)
    saturated = np.zeros(count, bool)
    wide = np.zeros(count, bool)
    for k in range(bands):
        locus = loci[k]
        if locus is None:
            continue
        snr = shapes.flux[:, k] / shapes.error[:, k]
        over = shapes.peak[:, k] > locus.saturated
        narrow = ~(shapes.radius[:, k] > _SATURATED_WIDTH * locus.radius)
        saturated |= over & narrow
        wide |= over & ~narrow
        ratio = shapes.radius[:, k] / locus.radius - 1
        usable = np.isfinite(ratio) & (snr > 5) & ~over
        weight = 1 / (locus.scatter**2 + (_RADIUS_NOISE / np.maximum(snr, 1)) ** 2)
        total += np.where(usable, ratio * weight, 0)
        weights += np.where(usable, weight, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(weights > 0, total / weights, np.nan)
        error = 1 / np.sqrt(weights)
    kinds = np.full(count, UNCLEAR)
    kinds[(excess > least) & (excess > _SIGMAS * error)] = GALAXY
    kinds[(excess <= least) & (excess + 2 * error < 2 * least)] = STAR
    # A peak as of the brightest stars: in one band it may be a bright nucleus, unless no band says otherwise.
    kinds[saturated & ~(kinds == GALAXY)] = STAR
    kinds[saturated & (np.nan_to_num(excess, nan=0.0) < 1.0)] = STAR
    kinds[wide & ~np.isfinite(excess)] = GALAXY
    return kinds, excess


# The point spread function


def measure_psfs(
    planes: Sequence[Plane],
    skies: Sequence[SkyMap],
    sources: Sources,
    shapes: Shapes,
    stars: np.ndarray,
    loci: Sequence[Locus | None],
) -> list[BandPsf]:
    """Measure the point spread function of each band on its stars.

    The width is that of a Moffat profile through all pixels of all stars, by their distance from the star's centre, so
    that nothing is interpolated. The image is the mean of the stars, moved to the centre of a pixel and clipped. Both
    hold the pixel, as the stars do.

    Parameters
    ----------
    planes, skies, sources, shapes
        As before.
    stars : ndarray, (N,), bool
    loci : sequence of Locus or None
        Line of the stars in each band; no PSF is measured where there is none.
    """
    found = []
    for k, (plane, sky) in enumerate(zip(planes, skies, strict=True)):
        locus = loci[k]
        if locus is None:
            found.append(BandPsf(math.nan, np.empty((0, 0), np.float32), 0))
            continue
        snr = shapes.flux[:, k] / shapes.error[:, k]
        width = np.abs(np.log(np.where(shapes.radius[:, k] > 0, shapes.radius[:, k], 1) / locus.radius))
        good = stars & ~sources.blended & ~sources.cut & (shapes.peak[:, k] < locus.saturated)
        good &= np.isfinite(shapes.radius[:, k]) & (width < 3 * locus.scatter + 0.02)
        order = np.argsort(-np.where(good, snr, -np.inf))
        chosen = order[: min(_MOST_STARS, int((good & (snr > _LEAST_PSF_SNR)).sum()))]
        if len(chosen) < _LEAST_STARS:  # a poor field: whatever stands out
            chosen = order[: min(_LEAST_STARS, int((good & (snr > _LEAST_PSF_SNR / 5)).sum()))]
        # Of a Gaussian the full width is twice the half-light radius, of a Moffat profile somewhat less.
        reach = math.ceil(_STAMP_FWHM * 1.8 * locus.radius)
        stamps = _stamps(plane, sky, sources.x[chosen], sources.y[chosen], reach)
        found.append(_psf_of(stamps, 2 * locus.radius))
    return found


def _stamps(plane: Plane, sky: SkyMap, x: np.ndarray, y: np.ndarray, reach: int) -> list[np.ndarray]:
    """Return the pixels around stars, (2 reach + 1) a side, without those that have gaps."""
    stamps = []
    for column, row in zip(np.rint(x).astype(int).tolist(), np.rint(y).astype(int).tolist(), strict=True):
        area = Area(row, row + 1, column, column + 1).grown(reach)
        image = plane.read_beyond(area) - sky.level(area)
        if np.isfinite(image).all():
            stamps.append(np.ascontiguousarray(image, dtype=np.float32))
    return stamps


def _psf_of(stamps: Sequence[np.ndarray], fwhm_guess: float) -> BandPsf:
    """Return the width and the mean image of stars; see `measure_psfs`."""
    import sep
    from scipy.ndimage import shift

    nothing = BandPsf(math.nan, np.empty((0, 0), np.float32), 0)
    if not stamps:
        return nothing
    side = len(stamps[0])
    middle, pixels = side // 2, np.arange(side)
    moved, distances, heights = [], [], []
    for stamp in stamps:
        x, y, flags = sep.winpos(stamp, [middle], [middle], [fwhm_guess / 2.3548])
        x, y = float(x[0]), float(y[0])
        total = float(sep.sum_circle(stamp, [x], [y], fwhm_guess * _APERTURE_FWHM, subpix=5)[0][0])
        if flags[0] or max(abs(x - middle), abs(y - middle)) > 1.5 or not total > 0:
            continue
        distance = np.hypot(pixels[:, None] - y, pixels - x)
        core = distance < fwhm_guess * _APERTURE_FWHM
        distances.append(distance[core])
        heights.append(stamp[core] / total)
        moved.append(shift(stamp / total, (middle - y, middle - x), order=3, mode="nearest"))
    if not moved:
        return nothing
    images = np.stack(moved)
    typical = np.median(images, 0)
    scatter = np.maximum(1.4826 * np.median(np.abs(images - typical), 0), 1e-6)
    kept = np.abs(images - typical) <= 3 * scatter
    image = np.where(kept, images, 0).sum(0) / np.maximum(kept.sum(0), 1)
    # Outside, what is left of the sky and of neighbours is taken off, and the image ends softly.
    distance = np.hypot(pixels[:, None] - middle, pixels - middle)
    ring = (distance > 0.8 * middle) & (distance <= middle)
    image = (image - np.median(image[ring])) * np.clip((middle + 0.5 - distance) / (0.25 * middle), 0, 1)
    total = float(image.sum())
    fwhm = _moffat_width(np.concatenate(distances), np.concatenate(heights), fwhm_guess)
    return BandPsf(fwhm, (image / total).astype(np.float32), len(moved)) if total > 0 else nothing


def _moffat_width(distance: np.ndarray, height: np.ndarray, guess: float) -> float:
    """Return the full width at half maximum of the Moffat profile that fits heights best; NaN where none does."""
    from scipy.optimize import least_squares

    def profile(parameters: np.ndarray) -> np.ndarray:
        log_top, log_width, log_beta = parameters
        beta = 1 + np.exp(log_beta)  # flux is finite above 1
        scale = 2 * np.sqrt(2 ** (1 / beta) - 1)
        return np.exp(log_top) * (1 + (distance * scale / np.exp(log_width)) ** 2) ** -beta

    top = max(float(np.percentile(height, 99)), 1e-9)
    noise = max(float(np.median(np.abs(height - np.median(height)))), 1e-3 * top)
    start = [math.log(top), math.log(guess), math.log(2.5)]

    def residuals(parameters: np.ndarray) -> np.ndarray:
        return np.asarray((profile(parameters) - height) / noise)

    fit = least_squares(residuals, start, loss="soft_l1", max_nfev=200)
    width = float(np.exp(fit.x[1]))
    return width if fit.success and guess / 4 < width < guess * 4 else math.nan
