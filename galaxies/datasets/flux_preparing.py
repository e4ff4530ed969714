"""From planes of flux to a prepared dataset: noise measured, bad pixels filled, galaxies measured and written."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from galaxies.common.cosmology import arcsec_per_kpc
from galaxies.datasets.layout import DataLayout
from galaxies.datasets.preparing import print_summary
from galaxies.datasets.writing import DatasetWriter
from galaxies.measure.flux import flux_attributes, measure_flux
from galaxies.measure.flux_model import psf_width

MOST_MISSING = 0.5  # part of the pixels of a band that may have no value
_BLOCK_PX, _LEAST_PX = 16, 6  # sides of the areas in which noise is measured, at least four by four of them
_CLIP = 3.0  # standard deviations
_SHARING_PX = 3  # distance over which neighbours are taken to share their noise
_CLIPPED = 0.98658  # standard deviation of a normal distribution that is cut at 3
_FILLING_PX = (1.0, 2.0, 4.0)  # widths of the means that fill what is missing, one after the other
_WEIGHT = 0.05  # of such a mean, at least


class FluxBlock(NamedTuple):
    """Some galaxies on their way into a dataset.

    Attributes
    ----------
    images : ndarray, (n, B, S, S), float32
        nJy a pixel, sky subtracted, NaN where there is no value.
    object_ids, morphologies : sequence of str, (n,)
        Ids, and class names of the dataset's layout.
    pixel_scale : ndarray, (n,)
        Arcseconds a pixel.
    noise : ndarray, (n, B), optional
        Standard deviation of the noise of a sky pixel, nJy; measured where it is NaN, or all of it if None.
    psf_fwhm : ndarray, (n, B), optional
        Arcseconds, NaN where unknown.
    values : dict of str to ndarray, (n,)
        Attributes of the catalogue and extra columns, NaN where unknown.
    psfs : ndarray, (n or 1, B, P, P), float32, optional
        Point spread functions on pixels as large as those of the images.
    rejected : sequence of (str, str, str)
        What was left out since the last block: its name, the reason, and what was found where that says more.
    """

    images: np.ndarray
    object_ids: Sequence[str]
    morphologies: Sequence[str]
    pixel_scale: np.ndarray
    noise: np.ndarray | None = None
    psf_fwhm: np.ndarray | None = None
    values: Mapping[str, np.ndarray] = {}
    psfs: np.ndarray | None = None
    rejected: Sequence[tuple[str, str, str]] = ()


def write_flux(
    blocks: Iterable[FluxBlock],
    out: Path,
    size: int,
    layout: DataLayout,
    provenance: Mapping[str, Any],
    *,
    extra_columns: Sequence[str] = (),
    overwrite: bool = False,
    allow_empty_class: bool = False,
    inputs: Sequence[Path] = (),
    total: int | None = None,
    unused: int = 0,
    most_missing: float = MOST_MISSING,
    say: Callable[[], None] | None = None,
) -> None:
    """Write a flux dataset of blocks of galaxies and print what it holds; memory does not grow with their number.

    Parameters
    ----------
    blocks : iterable of FluxBlock
        Taken one at a time.
    out : Path
        Folder to make.
    size : int
        Pixels a side, S.
    layout : DataLayout
        Bands and classes.
    provenance : dict
        Entries for the manifest: source, command_line and so on (JSON values).
    extra_columns : sequence of str
        Names among `values` that are no attributes.
    overwrite, allow_empty_class, inputs
        As for `DatasetWriter`.
    total : int, optional
        Galaxies that are expected, for the progress bar.
    unused : int
        Galaxies of the source that fit no class.
    most_missing : float
        Part of the pixels of a band that may have no value; a galaxy with more is left out.
    say : callable, optional
        Prints what the source has to say, before the summary.

    Raises
    ------
    UserError
        If no galaxy is left, or the dataset cannot be written.
    """
    unmeasured = filled = 0
    writing = DatasetWriter(
        out, size, 1.0, provenance, overwrite, allow_empty_class, extra_columns, inputs=inputs, layout=layout
    )
    with writing as writer, tqdm(desc="preparing", total=total, unit=" galaxies", leave=False) as bar:
        writer.unused = unused
        for block in blocks:
            kept, lost = _with_enough_pixels(block, most_missing)
            for rejected in (*block.rejected, *lost):
                writer.reject(*rejected)
            bar.update(len(block.object_ids) + len(block.rejected))
            if len(kept.object_ids):
                images, measured = _measured(kept, layout)
                unmeasured += int(np.isnan(measured["size_arcsec"]).sum())
                filled += int((measured["masked"] > 0).sum())
                values = {**kept.values, **measured}
                writer.append(images, kept.object_ids, kept.morphologies, values, psfs=kept.psfs)
    if say is not None:
        say()
    if filled:
        print(f"{filled} galaxies have pixels without a value, which are filled in (column masked)")
    if unmeasured:
        print(f"{unmeasured} images show no galaxy at the centre: they are kept without measured attributes")
    print_summary(writer)


def _with_enough_pixels(block: FluxBlock, most_missing: float) -> tuple[FluxBlock, list[tuple[str, str, str]]]:
    """Return the galaxies most of whose pixels have a value in every band, and why the others are left out."""
    worst = np.isnan(block.images).mean((2, 3)).max(1, initial=0)
    keep = worst <= most_missing
    lost = [
        (name, "too few pixels with a value", f"{100 * part:.0f} % of a band have none")
        for name, part, kept in zip(block.object_ids, worst, keep, strict=True)
        if not kept
    ]
    if not lost:
        return block, lost
    places = np.flatnonzero(keep).tolist()

    def of(values: Any) -> Any:
        return None if values is None else values[places]

    one_psf = block.psfs is not None and len(block.psfs) == 1
    return (
        FluxBlock(
            block.images[places],
            [block.object_ids[k] for k in places],
            [block.morphologies[k] for k in places],
            block.pixel_scale[places],
            of(block.noise),
            of(block.psf_fwhm),
            {name: column[places] for name, column in block.values.items()},
            block.psfs if one_psf else of(block.psfs),
        ),
        lost,
    )


def _measured(block: FluxBlock, layout: DataLayout) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return images without gaps, and what the catalogue says of them."""
    bands = layout.band_names
    bad = np.isnan(block.images)
    noise = np.full(bad.shape[:2], np.nan) if block.noise is None else np.array(block.noise, np.float64)
    if np.isnan(noise).any():
        noise = np.where(np.isnan(noise), sky_noise(block.images), noise)
    images = filled_in(block.images, noise, block.object_ids)
    fwhm = np.full(noise.shape, np.nan) if block.psf_fwhm is None else np.asarray(block.psf_fwhm, np.float64)
    widths = torch.as_tensor(fwhm, dtype=torch.float32)
    if block.psfs is not None:  # which tell of wings as well
        widths = psf_width(torch.from_numpy(block.psfs).float()) * torch.as_tensor(block.pixel_scale).float()[:, None]
    photometry = measure_flux(
        torch.from_numpy(images),
        torch.as_tensor(block.pixel_scale, dtype=torch.float32),
        noise=torch.as_tensor(noise, dtype=torch.float32),
        psf_fwhm=widths,
        mask=torch.from_numpy(bad.any(1) & ~_padding(bad.any(1))) if bad.any() else None,
        structure=True,
    )
    values = {}
    for name in flux_attributes(bands):
        value = np.where(photometry.known(name, bands), photometry.attribute(name, bands).double(), np.nan)
        low, high = layout.limits_of(name)
        values[name] = np.where((value > low) & (value <= high), value, np.nan)
    values |= {f"noise_{band}": noise[:, k] for k, band in enumerate(bands)}
    values |= {f"psf_fwhm_{band}": fwhm[:, k] for k, band in enumerate(bands)}
    values |= {"pixel_scale": np.asarray(block.pixel_scale, np.float64), "masked": bad.mean((1, 2, 3))}
    values["flag"] = photometry.flag.double().numpy()
    if "redshift" in block.values:
        redshift = np.asarray(block.values["redshift"], np.float64)
        known = redshift > 0
        scale = arcsec_per_kpc(np.where(known, redshift, 1.0))
        values["size_kpc"] = np.where(known, values["size_arcsec"] / scale, np.nan)
    return images, values


