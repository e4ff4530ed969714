"""Classifiers that tell mock galaxies from real ones: one sees the pixels, the other only a table of statistics.

Both learn from two thirds of the objects and are tested on the others, with equally many real and mock galaxies of
each class on both sides. `realism.py` runs them and prints what they find.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import BANDS, MORPHOLOGY_NAMES
from galaxies.compute.engine import Engine
from galaxies.images.resampling import dihedral
from galaxies.validation.classifier_training import linear_decay, train_classifier
from galaxies.validation.distances import roc_auc

_MIN_PAIRS = 5  # a class with fewer pairs to test on is left out
_BATCH = 64
_SHUFFLES = 10  # of each statistic, whose losses are averaged
_RIDGE = 3.0  # penalty on squared weights; keeps separable samples from running off
_NEWTON_STEPS = 20


@dataclass(frozen=True)
class Pairs:
    """Rows of the two samples that are trained on and tested with, equally many of either sample in each class.

    Attributes
    ----------
    train, test : list of (mock rows, real rows), one a class
        Row numbers of equal length, (n,) int64 each.
    """

    train: list[tuple[np.ndarray, np.ndarray]]
    test: list[tuple[np.ndarray, np.ndarray]]


def pair_up(
    mock_ids: Sequence[str], mock_classes: np.ndarray, real_ids: Sequence[str], real_classes: np.ndarray, seed: int
) -> Pairs:
    """Split both samples by object and pair them class by class, at random; what is left over is not used.

    The object's id decides its side, so that one that is in a sample twice, or in both, never is on both sides.
    """
    rng = np.random.default_rng(seed)
    sides: list[list[tuple[np.ndarray, np.ndarray]]] = []
    is_test = [np.array([_is_test(object_id, seed) for object_id in ids], dtype=bool) for ids in (mock_ids, real_ids)]
    for wanted in (False, True):
        pairs = []
        for index in range(len(MORPHOLOGY_NAMES)):
            rows = [
                rng.permutation(np.flatnonzero((classes == index) & (tested == wanted)))
                for classes, tested in zip((mock_classes, real_classes), is_test, strict=True)
            ]
            count = min(map(len, rows))
            pairs.append((rows[0][:count], rows[1][:count]))
        sides.append(pairs)
    return Pairs(*sides)


def halves(ids: Sequence[str], classes: np.ndarray, seed: int) -> Pairs:
    """Pair one sample with itself: in each class a random half plays the mock. No classifier can tell them apart."""
    rng = np.random.default_rng(seed)
    plays_mock = np.zeros(len(classes), dtype=bool)
    for index in range(len(MORPHOLOGY_NAMES)):
        rows = rng.permutation(np.flatnonzero(classes == index))
        plays_mock[rows[: len(rows) // 2]] = True
    return pair_up(ids, np.where(plays_mock, classes, -1), ids, np.where(plays_mock, -1, classes), seed)


def _is_test(object_id: str, seed: int) -> bool:
    return int.from_bytes(hashlib.sha256(f"{seed}/{object_id}".encode()).digest()[:8], "big") % 3 == 0


def rate(mock_scores: np.ndarray, real_scores: np.ndarray) -> dict[str, float]:
    """Return how well scores, above 0 for a mock galaxy, tell mock from real.

    Returns
    -------
    dict of str to float
        ``pairs``; ``accuracy``, 0.5 for guessing, with its binomial ``standard_error``; ``auc``.
    """
    accuracy = float(((mock_scores > 0).mean() + (real_scores <= 0).mean()) / 2)
    return {
        "pairs": len(mock_scores),
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / (len(mock_scores) + len(real_scores))),
        "auc": roc_auc(mock_scores, real_scores),
    }


def _groups(side: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, list[int]]:
    """Return the classes that have enough pairs, each by itself and all of them together, by name."""
    enough = [index for index, (rows, _) in enumerate(side) if len(rows) >= _MIN_PAIRS]
    return {MORPHOLOGY_NAMES[index]: [index] for index in enough} | ({"all": enough} if enough else {})


class RealOrMock(nn.Module):
    """Four convolutions, the average over the frame and one logit, above 0 for a mock galaxy.

    The first convolution keeps 64 pixels a side of larger images, the others halve it down to 8.
    """

    def __init__(self, image_size: int, width: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c_in = len(BANDS)
        for c_out, stride in ((width, image_size // 64), (2 * width, 2), (4 * width, 2), (4 * width, 2)):
            layers += [nn.Conv2d(c_in, c_out, 3, stride, 1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2, inplace=True)]
            c_in = c_out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classify = nn.Linear(c_in, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N,) of images (N, 3, S, S), uint8."""
        # The square root lifts the faint sky and its noise, where much of the evidence is.
        return self.classify(self.features((images.float() / 255).sqrt() * 2 - 1))[:, 0]


