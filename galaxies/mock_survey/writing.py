"""Write the mock survey: as a prepared dataset, or as files in the formats of Galaxy Zoo 2."""

from __future__ import annotations

import csv
import io
import math
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from galaxies.common.durable_files import plain_errors
from galaxies.common.errors import UserError
from galaxies.common.origin import MOCK_SOURCE
from galaxies.common.outputs import GALAXY_ZOO, output_folder
from galaxies.common.signals import exits_when_terminated
from galaxies.datasets.layout import DISPLAY
from galaxies.datasets.sources import galaxy_zoo
from galaxies.datasets.writing import DatasetWriter
from galaxies.measure.statistics_table import measure_attributes
from galaxies.mock_survey.observation import Galaxies, MockSurvey
from galaxies.mock_survey.sorting import MockClasses
from galaxies.mock_survey.star_formation import SPECTRAL_ATTRIBUTES
from galaxies.mock_survey.votes import QUESTIONS, TOTAL_VOTES_RANGE, vote_fractions
from galaxies.tables.class_rules import ClassRules

TRUTH_COLUMNS = ("true_half_light_radius", "true_axis_ratio", "true_flux")
IMAGES_FILE, TRUTH_FILE = "images_gz2.zip", "truth.csv"
_RELEASE_FILES = (
    IMAGES_FILE,
    galaxy_zoo.VOTES_FILE,
    galaxy_zoo.MAPPING_FILE,
    galaxy_zoo.SAMPLE_FILE,
    TRUTH_FILE,
)
CROP = 0.5  # of a frame, as `prepare_data.py gz2` takes it by default
_ANSWERS = tuple(f"{question}_{answer}" for question, (_, answers) in QUESTIONS.items() for answer in answers)
_VOTES_TAKEN = tuple(  # what the class rules look at
    getattr(galaxy_zoo, name)
    for name in ("SMOOTH", "FEATURES", "EDGE_ON", "ODD", "ROUND", "IN_BETWEEN", "CIGAR", "MERGER")
)
VOTE_COLUMNS = ("total_votes", *(f"{answer}_debiased" for answer in _VOTES_TAKEN))
# Of galaxies that are rendered at once, at 64 pixels. A GPU is given thousands of operations for each batch, however
# many galaxies it holds; a block takes 64 MB of its memory, of which a quarter is used.
_MOST_BLOCKS, _BYTES_OF_FREE_MEMORY = 64, 2**28


