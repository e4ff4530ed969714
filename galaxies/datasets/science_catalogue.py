"""Catalogues of galaxies whose columns are called as their makers pleased."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config_physics import FLUX_CATALOGUE_ATTRIBUTES, MOST_CLASSES, Morphology, morphologies_of, morphology_index
from galaxies.common.attributes import Attribute, AttributeOption
from galaxies.common.errors import UserError, shown
from galaxies.datasets.class_options import share_columns, sort_rows
from galaxies.datasets.own_attributes import check_options, own_attribute, read_named
from galaxies.tables.class_rules import ClassRules, RuleColumns
from galaxies.tables.classes import names_of_labels
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
    classes : tuple of Morphology
        Those in `morphology`, and further ones of rules.
    attributes, extras : tuple of str
        Which numbers are attributes of galaxies, and which are columns that were asked for and are none.
    unused : int
        Galaxies without a class.
    own : tuple of Attribute
        Those of the attributes that are of the user's own.
    """

    galaxies: pd.DataFrame
    classes: tuple[Morphology, ...]
    attributes: tuple[str, ...]
    extras: tuple[str, ...]
    unused: int
    own: tuple[Attribute, ...] = ()


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
    files: Sequence[Path],
    columns: Mapping[str, str],
    bands: Sequence[str],
    measured: Sequence[str] = (),
    rules: ClassRules | None = None,
    allow_empty_class: bool = False,
    own: Sequence[AttributeOption] = (),
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
    rules : ClassRules, optional
        What gives each galaxy its class, of the tables' columns by their names or by what they mean; by default the
        column morphology does.
    allow_empty_class : bool
        Accept that a rule takes no galaxy.
    own : sequence of AttributeOption
        Columns that are attributes of the user's own.

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
    check_options(own)
    options = {option.name: option for option in own}
    names = {name: name for name in known if name not in measured} | dict(columns)
    names |= {name: option.column for name, option in options.items()}
    wanted = {column.lower() for column in names.values()} | set(rules.columns if rules else ())
    tables = [read_table(file, wanted) for file in files]
    ids = [_ids_of(table, names["object_id"]) for table in tables]
    rows = pd.DataFrame({"object_id": ids[0]})
    places = [_places_in(ids[0], other) for other in ids]
    readers = [NumberReader(table) for table in tables]
    where = {
        name: next((k for k, table in enumerate(tables) if column.lower() in table.cells), -1)
        for name, column in names.items()
    }
    asked_by = {name: f"--columns {name}={column}" for name, column in columns.items()}
    asked_by |= {name: f"--attribute {name}" for name in options}
    for name, asked in asked_by.items():
        if where[name] < 0:
            has = "; ".join(f"{table.file} has {listed([*table.cells, *table.others])}" for table in tables)
            raise UserError(f"no column {names[name]} is there, which {asked} names: {has}")
    attributes, extras = [], []
    for name, k in where.items():
        if k < 0 or name in ("object_id", "morphology"):
            continue
        column = names[name].lower()
        if name in _TEXTS:
            texts = [stripped(text) for text in tables[k].cells[column]]
            rows[name] = [texts[place] if place >= 0 else "" for place in places[k]]
            continue
        if name in options:
            values = np.append(read_named(tables[k], options[name], readers[k]), np.nan)
            rows[name] = values[places[k]]
            attributes.append(name)
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
    classes = morphologies_of((NO_CLASS,))
    unused = 0
    rows["morphology"] = NO_CLASS
    if rules is not None:
        by_meaning = _columns_of(tables, places, {name: names[name] for name, k in where.items() if k >= 0})
        rows = rows.drop(columns="morphology").join(sort_rows(rules, by_meaning, allow_empty_class))
        unused = int(rows["morphology"].isna().sum())
        if unused == len(rows):
            raise UserError(f"no galaxy of {files[0]} is of a class of {rules.name}: choose other rules")
        rows = rows[rows["morphology"].notna()].reset_index(drop=True)
        classes, extras = rules.morphologies, [*extras, *share_columns(rules)]
    elif (k := where["morphology"]) >= 0:
        column = names["morphology"].lower()
        names_of = [stripped(text) for text in tables[k].cells[column]]
        rows["morphology"] = [names_of[place] if place >= 0 else "" for place in places[k]]
        unused = int((rows["morphology"] == "").sum())
        rows = rows[rows["morphology"] != ""].reset_index(drop=True)
        found, class_names = classes_of(rows["morphology"].tolist(), f"column {column} of {tables[k].file}")
        rows["morphology"], classes = found, morphologies_of(class_names)
    told = tuple(own_attribute(option, rows[name].to_numpy(np.float64)) for name, option in options.items())
    return Catalogue(rows, classes, tuple(attributes), tuple(extras), unused, told)


def _columns_of(tables: Sequence[Table], places: Sequence[np.ndarray], meant: Mapping[str, str]) -> RuleColumns:
    """Return what rules can ask of tables whose rows are at `places`; `meant` are columns by what they mean."""
    each = [RuleColumns.of_table(table, NumberReader(table)) for table in tables]

    def read(kind: str, unknown: float | str, name: str) -> np.ndarray:
        k = next((k for k, table in enumerate(tables) if name in table.cells), -1)
        if k < 0:
            return read(kind, unknown, meant[name].lower())
        values = getattr(each[k], kind)(name)
        return np.append(values, np.array([unknown], values.dtype))[places[k]]  # the last for those that are not there

    names = [*(name for columns in each for name in columns.names), *meant]
    return RuleColumns(
        str(tables[0].file), len(places[0]), names, partial(read, "numbers", np.nan), partial(read, "texts", "")
    )


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
    if not names:
        raise UserError(f"{where} holds no class at all")
    if (count := len(set(names))) > MOST_CLASSES:
        raise UserError(
            f"{where} holds {count} different values, such as {shown(min(names))}: no more than {MOST_CLASSES} classes "
            "are taken, so name another column with --columns morphology=NAME"
        )
    classes = names_of_labels(names, where)
    canonical = {name: classes[morphology_index(name, classes)] for name in set(names)}
    return [canonical[name] for name in names], classes
