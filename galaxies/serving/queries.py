"""Read the query of a request for galaxies: every value checked here, once, before anything is done with it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote_to_bytes

from config_physics import ATTRIBUTES, MORPHOLOGY_NAMES, Attribute
from galaxies.common.errors import shown

MAX_SEED = 2**32 - 1
PIXELS = (64, 128, 256, 512)
TILE_PIXELS = (64, 128, 256)
SEEDS = (2, 64)  # tiles of a sheet of seeds, fewest and most
STEPS = (3, 33)  # and of a sheet that sweeps an attribute
COLUMNS = (1, 64)
LONGEST_QUERY = 2000  # characters
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")  # no nan, no 1_0, no digits but 0 to 9
_WHOLE = re.compile(r"[0-9]{1,10}")
GALAXY_PARAMETERS = ("morphology", "seed", "model", *ATTRIBUTES)


class QueryError(Exception):
    """A query that asks for what there is not.

    Attributes
    ----------
    sentence : str
        Names the parameter and what it may be.
    parameter, allowed : str
        The same two for programs.
    """

    def __init__(self, sentence: str, parameter: str, allowed: str) -> None:
        super().__init__(sentence)
        self.sentence, self.parameter, self.allowed = sentence, parameter, allowed


@dataclass(frozen=True)
class GalaxyQuery:
    """One wanted galaxy.

    Attributes
    ----------
    model : str
        Id of the model that draws it.
    class_index : int
    values : tuple of float or None
        What was set, in the order of the model's attributes, physical units; None for what was not.
    seed : int
    others : tuple of float or None, or None
        Values for what was not set, None for those that stay unknown; None if they are to be drawn.
    """

    model: str
    class_index: int
    values: tuple[float | None, ...]
    seed: int
    others: tuple[float | None, ...] | None = None

    @property
    def wanted(self) -> list[float]:
        """Value of each attribute, NaN for what is to be drawn or stays unknown."""
        pairs = zip(self.values, self.others or self.values, strict=True)
        found = [other if value is None else value for value, other in pairs]
        return [math.nan if value is None else value for value in found]

    def with_value(self, index: int, value: float) -> GalaxyQuery:
        """Return the query with another value of one attribute."""
        return replace(self, values=(*self.values[:index], value, *self.values[index + 1 :]))


@dataclass(frozen=True)
class SheetQuery:
    """One wanted sheet of galaxies.

    Attributes
    ----------
    base : GalaxyQuery
        The first galaxy of a sheet of seeds; the one whose attribute is swept otherwise.
    count : int
        Tiles.
    swept : int or None
        Index of the swept attribute; None for a sheet of seeds.
    columns : int
    """

    base: GalaxyQuery
    count: int
    swept: int | None
    columns: int


def read_parameters(query: str, allowed: Sequence[str]) -> dict[str, str]:
    """Split a query string into its parameters.

    Parameters
    ----------
    query : str
        What follows the question mark, as it was sent (bytes as Latin-1).
    allowed : sequence of str
        Names that the route knows.

    Raises
    ------
    QueryError
        If it is too long, is not UTF-8, or has a parameter that is unknown, empty or repeated.
    """
    if len(query) > LONGEST_QUERY:
        raise QueryError(
            f"the query has {len(query)} characters: at most {LONGEST_QUERY} are read",
            "query",
            f"up to {LONGEST_QUERY} characters",
        )
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        name = _decode(name, "query")
        if name not in allowed:
            raise QueryError(
                f"there is no parameter {shown(name)}: choose from {', '.join(allowed)}", name[:60], ", ".join(allowed)
            )
        if name in found:
            raise QueryError(f"{name} is there more than once: give it once", name, "one value")
        found[name] = _decode(value, name)
        if found[name] == "":
            raise QueryError(f"{name} has no value: give it one or leave it out", name, "one value")
    return found


def _decode(text: str, parameter: str) -> str:
    """Undo the percent escapes of a name or a value."""
    try:
        if _BROKEN_ESCAPE.search(text):
            raise ValueError
        return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("utf-8")
    except ValueError:  # UnicodeError is one
        raise QueryError(
            f"{parameter} is not UTF-8 text with percent escapes", parameter, "UTF-8 with percent escapes"
        ) from None


def read_galaxy(given: Mapping[str, str], models: Mapping[str, Sequence[Attribute]]) -> GalaxyQuery:
    """Read which galaxy is wanted.

    Parameters
    ----------
    given : mapping of str to str
        From `read_parameters`.
    models : mapping of str to sequence of Attribute
        Attributes of each model; the first one answers where none is named.

    Raises
    ------
    QueryError
        If a value is none that its parameter takes.
    """
    model = _choice(given, "model", tuple(models), next(iter(models)))
    attributes = models[model]
    names = [attribute.name for attribute in attributes]
    for name in given:
        if name in ATTRIBUTES and name not in names:
            raise QueryError(f"{name} is unknown to this checkpoint: it knows {', '.join(names)}", name, "left out")
    return GalaxyQuery(
        model,
        MORPHOLOGY_NAMES.index(_choice(given, "morphology", MORPHOLOGY_NAMES)),
        tuple(_number(given, attribute) for attribute in attributes),
        _whole(given, "seed", 0, MAX_SEED, 0),
    )


def read_pixels(given: Mapping[str, str], choices: Sequence[int], default: int) -> int:
    """Read how many pixels a side a picture or a tile has."""
    return int(_choice(given, "pixels", tuple(map(str, choices)), str(default)))


def read_sheet(given: Mapping[str, str], models: Mapping[str, Sequence[Attribute]]) -> SheetQuery:
    """Read which sheet is wanted; see `read_galaxy`."""
    base = read_galaxy(given, models)
    swept = None
    if "sweep" in given:
        names = tuple(attribute.name for attribute in models[base.model])
        swept = names.index(_choice(given, "sweep", names))
        if "seeds" in given:
            raise QueryError("seeds cannot be combined with sweep: give one of them", "seeds", "left out")
        count = _whole(given, "steps", *STEPS, 9)
    elif "steps" in given:
        raise QueryError("steps needs sweep, the name of an attribute", "steps", "left out without sweep")
    else:
        count = _whole(given, "seeds", *SEEDS)
        _whole(given, "seed", 0, MAX_SEED + 1 - count, 0)
    return SheetQuery(base, count, swept, _whole(given, "columns", *COLUMNS, count))


def _choice(given: Mapping[str, str], name: str, choices: tuple[str, ...], default: str | None = None) -> str:
    value = given.get(name, default)
    if value is None:
        raise QueryError(f"{name} is missing: choose one of {', '.join(choices)}", name, ", ".join(choices))
    if value not in choices:
        raise QueryError(f"{name} is {shown(value)}: choose one of {', '.join(choices)}", name, ", ".join(choices))
    return value


def _number(given: Mapping[str, str], attribute: Attribute) -> float | None:
    if attribute.name not in given:
        return None
    text, allowed = given[attribute.name], f"{attribute.low:g} to {attribute.high:g}"
    value = float(text) if _NUMBER.fullmatch(text) else None
    if value is None or not attribute.low <= value <= attribute.high:
        unit = f" {attribute.unit}" if attribute.unit else ""
        raise QueryError(
            f"{attribute.name} is {shown(text)}: it takes a number from {allowed}{unit}", attribute.name, allowed
        )
    return value + 0.0  # no negative zero


def _whole(given: Mapping[str, str], name: str, low: int, high: int, default: int | None = None) -> int:
    allowed = f"{low} to {high}"
    if name not in given:
        if default is None:
            raise QueryError(f"{name} is missing: it takes a whole number from {allowed}", name, allowed)
        return default
    text = given[name]
    if not (_WHOLE.fullmatch(text) and low <= int(text) <= high):
        raise QueryError(f"{name} is {shown(text)}: it takes a whole number from {allowed}", name, allowed)
    return int(text)
