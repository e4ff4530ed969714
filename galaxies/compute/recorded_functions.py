"""Work that the host need not wait for: functions of tensors as CUDA graphs, and results on their way to the host."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from galaxies.compute.cuda_graphs import RecordedStep
from galaxies.compute.device import Engine

# A recording fails if another thread waits for the whole device meanwhile, as beginning another recording does. To give
# a device its work takes little time, so all recorders of a process take turns.
_TURN = threading.Lock()

Result = TypeVar("Result")
Place = tuple[Hashable, tuple[object, ...]]


class Run(Protocol):
    """What runs a function of tensors that goes by a name: `plainly`, or a `Recorder`."""

    def __call__(self, name: Hashable, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Return the function of the inputs."""


def plainly(name: Hashable, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return the function of the inputs."""
    return function(*inputs)


class Recorder:
    """Run functions of tensors: on CUDA recorded as graphs, which one call launches, elsewhere as they are.

    A function is recorded at its third use, a graph for each shape of its inputs: whoever draws only a picture or two
    does not wait for that. A function must depend on nothing but its inputs and on tensors that stay in place, such as
    a network's weights, and must never make the host wait for the device. The graphs of a recorder share their memory.
    When that of the device is at its end, they are given up.

    Parameters
    ----------
    engine : Engine
        Says whether to record.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._step: RecordedStep[Place] = RecordedStep(self._run, engine)
        self._inputs: dict[Place, list[Tensor]] = {}
        self._outputs: dict[Place, Tensor] = {}
        self._function: Callable[..., Tensor] | None = None
        # The current device is another one when several are there, and streams are those of the current one.
        on_cuda = engine.device.type == "cuda"
        self._there: contextlib.AbstractContextManager[Any] = (
            torch.cuda.device(engine.device) if on_cuda else contextlib.nullcontext()
        )

    @property
    def num_graphs(self) -> int:
        """Number of graphs recorded so far."""
        return self._step.num_graphs

    def __call__(self, name: Hashable, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Return the function of the inputs.

        Parameters
        ----------
        name : hashable
            Of the function: under one name it must always be the same one.
        function : callable
            From tensors to one tensor.
        *inputs : Tensor
            On the engine's device.
        """
        if not self._engine.graphs:
            return function(*inputs)
        place = name, tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        # What is made in inference mode can be written in that mode alone.
        with _TURN, self._there, torch.inference_mode(False), torch.no_grad():
            if place not in self._inputs:
                self._inputs[place] = [torch.empty_like(tensor) for tensor in inputs]
            for kept, given in zip(self._inputs[place], inputs, strict=True):
                kept.copy_(given)
            self._function = function
            with contextlib.suppress(torch.OutOfMemoryError):
                self._step(place)
                return self._outputs[place].clone()  # the next replay writes over it
            self._forget()
            return function(*inputs)

    def _forget(self) -> None:
        """Give the memory of all graphs back, and record no more: results stay the same to the bit without."""
        print("the GPU is short of memory: it works on without CUDA graphs, more slowly", file=sys.stderr)
        self._engine = replace(self._engine, graphs=False)
        self._step = RecordedStep(self._run, self._engine)
        self._inputs.clear()
        self._outputs.clear()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _run(self, place: Place) -> None:
        assert self._function is not None, "it was given just before"
        self._outputs[place] = self._function(*self._inputs[place])


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; CUDA gets it when it is there, and the host goes on at once."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(*tensors: Tensor) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors of one device to the host, and return what waits for the copies and gives them.

    CUDA copies when it is there; elsewhere the copies are made before this returns.
    """
    if not tensors[0].is_cuda:
        there = [tensor.cpu() for tensor in tensors]
        return lambda: there
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> list[Tensor]:
        copied.synchronize()
        return copies

    return wait


def finished(begun: Iterable[Callable[[], Result]], ahead: int) -> Iterator[Result]:
    """Finish in order what is begun by going through `begun`, so that `ahead` things are always under way meanwhile."""
    waiting: deque[Callable[[], Result]] = deque()
    for finish in begun:
        waiting.append(finish)
        if len(waiting) > ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()
