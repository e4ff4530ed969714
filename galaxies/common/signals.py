"""Being asked to stop while something is under way."""

from __future__ import annotations

import signal
from collections.abc import Callable


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
