"""The grain of the sky: noise as the survey's pictures have it, which a generator made of smooth maps cannot draw."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRAIN_REACH = 3  # pixels that noise is spread over, to either side
_HIDDEN = 16
_NEIGHBOURHOOD = 5  # pixels a side over which brightness is averaged
_KNOTS = 9  # brightnesses at which the strength is known, evenly spaced in the root of the brightness
_START = 0.027  # strength before anything was measured, of the range -1 to 1: 3.4 grey levels, as in SDSS
_MOST = 0.3  # most that training changes the logarithm of the strength
_LARGEST = 2.0  # limit of the values, in standard deviations, that make one image's grain differ from another's
_PATCH = 20  # pixels a side of the corners that the grain is measured in
_QUIET = 0.3  # part of the corners that count as sky
_SAMPLE = 6_000_000  # values of the images that are measured
_LIMIT, _MEAN_SIZE = 3, 0.782  # medians that limit the size of normal deviates, and the mean size that they then have


class Grain(NamedTuple):
    """The grain of survey images.

    Attributes
    ----------
    spread : Tensor, (6, 3, 7, 7)
        Kernels that turn white noise into grain whose mean variance of the colours is 1: that of the typical image, and
        what is added to it where the grain is finer by a standard deviation.
    strength : Tensor, (9,)
        Root mean square of the grain at the knots of brightness.
    deviation : Tensor, ()
        Scatter between images of the strength's logarithm, beside what their brightness explains.
    """

    spread: Tensor
    strength: Tensor
    deviation: Tensor


class SkyGrain(nn.Module):
    """Add grain to images: noise with the spectrum, the colours and the strength of the sky in the training images.

    Resampling and compression of a survey's pictures correlate the noise of neighbours and of the colours, the stretch
    makes it depend on the brightness, and one picture has stronger or finer grain than another. All of this is measured
    (`measure_grain`), and only the strength is then trained, within a third, by a small network that sees the
    brightness around a pixel and what the image was asked to be. It multiplies noise alone: it can draw no structure,
    and where the result is not clipped at black or white, the image gets the gradient that it would get without.

    Parameters
    ----------
    style_dim : int
        Length of the vector that decides over the whole image.
    own : int
        Place in that vector of two standard normal values: one that makes an image's grain stronger than another's, and
        after it one that makes it finer.
    """

    def __init__(self, style_dim: int, own: int) -> None:
        super().__init__()
        self.own = own
        smooth = torch.zeros(2 * GRAIN_REACH + 1)
        smooth[GRAIN_REACH - 1 : GRAIN_REACH + 2] = torch.tensor([1.0, 2.0, 1.0]) / 6**0.5
        spread = torch.zeros(6, 3, len(smooth), len(smooth))
        spread[:3, 0] = torch.outer(smooth, smooth)  # grey, and alike in all images
        self.register_buffer("spread", spread)  # of the typical image, then what changes with a standard deviation
        self.register_buffer("strength", torch.full((_KNOTS,), _START))
        self.register_buffer("deviation", torch.zeros(()))
        self.brightness = nn.Conv2d(3, _HIDDEN, 1)
        self.style = nn.Linear(style_dim, _HIDDEN, bias=False)
        self.change = nn.Conv2d(_HIDDEN, 1, 1)
        nn.init.normal_(self.style.weight, 0.0, 0.1 * style_dim**-0.5)
        nn.init.normal_(self.change.weight, 0.0, 0.02)
        nn.init.zeros_(self.change.bias)

    @torch.no_grad()
    def learn(self, grain: Grain | None) -> None:
        """Take over what `measure_grain` found; without any grain, none is added."""
        if grain is None:
            self.strength.zero_()
            return
        for name, value in grain._asdict().items():
            getattr(self, name).copy_(value)

    def forward(self, images: Tensor, white: Tensor, style: Tensor) -> Tensor:
        """Return images with grain.

        Parameters
        ----------
        images : Tensor, (N, 3, S, S), in [-1, 1]
        white : Tensor, (N, 3, S + 6, S + 6)
            Standard normal.
        style : Tensor, (N, style_dim)

        Returns
        -------
        Tensor, (N, 3, S, S), float32 in [-1, 1]
        """
        around = F.avg_pool2d(images.detach(), _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False)
        hidden = self.brightness(around) + self.style(style)[:, :, None, None]
        change = _MOST * torch.tanh(self.change(F.leaky_relu(hidden, 0.2)).float())  # (N, 1, S, S)
        stronger, finer = style[:, self.own : self.own + 2].float().clamp(-_LARGEST, _LARGEST).T[:, :, None, None, None]
        strength = _between_knots(self.strength, around.float().mean(1, keepdim=True))
        strength = strength * torch.exp(self.deviation * stronger + change)
        # Sums in float32: a step of bfloat16 is half a grey level.
        typical, more = F.conv2d(white, self.spread).float().chunk(2, 1)
        grain = (typical + finer * more) / _deviation(self.spread, finer)
        return (images.float() + strength * grain).clamp(-1, 1)


def _deviation(spread: Tensor, finer: Tensor) -> Tensor:
    """Return the standard deviation, in the mean of the colours, of grain by the filters (6, 3, 7, 7)."""
    typical, more = spread.float().flatten(1).chunk(2)
    squares = typical.square().sum() + 2 * finer * (typical * more).sum() + finer.square() * more.square().sum()
    return (squares / 3).sqrt()


def _between_knots(values: Tensor, brightness: Tensor) -> Tensor:
    """Interpolate what is known at the knots (K,) to brightnesses of any shape in [-1, 1]."""
    place = _knot_place(brightness)
    below = place.long().clamp(0, _KNOTS - 2)  # a place that is no number must not read beyond the knots
    return torch.lerp(values[below], values[below + 1], place - below)


def _knot_place(brightness: Tensor) -> Tensor:
    """Return where brightnesses lie, in knots from the first one."""
    return ((brightness + 1) / 2).clamp(0, 1).sqrt() * (_KNOTS - 1)


@torch.no_grad()
def measure_grain(images: Tensor) -> Grain | None:
    """Measure the grain of survey images (N, 3, S, S) in [-1, 1]; None if no corner of theirs has any.

    Its spectrum, with the correlation of the colours, is that of the quietest corners: those with the least power in
    waves as long as the corner, which is of galaxies' wings and of gradients in the sky. At those waves the power at
    half the length is taken instead, since the corners were chosen by it. An image's grain counts as finer than
    another's by what its other corners show, for the same reason. The strength at a brightness follows from the typical
    difference between a pixel and its neighbours.
    """
    images = images[:: max(1, images.numel() // _SAMPLE)]
    side = min(_PATCH, images.shape[-1])
    ends = slice(side), slice(-side, None)
    corners = torch.stack([images[:, :, rows, columns] for rows in ends for columns in ends])  # (4, N, 3, n, n)
    window = torch.hann_window(side, periodic=False, device=images.device)
    waves = torch.fft.fft2((corners - corners.mean((3, 4), keepdim=True)) * window * window[:, None])
    number = torch.fft.fftfreq(side, 1 / side, device=images.device)
    length = torch.hypot(number, number[:, None])  # waves across the patch
    power = waves.abs().square().sum(2)  # (4, N, n, n)

    def mean_power(shortest: float, longest: float = math.inf) -> Tensor:
        return power[..., (length > shortest) & (length < longest)].mean(-1)

    grain, gradient = mean_power(2.5), mean_power(0.5, 1.5)
    grainy = (grain > 1e-6 * _START**2 * side**2).all(0)
    if not grainy.any():
        return None
    fineness = (mean_power(0.3 * side) / mean_power(1.5, 0.3 * side).clamp_min(1e-12))[:, grainy].clamp_min(1e-6).log()
    waves, grain, gradient = waves[:, grainy], grain[:, grainy], gradient[:, grainy]
    elsewhere = (fineness.sum(0) - fineness) / 3
    finer = elsewhere > elsewhere.median()
    waves = waves / grain.sqrt()[..., None, None, None]
    filters = []
    for half in (~finer, finer if finer.any() else ~finer):
        unrest = (gradient / grain)[half]
        filters.append(_filter_of(waves[half][unrest <= unrest.quantile(_QUIET)], length, window))
    coarse, fine = filters
    # The halves of a normal distribution have their means 0.8 standard deviations from its centre.
    spread = torch.cat([(coarse + fine) / 2, (fine - coarse) / 2 / math.sqrt(2 / math.pi)])
    spread = spread / _deviation(spread, torch.zeros((), device=images.device))
    strength = _strengths(images, spread[:3])
    expected = _between_knots(strength, corners.mean((2, 3, 4))[:, grainy]).clamp_min(1e-6).log()
    of_image = (grain.log() / 2 - expected).median(0).values
    low, high = of_image.quantile(torch.tensor([0.1587, 0.8413], device=images.device))
    return Grain(spread, strength, (high - low) / 2)


def _filter_of(waves: Tensor, length: Tensor, window: Tensor) -> Tensor:
    """Return the kernel (3, 3, 7, 7) of patches' windowed transforms (M, 3, n, n), of unit mean variance."""
    spectrum = torch.einsum("nihw,njhw->hwij", waves, waves.conj()).real / len(waves)
    spectrum[length < 1.5] = spectrum[(length > 1.5) & (length < 2.5)].mean(0)
    # The window has multiplied the correlation at each lag by its own, which would flatten what is steep.
    lags = torch.fft.fft(window, 2 * len(window)).abs().square()
    lags = torch.fft.ifft(lags).real[: len(window)]
    kept = torch.fft.fftfreq(len(window), 1 / len(window), device=window.device).abs()
    taper = torch.where(kept <= 2 * GRAIN_REACH, lags[0] / lags[kept.long()].clamp_min(1e-6), 0.0)
    correlation = torch.fft.ifft2(spectrum, dim=(0, 1)).real * (taper * taper[:, None])[..., None, None]
    values, vectors = torch.linalg.eigh(torch.fft.fft2(correlation, dim=(0, 1)).real)
    root = (vectors * values.clamp_min(0).sqrt()[..., None, :]) @ vectors.transpose(-1, -2)
    kernel = torch.fft.ifft2(root, dim=(0, 1)).real.roll((GRAIN_REACH, GRAIN_REACH), (0, 1))
    kernel = kernel[: 2 * GRAIN_REACH + 1, : 2 * GRAIN_REACH + 1].permute(2, 3, 0, 1)
    return kernel / (kernel.square().sum() / 3).sqrt()


