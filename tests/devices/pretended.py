"""A GPU that does not exist: its tensors say that they are on it, and their numbers are the CPU's.

Whatever code asks of such a device is done by the CPU, number by number, after it was looked at: whether the device has
a kernel for these numbers (`kernel_table`), whether host and device meet, and whether the host would wait. Recording a
step as a CUDA graph works too, and replaying one: the recorded operations are done again, in the memory that they had.
So a test of code for a GPU says something on a machine that has none.

Tensors of another kind than PyTorch's own pass through `__torch_dispatch__`, below its derivatives; to PyTorch's own
code they look like tensors on "meta", a device without numbers, since it would ask the driver about any other.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.devices.kernel_table import KernelTable, names

# Operations after which the host knows something of the numbers, for which it has to wait.
WAITING = names(
    """
    _local_scalar_dense nonzero equal is_nonzero masked_select _unique2 unique_dim unique_consecutive argwhere bincount
    _linalg_check_errors item allclose
    """
)
# Where tensors of one number on the host may stand among those of a device: PyTorch hands the number over. Not here:
_NO_HOST_NUMBERS = names("cat stack gather scatter scatter_ index_select mm bmm addmm convolution")
_TORCH = str(Path(torch.__file__).parent)


class GuardError(AssertionError):
    """What a true device would refuse, or wait for; no RuntimeError, so that no code takes it for bad luck."""


class OnDevice(Tensor):
    """A tensor that says that it is on a pretended device; `numbers` are on the CPU."""

    numbers: Tensor
    owner: PretendedDevice

    @staticmethod
    def __new__(cls, numbers: Tensor, owner: PretendedDevice) -> OnDevice:
        size, stride, offset = numbers.shape, numbers.stride(), numbers.storage_offset()
        extent = offset + 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if numbers.numel() else offset
        # Whether gradients are ever asked for is the numbers' business.
        with torch._C._DisableTorchDispatch(), torch.inference_mode(False):
            shape = torch.empty(extent, dtype=numbers.dtype, device="meta").as_strided(size, stride, offset)
            made = Tensor._make_subclass(cls, shape, False, dispatch_device=False, device_for_backend_keys=owner.device)
        made.numbers, made.owner = numbers, owner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        owner = next(x for x in tree_leaves((args, kwargs)) if isinstance(x, OnDevice)).owner
        return owner.operate(func, args, kwargs or {})

    device = property(lambda self: self.owner.device)
    is_cuda = property(lambda self: self.owner.device.type == "cuda")
    is_mps = property(lambda self: self.owner.device.type == "mps")
    is_meta = property(lambda self: False)

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(self._placed(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(self._placed(index), value)

    def _placed(self, index: Any) -> Any:
        """Bring rows that the host has in a list to the device, as PyTorch does."""
        parts = index if isinstance(index, tuple) else (index,)
        parts = tuple(torch.tensor(x, device=self.device) if isinstance(x, (list, tuple, range)) else x for x in parts)
        return parts if isinstance(index, tuple) else parts[0]

    def data_ptr(self) -> int:
        return self.numbers.data_ptr()

    def get_device(self) -> int:
        return 0

    def tolist(self) -> Any:
        self.owner.wait("tolist")
        return self.numbers.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        kind = self.owner.device
        raise TypeError(f"can't convert {kind} device type tensor to numpy. Use Tensor.cpu() to copy it first.")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def __repr__(self, **kwargs: Any) -> str:  # type: ignore[override]
        return f"{self.numbers!r} on {self.owner.device}"

    def __reduce_ex__(self, protocol):
        self.owner.wait("saving")
        return self.numbers.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        copied = OnDevice(self.numbers.detach().clone(), self.owner)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        return copied.requires_grad_(self.requires_grad)


class PretendedDevice(TorchDispatchMode):
    """A device of a kind; entered, it answers to that name.

    Attributes
    ----------
    device : torch.device
    waits : list of str
        What the host has waited for so far, and where.
    unlisted : set of str
        Operations of which nobody has said which numbers the device takes.
    """

    def __init__(self, kind: str = "cuda") -> None:
        super().__init__()
        self.device = torch.device(kind, 0)
        self.kernels = KernelTable.of(kind)
        self.waits: list[str] = []
        self.unlisted: set[str] = set()
        self.refused: list[str] = []
        self.pinned: set[int] = set()
        self.recording: Recording | None = None
        self._may_wait = True

    def refuse(self, why: str) -> None:
        """Fail, and do not let anybody catch it in silence."""
        self.refused.append(why)
        raise GuardError(why)

    def wait(self, what: str) -> None:
        """Wait for the device, where that is allowed."""
        if self.recording is not None:
            self.refuse(f"{what} makes the host wait for the device, in a step that is recorded")
        if not self._may_wait:
            self.refuse(f"{what} makes the host wait for the device")
        self.waits.append(f"{what} at {_caller()}")

    @contextlib.contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Refuse whatever makes the host wait for the device."""
        self._may_wait, before = False, self._may_wait
        try:
            yield
        finally:
            self._may_wait = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.operate(func, args, kwargs or {})

    def is_here(self, device: Any) -> bool:
        """Tell whether a device is this one; PyTorch's own code takes it for "meta"."""
        if device is None:
            return False
        device = torch.device(device)
        if device.type == self.device.type and (device.index or 0) != 0:
            raise RuntimeError("CUDA error: invalid device ordinal")
        if device.type not in (self.device.type, "meta", "cpu"):
            raise RuntimeError(f"{device} is not a device of this machine")
        return device.type != "cpu"

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do an operation on the CPU, if the device could and nothing stands against it."""
        space, name = func._schema.name.split("::")
        if space not in ("aten", "prims"):
            return func(*args, **kwargs)
        if func._can_decompose():  # made of other operations, which come one by one unless gradients are off for good
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in tensors if isinstance(x, OnDevice)]
        hosts = [x for x in tensors if not isinstance(x, OnDevice)]
        kwargs = dict(kwargs)
        target = kwargs.get("device")
        here = self.is_here(target)
        if "device" in kwargs and target is not None:
            kwargs["device"] = torch.device("cpu")
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
            self._pin(made := func(*args, **kwargs))
            return made
        if name in ("_pin_memory", "pin_memory"):
            self._pin(made := args[0].clone())
            return made
        if name == "is_pinned":
            return not ours and self._is_pinned(args[0])

        if name == "_to_copy":
            return self._convert(func, args[0], kwargs, to_device=here, to_host=target is not None and not here)
        if name == "copy_" and ours and hosts:
            return self._transfer(func, *args[:2], *args[2:], **kwargs)
        if not ours:
            return self._without_ours(func, name, args, kwargs, here, tensors)

        self._look(name, func, args, kwargs, ours, hosts)
        known = {id(x.numbers): x for x in ours}
        plain_args = tree_map(lambda x: x.numbers if isinstance(x, OnDevice) else x, args)
        plain_kwargs = {
            k: tree_map(lambda x: x.numbers if isinstance(x, OnDevice) else x, v) for k, v in kwargs.items()
        }
        if name == "_conj":  # which PyTorch would only note, where a pretended tensor does not show it
            func = torch.ops.aten._conj_physical.default
        if name == "_fused_sdp_choice":
            return 0  # attention by products of matrices, which every device can
        result = self._do(func, name, plain_args, plain_kwargs)
        if target is not None and not here:
            return result

        def wrap(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            wrapped = known.get(id(x))
            if wrapped is None:
                return OnDevice(x, self)
            if wrapped.shape != x.shape:
                raise NotImplementedError(f"{name} changes the shape of a pretended tensor in place")
            return wrapped

        return tree_map(wrap, result)

    def _without_ours(self, func, name, args, kwargs, here, tensors):
        if not here:
            made_anew = not tensors and "dtype" in {a.name for a in func._schema.arguments}
            if self.recording is not None and (made_anew or name == "lift_fresh"):
                self.refuse(f"{name} makes a tensor on the host, in a step that is recorded")
            return func(*args, **kwargs)
        if tensors:  # such as zeros_like of a tensor on the host
            self._look(name, func, args, kwargs, [], [])
        elif kwargs.get("dtype") is not None:
            self._check_dtype(name, kwargs["dtype"])
        return tree_map(lambda x: OnDevice(x, self) if isinstance(x, Tensor) else x, self._do(func, name, args, kwargs))

    def _look(self, name, func, args, kwargs, ours, hosts) -> None:
        """Refuse what the device would."""
        if hosts:
            where = [f"{tuple(x.shape)} of {x.dtype}" for x in hosts if x.dim() > 0]
            by_index = name in ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index")
            if by_index and isinstance(args[0], OnDevice):
                self.wait(f"{name} with numbers that the host has")
            elif where or name in _NO_HOST_NUMBERS:
                self.refuse(f"host and device meet in {name}: {', '.join(where)} is on the host")
            elif self.recording is not None:
                self.refuse(f"{name} records a number of the host once and for all")
            if any(
                a.alias_info is not None and a.alias_info.is_write and not isinstance(v, OnDevice)
                for a, v in zip(func._schema.arguments, args, strict=False)
                if isinstance(v, Tensor)
            ):
                self.refuse(f"{name} writes numbers of the device into a tensor on the host")
        if name in WAITING:
            self.wait(name)
        if name in ("index", "index_put_", "index_put"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            filled = name != "index" and len(masks) == len(args[1]) == 1 and args[2].numel() == 1  # becomes masked_fill
            if masks and not filled:
                self.wait(f"{name} by a mask")
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            self.wait(name)
        for x in ours:
            self._check_dtype(name, x.dtype, exists=True)
        if ours:
            missing = self.kernels.refuses(name, args)
            if missing is None:
                self.unlisted.add(name)
            elif missing:
                self.refuse(f"{self.device.type} has no kernel for {name} of {missing}")

    def _check_dtype(self, name: str, dtype: torch.dtype, exists: bool = False) -> None:
        if dtype in self.kernels.absent:
            self.refuse(f"{self.device.type} has no {dtype}, which {name} is asked {'of' if exists else 'to make'}")

    def _do(self, func, name, args, kwargs):
        if self.recording is not None:
            return self.recording.do(func, args, kwargs)
        return func(*args, **kwargs)

    def _convert(self, func, source, kwargs, to_device: bool, to_host: bool) -> Tensor:
        """Do `Tensor.to`."""
        if not isinstance(source, OnDevice):
            if not to_device:
                return func(source, **kwargs)
            if not (self._is_pinned(source) and kwargs.get("non_blocking")):
                self.wait("a copy from the host's ordinary memory")
            self._check_dtype("to", kwargs.get("dtype") or source.dtype)
            kwargs.pop("non_blocking", None)
            return OnDevice(self._do(func, "_to_copy", (source,), kwargs), self)
        if to_host:
            self.wait("a copy to the host")
            return func(source.numbers, **{k: v for k, v in kwargs.items() if k != "non_blocking"})
        self._check_dtype("to", kwargs.get("dtype") or source.dtype)
        if kwargs.get("dtype") in (None, source.dtype) and kwargs.get("memory_format") is None:
            return OnDevice(source.numbers, self)  # it is there already
        return OnDevice(self._do(func, "_to_copy", (source.numbers,), kwargs), self)

    def _transfer(self, func, target, source, non_blocking: bool = False) -> Tensor:
        """Copy between host and device."""
        if isinstance(target, OnDevice):
            if not (self._is_pinned(source) and non_blocking):
                self.wait("a copy from the host's ordinary memory")
            self._do(func, "copy_", (target.numbers, source), {})
        else:
            self.wait("a copy to the host")
            target.copy_(source.numbers)
        return target

    def _pin(self, tensor: Tensor) -> None:
        self.pinned.add(tensor.untyped_storage().data_ptr())

    def _is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.pinned


def _caller() -> str:
    """Return file and line of the code that asked for the operation under way."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (frame.f_code.co_filename == __file__ or _TORCH in frame.f_code.co_filename):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class Recording:
    """What is recorded of a step: its operations with the memory that they read and write.

    As on a GPU, nothing is done while it is recorded, as far as anybody can see: what is written in place is put back.
    """

    def __init__(self, generators: tuple[torch.Generator, ...]) -> None:
        self._steps: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._saved: list[tuple[Tensor, Tensor]] = []
        self._generators = (torch.default_generator, *generators)
        self._states = [g.get_state() for g in self._generators]

    def do(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Do an operation, and remember it."""
        generator = kwargs.get("generator")
        if generator is not None and not any(generator._cdata == g._cdata for g in self._generators):
            raise GuardError("a recorded step draws from a generator that the graph does not know")
        for argument, value in (
            *zip(func._schema.arguments, args, strict=False),
            *((a, kwargs[a.name]) for a in func._schema.arguments if a.name in kwargs),
        ):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._saved += [(x, x.clone()) for x in tree_leaves(value) if isinstance(x, Tensor)]
        result = func(*args, **kwargs)
        writes_results = not any(r.alias_info is not None for r in func._schema.returns)
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)] if writes_results else []
        self._steps.append((func, args, kwargs, made))
        return result

    def end(self) -> None:
        """Undo what was done."""
        for tensor, before in reversed(self._saved):
            tensor.copy_(before)
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)
        self._saved.clear()

    def replay(self) -> None:
        """Do it all again, in the same memory."""
        for func, args, kwargs, made in self._steps:
            result = func(*args, **kwargs)
            for old, new in zip(made, (x for x in tree_leaves(result) if isinstance(x, Tensor)), strict=False):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Generator(torch.Generator):
    """A generator that says that it is on a pretended device."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    device = property(lambda self: self.place)


@contextlib.contextmanager
def pretend(kind: str, monkeypatch: Any) -> Iterator[PretendedDevice]:
    """Pretend that this machine has a device, "cuda" or "mps", in this thread and in those that begin meanwhile.

    Raises
    ------
    GuardError
        At the end, if something was refused and nobody has noticed.
    """
    import torch._dynamo  # which PyTorch loads late, and must not do while parts of it are replaced

    from tests.devices import pretended_autocast, pretended_cuda

    device = PretendedDevice(kind)
    group = torch._C._group_tensors_by_device_and_dtype

    def grouped(*args: Any, **kwargs: Any) -> Any:
        found = group(*args, **kwargs)
        return {(device.device if where.type == "meta" else where, dtype): v for (where, dtype), v in found.items()}

    def numbered(function: Callable[..., Any]) -> Callable[..., Any]:
        """Say which device of its kind is meant, which PyTorch would ask the driver."""

        def with_number(*args: Any, **kwargs: Any) -> Any:
            def change(x: Any) -> Any:
                named = x if isinstance(x, torch.device) else torch.device(x) if x == kind else None
                return device.device if named is not None and (named.type, named.index) == (kind, None) else x

            place = {k: change(v) if k == "device" else v for k, v in kwargs.items()}
            return function(*(change(x) if isinstance(x, (str, torch.device)) else x for x in args), **place)

        return with_number

    for owner, name in ((Tensor, "to"), (torch, "tensor"), (torch, "as_tensor")):
        monkeypatch.setattr(owner, name, numbered(getattr(owner, name)))
    monkeypatch.setattr(torch._C, "_group_tensors_by_device_and_dtype", grouped)
    monkeypatch.setattr(torch, "Generator", Generator)
    run = threading.Thread.run

    def run_with_device(thread: threading.Thread) -> None:
        with device, pretended_autocast.Autocast(device.device):
            run(thread)

    monkeypatch.setattr(threading.Thread, "run", run_with_device)
    pretended_cuda.patch(device, monkeypatch)
    lifted, overwritten = (
        torch._C._only_lift_cpu_tensors(),
        torch.__future__.get_overwrite_module_params_on_conversion(),
    )
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with device, pretended_autocast.Autocast(device.device):
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
        torch.__future__.set_overwrite_module_params_on_conversion(overwritten)
        monkeypatch.undo()
