"""Work in processes: in order, one thread each, gone with whoever started them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from galaxies.common.errors import UserError
from galaxies.compute.worker_processes import stream_on_processes
from tests.compute.process_work import place_of
from tests.conftest import ROOT


def children() -> list:
    return multiprocessing.active_children()


def test_results_are_in_order_from_processes_of_one_thread_that_end():
    taken = itertools.count()
    found = stream_on_processes(place_of, (next(taken) for _ in range(900)), 2, "count")
    results = list(itertools.islice(found, 40))
    assert [result[0] for result in results] == list(range(40))
    assert os.getpid() not in {result[1] for result in results} and 1 <= len({result[1] for result in results}) <= 2
    assert {result[2:] for result in results} == {(1, True)}
    assert next(taken) <= 40 + 3 * 2 + 1  # taken a few ahead, not all
    assert children()
    found.close()
    assert not children()


def test_the_first_error_in_the_order_of_the_items_comes_out():
    with pytest.raises(UserError, match="item -7 cannot be read"):
        list(stream_on_processes(place_of, [1, 2, -7, 3, -8], 1, "count"))
    assert not children()


def test_a_process_that_is_ended_is_one_sentence():
    with pytest.raises(UserError, match=r"^one of the 1 processes that count was ended, perhaps for want of memory"):
        list(stream_on_processes(place_of, [1, 1000, 2], 1, "count"))
    assert not children()


@pytest.mark.skipif(os.name == "nt", reason="asks for processes as POSIX does")
def test_processes_end_with_a_parent_that_is_killed():
    code = (
        "import time\n"
        "from galaxies.compute.worker_processes import stream_on_processes\n"
        "from tests.compute.process_work import place_of\n"
        "found = stream_on_processes(place_of, range(10**6), 1, 'count')\n"
        "print(next(found)[1], flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)
    parent.kill()
    parent.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlives its parent")
