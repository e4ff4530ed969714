"""A prepared dataset on disk: a folder with `images.npy`, `catalogue.csv` and `manifest.json`, opened and checked.

`prepare_data.py` writes it. The pixel values of display pictures are 0..255; `to_float` and `to_uint8` are the one way
from there to what networks work on, and back. Those of flux are nanojansky, see `galaxies.images.stretch`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from config_physics import Config
from galaxies.common.durable_files import sha256_of
from galaxies.common.errors import UserError
from galaxies.common.reading import check_regular
from galaxies.datasets.layout import DISPLAY, SHARE, DataLayout
from galaxies.datasets.prepared_files import (
    AGAIN,
    FaultError,
    check_psfs,
    compare,
    map_array,
    read_catalogue,
    read_manifest,
)
from galaxies.datasets.writing import PHOTOMETRY
from galaxies.images.stretch import NOISE_SOFTENING
from galaxies.measure.flux_model import psf_width, width_by_wings
from galaxies.measure.frame import corner_mask
from galaxies.telescope.exposure import Exposure
from galaxies.telescope.profiles import profile_of

_ESTIMATED = 512  # images that tell the noise of a band where the catalogue does not
_USUAL_PSF_PX = 63  # what a checkpoint keeps of a PSF: its wings beyond hold less than a percent of the light
_CENTRAL = (0.5, 99.5)  # percent of the galaxies between which the slider of an attribute of flux goes


def to_float(images: Tensor) -> Tensor:
    """Map pixel values 0..255 (uint8) to [-1, 1] (float32); exactly undone by `to_uint8`."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Map [-1, 1] (floating point) to the nearest pixel value 0..255 (uint8), clipping what lies outside."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk.

    Attributes
    ----------
    path : Path
    images : ndarray, (N, B, S, S), uint8, or for flux float32, nJy a pixel
        Memory-mapped, read-only.
    catalogue : DataFrame, N rows
        In the order of the images; `object_id` is text.
    manifest : dict
    layout : DataLayout
        What the images are.
    """

    path: Path
    images: np.ndarray
    catalogue: pd.DataFrame
    manifest: dict[str, Any]
    layout: DataLayout = DISPLAY

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> PreparedDataset:
        """Open a dataset; `verify` reads both files through and compares their checksums.

        Whatever is wrong is one sentence: nothing beyond this has to doubt what it finds in a dataset.

        Raises
        ------
        UserError
            If the folder holds no prepared dataset, one of another format version, or one that is damaged, or that was
            changed into something that `DatasetWriter` never writes.
        """
        path = Path(path)
        manifest, layout = read_manifest(path)
        for name in manifest["sha256"]:
            try:
                check_regular(path / name, AGAIN)
                if verify and sha256_of(path / name) != manifest["sha256"][name]:
                    raise UserError(f"{path / name} has changed since it was prepared: {AGAIN}")
            except OSError as error:
                raise UserError(f"{path / name} cannot be read ({error.strerror or error}): {AGAIN}") from None
        try:
            planes = len(layout.bands)
            images = map_array(path / "images.npy", layout.dtype, planes)
            catalogue = read_catalogue(path / "catalogue.csv", layout)
            if len(images) != len(catalogue):
                raise FaultError(f"it has {len(images)} images and {len(catalogue)} rows in catalogue.csv")
            compare(manifest, images, catalogue)
            if layout.is_flux:
                check_psfs(path, manifest, catalogue, planes)
        except FaultError as error:
            raise UserError(f"{path} cannot be used, since {error}: {AGAIN}") from None
        return cls(path, images, catalogue, manifest, layout)

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.images.shape[-1]

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of one split (`train`, `judge` or `test`), ascending."""
        return np.flatnonzero((self.catalogue["split"] == split).to_numpy())

    def classes(self, rows: np.ndarray) -> np.ndarray:
        """Return the class indices (int64) of the given rows."""
        return np.array([self._class_indices[name] for name in self.catalogue["morphology"].iloc[rows]], dtype=np.int64)

    @property
    def has_shares(self) -> bool:
        """Whether it tells the shares of the classes, which `class_shares` returns."""
        return all(SHARE + name in self.catalogue for name in self.layout.classes)

    def class_shares(self, rows: np.ndarray) -> np.ndarray:
        """Return the shares of the classes of the given rows, (len(rows), K) float32, of sum 1.

        Of a galaxy whose shares are unknown, its class has all.

        Raises
        ------
        UserError
            If the dataset has none.
        """
        names = [SHARE + name for name in self.layout.classes]
        if missing := [name for name in names if name not in self.catalogue]:
            raise UserError(
                f"{self.path} has no column {missing[0]}, the share of a class, which --soft-classes needs: prepare it "
                "with --classes and a file of rules that tell shares, or leave out --soft-classes"
            )
        shares = np.nan_to_num(self.catalogue[names].iloc[rows].to_numpy(np.float64)).clip(0)
        total = shares.sum(1, keepdims=True)
        one_hot = np.eye(len(names))[self.classes(rows)]
        return np.divide(shares, total, out=one_hot, where=total > 0).astype(np.float32)

    @property
    def _class_indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.layout.classes)}

    def attributes(self, names: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
        """Return attribute values in physical units, (len(rows), len(names)) float32, NaN where unknown.

        Raises
        ------
        UserError
            If an attribute has no value in this dataset.
        """
        self.layout.attribute_rows(names)
        for name in names:
            if name not in self.catalogue or self.catalogue[name].isna().all():
                known = [a for a in self.manifest.get("attributes", {}) if a in self.catalogue]
                raise UserError(f"{self.path} has no values of '{name}': choose --attributes from {', '.join(known)}")
        return self.catalogue[list(names)].iloc[rows].to_numpy(np.float32, copy=True)

    def pixel_scale(self, rows: np.ndarray) -> np.ndarray:
        """Return arcseconds a pixel, (len(rows),) float32, NaN where unknown."""
        return self._columns(("pixel_scale",), rows)[:, 0]

    def noise(self, rows: np.ndarray) -> np.ndarray:
        """Return the standard deviation of the noise of flux, (len(rows), B) float32, nJy a pixel, NaN if unknown."""
        return self._columns(tuple(f"noise_{name}" for name in self.layout.band_names), rows)

    def psf_fwhm(self, rows: np.ndarray) -> np.ndarray:
        """Return the full width at half maximum of the PSF of flux, (len(rows), B) float32, arcsec, NaN if unknown."""
        return self._columns(tuple(f"psf_fwhm_{name}" for name in self.layout.band_names), rows)

    def psfs(self, rows: np.ndarray) -> np.ndarray | None:
        """Return PSFs as images, (len(rows), B, P, P) float32 of sum 1, or None unless all of the galaxies have one."""
        places = self._columns(("psf",), rows)[:, 0]
        if not self.layout.is_flux or not np.isfinite(places).all():
            return None
        whole = map_array(self.path / "psfs.npy", self.layout.dtype, len(self.layout.bands))
        return np.array(whole[places.astype(np.int64)])

    def usual_psfs(self, split: str) -> np.ndarray | None:
        """Return a usual PSF as images, (B, P, P) float32 of sum 1, P at most `_USUAL_PSF_PX`, or None without any.

        It is that of the galaxy of a split whose widths are nearest to the median ones.
        """
        row = self._usual_psf_row(self.rows(split)) if self.layout.is_flux else None
        if row is None:
            return None
        psfs = self.psfs(np.array([row]))
        assert psfs is not None, "the row has one"
        return _inner(psfs, _USUAL_PSF_PX)[0]

    def seen_widths(self, split: str) -> tuple[float, ...]:
        """Return the usual full width of a split's PSF as photometry takes it, arcsec a band, NaN where unknown.

        Its wings count where the PSF is an image, or its shape is told.
        """
        rows = self.rows(split)
        rows = rows if len(rows) else np.arange(len(self.images))
        psfs = self.usual_psfs(split)
        if psfs is not None:
            widths = psf_width(torch.from_numpy(psfs)[None])[0] * float(np.nanmedian(self.pixel_scale(rows)))
            return tuple(widths.tolist())
        told = self._telescope().get("psf_profile")
        wider = width_by_wings(profile_of(told)) if told else 1.0
        return tuple(float(f"{wider * w:.4g}") if w > 0 else math.nan for w in _medians(self.psf_fwhm(rows)))

    @property
    def photometry(self) -> int:
        """Which photometry measured the values of flux: see `writing.PHOTOMETRY`."""
        return int(self.manifest.get("photometry", 1))

    def remark(self) -> str | None:
        """Return a sentence on what of the dataset is not as it would be measured today, None if nothing is."""
        if not self.layout.is_flux or self.photometry >= PHOTOMETRY:
            return None
        # Of wings nothing is known where the PSF's width alone is told.
        wings = "psf_profile" in self._telescope() or self._usual_psf_row(self.rows("train")) is not None
        if self.photometry < 2 and wings:
            return (
                f"radii in {self.path} were measured as if its PSFs had no wings, and are a few percent too large "
                "beside those measured today: prepare the data again before comparing radii"
            )
        return (
            f"ellipticities of faint galaxies in {self.path} were measured with what noise flattens, and are up to "
            "0.07 too large at a signal-to-noise ratio of 10: prepare the data again before comparing such"
        )

    def _usual_psf_row(self, rows: np.ndarray) -> int | None:
        """Return which of some galaxies of flux has the usual PSF among those that are images, None without any."""
        rows = rows[np.isfinite(self._columns(("psf",), rows)[:, 0])]
        if len(rows) == 0:
            return None
        widths = self.psf_fwhm(rows)
        distance = np.abs(widths / np.maximum(_medians(widths), 1e-12) - 1)
        return int(rows[np.argmin(np.nan_to_num(distance, nan=1.0).sum(1))])

    def _columns(self, names: tuple[str, ...], rows: np.ndarray) -> np.ndarray:
        known = self.catalogue.reindex(columns=list(names))
        return known.iloc[rows].to_numpy(np.float32, copy=True)

    def settings(self, attributes: tuple[str, ...]) -> dict[str, Any]:
        """Return the settings of a run that come from its data, by their names in `Config`.

        These are image size, kind, bands, classes, what these are called where that is told, and attributes of a user's
        own; and of flux the softening of the stretch by the typical noise of each band in the training split, the usual
        pixel scale and width of the PSF, and the range of each attribute: that of the central 99 % of the training
        galaxies, or the one that the manifest tells.

        Raises
        ------
        UserError
            If an attribute has no value in this dataset.
        """
        shape: dict[str, Any] = {
            "image_size": self.image_size,
            "kind": self.layout.kind,
            "bands": self.layout.band_names,
        }
        shape["classes"] = self.layout.classes
        labels, about = self.layout.class_labels, self.layout.class_descriptions
        shape |= {"class_labels": labels} if any(labels) else {}
        shape |= {"class_descriptions": about} if any(about) else {}
        if self.layout.own:
            shape["attribute_definitions"] = tuple(row.definition() for row in self.layout.own)
        if not self.layout.is_flux:
            return shape
        rows = self.rows("train")
        rows = rows if len(rows) else np.arange(len(self.images))
        values = self.attributes(attributes, rows)
        scale = self.pixel_scale(rows)
        if not np.isfinite(scale).any():
            raise UserError(f"{self.path} has no pixel_scale: {AGAIN}")
        softening = NOISE_SOFTENING * self._typical_noise(rows)
        own = {row.name: (row.low, row.high) for row in self.layout.own}
        pairs = [own.get(name) or _central_range(column) for name, column in zip(attributes, values.T, strict=True)]
        ranges = [end for pair in pairs for end in pair]
        return shape | {
            "softening": tuple(float(f"{s:.4g}") for s in softening),
            "pixel_scale": float(f"{np.nanmedian(scale):.6g}"),
            "psf_fwhm": tuple(float(f"{w:.4g}") for w in _medians(self.psf_fwhm(rows))),
            "wavelengths": tuple(float(f"{max(np.nan_to_num(b.wavelength_nm), 0):.6g}") for b in self.layout.bands),
            "psf_pixels": self._psf_pixels(),
            **self._telescope(),
            "attribute_ranges": tuple(ranges),
        }

    def exposures(self, rows: np.ndarray, settings: Config) -> Exposure:
        """Return how galaxies were observed, on the CPU; what is not known is as usual for the run with `settings`.

        Galaxies without a PSF of their own have the usual one where a run has PSFs as images.
        """
        scale, fwhm, noise = self.pixel_scale(rows), self.psf_fwhm(rows), self.noise(rows)
        scale = np.where(np.isfinite(scale), scale, settings.pixel_scale)
        fwhm = np.where(np.isfinite(fwhm), fwhm, np.asarray(settings.psf_fwhm, np.float32))
        usual = np.asarray(settings.softening, np.float32) / NOISE_SOFTENING
        noise = np.where(np.isfinite(noise) & (noise > 0), noise, usual)
        images = None
        if settings.psf_pixels:
            images = torch.from_numpy(self._psf_images(rows, settings.psf_pixels))
        known = [torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (scale, fwhm, noise)]
        return Exposure(known[0], known[1], known[2], images)

    def _psf_images(self, rows: np.ndarray, most: int) -> np.ndarray:
        """Return PSFs (n, B, P, P) of galaxies, P at most `most`, the usual one where a galaxy has none; of sum 1."""
        places = self._columns(("psf",), rows)[:, 0]
        usual = self._usual_psf_row(self.rows("train"))
        assert usual is not None, "the run has PSFs as images"
        places = np.where(np.isfinite(places), places, self._columns(("psf",), np.array([usual]))[0, 0])
        whole = map_array(self.path / "psfs.npy", self.layout.dtype, len(self.layout.bands))
        return _inner(np.array(whole[places.astype(np.int64)]), most)

    def _psf_pixels(self) -> int:
        """Return the side of the PSFs as images that a run takes: at most that of the galaxies, 0 without any."""
        row = self._usual_psf_row(self.rows("train"))
        return 0 if row is None else self._psf_images(np.array([row]), self.image_size).shape[-1]

    def _telescope(self) -> dict[str, Any]:
        """Return photon noise and shape of the PSF as settings, where the manifest tells them."""
        unknown: dict[str, Any] = {}
        told = self.manifest.get("telescope")
        if not isinstance(told, dict):
            return unknown
        try:
            electrons = {row["name"]: float(row["electrons_per_njy"]) for row in told["bands"]}
            photons = tuple(float(f"{1 / electrons[name]:.4g}") for name in self.layout.band_names)
            number = f":{float(told['obscuration']):.4g}" if told["psf"] == "airy" else ""
            return {"photons": photons, "psf_profile": f"{told['psf']}{number}"}
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return unknown

    def _typical_noise(self, rows: np.ndarray) -> np.ndarray:
        """Return the median noise of each band, (B,), nJy a pixel; that of the frames' corners where it is unknown."""
        known = self.noise(rows)
        chosen = self.images[rows[:: max(1, len(rows) // _ESTIMATED)]]
        corners = np.asarray(chosen[..., corner_mask(self.image_size, torch.device("cpu")).numpy()])  # (n, B, P)
        spread = corners - np.median(corners, axis=2, keepdims=True)
        estimated = np.median(1.4826 * np.median(np.abs(spread), axis=2), axis=0)
        typical = _medians(known)
        typical = np.where(typical > 0, typical, estimated)
        brightest = np.abs(chosen).max(axis=(0, 2, 3)) / 1e6  # of images without noise
        return np.maximum(typical, np.maximum(brightest, 1e-12))


def _inner(psfs: np.ndarray, most: int) -> np.ndarray:
    """Return the middle of PSFs (n, B, P, P), at most `most` pixels a side, each of sum 1."""
    side = psfs.shape[-1]
    margin = max(0, (side - most + 1) // 2)
    inner = psfs[..., margin : side - margin, margin : side - margin]
    return np.ascontiguousarray(inner / inner.sum((2, 3), keepdims=True))


def _medians(values: np.ndarray) -> np.ndarray:
    """Return the medians (B,) of what is known of values (N, B), 0 where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any
        return np.nan_to_num(np.nanmedian(values, axis=0), nan=0.0)


def _central_range(values: np.ndarray) -> tuple[float, float]:
    """Return the range of a slider: that of the central 99 % of the values, rounded outwards to hundredths of it."""
    low, high = (float(end) for end in np.nanpercentile(values, _CENTRAL))
    span = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-6)
    step = 10.0 ** math.floor(math.log10(span)) / 10
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    if high - low < 2 * step:
        low, high = low - step, high + step
    return float(f"{low:.6g}"), float(f"{high:.6g}")


def find_dataset(folder: Path, chosen: str = "") -> Path | None:
    """Return the chosen dataset, or the only one in `folder`, or None if there is none.

    Raises
    ------
    UserError
        If none was chosen and there is more than one.
    """
    if chosen:
        return Path(chosen)
    found = sorted(manifest.parent for manifest in folder.glob("[!.]*/manifest.json"))
    if len(found) > 1:
        raise UserError(f"there are several datasets, choose one: {', '.join(f'--data {p}' for p in found)}")
    return found[0] if found else None
