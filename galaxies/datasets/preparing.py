"""From the pictures of a source to a prepared dataset: read, cropped, measured and written."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from config_physics import MORPHOLOGIES, PHOTOMETRIC_ATTRIBUTES, Attribute, Morphology
from galaxies.datasets.cutout_blocks import read_blocks
from galaxies.datasets.cutouts import CutoutSource, PictureStore
from galaxies.datasets.layout import DISPLAY, SHARE
from galaxies.datasets.matching import MatchedRows, match_rows
from galaxies.datasets.writing import SPLITS, DatasetWriter

# The side of Galaxy Zoo's frames, whose outer half is sky and neighbours, and the part of it that is kept by default.
GALAXY_ZOO_PX, GALAXY_ZOO_CROP = 424, 0.5


class Pictures(NamedTuple):
    """Galaxies that a source knows, and where their pictures are.

    Attributes
    ----------
    folder : Path or PictureStore
        Folder or zip file of the pictures, see `CutoutSource`; or what holds them, open, and is closed afterwards.
    galaxies : DataFrame
        One row a galaxy: object_id, image (name of the picture) and morphology (name of a class); where known, shares
        of the classes (see `share_columns`), attributes (float64, NaN where unknown) and frame_scale, arcseconds a
        pixel of the original picture.
    provenance : dict
        Entries for the manifest: source, rule and so on (JSON values).
    unused : int
        Galaxies of the source that fit no class.
    crop : float, optional
        Part of the pictures that is kept by default, where the source knows its frames.
    own : tuple of Attribute
        Attributes of the user's own, whose values stand in `galaxies` too.
    classes : sequence of Morphology
        By default those of the program.
    """

    folder: Path | PictureStore
    galaxies: pd.DataFrame
    provenance: Mapping[str, object]
    unused: int = 0
    crop: float | None = None
    own: tuple[Attribute, ...] = ()
    classes: Sequence[Morphology] = MORPHOLOGIES


class Source(NamedTuple):
    """A kind of data that a dataset can be prepared from; a subcommand of `prepare_data.py`.

    Attributes
    ----------
    help : str
        What the subcommand does, in a few words.
    add_options : callable
        Adds the source's own options to a parser. Those of the pictures and of the dataset are added after them.
    read : callable
        Reads the source as its options say, or returns None if no dataset was asked for. Raises `UserError` for what
        the user can mend.
    needs_out : bool
        Whether a dataset is always asked for.
    """

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    read: Callable[[argparse.Namespace], Pictures | None]
    needs_out: bool = True


class FluxSource(NamedTuple):
    """A kind of data that a dataset of flux can be prepared from; a subcommand of `prepare_data.py`.

    Attributes
    ----------
    help : str
        What the subcommand does, in a few words.
    add_options : callable
        Adds the source's own options to a parser. --size, --limit and those of the dataset (--out, --overwrite,
        --allow-empty-class) are added after them.
    write : callable
        Writes the dataset as its options say, given the command line for the manifest, and prints what it holds.
        Raises `UserError` for what the user can mend.
    """

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    write: Callable[[argparse.Namespace, str], None]


def write_pictures(
    pictures: Pictures,
    out: Path,
    size: int,
    crop: float | None,
    command_line: str,
    *,
    workers: int = 1,
    limit: int | None = None,
    overwrite: bool = False,
    allow_empty_class: bool = False,
    inputs: Sequence[Path] = (),
) -> None:
    """Read, crop and measure the pictures of a source, write the dataset, and print what it holds.

    Parameters
    ----------
    pictures : Pictures
    out : Path
        Folder to make.
    size : int
        Pixels a side, S.
    crop : float, optional
        Side of the central square that is kept, as a fraction of the picture's, (0, 1]. By default what the
        source says, or that of Galaxy Zoo; if the pictures are no frames of Galaxy Zoo, that is said.
    command_line : str
        For the manifest.
    workers : int
        Threads that read and measure pictures; processes, where there are many pictures and at least four workers.
    limit : int, optional
        Take only so many galaxies, evenly spread over the table.
    overwrite, allow_empty_class, inputs
        As for `DatasetWriter`.

    Raises
    ------
    UserError
        If there is no picture at all, or the dataset cannot be written.
    """
    galaxies = pictures.galaxies
    if limit is not None and limit < len(galaxies):
        chosen = np.linspace(0, len(galaxies) - 1, limit).round().astype(int)
        galaxies = galaxies.iloc[chosen]
    galaxies = galaxies.reset_index(drop=True)
    ids, morphologies = galaxies["object_id"].tolist(), galaxies["morphology"].tolist()
    layout = replace(DISPLAY, own=pictures.own).with_classes(pictures.classes)
    shares = [str(name) for name in galaxies if str(name).startswith(SHARE)]
    taken = [name for name in (*layout.attributes, *shares) if name in galaxies]
    known = {name: galaxies[name].to_numpy(np.float64) for name in taken}
    frame_scale = galaxies["frame_scale"].to_numpy(np.float64) if "frame_scale" in galaxies else None
    asked = galaxies["image"].tolist()
    part = crop or pictures.crop or GALAXY_ZOO_CROP
    provenance = {**pictures.provenance, "command_line": command_line}
    unmeasured = done = 0
    changed: Counter[str] = Counter()
    crops: Counter[int] = Counter()
    with CutoutSource(pictures.folder) if isinstance(pictures.folder, Path) else pictures.folder as source:
        if isinstance(source, CutoutSource):
            matched = match_rows(source, asked)
        else:
            matched = MatchedRows(list(range(len(asked))), asked, {}, [])
        for remark in matched.remarks:
            print(remark)
        row_of = np.array(matched.rows)
        with (
            closing(read_blocks(source, matched.names, size, part, workers)) as blocks,
            DatasetWriter(out, size, part, provenance, overwrite, allow_empty_class, shares, inputs, layout) as writer,
            tqdm(desc="reading", total=len(row_of), unit=" images", leave=False) as bar,
        ):
            writer.unused = pictures.unused
            for row, (reason, detail) in matched.left_out.items():
                writer.reject(asked[row], reason.value, detail)
            for block in blocks:
                for place, (reason, detail) in block.rejected.items():
                    writer.reject(asked[row_of[done + place]], reason.value, detail)
                rows = row_of[done + block.places]
                values = {name: column[rows] for name, column in known.items()} | block.measured
                unmeasured += int(np.isnan(block.measured[PHOTOMETRIC_ATTRIBUTES[0]]).sum())
                if frame_scale is not None:
                    values["pixel_scale"] = frame_scale[rows] * (block.crop_px / size)
                chosen = rows.tolist()
                writer.append(block.images, [ids[row] for row in chosen], [morphologies[row] for row in chosen], values)
                done += len(block.names)
                bar.update(len(block.names))
                changed.update(block.notes)
                crops.update(block.crop_px.tolist())
    if changed:
        print("as a viewer shows them: " + ", ".join(f"{count} {note}" for note, count in changed.most_common()))
    if crop is None and pictures.crop is None and (others := [px for px in crops if px != round(GALAXY_ZOO_PX * part)]):
        print(
            f"--crop {part:g}, as for Galaxy Zoo's frames of {GALAXY_ZOO_PX} pixels, kept the central {others[0]} of "
            f"{round(others[0] / part)} pixels: --crop 1.0 keeps the whole pictures"
        )
    if unmeasured:
        print(f"{unmeasured} images show no galaxy at the centre: they are kept without measured attributes")
    print_summary(writer)


def print_summary(writer: DatasetWriter) -> None:
    """Print how many images each class and split has, and what was left out and why."""
    manifest = writer.manifest
    classes = writer.layout.classes
    width = max(map(len, classes))
    print(f"{manifest['count']} images of {writer.image_size} pixels in {writer.out}")
    print(" " * width + "".join(f"{head:>9}" for head in (*SPLITS, "all")))
    for name in classes:
        numbers = [*(manifest["counts"][split][name] for split in SPLITS), manifest["counts"][name]]
        print(f"{name:<{width}}" + "".join(f"{number:>9}" for number in numbers))
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    print(f"left out: {manifest['unused']} of no class; pictures: {reasons or 'none'}")
