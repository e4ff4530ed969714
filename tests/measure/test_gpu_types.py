"""What is measured runs on a GPU: no operation is asked for with numbers that CUDA has no kernel for."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from galaxies.measure import source
from galaxies.measure.photometry import measure, measure_with_structure
from tests.conftest import render_galaxies

# Operations whose CUDA kernels take floating-point numbers only, while a CPU also takes integers.
_FLOATING_ON_CUDA = ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mm", "bmm", "addmm", "baddbmm", "convolution")


class CudaTypes(TorchDispatchMode):
    """Refuses what a GPU would refuse, whatever device the numbers are on; remembers what was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::").removesuffix("_with_indices")
        self.asked.add(name)
        if name in _FLOATING_ON_CUDA:
            for value in args:
                if isinstance(value, torch.Tensor) and not value.is_floating_point():
                    raise NotImplementedError(f"{name} of {value.dtype} on CUDA")
        return func(*args, **kwargs or {})


@pytest.fixture(scope="module")
def galaxies():
    return torch.from_numpy(render_galaxies(6)[0]).float() / 255


def as_on_a_gpu(monkeypatch, work):
    """Run some work on the way that a GPU takes, and return its result and the operations that it asked for."""
    monkeypatch.setattr(source, "_POOLING", frozenset({"cpu"}))
    with CudaTypes() as mode:
        return work(), mode.asked


def test_a_gpu_has_every_kernel_and_measures_the_same(galaxies, monkeypatch):
    expected = measure_with_structure(galaxies)
    (photometry, structure), asked = as_on_a_gpu(monkeypatch, lambda: measure_with_structure(galaxies))
    assert {"max_pool2d", "bmm"} <= asked  # the mode saw the work
    for found, right in zip((*photometry, *structure), (*expected[0], *expected[1]), strict=True):
        assert torch.equal(found, right)


def test_gradients_have_every_kernel_on_a_gpu(galaxies, monkeypatch):
    images = galaxies[:2].requires_grad_()
    as_on_a_gpu(monkeypatch, lambda: measure(images).size.sum().backward())
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_dilation_by_pooling_and_by_comparing_agree(dtype, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    ceiling = torch.randint(0, 2, (4, 32, 32), generator=generator).to(dtype)
    ceiling[:, 10:20, 4:28] = 1
    marker = torch.zeros_like(ceiling)
    marker[:, 15, 15] = 1
    compared = source.reconstruct(marker, ceiling)
    pooled, _ = as_on_a_gpu(monkeypatch, lambda: source.reconstruct(marker, ceiling))
    assert pooled.dtype == compared.dtype == dtype and torch.equal(pooled, compared)
    assert 240 <= compared.sum() < ceiling.sum()  # what is connected, and not all


def test_the_mode_refuses_bytes():
    with CudaTypes(), pytest.raises(NotImplementedError, match="max_pool2d of"):
        torch.nn.functional.max_pool2d(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 3)
