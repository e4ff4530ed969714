"""What each subcommand of evaluate.py does, given its options; the options themselves stand in the script.

Each loads what it needs where it needs it: `compare` has no use for torch, nor `measure` for scipy and matplotlib.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galaxies.common.durable_files import plain_errors
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import (
    FIELD_EVALUATION,
    REPORT,
    SETS,
    begins_with,
    check_file,
    check_folder,
    has_entries,
    output_file,
    output_folder,
    write_output,
)
from galaxies.common.signals import exits_when_terminated

if TYPE_CHECKING:
    from galaxies.measure.picture_files import UnmeasuredPicture
    from galaxies.validation.field_evaluation import FieldSettings
    from galaxies.validation.flux_files import FluxOptions
    from galaxies.validation.set_reading import FitsOptions

# What tells the JSON files of `validate` and of `augmentation`.
_CHECKS, _GAINS = has_entries("damages", "spaces", "passed"), has_entries("rare", "tested_rare", "counts")


def report(
    checkpoint: Path,
    data: Path,
    out: Path,
    count: int,
    seed: int,
    device: str,
    statmorph: int,
    steps: int,
    solver: dict[str, Any],
) -> None:
    """Validate a checkpoint, and write the report as a page, as numbers and as pictures into the folder `out`.

    The other parameters, and the mistakes that end it, are those of `evaluation.evaluate`.
    """
    inputs = (checkpoint, data)
    check_folder(out, REPORT, REPORT.files, inputs)
    from galaxies.compute.device import Engine
    from galaxies.validation.evaluation import evaluate
    from galaxies.validation.report.figures import headline
    from galaxies.validation.report.page import build_page
    from galaxies.validation.report.plots import draw_all
    from galaxies.validation.report.report_file import to_plain

    with Engine.choose(device, "fp32").kernels():
        found = evaluate(checkpoint, data, count, seed, device, statmorph, steps, solver)
    plots = draw_all(found.report, found.pictures)
    page = build_page(found.report, plots)
    with output_folder(out, REPORT, REPORT.files, inputs) as folder, plain_errors(out):
        for name, themes in plots.items():
            (folder / f"{name}.png").write_bytes(themes["light"])
        (folder / "report.json").write_bytes(_json(to_plain(found.report)))
        (folder / "report.html").write_bytes(page.encode(errors="backslashreplace"))
    for card in headline(found.report):
        print(f"{card.value:>9}  {card.text}")
    print(f"wrote {out / 'report.html'}")


def sets(
    reference: Path,
    paths: Sequence[Path],
    out: Path,
    count: int,
    seed: int,
    device: str,
    steps: int,
    crop: float,
    fits: FitsOptions,
) -> None:
    """Compare sets with a prepared dataset, and write the page, the numbers and the pictures into the folder `out`.

    The other parameters, and the mistakes that end it, are those of `set_comparison.compare_sets`.
    """
    inputs = (reference, *paths)
    check_folder(out, SETS, SETS.files, inputs)
    from galaxies.validation.report.sets_contents import to_plain
    from galaxies.validation.report.sets_page import build_sets_page
    from galaxies.validation.report.sets_plots import draw_sets
    from galaxies.validation.set_comparison import compare_sets

    found = compare_sets(reference, paths, count, seed, device, steps, crop, fits)
    plots = draw_sets(found.report, found.pictures)
    page = build_sets_page(found.report, found.pictures, plots)
    with output_folder(out, SETS, SETS.files, inputs) as folder, plain_errors(out):
        for name, themes in plots.items():
            (folder / f"{name}.png").write_bytes(themes["light"])
        (folder / "sets.json").write_bytes(_json(to_plain(found.report)))
        (folder / "sets.html").write_bytes(page.encode(errors="backslashreplace"))
    for name, sentence in found.report.sentences():
        print(f"{name} {sentence}")
    for each in found.report.sets:
        if each.unreadable.count:
            file, why = each.unreadable.examples[0]
            print(f"{each.name}: {each.unreadable.count} could not be used, such as {file}: {why}")
    print(f"wrote {out / 'sets.html'}")


def compare(runs: Sequence[Path], out: Path | None) -> None:
    """Print the main figures of several reports side by side, and write them to `out`, a CSV file, if there is one.

    Raises
    ------
    UserError
        If a run has no report.
    """
    from galaxies.validation.report.report_file import read_report

    columns = {str(run): read_report(run).figures() for run in runs}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    width = max(map(len, names))
    heads = [run if len(run) <= 24 else f"…{run[-23:]}" for run in columns]
    print(" " * width + "".join(f"{head:>26}" for head in heads))
    for name in names:
        values = [column.get(name) for column in columns.values()]
        print(f"{name:<{width}}" + "".join(f"{'-' if v is None else f'{v:.4g}':>26}" for v in values))
    if out:
        rows = [[name, *(column.get(name) for column in columns.values())] for name in names]
        old = begins_with("figure", then=names)
        write_output(out, _csv([["figure", *columns], *rows]), old, (*runs, *(run / "report.json" for run in runs)))


def measure(names: Sequence[Path], out: Path) -> int:
    """Measure pictures of any origin, and write a CSV file with a row for each.

    A file that is no picture of a galaxy gets a row, too: without values, with the reason as its remark.

    Parameters
    ----------
    names : sequence of Path
        Files, folders and patterns, as `find_pictures` takes them.
    out : Path
        CSV file to write.

    Returns
    -------
    int
        How many could not be measured.

    Raises
    ------
    UserError
        If none could be measured, or `out` is something else or cannot be written; then it is what it was.
    """
    from tqdm import tqdm

    from galaxies.measure.photometry import LIGHT_FLAG_BITS
    from galaxies.measure.picture_files import FILE_STATISTICS, UnmeasuredPicture, find_pictures, measure_files
    from galaxies.measure.statistics_table import STATISTICS

    named = find_pictures(names)
    paths, bad = named.paths, list(named.without)
    header = ["file", "side_px", *(s.name for s in FILE_STATISTICS), "flag", "remark"]
    # Tables of before there were columns of morphology are ours as well.
    before = ["file", "side_px", *(s.name for s in STATISTICS), "flag", "remark"]
    known = [begins_with(*names, alone=True) for names in (header, before)]
    with exits_when_terminated(), output_file(out, lambda path: any(fits(path) for fits in known), paths) as file:
        file.write(_csv([header]))
        nothing = [""] * (1 + len(FILE_STATISTICS) + 1)
        file.write(_csv([[str(each.path), *nothing, each.reason] for each in bad]))
        bar = tqdm(measure_files(paths), "measuring", len(paths), unit="img", leave=False, disable=len(paths) < 8)
        for picture in bar:
            if isinstance(picture, UnmeasuredPicture):
                bad.append(picture)
                file.write(_csv([[str(picture.path), *nothing, picture.reason]]))
                continue
            values = [
                None if s.display and not picture.display else picture.measured.values[s.name][0]
                for s in FILE_STATISTICS
            ]
            flag = int(picture.measured.flags[0])
            remarks = [picture.note, *(text for bit, text in LIGHT_FLAG_BITS.items() if flag & bit)]
            cells = ["" if v is None or math.isnan(v) else f"{v:.6g}" for v in values]
            row = [str(picture.path), picture.side_px, *cells, flag, "; ".join(filter(None, remarks))]
            file.write(_csv([row]))
        total = len(paths) + len(named.without)
        if len(bad) == total:
            others = f"none of {total} can be measured, and the first says why: " if total > 1 else ""
            raise UserError(f"{others}{bad[0].reason}")
    _say_measured(named.repeated, total, bad, out)
    return len(bad)


def measure_flux(names: Sequence[Path], out: Path, options: FluxOptions) -> int:
    """Measure FITS files in physical units, and write a CSV file with a row for each; see `measure`."""
    from galaxies.measure.photometry import LIGHT_FLAG_BITS
    from galaxies.measure.picture_files import UnmeasuredPicture, find_pictures
    from galaxies.validation.flux_files import bands_of, columns_of, measure_flux_files

    named = find_pictures(names)
    paths, bad = named.paths, list(named.without)
    if not paths:
        raise UserError(bad[0].reason)
    bands = bands_of(paths, options)
    columns = columns_of(bands, options.redshift is not None)
    inputs = [*paths, *(path for path in (options.mask, options.weight, options.psf) if path)]
    # The names of the bands are part of the columns' names, so that another table is told by its first.
    with exits_when_terminated(), output_file(out, begins_with("file", *columns[:2]), inputs) as file:
        file.write(_csv([["file", *columns, "flag", "remark"]]))
        nothing = [""] * (len(columns) + 1)
        file.write(_csv([[str(each.path), *nothing, each.reason] for each in bad]))
        for galaxy in measure_flux_files(paths, bands, options):
            if isinstance(galaxy, UnmeasuredPicture):
                bad.append(galaxy)
                file.write(_csv([[str(galaxy.path), *nothing, galaxy.reason]]))
                continue
            remarks = [*galaxy.remarks, *(text for bit, text in LIGHT_FLAG_BITS.items() if galaxy.flag & bit)]
            cells = ["" if math.isnan(galaxy.values[name]) else f"{galaxy.values[name]:.6g}" for name in columns]
            file.write(_csv([[str(galaxy.path), *cells, galaxy.flag, "; ".join(remarks)]]))
        total = len(paths) + len(named.without)
        if len(bad) == total:
            others = f"none of {total} can be measured, and the first says why: " if total > 1 else ""
            raise UserError(f"{others}{bad[0].reason}")
    _say_measured(named.repeated, total, bad, out)
    return len(bad)


def _say_measured(repeated: int, total: int, bad: Sequence[UnmeasuredPicture], out: Path) -> None:
    if repeated:
        print(f"left out {repeated} names of files that had been named before")
    if bad:
        more = f" (and {len(bad) - 1} more, see their remarks)" if len(bad) > 1 else ""
        print(f"measured {total - len(bad)} of {total} pictures into {out}; not measured: {bad[0].reason}{more}")
    else:
        print(f"measured {total} pictures into {out}")


def validate(data_path: Path, seed: int, device: str, out: Path | None) -> None:
    """Print whether every distance of the report grows with every damage to real galaxies; `out` is a JSON file.

    Raises
    ------
    UserError
        If the dataset has too few test galaxies.
    """
    if out:
        check_file(out, _CHECKS)  # before the work
    import torch

    from galaxies.compute.device import Engine
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.validation import feature_spaces
    from galaxies.validation.report.cells import LeftOut, cell_of
    from galaxies.validation.report.contents import DistanceChecks
    from galaxies.validation.subject import choose_spaces, load_judge, real_sample
    from galaxies.validation.viewing import Viewer

    engine = Engine.choose(device, "fp32")
    data = PreparedDataset.open(data_path)
    with engine.kernels():
        judge = load_judge(data, device)
    if isinstance(judge, LeftOut):
        print(f"without the judge: {judge.reason}", file=sys.stderr)
    rows = real_sample(data, "test", 2000, seed)
    if len(rows) == 0:
        raise UserError(f"{data_path} has no test galaxies: prepare more data")
    images, viewer = torch.from_numpy(data.images[rows]), Viewer.of_dataset(data)
    with engine.kernels():
        spaces = choose_spaces(judge, images, engine, viewer)
        result = feature_spaces.validate(spaces, images, data.classes(rows), seed, viewer)
    checks = cell_of(DistanceChecks, result)
    if isinstance(checks, LeftOut):
        raise UserError(f"the check {checks.reason}")
    for space, damages in checks.spaces.items():
        for damage, distances in damages.items():
            for distance, cell in distances.items():
                values = "  ".join(f"{value:10.4g}" for value in cell.values)
                print(f"{space:<11}{damage:<7}{distance:<8}{values}  {'grows' if cell.monotone else 'DOES NOT GROW'}")
    if out:
        write_output(out, _json(result), _CHECKS)
    print("all distances grow with every damage" if checks.passed else "not all distances grow")


def augmentation(
    checkpoint: Path,
    data_path: Path,
    rare: str,
    counts: tuple[int, ...],
    repetitions: int,
    steps: int,
    seed: int,
    device: str,
    out: Path | None,
) -> None:
    """Print whether generated galaxies help a classifier that knows few real ones of a class; `out` is a JSON file.

    The other parameters, and the mistakes that end it, are those of `rare_class.try_augmentation`.
    """
    if out:
        check_file(out, _GAINS, (checkpoint,))  # before the work
    from config_physics import morphology_index
    from galaxies.datasets.prepared import PreparedDataset
    from galaxies.generation.sampler import GalaxySampler
    from galaxies.validation.rare_class import try_augmentation, verdict
    from galaxies.validation.subject import match

    data = PreparedDataset.open(data_path)
    index = morphology_index(rare, data.layout.classes)
    sampler = GalaxySampler.from_checkpoint(checkpoint, device)
    match(sampler, data, checkpoint)
    with sampler.engine.kernels():
        result = try_augmentation(sampler, data, index, counts, repetitions, steps, seed)
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
    if out:
        write_output(out, _json(result), _GAINS, (checkpoint,))


def average(
    checkpoint: Path,
    data: Path,
    lengths: Sequence[float],
    count: int,
    seed: int,
    device: str,
    solver: dict[str, Any],
    out: Path | None,
) -> None:
    """Print how galaxies by averages of several lengths compare with real ones; `out` is a checkpoint of the best.

    The other parameters, and the mistakes that end it, are those of `average_length.choose_length`.
    """
    from galaxies.storage.checkpoint import save_checkpoint
    from galaxies.validation.average_length import choose_length, is_averaged

    if out:
        check_file(out, is_averaged, (checkpoint,))  # before the work
    tried, state = choose_length(checkpoint, data, lengths, count, seed, device, solver)
    names = list(tried[0].multiples)
    print(f"{'length':<12}" + "".join(f"{name:>22}" for name in names) + f"{'geometric mean':>22}")
    for one in tried:
        values = [*one.multiples.values(), one.score]
        label = "as trained" if one.length is None else f"{one.length:g}"
        print(f"{label:<12}" + "".join(f"{value:>22.3f}" for value in values))
    length = state["provenance"]["average_length"]
    what = f"the average of length {length:g}" if length else "the weights as trained"
    print(f"best by the geometric mean of the distances over those of real from real: {what}")
    if out:
        check_file(out, is_averaged, (checkpoint,))
        save_checkpoint(out, state)
        print(f"wrote {out}")


def field(path: Path, exposures: Sequence[float], out: Path | None, settings: FieldSettings) -> None:
    """Evaluate a mock field, print what was found in one line, and write all of it into the folder `out`, if any.

    Raises
    ------
    UserError
        If it is no field, has no galaxies, or its files are damaged.
    """
    names = [name for name in FIELD_EVALUATION.files if exposures or name != "depth.png"]
    if out:
        check_folder(out, FIELD_EVALUATION, names, (path,))  # before the work
    from galaxies.mock_field.field_folder import MockField
    from galaxies.validation.field_evaluation import evaluate_field
    from galaxies.validation.field_page import COLUMNS, page, rows_of, summary

    result = evaluate_field(MockField(path), exposures, settings)
    if out:
        from galaxies.validation.field_plots import draw_evaluation

        plots = draw_evaluation(result)
        with output_folder(out, FIELD_EVALUATION, names, (path,)) as folder, plain_errors(out):
            for name, content in plots.items():
                (folder / name).write_bytes(content)
            (folder / "evaluation.json").write_bytes(_json(result))
            (folder / "evaluation.csv").write_bytes(_csv([list(COLUMNS), *rows_of(result)]))
            (folder / "evaluation.md").write_bytes(page(result).encode(errors="backslashreplace"))
    print(summary(result))
    if out:
        print(f"wrote {out / 'evaluation.md'}")


def _json(values: dict[str, Any]) -> bytes:
    text = json_text(values, indent=1, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # of a file name that is no text in any encoding


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")
