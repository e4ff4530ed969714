"""Compiling what a training step does in many small operations: `torch.compile`, where it can and where it pays."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

# Compiling took 20 to 50 s on an H200's machine, and then saved 0.6 to 1.8 ms a step (benchmarks/README.md).
_REPAID_AFTER_STEPS = 40_000
_C_COMPILERS = ("cc", "gcc", "clang")  # of which Triton needs one


def pays(device: torch.device, num_steps: int) -> bool:
    """Tell whether to compile by default: on CUDA, where Triton has what it needs, if the run is long enough.

    Parameters
    ----------
    device : torch.device
    num_steps : int
        Of the whole run.
    """
    can = device.type == "cuda" and sys.platform != "win32" and importlib.util.find_spec("triton") is not None
    return can and num_steps >= _REPAID_AFTER_STEPS and _has_c_compiler()


def _has_c_compiler() -> bool:
    return "CC" in os.environ or any(shutil.which(name) for name in _C_COMPILERS)


class Compiler:
    """What functions are compiled by, or left as they are.

    They are compiled at their first call, for each kind of arguments anew, in the steps that run before one is
    recorded. Where that fails, one sentence says so, and from then on every function runs as it is. A gradient of a
    gradient cannot be compiled: call the function itself where one is wanted.

    Parameters
    ----------
    active : bool
        Whether to compile at all.
    backend : str or callable
        Of `torch.compile`.
    """

    def __init__(self, active: bool, backend: str | Callable[..., Any] = "inductor") -> None:
        self.active, self._backend = active, backend

    def __call__(self, function: Function) -> Function:
        """Return the function, compiled if that is wanted: a function, so that networks keep their names."""
        if not self.active:
            return function
        made: list[Callable[..., Any]] = []

        def call(*arguments: Any, **named: Any) -> Any:
            if self.active:
                try:
                    if not made:
                        made.append(self._compiled(function))
                    with _backward_compiled_at_once(), warnings.catch_warnings():
                        # Of what it traces in its own way, such as tables that are kept: nothing that a user can mend.
                        warnings.filterwarnings("ignore", module=r"torch\._(dynamo|functorch|inductor)")
                        return made[0](*arguments, **named)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:  # whatever goes wrong in there is not what the run is about
                    self._give_up(error)
            return function(*arguments, **named)

        return cast(Function, call)

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # Graphs of its own would copy what goes in to places of their own: whole steps are recorded already.
        options: dict[str, Any] | None = {"triton.cudagraphs": False} if self._backend == "inductor" else None
        return torch.compile(function, backend=self._backend, dynamic=False, options=options)

    def _give_up(self, error: Exception) -> None:
        self.active = False
        cause = getattr(error, "inner_exception", error)  # of the compiler, which torch wraps in one that names itself
        reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        print(f"steps cannot be compiled here ({reason}): they run as they are; --compile off does not try")


def _backward_compiled_at_once() -> contextlib.AbstractContextManager[Any]:
    """Let what fails in compiling a function's gradient fail in its call, and not in the middle of a step."""
    from torch._functorch import config  # loads much, which is needed where something is compiled alone

    name = "force_non_lazy_backward_lowering"
    return config.patch(name, True) if hasattr(config, name) else contextlib.nullcontext()
