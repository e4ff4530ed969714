"""What is validated: a checkpoint with the dataset, the judge and the predictor, and galaxies with all readings."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from galaxies.common.errors import UserError, shown
from galaxies.compute.device import Engine
from galaxies.datasets.batches import Pixels
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.requests import Requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure.statistics_table import Measured
from galaxies.storage.release import load_state
from galaxies.validation.feature_spaces import FeatureSpace, build_spaces
from galaxies.validation.judge import Judge
from galaxies.validation.report.cells import Instrument, LeftOut
from galaxies.validation.viewing import DISPLAY_VIEWER, Viewer
from physics_model import build_predictor

_SCALES_APART = 0.05  # from which on two pixel scales are not the same


@dataclass(frozen=True)
class Galaxies:
    """Images of one set with all readings of them.

    Attributes
    ----------
    images : Tensor, (N, B, S, S)
        As stored: uint8, or flux, nJy a pixel.
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

    @cached_property
    def viewer(self) -> Viewer:
        """Looks at images."""
        return Viewer.of_dataset(self.data)

    @property
    def mixes(self) -> bool:
        """Whether galaxies are asked for with the dataset's shares of the classes, as the generator has learned."""
        return self.sampler.config.soft_classes and self.data.has_shares

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
        """Read images (N, B, S, S), as stored, with every instrument; the other arguments are as in `Galaxies`."""
        measured = self.viewer.measure(images, self.sampler.engine.device, f"measuring, {title}", morphology=True)
        asked = {name: self.viewer.read(measured, name) for name in self.sampler.config.attributes}
        measured = replace(measured, values=measured.values | {n: v for n, v in asked.items() if v is not None})
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
        device = self.sampler.engine.device
        pixels = Pixels(self.sampler.config, device)
        blocks = (pixels.for_networks(block.to(device)) for block in images.split(256))
        scaled = [self.predictor(block).float().cpu() for block in blocks]
        columns = torch.cat(scaled).T
        return {
            a.name: a.from_unit(column).double().numpy()
            for a, column in zip(self.sampler.attributes, columns, strict=True)
        }


def judged(judge: Judge, images: Tensor) -> dict[str, np.ndarray]:
    """Return the judge's readings of images (N, B, S, S), as stored: {attribute: (N,) in physical units}."""
    return dict(zip(judge.attributes, judge.read(images).double().numpy().T, strict=True))


def match(sampler: GalaxySampler, data: PreparedDataset, checkpoint: Path) -> None:
    """Refuse a dataset that the checkpoint cannot be compared with, and say what is to be known of another.

    Raises
    ------
    UserError
        Naming the difference: kind, bands, classes, pixel scale, image size, attributes, or no test galaxies.
    """
    config, layout = sampler.config, data.layout
    size, attributes = config.image_size, config.attributes
    if config.kind != layout.kind:
        raise UserError(f"{checkpoint} draws images of kind {config.kind}, and {data.path} holds kind {layout.kind}")
    for what, drawn, held in (("bands", config.bands, layout.band_names), ("classes", config.classes, layout.classes)):
        if drawn != held:
            raise UserError(
                f"{checkpoint} knows the {what} {', '.join(drawn)}, and {data.path} has {shown(', '.join(held))}: "
                "compare it with data like those that it was trained on"
            )
    if layout.is_flux and abs((scale := data.settings(())["pixel_scale"]) / config.pixel_scale - 1) > _SCALES_APART:
        raise UserError(
            f"{checkpoint} draws at {config.pixel_scale:g} arcsec a pixel, and {data.path} holds {scale:g}: compare it "
            "with data of the same pixel scale"
        )
    if data.image_size != size:
        raise UserError(f"{checkpoint} draws images of {size} pixels and {data.path} holds {data.image_size} pixels")
    missing = [a for a in attributes if a not in data.catalogue or data.catalogue[a].isna().all()]
    if missing:
        raise UserError(
            f"{checkpoint} was trained with {', '.join(attributes)}, but {data.path} knows no {', '.join(missing)}"
        )
    if len(data.rows("test")) == 0:
        raise UserError(f"{data.path} has no test galaxies to compare with: prepare more data")
    if remark := data.remark():
        print(f"note: {remark}", file=sys.stderr)


def load_judge(data: PreparedDataset, device: str) -> Judge | LeftOut:
    """Return the judge of a dataset, or the reason why there is none."""
    try:
        return Judge.of_dataset(data, device)
    except UserError as error:
        return LeftOut(str(error))


def real_sample(data: PreparedDataset, split: str, most: int, seed: int) -> np.ndarray:
    """Return at most `most` rows of a split in random order, so that the first few are a random draw too."""
    return np.random.default_rng([seed, 4]).permutation(data.rows(split))[:most]


def choose_spaces(
    judge: Judge | LeftOut, real: Tensor, engine: Engine, viewer: Viewer = DISPLAY_VIEWER
) -> tuple[FeatureSpace, ...]:
    """Return the feature spaces that there are: without a judge, those that need none."""
    spaces = build_spaces(judge, real, engine.device, viewer)
    return tuple(space for space in spaces if space.name != "judge") if isinstance(judge, LeftOut) else spaces
