"""Everything known about the tables of Galaxy Zoo 2: their columns, the class rules, attributes and joins.

`gz2_hart16.csv` (Hart et al. 2016) holds the votes, `gz2_filename_mapping.csv` leads from an object to its
picture, and `gz2sample.csv` holds what the SDSS measured. Each may be packed, or a FITS table.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from config_physics import ATTRIBUTES, CATALOGUE_ATTRIBUTES, Morphology
from galaxies.common.attributes import Attribute, AttributeOption
from galaxies.common.errors import UserError
from galaxies.datasets.class_options import add_classes_option, chosen_rule, share_columns, sorted_columns
from galaxies.datasets.own_attributes import add_attribute_option, check_options, own_attribute, read_named
from galaxies.datasets.preparing import Pictures, Source
from galaxies.datasets.sources import vote_structure
from galaxies.tables.class_rules import RuleColumns, read_class_rules
from galaxies.tables.identifiers import read_ids
from galaxies.tables.numbers import NumberReader, Quantity
from galaxies.tables.opening import hold_the_same
from galaxies.tables.reading import Table, listed, read_table

FOLDER = "data/galaxy_zoo_2"  # where downloaded files go by default
VOTES_FILE = "gz2_hart16.csv"
MAPPING_FILE = "gz2_filename_mapping.csv"
SAMPLE_FILE = "gz2sample.csv"
RULES = ("gated", "paper")  # files of rules that come with the program
FRACTIONS = {"debiased": "_debiased", "weighted": "_weighted_fraction"}
_AS_GIVEN = FRACTIONS["weighted"]  # what people saw in the picture, and not what they would from nearby

SMOOTH = "t01_smooth_or_features_a01_smooth"
FEATURES = "t01_smooth_or_features_a02_features_or_disk"
EDGE_ON = "t02_edgeon_a04_yes"
ODD = "t06_odd_a14_yes"
ROUND = "t07_rounded_a16_completely_round"
IN_BETWEEN = "t07_rounded_a17_in_between"
CIGAR = "t07_rounded_a18_cigar_shaped"
MERGER = "t08_odd_feature_a24_merger"

# Attribute (and the Petrosian R90) to its column of gz2sample.csv; STELLAR_MASS is one that a user may add.
SAMPLE_COLUMNS = {
    "redshift": "redshift",
    "petro_r50_kpc": "petror50_r_kpc",
    "absolute_magnitude": "petromag_mr",
    "stellar_mass": "stellar_mass",
    "petro_r90_arcsec": "petror90_r",
}
_ANSWER = re.compile(r"t[0-9]{2}_\w+_a[0-9]{2}_\w+")
_ENDINGS = ("_count", "_weight", "_fraction", "_debiased", "_flag")  # of the kinds of numbers of an answer
_PACKINGS = ("", ".gz", ".bz2", ".xz", ".zst", ".zip")
_R90 = Quantity(plausible=(0.0, 1000.0), usual=(0.0, 60.0))  # arcseconds
_VOTES = Quantity(plausible=(-1.0, 100_000.0), usual=(0.0, 100_000.0))
_FRACTION = Quantity(plausible=(-1e-6, 1.0 + 1e-6), usual=(0.0, 1.0))
# GZ2 pictures were scaled to this many Petrosian R90 a pixel (Willett et al. 2013, section 2).
FRAME_SCALE_R90 = 0.02
FRAME_PX = 424  # pixels a side of a picture


class Catalogue(NamedTuple):
    """The galaxies of Galaxy Zoo 2 that have a class and a picture.

    Attributes
    ----------
    galaxies : DataFrame
        One row a galaxy in the order of the votes file: object_id, asset_id and image (text), morphology,
        the attributes of the catalogue, of the votes, of `structure_attributes` and of the user's own (float64, NaN
        where unknown), and frame_scale, the arcseconds of a pixel of the original picture.
    counts : dict of str to int
        Galaxies of each class.
    unused : int
        Galaxies that no condition of the class rule fits.
    unmapped : int
        Galaxies with a class and without a picture of their own in the mapping.
    classes : tuple of Morphology
        In the order of the rule's file.
    own : tuple of Attribute
        What the attributes of the user's own are.
    """

    galaxies: pd.DataFrame
    counts: dict[str, int]
    unused: int
    unmapped: int
    classes: tuple[Morphology, ...]
    own: tuple[Attribute, ...] = ()


def read_catalogue(
    path: Path | str,
    rule: str = "gated",
    fractions: str = "debiased",
    allow_empty_class: bool = False,
    attributes: Sequence[AttributeOption] = (),
) -> Catalogue:
    """Read and join the tables of Galaxy Zoo 2 and give every galaxy its class and attributes.

    Parameters
    ----------
    path : Path or str
        Folder with `gz2_hart16.csv`, `gz2_filename_mapping.csv` and, if there, `gz2sample.csv`, each plain or
        packed (.csv.gz, .bz2, .xz, .zst, .zip), or as .fits instead of .csv.
    rule : str
        "gated", "paper" or another file of classes, see `galaxies.tables.class_rules`. It may name the columns of the
        votes, fractions without the ending of their kind, and the attributes of `SAMPLE_COLUMNS`.
    fractions : {"debiased", "weighted"}
        Which vote fractions decide.
    allow_empty_class : bool
        Accept that a class has no galaxy.
    attributes : sequence of AttributeOption
        Attributes of the user's own: columns of `gz2_hart16.csv` or, if it has none of that name, of `gz2sample.csv`.

    Returns
    -------
    Catalogue

    Raises
    ------
    UserError
        If a file or column is missing or damaged, object ids are repeated or were rounded, the tables do not
        belong together, or a class is empty.
    """
    check_options(attributes)
    folder = Path(path)
    suffix = FRACTIONS[fractions]
    own_names = [option.column for option in attributes]
    rules = read_class_rules(rule)
    # Called without the ending of the kind of fraction, in which they are needed.
    answers = [name for name in rules.columns if _ANSWER.fullmatch(name) and not name.endswith(_ENDINGS)]
    of_attributes = [SMOOTH, ROUND, IN_BETWEEN, CIGAR]
    votes_file, mapping_file = _needed(folder, VOTES_FILE), _needed(folder, MAPPING_FILE)
    numbers = {"total_votes": _VOTES} | {answer + suffix: _FRACTION for answer in (*of_attributes, *answers)}
    seen = {answer: [answer + each for each in (_AS_GIVEN, suffix)] for answer in vote_structure.ANSWERS}
    optional = {column: _FRACTION for columns in seen.values() for column in columns if column not in numbers}
    table, votes = _read_table(votes_file, ["dr7objid"], numbers, optional, [*rules.columns, *own_names])
    repeated = votes["dr7objid"].duplicated()
    if repeated.any():
        raise UserError(
            f"column dr7objid of {votes_file} holds {repeated.sum()} repeated ids, such as "
            f"{votes['dr7objid'][repeated].iloc[0]}: download the file again, ids may have been rounded"
        )
    there = {answer: next((name for name in names if name in votes), None) for answer, names in seen.items()}
    structure = pd.DataFrame({answer: votes[name] for answer, name in there.items() if name is not None})
    votes = votes.rename(columns={"dr7objid": "object_id"} | {a + suffix: a for a in (*of_attributes, *answers)})
    sample_table, sample_ids, sample = _sample_attributes(folder, votes["object_id"], own_names)
    own = _own_values(attributes, folder, (table, votes["object_id"]), (sample_table, sample_ids))
    columns = columns_of_votes(table, votes.join(sample.drop(columns="petro_r90_arcsec")))
    found = rules.sort(columns)
    if not allow_empty_class:
        rules.refuse_empty(found.classes, found.met, columns.where)
    votes = votes.join(sorted_columns(rules, found))
    votes = votes.join(vote_structure.structure_attributes(structure, votes["morphology"]))
    used = votes[votes["morphology"].notna()]
    unused = len(votes) - len(used)

    _, mapping = _read_table(mapping_file, ["objid", "asset_id"], {})
    # One picture shows one galaxy: of repeated rows, on either side, the first counts.
    mapping = mapping.drop_duplicates("objid").rename(columns={"objid": "object_id"})
    if not votes["object_id"].isin(mapping["object_id"]).any():
        raise UserError(f"no dr7objid of {votes_file} is in column objid of {mapping_file}: one of them is damaged")
    galaxies = used.merge(mapping, on="object_id", how="inner").drop_duplicates("asset_id")
    galaxies = galaxies.reset_index(drop=True)
    counts = {name: int((galaxies["morphology"] == name).sum()) for name in rules.names}
    empty = [name for name, count in counts.items() if count == 0]
    if empty and not allow_empty_class:
        raise UserError(
            f"class {empty[0]} has no galaxy with a picture in {mapping_file}: add some, or go on with "
            "--allow-empty-class"
        )
    galaxies["image"] = galaxies["asset_id"] + ".jpg"
    kept = ["object_id", "asset_id", "image", "morphology", *share_columns(rules), *vote_structure.NAMES]
    result = pd.concat([galaxies[kept], vote_attributes(galaxies)], axis=1)
    result = result.join(sample.set_axis(votes["object_id"]).reindex(result["object_id"]).set_axis(result.index))
    result["frame_scale"] = FRAME_SCALE_R90 * result.pop("petro_r90_arcsec")
    result = result.join(own.reindex(result["object_id"]).set_axis(result.index))
    rows = tuple(own_attribute(option, result[option.name].to_numpy(np.float64)) for option in attributes)
    return Catalogue(result, counts, unused, len(used) - len(galaxies), rules.morphologies, rows)


def columns_of_votes(table: Table, known: pd.DataFrame) -> RuleColumns:
    """Return what rules can ask of a table of votes: what is known of its galaxies, and its other columns."""
    others = RuleColumns.of_table(table, NumberReader(table, published=True))

    def numbers(name: str) -> np.ndarray:
        return known[name].to_numpy(np.float64) if name in known else others.numbers(name)

    names = [*(str(name) for name in known if name != "object_id"), *others.names]
    return RuleColumns(str(table.file), len(known), names, numbers, others.texts)


def classify(votes: pd.DataFrame, rule: str = "gated") -> pd.Series:
    """Give each galaxy its class by a rule that comes with the program.

    Parameters
    ----------
    votes : DataFrame
        Fractions, in columns named after the answers without the suffix of the kind of fraction.
    rule : {"gated", "paper"}
        "paper" is the rule of the original recipe. "gated" also asks that the question was reached by enough voters.

    Returns
    -------
    Series of object
        Class names, None where no condition is met.
    """
    rules = read_class_rules(rule)
    names = [str(name) for name in votes]
    columns = RuleColumns(
        "the votes",
        len(votes),
        names,
        lambda name: votes[name].to_numpy(np.float64),
        lambda name: votes[name].to_numpy(object),
    )
    return sorted_columns(rules, rules.sort(columns))["morphology"].set_axis(votes.index)


def vote_attributes(galaxies: pd.DataFrame, votes_range: tuple[float, float] | None = None) -> pd.DataFrame:
    """Compute the four attributes of the original recipe: three from votes and a random number.

    Parameters
    ----------
    galaxies : DataFrame
        object_id, total_votes and vote fractions named as for `classify`, of all galaxies used: the votes are
        normalised over them.
    votes_range : tuple of float
        Fewest and most votes a galaxy, for the normalisation; by default those of `galaxies`.

    Returns
    -------
    DataFrame of float64
        vote_count in [0.3, 1], vote_smoothness in [0.2, 1], vote_elongation in [0, 0.9] and random_redshift
        in [0, 0.5); NaN where votes are missing.
    """
    total = galaxies["total_votes"]
    fewest, most = votes_range or (total.min(), total.max())
    spread = most - fewest
    roundness = galaxies[[ROUND, IN_BETWEEN, CIGAR]].to_numpy(dtype=np.float64)
    sums = roundness.sum(axis=1)  # NaN if any is missing
    elongation = np.full(len(galaxies), np.nan)
    np.divide(roundness @ [0.0, 0.45, 0.9], sums, out=elongation, where=sums > 0)
    return pd.DataFrame(
        {
            "vote_count": (total - fewest) / spread * 0.7 + 0.3 if spread > 0 else np.nan,
            "vote_smoothness": galaxies[SMOOTH] * 0.8 + 0.2,
            "vote_elongation": elongation,
            "random_redshift": [random_redshift(i) for i in galaxies["object_id"]],
        },
        index=galaxies.index,
        dtype=np.float64,
    )


def random_redshift(object_id: str) -> float:
    """Draw the original recipe's placeholder from U(0, 0.5), the same for an object in any run and order."""
    digest = hashlib.sha256(f"random_redshift {object_id}".encode()).digest()
    return 0.5 * (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _sample_attributes(
    folder: Path, object_ids: pd.Series, others: Sequence[str]
) -> tuple[Table | None, pd.Series, pd.DataFrame]:
    """Look up the attributes of `SAMPLE_COLUMNS` for each object; NaN without file, column, row or value.

    Before them are the table, None where there is none, which also has the `others` that are there, and its ids.
    """
    unknown = pd.DataFrame(np.nan, index=object_ids.index, columns=list(SAMPLE_COLUMNS))
    if (file := _find(folder, SAMPLE_FILE)) is None:
        return None, pd.Series(dtype=object), unknown
    quantities = {column: Quantity.of(name) if name in ATTRIBUTES else _R90 for name, column in SAMPLE_COLUMNS.items()}
    table, sample = _read_table(file, ["objid"], {}, quantities, others)
    ids = sample["objid"]
    sample = sample.drop_duplicates("objid").set_index("objid").reindex(object_ids)
    for name, column in SAMPLE_COLUMNS.items():
        if column in sample:
            unknown[name] = sample[column].to_numpy()
    return table, ids, unknown


def _own_values(
    options: Sequence[AttributeOption],
    folder: Path,
    votes: tuple[Table, pd.Series],
    sample: tuple[Table | None, pd.Series],
) -> pd.DataFrame:
    """Return attributes of the user's own by object id, of the votes or else of what the SDSS measured.

    `votes` and `sample` are each a table and the ids of its rows.
    """
    found = pd.DataFrame(index=pd.Index(votes[1]))
    of_votes = [option for option in options if option.column in votes[0].cells]
    of_sample = [option for option in options if option not in of_votes]
    known = votes[0].cells if sample[0] is None else sample[0].cells
    if lost := next((option for option in of_sample if option.column not in known), None):
        last = sample[0] or votes[0]
        other = f"and {folder / SAMPLE_FILE} is missing" if sample[0] is None else f"or in {last.file}"
        raise UserError(
            f"there is no column {lost.column} in {votes[0].file}, which --attribute {lost.name} names, {other}: the "
            f"last has {listed([*last.cells, *last.others])}"
        )
    for (table, ids), wanted in ((votes, of_votes), (sample, of_sample)):
        if table is None or not wanted:
            continue
        numbers = NumberReader(table, published=True)
        first = ~ids.duplicated().to_numpy()
        for option in wanted:
            found[option.name] = pd.Series(read_named(table, option, numbers)[first], ids[first])
        numbers.say()
    return found[[option.name for option in options]]


def _find(folder: Path, name: str) -> Path | None:
    """Return the file of a table as CSV or FITS, plain or packed; of several that hold the same, the first."""
    names = [ending + packing for packing in _PACKINGS for ending in (name, f"{Path(name).stem}.fits")]
    there = [folder / name for name in names if (folder / name).is_file()]
    if len(there) > 1 and not hold_the_same(*there):
        others = ", ".join(file.name for file in there[1:])
        raise UserError(f"{there[0]} and {others} are both there and differ: remove what is not meant")
    return there[0] if there else None


def _needed(folder: Path, name: str) -> Path:
    file = _find(folder, name)
    if file is None:
        raise UserError(f"{folder / name} (or {name}.gz) is missing: --download fetches it")
    return file


def _read_table(
    file: Path,
    id_columns: list[str],
    columns: dict[str, Quantity],
    optional: dict[str, Quantity] | None = None,
    others: Sequence[str] = (),
) -> tuple[Table, pd.DataFrame]:
    """Read columns by name: ids as checked text, the others as float64, NaN where unknown or impossible.

    The table also has the `others` that are there, as they stand in the file.
    """
    quantities = columns | (optional or {})
    wanted = [*id_columns, *quantities, *(name for name in others if name not in quantities)]
    table = read_table(file, wanted, [*id_columns, *columns], cure="download it again", even=True)
    numbers = NumberReader(table, published=True)
    found = {
        column: read_ids(table, column, whole=True, cure="download it again, since a spreadsheet damages ids")
        for column in id_columns
    }
    for column, quantity in quantities.items():
        if column in table.cells:
            found[column] = pd.Series(numbers.read(column, quantity))
    numbers.say()
    return table, pd.DataFrame(found)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", type=Path, metavar="DIR", help=f"folder of the files (--download: {FOLDER})")
    parser.add_argument("--download", action="store_true", help="fetch what is missing of the files first")
    parser.add_argument("--only-catalogue", action="store_true", help="download the tables alone and write no dataset")
    parser.add_argument(
        "--rule",
        choices=RULES,
        help="class rule; 'paper' is the original recipe's, where one vote can decide (default: gated)",
    )
    add_classes_option(parser, "the columns of the votes", "those of --rule")
    add_attribute_option(
        parser, f"It is looked for in {VOTES_FILE}, then in {SAMPLE_FILE}; columns that no option names are left out."
    )
    parser.add_argument(
        "--fractions",
        choices=tuple(FRACTIONS),
        default="debiased",
        help="vote fractions that decide (default: debiased)",
    )


def _read(options: argparse.Namespace) -> Pictures | None:
    """Read the tables, after fetching what is missing if that is asked for, and say what they hold."""
    if options.out is None and not options.only_catalogue:
        raise UserError("gz2 needs --out, the folder to make")
    if options.download:
        from galaxies.datasets.sources.galaxy_zoo_files import fetch_release  # here: it imports pooch and requests

        options.path = options.path or Path(FOLDER)
        fetch_release(options.path, options.only_catalogue)
    elif options.path is None or options.only_catalogue:
        raise UserError("gz2 needs --path, the folder of the files, or --download with or without --only-catalogue")
    rule = chosen_rule(options)
    own = options.attribute or ()
    catalogue = read_catalogue(options.path, rule, options.fractions, options.allow_empty_class, own)
    galaxies = catalogue.galaxies
    print(
        f"{len(galaxies)} galaxies have a class and a picture's name; {catalogue.unused} fit no class; "
        f"{catalogue.unmapped} have a class and no picture of their own in {MAPPING_FILE}"
    )
    if told := vote_structure.told(galaxies):
        print(told)
    absent = [name for name in CATALOGUE_ATTRIBUTES if galaxies[name].isna().all()]
    if absent:
        print(f"no value of {', '.join(absent)}: {SAMPLE_FILE} or its column is missing or empty")
    if options.only_catalogue:
        print("no dataset is written; classes: " + ", ".join(f"{n} {name}" for name, n in catalogue.counts.items()))
        return None
    provenance = {
        "source": f"Galaxy Zoo 2 in {options.path}",
        "rule": rule,
        "fractions": options.fractions,
        "unmapped": catalogue.unmapped,
    }
    return Pictures(options.path, galaxies, provenance, catalogue.unused, own=catalogue.own, classes=catalogue.classes)


SOURCE = Source("prepare the files of Galaxy Zoo 2", _add_options, _read, needs_out=False)
