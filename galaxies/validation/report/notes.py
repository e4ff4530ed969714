"""Notes of a page: a reason that stands in many places is said once, and its number stands where it applies."""

from __future__ import annotations

import re
from collections import Counter

# What differs from place to place in the same reason: how many galaxies there were.
_HAS = re.compile(r",? has \d[\d,]*( real)?( and \d[\d,]*)?( generated)?$")


class Notes:
    """Reasons in the order in which they come up, each once; numbers of galaxies that were there count as the same."""

    def __init__(self) -> None:
        self._places: Counter[str] = Counter()
        self._whole: dict[str, str] = {}

    def mark(self, reason: str) -> int:
        """Return the number, from 1, of the note that says this reason."""
        rule = _HAS.sub("", reason)
        self._places[rule] += 1
        self._whole.setdefault(rule, reason)
        return list(self._places).index(rule) + 1

    def texts(self) -> list[str]:
        """Return the notes: the whole reason where it stands once, else what is alike, and in how many places."""
        return [self._whole[rule] if count == 1 else f"{rule} ({count} places)" for rule, count in self._places.items()]
