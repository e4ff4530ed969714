"""Distances between two sets of galaxies, each beside the distance that chance alone gives.

The number that matters is never a distance by itself: it depends on the number of images. Every distance is therefore
taken between random halves of the real galaxies and as many generated ones, and between the two halves themselves. A
perfect generator comes out at the second, the floor. Wasserstein distances are given of all images at once as well,
for comparison with the numbers in papers: these have no floor, and mean little where there are few galaxies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

SPLITS = 100  # random halves over which a distance is averaged
_INTERVAL = (2.5, 97.5)  # percentiles of a 95 % interval
_MIN_VALUES = 10  # fewer values in a half have no distribution worth comparing

Distance = Callable[[np.ndarray, np.ndarray], float]


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the squared Fréchet distance of the normal distributions fitted to two sets of features.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), with the unbiased covariances C. It is biased upwards by a small
    number of images, so only distances of equally many images can be compared.

    Parameters
    ----------
    one, other : ndarray, (N, D) and (M, D), float
        At least two rows each.

    References
    ----------
    Dowson & Landau 1982, eq. 4; Heusel et al. 2017 (arXiv:1706.08500), eq. 6.
    """
    _check_features(one, other)
    covariances = [np.atleast_2d(np.cov(part, rowvar=False)) for part in (one, other)]
    # The eigenvalues of C1 C2 are those of the symmetric root(C1) C2 root(C1), which are never complex.
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    offset = one.mean(0) - other.mean(0)
    return float(max(0.0, offset @ offset + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross))


def kernel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the kernel distance (KID): the unbiased squared maximum mean discrepancy with a cubic kernel.

    The kernel is (x.y / D + 1)^3. Unbiased means that two sets from one distribution give 0 on average, whatever
    their numbers, and so sometimes a negative value.

    Parameters
    ----------
    one, other : ndarray, (N, D) and (M, D), float
        At least two rows each.

    References
    ----------
    Bińkowski et al. 2018 (arXiv:1801.01401), eq. 4 and section 3; Gretton et al. 2012, eq. 3.
    """
    _check_features(one, other)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    within = []
    for part in (one, other):
        products = kernel(part, part)
        within.append((products.sum() - np.trace(products)) / (len(part) * (len(part) - 1)))
    return float(within[0] + within[1] - 2 * kernel(one, other).mean())


def wasserstein(one: np.ndarray, other: np.ndarray) -> float:
    """Return the 1-D Wasserstein-1 distance of two samples, in the unit of their values.

    It is the area between the two cumulative distributions, which is the mean distance that values must move to turn
    one sample into the other.

    Parameters
    ----------
    one, other : ndarray, (N,) and (M,), float
        Finite values, at least one each; the sizes may differ.
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(one, other))


