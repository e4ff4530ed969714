"""Being asked to stop while something is under way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StopSignals:
    """While entered, call `request` on Ctrl-C and on SIGTERM, so that a loop can finish its step and save."""

    def __init__(self, request: Callable[[], None]) -> None:
        self._request = request

    def __enter__(self) -> None:
        def handle(number: int, frame: object) -> None:
            self._request()

        self._previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextmanager
def exits_when_terminated() -> Iterator[None]:
    """Let SIGTERM raise `SystemExit` of status 128 + its number, so that what is half-made is removed on the way out.

    Outside of the main thread, which alone may set handlers, it does nothing.
    """

    def handle(number: int, frame: object) -> None:
        sys.exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, handle)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
