"""Turn galaxy pictures into a prepared dataset: images, catalogue and manifest in one folder below data/.

    python prepare_data.py gz2 --download --out data/gz2
    python prepare_data.py gz2 --path ~/galaxy_zoo_2 --out data/gz2
    python prepare_data.py labelled --images my_images --labels my_images/labels.csv --out data/mine

`gz2` reads the files of Galaxy Zoo 2 as they were downloaded: gz2_hart16.csv.gz, gz2_filename_mapping.csv,
gz2sample.csv.gz (optional: redshifts, radii and magnitudes) and images_gz2.zip, which need not be unpacked.
--download fetches them (3.7 GB) and goes on where it stopped; GALAXY_ZOO_MIRROR, if set, is the address to ask instead.

`labelled` takes pictures of your own and a CSV file with the columns image (file name) and morphology (spiral,
elliptical, merger or edge-on). Optional columns: object_id (default: the file name without its ending), pixel_scale
(arcseconds a pixel of the original picture), and redshift, petro_r50_kpc, absolute_magnitude, stellar_mass, with
empty cells where unknown.

`simulated` renders a mock survey whose truth is known exactly; with --as-gz2 it is written in the formats of the
Galaxy Zoo 2 files first, and read back from them. `join` makes one dataset of several:

    python prepare_data.py simulated --count 4096 --seed 0 --out data/simulated
    python prepare_data.py join --inputs data/gz2 data/mine --out data/all

Size, brightness, ellipticity, concentration and color are measured on the images.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from config_physics import ATTRIBUTES, CATALOGUE_ATTRIBUTES, IMAGE_SIZES, MORPHOLOGY_NAMES, PHOTOMETRIC_ATTRIBUTES
from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError
from galaxies.datasets.cutouts import CutoutSource, read_cutouts
from galaxies.datasets.sources import galaxy_zoo
from galaxies.datasets.sources.labelled import read_labels
from galaxies.datasets.writing import SPLITS, DatasetWriter

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
    {"gz2": _prepare_gz2, "labelled": _prepare_labelled, "simulated": _prepare_simulated, "join": _join}[
        options.command
    ](options, command_line)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="prepare_data.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{gz2,labelled,simulated,join}")
    gz2 = commands.add_parser("gz2", help="prepare the files of Galaxy Zoo 2")
    gz2.add_argument("--path", type=Path, metavar="DIR", help=f"folder of the files (--download: {galaxy_zoo.FOLDER})")
    gz2.add_argument("--download", action="store_true", help="fetch what is missing of the files first")
    gz2.add_argument("--only-catalogue", action="store_true", help="download the tables alone and write no dataset")
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
    simulated = commands.add_parser("simulated", help="render a mock survey")
    simulated.add_argument("--count", type=_positive, default=4096, metavar="N", help="galaxies (default: 4096)")
    simulated.add_argument(
        "--seed", type=_seed, default=0, metavar="S", help="whole number; another one, other galaxies (default: 0)"
    )
    simulated.add_argument(
        "--as-gz2", type=Path, metavar="DIR", help="write Galaxy Zoo 2 files here, about 25 KB a galaxy, and read those"
    )
    simulated.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to render (default: a GPU if any)"
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
    for command in (gz2, labelled, simulated):
        command.add_argument("--size", type=int, choices=IMAGE_SIZES, default=64, help="pixels a side (default: 64)")
    for command in (gz2, labelled):
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
    for command in (gz2, labelled, simulated, join):
        command.add_argument("--out", type=Path, required=command is not gz2, metavar="DIR", help="folder to make")
        command.add_argument("--overwrite", action="store_true", help="replace --out if it is a prepared dataset")
        command.add_argument("--allow-empty-class", action="store_true", help="go on if a class has no image at all")
    return parser


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 0 to {2**31 - 1}")
    return int(text)


def _prepare_gz2(options: argparse.Namespace, command_line: str) -> None:
    if options.out is None and not options.only_catalogue:
        raise UserError("gz2 needs --out, the folder to make")
    if options.download:
        from galaxies.datasets.sources.galaxy_zoo_files import (
            fetch_release,  # here, since it imports pooch and requests
        )

        options.path = options.path or Path(galaxy_zoo.FOLDER)
        fetch_release(options.path, options.only_catalogue)
    elif options.path is None or options.only_catalogue:
        raise UserError("gz2 needs --path, the folder of the files, or --download with or without --only-catalogue")
    catalogue = galaxy_zoo.read_catalogue(options.path, options.rule, options.fractions, options.allow_empty_class)
    galaxies = catalogue.galaxies
    print(
        f"{len(galaxies)} galaxies have a class and a picture's name; {catalogue.unused} fit no class; "
        f"{catalogue.unmapped} have a class and no picture of their own in {galaxy_zoo.MAPPING_FILE}"
    )
    absent = [name for name in CATALOGUE_ATTRIBUTES if galaxies[name].isna().all()]
    if absent:
        print(f"no value of {', '.join(absent)}: {galaxy_zoo.SAMPLE_FILE} or its column is missing or empty")
    if options.only_catalogue:
        print("no dataset is written; classes: " + ", ".join(f"{n} {name}" for name, n in catalogue.counts.items()))
        return
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


def _prepare_simulated(options: argparse.Namespace, command_line: str) -> None:
    from galaxies.mock_survey.writing import (  # here, since it imports torch
        rendering_device,
        write_dataset,
        write_release,
    )

    device = rendering_device(options.device)
    if options.as_gz2 is None:
        arguments = (options.count, options.seed, options.size, device, command_line, options.overwrite)
        print_summary(write_dataset(options.out, *arguments))
        return
    if not options.overwrite and options.out.exists() and any(options.out.iterdir() if options.out.is_dir() else [1]):
        raise UserError(f"{options.out} exists: choose another --out, or replace it with --overwrite")
    write_release(options.as_gz2, options.count, options.seed, device, options.overwrite)
    print(f"{options.count} galaxies in the formats of Galaxy Zoo 2 in {options.as_gz2}")
    as_files = ["gz2", "--path", str(options.as_gz2), "--out", str(options.out), "--size", str(options.size)]
    flags = [f"--{name.replace('_', '-')}" for name in ("overwrite", "allow_empty_class") if getattr(options, name)]
    main([*as_files, *flags])


def _join(options: argparse.Namespace, command_line: str) -> None:
    from galaxies.datasets.joining import join  # here, since it imports torch

    print_summary(join(options.inputs, options.out, command_line, options.overwrite, options.allow_empty_class))


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
    from galaxies.measure.photometry import (
        measure_attributes,  # here, so that --help and errors in the tables come at once
    )

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
