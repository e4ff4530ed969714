"""The models of the page: which checkpoints there are, and what each of them is, for people and for caches."""

from __future__ import annotations

import hashlib
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config_physics import PHOTOMETRIC_ATTRIBUTES, Attribute
from galaxies.common.attributes import LEAST_R2
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.origin import origin_of
from galaxies.generation.flux_measuring import is_measured
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.composites import LuptonComposite
from galaxies.serving.answers import AttributeFacts, ModelFacts, TrainingData
from galaxies.serving.queries import FAMILIES
from galaxies.serving.telescopes import facts_of, surveys_for
from galaxies.storage.release import find_checkpoints, load_state, peek_settings, without_folders
from galaxies.telescope.surveys import Survey

_PREVIEW_STEPS = 4  # a fifth of the usual steps; the shape stands by then, and little of the detail
_CARD = "card.md"  # beside the weights of a release
_LONGEST_CARD = 2**20  # bytes


@dataclass(frozen=True)
class ServedModel:
    """A model with what is known of its checkpoint.

    Attributes
    ----------
    sampler : GalaxySampler
    checkpoint : str
        Run folder and file, for people.
    step : int or None
        Of the training.
    provenance : mapping
        Where the training data came from, as a checkpoint says.
    card : bytes or None
        What a release says of itself, Markdown in UTF-8.
    told : mapping of str to float
        How much a picture tells of an attribute, by its name: the R2 with which the run's predictor read it off test
        galaxies, where that is known.
    """

    sampler: GalaxySampler
    checkpoint: str = ""
    step: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: bytes | None = None
    told: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, device: str = "auto", **solver: Any) -> ServedModel:
        """Load a checkpoint; `solver` changes fields of a diffusion model's solver.

        Raises
        ------
        UserError
            If it cannot be used.
        """
        state = load_state(path)
        options = solver if family_of(state["config"]) == "diffusion" else {}
        return cls(
            GalaxySampler.from_state(state, path, device, **options),
            f"{path.resolve().parent.name}/{path.name}",
            state["step"],
            state["provenance"],
            _card_beside(path),
            _told(state),
        )

    @property
    def id(self) -> str:
        """Name of the model in requests."""
        return family_of(self.sampler.config.to_dict())

    @cached_property
    def surveys(self) -> dict[str, Survey | str]:
        """Surveys that its light can be seen through; see `surveys_for`."""
        return surveys_for(self.sampler)

    @property
    def card_name(self) -> str:
        """Address of its card, from the page."""
        return f"card-{self.id}.md"

    def fingerprint(self) -> str:
        """Return a SHA-256 in hexadecimal of all that decides a picture besides the request."""
        sampler = self.sampler
        digest = hashlib.sha256()
        told = [sampler.config.to_dict(), sampler.describe(), sampler.kind_of_device, torch.__version__]
        digest.update(json_text(told, sort_keys=True).encode())
        tensors = [*sampler.network.state_dict().values(), sampler.population.classes, sampler.population.values]
        for tensor in tensors:
            digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
        return digest.hexdigest()

    def facts(self) -> ModelFacts:
        """Return what `/api/model` says of the model."""
        sampler = self.sampler
        has_many_steps = sampler.family.has_solver and sampler.solver.num_steps > _PREVIEW_STEPS
        return ModelFacts(
            id=self.id,
            family=FAMILIES[self.id],
            checkpoint=self.checkpoint,
            card=None if self.card is None else self.card_name,
            description=sampler.describe(),
            image_size=sampler.config.image_size,
            kind=sampler.config.kind,
            bands=list(sampler.config.bands),
            wavelengths=self._wavelengths(),
            composite=self._composite(),
            classes=list(sampler.config.classes),
            mixes=sampler.config.soft_classes,
            pixel_scale=sampler.config.pixel_scale or None,
            light_pixel_scale=sampler.light_pixel_scale if sampler.config.observes else None,
            training_data=self._training_data(),
            step=self.step,
            preview_steps=_PREVIEW_STEPS if has_many_steps else None,
            attributes=[self._attribute_facts(*pair) for pair in enumerate(sampler.attributes)],
            telescopes=[facts_of(*pair) for pair in self.surveys.items()],
        )

    def _wavelengths(self) -> list[float]:
        known = list(self.sampler.config.wavelengths)
        return known if all(wavelength > 0 for wavelength in known) else []

    def _composite(self) -> list[list[int]]:
        config = self.sampler.config
        if config.kind != "flux":
            return [[0], [1], [2]]
        return [list(planes) for planes in LuptonComposite(config.bands, config.softening).planes]

    def _training_data(self) -> TrainingData:
        """Return where the training data came from; paths lose their folders, which tell of a disk."""
        source, credit = (self.provenance.get(name) for name in ("source", "credit"))
        return TrainingData(
            source=source and without_folders(source),
            count=self.provenance.get("count"),
            trained_on=len(self.sampler.population.classes),
            credit=credit or None,
            are_mock=origin_of(source) != "real",
            origin=origin_of(source),
        )

    def _attribute_facts(self, index: int, attribute: Attribute) -> AttributeFacts:
        supported, typical = {}, {}
        for class_index, name in enumerate(self.sampler.config.classes):
            limits = self.sampler.supported[class_index][index]
            supported[name] = limits and [rounded(limit) for limit in limits]
            known = [v for v in self.sampler.population.members(class_index)[:, index].tolist() if math.isfinite(v)]
            typical[name] = rounded(statistics.median(known)) if known else None
        return AttributeFacts(
            name=attribute.name,
            label=attribute.label,
            unit=attribute.unit,
            description=attribute.description,
            low=attribute.low,
            high=attribute.high,
            scale=attribute.scale,
            softening=attribute.softening if attribute.scale == "asinh" else None,
            step=_step(attribute),
            told=self.told.get(attribute.name),
            is_told=None if (r2 := self.told.get(attribute.name)) is None else r2 >= LEAST_R2,
            measured=self._is_measured(attribute.name),
            supported=supported,
            typical=typical,
        )

    def _is_measured(self, name: str) -> bool:
        config = self.sampler.config
        return is_measured(name, config.bands) if config.kind == "flux" else name in PHOTOMETRIC_ATTRIBUTES


