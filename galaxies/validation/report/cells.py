"""What the parts of a report are made of: estimates with intervals, what was left out, one thing a set or group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter

from config_physics import attribute_of
from galaxies.common.attributes import attribute_defined, fault_of_name
from galaxies.common.errors import UserError

ALL = "all"  # the group of all galaxies, beside one for each class
Instrument = Literal["photometry", "judge"]
Interval = tuple[float, float]  # 95 %
Figures = Iterator[tuple[str, "float | None"]]  # name and value; None where it was left out
T = TypeVar("T")


def _check_name(name: str) -> str:
    if len(name) > 100 or not name.isprintable():
        raise ValueError("this is no name of a group, a statistic or a space")
    return name


def _check_attribute(name: str) -> str:
    if attribute_of(name) is None and fault_of_name(name):
        raise ValueError("this is no attribute")
    return name


def _check_definition(line: str) -> str:
    try:
        attribute_defined(line)
    except UserError as error:
        raise ValueError("this tells no attribute") from error
    return line


def _check_all(groups: dict[str, T]) -> dict[str, T]:
    if ALL not in groups:
        raise ValueError(f"the group '{ALL}' is missing")
    return groups


Name = Annotated[str, AfterValidator(_check_name)]
Definition = Annotated[str, AfterValidator(_check_definition)]
AttributeName = Annotated[str, AfterValidator(_check_attribute)]
ByGroup = Annotated[dict[Name, T], AfterValidator(_check_all)]  # `ALL` is always there, and each class as far as known


class Part:
    """What all parts share: a key of report.json that they do not know makes it no report."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True)
class LeftOut(Part):
    """Stands where a number would, with the reason why there is none: a sentence. ``left_out`` in report.json."""

    reason: Annotated[str, Field(alias="left_out")]


@dataclass(frozen=True)
class Drawn(Part, Generic[T]):
    """One thing of the galaxies with requests like the test split, and of those with uniform requests."""

    test: T
    uniform: T

    def items(self) -> Iterator[tuple[str, T]]:
        """Go through the sets by name."""
        yield "test", self.test
        yield "uniform", self.uniform


@dataclass(frozen=True)
class Sets(Part, Generic[T]):
    """One thing of the real test galaxies and of both sets of generated ones."""

    real: T
    test: T
    uniform: T

    def items(self) -> Iterator[tuple[str, T]]:
        """Go through the sets by name."""
        yield "real", self.real
        yield "test", self.test
        yield "uniform", self.uniform


@dataclass(frozen=True)
class Estimate(Part):
    """A number with its 95 % interval; the value is None where it is not finite."""

    value: float | None
    interval: Interval


@dataclass(frozen=True)
class Share(Part):
    """A share of images, 0 to 1, with its 95 % bootstrap interval."""

    value: float
    interval: Interval
    images: int


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
Cell = TypeVar("Cell")


def cell_of(kind: type[Cell], plain: dict[str, Any]) -> Cell | LeftOut:
    """Return plain values as a cell of a report, or why they were left out.

    Raises
    ------
    ValueError
        If a field is missing, has another name or another type.
    """
    return (_adapter(LeftOut) if "left_out" in plain else _adapter(kind)).validate_python(plain)


def read(kind: type[Cell], plain: dict[str, Any]) -> Cell:
    """Return plain values as a cell that is never left out; errors are those of `cell_of`."""
    return _adapter(kind).validate_python(plain)


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what reads a type; to build it takes longer than to use it."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
