"""Turn galaxy pictures into a prepared dataset: images, catalogue and manifest in one folder below data/.

    python prepare_data.py gz2 --path ~/galaxy_zoo_2 --out data/gz2
    python prepare_data.py labelled --images my_images --labels my_images/labels.csv --out data/mine

`gz2` reads the files of Galaxy Zoo 2 as they were downloaded: gz2_hart16.csv.gz, gz2_filename_mapping.csv,
gz2sample.csv.gz (optional: redshifts, radii and magnitudes) and images_gz2.zip, which need not be unpacked.

`labelled` takes pictures of your own and a CSV file with the columns image (file name) and morphology (spiral,
elliptical, merger or edge-on). Optional columns: object_id (default: the file name without its ending), pixel_scale
(arcseconds a pixel of the original picture), and redshift, petro_r50_kpc, absolute_magnitude, stellar_mass, with
empty cells where unknown.

`join` makes one dataset of several:

    python prepare_data.py join --inputs data/gz2 data/mine --out data/all

Size, brightness, ellipticity, concentration and color are measured on the images.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import galaxy_zoo
from command_line import Parser, run_script
from config_physics import (
    ATTRIBUTES,
    CATALOGUE_ATTRIBUTES,
    MORPHOLOGY_NAMES,
    PHOTOMETRIC_ATTRIBUTES,
    UserError,
)
from cutouts import CutoutSource, read_cutouts
from dataset_writer import SPLITS, VALUE_COLUMNS, DatasetWriter
from duplicates import merge_duplicates
from label_table import read_labels

_BLOCK = 64  # images measured and written at a time; they stay in the cache, so 256 take 20 % longer


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand.

    Raises
    ------
    UserError
        For every mistake that the user can mend.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    command_line = shlex.join(["prepare_data.py", *arguments])
    {"gz2": _prepare_gz2, "labelled": _prepare_labelled, "join": _join}[options.command](options, command_line)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="prepare_data.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{gz2,labelled,join}")
    gz2 = commands.add_parser("gz2", help="prepare the files of Galaxy Zoo 2")
    gz2.add_argument("--path", type=Path, required=True, metavar="DIR", help="folder of the downloaded files")
    gz2.add_argument(
        "--rule",
        choices=galaxy_zoo.RULES,
        default="gated",
        help="class rule; 'paper' is the original recipe's, where one vote can decide (default: gated)",
    )
    gz2.add_argument(
        "--fractions",
        choices=tuple(galaxy_zoo.FRACTIONS),
        default="debiased",
        help="vote fractions that decide (default: debiased)",
    )
    labelled = commands.add_parser("labelled", help="prepare pictures of your own with a CSV file of classes")
    labelled.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder or zip file of the pictures"
    )
    labelled.add_argument(
        "--labels", type=Path, required=True, metavar="CSV", help="table with columns image and morphology"
    )
    join = commands.add_parser("join", help="make one prepared dataset of several")
    join.add_argument(
        "--inputs",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="prepared datasets; of a galaxy in several, the first one's image is kept",
    )
    for command in (gz2, labelled):
        command.add_argument("--size", type=int, choices=(64, 128, 256), default=64, help="pixels a side (default: 64)")
        command.add_argument(
            "--crop",
            type=_fraction,
            default=0.5,
            metavar="X",
            help="central part of the picture to keep, as a fraction of its side (default: 0.5)",
        )
        command.add_argument(
            "--workers",
            type=_positive,
            default=min(8, os.cpu_count() or 1),
            metavar="N",
            help="threads that read pictures (default: one a processor, at most 8)",
        )
        command.add_argument(
            "--limit", type=_positive, metavar="N", help="take only N galaxies, evenly spread over the table"
        )
    for command in (gz2, labelled, join):
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
        command.add_argument("--overwrite", action="store_true", help="replace --out if it is a prepared dataset")
        command.add_argument("--allow-empty-class", action="store_true", help="go on if a class has no image at all")
    return parser


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _prepare_gz2(options: argparse.Namespace, command_line: str) -> None:
    catalogue = galaxy_zoo.read_catalogue(options.path, options.rule, options.fractions, options.allow_empty_class)
    galaxies = catalogue.galaxies
    print(
        f"{len(galaxies)} galaxies have a class and a picture's name; {catalogue.unused} fit no class; "
        f"{catalogue.unmapped} have a class and no picture of their own in {galaxy_zoo.MAPPING_FILE}"
    )
    absent = [name for name in CATALOGUE_ATTRIBUTES if galaxies[name].isna().all()]
    if absent:
        print(f"no value of {', '.join(absent)}: {galaxy_zoo.SAMPLE_FILE} or its column is missing or empty")
    provenance = {
        "source": f"Galaxy Zoo 2 in {options.path}",
        "rule": options.rule,
        "fractions": options.fractions,
        "unmapped": catalogue.unmapped,
    }
    _write(options, options.path, galaxies, provenance, command_line, catalogue.unused)


def _prepare_labelled(options: argparse.Namespace, command_line: str) -> None:
    galaxies = read_labels(options.labels)
    provenance = {"source": f"{options.images} with {options.labels}", "rule": "labels"}
    _write(options, options.images, galaxies, provenance, command_line)


def _write(
    options: argparse.Namespace,
    images: Path,
    galaxies: pd.DataFrame,
    provenance: dict[str, object],
    command_line: str,
    unused: int = 0,
) -> None:
    """Read, crop and measure the pictures of a table and write the dataset."""
    if options.limit is not None and options.limit < len(galaxies):
        chosen = np.linspace(0, len(galaxies) - 1, options.limit).round().astype(int)
        galaxies = galaxies.iloc[chosen]
    galaxies = galaxies.reset_index(drop=True)
    attributes = [name for name in ATTRIBUTES if name in galaxies]
    unmeasured = 0
    with (
        CutoutSource(images) as source,
        DatasetWriter(
            options.out,
            options.size,
            options.crop,
            {**provenance, "command_line": command_line},
            options.overwrite,
            options.allow_empty_class,
        ) as writer,
    ):
        writer.unused = unused
        cutouts = read_cutouts(source, galaxies["image"], options.size, options.crop, options.workers)
        numbered = iter(tqdm(enumerate(cutouts), "reading", len(galaxies), unit=" images", leave=False))
        while block := list(islice(numbered, _BLOCK)):
            for _, cutout in block:
                if cutout.rejection is not None:
                    writer.reject(cutout.name, cutout.rejection.value)
            kept = [(row, cutout) for row, cutout in block if cutout.image is not None]
            if not kept:
                continue
            rows = galaxies.iloc[[row for row, _ in kept]]
            pixels = np.stack([cutout.image for _, cutout in kept])
            values = {name: rows[name].to_numpy(np.float64) for name in attributes}
            values |= (measured := measure_attributes(pixels))
            unmeasured += int(np.isnan(measured[PHOTOMETRIC_ATTRIBUTES[0]]).sum())
            if "frame_scale" in rows:
                grown = np.array([cutout.crop_px for _, cutout in kept]) / options.size
                values["pixel_scale"] = rows["frame_scale"].to_numpy(np.float64) * grown
            writer.append(pixels, rows["object_id"].tolist(), rows["morphology"].tolist(), values)
    if unmeasured:
        print(f"{unmeasured} images show no galaxy at the centre: they are kept without measured attributes")
    print_summary(writer)


def measure_attributes(images: np.ndarray) -> dict[str, np.ndarray]:
    """Measure the attributes of photometry.

    Parameters
    ----------
    images : ndarray, (N, 3, S, S), uint8

    Returns
    -------
    dict of str to ndarray, (N,), float64
        One entry for each of `PHOTOMETRIC_ATTRIBUTES`; NaN where no galaxy was found.
    """
    import torch  # here, so that --help and errors in the tables come at once

    import photometry

    with torch.inference_mode():
        measured = photometry.measure(torch.from_numpy(images).float() / 255)
    found = (measured["flag"].numpy() & photometry.NO_SOURCE) == 0
    return {name: np.where(found, measured[name].double().numpy(), np.nan) for name in PHOTOMETRIC_ATTRIBUTES}


def _join(options: argparse.Namespace, command_line: str) -> None:
    from dataset import PreparedDataset  # here, since it imports torch

    if len(options.inputs) < 2:
        raise UserError("--inputs takes at least two prepared datasets")
    inputs = [PreparedDataset.open(path) for path in options.inputs]
    for other in inputs[1:]:
        for setting in ("image_size", "crop"):
            one, two = inputs[0].manifest[setting], other.manifest[setting]
            if one != two:
                raise UserError(
                    f"{inputs[0].path} has {setting} {one} and {other.path} has {two}: prepare them alike first"
                )
    merged = merge_duplicates([data.catalogue for data in inputs], [_image_hashes(data.images) for data in inputs])
    parts = [
        {
            "path": str(data.path),
            "source": data.manifest.get("source"),
            "rule": data.manifest.get("rule"),
            "count": len(data.images),
            "kept": int((merged.rows["input"] == place).sum()),
            "images_sha256": data.manifest["sha256"]["images.npy"],
        }
        for place, data in enumerate(inputs)
    ]
    provenance = {
        "source": "joined: " + ", ".join(part["path"] for part in parts),
        "rule": " + ".join(dict.fromkeys(str(part["rule"]) for part in parts)),
        "inputs": parts,
        "class_conflicts": merged.class_conflicts,
        "filled": merged.filled,
        "command_line": command_line,
    }
    with DatasetWriter(
        options.out,
        inputs[0].image_size,
        inputs[0].manifest["crop"],
        provenance,
        options.overwrite,
        options.allow_empty_class,
    ) as writer:
        for row in merged.dropped.itertuples():
            writer.reject(f"{inputs[row.input].path}: {row.object_id}", f"duplicate, {row.reason}")
        for place, data in enumerate(inputs):
            kept = merged.rows[merged.rows["input"] == place]
            for start in tqdm(range(0, len(kept), _BLOCK), f"joining {data.path}", leave=False):
                rows = kept.iloc[start : start + _BLOCK]
                values = {name: rows[name].to_numpy(np.float64) for name in VALUE_COLUMNS if name in rows}
                images = data.images[rows["row"].to_numpy()]
                writer.append(images, rows["object_id"].tolist(), rows["morphology"].tolist(), values)
    if merged.class_conflicts:
        print(f"{merged.class_conflicts} duplicates have another class: the first dataset's class is kept")
    if merged.filled:
        print("filled in from duplicates: " + ", ".join(f"{n} {name}" for name, n in merged.filled.items()))
    print_summary(writer)


def _image_hashes(images: np.ndarray) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def print_summary(writer: DatasetWriter) -> None:
    """Print how many images each class and split has, and what was left out and why."""
    manifest = writer.manifest
    width = max(map(len, MORPHOLOGY_NAMES))
    print(f"{manifest['count']} images of {writer.image_size} pixels in {writer.out}")
    print(" " * width + "".join(f"{head:>9}" for head in (*SPLITS, "all")))
    for name in MORPHOLOGY_NAMES:
        numbers = [*(manifest["counts"][split][name] for split in SPLITS), manifest["counts"][name]]
        print(f"{name:<{width}}" + "".join(f"{number:>9}" for number in numbers))
    reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    print(f"left out: {manifest['unused']} of no class; pictures: {reasons or 'none'}")


if __name__ == "__main__":
    run_script(main)
