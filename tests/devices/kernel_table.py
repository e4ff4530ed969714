"""Which numbers the kernels of CUDA and of MPS take, from PyTorch's own database of operations.

    python -m tests.devices.kernel_table

writes `kernels.json` beside this file anew, from the PyTorch that is installed. PyTorch tests its kernels by that
database, so it says what each device has, and importing it needs neither a device nor most of a second; but it is no
public part of PyTorch, which is why its content lies here as a file.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
import types
import unittest
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PATH = Path(__file__).with_name("kernels.json")

# Short names of the types of numbers, as the file has them.
CODES = {
    "f2": torch.float16,
    "bf": torch.bfloat16,
    "f4": torch.float32,
    "f8": torch.float64,
    "u1": torch.uint8,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "b1": torch.bool,
    "c4": torch.complex32,
    "c8": torch.complex64,
    "c16": torch.complex128,
}
_NAMES = {dtype: code for code, dtype in CODES.items()}
_FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def names(words: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(words.split())


# Operations that come to a device under another name than they have in the database. Names that end in _backward are
# looked up among the derivatives, and those that end in _ are done in place.
CALLED = {
    "max_pool2d_with_indices": "max_pool2d",
    "convolution": "conv2d",
    "_convolution": "conv2d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_log_softmax": "log_softmax",
    "_softmax": "softmax",
    "nll_loss_forward": "nll_loss",
    "nll_loss2d_forward": "nll_loss",
    "upsample_nearest2d": "interpolate/nearest",
    "upsample_bilinear2d": "interpolate/bilinear",
    "upsample_bicubic2d": "interpolate/bicubic",
    "_upsample_bilinear2d_aa": "interpolate/bilinear",
    "reflection_pad2d": "pad/reflect",
    "replication_pad2d": "pad/replicate",
    "constant_pad_nd": "pad/constant",
    "_fft_r2c": "fft_rfft",
    "_fft_c2r": "fft_irfft",
    "_fft_c2c": "fft_fft",
    "_linalg_eigh": "linalg_eigh",
    "_linalg_solve_ex": "linalg_solve",
    "_linalg_svd": "linalg_svd",
    "_linalg_det": "linalg_det",
    "_cdist": "cdist",
    "_cdist_forward": "cdist",
    "_euclidean_dist": "cdist",
    "native_dropout": "dropout",
    "index": "__getitem__",
    "_index_put_impl": "index_put",
    "_unsafe_index": "__getitem__",
    "sum_to_size": "sum",
    "rsub": "__rsub__",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__iand__": "bitwise_and",
    "__ior__": "bitwise_or",
    "_native_batch_norm_legit": "native_batch_norm",
    "_native_batch_norm_legit_no_training": "native_batch_norm",
    "_safe_softmax": "softmax",
    "affine_grid_generator": "bmm",
    "native_group_norm": "group_norm",
    "threshold": "relu",
    "_scaled_dot_product_attention_math": "scaled_dot_product_attention",
    "_trilinear": "bilinear",
    "_fused_adam": "adam",
    "_foreach_copy": "clone",
    "im2col": "unfold",
    "col2im": "fold",
    "_masked_scale": "mul",
    "_prelu_kernel": "prelu",
    "_log_softmax_backward_data": "log_softmax_backward",
    "_softmax_backward_data": "softmax_backward",
    "__rshift__": "bitwise_right_shift",
    "__lshift__": "bitwise_left_shift",
    "_aminmax": "aminmax",
    "_unique2": "unique",
}

# What moves, names or makes numbers without looking at them, on every device and for each type that it has.
ANY = names(
    """
    view _unsafe_view _reshape_alias reshape detach alias as_strided as_strided_ expand permute transpose t t_ numpy_T
    select slice narrow unsqueeze unsqueeze_ squeeze squeeze_ unbind split split_with_sizes chunk flatten diagonal
    unfold movedim view_as_real view_as_complex real imag empty empty_like empty_strided new_empty new_empty_strided
    zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full eye arange linspace zero_ fill_ copy_
    _to_copy clone contiguous lift lift_fresh set_ resize_ select_scatter slice_scatter select_backward
    slice_backward diagonal_backward unfold_backward record_stream conj _conj resolve_conj _resolve_conj resolve_neg
    is_pinned _has_same_storage_numel is_same_size _local_scalar_dense scalar_tensor item size stride
    """
)

# What the database does not say, each with its source.
BY_HAND: dict[str, dict[str, frozenset[torch.dtype]]] = {
    "cuda": {
        "adam": _FLOATING,  # aten/src/ATen/native/cuda/FusedAdamKernel.cu: AT_DISPATCH_FLOATING_TYPES_AND2
        "relu_backward": _FLOATING,
        "uniform": _FLOATING,  # DistributionTemplates.h: floating types
        "normal": _FLOATING,
        "random": frozenset(CODES.values()) - {torch.complex32, torch.complex64, torch.complex128},
        "rand": _FLOATING,
        "randn": _FLOATING | {torch.complex64, torch.complex128},
        "randperm": frozenset(CODES.values()) - {torch.bool, torch.complex32, torch.complex64, torch.complex128},
        "randint": frozenset(CODES.values()) - {torch.complex32, torch.complex64, torch.complex128},
        "_linalg_check_errors": frozenset({torch.int32}),
    },
    "mps": {
        "adam": _FLOATING - {torch.float64},  # aten/src/ATen/native/mps/operations/FusedAdamKernel.mm
        "uniform": _FLOATING - {torch.float64},
        "normal": _FLOATING - {torch.float64},
        "random": frozenset({torch.int32, torch.int64, torch.uint8, torch.float32}),
        "rand": _FLOATING - {torch.float64},
        "randn": _FLOATING - {torch.float64},
        "randperm": frozenset({torch.int32, torch.int64}),
        "randint": frozenset({torch.int32, torch.int64, torch.uint8, torch.float32}),
        # torch 2.11, the oldest that the project runs with, has no such kernel:
        # github.com/pytorch/pytorch/issues/141287 and pull request 169143.
        "grid_sampler_2d_backward": frozenset(),
        # The derivative of a complex transform is taken by complex products, which MPS has; float64 there is none.
    },
}

# Types that a kind of device has no memory for. MPS: github.com/pytorch/pytorch/issues/122602.
ABSENT = {"cuda": frozenset[torch.dtype](), "mps": frozenset({torch.float64, torch.complex128})}


class KernelTable:
    """Which numbers the kernels of a kind of device take."""

    def __init__(self, kind: str, forward: dict[str, frozenset[torch.dtype]], backward: dict[str, Any]) -> None:
        self.kind, self.absent = kind, ABSENT[kind]
        self._by_hand, self._forward, self._backward = BY_HAND[kind], forward, backward

    @classmethod
    @cache
    def of(cls, kind: str) -> KernelTable:
        """Read the table of "cuda" or "mps"."""
        stored = json.loads(PATH.read_text("utf-8"))[kind]

        def unpacked(part: str) -> dict[str, frozenset[torch.dtype]]:
            found = {}
            for codes, names in stored[part].items():
                found |= dict.fromkeys(names.split(), frozenset(CODES[code] for code in codes.split()))
            return found

        return cls(kind, unpacked("forward"), unpacked("backward"))

    def types(self, name: str) -> frozenset[torch.dtype] | None:
        """Return the types of numbers that there is a kernel for; None if nobody has said."""
        if name in ANY:
            return frozenset(CODES.values()) - self.absent
        name = name[:-1] if name.endswith("_") and not name.endswith("__") else name
        if name in ANY:
            return frozenset(CODES.values()) - self.absent
        name = CALLED.get(name, name).removeprefix("_foreach_")
        if name in self._by_hand:
            return self._by_hand[name]
        for ending in ("_double_backward", "_backward"):
            if name.endswith(ending):
                whole = name.removesuffix(ending)
                return self._backward.get(CALLED.get(whole, whole), self._forward.get(name))
        return self._forward.get(name)

    def refuses(self, name: str, args: tuple[Any, ...]) -> torch.dtype | bool | None:
        """Tell what of an operation's arguments the device has no kernel for.

        Returns
        -------
        torch.dtype, False or None
            The type of those numbers, False if it has one, None if nobody has said.
        """
        allowed = self.types(name)
        if allowed is None:
            return None
        dtype = _dtype_of(name, args)
        return False if dtype is None or dtype in allowed else dtype


def _dtype_of(name: str, args: tuple[Any, ...]) -> torch.dtype | None:
    """Return the type of the numbers that decides on the kernel."""
    parts = args[1:] if name == "where" else args  # whose first argument is the condition
    for part in parts:
        first = part[0] if isinstance(part, (list, tuple)) and part else part
        if isinstance(first, Tensor):
            return first.dtype
    return None


def read_database() -> dict[str, Any]:
    """Return what PyTorch's database says now, in the form of the file."""
    if "expecttest" not in sys.modules and importlib.util.find_spec("expecttest") is None:
        # PyTorch's tests compare texts by it, which is no concern of the database.
        stand_in = types.ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stand_in
    from torch.testing._internal import common_cuda, common_mps

    # As on an A100: some types depend on the model, which is looked at while the database is imported.
    for name in dir(common_cuda):
        if name.startswith("SM") and name.endswith("OrLater"):
            setattr(common_cuda, name, name not in ("SM89OrLater", "SM90OrLater", "SM100OrLater", "SM120OrLater"))
    from torch.testing._internal.common_methods_invocations import op_db

    lacking = _literal(inspect.getsource(common_mps), "UNIMPLEMENTED_XFAILLIST")
    # Not for want of a kernel: pooling to sizes that do not divide, and results of another type than the CPU's.
    for name in ("nn.functional.adaptive_avg_pool1d", "nn.functional.adaptive_avg_pool2d", "bincount"):
        lacking.pop(name, None)
    found: dict[str, Any] = {kind: {"forward": {}, "backward": {}} for kind in ABSENT}
    for op in op_db:
        for kind, table in found.items():
            forward, backward = set(op.supported_dtypes(kind)), set(op.supported_backward_dtypes(kind))
            if kind == "mps" and (key := op.name + op.variant_test_name) in lacking:
                gone = lacking[key]
                forward, backward = (s - set(s if gone is None else gone) for s in (forward, backward))
            for name in _keys(op):
                for part, dtypes in (("forward", forward), ("backward", backward)):
                    table[part].setdefault(name, set()).update(dtypes - ABSENT[kind])
    return {kind: {part: _packed(names) for part, names in table.items()} for kind, table in found.items()}


def _keys(op: Any) -> set[str]:
    """Return the names by which an operation may come to a device."""
    names = {op.name, op.aten_name, *(alias.name for alias in op.aliases)}
    names = {name.removeprefix("nn.functional.").replace(".", "_") for name in names}
    return names | ({f"{name}/{op.variant_test_name}" for name in names} if op.variant_test_name else set())


def _literal(source: str, name: str) -> dict[str, Any]:
    """Return a table of types that stands in a function of PyTorch's."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return eval(compile(ast.Expression(node.value), name, "eval"), {"torch": torch})
    raise LookupError(f"PyTorch has no {name} any more")


def _packed(names: dict[str, set[torch.dtype]]) -> dict[str, str]:
    """Group names by their types."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(" ".join(code for code, t in CODES.items() if t in names[name]), []).append(name)
    return {codes: " ".join(groups[codes]) for codes in sorted(groups)}


if __name__ == "__main__":
    content = {"torch": torch.__version__.split("+")[0], "command": "python -m tests.devices.kernel_table"}
    PATH.write_text(json.dumps(content | read_database(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {PATH}")
