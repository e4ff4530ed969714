"""Galaxies of a generator as any survey observes them: its filters, point-spread function, pixels and noise.

    sampler = ObservedSampler.before(find_survey("Euclid_VIS").with_exposure(565), path)
    images = sampler.generate(classes, values, seeds)

Everything else that asks a `GalaxySampler` for galaxies, measures them and writes them down does the same with these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from config_physics import Config, bands_of_attribute
from galaxies.common.errors import UserError
from galaxies.compute.seeded_noise import SKY, standard_normal
from galaxies.generation.build import fill_up
from galaxies.generation.fits_files import ImageFacts
from galaxies.generation.flux_measuring import FluxMeasurer
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.composites import pictures_of_run
from galaxies.images.stretch import NOISE_SOFTENING
from galaxies.telescope.filters import band_weights
from galaxies.telescope.observing import Noise, noisy, resampled
from galaxies.telescope.psf import Psf
from galaxies.telescope.surveys import Survey

MOST_PIXELS = 4096  # a side
_PSF_WIDTHS = 12.0  # that the picture of a PSF is wide


def filters_for(sampler: GalaxySampler, survey: Survey) -> Tensor:
    """Return of what parts of a generator's bands the light in a survey's filters is made, (F, B), float32.

    Raises
    ------
    UserError
        If the generator paints no light, a filter sees what its bands do not tell of, or the survey's pixels are finer
        than those of the light.
    """
    sampler.check_light()
    weights = band_weights(sampler.config.wavelengths, survey.bands)
    scale = sampler.light_pixel_scale
    if not survey.pixel_scale > scale * (1 - 1e-5):
        raise UserError(
            f"{survey.name} has pixels of {survey.pixel_scale:g} arcseconds, finer than the {scale:g} of the light "
            f"that the run {sampler.config.run} paints: add up {survey.binning_for(scale)} x "
            f"{survey.binning_for(scale)} of them by --bin auto, or choose a survey whose pixels are as large"
        )
    return weights


def binned_for(sampler: GalaxySampler, survey: Survey, binning: int | None) -> Survey:
    """Return a survey with so many pixels a side added up in one, or with None as few as a generator's light needs."""
    return survey.binned(survey.binning_for(sampler.light_pixel_scale) if binning is None else binning)


