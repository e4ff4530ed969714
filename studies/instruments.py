"""Tell how far photometry can be trusted: against known truth, against statmorph, and how much faster it is.

    python studies/instruments.py
    python studies/instruments.py --real data/real --real-count 400

The first table measures Sersic galaxies that GalSim renders at 64 px, with a Moffat PSF and noise, of which everything
is known: errors of ellipticity 1 - b/a (before the blur), of the radius that holds half the light (of the blurred
image, on an unbounded frame) and of the centroid in pixels, and the asymmetry, which should be 0, by Sersic index, by
signal to noise and by ellipticity. The signal is the mean within the half-light radius, so that the mean plane has the
stated signal to noise a pixel there.

The second compares real galaxies with statmorph, which gets the same sky-subtracted mean plane, the source mask as its
segmentation map and the neighbours as its mask: rank correlations where neither raises a flag. Both are timed on one
core. GalSim and statmorph come with requirements-dev.txt.
"""

from __future__ import annotations

import itertools
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config_physics import IMAGE_SIZES
from galaxies.command_line import Parser, run_script
from galaxies.common.errors import UserError
from galaxies.datasets.prepared import PreparedDataset
from galaxies.measure import photometry
from galaxies.measure.sky import estimate_sky
from galaxies.measure.source import find_source

SIDE = 64
PAIRS = {  # ours to statmorph's
    "r50": "r50",
    "size": "rhalf_circ",
    "ellipticity": "ellipticity_asymmetry",
    "petrosian_concentration": "concentration",
    "gini": "gini",
    "m20": "m20",
    "asymmetry": "asymmetry",
    "asymmetry_corrected": "asymmetry",
    "smoothness": "smoothness",
    "petrosian_radius": "rpetro_circ",
}

_CANVAS = 192  # pixels of the frame without a border that truth is read from; holds 98 % of the widest wings here
_MOFFAT_BETA = 3.0  # close to the wings of the survey's PSF
_PSF_REACH = 10.0  # 64ths of the frame; about the radius of a source mask, beyond which the PSF's wings do not count
_SKY = 0.1
_BATCH = 64


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    if min(options.count, options.real_count) < 2:
        raise UserError("at least two galaxies are needed")
    torch.set_num_threads(1)
    images, truth = render_galaxies(options.count, options.seed, side=options.side)
    print_accuracy(measure_all(images, truth["psf_sigma"]), truth)
    if options.real is not None:
        data = PreparedDataset.open(options.real)
        rows = np.sort(np.random.default_rng(options.seed).permutation(len(data.images))[: options.real_count])
        compare_with_statmorph(torch.from_numpy(data.images[rows]).float() / 255)


def _parser() -> Parser:
    parser = Parser(prog="instruments.py", description=__doc__)
    parser.add_argument(
        "--count", type=int, default=1000, metavar="N", help="galaxies that GalSim renders (default: 1000)"
    )
    parser.add_argument(
        "--side",
        type=int,
        choices=IMAGE_SIZES,
        default=SIDE,
        help="pixels a side of the galaxies that GalSim renders (default: 64)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random draw (default: 0)")
    parser.add_argument(
        "--real", type=Path, metavar="DIR", help="prepared dataset of real galaxies, to compare with statmorph on"
    )
    parser.add_argument(
        "--real-count", type=int, default=400, metavar="N", help="real galaxies to compare on (default: 400)"
    )
    return parser


