"""Numbers read from words: those of command lines, of tables and of addresses."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

MAX_IMAGES = 100_000_000  # of one call: a terabyte at 64 pixels
MAX_SEED = 2**63 - 1 - MAX_IMAGES
# Not " 1", 1_0, nan, inf nor digits of other scripts, all of which Python takes.
NUMBER_FORM = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WHOLE_FORM = re.compile(r"-?[0-9]{1,25}")  # longer ones are beyond every limit, and slow to read


def finite_number(text: str) -> float:
    """Read an option's number that single precision can hold."""
    value = float(text) if NUMBER_FORM.fullmatch(text) else float("nan")
    if not abs(value) < 1e30:  # not a number, infinite, or beyond the networks' arithmetic
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def finite_numbers(text: str) -> tuple[float, ...]:
    """Read an option's numbers, separated by commas."""
    return tuple(finite_number(part.strip()) for part in text.split(","))


def positive_number(text: str) -> float:
    """Read an option's number above 0."""
    if not (value := finite_number(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def positive_numbers(text: str) -> tuple[float, ...]:
    """Read an option's numbers above 0, separated by commas."""
    return tuple(positive_number(part.strip()) for part in text.split(","))


def number_between(low: float, high: float) -> Callable[[str], float]:
    """Return a reader of an option's number between two limits, both allowed."""

    def read(text: str) -> float:
        if not low <= (value := finite_number(text)) <= high:
            raise argparse.ArgumentTypeError(f"{text} must lie between {low:g} and {high:g}")
        return value

    return read


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of an option's whole number between two limits, both allowed."""

    def whole_number(text: str) -> int:
        if not WHOLE_FORM.fullmatch(text):
            raise ValueError
        if not low <= (value := int(text)) <= high:
            raise argparse.ArgumentTypeError(f"{text} must lie between {low} and {high}")
        return value

    return whole_number
