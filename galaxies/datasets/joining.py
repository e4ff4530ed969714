"""Make one prepared dataset of several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from galaxies.common.errors import UserError
from galaxies.datasets.duplicates import merge_duplicates
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import VALUE_COLUMNS, DatasetWriter

_BLOCK = 64  # images copied at a time


def join(
    paths: Sequence[Path], out: Path, command_line: str, overwrite: bool = False, allow_empty_class: bool = False
) -> DatasetWriter:
    """Write one prepared dataset that holds the galaxies of several, each once.

    Parameters
    ----------
    paths : sequence of Path
        At least two prepared datasets of the same image size and crop. Of a galaxy in several, the first one's
        image is kept; what it does not know is filled in from the others.
    out : Path
        Folder to make.
    command_line : str
        For the manifest.
    overwrite, allow_empty_class : bool
        As for `DatasetWriter`.

    Raises
    ------
    UserError
        If a dataset cannot be read, they do not fit together, or `out` cannot be written.
    """
    if len(paths) < 2:
        raise UserError("--inputs takes at least two prepared datasets")
    inputs = [PreparedDataset.open(path) for path in paths]
    for other in inputs[1:]:
        for setting in ("image_size", "crop"):
            one, two = inputs[0].manifest[setting], other.manifest[setting]
            if one != two:
                raise UserError(
                    f"{inputs[0].path} has {setting} {one} and {other.path} has {two}: prepare them alike first"
                )
    merged = merge_duplicates([data.catalogue for data in inputs], [_image_hashes(data.images) for data in inputs])
    parts = [
        {
            "path": str(data.path),
            "source": data.manifest.get("source"),
            "rule": data.manifest.get("rule"),
            "count": len(data.images),
            "kept": int((merged.rows["input"] == place).sum()),
            "images_sha256": data.manifest["sha256"]["images.npy"],
        }
        for place, data in enumerate(inputs)
    ]
    provenance = {
        "source": "joined: " + ", ".join(part["path"] for part in parts),
        "rule": " + ".join(dict.fromkeys(str(part["rule"]) for part in parts)),
        "inputs": parts,
        "class_conflicts": merged.class_conflicts,
        "filled": merged.filled,
        "command_line": command_line,
    }
    with DatasetWriter(
        out,
        inputs[0].image_size,
        inputs[0].manifest["crop"],
        provenance,
        overwrite,
        allow_empty_class,
    ) as writer:
        for row in merged.dropped.itertuples():
            writer.reject(f"{inputs[row.input].path}: {row.object_id}", f"duplicate, {row.reason}")
        for place, data in enumerate(inputs):
            kept = merged.rows[merged.rows["input"] == place]
            for start in tqdm(range(0, len(kept), _BLOCK), f"joining {data.path}", leave=False):
                rows = kept.iloc[start : start + _BLOCK]
                values = {name: rows[name].to_numpy(np.float64) for name in VALUE_COLUMNS if name in rows}
                images = data.images[rows["row"].to_numpy()]
                writer.append(images, rows["object_id"].tolist(), rows["morphology"].tolist(), values)
    if merged.class_conflicts:
        print(f"{merged.class_conflicts} duplicates have another class: the first dataset's class is kept")
    if merged.filled:
        print("filled in from duplicates: " + ", ".join(f"{n} {name}" for name, n in merged.filled.items()))
    return writer


def _image_hashes(images: np.ndarray) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
