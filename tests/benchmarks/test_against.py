"""Two commits timed in turns: who is faster, and by how much."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from benchmarks import against
from galaxies.common.errors import UserError

BEFORE, NOW = Path("before"), Path("now")


def scripted(**times):
    """Return a runner that reads what it says off lists, and the order in which it was called."""
    calls = []
    left = {name: iter(values) for name, values in times.items()}

    def run(folder, command):
        calls.append((folder.name, command))
        return next(left[folder.name])

    return run, calls


def test_both_run_by_turns_and_the_medians_are_compared():
    run, calls = scripted(
        before=[{"step": 10.0}, {"step": 12.0}, {"step": 90.0}], now=[{"step": 4.0}, {"step": 1.0}, {"step": 6.0}]
    )
    (row,) = against.compared(*against.in_turns(BEFORE, NOW, "step.py", 3, run), "step.py")
    assert [name for name, _ in calls] == ["before", "now", "now", "before", "before", "now"]
    assert (row["what"], row["before_ms"], row["ms"], row["ratio"]) == ("step", 12.0, 4.0, 3.0)
    assert (row["before_range_ms"], row["range_ms"]) == ([10.0, 90.0], [1.0, 6.0])


def test_what_only_one_of_them_times_is_left_out():
    run, _ = scripted(before=[{"a": 1.0, "old": 2.0}], now=[{"a": 2.0, "new": 1.0}])
    rows = against.compared(*against.in_turns(BEFORE, NOW, "x.py", 1, run), "x.py")
    assert [(row["what"], row["ratio"]) for row in rows] == [("a", 0.5)]


def test_nothing_in_common_is_a_failure():
    run, _ = scripted(before=[{"old": 2.0}], now=[{"new": 1.0}])
    with pytest.raises(UserError, match="times nothing that it timed before: old; now new"):
        against.compared(*against.in_turns(BEFORE, NOW, "x.py", 1, run), "x.py")


def script(tmp_path, body):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "made.py").write_text(body, encoding="utf-8")
    return tmp_path


def test_a_benchmarks_last_line_is_read(tmp_path):
    result = json.dumps({"rows": [{"what": "step of two", "ms": 2.5}]})
    folder = script(tmp_path, f"import sys\nassert sys.argv[1:] == ['--a', 'b c']\nprint('hello')\nprint({result!r})")
    assert against.run_benchmark(folder, "made.py --a 'b c'") == {"step of two": 2.5}


@pytest.mark.parametrize(
    "body",
    ["raise SystemExit('no card here')", "print('{\"rows\": []}')", "print('words')", "", "import os; os._exit(3)"],
)
def test_a_benchmark_without_a_figure_is_a_failure(tmp_path, body):
    with pytest.raises(UserError, match="gave no figure"):
        against.run_benchmark(script(tmp_path, body), "made.py")


def test_a_commit_that_is_not_there():
    with pytest.raises(UserError, match="no-such-commit cannot be checked out"), against.checked_out("no-such-commit"):
        pass


def test_a_run_that_fails_costs_the_others_nothing(monkeypatch, capsys):
    def run(folder, command):
        if command == "bad.py":
            raise UserError("bad.py gave no figure")
        return {"step": 8.0 if folder == BEFORE else 2.0}

    monkeypatch.setattr(against, "run_benchmark", run)
    monkeypatch.setattr(against, "checked_out", lambda commit: contextlib.nullcontext(BEFORE))
    with pytest.raises(UserError, match=r"bad\.py gave no figure"):
        against.main(["--device", "cpu", "--runs", "bad.py", "good.py", "--turns", "1"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert (row["what"], row["ratio"]) == ("step", 4.0)
