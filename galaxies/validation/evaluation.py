"""The validation of a checkpoint, in stages: open it, draw, read, compare what was asked for, compare with real."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config_physics import Attribute
from galaxies.generation.requests import Requests, requests_like_test, uniform_requests
from galaxies.validation.agreement import (
    agreement_by_class,
    agreement_of_shares,
    class_accuracy,
    gaming_gap,
    generate_all,
    shuffled_control,
)
from galaxies.validation.comparison import Compared, Nearest, compare_all
from galaxies.validation.feature_spaces import validate
from galaxies.validation.guidance_effect import guidance_effect
from galaxies.validation.report.cells import Drawn, LeftOut, Sets, cell_of
from galaxies.validation.report.contents import FORMAT_VERSION, Checkpoint, Dataset, DistanceChecks, Report
from galaxies.validation.report.control import (
    ClassAccuracy,
    Control,
    GamingGap,
    Mixtures,
    Readings,
    Shuffled,
    Statmorph,
    StatmorphSets,
)
from galaxies.validation.subject import Galaxies, Subject, choose_spaces, real_sample
from galaxies.validation.viewing import Viewer

_VALIDATED = 400  # real galaxies that the distances are checked with


@dataclass(frozen=True)
class Pictures:
    """What the plots of a report are drawn from besides its numbers.

    Attributes
    ----------
    galaxies : Sets
    nearest : Nearest, if copies could be looked for
    attributes : tuple of Attribute
        The columns of the galaxies' values.
    viewer : Viewer
        Makes pictures of images.
    """

    galaxies: Sets[Galaxies]
    nearest: Nearest | None
    attributes: tuple[Attribute, ...]
    viewer: Viewer


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: the numbers, and what the plots are drawn from."""

    report: Report
    pictures: Pictures


