"""Read sets of galaxies of any origin, and bring them to what a prepared dataset holds.

A set is another prepared dataset, galaxies that this program generated, a folder or zip file of pictures, or a folder
of FITS cutouts. What is larger is put together to the reference's pixels; nothing is ever stretched.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from galaxies.common.errors import UserError
from galaxies.common.hardware import usable_cores
from galaxies.common.outputs import PICTURES, SHARDS
from galaxies.common.reading import check_regular, read_text
from galaxies.datasets.cutout_blocks import read_cutouts
from galaxies.datasets.cutouts import CutoutSource
from galaxies.datasets.layout import DISPLAY, DataLayout, FluxBand
from galaxies.datasets.picture_names import name_without_folder
from galaxies.datasets.prepared import PreparedDataset
from galaxies.datasets.science_folders import science_files
from galaxies.datasets.sources import fits as fits_source
from galaxies.images.area_resampling import shares
from galaxies.images.reading import read_picture
from galaxies.validation.shard_reading import Shards

_SAME_SCALE = 0.05  # relative difference up to which two pixel scales are one
_SAME_BAND = 0.03  # relative difference of the wavelengths of two bands of one name, from which on it is said
_READ = 4  # times as many files as galaxies are wanted are looked at, at most, where some cannot be read


@dataclass(frozen=True)
class FitsOptions:
    """What the headers of FITS files do not say; the options of ``prepare_data.py fits`` of the same names."""

    bands: tuple[str, ...] | None = None
    zero_point: tuple[float, ...] | None = None
    unit: tuple[str, ...] | None = None
    pixel_scale: tuple[float, ...] | None = None
    flux_pixel: float | None = None
    psf: Path | None = None
    psf_fwhm: tuple[float, ...] | None = None
    sky: str = "auto"


@dataclass(frozen=True)
class Wanted:
    """What sets are brought to.

    Attributes
    ----------
    layout : DataLayout
        Of the reference.
    image_size : int
        Pixels a side.
    pixel_scale : float
        Of flux, arcseconds.
    most : int
        Galaxies of a set, chosen at random where there are more.
    seed : int
    apart : collection of str
        Ids of the reference's galaxies that no set may hold.
    crop : float
        Side of the central square that is taken of pictures in a folder, as a fraction of theirs.
    fits : FitsOptions
    """

    layout: DataLayout
    image_size: int
    pixel_scale: float
    most: int
    seed: int
    apart: Collection[str] = ()
    crop: float = 1.0
    fits: FitsOptions = field(default_factory=FitsOptions)


@dataclass(frozen=True)
class ReadSet:
    """A set of galaxies as the reference's are.

    Attributes
    ----------
    path : Path
    origin : str
        What it is, in words.
    bands : tuple of FluxBand
        Of the planes.
    images : ndarray, (N, B, S, S)
        uint8 of a display, or float32, nJy a pixel.
    names : list of str, N
        In the order of the alphabet, whatever order the files had.
    morphologies : list of str, N
        Empty where nobody says.
    noise, psf_fwhm : ndarray, (N, B)
        Of flux, nJy a pixel and arcsec; NaN where unknown.
    psf_profile : str
        As `telescope.profiles.profile_of` takes it; empty where unknown.
    unreadable : list of (str, str)
        What could not be read, and why.
    shared : int
        Galaxies left out because the reference has them too.
    remarks : list of str
        What was done to it, in words.
    """

    path: Path
    origin: str
    bands: tuple[FluxBand, ...]
    images: np.ndarray
    names: list[str]
    morphologies: list[str]
    noise: np.ndarray
    psf_fwhm: np.ndarray
    psf_profile: str = ""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    shared: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the planes."""
        return tuple(band.name for band in self.bands)

    def in_bands(self, names: Sequence[str]) -> ReadSet:
        """Return the set in some of its bands, in the order of their names here."""
        if tuple(names) == self.band_names:
            return self
        places = [self.band_names.index(name) for name in names]
        return replace(
            self,
            bands=tuple(self.bands[place] for place in places),
            images=np.ascontiguousarray(self.images[:, places]),
            noise=self.noise[:, places],
            psf_fwhm=self.psf_fwhm[:, places],
        )

    def of_rows(self, rows: np.ndarray) -> ReadSet:
        """Return some of its galaxies."""
        return replace(
            self,
            images=self.images[rows],
            names=[self.names[row] for row in rows],
            morphologies=[self.morphologies[row] for row in rows],
            noise=self.noise[rows],
            psf_fwhm=self.psf_fwhm[rows],
        )


