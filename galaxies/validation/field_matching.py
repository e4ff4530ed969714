"""Which true source a detection is, one to one, and which sources share an isophote."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_REACH = 0.5  # of a source's half-light radius, after the telescope: how far its peak may lie from its centre
_BRIGHTER = 5.0  # times: what is measured so much brighter than a true source is something else


class Matches(NamedTuple):
    """Rows that belong together, -1 where there is none: of detections for each true source (T,), and back (N,)."""

    detection: np.ndarray
    truth: np.ndarray


def match(
    truth_places: np.ndarray,
    truth_flux: np.ndarray,
    reach: np.ndarray,
    places: np.ndarray,
    flux: np.ndarray,
) -> Matches:
    """Match detections to true sources.

    The brightest true source takes the nearest detection within its reach, then the next one, of what is left: faint
    sources, of which there are very many, get no light of the bright ones that they happen to lie by. For the same
    reason a detection that is more than five times as bright as a true source is not that source.

    Parameters
    ----------
    truth_places, places : ndarray, (T, 2), (N, 2)
        x and y, pixels.
    truth_flux, flux : ndarray, (T,), (N,)
        In one unit.
    reach : ndarray, (T,)
        Pixels.
    """
    from scipy.spatial import cKDTree

    of_truth, of_detection = np.full(len(truth_places), -1), np.full(len(places), -1)
    if len(truth_places) and len(places):
        tree = cKDTree(places)
        near = tree.query_ball_point(truth_places, reach)
        for row in np.argsort(-truth_flux, kind="stable"):
            free = [k for k in near[row] if of_detection[k] < 0 and flux[k] <= _BRIGHTER * truth_flux[row]]
            if free:
                distance = np.square(places[free] - truth_places[row]).sum(1)
                best = free[int(distance.argmin())]
                of_truth[row], of_detection[best] = best, row
    return Matches(of_truth, of_detection)


def reach_of(size_px: np.ndarray, fwhm_px: float) -> np.ndarray:
    """Return how far from true sources (T,) their detections may lie, pixels; `size_px` are half-light radii."""
    return np.hypot(0.5 * fwhm_px, _REACH * size_px).clip(1.0)


def companions(parents: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return how many other sources (T,) have their centre in the same isophote; -1 for one that lies in none.

    Parameters
    ----------
    parents : ndarray, (H, W), int
        Numbers of the connected isophotes, 0 outside.
    rows, columns : ndarray, (T,), int
        Of the sources' centres.
    """
    isophote = parents[rows, columns]
    counts = np.bincount(isophote, minlength=1)
    return np.where(isophote > 0, counts[isophote] - 1, -1)
