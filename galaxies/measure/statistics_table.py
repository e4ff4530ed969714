"""The table of all that is measured on an image, and the one way to measure a batch of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from config_physics import PHOTOMETRIC_ATTRIBUTES
from galaxies.compute.cores import stream_on_cores
from galaxies.measure.arms import VISIBLE_ARMS
from galaxies.measure.photometry import NO_SOURCE, measure, measure_with_morphology, measure_with_structure
from galaxies.measure.power_spectrum import POWER_BANDS, band_power, power_spectrum
from galaxies.measure.sky import measure_noise, sky_level

_ROWS_ON_A_CORE = 1024  # of pixels that are measured at a time, 16 images of 64 pixels: what stays in a core's cache
_ROWS_ON_A_GPU = 65_536  # which is slower for small blocks; half a gigabyte for 64 pixels, two for 256
_COLORS = ("red", "green", "blue")  # of the planes, as the statistics are named after them


@dataclass(frozen=True)
class Statistic:
    """One measured number.

    Attributes
    ----------
    name, label, unit : str
        Field of the result of its source; name and unit for people.
    source : {"photometry", "structure", "morphology", "image"}
        What measures it: `Photometry`, `Structure`, `Arms` and `Mergers`, or `image_statistics`; all but the last are
        unknown where no galaxy was found.
    display : bool
        Depends on the level of the display, so that it means nothing for data that is not display-stretched.
    """

    name: str
    label: str
    unit: str
    source: str
    display: bool = False


# A new statistic of a source takes one line here; the report, the statistics' feature space and `evaluate.py measure`
# follow.
# fmt: off
STATISTICS = (
    Statistic("size", "Half-light radius", "frame widths", "photometry"),
    Statistic("brightness", "Surface brightness", "display units", "photometry", True),
    Statistic("ellipticity", "Ellipticity", "", "photometry"),
    Statistic("concentration", "Concentration", "", "photometry"),
    Statistic("color", "Display color B - R", "mag", "photometry"),
    Statistic("petrosian_radius", "Petrosian radius", "frame widths", "structure"),
    Statistic("asymmetry_corrected", "Asymmetry", "", "structure"),
    Statistic("smoothness", "Smoothness", "", "structure"),
    Statistic("gini", "Gini", "", "structure"),
    Statistic("m20", "M20", "", "structure"),
    Statistic("sky_red", "Sky, red", "display units", "image", True),
    Statistic("sky_green", "Sky, green", "display units", "image", True),
    Statistic("sky_blue", "Sky, blue", "display units", "image", True),
    Statistic("noise_red", "Noise, red", "display units", "image", True),
    Statistic("noise_green", "Noise, green", "display units", "image", True),
    Statistic("noise_blue", "Noise, blue", "display units", "image", True),
    Statistic("noise_correlation", "Noise correlation", "", "image"),
    Statistic("noise_grayness", "Noise grayness", "", "image"),
    Statistic("power_very_low", "Power, 1-2.8 cycles", "log10", "image", True),
    Statistic("power_low", "Power, 2.8-8 cycles", "log10", "image", True),
    Statistic("power_mid", "Power, 8-16 cycles", "log10", "image", True),
    Statistic("power_high", "Power, 16-32 cycles", "log10", "image", True),
)
# fmt: on
# What people see in galaxies. They are compared on their own: most pictures have neither arms nor a second nucleus.
MORPHOLOGY_STATISTICS = (
    Statistic("arm_strength", "Strength of arms", "", "morphology"),
    Statistic("arm_count", "Number of arms", "", "morphology"),
    Statistic("pitch", "Pitch of arms", "deg", "morphology"),
    Statistic("second_nucleus", "Second nucleus", "", "morphology"),
    Statistic("shape_asymmetry", "Shape asymmetry", "", "morphology"),
    Statistic("gini_m20_merger", "Gini-M20 of mergers", "", "morphology"),
)
_OF_ARMS = ("arm_count", "pitch")  # what means something where arms are visible
STATISTIC_NAMES = tuple(statistic.name for statistic in STATISTICS)
ATTRIBUTE_STATISTICS = tuple(statistic for statistic in STATISTICS if statistic.name in PHOTOMETRIC_ATTRIBUTES)
# Where a galaxy lies in its frame and how it is turned: for drawing on its picture, and no property of galaxies.
PLACE_STATISTICS = (
    Statistic("centroid_x", "Centroid, along rows", "frame widths", "photometry"),
    Statistic("centroid_y", "Centroid, down columns", "frame widths", "photometry"),
    Statistic("position_angle", "Position angle", "degrees", "photometry"),
)
PLACES = tuple(statistic.name for statistic in PLACE_STATISTICS)


@dataclass(frozen=True)
class Measured:
    """Measurements of N images.

    Attributes
    ----------
    values : dict of str to ndarray, (N,), float64
        By the names of the statistics, in their order; NaN where photometry found no galaxy.
    flags : ndarray, (N,), int64
        Sum of `photometry.FLAG_BITS`; without `NOT_CONVERGED` if no structure was measured.
    """

    values: dict[str, np.ndarray]
    flags: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Measured]) -> Measured:
        """Return the measurements of several sets of images, one after the other; at least one set."""
        values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
        return cls(values, np.concatenate([part.flags for part in parts]))

    @classmethod
    def of_columns(cls, columns: Tensor, statistics: Sequence[Statistic]) -> Measured:
        """Return what `measure_columns` found, columns (1 + statistics, N) on the CPU."""
        flag, *values = columns.double().numpy()
        flags = flag.astype(np.int64)
        unseen = flags & NO_SOURCE > 0
        return cls(
            {
                statistic.name: column if statistic.source == "image" else np.where(unseen, np.nan, column)
                for statistic, column in zip(statistics, values, strict=True)
            },
            flags,
        )

    def __len__(self) -> int:
        return len(self.flags)

    def of(self, row: int) -> Measured:
        """Return the measurements of one image, as arrays of one value."""
        only = slice(row, row + 1)
        return Measured({name: column[only] for name, column in self.values.items()}, self.flags[only])

    def table(self) -> np.ndarray:
        """Return the values as (N, statistics)."""
        return np.stack(list(self.values.values()), 1)


def measure_images(
    images: Tensor,
    device: torch.device | str = "cpu",
    title: str = "",
    statistics: Sequence[Statistic] = STATISTICS,
    counts: bool = False,
) -> Measured:
    """Measure statistics of each image; an image's values do not depend on those beside it.

    On a CPU blocks of images are spread over the cores, each measured by a single thread, so that the values do not
    depend on the number of cores either, nor the time on threads that wait for each other.

    Parameters
    ----------
    images : Tensor, (N, 3, S, S), uint8 or floating point in [0, 1]
        At least 64 pixels a side.
    device : torch.device
        Where to compute.
    title : str
        Beside a progress bar; none without one.
    statistics : sequence of Statistic
        Which; what only others need is not computed.
    counts : bool
        The images are counts as `level_counts` returns them.
    """
    measure_block = partial(_measured, device=torch.device(device), statistics=statistics, counts=counts)
    on_cores = torch.device(device).type == "cpu"
    rows = _ROWS_ON_A_CORE if on_cores else _ROWS_ON_A_GPU
    blocks = images.split(max(1, rows // images.shape[-1]))
    measured = stream_on_cores(measure_block, blocks) if on_cores else map(measure_block, blocks)
    return Measured.joined(
        list(tqdm(measured, title, total=len(blocks), unit=" blocks", leave=False, disable=not title))
    )


@torch.inference_mode()
def _measured(images: Tensor, device: torch.device, statistics: Sequence[Statistic], counts: bool) -> Measured:
    """Measure one block of images, as `measure_images` takes them."""
    # All in one copy, since each waits for a GPU.
    return Measured.of_columns(measure_columns(images.to(device), statistics, counts).cpu(), statistics)


def measure_columns(images: Tensor, statistics: Sequence[Statistic], counts: bool = False) -> Tensor:
    """Return photometry's flag and below it the statistics, (1 + statistics, N), float32, where the images are.

    Parameters are those of `measure_images`; a CUDA graph may record this.
    """
    scale = 255 if images.dtype == torch.uint8 else 1
    found = _found_on(images.float() / scale, {statistic.source for statistic in statistics}, counts)
    return torch.stack([found["flag"].float(), *(found[statistic.name] for statistic in statistics)])


def _found_on(images: Tensor, sources: set[str], counts: bool) -> dict[str, Tensor]:
    """Return what the sources find on images (N, 3, S, S) in [0, 1], and photometry's flag, by name."""
    if "morphology" in sources:
        galaxy, structure, arms, mergers = measure_with_morphology(images, counts=counts)
        found = galaxy._asdict() | structure._asdict() | arms._asdict() | mergers._asdict()
    elif "structure" in sources:
        galaxy, structure = measure_with_structure(images, counts=counts)
        found = galaxy._asdict() | structure._asdict()
    else:
        found = measure(images, counts=counts)._asdict()
    return found | image_statistics(images) if "image" in sources else found


