"""Find the galaxy of each frame: the central source's pixels, and those of its neighbours.

Everything is batched over (N, S, S) planes and runs wherever they are. Masks are found, never learned: they carry no
gradient, and what is measured inside them holds them constant.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.measure.frame import pixel_grid, smooth
from galaxies.measure.sky import DETECTION_SMOOTHING, Sky

# Geometry in frame widths, so that 64, 128 and 256 px images of a galaxy give the same answers.
_CENTRE_RADIUS = 0.1  # the galaxy's peak is looked for within this distance of the centre
_NEIGHBOUR_RADIUS = 0.25  # a separate peak beyond this distance is a neighbour; nearer, a nucleus or a knot
_MASK_SMOOTHING = 2.0 / 64  # standard deviation of the kernel that rounds off the mask's ragged rim
_DETECTION_SIGMA = 3.0  # threshold of the source mask, in standard deviations of the smoothed sky
_MIN_AREA = 9.0 / 64**2  # a smaller source is a defect, as a fraction of the frame's area

# Devices on which planes are dilated by pooling, in one kernel; on a CPU that is 20 times slower than comparisons.
_POOLING = frozenset({"cuda"})
_SWEPT_PIXELS = 2**16  # of all frames from which on a CPU sweeps them; fewer are dilated sooner by passes
_CHUNK_PIXELS = 2**17  # that are swept at a time, so that they stay in a processor's cache


class Source(NamedTuple):
    """The pixels of the central source of each frame.

    Attributes
    ----------
    mask : Tensor, (N, S, S), bool
        Where it is.
    plateau : Tensor, (N, S, S)
        The level to cut neighbours inside the mask down to; infinite elsewhere.
    neighbours : Tensor, (N, S, S), bool
        Significant light that is not its own, inside and outside the mask.
    missing : Tensor, (N,), bool
        Nothing was found near the centre.
    peak : Tensor, (N,), int64
        Row-major number of the pixel that the smoothed image is brightest at, near the centre.
    connected : Tensor, (N, S, S)
        Of the smoothed image, the highest level at which each pixel is connected with the peak; minus infinity where
        that is below the threshold.
    """

    mask: Tensor
    plateau: Tensor
    neighbours: Tensor
    missing: Tensor
    peak: Tensor
    connected: Tensor


def find_source(light: Tensor, sky: Sky) -> Source:
    """Find the pixels of the central source in the sky-subtracted mean planes (N, S, S).

    The smoothed image is rebuilt from its central peak downwards (morphological reconstruction by dilation,
    Vincent 1993): each pixel gets the highest level at which it is connected with the peak. Where that level is
    above the threshold, the pixel belongs to the source; where the image stands well above that level, another
    peak begins.
    """
    side = light.shape[-1]
    x, y = pixel_grid(side, light)
    distance = (x.square() + y.square()).sqrt()
    smoothed = smooth(light, DETECTION_SMOOTHING)
    noise = sky.sigma[:, None, None]
    threshold = _DETECTION_SIGMA * noise

    central = smoothed.masked_fill(distance > _CENTRE_RADIUS * side, -torch.inf).flatten(1)
    peak, where = central.max(1)
    marker = torch.full_like(smoothed, -torch.inf).flatten(1)
    marker = marker.scatter(1, where[:, None], peak[:, None]).view_as(smoothed)
    # Below the threshold nothing needs rebuilding, which also ends the iteration sooner.
    connected = reconstruct(marker, torch.where(smoothed > threshold, smoothed, -torch.inf))

    reached = connected > threshold
    mask = reached & (smooth(reached.to(light.dtype), _MASK_SMOOTHING) > 0.5)  # drops tendrils of noise
    separate = smoothed - connected > torch.maximum(3 * noise, 0.1 * smoothed)
    separate &= (distance > _NEIGHBOUR_RADIUS * side) & mask
    plateau = torch.where(separate, connected, torch.inf)

    area = mask.sum((1, 2))
    missing = (peak <= threshold[:, 0, 0]) | (area < _MIN_AREA * side**2)
    return Source(mask, plateau, separate | ((smoothed > threshold) & ~reached), missing, where, connected)


def half_turned(planes: Tensor, peak: Tensor) -> Tensor:
    """Return planes (N, C, S, S) turned by 180 degrees about a pixel each (N,); 0 from beyond the frame."""
    side = planes.shape[-1]
    axis = torch.arange(side, device=planes.device)
    rows, columns = (2 * k[:, None] - axis for k in (peak // side, peak % side))  # (N, S)
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
    place = rows.clamp(0, side - 1)[:, :, None] * side + columns.clamp(0, side - 1)[:, None]
    turned = planes.flatten(2).gather(2, place.flatten(1)[:, None].expand(-1, planes.shape[1], -1))
    return turned.view_as(planes) * inside[:, None]


def reconstruct(marker: Tensor, ceiling: Tensor) -> Tensor:
    """Dilate `marker` under `ceiling` until nothing changes: each pixel's best path to the marker.

    Parameters
    ----------
    marker, ceiling : Tensor, (N, S, S), of one dtype
        Floating point, or uint8 masks of 0 and 1.

    Returns
    -------
    Tensor, (N, S, S), of the same dtype
    """
    if marker.device.type in _POOLING:
        dtype = marker.dtype
        if not dtype.is_floating_point:
            # CUDA pools no integers. Halves hold those of a byte exactly.
            marker, ceiling = marker.half(), ceiling.half()
        return _by_passes(marker, ceiling).to(dtype)
    # Bytes are so small that passes over them are the faster way.
    if marker.device.type != "cpu" or marker.numel() < _SWEPT_PIXELS or not marker.is_floating_point():
        return _by_passes(marker, ceiling)
    step = -(-_CHUNK_PIXELS // marker.shape[-1] ** 2)
    parts = zip(marker.split(step), ceiling.split(step), strict=True)
    return torch.cat([_by_sweeps(*part) for part in parts])


def _by_passes(marker: Tensor, ceiling: Tensor) -> Tensor:
    """Reconstruct by passes that reach one pixel further each."""
    side = marker.shape[-1]
    # A CUDA graph has no loop that ends on its own. Of 6,511 galaxies of Galaxy Zoo at 64 pixels one in a thousand
    # takes more than 61 passes, and none more than 69. Longer paths turn back and forth, and what lies at their ends
    # is faint.
    recording = _is_recorded(marker)
    rebuilt = marker
    for step in range(1, 1 + (side + side // 4 if recording else side**2)):
        grown = torch.minimum(dilate(rebuilt), ceiling)
        # Comparing waits for a GPU, so it is done now and then only.
        if not recording and step % 8 == 0 and torch.equal(grown, rebuilt):
            break
        rebuilt = grown
    return rebuilt


def _by_sweeps(marker: Tensor, ceiling: Tensor) -> Tensor:
    """Reconstruct by sweeps down, up, right and left, each of which follows a path as far as it keeps to its direction.

    They are many small operations, but three rounds of them do what 69 passes do. Written by Vincent (1993, IEEE Trans.
    Image Processing 2, 176) for one pixel after the other; here a whole row goes at a time, for all frames.
    """
    count, side, _ = marker.shape
    # Frames last, so that rows are in one piece, and a border that lets nothing through.
    down = marker.new_full((side, side + 2, count), -torch.inf)
    across = down.clone()
    down[:, 1:-1] = torch.minimum(dilate(marker), ceiling).permute(1, 2, 0)  # a marker may stand above the ceiling
    ceilings, turned = ceiling.permute(1, 2, 0).contiguous(), ceiling.permute(2, 1, 0).contiguous()
    for _ in range(side**2):
        _sweep(down, ceilings)
        across[:, 1:-1] = down[:, 1:-1].transpose(0, 1)
        _sweep(across, turned)
        down[:, 1:-1] = across[:, 1:-1].transpose(0, 1)
        rebuilt = down[:, 1:-1].permute(2, 0, 1).contiguous()
        if torch.equal(torch.minimum(dilate(rebuilt), ceiling), rebuilt):
            break
    return rebuilt


def _sweep(planes: Tensor, ceiling: Tensor) -> None:
    """Dilate planes (S, S + 2, N) in place under a ceiling (S, S, N), row by row downwards, then upwards."""
    left, middle, right = (planes[:, k : k + ceiling.shape[1]].unbind() for k in range(3))
    rows = range(len(ceiling))
    best = torch.empty_like(ceiling[0])
    for order in (rows, rows[::-1]):
        for above, row in pairwise(order):
            torch.maximum(left[above], right[above], out=best)
            torch.maximum(best, middle[above], out=best)
            torch.clamp(best, middle[row], ceiling[row], out=middle[row])


def _is_recorded(planes: Tensor) -> bool:
    """Tell whether what is done with the planes goes into a CUDA graph, or is compiled for one."""
    return planes.is_cuda and (torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing())


def dilate(planes: Tensor) -> Tensor:
    """Return the largest value among each pixel of planes (N, S, S) and its eight neighbours.

    The planes are of any real dtype on a CPU, and of floating point on a GPU.
    """
    if planes.device.type in _POOLING:
        return F.max_pool2d(planes[:, None], 3, stride=1, padding=1)[:, 0]
    wide = planes.clone()
    torch.maximum(wide[:, :, 1:], planes[:, :, :-1], out=wide[:, :, 1:])
    torch.maximum(wide[:, :, :-1], planes[:, :, 1:], out=wide[:, :, :-1])
    grown = wide.clone()
    torch.maximum(grown[:, 1:], wide[:, :-1], out=grown[:, 1:])
    torch.maximum(grown[:, :-1], wide[:, 1:], out=grown[:, :-1])
    return grown
