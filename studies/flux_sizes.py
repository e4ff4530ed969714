"""Whether photometry of flux reads the sizes that statmorph and photutils read off real telescopes' images.

    python studies/flux_sizes.py --images ../shared/science_images --sheet sizes.png

prints, for galaxies of the Legacy Surveys (r), HST (F814W), JWST (F200W) and KiDS (r), our Petrosian radius beside
statmorph's, and our half-light radius within two of these beside statmorph's and that of photutils' curve of growth:
all of circles, as observed and by the same definition; then how much a sky of 30 times the noise, another unit of the
counts and a bright star in a corner change them. The sky that statmorph and photutils get is a median beside all
that photutils detects. Of COSMOS' bright galaxies there is SExtractor's half-light radius in the whole survey as well.
Compared are galaxies whose radius their image tells to 3 %, by the noise and the sky's error,
with two Petrosian radii inside the frame and no neighbour on them; the others are counted. Pixels are those of the
files. Three minutes of one core.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from galaxies.command_line import Parser, run_script
from galaxies.measure.flux import FluxPhotometry, measure_flux
from galaxies.measure.photometry import NO_SOURCE

KNOWN_TO = 0.03  # relative error of the reference's half-light radius, up to which it is one
COVERED = 0.05  # part of the circle of two Petrosian radii that neighbours and bad pixels may hide
LEAST = 3.0  # pixels; statmorph's radii of less are up to a quarter larger than photutils'
BRIGHT = 23.5  # AB magnitude of COSMOS' galaxies, to which noise leaves their radii 3 %
STAR = 100.0  # peak of the star that is put in, galaxies' brightest pixels


class Cutout(NamedTuple):
    """A galaxy's image (S, S), any unit, NaN in bad pixels, with its instrument and name.

    `catalogue` is the half-light radius that the instrument's own catalogue gives it, pixels, NaN where there is none.
    """

    instrument: str
    name: str
    image: np.ndarray
    catalogue: float = np.nan


class Reference(NamedTuple):
    """Radii by other programs, pixels, NaN where they find none; and why it is no reference, "" if it is one.

    Attributes
    ----------
    petrosian, half_light : float
        statmorph's: where the surface brightness is 0.2 of the mean within, and of half of the light within twice that.
    growth : float
        That of half of the light by photutils' curve of growth.
    error : float
        Relative, of half-light radii, by noise and sky.
    doubt : str
    """

    petrosian: float = np.nan
    half_light: float = np.nan
    growth: float = np.nan
    error: float = np.nan
    doubt: str = "no galaxy found"


def cutouts(folder: Path) -> Iterator[Cutout]:
    """Yield the galaxies of the instruments' folders that are there."""
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one file is truncated, which is known
        for path in sorted((folder / "decals_cutouts").glob("*.fits")):
            try:
                yield _square("Legacy r", path.stem, fits.getdata(path)[1])
            except (OSError, TypeError, ValueError):
                print(f"{path.name} cannot be read")
        for path in sorted((folder / "decals_psf").glob("cutout*.fits")):
            with fits.open(path) as file:
                images = [hdu.data for hdu in file if hdu.header.get("IMAGETYP", "").strip() == "image"]
            yield _square("Legacy r", path.stem[-17:], [image for image in images if image is not None][1])
        yield from _of_cosmos(folder / "cosmos_f814w")
        for path in sorted((folder / "jwst_ceers" / "f200w").glob("*.fits")):
            yield _square("JWST F200W", path.stem.rpartition("_")[2], fits.getdata(path))
        for path in sorted((folder / "kids_field").glob("r.fits")):
            yield from _of_field("KiDS r", fits.getdata(path, 1))


def _of_cosmos(folder: Path) -> Iterator[Cutout]:
    """Yield the stamps of galaxies brighter than `BRIGHT`, with SExtractor's half-light radius in the whole survey."""
    from astropy.io import fits

    first = folder / "real_galaxy_catalog_26_extension_example.fits"
    if not first.exists():
        return
    facts, fits_of = fits.getdata(first, 1), fits.getdata(first.with_name(first.stem + "_fits.fits"), 1)
    with fits.open(folder / "real_galaxy_images_extension.fits") as file:
        for row in np.flatnonzero(facts["MAG"] < BRIGHT).tolist():
            cutout = _square("HST F814W", str(facts["IDENT"][row]), file[int(facts["GAL_HDU"][row])].data)
            yield cutout._replace(catalogue=float(fits_of["flux_radius"][row]))


