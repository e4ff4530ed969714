"""Columns of a user's own table that become attributes: which they are, their values, and what is told of them."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from config_physics import check_own_name
from galaxies.common.attributes import (
    Attribute,
    AttributeOption,
    attribute_defined,
    completed,
    read_attribute_option,
)
from galaxies.common.errors import UserError
from galaxies.tables.numbers import NumberReader, Quantity
from galaxies.tables.reading import Table, listed

_LARGEST_WHOLE = 2**24  # from here on single precision tells whole numbers apart no longer
_USUAL = (-90.0, 90.0)  # 99.99 and -999 stand for an unknown value where nothing else is told
_CENTRAL = (0.5, 99.5)  # percent of the galaxies between which the range of an attribute goes
_INFINITE = frozenset(("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"))

Columns = dict[str, np.ndarray]  # values (N,), float64, NaN where unknown, by the name of the attribute


def add_attribute_option(parser: argparse.ArgumentParser, others: str) -> None:
    """Add the option that names attributes of a user's own; `others` says what becomes of columns without it."""
    parser.add_argument(
        "--attribute",
        action="append",
        type=read_attribute_option,
        metavar="NAME:KEY=VALUE,…",
        help='a column of numbers to condition on, such as halpha_ew:unit=Angstrom,scale=asinh,label="H-alpha EW"; '
        "may be given for several. column: its name in the table (default: NAME); label (default: NAME) and unit "
        "(default: none) for people; scale: linear, log or asinh (default: linear); softening of asinh, above which "
        "it is logarithmic (default: the median absolute value); low and high end of its range (default: those of "
        f"the central 99 %% of the values). {others}",
    )


def own_quantity(option: AttributeOption | None = None) -> Quantity:
    """Return what a column of a user's own may hold: any number; what nines stand for follows from its range."""
    low, high = (None, None) if option is None else (option.low, option.high)
    usual = (_USUAL[0] if low is None else low, _USUAL[1] if high is None else high)
    return Quantity((-math.inf, math.inf), usual)


def check_options(options: Sequence[AttributeOption]) -> None:
    """Refuse options that name an attribute twice, or as something that the program knows.

    Raises
    ------
    UserError
    """
    counts = Counter(option.name for option in options)
    for option in options:
        check_own_name(option.name)
        if counts[option.name] > 1:
            raise UserError(f"--attribute names {option.name} {counts[option.name]} times: name it once")


def read_named(table: Table, option: AttributeOption, numbers: NumberReader) -> np.ndarray:
    """Return the values (N,) of a column that an option names, float64, NaN where unknown.

    Raises
    ------
    UserError
        If the table lacks it, or a cell is infinite or no number: it names file, column and row.
    """
    if option.column not in table.cells or table.others.count(option.column) > 1:
        has = listed([*table.cells, *(name for name in table.others if name not in table.cells)])
        why = f"has two columns {option.column}" if option.column in table.cells else f"has no column {option.column}"
        raise UserError(f"{table.file} {why}, which --attribute {option.name} names: it has {has}")
    cells = table.cells[option.column]
    for row, text in enumerate(cells):
        if text.strip().lower() in _INFINITE:
            raise UserError(
                f"{table.place(option.column, row)} holds {text.strip()!r}, and no galaxy has an infinite "
                f"{option.name}: leave the cell empty where it is unknown"
            )
    return numbers.read(option.column, own_quantity(option))


def own_columns(
    table: Table, options: Sequence[AttributeOption], numbers: NumberReader
) -> tuple[Columns, tuple[Attribute, ...]]:
    """Return the columns of a table that are attributes of the user's own, and what these are; the rest is said.

    Those that an option names, and of the others all that hold numbers.

    Parameters
    ----------
    table : Table
        Read with all of its columns.
    options : sequence of AttributeOption
    numbers : NumberReader
        Of the table.

    Raises
    ------
    UserError
        If what an option names cannot be had.
    """
    check_options(options)
    columns: Columns = {}
    rows: list[Attribute] = []
    for option in options:
        columns[option.name] = read_named(table, option, numbers)
        rows.append(own_attribute(option, columns[option.name]))
    kept: list[str] = []
    ignored: dict[str, list[str]] = {}
    named = {option.column for option in options}
    for name in dict.fromkeys(name for name in table.others if name not in named):
        if name in columns:
            ignored.setdefault(f"since --attribute {name} takes another column", []).append(name)
            continue
        found = _unnamed(table, name)
        if isinstance(found, str):
            ignored.setdefault(found, []).append(name)
            continue
        columns[name], row = found
        kept.append(name)
        rows.append(row)
    if kept:
        print(
            f"kept as attributes, as they stand in {table.file}: {listed(kept)} (--attribute tells unit, scale and "
            "label)"
        )
    for reason, names in ignored.items():
        print(f"ignored: {listed(names)} of {table.file}, {reason}")
    return columns, tuple(rows)


