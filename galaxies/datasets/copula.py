"""Classes and attributes drawn together: of each class a Gaussian copula with the marginals of its real galaxies.

What real galaxies have is drawn without drawing the same galaxies again: which class, and which attributes are known,
are those of a real galaxy that a lot chooses; the values are new ones, each attribute distributed as in the class, and
together correlated as there. Galaxies that know the same attributes, such as those with a redshift, are often of a kind
of their own, and where there are enough of them they are fitted by themselves. Draw i is a function of the population
and of its seed alone.

References
----------
Nelsen 2006, "An introduction to copulas", section 2.3 (Sklar's theorem) and 4; Cario & Nelson 1997, "Modeling and
generating random vectors with arbitrary marginal distributions and correlation matrix" (the correlation behind steps);
Dempster, Laird & Rubin 1977 (expectation and maximisation where values are missing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from galaxies.common.errors import UserError
from galaxies.compute.seeded_noise import JOINT, random_words, standard_normal
from galaxies.datasets.population import Population

_STEPPED = 0.5  # a column with fewer different values than this part of the known ones is one of steps
_RIDGE = 1e-6  # of the unit matrix in a correlation matrix, which is then of full rank
_MOST_ROUNDS, _SETTLED = 500, 1e-7  # of expectation and maximisation, and when it has come to rest
_TRIALS, _CORRECTIONS = 20_000, 20  # draws, and rounds, that find the correlation behind steps
_OWN_FIT = 100  # galaxies of a class that know the same attributes have a copula of their own from this number on
_MOST_DRAWS = 32  # before a real galaxy's own values stand in


@dataclass(frozen=True)
class Marginal:
    """The distribution of one attribute over the real galaxies of a class that know it.

    Attributes
    ----------
    values : ndarray, (K,), float64
        Ascending, physical units; of a column of steps, such as a number of arms, each once.
    scores : ndarray, (K,), float64
        The standard normal number that stands for each value.
    bounds : ndarray, (K - 1,), float64, or None
        Of a column of steps: the normal numbers at which one value passes into the next.
    """

    values: np.ndarray
    scores: np.ndarray
    bounds: np.ndarray | None

    @classmethod
    def of(cls, known: np.ndarray) -> Marginal:
        """Take the known values (K,), at least one, of a class."""
        known = np.sort(known.astype(np.float64))
        levels, counts = np.unique(known, return_counts=True)
        below = np.cumsum(counts) - counts
        if len(levels) < max(2, _STEPPED * len(known)):
            return cls(levels, _ndtri((below + 0.5 * counts) / len(known)), _ndtri(below[1:] / len(known)))
        return cls(known, _ndtri((np.arange(len(known)) + 0.5) / len(known)), None)

    def scores_of(self, values: np.ndarray) -> np.ndarray:
        """Return the normal numbers (N,) of values (N,) that are all among those of the class; of equal ones the mean.

        NaN stays.
        """
        scores = np.full(len(values), np.nan)
        there = np.isfinite(values)
        first, last = (np.searchsorted(self.values, values[there], side) for side in ("left", "right"))
        summed = np.concatenate([[0.0], np.cumsum(self.scores)])
        scores[there] = (summed[last] - summed[first]) / (last - first)
        return scores

    def values_at(self, scores: np.ndarray) -> np.ndarray:
        """Return the values (N,) at normal numbers (N,), between real galaxies' values but in a column of steps."""
        if self.bounds is not None:
            return self.values[np.searchsorted(self.bounds, scores, "right")]
        return np.interp(scores, self.scores, self.values)


@dataclass(frozen=True)
class GaussianCopula:
    """The attributes of one class together.

    Attributes
    ----------
    marginals : sequence of Marginal or None, A
        None where no galaxy of the class knows the attribute.
    correlation : ndarray, (A, A), float64
        Of the normal numbers behind the attributes.
    """

    marginals: Sequence[Marginal | None]
    correlation: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> GaussianCopula:
        """Fit the galaxies of a class.

        Unknown values count as missing at random: the correlation is the most likely one of all that is known.

        Parameters
        ----------
        values : ndarray, (K, A)
            Physical units, NaN where unknown.
        """
        values = np.asarray(values, np.float64)
        marginals = [
            Marginal.of(column[known]) if (known := np.isfinite(column)).any() else None for column in values.T
        ]
        columns = [
            np.full(len(values), np.nan) if marginal is None else marginal.scores_of(column)
            for marginal, column in zip(marginals, values.T, strict=True)
        ]
        wanted = correlation_of(np.stack(columns, 1))
        if any(marginal is not None and marginal.bounds is not None for marginal in marginals):
            return cls(marginals, _behind_steps(wanted, marginals))
        return cls(marginals, wanted)

    @cached_property
    def _factor(self) -> np.ndarray:
        return np.linalg.cholesky(self.correlation)

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """Turn independent standard normal numbers (N, A) into attributes (N, A), NaN where none is known."""
        drawn = np.full(numbers.shape, np.nan)
        for place, marginal in enumerate(self.marginals):
            if marginal is None:
                continue
            # One after the other: a product of matrices rounds differently with the number of rows.
            score = np.zeros(len(numbers))
            for column in range(place + 1):
                score += self._factor[place, column] * numbers[:, column]
            drawn[:, place] = marginal.values_at(score)
        return drawn


