"""Find galaxies that occur in several prepared datasets, and merge what their catalogues know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from config_physics import ATTRIBUTES

# Measured on the image that is kept, so never taken from another one.
_FILLED_ATTRIBUTES = tuple(name for name, row in ATTRIBUTES.items() if row.source != "photometry")


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


def merge_duplicates(catalogues: Sequence[pd.DataFrame], hashes: Sequence[Sequence[bytes]]) -> Merged:
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

    Returns
    -------
    Merged

    Notes
    -----
    A pixel_scale belongs to the image, so it is filled in only from a row with identical pixels.
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
    fillable = [name for name in (*_FILLED_ATTRIBUTES, "pixel_scale") if name in rows]
    values = rows[fillable].to_numpy(dtype=np.float64, copy=True)
    classes = rows["morphology"].tolist()
    for place, (kept, object_id) in enumerate(zip(kept_by, rows["object_id"], strict=True)):
        if kept != place:
            reasons[place] = "same object id" if object_id in seen_ids else "same pixels"
            class_conflicts += classes[place] != classes[kept]
            for column in np.flatnonzero(np.isnan(values[kept]) & ~np.isnan(values[place])):
                if fillable[column] != "pixel_scale" or pixels[place] == pixels[kept]:
                    values[kept, column] = values[place, column]
                    filled[fillable[column]] = filled.get(fillable[column], 0) + 1
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
