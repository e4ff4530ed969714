"""The noise of a telescope's images, which a generator of flux made of smooth maps cannot draw.

In flux, noise is simple: of the same strength all over the sky and independent of the galaxy, but for the photons of
the galaxy's own light. So it is added in flux and not in the stretched values, where a galaxy's core would squeeze it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galaxies.images.stretch import NOISE_SOFTENING, AsinhStretch, inverse_sine, stretched
from galaxies.measure.frame import corner_mask
from galaxies.networks.grain_measurement import Patches
from galaxies.networks.layers import ImageGenerator
from galaxies.networks.sky_grain import GRAIN_REACH, NEIGHBOURHOOD, averaged

_SAMPLE, _LEAST_SAMPLE = 1024, 256  # images of 64 pixels a side that are measured, and larger ones at least
_PATCH_PX = 20  # side of the corners that the spectrum is measured in
_QUIET_SHARE = 0.3  # part of the corners that count as sky
_NORMAL_MEDIAN = 0.6745  # of the size of standard normal numbers
_STEPS_OF_LIGHT = (4.0, 8.0, 16.0, 32.0, 64.0)  # ends of the ranges in which photons are looked for, noises a pixel
_LEAST_PIXELS = 500  # in such a range
_FAINT = 1.0  # noises a pixel; what differs less from the sky is sky
_FAR_UP = 40.0  # logarithm of the light, softenings, beyond which noise makes no difference


class FluxNoise(NamedTuple):
    """The noise of B bands.

    Attributes
    ----------
    kernels : Tensor, (B, B, 7, 7)
        What turns white noise into noise of variance 1 in each band, as neighbours and bands share it.
    strength : Tensor, (B,)
        Standard deviation of the noise of the usual image's sky, nJy a pixel.
    scatter : Tensor, (B, B)
        Lower triangle that turns B standard normal numbers into the logarithms of an image's noise over the usual.
    photons : Tensor, (B,)
        Variance that a nanojansky of the galaxy's light adds, nJy.
    """

    kernels: Tensor
    strength: Tensor
    scatter: Tensor
    photons: Tensor

    @classmethod
    def white(cls, strength: Tensor) -> FluxNoise:
        """Return noise (B,) that is white and alike in all images, without that of photons."""
        num_bands, side = len(strength), 2 * GRAIN_REACH + 1
        kernels = torch.zeros(num_bands, num_bands, side, side)
        kernels[range(num_bands), range(num_bands), GRAIN_REACH, GRAIN_REACH] = 1.0
        return cls(kernels, strength, torch.zeros(num_bands, num_bands), torch.zeros(num_bands))


class FluxGrain(nn.Module):
    """Add noise to stretched images of flux, as it is in the training images; nothing of it is trained.

    Parameters
    ----------
    softening : tuple of float, B of them
        Of the stretch, nJy a pixel.
    """

    softening: Tensor
    kernels: Tensor
    strength: Tensor
    scatter: Tensor
    photons: Tensor

    def __init__(self, softening: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("softening", torch.tensor(softening), persistent=False)
        noise = FluxNoise.white(torch.tensor(softening) / NOISE_SOFTENING)
        for name, value in noise._asdict().items():
            self.register_buffer(name, value)

    @torch.no_grad()
    def learn(self, noise: FluxNoise) -> None:
        """Take over what was measured."""
        for name, value in noise._asdict().items():
            getattr(self, name).copy_(value)

    def forward(self, images: Tensor, white: Tensor, per_image_noise: Tensor) -> Tensor:
        """Return images with noise, float32.

        Parameters
        ----------
        images : Tensor, (N, B, S, S)
            Stretched.
        white : Tensor, (N, B, S + 6, S + 6)
            Standard normal.
        per_image_noise : Tensor, (N, B)
            Standard normal: how strong the noise of an image is.
        """
        with torch.autocast(images.device.type, enabled=False):
            softening = self.softening[:, None, None]
            light = torch.sinh(inverse_sine(images.float()).clamp(-_FAR_UP, _FAR_UP))  # softenings
            own = self.strength * F.linear(per_image_noise.float(), self.scatter).exp()  # (N, B)
            photons = self.photons[:, None, None] / softening * light.detach().clamp_min(0)
            variance = (own[..., None, None] / softening).square() + photons
            noise = variance.sqrt() * F.conv2d(white.float(), self.kernels)
            return stretched(torch.asinh(light + noise))


@torch.no_grad()
def measure_flux_noise(images: Tensor, softening: tuple[float, ...]) -> FluxNoise:
    """Measure the noise of stretched images of flux (N, B, S, S); 0 of images without any.

    How strong it is in an image is told by how pixels of its corners differ from their neighbours: by the second
    derivative along both axes at once, of which smooth light has little, so that a galaxy larger than the frame does
    not count as noise.
    """
    step = -(-len(images) // max(_LEAST_SAMPLE, _SAMPLE * 64**2 // images.shape[-1] ** 2))
    flux = AsinhStretch(torch.tensor(softening)).flux(images[::step])
    corners = corner_mask(flux.shape[-1], flux.device)[1:-1, 1:-1]
    differences = _differences(flux)[..., corners].abs().median(-1).values  # (N, B)
    noisy = (differences > 0).all(1)
    if not noisy.any():
        return FluxNoise.white(torch.zeros(len(softening)))
    flux, differences = flux[noisy], differences[noisy]
    kernels = _of_unit_bands(Patches.of(flux / differences[..., None, None], _PATCH_PX).kernel(_QUIET_SHARE))
    reach = 2 * GRAIN_REACH
    unit = _differences(F.pad(kernels, (reach, reach, reach, reach))).square().sum((1, 2, 3)).sqrt()
    noise = differences / (_NORMAL_MEDIAN * unit)
    strength = noise.median(0).values
    apart = (noise / strength).log()
    apart = apart - apart.mean(0)
    covariance = apart.T @ apart / len(apart) + 1e-8 * torch.eye(len(strength))
    photons = _photons(flux / noise[..., None, None], strength)
    return FluxNoise(kernels, strength, torch.linalg.cholesky(covariance), photons)


def _differences(images: Tensor) -> Tensor:
    """Return the second difference along both axes at once, without the border, of images (..., S, S)."""
    along = images[..., :-2, :] - 2 * images[..., 1:-1, :] + images[..., 2:, :]
    return along[..., :-2] - 2 * along[..., 1:-1] + along[..., 2:]


def _of_unit_bands(kernels: Tensor) -> Tensor:
    """Scale kernels (B, B, 7, 7) so that the noise of each band has variance 1."""
    return kernels / kernels.square().sum((1, 2, 3), keepdim=True).sqrt()


def _photons(in_noises: Tensor, strength: Tensor) -> Tensor:
    """Return the variance (B,) that a nanojansky of light adds, nJy, from how pixels differ from their neighbours.

    What arms and cores add to the differences depends on the light, other than what photons do: so that range of light
    counts in which pixels differ least.
    """
    around = averaged(in_noises, NEIGHBOURHOOD)[..., 1:-1, 1:-1].transpose(0, 1).flatten(1)  # (B, pixels)
    differences = _differences(in_noises).abs().transpose(0, 1).flatten(1)
    found = []
    for light, size in zip(around, differences, strict=True):
        sky = size[light.abs() < _FAINT]
        slopes = []
        for low, high in pairwise(_STEPS_OF_LIGHT):
            chosen = (light > low) & (light < high)
            if len(sky) and int(chosen.sum()) >= _LEAST_PIXELS:
                ratio = (size[chosen].median() / sky.median()).square()
                slopes.append((ratio - 1) / light[chosen].mean())
        found.append(torch.stack(slopes).amin().clamp_min(0) if slopes else torch.tensor(0.0))
    return torch.stack(found) * strength


class NoisyGenerator(ImageGenerator):
    """A generator of flux whose images get noise, from numbers of their own for every pixel.

    Parameters
    ----------
    network : nn.Module
        Draws stretched images (N, B, S, S) from noise and condition.
    latent_dim : int
        Length of the noise that `network` takes.
    image_size : int
    softening : tuple of float, B of them
    """

    def __init__(self, network: nn.Module, latent_dim: int, image_size: int, softening: tuple[float, ...]) -> None:
        super().__init__()
        side = image_size + 2 * GRAIN_REACH
        self.network, self.white = network, (len(softening), side, side)
        self.grain = FluxGrain(softening)
        self._parts = [latent_dim, math.prod(self.white), len(softening)]
        self.noise_dim = sum(self._parts)  # the network's, the pixels', and that of how strong an image's noise is

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate stretched images (N, B, S, S).

        Parameters
        ----------
        z : Tensor, (N, noise_dim)
            Standard normal.
        condition : Tensor, (N, condition_dim)
        """
        latent, white, per_image_noise = z.split(self._parts, 1)
        return self.grain(self.network(latent, condition), white.unflatten(1, self.white), per_image_noise)
