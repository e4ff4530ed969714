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
)
from galaxies.networks.layers import (
    ImageGenerator,
    PaddedConv2d,
    ThinConv2d,
    begin_as_sky,
    coarse_to_fine,
    init_dcgan,
    init_linear,
    style_network,
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
    ) -> None:
        super().__init__()
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
        images = self.paint(F.leaky_relu(doubled(self.thin(maps)), 0.2))
        if self.weigh is not None:
            profiles = self.frame.profiles(shape, pose, self.fine_axes)
            weights = self.weigh(style).float().unflatten(1, (-1, profiles.shape[1]))
            images = images + (weights @ profiles.flatten(2)).unflatten(2, profiles.shape[2:])
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
