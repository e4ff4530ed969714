"""A prepared dataset in shuffled, augmented batches on the device, and where the images wait to become part of one.

Images stay as small as they can until a batch is on its way into a network: on the device if they fit, else in main
memory with the next batch on its way, else in their file. Display pictures are uint8 everywhere; flux is float16 of the
stretched values on the device, whose steps are less than a hundredth of the noise, and float32 elsewhere.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from config_physics import Config
from galaxies.common.errors import UserError
from galaxies.compute.ranks import Ranks
from galaxies.datasets.attribute_support import Limits, believed
from galaxies.datasets.conditions import condition_vector
from galaxies.datasets.prepared import PreparedDataset, to_float
from galaxies.images.resampling import dihedral
from galaxies.images.stretch import AsinhStretch
from galaxies.telescope.exposure import Exposure

_RESIDENT_PART = 0.6  # of a GPU's free memory that images may take; the rest is for the networks
_BLOCK = 512  # images of flux that are stretched at a time
_RESIDENT_BYTES = 4 * 2**30  # of main memory; what is larger stays in its file


@dataclass(frozen=True)
class Batch:
    """One training batch on the device; see `conditions.condition_vector` for the last three."""

    images: Tensor  # (N, B, S, S), float32 in [-1, 1], or stretched flux
    classes: Tensor  # (N,)
    condition: Tensor
    scaled: Tensor
    known: Tensor
    exposure: Exposure | None = None  # of the images, where a generator's light is observed as they were


class DeviceBatches:
    """A split drawn in shuffled, augmented batches, which the device makes of images as they are stored.

    The host says which batch is next (`stage`), the device makes it (`draw`, which a CUDA graph can hold), and the
    host counts it (`advance`); `next_batch` is all three. All randomness comes from one CPU generator, and
    `state_dict` holds it together with the current epoch's order, so that a run can go on from any step. With
    several ranks all draw the same order, and each takes its part of every batch. An epoch has `len(self)` batches;
    the last rows that do not fill a batch wait for the next epoch's shuffle.

    Parameters
    ----------
    data : PreparedDataset
    split : str
    config : Config
    device : torch.device
    ranks : Ranks, optional
        This process alone if left out.
    limits : dict, optional
        Between which values attributes are believed; others count as unknown. See `attribute_support.value_limits`.

    Raises
    ------
    UserError
        If the split has fewer images than one batch.
    """

    def __init__(
        self,
        data: PreparedDataset,
        split: str,
        config: Config,
        device: torch.device,
        ranks: Ranks | None = None,
        limits: Limits | None = None,
    ) -> None:
        rows = data.rows(split)
        self._ranks = ranks or Ranks()
        self._global_size = config.batch_size * self._ranks.size
        if len(rows) < self._global_size:
            on_ranks = f" on each of {self._ranks.size} ranks" if self._ranks.size > 1 else ""
            raise UserError(
                f"{data.path} has {len(rows)} {split} images, fewer than --batch-size {config.batch_size}{on_ranks}"
            )
        self.data, self.rows, self.config = data, rows, config
        self.classes_cpu = torch.from_numpy(data.classes(rows))
        values = data.attributes(config.attributes, rows)
        self.values = torch.from_numpy(believed(values, config.attributes, limits or {}))
        self._pixels = Pixels(config, device)
        self.store = store_images(data.images, rows, device, config.batch_size, self._pixels)
        self.classes = self.classes_cpu.to(device)
        told = torch.from_numpy(data.class_shares(rows)) if config.soft_classes else self.classes_cpu
        self.condition, self.scaled, self.known = (
            part.to(device) for part in condition_vector(told, self.values, config)
        )
        numbers = torch.bincount(self.classes_cpu, minlength=len(config.classes)).clamp_min(1)
        self._exposures = data.exposures(rows, config).to(device) if config.observes else None
        self._class_weights = 1.0 / numbers[self.classes_cpu]
        self._generator = torch.Generator().manual_seed(config.seed)
        self._order = torch.empty(0, dtype=torch.int64)  # of the whole epoch, and the turn of each image in it
        self._turns = torch.empty(0, dtype=torch.uint8)
        self._drawn = 0  # images of the epoch, over all ranks
        # On the device and always in the same place: this rank's part of the order, and where in it the next batch is.
        capacity = len(self) * config.batch_size
        self._device_order = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._device_turns = torch.zeros(capacity, dtype=torch.uint8, device=device)
        self._within = torch.arange(config.batch_size, device=device)
        self._start = torch.zeros((), dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self.rows) // self._global_size

    def some_images(self, count: int = 2048) -> tuple[Tensor, Tensor]:
        """Return up to `count` images (N, B, S, S) for networks, and their conditions, of the whole split.

        Fewer if they would take more than 2 GiB.
        """
        count = min(count, 2**31 // (4 * self.data.images[0].size))
        step = -(-len(self.rows) // count)
        on_cpu = Pixels(self.config, torch.device("cpu"))
        return on_cpu.for_networks(torch.from_numpy(self.data.images[self.rows[::step]])), self.condition[::step].cpu()

    def some_exposures(self, count: int) -> Exposure | None:
        """Return how up to `count` images of the whole split were observed, None where no telescope takes part."""
        if self._exposures is None:
            return None
        step = -(-len(self.rows) // count)
        return self._exposures.of(torch.arange(0, len(self.rows), step, device=self.known.device))

    def examples(self, per_class: int = 32) -> dict[int, Tensor]:
        """Return up to `per_class` images (N, B, S, S) as stored, of each class that has two, on the CPU."""
        members = {i: self.rows[(self.classes_cpu == i).numpy()][:per_class] for i in range(len(self.config.classes))}
        return {i: torch.from_numpy(self.data.images[rows]) for i, rows in members.items() if len(rows) > 1}

    def start_epoch(self) -> None:
        """Draw the order of a new epoch: a shuffle, or with `balanced` draws that favour no class."""
        if self.config.balanced:
            size = len(self) * self._global_size
            self._order = torch.multinomial(self._class_weights, size, True, generator=self._generator)
        else:
            self._order = torch.randperm(len(self.rows), generator=self._generator)
        if self.config.augment:
            self._turns = torch.randint(0, 8, self._order.shape, generator=self._generator, dtype=torch.uint8)
        self._drawn = 0
        self._upload()

    def _upload(self) -> None:
        """Put this rank's part of what is left of the epoch onto the device, at the place where it will be read."""
        done = self.position * self.config.batch_size
        for whole, part in ((self._order, self._device_order), (self._turns, self._device_turns)):
            left = whole[self._drawn :]
            left = left[: len(left) // self._global_size * self._global_size].view(-1, self._global_size)
            mine = left[:, self._ranks.rows(self.config.batch_size)].reshape(-1)[: len(part) - done]
            _send(mine, part[done : done + len(mine)])

    def end_epoch(self) -> None:
        """Forget the finished epoch's order; `start_epoch` draws the next."""
        self._order, self._turns = self._order[:0], self._turns[:0]
        self._drawn = 0

    @property
    def position(self) -> int:
        """Batches already drawn in this epoch."""
        return self._drawn // self._global_size

    @property
    def is_over(self) -> bool:
        """Whether the epoch has no further batch."""
        return self._drawn + self._global_size > len(self._order)

    def stage(self) -> None:
        """Make the next batch of the epoch the one that `draw` makes."""
        self._start.fill_(self.position * self.config.batch_size)
        last = self._drawn + 2 * self._global_size > len(self._order)
        following = None if last else self._chosen(self._drawn + self._global_size)
        self.store.stage(self._chosen(self._drawn), following)

    def _chosen(self, start: int) -> Tensor:
        """Return the row numbers of this rank's part of the batch that begins at `start`."""
        return self._order[start : start + self._global_size][self._ranks.rows(self.config.batch_size)]

    def draw(self) -> Batch:
        """Make the staged batch, on the device alone."""
        place = self._start + self._within
        chosen = self._device_order[place]
        images = self.store.gather(chosen)
        exposure = None if self._exposures is None else self._exposures.of(chosen)
        if self.config.augment:
            images = dihedral(images, self._device_turns[place])
            if exposure is not None and exposure.psfs is not None:  # turns with the galaxy
                exposure = exposure._replace(psfs=dihedral(exposure.psfs, self._device_turns[place]))
        return Batch(
            self._pixels.for_networks(images),
            self.classes[chosen],
            self.condition[chosen],
            self.scaled[chosen],
            self.known[chosen],
            exposure,
        )

    def advance(self) -> None:
        """Count the drawn batch."""
        self._drawn += self._global_size

    def next_batch(self) -> Batch:
        """Return the next batch of the epoch."""
        self.stage()
        batch = self.draw()
        self.advance()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides which batches follow."""
        return {
            "generator": self._generator.get_state(),
            "order": self._order.clone(),
            "turns": self._turns.clone(),
            "drawn": self._drawn,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, also on another number of ranks.

        Raises
        ------
        UserError
            If that was with other images.
        """
        order = state["order"]
        if len(order) > len(self.rows) or (len(order) > 0 and order.max() >= len(self.rows)):
            raise UserError(f"the checkpoint goes on with images that {self.data.path} does not have: use another one")
        self._generator.set_state(state["generator"])
        self._order, self._turns, self._drawn = state["order"], state["turns"], state["drawn"]
        self._upload()


def _send(values: Tensor, place: Tensor) -> None:
    """Copy values of the host to their place on a device, without waiting until they are there.

    A GPU fetches by itself what lies in page-locked memory; PyTorch keeps that until it has been fetched.
    """
    place.copy_(values.pin_memory() if place.is_cuda else values, non_blocking=True)


class Pixels:
    """How pixels are kept, and what networks get of them.

    Parameters
    ----------
    config : Config
    device : torch.device
        Where `for_networks` works.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self._stretch = None
        if config.kind == "flux":
            self._stretch = AsinhStretch(torch.tensor(config.softening, dtype=torch.float32, device=device))

    @property
    def resident_bytes(self) -> int:
        """Bytes of a pixel that stays on the device."""
        return 1 if self._stretch is None else 2

    def resident(self, images: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return images (M, B, S, S) to stay on the device: uint8, or stretched flux in float16."""
        if self._stretch is None:
            return torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)
        kept = torch.empty((len(rows), *images.shape[1:]), dtype=torch.float16, device=device)
        for start in range(0, len(rows), _BLOCK):  # float32 of all of them may not fit
            block = torch.from_numpy(images[rows[start : start + _BLOCK]]).to(device)
            kept[start : start + _BLOCK] = self._stretch(block)
        return kept

    def for_networks(self, images: Tensor) -> Tensor:
        """Return images as networks take them, float32: of a display in [-1, 1], or stretched flux.

        Parameters
        ----------
        images : Tensor, (N, B, S, S)
            uint8; float32, nJy a pixel; or float16, already stretched.
        """
        if self._stretch is None:
            return to_float(images)
        return images.float() if images.dtype == torch.float16 else self._stretch(images)


