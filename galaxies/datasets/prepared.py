"""A prepared dataset on disk: a folder with `images.npy`, `catalogue.csv` and `manifest.json`, opened and checked.

`prepare_data.py` writes it. The pixel values of display pictures are 0..255; `to_float` and `to_uint8` are the one way
from there to what networks work on, and back. Those of flux are nanojansky, see `galaxies.images.stretch`.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from config_physics import MOST_BANDS, MOST_CLASS_TEXT, Config, morphology_index
from galaxies.common.device_errors import first_sentence
from galaxies.common.durable_files import sha256_of
from galaxies.common.errors import UserError, shown
from galaxies.common.reading import MissingError, check_regular, open_regular, read_json
from galaxies.common.schema import (
    Check,
    SchemaError,
    anything,
    brief,
    either,
    entries,
    exactly,
    items,
    mapping,
    number,
    text,
    whole,
)
from galaxies.datasets.layout import DISPLAY, SHARE, DataLayout
from galaxies.datasets.writing import FORMAT_VERSIONS, PHOTOMETRY, SPLITS
from galaxies.images.stretch import NOISE_SOFTENING
from galaxies.measure.flux_model import psf_width, width_by_wings
from galaxies.measure.frame import corner_mask
from galaxies.telescope.exposure import Exposure
from galaxies.telescope.profiles import profile_of

_AGAIN = "prepare the data again with --overwrite"
_MANIFEST_BYTES = 512 << 20  # it names every picture that was left out
_LABELS = ("object_id", "morphology", "split")
_NAME = either(exactly(None), text())
_MOST_CLASSES = 1000  # of old datasets; new ones have no more than `MOST_CLASSES`


def _printable_line() -> Check:
    return Check(
        f"text of at most {MOST_CLASS_TEXT} characters that can be printed",
        lambda value: isinstance(value, str) and len(value) <= MOST_CLASS_TEXT and value.isprintable(),
    )


# What the rest of the program takes from a manifest; it holds more, for people.
_MANIFEST = entries(
    {
        "image_size": whole(1),
        "crop": number(0, 1),
        "count": whole(1),
        "counts": mapping(either(whole(0), mapping(whole(0)))),
        "attributes": mapping(whole(0)),
        "sha256": entries({"images.npy": text(), "catalogue.csv": text()}, {"psfs.npy": text()}, others=False),
    },
    {
        "source": _NAME,
        "rule": _NAME,
        "photometry": whole(1),
        "classes": items(text(), 1, _MOST_CLASSES),
        "class_labels": mapping(_printable_line()),
        "class_descriptions": mapping(_printable_line()),
        "own_attributes": items(
            entries(
                {name: text() for name in ("name", "label", "unit", "scale")} | {"low": number(), "high": number()},
                {"softening": number(0)},
                others=False,
            )
        ),
    },
)
_FLUX_MANIFEST = entries(
    {
        "kind": text("flux"),
        "bands": items(entries({"name": text(), "wavelength_nm": either(exactly(None), number(0))}), 1, MOST_BANDS),
        "classes": anything(),
    }
)
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
        manifest, layout = _read_manifest(path)
        for name in manifest["sha256"]:
            try:
                check_regular(path / name, _AGAIN)
                if verify and sha256_of(path / name) != manifest["sha256"][name]:
                    raise UserError(f"{path / name} has changed since it was prepared: {_AGAIN}")
            except OSError as error:
                raise UserError(f"{path / name} cannot be read ({error.strerror or error}): {_AGAIN}") from None
        try:
            planes = len(layout.bands)
            images = _map_array(path / "images.npy", layout.dtype, planes)
            catalogue = _read_catalogue(path / "catalogue.csv", layout)
            if len(images) != len(catalogue):
                raise _FaultError(f"it has {len(images)} images and {len(catalogue)} rows in catalogue.csv")
            _compare(manifest, images, catalogue)
            if layout.is_flux:
                _check_psfs(path, manifest, catalogue, planes)
        except _FaultError as error:
            raise UserError(f"{path} cannot be used, since {error}: {_AGAIN}") from None
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
        whole = _map_array(self.path / "psfs.npy", self.layout.dtype, len(self.layout.bands))
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
        if "psf_profile" not in self._telescope() and self._usual_psf_row(self.rows("train")) is None:
            return None  # nothing is known of wings
        return (
            f"radii in {self.path} were measured as if its PSFs had no wings, and are a few percent too large beside "
            "those measured today: prepare the data again before comparing radii"
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
            raise UserError(f"{self.path} has no pixel_scale: {_AGAIN}")
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
        whole = _map_array(self.path / "psfs.npy", self.layout.dtype, len(self.layout.bands))
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


class _FaultError(ValueError):
    """What is wrong with a dataset, as a clause."""


def _read_manifest(path: Path) -> tuple[dict[str, Any], DataLayout]:
    """Read what a dataset says of itself, and check that all is there and of the right kind."""
    try:
        manifest: dict[str, Any] = read_json(path / "manifest.json", entries({}), _MANIFEST_BYTES, _AGAIN)
        version = manifest.get("format_version")
        versions = tuple(FORMAT_VERSIONS.values())
        if type(version) is not int or version not in versions:
            raise UserError(
                f"{path} has format version {brief(version)}, this program reads {' and '.join(map(str, versions))}: "
                "prepare the data again"
            )
        _MANIFEST(manifest)
        is_flux = version == FORMAT_VERSIONS["flux"]
        if is_flux:
            _FLUX_MANIFEST(manifest)
        layout = DataLayout.from_manifest(manifest if is_flux else {**manifest, "kind": "display"})
        if strange := [name for name in manifest["attributes"] if not layout.is_attribute(name)]:
            raise SchemaError(f"attributes has {brief(strange[0])}, which is no attribute of such data")
    except MissingError:
        raise UserError(
            f"{path} holds no prepared dataset: make one with prepare_data.py gz2 or prepare_data.py labelled"
        ) from None
    except ValueError as error:  # SchemaError, or of a layout
        raise UserError(f"{path / 'manifest.json'} cannot be used, since {error}: {_AGAIN}") from None
    return manifest, layout


def _map_array(file: Path, wanted: np.dtype[Any], planes: int) -> np.ndarray:
    """Map the pixels (N, planes, S, S) of an .npy file that says what it is, and is as long as it says."""
    name = file.name
    try:
        with open_regular(file, _AGAIN) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header as Python 2 wrote it
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, dtype = read_header(stream)
            start, end = stream.tell(), stream.seek(0, os.SEEK_END)
    except UserError:
        raise
    except MemoryError:
        raise
    except Exception:  # the header is read as a literal of Python, which fails in many ways
        raise _FaultError(f"{name} is no array in NumPy's format") from None
    if dtype != wanted or fortran_order:
        order = " in Fortran's order" if fortran_order else ""
        raise _FaultError(f"{name} holds {shown(str(dtype))}{order}, not {wanted} in C's order")
    if len(shape) != 4 or shape[1] != planes or shape[2] != shape[3] or min(shape) < 1:
        raise _FaultError(f"{name} has the shape {shown(str(shape))}, not (N, {planes}, S, S) with one image or more")
    if end - start != math.prod(shape) * wanted.itemsize:
        size = math.prod(shape) * wanted.itemsize
        raise _FaultError(f"{name} has {end - start} bytes of pixels, not the {size} of its shape {shape}")
    try:
        return np.memmap(file, wanted, "r", start, shape)
    except (OSError, ValueError, OverflowError) as error:
        raise _FaultError(f"{name} cannot be mapped into memory ({error})") from None


def _check_psfs(path: Path, manifest: dict[str, Any], catalogue: pd.DataFrame, planes: int) -> None:
    """Check that each PSF that a row names is there."""
    places = catalogue["psf"].dropna() if "psf" in catalogue else pd.Series(dtype=np.float64)
    if "psfs.npy" not in manifest["sha256"]:
        if len(places):
            raise _FaultError("catalogue.csv names PSFs, and there is no psfs.npy")
        return
    count = len(_map_array(path / "psfs.npy", np.dtype("<f4"), planes))
    if not ((places % 1 == 0) & (places < count)).all():
        raise _FaultError(f"catalogue.csv names other PSFs than the {count} in psfs.npy")


def _read_catalogue(file: Path, layout: DataLayout) -> pd.DataFrame:
    """Read a catalogue: an empty cell is an unknown number, while an object may well be called NA."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows of more cells than the header has
            heads = pd.read_csv(file, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
            values = [
                name for name in heads if name in layout.columns or layout.is_attribute(name) or name.startswith(SHARE)
            ]
            table = pd.read_csv(
                file,
                dtype=dict.fromkeys(_LABELS, str),
                keep_default_na=False,
                na_values={name: [""] for name in values},
                index_col=False,
            )
    except (OSError, ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise _FaultError(f"catalogue.csv is no table ({first_sentence(str(error))})") from None
    if repeated := [name for name in heads if heads.count(name) > 1]:
        raise _FaultError(f"catalogue.csv has two columns {shown(repeated[0])}")
    if missing := [name for name in _LABELS if name not in table]:
        raise _FaultError(f"catalogue.csv has no column {missing[0]}")
    if len(table) == 0:
        raise _FaultError("catalogue.csv has no row")
    table[list(_LABELS)] = table[list(_LABELS)].fillna("")  # rows that end early
    _refuse_rows(table, "object_id", table["object_id"] == "", "an id")
    _refuse_rows(table, "object_id", table["object_id"].duplicated(), "every id once")
    _refuse_rows(table, "split", ~table["split"].isin(SPLITS), f"one of {', '.join(SPLITS)}")
    classes = {name: _canonical(name, layout) for name in table["morphology"].unique()}
    table["morphology"] = table["morphology"].map(classes)
    strange = table["morphology"].isna()
    if strange.any():
        name = next(name for name, found in classes.items() if found is None)
        raise _FaultError(
            f"column morphology of catalogue.csv, row {_first_row(strange)} holds {shown(name)}, "
            f"not one of {', '.join(layout.classes)}"
        )
    for name in values:
        # A column of True and False is none of numbers, though pandas makes one of it.
        cells = table[name].astype(str) if table[name].dtype == bool else table[name]
        numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
        low, high = layout.limits_of(name)
        wrong = table[name].notna() & ~((numbers > low) & (numbers <= high))
        _refuse_rows(table, name, wrong, f"a number above {low:g} and up to {high:g}, or nothing")
        table[name] = numbers
    return table


def _canonical(name: str, layout: DataLayout) -> str | None:
    """Return the name of a class as the layout has it, None for what is no class."""
    try:
        return layout.classes[morphology_index(name, layout.classes)]
    except UserError:
        return None


def _refuse_rows(table: pd.DataFrame, column: str, wrong: pd.Series, wanted: str) -> None:
    if wrong.any():
        row = _first_row(wrong)
        raise _FaultError(
            f"column {column} of catalogue.csv, row {row} holds {shown(str(table[column].iloc[row - 2]))}, not {wanted}"
        )


def _first_row(wrong: pd.Series) -> int:
    """Return the row number, as a spreadsheet counts, of the first true value."""
    return int(np.argmax(wrong.to_numpy())) + 2


def _compare(manifest: dict[str, Any], images: np.ndarray, catalogue: pd.DataFrame) -> None:
    """Hold what a manifest says of a dataset against what there is."""
    if manifest["image_size"] != images.shape[-1]:
        raise _FaultError(
            f"manifest.json says that images have {manifest['image_size']} pixels a side, and they have "
            f"{images.shape[-1]}"
        )
    there = Counter(zip(catalogue["split"], catalogue["morphology"], strict=True)) + Counter(catalogue["morphology"])
    said: Counter[Any] = Counter()
    for name, counted in manifest["counts"].items():
        said.update(
            {(name, inner): value for inner, value in counted.items()} if isinstance(counted, dict) else {name: counted}
        )
    if manifest["count"] != len(catalogue) or +said != there:
        raise _FaultError("manifest.json counts other galaxies than there are in catalogue.csv")
    for name, known in manifest["attributes"].items():
        have = int(catalogue[name].notna().sum()) if name in catalogue else 0
        if known != have:
            raise _FaultError(f"manifest.json says that {known} galaxies have a known {name}, and {have} have")
