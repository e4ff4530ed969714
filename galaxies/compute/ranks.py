"""Several processes that do one work: who they are, what they add up, and when they wait for each other.

`torchrun --nproc_per_node=N galaxy.py` starts N ranks. Each works on its own part of every batch; sums over the ranks
make gradients, batch statistics and logged means those of the whole batch. Work in a shared folder needs less: rank 0
says what there is to do, and waits until all have done their part. Without torchrun there is one rank, and every
function here leaves its argument as it is.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from galaxies.common.errors import UserError

_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}  # of torchrun, and what they are without it
_MEETING = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = datetime.timedelta(minutes=5)  # for rank 0 to draw and save, before the others call it lost
PATIENCE_WITH_PARTS = datetime.timedelta(days=14)  # for the last rank to do its part, of work in a shared folder

Value = TypeVar("Value")


class LostRankError(UserError):
    """Another rank has gone; threads of the exchange still wait for it, and an orderly exit would abort on them."""

    at_once = True


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes
    ----------
    rank : int
        Number of this process, 0 to size - 1. Rank 0 writes what the run writes.
    size : int
        Number of processes.
    local_rank : int
        Number of this process on its machine: the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read what torchrun says; one rank without it.

        Raises
        ------
        UserError
            If the variables contradict each other.
        """
        texts = {name: os.environ.get(name, default) for name, default in _VARIABLES.items()}
        try:
            rank, size, local_rank = map(int, texts.values())
            if not (0 <= rank < size and local_rank >= 0):
                raise ValueError
        except ValueError:
            said = ", ".join(f"{name}={text}" for name, text in texts.items())
            raise UserError(f"the environment says {said}: start several processes with torchrun") from None
        return cls(rank, size, local_rank)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def own_device(self, device: str) -> str:
        """Return `device`; where several processes share a machine and it names no GPU, this one's own."""
        if self.size > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local_rank}"
        return device

    def connect(self, device: torch.device, patience: datetime.timedelta = _PATIENCE) -> None:
        """Meet the other ranks: over NCCL on CUDA, over gloo elsewhere; once in a process.

        `patience` is how long one may keep the others waiting. One that has ended is noticed at once.

        Raises
        ------
        UserError
            If the environment does not say where to meet.
        """
        if self.size > 1 and not dist.is_initialized():
            if absent := [name for name in _MEETING if not os.environ.get(name)]:
                raise UserError(f"the environment lacks {', '.join(absent)}: start several processes with torchrun")
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)

    def disconnect(self) -> None:
        """Leave the other ranks."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def rows(self, per_rank: int) -> slice:
        """Return this rank's part of `size * per_rank` rows."""
        return slice(self.rank * per_rank, (self.rank + 1) * per_rank)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all ranks, which the gradient does not pass."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def mean_with_gradient(self, values: Tensor) -> Tensor:
        """Return the mean over all ranks; its gradient is the mean of all ranks' gradients, since each has it."""
        return values if self.size == 1 else _MeanOverRanks.apply(values)

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over all ranks, in one exchange."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    @torch.no_grad()
    def share(self, module: nn.Module) -> None:
        """Give every rank the weights and buffers of rank 0."""
        if self.size > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor, src=0)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Tell whether the flag is set on any rank; every rank must ask."""
        if self.size == 1:
            return flag
        asked = torch.tensor(float(flag), device=device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked)

    def first_says(self, value: Value) -> Value:
        """Return the value of rank 0, which can be pickled, whatever this rank's is; all wait until rank 0 has it.

        Raises
        ------
        LostRankError
            If another rank has gone.
        """
        if self.size == 1:
            return value
        values = [value]
        with self._not_alone():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait_for_all(self) -> None:
        """Wait until every rank has come here.

        Raises
        ------
        LostRankError
            If another rank has gone.
        """
        if self.size > 1:
            with self._not_alone():
                dist.barrier()

    @contextmanager
    def _not_alone(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            raise LostRankError(f"rank {self.rank} has lost another rank") from None

    def couple_batch_norm(self, module: nn.Module) -> nn.Module:
        """Make the module's batch normalisation use the statistics of all ranks' images together."""
        if self.size > 1:
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, _CoupledBatchNorm2d.like(child))
                else:
                    self.couple_batch_norm(child)
        return module


class _CoupledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the images of all ranks. PyTorch's own works on CUDA only.

    Every rank must have the same number of images.
    """

    # Statistics are always tracked.
    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> _CoupledBatchNorm2d:
        coupled = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        coupled.load_state_dict(norm.state_dict())
        return coupled.train(norm.training)

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training:
            return super().forward(maps)
        wide = maps.float()
        # The mean first, and then the deviations from it: differences of large squares would lose digits.
        mean = _MeanOverRanks.apply(wide.mean((0, 2, 3)))
        variance = _MeanOverRanks.apply((wide - mean[:, None, None]).square().mean((0, 2, 3)))
        with torch.no_grad():
            count = maps.numel() // maps.shape[1] * dist.get_world_size()
            assert self.momentum is not None  # as PyTorch's has by default
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (wide * scale[:, None, None] + shift[:, None, None]).to(maps.dtype)


class _MeanOverRanks(torch.autograd.Function):
    """The mean over ranks; the gradient is the mean of all ranks' gradients, since each rank's loss sees it."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep nothing: the gradient does not depend on the values."""

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return _MeanOverRanks.apply(gradient)


def is_lost_connection(error: RuntimeError) -> bool:
    """Tell whether an exchange failed because another rank has gone."""
    words = ("connection", "nccl", "gloo", "peer", "timed out", "timeout", "socket")
    return isinstance(error, dist.DistBackendError) or any(word in str(error).lower() for word in words)
