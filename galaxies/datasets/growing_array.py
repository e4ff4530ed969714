"""An .npy file of images that is written block by block, so that memory does not grow with their number."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from galaxies.common.durable_files import plain_errors


class GrowingArray:
    """Images (N, B, S, S) on their way into an .npy file; whole once it is finished, and in the reader's hands then.

    Parameters
    ----------
    path : Path
        File to make.
    dtype : dtype
        Of the pixels.
    shape : tuple of int
        Of an image: (B, S, S).
    out : Path
        What messages name, such as the folder that the user asked for.

    Attributes
    ----------
    count : int
        Images so far.

    Raises
    ------
    UserError
        From every method but `close`, if the disk refuses.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], out: Path) -> None:
        self.count = 0
        self.shape, self._dtype, self._out = shape, dtype, out
        with plain_errors(out):
            self._file = path.open("w+b")
            try:
                self._write_header()
            except OSError:
                self.close()
                raise

    def _write_header(self) -> None:
        """Write the header; numpy pads it so that its length does not depend on the count."""
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.count, *self.shape)}
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, images: np.ndarray) -> None:
        """Add images (n, B, S, S).

        Raises
        ------
        ValueError
            If they are of another shape.
        """
        if images.shape[1:] != self.shape:
            raise ValueError(f"images are {images.shape}, not (n, {', '.join(map(str, self.shape))})")
        with plain_errors(self._out):
            self._file.write(np.ascontiguousarray(images, self._dtype).data)
        self.count += len(images)

    def finish(self) -> None:
        """Say in the file how many images it has, and close it once all of it has reached the disk."""
        with plain_errors(self._out):
            self._write_header()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def close(self) -> None:
        """Close the file as it is."""
        with suppress(OSError):  # on a full disk, closing tries to write once more
            self._file.close()
