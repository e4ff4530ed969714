"""The same float32 kernels in every process: what makes an image depend on its seed alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class ExactKernels:
    """The same float32 kernels in every process, as long as anybody is inside: the flags are the whole process's.

    No trying out which kernel is fastest today, and no reduced precision.
    """

    _WANTED = (("benchmark", False), ("deterministic", True), ("allow_tf32", False))

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before: tuple[Any, ...] = ()

    def __enter__(self) -> None:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        with self._lock:
            if self._inside == 0:
                self._before = (*((name, getattr(cudnn, name)) for name, _ in self._WANTED), matmul.allow_tf32)
                for name, value in self._WANTED:
                    setattr(cudnn, name, value)
                matmul.allow_tf32 = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                *flags, torch.backends.cuda.matmul.allow_tf32 = self._before
                for name, value in flags:
                    setattr(torch.backends.cudnn, name, value)


_KERNELS = ExactKernels()


@contextmanager
def exactly(network: nn.Module) -> Iterator[None]:
    """Run a network in evaluation mode, with the same float32 kernels in every process."""
    was_training = network.training
    network.eval()
    try:
        with _KERNELS:
            yield
    finally:
        network.train(was_training)
