"""Read a user's table of labelled pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config_physics import (
    CATALOGUE_ATTRIBUTES,
    MORPHOLOGY_NAMES,
    PHOTOMETRIC_ATTRIBUTES,
    STRUCTURE_ATTRIBUTES,
    Morphology,
    morphologies_of,
)
from galaxies.common.attributes import Attribute, AttributeOption
from galaxies.common.errors import UserError, shown
from galaxies.common.origin import add_simulation_option, source_told
from galaxies.datasets.class_options import add_classes_option, sort_rows
from galaxies.datasets.own_attributes import add_attribute_option, own_columns
from galaxies.datasets.picture_names import name_without_folder
from galaxies.datasets.preparing import Pictures, Source
from galaxies.tables.class_rules import RuleColumns, read_class_rules
from galaxies.tables.classes import LABELS, read_classes
from galaxies.tables.identifiers import fault_of, id_of_name, read_ids, refuse_repeated, stripped
from galaxies.tables.numbers import PIXEL_SCALE, NumberReader, Quantity
from galaxies.tables.reading import Table, read_table

_KEPT = (*CATALOGUE_ATTRIBUTES, *STRUCTURE_ATTRIBUTES)


class Labels(NamedTuple):
    """A table of labelled pictures.

    Attributes
    ----------
    galaxies : DataFrame
        One row a galaxy that has a class: object_id, image, morphology (name of the class), frame_scale (arcseconds a
        pixel of the original picture), attributes of the program and of the user's own, and shares of the classes, NaN
        where unknown.
    own : tuple of Attribute
        What those of the user's own are.
    classes : tuple of Morphology
    unused : int
        Rows of no class.
    """

    galaxies: pd.DataFrame
    own: tuple[Attribute, ...]
    classes: tuple[Morphology, ...]
    unused: int


def read_labels(
    file: Path,
    options: Sequence[AttributeOption] = (),
    classes: str | None = None,
    allow_empty_class: bool = False,
) -> Labels:
    """Read a table of labelled pictures.

    Parameters
    ----------
    file : Path
        Table with the columns image and morphology, and optionally object_id, pixel_scale and attributes of the
        catalogue or of structure, all with empty cells where unknown; see `read_table`. Other columns of numbers are
        attributes of the user's own; what is none is named on standard output.
    options : sequence of AttributeOption
        What is told of some of them.
    classes : str, optional
        Which classes there are: by default those of the program; "labels", the names in the column; names with commas
        between, in their order; or a file of rules, see `galaxies.tables.class_rules`, with which there need be no
        column morphology.
    allow_empty_class : bool
        Accept that a rule takes no galaxy.

    Returns
    -------
    Labels

    Raises
    ------
    UserError
        If the file cannot be read, lacks a column, or a cell is wrong: it names file, column and row, where
        the header is row 1 as in a spreadsheet.
    """
    rules = None if classes is None or classes == LABELS or "," in classes else read_class_rules(classes)
    needed = ("image",) if rules else ("image", "morphology")
    optional = ("morphology", "object_id", "pixel_scale", *_KEPT, *PHOTOMETRIC_ATTRIBUTES)
    table = read_table(file, ("image", *optional), needed, rest=True)
    images = pd.Series([stripped(text) for text in table.cells["image"]], dtype=object)
    for row, name in enumerate(images):
        if not name:
            raise UserError(f"{table.place('image', row)} is empty: name the picture of every galaxy")
    galaxies = pd.DataFrame({"image": images})
    names: Sequence[str] = ()
    if rules is None:
        indices, names = read_classes(table, classes)
        galaxies["morphology"] = np.array(names, dtype=object)[indices]
    galaxies["object_id"] = _object_ids(table, images)
    refuse_repeated(
        table,
        galaxies["object_id"],
        "give every galaxy one row and, where file names repeat, its own object_id",
    )
    numbers = NumberReader(table)
    for column in ("pixel_scale", *_KEPT):
        if column in table.cells:
            quantity = PIXEL_SCALE if column == "pixel_scale" else Quantity.of(column)
            galaxies["frame_scale" if column == "pixel_scale" else column] = numbers.read(column, quantity)
    columns, own = own_columns(table, options, numbers)
    galaxies = galaxies.assign(**columns)
    numbers.say()
    if rules:
        found = sort_rows(rules, RuleColumns.of_table(table, NumberReader(table)), allow_empty_class)
        left_out = int(found["morphology"].isna().sum())
        labels = Labels(galaxies.join(found), own, rules.morphologies, left_out)
    else:
        labels = Labels(galaxies, own, morphologies_of(names), 0)
    if measured := [name for name in PHOTOMETRIC_ATTRIBUTES if name in table.cells]:
        print(f"ignored: {', '.join(measured)} of {file}, since it is measured on the images")
    used = labels.galaxies["morphology"].notna()
    if not used.any():
        raise UserError(f"no galaxy of {file} is of a class by {classes}: choose other rules")
    return labels._replace(galaxies=labels.galaxies[used].reset_index(drop=True))


def _object_ids(table: Table, images: pd.Series) -> pd.Series:
    """Return the ids of a table; where it has none, the picture's name without folder and ending."""
    if "object_id" in table.cells:
        ids = read_ids(table, "object_id", may_be_empty=True)
    else:
        ids = pd.Series([""] * len(table), dtype=object)
    stems = [name_without_folder(name) for name in images]
    ids = pd.Series([text or id_of_name(stem) for text, stem in zip(ids, stems, strict=True)], dtype=object)
    for row, text in enumerate(ids):
        if fault := fault_of(text):
            raise UserError(
                f"{table.place('image', row)} holds {shown(images[row])}, whose name cannot be an id, since {fault}"
            )
    return ids


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder or zip file of the pictures")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="CSV",
        help="table with columns image and morphology: CSV or FITS",
    )
    add_attribute_option(parser, "Other columns of numbers are kept as they stand.")
    add_simulation_option(parser)
    names = "; or labels, every name in the column morphology; or names in their order, such as E,S0,Sa"
    add_classes_option(parser, "the table's columns", ", ".join(MORPHOLOGY_NAMES), names)


def _read(options: argparse.Namespace) -> Pictures:
    labels = read_labels(options.labels, options.attribute or (), options.classes, options.allow_empty_class)
    provenance = {
        "source": source_told(f"{options.images} with {options.labels}", options),
        "rule": options.classes or LABELS,
    }
    return Pictures(options.images, labels.galaxies, provenance, labels.unused, own=labels.own, classes=labels.classes)


SOURCE = Source("prepare pictures of your own with a CSV file of classes", _add_options, _read)
