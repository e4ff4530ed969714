"""Observe galaxies by any survey.

    python observe.py field --survey LSST --bands g,r,i --area 25 --seed 1 --out fields/lsst
    python observe.py field --survey Euclid_VIS --area 25 --exposure 565 --stars 2 --out fields/euclid
    python observe.py field --checkpoint checkpoints/flux/latest.pt --survey LSST --bands g,r,i --out fields/trained
    python observe.py galaxies --checkpoint checkpoints/flux/latest.pt --survey Euclid_VIS --exposure 565 \
        --morphology spiral --set magnitude_r=20.5 --format png,fits --out observed

`field` makes a mock field of the sky: galaxies in their numbers and stars, with the survey's PSF, pixels and noise.
Galaxies are those of the mock survey, or of a generator that was trained on flux with the telescope on.
The folder gets for each band BAND.fits (nJy a pixel, with the extensions NOISE, WEIGHT and PSF) and
noiseless_BAND.fits, segmentation.fits, truth.fits (a row a source), field.json and preview.png. What is in them
depends on the options alone, and not on the number of processes; with the same seed another survey sees galaxies of the
same places, magnitudes, sizes and redshifts. The same command goes on with a field that was interrupted. Under torchrun
each process paints its part, on several machines too, if DIR lies on a disk that they share:

    torchrun --nproc_per_node 8 observe.py field --survey LSST --bands g,r,i --area 3600 --out fields/degree

`galaxies` observes galaxies that are asked for as generate_from_checkpoint.py is. The folder gets what that writes,
with what photometry measures on the observed images, and observation.json, which says what observed them. Noise, like
the galaxy, follows from the seed: --noiseless and other surveys and exposures show the same galaxies.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from config_physics import Attribute
from galaxies.command_line import Parser, add_device_option, add_solver_options, run_script, solver_settings
from galaxies.common.errors import UserError, shown
from galaxies.common.parsing import MAX_SEED, finite_number, number_between, positive_number, whole_number
from galaxies.datasets.band_lists import band_names
from galaxies.generation.request_options import (
    add_request_options,
    attributes_of_user,
    read_request_options,
    with_values,
)

if TYPE_CHECKING:
    from galaxies.mock_field.painting import Sky
    from galaxies.telescope.surveys import Survey

_MOST_STARS = 1000.0
_MOST_BINNED = 1000  # pixels a side


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        own = attributes_of_user(words, _galaxies_parser()) if words[:1] == ["galaxies"] else ()
        options = _parser(own).parse_args(with_values(words, own))
    except UserError:
        if os.environ.get("RANK", "0") != "0":  # rank 0 of torchrun says it
            raise UserError("") from None
        raise
    options.run(options, " ".join(["observe.py", *(sys.argv[1:] if argv is None else argv)]))


def _parser(own: Sequence[Attribute] = ()) -> Parser:
    parser = Parser(prog="observe.py", description=__doc__)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    field = parsers.add_parser("field", help="make a mock field", description="Make a mock field of the sky.")
    field.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="a run's checkpoint or a release whose generator draws the galaxies (default: the mock survey does)",
    )
    field.add_argument(
        "--galaxies",
        choices=("mock",),
        help="what draws them: the mock survey's own (default, without --checkpoint)",
    )
    _add_survey_options(field)
    field.add_argument(
        "--area", type=positive_number, default=25.0, metavar="ARCMIN2", help="square arcminutes (default: 25)"
    )
    field.add_argument(
        "--faintest",
        type=number_between(18, 32),
        default=27.0,
        metavar="MAG",
        help="AB magnitude of the faintest sources, in the band nearest to i, 18 to 32 (default: 27)",
    )
    field.add_argument(
        "--counts",
        type=Path,
        metavar="CSV",
        help="draw galaxies from this catalogue: columns magnitude and perhaps size (half-light radius, arcsec) and "
        "redshift (default: counts of the LSST Science Book)",
    )
    field.add_argument(
        "--counts-area", type=positive_number, metavar="ARCMIN2", help="square arcminutes that the catalogue covers"
    )
    field.add_argument(
        "--clustering",
        choices=("off", "simple"),
        default="off",
        help="galaxies lie at random, or in clusters of all sizes whose two-point function is a power law, "
        "w = A (angle / 1 arcminute)^-0.7 (default: off)",
    )
    field.add_argument(
        "--clustering-amplitude",
        type=number_between(1e-4, 10),
        metavar="A",
        help="w at one arcminute, 0.0001 to 10 (default: that of galaxies of the median magnitude after "
        "Morganson & Blandford 2009)",
    )
    field.add_argument(
        "--stars",
        type=number_between(0, _MOST_STARS),
        default=0.0,
        metavar="PER_ARCMIN2",
        help="stars a square arcminute (default: 0)",
    )
    field.add_argument(
        "--seed", type=whole_number(0, MAX_SEED), default=0, metavar="N", help="of the sky and its noise (default: 0)"
    )
    field.add_argument(
        "--processes", type=whole_number(1, 61), default=1, metavar="N", help="that work side by side (default: 1)"
    )
    field.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    field.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a mock field that is there, and what is painted of one that was begun with other options",
    )
    add_device_option(field)
    add_solver_options(field)
    field.set_defaults(run=_field)
    galaxies = parsers.add_parser(
        "galaxies", help="observe requested galaxies", description="Observe requested galaxies of a trained generator."
    )
    _add_galaxies_options(galaxies, own)
    return parser


def _galaxies_parser() -> Parser:
    parser = Parser(prog="observe.py galaxies")
    _add_galaxies_options(parser, ())
    return parser


def _add_galaxies_options(galaxies: Parser, own: Sequence[Attribute]) -> None:
    _add_survey_options(galaxies)
    galaxies.add_argument(
        "--pixels",
        type=whole_number(8, 4096),
        metavar="N",
        help="of an image a side, 8 to 4096 (default: as few as cover the frame that the generator paints)",
    )
    galaxies.add_argument("--noiseless", action="store_true", help="leave out the noise")
    add_request_options(galaxies, None, own)
    add_device_option(galaxies)
    add_solver_options(galaxies)
    galaxies.set_defaults(run=_galaxies)


def _add_survey_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--survey", required=True, metavar="NAME", help="of surveycodex, such as LSST, or a .json file of one's own"
    )
    parser.add_argument("--bands", type=band_names, metavar="LIST", help="of the survey, such as g,r,i (default: all)")
    parser.add_argument(
        "--exposure",
        type=_exposure,
        metavar="SECONDS",
        help="of all bands, or of each as g=300,r=600 (default: the survey's own, at its end)",
    )
    parser.add_argument(
        "--bin",
        type=_binning,
        default=1,
        metavar="K",
        help="add up K by K of the survey's pixels in one, after reading, 1 to 1000, or auto: as few as make them no "
        "finer than a generator's light (default: 1)",
    )


def _survey(options: argparse.Namespace) -> Survey:
    from galaxies.telescope.surveys import find_survey

    survey = find_survey(options.survey, options.bands)
    return survey if options.exposure is None else survey.with_exposure(options.exposure)


def _galaxies(options: argparse.Namespace, command_line: str) -> None:
    asked = read_request_options(options)
    from galaxies.compute.ranks import Ranks
    from galaxies.generation.answering import answer
    from galaxies.generation.observed import ObservedSampler
    from galaxies.storage.release import default_checkpoint

    rank = Ranks.from_environment()
    survey = _survey(options)
    checkpoint = options.checkpoint or default_checkpoint(Path("checkpoints"))
    device, solver = rank.own_device(options.device), solver_settings(options)
    sampler = ObservedSampler.before(
        survey, checkpoint, device, options.pixels, not options.noiseless, options.bin, **solver
    )
    if options.checkpoint is None and rank.is_first:
        print(f"from {checkpoint}")
    answer(options, asked, sampler, checkpoint, rank)


def _field(options: argparse.Namespace, command_line: str) -> None:
    import torch

    from galaxies.compute.ranks import PATIENCE_WITH_PARTS, Ranks
    from galaxies.mock_field.making import make_field

    ranks = Ranks.from_environment()
    ranks.connect(torch.device("cpu"), PATIENCE_WITH_PARTS)  # whatever draws: they meet seldom, and with a few words
    device = ranks.own_device(options.device)
    said = make_field(
        lambda: _sky(options, device, command_line), options.out, options.processes, options.overwrite, ranks
    )
    if ranks.is_first:
        print(said)


def _sky(options: argparse.Namespace, device: str, command_line: str) -> Sky:
    """Return what a field shows; all that is wrong with the options is said here."""
    from galaxies.common.outputs import MOCK_FIELD, check_folder
    from galaxies.mock_field.clustering import Clusters, usual_amplitude
    from galaxies.mock_field.counts import CatalogueCounts, DeepCounts
    from galaxies.mock_field.making import facts_of, reference_of
    from galaxies.mock_field.painting import Sky
    from galaxies.mock_field.sources import LightSource, MockLight

    solver = solver_settings(options)
    if options.checkpoint and options.galaxies:
        raise UserError("--galaxies mock and --checkpoint each say what draws the galaxies: give one of them")
    if solver and not options.checkpoint:
        raise UserError(
            f"{', '.join(solver)} of a solver is there for a diffusion model: give its --checkpoint as well"
        )
    inputs = [path for path in (options.counts, options.checkpoint) if path]
    check_folder(options.out, MOCK_FIELD, inputs=inputs, overwrite=options.overwrite)
    if (options.counts is None) != (options.counts_area is None):
        raise UserError("--counts and --counts-area go together: the catalogue, and the area that it covers")
    survey = _survey(options)
    counts: CatalogueCounts | DeepCounts = DeepCounts(options.faintest)
    if options.counts is not None:
        counts = CatalogueCounts(options.counts, options.faintest, options.counts_area)
    if options.clustering_amplitude is not None and options.clustering == "off":
        raise UserError("--clustering-amplitude is of --clustering simple: give both, or none")
    clusters = None
    if options.clustering == "simple":
        amplitude = options.clustering_amplitude or usual_amplitude(counts.median_magnitude)
        clusters = Clusters(amplitude, counts.per_arcmin2)
    source: LightSource
    light_scale = 0.0
    if options.checkpoint:
        from galaxies.mock_field.trained_light import TrainedLight

        source = trained = TrainedLight(options.checkpoint, survey, reference_of(survey), device, options.bin, **solver)
        survey, light_scale = trained.survey, trained.light_scale
    else:
        survey = survey.binned(options.bin or 1)  # of the mock survey's galaxies light is as fine as need be
        source = MockLight(survey, reference_of(survey))
    about = counts.describe(), source.describe(), command_line
    facts = facts_of(survey, options.area, options.seed, options.faintest, *about, light_scale)
    return Sky(facts, survey.profile, survey.obscuration, source, counts, options.stars, clusters)


def _binning(text: str) -> int | None:
    """Read how many pixels a side are added up in one: None stands for as few as are needed."""
    return None if text.strip().lower() == "auto" else whole_number(1, _MOST_BINNED)(text)


def _exposure(text: str) -> float | dict[str, float]:
    """Read seconds, or seconds a band."""
    if "=" not in text:
        return finite_number(text)
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name in found:
            raise argparse.ArgumentTypeError(f"{shown(name)} is there twice")
        found[name] = finite_number(value)
    return found


if __name__ == "__main__":
    run_script(main)
