"""What a report says at a glance: its look, the figures at the top of its page, and those that runs are compared by."""

from __future__ import annotations

from typing import Any

from config_physics import ATTRIBUTES

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2129; --soft: #5b6472; --line: #dde1e8; --card: #f5f6f9;
  --accent: #b4481a; --bad: #b4231f; --good: #0b7a53 }
@media (prefers-color-scheme: dark) { :root { --paper: #14161d; --ink: #e2e4ec; --soft: #9aa2b1; --line: #2c303c;
  --card: #1c1f29; --accent: #f0915c; --bad: #ff8a80; --good: #5fd3a4 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif }
h1 { font-size: 1.7rem; margin: 0 } h2 { margin: 3rem 0 .3rem; font-size: 1.3rem; border-top: 1px solid var(--line);
  padding-top: 1.5rem } h3 { margin: 1.8rem 0 .3rem; font-size: 1.02rem }
p { max-width: 52rem; margin: .4rem 0 } .soft, figcaption, caption { color: var(--soft) }
.scroll { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: .4rem }
th, td { padding: .28rem .55rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom-color: var(--soft); font-weight: 600 }
tr.floor td, tr.floor th { color: var(--soft); font-style: italic } td small { color: var(--soft) }
.bad { color: var(--bad); font-weight: 600 } .good { color: var(--good); font-weight: 600 }
ul.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .8rem; padding: 0;
  list-style: none; margin: 1.4rem 0 }
ul.cards li { background: var(--card); border-radius: .5rem; padding: .8rem 1rem }
ul.cards b { display: block; font-size: 1.45rem; line-height: 1.25; color: var(--accent) }
ul.cards span { font-size: .87rem; color: var(--soft) }
figure { margin: 1rem 0 } figure img { max-width: 100%; height: auto; display: block }
nav a { margin-right: 1rem; color: var(--accent) }
"""


def unit_of(attribute: str) -> str:
    """Return an attribute's unit for a table's corner."""
    return ATTRIBUTES[attribute].unit or "no unit"


def instrument_of(report: dict[str, Any], attribute: str) -> str | None:
    """Return the most independent instrument that read an attribute: the judge, else photometry, else None."""
    readings = report["control"]["attributes"]["uniform"][attribute]
    return next((i for i in ("judge", "photometry") if i in readings and "mae" in readings[i]["all"]), None)


def headline(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures of a report's top: (value, what it is); those that were left out are not among them."""
    cards = []
    for attribute in report["checkpoint"]["attributes"]:
        if (instrument := instrument_of(report, attribute)) is not None:
            cell = report["control"]["attributes"]["uniform"][attribute][instrument]["all"]
            if cell["spearman"]["value"] is not None:
                text = f"rank correlation of requested and measured {ATTRIBUTES[attribute].label.lower()}, {instrument}"
                cards.append((f"{cell['spearman']['value']:.2f}", text))
    classes = report["control"]["classes"]
    if "balanced" in classes["test"]:
        real = classes["real"]["balanced"]["value"]
        text = f"of the galaxies have the class that was asked for, by the judge ({real:.0%} on real ones)"
        cards.append((f"{classes['test']['balanced']['value']:.0%}", text))
    mean = report["realism"]["statistics"]["mean"]["all"]
    if "multiple" in mean:
        cards.append((f"× {mean['multiple']:.2g}", "distance of measured statistics, over that of real from real"))
    fresh = report["realism"]["real_or_fake"]
    if "all" in fresh:
        cards.append((f"{fresh['all']['accuracy']:.0%}", "accuracy of a fresh real-or-fake network; 50 % is guessing"))
    copies = report["honesty"]["copies"]
    if "copies" in copies:
        cards.append((f"{copies['copies']['value']:.1%}", "suspected copies of training galaxies; 1 % is expected"))
    validation = report["validation"]
    if "passed" in validation:
        cells = [c["monotone"] for s in validation["spaces"].values() for d in s.values() for c in d.values()]
        cards.append((f"{sum(cells)} of {len(cells)}", "checks of the distances passed"))
    return cards


def figures(report: dict[str, Any]) -> dict[str, float | None]:
    """Return the figures that runs are compared by, {name: value}; None where one was left out."""
    found: dict[str, float | None] = {}
    for attribute in report["checkpoint"]["attributes"]:
        for instrument, groups in report["control"]["attributes"]["uniform"][attribute].items():
            for term in ("mae", "spearman"):
                unit = f" [{ATTRIBUTES[attribute].unit}]" if term == "mae" and ATTRIBUTES[attribute].unit else ""
                cell = groups["all"].get(term, {})
                found[f"{attribute}, {instrument}: {term}{unit}"] = cell.get("value")
        gap = report["control"]["gaming"]["test"].get(attribute, {})
        found[f"{attribute}: gaming gap"] = gap.get("ratio")
    drawn = report["counts"]["test"] + report["counts"]["uniform"]
    found["generation [ms an image]"] = 1000 * report["seconds"]["generation"] / drawn
    for name in ("test", "real"):
        words = "generated" if name == "test" else "real"
        found[f"class accuracy, {words}"] = report["control"]["classes"][name].get("balanced", {}).get("value")
    for group, mean in report["realism"]["statistics"]["mean"].items():
        found[f"statistics, {group}: W1 / floor"] = mean.get("multiple")
        found[f"statistics, {group}: W1 of all images"] = mean.get("whole")
    for space, entry in report["realism"]["features"].items():
        for distance in ("frechet", "kid"):
            found[f"{space}: {distance} / floor"] = entry.get(distance, {}).get("multiple")
        for key in ("precision", "recall", "density", "coverage"):
            found[f"{space}: {key}"] = entry.get("neighbourhoods", {}).get(key, {}).get("value")
    found["real or fake: accuracy"] = report["realism"]["real_or_fake"].get("all", {}).get("accuracy")
    found["suspected copies"] = report["honesty"]["copies"].get("copies", {}).get("value")
    for group, entry in report["honesty"]["variety"].items():
        found[f"variety, {group}"] = entry.get("pixels")
    return found
