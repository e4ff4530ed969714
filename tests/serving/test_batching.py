"""The queue before a model: batches, order, refusals, requests that nobody waits for; and the bounded cache."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from galaxies.serving.batching import BusyError, ImageQueue
from galaxies.serving.cache import BoundedCache


class Work:
    """Doubles numbers once it may, and remembers the batches."""

    def __init__(self, may_go: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        if may_go:
            self.go.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.begun.release()
        assert self.go.wait(20)
        return [2 * item for item in items]


def in_threads(queue: ImageQueue, *calls, **kwargs) -> list[threading.Thread]:
    """Ask for items, each call in a thread of its own, and wait until all are in the queue."""
    threads = []
    for items in calls:
        before = len(queue._waiting)
        threads.append(threading.Thread(target=queue.results, args=(items,), kwargs=kwargs))
        threads[-1].start()
        while len(queue._waiting) < before + len(items):
            time.sleep(0.001)
    return threads


def blocked_queue(work: Work, most_together: int = 4, patience_s: float = 20.0, **kwargs) -> tuple:
    """Return a queue whose worker is busy with item 0, and the thread that waits for it."""
    queue = ImageQueue(work, most_together, most_requests=3, patience_s=patience_s)
    first = threading.Thread(target=lambda: _quietly(queue, [0]))
    first.start()
    assert work.begun.acquire(timeout=20)
    return queue, first


def _quietly(queue: ImageQueue, items: list[int]) -> None:
    with contextlib.suppress(BusyError):
        queue.results(items)


def test_results_are_those_of_the_items():
    work = Work()
    queue = ImageQueue(work, most_together=2, most_requests=1, patience_s=20)
    assert queue.results([1, 2, 3]) == [2, 4, 6]
    assert queue.results([]) == []


def test_what_waits_is_done_together_in_order():
    work = Work(may_go=False)
    queue, first = blocked_queue(work, most_together=4)
    threads = in_threads(queue, [1], [2, 3], [4, 5])
    work.go.set()
    for thread in [first, *threads]:
        thread.join(20)
    assert work.batches == [[0], [1, 2, 3, 4], [5]]


def test_places_are_limited():
    queue = ImageQueue(Work(), most_together=1, most_requests=2, patience_s=20)
    with queue.place(), queue.place(), pytest.raises(BusyError) as caught, queue.place():
        pass
    assert caught.value.retry_after_s == 1
    with queue.place(), queue.place():  # they are free again
        pass


def test_a_long_wait_is_refused_at_once():
    work = Work(may_go=False)
    queue, first = blocked_queue(work, most_together=1, patience_s=5)
    threads = in_threads(queue, [1], [2], [3])
    queue._batch_s = 4.0  # three batches wait
    started = time.monotonic()
    with pytest.raises(BusyError) as caught:
        queue.results([4])
    assert time.monotonic() - started < 1
    assert caught.value.retry_after_s == 7
    work.go.set()
    for thread in [first, *threads]:
        thread.join(20)
    assert work.batches == [[0], [1], [2], [3]]


def test_a_wait_ends_when_the_patience_does_and_the_work_is_dropped():
    work = Work(may_go=False)
    queue, first = blocked_queue(work, patience_s=0.1)
    queue._batch_s = 0.05
    for _ in range(2):  # what was dropped is not waited for
        with pytest.raises(BusyError) as caught:
            queue.results(list(range(1, 9)))
        assert caught.value.retry_after_s == 1
        assert queue._wait_s() == 0
    work.go.set()
    first.join(20)
    assert queue.results([3]) == [6]
    assert work.batches == [[0], [3]]


def test_what_nobody_wants_is_not_done():
    work = Work(may_go=False)
    queue, first = blocked_queue(work)
    gone = threading.Event()
    outcome: list[str] = []

    def ask() -> None:
        try:
            queue.results([1, 2], lambda: not gone.is_set())
        except BusyError:
            outcome.append("dropped")

    thread = threading.Thread(target=ask)
    thread.start()
    while not queue._waiting:
        time.sleep(0.001)
    gone.set()
    work.go.set()
    thread.join(20)
    first.join(20)
    assert outcome == ["dropped"]
    assert queue.results([3]) == [6]
    assert work.batches == [[0], [3]]


@pytest.mark.parametrize("work", [lambda _: 1 // 0, lambda items: items[:-1]])
def test_an_error_reaches_those_who_wait_and_the_worker_goes_on(work):
    queue = ImageQueue(work, most_together=2, most_requests=1, patience_s=20)
    for _ in range(2):
        with pytest.raises((ZeroDivisionError, ValueError)):
            queue.results([1, 2])


def test_the_estimate_follows_the_batches():
    queue = ImageQueue(lambda items: time.sleep(0.02) or items, 4, 1, 20)
    for _ in range(10):
        queue.results([1])
    assert 0.015 < queue._batch_s < 0.2


@pytest.mark.parametrize(("seconds", "said"), [(0, 1), (0.2, 1), (7.2, 8), (1e9, 60)])
def test_when_to_come_back(seconds, said):
    assert BusyError(seconds).retry_after_s == said


# The cache


def test_the_cache_keeps_what_was_used_last():
    cache = BoundedCache(100)
    for key in "abc":
        cache.put(key, key.upper(), 40)
    assert [cache.get(key) for key in "abc"] == [None, "B", "C"]
    assert cache.get("b") == "B"
    cache.put("d", "D", 40)
    assert [cache.get(key) for key in "bcd"] == ["B", None, "D"]


def test_the_cache_counts_a_value_that_is_put_again_once():
    cache = BoundedCache(100)
    for value in range(10):
        cache.put("a", value, 60)
    cache.put("b", 0, 40)
    assert (cache.get("a"), cache.get("b")) == (9, 0)


def test_what_is_too_large_is_not_kept():
    cache = BoundedCache(100)
    cache.put("a", 1, 101)
    assert cache.get("a") is None
    cache.put("b", 2, 100)
    assert cache.get("b") == 2
