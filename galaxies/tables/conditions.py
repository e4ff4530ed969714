"""Conditions on the columns of a table, such as ``smooth > 0.6 and smooth > features``: read here, never run as code.

Comparisons (``<``, ``<=``, ``>``, ``>=``, ``==``, ``!=``, also in a row: ``0.2 < bar <= 0.5``) of columns, numbers and
texts in quotes, ``and``, ``or``, ``not`` and parentheses; ``column is known`` and ``column is unknown``; and
``column in ("Sa", "Sb")``. A column whose name is more than letters, digits, underscores and points stands between
backticks. Columns have their names in any case.

What is unknown is neither true nor false (Kleene 1952, Introduction to Metamathematics, section 64): a comparison with
an empty cell is unknown, so is what cannot be decided without it, and a galaxy meets a condition only if it is true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np

from galaxies.common.errors import shown

_COMPARISONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?![\w.])|`(?P<quoted>[^`\n]+)`"
    r"|(?P<text>\"[^\"\n]*\"|'[^'\n]*')|(?P<name>[^\W\d][\w.]*)|(?P<sign><=|>=|==|!=|<|>|\(|\)|,))"
)
_WORDS = ("and", "or", "not", "in", "is", "known", "unknown")
_MOST_DEPTH = 50  # of parentheses within each other


class ConditionError(ValueError):
    """What is wrong with a condition, as a clause, and at which character from 0."""

    def __init__(self, clause: str, place: int) -> None:
        super().__init__(clause)
        self.place = place


class Use(NamedTuple):
    """How a condition takes a column: as text, as numbers, or (None) as either; and where in it that stands first."""

    is_text: bool | None
    place: int


class Truth(NamedTuple):
    """Of each row, (N,) bool, whether something is true and whether it is false; of what is unknown it is neither."""

    true: np.ndarray
    false: np.ndarray


@dataclass(frozen=True)
class Condition:
    """A condition that was read.

    Attributes
    ----------
    text : str
    uses : dict of str to Use
        The columns by their names in lower case.
    """

    text: str
    uses: Mapping[str, Use]
    _tree: tuple

    def of(self, columns: Mapping[str, np.ndarray], count: int) -> np.ndarray:
        """Tell which rows meet it.

        Parameters
        ----------
        columns : mapping of str to ndarray, (N,)
            Those of `uses`: float64, NaN where unknown; or of text str objects, "" where unknown.
        count : int
            N.

        Returns
        -------
        ndarray, (N,), bool
        """
        return _truth(self._tree, columns, count).true


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises
    ------
    ConditionError
        If it is none.
    """
    parser = _Parser(text)
    tree = parser.whole()
    return Condition(text, parser.uses, tree)


class _Word(NamedTuple):
    """A part of a condition: its kind, what it says, and where it begins."""

    kind: str
    text: str
    place: int


