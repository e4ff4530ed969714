"""The benchmarks: that each runs with tiny sizes and says what it should. How fast anything is, no test asserts."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys

import pytest
import torch

from benchmarks import (
    diffusion_step,
    eager_reference,
    epoch,
    generation,
    launches,
    measuring,
    observing,
    peaks,
    preparation,
    rendering,
    serving,
    suite,
    table,
    timing,
    training_step,
)
from benchmarks.roofline import Peak
from galaxies.common import hardware
from galaxies.common.errors import UserError
from galaxies.compute.compilation import Compiler
from galaxies.datasets import batches
from galaxies.mock_survey import observation as simulation
from tests.conftest import ROOT, make_trainer

CPU = torch.device("cpu")
PEAK = Peak({"fp32": 1e9, "bf16": 1e9}, 1e9, "made up")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    """Measure no peaks and render few galaxies, which would take most of the time."""
    monkeypatch.setattr(peaks, "measured_peak", lambda *_: PEAK)
    monkeypatch.setattr(simulation, "BLOCK", 4)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Images this small are slower to share among threads than to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(script, capsys, *options):
    """Run a script in this process, which saves starting another, and return the JSON object that it printed."""
    script.main([str(option) for option in options])
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert set(result) == {"benchmark", "machine", "sizes", "rows", "facts"}
    assert result["benchmark"] == script.__name__.split(".")[-1]
    assert {"device", "cores", "threads", "torch", "python", "commit", "clean"} <= set(result["machine"])
    for row in result["rows"]:
        assert row["quartiles_ms"][0] <= row["ms"] <= row["quartiles_ms"][1]
        assert row["images_per_s"] == pytest.approx(row["images"] / row["ms"] * 1e3, rel=2e-3)
        if "ratio" in row:
            assert row["ratio"] == pytest.approx(row["reference_ms"] / row["ms"], rel=2e-3)
        if "least_ms" in row:
            assert row["part_of_limit"] == pytest.approx(row["least_ms"] / row["ms"], rel=2e-3)
    return result


# The scripts

TINY_RUN = ("--width", 4, "--batch-size", 4, "--device", "cpu", "--precision", "fp32")


def test_training_step(capsys):
    options = (*TINY_RUN, "--images", 16, "--periods", 1, "--warm-up", 1, "--repeats", 2)
    result = run(training_step, capsys, *options)
    assert [row["what"].split()[0] for row in result["rows"]] == ["predictor", "generator"]
    assert all("least_ms" in row and "ratio" not in row for row in result["rows"])  # the reference has another width
    assert result["facts"]["recipe_steps"] == {"predictor": 30 * 60_000, "generator": 150 * 60_000}
    hours = sum(n * row["ms"] / 3.6e6 for n, row in zip((1_800_000, 9_000_000), result["rows"], strict=True))
    assert result["facts"]["recipe_hours"] == pytest.approx(hours, rel=1e-3)


def test_training_step_of_larger_images(capsys):
    options = (
        "--image-px",
        128,
        "--images",
        8,
        "--periods",
        1,
        "--warm-up",
        0,
        "--repeats",
        1,
        "--phases",
        "generator",
    )
    found = {}
    for stages in ((), ("--no-detail-stages",)):
        result = run(training_step, capsys, *TINY_RUN, *options, *stages)
        (row,) = result["rows"]
        assert row["what"] == "generator step, default recipe, fp32, batch 4, width 4, 128 px"
        assert result["sizes"]["image_px"] == 128
        found[stages] = row["gflop"]
    assert found[()] < 0.75 * found["--no-detail-stages",]


def test_training_step_that_was_not_compiled_as_asked_is_a_failure(monkeypatch, capsys):
    def refuse(*_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(Compiler, "_compiled", refuse)
    options = [*TINY_RUN, "--images", 16, "--periods", 1, "--warm-up", 0, "--repeats", 1, "--compile", "on"]
    with pytest.raises(UserError, match="the steps could not be compiled, and ran as they are"):
        training_step.main([str(option) for option in options])
    *said, result = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "no compiler here" in said[0]
    assert json.loads(result)["rows"][1]["what"] == "generator step, default recipe, fp32, batch 4, width 4, compiled"


def test_training_step_against_the_reference(capsys):
    options = ("--batch-size", 2, "--device", "cpu", "--precision", "fp32", "--images", 16, "--periods", 1)
    (row,) = run(training_step, capsys, *options, "--repeats", 1, "--warm-up", 0, "--phases", "predictor")["rows"]
    assert row["ratio"] > 0


def test_epoch(capsys):
    result = run(epoch, capsys, *TINY_RUN, "--images", 18, "--repeats", 1)
    assert [row["images"] for row in result["rows"]] == [16, 16]  # whole batches
    assert result["facts"]["checkpoint_and_grid_s"] > 0
    assert result["facts"]["recipe_hours"] > 0


def test_generation(capsys):
    result = run(generation, capsys, "--images", 3, "--repeats", 1, "--device", "cpu", "--width", 4)
    assert [row["images"] for row in result["rows"]] == [3, 1]
    assert all({"ratio", "least_ms"} <= set(row) for row in result["rows"])


def test_generation_of_few_and_into_shards(capsys):
    sizes = ["--images", 5, "--few", 1, 4, 16, "--shards", 7, "--repeats", 1]
    result = run(generation, capsys, *sizes, "--device", "cpu", "--width", 4, "--no-reference")
    assert [row["images"] for row in result["rows"]] == [5, 1, 4, 7]
    assert result["rows"][-1]["what"] == "7 images, measured and written in shards, default recipe"


def test_generation_in_each_format_says_its_size(capsys):
    sizes = ["--images", 3, "--shards", 40, "--repeats", 1, "--formats", *generation.FORMATS]
    result = run(generation, capsys, *sizes, "--device", "cpu", "--width", 4, "--no-reference")
    whats = [row["what"] for row in result["rows"][2:]]
    assert [what.split(", ")[1] for what in whats] == [
        "measured and written in shards",
        "measured and written as a FITS file each",
        "measured and written in shards",
        "measured and written in shards",
    ]
    assert all(row["images_per_s"] > 0 and row["images"] == 40 for row in result["rows"][2:])
    pixels = 40 * 3 * 64 * 64 / 1e6
    megabytes = [result["facts"][f"{name}_mb"] for name in generation.FORMATS]
    # An array; files of a header and pixels in whole blocks of 2880 bytes; a table; pictures, which are packed.
    assert pixels < megabytes[0] < pixels * 1.2 and megabytes[1] > 40 * (1 + 5) * 2880 / 1e6
    assert pixels < megabytes[2] < pixels * 1.2 and megabytes[3] > 0


def test_generation_by_a_diffusion_model(capsys):
    sizes = ["--images", 2, "--repeats", 1, "--width", 4, "--unet-blocks", 1, "--solver-steps", 3]
    result = run(generation, capsys, "--diffusion", *sizes, "--device", "cpu")
    assert [row["what"] for row in result["rows"]] == [
        "2 images, diffusion, width 4, 3 steps",
        "1 image, diffusion, width 4, 3 steps",
    ]
    assert all("least_ms" in row and "ratio" not in row for row in result["rows"])


def test_diffusion_step(capsys):
    options = ("--widths", 8, 16, "--unet-blocks", 1, "--batch-size", 2, "--periods", 1, "--repeats", 1)
    result = run(diffusion_step, capsys, *options, "--device", "cpu", "--precision", "fp32")
    assert [row["what"] for row in result["rows"]] == [
        "diffusion step, default recipe, fp32, batch 2, width 8",
        "diffusion step, default recipe, fp32, batch 2, width 16",
    ]


def test_measuring(capsys):
    sizes = ["--images", 3, "--pictures", 5, "--repeats", 1]
    result = run(measuring, capsys, *sizes, "--device", "cpu", "--statmorph", 0)
    photometry = ["attributes, batch 64", "attributes and structure, batch 64"]
    assert [row["what"] for row in result["rows"]] == [*photometry, "5 pictures by evaluate.py measure"]
    assert [row["images"] for row in result["rows"]] == [3, 3, 5]


def test_rendering(capsys):
    result = run(rendering, capsys, "--count", 4, "--repeats", 1, "--device", "cpu")
    what = [row["what"] for row in result["rows"]]
    assert what == ["galaxies rendered", "galaxies rendered in flux", "galaxies rendered, measured and written"]
    assert result["facts"]["minutes_for_240000"] > 0
    assert 0.05 < result["facts"]["flux_over_display"] < 20


def test_observing(capsys):
    result = run(observing, capsys, "--batch-size", 2, "--bands", 1, "--size", 16, "--repeats", 1)
    what = [row["what"] for row in result["rows"]]
    assert what == [f"16 px seen through {psf}" for psf in ("air", "mirror", "measured PSFs")]
    assert all(row["ratio"] > 0 for row in result["rows"])


def test_preparation(capsys):
    result = run(preparation, capsys, "--images", 4, "--repeats", 1, "--workers", 1)
    assert [row["what"] for row in result["rows"]] == ["pictures read, 1 worker", "dataset prepared, 1 worker"]


def test_serving(capsys):
    options = ["--width", 4, "--users", 1, 3, "--seconds", 1, "--requests", 50, "--clients", 8, "--pixels", 64]
    options += ["--threads", 2]
    result = run(serving, capsys, *options, "--device", "cpu")
    assert [row["what"] for row in result["rows"]] == ["picture of 64 px, 1 user", "picture of 64 px, 3 users"]
    assert all(row["ms"] <= row["p99_ms"] and row["requests_per_s"] > 0 for row in result["rows"])
    facts = result["facts"]
    assert facts["1 user"]["errors"] == 0 and facts["1 user"]["requests"] > 0
    overload = facts["overload"]
    assert overload["served"] > 0 and overload["refused"] > 0
    assert overload["other"] == overload["healthz_failed"] == 0


def test_eager_reference(capsys):
    result = run(eager_reference, capsys, "--batch-size", 2, "--steps", 1, "--repeats", 1, "--device", "cpu")
    facts = result["facts"]
    assert facts["generator_parameters"] == 2_154_371
    assert facts["discriminator_parameters"] == 1_720_641
    assert facts["predictor_parameters"] == 438_532


def test_peaks(capsys):
    result = run(peaks, capsys, "--device", "cpu")
    assert result["facts"]["measured_source"] == "made up"
    assert result["facts"]["measured_fp32_tflop_per_s"] == 0.001


def test_launches_need_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="CUDA device, and there is none here"):
        launches.main([])


@pytest.mark.parametrize(
    "script", [training_step, epoch, generation, measuring, rendering, preparation, serving, suite]
)
def test_mistakes_are_user_errors(script):
    with pytest.raises(UserError, match="--help lists the options"):
        script.main(["--seconds" if script in (serving, suite) else "--repeats", "0"])


# Their parts


def test_measured_peak():
    peak = peaks_measured(CPU, 32, 4096)
    assert set(peak.flops_per_s) == {"fp32", "bf16"}
    assert min(*peak.flops_per_s.values(), peak.bytes_per_s) > 0


peaks_measured = peaks.measured_peak  # the real one, which the fixture replaces


def test_data_sheets_come_first(monkeypatch):
    monkeypatch.setattr(hardware, "device_name", lambda _: "NVIDIA H200")
    assert peaks.peak_of(CPU).bytes_per_s == 4.8e12
    monkeypatch.setattr(hardware, "device_name", lambda _: "NVIDIA H200 NVL")
    assert peaks.peak_of(CPU) is PEAK


@pytest.mark.parametrize("name", peaks.DATA_SHEETS)
def test_data_sheets_are_plausible(name):
    peak = peaks.DATA_SHEETS[name]
    assert 1.5 < peak.flops_per_s["bf16"] / peak.flops_per_s["fp32"] < 20
    assert 1e11 < peak.bytes_per_s < 1e13


def test_the_reference_leaves_settings_as_they_were():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    with eager_reference.plain_settings():
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == (False, True, False)
    assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before


def test_works_are_timed_in_turns():
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = timing.in_turns(works, 2, CPU)
    assert calls == list("ababab")  # the first of each is not timed
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_a_row_by_hand():
    row = timing.row("it", [1.0, 2.0, 9.0], images=10, times=4, reference=[12.0], reference_images=20)
    assert row["ms"] == 500
    assert row["quartiles_ms"] == [375, 1375]
    assert row["images_per_s"] == 20
    assert row["reference_ms"] == 1500  # 3 s a piece, for half as many images
    assert row["ratio"] == 3


def test_the_machine():
    machine = hardware.describe(CPU, commit="abc")
    assert machine["commit"] == "abc"
    assert machine["cores"] >= 1
    assert machine["cuda"] is None
    json.dumps(machine)


def test_the_machine_without_git(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    machine = hardware.describe(CPU)
    assert (machine["commit"], machine["clean"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("NVIDIA H200", "nvidia-h200"), ("AMD EPYC 7R13", "amd-epyc-7r13"), ("Intel(R) i7", "intel-r-i7")],
)
def test_names_of_results(name, stem):
    assert hardware.file_stem(name) == stem


@pytest.mark.parametrize(
    ("calls", "complaint", "may_capture", "faults"),
    [
        ({"graph_launches": 1.0, "waits": 0.12}, None, True, []),
        ({"graph_launches": 0.0, "waits": 0.0}, None, True, ["the generator step is not captured as a graph"]),
        ({"graph_launches": 0.0, "waits": 0.0}, None, False, []),
        ({"graph_launches": 1.0, "waits": 2.0}, "called", True, ["the generator step waits for the GPU 2 times"]),
        ({"graph_launches": 1.0, "waits": 0.0}, "called", True, ["the generator step waits for the GPU: called"]),
    ],
)
def test_a_step_that_waits_or_is_not_captured_is_a_fault(calls, complaint, may_capture, faults):
    assert launches.faults_of("generator", calls, complaint, may_capture) == faults


def test_launches_are_counted():
    names = ["cudaLaunchKernel", "cudaLaunchKernelExC", "aten::add", "cudaGraphLaunch", "cudaMemcpyAsync"]
    counts = launches.count_calls(names * 2, steps=4)
    assert counts == {"kernel_launches": 1, "graph_launches": 0.5, "waits": 0, "copies": 0.5}


@pytest.fixture
def watched_for_waiting(monkeypatch):
    """Take PyTorch's check of waiting for one that there is no GPU for, and say in which mode it is."""
    modes = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    return modes