_WANTED = (
    "name a prepared dataset, a folder of generate_from_checkpoint.py, a folder or zip file of pictures, or a folder "
    "of FITS files"
)


def check_set(path: Path) -> None:
    """Refuse what can be no set, before anything that takes long.

    Raises
    ------
    UserError
        If there is no such path, or it is neither a folder nor a file.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: {_WANTED}")
    if not path.is_dir():
        check_regular(path, _WANTED)


def read_set(path: Path, wanted: Wanted) -> ReadSet:
    """Read a set of any kind.

    Raises
    ------
    UserError
        As `check_set` does, or if it holds no galaxies or those of another kind, or they are coarser than wanted.
    """
    check_set(path)
    read = next(read for fits, read in _READERS if fits(path))
    found = read(path, wanted)
    if not len(found.names):
        raise UserError(f"{path} holds no galaxy that the reference has not: there is nothing to compare")
    if wanted.layout.is_flux:
        _say_other_bands(found, wanted.layout)
    return found


def kinds_differ(path: Path, what: str, layout: DataLayout) -> UserError:
    """Return what is said where a set is of another kind than the reference."""
    held = "flux, in nanojansky a pixel" if layout.is_flux else "display pictures"
    cure = "give FITS files or a dataset of flux" if layout.is_flux else "give pictures, or take a reference of flux"
    return UserError(f"{path} holds {what} and the reference {held}, and these cannot be compared: {cure}")


def _chosen(names: Sequence[str], wanted: Wanted, most: int | None = None) -> np.ndarray:
    """Return which of some names to take, in the order of the alphabet: a draw that no order of files changes."""
    order = np.array(sorted(range(len(names)), key=lambda place: names[place]), dtype=np.int64)
    drawn = np.random.default_rng([wanted.seed, 5]).permutation(len(order))[: most or wanted.most]
    return order[np.sort(drawn)]


# Prepared datasets


def _read_dataset(path: Path, wanted: Wanted) -> ReadSet:
    data = PreparedDataset.open(path)
    if data.layout.kind != wanted.layout.kind:
        raise kinds_differ(path, "flux" if data.layout.is_flux else "display pictures", wanted.layout)
    ids = data.catalogue["object_id"].tolist()
    own = np.array([name not in wanted.apart for name in ids])
    places = np.flatnonzero(own)
    rows = places[_chosen([ids[place] for place in places], wanted)]
    telescope = data.settings(()).get("psf_profile", "") if data.layout.is_flux else ""
    found = ReadSet(
        path,
        f"prepared dataset ({data.manifest.get('source') or 'of unknown source'})",
        data.layout.bands,
        np.array(data.images[rows]),
        [ids[row] for row in rows],
        [data.layout.classes[k] for k in data.classes(rows)],
        data.noise(rows).astype(np.float64) if data.layout.is_flux else _unknown(rows, data.layout),
        data.psf_fwhm(rows).astype(np.float64) if data.layout.is_flux else _unknown(rows, data.layout),
        telescope,
        shared=int((~own).sum()),
    )
    if not data.layout.is_flux:
        return _as_small(found, wanted)
    return _on_pixels(found, data.pixel_scale(rows), wanted)


def _unknown(rows: Sequence[object] | np.ndarray, layout: DataLayout) -> np.ndarray:
    return np.full((len(rows), len(layout.bands)), np.nan)


# Generated galaxies


def _read_generated(path: Path, wanted: Wanted) -> ReadSet:
    table = _table(path / "catalogue.csv")
    names = [row["file"] for row in table]
    rows = _chosen(names, wanted)
    chosen, classes = [names[row] for row in rows], [table[row].get("morphology", "") for row in rows]
    origin = f"galaxies that this program generated, {len(names)} in all"
    if (path / "images.npz").exists():
        images, bands, scale = _of_archive(path / "images.npz", rows, len(names), wanted)
        return _of_arrays(path, origin, images, bands, scale, chosen, classes, wanted)
    if not wanted.layout.is_flux:
        found = _read_pictures(path / "images", wanted, dict(zip(chosen, classes, strict=True)), 1.0)
        return replace(found, path=path, origin=origin)
    if not any(path.glob("images/*.fits")):
        raise UserError(
            f"{path} holds pictures alone, and the reference flux: generate the galaxies with --format npz or fits"
        )
    found = _read_fits(path / "images", wanted)
    of_name = {row["file"]: row.get("morphology", "") for row in table}
    return replace(found, path=path, origin=origin, morphologies=[of_name.get(name, "") for name in found.names])


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(read_text(path, 1 << 30), newline="")))


def _of_archive(
    path: Path, rows: np.ndarray, count: int, wanted: Wanted
) -> tuple[np.ndarray, tuple[str, ...] | None, float]:
    """Return the images (n, B, S, S) of some rows of an archive, and of flux its bands and pixel scale."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            images = archive["images"]
            flux = "bands" in archive
            bands = tuple(map(str, archive["bands"])) if flux else None
            scale = float(archive["pixel_scale"]) if flux else 0.0
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"{path} is damaged or none of this program ({error}): generate the galaxies again") from None
    if len(images) != count:
        raise UserError(f"{path} holds {len(images)} images and its catalogue {count} rows: generate them again")
    return images[rows], bands, scale


