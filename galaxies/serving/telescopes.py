"""Surveys through which the page shows the light of a generator: which of them can, in what bands, or why none can."""

from __future__ import annotations

from dataclasses import replace

from galaxies.common.errors import UserError
from galaxies.generation.observed import ObservedSampler, binned_for, filters_for
from galaxies.generation.sampler import GalaxySampler
from galaxies.serving.answers import TelescopeBandFacts, TelescopeFacts
from galaxies.telescope.surveys import Survey, SurveyBand, find_survey

# By their names in surveycodex, from the shallowest to the sharpest; people know the last one by its telescope.
SURVEYS = {"SDSS": "SDSS", "LSST": "LSST", "Euclid_VIS": "Euclid VIS", "COSMOS": "HST (COSMOS)"}


def surveys_for(sampler: GalaxySampler) -> dict[str, Survey | str]:
    """Return the surveys by name, each in the bands that the light tells of, or in a sentence why it cannot see it.

    Pixels that are finer than those of the light are binned. There is none for a generator that paints no light.
    """
    return {name: _survey_for(sampler, name) for name in SURVEYS} if sampler.config.observes else {}


def _survey_for(sampler: GalaxySampler, name: str) -> Survey | str:
    try:
        survey = binned_for(sampler, find_survey(name), None)
    except UserError as error:
        return str(error)
    seen: list[SurveyBand] = []
    reason = ""
    for band in survey.bands:
        try:
            filters_for(sampler, replace(survey, bands=(band,)))
            seen.append(band)
        except UserError as error:
            reason = str(error)
    return replace(survey, bands=tuple(seen)) if seen else reason


def facts_of(name: str, survey: Survey | str) -> TelescopeFacts:
    """Return what `/api/model` says of a survey."""
    if isinstance(survey, str):
        return TelescopeFacts(name=name, label=SURVEYS[name], pixel_scale=None, binning=1, bands=[], refused=survey)
    bands = [
        TelescopeBandFacts(name=band.name, psf_fwhm=band.psf_fwhm, exposure_s=band.exposure_s) for band in survey.bands
    ]
    return TelescopeFacts(
        name=name,
        label=SURVEYS[name],
        pixel_scale=survey.pixel_scale,
        binning=survey.binning,
        bands=bands,
        refused=None,
    )


def before(sampler: GalaxySampler, survey: Survey, exposure_s: float | None) -> ObservedSampler:
    """Return a generator with a survey before it, which exposes for so long in each band or as long as it does."""
    return ObservedSampler.of(sampler, survey if exposure_s is None else survey.with_exposure(exposure_s))
