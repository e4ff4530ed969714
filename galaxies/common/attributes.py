"""What an attribute of galaxies is: its range and scale, and how a column of a user's own table becomes one.

An attribute of a user's own is told in one line, which options, manifests and settings share:

    halpha_ew:label="H-alpha EW",unit="Angstrom",scale=asinh,softening=2.5,low=-5,high=120
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from galaxies.common.errors import UserError, shown
from galaxies.common.parsing import NUMBER_FORM

SCALES = ("linear", "log", "asinh")
ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
LONGEST = {"label": 48, "unit": 24}  # characters; name and unit share a card of a FITS file
LARGEST_VALUE = 1e20  # and beyond, numbers in tables stand for unknown ones
LEAST_R2 = 0.1  # on test galaxies, below which a picture tells nothing of an attribute
_LEAST_LOG = 1e-30  # single precision has it
_BEYOND = 10  # ranges of the slider on either side of it that may be asked for
_KEYS = ("column", "label", "unit", "scale", "softening", "low", "high")
_PART = re.compile(r"\s*([a-z]+)\s*=\s*(?:\"([^\"]*)\"|([^,\"]*))\s*(?:,|$)")

# What options, columns and requests of the program are called, besides the attributes of the tables: attributes of a
# user's own are called otherwise. `tests/test_own_attributes.py` holds it against the options.
RESERVED = frozenset(
    (
        *("object_id", "morphology", "split", "image", "hdu", "psf", "psf_image", "psf_hdu", "file", "id", "row"),
        *("pixel_scale", "frame_scale", "masked", "flag", "flag_meaning", "zero_point", "noise", "noise_variance"),
        *("psf_fwhm", "support", "supported", "nearest_real", "usual_distance", "set_by_user", "position_angle"),
        *("checkpoint", "requests", "set", "count", "seed", "format", "names", "rgb", "shard_size", "out", "help"),
        *("device", "solver", "solver_steps", "guidance", "photometric_guidance", "survey", "bands", "exposure", "bin"),
        *(
            "pixels",
            "noiseless",
            "galaxies",
            "overwrite",
            "draw",
            "measure",
            "catalogue_format",
            "spectrum",
            "attribute",
            "attributes",
            "classes",
        ),
        *("model", "seeds", "sweep", "steps", "columns", "images", "unit", "class_index", "values", "physics", "all"),
    )
)
_RESERVED_STARTS = ("requested_", "measured_", "noise_", "psf_fwhm_", "zero_point_", "pixel_scale_", "vote_", "no_")


@dataclass(frozen=True)
class Attribute:
    """One continuous attribute that galaxies are conditioned on.

    Attributes
    ----------
    name, label, unit : str
        Name in files and options; name and unit for people ("" for a pure number).
    low, high : float
        Range of the slider and, unless `raw`, of the scaling to [0, 1] in the condition vector.
    source : {"photometry", "flux", "catalogue", "structure", "votes", "random", "column"}
        Where the value of a real galaxy comes from: measured on its picture, or on its light in nanojansky, or known;
        structure is what a simulation knows, and what votes on details tell; a column is one of a user's own table.
    description : str
        What the value is, in one sentence.
    raw : bool
        Feed the value itself into the condition vector, as the original recipe does.
    plausible : tuple of float
        What a galaxy can have at all. A request beyond is refused (the ends may be asked for), and a catalogue's value
        beyond, or at the low end, is a sentinel such as -9999 or 0. What lies within, but where no real galaxy does, is
        drawn with a warning (see `Population.support`).
    scale : {"linear", "log", "asinh"}
        In what the slider and the condition vector go in equal steps: the value x, log10(x), or asinh(x / softening),
        which is linear for x far below the softening and logarithmic, of either sign, far above it (Lupton, Gunn &
        Szalay 1999).
    softening : float
        Of asinh, in the attribute's unit.
    """

    name: str
    label: str
    unit: str
    low: float
    high: float
    source: str
    description: str
    plausible: tuple[float, float]
    raw: bool = False
    scale: str = "linear"
    softening: float = 0.0

    def to_unit(self, value: Any) -> Any:
        """Scale physical values (float, array or tensor) to those of the condition vector."""
        if self.raw:
            return value
        low, high = self.steps_of(self.low), self.steps_of(self.high)
        return (self.steps_of(value) - low) / (high - low)

    def from_unit(self, value: Any) -> Any:
        """Invert `to_unit`."""
        if self.raw:
            return value
        low, high = self.steps_of(self.low), self.steps_of(self.high)
        return self.value_of(low + value * (high - low))

    def place(self, value: Any) -> Any:
        """Return where on the slider values are, 0 at its low end and 1 at its high one, also of a `raw` attribute."""
        low, high = self.steps_of(self.low), self.steps_of(self.high)
        return (self.steps_of(value) - low) / (high - low)

    def at(self, place: Any) -> Any:
        """Invert `place`."""
        low, high = self.steps_of(self.low), self.steps_of(self.high)
        return self.value_of(low + place * (high - low))

    def steps_of(self, value: Any) -> Any:
        """Return values on the attribute's scale: themselves, log10(x), or asinh(x / softening)."""
        if self.scale == "log":
            return _of("log10", value)
        if self.scale == "asinh":
            return _of("asinh", value / self.softening)
        return value

    def value_of(self, steps: Any) -> Any:
        """Invert `steps_of`."""
        if self.scale == "log":
            return 10.0**steps
        if self.scale == "asinh":
            return self.softening * _of("sinh", steps)
        return steps

    def definition(self) -> str:
        """Return the line that tells an attribute of a user's own; see `attribute_defined`."""
        softening = f",softening={self.softening!r}" if self.scale == "asinh" else ""
        return (
            f'{self.name}:label="{self.label}",unit="{self.unit}",scale={self.scale}{softening},'
            f"low={self.low!r},high={self.high!r}"
        )


