"""Mistakes that a user can mend, and how a sentence about them quotes what it was given."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend: scripts print it as one sentence and exit with status 2.

    Attributes
    ----------
    at_once : bool
        End the process without tidying up, which could hang or crash.
    """

    at_once = False


def shown(text: str, most: int = 60) -> str:
    """Quote text from a file for a message: cut to a length, and without characters that move the cursor."""
    return repr(text if len(text) <= most else text[:most] + "…")
