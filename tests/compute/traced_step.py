"""What stands in for recorded steps where there is no CUDA: traced to operations, and replayed without Python."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx


class TracedStep:
    """Takes the place of `RecordedStep` in a `Recorder`.

    At its third use a function is traced. From then on the operations that were traced are carried out on the inputs
    where they lie, and the result is written where it was: of what Python does in the function, nothing happens again.
    """

    def __init__(self, step: Any, engine: object) -> None:
        self._step, self._recorder = step, step.__self__
        self._runs: Counter[Any] = Counter()
        self._traced: dict[Any, torch.fx.GraphModule] = {}

    @property
    def num_graphs(self) -> int:
        return len(self._traced)

    def __call__(self, place: Any) -> None:
        inputs, outputs, function = (getattr(self._recorder, name) for name in ("_inputs", "_outputs", "_function"))
        if place in self._traced:
            outputs[place].copy_(self._traced[place](*inputs[place]))
        elif self._runs[place] == 2:
            self._traced[place] = make_fx(lambda *given: function(*given))(*inputs[place])
            outputs[place] = self._traced[place](*inputs[place])
        else:
            self._step(place)
            self._runs[place] += 1
