"""Surveys by name: pixels, seeing, sky, exposure and zero points as the package surveycodex has them, with references.

surveycodex (LSST Dark Energy Science Collaboration, MIT licence) says where each of its numbers comes from. Its zero
point is the AB magnitude of a source that gives one electron a second, so that the gain, electrons a count, changes
nothing here: pixels are in nanojansky and noise counts electrons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config_physics import AB_ZERO_POINT
from galaxies.common.errors import UserError, shown
from galaxies.telescope.profiles import AIRY, KOLMOGOROV

LONGEST_S = 1e8  # three years
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
        Seconds, of all visits.
    read_noise : float
        Electrons a pixel that each reading of the detector adds, standard deviation; of all that are binned in one.
    visit_s : float
        Seconds after which the detector is read, at most; infinite where it is read once.
    """

    name: str
    wavelength_nm: float
    edges_nm: tuple[float, float]
    psf_fwhm: float
    sky_brightness: float
    zero_point: float
    exposure_s: float
    read_noise: float = 0.0
    visit_s: float = math.inf

    @property
    def electrons_per_njy(self) -> float:
        """Electrons that a nanojansky gives in the whole exposure."""
        return 10 ** (0.4 * (self.zero_point - AB_ZERO_POINT)) * self.exposure_s

    @property
    def photon_variance(self) -> float:
        """Variance that a source's light adds, nanojansky squared a nanojansky."""
        return 1 / self.electrons_per_njy

    def sky_noise(self, pixel_scale: float) -> float:
        """Return the standard deviation where there is no source, in nanojansky a pixel of `pixel_scale` arcseconds.

        It is that of the sky's electrons and of what reading the pixels adds.
        """
        sky = 10 ** (0.4 * (AB_ZERO_POINT - self.sky_brightness)) * pixel_scale**2  # nanojansky
        reading = self.readings * (self.read_noise * self.photon_variance) ** 2
        return math.sqrt(sky * self.photon_variance + reading)

    @property
    def readings(self) -> int:
        """How often the detector is read."""
        return max(1, math.ceil(self.exposure_s / self.visit_s * (1 - 1e-9)))


@dataclass(frozen=True)
class Survey:
    """A survey in some of its bands.

    Attributes
    ----------
    name : str
    pixel_scale : float
        Arcseconds.
    profile : str
        Of the point-spread function, as `profile_of` takes it: `kolmogorov` on the ground, `airy` in space.
    obscuration : float
        Diameter of the mirror's hole over its own.
    bands : tuple of SurveyBand
    binning : int
        Of the survey's own pixels, so many a side are one here.
    """

    name: str
    pixel_scale: float
    profile: str
    obscuration: float
    bands: tuple[SurveyBand, ...]
    binning: int = 1

    @property
    def psf_profile(self) -> str:
        """The profile with its number behind it, as runs have it."""
        return f"{self.profile}:{self.obscuration:g}" if self.profile == AIRY else self.profile

    @property
    def own_pixel_scale(self) -> float:
        """Arcseconds a pixel before binning."""
        return _plain(self.pixel_scale / self.binning)

    def binning_for(self, light_scale: float) -> int:
        """Return the fewest pixels a side that have to be binned to be no finer than light of a scale, arcseconds."""
        return max(1, math.ceil(light_scale / self.pixel_scale * (1 - 1e-5)))

    def binned(self, pixels: int) -> Survey:
        """Return the survey with the counts of `pixels` by `pixels` of its pixels added up in one.

        They are added after reading, as software does it: each was read, so that noise of the sky and of readings
        grows `pixels` times as a standard deviation, and light `pixels` squared times. Point-spread function, zero
        points and exposures are what they were.
        """
        bands = (replace(band, read_noise=pixels * band.read_noise) for band in self.bands)
        scale, binning = _plain(pixels * self.pixel_scale), pixels * self.binning
        return replace(self, pixel_scale=scale, bands=tuple(bands), binning=binning)

    def said_of_binning(self, light_scale: float = 0.0) -> str:
        """Say how pixels are binned, and why if light of a scale (arcseconds) is the reason; "" if they are not."""
        if self.binning == 1:
            return ""
        side = f"{self.binning} x {self.binning}"
        said = f"{self.name} pixels of {self.own_pixel_scale:g} arcsec binned {side} to {self.pixel_scale:g} arcsec"
        if self.own_pixel_scale < light_scale * (1 - 1e-5):
            said += f": the galaxies' light has {light_scale:g} arcsec pixels"
        return said

    def with_exposure(self, seconds: float | Mapping[str, float]) -> Survey:
        """Return the survey with another exposure: of all bands, or of those that are named.

        Raises
        ------
        UserError
            If an exposure is not above 0 and at most `LONGEST_S`, or a band that is named is none of the survey's.
        """
        names = [band.name for band in self.bands]
        wanted = dict(seconds) if isinstance(seconds, Mapping) else dict.fromkeys(names, seconds)
        exposures = {_filter_name(self.name, tuple(names), name): value for name, value in wanted.items()}
        for name, value in exposures.items():
            if not 0 < value <= LONGEST_S:
                raise UserError(
                    f"an exposure of {value:g} seconds in band {name} of {self.name}: choose more than 0 and at most "
                    f"{LONGEST_S:g} seconds"
                )
        bands = (replace(band, exposure_s=float(exposures.get(band.name, band.exposure_s))) for band in self.bands)
        return replace(self, bands=tuple(bands))


