"""The changes that the mutation script makes, and what it says of tests that notice them or do not."""

from __future__ import annotations

import subprocess

import pytest

from tests import mutants
from tests.mutants import LineMap, Mutant, chosen, copy_of, judge, measured_map, mutants_of

MODULE = '''"""A module."""

LIMIT = 3


def inside(x):
    """Tell."""
    if not x < LIMIT and x:
        print("far")
        return min(x, -1)
    x += 1.5
    forgotten(x, flush=True)
    raise ValueError(f"{x} is more than {LIMIT + 1}")


def forgotten(x: int = 50, **flush: bool) -> "int":
    return "a" + str(x)
'''
TESTS = """from galaxies.room import inside, forgotten


def test_far():
    assert inside(7) == -1


def test_near():
    try:
        inside(1)
    except ValueError as error:
        assert "2.5 is more" in str(error)


def test_forgotten():
    forgotten(2)
"""


@pytest.fixture
def repository(tmp_path):
    """A repository of one module and its tests."""
    root = tmp_path / "root"
    for name, text in {
        "galaxies/__init__.py": "",
        "galaxies/room.py": MODULE,
        "tests/__init__.py": "",
        "tests/test_room.py": TESTS,
        "ignored.txt": "",
        ".gitignore": "ignored.txt\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def test_every_kind_of_change_is_found_and_only_in_code(repository):
    found = mutants_of(repository / "galaxies" / "room.py", repository)
    assert [(m.line, m.kind, m.before, m.after) for m in found] == [
        (3, "constant", "3", "4"),
        (8, "condition", "not x < LIMIT and x", "(not (not x < LIMIT and x))"),
        (8, "and, or", "not x < LIMIT and x", "(not x < LIMIT or x)"),
        (8, "sign or not", "not x < LIMIT", "(x < LIMIT)"),
        (8, "comparison", "x < LIMIT", "(x <= LIMIT)"),
        (10, "return", "return min(x, -1)", "return None"),
        (10, "name", "min", "max"),
        (10, "sign or not", "-1", "(1)"),
        (10, "constant", "1", "2"),
        (11, "arithmetic", "x += 1.5", "x -= 1.5"),
        (11, "constant", "1.5", "3.0"),
        (12, "call left out", "forgotten(x, flush=True)", "pass"),
        (16, "constant", "50", "100"),
        (17, "return", 'return "a" + str(x)', "return None"),
        (17, "constant", '"a"', "'aX'"),
    ]
    for mutant in found:
        content = MODULE.encode()
        compile(content[: mutant.start] + mutant.after.encode() + content[mutant.end :], "room.py", "exec")


def test_the_same_seed_draws_the_same_lines_once(repository):
    folders = [repository / "galaxies"]
    drawn = chosen(folders, 6, 1, repository)
    assert drawn == chosen(folders, 6, 1, repository) and drawn != chosen(folders, 6, 2, repository)
    assert len({mutant.line for mutant in chosen(folders, 100, 1, repository)}) == 7


@pytest.mark.slow
def test_tests_that_notice_kill_and_others_do_not(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "_LOADED_ONCE", ("pytest",))
    copied = copy_of(repository, tmp_path / "copy")
    assert not (copied / "ignored.txt").exists()
    tests = measured_map([copied], ["tests"])
    assert set(tests.tests["galaxies/room.py"]["10"]) == {"tests/test_room.py::test_far"}
    by_change = {(m.line, m.kind): m for m in mutants_of(copied / "galaxies" / "room.py", copied)}
    for place, verdict in (
        ((10, "name"), "killed"),
        ((12, "call left out"), "survived"),
        ((3, "constant"), "survived"),  # it runs at import: every test of the module is tried, and none notices
    ):
        judge(by_change[place], copied, tests)
        assert by_change[place].verdict == verdict, place
    assert "test_far" in by_change[10, "name"].by
    assert (copied / "galaxies" / "room.py").read_text() == MODULE


def test_quick_tests_that_mirror_the_module_come_first_within_the_budget():
    seconds = {"tests/a/test_x.py::slow": 30.0, "tests/a/test_x.py::quick": 1.0, "tests/b/test_y.py::other": 0.1}
    tests = LineMap({"galaxies/a/x.py": {"5": list(seconds)}}, seconds | {"tests/b/test_y.py::long": 20.0})
    mutant = Mutant("galaxies/a/x.py", 7, "constant", "1", "2", 0, 1)  # a statement that began two lines above
    assert tests.of(mutant) == ["tests/a/test_x.py::quick", "tests/a/test_x.py::slow", "tests/b/test_y.py::other"]
    tests.tests["galaxies/a/x.py"]["5"].append("tests/b/test_y.py::long")
    assert tests.of(mutant)[-1] == "tests/b/test_y.py::other"
    assert tests.of(Mutant("galaxies/c.py", 1, "constant", "1", "2", 0, 1)) == []
