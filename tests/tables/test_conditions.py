"""Conditions on the columns of a table: what they mean, and what is none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from galaxies.tables.conditions import ConditionError, Use, parse_condition

NAN = np.nan
COLUMNS = {
    "a": np.array([0.1, 0.5, NAN]),
    "b": np.array([0.2, NAN, NAN]),
    "t": np.array(["Sa", "", "E"], dtype=object),
    "smooth-or-featured_smooth_fraction": np.array([0.0, 0.7, 1.0]),
}


def met(text: str) -> list[int]:
    """Return the rows that meet a condition."""
    return np.flatnonzero(parse_condition(text).of(COLUMNS, 3)).tolist()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a > 0.3", [1]),
        ("a >= 0.5", [1]),
        ("a > 0.5", []),
        ("a <= 0.1", [0]),
        ("a < 0.1", []),
        ("a == 5e-1", [1]),
        ("a != 0.5", [0]),  # an unknown value differs from nothing
        ("0.3 < a", [1]),
        ("-1<a", [0, 1]),
        ("a > -.5", [0, 1]),
        ("A > 0.3", [1]),
        ("a < b", [0]),
        ("0.05 < a < b <= 0.2", [0]),
        ("0.1 < a < 0.5", []),
        ("not a > 0.3", [0]),
        ("not not a > 0.3", [1]),
        ("a is known", [0, 1]),
        ("a is unknown", [2]),
        ("not b is known", [1, 2]),
        ("t == 'Sa'", [0]),
        ('t != "Sa"', [2]),
        ("t in ('Sa', 'E')", [0, 2]),
        ("not t in ('Sa', 'Sb')", [2]),
        ("a in (0.5, 0.2)", [1]),
        ("t is unknown", [1]),
        ("t == 'sa'", []),  # a text is what it is
        ("`smooth-or-featured_smooth_fraction` > 0.5", [1, 2]),
        ("a > 0.3 or b < 1 and t == 'E'", [1]),  # and binds closer than or
        ("(a > 0.3 or b < 1) and t == 'Sa'", [0]),
        ("not a > 0.3 and b < 1", [0]),  # and not than and
        ("a > 0.3\n  or b < 1", [0, 1]),
    ],
)
def test_rows_that_meet_a_condition(text, rows):
    assert met(text) == rows


def test_what_is_unknown_is_neither_true_nor_false():
    """The tables of Kleene 1952, section 64, with unknown as None."""
    values = {True: 1.0, False: 0.0, None: NAN}
    cases = list(itertools.product((True, False, None), repeat=2))
    columns = {name: np.array([values[case[k]] for case in cases]) for k, name in enumerate("pq")}
    conjunction = [False if False in case else None if None in case else True for case in cases]
    disjunction = [True if True in case else None if None in case else False for case in cases]
    for text, expected in (("p == 1 and q == 1", conjunction), ("p == 1 or q == 1", disjunction)):
        true = parse_condition(text).of(columns, len(cases))
        false = parse_condition(f"not ({text})").of(columns, len(cases))
        assert true.tolist() == [one is True for one in expected]
        assert false.tolist() == [one is False for one in expected]


def test_any_condition_agrees_with_python(rng_seed=3):
    """Random conditions of known values, against Python's own reading of the same text."""
    rng = np.random.default_rng(rng_seed)
    columns = {name: rng.integers(0, 4, 60) / 2 for name in "xyz"}

    def random_text(depth: int) -> str:
        if depth == 0 or rng.random() < 0.3:
            signs = rng.choice(["<", "<=", ">", ">=", "==", "!="], 2)
            sides = [str(rng.choice(["x", "y", "z", "0.5", "1", "1.5"])) for _ in range(3)]
            if not {"x", "y", "z"} & set(sides[:2]) or not {"x", "y", "z"} & set(sides[1:]):
                sides[1] = "x"
            return f"{sides[0]} {signs[0]} {sides[1]}" + (f" {signs[1]} {sides[2]}" if rng.random() < 0.3 else "")
        inner = [random_text(depth - 1) for _ in range(2)]
        return str(rng.choice([f"({inner[0]}) and {inner[1]}", f"{inner[0]} or {inner[1]}", f"not ({inner[0]})"]))

    for _ in range(200):
        text = random_text(4)
        rows = [dict(zip("xyz", row, strict=True)) for row in zip(*columns.values(), strict=True)]
        expected = [bool(eval(text, {"__builtins__": {}}, row)) for row in rows]
        assert parse_condition(text).of(columns, 60).tolist() == expected, text


def test_columns_and_how_they_are_taken():
    uses = parse_condition("Smooth > features and t == 'E' and `odd name` is known and smooth < 1").uses
    assert uses == {
        "smooth": Use(False, 0),
        "features": Use(False, 9),
        "t": Use(True, 22),
        "odd name": Use(None, 36),
    }
    assert parse_condition("t is known and t == 'x'").uses == {"t": Use(True, 0)}
    assert parse_condition("t == 'x' or t is unknown").uses == {"t": Use(True, 0)}


@pytest.mark.parametrize(
    ("text", "place", "clause"),
    [
        ("", 0, "expected a column, a number or a text in quotes, where it ends"),
        ("a", 1, "expected a comparison such as > 0.5, where it ends"),
        ("a >", 3, "expected a column, a number or a text in quotes, where it ends"),
        ("a > 0.3 b", 8, "expected and, or, or the end, where 'b' stands"),
        ("a = 3", 2, "= compares nothing: write =="),
        ("a > 1 & b > 2", 6, "& is written and"),
        ("a > 1 | b > 2", 6, "| is written or"),
        ("(a>1", 4, "expected ), where it ends"),
        ("a>1)", 3, "expected and, or, or the end, where ')' stands"),
        ("a > 'x'", 2, "texts are compared by == and !=, and not by >"),
        ("1 < 2", 0, "a comparison needs a column on one side at least"),
        ("t == 'x' and t > 3", 13, "column 't' is taken as numbers here and as text before"),
        ("t > 3 and t == 'x'", 10, "column 't' is taken as text here and as numbers before"),
        ("a == 'x' == 3", 5, "a comparison needs a column on one side at least"),
        ("a-b > 1", 1, "- calculates"),
        ("a > 'x", 4, "the quote ' is not closed"),
        ("`a > 3", 0, "the quote ` is not closed"),
        ("a in (b)", 6, "a list holds numbers or texts in quotes, and no column"),
        ("a in ()", 6, "expected a column, a number or a text in quotes, where ')' stands"),
        ("a in (1", 7, "expected , or ), where it ends"),
        ("a in 3", 5, "expected a list"),
        ("a is 3", 5, "expected known or unknown after is, where '3' stands"),
        ("a > 0.3.4", 4, "'0.3.4' is no number"),
        ("a > 1_0", 4, "'1_0' is no number"),
        ("a>1 and", 7, "expected a column, a number or a text in quotes, where it ends"),
        ("not", 3, "expected a column, a number or a text in quotes, where it ends"),
        ("a ~ 3", 2, "'~' has no business there"),
        ("__import__('os').system('x')", 16, "'.' has no business there"),
        ("(" * 60 + "a>1" + ")" * 60, 51, "no more than 50 parentheses may lie within each other"),
    ],
)
def test_what_is_no_condition_is_told_with_its_place(text, place, clause):
    with pytest.raises(ConditionError) as caught:
        parse_condition(text)
    assert clause in str(caught.value) and caught.value.place == place
