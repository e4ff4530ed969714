"""A queue before a model: what waits is worked on together, and what would wait too long is refused at once."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLongError  # the built-in one from Python 3.11 on
from contextlib import contextmanager
from typing import Generic, TypeVar

MOST_REQUESTS = 24  # under way at the same time, a model; the server refuses more unless it is told otherwise

Item = TypeVar("Item")
Result = TypeVar("Result")


class BusyError(Exception):
    """More is asked than can be done in time.

    Attributes
    ----------
    retry_after_s : int
        When it is worth trying again.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the server is busy")
        self.retry_after_s = min(60, max(1, math.ceil(retry_after_s)))


class ImageQueue(Generic[Item, Result]):
    """Give what many threads ask for to one worker, which does it in batches, first come, first served.

    Parameters
    ----------
    work : callable
        From a list of items to the list of their results; it runs in the worker's thread alone.
    most_together : int
        Items in a batch.
    most_requests : int
        Requests that are under way at the same time.
    patience_s : float
        Longest time that a request waits.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], list[Result]],
        most_together: int,
        most_requests: int,
        patience_s: float,
    ) -> None:
        self._work, self._most_together, self._patience_s = work, most_together, patience_s
        self._places = threading.BoundedSemaphore(most_requests)
        self._waiting: deque[tuple[Item, Future[Result], Callable[[], bool]]] = deque()
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None
        self._batch_s = 0.0  # what a batch took lately; one of few items takes about as long

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests.

        Raises
        ------
        BusyError
            If none is free.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError(self._wait_s())
        try:
            yield
        finally:
            self._places.release()

    def results(self, items: Sequence[Item], is_wanted: Callable[[], bool] = lambda: True) -> list[Result]:
        """Wait for the results of items.

        Parameters
        ----------
        items : sequence
        is_wanted : callable
            Asked by the worker before it begins: whether anybody still waits for them.

        Raises
        ------
        BusyError
            At once if what waits already takes longer than the patience; otherwise when the patience is at its end.
            What has not begun then is never begun.
        """
        jobs: list[tuple[Item, Future[Result], Callable[[], bool]]] = [(item, Future(), is_wanted) for item in items]
        with self._changed:
            if (ahead_s := self._wait_s()) > self._patience_s:
                raise BusyError(ahead_s - self._patience_s)
            self._waiting.extend(jobs)
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="image queue", daemon=True)
                self._worker.start()
            self._changed.notify()
        deadline = time.monotonic() + self._patience_s
        try:
            return [future.result(max(0.0, deadline - time.monotonic())) for _, future, _ in jobs]
        except (WaitedTooLongError, CancelledError):
            raise BusyError(self._wait_s()) from None
        finally:
            dropped = [future.cancel() for _, future, _ in jobs]  # of each: whether it had not begun
            if any(dropped):
                with self._changed:
                    self._waiting = deque(job for job in self._waiting if not job[1].cancelled())

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                taken = [self._waiting.popleft() for _ in range(min(self._most_together, len(self._waiting)))]
            batch = []
            for item, future, is_wanted in taken:
                if not is_wanted():
                    future.cancel()
                if future.set_running_or_notify_cancel():
                    batch.append((item, future))
            if batch:
                self._answer(batch)

    def _answer(self, batch: list[tuple[Item, Future[Result]]]) -> None:
        started = time.monotonic()
        try:
            results = list(zip(batch, self._work([item for item, _ in batch]), strict=True))
        except Exception as error:  # it is raised in the threads that wait
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in results:
            future.set_result(result)
        took = time.monotonic() - started
        self._batch_s += (0.3 if self._batch_s else 1.0) * (took - self._batch_s)

    def _wait_s(self) -> float:
        """Estimate how long what waits will take."""
        return math.ceil(len(self._waiting) / self._most_together) * self._batch_s
