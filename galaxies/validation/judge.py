"""An independent judge of class and attributes, which no generator is ever trained to please.

The judge has another architecture than the predictor of the physics loss and sees only the `judge` split, which no
other network sees. Nothing in `galaxies/training` may import this file.

Of flux it sees the stretched planes and, beside them, how much light lies about the centre in each band: a redshift
shows in colors of a few hundredths of a magnitude, which convolutions read less well than sums over many pixels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config_physics import Attribute, bands_of_attribute
from galaxies.common.durable_files import sync_folder
from galaxies.common.errors import UserError
from galaxies.common.schema import SchemaError, brief, entries, items, number, text, whole
from galaxies.compute.device import Engine
from galaxies.datasets.layout import DISPLAY, DataLayout
from galaxies.datasets.prepared import PreparedDataset
from galaxies.images.resampling import dihedral, turned
from galaxies.storage.checkpoint import load_checkpoint, save_checkpoint
from galaxies.storage.schema import Unfilled, tensor, weights_of
from galaxies.validation.classifier_training import HeldOut, train_classifier
from galaxies.validation.viewing import Viewer

_SEED = 20_011  # of its own: the judge shares no random number with a run
_WIDTH = 32
_HELD_OUT = 0.25  # part of the split that decides when to stop and calibrates
_EPOCHS, _PATIENCE, _BATCH = 120, 30, 32
_APERTURES = (1 / 32, 1 / 16, 1 / 8)  # standard deviations of the Gaussians about the centre, frame widths
_READABLE = ("photometry", "flux", "catalogue", "structure", "column")  # sources of attributes that a picture may show
_FEWEST_KNOWN = 64  # galaxies with a known value that an attribute needs
_FEWEST_GALAXIES = 100
_FORMAT = 1  # of the network below: another number trains judges anew


class JudgeNetwork(nn.Module):
    """A residual network with group normalisation for class and attributes (He et al. 2016; Wu & He 2018).

    Parameters
    ----------
    num_attributes, width : int
    layout : DataLayout
        Of the images.
    """

    def __init__(self, num_attributes: int, width: int = _WIDTH, layout: DataLayout = DISPLAY) -> None:
        super().__init__()
        planes = len(layout.bands)
        self.stem = nn.Conv2d(planes, width, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(
            _Residual(width, width, 2), _Residual(width, 2 * width, 2), _Residual(2 * width, 4 * width, 2)
        )
        self.light = _CentralLight(planes, 2 * width) if layout.is_flux else None
        self.gather = nn.Linear(8 * width + (2 * width if layout.is_flux else 0), 4 * width)
        self.drop = nn.Dropout(0.3)
        self.classify = nn.Linear(4 * width, len(layout.classes))
        self.regress = nn.Linear((6 if layout.is_flux else 4) * width, num_attributes)

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate layer (N, 128) of images (N, B, S, S) as `Viewer.linear` gives them."""
        return self._look(images)[0]

    def _look(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the penultimate layer, and of flux what the light about the centre tells."""
        light = [] if self.light is None else [self.light(images)]
        seen = torch.asinh(images) if light else 4 * images
        maps = F.silu(self.blocks(self.stem(seen)))
        return F.silu(self.gather(torch.cat([maps.mean((2, 3)), maps.amax((2, 3)), *light], 1))), light

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (N, classes) and standardised attributes (N, A)."""
        features, light = self._look(images)
        features = self.drop(features)
        return self.classify(features), self.regress(torch.cat([features, *light], 1))


class _CentralLight(nn.Module):
    """What the light under Gaussians about the centre tells: the brightness, and the colors of neighbouring bands.

    The light is counted in its own noise and stretched as Lupton, Gunn & Szalay (1999, AJ 118, 1406) stretch
    magnitudes, so that what is lost in the noise, and may be negative, says little. Colors are taken here, for they
    differ by hundredths where magnitudes differ by units.
    """

    def __init__(self, planes: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(planes * len(_APERTURES), width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        side = images.shape[-1]
        axis = torch.arange(side, device=images.device, dtype=images.dtype) - (side - 1) / 2
        light = []
        for part in _APERTURES:
            weight = torch.exp(-0.5 * (axis / (part * side)).square())
            weight = weight / weight.square().sum().sqrt()
            counted = torch.asinh(torch.einsum("nbyx,y,x->nb", images, weight, weight))
            light += [counted.mean(1, keepdim=True) / 2 - 4, 3 * counted.diff(dim=1)]
        return self.layers(torch.cat(light, 1))


class _Residual(nn.Module):
    """Two convolutions beside a strided identity."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, c_in),
            nn.SiLU(),
            nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1),
            nn.GroupNorm(8, c_out),
            nn.SiLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )
        self.skip = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(c_in, c_out, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps) + self.skip(maps)


class Judge:
    """A trained judge of one dataset.

    Attributes
    ----------
    attributes : tuple of str
        What it reads: attributes of pictures, of flux and of catalogues that the judge split knows, in the order of
        the layout.
    card : dict
        How it was trained and how well it does on galaxies held out from its training.
    """

    def __init__(self, state: dict[str, Any], device: torch.device, layout: DataLayout = DISPLAY) -> None:
        self.layout = layout
        self._viewer = Viewer(layout, tuple(state["softening"].tolist()) if layout.is_flux else ())
        self.attributes: tuple[str, ...] = tuple(state["attributes"])
        self.card: dict[str, Any] = state["card"]
        self.device = device
        self._rows = layout.attribute_rows(self.attributes)
        self._temperature = float(state["temperature"])
        self._centre, self._spread = state["centre"].to(device), state["spread"].to(device)
        self._network = JudgeNetwork(len(self.attributes), layout=layout).to(device)
        self._network.load_state_dict(state["network"])
        self._network.eval().requires_grad_(False)

    @classmethod
    def of_dataset(cls, data: PreparedDataset, device: str = "auto") -> Judge:
        """Load the judge that is stored beside a dataset, or train it once and store it there.

        Raises
        ------
        UserError
            If the judge split is too small to train on.
        """
        chosen = Engine.choose(device, "fp32").device
        key = dataset_key(data)
        path = data.path / f"judge-{key[:16]}.pt"
        if path.exists():
            try:
                state = load_checkpoint(path)
                if state.get("judge") == [_FORMAT, key]:
                    _check(state, data.layout)
                    # One of before arms and bulges were read knows less than it could.
                    if tuple(state["attributes"]) == _readable_attributes(data, data.rows("judge")):
                        return cls(state, chosen, data.layout)
            except UserError as error:
                print(f"{error}; the judge is trained again")
            except SchemaError as error:
                print(f"{path} cannot be used, since {error}; the judge is trained again")
        state = {"judge": [_FORMAT, key], **train_judge(data, chosen)}
        try:
            save_checkpoint(path, state)
            sync_folder(path.parent)
        except UserError as error:
            print(f"{error}: the judge works, but will be trained again next time")
        return cls(state, chosen, data.layout)

    def classify(self, images: Tensor) -> Tensor:
        """Return calibrated class probabilities (N, classes) of images (N, B, S, S).

        They are uint8 or floats in [0, 1] of a display, or flux, nJy a pixel.
        Calibrated for classes that are equally frequent, averaged over the eight flips and quarter turns.
        """
        return self._over_turns(images, lambda out: (out[0] / self._temperature).softmax(1))

    def read(self, images: Tensor) -> Tensor:
        """Return attribute values in physical units (N, A).

        They are averaged over the eight flips and quarter turns, on the attributes' scales.
        """
        return _in_units(self._rows, self._over_turns(images, lambda out: out[1] * self._spread + self._centre))

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate layer (N, 128), float32 on the CPU, of images as in `classify`."""
        return torch.cat([self._network.features(chunk).cpu() for chunk in self._chunks(images)])

    @torch.inference_mode()
    def _over_turns(self, images: Tensor, read: Callable[[tuple[Tensor, Tensor]], Tensor]) -> Tensor:
        means = []
        for chunk in self._chunks(images):
            turned = (dihedral(chunk, torch.full((len(chunk),), turn, device=self.device)) for turn in range(8))
            means.append(torch.stack([read(self._network(t)) for t in turned]).mean(0).cpu())
        return torch.cat(means)

    def _chunks(self, images: Tensor) -> list[Tensor]:
        planes = len(self.layout.bands)
        if images.ndim != 4 or images.shape[1] != planes or len(images) == 0:
            raise ValueError(f"images must have the shape (N, {planes}, S, S) with N > 0, not {tuple(images.shape)}")
        return [self._viewer.linear(chunk.to(self.device)) for chunk in images.split(256)]


def _check(state: dict[str, Any], layout: DataLayout) -> None:
    """Check a judge that was stored.

    Raises
    ------
    SchemaError
        Naming the first entry that is not what it has to be.
    """
    entries({"attributes": items(text())})(state)
    names = state["attributes"]
    if strange := [name for name in names if not layout.is_attribute(name)]:
        raise SchemaError(f"attributes has {brief(strange[0])}, which is no attribute of such data")
    with Unfilled():
        network = JudgeNetwork(len(names), layout=layout)
    card = {name: whole(0) for name in ("galaxies", "held_out", "epochs")}
    errors = entries(dict.fromkeys(names, number(0, unknown=True)), others=False)
    entries(
        {
            "network": weights_of(network),
            "temperature": number(1e-3, 1e3),
            "centre": tensor(torch.float32, (len(names),)),
            "spread": tensor(torch.float32, (len(names),), 1e-7),
            "card": entries({**card, "accuracy_held_out": number(0, 1.001), "mae_held_out": errors}),
            **({"softening": tensor(torch.float32, (len(layout.bands),), 1e-30)} if layout.is_flux else {}),
        }
    )(state)


def dataset_key(data: PreparedDataset) -> str:
    """Return a hash of the manifest's checksums, which name every pixel and every catalogue entry.

    And of the scales on which attributes of a user's own are read.
    """
    scales = [(row.name, row.scale, row.softening) for row in data.layout.own if row.scale != "linear"]
    told = repr(sorted(data.manifest["sha256"].items())) + (repr(scales) if scales else "")
    return hashlib.sha256(told.encode()).hexdigest()


def train_judge(data: PreparedDataset, device: torch.device, epochs: int = _EPOCHS) -> dict[str, Any]:
    """Train a judge on the judge split; a held-out quarter decides when to stop and calibrates.

    Raises
    ------
    UserError
        If the split has fewer than 100 galaxies.
    """
    rows = data.rows("judge")
    if len(rows) < _FEWEST_GALAXIES:
        raise UserError(
            f"{data.path} has {len(rows)} galaxies for the judge, which needs {_FEWEST_GALAXIES}: prepare more data"
        )
    random = torch.Generator().manual_seed(_SEED)
    viewer, num_classes = Viewer.of_dataset(data), len(data.layout.classes)
    images = torch.from_numpy(np.ascontiguousarray(data.images[rows]))
    classes = torch.from_numpy(data.classes(rows))
    names = _readable_attributes(data, rows)
    values = torch.from_numpy(data.attributes(names, rows)) if names else torch.zeros(len(rows), 0)
    attributes = data.layout.attribute_rows(names)
    truth, values = values, _on_scales(attributes, values)
    held, kept = _split_by_class(classes, num_classes, random)
    weights = _weights(names).to(device)
    centre, spread = _moments(values[kept])
    targets = torch.where(torch.isfinite(values), (values - centre) / spread, torch.nan)

    # A rare class is drawn as often as a frequent one: the judge must know it too.
    balance = 1.0 / torch.bincount(classes[kept], minlength=num_classes).clamp_min(1)[classes[kept]]
    held_balance = 1.0 / torch.bincount(classes[held], minlength=num_classes).clamp_min(1)[classes[held]]

    def draw_loss(network: JudgeNetwork) -> Tensor:
        chosen = kept[torch.multinomial(balance, _BATCH, True, generator=random)]
        batch = move_at_random(viewer.linear(images[chosen].to(device)), random)
        return _loss(network(batch), classes[chosen].to(device), targets[chosen].to(device), weights)

    def held_out_loss(network: JudgeNetwork) -> float:
        read = _predict(network, viewer, images[held], device)
        return float(_loss(read, classes[held], targets[held], weights.cpu(), held_balance))

    per_epoch = max(1, len(kept) // _BATCH)
    trained = train_classifier(
        lambda: JudgeNetwork(len(names), layout=data.layout).to(device),
        draw_loss,
        epochs * per_epoch,
        _SEED,
        held_out=HeldOut(held_out_loss, per_epoch, _PATIENCE),
        title="training the judge",
    )
    if trained.best_look == 0:
        raise UserError(f"the judge of {data.path} did not train: its loss was never finite")
    logits, read = _predict(trained.network, viewer, images[held], device)
    temperature = fit_temperature(logits, classes[held], held_balance)
    errors = (_in_units(attributes, read * spread + centre) - truth[held]).abs().nanmean(0)
    right = (logits.argmax(1) == classes[held]).float()
    card = {
        "galaxies": len(kept),
        "held_out": len(held),
        "epochs": trained.best_look,
        "accuracy_held_out": float((right * held_balance).sum() / held_balance.sum()),
        "mae_held_out": dict(zip(names, errors.tolist(), strict=True)),
    }
    return {
        "attributes": list(names),
        "network": {name: value.cpu() for name, value in trained.network.state_dict().items()},
        "temperature": temperature,
        "centre": centre,
        "spread": spread,
        "card": card,
        **({"softening": viewer.softening} if data.layout.is_flux else {}),
    }


def _on_scales(attributes: Sequence[Attribute], values: Tensor) -> Tensor:
    """Return values (N, A) in physical units on the scales of their attributes, on which they are learned."""
    columns = [a.steps_of(column) for a, column in zip(attributes, values.T, strict=True)]
    return torch.stack(columns, 1) if columns else values


def _in_units(attributes: Sequence[Attribute], steps: Tensor) -> Tensor:
    """Invert `_on_scales`, within what an attribute can be asked for where a scale is not linear."""
    columns = [a.value_of(column) for a, column in zip(attributes, steps.T, strict=True)]
    curved = [a.scale != "linear" for a in attributes]
    columns = [v.clamp(*a.plausible) if c else v for a, v, c in zip(attributes, columns, curved, strict=True)]
    return torch.stack(columns, 1) if columns else steps


def _readable_attributes(data: PreparedDataset, rows: np.ndarray) -> tuple[str, ...]:
    """Return the attributes that an image may show and that enough galaxies know."""
    # A color may be of any two bands in any order: what the layout does not list stands in the catalogue's.
    others = (name for name in map(str, data.catalogue) if data.layout.is_attribute(name))
    listed = dict.fromkeys([*data.layout.attributes, *others])
    names = []
    for name in listed:
        attribute = data.layout.attribute_of(name)
        if attribute and attribute.source in _READABLE and name in data.catalogue:
            known = data.catalogue[name].iloc[rows].dropna()
            if len(known) >= _FEWEST_KNOWN and known.std() > 0:
                names.append(name)
    return tuple(names)


def _weights(names: tuple[str, ...]) -> Tensor:
    """Return the weights (A,) of attributes in the loss: all magnitudes together count as one does, so do all colors.

    Else a redshift would be lost among the colors of many bands.
    """
    kinds = [name.removesuffix("".join(f"_{band}" for band in bands_of_attribute(name))) for name in names]
    return torch.tensor([1.0 / kinds.count(kind) for kind in kinds])


def _split_by_class(classes: Tensor, num_classes: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the row numbers held out and kept, `_HELD_OUT` of each class, at least one of two or more."""
    held, kept = [], []
    for index in range(num_classes):
        members = torch.nonzero(classes == index)[:, 0]
        members = members[torch.randperm(len(members), generator=random)]
        count = max(1, round(_HELD_OUT * len(members))) if len(members) > 1 else 0
        held.append(members[:count])
        kept.append(members[count:])
    return torch.cat(held), torch.cat(kept)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column's known values."""
    centre = values.nanmean(0)
    spread = (values - centre).square().nanmean(0).sqrt()
    return torch.nan_to_num(centre), torch.nan_to_num(spread, nan=1.0).clamp_min(1e-6)


def move_at_random(images: Tensor, random: torch.Generator) -> Tensor:
    """Turn by any angle, mirror, and shift by up to a pixel: what changes neither class nor attributes."""
    number, size = len(images), images.shape[-1]
    angle = 2 * math.pi * torch.rand(number, generator=random)
    mirror = torch.where(torch.rand(number, generator=random) < 0.5, -1.0, 1.0)
    shift = (torch.rand(number, 2, generator=random) * 2 - 1) * 2 / size
    return turned(images, angle.to(images.device), mirror.to(images.device), shift.to(images.device))


def _loss(
    outputs: tuple[Tensor, Tensor],
    classes: Tensor,
    targets: Tensor,
    weights: Tensor,
    balance: Tensor | None = None,
) -> Tensor:
    """Return cross-entropy, by the `balance` (N,) of the galaxies, plus the weighted mean squared error.

    That is of the known standardised attributes; `weights` (A,) are theirs.
    """
    logits, read = outputs
    entropy = F.cross_entropy(logits, classes, reduction="none")
    entropy = entropy.mean() if balance is None else (entropy * balance).sum() / balance.sum()
    known = torch.isfinite(targets)
    squared = torch.where(known, read - torch.nan_to_num(targets), torch.zeros_like(read)).square()
    return entropy + (squared * weights).sum() / (known * weights).sum().clamp_min(1e-6)


@torch.no_grad()
def _predict(network: JudgeNetwork, viewer: Viewer, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    parts = [network(viewer.linear(chunk.to(device))) for chunk in images.split(256)]
    return torch.cat([logits for logits, _ in parts]).cpu(), torch.cat([read for _, read in parts]).cpu()


def fit_temperature(logits: Tensor, classes: Tensor, weights: Tensor) -> float:
    """Return the temperature that minimises the weighted cross-entropy of logits / temperature.

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 4.2. The loss has one minimum in the logarithm; a fine grid finds it.
    """
    grid = torch.logspace(-1.5, 1.5, 601, dtype=torch.float64)
    entropy = [F.cross_entropy(logits.double() / t, classes, reduction="none") for t in grid]
    return float(grid[torch.stack([(e * weights).sum() for e in entropy]).argmin()])
