"""Write the mock survey in any bands as a prepared dataset of flux, with the light before the telescope beside it."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from galaxies.common.cosmology import arcsec_per_kpc
from galaxies.common.durable_files import sha256_of
from galaxies.common.origin import MOCK_SOURCE
from galaxies.compute.cores import map_on_cores
from galaxies.datasets.growing_array import GrowingArray
from galaxies.datasets.layout import DataLayout, FluxBand
from galaxies.datasets.writing import DatasetWriter, split_of
from galaxies.measure.flux import flux_attributes, measure_flux
from galaxies.measure.flux_model import width_by_wings
from galaxies.mock_survey.band_observation import BandGalaxies, BandSurvey, Frame
from galaxies.mock_survey.sorting import MockClasses
from galaxies.mock_survey.star_formation import SPECTRAL_ATTRIBUTES
from galaxies.mock_survey.writing import blocks_at_once
from galaxies.tables.class_rules import ClassRules
from galaxies.telescope.profiles import profile_of

_ON_A_CORE = 8  # galaxies that are measured at a time
INTRINSIC_FILE, INTRINSIC_SPLIT = "intrinsic.npy", "test"


def truth_columns(frame: Frame) -> tuple[str, ...]:
    """Return the columns of the catalogue that only a simulation can fill."""
    magnitudes = (f"true_magnitude_{band.name}" for band in frame.survey.bands)
    shapes = ("true_axis_ratio", "true_inclination", "true_position_angle")
    return ("true_half_light_radius", *shapes, *magnitudes)


def layout_of(frame: Frame) -> DataLayout:
    """Return what the images of such a dataset are."""
    return DataLayout("flux", tuple(FluxBand(band.name, band.wavelength_nm) for band in frame.survey.bands))


def write_band_dataset(
    out: Path,
    count: int,
    seed: int,
    frame: Frame,
    device: str,
    command_line: str,
    overwrite: bool = False,
    chosen_by: Frame | None = None,
    rules: ClassRules | None = None,
    allow_empty_class: bool = False,
) -> DatasetWriter:
    """Simulate galaxies and write them as a prepared dataset of flux, in as much memory for many as for few.

    Parameters
    ----------
    out : Path
        Folder to make. Beside the dataset's own files it gets `intrinsic.npy`, (T, B, k S, k S) float32: the light of
        the galaxies of the test split, in their order, before the telescope, nanojansky a pixel of which k by k make
        one of the images. The manifest says so under `intrinsic`, and what the telescope is under `telescope`.
    count : int
        Number of galaxies; the classes take turns.
    seed : int
        Of the survey. A larger survey of the same seed and telescope begins with the galaxies of a smaller one.
    frame : Frame
        The survey with its bands, the pixels a side and their scale.
    device : str
        Where to render: cpu or cuda.
    command_line : str
        For the manifest.
    overwrite : bool
        Replace an existing prepared dataset.
    chosen_by : Frame, optional
        What the galaxies were chosen by, if by another survey: then they are those that it has, of the same numbers.
    rules : ClassRules, optional
        Classes to sort the galaxies into, see `MockClasses`; by default those that the survey draws.
    allow_empty_class : bool
        Accept that one of them has no galaxy.

    Returns
    -------
    DatasetWriter
        With the manifest of what was written. Beside the usual columns the catalogue has `truth_columns`.

    Raises
    ------
    UserError
        If `out` exists and may not be replaced, or cannot be written.
    """
    classes = MockClasses(rules, count, allow_empty_class)
    provenance: dict[str, Any] = {
        "source": f"{MOCK_SOURCE} of seed {seed} as {frame.survey.name} sees it",
        "rule": classes.rule,
        "command_line": command_line,
        "telescope": _telescope(frame),
        **({} if chosen_by is None else {"chosen_by": _telescope(chosen_by)}),
    }
    layout = dataclasses.replace(classes.layout(layout_of(frame)), own=SPECTRAL_ATTRIBUTES)
    extra = (*truth_columns(frame), *classes.share_columns)
    # Fewer galaxies than classes cannot hold every class.
    writer = DatasetWriter(
        out, frame.image_size, 1.0, provenance, overwrite, classes.may_be_empty, extra, layout=layout
    )
    survey = BandSurvey(seed, frame, device, lambda object_id: split_of(object_id) == INTRINSIC_SPLIT, chosen_by)
    with writer, tqdm(total=count, desc="simulating", unit=" galaxies", leave=False) as bar:
        side = frame.image_size * survey.oversampling
        shape = (len(layout.bands), side, side)
        wider = width_by_wings(profile_of(frame.survey.psf_profile))
        intrinsic = GrowingArray(writer.folder / INTRINSIC_FILE, layout.dtype, shape, out)
        with closing(intrinsic):
            for batch in survey.batches(count, blocks_at_once(survey.device, frame.image_size)):
                values = {name: values for name, values in batch.truth.items() if name in (*layout.columns, *extra)}
                values |= _measured(batch, layout, wider, device)
                values["inclination"] = batch.truth["true_inclination"]
                chosen = classes.sort(batch.morphologies, batch.truth)
                writer.append(
                    batch.images[chosen.rows],
                    [batch.object_ids[row] for row in chosen.rows.tolist()],
                    chosen.names,
                    {name: column[chosen.rows] for name, column in values.items()} | chosen.shares,
                )
                intrinsic.append(batch.intrinsic[np.isin(batch.intrinsic_rows, chosen.rows)])
                bar.update(len(batch.images))
            intrinsic.finish()
        writer.unused = classes.finish()
        writer.provenance["intrinsic"] = {
            "file": INTRINSIC_FILE,
            "split": INTRINSIC_SPLIT,
            "pixels_a_pixel": survey.oversampling,
            "pixel_unit": "nJy",
            "sha256": sha256_of(writer.folder / INTRINSIC_FILE),
        }
    return writer


def _telescope(frame: Frame) -> dict[str, Any]:
    """Return what the images were observed with, as JSON values."""
    survey = frame.survey
    return {
        "survey": survey.name,
        "pixel_scale": frame.pixel_scale,
        "smallest": frame.smallest,
        "psf": survey.profile,
        "obscuration": survey.obscuration,
        "bands": [
            {
                "name": band.name,
                "edges_nm": list(band.edges_nm),
                "psf_fwhm": band.psf_fwhm,
                "sky_brightness": band.sky_brightness,
                "zero_point": band.zero_point,
                "exposure_s": band.exposure_s,
                "electrons_per_njy": band.electrons_per_njy,
            }
            for band in survey.bands
        ],
    }


def _measured(batch: BandGalaxies, layout: DataLayout, wider: float, device: str) -> dict[str, np.ndarray]:
    """Return what is measured on the images, and how they were observed, by the names of the catalogue.

    Photometry takes widths of the PSF that are `wider` than those at half maximum, by its wings. On a CPU it is the
    same for any number of threads.
    """
    names, count = layout.band_names, len(batch.images)
    if torch.device(device).type == "cpu":
        firsts = range(0, count, _ON_A_CORE)
        parts = [slice(first, first + _ON_A_CORE) for first in firsts]
        measured = map_on_cores(partial(_photometry, batch, layout, wider, device), parts)
    else:
        measured = [_photometry(batch, layout, wider, device, slice(count))]
    values = {name: np.concatenate([part[name] for part in measured]) for name in measured[0]}
    for place, name in enumerate(names):
        values[f"noise_{name}"] = batch.noise[:, place]
        values[f"psf_fwhm_{name}"] = batch.psf_fwhm[:, place]
    values["size_kpc"] = values["size_arcsec"] / arcsec_per_kpc(batch.truth["redshift"])
    values["masked"] = np.zeros(count)
    return values


def _photometry(
    batch: BandGalaxies, layout: DataLayout, wider: float, device: str, rows: slice
) -> dict[str, np.ndarray]:
    """Return the attributes and the flag of some images."""
    names = layout.band_names
    noise, psf_fwhm = (torch.from_numpy(each[rows]).to(device, torch.float32) for each in (batch.noise, batch.psf_fwhm))
    images = torch.from_numpy(batch.images[rows]).to(device)
    scale = float(batch.truth["pixel_scale"][0])
    photometry = measure_flux(images, scale, noise=noise, psf_fwhm=wider * psf_fwhm, structure=True)
    values = {}
    for name in flux_attributes(names):
        column = torch.where(photometry.known(name, names), photometry.attribute(name, names), torch.nan)
        values[name] = column.double().cpu().numpy()
    return values | {"flag": photometry.flag.double().cpu().numpy()}
