"""Make a mock field: paint its cells in one or several processes, add noise, write the truth, and show it.

Painted cells are kept until all are there (`painted_cells.py`), and then added to the files in their order, whatever
process painted them and when, so that sums round the same; noise is a function of the seed, the band and the row. So
the files have the same bytes for any number of processes and ranks, and after interruptions; memory does not depend on
the area.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from config_physics import AB_ZERO_POINT
from galaxies.common.durable_files import free_space, plain_errors
from galaxies.common.errors import UserError
from galaxies.common.outputs import MOCK_FIELD, output_folder
from galaxies.common.signals import exits_when_terminated
from galaxies.compute.ranks import LostRankError, Ranks
from galaxies.compute.seeded_noise import random_words, standard_normal
from galaxies.compute.worker_processes import stream_on_processes
from galaxies.images.composites import LuptonComposite
from galaxies.images.grids import save_picture
from galaxies.mock_field.field_files import CENTRE_DEG, FieldFiles, Plane, bytes_of_field
from galaxies.mock_field.field_folder import MOST_PX, PREVIEW, FieldBand, FieldFacts, world_coordinates
from galaxies.mock_field.painted_cells import Cell, PaintedCells, bytes_of_cell, settings_of
from galaxies.mock_field.painting import Picture, Sky, paint
from galaxies.telescope.surveys import Survey

_ROWS_PX = 1 << 20  # pixels that noise is added to at a time
_PSF_WIDTHS = 12.0  # that the picture of a PSF is wide
_PREVIEW_PX = 1500  # a side, at most about
_REFERENCE_NM = 754.0  # of i, in which the default counts are
_NOISE_STREAM = 7


def reference_of(survey: Survey) -> int:
    """Return the place of a survey's band in which magnitudes are asked for: the one nearest to i."""
    far = [abs(band.wavelength_nm - _REFERENCE_NM) for band in survey.bands]
    return far.index(min(far))


def facts_of(
    survey: Survey,
    area_arcmin2: float,
    seed: int,
    faintest: float,
    counts: str,
    source: str,
    command_line: str,
    light_scale: float = 0.0,
) -> FieldFacts:
    """Return what a square field of a survey is; of galaxies whose light has pixels of a scale, arcseconds.

    Raises
    ------
    UserError
        If it would have no pixel, or more than there are numbers for.
    """
    side = round(math.sqrt(area_arcmin2 * 3600) / survey.pixel_scale)
    if not 8 <= side <= MOST_PX:
        least, most = ((n * survey.pixel_scale) ** 2 / 3600 for n in (8, MOST_PX))
        raise UserError(
            f"a field of {area_arcmin2:g} square arcminutes has {side:,} pixels a side at {survey.pixel_scale:g} "
            f"arcseconds: choose --area from {least:.2g} to {most:.3g}"
        )
    bands = tuple(
        FieldBand(
            band.name,
            band.wavelength_nm,
            band.psf_fwhm,
            band.exposure_s,
            band.sky_noise(survey.pixel_scale),
            band.photon_variance,
        )
        for band in survey.bands
    )
    return FieldFacts(
        survey.name,
        survey.pixel_scale,
        side,
        side,
        (side * survey.pixel_scale) ** 2 / 3600,
        seed,
        bands,
        source,
        counts,
        faintest,
        bands[reference_of(survey)].name,
        command_line,
        "galaxies and stars made by a program, of nothing on the sky",
        (
            "galaxies are turned at random; none lies outside the field",
            "ellipticity and position angle are those of the second moments of the light in the reference band",
        ),
        survey.binning,
        survey.said_of_binning(light_scale),
    )


def make_field(
    build: Callable[[], Sky], out: Path, processes: int = 1, overwrite: bool = False, ranks: Ranks | None = None
) -> str:
    """Make a field, or go on with one that was interrupted, and say in sentences what there is.

    Parameters
    ----------
    build : callable
        Returns the sky. Rank 0 calls it first, so that what is wrong with all of them is said once.
    out : Path
        Folder to make; it is complete or not there.
    processes : int
        That paint; one paints in this process.
    overwrite : bool
        Replace a mock field that is there, and cells that were painted with other settings.
    ranks : Ranks, optional
        Which share the cells, and are connected. Rank 0 makes the field of them.

    Returns
    -------
    str
        Of rank 0; nothing of the others.

    Raises
    ------
    UserError
        If `out` may not be replaced, it was begun with other settings, the disk has too little room or fails.
    LostRankError
        If another rank has failed or gone.
    """
    ranks = ranks or Ranks()
    painted = PaintedCells(out)
    with exits_when_terminated(), ExitStack() as held:
        left: list[Cell] = []
        if ranks.is_first:
            sky = build()
            held.enter_context(painted.claimed(settings_of(sky), overwrite))
            number, done = math.prod(sky.cells), painted.count()
            _check_space(sky, painted.folder, number - done)
            print("; ".join(limits(sky.facts)))
            if done:
                print(f"{done:,} of {number:,} cells were painted before")
            left = painted.missing(cells_of(sky))
        left = _first_says(ranks, left)
        with painted.together(ranks):
            if not ranks.is_first:
                sky = build()
                painted.check(settings_of(sky), ranks.rank)
            _paint_share(sky, painted, left, processes, ranks)
            ranks.wait_for_all()
        if not ranks.is_first:
            return ""
        said = _assemble(sky, painted, out, processes, overwrite)
        painted.remove()
    return said


