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

from config_physics import ATTRIBUTES, MORPHOLOGIES, Config, UserError, attribute_table, morphology_index
from dataset_writer import FORMAT_VERSION, sha256_of


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
    """A split held on the device as uint8, drawn in shuffled, augmented batches.

    All randomness comes from one CPU generator, and `state_dict` holds it together with the current epoch's
    order, so that a run can go on from any step. An epoch has `len(self)` batches; the last rows that do not fill
    a batch wait for the next epoch's shuffle.

    Raises
    ------
    UserError
        If the split has fewer images than one batch.
    """

    def __init__(self, data: PreparedDataset, split: str, config: Config, device: torch.device) -> None:
        rows = data.rows(split)
        if len(rows) < config.batch_size:
            raise UserError(f"{data.path} has {len(rows)} {split} images, fewer than --batch-size {config.batch_size}")
        classes = torch.from_numpy(data.classes(rows))
        values = torch.from_numpy(data.attributes(config.attributes, rows))
        self.values = values
        self.classes_cpu = classes
        self.config = config
        self.images = torch.from_numpy(np.ascontiguousarray(data.images[rows])).to(device)
        self.classes = classes.to(device)
        self.condition, self.scaled, self.known = (
            part.to(device) for part in condition_vector(classes, values, config)
        )
        self._class_weights = 1.0 / torch.bincount(classes, minlength=len(MORPHOLOGIES)).clamp_min(1)[classes]
        self._generator = torch.Generator().manual_seed(config.seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._position = 0

    def __len__(self) -> int:
        return len(self.classes) // self.config.batch_size

    def start_epoch(self) -> None:
        """Draw the order of a new epoch: a shuffle, or with `balanced` draws that favour no class."""
        if self.config.balanced:
            size = len(self) * self.config.batch_size
            self._order = torch.multinomial(self._class_weights, size, True, generator=self._generator)
        else:
            self._order = torch.randperm(len(self.classes), generator=self._generator)
        self._position = 0

    def end_epoch(self) -> None:
        """Forget the finished epoch's order; `start_epoch` draws the next."""
        self._order = self._order[:0]
        self._position = 0

    @property
    def position(self) -> int:
        """Batches already drawn in this epoch."""
        return self._position

    def next_batch(self) -> Batch:
        """Return the next batch of the epoch."""
        size = self.config.batch_size
        chosen = self._order[self._position * size : (self._position + 1) * size].to(self.images.device)
        self._position += 1
        images = to_float(self.images[chosen])
        if self.config.augment:
            turns = torch.randint(0, 8, (size,), generator=self._generator).to(images.device)
            images = dihedral(images, turns)
        return Batch(images, self.classes[chosen], self.condition[chosen], self.scaled[chosen], self.known[chosen])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides which batches follow."""
        return {"generator": self._generator.get_state(), "order": self._order.clone(), "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._generator.set_state(state["generator"])
        self._order = state["order"]
        self._position = state["position"]


def dihedral(images: Tensor, turns: Tensor) -> Tensor:
    """Apply one of the eight flips and quarter turns to each image.

    Parameters
    ----------
    images : Tensor, (N, C, S, S)
    turns : Tensor, (N,), int64 in 0..7
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
