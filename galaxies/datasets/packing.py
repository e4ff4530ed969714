"""A prepared dataset as a few small files and back, to the byte: its images as lossless WebP pictures.

6,511 galaxies of 64 pixels are 80 MB as they lie on the disk and 30 MB packed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features
from tqdm import tqdm

from galaxies.common.durable_files import plain_errors, sha256_of
from galaxies.common.errors import UserError
from galaxies.common.hardware import usable_cores
from galaxies.common.outputs import DATASET, output_folder
from galaxies.common.reading import MissingError, check_regular, open_regular, read_bytes, read_json
from galaxies.common.schema import entries, text
from galaxies.datasets.prepared import PreparedDataset

_HEADER, _COPIED = "images.header", ("catalogue.csv", "manifest.json")
_AGAIN = "pack the data again"
_HEADER_BYTES, _MANIFEST_BYTES = 1 << 16, 512 << 20
_MANIFEST = entries({"sha256": entries({"images.npy": text(), "catalogue.csv": text()})})
_LONGEST_PX = 16_383  # of a WebP picture's side
_METHOD, _EFFORT = 2, 50  # of Pillow's lossless WebP: the most take 24 times as long and save 3 %


def pack(data: PreparedDataset, folder: Path) -> dict[str, Path]:
    """Write the files of a packed dataset into a folder, and return them by name, in an order of their own.

    Each sheet is a picture of as many galaxies, one under the other, as its format allows.

    Raises
    ------
    UserError
        If Pillow was built without WebP, or a file cannot be written.
    """
    _need_webp()
    side = data.image_size
    rows = max(1, _LONGEST_PX // side)
    starts = range(0, len(data.images), rows)
    paths = [folder / f"sheet_{k:05d}.webp" for k in range(len(starts))]

    def write(start: int, path: Path) -> None:
        planes = np.asarray(data.images[start : start + rows])  # (N, 3, S, S)
        sheet = np.ascontiguousarray(planes.transpose(0, 2, 3, 1)).reshape(-1, side, 3)
        Image.fromarray(sheet).save(path, "WEBP", lossless=True, quality=_EFFORT, method=_METHOD)

    with plain_errors(folder), ThreadPoolExecutor(usable_cores()) as threads:
        folder.mkdir(parents=True, exist_ok=True)
        list(tqdm(threads.map(write, starts, paths), "packing the data", len(paths), leave=False, unit="sheet"))
        with (data.path / "images.npy").open("rb") as file:
            header = file.read(_header_bytes(data.images))
        (folder / _HEADER).write_bytes(header)
        for name in _COPIED:
            shutil.copyfile(data.path / name, folder / name)
    return {path.name: path for path in (folder / _COPIED[1], folder / _COPIED[0], folder / _HEADER, *paths)}


def unpack(folder: Path, out: Path) -> None:
    """Make the dataset of the files that `pack` wrote, with the checksums of its manifest.

    Parameters
    ----------
    folder : Path
        Of the packed files.
    out : Path
        Folder that is made, whole or not at all; a dataset that it was before is replaced.

    Raises
    ------
    UserError
        If Pillow was built without WebP, the files are no packed dataset, or the checksums are others.
    """
    _need_webp()
    with output_folder(out, DATASET) as partial, plain_errors(out):
        try:
            with (partial / "images.npy").open("wb") as file:
                file.write(read_bytes(folder / _HEADER, _HEADER_BYTES, _AGAIN))
                for planes in _sheets(folder):
                    file.write(planes.data)
            for name in _COPIED:
                check_regular(folder / name, _AGAIN)
                shutil.copyfile(folder / name, partial / name)
            sums = read_json(partial / "manifest.json", _MANIFEST, _MANIFEST_BYTES, _AGAIN)["sha256"]
            if any(sha256_of(partial / name) != sums[name] for name in ("images.npy", "catalogue.csv")):
                raise UserError(f"what is packed in {folder} has other checksums than its manifest: pack it again")
        except (MissingError, ValueError) as error:
            raise UserError(f"{folder} holds no packed dataset ({str(error).partition(': ')[0]}): {_AGAIN}") from None


def _sheets(folder: Path) -> Iterator[np.ndarray]:
    """Yield the planes (N, 3, S, S), uint8, of one sheet after another."""
    paths = sorted(folder.glob("sheet_*.webp"))

    def read(path: Path) -> np.ndarray:
        try:
            with open_regular(path, _AGAIN) as stream, Image.open(stream, formats=("WEBP",)) as picture:
                sheet = np.asarray(picture.convert("RGB"))
        except UnidentifiedImageError:
            raise UserError(f"{path} is no picture in WebP: pack the data again") from None
        side = sheet.shape[1]
        return np.ascontiguousarray(sheet.reshape(-1, side, side, 3).transpose(0, 3, 1, 2))

    cores = usable_cores()
    with (
        ThreadPoolExecutor(cores) as threads,
        tqdm(total=len(paths), desc="unpacking the data", leave=False, unit="sheet") as bar,
    ):
        for start in range(0, len(paths), cores):  # not all at once, which could be more than the memory holds
            for planes in threads.map(read, paths[start : start + cores]):
                yield planes
                bar.update()


def _header_bytes(images: np.ndarray) -> int:
    """Return how many bytes stand before the pixels of a dataset's `images.npy`, which is mapped from the disk."""
    assert isinstance(images, np.memmap)
    return int(images.offset)


def _need_webp() -> None:
    if not features.check("webp"):
        raise UserError("Pillow was built without WebP here: python -m pip install --force-reinstall pillow mends it")
