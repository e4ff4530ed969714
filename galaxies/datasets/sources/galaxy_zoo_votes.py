"""Read the tables of Galaxy Zoo's campaigns after Galaxy Zoo 2: DECaLS, DESI, and Evo, which joins several.

Their columns are `{question}_{answer}_fraction` (Walmsley et al. 2022, MNRAS 509, 3966, for DECaLS), or
`{question}-{campaign}_{answer}_fraction` where a table may hold several campaigns (Evo: Walmsley et al. 2024,
arXiv:2404.02973); with `_debiased` the fractions are corrected for redshift, and without either they are counts of
votes. The pictures are named (`png_loc`), or lie in the table itself as bytes.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from galaxies.common.attributes import AttributeOption
from galaxies.common.errors import UserError
from galaxies.datasets.class_options import add_classes_option, chosen_rule, sorted_columns
from galaxies.datasets.own_attributes import add_attribute_option, check_options, own_attribute, read_named
from galaxies.datasets.preparing import Pictures, Source
from galaxies.datasets.sources import vote_structure
from galaxies.datasets.sources.galaxy_zoo import (
    CIGAR,
    EDGE_ON,
    FEATURES,
    IN_BETWEEN,
    MERGER,
    ODD,
    ROUND,
    RULES,
    SMOOTH,
    columns_of_votes,
    vote_attributes,
)
from galaxies.datasets.sources.parquet_pictures import ParquetPictures, picture_column
from galaxies.tables.class_rules import ClassRules, read_class_rules
from galaxies.tables.identifiers import read_ids, refuse_repeated
from galaxies.tables.numbers import NumberReader, Quantity
from galaxies.tables.reading import listed, read_table

# Each answer of Galaxy Zoo 2: question and answers of the other campaigns, by all their names; what is there is added
# up. In the first two of DECaLS "both" is a merger with tidal debris.
ANSWERS: dict[str, tuple[str, tuple[str, ...]]] = {
    SMOOTH: ("smooth-or-featured", ("smooth",)),
    FEATURES: ("smooth-or-featured", ("featured-or-disk", "features")),
    EDGE_ON: ("disk-edge-on", ("yes",)),
    MERGER: ("merging", ("merger", "both")),
    ODD: ("something-odd", ("yes",)),
    ROUND: ("how-rounded", ("round", "completely")),
    IN_BETWEEN: ("how-rounded", ("in-between",)),
    CIGAR: ("how-rounded", ("cigar-shaped", "cigar")),
}
# The same for what `structure_attributes` takes. A weak bar is a bar; small and large bulges are just noticeable and
# obvious ones.
_STRUCTURE: dict[str, tuple[str, tuple[str, ...]]] = {
    FEATURES: ANSWERS[FEATURES],
    vote_structure.FACE_ON: ("disk-edge-on", ("no",)),
    vote_structure.BAR: ("bar", ("yes", "strong", "weak")),
    vote_structure.SPIRAL: ("has-spiral-arms", ("yes",)),
    vote_structure.NO_BULGE: ("bulge-size", ("none", "no")),
    vote_structure.JUST_NOTICEABLE: ("bulge-size", ("just-noticeable", "small")),
    vote_structure.MODERATE: ("bulge-size", ("moderate",)),
    vote_structure.OBVIOUS: ("bulge-size", ("obvious", "large")),
    vote_structure.DOMINANT: ("bulge-size", ("dominant",)),
    ODD: ANSWERS[ODD],
    **{
        answer: ("spiral-arm-count", (f"{number}" if number < 5 else "more-than-4",))
        for number, answer in vote_structure.ARMS.items()
    },
    vote_structure.UNTOLD: ("spiral-arm-count", ("cant-tell",)),
}
_QUESTION, _FIRST = "smooth-or-featured", re.compile(r"smooth-or-featured(-[a-z0-9]+)?_smooth(?:_fraction|_debiased)?")
_IDS = ("iauname", "id_str", "dr8_id", "dr7objid", "objid")
_NAMES = ("png_loc", "file_loc", "filename")
_SUFFIXES = {"debiased": "_debiased", "fraction": "_fraction"}
_NO_ANSWERS = ("total", "total-votes")  # `{question}_total` of the voters
_FRACTION = Quantity(plausible=(-1e-6, 1.0 + 1e-6), usual=(0.0, 1.0))
_VOTES = Quantity(plausible=(-1.0, 1e6), usual=(0.0, 1e6))


class VoteTable(NamedTuple):
    """What a table of votes says.

    Attributes
    ----------
    galaxies : DataFrame
        object_id, image, morphology (None for none), redshift where the table has it, and the attributes of the votes,
        of `structure_attributes` and of the user's own.
    campaigns : dict of str to int
        Galaxies whose votes are of each campaign; "" where the table does not name it.
    rules : ClassRules
        That gave the classes.
    """

    galaxies: pd.DataFrame
    campaigns: dict[str, int]
    rules: ClassRules


def read_votes(
    file: Path, rule: str = "gated", fractions: str = "debiased", own: Sequence[AttributeOption] = ()
) -> VoteTable:
    """Read the classes of galaxies from a table of votes.

    Parameters
    ----------
    file : Path
        Parquet, FITS or text; see `read_table`.
    rule : str
        "gated", "paper" or another file of classes, which may name the table's columns and the answers by their names
        in Galaxy Zoo 2, without the ending of the kind of fraction. Here everyone is asked whether a galaxy is merging,
        so that no gate stands before that answer; the gate before edge-on is the same.
    fractions : {"debiased", "fraction"}
        Which fractions decide, where the table has both; a table of counts gives its own fractions.
    own : sequence of AttributeOption
        Columns that are attributes of the user's own.

    Raises
    ------
    UserError
        If it is no such table, or an id or number is wrong; it names file, column and row.
    """
    rules = read_class_rules(rule)
    names = read_table(file, ()).others
    campaigns = list(dict.fromkeys(found[1] or "" for name in names if (found := _FIRST.fullmatch(name))))
    if not campaigns:
        raise UserError(
            f"{file} has no column {_QUESTION}_smooth or the like, as tables of Galaxy Zoo have: it has {listed(names)}"
        )
    id_column = next((name for name in _IDS if name in names), None)
    if id_column is None:
        raise UserError(f"{file} has none of the columns {', '.join(_IDS)}, which name the galaxies: add one")
    asked = {question for question, _ in (*ANSWERS.values(), *_STRUCTURE.values())}
    questions = {question + campaign for question in asked for campaign in campaigns}
    votes = [name for name in names if name.partition("_")[0] in questions]
    picture_names = [name for name in _NAMES if name in names][:1]
    wanted = [id_column, *picture_names, *votes, *({"redshift"} & set(names)), *rules.columns]
    wanted += [option.column for option in own]
    table = read_table(file, list(dict.fromkeys(wanted)), [id_column])
    numbers = NumberReader(table, published=True)
    ids = read_ids(table, id_column)
    refuse_repeated(table, ids, "give every galaxy one row")

    @cache
    def read(name: str) -> np.ndarray:
        """Read a column once: what is unknown in it is counted."""
        return numbers.read(name, _FRACTION if name.endswith(tuple(_SUFFIXES.values())) else _VOTES)

    of_campaign = [_votes_of(read, len(table), votes, campaign, fractions) for campaign in campaigns]
    seen = [
        pd.DataFrame(_fractions_of(read, len(table), votes, campaign, "fraction", _STRUCTURE)) for campaign in campaigns
    ]
    chosen = np.full(len(table), -1)
    for place, each in enumerate(of_campaign):
        voted = (each[SMOOTH] + each[FEATURES] > 0).to_numpy()
        chosen = np.where((chosen < 0) & voted, place, chosen)
    merged, structure = of_campaign[0].copy(), seen[0].copy()
    for place, each in enumerate(of_campaign):
        merged[chosen == place] = each[chosen == place]
        structure[chosen == place] = seen[place][chosen == place]
    galaxies = pd.DataFrame({"object_id": ids})
    # Folders of files named after their galaxies, where no column says otherwise.
    galaxies["image"] = table.cells[picture_names[0]] if picture_names else ids + ".png"
    columns = columns_of_votes(table, merged.join(structure[[name for name in structure if name not in merged]]))
    galaxies = galaxies.join(sorted_columns(rules, rules.sort(columns)))
    used = galaxies["morphology"].notna()
    attributes = vote_attributes(merged.assign(object_id=ids)[used])
    told = vote_structure.structure_attributes(structure[used], galaxies["morphology"][used])
    galaxies = galaxies.join(attributes).join(told)
    if "redshift" in names:
        galaxies["redshift"] = numbers.read("redshift", Quantity.of("redshift"))
    for option in own:
        galaxies[option.name] = read_named(table, option, numbers)
    numbers.say()
    counts = Counter(campaigns[place].lstrip("-") for place in chosen[chosen >= 0].tolist())
    return VoteTable(galaxies, dict(counts), rules)


def _votes_of(
    read: Callable[[str], np.ndarray], count: int, votes: Collection[str], campaign: str, fractions: str
) -> pd.DataFrame:
    """Return the fractions of a campaign under the names of Galaxy Zoo 2, NaN where unknown, and total_votes."""
    found = _fractions_of(read, count, votes, campaign, fractions, ANSWERS)
    if f"merging{campaign}" in {name.partition("_")[0] for name in votes}:
        found[ODD] = np.ones(count)
    start = _QUESTION + campaign
    totals = [f"{start}_{name}" for name in _NO_ANSWERS if f"{start}_{name}" in votes]
    given = [read(name) for name in totals or [f"{start}_{name}" for name in _counted(votes, start)]]
    return pd.DataFrame(found | {"total_votes": _sum(given, count)})


def _fractions_of(
    read: Callable[[str], np.ndarray],
    count: int,
    votes: Collection[str],
    campaign: str,
    fractions: str,
    answers: Mapping[str, tuple[str, tuple[str, ...]]],
) -> dict[str, np.ndarray]:
    """Return the fractions (`count`,) of answers of a campaign by our names of them, NaN where unknown."""
    found = {}
    for answer, (question, theirs) in answers.items():
        start = question + campaign
        suffix = next(
            (
                each
                for each in (_SUFFIXES[fractions], *_SUFFIXES.values())
                if any(f"{start}_{name}{each}" in votes for name in theirs)
            ),
            None,
        )
        if suffix is not None:
            parts = [f"{start}_{name}{suffix}" for name in theirs if f"{start}_{name}{suffix}" in votes]
            found[answer] = _sum([read(part) for part in parts], count)
        else:
            counts = {name: read(f"{start}_{name}") for name in _counted(votes, start)}
            ours = _sum([counts[name] for name in theirs if name in counts], count)
            total = _sum(list(counts.values()), count)
            found[answer] = np.divide(ours, total, out=np.full(count, np.nan), where=total > 0)
    return found


def _counted(votes: Collection[str], start: str) -> list[str]:
    """Return the answers to a question whose votes are counted."""
    answers = [name.removeprefix(f"{start}_") for name in votes if name.startswith(f"{start}_")]
    ends = (*_SUFFIXES.values(), *_NO_ANSWERS)
    return [answer for answer in answers if not answer.endswith(ends)]


def _sum(parts: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Add up what is known of parts (`count`,); NaN where nothing is."""
    if not parts:
        return np.full(count, np.nan)
    stack = np.stack(parts)
    return np.where(np.isnan(stack).all(0), np.nan, np.nansum(stack, 0))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="tables of votes, such as gz_decals_volunteers_5.parquet or all parts of a set (Parquet needs pyarrow)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder or zip file of the pictures; not needed where they lie in the tables",
    )
    parser.add_argument("--rule", choices=RULES, help="class rule, as for gz2 (default: gated)")
    add_classes_option(parser, "the tables' columns and the answers as Galaxy Zoo 2 calls them", "those of --rule")
    add_attribute_option(parser, "Columns that no option names are left out.")
    parser.add_argument(
        "--fractions",
        choices=tuple(_SUFFIXES),
        default="debiased",
        help="fractions that decide where a table has both (default: debiased)",
    )


