"""The metrics of a run, `metrics.jsonl`: one JSON object a line."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from galaxies.common.durable_files import plain_errors, whole_file
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.reading import JsonError, parse_json, read_bytes
from galaxies.common.schema import Check, SchemaError, anything, either, entries, exactly, mapping, number, text, whole

_PHASE_ORDER = {"predictor": 0, "generator": 1}
_MOST_BYTES = 1 << 30  # a million steps are 100 MB
_CURE = "move it out of the run's folder"
_RECORD = entries({"kind": text(), "phase": text(*_PHASE_ORDER), "step": whole(0, 2**63)})
_NUMBER = either(exactly(None), number())  # None where it was not finite
# What is certain beyond that of records of these kinds.
_RECORDS = {
    "train": Check(
        "a record of numbers",
        lambda record: all(_NUMBER.fits(value) for name, value in record.items() if name not in ("kind", "phase")),
    ),
    "start": entries({"machine": mapping(anything()), "ranks": whole(1, 2**31)}),
}


class MetricsLog:
    """Append records to `metrics.jsonl`, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop_after(self, phase: str, step: int) -> None:
        """Drop the records after a point of the run: they belong to the part that is about to be repeated.

        Raises
        ------
        UserError
            If the file cannot be read or written; it is what it was.
        """
        if not self.path.exists():
            return
        until = (_PHASE_ORDER[phase], step)
        kept = [r for r in read_metrics(self.path) if (_PHASE_ORDER[r["phase"]], r["step"]) <= until]
        with plain_errors(self.path), whole_file(self.path) as file:
            file.writelines((json_text(record) + "\n").encode() for record in kept)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, the whole line or nothing of it, and hand it to the operating system at once.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        left = memoryview((json_text(record) + "\n").encode())
        with plain_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                try:
                    while left:  # a disk that is almost full takes a part, and says so only when asked for the rest
                        left = left[file.write(left) :]
                except OSError:
                    with suppress(OSError):
                        file.truncate(end)
                    raise


def phase_order(phase: str) -> int:
    """Return 0 for the predictor's phase and 1 for the generator's."""
    return _PHASE_ORDER[phase]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file.

    A last line that was cut short, by a process that was killed, is left out, and so is whatever else is no record;
    one line on standard error says how many. Of a record phase and step are certain, and of the usual kinds what
    `_RECORDS` says.

    Raises
    ------
    UserError
        If the file cannot be read, or none of its lines is a record.
    """
    lines = [line for line in read_bytes(path, _MOST_BYTES, _CURE).split(b"\n") if line.strip()]
    records = [record for line in lines if (record := _record(line)) is not None]
    if lines and not records:
        raise UserError(f"{path} holds no record of a run: {_CURE}")
    if left_out := len(lines) - len(records):
        print(f"{path}: left out {left_out} of {len(lines)} lines, which are no whole records", file=sys.stderr)
    return records


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = parse_json(line)
        _RECORD(record)
        _RECORDS.get(record["kind"], _RECORD)(record)
    except (JsonError, SchemaError):
        return None
    return record
