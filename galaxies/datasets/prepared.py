"""The prepared dataset as training sees it: opened, checked, and drawn in batches on the device.

On disk a prepared dataset is a folder with `images.npy`, `catalogue.csv` and `manifest.json` (written by
`prepare_data.py`). In memory the images stay uint8 until a batch is on its way into a network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from config_physics import ATTRIBUTES, MORPHOLOGIES, Config, attribute_table, morphology_index
from galaxies.common.errors import UserError
from galaxies.compute.ranks import Ranks
from galaxies.datasets.image_store import store_images
from galaxies.datasets.writing import FORMAT_VERSION, sha256_of


def to_float(images: Tensor) -> Tensor:
    """Map pixel values 0..255 (uint8) to [-1, 1] (float32); exactly undone by `to_uint8`."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Map [-1, 1] (floating point) to the nearest pixel value 0..255 (uint8), clipping what lies outside."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk.

    Attributes
    ----------
    path : Path
    images : ndarray, (N, 3, S, S), uint8
        Memory-mapped, read-only.
    catalogue : DataFrame, N rows
        In the order of the images; `object_id` is text.
    manifest : dict
    """

    path: Path
    images: np.ndarray
    catalogue: pd.DataFrame
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> PreparedDataset:
        """Open a dataset; `verify` reads both files through and compares their checksums.

        Raises
        ------
        UserError
            If the folder holds no prepared dataset, one of another format version, or a damaged one.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            version, sums = manifest["format_version"], manifest["sha256"]
        except FileNotFoundError:
            raise UserError(
                f"{path} holds no prepared dataset: make one with prepare_data.py gz2 or prepare_data.py labelled"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path / 'manifest.json'} cannot be read ({error}): prepare the data again") from None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}, this program reads {FORMAT_VERSION}: prepare the data again"
            )
        try:
            if verify:
                for name in ("images.npy", "catalogue.csv"):
                    if sha256_of(path / name) != sums[name]:
                        raise UserError(
                            f"{path / name} has changed since it was prepared: prepare the data again with --overwrite"
                        )
            images = np.load(path / "images.npy", mmap_mode="r", allow_pickle=False)
            catalogue = _read_catalogue(path / "catalogue.csv")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): prepare the data again with --overwrite") from None
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(catalogue) or len(images) == 0:
            raise UserError(f"{path} is damaged: images and catalogue do not match; prepare the data again")
        return cls(path, images, catalogue, manifest)

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.images.shape[-1]

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of one split (`train`, `judge` or `test`), ascending."""
        return np.flatnonzero((self.catalogue["split"] == split).to_numpy())

    def classes(self, rows: np.ndarray) -> np.ndarray:
        """Return the class indices (int64) of the given rows."""
        return np.array([morphology_index(name) for name in self.catalogue["morphology"].iloc[rows]], dtype=np.int64)

    def attributes(self, names: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
        """Return attribute values in physical units, (len(rows), len(names)) float32, NaN where unknown.

        Raises
        ------
        UserError
            If an attribute has no value in this dataset.
        """
        attribute_table(names)
        for name in names:
            if name not in self.catalogue or self.catalogue[name].isna().all():
                known = [a for a in self.manifest.get("attributes", {}) if a in self.catalogue]
                raise UserError(f"{self.path} has no values of '{name}': choose --attributes from {', '.join(known)}")
        return self.catalogue[list(names)].iloc[rows].to_numpy(np.float32, copy=True)


def find_dataset(folder: Path, chosen: str = "") -> Path | None:
    """Return the chosen dataset, or the only one in `folder`, or None if there is none.

    Raises
    ------
    UserError
        If none was chosen and there is more than one.
    """
    if chosen:
        return Path(chosen)
    found = sorted(manifest.parent for manifest in folder.glob("[!.]*/manifest.json"))
    if len(found) > 1:
        raise UserError(f"there are several datasets, choose one: {', '.join(f'--data {p}' for p in found)}")
    return found[0] if found else None


def condition_vector(classes: Tensor, values: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Build condition vectors.

    Parameters
    ----------
    classes : Tensor, (N,), int64
    values : Tensor, (N, A), float32
        Attributes of `config` in physical units, NaN where unknown.

    Returns
    -------
    condition : Tensor, (N, config.condition_dim)
        One-hot class, scaled values (0 where unknown), and with `condition_mask` the flags of what is known.
    scaled : Tensor, (N, A)
        The scaled values alone: the target of the physics loss.
    known : Tensor, (N, A), float32
    """
    known = torch.isfinite(values).float()
    table = attribute_table(config.attributes)
    scaled = torch.stack([a.to_unit(values[:, i]) for i, a in enumerate(table)], 1)
    scaled = torch.where(known > 0, scaled, torch.zeros_like(scaled))
    one_hot = F.one_hot(classes, len(MORPHOLOGIES)).float()
    parts = [one_hot, scaled, known] if config.condition_mask else [one_hot, scaled]
    return torch.cat(parts, 1), scaled, known


