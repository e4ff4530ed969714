"""Make one prepared dataset of several: find galaxies that are in more than one, and merge what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from config_physics import ATTRIBUTES
from galaxies.common.errors import UserError
from galaxies.common.origin import joined_source
from galaxies.common.outputs import DATASET, check_folder
from galaxies.datasets.layout import SHARE
from galaxies.datasets.own_attributes import together
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.writing import DatasetWriter
from galaxies.tables.reading import listed

_BLOCK = 64  # images copied at a time
# Measured on the image that is kept, so never taken from another one.
_FILLED_ATTRIBUTES = tuple(name for name, row in ATTRIBUTES.items() if row.source != "photometry")
_ALIKE = ("kind", "band_names", "classes")  # of the layouts of datasets that can be joined


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
    check_folder(out, DATASET, inputs=paths, overwrite=overwrite)  # before the work
    inputs = [PreparedDataset.open(path) for path in paths]
    for other in inputs[1:]:
        for setting in ("image_size", "crop"):
            one, two = inputs[0].manifest[setting], other.manifest[setting]
            if one != two:
                raise UserError(
                    f"{inputs[0].path} has {setting} {one} and {other.path} has {two}: prepare them alike first"
                )
        if any(getattr(other.layout, what) != getattr(inputs[0].layout, what) for what in _ALIKE):
            raise UserError(
                f"{inputs[0].path} and {other.path} differ in kind, bands or classes: only datasets alike can be joined"
            )
    own = together({str(data.path): data.layout.own for data in inputs})
    catalogues, hashes = [data.catalogue for data in inputs], [_image_hashes(data.images) for data in inputs]
    merged = merge_duplicates(catalogues, hashes, [row.name for row in own])
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
        "source": joined_source([part["path"] for part in parts], [part["source"] for part in parts]),
        "rule": " + ".join(dict.fromkeys(str(part["rule"]) for part in parts)),
        "inputs": parts,
        "class_conflicts": merged.class_conflicts,
        "filled": merged.filled,
        "command_line": command_line,
    }
    if inputs[0].layout.is_flux:
        provenance["photometry"] = min(data.photometry for data in inputs)
    layout = replace(inputs[0].layout, own=own)
    shares = _share_columns(inputs)
    columns = [name for name in (*layout.columns, *shares) if name != "psf"]  # places in the file of each input
    if left_out := _left_out(inputs, columns):
        print(f"left out, since a joined dataset has no such columns: {listed(left_out)}")
    with DatasetWriter(
        out,
        inputs[0].image_size,
        inputs[0].manifest["crop"],
        provenance,
        overwrite,
        allow_empty_class,
        shares,
        inputs=paths,
        layout=layout,
    ) as writer:
        for place, object_id, reason in merged.dropped[["input", "object_id", "reason"]].itertuples(index=False):
            writer.reject(f"{inputs[place].path}: {object_id}", f"duplicate, {reason}")
        for place, data in enumerate(inputs):
            kept = merged.rows[merged.rows["input"] == place]
            for start in tqdm(range(0, len(kept), _BLOCK), f"joining {data.path}", leave=False):
                rows = kept.iloc[start : start + _BLOCK]
                values = {name: rows[name].to_numpy(np.float64) for name in columns if name in rows}
                places = rows["row"].to_numpy()
                ids, classes = rows["object_id"].tolist(), rows["morphology"].tolist()
                writer.append(data.images[places], ids, classes, values, data.psfs(places))
    if merged.class_conflicts:
        print(f"{merged.class_conflicts} duplicates have another class: the first dataset's class is kept")
    if merged.filled:
        print("filled in from duplicates: " + ", ".join(f"{n} {name}" for name, n in merged.filled.items()))
    return writer


def _share_columns(inputs: Sequence[PreparedDataset]) -> list[str]:
    """Return the columns of the shares of the classes, in the order of the classes, if any dataset has them."""
    names = [SHARE + name for name in inputs[0].layout.classes]
    known = {name for data in inputs for name in data.catalogue}
    without = [str(data.path) for data in inputs if names[0] not in data.catalogue]
    if not known.intersection(names):
        return []
    if without:
        print(f"{', '.join(without)} tells no shares of the classes: they stay unknown for galaxies of it alone")
    return names


def _left_out(inputs: Sequence[PreparedDataset], columns: Sequence[str]) -> list[str]:
    """Return the columns of the catalogues that a joined one has no place for."""
    names = dict.fromkeys(str(name) for data in inputs for name in data.catalogue)
    return [name for name in names if name not in {*columns, "object_id", "morphology", "split", "psf"}]


def _image_hashes(images: np.ndarray) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


class Merged(NamedTuple):
    """Rows of several catalogues with every galaxy once.

    Attributes
    ----------
    rows : DataFrame
        The rows that stay, in the order of the catalogues, with `input` (place of the catalogue) and `row`
        (place in it); missing values are filled in from the rows that were dropped.
    dropped : DataFrame
        input, row, object_id and reason of the rows that go.
    class_conflicts : int
        Dropped rows whose class differs from that of the row that stays.
    filled : dict of str to int
        How many values of each attribute came from dropped rows.
    """

    rows: pd.DataFrame
    dropped: pd.DataFrame
    class_conflicts: int
    filled: dict[str, int]


def merge_duplicates(
    catalogues: Sequence[pd.DataFrame], hashes: Sequence[Sequence[bytes]], own: Sequence[str] = ()
) -> Merged:
    """Keep each galaxy once: rows with one object id, or with identical pixels, are one galaxy.

    Releases name one cutout differently, hence the pixels. Rows are also one galaxy if a third row links them,
    by its id to one and by its pixels to the other.

    Parameters
    ----------
    catalogues : sequence of DataFrame
        Catalogues of prepared datasets; of a galaxy in several places the first one's image, class and
        measurements stay.
    hashes : sequence of sequence of bytes
        For each catalogue, a digest of each row's image.
    own : sequence of str
        Attributes of the user's own, which are filled in as those of catalogues are.

    Returns
    -------
    Merged

    Notes
    -----
    A pixel_scale belongs to the image, so it is filled in only from a row with identical pixels; shares of the classes
    belong to the class, and are filled in only from a row of the same one.
    """
    rows = pd.concat(
        [table.assign(input=i, row=np.arange(len(table))) for i, table in enumerate(catalogues)],
        ignore_index=True,
    )
    pixels = [digest for part in hashes for digest in part]
    kept_by = _first_members(rows["object_id"].tolist(), pixels)
    seen_ids: set[str] = set()
    reasons: dict[int, str] = {}
    class_conflicts = 0
    filled: dict[str, int] = {}
    shares = [str(name) for name in rows if str(name).startswith(SHARE)]
    fillable = [name for name in (*_FILLED_ATTRIBUTES, *own, "pixel_scale", *shares) if name in rows]
    values = rows[fillable].to_numpy(dtype=np.float64, copy=True)
    classes = rows["morphology"].tolist()
    for place, (kept, object_id) in enumerate(zip(kept_by, rows["object_id"], strict=True)):
        if kept != place:
            reasons[place] = "same object id" if object_id in seen_ids else "same pixels"
            class_conflicts += classes[place] != classes[kept]
            for column in np.flatnonzero(np.isnan(values[kept]) & ~np.isnan(values[place])):
                name = fillable[column]
                if name == "pixel_scale" and pixels[place] != pixels[kept]:
                    continue
                if name in shares and classes[place] != classes[kept]:
                    continue
                values[kept, column] = values[place, column]
                filled[name] = filled.get(name, 0) + 1
        seen_ids.add(object_id)
    rows[fillable] = values
    dropped = rows.loc[list(reasons), ["input", "row", "object_id"]].assign(reason=list(reasons.values()))
    return Merged(rows.drop(index=list(reasons)), dropped, class_conflicts, filled)


def _first_members(*keys: Sequence[Any]) -> list[int]:
    """Return, for each place, the first place that shares a key with it directly or through others."""
    parent = list(range(len(keys[0])))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for column in keys:
        first: dict[Any, int] = {}
        for place, key in enumerate(column):
            one, other = root(first.setdefault(key, place)), root(place)
            parent[max(one, other)] = min(one, other)
    return [root(place) for place in range(len(parent))]
