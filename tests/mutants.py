"""Change the code in small ways and see whether the tests notice: python tests/mutants.py galaxies/measure --count 80.

A mutant is one small change: another comparison, sign, number or name, a condition turned round, a call left out. The
tests that run its line are run on a copy of the repository; a mutant that they pass survives, and is either a change
that changes nothing or a test that is missing. Which test runs which line is measured first, by the package coverage,
and kept in a file, since it takes as long as the suite does. See Jia & Harman (2011, IEEE TSE 37, 649) for the method.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LOADED_ONCE = ("numpy", "pandas", "pytest", "torch")  # by the process that forks
_BUDGET_S = 40.0  # of tests for a mutant, as long as they took under coverage
_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_SWAPPED_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "amin": "amax", "amax": "amin"}
# Said to people, or to the type checker: what these hold is no behaviour that a test should pin down word by word.
_SAID = ("UserError", "print", "warn", "tqdm", "add_argument", "cast", "TypeVar")
# Calls and settings whose lack shows only in a power cut, on a screen, or where other code is wrong already.
_UNSEEN_CALLS = ("print", "warn", "flush", "fsync", "sync")
_UNSEEN_SETTINGS = ("strict", "flush", "dpi", "alpha", "linewidth", "lw", "fontsize", "pad_inches", "stacklevel")


@dataclass
class Mutant:
    """One change.

    Attributes
    ----------
    file : str
        Module, from the top of the repository.
    line : int
    kind : str
        What was changed.
    before, after : str
        Code.
    start, end : int
        Bytes of the module that `after` takes the place of.
    verdict : str
        ``killed``, ``survived``, ``untested`` (no test runs the line) or ``hung`` (counts as killed).
    seconds : float
    by : str
        First test that failed.
    """

    file: str
    line: int
    kind: str
    before: str
    after: str
    start: int
    end: int
    verdict: str = ""
    seconds: float = 0.0
    by: str = ""


@dataclass
class LineMap:
    """Which tests run which line, and for how long.

    Attributes
    ----------
    tests : dict
        Module to line (as text, since it comes from JSON) to test ids; without what runs at import.
    seconds : dict
        Test id to duration.
    """

    tests: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run a mutant's line, or the one that its statement begins on, within the budget.

        What runs at import, such as a constant, belongs to all tests of its module. Those in the folder that mirrors
        the module's come first, then the others, each time the quick ones first.
        """
        lines = self.tests.get(mutant.file, {})
        found = next((lines[str(at)] for at in range(mutant.line, mutant.line - 4, -1) if str(at) in lines), None)
        if found is None:
            found = [test for names in lines.values() for test in names]
        mirror = Path(mutant.file).parent.as_posix().replace("galaxies", "tests", 1) + "/"
        taken, spent = [], 0.0
        for test in sorted(
            set(found), key=lambda test: (not test.startswith(mirror), self.seconds.get(test, 0.0), test)
        ):
            spent += self.seconds.get(test, 0.0)
            if taken and spent > _BUDGET_S:
                break
            taken.append(test)
        return taken


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


