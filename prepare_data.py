"""Turn galaxy pictures into a prepared dataset: images, catalogue and manifest in one folder below data/.

    python prepare_data.py gz2 --download --out data/gz2
    python prepare_data.py gz2 --path ~/galaxy_zoo_2 --out data/gz2
    python prepare_data.py labelled --images my_images --labels my_images/labels.csv --out data/mine

`gz2` reads the files of Galaxy Zoo 2 as they were downloaded: gz2_hart16.csv.gz, gz2_filename_mapping.csv,
gz2sample.csv.gz (optional: redshifts, radii and magnitudes) and images_gz2.zip, which need not be unpacked.
--download fetches them (3.7 GB) and goes on where it stopped; GALAXY_ZOO_MIRROR, if set, is the address to ask instead.

`galaxy-zoo` reads the tables of Galaxy Zoo DECaLS, DESI and Evo (Parquet, with pictures in it or beside it), `galaxy10`
the HDF5 file of Galaxy10; they need the packages pyarrow and h5py.

`labelled` takes pictures of your own and a CSV file with the columns image (file name) and morphology (spiral,
elliptical, merger or edge-on). Optional columns: object_id (default: the file name without its ending), pixel_scale
(arcseconds a pixel of the original picture), and redshift, petro_r50_kpc, absolute_magnitude, stellar_mass, with
empty cells where unknown. Other columns of numbers are kept as attributes of your own; --attribute tells what they are.

`fits` takes FITS cutouts of any instrument and a catalogue with any column names, and makes a dataset of flux, in
nanojansky a pixel and up to 12 bands; see docs/data.md for what it reads:

    python prepare_data.py fits --images cutouts --catalogue galaxies.csv --columns object_id=ID,redshift=z_spec \
        --bands g,r,z --zero-point 22.5 --out data/NAME

`field` finds the galaxies in frames of the sky, one a band and of any size, and cuts them out as flux:

    python prepare_data.py field --frames g.fits r.fits i.fits --bands g,r,i --zero-point 30 --pixel-scale 0.2 \
        --out data/NAME

`simulated` renders a mock survey whose truth is known exactly; with --as-gz2 it is written in the formats of the
Galaxy Zoo 2 files first, and read back from them. With --kind flux it is linear images in any bands of a survey by its
name, with the light before the telescope beside them. `join` makes one dataset of several:

    python prepare_data.py simulated --count 4096 --seed 0 --out data/simulated
    python prepare_data.py simulated --kind flux --survey LSST --bands g,r,i,z --count 4096 --out data/lsst
    python prepare_data.py join --inputs data/gz2 data/mine --out data/all

Size, brightness, ellipticity, concentration and color are measured on the images.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from config_physics import IMAGE_SIZES
from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError
from galaxies.common.outputs import DATASET, check_folder
from galaxies.common.parsing import number_between, positive_number
from galaxies.datasets.band_lists import band_names
from galaxies.datasets.class_options import add_classes_option
from galaxies.datasets.preparing import FluxSource, Source, print_summary, write_pictures
from galaxies.datasets.sources import FLUX_SOURCES, SOURCES
from galaxies.tables.class_rules import ClassRules, read_class_rules


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand.

    Raises
    ------
    UserError
        For every mistake that the user can mend.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    options.run(options, shlex.join(["prepare_data.py", *arguments]))


def _parser() -> argparse.ArgumentParser:
    """Return the parser; a subcommand's `run` takes its options and the command line, for the manifest."""
    parser = Parser(prog="prepare_data.py", description=__doc__)
    names = ",".join([*SOURCES, *FLUX_SOURCES, "simulated", "join"])
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{names}}}")
    for name, source in SOURCES.items():
        command = commands.add_parser(name, help=source.help)
        command.set_defaults(run=partial(_prepare, source))
        source.add_options(command)
        _add_size(command)
        _add_picture_options(command)
        _add_dataset_options(command, source.needs_out)
    for name, flux_source in FLUX_SOURCES.items():
        command = commands.add_parser(name, help=flux_source.help)
        command.set_defaults(run=partial(_prepare_flux, flux_source))
        flux_source.add_options(command)
        _add_size(command)
        _add_limit(command)
        _add_dataset_options(command)
    simulated = commands.add_parser("simulated", help="render a mock survey")
    simulated.set_defaults(run=_simulate)
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
    simulated.add_argument(
        "--kind",
        choices=("display", "flux"),
        default="display",
        help="display: colour pictures as SDSS shows them; flux: linear images in nanojansky a pixel, in any bands "
        "(default: display)",
    )
    of_truth = "the truth (class, which the survey drew, arm_count, bar, bulge, true_axis_ratio, …)"
    add_classes_option(simulated, of_truth, "spiral, elliptical, merger, edge-on")
    flux = simulated.add_argument_group("with --kind flux")
    flux.add_argument(
        "--survey",
        metavar="NAME",
        help="whose pixels, seeing, sky, exposure and zero points: CFHTLS, COSMOS, DES, Euclid_NISP, Euclid_VIS, HSC, "
        "LSST, PanSTARRS, Roman_WFI, Roman_WFI_Deep, SDSS, or a JSON file that describes your own, see docs/surveys.md "
        "(default: LSST)",
    )
    flux.add_argument(
        "--bands", type=band_names, metavar="B,B,...", help="its filters, such as g,r,i,z (default: all of them)"
    )
    flux.add_argument(
        "--pixel-scale",
        type=positive_number,
        metavar="ARCSEC",
        help="arcseconds a pixel, up to four times the survey's own (default: those)",
    )
    flux.add_argument(
        "--smallest",
        type=number_between(0.2, 1),
        metavar="X",
        help="half-light radius of the smallest galaxies, over the PSF's width or an 18th of the frame, whichever is "
        "larger, 0.2 to 1; the blur hides sizes below 1 (default: 1)",
    )
    flux.add_argument(
        "--chosen-by",
        metavar="NAME",
        help="another survey: the galaxies are those that it has with the same seed and bands, on pixels of its own, "
        "whether or not --survey finds them (default: those that --survey finds)",
    )
    _add_size(simulated)
    _add_dataset_options(simulated)
    join = commands.add_parser("join", help="make one prepared dataset of several")
    join.set_defaults(run=_join)
    join.add_argument(
        "--inputs",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="prepared datasets; of a galaxy in several, the first one's image is kept",
    )
    _add_dataset_options(join)
    return parser


