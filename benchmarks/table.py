"""Bring the table in benchmarks/README.md up to date with the files in benchmarks/results/.

    python benchmarks/table.py

suite.py does so by itself when it has written a file there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE / "README.md", HERE / "results"

_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"
_HEAD = (
    "| what | ms | images/s | plain reference, ms | times faster | least, ms | of the limit |\n"
    "|---|---:|---:|---:|---:|---:|---:|\n"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    Parser(prog="table.py", description=__doc__).parse_args(argv)
    update_readme()
    print(f"wrote {README}")


def update_readme() -> None:
    """Write the tables of all results between the two marks in the README."""
    text = README.read_text(encoding="utf-8")
    README.write_text(with_tables(text, RESULTS), encoding="utf-8")


def with_tables(text: str, folder: Path) -> str:
    """Return a text with the tables of a folder's results between its two marks.

    Raises
    ------
    UserError
        If the marks are not there.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise UserError(f"{README} has lost the lines {_BEGIN} and {_END}, between which the tables stand")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    tables = "\n".join(of_device(result) for result in results if not result["quick"])
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


def of_device(results: dict[str, Any]) -> str:
    """Return the results of one device as a heading, a table and a list of facts, in Markdown."""
    machine, parts = results["machine"], results["parts"]
    commit = (machine["commit"] or "unknown")[:10]
    changed = "" if machine["clean"] is not False else ", with changes"
    cuda = f", CUDA {machine['cuda']}" if machine["cuda"] else ""
    lines = [
        f"### {machine['device']}\n",
        f"Commit {commit}{changed}; torch {machine['torch']}{cuda}, Python {machine['python']}, {machine['system']}, "
        f"{_count(machine['cores'], 'core')}, {_count(machine['threads'], 'thread')} of torch, "
        f"{machine['memory_gb']} GB.\n",
    ]
    rows = [_row(row) for part in parts.values() for row in part.get("rows", [])]
    if rows:
        lines.append(_HEAD + "\n".join(rows) + "\n")
    facts = []
    for name, part in parts.items():
        said = [] if part["status"] == "ok" else [f"{part['status']} ({_cut(reason_of(part))})"]
        said += [f"{key.replace('_', ' ')} {_said(value)}" for key, value in part.get("facts", {}).items()]
        if said:
            facts.append(f"- {name}: {'; '.join(said)}")
    return "\n".join([*lines, "\n".join(facts) + "\n"])


def reason_of(part: dict[str, Any]) -> str:
    """Return the last line of what a part says about why it did not go well."""
    return next((line.strip() for line in reversed(part.get("error", "").splitlines()) if line.strip()), "no word")


def _cut(text: str, most: int = 100) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _row(row: dict[str, Any]) -> str:
    part = f"{100 * row['part_of_limit']:.3g} %" if "part_of_limit" in row else "–"
    limit = f"{row['least_ms']:.4g} ({row['limited_by']})" if "least_ms" in row else "–"
    low, high = row["quartiles_ms"]
    cells = [row["what"], f"{row['ms']:.4g} ({low:.4g} to {high:.4g})", f"{row['images_per_s']:.4g}"]
    cells += [f"{row[name]:.4g}" if name in row else "–" for name in ("reference_ms", "ratio")]
    return "| " + " | ".join([*cells, limit, part]) + " |"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    run_script(main)
