"""Bring two sets of galaxies to one blur and one noise, so that what still differs are the galaxies.

Of flux whose point-spread functions are known, each galaxy is convolved to the width that the galaxy of its rank in the
other set has, where that is broader, and gets noise until it is as noisy, and white: matched are distributions, not
medians. Pictures do not say what blurred them. What can be measured is the grain of their sky: its strength in each
plane, how far planes share it, and how far neighbouring pixels do, which shows a blur that came after the noise (a
resampling, a compression, a smoothed copy). The blur of a telescope comes before the noise, and leaves no trace in the
grain: of pictures it stays with the galaxies here, and nobody can tell it from galaxies that are smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from galaxies.datasets.flux_preparing import sky_noise
from galaxies.measure.sky import measure_noise, plane_correlations, sky_level
from galaxies.telescope.profiles import GAUSSIAN, profile_of

_TINY = 1e-12
_ALIKE = 0.02  # relative difference of widths up to which nothing is convolved
_LOOKED_AT = 256  # pictures by which the blur of a grain is found
_LEAST_GRAIN = 1.0 / 255  # display units; weaker is mostly the rounding to 8 bits
_WIDEST_PX = 3.0  # standard deviation of the widest blur that is tried on pictures
_STEPS = 12
_BLOCK = 256


@dataclass(frozen=True)
class Observed:
    """A set of images and what is known of how they were observed.

    Attributes
    ----------
    images : Tensor, (N, B, S, S)
        As stored: uint8 of a display, or float32, nJy a pixel.
    noise, psf_fwhm : ndarray, (N, B)
        Of flux, nJy a pixel and arcsec; NaN where unknown.
    psf_profile : str
        Empty where unknown.
    """

    images: Tensor
    noise: np.ndarray
    psf_fwhm: np.ndarray
    psf_profile: str = ""


@dataclass(frozen=True)
class Matched:
    """Two sets as one telescope would have seen them.

    Attributes
    ----------
    images : (Tensor, Tensor), as the sets were
    done : list of str
        What was done, in words.
    unknown : str
        What could not be matched, a sentence; empty for nothing.
    """

    images: tuple[Tensor, Tensor]
    done: list[str]
    unknown: str


def at_least(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for values (N,) what the values (M,) of another set have at the same rank, where that is more.

    With it both sets get one distribution, the larger of the two at each rank. NaN stays NaN.
    """
    known, there = np.isfinite(own), other[np.isfinite(other)]
    if not known.any() or not len(there):
        return own
    result = own.copy()
    rank = (own[known].argsort(kind="stable").argsort(kind="stable") + 0.5) / known.sum()
    result[known] = np.maximum(own[known], np.quantile(there, rank))
    return result


def match_flux(one: Observed, other: Observed, pixel_scale: float, seed: int) -> Matched:
    """Convolve both sets of flux to the broader point-spread functions, and add noise up to the noisier.

    Kernels are ratios of transfer functions where both sets have the same profile, and Gaussians else. The noise of a
    pixel is taken as its own before. Photon noise of the sources is not added.

    Parameters
    ----------
    one, other : Observed
        N and M galaxies in the same bands, on the same pixels.
    pixel_scale : float
        Arcseconds.
    seed : int
        Of the noise.
    """
    noises = [np.where(np.isfinite(part.noise), part.noise, _measured_noise(part)) for part in (one, other)]
    widths = [part.psf_fwhm for part in (one, other)]
    blurred = all(np.isfinite(part).any(0).all() for part in widths)
    same = one.psf_profile == other.psf_profile and bool(one.psf_profile)
    profile = one.psf_profile if same else GAUSSIAN
    images = []
    for place, part in enumerate((one, other)):
        own, there = widths[place], widths[1 - place]
        goal = np.stack([at_least(a, b) for a, b in zip(own.T, there.T, strict=True)], 1) if blurred else own
        noise = np.stack([at_least(a, b) for a, b in zip(noises[place].T, noises[1 - place].T, strict=True)], 1)
        images.append(_observed(part.images, own, goal, noises[place], noise, pixel_scale, profile, seed + place))
    how = f"by the ratio of their transfer functions, {profile}" if same else "with Gaussians"
    done = [f"each galaxy convolved to the broader point-spread function of its rank {how}"] if blurred else []
    done.append("white noise added until each is as noisy as the noisier of its rank")
    unknown = "" if blurred else "the width of the point-spread function is not known of both sets, so that a blur that"
    return Matched((images[0], images[1]), done, unknown and f"{unknown} one of them has more of counts as galaxies")


