"""What `torch.autocast` does on a GPU, for tensors that PyTorch does not take for a GPU's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from tests.devices import pretended
from tests.devices.kernel_table import names

# Of ATen/autocast_mode.h: what is done in the lower precision, in float32, and in the widest type of its arguments.
_LOWER = names(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d prelu addmm addmv addr matmul einsum mm mv
    linear addbmm baddbmm bmm chain_matmul scaled_dot_product_attention __matmul__ __rmatmul__
    """
)
_FLOAT32 = names(
    """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__ softplus layer_norm
    rms_norm group_norm norm cosine_similarity nll_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss cross_entropy
    binary_cross_entropy_with_logits dist cdist logsumexp interpolate prod softmax log_softmax cumprod cumsum sum
    vector_norm matrix_norm linalg_vector_norm linalg_matrix_norm
    """
)
_WIDEST = names("addcdiv addcmul atan2 bilinear cross dot grid_sample index_put tensordot scatter_add cat stack")


class Autocast(TorchFunctionMode):
    """Round and widen arguments as `torch.autocast` says, where it is on for a pretended device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._kind = device.type

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_autocast_enabled(self._kind):
            name = getattr(func, "__name__", "")
            if name in _LOWER:
                args, kwargs = _cast((args, kwargs), torch.get_autocast_dtype(self._kind))
            elif name in _FLOAT32 or (name in _WIDEST and _has_float32((args, kwargs))):
                args, kwargs = _cast((args, kwargs), torch.float32)
        return func(*args, **kwargs)


def _casts(value: Any) -> bool:
    return isinstance(value, pretended.OnDevice) and value.is_floating_point() and value.dtype != torch.float64


def _cast(values: Any, dtype: torch.dtype) -> Any:
    return tree_map(lambda x: x.to(dtype) if _casts(x) else x, values)


def _has_float32(values: Any) -> bool:
    found = []
    tree_map(lambda x: found.append(isinstance(x, Tensor) and x.dtype == torch.float32), values)
    return any(found)
