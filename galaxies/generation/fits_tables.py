"""A shard of generated galaxies as one FITS table with a row a galaxy: its number, its catalogue, and its image.

The image is a column of arrays (TDIM): ``astropy.io.fits`` and ``astropy.table`` give (N, B, S, S), the same numbers in
the same order as in shards of arrays.

References
----------
FITS standard 4.0 (Pence et al. 2010, A&A 524, A42, and its update of 2018): section 7.3 for binary tables, 4.4.2.5 for
checksums.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from config_physics import Attribute
from galaxies.common.version import SOFTWARE, SYNTHETIC
from galaxies.datasets.population import VERDICTS
from galaxies.generation.fits_files import ImageFacts, describe_bands, describe_origin, psf_extension
from galaxies.generation.shard_formats import ShardFile, ShardFormat, column_facts
from galaxies.images.fits_checksums import DataSum, sealed
from galaxies.images.fits_images import header_text

if TYPE_CHECKING:
    from astropy.io import fits as astropy_fits

_UNIT_BYTES = 2880  # of which a FITS file is a multiple
_CODES = {"i8": "K", "f4": "E", "u1": "B", "b1": "L"}  # of numpy's types without their order
_FIXED_BYTES, _CELL_BYTES = 100, 8  # of a row beside its image, at most about: names, and a column


class FitsTableFormat(ShardFormat):
    """A FITS table, see the module. Every unit has CHECKSUM and DATASUM.

    Parameters
    ----------
    shape, dtype
        As for `ShardFormat`.
    facts : ImageFacts
    classes : sequence of str
    attributes : mapping of str to Attribute
        Of the run, and what is measured besides.
    """

    name, ending = "fits-table", "fits"

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: str,
        facts: ImageFacts,
        classes: Sequence[str],
        attributes: Mapping[str, Attribute],
    ) -> None:
        super().__init__(shape, dtype)
        self.facts, self.attributes = facts, attributes
        # Of text, as wide as the longest there can be.
        self.widths = {
            "morphology": max(len(name) for name in classes),
            "set_by_user": max(1, len(" ".join(attributes))),
            "support": max(len(name) for name in VERDICTS),
        }

    def bytes_of(self, count: int) -> int:
        """Return how many bytes so many galaxies need, at most about."""
        row = _FIXED_BYTES + sum(self.widths.values()) + 2 * _CELL_BYTES * len(self.attributes)
        return (self.image_bytes + row) * count

    def is_complete(self, path: Path, count: int) -> bool:
        """Tell by the headers whether a file has so many rows and goes to its end."""
        from astropy.io import fits

        with suppress(OSError, ValueError, KeyError, IndexError, Warning), warnings.catch_warnings():
            warnings.simplefilter("error")  # astropy warns of files that were cut
            with fits.open(path, memmap=True) as units:
                last = units[-1].fileinfo()
                end = last["datLoc"] + last["datSpan"]
                return units["GALAXIES"].header["NAXIS2"] == count and end == path.stat().st_size
        return False

    def begin(self, file: IO[bytes], rows: range) -> ShardFile:
        """Begin a table, whose header is written with its first rows: they tell its columns."""
        return _FitsFile(self, file, rows)


class _FitsFile(ShardFile):
    def __init__(self, format: FitsTableFormat, file: IO[bytes], rows: range) -> None:
        self._format, self._file, self._rows = format, file, rows
        self._next = rows.start
        self._layout: np.dtype[np.void] | None = None
        self._data = DataSum()
        self._header: astropy_fits.Header | None = None
        self._header_at = 0

    def append(self, images: Tensor, table: pd.DataFrame) -> None:
        table = table.copy(deep=False)
        table.insert(0, "id", np.arange(self._next, self._next + len(table)))
        self._next += len(table)
        if self._layout is None:
            self._layout = self._layout_of(table)
            self._file.write(self._primary())
            self._header, self._header_at = self._header_of(table), self._file.tell()
            self._file.write(sealed(self._header, self._data))  # whose sums are those of no row yet
        rows = np.empty(len(table), self._layout)
        for name in map(str, table.columns):
            values, kind = table[name].to_numpy(), self._layout[name]
            if kind.kind == "S":
                rows[name] = [header_text(text).encode() for text in values]
            elif values.dtype.kind == "b":
                rows[name] = np.where(values, ord("T"), ord("F"))
            else:
                rows[name] = values
        rows["image"] = images.numpy()
        self._write_data(rows.tobytes())

    def _write_data(self, content: bytes) -> None:
        self._file.write(content)
        self._data.add(content)

    def finish(self) -> None:
        assert self._layout is not None and self._header is not None, "a shard has a galaxy"
        self._write_data(_padding(self._layout.itemsize * len(self._rows)))
        self._file.seek(self._header_at)
        self._file.write(sealed(self._header, self._data))
        self._file.seek(0, io.SEEK_END)
        if self._format.facts.psfs is not None:
            unit = psf_extension(self._format.facts, self._format.facts.psfs)
            content = unit.data.astype(">f4").tobytes()
            content += _padding(len(content))
            self._file.write(sealed(unit.header, DataSum(content)) + content)

    def _layout_of(self, table: pd.DataFrame) -> np.dtype[np.void]:
        """Return the types of a row, in the order of the bytes that FITS has."""
        fields: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = []
        for name, column in table.items():
            kind = column.to_numpy().dtype
            if kind.kind == "b":
                fields.append((str(name), "|u1"))
            elif kind.kind in "if":
                fields.append((str(name), ">i8" if kind.kind == "i" else ">f4"))
            else:
                fields.append((str(name), f"|S{self._format.widths[str(name)]}"))
        pixels = "|u1" if self._format.dtype == np.uint8 else ">f4"
        return np.dtype([*fields, ("image", pixels, self._format.shape)])

    def _primary(self) -> bytes:
        from astropy.io import fits

        header = fits.PrimaryHDU().header
        header["CREATOR"] = (SOFTWARE, "program that wrote this file")
        header["SYNTHETI"] = (True, "drawn by a neural network, not observed")
        header["COMMENT"] = SYNTHETIC
        return sealed(header, DataSum())

    def _header_of(self, table: pd.DataFrame) -> astropy_fits.Header:
        from astropy.io import fits

        assert self._layout is not None, "it is known by now"
        columns = []
        for name in self._layout.names or ():
            code, dim = self._code(name, table)
            columns.append(fits.Column(name, code, unit=_fits_unit(self._unit(name)), dim=dim))
        header = fits.BinTableHDU.from_columns(columns, nrows=0, name="GALAXIES").header
        header["NAXIS2"] = len(self._rows)
        assert header["NAXIS1"] == self._layout.itemsize, "columns are as wide as they are written"
        for number, name in enumerate(self._layout.names or (), 1):
            unit, about = column_facts(name, self._format.attributes)
            said = f"{about} [{unit}]" if unit and not _fits_unit(unit) else about
            header[f"TCOMM{number}"] = header_text(said)
        header["SYNTHETI"] = (True, "drawn by a neural network, not observed")
        facts = self._format.facts
        if facts.is_flux:
            describe_bands(header, facts)
        else:
            header["PLANES"] = ("R,G,B", "display colors, no bands of a telescope")
            header["COMMENT"] = "Pixels are asinh-stretched display values, 0 to 255; the first row is the top one."
        describe_origin(header, facts)
        return header

    def _unit(self, name: str) -> str:
        if name == "image":
            return "nJy" if self._format.facts.is_flux else ""
        return column_facts(name, self._format.attributes)[0]

    def _code(self, name: str, table: pd.DataFrame) -> tuple[str, str | None]:
        """Return the format of a column, and for images their dimensions, the fastest first."""
        assert self._layout is not None, "it is known by now"
        kind = self._layout[name]
        if name == "image":
            count, code = int(np.prod(self._format.shape)), _CODES[kind.base.str[1:]]
            return f"{count}{code}", f"({','.join(str(size) for size in reversed(self._format.shape))})"
        if kind.kind == "S":
            return f"{kind.itemsize}A", None
        return _CODES["b1" if table[name].dtype.kind == "b" else kind.str[1:]], None


def _padding(size: int) -> bytes:
    return bytes(-size % _UNIT_BYTES)


def _fits_unit(unit: str) -> str | None:
    """Return a unit if FITS knows it."""
    from astropy import units

    if not unit:
        return None
    try:
        units.Unit(unit, format="fits")
    except ValueError:
        return None
    return unit
