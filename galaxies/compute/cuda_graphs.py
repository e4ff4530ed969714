"""A training step as a CUDA graph: recorded once, then launched by one call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

from galaxies.compute.device import Engine

Variant = TypeVar("Variant", bound=Hashable)


class RecordedStep(Generic[Variant]):
    """A training step: on CUDA recorded as a graph, which one call launches, elsewhere run as it is.

    The step must read everything that changes from tensors that stay in place, and leave its results in such: what
    Python does in it happens only while it is recorded. It must never make the host wait for the device, and it
    may differ only by its `variant`: each has its own graph. All graphs share one pool of memory, since none leaves
    anything there for another.

    Parameters
    ----------
    step : callable
        Takes a variant.
    engine : Engine
    generators : sequence of torch.Generator
        Random generators that the step draws from, besides the device's own.
    """

    # Before a variant is recorded it runs so often as it is: libraries set themselves up and choose their kernels.
    _WARM_UP_STEPS = 2

    def __init__(
        self, step: Callable[[Variant], None], engine: Engine, generators: tuple[torch.Generator, ...] = ()
    ) -> None:
        self._step, self._generators = step, generators
        self._recording = engine.graphs
        self._graphs: dict[Variant, torch.cuda.CUDAGraph] = {}
        self._runs: Counter[Variant] = Counter()
        self._stream = torch.cuda.Stream(engine.device) if engine.graphs else None

    @property
    def num_graphs(self) -> int:
        """Number of variants recorded so far."""
        return len(self._graphs)

    def __call__(self, variant: Variant) -> None:
        """Take one step."""
        if not self._recording:
            self._step(variant)
            return
        if variant not in self._graphs and self._runs[variant] >= self._WARM_UP_STEPS:
            self._record(variant)
        if variant in self._graphs:
            self._graphs[variant].replay()
        else:
            self._run_aside(variant)
            self._runs[variant] += 1

    def _run_aside(self, variant: Variant) -> None:
        """Run the step on the stream that it will be recorded on, where it leaves what belongs to a stream."""
        assert self._stream is not None  # there is one where steps are recorded
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step(variant)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _record(self, variant: Variant) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        pool = next(iter(self._graphs.values())).pool() if self._graphs else None
        try:
            # Other threads, such as NCCL's watchdog, may go on calling CUDA.
            with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                self._step(variant)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[0]
            print(f"this step cannot be recorded as a CUDA graph ({reason}): steps run operation by operation")
            self._recording = False
            self._graphs.clear()
            return
        self._graphs[variant] = graph