class _Finder(ast.NodeVisitor):
    """Collects every mutant of one module."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.found, self.content = file, [], text.encode()  # type: tuple[str, list[Mutant], bytes]
        self._starts = [0]
        for line in text.encode().splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def _add(self, node: Any, kind: str, after: str) -> None:
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        before = self.content[start:end].decode()
        self.found.append(Mutant(self.file, node.lineno, kind, before, after, start, end))

    def _changed(self, node: ast.expr, kind: str, **fields: Any) -> None:
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        self._add(node, kind, f"({ast.unparse(other)})")

    def generic_visit(self, node: ast.AST) -> None:
        """Go on below a node, but for what is only said, annotated or decorated."""
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_comment"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave formatted texts: before Python 3.12 their parts do not know where they are."""

    def visit_Raise(self, node: ast.Raise) -> None:
        """Leave what is said in errors."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """Leave what is never to fail."""

    def visit_Expr(self, node: ast.Expr) -> None:
        """Leave docstrings; leave out calls whose value nobody takes."""
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call) and _name(node.value) not in _UNSEEN_CALLS:
            self._add(node, "call left out", "pass")
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        """Exchange min and max, any and all; go on below, but for what is said."""
        name = _name(node)
        if name in _SAID:
            return
        if (other := _SWAPPED_NAMES.get(name)) and isinstance(node.func, ast.Name):
            self._add(node.func, "name", other)
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        """Leave settings that nobody sees."""
        if node.arg not in _UNSEEN_SETTINGS:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Exchange each comparison for the one beside it."""
        for place, operator in enumerate(node.ops):
            if other := _SWAPPED.get(type(operator)):
                self._changed(
                    node, "comparison", ops=[*node.ops[:place], other(), *node.ops[place + 1 :]]
                )  # 0 < x is 0 <= x
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Exchange an arithmetic operator."""
        text = isinstance(node.left, ast.JoinedStr) or isinstance(getattr(node.left, "value", None), str)
        if (other := _SWAPPED.get(type(node.op))) and not text:
            self._changed(node, "arithmetic", op=other())
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Exchange `and` and `or`."""
        self._changed(node, "and, or", op=_SWAPPED[type(node.op)]())
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Drop a sign or a negation."""
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self._add(node, "sign or not", f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """Turn a condition round."""
        if getattr(node.test, "id", "") != "TYPE_CHECKING":
            self._add(node.test, "condition", f"(not ({ast.unparse(node.test)}))")
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Turn a condition round."""
        self._add(node.test, "condition", f"(not ({ast.unparse(node.test)}))")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        """Return nothing."""
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._add(node, "return", "return None")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Exchange the operator of `+=` and its like."""
        if other := _SWAPPED.get(type(node.op)):
            changed = copy.copy(node)
            changed.op = other()  # type: ignore[assignment]
            self._add(node, "arithmetic", ast.unparse(changed))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Take another number, truth value or name."""
        value = node.value
        if isinstance(value, bool):
            self._add(node, "constant", str(not value))
        elif isinstance(value, int | float):
            near = (isinstance(value, int) and value < 10) or value == 0  # 1501 is as good a bound as 1500
            self._add(node, "constant", repr(value + 1 if near else value * 2))
        elif isinstance(value, str) and value:
            self._add(node, "constant", repr(value + "X"))


def mutants_of(file: Path, root: Path = ROOT) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text."""
    text = file.read_text(encoding="utf-8")
    finder = _Finder(file.relative_to(root).as_posix(), text)
    finder.visit(ast.parse(text))
    return finder.found


def chosen(folders: list[Path], count: int, seed: int, root: Path = ROOT) -> list[Mutant]:
    """Draw `count` mutants from each folder (or module), no two from one line; the same ones for the same seed."""
    drawn = []
    for folder in folders:
        files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]
        found = [mutant for file in files for mutant in mutants_of(file, root)]
        random.Random(f"{seed} {folder.name}").shuffle(found)
        lines = list({(mutant.file, mutant.line): mutant for mutant in reversed(found)}.values())[::-1]
        drawn += lines[:count]
    return drawn


def copy_of(root: Path, folder: Path) -> Path:
    """Copy the files that git knows of, and those that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


def _processes() -> Any:
    """Return what makes processes: forks, where there are any, of one that has loaded what takes long to load."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_LOADED_ONCE))
    return context


def _enter(folder: Path) -> None:
    """Go into a copy, and forget what was imported from the repository itself."""
    os.chdir(folder)
    sys.path[:0] = [str(folder)]
    for name in [name for name in sys.modules if name.split(".")[0] in ("galaxies", "tests")]:
        del sys.modules[name]


def _run_tests(folder: Path, arguments: list[str], log: Path) -> None:
    """Run pytest in a copy; the body of a process."""
    import pytest

    _enter(folder)
    with log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream
        code = int(pytest.main(["-n", "0", "-p", "no:cacheprovider", *arguments]))
        stream.flush()
    os._exit(code)


class _Context:
    """A plugin of pytest that tells coverage which test runs, and notes how long each takes."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        import coverage

        measuring = coverage.Coverage.current()
        assert measuring is not None
        measuring.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration


def _map_part(folder: Path, tests: list[str], file: Path) -> None:
    """Run some test files under coverage and write their `LineMap`; the body of a process."""
    import coverage
    import pytest

    _enter(folder)
    context = _Context()
    measuring = coverage.Coverage(data_file=None, source=["galaxies"], concurrency="thread")
    measuring.start()
    pytest.main(["-n", "0", "-p", "no:cacheprovider", *tests], plugins=[context])
    measuring.stop()
    data, found = measuring.get_data(), LineMap(seconds=dict(context.seconds))
    for module in data.measured_files():
        lines = {str(line): [c for c in names if c] for line, names in data.contexts_by_lineno(module).items()}
        found.tests[Path(module).relative_to(folder).as_posix()] = {
            line: names for line, names in lines.items() if names
        }
    file.write_text(json.dumps(asdict(found)), encoding="utf-8")
    os._exit(0)


