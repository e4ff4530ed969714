"""Find the galaxies in large frames of the sky, one frame a band, and cut them out.

    python prepare_data.py field --frames u.fits g.fits r.fits --bands u,g,r --zero-point 0 --pixel-scale 0.339 \
        --out data/field

The frames are read by sections, so that they may have any size. Level and noise of the sky are mapped, sources are
detected on all bands together, stars are told from galaxies by their size, the point spread function of each band is
measured on the stars, and each galaxy is cut out of all bands with what lies beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config_physics import BAND_NAME, FLUX_CATALOGUE_ATTRIBUTES, MOST_BANDS, morphologies_of
from galaxies.common.errors import UserError, shown
from galaxies.common.origin import source_told
from galaxies.datasets.field.cutouts import centred_area, cut, section_order
from galaxies.datasets.field.detection import SourceMap, Sources, detect
from galaxies.datasets.field.frames import Frame, Plane, open_frame
from galaxies.datasets.field.grids import on_one_grid
from galaxies.datasets.field.options import add_options
from galaxies.datasets.field.positions import Positions, centred_on, read_positions, to_sky
from galaxies.datasets.field.sky import SkyMap, map_sky
from galaxies.datasets.field.stars import (
    DEFECT,
    GALAXY,
    STAR,
    UNCLEAR,
    BandPsf,
    measure_psfs,
    rough_width,
    tell_apart,
)
from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.datasets.preparing import FluxSource
from galaxies.datasets.science_catalogue import NO_CLASS
from galaxies.images.bands import band_in
from galaxies.tables.class_rules import read_class_rules

_LEFT_OUT = {
    STAR: "stars",
    UNCLEAR: "not to be told from a star or from its halo",
    DEFECT: "in one band only, as cosmic rays are",
}
_EXTRA = ("x", "y", "ra", "dec", "snr", "excess")


class _Field(NamedTuple):
    """Frames on one grid, and what is known of the grid."""

    planes: list[Plane]
    frames: list[Frame]
    grid: Frame
    pixel_scale: float


class _Found(NamedTuple):
    """Galaxies to be cut out: their sources, how far they exceed a star's size, and what a catalogue says of them."""

    sources: Sources
    excess: np.ndarray
    object_ids: list[str]
    morphologies: list[str]
    values: dict[str, np.ndarray]


def _write(options: argparse.Namespace, command_line: str) -> None:
    from galaxies.datasets.flux_preparing import write_flux  # here, since it imports torch

    for package in ("astropy", "scipy", "sep", "reproject"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"frames need the package {package}: python -m pip install -r requirements.txt")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="field_", ignore_cleanup_errors=True)))
        if options.columns and options.catalogue is None:
            raise UserError("--columns names columns of a table: give it with --catalogue")
        if options.classes is not None and options.catalogue is None:
            raise UserError("--classes makes classes of a table's columns: give it with --catalogue")
        rules = None if options.classes is None else read_class_rules(options.classes)
        field = _opened(options, folder, stack)
        catalogue = None
        if options.catalogue is not None:
            measured = [*_EXTRA, *DataLayout("flux", _bands(field)).columns, "split"]
            catalogue = read_positions(
                options.catalogue,
                options.columns,
                field.grid.wcs,
                field.grid.shape,
                options.first_pixel,
                measured,
                rules,
                options.allow_empty_class,
            )
            print(f"{len(catalogue.x)} of the {catalogue.num_rows} positions of {options.catalogue} lie in the frame")
        source_map = SourceMap(folder / "sources.npy", field.grid.shape)
        looked_at = _bands_of(options.detect, field, "--detect")
        skies = [map_sky(plane, options.sky_box) for plane in field.planes]
        sources = detect(
            [field.planes[k] for k in looked_at], [skies[k] for k in looked_at], options.deblend, source_map
        )
        skies = [map_sky(plane, options.sky_box, source_map.read) for plane in field.planes]
        found, psfs, counts = _galaxies(options, field, skies, sources, catalogue)
        for line in _summary(field, skies, psfs):
            print(line)
        print("; ".join(f"{count} {what}" for what, count in counts.items()))
        own = [] if catalogue is None else [name for name in catalogue.values if name not in FLUX_CATALOGUE_ATTRIBUTES]
        provenance = {
            "source": source_told(
                f"{', '.join(str(frame.path) for frame in field.frames)}"
                + (f" with {options.catalogue}" if options.catalogue else ""),
                options,
            ),
            "rule": options.classes or "field",
            "command_line": command_line,
            "calibration": {f.band: f.calibration.how for f in field.frames if f.calibration is not None},
            "stars_of_psf": {plane.band: psf.num_stars for plane, psf in zip(field.planes, psfs, strict=True)},
            "noise_shared": {plane.band: round(sky.sharing, 3) for plane, sky in zip(field.planes, skies, strict=True)},
            "sources": counts,
        }
        given = [*options.frames, *(options.mask or ()), *(options.weight or ())]
        write_flux(
            _blocks(field, skies, psfs, found, options.size),
            options.out,
            options.size,
            DataLayout("flux", _bands(field), (NO_CLASS,)).with_classes(
                morphologies_of((NO_CLASS,)) if catalogue is None else catalogue.classes
            ),
            provenance,
            extra_columns=[name for name in _EXTRA if name not in ("ra", "dec") or field.grid.wcs is not None] + own,
            overwrite=options.overwrite,
            allow_empty_class=options.allow_empty_class,
            inputs=given + ([options.catalogue] if options.catalogue else []),
            total=found.sources.num_sources,
        )


