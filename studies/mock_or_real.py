"""How mock and real galaxies are paired for classifiers, and one that sees only a table of statistics.

Two thirds of the objects are learned from and the others tested on, with equally many real and mock galaxies of each
class on both sides. `realism.py` runs it beside the network of `galaxies.validation.real_or_generated` and prints what
both find.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from config_physics import MORPHOLOGY_NAMES
from galaxies.validation.distances import roc_auc
from galaxies.validation.real_or_generated import Pairs, groups_with_pairs, rate

_SHUFFLES = 10  # of each statistic, whose losses are averaged
_RIDGE = 3.0  # penalty on half the squared weights; keeps separable samples from running off


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


def tell_apart_by_statistics(
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
    from sklearn.linear_model import LogisticRegression

    names = list(real)
    tables = tuple(np.stack([sample[name] for name in names], 1) for sample in (mock, real))
    known = [tables[1][real_classes == index] for index in range(len(MORPHOLOGY_NAMES))]

    def features_of(side: list[tuple[np.ndarray, np.ndarray]], members: list[int]) -> list[np.ndarray]:
        return [
            np.concatenate([_features(table[side[index][place]], known[index]) for index in members])
            for place, table in enumerate(tables)
        ]

    rng = np.random.default_rng(seed)
    rates: dict[str, dict[str, float]] = {}
    telling: dict[str, dict[str, float]] = {}
    for group, members in groups_with_pairs(pairs.test).items():
        learned = features_of(pairs.train, members)
        # The constant is a column of the features: it is penalised like the others.
        model = LogisticRegression(C=1 / _RIDGE, fit_intercept=False, solver="newton-cholesky", tol=1e-8)
        model.fit(np.concatenate(learned), np.repeat([1, 0], [len(part) for part in learned]))
        test_mock, test_real = features_of(pairs.test, members)
        rates[group] = rate(model.decision_function(test_mock), model.decision_function(test_real))
        losses = {}
        for place, name in enumerate(names):
            aucs = []
            for _ in range(_SHUFFLES):
                both = np.concatenate([test_mock, test_real])
                columns = [place, place + len(names)]  # the value and its square
                both[:, columns] = both[rng.permutation(len(both))][:, columns]
                scores = model.decision_function(both)
                aucs.append(roc_auc(scores[: len(test_mock)], scores[len(test_mock) :]))
            losses[name] = rates[group]["auc"] - float(np.mean(aucs))
        telling[group] = dict(sorted(losses.items(), key=lambda item: -item[1]))
    return rates, telling


def _features(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return standardised values, their squares and a constant, (N, 2 x statistics + 1)."""
    known = np.isfinite(reference)
    counts = known.sum(0).clip(1)
    mean = np.where(known, reference, 0).sum(0) / counts
    spread = np.sqrt((np.where(known, reference - mean, 0) ** 2).sum(0) / counts)
    standard = np.where(np.isfinite(values), (values - mean) / np.where(spread > 0, spread, 1), 0)
    standard = standard.clip(-5, 5)  # one wild value must not bend the fit
    return np.concatenate([standard, standard**2 - 1, np.ones((len(standard), 1))], 1)