def _plain(scale: float) -> float:
    """Return a scale without the last digits that products of decimals leave."""
    return float(f"{scale:.12g}")


def find_survey(name: str, bands: Sequence[str] | None = None) -> Survey:
    """Look up a survey.

    Parameters
    ----------
    name : str
        As surveycodex has it, where capitals do not matter; or the path of a file that describes one, which ends in
        ".json" (see `survey_files.read_survey`).
    bands : sequence of str, optional
        Names of its filters, in the order wanted; all of them by default.

    Raises
    ------
    UserError
        If the file cannot be read or describes none, surveycodex is not installed, there is no such survey or filter,
        or a filter is named twice.
    """
    if name.strip().lower().endswith(".json"):
        from galaxies.telescope.survey_files import read_survey  # which makes a `Survey`

        own = read_survey(Path(name.strip()))
        wanted = _wanted(own.name, tuple(band.name for band in own.bands), bands)
        return replace(own, bands=tuple(next(b for b in own.bands if b.name == band) for band in wanted))
    try:
        import surveycodex  # here, since it takes astropy along
    except ImportError as error:
        raise UserError("surveys are described by the package surveycodex: pip install surveycodex") from error
    known = {each.lower(): each for each in surveycodex.available_surveys}
    if name.lower() not in known:
        raise UserError(
            f"no survey is called {shown(name)}: choose from {', '.join(sorted(known.values()))}, or describe your own "
            "in a file that ends in .json"
        )
    codex = surveycodex.get_survey(known[name.lower()])
    filters = tuple(codex.available_filters)
    wanted = _wanted(codex.name, filters, bands)
    return Survey(
        name=codex.name,
        pixel_scale=float(codex.pixel_scale.value),
        profile=AIRY if codex.name in _IN_SPACE else KOLMOGOROV,
        obscuration=math.sqrt(float(codex.obscuration.value)),  # which is a part of the area there
        bands=tuple(_band(codex, band) for band in wanted),
    )


def _wanted(survey: str, filters: tuple[str, ...], bands: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the filters that are wanted, each once."""
    wanted = filters if bands is None else tuple(_filter_name(survey, filters, band) for band in bands)
    for band in wanted:
        if wanted.count(band) > 1:
            raise UserError(f"band {band} of {survey} is named twice")
    return wanted


def _filter_name(survey: str, filters: tuple[str, ...], wanted: str) -> str:
    """Return a filter's name as its survey has it; capitals do not matter where they tell no two apart."""
    if wanted.strip() in filters:
        return wanted.strip()
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
    places = [float(codex.get_filter(f).effective_wavelength.value) for f in each]
    return edges_between(places)[each.index(name)]


def edges_between(places: Sequence[float]) -> list[tuple[float, float]]:
    """Return edges of filters at different wavelengths: as wide as from half way to one neighbour to that to the other.

    At the ends, and of a filter that is alone, there is one neighbour or none: twice the half, or a fifth of its
    wavelength.
    """
    order = sorted(places)
    edges = []
    for centre in places:
        i = order.index(centre)
        gaps = [order[k + 1] - order[k] for k in (i - 1, i) if k >= 0 and k + 1 < len(order)]
        width = sum(gaps) / len(gaps) if gaps else centre / 5
        edges.append((centre - width / 2, centre + width / 2))
    return edges
