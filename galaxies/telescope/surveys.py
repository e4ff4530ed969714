"""Surveys by name: pixels, seeing, sky, exposure and zero points as the package surveycodex has them, with references.

surveycodex (LSST Dark Energy Science Collaboration, MIT licence) says where each of its numbers comes from. Its zero
point is the AB magnitude of a source that gives one electron a second, so that the gain, electrons a count, changes
nothing here: pixels are in nanojansky and noise counts electrons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from config_physics import AB_ZERO_POINT
from galaxies.common.errors import UserError, shown
from galaxies.telescope.psf import AIRY, KOLMOGOROV

_IN_SPACE = ("COSMOS", "Euclid_NISP", "Euclid_VIS", "Roman_WFI", "Roman_WFI_Deep")
# Half-power edges in nanometres of filters that lie alone or over others, which their neighbours say nothing about.
_WIDE_FILTERS = {
    ("COSMOS", "f814w"): (703.0, 912.0),  # ACS Instrument Handbook
    ("Euclid_VIS", "IE"): (550.0, 900.0),  # Cropper et al. 2016
    ("PanSTARRS", "w"): (410.0, 820.0),  # Tonry et al. 2012, Table 4
    ("Roman_WFI_Deep", "F146"): (927.0, 2000.0),  # Roman Wide Field Instrument reference information
}


@dataclass(frozen=True)
class SurveyBand:
    """One filter of a survey.

    Attributes
    ----------
    name : str
    wavelength_nm : float
        Effective wavelength.
    edges_nm : tuple of float
        Where the filter begins and ends, taken as open in between.
    psf_fwhm : float
        Arcseconds, before the pixels.
    sky_brightness : float
        AB magnitudes a square arcsecond.
    zero_point : float
        AB magnitude of one electron a second.
    exposure_s : float
        Seconds.
    """

    name: str
    wavelength_nm: float
    edges_nm: tuple[float, float]
    psf_fwhm: float
    sky_brightness: float
    zero_point: float
    exposure_s: float

    @property
    def electrons_per_njy(self) -> float:
        """Electrons that a nanojansky gives in the whole exposure."""
        return 10 ** (0.4 * (self.zero_point - AB_ZERO_POINT)) * self.exposure_s

    @property
    def photon_variance(self) -> float:
        """Variance that a source's light adds, nanojansky squared a nanojansky."""
        return 1 / self.electrons_per_njy

    def sky_noise(self, pixel_scale: float) -> float:
        """Return the standard deviation of the sky in nanojansky a pixel of `pixel_scale` arcseconds."""
        sky = 10 ** (0.4 * (AB_ZERO_POINT - self.sky_brightness)) * pixel_scale**2  # nanojansky
        return math.sqrt(sky * self.photon_variance)


@dataclass(frozen=True)
class Survey:
    """A survey in some of its bands.

    Attributes
    ----------
    name : str
    pixel_scale : float
        Arcseconds.
    profile : str
        Of the point-spread function: `kolmogorov` on the ground, `airy` in space.
    obscuration : float
        Diameter of the mirror's hole over its own.
    bands : tuple of SurveyBand
    """

    name: str
    pixel_scale: float
    profile: str
    obscuration: float
    bands: tuple[SurveyBand, ...]


def find_survey(name: str, bands: Sequence[str] | None = None) -> Survey:
    """Look up a survey.

    Parameters
    ----------
    name : str
        As surveycodex has it; capitals do not matter.
    bands : sequence of str, optional
        Names of its filters, in the order wanted; all of them by default.

    Raises
    ------
    UserError
        If surveycodex is not installed, knows no such survey or filter, or a filter is named twice.
    """
    try:
        import surveycodex  # here, since it takes astropy along
    except ImportError as error:
        raise UserError("surveys are described by the package surveycodex: pip install surveycodex") from error
    known = {each.lower(): each for each in surveycodex.available_surveys}
    if name.lower() not in known:
        raise UserError(f"no survey is called {shown(name)}: choose from {', '.join(sorted(known.values()))}")
    codex = surveycodex.get_survey(known[name.lower()])
    filters = tuple(codex.available_filters)
    wanted = filters if bands is None else tuple(_filter_name(codex.name, filters, band) for band in bands)
    for band in wanted:
        if wanted.count(band) > 1:
            raise UserError(f"band {band} of {codex.name} is named twice")
    return Survey(
        name=codex.name,
        pixel_scale=float(codex.pixel_scale.value),
        profile=AIRY if codex.name in _IN_SPACE else KOLMOGOROV,
        obscuration=math.sqrt(float(codex.obscuration.value)),  # which is a part of the area there
        bands=tuple(_band(codex, band) for band in wanted),
    )


def _filter_name(survey: str, filters: tuple[str, ...], wanted: str) -> str:
    """Return a filter's name in surveycodex; capitals do not matter."""
    for name in filters:
        if name.lower() == wanted.strip().lower():
            return name
    raise UserError(f"{survey} has no band {shown(wanted)}: choose from {', '.join(filters)}")


def _band(codex: Any, name: str) -> SurveyBand:
    one = codex.get_filter(name)
    return SurveyBand(
        name=name,
        wavelength_nm=float(one.effective_wavelength.value),
        edges_nm=_edges(codex, name),
        psf_fwhm=float(one.psf_fwhm.value),
        sky_brightness=float(one.sky_brightness.value),
        zero_point=float(one.zeropoint.value),
        exposure_s=float(one.full_exposure_time.value),
    )


def _edges(codex: Any, name: str) -> tuple[float, float]:
    """Return a filter's edges: as wide as from half way to the one neighbour to half way to the other."""
    if (codex.name, name) in _WIDE_FILTERS:
        return _WIDE_FILTERS[codex.name, name]
    each = [f for f in codex.available_filters if (codex.name, f) not in _WIDE_FILTERS]
    places = sorted(float(codex.get_filter(f).effective_wavelength.value) for f in each)
    centre = float(codex.get_filter(name).effective_wavelength.value)
    i = places.index(centre)
    gaps = [places[k + 1] - places[k] for k in (i - 1, i) if k >= 0 and k + 1 < len(places)]
    width = sum(gaps) / len(gaps)
    return centre - width / 2, centre + width / 2
