"""Hold the light that a generator paints against that of the mock survey, which no training saw.

    python studies/intrinsic.py --checkpoint checkpoints/on/latest.pt --data data/lsst --out reports/intrinsic
    python studies/intrinsic.py ... --against checkpoints/off/latest.pt --seen-by data/hsc

Training saw what a telescope makes of galaxies; the mock survey keeps, of its test split, what they were before. For
each of these galaxies one of the same class and attributes is generated, and the two sets are compared: magnitudes,
half-light radii, concentrations, ellipticities and colors as Wasserstein-1 over the standard deviation of the true
values, with what two halves of the true ones are apart, as the floor; concentrations also class by class, and of what
is smaller than the PSF and what is not; power spectra ring by ring; the power beyond the telescope's band limit, where
ringing would show; and radii below the width of the PSF. Then what the telescope sees of both, by the Frechet distance
in three feature spaces over that of real halves; with --against also of a generator that was trained without the
telescope. --seen-by is the dataset of another survey of the same galaxies, made by
`prepare_data.py simulated --kind flux --chosen-by`: the generated light is observed with its pixels, PSFs, noise and
filters and compared with its images.

The folder gets intrinsic.json, spectra.png and galaxies.png, and the tables are printed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.command_line import Parser, add_device_option, run_script
from galaxies.common.durable_files import write_whole
from galaxies.common.errors import UserError
from galaxies.common.json_writing import json_text
from galaxies.common.parsing import whole_number
from galaxies.datasets.prepared import PreparedDataset
from galaxies.generation.sampler import GalaxySampler
from galaxies.images.composites import LuptonComposite
from galaxies.images.grids import labelled_grid, save_picture
from galaxies.images.stretch import NOISE_SOFTENING
from galaxies.telescope.filters import band_weights
from galaxies.telescope.fourier import FourierGrid
from galaxies.telescope.observing import Noise, resampled
from galaxies.telescope.psf import Psf
from galaxies.telescope.surveys import find_survey
from galaxies.validation.distances import against_floor
from galaxies.validation.feature_spaces import DISTANCES, build_spaces
from galaxies.validation.intrinsic_light import (
    BAND_LIMIT,
    Light,
    compare_light,
    compare_small,
    compare_spectra,
    compared,
    measure_light,
    power_ratio,
    unseen_power,
)
from galaxies.validation.judge import Judge
from galaxies.validation.viewing import Viewer
from studies.orientation import rank_correlation

_REFERENCE_NM = 625.0  # sizes and shapes are those in the band nearest to r, as the mock survey's truth has them
_TOLD = ("w1", "floor", "generated", "truth")
_SHOWN_OF_A_CLASS = 3
_NEXT = 1_000_000  # seeds of a second galaxy for the same request lie so much higher


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    sampler = GalaxySampler.from_checkpoint(options.checkpoint, options.device)
    sampler.check_light()
    data = PreparedDataset.open(options.data)
    rows, truth = data.rows("test"), true_light(data, sampler)
    asked = torch.from_numpy(data.classes(rows)), torch.from_numpy(data.attributes(sampler.config.attributes, rows))
    seeds = options.seed + np.arange(len(rows))
    drawn = [sampler.light(*asked, seeds + _NEXT * k).numpy() for k in range(options.repeats)]
    result: dict[str, Any] = {"galaxies": len(rows), "negative": int(sum((light < 0).sum() for light in drawn))}
    result |= light_compared(sampler, data, drawn, truth, options.seed, options.out)
    real = torch.from_numpy(np.ascontiguousarray(data.images[rows]))
    generated = sampler.generate(*asked, seeds)  # of the same galaxies
    pictures = {"telescope on": generated}
    if options.against is not None:
        other = GalaxySampler.from_checkpoint(options.against, options.device)
        values = torch.from_numpy(data.attributes(other.config.attributes, rows))
        pictures["telescope off"] = other.generate(asked[0], values, seeds)
    result["observed"] = observations_compared(data, pictures, real, options)
    shown = {
        "true light": _pictures(sampler, torch.from_numpy(np.array(truth)), light=True),
        "generated light\nof the same requests": _pictures(sampler, torch.from_numpy(drawn[0]), light=True),
        "observed": _pictures(sampler, real),
        "generated, observed": _pictures(sampler, generated),
    }
    if options.seen_by is not None:
        there = PreparedDataset.open(options.seen_by)
        _check_same(data, there, options.seen_by)
        elsewhere = as_seen_by(sampler, torch.from_numpy(drawn[0]), there, rows, options.seed)
        images = torch.from_numpy(np.ascontiguousarray(there.images[rows]))
        name = there.manifest["telescope"]["survey"]
        result["seen_by"] = {name: observations_compared(there, {name: elsewhere}, images, options)[name]}
        shown |= {f"observed\nby {name}": _pictures(sampler, images)}
        shown |= {f"generated, observed\nby {name}": _pictures(sampler, elsewhere)}
    options.out.mkdir(parents=True, exist_ok=True)
    write_whole(options.out / "intrinsic.json", (json_text(result, indent=1) + "\n").encode())
    columns = _columns(asked[0].numpy(), len(sampler.config.classes))
    save_picture(
        labelled_grid([picture[columns] for picture in shown.values()], list(shown)), options.out / "galaxies.png"
    )
    print("\n".join(lines(result)))


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="of a run of flux with the telescope on"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="mock survey that it learned from")
    parser.add_argument("--against", type=Path, metavar="FILE", help="of the same run with --telescope off")
    parser.add_argument("--seen-by", type=Path, metavar="DIR", help="another survey's dataset of the same galaxies")
    parser.add_argument("--seed", type=whole_number(0, 2**31), default=0, metavar="N", help="(default: 0)")
    parser.add_argument(
        "--repeats", type=whole_number(1, 20), default=2, metavar="N", help="galaxies for each request (default: 2)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    add_device_option(parser)
    return parser


def true_light(data: PreparedDataset, sampler: GalaxySampler) -> np.ndarray:
    """Return the light of the test split, (N, B, k S, k S), on the pixels of the generator's.

    Raises
    ------
    UserError
        If the dataset keeps none, or on other pixels.
    """
    told = data.manifest.get("intrinsic")
    if not told:
        raise UserError(f"{data.path} keeps no light before the telescope: prepare_data.py simulated --kind flux does")
    scale = float(data.pixel_scale(data.rows("test"))[0]) / told["pixels_a_pixel"]
    if abs(scale / sampler.light_pixel_scale - 1) > 1e-4:
        raise UserError(
            f"the light of {data.path} has pixels of {scale:g} arcsec, that of the generator of "
            f"{sampler.light_pixel_scale:g}: train with --oversampling {told['pixels_a_pixel']}"
        )
    return np.load(data.path / told["file"], mmap_mode="r")


def light_compared(
    sampler: GalaxySampler, data: PreparedDataset, drawn: list[np.ndarray], truth: np.ndarray, seed: int, out: Path
) -> dict[str, Any]:
    """Compare light: distributions, spectra, power that no telescope sees, and small galaxies."""
    bands, wavelengths = data.layout.band_names, np.array([band.wavelength_nm for band in data.layout.bands])
    reference = int(np.abs(wavelengths - _REFERENCE_NM).argmin())
    scale = sampler.light_pixel_scale
    own = measure_light(truth, scale, bands, reference)
    each = [measure_light(light, scale, bands, reference) for light in drawn]
    rows = data.rows("test")
    psf = Psf.named(torch.from_numpy(np.median(data.psf_fwhm(rows), 0))[None], sampler.config.psf_profile)
    limits = band_limits(psf, truth.shape[-1], scale)
    found: dict[str, Any] = {
        "distributions": compare_light(each[0], own, seed),
        "spectra": compare_spectra(each[0], own, limits[reference], seed),
        "rank_correlations": {name: rank_correlation(each[0].values[name], own.values[name]) for name in own.values},
        "band_limits": dict(zip(bands, limits, strict=True)),
    }
    found["concentrations"] = concentrations_compared(
        each[0], own, data.classes(rows), sampler.config.classes, float(psf.fwhm[0, reference]), seed
    )
    ours, theirs = (unseen_power(light, scale, psf) for light in (drawn[0], truth))
    found["unseen_power"] = {
        name: power_ratio(ours[:, place], theirs[:, place], seed) for place, name in enumerate(bands)
    }
    radii = np.stack([light.values["half_light_radius"] for light in each], 1)
    width = float(psf.fwhm[0, reference])
    found["small"] = {
        name: compare_small(radii, own.values["half_light_radius"], part * width, seed)
        for name, part in (("the PSF's width", 1.0), ("half of it", 0.5))
    }
    plot_spectra(each[0], own, limits[reference], out)
    return found


def concentrations_compared(
    generated: Light, truth: Light, classes: np.ndarray, names: Sequence[str], width: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Compare concentrations of parts of the galaxies, over the standard deviation of all true ones.

    Parts are the classes, and galaxies whose true half-light radius is below the PSF's `width` (arcseconds) or not: a
    telescope tells little of what is smaller than that.
    """
    ours, theirs = (light.values["concentration"] for light in (generated, truth))
    is_large = truth.values["half_light_radius"] >= width
    parts = {name: classes == index for index, name in enumerate(names)}
    parts |= {"smaller than the PSF's width": ~is_large, "larger": is_large}
    found = {}
    for name, part in parts.items():
        cell = compared(ours[part], theirs[part], seed)
        if "w1" in cell:
            factor = float(np.nanstd(theirs[part]) / np.nanstd(theirs))
            cell |= {key: cell[key] * factor for key in ("w1", "halves", "floor", "shift")}
            cell["interval"] = [end * factor for end in cell["interval"]]
        found[name] = {"galaxies": int(part.sum()), **cell}
    return found


