"""Paint a cell of a field: who is in it, what light they have, and what the telescope makes of it, without noise.

The sky is cut into cells of `CELL_ARCSEC`, whatever observes it. What is in a cell depends on the seed and its place
alone, so that another telescope sees the same sky, and any number of processes paint the same. A cell's sources are
rendered together, in an order of their own, and its picture reaches beyond it as far as its sources do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from config_physics import AB_ZERO_POINT
from galaxies.mock_field.clustering import Clusters
from galaxies.mock_field.counts import CatalogueCounts, DeepCounts, star_magnitudes
from galaxies.mock_field.field_folder import GALAXY, STAR, FieldFacts, truth_dtype
from galaxies.mock_field.sources import LightSource, Requests, draw_classes
from galaxies.telescope.psf import Psf
from galaxies.telescope.waves import from_waves, moved, to_waves

CELL_ARCSEC = 64.0
WINGS = 8.0  # widths of the PSF about a source's light that are painted, at least
_EDGE = 0.1  # of the sky's noise, to which the wings of the PSF have fallen where they are cut off
_STAMPS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2304)
_MARGIN = 1.25  # of a stamp, after which waves come round
_PASSES = 1e-6  # of a wave of light, from which on the telescope lets it pass
_HIGHEST = 16.0  # cycles in a PSF's full width, beyond which nothing passes
_TOGETHER = 1 << 18  # pixels of light in all bands that are blurred at a time: as many as a cache holds
_STEPS = 4  # of the pixels of light, in a factor of two
_STAR_FINER = 4  # of a star, pixels over those of its light
_TEMPERATURES = (3500.0, 8000.0)  # of stars, kelvin
_HC_OVER_K = 1.438776877e7  # nm K


@dataclass(frozen=True)
class Sky:
    """What a field shows: everything that its light depends on; other processes are handed it.

    Attributes
    ----------
    facts : FieldFacts
    psf_text : str
        Shape of the PSF, see `Psf.named`.
    obscuration : float
        Of a mirror, for `airy`.
    source : LightSource
    counts : DeepCounts or CatalogueCounts
    stars_per_arcmin2 : float
    clusters : Clusters, optional
        In which galaxies lie; without, they lie at random.
    """

    facts: FieldFacts
    psf_text: str
    obscuration: float
    source: LightSource
    counts: DeepCounts | CatalogueCounts
    stars_per_arcmin2: float
    clusters: Clusters | None = None

    @property
    def reference(self) -> int:
        """The place of the reference band."""
        return self.facts.band_names.index(self.facts.reference_band)

    @property
    def cells(self) -> tuple[int, int]:
        """Cells down and along the field."""
        scale = self.facts.pixel_scale
        return tuple(math.ceil(size * scale / CELL_ARCSEC) for size in self.facts.shape)  # type: ignore[return-value]

    def psf(self) -> Psf:
        """Return the point-spread functions of the bands, (1, B)."""
        return Psf.named(torch.tensor([[b.psf_fwhm for b in self.facts.bands]]), self.psf_text, self.obscuration)


@dataclass(frozen=True)
class Picture:
    """A painted cell.

    light, (B, h, w), float32, nanojansky, from pixel (row, column) of the field on; brightest and owner, (h, w): the
    most light of one source in the reference band, and its id in the cell, from 1; truth, structured rows with the same
    ids; replaced, how many galaxies are drawn otherwise than asked for, by what is said of them.
    """

    row: int
    column: int
    light: np.ndarray
    brightest: np.ndarray
    owner: np.ndarray
    truth: np.ndarray
    replaced: dict[str, int]


def catalogue_of(sky: Sky, cell: tuple[int, int]) -> np.ndarray:
    """Return rows of the truth table of a cell: places, kinds, wanted magnitude, size and redshift of its sources.

    Ids count from 1. The magnitude in the reference band, size and redshift are what is asked for; painting replaces
    them by what was drawn, and fills in the rest.
    """
    return sources_in(cell, sky.facts, sky.counts, sky.source.parts, sky.stars_per_arcmin2, sky.clusters)


def sources_in(
    cell: tuple[int, int],
    facts: FieldFacts,
    counts: DeepCounts | CatalogueCounts,
    parts: Mapping[str, float],
    stars_per_arcmin2: float = 0.0,
    clusters: Clusters | None = None,
) -> np.ndarray:
    """Do as `catalogue_of`, of a sky that is told by its parts; `parts` are those of `LightSource`."""
    rng = np.random.default_rng([facts.seed, *cell])
    area = CELL_ARCSEC**2 / 3600
    numbers = [rng.poisson(rate * area) for rate in (counts.per_arcmin2, stars_per_arcmin2)]
    clustered = None
    if clusters is not None:
        clustered = clusters.places(facts.seed, cell, CELL_ARCSEC, rng)
        numbers[0] = len(clustered)
    rows = np.zeros(sum(numbers), truth_dtype(facts.band_names))
    drawn = counts.draw(numbers[0], rng)
    galaxies, stars = slice(0, numbers[0]), slice(numbers[0], None)
    name = f"magnitude_{facts.reference_band}"
    rows["kind"][galaxies], rows["kind"][stars] = GALAXY, STAR
    rows["morphology"][galaxies] = draw_classes(parts, numbers[0], rng)
    rows[name][galaxies], rows["size_arcsec"][galaxies] = drawn.magnitude, drawn.radius
    rows["redshift"][galaxies], rows["redshift"][stars] = drawn.redshift, np.nan
    rows[name][stars] = star_magnitudes(numbers[1], counts.faintest, rng)
    corner = np.array([cell[1], cell[0]])
    place = (rng.random((len(rows), 2)) + corner) * CELL_ARCSEC
    if clustered is not None:
        place[galaxies] = clustered
    rows["x"], rows["y"] = place.T / facts.pixel_scale - 0.5
    rows["seed"] = rng.integers(0, 2**62, len(rows))
    rows = rows[(rows["x"] < facts.width_px - 0.5) & (rows["y"] < facts.height_px - 0.5)]
    rows["id"] = 1 + np.arange(len(rows))
    return rows


def wanted_of(sky: Sky, galaxies: np.ndarray) -> Requests:
    """Return what rows of a table that `catalogue_of` made, of galaxies all, ask the source for."""
    return Requests(
        galaxies[f"magnitude_{sky.facts.reference_band}"],
        galaxies["size_arcsec"],
        galaxies["redshift"],
        galaxies["morphology"].astype("U16"),
        galaxies["seed"],
    )


@torch.no_grad()
def paint(sky: Sky, cell: tuple[int, int]) -> Picture:
    """Paint a cell."""
    truth = catalogue_of(sky, cell)
    replaced = sky.source.replaced(wanted_of(sky, truth[truth["kind"] == GALAXY.encode()]))
    stamps = stamps_of(sky, truth)
    low = np.array([stamp[1:3] for stamp in stamps] or [(0, 0)]).min(0)
    high = np.array([(r + s.shape[-1], c + s.shape[-1]) for _, r, c, s in stamps] or [(0, 0)]).max(0)
    low, high = np.maximum(low, 0), np.minimum(high, sky.facts.shape)
    shape = tuple(np.maximum(high - low, 0).tolist())
    light = np.zeros((len(sky.facts.bands), *shape), np.float32)
    brightest, owner = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    noise = np.array([b.sky_noise for b in sky.facts.bands], np.float64)[:, None, None]
    photons = np.array([b.photons for b in sky.facts.bands], np.float64)[:, None, None]
    for index, row, column, stamp in stamps:
        side = stamp.shape[-1]
        snr = np.sqrt((stamp.astype(np.float64) ** 2 / (noise**2 + photons * stamp.clip(0))).sum((1, 2)))
        for name, value in zip(sky.facts.band_names, snr, strict=True):
            truth[f"snr_{name}"][index] = value
        rows = slice(max(row, low[0]), min(row + side, high[0]))
        columns = slice(max(column, low[1]), min(column + side, high[1]))
        part = stamp[:, rows.start - row : rows.stop - row, columns.start - column : columns.stop - column]
        here = (slice(rows.start - low[0], rows.stop - low[0]), slice(columns.start - low[1], columns.stop - low[1]))
        light[:, here[0], here[1]] += part
        more = part[sky.reference] > brightest[here]
        brightest[here] = np.where(more, part[sky.reference], brightest[here])
        owner[here] = np.where(more, truth["id"][index], owner[here])
    return Picture(int(low[0]), int(low[1]), light, brightest, owner, truth, replaced)


def stamps_of(sky: Sky, truth: np.ndarray) -> list[tuple[int, int, int, np.ndarray]]:
    """Return what a telescope sees of the sources of a table that `catalogue_of` made, which is filled in.

    Of each, in order: its place in the table, the field's row and column of its stamp's first pixel, and the stamp.
    """
    return sorted([*_galaxies(sky, truth), *_stars(sky, truth)], key=lambda stamp: stamp[0])


def _galaxies(sky: Sky, truth: np.ndarray) -> list[tuple[int, int, int, np.ndarray]]:
    indices = np.flatnonzero(truth["kind"] == GALAXY.encode())
    if not len(indices):
        return []
    stamps = []
    for group in sky.source.draw(wanted_of(sky, truth[indices])):
        here = indices[group.rows]
        truth["redshift"][here] = group.redshift
        flux = group.images.double().sum((-1, -2)).numpy()
        for place, name in enumerate(sky.facts.band_names):
            truth[f"magnitude_{name}"][here] = AB_ZERO_POINT - 2.5 * np.log10(flux[:, place].clip(1e-30))
        for name, values in shapes_of(group.images[:, sky.reference].double(), group.pixel_scale.double()).items():
            truth[name][here] = values.numpy()
        stamps += _stamps(sky, group.images, group.pixel_scale, truth, here)
    return stamps


def _stars(sky: Sky, truth: np.ndarray) -> list[tuple[int, int, int, np.ndarray]]:
    indices = np.flatnonzero(truth["kind"] == STAR.encode())
    if not len(indices):
        return []
    facts = sky.facts
    for name in ("ellipticity", "position_angle"):
        truth[name][indices] = np.nan
    temperature = np.array([np.random.default_rng(int(s)).uniform(*_TEMPERATURES) for s in truth["seed"][indices]])
    wavelength = np.array([band.wavelength_nm for band in facts.bands])
    # Planck's law a unit of frequency.
    shine = 1 / wavelength**3 / np.expm1(_HC_OVER_K / (wavelength * temperature[:, None]))
    magnitude = truth[f"magnitude_{facts.reference_band}"][indices]
    flux = 10 ** (0.4 * (AB_ZERO_POINT - magnitude))[:, None] * shine / shine[:, [sky.reference]]
    for place, name in enumerate(facts.band_names):
        truth[f"magnitude_{name}"][indices] = AB_ZERO_POINT - 2.5 * np.log10(flux[:, place])
    light = torch.from_numpy(flux).float()[..., None, None]
    scale = torch.full((len(indices),), facts.pixel_scale / _STAR_FINER)
    return _stamps(sky, light, scale, truth, indices, points=True)


def _stamps(
    sky: Sky, light: Tensor, light_scale: Tensor, truth: np.ndarray, indices: np.ndarray, points: bool = False
) -> list[tuple[int, int, int, np.ndarray]]:
    """Return for each source its index, the field's row and column of its stamp's first pixel, and the stamp."""
    scale, psf = sky.facts.pixel_scale, sky.psf()
    wings, highest = reach(sky, light.sum((2, 3))), passband(psf)
    needed = (light.shape[-1] * light_scale.double().numpy() + 2 * wings) / scale + 2
    found: list[tuple[int, int, int, np.ndarray]] = []
    sides = np.array([next((s for s in _STAMPS if s >= n), _STAMPS[-1]) for n in needed])
    # Together go those of like pixels: the period follows from the finest, and how many waves pass from the coarsest.
    scales = np.floor(_STEPS * np.log2(light_scale.double().numpy())).astype(int)
    for side, step in sorted(set(zip(sides.tolist(), scales.tolist(), strict=True))):
        chosen = np.flatnonzero((sides == side) & (scales == step))
        ratio = scale / light_scale[chosen]
        period = math.ceil(_MARGIN * max(light.shape[-1], float(side * ratio.max()))) | 1
        passing = highest * float(light_scale[chosen].max())  # cycles a pixel of the light
        waves = min((period + 1) // 2, max(2, math.ceil(passing * period)))
        each = max(1, _TOGETHER // (light.shape[1] * max(2 * waves, side, light.shape[-1]) ** 2))
        for part in np.split(chosen, range(each, len(chosen), each)):
            x, y = truth["x"][indices[part]], truth["y"][indices[part]]
            # The stamp's middle lies between its middle pixels.
            column = np.floor(x).astype(int) - side // 2 + 1
            row = np.floor(y).astype(int) - side // 2 + 1
            move = np.stack([x - column - (side - 1) / 2, y - row - (side - 1) / 2], 1)
            by = torch.from_numpy(move).float() * (scale / light_scale[part])[:, None]  # pixels of the light
            seen = observed_at(light[part], light_scale[part], scale, side, period, psf, by, points, waves)
            found += zip(indices[part].tolist(), row.tolist(), column.tolist(), seen.numpy(), strict=True)
    return found


def reach(sky: Sky, flux: Tensor) -> np.ndarray:
    """Return how far beyond its light a source of a flux (N, B) is painted, (N,), arcseconds: no edge is to be seen."""
    bands = sky.facts.bands
    width = torch.tensor([band.psf_fwhm for band in bands]).double()
    noise = torch.tensor([band.sky_noise for band in bands]).double()
    faint = _EDGE * noise * (width / sky.facts.pixel_scale) ** 2  # nanojansky a square width
    wings = sky.psf().profile.reach(faint / flux.double().clamp_min(1e-30))
    return ((wings.clamp_min(WINGS) * width).amax(1)).numpy()


def passband(psf: Psf) -> float:
    """Return the frequency, cycles an arcsecond, beyond which less than a millionth of light passes any of the PSFs."""
    cycles = torch.arange(0, _HIGHEST, 1 / 64, dtype=torch.float64)  # in a full width
    passes = psf.profile(cycles.square(), torch.ones(1, dtype=torch.float64)).abs() > _PASSES
    return float(cycles[passes].max() + 1 / 64) / float(psf.fwhm.min())


def observed_at(
    light: Tensor,
    light_scale: Tensor,
    pixel_scale: float,
    side: int,
    period: int,
    psf: Psf,
    by: Tensor,
    points: bool = False,
    waves: int | None = None,
) -> Tensor:
    """Return what pixels gather of light (N, B, L, L) that is moved from the middle of the stamp, (N, B, side, side).

    `by`, (N, 2), x and y in pixels of the light; `period`, an odd number of these, after which waves come round. With
    `points` the light of a pixel lies in its middle, and is not spread over it. Of the `waves`, of frequencies 0,
    1 / period, ..., none are left out by default.
    """
    frequencies = torch.arange(waves or (period + 1) // 2, dtype=light.dtype) / period
    ratio = pixel_scale / light_scale
    parts = to_waves(light, frequencies)
    if points:  # `from_waves` takes it that pixels of light have gathered it
        once = torch.sinc(frequencies)
        parts = [part * once[:, None] * once for part in parts]
    parts = psf.applied(parts, frequencies, light_scale, ratio)
    return from_waves(moved(parts, frequencies, by), frequencies, period, side, ratio)


def shapes_of(images: Tensor, pixel_scale: Tensor) -> dict[str, Tensor]:
    """Return half-light radius (arcseconds, of the circle about the centroid), ellipticity and position angle.

    Images are (N, L, L), without noise, float64.
    """
    axis = torch.arange(images.shape[-1], dtype=images.dtype) - (images.shape[-1] - 1) / 2
    total = images.sum((1, 2))
    x0, y0 = (images.sum(1) @ axis) / total, (images.sum(2) @ axis) / total
    x, y = axis - x0[:, None], axis - y0[:, None]  # (N, L) each
    xx = (images.sum(1) * x.square()).sum(1) / total
    yy = (images.sum(2) * y.square()).sum(1) / total
    xy = ((images * x[:, None, :]).sum(2) * y).sum(1) / total
    middle, spread = (xx + yy) / 2, (((xx - yy) / 2).square() + xy.square()).sqrt()
    ratio = ((middle - spread).clamp_min(0) / (middle + spread)).sqrt()
    distance = (x[:, None, :].square() + y[:, :, None].square()).sqrt()
    low, high = torch.zeros_like(total), torch.full_like(total, images.shape[-1])
    for _ in range(20):
        radius = (low + high) / 2
        # A pixel on the rim counts by how far the circle reaches into it.
        inside = (images * (radius[:, None, None] - distance + 0.5).clamp(0, 1)).sum((1, 2))
        low, high = torch.where(inside < total / 2, radius, low), torch.where(inside < total / 2, high, radius)
    return {
        "size_arcsec": (low + high) / 2 * pixel_scale,
        "ellipticity": 1 - ratio,
        "position_angle": torch.rad2deg(0.5 * torch.atan2(2 * xy, xx - yy)) % 180,
    }
