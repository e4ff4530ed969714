"""Where the galaxies of a field are by a catalogue, and what it says of them besides."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config_physics import FLUX_CATALOGUE_ATTRIBUTES, Morphology, morphologies_of
from galaxies.common.errors import UserError
from galaxies.common.reading import MissingError, open_regular
from galaxies.datasets.class_options import share_columns, sort_rows
from galaxies.datasets.field.detection import Sources
from galaxies.datasets.field.frames import damage
from galaxies.datasets.science_catalogue import NO_CLASS, classes_of
from galaxies.images.fits_images import Image, images_of
from galaxies.tables.class_rules import ClassRules, RuleColumns
from galaxies.tables.identifiers import read_ids, refuse_repeated, stripped
from galaxies.tables.numbers import NumberReader, Quantity
from galaxies.tables.reading import listed, read_table

# Names that a column may have without --columns; the first is ours.
_NAMES = {
    "object_id": ("object_id",),
    "ra": ("ra", "ra_deg", "raj2000", "ra_j2000", "alpha_j2000"),
    "dec": ("dec", "dec_deg", "dej2000", "decj2000", "dec_j2000", "delta_j2000"),
    "x": ("x", "x_image"),
    "y": ("y", "y_image"),
    "morphology": ("morphology",),
    "star": ("star", "class_star"),
    **{name: (name,) for name in FLUX_CATALOGUE_ATTRIBUTES},
}
_STRIP_ROWS = 256
_ANYWHERE = Quantity((-1e9, 1e9), (-1e9, 1e9))
_ANY_NUMBER = Quantity((-math.inf, math.inf), (-90.0, 90.0))
_STAR_WORDS = {"star": 1.0, "s": 1.0, "psf": 1.0, "true": 1.0, "yes": 1.0}
_GALAXY_WORDS = {"galaxy": 0.0, "gal": 0.0, "g": 0.0, "false": 0.0, "no": 0.0, "": 0.0}


class Positions(NamedTuple):
    """Galaxies of a catalogue that lie in a frame.

    Attributes
    ----------
    x, y : ndarray, (N,), float64
        Pixels from 0 at the centre of the first one.
    object_ids : list of str, or None
        As the catalogue has them.
    morphologies : list of str, or None
        Class names.
    is_star : ndarray, (N,), bool, or None
        What the catalogue calls a star.
    classes : tuple of Morphology
        Those in `morphologies`, and further ones of rules.
    values : dict of str to ndarray, (N,)
        Attributes, and other columns that were asked for, NaN where unknown.
    num_rows : int
        Of the catalogue, those outside of the frame included.
    """

    x: np.ndarray
    y: np.ndarray
    object_ids: list[str] | None
    morphologies: list[str] | None
    is_star: np.ndarray | None
    classes: tuple[Morphology, ...]
    values: dict[str, np.ndarray]
    num_rows: int


def read_positions(
    file: Path,
    columns: Mapping[str, str],
    wcs: Any,
    shape: tuple[int, int],
    first_pixel: int,
    measured: Sequence[str] = (),
    rules: ClassRules | None = None,
    allow_empty_class: bool = False,
) -> Positions:
    """Read the galaxies of a catalogue that lie in a frame.

    Parameters
    ----------
    file : Path
        Any table that `read_table` reads; or a FITS file of object maps, of the frame's size: one image of whole
        numbers, each the label of an object and 0 for none, or an image an object, 0 where it is not.
    columns : mapping of str to str
        Our name of a column to the catalogue's; names that are none of ours make further columns of numbers.
    wcs : astropy.wcs.WCS or None
        World coordinates of the frame, which right ascension and declination (degrees) need.
    shape : (int, int)
        Height and width of the frame.
    first_pixel : int
        What the catalogue calls the centre of the frame's first pixel: 1 as FITS and SExtractor do, or 0.
    measured : sequence of str
        Columns that are measured on the frames, and no catalogue gives.
    rules : ClassRules, optional
        What gives each galaxy its class, of the table's columns; those of no class are no galaxies of the field. By
        default the column morphology does.
    allow_empty_class : bool
        Accept that a rule takes no galaxy.

    Raises
    ------
    UserError
        If it has no positions, none of them lies in the frame, or a cell is wrong.
    """
    if (maps := _object_maps(file, shape)) is not None:
        if rules is not None:
            raise UserError(f"{file} holds maps of objects and no table, of whose columns --classes makes classes")
        return maps
    names = {ours: (theirs.lower(),) for ours, theirs in columns.items()}
    if wrong := next((name for name in names if name in measured and name not in _NAMES), None):
        raise UserError(f"--columns {wrong}={columns[wrong]}: {wrong} is measured on the frames, so leave it out")
    accepted = {**_NAMES, **names}
    wanted = [name for known in accepted.values() for name in known]
    wanted += [name for name in (rules.columns if rules else ()) if name not in wanted]
    table = read_table(file, wanted, [known[0] for known in names.values()])
    found = {ours: here[0] for ours, known in accepted.items() if (here := [n for n in known if n in table.cells])}
    numbers = NumberReader(table)
    x, y = _in_pixels(file, found, numbers, wcs, first_pixel, listed(table.others))
    height, width = shape
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    if not inside.any():
        raise UserError(
            f"none of the {len(table)} positions of {file} lies in the frame, which has {width} x {height} pixels"
            f"{_region(wcs, shape)}: give the catalogue of this field"
        )
    rows = np.flatnonzero(inside)
    ids = morphologies = is_star = None
    classes = morphologies_of((NO_CLASS,))
    shares: dict[str, np.ndarray] = {}
    if rules is not None:
        asked = RuleColumns.of_table(table, NumberReader(table)).of_rows(rows, f"{file} in the frame")
        sorted_rows = sort_rows(rules, asked, allow_empty_class)
        used = sorted_rows["morphology"].notna().to_numpy()
        if not used.any():
            raise UserError(f"no galaxy of {file} in the frame is of a class of {rules.name}: choose other rules")
        rows, sorted_rows = rows[used], sorted_rows[used]
        morphologies, classes = sorted_rows["morphology"].tolist(), rules.morphologies
        shares = {name: sorted_rows[name].to_numpy() for name in share_columns(rules)}
    if "object_id" in found:
        texts = read_ids(table, found["object_id"])
        refuse_repeated(table, texts, "give every galaxy one row")
        ids = [texts.iloc[row] for row in rows.tolist()]
    if "morphology" in found and rules is None:
        column = found["morphology"]
        kinds = [stripped(table.cells[column].iloc[row]) for row in rows.tolist()]
        if "" in kinds:
            raise UserError(f"{table.place(column, int(rows[kinds.index('')]))} is empty: give every galaxy a class")
        morphologies, class_names = classes_of(kinds, f"column {column} of {file}")
        classes = morphologies_of(class_names)
    if "star" in found:
        is_star = _stars(table, found["star"], numbers)[rows]
    values = shares
    for name in (*FLUX_CATALOGUE_ATTRIBUTES, *(name for name in columns if name not in _NAMES)):
        if name in found:
            quantity = Quantity.of(name) if name in FLUX_CATALOGUE_ATTRIBUTES else _ANY_NUMBER
            values[name] = numbers.read(found[name], quantity)[rows]
    numbers.say()
    return Positions(x[rows], y[rows], ids, morphologies, is_star, classes, values, len(table))


def _object_maps(file: Path, shape: tuple[int, int]) -> Positions | None:
    """Return the centres of the objects of maps; None if the file holds a table or is none."""
    try:
        with open_regular(file) as stream:
            if stream.read(9) != b"SIMPLE  =":
                return None
    except MissingError:
        return None  # which the reader of tables says in its own words
    from astropy.io import fits

    with damage(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(file, memmap=False) as units:
            if any(isinstance(unit, fits.BinTableHDU | fits.TableHDU) for unit in units if not unit.is_image):
                return None
            images = [image for image in images_of(units) if image.num_planes() == 1 and min(image.size()) > 1]
            if not images:
                return None
            if other := next((image for image in images if image.size() != shape), None):
                raise UserError(
                    f"{file} has a map of {other.size()[1]} x {other.size()[0]} pixels, and the frame has "
                    f"{shape[1]} x {shape[0]}: give maps of the frame"
                )
            labels = len(images) == 1
            centres = np.concatenate([_centres(image, shape, labels) for image in images])
    if not len(centres):
        raise UserError(f"{file} has maps without any object: all of their values are 0")
    print(f"{len(centres)} objects by the maps of {file}")
    return Positions(centres[:, 0], centres[:, 1], None, None, None, morphologies_of((NO_CLASS,)), {}, len(centres))


def _centres(image: Image, shape: tuple[int, int], labels: bool) -> np.ndarray:
    """Return x and y (N, 2) of the objects of a map, read by strips: of each label, or of all that is not 0."""
    sums: dict[int, np.ndarray] = {}  # of the weights, and of x and y times these
    for row in range(0, shape[0], _STRIP_ROWS):
        values = image.values(0, slice(row, min(row + _STRIP_ROWS, shape[0])), slice(0, shape[1]))
        y, x = np.nonzero(np.nan_to_num(values) > 0)
        weight = np.ones(len(x)) if labels else values[y, x].astype(np.float64)
        names = values[y, x].astype(np.int64) if labels else np.ones(len(x), np.int64)
        for name in np.unique(names).tolist():
            mine = names == name
            parts = np.array([(weight * part)[mine].sum() for part in (1.0, x, y + row)])
            sums[name] = sums.get(name, np.zeros(3)) + parts
    return np.array([total[1:] / total[0] for _, total in sorted(sums.items())]).reshape(-1, 2)


def _in_pixels(
    file: Path, found: Mapping[str, str], numbers: NumberReader, wcs: Any, first_pixel: int, others: str
) -> tuple[np.ndarray, np.ndarray]:
    if "ra" in found and "dec" in found and wcs is not None:
        ra, dec = numbers.read(found["ra"], _ANYWHERE), numbers.read(found["dec"], _ANYWHERE)
        known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
        x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
        x[known], y[known] = to_pixels(wcs, ra[known], dec[known])
        return x, y
    if "x" in found and "y" in found:
        x, y = numbers.read(found["x"], _ANYWHERE), numbers.read(found["y"], _ANYWHERE)
        return x - first_pixel, y - first_pixel
    if "ra" in found and "dec" in found:
        raise UserError(
            f"{file} gives RA and Dec, and the frames have no world coordinates: give positions in pixels, columns x "
            "and y"
        )
    raise UserError(
        f"{file} has no positions: name its columns with --columns ra=NAME,dec=NAME or --columns x=NAME,y=NAME; it "
        f"has {others}"
    )


def to_pixels(wcs: Any, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels, from 0, of ICRS positions in degrees; NaN where they are not on the frame's sky."""
    from astropy import units
    from astropy.coordinates import SkyCoord

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x, y = wcs.world_to_pixel(SkyCoord(ra * units.deg, dec * units.deg))
    # The other side of the sky is projected into the plane as well.
    back_ra, back_dec = to_sky(wcs, np.asarray(x, float), np.asarray(y, float))
    apart = np.hypot((back_ra - ra + 180) % 360 - 180, back_dec - dec)
    wrong = ~(apart < 0.01) & (np.abs(dec) < 89.9)
    return np.where(wrong, np.nan, x), np.where(wrong, np.nan, y)


