"""Evaluate a mock field: what of it is found, how well it is measured, and how deep one has to go for more.

Everything that comes out is plain values, as the JSON file has them: counts, values, and the 68 % interval of each.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from config_physics import AB_ZERO_POINT
from galaxies.common.errors import UserError
from galaxies.validation.field_detection import (
    MARGIN_PX,
    SECTION_PX,
    THRESHOLD,
    Detections,
    detect,
    effective_pixels,
    sections_of,
)
from galaxies.validation.field_errors import falls_below, median, part, resampled, rises_above, rms, spread
from galaxies.validation.field_matching import Matches, companions, match, reach_of
from galaxies.validation.field_morphology import Structures, components, measure_structures, well_measured
from galaxies.validation.field_observed import ObservedField

if TYPE_CHECKING:
    from galaxies.mock_field.field_folder import MockField

FORMAT_VERSION = 2  # 1 had no morphology of galaxies alone
BIN_MAG = 0.5
SIZE_EDGES = (0.0, 0.1, 0.14, 0.2, 0.28, 0.4, 0.57, 0.8, 1.13, 1.6, 10.0)  # arcsec
HALF, MOST = 0.5, 0.9  # parts whose magnitudes and exposures are told
CURVES = ("detected", "size", "concentration", "asymmetry", "morphology", "snr_per_pixel")
_FEWEST = 5  # sources in a bin whose part says where a curve falls
_LIMIT_SNR = 5.0  # of the limiting magnitude of a point source


@dataclass(frozen=True)
class FieldSettings:
    """How a field is evaluated.

    Attributes
    ----------
    threshold : float
        Least signal-to-noise ratio of a source's peak.
    shape_snr : float
        Least signal-to-noise ratio of the flux of galaxies whose shapes count.
    morphology_limit : float
        Faintest magnitude, in the reference band, of galaxies whose morphology is asked for.
    most : int
        Galaxies that are measured on cutouts, at each depth, for shapes and for morphology each.
    seed : int
        Of new noise, and of which galaxies are measured.
    section_px, margin_px : int
        Of what is read at once.
    """

    threshold: float = THRESHOLD
    shape_snr: float = 10.0
    morphology_limit: float = 24.0
    most: int = 2000
    seed: int = 0
    section_px: int = SECTION_PX
    margin_px: int = MARGIN_PX


class _Truth:
    """The sources of a field that lie well within it, as columns (T,); `chosen` says for shapes and morphology."""

    def __init__(self, field: MockField, settings: FieldSettings) -> None:
        facts, table = field.facts, field.truth()
        self.fwhm_px = facts.band(facts.reference_band).psf_fwhm / facts.pixel_scale
        edge = self.fwhm_px
        inside = (table["x"] >= edge) & (table["x"] <= facts.width_px - 1 - edge)
        inside &= (table["y"] >= edge) & (table["y"] <= facts.height_px - 1 - edge)
        magnitudes = table[f"magnitude_{facts.reference_band}"]
        inside &= np.isfinite(magnitudes)
        self.near_the_edge = len(table) - int(inside.sum())
        self.table = table[inside]
        self.x, self.y = self.table["x"], self.table["y"]
        self.magnitude = self.table[f"magnitude_{facts.reference_band}"]
        self.flux = 10 ** (0.4 * (AB_ZERO_POINT - self.magnitude))
        self.galaxy = np.char.strip(self.table["kind"]) == b"galaxy"
        self.size_arcsec = np.nan_to_num(self.table["size_arcsec"])
        self.snr = self.table[f"snr_{facts.reference_band}"]
        if not self.galaxy.any():
            raise UserError(f"{field.path} has no galaxies, so that there is nothing to evaluate: make a larger field")
        # The same galaxies at any depth, whichever come first in a fixed shuffle.
        self.order = np.random.default_rng([settings.seed, 7]).permutation(len(self.table))
        bright = self.galaxy & (self.magnitude < settings.morphology_limit) & (self.size_arcsec > 0)
        self.morphology = self.first(bright, settings.most)

    def first(self, wanted: np.ndarray, most: int) -> np.ndarray:
        """Return rows of up to `most` of the wanted sources, in rising order."""
        return np.sort(self.order[wanted[self.order]][:most])


def evaluate_field(
    field: MockField, exposures: Sequence[float] = (), settings: FieldSettings | None = None
) -> dict[str, Any]:
    """Evaluate a field as it is, and with new noise for each of `exposures`, seconds in every band.

    Raises
    ------
    UserError
        If it has no galaxies, or its files are damaged.
    """
    settings = settings or FieldSettings()
    truth = _Truth(field, settings)
    facts = field.facts
    result: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "field": str(field.path),
        "survey": facts.survey,
        "area_arcmin2": facts.area_arcmin2,
        "reference_band": facts.reference_band,
        "exposures_s": [band.exposure_s for band in facts.bands],
        "bands": list(facts.band_names),
        "galaxies": int(truth.galaxy.sum()),
        "stars": int((~truth.galaxy).sum()),
        "near_the_edge": truth.near_the_edge,
        "threshold": settings.threshold,
        "shape_snr": settings.shape_snr,
        "morphology_limit": settings.morphology_limit,
        "of_folder": _evaluate_depth(ObservedField(field, None, settings.seed), truth, settings),
    }
    if exposures:
        depths = []
        for number, exposure in enumerate(sorted(set(exposures)), 1):
            if sys.stderr.isatty():
                print(f"\rdepth {number} of {len(set(exposures))}: {exposure:g} s", end="", file=sys.stderr)
            observed = ObservedField(field, exposure, settings.seed)
            depths.append({"exposure_s": exposure, **_evaluate_depth(observed, truth, settings)})
        if sys.stderr.isatty():
            print(file=sys.stderr)
        result["depths"] = depths
        result["needed"] = needed_exposures(depths)
    return result


def needed_exposures(depths: Sequence[dict[str, Any]], level: float = MOST) -> dict[str, float | None]:
    """Return the exposure, seconds, at which each part of galaxies passes a level; None where none reaches it."""
    seconds = [depth["exposure_s"] for depth in depths]
    return {
        name: rises_above(seconds, [depth["morphology"]["parts"][name]["value"] for depth in depths], level)
        for name in CURVES
    }


def _evaluate_depth(observed: ObservedField, truth: _Truth, settings: FieldSettings) -> dict[str, Any]:
    """Return all that is said of one depth."""
    found, shared = _detect_all(observed, truth, settings)
    places = np.stack([found.x, found.y], 1)
    reach = reach_of(truth.size_arcsec / observed.field.facts.pixel_scale, truth.fwhm_px)
    flux = found.flux[:, observed.reference]
    matches = match(np.stack([truth.x, truth.y], 1), truth.flux, reach, places, flux)
    snr = truth.snr * np.sqrt(observed.deepening(observed.reference))
    # Near the field's edge there are detections whose sources do not count: they do not, either.
    counted = _away_from_edge(observed, found, truth.fwhm_px)
    result: dict[str, Any] = {
        "exposures_s": list(observed.exposures),
        "limiting_magnitude": _limiting_magnitude(observed),
        "detections": int(counted.sum()),
        "completeness": _completeness(truth, matches),
        "purity": _purity(observed, found, matches, counted),
        "photometry": {
            name: _photometry(truth, found, matches, name, band) for band, name in enumerate(observed.bands)
        },
        "blending": _blending(truth, matches, shared, snr, settings.threshold),
        **_structure(observed, truth, found, matches, shared[1] == 0, settings),
    }
    return result


def _detect_all(
    observed: ObservedField, truth: _Truth, settings: FieldSettings
) -> tuple[Detections, tuple[np.ndarray, np.ndarray]]:
    """Return all detections, and of each true source whether and with how many others it shares an isophote.

    The latter counts sources that could be seen alone, by their true signal-to-noise ratio.
    """
    height, width = observed.shape
    psf = observed.field.psf(observed.bands[observed.reference])
    rows, columns = np.rint(truth.y).astype(int), np.rint(truth.x).astype(int)
    visible = truth.snr * np.sqrt(observed.deepening(observed.reference)) >= settings.threshold
    inside, shared = np.zeros(len(rows), bool), np.zeros(len(rows), np.int64)
    parts: list[Detections] = []
    for section in sections_of(width, height, settings.section_px, settings.margin_px):
        images, noise = observed.planes(section.rows, section.columns)
        found = detect(images, noise, psf, observed.reference, section, settings.threshold)
        offset = max((int(each.parent.max(initial=0)) for each in parts), default=0)
        parts.append(found.detections._replace(parent=found.detections.parent + offset))
        here = _within(rows, columns, section.rows, section.columns) & visible
        number = companions(found.parents, rows[here] - section.rows.start, columns[here] - section.columns.start)
        own = _within(rows[here], columns[here], section.own_rows, section.own_columns)
        mine = np.flatnonzero(here)[own]
        inside[mine], shared[mine] = number[own] >= 0, number[own].clip(0)
    return Detections(*(np.concatenate(columns) for columns in zip(*parts, strict=True))), (inside, shared)


def _within(y: np.ndarray, x: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    return (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)


def _away_from_edge(observed: ObservedField, found: Detections, edge: float) -> np.ndarray:
    height, width = observed.shape
    inside = (found.x >= edge) & (found.x <= width - 1 - edge)
    return inside & (found.y >= edge) & (found.y <= height - 1 - edge)


def _limiting_magnitude(observed: ObservedField) -> float:
    """Return the AB magnitude of a point source of a signal-to-noise ratio of 5 over the sky, in the reference band."""
    band = observed.field.facts.bands[observed.reference]
    sky = band.sky_noise / np.sqrt(observed.deepening(observed.reference))
    pixels = effective_pixels(observed.field.psf(band.name))
    return float(AB_ZERO_POINT - 2.5 * np.log10(_LIMIT_SNR * sky * np.sqrt(pixels)))


def _bins(values: np.ndarray, width: float = BIN_MAG) -> np.ndarray:
    """Return edges, multiples of the width, about all finite values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.array([0.0, width])
    return np.arange(np.floor(finite.min() / width), np.floor(finite.max() / width) + 2) * width