def _bands(field: _Field) -> tuple[FluxBand, ...]:
    return tuple(FluxBand.named(plane.band) for plane in field.planes)


# Frames


def _opened(options: argparse.Namespace, folder: Path, stack: ExitStack) -> _Field:
    """Open the frames, find their bands and units, and bring them on one grid."""
    count = len(options.frames)
    extensions = _one_each(options.ext, count, "--ext", "frames")
    if options.bands is not None and len(options.bands) != count:
        raise UserError(f"{count} frames and {len(options.bands)} bands ({', '.join(options.bands)}): give one a frame")
    if count > MOST_BANDS:
        raise UserError(f"{count} frames, and {MOST_BANDS} bands are the most")
    names = options.bands or [""] * count
    frames = [
        open_frame(path, band, ext, folder, stack)
        for path, band, ext in zip(options.frames, names, extensions, strict=True)
    ]
    _name_bands(frames, options.bands is not None)
    grid = frames[_bands_of(options.grid, frames, "--grid")[0]]
    scale = options.pixel_scale or grid.pixel_scale
    if scale is None:
        raise UserError(f"{grid.path} does not say how large its pixels are: give --pixel-scale in arcseconds")
    if options.pixel_scale and grid.pixel_scale and abs(options.pixel_scale / grid.pixel_scale - 1) > 0.01:
        print(f"--pixel-scale {options.pixel_scale:g} is taken, where {grid.path} says {grid.pixel_scale:.4g}")
    zero_points = _one_each(options.zero_point, count, "--zero-point", "frames")
    for frame, zero_point in zip(frames, zero_points, strict=True):
        frame.calibrate(zero_point, options.unit, options.pixel_scale or frame.pixel_scale)
    _mask(frames, options, folder, stack)
    planes, notes = on_one_grid(frames, grid, folder)
    for note in notes:
        print(note)
    return _Field(planes, frames, grid, scale)


def _name_bands(frames: Sequence[Frame], given: bool) -> None:
    """Give frames without a band the one that their header says; say where a header says another."""
    for frame in frames:
        said = next((str(frame.header[card]) for card in ("FILTER", "BAND", "FILTNAM") if card in frame.header), "")
        known = band_in(said)
        if not given:
            if known is None or not BAND_NAME.fullmatch(known.name):
                what = f"says FILTER {shown(said)}" if said else "does not say its band"
                raise UserError(f"{frame.path} {what}: name the bands of the frames with --bands")
            frame.band = known.name
        elif known is not None and known.name.lower() != frame.band.lower():
            print(f"{frame.path} says FILTER {shown(said)}, and is taken as band {frame.band} as --bands says")
    bands = [frame.band for frame in frames]
    if twice := next((band for band in bands if bands.count(band) > 1), None):
        first, second = [frame.path for frame in frames if frame.band == twice][:2]
        where = "--bands" if given else "their headers"
        raise UserError(f"{first} and {second} are both of band {twice} by {where}: name them with --bands")
    if not given:
        print(f"bands by the headers: {', '.join(f'{frame.path.name} {frame.band}' for frame in frames)}")


def _bands_of(names: Sequence[str] | None, frames: Sequence[Frame] | _Field, option: str) -> list[int]:
    """Return the places of bands that an option names; of the detection all, of the grid the first, by default."""
    known = [frame.band for frame in (frames.frames if isinstance(frames, _Field) else frames)]
    if names is None:
        return list(range(len(known)))
    if strange := [name for name in names if name not in known]:
        raise UserError(f"{option} names {shown(strange[0])}, and the bands are {', '.join(known)}")
    return [known.index(name) for name in names]


