"""Reports that are no reports, or were changed by hand, in what reads them: compare, and the making of a release."""

from __future__ import annotations

import copy
import itertools
import json
import random

import pytest

import evaluate
from galaxies.common.errors import UserError
from galaxies.validation.report.report_file import from_plain, read_report, to_plain
from galaxies.validation.targets import table, verdicts
from tests.validation.reports import old_plain

PLAIN = json.loads(json.dumps(to_plain(from_plain(old_plain()))))
VALUES = [None, "text", -1, 0, 10**39, 1e300, [], {}, True, [[[]]], {"left_out": "x"}, {"a": 1}, "\x1b[2J" * 100]


def places(value, place=()):
    """List the places in nested values; of a list the first alone."""
    yield place
    inner = value.items() if isinstance(value, dict) else [(0, value[0])] if isinstance(value, list) and value else []
    for name, entry in inner:
        yield from places(entry, (*place, name))


def changed(place, value):
    plain = copy.deepcopy(PLAIN)
    outer = plain
    for name in place[:-1]:
        outer = outer[name]
    if value == "dropped":
        del outer[place[-1]]
    else:
        outer[place[-1]] = value
    return plain


@pytest.mark.parametrize("cases", [40, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_report_that_was_changed_is_read_or_refused(tmp_path, count, cases):
    every = [place for place in places(PLAIN) if place]
    chosen = random.Random(5).sample(list(itertools.product(every, [*VALUES, "dropped"])), cases)
    # What the table of figures and the targets look up by name is always tried.
    chosen += [
        (place, value)
        for place in (("seconds", "generation"), ("realism", "statistics", "mean", "all"), ("counts", "test"))
        for value in ("dropped", 0)
    ]
    for place, value in chosen:
        (tmp_path / "report.json").write_text(json.dumps(changed(place, value)))
        try:
            report = read_report(tmp_path)
        except UserError as error:
            assert "is no report of this release: make it again with evaluate.py report" in str(error)
            assert str(error).isprintable() and len(str(error)) - len(str(tmp_path)) < 400
            count("reports changed by hand: refused")
            continue
        # What is read can be shown.
        assert all(name.isprintable() for name in report.figures())
        assert "|" in table(verdicts(report))
        count("reports changed by hand: read")


def test_the_sentence_says_where(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(changed(("realism", "statistics", "mean", "all"), "dropped")))
    with pytest.raises(UserError, match=r"realism\.statistics\.mean: .*the group 'all' is missing"):
        read_report(tmp_path)
    plain = changed(("control", "instruments"), {"col our": PLAIN["control"]["instruments"]["size"]})
    (tmp_path / "report.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match=r"control\.instruments\.col our.*this is no attribute"):
        read_report(tmp_path)


FILES = {
    "nothing": b"",
    "a list": b"[]",
    "a page": b"<html>",
    "no UTF-8": b'{"format_version": "\xff"}',
    "UTF-16": json.dumps(PLAIN).encode("utf-16"),
    "half": json.dumps(PLAIN).encode()[:5000],
    "deep": b'{"format_version": 2, "control": ' + b"[" * 100_000,
    "a little too deep": json.dumps({**PLAIN, "judge": {"a": json.loads("[" * 90 + "]" * 90)}}).encode(),
    "NaN": json.dumps({**PLAIN, "seed": float("nan")}).encode(),
    "a huge number": json.dumps(PLAIN).replace('"seed": ', '"seed": ' + "9" * 5000).encode(),
    "format 0": json.dumps({**PLAIN, "format_version": 0}).encode(),
    "format '2'": json.dumps({**PLAIN, "format_version": "2"}).encode(),
    "format 99": json.dumps({**PLAIN, "format_version": 99}).encode(),
    "format null": json.dumps({**PLAIN, "format_version": None}).encode(),
    "format [1]": json.dumps({**PLAIN, "format_version": [1]}).encode(),
    "format 1 with nothing": b'{"format_version": 1}',
    "format 1 with text": b'{"format_version": 1, "control": "x", "realism": 3}',
}


@pytest.mark.parametrize("name", FILES)
def test_compare_refuses_what_is_no_report(tmp_path, name):
    (tmp_path / "report.json").write_bytes(FILES[name])
    for given in (tmp_path, tmp_path / "report.json"):
        with pytest.raises(UserError, match=r"report\.json .*(make it again|get it again)") as caught:
            evaluate.main(["compare", str(given)])
        assert len(str(caught.value)) - len(str(tmp_path)) < 300


def test_compare_says_that_there_is_no_report(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    for given in (tmp_path, tmp_path / "nowhere", tmp_path / "a.txt"):
        with pytest.raises(UserError, match=r"holds no report.json: make one"):
            evaluate.main(["compare", str(given)])
    (tmp_path / "b.json").mkdir()
    with pytest.raises(UserError, match="is a folder where a file is expected"):
        evaluate.main(["compare", str(tmp_path / "b.json")])


def test_a_report_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "report.json").write_bytes(json.dumps(PLAIN).encode("utf-8-sig"))
    assert read_report(tmp_path).figures() == from_plain(PLAIN).figures()
