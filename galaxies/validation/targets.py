"""What this project wants of a trained generator, and whether a report shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config_physics import ATTRIBUTES

# Above this R2 of the judge on real galaxies a picture tells an attribute.
_TOLD = 0.3


@dataclass(frozen=True)
class Verdict:
    """One target and what came of it.

    Attributes
    ----------
    name, wanted : str
        What is looked at, and what it should be.
    found : float or None
        None where the report left it out.
    met : bool or None
    """

    name: str
    wanted: str
    found: float | None
    met: bool | None


def verdicts(report: dict[str, Any]) -> list[Verdict]:
    """Hold a report of `evaluation.evaluate` against the targets, for requests like the test galaxies.

    The gaming gap is taken over that on real galaxies, where it is not 1 either: the judge had fewer galaxies to learn
    from than the predictor. The Wasserstein-1 distance is that of all generated from all real galaxies, as Holzschuh et
    al. (2022, arXiv:2203.11956) give it. Copies are suspected at a distance that 1 % of unseen real galaxies are below;
    the target is missed if more than 1 % is certain at 95 %.
    """
    control, realism = report["control"], report["realism"]
    found = [
        _most("ellipticity, photometry: MAE", 0.05, lambda: _agreement(report, "ellipticity")["mae"]["value"]),
        _most(
            "half-light radius, photometry: MAE over the mean",
            0.10,
            lambda: _agreement(report, "size")["mae"]["value"] / _agreement(report, "size")["mean_requested"],
        ),
        _least("brightness, photometry: Spearman", 0.95, lambda: _agreement(report, "brightness")["spearman"]["value"]),
    ]
    found += [
        _most(
            f"class accuracy by the judge, {words}: distance from that on real galaxies",
            0.02,
            lambda k=key: abs(control["classes"]["test"][k]["value"] - control["classes"]["real"][k]["value"]),
        )
        for key, words in (("all", "of all galaxies"), ("balanced", "mean of the classes"))
    ]
    found += [
        _most(f"{name}: gaming gap over that on real galaxies", 1.15, lambda gap=gap: gap["ratio"] / gap["real_ratio"])
        for name, gap in control["gaming"]["test"].items()
        if "ratio" in gap
    ]
    found += [
        _most(
            "mean squared error of the judge, of what a picture tells (slider ranges)",
            0.01,
            lambda: _judged_error(report),
        ),
        _most(
            "mean Wasserstein-1 of the statistics, all images",
            0.10,
            lambda: realism["statistics"]["mean"]["all"]["whole"],
        ),
    ]
    found += [
        _most(f"Fréchet distance over that of real from real, {space}", 2.0, lambda s=space: _multiple(realism, s))
        for space in realism["features"]
    ]
    copies = report["honesty"]["copies"].get("copies")
    found.append(
        Verdict("suspected copies of training galaxies", "≤ 0.01 within 95 %", None, None)
        if copies is None
        else Verdict(
            "suspected copies of training galaxies",
            "≤ 0.01 within 95 %",
            copies["value"],
            copies["interval"][0] <= 0.01,
        )
    )
    return found


def table(found: list[Verdict]) -> str:
    """Return the verdicts as a table in Markdown."""
    lines = ["| target | wanted | found | |", "|---|---:|---:|---|"]
    for verdict in found:
        value = "–" if verdict.found is None else f"{verdict.found:.3g}"
        word = {True: "met", False: "**missed**", None: "left out"}[verdict.met]
        lines.append(f"| {verdict.name} | {verdict.wanted} | {value} | {word} |")
    return "\n".join(lines)


def _most(name: str, limit: float, value: Callable[[], float]) -> Verdict:
    return _verdict(name, f"≤ {limit:g}", value, lambda found: found <= limit)


def _least(name: str, limit: float, value: Callable[[], float]) -> Verdict:
    return _verdict(name, f"≥ {limit:g}", value, lambda found: found >= limit)


def _verdict(name: str, wanted: str, value: Callable[[], float], met: Callable[[float], bool]) -> Verdict:
    """Return the verdict; a report leaves out what it had too few galaxies for."""
    try:
        found = value()
    except (KeyError, TypeError, ZeroDivisionError):
        found = None
    if found is None:  # no value, or one that is not finite
        return Verdict(name, wanted, None, None)
    return Verdict(name, wanted, found, met(found))


def _agreement(report: dict[str, Any], attribute: str, instrument: str = "photometry") -> dict[str, Any]:
    return report["control"]["attributes"]["test"][attribute][instrument]["all"]


def _judged_error(report: dict[str, Any]) -> float:
    """Return the judge's mean squared error in slider ranges over the attributes that it can tell on real galaxies."""
    told = [
        name
        for name, readings in report["control"]["instruments"].items()
        if (readings.get("judge", {}).get("all", {}).get("r2", {}).get("value") or 0) > _TOLD
    ]
    errors = []
    for name in told:
        attribute = ATTRIBUTES[name]
        error = _agreement(report, name, "judge")["mean_squared_error"]
        errors.append(error / (attribute.high - attribute.low) ** 2)
    return sum(errors) / len(errors)


def _multiple(realism: dict[str, Any], space: str) -> float:
    return realism["features"][space]["frechet"]["multiple"]
