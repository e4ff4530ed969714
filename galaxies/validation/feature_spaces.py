"""Three spaces in which sets of galaxies are compared, and the check that each of them can be trusted.

A distance is worth reporting only if it grows when pictures get worse. `validate` damages real galaxies in four ways,
more and more, and looks whether it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from galaxies.validation.distances import frechet_distance, kernel_distance
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer

DISTANCES = {"frechet": frechet_distance, "kid": kernel_distance}
_RANDOM_SEED = 7  # of the random network: the same filters in every report
_CHANNELS = (16, 16, 32)
_BLUR_PX = (0.0, 1.0, 2.0, 4.0)  # standard deviations at 64 pixels
# Standard deviations of a display's range, and of flux in that of the noise of the band, with their names.
_NOISE = {
    "display": ((0.0, 0.03, 0.1, 0.2), "white noise, σ in display units"),
    "flux": ((0.0, 1.0, 3.0, 10.0), "white noise, σ in that of the band's noise"),
}
_SHARES = (0.0, 1 / 3, 2 / 3, 1.0)
_SPLITS = 8  # random halves over which a distance is averaged
_MIN_IMAGES = 40


@dataclass(frozen=True)
class FeatureSpace:
    """A way to turn images into features.

    Attributes
    ----------
    name, label, description : str
    embed : callable
        Images (N, B, S, S) as stored to features (N, D) float64.
    """

    name: str
    label: str
    description: str
    embed: Callable[[Tensor], np.ndarray]


def build_spaces(
    judge: Any, real: Tensor, device: torch.device, viewer: Viewer = DISPLAY_VIEWER
) -> tuple[FeatureSpace, ...]:
    """Return the three spaces. They take all bands, however many there are: none needs pictures of three planes.

    Parameters
    ----------
    judge : judge.Judge
    real : Tensor, (N, B, S, S)
        Real galaxies as stored; the statistics and the random features are counted in their standard deviations.
    device : torch.device
    viewer : Viewer
        Looks at the images.
    """

    def judged(images: Tensor) -> np.ndarray:
        return judge.features(images).double().numpy()

    def measured(images: Tensor) -> np.ndarray:
        return viewer.table(viewer.measure(images, device))

    network = RandomFeatures(real.shape[-1], viewer).to(device)
    return (
        FeatureSpace("judge", "Judge", "penultimate layer of the judge, which learned class and attributes", judged),
        FeatureSpace(
            "statistics", "Statistics", "all measured statistics in standard deviations", standardised(measured, real)
        ),
        FeatureSpace(
            "random", "Random network", "convolutions with random filters", standardised(network.features, real)
        ),
    )


def standardised(embed: Callable[[Tensor], np.ndarray], real: Tensor) -> Callable[[Tensor], np.ndarray]:
    """Count features in standard deviations from the mean of real galaxies; unknown ones become the mean.

    What lies further out than 10 standard deviations is drawn in to 10, so that one wild measurement is no distance.
    """
    reference = embed(real)
    known = np.isfinite(reference)
    counts = known.sum(0).clip(1)
    mean = np.where(known, reference, 0).sum(0) / counts
    spread = np.sqrt((np.where(known, reference - mean, 0) ** 2).sum(0) / counts)
    spread = np.where(spread > 1e-12, spread, 1.0)
    return lambda images: np.nan_to_num((embed(images) - mean) / spread).clip(-10, 10)


class RandomFeatures(nn.Module):
    """Three random convolutions, and how strongly each filter answers on average: 64 features without any training.

    Such features cannot be blind to what a trained network learned to ignore, such as the noise of the sky.
    """

    def __init__(self, image_size: int, viewer: Viewer = DISPLAY_VIEWER) -> None:
        super().__init__()
        self._viewer = viewer
        generator = torch.Generator().manual_seed(_RANDOM_SEED)
        layers: list[nn.Conv2d] = []
        c_in = len(viewer.layout.bands)
        for c_out, stride in zip(_CHANNELS, (image_size // 64, 2, 2), strict=True):
            layer = nn.Conv2d(c_in, c_out, 5, stride, 2, bias=False)
            weight = torch.randn(layer.weight.shape, generator=generator)
            if layers:  # the first layer sees levels as well
                weight = weight - weight.mean((2, 3), keepdim=True)
            layer.weight = nn.Parameter(weight / (25 * c_in) ** 0.5, requires_grad=False)
            layers.append(layer)
            c_in = c_out
        self.layers = nn.ModuleList(layers)

    @torch.inference_mode()
    def features(self, images: Tensor) -> np.ndarray:
        """Return features (N, 64), float64, of images (N, B, S, S) as stored."""
        parts = []
        for block in images.split(256):
            maps = self._viewer.lifted(block.to(self.layers[0].weight.device))
            answers = []
            for layer in self.layers:
                maps = F.leaky_relu(layer(maps), 0.2)
                answers.append(maps.abs().mean((2, 3)))
            parts.append(torch.cat(answers, 1).cpu())
        return torch.cat(parts).double().numpy()


def blur(images: Tensor, width_px: float, viewer: Viewer = DISPLAY_VIEWER) -> Tensor:
    """Convolve images (N, B, S, S) with a Gaussian whose standard deviation is given for 64 pixels a side."""
    if width_px == 0:
        return images
    side = images.shape[-1]
    axis = torch.arange(side, dtype=torch.float32)
    kernel = torch.exp(-0.5 * ((axis[:, None] - axis) / (width_px * side / 64)) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    return viewer.stored(kernel @ images.float() @ kernel.T)


def add_noise(images: Tensor, sigma: float, seed: int, viewer: Viewer = DISPLAY_VIEWER) -> Tensor:
    """Add white Gaussian noise to images (N, B, S, S); `sigma` counts the display's range, or the band's noise."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return viewer.stored(images.float() + viewer.noise_unit * sigma * noise)


