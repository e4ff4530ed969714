"""The grain of the sky: noise as the survey's pictures have it, which a generator made of smooth maps cannot draw."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import BANDS
from galaxies.networks.layers import ImageGenerator

GRAIN_REACH = 3  # pixels that noise is spread over, to either side
NUM_GRAIN_PARAMETERS = 3  # by which the grain of one image differs from another's: strength, fineness, colour
KERNEL_STEP = 0.5  # between the kernels, in normal scores of the fineness; that in the middle is of the typical image
SCORE_STEP = 0.5  # the same between the rows of the table of grain parameters
NUM_KERNELS, NUM_SCORES = 7, 9
NUM_KNOTS = 9  # brightnesses at which the strength is known, evenly spaced in the root of the brightness
NEIGHBOURHOOD = 5  # pixels a side over which brightness is averaged
_START = 0.027  # strength before anything was measured, of the range -1 to 1: 3.4 grey levels, as in SDSS
_GREY = -7.0  # logarithm of how colourful grain is before anything was measured
_SYMMETRIC = 1e-3  # skewness below which noise counts as symmetric
_NO_SOFT_BLACK = 1e-12  # square of a soft end that is none, but has a gradient


class Grain(NamedTuple):
    """The grain of survey images, as `grain_measurement.measure_grain` finds it.

    An image's grain parameters are normal scores first: what its condition and its sky let expect, and a scatter of
    its own. A table turns them into values.

    Attributes
    ----------
    kernels : Tensor, (7, 3, 3, 7, 7)
        What turns white noise into grain whose mean variance of the colours is 1: from the smoothest to the finest.
    strength : Tensor, (9,)
        Root mean square of the typical image's grain at the knots of brightness.
    trend : Tensor, (C + 2, 3)
        Expected scores of the grain parameters: linear in the condition and in the sky's place among the knots of
        brightness, the last row being added.
    scatter : Tensor, (3, 3)
        Lower triangle that turns three standard normal numbers into what else there is to an image's scores.
    grain_parameters : Tensor, (9, 3)
        Values at scores of -2 to 2: logarithm of the strength over the typical one, place among the kernels, and
        logarithm of how colourful the grain is, the root mean square of what differs from grey over that of the grey.
    skewness : Tensor, (9,)
        Of the grain at the knots of brightness, as the width of the lognormal distribution that is as skewed: 0 for
        normal noise, and a third of the skewness where that is small.
    soft_black : Tensor, ()
        How softly pictures end at black: a survey's pixels were clipped there before they were averaged into those of
        the picture. 0 for a hard end; light of 0 becomes half of it.
    """

    kernels: Tensor
    strength: Tensor
    trend: Tensor
    scatter: Tensor
    grain_parameters: Tensor
    skewness: Tensor
    soft_black: Tensor


class SkyGrain(nn.Module):
    """Add grain to images: noise with the spectrum, the colours and the strength of the sky in the training images.

    Resampling and compression of a survey's pictures correlate the noise of neighbours and of the colours, the stretch
    makes it depend on the brightness and, where that is dark, skewed to the light, and one picture has stronger, finer
    or more colourful grain than another, depending on what it shows: a small galaxy is a magnified picture, whose noise
    is smooth, and a bright sky has more noise. All of this is measured; nothing is trained. Except near black, and
    where the result is clipped at white, the image gets the gradient that it would get without.

    Parameters
    ----------
    condition_dim : int
        Length of what the images were asked to be.
    num_bands : int
        Planes of the images; three in the shapes below.
    """

    kernels: Tensor
    strength: Tensor
    trend: Tensor
    scatter: Tensor
    grain_parameters: Tensor
    skewness: Tensor
    soft_black: Tensor

    def __init__(self, condition_dim: int, num_bands: int = len(BANDS)) -> None:
        super().__init__()
        smooth = torch.zeros(2 * GRAIN_REACH + 1)
        smooth[GRAIN_REACH - 1 : GRAIN_REACH + 2] = torch.tensor([1.0, 2.0, 1.0]) / 6**0.5
        kernels = torch.zeros(NUM_KERNELS, num_bands, num_bands, len(smooth), len(smooth))
        kernels[:, :, 0] = torch.outer(smooth, smooth)  # grey, and alike in all images
        grain_parameters = torch.zeros(NUM_SCORES, NUM_GRAIN_PARAMETERS)
        grain_parameters[:, 1], grain_parameters[:, 2] = NUM_KERNELS // 2, _GREY
        grain = Grain(
            kernels=kernels,
            strength=torch.full((NUM_KNOTS,), _START),
            trend=torch.zeros(condition_dim + 2, NUM_GRAIN_PARAMETERS),
            scatter=torch.eye(NUM_GRAIN_PARAMETERS),
            grain_parameters=grain_parameters,
            skewness=torch.zeros(NUM_KNOTS),
            soft_black=torch.tensor(0.0),
        )
        for name, value in grain._asdict().items():
            # Of four dimensions at most, as layers that keep channels last demand.
            self.register_buffer(name, value.flatten(0, 1) if name == "kernels" else value)

    @torch.no_grad()
    def learn(self, grain: Grain | None) -> None:
        """Take over what was measured; without any grain, none is added."""
        if grain is None:
            self.strength.zero_()
            self.soft_black.zero_()
            return
        for name, value in grain._asdict().items():
            buffer = getattr(self, name)
            buffer.copy_(value.reshape(buffer.shape))

    def forward(self, images: Tensor, white: Tensor, per_image_noise: Tensor, condition: Tensor) -> Tensor:
        """Return images with grain.

        Parameters
        ----------
        images : Tensor, (N, 3, S, S), in [-1, 1]
        white : Tensor, (N, 3, S + 6, S + 6)
            Standard normal.
        per_image_noise : Tensor, (N, 3)
            Standard normal: what makes the grain of an image differ from that of another under the same condition.
        condition : Tensor, (N, condition_dim)

        Returns
        -------
        Tensor, (N, 3, S, S), float32 in [-1, 1]
        """
        # All in float32: a step of bfloat16 is half a grey level.
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            brightness = images.detach().mean(1, keepdim=True)
            known = torch.cat([condition.float(), sky_place(brightness)], 1)
            expected = F.linear(known, self.trend[:-1].T, self.trend[-1])
            rows = (expected + F.linear(per_image_noise.float(), self.scatter)) / SCORE_STEP + NUM_SCORES // 2
            stronger, place, colour = (
                between(self.grain_parameters[:, i], rows[:, i]) for i in range(NUM_GRAIN_PARAMETERS)
            )
            knots = knot_place(averaged(brightness, NEIGHBOURHOOD))  # (N, 1, S, S)
            noise = _noise(white.float(), self._mixed_kernels(place, colour), between(self.skewness, knots))
            strength = between(self.strength, knots) * stronger.exp()[:, None, None, None]
            light = images + strength * noise + 1
            # The hyperbola that approaches 0 in the dark and the light itself otherwise.
            light = (light + (light.square() + self.soft_black.square() + _NO_SOFT_BLACK).sqrt()) / 2
            return (light - 1).clamp(-1, 1)

    def _mixed_kernels(self, place: Tensor, colour: Tensor) -> Tensor:
        """Return kernels (N, 3, 3, 7, 7) of unit mean variance at a place (N,) and as colourful as asked (N,)."""
        kernels = between(self.kernels.unflatten(0, (NUM_KERNELS, -1)), place)
        grey = kernels.mean(1, keepdim=True)
        rest = kernels - grey
        found = rest.square().sum((1, 2, 3, 4)) / kernels.shape[1] / grey.square().sum((1, 2, 3, 4))
        factor = colour.exp() / found.clamp_min(1e-12).sqrt()
        return of_unit_variance(grey + factor[:, None, None, None, None] * rest)


def of_unit_variance(kernels: Tensor) -> Tensor:
    """Scale kernels (..., 3, 3, 7, 7) so that the mean variance of the colours is 1."""
    return kernels / (kernels.square().sum((-4, -3, -2, -1), keepdim=True) / kernels.shape[-4]).sqrt()


def _noise(white: Tensor, kernels: Tensor, skewness: Tensor) -> Tensor:
    """Return noise (N, 3, S, S) of mean 0: white noise by images' kernels (N, 3, 3, 7, 7), of skewness (N, 1, S, S)."""
    normal = F.conv2d(white.flatten(0, 1)[None], kernels.flatten(0, 1), groups=len(white))
    normal = normal[0].unflatten(0, white.shape[:2])
    variance = kernels.square().sum((2, 3, 4))[:, :, None, None]
    skewness = skewness.clamp_min(_SYMMETRIC)
    return torch.expm1(skewness * normal - skewness.square() / 2 * variance) / skewness


