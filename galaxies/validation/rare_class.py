"""Do generated galaxies help to find a rare class? A trial against the cheapest alternative: turned copies.

A small classifier learns to find one rare class from N real galaxies of it, alone, with generated ones, or with as
many turned copies of the real ones, and is tested on the real test split. Whatever comes out is reported.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.resampling import turned
from galaxies.validation.classifier_training import train_classifier
from galaxies.validation.distances import bootstrap_interval
from galaxies.validation.judge import JudgeNetwork
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer

ARMS = ("real alone", "with turned copies", "with generated")
_EXTRA = 300  # images that are added in the two arms with additions
_OTHERS = 1500  # most galaxies of the other classes to learn from
_FEWEST_TESTED = 5  # rare galaxies in the test split
_BATCH, _WIDTH = 32, 16


def try_augmentation(
    sampler: GalaxySampler,
    data: PreparedDataset,
    rare: int,
    counts: tuple[int, ...],
    num_seeds: int,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """Run the trial.

    Parameters
    ----------
    sampler : GalaxySampler
        Its network draws the generated galaxies, with attributes from its own training galaxies.
    data : PreparedDataset
        Real galaxies: `train` to learn from, `test` to be tested on.
    rare : int
        Class index of the rare class.
    counts : tuple of int
        Numbers N of real rare galaxies.
    num_seeds : int
        Repetitions, each with other real galaxies and another network.
    steps : int
        Training batches of 32 for each network.
    seed : int

    Returns
    -------
    dict
        For each N that the data allow and each of `ARMS`: balanced accuracy and recall with 95 % bootstrap intervals
        over test galaxies and repetitions, and the difference that generated galaxies make over turned copies.

    Raises
    ------
    UserError
        If fewer than five rare galaxies can be tested on, or there are fewer rare galaxies than the smallest N.
    """
    train, test = data.rows("train"), data.rows("test")
    train_classes, is_rare = data.classes(train), data.classes(test) == rare
    members, others = train[train_classes == rare], train[train_classes != rare]
    name, viewer = data.layout.classes[rare], Viewer.of_dataset(data)
    if is_rare.sum() < _FEWEST_TESTED or not 0 < is_rare.mean() < 1:
        raise UserError(
            f"{data.path} has {int(is_rare.sum())} test galaxies of the class {name} and {int((~is_rare).sum())} "
            f"others: the trial needs {_FEWEST_TESTED} and some others"
        )
    possible = tuple(n for n in counts if n <= len(members))
    if not possible or len(others) == 0:
        raise UserError(
            f"{data.path} has {len(members)} training galaxies of the class {name}, fewer than {min(counts)}"
        )
    test_images = torch.from_numpy(data.images[test])
    results: dict[str, Any] = {}
    with tqdm(total=len(possible) * num_seeds * len(ARMS), desc="rare class", unit="net", leave=False) as bar:
        for count in possible:
            correct = np.zeros((len(ARMS), num_seeds, len(test)), dtype=bool)
            for repeat in range(num_seeds):
                rng = np.random.default_rng([seed, count, repeat])
                real = torch.from_numpy(data.images[rng.permutation(members)[:count]])
                common = torch.from_numpy(data.images[rng.permutation(others)[:_OTHERS]])
                additions = (
                    real[:0],
                    turned_copies(real, _EXTRA, rng, viewer),
                    _generate(sampler, rare, _EXTRA, int(rng.integers(2**31))),
                )
                for arm, extra in enumerate(additions):
                    own_seed = int(rng.integers(2**31))
                    network = _train(torch.cat([real, extra]), common, steps, own_seed, sampler.engine, viewer)
                    correct[arm, repeat] = (_score(network, test_images, sampler.engine, viewer) > 0) == is_rare
                    bar.update()
            results[str(count)] = summarize(correct, is_rare, seed)
    return {
        "rare": name,
        "tested_rare": int(is_rare.sum()),
        "tested_others": int((~is_rare).sum()),
        "added": _EXTRA,
        "repetitions": num_seeds,
        "steps": steps,
        # The generator may have learned from more rare galaxies than the classifier is given.
        "seen_by_generator": len(sampler.population.members(rare)),
        "left_out": [n for n in counts if n not in possible],
        "counts": results,
    }


def turned_copies(images: Tensor, count: int, rng: np.random.Generator, viewer: Viewer = DISPLAY_VIEWER) -> Tensor:
    """Return `count` copies of images (N, B, S, S) as stored, each turned by a random angle and mirrored half the time.

    Corners that turn into the frame are reflections, as at a border without an edge.
    """
    chosen = images[torch.from_numpy(rng.integers(len(images), size=count))].float()
    angle = torch.from_numpy(rng.uniform(0, 2 * math.pi, count)).float()
    mirror = torch.from_numpy(rng.choice([-1.0, 1.0], count)).float()
    return viewer.stored(turned(chosen, angle, mirror, torch.zeros(count, 2)))


def summarize(correct: np.ndarray, is_rare: np.ndarray, seed: int) -> dict[str, Any]:
    """Return balanced accuracy and recall of each arm, and what generated galaxies add over turned copies.

    Parameters
    ----------
    correct : ndarray, (arms, repetitions, M), bool
        Which test galaxies were classified rightly.
    is_rare : ndarray, (M,), bool
    """
    num_seeds, num_tests = correct.shape[1:]

    def rates(right: np.ndarray, rare: np.ndarray) -> np.ndarray:
        recall = right[:, rare].mean()
        return np.array([(recall + right[:, ~rare].mean()) / 2, recall])

    def resampled(rows: np.ndarray) -> np.ndarray:
        # The rows are numbers of test galaxies; repetitions are drawn again beside them.
        rng = np.random.default_rng([seed, 1])
        values = []
        for draw in rows:
            repeats = rng.integers(num_seeds, size=num_seeds)
            rare = is_rare[draw]
            if rare.all() or not rare.any():
                values.append(np.full((len(correct) + 1, 2), np.nan))
                continue
            found = [rates(arm[repeats][:, draw], rare) for arm in correct]
            values.append(np.stack([*found, found[2] - found[1]]))
        return np.stack(values)

    low, high = bootstrap_interval(resampled, num_tests, seed)
    found = [rates(arm, is_rare) for arm in correct]
    found.append(found[2] - found[1])
    names = (*ARMS, "generated over turned copies")
    return {
        name: {
            "balanced_accuracy": {"value": float(found[k][0]), "interval": [low[k][0], high[k][0]]},
            "recall": {"value": float(found[k][1]), "interval": [low[k][1], high[k][1]]},
        }
        for k, name in enumerate(names)
    }


def verdict(difference: dict[str, Any]) -> str:
    """Say what an interval of a difference allows to say."""
    low, high = difference["interval"]
    return "a gain" if low > 0 else "a loss" if high < 0 else "no difference that could be told"


def _generate(sampler: GalaxySampler, rare: int, count: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    unset = torch.full((len(sampler.attributes),), math.nan)
    seeds = torch.randint(2**31, (count,), generator=random).tolist()
    classes = torch.full((count,), rare)
    return sampler.generate(classes, sampler.complete_all(classes, unset.expand(count, -1), seeds), seeds)


def _train(rare: Tensor, others: Tensor, steps: int, seed: int, engine: Engine, viewer: Viewer) -> JudgeNetwork:
    """Train a classifier of the judge's kind on batches that are half rare.

    Group normalisation matters here: with batch normalisation a network that was trained on a few images and their
    copies called all test galaxies one class.
    """
    random = torch.Generator().manual_seed(seed)
    half = _BATCH // 2
    labels = torch.cat([torch.ones(half), torch.zeros(half)]).to(engine.device)

    def build() -> JudgeNetwork:
        network = JudgeNetwork(1, _WIDTH, viewer.layout)
        engine.prepare(network)
        return network

    def draw_loss(network: JudgeNetwork) -> Tensor:
        chosen = [part[torch.randint(len(part), (half,), generator=random)] for part in (rare, others)]
        return F.binary_cross_entropy_with_logits(_logits(network, torch.cat(chosen), engine, viewer), labels)

    return train_classifier(build, draw_loss, steps, seed).network


def _logits(network: JudgeNetwork, images: Tensor, engine: Engine, viewer: Viewer) -> Tensor:
    """Return logits (N,), above 0 for the rare class, of images (N, B, S, S) as stored."""
    return network(viewer.linear(images.to(engine.device)))[0][:, 0]


@torch.inference_mode()
def _score(network: JudgeNetwork, images: Tensor, engine: Engine, viewer: Viewer) -> np.ndarray:
    return torch.cat([_logits(network, chunk, engine, viewer).cpu() for chunk in images.split(256)]).numpy()
