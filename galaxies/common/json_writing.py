"""The one door through which values become JSON: what is no number there, NaN and infinity, goes out as null."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any, indent: int | None = None, sort_keys: bool = False, ensure_ascii: bool = True) -> str:
    """Return plain values as JSON that every reader takes.

    Python would write NaN and Infinity, which JSON does not have: other programs refuse the whole file, and a strict
    writer would end a run after hours for one number that could not be had.

    Parameters
    ----------
    value
        Dicts, lists, tuples, text, numbers, yes or no, None, nested.
    indent, sort_keys, ensure_ascii
        As for `json.dumps`.

    Raises
    ------
    TypeError
        If something is none of these.
    """
    return json.dumps(_finite(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii, allow_nan=False)


def _finite(value: Any) -> Any:
    """Return plain values with None for each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
