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
    turns : bool
        Whether it paints every galaxy lying along x, and the first numbers only say how it is turned onto the sky: see
        `networks.turning`.
    lies_along_x : bool
        Whether the patterns of what it paints lie along x for noise that is `networks.turning.upright`.
    """

    noise_dim: int
    turns: bool = False
    lies_along_x: bool = False


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


def coarse_to_fine(width: int, image_size: int) -> list[int]:
    """Return the channels at sides 4, 8, ... image_size / 2: at most 4 times the width."""
    num_levels = (image_size // 4).bit_length() - 1
    return [width * min(4, 2**level) for level in reversed(range(num_levels))]


BASE_SIDE = 64  # pixels of the image to which detail stages add


def doublings(side: int, whole_side: int) -> list[int]:
    """Return the sides after each doubling of one side until the whole one: 128 and 256 for 64 and 256."""
    return [side << level for level in range(1, (whole_side // side).bit_length())]


def begin_as_sky(last: nn.Module) -> None:
    """Let a generator of stretched flux begin with images of the sky, which is -1."""
    if isinstance(bias := last.bias, Tensor):
        nn.init.constant_(bias, -1.0)


def init_dcgan(module: nn.Module) -> None:
    """Draw weights as Radford et al. (2016) do: normal with standard deviation 0.02."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def zero_bias(*modules: nn.Conv2d | nn.Linear) -> None:
    """Set the biases of layers to zero."""
    for module in modules:
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# By how many channels a device's convolutions go. cuDNN pads others to eights at every call, forward and for each of
# the two gradients, or takes a kernel without matrix units.
_CHANNEL_STEP = {"cuda": 8}
_TRAINED_OUTPUTS = 16  # least planes of a convolution that a CPU trains


class PaddedConv2d(nn.Conv2d):
    """A convolution whose channels are filled up with zeros to a number that suits the device, and cut off again.

    They change nothing but the order of sums.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return maps (N, out_channels, H, W) of maps (N, in_channels, H, W)."""
        inputs, outputs = _missing(self.in_channels, features), self._missing_outputs(features)
        if not (inputs or outputs):
            return super().forward(features)
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, inputs, 0, outputs))
        features = _with_zeros(features, inputs)
        if not outputs:
            return F.conv2d(features, weight, self.bias, self.stride, self.padding)
        return _first(F.conv2d(features, weight, None, self.stride, self.padding), self.out_channels, self.bias)

    def _missing_outputs(self, features: Tensor) -> int:
        return _missing(self.out_channels, features)


class ThinConv2d(PaddedConv2d):
    """A generator's last convolution, to the few planes of an image.

    CPUs train it twice as fast with channels of zeros.
    """

    def _missing_outputs(self, features: Tensor) -> int:
        missing = super()._missing_outputs(features)
        if features.device.type == "cpu" and torch.is_grad_enabled() and self.bias is not None:
            return max(missing, _TRAINED_OUTPUTS - self.out_channels)
        return missing


class PaddedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution whose results are filled up with zeros, as those of `PaddedConv2d`."""

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return maps (N, out_channels, 2 H, 2 W) of maps (N, in_channels, H, W)."""
        outputs = _missing(self.out_channels, features)
        if not outputs or isinstance(self.padding, str):
            return super().forward(features, output_size)
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, outputs))
        planes = F.conv_transpose2d(features, weight, None, self.stride, self.padding)
        return _first(planes, self.out_channels, self.bias)


def _missing(channels: int, features: Tensor) -> int:
    """Return how many channels there are too few for the device that the features are on."""
    return -channels % _CHANNEL_STEP.get(features.device.type, 1)


def _with_zeros(features: Tensor, count: int) -> Tensor:
    """Add channels of zeros to features as the convolution reads them: rounded, and channels last."""
    if not count:
        return features
    device = features.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
    return F.pad(features.to(dtype, memory_format=torch.channels_last), (0, 0, 0, 0, 0, count))


def _first(planes: Tensor, count: int, bias: Tensor | None) -> Tensor:
    """Return the first planes, with a bias."""
    planes = planes[:, :count]
    return planes if bias is None else planes + bias[:, None, None].to(planes.dtype)