def _read(options: argparse.Namespace) -> Pictures:
    """Read all tables as one, and say what they hold."""
    parts, campaigns = [], Counter[str]()
    columns = [picture_column(file) for file in options.table] if options.images is None else [None]
    if options.images is None and None in columns:
        where = options.table[columns.index(None)]
        raise UserError(f"{where} holds no pictures: name their folder or zip file with --images")
    rule = chosen_rule(options)
    attributes = options.attribute or ()
    check_options(attributes)
    for place, file in enumerate(options.table):
        votes = read_votes(file, rule, options.fractions, attributes)
        campaigns.update(votes.campaigns)
        if options.images is None:
            rows = range(len(votes.galaxies))
            votes.galaxies["image"] = [ParquetPictures.name(place, row) for row in rows]
        parts.append(votes.galaxies)
    galaxies = pd.concat(parts, ignore_index=True)
    repeated = galaxies["object_id"].duplicated()
    if repeated.any():
        raise UserError(f"{galaxies['object_id'][repeated].iloc[0]} is in several of the tables: name each table once")
    used = galaxies["morphology"].notna()
    counts = {name: int((galaxies["morphology"] == name).sum()) for name in votes.rules.names}
    unvoted = len(galaxies) - campaigns.total()
    said = ", ".join(f"{count} of {name or 'the one campaign'}" for name, count in campaigns.items())
    print(f"votes for {campaigns.total()} galaxies ({said or 'none'}), none for {unvoted}")
    print(", ".join(f"{count} {name}" for name, count in counts.items()) + f"; {int((~used).sum())} fit no class")
    if told := vote_structure.told(galaxies):
        print(told)
    if not used.any():
        raise UserError(f"no galaxy of {listed([str(file) for file in options.table])} fits a class: use other tables")
    provenance = {
        "source": f"Galaxy Zoo in {', '.join(map(str, options.table))}",
        "rule": rule,
        "fractions": options.fractions,
    }
    chosen = galaxies[used].reset_index(drop=True)
    own = tuple(own_attribute(option, chosen[option.name].to_numpy(np.float64)) for option in attributes)
    where = ParquetPictures(options.table) if options.images is None else options.images
    return Pictures(where, chosen, provenance, int((~used).sum()), own=own, classes=votes.rules.morphologies)


SOURCE = Source("prepare tables of Galaxy Zoo DECaLS, DESI or Evo with their pictures", _add_options, _read)