def cells_of(sky: Sky) -> list[Cell]:
    """Return all cells of a field, in the order in which they are added to each other."""
    down, along = sky.cells
    return [(row, column) for row in range(down) for column in range(along)]


def _first_says(ranks: Ranks, left: list[Cell]) -> list[Cell]:
    """Return what rank 0 finds to be painted; where it fails, it says why."""
    try:
        return ranks.first_says(left)
    except LostRankError as error:
        raise LostRankError("" if ranks.local_rank else f"{error} before anything was painted") from None


def _check_space(sky: Sky, folder: Path, num_cells: int) -> None:
    facts = sky.facts
    num_sources = round(facts.area_arcmin2 * (sky.counts.per_arcmin2 + sky.stars_per_arcmin2))
    needed = bytes_of_field(facts, num_sources) + 4 * facts.width_px * facts.height_px
    needed += num_cells * bytes_of_cell(facts)
    if needed > (free := free_space(folder)[1]):
        raise UserError(
            f"a field of {facts.area_arcmin2:.4g} square arcminutes needs {needed / 1e9:.3g} GB and the disk has "
            f"{free / 1e9:.3g} GB free: make room, or choose an --area below {facts.area_arcmin2 * free / needed:.3g}"
        )


def _paint_share(sky: Sky, painted: PaintedCells, left: list[Cell], processes: int, ranks: Ranks) -> None:
    """Paint this rank's part of the cells that are left."""
    share = left[ranks.rank :: ranks.size]
    bar = tqdm(total=len(share), desc="painting", unit=" cells", leave=False, disable=not ranks.is_first)
    try:
        with plain_errors(painted.folder), bar:
            for _ in _results(partial(_paint, sky, painted), share, processes, "paint a field"):
                bar.update()
                painted.check_on_others(ranks)
    except (KeyboardInterrupt, SystemExit):
        if ranks.is_first:
            print(f"\nwhat is painted is kept in {painted.folder}: the same command goes on", file=sys.stderr)
        raise


def _paint(sky: Sky, painted: PaintedCells, cell: Cell) -> None:
    painted.write(cell, paint(sky, cell))


