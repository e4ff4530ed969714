"""Read Galaxy10, the classified galaxies that astroNN distributes as one HDF5 file, SDSS or DECaLS.

Facts of both files: https://astronn.readthedocs.io/en/latest/galaxy10.html and .../galaxy10sdss.html. They hold
`images`, (N, S, S, 3) uint8, and `ans`, (N,), the number of a class that more than half of the voters agreed on; that
of DECaLS also `redshift` and `pxscale`, arcseconds a pixel.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from config_physics import MORPHOLOGIES, Morphology, morphologies_of
from galaxies.common.errors import UserError
from galaxies.common.reading import open_regular
from galaxies.datasets.class_options import add_classes_option, sort_rows
from galaxies.datasets.cutouts import PictureStore
from galaxies.datasets.preparing import Pictures, Source
from galaxies.images.opening import MAX_CUTOUT_SIDE_PX
from galaxies.tables.class_rules import RuleColumns, read_class_rules
from galaxies.tables.classes import LABELS
from galaxies.tables.numbers import PIXEL_SCALE, NumberReader, Quantity
from galaxies.tables.opening import MAX_ROWS
from galaxies.tables.reading import Table
from galaxies.tables.typed_columns import as_text

_BLOCK_BYTES = 256 << 20  # images that are unpacked together, at most
_FEWEST_TOGETHER = 64
_UNKNOWN = -9000.0  # what is not above it, -9999 mostly, stands for an unknown value


class _Edition(NamedTuple):
    """One of the two files.

    Attributes
    ----------
    name : str
        Stands before a galaxy's number in its id.
    answers : tuple of str
        What its authors call each class.
    classes : tuple of str or None
        Our class of each of theirs, None for none: discs without arms are no spirals, and disturbed galaxies are not
        all mergers.
    crop : float
        Part of the pictures that is kept by default.
    """

    name: str
    answers: tuple[str, ...]
    classes: tuple[str | None, ...]
    crop: float


# By the side of the pictures. Those of SDSS are the central 207 of Galaxy Zoo's 424 pixels already.
EDITIONS = {
    69: _Edition(
        "galaxy10-sdss",
        (
            "Disk, Face-on, No Spiral",
            "Smooth, Completely round",
            "Smooth, in-between round",
            "Smooth, Cigar shaped",
            "Disk, Edge-on, Rounded Bulge",
            "Disk, Edge-on, Boxy Bulge",
            "Disk, Edge-on, No Bulge",
            "Disk, Face-on, Tight Spiral",
            "Disk, Face-on, Medium Spiral",
            "Disk, Face-on, Loose Spiral",
        ),
        (None, "elliptical", "elliptical", "elliptical", "edge-on", "edge-on", "edge-on", "spiral", "spiral", "spiral"),
        1.0,
    ),
    256: _Edition(
        "galaxy10-decals",
        (
            "Disturbed",
            "Merging",
            "Round Smooth",
            "In-between Round Smooth",
            "Cigar Shaped Smooth",
            "Barred Spiral",
            "Unbarred Tight Spiral",
            "Unbarred Loose Spiral",
            "Edge-on without Bulge",
            "Edge-on with Bulge",
        ),
        (None, "merger", "elliptical", "elliptical", "elliptical", "spiral", "spiral", "spiral", "edge-on", "edge-on"),
        0.5,
    ),
}


class Galaxy10Pictures(PictureStore):
    """The pictures of the file, each by its number as text; a context manager.

    Parameters
    ----------
    path : Path

    Raises
    ------
    UserError
        If h5py is not installed, or it is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        try:
            self.images = _array(self._file, path, "images", 4)
            sides = self.images.shape[1:3]
            if self.images.dtype != np.uint8 or self.images.shape[3] != 3 or sides[0] != sides[1]:
                raise UserError(
                    f"images of {path} are {self.images.shape} {self.images.dtype}, not (N, S, S, 3) of whole numbers "
                    "from 0 to 255: it is not Galaxy10"
                )
            if sides[0] > MAX_CUTOUT_SIDE_PX or len(self.images) > MAX_ROWS:
                raise UserError(f"images of {path} are {self.images.shape}, more than any Galaxy10")
        except BaseException:
            self.close()
            raise
        # Compressed chunks hold parts of many images: those of whole chunks are unpacked together.
        chunk = (self.images.chunks or (1,))[0]
        most = max(1, _BLOCK_BYTES // max(1, self.images[:1].nbytes))
        self._together = min(most, max(chunk, _FEWEST_TOGETHER))
        self._start, self._block = -1, np.empty((0, 0, 0, 3), np.uint8)

    def column(self, name: str) -> np.ndarray | None:
        """Return another array of the file with one number a picture, or None if there is none."""
        if name not in self._file:
            return None
        values = _array(self._file, self.path, name, 1)
        if len(values) != len(self.images) or values.dtype.kind not in "iuf":
            raise UserError(f"{name} of {self.path} is not one number for each of {len(self.images)} images")
        try:
            return np.asarray(values)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{name} of {self.path} cannot be read ({error}): download the file again") from None

    def columns(self) -> list[str]:
        """Return the names of the arrays that hold one number a picture."""
        import h5py

        arrays = ((name, self._file.get(name)) for name in self._file)
        return [
            name for name, array in arrays if isinstance(array, h5py.Dataset) and array.ndim == 1 and name.islower()
        ]

    def find(self, name: str) -> bytes:
        """Return a picture as a PNG file.

        Raises
        ------
        OSError
            If that part of the file is damaged.
        """
        number = int(name)
        start = number - number % self._together
        if start != self._start:
            try:
                self._block = self.images[start : start + self._together]
            except (RuntimeError, ValueError) as error:
                raise OSError(str(error)) from error
            self._start = start
        content = io.BytesIO()
        Image.fromarray(self._block[number - start]).save(content, "PNG", compress_level=0)
        return content.getvalue()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(path: Path) -> Any:
    open_regular(path, "name the HDF5 file of Galaxy10").close()
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path} is read with h5py, which is not installed: python -m pip install h5py") from None
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is no HDF5 file, or is damaged ({error}): download it again") from None


