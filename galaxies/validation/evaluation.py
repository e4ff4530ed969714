"""The validation of a checkpoint: what is generated, what it is compared with, and every number of the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from config_physics import ATTRIBUTES
from galaxies.common.errors import UserError
from galaxies.compute.device import Engine
from galaxies.datasets.prepared import PreparedDataset, to_float
from galaxies.generation.requests import requests_like_test, uniform_requests
from galaxies.generation.sampler import GalaxySampler
from galaxies.measure import photometry
from galaxies.measure.statistics_table import Measured, measure_images
from galaxies.measure.with_statmorph import READS, read_with_statmorph
from galaxies.storage.release import load_state
from galaxies.validation.agreement import (
    agreement_by_class,
    class_accuracy,
    gaming_gap,
    generate_all,
    shuffled_control,
    unsupported_share,
)
from galaxies.validation.comparison import (
    compare_features,
    compare_statistics,
    compare_variety,
    groups_of,
    look_for_copies,
    power_ratio,
    real_or_fake,
)
from galaxies.validation.distances import accuracy_interval
from galaxies.validation.feature_spaces import FeatureSpace, build_spaces, validate
from galaxies.validation.guidance_effect import guidance_effect
from galaxies.validation.judge import Judge
from physics_model import build_predictor

FORMAT_VERSION = 1
_VALIDATED = 400  # real galaxies that the distances are checked with


@dataclass
class Evaluation:
    """A finished evaluation.

    Attributes
    ----------
    report : dict
        Plain values: what `report.json` holds.
    pictures : dict
        Arrays and images that the plots are drawn from.
    """

    report: dict[str, Any]
    pictures: dict[str, Any]


@dataclass
class _Galaxies:
    """Images of one set with all readings of them."""

    images: Tensor  # (N, 3, S, S) uint8
    classes: np.ndarray  # (N,), true or requested
    values: np.ndarray  # (N, A), true or requested
    measured: Measured
    probabilities: Tensor | None  # (N, 4), by the judge
    judged: dict[str, np.ndarray]  # by the judge
    predicted: dict[str, np.ndarray]  # by the predictor of the training

    def readings(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the readings of each instrument."""
        return {"photometry": self.measured.values, "judge": self.judged}


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


def load_judge(data: PreparedDataset, device: str) -> tuple[Judge | None, str]:
    """Return the judge of a dataset, or None and the reason why there is none."""
    try:
        return Judge.of_dataset(data, device), ""
    except UserError as error:
        return None, str(error)


def real_sample(data: PreparedDataset, split: str, most: int, seed: int) -> np.ndarray:
    """Return at most `most` rows of a split in random order, so that the first few are a random draw too."""
    return np.random.default_rng([seed, 4]).permutation(data.rows(split))[:most]


