"""What a file of a generated galaxy says of itself, that it is synthetic, of what and by whom, and how it is called."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from config_physics import Attribute, attribute_of
from galaxies.common.version import SOFTWARE, SYNTHETIC
from galaxies.generation.fits_files import ImageFacts

_NO_NAME = re.compile(r"[^A-Za-z0-9.+-]+")


def file_stem(morphology: str, values: Mapping[str, float | None], seed: int, model: str) -> str:
    """Return the name of a galaxy's file without its ending: class, what was set, seed, model.

    Letters, digits, points, signs and underscores alone, as every file system takes them.
    """
    given = [f"{name}-{value:.6g}" for name, value in values.items() if value is not None]
    return "_".join(_NO_NAME.sub("-", part) for part in (morphology, *given, f"seed-{seed}", model))


def png_texts(row: pd.Series, attributes: Sequence[Attribute], facts: ImageFacts, date: str) -> dict[str, str]:
    """Return the texts of a picture's PNG file by their keywords; the first ones are those of the PNG standard.

    Parameters
    ----------
    row : Series
        Of the catalogue.
    attributes : sequence of Attribute
        Of the run; what else was measured follows.
    facts : ImageFacts
    date : str
        When the file was made.

    References
    ----------
    PNG specification, 3rd edition (W3C 2025), section 11.3.3: predefined keywords.
    """
    origin = facts.origin
    planes = f"composite of {', '.join(facts.bands)}" if facts.is_flux else "R, G, B, asinh-stretched display values"
    texts = {
        "Title": f"Synthetic galaxy: {row['morphology']}, seed {row['seed']}",
        "Description": SYNTHETIC,
        "Software": SOFTWARE,
        "Creation Time": date,
        "Copyright": origin.get("credit", ""),
        "Model": ", ".join([origin.get("model", ""), *(f"{n} {origin[n]}" for n in ("run", "step") if n in origin)]),
        "Trained on": origin.get("source", ""),
        "Planes": planes,
        "Class": str(row["morphology"]),
        "Seed": str(row["seed"]),
        "Set by user": str(row["set_by_user"]),
    }
    names = [a.name for a in attributes]
    columns = [str(column) for column in row.index]
    names += [name for c in columns if (name := c.removeprefix("measured_")) != c and name not in names]
    own = {a.name: a for a in attributes}
    for name in names:
        attribute = own.get(name) or attribute_of(name)
        unit = f" {attribute.unit}" if attribute and attribute.unit else ""
        for kind in ("requested", "measured"):
            value = row.get(f"{kind}_{name}", math.nan)
            if math.isfinite(value):
                texts[f"{kind} {name}"] = f"{value:.6g}{unit}"
    texts |= {"Flag of measurement": str(row["flag"]), "Support": str(row["support"])}
    return {keyword: text for keyword, text in texts.items() if text}