class _Parser:
    """Reads by recursive descent; each method takes its part off the words and returns its tree."""

    def __init__(self, text: str) -> None:
        self._words = _words_of(text)
        self._next = 0
        self._depth = 0
        self.uses: dict[str, Use] = {}

    def whole(self) -> tuple:
        tree = self._any_of()
        if self._word.kind != "end":
            self._refuse("expected and, or, or the end")
        return tree

    @property
    def _word(self) -> _Word:
        return self._words[self._next]

    def _take(self) -> _Word:
        word = self._word
        self._next += 1
        return word

    def _taken(self, *texts: str) -> bool:
        """Take the next word if it is one of these words or signs."""
        found = self._word.kind in ("word", "sign") and self._word.text in texts
        self._next += found
        return found

    def _refuse(self, clause: str) -> NoReturn:
        found = "it ends" if self._word.kind == "end" else f"{shown(self._word.text)} stands"
        raise ConditionError(f"{clause}, where {found}", self._word.place)

    def _any_of(self) -> tuple:
        parts = [self._all_of()]
        while self._taken("or"):
            parts.append(self._all_of())
        return parts[0] if len(parts) == 1 else ("or", *parts)

    def _all_of(self) -> tuple:
        parts = [self._negated()]
        while self._taken("and"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else ("and", *parts)

    def _negated(self) -> tuple:
        turns = 0
        while self._taken("not"):
            turns += 1
        tree = self._single()
        return ("not", tree) if turns % 2 else tree

    def _single(self) -> tuple:
        if not self._taken("("):
            return self._comparison()
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            self._refuse(f"no more than {_MOST_DEPTH} parentheses may lie within each other")
        tree = self._any_of()
        if not self._taken(")"):
            self._refuse("expected )")
        self._depth -= 1
        return tree

    def _comparison(self) -> tuple:
        first = self._operand()
        if first.kind == "column" and self._taken("is"):
            if not self._taken("known", "unknown"):
                self._refuse("expected known or unknown after is")
            self.uses.setdefault(first.text.lower(), Use(None, first.place))
            return (self._words[self._next - 1].text, first.text.lower())
        if first.kind == "column" and self._taken("in"):
            return self._membership(first)
        tests, left = [], first
        while self._word.kind == "sign" and self._word.text in _COMPARISONS:
            sign = self._take()
            right = self._operand()
            tests.append(self._test(left, sign, right))
            left = right
        if not tests:
            self._refuse("expected a comparison such as > 0.5")
        return tests[0] if len(tests) == 1 else ("and", *tests)

    def _operand(self) -> _Word:
        if self._word.kind not in ("column", "number", "text"):
            self._refuse("expected a column, a number or a text in quotes")
        return self._take()

    def _membership(self, column: _Word) -> tuple:
        if not self._taken("("):
            self._refuse('expected a list such as ("Sa", "Sb") after in')
        tests = []
        while True:
            value = self._operand()
            if value.kind == "column":
                raise ConditionError("a list holds numbers or texts in quotes, and no column", value.place)
            tests.append(self._test(column, _Word("sign", "==", column.place), value))
            if self._taken(")"):
                return tests[0] if len(tests) == 1 else ("or", *tests)
            if not self._taken(","):
                self._refuse("expected , or )")

    def _test(self, left: _Word, sign: _Word, right: _Word) -> tuple:
        sides = (left, right)
        if not any(side.kind == "column" for side in sides):
            raise ConditionError("a comparison needs a column on one side at least", left.place)
        is_text = any(side.kind == "text" for side in sides)
        if is_text and sign.text not in ("==", "!="):
            raise ConditionError(f"texts are compared by == and !=, and not by {sign.text}", sign.place)
        for side in sides:
            if side.kind == "column":
                self._use(side, is_text)
            elif (side.kind == "text") != is_text:
                raise ConditionError("a number is compared with a text", side.place)
        return (sign.text, *((side.kind, _value_of(side)) for side in sides))

    def _use(self, column: _Word, is_text: bool) -> None:
        """Note how a column is taken."""
        name = column.text.lower()
        known = self.uses.get(name, Use(None, column.place))
        if known.is_text is not None and known.is_text is not is_text:
            kinds = ("numbers", "text")
            clause = f"column {shown(column.text)} is taken as {kinds[is_text]} here and as {kinds[not is_text]} before"
            raise ConditionError(clause, column.place)
        self.uses[name] = Use(is_text, known.place)


def _words_of(text: str) -> list[_Word]:
    words, place = [], 0
    end = len(text.rstrip())
    while place < end:
        found = _TOKEN.match(text, place)
        if found is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise ConditionError(_strange(text, start), start)
        kind = str(found.lastgroup)
        said = found[kind]
        if kind == "name":
            kind = "word" if said in _WORDS else "column"
        elif kind == "quoted":
            kind = "column"
        words.append(_Word(kind, said, found.start(found.lastgroup or 0)))
        place = found.end()
    words.append(_Word("end", "", end))
    return words


def _strange(text: str, place: int) -> str:
    """Say what is wrong with a character that begins nothing."""
    sign = text[place]
    if sign == "=":
        return "= compares nothing: write =="
    if sign in "&|":
        return f"{sign} is written {'and' if sign == '&' else 'or'}"
    if sign in "\"'`":
        return f"the quote {sign} is not closed"
    if sign in "+-*/%^":
        return f"{sign} calculates, and conditions only compare: a column's name with it in it stands between backticks"
    if sign.isdecimal():
        return f"{shown(re.split(r'[^0-9A-Za-z_.]', text[place:])[0])} is no number"
    return f"{shown(sign)} has no business there"


def _value_of(word: _Word) -> str | float:
    if word.kind == "column":
        return word.text.lower()
    return float(word.text) if word.kind == "number" else word.text[1:-1]


def _truth(tree: tuple, columns: Mapping[str, np.ndarray], count: int) -> Truth:
    kind, *parts = tree
    if kind in ("known", "unknown"):
        known = _is_known(columns[parts[0]])
        return Truth(known, ~known) if kind == "known" else Truth(~known, known)
    if kind in ("and", "or", "not"):
        inner = [_truth(part, columns, count) for part in parts]
        if kind == "not":
            return Truth(inner[0].false, inner[0].true)
        true, false = ([getattr(part, name) for part in inner] for name in ("true", "false"))
        every, some = np.logical_and.reduce, np.logical_or.reduce
        return Truth(every(true), some(false)) if kind == "and" else Truth(some(true), every(false))
    values, known = [], np.ones(count, bool)
    for what, value in parts:
        values.append(columns[value] if what == "column" else np.full(count, value, object if what == "text" else None))
        if what == "column":
            known &= _is_known(columns[value])
    found = _COMPARISONS[kind](*values).astype(bool)
    return Truth(found & known, ~found & known)


def _is_known(column: np.ndarray) -> np.ndarray:
    return (column != "").astype(bool) if column.dtype == object else ~np.isnan(column)
