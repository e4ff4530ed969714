"""Functions that are recorded and replayed, and results that are on their way; on a GPU where there is one."""

from __future__ import annotations

import threading

import pytest
import torch

from galaxies.compute.device import Engine
from galaxies.compute.recorded_functions import Recorder, finished, plainly, to_device, to_host
from tests.compute.traced_step import TracedStep
from tests.conftest import needs_cuda


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    monkeypatch.setattr("galaxies.compute.recorded_functions.RecordedStep", TracedStep)
    return Recorder(Engine(torch.device("cpu"), bf16=False, graphs=True))


def test_plainly():
    assert plainly("sum", torch.add, torch.tensor(1), torch.tensor(2)) == 3


def test_without_graphs_a_function_is_called_as_it_is():
    recorder, given = Recorder(Engine.choose("cpu", mode="graph")), torch.ones(3)
    assert all(recorder("same", lambda x: x, given) is given for _ in range(5))
    assert recorder.num_graphs == 0


def test_what_is_recorded_follows_its_inputs_and_what_stays_in_place(recorder):
    weight, calls = torch.tensor(2.0), []

    def scaled(x, y):
        calls.append(1)
        return weight * x + y

    results = []
    for k in range(6):
        weight.fill_(k)
        results.append(recorder("scaled", scaled, torch.full((3,), float(k)), torch.tensor(0.5)))
    assert [r.tolist() for r in results] == [[k * k + 0.5] * 3 for k in range(6)]  # none written over by a later one
    assert len(calls) == 3 and recorder.num_graphs == 1


def test_each_name_and_each_shape_has_a_graph_of_its_own(recorder):
    for size in (2, 3):
        for _ in range(4):
            ones = torch.ones(size)
            assert recorder("double", lambda x: 2 * x, ones).tolist() == [2] * size
            assert recorder(("times", 3), lambda x: 3 * x, ones).tolist() == [3] * size
            assert recorder("double", lambda x: 2 * x, ones.int()).dtype == torch.int32
    assert recorder.num_graphs == 6


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_mode_of_the_caller_does_not_matter(recorder, mode):
    with torch.inference_mode():
        made_there = torch.ones(2)
    for given in (torch.ones(2, requires_grad=True), made_there) * 3:
        with mode():
            found = recorder("double", lambda x: 2 * x, given)
        assert not found.requires_grad and not found.is_inference()
    with torch.inference_mode():
        assert recorder("double", lambda x: 2 * x, made_there).tolist() == [2, 2]


@pytest.mark.parametrize("use", [0, 2])  # the first, and that at which it would be recorded
def test_without_memory_for_graphs_there_are_none(recorder, capsys, use):
    calls = []

    def double(x):
        calls.append(1)
        if len(calls) == use + 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return 2 * x

    assert [float(recorder("double", double, torch.tensor(float(k)))) for k in range(5)] == [0, 2, 4, 6, 8]
    assert recorder.num_graphs == 0 and len(calls) == 6
    assert capsys.readouterr().err == "the GPU is short of memory: it works on without CUDA graphs, more slowly\n"


def test_without_any_memory_the_error_comes_out(recorder, capsys):
    def full(x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            recorder("full", full, torch.ones(1))
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_threads_take_turns(recorder):
    found: dict[int, list[float]] = {}

    def work(number: int) -> None:
        found[number] = [float(recorder("square", torch.square, torch.tensor(number + k / 8))) for k in range(50)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [(number + k / 8) ** 2 for k in range(50)] for number in range(4)}


def test_copies_to_and_from_a_processor():
    given = torch.arange(3)
    assert to_device(given, torch.device("cpu")) is given
    assert [t.tolist() for t in to_host(given, given + 1)()] == [[0, 1, 2], [1, 2, 3]]


@pytest.mark.parametrize(
    ("ahead", "order"),
    [(0, "b0 f0 b1 f1 b2 f2"), (1, "b0 b1 f0 b2 f1 f2"), (2, "b0 b1 b2 f0 f1 f2"), (9, "b0 b1 b2 f0 f1 f2")],
)
def test_what_is_begun_before_the_first_is_finished(ahead, order):
    happened = []

    def begin(number):
        happened.append(f"b{number}")
        return lambda: happened.append(f"f{number}") or number

    assert list(finished((begin(number) for number in range(3)), ahead)) == [0, 1, 2]
    assert " ".join(happened) == order


@needs_cuda
def test_replays_on_cuda_equal_calls():
    recorder = Recorder(Engine.choose("cuda", "fp32", "graph"))
    layer = torch.nn.Conv2d(3, 8, 3, device="cuda")
    for k in range(6):
        given = torch.randn(4, 3, 16, 16, device="cuda")
        with torch.no_grad():
            layer.weight.mul_(1 + k / 10)
            assert torch.equal(recorder("layer", layer, given), layer(given))
    assert recorder.num_graphs == 1
    (there,) = to_host(to_device(torch.arange(9), torch.device("cuda")) + 1)()
    assert there.tolist() == list(range(1, 10)) and there.is_pinned()


@needs_cuda
def test_two_recorders_on_cuda_record_in_two_threads():
    found = {}

    def work(number):
        recorder = Recorder(Engine.choose("cuda", "fp32", "graph"))
        given = torch.full((100,), float(number), device="cuda")
        found[number] = [recorder("square", torch.square, given).sum().item() for _ in range(200)]

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [100.0 * number**2] * 200 for number in (1, 2)}
