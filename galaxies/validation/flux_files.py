"""Measure FITS files in physical units: magnitudes, arcseconds and kiloparsecs, of any instrument's images.

The files are read as `prepare_data.py fits` reads them, so that a galaxy has the same magnitude here and there: units,
bands and pixels by the header or by options, with the user's mask, weights and point spread function.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config_physics import BAND_NAME, MOST_BANDS
from galaxies.common.cosmology import arcsec_per_kpc
from galaxies.common.errors import UserError
from galaxies.datasets.science_cutouts import CutoutReader, FluxCutout, Galaxy, OpenQuestionError, Wanted, psf_frames
from galaxies.datasets.science_cutouts import psf_size as psf_side
from galaxies.datasets.science_folders import GalaxyFiles
from galaxies.images.fits_images import Image
from galaxies.images.fits_science import Maps, ScienceFile, images_by_kind, named_planes, science_file
from galaxies.measure.picture_files import UnmeasuredPicture
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, Measured, of_visible_arms

_LARGEST_PX = 512  # a side; larger cutouts are put on larger pixels, which conserves flux
_SMALLEST_PX = 16
_SMALLEST_FOR_ARMS_PX = 64  # on fewer pixels neither arms nor a second nucleus are told
# Columns of standard deviations, and where photometry has them.
_ERRORS = {
    "size_arcsec_error": "size_error",
    "petrosian_radius_arcsec_error": "petrosian_radius_error",
    "ellipticity_error": "ellipticity_error",
    "position_angle_error": "position_angle_error",
    "concentration_error": "concentration_error",
    "intrinsic_concentration_error": "intrinsic_concentration_error",
}


class FluxOptions(NamedTuple):
    """What the user says of all files; of sequences one value, or one a band, None where not given.

    Attributes
    ----------
    mask, weight, psf : Path, optional
        Files of bad pixels (not 0), of weights, and of the point spread function.
    weight_is : str
        "ivar", "variance", "error" or "weight": what the weights are.
    ext : str
        Number from 0 or name of the extension; "" to find it.
    bands : tuple of str, optional
    zero_point, pixel_scale, psf_fwhm : sequence of float, optional
        AB magnitude of a value of 1; arcsec a pixel; arcsec.
    unit : sequence of str, optional
    flux_pixel : float, optional
        Arcsec: side of the pixels that values are the flux of, where files were interpolated to others since.
    redshift : float, optional
    """

    mask: Path | None = None
    weight: Path | None = None
    psf: Path | None = None
    weight_is: str = "ivar"
    ext: str = ""
    bands: tuple[str, ...] | None = None
    zero_point: Sequence[float] | None = None
    pixel_scale: Sequence[float] | None = None
    psf_fwhm: Sequence[float] | None = None
    unit: Sequence[str] | None = None
    flux_pixel: float | None = None
    redshift: float | None = None


class MeasuredFlux(NamedTuple):
    """One measured galaxy: its file, values by the columns' names (NaN for unknown), flag, and remarks."""

    path: Path
    values: dict[str, float]
    flag: int
    remarks: list[str]


def bands_of(paths: Sequence[Path], options: FluxOptions) -> tuple[str, ...]:
    """Return the bands that the options name, or else the first file.

    Raises
    ------
    UserError
        If neither does, or an option has as many values as there are no bands.
    """
    bands = options.bands or _bands_said(paths[0], options.ext)
    for name, values in (
        ("zero-point", options.zero_point),
        ("pixel-scale", options.pixel_scale),
        ("psf-fwhm", options.psf_fwhm),
        ("unit", options.unit),
    ):
        if values is not None and len(values) not in (1, len(bands)):
            raise UserError(f"--{name} has {len(values)} values: give one, or one for each of the {len(bands)} bands")
    return bands


def _bands_said(path: Path, ext: str) -> tuple[str, ...]:
    with science_file(path) as file:
        images = _images(file, ext)
        names = tuple(name for name, _, _ in named_planes(file, images))
    if len(set(names)) < len(names) or any(not BAND_NAME.fullmatch(name) for name in names) or len(names) > MOST_BANDS:
        example = "r" if len(names) == 1 else ",".join(("g", "r", "i", "z", "y", "J", "H", "Ks")[: len(names)])
        raise UserError(
            f"{path} has {len(names)} plane{'s' if len(names) > 1 else ''} and does not say of which band"
            f"{'s' if len(names) > 1 else ''}: name them in their order, such as --bands {example}"
        )
    return names


def _images(file: ScienceFile, ext: str) -> list[Image]:
    if not ext:
        return images_by_kind(file, file.images())[0]
    images = file.images(int(ext)) if ext.isdecimal() else file.named(ext)
    if not images:
        raise UserError(f"{file.path} has no extension {ext}: it has {', '.join(i.label for i in file.images()[:8])}")
    return images


def columns_of(bands: Sequence[str], with_redshift: bool) -> list[str]:
    """Return the columns of the table in their order, but for file, flag and remark."""
    from galaxies.measure.flux import flux_attributes

    attributes = flux_attributes(bands)
    of_bands = [f"{name}_{band}" for name in ("flux_njy", "magnitude_error", "noise_njy", "psf_fwhm") for band in bands]
    kpc = ["size_kpc", "size_kpc_error"] if with_redshift else []
    place = ["position_angle", "centroid_x_px", "centroid_y_px"]
    morphology = [statistic.name for statistic in MORPHOLOGY_STATISTICS]
    return ["side_px", "pixel_scale", *attributes, *kpc, *place, *_ERRORS, *of_bands, *morphology]


