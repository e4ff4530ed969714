"""Painted cells of a field that is not whole yet, in a folder of their own, which outlives who paints them.

The folder is `.<name>.unfinished`, beside the field's. It holds ``request.json``, which says by what settings the cells
are painted, and a file a cell, which gets its name when it is whole. So whoever goes on with a field paints what is
missing, and several processes, also on several machines, paint cells of one field. The folder goes when there is the
field.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from galaxies.common.durable_files import only_process, plain_errors, sync_folder, whole_file, write_whole
from galaxies.common.errors import UserError, shown
from galaxies.common.json_writing import json_text
from galaxies.common.outputs import MOCK_FIELD, check_folder
from galaxies.common.reading import MissingError, UnreadableError, read_json
from galaxies.common.replaced_folders import mend, unfinished_folder
from galaxies.compute.ranks import LostRankError, Ranks
from galaxies.mock_field import painting
from galaxies.mock_field.field_folder import FieldFacts
from galaxies.mock_field.painting import WINGS, Picture, Sky

Cell = tuple[int, int]

_PAINTING = 1  # a number that is raised when cells are painted otherwise
_REQUEST, _STOPPED = "request.json", "stopped"
_MOST_SHOWN = 40  # characters of a setting
_AROUND = 12.0  # arcseconds by which a cell's picture is usually wider than the cell with the wings of the PSF
_DAMAGE = (ValueError, KeyError, EOFError, zipfile.BadZipFile)


def settings_of(sky: Sky) -> dict[str, Any]:
    """Return all that the bytes of a cell depend on, JSON values, by the names of options where there are any."""
    facts = sky.facts
    bands = [[b.wavelength_nm, b.psf_fwhm, b.sky_noise, b.photons] for b in facts.bands]
    return {
        "survey": facts.survey,
        "bands": ",".join(facts.band_names),
        "exposure": ",".join(f"{band.name}={band.exposure_s:g}" for band in facts.bands),
        "area": f"{facts.width_px} x {facts.height_px} pixels",
        "seed": facts.seed,
        "faintest": facts.faintest_magnitude,
        "counts": sky.counts.settings(),
        "stars": sky.stars_per_arcmin2,
        "clustering": "off" if sky.clusters is None else sky.clusters.describe(),
        **sky.source.settings(),
        "telescope": [facts.pixel_scale, facts.reference_band, sky.psf_text, sky.obscuration, *bands],
        "program": f"{_PAINTING}, cells of {painting.CELL_ARCSEC:g}, torch {torch.__version__}, numpy {np.__version__}",
    }


def bytes_of_cell(facts: FieldFacts) -> int:
    """Return how many bytes a painted cell has on disk, about."""
    wings = WINGS * max(band.psf_fwhm for band in facts.bands)
    side = (painting.CELL_ARCSEC + 2 * wings + _AROUND) / facts.pixel_scale
    return round(min(side, max(facts.shape)) ** 2) * 4 * (len(facts.bands) + 2)


class PaintedCells:
    """The painted cells of what will be the mock field `out`.

    Parameters
    ----------
    out : Path
        Folder of the field, there or not.

    Attributes
    ----------
    folder : Path
        Of the cells.
    """

    def __init__(self, out: Path) -> None:
        self._out = out.resolve()
        self.folder = unfinished_folder(self._out)

    @contextmanager
    def claimed(self, settings: dict[str, Any], overwrite: bool) -> Iterator[None]:
        """Keep other processes out while the block runs, with the folder there and its cells of these settings.

        Parameters
        ----------
        settings : dict
            As of `settings_of`.
        overwrite : bool
            Whether `out` may be replaced, and cells of other settings removed.

        Raises
        ------
        UserError
            If `out` may not be written, another process makes it, or cells of other settings are there.
        """
        with ExitStack() as held:
            with plain_errors(self._out):
                self.folder.parent.mkdir(parents=True, exist_ok=True)
                try:
                    held.enter_context(only_process(self.folder.with_name(f"{self.folder.name}.lock")))
                except BlockingIOError:
                    raise UserError(f"{self._out} is made by another process: wait, or choose another --out") from None
                mend(self._out, MOCK_FIELD.owned)
                check_folder(self._out, MOCK_FIELD, overwrite=overwrite)
                if other := self._others(settings):
                    if not overwrite:
                        raise UserError(
                            f"{self._out} was begun with other settings ({', '.join(other)}): give those again to go "
                            "on with it, begin anew with --overwrite, or choose another --out"
                        )
                    self.remove()
                self.folder.mkdir(exist_ok=True)
                (self.folder / _STOPPED).unlink(missing_ok=True)  # of ranks that failed before
                write_whole(self.folder / _REQUEST, (json_text(settings, indent=1) + "\n").encode())
            try:
                yield
            finally:
                if self.folder.exists() and not self.count():
                    self.remove()

    def check(self, settings: dict[str, Any], rank: int) -> None:
        """Refuse to paint other cells than those that rank 0 has claimed the folder for.

        Raises
        ------
        UserError
            If the folder is not to be seen here, or is of other settings.
        """
        if not (self.folder / _REQUEST).exists():
            raise UserError(
                f"rank {rank} does not see {self.folder}: choose an --out on a disk that all machines share"
            )
        if other := self._others(settings):
            raise UserError(f"rank {rank} would paint another field ({', '.join(other)}): give every machine the same")

    def _others(self, settings: dict[str, Any]) -> list[str]:
        """Return clauses about the settings that the cells which are there do not share, none if there are no cells."""
        try:
            there = read_json(self.folder / _REQUEST)
        except UnreadableError as error:
            is_new = isinstance(error, MissingError) and not self.count()
            return [] if is_new else ["which cannot be read"]
        clauses = []
        for name, here in json.loads(json_text(settings)).items():
            if (old := there.get(name)) != here:
                brief = all(len(str(value)) <= _MOST_SHOWN and not isinstance(value, list) for value in (old, here))
                clauses.append(f"{name} {shown(str(old))[1:-1]}, now {here}" if brief else f"another {name}")
        return clauses

    def count(self) -> int:
        """Return how many cells are painted."""
        return sum(1 for _ in self.folder.glob("cell_*.npz"))

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells that are not painted yet."""
        there = {path.name for path in self.folder.iterdir()}
        return [cell for cell in cells if self._file(cell).name not in there]

    def write(self, cell: Cell, picture: Picture) -> None:
        """Keep a cell, whole or not at all.

        Raises
        ------
        OSError
            If the disk is full or fails.
        """
        with whole_file(self._file(cell)) as file:
            np.savez(
                file,
                place=np.array([picture.row, picture.column]),
                light=picture.light,
                brightest=picture.brightest,
                owner=picture.owner,
                truth=picture.truth,
                replaced=np.array(json_text(picture.replaced)),
            )
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.folder)

    def read(self, cell: Cell) -> Picture:
        """Return a painted cell.

        Raises
        ------
        UserError
            If its file is damaged; that is removed then.
        """
        with self._opened(cell) as found:
            row, column = found["place"].tolist()
            light, brightest, owner, truth = (found[name] for name in ("light", "brightest", "owner", "truth"))
            return Picture(row, column, light, brightest, owner, truth, json.loads(str(found["replaced"])))

    def numbers(self, cell: Cell) -> tuple[int, dict[str, int]]:
        """Return how many sources a painted cell has, and what was drawn otherwise than asked for; see `read`."""
        with self._opened(cell) as found:
            return len(found["truth"]), json.loads(str(found["replaced"]))

    @contextmanager
    def _opened(self, cell: Cell) -> Iterator[Any]:
        path = self._file(cell)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                yield found
        except _DAMAGE:
            path.unlink()
            raise UserError(
                f"{path} was damaged and is removed: the same command paints it anew, and goes on"
            ) from None

    @contextmanager
    def together(self, ranks: Ranks) -> Iterator[None]:
        """Let the rank that fails say why, and end the others without a word: by a file, which all of them look for."""
        try:
            yield
        except LostRankError as error:
            told = ranks.local_rank > 0 or (self.folder / _STOPPED).exists()
            kept = "what is painted is kept, and the same command goes on"
            raise LostRankError("" if told else f"{error}: {kept}") from None
        except BaseException:
            if ranks.size > 1:
                with suppress(OSError):
                    (self.folder / _STOPPED).touch()
            raise

    def check_on_others(self, ranks: Ranks) -> None:
        """Raise `LostRankError` if another rank has failed."""
        if ranks.size > 1 and (self.folder / _STOPPED).exists():
            raise LostRankError("another rank has failed")

    def remove(self) -> None:
        """Remove the cells, and the folder if nothing else is in it."""
        for path in (*self.folder.glob("cell_*.npz"), *self.folder.glob(".*.tmp"), self.folder / _STOPPED):
            path.unlink(missing_ok=True)
        (self.folder / _REQUEST).unlink(missing_ok=True)  # last: without it nobody would know what the cells are
        with suppress(OSError):
            self.folder.rmdir()

    def _file(self, cell: Cell) -> Path:
        return self.folder / "cell_{:05d}_{:05d}.npz".format(*cell)
