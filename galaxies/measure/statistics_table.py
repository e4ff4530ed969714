"""The table of all that is measured on an image, and one function that measures it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from galaxies.measure import photometry
from galaxies.measure.image_statistics import image_statistics

_BLOCK = 64  # images measured at a time


@dataclass(frozen=True)
class Statistic:
    """One measured number.

    Attributes
    ----------
    name, label, unit : str
        Key in the result of its source; name and unit for people.
    source : {"photometry", "image"}
        Function that measures it; photometry's are unknown where it finds no galaxy.
    display : bool
        Depends on the level of the display, so that it means nothing for data that is not display-stretched.
    """

    name: str
    label: str
    unit: str
    source: str
    display: bool = False


# A new statistic of a source takes one line here; the report, the statistics' feature space and `measure` follow.
# fmt: off
STATISTICS = (
    Statistic("size", "Half-light radius", "frame widths", "photometry"),
    Statistic("brightness", "Surface brightness", "display units", "photometry", True),
    Statistic("ellipticity", "Ellipticity", "", "photometry"),
    Statistic("concentration", "Concentration", "", "photometry"),
    Statistic("color", "Display color B - R", "mag", "photometry"),
    Statistic("petrosian_radius", "Petrosian radius", "frame widths", "photometry"),
    Statistic("asymmetry_corrected", "Asymmetry", "", "photometry"),
    Statistic("smoothness", "Smoothness", "", "photometry"),
    Statistic("gini", "Gini", "", "photometry"),
    Statistic("m20", "M20", "", "photometry"),
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
STATISTIC_NAMES = tuple(statistic.name for statistic in STATISTICS)


@dataclass(frozen=True)
class Measured:
    """Measurements of N images.

    Attributes
    ----------
    values : dict of str to ndarray, (N,), float64
        In the order of `STATISTICS`; NaN where photometry found no galaxy.
    flags : ndarray, (N,), int64
        Sum of `photometry.FLAG_BITS`.
    """

    values: dict[str, np.ndarray]
    flags: np.ndarray

    def table(self) -> np.ndarray:
        """Return the values as (N, statistics)."""
        return np.stack(list(self.values.values()), 1)


def measure_images(images: Tensor, device: torch.device | str = "cpu", title: str = "") -> Measured:
    """Measure every statistic of each image.

    Parameters
    ----------
    images : Tensor, (N, 3, S, S), uint8 or floating point in [0, 1]
        At least 64 pixels a side.
    device : torch.device
        Where to compute.
    title : str
        Beside a progress bar; none without one.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*STATISTIC_NAMES, "flag")}
    scale = 255 if images.dtype == torch.uint8 else 1
    with torch.inference_mode():
        for block in tqdm(images.split(_BLOCK), title, unit=" blocks", leave=False, disable=not title):
            shown = block.to(device).float() / scale
            galaxy, structure = photometry.measure_with_structure(shown)
            found = {"photometry": galaxy._asdict() | structure._asdict(), "image": image_statistics(shown)}
            parts["flag"].append(galaxy.flag.cpu().numpy())
            unseen = parts["flag"][-1] & photometry.NO_SOURCE > 0
            for statistic in STATISTICS:
                value = found[statistic.source][statistic.name].cpu().double().numpy()
                parts[statistic.name].append(np.where(unseen & (statistic.source == "photometry"), np.nan, value))
    values = {name: np.concatenate(blocks) for name, blocks in parts.items()}
    return Measured({name: values[name] for name in STATISTIC_NAMES}, values["flag"].astype(np.int64))