def _array(file: Any, path: Path, name: str, dimensions: int) -> Any:
    """Return an array that lies in the file itself: HDF5 can also point to other files."""
    import h5py

    try:
        inside = isinstance(file.get(name, getlink=True), h5py.HardLink)
        found: Any = file[name] if inside else None
        whole = isinstance(found, h5py.Dataset) and not found.is_virtual and not found.external
        if whole and found.ndim == dimensions and len(found):
            return found
    except (KeyError, OSError, RuntimeError, ValueError):
        pass
    raise UserError(f"{path} holds no {name} as Galaxy10 has: it is another file, or damaged")


def read_galaxy10(path: Path, classes: str | None = None, allow_empty_class: bool = False) -> Pictures:
    """Read the classes and attributes of a Galaxy10 file.

    Parameters
    ----------
    path : Path
    classes : str, optional
        Which classes there are: by default those of the program; "labels", the file's own by the names that its
        authors gave them; or a file of rules, see `galaxies.tables.class_rules`, which may look at ans (the number of
        the file's class), answer (its name) and other arrays with one number a picture, such as redshift.
    allow_empty_class : bool
        Accept that a rule takes no galaxy.

    Returns
    -------
    Pictures
        Of the galaxies that have a class; redshift and pixel scale where the file has them.

    Raises
    ------
    UserError
        If h5py is not installed, or it is not such a file.
    """
    rules = None if classes in (None, LABELS) else read_class_rules(str(classes))
    pictures = Galaxy10Pictures(path)
    try:
        side = pictures.images.shape[1]
        if (edition := EDITIONS.get(side)) is None:
            raise UserError(
                f"images of {path} have {side} pixels a side, and those of Galaxy10 have "
                f"{' or '.join(map(str, EDITIONS))}: it is another file"
            )
        answers = pictures.column("ans")
        if answers is None:
            raise UserError(f"{path} holds no ans, the classes: it is not Galaxy10")
        known = np.arange(len(edition.classes))
        if not np.isin(answers, known).all():
            wrong = int(np.flatnonzero(~np.isin(answers, known))[0])
            raise UserError(f"ans of {path} is {answers[wrong]} for image {wrong}: Galaxy10 has the classes 0 to 9")
        named = np.array(edition.answers, dtype=object)[answers.astype(int)]
        ids = [f"{edition.name}-{number:05d}" for number in range(len(answers))]
        galaxies = pd.DataFrame({"object_id": ids, "image": [str(number) for number in range(len(answers))]})
        measured = {name: values for name in ("redshift", "pxscale") if (values := pictures.column(name)) is not None}
        cells = {name: as_text(values) for name, values in measured.items()}
        table = Table(path, pd.DataFrame(cells, dtype=object, index=galaxies.index), range(len(galaxies)))
        numbers = NumberReader(table, published=True)
        for ours, theirs, quantity in (
            ("redshift", "redshift", Quantity.of("redshift")),
            ("frame_scale", "pxscale", PIXEL_SCALE),
        ):
            if theirs in measured:
                galaxies[ours] = numbers.read(theirs, quantity)
        numbers.say()
        morphologies: Sequence[Morphology] = MORPHOLOGIES
        if rules is not None:
            galaxies = galaxies.join(sort_rows(rules, _columns(pictures, named), allow_empty_class))
            morphologies = rules.morphologies
        elif classes == LABELS:
            galaxies["morphology"] = named
            morphologies = morphologies_of([name for name in edition.answers if name in set(named)])
        else:
            galaxies["morphology"] = np.array(edition.classes, dtype=object)[answers.astype(int)]
    except BaseException:
        pictures.close()
        raise
    used = galaxies["morphology"].notna()
    if not used.any():
        pictures.close()
        raise UserError(f"{path} has no galaxy of one of {f'the classes of {classes}' if rules else 'our classes'}")
    provenance = {"source": f"Galaxy10 in {path}", "rule": classes or "classes of Galaxy10"}
    chosen = galaxies[used].reset_index(drop=True)
    return Pictures(pictures, chosen, provenance, int((~used).sum()), edition.crop, classes=morphologies)


