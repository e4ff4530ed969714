"""The U-Net of the diffusion model: what is said of noisy pictures, at every time and for every condition."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import BANDS
from galaxies.networks.layers import PaddedConv2d, ThinConv2d, zero_bias

_ATTENTION_SIDE = 8  # maps of at most this side have attention
_HEAD_CHANNELS = 32
_TIME_FEATURES = 128
_LEAST_FINE_CHANNELS = 16  # of the maps of which light is painted


class ContextUnet(nn.Module):
    """A U-Net that denoises galaxies, told how noisy they are and what they are to be.

    Pixels enter in patches, as channels of one, beside planes that tell where a place is: in patches of 2 x 2 the
    finest maps have half the image's side and take a quarter of the work. Each level halves the side down to 8;
    residual blocks get time and condition as scale and shift of their second normalisation (FiLM), and the coarsest
    level has attention. A condition of zeros, which no class has, stands for none.

    Parameters
    ----------
    condition_dim : int
        Length of the condition vector.
    width : int
        The finest maps have twice, the coarser ones four times as many channels.
    image_size : int
        64, 128 or 256 pixels.
    num_blocks : int
        Residual blocks of each level on the way down, and on the way up.
    patch : int
        Pixels a side that enter together.
    num_bands : int
        Planes B of an image.
    oversampling : int
        k, pixels along each axis that are painted for one that enters.
    num_told : int
        Further numbers T that the network is told of each image, 0 for none.

    References
    ----------
    Ho, Jain & Abbeel 2020, arXiv:2006.11239; Dhariwal & Nichol 2021, arXiv:2105.05233; Hoogeboom et al. 2023,
    arXiv:2301.11093 (patches).
    """

    places: Tensor

    def __init__(
        self,
        condition_dim: int,
        width: int = 64,
        image_size: int = 64,
        num_blocks: int = 2,
        patch: int = 2,
        num_bands: int = len(BANDS),
        oversampling: int = 1,
        num_told: int = 0,
    ) -> None:
        super().__init__()
        self.patch, self.oversampling = patch, oversampling
        sides = [image_size // patch]
        while sides[-1] > 8:
            sides.append(sides[-1] // 2)
        channels = [2 * width, *[4 * width] * (len(sides) - 1)]
        context = 4 * width
        self.embed_time = nn.Sequential(nn.Linear(_TIME_FEATURES, context), nn.SiLU(), nn.Linear(context, context))
        self.embed_condition = nn.Sequential(nn.Linear(condition_dim, context), nn.SiLU(), nn.Linear(context, context))
        axis = (torch.arange(sides[0]) + 0.5) / sides[0] * 2 - 1
        x, y = torch.meshgrid(axis, axis, indexing="xy")
        # Convolutions do not know where they are, and a galaxy is in the middle.
        self.register_buffer("places", torch.stack([x, y, torch.hypot(x, y)]), persistent=False)
        self.enter = PaddedConv2d(num_bands * patch**2 + len(self.places), channels[0], 3, padding=1)

        self.down, skips, current = nn.ModuleList(), [channels[0]], channels[0]
        for level, (side, wanted) in enumerate(zip(sides, channels, strict=True)):
            for _ in range(num_blocks):
                self.down.append(_Block(current, wanted, context, side <= _ATTENTION_SIDE))
                current = wanted
                skips.append(current)
            if level < len(sides) - 1:
                self.down.append(nn.Conv2d(current, current, 3, stride=2, padding=1))
                skips.append(current)
        self.middle = nn.ModuleList(_Block(current, current, context, attention) for attention in (True, False))
        self.up = nn.ModuleList()
        for level, (side, wanted) in reversed(list(enumerate(zip(sides, channels, strict=True)))):
            for _ in range(num_blocks + 1):
                self.up.append(_Block(current + skips.pop(), wanted, context, side <= _ATTENTION_SIDE))
                current = wanted
            if level > 0:
                self.up.append(_Upsample(current))
        if oversampling == 1:
            last = PaddedConv2d(current, num_bands * patch**2, 3, padding=1)
            self.leave = nn.Sequential(_normalise(current), nn.SiLU(), last)
        else:
            fine = max(_LEAST_FINE_CHANNELS, width // 2)
            self.refine = nn.Sequential(
                _normalise(current), nn.SiLU(), nn.Conv2d(current, fine * patch**2, 3, padding=1)
            )
            # What light is made of below a telescope's resolution no loss says: patches and pixels must not show.
            self.between_patches, self.between_pixels = Interpolation(patch), Interpolation(oversampling)
            self.paint = last = ThinConv2d(fine, num_bands, 3, padding=1)
        nn.init.zeros_(last.weight)
        zero_bias(last)
        self.embed_told = nn.Linear(num_told, context, bias=False) if num_told else None

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor, told: Tensor | None = None) -> Tensor:
        """Return the output (N, B, k S, k S).

        For noisy images (N, B, S, S), times t (N,) in [0, 1], conditions (N, C), and what else is told (N, T).
        """
        context = self.embed_time(_time_features(t)) + self.embed_condition(condition)
        if self.embed_told is not None:
            context = context + self.embed_told(told)
        context = F.silu(context)
        places = self.places.expand(len(x_t), -1, -1, -1)
        patches = torch.cat([F.pixel_unshuffle(x_t, self.patch), places.to(x_t.dtype)], 1)
        maps = self.enter(patches.contiguous(memory_format=torch.channels_last))
        skips = [maps]
        for block in self.down:
            maps = block(maps, context) if isinstance(block, _Block) else block(maps)
            skips.append(maps)
        for block in self.middle:
            maps = block(maps, context)
        for block in self.up:
            maps = block(torch.cat([maps, skips.pop()], 1), context) if isinstance(block, _Block) else block(maps)
        if self.oversampling == 1:
            return F.pixel_shuffle(self.leave(maps), self.patch)
        maps = F.silu(self.between_patches(F.pixel_shuffle(self.refine(maps), self.patch)))
        return self.paint(self.between_pixels(enlarged(maps, self.oversampling)))

    def hidden_weights(self) -> list[nn.Parameter]:
        """Return the weights that sum over more values the wider the network is: all but those of its entrances.

        Each step of Adam moves a weight by about the step size, whatever its gradient, and all weights of a sum in
        the direction in which the sum should go: the sum moves by the step size times the number of its values. So
        the step size of these weights has to fall as 1 / width if what a step does to the maps is not to grow with
        the width, while entrances, biases and the scales of the normalisations keep theirs (Yang et al. 2022,
        arXiv:2203.03466, table 8). The rest of that parametrisation is here already: PyTorch draws weights with a
        variance of 1 / (3 fan-in), the last layers begin at zero, and heads of attention have one size.
        """
        entrances = (self.enter, self.embed_time[0], self.embed_condition[0], self.embed_told)
        layers = [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m not in entrances]
        return [weight for layer in layers if isinstance(weight := layer.weight, nn.Parameter)]


class _Block(nn.Module):
    """A residual block with the context as scale and shift, and where asked for attention."""

    def __init__(self, c_in: int, c_out: int, context: int, attention: bool) -> None:
        super().__init__()
        self.norm_1, self.conv_1 = _normalise(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.modulate = nn.Linear(context, 2 * c_out)
        self.norm_2, self.conv_2 = _normalise(c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.attention = _Attention(c_out) if attention else nn.Identity()
        nn.init.zeros_(self.conv_2.weight)
        zero_bias(self.conv_2)

    def forward(self, maps: Tensor, context: Tensor) -> Tensor:
        inner = self.conv_1(F.silu(self.norm_1(maps)))
        scale, shift = self.modulate(context)[:, :, None, None].to(inner.dtype).chunk(2, 1)
        inner = self.conv_2(F.silu(torch.addcmul(shift, self.norm_2(inner), 1 + scale)))
        return self.attention(self.skip(maps) + inner)


class _Attention(nn.Module):
    """Self-attention between all places of a map, added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        most = max(1, channels // _HEAD_CHANNELS)
        self.num_heads = next(number for number in range(most, 0, -1) if channels % number == 0)
        self.norm, self.project = _normalise(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.merge = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.merge.weight)
        zero_bias(self.merge)

    def forward(self, maps: Tensor) -> Tensor:
        number, channels, height, width = maps.shape
        heads = self.project(self.norm(maps)).view(number, 3, self.num_heads, -1, height * width).transpose(3, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind(1)).transpose(2, 3)
        return maps + self.merge(mixed.reshape(number, channels, height, width))


class _Upsample(nn.Module):
    """Double the side and convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.conv(enlarged(maps, 2))


def enlarged(maps: Tensor, factor: int) -> Tensor:
    """Repeat every pixel of maps (N, C, H, W) along both axes."""
    # Left to itself, autocast on CUDA would double copies in float32, and round them afterwards.
    with torch.autocast(maps.device.type, enabled=False):
        return F.interpolate(maps, scale_factor=factor, mode="nearest")


class Interpolation(nn.Module):
    """Average maps with a triangle of `period` pixels on either side.

    Nothing is left of a pattern that repeats after that many pixels, and maps of which each pixel was repeated so many
    times are interpolated linearly. No sum depends on an order, as those of `F.interpolate` do backwards on CUDA.
    """

    kernel: Tensor

    def __init__(self, period: int) -> None:
        super().__init__()
        taps = 1 - torch.arange(1 - period, period).abs() / period
        self.register_buffer("kernel", taps[:, None] * taps / period**2, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, H, W) of maps (N, C, H, W); beyond their border is 0."""
        kernel = self.kernel.expand(maps.shape[1], 1, -1, -1)
        return F.conv2d(maps, kernel.to(maps.dtype), padding=self.kernel.shape[-1] // 2, groups=maps.shape[1])


def _normalise(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, channels), channels)


def _time_features(t: Tensor) -> Tensor:
    """Return sines and cosines (N, 128) of times t (N,) in [0, 1] (Vaswani et al. 2017, section 3.5)."""
    half = _TIME_FEATURES // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000) / (half - 1)))
    angle = 1000 * t.float()[:, None] * frequencies
    return torch.cat([angle.sin(), angle.cos()], 1)
