"""How a step runs: the device, the precision and the memory layout."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from config_physics import UserError


@dataclass(frozen=True)
class Engine:
    """The device of a run and the arithmetic of its networks.

    Attributes
    ----------
    device : torch.device
    bf16 : bool
        Run convolutions and matrix products in bfloat16; weights, losses and optimisers stay float32.
    """

    device: torch.device
    bf16: bool

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto") -> Engine:
        """Pick the device and the precision.

        Parameters
        ----------
        device : str
            auto (CUDA, then MPS, then the CPU), cpu, cuda, cuda:N or mps.
        precision : {"auto", "fp32", "bf16"}
            auto takes bfloat16 where the hardware multiplies it faster.

        Raises
        ------
        UserError
            If the device is unknown or not there.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            chosen = torch.device(device)
            if chosen.type not in ("cpu", "cuda", "mps"):
                raise RuntimeError("not a device that this project trains on")
            torch.empty(1, device=chosen)
        except (RuntimeError, AssertionError):
            raise UserError(f"device '{device}' cannot be used here: try --device cpu or --device auto") from None
        if chosen.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
            torch.backends.cudnn.benchmark = True
        return cls(chosen, precision == "bf16" or (precision == "auto" and _multiplies_bf16(chosen)))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which networks run forward."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def prepare(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, convolution weights with their channels last."""
        return network.to(self.device, memory_format=torch.channels_last)

    def adam(self, network: nn.Module, learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
        """Return Adam over the network's parameters, as one fused operation where the device has it."""
        return torch.optim.Adam(network.parameters(), learning_rate, betas, fused=self.device.type != "mps")

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


def _multiplies_bf16(device: torch.device) -> bool:
    """Tell whether the hardware has bfloat16 multiply units, rather than emulating them."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return False