@dataclass(frozen=True)
class _Sample:
    """What was asked for, what came of it, and the real galaxies (rows of the dataset) to compare with."""

    requests: Drawn[Requests]
    galaxies: Sets[Galaxies]
    rows: np.ndarray


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
        Fields of `solvers.Solver` that differ from the run's.

    Raises
    ------
    UserError
        If the checkpoint or the dataset cannot be used, or they do not match.
    """
    clock = Clock()
    subject = Subject.open(checkpoint, data_path, device, **(solver or {}))
    clock.lap("judge")
    sample = _draw(subject, count, seed, clock)
    control = _control(subject, sample, statmorph, seed, clock)
    compared = _compared(subject, sample, count, seed, steps, device)
    realism, honesty = compare_all(compared, clock.lap)
    validation = _validate(compared)
    clock.lap("validation")
    report = Report(
        format_version=FORMAT_VERSION,
        checkpoint=_checkpoint(subject),
        data=_dataset(subject),
        seed=seed,
        counts=Sets(**{name: len(galaxies.classes) for name, galaxies in sample.galaxies.items()}),
        judge=subject.judge if isinstance(subject.judge, LeftOut) else dict(subject.judge.card),
        photometry_was_trained_on=getattr(subject.sampler.config, "photometry_weight", 0) > 0,
        control=control,
        realism=realism,
        honesty=honesty,
        validation=validation,
        seconds=clock.seconds,
    )
    pictures = Pictures(sample.galaxies, compared.copies[1], subject.sampler.attributes, subject.viewer)
    return Evaluation(report, pictures)


def _checkpoint(subject: Subject) -> Checkpoint:
    sampler, state = subject.sampler, subject.state
    return Checkpoint(
        path=str(subject.path),
        run=sampler.config.run,
        epoch=state["epoch"],
        step=state["step"],
        sampler=sampler.describe(),
        attributes=list(sampler.config.attributes),
        attribute_ranges=[(attribute.low, attribute.high) for attribute in sampler.attributes],
        source=sampler.origin.get("source"),
        attribute_definitions=list(sampler.config.attribute_definitions),
    )


def _dataset(subject: Subject) -> Dataset:
    manifest = subject.data.manifest
    trained_on = subject.state["provenance"]["sha256"] == manifest["sha256"]
    layout = subject.data.layout
    return Dataset(
        path=str(subject.data.path),
        source=manifest.get("source"),
        sha256=manifest["sha256"],
        trained_on=trained_on,
        kind="flux" if layout.is_flux else "display",
        bands=list(layout.band_names),
        classes=list(layout.classes),
        class_labels=list(layout.class_labels),
    )


def _draw(subject: Subject, count: int, seed: int, clock: Clock) -> _Sample:
    """Draw galaxies for both kinds of requests, and read them and as many real ones with every instrument."""
    data, attributes = subject.data, subject.sampler.config.attributes
    requests = Drawn(
        test=requests_like_test(data, attributes, (count + 1) // 2, seed, mixed=subject.mixes),
        uniform=uniform_requests(subject.sampler, count // 2, seed),
    )
    images = {name: generate_all(subject.sampler, asked, f"generating, {name}") for name, asked in requests.items()}
    clock.lap("generation")
    rows = real_sample(data, "test", count, seed)
    truth = data.attributes(attributes, rows).astype(np.float64)
    real = subject.read(torch.from_numpy(data.images[rows]), data.classes(rows), truth, "real")
    drawn = {name: subject.read_drawn(images[name], asked, name) for name, asked in requests.items()}
    clock.lap("reading")
    return _Sample(requests, Sets(real, **drawn), rows)


def _control(subject: Subject, sample: _Sample, statmorph: int, seed: int, clock: Clock) -> Control:
    """Compare requested with measured attributes and classes, by every instrument."""
    sampler, galaxies, classes = subject.sampler, sample.galaxies, subject.data.layout.classes
    attributes, drawn = sampler.config.attributes, {"test": galaxies.test, "uniform": galaxies.uniform}
    by_instrument = Drawn(
        **{name: _by_instrument(part, sampler.attributes, classes, seed) for name, part in drawn.items()}
    )
    gaming = Drawn(**{name: _gaming(part, galaxies.real, attributes) for name, part in drawn.items()})
    shuffled = Drawn(**{name: _shuffled(part, sampler.attributes, seed) for name, part in drawn.items()})
    # What each instrument makes of real galaxies is the best that a generator could be seen to do.
    instruments = _by_instrument(galaxies.real, sampler.attributes, classes, seed)
    for column, attribute in enumerate(attributes):
        read = galaxies.real.measured.values.get(attribute)
        if read is not None and _is_its_own(galaxies.real.values[:, column], read):
            del instruments[attribute]["photometry"]
    accuracies = Sets(**{name: _class_accuracy(subject, part, seed) for name, part in galaxies.items()})
    measured = None
    if statmorph:
        measured = StatmorphSets(
            test=_statmorph(subject, galaxies.test, statmorph, seed, "test"),
            real=_statmorph(subject, galaxies.real, statmorph, seed, "real"),
        )
    mixtures = _mixtures(subject, sample, seed) if sampler.config.soft_classes else None
    clock.lap("control")
    guidance = None
    if sampler.config.diffusion and sampler.solver.photometry > 0:
        guidance = guidance_effect(sampler, sample.requests.test, subject.judge, seed, subject.viewer)
        clock.lap("guidance")
    return Control(by_instrument, accuracies, gaming, shuffled, instruments, measured, guidance, mixtures)


def _mixtures(subject: Subject, sample: _Sample, seed: int) -> Mixtures | LeftOut:
    """Compare the judge's shares of the classes with those that were asked for, and that people gave real galaxies."""
    generated, real = sample.galaxies.test.probabilities, sample.galaxies.real.probabilities
    asked, data = sample.requests.test.shares, subject.data
    if isinstance(subject.judge, LeftOut):
        return subject.judge
    if asked is None:
        return LeftOut(
            "the run was trained on shares of classes, and this dataset tells none: whole classes were asked for"
        )
    assert generated is not None and real is not None  # the judge read them
    classes = data.layout.classes
    return Mixtures(
        test=agreement_of_shares(asked.numpy(), generated.numpy(), seed, classes),
        real=agreement_of_shares(data.class_shares(sample.rows), real.numpy(), seed, classes),
    )


