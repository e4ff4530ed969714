"""Read cutouts of science images of any instrument: FITS files, and a catalogue whose columns have any names."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from config_physics import BAND_NAME, FLUX_CATALOGUE_ATTRIBUTES, MOST_BANDS
from galaxies.common.errors import UserError, shown
from galaxies.common.origin import add_simulation_option, source_told
from galaxies.common.parsing import finite_numbers, positive_number, positive_numbers
from galaxies.datasets.band_lists import band_names
from galaxies.datasets.class_options import add_classes_option
from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.datasets.own_attributes import add_attribute_option
from galaxies.datasets.preparing import FluxSource
from galaxies.datasets.science_catalogue import NO_CLASS, Catalogue, column_names, read_catalogue
from galaxies.datasets.science_cutouts import (
    CutoutReader,
    FluxCutout,
    Galaxy,
    OpenQuestionError,
    Wanted,
    psf_frames,
    psf_size,
)
from galaxies.datasets.science_folders import Folder, GalaxyFiles, science_files, without_ending
from galaxies.images.fits_science import Maps, UnusableImageError, images_by_kind, named_planes, science_file
from galaxies.tables.class_rules import read_class_rules

if TYPE_CHECKING:
    from galaxies.datasets.flux_preparing import FluxBlock

_BLOCK = 64  # galaxies that are in memory at a time
_LOOKED_AT = 24  # galaxies by which it is seen whether a sky was left in
_MOST_MISSING = 0.5  # part of a band's pixels without a value
_SAID = 3  # examples in a sentence
SKIES = ("auto", "subtract", "keep")


# Options


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of FITS files (plain, .gz, .bz2, .xz, .fz): cubes of bands, one extension a band, or one file a "
        "band and galaxy with the band in its name or folder; or one file with an extension for each galaxy",
    )
    parser.add_argument(
        "--catalogue",
        type=Path,
        nargs="+",
        metavar="FILE",
        default=[],
        help="table of the galaxies: CSV, FITS, VOTable or Parquet; further ones add columns, by their ids (default: "
        "every file is a galaxy of one class)",
    )
    parser.add_argument(
        "--columns",
        type=column_names,
        metavar="NAME=COLUMN,…",
        default={},
        help="what the table's columns are called: object_id, morphology, image (file name), hdu (number from 0, or "
        "name), psf_image, psf_hdu, redshift, stellar_mass and other attributes, pixel_scale, zero_point, psf_fwhm, "
        "noise or noise_variance of a pixel in the files' unit (also with _BAND); any other name makes "
        "a further column of numbers (default: columns are called by these names)",
    )
    add_simulation_option(parser)
    add_classes_option(parser, "the table's columns", "the names in the column morphology, or one class without it")
    add_attribute_option(parser, "Columns that no option names are left out.")
    parser.add_argument(
        "--bands",
        type=band_names,
        metavar="A,B,…",
        help=f"bands in the order of the planes, up to {MOST_BANDS} (default: as the first file names them)",
    )
    of_bands = "; one value, or one a band (default: as the header says)"
    parser.add_argument(
        "--zero-point", type=finite_numbers, metavar="MAG", help=f"AB magnitude of a value of 1 in the files{of_bands}"
    )
    parser.add_argument(
        "--unit", type=_texts, metavar="UNIT", help=f"unit of the values, such as nJy, MJy/sr, nanomaggy{of_bands}"
    )
    parser.add_argument("--pixel-scale", type=positive_numbers, metavar="ARCSEC", help=f"side of a pixel{of_bands}")
    parser.add_argument(
        "--flux-pixel",
        type=positive_number,
        metavar="ARCSEC",
        help="side of the pixels that values are the flux of, where files were interpolated to another scale and the "
        "flux was not divided: 0.262 for cutouts of the Legacy Surveys (default: that of the files' pixels)",
    )
    parser.add_argument(
        "--psf",
        type=Path,
        metavar="FILE",
        help="FITS file of the point spread function, an image a band; or an extension a galaxy, which column psf_hdu "
        "names",
    )
    parser.add_argument(
        "--psf-scale", type=positive_number, metavar="ARCSEC", help="side of its pixels (default: as images)"
    )
    parser.add_argument(
        "--psf-fwhm",
        type=positive_numbers,
        metavar="ARCSEC",
        help=f"width of the point spread function at half its peak{of_bands}",
    )
    parser.add_argument(
        "--masks", type=Path, metavar="DIR", help="folder of masks, called as their images (non-zero pixels are bad)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="folder of maps called as their images; inverse variances, unless --weights-are says otherwise",
    )
    parser.add_argument(
        "--weights-are",
        choices=("ivar", "variance", "error", "weight"),
        default="ivar",
        help="what --weights holds; of a weight only 0 means something: no value (default: ivar)",
    )
    parser.add_argument(
        "--bad-bits", type=int, default=-1, metavar="N", help="bits of a mask that are bad (default: all)"
    )
    parser.add_argument("--good-masks", action="store_true", help="masks mark the good pixels, not the bad ones")
    parser.add_argument(
        "--framing",
        choices=("resample", "crop"),
        default="resample",
        help="how a cutout of other than --size pixels gets there: resample puts the whole on larger pixels, which "
        "each take the flux that falls on their area, so that flux is conserved and the pixel scale grows; crop keeps "
        "the pixels and cuts out the middle. A smaller cutout is never stretched: what it lacks is masked and filled "
        "in as sky (default: resample)",
    )
    parser.add_argument(
        "--scale",
        type=positive_number,
        metavar="ARCSEC",
        help="resample every cutout to pixels of this side, then crop",
    )
    parser.add_argument(
        "--sky",
        choices=SKIES,
        default="auto",
        help="take off the level of each cutout's border, or keep it; auto takes it off a band where most cutouts are "
        "above 0 by 5 times the noise even in their darkest corner, or below by its size (default: auto)",
    )


def _texts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _a_band(name: str, values: Sequence[Any] | None, bands: Sequence[str]) -> list[Any]:
    """Return one value of an option for each band."""
    if values is None:
        return [None] * len(bands)
    if len(values) not in (1, len(bands)):
        raise UserError(f"--{name} has {len(values)} values: give one, or one for each of the {len(bands)} bands")
    return list(values) * (len(bands) if len(values) == 1 else 1)


# Galaxies


def _bands_said(folder: Folder) -> tuple[str, ...]:
    """Return the bands that the first file of a folder that can be read names."""
    found: Counter[tuple[str, ...]] = Counter()
    question = f"{folder.path} does not say which bands its files show: name them with --bands, such as --bands g,r,z"
    for galaxy in folder.galaxies[:: max(1, len(folder.galaxies) // _LOOKED_AT)]:
        try:
            with science_file(galaxy.sky[""]) as file:
                names = tuple(name for name, _, _ in named_planes(file, images_by_kind(file, file.images())[0]))
        except UnusableImageError:
            continue
        found[names] += 1
    names, count = found.most_common(1)[0] if found else ((), 0)
    if 2 * count <= found.total() and len(found) > 1:
        some = " and ".join(", ".join(each) or "none" for each, _ in found.most_common(2))
        raise UserError(f"the files of {folder.path} name different bands, {some}: say with --bands which to take")
    if not names or any(not BAND_NAME.fullmatch(name) for name in names):
        raise UserError(question)
    if len(set(names)) < len(names) or len(names) > MOST_BANDS:
        raise UserError(question)
    return names


def _galaxies(
    folder: Folder, catalogue: Catalogue | None, psf: Path | None, bands: Sequence[str], tables: Sequence[Path]
) -> tuple[list[Galaxy], list[tuple[str, str, str]]]:
    """Match rows with files; return galaxies, and name, reason and detail of those without a picture."""
    if catalogue is None:
        pairs = zip(folder.ids(), folder.galaxies, strict=True)
        return [Galaxy(name, NO_CLASS, files) for name, files in pairs], []
    rows = catalogue.galaxies
    numbers = [name for name in rows if name not in ("object_id", "morphology", "image", "hdu", "psf_image", "psf_hdu")]
    alone = folder.galaxies[0] if len(folder.galaxies) == 1 else None
    in_turn = None
    if alone is not None and len(rows) > 1 and not {"hdu", "image"} & set(rows):
        of_rows = rows["object_id"].tolist()
        if all(folder.find(name) is None and folder.find_file(name) is None for name in of_rows):
            in_turn = _hdus_of(alone, of_rows)
    psfs = _psf_files([name for name in rows.get("psf_image", ()) if name], psf, folder.path)
    galaxies, without = [], []
    taken: dict[tuple[int, str], str] = {}
    for place, row in enumerate(rows.to_dict("records")):
        name = row["object_id"]
        try:
            where: int | None
            if alone is not None and (in_turn is not None or "hdu" in rows) and not row.get("image"):
                where = 0
            else:
                where = None if row.get("image") else folder.find(name)
                where = folder.find_file(row.get("image") or name) if where is None else where
        except UserError as error:
            without.append((name, "ambiguous name", str(error)))
            continue
        if where is None:
            without.append((name, "missing", f"no file of {shown(row.get('image') or name)}"))
            continue
        hdu = row.get("hdu") or (in_turn[place] if in_turn is not None else "")
        if other := taken.get((where, hdu)):
            without.append((name, "picture of another row", f"that of {shown(other)}"))
            continue
        taken[where, hdu] = name
        galaxies.append(
            Galaxy(
                name,
                row["morphology"],
                folder.galaxies[where],
                hdu,
                psfs.get(row.get("psf_image", ""), psf),
                row.get("psf_hdu") or "",
                {str(each): float(row[each]) for each in numbers},
            )
        )
    if not galaxies:
        files = ", ".join(shown(galaxy.name) for galaxy in folder.galaxies[:_SAID])
        ids = ", ".join(shown(name) for name in rows["object_id"][:_SAID])
        raise UserError(
            f"no galaxy of {tables[0]} has a file in {folder.path}: its ids are such as {ids}, and the files are of "
            f"{files}; name another column with --columns object_id=NAME or image=NAME"
        )
    if missing := [name for name, reason, _ in without if reason == "missing"]:
        some = ", ".join(shown(name) for name in missing[:_SAID]) + (", …" if len(missing) > _SAID else "")
        print(f"{len(missing)} of {len(rows)} rows find no file in {folder.path}: {some}")
    if spare := len(folder.galaxies) - len({id(galaxy.files) for galaxy in galaxies}):
        print(f"{spare} of {len(folder.galaxies)} galaxies in {folder.path} are in no row and left out")
    return galaxies, without


def _hdus_of(files: GalaxyFiles, ids: Sequence[str]) -> list[str]:
    """Return the extension of each galaxy in one file of all: that of its name, or of as many as there are in turn."""
    path = next(iter(files.sky.values()))
    with science_file(path) as file:
        images = [image for image in images_by_kind(file, file.images())[0] if image.num_planes() == 1]
    names = {image.name for image in images}
    if any(each.upper() in names for each in ids):
        return list(ids)
    if len(images) != len(ids):
        raise UserError(
            f"{path} holds {len(images)} images and the catalogue {len(ids)} galaxies: say which extension is whose "
            "with --columns hdu=NAME"
        )
    print(f"{path} holds as many images as the catalogue has rows, and is taken in the order of its extensions")
    return [str(image.number) for image in images]


def _psf_files(names: Sequence[str], psf: Path | None, folder: Path) -> dict[str, Path]:
    """Return the file of each name of a point spread function: that of --psf, or one of this name beside the images."""
    if psf is not None:
        return dict.fromkeys(names, psf)
    below = folder if folder.is_dir() else folder.parent
    beside = {key: file for file in science_files(below) for key in (without_ending(file.name), file.name)}
    found = {}
    for name in dict.fromkeys(names):
        last = name.replace("\\", "/").rpartition("/")[2]
        if (file := beside.get(last, beside.get(without_ending(last)))) is None:
            raise UserError(f"{below} holds no file {shown(name)} of a point spread function: name it with --psf")
        found[name] = file
    return found


# The dataset


def _write(options: argparse.Namespace, command_line: str) -> None:
    from galaxies.datasets.flux_preparing import write_flux  # here, since it imports torch

    beside = [(kind, path) for kind, path in (("mask", options.masks), (options.weights_are, options.weights)) if path]
    known = [*options.catalogue, *([options.psf] if options.psf else [])]
    folder = Folder(options.images, options.bands or (), beside, known)
    bands = options.bands or _bands_said(folder)
    if not options.bands:
        print(f"bands {', '.join(bands)}, as {next(iter(folder.galaxies[0].sky.values())).name} says")
    if folder.strays:
        print(f"{len(folder.strays)} maps belong to no image, such as {folder.strays[0]}")
    for _, maps in beside:
        _say_without(folder, maps)
    layout = DataLayout("flux", tuple(map(FluxBand.named, bands)), (NO_CLASS,))
    catalogue = None
    if options.catalogue:
        measured = [name for name in layout.attributes if name not in FLUX_CATALOGUE_ATTRIBUTES]
        rules = None if options.classes is None else read_class_rules(options.classes)
        catalogue = read_catalogue(
            *(options.catalogue, options.columns, bands, measured, rules, options.allow_empty_class),
            options.attribute or (),
        )
        layout = replace(layout.with_classes(catalogue.classes), own=catalogue.own)
    elif options.attribute:
        raise UserError("--attribute tells of a table's column: give it with --catalogue")
    elif options.classes is not None:
        raise UserError("--classes makes classes of a table's columns: give it with --catalogue")
    elif options.columns:
        raise UserError("--columns names columns of a table: give it with --catalogue")
    galaxies, without = _galaxies(folder, catalogue, options.psf, bands, options.catalogue)
    if options.limit is not None and options.limit < len(galaxies):
        chosen = np.linspace(0, len(galaxies) - 1, options.limit).round().astype(int)
        galaxies = [galaxies[place] for place in chosen]
    wanted = Wanted(
        bands,
        options.size,
        _a_band("zero-point", options.zero_point, bands),
        _a_band("pixel-scale", options.pixel_scale, bands),
        _a_band("psf-fwhm", options.psf_fwhm, bands),
        _a_band("unit", options.unit, bands),
        options.psf,
        options.psf_scale,
        options.flux_pixel,
        options.framing == "crop",
        options.scale,
        [options.sky == "subtract"] * len(bands),
        Maps(options.bad_bits, options.good_masks),
    )
    if options.sky == "auto":
        wanted = wanted._replace(subtract=_skies_left(galaxies, wanted))
    source = source_told(f"{options.images}" + "".join(f" with {table}" for table in options.catalogue), options)
    kept = ("framing", "scale", "sky")
    provenance = {"source": source, "rule": options.classes or "fits", "command_line": command_line}
    provenance |= {name: getattr(options, name) for name in kept}
    attributes = [] if catalogue is None else list(catalogue.attributes)
    extras = [] if catalogue is None else list(catalogue.extras)
    with CutoutReader(wanted) as reader:
        write_flux(
            _blocks(reader, galaxies, without, [*attributes, *extras]),
            options.out,
            options.size,
            layout,
            provenance,
            extra_columns=extras,
            overwrite=options.overwrite,
            allow_empty_class=options.allow_empty_class,
            inputs=[
                options.images,
                *options.catalogue,
                *(path for path in (options.psf, *dict(beside).values()) if path),
            ],
            total=len(galaxies),
            unused=0 if catalogue is None else catalogue.unused,
            most_missing=1.0,  # of what a frame is larger than its cutout; the cutout's own pixels are looked at here
            say=lambda: _say(reader),
        )


def _say_without(folder: Folder, maps: Path) -> None:
    """Say how many images have no map in a folder that was named for maps, and refuse it where that is all of them."""
    without = [
        galaxy.name
        for galaxy in folder.galaxies
        if not any(maps in (file, *file.parents) for _, _, file in galaxy.maps)  # as named: files may be links
    ]
    if len(without) == len(folder.galaxies):
        raise UserError(f"{maps} holds no map that is called as an image of {folder.path}")
    if without:
        print(f"{len(without)} images have no map in {maps}, such as {shown(without[0])}")


def _skies_left(galaxies: Sequence[Galaxy], wanted: Wanted) -> list[bool]:
    """Say of each band whether its sky was left in most of some galaxies, and print it."""
    left = np.zeros((0, len(wanted.bands)), bool)
    with CutoutReader(wanted) as reader:
        for galaxy in galaxies[:: -(-len(galaxies) // _LOOKED_AT)]:
            try:
                levels = reader.sky_of(galaxy)
            except UnusableImageError:
                continue
            left = np.concatenate([left, [[level.is_left for level in levels]]])
    taken = [bool(len(left)) and 2 * int(column.sum()) > len(left) for column in left.T]
    if any(taken):
        names = ", ".join(name for name, take in zip(wanted.bands, taken, strict=True) if take)
        print(f"the sky was left in, or too much taken off, in band {names}: its level is taken off (--sky keep: not)")
    return taken


def _blocks(
    reader: CutoutReader,
    galaxies: Sequence[Galaxy],
    without: Sequence[tuple[str, str, str]],
    columns: Sequence[str],
) -> Iterator[FluxBlock]:
    from galaxies.datasets.flux_preparing import FluxBlock

    size = reader.wanted.size
    psf_px = 0
    rejected = list(without)
    block: list[tuple[Galaxy, FluxCutout]] = []

    def full() -> FluxBlock:
        cutouts = [cutout for _, cutout in block]
        psfs = None
        if cutouts and cutouts[0].psfs is not None:
            psfs = np.stack([psf_frames(cutout.psfs or [], psf_px) for cutout in cutouts])
        made = FluxBlock(
            np.stack([cutout.image for cutout in cutouts]) if cutouts else np.empty((0, 1, size, size), np.float32),
            [galaxy.object_id for galaxy, _ in block],
            [galaxy.morphology for galaxy, _ in block],
            np.array([cutout.pixel_scale for cutout in cutouts]),
            np.array([cutout.noise for cutout in cutouts]),
            np.array([cutout.psf_fwhm for cutout in cutouts]),
            {name: np.array([galaxy.numbers[name] for galaxy, _ in block]) for name in columns},
            psfs,
            list(rejected),
        )
        block.clear()
        rejected.clear()
        return made

    for galaxy in galaxies:
        try:
            cutout = reader.read(galaxy)
        except OpenQuestionError:
            raise
        except UnusableImageError as error:
            rejected.append((galaxy.object_id, error.reason, str(error)))
            continue
        if cutout.missing > _MOST_MISSING:
            part = f"{100 * cutout.missing:.0f} % of a band's pixels have none"
            rejected.append((galaxy.object_id, "too few pixels with a value", part))
            continue
        if block and (len(block) == _BLOCK or (block[0][1].psfs is None) != (cutout.psfs is None)):
            yield full()
        if cutout.psfs is not None and not psf_px:
            psf_px = psf_size(cutout.psfs, size)
        block.append((galaxy, cutout))
    yield full()


def _say(reader: CutoutReader) -> None:
    """Print by what the flux is known, and what was found in how many galaxies."""
    known = {band: counts for band, counts in reader.calibrations.items() if counts}
    ways = {", ".join(how for how, _ in counts.most_common(_SAID)) for counts in known.values()}
    if len(ways) == 1:
        print(f"flux by {next(iter(ways))}")
    else:
        for band, counts in known.items():
            print(f"flux of band {band} by {', '.join(how for how, _ in counts.most_common(_SAID))}")
    for remark, count in reader.remarks.most_common():
        print(f"{count} galaxies {remark}" + (f" ({reader.hits} pixels)" if "single pixels" in remark else ""))


SOURCE = FluxSource("prepare FITS cutouts of any instrument, in nanojansky", _add_options, _write)