def _assemble(sky: Sky, painted: PaintedCells, out: Path, processes: int, overwrite: bool) -> str:
    """Put the files together of cells that are all painted, and say what there is."""
    cells = cells_of(sky)
    with output_folder(out, MOCK_FIELD, inputs=(), overwrite=overwrite) as folder:
        numbers, replaced = _counted(painted, cells)
        lie = "galaxies lie at random, without clusters" if sky.clusters is None else sky.clusters.describe()
        facts = replace(sky.facts, remarks=(*sky.facts.remarks, lie, *sky.source.notes(), *replaced))
        firsts = np.concatenate([[1], 1 + np.cumsum(numbers)]).tolist()
        with plain_errors(out):
            files = FieldFiles.lay_out(folder, facts, psf_images(sky), sum(numbers))
            scratch = folder / ".brightest"
            brightest = _scratch_plane(scratch, facts.shape)
            for cell, first in tqdm(
                zip(cells, firsts[:-1], strict=True), "adding", len(cells), unit=" cells", leave=False
            ):
                _add(files, brightest, painted.read(cell), first)
            scratch.unlink()
            height = max(1, _ROWS_PX // facts.width_px)
            rows = [(name, row) for name in facts.band_names for row in range(0, facts.height_px, height)]
            with tqdm(total=len(rows), desc="adding noise", unit=" strips", leave=False) as bar:
                for _ in _results(partial(_add_noise, files, height), rows, processes, "add noise"):
                    bar.update()
            _save_preview(files, folder / PREVIEW)
            files.finish()
    return (
        f"{sum(numbers):,} sources in {facts.width_px:,} x {facts.height_px:,} pixels ({facts.area_arcmin2:.4g} square "
        f"arcminutes) of {facts.survey}, bands {', '.join(facts.band_names)}, in {out}"
        + (f"\n{facts.binned}" if facts.binned else "")
        + "".join(f"\n{sentence}" for sentence in replaced)
    )


def _counted(painted: PaintedCells, cells: Iterable[Cell]) -> tuple[list[int], list[str]]:
    """Return how many sources each cell has, and sentences on galaxies that are drawn otherwise than asked for."""
    numbers, replaced = [], Counter[str]()
    for cell in cells:
        number, otherwise = painted.numbers(cell)
        numbers.append(number)
        replaced.update(otherwise)
    said = [f"{n:,} of {sum(numbers):,} sources are galaxies {of}" for of, n in replaced.items() if n]
    return numbers, said


def psf_images(sky: Sky) -> list[np.ndarray]:
    """Return the point-spread function of each band on the field's pixels, (P, P) of sum 1."""
    scale = sky.facts.pixel_scale
    widest = max(band.psf_fwhm for band in sky.facts.bands)
    side = max(5, 2 * math.ceil(_PSF_WIDTHS * widest / scale / 2) + 1)
    return list(sky.psf().image(side, scale)[0].numpy())


def _results(function: Callable, tasks: Sequence, processes: int, what: str) -> Iterator:
    """Apply a function to tasks here or in processes, in order; here on one thread too, for threads round otherwise."""
    if processes > 1:
        yield from stream_on_processes(function, tasks, processes, what)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from map(function, tasks)
    finally:
        torch.set_num_threads(threads)


def _scratch_plane(path: Path, shape: tuple[int, int]) -> Plane:
    with path.open("wb") as file:
        for _ in range(shape[0]):
            file.write(bytes(4 * shape[1]))
    return Plane(path, 0, shape)


def _add(files: FieldFiles, brightest: Plane, picture: Picture, first: int) -> None:
    """Add a cell, whose first source gets the id `first`, to what is there already."""
    height, width = picture.brightest.shape
    if len(picture.truth):
        picture.truth["id"] += first - 1
        _place_on_sky(files.facts, picture.truth)
        files.truth.write(picture.truth, first - 1)
    if not height * width:
        return
    rows, columns = slice(picture.row, picture.row + height), slice(picture.column, picture.column + width)
    for name, light in zip(files.facts.band_names, picture.light, strict=True):
        plane = files.noiseless[name]
        plane.write(plane.read(rows, columns) + light, picture.row, picture.column)
    before, owner = brightest.read(rows, columns), files.segmentation.read(rows, columns)
    reference = files.facts.band(files.facts.reference_band)
    more = (picture.brightest > before) & (picture.brightest > 0.5 * reference.sky_noise)
    brightest.write(np.where(more, picture.brightest, before), picture.row, picture.column)
    files.segmentation.write(np.where(more, picture.owner + first - 1, owner), picture.row, picture.column)


def _place_on_sky(facts: FieldFacts, truth: np.ndarray) -> None:
    from astropy.wcs import WCS

    truth["ra"], truth["dec"] = WCS(world_coordinates(facts, *CENTRE_DEG)).all_pix2world(truth["x"], truth["y"], 0)


def _add_noise(files: FieldFiles, height: int, task: tuple[str, int]) -> None:
    """Write some rows of a band as observed, and its maps."""
    name, first = task
    band = files.facts.band(name)
    rows = slice(first, min(first + height, files.facts.height_px))
    light = files.noiseless[name].read(rows)
    deviation = np.sqrt(band.sky_noise**2 + band.photons * light.clip(0)).astype(np.float32)
    # Every band and row has a seed of its own.
    words = random_words([files.facts.seed], 4 * files.facts.height_px, zlib.crc32(name.encode()))[0]
    seeds = (words[4 * rows.start : 4 * rows.stop : 4] << np.uint64(31)) ^ words[4 * rows.start + 1 : 4 * rows.stop : 4]
    normal = standard_normal(seeds.astype(np.int64), files.facts.width_px, _NOISE_STREAM).numpy()
    files.image[name].write(light + deviation * normal, first)
    files.noise[name].write(deviation, first)
    files.weight[name].write(1 / deviation**2, first)


def _save_preview(files: FieldFiles, path: Path) -> None:
    """Save a picture of the field, binned to `_PREVIEW_PX`, the first row of FITS below."""
    facts = files.facts
    step = max(1, math.ceil(facts.width_px / _PREVIEW_PX))
    size = facts.height_px // step
    planes = np.zeros((len(facts.bands), size, size), np.float32)
    for plane, name in zip(planes, facts.band_names, strict=True):
        for row in range(size):
            strip = files.image[name].read(slice(row * step, (row + 1) * step))[:, : size * step]
            plane[row] = strip.reshape(step, size, step).mean((0, 2))
    noise = [band.sky_noise / step for band in facts.bands]
    lupton = LuptonComposite(facts.band_names, noise)
    picture = lupton(torch.from_numpy(planes)[None]).flip(-2)[0]
    save_picture(Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()), path)


def limits(facts: FieldFacts) -> Iterable[str]:
    """Say of each band how faint a star is that stands out five times of the sky's noise."""
    for band in facts.bands:
        depth = limit_of(facts, band)
        yield f"{band.name}: {band.exposure_s:g} s, a star of {depth:.2f} has five times the noise"


def limit_of(facts: FieldFacts, band: FieldBand) -> float:
    """Return the AB magnitude of a star that stands out five times of the sky's noise in a band."""
    # A Gaussian PSF's effective area is 4 pi sigma^2.
    area = 4 * math.pi * (band.psf_fwhm / 2.355 / facts.pixel_scale) ** 2
    return AB_ZERO_POINT - 2.5 * math.log10(5 * band.sky_noise * math.sqrt(area))