def evaluate(
    checkpoint: Path,
    data_path: Path,
    count: int,
    seed: int,
    device: str,
    statmorph: int = 0,
    steps: int = 150,
    solver: dict[str, Any] | None = None,
) -> Evaluation:
    """Compare a checkpoint with a dataset in every way of the report.

    Parameters
    ----------
    checkpoint, data_path : Path
    count : int
        Images to generate: half for requests as in the test split, half for uniform ones.
    seed : int
        Of every random draw.
    device : str
        As in `Engine.choose`.
    statmorph : int
        Generated and real images that statmorph measures as well, each.
    steps : int
        Batches that the real-or-fake network learns from.
    solver : dict, optional
        Fields of `diffusion_sampling.Solver` that differ from the run's.
    """
    clock = _Clock()
    state = load_state(checkpoint)
    sampler = GalaxySampler.from_state(state, checkpoint, device, **(solver or {}))
    data = PreparedDataset.open(data_path)
    match(sampler, data, checkpoint)
    engine, config = sampler.engine, sampler.config
    judge, no_judge = load_judge(data, device)
    clock.lap("judge")

    predictor = build_predictor(config)
    predictor.load_state_dict(state["networks"]["predictor"])
    predictor = engine.prepare(predictor).eval()
    rows = real_sample(data, "test", count, seed)
    asked = {
        "test": requests_like_test(data, config.attributes, (count + 1) // 2, seed),
        "uniform": uniform_requests(sampler, count // 2, seed),
    }
    sets = {name: generate_all(sampler, requests, f"generating, {name}") for name, requests in asked.items()}
    clock.lap("generation")

    def read(images: Tensor, classes: np.ndarray, values: np.ndarray, title: str) -> _Galaxies:
        measured = measure_images(images, engine.device, f"measuring, {title}")
        judged = judge.read(images).double().numpy() if judge else np.empty((len(images), 0))
        predicted = _predict(predictor, images, sampler)
        return _Galaxies(
            images,
            classes,
            values,
            measured,
            judge.classify(images) if judge else None,
            dict(zip(judge.attributes if judge else (), judged.T, strict=True)),
            predicted,
        )

    images = torch.from_numpy(data.images[rows])
    truth = data.attributes(config.attributes, rows).astype(np.float64)
    real = read(images, data.classes(rows), truth, "real")
    drawn = {
        name: read(sets[name], requests.classes.numpy(), requests.values.double().numpy(), name)
        for name, requests in asked.items()
    }
    clock.lap("reading")

    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "checkpoint": {
            "path": str(checkpoint),
            "run": config.run,
            "epoch": state["epoch"],
            "step": state["step"],
            "sampler": sampler.describe(),
            "attributes": list(config.attributes),
        },
        "data": {
            "path": str(data.path),
            "source": data.manifest.get("source"),
            "sha256": data.manifest["sha256"],
            "trained_on": state["provenance"]["sha256"] == data.manifest["sha256"],
        },
        "seed": seed,
        "counts": {"real": len(rows), **{name: len(requests) for name, requests in asked.items()}},
        "judge": dict(judge.card) if judge else {"left_out": no_judge},
        "photometry_was_trained_on": getattr(config, "photometry_weight", 0) > 0,
    }
    report["control"] = _control(drawn, real, config.attributes, seed, no_judge)
    if statmorph:
        report["control"]["statmorph"] = _statmorph(drawn["test"], real, config.attributes, statmorph, seed)
    clock.lap("control")
    if config.diffusion and sampler.solver.photometry > 0:
        report["control"]["guidance"] = guidance_effect(sampler, asked["test"], judge, seed)
        clock.lap("guidance")

    generated = drawn["test"]
    groups = groups_of(generated.classes, real.classes)
    spaces = choose_spaces(judge, images, engine)
    report["realism"] = {"statistics": compare_statistics(generated.measured, real.measured, groups, seed)}
    report["realism"]["power"] = power_ratio(generated.images, real.images, groups, seed)
    clock.lap("statistics")
    report["realism"]["features"], features = compare_features(spaces, generated.images, real.images, seed)
    if judge is None:
        report["realism"]["features"]["judge"] = {"left_out": no_judge}
    clock.lap("features")
    learned = real_sample(data, "judge", count, seed)
    report["realism"]["real_or_fake"] = real_or_fake(
        generated.images.numpy(),
        generated.classes,
        (data.images[learned], data.classes(learned)),
        (data.images[rows], real.classes),
        steps,
        seed,
        Engine.choose(device),  # a fresh network may compute in bfloat16, where that is faster
    )
    clock.lap("real or fake")
    copies, neighbours = look_for_copies(generated.images, real.images, data.images, data.rows("train"), seed, engine)
    report["honesty"] = {
        "copies": copies,
        "variety": compare_variety(generated.images, real.images, features.get("judge"), groups),
        "unsupported": {name: unsupported_share(sampler, requests) for name, requests in asked.items()},
        "flags": {
            name: flag_shares(galaxies.measured.flags, seed) for name, galaxies in {"real": real, **drawn}.items()
        },
    }
    clock.lap("honesty")
    report["validation"] = validate(spaces, images[:_VALIDATED], real.classes[:_VALIDATED], seed)
    clock.lap("validation")
    report["seconds"] = clock.seconds
    pictures = {"real": real, **drawn, "neighbours": neighbours, "attributes": sampler.attributes}
    return Evaluation(report, pictures)


def choose_spaces(judge: Judge | None, real: Tensor, engine: Engine) -> tuple[FeatureSpace, ...]:
    """Return the feature spaces that there are: without a judge, those that need none."""
    spaces = build_spaces(judge, real, engine.device)
    return spaces if judge else tuple(space for space in spaces if space.name != "judge")


def flag_shares(flags: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the share of measurements (N,) that carry each of photometry's flags."""
    return {text: accuracy_interval(flags & bit > 0, seed) for bit, text in photometry.FLAG_BITS.items()}


@torch.inference_mode()
def _predict(predictor: torch.nn.Module, images: Tensor, sampler: GalaxySampler) -> dict[str, np.ndarray]:
    """Return what the training's predictor reads, in physical units."""
    blocks = images.split(256)
    scaled = torch.cat([predictor(to_float(block.to(sampler.engine.device))).float().cpu() for block in blocks])
    return {a.name: a.from_unit(scaled[:, i]).double().numpy() for i, a in enumerate(sampler.attributes)}


def _control(
    drawn: dict[str, _Galaxies], real: _Galaxies, attributes: tuple[str, ...], seed: int, no_judge: str
) -> dict[str, Any]:
    """Compare requested with measured attributes and classes, by every instrument."""
    report: dict[str, Any] = {"attributes": {}, "classes": {}, "gaming": {}, "shuffled": {}, "instruments": {}}
    for name, galaxies in drawn.items():
        report["attributes"][name] = _by_instrument(galaxies, attributes, seed)
        report["gaming"][name], report["shuffled"][name] = {}, {}
        for column, attribute in enumerate(attributes):
            requested = galaxies.values[:, column]
            if attribute in galaxies.judged:
                on_real = {"truth": real.values[:, column], "judged": real.judged[attribute]}
                on_real["predicted"] = real.predicted[attribute]
                judged, predicted = galaxies.judged[attribute], galaxies.predicted[attribute]
                report["gaming"][name][attribute] = gaming_gap(requested, judged, predicted, on_real)
            reading = galaxies.judged.get(attribute, galaxies.measured.values.get(attribute))
            if reading is not None:
                report["shuffled"][name][attribute] = shuffled_control(requested, reading, seed)
    # What each instrument makes of real galaxies is the best that a generator could be seen to do.
    report["instruments"] = _by_instrument(real, attributes, seed)
    for attribute in attributes:
        if ATTRIBUTES[attribute].source == "photometry":  # the true value is photometry's own: nothing to learn
            del report["instruments"][attribute]["photometry"]
    for name, galaxies in {"real": real, **drawn}.items():
        report["classes"][name] = (
            {"left_out": no_judge}
            if galaxies.probabilities is None
            else class_accuracy(galaxies.probabilities, galaxies.classes, seed)
        )
    return report


def _by_instrument(galaxies: _Galaxies, attributes: tuple[str, ...], seed: int) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for column, attribute in enumerate(attributes):
        report[attribute] = {
            instrument: agreement_by_class(galaxies.values[:, column], readings[attribute], galaxies.classes, seed)
            for instrument, readings in galaxies.readings().items()
            if attribute in readings
        }
    return report


def _statmorph(
    generated: _Galaxies, real: _Galaxies, attributes: tuple[str, ...], count: int, seed: int
) -> dict[str, Any]:
    """Compare requests, and true values of real galaxies, with what statmorph measures on a subset."""
    report: dict[str, Any] = {}
    for name, galaxies in {"test": generated, "real": real}.items():
        values, flags = read_with_statmorph(galaxies.images[:count], f"statmorph, {name}")
        report[name] = {"images": len(flags), "flagged": float((flags > 0).mean())}
        report[name]["attributes"] = {
            attribute: agreement_by_class(
                galaxies.values[:count, column], values[attribute], galaxies.classes[:count], seed
            )
            for column, attribute in enumerate(attributes)
            if attribute in READS
        }
    return report


class _Clock:
    """Seconds of each part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now