def _step(attribute: Attribute) -> float:
    """Return a sensible increment: a power of ten, about a hundredth of the slider at its narrow end."""
    low, high = float(attribute.at(0.01)) - attribute.low, attribute.high - float(attribute.at(0.99))
    narrow = min(low, high) if attribute.scale != "linear" else (attribute.high - attribute.low) / 100
    return 10.0 ** math.floor(math.log10(narrow))


def _told(state: Mapping[str, Any]) -> dict[str, float]:
    """Return how much pictures tell of attributes; runs of before say so in their history alone."""
    tests = [record for record in state.get("metrics", ()) if record["kind"] == "test"]
    found = tests[-1] if tests else {}
    old = {row["name"]: found.get(f"r2_{row['name']}") for row in state["attributes"]}
    told = {row["name"]: row.get("r2", old[row["name"]]) for row in state["attributes"]}
    return {name: float(r2) for name, r2 in told.items() if r2 is not None and math.isfinite(r2)}


def _card_beside(path: Path) -> bytes | None:
    """Read the card of a release; None where there is none that can be read."""
    try:
        with path.with_name(_CARD).open("rb") as file:
            content = file.read(_LONGEST_CARD + 1)
        content.decode()
    except (OSError, UnicodeDecodeError):
        return None
    return content if len(content) <= _LONGEST_CARD else None


def rounded(value: float) -> float:
    """Return a single-precision value without the digits that mean nothing."""
    return float(f"{value:.6g}")


def family_of(settings: dict[str, Any]) -> str:
    """Return the id of the model that a checkpoint's settings describe."""
    return "diffusion" if settings.get("diffusion") else "gan"


def load_models(paths: Sequence[Path] | None, device: str = "auto", **solver: Any) -> list[ServedModel]:
    """Load the checkpoints that the page is to draw with.

    Parameters
    ----------
    paths : sequence of Path, or None
        These; None takes the newest usable ones in checkpoints/, and without any those that came with the program.
    device : str
    **solver
        Fields of a diffusion model's solver that are changed.

    Raises
    ------
    UserError
        If a named one cannot be used, or there is no diffusion model for the solver.
    """
    if paths:
        models = [ServedModel.load(path, device, **solver) for path in paths]
    else:
        models = load_found(find_checkpoints(Path("checkpoints")), device, **solver)
    if solver and not any(model.id == "diffusion" for model in models):
        raise UserError(f"no diffusion model is served: only those have a {', a '.join(solver)}")
    return models


def load_found(paths: Sequence[Path], device: str = "auto", **solver: Any) -> list[ServedModel]:
    """Load the first usable checkpoint, and the first one of the other family beside it.

    One that cannot be used costs a sentence on standard error; the next one takes its place.
    """
    models: dict[str, ServedModel] = {}
    for path in paths:
        if models and _family_in(path) in (*models, None):
            continue
        try:
            model = ServedModel.load(path, device, **solver)
        except UserError as error:
            print(f"app.py: {error}; trying the next one", file=sys.stderr)
            continue
        models.setdefault(model.id, model)
        if len(models) == len(FAMILIES):
            break
    return [models[name] for name in FAMILIES if name in models]


def _family_in(path: Path) -> str | None:
    """Look what a checkpoint holds without reading it whole; None if that cannot be told."""
    try:
        return family_of(peek_settings(path))
    except UserError:  # which is said when it is read whole
        return None
