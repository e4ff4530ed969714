"""Checks of values from files."""

from __future__ import annotations

import math

import pytest

from galaxies.common.schema import (
    SchemaError,
    anything,
    either,
    entries,
    exactly,
    flag,
    items,
    mapping,
    number,
    text,
    whole,
)

CHECKS = [
    (whole(), [0, -5, 10**30], [True, 1.0, "1", None, [1]]),
    (whole(1, 3), [1, 3], [0, 4]),
    (number(), [1, -2.5, 1e300], [True, math.nan, math.inf, -math.inf, 10**400, "1", None]),
    (number(0, 1), [0, 1.0], [-0.1, 1.1]),
    (number(0, unknown=True), [math.nan, 3], [math.inf, -1]),
    (text(), ["", "a"], [1, None, b"a"]),
    (text("a", "b"), ["a"], ["c", ""]),
    (text(most=2), ["ab"], ["abc"]),
    (flag(), [True, False], [0, 1, "true", None]),
    (exactly(None), [None], [0, "", False]),
    (exactly(1), [1], [True, 1.0, 2]),
    (either(exactly(None), whole(0)), [None, 4], [-1, "x"]),
    (items(whole(), 1, 2), [[1], (1, 2)], [[], [1, 2, 3], ["1"], {"a": 1}, "ab"]),
    (mapping(whole()), [{}, {"a": 1}], [{"a": "1"}, {1: 1}, [1]]),
    (mapping(whole(), text("a")), [{"a": 1}], [{"b": 1}]),
    (entries({"a": whole()}, {"b": text()}), [{"a": 1}, {"a": 1, "b": "x", "c": []}], [{}, {"a": 1, "b": 2}, [], None]),
    (entries({"a": whole()}, others=False), [{"a": 1}], [{"a": 1, "c": 1}]),
    (anything(), [None, [[]]], []),
]


@pytest.mark.parametrize(("check", "good", "bad"), CHECKS, ids=[check.wanted[:40] for check, *_ in CHECKS])
def test_checks_accept_and_refuse(check, good, bad):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(SchemaError):
            check(value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"parts": [{"bytes": 1}, {"bytes": -2}]}, "parts[1].bytes is -2, not a whole number of 0 or more"),
        ({"parts": [{}]}, "parts[0].bytes is missing"),
        ({"parts": 3}, "parts is 3, not a list"),
        ([], "it is a list of 0, not a mapping"),
        ({"parts": [], "a\x1b[2J": "x" * 500}, None),
        ({"parts": [], "sums": {"a\x1b[2J": 10**5000}}, r"sums.'a\x1b[2J' is a number of 16610 bits, not text"),
    ],
)
def test_the_sentence_names_the_place(value, sentence):
    check = entries({"parts": items(entries({"bytes": whole(0)}))}, {"sums": mapping(text())})
    if sentence is None:
        check(value)
        return
    with pytest.raises(SchemaError) as caught:
        check(value)
    assert str(caught.value) == sentence


def test_a_value_within_itself_is_no_danger():
    value = {"a": 1}
    value["b"] = value
    entries({"a": whole()}, {"b": anything()})(value)
    with pytest.raises(SchemaError, match=r"b is a mapping of 2, not text"):
        entries({"a": whole()}, {"b": text()})(value)
