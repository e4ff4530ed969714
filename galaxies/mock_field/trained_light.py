"""The galaxies of a trained generator in a field: asked for as a catalogue has them, in the bands of any survey.

A generator knows galaxies as bright, as large and as far as those that it learned from. One that is fainter or smaller
is drawn as the nearest that it knows, and then dimmed and shrunk: that keeps its structure, and gives it the surface
brightness that was asked for. How many those are is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from config_physics import AB_ZERO_POINT
from galaxies.common.durable_files import sha256_of
from galaxies.common.errors import UserError, shown
from galaxies.generation.observed import binned_for, filters_for
from galaxies.generation.sampler import GalaxySampler
from galaxies.mock_field.sources import MOCK_PARTS, RADII, GroupOfLight, Requests
from galaxies.telescope.surveys import Survey

_SIDES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)  # pixels of light, of which the fewest are kept
_TOGETHER = 256  # galaxies that are drawn at a time
_LABEL = 16  # characters of a class that the truth of a field has room for
_SIZE, _REDSHIFT = "size_arcsec", "redshift"
_FADING = 0.8  # of half a frame, from where on light fades to none at its border: no frame is to be seen on the sky
_INVENTED = 2  # place in `population.VERDICTS`


class GeneratorLight:
    """The galaxies of a generator that paints light, before any telescope, in the bands of a survey.

    Magnitude, half-light radius and redshift are asked for where the generator knows such attributes: the magnitude in
    its band that is nearest to the survey's, and of each the nearest value that the training data support. All else
    follows from the seed. Flux and pixel scale are then multiplied by what is left of magnitude and radius. Light is
    cut off at six half-light radii, as that of the mock survey is.

    Parameters
    ----------
    sampler : GalaxySampler
    survey : Survey
    reference : int
        The place of the band of the magnitudes.
    binning : int, optional
        Pixels of the survey a side that are added up in one; None for as few as the light needs.

    Attributes
    ----------
    survey : Survey
        With its pixels so binned.
    light_scale : float
        Arcseconds a pixel of the light.
    parts : mapping of str to float
        As of `LightSource`: those of the mock survey's galaxies if the generator has the same classes, else as often as
        they are in the training data.

    Raises
    ------
    UserError
        If the generator paints no light, a filter sees what its bands do not tell of, or the survey's pixels are finer
        than those of its light.
    """

    def __init__(self, sampler: GalaxySampler, survey: Survey, reference: int, binning: int | None = 1) -> None:
        self._held: GalaxySampler | None = sampler
        self._name = str(sampler.config.run)
        self.survey, self.light_scale = binned_for(sampler, survey, binning), sampler.light_pixel_scale
        self._filters: list[list[float]] = filters_for(sampler, self.survey).tolist()
        self._reference = reference
        self._whole = sampler.config.image_size * sampler.config.oversampling  # pixels of light a side
        self._labels = _labels(sampler.config.classes)
        members = [len(sampler.population.members(index)) for index in range(len(self._labels))]
        self.parts: Mapping[str, float] = {c: n for c, n in zip(self._labels, members, strict=True) if n}
        self._as_mock = self.parts.keys() == MOCK_PARTS.keys()
        if self._as_mock:
            self.parts = MOCK_PARTS
        names = [attribute.name for attribute in sampler.attributes]
        self._magnitude = _nearest_magnitude(sampler, survey.bands[reference].wavelength_nm)
        asked = (self._magnitude, _SIZE, _REDSHIFT)
        self._columns = {name: names.index(name) for name in asked if name in names}  # in this order
        # Of each class and attribute that is asked for: low and high end, NaN where nothing is known.
        unknown = (np.nan, np.nan)
        self._limits = np.array(
            [[*(row[place] or unknown for place in self._columns.values()), unknown] for row in sampler.supported]
        )
        self._num_attributes = len(names)

    def describe(self) -> str:
        """Say what draws the galaxies."""
        sampler = self._sampler()
        said = f"run {sampler.origin['run']}, step {sampler.origin['step']}: {sampler.describe()}"
        said += f"; trained on {sampler.origin['source']}" if "source" in sampler.origin else ""
        return said + (f" ({sampler.origin['credit']})" if "credit" in sampler.origin else "")

    def settings(self) -> dict[str, str]:
        """Return what decides the light besides the weights; see `LightSource`."""
        sampler = self._sampler()
        return {"device": sampler.kind_of_device, "solver": sampler.describe()}

    def notes(self) -> tuple[str, ...]:
        """Say what holds for all of its galaxies; see `LightSource`."""
        asked = ", ".join(self._columns) or "nothing"
        said = [
            f"of the generator is asked, of each galaxy: {asked}; all else is drawn by its seed",
            f"the generator paints on pixels of {self.light_scale:g} arcseconds, and of galaxies smaller or larger "
            "than it knows on as much smaller or larger ones; light is cut off at six half-light radii, and fades over "
            "the outermost fifth of its frame",
        ]
        if _SIZE not in self._columns:
            said.append("the generator is told no size_arcsec: sizes are not those of the counts")
        if _REDSHIFT not in self._columns:
            said.append("the generator is told no redshift: the truth has none")
        if not self._as_mock:
            said.append("classes are as often as in the training data")
        return tuple(said)

    def replaced(self, wanted: Requests) -> dict[str, int]:
        """Count the galaxies that are drawn otherwise than asked for; see `LightSource`."""
        classes = self._classes(wanted)
        asked, nearest = self._nearest(wanted, classes)
        over, under = (asked > nearest).T, (asked < nearest).T
        bright, size, far = (self._place(name) for name in (self._magnitude, _SIZE, _REDSHIFT))
        support = self._sampler().support(torch.from_numpy(classes), self._values(nearest))
        learned = "than nearly all that the generator learned from: they are drawn as the nearest it knows,"
        counted = {
            f"fainter or smaller {learned} dimmed and shrunk": over[bright] | under[size],
            f"brighter or larger {learned} brightened and stretched": under[bright] | over[size],
            "of redshifts that the generator learned nearly nothing of: they are drawn at the nearest that it knows": (
                over[far] | under[far]
            ),
            f"whose {', '.join(self._columns)} no galaxy of the training data has together, even then": (
                support.verdicts.numpy() == _INVENTED
            ),
        }
        return {sentence: int(which.sum()) for sentence, which in counted.items()}

    def draw(self, wanted: Requests) -> Iterator[GroupOfLight]:
        """Draw galaxies; see `LightSource`."""
        for first in range(0, len(wanted.seed), _TOGETHER):
            rows = np.arange(first, min(first + _TOGETHER, len(wanted.seed)))
            yield from self._draw(wanted.of(rows), rows)

    def frames(self, wanted: Requests) -> np.ndarray:
        """Return how wide their light is at most; see `LightSource`."""
        return self._whole * self._pixel_scales(*self._nearest(wanted, self._classes(wanted)))

    def told(self, wanted: Requests) -> tuple[np.ndarray, Tensor]:
        """Return which galaxies the generator draws for those that are wanted.

        Classes (N,), int64, by their place, and values (N, A), float32, NaN for what follows from the seed.
        """
        classes = self._classes(wanted)
        return classes, self._values(self._nearest(wanted, classes)[1])

    def _draw(self, wanted: Requests, rows: np.ndarray) -> Iterator[GroupOfLight]:
        classes = self._classes(wanted)
        asked, nearest = self._nearest(wanted, classes)
        light = self._light(torch.from_numpy(classes), self._values(nearest), wanted.seed)
        if not self._sampler().network.turns:
            light = _turned(light, wanted.seed)
        light = self._in_filters(light) * _window(light.shape[-1])
        scale, far = self._pixel_scales(asked, nearest), nearest[:, self._place(_REDSHIFT)]
        flux = 10 ** (0.4 * (AB_ZERO_POINT - wanted.magnitude))
        whole = light.shape[-1]
        sides = np.array([_side(RADII * radius, whole) for radius in _half_light(light[:, self._reference]).tolist()])
        for side in np.unique(sides).tolist():
            here, margin = np.flatnonzero(sides == side), (whole - side) // 2
            some = light[here, :, margin : margin + side, margin : margin + side]
            total = some[:, self._reference].double().sum((1, 2))
            if not (total > 0).all():
                raise UserError(f"{self._name} paints galaxies without light: use another checkpoint")
            some = some * (torch.from_numpy(flux[here]) / total).float()[:, None, None, None]
            yield GroupOfLight(rows[here], some, torch.from_numpy(scale[here]).float(), far[here])

    def _light(self, classes: Tensor, values: Tensor, seeds: np.ndarray) -> Tensor:
        """Return light (N, B, L, L) of classes (N,), values (N, A), NaN for what is drawn, and seeds (N,)."""
        sampler = self._sampler()
        return sampler.light(classes, sampler.complete_all(classes, values, seeds), seeds)

    def _sampler(self) -> GalaxySampler:
        assert self._held is not None
        return self._held

    def _pixel_scales(self, asked: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Return arcseconds a pixel of light (N,), which is stretched by what is left of the radius."""
        size = asked[:, self._place(_SIZE)] / nearest[:, self._place(_SIZE)]
        return self.light_scale * np.where(np.isfinite(size), size, 1.0)

    def _in_filters(self, light: Tensor) -> Tensor:
        """Return the light (N, F, L, L) of the survey's filters, of that of the generator's bands (N, B, L, L)."""
        seen = light.new_zeros(len(light), len(self._filters), *light.shape[2:])
        for place, weights in enumerate(self._filters):
            for band, weight in enumerate(weights):
                if weight:  # one after the other: a product of matrices may round otherwise among other galaxies
                    seen[:, place] += weight * light[:, band]
        return seen

    def _classes(self, wanted: Requests) -> np.ndarray:
        places = {label: place for place, label in enumerate(self._labels)}
        return np.array([places[label] for label in wanted.morphology.tolist()], np.int64)

    def _place(self, name: str | None) -> int:
        """Return where an attribute stands among those that are asked for: at the end, where all is NaN, if not."""
        return list(self._columns).index(name) if name in self._columns else len(self._columns)

    def _nearest(self, wanted: Requests, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is wanted, and the nearest that is supported: (N, columns + 1) each, NaN where unknown."""
        told = {self._magnitude: wanted.magnitude, _SIZE: wanted.radius, _REDSHIFT: wanted.redshift}
        asked = np.stack([*(told[name] for name in self._columns), np.full(len(classes), np.nan)], 1)
        return asked, asked.clip(self._limits[classes, :, 0], self._limits[classes, :, 1])

    def _values(self, nearest: np.ndarray) -> Tensor:
        """Return requests (N, A) of what is asked for (N, columns + 1), NaN for all else."""
        values = torch.full((len(nearest), self._num_attributes), torch.nan)
        for column, place in enumerate(self._columns.values()):
            values[:, place] = torch.from_numpy(nearest[:, column]).float()
        return values


class TrainedLight(GeneratorLight):
    """The galaxies of a checkpoint; see `GeneratorLight`.

    It holds no network: each process that it is sent to loads the checkpoint once.

    Parameters
    ----------
    checkpoint : Path
        Of a run, or a release.
    survey : Survey
    reference : int
        The place of the band of the magnitudes.
    device : str
        That the generator draws on, see `Engine.choose`.
    binning : int, optional
        As of `GeneratorLight`.
    **solver
        Fields of a diffusion model's solver.

    Raises
    ------
    UserError
        If the checkpoint cannot be used, or as `GeneratorLight` does.
    """

    def __init__(
        self,
        checkpoint: Path,
        survey: Survey,
        reference: int,
        device: str = "auto",
        binning: int | None = 1,
        **solver: Any,
    ) -> None:
        self._checkpoint, self._how = checkpoint, (checkpoint, device, tuple(sorted(solver.items())))
        _loaded.cache_clear()  # the file may be another one than it was
        sampler, self._sha256 = _loaded(*self._how)
        super().__init__(sampler, survey, reference, binning)
        self._held, self._name = None, str(checkpoint)

    def settings(self) -> dict[str, str]:
        """Return what decides the light; see `LightSource`."""
        return {"checkpoint": self._sha256, **super().settings()}

    def _sampler(self) -> GalaxySampler:
        sampler, sha256 = _loaded(*self._how)
        if sha256 != self._sha256:
            raise UserError(f"{self._checkpoint} is not what it was when the field was begun: give a copy of it")
        return sampler


@lru_cache(maxsize=1)
def _loaded(checkpoint: Path, device: str, solver: tuple[tuple[str, Any], ...]) -> tuple[GalaxySampler, str]:
    """Return the generator, which a process loads once, and the checksum of its file."""
    return GalaxySampler.from_checkpoint(checkpoint, device, **dict(solver)), sha256_of(checkpoint)


def _labels(classes: Sequence[str]) -> list[str]:
    """Return names of classes that a table of truth can hold."""
    labels = [name.encode("ascii", "replace").decode()[:_LABEL] for name in classes]
    for name, label in zip(classes, labels, strict=True):
        if labels.count(label) > 1:
            raise UserError(
                f"the generator's class {shown(name)} is not told from another by {_LABEL} letters of ASCII, which the "
                "truth of a field has room for"
            )
    return labels


def _nearest_magnitude(sampler: GalaxySampler, wavelength_nm: float) -> str | None:
    """Return the attribute that is the magnitude nearest to a wavelength, or None if the generator knows none."""
    config = sampler.config
    known = [
        (abs(own - wavelength_nm), f"magnitude_{band}")
        for band, own in zip(config.bands, config.wavelengths, strict=True)
        if f"magnitude_{band}" in config.attributes
    ]
    return min(known)[1] if known else None


def _turned(light: Tensor, seeds: np.ndarray) -> Tensor:
    """Return light (N, B, L, L) turned by quarter turns and mirrored, by the seeds (N,): no direction is preferred."""
    turned = torch.empty_like(light)
    for way in range(8):
        here = np.flatnonzero(seeds % 8 == way)
        some = light[here].rot90(way % 4, (2, 3))
        turned[here] = some.flip(3) if way >= 4 else some
    return turned


def _window(side: int) -> Tensor:
    """Return a round window (side, side): 1, and from `_FADING` of half a frame a cosine down to 0 at the border."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    radius = torch.hypot(axis, axis[:, None])
    return 0.5 + 0.5 * torch.cos(math.pi * ((radius - _FADING) / (1 - _FADING)).clamp(0, 1))


def _half_light(images: Tensor) -> Tensor:
    """Return of images (N, L, L) half the side, in pixels, of the square about the middle that holds half the light."""
    whole = images.shape[-1]
    axis = (torch.arange(whole) - (whole - 1) / 2).abs().add(0.5).long()  # 1 for the middle pixels
    ring = torch.maximum(axis[:, None], axis) - 1
    light = images.new_zeros(len(images), whole // 2, dtype=torch.float64)
    light.index_add_(1, ring.flatten(), images.flatten(1).double())
    within = light.cumsum(1)
    return (within < within[:, -1:] / 2).sum(1) + 1


def _side(wanted: float, most: int) -> int:
    """Return how many pixels of light are kept of those that were painted."""
    return next((side for side in _SIDES if wanted <= side < most), most)
