"""Generate and measure requested galaxies, and write a small number of them: pictures, a grid, a catalogue."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from config_physics import Attribute
from galaxies.common.durable_files import plain_errors
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import PICTURES, check_folder, output_folder
from galaxies.compute.recorded_functions import finished, to_host
from galaxies.datasets.population import VERDICTS
from galaxies.generation.fits_files import ImageFacts, write_fits
from galaxies.generation.provenance import file_stems, grid_texts, png_texts
from galaxies.generation.request_values import SHARE
from galaxies.generation.requests import Requests, RequestSequence
from galaxies.generation.sampler import GalaxySampler
from galaxies.generation.spectrum_files import SpectrumOf, check_spectra, spectrum_of, warnings_about, write_spectrum
from galaxies.images.grids import plain_grid, save_picture, to_picture
from galaxies.measure.statistics_table import PLACES, Measured

Spectra = tuple[Sequence[tuple[float, float]], Sequence[SpectrumOf]]  # edges of the bands, and one a galaxy
GRID_LIMIT = 256  # images in the grid
OBSERVATION = "observation.json"  # what a survey observed with


def generate_blocks(
    sampler: GalaxySampler, requests: RequestSequence, measure: bool = True
) -> Iterator[tuple[Tensor, pd.DataFrame]]:
    """Generate the requested images, and measure them unless that is left out, a block at a time.

    Yields
    ------
    images : Tensor, (K, B, S, S)
        As `GalaxySampler.generate` returns them, as many as suit the sampler's device. On CUDA it is at work on the
        next block while this one is dealt with.
    catalogue : DataFrame, K rows
        seed, morphology, ``requested_<attribute>`` (drawn ones included; empty where unknown), ``set_by_user``,
        ``requested_position_angle`` (degrees) where one is asked for, ``requested_share_<class>`` where mixtures are,
        ``measured_<attribute>`` of what photometry measures (empty where it finds no galaxy, or in flux where the
        value means nothing), of flux also each band's magnitude and what else a catalogue has, measurement ``flag``,
        ``supported``, ``support`` (one of `VERDICTS`), and ``nearest_real``, the distance to the nearest real galaxy of
        the class in what is set, in its spreads (empty where nothing is set or known); see `Population.support`.
    """
    begun = (_begin_block(sampler, block, measure) for block in requests.blocks(sampler.block))
    yield from finished(begun, sampler.blocks_ahead)


def _begin_block(sampler: GalaxySampler, block: Requests, measure: bool) -> Callable[[], tuple[Tensor, pd.DataFrame]]:
    """Begin to generate and measure a block of requests, and return what waits for its images and catalogue."""
    values = block.values if block.drawn else sampler.complete_all(block.classes, block.values, block.seeds)
    drawn = sampler.draw(block.classes, values, block.seeds, block.position_angles, shares=block.shares)
    measured, images = sampler.measure.begin(drawn) if measure else None, to_host(drawn)

    def finish() -> tuple[Tensor, pd.DataFrame]:
        return images()[0], catalogue_of(sampler, block, values, None if measured is None else measured())

    return finish


def catalogue_of(sampler: GalaxySampler, requests: Requests, values: Tensor, measured: Measured | None) -> pd.DataFrame:
    """Return the catalogue that `generate_blocks` yields.

    Parameters
    ----------
    sampler : GalaxySampler
    requests : Requests
        N of them.
    values : Tensor, (N, A), float32
        With the drawn attributes.
    measured : Measured, of N images, or None
        From `GalaxySampler.measure`; without it the catalogue has no ``measured_<attribute>`` and no ``flag``.
    """
    names = np.array(sampler.config.classes, dtype=object)
    readings = {} if measured is None else measured.values
    columns: dict[str, Any] = {"seed": np.asarray(requests.seeds, np.int64)}
    columns["morphology"] = names[requests.classes.numpy()]
    if requests.shares is not None:
        for name, share in zip(names, requests.shares.T.numpy(), strict=True):
            columns[f"{SHARE}{name}"] = share
    for column, attribute in enumerate(sampler.attributes):
        columns[f"requested_{attribute.name}"] = values[:, column].numpy()
        if attribute.name in readings:
            columns[f"measured_{attribute.name}"] = readings[attribute.name].astype(np.float32)
            if attribute.name == "inclination":  # of what is no disc it means nothing
                columns["measured_inclination"][values[:, column].isnan().numpy()] = np.nan
    for name in readings:
        if name not in (*sampler.config.attributes, *PLACES) and sampler.config.kind == "flux":
            columns[f"measured_{name}"] = readings[name].astype(np.float32)
    if requests.position_angles is not None:
        columns["requested_position_angle"] = requests.position_angles.numpy()
    given, pattern = requests.values.isfinite().unique(dim=0, return_inverse=True)
    by_user = given & (not requests.drawn)
    labels = [" ".join(a.name for a, is_set in zip(sampler.attributes, row, strict=True) if is_set) for row in by_user]
    columns["set_by_user"] = np.array(labels, dtype=object)[pattern.numpy()]
    if measured is not None:
        columns["flag"] = measured.flags
    support = sampler.support(requests.classes, requests.values)
    columns["supported"] = (support.verdicts == 0).numpy()
    columns["support"] = np.array(VERDICTS, dtype=object)[support.verdicts.numpy()]
    is_measured = support.nearest.isfinite() & given[pattern].any(1)
    columns["nearest_real"] = torch.where(is_measured, support.nearest, math.nan).numpy()
    return pd.DataFrame(columns)


def generate_pictures(
    sampler: GalaxySampler,
    requests: Requests,
    out: Path,
    formats: set[str],
    inputs: Sequence[Path] = (),
    told: bool = False,
    with_spectra: bool = False,
) -> str:
    """Generate a few galaxies, write them (see `write_pictures`), and say in a sentence what was done.

    Files are numbered, or their names are `told` by what was asked for; see `file_stems`. `with_spectra` each has the
    spectrum that its magnitudes and redshift imply, see `spectrum_files`; what these miss is said on standard error.

    Raises
    ------
    UserError
        If the folder holds something else of this program, or cannot be written; or the run can have no spectra.
    """
    facts = sampler.facts
    edges = check_spectra(sampler.config) if with_spectra else []
    names = file_stems(requests, sampler.config) if told else numbered_names(len(requests))
    check_folder(out, PICTURES, file_names(names, formats, facts, with_spectra), inputs)  # before the work
    images, tables = [], []
    with tqdm(total=len(requests), unit=" images", desc="generating", disable=len(requests) < 64) as bar:
        for block, table in generate_blocks(sampler, requests):
            images.append(block)
            tables.append(table)
            bar.update(len(block))
    catalogue = pd.concat(tables, ignore_index=True)
    drawn, pictures = torch.cat(images), sampler.pictures
    spectra: Spectra | None = None
    if with_spectra:
        spectra = edges, [spectrum_of(row, facts.bands, edges) for _, row in catalogue.iterrows()]
        for sentence in warnings_about(spectra[1]):
            print(f"warning: {sentence}", file=sys.stderr)
    write_pictures(out, formats, drawn, catalogue, sampler.attributes, inputs, pictures, facts, names, spectra)
    return f"{len(requests)} galaxies in {out} ({sampler.describe()})"


def numbered_names(count: int) -> list[str]:
    """Return names of so many pictures by their place, without an ending."""
    digits = max(5, len(str(count - 1)))
    return [f"galaxy_{k:0{digits}d}" for k in range(count)]


def file_names(
    names: Sequence[str], formats: set[str], facts: ImageFacts | None = None, with_spectra: bool = False
) -> list[str]:
    """Return the files that galaxies of these names are written to, relative to their folder."""
    single = [f"images/{name}.{ending}" for ending in formats - {"npz"} for name in names]
    archive = ["images.npz"] if "npz" in formats else []
    observation = [OBSERVATION] if facts is not None and facts.observation else []
    spectra = [f"spectra/{name}.fits" for name in names] if with_spectra else []
    return ["grid.png", "catalogue.csv", *archive, *observation, *single, *spectra]


def write_pictures(
    out: Path,
    formats: set[str],
    images: Tensor,
    catalogue: pd.DataFrame,
    attributes: Sequence[Attribute],
    inputs: Sequence[Path] = (),
    pictures: Callable[[Tensor], Tensor] = lambda images: images,
    facts: ImageFacts | None = None,
    names: Sequence[str] | None = None,
    spectra: Spectra | None = None,
) -> None:
    """Write a grid, a catalogue, the images in the chosen formats, and what observed them: all of it, or nothing.

    What an earlier call left there goes, for it would be mistaken for part of this catalogue.

    Parameters
    ----------
    out : Path
        Folder, made if it is not there; what else is in it stays.
    formats : set of {"png", "npz", "fits"}
    images : Tensor, (N, B, S, S)
        uint8, or of flux float32, nJy a pixel.
    catalogue : DataFrame, N rows
        As `generate_blocks` makes it; ``file`` is added as the first column.
    attributes : sequence of Attribute
    inputs : sequence of Path
        Files that the galaxies were made from, which are not written over.
    pictures : callable
        Makes pictures (N, 3, S, S) uint8 of images.
    facts : ImageFacts, optional
        Needed of flux.
    names : sequence of str, N, optional
        Of the files, without endings; by default their numbers.
    spectra : (edges of the bands, spectra), optional
        As `spectrum_files` makes them, N; a galaxy without a spectrum gets no file.

    Raises
    ------
    UserError
        If the folder is refused, see `outputs.check_folder`, or cannot be written.
    """
    catalogue = catalogue.copy()
    names = numbered_names(len(catalogue)) if names is None else names
    catalogue.insert(0, "file", list(names))
    said = facts or ImageFacts()
    where = output_folder(out, PICTURES, file_names(names, formats, facts, spectra is not None), inputs)
    with where as folder, plain_errors(out):
        if formats - {"npz"}:
            (folder / "images").mkdir()
        grid = plain_grid(pictures(images[:GRID_LIMIT]))
        save_picture(grid, folder / "grid.png", grid_texts(min(len(images), GRID_LIMIT), said))
        for k, name in enumerate(catalogue["file"]):
            if "png" in formats:
                texts = png_texts(catalogue.iloc[k], attributes, said)
                save_picture(to_picture(pictures(images[k : k + 1])[0]), folder / "images" / f"{name}.png", texts)
            if "fits" in formats:
                with (folder / "images" / f"{name}.fits").open("wb") as file:
                    write_fits(file, images[k], catalogue.iloc[k], attributes, facts)
        if spectra is not None:
            (folder / "spectra").mkdir()
            for k, found in enumerate(spectra[1]):
                if found.fitted is not None:
                    with (folder / "spectra" / f"{names[k]}.fits").open("wb") as file:
                        write_spectrum(file, found, catalogue.iloc[k], attributes, said, spectra[0])
        if "npz" in formats:
            columns: dict[str, Any] = {
                str(name): column.to_numpy() for name, column in catalogue.items() if column.dtype.kind in "fib"
            }
            classes = catalogue["morphology"].to_numpy(dtype=np.str_)
            if facts is not None and facts.is_flux:
                columns |= {"bands": np.array(facts.bands), "pixel_scale": facts.pixel_scale, "unit": "nJy"}
            with (folder / "images.npz").open("wb") as file:
                np.savez_compressed(file, images=images.numpy(), morphology=classes, **columns)
        if facts is not None and facts.observation:
            (folder / OBSERVATION).write_text(json_text(dict(facts.observation), indent=1) + "\n", encoding="utf-8")
        (folder / "catalogue.csv").write_bytes(catalogue.to_csv(index=False).encode())