def judge_images(
    mock_images: np.ndarray,
    real_images: np.ndarray,
    pairs: Pairs,
    steps: int,
    seed: int,
    engine: Engine,
    title: str,
) -> dict[str, dict[str, float]]:
    """Train `RealOrMock` and return its `rate` on the test pairs of each class and of all together.

    Parameters
    ----------
    mock_images, real_images : ndarray, (N, 3, S, S) and (M, 3, S, S), uint8
    pairs : Pairs
    steps : int
        Batches of 64, each with all classes, mock and real equally often, in random flips and quarter turns.
    seed : int
    engine : Engine
    title : str
        Beside the progress bar.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.ones(_BATCH // 2), torch.zeros(_BATCH // 2)]).to(engine.device)

    def build() -> RealOrMock:
        network = RealOrMock(mock_images.shape[-1])
        engine.prepare(network)
        return network

    def draw_loss(network: RealOrMock) -> Tensor:
        images = torch.cat([_draw(mock_images, pairs, 0, generator), _draw(real_images, pairs, 1, generator)])
        turns = torch.randint(0, 8, (_BATCH,), generator=generator)
        return F.binary_cross_entropy_with_logits(_logits(network, dihedral(images, turns), engine), labels)

    network = train_classifier(
        build,
        draw_loss,
        steps,
        seed,
        weight_decay=1e-3,
        schedule=linear_decay,
        title=title,
    ).network
    results = {}
    for name, members in _groups(pairs.test).items():
        mock, real = (np.concatenate([pairs.test[index][place] for index in members]) for place in (0, 1))
        results[name] = rate(_scores(network, mock_images[mock], engine), _scores(network, real_images[real], engine))
    return results


def _draw(images: np.ndarray, pairs: Pairs, place: int, generator: torch.Generator) -> Tensor:
    """Draw half a batch from one sample, the classes in turn."""
    present = [rows[place] for rows in pairs.train if len(rows[place])]
    chosen = []
    for k in range(_BATCH // 2):
        rows = present[k % len(present)]
        chosen.append(int(rows[torch.randint(len(rows), (1,), generator=generator)]))
    return torch.from_numpy(images[chosen])


def _logits(network: RealOrMock, images: Tensor, engine: Engine) -> Tensor:
    with engine.autocast():
        logits = network(images.to(engine.device, memory_format=torch.channels_last))
    return logits.float()


@torch.inference_mode()
def _scores(network: RealOrMock, images: np.ndarray, engine: Engine) -> np.ndarray:
    blocks = torch.from_numpy(images).split(256)
    return torch.cat([_logits(network, block, engine).cpu() for block in blocks]).double().numpy()


def judge_statistics(
    mock: Mapping[str, np.ndarray], real: Mapping[str, np.ndarray], real_classes: np.ndarray, pairs: Pairs, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Tell mock from real by their statistics alone, with one logistic regression a class and one for all.

    Statistics are counted in standard deviations from the mean of the real galaxies of the class; their squares are
    given as well, so that a spread that is too small tells. Unknown values count as the mean.

    Parameters
    ----------
    mock, real : mapping of str to ndarray, (N,) and (M,)
        Values of each statistic, NaN where unknown.
    real_classes : ndarray, (M,), int64
    pairs : Pairs
    seed : int

    Returns
    -------
    rates : dict of str to dict
        The `rate` on the test pairs of each class and of all together.
    telling : dict of str to dict of str to float
        For the same groups, what the test AUC loses when one statistic's values are shuffled among the galaxies,
        largest first.
    """
    names = list(real)
    tables = tuple(np.stack([sample[name] for name in names], 1) for sample in (mock, real))
    known = [tables[1][real_classes == index] for index in range(len(MORPHOLOGY_NAMES))]

    def features_of(side: list[tuple[np.ndarray, np.ndarray]], members: list[int]) -> list[np.ndarray]:
        return [
            np.concatenate([_features(table[side[index][place]], known[index]) for index in members])
            for place, table in enumerate(tables)
        ]

    rng = np.random.default_rng(seed)
    rates, telling = {}, {}
    for group, members in _groups(pairs.test).items():
        weights = _fit_logistic(*features_of(pairs.train, members))
        test_mock, test_real = features_of(pairs.test, members)
        rates[group] = rate(_with_constant(test_mock) @ weights, _with_constant(test_real) @ weights)
        losses = {}
        for place, name in enumerate(names):
            aucs = []
            for _ in range(_SHUFFLES):
                both = np.concatenate([test_mock, test_real])
                columns = [place, place + len(names)]  # the value and its square
                both[:, columns] = both[rng.permutation(len(both))][:, columns]
                scores = _with_constant(both) @ weights
                aucs.append(roc_auc(scores[: len(test_mock)], scores[len(test_mock) :]))
            losses[name] = rates[group]["auc"] - float(np.mean(aucs))
        telling[group] = dict(sorted(losses.items(), key=lambda item: -item[1]))
    return rates, telling


def _features(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return standardised values and their squares, (N, 2 x statistics)."""
    known = np.isfinite(reference)
    counts = known.sum(0).clip(1)
    mean = np.where(known, reference, 0).sum(0) / counts
    spread = np.sqrt((np.where(known, reference - mean, 0) ** 2).sum(0) / counts)
    standard = np.where(np.isfinite(values), (values - mean) / np.where(spread > 0, spread, 1), 0)
    standard = standard.clip(-5, 5)  # one wild value must not bend the fit
    return np.concatenate([standard, standard**2 - 1], 1)


def _with_constant(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1))], 1)


def _fit_logistic(mock: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Fit a ridge-penalised logistic regression by Newton's method; the last weight is the constant."""
    features = _with_constant(np.concatenate([mock, real]))
    labels = np.concatenate([np.ones(len(mock)), np.zeros(len(real))])
    penalty = np.full(features.shape[1], _RIDGE)
    weights = np.zeros(features.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(features @ weights).clip(-30, 30)))
        gradient = features.T @ (chance - labels) + penalty * weights
        curvature = (features.T * (chance * (1 - chance))) @ features + np.diag(penalty)
        weights = weights - np.linalg.solve(curvature, gradient)
    return weights
