"""What a file of a generated galaxy says of itself, that it is synthetic, of what and by whom, and how it is called."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from config_physics import Attribute, Config, attribute_of
from galaxies.common.version import SOFTWARE, SYNTHETIC
from galaxies.generation.fits_files import ImageFacts
from galaxies.generation.request_values import POSITION_ANGLE, SHARE, mixture_text
from galaxies.generation.requests import Requests

_NAMED = 3  # classes of a mixture that a name says, of the largest shares
_LONGEST = 180  # characters of a name; file systems take 255 bytes, and its folder and ending count on some
_NO_NAME = re.compile(r"[^A-Za-z0-9.+-]+")


def named_class(classes: Sequence[str], index: int, shares: Sequence[float] | None) -> str:
    """Return how names of files say a class, or of a mixture those of the largest shares."""
    if shares is None or max(shares) == 1:
        return classes[index]
    least = sorted(shares)[-_NAMED:][0]
    return mixture_text(classes, [share if share >= least else 0.0 for share in shares], index)


def file_stem(morphology: str, values: Mapping[str, float | None], seed: int, model: str) -> str:
    """Return the name of a galaxy's file without its ending: class, what was set, seed, model.

    Letters, digits, points, signs and underscores alone, as every file system takes them. Of many values those are
    named that a name has room for.
    """
    given = [f"{name}-{value:.6g}" for name, value in values.items() if value is not None]
    ends = (f"seed-{seed}", model)
    while given and sum(len(part) + 1 for part in (morphology, *given, *ends)) > _LONGEST:
        given.pop()
    return "_".join(_NO_NAME.sub("-", part) for part in (morphology, *given, *ends))


def file_stems(requests: Requests, config: Config) -> list[str]:
    """Return the names of the files of galaxies, without endings, in the order of the requests.

    Each is that of `file_stem`, as the page and the server name the same galaxy, with the position angle where one is
    asked for; further galaxies of one name, however it is spelt, have a number behind it.
    """
    model, seen, stems = model_of(config), set[str](), []
    angles, mixed = requests.position_angles, requests.shares
    for row, seed in enumerate(requests.seeds):
        values: dict[str, float | None] = {
            name: None if math.isnan(value) or requests.drawn else value
            for name, value in zip(config.attributes, requests.values[row].tolist(), strict=True)
        }
        if angles is not None and not math.isnan(angle := float(angles[row])):
            values[POSITION_ANGLE] = angle
        shares = None if mixed is None else mixed[row].tolist()
        chosen = named_class(config.classes, int(requests.classes[row]), shares)
        stem = name = file_stem(chosen, values, int(seed), model)
        number = 1
        while name.lower() in seen:  # on many file systems two names that differ by capitals alone are one
            number += 1
            name = f"{stem}_{number}"
        seen.add(name.lower())
        stems.append(name)
    return stems


def model_of(config: Config) -> str:
    """Return how files and requests call the model of a run: gan or diffusion."""
    return config.family.lower()


def png_texts(row: pd.Series, attributes: Sequence[Attribute], facts: ImageFacts, date: str = "") -> dict[str, str]:
    """Return the texts of a picture's PNG file by their keywords; the first ones are those of the PNG standard.

    Parameters
    ----------
    row : Series
        Of the catalogue.
    attributes : sequence of Attribute
        Of the run; what else was measured follows.
    facts : ImageFacts
    date : str
        When the file was made; without it the same galaxy has the same bytes at any time.

    References
    ----------
    PNG specification, 3rd edition (W3C 2025), section 11.3.3: predefined keywords.
    """
    texts = _texts_of_all(f"Synthetic galaxy: {row['morphology']}, seed {row['seed']}", facts, date) | {
        "Class": str(row["morphology"]),
        "Shares of classes": _shares_in(row),
        "Seed": str(row["seed"]),
        "Set by user": str(row.get("set_by_user", "")),
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


def _shares_in(row: pd.Series) -> str:
    """Return the shares of classes in a row of a catalogue as they are asked for, empty where none are."""
    shares = {str(c).removeprefix(SHARE): float(row[c]) for c in row.index if str(c).startswith(SHARE)}
    if not shares:
        return ""
    return mixture_text(list(shares), list(shares.values()), list(shares).index(str(row["morphology"])))


def grid_texts(count: int, facts: ImageFacts) -> dict[str, str]:
    """Return the texts of the PNG file of a grid of so many galaxies."""
    texts = _texts_of_all(f"{count} synthetic galaxies", facts, "")
    return {keyword: text for keyword, text in texts.items() if text}


def _texts_of_all(title: str, facts: ImageFacts, date: str) -> dict[str, str]:
    """Return what is said of every file of a generator's galaxies, empty where it is not known."""
    origin = facts.origin
    return {
        "Title": title,
        "Description": SYNTHETIC,
        "Software": SOFTWARE,
        "Creation Time": date,
        "Copyright": origin.get("credit", ""),
        "Model": ", ".join([origin.get("model", ""), *(f"{n} {origin[n]}" for n in ("run", "step") if n in origin)]),
        "Trained on": origin.get("source", ""),
        "Planes": f"composite of {', '.join(facts.bands)}"
        if facts.is_flux
        else "R, G, B, asinh-stretched display values",
    }
