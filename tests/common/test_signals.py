"""Being terminated: the handler while it is wanted, the one of before afterwards, and threads that have none."""

import signal
import threading

import pytest

from galaxies.common.signals import exits_when_terminated


@pytest.fixture
def before():
    """Let a handler that never ends the process stand while a test runs."""
    calls: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    yield calls
    signal.signal(signal.SIGTERM, previous)


def test_being_terminated_is_an_orderly_exit(before):
    cleaned = []
    with pytest.raises(SystemExit) as caught, exits_when_terminated():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)
    assert caught.value.code == 128 + signal.SIGTERM
    assert cleaned == [True]
    signal.raise_signal(signal.SIGTERM)
    assert before == [signal.SIGTERM]


def test_other_threads_leave_the_handler_alone(before):
    seen = []

    def work():
        with exits_when_terminated():
            seen.append(signal.getsignal(signal.SIGTERM))

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=10)
    assert seen == [handler]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_an_error_inside_is_passed_on_and_the_handler_put_back(before):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), exits_when_terminated():
        raise KeyError("x")
    assert signal.getsignal(signal.SIGTERM) is handler
