"""Work on all cores of the CPU with results that do not depend on how many there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_ALONE = threading.Lock()  # the number of threads is the process's, so callers take turns


def map_on_cores(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function to items at the same time on different cores, each call computing on a single thread.

    PyTorch splits an operation over its threads, and how it was split can show in the last bits of a sum. Here the
    items are split over the threads instead, so each result is that of one thread on one item, whatever the machine.
    For small items this is the faster way as well: the threads need not wait for each other after every operation.

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
    with _ALONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # threads that start from here on compute with one thread too
        try:
            if threads == 1 or len(items) < 2:
                return [function(item) for item in items]
            with ThreadPoolExecutor(min(threads, len(items))) as pool:
                return list(pool.map(function, items))
        finally:
            torch.set_num_threads(threads)
