"""The one gate for what scripts write: only files of this program, told by name and content, are ever replaced.

Folders have kinds, `KINDS`: each knows the names that this program gives to its files, and tells a folder of its kind
by what stands in one of them. A script names the kind that it writes:

- `check_folder` before the work: a folder of another kind is refused, and so is one in which a file that is to be
  written has the name of something else, or would take the place of an input. Whatever else is in it stays.
- `output_folder` for all files together, see `replaced_folders`.

`output_file` and `write_output` are the same for a single file: one that is there is replaced if its content is what
this program writes under that option, or if it is empty.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from galaxies.common.durable_files import plain_errors, remove_dead_temporaries, whole_file
from galaxies.common.errors import UserError
from galaxies.common.reading import open_regular, read_json
from galaxies.common.replaced_folders import is_hidden_part, mend, partial_folder, put_in_place

_ON_WINDOWS = os.name == "nt"
_HEAD_BYTES = 1 << 16  # of a file, by which it is told
# What Windows has no file of, whatever stands behind a dot; it takes them for devices.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])[ ]*(\..*)?", re.IGNORECASE)
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$')

Recognizes = Callable[[Path], bool]


def _anything(folder: Path) -> Callable[[str], bool]:
    return lambda name: True


class Kind(NamedTuple):
    """A kind of folder that this program writes.

    Attributes
    ----------
    what : str
        What it is, for a sentence.
    files : tuple of str
        The names of its files, '/' between folders, as patterns for `Path.glob`.
    recognizes : callable
        Tells whether a folder is of this kind.
    listed : callable
        Given a folder of this kind, returns what tells of a name that fits `files` whether the folder lists it.
    """

    what: str
    files: tuple[str, ...]
    recognizes: Recognizes
    listed: Callable[[Path], Callable[[str], bool]] = _anything

    def owned(self, folder: Path) -> list[str]:
        """Return the relative names of the files in a folder that may be replaced: none, if it is not of this kind.

        Links, and what lies behind them, are of somebody else.
        """
        if not self.recognizes(folder):
            return []
        is_listed = self.listed(folder)
        found = []
        for pattern in self.files:
            for path in sorted(folder.glob(pattern)):
                name = path.relative_to(folder)
                linked = any((folder / part).is_symlink() for part in (name, *name.parents[:-1]))
                if path.is_file() and not linked and is_listed(name.as_posix()):
                    found.append(name.as_posix())
        return found


def has_entries(*names: str) -> Recognizes:
    """Return what tells a JSON file by the entries of its object."""

    def recognizes(path: Path) -> bool:
        with suppress(UserError):
            return read_json(path, constants=True).keys() >= set(names)
        return False

    return recognizes


def begins_with(*cells: str, alone: bool = False, then: Container[str] | None = None) -> Recognizes:
    """Return what tells a table by the first cells of its first line.

    With `alone`, those are all that the line may have. With `then`, the first cell of the next line is among these.
    """

    def recognizes(path: Path) -> bool:
        with suppress(csv.Error, StopIteration, IndexError):
            rows = csv.reader(io.StringIO(_head(path).decode("utf-8", errors="replace"), newline=""))
            line = next(rows)
            fits = tuple(line if alone else line[: len(cells)]) == cells
            return fits and (then is None or next(rows)[0] in then)
        return False

    return recognizes


def has_bytes(content: bytes) -> Recognizes:
    """Return what tells a file by bytes near its beginning."""
    return lambda path: content in _head(path)


def _head(path: Path) -> bytes:
    with suppress(UserError, OSError), open_regular(path) as file:
        return file.read(_HEAD_BYTES)
    return b""


def _is_dataset(folder: Path) -> bool:
    """By the manifest; where that is damaged, by the two others."""
    with suppress(UserError):
        sums = read_json(folder / "manifest.json").get("sha256")
        if isinstance(sums, dict) and {"images.npy", "catalogue.csv"} <= sums.keys():
            return True
    catalogue = begins_with("object_id", "morphology", "split")(folder / "catalogue.csv")
    return catalogue and _head(folder / "images.npy").startswith(b"\x93NUMPY")


def _is_run(folder: Path) -> bool:
    """By its log; by a checkpoint, where that was not copied with it."""
    checkpoints = [folder / "latest.pt", folder / "previous.pt", *folder.glob("epoch_[0-9]*.pt")]
    return has_records(folder / "metrics.jsonl") or any(_head(path).startswith(b"PK") for path in checkpoints)


def has_records(path: Path) -> bool:
    """Tell whether a file is the log of a run's metrics."""
    return re.match(rb'\{"kind": "[a-z_]+", "phase": "', _head(path)) is not None


