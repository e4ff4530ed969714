"""The options that ask for galaxies, which all scripts share that draw some: they are read without loading torch."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from config_physics import ATTRIBUTES, FLUX_ATTRIBUTES, MORPHOLOGY_NAMES, Attribute, attribute_of
from galaxies.common.attributes import attribute_defined
from galaxies.common.errors import UserError, shown
from galaxies.common.parsing import MAX_IMAGES, whole_number
from galaxies.generation.request_values import angle_value, attribute_value, count_value, given_twice, seed_value

SHARD_SIZE = 10_000  # up to as many images are one file each, or one archive; above, shards of as many
_FORMATS = ("png", "npz", "fits")
_SHARD_FORMATS = ("npy", "fits-table", "webdataset")


class Asked(NamedTuple):
    """What the options ask for, as far as it can be told without a checkpoint.

    formats: of the files of few images. shards: format of shards, if it is named. given: attributes that are set, in
    physical units.
    """

    formats: set[str]
    shards: str | None
    given: dict[str, float]


def attributes_of_user(argv: Sequence[str], parser: argparse.ArgumentParser) -> tuple[Attribute, ...]:
    """Return the attributes of a user's own that the checkpoint knows which a command line names, for their options.

    The checkpoint is looked at only where the command line has an option or sets an attribute that the program does not
    know, or asks for help and names a checkpoint.

    Raises
    ------
    UserError
        If neither the parser nor the checkpoint knows an option.
    """
    known = set(parser._option_string_actions)
    given = [word.partition("=")[0] for word in argv]
    strange = [word for word in given if word.startswith("--") and len(word) > 2 and word not in known]
    sets = [argv[k + 1] for k, word in enumerate(argv[:-1]) if word == "--set"]
    sets += [word.partition("=")[2] for word in argv if word.startswith("--set=")]
    unknown = [text for text in sets if attribute_of(text.partition("=")[0].strip()) is None]
    named = next((argv[k + 1] for k, word in enumerate(argv[:-1]) if word == "--checkpoint"), None)
    named = next((word.partition("=")[2] for word in argv if word.startswith("--checkpoint=")), named)
    asks = named is not None and not {"--help", "-h"}.isdisjoint(argv)
    if not strange and not unknown and not asks:
        return ()
    from galaxies.storage.release import find_checkpoints, peek_settings  # here, since it loads torch

    path = Path(named) if named is not None else next(iter(find_checkpoints(Path("checkpoints"))), None)
    if path is None:
        return ()
    try:
        settings = peek_settings(path)
        lines, names = settings.get("attribute_definitions", []), settings["attributes"]
        rows = tuple(row for row in map(attribute_defined, lines) if row.name in names)
    except (KeyError, TypeError, AttributeError):  # unchecked settings: what they are is said when all is read
        return ()
    options = {_option(row) for row in rows}
    if wrong := [word for word in strange if word not in options]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}, where {path} has the attributes {', '.join(names)}")
    return rows


def _option(attribute: Attribute) -> str:
    return f"--{attribute.name.replace('_', '-')}"


def add_request_options(parser: argparse.ArgumentParser, out: Path | None, own: Sequence[Attribute] = ()) -> None:
    """Add the options; `out` is the default of the output folder, None if it has to be given.

    `own` are attributes of a user's own that the checkpoint knows, see `attributes_of_user`.
    """
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
        help=f"class: {', '.join(MORPHOLOGY_NAMES)}, or those of the run's own data; of one class it may be left out. "
        "Of a run with --soft-classes also shares of sum 1, such as spiral:0.7,elliptical:0.3",
    )
    group = parser.add_argument_group("attributes", "Those that the checkpoint was trained with; unset ones are drawn.")
    parser.set_defaults(own_attributes=tuple(own))
    for attribute in (*own, *_attributes_with_options()):
        unit = f" [{attribute.unit}]" if attribute.unit else ""
        about = f"{attribute.label}{unit}, about {attribute.low:g} to {attribute.high:g}: {attribute.description}"
        group.add_argument(
            _option(attribute),
            dest=attribute.name,
            type=partial(attribute_value, attribute),
            action=_Once,
            metavar="VALUE",
            help=about.replace("%", "%%"),
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
        "color_BAND_BAND (mag), size_arcsec, ...; may be given for several. Columns of a user's own table have options "
        "of their names, which --checkpoint FILE --help lists",
    )
    parser.add_argument(
        "--draw",
        choices=("real", "copula"),
        help="draw attributes that are not set from real galaxies that resemble the request (real), or all attributes, "
        "and without --morphology the class, together: new ones, distributed and correlated as in the real galaxies, "
        "by a Gaussian copula (copula) (default: real)",
    )
    parser.add_argument("--count", type=count_value, action=_Once, metavar="N", help="number of images (default: 16)")
    parser.add_argument(
        "--seed", type=seed_value, action=_Once, default=0, metavar="N", help="seed of the first image (default: 0)"
    )
    parser.add_argument(
        "--requests",
        type=Path,
        metavar="FILE",
        help="table of any length, an image a row: morphology, attributes and optionally seed; CSV, Parquet or FITS",
    )
    parser.add_argument(
        "--format",
        metavar="LIST",
        help=f"up to {SHARD_SIZE:,} images as png, npz, fits, or several of these (default: png); or shards of any "
        "number as npy (arrays), fits-table (a row a galaxy) or webdataset (tar) (default: npy)",
    )
    parser.add_argument(
        "--catalogue-format", choices=("csv", "parquet"), help="of the catalogues of shards (default: csv)"
    )
    parser.add_argument(
        "--measure",
        choices=("on", "off"),
        help="have photometry measure the galaxies of shards for the catalogue (default: on)",
    )
    parser.add_argument(
        "--names",
        choices=("numbers", "requests"),
        help="call files galaxy_00000 and so on, or by class, values that are set, seed and model, as the page does "
        "(default: numbers)",
    )
    parser.add_argument(
        "--rgb",
        metavar="BANDS",
        help="bands of flux that pictures show as red, green and blue, such as i,r,g, or one for grey "
        "(default: i, r, g where there are these, else the longest, a middle and the shortest wavelength)",
    )
    parser.add_argument(
        "--shard-size",
        type=whole_number(1, MAX_IMAGES),
        metavar="N",
        help=f"write shards of N images (default: of {SHARD_SIZE:,} for more images than that, else none)",
    )
    said = "output folder" + ("" if out is None else f" (default: {out})")
    parser.add_argument("--out", type=Path, default=out, required=out is None, metavar="DIR", help=said)


def read_request_options(options: argparse.Namespace) -> Asked:
    """Return what the options ask for.

    Raises
    ------
    UserError
        If they do not go together, or a value is none.
    """
    (formats, shards), given = _formats(options.format or "png"), _given(options)
    alike = options.morphology or options.count is not None or options.position_angle is not None
    if options.requests is not None and (given or alike):
        raise UserError("--requests lists every image: it cannot be combined with --morphology, --count or attributes")
    if options.draw is not None and options.requests is not None:
        raise UserError("--draw is for galaxies that are not listed: leave it out, or --requests")
    if options.draw == "copula" and given:
        names = ", ".join(given)
        raise UserError(f"--draw copula draws all attributes together: leave it out, or the values of {names}")
    for option, needs, package in (
        ("--format fits", "fits" in formats, "astropy"),
        ("--format fits-table", shards == "fits-table", "astropy"),
        ("--catalogue-format parquet", options.catalogue_format == "parquet", "pyarrow"),
    ):
        if needs and importlib.util.find_spec(package) is None:
            raise UserError(f"{option} needs the package {package}: python -m pip install {package}")
    return Asked(formats, shards, given)


def with_values(argv: Sequence[str], own: Sequence[Attribute] = ()) -> list[str]:
    """Join an attribute's option with its value, which argparse takes for an option if it is -1e-3 or -inf."""
    options = {_option(attribute) for attribute in (*own, *_attributes_with_options())}
    options |= {"--seed", "--count", "--position-angle"}
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] in options and word.startswith("-") and not word.startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _attributes_with_options() -> list[Attribute]:
    return [*ATTRIBUTES.values(), FLUX_ATTRIBUTES["inclination"]]


