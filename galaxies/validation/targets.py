"""What this project wants of a trained generator, and whether a report shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from galaxies.validation.report.cells import ALL, LeftOut
from galaxies.validation.report.contents import Copies, Report
from galaxies.validation.report.control import Agreement, ClassAccuracy, GamingGap, agreement_of
from galaxies.validation.report.realism import ARMS, StatisticsMean

# Above this R2 of the judge on real galaxies a picture tells an attribute.
_TOLD = 0.3
SPIRALS = "spiral"  # the class of which arms are expected


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


def verdicts(report: Report) -> list[Verdict]:
    """Hold a report of `evaluation.evaluate` against the targets, for requests like the test galaxies.

    The gaming gap is taken over that on real galaxies, where it is not 1 either: the judge had fewer galaxies to learn
    from than the predictor. The Wasserstein-1 distance is that of all generated from all real galaxies, as Holzschuh et
    al. (2022, arXiv:2203.11956) give it. Copies are suspected at a distance that 1 % of unseen real galaxies are below;
    the target is missed if more than 1 % is certain at 95 %.
    """
    return [verdict for target in TARGETS for verdict in target(report)]


def table(found: list[Verdict]) -> str:
    """Return the verdicts as a table in Markdown."""
    lines = ["| target | wanted | found | |", "|---|---:|---:|---|"]
    for verdict in found:
        value = "–" if verdict.found is None else f"{verdict.found:.3g}"
        word = {True: "met", False: "**missed**", None: "left out"}[verdict.met]
        lines.append(f"| {verdict.name} | {verdict.wanted} | {value} | {word} |")
    return "\n".join(lines)


def _most(name: str, limit: float, found: float | None) -> Verdict:
    return Verdict(name, f"≤ {limit:g}", found, None if found is None else found <= limit)


def _least(name: str, limit: float, found: float | None) -> Verdict:
    return Verdict(name, f"≥ {limit:g}", found, None if found is None else found >= limit)


def _over(value: float | None, unit: float | None) -> float | None:
    """Return a value as a multiple of another, None where either is not known or there is none."""
    return None if value is None or not unit else value / unit


def _photometry(report: Report, attribute: str) -> Agreement | None:
    """Return how photometry agrees with the requests, None where it was left out."""
    cell = agreement_of(report.control.attributes.test, attribute, "photometry")
    return None if isinstance(cell, LeftOut) else cell


def _agreement(report: Report) -> list[Verdict]:
    if report.data.is_flux:
        return [verdict for name in report.checkpoint.attributes for verdict in _agreement_of_flux(report, name)]
    ellipticity, size, brightness = (_photometry(report, name) for name in ("ellipticity", "size", "brightness"))
    return [
        _most("ellipticity, photometry: MAE", 0.05, ellipticity.mae.value if ellipticity else None),
        _most(
            "half-light radius, photometry: MAE over the mean",
            0.10,
            _over(size.mae.value, size.mean_requested) if size else None,
        ),
        _least("brightness, photometry: Spearman", 0.95, brightness.spearman.value if brightness else None),
    ]


def _agreement_of_flux(report: Report, name: str) -> Iterator[Verdict]:
    """Give the verdicts on an attribute of flux, in physical units; on those that there are targets for."""
    cell = _photometry(report, name)
    if name == "ellipticity":
        yield _most("ellipticity, photometry: MAE", 0.05, cell.mae.value if cell else None)
    elif name == "size_arcsec":
        found = _over(cell.mae.value, cell.mean_requested) if cell else None
        yield _most("half-light radius, photometry: MAE over the mean", 0.10, found)
    elif name.startswith("magnitude_"):
        yield _least(f"{name}, photometry: Spearman", 0.95, cell.spearman.value if cell else None)
    elif name == "redshift":
        for words, limit, table in (
            (f"{report.data.called} galaxies", 0.85, report.control.instruments),
            ("generated galaxies", 0.8, report.control.attributes.test),
        ):
            read = agreement_of(table, name, "judge")
            yield _least(
                f"redshift by the judge, {words}: Spearman",
                limit,
                None if isinstance(read, LeftOut) else read.spearman.value,
            )


def _classes(report: Report) -> list[Verdict]:
    drawn, real = report.control.classes.test, report.control.classes.real
    if len(report.data.classes) == 1:  # which everything is of
        return []

    def accuracy(cell: ClassAccuracy | LeftOut, kind: Literal["all", "balanced"]) -> float | None:
        if isinstance(cell, LeftOut):
            return None
        share = cell.balanced if kind == "balanced" else cell.groups[ALL]
        return None if isinstance(share, LeftOut) else share.value

    found = []
    kinds: tuple[tuple[Literal["all", "balanced"], str], ...] = (
        ("all", "of all galaxies"),
        ("balanced", "mean of the classes"),
    )
    for kind, words in kinds:
        one, other = accuracy(drawn, kind), accuracy(real, kind)
        # Galaxies that show their class more plainly than real ones do are no fault.
        below = None if one is None or other is None else max(0.0, other - one)
        found.append(
            _most(f"class accuracy by the judge, {words}: below that on {report.data.called} galaxies by", 0.02, below)
        )
    return found


def _gaming(report: Report) -> list[Verdict]:
    return [
        _most(f"{name}: gaming gap over that on {report.data.called} galaxies", 1.15, _over(gap.ratio, gap.real_ratio))
        for name, gap in report.control.gaming.test.items()
        if isinstance(gap, GamingGap)
    ]


def _judged(report: Report) -> list[Verdict]:
    """Look at the judge's mean squared error in slider ranges over the attributes that it can tell on real galaxies."""
    errors: list[float | None] = []
    rows = {row.name: row for row in report.checkpoint.rows()}
    for name in (name for name in report.control.instruments if name in rows):
        on_real = agreement_of(report.control.instruments, name, "judge")
        if isinstance(on_real, LeftOut) or (on_real.r2.value or 0) <= _TOLD:
            continue
        cell, attribute = agreement_of(report.control.attributes.test, name, "judge"), rows[name]
        squared = None if isinstance(cell, LeftOut) else cell.mean_squared_error
        width = attribute.steps_of(attribute.high) - attribute.steps_of(attribute.low)
        errors.append(_over(squared, width**2))
    known = [error for error in errors if error is not None]
    mean = sum(known) / len(known) if known and len(known) == len(errors) else None
    return [_most("mean squared error of the judge, of what a picture tells (slider ranges)", 0.01, mean)]