def _names_in_catalogue(folder: Path) -> Callable[[str], bool]:
    """Go by the column `file` of the catalogue, for what lies in images/, and by what stands in an observation."""
    with (folder / "catalogue.csv").open(encoding="utf-8", errors="replace", newline="") as file:
        names = {row[0] for row in list(csv.reader(file))[1:] if row}
    observed = has_entries("survey", "with_noise", "bands")(folder / "observation.json")
    return lambda name: observed if name == "observation.json" else "/" not in name or Path(name).stem in names


def _names_in_field(folder: Path) -> Callable[[str], bool]:
    """Go by the bands that the manifest names, for FITS files."""
    found = read_json(folder / "field.json", constants=True).get("bands")
    bands = [str(band.get("name")) for band in found if isinstance(band, dict)] if isinstance(found, list) else []
    names = {"truth", "segmentation", *bands, *(f"noiseless_{band}" for band in bands)}
    return lambda name: not name.endswith(".fits") or name.removesuffix(".fits") in names


DATASET = Kind(
    "a prepared dataset",
    ("images.npy", "catalogue.csv", "manifest.json", "psfs.npy", "intrinsic.npy", f"judge-{'[0-9a-f]' * 16}.pt"),
    _is_dataset,
)
GALAXY_ZOO = Kind(
    "a mock survey in the formats of Galaxy Zoo 2",
    ("images_gz2.zip", "gz2_hart16.csv", "gz2_filename_mapping.csv", "gz2sample.csv", "truth.csv"),
    lambda folder: begins_with("object_id", "morphology")(folder / "truth.csv"),
)
RUN = Kind(
    "a run",
    (
        "latest.pt",
        "previous.pt",
        "damaged.pt",
        "epoch_[0-9][0-9][0-9][0-9].pt",
        "average_[0-9]*.safetensors",
        "metrics.jsonl",
    ),
    _is_run,
)
SAMPLE_GRIDS = Kind(
    "the sample grids of a run",
    ("epoch_[0-9][0-9][0-9][0-9].png", "curves.png"),
    lambda folder: any(folder.glob("epoch_[0-9][0-9][0-9][0-9].png")),
)
RELEASE = Kind(
    "a release",
    ("generator.safetensors", "generator.json", "samples.png", "card.md"),
    lambda folder: has_entries("config", "attributes", "provenance")(folder / "generator.json"),
)
REPORT = Kind(
    "a report",
    (
        "report.json",
        "report.html",
        *("samples.png", "control.png", "classes.png", "statistics.png"),
        *("distributions.png", "power.png", "copies.png", "validation.png"),
    ),
    lambda folder: has_entries("format_version", "checkpoint", "data")(folder / "report.json"),
)
SETS = Kind(
    "a comparison of sets",
    (
        *("sets.json", "sets.html", "samples.png", "distances.png", "statistics.png", "distributions.png"),
        *("power.png", "telescope.png", "matched.png"),
    ),
    lambda folder: has_entries("format_version", "reference", "sets")(folder / "sets.json"),
)
FIELD_EVALUATION = Kind(
    "an evaluation of a mock field",
    ("evaluation.json", "evaluation.csv", "evaluation.md", "completeness.png", "photometry.png", "depth.png"),
    lambda folder: has_entries("format_version", "survey", "of_folder")(folder / "evaluation.json"),
)
PICTURES = Kind(
    "generated galaxies",
    (
        *("grid.png", "catalogue.csv", "images.npz", "observation.json"),
        *("images/*.png", "images/*.fits", "spectra/*.fits"),  # those that the catalogue names
    ),
    lambda folder: begins_with("file", "seed", "morphology")(folder / "catalogue.csv"),
    _names_in_catalogue,
)
SHARDS = Kind(
    "shards of generated galaxies",
    (
        *("request.json", "grid.png", "images_[0-9]*.npy", "galaxies_[0-9]*.fits", "galaxies_[0-9]*.tar"),
        *("catalogue_[0-9]*.csv", "catalogue_[0-9]*.parquet"),
    ),
    lambda folder: has_entries("count", "shard_size", "requests")(folder / "request.json"),
)
MOCK_FIELD = Kind(
    "a mock field",
    ("field.json", "preview.png", "*.fits"),
    lambda folder: has_entries("survey", "reference_band", "faintest_magnitude")(folder / "field.json"),
    _names_in_field,
)
KINDS = (DATASET, GALAXY_ZOO, RUN, SAMPLE_GRIDS, RELEASE, REPORT, SETS, FIELD_EVALUATION, PICTURES, SHARDS, MOCK_FIELD)


