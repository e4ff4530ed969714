"""Ask a generator of flux for inclinations and position angles, and say how its galaxies follow.

    python studies/orientation.py --checkpoint checkpoints/discs/latest.pt --data data/lsst --sheet sweep.png

What follows is told by the axis ratio of the images (Hubble 1926), whose blur is taken off. Prints, class by class:

- of requests like the discs of the test split, the rank correlation between inclinations that are asked for and read
  off, and the same of the real discs' true inclinations and images, which is what there is to reach;
- of sweeps from face-on to edge-on, 30 galaxies by default, the rank correlation over all of them, the median and the
  least of each alone, and the median that is read off at each inclination; a sweep keeps what else is asked, such as
  a magnitude and the circle that holds half of the light.

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
        asked, found, shown = sweeps(sampler, index, options.sweeps)
        alone = [rank_correlation(asked[0], one) for one in found]
        print(
            f"  {options.sweeps} sweeps: rank correlation {rank_correlation(asked.ravel(), found.ravel()):.3f}; "
            f"of each alone: median {np.nanmedian(alone):.3f}, least {np.nanmin(alone):.3f}"
        )
        read = ", ".join(f"{a:.0f}: {np.nanmedian(b):.1f}" for a, b in zip(asked[0], found.T, strict=True))
        print(f"  read off (median): {read}")
        pictures.append(shown)
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


def measured(sampler: GalaxySampler, images: Tensor) -> FluxPhotometry:
    """Measure images (N, B, S, S), nJy a pixel."""
    widths = [width if width > 0 else np.nan for width in sampler.config.psf_fwhm]
    return measure_flux(images, sampler.config.pixel_scale, psf_fwhm=torch.tensor([widths]).expand(len(images), -1))


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
    generated = sampler.generate(torch.from_numpy(classes), values, range(len(rows)))
    found = inclinations(sampler, measured(sampler, generated))
    real = inclinations(sampler, measured(sampler, torch.from_numpy(data.images[rows])))
    told = {}
    for index, name in enumerate(sampler.config.classes):
        of = (classes == index) & np.isfinite(asked)
        if of.sum() > 2:
            generated_rank, real_rank = (rank_correlation(asked[of], one[of]) for one in (found, real))
            told[name] = int(of.sum()), generated_rank, real_rank
    return told


def sweeps(sampler: GalaxySampler, index: int, count: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Sweep galaxies of a class over the inclination.

    Returns
    -------
    asked, found : ndarray, (count, D)
        Degrees.
    shown : Tensor, (n D, 3, S, S), uint8
        Pictures of some.
    """
    steps = len(_DEGREES)
    found, shown = [], []
    for seed in range(count):
        values = _filled(sampler, index, seed, _DEGREES)
        classes, seeds = torch.full((steps,), index), [seed] * steps
        images = sampler.generate(classes, values, seeds)
        found.append(inclinations(sampler, measured(sampler, images)))
        if seed < _ON_THE_SHEET:
            shown.append(sampler.pictures(images))
    asked = _DEGREES.double().numpy()[None].repeat(count, 0)
    return asked, np.array(found), torch.cat(shown)


def _filled(sampler: GalaxySampler, index: int, seed: int, degrees: Tensor) -> Tensor:
    """Return the attributes (D, A) of one galaxy at some inclinations."""
    unset = torch.full((1, len(sampler.attributes)), torch.nan)
    values = sampler.complete_all(torch.tensor([index]), unset, [seed]).repeat(len(degrees), 1)
    values[:, _column(sampler)] = degrees
    return values


if __name__ == "__main__":
    run_script(main)
