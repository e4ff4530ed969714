"""How many galaxies and stars there are on the sky, how bright, how large and how far away.

Galaxies by default are counted as the LSST Science Book does (2009, arXiv:0912.0201, section 3.7.2), in i: 46 a square
arcminute to 25, ten to the power of 0.31 more a magnitude, as it gives them for 20.5 to 25.5; redshifts are spread as
z^2 exp(-z / z0), z0 = 0.0417 i - 0.744. Taken on beyond 25.5 the slope is 0.2, since counts flatten there. Half-light
radii are 0.6 arcseconds at 22, in the median, and 0.09 dex less each magnitude, with a scatter of 0.2 dex. The slope
beyond and the radii are round numbers for planning: a catalogue of one's own takes the place of all of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from galaxies.common.errors import UserError
from galaxies.common.reading import check_regular
from galaxies.tables.numbers import NumberReader, Quantity
from galaxies.tables.reading import read_table

BRIGHTEST = 17.0  # of a galaxy or star that is drawn
KNEE, BRIGHT_SLOPE, FAINT_SLOPE = 25.5, 0.31, 0.2
_TO_25 = 46.0  # galaxies a square arcminute
_RADIUS_AT_22, _DEX_A_MAGNITUDE, _RADIUS_SCATTER = 0.6, 0.09, 0.2
_RADII = (0.05, 4.0)  # arcseconds
_REDSHIFTS = (0.02, 5.0)
_STAR_SLOPE = 0.08  # of log10 N with magnitude, far from the plane of the Milky Way


_TAKEN = {
    "magnitude": Quantity((-5.0, 45.0), (0.0, 35.0)),
    "size": Quantity.of("size_arcsec"),
    "redshift": Quantity.of("redshift"),
}


@dataclass(frozen=True)
class Drawn:
    """N galaxies: AB magnitude in the reference band, half-light radius (arcseconds) and redshift, (N,) each."""

    magnitude: np.ndarray
    radius: np.ndarray
    redshift: np.ndarray


class DeepCounts:
    """The default counts, from `BRIGHTEST` to a faintest magnitude."""

    def __init__(self, faintest: float) -> None:
        self.faintest = faintest
        self._edges = np.linspace(BRIGHTEST, faintest, 400)
        self._cumulative = np.array([_cumulative(m) - _cumulative(BRIGHTEST) for m in self._edges])

    @property
    def per_arcmin2(self) -> float:
        """Galaxies a square arcminute."""
        return float(self._cumulative[-1])

    def describe(self) -> str:
        """Say what the counts are."""
        return (
            f"{_TO_25:g} 10^({BRIGHT_SLOPE} (m - 25)) galaxies a square arcminute to m, slope {FAINT_SLOPE} beyond "
            f"{KNEE}, from {BRIGHTEST:g} to {self.faintest:g} (LSST Science Book 2009, section 3.7.2, in i)"
        )

    def settings(self) -> str:
        """Return what decides the counts: of the same settings the same galaxies are drawn."""
        return self.describe()

    @property
    def median_magnitude(self) -> float:
        """The magnitude that half of the galaxies are fainter than."""
        return float(np.interp(self._cumulative[-1] / 2, self._cumulative, self._edges))

    def draw(self, count: int, rng: np.random.Generator) -> Drawn:
        """Draw galaxies."""
        magnitude = np.interp(rng.random(count) * self._cumulative[-1], self._cumulative, self._edges)
        radius = median_radius(magnitude) * 10 ** rng.normal(0, _RADIUS_SCATTER, count)
        # A gamma distribution of shape 3 is z^2 exp(-z / z0).
        scale = np.maximum(0.0417 * magnitude - 0.744, 0.04)
        redshift = rng.gamma(3.0, 1.0, count) * scale
        return Drawn(magnitude, radius.clip(*_RADII), redshift.clip(*_REDSHIFTS))


class CatalogueCounts:
    """Galaxies drawn from a catalogue of one's own, with replacement.

    Parameters
    ----------
    path : Path
        A table with the column magnitude, and perhaps size (half-light radius, arcseconds) and redshift.
    faintest : float
        Rows beyond are left out.
    area_arcmin2 : float
        That the catalogue covers.
    """

    def __init__(self, path: Path, faintest: float, area_arcmin2: float) -> None:
        check_regular(path)
        table = read_table(path, _TAKEN, ("magnitude",))
        numbers = NumberReader(table)
        columns = {name: numbers.read(name, of) for name, of in _TAKEN.items() if name in table.cells}
        numbers.say()
        magnitude = columns["magnitude"]
        keep = np.isfinite(magnitude) & (magnitude <= faintest) & (magnitude >= BRIGHTEST)
        if not keep.any():
            raise UserError(
                f"{path} has no galaxy of magnitude {BRIGHTEST:g} to {faintest:g}: choose another --faintest"
            )
        self._path, self.faintest, self.left_out = path, faintest, int((~keep).sum())
        self._columns = {name: values[keep] for name, values in columns.items()}
        self._others = DeepCounts(faintest)  # of which what the catalogue does not tell is drawn
        self.per_arcmin2 = float(keep.sum()) / area_arcmin2

    def describe(self) -> str:
        """Say what the counts are."""
        return f"rows of {self._path.name}, {self.per_arcmin2:.4g} a square arcminute; {self.left_out} left out"

    def settings(self) -> str:
        """Return what decides the counts; see `DeepCounts.settings`."""
        digest = hashlib.sha256(self.describe().encode())
        for name, values in sorted(self._columns.items()):
            digest.update(name.encode() + values.tobytes())
        return digest.hexdigest()

    @property
    def median_magnitude(self) -> float:
        """The magnitude that half of the galaxies are fainter than."""
        return float(np.median(self._columns["magnitude"]))

    def draw(self, count: int, rng: np.random.Generator) -> Drawn:
        """Draw galaxies."""
        row = rng.integers(0, len(self._columns["magnitude"]), count)
        magnitude = self._columns["magnitude"][row]
        own = self._others.draw(count, rng)
        radius = median_radius(magnitude) * own.radius / median_radius(own.magnitude)
        redshift = own.redshift
        if "size" in self._columns:
            radius = np.where(self._columns["size"][row] > 0, self._columns["size"][row], radius)
        if "redshift" in self._columns:
            redshift = np.where(self._columns["redshift"][row] > 0, self._columns["redshift"][row], redshift)
        return Drawn(magnitude, radius.clip(*_RADII), redshift.clip(*_REDSHIFTS))


def median_radius(magnitude: np.ndarray) -> np.ndarray:
    """Return the median half-light radius, arcseconds, of galaxies of a magnitude."""
    return _RADIUS_AT_22 * 10 ** (-_DEX_A_MAGNITUDE * (magnitude - 22))


def star_magnitudes(count: int, faintest: float, rng: np.random.Generator) -> np.ndarray:
    """Draw magnitudes of stars, `BRIGHTEST` to the faintest, whose number rises as 10^(0.08 m)."""
    low, high = (10 ** (_STAR_SLOPE * m) for m in (BRIGHTEST, faintest))
    return np.log10(low + rng.random(count) * (high - low)) / _STAR_SLOPE


def _cumulative(magnitude: float) -> float:
    """Return galaxies a square arcminute brighter than a magnitude."""
    if magnitude <= KNEE:
        return _TO_25 * 10 ** (BRIGHT_SLOPE * (magnitude - 25))
    # From where the slope of the differential counts changes.
    at_knee = _TO_25 * 10 ** (BRIGHT_SLOPE * (KNEE - 25))
    return at_knee * (1 + BRIGHT_SLOPE / FAINT_SLOPE * (10 ** (FAINT_SLOPE * (magnitude - KNEE)) - 1))
