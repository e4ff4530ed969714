"""Measure spiral arms: how strong they are, how many, how tightly and which way they are wound.

The disc is seen face-on in polar coordinates of log radius and azimuth, its smooth light is taken off, and what is left
is decomposed into logarithmic spirals of m arms (Kalnajs 1975; Puerari & Dottori 1992, A&AS 93, 469; Davis et al. 2012,
ApJS 199, 33). Most of the power in those is no spiral: bars, companions, a wrong inclination and dust have it, too. But
all that is mirror-symmetric winds one way as much as the other, and so does noise on average. Arms alone do not: what
counts here is the power that winds one way less that which winds the other, as Davis & Hayes (2014, ApJ 790, 87) let
the segments of arms vote on the sense of winding.

Everything is batched over (N, S, S) planes and runs wherever they are, in real numbers of single precision.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.measure.frame import kept
from galaxies.measure.sky import DETECTION_SMOOTHING, Sky
from galaxies.measure.source import Source

MOST_ARMS = 6
VISIBLE_ARMS = 0.093  # of `arm_strength`, which 5 % of real ellipticals are above (`studies/arms.py`)
TIGHTEST, LOOSEST = 12.0, 55.0  # degrees of pitch; rings lie beyond the one, bars and wrong inclinations the other

_OUTER = 0.85  # semi-major axes of the source's mask, within which arms are looked for
_INNER = 0.15  # of that radius
_BLURRED = 1.5 / 64  # frame widths of a ring's minor axis, below which pixels and PSF make its shape
_RINGS, _AZIMUTHS = 40, 64
_STEP = 0.25  # of the frequency in log radius
_BRIGHTEST = 1.0  # times the smooth light that arms may add to it; a star adds more
_BRIGHT_RING = 900.0  # signal to noise, a unit of log radius, of rings that count half
_NOISE_SIGMA = 2.0  # of the power that is taken off: what noise alone gives reaches it in one of 20 galaxies
_COVERED = 0.5  # part of a ring that must be seen for it to count
_LEAST_AXIS_RATIO = 0.25  # of a disc; a flatter one is seen from its side
_CERTAIN = 0.6  # part of a sample that must come from pixels that are the galaxy's


class Arms(NamedTuple):
    """Spiral arms of N galaxies: tensors (N,) in the images' floating type, always finite.

    Attributes
    ----------
    arm_strength : Tensor
        Amplitude of the arms, of two or more, over the smooth light at the same radius: of a disc with the light
        1 + a cos(m (azimuth - ln r / tan pitch)) it is a, of several such patterns the root of the summed squares. What
        winds the other way is taken off, in squares, and what noise alone gives: 0 without arms.
    arm_count : Tensor
        Number of arms, 1 to 6: that of the pattern which has most of the power. It means nothing where there are none.
    pitch : Tensor
        Angle between this pattern's arms and a circle, degrees, 12 to 55: positive where their azimuth, from +x (along
        rows) towards +y (down columns), grows outwards, negative where it falls.
    """

    arm_strength: Tensor
    arm_count: Tensor
    pitch: Tensor


def measure_arms(
    light: Tensor, source: Source, sky: Sky, centre: Tensor, position_angle: Tensor, ellipticity: Tensor
) -> Arms:
    """Measure the arms of galaxies, neighbours left out.

    Parameters
    ----------
    light : Tensor, (N, S, S), floating point
        Sky-subtracted planes.
    source, sky : Source, Sky
        What was found in them.
    centre : Tensor, (N, 2)
        Of the disc: x and y in pixels from the frame's centre.
    position_angle, ellipticity : Tensor, (N,)
        Degrees from +x towards +y, and 1 - b/a, of the disc as a circle that is inclined.
    """
    side = light.shape[-1]
    axis_ratio = (1 - ellipticity).clamp(_LEAST_AXIS_RATIO, 1)
    area = source.mask.sum((1, 2)).clamp_min(1)
    outer = _OUTER * (area / (math.pi * axis_ratio)).sqrt()  # (N,) pixels
    own = ~source.neighbours & (light <= source.plateau)
    planes, seen = _unrolled(torch.stack([light, own.to(light.dtype)], 1), centre, position_angle, axis_ratio, outer)
    log_radius = _log_radii(light.dtype, light.device)
    radius = outer[:, None] * log_radius.exp()  # (N, R)
    smooth, contrast, covered = _without_smooth(planes[:, 0], seen & (planes[:, 1] > _CERTAIN))

    # Pixels that a ring has, in the plane of the sky, and the noise of a pixel as it were white.
    pixels = 2 * math.pi * axis_ratio[:, None] * radius.square() * -log_radius[0] / (_RINGS - 1)
    noise = sky.sigma * math.sqrt(4 * math.pi) * DETECTION_SMOOTHING * side
    variance = (noise[:, None] / smooth).square() / pixels  # of a ring's coefficients
    usable = (covered > _COVERED) & (radius * axis_ratio[:, None] >= _BLURRED * side)
    weight = usable / (1 + variance * _BRIGHT_RING**2 * -log_radius[0] / (_RINGS - 1))
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)

    power, spectrum = _wound(contrast, weight)  # (N, 6), (N, 6, P)
    spread = _noise_power(weight.square() * variance)  # (N, 6)
    # Of a pattern with the amplitude 1 a spectrum of these weights holds this, whatever its frequency (Parseval).
    whole = weight.square().sum(1) * (_RINGS - 1) / -log_radius[0] * 2 * math.pi
    net = power[:, 1:].sum(1)
    noise_power = spread[:, 1:].square().sum(1).sqrt()
    strength = ((net.abs() - _NOISE_SIGMA * noise_power).clamp_min(0) / whole.clamp_min(1e-6)).sqrt()

    winding = torch.where(net < 0, -1.0, 1.0)
    most = (power * winding[:, None]).argmax(1)
    return Arms(strength, (most + 1).to(light.dtype), winding * _pitch(spectrum * winding[:, None, None], most))


def _unrolled(
    planes: Tensor, centre: Tensor, position_angle: Tensor, axis_ratio: Tensor, outer: Tensor
) -> tuple[Tensor, Tensor]:
    """Sample planes (N, C, S, S) on the face of the disc, (N, C, R, A), and tell what of it the frame shows."""
    side = planes.shape[-1]
    radius = outer[:, None, None] * _log_radii(planes.dtype, planes.device).exp()[:, None]
    azimuth = _azimuths(planes.dtype, planes.device)
    along, across = radius * azimuth.cos(), radius * azimuth.sin() * axis_ratio[:, None, None]  # (N, R, A)
    angle = torch.deg2rad(position_angle)[:, None, None]
    x = centre[:, 0, None, None] + angle.cos() * along - angle.sin() * across
    y = centre[:, 1, None, None] + angle.sin() * along + angle.cos() * across
    seen = torch.maximum(x.abs(), y.abs()) <= (side - 1) / 2
    places = torch.stack([x, y], -1) * (2 / side)
    return F.grid_sample(planes, places, align_corners=False), seen


def _without_smooth(light: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the smooth light of rings (N, R), the contrast with it (N, R, A), 0 on average, and the known part (N, R).

    The smooth light of a ring is the median of what is known of it, which neither arms nor stars move much.
    """
    lowest = light.masked_fill(~known, torch.inf).sort(2).values
    count = known.sum(2)
    smooth = lowest.gather(2, ((count - 1).clamp_min(0) // 2)[:, :, None])[:, :, 0]
    smooth = torch.where(count > 0, smooth, 0)
    # Where there is next to no light, what is there is next to nothing.
    smooth = smooth.maximum(1e-3 * smooth.amax(1, keepdim=True)).clamp_min(1e-6)
    contrast = (light / smooth[:, :, None] - 1).clamp(-_BRIGHTEST, _BRIGHTEST).where(known, 0)
    mean = contrast.sum(2) / count.clamp_min(1)
    return smooth, (contrast - mean[:, :, None]).where(known, 0), count / light.shape[2]


def _wound(contrast: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Decompose contrast (N, R, A) into spirals of 1 to 6 arms; return what winds one way more than the other.

    With a_m(r) = <contrast exp(-i m azimuth)> and A(m, p) = sum of weight a_m exp(i p ln r), p > 0 stands for arms
    whose azimuth grows outwards with tan(pitch) = m / p, and -p for their mirror image.

    Returns
    -------
    power : Tensor, (N, 6)
        4 (|A(m, p)|^2 - |A(m, -p)|^2), summed over frequencies.
    spectrum : Tensor, (N, 6, P)
        Of it at each frequency.
    """
    cos_turns, sin_turns = _turns(contrast.dtype, contrast.device)  # (A, 6)
    real, imaginary = ((contrast @ part).transpose(1, 2) * weight[:, None] for part in (cos_turns, sin_turns))
    cos_waves, sin_waves, allowed = _waves(contrast.dtype, contrast.device)  # (R, P), (6, P)
    # a_m = real - i imaginary. Of |A(p)|^2 - |A(-p)|^2 only the products of what is even and odd in p remain.
    odd = (real @ sin_waves) * (imaginary @ cos_waves) - (real @ cos_waves) * (imaginary @ sin_waves)
    spectrum = -16 * odd * allowed
    return spectrum.sum(2) * _STEP, spectrum


def _noise_power(variance: Tensor) -> Tensor:
    """Return the standard deviation (N, 6) of `_wound`'s power for noise, of weighted rings' variances (N, R).

    The power is a quadratic form in the coefficients of rings, which noise makes independent normal numbers.
    """
    form = _form(variance.dtype, variance.device)  # (6, R, R)
    return ((variance[:, None, None] @ form)[:, :, 0] * variance[:, None]).sum(2).sqrt()


def _pitch(spectrum: Tensor, most: Tensor) -> Tensor:
    """Return the pitch (N,), degrees, at the peak of spectra (N, 6, P), in the row `most` (N,) of each."""
    row = spectrum.gather(1, most[:, None, None].expand(-1, 1, spectrum.shape[2]))[:, 0]
    peak = row.argmax(1, keepdim=True).clamp(1, row.shape[1] - 2)
    before, top, after = (row.gather(1, peak + step)[:, 0] for step in (-1, 0, 1))
    curvature = (2 * top - before - after).clamp_min(1e-12)
    # Between samples the peak is a parabola's, unless it lies at an end of what is looked at.
    shift = torch.where(torch.minimum(before, after) > 0, (after - before) / (2 * curvature), 0).clamp(-0.5, 0.5)
    frequency = _STEP * (peak[:, 0] + 1 + shift)
    return torch.rad2deg(torch.atan2((most + 1).to(row.dtype), frequency)).clamp(TIGHTEST, LOOSEST)


def _log_radii(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the logarithms (R,) of the rings' radii over the outermost."""
    return torch.linspace(math.log(_INNER), 0, _RINGS, dtype=dtype, device=device)


def _azimuths(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(_AZIMUTHS, dtype=dtype, device=device) * (2 * math.pi / _AZIMUTHS)


@kept
def _turns(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (A, 6), over the number of azimuths, whose products with a ring are its coefficients."""
    phase = _azimuths(dtype, device)[:, None] * torch.arange(1, MOST_ARMS + 1, dtype=dtype, device=device)
    return phase.cos() / _AZIMUTHS, phase.sin() / _AZIMUTHS


def _frequencies(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return frequencies in log radius (P,), and which of them (6, P) arms of a pitch that is looked for have."""
    highest = MOST_ARMS / math.tan(math.radians(TIGHTEST))
    frequency = torch.arange(1, math.ceil(highest / _STEP) + 1, dtype=dtype, device=device) * _STEP
    number = torch.arange(1, MOST_ARMS + 1, dtype=dtype, device=device)[:, None]
    slowest, fastest = (number / math.tan(math.radians(pitch)) for pitch in (LOOSEST, TIGHTEST))
    return frequency, ((frequency >= slowest) & (frequency <= fastest)).to(dtype)


@kept
def _waves(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return cosines and sines (R, P) of the waves in log radius, and which of them count (6, P)."""
    frequency, allowed = _frequencies(dtype, device)
    phase = _log_radii(dtype, device)[:, None] * frequency
    return phase.cos(), phase.sin(), allowed


@kept
def _form(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the squared quadratic forms (6, R, R) by which rings' coefficients make `_wound`'s power."""
    frequency, allowed = _frequencies(dtype, device)
    log_radius = _log_radii(dtype, device)
    sines = torch.sin((log_radius[:, None] - log_radius)[..., None] * frequency)  # (R, R, P)
    return torch.einsum("rsp,mp->mrs", sines, allowed).mul(8 * _STEP).square()
