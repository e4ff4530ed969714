"""The real galaxies behind a checkpoint: which attributes go together, and which requests are like them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from galaxies.common.attributes import Attribute
from galaxies.compute.seeded_noise import random_index

_LIMIT = 50_000  # real galaxies whose class and attributes a checkpoint keeps
_TABLE_SIZE = 2**18  # requests times real galaxies that are compared at a time
_CACHED = 2**16  # the same where they are compared by little more than subtractions, which then wait for memory
_SUPPORT_TAIL = 0.01  # of a class's values on either side of a supported range, the central 98 %

VERDICTS = ("like", "unusual", "invented")  # of a request, among the real galaxies of its class
_MOST_NEIGHBOURS = 4096  # real galaxies of a class that a request is compared with
_MOST_MEASURED = 2048  # of those, whose distances among each other are measured
_CROWD = 5  # the how many nearest real galaxy tells whether there are others about; fewer in a class of less than 100
_LIKE = 1 - 2 * _SUPPORT_TAIL  # part of the real galaxies that are like real galaxies: as in a supported range
_RARE = 0.001, 5  # part and number of real galaxies that are too far from the others to say what is far
_NOTICED = 0.25  # of an attribute's spread: a request is not invented for less
_FEW = 30  # real galaxies, among which it is not for less than twice as much
_MOST_SUBSETS = 256  # sets of attributes whose neighbours are kept


@dataclass(frozen=True)
class Support:
    """How near requests are to real galaxies of their class, in all attributes that are set together.

    Attributes
    ----------
    verdicts : Tensor, (N,), int64
        Place in `VERDICTS`.
    nearest : Tensor, (N,), float32
        Distance to the nearest real galaxy, in the class's spread of each attribute; 0 where nothing is set, infinite
        where there is no such galaxy or an attribute is known of none.
    usual : Tensor, (N,), float32
        Distance within which 98 % of the real galaxies have another one; 0 where nothing is set.
    """

    verdicts: Tensor
    nearest: Tensor
    usual: Tensor


@dataclass(frozen=True)
class Population:
    """The joint distribution of class and attributes over real galaxies.

    Attributes
    ----------
    classes : Tensor, (M,), int64
    values : Tensor, (M, A), float32
        Physical units, NaN where unknown.
    attributes : tuple of Attribute, A of them, or none
        On whose scales galaxies are compared; without them, by the values themselves.
    """

    classes: Tensor
    values: Tensor
    attributes: tuple[Attribute, ...] = ()
    _kept: dict[tuple[int, tuple[int, ...]], _Neighbours] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def sample(cls, classes: Tensor, values: Tensor, seed: int, attributes: tuple[Attribute, ...] = ()) -> Population:
        """Take at most `_LIMIT` galaxies, which is what travels in a checkpoint."""
        chosen = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))[:_LIMIT].sort().values
        return cls(classes[chosen], values[chosen], attributes)

    def members(self, class_index: int) -> Tensor:
        """Return the attribute values (K, A) of one class."""
        # Indexing with a mask would wait for every core, also for one that another program keeps busy.
        return self.values.index_select(0, torch.nonzero(self.classes == class_index)[:, 0])

    def _on_scales(self, values: Tensor) -> Tensor:
        """Return values (N, A) on the scales of their attributes."""
        if all(attribute.scale == "linear" for attribute in self.attributes):
            return values
        return torch.stack([a.steps_of(column) for a, column in zip(self.attributes, values.T, strict=True)], 1)

    def supported_range(self, class_index: int, attribute: int) -> tuple[float, float] | None:
        """Return the range that holds the central 98 % of a class, or None where no value is known."""
        known = self.members(class_index)[:, attribute]
        known = known[torch.isfinite(known)]
        if len(known) == 0:
            return None
        low, high = torch.quantile(known.double(), torch.tensor([_SUPPORT_TAIL, 1 - _SUPPORT_TAIL]).double())
        return float(low), float(high)

    def support(self, classes: Tensor, values: Tensor) -> Support:
        """Tell how near requests are to real galaxies, in what is set of them.

        A request is **like** real galaxies if the fifth nearest is as near as 98 % of the real galaxies have theirs:
        where real galaxies crowd, and for one attribute about the central 98 %. It is **invented** if not even the
        nearest one is as near as 99.9 % of the real galaxies have another (of fewer than 5,000, all but five), nor
        within a quarter of the spread (the more the fewer they are) in each attribute. What is between is **unusual**.
        Distances are Euclidean on the attributes' scales, in units of the class's spread (1.4826 times the median
        absolute deviation) of each attribute, among the galaxies of which all that is set is known. A class in which
        nothing is known, or without galaxies, makes any request invented; one that sets nothing is like the galaxies
        that it is filled from.

        Parameters
        ----------
        classes : Tensor, (N,), int64
        values : Tensor, (N, A), float32
            Physical units, NaN for what is unset.

        Notes
        -----
        Level sets of the density by the distance to the k-th neighbour: Loftsgaarden & Quesenberry 1965; the share of
        real galaxies that lie outside by their own left-out distances: Zhao & Saligrama 2009, "Anomaly detection with
        score functions based on nearest neighbor graphs".
        """
        count, is_set = len(values), ~values.isnan()
        verdicts, nearest, usual = torch.zeros(count, dtype=torch.int64), torch.zeros(count), torch.zeros(count)
        patterns, kind = torch.cat([classes[:, None], is_set.long()], 1).unique(dim=0, return_inverse=True)
        for number, (index, *pattern) in enumerate(patterns.tolist()):
            rows = torch.nonzero(kind == number)[:, 0]
            columns = tuple(column for column, chosen in enumerate(pattern) if chosen)
            neighbours = self._neighbours(index, columns)
            wanted = self._on_scales(values[rows].float())
            verdicts[rows], nearest[rows] = neighbours.judge(wanted[:, list(neighbours.columns)])
            usual[rows] = neighbours.usual
        return Support(verdicts, nearest, usual)

    def _neighbours(self, class_index: int, columns: tuple[int, ...]) -> _Neighbours:
        """Return the galaxies of a class of which some attributes are known, made once."""
        key = class_index, columns
        found = self._kept.get(key)
        if found is None:
            # Spreads are those of the whole class, so that a distance means the same with more or fewer attributes set.
            members = self._on_scales(self.members(class_index))
            found = _Neighbours.among(members, self._on_scales(self.values), columns)
            # Several threads of a server may be here: what is kept of the oldest goes, whoever takes it away.
            for old in list(self._kept)[: max(0, len(self._kept) + 1 - _MOST_SUBSETS)]:
                self._kept.pop(old, None)
            self._kept[key] = found
        return found

    def draw(self, classes: Tensor, requested: Tensor, seeds: Sequence[int] | np.ndarray) -> Tensor:
        """Fill the unset attributes of requests, each from a real galaxy that resembles the request.

        Parameters
        ----------
        classes : Tensor, (N,), int64
        requested : Tensor, (N, A), float32
            Physical units, NaN for what is unset.
        seeds : sequence or array of int, N
            Which galaxy it is depends on the request and on its seed alone.

        Returns
        -------
        Tensor, (N, A), float32
            NaN only where the drawn galaxy's value is unknown too, or the class has no galaxy.
        """
        filled, numbers = requested.clone(), np.asarray(seeds, np.int64)
        unfilled = requested.isnan().any(1)
        for index in classes.unique().tolist():
            rows = torch.nonzero(unfilled & (classes == index))[:, 0]
            if len(rows) > 0 and len(members := self.members(index)) > 0:
                asked = requested[rows]
                which = _resembling(self._on_scales(members), self._on_scales(asked), numbers[rows.numpy()])
                filled[rows] = torch.where(asked.isfinite(), asked, members[which])
        return filled


def _resembling(members: Tensor, requested: Tensor, seeds: np.ndarray) -> Tensor:
    """Return which galaxy (N,) of a class (K, A) the unset attributes of requests (N, A) come from."""
    some_set = requested.isfinite().any(1)
    sizes = torch.where(some_set, _num_nearest(len(members)), len(members))
    row = torch.from_numpy(random_index(seeds, sizes.numpy()))
    if some_set.any():
        row[some_set] = _by_resemblance(members, requested[some_set], row[some_set])
    return row


def _num_nearest(size: int) -> int:
    """Return how many of a class's galaxies resemble a request: a fiftieth, but at least eight."""
    return min(size, max(8, size // 50))


def _by_resemblance(members: Tensor, requested: Tensor, rank: Tensor) -> Tensor:
    """Return the row (N,) of the galaxy (K, A) that comes at a rank (N,) by resemblance to each request (N, A)."""
    spread = _nan_std(members).nan_to_num(nan=1.0).clamp_min(1e-6)
    # A catalogue asks for the same again and again. Unset is infinite here, since no NaN is equal to another.
    wanted, kind = requested.nan_to_num(nan=torch.inf).unique(dim=0, return_inverse=True)
    found = torch.empty_like(rank)
    step = max(1, _TABLE_SIZE // len(members))
    for start in range(0, len(wanted), step):
        distance = torch.zeros(())
        for values, asked, scale in zip(members.T, wanted[start : start + step].T, spread, strict=True):
            # An unknown value counts as far away, so that galaxies with known values are preferred.
            offset = ((values - asked[:, None]) / scale).nan_to_num(nan=10.0)  # (step, K)
            distance = distance + torch.where(asked.isfinite()[:, None], offset, 0.0).square()
        nearest = distance.topk(_num_nearest(len(members)), largest=False).indices
        here = (kind >= start) & (kind < start + step)
        found[here] = nearest[kind[here] - start, rank[here]]
    return found


def _nan_std(values: Tensor) -> Tensor:
    """Return the standard deviation of each column over its known values."""
    mean = values.nanmean(0)
    return (values - mean).square().nanmean(0).sqrt()


@dataclass(frozen=True)
class _Neighbours:
    """Real galaxies of a class in some attributes, and how near they are to each other.

    Attributes
    ----------
    columns : tuple of int, D
        Attributes that are compared.
    points : Tensor, (D, K), float32
        The galaxies, in units of each attribute's spread.
    spread : Tensor, (D,), float32
    crowd : int
        Which nearest galaxy tells whether a request is like real galaxies.
    like, invented : float
        The farthest that this one may be, and the nearest one of a request that is not invented.
    usual : float
        Within which 98 % of the galaxies have another one.
    """

    columns: tuple[int, ...]
    points: Tensor
    spread: Tensor
    crowd: int
    like: float
    invented: float
    usual: float

    @classmethod
    def among(cls, members: Tensor, everything: Tensor, columns: tuple[int, ...]) -> _Neighbours:
        """Choose from the galaxies of a class (K, A); `everything` (M, A) has those of all classes."""
        wanted = list(columns)
        known = members.isfinite()
        if len(members) == 0 or not known[:, wanted].any(0).all():  # nothing to compare with
            nowhere = torch.empty(len(wanted), 0)
            return cls(columns, nowhere, torch.ones(len(wanted)), 1, 0.0, 0.0, 0.0)
        # Where some attributes are never known together, those known of the fewest galaxies are left out.
        by_rarity = sorted(wanted, key=lambda column: int(known[:, column].sum()))
        while not (chosen := known[:, by_rarity].all(1)).any():
            by_rarity = by_rarity[1:]
        columns = tuple(sorted(by_rarity))
        if not columns:
            return cls((), torch.empty(0, len(members)), torch.ones(0), 1, 0.0, math.inf, 0.0)
        spread = torch.tensor([_robust_spread(members[:, c], everything[:, c]) for c in columns])
        points = members[chosen][:, list(columns)] / spread
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:_MOST_NEIGHBOURS]
        points = points[order].T.contiguous()
        size = points.shape[1]
        crowd = min(_CROWD, max(1, size // 20))
        # Nothing can be told within half a step of values that are rounded.
        rounding = 0.5 * math.hypot(*(_step(row) for row in points))
        noticed = _NOTICED * (1 + _FEW / size) * math.sqrt(len(columns))
        if size == 1:
            return cls(columns, points, spread, 1, rounding, max(rounding, noticed), 0.0)
        others = _nearest(points, points[:, :_MOST_MEASURED], crowd, skip_self=True).double()
        part, number = _RARE
        rare = max(_LIKE, 1 - max(part, number / size))
        like, usual = (max(rounding, float(others[:, k].quantile(_LIKE))) for k in (-1, 0))
        invented = max(usual, noticed, float(others[:, 0].quantile(rare)))
        return cls(columns, points, spread, crowd, like, invented, usual)

    def judge(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the verdict (N,) and the distance to the nearest galaxy (N,) of values (N, D), all set."""
        count = len(values)
        if self.points.shape[1] == 0:
            return torch.full((count,), 2), torch.full((count,), math.inf)
        if not self.columns:
            return torch.zeros(count, dtype=torch.int64), torch.zeros(count)
        wanted, kind = values.unique(dim=0, return_inverse=True)  # a catalogue asks for the same again and again
        found = _nearest(self.points, (wanted / self.spread).T, self.crowd)
        verdicts = torch.where(found[:, -1] <= self.like, 0, torch.where(found[:, 0] <= self.invented, 1, 2))
        return verdicts[kind], found[kind, 0]


def _nearest(points: Tensor, wanted: Tensor, number: int, skip_self: bool = False) -> Tensor:
    """Return the distances (N, number) from points (D, N) to the nearest of others (D, K), ascending.

    With `skip_self` point n is other n, and is not its own neighbour.
    """
    parts = []
    step = max(1, _CACHED // points.shape[1])
    for start in range(0, wanted.shape[1], step):
        block = wanted[:, start : start + step]
        squares = torch.zeros(block.shape[1], points.shape[1])
        for there, here in zip(points, block, strict=True):
            squares += (there - here[:, None]).square_()
        if skip_self:
            squares[torch.arange(len(squares)), torch.arange(start, start + len(squares))] = torch.inf
        parts.append(squares.topk(number, largest=False).values.sqrt_())
    return torch.cat(parts)


def _robust_spread(values: Tensor, everywhere: Tensor) -> float:
    """Return a spread that a few far values do not move: of a class, or where all are alike, of all classes."""
    for part in (values, everywhere):
        some = part[part.isfinite()].double()
        for spread in (1.4826 * (some - some.quantile(0.5)).abs().quantile(0.5), some.std(correction=0)):
            if spread > 1e-6 * some.abs().max():
                return float(spread)
    return 1.0


def _step(values: Tensor) -> float:
    """Return the usual step from a value to the next larger one; 0 where all are alike."""
    steps = values.unique().diff()
    return float(steps.median()) if len(steps) else 0.0