@dataclass(frozen=True)
class Batch:
    """One training batch on the device; see `condition_vector` for the last three."""

    images: Tensor  # (N, 3, S, S), float32 in [-1, 1]
    classes: Tensor  # (N,)
    condition: Tensor
    scaled: Tensor
    known: Tensor


class DeviceBatches:
    """A split drawn in shuffled, augmented batches; images stay uint8 until the device makes a batch of them.

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

    Raises
    ------
    UserError
        If the split has fewer images than one batch.
    """

    def __init__(
        self, data: PreparedDataset, split: str, config: Config, device: torch.device, ranks: Ranks | None = None
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
        self.values = torch.from_numpy(data.attributes(config.attributes, rows))
        self.store = store_images(data.images, rows, device, config.batch_size)
        self.classes = self.classes_cpu.to(device)
        self.condition, self.scaled, self.known = (
            part.to(device) for part in condition_vector(self.classes_cpu, self.values, config)
        )
        numbers = torch.bincount(self.classes_cpu, minlength=len(MORPHOLOGIES)).clamp_min(1)
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
        """Return up to `count` images (N, 3, S, S) in [-1, 1] and their conditions, all over the split; on the CPU."""
        step = -(-len(self.rows) // count)
        return to_float(torch.from_numpy(self.data.images[self.rows[::step]])), self.condition[::step].cpu()

    def examples(self, per_class: int = 32) -> dict[int, Tensor]:
        """Return up to `per_class` images (N, 3, S, S), uint8, of each class that has two, on the CPU."""
        members = {i: self.rows[(self.classes_cpu == i).numpy()][:per_class] for i in range(len(MORPHOLOGIES))}
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
            part[done : done + len(mine)].copy_(mine)

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
        images = to_float(self.store.gather(chosen))
        if self.config.augment:
            images = dihedral(images, self._device_turns[place])
        return Batch(images, self.classes[chosen], self.condition[chosen], self.scaled[chosen], self.known[chosen])

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
        """Go on where `state_dict` was taken, also on another number of ranks."""
        self._generator.set_state(state["generator"])
        self._order, self._turns, self._drawn = state["order"], state["turns"], state["drawn"]
        self._upload()


def dihedral(images: Tensor, turns: Tensor) -> Tensor:
    """Apply one of the eight flips and quarter turns to each image.

    Parameters
    ----------
    images : Tensor, (N, C, S, S)
    turns : Tensor, (N,), integers 0..7
        Bit 0 flips x, bit 1 flips y, bit 2 swaps the axes. No pixel value changes.
    """
    for bit, flip in enumerate((lambda t: t.flip(3), lambda t: t.flip(2), lambda t: t.transpose(2, 3))):
        chosen = (turns >> bit & 1).bool()[:, None, None, None]
        images = torch.where(chosen, flip(images), images)
    return images


def _read_catalogue(file: Path) -> pd.DataFrame:
    """Read a catalogue: an empty cell is an unknown number, while an object may well be called NA."""
    text = ("object_id", "morphology", "split")
    return pd.read_csv(
        file,
        dtype=dict.fromkeys(text, str),
        keep_default_na=False,
        na_values={name: [""] for name in (*ATTRIBUTES, "pixel_scale")},
    )
