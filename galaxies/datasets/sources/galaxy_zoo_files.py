"""Fetch the files of Galaxy Zoo 2: what they are called, where they are, and how to tell that they are whole.

Everything but the finished files is in the folder `.download` beside them: what has arrived of a file (`*.partial`), a
lock, and a list of what was checked. It may be deleted whenever no download runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from galaxies.common.durable_files import only_process, replace_file, sync_folder
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import GALAXY_ZOO, check_folder
from galaxies.common.reading import UnreadableError, read_json
from galaxies.common.schema import items, mapping, whole
from galaxies.common.untrusted_files import UntrustedFileError, check_archive
from galaxies.tables.opening import survey_table

try:
    import pooch

    from galaxies.datasets.sources.http_download import PATIENCE, Patience, RemoteFile, ResumingDownloader
except ModuleNotFoundError as error:
    raise UserError(f"downloading needs the package {error.name}: python -m pip install -r requirements.txt") from error

MIRROR = "GALAXY_ZOO_MIRROR"
_BLOCK = 1 << 20
_SPARE_BYTES = 200_000_000  # left free beside the files
_BEGINNINGS = {".zip": b"PK\x03\x04", ".gz": b"\x1f\x8b", ".csv": b""}


@dataclass(frozen=True)
class ReleaseFile:
    """One file of the release.

    Attributes
    ----------
    name, url : str
        File name and address.
    size : int
        Bytes, about: for the free space that is asked for.
    smallest, largest : int
        Bytes, the plausible range.
    least : int
        Rows of the table or pictures of the archive, at least.
    columns : tuple of str
        Columns that the table must have, in lower case; empty for the archive.
    md5 : str
        Checksum, if one is published.
    contents_sha256 : str
        SHA-256 of one known copy, unpacked: another one is mentioned and not refused.
    """

    name: str
    url: str
    size: int
    smallest: int
    largest: int
    least: int
    columns: tuple[str, ...] = ()
    md5: str = ""
    contents_sha256: str = ""


# The checksums are those that other programs compare for record 3565489 at Zenodo: eight for the archive, three for the
# mapping. The other two files have no published one.
_ZENODO = "https://zenodo.org/records/3565489/files/{}?download=1"
RELEASE = (
    ReleaseFile(
        name="gz2_filename_mapping.csv",
        url=_ZENODO.format("gz2_filename_mapping.csv"),
        size=13_000_000,
        smallest=8_000_000,
        largest=30_000_000,
        least=355_000,
        columns=("objid", "asset_id"),
        md5="7e28465e6dfbf96c0d828c595a5bbd80",
    ),
    ReleaseFile(
        name="gz2_hart16.csv.gz",
        url="https://gz2hart.s3.amazonaws.com/gz2_hart16.csv.gz",
        size=150_000_000,
        smallest=10_000_000,
        largest=400_000_000,
        least=239_000,
        columns=("dr7objid", "total_votes"),
    ),
    ReleaseFile(
        name="gz2sample.csv.gz",
        url="https://zooniverse-data.s3.amazonaws.com/galaxy-zoo-2/gz2sample.csv.gz",
        size=100_000_000,
        smallest=10_000_000,
        largest=250_000_000,
        least=325_000,
        columns=("objid", "redshift"),
        contents_sha256="9ecde58a9025260c7e1fb573ad12d5b1a449fdb7030687525d590e9bcad7a539",
    ),
    ReleaseFile(
        name="images_gz2.zip",
        url=_ZENODO.format("images_gz2.zip"),
        size=3_450_000_000,
        smallest=3_200_000_000,
        largest=3_800_000_000,
        least=243_000,
        md5="bc647032d31e50c798770cf4430525c7",
    ),
)


def fetch_release(
    folder: Path | str,
    only_catalogue: bool = False,
    files: Sequence[ReleaseFile] | None = None,
    patience: Patience = PATIENCE,
) -> list[Path]:
    """Download what is missing of Galaxy Zoo 2, and check it; what is there and whole is left alone.

    Parameters
    ----------
    folder : Path or str
        Where the files go; made if need be.
    only_catalogue : bool
        Take the tables and leave the archive of images.
    files : sequence of ReleaseFile, optional
        Other files than `RELEASE`.
    patience : Patience
        How long to try.

    Returns
    -------
    list of Path
        The files, each complete and checked.

    Raises
    ------
    UserError
        If a file cannot be had or is not what it should be, the disk is full, or another process downloads into the
        same folder. What had arrived stays, and the next call goes on from there.
    """
    folder = Path(folder)
    check_folder(folder, GALAXY_ZOO, option="--path")
    wanted = [_from_mirror(file) for file in files or RELEASE if file.columns or not only_catalogue]
    work = folder / ".download"
    try:
        work.mkdir(parents=True, exist_ok=True)
        with only_process(work / "lock"):
            for stray in work.glob("tmp*"):  # empty files of pooch, left by a killed process
                stray.unlink()
            missing = [file for file in wanted if not _is_there(file, folder)]
            _check_space(missing, folder)
            for file in missing:
                _fetch(file, folder, patience)
    except BlockingIOError:
        raise UserError(f"another process is downloading into {folder}: wait until it has ended") from None
    except OSError as error:
        raise UserError(
            f"cannot write in {folder}: {error.strerror or error}: choose another folder with --path"
        ) from error
    for file in wanted:
        print(f"{folder / file.name} is there and whole, {(folder / file.name).stat().st_size / 1e6:.1f} MB")
    return [folder / file.name for file in wanted]


def _from_mirror(file: ReleaseFile) -> ReleaseFile:
    base = os.environ.get(MIRROR, "").strip()
    if not base:
        return file
    if not base.startswith(("http://", "https://")):
        raise UserError(f"{MIRROR} is '{base}': it takes the address of a folder that begins with https:// or http://")
    return replace(file, url=f"{base.rstrip('/')}/{file.name}")


def _is_there(file: ReleaseFile, folder: Path) -> bool:
    """Tell whether a file is there and whole.

    Reading 3.4 GB takes a minute, so a file that was checked is known again by its size and time of change.
    """
    path = folder / file.name
    if not path.is_file():
        return False
    status = path.stat()
    if _checked(folder).get(file.name) != [status.st_size, status.st_mtime_ns]:
        try:
            _check(file, path)
        except UntrustedFileError as error:
            raise UserError(
                f"{path} is there and damaged ({error}): remove it, then run the same command again"
            ) from error
        _remember(file, folder)
    return True


def _check_space(missing: Sequence[ReleaseFile], folder: Path) -> None:
    partials = [_partial(file, folder) for file in missing]
    there = [partial.stat().st_size if partial.exists() else 0 for partial in partials]
    needed = sum(max(0, file.size - size) for file, size in zip(missing, there, strict=True))
    free = shutil.disk_usage(folder).free
    if missing and free < needed + _SPARE_BYTES:
        raise UserError(
            f"the files need {(needed + _SPARE_BYTES) / 1e9:.1f} GB in {folder.resolve()} and {free / 1e9:.1f} GB are "
            "free: make room, or choose another folder with --path"
        )


def _fetch(file: ReleaseFile, folder: Path, patience: Patience) -> None:
    """Download a file, check it and give it its name."""
    work = folder / ".download"
    by_hand = f"download it by hand from {file.url} into {folder}"

    def check(partial: Path) -> None:
        try:
            _check(file, partial)
        except UntrustedFileError as error:
            raise UserError(
                f"{file.name} arrived damaged ({error}) and was removed: run the same command again, or {by_hand}"
            ) from error

    remote = RemoteFile(file.name, _BEGINNINGS[Path(file.name).suffix], file.smallest, file.largest, by_hand)
    downloader = ResumingDownloader(remote, _partial(file, folder), check, patience)
    # pooch is given no checksum: it would compare it after the file has left its stable name, where a killed process
    # loses it. `check` has compared it by then.
    pooch.get_logger().setLevel("WARNING")
    cache = pooch.create(path=work, base_url="", registry={file.name: None}, urls={file.name: file.url})
    cache.fetch(file.name, downloader=downloader)
    replace_file(work / file.name, folder / file.name)
    sync_folder(folder)
    _remember(file, folder)


def _partial(file: ReleaseFile, folder: Path) -> Path:
    return folder / ".download" / f"{file.name}.partial"


def _check(file: ReleaseFile, path: Path) -> None:
    """Compare a file with what is known of it; raise `UntrustedFileError` if it is damaged or another."""
    size = path.stat().st_size
    if not file.smallest <= size <= file.largest:
        raise UntrustedFileError(f"it has {size} bytes and should have {file.smallest} to {file.largest}")
    with tqdm(desc=f"checking {file.name}", total=size, unit="B", unit_scale=True, leave=False) as bar:
        if file.md5:
            digest = hashlib.md5(usedforsecurity=False)
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
                    bar.update(len(block))
            if digest.hexdigest() != file.md5:
                raise UntrustedFileError(f"its MD5 is {digest.hexdigest()} and not {file.md5}")
        if not file.columns:
            # With a checksum that fits, those of 243,434 pictures need not be computed as well.
            check_archive(path, file.least, thorough=not file.md5, progress=bar.update)
            return
        survey = survey_table(path)
    for column in file.columns:
        if column not in survey.columns:
            raise UntrustedFileError(f"it has no column {column}")
    if survey.rows < file.least:
        raise UntrustedFileError(f"it has {survey.rows} rows and should have {file.least} or more")
    if file.contents_sha256 and survey.sha256 != file.contents_sha256:
        print(f"{file.name} is whole; its contents differ from the one copy whose checksum is known here")


def _checked(folder: Path) -> dict[str, list[int]]:
    try:
        known: dict[str, list[int]] = read_json(folder / ".download" / "checked.json", mapping(items(whole(0), 2, 2)))
    except UnreadableError:  # then everything is checked once more
        return {}
    return known


def _remember(file: ReleaseFile, folder: Path) -> None:
    """Note the size and time of change of a checked file."""
    status = (folder / file.name).stat()
    known = _checked(folder) | {file.name: [status.st_size, status.st_mtime_ns]}
    draft = folder / ".download" / "checked.json.new"
    draft.write_text(json_text(known), encoding="utf-8")
    replace_file(draft, folder / ".download" / "checked.json")
