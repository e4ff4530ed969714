"""A generator of flux with known truth: it paints round exponential galaxies of the magnitudes and size it is told.

What it draws can be measured against what was asked, without any training.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from config_physics import Config
from galaxies.compute.device import Engine
from galaxies.datasets.conditions import take_apart
from galaxies.datasets.population import Population
from galaxies.generation.build import build_generator
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.stretch import AsinhStretch
from galaxies.networks.layers import ImageGenerator
from galaxies.storage.checkpoint import save_checkpoint
from physics_model import build_predictor

BANDS = ("g", "r", "i", "Ks")
ATTRIBUTES = ("magnitude_r", "color_g_r", "size_arcsec", "redshift")
GRIZ = {"bands": ("g", "r", "i", "z"), "wavelengths": (486.0, 625.0, 756.0, 870.0)}
NOISE = (10.0, 12.0, 20.0, 60.0)  # nJy a pixel
FLUX = {
    "kind": "flux",
    "bands": BANDS,
    "classes": ("disc", "early-type"),
    "softening": tuple(2 * noise for noise in NOISE),
    "pixel_scale": 0.2,
    "psf_fwhm": (0.0, 0.0, 0.0, 0.0),
    "attribute_ranges": (18.0, 22.0, 0.0, 1.5, 0.4, 2.0, 0.0, 1.0),
    "attributes": ATTRIBUTES,
    "width": 4,
    "latent_dim": 8,
}


class Painter(ImageGenerator):
    """Paint galaxies without a PSF; noise of the bands' typical strength comes from the latent numbers."""

    noise_dim = 8

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.register = config, torch.nn.Parameter(torch.zeros(()))

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return stretched images (N, B, S, S)."""
        scaled = take_apart(condition, self.config).scaled
        magnitude, color, size, _ = (a.from_unit(v) for a, v in zip(self.config.attribute_rows, scaled.T, strict=True))
        steps = torch.arange(len(BANDS)) - 1.0  # each band is redder than the last by the color g - r
        flux = 10 ** (-0.4 * (magnitude[:, None] - steps * color[:, None] - 31.4))
        side = self.config.image_size
        axis = torch.arange(side) - (side - 1) / 2
        radius = torch.hypot(axis[:, None], axis[None])
        profile = torch.exp(-radius / (size / 1.678 / self.config.pixel_scale)[:, None, None])
        profile = profile / profile.sum((1, 2), keepdim=True)
        images = flux[..., None, None] * profile[:, None]
        for row, one in zip(images, noise, strict=True):
            seed = int(1e6 * float(one[0].abs()))
            grain = torch.randn(row.shape, generator=torch.Generator().manual_seed(seed))
            row += grain * torch.tensor(NOISE)[:, None, None]
        return AsinhStretch(torch.tensor(self.config.softening))(images)


class LightPainter(ImageGenerator):
    """Paint light as `Painter` paints pictures, in g, r, i, z: twice as long as wide, lying along x, and lopsided."""

    noise_dim, latent_dim, turns = 8, 8, False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def light(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return light (N, 4, 128, 128), nJy a pixel of 0.1 arcseconds."""
        scaled = take_apart(condition, self.config).scaled
        magnitude, color, size, _ = (a.from_unit(v) for a, v in zip(self.config.attribute_rows, scaled.T, strict=True))
        flux = 10 ** (-0.4 * (magnitude[:, None] - (torch.arange(4) - 1.0) * color[:, None] - 31.4))
        axis = torch.arange(128) - 63.5
        radius = torch.hypot(axis, 2 * axis[:, None]) / math.sqrt(2)
        lopsided = (1 + 0.1 * (axis > 0)) * (1 + 0.05 * (axis[:, None] > 0))
        profile = torch.exp(-radius / (size / 1.678 / 0.1)[:, None, None]) * lopsided
        return flux[..., None, None] * (profile / profile.sum((1, 2), keepdim=True))[:, None]


class LightAndPicturePainter(LightPainter):
    """Paint the light of `LightPainter`, and for pictures what `Painter` does."""

    forward = Painter.forward


def light_painting_sampler(kind: type[GalaxySampler] = GalaxySampler) -> GalaxySampler:
    """Return a sampler of painted light, on the CPU."""
    config = Config(**{**FLUX, **GRIZ})
    return kind(LightAndPicturePainter(config), config, population(), Engine.choose("cpu", "fp32"))


def population(count: int = 400) -> Population:
    """Return galaxies that are uniform in the ranges of the attributes."""
    ends = torch.tensor(FLUX["attribute_ranges"]).view(-1, 2)
    numbers = torch.rand(count, len(ATTRIBUTES), generator=torch.Generator().manual_seed(5))
    return Population(torch.arange(count) % 2, ends[:, 0] + (ends[:, 1] - ends[:, 0]) * numbers)


def painting_sampler(**settings: object) -> GalaxySampler:
    """Return a sampler of painted galaxies, on the CPU."""
    config = Config(**{**FLUX, **settings})
    return GalaxySampler(Painter(config), config, population(), Engine.choose("cpu", "fp32"))


def write_flux_checkpoint(path: Path, psfs: Tensor | None = None, **settings: object) -> Path:
    """Write the checkpoint of an untrained GAN of flux."""
    config = Config(**{**FLUX, "run": "flux", "psf_fwhm": (0.8, 0.7, 0.0, 0.0), **settings})
    torch.manual_seed(0)
    real = population()
    state = {"config": config.to_dict(), "phase": "generator", "epoch": 1, "step": 7, "ema": None}
    network, predictor = build_generator(config), build_predictor(config)
    state["networks"] = {"generator": network.state_dict(), "predictor": predictor.state_dict()}
    keys = ("name", "unit", "low", "high", "raw")
    state["attributes"] = [{key: getattr(a, key) for key in keys} for a in config.attribute_rows]
    state["population"] = {"classes": real.classes % len(config.classes), "values": real.values}
    if psfs is not None:
        state["population"]["psfs"] = psfs
    state["provenance"] = {"source": "mock survey", "count": 400, "sha256": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, state)
    return path


def told(requests: Requests) -> tuple[object, ...]:
    """Return what `GalaxySampler.generate` takes of requests."""
    return requests.classes, requests.values, requests.seeds, requests.position_angles