def _add_size(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", type=int, choices=IMAGE_SIZES, default=64, help="pixels a side (default: 64)")


def _add_picture_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--crop",
        type=_fraction,
        metavar="X",
        help="central part of the picture to keep, as a fraction of its side: 1.0 is all of it (default: 0.5, which "
        "suits Galaxy Zoo's frames)",
    )
    command.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="threads, or processes for many pictures, that read and measure them (default: one a processor)",
    )
    _add_limit(command)


def _add_limit(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--limit", type=_positive, metavar="N", help="take only N galaxies, evenly spread over the table"
    )


def _add_dataset_options(command: argparse.ArgumentParser, needs_out: bool = True) -> None:
    command.add_argument("--out", type=Path, required=needs_out, metavar="DIR", help="folder to make")
    command.add_argument(
        "--overwrite", action="store_true", help="replace the dataset in --out; other files there stay"
    )
    command.add_argument("--allow-empty-class", action="store_true", help="go on if a class has no image at all")


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


def _prepare(source: Source, options: argparse.Namespace, command_line: str) -> None:
    """Write the dataset of a source of `SOURCES`."""
    inputs = _inputs(options)
    if options.out is not None:  # before anything is read, or downloaded for hours
        check_folder(options.out, DATASET, inputs=inputs, overwrite=options.overwrite)
    if (pictures := source.read(options)) is None:
        return
    from galaxies.common.hardware import usable_cores  # here, since it imports torch

    write_pictures(
        pictures,
        options.out,
        options.size,
        options.crop,
        command_line,
        workers=options.workers or usable_cores(),
        limit=options.limit,
        overwrite=options.overwrite,
        allow_empty_class=options.allow_empty_class,
        inputs=inputs,
    )