def _in_bins(values: np.ndarray, edges: Sequence[float] | np.ndarray, of: Any) -> list[dict[str, Any]]:
    """Return `of(rows)` of the values in each bin, with the bin's edges."""
    place = np.searchsorted(edges, values, side="right") - 1
    return [
        {"low": float(low), "high": float(high), **of(np.flatnonzero(place == k))}
        for k, (low, high) in enumerate(pairwise(edges))
    ]


def _level(bins: list[dict[str, Any]], level: float) -> float | None:
    centres = [(each["low"] + each["high"]) / 2 for each in bins]
    return falls_below(centres, [each["value"] if each["count"] >= _FEWEST else None for each in bins], level)


def _completeness(truth: _Truth, matches: Matches) -> dict[str, Any]:
    rows = np.flatnonzero(truth.galaxy)
    magnitude, found = truth.magnitude[rows], matches.detection[rows] >= 0
    by_magnitude = _in_bins(magnitude, _bins(magnitude), lambda k: part(found[k]))
    half, most = _level(by_magnitude, HALF), _level(by_magnitude, MOST)
    # Against size, where finding a galaxy is uncertain: about the magnitude at which half of them are found.
    faint = half if half is not None else float(magnitude.max())
    near = np.abs(magnitude - faint) <= 1
    size = truth.size_arcsec[rows][near]
    stars = np.flatnonzero(~truth.galaxy)
    return {
        "all": part(found),
        "by_magnitude": by_magnitude,
        "magnitude_50": half,
        "magnitude_90": most,
        "by_size": _in_bins(size, SIZE_EDGES, lambda k: part(found[near][k])),
        "by_size_magnitudes": [faint - 1, faint + 1],
        "stars": part(matches.detection[stars] >= 0),
    }


