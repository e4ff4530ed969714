"""Neighbours near a galaxy in a large frame: told from its arms, knots and nuclei by the valley before them.

A frame need not be cut to its galaxy's size, so that a distance in frame widths says little of what is a neighbour.
Here it is in radii of the galaxy itself, measured on the light that a half turn leaves, in which neighbours have no
part.

Spikes of a star beyond the frame have no peak: they come in across its border, narrow and as bright there as within.
Those are named, and left out as far as one side of the galaxy shows that they are not its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from galaxies.measure.frame import pixel_grid, rim_mask, rim_pixels, rim_width, smooth
from galaxies.measure.sky import DETECTION_SMOOTHING, rising
from galaxies.measure.source import Source, dilate, half_turned, reconstruct
from galaxies.measure.structure import distance_from, measure_rings, radii_of

# The valley before a peak, as a part of its brightness, may rise to the last from the second distance on, in half-light
# radii of the symmetric light; within the first any peak is the galaxy's own.
_NEAREST, _FAR, _VALLEY = 1.5, 3.0, 0.5
# Nearer than this a peak of this part of the centre's brightness is a second nucleus: the galaxy merges.
_PARTNER, _NUCLEUS = 4.4, 0.4
_BRIGHTER, _SIGNIFICANT = 2.0, 5.0  # a peak over what lies across the centre, in parts of that and standard deviations
_EXCESS, _SEEN = 1.5, 2.0  # the same of a neighbour's other pixels
_NEARER = 1.0  # part of a pixel's distance from the centre that it may have from the peak
_GROWTH = 0.2  # frame widths, over which a neighbour's pixels are followed
_CROSSING = 3.0  # times as bright as the rim's median is what comes in across it
_INSIDE = 0.28, 0.36  # frame widths from the middle, of a square ring in which a galaxy is brighter than at the rim
_FLAT = 0.6  # of the brightest in that ring, from which on light at the rim does not fall as a galaxy's
_NARROW = 0.15  # part of the rim from which on light is no streak but a galaxy that the frame cuts off
_RISING = 2.0  # times its brightness outside, from which on what a streak leads to is the galaxy


def close_neighbours(light: Tensor, source: Source, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels (N, S, S), bool, of neighbours that `find_source` took for the galaxy's own.

    Returned as well is where (N, S, S), bool, streaks that reach the galaxy come in across the frame's border.

    A neighbour is a peak of its own behind a valley, well outside the galaxy's half-light radius, at least twice as
    bright as what lies across the centre; its pixels are those that hang together with it, are brighter than their
    opposite and nearer to it. An arm or a knot has its like on the other side or no valley before it, tails and
    lopsided discs have no peak.

    Parameters
    ----------
    light : Tensor, (N, S, S)
        Above the sky.
    source : Source
        Found in it.
    sigma : Tensor, (N,)
        Standard deviation of the light after smoothing with the detection kernel.
    """
    side = light.shape[-1]
    smoothed = smooth(light, DETECTION_SMOOTHING)
    across, framed = half_turned(torch.stack([smoothed, torch.ones_like(smoothed)], 1), source.peak).unbind(1)
    across = across.clamp_min(0)
    x, y = pixel_grid(side, light)
    distance = distance_from(light, torch.stack([x[0][source.peak % side], y[:, 0][source.peak // side]], 1))
    sigma = sigma[:, None, None]
    symmetric = torch.minimum(smoothed, across).clamp_min(0) * source.mask
    rings = measure_rings(symmetric, torch.ones_like(source.mask), distance)
    growth = rings.growth.cummax(1).values
    (radius,) = radii_of(rings._replace(growth=growth), growth[:, -1], (0.5,))

    radii = distance / radius[:, None, None]
    away = (radii - _NEAREST) / (_FAR - _NEAREST)
    brightest = smoothed.flatten(1).gather(1, source.peak[:, None])[..., None]
    neighbours = source.mask & (framed > 0) & (source.connected < _VALLEY * away.clamp(0, 1) * smoothed)
    neighbours &= smoothed > _BRIGHTER * across + _SIGNIFICANT * sigma
    neighbours &= smoothed - source.connected > _SIGNIFICANT * sigma
    bright = source.mask & (smoothed > _NUCLEUS * brightest) & (radii > _NEAREST)
    nuclei = bright & (smoothed == dilate(smoothed)) & (radii < _PARTNER)
    neighbours &= reconstruct(nuclei.to(torch.uint8), (bright | neighbours).to(torch.uint8)) == 0
    excess = smoothed > _EXCESS * across + _SEEN * sigma
    for step in range(1, round(_GROWTH * side) + 1):
        grown = dilate(neighbours.to(light.dtype)) > 0
        neighbours = neighbours | (grown & excess & (step < _NEARER * distance))
    streaks = _streaks(smoothed, source.mask, sigma)
    one_sided = streaks & (framed > 0) & (radii > _FAR) & (smoothed > _BRIGHTER * across + _SIGNIFICANT * sigma)
    way = one_sided | (excess & source.mask & (radii > _NEAREST))
    followed = reconstruct(one_sided.to(torch.uint8), way.to(torch.uint8)) > 0
    top = (smoothed * one_sided).amax((1, 2), keepdim=True)
    followed &= ~(followed & (smoothed > _RISING * top)).any(2, keepdim=True).any(1, keepdim=True)
    return neighbours | followed, streaks


def crossing_light(light: Tensor, crossing: Tensor) -> Tensor:
    """Return the light (N,) that `crossing` (N, S, S), part of the rim of planes (N, S, S), shows of what crosses it.

    It is that of half a frame as bright as the rim: of a streak that goes on to the middle, or of a galaxy beyond.
    """
    side = light.shape[-1]
    return (light * crossing).sum((1, 2)) * (side / 2 / rim_width(side))


def _streaks(smoothed: Tensor, mask: Tensor, sigma: Tensor) -> Tensor:
    """Return the pixels (N, S, S), bool, of the rim where narrow light that does not fall outwards reaches the galaxy.

    Parameters
    ----------
    smoothed : Tensor, (N, S, S)
    mask : Tensor, (N, S, S), bool
        What hangs together with the galaxy.
    sigma : Tensor, (N, 1, 1)
    """
    side = smoothed.shape[-1]
    x, y = pixel_grid(side, smoothed)
    square = torch.maximum(x.abs(), y.abs())
    rim = rim_mask(side, smoothed.device)
    inside = (square > _INSIDE[0] * side) & (square < _INSIDE[1] * side)
    # Half of the rim is darker than its median, whatever comes in.
    ordered = rising(smoothed.flatten(1)[:, rim_pixels(side, smoothed.device)])
    median = ordered[:, ordered.shape[1] // 2].clamp_min(0)[:, None, None]
    found = mask & rim & (smoothed > _CROSSING * median + _SIGNIFICANT * sigma)
    flat = (smoothed * found).amax((1, 2), keepdim=True) > _FLAT * (smoothed * mask * inside).amax((1, 2), keepdim=True)
    narrow = found.sum((1, 2), keepdim=True) < _NARROW * rim.sum()
    return found & flat & narrow
