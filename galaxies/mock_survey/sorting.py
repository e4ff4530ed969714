"""Classes of a mock survey's dataset: those that it draws, or what rules make of the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from galaxies.common.errors import UserError
from galaxies.datasets.class_options import share_columns
from galaxies.datasets.layout import DataLayout
from galaxies.mock_survey.classes import CLASSES
from galaxies.tables.class_rules import ClassRules, RuleColumns

CLASS_COLUMNS = ("class", "morphology")  # names of the column that holds what the survey drew
_WHERE = "the mock survey"


class Chosen(NamedTuple):
    """Galaxies of a batch that have a class.

    Attributes
    ----------
    rows : ndarray, (n,), int64
        Of the batch.
    names : list of str, n
        Their classes.
    shares : dict of str to ndarray, (n,)
        Columns of the shares of the classes, none where rules tell none.
    """

    rows: np.ndarray
    names: list[str]
    shares: dict[str, np.ndarray]


class MockClasses:
    """Sorts the galaxies of a survey, batch by batch.

    Parameters
    ----------
    rules : ClassRules or None
        Of what is known of the galaxies, and of the column class (also called morphology), which holds the class that
        the survey drew. None to keep this class.
    count : int
        Galaxies of the survey. Fewer than classes cannot be of every class.
    allow_empty_class : bool
        Accept that a class has no galaxy.

    Attributes
    ----------
    may_be_empty : bool
        Whether a class may have no galaxy.
    """

    def __init__(self, rules: ClassRules | None, count: int, allow_empty_class: bool = False) -> None:
        self._rules = rules
        self.may_be_empty = allow_empty_class or count < len(CLASSES if rules is None else rules.names)
        self._sorted: list[np.ndarray] = []
        self._met: list[np.ndarray] = []

    @property
    def rule(self) -> str:
        """What the manifest says of it."""
        return "truth" if self._rules is None else self._rules.name

    @property
    def share_columns(self) -> list[str]:
        """Columns of the catalogue that hold shares."""
        return [] if self._rules is None else share_columns(self._rules)

    def layout(self, layout: DataLayout) -> DataLayout:
        """Return a layout with these classes."""
        return layout if self._rules is None else layout.with_classes(self._rules.morphologies)

    def sort(self, drawn: Sequence[str], known: Mapping[str, np.ndarray]) -> Chosen:
        """Choose the galaxies of a batch that have a class.

        Raises
        ------
        UserError
            As `ClassRules.sort` does.
        """
        if self._rules is None:
            return Chosen(np.arange(len(drawn)), list(drawn), {})
        texts = dict.fromkeys(CLASS_COLUMNS, np.array(drawn, dtype=object))
        numbers = {name.lower(): column for name, column in known.items()}
        columns = RuleColumns(
            _WHERE,
            len(drawn),
            [*CLASS_COLUMNS, *numbers],
            partial(_column, numbers, "text: compare it with a text in quotes"),
            partial(_column, texts, "numbers: compare it with a number"),
        )
        found = self._rules.sort(columns)
        self._sorted.append(found.classes)
        self._met.append(found.met)
        rows = np.flatnonzero(found.classes >= 0)
        names = [self._rules.names[index] for index in found.classes[rows].tolist()]
        shares = {} if found.shares is None else dict(zip(self.share_columns, found.shares[rows].T, strict=True))
        return Chosen(rows, names, shares)

    def finish(self) -> int:
        """Return how many galaxies have no class.

        Raises
        ------
        UserError
            If a class has none and must have one.
        """
        if self._rules is None:
            return 0
        classes = np.concatenate(self._sorted)
        if not self.may_be_empty:
            self._rules.refuse_empty(classes, np.sum(self._met, axis=0), _WHERE)
        return int((classes < 0).sum())


def _column(columns: Mapping[str, np.ndarray], others: str, name: str) -> np.ndarray:
    if name not in columns:
        raise UserError(f"column {name} of {_WHERE} holds {others}")
    return columns[name]
