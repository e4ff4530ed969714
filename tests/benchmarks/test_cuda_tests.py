"""The benchmark that runs the tests for a GPU: it counts rightly, and never calls it fine that none has run."""

from __future__ import annotations

import json
import textwrap

import pytest

from benchmarks import cuda_tests, suite, table
from galaxies.common import hardware
from galaxies.common.errors import UserError
from tests.conftest import ROOT

SETTINGS = """
[tool.pytest.ini_options]
addopts = "-n auto --an-option-of-a-plugin-that-is-not-here"
markers = ["slow: long", "cuda: on a GPU"]
filterwarnings = ["error"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project with tests of its own, whose options and environment ask for plugins that are not loaded."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    (tmp_path / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "tests" / "sub").mkdir(parents=True)
    monkeypatch.setattr(hardware, "ROOT", tmp_path)

    def write(text, name="test_a.py"):
        (tmp_path / "tests" / "sub" / name).write_text("import pytest\n" + textwrap.dedent(text), encoding="utf-8")
        return tmp_path / "tests"

    return write


MANY = """
def test_cuda_good(): pass

@pytest.mark.cuda
def test_marked(): pass

def test_other(): assert False

@pytest.mark.slow
def test_cuda_slow(): assert False

def test_cuda_bad(): assert False

@pytest.fixture
def torn():
    yield
    raise ValueError("torn")

def test_cuda_torn(torn): pass

@pytest.mark.skip(reason="none here")
def test_cuda_skipped(): pass

@pytest.mark.parametrize("plugin", ["xdist", "pytest_benchmark", "hypothesis"])
def test_cuda_without(request, plugin): assert not request.config.pluginmanager.has_plugin(plugin)
"""


def test_outcomes_of_tests_are_counted(folder):
    folder("import nothing_of_that_name", "test_b.py")
    found = cuda_tests.run_tests("cuda", folder(MANY))
    assert (found.passed, found.failed, found.skipped) == (5, 2, 1)
    assert [name.split("::")[1] for name in found.failures] == ["test_cuda_bad", "test_cuda_torn"]
    assert found.failures[0].endswith("test_a.py::test_cuda_bad")
    assert [name.split("/")[-1].split("\\")[-1] for name in found.not_loaded] == ["test_b.py"]
    assert found.reasons == ["none here"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def test_other(): pass", "pytest -k cuda found no test of that name; its last lines:\n(?s:.)*deselected"),
        ("import os\ndef test_cuda_dies(): os._exit(9)", "pytest -k cuda did not come to its end: exit status 9"),
        ("import os\ndef test_cuda_dies(): os._exit(0)", "did not come to its end: exit status 0"),
        ("def test_cuda_stops(): raise KeyboardInterrupt", "pytest -k cuda was interrupted; its last lines:"),
        ("@pytest.mark.skip(reason='no GPU')\ndef test_cuda(): pass", "all 1 tests were skipped: no GPU"),
        ("import nothing_of_that_name", r"pytest -k cuda ran no test; its last lines:\n(.*\n)*.*1 error"),
    ],
)
def test_it_is_a_mistake_that_none_has_run(folder, text, message):
    with pytest.raises(UserError, match=message):
        cuda_tests.run_tests("cuda", folder(text))


def test_an_internal_error_is_told(folder):
    tests = folder("def test_cuda(): pass")
    hook = "def pytest_runtest_protocol(item): raise RuntimeError('broken within')\n"
    (tests / "conftest.py").write_text(hook, encoding="utf-8")
    with pytest.raises(UserError, match=r"met an internal error(.*\n)*.*broken within"):
        cuda_tests.run_tests("cuda", tests)


def test_a_failing_test_is_told_and_what_passed_is_kept(folder, capsys):
    folder(MANY)
    with pytest.raises(UserError, match=r"2 tests failed: .*test_cuda_bad, .*test_cuda_torn"):
        cuda_tests.main(["--device", "cpu"])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])["facts"]
    assert (facts["passed"], facts["failed"], facts["skipped"]) == (5, 2, 1)
    folder("def test_cuda(): pass")
    cuda_tests.main(["--device", "cpu"])
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])["facts"]
    assert facts == {"passed": 1, "failed": 0, "skipped": 0, "failures": [], "not_loaded": []}


def test_the_suite_takes_up_both_the_failure_and_the_counts(tmp_path):
    result = json.dumps({"sizes": {}, "rows": [], "facts": {"passed": 3, "failed": 1}})
    script = tmp_path / "half.py"
    script.write_text(f"print({result!r})\nraise SystemExit('1 test failed')", encoding="utf-8")
    entry = suite.run_part([str(script)], 60)
    assert entry["status"] == "failed"
    assert entry["error"] == "1 test failed"
    machine = hardware.describe(cuda_tests.Engine.choose("cpu", "fp32").device, "abc")
    assert "- tests: failed (1 test failed); passed 3; failed 1\n" in table.of_device(
        {"machine": machine, "parts": {"tests": entry}}
    )


def test_tests_for_a_gpu_are_found_by_that_word():
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "@needs_cuda" in path.read_text("utf-8")]
    assert len(marked) >= 3
    stray = [p for p in (ROOT / "tests").rglob("test_*.py") if "skipif(not torch.cuda" in p.read_text("utf-8")]
    assert stray in ([], [ROOT / "tests/benchmarks/test_cuda_tests.py"])
