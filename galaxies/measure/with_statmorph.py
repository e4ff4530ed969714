"""Half-light radius, ellipticity and concentration by statmorph: other code than ours, and none that trains.

References
----------
Rodriguez-Gomez et al. 2019, MNRAS 483, 4140 (statmorph).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

READS = ("size", "ellipticity", "concentration")
READS_OF_FLUX = (
    "size_arcsec",
    "petrosian_radius_arcsec",
    "ellipticity",
    "concentration",
    "asymmetry",
    "gini",
    "m20",
)
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
    found, flags = _read_all((image.double().mean(0).numpy() / 255 for image in images), len(images), title)
    values = {"size": found["rhalf_circ"] / images.shape[-1]}
    values |= {"ellipticity": found["ellipticity_asymmetry"], "concentration": found["concentration"]}
    return values, flags


def read_flux_with_statmorph(
    images: Tensor, noise: Tensor, pixel_scale: float, psf_fwhm: Tensor, title: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Measure the central galaxy of each image of flux with statmorph.

    Parameters
    ----------
    images : Tensor, (N, B, S, S), float32, nJy a pixel
        The mean of the planes, weighted by their inverse variance, is measured, as above.
    noise : Tensor, (B,)
        Typical standard deviation of a pixel, nJy.
    pixel_scale : float
        Arcsec.
    psf_fwhm : Tensor, (B,)
        Typical full widths at half maximum of the PSF, arcsec, 0 where unknown.
    title : str
        Beside the progress bar.

    Returns
    -------
    values : dict of str to ndarray, (N,), float64
        `READS_OF_FLUX`. statmorph knows of no PSF outside of its fit: half of the width is taken off the half-light
        radius in quadrature, which is exact for Gaussians; all else is as observed.
    flags : ndarray, (N,), int64
        As above.
    """
    weights = noise.double() ** -2
    weights = weights / weights.sum().sqrt()  # so that the noise of the sum is 1
    lights = ((image.double() * weights[:, None, None]).sum(0).numpy() for image in images)
    found, flags = _read_all(lights, len(images), title)
    half = 0.5 * float((weights * psf_fwhm.double()).sum() / weights.sum())
    radius = found["rhalf_circ"] * pixel_scale
    values = {
        "size_arcsec": np.sqrt(np.maximum(radius**2 - half**2, (0.1 * radius) ** 2)),
        "petrosian_radius_arcsec": found["rpetro_circ"] * pixel_scale,
        "ellipticity": found["ellipticity_asymmetry"],
    }
    return values | {name: found[name] for name in ("concentration", "asymmetry", "gini", "m20")}, flags


_QUANTITIES = ("rhalf_circ", "rpetro_circ", "ellipticity_asymmetry", "concentration", "asymmetry", "gini", "m20")


def _read_all(lights: Iterable[np.ndarray], count: int, title: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return statmorph's quantities, pixels, and flags of so many images (S, S)."""
    values = {name: np.full(count, np.nan) for name in _QUANTITIES}
    flags = np.full(count, 4, dtype=np.int64)
    for k, light in enumerate(tqdm(lights, title, count, unit="img", leave=False)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what statmorph warns of, its flag says
            found = _read(light)
        if found is not None:
            flags[k] = found.flag
            if found.flag < 2:
                for name in _QUANTITIES:
                    values[name][k] = getattr(found, name)
    for name in _QUANTITIES:
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
