"""Light out of what a network paints, and the telescope of the training data that observes it.

The picture that a telescope takes is known physics but for the galaxy in it. So a network paints the galaxy's light
alone, finer than the pixels of the data, and the telescope of a real galaxy observes it: point-spread function, pixels
and noise. Whoever compares compares what was observed (AmbientGAN: Bora, Price & Dimakis 2018).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from galaxies.images.stretch import NOISE_SOFTENING, AsinhStretch, inverse_sine, stretched
from galaxies.networks.turning import beyond_frame, bordered
from galaxies.telescope.exposure import Exposure
from galaxies.telescope.observing import Noise, noisy, observe
from galaxies.telescope.profiles import profile_of
from galaxies.telescope.psf import Psf, PsfImages

NUM_EXPOSURES = 64  # that are kept, to observe with where no real galaxy stands beside
_DARK = -4.0  # what a network paints of the sky, 0, gives next to no light: 0.02 softenings
_MOST = 40.0  # inverse hyperbolic sine beyond which no galaxy's light lies, and single precision ends
# Pixels of the light at the border that are not taken as painted but from beside them: there a network convolves with
# what it pads maps by, which would be a rim about every galaxy that fills the frame (Karras et al. 2021, section 3.2).
_RIM = 6
_APRON = 4  # pixels of the telescope beyond the frame, from where its blur brings light in
# Weights along each axis: half of what light has at the frequency of the fine pixels themselves passes, of which the
# telescope sees nothing. Less would leave the pixels' own pattern; (1/4, 1/2, 1/4), with nothing left, flattens cusps.
_SMOOTH = (0.125, 0.75, 0.125)
# Of the noise's distribution, at which the stretch is averaged: places, and weights of sum 1.
_NOISE_NODES, _NOISE_WEIGHTS = (each.tolist() for each in np.polynomial.hermite_e.hermegauss(7))
_NOISE_SHARES = [weight / sum(_NOISE_WEIGHTS) for weight in _NOISE_WEIGHTS]


class LightTelescope(nn.Module):
    """Make light of what a network paints, and observe it.

    Parameters
    ----------
    image_size : int
        S, pixels of the telescope a side.
    oversampling : int
        k, pixels of the light for one of the telescope's along each axis.
    softening : tuple of float, B of them
        Of the stretch, nJy a pixel of the telescope.
    profile : str
        Shape of point-spread functions of which the width alone is known, see `telescope.profiles.profile_of`.
    psf_pixels : int
        P, of the point-spread functions that are images, 0 for none.
    """

    softening: Tensor
    kernel: Tensor  # (3, 3), of sum 1
    pixel_scale: Tensor  # (K,), of the kept exposures, as the next
    psf_fwhm: Tensor  # (K, B)
    noise: Tensor  # (K, B)
    psfs: Tensor  # (K, B, P, P)
    photons: Tensor  # (B,), nJy: variance that a nanojansky of light adds

    def __init__(
        self, image_size: int, oversampling: int, softening: tuple[float, ...], profile: str, psf_pixels: int = 0
    ) -> None:
        super().__init__()
        num_bands = len(softening)
        self.oversampling = oversampling
        self.white = (num_bands, image_size, image_size)
        self._profile = profile_of(profile)
        self.register_buffer("softening", torch.tensor(softening), persistent=False)
        taps = torch.tensor(_SMOOTH)
        self.register_buffer("kernel", taps[:, None] * taps, persistent=False)
        for name, shape in (
            ("pixel_scale", (NUM_EXPOSURES,)),
            ("psf_fwhm", (NUM_EXPOSURES, num_bands)),
            ("noise", (NUM_EXPOSURES, num_bands)),
            ("psfs", (NUM_EXPOSURES, num_bands, psf_pixels, psf_pixels)),
            ("photons", (num_bands,)),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self.pixel_scale.fill_(1.0)
        if psf_pixels:
            self.psfs[..., psf_pixels // 2, psf_pixels // 2] = 1.0
        self.noise.copy_(self.softening / NOISE_SOFTENING)

    @torch.no_grad()
    def learn(self, exposures: Exposure, photons: Tensor) -> None:
        """Keep exposures of the training data, at most `NUM_EXPOSURES` (fewer are repeated), and photon noise (B,)."""
        rows = torch.arange(NUM_EXPOSURES, device=exposures.noise.device) % len(exposures.noise)
        kept = exposures.of(rows)
        self.pixel_scale.copy_(kept.pixel_scale)
        self.psf_fwhm.copy_(kept.psf_fwhm)
        self.noise.copy_(kept.noise)
        if kept.psfs is not None:
            self.psfs.copy_(kept.psfs)
        self.photons.copy_(photons)

    def light_of(self, painted: Tensor) -> Tensor:
        """Return light of planes of any values (N, B, k S, k S): float32, nJy a fine pixel, never below 0.

        It has half of what is painted at the frequency of the fine pixels themselves.
        """
        with torch.autocast(painted.device.type, enabled=False):
            brightness = F.softplus(inverse_sine(painted.float()) + _DARK).clamp_max(_MOST)
            # A softening is that of a pixel of the telescope, of which many of the light's make one.
            light = brightness.sinh() * (self.softening / self.oversampling**2)[:, None, None]
            return _smoothed(beyond_frame(light[..., _RIM:-_RIM, _RIM:-_RIM], _RIM), self.kernel)

    def painting_of(self, flux: Tensor) -> Tensor:
        """Return the planes that `light_of` makes flux of, but for the border and smoothing.

        Parameters
        ----------
        flux : Tensor, (N, B, ...)
            nJy a pixel of the telescope; what is below 0.02 softenings is painted as that.
        """
        brightness = torch.asinh(flux / self.softening[:, None, None]).clamp_min(math.exp(_DARK))
        return stretched(brightness + torch.log(-torch.expm1(-brightness)) - _DARK)

    def observed(self, light: Tensor, exposure: Exposure, white: Tensor | None) -> Tensor:
        """Return what a telescope sees of light (N, B, k S, k S), with noise of standard normal numbers, or without.

        Parameters
        ----------
        light : Tensor, (N, B, k S, k S)
            nJy a fine pixel.
        exposure : Exposure
        white : Tensor, (N, B, S, S), or None

        Returns
        -------
        Tensor, (N, B, S, S)
            nJy a pixel.
        """
        with torch.autocast(light.device.type, enabled=False):
            psf = Psf(exposure.psf_fwhm, self._profile) if exposure.psfs is None else PsfImages(exposure.psfs)
            light = beyond_frame(light, _APRON * self.oversampling)
            seen = observe(light, psf, exposure.pixel_scale, oversampling=self.oversampling)
            seen = seen[..., _APRON:-_APRON, _APRON:-_APRON]
            return seen if white is None else self.with_noise(seen, exposure, white)

    def with_noise(self, seen: Tensor, exposure: Exposure, white: Tensor) -> Tensor:
        """Return what is seen without noise (N, B, S, S) with that of an exposure, of standard normal numbers."""
        return noisy(seen, Noise(exposure.noise, self.photons), white.float())

    def stretched(self, light: Tensor, exposure: Exposure, white: Tensor | None) -> Tensor:
        """Return what `observed` does, stretched for networks."""
        return self.stretch(self.observed(light, exposure, white))

    @property
    def stretch(self) -> AsinhStretch:
        """How flux becomes what networks see."""
        return AsinhStretch(self.softening)

    def noisy_moments(self, seen: Tensor, exposure: Exposure) -> tuple[Tensor, Tensor]:
        """Return mean and variance, over the noise of an exposure, of stretched pictures of what is seen.

        The stretch bends what is normally distributed, so that its mean is not the stretched mean: the integral over
        the noise is done by Gauss and Hermite's rule of seven points.

        Parameters
        ----------
        seen : Tensor, (N, B, S, S)
            nJy a pixel, without noise.
        exposure : Exposure

        Returns
        -------
        mean, variance : Tensor, (N, B, S, S)
        """
        with torch.autocast(seen.device.type, enabled=False):
            values = [self.stretch(self.with_noise(seen, exposure, torch.full_like(seen, z))) for z in _NOISE_NODES]
            mean = torch.stack([share * value for share, value in zip(_NOISE_SHARES, values, strict=True)]).sum(0)
            squares = [share * (value - mean).square() for share, value in zip(_NOISE_SHARES, values, strict=True)]
            return mean, torch.stack(squares).sum(0)

    def kept(self) -> Exposure:
        """Return the K exposures of the training data that are kept."""
        return Exposure(self.pixel_scale, self.psf_fwhm, self.noise, self.psfs if self.psfs.shape[-1] else None)

    def kept_exposure(self, chosen: Tensor) -> Exposure:
        """Return an exposure of the training data for each of standard normal numbers (N,), all equally likely."""
        place = (torch.special.ndtr(chosen.float()) * NUM_EXPOSURES).long().clamp(0, NUM_EXPOSURES - 1)
        return self.kept().of(place)


def _smoothed(light: Tensor, kernel: Tensor) -> Tensor:
    """Spread some of each pixel's light over its neighbours: little is left of the pattern of the pixels themselves."""
    return F.conv2d(bordered(light, 1), kernel.expand(light.shape[1], 1, 3, 3), groups=light.shape[1])
