"""Where and how networks run: the device, the precision, the memory layout, Adam, and the random states."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from galaxies.common.device_errors import first_sentence
from galaxies.common.errors import UserError

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Engine:
    """The device of a run and the arithmetic of its networks.

    Attributes
    ----------
    device : torch.device
    bf16 : bool
        Run convolutions and matrix products in bfloat16; weights, losses and optimisers stay float32.
    graphs : bool
        Record training steps as CUDA graphs.
    compiled : bool
        Compile what training steps do in many small operations.
    tf32 : bool
        Let CUDA round what enters float32 products to 10 bits of mantissa, which its fast units take; see `kernels`.
    """

    device: torch.device
    bf16: bool
    graphs: bool = False
    tf32: bool = False
    compiled: bool = False

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto", mode: str = "eager") -> Engine:
        """Pick the device and the precision.

        Parameters
        ----------
        device : str
            auto (CUDA, then MPS, then the CPU), cpu, cuda, cuda:N or mps.
        precision : {"auto", "fp32", "bf16"}
            auto takes bfloat16 where the hardware multiplies it faster.
        mode : {"auto", "graph", "eager"}
            Whether to record steps as CUDA graphs; auto does so on CUDA.

        Raises
        ------
        UserError
            If the device is unknown, not there or full, or a GPU has no bfloat16 that is asked for.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            chosen = torch.device(device)
            if chosen.type not in ("cpu", "cuda", "mps"):
                raise RuntimeError("not a device that this project trains on")
            torch.empty(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device '{device}' cannot be used here: {_hindrance(device, error)}") from None
        on_cuda = chosen.type == "cuda"
        if on_cuda and chosen.index is not None:
            torch.cuda.set_device(chosen)  # streams and graphs are made on the current device
        bf16 = precision == "bf16" or (precision == "auto" and _multiplies_bf16(chosen))
        if on_cuda and bf16 and not _multiplies_bf16(chosen):
            raise UserError(f"{chosen} has no bfloat16 arithmetic, new in compute capability 8.0: try --precision fp32")
        return cls(chosen, bf16, graphs=on_cuda and mode != "eager", tf32=on_cuda and precision != "fp32")

    def describe(self) -> str:
        """Say in a few words where and how steps run."""
        how = "steps as CUDA graphs" if self.graphs else "steps run operation by operation"
        if self.device.type != "cuda":
            how += f" (no CUDA graphs on {self.device.type})"
        if self.compiled:
            how += ", compiled"
        return f"{self.device}, {'bf16' if self.bf16 else 'fp32'}, {how}"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which networks run forward."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @contextlib.contextmanager
    def kernels(self) -> Iterator[None]:
        """Run CUDA's kernels as the engine wants them while entered: float32 as `tf32` says, and the fastest of each.

        The flags are those of the whole process, and are put back at the end: whoever comes later has chosen otherwise.
        To be entered by one thread at a time. Elsewhere than on CUDA it does nothing.
        """
        if self.device.type != "cuda":
            yield
            return
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, self.tf32, self.tf32
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before

    def prepare(self, network: Network) -> Network:
        """Move a network to the device, convolution weights with their channels last."""
        move: Callable[..., Network] = network.to  # torch declares it for either argument alone
        return move(self.device, memory_format=torch.channels_last)

    def join_statistics(self, network: nn.Module) -> Tensor:
        """Lay the network's running statistics side by side in one tensor, so that one operation can copy them all.

        To be called after `prepare`, which puts tensors elsewhere.
        """
        found = [(module, name) for module in network.modules() for name in ("running_mean", "running_var")]
        found = [(module, name) for module, name in found if getattr(module, name, None) is not None]
        values = [getattr(module, name) for module, name in found]
        joined = torch.cat([v.flatten() for v in values]) if values else torch.empty(0, device=self.device)
        for (module, name), part in zip(found, joined.split([v.numel() for v in values]), strict=True):
            setattr(module, name, part)
        return joined

    def adam(
        self,
        network: nn.Module,
        learning_rate: float,
        betas: tuple[float, float],
        slowed: Sequence[nn.Parameter] = (),
        share: float = 1.0,
    ) -> torch.optim.Adam:
        """Return Adam over the network's parameters, as one fused operation where the device has it.

        The `slowed` parameters are a group of their own, which takes that `share` of the step size. Each group has the
        step size that was set last as ``rate``, and the one that is taken as ``lr``. Both are tensors on the device but
        on MPS, which has no fused Adam: a number would be recorded in a CUDA graph once and for all, and what part of
        the rate is taken is known to the device only; see `step_if_finite`.
        """
        fused = self.device.type != "mps"
        apart = {id(parameter) for parameter in slowed}
        groups = [{"params": [p for p in network.parameters() if id(p) not in apart], "share": 1.0}]
        if apart:
            groups.append({"params": list(slowed), "share": share})
        optimizer = torch.optim.Adam(groups, learning_rate, betas, fused=fused, capturable=self.graphs)
        # On the CPU in double precision, which is that of the number.
        dtype = torch.float64 if self.device.type == "cpu" else torch.float32
        for group in optimizer.param_groups:
            for name in ("lr", "rate"):
                rate = learning_rate * group["share"]
                group[name] = torch.tensor(rate, dtype=dtype, device=self.device) if fused else rate
        return optimizer

    @staticmethod
    def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
        """Change the step size; to be called between steps, not within one."""
        for group in optimizer.param_groups:
            rate = learning_rate * group["share"]
            if isinstance(group["rate"], Tensor):
                group["rate"].fill_(rate)
            else:
                group["rate"] = rate

    @torch.no_grad()
    def step_if_finite(self, optimizer: torch.optim.Optimizer, checked: Tensor, part: Tensor) -> Tensor:
        """Take the optimiser's step unless something is not finite; only MPS waits to find out.

        Parameters
        ----------
        optimizer : Optimizer
            As `adam` returns it.
        checked : Tensor, ()
            Finite if all is.
        part : Tensor, ()
            How much of the step size to take.

        Returns
        -------
        Tensor, (), float32
            1 if the step was left out, 0 if it was taken.
        """
        left_out = (checked * 0).ne(0).float()  # of all that is not finite zero times makes no number
        if self.device.type == "mps":
            is_left_out, taken = torch.stack([left_out, part]).tolist()
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * taken
            if not is_left_out:
                optimizer.step()
            return left_out
        for group in optimizer.param_groups:
            torch.mul(group["rate"], part, out=group["lr"])
        # Fused optimisers look at this tensor themselves, as they do for scaled losses.
        optimizer.found_inf = left_out  # type: ignore[attr-defined]  # and declare it nowhere
        optimizer.step()
        return left_out

    def random_states(self) -> dict[str, Tensor]:
        """Return the states of the global random generators, which dropout draws from."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        elif self.device.type == "mps":
            states["mps"] = torch.mps.get_rng_state()
        return states

    def restore_random_states(self, states: dict[str, Tensor]) -> None:
        """Put back what `random_states` returned; states of a device that is not in use are left out."""
        torch.set_rng_state(states["cpu"])
        if self.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self.device)
        elif self.device.type == "mps" and "mps" in states:
            torch.mps.set_rng_state(states["mps"])


def _hindrance(device: str, error: Exception) -> str:
    """Say what hinders a device from being used, after the error of using it, and what to try."""
    kind, _, number = device.partition(":")
    if kind == "mps":
        return "there is no MPS here, the GPU of a Mac: try --device cpu or --device auto"
    if kind != "cuda" or (number and not number.isdecimal()):
        return "it is none of auto, cpu, cuda, cuda:N and mps: try --device cpu or --device auto"
    if isinstance(error, torch.OutOfMemoryError):
        return "its memory is full: close other programs that use it, or try --device cpu"
    if torch.version.cuda is None and torch.version.hip is None:
        return "this PyTorch was built without CUDA: install one with it from pytorch.org, or try --device cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number and 0 < count <= int(number):
        there = "one CUDA device, cuda:0" if count == 1 else f"{count} CUDA devices, cuda:0 to cuda:{count - 1}"
        return f"this machine has {there}: try one that is there, or --device auto"
    return f"{first_sentence(str(error))}: try --device cpu or --device auto"


def _multiplies_bf16(device: torch.device) -> bool:
    """Tell whether the hardware has bfloat16 multiply units, rather than emulating them."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return False
