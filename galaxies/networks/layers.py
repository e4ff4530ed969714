"""What several networks are built of: small layers, and what all generators have in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2  # of the leaky rectifier below zero


class ImageGenerator(nn.Module):
    """A network that makes images out of noise.

    Attributes
    ----------
    noise_dim : int
        How many standard normal numbers an image takes.
    """

    noise_dim: int


def style_network(inputs: int, style: int) -> nn.Sequential:
    """Return what turns noise and a condition, `inputs` values, into the `style` values that change a generator's maps.

    It is two fully connected layers.
    """
    return nn.Sequential(
        nn.Linear(inputs, 2 * style), nn.LeakyReLU(_SLOPE), nn.Linear(2 * style, style), nn.LeakyReLU(_SLOPE)
    )


def init_linear(*modules: nn.Module) -> None:
    """Draw the weights of the linear layers among modules for the rectifier that follows (He et al. 2015)."""
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=_SLOPE)


def zero_bias(*modules: nn.Conv2d | nn.Linear) -> None:
    """Set the biases of layers to zero."""
    for module in modules:
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class ThinConv2d(nn.Conv2d):
    """A generator's last convolution, to the few planes of an image.

    CPUs train it twice as fast with channels of zeros, which are cut off again.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the planes (N, out_channels, H, W) of maps (N, in_channels, H, W)."""
        if features.device.type != "cpu" or not torch.is_grad_enabled() or self.bias is None:
            return super().forward(features)
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, 0, 0, max(0, 16 - self.out_channels)))
        planes = F.conv2d(features, weight, padding=self.padding)[:, : self.out_channels]
        return planes + self.bias[:, None, None].to(planes.dtype)