def _read_shards(path: Path, wanted: Wanted) -> ReadSet:
    shards = Shards(path)
    rows = _chosen(shards.names, wanted)
    bands = tuple(shards.told["bands"]) if "bands" in shards.told else None
    scale = float(shards.told.get("pixel_scale", 0.0))
    origin = f"galaxies that this program generated, {len(shards.names)} in all"
    chosen = [shards.names[row] for row in rows], [shards.classes[row] for row in rows]
    return _of_arrays(path, origin, shards.images(rows), bands, scale, *chosen, wanted)


def _of_arrays(
    path: Path,
    origin: str,
    images: np.ndarray,
    bands: tuple[str, ...] | None,
    scale: float,
    names: list[str],
    classes: list[str],
    wanted: Wanted,
) -> ReadSet:
    """Return generated images (n, B, S, S), of flux if there are bands, as they are wanted."""
    if (bands is not None) != wanted.layout.is_flux:
        raise kinds_differ(path, "flux" if bands is not None else "display pictures", wanted.layout)
    layout = DISPLAY if bands is None else DataLayout("flux", tuple(map(FluxBand.named, bands)))
    found = ReadSet(
        path, origin, layout.bands, images, names, classes, _unknown(names, layout), _unknown(names, layout)
    )
    return _as_small(found, wanted) if bands is None else _on_pixels(found, np.full(len(names), scale), wanted)


# Pictures and FITS files


def _read_any_folder(path: Path, wanted: Wanted) -> ReadSet:
    science = [] if path.suffix.lower() == ".zip" else science_files(path)
    if path.is_file() and path.suffix.lower() != ".zip" and not science[0].name.lower().endswith(_FITS_ENDS):
        raise UserError(
            f"{path} is no set of galaxies: name a prepared dataset, a folder or zip file; a checkpoint is compared by "
            "evaluate.py report"
        )
    if wanted.layout.is_flux:
        if not science:
            raise kinds_differ(path, "no FITS file, at most pictures,", wanted.layout)
        return _read_fits(path, wanted)
    if science and not _has_pictures(path):
        return _read_display_fits(path, science, wanted)
    return _read_pictures(path, wanted, None, wanted.crop)


_FITS_ENDS = (".fits", ".fit", ".fts", ".fits.gz", ".fits.fz", ".fits.bz2", ".fits.xz")


def _has_pictures(path: Path) -> bool:
    return any(name.lower().endswith((".jpg", ".jpeg", ".png")) for _, _, files in os.walk(path) for name in files)