def test_what_waits_is_named_with_its_line(data, tmp_path, monkeypatch, watched_for_waiting):
    trainer = make_trainer(data, tmp_path)
    assert launches.first_waits(trainer, len(trainer.batches) + 1) == {"step": None, "epoch start": None}

    def waits(*_):
        if watched_for_waiting[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    with monkeypatch.context() as patches:
        patches.setattr(batches, "_send", waits)
        found = launches.first_waits(trainer, 2)
    assert found["step"] is None
    expected = r"an operation in _upload at galaxies/datasets/batches\.py:\d+: _send\(.*"
    assert re.fullmatch(expected, found["epoch start"])

    monkeypatch.setattr(trainer.learner.optimizers["predictor"], "step", waits)
    found = launches.first_waits(trainer, 2)
    expected = r"an operation in step_if_finite at galaxies/compute/device\.py:\d+: optimizer\.step\(\)"
    assert re.fullmatch(expected, found["step"])
    assert watched_for_waiting[-1] == 0


def test_the_operation_that_waits_is_named(watched_for_waiting):
    complaint = launches._complaint(lambda: torch.ones(3).sum().item(), CPU)
    assert complaint is None
    with pytest.raises(RuntimeError, match="shape"):  # what else goes wrong is no waiting
        launches._complaint(lambda: torch.ones(3).view(2), CPU)
    with launches._Failed() as failed, pytest.raises(RuntimeError):
        torch.ones(3).view(2)
    assert failed.operation == "aten.view.default"


# The suite


@pytest.fixture
def scripts(tmp_path):
    """Scripts that stand for benchmarks: one works, one fails, one does not end, and two say something else."""
    result = {"benchmark": "x", "machine": {}, "sizes": {}, "rows": [GOOD_ROW], "facts": {"n": 1}}
    texts = {
        "good": f"print('a word before')\nprint({json.dumps(json.dumps(result))})",
        "facts": f"print({json.dumps(json.dumps(result | {'rows': []}))})",
        "bad": "raise SystemExit('it is broken')",
        "silent": "",
        "chatty": "print('done')",
        "slow": "import time\ntime.sleep(60)",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return {name: str(tmp_path / f"{name}.py") for name in texts}


def test_a_bad_part_costs_the_others_nothing(scripts):
    saved = []
    results = {"parts": {}}
    parts = [
        suite.Part(name, 1 if name == "slow" else 20, scripts[name])
        for name in ("bad", "slow", "silent", "chatty", "good")
    ]
    parts.append(suite.Part("facts", 20, scripts["facts"], facts_only=True))
    assert not suite.run_parts(parts, "cpu", 60, results, lambda: saved.append(len(results["parts"])))
    assert {name: entry["status"] for name, entry in results["parts"].items()} == {
        "bad": "failed",
        "slow": "out of time",
        "silent": "failed",
        "chatty": "failed",
        "good": "ok",
        "facts": "ok",
    }
    assert results["parts"]["bad"]["error"] == "it is broken"
    assert results["parts"]["facts"]["facts"] == {"n": 1}
    assert saved == [1, 2, 3, 4, 5, 6]
    assert suite.complaints(results) == [
        "bad: failed: it is broken",
        "slow: out of time: it did not end within 1 s",
        "silent: failed: its last line is no result:",
        "chatty: failed: its last line is no result: done",
    ]


GOOD_ROW = {"what": "a step", "ms": 2.0, "quartiles_ms": [1.0, 3.0], "images_per_s": 5.0}


@pytest.mark.parametrize(
    ("rows", "facts", "reason"),
    [
        ([], {}, "there is no row of times"),
        ([], {"n": 1}, "there is no row of times"),
        ([GOOD_ROW, {"what": "another"}], {}, "another has None as its ms"),
        ([GOOD_ROW | {"ms": None}], {}, "a step has None as its ms"),
        ([GOOD_ROW | {"ms": 0.0}], {}, "a step has 0.0 as its ms"),
        ([GOOD_ROW | {"ms": "fast"}], {}, "a step has fast as its ms"),
        ([GOOD_ROW | {"ms": float("nan")}], {}, "a step has nan as its ms"),
        ([GOOD_ROW | {"quartiles_ms": [1.0, float("nan")]}], {}, "a step has nan as its quartiles_ms"),
        ([GOOD_ROW | {"images_per_s": 0}], {}, "a step has 0 as its images_per_s"),
        ([GOOD_ROW | {"ratio": float("inf")}], {}, "a step has inf as its ratio"),
        ([GOOD_ROW], {"hours": float("nan")}, "the fact hours is nan"),
    ],
)
def test_a_part_without_a_figure_has_failed(tmp_path, rows, facts, reason):
    script = tmp_path / "part.py"
    result = json.dumps({"benchmark": "x", "machine": {}, "sizes": {}, "rows": rows, "facts": facts})
    script.write_text(f"print({result!r})", encoding="utf-8")
    entry = suite.run_part([str(script)], 20)
    assert (entry["status"], entry["error"]) == ("failed", reason)
    json.dumps(entry, allow_nan=False)
    # What counts is kept, and the table can show it.
    assert entry["rows"] == [row for row in rows if row == GOOD_ROW]
    text = table.of_device({"machine": hardware.describe(CPU, commit="abc"), "parts": {"x": entry}})
    assert f"- x: failed ({reason})" in text


def test_a_part_of_facts_only_needs_one(tmp_path):
    script = tmp_path / "part.py"
    for facts, status in (({}, "failed"), ({"n": None}, "failed"), ({"n": 0}, "ok")):
        result = json.dumps({"benchmark": "x", "machine": {}, "sizes": {}, "rows": [], "facts": facts})
        script.write_text(f"print({result!r})", encoding="utf-8")
        assert suite.run_part([str(script)], 20, facts_only=True)["status"] == status


@pytest.mark.parametrize("result", ['{"sizes": {}, "rows": [1], "facts": {}}', '{"sizes": {}, "rows": [], "facts": 3}'])
def test_a_result_of_another_shape_is_none(tmp_path, result):
    script = tmp_path / "part.py"
    script.write_text(f"print({result!r})", encoding="utf-8")
    assert suite.run_part([str(script)], 20)["error"].startswith("its last line is no result")


def test_a_missing_package_is_a_failure_of_that_part_with_the_reason(tmp_path, scripts):
    script = tmp_path / "needs.py"
    script.write_text("import a_package_that_is_not_here", encoding="utf-8")
    results = {"parts": {}}
    parts = [suite.Part("needs", 20, str(script)), suite.Part("good", 20, scripts["good"])]
    assert not suite.run_parts(parts, "cpu", 60, results, lambda: None)
    assert [entry["status"] for entry in results["parts"].values()] == ["failed", "ok"]
    assert suite.complaints(results) == [
        "needs: failed: ModuleNotFoundError: No module named 'a_package_that_is_not_here'"
    ]


def test_the_benchmarks_load_without_packages_that_only_some_need():
    # What only one of them needs, it loads where it needs it, so that the others run without. One process for all.
    optional = ("pytest", "playwright", "statmorph", "photutils", "matplotlib", "sklearn", "scipy", "flask", "waitress")
    modules = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    code = f"import sys\nsys.modules |= dict.fromkeys({optional!r})\n"
    code += "".join(f"import benchmarks.{module}\n" for module in modules if module != "__init__")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_script_alone_fails_where_it_measured_nothing(capsys):
    with pytest.raises(UserError, match="empty measured nothing that counts: there is no row of times"):
        timing.print_result("empty", {}, {}, [], {"n": 1})
    with pytest.raises(UserError, match=r"x measured nothing that counts: it has 0\.0 as its ms"):
        timing.print_result("x", {}, {}, [timing.row("it", [0.0, 0.0], 1, reference=[1.0]), GOOD_ROW])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == [GOOD_ROW]
    with pytest.raises(UserError, match="x measured nothing that counts: there is no fact"):
        timing.print_result("x", {}, {}, [], {}, facts_only=True)
    timing.print_result("x", {}, {}, [], {"n": 0}, facts_only=True)


def test_which_scripts_have_no_rows_is_said_in_both_places():
    for part in (part for parts in (*suite.PARTS.values(), suite.QUICK) for part in parts):
        text = (ROOT / "benchmarks" / part.command.split()[0]).read_text(encoding="utf-8")
        assert ("facts_only=True" in text) == part.facts_only, part.name


def test_the_suite_alone_says_what_went_wrong_and_fails(scripts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        suite, "QUICK", [suite.Part("bad", 20, scripts["bad"]), suite.Part("good", 20, scripts["good"])]
    )
    with pytest.raises(SystemExit) as ended:
        suite.main(["--quick", "--device", "cpu", "--out", str(tmp_path / "out")])
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == "bad: failed: it is broken"
    with pytest.raises(UserError, match="no part that a cpu device has is called nothing: nothing would be measured"):
        suite.main(["--quick", "--device", "cpu", "--only", "nothing"])
    with pytest.raises(UserError, match="is called launches: nothing would be measured"):
        suite.main(["--device", "cpu", "--only", "launches"])


def test_parts_without_time_are_left_out(scripts):
    results = {"parts": {}}
    assert not suite.run_parts([suite.Part("good", 20, scripts["good"])], "cpu", 1, results, lambda: None)
    assert results["parts"]["good"]["status"] == "left out"
    assert suite.complaints(results) == ["good: left out: the time for all parts was spent"]


def test_the_suite_writes_where_it_is_told(scripts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "QUICK", [suite.Part("good", 20, scripts["good"])])
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    suite.main(["--quick", "--device", "cpu", "--commit", "abc"])
    (path,) = (tmp_path / "out").iterdir()
    result = json.loads(path.read_text(encoding="utf-8"))
    assert (result["machine"]["commit"], result["quick"]) == ("abc", True)
    assert "- good: n 1" in capsys.readouterr().out


def test_every_part_is_a_script_with_options_that_it_has(monkeypatch):
    for part in {part.command: part for parts in (*suite.PARTS.values(), suite.QUICK) for part in parts}.values():
        script, *options = part.arguments("cpu")
        module = importlib.import_module("benchmarks." + script.removesuffix(".py"))
        monkeypatch.setattr(module.Parser, "parse_args", refuse_after(module.Parser.parse_args))
        with pytest.raises(Parsed):
            module.main(options)
        monkeypatch.undo()


class Parsed(Exception):  # noqa: N818 - not an error
    pass


def refuse_after(parse):
    def parse_and_stop(*arguments):
        parse(*arguments)
        raise Parsed

    return parse_and_stop


def test_a_gpu_takes_less_than_nine_minutes_and_what_is_wanted_most_fits():
    assert suite._SECONDS["cuda"] < 540 - 20  # Python's start, and the last part's end
    parts = {part.name: part.limit_s for part in suite.PARTS["cuda"]}
    wanted = list(parts)[: list(parts).index("rendering") + 1]
    assert sum(parts[name] for name in wanted) <= suite._SECONDS["cuda"]
    # All that FINDINGS of the first GPU wishes for, but the reading of JPEGs, which is the processor's.
    assert {"tests", "paper bf16", "default", "generation, default", "diffusion step", "generation, diffusion"} <= {
        *wanted
    }


# The table


def test_a_table():
    row = timing.row("a step", [0.001], 64, reference=[0.01])
    machine = hardware.describe(CPU, commit="0123456789abcdef")
    parts = {
        "one": {"status": "ok", "rows": [row], "facts": {"recipe_hours": 1.5, "captured": True, "steps": {"a": 1000}}},
        "two": {"status": "out of time"},
    }
    text = table.of_device({"machine": machine, "parts": parts})
    assert "| a step | 1 (1 to 1) | 6.4e+04 | 10 | 10 | – | – |" in text
    assert "- one: recipe hours 1.5; captured yes; steps a 1,000" in text
    assert "- two: out of time (no word)" in text
    assert "Commit 0123456789" in text


def test_a_text_without_marks(tmp_path):
    with pytest.raises(UserError, match="has lost the lines"):
        table.with_tables("nothing", tmp_path)


def test_the_table_is_up_to_date():
    text = table.README.read_text(encoding="utf-8")
    assert table.with_tables(text, table.RESULTS) == text