def _is_its_own(truth: np.ndarray, read: np.ndarray) -> bool:
    """Tell whether true values (N,) are photometry's own readings, of which there is nothing to learn."""
    known = np.isfinite(truth) & np.isfinite(read)
    return bool(known.any()) and np.allclose(truth[known], read[known], rtol=1e-4, atol=1e-5)


def _by_instrument(
    galaxies: Galaxies, attributes: tuple[Attribute, ...], classes: tuple[str, ...], seed: int
) -> dict[str, Readings]:
    return {
        attribute.name: {
            instrument: agreement_by_class(
                *(galaxies.values[:, column], readings[attribute.name], galaxies.classes, seed, classes),
                attribute.steps_of,
            )
            for instrument, readings in galaxies.readings().items()
            if attribute.name in readings
        }
        for column, attribute in enumerate(attributes)
    }


def _gaming(galaxies: Galaxies, real: Galaxies, attributes: tuple[str, ...]) -> dict[str, GamingGap | LeftOut]:
    """Return the gaming gap of each attribute that the judge reads."""
    return {
        attribute: gaming_gap(
            galaxies.values[:, column],
            galaxies.judged[attribute],
            galaxies.predicted[attribute],
            {
                "truth": real.values[:, column],
                "judged": real.judged[attribute],
                "predicted": real.predicted[attribute],
            },
        )
        for column, attribute in enumerate(attributes)
        if attribute in galaxies.judged
    }


def _shuffled(galaxies: Galaxies, attributes: tuple[Attribute, ...], seed: int) -> dict[str, Shuffled | LeftOut]:
    """Return the shuffled control of each attribute that is read, by the most independent instrument."""
    readings = galaxies.measured.values | galaxies.judged
    return {
        attribute.name: shuffled_control(galaxies.values[:, column], readings[attribute.name], seed, attribute.steps_of)
        for column, attribute in enumerate(attributes)
        if attribute.name in readings
    }


def _class_accuracy(subject: Subject, galaxies: Galaxies, seed: int) -> ClassAccuracy | LeftOut:
    if isinstance(subject.judge, LeftOut):
        return subject.judge
    assert galaxies.probabilities is not None  # the judge read them
    return class_accuracy(galaxies.probabilities, galaxies.classes, seed, subject.data.layout.classes)


def _statmorph(subject: Subject, galaxies: Galaxies, count: int, seed: int, name: str) -> Statmorph:
    """Compare requests, or true values of real galaxies, with what statmorph measures on a subset."""
    values, flags = subject.viewer.statmorph(galaxies.images[:count], f"statmorph, {name}")
    classes = subject.data.layout.classes
    groups = {
        attribute: agreement_by_class(
            galaxies.values[:count, column], values[attribute], galaxies.classes[:count], seed, classes
        )
        for column, attribute in enumerate(subject.sampler.config.attributes)
        if attribute in values
    }
    return Statmorph(len(flags), float((flags > 0).mean()), groups)


def _compared(subject: Subject, sample: _Sample, count: int, seed: int, steps: int, device: str) -> Compared:
    """Gather what sets are compared by."""
    data = subject.data
    learned = real_sample(data, "judge", count, seed)
    return Compared(
        generated=sample.galaxies.test,
        real=sample.galaxies.real,
        learned=(data.images[learned], data.classes(learned)),
        judge=subject.judge,
        viewer=subject.viewer,
        spaces=choose_spaces(subject.judge, sample.galaxies.real.images, subject.sampler.engine, subject.viewer),
        steps=steps,
        seed=seed,
        device=device,
        subject=subject,
        requests=sample.requests,
        galaxies=sample.galaxies,
    )


def _validate(compared: Compared) -> DistanceChecks | LeftOut:
    """Check the distances on some of the real galaxies."""
    real = compared.real
    found = validate(
        compared.spaces, real.images[:_VALIDATED], real.classes[:_VALIDATED], compared.seed, compared.viewer
    )
    return cell_of(DistanceChecks, found)


class Clock:
    """Seconds of each part of the work, in `seconds`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Note the seconds since the last lap under a name."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now
