"""Work for processes that tests start: here, since each of them loads the file that its work stands in."""

from __future__ import annotations

import os
import signal

import torch

from galaxies.common.errors import UserError


def place_of(item: int) -> tuple[int, int, int, bool]:
    """Say who worked on an item, and how it is set up; raise or die where the item says so."""
    if item < 0:
        raise UserError(f"item {item} cannot be read")
    if item == 1000:
        os._exit(9)
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    return item, os.getpid(), torch.get_num_threads(), ignored
