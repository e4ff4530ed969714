"""Ask a generator of flux for inclinations and position angles, and say how its galaxies follow.

    python studies/orientation.py --checkpoint checkpoints/discs/latest.pt --data data/lsst --sheet sweep.png

What follows is told by the axis ratio of the light (Hubble 1926), of the light before the telescope where the generator
paints it, else of its images, whose blur is taken off. Prints, class by class:

- of requests like the discs of the test split, the rank correlation between inclinations that are asked for and read
  off, and the same of the real discs' true inclinations and images, which is what there is to reach;
- of sweeps from face-on to edge-on, 30 galaxies by default, the rank correlation over all of them, the median and the
  least of each alone, and the median that is read off at each inclination; a sweep keeps what else is asked, such as
  a magnitude and the circle that holds half of the light;
- where the generator turns its light last, how much longer or shorter galaxies of sweeps become along the major axis,
  how far a galaxy that is asked for a quarter turn further is from the same one, turned, and how far major axes are off
  the position angle that is asked for.

--sheet FILE draws some of the sweeps as a picture, a galaxy a row.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common.errors import UserError
from galaxies.common.parsing import whole_number
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.grids import plain_grid, save_picture
from galaxies.measure.flux import FluxPhotometry, measure_flux
from physics_model import FluxScale

_DEGREES = torch.linspace(5, 88, 12)
_ON_THE_SHEET = 6  # galaxies of a class


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    sampler = GalaxySampler.from_checkpoint(options.checkpoint, options.device)
    if "inclination" not in sampler.config.attributes:
        raise UserError(f"{options.checkpoint} knows no inclination: train with --attributes inclination and others")
    data = PreparedDataset.open(options.data)
    discs = like_the_test_discs(sampler, data)
    pictures = []
    for index, name in enumerate(sampler.config.classes):
        if sampler.supported[index][_column(sampler)] is None:
            continue
        if name in discs:
            count, generated, real = discs[name]
            print(f"{name}: {count} requests like test galaxies: rank correlation {generated:.3f}, real {real:.3f}")
        asked, found, lengths, shown = sweeps(sampler, index, options.sweeps)
        alone = [rank_correlation(asked[0], one) for one in found]
        print(
            f"  {options.sweeps} sweeps: rank correlation {rank_correlation(asked.ravel(), found.ravel()):.3f}; "
            f"of each alone: median {np.nanmedian(alone):.3f}, least {np.nanmin(alone):.3f}"
        )
        read = ", ".join(f"{a:.0f}: {np.nanmedian(b):.1f}" for a, b in zip(asked[0], found.T, strict=True))
        print(f"  read off (median): {read}")
        pictures.append(shown)
        if sampler.network.turns:
            low, middle, high = np.percentile(lengths, (16, 50, 84))
            print(f"  length along the major axis, edge-on over face-on: {middle:.2f} ({low:.2f} to {high:.2f})")
            error, offsets = turns(sampler, index, options.sweeps)
            print(f"  a quarter turn further: the same to {error:.1e} of the brightest pixel")
            print(
                f"  major axes off the position angle, at inclination 60: median {np.median(offsets):.1f} deg, "
                f"84 % within {np.percentile(offsets, 84):.1f}"
            )
    if options.sheet is not None:
        save_picture(plain_grid(torch.cat(pictures), len(_DEGREES)), options.sheet)


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="of a run of flux")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="dataset with inclinations")
    parser.add_argument(
        "--sweeps", type=whole_number(1, 1000), default=30, metavar="N", help="galaxies of a class (default: 30)"
    )
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="picture of some sweeps to write")
    add_device_option(parser)
    return parser


def _column(sampler: GalaxySampler) -> int:
    return sampler.config.attributes.index("inclination")


def drawn(
    sampler: GalaxySampler, classes: Tensor, values: Tensor, seeds: Sequence[int], angles: Tensor | None = None
) -> Tensor:
    """Return light (N, B, k S, k S) where the generator paints it, else images (N, B, S, S), nJy a pixel."""
    if sampler.config.observes:
        return sampler.light(classes, values, seeds, angles if sampler.network.turns else None)
    return sampler.generate(classes, values, seeds)


def measured(sampler: GalaxySampler, images: Tensor) -> FluxPhotometry:
    """Measure what `drawn` returns."""
    if sampler.config.observes:
        return measure_flux(images, sampler.light_pixel_scale)
    return _of_images(sampler, images)


def _of_images(sampler: GalaxySampler, images: Tensor) -> FluxPhotometry:
    scale = FluxScale.of(sampler.config, images.device)
    assert scale is not None, "the run is one of flux"
    return measure_flux(images, scale.pixel_scale, psf_fwhm=scale.psf_fwhm.expand(len(images), -1))


def inclinations(sampler: GalaxySampler, photometry: FluxPhotometry) -> np.ndarray:
    """Return what is read off, degrees, NaN where there is no galaxy."""
    bands = sampler.config.bands
    values = photometry.attribute("inclination", bands)
    return torch.where(photometry.known("inclination", bands), values, torch.nan).double().numpy()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's coefficient over what both know."""
    from scipy.stats import spearmanr

    known = np.isfinite(first) & np.isfinite(second)
    return float(spearmanr(first[known], second[known])[0])


