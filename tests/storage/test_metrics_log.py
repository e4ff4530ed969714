"""The metrics file: appended to, and dropped from where a run repeats itself."""

from __future__ import annotations

import json

from galaxies.storage.metrics_log import MetricsLog, read_metrics


def test_log_appends_and_reads_back(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    for step in (2, 4):
        log.write({"kind": "train", "phase": "predictor", "step": step})
    assert [r["step"] for r in read_metrics(log.path)] == [2, 4]


def test_log_drops_what_will_be_repeated(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [("predictor", 9), ("generator", 2), ("generator", 4)]
    path.write_text("".join(json.dumps({"phase": p, "step": s}) + "\n" for p, s in lines) + '{"phase": "gen')
    MetricsLog(path).drop_after("generator", 2)
    assert [(r["phase"], r["step"]) for r in read_metrics(path)] == lines[:2]
