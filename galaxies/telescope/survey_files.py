"""Surveys of one's own: a small JSON file that says what `surveycodex` says of the published ones.

    {
      "format_version": 1,
      "name": "MyTelescope", "pixel_scale": 0.25, "psf": "moffat:3.5", "gain": 2.0,
      "bands": [
        {"name": "r", "wavelength_nm": 622, "edges_nm": [552, 691], "psf_fwhm": 0.9, "sky_brightness": 21.0,
         "zero_point": 26.8, "exposure_s": 1800, "read_noise": 5.0, "visit_s": 300}
      ]
    }

docs/surveys.md describes each entry.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from config_physics import BAND_NAME, MOST_BANDS
from galaxies.common.errors import UserError, shown
from galaxies.common.reading import read_json
from galaxies.common.schema import SchemaError, entries, items, number, text, whole
from galaxies.telescope.profiles import AIRY, profile_of
from galaxies.telescope.surveys import LONGEST_S, Survey, SurveyBand, edges_between

_BYTES = 1 << 20
_CURE = "docs/surveys.md says what describes a survey"
_BAND = entries(
    {
        "name": text(most=20),
        "wavelength_nm": number(100, 30_000),
        "psf_fwhm": number(0.001, 60),
        "sky_brightness": number(5, 35),
        "zero_point": number(0, 45),
        "exposure_s": number(1e-6, LONGEST_S),
    },
    {
        "edges_nm": items(number(50, 40_000), 2, 2),
        "gain": number(1e-3, 1e4),
        "read_noise": number(0, 1e5),
        "visit_s": number(1e-6, LONGEST_S),
    },
    others=False,
)
_SURVEY = entries(
    {
        "format_version": whole(1, 1),
        "name": text(most=40),
        "pixel_scale": number(0.001, 60),
        "psf": text(most=60),
        "bands": items(_BAND, 1, MOST_BANDS),
    },
    {"gain": number(1e-3, 1e4), "comment": text(most=10_000)},
    others=False,
)


def read_survey(path: Path) -> Survey:
    """Read the description of a survey.

    Parameters
    ----------
    path : Path
        Of a JSON file as above. `gain`, electrons a count, of the survey or of a band, says that a zero point is the
        AB magnitude of one count a second instead of one electron. Without `edges_nm` a filter is as wide as from half
        way to the one neighbour to half way to the other.

    Raises
    ------
    UserError
        If it cannot be read, an entry is missing, unknown or out of its range, a band is there twice, lies outside its
        edges or has no name for a file, or two have one wavelength and no edges.
    """
    found: dict[str, Any] = read_json(path, _SURVEY, _BYTES, _CURE)
    try:
        profile, obscuration = _profile(found["psf"])
        bands = _bands(found)
    except (SchemaError, UserError) as error:
        raise UserError(f"{path} describes no survey, since {error}; {_CURE}") from None
    return Survey(found["name"].strip() or path.stem, float(found["pixel_scale"]), profile, obscuration, bands)


def _profile(psf: str) -> tuple[str, float]:
    """Return the name of the profile, and the obscuration apart, as surveys by name have it."""
    profile_of(psf)
    name, _, rest = psf.strip().partition(":")
    return (AIRY, float(rest or 0)) if name == AIRY else (psf.strip(), 0.0)


def _bands(found: dict[str, Any]) -> tuple[SurveyBand, ...]:
    names, places = ([band[what] for band in found["bands"]] for what in ("name", "wavelength_nm"))
    for name in names:
        if not BAND_NAME.fullmatch(name):
            raise SchemaError(f"a band is called {shown(name)}, where letters and digits are possible")
        if names.count(name) > 1:
            raise SchemaError(f"band {name} is there twice")
    bands = []
    for band, usual in zip(found["bands"], edges_between(places), strict=True):
        low, high = map(float, band.get("edges_nm", usual))
        if not low < band["wavelength_nm"] < high:
            raise SchemaError(
                f"band {band['name']} at {band['wavelength_nm']:g} nm lies outside its edges, {low:g} to {high:g} nm: "
                "give edges_nm"
            )
        gain = band.get("gain", found.get("gain", 1.0))
        bands.append(
            SurveyBand(
                name=band["name"],
                wavelength_nm=float(band["wavelength_nm"]),
                edges_nm=(low, high),
                psf_fwhm=float(band["psf_fwhm"]),
                sky_brightness=float(band["sky_brightness"]),
                zero_point=band["zero_point"] + 2.5 * math.log10(gain),  # of an electron, of which a count has `gain`
                exposure_s=float(band["exposure_s"]),
                read_noise=float(band.get("read_noise", 0.0)),
                visit_s=float(band.get("visit_s", math.inf)),
            )
        )
    return tuple(bands)
