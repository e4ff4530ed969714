"""Work spread over cores: one thread each, results in order, everything put back."""

from __future__ import annotations

import threading

import pytest
import torch

from galaxies.compute.cores import map_on_cores


def test_results_are_in_the_order_of_the_items(threads):
    assert map_on_cores(lambda item: item**2, range(20)) == [item**2 for item in range(20)]


@pytest.mark.parametrize("count", [1, 8])
def test_each_call_computes_on_one_thread(threads, count):
    assert map_on_cores(lambda _: torch.get_num_threads(), range(count)) == [1] * count
    assert torch.get_num_threads() == threads
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [threads]


def test_calls_overlap():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        meeting = threading.Barrier(2, timeout=20)
        assert sorted(map_on_cores(lambda _: meeting.wait(), range(2))) == [0, 1]
    finally:
        torch.set_num_threads(before)


def test_callers_do_not_wait_for_each_other():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meeting, counts = threading.Barrier(4, timeout=20), []

    def work(_) -> None:
        meeting.wait()
        counts.append(torch.get_num_threads())

    def call() -> None:
        torch.set_num_threads(2)
        map_on_cores(work, range(2))
        counts.append(torch.get_num_threads())

    try:
        callers = [threading.Thread(target=call) for _ in range(2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert sorted(counts) == [1, 1, 1, 1, 2, 2]
    finally:
        torch.set_num_threads(before)


def test_a_thread_that_cannot_start_is_an_error_and_no_wait(monkeypatch):
    before, start = torch.get_num_threads(), threading.Thread.start
    torch.set_num_threads(2)
    started = []

    def start_one(thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    try:
        with pytest.raises(RuntimeError, match="can't start"):
            map_on_cores(abs, range(2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_comes_out_and_leaves_the_threads_as_they_were(threads):
    with pytest.raises(ZeroDivisionError):
        map_on_cores(lambda item: 1 // item, range(3))
    assert torch.get_num_threads() == threads


def test_nothing_to_do(threads):
    assert map_on_cores(abs, []) == []
