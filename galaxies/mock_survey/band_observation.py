"""The mock survey in any bands: linear images in nanojansky as a known telescope takes them, with exact truth.

    survey = BandSurvey(0, Frame(find_survey("LSST", "griz"), image_size=64, pixel_scale=0.2))
    for batch in survey.batches(4096):
        batch.images, batch.truth

`band_population.py` says what there is, `light.py` draws its light, and `galaxies.telescope` observes it. Galaxy k
depends on the seed, the telescope and on k alone, and not on the number of threads; on a GPU only the noise's random
numbers differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from config_physics import AB_ZERO_POINT, MORPHOLOGY_NAMES
from galaxies.compute.cores import map_on_cores, stream_on_cores
from galaxies.compute.seeded_noise import standard_normal
from galaxies.mock_survey import band_population
from galaxies.mock_survey.band_population import Frame
from galaxies.mock_survey.classes import draw_light, mock_class
from galaxies.mock_survey.galaxy_table import BandTable, Structure, changed, given, told_structure
from galaxies.mock_survey.light import WET_MERGER, Grid, draw_particles, meet
from galaxies.mock_survey.light_transforms import half_light_radius, transformed
from galaxies.mock_survey.observation import BLOCK, stream_of
from galaxies.mock_survey.population import class_of
from galaxies.mock_survey.sersic import SersicTransform
from galaxies.mock_survey.star_formation import luck_of_spectra, spectral_columns
from galaxies.telescope.fourier import FourierGrid, fft_size
from galaxies.telescope.observing import Noise, gathered, noisy
from galaxies.telescope.profiles import AIRY, profile_of
from galaxies.telescope.psf import Psf

_KNOWN = ("redshift", "absolute_magnitude", "stellar_mass", "petro_r50_kpc")
_WELL_SAMPLED = 2.5  # pixels in a PSF's width, from which a large frame needs no finer ones

# How much wider than a frame the grid is, before it is made a fifth wider still: light that leaves a grid comes back at
# its other side, from large galaxies, and more of it from the wings of diffraction.
_MARGIN, _DIFFRACTION_MARGIN = 1.25, 1.5
_FINER = 2  # pixels along each axis on which light is drawn that nothing blurs, for one that is kept


@dataclass
class BandGalaxies:
    """A batch of the survey.

    Attributes
    ----------
    images : ndarray, (N, B, S, S), float32
        Nanojansky a pixel, sky subtracted.
    intrinsic : ndarray, (T, B, k S, k S), float32
        Light before the telescope of the galaxies in `intrinsic_rows`, nanojansky a pixel of which k by k make one of
        the images; `telescope.observing.observe` makes the image of it, but for the noise and a little light from
        beyond the frame.
    intrinsic_rows : ndarray, (T,), int64
    object_ids, morphologies : list of str, (N,)
    psf_fwhm, noise : ndarray, (N, B), float64
        Full width at half maximum of the point-spread function, arcseconds, before the pixels; standard deviation of
        the sky, nanojansky a pixel.
    truth : dict of str to ndarray, (N,), float64
        redshift, absolute_magnitude (r at rest), stellar_mass (log10 solar masses), petro_r50_kpc, pixel_scale
        (arcseconds), and those that only a simulation knows: true_half_light_radius (arcseconds, before seeing, of the
        circle about the light's centroid, in the band nearest to r), true_axis_ratio and true_position_angle (of the
        disc or the spheroid; in a merger, the primary's; degrees in [0, 180) from +x towards +y), true_inclination
        (degrees, 0 face-on, NaN where the galaxy is no disc), and true_magnitude_<band> (AB, of all of the light);
        arm_count, bar and bulge are those of `told_structure`.
    """

    images: np.ndarray
    intrinsic: np.ndarray
    intrinsic_rows: np.ndarray
    object_ids: list[str]
    morphologies: list[str]
    psf_fwhm: np.ndarray
    noise: np.ndarray
    truth: dict[str, np.ndarray]


class _Part(NamedTuple):
    """The galaxies of one kind, which are rendered together: those `chosen` of a table, and their rows in the batch."""

    kind: str
    table: BandTable[np.ndarray]
    chosen: np.ndarray
    rows: np.ndarray


def _orientation(structure: Structure[np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is known of how galaxies lie, (N,) in degrees; of pairs, the first spheroid's major axis."""
    angle = structure.position_angle if structure.pair is None else structure.pair.spheroid_angle[:, 0]
    inclination = np.full(len(angle), np.nan) if structure.inclination is None else structure.inclination
    return {"true_inclination": np.degrees(inclination), "true_position_angle": np.degrees(angle) % 180}


def _none(object_id: str) -> bool:
    return False


class BandSurvey:
    """The mock survey of one seed and telescope.

    Parameters
    ----------
    seed : int
    frame : Frame
        The survey with its bands, S and the pixel scale.
    device : torch.device
    with_intrinsic : callable, optional
        From an object id to whether its light before the telescope is kept; by default none is.
    chosen_by : Frame, optional
        What the galaxies were chosen by, if by another survey, of as many bands: the same galaxies as that one has,
        whether or not this one would find or resolve them.
    """

    def __init__(
        self,
        seed: int,
        frame: Frame,
        device: torch.device | str = "cpu",
        with_intrinsic: Callable[[str], bool] = _none,
        chosen_by: Frame | None = None,
    ) -> None:
        self.seed = seed
        self.frame = frame
        self.chosen_by = frame if chosen_by is None else chosen_by
        if len(self.chosen_by.survey.bands) != len(frame.survey.bands):
            raise ValueError("the same galaxies are those of a survey of as many bands")
        self.device = torch.device(device)
        self.with_intrinsic = with_intrinsic
        survey = frame.survey
        width = min(band.psf_fwhm for band in survey.bands) / frame.pixel_scale
        self.oversampling = 2 if frame.image_size <= 64 or width < _WELL_SAMPLED else 1
        inner = frame.image_size * self.oversampling
        scale = torch.tensor([frame.pixel_scale / self.oversampling], device=self.device)
        margin = _DIFFRACTION_MARGIN if survey.profile == AIRY else _MARGIN
        self._grid = Grid(fft_size(round(margin * inner)), scale)
        self._field = FourierGrid(self._grid.side, scale)
        self._margin = (self._grid.side - inner) // 2
        self._sersic = SersicTransform(self.device)
        self._profile = profile_of(survey.profile, survey.obscuration)
        photons = [band.photon_variance for band in survey.bands]
        self._photons = torch.tensor(photons, device=self.device)

    def batches(self, count: int, blocks_at_once: int = 1) -> Iterator[BandGalaxies]:
        """Yield galaxies 0 to count - 1 in order, in batches of up to `BLOCK * blocks_at_once`."""
        size = BLOCK * blocks_at_once
        for first in range(0, count, size):
            yield self._batch(first // BLOCK, min(count, first + size))

    def _batch(self, first_block: int, end: int) -> BandGalaxies:
        """Draw and render whole blocks, and keep the galaxies before `end`."""
        blocks = range(first_block, math.ceil(end / BLOCK))
        numbers = np.arange(blocks.start * BLOCK, blocks.stop * BLOCK)
        keep = end - blocks.start * BLOCK
        morphologies = class_of(numbers)
        object_ids = [f"8{self.seed:010d}{number:08d}" for number in numbers]
        wanted = np.array([self.with_intrinsic(object_id) for object_id in object_ids])
        wanted[keep:] = False
        bands, size = self.frame.survey.bands, self.frame.image_size
        images = np.empty((len(numbers), len(bands), size, size), np.float32)
        intrinsic: dict[int, np.ndarray] = {}
        columns: dict[str, np.ndarray] = {}

        def put(known: dict[str, np.ndarray], rows: np.ndarray) -> None:
            for name, values in known.items():
                columns.setdefault(name, np.empty((len(numbers), *values.shape[1:])))[rows] = values

        luck = luck_of_spectra(self.seed, blocks, BLOCK)
        parts: list[_Part] = []
        drawn = map_on_cores(partial(self._draw, blocks, morphologies), range(len(MORPHOLOGY_NAMES)))
        for morphology, table in zip(MORPHOLOGY_NAMES, drawn, strict=True):
            rows = np.flatnonzero(morphologies == morphology)
            known = {name: getattr(table, name) for name in _KNOWN}
            known |= {"psf_fwhm": table.exposure.psf_fwhm, "noise": table.exposure.sky_noise}
            known |= {"true_axis_ratio": table.structure.axis_ratio}
            put(known | _orientation(table.structure) | told_structure(table.structure), rows)
            put(spectral_columns(table, luck[rows]), rows)
            kinds = mock_class(morphology).kinds(table.structure)
            for kind in sorted(set(kinds)):
                chosen = np.flatnonzero(kinds == kind)
                parts.append(_Part(kind, table, chosen, rows[chosen]))

        def rendered(part: _Part) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            return self._render(part.kind, part.table, part.chosen, numbers[part.rows], wanted[part.rows])

        # Each on one thread: several round some functions otherwise where their shares of the numbers end.
        results = stream_on_cores(rendered, parts) if self.device.type == "cpu" else map(rendered, parts)
        for part, (seen, light, truth) in zip(parts, results, strict=True):
            images[part.rows] = seen.cpu().numpy()
            intrinsic |= zip(part.rows[wanted[part.rows]].tolist(), light.cpu().numpy(), strict=True)
            put({name: values.cpu().numpy() for name, values in truth.items()}, part.rows)
        columns = {name: values[:keep] for name, values in columns.items()}
        psf_fwhm, noise, flux = (columns.pop(name) for name in ("psf_fwhm", "noise", "flux"))
        magnitudes = {
            f"true_magnitude_{band.name}": AB_ZERO_POINT - 2.5 * np.log10(flux[:, place])
            for place, band in enumerate(bands)
        }
        side = size * self.oversampling
        return BandGalaxies(
            images[:keep],
            np.stack([intrinsic[row] for row in sorted(intrinsic)])
            if intrinsic
            else np.empty((0, len(bands), side, side), np.float32),
            np.array(sorted(intrinsic), np.int64),
            object_ids[:keep],
            morphologies[:keep].tolist(),
            psf_fwhm,
            noise,
            columns | magnitudes | {"pixel_scale": np.full(keep, self.frame.pixel_scale)},
        )

    def _draw(self, blocks: range, morphologies: np.ndarray, index: int) -> BandTable[np.ndarray]:
        """Draw the galaxies of one class in blocks."""
        streams = [np.random.default_rng([self.seed, block, index, len(self.frame.survey.bands)]) for block in blocks]
        rows = np.flatnonzero(morphologies == MORPHOLOGY_NAMES[index])
        counts = np.bincount(rows // BLOCK, minlength=len(streams)).tolist()
        return band_population.draw_blocks(MORPHOLOGY_NAMES[index], counts, streams, self.frame, self.chosen_by)

    def _render(
        self, kind: str, galaxies: BandTable[np.ndarray], chosen: np.ndarray, numbers: np.ndarray, wanted: np.ndarray
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return images (n, B, S, S) of galaxies of one kind, light of the wanted ones, and what only light tells."""
        p: BandTable[Tensor] = self._tensors(galaxies, chosen)
        pair = None
        if kind == WET_MERGER:
            draws = draw_particles([stream_of(self.seed, number) + 1 for number in numbers])
            given(p.structure.pair).particle_draws = draws.to(self.device)
            pair = meet(p)
        field = self._field
        light = draw_light(kind, p, self._grid, pair)
        centred = transformed(light, field, self._sersic)  # (n, B, W, W/2 + 1) complex
        reference = self.frame.reference
        truth = {
            "flux": light.flux,
            "true_half_light_radius": half_light_radius(centred[:, reference], field, self._grid),
        }
        if p.structure.pair is not None:  # which may outgrow the frame
            wide = Grid(self._grid.side, 2.5 * self._grid.pixel_scale)
            wide_field = FourierGrid(wide.side, wide.pixel_scale)
            source = transformed(draw_light(kind, p, wide, pair), wide_field, self._sersic)[:, reference]
            truth["true_half_light_radius"] = half_light_radius(source, wide_field, wide)
        if pair is not None:
            truth["true_axis_ratio"] = pair.axis_ratio[:, 0]
            truth["true_position_angle"] = torch.rad2deg(pair.position_angle[:, 0]).remainder(180)
        place = p.exposure.centre * self.frame.pixel_scale
        gathering = field.square() * field.shift(place[:, 0], place[:, 1])  # by the fine pixels
        source = centred * gathering[:, None]
        seen = source * Psf(p.exposure.psf_fwhm, self._profile).transfer(field)
        images = gathered(self._frame_of(field.image(seen)), self.oversampling)
        noise = Noise(p.exposure.sky_noise, self._photons)
        images = noisy(images, noise, self._normal(numbers, images.shape[1:]))
        kept = torch.from_numpy(wanted).to(self.device)
        return images, self._intrinsic(kind, changed(lambda column: column[kept], p), light.flux[kept]), truth

    def _intrinsic(self, kind: str, p: BandTable[Tensor], flux: Tensor) -> Tensor:
        """Return the light (t, B, k S, k S) of galaxies, of fluxes (t, B), as pixels gather it without a telescope.

        Cusps ring about pixels that are too coarse for them, which the telescope's blur hides in images and nothing
        hides here. So it is drawn on finer pixels and added up, and these gather twice, which takes most of the rest
        away (the sigma factors of Lanczos) and blurs by less than a sixth of a pixel. No light is below none.
        """
        inner = self.frame.image_size * self.oversampling
        count, bands = len(p.exposure.centre), len(self.frame.survey.bands)
        if not count:  # of which some libraries' transforms know nothing
            return torch.zeros(0, bands, inner, inner)
        side = self._grid.side * _FINER
        grid = Grid(side, self._grid.pixel_scale / _FINER)
        field = FourierGrid(side, grid.pixel_scale)
        margin = (side - inner * _FINER) // 2
        frame = slice(margin, margin + inner * _FINER)
        light = draw_light(kind, p, grid, meet(p) if kind == WET_MERGER else None)
        place = p.exposure.centre * self.frame.pixel_scale
        gathering = field.square().square() * field.shift(place[:, 0], place[:, 1])
        # Finer pixels find some tenths of a percent more or less in the middle of a disc.
        source = transformed(light, field, self._sersic) * gathering[:, None] * (flux / light.flux)[..., None, None]
        planes = gathered(field.image(source)[..., frame, frame], _FINER)
        kept = planes.clamp_min(0)
        return kept * (planes.sum((-1, -2), keepdim=True) / kept.sum((-1, -2), keepdim=True))

    def _frame_of(self, planes: Tensor) -> Tensor:
        """Cut the margin off."""
        inner = slice(self._margin, self._margin + self.frame.image_size * self.oversampling)
        return planes[..., inner, inner]

    def _normal(self, numbers: np.ndarray, shape: torch.Size) -> Tensor:
        """Return normal noise (n, B, S, S); every galaxy has its own stream, so that its batch does not matter."""
        if self.device.type == "cpu":
            streams = [torch.Generator().manual_seed(stream_of(self.seed, number)) for number in numbers]
            return torch.stack([torch.randn(*shape, generator=stream) for stream in streams])
        # A generator for each galaxy would take a GPU's host longer than all the rest.
        seeds = torch.from_numpy(numbers + (self.seed << 32)).to(self.device)
        return standard_normal(seeds, math.prod(shape)).view(-1, *shape)

    def _tensors(self, galaxies: BandTable[np.ndarray], chosen: np.ndarray) -> Any:
        """Return some galaxies' columns on the device, float32."""
        return changed(lambda v: torch.from_numpy(v[chosen]).to(self.device, torch.float32), galaxies)
