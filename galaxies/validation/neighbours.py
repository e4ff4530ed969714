"""Whether generated galaxies look real, whether they show all there is, and whether they are copies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.images.resampling import dihedral
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer

NEIGHBOURS = 5
_POOLED_PX = 16  # side of the pictures in which copies are looked for
_BLOCK = 512


def neighbourhoods(real: np.ndarray, generated: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Return precision, recall, density and coverage of generated features.

    A galaxy's neighbourhood is the open ball that reaches to the k-th nearest of its own set. Precision: share of
    generated galaxies in the neighbourhood of a real one; recall: share of real galaxies in that of a generated one;
    density: real neighbourhoods around a generated galaxy over k, on average, 1 for equal sets; coverage: share of
    real galaxies with a generated one in their neighbourhood.

    Parameters
    ----------
    real, generated : ndarray, (N, D) and (M, D), float
        More than k rows each.

    References
    ----------
    Kynkäänniemi et al. 2019 (arXiv:1904.06991), section 3; Naeem et al. 2020 (arXiv:2002.09797), eqs. 4 and 5.
    """
    from scipy.spatial.distance import cdist

    if min(len(real), len(generated)) <= k:
        raise ValueError(f"neighbourhoods of {k} need more rows than {len(real)} and {len(generated)}")

    def radii(features: np.ndarray) -> np.ndarray:
        # Each row counts as its own first neighbour, so that the ball of identical sets holds exactly k.
        return np.partition(cdist(features, features), k, axis=1)[:, k]

    distances = cdist(real, generated)  # (N, M)
    in_real = distances < radii(real)[:, None]
    in_generated = distances < radii(generated)[None, :]
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float(in_generated.any(1).mean()),
        "density": float(in_real.sum(0).mean() / k),
        "coverage": float(in_real.any(1).mean()),
    }


class Splittable(Protocol):
    """Images that can be had a block at a time, as a tensor's can."""

    def split(self, size: int) -> Iterable[Tensor]:
        """Return blocks of so many images, the last one of what is left."""


def nearest_training(
    images: Tensor,
    training: Splittable,
    device: torch.device | str = "cpu",
    viewer: Viewer = DISPLAY_VIEWER,
) -> tuple[Tensor, Tensor]:
    """Find the training image that each image resembles most, in any of the eight flips and quarter turns.

    Compared are pictures of 16 x 16 pixels, in which noise counts for little: a copy with other noise is a copy.

    Parameters
    ----------
    images, training : Tensor, (N, B, S, S) and (M, B, S, S)
        As stored; of the second, one block at a time is looked at.
    device : torch.device
    viewer : Viewer
        Looks at the images.

    Returns
    -------
    distance : Tensor, (N,), float32
        Root mean square difference, in grey levels of 255; of flux, of the stretched images.
    index : Tensor, (N,), int64
        Row of the training image.
    """
    pool = [_pooled(block.to(device), viewer) for block in training.split(_BLOCK)]
    best = torch.full((len(images),), torch.inf)
    index = torch.zeros(len(images), dtype=torch.int64)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].to(device)
        rows = slice(start, start + len(block))
        for turn in range(8):
            turned = _pooled(dihedral(block, torch.full((len(block),), turn, device=block.device)), viewer)
            for number, candidates in enumerate(pool):
                distance, where = (part.cpu() for part in torch.cdist(turned, candidates).min(1))
                nearer = distance < best[rows]
                index[rows] = torch.where(nearer, where + number * _BLOCK, index[rows])
                best[rows] = torch.where(nearer, distance, best[rows])
    return best / (images.shape[1] * _POOLED_PX**2) ** 0.5, index


def _pooled(images: Tensor, viewer: Viewer) -> Tensor:
    return F.adaptive_avg_pool2d(viewer.levels(images), _POOLED_PX).flatten(1)
