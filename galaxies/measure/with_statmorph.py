"""Half-light radius, ellipticity and concentration by statmorph: other code than ours, and none that trains.

References
----------
Rodriguez-Gomez et al. 2019, MNRAS 483, 4140 (statmorph).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

READS = ("size", "ellipticity", "concentration")
_DETECTION_SIGMA = 2.0


def read_with_statmorph(images: Tensor, title: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Measure the central galaxy of each image with statmorph, at about 5 images a second.

    Parameters
    ----------
    images : Tensor, (N, 3, S, S), uint8
        The mean of the planes is measured, above the level of the sky in the frame's corners: a plain median, and no
        function of ours, so that a fault in `sky` shows. No point spread function is given: it is not known, and only
        the Sersic fit, which is not read, would use one.
    title : str
        Beside the progress bar.

    Returns
    -------
    values : dict of str to ndarray, (N,), float64
        ``size``, the radius of the circle with half of the light, in frame widths; ``ellipticity``, 1 - b/a from
        second moments; ``concentration``. NaN where statmorph finds no galaxy.
    flags : ndarray, (N,), int64
        statmorph's own: 0 good, 1 suspicious, 2 and more bad, 4 no galaxy found.
    """
    values = {name: np.full(len(images), np.nan) for name in READS}
    flags = np.full(len(images), 4, dtype=np.int64)
    for k in tqdm(range(len(images)), title, unit="img", leave=False):
        light = images[k].double().mean(0).numpy() / 255
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what statmorph warns of, its flag says
            found = _read(light)
        if found is not None:
            flags[k] = found.flag
            if found.flag < 2:
                values["size"][k] = found.rhalf_circ / len(light)
                values["ellipticity"][k] = found.ellipticity_asymmetry
                values["concentration"][k] = found.concentration
    for name in READS:
        values[name][values[name] <= -99] = np.nan  # statmorph's mark for a value that could not be computed
    return values, flags


def _read(light: np.ndarray) -> Any:
    """Return statmorph's measurements of the source nearest to the centre, or None where there is none."""
    import statmorph
    from photutils.segmentation import detect_sources
    from scipy.ndimage import gaussian_filter

    side = len(light)
    axis = np.arange(side) - (side - 1) / 2
    corners = np.hypot(axis[:, None], axis) > side / 2
    sky = float(np.median(light[corners]))
    below = light[corners & (light <= sky)]
    noise = max(float(np.sqrt(((below - sky) ** 2).mean())), 0.2 / 255)
    smoothed = gaussian_filter(light - sky, side / 64)
    segments = detect_sources(smoothed, _DETECTION_SIGMA * noise, max(9, side**2 // 400))
    if segments is None:
        return None
    distance = np.where(segments.data > 0, np.hypot(axis[:, None], axis), np.inf)
    nearest = np.unravel_index(distance.argmin(), distance.shape)
    if distance[nearest] > 0.1 * side:
        return None
    label = segments.data[nearest]
    mask = (segments.data > 0) & (segments.data != label)
    source = (segments.data == label).astype(int)
    try:
        (found,) = statmorph.source_morphology(light - sky, source, mask=mask, weightmap=np.full(light.shape, noise))
    except Exception:  # statmorph ends in many ways on a shape it does not expect; such a galaxy is unmeasured
        return None
    return found
