"""A mock field at one depth: the images as they are on disk, or with new noise for another exposure time.

Noise of sky and photons is that of the survey: in nanojansky, sky noise falls as one over the square root of the
exposure, and the variance that light adds as one over it. It is drawn block by block from a seed, so that any part of
a field has the same noise however it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from galaxies.mock_field.field_folder import MockField

_BLOCK_PX = 256
_REFERENCE_DEPTH = 100.0  # times the exposure: a tenth of the noise


class ObservedField:
    """The images of a field after an exposure.

    Parameters
    ----------
    field : MockField
    exposure_s : float, optional
        Seconds in every band; by default each band's own, and the images of the folder.
    seed : int
        Of the new noise.

    Attributes
    ----------
    bands : tuple of str
    reference : int
        Place of the reference band, in which sources are detected.
    """

    def __init__(self, field: MockField, exposure_s: float | None = None, seed: int = 0) -> None:
        self.field = field
        self.exposure_s = exposure_s
        self.seed = seed
        self.bands = field.facts.band_names
        self.reference = self.bands.index(field.facts.reference_band)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.field.facts.shape

    @property
    def exposures(self) -> tuple[float, ...]:
        """Seconds, a band."""
        return tuple(band.exposure_s if self.exposure_s is None else self.exposure_s for band in self.field.facts.bands)

    def deepening(self, band: int) -> float:
        """Return by how much longer than in the folder a band is exposed; signal-to-noise ratios grow as its root."""
        return self.exposures[band] / self.field.facts.bands[band].exposure_s

    def read(self, band: int, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return a part (h, w) of a band's image and of the noise's standard deviation, float32, nJy a pixel."""
        name = self.bands[band]
        if self.exposure_s is None:
            image, noise = self.field.image(name), self.field.noise(name)
            return image[rows, columns].astype(np.float32), noise[rows, columns].astype(np.float32)
        light = self.field.noiseless(name)[rows, columns].astype(np.float32)
        noise = self._sigma(band, light, self.deepening(band))
        return light + noise * self._normal(band, rows, columns), noise

    def planes(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return all bands (B, h, w) of `read`."""
        images, noise = zip(*(self.read(band, rows, columns) for band in range(len(self.bands))), strict=True)
        return np.stack(images), np.stack(noise)

    def deep(self, band: int, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return what `read` does, with a hundred times the exposure that the folder's image had."""
        light = self.field.noiseless(self.bands[band])[rows, columns].astype(np.float32)
        noise = self._sigma(band, light, _REFERENCE_DEPTH)
        return light + noise * self._normal(band, rows, columns, 1), noise

    def _sigma(self, band: int, light: np.ndarray, longer: float) -> np.ndarray:
        facts = self.field.facts.bands[band]
        return np.sqrt((facts.sky_noise**2 + facts.photons * np.maximum(light, 0)) / longer).astype(np.float32)

    def _normal(self, band: int, rows: slice, columns: slice, kind: int = 0) -> np.ndarray:
        """Return normal numbers of a part; blocks of the field have a stream each."""
        exposure = 0 if self.exposure_s is None or kind else round(1000 * self.exposure_s)
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        for y in range(rows.start // _BLOCK_PX, -(-rows.stop // _BLOCK_PX)):
            for x in range(columns.start // _BLOCK_PX, -(-columns.stop // _BLOCK_PX)):
                stream = np.random.default_rng([self.seed, kind, exposure, band, y, x])
                block = stream.standard_normal((_BLOCK_PX, _BLOCK_PX), np.float32)
                first_y, first_x = y * _BLOCK_PX, x * _BLOCK_PX
                top, bottom = max(first_y, rows.start), min(first_y + _BLOCK_PX, rows.stop)
                left, right = max(first_x, columns.start), min(first_x + _BLOCK_PX, columns.stop)
                part = block[top - first_y : bottom - first_y, left - first_x : right - first_x]
                out[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = part
        return out
