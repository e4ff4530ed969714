"""The two tables of what a galaxy can be asked to have: its morphology, and its physical attributes.

The condition vector, the loader, the command lines, the sliders and the reports all read these tables, so their order
is decided once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from galaxies.common.settings import UserError


@dataclass(frozen=True)
class Morphology:
    """One class of the condition vector; its place in `MORPHOLOGIES` is its class index."""

    name: str
    label: str
    description: str


MORPHOLOGIES = (
    Morphology("spiral", "Spiral", "disc galaxy with features, seen from above or inclined"),
    Morphology("elliptical", "Elliptical", "smooth galaxy without a disc or arms"),
    Morphology("merger", "Merger", "two or more galaxies interacting"),
    Morphology("edge-on", "Edge-on", "disc galaxy seen from the side"),
)
MORPHOLOGY_NAMES = tuple(m.name for m in MORPHOLOGIES)


def morphology_index(name: str) -> int:
    """Return the class index of a morphology name; `edge_on` and capitals are accepted.

    Raises
    ------
    UserError
        If the name is none of the four classes.
    """
    canonical = name.strip().lower().replace("_", "-")
    if canonical not in MORPHOLOGY_NAMES:
        raise UserError(f"unknown morphology '{name}': choose one of {', '.join(MORPHOLOGY_NAMES)}")
    return MORPHOLOGY_NAMES.index(canonical)


@dataclass(frozen=True)
class Attribute:
    """One continuous attribute that galaxies are conditioned on.

    Attributes
    ----------
    name, label, unit : str
        Name in files and options; name and unit for people ("" for a pure number).
    low, high : float
        Range of the slider and, unless `raw`, of the scaling to [0, 1] in the condition vector.
    source : {"photometry", "catalogue", "votes", "random"}
        Where the value of a real galaxy comes from.
    description : str
        What the value is, in one sentence.
    raw : bool
        Feed the value itself into the condition vector, as the original recipe does.
    """

    name: str
    label: str
    unit: str
    low: float
    high: float
    source: str
    description: str
    raw: bool = False

    def to_unit(self, value: Any) -> Any:
        """Scale physical values (float, array or tensor) to those of the condition vector."""
        return value if self.raw else (value - self.low) / (self.high - self.low)

    def from_unit(self, value: Any) -> Any:
        """Invert `to_unit`."""
        return value if self.raw else self.low + value * (self.high - self.low)


# Ranges hold at least the central 99 % of real SDSS galaxies (photometry) or of the GZ2 main sample.
# fmt: off
_ATTRIBUTE_ROWS = (
    Attribute("size", "Half-light radius", "frame widths", 0.05, 0.28, "photometry",
              "radius of the circle that holds half of the galaxy's light, as a fraction of the frame's width"),
    Attribute("brightness", "Surface brightness", "display units", 0.05, 0.6, "photometry",
              "mean of R, G and B (0 to 1) within the half-light radius, above the sky; the picture is "
              "asinh-stretched, so this is a display brightness and not a flux"),
    Attribute("ellipticity", "Ellipticity", "", 0.0, 0.9, "photometry",
              "1 - b/a from the second moments of the galaxy's light"),
    Attribute("redshift", "Redshift", "", 0.0, 0.25, "catalogue",
              "spectroscopic redshift from the catalogue"),
    Attribute("concentration", "Concentration", "", 1.4, 3.6, "photometry",
              "5 log10(r80 / r20) of the display-stretched light (after Conselice 2003, eq. 5)"),
    Attribute("color", "Display color B - R", "mag", -1.0, 1.6, "photometry",
              "-2.5 log10 of the ratio of blue-plane to red-plane light (g and i in an SDSS composite); redder is "
              "larger"),
    Attribute("petro_r50_kpc", "Petrosian R50", "kpc", 0.0, 20.0, "catalogue",
              "Petrosian half-light radius in the r band"),
    Attribute("absolute_magnitude", "Absolute magnitude", "mag", -24.0, -16.0, "catalogue",
              "r-band Petrosian magnitude M_r"),
    Attribute("stellar_mass", "Stellar mass", "log10 solar masses", 8.0, 12.0, "catalogue",
              "decimal logarithm of the mass"),
    Attribute("vote_count", "Votes (normalised)", "", 0.3, 1.0, "votes",
              "0.3 + 0.7 x total_votes min-max normalised: how often people voted, called size in the original "
              "recipe", raw=True),
    Attribute("vote_smoothness", "Smooth votes", "", 0.2, 1.0, "votes",
              "0.2 + 0.8 x the smooth vote fraction, called brightness in the original recipe", raw=True),
    Attribute("vote_elongation", "Elongation votes", "", 0.0, 0.9, "votes",
              "0, 0.45 and 0.9 weighted by the round, in-between and cigar-shaped votes, called ellipticity in "
              "the original recipe", raw=True),
    Attribute("random_redshift", "Random number", "", 0.0, 0.5, "random",
              "uniform random placeholder without information, called redshift in the original recipe", raw=True),
)
# fmt: on
ATTRIBUTES = {row.name: row for row in _ATTRIBUTE_ROWS}
PHOTOMETRIC_ATTRIBUTES = tuple(a.name for a in _ATTRIBUTE_ROWS if a.source == "photometry")
CATALOGUE_ATTRIBUTES = tuple(a.name for a in _ATTRIBUTE_ROWS if a.source == "catalogue")
PAPER_ATTRIBUTES = ("vote_count", "vote_smoothness", "vote_elongation", "random_redshift")


def attribute_table(names: tuple[str, ...]) -> tuple[Attribute, ...]:
    """Look up attributes by name, in the order given.

    Raises
    ------
    UserError
        If a name is unknown or given twice.
    """
    for name in names:
        if name not in ATTRIBUTES:
            raise UserError(f"unknown attribute '{name}': choose from {', '.join(ATTRIBUTES)}")
        if names.count(name) > 1:
            raise UserError(f"attribute '{name}' is named twice")
    return tuple(ATTRIBUTES[name] for name in names)
