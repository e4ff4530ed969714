"""report.json: a report as plain values, written and read again, whatever format it was written in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from config_physics import ATTRIBUTES, BAND_NAMES, MORPHOLOGY_NAMES
from galaxies.common.errors import UserError
from galaxies.common.reading import MissingError, read_json
from galaxies.common.schema import brief
from galaxies.validation.report.contents import FORMAT_VERSION, Report

_REPORT = TypeAdapter(Report)
_CURE = "make it again with evaluate.py report"


def to_plain(report: Report) -> dict[str, Any]:
    """Return what report.json holds.

    Raises
    ------
    ValueError
        If a value is none that the report's types allow: what cannot be read again is not written.
    """
    plain = _REPORT.dump_python(report, by_alias=True)
    _REPORT.validate_python(plain)
    return plain


def from_plain(plain: dict[str, Any]) -> Report:
    """Return the report that plain values stand for, of this format or of an older one.

    Raises
    ------
    ValueError
        If they are no report.
    """
    try:
        while (version := plain["format_version"]) in _MIGRATIONS:
            plain = _MIGRATIONS[version](plain) | {"format_version": version + 1}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("this is no report") from error
    if version != FORMAT_VERSION:
        raise ValueError(f"the report has format {version}")
    return _REPORT.validate_python(plain)


def read_report(run: Path) -> Report:
    """Read the report in a folder, or in the JSON file that is named.

    Raises
    ------
    UserError
        If there is none, or the file is no report.
    """
    path = run if run.suffix == ".json" else run / "report.json"
    try:
        return from_plain(read_json(path, cure=_CURE))
    except MissingError:
        raise UserError(f"{run} holds no report.json: make one with evaluate.py report") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(brief(part).strip("'") for part in first["loc"])
        raise UserError(f"{path} is no report of this release: {_CURE} ({place}: {first['msg'].lower()})") from None
    except ValueError as error:
        raise UserError(f"{path} is no report of this release: {_CURE} ({error})") from None


def _from_1(plain: dict[str, Any]) -> dict[str, Any]:
    """Keep the groups apart from what stood beside them; commit e82a0c7 wrote the last reports of format 1."""

    def grouped(cell: dict[str, Any], *beside: str) -> dict[str, Any]:
        if "left_out" in cell:
            return cell
        groups = {name: value for name, value in cell.items() if name not in beside}
        return {name: cell[name] for name in beside} | {"groups": groups}

    control, realism = dict(plain["control"]), dict(plain["realism"])
    control["classes"] = {n: grouped(cell, "balanced", "confusion") for n, cell in control["classes"].items()}
    realism["power"] = grouped(realism["power"], "cycles")
    realism["real_or_fake"] = grouped(realism["real_or_fake"], "learned")
    return plain | {"control": control, "realism": realism}


def _from_2(plain: dict[str, Any]) -> dict[str, Any]:
    """Say of what kind the images were; reports of format 2 knew only display pictures and the table's ranges."""
    rows = [ATTRIBUTES[name] for name in plain["checkpoint"]["attributes"]]
    ranges = [[row.low, row.high] for row in rows]
    kind = {"kind": "display", "bands": list(BAND_NAMES), "classes": list(MORPHOLOGY_NAMES)}
    return plain | {
        "checkpoint": plain["checkpoint"] | {"attribute_ranges": ranges},
        "data": plain["data"] | kind,
    }


def _from_3(plain: dict[str, Any]) -> dict[str, Any]:
    """Say that nobody looked for arms and nuclei."""
    reason = "the report was made before arms and second nuclei were measured"
    return plain | {"realism": plain["realism"] | {"morphology": {"left_out": reason}}}


def _from_4(plain: dict[str, Any]) -> dict[str, Any]:
    """Say that nobody wrote down what the checkpoint was trained on."""
    return plain | {"checkpoint": plain["checkpoint"] | {"source": None}}


def _from_6(plain: dict[str, Any]) -> dict[str, Any]:
    """Say that nobody told what classes are called."""
    return plain | {"data": plain["data"] | {"class_labels": []}}


def _from_7(plain: dict[str, Any]) -> dict[str, Any]:
    """Say that whole classes were asked for."""
    return plain | {"control": plain["control"] | {"mixtures": None}}


# {format: what makes the next one out of it}; the table only ever grows, so that every report stays readable.
def _from_5(plain: dict[str, Any]) -> dict[str, Any]:
    """Say that there were no attributes but those of the program."""
    return plain | {"checkpoint": plain["checkpoint"] | {"attribute_definitions": []}}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    **{1: _from_1, 2: _from_2, 3: _from_3},
    **{4: _from_4, 5: _from_5, 6: _from_6},
    **{7: _from_7},
}
