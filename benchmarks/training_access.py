"""Trainers for benchmarks, and data that are made in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from config_physics import ATTRIBUTES, Config
from galaxies.datasets.prepared import PreparedDataset
from galaxies.mock_survey.observation import MockSurvey
from galaxies.training.trainer import Trainer

_DIFFERENT = 128  # galaxies that are rendered; more images repeat them, since no step's time depends on them

TOTAL_STEPS = 1_000_000  # of a phase: so many that the step size hardly falls


def made_data(count: int, image_px: int = 64, seed: int = 0) -> PreparedDataset:
    """Make a prepared dataset in memory, all of it for training.

    Parameters
    ----------
    count : int
        Number of images; beyond 128 they repeat.
    image_px : int
        Pixels a side.
    seed : int
        Of the galaxies and of their attributes, which are uniform in the range of each and belong to no picture.
    """
    batches = list(MockSurvey(seed, image_px).batches(min(count, _DIFFERENT)))
    images = np.concatenate([batch.images for batch in batches])
    names = [name for batch in batches for name in batch.morphologies]
    chosen = np.arange(count) % len(images)
    rng = np.random.default_rng(seed)
    values = {name: rng.uniform(a.low, a.high, count).astype(np.float32) for name, a in ATTRIBUTES.items()}
    catalogue = pd.DataFrame(
        {
            "object_id": [f"made-{k}" for k in range(count)],
            "morphology": np.array(names)[chosen],
            "split": "train",
            **values,
        }
    )
    manifest = {"source": "made for a benchmark", "count": count, "counts": {}, "sha256": {}}
    return PreparedDataset(Path("made"), images[chosen], catalogue, manifest)


def make_trainer(config: Config, data: PreparedDataset, folder: Path) -> Trainer:
    """Return a trainer that writes below `folder`."""
    checkpoints, samples = folder / "checkpoints", folder / "samples"
    for path in (checkpoints, samples):
        path.mkdir(parents=True, exist_ok=True)
    return Trainer(config, data, checkpoints, samples)
