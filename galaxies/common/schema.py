"""What a value from a file has to be: checks that are put together like the value, and say where it is something else.

    manifest = entries({"count": whole(1), "sha256": mapping(text())}, {"source": text()})
    manifest({"count": 0, "sha256": {}})  # SchemaError: count is 0, not a whole number of 1 or more

A check is called with a value and the place where it stands. Nothing is changed, and nothing beyond what the checks
name is looked at, so that neither depth nor a value within itself does harm. A new kind of check is a `Check` of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from galaxies.common.errors import shown


class SchemaError(ValueError):
    """What a value is and should be, as a clause: "count is 0, not a whole number of 1 or more"."""


class Check:
    """One check.

    Parameters
    ----------
    wanted : str
        What a value has to be: "a whole number", "one of 'a', 'b'".
    fits : callable
        Tells of a value whether it is that; an error of it counts as no.
    within : callable, optional
        Checks what is within a value that fits, given the value and its place.
    """

    def __init__(
        self, wanted: str, fits: Callable[[Any], bool], within: Callable[[Any, str], None] | None = None
    ) -> None:
        self.wanted, self.fits, self._within = wanted, fits, within

    def __call__(self, value: Any, place: str = "") -> None:
        """Check a value that stands at `place`, "" for the whole of a file.

        Raises
        ------
        SchemaError
        """
        if not self.fits(value):
            raise SchemaError(f"{place or 'it'} is {brief(value)}, not {self.wanted}")
        if self._within:
            self._within(value, place)


def brief(value: Any) -> str:
    """Describe a value in a few words, whatever it is."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict):
        return f"a mapping of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return f"of type {type(value).__name__}"


def within(place: str, key: Any) -> str:
    """Return the place of an entry, by its name or number, in what stands at `place`."""
    if isinstance(key, int):
        return f"{place}[{key}]"
    plain = isinstance(key, str) and len(key) <= 60 and key.replace("-", "_").replace(".", "_").isidentifier()
    name = key if plain else brief(key)
    return f"{place}.{name}" if place else name


def whole(low: int | None = None, high: int | None = None) -> Check:
    """Accept whole numbers between two limits, both allowed; True and False are none, nor is 1.0."""
    return Check(
        f"a whole number{_range(low, high)}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and _lies(value, low, high),
    )


def number(low: float | None = None, high: float | None = None, unknown: bool = False) -> Check:
    """Accept finite numbers between two limits, both allowed; with `unknown` NaN too."""
    return Check(
        f"a finite number{_range(low, high)}{' or NaN' if unknown else ''}",
        lambda value: (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and ((abs(value) <= 1.7e308 and _lies(value, low, high)) or (unknown and value != value))
        ),
    )


def text(*choices: str, most: int | None = None) -> Check:
    """Accept text: any, one of some, or of at most so many characters."""
    wanted = f"one of {', '.join(map(repr, choices))}" if choices else "text"
    return Check(
        wanted if most is None else f"{wanted} of at most {most} characters",
        lambda value: (
            isinstance(value, str) and (not choices or value in choices) and (most is None or len(value) <= most)
        ),
    )


def flag() -> Check:
    """Accept True and False."""
    return Check("true or false", lambda value: isinstance(value, bool))


def anything() -> Check:
    """Accept whatever there is, without a look within."""
    return Check("anything", lambda value: True)


def exactly(value: Any) -> Check:
    """Accept one value, such as None."""
    return Check(brief(value), lambda found: type(found) is type(value) and found == value)


def either(*checks: Check) -> Check:
    """Accept what one of the checks accepts; what is within a value is then checked by the first that it fits."""

    def inner(value: Any, place: str) -> None:
        next(check for check in checks if check.fits(value))(value, place)

    return Check(" or ".join(check.wanted for check in checks), lambda value: any(c.fits(value) for c in checks), inner)


def items(check: Check, least: int = 0, most: int | None = None) -> Check:
    """Accept lists, and tuples, of so many values that all pass a check."""

    def inner(value: Any, place: str) -> None:
        for place_in, item in enumerate(value):
            check(item, within(place, place_in))

    amount = "" if (least, most) == (0, None) else f" of {least} to {'any number of' if most is None else most} values"
    if least == most:
        amount = f" of {least} values"
    return Check(
        f"a list{amount}",
        lambda value: isinstance(value, (list, tuple)) and least <= len(value) <= (math.inf if most is None else most),
        inner,
    )


def mapping(check: Check, names: Check | None = None) -> Check:
    """Accept mappings of names, which are text or pass a check, to values that all pass a check."""

    def inner(value: Any, place: str) -> None:
        for name, entry in value.items():
            (names or text())(name, f"the name {brief(name)} in {place or 'it'}")
            check(entry, within(place, name))

    return Check("a mapping", lambda value: isinstance(value, dict), inner)


def entries(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, others: bool = True) -> Check:
    """Accept mappings with these entries, each of which passes its own check; with `others` more than these."""
    known = {**required, **(optional or {})}

    def inner(value: Any, place: str) -> None:
        for name in required:
            if name not in value:
                raise SchemaError(f"{within(place, name)} is missing")
        for name, entry in value.items():
            if name in known:
                known[name](entry, within(place, name))
            elif not others:
                raise SchemaError(f"{within(place, name)} has no business there")

    return Check("a mapping", lambda value: isinstance(value, dict), inner)


def _lies(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of {low} or more"
    return "" if high is None else f" of {high} or less"