def band_limits(psf: Psf, side: int, scale: float) -> list[float]:
    """Return of each band the frequency, cycles an arcsecond, from which the transfer function is below the limit."""
    frequencies = np.arange(side // 2 + 1) / (side * scale)
    transfer = psf.transfer(FourierGrid(side, torch.tensor([scale])))[0, :, 0].numpy()  # along one axis
    return [float(frequencies[int(np.argmax(row < BAND_LIMIT))]) for row in transfer]


def observations_compared(
    data: PreparedDataset, pictures: dict[str, Tensor], real: Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    """Compare images (N, B, S, S), by name, with a dataset's: Frechet and kernel distances, {name: {space: ...}}."""
    judge = Judge.of_dataset(data, options.device)
    spaces = build_spaces(judge, real, judge.device, Viewer.of_dataset(data))
    found: dict[str, Any] = {}
    for name, images in pictures.items():
        found[name] = {}
        for space in spaces:
            one, other = space.embed(images), space.embed(real)
            found[name][space.name] = {  # a Frechet distance needs more galaxies than features
                kind: against_floor(distance, one, other, options.seed, centred=kind == "kid", least=one.shape[1] + 1)
                for kind, distance in DISTANCES.items()
            }
    return found


def as_seen_by(sampler: GalaxySampler, light: Tensor, there: PreparedDataset, rows: np.ndarray, seed: int) -> Tensor:
    """Observe light (N, B, L, L) as another survey observed its galaxies in some rows, (N, F, S, S), nJy a pixel."""
    told = there.manifest["telescope"]
    survey = find_survey(told["survey"], there.layout.band_names)
    weights = band_weights(sampler.config.wavelengths, survey.bands)
    settings = there.settings(())
    photons = torch.tensor([band.photon_variance for band in survey.bands])
    random = torch.Generator().manual_seed(seed)
    seen = []
    for block in torch.arange(len(light)).split(64):
        here = rows[block.numpy()]
        planes = torch.einsum("fb,nbhw->nfhw", weights, light[block])
        side = there.image_size
        seen.append(
            resampled(
                planes,
                sampler.light_pixel_scale,
                float(settings["pixel_scale"]),
                side,
                Psf.named(torch.from_numpy(there.psf_fwhm(here)), settings["psf_profile"]),
                noise=Noise(torch.from_numpy(there.noise(here)), photons),
                normal=torch.randn(len(block), len(weights), side, side, generator=random),
            )
        )
    return torch.cat(seen)


def _check_same(one: PreparedDataset, other: PreparedDataset, path: Path) -> None:
    names = [data.catalogue["object_id"].tolist() for data in (one, other)]
    if names[0] != names[1] or "telescope" not in other.manifest:
        raise UserError(
            f"{path} does not hold the galaxies of {one.path}: make it with the same --count, --seed, --bands and "
            "--smallest, another --survey and --chosen-by"
        )


def _pictures(sampler: GalaxySampler, images: Tensor, light: bool = False) -> Tensor:
    """Return pictures (N, 3, S, S) for people; those of light have the contrast of the telescope's pixels."""
    noise = np.array(sampler.config.softening) / NOISE_SOFTENING
    if light:
        noise = noise / sampler.config.oversampling**2
    return LuptonComposite(sampler.config.bands, noise.tolist())(images)


def _columns(classes: np.ndarray, count: int) -> list[int]:
    return [int(row) for index in range(count) for row in np.flatnonzero(classes == index)[:_SHOWN_OF_A_CLASS]]


def plot_spectra(generated: Light, truth: Light, limit: float, out: Path) -> None:
    """Draw median spectra of generated and true galaxies, with the middle two thirds, and the telescope's limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    middle = np.sqrt(truth.frequencies[1:] * truth.frequencies[:-1])
    for name, light, colour in (("mock survey", truth, "#333333"), ("generated", generated, "#c8553d")):
        low, median, high = np.percentile(light.spectrum, (16, 50, 84), axis=0)
        axes.plot(middle, median, color=colour, label=name)
        axes.fill_between(middle, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.axvline(limit, color="#777777", linestyle="--", linewidth=1)
    told: dict[str, Any] = {"va": "bottom", "ha": "right", "fontsize": 8, "color": "#777777", "rotation": 90}
    axes.text(limit, 0.03, "the telescope sees nothing beyond", transform=axes.get_xaxis_transform(), **told)
    axes.set(
        xscale="log", xlabel="spatial frequency (cycles per arcsec)", ylabel="log10 of power over that of all light"
    )
    axes.legend(frameon=False, loc="lower left")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "spectra.png", dpi=150)


def lines(result: dict[str, Any]) -> list[str]:
    """Return the tables as Markdown."""
    table = [
        f"{result['galaxies']} galaxies; {result['negative']} pixels of light below none",
        "",
        "| light | W1 | 95 % | floor | median, generated | true | rank correlation |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cell in result["distributions"].items():
        if "left_out" in cell:
            table.append(f"| {name} | {cell['left_out']} |")
            continue
        low, high = cell["interval"]
        table.append(
            f"| {name} | {cell['w1']:.3f} | {low:.3f} to {high:.3f} | {cell['floor']:.3f} | {cell['generated']:.3f} | "
            f"{cell['truth']:.3f} | {result['rank_correlations'][name]:.2f} |"
        )
    spectra = result["spectra"]
    if "w1" in spectra:
        table.append(f"| power spectrum, mean of rings | {spectra['w1']:.3f} | | {spectra['floor']:.3f} | | | |")
    table += [
        "",
        "| concentration of | galaxies | W1 | floor | median, generated | true |",
        "|---|---|---|---|---|---|",
    ]
    for name, cell in result["concentrations"].items():
        numbers = "too few | | | " if "w1" not in cell else " | ".join(f"{cell[k]:.3f}" for k in _TOLD)
        table.append(f"| {name} | {cell['galaxies']} | {numbers} |")
    table += ["", "| half-light radii below | true | share, generated | W1 | KS |", "|---|---|---|---|---|"]
    for name, cell in result["small"].items():
        radii = cell.get("radii", {})
        apart = f"{radii['w1']:.3f} | {cell['ks']:.3f}" if "w1" in radii else "too few | "
        table.append(
            f"| {name}, {cell['below']:.2f} arcsec | {cell['truth']}, {cell['share']:.3f} | "
            f"{cell['generated_share']:.3f} | {apart} |"
        )
    table += ["", "| band | power beyond the limit over the true | two true halves |", "|---|---|---|"]
    for name, cell in result["unseen_power"].items():
        (low, high), (first, last) = cell["interval"], cell["floor"]
        table.append(f"| {name} | {cell['ratio']:.2f} ({low:.2f} to {high:.2f}) | {first:.2f} to {last:.2f} |")
    table += ["", "| observed | space | Frechet over floor | kernel distance over floor |", "|---|---|---|---|"]
    for name, spaces in itertools.chain(result["observed"].items(), result.get("seen_by", {}).items()):
        for space, cell in spaces.items():
            told = [cell[kind].get("multiple") for kind in ("frechet", "kid")]
            each = ["left out" if value is None else f"{value:.2f}" for value in told]
            table.append(f"| {name} | {space} | {each[0]} | {each[1]} |")
    return table


if __name__ == "__main__":
    run_script(main)
