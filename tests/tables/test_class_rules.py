"""Files of classes: what they hold, whom each class takes, and one sentence with the place for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from config_physics import MORPHOLOGY_NAMES, Morphology
from galaxies.common.errors import UserError
from galaxies.tables.class_rules import RuleColumns, read_class_rules, shipped_rules
from galaxies.tables.numbers import NumberReader
from galaxies.tables.reading import read_table

FILE = """# my classes
[[class]]
name = "ringed spiral"
label = "Ringed"
description = "with a ring"
where = "features > 0.5 and ring > 0.3"
priority = 2

[[class]]
name = "S0"
where = '''
kind == "S0"
or features > 0.5'''

[[ class ]]
name = "E"
where = "features <= 0.5"
"""
TABLE = "features,Ring,kind\n0.9,0.9,Sa\n0.8,0.1,Sa\n0.1,,S0\n0.2,,E\n,,x\n0.6,nan,\n"


def rules_of(tmp_path: Path, text: str = FILE):
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    return read_class_rules(str(tmp_path / "c.toml"))


def columns_of(tmp_path: Path, text: str = TABLE, rules=None) -> RuleColumns:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    table = read_table(tmp_path / "t.csv", ("features", "ring", "kind") if rules is None else rules.columns)
    return RuleColumns.of_table(table, NumberReader(table))


def refused(tmp_path: Path, text: str, table: str = TABLE) -> str:
    with pytest.raises(UserError) as caught:
        rules_of(tmp_path, text).sort(columns_of(tmp_path, table))
    sentence = str(caught.value).replace(f"{tmp_path}/", "").replace(f"{tmp_path}\\", "")
    assert sentence.isprintable()
    return sentence


def test_a_file_of_classes(tmp_path):
    rules = rules_of(tmp_path)
    assert rules.morphologies == (
        Morphology("ringed spiral", "Ringed", "with a ring"),
        Morphology("S0", "", ""),
        Morphology("E", "", ""),
    )
    assert rules.columns == ("features", "ring", "kind") and not rules.tells_shares
    found = rules.sort(columns_of(tmp_path))
    # The first by its priority; the third by its order, though E holds too; the fifth is of no class.
    assert found.classes.tolist() == [0, 1, 1, 2, -1, 1]
    assert found.shares is None and found.met.tolist() == [1, 4, 2]


def test_priority_decides_before_order(tmp_path):
    text = '[[class]]\nname = "{}"\nwhere = "features > {}"\npriority = {}\n'
    for priorities, expected in (((0, 0), [0, 0]), ((0, 1), [0, 1]), ((-1, 0), [0, 1]), ((1, 0), [0, 0])):
        both = text.format("a", 0.1, priorities[0]) + text.format("b", 0.85, priorities[1])
        found = rules_of(tmp_path, both).sort(columns_of(tmp_path, "features,ring,kind\n0.8,,\n0.9,,\n"))
        assert found.classes.tolist() == expected, priorities


def test_shares_are_products_divided_by_their_sum(tmp_path):
    text = (
        '[[class]]\nname = "a"\nshare = ["features", "Ring"]\n[[class]]\nname = "b"\nshare = "other"\n'
        '[[class]]\nname = "c"\nwhere = "other > 0.9"\nshare = "third"\n'
    )
    table = "features,ring,other,third\n0.8,0.5,0.4,0\n0.5,0.5,0.5,0.25\n0.5,,0.95,0.2\nnan,,,\n0,0,0,0\n0.1,1,-.5,.3\n"
    rules = rules_of(tmp_path, text)
    assert rules.tells_shares
    found = rules.sort(columns_of(tmp_path, table, rules))
    expected = [
        [0.5, 0.5, 0],
        [0.25, 0.5, 0.25],
        [0, 0.95 / 1.15, 0.2 / 1.15],  # an unknown share is nothing where others are known
        [np.nan] * 3,
        [np.nan] * 3,
        [0.25, 0, 0.75],
    ]
    np.testing.assert_allclose(found.shares, expected, atol=1e-12)
    # Without a condition the largest share decides; c takes only what meets its own, even of a larger share.
    assert found.classes.tolist() == [0, 1, 1, -1, -1, -1]


def test_the_files_of_the_program_can_be_read():
    assert {"gated", "paper", "mock-nine"} <= set(shipped_rules())
    for name in shipped_rules():
        rules = read_class_rules(name)
        assert rules.name == name and 1 < len(rules.names) <= 64
    for name in ("gated", "paper"):
        assert read_class_rules(name).names == MORPHOLOGY_NAMES
    assert len(read_class_rules("mock-nine").names) == 9


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("ring > 0.3", "rnig > 0.3", "c.toml, line 6, column 29: there is no column 'rnig' in t.csv; near it are ring"),
        (
            'kind == "S0"',
            'qqq == "S0"',
            "c.toml, line 12, column 1: there is no column 'qqq' in t.csv; it has ",
        ),
        (
            "or features > 0.5",
            "or or",
            "c.toml, line 13, column 4: the condition of class S0 is none, since exp",
        ),
        (
            "ring > 0.3",
            "ring = 0.3",
            "c.toml, line 6, column 34: the condition of class ringed spiral is none, sin",
        ),
        (
            'name = "E"',
            'name = "S0"',
            "c.toml, line 16, column 8: a second rule for class 'S0', whose first is in line 10, column 8",
        ),
        ('name = "E"', "name = 3", "c.toml, line 16, column 8: name is 3: it takes a text"),
        ('name = "E"', 'name = "a;b"', "c.toml, line 16, column 8: 'a;b' is no name of a class"),
        ('name = "E"', "", "c.toml, line 15, column 1: the class has no name"),
        ('where = "features <= 0.5"', "", "c.toml, line 15, column 1: class E has no where"),
        ('where = "features <= 0.5"', "where = true", "c.toml, line 17, column 9: where is True: it takes a text"),
        ("priority = 2", "priority = 1.5", "c.toml, line 7, column 12: priority is 1.5: it takes a whole number"),
        ("priority = 2", "priorty = 2", "c.toml, line 7, column 11: a class has no entry 'priorty'; is it priority?"),
        ("priority = 2", "share = 3", "c.toml, line 7, column 9: share is 3: it takes a column, or a list of up to 8"),
        ("priority = 2", 'share = "ring"', "c.toml, line 9, column 1: class S0 has no share, and others have one"),
        (
            'label = "Ringed"',
            'label = "a\\nb"',
            "c.toml, line 4, column 9: label is 'a\\nb': it takes a line of up to 100",
        ),
        ('label = "Ringed"', "label = Ringed", "c.toml is no TOML file: Invalid value (at line 4, column 9)"),
        ("# my classes", "title = 1", "c.toml has an entry 'title': it holds tables [[class]] alone"),
        (
            "features <= 0.5",
            "kind > 0.5",
            "c.toml, line 17, column 10: column 'kind' is taken as numbers here a",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, old, new, sentence):
    assert old in FILE
    assert refused(tmp_path, FILE.replace(old, new)).startswith(sentence)


def test_text_in_a_column_of_numbers(tmp_path):
    sentence = refused(tmp_path, FILE, TABLE.replace("0.2,,E", "much,,E"))
    assert sentence.startswith("column features of t.csv, row 5 holds 'much': it is no number")


def test_a_column_of_which_is_only_asked_whether_it_is_known(tmp_path):
    text = '[[class]]\nname = "a"\nwhere = "kind is known and ring is unknown"\n'
    table = "features,ring,kind\n1,-9999,x\n1,2,x\n1,,\n1,,3\n"
    assert rules_of(tmp_path, text).sort(columns_of(tmp_path, table)).classes.tolist() == [0, -1, -1, 0]


def test_a_class_that_takes_nothing_is_named_with_what_the_others_take(tmp_path):
    rules = rules_of(tmp_path, FILE.replace("ring > 0.3", "ring > 2"))
    found = rules.sort(columns_of(tmp_path))
    with pytest.raises(UserError) as caught:
        rules.refuse_empty(found.classes, found.met, "t.csv")
    assert str(caught.value) == (
        f"class ringed spiral ({tmp_path / 'c.toml'}, line 6, column 9) takes none of the 6 galaxies of t.csv, of "
        "which 4 S0, 1 E are taken and 1 are of no class: change its condition, or go on with --allow-empty-class"
    )
    rules = rules_of(tmp_path, FILE.replace("features <= 0.5", "features <= 0.1"))
    found = rules.sort(columns_of(tmp_path))
    with pytest.raises(UserError, match=r"class E .*; 1 meet its condition, which classes of higher priority"):
        rules.refuse_empty(found.classes, found.met, "t.csv")


def test_classes_written_in_another_way_are_told_by_their_number(tmp_path):
    text = 'class = [{name = "a", where = "features > 0"}, {name = "b", where = "ring >"}]'
    assert refused(tmp_path, text).startswith("class 2 of c.toml, character 7 of where: the condition of class b is")
    text = text.replace("ring >", "rin > 1")
    assert refused(tmp_path, text).startswith("class 2 of c.toml, character 1 of where: there is no column 'rin'")


@pytest.mark.parametrize("text", ["", "class = 3", "class = []", "class = [1]", "[class]\nname = 'a'"])
def test_a_file_without_classes(tmp_path, text):
    assert refused(tmp_path, text) == "c.toml has no table [[class]]: each class is one, with name and where"


def test_more_than_sixty_four_classes(tmp_path):
    text = "".join(f'[[class]]\nname = "c{k}"\nwhere = "features > {k}"\n' for k in range(65))
    assert refused(tmp_path, text) == "c.toml has 65 classes, where up to 64 are possible"
    assert len(rules_of(tmp_path, text[: text.rindex("[[class]]")]).names) == 64


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.toml: see docs/data\.md for files of classes"):
        read_class_rules(str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match=r"--classes 'gatd': it takes a file of rules that ends in \.toml, or one that"):
        read_class_rules("gatd")


def test_the_gated_rule_is_that_of_willett_et_al():
    rng = np.random.default_rng(0)
    rules = read_class_rules("gated")
    votes = pd.DataFrame({name: rng.random(200_000) for name in rules.columns})
    columns = RuleColumns("votes", len(votes), list(votes), lambda name: votes[name].to_numpy(), lambda name: None)
    found = rules.sort(columns)
    # The rule as Galaxy Zoo 2 is read since the first release, written out.
    merger = (votes["t08_odd_feature_a24_merger"] > 0.4) & (votes["t06_odd_a14_yes"] > 0.42)
    features, smooth = (votes[f"t01_smooth_or_features_{a}"] for a in ("a02_features_or_disk", "a01_smooth"))
    edge_on = (votes["t02_edgeon_a04_yes"] > 0.5) & (features > 0.43)
    elliptical = (smooth > 0.6) & (smooth > features)
    expected = np.select([merger, edge_on, elliptical, features > 0.5], [2, 3, 1, 0], -1)
    assert np.array_equal(found.classes, expected)
