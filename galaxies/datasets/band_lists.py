"""Names of bands as command lines give them."""

from __future__ import annotations

import argparse

from config_physics import BAND_NAME, MOST_BANDS


def band_names(text: str) -> tuple[str, ...]:
    """Read an option's names of different bands, separated by commas, such as "g,r,Ks".

    Raises
    ------
    argparse.ArgumentTypeError
        If one is no name of a band or stands twice, or there are more than `MOST_BANDS`.
    """
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if not BAND_NAME.fullmatch(name):
            raise argparse.ArgumentTypeError(f"'{name}' is no band: letters and digits are, such as g, Ks, F814W")
        if names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"'{name}' stands twice in '{text}'")
    if len(names) > MOST_BANDS:
        raise argparse.ArgumentTypeError(f"it takes up to {MOST_BANDS} different bands")
    return names
