"""The grain of the sky: noise of single pixels, which a generator made of smooth maps cannot draw."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_REACH = 2  # pixels that the noise is spread over, to either side
_PATTERNS = 4  # spreads of the noise that an image's grain is mixed of, for each colour
_HIDDEN = 16
_NEIGHBOURHOOD = 5  # pixels a side over which brightness is averaged
_START = 0.027  # standard deviation of the grain before training, of the range -1 to 1: 3.4 grey levels, as in SDSS


class SkyGrain(nn.Module):
    """Add grain to images: white noise, spread over neighbouring pixels, as strong as brightness and style demand.

    Resampling and compression of a survey's pictures correlate the noise of neighbours and of the colours, and the
    stretch makes it depend on the brightness. So the white noise of three planes is filtered into four patterns for
    each colour; each has an amplitude in each pixel, which a small network takes from the mean brightness around it and
    from what the image was asked to be. The amplitudes multiply noise alone: they can draw no structure.

    Parameters
    ----------
    style_dim : int
        Length of the vector that decides over the whole image.
    """

    def __init__(self, style_dim: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(3, 3 * _PATTERNS, 2 * _REACH + 1, bias=False)
        self.brightness = nn.Conv2d(3, _HIDDEN, 1)
        self.style = nn.Linear(style_dim, _HIDDEN, bias=False)
        self.amplitude = nn.Conv2d(_HIDDEN, 3 * _PATTERNS, 1)
        # Each pattern of unit variance; the first of every colour is the same grey noise, smoothed by 1, 2, 1.
        nn.init.normal_(self.spread.weight, 0.0, self.spread.weight[0].numel() ** -0.5)
        nn.init.normal_(self.style.weight, 0.0, 0.1 * style_dim**-0.5)
        nn.init.normal_(self.amplitude.weight, 0.0, 0.1)
        smooth = torch.tensor([1.0, 2.0, 1.0]) / 6**0.5
        with torch.no_grad():
            self.spread.weight[::_PATTERNS] = 0.0
            self.spread.weight[::_PATTERNS, 0, 1:4, 1:4] = torch.outer(smooth, smooth)
            self.amplitude.bias.fill_(0.2)[::_PATTERNS] = 1.0

    def forward(self, images: Tensor, white: Tensor, style: Tensor) -> Tensor:
        """Return images with grain.

        Parameters
        ----------
        images : Tensor, (N, 3, S, S), in [-1, 1]
        white : Tensor, (N, 3, S + 4, S + 4)
            Standard normal.
        style : Tensor, (N, style_dim)

        Returns
        -------
        Tensor, (N, 3, S, S), float32 in [-1, 1]
        """
        around = F.avg_pool2d(images, _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False)
        hidden = self.brightness(around) + self.style(style)[:, :, None, None]
        # Weights of about one: the amplitudes must not learn faster than the patterns do.
        amplitude = _START * self.amplitude(F.leaky_relu(hidden, 0.2))  # (N, 12, S, S)
        patterns = self.spread(white) * amplitude
        # Sums in float32: a step of bfloat16 is half a grey level.
        grain = patterns.float().unflatten(1, (3, _PATTERNS)).sum(2)
        return (images.float() + grain).clamp(-1, 1)


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
        self.network, self.latent_dim, self.side = network, latent_dim, image_size + 2 * _REACH
        self.grain = SkyGrain(latent_dim + condition_dim)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate images (N, 3, S, S).

        Parameters
        ----------
        z : Tensor, (N, latent_dim + 3 (S + 4)^2)
            Standard normal: the network's noise, then the pixels'.
        condition : Tensor, (N, condition_dim)
        """
        latent, white = z.split([self.latent_dim, 3 * self.side**2], 1)
        images = self.network(latent, condition)
        return self.grain(images, white.unflatten(1, (3, self.side, self.side)), torch.cat([latent, condition], 1))