def check_folder(
    out: Path,
    kind: Kind,
    names: Iterable[str] = (),
    inputs: Iterable[Path] = (),
    option: str = "--out",
    overwrite: bool | None = None,
) -> None:
    """Refuse a folder for the output of a kind if something of the user's could be lost there.

    Parameters
    ----------
    out : Path
        Need not exist; a link to a folder stands for that folder.
    kind : Kind
    names : iterable of str
        What will be written, as far as it is known, by relative names with '/'.
    inputs : iterable of Path
        Files and folders that are read, and must not be written over.
    option : str
        With which the user named the folder.
    overwrite : bool, optional
        Whether an earlier output of this kind may be replaced. Anything else is then no place for a new one. By
        default it may, and files of others may be there too.

    Raises
    ------
    UserError
        Naming what is there.
    """
    another = f"name another folder with {option}"
    check_name(out, option)
    with plain_errors(out):
        out = out.resolve()
        for path in inputs:
            if path.resolve() == out:
                raise UserError(f"{path} is one of the inputs and would be written over: {another}")
        if not _is_there(out):
            return
        if not out.is_dir():
            raise UserError(f"{out} is a file: {another}")
        if (other := next((k for k in KINDS if k is not kind and k.recognizes(out)), None)) is not None:
            raise UserError(f"{out} holds {other.what}: {another}")
        owned = kind.owned(out)
        if overwrite is not None and not _is_empty(out):
            if not overwrite:
                raise UserError(f"{out} exists: choose another {option}, or replace it with --overwrite")
            if not owned:
                raise UserError(f"{out} is not {kind.what}: it is not replaced, so {another}")
        mine, there_is = set(owned), {path.name.casefold() for path in out.iterdir()}
        for name in names:
            taken = name.partition("/")[0].casefold() in there_is  # in upper or lower case, as the disk may not care
            if taken and name not in mine and (there := _first_in_the_way(out, Path(name))):
                raise UserError(f"{there} is there and is no file of this program: move it, or {another}")
        for path in inputs:
            place = path.resolve()
            if out in place.parents and place.relative_to(out).as_posix() in owned:
                raise UserError(f"{path} is one of the inputs and would be written over: {another}")


