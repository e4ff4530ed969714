"""Read a file of `torch.save` without running code in it, and without believing what it says of its sizes.

Such a file is a zip archive: a pickle that says what there is, and the bytes of each storage beside it. The pickle is
taken apart by an unpickler that knows dicts, lists, text, numbers and tensors, and nothing else. A tensor is laid over
its bytes only if these are there; `torch.load` takes the pickle's word for how many they are, and reads on behind them.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from functools import reduce
from typing import IO, Any

import torch
from torch import Tensor

from galaxies.common.schema import SchemaError, brief, within

_MAX_DEPTH = 32  # of lists and dicts within each other; a run has 5
_SHARED_ENTRIES = 100_000  # of lists and dicts that stand in a file once and are named more often
_SHARED_BYTES = 1 << 20  # of what stands in a file once and is named more often
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "ComplexFloatStorage": torch.complex64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What else torch saves, by the function that would rebuild it.
_STRANGE = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without values",
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_parameter": "a parameter",
    "_rebuild_parameter_with_state": "a parameter",
}


class NotAnArchiveError(ValueError):
    """A file that is no archive of `torch.save`, is incomplete, or would run code."""


def read_tensor_file(file: IO[bytes], values: bool) -> Any:
    """Read a whole file of `torch.save`.

    Parameters
    ----------
    file : binary file
        A regular one, open for reading.
    values : bool
        Read the tensors; else None stands in the place of each, and a large file costs no more than a small one.

    Returns
    -------
    dict, list, tuple, str, int, float, bool, None or Tensor, on the CPU
        Dicts are plain ones, whatever they were. No tensor has a gradient, and none is of more bytes than the file.

    Raises
    ------
    NotAnArchiveError
        If it is none.
    SchemaError
        If it holds something else than these, naming the place.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            content = _Content(archive, os.fstat(file.fileno()).st_size, values)
            return content.plain(_Unpickler(io.BytesIO(content.pickle)).load())
    except (SchemaError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails anywhere in the readers, with any error
        raise NotAnArchiveError(str(error)) from None


class _Strange:
    """A value of a kind that no file of this program holds."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> _Strange:
        return self


class _Claim:
    """What a pickle says of a tensor: its storage, and how the values lie in it."""

    __slots__ = ("dtype", "key", "length", "offset", "options", "size", "stride", "tensor")

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *options: Any) -> None:
        self.dtype, self.key, self.length = storage
        self.offset, self.size, self.stride, self.options = offset, size, stride, options
        self.tensor: Tensor | None = None


# Not the one written in C: that keeps what a file numbers in a list as long as the largest number.
class _Unpickler(pickle._Unpickler):
    """Make claims instead of tensors, and nothing that does anything."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name in the pickle."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Claim
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module.partition(".")[0] == "torch":
            return _Strange(_STRANGE.get(name, "of a kind of torch's"))
        raise NotAnArchiveError(f"it would run {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage's dtype, its name in the archive, and how many values it is said to have."""
        kind, dtype, key, _, length = pid
        if kind != "storage" or not isinstance(dtype, (torch.dtype, _Strange)) or type(length) is not int:
            raise NotAnArchiveError("a storage is none")
        return dtype, str(key), length


class _Content:
    """The archive, and what of it has been read."""

    def __init__(self, archive: zipfile.ZipFile, size: int, values: bool) -> None:
        self._archive, self._values = archive, values
        self._sizes: dict[str, int] = {}
        for entry in archive.infolist():
            # torch packs nothing; what is packed could unpack to any size.
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.filename in self._sizes:
                raise NotAnArchiveError("it is packed, encrypted or ambiguous")
            self._sizes[entry.filename] = entry.file_size
        if sum(self._sizes.values()) > size:
            raise NotAnArchiveError("its entries are longer than it is")
        (name,) = (name for name in self._sizes if name.endswith("/data.pkl") and name.count("/") == 1)
        self._folder = name.removesuffix("data.pkl")
        order = f"{self._folder}byteorder"
        if order in self._sizes and archive.read(order) != sys.byteorder.encode():
            raise NotAnArchiveError("it is of a machine with another order of bytes")
        self.pickle = archive.read(name)
        self._storages: dict[str, bytearray] = {}
        self._entries_left = len(self.pickle) + _SHARED_ENTRIES  # each takes a byte to name
        self._bytes_left = size + _SHARED_BYTES

    def plain(self, value: Any, path: tuple[str | int, ...] = ()) -> Any:
        """Return a copy of what the pickle holds, with tensors for claims.

        Raises
        ------
        SchemaError
            If something else is in it, there is far too much, or it holds itself.
        """
        self._entries_left -= 1
        if len(path) > _MAX_DEPTH or self._entries_left < 0:
            raise SchemaError("its lists and mappings hold themselves, or are far too deep or long")
        if value is None or isinstance(value, (bool, float, str)):
            return value
        if type(value) is int and abs(value) < 2**63:
            return value
        if isinstance(value, _Claim):
            return self._tensor(value, path)
        if isinstance(value, dict):
            for key in value:
                if type(key) not in (str, int) or (isinstance(key, int) and abs(key) >= 2**63):
                    raise SchemaError(f"the name of an entry of {_place(path)} is {brief(key)}")
            return {key: self.plain(inner, (*path, key)) for key, inner in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.plain(inner, (*path, number)) for number, inner in enumerate(value))
        what = value.name if isinstance(value, _Strange) else brief(value)
        raise SchemaError(f"{_place(path)} is {what}, which no file of this program holds")

    def _tensor(self, claim: _Claim, path: tuple[str | int, ...]) -> Tensor | None:
        if not self._values:
            return None
        if claim.tensor is None:
            claim.tensor = self._lay_out(claim, _place(path))
        self._bytes_left -= claim.tensor.nbytes
        if self._bytes_left < 0:
            raise SchemaError(f"{_place(path)} and those before it are of more bytes than the file has")
        return claim.tensor

    def _lay_out(self, claim: _Claim, place: str) -> Tensor:
        """Return the tensor, a view of the bytes in the archive."""
        if isinstance(claim.dtype, _Strange):
            raise SchemaError(f"{place} is a tensor of numbers that no file of this program holds")
        size, stride, length = claim.size, claim.stride, claim.length
        numbers = (*size, *stride, claim.offset, length)
        if len(size) != len(stride) or len(size) > 8 or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers):
            raise SchemaError(f"{place} has a shape that no tensor can have")
        if any(claim.options):  # a gradient, hooks, or flags such as that of conjugation
            raise SchemaError(f"{place} is more than the values of a tensor")
        name, count = f"{self._folder}data/{claim.key}", math.prod(size)
        if name not in self._sizes or length * claim.dtype.itemsize != self._sizes[name]:
            there = self._sizes.get(name, 0)
            raise SchemaError(f"{place} claims {length} values of a storage of {there} bytes")
        reached = 1
        for step, steps in sorted(zip(stride, size, strict=True)):
            if count and steps > 1 and step < reached:
                raise SchemaError(f"{place} is expanded: its values lie over each other")
            reached = max(reached, steps * step)
        last = claim.offset + sum((steps - 1) * step for steps, step in zip(size, stride, strict=True))
        if count == 0:
            return torch.empty(size, dtype=claim.dtype)
        if last >= length:
            raise SchemaError(f"{place} claims {last + 1} values of a storage of {length}")
        if claim.key not in self._storages:
            self._storages[claim.key] = bytearray(self._archive.read(name))
        return torch.frombuffer(self._storages[claim.key], dtype=claim.dtype).as_strided(size, stride, claim.offset)


def _place(path: tuple[str | int, ...]) -> str:
    return reduce(within, path, "") or "it"
