"""Work on all cores of the CPU with results that do not depend on how many there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_cores(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function to items at the same time on different cores, each call computing on a single thread.

    PyTorch splits an operation over its threads, and how it was split can show in the last bits of a sum. Here the
    items are split over the threads instead, so each result is that of one thread on one item, whatever the machine.
    For small items this is the faster way as well: the threads need not wait for each other after every operation.
    Several threads may call this at the same time, and share the cores.

    Parameters
    ----------
    function : callable
        Must not call `map_on_cores`. Its calls overlap; what it changes must be its own.
    items : sequence
        Worked on by as many threads as `torch.get_num_threads()` says.

    Returns
    -------
    list
        Results in the order of the items.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) == 0:
        return [function(item) for item in items]
    workers = min(threads, len(items))
    begun = threading.Barrier(workers + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question sets its number to that of new threads
        torch.set_num_threads(1)  # for this thread, and for those that start from here on
        begun.wait()

    with ThreadPoolExecutor(workers, initializer=begin) as pool:
        try:
            results = pool.map(function, items)
            begun.wait()
        except BaseException:  # such as no room for another thread: the others must not wait for it
            begun.abort()
            raise
        finally:
            torch.set_num_threads(threads)  # for this thread as before, and for later ones
        return list(results)
