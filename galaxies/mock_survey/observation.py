"""A mock survey of galaxies with exact truth: drawn, blurred, made noisy and stretched to a picture as SDSS does it.

    survey = MockSurvey(seed=0, image_size=64)
    for batch in survey.batches(4096):
        batch.images, batch.truth

`population.py` says what there is, `light.py` draws its light, and this file observes it: a point-spread
function of two Gaussians, sky and photon noise, an asinh composite of i, r and g (Lupton et al. 2004), JPEG's losses,
8 bits. Galaxy k depends on the seed and on k alone, whatever the number of threads; on a GPU only the noise's random
numbers differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from config_physics import MORPHOLOGY_NAMES
from galaxies.compute.cores import map_on_cores
from galaxies.compute.seeded_noise import standard_normal
from galaxies.datasets.sources.galaxy_zoo import FRAME_PX
from galaxies.mock_survey import population
from galaxies.mock_survey.classes import draw_light, mock_class
from galaxies.mock_survey.galaxy_table import GalaxyTable, changed, columns_of, given, told_structure
from galaxies.mock_survey.light import (
    EXPONENTIAL_HALF_LIGHT,
    WET_MERGER,
    Grid,
    Light,
    draw_particles,
    meet,
)
from galaxies.mock_survey.light_transforms import half_light_radius, transformed
from galaxies.mock_survey.sersic import SersicTransform
from galaxies.mock_survey.star_formation import luck_of_spectra, spectral_columns
from galaxies.mock_survey.votes import draw_votes
from galaxies.telescope.fourier import FourierGrid, fft_size

_R = 1  # the place of r among g, r and i
BLOCK = 64  # galaxies that share their random streams, one of each class in turn
SDSS_PIXEL_ARCSEC = 0.396
_NOISE_TOGETHER = 2**24  # normal numbers that a GPU makes at a time, in a gigabyte
_WING_FRACTION, _WING_WIDTH = 0.07, 2.5  # of the point-spread function: light in the wing, its width over the core's
_PHOTON_VARIANCE = (1.0e-3, 1.06e-3, 1.35e-3)  # nanomaggies squared a nanomaggie in g, r, i: zero point over gain
# The composite: nanomaggies a pixel to red (i), green (r) and blue (g), and Lupton's Q.
_DISPLAY_GAIN = (1.95, 2.45, 3.6)
_DISPLAY_Q = 7.0
# JPEG's loss: of detail finer than a standard deviation (survey pixels), what is fainter than a threshold is dropped;
# of brightness the less the brighter the place is.
_LUMA_LOSS, _LOSSLESS_ABOVE = (0.6, 0.012), 0.05
_CHROMA_LOSS = (1.9, 0.065)


@dataclass
class Galaxies:
    """A batch of the survey.

    Attributes
    ----------
    images : ndarray, (N, 3, S, S), uint8
    object_ids, morphologies : list of str, (N,)
    truth : dict of str to ndarray, (N,), float64
        redshift, absolute_magnitude, stellar_mass (log10 solar masses), petro_r50_kpc, petro_r50 and petro_r90
        (arcseconds), magnitude (r), pixel_scale (arcseconds a pixel of the images), frame_scale (of a 424-pixel
        frame), and those that only a simulation knows: true_half_light_radius (arcseconds, of the circle about the
        light's centroid, before seeing), true_axis_ratio (of the disc or the spheroid; in a merger, the primary's)
        and true_flux (nanomaggies in r). arm_count, bar and bulge are those of `told_structure`, NaN where a class has
        none. And what a spectrum would tell, see `spectral_columns`.
    votes : dict of str to ndarray, (N,), int64
        What people would say, see `votes.py`.
    """

    images: np.ndarray
    object_ids: list[str]
    morphologies: list[str]
    truth: dict[str, np.ndarray]
    votes: dict[str, np.ndarray]


_KNOWN = ("redshift", "absolute_magnitude", "stellar_mass", "petro_r50_kpc", "petro_r50", "petro_r90", "magnitude")
_JUDGED = ("axis_ratio", "bulge_fraction", "bar_fraction", "arm_strength", "num_arms", "pitch", "dust_depth")


class _Drawn(NamedTuple):
    """What whole blocks hold, N galaxies, of which the first `keep` are wanted.

    `tables` has the rows of each class among the N, and its galaxies; `votes` is of each block; `luck`, (N, `LUCK`),
    are the numbers that decide on spectra.
    """

    numbers: np.ndarray
    keep: int
    morphologies: np.ndarray
    tables: dict[str, tuple[np.ndarray, GalaxyTable[np.ndarray]]]
    votes: list[dict[str, np.ndarray]]
    luck: np.ndarray


class _Rendering(NamedTuple):
    """Pictures (n, 3, S, S) uint8 and truth (n,) of the `chosen` galaxies of a class, still on the device."""

    morphology: str
    chosen: np.ndarray
    pixels: Tensor
    truth: dict[str, Tensor]


def stream_of(seed: int, number: int) -> int:
    """Return the seed of the random numbers of one galaxy of a survey, 0 to 2^63 - 1."""
    return int(np.random.SeedSequence([seed, int(number)]).generate_state(1, np.uint64)[0] >> 1)


class MockSurvey:
    """The mock survey of one seed.

    Parameters
    ----------
    seed : int
    image_size : int
        Pixels a side, S: 64, 128, 256 or, with the whole frame, 424.
    whole_frame : bool
        Show the frame of 424 survey-scaled pixels instead of its central half.
    device : torch.device
    """

    def __init__(
        self, seed: int, image_size: int = 64, whole_frame: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.seed = seed
        self.image_size = image_size
        self.frame_px = FRAME_PX if whole_frame else FRAME_PX // 2
        self.device = torch.device(device)
        self.oversampling = 2 if image_size <= 64 else 1
        self._transform = SersicTransform(self.device)

    def batches(self, count: int, blocks_at_once: int = 1) -> Iterator[Galaxies]:
        """Yield galaxies 0 to count - 1 in order, in batches of up to `BLOCK * blocks_at_once`.

        While a device renders a batch, the processor draws what the next one holds.
        """
        size = BLOCK * blocks_at_once
        upcoming = (self._draw(first // BLOCK, min(count, first + size)) for first in range(0, count, size))
        drawn = next(upcoming, None)
        while drawn is not None:
            rendering = self._begin(drawn)
            following = next(upcoming, None)
            yield self._finish(drawn, rendering)
            drawn = following

    def _draw(self, first_block: int, end: int) -> _Drawn:
        """Draw whole blocks, of which galaxies before `end` are wanted: all that a picture does not show."""
        end_block = math.ceil(end / BLOCK)
        numbers = np.arange(first_block * BLOCK, end_block * BLOCK)
        morphologies = population.class_of(numbers)
        structure = {name: np.full(len(numbers), np.nan) for name in _JUDGED}
        tables = {}

        def draw(index: int) -> tuple[np.ndarray, GalaxyTable[np.ndarray]]:
            streams = [np.random.default_rng([self.seed, block, index]) for block in range(first_block, end_block)]
            rows = np.flatnonzero(morphologies == MORPHOLOGY_NAMES[index])
            counts = np.bincount(rows // BLOCK, minlength=len(streams)).tolist()
            return rows, population.draw_blocks(MORPHOLOGY_NAMES[index], counts, streams)

        # Each on one thread: several round some functions otherwise where their shares of the numbers end.
        drawn = map_on_cores(draw, range(len(MORPHOLOGY_NAMES)))
        for morphology, (rows, table) in zip(MORPHOLOGY_NAMES, drawn, strict=True):
            for name, values in columns_of(table.structure).items():
                if (name := name.split(".")[-1]) in structure:
                    structure[name][rows] = values
            tables[morphology] = rows, table
        votes = []
        for place, block in enumerate(range(first_block, end_block)):
            part = slice(place * BLOCK, (place + 1) * BLOCK)
            rng = np.random.default_rng([self.seed, block, len(MORPHOLOGY_NAMES)])
            votes.append(
                draw_votes(morphologies[part], {name: values[part] for name, values in structure.items()}, rng)
            )
        luck = luck_of_spectra(self.seed, range(first_block, end_block), BLOCK)
        return _Drawn(numbers, end - first_block * BLOCK, morphologies, tables, votes, luck)

    def _begin(self, drawn: _Drawn) -> list[_Rendering]:
        """Give the device a batch to render, and do not wait for it; a CPU renders each kind on one thread."""
        parts = []
        for morphology, (rows, table) in drawn.tables.items():
            kinds = mock_class(morphology).kinds(table.structure)
            for kind in sorted(set(kinds)):
                chosen = np.flatnonzero(kinds == kind)
                parts.append((morphology, kind, table, chosen, drawn.numbers[rows[chosen]]))

        def rendered(part: tuple[str, str, GalaxyTable[np.ndarray], np.ndarray, np.ndarray]) -> _Rendering:
            morphology, kind, table, chosen, numbers = part
            return _Rendering(morphology, chosen, *self._render(kind, table, chosen, numbers))

        return map_on_cores(rendered, parts) if self.device.type == "cpu" else [rendered(part) for part in parts]

    def _finish(self, drawn: _Drawn, renderings: list[_Rendering]) -> Galaxies:
        """Wait for the device, and gather a batch in the order of the galaxies."""
        keep, count = drawn.keep, len(drawn.numbers)
        images = torch.empty(count, 3, self.image_size, self.image_size, dtype=torch.uint8)
        truth: dict[str, np.ndarray] = {}
        for morphology, (rows, table) in drawn.tables.items():
            known = {name: getattr(table, name) for name in _KNOWN}
            known |= told_structure(table.structure)
            known |= spectral_columns(table, drawn.luck[rows])
            known["frame_scale"] = table.exposure.frame_scale
            known["true_axis_ratio"] = table.structure.axis_ratio.copy()
            known["pixel_scale"] = table.exposure.frame_scale * self.frame_px / self.image_size
            known["true_flux"] = (table.disc_flux + table.bulge_flux)[:, 1]
            known["true_half_light_radius"] = np.empty(len(rows))
            for rendering in renderings:
                if rendering.morphology == morphology:
                    images[rows[rendering.chosen]] = rendering.pixels.cpu()
                    for name, values in rendering.truth.items():
                        known[name][rendering.chosen] = values.cpu().double().numpy()
            for name, values in known.items():
                truth.setdefault(name, np.empty(count))[rows] = values
        return Galaxies(
            images[:keep].numpy(),
            [f"7{self.seed:010d}{number:08d}" for number in drawn.numbers[:keep]],
            drawn.morphologies[:keep].tolist(),
            {name: values[:keep] for name, values in truth.items()},
            {name: np.concatenate([block[name] for block in drawn.votes])[:keep] for name in drawn.votes[0]},
        )

    def _render(
        self, kind: str, galaxies: GalaxyTable[np.ndarray], chosen: np.ndarray, numbers: np.ndarray
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return images (n, 3, S, S) uint8 of galaxies of one kind, and the truth that only their light tells."""
        p = self._tensors(galaxies, chosen)
        side = fft_size(self.image_size * self.oversampling)
        frame_width = p.exposure.frame_scale * self.frame_px  # arcseconds
        grid = Grid(side, frame_width / (self.image_size * self.oversampling))
        if kind == WET_MERGER:
            # Drawn on the CPU, since they belong to the truth.
            draws = draw_particles([stream_of(self.seed, number) + 1 for number in numbers])
            given(p.structure.pair).particle_draws = draws.to(self.device)
        pair = meet(p) if kind == WET_MERGER else None
        field = FourierGrid(side, grid.pixel_scale)
        source = self._transformed(draw_light(kind, p, grid, pair), field, p)  # (n, 3, W, W/2 + 1) complex
        truth = {"true_half_light_radius": half_light_radius(source[:, _R], field, grid)}
        if p.structure.pair is not None:  # which may outgrow the picture
            wide = Grid(side, 2.5 * grid.pixel_scale)
            wide_field = FourierGrid(side, wide.pixel_scale)
            wide_source = self._transformed(draw_light(kind, p, wide, pair), wide_field, p)
            truth["true_half_light_radius"] = half_light_radius(wide_source[:, _R], wide_field, wide)
        if pair is not None:
            truth["true_axis_ratio"] = pair.axis_ratio[:, 0]
        noise = self._noise(numbers, side)
        picture = self._crop(_compress(_compose(_expose(source, _neighbours(p, grid), field, noise, p)), field))
        return picture.mul(255).round().clamp(0, 255).byte(), truth

    def _noise(self, numbers: np.ndarray, side: int) -> Tensor:
        """Return normal noise (n, 3, W, W); every galaxy has its own stream, so that its batch does not matter."""
        if self.device.type == "cpu":
            streams = [torch.Generator().manual_seed(stream_of(self.seed, number)) for number in numbers]
            return torch.stack([torch.randn(3, side, side, generator=g) for g in streams])
        # A generator for each galaxy would take a GPU's host longer than all the rest.
        seeds = torch.from_numpy(numbers + (self.seed << 32)).to(self.device)
        count = 3 * side * side
        blocks = [standard_normal(block, count) for block in seeds.split(max(1, _NOISE_TOGETHER // count))]
        return torch.cat(blocks).view(-1, 3, side, side)

    def _tensors(self, galaxies: GalaxyTable[np.ndarray], chosen: np.ndarray) -> GalaxyTable[Tensor]:
        """Return some galaxies' columns on the device, float32."""
        table: Any = changed(lambda v: torch.from_numpy(v[chosen]).to(self.device, torch.float32), galaxies)
        return table

    def _transformed(self, light: Light, field: FourierGrid, p: GalaxyTable[Tensor]) -> Tensor:
        """Return the Fourier transform of a galaxy's light in three bands, moved to its place in the frame."""
        shift = p.exposure.centre * (p.exposure.frame_scale * FRAME_PX / 2)[:, None]
        return transformed(light, field, self._transform) * field.shift(shift[:, 0], shift[:, 1])[:, None]

    def _crop(self, planes: Tensor) -> Tensor:
        """Cut the margin off and average the pixels that make one of the picture's."""
        inner = self.image_size * self.oversampling
        margin = (planes.shape[-1] - inner) // 2
        planes = planes[..., margin : margin + inner, margin : margin + inner]
        return F.avg_pool2d(planes, self.oversampling) if self.oversampling > 1 else planes


def _neighbours(p: GalaxyTable[Tensor], grid: Grid) -> Tensor:
    """Return the light (n, 3, W, W) of the other objects in the frame.

    A small galaxy is an exponential disc of `_SUNFLOWER` points, which lie evenly in its light; a star is all of
    them in one place.
    """
    points = _sunflower(p.neighbours.size.device)  # (M, 2), unit half-light radius
    u = p.neighbours.size[..., None] * points[:, 0]  # (n, K, M)
    v = (p.neighbours.size * p.neighbours.axis_ratio)[..., None] * points[:, 1]
    cos, sin = p.neighbours.angle.cos()[..., None], p.neighbours.angle.sin()[..., None]
    place = torch.stack([cos * u - sin * v, sin * u + cos * v], -1) + p.neighbours.place[:, :, None]
    # A neighbour on top of the galaxy would have been the galaxy.
    apart = torch.linalg.vector_norm(p.neighbours.place, dim=-1) > 0.8 * p.petro_r90[:, None]
    flux = p.neighbours.flux * apart[..., None] / len(points)  # (n, K, 3)
    flux = flux[:, :, None].expand(-1, -1, len(points), -1).flatten(1, 2)
    return torch.stack([grid.deposit(place.flatten(1, 2), flux[..., band]) for band in range(3)], 1)


def _sunflower(device: torch.device, count: int = 64) -> Tensor:
    """Return points (count, 2) that share an exponential disc's light equally (Vogel's spiral, 1979)."""
    radius = torch.linspace(0, 8, 801, dtype=torch.float64)
    light = 1 - (1 + radius) * torch.exp(-radius)  # of scale length 1
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    place = torch.searchsorted(light / light[-1], share)
    angle = math.pi * (3 - math.sqrt(5)) * torch.arange(count)
    points = radius[place, None] * torch.stack([angle.cos(), angle.sin()], -1) / EXPONENTIAL_HALF_LIGHT
    return points.to(device, torch.float32)


def _expose(source: Tensor, neighbours: Tensor, field: FourierGrid, noise: Tensor, p: GalaxyTable[Tensor]) -> Tensor:
    """Blur the light, add the noise of sky and photons; nanomaggies a survey pixel, (n, 3, W, W)."""
    area = (SDSS_PIXEL_ARCSEC / field.pixel_scale).square()[:, None, None]  # grid pixels a survey pixel
    # What the survey's pixels can hold, less what their interpolation to the frame takes off.
    interpolation = 1 / (1 + ((2.3 * SDSS_PIXEL_ARCSEC) ** 2 * field.radius_squared) ** 2)
    planes = []
    for band in range(3):
        core = p.exposure.psf_fwhm[:, band] / 2.355
        psf = (1 - _WING_FRACTION) * field.gaussian(core) + _WING_FRACTION * field.gaussian(_WING_WIDTH * core)
        offset = p.exposure.misregistration[:, band]
        blurred = (source[:, band] + torch.fft.rfft2(neighbours[:, band])) * psf
        image = field.image(blurred * field.shift(offset[:, 0], offset[:, 1])) * area
        variance = p.exposure.sky_noise[:, band, None, None].square() + _PHOTON_VARIANCE[band] * image.clamp_min(0)
        # White noise of the same power as the survey's pixels have.
        grain = field.image(torch.fft.rfft2(noise[:, band] * (variance * area).sqrt()) * interpolation)
        planes.append(image + grain + (p.exposure.sky_error[:, band] * p.exposure.sky_noise[:, band])[:, None, None])
    return torch.stack(planes, 1)


def _compose(planes: Tensor) -> Tensor:
    """Stretch g, r and i (n, 3, W, W) to a picture in [0, 1] (Lupton et al. 2004, eqs. 1 and 2).

    What is darker than the sky is black: that makes the mean of an empty sky positive.
    """
    rgb = planes.flip(1) * torch.tensor(_DISPLAY_GAIN, device=planes.device)[:, None, None]  # i, r, g
    intensity = rgb.mean(1, keepdim=True).clamp_min(1e-6)
    stretched = rgb * torch.asinh(_DISPLAY_Q * intensity) / (_DISPLAY_Q * intensity)
    # Where a plane is too bright, all are dimmed, which keeps the colour.
    return (stretched / stretched.amax(1, keepdim=True).clamp_min(1)).clamp_min(0)


def _compress(rgb: Tensor, field: FourierGrid) -> Tensor:
    """Drop the faint detail of a picture (n, 3, W, W) as JPEG does: of brightness a little, of colours more.

    Bright places have coarse detail already, beside which JPEG keeps the fine one.
    """
    luma = (rgb * torch.tensor([0.299, 0.587, 0.114], device=rgb.device)[:, None, None]).sum(1, keepdim=True)
    native = torch.full_like(field.pixel_scale, SDSS_PIXEL_ARCSEC)
    smooth = [field.image(torch.fft.rfft2(luma) * field.gaussian(_LUMA_LOSS[0] * native)[:, None])]
    smooth.append(field.image(torch.fft.rfft2(rgb - luma) * field.gaussian(_CHROMA_LOSS[0] * native)[:, None]))
    faint = torch.exp(-smooth[0].clamp_min(0) / _LOSSLESS_ABOVE)
    kept_luma = _shrunk(luma - smooth[0], _LUMA_LOSS[1] * faint)
    return smooth[0] + kept_luma + smooth[1] + F.softshrink(rgb - luma - smooth[1], _CHROMA_LOSS[1])


def _shrunk(values: Tensor, threshold: Tensor) -> Tensor:
    return values.sign() * (values.abs() - threshold).clamp_min(0)