def rendering_device(wanted: str = "auto") -> str:
    """Return cpu or cuda; `auto` takes CUDA where it is. (MPS lacks some of the special functions.)

    Raises
    ------
    UserError
        If CUDA is wanted and not there.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' cannot be used here: try --device cpu")
    return wanted


def blocks_at_once(device: torch.device, image_size: int) -> int:
    """Return how many blocks of galaxies a device should render at a time; the galaxies do not depend on it."""
    if device.type == "cpu":
        blocks = 1  # whose planes stay in the cache
    else:
        free, _ = torch.cuda.mem_get_info(device)
        blocks = min(_MOST_BLOCKS, free // _BYTES_OF_FREE_MEMORY)
    return max(1, round(blocks * (64 / image_size) ** 2))


def write_dataset(
    out: Path,
    count: int,
    seed: int,
    image_size: int,
    device: str,
    command_line: str,
    overwrite: bool = False,
    rules: ClassRules | None = None,
    allow_empty_class: bool = False,
) -> DatasetWriter:
    """Simulate galaxies and write them as a prepared dataset, in as much memory for many as for few.

    Parameters
    ----------
    out : Path
        Folder to make.
    count : int
        Number of galaxies; the classes take turns.
    seed : int
        Of the survey. A larger survey of the same seed begins with the galaxies of a smaller one.
    image_size : int
        64, 128 or 256 pixels a side.
    device : str
        Where to render: cpu or cuda.
    command_line : str
        For the manifest.
    overwrite : bool
        Replace an existing prepared dataset.
    rules : ClassRules, optional
        Classes to sort the galaxies into, see `MockClasses`; by default those that the survey draws.
    allow_empty_class : bool
        Accept that one of them has no galaxy.

    Returns
    -------
    DatasetWriter
        With the manifest of what was written. Beside the usual columns the catalogue has `TRUTH_COLUMNS` and
        `VOTE_COLUMNS`.

    Raises
    ------
    UserError
        If `out` exists and may not be replaced, or cannot be written.
    """
    classes = MockClasses(rules, count, allow_empty_class)
    provenance = {"source": f"{MOCK_SOURCE} of seed {seed}", "rule": classes.rule, "command_line": command_line}
    extra = (*TRUTH_COLUMNS, *VOTE_COLUMNS, *classes.share_columns)
    layout = replace(classes.layout(DISPLAY), own=SPECTRAL_ATTRIBUTES)
    # Fewer galaxies than classes cannot hold every class.
    writer = DatasetWriter(out, image_size, CROP, provenance, overwrite, classes.may_be_empty, extra, layout=layout)
    survey = MockSurvey(seed, image_size, device=device)
    with writer:
        for batch in _with_progress(survey, count):
            known = _known(batch)
            values = {name: known[name] for name in (*layout.columns, *extra) if name in known}
            values |= measure_attributes(batch.images, device)
            chosen = classes.sort(batch.morphologies, known)
            writer.append(
                batch.images[chosen.rows],
                [batch.object_ids[row] for row in chosen.rows.tolist()],
                chosen.names,
                {name: column[chosen.rows] for name, column in values.items()} | chosen.shares,
            )
        writer.unused = classes.finish()
    return writer


def _with_progress(survey: MockSurvey, count: int) -> Iterator[Galaxies]:
    """Yield batches while a bar counts their galaxies."""
    with tqdm(total=count, desc="simulating", unit=" galaxies", leave=False) as bar:
        for batch in survey.batches(count, blocks_at_once(survey.device, survey.image_size)):
            yield batch
            bar.update(len(batch.images))


def _known(batch: Galaxies) -> dict[str, np.ndarray]:
    """Return what is known without looking at the pictures: the truth, and what votes tell."""
    fractions = vote_fractions(batch.votes)
    votes = pd.DataFrame({answer: fractions[answer] for answer in _VOTES_TAKEN})
    votes["total_votes"] = np.sum([batch.votes[answer] for answer in _ANSWERS], axis=0).clip(*TOTAL_VOTES_RANGE)
    votes["object_id"] = batch.object_ids
    proxies = galaxy_zoo.vote_attributes(votes, TOTAL_VOTES_RANGE)
    known = batch.truth | {str(name): proxies[name].to_numpy() for name in proxies}
    for answer in _ANSWERS:
        known |= {answer: fractions[answer], f"{answer}_debiased": fractions[answer]}
    known["total_votes"] = votes["total_votes"].to_numpy(np.float64)
    return known


def write_release(folder: Path, count: int, seed: int, device: str, overwrite: bool = False) -> None:
    """Write galaxies in the formats of the files of Galaxy Zoo 2, with a table of the truth beside them.

    The folder gets gz2_hart16.csv, gz2_filename_mapping.csv, gz2sample.csv and images_gz2.zip, and truth.csv. It
    appears when all of it is complete. A hidden one left by a killed process is removed when the same folder is
    written next.

    Parameters
    ----------
    folder : Path
        Folder to make.
    count, seed, device
        As for `write_dataset`; the galaxies are the same.
    overwrite : bool
        Replace what an earlier call made; what else is in the folder stays.

    Raises
    ------
    UserError
        If `folder` exists and may not be replaced, or cannot be written.
    """
    folder = Path(folder).resolve()
    where = output_folder(folder, GALAXY_ZOO, _RELEASE_FILES, option="--as-gz2", overwrite=overwrite)
    with exits_when_terminated(), where as partial, plain_errors(folder):
        survey = MockSurvey(seed, galaxy_zoo.FRAME_PX, whole_frame=True, device=device)
        _write_files(partial, survey, count)


def _write_files(folder: Path, survey: MockSurvey, count: int) -> None:
    with (
        zipfile.ZipFile(folder / IMAGES_FILE, "w", zipfile.ZIP_STORED) as archive,
        _Table(folder / galaxy_zoo.VOTES_FILE) as votes,
        _Table(folder / galaxy_zoo.MAPPING_FILE) as mapping,
        _Table(folder / galaxy_zoo.SAMPLE_FILE) as sample,
        _Table(folder / TRUTH_FILE) as truth,
    ):
        number = 0
        for batch in _with_progress(survey, count):
            for row, picture in enumerate(batch.images):
                number += 1
                archive.writestr(_entry(number), _jpeg(picture))
                known = {name: float(values[row]) for name, values in batch.truth.items()}
                told = {name: "" if math.isnan(value) else value for name, value in known.items()}
                object_id = batch.object_ids[row]
                votes.write(_vote_row(batch, row))
                mapping.write({"objid": object_id, "sample": "original", "asset_id": number})
                sample.write(_sample_row(object_id, known))
                truth.write({"object_id": object_id, "morphology": batch.morphologies[row], **told})


class _Table:
    """A CSV file that takes its header from the first row."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._writer: csv.DictWriter | None = None

    def write(self, row: dict[str, object]) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._stream, list(row), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()})

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


