"""Check whether generated galaxies are what was asked for, look real, and are no copies.

    python evaluate.py report --checkpoint checkpoints/first/latest.pt --data data/gz2 --out reports/first
    python evaluate.py compare reports/first reports/second
    python evaluate.py sets --reference data/gz2 --compare data/mock generated/gan --out reports/sets
    python evaluate.py measure picture.png galaxy.fits --out measured.csv
    python evaluate.py measure cube.fits --psf psf.fits --zero-point 22.5 --out magnitudes.csv
    python evaluate.py validate --data data/gz2
    python evaluate.py augmentation --checkpoint checkpoints/first/latest.pt --data data/gz2 --rare merger
    python evaluate.py average --checkpoint checkpoints/first/latest.pt --data data/gz2 --out averaged.pt
    python evaluate.py field fields/lsst --compare-exposures 30,300,3000 --out reports/lsst

`report` writes report.html, which needs nothing else to be read, report.json with every number, and the plots as PNG.
`compare` lays the main figures of several reports side by side. `sets` holds sets of any origin, such as a simulation's
pictures or another generator's, against a prepared dataset. `measure` measures pictures of any origin. `validate`
checks that the distances which the report relies on grow when real galaxies are damaged. `augmentation` tries whether
generated galaxies help a classifier that knows few real ones of a rare class. `average` chooses, after a training,
how long the generator's weights are averaged. `field` says what of a mock field is found, and how deep to go for more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from galaxies.command_line import (
    Parser,
    add_device_option,
    add_solver_options,
    need_packages,
    run_script,
    solver_settings,
)
from galaxies.common.parsing import (
    finite_number,
    finite_numbers,
    number_between,
    positive_number,
    positive_numbers,
    whole_number,
)
from galaxies.validation import commands

_NEEDED = ("scipy", "sklearn", "matplotlib", "jinja2")
_FOR_STATMORPH = ("statmorph", "photutils")
_MOST_IMAGES = 100_000
_MOST_EXPOSURES = 20
_FLUX_OPTIONS = (
    *(
        "mask",
        "weight",
        "psf",
        "ext",
        "bands",
        "zero_point",
        "unit",
        "pixel_scale",
        "psf_fwhm",
        "flux_pixel",
        "redshift",
    ),
)
_FITS_OPTIONS = ("bands", "zero_point", "unit", "pixel_scale", "flux_pixel", "psf", "psf_fwhm", "sky")
_FIELD = """Say what of a mock field (observe.py field) is found and how well it is measured.

Sources are detected with sep in the reference band and matched to the true ones. Said are completeness and purity
against magnitude and size, photometric bias and scatter, the blended part, and shape noise, with their errors; with
--out as JSON, as a CSV table, as a page and as plots. --compare-exposures draws new noise for other depths and finds
the exposure at which nine of ten bright galaxies have their morphology measured; docs/surveys.md tells what that means.
"""
_AVERAGE = """Choose how long the weights of a generator are averaged, after its training.

A run with --average-snapshots keeps two averages of the generator's weights at some steps, of which an average of any
length can be made (Karras et al. 2024, arXiv:2312.02696). The same galaxies are drawn with each length, like those of
the dataset's judge split, and compared with these: measured statistics and features, as multiples of the distance of
real from real. With --out the best one is written as a checkpoint, to draw with, to report on and to release.
"""
_SETS = """Hold sets of galaxies of any origin against the test galaxies of a prepared dataset.

A set is another prepared dataset, a folder of generate_from_checkpoint.py, a folder or zip file of JPEG or PNG
pictures, or a folder of FITS files; several are laid side by side. The page says how far each is from the reference,
by every distance that a report of a checkpoint knows, as a multiple of that of real from real; in which statistics it
differs most, with example galaxies; and whether the difference is the telescope's or the galaxies', by matching blur
and noise.

Galaxies that the reference's test or judge split has too are left out, by their ids or pixel for pixel. The options
for FITS files say what their headers do not, as those of prepare_data.py fits; what has classes is prepared first.
"""
_MEASURE = """Measure pictures, one galaxy each.

A picture that cannot be measured gets a row without values, whose remark says why. The exit status is 0 if all were
measured, 1 if only some, and 2, without a table, if none. What was done to a picture stands in the column remark, too;
docs/physics.md tells what is done to FITS files. The column flag is 0 for a sound measurement, else a sum: 1 no source
near the centre, 2 the edge is touched, 4 no light above the sky in a plane, 8 no radius or centre of the structure, and
16 pixels of the galaxy without a value.

Beside photometry and structure the table has what people look for: the strength of spiral arms with their number and
pitch, which are empty where no arms are visible, a second nucleus, and how asymmetric the outline is.