def of_visible_arms(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return statistics (N,) with NaN for the number and the pitch of arms where none are visible."""
    visible = values["arm_strength"] > VISIBLE_ARMS
    return values | {name: np.where(visible, values[name], np.nan) for name in _OF_ARMS}


def measure_attributes(images: np.ndarray, device: torch.device | str = "cpu") -> dict[str, np.ndarray]:
    """Measure the attributes of photometry on pictures, as a catalogue holds them.

    Parameters
    ----------
    images : ndarray, (N, 3, S, S), uint8
    device : torch.device
        Where to compute.

    Returns
    -------
    dict of str to ndarray, (N,), float64
        One entry for each of `PHOTOMETRIC_ATTRIBUTES`; NaN where no galaxy was found.
    """
    return measure_images(torch.from_numpy(images), device, statistics=ATTRIBUTE_STATISTICS).values


def image_statistics(images: Tensor) -> dict[str, Tensor]:
    """Return the statistics of each image that photometry leaves out: its sky, noise and structure on every scale.

    The pictures are asinh-stretched composites, so levels and noise are in display units (0 to 1), not in counts.

    Parameters
    ----------
    images : Tensor, (N, 3, S, S), floating point in [0, 1]

    Returns
    -------
    dict of Tensor, (N,)
        ``sky_red``, ``sky_green``, ``sky_blue``: see `sky_level`.
        ``noise_red``, ``noise_green``, ``noise_blue``, ``noise_correlation``, ``noise_grayness``: see `Noise`.
        ``power_very_low``, ``power_low``, ``power_mid``, ``power_high``: see `band_power`.
        Always finite, also for blank frames.
    """
    statistics: dict[str, Tensor] = {}
    noise = measure_noise(images)
    for name, planes in (("sky", sky_level(images)), ("noise", noise.level)):
        statistics |= {f"{name}_{color}": planes[:, i] for i, color in enumerate(_COLORS)}
    statistics |= {"noise_correlation": noise.correlation, "noise_grayness": noise.grayness}
    bands = band_power(power_spectrum(images))
    return statistics | {f"power_{name}": bands[:, i] for i, name in enumerate(POWER_BANDS)}


def diversity(images: Tensor) -> float:
    """Return how much images (N, 3, S, S) uint8 vary: the mean distance of pairs after pooling to 16 x 16.

    In display units times the root of the number of values, 768; NaN for fewer than two images.
    """
    small = F.adaptive_avg_pool2d(images.float() / 255, 16).flatten(1)
    return float(torch.pdist(small).mean()) if len(images) > 1 else math.nan
