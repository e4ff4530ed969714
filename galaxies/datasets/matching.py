"""Match the rows of a table with the pictures that are there, and say where that did not go smoothly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from galaxies.common.errors import UserError, shown
from galaxies.datasets.cutouts import CutoutSource, LeftOut, Rejection

_SAID = 3  # examples in a sentence


class MatchedRows(NamedTuple):
    """Which rows have a picture.

    Attributes
    ----------
    rows : list of int
        Those to be read, in their order.
    names : list of str
        By what `CutoutSource.find` finds the picture of each of them.
    left_out : dict of int to LeftOut
        The other rows.
    remarks : list of str
        Sentences about names that were found with a doubt, or not at all.
    """

    rows: list[int]
    names: list[str]
    left_out: dict[int, LeftOut]
    remarks: list[str]


def match_rows(source: CutoutSource, asked: Sequence[str]) -> MatchedRows:
    """Find the picture of each row by the name that it gives; a picture belongs to one row.

    Where several rows name one, the first keeps it, and one that has the same folders comes before one that has not.

    Raises
    ------
    UserError
        If no row finds a picture.
    """
    found = [source.look_up(name) for name in asked]
    owners: dict[object, int] = {}
    for row, each in enumerate(found):
        if len(each.places) == 1:
            key = source.same_as(each.places[0])
            if key not in owners or (found[owners[key]].elsewhere and not each.elsewhere):
                owners[key] = row
    names: dict[int, str] = {}
    left_out: dict[int, LeftOut] = {}
    for row, (name, each) in enumerate(zip(asked, found, strict=True)):
        if len(each.places) == 1:
            owner = owners[source.same_as(each.places[0])]
            if owner == row:
                names[row] = source.path_of(each.places[0])
            elif each.elsewhere and not found[owner].elsewhere:
                left_out[row] = LeftOut(Rejection.MISSING, f"its file name is that of {shown(asked[owner])}")
            else:
                left_out[row] = LeftOut(Rejection.REPEATED, f"that of {shown(asked[owner])}")
        elif isinstance(content := source.find(name), LeftOut):
            left_out[row] = content
        else:
            names[row] = name  # of another kind by its ending: its bytes decide
    elsewhere = {row: source.path_of(found[row].places[0]) for row in names if found[row].elsewhere}
    of_reason = {reason: [row for row, out in left_out.items() if out.reason is reason] for reason in Rejection}

    def nearest(row: int) -> str:
        near = "" if left_out[row].detail else source.nearest(asked[row])
        return f"(the nearest name is {shown(near)})" if near else left_out[row].detail

    remarks = [
        *source.unlisted[:_SAID],
        _sentence(
            asked,
            list(elsewhere),
            "name other folders than those in which their pictures lie",
            lambda row: f"is taken to be {shown(elsewhere[row])}",
        ),
        _sentence(asked, of_reason[Rejection.MISSING], f"find no picture in {source.path}", nearest),
        _sentence(
            asked,
            of_reason[Rejection.AMBIGUOUS],
            "fit several pictures, so that the folder has to be written too",
            lambda row: f"may be {left_out[row].detail}",
        ),
        _sentence(
            asked,
            of_reason[Rejection.REPEATED],
            "name the picture of another row and are left out",
            lambda row: f"is {left_out[row].detail}",
        ),
    ]
    remarks = [remark for remark in remarks if remark]
    if not names:
        raise UserError(f"no row has a picture: {'; '.join(remarks)}")
    rows = sorted(names)
    return MatchedRows(rows, [names[row] for row in rows], left_out, remarks)


def _sentence(asked: Sequence[str], rows: Sequence[int], what: str, more: Callable[[int], str]) -> str:
    """Return a sentence on some rows, with the first of them as examples; empty if there are none."""
    if not rows:
        return ""
    examples = ", ".join(f"{shown(asked[row])} {more(row)}".rstrip() for row in rows[:_SAID])
    return f"{len(rows)} of {len(asked)} rows {what}: {examples}{', …' if len(rows) > _SAID else ''}"