def measure_flux_files(
    paths: Sequence[Path], bands: tuple[str, ...], options: FluxOptions
) -> Iterator[MeasuredFlux | UnmeasuredPicture]:
    """Measure FITS files of one galaxy each.

    Yields
    ------
    MeasuredFlux, or UnmeasuredPicture for a file that cannot be used

    Raises
    ------
    UserError
        If neither a header nor an option says what the values are, which all files would ask.
    """
    maps = [("mask", "", options.mask), (options.weight_is, "", options.weight)]
    for path in paths:
        files = GalaxyFiles(path.name, {"": path}, [(kind, band, file) for kind, band, file in maps if file])
        try:
            yield _measured(path, Galaxy(path.name, "", files, options.ext), bands, options)
        except OpenQuestionError:
            raise
        except UserError as error:
            yield UnmeasuredPicture(path, str(error))


def _measured(path: Path, galaxy: Galaxy, bands: tuple[str, ...], options: FluxOptions) -> MeasuredFlux:
    with science_file(path) as file:
        sizes = [min(image.size()) for image in _images(file, options.ext)]
    side = max(sizes)
    if side < _SMALLEST_PX:
        raise UserError(f"{path} has {side} pixels a side: at least {_SMALLEST_PX} are needed")
    wanted = Wanted(
        bands,
        min(side, _LARGEST_PX),
        _each(options.zero_point, bands),
        _each(options.pixel_scale, bands),
        _each(options.psf_fwhm, bands),
        _each(options.unit, bands),
        psf=options.psf,
        flux_pixel=options.flux_pixel,
        subtract=[False] * len(bands),
        maps=Maps(),
    )
    with CutoutReader(wanted) as reader:
        cutout = reader.read(galaxy)
        how = dict.fromkeys(how for band in bands for how in reader.calibrations[band])
        said = [
            f"one of the galaxies {text.replace('are cutouts', 'cut out').removeprefix('are ')}"
            for text in reader.remarks
        ]
        remarks = [f"flux by {', '.join(how)}", *said]
    values, flag = _values(cutout, bands, options)
    if side > _LARGEST_PX:
        remarks.append(f"reduced from {side} to {_LARGEST_PX} pixels a side")
    return MeasuredFlux(path, {"side_px": float(side), **values}, flag, remarks)


def _each(values: Sequence[Any] | None, bands: Sequence[str]) -> list[Any]:
    """Return one value of an option for each band."""
    return [None] * len(bands) if values is None else list(values) * (len(bands) if len(values) == 1 else 1)


def _values(cutout: FluxCutout, bands: tuple[str, ...], options: FluxOptions) -> tuple[dict[str, float], int]:
    import torch

    from galaxies.measure.flux import flux_attributes, measure_flux
    from galaxies.measure.flux_errors import KNOWN_PSF_ERROR, PSF_ERROR
    from galaxies.measure.flux_model import psf_width
    from galaxies.measure.flux_morphology import measure_flux_morphology

    fwhm, psf_error = cutout.psf_fwhm, PSF_ERROR
    if cutout.psfs is not None and options.psf_fwhm is None:
        # Its wings blur galaxies as well, of which its width at half the peak knows nothing.
        frames = psf_frames(cutout.psfs, psf_side(cutout.psfs, cutout.image.shape[-1]))
        fwhm = psf_width(torch.from_numpy(frames)[None])[0].double().numpy() * cutout.pixel_scale
        psf_error = KNOWN_PSF_ERROR
    with torch.inference_mode():
        found = measure_flux(
            torch.from_numpy(cutout.image)[None],
            cutout.pixel_scale,
            noise=torch.from_numpy(cutout.noise)[None].float(),
            psf_fwhm=torch.from_numpy(fwhm)[None].float(),
            psf_error=psf_error,
            structure=True,
        )
        side = cutout.image.shape[-1]
        seen = measure_flux_morphology(torch.from_numpy(cutout.image)[None]) if side >= _SMALLEST_FOR_ARMS_PX else None
    values = {"pixel_scale": cutout.pixel_scale}
    for name in flux_attributes(bands):
        known = bool(found.known(name, bands))
        values[name] = float(found.attribute(name, bands)) if known else math.nan
    sized = not math.isnan(values["size_arcsec"])
    for column, field in _ERRORS.items():
        values[column] = float(getattr(found, field)) if sized else math.nan
    if options.redshift is not None:
        scale = float(arcsec_per_kpc(np.array(options.redshift)))
        values |= {f"size_kpc{end}": values[f"size_arcsec{end}"] / scale for end in ("", "_error")}
    for column, value in (
        ("position_angle", found.position_angle),
        ("centroid_x_px", found.centroid_x),
        ("centroid_y_px", found.centroid_y),
    ):
        values[column] = float(value) if sized else math.nan
    for k, band in enumerate(bands):
        values[f"flux_njy_{band}"] = float(found.flux[0, k]) if sized else math.nan
        values[f"magnitude_error_{band}"] = (
            float(found.magnitude_error[0, k]) if not math.isnan(values[f"magnitude_{band}"]) else math.nan
        )
        values[f"noise_njy_{band}"] = float(found.noise[0, k])
        values[f"psf_fwhm_{band}"] = float(fwhm[k])
    if seen is None:
        values |= {statistic.name: math.nan for statistic in MORPHOLOGY_STATISTICS}
    else:
        shown = of_visible_arms(Measured.of_columns(seen, MORPHOLOGY_STATISTICS).values)
        values |= {name: float(value[0]) for name, value in shown.items()}
    return values, int(found.flag)
