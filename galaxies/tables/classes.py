"""Read the classes of galaxies from a table."""

from __future__ import annotations

import numpy as np

from config_physics import morphology_index
from galaxies.common.errors import UserError
from galaxies.tables.reading import Table


def read_classes(table: Table, column: str = "morphology") -> np.ndarray:
    """Read a column of class names, in any of the ways in which `morphology_index` takes them.

    Returns
    -------
    ndarray, (N,), int64
        Class indices.

    Raises
    ------
    UserError
        If a cell is empty or no class; it names file, column and row, what was found and what there is.
    """
    known: dict[str, int] = {}
    indices = np.empty(len(table), np.int64)
    for place, text in enumerate(table.cells[column]):
        if text not in known:
            if not text.strip():
                raise UserError(f"{table.place(column, place)} is empty: give every galaxy a class")
            try:
                known[text] = morphology_index(text)
            except UserError as error:
                raise UserError(f"{table.place(column, place)}: {error}") from None
        indices[place] = known[text]
    return indices
