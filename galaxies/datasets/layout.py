"""What the images and rows of a prepared dataset are: display pictures or flux, of which bands and classes.

Display is what people see: three colour planes of 0 to 255. Flux is what a telescope measured: linear light in
nanojansky a pixel, one plane a band, sky subtracted, so that magnitudes and colours can be read off it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from config_physics import (
    AB_ZERO_POINT,
    ATTRIBUTES,
    BAND_NAME,
    BAND_NAMES,
    FLUX_ATTRIBUTES,
    MORPHOLOGY_NAMES,
    MOST_BANDS,
    Attribute,
    Morphology,
    attribute_of,
    attribute_table,
    bands_of_attribute,
    check_own_name,
    morphologies_of,
)
from galaxies.common.attributes import LARGEST_VALUE, attribute_defined
from galaxies.common.errors import UserError
from galaxies.images.bands import band_in

SHARE = "class_share_"  # how the columns of the catalogue begin that hold the shares of the classes
# Columns of numbers beside the attributes. Scale, noise and blur say how a galaxy was observed, a band each.
_DISPLAY_COLUMNS = ("pixel_scale",)
_FLUX_COLUMNS = ("pixel_scale", "masked", "flag", "psf")
# Attributes of the table that are read off display pictures, votes or dice, and mean nothing of flux.
_OF_DISPLAYS = frozenset(
    name
    for name, row in ATTRIBUTES.items()
    if row.source in ("photometry", "votes", "random") and name not in ("ellipticity", "concentration")
)
# What measuring can give, of any picture; `Attribute.plausible` is narrower, for it is what may be asked for.
_MEASURED = {
    "size": (0.0, 1.5),
    "brightness": (0.0, 1.01),
    "ellipticity": (-0.001, 1.0),
    "concentration": (-0.001, 40.0),
    "color": (-30.0, 30.0),
    "pixel_scale": (0.0, 100_000.0),  # 1000 arcseconds a pixel in a picture that was made 100 times as small
}


@dataclass(frozen=True)
class FluxBand:
    """A band of a telescope.

    Attributes
    ----------
    name : str
        Letters and digits, such as g, Ks, F814W.
    wavelength_nm : float
        Central wavelength, NaN where it is not known.
    """

    name: str
    wavelength_nm: float = math.nan

    @classmethod
    def named(cls, name: str) -> FluxBand:
        """Return a band with the wavelength that its name tells, roughly."""
        known = band_in(name)
        return cls(name, known.wavelength if known else math.nan)


@dataclass(frozen=True)
class DataLayout:
    """What the images and rows of a dataset are.

    Attributes
    ----------
    kind : {"display", "flux"}
    bands : tuple of FluxBand
        In the order of the planes.
    classes : tuple of str
        A class index is a place in it.
    class_labels, class_descriptions : tuple of str
        What people call each class and what it is, "" where it is not told; none where nothing is.
    own : tuple of Attribute
        Attributes that are columns of a user's own table, of other names than those of the program. Layouts that
        differ by labels, descriptions and these alone are equal.

    Raises
    ------
    ValueError
        On construction, if there are too many bands or a name is none; nobody is to be told of it in other words.
    """

    kind: str
    bands: tuple[FluxBand, ...]
    classes: tuple[str, ...] = MORPHOLOGY_NAMES
    class_labels: tuple[str, ...] = field(default=(), compare=False)
    class_descriptions: tuple[str, ...] = field(default=(), compare=False)
    own: tuple[Attribute, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        names = self.band_names
        if not 1 <= len(names) <= MOST_BANDS or len(set(names)) < len(names):
            raise ValueError(f"{len(names)} bands, where 1 to {MOST_BANDS} different ones are possible")
        if wrong := [name for name in names if not BAND_NAME.fullmatch(name)]:
            raise ValueError(f"a band called {wrong[0]!r}, where letters and digits are possible")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError("no class, or one twice")
        if any(len(told) not in (0, len(self.classes)) for told in (self.class_labels, self.class_descriptions)):
            raise ValueError("another number of labels or descriptions than of classes")
        if len({row.name for row in self.own}) < len(self.own):
            raise ValueError("an attribute twice")

    @property
    def is_flux(self) -> bool:
        """Whether pixels are nanojansky."""
        return self.kind == "flux"

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the planes, in their order."""
        return tuple(band.name for band in self.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel: uint8 of a display, float32 (little-endian on disk) of flux."""
        return np.dtype("<f4") if self.is_flux else np.dtype("|u1")

    @property
    def band_columns(self) -> tuple[str, ...]:
        """Columns of the catalogue that there is one of each band: noise (nJy a pixel) and PSF width (arcsec)."""
        if not self.is_flux:
            return ()
        return tuple(f"{kind}_{name}" for kind in ("noise", "psf_fwhm") for name in self.band_names)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that rows of such a dataset may have, in the order of the catalogue's columns."""
        own = tuple(row.name for row in self.own)
        if not self.is_flux:
            return (*ATTRIBUTES, *own)
        names = self.band_names
        of_bands = [f"{kind}_{name}" for kind in ("magnitude", "surface_brightness") for name in names]
        colors = [f"color_{a}_{b}" for i, a in enumerate(names) for b in names[i + 1 :]]
        shared = [name for name in ATTRIBUTES if name not in _OF_DISPLAYS]
        return (*of_bands, *colors, *FLUX_ATTRIBUTES, *shared, *own)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of numbers that the catalogue may have, in order, without further ones."""
        observed = (*_FLUX_COLUMNS, *self.band_columns) if self.is_flux else _DISPLAY_COLUMNS
        return (*self.attributes, *observed)

    def is_attribute(self, name: str) -> bool:
        """Tell whether rows may have an attribute of that name; a colour may be of any two bands in any order."""
        if bands := bands_of_attribute(name):
            return self.is_flux and set(bands) <= set(self.band_names) and attribute_of(name) is not None
        return name in self.attributes

    def attribute_of(self, name: str) -> Attribute | None:
        """Return an attribute by its name, those of the program and the dataset's own, None if there is none of it."""
        return next((row for row in self.own if row.name == name), None) or attribute_of(name)

    def attribute_rows(self, names: Sequence[str]) -> tuple[Attribute, ...]:
        """Look up attributes by name, in the order given; see `attribute_table`."""
        return attribute_table(names, self.own)

    def limits_of(self, column: str) -> tuple[float, float]:
        """Return what the values of a catalogue's column must be above, and may be at most."""
        if own := next((row for row in self.own if row.name == column), None):
            return (0.0 if own.scale == "log" else -LARGEST_VALUE), LARGEST_VALUE
        if column.startswith(SHARE):
            return -1e-6, 1.0 + 1e-6
        if self.is_flux:
            if column in ("masked", "flag", "psf"):
                return -0.5, {"masked": 1.0, "flag": 2.0**31, "psf": 2.0**31}[column]
            if column == "pixel_scale" or column in self.band_columns:
                return (-1e-30 if column.startswith("noise_") else 0.0), 1e12
            attribute = attribute_of(column)
            if attribute is None:
                return -math.inf, math.inf
            low, high = attribute.plausible
            if column in ("ellipticity", "concentration"):
                return _MEASURED[column]
            return (low, high) if attribute.source == "catalogue" else (low - 1e-6, high)
        if column in _MEASURED or column not in ATTRIBUTES:
            return _MEASURED.get(column, (-math.inf, math.inf))
        attribute = ATTRIBUTES[column]
        low, high = attribute.plausible
        if attribute.source == "catalogue":
            return low, high
        return 2 * low - high, 2 * high - low  # made of votes, whose shares may be a little beyond

    @property
    def morphologies(self) -> tuple[Morphology, ...]:
        """The classes with their labels and descriptions."""
        return morphologies_of(self.classes, self.class_labels, self.class_descriptions)

    def with_classes(self, classes: Sequence[Morphology]) -> DataLayout:
        """Return the same with other classes."""
        names, labels, about = (tuple(getattr(c, part) for c in classes) for part in ("name", "label", "description"))
        return dataclasses.replace(self, classes=names, class_labels=labels, class_descriptions=about)

    def to_manifest(self, known: Sequence[str]) -> dict[str, Any]:
        """Return what a manifest says of classes and own attributes, and of flux its kind, bands and units."""
        own = [_to_plain(row) for row in self.own if row.name in known]
        told: dict[str, Any] = {"classes": list(self.classes)} | ({"own_attributes": own} if own else {})
        for name, texts in (("class_labels", self.class_labels), ("class_descriptions", self.class_descriptions)):
            if any(texts):
                told[name] = {of: text for of, text in zip(self.classes, texts, strict=True) if text}
        if not self.is_flux:
            return told
        bands = [
            {
                "name": band.name,
                "wavelength_nm": band.wavelength_nm if math.isfinite(band.wavelength_nm) else None,
                "zero_point": AB_ZERO_POINT,
            }
            for band in self.bands
        ]
        rows = {name: row for name in known if (row := self.attribute_of(name)) is not None}
        return told | {
            "kind": self.kind,
            "pixel_unit": "nJy",
            "bands": bands,
            "units": {name: row.unit for name, row in rows.items()},
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> DataLayout:
        """Return the layout that a manifest says; one of a display that names no classes has those of the program.

        Raises
        ------
        ValueError
            If it cannot be.
        """
        classes = tuple(manifest.get("classes", MORPHOLOGY_NAMES))
        own = tuple(map(_from_plain, manifest.get("own_attributes", ())))
        texts: list[tuple[str, ...]] = []
        for entry in ("class_labels", "class_descriptions"):
            said = manifest.get(entry, {})
            if strange := [name for name in said if name not in classes]:
                raise ValueError(f"{entry} has {strange[0]!r}, which is no class")
            texts.append(tuple(said.get(name, "") for name in classes) if said else ())
        labels, about = texts
        if manifest.get("kind", DISPLAY.kind) == DISPLAY.kind:
            return cls(DISPLAY.kind, DISPLAY.bands, classes, labels, about, own)
        bands = [
            FluxBand(row["name"], math.nan if row["wavelength_nm"] is None else float(row["wavelength_nm"]))
            for row in manifest["bands"]
        ]
        return cls("flux", tuple(bands), classes, labels, about, own)


_TOLD = ("name", "label", "unit", "scale", "low", "high")  # of an attribute of a user's own


def _to_plain(row: Attribute) -> dict[str, Any]:
    plain = {key: getattr(row, key) for key in _TOLD}
    return plain | ({"softening": row.softening} if row.scale == "asinh" else {})


def _from_plain(plain: Mapping[str, Any]) -> Attribute:
    """Return an attribute of a user's own as a manifest has it."""
    line = f'{plain["name"]}:label="{plain["label"]}",unit="{plain["unit"]}",scale={plain["scale"]}'
    numbers = {key: plain[key] for key in ("softening", "low", "high") if key in plain}
    line += "".join(f",{key}={float(value)!r}" for key, value in numbers.items())
    try:
        row = attribute_defined(line)
        check_own_name(row.name)
    except UserError as error:
        raise ValueError(str(error)) from None
    if row.name != plain["name"]:
        raise ValueError(f"attribute {plain['name']!r} is not in small letters")
    return row


DISPLAY = DataLayout("display", tuple(FluxBand(name) for name in BAND_NAMES))