Sizes are in frame widths there, and light in display units. Any of the options for flux instead measures FITS files in
physical units: AB magnitudes, colors, surface brightnesses in mag/arcsec^2, radii in arcsec, with errors by the noise.
What the header says (bands, unit, zero point, pixel scale) needs no option; what nobody says is asked for.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    options.run(options)


def _parser() -> Parser:
    parser = Parser(prog="evaluate.py", description=__doc__)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    report = parsers.add_parser("report", help="validate a checkpoint", description="Validate a checkpoint.")
    report.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="checkpoint of a training run")
    _add_data(report)
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the report")
    report.add_argument(
        "--count",
        type=whole_number(20, _MOST_IMAGES),
        default=2000,
        metavar="N",
        help="images to generate, half as in the test split and half uniform (default: 2000)",
    )
    report.add_argument(
        "--statmorph",
        type=whole_number(0, _MOST_IMAGES),
        default=0,
        metavar="N",
        help="generated and real images that statmorph measures too, about 5 a second (default: 0)",
    )
    report.add_argument(
        "--steps",
        type=whole_number(1, 1_000_000),
        default=150,
        metavar="N",
        help="batches of 64 that the real-or-fake network learns from (default: 150)",
    )
    add_solver_options(report)
    report.set_defaults(run=_report)

    compare = parsers.add_parser("compare", help="lay reports side by side", description="Lay reports side by side.")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a report, or its report.json")
    compare.add_argument("--out", type=Path, metavar="CSV", help="also write the table to this file")
    compare.set_defaults(run=_compare)

    sets = parsers.add_parser("sets", help="compare sets of any origin", description=_SETS)
    sets.add_argument(
        "--reference",
        type=Path,
        required=True,
        metavar="DIR",
        help="prepared dataset, of which the test split is taken",
    )
    sets.add_argument(
        "--compare", type=Path, nargs="+", required=True, metavar="SET", help="datasets, folders and zip files"
    )
    sets.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of sets.html and sets.json")
    sets.add_argument(
        "--count",
        type=whole_number(20, _MOST_IMAGES),
        default=2000,
        metavar="N",
        help="galaxies of each set and of the reference, at most, at random (default: 2000)",
    )
    sets.add_argument(
        "--steps",
        type=whole_number(1, 1_000_000),
        default=150,
        metavar="N",
        help="batches of 64 that the network learns from which tells sets apart (default: 150)",
    )
    sets.add_argument(
        "--crop",
        type=number_between(0.01, 1),
        default=1.0,
        metavar="X",
        help="side of the central square taken of pictures in folders, as a fraction of theirs; Galaxy Zoo's frames of "
        "424 pixels are prepared with 0.5 (default: 1)",
    )
    _add_seed(sets)
    add_device_option(sets)
    _add_fits(sets)
    sets.set_defaults(run=_sets)

    measure = parsers.add_parser(
        "measure",
        help="measure pictures",
        description=_MEASURE,
    )
    measure.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="PNG, JPEG or FITS, one galaxy each, or folders of them"
    )
    measure.add_argument("--out", type=Path, required=True, metavar="CSV", help="table to write, one row a picture")
    _add_flux(measure)
    measure.set_defaults(run=_measure)

    validate = parsers.add_parser("validate", help="check the distances", description="Check the distances.")
    _add_data(validate)
    validate.add_argument("--out", type=Path, metavar="JSON", help="also write the result to this file")
    validate.set_defaults(run=_validate)

    rare = parsers.add_parser("augmentation", help="try generated galaxies on a rare class")
    rare.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="checkpoint of a training run")
    _add_data(rare)
    rare.add_argument("--rare", default="merger", metavar="CLASS", help="the class that is rare (default: merger)")
    rare.add_argument(
        "--counts",
        type=_whole_numbers,
        default=(25, 50, 100),
        metavar="N,N",
        help="real rare galaxies to learn from (default: 25,50,100)",
    )
    rare.add_argument(
        "--repetitions", type=whole_number(1, 100), default=5, metavar="N", help="networks for each number (default: 5)"
    )
    rare.add_argument(
        "--steps",
        type=whole_number(1, 100_000),
        default=150,
        metavar="N",
        help="batches of 32 a network (default: 150)",
    )
    rare.add_argument("--out", type=Path, metavar="JSON", help="also write the result to this file")
    rare.set_defaults(run=_augmentation)

    average = parsers.add_parser(
        "average", help="choose how long a generator's weights are averaged", description=_AVERAGE
    )
    average.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="latest.pt of a run with snapshots of averages"
    )
    _add_data(average)
    average.add_argument(
        "--lengths",
        type=_lengths,
        default=(0.025, 0.05, 0.1, 0.15, 0.2),
        metavar="X,X",
        help="relative lengths to try, 0.01 to 0.25: spread of the averaged steps (standard deviation), as part of the "
        "training (default: 0.025,0.05,0.1,0.15,0.2)",
    )
    average.add_argument(
        "--count",
        type=whole_number(20, _MOST_IMAGES),
        default=600,
        metavar="N",
        help="galaxies to draw with each average (default: 600)",
    )
    average.add_argument("--out", type=Path, metavar="PT", help="also write a checkpoint that draws with the best one")
    add_solver_options(average)
    average.set_defaults(run=_average)

    field = parsers.add_parser("field", help="say what of a mock field is found", description=_FIELD)
    field.add_argument("field", type=Path, metavar="DIR", help="folder of a mock field, by observe.py field")
    field.add_argument(
        "--compare-exposures",
        type=_exposures,
        default=(),
        metavar="S,S",
        help="seconds, in every band; evaluate the field with new noise for each, too (default: none)",
    )
    field.add_argument(
        "--threshold",
        type=number_between(1, 1000),
        default=5.0,
        metavar="X",
        help="signal-to-noise ratio of a source's peak, as of a point source (1 to 1000, default: 5)",
    )
    field.add_argument(
        "--shape-snr",
        type=positive_number,
        default=10.0,
        metavar="X",
        help="signal-to-noise ratio of the flux of galaxies whose shapes count (default: 10)",
    )
    field.add_argument(
        "--morphology-limit",
        type=finite_number,
        default=24.0,
        metavar="MAG",
        help="faintest AB magnitude, in the reference band, of galaxies whose morphology is asked for (default: 24)",
    )
    field.add_argument(
        "--most",
        type=whole_number(1, _MOST_IMAGES),
        default=2000,
        metavar="N",
        help="galaxies to measure on cutouts at each depth, for shapes and for morphology each (default: 2000)",
    )
    field.add_argument(
        "--seed",
        type=whole_number(0, 2**31 - 1),
        default=0,
        metavar="N",
        help="seed of new noise, and of which galaxies are measured (default: 0)",
    )
    field.add_argument("--out", type=Path, metavar="DIR", help="also write tables, a page and plots into this folder")
    field.set_defaults(run=_field)
    return parser


