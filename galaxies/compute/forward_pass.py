"""How training runs a network forward: in the engine's precision, its weights rounded by one operation at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from galaxies.compute.compilation import Compiler
from galaxies.compute.device import Engine

_MULTIPLYING = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # layers whose products are rounded to bfloat16

Weights = dict[str, Tensor]


class ForwardPass:
    """A network's forward pass as a step of training takes it.

    In bfloat16 the weights of layers that multiply are rounded all at once, and their gradients come back all at once:
    left to `torch.autocast`, every use of every weight is an operation of its own. They are rounded anew for each call
    unless the call is given those of `weights`, so that none is ever older than the network. Parts of a network that
    compute in float32 say so by an attribute `keeps_float32`, and keep their weights.

    Parameters
    ----------
    network : nn.Module
    engine : Engine
    method : str
        The network's method that is called.
    compiler : Compiler, optional
        What the method is compiled by; without one it runs as it is.
    """

    def __init__(
        self, network: nn.Module, engine: Engine, method: str = "forward", compiler: Compiler | None = None
    ) -> None:
        self._engine, self._plain = engine, _Method(network, lambda *inputs: getattr(network, method)(*inputs))
        self._compiled = self._plain
        if compiler is not None and compiler.active:
            self._compiled = _Method(network, compiler(getattr(network, method)))
        self._rounded = _rounded_weights(self._plain) if engine.bf16 else {}

    def weights(self, count: int = 1) -> list[Weights]:
        """Round the weights as they are now, for `count` calls, whose gradients then come back together."""
        if not self._rounded:
            return [{}] * count
        rounded = _Round.apply(count, *self._rounded.values())
        size = len(self._rounded)
        return [dict(zip(self._rounded, rounded[k * size : (k + 1) * size], strict=True)) for k in range(count)]

    @torch.compiler.disable
    def __call__(self, *inputs: Tensor, weights: Weights | None = None, plain: bool = False) -> Any:
        """Return what the method returns of these inputs; a `plain` call's gradient can be differentiated again."""
        if weights is None:
            (weights,) = self.weights()
        with self._engine.autocast():
            return functional_call(self._plain if plain else self._compiled, weights, inputs, tie_weights=False)


class _Method(nn.Module):
    """A network of which one of its methods is called, as `functional_call` does not by itself."""

    def __init__(self, network: nn.Module, method: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self._method = network, method

    def forward(self, *inputs: Tensor) -> Any:
        return self._method(*inputs)


def _rounded_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights and biases of the layers that multiply in bfloat16, by name."""
    found: dict[str, nn.Parameter] = {}
    kept: set[nn.Module] = set()
    for name, module in network.named_modules():
        if getattr(module, "keeps_float32", False):
            kept.update(module.modules())
        if isinstance(module, _MULTIPLYING) and module not in kept:
            found |= {f"{name}.{key}": value for key, value in module.named_parameters(recurse=False)}
    return found


class _Round(torch.autograd.Function):
    """Round tensors to bfloat16, `count` times the same; the gradients of all of them come back in float32."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.count = count
        rounded = [torch.empty_like(tensor, dtype=torch.bfloat16) for tensor in tensors]
        torch._foreach_copy_(rounded, list(tensors))
        return (*rounded, *(tensor.detach() for _ in range(count - 1) for tensor in rounded))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        widened = _in_float32(gradients)
        size = len(widened) // ctx.count
        total = widened[:size]
        for more in (widened[k : k + size] for k in range(size, len(widened), size)):
            both = [
                (one, other) for one, other in zip(total, more, strict=True) if one is not None and other is not None
            ]
            if both:
                torch._foreach_add_(*map(list, zip(*both, strict=True)))
            total = [other if one is None else one for one, other in zip(total, more, strict=True)]
        return (None, *total)


def _in_float32(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the tensors in float32, each laid out as it was, by one operation."""
    given = [tensor for tensor in tensors if tensor is not None]
    wide = [torch.empty_like(tensor, dtype=torch.float32) for tensor in given]
    if given:
        torch._foreach_copy_(wide, given)
    results = iter(wide)
    return [None if tensor is None else next(results) for tensor in tensors]