def roc_auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the probability that a positive scores higher than a negative, ties counted as half.

    This is the area under the receiver operating characteristic: 0.5 for guessing, 1 for a perfect separation.

    Parameters
    ----------
    positive, negative : ndarray, (N,) and (M,), float
        Finite scores, at least one each.

    Raises
    ------
    ValueError
        If a score is not finite, or there are none of either kind.
    """
    from sklearn.metrics import roc_auc_score

    if min(len(positive), len(negative)) == 0:  # which scikit-learn answers with a warning and NaN
        raise ValueError(f"{len(positive)} positive and {len(negative)} negative scores: both kinds are needed")
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    return float(roc_auc_score(labels, np.concatenate([positive, negative])))


def kolmogorov_smirnov(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of two cumulative distributions, 0 (equal) to 1 (disjoint)."""
    both = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(part), both, side="right") / len(part) for part in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def against_floor(
    distance: Distance,
    generated: np.ndarray,
    real: np.ndarray,
    seed: int,
    splits: int = SPLITS,
    centred: bool = False,
    least: int = _MIN_VALUES,
) -> dict[str, Any]:
    """Compare generated with real galaxies, and real with real ones at the same number.

    The real rows are split into halves A and B at random; as many generated rows G are drawn. The distance is that of
    G from A, the floor that of B from A, both averaged over the splits. The percentiles over the splits are the
    interval: half-samples drawn without replacement scatter about as much as the whole sample does (Saigo et al. 2001,
    "A repeated half-sample bootstrap"), and unlike draws with replacement they repeat no image, which would shift a
    distance.

    Parameters
    ----------
    distance : callable
        Of two arrays of equally many rows.
    generated, real : ndarray, (N, ...) and (M, ...)
    seed : int
    splits : int
    centred : bool
        The distance is 0 on average for equal distributions (KID): its floor is the root mean square over the splits.
    least : int
        Fewest rows of a half.

    Returns
    -------
    dict
        ``value``, ``interval``, ``floor``, ``floor_interval``, ``multiple`` (value / floor, None for a floor of 0) and
        ``images`` of a half; or ``left_out``, a sentence, where there are too few rows.
    """
    half = min(len(real) // 2, len(generated))
    if half < least:
        return {"left_out": too_few(2 * least, len(real), least, len(generated))}
    rng = np.random.default_rng(seed)
    values, floors = np.empty(splits), np.empty(splits)
    for k in range(splits):
        order = rng.permutation(len(real))
        first, second = real[order[:half]], real[order[half : 2 * half]]
        drawn = generated[rng.permutation(len(generated))[:half]]
        values[k], floors[k] = distance(drawn, first), distance(second, first)
    value = float(values.mean())
    floor = float(np.sqrt((floors**2).mean()) if centred else floors.mean())
    return {
        "value": value,
        "interval": np.percentile(values, _INTERVAL).tolist(),
        "floor": floor,
        "floor_interval": np.percentile(floors, _INTERVAL).tolist(),
        "multiple": value / floor if floor > 0 else None,
        "images": half,
    }


def too_few(real_least: int, real: int, generated_least: int, generated: int) -> str:
    """Say what is needed and what there is, for a statistic that is left out."""
    return (
        f"needs {real_least} values of the reference and {generated_least} of the other set, has {real} and {generated}"
    )


def compare_values(generated: np.ndarray, real: np.ndarray, seed: int, splits: int = 20) -> dict[str, Any]:
    """Compare the distributions of one statistic.

    Parameters
    ----------
    generated, real : ndarray, (N,) and (M,), float
        NaN where unknown, which is left out.

    Returns
    -------
    dict
        ``w1``, Wasserstein-1 over the standard deviation of the real values, and ``ks``, each as in `against_floor`,
        ``w1`` with ``whole``, the distance of all generated from all real values, which chance lifts the least;
        ``shift``, the difference of the medians over that standard deviation; or ``left_out``.
    """
    generated, real = (values[np.isfinite(values)] for values in (generated, real))
    if len(real) < 2 * _MIN_VALUES or len(generated) < _MIN_VALUES:
        return {"left_out": too_few(2 * _MIN_VALUES, len(real), _MIN_VALUES, len(generated))}
    scale = float(real.std())
    if scale <= 1e-12 * np.abs(real).max():
        return {"left_out": "the values of the reference are all equal"}
    w1 = against_floor(lambda a, b: wasserstein(a, b) / scale, generated, real, seed, splits)
    return {
        "w1": w1 | {"whole": wasserstein(generated, real) / scale},
        "ks": against_floor(kolmogorov_smirnov, generated, real, seed, splits),
        "shift": float(np.median(generated) - np.median(real)) / scale,
    }


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray], count: int, seed: int, resamples: int = 400
) -> list[Any]:
    """Return the 95 % percentile interval of a statistic under resampling with replacement (Efron 1979).

    Parameters
    ----------
    statistic : callable
        Takes row numbers, (resamples, count) int64, and returns one value, or one row of values, for each resample.
    count : int
        Number of rows in the sample.
    seed : int

    Returns
    -------
    list
        [low, high], of lists where the statistic returns rows.
    """
    rows = np.random.default_rng(seed).integers(0, count, (resamples, count))
    return np.nanpercentile(statistic(rows), _INTERVAL, axis=0).tolist()


def accuracy_interval(correct: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the mean of true and false values (N,), its 95 % bootstrap interval and N."""
    if len(correct) == 0:
        return {"left_out": "no image"}
    values = np.asarray(correct, dtype=np.float64)
    interval = bootstrap_interval(lambda rows: values[rows].mean(1), len(values), seed)
    return {"value": float(values.mean()), "interval": interval, "images": len(values)}


def finite_or_none(value: float) -> float | None:
    """Return the value, or None where it is not finite, for JSON has no such number."""
    return float(value) if math.isfinite(value) else None


def _check_features(one: np.ndarray, other: np.ndarray) -> None:
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"features must be (N, D) and (M, D), not {one.shape} and {other.shape}")
    if min(len(one), len(other)) < 2:
        raise ValueError(f"features need at least two rows, not {len(one)} and {len(other)}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("features must be finite")
