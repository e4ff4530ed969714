"""A fresh network that learns to tell generated from real galaxies, and is tested on others.

On either side, learning and testing, there are equally many generated and real galaxies of each class, so that guessing
is right half the time. Mock galaxies can stand where generated ones do: `studies/realism.py` does so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import MORPHOLOGY_NAMES
from galaxies.compute.device import Engine
from galaxies.images.resampling import dihedral
from galaxies.validation.classifier_training import linear_decay, train_classifier
from galaxies.validation.distances import roc_auc
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer

_MIN_PAIRS = 5  # a class with fewer pairs to test on is left out
_BATCH = 64


@dataclass(frozen=True)
class Pairs:
    """Rows of the two samples that are trained on and tested with, equally many of either sample in each class.

    Attributes
    ----------
    train, test : list of (generated rows, real rows), one a class
        Row numbers of equal length, (n,) int64 each.
    """

    train: list[tuple[np.ndarray, np.ndarray]]
    test: list[tuple[np.ndarray, np.ndarray]]


def rate(generated_scores: np.ndarray, real_scores: np.ndarray) -> dict[str, float]:
    """Return how well scores, above 0 for a generated galaxy, tell generated from real.

    Returns
    -------
    dict of str to float
        ``pairs``; ``accuracy``, 0.5 for guessing, with its binomial ``standard_error``; ``auc``.
    """
    accuracy = float(((generated_scores > 0).mean() + (real_scores <= 0).mean()) / 2)
    return {
        "pairs": len(generated_scores),
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / (len(generated_scores) + len(real_scores))),
        "auc": roc_auc(generated_scores, real_scores),
    }


def groups_with_pairs(
    side: list[tuple[np.ndarray, np.ndarray]], names: Sequence[str] = MORPHOLOGY_NAMES
) -> dict[str, list[int]]:
    """Return the classes that have enough pairs, each by itself and all of them together, by name."""
    enough = [index for index, (rows, _) in enumerate(side) if len(rows) >= _MIN_PAIRS]
    return {names[index]: [index] for index in enough} | ({"all": enough} if enough else {})


class RealOrGenerated(nn.Module):
    """Four convolutions, the average over the frame and one logit, above 0 for a generated galaxy.

    The first convolution keeps 64 pixels a side of larger images, the others halve it down to 8.
    """

    def __init__(self, image_size: int, width: int = 24, viewer: Viewer = DISPLAY_VIEWER) -> None:
        super().__init__()
        self._viewer = viewer
        layers: list[nn.Module] = []
        c_in = len(viewer.layout.bands)
        for c_out, stride in ((width, image_size // 64), (2 * width, 2), (4 * width, 2), (4 * width, 2)):
            layers += [nn.Conv2d(c_in, c_out, 3, stride, 1), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2, inplace=True)]
            c_in = c_out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classify = nn.Linear(c_in, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N,) of images (N, B, S, S) as stored."""
        return self.classify(self.features(self._viewer.lifted(images) * 2 - 1))[:, 0]


def tell_apart(
    generated_images: np.ndarray,
    real_images: np.ndarray,
    pairs: Pairs,
    steps: int,
    seed: int,
    engine: Engine,
    title: str,
    viewer: Viewer = DISPLAY_VIEWER,
) -> dict[str, dict[str, float]]:
    """Train `RealOrGenerated` and return its `rate` on the test pairs of each class and of all together.

    Parameters
    ----------
    generated_images, real_images : ndarray, (N, B, S, S) and (M, B, S, S)
        As stored.
    pairs : Pairs
    steps : int
        Batches of 64, each with all classes, generated and real equally often, in random flips and quarter turns.
    seed : int
    engine : Engine
    title : str
        Beside the progress bar.
    viewer : Viewer
        Looks at the images.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.ones(_BATCH // 2), torch.zeros(_BATCH // 2)]).to(engine.device)

    def build() -> RealOrGenerated:
        network = RealOrGenerated(generated_images.shape[-1], viewer=viewer)
        engine.prepare(network)
        return network

    def draw_loss(network: RealOrGenerated) -> Tensor:
        images = torch.cat([_draw(generated_images, pairs, 0, generator), _draw(real_images, pairs, 1, generator)])
        turns = torch.randint(0, 8, (_BATCH,), generator=generator)
        return F.binary_cross_entropy_with_logits(_logits(network, dihedral(images, turns), engine), labels)

    results = {}
    with engine.kernels():
        network = train_classifier(
            build,
            draw_loss,
            steps,
            seed,
            weight_decay=1e-3,
            schedule=linear_decay,
            title=title,
        ).network
        for name, members in groups_with_pairs(pairs.test, viewer.layout.classes).items():
            rows = [np.concatenate([pairs.test[index][place] for index in members]) for place in (0, 1)]
            samples = zip((generated_images, real_images), rows, strict=True)
            results[name] = rate(*(_scores(network, images[chosen], engine) for images, chosen in samples))
    return results


def _draw(images: np.ndarray, pairs: Pairs, place: int, generator: torch.Generator) -> Tensor:
    """Draw half a batch from one sample, the classes in turn."""
    present = [rows[place] for rows in pairs.train if len(rows[place])]
    chosen = []
    for k in range(_BATCH // 2):
        rows = present[k % len(present)]
        chosen.append(int(rows[torch.randint(len(rows), (1,), generator=generator)]))
    return torch.from_numpy(images[chosen])


def _logits(network: RealOrGenerated, images: Tensor, engine: Engine) -> Tensor:
    with engine.autocast():
        logits = network(images.to(engine.device, memory_format=torch.channels_last))
    return logits.float()


@torch.inference_mode()
def _scores(network: RealOrGenerated, images: np.ndarray, engine: Engine) -> np.ndarray:
    blocks = torch.from_numpy(images).split(256)
    return torch.cat([_logits(network, block, engine).cpu() for block in blocks]).double().numpy()