def _square(instrument: str, name: str, image: np.ndarray) -> Cutout:
    """Return the middle square of an image, with NaN where it has no values or areas of 0."""
    image = np.asarray(image, np.float64)
    side = min(image.shape)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    image = image[top : top + side, left : left + side]
    return Cutout(instrument, name, np.where(np.isfinite(image) & (image != 0), image, np.nan))


def _of_field(instrument: str, field: np.ndarray, most: int = 80) -> Iterator[Cutout]:
    """Yield cutouts of the brightest extended sources of a field, 12 times as wide as their light's spread."""
    from photutils.segmentation import SourceCatalog

    field = np.asarray(field, np.float64)
    sky, _, segments, smoothed = _detected(field, np.zeros(field.shape, bool), 1.5)
    catalogue = SourceCatalog(field - sky, segments, convolved_data=smoothed)
    spread = catalogue.fwhm.value
    star = np.median(spread[np.argsort(catalogue.max_value)[-200:-50]])
    chosen = [k for k in np.argsort(-catalogue.segment_flux) if 1.7 * star < spread[k] < 10 * star]
    for k in chosen:
        x, y = (round(float(value[k])) for value in (catalogue.xcentroid, catalogue.ycentroid))
        half = int(np.clip(3 * spread[k], 24, 150))
        if most and min(x, y) >= half and max(x, y) < min(field.shape) - half:
            most -= 1
            yield Cutout(instrument, f"{x},{y}", field[y - half : y + half, x - half : x + half])


def _detected(image: np.ndarray, bad: np.ndarray, width: float) -> tuple[float, float, Any, np.ndarray]:
    """Return level and noise of the sky, the segments, and the image that was smoothed by `width` pixels for them."""
    from astropy.stats import sigma_clipped_stats
    from photutils.segmentation import detect_sources
    from scipy.ndimage import binary_dilation, gaussian_filter

    masked = bad
    for _ in range(3):
        _, sky, noise = sigma_clipped_stats(image, mask=masked)
        smoothed = gaussian_filter(np.where(bad, 0, image - sky), width)
        level, deviation = sigma_clipped_stats(smoothed, mask=masked)[1:]
        segments = detect_sources(smoothed - level, 3 * deviation, 25, mask=bad)
        if segments is None:
            break
        beside = bad | binary_dilation(segments.data > 0, iterations=round(3 * width) + 3)
        if beside.mean() > 0.9:
            break
        masked = beside
    return float(sky), float(noise), segments, smoothed


