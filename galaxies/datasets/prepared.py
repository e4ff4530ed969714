"""A prepared dataset on disk: a folder with `images.npy`, `catalogue.csv` and `manifest.json`, opened and checked.

`prepare_data.py` writes it. Its pixel values are 0..255; `to_float` and `to_uint8` are the one way from there to what
networks work on, and back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from config_physics import ATTRIBUTES, attribute_table, morphology_index
from galaxies.common.durable_files import sha256_of
from galaxies.common.errors import UserError
from galaxies.datasets.writing import FORMAT_VERSION


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


def _read_catalogue(file: Path) -> pd.DataFrame:
    """Read a catalogue: an empty cell is an unknown number, while an object may well be called NA."""
    text = ("object_id", "morphology", "split")
    return pd.read_csv(
        file,
        dtype=dict.fromkeys(text, str),
        keep_default_na=False,
        na_values={name: [""] for name in (*ATTRIBUTES, "pixel_scale")},
    )
