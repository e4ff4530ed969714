"""The evaluation of a field in words: one line, a table of all that was counted, and a page in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from galaxies.validation.field_morphology import ASYMMETRY_WITHIN, CONCENTRATION_WITHIN, SIZE_WITHIN, SNR_PER_PIXEL

COLUMNS = ("exposure_s", "quantity", "against", "low", "high", "count", "value", "interval_low", "interval_high")


def seconds_text(value: float) -> str:
    """Write an exposure."""
    return f"{value:,.0f} s" if value >= 10 else f"{value:.3g} s"


def summary(result: dict[str, Any]) -> str:
    """Return the evaluation in one line."""
    depth, band = result["of_folder"], result["reference_band"]
    complete, purity = depth["completeness"], depth["purity"]["all"]["value"]
    half, blends, shapes = complete["magnitude_50"], depth["blending"]["blended"]["value"], depth["shapes"]["rms"]
    words = [
        f"{result['galaxies']} galaxies: half complete "
        + (f"at {band} = {half:.2f}" if half is not None else f"nowhere to {band} = {_faintest(depth):.1f}"),
        f"purity {_percent(purity)}",
        f"blended {_percent(blends)}",
        f"shape noise {_number(shapes['value'])}",
    ]
    if "needed" in result:
        words.append(f"morphology of {band} < {result['morphology_limit']:g} {_needed(result)}")
        seconds = result["needed"]["snr_per_pixel"]
        words.append(
            f"S/N a pixel of {SNR_PER_PIXEL:g} " + (f"with {seconds_text(seconds)}" if seconds else "not reached")
        )
    return ", ".join(words)


def _faintest(depth: dict[str, Any]) -> float:
    return depth["completeness"]["by_magnitude"][-1]["high"]


def _needed(result: dict[str, Any]) -> str:
    """Say in words at which exposure nine of ten galaxies have their morphology measured."""
    seconds, depths = result["needed"]["morphology"], result["depths"]
    if seconds is None:
        reached = max((depth["morphology"]["parts"]["morphology"]["value"] or 0) for depth in depths)
        return f"measured for 90 %: not reached to {seconds_text(depths[-1]['exposure_s'])} ({reached:.0%} at most)"
    if seconds == depths[0]["exposure_s"]:
        return f"measured for 90 % with {seconds_text(seconds)} already, the shortest"
    return f"measured for 90 % with {seconds_text(seconds)}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _part(cell: dict[str, Any]) -> str:
    """Write a value with its interval."""
    if cell["value"] is None:
        return f"- ({cell['count']})"
    low, high = cell["interval"]
    return f"{cell['value']:.3f} [{low:.3f}, {high:.3f}] ({cell['count']})"


def rows_of(result: dict[str, Any]) -> Iterator[list[Any]]:
    """Yield the lines of the table, as `COLUMNS` have them; "" stands for the images of the folder."""
    yield from _rows_of_depth("", result["of_folder"], result["reference_band"])
    for depth in result.get("depths", ()):
        yield from _rows_of_depth(f"{depth['exposure_s']:g}", depth, result["reference_band"])


def _rows_of_depth(exposure: str, depth: dict[str, Any], reference: str) -> Iterator[list[Any]]:
    def row(quantity: str, against: str, bin_: dict[str, Any], cell: dict[str, Any]) -> list[Any]:
        values = [bin_.get("low"), bin_.get("high"), cell["count"], cell["value"], *(cell["interval"] or (None, None))]
        return [exposure, quantity, against, *("" if v is None else f"{v:.6g}" for v in values)]

    for quantity in ("completeness", "purity"):
        yield row(quantity, "", {}, depth[quantity]["all"])
        for against in ("magnitude", "size"):
            for each in depth[quantity][f"by_{against}"]:
                yield row(quantity, f"magnitude_{reference}" if against == "magnitude" else "size_arcsec", each, each)
    for band, found in depth["photometry"].items():
        for each in found["by_magnitude"]:
            yield row(f"bias_{band}", f"magnitude_{band}", each, each["bias"])
            yield row(f"scatter_{band}", f"magnitude_{band}", each, each["scatter"])
    for quantity in ("blended", "unrecognised"):
        yield row(quantity, "", {}, depth["blending"][quantity])
        for each in depth["blending"]["by_magnitude"]:
            yield row(quantity, f"magnitude_{reference}", each, each[quantity])
    for quantity in ("rms", "rms_of_measurement", "rms_of_truth"):
        yield row(f"ellipticity_{quantity}", "", {}, depth["shapes"][quantity])
    for name, cell in depth["morphology"]["parts"].items():
        yield row(f"morphology_{name}", "", {}, cell)
    for name, cell in depth["morphology"]["alone"]["parts"].items():
        yield row(f"morphology_{name}_alone", "", {}, cell)


def page(result: dict[str, Any]) -> str:
    """Return the evaluation as Markdown."""
    band, limit = result["reference_band"], result["morphology_limit"]
    head = ["the field", *(f"{depth['exposure_s']:g} s" for depth in result.get("depths", ()))]
    depths = [result["of_folder"], *result.get("depths", ())]
    lines = [
        f"# {result['survey']}, {result['area_arcmin2']:.4g} square arcminutes",
        "",
        f"{summary(result)}.",
        "",
        f"Sources are detected in {band} where a point source would have {result['threshold']:g} times its noise, and "
        "measured within Kron's apertures. In brackets the 68 % interval, and the number of sources.",
        "",
        "| | " + " | ".join(head) + " |",
        "|---|" + "---|" * len(head),
    ]

    def line(name: str, cells: list[str]) -> None:
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    line(f"limit of a point source, 5 sigma [{band}]", [_number(d["limiting_magnitude"], ".2f") for d in depths])
    line("detections", [str(d["detections"]) for d in depths])
    for level in (90, 50):
        cells = [_number(d["completeness"][f"magnitude_{level}"], ".2f") for d in depths]
        line(f"{level} % of galaxies are found to [{band}]", cells)
    line("purity", [_part(d["purity"]["all"]) for d in depths])
    line("with another source in the isophote", [_part(d["blending"]["blended"]) for d in depths])
    line("and not told from it", [_part(d["blending"]["unrecognised"]) for d in depths])
    line(
        f"galaxies of S/N {result['shape_snr']:g}, an arcmin²",
        [_number(d["shapes"]["galaxies_per_arcmin2"], ".1f") for d in depths],
    )
    line("their ellipticity, rms a component", [_part(d["shapes"]["rms"]) for d in depths])
    line("of it by the noise of measuring", [_part(d["shapes"]["rms_of_measurement"]) for d in depths])
    names = {
        "detected": f"{band} < {limit:g}: detected",
        "size": f"half-light radius within {SIZE_WITHIN:.0%}",
        "concentration": f"concentration within {CONCENTRATION_WITHIN:g}",
        "asymmetry": f"asymmetry within {ASYMMETRY_WITHIN:g}",
        "morphology": "all of these",
        "snr_per_pixel": f"mean S/N a pixel of {SNR_PER_PIXEL:g}",
    }
    for key, name in names.items():
        line(name, [_part(d["morphology"]["parts"][key]) for d in depths])
    for key in ("size", "morphology"):
        line(f"alone in their isophote: {names[key]}", [_part(d["morphology"]["alone"]["parts"][key]) for d in depths])
    lines += ["", "![completeness and purity](completeness.png)", "", "![photometry](photometry.png)"]
    if "needed" in result:
        lines += ["", f"Morphology of {band} < {limit:g} is {_needed(result)}.", "", "![depth](depth.png)"]
    return "\n".join(lines) + "\n"