def _strengths(images: Tensor, spread: Tensor) -> Tensor:
    """Return the strength of the grain (K,) at the knots of brightness."""
    cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], device=images.device) / 4
    ripples = F.conv2d(images.flatten(0, 1)[:, None], cross[None, None]).abs().view(len(images), 3, -1).mean(1)
    around = F.avg_pool2d(images.mean(1, keepdim=True), _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False)
    around = around[:, 0, 1:-1, 1:-1].flatten(1)
    place = _knot_place(around).round().long().masked_fill(around <= -1, -1)  # nothing is known of what is all black
    # What grain of unit variance gives, by the same filter.
    unit = F.conv2d(spread.flatten(0, 1)[:, None], cross[None, None], padding=2).view(3, -1).square().sum(1).sqrt()
    scale = _MEAN_SIZE * unit.mean()
    found: list[Tensor | None] = []
    for knot in range(_KNOTS):
        sizes = ripples[place == knot]
        # Stars and arms have ripples of their own, of which the limit keeps most out.
        value = sizes.clamp_max(_LIMIT * sizes.median()).mean() / scale if len(sizes) else None
        found.append(found[-1] if value is None and found else value)
    first = next((value for value in found if value is not None), torch.zeros((), device=images.device))
    strength = torch.stack([first if value is None else value for value in found])
    # The stretch makes grain fainter towards the light; what rises again there are the galaxies' cores.
    peak = int(strength[: _KNOTS // 2].argmax())
    strength[peak:] = strength[peak:].cummin(0).values
    return strength


class GrainyGenerator(nn.Module):
    """A generator whose images get grain, from noise of their own for every pixel.

    Parameters
    ----------
    network : nn.Module
        Draws images (N, 3, S, S) in [-1, 1] from noise and condition.
    latent_dim, condition_dim : int
        Lengths of what `network` takes.
    image_size : int
    """

    def __init__(self, network: nn.Module, latent_dim: int, condition_dim: int, image_size: int) -> None:
        super().__init__()
        self.network, self.latent_dim, self.side = network, latent_dim, image_size + 2 * GRAIN_REACH
        self.grain = SkyGrain(latent_dim + condition_dim, latent_dim - 2)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate images (N, 3, S, S).

        Parameters
        ----------
        z : Tensor, (N, latent_dim + 3 (S + 6)^2)
            Standard normal: the network's noise, then the pixels'.
        condition : Tensor, (N, condition_dim)
        """
        latent, white = z.split([self.latent_dim, 3 * self.side**2], 1)
        images = self.network(latent, condition)
        return self.grain(images, white.unflatten(1, (3, self.side, self.side)), torch.cat([latent, condition], 1))
