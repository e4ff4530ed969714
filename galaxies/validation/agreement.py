"""Requested against measured: do the galaxies have the attributes and the class that were asked for?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from config_physics import MORPHOLOGY_NAMES
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.validation.distances import accuracy_interval, bootstrap_interval, finite_or_none
from galaxies.validation.report.cells import ALL, Estimate, LeftOut, Share, cell_of
from galaxies.validation.report.control import Agreement, Balanced, ClassAccuracy, GamingGap, Groups, Shuffled

TERMS = ("mae", "bias", "r2", "spearman")
_BLOCK = 128  # images drawn at a time
_MIN_PAIRS = 20
_RESAMPLES = 200
_SHUFFLES = 200

Scale = Callable[[np.ndarray], np.ndarray]  # see `Attribute.steps_of`


def _as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def generate_all(sampler: GalaxySampler, requests: Requests, title: str) -> Tensor:
    """Generate an image for each request, (N, B, S, S), uint8 or flux, nJy a pixel."""
    from tqdm import tqdm

    blocks = tqdm(requests.blocks(_BLOCK), title, -(-len(requests) // _BLOCK), unit=" blocks", leave=False)
    return torch.cat([sampler.generate(b.classes, b.values, b.seeds, shares=b.shares) for b in blocks])


def unsupported_share(sampler: GalaxySampler, requests: Requests) -> float:
    """Return the share of requests with a value that by itself is outside what is supported for the class."""
    return float((~sampler.is_within_ranges(requests.classes, requests.values)).double().mean())


def agreement_terms(requested: np.ndarray, measured: np.ndarray, scale: Scale = _as_it_is) -> np.ndarray:
    """Compare pairs along the last axis, (..., N) each, and return (..., 4) in the order of `TERMS`.

    Mean absolute error; bias, the mean of measured less requested; R², one minus the mean squared error over the
    variance of the requests, which is 0 for a generator that always draws the mean and negative for a worse one; and
    Spearman's rank correlation, ties sharing their mean rank. The last two are NaN where a side is constant. R² is that
    on a `scale`, such as a logarithm, on which values span decades alike.
    """
    from scipy.stats import rankdata

    error = measured - requested
    squared, spread = np.square(scale(measured) - scale(requested)), scale(requested).var(-1)
    ranks = [rankdata(side, axis=-1) - (side.shape[-1] + 1) / 2 for side in (requested, measured)]
    scales = np.sqrt((ranks[0] ** 2).sum(-1) * (ranks[1] ** 2).sum(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1 - squared.mean(-1) / spread, np.nan)
        spearman = np.where(scales > 0, (ranks[0] * ranks[1]).sum(-1) / scales, np.nan)
    return np.stack([np.abs(error).mean(-1), error.mean(-1), r2, spearman], -1)


def agreement(requested: np.ndarray, measured: np.ndarray, seed: int, scale: Scale = _as_it_is) -> Agreement | LeftOut:
    """Compare requested with measured values of one attribute.

    Parameters
    ----------
    requested, measured : ndarray, (N,), physical units
        Pairs with a NaN are left out.
    seed : int
    scale : callable
        On which R² and the mean squared error are told.
    """
    known = np.isfinite(requested) & np.isfinite(measured)
    requested, measured = requested[known], measured[known]
    if len(requested) < _MIN_PAIRS:
        return LeftOut(f"needs {_MIN_PAIRS} pairs of values, has {len(requested)}")
    values = agreement_terms(requested, measured, scale)
    low, high = bootstrap_interval(
        lambda rows: np.nan_to_num(agreement_terms(requested[rows], measured[rows], scale)),
        len(requested),
        seed,
        _RESAMPLES,
    )
    terms = {
        term: Estimate(finite_or_none(value), (below, above))
        for term, value, below, above in zip(TERMS, values.tolist(), low, high, strict=True)
    }
    squared = float(np.square(scale(measured) - scale(requested)).mean())
    return Agreement(len(requested), float(requested.mean()), squared, **terms)


def agreement_by_class(
    requested: np.ndarray,
    measured: np.ndarray,
    classes: np.ndarray,
    seed: int,
    names: Sequence[str] = MORPHOLOGY_NAMES,
    scale: Scale = _as_it_is,
) -> Groups:
    """Return `agreement` of all galaxies together and of each class, by their names."""
    groups = {ALL: np.ones(len(classes), dtype=bool)}
    groups |= {name: classes == index for index, name in enumerate(names)}
    return {name: agreement(requested[rows], measured[rows], seed, scale) for name, rows in groups.items()}


def agreement_of_shares(
    requested: np.ndarray, judged: np.ndarray, seed: int, names: Sequence[str] = MORPHOLOGY_NAMES
) -> dict[str, Agreement | LeftOut]:
    """Return `agreement` of each class's shares, requested (or true) and judged, (N, classes) each, by its name."""
    pairs = zip(names, requested.T, judged.T, strict=True)
    return {name: agreement(asked.astype(float), found.astype(float), seed) for name, asked, found in pairs}