def _statistics(report: Report) -> list[Verdict]:
    mean = report.realism.statistics.mean[ALL]
    whole = mean.whole if isinstance(mean, StatisticsMean) else None
    return [_most("mean Wasserstein-1 of the statistics, all images", 0.10, whole)]


def _morphology(report: Report) -> list[Verdict]:
    """Look at the arms of spirals, in data that has spirals."""
    if SPIRALS not in report.data.classes:
        return []
    seen = None if isinstance(report.realism.morphology, LeftOut) else report.realism.morphology
    difference = seen.difference(ARMS, SPIRALS) if seen else None
    apart = None if difference is None else abs(difference)
    strength = seen.multiple("arm_strength", SPIRALS) if seen else None
    return [
        _most(f"spirals with visible arms: distance from the share of {report.data.called} ones", 0.05, apart),
        _most(f"strength of spirals' arms: W1 over that of {_same(report)}", 1.3, strength),
    ]


def _same(report: Report) -> str:
    return f"{report.data.called} from {report.data.called}"


def _features(report: Report) -> list[Verdict]:
    found = []
    for name, space in report.realism.features.items():
        distance = space if isinstance(space, LeftOut) else space.frechet
        multiple = None if isinstance(distance, LeftOut) else distance.multiple
        found.append(_most(f"Fréchet distance over that of {_same(report)}, {name}", 2.0, multiple))
    return found


def _copies(report: Report) -> list[Verdict]:
    name, wanted, cell = "suspected copies of training galaxies", "≤ 0.01 within 95 %", report.honesty.copies
    if not isinstance(cell, Copies):
        return [Verdict(name, wanted, None, None)]
    return [Verdict(name, wanted, cell.copies.value, cell.copies.interval[0] <= 0.01)]


# All targets, in the order of the table; a new one is a function that gives its verdicts, and a line here.
TARGETS: tuple[Callable[[Report], list[Verdict]], ...] = (
    _agreement,
    _classes,
    _gaming,
    _judged,
    _statistics,
    _morphology,
    _features,
    _copies,
)