def _add_flux(parser: argparse.ArgumentParser) -> None:
    flux = parser.add_argument_group("flux", "FITS files in physical units; each of these asks for them")
    flux.add_argument("--flux", action="store_true", help="measure them so, all by what their headers say")
    flux.add_argument("--mask", type=Path, metavar="FILE", help="FITS image of bad pixels: what is not 0")
    flux.add_argument(
        "--weight", type=Path, metavar="FILE", help="FITS image of the weight of each pixel, a plane a band"
    )
    flux.add_argument(
        "--weight-is",
        choices=("ivar", "variance", "error", "weight"),
        default="ivar",
        help="what --weight holds: inverse variance, variance, or standard deviation, in the unit of the image; of a "
        "weight only 0 means something: no value (default: ivar)",
    )
    flux.add_argument(
        "--psf", type=Path, metavar="FILE", help="FITS image of the point spread function, a plane a band"
    )
    flux.add_argument(
        "--ext",
        default="",
        metavar="N",
        help="number from 0, or name, of the extension that is the galaxy (default: chosen by its content)",
    )
    of_bands = "; one value, or one a band (default: as the header says)"
    flux.add_argument("--bands", type=_texts, metavar="A,B", help="bands in the order of the planes, such as g,r,z")
    flux.add_argument(
        "--zero-point", type=finite_numbers, metavar="MAG", help=f"AB magnitude of a value of 1{of_bands}"
    )
    flux.add_argument(
        "--unit", type=_texts, metavar="UNIT", help=f"unit of the values, such as nJy or MJy/sr{of_bands}"
    )
    flux.add_argument("--pixel-scale", type=positive_numbers, metavar="ARCSEC", help=f"side of a pixel{of_bands}")
    flux.add_argument(
        "--psf-fwhm",
        type=positive_numbers,
        metavar="ARCSEC",
        help=f"width of the point spread function at half its peak{of_bands}",
    )
    flux.add_argument(
        "--flux-pixel",
        type=positive_number,
        metavar="ARCSEC",
        help="side of the pixels that values are the flux of, where the file was interpolated to another scale and the "
        "flux was not divided: 0.262 for cutouts of the Legacy Surveys (default: that of its pixels)",
    )
    flux.add_argument("--redshift", type=_redshift, metavar="Z", help="of the galaxy, for its size in kpc")