def _one_each(values: Sequence | None, count: int, option: str, what: str) -> list:
    """Return a value for each of several, given one, none, or one each."""
    if values is None:
        return [None] * count
    if len(values) not in (1, count):
        raise UserError(f"{option} has {len(values)} values for {count} {what}: give one, or one each")
    return list(values) * (count if len(values) == 1 else 1)


def _mask(frames: Sequence[Frame], options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
    """Let frames pass over what a mask or weight map says is bad."""
    for paths, option, bad in (
        (options.mask, "--mask", lambda values: values != 0),
        (options.weight, "--weight", lambda values: ~(values > 0)),
    ):
        maps = _one_each(paths, len(frames), option, "frames")
        for frame, path in zip(frames, maps, strict=True):
            if path is not None:
                _mask_one(frame, path, open_frame(path, "", None, folder, stack, is_map=True), bad)


def _mask_one(frame: Frame, path: Path, image: Frame, bad: Callable[[np.ndarray], np.ndarray]) -> None:
    if image.shape != frame.shape:
        raise UserError(
            f"{path} has {image.shape[1]} x {image.shape[0]} pixels, and {frame.path} has "
            f"{frame.shape[1]} x {frame.shape[0]}: give a map of the same"
        )
    frame.mask_with(lambda area: bad(image.values(area)))


# Galaxies


def _galaxies(
    options: argparse.Namespace,
    field: _Field,
    skies: Sequence[SkyMap],
    sources: Sources,
    catalogue: Positions | None,
) -> tuple[_Found, list[BandPsf], dict[str, int]]:
    """Tell galaxies from stars; return those to be cut out, the PSFs, and how many there were of what."""
    limits = [_saturation(frame) for frame in field.frames]
    shapes, loci, kinds, excess = tell_apart(field.planes, skies, sources, limits)
    psfs = measure_psfs(field.planes, skies, sources, shapes, kinds == STAR, loci)
    counts = {"sources detected": sources.num_sources}
    if all(locus is None for locus in loci):
        print("no line of stars stands out: nothing can be told from a star by its size, and no PSF is measured")
        kinds[kinds != DEFECT] = GALAXY
    if catalogue is not None:
        listed, excess, kinds = _as_listed(options, sources, excess, kinds, catalogue)
        keep = kinds != STAR
        counts["in the catalogue"] = len(catalogue.x)
        counts["stars"] = int((~keep).sum())
    else:
        listed = sources
        bright = sources.snr >= options.min_snr
        counts[f"below a signal over noise of {options.min_snr:g}"] = int((~bright).sum())
        for kind, what in _LEFT_OUT.items():
            counts[what] = int((bright & (kinds == kind)).sum())
        keep = bright & (kinds == GALAXY)
    inside = np.array([_is_inside(x, y, options.size, field.grid.shape) for x, y in zip(listed.x, listed.y)], bool)  # noqa: B905
    counts["at the edge of the frame"] = int((keep & ~inside).sum())
    rows = np.flatnonzero(keep & inside)
    counts["galaxies"] = len(rows)
    if not len(rows):
        raise UserError(f"no galaxy is left to cut out ({'; '.join(f'{n} {what}' for what, n in counts.items())})")
    if options.limit is not None and options.limit < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, options.limit).round().astype(int)]
    ids = [catalogue.object_ids[row] for row in rows] if catalogue and catalogue.object_ids else None
    classes = [catalogue.morphologies[row] for row in rows] if catalogue and catalogue.morphologies else None
    values = {name: column[rows] for name, column in catalogue.values.items()} if catalogue else {}
    chosen = listed.chosen(rows)
    return (
        _Found(
            chosen,
            excess[rows],
            ids or _names(chosen, field.grid.wcs, options.out.resolve().name),
            classes or [NO_CLASS] * len(rows),
            values,
        ),
        psfs,
        counts,
    )


def _as_listed(
    options: argparse.Namespace,
    sources: Sources,
    excess: np.ndarray,
    kinds: np.ndarray,
    catalogue: Positions,
) -> tuple[Sources, np.ndarray, np.ndarray]:
    """Return the sources, their excess and kind, in the order of a catalogue's galaxies.

    Where a source was detected within a star's width of the position, its centre is taken. By size only what is clearly
    a star is called one; what the catalogue says of stars decides.
    """
    match = centred_on(sources, catalogue.x, catalogue.y, max(rough_width(sources), 2.0))
    seen = match >= 0
    listed = sources.chosen(np.where(seen, match, 0))
    x, y = np.where(seen, listed.x, catalogue.x), np.where(seen, listed.y, catalogue.y)
    listed = listed._replace(x=x, y=y, snr=np.where(seen, listed.snr, np.nan).astype(np.float32))
    print(
        f"{int(seen.sum())} of {len(seen)} are centred on a source that was detected, the others as the catalogue says"
    )
    of_catalogue = np.where(seen, kinds[match], UNCLEAR)
    if catalogue.is_star is not None:
        of_catalogue = np.where(catalogue.is_star, STAR, GALAXY)
    elif options.keep_stars:
        of_catalogue[:] = GALAXY
    return listed, np.where(seen, excess[match], np.nan), of_catalogue


