"""The metrics file: appended to, and dropped from where a run repeats itself."""

from __future__ import annotations

import json
import os

import pytest

from galaxies.common.errors import UserError
from galaxies.storage.metrics_log import MetricsLog, read_metrics


def test_log_appends_and_reads_back(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    for step in (2, 4):
        log.write({"kind": "train", "phase": "predictor", "step": step})
    assert [r["step"] for r in read_metrics(log.path)] == [2, 4]


def test_log_drops_what_will_be_repeated(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [("predictor", 9), ("generator", 2), ("generator", 4)]
    path.write_text(
        "".join(json.dumps({"kind": "train", "phase": p, "step": s}) + "\n" for p, s in lines) + '{"phase": "gen'
    )
    MetricsLog(path).drop_after("generator", 2)
    assert [(r["phase"], r["step"]) for r in read_metrics(path)] == lines[:2]


GOOD = {"kind": "train", "phase": "generator", "step": 4, "images_per_s": 100.0}
BAD_LINES = {
    "cut short": b'{"kind": "train", "phase": "gen',
    "no UTF-8": b'{"kind": "train", "phase": "generator", "step": 4, "x": "\xff"}',
    "not an object": b"[1, 2]",
    "null": b"null",
    "deep": b"[" * 50_000,
    "NaN": b'{"kind": "train", "phase": "generator", "step": 4, "loss": NaN}',
    "a huge number": b'{"kind": "train", "phase": "generator", "step": ' + b"9" * 5000 + b"}",
    "another phase": json.dumps(GOOD | {"phase": "judge"}).encode(),
    "a phase that is a list": json.dumps(GOOD | {"phase": ["generator"]}).encode(),
    "no phase": b'{"kind": "train", "step": 4}',
    "a kind that is a list": json.dumps(GOOD | {"kind": ["train"]}).encode(),
    "a step that is text": json.dumps(GOOD | {"step": "4"}).encode(),
    "a negative step": json.dumps(GOOD | {"step": -4}).encode(),
    "a loss that is text": json.dumps(GOOD | {"physics": "small"}).encode(),
    "a loss that is a list": json.dumps(GOOD | {"physics": [1]}).encode(),
    "a start without ranks": json.dumps(GOOD | {"kind": "start", "machine": {}}).encode(),
    "a start on no machine": json.dumps(GOOD | {"kind": "start", "machine": "fast", "ranks": 1}).encode(),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_line_that_is_no_record_is_left_out_and_counted(tmp_path, capsys, name):
    path = tmp_path / "metrics.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(good + b"\n" + BAD_LINES[name] + b"\n" + good + b"\r\n\n" + good)
    assert read_metrics(path) == [GOOD] * 3
    assert capsys.readouterr().err == f"{path}: left out 1 of 4 lines, which are no whole records\n"
    path.write_bytes(BAD_LINES[name])
    with pytest.raises(UserError, match="holds no record of a run"):
        read_metrics(path)
    with pytest.raises(UserError, match="holds no record of a run"):
        MetricsLog(path).drop_after("generator", 2)
    assert path.read_bytes() == BAD_LINES[name]


def test_an_empty_log_has_no_records(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\n")
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")
def test_a_log_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is a device"):
        MetricsLog(tmp_path / "metrics.jsonl").drop_after("generator", 2)
