"""Read a user's table of labelled pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config_physics import CATALOGUE_ATTRIBUTES, MORPHOLOGY_NAMES, PHOTOMETRIC_ATTRIBUTES, STRUCTURE_ATTRIBUTES
from galaxies.common.attributes import Attribute, AttributeOption
from galaxies.common.errors import UserError, shown
from galaxies.datasets.own_attributes import add_attribute_option, own_columns
from galaxies.datasets.picture_names import name_without_folder
from galaxies.datasets.preparing import Pictures, Source
from galaxies.tables.classes import read_classes
from galaxies.tables.identifiers import fault_of, id_of_name, read_ids, refuse_repeated, stripped
from galaxies.tables.numbers import PIXEL_SCALE, NumberReader, Quantity
from galaxies.tables.reading import Table, read_table

_KEPT = (*CATALOGUE_ATTRIBUTES, *STRUCTURE_ATTRIBUTES)


class Labels(NamedTuple):
    """A table of labelled pictures.

    Attributes
    ----------
    galaxies : DataFrame
        object_id, image, morphology (canonical names), frame_scale (arcseconds a pixel of the original picture),
        attributes of the program and of the user's own, NaN where unknown.
    own : tuple of Attribute
        What those of the user's own are.
    """

    galaxies: pd.DataFrame
    own: tuple[Attribute, ...]


def read_labels(file: Path, options: Sequence[AttributeOption] = ()) -> Labels:
    """Read a table of labelled pictures.

    Parameters
    ----------
    file : Path
        Table with the columns image and morphology, and optionally object_id, pixel_scale and attributes of the
        catalogue or of structure, all with empty cells where unknown; see `read_table`. Other columns of numbers are
        attributes of the user's own; what is none is named on standard output.
    options : sequence of AttributeOption
        What is told of some of them.

    Raises
    ------
    UserError
        If the file cannot be read, lacks a column, or a cell is wrong: it names file, column and row, where
        the header is row 1 as in a spreadsheet.
    """
    needed = ("image", "morphology")
    optional = ("object_id", "pixel_scale", *_KEPT, *PHOTOMETRIC_ATTRIBUTES)
    table = read_table(file, (*needed, *optional), needed, rest=True)
    images = pd.Series([stripped(text) for text in table.cells["image"]], dtype=object)
    for row, name in enumerate(images):
        if not name:
            raise UserError(f"{table.place('image', row)} is empty: name the picture of every galaxy")
    galaxies = pd.DataFrame({"image": images})
    galaxies["morphology"] = np.array(MORPHOLOGY_NAMES, dtype=object)[read_classes(table)]
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
    if measured := [name for name in PHOTOMETRIC_ATTRIBUTES if name in table.cells]:
        print(f"ignored: {', '.join(measured)} of {file}, since it is measured on the images")
    return Labels(galaxies, own)


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


def _read(options: argparse.Namespace) -> Pictures:
    provenance = {"source": f"{options.images} with {options.labels}", "rule": "labels"}
    labels = read_labels(options.labels, options.attribute or ())
    return Pictures(options.images, labels.galaxies, provenance, own=labels.own)


SOURCE = Source("prepare pictures of your own with a CSV file of classes", _add_options, _read)
