"""The guard itself: a pretended device refuses what a true one would, and records and replays as a true one does."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from galaxies.measure import source, structure
from galaxies.measure.photometry import measure_with_structure
from tests.conftest import ROOT, make_trainer, render_galaxies
from tests.devices.kernel_table import PATH, KernelTable
from tests.devices.pretended import GuardError, OnDevice

# What a device has no kernel for, and the words of the refusal; `x` are floating point and `k` whole numbers on it.
NO_KERNEL = {
    "bytes pooled": (lambda x, k: F.max_pool2d(k.byte()[None], 3), "max_pool2d_with_indices of torch.uint8"),
    "whole numbers multiplied": (lambda x, k: torch.bmm(k, k), "bmm of torch.int64"),
    "whole numbers convolved": (lambda x, k: F.conv2d(k[None], k[:, None]), "convolution of torch.int64"),
    "halves decomposed": (lambda x, k: torch.linalg.eigh(x.half()), "_linalg_eigh of torch.float16"),
    "truth counted in bins": (lambda x, k: torch.histc((k > 0).bool()), "histc of torch.bool"),
}

# What makes the host wait.
WAITING = {
    "a number": lambda x, k: x.sum().item(),
    "a condition": lambda x, k: 1 if x.sum() > 0 else 2,
    "a list": lambda x, k: x.tolist(),
    "a copy": lambda x, k: x.cpu(),
    "a copy later": lambda x, k: x.to("cpu", non_blocking=True),
    "places": lambda x, k: x.nonzero(),
    "a mask": lambda x, k: x[x > 0],
    "a mask written by": lambda x, k: x.index_put_((x > 0,), torch.ones(24, device=x.device)),
    "a selection": lambda x, k: x.masked_select(x > 0),
    "equality": lambda x, k: torch.equal(x, x),
    "closeness": lambda x, k: torch.allclose(x, x),
    "kinds": lambda x, k: k.unique(),
    "repetitions": lambda x, k: k.flatten().repeat_interleave(k.flatten().abs()),
    "an inverse that is checked": lambda x, k: torch.linalg.inv(x + 9 * torch.eye(4, device=x.device)),
    "numbers of the host": lambda x, k: x + torch.tensor([1.0, 2.0, 3.0, 4.0]).to(x.device),
    "a constant of the host": lambda x, k: torch.tensor(3.0, device=x.device),
    "rows that the host names": lambda x, k: x[torch.tensor([0, 1])],
    "rows in a list": lambda x, k: x[:, [0, 2]],
    "an array": lambda x, k: torch.from_numpy(np.ones(4, np.float32)).to(x.device, non_blocking=True),
}

# What stays on the device.
QUIET = {
    "arithmetic": lambda x, k: (x * 2 + k).softmax(-1),
    "a number filled in": lambda x, k: x.fill_(3.0),
    "a mask filled": lambda x, k: x.index_put_((x > 0,), torch.zeros((), device=x.device)),
    "rows": lambda x, k: x[k[0, 0].clamp(0, 1)],
    "a choice": lambda x, k: torch.where(x > 0, x, 0.0),
    "a new tensor": lambda x, k: torch.zeros(3, device=x.device) + torch.arange(3, device=x.device),
}

# Host and device in one operation.
MEETING = {
    "a tensor without its device": lambda x: x + torch.ones(4),
    "an axis without its device": lambda x: x * torch.arange(4),
    "a mask of the host": lambda x: torch.where(torch.ones(4) > 0, x, 0.0),
    "rows put together": lambda x: torch.cat([x, torch.zeros(1, 4, 4)]),
    "numbers put together": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "written to the host": lambda x: torch.zeros(()).add_(x.sum()),
    "an array": lambda x: x * torch.from_numpy(np.ones(4, np.float32)),
}


@pytest.fixture
def numbers(pretended):
    x = torch.linspace(-1, 1, 48).view(3, 4, 4).to("cuda")
    return x, (x * 3).long()


@pytest.mark.parametrize("what", NO_KERNEL)
def test_a_kernel_that_is_not_there_is_missed(numbers, what):
    work, message = NO_KERNEL[what]
    with pytest.raises((GuardError, RuntimeError), match=message):
        work(*numbers)


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_is_noticed(pretended, numbers, what):
    with pretended.without_waiting(), pytest.raises(GuardError, match="makes the host wait"):
        WAITING[what](*numbers)
    before = len(pretended.waits)
    WAITING[what](*numbers)
    assert len(pretended.waits) > before


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_cannot_be_recorded(pretended, numbers, what):
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(GuardError, match="in a step that is recorded"), torch.cuda.graph(graph):
        WAITING[what](*numbers)


@pytest.mark.parametrize("what", QUIET)
def test_what_stays_on_the_device_is_let_through(pretended, numbers, what):
    with pretended.without_waiting():
        QUIET[what](*numbers)
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            QUIET[what](*numbers)
    assert pretended.refused == []


@pytest.mark.parametrize("what", MEETING)
def test_host_and_device_do_not_meet(numbers, what):
    with pytest.raises(GuardError, match="host"):
        MEETING[what](numbers[0])


def test_a_tensor_on_the_default_device_is_not_recorded(numbers):
    x, _ = numbers
    with pytest.raises(GuardError, match="ones makes a tensor on the host"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        x.add_(torch.ones(()))


def test_what_is_on_the_device_says_so(pretended):
    x = torch.zeros(3, device="cuda")
    assert isinstance(x, OnDevice)
    assert (x.device, x.is_cuda, (x + 1).device) == (torch.device("cuda", 0), True, torch.device("cuda", 0))
    assert torch.Generator("cuda").device.type == "cuda"
    assert type(x.cpu()) is torch.Tensor
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.zeros(3, device="cuda:1")
    with pytest.raises(RuntimeError, match="not a device of this machine"):
        torch.zeros(3, device="mps")


def test_derivatives_are_those_of_the_cpu(pretended):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.SiLU(), torch.nn.Flatten()
    )
    images = torch.randn(5, 3, 8, 8)
    found = []
    for device in ("cpu", "cuda"):
        x = images.to(device).detach().requires_grad_()
        (slope,) = torch.autograd.grad(network.to(device)(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        found.append(x.grad.cpu())
    assert torch.equal(*found)
    assert found[0].abs().max() > 0


def test_bfloat16_is_where_a_gpu_has_it(pretended):
    x, weight = torch.rand(3, 4, device="cuda"), torch.rand(5, 4, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.bfloat16):
        product = F.linear(x, weight)
        spread = (product @ product.mT).softmax(-1)
    assert (product.dtype, spread.dtype) == (torch.bfloat16, torch.float32)
    spread[0, 0].backward()
    assert weight.grad.dtype == torch.float32
    assert F.linear(x, weight).dtype == torch.float32


def record(step):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def test_recording_does_nothing_and_replaying_does_it_again(pretended):
    x, total = torch.arange(3.0, device="cuda"), torch.zeros(3, device="cuda")
    graph = record(lambda: total.add_(x * 2))
    assert total.tolist() == [0, 0, 0]
    for _ in range(2):
        graph.replay()
    x.add_(1)  # the memory that the step reads, with new numbers
    graph.replay()
    assert total.tolist() == [2, 8, 14]


def test_a_replay_writes_where_the_recording_left_its_results(pretended):
    x, kept = torch.arange(3.0, device="cuda"), []
    graph = record(lambda: kept.append(x.square().sum()))
    x.fill_(2)
    graph.replay()
    assert float(kept[0]) == 12


def test_a_replay_knows_nothing_of_what_python_does_meanwhile(pretended):
    scale, total = [1.0], torch.zeros((), device="cuda")
    graph = record(lambda: total.add_(scale[0]))
    scale[0] = 5.0
    graph.replay()
    assert float(total) == 1
    x = torch.ones((), device="cuda")
    graph = record(lambda: total.add_(x))
    x = x * 7  # another place
    graph.replay()
    assert float(total) == 2


def test_every_replay_draws_on(pretended):
    generator, drawn = torch.Generator("cuda").manual_seed(1), torch.zeros(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        drawn.copy_(torch.randn(2, device="cuda", generator=generator))
    expected = torch.Generator().manual_seed(1)
    for _ in range(3):
        graph.replay()
        assert drawn.tolist() == torch.randn(2, generator=expected).tolist()


def test_a_graph_knows_its_generators(pretended):
    generator = torch.Generator("cuda").manual_seed(1)
    with pytest.raises(GuardError, match="a generator that the graph does not know"):
        record(lambda: torch.randn(2, device="cuda", generator=generator))


def reconstruct_of_yesterday(marker, ceiling):
    """Dilate as the program did when it met its first GPU, which has no kernel for these bytes."""
    for _ in range(4 * marker.shape[-1]):
        marker = torch.minimum(F.max_pool2d(marker[:, None], 3, stride=1, padding=1)[:, 0], ceiling)
    return marker


def test_the_fault_of_the_first_gpu_is_found(pretended, monkeypatch):
    images = torch.from_numpy(render_galaxies(2)[0]).to("cuda").float() / 255
    for module in (source, structure):
        if hasattr(module, "reconstruct"):
            monkeypatch.setattr(module, "reconstruct", reconstruct_of_yesterday)
    with pytest.raises(GuardError, match=r"cuda has no kernel for max_pool2d_with_indices of torch\.uint8"):
        measure_with_structure(images)


PLANTED = {
    "a tensor on the default device": (
        lambda draw, learner: lambda *shape, uniform=False: draw(*shape, uniform=uniform) * torch.ones(shape or (16,)),
        "host and device meet in mul",
    ),
    "a look at the numbers": (
        lambda draw, learner: lambda *shape, uniform=False: draw(*shape, uniform=uniform) * float(learner._jitter[0]),
        "_local_scalar_dense makes the host wait",
    ),
    "noise of the host": (
        lambda draw, learner: lambda *shape, uniform=False: torch.randn(16, *shape).to(learner.engine.device),
        "makes a tensor on the host",
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_in_a_step_is_found(data, tmp_path, pretended, what):
    plant, message = PLANTED[what]
    alike = {"r1_weight": 0.0, "photometry_weight": 0.0}  # all steps, so that the third is recorded
    trainer = make_trainer(data, tmp_path, device="cuda", engine="graph", **alike)
    learner = trainer.learner
    trainer.start_phase("generator")
    learner._draw = plant(learner._draw, learner)
    with pytest.raises(GuardError, match=message):
        for _ in range(3):
            trainer.take_step(10)


def test_the_table_says_what_is_known():
    """Facts from PyTorch's sources and from the first GPU."""
    cuda, mps = KernelTable.of("cuda"), KernelTable.of("mps")
    assert torch.uint8 not in cuda.types("max_pool2d_with_indices")
    assert {torch.float16, torch.bfloat16} <= cuda.types("max_pool2d_with_indices")
    assert torch.int64 not in cuda.types("bmm")
    assert torch.bfloat16 in cuda.types("bmm")  # on cards since Maxwell
    assert torch.uint8 in cuda.types("bitwise_and_")
    assert {torch.uint8, torch.int64, torch.bool} <= cuda.types("cummax")
    assert torch.float64 in cuda.types("grid_sampler_2d_backward")
    assert mps.types("grid_sampler_2d_backward") == frozenset()  # in torch 2.11
    assert all(torch.float64 not in mps.types(name) for name in ("add", "cumsum", "sort", "zeros", "_fused_adam_"))
    assert cuda.types("an_operation_that_nobody_has_heard_of") is None


@pytest.mark.slow
def test_the_table_is_that_of_the_database():
    stored = json.loads(PATH.read_text("utf-8"))
    if torch.__version__.split("+")[0] != stored["torch"]:
        pytest.skip(f"the table was made with torch {stored['torch']}")
    ask = "import json; from tests.devices.kernel_table import read_database; print(json.dumps(read_database()))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ask], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {kind: stored[kind] for kind in ("cuda", "mps")}
