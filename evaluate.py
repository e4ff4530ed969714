"""Check whether generated galaxies are what was asked for, look real, and are no copies.

    python evaluate.py report --checkpoint checkpoints/first/latest.pt --data data/gz2 --out reports/first
    python evaluate.py compare reports/first reports/second
    python evaluate.py measure picture.png galaxy.fits --out measured.csv
    python evaluate.py validate --data data/gz2
    python evaluate.py augmentation --checkpoint checkpoints/first/latest.pt --data data/gz2 --rare merger

`report` writes report.html, which needs nothing else to be read, report.json with every number, and the plots as PNG.
`compare` lays the main figures of several reports side by side. `measure` measures pictures of any origin. `validate`
checks that the distances which the report relies on grow when real galaxies are damaged. `augmentation` tries whether
generated galaxies help a classifier that knows few real ones of a rare class.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from galaxies.command_line import (
    Parser,
    add_device_option,
    add_solver_options,
    need_packages,
    run_script,
    solver_settings,
)
from galaxies.common.durable_files import write_output
from galaxies.common.errors import UserError
from galaxies.common.parsing import whole_number

_NEEDED = ("scipy", "matplotlib")
_FOR_STATMORPH = ("statmorph", "photutils")
_MOST_IMAGES = 100_000


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    options.run(options)


def _parser() -> Parser:
    parser = Parser(prog="evaluate.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    report = commands.add_parser("report", help="validate a checkpoint", description="Validate a checkpoint.")
    report.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="checkpoint of a training run")
    _add_data(report)
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the report")
    report.add_argument(
        "--count",
        type=whole_number(20, _MOST_IMAGES),
        default=2000,
        metavar="N",
        help="images to generate, half as in the test split and half uniform (default: 2000)",
    )
    report.add_argument(
        "--statmorph",
        type=whole_number(0, _MOST_IMAGES),
        default=0,
        metavar="N",
        help="generated and real images that statmorph measures too, about 5 a second (default: 0)",
    )
    report.add_argument(
        "--steps",
        type=whole_number(1, 1_000_000),
        default=150,
        metavar="N",
        help="batches of 64 that the real-or-fake network learns from (default: 150)",
    )
    add_solver_options(report)
    report.set_defaults(run=_report)

    compare = commands.add_parser("compare", help="lay reports side by side", description="Lay reports side by side.")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a report, or its report.json")
    compare.add_argument("--out", type=Path, metavar="CSV", help="also write the table to this file")
    compare.set_defaults(run=_compare)

    measure = commands.add_parser("measure", help="measure pictures", description="Measure pictures.")
    measure.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="PNG, JPEG or FITS, one galaxy each")
    measure.add_argument("--out", type=Path, required=True, metavar="CSV", help="table to write, one row a picture")
    measure.set_defaults(run=_measure)

    validate = commands.add_parser("validate", help="check the distances", description="Check the distances.")
    _add_data(validate)
    validate.add_argument("--out", type=Path, metavar="JSON", help="also write the result to this file")
    validate.set_defaults(run=_validate)

    rare = commands.add_parser("augmentation", help="try generated galaxies on a rare class")
    rare.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="checkpoint of a training run")
    _add_data(rare)
    rare.add_argument("--rare", default="merger", metavar="CLASS", help="the class that is rare (default: merger)")
    rare.add_argument(
        "--counts",
        type=_whole_numbers,
        default=(25, 50, 100),
        metavar="N,N",
        help="real rare galaxies to learn from (default: 25,50,100)",
    )
    rare.add_argument(
        "--repetitions", type=whole_number(1, 100), default=5, metavar="N", help="networks for each number (default: 5)"
    )
    rare.add_argument(
        "--steps",
        type=whole_number(1, 100_000),
        default=150,
        metavar="N",
        help="batches of 32 a network (default: 150)",
    )
    rare.add_argument("--out", type=Path, metavar="JSON", help="also write the result to this file")
    rare.set_defaults(run=_augmentation)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="prepared dataset to compare with")
    parser.add_argument(
        "--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="N", help="seed of every random draw (default: 0)"
    )
    add_device_option(parser)


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(whole_number(1, 1_000_000)(word) for word in text.split(","))


def _report(options: argparse.Namespace) -> None:
    need_packages(*_NEEDED, *(_FOR_STATMORPH if options.statmorph else ()))
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out} is a file: name a folder")
    from galaxies.compute.device import Engine
    from galaxies.validation.evaluation import evaluate
    from galaxies.validation.report.figures import headline
    from galaxies.validation.report.page import build_page
    from galaxies.validation.report.plots import draw_all

    with Engine.choose(options.device, "fp32").kernels():
        result = evaluate(
            options.checkpoint,
            options.data,
            options.count,
            options.seed,
            options.device,
            options.statmorph,
            options.steps,
            solver_settings(options),
        )
    plots = draw_all(result.report, result.pictures)
    for name, themes in plots.items():
        write_output(options.out / f"{name}.png", themes["light"])
    _write_json(options.out / "report.json", result.report)
    write_output(options.out / "report.html", build_page(result.report, plots).encode(errors="backslashreplace"))
    for value, text in headline(result.report):
        print(f"{value:>9}  {text}")
    print(f"wrote {options.out / 'report.html'}")


def _compare(options: argparse.Namespace) -> None:
    from galaxies.validation.report.figures import figures

    columns = {}
    for run in options.runs:
        path = run if run.suffix == ".json" else run / "report.json"
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            columns[str(run)] = figures(report)
        except OSError:
            raise UserError(f"{run} holds no report.json: make one with evaluate.py report") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is no report of this release: make it again with evaluate.py report") from None
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    width = max(map(len, names))
    heads = [run if len(run) <= 24 else f"…{run[-23:]}" for run in columns]
    print(" " * width + "".join(f"{head:>26}" for head in heads))
    for name in names:
        values = [column.get(name) for column in columns.values()]
        print(f"{name:<{width}}" + "".join(f"{'-' if v is None else f'{v:.4g}':>26}" for v in values))
    if options.out:
        rows = [[name, *(column.get(name) for column in columns.values())] for name in names]
        _write_csv(options.out, [["figure", *columns], *rows])


def _measure(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from galaxies.images.reading import read_picture
    from galaxies.measure.photometry import FLAG_BITS
    from galaxies.measure.statistics_table import STATISTICS, measure_images

    rows: list[list[Any]] = [["file", "side_px", *(s.name for s in STATISTICS), "flag", "remark"]]
    for path in tqdm(options.images, "measuring", unit="img", leave=False, disable=len(options.images) < 8):
        picture = read_picture(path)
        measured = measure_images(picture.image[None])
        values = [None if s.display and not picture.display else float(measured.values[s.name][0]) for s in STATISTICS]
        flag = int(measured.flags[0])
        remarks = [picture.note, *(text for bit, text in FLAG_BITS.items() if flag & bit)]
        cells = ["" if v is None or math.isnan(v) else f"{v:.6g}" for v in values]
        rows.append([str(path), picture.side_px, *cells, flag, "; ".join(filter(None, remarks))])
    _write_csv(options.out, rows)
    print(f"measured {len(options.images)} pictures into {options.out}")


def _validate(options: argparse.Namespace) -> None:
    need_packages("scipy")
    import torch

    from galaxies.compute.device import Engine
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.validation.evaluation import choose_spaces, load_judge, real_sample
    from galaxies.validation.feature_spaces import validate

    engine = Engine.choose(options.device, "fp32")
    data = PreparedDataset.open(options.data)
    with engine.kernels():
        judge, no_judge = load_judge(data, options.device)
    if judge is None:
        print(f"without the judge: {no_judge}", file=sys.stderr)
    rows = real_sample(data, "test", 2000, options.seed)
    if len(rows) == 0:
        raise UserError(f"{options.data} has no test galaxies: prepare more data")
    images = torch.from_numpy(data.images[rows])
    with engine.kernels():
        result = validate(choose_spaces(judge, images, engine), images, data.classes(rows), options.seed)
    if "left_out" in result:
        raise UserError(f"the check {result['left_out']}")
    for space, damages in result["spaces"].items():
        for damage, distances in damages.items():
            for distance, cell in distances.items():
                values = "  ".join(f"{value:10.4g}" for value in cell["values"])
                print(
                    f"{space:<11}{damage:<7}{distance:<8}{values}  {'grows' if cell['monotone'] else 'DOES NOT GROW'}"
                )
    if options.out:
        _write_json(options.out, result)
    print("all distances grow with every damage" if result["passed"] else "not all distances grow")


def _augmentation(options: argparse.Namespace) -> None:
    from config_physics import morphology_index
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.generation.sampler import GalaxySampler
    from galaxies.validation.evaluation import match
    from galaxies.validation.rare_class import try_augmentation, verdict

    rare = morphology_index(options.rare)
    sampler = GalaxySampler.from_checkpoint(options.checkpoint, options.device)
    data = PreparedDataset.open(options.data)
    match(sampler, data, options.checkpoint)
    with sampler.engine.kernels():
        result = try_augmentation(sampler, data, rare, options.counts, options.repetitions, options.steps, options.seed)
    print(
        f"{result['rare']}: {result['tested_rare']} of them and {result['tested_others']} others tested; "
        f"{result['added']} images added; the generator saw {result['seen_by_generator']} of them"
    )
    for count, arms in result["counts"].items():
        for name, rates in arms.items():
            cells = []
            for key in ("balanced_accuracy", "recall"):
                low, high = rates[key]["interval"]
                cells.append(f"{key.replace('_', ' ')} {rates[key]['value']:+.3f} [{low:+.3f}, {high:+.3f}]")
            print(f"N = {count:>4}  {name:<29} {'  '.join(cells)}")
        print(f"N = {count:>4}  generated over turned copies: {verdict(rates['balanced_accuracy'])}")
    if options.out:
        _write_json(options.out, result)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_output(path, text.encode(errors="backslashreplace"))  # of a file name that is no text in any encoding


def _write_csv(path: Path, rows: list[list[Any]]) -> None:
    import io

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_output(path, text.getvalue().encode(errors="backslashreplace"))


if __name__ == "__main__":
    run_script(main)
