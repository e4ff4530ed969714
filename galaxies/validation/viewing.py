"""How validation looks at images: display pictures as they are, flux in units of its noise, stretched, or as pictures.

Everything that compares images asks a `Viewer` for them, so that no comparison has to know what a pixel is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from config_physics import attribute_of
from galaxies.compute.cores import stream_on_cores
from galaxies.datasets.layout import DISPLAY, DataLayout
from galaxies.datasets.prepared import PreparedDataset
from galaxies.images.composites import LuptonComposite
from galaxies.images.stretch import NOISE_SOFTENING, AsinhStretch
from galaxies.measure import photometry
from galaxies.measure.flux import flux_attributes, measure_flux
from galaxies.measure.flux_morphology import measure_flux_morphology
from galaxies.measure.statistics_table import MORPHOLOGY_STATISTICS, STATISTICS, Measured, Statistic, measure_images
from galaxies.measure.with_statmorph import read_flux_with_statmorph, read_with_statmorph

_PIXELS_ON_A_CORE, _PIXELS_ON_A_GPU = 2**16, 2**22  # of flux, that are measured at a time


class Viewer:
    """A way to look at the images of one layout.

    Parameters
    ----------
    layout : DataLayout
    softening : sequence of float, B
        Of flux, nJy a pixel; see `galaxies.images.stretch`.
    pixel_scale : float
        Of flux, arcsec.
    psf_fwhm : sequence of float, B
        Of flux: usual full widths of the PSFs as photometry takes them, arcsec, 0 or NaN where unknown.

    Attributes
    ----------
    statistics : tuple of Statistic
        What the distributions of images are compared by.
    flag_bits : dict of int to str
        Of measurements.
    """

    def __init__(
        self,
        layout: DataLayout,
        softening: tuple[float, ...] = (),
        pixel_scale: float = 0.0,
        psf_fwhm: tuple[float, ...] = (),
    ) -> None:
        self.layout = layout
        self._softening, self._pixel_scale, self._psf_fwhm = softening, pixel_scale, psf_fwhm
        self.statistics = statistics_of(layout.kind, layout.band_names)
        self.flag_bits: dict[int, str] = photometry.LIGHT_FLAG_BITS if layout.is_flux else photometry.FLAG_BITS

    @classmethod
    def of_dataset(cls, data: PreparedDataset) -> Viewer:
        """Return how to look at the images of a dataset, and at those that are compared with them."""
        if not data.layout.is_flux:
            return cls(data.layout)
        told = data.settings(())
        return cls(data.layout, told["softening"], told["pixel_scale"], data.seen_widths("train"))

    @property
    def softening(self) -> Tensor:
        """Of flux, (B,) float32, nJy a pixel."""
        return torch.tensor(self._softening, dtype=torch.float32)

    def linear(self, images: Tensor) -> Tensor:
        """Return images (N, B, S, S), float32, for arithmetic: display values 0 to 1, or flux in units of softening."""
        if self.layout.is_flux:
            return images.float() / self.softening.to(images.device)[:, None, None]
        return images.float() / 255 if images.dtype == torch.uint8 else images.float()

    def shades(self, images: Tensor) -> Tensor:
        """Return images (N, B, S, S), float32, as they look: display values 0 to 1; stretched flux, the sky at 0."""
        if not self.layout.is_flux:
            return self.linear(images)
        return (AsinhStretch(self.softening.to(images.device))(images.float()) + 1) / 2

    def levels(self, images: Tensor) -> Tensor:
        """Return the same in grey levels, 0 to 255."""
        return 255 * self.shades(images) if self.layout.is_flux or images.dtype != torch.uint8 else images.float()

    def stored(self, images: Tensor) -> Tensor:
        """Return images in the unit of stored ones as stored ones are: of a display rounded to whole levels."""
        return images if self.layout.is_flux else images.round().clamp(0, 255).to(torch.uint8)

    @property
    def noise_unit(self) -> Tensor:
        """What damages by noise are counted in, (B, 1, 1): the range of a display, or the typical noise of a band."""
        if self.layout.is_flux:
            return self.softening[:, None, None] / NOISE_SOFTENING
        return torch.tensor(255.0)

    def lifted(self, images: Tensor) -> Tensor:
        """Return the same with the faint sky and its noise lifted, where much of what tells images apart is."""
        return self.shades(images) if self.layout.is_flux else self.linear(images).sqrt()

    def pictures(self, images: Tensor) -> Tensor:
        """Return pictures for people (N, 3, S, S) uint8: of flux, composites after Lupton et al. (2004)."""
        if not self.layout.is_flux:
            return images
        noise = [softening / NOISE_SOFTENING for softening in self._softening]
        return LuptonComposite(self.layout.band_names, noise)(images)

    def measure(
        self, images: Tensor, device: torch.device | str = "cpu", title: str = "", morphology: bool = False
    ) -> Measured:
        """Measure the statistics of images (N, B, S, S) as stored, and of flux all that photometry reads.

        With `morphology` those of arms and mergers as well.

        Real and generated flux is measured alike: noise is taken from the corners of the frames, and sizes and shapes
        are those before a PSF of the typical widths.
        """
        if not self.layout.is_flux:
            return measure_images(images, device, title, (*STATISTICS, *(MORPHOLOGY_STATISTICS if morphology else ())))
        device = torch.device(device)
        on_cores = device.type == "cpu"
        together = (_PIXELS_ON_A_CORE if on_cores else _PIXELS_ON_A_GPU) // images.shape[-1] ** 2
        blocks = images.split(max(1, together))
        measure_block = partial(self._measured, device=device, morphology=morphology)
        measured = stream_on_cores(measure_block, blocks) if on_cores else map(measure_block, blocks)
        return Measured.joined(
            list(tqdm(measured, title, total=len(blocks), unit=" blocks", leave=False, disable=not title))
        )

    @torch.inference_mode()
    def _measured(self, images: Tensor, device: torch.device, morphology: bool) -> Measured:
        bands = self.layout.band_names
        widths = [width if width > 0 else torch.nan for width in self._psf_fwhm]
        blur = torch.tensor([widths], device=device).expand(len(images), -1)
        found = measure_flux(images.to(device).float(), self._pixel_scale, psf_fwhm=blur, structure=True)
        values: dict[str, np.ndarray] = {}
        for name in flux_attributes(bands):
            value = torch.where(found.known(name, bands), found.attribute(name, bands), torch.nan)
            values[name] = value.cpu().double().numpy()
        for band, noise in zip(bands, found.noise.cpu().double().numpy().T, strict=True):
            values[f"noise_{band}"] = noise
        if morphology:
            seen = measure_flux_morphology(images.to(device).float()).cpu()
            values |= Measured.of_columns(seen, MORPHOLOGY_STATISTICS).values
        return Measured(values, found.flag.cpu().numpy())

    def statmorph(self, images: Tensor, title: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Measure images (N, B, S, S), as stored, with statmorph: {attribute: values (N,)}, and its flags (N,)."""
        if not self.layout.is_flux:
            return read_with_statmorph(images, title)
        noise, widths = self.softening / NOISE_SOFTENING, torch.tensor(self._psf_fwhm).nan_to_num(0.0)
        return read_flux_with_statmorph(images, noise, self._pixel_scale, widths, title)

    def read(self, measured: Measured, name: str) -> np.ndarray | None:
        """Return the measured values (N,) of an attribute in physical units, None if photometry does not read it."""
        if name in measured.values:
            return measured.values[name]
        if name.startswith("color_"):  # asked for the other way round
            first, second = name.removeprefix("color_").split("_")
            turned = measured.values.get(f"color_{second}_{first}")
            return None if turned is None else -turned
        return None

    def table(self, measured: Measured) -> np.ndarray:
        """Return measured values of the statistics (N, statistics), NaN where unknown."""
        return np.stack([measured.values[statistic.name] for statistic in self.statistics], 1)


def statistics_of(kind: str, bands: Sequence[str]) -> tuple[Statistic, ...]:
    """Return what the distributions of images of a kind are compared by.

    Of flux, colors are those of neighbouring bands, of which all others are sums.
    """
    if kind == "display":
        return STATISTICS
    neighbours = {f"color_{one}_{other}" for one, other in itertools.pairwise(bands)}
    names = [name for name in flux_attributes(tuple(bands)) if not name.startswith("color_") or name in neighbours]
    rows = [row for name in names if (row := attribute_of(name)) is not None]
    return (
        *(Statistic(row.name, row.label, row.unit, "flux") for row in rows),
        *(Statistic(f"noise_{band}", f"Noise, {band}", "nJy", "flux") for band in bands),
    )


DISPLAY_VIEWER = Viewer(DISPLAY)