def refer(image: np.ndarray) -> tuple[Reference, np.ndarray, float]:
    """Measure an image (S, S) by statmorph and photutils; return as well the mask (S, S) and the sky they had."""
    import statmorph
    from photutils.profiles import RadialProfile
    from photutils.segmentation import deblend_sources
    from scipy.ndimage import binary_dilation

    nothing = Reference()
    bad = ~np.isfinite(image)
    sky, noise, segments, smoothed = _detected(image, bad, max(1.5, len(image) / 100))
    if segments is None:
        return nothing, bad, sky
    segments = deblend_sources(smoothed, segments, 25, contrast=0.05, progress_bar=False).data
    middle = (len(image) - 1) / 2
    axis = np.arange(len(image))
    distance = np.hypot(axis - middle, axis[:, None] - middle)
    nearest = np.unravel_index(np.where(segments > 0, distance, np.inf).argmin(), distance.shape)
    own = segments == segments[nearest]
    mask = bad | (binary_dilation((segments > 0) & ~own, iterations=3) & ~own)
    light = np.where(mask, 0, image - sky)
    try:
        (found,) = statmorph.source_morphology(light, own.astype(int), mask=mask, weightmap=np.full(image.shape, noise))
    except Exception:  # statmorph ends in many ways on a shape that it does not expect
        return nothing, mask, sky
    petrosian, centre = float(found.rpetro_circ), (float(found.xc_asymmetry), float(found.yc_asymmetry))
    if found.flag > 1 or petrosian < 2 or found.rhalf_circ < 0 or distance[nearest] > 0.1 * len(image):
        return nothing, mask, sky
    about = np.hypot(axis - centre[0], axis[:, None] - centre[1])
    reach = 2 * petrosian
    hidden = mask[about < reach].mean()
    edges = np.arange(0, reach + 0.5, 0.5)
    # What is hidden of a ring is as bright as the rest of it.
    rings = np.nan_to_num(RadialProfile(light, centre, edges, mask=mask).profile)
    radii, growth = edges[1:], (rings * np.pi * np.diff(edges**2)).cumsum()
    half = float(np.interp(0.5 * growth[-1], np.maximum.accumulate(growth), radii))
    # An error of all light moves its half by half as much over the curve's slope there.
    sky_error = noise * np.sqrt(np.pi / 2 / max((~mask & ~own & (about > reach)).sum(), 1))
    error = np.hypot(noise * np.sqrt(np.pi) * reach, np.pi * reach**2 * sky_error)
    slope = (np.interp(1.2 * half, radii, growth) - np.interp(half / 1.2, radii, growth)) / 0.4
    error = float(0.5 * error / max(slope, 1e-30))
    doubt = ""
    if half < LEAST:
        doubt = "few pixels"
    elif reach > 0.6 * len(image):
        doubt = "fills its frame"
    elif hidden > COVERED:
        doubt = "neighbours or bad pixels on it"
    elif error > KNOWN_TO:
        doubt = "noise"
    return Reference(petrosian, float(found.rhalf_circ), half, error, doubt), mask, sky


def measured(image: np.ndarray) -> FluxPhotometry:
    """Measure an image (S, S) as observed; lengths are pixels."""
    return measure_flux(torch.from_numpy(image.astype(np.float32))[None, None], 1.0)


