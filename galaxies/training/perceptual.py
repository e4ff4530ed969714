"""The perceptual part of the generator's loss: features of generated and of real galaxies, alike on average."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galaxies.common.errors import UserError

# Channels of VGG-16's convolutions; a maximum over 2 x 2 between the groups (Simonyan & Zisserman 2015, table 1, D).
_VGG_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LEAST_SPREAD = 0.03  # of a statistic's variance over the real images, in means of its layer
_VGG_ADDRESS = "https://download.pytorch.org/models/vgg16-397923af.pth"

# The mean over all ranks, which the gradient passes.
MeanOverRanks = Callable[[Tensor], Tensor]


class Vgg16(nn.Module):
    """VGG-16's first ten convolutions with torchvision's weights, frozen.

    torchvision itself is not needed: its file holds the weights by name.

    Parameters
    ----------
    weights : dict of str to Tensor
        ``features.0.weight`` and so on, as in torchvision's file.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.groups = nn.ModuleList()
        place, c_in = 0, 3
        for widths in _VGG_GROUPS:
            convs = nn.ModuleList()
            for c_out in widths:
                conv = nn.Conv2d(c_in, c_out, 3, padding=1)
                conv.load_state_dict({name: weights[f"features.{place}.{name}"] for name in ("weight", "bias")})
                convs.append(conv)
                place, c_in = place + 2, c_out  # a rectifier comes after each
            self.groups.append(convs)
            place += 1  # the maximum
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(_IMAGENET_DEVIATION)[:, None, None])
        self.requires_grad_(False)

    @classmethod
    def from_file(cls, path: Path) -> Vgg16:
        """Read torchvision's file of weights.

        Raises
        ------
        UserError
            If it is missing, saying where it is from, or is another file.
        """
        if not path.is_file():
            raise UserError(
                f"there is no file {path} with the weights of VGG-16: download {_VGG_ADDRESS} (528 MB) where there is "
                "a network and copy it there"
            )
        try:
            return cls(torch.load(path, map_location="cpu", weights_only=True))
        except Exception:  # whatever is not that file fails anywhere in reading it
            raise UserError(f"{path} does not hold torchvision's weights of VGG-16, of {_VGG_ADDRESS}") from None

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the rectified maps at the end of each group, of images (N, 3, S, S) in [-1, 1]."""
        maps, found = ((images + 1) / 2 - self.mean) / self.deviation, []
        for number, convs in enumerate(cast(Iterable[nn.ModuleList], self.groups)):
            if number:
                maps = F.max_pool2d(maps, 2)
            for conv in convs:
                maps = F.relu(conv(maps))
            found.append(maps)
        return found

    def fingerprint(self) -> str:
        """Return the SHA-256 of the weights, in hexadecimal."""
        digest = hashlib.sha256()
        for parameter in self.parameters():
            digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def perceptual_loss(generated: Sequence[Tensor], real: Sequence[Tensor], mean: MeanOverRanks, size: int) -> Tensor:
    """Compare generated with real images by the mean of what the maps of a frozen network say about each.

    No generated image has a real one that it should equal, so what is compared are means over a batch, as in feature
    matching; generated and real images must have been asked for the same conditions. Of each map an image gives the
    mean and the standard deviation over the frame, whatever the galaxy's place and orientation. The squared difference
    of two means of N values each exceeds that of the expectations by (variance + variance) / N, which would teach a
    generator to vary less; that is taken off. Each statistic counts in units of its spread over the real images.

    Parameters
    ----------
    generated, real : sequence of Tensor, (N, C, H, W)
        Maps of each layer.
    mean : callable
        The mean over all ranks of a tensor, differentiable.
    size : int
        Images of all ranks together, at least 2.

    Returns
    -------
    Tensor, ()
        0 on average where the expectations agree, and so sometimes negative.

    References
    ----------
    Salimans et al. 2016, arXiv:1606.03498, section 3.1; Gretton et al. 2012, JMLR 13, 723, lemma 6 (the unbiased
    distance, here with a linear kernel).
    """
    terms = []
    for one, other in zip(generated, real, strict=True):
        (mean_1, variance_1), (mean_2, variance_2) = (_moments(_statistics(m), mean, size) for m in (one, other))
        squared = (mean_1 - mean_2).square() - (variance_1 + variance_2) / size
        # Maps that hardly ever respond would else count without limit.
        terms.append((squared / (variance_2 + _LEAST_SPREAD * variance_2.mean() + 1e-8)).mean())
    return torch.stack(terms).mean()


def _statistics(maps: Tensor) -> Tensor:
    """Return mean and standard deviation (N, 2 C) of maps (N, C, H, W) over the frame, float32."""
    maps = maps.float()
    mean = maps.mean((2, 3))
    variance = (maps - mean[:, :, None, None]).square().mean((2, 3))
    return torch.cat([mean, (variance + 1e-6).sqrt()], 1)


def _moments(values: Tensor, mean: MeanOverRanks, size: int) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased variance (D,) of values (N, D) over all ranks' images."""
    centre = mean(values.mean(0))
    return centre, mean((values - centre).square().mean(0)) * (size / (size - 1))
