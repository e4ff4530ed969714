"""The one door to JSON: what comes out of it is JSON, and nothing goes round it."""

from __future__ import annotations

import ast
import json
import math

import numpy as np
import pytest

from galaxies.common.json_writing import json_text
from tests.conftest import ROOT


def strict(text: str):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_none_become_null_at_any_depth():
    value = {"a": [1.5, math.nan, {"b": (math.inf, -math.inf, np.float64("nan"))}], "c": "NaN", "d": None, "e": True}
    assert strict(json_text(value)) == {"a": [1.5, None, {"b": [None, None, None]}], "c": "NaN", "d": None, "e": True}
    assert value["a"][1] is not None  # the caller's own is left alone


@pytest.mark.parametrize("layout", [{}, {"indent": 1}, {"sort_keys": True}, {"indent": 1, "ensure_ascii": False}])
def test_what_is_finite_is_written_as_ever(layout):
    value = {"b": 0.1, "a": ["é", 3, None, False, {"x": 1e300}], "z": {}}
    assert json_text(value, **layout) == json.dumps(value, **layout)


def test_nothing_else_writes_json():
    """A second writer would bring NaN back: a `dump` of the module json stands in the one file and in no other."""
    found = []
    for path in [
        *ROOT.glob("*.py"),
        *(p for f in ("galaxies", "studies", "benchmarks") for p in (ROOT / f).rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "json"
            taken = isinstance(node, ast.ImportFrom) and node.module == "json"
            if (named and node.attr.startswith("dump")) or taken:
                found.append(path.relative_to(ROOT).as_posix())
    assert found == ["galaxies/common/json_writing.py"]
