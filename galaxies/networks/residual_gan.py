"""Residual networks of the conditional GAN: no batch normalisation, and no resampling that aliases."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galaxies.images.resampling import Halve
from galaxies.networks.style_network import init_linear, style_network
from galaxies.networks.thin_conv import ThinConv2d

_LAST_GAIN = 0.25  # of a block's last convolution: blocks begin as little more than their skip, and add up


class ResidualGenerator(nn.Module):
    """Turn noise and a condition into a galaxy image.

    A linear layer makes 4 x 4 maps, which a residual block refines. Then their side is doubled by bilinear
    interpolation before every further block. Noise and condition scale and shift the maps within every block (FiLM). At
    64 pixels and the default width that is 256-256-128-64-32 channels.

    Parameters
    ----------
    latent_dim, condition_dim : int
        Lengths of the noise vector and of the condition vector.
    width : int
        Channels at half the image's side; at the whole side there are half as many.
    image_size : int
        64, 128 or 256 pixels; each doubling adds a block at the coarse end.

    References
    ----------
    Huang et al. 2024, arXiv:2501.05441; Perez et al. 2018, arXiv:1709.07871 (FiLM).
    """

    def __init__(self, latent_dim: int, condition_dim: int, width: int = 64, image_size: int = 64) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        channels = _fine_to_coarse(width, image_size)[::-1]
        inputs, style = latent_dim + condition_dim, 2 * width
        self.style = style_network(inputs, style)
        self.project = nn.Linear(inputs, channels[0] * 4 * 4)
        self.blocks = nn.ModuleList(_StyledBlock(c, style) for c in channels)
        self.thin = nn.ModuleList(_change_channels(*pair) for pair in pairwise(channels))
        self.paint = ThinConv2d(channels[-1], 3, 3, padding=1)
        nn.init.normal_(self.paint.weight, 0.0, 0.02)
        nn.init.zeros_(self.paint.bias)
        init_linear(*self.style, self.project)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate images.

        Parameters
        ----------
        z : Tensor, (N, latent_dim)
            Standard normal noise.
        condition : Tensor, (N, condition_dim)

        Returns
        -------
        Tensor, (N, 3, S, S), in (-1, 1)
        """
        inputs = torch.cat([z, condition], 1)
        style = self.style(inputs)
        maps = self.project(inputs).view(len(z), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        maps = self.blocks[0](maps, style)
        for thin, block in zip(self.thin, self.blocks[1:], strict=True):
            maps = block(F.interpolate(thin(maps), scale_factor=2, mode="bilinear"), style)
        return torch.tanh(self.paint(F.leaky_relu(maps, 0.2)))


class _StyledBlock(nn.Module):
    """Two convolutions with scale and shift from the style between them, added to the maps."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.first, self.last = _convolutions(channels)
        self.modulate = nn.Linear(style_dim, 2 * channels)
        nn.init.normal_(self.modulate.weight, 0.0, 0.02)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        hidden = self.first(F.leaky_relu(maps, 0.2))
        scale, shift = self.modulate(style)[:, :, None, None].to(hidden.dtype).chunk(2, 1)
        hidden = torch.addcmul(shift, hidden, 1 + scale)
        return maps + self.last(F.leaky_relu(hidden, 0.2))


class ResidualDiscriminator(nn.Module):
    """Tell real images from generated ones, with the condition projected on the features alone.

    Residual blocks with a halving of the side between them, down to 4 x 4. Parameters as for `ResidualGenerator`, and

    num_readings : int
        Values that it also reads off an image by itself, as a predictor does.

    References
    ----------
    Miyato & Koyama 2018, arXiv:1802.05637, eq. 3; Huang et al. 2024, arXiv:2501.05441.
    """

    def __init__(self, condition_dim: int, width: int = 64, image_size: int = 64, num_readings: int = 0) -> None:
        super().__init__()
        channels = _fine_to_coarse(width, image_size)
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(_Block(c) for c in channels)
        self.widen = nn.ModuleList(_change_channels(*pair) for pair in pairwise(channels))
        self.halve = Halve()
        self.classify = nn.Linear(channels[-1] * 4 * 4, 1)
        self.project = nn.Linear(condition_dim, channels[-1])
        self.read = nn.Linear(channels[-1] * 4 * 4, num_readings) if num_readings else None
        for module in (self.stem, self.project):
            nn.init.kaiming_normal_(module.weight, a=0.2)
            nn.init.zeros_(module.bias)
        nn.init.normal_(self.classify.weight, 0.0, 0.01)
        nn.init.zeros_(self.classify.bias)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return the logits (N,) that images (N, 3, S, S) in [-1, 1] are real under conditions (N, C)."""
        return self.assess(images, condition)[0]

    def assess(self, images: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and what is read off the images (N, num_readings), None if that is nothing."""
        maps = self.stem(images)
        for block, widen in zip(self.blocks[:-1], self.widen, strict=True):
            maps = widen(self.halve(block(maps)))
        features = F.leaky_relu(self.blocks[-1](maps), 0.2)
        projected = (self.project(condition) * features.mean((2, 3))).sum(1)
        flat = features.flatten(1)
        return self.classify(flat)[:, 0] + projected, None if self.read is None else self.read(flat)


class _Block(nn.Module):
    """Two convolutions, added to the maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = _convolutions(channels)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.last(F.leaky_relu(self.first(F.leaky_relu(maps, 0.2)), 0.2))


def _convolutions(channels: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Return a block's two convolutions, with weights that keep the size of the maps."""
    first, last = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    for conv in (first, last):
        nn.init.kaiming_normal_(conv.weight, a=0.2)
        nn.init.zeros_(conv.bias)
    with torch.no_grad():
        last.weight.mul_(_LAST_GAIN)
    return first, last


def _change_channels(c_in: int, c_out: int) -> nn.Module:
    """Return what turns `c_in` maps into `c_out`, pixel by pixel: nothing if they are as many."""
    if c_in == c_out:
        return nn.Identity()
    conv = nn.Conv2d(c_in, c_out, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    return conv


def _fine_to_coarse(width: int, image_size: int) -> list[int]:
    """Return the channels at sides image_size, image_size / 2, ... 4: half the width, then up to 4 times the width."""
    num_halvings = (image_size // 4).bit_length() - 1
    return [max(1, width // 2), *(width * min(4, 2**level) for level in range(num_halvings))]
