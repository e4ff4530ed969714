"""Numbers read from words: those of command lines, of tables and of addresses."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MAX_IMAGES = 100_000_000  # of one call: a terabyte at 64 pixels
_MAX_SEED = 2**63 - 1 - MAX_IMAGES


def finite_number(text: str) -> float:
    """Read an option's or a cell's number that single precision can hold."""
    value = float(text)
    if not abs(value) < 1e30:  # not a number, infinite, or beyond the networks' arithmetic
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of an option's whole number between two limits, both allowed."""

    def whole_number(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise argparse.ArgumentTypeError(f"{text} must lie between {low} and {high}")
        return value

    return whole_number


def seed_number(text: str) -> int:
    """Read the seed of an image; those of the `MAX_IMAGES` images after it fit 64 bits too."""
    if not 0 <= (value := int(text)) <= _MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and {_MAX_SEED}")
    return value
