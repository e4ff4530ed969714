"""Device, precision, memory layout, optimiser and random states, on the CPU and, where there is one, a GPU."""

import numpy as np
import pytest
import torch
from torch import nn

from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from tests.conftest import needs_cuda

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")


@pytest.fixture
def engine():
    return Engine.choose("cpu", "fp32")


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


# Choosing


def test_cpu(engine):
    assert engine.device == torch.device("cpu")
    assert engine.bf16 is False
    assert engine == Engine(torch.device("cpu"), False)


def test_auto_takes_what_is_there():
    device = Engine.choose().device.type
    if torch.cuda.is_available():
        assert device == "cuda"
    elif torch.backends.mps.is_available():
        assert device == "mps"
    else:
        assert device == "cpu"


@pytest.mark.parametrize(("precision", "bf16"), [("fp32", False), ("bf16", True)])
def test_precision_is_as_asked(precision, bf16):
    assert Engine.choose("cpu", precision).bf16 is bf16


@pytest.mark.parametrize(
    ("units", "bf16"),
    [
        ({"avx2": True, "avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_auto_precision_on_a_processor_is_what_it_has_units_for(monkeypatch, units, bf16):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert Engine.choose("cpu", "auto").bf16 is bf16
    assert Engine.choose("cpu", "fp32").bf16 is False


@pytest.fixture
def as_if_on_cuda(monkeypatch):
    """Let a CUDA device be chosen where there is none."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, device: empty(*shape))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


@pytest.mark.parametrize(("capability", "bf16"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_auto_precision_on_cuda_is_what_it_has_units_for(as_if_on_cuda, monkeypatch, capability, bf16):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert Engine.choose("cuda", "auto").bf16 is bf16


# Kernels


def flags() -> tuple[bool, bool, bool]:
    """The process's own: cuDNN tries out its kernels, cuDNN rounds to TF32, matrix products do."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("auto", True), ("bf16", True)])
def test_kernels_are_the_engines_while_it_works_and_then_whose_they_were(as_if_on_cuda, precision, tf32):
    before = flags()
    engine = Engine.choose("cuda", precision)
    assert flags() == before  # choosing one changes nothing for whoever comes later
    with engine.kernels():
        assert flags() == (True, tf32, tf32)
        with Engine(engine.device, bf16=False, tf32=not tf32).kernels():
            assert flags() == (True, not tf32, not tf32)
        assert flags() == (True, tf32, tf32)
    assert flags() == before
    with pytest.raises(ZeroDivisionError), engine.kernels():
        raise ZeroDivisionError
    assert flags() == before


def test_a_processor_has_no_such_kernels(engine):
    before = flags()
    with engine.kernels():
        assert flags() == before


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x", "cuda:-1", "CPU!", "tpu", "meta"])
def test_unknown_devices(device):
    with pytest.raises(UserError, match=r"(?i)device"):
        Engine.choose(device)


@without_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_that_is_not_there(device):
    with pytest.raises(UserError, match=r"(?i)cuda"):
        Engine.choose(device)


@needs_cuda
def test_cuda_number_that_is_not_there():
    with pytest.raises(UserError, match=r"(?i)cuda"):
        Engine.choose(f"cuda:{torch.cuda.device_count()}")


@pytest.fixture
def fail_to_allocate(monkeypatch):
    """Let a device be there whose first tensor raises an error."""

    def say(error: Exception, count: int = 0) -> None:
        def empty(*shape, device):
            raise error

        monkeypatch.setattr(torch, "empty", empty)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.version, "cuda", "13.0")

    return say


INVALID = torch.AcceleratorError("CUDA error: invalid device ordinal\nCUDA kernel errors might be")


@pytest.mark.parametrize(("count", "said"), [(1, "one CUDA device, cuda:0"), (2, "2 CUDA devices, cuda:0 to cuda:1")])
def test_a_number_beyond_the_gpus_says_how_many_there_are(fail_to_allocate, count, said):
    fail_to_allocate(INVALID, count)
    with pytest.raises(UserError) as caught:
        Engine.choose(f"cuda:{count}")
    assert str(caught.value) == (
        f"device 'cuda:{count}' cannot be used here: this machine has {said}: try one that is there, or --device auto"
    )


@pytest.mark.parametrize(
    ("error", "count", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            1,
            "its memory is full: close other programs",
        ),
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update"),
            0,
            "The NVIDIA driver on your system is too old (found version 11040): try --device cpu or --device auto",
        ),
        (
            torch.AcceleratorError("CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel"),
            1,
            "CUDA error: all CUDA-capable devices are busy or unavailable: try --device cpu",
        ),
    ],
)
def test_what_hinders_a_gpu_is_said(fail_to_allocate, error, count, said):
    fail_to_allocate(error, count)
    with pytest.raises(UserError) as caught:
        Engine.choose("cuda:0")
    assert str(caught.value).startswith(f"device 'cuda:0' cannot be used here: {said}")


def test_a_torch_without_cuda_says_so(fail_to_allocate, monkeypatch):
    fail_to_allocate(AssertionError("Torch not compiled with CUDA enabled"))
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="this PyTorch was built without CUDA: install one with it"):
        Engine.choose("cuda")


