"""Settings and tables that every script shares.

Two tables say what a galaxy can be asked to have, its morphology class and its physical attributes, and a third which
planes its image has. The condition vector, the loader, the networks, the command lines, the sliders and the reports
all read them, so their order is decided once. The settings of a run (`Config`) are declared here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from galaxies.common.attributes import Attribute, attribute_defined, fault_of_name
from galaxies.common.errors import UserError, shown
from galaxies.common.settings import KIND_WORDS, check_kind, check_settings, setting

SOLVERS = ("sde", "dpm", "ddim", "ddpm")  # see `galaxies.generation.solvers.Solver`
RELEASED = "released"  # folder in checkpoints/ of what comes with the program
KINDS = ("display", "flux")  # of data: colour pictures as people see them, or light in nanojansky a pixel
MOST_BANDS = 12
# AB magnitude of a nanojansky, 8.9 + 2.5 log10(1e9): magnitude 0 is 3631 Jy (Oke & Gunn 1983).
AB_ZERO_POINT = 31.4


@dataclass(frozen=True)
class Morphology:
    """One class of the condition vector; its place in `MORPHOLOGIES` is its class index."""

    name: str
    label: str
    description: str


MORPHOLOGIES = (
    Morphology("spiral", "Spiral", "disc galaxy with features, seen from above or inclined"),
    Morphology("elliptical", "Elliptical", "smooth galaxy without a disc or arms"),
    Morphology("merger", "Merger", "two or more galaxies interacting"),
    Morphology("edge-on", "Edge-on", "disc galaxy seen from the side"),
)
MORPHOLOGY_NAMES = tuple(m.name for m in MORPHOLOGIES)


ONE_CLASS = "galaxy"  # of a dataset whose galaxies nobody has sorted
MOST_CLASSES = 64
MOST_CLASS_TEXT = 100  # characters of a class's label and of its description
_CLASS_NAME = re.compile(r"[^\W_][\w .,:/()+-]{0,39}")


def fault_of_classes(names: Sequence[str]) -> str:
    """Tell what is wrong with the classes of a new dataset, as a clause; nothing if they are as they have to be.

    A name is a letter or digit and up to 39 more characters: letters, digits, blanks and ``_ . , : / ( ) + -``. Names
    that differ by capitals alone are two, as in SAb and Sab. There are 1 to `MOST_CLASSES`.
    """
    if not names:
        return "there is no class"
    for name in names:
        if not _CLASS_NAME.fullmatch(name) or name != name.strip():
            return (
                f"{shown(name)} is no name of a class: that is a letter or digit and up to 39 more of letters, digits, "
                "blanks and _ . , : / ( ) + -"
            )
        if names.count(name) > 1:
            return f"{shown(name)} is the name of two classes"
    if len(names) > MOST_CLASSES:
        return f"there are {len(names)} classes, such as {shown(names[0])}, where up to {MOST_CLASSES} are possible"
    return ""


def morphologies_of(
    names: Sequence[str], labels: Sequence[str] = (), descriptions: Sequence[str] = ()
) -> tuple[Morphology, ...]:
    """Return classes by their names, with labels and descriptions where they are told, in the order of the names.

    One without a label has that of `MORPHOLOGIES`, or where it is not there is called by its name.
    """
    table = {m.name: m for m in MORPHOLOGIES}
    rows = []
    for place, name in enumerate(names):
        row = table.get(name) or Morphology(name, _label(name), "")
        label, about = (told[place] if told else "" for told in (labels, descriptions))
        rows.append(Morphology(name, label or row.label, about or row.description))
    return tuple(rows)


def _label(name: str) -> str:
    text = name.replace("-", " ").replace("_", " ")
    return text[:1].upper() + text[1:]


def morphology_index(name: str, classes: Sequence[str] = MORPHOLOGY_NAMES) -> int:
    """Return the class index of a morphology name among `classes`.

    Other capitals, `edge_on`, `edge on`, quotes and blanks around it and an s at its end are accepted where they leave
    no doubt.

    Raises
    ------
    UserError
        If the name is none of the classes, or two of them differ from it by capitals and the like alone.
    """
    if (exact := name.strip(_AROUND)) in classes:
        return list(classes).index(exact)
    known: dict[str, list[int]] = {}
    for index, one in enumerate(classes):
        known.setdefault(_plain_name(one), []).append(index)
    plain = _plain_name(name)
    found = known.get(plain) or known.get(plain.removesuffix("s")) or []
    if len(found) > 1:
        alike = " and ".join(classes[index] for index in found)
        raise UserError(f"morphology {shown(name)} may be {alike}: write it as it stands there")
    if not found:
        near = difflib.get_close_matches(plain, known, 1) if len(classes) > _FEW_CLASSES else []
        hint = f"; is it {classes[known[near[0]][0]]}?" if near else ""
        raise UserError(f"unknown morphology {shown(name)}: choose one of {', '.join(classes)}{hint}")
    return found[0]


_FEW_CLASSES = 8  # which are seen at a glance
_AROUND = " \t\r\n\"'"  # of a name


def _plain_name(name: str) -> str:
    return "-".join(name.strip(_AROUND).lower().replace("_", " ").replace("-", " ").split())


@dataclass(frozen=True)
class Band:
    """One plane of an image; its place in `BANDS` is its place among the planes.

    Attributes
    ----------
    name, label : str
        Name in files; name for people.
    description : str
        What light it shows.
    """

    name: str
    label: str
    description: str


BAND_NAME = re.compile(r"[A-Za-z0-9]{1,16}")  # of a filter of a telescope: g, Ks, F814W
# Display data: the planes of a colour picture, which SDSS composites fill with the bands i, r and g.
BANDS = (
    Band("r", "Red", "red plane; the i band in an SDSS composite"),
    Band("g", "Green", "green plane; the r band in an SDSS composite"),
    Band("b", "Blue", "blue plane; the g band in an SDSS composite"),
)
BAND_NAMES = tuple(band.name for band in BANDS)
IMAGE_SIZES = (64, 128, 256)  # pixels a side


# Ranges hold at least the central 99 % of real SDSS galaxies (photometry) or of the GZ2 main sample.
# fmt: off
_ATTRIBUTE_ROWS = (
    Attribute("size", "Half-light radius", "frame widths", 0.05, 0.28, "photometry",
              "radius of the circle that holds half of the galaxy's light, as a fraction of the frame's width",
              plausible=(0.001, 0.5)),  # light spread evenly over the frame has 0.4
    Attribute("brightness", "Surface brightness", "display units", 0.05, 0.6, "photometry",
              "mean of R, G and B (0 to 1) within the half-light radius, above the sky; the picture is "
              "asinh-stretched, so this is a display brightness and not a flux", plausible=(0.001, 1.0)),
    Attribute("ellipticity", "Ellipticity", "", 0.0, 0.9, "photometry",
              "1 - b/a from the second moments of the galaxy's light", plausible=(0.0, 0.99)),
    Attribute("redshift", "Redshift", "", 0.0, 0.25, "catalogue",
              "spectroscopic redshift from the catalogue", plausible=(0.0, 10.0)),
    Attribute("concentration", "Concentration", "", 1.4, 3.6, "photometry",
              "5 log10(r80 / r20) of the display-stretched light (after Conselice 2003, eq. 5)",
              plausible=(0.0, 10.0)),  # r80 is never below r20, nor a hundred times as large on so few pixels
    Attribute("color", "Display color B - R", "mag", -1.0, 1.6, "photometry",
              "-2.5 log10 of the ratio of blue-plane to red-plane light (g and i in an SDSS composite); redder is "
              "larger", plausible=(-10.0, 10.0)),  # 255 grey levels are 6 mag
    Attribute("petro_r50_kpc", "Petrosian R50", "kpc", 0.0, 20.0, "catalogue",
              "Petrosian half-light radius in the r band", plausible=(0.0, 200.0)),
    Attribute("absolute_magnitude", "Absolute magnitude", "mag", -24.0, -16.0, "catalogue",
              "r-band Petrosian magnitude M_r", plausible=(-30.0, -5.0)),
    Attribute("stellar_mass", "Stellar mass", "log10 solar masses", 8.0, 12.0, "catalogue",
              "decimal logarithm of the mass", plausible=(4.0, 14.0)),
    Attribute("arm_count", "Spiral arms", "", 1.0, 4.0, "structure",
              "number of arms of a spiral, unknown of other galaxies", plausible=(0.0, 20.0)),
    Attribute("bar", "Bar", "", 0.0, 0.25, "structure",
              "part of a spiral disc's light that is in its bar, 0 without one; unknown of other galaxies",
              plausible=(0.0, 1.0)),
    Attribute("bulge", "Bulge", "", 0.0, 0.6, "structure",
              "part of a disc galaxy's light in r that is in its bulge; unknown of other galaxies",
              plausible=(0.0, 1.0)),
    Attribute("ring", "Ring votes", "", 0.0, 1.0, "structure",
              "fraction of all people who saw a ring", plausible=(0.0, 1.0)),
    Attribute("odd", "Votes for anything odd", "", 0.0, 1.0, "structure",
              "fraction of all people who saw something odd, such as a ring, dust, a disturbance or a merger",
              plausible=(0.0, 1.0)),
    Attribute("vote_count", "Votes (normalised)", "", 0.3, 1.0, "votes",
              "0.3 + 0.7 x total_votes min-max normalised: how often people voted, called size in the original "
              "recipe", plausible=(0.3, 1.0), raw=True),
    Attribute("vote_smoothness", "Smooth votes", "", 0.2, 1.0, "votes",
              "0.2 + 0.8 x the smooth vote fraction, called brightness in the original recipe",
              plausible=(0.2, 1.0), raw=True),
    Attribute("vote_elongation", "Elongation votes", "", 0.0, 0.9, "votes",
              "0, 0.45 and 0.9 weighted by the round, in-between and cigar-shaped votes, called ellipticity in "
              "the original recipe", plausible=(0.0, 0.9), raw=True),
    Attribute("random_redshift", "Random number", "", 0.0, 0.5, "random",
              "uniform random placeholder without information, called redshift in the original recipe",
              plausible=(0.0, 0.5), raw=True),
)
# fmt: on
ATTRIBUTES = {row.name: row for row in _ATTRIBUTE_ROWS}
PHOTOMETRIC_ATTRIBUTES = tuple(a.name for a in _ATTRIBUTE_ROWS if a.source == "photometry")
CATALOGUE_ATTRIBUTES = tuple(a.name for a in _ATTRIBUTE_ROWS if a.source == "catalogue")
STRUCTURE_ATTRIBUTES = tuple(a.name for a in _ATTRIBUTE_ROWS if a.source == "structure")
PAPER_ATTRIBUTES = ("vote_count", "vote_smoothness", "vote_elongation", "random_redshift")


# What is measured on light in nanojansky whatever its bands; ellipticity, concentration and redshift are as above. The
# ranges are those of faint survey galaxies; a run takes those of its data, see `Config.attribute_ranges`.
# fmt: off
_FLUX_ROWS = (
    Attribute("size_arcsec", "Half-light radius", "arcsec", 0.1, 5.0, "flux",
              "radius of the circle that holds half of the galaxy's light", plausible=(0.0, 3600.0)),
    Attribute("petrosian_radius_arcsec", "Petrosian radius", "arcsec", 0.2, 15.0, "flux",
              "radius at which the surface brightness is 0.2 of the mean within (Petrosian 1976)",
              plausible=(0.0, 3600.0)),
    Attribute("intrinsic_concentration", "Concentration before the PSF", "", 1.8, 5.5, "flux",
              "5 log10(r80 / r20) of the light before the PSF blurred it, within 1.5 Petrosian radii (Conselice 2003, "
              "eq. 5)", plausible=(0.0, 40.0)),
    Attribute("size_kpc", "Half-light radius", "kpc", 0.0, 20.0, "flux",
              "half-light radius at the galaxy's distance, where its redshift is known", plausible=(0.0, 500.0)),
    Attribute("asymmetry", "Asymmetry", "", -0.1, 0.5, "flux",
              "part of the light that a half turn does not map onto itself (Conselice 2003, eq. 2)",
              plausible=(-2.0, 2.0)),
    Attribute("gini", "Gini coefficient", "", 0.3, 0.7, "flux",
              "how unevenly the light is spread over the pixels (Lotz et al. 2004, eq. 6)", plausible=(-0.01, 1.0)),
    Attribute("m20", "M20", "", -2.5, -0.5, "flux",
              "second moment of the brightest fifth of the light (Lotz et al. 2004, eq. 8)", plausible=(-6.0, 0.0)),
    Attribute("inclination", "Inclination", "deg", 0.0, 90.0, "catalogue",
              "of a disc, 0 face-on and 90 edge-on (Hubble 1926); unknown of galaxies that are none",
              plausible=(0.0, 90.0)),
)
# fmt: on
FLUX_ATTRIBUTES = {row.name: row for row in _FLUX_ROWS}
# What a catalogue of galaxies in flux may tell.
FLUX_CATALOGUE_ATTRIBUTES = (
    *CATALOGUE_ATTRIBUTES,
    *(a.name for a in _FLUX_ROWS if a.source == "catalogue"),
    *STRUCTURE_ATTRIBUTES,
)
_OF_A_BAND = re.compile(rf"(magnitude|surface_brightness)_({BAND_NAME.pattern})")
_OF_TWO_BANDS = re.compile(rf"color_({BAND_NAME.pattern})_({BAND_NAME.pattern})")


def attribute_of(name: str) -> Attribute | None:
    """Return an attribute by its name, None if there is none of it.

    Beside those of the tables there are ``magnitude_<band>``, ``surface_brightness_<band>`` and
    ``color_<band>_<band>``, the first magnitude less the second, of any bands.
    """
    if name in ATTRIBUTES or name in FLUX_ATTRIBUTES:
        return ATTRIBUTES.get(name) or FLUX_ATTRIBUTES[name]
    if found := _OF_A_BAND.fullmatch(name):
        kind, band = found.groups()
        if kind == "magnitude":
            about = f"AB magnitude of all the light in band {band}"
            return Attribute(name, f"Magnitude {band}", "mag", 16.0, 26.0, "flux", about, plausible=(-5.0, 45.0))
        about = f"AB magnitude of a square arcsecond in band {band}, mean within the half-light radius"
        label = f"Surface brightness {band}"
        return Attribute(name, label, "mag/arcsec2", 18.0, 28.0, "flux", about, plausible=(0.0, 45.0))
    if (found := _OF_TWO_BANDS.fullmatch(name)) and found[1] != found[2]:
        first, second = found.groups()
        about = f"AB magnitude in band {first} less that in band {second}: redder is larger"
        return Attribute(name, f"Color {first} - {second}", "mag", -1.0, 3.0, "flux", about, plausible=(-15.0, 15.0))
    return None


def bands_of_attribute(name: str) -> tuple[str, ...]:
    """Return the bands that an attribute of flux is named after, none for others."""
    found = _OF_A_BAND.fullmatch(name)
    if found:
        return (found[2],)
    found = _OF_TWO_BANDS.fullmatch(name)
    return found.groups() if found and name not in ATTRIBUTES else ()


def check_own_name(name: str) -> None:
    """Refuse a name for an attribute of a user's own that it cannot have; see `fault_of_name`.

    Raises
    ------
    UserError
    """
    fault = fault_of_name(name)
    if fault is None and (attribute_of(name) or bands_of_attribute(name)):
        fault = f"{name} is an attribute that the program knows: choose another name, with column={name} beside it"
    if fault:
        raise UserError(f"attribute {shown(name)}: {fault}")


def attribute_table(names: Sequence[str], own: Sequence[Attribute] = ()) -> tuple[Attribute, ...]:
    """Look up attributes by name, in the order given, among those of the tables and a user's own.

    Raises
    ------
    UserError
        If a name is unknown or given twice.
    """
    table = []
    others = {row.name: row for row in own}
    for name in names:
        if (found := others.get(name) or attribute_of(name)) is None:
            columns = f"{', '.join(others)}, " if others else ""
            raise UserError(
                f"unknown attribute {shown(name)}: choose from {columns}{', '.join(ATTRIBUTES)}, or for data in flux "
                f"from magnitude_BAND, color_BAND_BAND, surface_brightness_BAND, {', '.join(FLUX_ATTRIBUTES)}"
            )
        if list(names).count(name) > 1:
            raise UserError(f"attribute '{name}' is named twice")
        table.append(found)
    return tuple(table)


_MOST_NAMED = 12  # settings in a sentence
MOST_DEFINITION = 250  # characters of a line that tells an attribute


@dataclass(frozen=True)
class Config:
    """Settings of one training run; each field is also a command-line option of `galaxy.py`.

    Raises
    ------
    UserError
        On construction, naming the field, the value and the allowed range.
    """

    # Run
    data: str = setting("", "folder of the prepared dataset (default: the only one under data/)")
    run: str = setting("", "name of the run, a new folder in checkpoints/ and samples/ (default: the next free one)")
    recipe: str = setting(
        "default",
        "set of settings to start from: that of the machine at hand (default), one for two CPU cores, for a laptop's "
        "GPU or for a datacenter's, all of what stands here as it stands (full), or the original document's (paper)",
        choices=("default", "cpu", "laptop", "datacenter", "full", "paper"),
    )
    attributes: tuple[str, ...] = setting(
        ("size", "brightness", "ellipticity", "redshift"), "attributes to condition on, separated by commas"
    )
    diffusion: bool = setting(False, "train the diffusion model instead of the GAN")
    seed: int = setting(0, "seed of everything random in the run", low=0, high=2**31 - 1)
    device: str = setting("auto", "where to compute: auto, cpu, cuda, cuda:N or mps")
    precision: str = setting(
        "auto",
        "arithmetic of the networks; auto takes bf16 where it is fast",
        choices=("auto", "fp32", "bf16"),
    )
    engine: str = setting(
        "auto",
        "how training steps run: recorded as CUDA graphs, or operation by operation; auto records them on CUDA",
        choices=("auto", "graph", "eager"),
    )
    compile: str = setting(
        "auto",
        "compile what training steps do in many small operations, which takes a minute; auto does so on CUDA, where "
        "Triton is there and the run is long",
        choices=("auto", "on", "off"),
    )

    # Data: as in the prepared dataset
    kind: str = setting("display", "colour pictures, or flux in nanojansky a pixel", choices=KINDS, option=False)
    bands: tuple[str, ...] = setting(BAND_NAMES, "planes of an image", option=False)
    classes: tuple[str, ...] = setting(MORPHOLOGY_NAMES, "classes of galaxies", option=False)
    class_labels: tuple[str, ...] = setting((), "what people call each class (none: by its name)", option=False)
    class_descriptions: tuple[str, ...] = setting((), "what each class is, in words (none: not told)", option=False)
    softening: tuple[float, ...] = setting(
        (), "flux at which a band's stretch turns from linear to logarithmic, nJy a pixel", option=False
    )
    pixel_scale: float = setting(0.0, "of flux, arcseconds a pixel", low=0.0, high=3600.0, option=False)
    psf_fwhm: tuple[float, ...] = setting(
        (), "full width at half maximum of a band's usual PSF, arcseconds, 0 where unknown", option=False
    )
    wavelengths: tuple[float, ...] = setting(
        (), "of flux, nanometres a band, 0 where unknown (none: all)", option=False
    )
    photons: tuple[float, ...] = setting(
        (),
        "of flux, variance that a nanojansky of light adds to a band's pixel, nJy, 0 where unknown (none: all)",
        option=False,
    )
    psf_profile: str = setting(
        "kolmogorov", "shape of PSFs of which the width alone is known, such as moffat:3.5", option=False
    )
    psf_pixels: int = setting(0, "side of PSFs that are images, 0 where none are", low=0, high=255, option=False)
    attribute_ranges: tuple[float, ...] = setting(
        (), "low and high end of each attribute's slider and scaling (none: those of the table)", option=False
    )
    attribute_definitions: tuple[str, ...] = setting(
        (), "attributes that are columns of a user's own: name, label, unit, scale and range, a line each", option=False
    )

    # Telescope
    telescope: str = setting(
        "on",
        "on flux, paint galaxies as they are and let the telescope of the real galaxy beside observe them, with its "
        "PSF, pixels and noise; off paints what telescopes show",
        choices=("on", "off"),
    )
    oversampling: int = setting(
        2,
        "pixels of the painted light for one of the telescope's along each axis",
        choices=(2, 4),
        needs={"telescope": ("on",)},
    )

    # Networks
    image_size: int = setting(64, "pixels a side, as in the prepared dataset", choices=IMAGE_SIZES, option=False)
    latent_dim: int = setting(100, "length of the noise vector", low=3, high=4096, family="GAN")
    width: int = setting(64, "channels of the thinnest layer of every network", low=4, high=512)
    generator: str = setting(
        "frame",
        "generator: drawn in the galaxy's own frame, of residual blocks, or a DCGAN that doubles its maps by resizing "
        "or by transposed convolutions",
        choices=("frame", "residual", "resize", "transposed"),
        family="GAN",
    )
    batch_norm: bool = setting(
        True,
        "normalise the maps of the frame's generator over the batch; residual blocks never do",
        family="GAN",
        needs={"generator": ("frame", "residual")},
    )
    profiles: str = setting(
        "coarse",
        "in the galaxy's own frame, radial profiles are drawn at half the image's side, or fine, once more at the "
        "whole side, for cusps as sharp as its pixels; fine where light is painted",
        choices=("coarse", "fine"),
        needs={"generator": ("frame",)},
        family="GAN",
    )
    detail_stages: bool = setting(
        True,
        "above 64 pixels a side, make the generator in the galaxy's frame and the projection discriminator those of 64 "
        "pixels with thin layers that add detail at every doubling, and let the predictor look at 64 pixels; else all "
        "maps are larger",
    )
    pixel_noise: bool = setting(
        True, "add grain to the generator's images, measured on the sky of the training images", family="GAN"
    )
    discriminator: str = setting(
        "projection",
        "discriminator: with the condition projected on its features, the same of residual blocks, or a DCGAN",
        choices=("projection", "residual", "dcgan"),
        family="GAN",
    )
    dropout: float = setting(0.3, "dropout rate of the predictor's hidden layer", low=0.0, high=0.9)
    condition_mask: bool = setting(True, "tell the networks which attributes are unknown, one more input for each")
    soft_classes: bool = setting(
        False,
        "tell the networks each galaxy's shares of the classes, as the data has them in columns class_share_NAME, "
        "instead of its one class",
    )

    # Diffusion
    diffusion_steps: int = setting(
        1000, "steps in which images turn into noise", low=2, high=100_000, family="diffusion"
    )
    noise_schedule: str = setting(
        "cosine",
        "how they do: cosine, until nothing is left, or linear in beta from 1e-4 to 0.02",
        choices=("cosine", "linear"),
        family="diffusion",
    )
    noise_shift: float = setting(
        4.0,
        "how many times as strong the noise of the cosine schedule is as in the plain one; smooth images need more",
        low=0.1,
        high=100.0,
        family="diffusion",
    )
    prediction: str = setting(
        "v",
        "what the U-Net predicts: velocity, or noise, which tells nothing of the image where no signal is left",
        choices=("v", "noise"),
        family="diffusion",
        needs={"noise_schedule": ("linear",)},
    )
    low_noise_share: float = setting(
        0.25,
        "share of the noise levels drawn at 0.02 to 0.3 of the signal, which decide the grain of the sky",
        high=1.0,
        family="diffusion",
    )
    min_snr_gamma: float = setting(
        500.0,
        "largest weight of a step by its signal-to-noise ratio (0: all steps weigh alike, in the physics loss too)",
        high=1e6,
        family="diffusion",
    )
    condition_dropout: float = setting(
        0.1, "part of the images that are shown without their condition", high=1.0, family="diffusion"
    )
    unet_blocks: int = setting(2, "residual blocks a level of the U-Net", low=1, high=8, family="diffusion")
    unet_patch: int = setting(
        2, "pixels a side that enter the U-Net together; 4 is faster and coarser", choices=(1, 2, 4), family="diffusion"
    )
    normalize: bool = setting(True, "give the U-Net images of zero mean and unit variance", family="diffusion")
    stratified: bool = setting(True, "spread the noise levels of a batch evenly", family="diffusion")
    solver: str = setting(
        "sde",
        "solver of sample grids: sde or dpm (DPM-Solver++ with and without noise), ddim or ddpm",
        choices=SOLVERS,
        family="diffusion",
    )
    solver_steps: int = setting(20, "steps of the solver", low=1, high=100_000, family="diffusion")
    guidance: float = setting(
        1.0,
        "weight of classifier-free guidance when sampling (1: none)",
        high=100.0,
        family="diffusion",
        needs={"condition_dropout": None},
    )

    # Physics
    pretrain_epochs: int = setting(30, "epochs of phase 1, the physics predictor on real images", low=1, high=100_000)
    pretrain_learning_rate: float = setting(2e-3, "step size of Adam in phase 1", low=0.0, high=1.0)
    pretrain_decay: bool = setting(True, "lower that step size linearly to zero over phase 1")
    uncertainty: bool = setting(
        True, "let the predictor estimate its error, and weigh an attribute by what a picture tells of it"
    )
    readable_only: bool = setting(
        True,
        "hold the generator by the predictor only to attributes that a tenth of the training galaxies know and that "
        "the predictor reads off test galaxies, with an R2 of 0.1 or more",
    )
    physics_weight: float = setting(3.0, "weight of the predictor in the generator's loss", low=0.0, high=1e6)
    photometry_weight: float = setting(10.0, "weight of photometry in the generator's loss", low=0.0, high=1e6)

    # Optimisation
    epochs: int = setting(150, "epochs of phase 2, the generator", low=1, high=100_000)
    batch_size: int = setting(64, "images a training step", low=2, high=65_536)
    learning_rate: float = setting(1e-3, "step size of Adam in phase 2", low=0.0, high=1.0)
    decay: float = setting(
        0.4, "last part of phase 2 over which that step size falls linearly to zero (0: none)", low=0.0, high=1.0
    )
    learning_rate_width: int = setting(
        32,
        "width for which that step size is meant: in a wider U-Net the weights between its channels take steps smaller "
        "by this width over its own (0: the same steps at every width)",
        low=0,
        high=512,
        family="diffusion",
    )
    warmup: int = setting(
        0, "steps over which that step size first rises linearly from zero (0: none)", low=0, high=1_000_000
    )
    beta1: float = setting(0.5, "Adam's decay rate of the first moment", low=0.0, high=0.9999)
    beta2: float = setting(0.999, "Adam's decay rate of the second moment", low=0.0, high=0.999999)
    clip_norm: float = setting(1.0, "largest gradient norm of a network", low=1e-6, high=1e6)
    adversarial: str = setting(
        "bce",
        "adversarial loss: cross-entropy with smoothed labels, or of pairs of a real and a generated image",
        choices=("bce", "relativistic"),
        family="GAN",
    )
    real_label: float = setting(
        0.9, "discriminator's target for real images", low=0.5, high=1.0, family="GAN", needs={"adversarial": ("bce",)}
    )
    fake_label: float = setting(
        0.1,
        "discriminator's target for generated images",
        low=0.0,
        high=0.5,
        family="GAN",
        needs={"adversarial": ("bce",)},
    )
    r1_weight: float = setting(
        0.2, "weight gamma of the discriminator's gradient penalty on real images, R1 (0: none)", high=1e6, family="GAN"
    )
    r2_weight: float = setting(0.0, "the same on generated images, R2 (0: none)", high=1e6, family="GAN")
    regression_weight: float = setting(
        10.0,
        "weight of the attributes that the discriminator reads off images, in its loss and in the generator's "
        "(0: it reads none, as a DCGAN never does)",
        high=1e6,
        off=0.0,
        family="GAN",
        needs={"discriminator": ("projection", "residual")},
    )
    class_weight: float = setting(
        0.0,
        "the same for the class",
        high=1e6,
        family="GAN",
        needs={"discriminator": ("projection", "residual")},
    )
    augment_discriminator: str = setting(
        "none",
        "turn, mirror and shift some of the images that the discriminator sees: none, half of them, or adaptively as "
        "many as keep it from overfitting",
        choices=("none", "fixed", "adaptive"),
        family="GAN",
    )
    label_jitter: float = setting(
        0.0,
        "standard deviation of noise on the attributes that both networks are told, slider ranges",
        high=1.0,
        family="GAN",
    )
    free_requests: float = setting(
        0.0,
        "part of the images that the generator draws by requests of their own, made up of what galaxies of the class "
        "have, and of which the discriminator is told the class alone (0: none)",
        low=0.0,
        high=0.9,
        off=0.0,
        family="GAN",
        needs={"condition_mask": (True,)},
    )
    perceptual_weight: float = setting(
        0.0, "weight of the distance between features of generated and real images (0: none)", high=1e6, family="GAN"
    )
    perceptual: str = setting(
        "predictor",
        "whose features: those of the physics predictor, or of VGG-16",
        choices=("predictor", "vgg16"),
        family="GAN",
        needs={"perceptual_weight": None, "vgg_weights": None},
    )
    vgg_weights: str = setting(
        "", "file of torchvision's weights of VGG-16", family="GAN", needs={"perceptual": ("vgg16",)}
    )
    ema_decay: float = setting(0.999, "decay a step of the averaged generator (0: no averaging)", low=0.0, high=0.99999)
    average_snapshots: int = setting(
        0,
        "times that two more averages of the generator are kept in the run's folder, evenly spaced, of which "
        "evaluate.py average makes one of any length afterwards (0: none)",
        high=1000,
    )
    on_nan: str = setting(
        "recover",
        "when a loss or gradient is not finite: leave that update out, and halve the network's step size after three "
        "in a row (recover), leave it out and no more (skip), or stop",
        choices=("recover", "skip", "stop"),
    )
    augment: bool = setting(True, "flip and turn the training images; a galaxy has no up")
    balanced: bool = setting(False, "draw all classes equally often instead of as they occur")

    # Output
    checkpoint_every: int = setting(10, "epochs between checkpoints and sample grids", low=1, high=100_000)
    log_every: int = setting(50, "steps between lines of metrics.jsonl", low=1, high=1_000_000)

    def __post_init__(self) -> None:
        check_settings(self)
        self._check_definitions()
        attribute_table(self.attributes, self.own_attributes)
        self._check_data()
        if not self.attributes:
            raise UserError("attributes is empty: name at least one, such as size")
        if not set(self.run) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
        ) or self.run.startswith((".", "-")):
            raise UserError(
                f"run is '{self.run}': use letters, digits, '.', '_' and '-', starting with none of the last"
            )
        if self.run == RELEASED:
            raise UserError(f"run is '{self.run}': that folder is for generators that come with the program")

    def _check_definitions(self) -> None:
        """Check what is told of attributes of a user's own."""
        lines = self.attribute_definitions
        if not all(isinstance(line, str) and len(line) <= MOST_DEFINITION for line in lines):
            raise UserError(f"attribute_definitions is {lines!r}: it takes a line for each attribute")
        names = [row.name for row in self.own_attributes]
        for name in names:
            check_own_name(name)
            if names.count(name) > 1:
                raise UserError(f"attribute_definitions is {lines!r}: it tells {name} twice")

    def _check_data(self) -> None:
        """Check what comes from the dataset."""
        named = all(isinstance(band, str) and BAND_NAME.fullmatch(band) for band in self.bands)
        if not (named and 1 <= len(self.bands) <= MOST_BANDS and len(set(self.bands)) == len(self.bands)):
            raise UserError(
                f"bands is {self.bands!r}: it takes 1 to {MOST_BANDS} different names of letters and digits"
            )
        texts = all(isinstance(name, str) and name and name.isprintable() for name in self.classes)
        if not (texts and self.classes and len(set(self.classes)) == len(self.classes)):
            raise UserError(f"classes is {self.classes!r}: it takes different names, one or more")
        for name in ("class_labels", "class_descriptions"):
            texts = getattr(self, name)
            fits = all(isinstance(t, str) and len(t) <= MOST_CLASS_TEXT and (t.isprintable() or not t) for t in texts)
            if not fits or len(texts) not in (0, len(self.classes)):
                raise UserError(f"{name} is {texts!r}: it takes a line for each class, or none")
        flux = self.kind == "flux"
        if not flux and self.bands != BAND_NAMES:
            raise UserError(f"bands is {self.bands!r}: display pictures have {', '.join(BAND_NAMES)}")
        if len(self.softening) != flux * len(self.bands) or not all(_is_number(s) and s > 0 for s in self.softening):
            raise UserError(f"softening is {self.softening!r}: it takes a number above 0 for each band of flux")
        if flux and self.perceptual == "vgg16":
            raise UserError("perceptual is 'vgg16': that network knows colour pictures, not flux; leave it out")
        if flux and not self.pixel_scale > 0:
            raise UserError(f"pixel_scale is {self.pixel_scale}: flux needs arcseconds a pixel, above 0")
        for name in ("wavelengths", "photons"):
            values = getattr(self, name)
            if len(values) not in (0, flux * len(self.bands)) or not all(_is_number(v) and v >= 0 for v in values):
                raise UserError(f"{name} is {values!r}: it takes a number from 0 on for each band of flux, or none")
        if len(self.psf_fwhm) != flux * len(self.bands) or not all(_is_number(w) and w >= 0 for w in self.psf_fwhm):
            raise UserError(f"psf_fwhm is {self.psf_fwhm!r}: it takes a number from 0 on for each band of flux")
        ranges = self.attribute_ranges
        if len(ranges) not in (0, 2 * len(self.attributes)) or not all(map(_is_number, ranges)):
            raise UserError(f"attribute_ranges is {ranges!r}: it takes two numbers for each attribute, or none")
        if any(low >= high for low, high in zip(ranges[::2], ranges[1::2], strict=True)):
            raise UserError(f"attribute_ranges is {ranges!r}: a high end must lie above the low one")
        for row in self.attribute_rows:
            if row.scale == "log" and not row.low > 0:
                raise UserError(f"attribute_ranges is {ranges!r}: that of {row.name} has no logarithm")
        for name in self.attributes:
            if unknown := [band for band in bands_of_attribute(name) if band not in self.bands]:
                raise UserError(f"attribute '{name}' needs band {unknown[0]}: there are {', '.join(self.bands)}")

    @property
    def family(self) -> str:
        """Model family, "GAN" or "diffusion": the name under which tables of families know it."""
        return "diffusion" if self.diffusion else "GAN"

    @property
    def observes(self) -> bool:
        """Whether the generator paints light that a telescope then observes."""
        return self.kind == "flux" and self.telescope == "on"

    @property
    def num_bands(self) -> int:
        """Planes of an image."""
        return len(self.bands)

    @property
    def own_attributes(self) -> tuple[Attribute, ...]:
        """Attributes that are columns of a user's own, those that the run is conditioned on among them."""
        return tuple(attribute_defined(line) for line in self.attribute_definitions)

    @property
    def attribute_rows(self) -> tuple[Attribute, ...]:
        """The run's attributes, with the ranges of its data where it has any."""
        rows = attribute_table(self.attributes, self.own_attributes)
        if not self.attribute_ranges:
            return rows
        ends = zip(self.attribute_ranges[::2], self.attribute_ranges[1::2], strict=True)
        return tuple(dataclasses.replace(row, low=low, high=high) for row, (low, high) in zip(rows, ends, strict=True))

    @property
    def morphologies(self) -> tuple[Morphology, ...]:
        """The run's classes."""
        return morphologies_of(self.classes, self.class_labels, self.class_descriptions)

    @property
    def condition_parts(self) -> tuple[int, int, int]:
        """Lengths of the parts of the condition vector: one-hot class, attribute values, and their known-flags if set.

        `galaxies.datasets.conditions` builds the vector and takes it apart.
        """
        count = len(self.attributes)
        return len(self.classes), count, count if self.condition_mask else 0

    def condition_places(self, name: str) -> tuple[int, int] | None:
        """Return the places of an attribute's value and known-flag in the condition vector, None without either."""
        if name not in self.attributes or not self.condition_mask:
            return None
        first, count, _ = self.condition_parts
        place = first + self.attributes.index(name)
        return place, place + count

    @property
    def condition_dim(self) -> int:
        """Length of the condition vector."""
        return sum(self.condition_parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, as stored in a checkpoint."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Rebuild the settings from `to_dict`; unknown or missing names raise `UserError`.

        Those of a file of before come here by way of `galaxies.storage.migrations`. What is of the other family, and
        so does nothing, gets its default of today: it may have had another one then.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if strange := sorted(set(values) ^ known):
            more = f" and {len(strange) - _MOST_NAMED} more" if len(strange) > _MOST_NAMED else ""
            raise UserError(
                f"the settings {', '.join(strange[:_MOST_NAMED])}{more} are not those of this release: "
                "use the program that wrote them"
            )
        other = "GAN" if values["diffusion"] else "diffusion"
        unused = [field for field in dataclasses.fields(cls) if field.metadata.get("family") == other]
        for field in unused:
            check_kind(field, values[field.name])
        idle = {field.name: field.default for field in unused}
        if not isinstance(names := values["attributes"], (list, tuple)) or not all(isinstance(n, str) for n in names):
            raise UserError(f"attributes is {names!r}: it takes a {KIND_WORDS[tuple]}")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **idle, **lists, "attributes": tuple(names)})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
