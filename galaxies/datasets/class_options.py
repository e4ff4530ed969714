"""The option that says which classes a dataset gets, and what becomes of its answer."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from galaxies.common.errors import UserError
from galaxies.datasets.layout import SHARE
from galaxies.tables.class_rules import ClassRules, RuleColumns, Sorted, shipped_rules


def add_classes_option(parser: argparse.ArgumentParser, columns: str, default: str, more: str = "") -> None:
    """Add --classes to a source's parser.

    Parameters
    ----------
    parser : ArgumentParser
    columns : str
        What its rules may look at, in words.
    default : str
        Which classes there are without it, in words.
    more : str
        What else it takes, in words.
    """
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help=f"classes that rules make of {columns}: a TOML file, see docs/data.md, or one that comes with the program "
        f"({', '.join(shipped_rules())}){more} (default: {default})",
    )


def chosen_rule(options: argparse.Namespace) -> str:
    """Return the rule of a source that has --rule as well; see `read_class_rules`.

    Raises
    ------
    UserError
        If both options are given.
    """
    if options.classes is not None and options.rule is not None:
        raise UserError("--classes and --rule both say how galaxies get their classes: give one of them")
    return str(options.classes or options.rule or "gated")


def share_columns(rules: ClassRules) -> list[str]:
    """Return the columns of a catalogue that hold the shares of the classes; none where rules tell none."""
    return [SHARE + name for name in rules.names] if rules.tells_shares else []


def sorted_columns(rules: ClassRules, found: Sorted) -> pd.DataFrame:
    """Return what rules say of galaxies as columns: morphology, None of no class, and shares where they tell any."""
    names = np.array([*rules.names, None], dtype=object)
    columns = {"morphology": pd.Series(names[found.classes], dtype=object)}
    if found.shares is not None:
        columns |= {name: pd.Series(share) for name, share in zip(share_columns(rules), found.shares.T, strict=True)}
    return pd.DataFrame(columns)


def sort_rows(rules: ClassRules, columns: RuleColumns, allow_empty_class: bool) -> pd.DataFrame:
    """Return what rules say of a table's galaxies, see `sorted_columns`, and say in a line how many are of no class.

    Raises
    ------
    UserError
        As `ClassRules.sort`, and as `ClassRules.refuse_empty` unless that is allowed.
    """
    found = rules.sort(columns)
    if not allow_empty_class:
        rules.refuse_empty(found.classes, found.met, columns.where)
    if left_out := int((found.classes < 0).sum()):
        print(f"{left_out} of the {columns.num_rows} galaxies of {columns.where} are of no class of {rules.name}")
    return sorted_columns(rules, found)