def _unnamed(table: Table, name: str) -> tuple[np.ndarray, Attribute] | str:
    """Return a column that no option names with its attribute, or why it is none, as a clause."""
    if table.others.count(name) > 1:
        return "which is there more than once"
    try:
        check_own_name(name)
        usable = True
    except UserError:
        usable = False
    option = read_attribute_option(name if usable else "x")._replace(column=name)
    try:
        values = read_named(table, option, NumberReader(table))
    except UserError:
        return "which is no attribute of the catalogue: it holds text"
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return "which is empty"
    if np.abs(known).max() >= _LARGEST_WHOLE and (known % 1 == 0).all():
        return "which holds whole numbers as large as ids are"
    if np.ptp(known) == 0:
        return "which is the same for every galaxy"
    if not usable:
        return "whose name the program cannot use: --attribute NAME:column=… gives it another"
    return values, own_attribute(option, values)


def together(layouts: Mapping[str, Sequence[Attribute]]) -> tuple[Attribute, ...]:
    """Return the attributes of several datasets together, each with a range that holds those of all.

    Parameters
    ----------
    layouts : dict of str to sequence of Attribute
        By what a dataset is called.

    Raises
    ------
    UserError
        If two datasets mean different things by one name.
    """
    found: dict[str, tuple[str, Attribute]] = {}
    for where, rows in layouts.items():
        for row in rows:
            if row.name not in found:
                found[row.name] = where, row
                continue
            first, other = found[row.name]
            for what in ("unit", "scale"):
                one, two = getattr(other, what), getattr(row, what)
                if one != two:
                    raise UserError(
                        f"{first} has {row.name} with the {what} {one!r}, and {where} with {two!r}: prepare them alike"
                    )
            ends = min(other.low, row.low), max(other.high, row.high)
            found[row.name] = first, with_range(other, *ends)
    return tuple(row for _, row in found.values())


def with_range(attribute: Attribute, low: float, high: float) -> Attribute:
    """Return an attribute of a user's own with another range."""
    return attribute_defined(replace(attribute, low=low, high=high).definition())


def own_attribute(option: AttributeOption, values: np.ndarray) -> Attribute:
    """Return the attribute that an option tells, completed by its values: range, and softening of asinh.

    Parameters
    ----------
    option : AttributeOption
    values : ndarray, (N,), float64
        In the attribute's unit, NaN where unknown.

    Returns
    -------
    Attribute
        Its range holds the central 99 % of the values, with ends rounded outwards; its softening is the median absolute
        value, two digits of it, of values other than 0.

    Raises
    ------
    UserError
        If nothing is known, all values are the same, or one is not above 0 on a logarithmic scale.
    """
    known = values[np.isfinite(values)]
    if len(known) == 0:
        raise UserError(
            f"attribute {option.name} is known for no galaxy: every cell of column {option.column} is empty"
        )
    if np.ptp(known) == 0:
        raise UserError(
            f"attribute {option.name} is {known[0]:g} for every galaxy that knows it (column {option.column}): "
            "nothing can be learned of it"
        )
    if option.scale == "log" and not known.min() > 0:
        raise UserError(
            f"attribute {option.name} has values such as {known.min():g} (column {option.column}), which have no "
            "logarithm: take scale=asinh, or leave those cells empty"
        )
    softening = option.softening
    if option.scale == "asinh" and softening is None:
        softening = float(f"{np.median(np.abs(known[known != 0])):.2g}")
    low, high = (float(end) for end in np.percentile(known, _CENTRAL))
    if not low < high:
        low, high = float(known.min()), float(known.max())
    low, high = _rounded_outwards(option.scale, low, high)
    low, high = (end if told is None else told for told, end in ((option.low, low), (option.high, high)))
    if not low < high:
        raise UserError(f"attribute {option.name} has a range from {low:g} to {high:g}: name both ends, low and high")
    return completed(option._replace(softening=softening, low=low, high=high))


def _rounded_outwards(scale: str, low: float, high: float) -> tuple[float, float]:
    """Return a range with ends rounded outwards: to hundredths of its width, of log and asinh to two digits each."""
    if scale != "linear":
        return _two_digits(low, math.floor), _two_digits(high, math.ceil)
    step = 10.0 ** math.floor(math.log10(high - low)) / 10
    return float(f"{math.floor(low / step) * step:.10g}"), float(f"{math.ceil(high / step) * step:.10g}")


def _two_digits(value: float, rounding: Any) -> float:
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{rounding(value / step) * step:.6g}")