def _given(options: argparse.Namespace) -> dict[str, float]:
    """Return the attributes that are set, by options of their own or by --set."""
    own = {attribute.name: attribute for attribute in options.own_attributes}
    names = [*own, *(attribute.name for attribute in _attributes_with_options())]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for text in options.set or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UserError(f"--set {shown(text)}: it takes an attribute and its value, such as magnitude_r=20.5")
        if (known := own.get(name) or attribute_of(name)) is None:
            raise UserError(f"--set {shown(text)}: there is no attribute {shown(name)}")
        if name in given:
            raise given_twice(name)
        given[name] = attribute_value(known, value)
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


def _formats(text: str) -> tuple[set[str], str | None]:
    """Return the formats of few images, or none and the one of shards."""
    formats = {name.strip() for name in text.split(",") if name.strip()}
    if len(formats) == 1 and formats <= set(_SHARD_FORMATS):
        return set(), formats.pop()
    if shards := formats & set(_SHARD_FORMATS):
        raise UserError(f"--format {text}: {min(shards)} is a format of shards, which have one format: name it alone")
    if not formats or not formats <= set(_FORMATS):
        raise UserError(
            f"--format {text}: choose from {', '.join(_FORMATS)}, separated by commas, or for shards one of "
            f"{', '.join(_SHARD_FORMATS)}"
        )
    return formats, None