def to_sky(wcs: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ICRS right ascension and declination in degrees of pixels, from 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sky = wcs.pixel_to_world(x, y).icrs
    return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)


def _region(wcs: Any, shape: tuple[int, int]) -> str:
    if wcs is None:
        return ""
    ra, dec = to_sky(wcs, np.array([(shape[1] - 1) / 2]), np.array([(shape[0] - 1) / 2]))
    return f" about RA {ra[0]:.4f}, Dec {dec[0]:.4f}"


def _stars(table: Any, column: str, numbers: NumberReader) -> np.ndarray:
    """Return which rows are called stars: by a word, or a number from 0.5."""
    words = [stripped(text).lower() for text in table.cells[column]]
    if set(words) <= set(_STAR_WORDS) | set(_GALAXY_WORDS):
        return np.array([{**_STAR_WORDS, **_GALAXY_WORDS}[word] > 0.5 for word in words])
    with np.errstate(invalid="ignore"):
        return np.asarray(numbers.read(column, Quantity((-100.0, 100.0), (0.0, 1.0))) >= 0.5)


def centred_on(sources: Sources, x: np.ndarray, y: np.ndarray, reach: float) -> np.ndarray:
    """Return for each position the nearest source within reach (its index, -1 for none), each source but once."""
    from scipy.spatial import cKDTree

    found = cKDTree(np.stack([sources.x, sources.y], 1)).query(np.stack([x, y], 1))
    distance, nearest = np.asarray(found[0]), np.asarray(found[1])
    match = np.where(distance <= reach, nearest, -1)
    order = np.argsort(distance)
    _, first = np.unique(match[order], return_index=True)
    once = np.zeros(len(x), bool)
    once[order[first]] = True
    return np.where(once, match, -1)