def validate(
    spaces: tuple[FeatureSpace, ...],
    images: Tensor,
    classes: np.ndarray,
    seed: int,
    viewer: Viewer = DISPLAY_VIEWER,
) -> dict[str, Any]:
    """Check that every distance in every space grows with every damage.

    Real galaxies are split into halves at random. One half is damaged, more at each of four levels, and its distance
    from the other is averaged over the splits: blurred; noisy; with a third, two thirds and all of one class left out
    (the largest that leaves half of the galaxies); and with a third, two thirds and all replaced by one image.

    Parameters
    ----------
    images : Tensor, (N, B, S, S)
        Real galaxies as stored.
    classes : ndarray, (N,), int64
    seed : int
    viewer : Viewer
        Looks at the images.

    Returns
    -------
    dict
        ``images``; ``damages``, {damage: {label, levels}}; ``spaces``, {space: {damage: {distance: {values,
        monotone}}}}; ``passed``. Or ``left_out``, a sentence.
    """
    if len(images) < _MIN_IMAGES:
        return {"left_out": f"needs {_MIN_IMAGES} images of the reference, has {len(images)}"}
    counts = np.bincount(classes, minlength=len(viewer.layout.classes))
    dropped = int(np.where(counts <= len(classes) / 2, counts, 0).argmax())
    sigmas, about_noise = _NOISE[viewer.layout.kind]
    damages = {
        "blur": {"label": "Gaussian blur, σ in pixels of 64", "levels": _BLUR_PX},
        "noise": {"label": about_noise, "levels": sigmas},
        "single": {"label": "share of images replaced by one", "levels": _SHARES},
    }
    if counts[dropped]:
        name = viewer.layout.classes[dropped]
        damages["class"] = {"label": f"share of {name} galaxies left out", "levels": _SHARES}

    results: dict[str, Any] = {}
    for space in tqdm(spaces, "validating feature spaces", unit=" spaces", leave=False):
        clean = space.embed(images)
        blurred = [clean, *(space.embed(blur(images, width, viewer)) for width in _BLUR_PX[1:])]
        noisy = [clean, *(space.embed(add_noise(images, sigma, seed, viewer)) for sigma in sigmas[1:])]
        sums = {damage: np.zeros((len(DISTANCES), 4)) for damage in damages}
        for split in range(_SPLITS):
            rng = np.random.default_rng([seed, split])
            order = rng.permutation(len(images))
            first, second = order[: len(order) // 2], order[len(order) // 2 :]
            versions = {"blur": [b[second] for b in blurred], "noise": [n[second] for n in noisy]}
            versions["single"] = []
            for share in _SHARES:
                rows = second.copy()
                rows[: round(share * len(rows))] = second[-1]
                versions["single"].append(clean[rows])
            if "class" in damages:
                versions["class"] = [clean[rows] for rows in _without_class(second, classes, dropped)]
            for damage, sets in versions.items():
                sums[damage] += [[d(version, clean[first]) for version in sets] for d in DISTANCES.values()]
        results[space.name] = {
            damage: {
                distance: {"values": (row / _SPLITS).tolist(), "monotone": bool((np.diff(row) > 0).all())}
                for distance, row in zip(DISTANCES, table, strict=True)
            }
            for damage, table in sums.items()
        }
    passed = all(cell["monotone"] for s in results.values() for d in s.values() for cell in d.values())
    return {"images": len(images), "damages": damages, "spaces": results, "passed": passed}


def _without_class(rows: np.ndarray, classes: np.ndarray, dropped: int) -> list[np.ndarray]:
    """Return sets of equal size with 0, 1/3, 2/3 and all of a class left out, in place of which others stay."""
    of_class, others = rows[classes[rows] == dropped], rows[classes[rows] != dropped]
    size = len(others)  # all that is left without the class; the fuller sets are thinned to as many
    sets = []
    for share in _SHARES:
        kept = round((1 - share) * len(of_class) * size / len(rows))
        sets.append(np.concatenate([of_class[:kept], others[: size - kept]]))
    return sets
