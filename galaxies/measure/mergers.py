"""Measure what mergers leave: a second nucleus, tails and shells in the outskirts, light in two places.

Asymmetry, Gini and M20 are in `structure.py`. Everything is batched over (N, S, S) planes and runs wherever they are;
what is measured here counts pixels and regions, and carries no gradient.

References
----------
Freeman et al. (2013), MNRAS 434, 282: the intensity statistic of their MID.
Pawlik et al. (2016), MNRAS 456, 3032: the shape asymmetry.
Lotz et al. (2008), ApJ 672, 177: where mergers lie among Gini and M20.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from galaxies.measure.frame import smooth
from galaxies.measure.sky import DETECTION_SMOOTHING, Sky
from galaxies.measure.source import Source, reconstruct
from galaxies.measure.structure import half_turn

VISIBLE_NUCLEUS = 0.2  # of `second_nucleus`, which 5 % of real ellipticals are above (`studies/arms.py`)

_BRIGHT_MEAN = 0.2  # of the mean of all brighter pixels: where the map of nuclei ends
_CLIMBS = 9  # of doubling length, which lead from anywhere in a frame of 256 pixels to a peak
# Standard deviations of the smoothed sky, where a galaxy's outline is drawn. On pictures of SDSS lower ones follow the
# grain of the JPEG file and say nothing of mergers (`studies/arms.py`).
_OUTLINE_SIGMA = 8.0
_LINE = -0.14, 0.33  # Gini above which a galaxy merges, at M20: slope and value at 0 (Lotz et al. 2008, eq. 4)


class Mergers(NamedTuple):
    """What mergers leave in N galaxies: tensors (N,) in the images' floating type, always finite.

    Attributes
    ----------
    second_nucleus : Tensor
        Light of the second brightest region over that of the brightest, 0 to 1, where every pixel belongs to the peak
        that the steepest way up leads to (Freeman et al. 2013, eq. 3): 0 for one nucleus, 1 for two alike.
    shape_asymmetry : Tensor
        Pixels of the galaxy's outline, however bright, that a half turn about the centre takes out of it, and those it
        brings in, over all of them: 0 to 2, after Pawlik et al. (2016, section 3.1). Tails and shells count, and a
        bright knot does not.
    gini_m20_merger : Tensor
        Gini above the line between mergers and others at the same M20 (Lotz et al. 2008, eq. 4): above 0 for light in
        few pixels that are far apart.
    """

    second_nucleus: Tensor
    shape_asymmetry: Tensor
    gini_m20_merger: Tensor


@torch.no_grad()
def measure_mergers(light: Tensor, source: Source, sky: Sky, centre: Tensor, gini: Tensor, m20: Tensor) -> Mergers:
    """Measure the marks of mergers, neighbours left out.

    Parameters
    ----------
    light : Tensor, (N, S, S), floating point
        Sky-subtracted planes.
    source, sky : Source, Sky
        What was found in them.
    centre : Tensor, (N, 2)
        Of asymmetry: x and y in pixels from the frame's centre.
    gini, m20 : Tensor, (N,)
    """
    smoothed = smooth(light.minimum(source.plateau), DETECTION_SMOOTHING)
    own = source.mask & ~source.neighbours
    above = gini - (_LINE[0] * m20 + _LINE[1])
    return Mergers(_second_nucleus(smoothed, own), _shape_asymmetry(smoothed, source, sky, centre), above)


def _second_nucleus(smoothed: Tensor, own: Tensor) -> Tensor:
    """Return the light of the second brightest region over that of the brightest (N,), in the bright part of `own`."""
    count, side, _ = smoothed.shape
    values = smoothed.where(own, 0).clamp_min(0)
    ordered = values.flatten(1).sort(1, descending=True).values
    number = torch.arange(1, side**2 + 1, dtype=smoothed.dtype, device=smoothed.device)
    faint = ordered <= _BRIGHT_MEAN * ordered.cumsum(1) / number
    last = faint.to(torch.uint8).argmax(1, keepdim=True)  # of no light the first pixel, which has none
    bright = values > ordered.gather(1, last)[:, :, None]

    # The brightest of each pixel and its neighbours; a peak is its own.
    ground = torch.where(bright, values, -1.0)
    padded = ground.new_full((count, side + 2, side + 2), -2.0)
    padded[:, 1:-1, 1:-1] = ground
    steps = [(down, right) for down in (0, -1, 1) for right in (0, -1, 1)]
    around = torch.stack([padded[:, 1 + d : side + 1 + d, 1 + r : side + 1 + r] for d, r in steps], 1)
    offsets = torch.tensor([d * side + r for d, r in steps], device=smoothed.device)
    place = torch.arange(side**2, device=smoothed.device).expand(count, -1)
    leads_to = place + offsets[around.argmax(1)].flatten(1)  # never over the border, which is the lowest
    for _ in range(_CLIMBS):
        leads_to = leads_to.gather(1, leads_to)
    light = torch.zeros_like(values.flatten(1)).scatter_add(1, leads_to, values.where(bright, 0).flatten(1))
    first, second = light.topk(2, 1).values.unbind(1)
    return second / first.clamp_min(1e-12)


def _shape_asymmetry(smoothed: Tensor, source: Source, sky: Sky, centre: Tensor) -> Tensor:
    """Return by how much a half turn about the centre (N, 2), pixels, changes the outline of the faint galaxy."""
    above = (smoothed > _OUTLINE_SIGMA * sky.sigma[:, None, None]) & ~source.neighbours
    above = above.to(torch.uint8)
    marker = torch.zeros_like(above).flatten(1).scatter(1, source.peak[:, None], 1).view_as(above)
    outline = reconstruct(torch.minimum(marker, above), above)
    # About the nearest half pixel a half turn takes pixels to pixels.
    about = (2 * centre).round() / 2
    # What lies opposite the border or a neighbour is not known.
    known = (~source.neighbours).to(smoothed.dtype)
    paired = known * half_turn(known, about)
    planes = outline.to(smoothed.dtype)
    changed = ((planes - half_turn(planes, about)).abs() * paired).sum((1, 2))
    return changed / (planes * paired).sum((1, 2)).clamp_min(1)
