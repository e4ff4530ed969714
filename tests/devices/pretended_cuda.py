"""The parts of `torch.cuda` and `torch.mps` that the project calls, for a device that does not exist."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import torch

from tests.devices import pretended


class Stream:
    """An order of operations; here there is only one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        return event or Event()


class Event(Stream):
    """A place in that order."""

    def record(self, stream: Any = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def wait(self, stream: Any = None) -> None:
        pass

    def elapsed_time(self, end: Any) -> float:
        return 1.0


class CUDAGraph:
    """A recorded step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.generators: tuple[torch.Generator, ...] = ()
        self.recording: pretended.Recording | None = None

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators += (generator,)

    def pool(self) -> tuple[int, int]:
        return (0, 1)

    def reset(self) -> None:
        self.recording = None

    def replay(self) -> None:
        assert self.recording is not None, "nothing was recorded"
        self.recording.replay()


def patch(device: pretended.PretendedDevice, monkeypatch: Any) -> None:
    """Put them in place."""
    on_cuda = device.device.type == "cuda"

    @contextlib.contextmanager
    def graph(cuda_graph: CUDAGraph, *args: Any, **kwargs: Any) -> Any:
        assert device.recording is None, "one is being recorded already"
        device.recording = cuda_graph.recording = pretended.Recording(cuda_graph.generators)
        try:
            yield
        finally:
            device.recording = None
            cuda_graph.recording.end()

    def synchronize(*args: Any) -> None:
        device.wait("synchronize")

    memory = {"mem_get_info": (8 * 2**30, 8 * 2**30), "memory_allocated": 0, "max_memory_allocated": 0}
    memory |= {"max_memory_reserved": 0, "memory_reserved": 0, "reset_peak_memory_stats": None, "empty_cache": None}
    facts = {
        "is_available": on_cuda,
        "device_count": int(on_cuda),
        "current_device": 0,
        "get_device_capability": (8, 0),
        "get_device_name": "a pretended GPU",
        "get_device_properties": SimpleNamespace(
            total_memory=8 * 2**30, name="a pretended GPU", major=8, minor=0, multi_processor_count=1
        ),
        "is_bf16_supported": True,
        "_lazy_init": None,
        "set_device": None,
        "graph_pool_handle": (0, 1),
        **memory,
    }
    for name, value in facts.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, _value=value, **kwargs: _value)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: device.recording is not None)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    stream = SimpleNamespace(is_capturing=lambda: device.recording is not None)
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda *where: stream)
    monkeypatch.setattr(torch.cuda, "default_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda where: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda where=None: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, where=None: torch.set_rng_state(state))
    for kind in (Stream, Event, CUDAGraph):
        monkeypatch.setattr(torch.cuda, kind.__name__, kind)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: not on_cuda)
    monkeypatch.setattr(torch.mps, "get_rng_state", torch.get_rng_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", torch.set_rng_state)
    monkeypatch.setattr(torch.mps, "synchronize", synchronize)