def _purity(observed: ObservedField, found: Detections, matches: Matches, counted: np.ndarray) -> dict[str, Any]:
    real = (matches.truth >= 0)[counted]
    flux = found.flux[counted, observed.reference]
    magnitude = np.where(flux > 0, AB_ZERO_POINT - 2.5 * np.log10(np.where(flux > 0, flux, 1)), np.nan)
    size = found.half_light_radius[counted] * observed.field.facts.pixel_scale
    measured = np.isfinite(magnitude)
    return {
        "all": part(real),
        "without_flux": int((~measured).sum()),
        "by_magnitude": _in_bins(magnitude[measured], _bins(magnitude), lambda k: part(real[measured][k])),
        "by_size": _in_bins(size, SIZE_EDGES, lambda k: part(real[k])),
    }


def _photometry(truth: _Truth, found: Detections, matches: Matches, name: str, band: int) -> dict[str, Any]:
    """Compare magnitudes within Kron's apertures with the true ones of matched galaxies."""
    rows = np.flatnonzero(truth.galaxy & (matches.detection >= 0))
    flux = found.flux[matches.detection[rows], band]
    true = truth.table[f"magnitude_{name}"][rows]
    good = (flux > 0) & np.isfinite(true)
    offset = AB_ZERO_POINT - 2.5 * np.log10(flux[good]) - true[good]
    error = found.flux_error[matches.detection[rows], band][good]
    pull = (flux[good] - 10 ** (0.4 * (AB_ZERO_POINT - true[good]))) / np.where(error > 0, error, np.inf)

    def of_rows(k: np.ndarray) -> dict[str, Any]:
        bias, scatter = resampled(offset[k], median), resampled(offset[k], spread)
        by_noise = spread(pull[k]) if bias["value"] is not None else None
        return {"count": len(k), "bias": bias, "scatter": scatter, "scatter_over_error": by_noise}

    return {"negative": int((~good).sum()), "by_magnitude": _in_bins(true[good], _bins(true[good]), of_rows)}


