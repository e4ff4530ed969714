"""The conditional DCGAN: generator, discriminator and their adversarial losses."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Generator(nn.Module):
    """Turn noise and a condition into a galaxy image.

    A fully connected layer makes 4 x 4 feature maps, then layers double the side until the image is reached. At
    the default width this is 256-256-128-64-3 channels.

    Parameters
    ----------
    latent_dim, condition_dim : int
        Lengths of the noise vector and of the condition vector.
    width : int
        Channels of the last hidden layer.
    image_size : int
        64, 128 or 256 pixels; each doubling adds a layer at the coarse end.
    upsampling : {"transposed", "resize"}
        How a layer doubles the side: by a 4 x 4 transposed convolution (Radford et al. 2016), or by bilinear
        interpolation and a 3 x 3 convolution, which leaves no checkerboard (Odena et al. 2016).

    References
    ----------
    Radford, Metz & Chintala 2016, arXiv:1511.06434; Odena, Dumoulin & Olah 2016, Distill,
    "Deconvolution and checkerboard artifacts".
    """

    def __init__(
        self,
        latent_dim: int,
        condition_dim: int,
        width: int = 64,
        image_size: int = 64,
        upsampling: str = "transposed",
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        channels = _coarse_to_fine(width, image_size)
        self.project = nn.Linear(latent_dim + condition_dim, channels[0] * 4 * 4)
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(channels):
            layers += [*_double(c_in, c_out, upsampling, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        *double, last = _double(channels[-1], 3, upsampling, bias=True)
        if upsampling == "resize":
            last = _ThinConv2d(channels[-1], 3, 3, padding=1)
        layers += [*double, last, nn.Tanh()]
        self.upsample = nn.Sequential(*layers)
        self.apply(_init_dcgan)

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
        features = self.project(torch.cat([z, condition], 1))
        return self.upsample(features.view(len(z), -1, 4, 4))


def _double(c_in: int, c_out: int, upsampling: str, bias: bool) -> list[nn.Module]:
    """Return the layers that double the side of the feature maps."""
    if upsampling == "transposed":
        return [nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=bias)]
    return [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)]


class _ThinConv2d(nn.Conv2d):
    """A convolution to three channels. CPUs train it twice as fast with channels of zeros, which are cut off again."""

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(features)
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, 0, 0, 16 - self.out_channels))
        planes = F.conv2d(features, weight, padding=self.padding)[:, : self.out_channels]
        return planes + self.bias[:, None, None].to(planes.dtype)


class Discriminator(nn.Module):
    """Tell real images from generated ones, given the condition as constant planes beside the image.

    Strided convolutions halve the side down to 4 x 4 (64-128-256-256 channels at the default width); one linear
    layer gives the logit of "real". Parameters as for `Generator`.
    """

    def __init__(self, condition_dim: int, width: int = 64, image_size: int = 64) -> None:
        super().__init__()
        channels = [3 + condition_dim, *reversed(_coarse_to_fine(width, image_size))]
        layers: list[nn.Module] = []
        for depth, (c_in, c_out) in enumerate(pairwise(channels)):
            layers.append(nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=depth == 0))
            if depth > 0:
                layers.append(nn.BatchNorm2d(c_out))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.downsample = nn.Sequential(*layers)
        self.classify = nn.Linear(channels[-1] * 4 * 4, 1)
        self.apply(_init_dcgan)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return the logits (N,) that images (N, 3, S, S) in [-1, 1] are real under conditions (N, C)."""
        features = self.downsample[1:](self._first_layer(images, condition))
        return self.classify(features.flatten(1))[:, 0]

    def _first_layer(self, images: Tensor, condition: Tensor) -> Tensor:
        """Convolve the image and the planes of the condition together.

        A constant plane gives the same response everywhere but at the border, so the planes are convolved at 6 x 6
        pixels and the middle of the 3 x 3 responses is repeated: a fifth of the layer's work.
        """
        first = self.downsample[0]
        seen = F.conv2d(images, first.weight[:, :3], first.bias, stride=2, padding=1)  # (N, W, S / 2, S / 2)
        planes = condition[:, :, None, None].expand(-1, -1, 6, 6)
        told = F.conv2d(planes, first.weight[:, 3:], stride=2, padding=1)  # (N, W, 3, 3)
        repeats = seen.shape[-1] - 2
        told = torch.cat([told[:, :, :1], told[:, :, 1:2].expand(-1, -1, repeats, -1), told[:, :, 2:]], 2)
        told = torch.cat([told[..., :1], told[..., 1:2].expand(-1, -1, -1, repeats), told[..., 2:]], 3)
        return seen + told


def _coarse_to_fine(width: int, image_size: int) -> list[int]:
    """Return the channels at sides 4, 8, ... image_size / 2: at most 4 times the width."""
    num_levels = (image_size // 4).bit_length() - 1
    return [width * min(4, 2**level) for level in reversed(range(num_levels))]


def _init_dcgan(module: nn.Module) -> None:
    """Draw weights as Radford et al. (2016) do: normal with standard deviation 0.02."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def smoothed_bce(logits: Tensor, label: float) -> Tensor:
    """Return the mean binary cross-entropy between logits (N,) and one constant label in [0, 1]."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, real_label: float, fake_label: float
) -> tuple[Tensor, Tensor]:
    """Return the two terms of L_D, on real and on generated images; L_D is their sum.

    With labels 0.9 and 0.1 each term has the floor 0.325 (the entropy of the label), so L_D >= 0.650, and a
    discriminator that only guesses pays 2 ln 2 = 1.386.
    """
    return smoothed_bce(real_logits, real_label), smoothed_bce(fake_logits, fake_label)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the adversarial term of L_G: generated images should be called real (label 1)."""
    return smoothed_bce(fake_logits, 1.0)


def gradient_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """Return R1: the mean squared norm of the discriminator's gradient at real images.

    It keeps the discriminator smooth around the data, so that it cannot win by a hair's breadth of detail and the
    generator's gradient stays useful.

    Parameters
    ----------
    real_logits : Tensor, (N,)
        Computed from `real_images`, which must require a gradient.
    real_images : Tensor, (N, 3, S, S)

    References
    ----------
    Mescheder, Geiger & Nowozin 2018, arXiv:1801.04406, eq. 9 without the factor gamma / 2.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.float().square().sum((1, 2, 3)).mean()