@dataclass(frozen=True)
class JointDistribution:
    """Classes and attributes together, as a population of real galaxies has them.

    Parameters
    ----------
    population : Population
    classes : sequence of str
        Their names.
    only : int, optional
        The one class that is drawn; by default all, in the shares that they have.

    Raises
    ------
    UserError
        If the population has no galaxy (of the class).
    """

    population: Population
    classes: Sequence[str]
    only: int | None = None

    def __post_init__(self) -> None:
        if len(self._rows) == 0:
            what = "galaxy" if self.only is None else f"{self.classes[self.only]} galaxy"
            raise UserError(
                f"the checkpoint knows no real {what}, by which attributes could be drawn together: "
                "leave out --draw copula, or list the galaxies with --requests"
            )

    @cached_property
    def _rows(self) -> Tensor:
        """Which real galaxies are drawn by lot, for their class and what of them is known."""
        if self.only is None:
            return torch.arange(len(self.population.classes))
        return torch.nonzero(self.population.classes == self.only)[:, 0]

    @cached_property
    def _kinds(self) -> tuple[Tensor, list[GaussianCopula]]:
        """Of which kind each real galaxy is, by class and what is known of it, and each kind's copula."""
        known = self.population.values.isfinite()
        told = torch.cat([self.population.classes[:, None], known.long()], 1)
        kinds, kind = told.unique(dim=0, return_inverse=True)
        fits: list[GaussianCopula] = []
        of_class: dict[int, GaussianCopula] = {}
        for number, index in enumerate(kinds[:, 0].tolist()):
            alike = self.population.values[kind == number]
            if len(alike) >= _OWN_FIT:
                fits.append(GaussianCopula.fit(alike.numpy()))
                continue
            if index not in of_class:
                of_class[index] = GaussianCopula.fit(self.population.members(index).numpy())
            fits.append(of_class[index])
        return kind, fits

    def draw(self, seeds: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Draw galaxies, each by its seed alone.

        What is unlike the real galaxies of its class by `Population.support` is drawn again; after 32 times the real
        galaxy that the lot chose stands in with its own values.

        Parameters
        ----------
        seeds : sequence or array of int, N

        Returns
        -------
        classes : Tensor, (N,), int64
        values : Tensor, (N, A), float32
            Physical units, NaN where the galaxy that the lot chose does not know the attribute.
        """
        seeds = np.asarray(seeds, np.int64)
        lots = random_words(seeds, 4, JOINT)[:, 0] * np.uint64(len(self._rows)) >> np.uint64(32)
        real = self._rows[torch.from_numpy(lots.astype(np.int64))]
        classes, values = self.population.classes[real], self.population.values[real].float()
        known, kind = values.isfinite().numpy(), self._kinds[0][real].numpy()
        left = np.arange(len(seeds))
        for attempt in range(1, _MOST_DRAWS + 1):
            if len(left) == 0:
                break
            drawn = self._attempt(kind[left], known[left], seeds[left], attempt)
            like = self.population.support(classes[left], drawn).verdicts == 0
            values[torch.from_numpy(left)[like]] = drawn[like]
            left = left[~like.numpy()]
        return classes, values

    def _attempt(self, kind: np.ndarray, known: np.ndarray, seeds: np.ndarray, attempt: int) -> Tensor:
        drawn = np.empty(known.shape)
        numbers = standard_normal(seeds, known.shape[1], JOINT + attempt).double().numpy()
        for number in np.unique(kind).tolist():
            rows = kind == number
            drawn[rows] = self._kinds[1][number].draw(numbers[rows])
        return torch.from_numpy(np.where(known, drawn, np.nan)).float()


def correlation_of(scores: np.ndarray) -> np.ndarray:
    """Return the most likely correlation matrix of columns with gaps, each normal with the mean 0.

    Parameters
    ----------
    scores : ndarray, (K, A), float64
        NaN where unknown; columns without spread, or without a value, are correlated with nothing.

    Returns
    -------
    ndarray, (A, A), float64
        Positive definite, with ones on its diagonal.
    """
    known = np.isfinite(scores)
    spread = np.sqrt(np.square(np.where(known, scores, 0.0)).sum(0) / np.maximum(1, known.sum(0)))
    usable = spread > 1e-9
    scores = np.where(usable, scores / np.where(usable, spread, 1.0), np.nan)
    patterns, kind = np.unique(np.isfinite(scores), axis=0, return_inverse=True)
    parts = []
    for number, pattern in enumerate(patterns):
        if pattern.any():
            rows = scores[kind.ravel() == number][:, pattern]
            parts.append((pattern, len(rows), rows.T @ rows))
    covariance = np.eye(scores.shape[1])
    for _ in range(_MOST_ROUNDS if parts else 0):
        total = np.sum([_expected(covariance, *part) for part in parts], 0)
        found = total / sum(count for _, count, _ in parts) + _RIDGE * np.eye(len(total))
        settled = np.abs(found - covariance).max() < _SETTLED
        covariance = found
        if settled:
            break
    return _as_correlation(covariance)


def _expected(matrix: np.ndarray, known: np.ndarray, count: int, products: np.ndarray) -> np.ndarray:
    """Return the sum (A, A) of products of columns that is to be expected over rows of which some are unknown.

    Given the covariance matrix (A, A), which columns are known (A,), the rows, and the sum (O, O) over what is known.
    """
    unknown = ~known
    total = np.empty_like(matrix)
    total[np.ix_(known, known)] = products
    slope = np.linalg.solve(matrix[np.ix_(known, known)], matrix[np.ix_(known, unknown)]).T  # (U, O)
    across = slope @ products
    total[np.ix_(unknown, known)], total[np.ix_(known, unknown)] = across, across.T
    left = matrix[np.ix_(unknown, unknown)] - slope @ matrix[np.ix_(known, unknown)]
    total[np.ix_(unknown, unknown)] = across @ slope.T + count * left
    return total


def _as_correlation(matrix: np.ndarray) -> np.ndarray:
    """Return the correlation matrix of a covariance matrix that may just fail to be positive definite."""
    scale = np.sqrt(np.diag(matrix))
    sizes, axes = np.linalg.eigh(matrix / np.outer(scale, scale))
    matrix = (axes * np.maximum(sizes, _RIDGE)) @ axes.T
    scale = np.sqrt(np.diag(matrix))
    return matrix / np.outer(scale, scale)


def _behind_steps(wanted: np.ndarray, marginals: Sequence[Marginal | None]) -> np.ndarray:
    """Return the correlation of normal numbers of which the attributes have the one that is wanted.

    Steps blur: what is drawn is less correlated than the numbers behind it.
    """
    numbers = standard_normal(range(_TRIALS), len(marginals), JOINT).double().numpy()
    numbers -= numbers.mean(0)
    numbers = np.linalg.solve(np.linalg.cholesky(numbers.T @ numbers / len(numbers)), numbers.T).T  # uncorrelated
    stepped = np.array([marginal is not None and marginal.bounds is not None for marginal in marginals])
    blurred = stepped[:, None] | stepped
    matrix = wanted
    for _ in range(_CORRECTIONS):
        drawn = numbers @ np.linalg.cholesky(matrix).T
        for place in np.flatnonzero(stepped).tolist():
            marginal = marginals[place]
            assert marginal is not None, "it has steps"
            drawn[:, place] = marginal.scores_of(marginal.values_at(drawn[:, place]))
        spread = np.sqrt(np.square(drawn).mean(0))
        drawn /= np.where(spread > 1e-9, spread, 1.0)
        error = wanted - drawn.T @ drawn / len(drawn)
        np.fill_diagonal(error, 0.0)
        moved = np.clip(np.where(blurred, matrix + error, wanted), -1.0, 1.0)
        matrix = _as_correlation(moved)
    return matrix


def _ndtri(parts: np.ndarray) -> np.ndarray:
    """Return the standard normal numbers below which these parts (K,) lie."""
    return torch.special.ndtri(torch.from_numpy(np.asarray(parts, np.float64))).numpy()
