"""The validation report as one HTML file that needs nothing else: plots inside, light and dark, tables of numbers."""

from __future__ import annotations

import base64
from html import escape
from typing import Any

from config_physics import ATTRIBUTES, MORPHOLOGIES, MORPHOLOGY_NAMES
from galaxies.measure.statistics_table import STATISTICS
from galaxies.validation.report.figures import STYLE, headline, unit_of

_GROUPS = ("all", *MORPHOLOGY_NAMES)
_SETS = {"test": "as test split", "uniform": "uniform"}
_SPACES = {"judge": "Judge", "statistics": "Statistics", "random": "Random network"}


def build_page(report: dict[str, Any], plots: dict[str, dict[str, bytes]]) -> str:
    """Return the report as one HTML page.

    Parameters
    ----------
    report : dict
        As in `evaluation.Evaluation`.
    plots : dict
        {plot: {theme: PNG}}, embedded.
    """
    title = f"Validation of {escape(report['checkpoint']['run'] or report['checkpoint']['path'])}"
    sections = {
        "control": ("Control", _control(report, plots)),
        "realism": ("Realism", _realism(report, plots)),
        "honesty": ("Honesty", _honesty(report, plots)),
        "rulers": ("Are the rulers straight?", _validation(report, plots)),
        "provenance": ("Where this comes from", _provenance(report)),
    }
    links = "".join(f'<a href="#{key}">{head}</a>' for key, (head, _) in sections.items())
    body = "".join(f'<h2 id="{key}">{head}</h2>{content}' for key, (head, content) in sections.items())
    cards = "".join(f"<li><b>{escape(value)}</b><span>{escape(text)}</span></li>" for value, text in headline(report))
    counts = report["counts"]
    intro = (
        f"{counts['test'] + counts['uniform']} generated galaxies: {counts['test']} with the classes and attributes of "
        f"the test split, {counts['uniform']} uniform in what each class supports; against {counts['real']} real test "
        "galaxies that no network was trained on."
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f"<h1>{title}</h1><p class=soft>{intro}</p><nav>{links}</nav><ul class=cards>{cards}</ul>"
        f"{_figure(plots, 'samples', 'Drawn at random, not picked.')}{body}</body></html>\n"
    )