def _entry(number: int) -> zipfile.ZipInfo:
    """Name a picture; without the time, so that equal surveys make equal files."""
    return zipfile.ZipInfo(f"images/{number}.jpg")


def _jpeg(picture: np.ndarray) -> bytes:
    """Compress a picture (3, S, S) as the release's are: quality 75, colours at half resolution."""
    stream = io.BytesIO()
    Image.fromarray(picture.transpose(1, 2, 0)).save(stream, "JPEG", quality=75, subsampling="4:2:0")
    return stream.getvalue()


def _vote_row(batch: Galaxies, row: int) -> dict[str, object]:
    """Return a row of gz2_hart16.csv; weights are counts and nothing is biased, since all mock voters are equal."""
    votes = {name: values[row] for name, values in batch.votes.items()}
    fractions = {
        name: float(values[0]) for name, values in vote_fractions({k: v[None] for k, v in votes.items()}).items()
    }
    result: dict[str, object] = {
        "dr7objid": batch.object_ids[row],
        **dict.fromkeys(("ra", "dec", "rastring", "decstring"), ""),
        "sample": "original",
        "gz2_class": "",
        "total_classifications": votes["total_classifications"],
        "total_votes": sum(votes[answer] for answer in _ANSWERS),
    }
    for answer in _ANSWERS:
        fraction = fractions[answer]
        result |= {
            f"{answer}_count": votes[answer],
            f"{answer}_weight": votes[answer],
            f"{answer}_fraction": fraction,
            f"{answer}_weighted_fraction": fraction,
            f"{answer}_debiased": fraction,
            f"{answer}_flag": int(fraction > 0.8),
        }
    return result


def _sample_row(object_id: str, known: dict[str, float]) -> dict[str, object]:
    """Return a row of gz2sample.csv: its columns that the mock survey has a value for."""
    return {
        "OBJID": object_id,
        "PETROR50_R": known["petro_r50"],
        "PETROR90_R": known["frame_scale"] / galaxy_zoo.FRAME_SCALE_R90,  # with the survey's error, as the frames
        "PETROMAG_R": known["magnitude"],
        "REDSHIFT": known["redshift"],
        "PETROMAG_MR": known["absolute_magnitude"],
        "PETROR50_R_KPC": known["petro_r50_kpc"],
        "STELLAR_MASS": known["stellar_mass"],
    }