def _read_pictures(path: Path, wanted: Wanted, classes: dict[str, str] | None, crop: float) -> ReadSet:
    """Read JPEG and PNG pictures; with `classes`, {name without ending: class}, those alone."""
    with CutoutSource(path) as source:
        ids = {name: name_without_folder(name) for name in source.names}
        names = [name for name, own in ids.items() if (classes is None or own in classes) and own not in wanted.apart]
        shared = sum(own in wanted.apart for own in ids.values())
        chosen = [names[place] for place in _chosen(names, wanted)]
        images, kept, unreadable = [], [], []
        cutouts = read_cutouts(source, chosen, wanted.image_size, crop, usable_cores())
        for cutout in tqdm(cutouts, f"reading {path.name}", len(chosen), unit=" pictures", leave=False):
            if cutout.image is None:
                unreadable.append((cutout.name, cutout.rejection.value if cutout.rejection else "not readable"))
            else:
                images.append(cutout.image)
                kept.append(cutout.name)
    if chosen and not images:
        raise UserError(f"none of {len(chosen)} pictures in {path} can be used: {unreadable[0][0]}: {unreadable[0][1]}")
    own = [ids[name] for name in kept]
    stacked = np.stack(images) if images else np.empty((0, 3, wanted.image_size, wanted.image_size), np.uint8)
    remarks = [] if crop == 1 else [f"the central {crop:g} of each picture was taken, along either axis"]
    return ReadSet(
        path,
        f"{'zip file' if path.is_file() else 'folder'} of {len(ids)} pictures",
        DISPLAY.bands,
        stacked,
        kept,
        ["" if classes is None else classes[name] for name in own],
        _unknown(kept, DISPLAY),
        _unknown(kept, DISPLAY),
        unreadable=unreadable,
        shared=shared,
        remarks=remarks,
    )


def _read_display_fits(path: Path, files: Sequence[Path], wanted: Wanted) -> ReadSet:
    """Read FITS files that hold levels of a display, as this program writes them."""
    names = [file.relative_to(path).as_posix() if file != path else file.name for file in files]
    images, kept, unreadable, sides = [], [], [], set()
    for place in tqdm(_chosen(names, wanted), f"reading {path.name}", unit=" files", leave=False):
        try:
            picture = read_picture(files[place])
        except UserError as error:
            unreadable.append((names[place], str(error)))
            continue
        if not picture.display:
            raise kinds_differ(path, "FITS files of counts or flux", wanted.layout)
        levels = (255 * picture.image).round().clamp(0, 255).to(torch.uint8).numpy()
        images.append(levels)
        sides.add(levels.shape[-1])
        kept.append(names[place])
    if not images:
        raise UserError(f"none of {len(files)} files in {path} can be used: {unreadable[0][1]}")
    if len(sides) > 1:
        raise UserError(f"{path} holds images of {min(sides)} to {max(sides)} pixels: give those of one size")
    origin, unknown = f"{len(files)} FITS files of display levels", _unknown(kept, DISPLAY)
    found = ReadSet(
        path, origin, DISPLAY.bands, np.stack(images), kept, [""] * len(kept), unknown, unknown, unreadable=unreadable
    )
    return _as_small(found, wanted)


def _read_fits(path: Path, wanted: Wanted) -> ReadSet:
    """Read FITS cutouts as ``prepare_data.py fits`` does, on the reference's pixels."""
    parser = argparse.ArgumentParser()
    fits_source.SOURCE.add_options(parser)
    options = parser.parse_args(["--images", str(path)])
    for name, value in vars(wanted.fits).items():
        setattr(options, name, value)
    said = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="galaxies-sets-") as folder:
        out = Path(folder) / "prepared"
        vars(options).update(size=wanted.image_size, scale=wanted.pixel_scale, framing="crop", out=out)
        vars(options).update(limit=_READ * wanted.most, overwrite=False, allow_empty_class=True)
        with redirect_stdout(said):
            fits_source.SOURCE.write(options, "evaluate.py sets")
        found = _read_dataset(out, replace(wanted, pixel_scale=wanted.pixel_scale))
        manifest = PreparedDataset.open(out, verify=False).manifest
    lines = said.getvalue().splitlines()
    end = next((k for k, line in enumerate(lines) if f" images of {wanted.image_size} pixels in " in line), len(lines))
    rejected = manifest["rejected_files"]
    return replace(
        found,
        path=path,
        origin=f"folder of FITS files, {manifest['count'] + len(rejected)} looked at",
        morphologies=[""] * len(found.names),
        unreadable=[(str(each["name"]), str(each.get("detail") or each["reason"])) for each in rejected],
        remarks=[*lines[:end], *found.remarks],
    )