def _figure(plots: dict[str, dict[str, bytes]], name: str, caption: str) -> str:
    if name not in plots:
        return ""
    light, dark = (base64.b64encode(plots[name][theme]).decode() for theme in ("light", "dark"))
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        f'<img alt="{escape(name)}: {escape(caption)}" src="data:image/png;base64,{light}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(head: list[str], rows: list[list[str]], caption: str = "", floors: tuple[int, ...] = ()) -> str:
    """Return a table whose first column names the rows; cells are HTML already."""
    cells = "".join(f"<th scope=col>{h}</th>" for h in head)
    lines = "".join(
        f"<tr{' class=floor' if k in floors else ''}><th scope=row>{row[0]}</th>"
        + "".join(f"<td>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for k, row in enumerate(rows)
    )
    title = f"<caption>{caption}</caption>" if caption else ""
    return f"<div class=scroll><table>{title}<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>"


def _number(cell: dict[str, Any] | None, digits: str = ".3g", percent: bool = False) -> str:
    """Return a value with its interval, or why it is left out."""
    if cell is None or cell.get("value", 0) is None:
        return "–"
    if "left_out" in cell:
        return f"<small>{escape(cell['left_out'])}</small>"
    form = ".0%" if percent else digits
    text = f"{cell['value']:{form}}"
    if "interval" in cell:
        low, high = (f"{bound:{form}}" for bound in cell["interval"])
        text += f" <small>{low} to {high}</small>"
    return text


def _multiple(cell: dict[str, Any]) -> str:
    """Return a distance as a multiple of its floor."""
    if "left_out" in cell:
        return f"<small>{escape(cell['left_out'])}</small>"
    if cell["multiple"] is None:
        return f"{cell['value']:.3g}"
    kind = "bad" if cell["multiple"] > 3 else "good" if cell["multiple"] < 1.2 else ""
    times = f"{cell['multiple']:,.0f}" if cell["multiple"] >= 100 else f"{cell['multiple']:.3g}"
    return f"<span class='{kind}'>× {times}</span> <small>{cell['value']:.3g}</small>"


def _yes(value: bool) -> str:
    return "<span class=good>yes</span>" if value else "<span class=bad>no</span>"


def _control(report: dict[str, Any], plots: dict[str, dict[str, bytes]]) -> str:
    control = report["control"]
    parts = [
        "<p>Each galaxy was asked for with a class and with attributes; here is what instruments measure on it. R² "
        "is 1 for perfect control, 0 for a generator that ignores the request. The rows of real galaxies show the "
        "instrument's own error. Beside each number is its 95 % bootstrap interval.</p>"
    ]
    if report["photometry_was_trained_on"]:
        parts.append(
            "<p><b>Photometry was part of this generator's training</b>, so it is no independent witness; the judge "
            "(and statmorph) are.</p>"
        )
    parts.append(
        _figure(plots, "control", "Requested against measured, uniform requests; the line is perfect control.")
    )
    for attribute in report["checkpoint"]["attributes"]:
        rows, floors = [], []
        sources = {_SETS[name]: control["attributes"][name][attribute] for name in _SETS}
        for words, instruments in (*sources.items(), ("real galaxies", control["instruments"][attribute])):
            for instrument, groups in instruments.items():
                rows += _agreement_rows(groups, f"{words}, {instrument}")
                if words == "real galaxies":
                    floors.append(len(rows) - 1)
        for name, entry in control.get("statmorph", {}).items():
            if attribute in entry["attributes"]:
                words = "real galaxies" if name == "real" else _SETS[name]
                rows += _agreement_rows(entry["attributes"][attribute], f"{words}, statmorph")
        label, unit = ATTRIBUTES[attribute].label, unit_of(attribute)
        if rows:
            head = [unit, "MAE", "bias", "R²", "Spearman", *(f"ρ {n}" for n in MORPHOLOGY_NAMES), "images"]
            parts.append(f"<h3>{label}</h3>" + _table(head, rows, floors=tuple(floors)))
        else:
            parts.append(f"<h3>{label}</h3><p>No instrument here reads it, so nothing is claimed.</p>")
    parts.append("<h3>Class</h3>" + _figure(plots, "classes", "What the judge sees; each row adds up to 100 %."))
    words = {"real": "real test galaxies", **_SETS}
    rows = [
        [words[name], *(_number(entry.get(g, entry), percent=True) for g in ("balanced", *_GROUPS))]
        for name, entry in control["classes"].items()
        if "left_out" not in entry
    ]
    parts.append(_table(["accuracy of the judge", "balanced", *_GROUPS], rows, floors=(0,)) if rows else _left(control))
    rows = []
    for attribute in report["checkpoint"]["attributes"]:
        for name, text in _SETS.items():
            gap, shuffled = (control[key][name].get(attribute) for key in ("gaming", "shuffled"))
            if gap and "ratio" in gap:
                cells = [gap["judge_mae"], gap["predictor_mae"], gap["ratio"], gap.get("real_ratio")]
                cells = [f"{c:.3g}" if c is not None else "–" for c in cells]
            else:
                cells = ["–"] * 4
            if shuffled and "spearman" in shuffled:
                low, high = shuffled["spearman_range"]
                cells += [
                    f"{shuffled['observed']:.2f}",
                    f"{abs(shuffled['spearman']):.2f} <small>{low:.2f} to {high:.2f}</small>",
                ]
                cells.append(_yes(shuffled["no_skill"]))
            else:
                cells += ["–"] * 3
            rows.append([f"{ATTRIBUTES[attribute].label}, {text}", *cells])
    head = ["", "judge MAE", "predictor MAE", "gap", "gap, real", "Spearman", "shuffled, |ρ|", "no skill"]
    parts.append(
        "<h3>Does it please only its own predictor?</h3><p>The gaming gap is the judge's error over that of the "
        "predictor that the generator was trained with. Well above the gap on real galaxies, the generator draws what "
        "only its predictor sees. With the requests dealt out anew among the images, no control may be left.</p>"
    )
    parts.append(_table(head, rows))
    if "guidance" in control:
        parts.append(_guidance(control["guidance"]))
    return "".join(parts)


def _guidance(effect: dict[str, Any]) -> str:
    seconds = effect["seconds_per_image"]
    rows = [
        [f"{ATTRIBUTES[attribute].label}, {instrument}", *(_number(cell.get("mae", cell)) for cell in drawn.values())]
        for attribute, instruments in effect["attributes"].items()
        for instrument, drawn in instruments.items()
    ]
    rows.append(["seconds an image", *(f"{seconds[name]:.3g}" for name in ("plain", "guided"))])
    return (
        "<h3>What photometric guidance does and costs</h3>"
        f"<p>The first {effect['images']} galaxies of the test split's requests, drawn from the same noise without "
        f"guidance and with a strength of {effect['strength']:g}. Photometry is what the guidance follows, so only the "
        "judge is an independent witness here.</p>"
    ) + _table(["mean absolute error", "without", "with"], rows)


def _left(control: dict[str, Any]) -> str:
    return f"<p>Left out: {escape(control['classes']['real']['left_out'])}</p>"


def _agreement_rows(groups: dict[str, Any], words: str) -> list[list[str]]:
    total = groups["all"]
    if "left_out" in total:
        return [[words, _number(total), *[""] * 8]]
    ranks = [groups[n].get("spearman") for n in MORPHOLOGY_NAMES]
    cells = [f"{r['value']:.2f}" if r and r["value"] is not None else "–" for r in ranks]
    terms = [_number(total[term], ".2f" if term in ("r2", "spearman") else ".2g") for term in _TERMS]
    return [[words, *terms, *cells, str(total["pairs"])]]


_TERMS = ("mae", "bias", "r2", "spearman")


def _realism(report: dict[str, Any], plots: dict[str, dict[str, bytes]]) -> str:
    realism = report["realism"]
    statistics = realism["statistics"]
    rows = [
        [
            s.label,
            *(_multiple(cell.get("w1", cell)) for cell in (statistics["table"][s.name][g] for g in _GROUPS)),
            _number(statistics["table"][s.name]["all"].get("ks")),
        ]
        for s in STATISTICS
    ]
    means = statistics["mean"]
    rows.append(["mean", *(_multiple(means[g]) for g in _GROUPS), ""])
    for words, key in (("mean of all images, no multiple", "whole"), ("mean, real against real", "floor")):
        rows.append([words, *(f"{means[g][key]:.3g}" if key in means[g] else "–" for g in _GROUPS), ""])
    head = ["× floor, W1 in standard deviations", *_GROUPS, "KS, all"]
    parts = [
        "<p>Every distance of generated from real galaxies is given as a multiple of its floor, the distance between "
        "two random halves of the real ones at the same number: × 1 is as good as real, green is within 20 %, red "
        "above three times.</p><h3>Measured statistics</h3>",
        _figure(plots, "statistics", "Diamonds: all classes together."),
        _table(head, rows, "Wasserstein-1 distance over the real standard deviation", (len(rows) - 1,)),
        _figure(plots, "distributions", "Grey: real test galaxies; line: generated ones."),
        "<h3>Power spectrum</h3>",
        _figure(plots, "power", "Above 1: too much structure of that scale; below 1: too little."),
        "<h3>Feature spaces</h3>",
    ]
    rows, floors = [], []
    for name, label in _SPACES.items():
        entry = realism["features"].get(name, {"left_out": "there is no such space"})
        if "left_out" in entry:
            rows.append([label, _number(entry), *[""] * 5])
            continue
        near = entry["neighbourhoods"]
        keys = ("precision", "recall", "density", "coverage")
        own = [_number(near.get(key, near)) for key in keys]
        rows.append(
            [
                f"{label} <small>{entry['features']} features</small>",
                _multiple(entry["frechet"]),
                _multiple(entry["kid"]),
                *own,
            ]
        )
        floors.append(len(rows))
        floor = [f"{near[key]['floor']:.3g}" if key in near else "" for key in keys]
        distance = [f"{entry[key]['floor']:.3g}" if "floor" in entry[key] else "" for key in ("frechet", "kid")]
        rows.append(["real against real", *distance, *floor])
    head = ["", "Fréchet", "KID", "precision", "recall", "density", "coverage"]
    parts.append(_table(head, rows, floors=tuple(floors)))
    fresh = realism["real_or_fake"]
    parts.append("<h3>Can a fresh network tell them apart?</h3>")
    if "left_out" in fresh:
        return "".join(parts) + f"<p>Left out: {escape(fresh['left_out'])}</p>"
    rows = [
        [group, f"{c['accuracy']:.1%} <small>± {c['standard_error']:.1%}</small>", f"{c['auc']:.3f}", str(c["pairs"])]
        for group, c in fresh.items()
        if group != "learned"
    ]
    parts.append(f"<p>It learned from {fresh['learned']} pairs and is tested on others. Guessing gives 50 %.</p>")
    return "".join(parts) + _table(["", "accuracy", "area under the curve", "test pairs"], rows)


def _honesty(report: dict[str, Any], plots: dict[str, dict[str, bytes]]) -> str:
    honesty = report["honesty"]
    copies, parts = honesty["copies"], ["<h3>Copies of training galaxies</h3>"]
    if not report["data"]["trained_on"]:
        parts.append("<p><b>This is not the dataset that the run was trained on</b>: what follows says little.</p>")
    if "left_out" in copies:
        parts.append(f"<p>Left out: {escape(copies['left_out'])}</p>")
    else:
        parts.append(
            f"<p>The nearest of {copies['training']} training galaxies is {copies['median']:.2f} grey levels away from "
            f"a generated one and {copies['held_out_median']:.2f} from a held-out real one (medians). "
            f"{copies['copies']['value']:.1%} of the generated galaxies are nearer than 99 % of the held-out ones are; "
            "1 % is what new galaxies give.</p>"
        )
        parts.append(_figure(plots, "copies", "Copies would stand at the left; the nearest pairs are beside."))
    rows = [
        [g, *(f"{e[k]:.2f}" if k in e else _number(e) if "left_out" in e else "–" for k in ("pixels", "judge"))]
        for g, e in honesty["variety"].items()
    ]
    parts.append(
        "<h3>Variety</h3><p>Mean difference of two galaxies, generated over real; 0 is one galaxy over and over.</p>"
    )
    parts.append(_table(["", "in pixels", "in the judge's features"], rows))
    parts.append("<h3>Requests and measurements in doubt</h3>")
    rows = [
        [f"requests outside the support, {_SETS[name]}", f"{share:.1%}"]
        for name, share in honesty["unsupported"].items()
    ]
    words = {"real": "real galaxies", **_SETS}
    rows += [
        [f"{escape(flag)}, {words[name]}", _number(cell, percent=True)]
        for name, flags in honesty["flags"].items()
        for flag, cell in flags.items()
    ]
    return "".join(parts) + _table(["", "share"], rows)


def _validation(report: dict[str, Any], plots: dict[str, dict[str, bytes]]) -> str:
    validation = report["validation"]
    if "left_out" in validation:
        return f"<p>Left out: {escape(validation['left_out'])}</p>"
    rows = [
        [f"{_SPACES[space]}, {distance}", *(_yes(cells[d][distance]["monotone"]) for d in validation["damages"])]
        for space, cells in validation["spaces"].items()
        for distance in ("frechet", "kid")
    ]
    head = ["grows at every step", *(escape(d["label"]) for d in validation["damages"].values())]
    verdict = "all distances grow." if validation["passed"] else "not all distances grow: trust those that do."
    return (
        f"<p>Real galaxies, damaged more and more: {verdict}</p>"
        + _figure(plots, "validation", "Distance of damaged from other real galaxies.")
        + _table(head, rows)
    )


def _provenance(report: dict[str, Any]) -> str:
    checkpoint, data = report["checkpoint"], report["data"]
    rows = [
        ["checkpoint", f"{escape(checkpoint['path'])}, epoch {checkpoint['epoch']}, step {checkpoint['step']}"],
        ["drawn by", escape(checkpoint["sampler"])],
        ["dataset", f"{escape(data['path'])} <small>{escape(str(data['source']))}</small>"],
        ["images, sha256", data["sha256"]["images.npy"]],
        ["trained on this dataset", _yes(data["trained_on"])],
        ["seed", str(report["seed"])],
        ["judge", escape(", ".join(f"{k}: {v}" for k, v in report["judge"].items() if not isinstance(v, dict)))],
        ["seconds", escape(", ".join(f"{part} {seconds:g}" for part, seconds in report["seconds"].items()))],
    ]
    names = ", ".join(m.label for m in MORPHOLOGIES)
    return _table(["", ""], rows) + f"<p class=soft>Classes: {names}. All numbers are in report.json.</p>"
