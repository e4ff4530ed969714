"""Classes that rules make of a table's columns: files such as ``classes.toml``, and those that come with the program.

    [[class]]
    name = "ringed spiral"
    label = "Ringed spiral"                  # may be left out, as may description, priority and share
    description = "disc with arms and a ring"
    where = "features > 0.5 and ring > 0.3"  # see `conditions`
    priority = 1                             # of several whose conditions hold, the highest takes a galaxy (default 0)
    share = ["features", "ring"]             # column of the class's share of votes, or columns whose product it is

The order of the file is the order of the classes; of equal priority, the first whose condition holds takes a galaxy.
Where all classes have a share, a galaxy keeps its shares (divided by their sum), and a class without a condition takes
those galaxies of which it has the largest share.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from config_physics import MOST_CLASS_TEXT, MOST_CLASSES, Morphology, fault_of_classes
from galaxies.common.errors import UserError, shown
from galaxies.common.reading import read_text
from galaxies.tables.conditions import Condition, ConditionError, parse_condition
from galaxies.tables.numbers import NumberReader, Quantity
from galaxies.tables.reading import Table, listed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHIPPED = Path(__file__).with_name("rules")
_FILE_BYTES = 1 << 20
_MOST_SHARES = 8  # columns whose product is a share
_MOST_PRIORITY = 1_000_000
_KEYS = ("name", "label", "description", "where", "priority", "share")
_ANY_NUMBER = Quantity((-np.inf, np.inf), (-90.0, 90.0))


class RuleColumns(NamedTuple):
    """What rules can ask of a table.

    Attributes
    ----------
    where : str
        What the table is called in sentences.
    num_rows : int
        N.
    names : collection of str
        Columns that there are.
    numbers, texts : callable
        Return a column by its name in lower case: (N,) float64, NaN where unknown; (N,) of str objects, "" where
        unknown. The first raises `UserError` at a cell that is no number.
    """

    where: str
    num_rows: int
    names: Collection[str]
    numbers: Callable[[str], np.ndarray]
    texts: Callable[[str], np.ndarray]

    @classmethod
    def of_table(cls, table: Table, numbers: NumberReader) -> RuleColumns:
        """Return the columns of a table that were read of it."""
        return cls(
            str(table.file),
            len(table),
            [*table.cells, *table.others],
            lambda name: numbers.read(name, _ANY_NUMBER),
            lambda name: np.array([text.strip() for text in table.cells[name]], object),
        )

    def of_rows(self, rows: np.ndarray, where: str) -> RuleColumns:
        """Return some rows, called `where` in sentences."""
        return RuleColumns(
            where, len(rows), self.names, lambda name: self.numbers(name)[rows], lambda name: self.texts(name)[rows]
        )


@dataclass(frozen=True)
class ClassRule:
    """One class of a file of rules.

    Attributes
    ----------
    morphology : Morphology
    where : Condition or None
        None where the largest share decides.
    priority : int
    share : tuple of str
        Columns in lower case whose product is its share; none where shares are not told.
    number : int
        Which class of the file it is, from 0.
    """

    morphology: Morphology
    where: Condition | None
    priority: int
    share: tuple[str, ...]
    number: int


class Sorted(NamedTuple):
    """Galaxies by their classes.

    Attributes
    ----------
    classes : ndarray, (N,), int64
        Class indices, -1 of those that no class takes.
    shares : ndarray, (N, K), float64, or None
        Each class's share, of sum 1; NaN where nothing is known. None where the rules tell no shares.
    met : ndarray, (K,), int64
        Galaxies that meet each class's condition, whichever class takes them.
    """

    classes: np.ndarray
    shares: np.ndarray | None
    met: np.ndarray


@dataclass(frozen=True)
class ClassRules:
    """A file of rules.

    Attributes
    ----------
    name : str
        That of one that comes with the program, or the file's path.
    rules : tuple of ClassRule
        In the order of the classes.
    """

    name: str
    rules: tuple[ClassRule, ...]
    _lines: _Lines

    @property
    def morphologies(self) -> tuple[Morphology, ...]:
        """The classes."""
        return tuple(rule.morphology for rule in self.rules)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(rule.morphology.name for rule in self.rules)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rules look at, in lower case."""
        used = [name for rule in self.rules if rule.where is not None for name in rule.where.uses]
        return tuple(dict.fromkeys([*used, *(name for rule in self.rules for name in rule.share)]))

    @property
    def tells_shares(self) -> bool:
        """Whether galaxies get shares."""
        return bool(self.rules[0].share)

    def sort(self, columns: RuleColumns) -> Sorted:
        """Give each row its class.

        Raises
        ------
        UserError
            If a column is not there, or a cell of one that is compared with numbers is no number.
        """
        found = self._read(columns)
        shares = self._shares(found) if self.tells_shares else None
        if shares is None:
            most = np.full(columns.num_rows, -1)
        else:
            most = np.where(np.isnan(shares[:, 0]), -1, np.argmax(np.nan_to_num(shares), 1))
        classes, met = np.full(columns.num_rows, -1, np.int64), np.zeros(len(self.rules), np.int64)
        for rule in sorted(self.rules, key=lambda rule: -rule.priority):  # equal ones stay in order
            holds = most == rule.number if rule.where is None else rule.where.of(found, columns.num_rows)
            met[rule.number] = holds.sum()
            classes[(classes < 0) & holds] = rule.number
        return Sorted(classes, shares, met)

    def refuse_empty(self, classes: np.ndarray, met: np.ndarray, where: str) -> None:
        """Refuse that a class takes no galaxy at all.

        Parameters
        ----------
        classes, met : ndarray
            As `sort` returns them.
        where : str
            What the galaxies are of, in words.

        Raises
        ------
        UserError
            Naming it, with how many the others take.
        """
        counts = Counter(classes.tolist())
        empty = next((rule.number for rule in self.rules if not counts[rule.number]), None)
        if empty is None:
            return
        others = ", ".join(f"{counts[k]} {name}" for k, name in enumerate(self.names) if counts[k]) or "none"
        higher = f"; {met[empty]} meet its condition, which classes of higher priority take" if met[empty] else ""
        raise UserError(
            f"class {self.names[empty]} ({self._place(empty, 'where')}) takes none of the {len(classes)} galaxies of "
            f"{where}, of which {others} are taken and {counts[-1]} are of no class{higher}: change its condition, or "
            "go on with --allow-empty-class"
        )

    def _read(self, columns: RuleColumns) -> dict[str, np.ndarray]:
        """Return the columns that the rules look at, each as it is taken."""
        there = {name.lower() for name in columns.names}
        kinds: dict[str, bool | None] = {}
        for rule in self.rules:
            for name, is_text, where in self._uses(rule):
                if name not in there:
                    near = difflib.get_close_matches(name, there, 3, 0.5)
                    has = f"near it are {', '.join(near)}" if near else f"it has {listed(list(columns.names))}"
                    raise UserError(f"{where}: there is no column {shown(name)} in {columns.where}; {has}")
                if None not in (is_text, known := kinds.get(name)) and is_text is not known:
                    what = ("numbers", "text")
                    raise UserError(
                        f"{where}: column {shown(name)} is taken as {what[bool(is_text)]} here and as "
                        f"{what[bool(known)]} by a class before"
                    )
                kinds[name] = known if is_text is None else is_text
        return {name: _column(columns, name, is_text) for name, is_text in kinds.items()}

    def _uses(self, rule: ClassRule) -> Iterator[tuple[str, bool | None, str]]:
        """Yield the columns of a rule: name, whether it is taken as text, and where in the file it stands."""
        if rule.where is not None:
            for name, use in rule.where.uses.items():
                yield name, use.is_text, self._lines.place_in(rule.number, "where", rule.where.text, use.place)
        for name in rule.share:
            yield name, False, self._place(rule.number, "share")

    def _shares(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """Return shares (N, K) of sum 1; an unknown one counts as nothing where another is known."""
        products = np.stack([np.prod([found[name] for name in rule.share], 0) for rule in self.rules], 1)
        parts = np.nan_to_num(products).clip(0)
        total = parts.sum(1, keepdims=True)
        return np.divide(parts, total, out=np.full_like(parts, np.nan), where=total > 0)

    def _place(self, number: int, key: str) -> str:
        return self._lines.place(number, key)


def shipped_rules() -> list[str]:
    """Return the names of the files of rules that come with the program."""
    return sorted(file.stem for file in _SHIPPED.glob("*.toml"))


def read_class_rules(chosen: str) -> ClassRules:
    """Read a file of rules, or one that comes with the program, by its name.

    Raises
    ------
    UserError
        If there is none, or it is none: it names file, line and, in a condition, the column.
    """
    path = Path(chosen)
    if chosen in shipped_rules():
        path = _SHIPPED / f"{chosen}.toml"
    elif path.suffix.lower() != ".toml":
        raise UserError(
            f"--classes {shown(chosen)}: it takes a file of rules that ends in .toml, or one that comes with the "
            f"program: {', '.join(shipped_rules())}"
        )
    text = read_text(path, _FILE_BYTES, "see docs/data.md for files of classes")
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{path} is no TOML file: {_plain(error)}") from None
    return _Reader(chosen, path, text).rules(content)


class _Lines:
    """Where the entries of a file stand, as far as its text tells."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text
        self._heads = [found.start() for found in re.finditer(r"^[ \t]*\[\[[ \t]*class[ \t]*\]\]", text, re.MULTILINE)]
        self.count = -1

    def place(self, number: int, key: str = "") -> str:
        """Say where an entry of a class is."""
        start = self._entry(number, key)
        if start is None:
            return f"class {number + 1} of {self._path}"
        return self._at(start)

    def place_in(self, number: int, key: str, value: str, place: int) -> str:
        """Say where in the text of an entry something is, which is at a character from 0 of its value."""
        start = self._entry(number, key)
        at = -1 if start is None else self._text.find(value, start)
        if at < 0:
            return f"{self.place(number, key)}, character {place + 1} of {key}"
        return self._at(at + place)

    def _at(self, place: int) -> str:
        """Say in which line and column a character of the text is."""
        line = self._text.count("\n", 0, place) + 1
        return f"{self._path}, line {line}, column {place - self._text.rfind(chr(10), 0, place)}"

    def _entry(self, number: int, key: str) -> int | None:
        if self.count != len(self._heads):  # written in another way
            return None
        end = self._heads[number + 1] if number + 1 < len(self._heads) else len(self._text)
        start = self._heads[number]
        # The start of the value: what is said of an entry is of that.
        found = re.compile(rf"^[ \t]*[\"']?{key}[\"']?[ \t]*=[ \t]*", re.MULTILINE).search(self._text, start, end)
        return found.end() if key and found else start


class _Reader:
    """Reads the content of a file of rules, entry by entry."""

    def __init__(self, name: str, path: Path, text: str) -> None:
        self._name, self._path, self._lines = name, path, _Lines(path, text)

    def rules(self, content: dict[str, Any]) -> ClassRules:
        if strange := [key for key in content if key != "class"]:
            raise UserError(f"{self._path} has an entry {shown(strange[0])}: it holds tables [[class]] alone")
        tables = content.get("class")
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            raise UserError(f"{self._path} has no table [[class]]: each class is one, with name and where")
        if len(tables) > MOST_CLASSES:
            raise UserError(f"{self._path} has {len(tables)} classes, where up to {MOST_CLASSES} are possible")
        self._lines.count = len(tables)
        rules = [self._rule(number, table) for number, table in enumerate(tables)]
        seen: dict[str, int] = {}
        for rule in rules:
            name = rule.morphology.name
            if (first := seen.setdefault(name, rule.number)) != rule.number:
                before = self._lines.place(first, "name").removeprefix(f"{self._path}, ")
                self._refuse(rule.number, "name", f"a second rule for class {shown(name)}, whose first is in {before}")
        with_shares = [rule for rule in rules if rule.share]
        if with_shares and (without := next((rule for rule in rules if not rule.share), None)):
            self._refuse(without.number, "", f"class {without.morphology.name} has no share, and others have one")
        if not with_shares and (blank := next((rule for rule in rules if rule.where is None), None)):
            self._refuse(
                blank.number,
                "",
                f"class {blank.morphology.name} has no where, the condition by which it takes galaxies: only where all "
                "classes have a share may the largest decide",
            )
        return ClassRules(self._name, tuple(rules), self._lines)

    def _rule(self, number: int, table: dict[str, Any]) -> ClassRule:
        if strange := [key for key in table if key not in _KEYS]:
            near = difflib.get_close_matches(strange[0], _KEYS, 1)
            hint = f"; is it {near[0]}?" if near else f": there are {', '.join(_KEYS)}"
            self._refuse(number, strange[0], f"a class has no entry {shown(strange[0])}{hint}")
        name = self._text(number, table, "name")
        if not name:
            self._refuse(number, "", "the class has no name")
        if fault := fault_of_classes([name]):
            self._refuse(number, "name", fault)
        label, about = (self._line(number, table, key) for key in ("label", "description"))
        priority = table.get("priority", 0)
        if type(priority) is not int or abs(priority) > _MOST_PRIORITY:
            self._refuse(
                number, "priority", f"priority is {_brief(priority)}: it takes a whole number up to {_MOST_PRIORITY}"
            )
        where = None
        if "where" in table:
            text = self._text(number, table, "where")
            try:
                where = parse_condition(text)
            except ConditionError as error:
                place = self._lines.place_in(number, "where", text, error.place)
                raise UserError(f"{place}: the condition of class {name} is none, since {error}") from None
        return ClassRule(Morphology(name, label, about), where, priority, self._share(number, table), number)

    def _share(self, number: int, table: dict[str, Any]) -> tuple[str, ...]:
        value = table.get("share", [])
        columns = [value] if isinstance(value, str) else value
        fits = isinstance(columns, list) and all(isinstance(column, str) and column.strip() for column in columns)
        if not fits or len(columns) > _MOST_SHARES or ("share" in table and not columns):
            self._refuse(
                number, "share", f"share is {_brief(value)}: it takes a column, or a list of up to {_MOST_SHARES}"
            )
        return tuple(column.strip().lower() for column in columns)

    def _text(self, number: int, table: dict[str, Any], key: str) -> str:
        value = table.get(key, "")
        if not isinstance(value, str):
            self._refuse(number, key, f"{key} is {_brief(value)}: it takes a text")
        return value

    def _line(self, number: int, table: dict[str, Any], key: str) -> str:
        text = self._text(number, table, key)
        if len(text) > MOST_CLASS_TEXT or (text and not text.isprintable()):
            self._refuse(number, key, f"{key} is {shown(text)}: it takes a line of up to {MOST_CLASS_TEXT} characters")
        return text

    def _refuse(self, number: int, key: str, clause: str) -> NoReturn:
        raise UserError(f"{self._lines.place(number, key)}: {clause}")


def _column(columns: RuleColumns, name: str, is_text: bool | None) -> np.ndarray:
    if is_text:
        return columns.texts(name)
    try:
        return columns.numbers(name)
    except UserError:
        if is_text is None:  # nobody asks but whether it is known
            return columns.texts(name)
        raise


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return shown(value)
    return f"a list of {len(value)}" if isinstance(value, (list, dict)) else str(value)[:40]


def _plain(error: Exception) -> str:
    text = "its lists lie too deep within each other" if isinstance(error, RecursionError) else str(error)
    return "".join(c if c.isprintable() else " " for c in text)[:200]
