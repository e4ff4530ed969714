"""The conditional GAN: its generators and discriminators, the tables that name them, and their adversarial losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import BANDS, Config
from galaxies.images.resampling import Double, Halve, doubled
from galaxies.networks.flux_grain import NoisyGenerator
from galaxies.networks.frame_generator import FrameGenerator
from galaxies.networks.galaxy_frame import DiscInclination
from galaxies.networks.layers import (
    BASE_SIDE,
    ImageGenerator,
    PaddedConv2d,
    PaddedConvTranspose2d,
    ThinConv2d,
    begin_as_sky,
    coarse_to_fine,
    doublings,
    init_dcgan,
    init_linear,
    style_network,
    zero_bias,
)
from galaxies.networks.observed_generator import ObservedGenerator
from galaxies.networks.sky_grain import GrainyGenerator

_LAST_GAIN = 0.25  # of a residual block's last convolution: blocks begin as little more than their skip, and add up


class Generator(ImageGenerator):
    """Turn noise and a condition into a galaxy image.

    A fully connected layer makes 4 x 4 feature maps, then layers double the side until the image is reached. At
    the default width this is 256-256-128-64-B channels.

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
    num_bands : int
        Planes B of an image.
    bounded : bool
        Keep images within (-1, 1), as display pictures are; else they begin as a sky, -1, and may become anything, as
        stretched flux does.

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
        num_bands: int = len(BANDS),
        bounded: bool = True,
    ) -> None:
        super().__init__()
        self.noise_dim = latent_dim
        channels = coarse_to_fine(width, image_size)
        self.project = nn.Linear(latent_dim + condition_dim, channels[0] * 4 * 4)
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(channels):
            layers += [*_double(c_in, c_out, upsampling, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        *double, last = _double(channels[-1], num_bands, upsampling, bias=True)
        if upsampling == "resize":
            last = ThinConv2d(channels[-1], num_bands, 3, padding=1)
        layers += [*double, last, *([nn.Tanh()] if bounded else [])]
        self.upsample = nn.Sequential(*layers)
        self.apply(init_dcgan)
        if not bounded:
            begin_as_sky(last)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate images.

        Parameters
        ----------
        z : Tensor, (N, latent_dim)
            Standard normal noise.
        condition : Tensor, (N, condition_dim)

        Returns
        -------
        Tensor, (N, B, S, S)
            In (-1, 1) if they are bounded.
        """
        features = self.project(torch.cat([z, condition], 1))
        return self.upsample(features.view(len(z), -1, 4, 4))


def _double(c_in: int, c_out: int, upsampling: str, bias: bool) -> list[nn.Module]:
    """Return the layers that double the side of the feature maps."""
    if upsampling == "transposed":
        return [PaddedConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=bias)]
    return [Double(), nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)]


class ResidualGenerator(ImageGenerator):
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
    num_bands, bounded
        As for `Generator`.

    References
    ----------
    Huang et al. 2024, arXiv:2501.05441; Perez et al. 2018, arXiv:1709.07871 (FiLM).
    """

    def __init__(
        self,
        latent_dim: int,
        condition_dim: int,
        width: int = 64,
        image_size: int = 64,
        num_bands: int = len(BANDS),
        bounded: bool = True,
    ) -> None:
        super().__init__()
        self.noise_dim, self.bounded = latent_dim, bounded
        channels = _fine_to_coarse(width, image_size)[::-1]
        inputs, style = latent_dim + condition_dim, 2 * width
        self.style = style_network(inputs, style)
        self.project = nn.Linear(inputs, channels[0] * 4 * 4)
        self.blocks = nn.ModuleList(_StyledBlock(c, style) for c in channels)
        self.thin = nn.ModuleList(_change_channels(*pair) for pair in pairwise(channels))
        self.paint = ThinConv2d(channels[-1], num_bands, 3, padding=1)
        nn.init.normal_(self.paint.weight, 0.0, 0.02)
        zero_bias(self.paint)
        if not bounded:
            begin_as_sky(self.paint)
        init_linear(*self.style, self.project)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate images: as `Generator.forward`."""
        inputs = torch.cat([z, condition], 1)
        style = self.style(inputs)
        maps = self.project(inputs).view(len(z), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        maps = self.blocks[0](maps, style)
        for thin, block in zip(self.thin, self.blocks[1:], strict=True):
            maps = block(doubled(thin(maps)), style)
        images = self.paint(F.leaky_relu(maps, 0.2))
        return torch.tanh(images) if self.bounded else images


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


class ImageDiscriminator(nn.Module, ABC):
    """What all discriminators have in common.

    Attributes
    ----------
    couples_images : bool
        Whether what it says of an image depends on the others of its batch, so that real and generated images must
        not be one batch: batch normalisation does that, and so would a statistic of the batch.
    """

    couples_images: ClassVar[bool]

    @abstractmethod
    def assess(self, images: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits (N,) that images (N, B, S, S) are real, and what is read off them, None if nothing."""


class Discriminator(ImageDiscriminator):
    """Tell real images from generated ones, given the condition as constant planes beside the image.

    Strided convolutions halve the side down to 4 x 4 (64-128-256-256 channels at the default width); one linear
    layer gives the logit of "real". Parameters as for `Generator`.
    """

    couples_images = True

    def __init__(self, condition_dim: int, width: int = 64, image_size: int = 64, num_bands: int = len(BANDS)) -> None:
        super().__init__()
        channels = [num_bands + condition_dim, *reversed(coarse_to_fine(width, image_size))]
        layers: list[nn.Module] = []
        for depth, (c_in, c_out) in enumerate(pairwise(channels)):
            layers.append(PaddedConv2d(c_in, c_out, 4, stride=2, padding=1, bias=depth == 0))
            if depth > 0:
                layers.append(nn.BatchNorm2d(c_out))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.downsample = nn.Sequential(*layers)
        self.classify = nn.Linear(channels[-1] * 4 * 4, 1)
        self.apply(init_dcgan)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return the logits (N,) that images (N, B, S, S) are real under conditions (N, C)."""
        features = self.downsample(_with_planes(images, condition))
        return self.classify(features.flatten(1))[:, 0]

    def assess(self, images: Tensor, condition: Tensor) -> tuple[Tensor, None]:
        """Return the logits, and None: it reads nothing off the images."""
        return self(images, condition), None


class ProjectionDiscriminator(ImageDiscriminator):
    """Tell real images from generated ones, with the condition both at the input and projected on the features.

    The DCGAN's layers without batch normalisation, which would couple the images of a batch and with them their
    gradient penalties. Parameters as for `Generator`, and

    num_readings : int
        Values that it also reads off an image by itself, as a predictor does; the condition is then projected alone,
        since beside the image they could be read off it.
    detail_stages : bool
        Above 64 pixels, look at the image as at one of 64, and add what a few thin convolutions make of the whole one.
        They begin with nothing.

    References
    ----------
    Miyato & Koyama 2018, arXiv:1802.05637, eq. 3; Odena, Olah & Shlens 2017, arXiv:1610.09585 (auxiliary readings).
    """

    couples_images = False

    def __init__(
        self,
        condition_dim: int,
        width: int = 64,
        image_size: int = 64,
        num_readings: int = 0,
        num_bands: int = len(BANDS),
        detail_stages: bool = False,
    ) -> None:
        super().__init__()
        self.sees_condition = num_readings == 0
        num_planes = num_bands + condition_dim * self.sees_condition
        sides = doublings(BASE_SIDE, image_size) if detail_stages else []
        image_size = BASE_SIDE if sides else image_size
        channels = [num_planes, *reversed(coarse_to_fine(width, image_size))]
        self.downsample = nn.ModuleList(
            PaddedConv2d(c_in, c_out, 4, stride=2, padding=1) for c_in, c_out in pairwise(channels)
        )
        self.classify = nn.Linear(channels[-1] * 4 * 4, 1)
        self.project = nn.Linear(condition_dim, channels[-1])
        for module in (*self.downsample, self.project):
            nn.init.kaiming_normal_(module.weight, a=0.2)
            zero_bias(module)
        nn.init.normal_(self.classify.weight, 0.0, 0.01)
        nn.init.zeros_(self.classify.bias)
        self.read = nn.Linear(channels[-1] * 4 * 4, num_readings) if num_readings else None
        fine = [num_planes, *(width * BASE_SIDE // side for side in reversed(sides)), width]
        convs = [PaddedConv2d(*pair, 4, stride=2, padding=1) for pair in (pairwise(fine) if sides else ())]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, a=0.2)
            zero_bias(conv)
        for conv in convs[-1:]:
            nn.init.zeros_(conv.weight)
        self.fine = nn.ModuleList(convs)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return the logits (N,): as `Discriminator.forward`."""
        return self.assess(images, condition)[0]

    def assess(self, images: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and what is read off the images (N, num_readings), None if that is nothing."""
        features = _with_planes(images, condition) if self.sees_condition else images
        features = self._first_maps(features)
        for conv in self.downsample[1:]:
            features = conv(F.leaky_relu(features, 0.2, inplace=True))
        features = F.leaky_relu(features, 0.2, inplace=True)
        projected = (self.project(condition) * features.mean((2, 3))).sum(1)
        flat = features.flatten(1)
        return self.classify(flat)[:, 0] + projected, None if self.read is None else self.read(flat)

    def _first_maps(self, images: Tensor) -> Tensor:
        """Return the first convolution's maps (N, width, H, H) of images and conditions (N, P, S, S)."""
        if not self.fine:
            return self.downsample[0](images)
        small = F.avg_pool2d(images, images.shape[-1] // BASE_SIDE)
        for conv in self.fine[:-1]:
            images = F.leaky_relu(conv(images), 0.2, inplace=True)
        return self.downsample[0](small) + self.fine[-1](images)


class ResidualDiscriminator(ImageDiscriminator):
    """Tell real images from generated ones, with the condition projected on the features alone.

    Residual blocks with a halving of the side between them, down to 4 x 4. Parameters as for `ResidualGenerator`, and

    num_readings : int
        Values that it also reads off an image by itself, as a predictor does.

    References
    ----------
    Miyato & Koyama 2018, arXiv:1802.05637, eq. 3; Huang et al. 2024, arXiv:2501.05441.
    """

    couples_images = False

    def __init__(
        self,
        condition_dim: int,
        width: int = 64,
        image_size: int = 64,
        num_readings: int = 0,
        num_bands: int = len(BANDS),
    ) -> None:
        super().__init__()
        channels = _fine_to_coarse(width, image_size)
        self.stem = PaddedConv2d(num_bands, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList(_ResidualBlock(c) for c in channels)
        self.widen = nn.ModuleList(_change_channels(*pair) for pair in pairwise(channels))
        self.halve = Halve()
        self.classify = nn.Linear(channels[-1] * 4 * 4, 1)
        self.project = nn.Linear(condition_dim, channels[-1])
        self.read = nn.Linear(channels[-1] * 4 * 4, num_readings) if num_readings else None
        for module in (self.stem, self.project):
            nn.init.kaiming_normal_(module.weight, a=0.2)
            zero_bias(module)
        nn.init.normal_(self.classify.weight, 0.0, 0.01)
        zero_bias(self.classify)

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        """Return the logits (N,) that images (N, B, S, S) are real under conditions (N, C)."""
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


class _ResidualBlock(nn.Module):
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
        zero_bias(conv)
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


def _with_planes(images: Tensor, condition: Tensor) -> Tensor:
    """Join images (N, B, S, S) and conditions (N, C) as constant planes: (N, B + C, S, S)."""
    planes = condition[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, planes.to(images.dtype)], 1)


# Generators by the name that the setting `generator` chooses, each with what builds it on the CPU, without grain.
GENERATORS: dict[str, Callable[[Config], ImageGenerator]] = {
    "frame": lambda config: FrameGenerator(
        *_generator_shape(config),
        config.batch_norm,
        *_planes(config),
        _inclination(config),
        config.profiles == "fine",
        # Light, which is painted at twice the images' pixels, keeps maps as wide as it.
        config.detail_stages and not config.observes,
    ),
    "residual": lambda config: ResidualGenerator(*_generator_shape(config), *_planes(config)),
    "resize": lambda config: Generator(*_generator_shape(config), "resize", *_planes(config)),
    "transposed": lambda config: Generator(*_generator_shape(config), "transposed", *_planes(config)),
}
# The same for the setting `discriminator`; each has `assess`.
DISCRIMINATORS: dict[str, Callable[[Config], ImageDiscriminator]] = {
    "projection": lambda config: ProjectionDiscriminator(
        *_reading_shape(config), config.num_bands, config.detail_stages
    ),
    "residual": lambda config: ResidualDiscriminator(*_reading_shape(config), config.num_bands),
    "dcgan": lambda config: Discriminator(*_discriminator_shape(config), config.num_bands),
}


def build_gan_generator(config: Config) -> ImageGenerator:
    """Return a new generator of the settings' shape with its grain or its telescope, on the CPU."""
    network = GENERATORS[config.generator](config)
    if config.observes:
        return ObservedGenerator(
            network,
            config.latent_dim,
            config.image_size,
            config.oversampling,
            config.softening,
            config.psf_profile,
            config.psf_pixels,
        )
    if not config.pixel_noise:
        return network
    if config.kind == "flux":
        return NoisyGenerator(network, config.latent_dim, config.image_size, config.softening)
    return GrainyGenerator(network, config.latent_dim, config.condition_dim, config.image_size, config.num_bands)


def build_discriminator(config: Config) -> ImageDiscriminator:
    """Return a new discriminator of the settings' shape, on the CPU."""
    return DISCRIMINATORS[config.discriminator](config)


def reads_images(config: Config) -> bool:
    """Tell whether the discriminator reads attributes and class off images."""
    return config.discriminator != "dcgan" and (config.regression_weight > 0 or config.class_weight > 0)


def _generator_shape(config: Config) -> tuple[int, int, int, int]:
    side = config.image_size * config.oversampling if config.observes else config.image_size
    return config.latent_dim, config.condition_dim, config.width, side


def _planes(config: Config) -> tuple[int, bool]:
    """Return how many planes a generator draws, and whether they are bounded."""
    return config.num_bands, config.kind == "display"


def _inclination(config: Config) -> DiscInclination | None:
    """Return what the condition says of how discs are inclined, None if that is nothing."""
    places = config.condition_places("inclination")
    if places is None:
        return None
    row = config.attribute_rows[config.attributes.index("inclination")]
    return DiscInclination(*places, row.low, row.high)


def _discriminator_shape(config: Config) -> tuple[int, int, int]:
    return config.condition_dim, config.width, config.image_size


def _reading_shape(config: Config) -> tuple[int, int, int, int]:
    """Add how many values the discriminator reads: the attributes, then a logit for each class."""
    num_readings = len(config.attributes) + len(config.classes) if reads_images(config) else 0
    return *_discriminator_shape(config), num_readings


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


def relativistic_loss(preferred: Tensor, other: Tensor) -> Tensor:
    """Return how badly the discriminator prefers one image of each pair to the other: mean softplus(other - preferred).

    A pair is a real and a generated image of the same condition; L_D prefers the real ones and L_G the generated ones.
    Each is 0 for a sure discriminator or generator and ln 2 = 0.693 for one that cannot tell. Only the difference of
    logits counts: their level means nothing.

    Parameters
    ----------
    preferred, other : Tensor, (N,)
        Logits.

    References
    ----------
    Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2024, arXiv:2501.05441.
    """
    return F.softplus(other - preferred).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Return R1 for real images, R2 for generated ones: the mean squared norm of the discriminator's gradient at them.

    It keeps the discriminator smooth around them, so that it cannot win by a hair's breadth of detail and the
    generator's gradient stays useful.

    Parameters
    ----------
    logits : Tensor, (N,)
        Computed from `images`, which must require a gradient.
    images : Tensor, (N, B, S, S)

    References
    ----------
    Mescheder, Geiger & Nowozin 2018, arXiv:1801.04406, eqs. 9 and 10 without the factor gamma / 2.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum((1, 2, 3)).mean()