def _measured_noise(part: Observed) -> np.ndarray:
    blocks = part.images.split(_BLOCK)
    return np.nan_to_num(np.concatenate([sky_noise(block.numpy()) for block in blocks]), nan=0.0)


def _observed(
    images: Tensor,
    own: np.ndarray,
    goal: np.ndarray,
    noise: np.ndarray,
    wanted: np.ndarray,
    pixel_scale: float,
    profile: str,
    seed: int,
) -> Tensor:
    """Return flux (N, B, S, S) of PSFs `own` as of `goal`, with white noise of `wanted` where it had `noise`."""
    side = images.shape[-1]
    margin = side // 4
    whole = side + 2 * margin
    squared = torch.fft.fftfreq(whole)[:, None] ** 2 + torch.fft.rfftfreq(whole)[None, :] ** 2
    squared = (squared / pixel_scale**2).float()
    transfer = profile_of(profile)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(images), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = images[rows].float()
        first, last = (torch.from_numpy(np.nan_to_num(w[rows], nan=0.0)).float()[..., None, None] for w in (own, goal))
        if profile == GAUSSIAN:
            gain = transfer(squared, (last.square() - first.square()).clamp_min(0).sqrt())
        else:
            gain = transfer(squared, last) / transfer(squared, first).clamp_min(_TINY)
        gain = torch.where(last > (1 + _ALIKE) * first, gain.clamp(max=1), torch.ones(()))
        has, wants = (torch.from_numpy(part[rows]).float()[..., None, None] for part in (noise, wanted))
        lacks = (wants.square() - has.square() * gain.square()).clamp_min(0).sqrt()
        padded = F.pad(block, (margin, margin, margin, margin), mode="reflect")
        normal = torch.randn(padded.shape, generator=generator)
        waves = torch.fft.rfft2(padded) * gain + torch.fft.rfft2(normal) * lacks
        made = torch.fft.irfft2(waves, s=(whole, whole))[..., margin : margin + side, margin : margin + side]
        # What needs neither blur nor noise stays as it is, bit for bit.
        changed = (gain < 1).any(-1).any(-1) | (lacks > 1e-3 * wants).any(-1).any(-1)
        parts.append(torch.where(changed[..., None, None], made, block))
    return torch.cat(parts)


def match_pictures(one: Tensor, other: Tensor, seed: int) -> Matched:
    """Bring two sets of display pictures to one grain: its blur, the level of the sky, and its strength.

    The set whose grain is shared less by neighbouring pixels is smoothed by the Gaussian that makes up for it; then
    each picture's sky is raised to what the picture of its rank in the other set has, and noise added: with the part
    above zero of the difference of the covariance matrices of the grain in the three planes, of the pictures of a rank.
    Both sets then have one covariance, the least that either can be brought to in such a way.

    Parameters
    ----------
    one, other : Tensor, (N, 3, S, S) and (M, 3, S, S), uint8
    seed : int
        Of the noise.
    """
    unknown = (
        "pictures do not say what blurred them: a point-spread function that is broader leaves no trace in the grain "
        "of the sky, and counts as galaxies here"
    )
    sets, done = [one, other], []
    grains = [_grain(images) for images in sets]
    if min(float(np.median(grain.level)) for grain in grains) < _LEAST_GRAIN:
        unknown = f"the sky of one set shows no grain, by which a blur after the noise could be told; and {unknown}"
    else:
        shared = [float(np.median(grain.correlation)) for grain in grains]
        place = int(shared[1] < shared[0])  # whose grain is sharper
        width = _width_for(sets[place], shared[1 - place])
        if width > 0.1:
            sets[place] = _blurred(sets[place], width)
            grains[place] = _grain(sets[place])
            which = ("the compared set", "the reference")[place]
            done.append(
                f"{which} smoothed by a Gaussian of {width:.2f} pixels (standard deviation), as the grain shows"
            )
    made = []
    for place in (0, 1):
        own, there = grains[place], grains[1 - place]
        sky = np.stack([at_least(a, b) for a, b in zip(own.sky.T, there.sky.T, strict=True)], 1)
        model = max(own, there, key=lambda grain: float(np.median(grain.level)))
        made.append(_with_grain(sets[place], sky - own.sky, _lacking(own, there), model, seed + place))
    done.append(
        "the sky raised, and grain added, to the brighter and the grainier picture of each rank, in each plane and as "
        "the planes share it"
    )
    return Matched((made[0], made[1]), done, unknown)


