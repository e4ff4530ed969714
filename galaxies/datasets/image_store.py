"""Where a run's training images wait: on the device, or in main memory with the next batch on its way."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

_RESIDENT_PART = 0.6  # of a GPU's free memory that images may take; the rest is for the networks
_RESIDENT_BYTES = 4 * 2**30  # of main memory; what is larger stays in its file


def store_images(images: np.ndarray, rows: np.ndarray, device: torch.device, batch_size: int) -> ImageStore:
    """Put images where they can be had fastest.

    Parameters
    ----------
    images : ndarray, (N, 3, S, S), uint8
        Memory-mapped.
    rows : ndarray, (M,), int64
        Those to keep.
    device : torch.device
    batch_size : int
        Images that are asked for at a time.
    """
    num_bytes = len(rows) * images[0].nbytes
    limit = _RESIDENT_PART * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _RESIDENT_BYTES
    if num_bytes <= limit:
        return ResidentImages(torch.from_numpy(np.ascontiguousarray(images[rows])).to(device))
    if device.type == "cuda":
        print(f"the images ({num_bytes / 2**30:.1f} GiB) stay in main memory: {device} has too little that is free")
        return StreamedImages(images, rows, device, batch_size)
    return MappedImages(images, rows, device)


class ResidentImages:
    """Images on the device, (M, 3, S, S), uint8."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def stage(self, chosen: Tensor, following: Tensor | None) -> None:
        """Do nothing: every image is in place."""

    def gather(self, chosen: Tensor) -> Tensor:
        """Return the images (N, 3, S, S) with the numbers (N,), a tensor on the device."""
        return self.images[chosen]


class MappedImages:
    """Images in a file that is larger than the memory it should take."""

    def __init__(self, images: np.ndarray, rows: np.ndarray, device: torch.device) -> None:
        self._images, self._rows, self._device = images, rows, device

    def stage(self, chosen: Tensor, following: Tensor | None) -> None:
        """Read the images that `gather` will return; numbers (N,) on the CPU."""
        self._staged = torch.from_numpy(self._images[self._rows[chosen.numpy()]]).to(self._device)

    def gather(self, chosen: Tensor) -> Tensor:
        """Return the images (N, 3, S, S) that were staged."""
        return self._staged


class StreamedImages:
    """Images in main memory for a GPU: while it computes on one batch, the next is copied on a stream of its own.

    A batch passes through page-locked memory, which the GPU reads by itself, into one of two buffers there. A third,
    which stays in place for CUDA graphs, holds the batch that is computed on.
    """

    def __init__(self, images: np.ndarray, rows: np.ndarray, device: torch.device, batch_size: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the file is read-only, and nothing here writes to it
            self._images = torch.from_numpy(images)
        self._rows = torch.from_numpy(rows)
        shape = (batch_size, *images.shape[1:])
        self._pinned = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._arriving = [torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(2)]
        self._current = torch.empty(shape, dtype=torch.uint8, device=device)
        self._stream = torch.cuda.Stream(device)
        self._copied = [torch.cuda.Event() for _ in range(2)]  # from page-locked memory
        self._used = [torch.cuda.Event() for _ in range(2)]  # into the third buffer
        self._slot = 0
        self._fetched: Tensor | None = None  # numbers of the batch in the present slot

    def stage(self, chosen: Tensor, following: Tensor | None) -> None:
        """Put images in place for `gather`, and send for those that follow; numbers (N,) on the CPU."""
        if self._fetched is None or not torch.equal(self._fetched, chosen):
            self._fetch(chosen)
        slot, main = self._slot, torch.cuda.current_stream()
        main.wait_event(self._copied[slot])
        self._current.copy_(self._arriving[slot])
        self._used[slot].record(main)
        self._fetched = None
        if following is not None:
            self._fetch(following)

    def gather(self, chosen: Tensor) -> Tensor:
        """Return the images (N, 3, S, S) that were staged."""
        return self._current

    def _fetch(self, chosen: Tensor) -> None:
        self._slot = slot = 1 - self._slot
        self._copied[slot].synchronize()  # page-locked memory may be in use by the copy of two batches ago
        torch.index_select(self._images, 0, self._rows[chosen], out=self._pinned[slot])
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._used[slot])
            self._arriving[slot].copy_(self._pinned[slot], non_blocking=True)
            self._copied[slot].record(self._stream)
        self._fetched = chosen


ImageStore = ResidentImages | MappedImages | StreamedImages
