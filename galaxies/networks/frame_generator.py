"""The generator that draws in the galaxy's own frame: coarse maps and smooth patterns, joined and refined."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import BANDS
from galaxies.images.resampling import doubled
from galaxies.networks.galaxy_frame import (
    DiscInclination,
    GalaxyFrame,
    Pose,
    frame_axes,
    symmetrize,
    turn_onto_sky,
    weighed_sum,
)
from galaxies.networks.layers import (
    BASE_SIDE,
    ImageGenerator,
    PaddedConv2d,
    ThinConv2d,
    begin_as_sky,
    coarse_to_fine,
    doublings,
    init_dcgan,
    init_linear,
    style_network,
    zero_bias,
)


class FrameGenerator(ImageGenerator):
    """Turn noise and a condition into a galaxy image, drawn in the galaxy's own frame.

    Layers as the DCGAN's draw coarse maps in the galaxy's frame, which are turned onto the sky, joined with the
    frame's smooth patterns (`GalaxyFrame`) and refined by two convolutions. Noise and condition decide the pose,
    the patterns' shape, and scale and shift of every map (FiLM), which `batch_norm` normalises before. Other parameters
    as for `Generator`, with at least three noise values.

    Where the condition tells how a disc is inclined, the patterns are those of the disc seen so: their axis ratio is
    the one of that inclination, and nothing else of their shape knows of it, so that a galaxy that is seen from
    another side has the same arms and the same extent along its major axis.

    At half the side, where the patterns join, nothing is sharper than two pixels, and the cusp of a small galaxy is
    flat. With fine profiles the radial ones are added to the image once more, at the whole side, with weights that the
    style gives. They are functions of the distance in the galaxy's scale lengths: what was learned of the centres of
    large galaxies holds for small ones.

    With detail stages an image above 64 pixels is that of 64, doubled until it has its size; every doubling is followed
    by a `_DetailStage`, which adds what the smaller image cannot show. Else all maps are wider, and everything costs
    four times as much for twice the side.

    References
    ----------
    Perez et al. 2018, arXiv:1709.07871 (FiLM); de Vries et al. 2017, arXiv:1707.00683 (conditional batch
    normalisation).
    """

    lies_along_x = True
    fine_axes: Tensor  # (2, S, S), of fine profiles

    def __init__(
        self,
        latent_dim: int,
        condition_dim: int,
        width: int = 64,
        image_size: int = 64,
        batch_norm: bool = True,
        num_bands: int = len(BANDS),
        bounded: bool = True,
        inclination: DiscInclination | None = None,
        fine_profiles: bool = False,
        detail_stages: bool = False,
    ) -> None:
        super().__init__()
        whole_side, image_size = image_size, min(BASE_SIDE, image_size) if detail_stages else image_size
        self.noise_dim, self.map_size, self.bounded = latent_dim, image_size // 2, bounded
        self.inclination = inclination
        channels = coarse_to_fine(width, self.map_size)
        inputs, style = latent_dim + condition_dim, 2 * width
        self.style = style_network(inputs, style)
        self.project = nn.Linear(inputs, channels[0] * 4 * 4)
        self.coarse = nn.ModuleList(_FilmBlock(c_in, c_out, 3, style, batch_norm) for c_in, c_out in pairwise(channels))
        self.frame = GalaxyFrame(style, self.map_size)
        self.join = _FilmBlock(channels[-1] + GalaxyFrame.num_planes, width, 1, style, batch_norm)
        self.refine = _FilmBlock(width, width, 3, style, batch_norm)
        self.thin = nn.Conv2d(width, width // 2, 3, padding=1)
        self.weigh = None
        if fine_profiles:
            self.weigh = nn.Linear(style, num_bands * GalaxyFrame.num_profiles)
            nn.init.normal_(self.weigh.weight, 0.0, 0.02)
            nn.init.zeros_(self.weigh.bias)
            self.register_buffer("fine_axes", frame_axes(image_size), persistent=False)
        self.paint = ThinConv2d(width // 2, num_bands, 3, padding=1)
        for conv in (self.thin, self.paint):
            init_dcgan(conv)
        if not bounded:
            begin_as_sky(self.paint)
        self.stages = nn.ModuleList(
            _DetailStage(width * image_size // side, side, style, batch_norm, num_bands, last=side == whole_side)
            for side in doublings(image_size, whole_side)
        )
        init_linear(*self.style, self.project)

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        """Generate images: as `Generator.forward`."""
        inputs = torch.cat([z, condition], 1)
        style, pose = self.style(inputs), Pose.from_noise(z)
        maps = self.project(inputs).view(len(z), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        for block in self.coarse:
            maps = block(doubled(maps), style)
        turned = turn_onto_sky(symmetrize(maps, _SYMMETRIC_PART).float(), pose, self.frame.axes).to(maps.dtype)
        shape = self._shape(z, condition, style)
        maps = self.refine(self.join(_joined(turned, self.frame(shape, pose)), style), style)
        # Fewer channels before the last doubling: at the full size each costs four times as much.
        maps = F.leaky_relu(doubled(self.thin(maps)), 0.2)
        images = self.paint(maps)
        if self.weigh is not None:
            images = images + weighed_sum(self.frame.profiles(shape, pose, self.fine_axes), self.weigh(style))
        for stage in self.stages:
            maps, images = stage(maps, images, style, self.frame, shape, pose)
        return torch.tanh(images) if self.bounded else images

    def _shape(self, z: Tensor, condition: Tensor, style: Tensor) -> Tensor:
        """Return what the patterns look like, (N, 10), of a disc as it is inclined."""
        if self.inclination is None:
            return self.frame.shape(style)
        face_on = self.style(torch.cat([z, self.inclination.left_out(condition)], 1))
        return self.frame.shape(face_on, self.inclination.axis_ratio(condition))


def _joined(maps: Tensor, patterns: Tensor) -> Tensor:
    """Return maps and patterns side by side, rounded and laid out as convolutions read them in one go."""
    return torch.cat([part.to(maps.dtype, memory_format=torch.channels_last) for part in (maps, patterns)], 1)


class _DetailStage(nn.Module):
    """Double the side of an image, and add what is seen at its pixels alone.

    As in the network before it, maps are joined with the galaxy's patterns and refined at half the side. A convolution
    then gives each of their pixels the four of the image that lie in it, for a fraction of what maps of the whole side
    cost. The patterns are added once more at the whole side, weighed by the style, so that arms and cusps are as narrow
    as the pixels allow. It begins as a plain doubling: what it adds is learned from nothing.

    Parameters
    ----------
    channels : int
        Of the maps.
    side : int
        Pixels S of the image that it makes.
    style_dim, batch_norm, num_bands
        As for `FrameGenerator`.
    last : bool
        Whether no further stage needs its maps.

    References
    ----------
    Karras et al. 2020, arXiv:1912.04958, section 4 (sums of images of growing sides); Shi et al. 2016, arXiv:1609.05158
    (the four pixels).
    """

    axes: Tensor  # (2, S / 2, S / 2)
    fine_axes: Tensor  # (2, S, S)

    def __init__(
        self, channels: int, side: int, style_dim: int, batch_norm: bool, num_bands: int, last: bool = True
    ) -> None:
        super().__init__()
        self.register_buffer("axes", frame_axes(side // 2), persistent=False)
        self.register_buffer("fine_axes", frame_axes(side), persistent=False)
        self.join = _FilmBlock(channels + GalaxyFrame.num_planes, channels, 1, style_dim, batch_norm)
        self.refine = _FilmBlock(channels, channels, 3, style_dim, batch_norm)
        self.paint = ThinConv2d(channels, 4 * num_bands, 3, padding=1)
        self.weigh = nn.Linear(style_dim, num_bands * GalaxyFrame.num_planes)
        self.thin = None
        if not last:
            self.thin = nn.Conv2d(channels, channels // 2, 3, padding=1)
            init_dcgan(self.thin)
        for adding in (self.paint, self.weigh):
            nn.init.zeros_(adding.weight)
            zero_bias(adding)

    def forward(
        self, maps: Tensor, images: Tensor, style: Tensor, frame: GalaxyFrame, shape: Tensor, pose: Pose
    ) -> tuple[Tensor, Tensor]:
        """Return maps (N, C / 2, S, S) and images (N, B, S, S) of such of half the side, and of a frame's patterns."""
        maps = self.refine(self.join(_joined(maps, frame(shape, pose, self.axes)), style), style)
        images = doubled(images) + F.pixel_shuffle(self.paint(maps), 2)
        images = images + frame.weighed(shape, pose, self.fine_axes, self.weigh(style))
        return maps if self.thin is None else F.leaky_relu(doubled(self.thin(maps)), 0.2), images


_SYMMETRIC_PART = 0.75  # of the maps in the galaxy's frame; the rest are free, for mergers and neighbours


class _FilmBlock(nn.Module):
    """A convolution, perhaps batch normalisation, scale and shift from the style, and a leaky rectifier."""

    def __init__(self, c_in: int, c_out: int, kernel: int, style_dim: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv = PaddedConv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(c_out, affine=False) if batch_norm else nn.Identity()
        self.modulate = nn.Linear(style_dim, 2 * c_out)
        if batch_norm:
            nn.init.normal_(self.conv.weight, 0.0, 0.02)  # normalised right after: only the relative size matters
        else:
            nn.init.kaiming_normal_(self.conv.weight, a=0.2)
        nn.init.normal_(self.modulate.weight, 0.0, 0.02)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        maps = self.norm(self.conv(maps))
        scale, shift = self.modulate(style)[:, :, None, None].to(maps.dtype).chunk(2, 1)
        return F.leaky_relu(torch.addcmul(shift, maps, 1 + scale), 0.2)
