"""The metrics of a run, `metrics.jsonl`: one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from galaxies.common.durable_files import whole_file
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text

_PHASE_ORDER = {"predictor": 0, "generator": 1}


class MetricsLog:
    """Append records to `metrics.jsonl`, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def drop_after(self, phase: str, step: int) -> None:
        """Drop the records after a point of the run: they belong to the part that is about to be repeated.

        Raises
        ------
        UserError
            If the file cannot be written; it is what it was.
        """
        if not self.path.exists():
            return
        until = (_PHASE_ORDER[phase], step)
        kept = [r for r in read_metrics(self.path) if (_PHASE_ORDER[r["phase"]], r["step"]) <= until]
        try:
            with whole_file(self.path) as file:
                file.writelines((json_text(record) + "\n").encode() for record in kept)
        except OSError as error:
            raise UserError(f"{self.path} could not be written: {error.strerror or error}") from None

    def write(self, record: dict[str, Any]) -> None:
        """Append one record and hand it to the operating system at once.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        line = json_text(record) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise UserError(f"{self.path} could not be written: {error.strerror or error}") from None


def phase_order(phase: str) -> int:
    """Return 0 for the predictor's phase and 1 for the generator's."""
    return _PHASE_ORDER[phase]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; a last line cut short by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records
