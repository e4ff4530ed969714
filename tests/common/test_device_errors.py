"""Errors of memory and of GPUs as one sentence, and which errors are none of them."""

from __future__ import annotations

import pytest
import torch

from galaxies.common.device_errors import device_failure, first_sentence

FULL = "the GPU has not enough memory: close other programs"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "there is not enough memory: try a smaller batch"),
        # What torch 2.14 says; the words of CUDA's errors stand in its runtime's list of them.
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:132] err == 0. DefaultCPUAllocator: not enough memory"),
            "there is not enough memory: try a smaller batch",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"), FULL),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 4.23 MB)."), FULL),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), FULL),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), FULL),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), FULL),
        (
            torch.AcceleratorError("CUDA error: unspecified launch failure\nSearch for `cudaErrorLaunchFailure'"),
            "the GPU failed (CUDA error: unspecified launch failure): start again",
        ),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
            "the GPU failed (cuDNN error: CUDNN_STATUS_EXECUTION_FAILED): start again",
        ),
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors"),
            "this PyTorch was not built for this GPU (CUDA error: no kernel image is available for execution on the d",
        ),
    ],
)
def test_errors_of_devices(error, sentence):
    found = device_failure(error)
    assert found is not None and found.startswith(sentence)
    assert "\n" not in found


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[3]' is invalid for input of size 4"),
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be"),  # a mistake of ours
        ValueError("CUDA error: out of memory"),
        ZeroDivisionError(),
    ],
)
def test_other_errors(error):
    assert device_failure(error) is None


def test_what_a_processor_says_when_its_memory_is_full():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    sentence = device_failure(caught.value)
    assert sentence is not None and sentence.startswith("there is not enough memory")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Found no driver. Please look", "Found no driver"),
        ("One line.\nTwo.", "One line"),
        ("\ncuda 13.0 is new\n", "cuda 13.0 is new"),
    ],
)
def test_first_sentence(text, sentence):
    assert first_sentence(text) == sentence