def _of(function: str, value: Any) -> Any:
    """Return a function of a number, a tensor or an array; NaN where it has none."""
    if isinstance(value, (int, float)):
        return getattr(math, function)(value) if function != "log10" or value > 0 else math.nan
    if hasattr(value, function):  # a tensor, also within a recorded step
        return getattr(value, function)()
    import numpy as np  # here, so that command lines that are none are refused at once

    return getattr(np, {"asinh": "arcsinh"}.get(function, function))(value)


class AttributeOption(NamedTuple):
    """What an option tells of an attribute of a user's own; None is for the data to tell.

    column: its name in the table, in lower case.
    """

    name: str
    column: str
    label: str
    unit: str
    scale: str
    softening: float | None
    low: float | None
    high: float | None


def read_attribute_option(text: str) -> AttributeOption:
    """Read an attribute of a user's own such as ``halpha_ew:unit=Angstrom,scale=asinh,label="H-alpha EW"``.

    Raises
    ------
    UserError
        Naming what is wrong with it.
    """
    name, _, rest = text.partition(":")
    name = name.strip().lower()
    told: dict[str, str] = {}
    said = f"attribute {shown(text, 100)}"
    place = 0
    while place < len(rest):
        found = _PART.match(rest, place)
        if not found:
            raise UserError(f"{said}: it takes NAME:KEY=VALUE,… such as halpha_ew:unit=Angstrom,scale=asinh")
        key, quoted, bare = found.groups()
        if key not in _KEYS:
            raise UserError(f"{said}: {shown(key)} is none of {', '.join(_KEYS)}")
        if key in told:
            raise UserError(f"{said}: {key} is there twice")
        told[key] = (bare if quoted is None else quoted).strip()
        place = found.end()
    if fault := fault_of_name(name):
        raise UserError(f"{said}: {fault}")
    for key, most in LONGEST.items():
        if len(told.get(key, "")) > most or not told.get(key, "").isprintable():
            raise UserError(f"{said}: its {key} takes up to {most} characters that can be printed")
    scale = told.get("scale", "linear")
    if scale not in SCALES:
        raise UserError(f"{said}: its scale is {shown(scale)}, choose one of {', '.join(SCALES)}")
    numbers = {key: _number(said, key, told[key]) for key in ("softening", "low", "high") if key in told}
    softening, low, high = (numbers.get(key) for key in ("softening", "low", "high"))
    if softening is not None and (scale != "asinh" or not softening > 0):
        raise UserError(f"{said}: a softening is above 0, and of the scale asinh")
    if scale == "log" and any(end is not None and not end >= _LEAST_LOG for end in (low, high)):
        raise UserError(f"{said}: on a logarithmic scale both ends of its range lie above 0")
    if low is not None and high is not None and not low < high:
        raise UserError(f"{said}: the high end of its range must lie above the low one")
    column = told.get("column", name).lower()
    if not column:
        raise UserError(f"{said}: its column has no name")
    label = told.get("label") or (name[:1].upper() + name[1:]).replace("_", " ")
    return AttributeOption(name, column, label, told.get("unit", ""), scale, softening, low, high)


