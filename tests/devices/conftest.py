"""The devices that the tests of this folder run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.devices.pretended import PretendedDevice, pretend

on_cuda = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")],
)


@pytest.fixture(params=["pretended", on_cuda])
def gpu(request: pytest.FixtureRequest) -> Iterator[PretendedDevice | None]:
    """Run a test of "cuda" on a pretended device, whose rules it has to keep, and on a true one where there is one."""
    if request.param == "cuda":
        yield None
        return
    with pytest.MonkeyPatch.context() as patches, pretend("cuda", patches) as device:
        yield device
        assert device.refused == []
        if device.unlisted:
            print("of these operations nobody has said what numbers CUDA takes:", *sorted(device.unlisted))


@pytest.fixture
def pretended() -> Iterator[PretendedDevice]:
    """Pretend that there is a CUDA device."""
    with pytest.MonkeyPatch.context() as patches, pretend("cuda", patches) as device:
        yield device


@pytest.fixture
def pretended_mps() -> Iterator[PretendedDevice]:
    """Pretend that there is an MPS device."""
    with pytest.MonkeyPatch.context() as patches, pretend("mps", patches) as device:
        yield device
        assert device.refused == []