# Pixels


def _as_small(found: ReadSet, wanted: Wanted) -> ReadSet:
    """Return display pictures of the wanted size: put together from larger ones, never stretched."""
    side, size = found.images.shape[-1], wanted.image_size
    if side == size:
        return found
    if side < size:
        raise UserError(
            f"{found.path} has pictures of {side} pixels and the reference of {size}, and what is stretched shows "
            f"nothing new: prepare the reference again with --size {side}"
        )
    images = F.interpolate(torch.from_numpy(found.images).float(), size, mode="area").round().to(torch.uint8)
    remark = f"reduced from {side} to {size} pixels a side by means over areas, which leaves less noise in a pixel"
    return replace(found, images=images.numpy(), remarks=[*found.remarks, remark])


def _on_pixels(found: ReadSet, scales: np.ndarray, wanted: Wanted) -> ReadSet:
    """Return flux on the wanted pixels: smaller ones are put together, flux conserved; larger ones are refused."""
    known = scales[np.isfinite(scales)]
    scale = float(np.median(known)) if len(known) else float("nan")
    if not scale > 0:
        raise UserError(f"{found.path} does not say how large its pixels are: give --pixel-scale, in arcseconds")
    side, size, step = found.images.shape[-1], wanted.image_size, wanted.pixel_scale / scale
    remarks = list(found.remarks)
    if len(known) and np.ptp(known) > _SAME_SCALE * scale:
        remarks.append(f"its pixels are {known.min():.3g} to {known.max():.3g} arcsec; all are taken as {scale:.3g}")
    if abs(step - 1) <= _SAME_SCALE:
        step = 1.0
    if step < 1:
        raise UserError(
            f"{found.path} has pixels of {scale:g} arcsec, coarser than the reference's {wanted.pixel_scale:g}: what "
            "is stretched shows nothing new; take it as the reference, or prepare the reference on larger pixels"
        )
    if side < size * step * (1 - _SAME_SCALE):
        raise UserError(
            f"{found.path} shows {side * scale:.3g} arcsec and the reference {size * wanted.pixel_scale:.3g}: "
            "prepare the reference smaller, or give larger cutouts"
        )
    if step == 1 and side == size:
        return replace(found, remarks=remarks)
    remarks.append(f"brought from {side} pixels of {scale:.3g} arcsec to {size} of {wanted.pixel_scale:.3g}")
    share = shares(side, size, step).astype(np.float64)
    images = np.einsum("ij,nbjk,lk->nbil", share, found.images, share, optimize=True).astype(np.float32)
    noise = found.noise if step == 1 else np.full_like(found.noise, np.nan)  # which is measured then
    return replace(found, images=images, noise=noise, remarks=remarks)


def _say_other_bands(found: ReadSet, layout: DataLayout) -> None:
    """Add a remark for each band that lies elsewhere than the reference's of the same name."""
    of_reference = {band.name: band.wavelength_nm for band in layout.bands}
    for band in found.bands:
        there = of_reference.get(band.name, np.nan)
        if np.isfinite(there) and np.isfinite(band.wavelength_nm) and abs(band.wavelength_nm / there - 1) > _SAME_BAND:
            found.remarks.append(
                f"its band {band.name} lies at {band.wavelength_nm:.0f} nm, the reference's at {there:.0f}"
            )


# What tells a kind of set, and what reads it, in turn.
_READERS: tuple[tuple[Callable[[Path], bool], Callable[[Path, Wanted], ReadSet]], ...] = (
    (lambda path: (path / "manifest.json").exists(), _read_dataset),
    (PICTURES.recognizes, _read_generated),
    (SHARDS.recognizes, _read_shards),
    (lambda path: True, _read_any_folder),
)