def _number(said: str, key: str, text: str) -> float:
    if not NUMBER_FORM.fullmatch(text) or not abs(value := float(text)) < LARGEST_VALUE:
        raise UserError(f"{said}: {key} is {shown(text)}, which is no number below {LARGEST_VALUE:g}")
    return value + 0.0


def fault_of_name(name: str) -> str | None:
    """Say in a clause why an attribute of a user's own cannot have a name; None if it can.

    A name is a letter and up to 31 more letters, digits and underscores; tables are read without regard to capitals,
    and names are in small letters. What a column, an option or a parameter of the program is called is taken; so are
    the attributes of `config_physics`, which know their own names.
    """
    if not ATTRIBUTE_NAME.fullmatch(name):
        return f"{shown(name)} is no name: it takes a letter and up to 31 more letters, digits and underscores"
    if name in RESERVED or name.startswith(_RESERVED_STARTS):
        return f"{name} has a meaning of its own in the program: choose another name, with column={name} beside it"
    return None


def completed(option: AttributeOption) -> Attribute:
    """Return the attribute of an option that tells everything.

    Raises
    ------
    UserError
        If it does not.
    """
    if option.low is None or option.high is None or (option.scale == "asinh" and option.softening is None):
        raise UserError(f"attribute {option.name} lacks its range or softening")
    about = f"column of the catalogue that the training data came with{_SCALED[option.scale]}"
    softening = option.softening or 0.0
    plain = Attribute(
        *(option.name, option.label, option.unit, option.low, option.high, "column", about, (0.0, 1.0), False),
        *(option.scale, softening),
    )
    least = _LEAST_LOG if option.scale == "log" else -LARGEST_VALUE
    ends = [_beyond(plain, place) for place in (-_BEYOND, 1 + _BEYOND)]
    low, high = (min(LARGEST_VALUE, max(least, float(f"{end:.3g}"))) for end in ends)
    plausible = min(low, option.low), max(high, option.high)
    return Attribute(
        *(option.name, option.label, option.unit, option.low, option.high, "column", about, plausible, False),
        *(option.scale, softening),
    )


_SCALED = {"linear": "", "log": ", on a logarithmic scale", "asinh": ", on a scale of asinh"}


def _beyond(attribute: Attribute, place: float) -> float:
    try:
        return float(attribute.at(place))
    except OverflowError:
        return math.copysign(math.inf, place)


@lru_cache(maxsize=1024)
def attribute_defined(text: str) -> Attribute:
    """Return the attribute of a user's own that a line of `Attribute.definition` tells.

    Raises
    ------
    UserError
        If it is none.
    """
    return completed(read_attribute_option(text))