def _saturation(frame: Frame) -> float | None:
    """Return the level at which the camera saturates in nJy, if the header says it."""
    level = frame.header.get("SATURATE", frame.header.get("SATLEVEL"))
    if frame.calibration is None or not isinstance(level, int | float) or not level > 0:
        return None
    return float(level) * frame.calibration.factor


def _is_inside(x: float, y: float, size: int, shape: tuple[int, int]) -> bool:
    area = centred_area(float(x), float(y), size)
    return area.within(shape) == area


def _names(sources: Sources, wcs: object, field: str) -> list[str]:
    """Return ids: by position in the sky where it is known, else by position in the field."""
    if wcs is None:
        return [f"{field}_x{x + 1:07.1f}_y{y + 1:07.1f}" for x, y in zip(sources.x, sources.y, strict=True)]
    ra, dec = to_sky(wcs, sources.x, sources.y)
    return [_sky_name(a, d) for a, d in zip(ra.tolist(), dec.tolist(), strict=True)]


def _sky_name(ra: float, dec: float) -> str:
    """Return JHHMMSS.sss+DDMMSS.ss, cut and not rounded, as the IAU has names of sources."""
    seconds, arcseconds = int(ra % 360 / 15 * 3600 * 1000), int(abs(dec) * 3600 * 100)
    hours, rest = divmod(seconds, 3600 * 1000)
    degrees, left = divmod(arcseconds, 3600 * 100)
    sign = "-" if dec < 0 else "+"
    return (
        f"J{hours:02d}{rest // 60_000:02d}{rest % 60_000 / 1000:06.3f}"
        f"{sign}{degrees:02d}{left // 6000:02d}{left % 6000 / 100:05.2f}"
    )


# The dataset


def _summary(field: _Field, skies: Sequence[SkyMap], psfs: Sequence[BandPsf]) -> Iterator[str]:
    for frame, sky, psf in zip(field.frames, skies, psfs, strict=True):
        noise = float(np.median(sky.noise_mesh))
        blur = f'PSF {psf.fwhm * field.pixel_scale:.2f}" by {psf.num_stars} stars' if psf.num_stars else "PSF unknown"
        how = frame.calibration.how if frame.calibration is not None else ""
        yield f"band {frame.band}: {how}, noise {noise:.3g} nJy a pixel, {blur}"


def _blocks(field: _Field, skies: Sequence[SkyMap], psfs: Sequence[BandPsf], found: _Found, size: int) -> Iterator:
    from galaxies.datasets.flux_preparing import FluxBlock

    fwhm = np.array([psf.fwhm for psf in psfs]) * field.pixel_scale
    images = _one_size(psfs)
    # Positions as FITS counts them, from 1.
    columns = {"x": found.sources.x + 1, "y": found.sources.y + 1, "snr": found.sources.snr, "excess": found.excess}
    columns |= found.values
    if field.grid.wcs is not None:
        columns["ra"], columns["dec"] = to_sky(field.grid.wcs, found.sources.x, found.sources.y)
    for rows in section_order(found.sources.x, found.sources.y, field.grid.shape):
        x, y = found.sources.x[rows], found.sources.y[rows]
        cutouts = np.stack(list(cut(field.planes, skies, x, y, size)), axis=1)
        yield FluxBlock(
            images=cutouts,
            object_ids=[found.object_ids[row] for row in rows.tolist()],
            morphologies=[found.morphologies[row] for row in rows.tolist()],
            pixel_scale=np.full(len(rows), field.pixel_scale),
            noise=np.stack([sky.noise_at(y, x) for sky in skies], axis=1),
            psf_fwhm=np.tile(fwhm, (len(rows), 1)),
            values={name: np.asarray(column)[rows] for name, column in columns.items()},
            psfs=images,
        )


def _one_size(psfs: Sequence[BandPsf]) -> np.ndarray | None:
    """Return PSF images (1, B, P, P), or None where a band has none."""
    if any(not psf.image.size for psf in psfs):
        return None
    side = max(len(psf.image) for psf in psfs)
    return np.stack([np.pad(psf.image, (side - len(psf.image)) // 2) for psf in psfs])[None]


SOURCE = FluxSource("find galaxies in frames of the sky, one a band", add_options, _write)
