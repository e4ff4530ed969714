"""Start a run from trained weights: what fits the new run is taken over, layer by layer, and the rest starts anew."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config_physics import Config
from galaxies.common.durable_files import sha256_of
from galaxies.common.errors import UserError
from galaxies.datasets.conditions import condition_entries, reading_entries
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.build import config_of, generator_weights
from galaxies.networks.layers import BASE_SIDE
from galaxies.storage.checkpoint import LATEST
from galaxies.storage.release import WEIGHTS, load_state
from galaxies.training.learner import Learner

# What decides the networks and what their inputs and outputs mean: a new run takes these from the weights' own run.
_TAKEN = (
    *("recipe", "attributes", "diffusion", "width", "dropout", "condition_mask", "uncertainty"),
    *("latent_dim", "generator", "batch_norm", "pixel_noise", "discriminator", "regression_weight", "class_weight"),
    *("diffusion_steps", "noise_schedule", "noise_shift", "prediction", "condition_dropout", "unet_blocks"),
    *("unet_patch", "normalize", "solver", "solver_steps", "guidance"),
)
# With another value of these, weights of the same shapes would mean something else.
_FIXED = ("diffusion", "generator", "batch_norm", "noise_schedule", "noise_shift", "prediction", "normalize")
_LEAST_SHARE = 0.5  # of the generator's numbers that must fit for it to be a start at all

# Which tensors have a place for each entry of the condition or for each band: by network, patterns of names, the
# dimension, and what the places are of, or what comes before those of the condition (the generator's noise, bands).
_OF_CONDITION: dict[str, tuple[tuple[str, int, str], ...]] = {
    "generator": (
        (r"(style\.0|project)\.weight", 1, "noise"),
        (r"grain\.trend", 0, ""),
        (r"unet\.embed_condition\.0\.weight", 1, ""),
        (r"(stages\.\d+\.)?paint\.(weight|bias)|mean", 0, "plane"),
        (r"unet\.leave\.2\.(weight|bias)", 0, "patch"),
        (r"unet\.paint\.(weight|bias)", 0, "plane"),
        (r"unet\.embed_told\.weight", 1, "exposure"),
        (r"unet\.enter\.weight", 1, "patch"),
    ),
    "discriminator": (
        (r"project\.weight", 1, ""),
        (r"(downsample|fine)\.0\.weight", 1, "band"),
        (r"stem\.weight", 1, "plane"),
        (r"read\.(weight|bias)", 0, "reading"),
    ),
    "predictor": (
        (r"(regress\.3|doubt\.2)\.(weight|bias)|prior_variance", 0, "attribute"),
        (r"features\.0\.weight", 1, "plane"),
    ),
}
# On the training images; not learned.
_MEASURED = re.compile(
    r"(.*\.)?grain\..*|prior_variance|(telescope\.)?(pixel_scale|psf_fwhm|noise|psfs|photons)",
)


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes
    ----------
    path : Path
    state : dict
        Content of the checkpoint or release.
    config : Config
        Of the run that made it.
    sha256 : str
        Of the file.
    """

    path: Path
    state: dict[str, Any]
    config: Config
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Start:
        """Read a release (``.safetensors``), a run's checkpoint (``.pt``), or the folder of either.

        Raises
        ------
        UserError
            If it is none of these, or its generator has not been trained.
        """
        if path.is_dir():
            found = [path / name for name in (LATEST, WEIGHTS) if (path / name).is_file()]
            if not found:
                raise UserError(f"{path} holds neither {LATEST} nor {WEIGHTS}: --start-from takes one of these")
            path = found[0]
        state = load_state(path)
        if state["phase"] != "generator" or state["step"] == 0:
            raise UserError(f"{path} was saved before the generator's training: there is nothing to start from")
        return cls(path, state, config_of(state, path), sha256_of(path))

    def check_kind(self, data: PreparedDataset) -> None:
        """Refuse a dataset of another kind of images than the weights draw.

        Raises
        ------
        UserError
        """
        if self.config.kind != data.layout.kind:
            kinds = {"flux": "flux", "display": "colour pictures"}
            raise UserError(
                f"{self.path} draws {kinds[self.config.kind]}, and {data.path} holds {kinds[data.layout.kind]}: "
                "leave out --start-from, or give it weights of the same kind"
            )

    def settings(self, given: Mapping[str, Any], data: PreparedDataset | None = None) -> dict[str, Any]:
        """Return the settings that a run takes over from the weights' own, but for those that the user gave.

        Attributes of a user's own are taken over where the dataset, if there is one yet, has them.

        Raises
        ------
        UserError
            If a setting was given with which the weights would mean something else.
        """
        for name in _FIXED:
            if name in given and given[name] != getattr(self.config, name):
                option, own = name.replace("_", "-"), getattr(self.config, name)
                what = f"holds a {self.config.family} model" if name == "diffusion" else f"was trained with {own!r}"
                raise UserError(f"--{option} does not fit {self.path}, which {what}: leave it out")
        own = [f.name for f in dataclasses.fields(Config) if f.metadata.get("family") in (None, self.config.family)]
        taken = {name: getattr(self.config, name) for name in _TAKEN if name in own and name not in given}
        if self.config.image_size > BASE_SIDE and "detail_stages" not in given:  # no choice at 64 pixels
            taken["detail_stages"] = self.config.detail_stages
        if "attributes" in taken:
            there = () if data is None else [row.name for row in data.layout.own]
            lacking = {row.name for row in self.config.own_attributes}.difference(there)
            taken["attributes"] = tuple(name for name in taken["attributes"] if name not in lacking)
            if not taken["attributes"]:
                del taken["attributes"]
        return taken

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return the range of each attribute that the weights know, by name: what they mean by 0 and by 1."""
        return {row.name: (row.low, row.high) for row in self.config.attribute_rows}

    def definitions(self, data: PreparedDataset) -> tuple[str, ...]:
        """Return what a run on a dataset takes its attributes of a user's own for, a line each.

        What the weights know means what it meant to them; the rest is as the dataset has it.

        Raises
        ------
        UserError
            If the two mean different things by a name.
        """
        known = {row.name: row for row in self.config.own_attributes}
        lines = []
        for row in data.layout.own:
            taken = known.get(row.name, row)
            if taken.unit != row.unit:
                raise UserError(
                    f"{self.path} knows {row.name} in {taken.unit or 'no unit'}, and {data.path} has it in "
                    f"{row.unit or 'no unit'}: prepare the data again with --attribute, or leave out --start-from"
                )
            if taken.scale == "log" and not data.catalogue[row.name].min() > 0:
                raise UserError(
                    f"{self.path} knows the logarithm of {row.name}, and {data.path} has values that have none: leave "
                    "out --start-from"
                )
            lines.append(taken.definition())
        return tuple(lines)

    def provenance(self, taken: str) -> dict[str, str]:
        """Return what a run records of its start."""
        return {"run": self.config.run, "file": self.path.name, "sha256": self.sha256, "taken_over": taken}


@torch.no_grad()
def take_over(learner: Learner, start: Start, same_data: bool) -> str:
    """Copy what fits of trained weights into the networks of a learner, and return what that was in a sentence.

    An input of the generator, of the discriminator and of the U-Net that stands for an attribute or a class goes to the
    place that this has in the new run, and so does what predictor and discriminator read; inputs and readings that only
    the new run has keep the values that they start with, and so do planes of bands that only it has. What attributes
    are scaled by is the slider's range of the weights' own run, so that their meaning stays; so does the scale of a
    diffusion model's images. Grain, exposures and the spread of attributes belong to the data, and are taken over with
    the same data alone. Of networks of another image size the layers are taken whose maps are as many, from the side
    where more of them fit.

    Parameters
    ----------
    learner : Learner
        New, with what it has measured on its data.
    start : Start
    same_data : bool
        The run has the dataset that the weights were trained on.

    Raises
    ------
    UserError
        If less than half of the generator fits.
    """
    old_networks = {**start.state["networks"], "generator": generator_weights(start.state)}
    counts = _Counts()
    for name, network in learner.networks.items():
        if name not in old_networks:
            counts.new.append(f"the {name}")
            continue
        found = _Transfer(name, start.config, learner.config)
        share = found.run(network, old_networks[name], same_data, counts)
        if name == "generator" and share < _LEAST_SHARE:
            raise UserError(
                f"of the generator of {start.path} only {100 * share:.0f} % fit this run: leave out --width and other "
                f"settings of the networks, and give it images of {start.config.image_size} pixels"
            )
    if learner.average is not None:
        learner.average.module.load_state_dict(learner.generator.state_dict())
    return counts.sentence()


class _Counts:
    """Counts tensors by what became of them."""

    def __init__(self) -> None:
        self.whole = self.total = 0
        self.part: list[str] = []
        self.new: list[str] = []

    def sentence(self) -> str:
        taken = f"{self.whole + len(self.part)} of {self.total} tensors"
        if self.part:
            taken += f" ({len(self.part)} of them in part, for the attributes that both know)"
        new = [*self.new, "optimisers and averages"]
        return f"taken over: {taken}; new: {', '.join(new)}"


class _Transfer:
    """Takes the tensors of one network from a run's settings to another's."""

    def __init__(self, name: str, old: Config, new: Config) -> None:
        self._name, self._old, self._new = name, old, new

    def run(self, network: nn.Module, old: Mapping[str, Tensor], same_data: bool, counts: _Counts) -> float:
        """Copy what fits into a network; return what share of its learned numbers that is."""
        new = network.state_dict()
        # With and without grain the generator's own layers have the same names here.
        plain = {key.removeprefix("network."): value for key, value in old.items()}
        shifts = _shifts({key.removeprefix("network."): value for key, value in new.items()}, plain)
        copied = all_numbers = 0
        missing = []
        for key, place in new.items():
            if _MEASURED.fullmatch(key) and not same_data:
                continue
            source = plain.get(_shifted(key.removeprefix("network."), shifts))
            counts.total += 1
            done = 0 if source is None else self._copy(key.removeprefix("network."), source, place)
            all_numbers += place.numel()
            copied += done
            if done == place.numel():
                counts.whole += 1
            elif done:
                counts.part.append(key)
            else:
                missing.append(key)
        if missing:
            what = missing[0] if len(missing) == 1 else f"{len(missing)} tensors"
            counts.new.append(f"{what} of the {self._name}")
        return copied / max(1, all_numbers)

    def _copy(self, key: str, source: Tensor, place: Tensor) -> int:
        """Copy what fits of a tensor; return how many numbers that is."""
        for pattern, dimension, lead in _OF_CONDITION[self._name]:
            if re.fullmatch(pattern, key) and source.ndim == place.ndim:
                return self._copy_entries(source, place, dimension, lead)
        if source.shape != place.shape:
            return 0
        place.copy_(source)
        return place.numel()

    def _copy_entries(self, source: Tensor, place: Tensor, dimension: int, lead: str) -> int:
        old, new = (
            _entries(config, lead, value.shape[dimension])
            for config, value in ((self._old, source), (self._new, place))
        )
        others = [n for n in range(place.ndim) if n != dimension]
        if old is None or new is None or any(source.shape[n] != place.shape[n] for n in others):
            return 0
        where = {entry: number for number, entry in enumerate(old)}
        pairs = [(number, where[entry]) for number, entry in enumerate(new) if entry in where]
        if not pairs:
            return 0
        to, of = (torch.tensor(numbers, device=place.device) for numbers in zip(*pairs, strict=True))
        place.index_copy_(
            dimension, to, source.to(place.device, place.dtype).index_select(dimension, of.to(place.device))
        )
        return place.numel() // place.shape[dimension] * len(pairs)


def _entries(config: Config, lead: str, length: int) -> list[tuple[str, str]] | None:
    """Name what stands at each place along a dimension of that length; None if it is another dimension."""
    if lead == "attribute":
        names = [("attribute", name) for name in config.attributes]
    elif lead == "reading":
        names = reading_entries(config)
    elif lead == "exposure":  # see `ObservedDenoiser.told`
        names = [(what, name) for what in ("noise", "width") for name in config.bands] + [("scale", "")]
    elif lead == "plane":
        names = [("band", name) for name in config.bands]
    elif lead == "patch":  # each band's pixels of a patch, then perhaps planes that tell the place
        pixels = range(config.unet_patch**2)
        names = [("band", f"{name} {pixel}") for name in config.bands for pixel in pixels]
        names += [("after", str(number)) for number in range(length - len(names))]
    else:
        told = condition_entries(config)
        # A discriminator that reads attributes is not shown them: then its first layer has the image's planes alone.
        before = {"noise": config.latent_dim, "band": config.num_bands, "": 0}[lead]
        names = [(lead, name) for name in (config.bands if lead == "band" else map(str, range(before)))]
        if lead != "band" or length != before:
            names += told
        names += [("after", str(number)) for number in range(length - len(names))]  # the sky and the constant of grain
    return names if len(names) == length else None


_NUMBERED = re.compile(r"(.*?\.)(\d+)(\..*)")


def _shifts(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, int]:
    """Return by how much the numbers of layers differ, by the name of their list: where more of them fit."""
    shifts = {}
    for prefix in {found[1] for key in new if (found := _NUMBERED.fullmatch(key))}:
        longer = _length(new, prefix) - _length(old, prefix)
        if longer:
            shifts[prefix] = max((0, longer), key=lambda shift: _fitting(new, old, prefix, shift))
    return shifts


def _length(tensors: Iterable[str], prefix: str) -> int:
    return 1 + max(
        (int(found[2]) for key in tensors if (found := _NUMBERED.fullmatch(key)) and found[1] == prefix), default=-1
    )


def _fitting(new: Mapping[str, Tensor], old: Mapping[str, Tensor], prefix: str, shift: int) -> int:
    """Return how many numbers of a list of layers fit if its numbers are shifted."""
    fits = 0
    for key, value in new.items():
        source = old.get(_shifted(key, {prefix: shift})) if key.startswith(prefix) else None
        if source is not None and source.shape == value.shape:
            fits += value.numel()
    return fits


def _shifted(key: str, shifts: Mapping[str, int]) -> str:
    """Return the name that a tensor had before the numbers of layers were shifted."""
    found = _NUMBERED.fullmatch(key)
    if not found or found[1] not in shifts:
        return key
    return f"{found[1]}{int(found[2]) - shifts[found[1]]}{found[3]}"
