"""The columns of mock galaxies: what is drawn of N galaxies of one class, from their shapes to the sky above them.

Columns are numpy arrays in float64 while galaxies are drawn, and tensors in float32 while they are rendered; either
way the first dimension is the galaxy. Lengths are in arcseconds unless a table says otherwise, angles in radians from
+x towards +y, fluxes in nanomaggies, bands in the order g, r, i. `structure.py`, `population.py` and `conditions.py`
fill the tables, `light.py` shows what each number does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor

Column = TypeVar("Column", np.ndarray, Tensor)
_Table = TypeVar("_Table")
_Part = TypeVar("_Part")


@dataclass
class SpiralDisc(Generic[Column]):
    """Arms, fine structure, bar and star-forming knots of a disc: (N,) unless said otherwise.

    num_arms; pitch (angle of the arms); winding (+1 or -1); arm_strength and arm_sharpness; arm_phase; arm_asymmetry,
    how lopsided; arm_start, the radius where arms begin (scale lengths); hole, how much light the disc's middle lacks
    (0 to 1).

    waves, (N, W, 4): of each wave the number of arms, the radial frequency in log radius, phase and size;
    wave_strength, by which all are multiplied.

    bar_fraction of the disc's light; bar_size, half-light radius along the bar (scale lengths); bar_axis_ratio;
    bar_angle.

    knot_radius (scale lengths), knot_angle from the ridge of an arm (its phase), knot_arm (which one) and knot_light
    (relative), (N, K); knot_fraction of the disc's light.
    """

    num_arms: Column
    pitch: Column
    winding: Column
    arm_strength: Column
    arm_sharpness: Column
    arm_phase: Column
    hole: Column
    arm_start: Column
    arm_asymmetry: Column
    waves: Column
    wave_strength: Column
    bar_fraction: Column
    bar_size: Column
    bar_axis_ratio: Column
    bar_angle: Column
    knot_radius: Column
    knot_angle: Column
    knot_arm: Column
    knot_light: Column
    knot_fraction: Column


@dataclass
class EdgeOnDisc(Generic[Column]):
    """A disc from the side, (N,): thickness, z0 over scale length; inclined, 1 for one that shows some of its face;
    dust_depth, optical depth of the lane in r; dust_offset of the lane from the middle, z0; lopsidedness.
    """

    thickness: Column
    inclined: Column
    dust_depth: Column
    dust_offset: Column
    lopsidedness: Column


@dataclass
class Pair(Generic[Column]):
    """Two galaxies that interact, (N,) unless said otherwise.

    dry: 1 for two spheroids in a common envelope, 0 for discs that `encounter.py` pulls apart. light_ratio, the
    companion's light over the primary's.

    Of dry pairs: spheroid_axis_ratio and spheroid_angle, (N, 2); separation, half-light radii, and its direction.

    Of wet ones, as `encounter.simulate` takes them: mass_ratio; pericentre; speed; time_after; disc_tilt and
    disc_node, (N, 2); view, (N, 3, 3); and clumpiness of the particles' light. particle_draws, (N, 2, P, 3), random
    numbers in [0, 1) that place the particles and make some of them shine, are drawn galaxy by galaxy when rendered.
    """

    dry: Column
    spheroid_axis_ratio: Column
    spheroid_angle: Column
    separation: Column
    direction: Column
    light_ratio: Column
    mass_ratio: Column
    pericentre: Column
    speed: Column
    time_after: Column
    disc_tilt: Column
    disc_node: Column
    view: Column
    clumpiness: Column
    particle_draws: Column | None = None


@dataclass
class Structure(Generic[Column]):
    """Shapes, whatever the distance: (N,) unless said otherwise.

    position_angle of the major axis; axis_ratio of the disc or the spheroid (in a merger, the primary's); inclination
    of the disc, 0 face-on, None of classes with none or two; old, 1 where all stars are. bulge_n, Sersic index, of a
    pair (N, 2); bulge_fraction of the light in r; bulge_size, its half-light radius over the disc's scale length;
    bulge_axis_ratio. Beside these the class's own columns, and None for those that it does not have; `other` is a table
    that a class brings along itself (see `classes.py`), for columns that none of these has.
    """

    position_angle: Column
    axis_ratio: Column
    old: Column
    bulge_n: Column
    bulge_fraction: Column
    bulge_size: Column
    bulge_axis_ratio: Column
    spiral: SpiralDisc[Column] | None = None
    edge_on: EdgeOnDisc[Column] | None = None
    pair: Pair[Column] | None = None
    other: Any = None
    inclination: Column | None = None


@dataclass
class Exposure(Generic[Column]):
    """The telescope's part.

    psf_fwhm, (N, 3), arcseconds in g, r, i. sky_noise, (N, 3), nanomaggies a survey pixel, as the survey's JPEG
    pictures show it. sky_error, (N, 3), what the sky's subtraction left, in units of that noise. misregistration of
    the bands, (N, 3, 2), arcseconds. centre, (N, 2), where the galaxy is, widths of the central 212 pixels.
    frame_scale, (N,), arcseconds a pixel of the 424-pixel frame.
    """

    psf_fwhm: Column
    sky_noise: Column
    sky_error: Column
    misregistration: Column
    centre: Column
    frame_scale: Column


@dataclass
class Neighbours(Generic[Column]):
    """Stars and small galaxies in the frame, K each.

    flux, (N, K, 3), nanomaggies in g, r, i, 0 for none. size, (N, K), half-light radius in arcseconds, 0 for a star.
    axis_ratio and angle, (N, K). place, (N, K, 2), arcseconds from the frame's centre.
    """

    flux: Column
    size: Column
    axis_ratio: Column
    angle: Column
    place: Column


@dataclass
class Luminosity(Generic[Column]):
    """How bright, how far and how large: (N,) unless said otherwise.

    redshift; absolute_magnitude and magnitude (r); stellar_mass (log10 solar masses); disc_flux and bulge_flux, (N, 3),
    nanomaggies in g, r, i. size, half-light radius of the spheroid or of the disc alone, along the major axis,
    arcseconds; petro_r50 and petro_r90, Petrosian radii before seeing, arcseconds; petro_r50_kpc.
    """

    redshift: Column
    absolute_magnitude: Column
    magnitude: Column
    stellar_mass: Column
    disc_flux: Column
    bulge_flux: Column
    size: Column
    petro_r50: Column
    petro_r90: Column
    petro_r50_kpc: Column


@dataclass
class Palette(Generic[Column]):
    """How the parts of a galaxy differ in colour, band by band: (N, B), or (1, B) where it is the same for all.

    arm_contrast, by which the texture of arms is multiplied; knot_color, light of star-forming knots over the disc's;
    dust_opacity of a lane over that in the reference band; outskirt_color, light of what an encounter pulls out over
    the disc's. reference_disc, (N,), is the light of the disc in the reference band, and old_light, (N, B), that of
    old stars, such as bars have, over theirs in it.
    """

    arm_contrast: Column
    knot_color: Column
    dust_opacity: Column
    outskirt_color: Column
    reference_disc: Column
    old_light: Column


@dataclass
class LitTable(Luminosity[Column]):
    """N galaxies of one class with what their light follows from."""

    structure: Structure[Column]


@dataclass
class GalaxyTable(LitTable[Column]):
    """N galaxies of one class with everything that a picture of them in g, r and i needs."""

    exposure: Exposure[Column]
    neighbours: Neighbours[Column]


@dataclass
class BandExposure(Generic[Column]):
    """A telescope's part in any bands.

    psf_fwhm, (N, B), arcseconds. sky_noise, (N, B), nanojansky a pixel. centre, (N, 2), where the galaxy is, pixels
    from the middle of the frame.
    """

    psf_fwhm: Column
    sky_noise: Column
    centre: Column


@dataclass
class BandTable(LitTable[Column]):
    """N galaxies of one class with everything that images in any bands need; fluxes are (N, B), in nanojansky."""

    palette: Palette[Column]
    exposure: BandExposure[Column]


def told_structure(structure: Structure[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the attributes of structure that N galaxies of one class have, (N,), NaN where they mean nothing.

    arm_count, and bar, the part of the disc's light in it, of spirals; bulge, the part of all light in r, of discs.
    """
    unknown = np.full(len(structure.axis_ratio), np.nan)
    arms = structure.spiral
    disc = arms is not None or structure.edge_on is not None
    return {
        "arm_count": unknown if arms is None else arms.num_arms.copy(),
        "bar": unknown if arms is None else arms.bar_fraction.copy(),
        "bulge": structure.bulge_fraction.copy() if disc else unknown,
    }


def changed(change: Callable[..., Any], *tables: _Table) -> _Table:
    """Return a table of what `change` makes of each column of one or several tables alike, parts included."""

    def of(*values: Any) -> Any:
        if values[0] is None:
            return None
        if not dataclasses.is_dataclass(values[0]):
            return change(*values)
        kind: Any = type(values[0])
        names = [field.name for field in dataclasses.fields(values[0])]
        return kind(**{name: of(*(getattr(value, name) for value in values)) for name in names})

    return of(*tables)


def joined(tables: Sequence[_Table]) -> _Table:
    """Return the rows of several tables of numpy arrays, one after the other; at least one table."""
    if len(tables) == 1:
        return tables[0]
    return changed(lambda *columns: np.concatenate(columns), *tables)


def columns_of(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return the columns of a table and of its parts by their dotted names, such as `structure.spiral.pitch`."""
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(table):
        value = getattr(table, field.name)
        if dataclasses.is_dataclass(value):
            columns |= columns_of(value, f"{prefix}{field.name}.")
        elif value is not None:
            columns[prefix + field.name] = value
    return columns


def given(part: _Part | None) -> _Part:
    """Return a part of a table that galaxies of a class must have.

    Raises
    ------
    ValueError
        If they do not.
    """
    if part is None:
        raise ValueError("these galaxies are of a class without the structure that is asked for")
    return part