def like_the_test_discs(sampler: GalaxySampler, data: PreparedDataset) -> dict[str, tuple[int, float, float]]:
    """Return of each class the number of test discs, and rank correlations of generated and of real ones."""
    rows = data.rows("test")
    values, classes = torch.from_numpy(data.attributes(sampler.config.attributes, rows)), data.classes(rows)
    asked = values[:, _column(sampler)].double().numpy()
    generated = drawn(sampler, torch.from_numpy(classes), values, range(len(rows)))
    found = inclinations(sampler, measured(sampler, generated))
    real = inclinations(sampler, _of_images(sampler, torch.from_numpy(data.images[rows])))
    told = {}
    for index, name in enumerate(sampler.config.classes):
        of = (classes == index) & np.isfinite(asked)
        if of.sum() > 2:
            generated_rank, real_rank = (rank_correlation(asked[of], one[of]) for one in (found, real))
            told[name] = int(of.sum()), generated_rank, real_rank
    return told


def sweeps(sampler: GalaxySampler, index: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """Sweep galaxies of a class over the inclination.

    Returns
    -------
    asked, found : ndarray, (count, D)
        Degrees.
    lengths : ndarray, (count,)
        Of the light along the major axis, edge-on over face-on, by its second moment; 1 where none is turned.
    shown : Tensor, (n D, 3, S, S), uint8
        Pictures of some.
    """
    steps = len(_DEGREES)
    found, lengths, shown = [], [], []
    for seed in range(count):
        values = _filled(sampler, index, seed, _DEGREES)
        classes, seeds = torch.full((steps,), index), [seed] * steps
        images = drawn(sampler, classes, values, seeds, torch.zeros(steps))
        found.append(inclinations(sampler, measured(sampler, images)))
        first, last = along_x(images[[0, -1]]).tolist() if sampler.network.turns else (1.0, 1.0)
        lengths.append(last / first)
        if seed < _ON_THE_SHEET:
            shown.append(sampler.pictures(sampler.generate(classes, values, seeds)))
    asked = _DEGREES.double().numpy()[None].repeat(count, 0)
    return asked, np.array(found), np.array(lengths), torch.cat(shown)


def along_x(light: Tensor) -> Tensor:
    """Return the standard deviation along x of light (N, B, W, W) of all bands, (N,), pixels."""
    profile = light.double().sum((1, 2))
    part = profile / profile.sum(1, keepdim=True)
    place = torch.arange(light.shape[-1], dtype=torch.float64)
    mean = (part * place).sum(1, keepdim=True)
    return (part * (place - mean).square()).sum(1).sqrt()


def _filled(sampler: GalaxySampler, index: int, seed: int, degrees: Tensor) -> Tensor:
    """Return the attributes (D, A) of one galaxy at some inclinations."""
    unset = torch.full((1, len(sampler.attributes)), torch.nan)
    values = sampler.complete_all(torch.tensor([index]), unset, [seed]).repeat(len(degrees), 1)
    values[:, _column(sampler)] = degrees
    return values


def turns(sampler: GalaxySampler, index: int, count: int) -> tuple[float, np.ndarray]:
    """Return how far a quarter turn is from one, over the brightest pixel, and angles between axes and requests."""
    classes, seeds = torch.full((count,), index), range(count)
    values = torch.cat([_filled(sampler, index, seed, torch.tensor([60.0])) for seed in seeds])
    angles = torch.linspace(0, 170, count)
    light, further = (sampler.light(classes, values, seeds, angles + more) for more in (0, 90))
    error = (further - light.rot90(-1, (2, 3))).abs().amax((1, 2, 3)) / light.amax((1, 2, 3))
    offsets = (measured(sampler, light).position_angle - angles + 90).remainder(180) - 90
    return float(error.max()), offsets.abs().double().numpy()


if __name__ == "__main__":
    run_script(main)
