"""Generate galaxies with requested attributes from a checkpoint.

    python generate_from_checkpoint.py --checkpoint checkpoints/first/latest.pt --morphology spiral --count 16
    python generate_from_checkpoint.py --checkpoint checkpoints/first/latest.pt --requests wanted.csv --format png,fits
    python generate_from_checkpoint.py --checkpoint checkpoints/flux/latest.pt --set magnitude_r=20.5 \
        --set color_g_r=0.7 --format fits
    torchrun --nproc_per_node 8 generate_from_checkpoint.py --checkpoint checkpoints/first/latest.pt \
        --morphology spiral --count 1000000 --out mock

Attributes that are not set are drawn from real galaxies of the class. Image k depends on the checkpoint, on its
condition and on seed + k alone. The output folder gets grid.png, images/, images.npz and catalogue.csv, which
lists what was requested and what photometry measured on the image.

A run of flux draws nanojansky a pixel, a plane a band: npz and fits hold float32, the rows in the order of FITS, and
png a picture for people (Lupton et al. 2004), the first row below as FITS viewers show it.

More than 10,000 images are written in shards: images_00000.npy (uint8, N x 3 x S x S, of flux float32, N x B x S x S;
numpy.load(FILE, mmap_mode="r") reads it) with catalogue_00000.csv, and so on. The same command goes on where it was
stopped. Under torchrun each process writes its part of the shards; what is in them is the same for any number of
processes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from config_physics import ATTRIBUTES, FLUX_ATTRIBUTES, MORPHOLOGY_NAMES, Attribute, attribute_of
from galaxies.command_line import Parser, add_device_option, add_solver_options, run_script, solver_settings
from galaxies.common.errors import UserError, shown
from galaxies.common.parsing import MAX_IMAGES, whole_number
from galaxies.generation.request_values import angle_value, attribute_value, count_value, given_twice, seed_value

_FORMATS = ("png", "npz", "fits")
_SHARD_SIZE = 10_000  # up to as many images are one file each, or one archive; above, shards of as many


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(_with_values(sys.argv[1:] if argv is None else argv))
    formats = _formats(options.format or "png")
    given = _given(options)
    alike = options.morphology or options.count is not None or options.position_angle is not None
    if options.requests is not None and (given or alike):
        raise UserError("--requests lists every image: it cannot be combined with --morphology, --count or attributes")
    if "fits" in formats and importlib.util.find_spec("astropy") is None:
        raise UserError("--format fits needs the package astropy: python -m pip install astropy")
    # torch loads only after the options are known to be right
    from galaxies.compute.ranks import Ranks
    from galaxies.generation.catalogue import generate_pictures
    from galaxies.generation.requests import read_requests, requests_alike
    from galaxies.generation.sampler import GalaxySampler
    from galaxies.generation.shards import generate_shards
    from galaxies.images.composites import pictures_of_run
    from galaxies.storage.release import default_checkpoint

    rank = Ranks.from_environment()
    checkpoint = options.checkpoint or default_checkpoint(Path("checkpoints"))
    sampler = GalaxySampler.from_checkpoint(checkpoint, rank.own_device(options.device), **solver_settings(options))
    inputs = [path for path in (checkpoint, options.requests) if path is not None]
    if options.checkpoint is None and rank.is_first:
        print(f"from {checkpoint}")
    if options.rgb is not None:
        sampler.pictures = pictures_of_run(sampler.config, [name.strip() for name in options.rgb.split(",")])
    names, classes = sampler.config.attributes, sampler.config.classes
    if options.requests is not None:
        requests = read_requests(options.requests, names, options.seed, classes)
    else:
        count, angle = options.count or 16, options.position_angle
        requests = requests_alike(options.morphology, given, names, options.seed, count, classes, angle)
    if requests.position_angles is not None:
        sampler.check_turns()
    in_shards = options.shard_size is not None or len(requests) > _SHARD_SIZE or rank.size > 1
    if in_shards and options.format is not None:
        raise UserError(
            f"--format is for up to {_SHARD_SIZE:,} images that one process writes without --shard-size: "
            "shards are npy files"
        )
    if rank.is_first:
        for sentence in requests.warnings(sampler):
            print(f"warning: {sentence}", file=sys.stderr)
    if in_shards:
        size = options.shard_size or _SHARD_SIZE
        done = generate_shards(sampler, requests, options.out, size, checkpoint, rank, inputs)
    else:
        done = generate_pictures(sampler, requests, options.out, formats, inputs)
    if rank.is_first:
        print(done)


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="checkpoint of a training run, or a released generator.safetensors (default: the newest in checkpoints/)",
    )
    parser.add_argument(
        "--morphology",
        action=_Once,
        metavar="NAME",
        help=f"class: {', '.join(MORPHOLOGY_NAMES)}, or those of the run's own data; of one class it may be left out",
    )
    group = parser.add_argument_group("attributes", "Those that the checkpoint was trained with; unset ones are drawn.")
    for attribute in _attributes_with_options():
        unit = f" [{attribute.unit}]" if attribute.unit else ""
        group.add_argument(
            f"--{attribute.name.replace('_', '-')}",
            dest=attribute.name,
            type=partial(attribute_value, attribute.name),
            action=_Once,
            metavar="VALUE",
            help=f"{attribute.label}{unit}, about {attribute.low:g} to {attribute.high:g}: {attribute.description}",
        )
    group.add_argument(
        "--position-angle",
        type=angle_value,
        action=_Once,
        metavar="DEG",
        help="of the major axis [deg], -360 to 360 from +x (along rows) towards +y (down columns), of "
        "generators that turn galaxies onto the sky last: the same galaxies, turned (default: the seeds decide)",
    )
    group.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="any attribute, those of flux too: magnitude_BAND and surface_brightness_BAND (AB mag, mag/arcsec2), "
        "color_BAND_BAND (mag), size_arcsec, ...; may be given for several",
    )
    parser.add_argument("--count", type=count_value, action=_Once, metavar="N", help="number of images (default: 16)")
    parser.add_argument(
        "--seed", type=seed_value, action=_Once, default=0, metavar="N", help="seed of the first image (default: 0)"
    )
    parser.add_argument(
        "--requests", type=Path, metavar="CSV", help="one image a row: morphology, attributes and optionally seed"
    )
    parser.add_argument(
        "--format", metavar="LIST", help=f"up to {_SHARD_SIZE:,} images as png, npz, fits (default: png)"
    )
    parser.add_argument(
        "--rgb",
        metavar="BANDS",
        help="bands of a run of flux that pictures show as red, green and blue, such as i,r,g, or one for grey "
        "(default: i, r, g where there are these, else the longest, a middle and the shortest wavelength)",
    )
    parser.add_argument(
        "--shard-size",
        type=whole_number(1, MAX_IMAGES),
        metavar="N",
        help=f"write shards of N images (default: of {_SHARD_SIZE:,} for more images than that, else none)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("generated"), metavar="DIR", help="output folder (default: generated)"
    )
    add_device_option(parser)
    add_solver_options(parser)
    return parser


def _attributes_with_options() -> list[Attribute]:
    return [*ATTRIBUTES.values(), FLUX_ATTRIBUTES["inclination"]]


def _given(options: argparse.Namespace) -> dict[str, float]:
    """Return the attributes that are set, by options of their own or by --set."""
    names = [attribute.name for attribute in _attributes_with_options()]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for text in options.set or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UserError(f"--set {shown(text)}: it takes an attribute and its value, such as magnitude_r=20.5")
        if attribute_of(name) is None:
            raise UserError(f"--set {shown(text)}: there is no attribute {shown(name)}")
        if name in given:
            raise given_twice(name)
        given[name] = attribute_value(name, value)
    return given


class _Once(argparse.Action):
    """Keep an option's value, and refuse a second one, of which argparse would take the last without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        seen = vars(namespace).setdefault("seen", set())
        if self.dest in seen:
            raise given_twice(self.dest)
        seen.add(self.dest)
        setattr(namespace, self.dest, values)


def _with_values(argv: Sequence[str]) -> list[str]:
    """Join an attribute's option with its value, which argparse takes for an option if it is -1e-3 or -inf."""
    options = {f"--{attribute.name.replace('_', '-')}" for attribute in _attributes_with_options()}
    options |= {"--seed", "--count", "--position-angle"}
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in options and word.startswith("-") and not word.startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _formats(text: str) -> set[str]:
    formats = {name.strip() for name in text.split(",") if name.strip()}
    if not formats or not formats <= set(_FORMATS):
        raise UserError(f"--format {text}: choose from {', '.join(_FORMATS)}, separated by commas")
    return formats


if __name__ == "__main__":
    run_script(main)
