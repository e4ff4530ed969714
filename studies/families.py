r"""Lay GAN and diffusion model side by side: the same data, the same report, and what each cost to train and to draw.

    python studies/families.py --gan checkpoints/gan/latest.pt --diffusion checkpoints/diffusion/latest.pt \
        --data data/gz2 --out reports/families --page docs/diffusion.md

Makes the validation report of each checkpoint (evaluate.py report; a report that is there already is kept, unless the
checkpoint is newer) and writes table.md and table.json. With --page the table is also put between the two marks of a
Markdown file. The time of the training is summed up from the run's metrics.jsonl; of a release,
its own file says it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import ATTRIBUTES
from galaxies.command_line import Parser, run_script
from galaxies.common import hardware
from galaxies.common.durable_files import write_whole
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import check_folder
from galaxies.common.parsing import whole_number
from galaxies.common.reading import read_json
from galaxies.storage.checkpoint import load_checkpoint
from galaxies.storage.release import SETTINGS
from galaxies.validation.report.cells import ALL, LeftOut
from galaxies.validation.report.contents import Report
from galaxies.validation.report.control import GamingGap
from galaxies.validation.report.model_card import training_facts
from galaxies.validation.report.report_file import read_report
from studies.runs import STUDY

_FAMILIES = {"gan": "GAN", "diffusion": "diffusion"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    parser = Parser(prog="families.py", description=__doc__)
    for name, words in _FAMILIES.items():
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE", help=f"checkpoint of the {words}")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset of both")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the reports and the table")
    parser.add_argument(
        "--count", type=whole_number(20, 1_000_000), default=1000, metavar="N", help="images each (default: 1000)"
    )
    parser.add_argument("--page", type=Path, metavar="MD", help="Markdown file that gets the table")
    options = parser.parse_args(argv)
    if options.page and not options.page.is_file():
        raise UserError(f"there is no page {options.page}")
    text = options.page.read_text(encoding="utf-8") if options.page else ""
    check_folder(options.out, STUDY, ("table.md", "table.json"), (options.gan, options.diffusion, options.data))
    columns: dict[str, dict[str, float | None]] = {}
    for name, words in _FAMILIES.items():
        checkpoint = getattr(options, name)
        content = report_of(checkpoint, options.data, options.out / name, options.count)
        columns[words] = {**rows_of(content), **training_of(checkpoint)}
    table = table_of(columns)
    write_whole(options.out / "table.md", table.encode())
    write_whole(options.out / "table.json", (json_text(columns, indent=1) + "\n").encode())
    if options.page:
        write_whole(options.page, with_table(text, table, options.page, "families").encode())
    print(table)


def report_of(checkpoint: Path, data: Path, out: Path, count: int) -> Report:
    """Return the report of a checkpoint, made by evaluate.py unless one newer than the checkpoint is there."""
    path = out / "report.json"
    if not checkpoint.is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    if not path.exists() or path.stat().st_mtime < checkpoint.stat().st_mtime:
        command = [sys.executable, str(hardware.ROOT / "evaluate.py"), "report", "--checkpoint", str(checkpoint)]
        done = subprocess.run([*command, "--data", str(data), "--out", str(out), "--count", str(count)], check=False)
        if done.returncode:
            raise UserError(f"evaluate.py report ended with status {done.returncode} on {checkpoint}")
    return read_report(out)


def training_of(checkpoint: Path) -> dict[str, float]:
    """Return minutes and steps of the second phase, from the metrics beside a checkpoint, or as a release says."""
    if checkpoint.suffix == ".safetensors":
        facts = read_json(checkpoint.with_name(SETTINGS))["facts"]
    else:
        facts = training_facts(checkpoint, load_checkpoint(checkpoint))
    return {
        "training, phase 2 [min]": facts["minutes"]["generator"],
        "steps of phase 2": facts["steps"],
        "images a step": facts["images_per_step"],
    }


def rows_of(report: Report) -> dict[str, float | None]:
    """Return the figures of a report that tell the families apart, {name: value}."""
    rows: dict[str, float | None] = {}
    control, realism = report.control, report.realism
    for attribute in report.checkpoint.attributes:
        label, unit = ATTRIBUTES[attribute].label, ATTRIBUTES[attribute].unit
        for instrument, groups in control.attributes.test[attribute].items():
            cell = groups[ALL]
            read = None if isinstance(cell, LeftOut) else cell
            rows[f"{label}, {instrument}: mean absolute error{f' [{unit}]' if unit else ''}"] = (
                read.mae.value if read else None
            )
            rows[f"{label}, {instrument}: Spearman"] = read.spearman.value if read else None
        gap = control.gaming.test.get(attribute)
        known = gap if isinstance(gap, GamingGap) else None
        rows[f"{label}: gaming gap"] = known.ratio if known else None
        rows[f"{label}: the same on real galaxies"] = known.real_ratio if known else None
    drawn, real = (None if isinstance(c, LeftOut) else c.balanced for c in (control.classes.test, control.classes.real))
    of_real = "" if real is None else f" (on real galaxies {real.value:.0%})"
    rows[f"class as asked for, judge, balanced{of_real}"] = drawn.value if drawn else None
    mean = realism.statistics.mean[ALL]
    means = None if isinstance(mean, LeftOut) else mean
    rows["Wasserstein-1 of measured statistics [standard deviations]"] = means.value if means else None
    rows["the same, times real from real"] = means.multiple if means else None
    for name, space in realism.features.items():
        distance, near = (space, space) if isinstance(space, LeftOut) else (space.frechet, space.neighbourhoods)
        multiple = None if isinstance(distance, LeftOut) else distance.multiple
        rows[f"Fréchet distance, {name}, times real from real"] = multiple
        rows[f"precision, {name}"] = None if isinstance(near, LeftOut) else near.precision.value
        rows[f"recall, {name}"] = None if isinstance(near, LeftOut) else near.recall.value
    fresh, copies = realism.real_or_fake, report.honesty.copies
    rows["a fresh network tells it from real"] = None if isinstance(fresh, LeftOut) else fresh.groups[ALL].accuracy
    rows["suspected copies (1 % is expected)"] = None if isinstance(copies, LeftOut) else copies.copies.value
    rows["drawing [ms an image]"] = report.milliseconds_per_image()
    return rows


def table_of(columns: dict[str, dict[str, float | None]]) -> str:
    """Return a Markdown table with a column for each family."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in names:
        cells = ["–" if column.get(name) is None else f"{column[name]:.4g}" for column in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_table(text: str, table: str, path: Path, name: str) -> str:
    """Return a text with the table between its two marks."""
    marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (begin and end):
        raise UserError(f"{path} lacks the lines {' and '.join(marks)}, between which the table goes")
    return f"{before}{begin}\n\n{table}\n{end}{after}"


if __name__ == "__main__":
    run_script(main)
