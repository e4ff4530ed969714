"""Work on all cores of the CPU with results that do not depend on how many there are."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # items under way or waiting for a thread: so many times the threads


def map_on_cores(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return what `stream_on_cores` yields, all of it, in the order of the items."""
    return list(stream_on_cores(function, items))


def stream_on_cores(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Iterator[Result]:
    """Apply a function to items at the same time on different cores, each call computing on a single thread.

    PyTorch splits an operation over its threads, and how it was split can show in the last bits of a sum. Here the
    items are split over the threads instead, so each result is that of one thread on one item, whatever the machine.
    For small items this is the faster way as well: the threads need not wait for each other after every operation,
    which on a machine with other work takes many times as long as the operations. Several threads may call this at
    the same time, and share the cores.

    Parameters
    ----------
    function : callable
        Its calls overlap; what it changes must be its own. One that itself comes here works through its items alone.
    items : iterable
        Taken a few ahead of what is yielded, so that many need no more memory than few.
    threads : int, optional
        How many work on the items; by default as many as `torch.get_num_threads()` says.

    Yields
    ------
    Results in the order of the items. The first item, in that order, that raises ends it with what it raised.
    """
    own = torch.get_num_threads()
    threads = threads or own
    remaining = iter(items)
    if threads == own == 1:
        yield from map(function, remaining)
        return
    first = list(islice(remaining, threads))
    if not first:
        return
    begun = threading.Barrier(len(first) + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question sets its number to that of new threads
        torch.set_num_threads(1)  # for this thread, and for those that start from here on
        begun.wait()

    pool = ThreadPoolExecutor(len(first), initializer=begin)
    try:
        try:
            waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in first)
            begun.wait()
        except BaseException:  # such as no room for another thread: the others must not wait for it
            begun.abort()
            raise
        finally:
            torch.set_num_threads(own)  # for this thread as before, and for later ones
        while waiting:
            waiting.extend(pool.submit(function, item) for item in islice(remaining, _AHEAD * threads - len(waiting)))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
