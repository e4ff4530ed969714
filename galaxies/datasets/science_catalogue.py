"""Catalogues of galaxies whose columns are called as their makers pleased."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config_physics import FLUX_CATALOGUE_ATTRIBUTES, MORPHOLOGY_NAMES, MOST_CLASSES, fault_of_classes, morphology_index
from galaxies.common.errors import UserError, shown
from galaxies.tables.identifiers import read_ids, refuse_repeated, stripped
from galaxies.tables.numbers import PIXEL_SCALE, NumberReader, Quantity
from galaxies.tables.reading import Table, listed, read_table

NO_CLASS = "galaxy"  # the one class of a dataset without a column of classes
_TEXTS = ("image", "hdu", "psf_image", "psf_hdu")
_PER_BAND = {
    "zero_point": Quantity((-50.0, 60.0), (-50.0, 60.0)),
    "noise": Quantity((0.0, math.inf), (0.0, 90.0)),
    "noise_variance": Quantity((0.0, math.inf), (0.0, 90.0)),
    "psf_fwhm": Quantity((0.0, 1000.0), (0.0, 60.0)),
    "pixel_scale": PIXEL_SCALE,
}
_ANY_NUMBER = Quantity((-math.inf, math.inf), (-90.0, 90.0))
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")


class Catalogue(NamedTuple):
    """Galaxies of a catalogue.

    Attributes
    ----------
    galaxies : DataFrame
        One row a galaxy: object_id, morphology, and, if the columns are there, image, hdu, psf_image and psf_hdu, as
        text; numbers in all other columns, NaN where unknown.
    classes : tuple of str
        Names in `morphology`.
    attributes, extras : tuple of str
        Which numbers are attributes of galaxies, and which are columns that were asked for and are none.
    unused : int
        Galaxies without a class.
    """

    galaxies: pd.DataFrame
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    extras: tuple[str, ...]
    unused: int


def column_names(text: str) -> dict[str, str]:
    """Read an option of pairs such as `object_id=ID,redshift=z_spec`: what a column means, and what it is called."""
    pairs = {}
    for part in text.split(","):
        name, sign, column = (each.strip() for each in part.partition("="))
        if not sign or not column or not _NAME.fullmatch(name):
            raise argparse.ArgumentTypeError(f"'{part}' is no NAME=COLUMN, such as redshift=z_spec")
        if name in pairs:
            raise argparse.ArgumentTypeError(f"{name} is named twice")
        pairs[name] = column
    return pairs


def read_catalogue(
    files: Sequence[Path], columns: Mapping[str, str], bands: Sequence[str], measured: Sequence[str] = ()
) -> Catalogue:
    """Read the galaxies of a table, and more of them from others with the same ids.

    Parameters
    ----------
    files : sequence of Path
        Tables of any kind that `read_table` takes. The first decides which galaxies there are.
    columns : dict of str to str
        What a column means, and its name in the tables, in any case. Known meanings that are not there are looked up
        by their own names.
    bands : sequence of str
        For columns such as `psf_fwhm_r`.
    measured : sequence of str
        Attributes that the pictures tell, and no column gives.

    Raises
    ------
    UserError
        If a table cannot be read, or a column that was named is in none of them.
    """
    if wrong := next(
        (name for name in columns if name in measured or name in ("split", "masked", "flag", "psf")), None
    ):
        raise UserError(f"--columns {wrong}={columns[wrong]}: {wrong} is measured on the images, so leave it out")
    per_band = [f"{name}_{band}" for name in _PER_BAND for band in bands]
    known = ("object_id", "morphology", *_TEXTS, *FLUX_CATALOGUE_ATTRIBUTES, *_PER_BAND, *per_band)
    names = {name: name for name in known if name not in measured} | dict(columns)
    wanted = {column.lower() for column in names.values()}
    tables = [read_table(file, wanted) for file in files]
    ids = [_ids_of(table, names["object_id"]) for table in tables]
    rows = pd.DataFrame({"object_id": ids[0]})
    places = [_places_in(ids[0], other) for other in ids]
    readers = [NumberReader(table) for table in tables]
    where = {
        name: next((k for k, table in enumerate(tables) if column.lower() in table.cells), -1)
        for name, column in names.items()
    }
    for name, column in columns.items():
        if where[name] < 0:
            has = "; ".join(f"{table.file} has {listed([*table.cells, *table.others])}" for table in tables)
            raise UserError(f"no column {column} is there, which --columns {name}={column} names: {has}")
    attributes, extras = [], []
    for name, k in where.items():
        if k < 0 or name in ("object_id", "morphology"):
            continue
        column = names[name].lower()
        if name in _TEXTS:
            texts = [stripped(text) for text in tables[k].cells[column]]
            rows[name] = [texts[place] if place >= 0 else "" for place in places[k]]
            continue
        quantity = _quantity(name)
        values = np.append(readers[k].read(column, quantity), np.nan)  # the last for those that are not there
        rows[name] = values[places[k]]
        if name in FLUX_CATALOGUE_ATTRIBUTES:
            attributes.append(name)
        elif quantity is _ANY_NUMBER:
            extras.append(name)
    for reader in readers:
        reader.say()
    for k, table in enumerate(tables[1:], 1):
        if missing := int((places[k] < 0).sum()):
            print(f"{missing} of {len(rows)} galaxies are not in {table.file}, and have no value of its columns")
    classes: tuple[str, ...] = (NO_CLASS,)
    unused = 0
    rows["morphology"] = NO_CLASS
    if (k := where["morphology"]) >= 0:
        column = names["morphology"].lower()
        names_of = [stripped(text) for text in tables[k].cells[column]]
        rows["morphology"] = [names_of[place] if place >= 0 else "" for place in places[k]]
        unused = int((rows["morphology"] == "").sum())
        rows = rows[rows["morphology"] != ""].reset_index(drop=True)
        rows["morphology"], classes = classes_of(rows["morphology"].tolist(), f"column {column} of {tables[k].file}")
    return Catalogue(rows, classes, tuple(attributes), tuple(extras), unused)


def _ids_of(table: Table, column: str) -> pd.Series:
    if column.lower() not in table.cells:
        raise UserError(
            f"{table.file} has no column {column}: it has {listed([*table.cells, *table.others])}; say which holds "
            "what with --columns object_id=NAME"
        )
    ids = read_ids(table, column.lower())
    refuse_repeated(table, ids, "give every galaxy one row")
    return ids


def _places_in(ids: pd.Series, other: pd.Series) -> np.ndarray:
    """Return the row of each id among others; -1 where it is not there."""
    places = {text: place for place, text in enumerate(other)}
    return np.array([places.get(text, -1) for text in ids], np.int64)


def _quantity(name: str) -> Quantity:
    if name in FLUX_CATALOGUE_ATTRIBUTES:
        return Quantity.of(name)
    for start, quantity in _PER_BAND.items():
        if name == start or name.startswith(f"{start}_"):
            return quantity
    return _ANY_NUMBER


def classes_of(names: list[str], where: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the class of each galaxy and the classes, those of the program where all are some of them."""
    found = sorted(set(names))
    if not found:
        raise UserError(f"{where} holds no class at all")
    if len(found) <= MOST_CLASSES and (fault := fault_of_classes(found)):
        raise UserError(f"{where} names the classes, and {fault}")
    try:
        canonical = {name: MORPHOLOGY_NAMES[morphology_index(name)] for name in found}
    except UserError:
        if len(found) > MOST_CLASSES:
            raise UserError(
                f"{where} holds {len(found)} different values, such as {shown(found[0])}: no more than "
                f"{MOST_CLASSES} classes are taken, so name another column with --columns morphology=NAME"
            ) from None
        return names, tuple(found)
    used = set(canonical.values())
    return [canonical[name] for name in names], tuple(name for name in MORPHOLOGY_NAMES if name in used)