@pytest.mark.parametrize(("precision", "works"), [("bf16", False), ("auto", True), ("fp32", True)])
def test_a_gpu_without_bfloat16(as_if_on_cuda, monkeypatch, precision, works):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    if works:
        assert Engine.choose("cuda", precision).bf16 is False
    else:
        with pytest.raises(UserError, match=r"cuda has no bfloat16 arithmetic.*: try --precision fp32"):
            Engine.choose("cuda", precision)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="an MPS device is here")
def test_mps_that_is_not_there():
    with pytest.raises(UserError, match=r"(?i)mps"):
        Engine.choose("mps")


def test_an_engine_cannot_be_changed(engine):
    with pytest.raises(AttributeError):
        engine.bf16 = True


# Running forward


def test_autocast_in_bfloat16():
    engine, layer, images = Engine.choose("cpu", "bf16"), nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8)
    with engine.autocast():
        assert layer(images).dtype == torch.bfloat16
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert layer(images).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_autocast_in_float32(engine):
    layer = nn.Conv2d(3, 4, 3)
    with engine.autocast():
        assert layer(torch.ones(1, 3, 8, 8)).dtype == torch.float32


def test_autocast_can_be_entered_again():
    engine = Engine.choose("cpu", "bf16")
    for _ in range(2):
        with engine.autocast():
            assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_enabled("cpu")


def test_prepare_changes_the_layout_and_no_value(engine):
    network, images = small_network().eval(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    values = {name: value.clone() for name, value in network.state_dict().items()}
    expected = network(images)
    prepared = engine.prepare(network)
    assert prepared[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert prepared[0].weight.dtype == torch.float32
    assert all(torch.equal(value, values[name]) for name, value in prepared.state_dict().items())
    torch.testing.assert_close(prepared(images), expected, rtol=1e-4, atol=1e-6)


# Adam


def test_adam(engine):
    network = small_network()
    optimizer = engine.adam(network, 1.5e-4, (0.5, 0.999))
    assert isinstance(optimizer, torch.optim.Adam)
    (group,) = optimizer.param_groups
    assert group["lr"] == pytest.approx(1.5e-4)
    assert tuple(group["betas"]) == (0.5, 0.999)
    assert group["weight_decay"] == 0
    held = {id(parameter) for parameter in group["params"]}
    assert held == {id(parameter) for parameter in network.parameters()}


def test_the_first_step_of_adam_is_the_learning_rate(engine):
    # m / sqrt(v) is ±1 after bias correction (Kingma & Ba 2015), whatever the gradient's size.
    layer = nn.Linear(2, 1, bias=False)
    before = layer.weight.detach().clone()
    optimizer = engine.adam(layer, 0.01, (0.5, 0.999))
    layer.weight.grad = torch.tensor([[100.0, -0.5]])
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach() - before, torch.tensor([[-0.01, 0.01]]), rtol=1e-3, atol=1e-6)


def test_slowed_parameters_take_their_share_of_each_step_size(engine):
    network = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = engine.adam(network, 0.01, (0.5, 0.999), [network[1].weight], 0.25)
    part = torch.tensor(0.5)
    for rate in (0.01, 0.04):  # with the same gradient again and again every step is the step size
        engine.set_learning_rate(optimizer, rate)
        for p in network.parameters():
            p.grad = torch.ones_like(p)
        assert float(engine.step_if_finite(optimizer, torch.ones(()), part)) == 0
    for name, p in network.named_parameters():
        share = 0.25 if name == "1.weight" else 1.0
        torch.testing.assert_close(before[name] - p.detach(), torch.full_like(p, 0.025 * share), rtol=1e-4, atol=1e-6)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters())


