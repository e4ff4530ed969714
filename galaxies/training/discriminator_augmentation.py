"""What the discriminator sees: images turned, mirrored and shifted, so that it cannot learn few of them by heart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from galaxies.images.resampling import turned

NUM_DRAWS = 5  # uniform random numbers an image

_FIXED = 0.5  # part of the images that is moved, if it does not adapt
_MOST = 0.8  # never all: the discriminator has to see pixels that were not interpolated
_TARGET = 0.6  # mean sign of the logits on real images above which it overfits
_IMAGES = 100_000  # real images that it sees while that part rises from none to all, at the fastest
_MEMORY = 0.05  # of the mean sign's running average, a step


class DiscriminatorAugmentation(nn.Module):
    """Turn by any angle, mirror and shift by less than a pixel, with some probability: the same for real and generated.

    A galaxy has no up and no hand, and survey cutouts are centred to a pixel; colour, contrast and scale, which would
    hide the requested attributes, stay as they are. The probability is a tensor that stays in place and adapts without
    waiting for the device, so that the step can be recorded.

    Parameters
    ----------
    adaptive : bool
        Whether the probability follows `adapt`; else it is one half.

    References
    ----------
    Karras et al. 2020, arXiv:2006.06676, section 3.
    """

    probability: Tensor
    mean_sign: Tensor

    def __init__(self, adaptive: bool) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.register_buffer("probability", torch.tensor(0.0 if adaptive else _FIXED))
        self.register_buffer("mean_sign", torch.tensor(0.0))

    def forward(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Return images (N, 3, S, S), each moved with the present probability.

        Parameters
        ----------
        images : Tensor, (N, 3, S, S)
        drawn : Tensor, (N, NUM_DRAWS)
            Uniform random numbers between 0 and 1.
        """
        chance, angle, mirror, *moves = drawn.unbind(1)
        shift = (torch.stack(moves, 1) * 2 - 1) / images.shape[-1]  # up to half a pixel, in half frame widths
        mirror = torch.where(mirror < 0.5, -1.0, 1.0)
        moved = turned(images.float(), 2 * math.pi * angle, mirror, shift, "bicubic")
        return torch.where((chance < self.probability)[:, None, None, None], moved, images.float())

    @torch.no_grad()
    def adapt(self, sign: Tensor, num_images: int) -> None:
        """Raise the probability if the discriminator is too sure of real images, and lower it if not.

        Parameters
        ----------
        sign : Tensor, ()
            Mean sign of the discriminator's logits on the real images of a step, -1 to 1. One that is not finite
            changes nothing.
        num_images : int
            Number of these images.
        """
        if not self.adaptive:
            return
        self.mean_sign.lerp_(torch.where(torch.isfinite(sign), sign, self.mean_sign), _MEMORY)
        change = torch.sign(self.mean_sign - _TARGET) * (num_images / _IMAGES)
        self.probability.copy_((self.probability + change).clamp(0, _MOST))
