"""Measure what was drawn of flux in physical units: magnitudes, sizes and shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from config_physics import Config, bands_of_attribute
from galaxies.compute.cores import map_on_cores
from galaxies.compute.device import Engine
from galaxies.compute.recorded_functions import to_host
from galaxies.measure.flux import flux_attributes, measure_flux
from galaxies.measure.flux_model import psf_width
from galaxies.measure.photometry import NO_SOURCE
from galaxies.measure.statistics_table import PLACES, Measured
from physics_model import FluxScale

_ROWS_ON_A_CORE = 1024  # of pixels that are measured at a time, as display pictures are
_STRUCTURE = ("asymmetry", "gini", "m20")  # what takes longer, and is measured where it was asked for
_ALWAYS = ("size_arcsec", "ellipticity")


def is_measured(name: str, bands: tuple[str, ...]) -> bool:
    """Tell whether photometry reads an attribute off flux in these bands; a color in either direction."""
    named = bands_of_attribute(name)
    return name == "inclination" or name in flux_attributes(bands) or (bool(named) and set(named) <= set(bands))


def measured_names(config: Config) -> tuple[str, ...]:
    """Return what is measured on the galaxies of a run of flux: its attributes, all magnitudes, size and shape."""
    names = (*config.attributes, *(f"magnitude_{band}" for band in config.bands), *_ALWAYS)
    return tuple(dict.fromkeys(name for name in names if is_measured(name, config.bands)))


class FluxMeasurer:
    """Measure flux on the engine's device, with the pixel scale and the usual PSF of a run's galaxies.

    The noise is that of each image, as its corners show it.

    Parameters
    ----------
    engine : Engine
    config : Config
    """

    def __init__(self, engine: Engine, config: Config) -> None:
        self._engine, self._config = engine, config
        self.names = measured_names(config)
        scale = FluxScale.of(config, engine.device)
        assert scale is not None, "the run is one of flux"
        self._psf_fwhm = scale.psf_fwhm

    def take_psfs(self, psfs: Tensor) -> None:
        """Take the usual PSF from its images (B, P, P), of sum 1, which tell its wings."""
        self._psf_fwhm = psf_width(psfs[None].to(self._engine.device)) * self._config.pixel_scale

    def __call__(self, images: Tensor) -> Measured:
        """Measure images (N, B, S, S) float32, nJy a pixel; on a CPU alike for any number of threads."""
        return self.begin(images)()

    def begin(self, images: Tensor) -> Callable[[], Measured]:
        """Begin to measure images, and return what waits for the result and gives it; only CUDA works meanwhile."""
        images = images.to(self._engine.device)
        blocks = images.split(max(1, _ROWS_ON_A_CORE // images.shape[-1]))
        if self._engine.device.type == "cpu":
            measured = self._of_columns(torch.cat(map_on_cores(self._columns, blocks), 1))
            return lambda: measured
        columns = to_host(self._columns(images))
        return lambda: self._of_columns(columns()[0])

    @torch.inference_mode()
    def _columns(self, images: Tensor) -> Tensor:
        """Return the flag and below it the values, (1 + names, N), float32; NaN where a value means nothing."""
        bands, width = self._config.bands, self._psf_fwhm.expand(len(images), -1)
        structure = any(name in _STRUCTURE for name in self.names)
        found = measure_flux(images, self._config.pixel_scale, psf_fwhm=width, structure=structure)
        values = [torch.where(found.known(name, bands), found.attribute(name, bands), torch.nan) for name in self.names]
        side = images.shape[-1]
        places = (found.centroid_x / side, found.centroid_y / side, found.position_angle)  # in the order of `PLACES`
        seen = found.flag & NO_SOURCE == 0
        return torch.stack([found.flag.float(), *values, *(torch.where(seen, place, torch.nan) for place in places)])

    def _of_columns(self, columns: Tensor) -> Measured:
        flag, *values = columns.double().numpy()
        return Measured(dict(zip((*self.names, *PLACES), values, strict=True)), flag.astype(np.int64))