def _add_fits(parser: argparse.ArgumentParser) -> None:
    fits = parser.add_argument_group("FITS files", "what the headers of FITS cutouts do not say")
    of_bands = "; one value, or one a band (default: as the header says)"
    fits.add_argument("--bands", type=_texts, metavar="A,B", help="bands in the order of the planes, such as g,r,z")
    fits.add_argument(
        "--zero-point", type=finite_numbers, metavar="MAG", help=f"AB magnitude of a value of 1{of_bands}"
    )
    fits.add_argument("--unit", type=_texts, metavar="UNIT", help=f"unit of the values, such as nJy{of_bands}")
    fits.add_argument("--pixel-scale", type=positive_numbers, metavar="ARCSEC", help=f"side of a pixel{of_bands}")
    fits.add_argument(
        "--flux-pixel",
        type=positive_number,
        metavar="ARCSEC",
        help="side of the pixels that values are the flux of, where files were interpolated to another scale",
    )
    fits.add_argument(
        "--psf", type=Path, metavar="FILE", help="FITS file of the point spread function, an image a band"
    )
    fits.add_argument(
        "--psf-fwhm", type=positive_numbers, metavar="ARCSEC", help=f"width of the point spread function{of_bands}"
    )
    fits.add_argument(
        "--sky",
        choices=("auto", "subtract", "keep"),
        default="auto",
        help="take off the level of each cutout's border, or keep it (default: auto)",
    )


def _texts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _exposures(text: str) -> tuple[float, ...]:
    """Read exposure times in seconds, a thousandth of one to ten thousand years."""
    seconds = positive_numbers(text)
    for value in seconds:
        if not 1e-3 <= value <= 1e11:
            raise argparse.ArgumentTypeError(f"{value:g} is no exposure from 0.001 to 1e11 seconds")
    if len(seconds) > _MOST_EXPOSURES:
        raise argparse.ArgumentTypeError(f"{len(seconds)} exposures are more than {_MOST_EXPOSURES}")
    return seconds


def _redshift(text: str) -> float:
    if not 0 < (value := finite_number(text)) <= 20:
        raise argparse.ArgumentTypeError(f"{text} is no redshift above 0 and up to 20")
    return value


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset to compare with")
    _add_seed(parser)
    add_device_option(parser)


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="N", help="seed of every random draw (default: 0)"
    )


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(whole_number(1, 1_000_000)(word) for word in text.split(","))


def _lengths(text: str) -> tuple[float, ...]:
    read = number_between(0.01, 0.25)
    return tuple(dict.fromkeys(read(word) for word in text.split(",")))


def _report(options: argparse.Namespace) -> None:
    need_packages(*_NEEDED, *(_FOR_STATMORPH if options.statmorph else ()))
    commands.report(
        options.checkpoint,
        options.data,
        options.out,
        options.count,
        options.seed,
        options.device,
        options.statmorph,
        options.steps,
        solver_settings(options),
    )


def _sets(options: argparse.Namespace) -> None:
    need_packages(*_NEEDED)
    from galaxies.validation.set_reading import FitsOptions  # here, since it imports numpy

    told = {name: getattr(options, name) for name in _FITS_OPTIONS}
    commands.sets(
        options.reference,
        options.compare,
        options.out,
        options.count,
        options.seed,
        options.device,
        options.steps,
        options.crop,
        FitsOptions(**told),
    )


def _compare(options: argparse.Namespace) -> None:
    commands.compare(options.runs, options.out)


def _measure(options: argparse.Namespace) -> None:
    given = {name: getattr(options, name) for name in _FLUX_OPTIONS}
    if options.flux or any(given.values()):
        need_packages("astropy", "scipy")
        from galaxies.validation.flux_files import FluxOptions  # here, since it imports numpy

        failed = commands.measure_flux(options.images, options.out, FluxOptions(**given, weight_is=options.weight_is))
    else:
        failed = commands.measure(options.images, options.out)
    if failed:
        raise SystemExit(1)


def _validate(options: argparse.Namespace) -> None:
    need_packages("scipy")
    commands.validate(options.data, options.seed, options.device, options.out)


def _augmentation(options: argparse.Namespace) -> None:
    commands.augmentation(
        options.checkpoint,
        options.data,
        options.rare,
        options.counts,
        options.repetitions,
        options.steps,
        options.seed,
        options.device,
        options.out,
    )


def _average(options: argparse.Namespace) -> None:
    need_packages(*_NEEDED)
    commands.average(
        options.checkpoint,
        options.data,
        options.lengths,
        options.count,
        options.seed,
        options.device,
        solver_settings(options),
        options.out,
    )


def _field(options: argparse.Namespace) -> None:
    need_packages("sep", "astropy", "scipy", *(("matplotlib",) if options.out else ()))
    from galaxies.validation.field_evaluation import FieldSettings  # here, since it imports torch

    settings = FieldSettings(options.threshold, options.shape_snr, options.morphology_limit, options.most, options.seed)
    commands.field(options.field, options.compare_exposures, options.out, settings)


if __name__ == "__main__":
    run_script(main)
