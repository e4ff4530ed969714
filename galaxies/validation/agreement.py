"""Requested against measured: do the galaxies have the attributes and the class that were asked for?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from config_physics import MORPHOLOGIES, MORPHOLOGY_NAMES
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.validation.distances import accuracy_interval, bootstrap_interval, finite_or_none

TERMS = ("mae", "bias", "r2", "spearman")
_BLOCK = 128  # images drawn at a time
_MIN_PAIRS = 20
_RESAMPLES = 200
_SHUFFLES = 200


def generate_all(sampler: GalaxySampler, requests: Requests, title: str) -> Tensor:
    """Generate an image for each request, (N, 3, S, S) uint8."""
    from tqdm import tqdm

    blocks = tqdm(requests.blocks(_BLOCK), title, -(-len(requests) // _BLOCK), unit=" blocks", leave=False)
    return torch.cat([sampler.generate(block.classes, block.values, block.seeds) for block in blocks])


def unsupported_share(sampler: GalaxySampler, requests: Requests) -> float:
    """Return the share of requests with a value outside what the training data support for the class."""
    return float((~sampler.supports(requests.classes, requests.values)).double().mean())


def agreement_terms(requested: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Compare pairs along the last axis, (..., N) each, and return (..., 4) in the order of `TERMS`.

    Mean absolute error; bias, the mean of measured less requested; R², one minus the mean squared error over the
    variance of the requests, which is 0 for a generator that always draws the mean and negative for a worse one; and
    Spearman's rank correlation, ties sharing their mean rank. The last two are NaN where a side is constant.
    """
    from scipy.stats import rankdata

    error = measured - requested
    spread = requested.var(-1)
    ranks = [rankdata(side, axis=-1) - (side.shape[-1] + 1) / 2 for side in (requested, measured)]
    scales = np.sqrt((ranks[0] ** 2).sum(-1) * (ranks[1] ** 2).sum(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(spread > 0, 1 - (error**2).mean(-1) / spread, np.nan)
        spearman = np.where(scales > 0, (ranks[0] * ranks[1]).sum(-1) / scales, np.nan)
    return np.stack([np.abs(error).mean(-1), error.mean(-1), r2, spearman], -1)


def agreement(requested: np.ndarray, measured: np.ndarray, seed: int) -> dict[str, Any]:
    """Compare requested with measured values of one attribute.

    Parameters
    ----------
    requested, measured : ndarray, (N,), physical units
        Pairs with a NaN are left out.

    Returns
    -------
    dict
        ``pairs``, ``mean_requested``, ``mean_squared_error``, and for each of `TERMS` its ``value`` and bootstrap
        ``interval``; or ``left_out``, a sentence.
    """
    known = np.isfinite(requested) & np.isfinite(measured)
    requested, measured = requested[known], measured[known]
    if len(requested) < _MIN_PAIRS:
        return {"left_out": f"needs {_MIN_PAIRS} pairs of values, has {len(requested)}"}
    values = agreement_terms(requested, measured)
    low, high = bootstrap_interval(
        lambda rows: np.nan_to_num(agreement_terms(requested[rows], measured[rows])), len(requested), seed, _RESAMPLES
    )
    plain = {
        "pairs": len(requested),
        "mean_requested": float(requested.mean()),
        "mean_squared_error": float(np.square(measured - requested).mean()),
    }
    return plain | {
        term: {"value": finite_or_none(value), "interval": [below, above]}
        for term, value, below, above in zip(TERMS, values.tolist(), low, high, strict=True)
    }


def agreement_by_class(requested: np.ndarray, measured: np.ndarray, classes: np.ndarray, seed: int) -> dict[str, Any]:
    """Return `agreement` of all galaxies together and of each class."""
    groups = {"all": np.ones(len(classes), dtype=bool)}
    groups |= {name: classes == index for index, name in enumerate(MORPHOLOGY_NAMES)}
    return {name: agreement(requested[rows], measured[rows], seed) for name, rows in groups.items()}


def shuffled_control(requested: np.ndarray, measured: np.ndarray, seed: int) -> dict[str, Any]:
    """Deal the requests out anew, at random: a comparison that measures control must find none.

    Returns
    -------
    dict
        ``spearman`` and ``r2``, means over the shuffles; ``spearman_range``, their central 95 %; ``observed``,
        Spearman of the true pairs; ``no_skill``, whether the mean shuffled correlation is 0 within three standard
        errors and R² not above 0; or ``left_out``.
    """
    known = np.isfinite(requested) & np.isfinite(measured)
    requested, measured = requested[known], measured[known]
    if len(requested) < _MIN_PAIRS:
        return {"left_out": f"needs {_MIN_PAIRS} pairs of values, has {len(requested)}"}
    rng = np.random.default_rng([seed, 3])
    shuffled = rng.permuted(np.tile(requested, (_SHUFFLES, 1)), axis=1)
    terms = agreement_terms(shuffled, np.tile(measured, (_SHUFFLES, 1)))
    r2, spearman = terms[:, 2], terms[:, 3]
    if not np.isfinite(spearman).all():
        return {"left_out": "the requested or the measured values are all equal"}
    standard_error = float(spearman.std()) / _SHUFFLES**0.5
    return {
        "spearman": float(spearman.mean()),
        "spearman_range": np.percentile(spearman, (2.5, 97.5)).tolist(),
        "r2": float(r2.mean()),
        "observed": float(agreement_terms(requested, measured)[3]),
        "no_skill": bool(abs(spearman.mean()) <= 3 * standard_error and r2.mean() <= 0),
    }


def class_accuracy(probabilities: Tensor, classes: np.ndarray, seed: int) -> dict[str, Any]:
    """Compare the judge's most likely class with the true or requested one.

    Returns
    -------
    dict
        ``all``, ``balanced`` (mean over the classes) and one entry a class: accuracies with bootstrap intervals;
        ``confusion``: rows of the true class, columns of the judged one, as shares of the row.
    """
    judged = probabilities.argmax(1).numpy()
    correct = judged == classes
    report = {"all": accuracy_interval(correct, seed)}
    report |= {name: accuracy_interval(correct[classes == i], seed) for i, name in enumerate(MORPHOLOGY_NAMES)}
    values = [report[name]["value"] for name in MORPHOLOGY_NAMES if "value" in report[name]]
    report["balanced"] = {"value": float(np.mean(values)), "images": len(classes)}
    counts = np.zeros((len(MORPHOLOGIES), len(MORPHOLOGIES)))
    np.add.at(counts, (classes, judged), 1)
    report["confusion"] = (counts / counts.sum(1, keepdims=True).clip(1)).tolist()
    return report


def gaming_gap(
    requested: np.ndarray, judged: np.ndarray, predicted: np.ndarray, real: dict[str, np.ndarray]
) -> dict[str, Any]:
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
        return {"left_out": f"needs {_MIN_PAIRS} requested values, has {int(np.isfinite(requested).sum())}"}
    report = {"judge_mae": generated[0], "predictor_mae": generated[1]}
    report["ratio"] = finite_or_none(generated[0] / generated[1]) if generated[1] > 0 else None
    if (on_real := errors(real["truth"], real["judged"], real["predicted"])) is not None:
        report |= {"real_judge_mae": on_real[0], "real_predictor_mae": on_real[1]}
        report["real_ratio"] = on_real[0] / on_real[1] if on_real[1] > 0 else None
    return report
