"""A long run needs no more memory, file handles or log than a short one."""

from __future__ import annotations

import json
import sys

import pytest

from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.metrics_log import read_metrics
from tests import kill_jobs
from tests.conftest import write_dataset

_MEBIBYTES = 25  # that a run may grow by after its first hundred steps: the allocator's, not the program's


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("epochs", [pytest.param(91, marks=pytest.mark.slow)])
def test_memory_handles_and_logs_stay_flat(tmp_path, epochs, count):
    data, report = write_dataset(tmp_path / "d", 64), tmp_path / "report.json"
    assert kill_jobs.run_to_end(kill_jobs.train_long, data, tmp_path, epochs, report, timeout=1200) == 0
    seen = json.loads(report.read_text())
    assert sum(max(step for name, step, *_ in seen if name == phase) for phase in ("predictor", "generator")) > 2000
    for phase in ("predictor", "generator"):
        settled = [(memory, handles) for name, step, memory, handles in seen if name == phase and step > 110]
        growth = max(memory for memory, _ in settled) - settled[0][0]
        good = growth < _MEBIBYTES and len({handles for _, handles in settled}) == 1
        count(f"long phases of a run, with the memory flat (the {phase}'s grew by {growth:.1f} MiB)", good)
        assert good
    records = read_metrics(tmp_path / "c/long/metrics.jsonl")
    steps = max(record["step"] for record in records if record["phase"] == "generator")
    assert len(records) < 2 * (steps / 5 + epochs) + 100
    assert (tmp_path / "c/long/metrics.jsonl").stat().st_size < 800 * len(records)
    sizes = [(tmp_path / f"c/long/epoch_{epoch:04d}.pt").stat().st_size for epoch in (10, 90)]
    assert sizes[1] < sizes[0] + 1000 * 80  # each epoch's means
    assert load_checkpoint(tmp_path / "c/long/latest.pt")["epoch"] == epochs