class ObservedSampler(GalaxySampler):
    """A generator with a survey before it, see `before`: `generate` and `draw` return what that observes.

    The noise of an image is drawn by its seed, and so is the galaxy: a longer exposure sees the same one.

    Attributes
    ----------
    survey : Survey
    """

    survey: Survey

    @classmethod
    def before(
        cls,
        survey: Survey,
        checkpoint: Path,
        device: str = "auto",
        pixels: int | None = None,
        with_noise: bool = True,
        binning: int | None = 1,
        **solver: Any,
    ) -> ObservedSampler:
        """Load a generator, and set it before a survey.

        Parameters
        ----------
        survey : Survey
        checkpoint, device, **solver
            As of `from_checkpoint`.
        pixels : int, optional
            Of an image a side, 8 to `MOST_PIXELS`; by default as few as cover the frame that the generator paints.
        with_noise : bool
        binning : int, optional
            Pixels of the survey a side that are added up in one; None for as few as the light needs.

        Raises
        ------
        UserError
            As `from_checkpoint` and `filters_for` do, or if the images would be smaller or larger than that.
        """
        sampler = cls.from_checkpoint(checkpoint, device, **solver)
        assert isinstance(sampler, cls)
        sampler._observe_with(binned_for(sampler, survey, binning), pixels, with_noise)
        return sampler

    @classmethod
    def of(
        cls, sampler: GalaxySampler, survey: Survey, pixels: int | None = None, with_noise: bool = True
    ) -> ObservedSampler:
        """Set a survey before a generator that is loaded, and share its network; as `before` else.

        Raises
        ------
        UserError
            As `filters_for` does, or if the images would be smaller or larger than `before` says.
        """
        observed = cls.__new__(cls)
        observed.__dict__.update(sampler.__dict__)
        observed._observe_with(survey, pixels, with_noise)
        return observed

    def _observe_with(self, survey: Survey, pixels: int | None, with_noise: bool) -> None:
        weights = filters_for(self, survey)
        frame = self.config.image_size * self.config.pixel_scale
        side = math.ceil(frame / survey.pixel_scale * (1 - 1e-6)) if pixels is None else pixels
        if not 8 <= side <= MOST_PIXELS:
            raise UserError(
                f"images of {side} pixels a side, for a frame of {frame:.4g} arcseconds and pixels of "
                f"{survey.pixel_scale:g}: choose --pixels from 8 to {MOST_PIXELS}"
            )
        self.survey, self._with_noise, self._side = survey, with_noise, side
        device = self.engine.device
        sky = [band.sky_noise(survey.pixel_scale) for band in survey.bands]
        self._weights = weights.to(device)
        self._noise_sizes = Noise(
            torch.tensor([sky], device=device), torch.tensor([[b.photon_variance for b in survey.bands]], device=device)
        )
        self._psf = Psf.named(
            torch.tensor([[band.psf_fwhm for band in survey.bands]], device=device), survey.profile, survey.obscuration
        )
        self._seen = _seen_by(self.config, survey, sky)
        self.measure = FluxMeasurer(self.engine, self._seen)
        self.pictures = pictures_of_run(self._seen)
        widest = max(band.psf_fwhm for band in survey.bands)
        psf = Psf(self._psf.fwhm.cpu(), self._psf.profile)
        self.psfs = psf.image(
            max(5, 2 * math.ceil(_PSF_WIDTHS * widest / survey.pixel_scale / 2) + 1), survey.pixel_scale
        )[0]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of an image."""
        return len(self.survey.bands), self._side, self._side

    @property
    def facts(self) -> ImageFacts:
        """What files of the galaxies say of all of them."""
        return replace(ImageFacts.of_run(self._seen, self.origin, self.psfs), observation=self._observation())

    def choose_bands(self, names: Sequence[str]) -> None:
        """Choose the survey's bands that `pictures` shows; see `GalaxySampler.choose_bands`."""
        self.pictures = pictures_of_run(self._seen, names)

    def describe(self) -> str:
        """Say what draws the images."""
        bands = ", ".join(f"{band.name} {band.exposure_s:g} s" for band in self.survey.bands)
        without = "" if self._with_noise else ", without noise"
        binned = self.survey.said_of_binning(self.light_pixel_scale)
        return f"{super().describe()}; as {self.survey.name} sees them, {bands}{without}{binned and f'; {binned}'}"

    def _observation(self) -> dict[str, Any]:
        """Return what `ImageFacts.observation` says."""
        survey = self.survey
        bands = [
            {
                "name": band.name,
                "wavelength_nm": band.wavelength_nm,
                "exposure_s": band.exposure_s,
                "psf_fwhm": band.psf_fwhm,
                "sky_noise": band.sky_noise(survey.pixel_scale),
                "photons": band.photon_variance,
            }
            for band in survey.bands
        ]
        psf = survey.psf_profile
        binned: dict[str, Any] = {}
        if survey.binning > 1:
            binned = {
                "binning": survey.binning,
                "own_pixel_scale": survey.own_pixel_scale,
                "binned": survey.said_of_binning(self.light_pixel_scale),
            }
        return {
            "survey": survey.name,
            "pixel_scale": survey.pixel_scale,
            **binned,
            "pixels": self._side,
            "unit": "nJy",
            "psf": psf,
            "with_noise": self._with_noise,
            "bands": bands,
        }

    def _draw_chunk(
        self, noise: Tensor, seeds: np.ndarray | Tensor, told: Sequence[Tensor], light: bool = False
    ) -> Tensor:
        painted = super()._draw_chunk(noise, seeds, told, light=True)
        if light:
            return painted
        # Of a full chunk always, as networks are run: products of other sizes round differently.
        full = fill_up(painted, self._chunk)
        with torch.inference_mode():
            seen = (full.movedim(1, -1) @ self._weights.T).movedim(-1, 1)
            scales = self.light_pixel_scale, self.survey.pixel_scale
            seen = resampled(seen, *scales, self._side, self._psf)[: len(painted)]
            if not self._with_noise:
                return seen
            shape = (len(painted), *self.image_shape)
            normal = (
                standard_normal(seeds, math.prod(self.image_shape), SKY)[: len(painted)].to(seen.device).view(shape)
            )
            return noisy(seen, self._noise_sizes, normal)

    def _pixels(self, drawn: Tensor) -> Tensor:
        return drawn


def _seen_by(config: Config, survey: Survey, sky: Sequence[float]) -> Config:
    """Return the settings of a generator whose images were those of a survey: for what measures and shows them.

    Of its attributes there are those that need none but the survey's bands.
    """
    names = [band.name for band in survey.bands]
    rows = [row for row in config.attribute_rows if set(bands_of_attribute(row.name)) <= set(names)]
    return replace(
        config,
        bands=tuple(names),
        attributes=tuple(row.name for row in rows),
        attribute_ranges=tuple(end for row in rows for end in (row.low, row.high)),
        wavelengths=tuple(band.wavelength_nm for band in survey.bands),
        photons=tuple(band.photon_variance for band in survey.bands),
        softening=tuple(NOISE_SOFTENING * noise for noise in sky),
        pixel_scale=survey.pixel_scale,
        psf_fwhm=tuple(band.psf_fwhm for band in survey.bands),
        psf_profile=survey.psf_profile,
        psf_pixels=0,
    )