def averaged(images: Tensor, side: int) -> Tensor:
    """Return images (N, C, S, S) averaged over squares of `side` pixels, or what of them lies in the frame."""
    rows = F.avg_pool2d(images, (side, 1), 1, (side // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, side // 2), count_include_pad=False)


def between(values: Tensor, place: Tensor) -> Tensor:
    """Interpolate rows of `values` (K, ...) at a place of any shape, from 0 to K - 1."""
    place = place.clamp(0, len(values) - 1)
    below = place.long().clamp(0, len(values) - 2)  # a place that is no number must not read beyond the rows
    part = (place - below).reshape(*place.shape, *[1] * (values.ndim - 1))
    return torch.lerp(values[below], values[below + 1], part)


def knot_place(brightness: Tensor) -> Tensor:
    """Return where brightnesses in [-1, 1] lie, in knots from the first one."""
    return ((brightness + 1) / 2).clamp(0, 1).sqrt() * (NUM_KNOTS - 1)


def sky_place(brightness: Tensor) -> Tensor:
    """Return the place among the knots (N, 1) of the sky in images' brightness (N, 1, S, S).

    It is that of the two darker corners, an eighth of a side each.
    """
    corners = F.adaptive_avg_pool2d(brightness, 8)[:, 0, ::7, ::7].flatten(1)
    return knot_place(corners.sort(1).values[:, :2].mean(1, keepdim=True))


class GrainyGenerator(ImageGenerator):
    """A generator whose images get grain, from noise of their own for every pixel.

    Parameters
    ----------
    network : nn.Module
        Draws images (N, 3, S, S) in [-1, 1] from noise and condition.
    latent_dim, condition_dim : int
        Lengths of what `network` takes. The last three values of its noise also decide the grain's parameters.
    image_size, num_bands : int
    """

    def __init__(
        self, network: nn.Module, latent_dim: int, condition_dim: int, image_size: int, num_bands: int = len(BANDS)
    ) -> None:
        super().__init__()
        side = image_size + 2 * GRAIN_REACH
        self.network, self.latent_dim, self.white = network, latent_dim, (num_bands, side, side)
        self.grain = SkyGrain(condition_dim, num_bands)
        self.noise_dim = latent_dim + math.prod(self.white)  # the network's noise, then the pixels'

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate images (N, 3, S, S).

        Parameters
        ----------
        z : Tensor, (N, noise_dim)
            Standard normal: the network's noise, then that of the pixels, (S + 6)^2 a plane.
        condition : Tensor, (N, condition_dim)
        """
        latent, white = z.split([self.latent_dim, math.prod(self.white)], 1)
        images = self.network(latent, condition)
        return self.grain(images, white.unflatten(1, self.white), latent[:, -NUM_GRAIN_PARAMETERS:], condition)