def _padding(bad: np.ndarray) -> np.ndarray:
    """Return which bad pixels (n, S, S) are what a frame is larger than its cutout: as many on opposite sides.

    They are filled with sky, which photometry may take for such: without it, it would have none.
    """
    size = bad.shape[-1]
    padding = np.zeros_like(bad)
    for row in np.flatnonzero(bad.any((1, 2))).tolist():
        for axis in (0, 1):
            full = bad[row].all(axis)
            if full.all():
                continue
            width = min(int(np.argmin(full)), int(np.argmin(full[::-1])))
            lines = np.r_[:width, size - width : size]
            padding[row][(slice(None), lines) if axis == 0 else lines] = True
    return padding


# Noise


def sky_noise(images: np.ndarray) -> np.ndarray:
    """Measure the standard deviation of the noise of a sky pixel in each plane.

    A plane is cut into areas of 16 pixels a side, or a quarter of its own if that is less. From each a plane through
    its values is taken off, which leaves nothing of a sky level and little of a galaxy's wings, and what lies more than
    3 standard deviations away. The noise is the median over the fainter half of the areas. It is that of a pixel
    whether or not neighbours share their noise, as they do after resampling, which an estimate from differences of
    neighbours would not be.

    Parameters
    ----------
    images : ndarray, (n, B, S, S)
        NaN where there is no value.

    Returns
    -------
    ndarray, (n, B), float64
        NaN where half of no area has values, or where all are equal, as in models without noise.
    """
    side = min(_BLOCK_PX, max(images.shape[-1] // 4, _LEAST_PX))
    count = images.shape[-1] // side
    first = (images.shape[-1] - count * side) // 2
    inner = images[..., first : first + count * side, first : first + count * side].astype(np.float64)
    areas = inner.reshape(*images.shape[:2], count, side, count, side).swapaxes(3, 4)
    areas = areas.reshape(*images.shape[:2], count**2, side**2)
    good = np.isfinite(areas)
    enough = good.mean(-1) >= 0.5
    values = np.where(good, areas, 0)
    axis = np.linspace(-1, 1, side)
    plane = np.stack([np.ones(side**2), np.tile(axis, side), np.repeat(axis, side)])  # (3, px)
    kept = good
    spread = np.zeros(areas.shape[:-1])
    for _ in range(5):
        weights = kept.astype(np.float64)
        normal = np.einsum("ip,jp,...p->...ij", plane, plane, weights) + 1e-9 * np.eye(3)
        moments = np.einsum("ip,...p->...i", plane, weights * values)
        fit = np.linalg.solve(normal, moments[..., None])[..., 0]
        left = values - np.einsum("...i,ip->...p", fit, plane)
        freedom = np.maximum(weights.sum(-1) - 3, 1)
        spread = np.sqrt((weights * left**2).sum(-1) / freedom)
        kept = good & (np.abs(left) <= _CLIP * spread[..., None])
    level = np.where(enough, fit[..., 0], np.inf)
    place = level.argsort(-1, kind="stable").argsort(-1, kind="stable")
    faint = enough & (place < np.maximum(-(-enough.sum(-1, keepdims=True) // 2), 1))
    # What the plane takes away counts for as many pixels as share their noise.
    shared = _shared_by(np.where(kept, left, 0).reshape(*left.shape[:-1], side, side), faint)
    freedom = freedom / np.maximum(freedom - 3 * (shared[..., None] - 1), 1)
    chosen = np.where(faint, spread * np.sqrt(freedom) / _CLIPPED, np.nan)
    noise = np.full(images.shape[:2], np.nan)
    known = faint.any(-1)
    noise[known] = np.nanmedian(chosen[known], -1)
    return np.where(noise > 0, noise, np.nan)


def _shared_by(left: np.ndarray, faint: np.ndarray) -> np.ndarray:
    """Return how many pixels share their noise: the sum of its autocorrelation, along x times along y.

    Of residuals (n, B, areas, side, side), 0 where there is none, in the areas (n, B, areas) that are chosen.
    """
    left = left * faint[..., None, None]
    power = np.maximum((left**2).sum((2, 3, 4)), np.finfo(float).tiny)
    side = left.shape[-1]
    total = np.ones_like(power)
    for axis in (-1, -2):
        moved = np.moveaxis(left, axis, -1)
        lags = range(1, _SHARING_PX + 1)
        products = [(moved[..., lag:] * moved[..., :-lag]).sum((2, 3, 4)) * side / (side - lag) for lag in lags]
        total = total * np.maximum(1 + 2 * sum(products) / power, 1)
    return total


# Bad pixels


def filled_in(images: np.ndarray, noise: np.ndarray, object_ids: Sequence[str]) -> np.ndarray:
    """Return images with what is missing filled in, for networks that know no gaps.

    A missing pixel gets the mean of what is around it, weighted by a Gaussian of 1, 2 or 4 pixels, the first that
    reaches enough of it; far from everything, the sky, which is 0. To it noise is added as the plane has it, so that
    the place does not stand out, also where neighbours share their noise; its seed is the galaxy's id.

    Parameters
    ----------
    images : ndarray, (n, B, S, S), float32
        NaN where there is no value.
    noise : ndarray, (n, B)
        Standard deviation of a sky pixel; NaN for none.
    object_ids : sequence of str, (n,)

    Returns
    -------
    ndarray, (n, B, S, S), float32
        Finite; the same where there was a value.
    """
    bad = np.isnan(images)
    filled = np.where(bad, np.float32(0), images)
    for row in np.flatnonzero(bad.any((1, 2, 3))).tolist():
        seed = int.from_bytes(hashlib.sha256(object_ids[row].encode()).digest()[:8], "big")
        grain = np.random.default_rng(seed).standard_normal(images.shape[1:], np.float32)
        for plane, sigma in enumerate(np.nan_to_num(noise[row], nan=0.0)):
            grain[plane] = sigma * _shared(grain[plane], _neighbours_share(images[row, plane], sigma))
        good = torch.from_numpy(~bad[row]).float()[:, None]
        values = torch.from_numpy(filled[row])[:, None]
        around, open_yet = torch.zeros_like(values), good == 0
        for width in _FILLING_PX:
            weight = _blurred(good, width)
            reached = open_yet & (weight > _WEIGHT)
            around = torch.where(reached, _blurred(values * good, width) / weight.clamp_min(_WEIGHT), around)
            open_yet &= ~reached
        filled[row] = np.where(bad[row], around[:, 0].numpy() + grain, filled[row])
    return filled


def _neighbours_share(plane: np.ndarray, sigma: float) -> float:
    """Return the correlation of the noise of neighbouring pixels of a plane (S, S), from 0 to 0.7.

    By the spread of their differences, robust against galaxies: its variance is 2 (1 - correlation) sigma^2.
    """
    steps = np.concatenate([np.diff(plane, axis=axis).ravel() for axis in (0, 1)])
    steps = steps[np.isfinite(steps)]
    if sigma <= 0 or not len(steps):
        return 0.0
    spread = 1.4826 * float(np.median(np.abs(steps - np.median(steps))))
    return min(max(1 - (spread / sigma) ** 2 / 2, 0.0), 0.7)


def _shared(grain: np.ndarray, correlation: float) -> np.ndarray:
    """Return noise (S, S) of unit variance whose neighbours are correlated, made of noise where they are not.

    By weights a, 1, a along each axis, for which the correlation of neighbours is 2 a / (1 + 2 a^2).
    """
    if correlation < 0.02:
        return grain
    a = (1 - math.sqrt(1 - 2 * correlation**2)) / (2 * correlation)
    for axis in (0, 1):
        grain = (grain + a * (np.roll(grain, 1, axis) + np.roll(grain, -1, axis))) / math.sqrt(1 + 2 * a**2)
    return grain


def _blurred(planes: torch.Tensor, width: float) -> torch.Tensor:
    """Convolve planes (B, 1, S, S) with a Gaussian of a standard deviation in pixels; 0 outside."""
    reach = int(3 * width)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2)
    kernel = kernel / kernel.sum()
    rows = F.conv2d(planes, kernel[None, None, None], padding=(0, reach))
    return F.conv2d(rows, kernel[None, None, :, None], padding=(reach, 0))