def _is_there(path: Path) -> bool:
    """Tell whether something has this name; a name that cannot be had, as it is too long, is an `OSError`."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _is_empty(out: Path) -> bool:
    """Tell whether there is nothing in a folder but what is just being made for it."""
    return all(is_hidden_part(path.name, out) for path in out.iterdir())


def _first_in_the_way(out: Path, name: Path) -> Path | None:
    """Return what stands where a file is to be written, or where a folder of its path is; a folder may be there."""
    for part in (*reversed(name.parents[:-1]), name):
        path = out / part
        if os.path.lexists(path) and (part == name or path.is_symlink() or not path.is_dir()):
            return path
    return None


@contextmanager
def output_folder(
    out: Path,
    kind: Kind,
    names: Sequence[str] = (),
    inputs: Sequence[Path] = (),
    option: str = "--out",
    overwrite: bool | None = None,
) -> Iterator[Path]:
    """Give an empty hidden folder to write into; at the end of the block its files stand in `out`, all or none.

    What `out` holds of the same kind is replaced then, whatever else is in it stays; after an error it is what it was.
    The parameters and the errors of the beginning are those of `check_folder`.

    Raises
    ------
    UserError
        If `out` is refused or cannot be written.
    """
    check_name(out, option)
    with plain_errors(out):
        out = out.resolve()
        mend(out, kind.owned)
        check_folder(out, kind, names, inputs, option, overwrite)
        partial = partial_folder(out)
        partial.mkdir(parents=True)
    try:
        yield partial
        check_folder(out, kind, names, inputs, option, overwrite)  # once more: the work may have taken hours
        with plain_errors(out):
            put_in_place(partial, out, kind.owned)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_file(path: Path, recognizes: Recognizes, inputs: Iterable[Path] = (), option: str = "--out") -> None:
    """Refuse a name for an output file if something of the user's could be lost there.

    Parameters
    ----------
    path : Path
        Need not exist; a link to a file stands for that file.
    recognizes : callable
        Tells whether a file is what will be written here, so that it may be replaced.
    inputs, option
        As for `check_folder`.

    Raises
    ------
    UserError
        Naming what is there.
    """
    another = f"name another file with {option}"
    check_name(path, option)
    with plain_errors(path):
        path = path.resolve()
        if any(place.resolve() == path for place in inputs):
            raise UserError(f"{path} is one of the inputs and would be written over: {another}")
        folder = next((k for k in KINDS if any(path.match(p) for p in k.files) and k.recognizes(path.parent)), None)
        if folder is not None:
            raise UserError(f"{path} is the name of a file of {folder.what}: {another}")
        if not _is_there(path):
            return
        status = path.stat()
        if path.is_dir():
            raise UserError(f"{path} is a folder: {another}")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is a pipe or a device: {another}")
        if status.st_size and not recognizes(path):
            raise UserError(f"{path} is there and is not what this program writes here: move it, or {another}")


@contextmanager
def output_file(
    path: Path, recognizes: Recognizes, inputs: Iterable[Path] = (), option: str = "--out"
) -> Iterator[IO[bytes]]:
    """Open a file that the user asked for, which gets its name at the end of the block, whole.

    The parameters are those of `check_file`.

    Raises
    ------
    UserError
        If it is refused or cannot be written; what it was before stays.
    """
    check_file(path, recognizes, inputs, option)
    with plain_errors(path):
        path = path.resolve()
        remove_dead_temporaries(path)
        with whole_file(path) as file:
            yield file


def write_output(
    path: Path, content: bytes, recognizes: Recognizes, inputs: Iterable[Path] = (), option: str = "--out"
) -> None:
    """Write a file that the user asked for, whole or not at all; see `output_file`."""
    with output_file(path, recognizes, inputs, option) as file:
        file.write(content)


def check_name(path: Path, option: str) -> None:
    """Refuse a name that Windows takes for a device, or has no file of; on other systems all of them are names."""
    if _ON_WINDOWS and (part := name_windows_refuses(path)):
        raise UserError(f"{option} {path}: Windows has no file or folder of the name {part!r}: choose another one")


def name_windows_refuses(path: Path) -> str | None:
    """Return the first part of a path that Windows has no file of, such as nul.csv, "a:b" or "a "."""
    parts = path.parts[1:] if path.anchor else path.parts
    ordinary = (part for part in parts if part not in (".", ".."))
    return next((part for part in ordinary if _DEVICES.fullmatch(part) or _NOT_ON_WINDOWS.search(part)), None)
