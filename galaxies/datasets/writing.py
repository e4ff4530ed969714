"""Write a prepared dataset: all of it or nothing, whatever interrupts the work."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import PIL

from config_physics import fault_of_classes
from galaxies.common.durable_files import plain_errors, sha256_of
from galaxies.common.errors import UserError, shown
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import DATASET, output_folder
from galaxies.common.signals import exits_when_terminated
from galaxies.datasets.growing_array import GrowingArray
from galaxies.datasets.layout import DISPLAY, DataLayout
from galaxies.tables.identifiers import check_ids

FORMAT_VERSIONS = {"display": 1, "flux": 2}
# Of flux: raised where measured values come to mean something else. From 2 on PSFs have wings, from 3 on faint galaxies
# are not flattened by noise.
PHOTOMETRY = 3
SOFTWARE = "galaxy-physics 1"
SPLITS = ("train", "judge", "test")
_FILES = ("images.npy", "catalogue.csv", "manifest.json")
_PSFS = "psfs.npy"
_MOST_PSF_PX = 511


def split_of(object_id: str) -> str:
    """Return the split of a galaxy: 80 % train, 10 % judge, 10 % test, decided by its id alone.

    The first 8 bytes of the id's SHA-256, as a big-endian number modulo 100, are below 80, below 90 or not.
    A galaxy so stays in its split whatever else is in the dataset.
    """
    place = int.from_bytes(hashlib.sha256(object_id.encode()).digest()[:8], "big") % 100
    return "train" if place < 80 else "judge" if place < 90 else "test"


class DatasetWriter:
    """Write `images.npy`, `catalogue.csv` and `manifest.json` of a prepared dataset; a context manager.

    Everything is written in a hidden folder, from which it gets to `out` at the end of the `with` block; see
    `outputs.output_folder`. If the block raises, or the process is interrupted or terminated, the hidden folder is
    removed and what `out` was before stays. One left by a killed process is removed when the same `out` is written
    next.

    Parameters
    ----------
    out : Path or str
        Folder to make.
    image_size : int
        Pixels a side, S.
    crop : float
        Fraction of the original pictures that is kept, for the manifest.
    provenance : dict
        More entries for the manifest: source, rule, fractions, command_line and so on (JSON values).
    overwrite : bool
        Replace an existing prepared dataset, at the very end; what else is in its folder stays.
    allow_empty_class : bool
        Accept that a class has no image.
    extra_columns : sequence of str
        Names of further numbers in the catalogue, after those of the layout.
    inputs : sequence of Path
        What the dataset is made of; it is never written over.
    layout : DataLayout
        What the images are; three colour planes of a display by default.

    Attributes
    ----------
    unused : int
        Galaxies of the source that fit no class; to be set by the caller.
    manifest : dict
        What `manifest.json` holds, once the block has ended.

    Raises
    ------
    UserError
        If the classes are none that a dataset may have (see `fault_of_classes`); on entering, if
        `out` exists and may not be replaced or cannot be written; while writing, if the disk is full; at the end, if
        there is no image or a class is empty.
    """

    def __init__(
        self,
        out: Path | str,
        image_size: int,
        crop: float,
        provenance: Mapping[str, Any],
        overwrite: bool = False,
        allow_empty_class: bool = False,
        extra_columns: Sequence[str] = (),
        inputs: Sequence[Path] = (),
        layout: DataLayout = DISPLAY,
    ) -> None:
        if fault := fault_of_classes(layout.classes):
            raise UserError(f"{out} cannot be made, since {fault}")
        self.out = Path(out).resolve()
        self.image_size = image_size
        self.crop = crop
        self.provenance = dict(provenance)
        self.overwrite = overwrite
        self.allow_empty_class = allow_empty_class
        self.unused = 0
        self.manifest: dict[str, Any] = {}
        self.inputs = inputs
        self.layout = layout
        self._object_ids: list[str] = []
        self._known_ids: set[str] = set()
        self._morphologies: list[str] = []
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in (*layout.columns, *extra_columns)}
        self._psfs: GrowingArray | None = None
        self._last_psf = np.empty(0, np.float32)
        self._rejected: list[tuple[str, str, str]] = []

    def __enter__(self) -> DatasetWriter:
        with ExitStack() as stack:
            stack.enter_context(exits_when_terminated())
            folder = output_folder(self.out, DATASET, _FILES, self.inputs, overwrite=self.overwrite)
            self._partial = stack.enter_context(folder)
            shape = (len(self.layout.bands), self.image_size, self.image_size)
            self._images = GrowingArray(self._partial / "images.npy", self.layout.dtype, shape, self.out)
            stack.callback(self._images.close)
            self._files = stack.enter_context(ExitStack())
            self._on_leaving = stack.pop_all()
        return self

    @property
    def folder(self) -> Path:
        """The hidden folder that becomes the dataset, for files of a source that are to stand in it too."""
        return self._partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._on_leaving.__exit__(kind, error, trace)
            return
        with self._on_leaving:
            self._finish()

    def append(
        self,
        images: np.ndarray,
        object_ids: Sequence[str],
        morphologies: Sequence[str],
        values: Mapping[str, np.ndarray],
        psfs: np.ndarray | None = None,
    ) -> None:
        """Add images with their rows of the catalogue.

        Parameters
        ----------
        images : ndarray, (N, B, S, S), uint8 or for flux float32, finite, nJy a pixel
        object_ids, morphologies : sequence of str, (N,)
            Ids, which must not repeat, and class names as in the layout.
        values : dict of str to ndarray, (N,), float
            Attributes, pixel_scale (arcseconds a pixel) and extra columns, NaN where unknown; what is absent is
            unknown.
        psfs : ndarray, (N, B, P, P) or (1, B, P, P), float32, optional
            Point-spread functions of flux, each of sum 1, one for each image or one for all of them.

        Raises
        ------
        UserError
            If an id repeats or could not be read again (see `check_ids`), a value is none that a galaxy can have (see
            `DataLayout.limits_of`), or the disk is full.
        ValueError
            If a shape, type, class or name is wrong.
        """
        dtype = self.layout.dtype
        expected = (len(object_ids), len(self.layout.bands), self.image_size, self.image_size)
        if images.shape != expected or images.dtype != dtype:
            raise ValueError(f"images are {images.shape} {images.dtype}, not {expected} {dtype}")
        if self.layout.is_flux and not np.isfinite(images).all():
            raise ValueError("flux must be finite: what has no value is to be filled in, and counted in column masked")
        if len(morphologies) != len(images) or any(len(v) != len(images) for v in values.values()):
            raise ValueError("images, ids, classes and values differ in length")
        if strange := (set(values) - set(self._values)) | (set(morphologies) - set(self.layout.classes)):
            raise ValueError(f"neither attributes nor classes: {sorted(strange)}")
        for name, column in values.items():
            low, high = self.layout.limits_of(name)
            wrong = np.isfinite(column) & ~((column > low) & (column <= high))
            if wrong.any():
                row = int(wrong.argmax())
                raise UserError(
                    f"{name} of {shown(object_ids[row])} is {column[row]:g}, and no galaxy has any but above {low:g} "
                    f"and up to {high:g}: leave it out where it is unknown"
                )
        check_ids(object_ids, self.out)
        for object_id in object_ids:
            if object_id in self._known_ids:
                raise UserError(f"object id {object_id} occurs twice: every galaxy may have one image")
            self._known_ids.add(object_id)
        values = dict(values) if psfs is None else {**values, "psf": self._add_psfs(psfs, len(images))}
        self._images.append(images)
        self._object_ids.extend(object_ids)
        self._morphologies.extend(morphologies)
        unknown = np.full(len(images), np.nan)
        for name, parts in self._values.items():
            parts.append(np.array(values.get(name, unknown), dtype=np.float64))

    def _add_psfs(self, psfs: np.ndarray, count: int) -> np.ndarray:
        """Keep PSFs, the same one but once; return the row of each image's in `psfs.npy`."""
        side = psfs.shape[-1]
        first = self._psfs.shape if self._psfs else (len(self.layout.bands), side, side)
        if not self.layout.is_flux or psfs.dtype != np.float32 or psfs.shape[1:] != first or side > _MOST_PSF_PX:
            raise ValueError(f"PSFs are {psfs.shape} {psfs.dtype}, not (N, {', '.join(map(str, first))}) float32")
        if len(psfs) not in (1, count) or not np.allclose(psfs.sum((2, 3), np.float64), 1, atol=1e-3):
            raise ValueError("there is not one PSF for each image, or its sum is not 1")
        if self._psfs is None:
            self._psfs = GrowingArray(self._partial / _PSFS, np.dtype("<f4"), first, self.out)
            self._files.callback(self._psfs.close)
        places = []
        for psf in psfs:
            if not np.array_equal(self._last_psf, psf):
                self._psfs.append(psf[None])
                self._last_psf = psf.copy()
            places.append(self._psfs.count - 1)
        return np.resize(np.array(places, np.float64), count)

    def reject(self, name: str, reason: str, detail: str = "") -> None:
        """Record a picture that is left out, for the manifest, and in words what was found, where that says more."""
        self._rejected.append((name, reason, detail))

    def _finish(self) -> None:
        counts = Counter(self._morphologies)
        if not self._object_ids:
            reasons = ", ".join(f"{n} {r}" for r, n in Counter(r for _, r, _ in self._rejected).items())
            details = (f"; {shown(name)}: {detail}" for name, _, detail in self._rejected if detail)
            raise UserError(f"no image is left to write{f' ({reasons})' if reasons else ''}{next(details, '')}")
        empty = [name for name in self.layout.classes if counts[name] == 0]
        if empty and not self.allow_empty_class:
            there = ", ".join(f"{counts[name]} {name}" for name in self.layout.classes if counts[name])
            raise UserError(
                f"class {empty[0]} has no image, and there are {there}: add some, or go on with --allow-empty-class if "
                "that is meant"
            )
        splits = [split_of(object_id) for object_id in self._object_ids]
        self._images.finish()
        if self._psfs:
            self._psfs.finish()
        with plain_errors(self.out):
            known = self._write_catalogue(splits)
            self.manifest = self._make_manifest(splits, known)
            # A file name that is no text in any encoding can stand in a command line.
            with (self._partial / "manifest.json").open("w", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(json_text(self.manifest, indent=1, ensure_ascii=False))
                _sync_and_close(stream)

    def _write_catalogue(self, splits: Sequence[str]) -> dict[str, int]:
        """Write `catalogue.csv`; return how many values of each attribute are known."""
        values = {name: np.concatenate(parts) for name, parts in self._values.items()}
        known = {name: int(np.isfinite(column).sum()) for name, column in values.items()}
        columns = [name for name in values if known[name]]
        table = np.stack([values[name] for name in columns], axis=1) if columns else np.empty((len(splits), 0))
        with (self._partial / "catalogue.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["object_id", "morphology", "split", *columns])
            for *labels, row in zip(self._object_ids, self._morphologies, splits, table, strict=True):
                writer.writerow([*labels, *(f"{v:.7g}" if math.isfinite(v) else "" for v in row)])
            _sync_and_close(stream)
        return {name: known[name] for name in columns}

    def _make_manifest(self, splits: Sequence[str], known: Mapping[str, int]) -> dict[str, Any]:
        pairs = Counter(zip(splits, self._morphologies, strict=True))
        classes = self.layout.classes
        counts: dict[str, Any] = {split: {name: pairs[split, name] for name in classes} for split in SPLITS}
        counts |= {name: sum(pairs[split, name] for split in SPLITS) for name in classes}
        attributes = {name: count for name, count in known.items() if self.layout.is_attribute(name)}
        files = ("images.npy", "catalogue.csv", *((_PSFS,) if self._psfs else ()))
        return {
            "format_version": FORMAT_VERSIONS[self.layout.kind],
            "source": "",
            "rule": None,
            "fractions": None,
            "command_line": None,
            **({"photometry": PHOTOMETRY} if self.layout.is_flux else {}),
            **self.provenance,
            **self.layout.to_manifest(list(attributes)),
            "crop": self.crop,
            "image_size": self.image_size,
            "count": len(self._object_ids),
            "counts": counts,
            "attributes": attributes,
            "unused": self.unused,
            "rejected": dict(Counter(reason for _, reason, _ in self._rejected)),
            "rejected_files": [
                {"name": name, "reason": reason} | ({"detail": detail} if detail else {})
                for name, reason, detail in self._rejected
            ],
            "sha256": {name: sha256_of(self._partial / name) for name in files},
            "software": {
                "version": SOFTWARE,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "pillow": PIL.__version__,
            },
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def _sync_and_close(stream: Any) -> None:
    """Close a file after its contents have reached the disk."""
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()
