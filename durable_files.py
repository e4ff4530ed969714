"""Replace files whole: for other programs that have them open, and through a power cut."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PATIENCE_S = 2.0


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; Windows opens no folders and does so by itself.

    Raises
    ------
    OSError
        If the folder cannot be opened or the disk fails.
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(source: Path, target: Path) -> None:
    """Give a complete file its final name, in place of the old one.

    Windows refuses while another program, such as a picture viewer or a virus scanner, has the old file open; that
    usually passes within seconds.

    Raises
    ------
    OSError
        If the file cannot be replaced; the old one is still there.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            source.replace(target)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