def render_galaxies(
    count: int, seed: int, indices: tuple[float, float] = (0.5, 4.0), side: int = SIDE
) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Render Sersic galaxies in noise with GalSim.

    Parameters
    ----------
    count : int
    seed : int
    indices : (float, float)
        Range of the Sersic index.
    side : int
        Pixels S of an image, a multiple of 64. The galaxies, their blur and the depth are the same for all.

    Returns
    -------
    images : Tensor, (N, 3, S, S), float32
        Linear in the light, three planes of independent noise.
    truth : dict of str to ndarray, (N,)
        ``sersic_n``, ``ellipticity`` (1 - b/a before the blur), ``position_angle`` (degrees), ``x`` and ``y`` (64ths of
        the frame's width, from its centre), ``half_light_radius`` (64ths, of the blurred image), ``psf_sigma`` (frame
        widths), ``signal_to_noise`` (of a 64th's square in the mean plane, 5 to 50).
    """
    galsim = _import("galsim")
    rng = np.random.default_rng(seed)
    zoom = side // SIDE
    canvas, scale = _CANVAS * zoom, 1 / zoom
    axis = (np.arange(canvas) - (canvas - 1) / 2) * scale
    first = (canvas - side) // 2
    images, rows = [], []
    for _ in tqdm(range(count), "rendering", unit=" galaxies", leave=False, disable=None):
        sersic_n, radius, axis_ratio = rng.uniform(*indices), rng.uniform(3, 8), rng.uniform(0.2, 1)
        angle, x, y = rng.uniform(0, 180), *rng.uniform(-2, 2, 2)
        fwhm, signal_to_noise = rng.uniform(1.5, 3), float(np.exp(rng.uniform(np.log(5), np.log(50))))
        psf = galsim.Moffat(beta=_MOFFAT_BETA, fwhm=fwhm)
        galaxy = galsim.Sersic(n=sersic_n, half_light_radius=radius, flux=1).shear(
            q=axis_ratio, beta=angle * galsim.degrees
        )
        blurred = galsim.Convolve(galaxy.shift(x, y), psf, gsparams=galsim.GSParams(maximum_fft_size=16384))
        light = blurred.drawImage(nx=canvas, ny=canvas, scale=scale).array.astype(np.float64)
        half_light = _half_light_radius(light, axis - x, axis - y)
        frame = light[first : first + side, first : first + side]
        frame = frame * rng.uniform(0.2, 0.7) / frame.max()
        signal = frame.max() / light.max() * 0.5 / (np.pi * half_light**2 * zoom**2)
        noise = rng.normal(0, np.sqrt(3) * zoom * signal / signal_to_noise, (3, side, side))
        images.append((frame + noise + _SKY).astype(np.float32))
        point = psf.drawImage(nx=canvas, ny=canvas, scale=scale).array.astype(np.float64)
        square = axis**2 + axis[:, None] ** 2
        near = point * (square < _PSF_REACH**2)
        psf_sigma = np.sqrt((near * square).sum() / near.sum() / 2) / SIDE
        rows.append((sersic_n, 1 - axis_ratio, angle, x, y, half_light, psf_sigma, signal_to_noise))
    names = (
        *("sersic_n", "ellipticity", "position_angle", "x", "y"),
        *("half_light_radius", "psf_sigma", "signal_to_noise"),
    )
    return torch.from_numpy(np.stack(images)), dict(zip(names, np.array(rows).T, strict=True))


def _half_light_radius(light: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Return the radius of the circle about (0, 0) that holds half of the unit of light in all."""
    # Fine enough for a radius of 2 pixels: each pixel counts as 25 points.
    offsets = (np.arange(5) - 2) / 5 * (x[1] - x[0])
    x, y = ((v[:, None] + offsets).ravel() for v in (x, y))
    near_x, near_y = np.abs(x) < SIDE / 2, np.abs(y) < SIDE / 2
    radius = np.hypot(x[near_x], y[near_y, None]).ravel()
    fine = light.repeat(5, 0).repeat(5, 1)[near_y][:, near_x].ravel() / 25
    order = radius.argsort()
    return float(radius[order][np.searchsorted(fine[order].cumsum(), 0.5)])


def measure_all(images: torch.Tensor, psf_sigma: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Measure everything in batches; returns arrays (N,)."""
    blur = torch.zeros(len(images)) if psf_sigma is None else torch.from_numpy(psf_sigma).float()
    with torch.inference_mode():
        blocks = [
            photometry.measure_with_structure(images[k : k + _BATCH], blur[k : k + _BATCH])
            for k in range(0, len(images), _BATCH)
        ]
    tables = [galaxy._asdict() | structure._asdict() for galaxy, structure in blocks]
    return {name: torch.cat([table[name] for table in tables]).numpy() for name in tables[0]}


def errors(values: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is wrong: ellipticity, the relative error of both radii, and offsets in 64ths of the frame."""
    return {
        "ellipticity": values["ellipticity"] - truth["ellipticity"],
        "half_light_radius": values["half_light_radius"] * SIDE / truth["half_light_radius"] - 1,
        "size": values["size"] * SIDE / truth["half_light_radius"] - 1,
        "centroid": np.hypot(values["centroid_x"] * SIDE - truth["x"], values["centroid_y"] * SIDE - truth["y"]),
        "asymmetry": values["asymmetry"],
        "asymmetry_corrected": values["asymmetry_corrected"],
    }


def print_accuracy(values: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> None:
    """Print errors over all unflagged galaxies, by Sersic index, by signal to noise and by ellipticity."""
    good = values["flag"] == 0
    wrong = errors(values, truth)
    print(f"{len(good)} galaxies by GalSim, {good.sum()} without a flag; mean absolute error (mean error)\n")
    print(" " * 24 + "".join(f"{name:>20}" for name in wrong) + f"{'count':>8}")
    groups = {"all": good}
    for name, bounds in (
        ("sersic_n", (0.5, 1, 1.5, 2.5, 4)),
        ("signal_to_noise", (5, 10, 20, 50)),
        ("ellipticity", (0, 0.1, 0.3, 0.6, 0.8)),
    ):
        for low, high in itertools.pairwise(bounds):
            groups[f"{name} {low} to {high}"] = good & (truth[name] >= low) & (truth[name] < high)
    for title, rows in groups.items():
        cells = [f"{np.abs(e[rows]).mean():.3f} ({e[rows].mean():+.3f})" if rows.any() else "-" for e in wrong.values()]
        print(f"{title:<24}" + "".join(f"{cell:>20}" for cell in cells) + f"{rows.sum():>8}")
    offset = wrong["centroid"][good]
    print(f"\ncentroid within 0.3 px: {(offset <= 0.3).mean():.1%}; ", end="")
    print(f"half-light radius within 10 %: {(np.abs(wrong['half_light_radius'][good]) <= 0.1).mean():.1%}")


def measure_with_statmorph(images: torch.Tensor, **options: object) -> dict[str, np.ndarray]:
    """Measure images with statmorph on our sky, mask and neighbours; NaN and flag 4 where there is no mask.

    `options` go to `statmorph.SourceMorphology`.
    """
    statmorph = _import("statmorph")
    sky = estimate_sky(images)
    light = (images - sky.level[:, :, None, None]).mean(1)
    source = find_source(light, sky)
    names = {*PAIRS.values(), "flag"}
    rows: list[dict[str, float]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every flag that it raises
        for k in tqdm(range(len(images)), "statmorph", unit=" galaxies", leave=False, disable=None):
            row = dict.fromkeys(names, np.nan) | {"flag": 4.0}
            if source.mask[k].any():
                segments, others = source.mask[k].numpy().astype(np.int64), source.neighbours[k].numpy()
                # The gain only weighs the fit of its Sersic model, which is not compared.
                found = statmorph.SourceMorphology(
                    light[k].numpy().astype(np.float64), segments, 1, others, gain=1e4, **options
                )
                row = {name: float(getattr(found, name)) for name in names}
            rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in names}


def compare_with_statmorph(images: torch.Tensor) -> None:
    """Print rank correlations and times."""
    start = time.perf_counter()
    theirs = measure_with_statmorph(images)
    their_time = (time.perf_counter() - start) / len(images)
    times = {}
    for structure, measure in ((False, photometry.measure), (True, photometry.measure_with_structure)):
        with torch.inference_mode():
            laps = []
            for _ in range(4):  # the first warms up
                start = time.perf_counter()
                for k in range(0, len(images), _BATCH):
                    measure(images[k : k + _BATCH])
                laps.append((time.perf_counter() - start) / len(images))
        times[structure] = float(np.median(laps[1:]))
    ours = measure_all(images)
    good = (ours["flag"] == 0) & (theirs["flag"] == 0)
    print(f"\n{len(images)} real galaxies, {good.sum()} with neither flag\n")
    print(f"{'photometry':<26}{'statmorph':<24}{'rank correlation':>18}{'medians':>20}")
    for name, other in PAIRS.items():
        pixels = images.shape[-1] if name in ("size", "r50", "petrosian_radius") else 1
        a, b = ours[name][good] * pixels, theirs[other][good]
        medians = f"{np.median(a):.3f} / {np.median(b):.3f}"
        print(f"{name:<26}{other:<24}{rank_correlation(a, b):>18.4f}{medians:>20}")
    print(
        f"\nms an image on one core: photometry {1e3 * times[False]:.2f}, with structure {1e3 * times[True]:.2f}, ",
        end="",
    )
    print(f"statmorph {1e3 * their_time:.0f}: {their_time / times[True]:.0f} times as long")


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation; measured values have no ties to speak of."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def _import(name: str):
    try:
        return __import__(name)
    except ImportError:
        raise UserError(f"{name} is not installed: pip install -r requirements-dev.txt") from None


if __name__ == "__main__":
    run_script(main)