def _prepare_flux(source: FluxSource, options: argparse.Namespace, command_line: str) -> None:
    """Write the dataset of a source of `FLUX_SOURCES`."""
    check_folder(options.out, DATASET, inputs=_inputs(options), overwrite=options.overwrite)
    source.write(options, command_line)


def _inputs(options: argparse.Namespace) -> list[Path]:
    """Return what the options name and nothing may be written over."""
    named = [value if isinstance(value, list) else [value] for name, value in vars(options).items() if name != "out"]
    return [value for values in named for value in values if isinstance(value, Path)]


def _simulate(options: argparse.Namespace, command_line: str) -> None:
    # Here, since it imports torch.
    from galaxies.mock_survey.writing import rendering_device, write_dataset, write_release

    device = rendering_device(options.device)
    rules = None if options.classes is None else read_class_rules(options.classes)
    if options.kind == "flux":
        _simulate_flux(options, rules, device, command_line)
        return
    for name in ("survey", "bands", "pixel_scale", "smallest", "chosen_by"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for flux: add --kind flux, or leave it out")
    if options.as_gz2 is None:
        arguments = (options.count, options.seed, options.size, device, command_line, options.overwrite)
        print_summary(write_dataset(options.out, *arguments, rules, options.allow_empty_class))
        return
    out, files = options.out.resolve(), options.as_gz2.resolve()
    if out in (files, *files.parents):
        raise UserError(f"--as-gz2 {options.as_gz2} lies in --out {options.out}: name a folder beside it")
    check_folder(options.out, DATASET, overwrite=options.overwrite)
    write_release(options.as_gz2, options.count, options.seed, device, options.overwrite)
    print(f"{options.count} galaxies in the formats of Galaxy Zoo 2 in {options.as_gz2}")
    as_files = ["gz2", "--path", str(options.as_gz2), "--out", str(options.out), "--size", str(options.size)]
    flags = [f"--{name.replace('_', '-')}" for name in ("overwrite", "allow_empty_class") if getattr(options, name)]
    classes = [] if options.classes is None else ["--classes", options.classes]
    main([*as_files, *flags, *classes])


def _simulate_flux(options: argparse.Namespace, rules: ClassRules | None, device: str, command_line: str) -> None:
    from galaxies.mock_survey.band_population import Frame, check_frame  # here, since it imports torch
    from galaxies.mock_survey.band_writing import write_band_dataset
    from galaxies.telescope.surveys import find_survey

    if options.as_gz2 is not None:
        raise UserError("--as-gz2 writes colour pictures, as Galaxy Zoo has them: leave it out, or --kind flux")
    survey = find_survey(options.survey or "LSST", options.bands)
    smallest = options.smallest or 1.0
    frame = Frame(survey, options.size, options.pixel_scale or survey.pixel_scale, smallest)
    chosen_by = None
    if options.chosen_by is not None:
        other = find_survey(options.chosen_by, [band.name for band in survey.bands])
        chosen_by = Frame(other, options.size, other.pixel_scale, smallest)
    check_frame(chosen_by or frame)
    arguments = (options.count, options.seed, frame, device, command_line, options.overwrite, chosen_by)
    print_summary(write_band_dataset(options.out, *arguments, rules, options.allow_empty_class))


def _join(options: argparse.Namespace, command_line: str) -> None:
    from galaxies.datasets.joining import join  # here, since it imports torch

    print_summary(join(options.inputs, options.out, command_line, options.overwrite, options.allow_empty_class))


if __name__ == "__main__":
    run_script(main)
