"""The plots of the evaluation of a field, in the report's style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from galaxies.validation.field_evaluation import MOST
from galaxies.validation.field_page import seconds_text
from galaxies.validation.report.drawing import THEMES, color_of, legend, panels, png_of

_FEWEST = 5  # sources in a bin that is drawn
_SIZE = (4.6, 3.2)  # of a panel, inches
_CURVES = {
    "detected": "detected",
    "size": "half-light radius within 20 %",
    "morphology": "radius, concentration and asymmetry measured",
    "snr_per_pixel": "mean S/N a pixel of 2.5",
}


def draw_evaluation(result: dict[str, Any]) -> dict[str, bytes]:
    """Return the plots of what `evaluate_field` returns, {file name: PNG}."""
    drawn = {"completeness.png": _completeness(result), "photometry.png": _photometry(result)}
    if "depths" in result:
        drawn["depth.png"] = _depth(result)
    return drawn


def _depths(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return what is drawn with which name: the folder's images, or each exposure."""
    if "depths" in result:
        return [(seconds_text(depth["exposure_s"]), depth) for depth in result["depths"]]
    return [("the field", result["of_folder"])]


def _in_order(number: int, count: int) -> str:
    """Return the colour of one of several depths, which follow each other."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["viridis"](0.9 * number / (count - 1))) if count > 1 else color_of(0)


def _curve(axis: Any, bins: Sequence[dict[str, Any]], color: str, name: str) -> None:
    """Draw values against the middles of their bins, with their intervals."""
    known = [each for each in bins if each["value"] is not None and each["count"] >= _FEWEST]
    x = [(each["low"] + each["high"]) / 2 for each in known]
    axis.plot(x, [each["value"] for each in known], "o-", color=color, ms=3, lw=1.3, label=name)
    edges = [each["interval"] for each in known]
    axis.fill_between(x, [low for low, _ in edges], [high for _, high in edges], color=color, alpha=0.2, lw=0)


def _completeness(result: dict[str, Any]) -> bytes:
    colors, band = THEMES["light"], result["reference_band"]
    figure, axes = panels(4, 2, _SIZE, colors)
    sized = "by_size"
    for number, (name, depth) in enumerate(_depths(result)):
        color = _in_order(number, len(result.get("depths", [0])))
        _curve(axes[0], depth["completeness"]["by_magnitude"], color, name)
        _curve(axes[1], depth["purity"]["by_magnitude"], color, name)
        for axis, what in ((axes[2], "completeness"), (axes[3], "purity")):
            # The outer edges are there to hold what is left over, and say nothing of where it lies.
            bins = depth[what][sized]
            bins = [{**bins[0], "low": bins[0]["high"] / 2}, *bins[1:-1], {**bins[-1], "high": 2 * bins[-1]["low"]}]
            _curve(axis, bins, color, name)
    axes[0].set_xlabel(f"true magnitude {band} [AB]")
    axes[0].set_ylabel("completeness of galaxies")
    axes[1].set_xlabel(f"measured magnitude {band} [AB]")
    axes[1].set_ylabel("purity of detections")
    axes[2].set_xlabel("true half-light radius [arcsec]")
    axes[2].set_ylabel("completeness, faint galaxies")
    axes[3].set_xlabel("measured half-light radius [arcsec]")
    axes[3].set_ylabel("purity of detections")
    for axis in axes:
        axis.set_ylim(-0.03, 1.05)
        axis.axhline(1, color=colors["faint"], lw=0.8, zorder=0)
    for axis in axes[2:]:
        axis.set_xscale("log")
        axis.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
        axis.minorticks_off()
    legend(axes[0], colors)
    return png_of(figure)


def _photometry(result: dict[str, Any]) -> bytes:
    colors, bands = THEMES["light"], result["bands"]
    figure, axes = panels(2, 2, _SIZE, colors)
    for number, name in enumerate(bands):
        bins = result["of_folder"]["photometry"][name]["by_magnitude"]
        for axis, what in zip(axes, ("bias", "scatter"), strict=True):
            each = [{"low": cell["low"], "high": cell["high"], **cell[what]} for cell in bins]
            _curve(axis, each, color_of(number), name)
    axes[0].axhline(0, color=colors["ink"], lw=0.8)
    axes[0].set_ylabel("median of measured - true [mag]")
    axes[1].set_ylabel("scatter of measured - true [mag]")
    axes[1].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("true magnitude [AB]")
    legend(axes[0], colors, ncols=2)
    return png_of(figure)


def _depth(result: dict[str, Any]) -> bytes:
    """Draw how deep one must go to measure morphology."""
    colors, depths = THEMES["light"], result["depths"]
    figure, (axis,) = panels(1, 1, (6.6, 4.2), colors)
    seconds = [depth["exposure_s"] for depth in depths]
    for number, (name, label) in enumerate(_CURVES.items()):
        parts = [depth["morphology"]["parts"][name] for depth in depths]
        if all(each["value"] is not None for each in parts):
            axis.plot(seconds, [each["value"] for each in parts], "o-", color=color_of(number), ms=4, label=label)
            low, high = zip(*(each["interval"] for each in parts), strict=True)
            axis.fill_between(seconds, low, high, color=color_of(number), alpha=0.2, lw=0)
    axis.axhline(MOST, color=colors["ink"], lw=0.8, ls=":")
    needed = result["needed"]["morphology"]
    if needed is not None:
        axis.axvline(needed, color=colors["ink"], lw=0.8, ls=":")
        axis.annotate(seconds_text(needed), (needed, 0.02), color=colors["ink"], fontsize=8, ha="right", rotation=90)
    axis.set_xscale("log")
    axis.set_xticks(seconds, [f"{value:g}" for value in seconds])
    axis.minorticks_off()
    axis.set_ylim(-0.03, 1.03)
    band, limit = result["reference_band"], result["morphology_limit"]
    axis.set_xlabel("exposure [s]")
    axis.set_ylabel(f"part of galaxies of {band} < {limit:g}")
    axis.set_title("How deep must I go to measure morphology?")
    legend(axis, colors, loc="best")
    return png_of(figure)
