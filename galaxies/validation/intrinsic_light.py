"""Galaxies without noise or blur: how large, how round, of which color they are, and how much detail they have.

Measured is light before any telescope, as a generator paints it or a simulation knows it. There is no noise that a
measurement would have to be robust against, so these are plain: a curve of growth about the centroid, the moments of an
isophote, sums. What a frame does not hold is not missed, in one set of galaxies as in the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from config_physics import AB_ZERO_POINT
from galaxies.telescope.fourier import FourierGrid
from galaxies.telescope.psf import Psf
from galaxies.validation.distances import bootstrap_interval, compare_values, too_few, wasserstein

BAND_LIMIT = 0.01  # of the transfer function: detail that is dimmed to less than this is not seen
_SUB = 2  # parts along each axis into which a pixel's light is divided for the curve of growth
_RINGS_AN_OCTAVE = 2
_RESAMPLES = 200
_LEAST = 10  # galaxies
_FAINTEST = 1e-30  # of the power, so that a picture of nothing has a logarithm


class Light(NamedTuple):
    """Measurements of N galaxies.

    Attributes
    ----------
    values : dict of str to ndarray, (N,), float64
        magnitude (AB, in the reference band, within the frame), half_light_radius (arcseconds, of the circle about the
        centroid, in the reference band), concentration (5 log10(r80 / r20); Conselice 2003, eq. 5), ellipticity
        (1 - b/a of the isophote that holds half of the light), and color_<one>_<other> of neighbouring bands
        (magnitudes, within twice the half-light radius). NaN where there is no light.
    spectrum : ndarray, (N, R), float64
        Decimal logarithm of the power in the reference band, over that of all light at frequency 0: averaged over
        rings of `frequencies`.
    frequencies : ndarray, (R + 1,)
        Edges of the rings, cycles an arcsecond: half octaves, up to the finest that the pixels hold.
    """

    values: dict[str, np.ndarray]
    spectrum: np.ndarray
    frequencies: np.ndarray


def measure_light(light: np.ndarray, pixel_scale: float, bands: Sequence[str], reference: int) -> Light:
    """Measure galaxies without noise.

    Parameters
    ----------
    light : ndarray, (N, B, W, W), float32
        Nanojansky a pixel, nowhere negative.
    pixel_scale : float
        Arcseconds a pixel.
    bands : sequence of str, B
    reference : int
        Place of the band in which sizes and shapes are measured.

    Returns
    -------
    Light
    """
    names = ("magnitude", "half_light_radius", "concentration", "ellipticity")
    colors = [f"color_{one}_{other}" for one, other in itertools.pairwise(bands)]
    table = np.full((len(light), len(names) + len(colors)), np.nan)
    for row, planes in zip(table, light, strict=True):
        shown = planes[reference].astype(np.float64)
        if not shown.sum() > 0:
            continue
        r20, r50, r80, distance = _radii(shown)
        row[0] = AB_ZERO_POINT - 2.5 * np.log10(shown.sum())
        row[1], row[2], row[3] = r50 * pixel_scale, 5 * np.log10(r80 / r20), isophote_ellipticity(shown)
        flux = planes[:, distance <= 2 * r50].sum(1, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            row[len(names) :] = np.where(flux[:-1] * flux[1:] > 0, -2.5 * np.log10(flux[:-1] / flux[1:]), np.nan)
    frequencies = ring_edges(light.shape[-1], pixel_scale)
    spectrum = np.log10(ring_power(light[:, reference], pixel_scale, frequencies) + _FAINTEST)
    return Light(dict(zip([*names, *colors], table.T, strict=True)), spectrum, frequencies)


def _radii(plane: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    """Return the radii, pixels, that hold 20, 50 and 80 % of the light about its centroid, and distances."""
    side, total = plane.shape[-1], plane.sum()
    place = np.arange(side)
    x, y = (plane.sum(0) * place).sum() / total, (plane.sum(1) * place).sum() / total
    fine = (np.arange(side * _SUB) + 0.5) / _SUB - 0.5
    radius = np.hypot(fine - x, fine[:, None] - y).ravel()
    parts = (plane / _SUB**2).repeat(_SUB, 0).repeat(_SUB, 1).ravel()
    order = radius.argsort()
    parts = parts[order]
    growth = (parts.cumsum() - parts / 2) / total
    r20, r50, r80 = np.interp((0.2, 0.5, 0.8), growth, radius[order])
    return float(r20), float(r50), float(r80), np.hypot(place - x, place[:, None] - y)


def isophote_ellipticity(plane: np.ndarray) -> float:
    """Return 1 - b/a of the brightest pixels of a picture (W, W) that hold half of its light, by their second moments.

    Of a galaxy whose isophotes are ellipses it is that of one of them, wherever the light ends. Whole pixels make a
    round galaxy of 200 of them look flattened by 0.02.
    """
    flat = plane.ravel()
    order = flat.argsort()[::-1]
    growth = flat[order].cumsum()
    count = int(np.searchsorted(growth, growth[-1] / 2)) + 1
    y, x = np.divmod(order[:count], plane.shape[-1])
    pixel = 1 / 12  # what the area of a pixel adds to the moments of its centre
    xx, yy = x.var() + pixel, y.var() + pixel
    xy = ((x - x.mean()) * (y - y.mean())).mean()
    arm = math.hypot((xx - yy) / 2, xy)
    return float(1 - math.sqrt(max((xx + yy) / 2 - arm, 0) / ((xx + yy) / 2 + arm)))


def ring_edges(side: int, pixel_scale: float) -> np.ndarray:
    """Return the edges of rings of spatial frequency, cycles an arcsecond: from one cycle a frame to the finest."""
    octaves = math.log2(side / 2)
    steps = np.arange(round(octaves * _RINGS_AN_OCTAVE) + 1) / _RINGS_AN_OCTAVE
    return 2**steps / (side * pixel_scale)


def power_of(planes: np.ndarray) -> np.ndarray:
    """Return the power of pictures (N, W, W) under a Hann window over that at frequency 0, (N, W, W), float64."""
    side = planes.shape[-1]
    window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2  # light that the frame cuts off has no edge so
    power = np.abs(np.fft.fft2(planes.astype(np.float64) * window * window[:, None])) ** 2
    return power / np.maximum(power[:, :1, :1], _FAINTEST)


def _radius(side: int, pixel_scale: float) -> np.ndarray:
    """Return the frequency (W, W) of each place of a transform, cycles an arcsecond."""
    each = np.fft.fftfreq(side, pixel_scale)
    return np.hypot(each, each[:, None])


def ring_power(planes: np.ndarray, pixel_scale: float, edges: np.ndarray) -> np.ndarray:
    """Return the mean power of pictures (N, W, W) in rings of frequency, (N, R); see `power_of`."""
    radius = _radius(planes.shape[-1], pixel_scale)
    inside = (radius >= edges[0] * (1 - 1e-9)) & (radius < edges[-1] * (1 - 1e-9))
    ring = np.searchsorted(edges * (1 - 1e-9), radius[inside], side="right") - 1
    counts = np.bincount(ring, minlength=len(edges) - 1)
    return np.stack(
        [
            np.bincount(ring, one[inside], len(edges) - 1) / counts
            for block in np.array_split(planes, max(1, len(planes) // 64))
            for one in power_of(block)
        ]
    )


def unseen_power(light: np.ndarray, pixel_scale: float, psf: Psf) -> np.ndarray:
    """Return the mean power where a telescope sees nothing, (N, B): beyond its band limit; see `power_of`.

    The limit is where the transfer function has fallen below `BAND_LIMIT`. What a generator that learned from the
    telescope's pictures paints there is its own invention: rings and grids show as more power than galaxies have. Most
    of that power lies just beyond the limit; a narrow ring further out hardly changes the mean, and shows in the rings
    of `compare_spectra`.

    Parameters
    ----------
    light : ndarray, (N, B, W, W)
    pixel_scale : float
        Arcseconds a pixel.
    psf : Psf
        One, of B bands.

    Raises
    ------
    ValueError
        If the telescope sees everything that the pixels hold.
    """
    side = light.shape[-1]
    transfer = psf.transfer(FourierGrid(side, torch.tensor([pixel_scale])))[0].numpy()  # (B, W, W / 2 + 1)
    power = np.empty(light.shape[:2])
    for place, of_band in enumerate(transfer):
        unseen = of_band < BAND_LIMIT
        if not unseen.any():
            raise ValueError(f"pixels of {pixel_scale:g} arcsec hold nothing beyond the band limit")
        for start in range(0, len(light), 64):
            blocks = power_of(light[start : start + 64, place])[..., : side // 2 + 1]
            power[start : start + 64, place] = blocks[:, unseen].mean(1)
    return power


def compare_light(generated: Light, truth: Light, seed: int) -> dict[str, dict[str, Any]]:
    """Compare the distributions of all that was measured, {name: cell}; see `compared`."""
    return {name: compared(generated.values[name], truth.values[name], seed) for name in truth.values}


def compare_spectra(generated: Light, truth: Light, seen_to: float, seed: int) -> dict[str, Any]:
    """Compare power spectra ring by ring.

    Parameters
    ----------
    generated, truth : Light
    seen_to : float
        Cycles an arcsecond: the band limit. Rings that end beyond it are no part of the mean.
    seed : int

    Returns
    -------
    dict
        ``rings``, a list of {``from``, ``to`` (cycles an arcsecond), ``seen``, and what `compared` says of the
        logarithm of the power}; ``w1``, the mean over the rings that are seen, its ``floor``, and ``worst``.
    """
    rings = []
    for place, (low, high) in enumerate(itertools.pairwise(truth.frequencies.tolist())):
        cell = compared(generated.spectrum[:, place], truth.spectrum[:, place], seed)
        rings.append({"from": low, "to": high, "seen": high <= seen_to, **cell})
    seen = [ring for ring in rings if ring["seen"] and "w1" in ring]
    if not seen:
        return {"rings": rings, "left_out": "no ring can be compared"}
    mean = {name: float(np.mean([ring[name] for ring in seen])) for name in ("w1", "floor")}
    return {"rings": rings, **mean, "worst": max(ring["w1"] for ring in seen)}


def compared(generated: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, Any]:
    """Compare two distributions.

    Parameters
    ----------
    generated, truth : ndarray, (N,) and (M,), float
        NaN where unknown, which is left out.

    Returns
    -------
    dict
        ``w1``: Wasserstein-1 of all generated from all true values over the standard deviation of the true ones, and
        its 95 % bootstrap ``interval``; ``halves`` and ``floor``: the mean of that distance of as many generated
        values from half of the true ones, and of the one half from the other (see `distances.against_floor`);
        ``shift``, the difference of the medians in the same unit; ``generated`` and ``truth``, medians. Or
        ``left_out``.
    """
    cell = compare_values(generated, truth, seed)
    if "left_out" in cell:
        return cell
    one, other = (values[np.isfinite(values)] for values in (generated, truth))
    return {
        "w1": cell["w1"]["whole"],
        "interval": _w1_interval(one, other, seed),
        "halves": cell["w1"]["value"],
        "floor": cell["w1"]["floor"],
        "shift": cell["shift"],
        "generated": float(np.median(one)),
        "truth": float(np.median(other)),
    }


def _w1_interval(generated: np.ndarray, truth: np.ndarray, seed: int) -> list[float]:
    rng = np.random.default_rng([seed, 1])
    scale = truth.std()
    drawn = [
        wasserstein(rng.choice(generated, len(generated)), rng.choice(truth, len(truth))) / scale
        for _ in range(_RESAMPLES)
    ]
    return np.percentile(drawn, (2.5, 97.5)).tolist()


def compare_small(generated: np.ndarray, truth: np.ndarray, below: float, seed: int) -> dict[str, Any]:
    """Compare half-light radii of galaxies that are smaller than the point-spread function.

    Parameters
    ----------
    generated : ndarray, (M, K), arcseconds
        Of K galaxies generated for the class and the attributes of each true one.
    truth : ndarray, (M,), arcseconds
    below : float
        Arcseconds: the width under which a galaxy is small.
    seed : int

    Returns
    -------
    dict
        ``below``; ``truth`` and ``generated``, how many; ``share`` and ``generated_share``, parts of all galaxies that
        are as small, with its ``interval``; what `compared` says; ``ks`` and ``p``, of the two-sample test of
        Kolmogorov and Smirnov. Or, beside the shares, ``left_out``.
    """
    from scipy.stats import ks_2samp

    small = truth < below
    found: dict[str, Any] = {
        "below": below,
        "truth": int(small.sum()),
        "generated": int(small.sum()) * generated.shape[1],
        "share": float(small.mean()),
        "generated_share": float((generated < below).mean()),
        "interval": bootstrap_interval(lambda rows: (generated[rows] < below).mean((1, 2)), len(truth), seed),
    }
    if small.sum() < 2 * _LEAST:
        return found | {"left_out": too_few(2 * _LEAST, found["truth"], _LEAST, found["generated"])}
    cell = compared(generated[small].ravel(), truth[small], seed)
    test = ks_2samp(generated[small].ravel(), truth[small])
    return found | {"radii": cell, "ks": float(test.statistic), "p": float(test.pvalue)}


def power_ratio(generated: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the ratio of geometric mean powers (N,) and (M,), its bootstrap interval, and two halves' as the floor."""
    one, other = (np.log10(values + _FAINTEST) for values in (generated, truth))
    own = np.array(bootstrap_interval(lambda rows: one[rows].mean(1), len(one), seed))
    rng = np.random.default_rng(seed)
    halves = []
    for _ in range(_RESAMPLES):
        order = rng.permutation(len(other))
        half = len(order) // 2
        halves.append(other[order[:half]].mean() - other[order[half:]].mean())
    return {
        "ratio": float(10 ** (one.mean() - other.mean())),
        "interval": (10 ** (own - other.mean())).tolist(),
        "floor": (10 ** np.percentile(halves, (2.5, 97.5))).tolist(),
    }
