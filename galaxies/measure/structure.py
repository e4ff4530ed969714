"""Measure a galaxy's structure without a model of it: Petrosian radius, growth, asymmetry, smoothness, Gini, M20.

Everything is batched over sky-subtracted planes (N, S, S) and runs wherever they are. The values are differentiable in
the pixels; what is chosen (the centre, the pixels of an aperture, the width of a kernel) is held constant.

References
----------
Conselice (2003), ApJS 147, 1: concentration, asymmetry and smoothness ("CAS"), all within 1.5 Petrosian radii.
Conselice, Bershady & Jangren (2000), ApJ 529, 886: the centre of asymmetry.
Lotz, Primack & Madau (2004), AJ 128, 163: the Gini coefficient, M20 and the pixels they are measured on.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from galaxies.measure.frame import pixel_grid
from galaxies.measure.source import Source, reconstruct

PETROSIAN_ETA = 0.2  # surface brightness at the Petrosian radius over the mean within it
APERTURE = 1.5  # radius of the aperture of the CAS statistics, Petrosian radii
FLUX_APERTURE = 2.0  # radius of the aperture of the total light, Petrosian radii
RING_WIDTH = 0.5  # pixels between samples of a curve of growth

_INNER = 0.25  # Petrosian radii that the smoothness leaves out around the centre, and width of its box
_GINI_SMOOTHING = 0.2  # standard deviation of the kernel behind the map of Gini and M20, Petrosian radii
_BRIGHT_PART = 0.2  # of the light is what M20 asks the spread of
_WINGS = 1.3  # Petrosian radii from which on a galaxy's wings are looked for
_WING_POWER = 3
_COVERED = 0.2  # part of a ring that must lie in the frame and off neighbours for its mean to count
_ANNULUS_RINGS = 2  # rings to either side of a radius that its local surface brightness is averaged over
_STEPS = (1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125)  # of the search for the centre, pixels of a 64 px frame
MAX_DRIFT = 0.25  # of the centre of asymmetry from the centroid, Petrosian radii
_START_GRID = 0.125  # pixels; a start rounded to them keeps the centre constant under small changes of the image


class Structure(NamedTuple):
    """Structure of N galaxies: tensors (N,) in the images' floating type, always finite.

    Lengths are in frame widths, and circles lie about the centre of asymmetry.

    Attributes
    ----------
    petrosian_radius : Tensor
        Where the surface brightness is 0.2 of the mean within.
    petrosian_light : Tensor
        Light within two Petrosian radii, pixels times display units.
    half_light_radius : Tensor
        Of half of all light, that beyond any aperture included (Graham et al. 2005, eq. 6), and that of faint wings
        taken for sky.
    r20, r50, r80 : Tensor
        Of parts of the light within 1.5 Petrosian radii.
    petrosian_concentration : Tensor
        5 log10(r80 / r20) of these (Conselice 2003, eq. 5).
    asymmetry : Tensor
        Within 1.5 Petrosian radii (Conselice 2003, eq. 2); 0 for a galaxy that a half turn maps onto itself.
    asymmetry_corrected : Tensor
        The same, unbiased by noise, see `asymmetry`.
    asymmetry_x, asymmetry_y : Tensor
        The centre of asymmetry, offset from the frame's.
    smoothness : Tensor
        Within 1.5 Petrosian radii (Conselice 2003, eq. 3, without his factor of 10); 0 for smooth light.
    gini, m20 : Tensor
        Lotz et al. (2004), eqs. 6 and 8; Gini from 0 to 1.
    """

    petrosian_radius: Tensor
    petrosian_light: Tensor
    half_light_radius: Tensor
    r20: Tensor
    r50: Tensor
    r80: Tensor
    petrosian_concentration: Tensor
    asymmetry: Tensor
    asymmetry_corrected: Tensor
    asymmetry_x: Tensor
    asymmetry_y: Tensor
    smoothness: Tensor
    gini: Tensor
    m20: Tensor


class Rings(NamedTuple):
    """Light in concentric rings; ring k lies between the radii `edges[k - 1]` (0 for the first) and `edges[k]`.

    Attributes
    ----------
    growth : Tensor, (N, K)
        Light within each edge.
    ratio : Tensor, (N, K)
        Surface brightness at each edge over the mean within it (Petrosian's eta).
    covered : Tensor, (N, K), bool
        Whether enough of the ring lies in the frame and off neighbours.
    edges : Tensor, (K,)
        Outer radii, pixels.
    """

    growth: Tensor
    ratio: Tensor
    covered: Tensor
    edges: Tensor


def measure_structure(
    light: Tensor, source: Source, corners: Tensor, centroid: Tensor, position_angle: Tensor, ellipticity: Tensor
) -> tuple[Structure, Tensor]:
    """Measure the structure of the galaxies on whole sky-subtracted mean planes, neighbours left out.

    Parameters
    ----------
    light : Tensor, (N, S, S), floating point
    source : Source
        What was found in them.
    corners : Tensor, (S, S), bool
        Pixels that tell the sky.
    centroid : Tensor, (N, 2)
        x and y in pixels from the frame's centre.
    position_angle, ellipticity : Tensor, (N,)
        Degrees from +x towards +y, and 1 - b/a, of the ellipses along which the Gini coefficient's map ends.

    Returns
    -------
    structure : Structure
    converged : Tensor, (N,), bool
        Whether a Petrosian radius was found in the frame and the centre of asymmetry near the centroid.
    """
    side = light.shape[-1]
    usable = ~source.neighbours
    light = light * usable
    with torch.no_grad():
        about_centroid = distance_from(light, centroid)
        first, _ = petrosian_radius(measure_rings(light, usable, about_centroid))
        centre = asymmetry_centre(light, usable, centroid, APERTURE * first)
        drift = torch.linalg.vector_norm(centre - centroid, dim=1)
        converged = drift <= (MAX_DRIFT * first).clamp_min(1)
        distance = distance_from(light, centre)

    rings = measure_rings(light, usable, distance)
    petrosian, found = petrosian_radius(rings)
    rings = rings._replace(growth=rings.growth.cummax(1).values)  # noise can make the outermost curve fall
    total = light_within(rings, APERTURE * petrosian)
    r20, r50, r80 = radii_of(rings, total, (0.2, 0.5, 0.8))
    wings = wings_in_sky(light, usable, corners, distance, petrosian)
    whole = measure_rings(light + wings[:, None, None], usable, distance)
    whole = whole._replace(growth=whole.growth.cummax(1).values)
    half_light = half_light_radius(whole, petrosian_radius(whole)[0])
    with torch.no_grad():
        aperture = distance <= APERTURE * petrosian[:, None, None]
        blank = corners & usable & ~source.mask
        axis_ratio = (1 - ellipticity).clamp_min(0.1)
        semimajor = _elliptical_radius(light, about_centroid, centroid, position_angle, axis_ratio)
        ellipses = measure_rings(light, usable, semimajor, axis_ratio)
        pixels = gini_map(light, usable, source.mask, semimajor, petrosian_radius(ellipses)[0])
    plain, corrected = asymmetry(light, usable, blank, centre, aperture)
    gini, m20 = gini_m20(light, pixels)
    structure = Structure(
        petrosian_radius=petrosian / side,
        petrosian_light=light_within(rings, FLUX_APERTURE * petrosian),
        half_light_radius=half_light / side,
        r20=r20 / side,
        r50=r50 / side,
        r80=r80 / side,
        petrosian_concentration=5 * torch.log10(r80 / r20),
        asymmetry=plain,
        asymmetry_corrected=corrected,
        asymmetry_x=centre[:, 0] / side,
        asymmetry_y=centre[:, 1] / side,
        smoothness=smoothness(light, usable, blank, distance, petrosian, aperture),
        gini=gini,
        m20=m20,
    )
    return structure, found & converged


def _elliptical_radius(
    light: Tensor, distance: Tensor, centroid: Tensor, position_angle: Tensor, axis_ratio: Tensor
) -> Tensor:
    """Return the semi-major axis (N, S, S), pixels, of the galaxy's ellipse through each pixel."""
    x, y = pixel_grid(light.shape[-1], light)
    angle = torch.deg2rad(position_angle)[:, None, None]
    across = (y - centroid[:, 1, None, None]) * angle.cos() - (x - centroid[:, 0, None, None]) * angle.sin()
    stretch = axis_ratio[:, None, None] ** -2 - 1
    return (distance.square() + stretch * across.square()).sqrt()


def measure_rings(light: Tensor, usable: Tensor, radius: Tensor, axis_ratio: Tensor | None = None) -> Rings:
    """Sort light (N, S, S) into rings by `radius` (N, S, S), pixels; `usable` (N, S, S) says which pixels count.

    What a ring lacks, because it reaches over the border or a neighbour, is taken to be as bright as the rest of it.
    Each pixel is shared between two rings by its distance from their middles. For ellipses the radius is that along
    the major axis, and `axis_ratio` (N,) scales their areas.
    """
    num_rings = math.ceil(0.75 * light.shape[-1] / RING_WIDTH)
    scaled = (radius.flatten(1) / RING_WIDTH).clamp(max=num_rings)
    ring = scaled.detach().long().clamp(0, num_rings)  # floor; of broken pixels anything, but within the table
    share = scaled - ring
    pixels = torch.stack([light * usable, usable.to(light.dtype)], 1).flatten(2)  # (N, 2, S * S)
    ring = ring[:, None].expand_as(pixels)
    sums = pixels.new_zeros(*pixels.shape[:2], num_rings + 2)
    sums = sums.scatter_add(2, ring, pixels * (1 - share[:, None])).scatter_add(2, ring + 1, pixels * share[:, None])
    sums = sums[..., :num_rings]  # (N, 2, K): light and number of pixels; beyond lie the frame's corners

    edges = (torch.arange(num_rings, dtype=light.dtype, device=light.device) + 0.5) * RING_WIDTH
    areas = math.pi * edges.square().diff(prepend=edges.new_zeros(1))
    if axis_ratio is not None:
        areas = areas * axis_ratio[:, None]
    areas = areas.expand(len(light), -1)
    near, near_area = _windows(sums, 1), _windows(areas[:, None], 1)[:, 0]
    own = sums[:, 1] > _COVERED * areas
    covered = own | (near[:, 1] > _COVERED * near_area)
    # The innermost ring may hold no pixel's centre: then its neighbours speak for it.
    mean = torch.where(own, sums[:, 0] / sums[:, 1].clamp_min(1e-3), near[:, 0] / near[:, 1].clamp_min(1e-3))
    growth = (mean.where(covered, 0) * areas).cumsum(1)
    wide = _windows(torch.nn.functional.pad(sums, (0, 1)), _ANNULUS_RINGS, ahead=True)[..., :num_rings]
    local = wide[:, 0] / wide[:, 1].clamp_min(1e-3)
    within = (growth / areas.cumsum(1)).clamp_min(1e-6)
    return Rings(growth, local / within, covered, edges)


def _windows(values: Tensor, reach: int, ahead: bool = False) -> Tensor:
    """Sum the last axis over windows: `reach` to either side of each ring, or of its outer edge (`ahead`)."""
    total = torch.nn.functional.pad(values.cumsum(-1), (1, 0))
    at = torch.arange(values.shape[-1], device=values.device)
    high = (at + reach + 1).clamp(max=values.shape[-1])
    low = (at - reach + (1 if ahead else 0)).clamp(min=0)
    return total[..., high] - total[..., low]


def petrosian_radius(rings: Rings) -> tuple[Tensor, Tensor]:
    """Return the radius at which the local surface brightness first falls to 0.2 of the mean within, and where it does.

    Returns
    -------
    radius : Tensor, (N,)
        Pixels; the outermost that is covered where the ratio never falls so low.
    found : Tensor, (N,), bool
    """
    ratio, edges = rings.ratio, rings.edges
    low = (ratio <= PETROSIAN_ETA) & rings.covered & (edges >= 1)
    found = low.any(1)
    after = low.to(torch.uint8).argmax(1, keepdim=True).clamp_min(1)
    before = after - 1
    high_ratio, low_ratio = ratio.gather(1, before), ratio.gather(1, after)
    part = ((high_ratio - PETROSIAN_ETA) / (high_ratio - low_ratio).clamp_min(1e-6)).clamp(0, 1)[:, 0]
    radius = edges[before[:, 0]] + part * RING_WIDTH
    outermost = (rings.covered * edges).amax(1).clamp_min(RING_WIDTH)
    return torch.where(found, radius, outermost), found


def squared_radius(growth: Tensor, edges: Tensor, goal: Tensor) -> Tensor:
    """Return the squared radii (N, G) within which a rising curve of growth (N, K) reaches goals (N, G).

    Between two edges (K,) the light grows with the area, as it does for a constant surface brightness.
    """
    upper = torch.searchsorted(growth.detach(), goal.detach()).clamp(1, len(edges) - 1)
    below, above = growth.gather(1, upper - 1), growth.gather(1, upper)
    inner, outer = edges[upper - 1].square(), edges[upper].square()
    # Light within the first edge: shrink a disc instead of reaching below radius 0.
    part = ((goal - below) / (above - below).clamp_min(1e-12)).clamp(0, 1)
    between = inner + part * (outer - inner)
    within_first = inner * (goal / below.clamp_min(1e-12)).clamp(max=1)
    return torch.where(goal < below, within_first, between)


def radii_of(rings: Rings, total: Tensor, parts: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Return the radii (N,), pixels, that hold parts of the total light (N,)."""
    goals = torch.stack([part * total for part in parts], 1)
    return squared_radius(rings.growth, rings.edges, goals).clamp_min(1e-4).sqrt().unbind(1)


def light_within(rings: Rings, radius: Tensor) -> Tensor:
    """Return the light (N,) within a radius (N,), pixels, growing with the area between edges."""
    edges = rings.edges
    upper = torch.searchsorted(edges, radius.detach()).clamp(1, len(edges) - 1)[:, None]
    inner, outer = edges[upper - 1].square(), edges[upper].square()
    part = ((radius[:, None].square() - inner) / (outer - inner)).clamp(0, 1)
    below, above = rings.growth.gather(1, upper - 1), rings.growth.gather(1, upper)
    return (below + part * (above - below))[:, 0]


def half_light_radius(rings: Rings, petrosian: Tensor) -> Tensor:
    """Return the radius (N,), pixels, of the circle that holds half of all light, also of what no aperture reaches.

    Two Petrosian radii hold 99 % of the light of an exponential disc but 83 % of a de Vaucouleurs profile's. What is
    missing shows in the concentration of what is not: R = r50 / (1 - 8e-6 (r90 / r50)^8.47), r50 and r90 within two
    Petrosian radii (Graham et al. 2005, AJ 130, 1535, eq. 6), exact to a few per cent for Sersic indices up to 10.
    The correction ends at a factor of 2, where noise alone would drive it.
    """
    total = light_within(rings, FLUX_APERTURE * petrosian)
    r50, r90 = radii_of(rings, total, (0.5, 0.9))
    return r50 / (1 - (8e-6 * (r90 / r50).clamp(1, 4) ** 8.47).clamp(max=0.5))


def wings_in_sky(light: Tensor, usable: Tensor, corners: Tensor, distance: Tensor, petrosian: Tensor) -> Tensor:
    """Return the light of the galaxy's own wings (N,) that was taken off with the sky of the frame's corners.

    Beyond a few half-light radii the surface brightness of a Sersic profile of index 2.5 to 4 falls about as the cube
    of the radius. A line through the surface brightness against that, outside 1.3 Petrosian radii, says how bright
    the wings are in the `corners` (S, S). Discs fall faster and have hardly any there: the half-light radius of one
    that fills the frame comes out up to 6 % too large, where without this that of a de Vaucouleurs profile would be
    14 % too small. Other parameters as in `smoothness`.
    """
    outside = (usable & (distance >= _WINGS * petrosian.detach()[:, None, None])).to(light.dtype)
    wing = (distance / light.shape[-1]).clamp_min(0.01) ** -_WING_POWER
    count = outside.sum((1, 2)).clamp_min(1)
    wing_mean, light_mean = ((outside * v).sum((1, 2)) / count for v in (wing, light))
    deviation = outside * (wing - wing_mean[:, None, None])
    slope = (deviation * (light - light_mean[:, None, None])).sum((1, 2)) / deviation.square().sum((1, 2)).clamp_min(
        1e-6
    )
    return slope.clamp_min(0) * wing[:, corners].mean(1)


def asymmetry_centre(light: Tensor, usable: Tensor, start: Tensor, radius: Tensor) -> Tensor:
    """Return the centre (N, 2), x and y in pixels from the frame's, about which a half turn changes the galaxy least.

    A pattern search from `start` (N, 2) with steps that shrink from one to an eighth of a pixel (of a 64 px frame)
    finds the minimum of the asymmetry, as Conselice et al. (2000) ask; `radius` (N,) is the aperture's, pixels.
    """
    side = light.shape[-1]
    centre = (start / _START_GRID).round() * _START_GRID
    window = usable & (distance_from(light, centre) <= radius[:, None, None])
    weights = (window & (half_turn(window.to(light.dtype), centre) > 0.5)).to(light.dtype)
    best = _difference(light, centre, weights)
    for step in _STEPS:
        for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            trial = centre + step * side / 64 * centre.new_tensor(shift)
            value = _difference(light, trial, weights)
            better = value < best
            centre = torch.where(better[:, None], trial, centre)
            best = torch.where(better, value, best)
    return centre


def _difference(light: Tensor, centre: Tensor, weights: Tensor) -> Tensor:
    return ((light - half_turn(light, centre)).abs() * weights).sum((1, 2))


def half_turn(planes: Tensor, centre: Tensor) -> Tensor:
    """Turn planes (N, S, S) by 180 degrees about a centre each, bilinearly; what comes from outside the frame is 0."""
    x, _ = pixel_grid(planes.shape[-1], planes)
    # A half turn is a reflection of the columns and one of the rows; each is a product with a matrix of weights.
    across, down = (
        (1 - (2 * centre[:, k, None, None] - x[..., None] - x).abs()).clamp_min(0)  # (N, to, from)
        for k in (0, 1)
    )
    return down @ planes @ across.transpose(1, 2)


def distance_from(planes: Tensor, centre: Tensor) -> Tensor:
    """Return the distance (N, S, S) of each pixel from a centre (N, 2), pixels."""
    x, y = pixel_grid(planes.shape[-1], planes)
    return ((x - centre[:, 0, None, None]).square() + (y - centre[:, 1, None, None]).square() + 1e-6).sqrt()


def asymmetry(light: Tensor, usable: Tensor, sky: Tensor, centre: Tensor, aperture: Tensor) -> tuple[Tensor, Tensor]:
    """Return A = sum |I - I180| / sum |I| within the aperture, less what noise adds, in two forms (N,).

    The first takes the noise's share from the sky turned about the frame's centre, which needs no interpolation
    (Lotz et al. 2004, eq. 10): it agrees with other programs, but half a
    turn about a centre between pixels smooths the galaxy's noise, so that it falls below 0 for symmetric galaxies in
    strong noise. The second turns the sky about the galaxy's centre, noise smoothed alike, and stays near 0 for them.

    0 for a galaxy that a half turn maps onto itself, towards 1 and above for one with all its light on one side.

    Parameters
    ----------
    light : Tensor, (N, S, S)
    usable, sky, aperture : Tensor, (N, S, S), bool
        Pixels off neighbours, of the sky, and of the circle to measure in.
    centre : Tensor, (N, 2)
        Pixels from the frame's centre.
    """
    # A pixel counts if its counterpart lies in the frame and off neighbours, too.
    paired = usable & (half_turn(usable.to(light.dtype), centre) > 0.999)
    change = (light - half_turn(light, centre)).abs()
    sharp_noise = _mean((light - light.flip(1, 2)).abs(), sky & sky.flip(1, 2))
    smoothed_noise = _mean(change, sky & paired)
    inside = aperture & paired
    whole = light.abs().where(inside, 0).sum((1, 2)).clamp_min(1e-6)
    changed, area = change.where(inside, 0).sum((1, 2)), inside.sum((1, 2))
    return (changed - area * sharp_noise) / whole, (changed - area * smoothed_noise) / whole


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return values.where(where, 0).sum((1, 2)) / where.sum((1, 2)).clamp_min(1)


def smoothness(
    light: Tensor, usable: Tensor, sky: Tensor, distance: Tensor, petrosian: Tensor, aperture: Tensor
) -> Tensor:
    """Return S = sum max(I - Is, 0) / sum I outside the centre, less the sky's share (Conselice 2003, eq. 3).

    Is is the image smoothed with a box as wide as a quarter of the Petrosian radius (N,), and a quarter of it is left
    out around the centre, where every galaxy is peaked. 0 for smooth light, more for clumps: it measures clumpiness.
    Conselice multiplies it by 10; this is the plain ratio. Other parameters as in `asymmetry`; `distance` (N, S, S)
    is from the centre, in pixels.
    """
    x, y = pixel_grid(light.shape[-1], light)
    width = (_INNER * petrosian.detach()).floor().clamp_min(2)
    box = ((width[:, None, None] + 1) / 2 - (x - y).abs()).clamp(0, 1)
    box = box / box.sum(2, keepdim=True)
    clumps = (light - box @ light @ box.transpose(1, 2)).clamp_min(0)
    blank = _mean(clumps, sky)
    inside = aperture & usable & (distance >= _INNER * petrosian.detach()[:, None, None])
    excess = (clumps - blank[:, None, None]).where(inside, 0).sum((1, 2))
    return excess / light.where(inside, 0).sum((1, 2)).clamp_min(1e-6)


def gini_map(light: Tensor, usable: Tensor, inside: Tensor, semimajor: Tensor, petrosian: Tensor) -> Tensor:
    """Return the pixels (N, S, S), bool, that Gini and M20 are measured on (Lotz et al. 2004, section 2.4).

    The image, smoothed by a fifth of the Petrosian radius, is cut at its mean surface brightness at that radius; what
    is connected with its brightest pixel inside the source's mask (`inside`) remains.

    Parameters
    ----------
    semimajor : Tensor, (N, S, S)
        Semi-major axis of the ellipse through each pixel.
    petrosian : Tensor, (N,)
        Petrosian radius along the major axis; both in pixels.
    """
    x, y = pixel_grid(light.shape[-1], light)
    sigma = (_GINI_SMOOTHING * petrosian).clamp_min(0.5)[:, None, None]
    kernel = torch.exp(-0.5 * ((x - y) / sigma).square())
    kernel = kernel / kernel.sum(2, keepdim=True)
    smoothed = kernel @ (light * usable) @ kernel.transpose(1, 2)
    at_radius = (semimajor - petrosian[:, None, None]).abs() <= 1
    above = smoothed >= _mean(smoothed, at_radius)[:, None, None]
    peak = smoothed.masked_fill(~(inside & usable), -torch.inf).flatten(1).argmax(1, keepdim=True)
    marker = torch.zeros_like(above, dtype=torch.uint8).flatten(1).scatter(1, peak, 1).view_as(above)
    above = above.to(torch.uint8)
    return (reconstruct(torch.minimum(marker, above), above) > 0) & usable


def gini_m20(light: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Gini coefficient and M20 of the light in `pixels` (N, S, S), bool (Lotz et al. 2004, eqs. 6 and 8).

    Gini is 0 where all pixels are equally bright and 1 where one has all the light. M20 is the decimal logarithm of
    the second moment of the brightest pixels that hold a fifth of the light, over that of all pixels, about the
    centroid: near -2.5 for a bright core, -0.7 for uniform light, nearer 0 for bright pixels far out. Of the last of
    the brightest pixels only the part that completes the fifth counts, which makes M20 continuous. Both are 0 where
    there is no light to measure.
    """
    x, y = pixel_grid(light.shape[-1], light)
    values = light.where(pixels, 0)
    total = values.sum((1, 2)).clamp_min(1e-6)
    dx, dy = (
        x - ((values * x).sum((1, 2)) / total)[:, None, None],
        y - ((values * y).sum((1, 2)) / total)[:, None, None],
    )
    moments = (values * (dx.square() + dy.square())).flatten(1)

    # Pixels that do not count go before all others, and have no light to add.
    size, order = values.abs().masked_fill(~pixels, -1).flatten(1).sort(1)
    count = pixels.sum((1, 2))[:, None]
    place = torch.arange(1, size.shape[1] + 1, dtype=light.dtype, device=light.device) - (size.shape[1] - count)
    size = size.clamp_min(0)
    spread = ((2 * place - count - 1) * size).sum(1)
    gini = spread / ((count[:, 0] - 1).clamp_min(1) * size.sum(1).clamp_min(1e-6))

    brightest = values.flatten(1).gather(1, order.flip(1))
    goal = _BRIGHT_PART * total[:, None]
    brighter = brightest.cumsum(1) - brightest
    part = ((goal - brighter) / brightest.clamp_min(1e-12)).clamp(0, 1)
    bright_moment = (moments.gather(1, order.flip(1)) * part).sum(1)
    whole = moments.sum(1)
    sound = (count[:, 0] > 1) & (bright_moment > 0) & (whole > 0)
    ratio = torch.where(sound, bright_moment, 1) / torch.where(sound, whole, 1)
    return gini.where(count[:, 0] > 1, 0), torch.log10(ratio)