def _blending(
    truth: _Truth, matches: Matches, shared: tuple[np.ndarray, np.ndarray], snr: np.ndarray, threshold: float
) -> dict[str, Any]:
    """Count galaxies that could be seen alone and have another such source's centre within their isophote."""
    inside, others = shared
    galaxies = truth.galaxy & (snr >= threshold) & inside
    blended = galaxies & (others > 0)
    lost = blended & (matches.detection < 0)
    return {
        "blended": part(blended[galaxies]),
        "unrecognised": part(lost[galaxies]),
        "recognised_of_blended": part((~lost)[blended]),
        "by_magnitude": _in_bins(
            truth.magnitude[galaxies],
            _bins(truth.magnitude[galaxies]),
            lambda k: {"blended": part(blended[galaxies][k]), "unrecognised": part(lost[galaxies][k])},
        ),
    }


def _structure(
    observed: ObservedField,
    truth: _Truth,
    found: Detections,
    matches: Matches,
    alone: np.ndarray,
    settings: FieldSettings,
) -> dict[str, Any]:
    """Return shapes and morphology; a galaxy that is asked for both is measured once.

    It is measured at this depth and at a hundred times the exposure, with the same pixels left out.
    """
    reference = observed.reference
    flux, error = found.flux[:, reference], found.flux_error[:, reference]
    bright = flux >= settings.shape_snr * np.where(error > 0, error, np.inf)
    wanted = truth.galaxy & (matches.detection >= 0)
    wanted[wanted] = bright[matches.detection[wanted]]
    of_shape = truth.first(wanted, settings.most)
    detected = matches.detection[truth.morphology] >= 0
    of_morphology = truth.morphology[detected]
    rows = np.union1d(of_shape, of_morphology)
    galaxies = truth.x[rows], truth.y[rows], truth.size_arcsec[rows], found, matches.detection[rows]
    both = [measure_structures(observed, *galaxies, deep=deep) for deep in (False, True)]

    def of(some: np.ndarray) -> list[Structures]:
        places = np.searchsorted(rows, some)
        return [Structures(*(column[places] for column in each)) for each in both]

    return {
        "shapes": {
            "galaxies": int(wanted.sum()),
            "galaxies_per_arcmin2": float(wanted.sum() / observed.field.facts.area_arcmin2),
            **_shapes(truth, of_shape, *of(of_shape)),
        },
        "morphology": _morphology(truth, detected, alone[truth.morphology], *of(of_morphology)),
    }


def _shapes(truth: _Truth, rows: np.ndarray, seen: Structures, deep: Structures) -> dict[str, Any]:
    """Return the scatter of ellipticities (a - b) / (a + b), a component, and the parts of it.

    The measurement's part is the scatter of what is measured about what the same instrument measures at a hundred
    times the exposure.
    """
    both = np.isfinite(seen.e1) & np.isfinite(deep.e1)
    e = np.stack([seen.e1, seen.e2], 1)[both]
    noise = e - np.stack([deep.e1, deep.e2], 1)[both]
    table = truth.table[rows[both]]
    true = np.stack(components(table["ellipticity"], table["position_angle"]), 1)
    true = true[np.isfinite(true).all(1)]
    return {
        "measured": int(both.sum()),
        "rms": resampled(e, rms),
        "rms_of_measurement": resampled(noise, rms),
        "rms_of_truth": resampled(true, rms),
    }


def _morphology(
    truth: _Truth, detected: np.ndarray, alone: np.ndarray, seen: Structures, deep: Structures
) -> dict[str, Any]:
    """Return the parts of bright galaxies that are detected, and whose size and structure are measured.

    Once of all, and once of those that share their isophote with no other source that could be seen alone, which says
    what blends cost.
    """
    size = truth.size_arcsec[truth.morphology[detected]]
    passed = {"detected": detected}
    for name, good in well_measured(seen, deep, size).items():
        passed[name] = np.zeros(len(detected), bool)
        passed[name][detected] = good
    ratio = seen.size_arcsec / size
    return {
        "galaxies": len(detected),
        "parts": {name: part(yes) for name, yes in passed.items()},
        "alone": {"galaxies": int(alone.sum()), "parts": {name: part(yes[alone]) for name, yes in passed.items()}},
        "size_over_true": resampled(ratio[np.isfinite(ratio)], median),
    }