@pytest.mark.parametrize("number", [torch.inf, -torch.inf, torch.nan])
def test_a_step_with_what_is_not_finite_is_left_out(engine, number):
    layer = nn.Linear(2, 1)
    optimizer = engine.adam(layer, 0.01, (0.5, 0.999))
    before = [p.detach().clone() for p in layer.parameters()]
    for p in layer.parameters():
        p.grad = torch.ones_like(p)
    assert float(engine.step_if_finite(optimizer, torch.tensor(number), torch.ones(()))) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))
    assert all(float(state["step"]) == 0 for state in optimizer.state.values())


def test_adam_equals_plain_adam(engine):
    # Without BatchNorm: it makes the gradient of the bias before it zero but for rounding, which Adam blows up.
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 2)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [
        engine.adam(networks[0], 1e-3, (0.5, 0.999)),
        torch.optim.Adam(networks[1].parameters(), 1e-3, (0.5, 0.999), foreach=False, fused=False),
    ]
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for network, optimizer in zip(networks, optimizers, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# Random states


def test_random_states_round_trip(engine):
    torch.manual_seed(3)
    torch.rand(5)
    states = engine.random_states()
    first = torch.rand(1000), nn.functional.dropout(torch.ones(100))
    torch.rand(17)
    engine.restore_random_states(states)
    second = torch.rand(1000), nn.functional.dropout(torch.ones(100))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_random_states_survive_a_file(engine, tmp_path):
    states = engine.random_states()
    torch.save(states, tmp_path / "states.pt")
    expected = torch.rand(10)
    engine.restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert torch.equal(torch.rand(10), expected)


def test_random_states_are_copies(engine):
    states = engine.random_states()
    kept = {name: state.clone() for name, state in states.items()}
    torch.rand(10_000)
    assert all(torch.equal(state, kept[name]) for name, state in states.items())


def test_states_of_another_device_are_left_out(engine):
    states = engine.random_states()
    expected = torch.rand(10)
    foreign = {name: torch.zeros(16, dtype=torch.uint8) for name in ("cuda", "cuda:0", "mps")}
    engine.restore_random_states({**foreign, **states})
    assert torch.equal(torch.rand(10), expected)


def test_numpy_is_not_touched(engine):
    rng = np.random.default_rng(0)
    states = engine.random_states()
    first = rng.random()
    engine.restore_random_states(states)
    assert rng.random() != first


@needs_cuda
def test_cuda_round_trip():
    engine = Engine.choose("cuda", "fp32")
    states = engine.random_states()
    first = torch.rand(10, device=engine.device)
    engine.restore_random_states(states)
    assert torch.equal(torch.rand(10, device=engine.device), first)


@needs_cuda
def test_cuda_prepare_and_autocast():
    engine = Engine.choose("cuda", "bf16")
    network = engine.prepare(small_network())
    assert all(parameter.is_cuda for parameter in network.parameters())
    with engine.autocast():
        assert network(torch.ones(2, 3, 8, 8, device=engine.device)).dtype == torch.bfloat16
    optimizer = engine.adam(network, 1e-3, (0.5, 0.999))
    assert optimizer.param_groups[0]["fused"]
