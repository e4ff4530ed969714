"""Read a user's table of labelled pictures."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from config_physics import ATTRIBUTES, CATALOGUE_ATTRIBUTES, MORPHOLOGY_NAMES, PHOTOMETRIC_ATTRIBUTES, morphology_index
from galaxies.common.errors import UserError
from galaxies.datasets.preparing import Pictures, Source

_PLAUSIBLE_SCALE = (0.0, 1000.0)  # arcseconds a pixel, as `Attribute.plausible`


def read_labels(file: Path) -> pd.DataFrame:
    """Read a table of labelled pictures.

    Parameters
    ----------
    file : Path
        CSV with the columns image and morphology, and optionally object_id, pixel_scale and attributes of the
        catalogue, all with empty cells where unknown. Other columns are named on standard output and ignored.

    Returns
    -------
    DataFrame
        object_id, image, morphology (canonical names), frame_scale (arcseconds a pixel of the original
        picture) and attributes, NaN where unknown.

    Raises
    ------
    UserError
        If the file cannot be read, lacks a column, or a cell is wrong: it names file, column and row, where
        the header is row 1 as in a spreadsheet.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # what pandas would leave out
            table = pd.read_csv(file, dtype=str, encoding="utf-8-sig", skipinitialspace=True, index_col=False)
    except FileNotFoundError:
        raise UserError(f"{file} does not exist: name the table of labels") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{file} has rows with more cells than its header") from None
    except (OSError, ValueError) as error:  # ValueError: pandas' and decoding errors
        raise UserError(f"{file} cannot be read as CSV ({error})") from error
    table.columns = [name.strip().lower() for name in table.columns]
    if (repeated := table.columns[table.columns.duplicated()]).size:
        raise UserError(f"{file} has two columns {repeated[0]}: remove one")
    for column in ("image", "morphology"):
        if column not in table:
            raise UserError(f"{file} has no column {column}: it has {', '.join(table.columns)}")
        if table[column].isna().any():
            raise UserError(f"column {column} of {file} is empty in row {_first_row(table[column].isna())}")
    if table.empty:
        raise UserError(f"{file} has a header and no row")
    galaxies = pd.DataFrame({"image": table["image"].str.strip()})
    try:
        classes = {text: MORPHOLOGY_NAMES[morphology_index(text)] for text in table["morphology"].unique()}
    except UserError as error:
        wrong = ~table["morphology"].str.strip().str.lower().str.replace("_", "-").isin(MORPHOLOGY_NAMES)
        raise UserError(f"column morphology of {file}, row {_first_row(wrong)}: {error}") from None
    galaxies["morphology"] = table["morphology"].map(classes)
    stems = galaxies["image"].map(lambda name: PurePosixPath(name.replace("\\", "/")).stem)
    galaxies["object_id"] = table["object_id"].str.strip().fillna(stems) if "object_id" in table else stems
    again = galaxies["object_id"].duplicated()
    if again.any():
        row = _first_row(again)
        raise UserError(
            f"object id {galaxies['object_id'].iloc[row - 2]} in row {row} of {file} occurs before: "
            "give every galaxy one row and, where file names repeat, its own object_id"
        )
    for column in (*CATALOGUE_ATTRIBUTES, "pixel_scale"):
        if column in table:
            low, high = ATTRIBUTES[column].plausible if column in ATTRIBUTES else _PLAUSIBLE_SCALE
            numbers = pd.to_numeric(table[column], errors="coerce")
            wrong = table[column].notna() & ~((numbers > low) & (numbers <= high))
            if wrong.any():
                row = _first_row(wrong)
                raise UserError(
                    f"column {column} of {file}, row {row} holds '{table[column].iloc[row - 2]}': it takes "
                    f"numbers above {low:g} and up to {high:g}, or nothing where the value is unknown"
                )
            galaxies["frame_scale" if column == "pixel_scale" else column] = numbers
    measured = [name for name in PHOTOMETRIC_ATTRIBUTES if name in table]
    if measured:
        print(f"ignored: {', '.join(measured)} of {file}, since it is measured on the images")
    known = {"image", "morphology", "object_id", "pixel_scale", *CATALOGUE_ATTRIBUTES, *measured}
    if others := [name for name in table.columns if name not in known]:
        print(f"ignored: {', '.join(others)} of {file}, which is no attribute of the catalogue")
    return galaxies


def _first_row(wrong: pd.Series) -> int:
    """Return the row number, as a spreadsheet counts, of the first true value."""
    return int(np.argmax(wrong.to_numpy())) + 2


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder or zip file of the pictures")
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="CSV", help="table with columns image and morphology"
    )


def _read(options: argparse.Namespace) -> Pictures:
    provenance = {"source": f"{options.images} with {options.labels}", "rule": "labels"}
    return Pictures(options.images, read_labels(options.labels), provenance)


SOURCE = Source("prepare pictures of your own with a CSV file of classes", _add_options, _read)