def store_images(
    images: np.ndarray, rows: np.ndarray, device: torch.device, batch_size: int, pixels: Pixels
) -> ImageStore:
    """Put images where they can be had fastest.

    Parameters
    ----------
    images : ndarray, (N, B, S, S), uint8 or float32
        Memory-mapped.
    rows : ndarray, (M,), int64
        Those to keep.
    device : torch.device
    batch_size : int
        Images that are asked for at a time.
    pixels : Pixels
        How they are kept.
    """
    num_bytes = len(rows) * images[0].size * pixels.resident_bytes
    limit = _RESIDENT_PART * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _RESIDENT_BYTES
    if num_bytes <= limit:
        return ResidentImages(pixels.resident(images, rows, device))
    if device.type == "cuda":
        print(f"the images ({num_bytes / 2**30:.1f} GiB) stay in main memory: {device} has too little that is free")
        return StreamedImages(images, rows, device, batch_size)
    return MappedImages(images, rows, device)


class ResidentImages:
    """Images on the device, (M, B, S, S), as `Pixels.resident` keeps them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def stage(self, chosen: Tensor, following: Tensor | None) -> None:
        """Do nothing: every image is in place."""

    def gather(self, chosen: Tensor) -> Tensor:
        """Return the images (N, B, S, S) with the numbers (N,), a tensor on the device."""
        return self.images[chosen]


class MappedImages:
    """Images in a file that is larger than the memory it should take."""

    def __init__(self, images: np.ndarray, rows: np.ndarray, device: torch.device) -> None:
        self._images, self._rows, self._device = images, rows, device

    def stage(self, chosen: Tensor, following: Tensor | None) -> None:
        """Read the images that `gather` will return; numbers (N,) on the CPU."""
        self._staged = torch.from_numpy(self._images[self._rows[chosen.numpy()]]).to(self._device)

    def gather(self, chosen: Tensor) -> Tensor:
        """Return the images (N, B, S, S) that were staged."""
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
        shape, dtype = (batch_size, *images.shape[1:]), self._images.dtype
        self._pinned = [torch.empty(shape, dtype=dtype, pin_memory=True) for _ in range(2)]
        self._arriving = [torch.empty(shape, dtype=dtype, device=device) for _ in range(2)]
        self._current = torch.empty(shape, dtype=dtype, device=device)
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
        """Return the images (N, B, S, S) that were staged."""
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
