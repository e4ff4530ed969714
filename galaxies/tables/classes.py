"""Read the classes of galaxies from a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from config_physics import MORPHOLOGY_NAMES, fault_of_classes, morphology_index
from galaxies.common.errors import UserError
from galaxies.tables.identifiers import stripped
from galaxies.tables.reading import Table

LABELS = "labels"  # every name in the column is a class


def read_classes(
    table: Table, classes: str | None = None, column: str = "morphology"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read a column of class names, in any of the ways in which `morphology_index` takes them.

    Parameters
    ----------
    table : Table
    classes : str, optional
        Which classes there are: by default those of the program; `LABELS`, every name in the column, in the order of
        `names_of_labels`; or names with commas between, in their order.
    column : str

    Returns
    -------
    indices : ndarray, (N,), int64
        Class indices.
    names : tuple of str
        The classes.

    Raises
    ------
    UserError
        If a cell is empty or no class; it names file, column and row, what was found and what there is.
    """
    texts = [stripped(text) for text in table.cells[column]]
    if "" in texts:
        raise UserError(f"{table.place(column, texts.index(''))} is empty: give every galaxy a class")
    names, cure = MORPHOLOGY_NAMES, f"; --classes {LABELS} makes every name in the column a class"
    if classes == LABELS:
        names, cure = names_of_labels(texts, f"column {column} of {table.file}"), ""
    elif classes is not None:
        names, cure = tuple(name.strip() for name in classes.split(",") if name.strip()), ""
        if fault := fault_of_classes(names):
            raise UserError(f"--classes {classes}: {fault}")
    known: dict[str, int] = {}
    indices = np.empty(len(table), np.int64)
    for place, text in enumerate(texts):
        if text not in known:
            try:
                known[text] = morphology_index(text, names)
            except UserError as error:
                raise UserError(f"{table.place(column, place)}: {error}{cure}") from None
        indices[place] = known[text]
    return indices, names


def names_of_labels(texts: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the classes that a column of names holds: those of the program where all are some of these.

    They come in the program's order; others in that of the alphabet, each spelling for itself.

    Raises
    ------
    UserError
        If one is no name of a class, or there are too many; `where` says where they stand.
    """
    found = sorted(set(texts))
    try:
        used = {morphology_index(name) for name in found}
    except UserError:
        if fault := fault_of_classes(found):
            raise UserError(f"{where} names the classes, and {fault}") from None
        return tuple(found)
    return tuple(name for index, name in enumerate(MORPHOLOGY_NAMES) if index in used)
