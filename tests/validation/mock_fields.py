"""Mock fields for tests, written with astropy alone: Gaussian sources of known light behind a Gaussian telescope."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.special import erf

SCALE, FWHM, EXPOSURE = 0.2, 0.8, 1000.0  # arcseconds, arcseconds, seconds
_TO_SIGMA = 1 / math.sqrt(8 * math.log(2))
HALF_LIGHT = math.sqrt(2 * math.log(2))  # of a round Gaussian, standard deviations


@dataclass
class Source:
    """A source: place in pixels, flux in nJy, half-light radius in arcseconds (0: a point)."""

    x: float
    y: float
    flux: float
    size: float = 0.0
    kind: str = "galaxy"
    ellipticity: float = 0.0
    angle: float = 0.0


def stamp(source: Source, side: int, left: int, top: int, blur_px: float = FWHM / SCALE * _TO_SIGMA) -> np.ndarray:
    """Return a round source through the telescope, integrated over the pixels (side, side)."""
    sigma = math.hypot(blur_px, source.size / SCALE / HALF_LIGHT)
    edges = np.arange(side + 1) - 0.5
    x, y = (
        0.5 * np.diff(erf((edges + first - place) / sigma / math.sqrt(2)))
        for first, place in ((left, source.x), (top, source.y))
    )
    return source.flux * y[:, None] * x


def psf_image(side: int = 25) -> np.ndarray:
    middle = side // 2
    image = stamp(Source(middle, middle, 1.0), side, 0, 0)
    return (image / image.sum()).astype(np.float32)


def light_of(sources: list[Source], height: int, width: int, half: int = 24) -> np.ndarray:
    light = np.zeros((height + 2 * half, width + 2 * half))
    for source in sources:
        left, top = round(source.x) - half, round(source.y) - half
        light[top + half : top + 3 * half + 1, left + half : left + 3 * half + 1] += stamp(
            source, 2 * half + 1, left, top
        )
    return light[half:-half, half:-half].astype(np.float32)


def write_field(
    folder: Path,
    sources: list[Source],
    light: np.ndarray,
    sky: float,
    photons: float = 0.0,
    bands: tuple[str, ...] = ("r",),
    psf: np.ndarray | None = None,
    fwhm: float = FWHM,
    seed: int = 0,
) -> Path:
    """Write a field of this light (H, W) in every band."""
    folder.mkdir(parents=True)
    height, width = light.shape
    psf = psf_image() if psf is None else psf
    noise = np.sqrt(sky**2 + photons * np.maximum(light, 0)).astype(np.float32)
    for number, band in enumerate(bands):
        image = light + noise * np.random.default_rng([seed, number]).standard_normal(light.shape).astype(np.float32)
        planes = {"NOISE": noise, "WEIGHT": 1 / noise**2, "PSF": psf}
        units = [fits.PrimaryHDU(image.astype(np.float32))]
        units += [fits.ImageHDU(plane.astype(np.float32), name=name) for name, plane in planes.items()]
        fits.HDUList(units).writeto(folder / f"{band}.fits")
        fits.PrimaryHDU(light.astype(np.float32)).writeto(folder / f"noiseless_{band}.fits")
    fits.PrimaryHDU(np.zeros(light.shape, np.int32)).writeto(folder / "segmentation.fits")
    pixels = 1 / float((psf.astype(float) ** 2).sum())
    flux = np.array([s.flux for s in sources])
    columns = [("id", "J", np.arange(1, len(sources) + 1)), ("x", "D", [s.x for s in sources])]
    columns += [("y", "D", [s.y for s in sources]), ("ra", "D", flux * 0), ("dec", "D", flux * 0)]
    columns += [("kind", "8A", [s.kind for s in sources]), ("morphology", "16A", ["" for _ in sources])]
    columns += [("redshift", "D", flux * 0 + 0.5)]
    columns += [(f"magnitude_{band}", "D", 31.4 - 2.5 * np.log10(flux)) for band in bands]
    columns += [("size_arcsec", "D", [s.size for s in sources]), ("ellipticity", "D", [s.ellipticity for s in sources])]
    columns += [("position_angle", "D", [s.angle for s in sources])]
    columns += [(f"snr_{band}", "D", flux / sky / math.sqrt(pixels)) for band in bands]  # of a point
    columns += [("seed", "K", np.arange(len(sources)))]
    table = fits.BinTableHDU.from_columns([fits.Column(n, f, array=np.array(v)) for n, f, v in columns])
    table.writeto(folder / "truth.fits")
    facts = {
        **{"format_version": 1, "survey": "test", "pixel_scale": SCALE, "width_px": width, "height_px": height},
        **{"area_arcmin2": width * height * SCALE**2 / 3600, "seed": seed, "source": "test", "counts": "test"},
        **{"faintest_magnitude": 28.0, "reference_band": bands[0], "command_line": "", "credit": ""},
        "bands": [
            {
                **{"name": band, "wavelength_nm": 620.0, "zero_point": 31.4, "psf_fwhm": fwhm},
                **{"exposure_s": EXPOSURE, "sky_noise": sky, "photons": photons},
            }
            for band in bands
        ],
    }
    (folder / "field.json").write_text(json.dumps(facts))
    return folder


def grid_of(count: int, step: int, flux: np.ndarray, size: float, jitter: int = 0) -> tuple[list[Source], int]:
    """Return count x count sources, `step` pixels apart and off pixel centres, and the side of their field."""
    stream = np.random.default_rng([3, jitter])
    shifts = stream.uniform(-0.5, 0.5, (count * count, 2))
    sources = [
        Source(step * (k % count + 0.5) + dx, step * (k // count + 0.5) + dy, float(flux[k]), size)
        for k, (dx, dy) in enumerate(shifts.tolist())
    ]
    return sources, count * step
