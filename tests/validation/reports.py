"""Reports for tests: one that commit e82a0c7 wrote (format 1, numbers rounded), and variations of it."""

from __future__ import annotations

import copy
import json

from galaxies.validation.report.contents import Report
from galaxies.validation.report.report_file import from_plain
from tests.conftest import ROOT

OLD_REPORT = ROOT / "tests/validation/report_of_format_1.json"


def old_plain() -> dict:
    """The report of the old commit, as it stands in its file."""
    return json.loads(OLD_REPORT.read_text(encoding="utf-8"))


def whole(partial: dict) -> dict:
    """Fill a part of a report of format 1 up to a whole one; attributes and spaces are those of the part alone."""
    base = old_plain()
    cell = base["control"]["attributes"]["test"]["size"]["photometry"]["all"]
    gap = base["control"]["gaming"]["test"]["size"]
    distance = {k: v for k, v in base["realism"]["statistics"]["table"]["size"]["all"]["w1"].items() if k != "whole"}
    space = base["realism"]["features"]["random"] | {"frechet": distance}
    space["neighbourhoods"] = base["realism"]["features"]["statistics"]["neighbourhoods"]
    filled = _fill(base, partial)
    control, wanted = filled["control"], partial.get("control", {})
    for name, attributes in wanted.get("attributes", {}).items():
        control["attributes"][name] = {a: _readings(readings, cell) for a, readings in attributes.items()}
    if "instruments" in wanted:
        control["instruments"] = {a: _readings(readings, cell) for a, readings in wanted["instruments"].items()}
    for name, gaps in wanted.get("gaming", {}).items():
        control["gaming"][name] = {a: _fill(copy.deepcopy(gap), g) for a, g in gaps.items()}
    if "features" in partial.get("realism", {}):
        spaces = partial["realism"]["features"]
        filled["realism"]["features"] = {name: _fill(copy.deepcopy(space), part) for name, part in spaces.items()}
    return filled


def report_of(partial: dict) -> Report:
    """Return the typed report of `whole`."""
    return from_plain(whole(partial))


def _readings(readings: dict, cell: dict) -> dict:
    return {i: {g: _fill(copy.deepcopy(cell), c) for g, c in groups.items()} for i, groups in readings.items()}


def _fill(base: dict, part: dict) -> dict:
    if "left_out" in part or "left_out" in base:
        return part
    for name, value in part.items():
        inner = isinstance(value, dict) and isinstance(base.get(name), dict)
        base[name] = _fill(base[name], value) if inner else value
    return base