def _columns(pictures: Galaxy10Pictures, named: np.ndarray) -> RuleColumns:
    """Return what rules can ask of the file: its arrays with one number a picture, and the names of its classes."""

    def numbers(name: str) -> np.ndarray:
        values = None if name == "answer" else pictures.column(name)
        if values is None:
            raise UserError(f"answer of {pictures.path} holds names, such as {named[0]}: compare it with text")
        return np.where(values > _UNKNOWN, values, np.nan).astype(np.float64)

    def texts(name: str) -> np.ndarray:
        values = None if name == "answer" else pictures.column(name)
        return named if values is None else np.array(as_text(values), object)

    return RuleColumns(str(pictures.path), len(named), [*pictures.columns(), "answer"], numbers, texts)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--path", type=Path, required=True, metavar="H5", help="Galaxy10.h5 or Galaxy10_DECals.h5, as downloaded"
    )
    add_classes_option(
        parser,
        "ans (the number of the file's class), answer (its name) and the file's other columns",
        "spiral, elliptical, merger, edge-on, where they fit",
        "; or labels, the file's own ten classes",
    )


def _read(options: argparse.Namespace) -> Pictures:
    return read_galaxy10(options.path, options.classes, options.allow_empty_class)


SOURCE = Source("prepare Galaxy10, of SDSS or of DECaLS (needs h5py)", _add_options, _read)