def measured_map(copies: list[Path], tests: list[str]) -> LineMap:
    """Run the tests under coverage, a part of the files in each copy."""
    context = _processes()
    files = sorted({file.relative_to(copies[0]).as_posix() for name in tests for file in _test_files(copies[0] / name)})
    parts = [folder / ".line_map.json" for folder in copies]
    workers = [
        context.Process(target=_map_part, args=(folder, files[place :: len(copies)], part))
        for place, (folder, part) in enumerate(zip(copies, parts, strict=True))
    ]
    for worker in workers:
        worker.start()
    whole = LineMap()
    for worker, part in zip(workers, parts, strict=True):
        worker.join()
        found = LineMap(**json.loads(part.read_text(encoding="utf-8")))
        part.unlink()
        whole.seconds |= found.seconds
        for module, lines in found.tests.items():
            for line, names in lines.items():
                whole.tests.setdefault(module, {}).setdefault(line, []).extend(names)
    return whole


def _test_files(path: Path) -> list[Path]:
    return sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


@contextlib.contextmanager
def _changed(folder: Path, mutant: Mutant) -> Iterator[None]:
    """Put a mutant into a copy, and take it out again."""
    file = folder / mutant.file
    content = file.read_bytes()
    file.write_bytes(content[: mutant.start] + mutant.after.encode() + content[mutant.end :])
    for cached in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
        cached.unlink()  # a change within the same second would not be seen
    try:
        yield
    finally:
        file.write_bytes(content)


def judge(mutant: Mutant, folder: Path, tests: LineMap) -> None:
    """Run the tests of a mutant, quick ones first and up to the first that fails, and note the verdict."""
    ids = tests.of(mutant)
    if not ids:
        mutant.verdict = "untested"
        return
    # What hangs counts as killed, so what is only slow, on a machine that does other work besides, must not.
    limit = 300 + 10 * sum(tests.seconds.get(test, 0.0) for test in ids)
    log, started = folder / ".mutant.log", time.monotonic()
    with _changed(folder, mutant):
        process = _processes().Process(target=_run_tests, args=(folder, ["-x", *ids], log))
        process.start()
        process.join(limit)
        hung = process.is_alive()
        if hung:
            process.kill()
            process.join()
    mutant.seconds = round(time.monotonic() - started, 1)
    mutant.verdict = "hung" if hung else "survived" if process.exitcode == 0 else "killed"
    failed = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "FAILED" in line]
    mutant.by = failed[0][:200] if failed and not hung else ""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders or modules below galaxies/")
    parser.add_argument("--count", type=int, default=75, help="mutants of each folder (default 75)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time (default: one a core)")
    parser.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="tests to map (default tests)")
    parser.add_argument("--map", type=Path, metavar="JSON", help="which test runs which line; made if missing")
    parser.add_argument("--out", type=Path, default=Path("mutants.json"), metavar="JSON", help="where the verdicts go")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    mutants = chosen([ROOT / folder for folder in options.folders], options.count, options.seed)
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copies = [copy_of(ROOT, Path(scratch) / f"copy{job}") for job in range(options.jobs)]
        if options.map and options.map.is_file():
            tests = LineMap(**json.loads(options.map.read_text(encoding="utf-8")))
        else:
            tests = measured_map(copies, options.tests)
            if options.map:
                options.map.write_text(json.dumps(asdict(tests)), encoding="utf-8")
        queue: SimpleQueue[Mutant] = SimpleQueue()
        for mutant in mutants:
            queue.put(mutant)
        said = Lock()

        def work(folder: Path) -> None:
            with contextlib.suppress(Empty):
                while True:
                    judge(mutant := queue.get_nowait(), folder, tests)
                    with said:
                        where = f"{mutant.file}:{mutant.line}"
                        print(
                            f"{mutant.verdict:9} {mutant.seconds:6.1f} s {where} {mutant.before!r} -> {mutant.after!r}"
                        )
                        options.out.write_text(json.dumps([asdict(m) for m in mutants if m.verdict], indent=1))

        threads = [Thread(target=work, args=(folder,)) for folder in copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for folder in options.folders:
        counts = Counter(m.verdict for m in mutants if m.file.startswith(folder.as_posix()))
        caught = counts["killed"] + counts["hung"]
        print(f"{folder}: {caught} of {counts.total()} caught ({100 * caught / max(1, counts.total()):.0f} %)")


if __name__ == "__main__":
    main()