def shuffled_control(
    requested: np.ndarray, measured: np.ndarray, seed: int, scale: Scale = _as_it_is
) -> Shuffled | LeftOut:
    """Deal the requests out anew, at random: a comparison that measures control must find none.

    Returns
    -------
    Shuffled or LeftOut
        `spearman` and `r2`, means over the shuffles; `spearman_range`, their central 95 %; `observed`, Spearman of the
        true pairs; `no_skill`, whether the mean shuffled correlation is 0 within three standard errors and R² not
        above 0.
    """
    known = np.isfinite(requested) & np.isfinite(measured)
    requested, measured = requested[known], measured[known]
    if len(requested) < _MIN_PAIRS:
        return LeftOut(f"needs {_MIN_PAIRS} pairs of values, has {len(requested)}")
    rng = np.random.default_rng([seed, 3])
    shuffled = rng.permuted(np.tile(requested, (_SHUFFLES, 1)), axis=1)
    terms = agreement_terms(shuffled, np.tile(measured, (_SHUFFLES, 1)), scale)
    r2, spearman = terms[:, 2], terms[:, 3]
    if not np.isfinite(spearman).all():
        return LeftOut("the requested or the measured values are all equal")
    standard_error = float(spearman.std()) / _SHUFFLES**0.5
    low, high = np.percentile(spearman, (2.5, 97.5)).tolist()
    return Shuffled(
        spearman=float(spearman.mean()),
        spearman_range=(low, high),
        r2=float(r2.mean()),
        observed=float(agreement_terms(requested, measured)[3]),
        no_skill=bool(abs(spearman.mean()) <= 3 * standard_error and r2.mean() <= 0),
    )


def class_accuracy(
    probabilities: Tensor, classes: np.ndarray, seed: int, names: Sequence[str] = MORPHOLOGY_NAMES
) -> ClassAccuracy:
    """Compare the judge's most likely class, of probabilities (N, classes), with the true or requested one (N,)."""
    judged = probabilities.argmax(1).numpy()
    correct = judged == classes
    groups = {ALL: correct} | {name: correct[classes == i] for i, name in enumerate(names)}
    shares = {name: cell_of(Share, accuracy_interval(right, seed)) for name, right in groups.items()}
    values = [cell.value for name, cell in shares.items() if name != ALL and isinstance(cell, Share)]
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (classes, judged), 1)
    confusion = (counts / counts.sum(1, keepdims=True).clip(1)).tolist()
    return ClassAccuracy(Balanced(float(np.mean(values)), len(classes)), shares, confusion)


def gaming_gap(
    requested: np.ndarray, judged: np.ndarray, predicted: np.ndarray, real: dict[str, np.ndarray]
) -> GamingGap | LeftOut:
    """Return how much larger the judge's error is than that of the predictor that the generator was trained to please.

    Near the ratio on real galaxies, the generator draws what both see; far above it, it draws what only its own
    predictor sees.

    Parameters
    ----------
    requested, judged, predicted : ndarray, (N,)
        On generated images, physical units.
    real : dict of str to ndarray, (M,)
        ``truth``, ``judged`` and ``predicted`` on real test images.
    """

    def errors(truth: np.ndarray, *readings: np.ndarray) -> list[float] | None:
        known = np.isfinite(truth)
        if known.sum() < _MIN_PAIRS:
            return None
        return [float(np.abs(reading[known] - truth[known]).mean()) for reading in readings]

    generated = errors(requested, judged, predicted)
    if generated is None:
        return LeftOut(f"needs {_MIN_PAIRS} requested values, has {int(np.isfinite(requested).sum())}")
    ratio = finite_or_none(generated[0] / generated[1]) if generated[1] > 0 else None
    on_real = errors(real["truth"], real["judged"], real["predicted"])
    if on_real is None:
        return GamingGap(generated[0], generated[1], ratio)
    real_ratio = on_real[0] / on_real[1] if on_real[1] > 0 else None
    return GamingGap(generated[0], generated[1], ratio, on_real[0], on_real[1], real_ratio)