def disturbed(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the image, and with a sky of 30 times its noise, in another unit, and with a star in a corner."""
    from astropy.stats import mad_std

    side = len(image)
    image = image / mad_std(image, ignore_nan=True)
    axis, place = np.arange(side), 0.08 * side
    star = np.exp(-((axis - place) ** 2 + (axis[:, None] - place) ** 2) / (2 * 1.5**2))
    brightest = np.nanpercentile(image, 99.9) - np.nanmedian(image)
    return {"ours": image, "sky": image + 30, "unit": image * 1e-6, "star": image + STAR * brightest * star}


class Row(NamedTuple):
    """A galaxy: image, mask of the others, reference, and our (petrosian, half light) by disturbance."""

    cutout: Cutout
    mask: np.ndarray
    sky: float
    reference: Reference
    ours: dict[str, tuple[float, float]]

    def compared(self) -> bool:
        """Tell whether statmorph and photutils, or the catalogue, say how large it is."""
        return bool(self.ours) and (not self.reference.doubt or np.isfinite(self.cutout.catalogue))

    def ratios(self) -> dict[str, float]:
        """Return our radii over the references', and disturbed ones."""
        petrosian, half = self.ours["ours"]
        ratios = {
            "Petrosian": petrosian / self.reference.petrosian,
            "half": half / self.reference.half_light,
            "half, photutils": half / self.reference.growth,
        }
        ratios["half, catalogue"] = half / self.cutout.catalogue
        ratios |= {f"{name}, photutils": values[1] / self.reference.growth for name, values in self.ours.items()}
        del ratios["ours, photutils"]
        return ratios


def compare(cutout: Cutout) -> Row:
    """Measure a cutout by all programs; ours only where the others find a galaxy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of, the flag and the doubt say
        reference, mask, sky = refer(cutout.image)
    ours = {}
    seen = np.isfinite(reference.growth)
    if reference.doubt and np.isfinite(cutout.catalogue):
        reference = Reference(doubt=reference.doubt)
    if seen or np.isfinite(cutout.catalogue):
        for name, image in disturbed(cutout.image).items():
            found = measured(image)
            seen = np.nan if int(found.flag) & NO_SOURCE else 1.0
            ours[name] = (seen * float(found.petrosian_radius_arcsec), seen * float(found.petrosian_half_light_arcsec))
    return Row(cutout, mask, sky, reference, ours)


def save_sheet(rows: Sequence[Row], path: Path) -> None:
    """Draw galaxies with our radii (yellow) and the references' (cyan), what the references leave out in red."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across = 6
    figure, axes = plt.subplots(-(-len(rows) // across), across, figsize=(15, 2.7 * -(-len(rows) // across)))
    for plot in axes.flat:
        plot.axis("off")
    for plot, row in zip(axes.flat, rows, strict=False):
        image = row.cutout.image - row.sky
        plot.imshow(np.arcsinh(image / np.nanstd(image[image < 0]) / 2), cmap="gray", origin="lower", vmin=-1, vmax=4)
        if row.mask.any():
            plot.contour(row.mask, [0.5], colors="red", linewidths=0.6)
        middle = (len(image) - 1) / 2
        others = (row.reference.petrosian, row.reference.half_light)
        for radii, color in ((row.ours["ours"], "yellow"), (others, "cyan")):
            for radius in radii:
                plot.add_patch(plt.Circle((middle, middle), radius, fill=False, color=color, linewidth=0.8))
        plot.set_title(f"{row.cutout.instrument} {row.cutout.name}", fontsize=8)
        plot.set_xlim(0, len(image) - 1)
        plot.set_ylim(0, len(image) - 1)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--images",
        type=Path,
        default=Path("../shared/science_images"),
        metavar="DIR",
        help="folder with any of decals_cutouts, decals_psf, cosmos_f814w, jwst_ceers and kids_field "
        "(default: ../shared/science_images)",
    )
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="picture of what is off by more than 5 %%")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows: list[Row] = []
    moved: dict[str, list[tuple[float, str]]] = {"sky": [], "unit": [], "star": []}
    doubts: dict[str, Counter[str]] = {}
    print("ours over the others': Petrosian; half light by statmorph, by photutils, by the catalogue; by photutils")
    print("with a sky, in another unit, with a star")
    for cutout in cutouts(options.images):
        row = compare(cutout)
        doubts.setdefault(cutout.instrument, Counter())[row.reference.doubt or "compared"] += 1
        if row.ours:
            for kind, changes in moved.items():
                change = abs(row.ours[kind][1] / row.ours["ours"][1] - 1)
                changes.append((change, f"{cutout.instrument} {cutout.name}"))
        if row.compared():
            rows.append(row)
            ratios = "  ".join(f"{ratio:5.3f}" for ratio in row.ratios().values())
            radius, error = row.reference.growth, 100 * row.reference.error
            print(
                f"{cutout.instrument:10s} {cutout.name:>17s} {radius:6.2f} px +- {error:3.1f} %  {ratios}", flush=True
            )
    for instrument, counts in doubts.items():
        print(f"{instrument}: " + ", ".join(f"{count} {doubt}" for doubt, count in counts.items()))
    if not rows:
        return
    print("median ratio, and part within 5 %")
    for name in rows[0].ratios():
        values = np.array([row.ratios()[name] for row in rows])
        values = values[np.isfinite(values)]
        if len(values):
            print(f"  {name:18s} {np.median(values):.3f}  {(np.abs(values - 1) <= 0.05).mean():.2f} of {len(values)}")
    for kind, changes in moved.items():
        largest = sorted((each for each in changes if np.isfinite(each[0])), reverse=True)
        few = sum(change <= 0.05 for change, _ in largest)
        print(f"{kind}: changes {few} of {len(largest)} half-light radii, compared or not, by 5 % or less; most of all")
        print(", ".join(f"{name} {100 * change:.0f} %" for change, name in largest[:6]))
    if options.sheet:
        save_sheet(
            [row for row in rows if any(abs(ratio - 1) > 0.05 for ratio in row.ratios().values())], options.sheet
        )


if __name__ == "__main__":
    run_script(main)
