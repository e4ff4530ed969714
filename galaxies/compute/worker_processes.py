"""Work in several processes, where threads would wait for each other: for Python's lock, or for memory.

Each process starts with a fresh interpreter, on every system alike, and takes a second or two to load PyTorch; so this
pays for work of many seconds. `cores.py` is for less.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from galaxies.common.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_PROCESSES = 61  # as many as Windows lets one process wait for
_AHEAD = 3  # items under way or waiting for a process: so many times the processes


def stream_on_processes(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int, what: str
) -> Iterator[Result]:
    """Apply a function to items in several processes, each of which computes on a single thread.

    The processes end when the iterator is closed or used up, and when this process dies in whatever way. Ctrl-C
    reaches this process alone.

    Parameters
    ----------
    function : callable
        A function of a module, or a `functools.partial` of one, which every process imports for itself.
    items : iterable
        Taken a few ahead of what is yielded, so that many need no more memory than few.
    processes : int
        How many, at most `MOST_PROCESSES`.
    what : str
        What the processes do, for the error message: "read pictures".

    Yields
    ------
    Results in the order of the items. The first item, in that order, that raises ends it with what it raised.

    Raises
    ------
    UserError
        If a process is ended by others, such as a system without memory.
    """
    remaining = iter(items)
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=_begin)
    waiting: deque[Future[Result]] = deque()
    try:
        while True:
            for item in islice(remaining, _AHEAD * processes - len(waiting)):
                with _interrupts_held():  # a new process begins here
                    waiting.append(pool.submit(function, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            f"one of the {processes} processes that {what} was ended, perhaps for want of memory: try fewer"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait, here and, where a system hands that down, for good in processes that begin meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Prepare a process for its work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and ends this process
    # A process that waits for work does not notice that nobody is left to give it any.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # of a process that was started for this
    parent.join()
    os._exit(1)
