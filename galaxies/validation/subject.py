"""What is validated: a checkpoint with the dataset, the judge and the predictor, and galaxies with all readings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.datasets.prepared import PreparedDataset, to_float
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure.statistics_table import Measured, measure_images
from galaxies.storage.release import load_state
from galaxies.validation.feature_spaces import FeatureSpace, build_spaces
from galaxies.validation.judge import Judge
from galaxies.validation.report.contents import Instrument, LeftOut
from physics_model import build_predictor


@dataclass(frozen=True)
class Galaxies:
    """Images of one set with all readings of them.

    Attributes
    ----------
    images : Tensor, (N, 3, S, S), uint8
    classes, values : ndarray, (N,) int64 and (N, A) float64
        True or requested ones; values in physical units, NaN where unknown or unset.
    measured : Measured
    probabilities : Tensor, (N, classes), or None
        By the judge, if there is one.
    judged, predicted : dict of str to ndarray, (N,)
        Attributes in physical units as the judge, and as the predictor of the training read them.
    """

    images: Tensor
    classes: np.ndarray
    values: np.ndarray
    measured: Measured
    probabilities: Tensor | None
    judged: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]

    def readings(self) -> dict[Instrument, dict[str, np.ndarray]]:
        """Return the readings of each instrument."""
        return {"photometry": self.measured.values, "judge": self.judged}


@dataclass(frozen=True)
class Subject:
    """A checkpoint that can be compared with a dataset.

    Attributes
    ----------
    path : Path
    state : dict
        The checkpoint's content.
    sampler : GalaxySampler
    data : PreparedDataset
    judge : Judge or LeftOut
    predictor : nn.Module
        That of the training, in evaluation mode.
    """

    path: Path
    state: dict[str, Any]
    sampler: GalaxySampler
    data: PreparedDataset
    judge: Judge | LeftOut
    predictor: nn.Module

    @classmethod
    def open(cls, checkpoint: Path, data_path: Path, device: str, **solver: Any) -> Subject:
        """Read all that is needed.

        Parameters
        ----------
        device : str
            As in `Engine.choose`.
        solver
            Fields of `solvers.Solver` that differ from the run's.

        Raises
        ------
        UserError
            If the checkpoint or the dataset cannot be used, or they do not match.
        """
        state = load_state(checkpoint)
        sampler = GalaxySampler.from_state(state, checkpoint, device, **solver)
        data = PreparedDataset.open(data_path)
        match(sampler, data, checkpoint)
        judge = load_judge(data, device)
        predictor = build_predictor(sampler.config)
        predictor.load_state_dict(state["networks"]["predictor"])
        return cls(checkpoint, state, sampler, data, judge, sampler.engine.prepare(predictor).eval())

    def read(self, images: Tensor, classes: np.ndarray, values: np.ndarray, title: str) -> Galaxies:
        """Read images (N, 3, S, S) uint8 with every instrument; the other arguments are as in `Galaxies`."""
        measured = measure_images(images, self.sampler.engine.device, f"measuring, {title}")
        predicted = self._predict(images)
        if isinstance(self.judge, LeftOut):
            return Galaxies(images, classes, values, measured, None, {}, predicted)
        probabilities = self.judge.classify(images)
        return Galaxies(images, classes, values, measured, probabilities, judged(self.judge, images), predicted)

    def read_drawn(self, images: Tensor, requests: Requests, title: str) -> Galaxies:
        """Read images that were drawn for requests."""
        return self.read(images, requests.classes.numpy(), requests.values.double().numpy(), title)

    @torch.inference_mode()
    def _predict(self, images: Tensor) -> dict[str, np.ndarray]:
        """Return what the training's predictor reads, in physical units."""
        blocks = images.split(256)
        scaled = [self.predictor(to_float(block.to(self.sampler.engine.device))).float().cpu() for block in blocks]
        columns = torch.cat(scaled).T
        return {
            a.name: a.from_unit(column).double().numpy()
            for a, column in zip(self.sampler.attributes, columns, strict=True)
        }


def judged(judge: Judge, images: Tensor) -> dict[str, np.ndarray]:
    """Return the judge's readings of images (N, 3, S, S) uint8: {attribute: (N,) float64 in physical units}."""
    return dict(zip(judge.attributes, judge.read(images).double().numpy().T, strict=True))


def match(sampler: GalaxySampler, data: PreparedDataset, checkpoint: Path) -> None:
    """Refuse a dataset that the checkpoint cannot be compared with.

    Raises
    ------
    UserError
        Naming the difference: image size, attributes, or no test galaxies.
    """
    size, attributes = sampler.config.image_size, sampler.config.attributes
    if data.image_size != size:
        raise UserError(f"{checkpoint} draws images of {size} pixels and {data.path} holds {data.image_size} pixels")
    missing = [a for a in attributes if a not in data.catalogue or data.catalogue[a].isna().all()]
    if missing:
        raise UserError(
            f"{checkpoint} was trained with {', '.join(attributes)}, but {data.path} knows no {', '.join(missing)}"
        )
    if len(data.rows("test")) == 0:
        raise UserError(f"{data.path} has no test galaxies to compare with: prepare more data")


def load_judge(data: PreparedDataset, device: str) -> Judge | LeftOut:
    """Return the judge of a dataset, or the reason why there is none."""
    try:
        return Judge.of_dataset(data, device)
    except UserError as error:
        return LeftOut(str(error))


def real_sample(data: PreparedDataset, split: str, most: int, seed: int) -> np.ndarray:
    """Return at most `most` rows of a split in random order, so that the first few are a random draw too."""
    return np.random.default_rng([seed, 4]).permutation(data.rows(split))[:most]


def choose_spaces(judge: Judge | LeftOut, real: Tensor, engine: Engine) -> tuple[FeatureSpace, ...]:
    """Return the feature spaces that there are: without a judge, those that need none."""
    spaces = build_spaces(judge, real, engine.device)
    return tuple(space for space in spaces if space.name != "judge") if isinstance(judge, LeftOut) else spaces
