"""The progress bar of a training phase."""

from __future__ import annotations

import contextlib
import sys

from tqdm import tqdm


class TrainingBar(contextlib.AbstractContextManager["TrainingBar"]):
    """A bar that counts images, with the losses beside it.

    A terminal has a second line for the losses, which are too long for the bar's; a log file has one line.

    Parameters
    ----------
    label : str
    done, total : int
        Images so far and in all.
    quiet : bool
        Show nothing.
    """

    def __init__(self, label: str, done: int, total: int, quiet: bool) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5 if self._is_terminal else 30,
            desc=label,
            disable=quiet,
        )
        self._losses = tqdm(
            bar_format="{desc}", position=1, dynamic_ncols=True, leave=False, disable=quiet or not self._is_terminal
        )

    def advance(self, count: int) -> None:
        """Count images."""
        self._bar.update(count)

    def say(self, epoch: str, losses: str) -> None:
        """Show the epoch and the losses."""
        self._bar.set_postfix_str(epoch if self._is_terminal else f"{epoch} {losses}", refresh=False)
        self._losses.set_description_str(losses)

    def __exit__(self, *_: object) -> None:
        self._losses.close()
        self._bar.close()