@dataclass(frozen=True)
class _Grain:
    """Of N pictures: level and sky (N, 3), display units; correlation of neighbours (N,), and of planes, (3, 3)."""

    level: np.ndarray
    sky: np.ndarray
    correlation: np.ndarray
    planes: np.ndarray


@torch.inference_mode()
def _grain(images: Tensor) -> _Grain:
    parts = []
    for block in images.split(_BLOCK):
        shades = block.float() / 255
        noise = measure_noise(shades)
        parts.append((noise.level, sky_level(shades), noise.correlation, plane_correlations(shades)))
    level, sky, correlation, shared = (torch.cat(column).double().numpy() for column in zip(*parts, strict=True))
    # Of the whole set, since that of one picture is known to a tenth.
    (red_green, green_blue, blue_red), planes = np.median(shared, 0), np.eye(3)
    planes[[0, 1, 2], [1, 2, 0]] = planes[[1, 2, 0], [0, 1, 2]] = red_green, green_blue, blue_red
    return _Grain(level, sky, correlation, planes)


def _lacking(own: _Grain, there: _Grain) -> np.ndarray:
    """Return what turns three independent standard normal numbers into the grain that pictures lack, (N, 3, 3)."""
    rank = (own.level.argsort(0, kind="stable").argsort(0, kind="stable") + 0.5) / len(own.level)
    goal = np.stack([np.quantile(level, place) for level, place in zip(there.level.T, rank.T, strict=True)], 1)
    has, wants = (
        level[:, :, None] * planes * level[:, None, :]
        for level, planes in ((own.level, own.planes), (goal, there.planes))
    )
    sizes, axes = np.linalg.eigh(wants - has)
    return axes * np.sqrt(np.maximum(sizes, 0.0))[:, None, :]


def _width_for(images: Tensor, correlation: float) -> float:
    """Return the standard deviation in pixels of the blur after which the grain of pictures has a correlation."""
    some = images[:_LOOKED_AT]
    low, high = 0.0, _WIDEST_PX
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if float(np.median(_grain(_blurred(some, middle)).correlation)) < correlation:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _smoothing(width: float) -> Callable[[Tensor], Tensor]:
    """Return a convolution with a Gaussian, in pixels; beyond the frame its reflection goes on."""
    reach = max(1, math.ceil(3 * width))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(width, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()

    def smoothed(images: Tensor) -> Tensor:
        planes = images.flatten(0, 1)[:, None]
        planes = F.pad(planes, (reach, reach, reach, reach), mode="reflect")
        planes = F.conv2d(F.conv2d(planes, kernel[None, None, None]), kernel[None, None, :, None])
        return planes[:, 0].unflatten(0, images.shape[:2])

    return smoothed


def _blurred(images: Tensor, width: float) -> Tensor:
    """Return pictures (N, 3, S, S), uint8, smoothed by a Gaussian of a standard deviation in pixels."""
    smooth = _smoothing(width)
    return torch.cat([smooth(block.float()).round().clamp(0, 255).to(torch.uint8) for block in images.split(_BLOCK)])


def _with_grain(images: Tensor, raised: np.ndarray, lacks: np.ndarray, like: _Grain, seed: int) -> Tensor:
    """Return pictures with the sky raised (N, 3), and noise added (see `_lacking`) as sharp as the grain of a set."""
    generator = torch.Generator().manual_seed(seed)
    correlation = float(np.clip(np.median(like.correlation), 0, 0.95))
    # Neighbours of white noise that a Gaussian of s pixels smoothed are correlated by exp(-1 / 4 s^2).
    width = math.sqrt(-1 / (4 * math.log(correlation))) if correlation > 0.02 else 0.0
    smooth = _smoothing(width) if width > 0.1 else lambda noise: noise
    parts = []
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        noise = smooth(torch.randn(block.shape, generator=generator))
        noise = noise / noise.std(dim=(2, 3), keepdim=True)
        sky, mixing = (255 * torch.from_numpy(part[start : start + _BLOCK]).float() for part in (raised, lacks))
        added = sky[..., None, None] + torch.einsum("nij,njkl->nikl", mixing, noise)
        parts.append((block.float() + added).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)
