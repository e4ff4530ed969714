"""The files of a prepared dataset, read and held against what they should be: manifest, pixels, PSFs, catalogue."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from config_physics import MOST_BANDS, MOST_CLASS_TEXT, morphology_index
from galaxies.common.device_errors import first_sentence
from galaxies.common.errors import UserError, shown
from galaxies.common.reading import MissingError, open_regular, read_json
from galaxies.common.schema import (
    Check,
    SchemaError,
    anything,
    brief,
    either,
    entries,
    exactly,
    items,
    mapping,
    number,
    text,
    whole,
)
from galaxies.datasets.layout import SHARE, DataLayout
from galaxies.datasets.writing import FORMAT_VERSIONS, SPLITS

AGAIN = "prepare the data again with --overwrite"
_MANIFEST_BYTES = 512 << 20  # it names every picture that was left out
_LABELS = ("object_id", "morphology", "split")
_NAME = either(exactly(None), text())
_MOST_CLASSES = 1000  # of old datasets; new ones have no more than `MOST_CLASSES`


def _printable_line() -> Check:
    return Check(
        f"text of at most {MOST_CLASS_TEXT} characters that can be printed",
        lambda value: isinstance(value, str) and len(value) <= MOST_CLASS_TEXT and value.isprintable(),
    )


# What the rest of the program takes from a manifest; it holds more, for people.
_MANIFEST = entries(
    {
        "image_size": whole(1),
        "crop": number(0, 1),
        "count": whole(1),
        "counts": mapping(either(whole(0), mapping(whole(0)))),
        "attributes": mapping(whole(0)),
        "sha256": entries({"images.npy": text(), "catalogue.csv": text()}, {"psfs.npy": text()}, others=False),
    },
    {
        "source": _NAME,
        "rule": _NAME,
        "photometry": whole(1),
        "classes": items(text(), 1, _MOST_CLASSES),
        "class_labels": mapping(_printable_line()),
        "class_descriptions": mapping(_printable_line()),
        "own_attributes": items(
            entries(
                {name: text() for name in ("name", "label", "unit", "scale")} | {"low": number(), "high": number()},
                {"softening": number(0)},
                others=False,
            )
        ),
    },
)
_FLUX_MANIFEST = entries(
    {
        "kind": text("flux"),
        "bands": items(entries({"name": text(), "wavelength_nm": either(exactly(None), number(0))}), 1, MOST_BANDS),
        "classes": anything(),
    }
)


class FaultError(ValueError):
    """What is wrong with a dataset, as a clause."""


def read_manifest(path: Path) -> tuple[dict[str, Any], DataLayout]:
    """Read what a dataset says of itself, and check that all is there and of the right kind."""
    try:
        manifest: dict[str, Any] = read_json(path / "manifest.json", entries({}), _MANIFEST_BYTES, AGAIN)
        version = manifest.get("format_version")
        versions = tuple(FORMAT_VERSIONS.values())
        if type(version) is not int or version not in versions:
            raise UserError(
                f"{path} has format version {brief(version)}, this program reads {' and '.join(map(str, versions))}: "
                "prepare the data again"
            )
        _MANIFEST(manifest)
        is_flux = version == FORMAT_VERSIONS["flux"]
        if is_flux:
            _FLUX_MANIFEST(manifest)
        layout = DataLayout.from_manifest(manifest if is_flux else {**manifest, "kind": "display"})
        if strange := [name for name in manifest["attributes"] if not layout.is_attribute(name)]:
            raise SchemaError(f"attributes has {brief(strange[0])}, which is no attribute of such data")
    except MissingError:
        raise UserError(
            f"{path} holds no prepared dataset: make one with prepare_data.py gz2 or prepare_data.py labelled"
        ) from None
    except ValueError as error:  # SchemaError, or of a layout
        raise UserError(f"{path / 'manifest.json'} cannot be used, since {error}: {AGAIN}") from None
    return manifest, layout


def map_array(file: Path, wanted: np.dtype[Any], planes: int) -> np.ndarray:
    """Map the pixels (N, planes, S, S) of an .npy file that says what it is, and is as long as it says."""
    name = file.name
    try:
        with open_regular(file, AGAIN) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header as Python 2 wrote it
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, dtype = read_header(stream)
            start, end = stream.tell(), stream.seek(0, os.SEEK_END)
    except UserError:
        raise
    except MemoryError:
        raise
    except Exception:  # the header is read as a literal of Python, which fails in many ways
        raise FaultError(f"{name} is no array in NumPy's format") from None
    if dtype != wanted or fortran_order:
        order = " in Fortran's order" if fortran_order else ""
        raise FaultError(f"{name} holds {shown(str(dtype))}{order}, not {wanted} in C's order")
    if len(shape) != 4 or shape[1] != planes or shape[2] != shape[3] or min(shape) < 1:
        raise FaultError(f"{name} has the shape {shown(str(shape))}, not (N, {planes}, S, S) with one image or more")
    if end - start != math.prod(shape) * wanted.itemsize:
        size = math.prod(shape) * wanted.itemsize
        raise FaultError(f"{name} has {end - start} bytes of pixels, not the {size} of its shape {shape}")
    try:
        return np.memmap(file, wanted, "r", start, shape)
    except (OSError, ValueError, OverflowError) as error:
        raise FaultError(f"{name} cannot be mapped into memory ({error})") from None


def check_psfs(path: Path, manifest: dict[str, Any], catalogue: pd.DataFrame, planes: int) -> None:
    """Check that each PSF that a row names is there."""
    places = catalogue["psf"].dropna() if "psf" in catalogue else pd.Series(dtype=np.float64)
    if "psfs.npy" not in manifest["sha256"]:
        if len(places):
            raise FaultError("catalogue.csv names PSFs, and there is no psfs.npy")
        return
    count = len(map_array(path / "psfs.npy", np.dtype("<f4"), planes))
    if not ((places % 1 == 0) & (places < count)).all():
        raise FaultError(f"catalogue.csv names other PSFs than the {count} in psfs.npy")


def read_catalogue(file: Path, layout: DataLayout) -> pd.DataFrame:
    """Read a catalogue: an empty cell is an unknown number, while an object may well be called NA."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows of more cells than the header has
            heads = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
            values = [
                name for name in heads if name in layout.columns or layout.is_attribute(name) or name.startswith(SHARE)
            ]
            table = pd.read_csv(
                file,
                dtype=dict.fromkeys(_LABELS, str),
                keep_default_na=False,
                na_values={name: [""] for name in values},
                index_col=False,
            )
    except (OSError, ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise FaultError(f"catalogue.csv is no table ({first_sentence(str(error))})") from None
    if repeated := [name for name in heads if heads.count(name) > 1]:
        raise FaultError(f"catalogue.csv has two columns {shown(repeated[0])}")
    if missing := [name for name in _LABELS if name not in table]:
        raise FaultError(f"catalogue.csv has no column {missing[0]}")
    if len(table) == 0:
        raise FaultError("catalogue.csv has no row")
    table[list(_LABELS)] = table[list(_LABELS)].fillna("")  # rows that end early
    _refuse_rows(table, "object_id", table["object_id"] == "", "an id")
    _refuse_rows(table, "object_id", table["object_id"].duplicated(), "every id once")
    _refuse_rows(table, "split", ~table["split"].isin(SPLITS), f"one of {', '.join(SPLITS)}")
    classes = {name: _canonical(name, layout) for name in table["morphology"].unique()}
    table["morphology"] = table["morphology"].map(classes)
    strange = table["morphology"].isna()
    if strange.any():
        name = next(name for name, found in classes.items() if found is None)
        raise FaultError(
            f"column morphology of catalogue.csv, row {_first_row(strange)} holds {shown(name)}, "
            f"not one of {', '.join(layout.classes)}"
        )
    for name in values:
        # A column of True and False is none of numbers, though pandas makes one of it.
        cells = table[name].astype(str) if table[name].dtype == bool else table[name]
        numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
        low, high = layout.limits_of(name)
        wrong = table[name].notna() & ~((numbers > low) & (numbers <= high))
        _refuse_rows(table, name, wrong, f"a number above {low:g} and up to {high:g}, or nothing")
        table[name] = numbers
    return table


def _canonical(name: str, layout: DataLayout) -> str | None:
    """Return the name of a class as the layout has it, None for what is no class."""
    try:
        return layout.classes[morphology_index(name, layout.classes)]
    except UserError:
        return None


def _refuse_rows(table: pd.DataFrame, column: str, wrong: pd.Series, wanted: str) -> None:
    if wrong.any():
        row = _first_row(wrong)
        raise FaultError(
            f"column {column} of catalogue.csv, row {row} holds {shown(str(table[column].iloc[row - 2]))}, not {wanted}"
        )


def _first_row(wrong: pd.Series) -> int:
    """Return the row number, as a spreadsheet counts, of the first true value."""
    return int(np.argmax(wrong.to_numpy())) + 2


def compare(manifest: dict[str, Any], images: np.ndarray, catalogue: pd.DataFrame) -> None:
    """Hold what a manifest says of a dataset against what there is."""
    if manifest["image_size"] != images.shape[-1]:
        raise FaultError(
            f"manifest.json says that images have {manifest['image_size']} pixels a side, and they have "
            f"{images.shape[-1]}"
        )
    there = Counter(zip(catalogue["split"], catalogue["morphology"], strict=True)) + Counter(catalogue["morphology"])
    said: Counter[Any] = Counter()
    for name, counted in manifest["counts"].items():
        said.update(
            {(name, inner): value for inner, value in counted.items()} if isinstance(counted, dict) else {name: counted}
        )
    if manifest["count"] != len(catalogue) or +said != there:
        raise FaultError("manifest.json counts other galaxies than there are in catalogue.csv")
    for name, known in manifest["attributes"].items():
        have = int(catalogue[name].notna().sum()) if name in catalogue else 0
        if known != have:
            raise FaultError(f"manifest.json says that {known} galaxies have a known {name}, and {have} have")
